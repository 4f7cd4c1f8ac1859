/* The store on a real etcd. Without etcd's program the tests are skipped. */
#include "store/compact.h"
#include "store/driver.h"
#include "store/etcd_map.h"
#include "store/lease.h"

#include "etcd_lab.h"
#include "etcd_mirror.h"

#include <inttypes.h>

static struct lab lab; /* one member, for tests that only need a store */

static struct store_key rkey(const char *k) {
    return (struct store_key){STR(STORE_SPACE_RESOURCES), str_c(k)};
}

static int setup(void **state) {
    lab_open(&lab, 1, "http", NULL);
    lab_start_all(&lab);
    struct store *s = open_url(lab.url);
    wait_ready(s);
    store_close(s);
    (void)state;
    return 0;
}
static int teardown(void **state) {
    lab_close(&lab);
    (void)state;
    return 0;
}

/* Everything below our prefixes is removed. */
static struct store *fresh(void) {
    assert_int_equal(lab_ctl(&lab, "del --prefix /"), 0);
    return open_url(lab.url);
}

#define POD(ns, n)                                                                                 \
    "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"" n "\",\"namespace\":\"" ns \
    "\"}}"

static void t_etcd__compare_and_swap__codes(void **state) {
    struct store *s = fresh();
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    uint64_t r1 = 0, r2 = 0;
    struct store_key k = rkey("Pod/a/x");
    assert_int_equal(store_delete(s, k, REV_ANY, &e), ERR_NOT_FOUND);
    assert_int_equal(store_put(s, k, STR(POD("a", "x")), 7, NULL, &e), ERR_NOT_FOUND);
    ok(store_put(s, k, STR(POD("a", "x")), REV_NONE, &r1, &e), &e);
    assert_int_equal(store_put(s, k, STR("{}"), REV_NONE, NULL, &e), ERR_EXISTS);
    ok(store_put(s, k, STR(POD("a", "x")), r1, &r2, &e), &e);
    assert_true(r2 > r1);
    assert_int_equal(store_put(s, k, STR(POD("a", "x")), r1, NULL, &e), ERR_CONFLICT);
    assert_int_equal(store_delete(s, k, r1, &e), ERR_CONFLICT);
    ok(store_get(s, k, &a, &it, &e), &e);
    assert_true(str_is(it.value, POD("a", "x")) && it.revision == r2);
    assert_true(str_is(it.key, "Pod/a/x") && str_is(it.space, "r"));
    ok(store_put(s, k, STR(POD("a", "x")), REV_ANY, NULL, &e), &e);
    ok(store_delete(s, k, REV_ANY, &e), &e);
    assert_int_equal(store_get(s, k, &a, &it, &e), ERR_NOT_FOUND);
    assert_true(store_revision(s) > r2);
    assert_int_equal(store_put(s, rkey("nothing"), STR("{}"), REV_ANY, NULL, &e), ERR_INVALID);
    arena_fini(&a);
    store_close(s);
    (void)state;
}

struct seen {
    size_t n;
    char last[STORE_KEY_MAX];
    bool is_sorted;
    char text[4096];
};

static int on_listed(void *arg, const struct store_item *it) {
    struct seen *n = arg;
    assert_true(it->key.n < sizeof(n->last));
    if (n->n && str_cmp(str_c(n->last), it->key) >= 0) {
        n->is_sorted = false;
    }
    memcpy(n->last, it->key.p, it->key.n);
    n->last[it->key.n] = '\0';
    size_t at = strlen(n->text);
    if (at + it->key.n + 2 < sizeof(n->text)) {
        memcpy(n->text + at, it->key.p, it->key.n);
        memcpy(n->text + at + it->key.n, " ", 2);
    }
    n->n++;
    return 0;
}

static struct seen list(struct store *s, struct store_key prefix, uint64_t *revision) {
    struct seen n = {.is_sorted = true};
    struct err e = {.msg = ""};
    ok(store_list(s, prefix, revision, on_listed, &n, &e), &e);
    return n;
}

static void t_etcd__list__prefix_order_revision(void **state) {
    static const char *const keys[] = {"Pod/a/1",
                                       "Pod/a/10",
                                       "Pod/ab/1",
                                       "Node//n",
                                       "Node.projectcalico.org//n",
                                       "NetworkPolicy.projectcalico.org/a/p",
                                       "NetworkPolicy.networking.k8s.io/a/p",
                                       "IPPool.projectcalico.org//lab"};
    struct store *s = fresh();
    struct err e = {.msg = ""};
    uint64_t revision = 0;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        ok(store_put(s, rkey(keys[i]), STR("{\"spec\":{}}"), REV_NONE, NULL, &e), &e);
    }
    ok(store_put(s, ikey("/ipam/v2/handle/h"), STR("{}"), REV_NONE, NULL, &e), &e);
    struct seen all = list(s, rkey(""), &revision);
    assert_string_equal(all.text,
                        "IPPool.projectcalico.org//lab NetworkPolicy.networking.k8s.io/a/p "
                        "NetworkPolicy.projectcalico.org/a/p Node.projectcalico.org//n Node//n "
                        "Pod/a/1 Pod/a/10 Pod/ab/1 "
                        "Profile.projectcalico.org//projectcalico-default-allow ");
    assert_true(all.is_sorted);
    assert_int_equal(revision, store_revision(s));
    assert_string_equal(list(s, rkey("Pod/a"), NULL).text, "Pod/a/1 Pod/a/10 Pod/ab/1 ");
    assert_string_equal(list(s, rkey("Pod/a/"), NULL).text, "Pod/a/1 Pod/a/10 ");
    assert_string_equal(list(s, rkey("Node"), NULL).text, "Node.projectcalico.org//n Node//n ");
    assert_string_equal(list(s, rkey("Node//"), NULL).text, "Node//n ");
    assert_string_equal(list(s, rkey("Node/n"), NULL).text, "");
    assert_string_equal(list(s, rkey("zzz"), &revision).text, "");
    assert_int_equal(revision, store_revision(s));
    assert_string_equal(list(s, ikey(""), NULL).text, "/ipam/v2/handle/h ");
    assert_string_equal(list(s, ikey("/ipam/v2/handle/"), NULL).text, "/ipam/v2/handle/h ");
    store_close(s);
    (void)state;
}

/* 5,000 keys take several pages; what is written meanwhile is not in the list. */
static int on_paged(void *arg, const struct store_item *it) {
    struct seen *n = arg;
    struct err e = {.msg = ""};
    if (n->n == 10) {
        struct store *s = open_url(lab.url);
        ok(store_put(s, ikey("/ipam/v2/handle/zzz"), STR("{}"), REV_NONE, NULL, &e), &e);
        store_close(s);
    }
    return on_listed(arg, it);
}

static void t_etcd__list__pages_of_one_revision(void **state) {
    struct store *s = fresh();
    struct err e = {.msg = ""};
    char name[32];
    for (int i = 0; i < 5000; i++) {
        (void)snprintf(name, sizeof(name), "/ipam/v2/handle/h%04d", i);
        ok(store_put(s, ikey(name), STR("{\"block\":{}}"), REV_NONE, NULL, &e), &e);
    }
    struct seen n = {.is_sorted = true};
    uint64_t revision = 0, before = store_revision(s);
    ok(store_list(s, ikey("/ipam/"), &revision, on_paged, &n, &e), &e);
    assert_int_equal(n.n, 5000);
    assert_true(n.is_sorted);
    assert_int_equal(revision, before);
    struct mirror *m = malloc(sizeof(*m));
    mirror_open(m, s, STORE_SPACE_IPAM);
    mirror_until(m, m->n_in_sync);
    assert_int_equal(m->n, 5001);
    mirror_close(m);
    free(m);
    store_close(s);
    (void)state;
}

/* A megabyte, every byte of it. */
static void t_etcd__value__large(void **state) {
    struct store *s = fresh();
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    size_t n = 1 << 20;
    char *text = malloc(n);
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)('a' + i % 26);
    }
    text[0] = text[n - 1] = '"';
    ok(store_put(s, ikey("/ipam/v2/big"), str_n(text, n), REV_NONE, NULL, &e), &e);
    ok(store_get(s, ikey("/ipam/v2/big"), &a, &it, &e), &e);
    assert_true(str_eq(it.value, str_n(text, n)));
    assert_int_equal(list(s, ikey(""), NULL).n, 1);
    /* etcd's own limit is 1.5 MiB. */
    char *more = calloc(1, 1700000);
    memset(more, 'x', 1700000);
    assert_int_equal(store_put(s, ikey("/ipam/v2/big2"), str_n(more, 1700000), REV_NONE, NULL, &e),
                     ERR_TOO_BIG);
    assert_non_null(strstr(e.msg, "max-request-bytes"));
    free(more);
    free(text);
    arena_fini(&a);
    store_close(s);
    (void)state;
}

/* Four processes count the same number up: none is lost. */
static void count_up(int n) {
    struct store *s = open_url(lab.url);
    struct err e = {.msg = ""};
    for (int i = 0; i < n;) {
        struct arena a = {0};
        struct store_item it;
        char text[32];
        uint64_t old = 0;
        ok(store_get(s, ikey("/ipam/v2/count"), &a, &it, &e), &e);
        ok(str_to_u64(it.value, &old), &e);
        (void)snprintf(text, sizeof(text), "%" PRIu64, old + 1);
        int r = store_put(s, ikey("/ipam/v2/count"), str_c(text), it.revision, NULL, &e);
        i += r == 0;
        if (r < 0 && r != ERR_CONFLICT) {
            _exit(1);
        }
        arena_fini(&a);
    }
    store_close(s);
}

static void t_etcd__compare_and_swap__race(void **state) {
    enum { PROCESSES = 4, TIMES = 40 };
    struct store *s = fresh();
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    pid_t pid[PROCESSES];
    ok(store_put(s, ikey("/ipam/v2/count"), STR("0"), REV_NONE, NULL, &e), &e);
    for (int i = 0; i < PROCESSES; i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            count_up(TIMES);
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = 1;
        (void)waitpid(pid[i], &status, 0);
        assert_int_equal(status, 0);
    }
    ok(store_get(s, ikey("/ipam/v2/count"), &a, &it, &e), &e);
    assert_true(str_is(it.value, "160"));
    arena_fini(&a);
    store_close(s);
    (void)state;
}

static void t_etcd__follow__snapshot_changes_progress(void **state) {
    struct store *s = fresh();
    struct err e = {.msg = ""};
    struct mirror *m = malloc(sizeof(*m));
    char value[16];
    (void)put_handle(s, "a", "1");
    (void)put_handle(s, "b", "1");
    mirror_open(m, s, STORE_SPACE_IPAM);
    mirror_until(m, m->is_connected);
    assert_int_equal(m->n_in_sync, 1);
    assert_int_equal(m->n, 2);
    for (int i = 0; i < 300; i++) {
        (void)snprintf(value, sizeof(value), "%d", i);
        (void)put_handle(s, i % 2 ? "a" : "c", value);
    }
    ok(store_delete(s, ikey("/ipam/v2/handle/b"), REV_ANY, &e), &e);
    mirror_until(m, m->position >= store_revision(s));
    assert_int_equal(m->n, 2);
    assert_string_equal(mirror_value(m, "/ipam/v2/handle/a"), "299");
    assert_string_equal(mirror_value(m, "/ipam/v2/handle/c"), "298");
    /* What is written elsewhere moves the position only when somebody asks. */
    ok(store_put(s, rkey("Pod/a/x"), STR("{}"), REV_NONE, NULL, &e), &e);
    mirror_catch_up(m);
    assert_int_equal(m->n_snapshots, 1);
    assert_int_equal(m->n_lost, 0);
    assert_int_equal(m->n_items_told, 2 + 300 + 1);
    mirror_close(m);
    free(m);
    store_close(s);
    (void)state;
}

struct watched {
    unsigned n, n_ends;
    int code;
    uint64_t progress;
    char last[100];
    struct store_watch *w;
    bool frees_itself;
};
static void on_watched(void *arg, const struct store_item *it) {
    struct watched *w = arg;
    w->n++;
    (void)snprintf(w->last, sizeof(w->last), "%.*s%s", STR_FMT(it->key),
                   it->value.p ? "" : " gone");
    if (w->frees_itself) {
        store_watch_free(TAKE_PTR(w->w));
    }
}
static void on_watch_over(void *arg, int code) {
    struct watched *w = arg;
    w->n_ends++;
    w->code = code;
    store_watch_free(TAKE_PTR(w->w));
}
static void on_watch_moved(void *arg, uint64_t revision) {
    ((struct watched *)arg)->progress = revision;
}

static void t_etcd__watch__prefix_from_revision(void **state) {
    static const struct store_watch_ops ops = {on_watched, on_watch_over, on_watch_moved};
    struct store *s = fresh();
    struct err e = {.msg = ""};
    struct mirror *m = malloc(sizeof(*m)); /* for its loop */
    struct watched w = {0}, all = {0}, once = {.frees_itself = true};
    uint64_t first = 0, r = 0;
    mirror_open(m, s, STORE_SPACE_IPAM);
    ok(store_put(s, rkey("Pod/a/x"), STR("{}"), REV_NONE, &first, &e), &e);
    ok(store_put(s, rkey("Pod/b/y"), STR("{}"), REV_NONE, NULL, &e), &e);
    ok(store_put(s, rkey("Pod/a/y"), STR("{}"), REV_NONE, NULL, &e), &e);
    ok(store_delete(s, rkey("Pod/a/y"), REV_ANY, &e), &e);
    r = store_revision(s);
    ok(store_watch(s, m->l, rkey("Pod/a/"), first, &ops, &w, &w.w, &e), &e);
    ok(store_watch(s, m->l, rkey(""), first - 1, &ops, &all, &all.w, &e), &e);
    ok(store_watch(s, m->l, rkey("Pod/"), first - 1, &ops, &once, &once.w, &e), &e);
    mirror_until(m, w.progress >= r && all.progress >= r && once.n);
    assert_int_equal(w.n, 2);
    assert_string_equal(w.last, "Pod/a/y gone");
    assert_int_equal(all.n, 4);
    assert_int_equal(once.n, 1);
    /* The past is cut off. */
    struct watched old = {0};
    char words[64];
    (void)snprintf(words, sizeof(words), "compact %" PRIu64, r);
    assert_int_equal(lab_ctl(&lab, words), 0);
    ok(store_watch(s, m->l, rkey("Pod/"), first, &ops, &old, &old.w, &e), &e);
    mirror_until(m, old.n_ends);
    assert_int_equal(old.code, ERR_GONE);
    assert_int_equal(old.n, 0);
    store_watch_free(w.w);
    store_watch_free(all.w);
    mirror_close(m);
    free(m);
    store_close(s);
    (void)state;
}

static void t_etcd__lease__items_go_with_it(void **state) {
    struct store *s = fresh();
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    int64_t id = 0, other = 0, ttl = 0;
    struct store_key k = {STR(STORE_SPACE_CALICO), STR("/felix/v2/no-region/host/n1/status")};
    ok(store_lease_grant(s, 60, &id, &ttl, &e), &e);
    assert_true(ttl >= 60 && id != 0);
    ok(store_lease_put(s, k, STR("{}"), REV_NONE, id, NULL, &e), &e);
    assert_int_equal(store_lease_put(s, k, STR("{}"), REV_NONE, id, NULL, &e), ERR_EXISTS);
    ok(store_lease_keep(s, id, &ttl, &e), &e);
    assert_true(ttl >= 60);
    ok(store_get(s, k, &a, &it, &e), &e);
    assert_int_equal(
        lab_ctl(&lab, "get --print-value-only /calico/felix/v2/no-region/host/n1/status"), 0);
    ok(store_lease_revoke(s, id, &e), &e);
    assert_int_equal(store_get(s, k, &a, &it, &e), ERR_NOT_FOUND);
    assert_int_equal(store_lease_keep(s, id, NULL, &e), ERR_NOT_FOUND);
    assert_int_equal(store_lease_revoke(s, id, &e), ERR_NOT_FOUND);
    assert_int_equal(store_lease_put(s, k, STR("{}"), REV_NONE, id, NULL, &e), ERR_NOT_FOUND);
    /* One that nobody keeps runs out. */
    ok(store_lease_grant(s, 1, &other, NULL, &e), &e);
    ok(store_lease_put(s, k, STR("{}"), REV_NONE, other, NULL, &e), &e);
    int64_t end = clock_ns() + 60 * 1000000000LL;
    while (store_get(s, k, &a, &it, &e) == 0 && clock_ns() < end) {
        usleep(100000);
    }
    assert_int_equal(store_get(s, k, &a, &it, &e), ERR_NOT_FOUND);
    arena_fini(&a);
    store_close(s);
    (void)state;
}

/* Two who would do it, in turns: it is done once a period, and what the period before wrote stays.
 */
static void t_etcd__compact__once_a_period_of_all(void **state) {
    struct store *s = fresh(), *t = open_url(lab.url);
    struct err e = {.msg = ""};
    struct store_compaction first = {0}, second = {0};
    uint64_t n_done = 0, revision = 0, forgotten = 0;
    struct store_key k = rkey("Namespace//a");
    for (unsigned period = 0; period < 6; period++) {
        uint64_t old = revision, one = 0, other = 0;
        ok(store_put(s, k, STR("{\"kind\":\"Namespace\"}"), REV_ANY, &revision, &e), &e);
        ok(store_compact(s, &first, &one, &e), &e);
        ok(store_compact(t, &second, &other, &e), &e);
        assert_true(!one || !other);
        n_done += one || other;
        forgotten = one ? one : other ? other : forgotten;
        assert_true(forgotten <= revision && (period < 3 || forgotten + 8 > old));
    }
    assert_true(n_done >= 3);
    char cmd[200];
    snprintf(cmd, sizeof(cmd), "get --rev=%" PRIu64 " none", forgotten - 1);
    assert_int_not_equal(lab_ctl(&lab, cmd), 0);
    snprintf(cmd, sizeof(cmd), "get --rev=%" PRIu64 " none", forgotten);
    assert_int_equal(lab_ctl(&lab, cmd), 0);
    store_close(t);
    store_close(s);
    (void)state;
}

/* What early versions of Calico left, beside what those of today write. */
static void t_etcd__policies__early_and_new_places(void **state) {
    struct store *s = fresh();
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    struct store_key k = rkey("NetworkPolicy.projectcalico.org/shop/web");
    uint64_t first = 0;
    char *put[] = {(char *)(uintptr_t) "etcdctl",
                   NULL,
                   (char *)(uintptr_t) "put",
                   (char *)(uintptr_t) "/calico/resources/v3/projectcalico.org/networkpolicies/"
                                       "shop/default.web",
                   (char *)(uintptr_t) "{\"kind\":\"NetworkPolicy\",\"apiVersion\":"
                                       "\"projectcalico.org/v3\",\"metadata\":{\"name\":"
                                       "\"default.web\",\"namespace\":\"shop\"},\"spec\":{}}",
                   NULL};
    char endpoints[600];
    (void)snprintf(endpoints, sizeof(endpoints), "--endpoints=%s", lab.url);
    put[1] = endpoints;
    assert_int_equal(lab_run(lab.dir, put), 0);
    ok(store_get(s, k, &a, &it, &e), &e);
    assert_non_null(strstr(arena_cstr(&a, it.value), "\"name\":\"web\""));
    first = it.revision;
    assert_int_equal(store_put(s, k, it.value, REV_NONE, NULL, &e), ERR_EXISTS);
    assert_int_equal(store_put(s, k, it.value, first + 1, NULL, &e), ERR_CONFLICT);
    ok(store_put(s, k, it.value, first, NULL, &e), &e); /* stays where it is */
    assert_string_equal(list(s, rkey("NetworkPolicy.projectcalico.org/"), NULL).text,
                        "NetworkPolicy.projectcalico.org/shop/default.web ");
    ok(store_put(s, k, it.value, REV_ANY, NULL, &e), &e);
    ok(store_get(s, k, &a, &it, &e), &e);
    assert_non_null(strstr(arena_cstr(&a, it.value), "\"name\":\"web\""));
    assert_null(strstr(arena_cstr(&a, it.value), "annotations"));
    assert_int_equal(store_delete(s, k, first, &e), ERR_CONFLICT);
    ok(store_delete(s, k, it.revision, &e), &e);
    assert_int_equal(store_delete(s, k, REV_ANY, &e), ERR_NOT_FOUND);
    ok(store_put(s, k, it.value, REV_NONE, NULL, &e), &e);
    assert_string_equal(list(s, rkey("NetworkPolicy.projectcalico.org/"), NULL).text,
                        "NetworkPolicy.projectcalico.org/shop/web ");
    /* The profile that is always there. */
    struct store_key allow = rkey("Profile.projectcalico.org//projectcalico-default-allow");
    ok(store_get(s, allow, &a, &it, &e), &e);
    assert_int_equal(store_put(s, allow, it.value, REV_ANY, NULL, &e), ERR_DENIED);
    assert_int_equal(store_delete(s, allow, REV_ANY, &e), ERR_DENIED);
    arena_fini(&a);
    store_close(s);
    (void)state;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(t_etcd__compare_and_swap__codes),
    cmocka_unit_test(t_etcd__list__prefix_order_revision),
    cmocka_unit_test(t_etcd__list__pages_of_one_revision),
    cmocka_unit_test(t_etcd__value__large),
    cmocka_unit_test(t_etcd__compare_and_swap__race),
    cmocka_unit_test(t_etcd__follow__snapshot_changes_progress),
    cmocka_unit_test(t_etcd__watch__prefix_from_revision),
    cmocka_unit_test(t_etcd__lease__items_go_with_it),
    cmocka_unit_test(t_etcd__compact__once_a_period_of_all),
    cmocka_unit_test(t_etcd__policies__early_and_new_places),
};

int main(int argc, char **argv) {
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    if (access("/usr/bin/etcd", X_OK) < 0) {
        return 77;
    }
    return cmocka_run_group_tests_name("etcd", tests, setup, teardown);
}
