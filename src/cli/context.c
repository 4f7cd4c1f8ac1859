/* Which store; reading and writing objects. */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "store/rpc.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct cli_globals cli_globals;

int cli_usage(const char *command, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "margay %s: ", command);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nSee: margay %s --help\n", command);
    return 2;
}

int cli_error(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("error: ", stderr);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return 1;
}

static const char *env(const char *name) {
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

const char *cli_state_dir(void) {
    const char *v = cli_globals.state_dir ? cli_globals.state_dir : env("MARGAY_STATE_DIR");
    return v ? v : "/var/lib/margay";
}

const char *cli_socket(void) {
    static char path[PATH_MAX];
    const char *dir = cli_globals.run_dir ? cli_globals.run_dir : env("MARGAY_RUN_DIR");
    if (!dir) {
        bool own_state = cli_globals.state_dir || env("MARGAY_STATE_DIR");
        dir = own_state ? cli_state_dir() : "/run/margay";
    }
    snprintf(path, sizeof(path), "%s/agent.sock", dir);
    return path;
}

int cli_store(struct store **out, struct err *e) {
    static char url[PATH_MAX + 16];
    const char *named = cli_globals.datastore ? cli_globals.datastore : store_url_from_env();
    bool is_default = !named || strncmp(named, "sqlite:", 7) == 0;
    if (is_default) {
        snprintf(url, sizeof(url), "agent:%s", cli_socket());
        int r = store_open(url, out, e);
        if (r != ERR_UNAVAILABLE) {
            return r;
        }
        struct stat st;
        if (!named && stat(cli_state_dir(), &st) < 0) {
            return err_set(e, ERR_UNAVAILABLE,
                           "no agent answers at %s and there is no store in %s: start one with "
                           "'margay node', or name it with --state-dir",
                           cli_socket(), cli_state_dir());
        }
        snprintf(url, sizeof(url), "sqlite:%s/margay.db", cli_state_dir());
    }
    return store_open(named ? named : url, out, e);
}

int cli_ask(struct str body, int timeout_s, struct arena *a, struct jnode **out, struct err *e) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    const char *path = cli_socket();
    if (strlen(path) >= sizeof(sa.sun_path)) {
        return err_set(e, ERR_INVALID, "agent socket %s: path too long", path);
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    MG_CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = {.tv_sec = timeout_s};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0 ||
        connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        int err = errno;
        return err_set(e, ERR_UNAVAILABLE, "no agent answers at %s: %s", path, strerror(err));
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(RPC_BODY_MAX + RPC_HEADER);
    rpc_frame(&b, body);
    if (send(fd, b.p, b.n, MSG_NOSIGNAL) != (ssize_t)b.n) {
        return err_set(e, ERR_UNAVAILABLE, "agent at %s: %s", path, strerror(errno));
    }
    buf_reset(&b);
    int64_t want = -1;
    while (want < 0 || b.n < (size_t)want) {
        char *p = buf_reserve(&b, 65536);
        ssize_t n = p ? recv(fd, p, 65536, 0) : -1;
        if (n <= 0) {
            return err_set(e, ERR_UNAVAILABLE, "agent at %s: %s", path,
                           n < 0 ? strerror(errno) : "connection closed");
        }
        b.n += (size_t)n;
        if (want < 0 && b.n >= RPC_HEADER) {
            want = rpc_body_len((const uint8_t *)b.p);
            if (want < 0) {
                return err_set(e, (int)want, "agent at %s: not an answer of this protocol", path);
            }
            want += RPC_HEADER;
        }
    }
    struct str text = arena_dup(a, str_n(b.p + RPC_HEADER, (size_t)want - RPC_HEADER));
    return json_parse(text, &json_limits_default, a, out, e);
}

/* ---- objects ---- */

const struct kind *cli_kind(const char *word) {
    const struct kind *k = kind_by_word(str_c(word), false);
    if (!k) {
        cli_error("the server doesn't have a resource type \"%s\"; 'margay get --help' lists them",
                  word);
    }
    return k;
}

static struct store_key key_of(const struct kind *k, struct str ns, struct str name,
                               struct arena *a) {
    return (struct store_key){STR(STORE_SPACE_RESOURCES), kind_store_key(k, ns, name, a)};
}

static int not_found(const struct kind *k, struct str ns, struct str name, struct err *e) {
    char group[128] = "";
    if (k->group[0]) {
        snprintf(group, sizeof(group), ".%s", k->group);
    }
    return err_set(e, ERR_NOT_FOUND, "%s%s \"%.*s\" not found%s%.*s", k->plural, group,
                   STR_FMT(name), ns.n ? " in namespace " : "", STR_FMT(ns));
}

int cli_get(struct store *s, const struct kind *k, struct str ns, struct str name, struct arena *a,
            struct cli_object *out, struct err *e) {
    struct store_item it;
    int r = store_get(s, key_of(k, ns, name, a), a, &it, e);
    if (r == ERR_NOT_FOUND) {
        return not_found(k, ns, name, e);
    }
    if (r == 0) {
        r = json_parse(it.value, &json_limits_default, a, &out->doc, e);
        out->revision = it.revision;
    }
    return r;
}

static struct jnode *meta_of(struct jnode *doc, struct arena *a) {
    struct jnode *m = jnode_getc(doc, "metadata");
    if (!m || m->type != J_MAP) {
        m = jnode_new(a, J_MAP);
        jnode_set(a, doc, STR("metadata"), m);
    }
    return m;
}

int cli_put(struct store *s, const struct kind *k, struct str ns, struct str name,
            struct jnode *doc, const struct cli_object *old, uint64_t expect, struct arena *a,
            struct err *e) {
    struct jnode *m = meta_of(doc, a);
    const struct jnode *om = old ? jnode_getc(old->doc, "metadata") : NULL;
    char stamp[32], uid[UUID_TEXT];
    (void)jnode_del(m, STR("resourceVersion"));
    int64_t generation = 1;
    if (old) {
        struct jnode *status = jnode_getc(old->doc, "status");
        if (status && !jnode_getc(doc, "status")) {
            jnode_set(a, doc, STR("status"), jnode_copy(a, status));
        }
        const struct jnode *g = jnode_getc(om, "generation");
        generation = g && g->type == J_INT ? g->i : 1;
        const struct jnode *was = jnode_getc(old->doc, "spec"), *is = jnode_getc(doc, "spec");
        generation += was && is ? !jnode_eq(was, is) : was != is;
    }
    struct str old_uid = jnode_str(jnode_getc(om, "uid"));
    struct str old_time = jnode_str(jnode_getc(om, "creationTimestamp"));
    if (!old_uid.n) {
        uuid_v4(uid);
        old_uid = arena_dup(a, str_c(uid));
    }
    if (!old_time.n) {
        old_time = arena_dup(a, str_c(clock_rfc3339(clock_wall_ns(), stamp)));
    }
    jnode_set(a, m, STR("uid"), jnode_new_str(a, old_uid));
    jnode_set(a, m, STR("creationTimestamp"), jnode_new_str(a, old_time));
    jnode_set(a, m, STR("generation"), jnode_new_int(a, generation));
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(RPC_BODY_MAX);
    json_write(&b, doc, 0);
    int r = store_put(s, key_of(k, ns, name, a), buf_view(&b), expect, NULL, e);
    if (r == ERR_CONFLICT) {
        return err_set(e, r,
                       "%s \"%.*s\" was changed by someone else meanwhile: fetch it again, "
                       "make the change again",
                       k->singular, STR_FMT(name));
    }
    if (r == ERR_EXISTS) {
        return err_set(e, r, "%s \"%.*s\" already exists", k->plural, STR_FMT(name));
    }
    return r == ERR_NOT_FOUND ? not_found(k, ns, name, e) : r;
}

int cli_delete(struct store *s, const struct kind *k, struct str ns, struct str name,
               uint64_t expect, struct err *e) {
    struct arena a = {0};
    int r = store_delete(s, key_of(k, ns, name, &a), expect, e);
    arena_fini(&a);
    return r == ERR_NOT_FOUND ? not_found(k, ns, name, e) : r;
}

/* The label that Kubernetes' API server sets on every Namespace. */
static void label_namespace(struct jnode *doc, struct str name, struct arena *a) {
    struct jnode *m = meta_of(doc, a), *labels = jnode_getc(m, "labels");
    if (!labels) {
        labels = jnode_new(a, J_MAP);
        jnode_set(a, m, STR("labels"), labels);
    }
    jnode_set(a, labels, STR("kubernetes.io/metadata.name"), jnode_new_str(a, name));
}

static bool has_error(const struct model_errors *errs, const struct model_error *x) {
    for (size_t i = 0; i < errs->n; i++) {
        if (str_eq(errs->p[i].path, x->path) && str_eq(errs->p[i].message, x->message)) {
            return true;
        }
    }
    return false;
}

int cli_check_change(const struct jnode *was, struct jnode *doc, const char *name, struct str ns,
                     struct arena *a, struct object *out) {
    struct model_errors errs = {.a = a}, old = {.a = a};
    *out = (struct object){.doc = doc};
    int r = object_read(doc, MODEL_APPLY, ns, a, out, &errs);
    if (r == 0) {
        return 0;
    }
    struct object before = {.doc = NULL};
    (void)!object_read(jnode_copy(a, was), MODEL_APPLY, ns, a, &before, &old);
    bool is_old = errs.n_dropped == 0;
    for (size_t i = 0; is_old && i < errs.n; i++) {
        is_old = has_error(&old, &errs.p[i]);
    }
    if (!is_old) {
        return cli_check(doc, name, ns, a, out);
    }
    errs.n = 0;
    (void)!object_read(doc, MODEL_STORE, ns, a, out, &errs);
    return out->kind ? 0 : r;
}

int cli_check(struct jnode *doc, const char *file, struct str ns, struct arena *a,
              struct object *out) {
    struct model_errors errs = {.a = a};
    *out = (struct object){.doc = doc};
    int r = object_read(doc, MODEL_APPLY, ns, a, out, &errs);
    for (size_t i = 0; r < 0 && i < errs.n; i++) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(65536);
        model_error_print(&b, file ? file : "input", out, &errs.p[i]);
        fprintf(stderr, "%.*s\n", STR_FMT(buf_view(&b)));
    }
    if (r == 0 && out->kind->id == K_NAMESPACE) {
        label_namespace(doc, out->meta.name, a);
    }
    if (r < 0 && errs.n_dropped) {
        fprintf(stderr, "… and %zu more errors\n", errs.n_dropped);
    }
    return r;
}
