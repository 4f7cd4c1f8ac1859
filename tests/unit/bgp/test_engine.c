/* What drives and asks the engine: next hops in every mode, long messages and floods, the helper's
 * side of a restart by the clock, status and walks. RFC 2545, 4724, 4893, 8654. */
#include "wire_peer.h"

#include "bgp/update.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEEPALIVE MARK "0013 04"
#define UPDATE_10_5 MARK "002e 02 0000 0014 40010100 400206 0201 0000fde9 400304 0a000001 10 0a05"
#define WITHDRAW_10_5 MARK "001a 02 0003 10 0a05 0000"

/* ---- next hops ---- */

static struct wire_conn *up_mode(struct wire *w, unsigned i, uint32_t as, enum next_hop_mode mode) {
    struct peer_config p = wire_peer_config(i, as);
    struct bgp_open o = wire_open(i, as);
    p.next_hop = mode;
    return wire_up_with(w, &p, &o);
}

static uint8_t hop_sent(struct wire_conn *c) {
    static struct update_scratch s = UPDATE_SCRATCH_INIT;
    struct bgp_rx rx = {.is_internal = true, .as4 = true, .mp = {true, true}};
    struct bgp_update u;
    struct bgp_fail f;
    assert_int_not_equal(c->out.n, 0);
    assert_int_equal(
        bgp_update_parse((uint8_t *)c->out.p + BGP_HEADER, c->out.n - BGP_HEADER, &rx, &s, &u, &f),
        UPDATE_OK);
    buf_reset(&c->out);
    return u.next_hop.b[3];
}

static void t_next_hop__each_mode(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001);
    struct wire_conn *e[] = {up_mode(&w, 2, 65002, NEXT_HOP_AUTO),
                             up_mode(&w, 3, 65003, NEXT_HOP_SELF),
                             up_mode(&w, 4, 65004, NEXT_HOP_KEEP)};
    struct wire_conn *i[] = {up_mode(&w, 5, 64512, NEXT_HOP_AUTO),
                             up_mode(&w, 6, 64512, NEXT_HOP_SELF),
                             up_mode(&w, 7, 64512, NEXT_HOP_KEEP)};
    wire_hex(&w, a, UPDATE_10_5);
    static const uint8_t EXTERNAL[] = {254, 254, 1}, INTERNAL[] = {1, 254, 1};
    for (unsigned k = 0; k < 3; k++) {
        assert_int_equal(hop_sent(e[k]), EXTERNAL[k]);
        assert_int_equal(hop_sent(i[k]), INTERNAL[k]);
    }
    wire_fini(&w);
}

static void t_next_hop__ipv6_with_link_local__both_or_the_only_one(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *b = wire_up(&w, 2, 65002), *c = wire_up(&w, 3, 65003),
                     *d = wire_up(&w, 4, 65004);
    struct ip46 none = {0}, six = {.family = IP_V6, .b = {0x20, 1, 0xd, 0xb8, [15] = 1}},
                local = {.family = IP_V6, .b = {0xfe, 0x80, [15] = 9}};
    speaker_conn_addrs(w.s, b->id, &none, &six, &local);
    speaker_conn_addrs(w.s, c->id, &none, &none, &local);
    struct local_route r = {.source = ROUTE_STATIC};
    assert_int_equal(prefix_parse(STR("fd00::/16"), &r.prefix), 0);
    speaker_originate(w.s, &r, w.now);
    wire_run(&w, 0);
    wire_expect(b,
                MARK "0050 02 0000 0039 900e 0028 0002 01 20 20010db8000000000000000000000001"
                     "fe800000000000000000000000000009 00 10 fd00 40010100 400206 0201 0000fc00");
    wire_expect(c,
                MARK "0040 02 0000 0029 900e 0018 0002 01 10"
                     "fe800000000000000000000000000009 00 10 fd00 40010100 400206 0201 0000fc00");
    wire_expect(d,
                MARK "0040 02 0000 0029 900e 0018 0002 01 10"
                     "00000000000000000000ffff0a0000fe 00 10 fd00 40010100 400206 0201 0000fc00");
    wire_fini(&w);
}

static void t_private_as__removed_where_asked(void **state) {
    (void)state;
    struct wire w;
    struct speaker_config cfg = {.as = 100, .router_id = 0x0a0000fe};
    wire_init_with(&w, &cfg, false);
    struct peer_config p = wire_peer_config(2, 200);
    p.remove_private_as = true;
    struct bgp_open o = wire_open(2, 200);
    struct wire_conn *a = wire_up(&w, 1, 64513), *b = wire_up_with(&w, &p, &o);
    wire_hex(&w, a,
             MARK "0036 02 0000 001c 40010100 40020e 0203 0000fc01 0000012c 0000fc02"
                  "400304 0a000001 10 0a05");
    wire_expect(b, MARK "0032 02 0000 0018 40010100 40020a 0202 00000064 0000012c"
                        "400304 0a0000fe 10 0a05");
    wire_fini(&w);
}

static void t_local_as__of_one_peer__shown_and_prepended(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(2, 65002);
    p.local_as = 65100;
    struct bgp_open o = wire_open(2, 65002);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up_with(&w, &p, &o);
    wire_hex(&w, a, UPDATE_10_5);
    wire_expect(b, MARK "0032 02 0000 0018 40010100 40020a 0202 0000fe4c 0000fde9 400304 0a0000fe"
                        "10 0a05");
    wire_fini(&w);
}

/* ---- long and many ---- */

static void t_message__of_65535_bytes__taken_where_offered(void **state) {
    (void)state;
    for (int is_offered = 0; is_offered < 2; is_offered++) {
        struct wire w;
        wire_init(&w);
        struct peer_config p = wire_peer_config(1, 65001);
        p.extended_message = is_offered;
        struct bgp_open o = wire_open(1, 65001); /* it does not offer that itself: RFC 8654 */
        struct wire_conn *c = wire_up_with(&w, &p, &o);
        struct buf b = BUF_INIT(BGP_MAX_EXT);
        static const uint8_t ATTRS[] = {0x40, 1,    1,    0,    0x40, 2, 6,  2, 1, 0,
                                        0,    0xfd, 0xe9, 0x40, 3,    4, 10, 0, 0, 1};
        for (unsigned i = 0; i < 16; i++) {
            wr_u8(&b, 0xff);
        }
        wr_u16(&b, BGP_MAX_EXT);
        wr_u8(&b, BGP_UPDATE);
        wr_u16(&b, 0);
        wr_u16(&b, sizeof(ATTRS));
        buf_add(&b, ATTRS, sizeof(ATTRS));
        unsigned n = 0;
        while (BGP_MAX_EXT - b.n >= 5 + 5) {
            wr_u8(&b, 32);
            wr_u32(&b, 0x0b000000U + n++);
        }
        while (BGP_MAX_EXT - b.n >= 4) { /* fills up exactly */
            wr_u8(&b, 24);
            wr_u8(&b, 12);
            wr_u16(&b, n++);
        }
        while (b.n < BGP_MAX_EXT) {
            wr_u8(&b, 0);
            n += b.n == BGP_MAX_EXT;
        }
        wire_send(&w, c, b.p, b.n);
        if (is_offered) {
            struct peer_status st;
            assert_true(speaker_peer_status(w.s, c->peer, &st));
            assert_int_equal(st.family[BGP_V4].n_received, n);
        } else {
            wire_expect_end(c, "0102 ffff");
        }
        buf_fini(&b);
        wire_fini(&w);
    }
}

static void t_flood__two_million_prefixes__limit_and_nothing_else(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.family[BGP_V4].max_prefixes = 1000;
    struct bgp_open o = wire_open(1, 65001);
    struct wire_conn *b = wire_up(&w, 2, 65002), *a = wire_up_with(&w, &p, &o);
    wire_hex(&w, b, MARK "002e 02 0000 0014 40010100 400206 0201 0000fdea 400304 0a000002 10 0a07");
    struct buf m = BUF_INIT(BGP_MAX);
    for (unsigned n = 0; n < 2000000; n += 800) {
        buf_reset(&m);
        static const uint8_t ATTRS[] = {0x40, 1,    1,    0,    0x40, 2, 6,  2, 1, 0,
                                        0,    0xfd, 0xe9, 0x40, 3,    4, 10, 0, 0, 1};
        for (unsigned i = 0; i < 16; i++) {
            wr_u8(&m, 0xff);
        }
        wr_u16(&m, BGP_HEADER + 4 + sizeof(ATTRS) + 800 * 5);
        wr_u8(&m, BGP_UPDATE);
        wr_u16(&m, 0);
        wr_u16(&m, sizeof(ATTRS));
        buf_add(&m, ATTRS, sizeof(ATTRS));
        for (unsigned i = 0; i < 800; i++) {
            wr_u8(&m, 32);
            wr_u32(&m, 0x0b000000U + n + i);
        }
        speaker_input(w.s, a->id, m.p, m.n, w.now);
    }
    buf_fini(&m);
    wire_run(&w, 0);
    wire_expect_end(a, "0601 0001 01 000003e8");
    assert_false(b->is_closed);
    struct speaker_stats st;
    speaker_stats(w.s, &st);
    assert_int_equal(st.n_prefixes[BGP_V4], 1); /* the other's */
    wire_fini(&w);
}

/* ---- the helper of one that restarts ---- */

static struct bgp_open gr_open(uint16_t time, bool is_forwarding) {
    struct bgp_open o = wire_open(1, 65001);
    o.caps.has_gr = o.caps.gr[BGP_V4] = true;
    o.caps.gr_forwarding[BGP_V4] = is_forwarding;
    o.caps.gr_time_s = time;
    return o;
}

static struct wire_conn *gr_lost(struct wire *w) {
    wire_init(w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.gr = GR_ENABLED;
    struct bgp_open o = gr_open(60, true);
    struct wire_conn *a = wire_up_with(w, &p, &o), *b = wire_up(w, 2, 65002);
    wire_hex(w, a, UPDATE_10_5);
    wire_forget(b);
    speaker_closed(w->s, a->id, w->now);
    wire_run(w, 0);
    wire_expect(b, "");
    return b;
}

static struct wire_conn *gr_back(struct wire *w, const struct bgp_open *o) {
    struct wire_conn *a = wire_accept(w, 1);
    assert_non_null(a);
    wire_send_open(w, a, o);
    wire_hex(w, a, KEEPALIVE);
    return a;
}

static void t_helper__restart_time_over__routes_go(void **state) {
    (void)state;
    struct wire w;
    struct wire_conn *b = gr_lost(&w);
    struct peer_status st;
    assert_true(speaker_peer_status(w.s, speaker_peer_find(w.s, STR("p1")), &st));
    assert_int_equal(st.family[BGP_V4].n_stale, 1);
    wire_run(&w, 59 * S_);
    assert_int_equal(w.n_routes_gone, 0);
    wire_hex(&w, b, KEEPALIVE);
    wire_forget(b);
    wire_run(&w, S_ + 1);
    wire_expect(b, WITHDRAW_10_5);
    assert_int_equal(w.n_events[EVENT_STALE_OVER], 1);
    wire_fini(&w);
}

static void t_helper__peer_back_without_forwarding__routes_go_at_once(void **state) {
    (void)state;
    struct wire w;
    struct wire_conn *b = gr_lost(&w);
    struct bgp_open o = gr_open(60, false);
    (void)gr_back(&w, &o);
    wire_expect(b, WITHDRAW_10_5);
    wire_fini(&w);
}

static void t_helper__peer_back_with_the_same__nobody_notices(void **state) {
    (void)state;
    struct wire w;
    struct wire_conn *b = gr_lost(&w);
    struct bgp_open o = gr_open(60, true);
    struct wire_conn *a = gr_back(&w, &o);
    wire_hex(&w, a, UPDATE_10_5 MARK "0017 02 0000 0000");
    wire_expect(b, "");
    assert_int_equal(w.n_routes_gone, 0);
    wire_run(&w, 80 * S_);
    assert_int_equal(w.n_routes_gone, 0);
    wire_fini(&w);
}

/* ---- looking in ---- */

static void count_view(void *user, const struct route_view *v) {
    (void)v;
    ++*(unsigned *)user;
}

static void t_look__routes_sent_routes_lookup_status(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002);
    wire_hex(&w, a, UPDATE_10_5);
    for (unsigned i = 0; i < 100; i++) {
        struct local_route r = {.source = ROUTE_LOCAL,
                                .prefix = {.ip = {.family = IP_V4}, .len = 32}};
        set_u32(r.prefix.ip.b, 0x0a2c0000U + i);
        speaker_originate(w.s, &r, w.now);
    }
    wire_run(&w, 0);
    unsigned n = 0, calls = 0;
    uint32_t at = 0;
    do {
        speaker_routes(w.s, BGP_V4, &at, 10, count_view, &n);
        calls++;
    } while (at);
    assert_int_equal(n, 101);
    assert_in_range(calls, 11, 12);
    n = 0;
    do {
        speaker_sent_routes(w.s, a->peer, BGP_V4, &at, 1000, count_view, &n);
    } while (at);
    assert_int_equal(n, 100);
    n = 0;
    do {
        speaker_sent_routes(w.s, b->peer, BGP_V4, &at, 1000, count_view, &n);
    } while (at);
    assert_int_equal(n, 101);
    struct ip46 ip = {.family = IP_V4, .b = {10, 5, 7, 7}};
    struct prefix p;
    assert_true(speaker_lookup(w.s, &ip, &p));
    assert_int_equal(p.len, 16);
    ip.b[1] = 6;
    assert_false(speaker_lookup(w.s, &ip, &p));
    struct peer_status st;
    assert_true(speaker_peer_status(w.s, a->peer, &st));
    assert_int_equal(st.family[BGP_V4].n_received, 1);
    assert_int_equal(st.family[BGP_V4].n_accepted, 1);
    assert_int_equal(st.family[BGP_V4].n_best, 1);
    assert_int_equal(st.as, 65001);
    assert_int_equal(st.hold_s, 90);
    assert_int_equal(st.updates_in, 1);
    assert_true(st.family[BGP_V4].is_in_sync && st.family[BGP_V4].is_eor_sent);
    assert_false(speaker_peer_status(w.s, 99, &st));
    wire_fini(&w);
}

static void t_refresh__soft_reset__asks_and_tells_again(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002);
    wire_hex(&w, a, UPDATE_10_5);
    wire_forget(b);
    speaker_peer_refresh(w.s, b->peer, w.now);
    wire_run(&w, 0);
    wire_expect(b, MARK "0017 05 0001 00 01" MARK "0017 05 0002 00 01" MARK
                        "0032 02 0000 0018 40010100 40020a 0202 0000fc00 0000fde9 400304 0a0000fe"
                        "10 0a05");
    wire_fini(&w);
}

static void t_policy__changed_live__session_stays(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002);
    wire_hex(&w, a, UPDATE_10_5);
    wire_forget(b);
    struct bgp_filter *none = bgp_filter_new(NULL, 0, FILTER_REJECT);
    struct peer_config p = wire_peer_config(2, 65002);
    p.family[BGP_V4].export = none;
    (void)wire_peer(&w, &p);
    wire_run(&w, 0);
    wire_expect(b, WITHDRAW_10_5);
    p.family[BGP_V4].export = NULL;
    (void)wire_peer(&w, &p);
    wire_run(&w, 0);
    wire_expect(b, MARK "0032 02 0000 0018 40010100 40020a 0202 0000fc00 0000fde9 400304 0a0000fe"
                        "10 0a05");
    struct peer_config q = wire_peer_config(1, 65001);
    q.family[BGP_V4].import = none;
    (void)wire_peer(&w, &q);
    wire_run(&w, 0);
    wire_expect(b, WITHDRAW_10_5);
    assert_false(a->is_closed || b->is_closed);
    bgp_filter_unref(none);
    wire_fini(&w);
}

static void t_oldest__preferred_if_asked(void **state) {
    (void)state;
    for (int is_asked = 0; is_asked < 2; is_asked++) {
        struct wire w;
        struct speaker_config cfg = {
            .as = 64512, .router_id = 0x0a0000fe, .prefer_oldest = is_asked};
        wire_init_with(&w, &cfg, false);
        struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002);
        wire_hex(&w, b,
                 MARK "002e 02 0000 0014 40010100 400206 0201 0000fdea 400304 0a000002 10 0a05");
        wire_hex(&w, a, UPDATE_10_5);
        assert_int_equal(w.last_hops[0].ip.b[3], is_asked ? 2 : 1);
        wire_fini(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_next_hop__each_mode),
        cmocka_unit_test(t_next_hop__ipv6_with_link_local__both_or_the_only_one),
        cmocka_unit_test(t_private_as__removed_where_asked),
        cmocka_unit_test(t_local_as__of_one_peer__shown_and_prepended),
        cmocka_unit_test(t_message__of_65535_bytes__taken_where_offered),
        cmocka_unit_test(t_flood__two_million_prefixes__limit_and_nothing_else),
        cmocka_unit_test(t_helper__restart_time_over__routes_go),
        cmocka_unit_test(t_helper__peer_back_without_forwarding__routes_go_at_once),
        cmocka_unit_test(t_helper__peer_back_with_the_same__nobody_notices),
        cmocka_unit_test(t_look__routes_sent_routes_lookup_status),
        cmocka_unit_test(t_refresh__soft_reset__asks_and_tells_again),
        cmocka_unit_test(t_policy__changed_live__session_stays),
        cmocka_unit_test(t_oldest__preferred_if_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
