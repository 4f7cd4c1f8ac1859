/* The store on a real etcd. Without etcd's program the tests are skipped. */
#include "store/driver.h"

#include "etcd_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <inttypes.h>

static struct lab lab; /* one member, for tests that only need a store */

static struct store_key rkey(const char *k) {
    return (struct store_key){STR(STORE_SPACE_RESOURCES), str_c(k)};
}
static struct store_key ikey(const char *k) {
    return (struct store_key){STR(STORE_SPACE_IPAM), str_c(k)};
}

static struct store *open_store(const struct lab *b) {
    char url[600];
    struct store *s = NULL;
    struct err e = {.msg = ""};
    (void)snprintf(url, sizeof(url), "etcd:%s", b->url);
    if (store_open(url, &s, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return s;
}

/* Until the cluster answers. */
static void wait_ready(struct lab *b) {
    struct store *s = open_store(b);
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    int64_t end = clock_ns() + 60 * 1000000000LL;
    int r;
    while ((r = store_get(s, rkey("Pod/none/none"), &a, &it, &e)) != ERR_NOT_FOUND) {
        if (clock_ns() > end) {
            fail_msg("etcd does not answer: %s", e.msg);
        }
        usleep(50000);
    }
    arena_fini(&a);
    store_close(s);
}

static int setup(void **state) {
    lab_open(&lab, 1, "http", NULL);
    lab_start_all(&lab);
    wait_ready(&lab);
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
    return open_store(&lab);
}

static void ok(int r, const struct err *e) {
    if (r < 0) {
        fail_msg("%d: %s", r, e->msg);
    }
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(t_etcd__compare_and_swap__codes),
    cmocka_unit_test(t_etcd__list__prefix_order_revision),
};

int main(void) {
    if (access("/usr/bin/etcd", X_OK) < 0) {
        return 77;
    }
    return cmocka_run_group_tests_name("etcd", tests, setup, teardown);
}
