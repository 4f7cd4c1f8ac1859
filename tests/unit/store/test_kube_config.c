/* Kubeconfig, credentials, and the splitter of lists and watches. */
#include "base/clock.h"
#include "base/fd.h"
#include "store/kube_config.h"
#include "store/kube_split.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct arena a;
static struct kube_config c;
static struct err e;

static int reset(void **state) {
    (void)state;
    arena_fini(&a);
    a = (struct arena){0};
    memset(&c, 0, sizeof(c));
    memset(&e, 0, sizeof(e));
    return 0;
}

#define HEAD "apiVersion: v1\nkind: Config\ncurrent-context: dev\n"
#define CONTEXTS                                                                     \
    "contexts:\n- name: dev\n  context: {cluster: one, user: me, namespace: shop}\n" \
    "- name: other\n  context: {cluster: two}\n"
#define CLUSTERS                                                                          \
    "clusters:\n- name: one\n  cluster:\n    server: https://192.0.2.1:6443\n"            \
    "    certificate-authority: pki/ca.crt\n    tls-server-name: kube\n"                  \
    "    proxy-url: http://p:1\n- name: two\n  cluster: {server: 'https://[fd00::1]:1', " \
    "insecure-skip-tls-verify: true}\n"

static int parse(const char *text, const char *context) {
    struct kube_text t = {STR("/etc/k/config"), str_c(text)};
    return kube_config_parse(&t, 1, str_c(context), &a, &c, &e);
}

static void assert_str(struct str s, const char *want) {
    if (!str_is(s, want)) {
        fail_msg("is \"%.*s\", want \"%s\"", STR_FMT(s), want);
    }
}

static void t_config__all_fields(void **state) {
    (void)state;
    int r = parse(HEAD CONTEXTS CLUSTERS
                  "users:\n- name: me\n  user:\n    client-certificate-data: Q0VSVA==\n"
                  "    client-key: /abs/key\n    tokenFile: tok\n    username: u\n    password: p\n"
                  "    as: root\n    as-groups: [a, b]\n"
                  "    exec:\n      apiVersion: client.authentication.k8s.io/v1\n"
                  "      command: ./bin/login\n      args: [get, 'x y']\n"
                  "      env:\n      - {name: A, value: b}\n      provideClusterInfo: true\n",
                  NULL);
    if (r < 0) {
        fail_msg("%s", e.msg);
    }
    assert_str(c.server, "https://192.0.2.1:6443");
    assert_str(c.ca_file, "/etc/k/pki/ca.crt");
    assert_str(c.cert_pem, "CERT");
    assert_str(c.key_file, "/abs/key");
    assert_str(c.token_file, "/etc/k/tok");
    assert_str(c.server_name, "kube");
    assert_str(c.proxy_url, "http://p:1");
    assert_str(c.ns, "shop");
    assert_str(c.as_user, "root");
    assert_int_equal(c.n_as_groups, 2);
    assert_str(c.exec.command, "/etc/k/./bin/login");
    assert_int_equal(c.exec.n_args, 2);
    assert_str(c.exec.env[0], "A=b");
    assert_int_equal(parse(HEAD CONTEXTS CLUSTERS, "other"), 0);
    assert_str(c.server, "https://[fd00::1]:1");
    assert_true(c.is_insecure && !c.token.n);
}

static void t_config__merged_files__first_counts(void **state) {
    (void)state;
    const struct kube_text t[] = {
        {STR("/a"), STR("current-context: dev\nclusters:\n- name: one\n  cluster: {server: "
                        "'https://first'}\n")},
        {STR("/b"), STR("")},
        {STR("/c/d"), STR(HEAD CONTEXTS CLUSTERS "users:\n- name: me\n  user: {token: T}\n")},
    };
    assert_int_equal(kube_config_parse(t, 3, STR_NULL, &a, &c, &e), 0);
    assert_str(c.server, "https://first");
    assert_str(c.token, "T");
}

static const struct {
    const char *text, *error; /* a part of it */
} BAD[] = {
    {"[", "/etc/k/config"},
    {"- 1\n", "found a list, allowed is a map"},
    {"kind: Pod\n", "config:1: kind: found \"Pod\""},
    {"kind: Config\n", "current-context is missing"},
    {HEAD, "no context \"dev\"; there is none"},
    {HEAD "contexts:\n- name: x\n", "no context \"dev\"; there are: x"},
    {HEAD CONTEXTS, "no cluster \"one\""},
    {HEAD CONTEXTS CLUSTERS, "no user \"me\""},
    {HEAD CONTEXTS "clusters: 7\n", "clusters: found a number, allowed is a list"},
    {HEAD CONTEXTS "clusters:\n- name: one\n  cluster: {server: 192.0.2.1}\n",
     "clusters[one].cluster.server: found \"192.0.2.1\", allowed is https://HOST:PORT"},
    {HEAD CONTEXTS "clusters:\n- name: one\n  cluster: {}\n", "server: is missing"},
    {HEAD CONTEXTS "clusters:\n- name: one\n  cluster: {server: 'https://x', "
                   "certificate-authority-data: '!!'}\n",
     "certificate-authority-data: not base64"},
    {HEAD CONTEXTS "clusters:\n- name: one\n  cluster: {server: 'https://x', "
                   "insecure-skip-tls-verify: true, certificate-authority: x}\n",
     "one of the two"},
    {HEAD CONTEXTS CLUSTERS "users:\n- name: me\n  user: {token: 5}\n",
     "users[me].user.token: found a number, allowed is text: put it in quotes"},
    {HEAD CONTEXTS CLUSTERS "users:\n- name: me\n  user: {client-certificate: x}\n",
     "the key is missing"},
    {HEAD CONTEXTS CLUSTERS "users:\n- name: me\n  user: {auth-provider: {name: gcp}}\n",
     "auth-provider: is not known"},
    {HEAD CONTEXTS CLUSTERS "users:\n- name: me\n  user: {exec: {command: x, apiVersion: v1}}\n",
     "allowed is client.authentication.k8s.io/v1 or"},
    {HEAD CONTEXTS CLUSTERS "users:\n- name: me\n  user: {token: \"a\\nb\"}\n",
     "a control character"},
};

static void t_config__errors_name_place_and_field(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        e.msg[0] = '\0';
        assert_true(parse(BAD[i].text, NULL) < 0);
        if (!strstr(e.msg, BAD[i].error)) {
            fail_msg("\"%s\" lacks \"%s\"", e.msg, BAD[i].error);
        }
    }
}

/* ---- credentials ---- */

static char dir[64];

static void write_file(const char *name, const char *text, unsigned mode) {
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void t_auth__times(void **state) {
    (void)state;
    assert_int_equal(clock_parse_rfc3339(STR("1970-01-01T00:01:00Z")), 60);
    assert_int_equal(clock_parse_rfc3339(STR("1970-01-01T01:00:00.5+01:00")), 0);
    assert_int_equal(clock_parse_rfc3339(STR("1970-01-01T00:00:00-00:30")), 1800);
    assert_int_equal(clock_parse_rfc3339(STR("1970-01-01T00:00:00")), -1);
    assert_int_equal(clock_parse_rfc3339(STR("yesterday, at about noon")), -1);
}

static void t_auth__static_and_basic(void **state) {
    (void)state;
    struct kube_auth au = {0};
    c.token = STR("T");
    assert_int_equal(kube_auth_fetch(&c, &au, &e), 0);
    assert_string_equal(au.header, "Bearer T");
    assert_true(kube_auth_is_fresh(&au, INT64_MAX - 1));
    c.token = STR_NULL;
    c.username = STR("Aladdin");
    c.password = STR("open sesame");
    assert_int_equal(kube_auth_fetch(&c, &au, &e), 0);
    assert_string_equal(au.header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    kube_auth_fini(&au);
}

static void t_auth__token_file_is_read_again(void **state) {
    (void)state;
    struct kube_auth au = {0};
    c.token_file = arena_printf(&a, "%s/token", dir);
    assert_int_equal(kube_auth_fetch(&c, &au, &e), ERR_DENIED);
    assert_non_null(strstr(e.msg, "/token"));
    write_file("token", "one\n", 0600);
    assert_int_equal(kube_auth_fetch(&c, &au, &e), 0);
    assert_string_equal(au.header, "Bearer one");
    write_file("token", "two\n", 0600);
    assert_int_equal(kube_auth_fetch(&c, &au, &e), 0);
    assert_string_equal(au.header, "Bearer two");
    assert_true(au.good_until_s != INT64_MAX);
    write_file("token", "a b\n", 0600);
    assert_int_equal(kube_auth_fetch(&c, &au, &e), ERR_DENIED);
    assert_string_equal(au.header, "Bearer two"); /* as it was */
    kube_auth_fini(&au);
}

#define API "client.authentication.k8s.io/v1"
static const struct {
    const char *script, *header, *error;
} EXECS[] = {
    {"echo '{\"apiVersion\":\"" API
     "\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"'$1$A'\","
     "\"expirationTimestamp\":\"2040-01-01T00:00:00Z\"}}'",
     "Bearer xb", NULL},
    {"echo \"$KUBERNETES_EXEC_INFO\" | grep -q '\"server\":\"https://s\"' && "
     "echo '{\"apiVersion\":\"" API "\",\"status\":{\"token\":\"T\"}}'",
     "Bearer T", NULL},
    {"echo not logged in >&2; exit 3", NULL, "exit code 3: not logged in"},
    {"echo '{}'", NULL, "apiVersion"},
    {"echo '{\"apiVersion\":\"" API "\",\"status\":{}}'", NULL, "no status.token"},
    {"echo '{\"apiVersion\":\"" API
     "\",\"status\":{\"token\":\"T\",\"expirationTimestamp\":\"x\"}}'",
     NULL, "expirationTimestamp"},
    {"echo '{'", NULL, "its output"},
    {"head -c 2000000 /dev/zero", NULL, "more than"},
};

static void t_auth__exec(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(EXECS); i++) {
        struct kube_auth au = {0};
        char script[1024];
        snprintf(script, sizeof(script), "#!/bin/sh\n%s\n", EXECS[i].script);
        write_file("login", script, 0700);
        c.server = STR("https://s");
        c.exec = (struct kube_exec){.command = arena_printf(&a, "%s/login", dir),
                                    .api_version = STR(API),
                                    .args = {STR("x")},
                                    .n_args = 1,
                                    .env = {STR("A=b")},
                                    .n_env = 1,
                                    .has_cluster_info = true};
        int r = kube_auth_fetch(&c, &au, &e);
        if (EXECS[i].header) {
            assert_int_equal(r, 0);
            assert_string_equal(au.header, EXECS[i].header);
        } else {
            assert_int_equal(r, ERR_DENIED);
            if (!strstr(e.msg, EXECS[i].error)) {
                fail_msg("\"%s\" lacks \"%s\"", e.msg, EXECS[i].error);
            }
        }
        kube_auth_fini(&au);
    }
    struct kube_auth au = {0};
    c.exec.command = STR("no-such-command-here");
    c.exec.install_hint = STR("get it there");
    assert_int_equal(kube_auth_fetch(&c, &au, &e), ERR_DENIED);
    assert_non_null(strstr(e.msg, "get it there"));
}

/* ---- the splitter ---- */

static struct buf got;

static int on_object(void *arg, struct str text) {
    (void)arg;
    buf_printf(&got, "[%.*s]", STR_FMT(text));
    return 0;
}
static int on_meta(void *arg, struct str text) {
    (void)arg;
    buf_printf(&got, "(%.*s)", STR_FMT(text));
    return 0;
}
static const struct kube_split_ops split_ops = {.on_object = on_object, .on_meta = on_meta};

static const struct {
    bool is_watch;
    const char *text, *want; /* want NULL: refused or not whole */
} SPLITS[] = {
    {false,
     "{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[{\"a\":1},{}]}",
     "({\"resourceVersion\":\"1\"})[{\"a\":1}][{}]"},
    {false, " { \"items\" : [ {\"x\":\"]}\\\"{\"} , {\"y\":[{}]} ] , \"metadata\" : {} } \n",
     "[{\"x\":\"]}\\\"{\"}][{\"y\":[{}]}]({})"},
    {false, "{\"items\":null,\"metadata\":{}}", "({})"},
    {false, "{\"x\":{\"items\":[{}]},\"y\":[{\"metadata\":{}}],\"n\":-1.5e3,\"b\":true}", NULL},
    {false, "{\"n\":-1.5e3,\"b\":true,\"items\":[]}", ""},
    /* what others answer, and what would be an empty list if it were believed */
    {false, "{}", NULL},
    {false, "{\"kind\":\"Pod\",\"metadata\":{\"resourceVersion\":\"9\"},\"spec\":{}}", NULL},
    {false, "{\"kind\":\"Status\",\"metadata\":{},\"items\":[]}", NULL},
    {false, "{\"kind\":\"NodeList\",\"metadata\":{},\"items\":[]}", NULL},
    {false, "{\"items\":[],\"kind\":\"PodLists\"}", NULL},
    {false, "{\"items\":[],\"kind\":\"PodList\"}", ""},
    {false, "{\"items\":3}", NULL},
    {false, "{\"metadata\":\"items\",\"items\":[]}", ""},
    {false, "{\"items\":[1]}", NULL},
    {false, "{\"items\":[{}", NULL},
    {false, "{\"items\":[{}]]", NULL},
    {false, "[]", NULL},
    {false, "{}{}", NULL},
    {false, "{\"a\" 1}", NULL},
    {false, "{\"a\":1 \"b\":2}", NULL},
    {false, "<html>", NULL},
    {true, "{\"type\":\"ADDED\",\"object\":{}}\n{\"type\":\"X\"}",
     "[{\"type\":\"ADDED\",\"object\":{}}][{\"type\":\"X\"}]"},
    {true, "", ""},
    {true, "{\"a\":", NULL},
    {true, "x", NULL},
};

static void t_split__at_every_cut(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(SPLITS); i++) {
        struct str text = str_c(SPLITS[i].text);
        for (size_t step = 1; step <= text.n + 1; step++) {
            struct kube_split s;
            int r = 0;
            got = BUF_INIT(65536);
            kube_split_init(&s, SPLITS[i].is_watch, "Pod", &split_ops, NULL);
            for (size_t at = 0; at < text.n && r == 0; at += step) {
                size_t end = at + step < text.n ? at + step : text.n;
                r = kube_split_feed(&s, str_sub(text, at, end));
            }
            bool is_ok = r == 0 && kube_split_is_whole(&s);
            if (is_ok != (SPLITS[i].want != NULL)) {
                fail_msg("%s: %d, whole %d", SPLITS[i].text, r, kube_split_is_whole(&s));
            }
            if (is_ok) {
                assert_string_equal(buf_cstr(&got), SPLITS[i].want);
            }
            kube_split_fini(&s);
            buf_fini(&got);
        }
    }
}

static int refuse(void *arg, struct str text) {
    (void)arg;
    (void)text;
    return ERR_GONE;
}

static void t_split__limits_and_callbacks(void **state) {
    (void)state;
    static const struct kube_split_ops no = {.on_object = refuse};
    struct kube_split s;
    kube_split_init(&s, true, NULL, &no, NULL);
    assert_int_equal(kube_split_feed(&s, STR("{}")), ERR_GONE);
    kube_split_fini(&s);
    kube_split_init(&s, true, NULL, &split_ops, NULL);
    int r = 0;
    for (unsigned i = 0; i <= KUBE_SPLIT_DEPTH && r == 0; i++) {
        r = kube_split_feed(&s, STR("{\"a\":"));
    }
    assert_int_equal(r, ERR_TOO_BIG);
    kube_split_fini(&s);
    kube_split_init(&s, true, NULL, &split_ops, NULL);
    char *big = malloc(1 << 20);
    assert_non_null(big);
    memset(big, 'x', 1 << 20);
    r = kube_split_feed(&s, STR("{\"a\":\""));
    for (unsigned i = 0; i < 10 && r == 0; i++) {
        r = kube_split_feed(&s, str_n(big, 1 << 20));
    }
    assert_int_equal(r, ERR_TOO_BIG);
    assert_true(s.text.cap <= 2 * KUBE_OBJECT_MAX);
    free(big);
    kube_split_fini(&s);
}

int main(void) {
#define T(f) cmocka_unit_test_setup(f, reset)
    const struct CMUnitTest tests[] = {
        T(t_config__all_fields),
        T(t_config__merged_files__first_counts),
        T(t_config__errors_name_place_and_field),
        T(t_auth__times),
        T(t_auth__static_and_basic),
        T(t_auth__token_file_is_read_again),
        T(t_auth__exec),
        T(t_split__at_every_cut),
        T(t_split__limits_and_callbacks),
    };
    snprintf(dir, sizeof(dir), "/tmp/margay-kube-XXXXXX");
    if (!mkdtemp(dir)) {
        return 1;
    }
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    arena_fini(&a);
    char cmd[128];
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    return system(cmd) || r;
}
