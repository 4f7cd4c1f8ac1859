/* The store on an etcd that misbehaves: killed, replaced, full, without a leader, with users, with
 * TLS. Without etcd's programs the tests are skipped. */
#include "base/log.h"
#include "store/syncer.h"

#include "etcd_lab.h"
#include "etcd_mirror.h"

#include <inttypes.h>
#include <pthread.h>
#include <sys/resource.h>

static int64_t cpu_ns(void) {
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL +
           ((int64_t)u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL;
}

static void run_for(struct mirror *m, int64_t ms) {
    int64_t end = clock_ns() + ms * 1000000;
    while (clock_ns() < end) {
        loop_step(m->l, true);
    }
}

/* Starts a lab and gives a store on it that works. */
static struct store *open_lab(struct lab *b, int n) {
    lab_open(b, n, "http", NULL);
    lab_start_all(b);
    struct store *s = open_url(b->url);
    wait_ready(s);
    return s;
}

static void t_etcd__killed_and_restarted__no_flap_little_cpu(void **state) {
    struct lab b;
    struct store *s = open_lab(&b, 1);
    struct mirror *m = malloc(sizeof(*m));
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    (void)put_handle(s, "a", "1");
    (void)put_handle(s, "b", "1");
    mirror_open(m, s, STORE_SPACE_IPAM);
    mirror_until(m, m->is_connected);
    lab_stop(&b, 0);
    mirror_until(m, m->n_lost == 1);
    assert_non_null(strstr(m->why, "127.0.0.1"));
    assert_int_equal(store_get(s, ikey("/ipam/v2/handle/a"), &a, &it, &e), ERR_UNAVAILABLE);
    assert_non_null(strstr(e.msg, "Connection refused"));
    assert_int_equal(store_put(s, ikey("/ipam/v2/handle/a"), STR("2"), REV_ANY, NULL, &e),
                     ERR_UNAVAILABLE);
    int64_t cpu = cpu_ns();
    run_for(m, 3000);
    cpu = cpu_ns() - cpu;
    assert_true(cpu < 600 * 1000000LL); /* with sanitizers; a loop that spins takes 3 s */
    lab_start(&b, 0);
    mirror_until(m, m->is_connected);
    assert_int_equal(m->n_snapshots, 1); /* the watch went on from where it was */
    assert_int_equal(m->n_items_told, 2);
    (void)put_handle(s, "a", "3");
    mirror_until(m, str_is(str_c(mirror_value(m, "/ipam/v2/handle/a")), "3"));
    assert_int_equal(m->n_items_told, 3);
    assert_int_equal(m->n_lost, 1);
    mirror_close(m);
    free(m);
    arena_fini(&a);
    store_close(s);
    lab_close(&b);
    (void)state;
}

/* While the follower does not look, its past is compacted away; then the cluster is another one. */
static void t_etcd__compacted_or_replaced__new_snapshot(void **state) {
    struct lab b;
    struct store *s = open_lab(&b, 1);
    struct mirror *m = malloc(sizeof(*m));
    struct err e = {.msg = ""};
    char words[64];
    (void)put_handle(s, "a", "1");
    (void)put_handle(s, "b", "1");
    mirror_open(m, s, STORE_SPACE_IPAM);
    mirror_until(m, m->is_connected);
    lab_stop(&b, 0);
    mirror_until(m, m->n_lost == 1);
    lab_start(&b, 0);
    wait_ready(s);
    for (int i = 0; i < 20; i++) {
        (void)put_handle(s, "a", i == 19 ? "new" : "x");
    }
    ok(store_delete(s, ikey("/ipam/v2/handle/b"), REV_ANY, &e), &e);
    (void)snprintf(words, sizeof(words), "compact %" PRIu64, store_revision(s));
    assert_int_equal(lab_ctl(&b, words), 0);
    mirror_until(m, m->n_snapshots == 2 && m->is_connected && !m->is_in_snapshot);
    assert_int_equal(m->n, 1);
    assert_string_equal(mirror_value(m, "/ipam/v2/handle/a"), "new");
    assert_int_equal(m->n_in_sync, 1);

    lab_stop(&b, 0);
    (void)snprintf(words, sizeof(words), "%s/m0", b.dir);
    char *argv[] = {(char *)(uintptr_t) "rm", (char *)(uintptr_t) "-rf", words, NULL};
    assert_int_equal(lab_run(b.dir, argv), 0);
    b.m[0].peer_port = lab_free_port(); /* the id comes of the members' addresses */
    lab_start(&b, 0);
    mirror_until(m, m->n_snapshots == 3 && m->is_connected);
    assert_non_null(strstr(m->why, "another cluster answers"));
    assert_int_equal(m->n, 0);
    (void)put_handle(s, "c", "1");
    mirror_until(m, m->n == 1);
    assert_true(m->position < 20);
    mirror_close(m);
    free(m);
    store_close(s);
    lab_close(&b);
    (void)state;
}

/* What the syncer's consumer knows of two items. */
struct told {
    char a[16], b[16];
    unsigned n_told, n_in_sync;
};
static void told_item(void *arg, const struct store_item *it) {
    struct told *t = arg;
    char *to = str_ends(it->key, STR("/a")) ? t->a : t->b;
    t->n_told++;
    (void)snprintf(to, sizeof(t->a), "%.*s", STR_FMT(it->value));
}
static void told_in_sync(void *arg) {
    ((struct told *)arg)->n_in_sync++;
}

/* The same cluster with an older past: an etcd restored from a backup. */
static void t_etcd__history_cut__differences_told(void **state) {
    static const struct syncer_ops ops = {.on_item = told_item, .on_in_sync = told_in_sync};
    struct lab b;
    struct store *s = open_lab(&b, 1);
    struct mirror *m = malloc(sizeof(*m));
    struct told t = {.n_told = 0};
    struct syncer *y = NULL;
    struct err e = {.msg = ""};
    char words[160];
    (void)put_handle(s, "a", "old");
    (void)put_handle(s, "b", "same");
    mirror_open(m, s, STORE_SPACE_IPAM);
    ok(syncer_start(s, m->l, ikey(""), &ops, &t, &y, &e), &e);
    mirror_until(m, m->is_connected && t.n_in_sync);
    for (int i = 0; i < 20; i++) {
        (void)put_handle(s, "a", "new");
    }
    mirror_until(m, m->position >= store_revision(s) && str_is(str_c(t.a), "new"));
    unsigned n = t.n_told;
    lab_stop(&b, 0);
    (void)snprintf(words, sizeof(words), "%s/m0", b.dir);
    char *argv[] = {(char *)(uintptr_t) "rm", (char *)(uintptr_t) "-rf", words, NULL};
    assert_int_equal(lab_run(b.dir, argv), 0);
    lab_start(&b, 0); /* the same name, token and addresses: the same id */
    wait_ready(s);
    (void)put_handle(s, "b", "same");
    (void)put_handle(s, "a", "old");
    mirror_until(m, m->n_snapshots == 2 && m->is_connected);
    assert_non_null(strstr(m->why, "restored from a backup"));
    assert_string_equal(mirror_value(m, "/ipam/v2/handle/a"), "old");
    mirror_until(m, str_is(str_c(t.a), "old"));
    assert_string_equal(t.b, "same");
    assert_int_equal(t.n_told, n + 1); /* the difference, and nothing else */
    assert_int_equal(t.n_in_sync, 1);
    syncer_free(y);
    mirror_close(m);
    free(m);
    store_close(s);
    lab_close(&b);
    (void)state;
}

/* Each member in turn dies, stops (half open), or comes back; calls go on, the follower misses
 * nothing. */
static void t_etcd__three_members__one_down_at_a_time(void **state) {
    struct lab b;
    struct store *s = open_lab(&b, 3);
    struct mirror *m = malloc(sizeof(*m));
    char value[16];
    (void)put_handle(s, "a", "start");
    mirror_open(m, s, STORE_SPACE_IPAM);
    mirror_until(m, m->is_connected);
    for (int i = 0; i < 3; i++) {
        lab_stop(&b, i); /* one of them is the leader */
        for (int k = 0; k < 5; k++) {
            (void)snprintf(value, sizeof(value), "%d.%d", i, k);
            (void)put_handle(s, "a", value);
        }
        mirror_catch_up(m);
        assert_string_equal(mirror_value(m, "/ipam/v2/handle/a"), value);
        lab_start(&b, i);
        struct store *one = open_url(strchr(b.url, 'h'));
        wait_ready(one);
        store_close(one);
    }
    assert_int_equal(m->n_snapshots, 1);
    assert_int_equal(m->n_items_told, 16);
    /* A member that hangs: its connections live, it says nothing. */
    lab_signal(&b, 0, SIGSTOP);
    (void)put_handle(s, "a", "hung");
    mirror_until(m, str_is(str_c(mirror_value(m, "/ipam/v2/handle/a")), "hung"));
    lab_signal(&b, 0, SIGCONT);
    /* Two of three gone: nothing can be said to be true. */
    lab_stop(&b, 0);
    lab_stop(&b, 1);
    struct err e = {.msg = ""};
    int64_t began = clock_ns();
    assert_int_equal(store_put(s, ikey("/ipam/v2/handle/a"), STR("x"), REV_ANY, NULL, &e),
                     ERR_UNAVAILABLE);
    assert_true(clock_ns() - began < 40 * 1000000000LL);
    mirror_close(m);
    free(m);
    store_close(s);
    lab_close(&b);
    (void)state;
}

static void t_etcd__disk_full__said_and_reads_go_on(void **state) {
    static const char *const more[] = {"--quota-backend-bytes", "1000000", NULL};
    struct lab b;
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    lab_open(&b, 1, "http", more);
    lab_start_all(&b);
    struct store *s = open_url(b.url);
    wait_ready(s);
    char *text = malloc(300000);
    memset(text, 'x', 300000);
    (void)put_handle(s, "a", "1");
    int r = 0;
    for (int i = 0; i < 20 && r == 0; i++) {
        r = store_put(s, ikey("/ipam/v2/big"), str_n(text, 300000), REV_ANY, NULL, &e);
    }
    assert_int_equal(r, ERR_NO_SPACE);
    assert_non_null(strstr(e.msg, "NOSPACE"));
    assert_int_equal(store_put(s, ikey("/ipam/v2/handle/a"), STR("2"), REV_ANY, NULL, &e),
                     ERR_NO_SPACE);
    ok(store_get(s, ikey("/ipam/v2/handle/a"), &a, &it, &e), &e);
    free(text);
    arena_fini(&a);
    store_close(s);
    lab_close(&b);
    (void)state;
}

static int code_of_get(const char *url, struct err *e) {
    struct store *s = open_url(url);
    struct arena a = {0};
    struct store_item it;
    int r = store_get(s, ikey("/ipam/v2/handle/a"), &a, &it, e);
    arena_fini(&a);
    store_close(s);
    return r;
}

/* Tokens live a second; roles and passwords are as in Calico's documentation. */
static void t_etcd__users__login_renewed_and_refusals_said(void **state) {
    static const char *const more[] = {"--auth-token-ttl", "1", NULL};
    struct lab b;
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    char url[700];
    lab_open(&b, 1, "http", more);
    lab_start_all(&b);
    struct store *anyone = open_url(b.url);
    wait_ready(anyone);
    (void)put_handle(anyone, "a", "1");
    static const char *const setup[] = {"user add root:rootpw",
                                        "user grant-role root root",
                                        "role add felix",
                                        "role grant-permission felix read --prefix=true /calico/",
                                        "user add felix:felixpw",
                                        "user grant-role felix felix",
                                        "auth enable"};
    for (size_t i = 0; i < ARRAY_LEN(setup); i++) {
        assert_int_equal(lab_ctl(&b, setup[i]), 0);
    }
    assert_int_equal(store_get(anyone, ikey("/ipam/v2/handle/a"), &a, &it, &e), ERR_DENIED);
    assert_non_null(strstr(e.msg, "ETCD_USERNAME"));
    (void)snprintf(url, sizeof(url), "%s?user=felix&password=wrong", b.url);
    assert_int_equal(code_of_get(url, &e), ERR_DENIED);
    assert_non_null(strstr(e.msg, "wrong user name or password"));

    (void)snprintf(url, sizeof(url), "%s?user=root&password=rootpw", b.url);
    struct store *root = open_url(url);
    (void)snprintf(url, sizeof(url), "%s?user=felix&password=felixpw", b.url);
    struct store *felix = open_url(url);
    struct mirror *m = malloc(sizeof(*m));
    mirror_open(m, felix, STORE_SPACE_IPAM);
    mirror_until(m, m->is_connected);
    ok(store_get(felix, ikey("/ipam/v2/handle/a"), &a, &it, &e), &e);
    assert_int_equal(store_put(felix, ikey("/ipam/v2/handle/a"), STR("2"), REV_ANY, NULL, &e),
                     ERR_DENIED);
    assert_non_null(strstr(e.msg, "permission denied"));
    run_for(m, 3500); /* the tokens of all three expire */
    (void)put_handle(root, "a", "3");
    ok(store_get(felix, ikey("/ipam/v2/handle/a"), &a, &it, &e), &e);
    assert_true(str_is(it.value, "3"));
    mirror_until(m, str_is(str_c(mirror_value(m, "/ipam/v2/handle/a")), "3"));
    mirror_catch_up(m);
    mirror_close(m);
    free(m);
    arena_fini(&a);
    store_close(root);
    store_close(felix);
    store_close(anyone);
    lab_close(&b);
    (void)state;
}

/* With the text of a shell command, as openssl's calls are written. */
static void shell(const struct lab *b, const char *command) {
    char text[2000];
    (void)snprintf(text, sizeof(text), "cd %s && %s", b->dir, command);
    char *argv[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c", text, NULL};
    assert_int_equal(lab_run(b->dir, argv), 0);
}

#define EC "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
#define CERT(name, days)                                                                      \
    "openssl req " EC " -keyout " name ".key -out " name ".csr -subj /CN=" name               \
    " && openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days " days " -in " name \
    ".csr -out " name ".crt -extfile ext"

static void t_etcd__tls__client_certificate(void **state) {
    static char paths[3][128];
    static const char *more[] = {"--cert-file",       paths[0], "--key-file",         paths[1],
                                 "--trusted-ca-file", paths[2], "--client-cert-auth", NULL};
    struct lab b;
    struct err e = {.msg = ""};
    char url[1000];
    lab_open(&b, 1, "https", more);
    (void)snprintf(paths[0], sizeof(paths[0]), "%s/server.crt", b.dir);
    (void)snprintf(paths[1], sizeof(paths[1]), "%s/server.key", b.dir);
    (void)snprintf(paths[2], sizeof(paths[2]), "%s/ca.crt", b.dir);
    shell(&b, "openssl req -x509 " EC " -days 2 -keyout ca.key -out ca.crt -subj /CN=lab-ca");
    shell(&b, "printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\n"
              "extendedKeyUsage=serverAuth,clientAuth\\n' >ext");
    shell(&b, CERT("server", "2"));
    shell(&b, CERT("felix", "2"));
    lab_start_all(&b);
    (void)snprintf(url, sizeof(url), "%s?ca=%s/ca.crt&cert=%s/felix.crt&key=%s/felix.key", b.url,
                   b.dir, b.dir, b.dir);
    struct store *s = open_url(url);
    wait_ready(s);
    (void)put_handle(s, "a", "1");
    struct mirror *m = malloc(sizeof(*m));
    mirror_open(m, s, STORE_SPACE_IPAM);
    mirror_until(m, m->is_connected && m->n == 1);

    (void)snprintf(url, sizeof(url), "%s?ca=%s/ca.crt", b.url, b.dir);
    assert_true(code_of_get(url, &e) < 0);
    assert_non_null(strstr(e.msg, "client certificate"));
    (void)snprintf(url, sizeof(url), "%s?ca=%s/felix.crt&cert=%s/felix.crt&key=%s/felix.key", b.url,
                   b.dir, b.dir, b.dir);
    assert_true(code_of_get(url, &e) < 0);
    assert_non_null(strstr(e.msg, "CA certificate given"));
    (void)snprintf(url, sizeof(url), "%s?ca=%s/none.crt", b.url, b.dir);
    assert_int_equal(code_of_get(url, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "none.crt"));

    /* A new authority, in place of the old one's files: the next connections go by it. */
    shell(&b, "openssl req -x509 " EC " -days 2 -keyout ca.key -out ca.crt -subj /CN=lab-ca-2");
    shell(&b, CERT("server", "2"));
    shell(&b, CERT("felix", "2"));
    lab_stop(&b, 0);
    mirror_until(m, m->n_lost == 1);
    lab_start(&b, 0);
    wait_ready(s);
    mirror_until(m, m->is_connected);
    (void)put_handle(s, "a", "2");
    mirror_until(m, str_is(str_c(mirror_value(m, "/ipam/v2/handle/a")), "2"));
    mirror_close(m);
    free(m);
    store_close(s);
    lab_close(&b);
    (void)state;
}

/* A server that takes connections and says nothing: a call on it ends when the program stops. */
static void *interrupt_soon(void *arg) {
    usleep(200000);
    store_interrupt(arg);
    return NULL;
}

static void t_etcd__interrupted__ends_at_once(void **state) {
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    char url[64];
    pthread_t thread;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d", ntohs(sa.sin_port));
    struct store *s = open_url(url);
    int64_t began = clock_ns();
    assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, s), 0);
    assert_int_equal(store_get(s, ikey("/ipam/v2/handle/a"), &a, &it, &e), -ECANCELED);
    assert_true(clock_ns() - began < 3 * 1000000000LL); /* alone it would wait for 4 s and more */
    assert_int_equal(store_put(s, ikey("/ipam/v2/handle/a"), STR("x"), REV_ANY, NULL, &e),
                     -ECANCELED);
    (void)pthread_join(thread, NULL);
    store_close(s);
    close(fd);
    arena_fini(&a);
    (void)state;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(t_etcd__interrupted__ends_at_once),
    cmocka_unit_test(t_etcd__killed_and_restarted__no_flap_little_cpu),
    cmocka_unit_test(t_etcd__compacted_or_replaced__new_snapshot),
    cmocka_unit_test(t_etcd__history_cut__differences_told),
    cmocka_unit_test(t_etcd__three_members__one_down_at_a_time),
    cmocka_unit_test(t_etcd__disk_full__said_and_reads_go_on),
    cmocka_unit_test(t_etcd__users__login_renewed_and_refusals_said),
    cmocka_unit_test(t_etcd__tls__client_certificate),
};

int main(int argc, char **argv) {
    if (argc > 1) {
        log_level_set(LOG_DEBUG);
        cmocka_set_test_filter(argv[1]);
    }
    if (access("/usr/bin/etcd", X_OK) < 0 || access("/usr/bin/etcdctl", X_OK) < 0) {
        return 77;
    }
    return cmocka_run_group_tests_name("etcd_faults", tests, NULL, NULL);
}
