/* The dataplane against the real kernel, in a network namespace of its own: what it writes is read
 * back by a second instance that must find nothing to change; tampering is undone. Needs root and
 * nft(8); without root every test is skipped and says so. */
#include "base/clock.h"
#include "base/hash.h"
#include "base/vec.h"
#include "dataplane/dataplane.h"
#include "dataplane/table.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const struct dataplane_settings settings = {
    .iface_prefixes = {{"cali", 4}},
    .n_iface_prefixes = 1,
};

enum { N_SETS = 6, N_POLICIES = 8, N_ENDPOINTS = 8, FIRST_HOST = 5, N_MEMBERS = 12 };

/* The desired state, kept here so that a second instance can be told the same. */
struct world {
    unsigned ifaces;
    bool has_set[N_SETS];
    bool members[N_SETS][N_MEMBERS];
    bool has_policy[N_POLICIES];
    struct calc_rule rules[N_POLICIES][4];
    size_t n_rules[N_POLICIES];
    bool has_endpoint[N_ENDPOINTS];
    uint32_t lists[N_ENDPOINTS][3]; /* ids of policies in tier a, tier b, profiles */
    bool has_pass_tier[N_ENDPOINTS];
    unsigned
        variety[N_ENDPOINTS]; /* staged policies; which interface and lists of a host endpoint */
};

static struct prefix pfx(const char *s) {
    struct prefix p;
    assert_int_equal(prefix_parse(str_c(s), &p), 0);
    return p;
}

/* Members 0..11: whole addresses and prefixes of both families, some inside or next to others. */
static struct calc_member member(size_t set, size_t i) {
    static const char *const nets[N_MEMBERS] = {
        "10.0.0.1",    "10.0.0.2",    "10.1.0.0/16",      "10.1.2.0/24",
        "10.2.0.0/15", "0.0.0.0/0",   "255.255.255.0/24", "fd00::1",
        "fd00::2",     "fd00:1::/32", "fd00:1:2::/48",    "ffff:ffff::/32",
    };
    struct calc_member m = {.net = pfx(nets[i])};
    if (set == 0) { /* the set of addresses with ports */
        static const char *const whole[] = {"10.0.0.1", "10.0.0.2", "fd00::1"};
        m.net = pfx(whole[i % 3]);
        m.protocol = i < 6 ? 6 : 17;
        m.port = (uint16_t)(80 + i / 3);
    }
    return m;
}

static void tell_set(struct dataplane *d, size_t i) {
    char uid[16];
    snprintf(uid, sizeof(uid), "s:set%zu", i);
    struct calc_set s = {.id = (uint32_t)i + 1,
                         .type = i == 0 ? CALC_SET_ADDR_PORT : CALC_SET_ADDR,
                         .uid = str_c(uid),
                         .text = STR("role == \"x\"")};
    dataplane_calc_ops.set_new(d, &s);
}

static void tell_policy(struct dataplane *d, const struct world *w, size_t i) {
    static const char *const names[N_POLICIES] = {"p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"};
    bool is_profile = i >= 6;
    struct calc_policy p = {.id = (uint32_t)i + 1,
                            .dir = i % 2 ? CALC_EGRESS : CALC_INGRESS,
                            .kind = is_profile ? STR("Profile") : STR("NetworkPolicy"),
                            .tier = is_profile ? STR("") : STR("default"),
                            .ns = is_profile ? STR("") : STR("prod"),
                            .name = str_c(names[i]),
                            .rules = w->rules[i],
                            .n_rules = w->n_rules[i]};
    dataplane_calc_ops.policy(d, &p);
}

static void tell_endpoint(struct dataplane *d, const struct world *w, size_t i) {
    char iface[16], addr[32];
    snprintf(iface, sizeof(iface), "cali%zu", i);
    snprintf(addr, sizeof(addr), "10.9.0.%zu", i + 1);
    struct prefix nets[] = {pfx(addr), pfx("fd09::1")};
    nets[1].ip.b[15] = (uint8_t)i;
    const uint32_t *l = w->lists[i];
    struct calc_tier tiers[2][2] = {
        {{STR("a"), w->has_pass_tier[i], &l[0], 1}, {STR("b"), false, &l[1], 1}},
        {{STR("a"), w->has_pass_tier[i], &l[0], 1}, {STR("b"), false, &l[1], 1}},
    };
    /* With staged policies the second tier alone holds; a host endpoint has some of its lists. */
    struct calc_chain staged[2] = {{&tiers[0][1], 1, &l[2], 1}, {&tiers[1][1], 1, &l[2], 1}};
    struct calc_host host = {.pre_dnat = {tiers[0], w->variety[i] / 2 % 3, NULL, 0}};
    for (int k = 0; k < 2; k++) {
        host.forward[k] = (struct calc_chain){tiers[k], w->variety[i] % 3, NULL, 0};
        host.untracked[k] = (struct calc_chain){tiers[k], w->variety[i] / 3 % 3, NULL, 0};
    }
    static const char *const ifaces[] = {"eth0", "*", "", "eth1"};
    bool is_host = i >= FIRST_HOST;
    if (is_host) {
        snprintf(iface, sizeof(iface), "%s", ifaces[w->variety[i] % 4]);
    }
    char name[16];
    snprintf(name, sizeof(name), "e%zu", i);
    struct calc_endpoint e = {.id = (uint32_t)i + 1,
                              .iface = str_c(iface),
                              .ns = is_host ? STR("") : STR("prod"),
                              .name = str_c(name),
                              .host = is_host ? &host : NULL,
                              .staged = w->variety[i] % 2 ? staged : NULL,
                              .nets = nets,
                              .n_nets = 2,
                              .ingress = {tiers[0], 2, &l[2], 1},
                              .egress = {tiers[1], 2, &l[2], 1}};
    dataplane_calc_ops.endpoint(d, &e);
}

/* Interfaces of the host: which of them has the host endpoints' addresses. */
static void tell_ifaces(struct dataplane *d, unsigned which) {
    struct dataplane_iface v[2] = {{.name = "eth2"}, {.name = "eth3"}};
    assert_int_equal(ip_parse(STR("10.9.0.7"), &v[which % 2].ip), 0);
    assert_int_equal(ip_parse(STR("10.9.0.8"), &v[1 - which % 2].ip), 0);
    dataplane_set_ifaces(d, v, which / 2 % 3);
}

static void tell_all(struct dataplane *d, const struct world *w) {
    tell_ifaces(d, w->ifaces);
    for (size_t i = 0; i < N_SETS; i++) {
        if (w->has_set[i]) {
            tell_set(d, i);
            for (size_t j = 0; j < N_MEMBERS; j++) {
                if (w->members[i][j]) {
                    struct calc_member m = member(i, j);
                    dataplane_calc_ops.set_members(d, (uint32_t)i + 1, &m, 1, NULL, 0);
                }
            }
        }
    }
    for (size_t i = 0; i < N_POLICIES; i++) {
        if (w->has_policy[i]) {
            tell_policy(d, w, i);
        }
    }
    for (size_t i = 0; i < N_ENDPOINTS; i++) {
        if (w->has_endpoint[i]) {
            tell_endpoint(d, w, i);
        }
    }
}

static unsigned rnd(unsigned n) {
    return (unsigned)random() % n;
}

static void random_rules(struct world *w, size_t p) {
    static const struct calc_ports ports[] = {{80, 80}, {443, 445}, {1000, 65535}};
    static struct prefix nets[4];
    nets[0] = pfx("10.0.0.0/8");
    nets[1] = pfx("10.1.0.0/16");
    nets[2] = pfx("fd00::/16");
    nets[3] = pfx("192.0.2.1");
    static const uint32_t port_sets[] = {1};
    bool is_plain = rnd(3) > 0; /* only allows: lists of such policies are merged */
    w->n_rules[p] = rnd(5);
    for (size_t i = 0; i < w->n_rules[p]; i++) {
        struct calc_rule r = {.action = is_plain ? RULE_ALLOW : (enum rule_action)rnd(4),
                              .families = (uint8_t)(rnd(2) ? 3 : 1 + rnd(3)),
                              .protocol = -1,
                              .not_protocol = -1,
                              .icmp_type = -1,
                              .icmp_code = -1,
                              .not_icmp_type = -1,
                              .not_icmp_code = -1,
                              .index = (uint16_t)i};
        bool is_peer = is_plain && rnd(3) > 0;
        struct calc_side *s = (is_peer ? p % 2 == 0 : rnd(2)) ? &r.src : &r.dst;
        switch (rnd(6)) {
        case 0:
            s->set = w->has_set[2] ? 3 : 0;
            break;
        case 1:
            s->not_set = w->has_set[3] ? 4 : 0;
            break;
        case 2:
            s->nets = rnd(2) ? nets : &nets[3];
            s->n_nets = s->nets == nets ? 1 + rnd(4) : 1;
            break;
        case 3:
            s->not_nets = nets;
            s->n_not_nets = 1 + rnd(4);
            break;
        default:
            break;
        }
        if (rnd(2)) {
            r.protocol = rnd(2) ? 6 : 17;
            r.dst.ports = ports;
            r.dst.n_ports = rnd(is_peer ? 3 : 4);
            if (is_peer) {
                w->rules[p][i] = r;
                continue;
            }
            if (w->has_set[0] && rnd(2)) {
                r.dst.port_sets = port_sets;
                r.dst.n_port_sets = 1;
            }
            if (rnd(3) == 0) {
                r.src.not_ports = ports;
                r.src.n_not_ports = 1 + rnd(3);
            }
        } else if (rnd(3) == 0) {
            r.protocol = 1;
            r.icmp_type = 8;
            r.icmp_code = rnd(2) ? 0 : -1;
        }
        w->rules[p][i] = r;
    }
}

static bool rule_uses(const struct calc_rule *r, uint32_t set) {
    return r->src.set == set || r->dst.set == set || r->src.not_set == set ||
           r->dst.not_set == set || (set == 1 && (r->src.n_port_sets || r->dst.n_port_sets));
}

static void random_step(struct world *w, struct dataplane *d) {
    switch (rnd(7)) {
    case 6:
        w->ifaces = rnd(6);
        tell_ifaces(d, w->ifaces);
        break;
    case 0: { /* a set comes */
        size_t i = rnd(N_SETS);
        if (!w->has_set[i]) {
            w->has_set[i] = true;
            tell_set(d, i);
        }
        break;
    }
    case 1: /* members change */
    case 2: {
        size_t i = rnd(N_SETS), j = rnd(N_MEMBERS);
        if (w->has_set[i]) {
            struct calc_member m = member(i, j);
            bool on = w->members[i][j] = !w->members[i][j];
            dataplane_calc_ops.set_members(d, (uint32_t)i + 1, &m, on, &m, !on);
        }
        break;
    }
    case 3: { /* a policy comes or changes; policies of endpoints are there before them */
        size_t i = rnd(N_POLICIES);
        random_rules(w, i);
        w->has_policy[i] = true;
        tell_policy(d, w, i);
        break;
    }
    case 4: { /* an endpoint comes or changes */
        size_t i = rnd(N_ENDPOINTS);
        uint32_t l[3] = {1 + rnd(6), 1 + rnd(6), 7 + rnd(2)};
        for (size_t k = 0; k < 3; k++) {
            if (!w->has_policy[l[k] - 1]) {
                random_rules(w, l[k] - 1);
                w->has_policy[l[k] - 1] = true;
                tell_policy(d, w, l[k] - 1);
            }
        }
        memcpy(w->lists[i], l, sizeof(l));
        w->has_pass_tier[i] = rnd(2);
        w->variety[i] = rnd(12);
        w->has_endpoint[i] = true;
        tell_endpoint(d, w, i);
        break;
    }
    case 5: { /* something goes: an endpoint, else a policy or a set that nothing names */
        size_t i = rnd(N_ENDPOINTS);
        if (w->has_endpoint[i]) {
            w->has_endpoint[i] = false;
            dataplane_calc_ops.endpoint_gone(d, (uint32_t)i + 1);
            break;
        }
        size_t p = rnd(N_POLICIES);
        bool is_used = !w->has_policy[p];
        for (size_t k = 0; k < N_ENDPOINTS; k++) {
            for (size_t j = 0; j < 3; j++) {
                is_used |= w->has_endpoint[k] && w->lists[k][j] == p + 1;
            }
        }
        if (!is_used) {
            w->has_policy[p] = false;
            dataplane_calc_ops.policy_gone(d, (uint32_t)p + 1);
        }
        size_t s = rnd(N_SETS);
        is_used = !w->has_set[s];
        for (size_t k = 0; k < N_POLICIES; k++) {
            for (size_t j = 0; w->has_policy[k] && j < w->n_rules[k]; j++) {
                is_used |= rule_uses(&w->rules[k][j], (uint32_t)s + 1);
            }
        }
        if (!is_used) {
            w->has_set[s] = false;
            memset(w->members[s], 0, sizeof(w->members[s]));
            dataplane_calc_ops.set_gone(d, (uint32_t)s + 1);
        }
        break;
    }
    default:
        break;
    }
}

static struct dataplane *open_dataplane(struct loop *l) {
    struct dataplane *d = NULL;
    struct err e;
    if (dataplane_new(l, NULL, &settings, &d, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    struct dataplane_pool pools[] = {{pfx("10.9.0.0/16"), true}, {pfx("fd09::/64"), false}};
    dataplane_set_pools(d, pools, 2);
    return d;
}

/* Every reference is counted once, and nothing without a reference stays. */
static void assert_counts(const struct dataplane *d) {
    struct seg **s, **t;
    struct dep **e;
    struct dpol **p;
    for (size_t i = 0; str_seg_next(&d->segs, &i, NULL, &s);) {
        unsigned refs = 0;
        for (size_t j = 0; id_dep_next(&d->endpoints, &j, NULL, &e);) {
            for (size_t k = 0; k < N_WAYS; k++) {
                refs += (*e)->segs[k] == *s;
            }
        }
        for (size_t j = 0; str_seg_next(&d->segs, &j, NULL, &t);) {
            refs += (*t)->next == *s;
        }
        for (size_t j = 0; id_dpol_next(&d->policies, &j, NULL, &p);) {
            for (size_t k = 0; k < (*p)->variants.n; k++) {
                refs += (*p)->variants.p[k]->pass_to == *s;
            }
        }
        assert_int_equal((*s)->refs, refs);
        assert_true(refs > 0);
    }
    for (size_t j = 0; id_dpol_next(&d->policies, &j, NULL, &p);) {
        for (size_t k = 0; k < (*p)->variants.n; k++) {
            const struct variant *v = (*p)->variants.p[k];
            unsigned refs = 0;
            for (size_t i = 0; str_seg_next(&d->segs, &i, NULL, &s);) {
                for (size_t m = 0; m < (*s)->list.n; m++) {
                    refs += (*s)->list.p[m] == v;
                }
            }
            assert_int_equal(v->refs, refs);
            assert_true(refs > 0);
        }
    }
}

static size_t count_set(const struct kset *k) {
    assert_true(!k || (k->keys.n_want > 0 && !k->is_gone));
    return k != NULL;
}

/* A merged list lets through what its policies do, each as often, and there are no other sets. */
static size_t assert_merged(const struct seg *s) {
    struct allow_count want = {0};
    const struct merged *m = s->merged;
    size_t n_sets = count_set(m->ports);
    for (size_t i = 0; i < s->plains.n; i++) {
        const struct dpol *p = s->plains.p[i];
        bool has_seg = false;
        assert_true(p->is_plain);
        for (size_t j = 0; j < p->segs.n; j++) {
            has_seg |= p->segs.p[j] == s;
        }
        assert_true(has_seg);
        for (size_t j = 0; j < p->allows.n; j++) {
            bool is_new;
            ++*allow_count_put(&want, p->allows.p[j], &is_new);
        }
    }
    assert_int_equal(want.n, m->counts.n);
    struct allow a;
    uint32_t *n;
    for (size_t i = 0; allow_count_next(&want, &i, &a, &n);) {
        uint32_t *has = allow_count_get(&m->counts, a);
        assert_true(has && *has == *n);
    }
    allow_count_fini(&want);
    for (size_t f = 0; f < 2; f++) {
        n_sets += count_set(m->nets[f]) + count_set(m->addrs[f]);
    }
    struct merged_peer *p;
    for (size_t i = 0; id_peer_next(&m->peers, &i, NULL, &p);) {
        assert_true(p->is_all || p->ports);
        n_sets += count_set(p->ports);
    }
    return n_sets;
}

static size_t n_merged; /* lists seen, of all steps: the test must meet them */

static void assert_sets(const struct dataplane *d) {
    struct seg **s;
    struct dset **x;
    struct dpol **p;
    size_t n = 0;
    for (size_t i = 0; str_seg_next(&d->segs, &i, NULL, &s);) {
        if ((*s)->merged) {
            n += assert_merged(*s);
            n_merged++;
        }
    }
    for (size_t i = 0; id_dpol_next(&d->policies, &i, NULL, &p);) {
        for (size_t j = 0; j < (*p)->segs.n; j++) {
            assert_ptr_equal(*str_seg_get(&d->segs, (*p)->segs.p[j]->key), (*p)->segs.p[j]);
        }
    }
    for (size_t i = 0; id_dset_next(&d->sets, &i, NULL, &x);) {
        for (size_t k = 0; k < N_PARTS; k++) {
            n += count_set((*x)->parts[k]);
        }
    }
    assert_int_equal(d->ksets.n, n);
}

static void flush(struct dataplane *d) {
    struct err e;
    if (dataplane_flush(d, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    assert_counts(d);
    assert_sets(d);
}

static char *listing(void) {
    FILE *f = popen("nft -s list table inet margay", "r");
    assert_non_null(f);
    char *p = calloc(1, 1 << 20);
    size_t n = fread(p, 1, (1 << 20) - 1, f);
    p[n] = 0;
    assert_int_equal(pclose(f), 0);
    return p;
}

/* A restart: another instance is told the same and must write nothing. */
static void assert_restart_writes_nothing(struct loop *l, const struct world *w) {
    char *before = listing();
    struct dataplane *d = open_dataplane(l);
    tell_all(d, w);
    flush(d);
    struct dataplane_stats s;
    dataplane_stats(d, &s);
    if (s.messages) {
        char *after = listing();
        printf("---- before ----\n%s---- after ----\n%s", before, after);
        free(after);
    }
    free(before);
    assert_int_equal(s.messages, 0);
    assert_int_equal(s.refused, 0);
    dataplane_free(d);
}

static void t_dataplane__random_changes__kernel_is_as_told(void **state) {
    (void)state;
    struct loop *l = loop_new();
    for (unsigned seed = 1; seed <= 12; seed++) {
        srandom(seed);
        assert_int_equal(system("nft flush ruleset"), 0);
        struct world *w = calloc(1, sizeof(*w));
        struct dataplane *d = open_dataplane(l);
        flush(d);
        for (int i = 0; i < 60; i++) {
            for (unsigned k = 1 + rnd(4); k > 0; k--) {
                random_step(w, d);
            }
            flush(d);
            struct dataplane_stats s;
            dataplane_stats(d, &s);
            assert_int_equal(s.refused, 0); /* a resync would have hidden it */
            if (i % 10 == 9) {
                assert_restart_writes_nothing(l, w);
            }
        }
        dataplane_free(d);
        free(w);
    }
    assert_true(n_merged > 1000);
    loop_free(l);
}

static void make_world(struct world *w, struct dataplane *d) {
    srandom(7);
    for (int i = 0; i < 60; i++) {
        random_step(w, d);
    }
    flush(d);
}

static void run_until_repaired(struct loop *l, struct dataplane *d, uint64_t repairs) {
    int64_t end = clock_ns() + 5000000000LL;
    struct dataplane_stats s;
    do {
        loop_step(l, false);
        dataplane_stats(d, &s);
    } while (s.repairs < repairs && clock_ns() < end);
    assert_int_equal(s.repairs, repairs);
}

static void t_dataplane__tampering__undone(void **state) {
    (void)state;
    static const char *const tampering[] = {
        "nft flush ruleset",
        "nft delete table inet margay",
        "nft flush chain inet margay from-pod",
        "nft insert rule inet margay to-pod accept",
        "nft delete element inet margay pods-in '{ cali2 }'; nft delete element inet margay "
        "pods-out '{ cali2 }'",
        "nft add element inet margay pod-sources4 '{ cali2 . 1.2.3.4 }'",
        "nft add element inet margay pools4 '{ 172.16.0.0/12 }'",
        "nft add chain inet margay mine '{ type filter hook forward priority -100; policy drop; }'",
        "nft add set inet margay mine '{ type ipv4_addr; }'",
        "nft 'flush ruleset; add table inet margay; add chain inet margay from-pod { type filter "
        "hook output priority 5; }; add set inet margay pools4 { type ether_addr; }'",
    };
    struct loop *l = loop_new();
    assert_int_equal(system("nft flush ruleset"), 0);
    struct world *w = calloc(1, sizeof(*w));
    struct dataplane *d = open_dataplane(l);
    make_world(w, d);
    w->has_endpoint[2] = true;
    w->has_policy[0] = w->has_policy[6] = true;
    tell_policy(d, w, 0);
    tell_policy(d, w, 6);
    memcpy(w->lists[2], (uint32_t[]){1, 1, 7}, sizeof(w->lists[2]));
    tell_endpoint(d, w, 2);
    flush(d);
    loop_step(l, false);
    char *before = listing();
    for (size_t i = 0; i < sizeof(tampering) / sizeof(*tampering); i++) {
        struct dataplane_stats s;
        dataplane_stats(d, &s);
        assert_int_equal(system(tampering[i]), 0);
        run_until_repaired(l, d, s.repairs + 1);
        assert_restart_writes_nothing(l, w);
        loop_step(l, false);
        char *after = listing();
        /* The order in which things are listed is that of making: compare their number. */
        assert_int_equal(strlen(before), strlen(after));
        free(after);
    }
    free(before);
    dataplane_free(d);
    free(w);
    loop_free(l);
}

static void t_dataplane__own_changes__are_not_repairs(void **state) {
    (void)state;
    struct loop *l = loop_new();
    struct world *w = calloc(1, sizeof(*w));
    assert_int_equal(system("nft flush ruleset"), 0);
    struct dataplane *d = open_dataplane(l);
    make_world(w, d);
    assert_int_equal(system("nft add table inet other"), 0);
    for (int i = 0; i < 10; i++) {
        loop_step(l, false);
    }
    struct dataplane_stats s;
    dataplane_stats(d, &s);
    assert_int_equal(s.repairs, 0);
    dataplane_free(d);
    free(w);
    loop_free(l);
}

int main(void) {
    if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0) {
        printf("skipped: needs root for a network namespace of its own\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_dataplane__random_changes__kernel_is_as_told),
        cmocka_unit_test(t_dataplane__tampering__undone),
        cmocka_unit_test(t_dataplane__own_changes__are_not_repairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
