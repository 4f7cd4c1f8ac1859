/* Reading kubeconfig: names are looked up over all files, the first that has one counts. Source of
 * the fields: Kubernetes' client-go/tools/clientcmd/api/v1/types.go. */
#include "store/kube_config.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SA_DIR "/var/run/secrets/kubernetes.io/serviceaccount/"

struct file {
    struct str name;
    struct jnode *doc; /* NULL: an empty file */
};

struct reader {
    struct file files[KUBE_CONFIG_FILES_MAX];
    size_t n;
    struct arena *a;
    struct err *e;
};

/* Where a value was found. */
struct spot {
    const struct file *f;
    struct jnode *node; /* the entry's inner map */
    const char *path;   /* "users[dev].user" */
};

static MG_PRINTF(5, 6) int bad(struct reader *r, const struct file *f, const struct jnode *n,
                               const char *field, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n && n->line) {
        return err_set(r->e, ERR_INVALID, "%.*s:%u: %s: %s", STR_FMT(f->name), n->line, field,
                       text);
    }
    return err_set(r->e, ERR_INVALID, "%.*s: %s: %s", STR_FMT(f->name), field, text);
}

static const char *type_name(const struct jnode *n) {
    static const char *const NAMES[] = {"null", "a boolean", "a number", "a number",
                                        "text", "a list",    "a map"};
    return NAMES[n->type];
}

static int keep_first(void *arg, struct jnode *doc) {
    struct jnode **out = arg;
    if (*out) {
        return ERR_TOO_BIG;
    }
    *out = doc;
    return 0;
}

static int read_file(struct reader *r, const struct kube_text *s, struct file *f) {
    struct jlimits lim = json_limits_default;
    lim.max_bytes = KUBE_CONFIG_BYTES_MAX;
    lim.max_nodes = 100000;
    const char *name = arena_cstr(r->a, s->name);
    f->name = s->name;
    int c = yaml_each(s->text, name, &lim, r->a, keep_first, &f->doc, r->e);
    if (c == ERR_TOO_BIG && f->doc) {
        return err_set(r->e, ERR_INVALID, "%s: more than one document; a kubeconfig has one", name);
    }
    if (c < 0) {
        return c;
    }
    if (f->doc && f->doc->type == J_NULL) {
        f->doc = NULL;
    }
    if (f->doc && f->doc->type != J_MAP) {
        return bad(r, f, f->doc, "kubeconfig", "found %s, allowed is a map", type_name(f->doc));
    }
    struct str kind = jnode_str(jnode_getc(f->doc, "kind"));
    if (kind.n && !str_is(kind, "Config")) {
        return bad(r, f, jnode_getc(f->doc, "kind"), "kind", "found \"%.*s\", allowed is Config",
                   kind.n > 60 ? 60 : (int)kind.n, kind.p);
    }
    return 0;
}

/* Text member of a map; null and absent are STR_NULL. */
static int get_text(struct reader *r, const struct spot *s, const char *name, struct str *out) {
    const struct jnode *n = jnode_getc(s->node, name);
    *out = STR_NULL;
    if (!n || n->type == J_NULL) {
        return 0;
    }
    char field[256];
    (void)snprintf(field, sizeof(field), "%s.%s", s->path, name);
    if (n->type != J_STR) {
        return bad(r, s->f, n, field, "found %s, allowed is text: put it in quotes", type_name(n));
    }
    if (n->s.n && memchr(n->s.p, '\0', n->s.n)) {
        return bad(r, s->f, n, field, "holds a NUL byte");
    }
    *out = n->s.n ? n->s : STR_NULL;
    return 0;
}

static int get_bool(struct reader *r, const struct spot *s, const char *name, bool *out) {
    const struct jnode *n = jnode_getc(s->node, name);
    if (n && n->type != J_NULL && n->type != J_BOOL) {
        char field[256];
        (void)snprintf(field, sizeof(field), "%s.%s", s->path, name);
        return bad(r, s->f, n, field, "found %s, allowed is true or false", type_name(n));
    }
    *out = n && n->type == J_BOOL && n->b;
    return 0;
}

/* A path as the file means it: relative to its own folder. */
static struct str absolute(struct reader *r, const struct file *f, struct str path) {
    if (!path.n || path.p[0] == '/') {
        return path;
    }
    size_t n = f->name.n;
    while (n && f->name.p[n - 1] != '/') {
        n--;
    }
    return arena_printf(r->a, "%.*s%.*s", (int)n, f->name.p, STR_FMT(path));
}

static int get_path(struct reader *r, const struct spot *s, const char *name, struct str *out) {
    int c = get_text(r, s, name, out);
    if (c == 0) {
        *out = absolute(r, s->f, *out);
    }
    return c;
}

static int b64_value(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Standard base64; line ends inside are skipped. p NULL when it is none. */
static struct str b64_decode(struct arena *a, struct str s) {
    char *out = arena_alloc(a, s.n / 4 * 3 + 4);
    size_t n = 0, n_chars = 0, n_pad = 0;
    uint32_t acc = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\n' || s.p[i] == '\r') {
            continue;
        }
        int v = b64_value(s.p[i]);
        if (s.p[i] == '=') {
            n_pad++;
            n_chars++;
            continue;
        }
        if (v < 0 || n_pad) {
            return STR_NULL;
        }
        acc = acc << 6 | (uint32_t)v;
        if (++n_chars % 4 == 0) {
            out[n++] = (char)(acc >> 16);
            out[n++] = (char)(acc >> 8);
            out[n++] = (char)acc;
            acc = 0;
        }
    }
    if (n_chars % 4 || n_pad > 2 || (n_pad && n_chars < 4)) {
        return STR_NULL;
    }
    if (n_pad == 1) {
        out[n++] = (char)(acc >> 10);
        out[n++] = (char)(acc >> 2);
    } else if (n_pad == 2) {
        out[n++] = (char)(acc >> 4);
    }
    return str_n(out, n);
}

/* NAME (a file) and NAME-data (base64 of its content); data counts when both are there. */
static int get_file_or_data(struct reader *r, const struct spot *s, const char *name,
                            struct str *file, struct str *pem) {
    char data[64], field[256];
    (void)snprintf(data, sizeof(data), "%s-data", name);
    struct str text;
    int c = get_path(r, s, name, file);
    c = c < 0 ? c : get_text(r, s, data, &text);
    if (c < 0 || !text.n) {
        return c;
    }
    *file = STR_NULL;
    *pem = b64_decode(r->a, text);
    if (!pem->n) {
        (void)snprintf(field, sizeof(field), "%s.%s", s->path, data);
        return bad(r, s->f, jnode_getc(s->node, data), field,
                   "not base64; it is the base64 of a PEM file (base64 -w0 FILE)");
    }
    return 0;
}

/* The entry called name of the list ("clusters"), and its inner map ("cluster"). */
static int find(struct reader *r, const char *list, const char *inner, struct str name,
                struct spot *out) {
    for (size_t i = 0; i < r->n; i++) {
        const struct file *f = &r->files[i];
        const struct jnode *l = jnode_getc(f->doc, list);
        if (l && l->type != J_LIST && l->type != J_NULL) {
            return bad(r, f, l, list, "found %s, allowed is a list", type_name(l));
        }
        jnode_each (entry, l) {
            if (!str_eq(jnode_str(jnode_getc(entry, "name")), name) || name.n == 0) {
                continue;
            }
            struct str path = arena_printf(r->a, "%s[%.*s].%s", list,
                                           name.n > 60 ? 60 : (int)name.n, name.p, inner);
            struct jnode *map = jnode_getc(entry, inner);
            if (map && map->type != J_MAP && map->type != J_NULL) {
                return bad(r, f, map, path.p, "found %s, allowed is a map", type_name(map));
            }
            *out = (struct spot){f, map && map->type == J_MAP ? map : NULL, path.p};
            return 0;
        }
    }
    return ERR_NOT_FOUND;
}

static int not_there(struct reader *r, const char *what, struct str name, const char *list) {
    MG_CLEANUP(buf_fini) struct buf known = BUF_INIT(512);
    for (size_t i = 0; i < r->n; i++) {
        jnode_each (entry, jnode_getc(r->files[i].doc, list)) {
            struct str s = jnode_str(jnode_getc(entry, "name"));
            buf_printf(&known, "%s%.*s", known.n ? ", " : "", STR_FMT(s));
        }
    }
    return err_set(r->e, ERR_NOT_FOUND, "%.*s: no %s \"%.*s\"; there %s%.300s",
                   STR_FMT(r->files[0].name), what, name.n > 100 ? 100 : (int)name.n,
                   name.p ? name.p : "", known.n ? "are: " : "is none", buf_cstr(&known));
}

static int read_cluster(struct reader *r, const struct spot *s, struct kube_config *out) {
    int c = get_text(r, s, "server", &out->server);
    c = c < 0 ? c : get_file_or_data(r, s, "certificate-authority", &out->ca_file, &out->ca_pem);
    c = c < 0 ? c : get_text(r, s, "tls-server-name", &out->server_name);
    c = c < 0 ? c : get_text(r, s, "proxy-url", &out->proxy_url);
    c = c < 0 ? c : get_bool(r, s, "insecure-skip-tls-verify", &out->is_insecure);
    if (c < 0) {
        return c;
    }
    const struct jnode *server = jnode_getc(s->node, "server");
    char field[256];
    (void)snprintf(field, sizeof(field), "%s.server", s->path);
    if (!out->server.n) {
        return bad(r, s->f, server ? server : s->node, field,
                   "is missing: the API server's URL, such as https://192.0.2.1:6443");
    }
    if (!str_starts(out->server, STR("https://")) && !str_starts(out->server, STR("http://"))) {
        /* kubectl reads a bare HOST:PORT as http; nobody means that. */
        return bad(r, s->f, server, field, "found \"%.*s\", allowed is https://HOST:PORT",
                   out->server.n > 100 ? 100 : (int)out->server.n, out->server.p);
    }
    if (out->is_insecure && (out->ca_file.n || out->ca_pem.n)) {
        (void)snprintf(field, sizeof(field), "%s.insecure-skip-tls-verify", s->path);
        return bad(r, s->f, jnode_getc(s->node, "insecure-skip-tls-verify"), field,
                   "true together with certificate-authority: one of the two");
    }
    return 0;
}

static int read_exec_env(struct reader *r, const struct spot *s, struct kube_exec *x) {
    const struct jnode *env = jnode_getc(s->node, "env");
    jnode_each (n, env) {
        struct str name = jnode_str(jnode_getc(n, "name"));
        struct str value = jnode_str(jnode_getc(n, "value"));
        if (!name.n || str_find(name, '=', 0) >= 0 || memchr(name.p, '\0', name.n) ||
            (value.n && memchr(value.p, '\0', value.n)) || x->n_env == KUBE_EXEC_ARGS_MAX) {
            return bad(r, s->f, n, arena_printf(r->a, "%s.env", s->path).p,
                       "allowed are at most %d of {name: TEXT, value: TEXT}", KUBE_EXEC_ARGS_MAX);
        }
        x->env[x->n_env++] = arena_printf(r->a, "%.*s=%.*s", STR_FMT(name), STR_FMT(value));
    }
    return 0;
}

static int read_exec(struct reader *r, const struct spot *user, struct kube_exec *x) {
    struct jnode *n = jnode_getc(user->node, "exec");
    if (!n || n->type == J_NULL) {
        return 0;
    }
    struct spot s = {user->f, n, arena_printf(r->a, "%s.exec", user->path).p};
    if (n->type != J_MAP) {
        return bad(r, s.f, n, s.path, "found %s, allowed is a map", type_name(n));
    }
    int c = get_text(r, &s, "command", &x->command);
    c = c < 0 ? c : get_text(r, &s, "apiVersion", &x->api_version);
    c = c < 0 ? c : get_text(r, &s, "installHint", &x->install_hint);
    c = c < 0 ? c : get_bool(r, &s, "provideClusterInfo", &x->has_cluster_info);
    if (c < 0) {
        return c;
    }
    if (!x->command.n) {
        return bad(r, s.f, n, s.path, "command is missing");
    }
    if (!str_is(x->api_version, "client.authentication.k8s.io/v1") &&
        !str_is(x->api_version, "client.authentication.k8s.io/v1beta1")) {
        return bad(r, s.f, jnode_getc(n, "apiVersion") ? jnode_getc(n, "apiVersion") : n, s.path,
                   "apiVersion: found \"%.*s\", allowed is client.authentication.k8s.io/v1 or "
                   "client.authentication.k8s.io/v1beta1",
                   x->api_version.n > 80 ? 80 : (int)x->api_version.n,
                   x->api_version.p ? x->api_version.p : "");
    }
    if (str_find(x->command, '/', 0) > 0) { /* with a folder: from the kubeconfig's */
        x->command = absolute(r, s.f, x->command);
    }
    jnode_each (arg, jnode_getc(n, "args")) {
        if (arg->type != J_STR || x->n_args == KUBE_EXEC_ARGS_MAX ||
            (arg->s.n && memchr(arg->s.p, '\0', arg->s.n))) {
            return bad(r, s.f, arg, arena_printf(r->a, "%s.args", s.path).p,
                       "allowed are at most %d texts", KUBE_EXEC_ARGS_MAX);
        }
        x->args[x->n_args++] = arg->s;
    }
    return read_exec_env(r, &s, x);
}

static int read_user(struct reader *r, const struct spot *s, struct kube_config *out) {
    int c = get_file_or_data(r, s, "client-certificate", &out->cert_file, &out->cert_pem);
    c = c < 0 ? c : get_file_or_data(r, s, "client-key", &out->key_file, &out->key_pem);
    c = c < 0 ? c : get_text(r, s, "token", &out->token);
    c = c < 0 ? c : get_path(r, s, "tokenFile", &out->token_file);
    c = c < 0 ? c : get_text(r, s, "username", &out->username);
    c = c < 0 ? c : get_text(r, s, "password", &out->password);
    c = c < 0 ? c : get_text(r, s, "as", &out->as_user);
    c = c < 0 ? c : read_exec(r, s, &out->exec);
    if (c < 0) {
        return c;
    }
    jnode_each (g, jnode_getc(s->node, "as-groups")) {
        if (g->type != J_STR || out->n_as_groups == ARRAY_LEN(out->as_groups)) {
            return bad(r, s->f, g, "as-groups", "allowed are at most %zu texts",
                       ARRAY_LEN(out->as_groups));
        }
        out->as_groups[out->n_as_groups++] = g->s;
    }
    const struct jnode *provider = jnode_getc(s->node, "auth-provider");
    if (provider && provider->type != J_NULL) {
        return bad(r, s->f, provider, arena_printf(r->a, "%s.auth-provider", s->path).p,
                   "is not known (Kubernetes 1.26 dropped it): use exec, token or tokenFile");
    }
    bool has_cert = out->cert_file.n || out->cert_pem.n,
         has_key = out->key_file.n || out->key_pem.n;
    if (has_cert != has_key) {
        return bad(r, s->f, s->node, s->path,
                   "client-certificate and client-key go together: %s is "
                   "missing",
                   has_cert ? "the key" : "the certificate");
    }
    const struct str texts[] = {out->token, out->username, out->password, out->as_user};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        for (size_t k = 0; k < texts[i].n; k++) {
            if ((unsigned char)texts[i].p[k] < 0x20) {
                return bad(r, s->f, s->node, s->path, "a control character in a credential");
            }
        }
    }
    return 0;
}

int kube_config_parse(const struct kube_text *src, size_t n, struct str context, struct arena *a,
                      struct kube_config *out, struct err *e) {
    struct reader *r = arena_new(a, struct reader);
    struct kube_config c = {.context = context};
    r->a = a;
    r->e = e;
    if (n == 0 || n > KUBE_CONFIG_FILES_MAX) {
        return err_set(e, ERR_INVALID, "kubeconfig: found %zu files, allowed are 1 to %d", n,
                       KUBE_CONFIG_FILES_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        int code = read_file(r, &src[i], &r->files[i]);
        if (code < 0) {
            return code;
        }
        r->n = i + 1;
    }
    for (size_t i = 0; i < n && !c.context.n; i++) {
        c.context = jnode_str(jnode_getc(r->files[i].doc, "current-context"));
    }
    struct spot ctx = {0}, cluster = {0}, user = {0};
    if (!c.context.n) {
        return err_set(e, ERR_INVALID,
                       "%.*s: current-context is missing: set it (kubectl config use-context NAME) "
                       "or say kubernetes:FILE?context=NAME",
                       STR_FMT(src[0].name));
    }
    int code = find(r, "contexts", "context", c.context, &ctx);
    if (code < 0) {
        return code == ERR_NOT_FOUND ? not_there(r, "context", c.context, "contexts") : code;
    }
    struct str cluster_name, user_name;
    code = get_text(r, &ctx, "cluster", &cluster_name);
    code = code < 0 ? code : get_text(r, &ctx, "user", &user_name);
    code = code < 0 ? code : get_text(r, &ctx, "namespace", &c.ns);
    code = code < 0 ? code : find(r, "clusters", "cluster", cluster_name, &cluster);
    if (code < 0) {
        return code == ERR_NOT_FOUND ? not_there(r, "cluster", cluster_name, "clusters") : code;
    }
    code = read_cluster(r, &cluster, &c);
    if (code == 0 && user_name.n) {
        code = find(r, "users", "user", user_name, &user);
        if (code == ERR_NOT_FOUND) {
            return not_there(r, "user", user_name, "users");
        }
        code = code < 0 ? code : read_user(r, &user, &c);
    }
    if (code < 0) {
        return code;
    }
    c.origin = ctx.f->name;
    *out = c;
    return 0;
}

/* ---- finding the files ---- */

static int load_file(struct str path, struct arena *a, struct kube_text *out, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(KUBE_CONFIG_BYTES_MAX);
    int c = file_read(AT_FDCWD, arena_cstr(a, path), &b, KUBE_CONFIG_BYTES_MAX);
    if (c < 0) {
        return err_set(e, c == -ENOENT ? ERR_NOT_FOUND : c, "kubeconfig %.*s: %s", STR_FMT(path),
                       strerror(-c));
    }
    out->name = path;
    out->text = arena_dup(a, buf_view(&b));
    return 0;
}

static int in_cluster(struct arena *a, struct kube_config *out, struct err *e) {
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
    if (!host || !*host || !port || !*port) {
        return err_set(e, ERR_NOT_FOUND,
                       "kubernetes: no kubeconfig (KUBECONFIG is not set, ~/.kube/config is not "
                       "there) and not in a pod (KUBERNETES_SERVICE_HOST is not set): say "
                       "kubernetes:FILE");
    }
    bool is_v6 = strchr(host, ':') != NULL;
    struct kube_config c = {.origin = STR("in-cluster"),
                            .context = STR("in-cluster"),
                            .ca_file = STR(SA_DIR "ca.crt"),
                            .token_file = STR(SA_DIR "token")};
    c.server = arena_printf(a, "https://%s%s%s:%s", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port);
    MG_CLEANUP(buf_fini) struct buf ns = BUF_INIT(4096);
    if (file_read(AT_FDCWD, SA_DIR "namespace", &ns, 4096) == 0) {
        c.ns = arena_dup(a, str_trim(buf_view(&ns)));
    }
    *out = c;
    return 0;
}

int kube_config_load(struct str rest, struct str context, struct arena *a, struct kube_config *out,
                     struct err *e) {
    struct kube_text src[KUBE_CONFIG_FILES_MAX];
    size_t n = 0;
    struct str list = rest;
    const char *env = getenv("KUBECONFIG"), *home = getenv("HOME");
    if (rest.n) {
        int c = load_file(arena_dup(a, rest), a, &src[0], e);
        return c < 0 ? c : kube_config_parse(src, 1, context, a, out, e);
    }
    list = arena_dup(a, str_c(env && *env ? env : NULL));
    while (list.p) {
        struct str path = str_cut(&list, ':');
        if (!path.n) {
            continue;
        }
        if (n == KUBE_CONFIG_FILES_MAX) {
            return err_set(e, ERR_INVALID, "KUBECONFIG: more than %d files", KUBE_CONFIG_FILES_MAX);
        }
        int c = load_file(path, a, &src[n], e);
        if (c < 0 && c != ERR_NOT_FOUND) { /* files that are not there count as empty */
            return c;
        }
        n += c == 0;
    }
    if (n) {
        return kube_config_parse(src, n, context, a, out, e);
    }
    if (env && *env) {
        return err_set(e, ERR_NOT_FOUND, "KUBECONFIG=%.300s: none of the files is there", env);
    }
    struct str path = home && *home ? arena_printf(a, "%s/.kube/config", home) : STR_NULL;
    if (path.n && access(path.p, R_OK) == 0) {
        int c = load_file(path, a, &src[0], e);
        return c < 0 ? c : kube_config_parse(src, 1, context, a, out, e);
    }
    return in_cluster(a, out, e);
}
