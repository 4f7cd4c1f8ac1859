/* Whole topologies in simulated time: what every speaker ends up with is compared with an oracle
 * that knows nothing of messages, and with what the RFCs say of restarts, partitions and flaps. */
#include "oracle.h"
#include "sim.h"

#include "base/vec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct speaker_config config(unsigned i, uint32_t as) {
    return (struct speaker_config){.as = as, .router_id = 0x01000001U + i, .max_paths = 8};
}

static struct sim *world(unsigned n, uint64_t seed, bool one_as) {
    struct sim *m = sim_new(n, seed);
    for (unsigned i = 0; i < n; i++) {
        struct speaker_config c = config(i, one_as ? 64512 : 65001 + i);
        sim_start(m, i, &c);
    }
    return m;
}

static const char *prefix_of(unsigned i) {
    static char text[4][32];
    static unsigned turn;
    char *out = text[turn++ % 4];
    (void)snprintf(out, sizeof(text[0]), "10.%u.%u.0/24", 100 + i / 250, i % 250);
    return out;
}

/* ---- two ---- */

static void t_two__external__routes_both_ways_and_withdrawn(void **state) {
    (void)state;
    struct sim *m = world(2, 1, false);
    sim_link(m, 0, 1);
    sim_originate(m, 0, "10.1.0.0/16", NULL);
    sim_originate(m, 1, "10.2.0.0/16", NULL);
    sim_originate(m, 1, "2001:db8::/32", NULL);
    assert_true(sim_settle(m, 60 * SIM_S));
    assert_int_equal(sim_established(m), 2);
    struct route_view v;
    int from;
    assert_true(sim_best(m, 0, "10.2.0.0/16", &from, &v));
    assert_int_equal(from, 1);
    assert_int_equal(as_path_first(v.attrs.part[PART_AS_PATH]), 65002);
    assert_true(ip_eq(&v.attrs.next_hop, &sim_node(m, 1)->ip));
    assert_true(sim_best(m, 0, "2001:db8::/32", &from, &v));
    assert_true(sim_best(m, 1, "10.1.0.0/16", &from, &v));
    sim_withdraw(m, 1, "10.2.0.0/16");
    assert_true(sim_settle(m, 60 * SIM_S));
    assert_false(sim_best(m, 0, "10.2.0.0/16", NULL, NULL));
    assert_true(sim_best(m, 0, "2001:db8::/32", NULL, NULL));
    sim_free(m);
}

/* ---- against the oracle ---- */

struct lab {
    struct sim *m;
    struct oracle *o;
    bool *origin; /* [prefix * n + node] */
    unsigned n, n_prefixes;
};

static struct lab lab_new(unsigned n, unsigned n_prefixes, uint64_t seed, bool one_as) {
    struct lab l = {.m = world(n, seed, one_as),
                    .o = oracle_new(n),
                    .origin = calloc((size_t)n * n_prefixes, sizeof(bool)),
                    .n = n,
                    .n_prefixes = n_prefixes};
    for (unsigned i = 0; i < n; i++) {
        l.o->as[i] = sim_node(l.m, i)->cfg.as;
        l.o->id[i] = sim_node(l.m, i)->cfg.router_id;
    }
    return l;
}

static void lab_free(struct lab *l) {
    sim_free(l->m);
    oracle_free(l->o);
    free(l->origin);
}

static void lab_link(struct lab *l, unsigned a, unsigned b) {
    if (a != b && !l->o->link[a * l->n + b]) {
        oracle_link(l->o, a, b);
        sim_link(l->m, a, b);
    }
}

/* c is r's client. */
static void lab_client(struct lab *l, unsigned r, unsigned c) {
    oracle_link(l->o, r, c);
    l->o->client[r * l->n + c] = true;
    struct peer_config x = sim_peer_config(l->m, r, c), y = sim_peer_config(l->m, c, r);
    x.is_rr_client = true;
    sim_peer(l->m, r, c, &x);
    sim_peer(l->m, c, r, &y);
}

static void lab_originate(struct lab *l, unsigned prefix, unsigned node) {
    l->origin[prefix * l->n + node] = true;
    sim_originate(l->m, node, prefix_of(prefix), NULL);
}

static void lab_withdraw(struct lab *l, unsigned prefix, unsigned node) {
    l->origin[prefix * l->n + node] = false;
    sim_withdraw(l->m, node, prefix_of(prefix));
}

static void differ(const struct lab *l, unsigned node, unsigned prefix, bool has, int from,
                   const struct orc_route *want) {
    struct buf b = BUF_INIT(1 << 20);
    struct prefix p;
    (void)!prefix_parse(str_c(prefix_of(prefix)), &p);
    speaker_explain(sim_node(l->m, node)->s, &p, 0, &b);
    fail_msg("node %u, %s: %s from %d, the oracle says %s from %d; node %u says:\n%s", node,
             prefix_of(prefix), has ? "best" : "none", from, want->has ? "best" : "none",
             want->from, node, buf_cstr(&b));
}

static void lab_check(struct lab *l) {
    for (unsigned p = 0; p < l->n_prefixes; p++) {
        memcpy(l->o->origin, l->origin + (size_t)p * l->n, l->n * sizeof(bool));
        oracle_solve(l->o);
        for (unsigned i = 0; i < l->n; i++) {
            const struct orc_route *want = &l->o->best[i];
            struct route_view v;
            int from = -1;
            bool has = sim_best(l->m, i, prefix_of(p), &from, &v);
            if (has != want->has || (has && from != want->from)) {
                differ(l, i, p, has, from, want);
            }
            if (has) {
                assert_int_equal(as_path_len(v.attrs.part[PART_AS_PATH]), want->n_path);
            }
        }
    }
}

static void t_mesh__fifty_nodes_of_one_as__as_the_oracle(void **state) {
    (void)state;
    struct lab l = lab_new(50, 60, 7, true);
    for (unsigned i = 0; i < 50; i++) {
        for (unsigned j = 0; j < i; j++) {
            lab_link(&l, i, j);
        }
    }
    for (unsigned p = 0; p < 60; p++) {
        lab_originate(&l, p, p % 50);
    }
    lab_originate(&l, 3, 17);
    assert_true(sim_settle(l.m, 120 * SIM_S));
    assert_int_equal(sim_established(l.m), 50 * 49);
    lab_check(&l);
    lab_free(&l);
}

static void random_graph(struct lab *l) {
    for (unsigned i = 1; i < l->n; i++) {
        lab_link(l, i, (unsigned)(sim_random(l->m) % i));
        lab_link(l, i, (unsigned)(sim_random(l->m) % l->n));
    }
}

/* The process of a node dies and comes back, knowing nothing or gracefully. */
static void lab_restart(struct lab *l, unsigned i) {
    struct speaker_config c = sim_node(l->m, i)->cfg;
    sim_kill(l->m, i, sim_random(l->m) & 1);
    sim_run(l->m, (int64_t)(sim_random(l->m) % (20 * SIM_S)));
    c.is_restarting = sim_random(l->m) & 1;
    sim_start(l->m, i, &c);
    for (unsigned j = 0; j < l->n; j++) {
        if (l->o->link[i * l->n + j]) {
            struct peer_config p = sim_peer_config(l->m, i, j);
            p.is_rr_client = l->o->client[i * l->n + j];
            sim_peer(l->m, i, j, &p);
        }
    }
    for (unsigned p = 0; p < l->n_prefixes; p++) {
        if (l->origin[p * l->n + i]) {
            sim_originate(l->m, i, prefix_of(p), NULL);
        }
    }
}

/* Cuts, resets, deaths of connections and processes, changed minds: afterwards all is healed. */
static void disturb(struct lab *l, unsigned times) {
    for (unsigned k = 0; k < times; k++) {
        unsigned a = (unsigned)(sim_random(l->m) % l->n), b = (unsigned)(sim_random(l->m) % l->n);
        unsigned p = (unsigned)(sim_random(l->m) % l->n_prefixes);
        switch (sim_random(l->m) % 8) {
        case 3:
            if (k % 3 == 0) {
                lab_restart(l, a);
            }
            break;
        case 0:
            sim_cut(l->m, a, b, true);
            break;
        case 1:
            sim_cut(l->m, a, b, false);
            break;
        case 2:
            sim_reset(l->m, a, b);
            break;
        default:
            if (l->origin[p * l->n + a]) {
                lab_withdraw(l, p, a);
            } else {
                lab_originate(l, p, a);
            }
        }
        sim_run(l->m, (int64_t)(sim_random(l->m) % (2 * SIM_S)));
    }
    for (unsigned a = 0; a < l->n; a++) {
        for (unsigned b = 0; b < a; b++) {
            sim_cut(l->m, a, b, false);
        }
    }
}

static void t_reflectors__two_levels__as_the_oracle(void **state) {
    (void)state;
    struct lab l = lab_new(24, 40, 8, true);
    lab_link(&l, 0, 1);
    lab_link(&l, 1, 2);
    lab_link(&l, 0, 2);
    for (unsigned i = 3; i < 24; i++) {
        lab_client(&l, i % 3, i);
        if (i % 2) {
            lab_client(&l, (i + 1) % 3, i); /* redundant reflectors */
        }
    }
    for (unsigned p = 0; p < 40; p++) {
        lab_originate(&l, p, p % 24);
    }
    lab_originate(&l, 5, 20);
    lab_originate(&l, 5, 9);
    assert_true(sim_settle(l.m, 120 * SIM_S));
    lab_check(&l);
    disturb(&l, 60);
    assert_true(sim_settle(l.m, 900 * SIM_S));
    lab_check(&l);
    lab_free(&l);
}

static void t_graph__twenty_autonomous_systems_disturbed__as_the_oracle(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct lab l = lab_new(20, 30, seed * 1000, false);
        random_graph(&l);
        sim_set_window(l.m, seed % 2 ? 64 : 128 * 1024); /* bytes: all are slow peers */
        for (unsigned p = 0; p < 30; p++) {
            lab_originate(&l, p, p % 20);
        }
        assert_true(sim_settle(l.m, 120 * SIM_S));
        lab_check(&l);
        disturb(&l, 60);
        assert_true(sim_settle(l.m, 900 * SIM_S));
        lab_check(&l);
        lab_free(&l);
    }
}

static void t_mixed__inside_and_outside_disturbed__as_the_oracle(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct lab l = lab_new(16, 20, seed * 77, true);
        for (unsigned i = 8; i < 16; i++) { /* half of them are other ASes */
            struct speaker_config c = config(i, 65001 + i);
            sim_node(l.m, i)->cfg = c;
            speaker_configure(sim_node(l.m, i)->s, &c, sim_now(l.m));
            l.o->as[i] = c.as;
        }
        for (unsigned i = 0; i < 8; i++) {
            for (unsigned j = 0; j < i; j++) {
                lab_link(&l, i, j);
            }
        }
        for (unsigned i = 8; i < 16; i++) {
            lab_link(&l, i, i - 8);
            lab_link(&l, i, i == 15 ? 8 : i + 1);
        }
        for (unsigned p = 0; p < 20; p++) {
            lab_originate(&l, p, p % 16);
        }
        disturb(&l, 50);
        assert_true(sim_settle(l.m, 900 * SIM_S));
        lab_check(&l);
        lab_free(&l);
    }
}

/* ---- restarts ---- */

static void restart_lab(struct sim **out, bool has_gr) {
    struct sim *m = world(3, 5, true);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned j = 0; j < 3; j++) {
            if (i != j) {
                struct peer_config c = sim_peer_config(m, i, j);
                c.gr = has_gr ? GR_ENABLED : GR_DISABLED;
                sim_peer(m, i, j, &c);
            }
        }
    }
    for (unsigned p = 0; p < 30; p++) {
        sim_originate(m, p % 3, prefix_of(p), NULL);
    }
    assert_true(sim_settle(m, 60 * SIM_S));
    assert_int_equal(sim_established(m), 6);
    *out = m;
}

static void come_back(struct sim *m, unsigned i, unsigned n_prefixes) {
    struct speaker_config c = config(i, 64512);
    c.is_restarting = true;
    sim_start(m, i, &c);
    for (unsigned j = 0; j < 3; j++) {
        if (i != j) {
            struct peer_config p = sim_peer_config(m, i, j);
            sim_peer(m, i, j, &p);
        }
    }
    for (unsigned p = i; p < n_prefixes; p += 3) {
        sim_originate(m, i, prefix_of(p), NULL);
    }
}

static void t_restart__graceful__no_route_is_taken_from_any_kernel(void **state) {
    (void)state;
    struct sim *m;
    restart_lab(&m, true);
    sim_kill(m, 1, false);
    sim_run(m, 20 * SIM_S);
    assert_true(sim_best(m, 0, prefix_of(1), NULL, NULL));
    come_back(m, 1, 30);
    assert_true(sim_settle(m, 200 * SIM_S));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(sim_node(m, i)->n_removed, 0);
    }
    assert_int_equal(sim_node(m, 1)->n_ready, 1);
    assert_true(sim_best(m, 1, prefix_of(2), NULL, NULL));
    sim_free(m);
}

static void t_restart__graceful_with_fewer_prefixes__exactly_those_go(void **state) {
    (void)state;
    struct sim *m;
    restart_lab(&m, true);
    sim_kill(m, 1, true); /* nobody hears of it: the new connection tells */
    come_back(m, 1, 15);
    assert_true(sim_settle(m, 400 * SIM_S));
    for (unsigned p = 1; p < 30; p += 3) {
        assert_int_equal(sim_best(m, 0, prefix_of(p), NULL, NULL), p < 15);
    }
    assert_int_equal(sim_node(m, 0)->n_removed, 5);
    sim_free(m);
}

static void t_restart__graceful_but_never_back__routes_go_after_the_restart_time(void **state) {
    (void)state;
    struct sim *m;
    restart_lab(&m, true);
    sim_kill(m, 1, false);
    sim_run(m, 110 * SIM_S);
    assert_true(sim_best(m, 0, prefix_of(1), NULL, NULL));
    sim_run(m, 20 * SIM_S);
    assert_false(sim_best(m, 0, prefix_of(1), NULL, NULL));
    assert_int_equal(sim_node(m, 0)->n_removed, 10);
    sim_free(m);
}

static void t_restart__without_graceful__routes_go_at_once(void **state) {
    (void)state;
    struct sim *m;
    restart_lab(&m, false);
    sim_kill(m, 1, false);
    sim_run(m, SIM_S);
    assert_false(sim_best(m, 0, prefix_of(1), NULL, NULL));
    sim_free(m);
}

static void t_restart__peer_dies_silently__hold_time_ends_it(void **state) {
    (void)state;
    struct sim *m;
    restart_lab(&m, false);
    sim_kill(m, 1, true);
    sim_run(m, 60 * SIM_S);
    assert_true(sim_best(m, 0, prefix_of(1), NULL, NULL));
    sim_run(m, 40 * SIM_S);
    assert_false(sim_best(m, 0, prefix_of(1), NULL, NULL));
    assert_int_equal(sim_node(m, 0)->last_fail.code, BGP_E_HOLD);
    sim_free(m);
}

static void t_long_lived__peer_away_for_hours__kept_as_last_resort(void **state) {
    (void)state;
    struct sim *m = world(3, 6, true);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned j = 0; j < 3; j++) {
            struct peer_config c = sim_peer_config(m, i, j);
            c.family[BGP_V4].llgr_time_s = 3600;
            if (i != j) {
                sim_peer(m, i, j, &c);
            }
        }
    }
    struct attr_src high = {.has = HAS_LOCAL_PREF, .local_pref = 200};
    sim_originate(m, 1, "10.9.0.0/16", &high);
    sim_originate(m, 1, "10.8.0.0/16", &high);
    sim_originate(m, 2, "10.9.0.0/16", NULL);
    assert_true(sim_settle(m, 60 * SIM_S));
    int from;
    struct route_view v;
    assert_true(sim_best(m, 0, "10.9.0.0/16", &from, NULL));
    assert_int_equal(from, 1);
    sim_kill(m, 1, false);
    sim_run(m, 200 * SIM_S);
    assert_true(sim_best(m, 0, "10.9.0.0/16", &from, NULL));
    assert_int_equal(from, 2); /* any other is better */
    assert_true(sim_best(m, 0, "10.8.0.0/16", &from, &v));
    assert_true(v.is_llgr_stale && comm_has(v.attrs.part[PART_COMMUNITIES], COMM_LLGR_STALE));
    assert_int_equal(sim_node(m, 0)->n_removed, 0);
    sim_run(m, 3600 * SIM_S);
    assert_false(sim_best(m, 0, "10.8.0.0/16", NULL, NULL));
    sim_free(m);
}

/* ---- on demand: ./test_bgp_sim 1000 ---- */

static void big_mesh(unsigned n) {
    struct lab l = lab_new(n, n, 9, true);
    for (unsigned i = 0; i < n; i++) {
        if (i >= 10) {
            lab_client(&l, i % 10, i);
            lab_client(&l, (i + 1) % 10, i);
        }
        for (unsigned j = 0; j < i && i < 10; j++) {
            lab_link(&l, i, j);
        }
    }
    for (unsigned p = 0; p < n; p++) {
        lab_originate(&l, p, p);
    }
    assert_true(sim_settle(l.m, 600 * SIM_S));
    printf("%u speakers, %u sessions, %u prefixes: settled\n", n, sim_established(l.m) / 2, n);
    for (unsigned i = 0; i < n; i++) {
        for (unsigned p = 0; p < n; p++) {
            assert_true(sim_best(l.m, i, prefix_of(p), NULL, NULL));
        }
    }
    lab_free(&l);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        big_mesh((unsigned)atoi(argv[1]));
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_two__external__routes_both_ways_and_withdrawn),
        cmocka_unit_test(t_mesh__fifty_nodes_of_one_as__as_the_oracle),
        cmocka_unit_test(t_reflectors__two_levels__as_the_oracle),
        cmocka_unit_test(t_graph__twenty_autonomous_systems_disturbed__as_the_oracle),
        cmocka_unit_test(t_mixed__inside_and_outside_disturbed__as_the_oracle),
        cmocka_unit_test(t_restart__graceful__no_route_is_taken_from_any_kernel),
        cmocka_unit_test(t_restart__graceful_with_fewer_prefixes__exactly_those_go),
        cmocka_unit_test(t_restart__graceful_but_never_back__routes_go_after_the_restart_time),
        cmocka_unit_test(t_restart__without_graceful__routes_go_at_once),
        cmocka_unit_test(t_restart__peer_dies_silently__hold_time_ends_it),
        cmocka_unit_test(t_long_lived__peer_away_for_hours__kept_as_last_resort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
