/* Where settings come from: each of them by flag, by environment, by confd.toml, by default; and
 * which of these wins. */
#include "confd/options.h"

#include "base/fd.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum kind { TEXT, FLAG, NUMBER, LIST };

#define AT(m) offsetof(struct confd_options, m)
/* Names as confd documents them; the defaults too. */
static const struct {
    const char *flag, *key, *env;
    enum kind kind;
    size_t at;
    const char *dflt;
} rows[] = {
    {"onetime", "onetime", "CONFD_ONETIME", FLAG, AT(onetime), "false"},
    {"watch", "watch", "CONFD_WATCH", FLAG, AT(watch), "false"},
    {"interval", "interval", "CONFD_INTERVAL", NUMBER, AT(interval_s), "600"},
    {"confdir", "confdir", "CONFD_CONFDIR", TEXT, AT(confdir), "/etc/confd"},
    {"prefix", "prefix", "CONFD_PREFIX", TEXT, AT(prefix), NULL},
    {"noop", "noop", "CONFD_NOOP", FLAG, AT(noop), "false"},
    {"sync-only", "sync-only", "CONFD_SYNC_ONLY", FLAG, AT(sync_only), "false"},
    {"keep-stage-file", "keep-stage-file", "CONFD_KEEP_STAGE_FILE", FLAG, AT(keep_stage_file),
     "false"},
    {"cmd-timeout", "cmd-timeout", "CONFD_CMD_TIMEOUT", NUMBER, AT(cmd_timeout_s), "60"},
    {"log-level", "log-level", "CONFD_LOG_LEVEL", TEXT, AT(log_level), "info"},
    {"backend", "backend", "CONFD_BACKEND", TEXT, AT(backend), "etcd"},
    {"node", "nodes", "CONFD_NODES", LIST, AT(nodes), NULL},
    {"file", "file", "CONFD_FILE", LIST, AT(files), NULL},
    {"filter", "filter", "CONFD_FILTER", TEXT, AT(filter), "*"},
    {"scheme", "scheme", "CONFD_SCHEME", TEXT, AT(scheme), "http"},
    {"srv-domain", "srv_domain", "CONFD_SRV_DOMAIN", TEXT, AT(srv_domain), NULL},
    {"srv-record", "srv_record", "CONFD_SRV_RECORD", TEXT, AT(srv_record), NULL},
    {"client-cert", "client_cert", "CONFD_CLIENT_CERT", TEXT, AT(client_cert), NULL},
    {"client-key", "client_key", "CONFD_CLIENT_KEY", TEXT, AT(client_key), NULL},
    {"client-ca-keys", "client_cakeys", "CONFD_CLIENT_CAKEYS", TEXT, AT(client_cakeys), NULL},
    {"client-insecure", "client_insecure", "CONFD_CLIENT_INSECURE", FLAG, AT(client_insecure),
     "false"},
    {"basic-auth", "basic_auth", "CONFD_BASIC_AUTH", FLAG, AT(basic_auth), "false"},
    {"username", "username", "CONFD_USERNAME", TEXT, AT(username), NULL},
    {"password", "password", "CONFD_PASSWORD", TEXT, AT(password), NULL},
    {"separator", "separator", "CONFD_SEPARATOR", TEXT, AT(separator), NULL},
    {"datastore", "datastore", "CONFD_DATASTORE", TEXT, AT(datastore), NULL},
    {"node-name", "node-name", "CONFD_NODE_NAME", TEXT, AT(node_name), NULL},
    {"auth-token", "auth_token", "CONFD_AUTH_TOKEN", TEXT, AT(auth_token), NULL},
    {"auth-type", "auth_type", "CONFD_AUTH_TYPE", TEXT, AT(auth_type), NULL},
    {"app-id", "app_id", "CONFD_APP_ID", TEXT, AT(app_id), NULL},
    {"user-id", "user_id", "CONFD_USER_ID", TEXT, AT(user_id), NULL},
    {"role-id", "role_id", "CONFD_ROLE_ID", TEXT, AT(role_id), NULL},
    {"secret-id", "secret_id", "CONFD_SECRET_ID", TEXT, AT(secret_id), NULL},
    {"path", "path", "CONFD_PATH", TEXT, AT(path), NULL},
    {"table", "table", "CONFD_TABLE", TEXT, AT(table), NULL},
};

struct reading {
    struct arena a;
    struct confd_options o;
    struct err e;
    enum options_result r;
    char file[64];
};

/* Reads with a confd.toml of this text, and up to two more words. */
static void read_with(struct reading *rd, const char *toml, const char *one, const char *two) {
    snprintf(rd->file, sizeof(rd->file), "/tmp/mg-options-XXXXXX");
    int fd = mkstemp(rd->file);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, toml, strlen(toml)), (ssize_t)strlen(toml));
    (void)close(fd);
    char *argv[] = {(char *)(uintptr_t) "confd", (char *)(uintptr_t) "-config-file", rd->file,
                    (char *)(uintptr_t)one, (char *)(uintptr_t)two};
    rd->a = (struct arena){0};
    rd->e = (struct err){0};
    rd->r = confd_options_read(3 + (one != NULL) + (two != NULL), argv, &rd->a, &rd->o, &rd->e);
    (void)unlink(rd->file);
}

/* The member as text; "" for NULL. */
static const char *shown(const struct confd_options *o, size_t row, char out[64]) {
    const char *m = (const char *)o + rows[row].at;
    const struct confd_list *l = (const void *)m;
    const char *s = NULL;
    switch (rows[row].kind) {
    case TEXT:
        memcpy(&s, m, sizeof(s));
        snprintf(out, 64, "%s", s ? s : "");
        break;
    case FLAG:
        snprintf(out, 64, "%s", *(const bool *)m ? "true" : "false");
        break;
    case NUMBER:
        snprintf(out, 64, "%lld", (long long)*(const int64_t *)(const void *)m);
        break;
    case LIST:
        snprintf(out, 64, "%s%s%s", l->n ? l->p[0] : "", l->n > 1 ? "," : "",
                 l->n > 1 ? l->p[1] : "");
        break;
    }
    return out;
}

static void expect(size_t row, const char *toml, const char *one, const char *two,
                   const char *need) {
    struct reading rd;
    char text[64];
    read_with(&rd, toml, one, two);
    if (rd.r != OPTIONS_RUN || strcmp(shown(&rd.o, row, text), need) != 0) {
        fail_msg("-%s with toml %s, env %s, flag %s: \"%s\" (%s), not \"%s\"", rows[row].flag, toml,
                 getenv(rows[row].env) ? getenv(rows[row].env) : "", two ? two : "", text, rd.e.msg,
                 need);
    }
    arena_fini(&rd.a);
}

static void t_each_setting__four_sources__flag_env_file_default(void **state MG_UNUSED) {
    static const char *const VALUES[][3] = {{"from-toml", "from-env", "from-flag"},
                                            {"true", "false", "true"},
                                            {"11", "22", "33"},
                                            {"t1,t2", "e1,e2", "f1"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *const *v = VALUES[rows[i].kind];
        char toml[128], flag[64];
        snprintf(toml, sizeof(toml),
                 rows[i].kind == LIST   ? "%s = [\"t1\", \"t2\"]"
                 : rows[i].kind == TEXT ? "%s = \"from-toml\""
                 : rows[i].kind == FLAG ? "%s = true"
                                        : "%s = 11",
                 rows[i].key);
        snprintf(flag, sizeof(flag), "-%s", rows[i].flag);
        unsetenv(rows[i].env);
        expect(i, "", NULL, NULL, rows[i].dflt ? rows[i].dflt : "");
        expect(i, toml, NULL, NULL, v[0]);
        setenv(rows[i].env, v[1], 1);
        expect(i, toml, NULL, NULL, v[1]);
        expect(i, "", NULL, NULL, v[1]);
        if (rows[i].kind != FLAG) {
            expect(i, toml, flag, v[2], v[2]);
        }
        snprintf(flag, sizeof(flag), "--%s=%s", rows[i].flag, v[2]);
        expect(i, toml, flag, NULL, v[2]);
        setenv(rows[i].env, "", 1); /* as if it were not there */
        expect(i, toml, NULL, NULL, v[0]);
        unsetenv(rows[i].env);
    }
}

static void t_lists__repeated_flags__add_up(void **state MG_UNUSED) {
    struct reading rd;
    read_with(&rd, "nodes = [\"t\"]", "-node=a:1", "--node=b:2");
    assert_int_equal(rd.r, OPTIONS_RUN);
    assert_int_equal(rd.o.nodes.n, 2);
    assert_string_equal(rd.o.nodes.p[1], "b:2");
    arena_fini(&rd.a);
}

static void t_help__every_setting__is_named(void **state MG_UNUSED) {
    struct buf b = BUF_INIT(1 << 16);
    confd_options_help(&b);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char flag[64];
        snprintf(flag, sizeof(flag), "  -%s ", rows[i].flag);
        assert_true(str_contains(buf_view(&b), str_c(flag)));
    }
    buf_fini(&b);
}

static void t_bad_values__each_source__refused_with_its_name(void **state MG_UNUSED) {
    static const struct {
        const char *toml, *env, *value, *flag;
        enum options_result r;
        const char *says;
    } cases[] = {
        {"interval = \"x\"", NULL, NULL, NULL, OPTIONS_FAILED, ":1:12: interval is string"},
        {"nodes = [1]", NULL, NULL, NULL, OPTIONS_FAILED, "need an array of strings"},
        {"watch = 1", NULL, NULL, NULL, OPTIONS_FAILED, "need true or false"},
        {"interval = -1", NULL, NULL, NULL, OPTIONS_FAILED, "allowed is a number of seconds"},
        {"backend = ", NULL, NULL, NULL, OPTIONS_FAILED, "need a value"},
        {"", "CONFD_INTERVAL", "soon", NULL, OPTIONS_FAILED, "CONFD_INTERVAL: found \"soon\""},
        {"", "CONFD_NOOP", "yes", NULL, OPTIONS_FAILED, "CONFD_NOOP: found \"yes\""},
        {"", NULL, NULL, "-noop=yes", OPTIONS_USAGE, "flag -noop: found \"yes\""},
        {"", NULL, NULL, "-interval=99999999999", OPTIONS_USAGE, "flag -interval"},
        {"", NULL, NULL, "--", OPTIONS_USAGE, "found argument \"--\""},
        {"", NULL, NULL, "-", OPTIONS_USAGE, "found argument \"-\""},
        {"", NULL, NULL, "-nodes=a", OPTIONS_USAGE, "not defined: -nodes"},
        {"", NULL, NULL, "-help", OPTIONS_HELP, ""},
        {"", NULL, NULL, "-h", OPTIONS_HELP, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reading rd;
        if (cases[i].env) {
            setenv(cases[i].env, cases[i].value, 1);
        }
        read_with(&rd, cases[i].toml, cases[i].flag, NULL);
        if (rd.r != cases[i].r || !str_contains(str_c(rd.e.msg), str_c(cases[i].says))) {
            fail_msg("case %zu: %d \"%s\", not %d \"%s\"", i, rd.r, rd.e.msg, cases[i].r,
                     cases[i].says);
        }
        arena_fini(&rd.a);
        if (cases[i].env) {
            unsetenv(cases[i].env);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_each_setting__four_sources__flag_env_file_default),
        cmocka_unit_test(t_lists__repeated_flags__add_up),
        cmocka_unit_test(t_help__every_setting__is_named),
        cmocka_unit_test(t_bad_values__each_source__refused_with_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
