/* The ways to blocks: written cases, and random changes after each of which what was told equals
 * what the rules of paths.h say of the state as a whole. */
#include "ipam/paths.h"

#include "base/vec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

struct told {
    VEC(struct path_route) routes;
    VEC(struct path_vtep) vteps;
    unsigned n_calls;
};

static size_t find_route(const struct told *t, const struct prefix *dst) {
    size_t i = 0;
    while (i < t->routes.n && !prefix_eq(&t->routes.p[i].dst, dst)) {
        i++;
    }
    return i;
}

static void on_route(void *arg, const struct path_route *r) {
    struct told *t = arg;
    size_t i = find_route(t, &r->dst);
    t->n_calls++;
    if (i == t->routes.n) {
        vec_push(&t->routes, *r);
    } else {
        assert_false(t->routes.p[i].kind == r->kind && ip_eq(&t->routes.p[i].via, &r->via));
        t->routes.p[i] = *r;
    }
}

static void on_route_gone(void *arg, const struct prefix *dst) {
    struct told *t = arg;
    size_t i = find_route(t, dst);
    t->n_calls++;
    assert_true(i < t->routes.n);
    vec_swap_remove(&t->routes, i);
}

static void on_vtep(void *arg, const struct path_vtep *v) {
    struct told *t = arg;
    t->n_calls++;
    vec_push(&t->vteps, *v);
}

static void on_vtep_gone(void *arg, const struct path_vtep *v) {
    struct told *t = arg;
    t->n_calls++;
    for (size_t i = 0; i < t->vteps.n; i++) {
        if (memcmp(&t->vteps.p[i], v, sizeof(*v)) == 0) {
            vec_swap_remove(&t->vteps, i);
            return;
        }
    }
    fail_msg("a tunnel end went that was never told");
}

static const struct path_ops ops = {on_route, on_route_gone, on_vtep, on_vtep_gone};

static struct prefix net(const char *text) {
    struct prefix p;
    assert_int_equal(prefix_parse(str_c(text), &p), 0);
    return p;
}

static struct ip46 ip(const char *text) {
    return net(text).ip;
}

static struct path_node node(const char *addr, const char *vxlan) {
    struct path_node n = {.addr = {net(addr)}};
    if (vxlan) {
        n.vxlan_addr[0] = ip(vxlan);
        path_vxlan_mac(str_c(addr), IP_V4, n.vxlan_mac[0]);
    }
    return n;
}

static const char *say(const struct told *t, const char *dst, char out[128]) {
    static const char *const names[] = {"blackhole", "direct", "vxlan"};
    char text[IP_TEXT_MAX];
    struct prefix p = net(dst);
    size_t i = find_route(t, &p);
    if (i == t->routes.n) {
        return "none";
    }
    const struct path_route *r = &t->routes.p[i];
    snprintf(out, 128, "%s%s%s", names[r->kind], r->via.family ? " " : "",
             r->via.family ? ip_text(&r->via, text) : "");
    return out;
}

static void t_paths__modes(void **state) {
    (void)state;
    static const struct {
        enum path_mode mode;
        bool has_bgp;
        const char *near, *far;
    } cases[] = {{PATH_PLAIN, false, "direct 192.0.2.2", "none"},
                 {PATH_PLAIN, true, "none", "none"},
                 {PATH_VXLAN, false, "vxlan 10.0.2.1", "vxlan 10.0.3.1"},
                 {PATH_VXLAN_CROSS, false, "direct 192.0.2.2", "vxlan 10.0.3.1"},
                 {PATH_VXLAN_CROSS, true, "direct 192.0.2.2", "vxlan 10.0.3.1"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct told t = {0};
        char out[128];
        struct paths *p = paths_new(STR("own"), cases[i].has_bgp, &ops, &t);
        struct path_node own = node("192.0.2.1/24", "10.0.1.1"),
                         near = node("192.0.2.2/24", "10.0.2.1"),
                         far = node("198.51.100.3/24", "10.0.3.1");
        struct prefix b1 = net("10.0.1.0/26"), b2 = net("10.0.2.0/26"), b3 = net("10.0.3.0/26");
        struct path_borrowed lent = {ip("10.0.1.9"), STR("near")};
        paths_pool(p, STR("pool"), &(struct path_pool){net("10.0.0.0/16"), cases[i].mode});
        paths_block(p, &b1, &(struct path_block){b1, STR("own"), &lent, 1});
        paths_block(p, &b2, &(struct path_block){b2, STR("near"), NULL, 0});
        paths_block(p, &b3, &(struct path_block){b3, STR("far"), NULL, 0});
        paths_node(p, STR("own"), &own);
        paths_node(p, STR("near"), &near);
        paths_node(p, STR("far"), &far);
        paths_flush(p);
        assert_string_equal(say(&t, "10.0.1.0/26", out), "blackhole");
        assert_string_equal(say(&t, "10.0.2.0/26", out), cases[i].near);
        assert_string_equal(say(&t, "10.0.1.9/32", out), cases[i].near);
        assert_string_equal(say(&t, "10.0.3.0/26", out), cases[i].far);
        assert_int_equal(t.vteps.n, 2);
        struct paths_stats s;
        paths_stats(p, &s);
        assert_int_equal(s.n_unreachable, cases[i].mode == PATH_PLAIN && !cases[i].has_bgp);
        assert_true(!s.n_unreachable || strstr(s.unreachable, "node far (198.51.100.3)"));
        /* The node goes before its blocks: nothing leads to it. */
        paths_node(p, STR("near"), NULL);
        paths_flush(p);
        assert_string_equal(say(&t, "10.0.2.0/26", out), "none");
        assert_int_equal(t.vteps.n, 1);
        paths_block(p, &b1, NULL);
        paths_flush(p);
        assert_string_equal(say(&t, "10.0.1.0/26", out), "none");
        paths_free(p);
        vec_fini(&t.routes);
        vec_fini(&t.vteps);
    }
}

/* Calico's own examples. */
static void t_paths__vxlan_mac__as_calico(void **state) {
    (void)state;
    uint8_t mac[6];
    path_vxlan_mac(STR("n1"), IP_V4, mac);
    assert_memory_equal(mac, "\x66\x40\xb3\xea\xb6\x3f", 6);
    path_vxlan_mac(STR("node-1"), IP_V4, mac);
    assert_memory_equal(mac, "\x66\xb3\x68\x28\x39\x8e", 6);
}

static void t_paths__news_of_addresses__nothing_told(void **state) {
    (void)state;
    struct told t = {0};
    struct paths *p = paths_new(STR("own"), false, &ops, &t);
    struct prefix b = net("10.0.1.0/26");
    paths_pool(p, STR("pool"), &(struct path_pool){net("10.0.0.0/16"), PATH_PLAIN});
    paths_block(p, &b, &(struct path_block){b, STR("own"), NULL, 0});
    paths_flush(p);
    unsigned before = t.n_calls;
    for (int i = 0; i < 10; i++) {
        paths_block(p, &b, &(struct path_block){b, STR("own"), NULL, 0});
        paths_flush(p);
    }
    assert_int_equal(t.n_calls, before);
    paths_free(p);
    vec_fini(&t.routes);
}

/* ---- the property ---- */

enum { N_NODES = 6, N_BLOCKS = 12, N_POOLS = 3 };

struct model {
    bool has_bgp;
    bool has_pool[N_POOLS], has_node[N_NODES], has_block[N_BLOCKS];
    struct path_pool pools[N_POOLS];
    struct path_node nodes[N_NODES];
    int owner[N_BLOCKS];  /* -1: nobody's */
    int holder[N_BLOCKS]; /* of the block's address 5; -1: nobody else */
    struct prefix cidr[N_BLOCKS];
};

static uint32_t seed;
static uint32_t rnd(uint32_t n) {
    seed = seed * 1664525U + 1013904223U;
    return (seed >> 8) % n;
}

static char names[N_NODES][8];

static bool expect(const struct model *m, const struct prefix *dst, int to,
                   struct path_route *out) {
    const struct path_pool *pool = NULL;
    for (int i = 0; i < N_POOLS && !pool; i++) {
        if (m->has_pool[i] && prefix_has(&m->pools[i].cidr, dst)) {
            pool = &m->pools[i];
        }
    }
    if (!pool || to < 0 || !m->has_node[to]) {
        return false;
    }
    size_t f = dst->ip.family == IP_V6;
    const struct path_node *n = &m->nodes[to], *own = &m->nodes[0];
    bool near = m->has_node[0] && own->addr[f].ip.family && n->addr[f].ip.family &&
                prefix_has_ip(&own->addr[f], &n->addr[f].ip);
    bool is_direct = near && (pool->mode == PATH_VXLAN_CROSS || pool->mode == PATH_IPIP_CROSS ||
                              (pool->mode == PATH_PLAIN && !m->has_bgp));
    bool is_vxlan = pool->mode == PATH_VXLAN || pool->mode == PATH_VXLAN_CROSS;
    *out = is_direct ? (struct path_route){*dst, PATH_DIRECT, n->addr[f].ip}
                     : (struct path_route){*dst, PATH_BY_VXLAN, n->vxlan_addr[f]};
    return is_direct || (is_vxlan && n->vxlan_addr[f].family);
}

static void check_one(const struct told *t, bool is_wanted, const struct path_route *want,
                      const struct prefix *dst, size_t *n) {
    size_t i = find_route(t, dst);
    assert_int_equal(i < t->routes.n, is_wanted);
    if (is_wanted) {
        assert_int_equal(t->routes.p[i].kind, want->kind);
        assert_true(want->kind == PATH_TO_NOWHERE || ip_eq(&t->routes.p[i].via, &want->via));
        ++*n;
    }
}

static void check_all(const struct model *m, const struct told *t) {
    size_t n = 0, n_vteps = 0;
    for (int i = 0; i < N_BLOCKS; i++) {
        struct path_route want = {m->cidr[i], PATH_TO_NOWHERE, {0}};
        bool is_own = m->has_block[i] && m->owner[i] == 0;
        bool is_wanted = is_own || (m->has_block[i] && expect(m, &m->cidr[i], m->owner[i], &want));
        check_one(t, is_wanted, &want, &m->cidr[i], &n);
        struct prefix one = {{0}, (uint8_t)ip_bits(&m->cidr[i].ip)};
        assert_true(prefix_nth(&m->cidr[i], 5, &one.ip));
        is_wanted = m->has_block[i] && m->holder[i] > 0 && expect(m, &one, m->holder[i], &want);
        check_one(t, is_wanted, &want, &one, &n);
    }
    assert_int_equal(t->routes.n, n);
    for (int i = 1; i < N_NODES; i++) {
        for (size_t f = 0; f < 2; f++) {
            n_vteps +=
                m->has_node[i] && m->nodes[i].vxlan_addr[f].family && m->nodes[i].addr[f].ip.family;
        }
    }
    assert_int_equal(t->vteps.n, n_vteps);
}

static void change_node(struct model *m, struct paths *p) {
    char text[64];
    uint32_t i = rnd(N_NODES);
    m->has_node[i] = rnd(4) != 0;
    m->nodes[i] = (struct path_node){0};
    if (rnd(5)) {
        snprintf(text, sizeof(text), "192.0.%u.%u/24", rnd(2), i + 1);
        m->nodes[i].addr[0] = net(text);
    }
    if (rnd(3)) {
        snprintf(text, sizeof(text), "2001:db8:%u::%u/64", rnd(2), i + 1);
        m->nodes[i].addr[1] = net(text);
    }
    for (size_t f = 0; f < 2; f++) {
        if (rnd(3)) {
            snprintf(text, sizeof(text), f ? "fd00::%u" : "10.9.0.%u", 10 * i + rnd(2));
            m->nodes[i].vxlan_addr[f] = ip(text);
            m->nodes[i].vxlan_mac[f][5] = (uint8_t)rnd(3);
        }
    }
    paths_node(p, str_c(names[i]), m->has_node[i] ? &m->nodes[i] : NULL);
}

static void change_block(struct model *m, struct paths *p) {
    uint32_t i = rnd(N_BLOCKS);
    m->has_block[i] = rnd(5) != 0;
    m->owner[i] = (int)rnd(N_NODES + 1) - 1;
    m->holder[i] = rnd(3) ? -1 : (int)rnd(N_NODES);
    struct path_borrowed lent;
    bool is_lent = m->holder[i] >= 0 && m->holder[i] != m->owner[i];
    m->holder[i] = is_lent ? m->holder[i] : -1;
    if (is_lent) {
        lent.node = str_c(names[m->holder[i]]);
        assert_true(prefix_nth(&m->cidr[i], 5, &lent.ip));
    }
    struct path_block b = {m->cidr[i], m->owner[i] < 0 ? STR("") : str_c(names[m->owner[i]]), &lent,
                           is_lent};
    paths_block(p, &m->cidr[i], m->has_block[i] ? &b : NULL);
}

static void change_pool(struct model *m, struct paths *p) {
    static const char *const cidrs[N_POOLS] = {"10.0.0.0/16", "10.1.0.0/16", "fd00::/16"};
    char name[8];
    uint32_t i = rnd(N_POOLS);
    m->has_pool[i] = rnd(5) != 0;
    m->pools[i] = (struct path_pool){net(cidrs[i]), (enum path_mode)rnd(5)};
    snprintf(name, sizeof(name), "p%u", i);
    paths_pool(p, str_c(name), m->has_pool[i] ? &m->pools[i] : NULL);
}

static void t_paths__random_changes__as_the_rules_say(void **state) {
    (void)state;
    for (uint32_t s = 1; s <= 200; s++) {
        struct told t = {0};
        char text[64];
        seed = s;
        struct model m = {.has_bgp = s % 2};
        struct paths *p = paths_new(STR("n0"), m.has_bgp, &ops, &t);
        for (uint32_t i = 0; i < N_NODES; i++) {
            snprintf(names[i], sizeof(names[i]), "n%u", i);
        }
        for (uint32_t i = 0; i < N_BLOCKS; i++) {
            snprintf(text, sizeof(text), i % 3 == 2 ? "fd00::%x00/122" : "10.%u.%u.0/26",
                     i % 3 == 2 ? i : i % 3, i);
            m.cidr[i] = net(text);
        }
        for (int step = 0; step < 120; step++) {
            for (uint32_t k = rnd(4); k < 4; k++) {
                uint32_t what = rnd(10);
                if (what == 0) {
                    change_pool(&m, p);
                } else if (what < 4) {
                    change_node(&m, p);
                } else {
                    change_block(&m, p);
                }
            }
            paths_flush(p);
            check_all(&m, &t);
        }
        paths_free(p);
        vec_fini(&t.routes);
        vec_fini(&t.vteps);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_paths__modes),
        cmocka_unit_test(t_paths__vxlan_mac__as_calico),
        cmocka_unit_test(t_paths__news_of_addresses__nothing_told),
        cmocka_unit_test(t_paths__random_changes__as_the_rules_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
