/* Flags, environment, confd.toml. See options.h. */
#include "confd/options.h"

#include "confd/toml.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdlib.h>

enum kind { TEXT, FLAG, NUMBER, LIST };

struct row {
    const char *flag; /* NULL: in the file and the environment alone */
    const char *key;  /* in confd.toml; CONFD_ and it in capitals is the environment's */
    enum kind kind;
    size_t at; /* in struct confd_options */
    const char *dflt, *arg, *help;
};

#define AT(m) offsetof(struct confd_options, m)
static const struct row rows[] = {
    {"onetime", "onetime", FLAG, AT(onetime), NULL, NULL, "run once and exit"},
    {"watch", "watch", FLAG, AT(watch), NULL, NULL, "follow the backend's changes"},
    {"interval", "interval", NUMBER, AT(interval_s), "600", "SECONDS",
     "without -watch: look again every so many seconds"},
    {"confdir", "confdir", TEXT, AT(confdir), "/etc/confd", "DIR", "has conf.d and templates"},
    {"config-file", "config-file", TEXT, AT(config_file), "/etc/confd/confd.toml", "FILE",
     "settings; flags and CONFD_… win"},
    {"prefix", "prefix", TEXT, AT(prefix), NULL, "PATH",
     "put before all keys, instead of the resources' own prefix"},
    {"noop", "noop", FLAG, AT(noop), NULL, NULL, "render and say what would change"},
    {"sync-only", "sync-only", FLAG, AT(sync_only), NULL, NULL, "run no check_cmd and reload_cmd"},
    {"keep-stage-file", "keep-stage-file", FLAG, AT(keep_stage_file), NULL, NULL,
     "leave the staged files"},
    {"cmd-timeout", "cmd-timeout", NUMBER, AT(cmd_timeout_s), "60", "SECONDS",
     "end a command that takes longer; 0: never"},
    {"log-level", "log-level", TEXT, AT(log_level), "info", "LEVEL",
     "debug, info, warn, error, fatal"},
    {"backend", "backend", TEXT, AT(backend), "etcd", "NAME",
     "env, file, etcd (v3; also etcdv3), redis, zookeeper, calico, margay, sqlite, kubernetes"},
    {"node", "nodes", LIST, AT(nodes), NULL, "ADDRESS", "of the backend; more than one: repeat"},
    {"file", "file", LIST, AT(files), NULL, "FILE|DIR", "file: YAML or JSON; repeat, last wins"},
    {"filter", "filter", TEXT, AT(filter), "*", "GLOB", "file: names in a DIR"},
    {"scheme", "scheme", TEXT, AT(scheme), "http", "http|https", "etcd: of nodes without one"},
    {"srv-domain", "srv_domain", TEXT, AT(srv_domain), NULL, "DOMAIN",
     "nodes from the SRV records _BACKEND._tcp.DOMAIN"},
    {"srv-record", "srv_record", TEXT, AT(srv_record), NULL, "NAME", "nodes from these records"},
    {"client-cert", "client_cert", TEXT, AT(client_cert), NULL, "FILE", "etcd: own certificate"},
    {"client-key", "client_key", TEXT, AT(client_key), NULL, "FILE", "etcd: its key"},
    {"client-ca-keys", "client_cakeys", TEXT, AT(client_cakeys), NULL, "FILE",
     "etcd: who signed the servers'"},
    {"client-insecure", "client_insecure", FLAG, AT(client_insecure), NULL, NULL,
     "etcd: take any server certificate"},
    {"basic-auth", "basic_auth", FLAG, AT(basic_auth), NULL, NULL,
     "etcd: log in with -username and -password"},
    {"username", "username", TEXT, AT(username), NULL, "NAME", "etcd, redis"},
    {"password", "password", TEXT, AT(password), NULL, "TEXT", "etcd, redis"},
    {"separator", "separator", TEXT, AT(separator), NULL, "TEXT",
     "redis: stands for / in keys, whose first / is dropped"},
    {"datastore", "datastore", TEXT, AT(datastore), NULL, "URL",
     "calico, margay, sqlite, kubernetes: sqlite:PATH, etcd:…, kubernetes:…"},
    {"node-name", "node-name", TEXT, AT(node_name), NULL, "NAME",
     "calico: this node; NODENAME, else the host's name"},
    {"auth-token", "auth_token", TEXT, AT(auth_token), NULL, "TEXT", "vault's"},
    {"auth-type", "auth_type", TEXT, AT(auth_type), NULL, "TEXT", "vault's"},
    {"app-id", "app_id", TEXT, AT(app_id), NULL, "TEXT", "vault's"},
    {"user-id", "user_id", TEXT, AT(user_id), NULL, "TEXT", "vault's"},
    {"role-id", "role_id", TEXT, AT(role_id), NULL, "TEXT", "vault's"},
    {"secret-id", "secret_id", TEXT, AT(secret_id), NULL, "TEXT", "vault's"},
    {"path", "path", TEXT, AT(path), NULL, "TEXT", "vault's"},
    {"table", "table", TEXT, AT(table), NULL, "TEXT", "dynamodb's"},
    {"version", "version", FLAG, AT(version), NULL, NULL, "print the version"},
};

enum { N_ROWS = ARRAY_LEN(rows), CONFIG_MAX = 1 << 20 };

struct reading {
    struct confd_options *o;
    struct arena *a;
    bool is_set[N_ROWS]; /* by a source that wins over those that follow */
};

static void *member(struct confd_options *o, const struct row *r) {
    return (char *)o + r->at;
}

/* Go's strconv.ParseBool. */
static bool parse_bool(struct str s, bool *out) {
    static const char *const WORDS[] = {"1", "t", "T", "true",  "TRUE",  "True",
                                        "0", "f", "F", "false", "FALSE", "False"};
    for (size_t i = 0; i < ARRAY_LEN(WORDS); i++) {
        if (str_is(s, WORDS[i])) {
            *out = i < ARRAY_LEN(WORDS) / 2;
            return true;
        }
    }
    return false;
}

/* One value as text, from `where` ("flag -interval", …). */
static int set_text(struct reading *rd, const struct row *r, struct str v, const char *where,
                    struct err *e) {
    void *m = member(rd->o, r);
    int64_t i = 0;
    bool b = false;
    switch (r->kind) {
    case TEXT:
        *(const char **)m = arena_cstr(rd->a, v);
        return 0;
    case FLAG:
        if (!parse_bool(v, &b)) {
            return err_set(e, ERR_INVALID, "%s: found \"%.*s\", allowed are true and false", where,
                           STR_FMT(v));
        }
        *(bool *)m = b;
        return 0;
    case NUMBER:
        if (str_to_i64(v, &i) < 0 || i < 0 || i > INT32_MAX) {
            return err_set(e, ERR_INVALID, "%s: found \"%.*s\", allowed is a number of seconds",
                           where, STR_FMT(v));
        }
        *(int64_t *)m = i;
        return 0;
    case LIST:
        break;
    }
    struct confd_list *l = m;
    if (l->n == CONFD_LIST_MAX) {
        return err_set(e, ERR_TOO_BIG, "%s: more than %d", where, CONFD_LIST_MAX);
    }
    l->p[l->n++] = arena_cstr(rd->a, v);
    return 0;
}

static const char *name_of(struct reading *rd, const char *fmt, const char *what) {
    struct buf b = BUF_INIT(256);
    buf_puts(&b, fmt);
    buf_puts(&b, what);
    const char *s = arena_cstr(rd->a, buf_view(&b));
    buf_fini(&b);
    return s;
}

/* ---- flags, as Go's flag package reads them ---- */

static enum options_result read_flags(struct reading *rd, int argc, char **argv, struct err *e) {
    for (int i = 1; i < argc; i++) {
        struct str s = str_c(argv[i]);
        if (s.n < 2 || s.p[0] != '-' || str_is(s, "--")) {
            (void)err_set(e, ERR_INVALID, "found argument \"%.200s\", expected flags", argv[i]);
            return OPTIONS_USAGE;
        }
        s = str_sub(s, s.p[1] == '-' ? 2 : 1, s.n);
        struct str rest = s, name = str_cut(&rest, '=');
        if (str_is(name, "help") || str_is(name, "h")) {
            return OPTIONS_HELP;
        }
        size_t k = 0;
        while (k < N_ROWS && !str_is(name, rows[k].flag)) {
            k++;
        }
        if (k == N_ROWS) {
            (void)err_set(e, ERR_INVALID, "flag provided but not defined: -%.*s", STR_FMT(name));
            return OPTIONS_USAGE;
        }
        if (!rest.p && rows[k].kind == FLAG) {
            rest = STR("true");
        } else if (!rest.p && ++i < argc) {
            rest = str_c(argv[i]);
        } else if (!rest.p) {
            (void)err_set(e, ERR_INVALID, "flag needs an argument: -%.*s", STR_FMT(name));
            return OPTIONS_USAGE;
        }
        if (set_text(rd, &rows[k], rest, name_of(rd, "flag -", rows[k].flag), e) < 0) {
            return OPTIONS_USAGE;
        }
        rd->is_set[k] = true;
    }
    return OPTIONS_RUN;
}

/* ---- environment ---- */

static char fold(char c) {
    return c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
}

static int read_environment(struct reading *rd, struct err *e) {
    for (size_t k = 0; k < N_ROWS; k++) {
        char name[64] = "CONFD_";
        size_t n = strlen(name);
        for (const char *c = rows[k].key; *c && n < sizeof(name) - 1; c++) {
            name[n++] = fold(*c);
        }
        name[n] = '\0';
        const char *v = getenv(name);
        if (rd->is_set[k] || !v || !v[0]) {
            continue;
        }
        struct str rest = str_c(v);
        while (rest.p) {
            struct str one = rows[k].kind == LIST ? str_cut(&rest, ',') : rest;
            rest = rows[k].kind == LIST ? rest : STR_NULL;
            int r = set_text(rd, &rows[k], one, arena_cstr(rd->a, str_c(name)), e);
            if (r < 0) {
                return r;
            }
        }
        rd->is_set[k] = true;
    }
    return 0;
}

/* ---- confd.toml ---- */

static bool same_key(struct str a, const char *b) {
    if (a.n != strlen(b)) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        if (fold(a.p[i]) != fold(b[i])) {
            return false;
        }
    }
    return true;
}

static int set_node(struct reading *rd, const struct row *r, const struct jnode *n,
                    const char *where, struct err *e) {
    enum toml_type t = toml_type(n);
    bool is_ok = (r->kind == TEXT && t == TOML_STRING) || (r->kind == FLAG && t == TOML_BOOLEAN) ||
                 (r->kind == NUMBER && t == TOML_INTEGER) ||
                 (r->kind == LIST && (t == TOML_ARRAY || t == TOML_STRING));
    for (const struct jnode *it = r->kind == LIST ? n->child : NULL; is_ok && it; it = it->next) {
        is_ok = toml_type(it) == TOML_STRING;
    }
    if (!is_ok) {
        static const char *const NEED[] = {"a string", "true or false", "a number",
                                           "an array of strings"};
        return err_set(e, ERR_INVALID, "%s:%u:%u: %.*s is %s, need %s", where, n->line, n->col,
                       STR_FMT(n->key), toml_type_name(t), NEED[r->kind]);
    }
    const char *at = arena_cstr(
        rd->a, arena_printf(rd->a, "%s:%u:%u: %.*s", where, n->line, n->col, STR_FMT(n->key)));
    if (r->kind == LIST && t == TOML_ARRAY) {
        for (const struct jnode *it = n->child; it; it = it->next) {
            int ret = set_text(rd, r, it->s, at, e);
            if (ret < 0) {
                return ret;
            }
        }
        return 0;
    }
    struct str text = r->kind == FLAG     ? (n->b ? STR("true") : STR("false"))
                      : r->kind == NUMBER ? arena_printf(rd->a, "%lld", (long long)n->i)
                                          : n->s;
    return set_text(rd, r, text, at, e);
}

static int read_file(struct reading *rd, const char *path, struct err *e) {
    struct buf b = BUF_INIT(CONFIG_MAX);
    int r = file_read(AT_FDCWD, path, &b, CONFIG_MAX);
    if (r == -ENOENT) {
        return 0;
    }
    struct jnode *root = NULL;
    r = r < 0 ? err_set(e, r, "%s: %s", path, err_name(r))
              : toml_parse(buf_view(&b), path, rd->a, &root, e);
    buf_fini(&b);
    if (r < 0) {
        return r;
    }
    jnode_each (n, root) {
        for (size_t k = 0; k < N_ROWS; k++) {
            if (same_key(n->key, rows[k].key) && !rd->is_set[k]) {
                r = set_node(rd, &rows[k], n, path, e);
                if (r < 0) {
                    return r;
                }
                rd->is_set[k] = true;
            }
        }
    }
    return 0;
}

static int set_defaults(struct reading *rd, bool is_last, struct err *e) {
    for (size_t k = 0; k < N_ROWS; k++) {
        bool is_file = rows[k].at == AT(config_file);
        if (!rd->is_set[k] && rows[k].dflt && (is_last || is_file)) {
            int r = set_text(rd, &rows[k], str_c(rows[k].dflt), rows[k].key, e);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

enum options_result confd_options_read(int argc, char **argv, struct arena *a,
                                       struct confd_options *out, struct err *e) {
    *out = (struct confd_options){0};
    struct reading rd = {.o = out, .a = a};
    enum options_result r = read_flags(&rd, argc, argv, e);
    if (r != OPTIONS_RUN) {
        return r;
    }
    if (read_environment(&rd, e) < 0 || set_defaults(&rd, false, e) < 0 ||
        read_file(&rd, out->config_file, e) < 0 || set_defaults(&rd, true, e) < 0) {
        return OPTIONS_FAILED;
    }
    return OPTIONS_RUN;
}

void confd_options_help(struct buf *out) {
    for (size_t k = 0; k < N_ROWS; k++) {
        size_t start = out->n;
        buf_printf(out, "  -%s%s%s", rows[k].flag, rows[k].arg ? " " : "",
                   rows[k].arg ? rows[k].arg : "");
        for (size_t used = out->n - start; used < 26; used++) {
            buf_putc(out, ' ');
        }
        buf_printf(out, "%s%s", out->n - start > 26 ? "\n                          " : "",
                   rows[k].help);
        if (rows[k].dflt) {
            buf_printf(out, " (default %s)", rows[k].dflt);
        }
        buf_putc(out, '\n');
    }
}
