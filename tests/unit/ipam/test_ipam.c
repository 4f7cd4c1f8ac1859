/* IPAM on a real store: no address is given twice, none is lost, the books agree after each step.
 */
#include "ipam/ipam.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static char dir[64];
static struct store *s;

static int setup(void **state) {
    (void)state;
    char url[128];
    struct err e;
    snprintf(dir, sizeof(dir), "/tmp/margay-ipam-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(url, sizeof(url), "sqlite:%s/margay.db", dir);
    if (store_open(url, &s, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return 0;
}
static int teardown(void **state) {
    (void)state;
    char cmd[128];
    store_close(s);
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    return system(cmd);
}

static struct prefix pfx(const char *t) {
    struct prefix p;
    assert_int_equal(prefix_parse(str_c(t), &p), 0);
    return p;
}

static void on_fault(void *arg, struct str text) {
    (void)arg;
    print_message("%.*s\n", STR_FMT(text));
}

static void assert_consistent(struct ipam *m) {
    struct err e;
    assert_int_equal(ipam_check(m, on_fault, NULL, &e), 0);
}

static void count_one(void *arg, const struct ip46 *ip, struct str handle, struct str ns,
                      struct str pod) {
    (void)ip;
    (void)handle;
    (void)ns;
    (void)pod;
    ++*(size_t *)arg;
}

enum { N_HELD = 200 };
struct held {
    bool used;
    char handle[32];
    struct ip46 ip;
};

static void t_ipam__random_steps__books_agree(void **state) {
    (void)state;
    struct err e;
    struct ipam *nodes[2] = {ipam_new(s, STR("n1")), ipam_new(s, STR("n2"))};
    struct ipam_pool pools[] = {{STR("v4"), pfx("10.7.0.0/24"), 28},
                                {STR("v6"), pfx("fd07::/64"), 122}};
    struct prefix reserved[] = {pfx("10.7.0.16/30")};
    struct ipam_options o = {.pools = pools, .n_pools = 2, .reserved = reserved, .n_reserved = 1};
    struct ipam_attr attrs[] = {{STR("namespace"), STR("prod")}, {STR("pod"), STR("web")}};
    static struct held held[N_HELD];
    size_t n_held = 0;
    srandom(9);
    for (int step = 0; step < 1500; step++) {
        struct held *h = &held[random() % N_HELD];
        struct ipam *m = nodes[random() % 2];
        if (!h->used) {
            snprintf(h->handle, sizeof(h->handle), "net.c%d", step);
            enum ip_family f = random() % 3 ? IP_V4 : IP_V6;
            int r = ipam_assign_auto(m, &o, f, 1, str_c(h->handle), attrs, 2, &h->ip, &e);
            if (r < 0) {
                fail_msg("%s", e.msg);
            }
            assert_false(h->ip.family == IP_V4 && prefix_has_ip(&reserved[0], &h->ip));
            assert_true(prefix_has_ip(&pools[f == IP_V6].cidr, &h->ip));
            for (size_t i = 0; i < N_HELD; i++) {
                assert_false(held[i].used && ip_eq(&held[i].ip, &h->ip));
            }
            h->used = true;
            n_held++;
        } else if (random() % 2) {
            struct ip46 out[4];
            size_t n = 0;
            assert_int_equal(ipam_release_by_handle(m, str_c(h->handle), out, 4, &n, &e), 0);
            assert_int_equal(n, 1);
            assert_true(ip_eq(&out[0], &h->ip));
            assert_int_equal(ipam_release_by_handle(m, str_c(h->handle), out, 4, &n, &e),
                             ERR_NOT_FOUND);
            h->used = false;
            n_held--;
        } else {
            size_t n = 0;
            /* By a handle that does not hold it: nothing; by its own: gone. */
            assert_int_equal(ipam_release_ips(m, &h->ip, 1, STR("net.other"), &n, &e), 0);
            assert_int_equal(n, 0);
            assert_int_equal(ipam_release_ips(m, &h->ip, 1, str_c(h->handle), &n, &e), 0);
            assert_int_equal(n, 1);
            h->used = false;
            n_held--;
        }
        if (step % 50 == 0) {
            size_t n = 0;
            assert_consistent(m);
            assert_int_equal(ipam_each(m, count_one, &n, &e), 0);
            assert_int_equal(n, n_held);
        }
    }
    ipam_free(nodes[0]);
    ipam_free(nodes[1]);
}

static void t_ipam__pool_full__says_which_and_how_full(void **state) {
    (void)state;
    struct err e;
    struct ipam *m = ipam_new(s, STR("n1"));
    struct ipam_pool pool = {STR("tiny"), pfx("10.8.0.0/29"), 30};
    struct ipam_options o = {.pools = &pool, .n_pools = 1};
    struct ip46 ip;
    for (int i = 0; i < 8; i++) {
        char h[16];
        snprintf(h, sizeof(h), "h%d", i);
        assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 1, str_c(h), NULL, 0, &ip, &e), 0);
    }
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 1, STR("h8"), NULL, 0, &ip, &e), ERR_NO_SPACE);
    assert_non_null(strstr(e.msg, "tiny (8 of 8 in use)"));
    assert_consistent(m);
    /* All or none. */
    size_t n;
    assert_int_equal(ipam_release_by_handle(m, STR("h3"), NULL, 0, &n, &e), 0);
    struct ip46 two[2];
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 2, STR("h9"), NULL, 0, two, &e), ERR_NO_SPACE);
    n = 0;
    assert_int_equal(ipam_each(m, count_one, &n, &e), 0);
    assert_int_equal(n, 7);
    assert_consistent(m);
    ipam_free(m);
}

static void t_ipam__named_address__once(void **state) {
    (void)state;
    struct err e;
    struct ipam *m = ipam_new(s, STR("n1"));
    struct ipam_pool pool = {STR("p"), pfx("10.9.0.0/16"), 26};
    struct ipam_options o = {.pools = &pool, .n_pools = 1};
    struct ipam_attr attrs[] = {{STR("namespace"), STR("prod")}, {STR("pod"), STR("web")}};
    struct ip46 ip = pfx("10.9.3.77").ip, other = pfx("10.10.0.1").ip;
    assert_int_equal(ipam_assign_ip(m, &o, &ip, STR("a"), attrs, 2, &e), 0);
    assert_int_equal(ipam_assign_ip(m, &o, &ip, STR("b"), attrs, 2, &e), ERR_EXISTS);
    assert_non_null(strstr(e.msg, "prod/web"));
    assert_int_equal(ipam_assign_ip(m, &o, &other, STR("b"), attrs, 2, &e), ERR_NOT_FOUND);
    struct arena a = {0};
    struct store_item it;
    struct store_key k = {STR(STORE_SPACE_IPAM),
                          STR("/ipam/v2/assignment/ipv4/block/10.9.3.64-26")};
    assert_int_equal(store_get(s, k, &a, &it, &e), 0);
    static const char *const names[] = {
        "\"cidr\":\"10.9.3.64/26\"", "\"affinity\":\"host:n1\"",
        "\"allocations\":[",         "\"unallocated\":[",
        "\"handle_id\":\"a\"",       "\"secondary\":{",
        "\"sequenceNumber\":",       "\"sequenceNumberForAllocation\":{\"13\":"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        assert_non_null(strstr(it.value.p, names[i]));
    }
    arena_fini(&a);
    assert_consistent(m);
    ipam_free(m);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(t_ipam__random_steps__books_agree),
        T(t_ipam__pool_full__says_which_and_how_full),
        T(t_ipam__named_address__once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
