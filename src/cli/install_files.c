/* The files that an install writes for a container runtime: programs, kubeconfig, network
 * configuration. Each appears whole or not at all (a new file renamed over the old one), and only
 * when it differs from what is there. Nothing is followed or kept at the target: a link, or a
 * file with other permissions, is replaced. */
#include "cli/install.h"

#include "base/arena.h"
#include "base/fd.h"
#include "cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROGRAM_BYTES_MAX = 64 << 20, SECRET_BYTES_MAX = 1 << 20 };

static const char *const programs[] = {"margay-cni", "margay-ipam"};

/* Is exactly this there already: a file of its own, with content and permissions? */
static bool is_there(const char *path, struct str content, unsigned mode) {
    struct stat st;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(PROGRAM_BYTES_MAX + 65536);
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 07777) == mode &&
           (size_t)st.st_size == content.n && file_read(-1, path, &b, PROGRAM_BYTES_MAX) == 0 &&
           str_eq(buf_view(&b), content);
}

/* Writes what differs, and looks at it again. */
static int put(struct install *in, const char *path, struct str content, unsigned mode) {
    struct stat st;
    if (is_there(path, content, mode)) {
        if (!in->is_quiet) {
            install_say(in, path, "unchanged");
        }
        return 0;
    }
    bool is_new = lstat(path, &st) < 0;
    if (!is_new && S_ISDIR(st.st_mode)) {
        return cli_error("%s is a folder, expected a file or nothing: remove it", path);
    }
    if (!in->is_dry) {
        int r = file_replace(AT_FDCWD, path, content, mode);
        if (r < 0) {
            return cli_error("%s: %s (is the file system writable?)", path, strerror(-r));
        }
        if (!is_there(path, content, mode)) {
            return cli_error("%s is not what was written to it: somebody else writes it too", path);
        }
    }
    in->has_changed = true;
    install_say(in, path, is_new ? "created" : "replaced");
    return 0;
}

/* Makes a folder and those above it. */
static int make_dirs(struct install *in, const char *path) {
    char p[PATH_MAX];
    struct stat st;
    if (stat(path, &st) == 0) {
        return S_ISDIR(st.st_mode) ? 0 : cli_error("%s is not a folder", path);
    }
    if (in->is_dry) {
        install_say(in, path, "created");
        return 0;
    }
    (void)snprintf(p, sizeof(p), "%s", path);
    for (char *c = p + 1;; c++) {
        char was = *c;
        if (was == '/' || was == '\0') {
            *c = '\0';
            if (mkdir(p, 0755) < 0 && errno != EEXIST) {
                return cli_error("%s: %s", p, strerror(errno));
            }
            *c = was;
        }
        if (was == '\0') {
            return 0;
        }
    }
}

/* ---- programs ---- */

/* The folder where programs are to be copied from. */
static bool find_source(const struct install *in, char out[PATH_MAX]) {
    char self[PATH_MAX / 2], path[PATH_MAX];
    const char *dirs[] = {in->from, self, "/usr/lib/margay", "/usr/local/lib/margay"};
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) {
        *slash = '\0';
    }
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        if (!dirs[i] || !dirs[i][0] ||
            snprintf(path, sizeof(path), "%s/%s", dirs[i], programs[0]) >= (int)sizeof(path)) {
            continue;
        }
        if (access(path, R_OK) == 0) {
            (void)snprintf(out, PATH_MAX, "%s", dirs[i]);
            return true;
        }
        if (in->from) {
            return false;
        }
    }
    return false;
}

int install_programs(struct install *in, const struct install_place *p) {
    char source[PATH_MAX], from[PATH_MAX + 32], dir[PATH_MAX], to[PATH_MAX];
    bool has_source = find_source(in, source);
    if (!install_path(in, p->bin_dir, "", dir) || make_dirs(in, dir) != 0) {
        return 1;
    }
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(PROGRAM_BYTES_MAX + 65536);
        if (!install_path(in, p->bin_dir, programs[i], to)) {
            return 1;
        }
        if (!has_source) {
            if (access(to, X_OK) == 0) {
                continue; /* a package has put them there */
            }
            return cli_error("%s is not beside this program nor in /usr/lib/margay: name its "
                             "folder with --from DIR",
                             programs[i]);
        }
        (void)snprintf(from, sizeof(from), "%s/%s", source, programs[i]);
        int r = file_read(-1, from, &b, PROGRAM_BYTES_MAX);
        if (r < 0) {
            return cli_error("%s: %s", from, strerror(-r));
        }
        if (b.n < 4 || memcmp(b.p, "\177ELF", 4) != 0) {
            return cli_error("%s is not a program", from);
        }
        if (put(in, to, buf_view(&b), 0755) != 0) {
            return 1;
        }
    }
    return 0;
}

/* ---- kubeconfig ---- */

static const char *env_or(const char *name, const char *otherwise) {
    const char *v = getenv(name);
    return v && v[0] ? v : otherwise;
}

/* A file of the service account, in the arena; STR_NULL: not there. */
static struct str read_secret(const struct install *in, const char *name, struct arena *a) {
    char path[PATH_MAX];
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(SECRET_BYTES_MAX + 65536);
    if (snprintf(path, sizeof(path), "%s/%s", in->token_dir, name) >= (int)sizeof(path) ||
        file_read(-1, path, &b, SECRET_BYTES_MAX) < 0) {
        return STR_NULL;
    }
    return arena_dup(a, str_trim(buf_view(&b)));
}

static void write_kubeconfig(struct buf *b, const char *host, struct str token, struct str ca,
                             bool skips_tls) {
    struct arena a = {.first_bytes = 512};
    bool is_v6 = strchr(host, ':') && host[0] != '[';
    struct kubeconfig c = {.server = arena_printf(&a, "%s://%s%s%s:%s",
                                                  env_or("KUBERNETES_SERVICE_PROTOCOL", "https"),
                                                  is_v6 ? "[" : "", host, is_v6 ? "]" : "",
                                                  env_or("KUBERNETES_SERVICE_PORT", "443")),
                           .ca_pem = ca,
                           .is_insecure = skips_tls,
                           .token = token};
    kubeconfig_put(&c, b);
    arena_fini(&a);
}

int install_kubeconfig(struct install *in, const struct install_place *p, bool *has_one) {
    char path[PATH_MAX], dir[PATH_MAX];
    struct arena a = {0};
    const char *host = env_or("KUBERNETES_SERVICE_HOST", NULL);
    bool skips_tls = strcmp(env_or("SKIP_TLS_VERIFY", "false"), "true") == 0;
    if (!install_path(in, p->net_dir, "", dir) || make_dirs(in, dir) != 0 ||
        !install_path(in, p->net_dir, in->kubeconfig_name, path)) {
        return 1;
    }
    if (!host) {
        *has_one = access(path, R_OK) == 0;
        return 0;
    }
    struct str token = read_secret(in, "token", &a), ca = read_secret(in, "ca.crt", &a);
    int r = 0;
    if (!token.n) {
        r = cli_error("KUBERNETES_SERVICE_HOST is set, but there is no token in %s: mount the "
                      "service account, or name its folder with --token-dir",
                      in->token_dir);
    } else if (!ca.n && !skips_tls) {
        r = cli_error("there is no ca.crt in %s: mount the service account, or set "
                      "SKIP_TLS_VERIFY=true",
                      in->token_dir);
    } else {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4 << 20);
        write_kubeconfig(&b, host, token, ca, skips_tls);
        r = put(in, path, buf_view(&b), 0600);
        *has_one = r == 0;
    }
    arena_fini(&a);
    return r;
}

/* ---- network configuration ---- */

static void put_ours(struct install *in, const struct install_place *p, bool has_kubeconfig,
                     struct buf *b) {
    char portmap[PATH_MAX];
    const char *mtu = env_or("CNI_MTU", "0"), *level = env_or("LOG_LEVEL", "info");
    const char *how = in->port_mappings;
    if (!how) {
        bool has_portmap =
            install_path(in, p->bin_dir, "portmap", portmap) && access(portmap, X_OK) == 0;
        how = has_portmap ? "chained" : "own";
    }
    bool is_own = strcmp(how, "own") == 0;
    buf_puts(b, "{\n  \"cniVersion\": \"1.0.0\",\n  \"cniVersions\": [\"0.3.1\", \"0.4.0\", "
                "\"1.0.0\", \"1.1.0\"],\n  \"name\": \"k8s-pod-network\",\n  \"plugins\": [\n"
                "    {\n      \"type\": \"margay-cni\",\n      \"log_level\": ");
    json_quote(b, str_c(level));
    buf_puts(b, ",\n      \"mtu\": ");
    json_quote(b, str_c(mtu));
    if (cli_globals.run_dir || cli_globals.state_dir) {
        buf_puts(b, ",\n      \"socket\": ");
        json_quote(b, str_c(cli_socket()));
        buf_puts(b, ",\n      \"state_dir\": ");
        json_quote(b, str_c(cli_state_dir()));
    }
    if (has_kubeconfig) {
        MG_CLEANUP(buf_fini) struct buf path = BUF_INIT(2 * PATH_MAX);
        buf_printf(&path, "%s/%s", p->net_dir, in->kubeconfig_name);
        buf_puts(b, ",\n      \"policy\": {\"type\": \"k8s\"},\n"
                    "      \"kubernetes\": {\"kubeconfig\": ");
        json_quote(b, buf_view(&path));
        buf_putc(b, '}');
    }
    buf_printf(b,
               ",\n      \"ipam\": {\"type\": \"margay-ipam\"},\n      \"capabilities\": "
               "{%s\"bandwidth\": true, \"ips\": true, \"mac\": true}\n    }",
               is_own ? "\"portMappings\": true, " : "");
    if (!is_own) {
        buf_puts(b, ",\n    {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}");
    }
    buf_puts(b, "\n  ]\n}\n");
}

/* A word of Calico's templates and what stands for it. */
static void put_word(struct install *in, const struct install_place *p, struct str word,
                     struct buf *b) {
    char path[2 * PATH_MAX];
    static const struct {
        const char *word, *env, *otherwise;
    } words[] = {{"LOG_LEVEL", "LOG_LEVEL", "info"},
                 {"LOG_FILE_PATH", "LOG_FILE_PATH", "/var/log/calico/cni/cni.log"},
                 {"LOG_FILE_MAX_SIZE", "LOG_FILE_MAX_SIZE", "100"},
                 {"LOG_FILE_MAX_AGE", "LOG_FILE_MAX_AGE", "30"},
                 {"LOG_FILE_MAX_COUNT", "LOG_FILE_MAX_COUNT", "10"},
                 {"DATASTORE_TYPE", "DATASTORE_TYPE", "kubernetes"},
                 {"KUBERNETES_NODE_NAME", "KUBERNETES_NODE_NAME", NULL},
                 {"CNI_MTU", "CNI_MTU", "0"},
                 {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_HOST", ""},
                 {"KUBERNETES_SERVICE_PORT", "KUBERNETES_SERVICE_PORT", "443"},
                 {"CALICO_API_GROUP", "CALICO_API_GROUP", "crd.projectcalico.org/v1"},
                 {"ETCD_ENDPOINTS", "ETCD_ENDPOINTS", ""},
                 {"ETCD_DISCOVERY_SRV", "ETCD_DISCOVERY_SRV", ""},
                 {"ETCD_CERT_FILE", "CNI_CONF_ETCD_CERT", ""},
                 {"ETCD_KEY_FILE", "CNI_CONF_ETCD_KEY", ""},
                 {"ETCD_CA_CERT_FILE", "CNI_CONF_ETCD_CA", ""},
                 {"REQUIRE_MTU_FILE", "REQUIRE_MTU_FILE", "false"}};
    if (str_is(word, "KUBECONFIG_FILEPATH")) {
        (void)snprintf(path, sizeof(path), "%s/%s", p->net_dir, in->kubeconfig_name);
        buf_puts(b, path);
        return;
    }
    if (str_is(word, "SERVICEACCOUNT_TOKEN")) {
        return; /* credentials are the agent's: the plugin needs none */
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (str_is(word, words[i].word)) {
            const char *v = env_or(words[i].env, words[i].otherwise);
            buf_puts(b, v ? v : env_or("NODENAME", ""));
            return;
        }
    }
    buf_printf(b, "__%.*s__", STR_FMT(word));
}

/* Calico's template language: __WORD__. */
static void put_template(struct install *in, const struct install_place *p, struct buf *b) {
    for (const char *c = in->network_config; *c;) {
        const char *end = strncmp(c, "__", 2) == 0 ? strstr(c + 2, "__") : NULL;
        size_t n = end ? (size_t)(end - c) - 2 : 0;
        if (n && n < 64 && strspn(c + 2, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") >= n) {
            put_word(in, p, str_n(c + 2, n), b);
            c = end + 2;
        } else {
            buf_putc(b, *c++);
        }
    }
}

/* Would a runtime take it, and call us? */
static bool is_good_conflist(struct str text, struct err *e) {
    struct arena a = {0};
    struct jnode *doc = NULL;
    bool calls_us = false;
    int r = json_parse(text, &json_limits_default, &a, &doc, e);
    if (r == 0) {
        jnode_each (plugin, jnode_getc(doc, "plugins")) {
            struct str type = jnode_str(jnode_getc(plugin, "type"));
            calls_us |= str_is(type, "margay-cni") || str_is(type, "calico");
        }
        if (!jnode_str(jnode_getc(doc, "name")).n || !calls_us) {
            r = err_set(e, ERR_INVALID,
                        "found no \"name\", or no plugin of type margay-cni in \"plugins\"");
        }
    }
    arena_fini(&a);
    return r == 0;
}

int install_conflist(struct install *in, const struct install_place *p, bool has_kubeconfig) {
    char path[PATH_MAX];
    struct err e = {0};
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(INSTALL_CONF_BYTES_MAX);
    if (!install_path(in, p->net_dir, in->conf_name, path)) {
        return 1;
    }
    if (in->network_config) {
        put_template(in, p, &b);
    } else {
        put_ours(in, p, has_kubeconfig, &b);
    }
    if (b.overflow || !is_good_conflist(buf_view(&b), &e)) {
        return cli_error("the network configuration can't be used: %s",
                         b.overflow ? "it is longer than 1 MiB" : e.msg);
    }
    return put(in, path, buf_view(&b), 0600);
}
