/* Routes from the wire to the wire: what one peer says, what others are told, byte by byte. RFC
 * 4271 sections 5 and 9, 1997, 2545, 2918, 4360, 4456, 4724, 5065, 7313, 7606, 7911, 7947, 8212,
 * 8326, 8654, 8950, 9234. */
#include "wire_peer.h"

#include "bgp/update.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEEPALIVE MARK "0013 04"
/* 10.5.0.0/16 from AS 65001 by 10.0.0.1, and its withdrawal */
#define UPDATE_10_5 MARK "002e 02 0000 0014 40010100 400206 0201 0000fde9 400304 0a000001 10 0a05"
#define WITHDRAW_10_5 MARK "001a 02 0003 10 0a05 0000"
#define EOR4 MARK "0017 02 0000 0000"

static void t_eor__first_dump_of_both_families__exact(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    (void)wire_peer(&w, &p);
    struct wire_conn *c = wire_accept(&w, 1);
    struct bgp_open o = wire_open(1, 65001);
    wire_send_open(&w, c, &o);
    wire_forget(c);
    wire_hex(&w, c, KEEPALIVE);
    wire_expect(c, EOR4 MARK "001d 02 0000 0006 800f 03 0002 01");
    wire_fini(&w);
}

static void t_external__to_external_and_internal__attributes_of_each(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002),
                     *i = wire_up(&w, 3, 64512);
    /* with MED 5, community 65001:1, extended communities (one not transitive), an unknown one */
    wire_hex(&w, a,
             MARK "0055 02 0000 003b 40010100 400206 0201 0000fde9 400304 0a000001 800404 00000005"
                  "c00804 fde90001 c01010 0002fde900000001 4004fde900000001 c06303 010203 10 0a05");
    wire_expect(a, "");
    wire_expect(b, MARK "004a 02 0000 0030 40010100 40020a 0202 0000fc00 0000fde9 400304 0a0000fe"
                        "c00804 fde90001 c01008 0002fde900000001 e06303 010203 10 0a05");
    wire_expect(i, MARK "005c 02 0000 0042 40010100 400206 0201 0000fde9 400304 0a000001"
                        "800404 00000005 400504 00000064 c00804 fde90001"
                        "c01010 0002fde900000001 4004fde900000001 e06303 010203 10 0a05");
    wire_hex(&w, a, WITHDRAW_10_5);
    wire_expect(a, "");
    wire_expect(b, WITHDRAW_10_5);
    wire_expect(i, WITHDRAW_10_5);
    wire_fini(&w);
}

static void t_two_octets__as_trans_and_as4_path__exact(void **state) {
    (void)state;
    struct wire w;
    struct speaker_config cfg = {.as = 4200000001U, .router_id = 0x0a0000fe};
    wire_init_with(&w, &cfg, false);
    struct peer_config p = wire_peer_config(2, 65002);
    struct bgp_open o = wire_open(2, 65002);
    o.caps.has_as4 = false;
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up_with(&w, &p, &o);
    wire_hex(&w, a, UPDATE_10_5);
    wire_expect(b, MARK "003b 02 0000 0021 40010100 400206 0202 5ba0 fde9 400304 0a0000fe"
                        "c0110a 0202 fa56ea01 0000fde9 10 0a05");
    wire_fini(&w);
}

static void t_local__to_external_and_internal__own_next_hop(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *b = wire_up(&w, 2, 65002), *i = wire_up(&w, 3, 64512);
    struct ip46 none = {0}, six = {.family = IP_V6, .b = {0x20, 1, 0xd, 0xb8, [15] = 1}};
    speaker_conn_addrs(w.s, b->id, &none, &six, &none);
    speaker_conn_addrs(w.s, i->id, &none, &six, &none);
    struct local_route r = {.source = ROUTE_STATIC};
    assert_int_equal(prefix_parse(STR("10.44.0.0/26"), &r.prefix), 0);
    speaker_originate(w.s, &r, w.now);
    wire_run(&w, 0);
    wire_expect(b, MARK "0030 02 0000 0014 40010100 400206 0201 0000fc00 400304 0a0000fe"
                        "1a 0a2c0000");
    wire_expect(i, MARK "0031 02 0000 0015 40010100 400200 400304 0a0000fe 400504 00000064"
                        "1a 0a2c0000");
    assert_int_equal(prefix_parse(STR("fd00:44::/122"), &r.prefix), 0);
    speaker_originate(w.s, &r, w.now);
    wire_run(&w, 0);
    wire_expect(b, MARK "004e 02 0000 0037 900e 0026 0002 01 10 20010db8000000000000000000000001 00"
                        "7a fd000044000000000000000000000000 40010100 400206 0201 0000fc00");
    assert_true(speaker_withdraw(w.s, &r.prefix, ROUTE_STATIC, w.now));
    wire_run(&w, 0);
    wire_expect(b, MARK "002f 02 0000 0018 900f 0014 0002 01 7a fd000044000000000000000000000000");
    wire_fini(&w);
}

static void t_v4_over_v6__negotiated__mp_reach_with_16_octets(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(2, 65002), q = wire_peer_config(4, 64512);
    p.extended_next_hop = q.extended_next_hop = true;
    struct bgp_open o = wire_open(2, 65002), x = wire_open(4, 64512);
    o.caps.has_v4_over_v6 = x.caps.has_v4_over_v6 = true;
    struct wire_conn *b = wire_up_with(&w, &p, &o), *i = wire_up(&w, 3, 64512),
                     *j = wire_up_with(&w, &q, &x);
    wire_hex(&w, b,
             MARK "003f 02 0000 0028 800e 18 0001 01 10 20010db8000000000000000000000002 00"
                  "10 0a06 40010100 400206 0201 0000fdea");
    assert_int_equal(w.last_hops[0].ip.family, IP_V6);
    /* One that cannot take it gets ours; one that can keeps it. */
    wire_expect(i, MARK "0035 02 0000 001b 40010100 400206 0201 0000fdea 400304 0a0000fe"
                        "400504 00000064 10 0a06");
    wire_expect(j, MARK "0047 02 0000 0030 900e 0018 0001 01 10 20010db8000000000000000000000002 00"
                        "10 0a06 40010100 400206 0201 0000fdea 400504 00000064");
    wire_fini(&w);
}

/* ---- reflection ---- */

static void t_reflection__client_and_not__rfc4456(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config pc = wire_peer_config(1, 64512), pd = wire_peer_config(2, 64512);
    pc.is_rr_client = true;
    pd.is_rr_client = true;
    pd.cluster_id = 7;
    struct bgp_open oc = wire_open(1, 64512), od = wire_open(2, 64512);
    struct wire_conn *c = wire_up_with(&w, &pc, &oc), *d = wire_up_with(&w, &pd, &od),
                     *n = wire_up(&w, 3, 64512), *m = wire_up(&w, 4, 64512);
    wire_hex(&w, c,
             MARK "002f 02 0000 0015 40010100 400200 400304 0a000001 400504 00000064 10 0a05");
    wire_expect(c, "");
    wire_expect(n, MARK "003d 02 0000 0023 40010100 400200 400304 0a000001 400504 00000064"
                        "800904 0a000001 800a04 0a0000fe 10 0a05");
    wire_expect(d, MARK "003d 02 0000 0023 40010100 400200 400304 0a000001 400504 00000064"
                        "800904 0a000001 800a04 00000007 10 0a05");
    wire_forget(m);
    /* From a non-client: to clients only. */
    wire_hex(&w, n,
             MARK "002f 02 0000 0015 40010100 400200 400304 0a000003 400504 00000064 10 0a06");
    wire_expect(m, "");
    wire_expect(n, "");
    wire_expect(c, MARK "003d 02 0000 0023 40010100 400200 400304 0a000003 400504 00000064"
                        "800904 0a000003 800a04 0a0000fe 10 0a06");
    /* Our own originator id and cluster id: loops. */
    w.n_routes_told = 0;
    wire_hex(&w, n,
             MARK "0036 02 0000 001c 40010100 400200 400304 0a000003 400504 00000064"
                  "800904 0a0000fe 10 0a07");
    wire_hex(&w, n,
             MARK "003d 02 0000 0023 40010100 400200 400304 0a000003 400504 00000064"
                  "800904 0a000009 800a04 0a0000fe 10 0a08");
    assert_int_equal(w.n_routes_told, 0);
    wire_fini(&w);
}

/* ---- what may go where ---- */

static void expect_sent(struct wire *w, struct wire_conn *from, const char *update,
                        struct wire_conn *to, bool is_sent) {
    wire_forget(to);
    wire_hex(w, from, update);
    assert_int_equal(to->out.n != 0, is_sent);
    wire_forget(to);
    wire_hex(w, from, WITHDRAW_10_5);
    assert_int_equal(to->out.n != 0, is_sent);
    wire_forget(to);
}

#define WITH_COMMUNITY(c) \
    MARK "0035 02 0000 001b 40010100 400206 0201 0000fde9 400304 0a000001 c00804 " c " 10 0a05"

static void t_communities__well_known__kept_in(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001), *e = wire_up(&w, 2, 65002),
                     *i = wire_up(&w, 3, 64512);
    expect_sent(&w, a, WITH_COMMUNITY("ffffff01"), e, false); /* NO_EXPORT */
    expect_sent(&w, a, WITH_COMMUNITY("ffffff01"), i, true);
    expect_sent(&w, a, WITH_COMMUNITY("ffffff02"), e, false); /* NO_ADVERTISE */
    expect_sent(&w, a, WITH_COMMUNITY("ffffff02"), i, false);
    expect_sent(&w, a, WITH_COMMUNITY("ffffff03"), e, false); /* NO_EXPORT_SUBCONFED */
    expect_sent(&w, a, WITH_COMMUNITY("ffffff03"), i, true);
    expect_sent(&w, a, WITH_COMMUNITY("fde90001"), e, true);
    wire_fini(&w);
}

static void t_graceful_shutdown__from_external__least_preferred(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001), *i = wire_up(&w, 3, 64512);
    wire_hex(&w, a, WITH_COMMUNITY("ffff0000"));
    wire_expect(i, MARK "003c 02 0000 0022 40010100 400206 0201 0000fde9 400304 0a000001"
                        "400504 00000000 c00804 ffff0000 10 0a05");
    wire_fini(&w);
}

static void t_policy__required_and_missing__nothing_in_nothing_out(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(2, 65002);
    p.require_policy = true;
    struct bgp_open o = wire_open(2, 65002);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up_with(&w, &p, &o);
    wire_hex(&w, a, UPDATE_10_5);
    wire_expect(b, "");
    wire_hex(&w, b, MARK "002e 02 0000 0014 40010100 400206 0201 0000fdea 400304 0a000002 10 0a06");
    wire_expect(a, "");
    /* Policy comes: what is known already is judged anew, without a new session. */
    struct bgp_filter *all = bgp_filter_new(NULL, 0, FILTER_ACCEPT);
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        p.family[f].import = p.family[f].export = all;
    }
    (void)wire_peer(&w, &p);
    wire_run(&w, 0);
    wire_expect(a, MARK "0032 02 0000 0018 40010100 40020a 0202 0000fc00 0000fdea 400304 0a0000fe"
                        "10 0a06");
    wire_expect(b, MARK "0032 02 0000 0018 40010100 40020a 0202 0000fc00 0000fde9 400304 0a0000fe"
                        "10 0a05");
    bgp_filter_unref(all);
    wire_fini(&w);
}

static void t_otc__added_kept_and_refused__rfc9234(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config up = wire_peer_config(1, 65001), down = wire_peer_config(2, 65002),
                       peer = wire_peer_config(3, 65003);
    up.role = BGP_ROLE_CUSTOMER;
    down.role = BGP_ROLE_PROVIDER;
    peer.role = BGP_ROLE_PEER;
    struct bgp_open o1 = wire_open(1, 65001), o2 = wire_open(2, 65002), o3 = wire_open(3, 65003);
    struct wire_conn *u = wire_up_with(&w, &up, &o1), *d = wire_up_with(&w, &down, &o2),
                     *p = wire_up_with(&w, &peer, &o3);
    wire_hex(&w, u, UPDATE_10_5); /* from the provider: marked with its AS, to customers only */
    wire_expect(p, "");
    wire_expect(d, MARK "0039 02 0000 001f 40010100 40020a 0202 0000fc00 0000fde9 400304 0a0000fe"
                        "c02304 0000fde9 10 0a05");
    /* A customer may not give it back. */
    wire_hex(&w, d,
             MARK "0035 02 0000 001b 40010100 400206 0201 0000fdea 400304 0a000002"
                  "c02304 0000fde9 10 0a06");
    assert_int_equal(w.n_events[EVENT_ROLE], 1);
    wire_expect(p, "");
    wire_expect(u, "");
    /* A customer's own goes everywhere, marked for peers. */
    wire_hex(&w, d, MARK "002e 02 0000 0014 40010100 400206 0201 0000fdea 400304 0a000002 10 0a07");
    wire_expect(u, MARK "0032 02 0000 0018 40010100 40020a 0202 0000fc00 0000fdea 400304 0a0000fe"
                        "10 0a07");
    wire_expect(p, MARK "0039 02 0000 001f 40010100 40020a 0202 0000fc00 0000fdea 400304 0a0000fe"
                        "c02304 0000fc00 10 0a07");
    wire_fini(&w);
}

static void t_route_server__clients__untouched_and_next_best(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *c[3];
    struct filter_rule no[1] = {{.n_as = 1, .as = {65001}, .action = FILTER_REJECT}};
    struct bgp_filter *f = bgp_filter_new(no, 1, FILTER_ACCEPT);
    for (unsigned i = 0; i < 3; i++) {
        struct peer_config p = wire_peer_config(i + 1, 65001 + i);
        p.is_rs_client = true;
        if (i == 2) {
            p.family[BGP_V4].export = f; /* wants nothing of AS 65001 */
        }
        struct bgp_open o = wire_open(i + 1, 65001 + i);
        c[i] = wire_up_with(&w, &p, &o);
    }
    bgp_filter_unref(f);
    wire_hex(&w, c[0],
             MARK "0035 02 0000 001b 40010100 400206 0201 0000fde9 400304 0a000001"
                  "800404 00000005 10 0a05");
    wire_expect(c[1], MARK "0035 02 0000 001b 40010100 400206 0201 0000fde9 400304 0a000001"
                           "800404 00000005 10 0a05");
    wire_expect(c[2], "");
    /* A worse path that the third may have: RFC 7947 section 2.3. */
    wire_hex(&w, c[1],
             MARK "0032 02 0000 0018 40010100 40020a 0202 0000fdea 0000fdeb"
                  "400304 0a000002 10 0a05");
    wire_expect(c[0], "");
    wire_expect(c[2], MARK "0032 02 0000 0018 40010100 40020a 0202 0000fdea 0000fdeb"
                           "400304 0a000002 10 0a05");
    wire_fini(&w);
}

static void t_confederation__members_and_outside__rfc5065(void **state) {
    (void)state;
    struct wire w;
    static const uint32_t MEMBERS[] = {64601, 64602};
    struct speaker_config cfg = {.as = 64601,
                                 .router_id = 0x0a0000fe,
                                 .confederation = 65000,
                                 .members = MEMBERS,
                                 .n_members = 2};
    wire_init_with(&w, &cfg, false);
    struct wire_conn *m = wire_up(&w, 1, 64602), *o = wire_up(&w, 2, 65002),
                     *i = wire_up(&w, 3, 64601);
    /* From a member: (64602), local preference 150. */
    wire_hex(&w, m,
             MARK "0035 02 0000 001b 40010100 400206 0301 0000fc5a 400304 0a000001"
                  "400504 00000096 10 0a05");
    wire_expect(i, MARK "0035 02 0000 001b 40010100 400206 0301 0000fc5a 400304 0a000001"
                        "400504 00000096 10 0a05");
    wire_expect(o, MARK "002e 02 0000 0014 40010100 400206 0201 0000fde8 400304 0a0000fe 10 0a05");
    /* From outside: to a member with our member AS in a confederation's segment. */
    wire_hex(&w, o, MARK "002e 02 0000 0014 40010100 400206 0201 0000fdea 400304 0a000002 10 0a06");
    wire_expect(m, MARK "003b 02 0000 0021 40010100 40020c 0301 0000fc59 0201 0000fdea"
                        "400304 0a000002 400504 00000064 10 0a06");
    wire_fini(&w);
}

static void t_loop__own_as__kept_out_unless_allowed(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001);
    const char *loop = MARK "0032 02 0000 0018 40010100 40020a 0202 0000fde9 0000fc00"
                            "400304 0a000001 10 0a05";
    wire_hex(&w, a, loop);
    assert_int_equal(w.n_routes_told, 0);
    struct peer_config p = wire_peer_config(1, 65001);
    p.allow_own_as = 1;
    (void)wire_peer(&w, &p); /* live */
    wire_run(&w, 0);
    assert_int_equal(w.n_routes_told, 1);
    wire_fini(&w);
}

static void t_next_hop__ours_or_no_hosts__kept_out(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001);
    static const char *const HOPS[] = {"0a0000fe", "00000000", "7f000001", "e0000001", "ffffffff"};
    for (size_t i = 0; i < ARRAY_LEN(HOPS); i++) {
        struct buf b = BUF_INIT(4096);
        buf_printf(&b, MARK "002e 02 0000 0014 40010100 400206 0201 0000fde9 400304 %s 10 0a05",
                   HOPS[i]);
        wire_hex(&w, a, buf_cstr(&b));
        buf_fini(&b);
    }
    assert_int_equal(w.n_routes_told, 0);
    assert_false(a->is_closed);
    wire_fini(&w);
}

/* ---- errors that are answered by withdrawal ---- */

static void t_7606__malformed_attribute__route_goes_session_stays(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002);
    wire_hex(&w, a, UPDATE_10_5);
    wire_forget(b);
    /* ORIGIN is 7 */
    wire_hex(&w, a, MARK "002e 02 0000 0014 40010107 400206 0201 0000fde9 400304 0a000001 10 0a05");
    wire_expect(b, WITHDRAW_10_5);
    assert_false(a->is_closed);
    assert_int_equal(w.n_events[EVENT_UPDATE_ERROR], 1);
    wire_hex(&w, a, UPDATE_10_5);
    wire_forget(b);
    /* The path does not begin with the peer's AS. */
    wire_hex(&w, a, MARK "002e 02 0000 0014 40010100 400206 0201 0000fdff 400304 0a000001 10 0a05");
    wire_expect(b, WITHDRAW_10_5);
    wire_fini(&w);
}

/* ---- refresh ---- */

static void t_refresh__plain_and_enhanced__all_is_sent_again(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(2, 65002);
    struct bgp_open o = wire_open(2, 65002);
    o.caps.has_enhanced_refresh = true;
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up_with(&w, &p, &o),
                     *c = wire_up(&w, 3, 65003);
    wire_hex(&w, a, UPDATE_10_5);
    wire_forget(b);
    wire_forget(c);
    const char *told =
        MARK "0032 02 0000 0018 40010100 40020a 0202 0000fc00 0000fde9 400304 0a0000fe 10 0a05";
    wire_hex(&w, c, MARK "0017 05 0001 00 01");
    wire_expect(c, told);
    wire_hex(&w, b, MARK "0017 05 0001 00 01");
    struct buf want = BUF_INIT(4096);
    buf_printf(&want, "%s%s%s", MARK "0017 05 0001 01 01", told, MARK "0017 05 0001 02 01");
    wire_expect(b, buf_cstr(&want));
    buf_fini(&want);
    /* A family that is not ours, and one that we do not know. */
    wire_hex(&w, b, MARK "0017 05 0001 00 80" MARK "0017 05 0063 00 01");
    wire_expect(b, "");
    /* Wrong length: RFC 7313's error has the whole message as data. */
    wire_hex(&w, b, MARK "0018 05 0001 01 01 00");
    wire_expect_end(b, "0701" MARK "0018 05 0001 01 01 00");
    wire_fini(&w);
}

static void t_refresh__peer_sends_its_own_between_markers__rest_goes(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    struct bgp_open o = wire_open(1, 65001);
    o.caps.has_enhanced_refresh = true;
    struct wire_conn *a = wire_up_with(&w, &p, &o), *b = wire_up(&w, 2, 65002);
    wire_hex(&w, a, UPDATE_10_5);
    wire_hex(&w, a, MARK "002e 02 0000 0014 40010100 400206 0201 0000fde9 400304 0a000001 10 0a06");
    wire_forget(b);
    wire_hex(&w, a, MARK "0017 05 0001 01 01" UPDATE_10_5 MARK "0017 05 0001 02 01");
    wire_run(&w, 0);
    wire_expect(b, MARK "001a 02 0003 10 0a06 0000");
    wire_fini(&w);
}

/* ---- add-path ---- */

static void t_addpath__sent_and_received__each_path_with_its_id(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(3, 65003);
    p.family[BGP_V4].addpath = BGP_ADDPATH_SEND | BGP_ADDPATH_RECEIVE;
    struct bgp_open o = wire_open(3, 65003);
    o.caps.addpath[BGP_V4] = BGP_ADDPATH_SEND | BGP_ADDPATH_RECEIVE;
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002),
                     *c = wire_up_with(&w, &p, &o);
    wire_hex(&w, a, UPDATE_10_5);
    wire_expect(c, MARK "0036 02 0000 0018 40010100 40020a 0202 0000fc00 0000fde9 400304 0a0000fe"
                        "00000001 10 0a05");
    wire_hex(&w, b, MARK "002e 02 0000 0014 40010100 400206 0201 0000fdea 400304 0a000002 10 0a05");
    wire_expect(c, MARK "0036 02 0000 0018 40010100 40020a 0202 0000fc00 0000fdea 400304 0a0000fe"
                        "00000002 10 0a05");
    /* Two of its own for one prefix: both count. */
    wire_hex(&w, c,
             MARK "0032 02 0000 0014 40010100 400206 0201 0000fdeb 400304 0a000003"
                  "00000007 10 0a05");
    wire_hex(&w, c,
             MARK "0032 02 0000 0014 40010102 400206 0201 0000fdeb 400304 0a000003"
                  "00000008 10 0a05");
    wire_expect(c, "");
    struct peer_status st;
    assert_true(speaker_peer_status(w.s, c->peer, &st));
    assert_int_equal(st.family[BGP_V4].n_received, 2);
    wire_hex(&w, a, WITHDRAW_10_5);
    wire_expect(c, MARK "001e 02 0007 00000001 10 0a05 0000");
    wire_hex(&w, c, MARK "001e 02 0007 00000007 10 0a05 0000");
    assert_true(speaker_peer_status(w.s, c->peer, &st));
    assert_int_equal(st.family[BGP_V4].n_received, 1);
    wire_fini(&w);
}

/* ---- size and speed ---- */

/* Reads all messages in c->out: prefixes announced and withdrawn, the longest message. */
struct tally {
    unsigned n_reach, n_unreach, n_msgs;
    size_t longest;
};
static struct tally count(struct wire_conn *c, bool has_path_ids) {
    static struct update_scratch s = UPDATE_SCRATCH_INIT;
    struct bgp_rx rx = {.as4 = true, .mp = {true, true}, .addpath = {has_path_ids, has_path_ids}};
    struct tally t = {0};
    for (size_t at = 0; at < c->out.n;) {
        const uint8_t *m = (const uint8_t *)c->out.p + at;
        size_t n = get_u16(m + 16);
        struct bgp_update u;
        struct bgp_fail f;
        struct nlri x;
        if (m[18] == BGP_UPDATE) {
            assert_int_not_equal(bgp_update_parse(m + BGP_HEADER, n - BGP_HEADER, &rx, &s, &u, &f),
                                 UPDATE_RESET);
            for (unsigned i = 0; i < u.n_reach; i++) {
                while (nlri_next(&u.reach[i], &x)) {
                    t.n_reach++;
                }
            }
            for (unsigned i = 0; i < u.n_unreach; i++) {
                while (nlri_next(&u.unreach[i], &x)) {
                    t.n_unreach++;
                }
            }
        }
        t.n_msgs++;
        t.longest = n > t.longest ? n : t.longest;
        at += n;
    }
    buf_reset(&c->out);
    return t;
}

static void many(struct wire *w, unsigned n, bool is_there) {
    for (unsigned i = 0; i < n; i++) {
        struct local_route r = {.source = ROUTE_STATIC,
                                .prefix = {.ip = {.family = IP_V4}, .len = 32}};
        set_u32(r.prefix.ip.b, 0x0b000000U + i);
        if (is_there) {
            speaker_originate(w->s, &r, w->now);
        } else {
            assert_true(speaker_withdraw(w->s, &r.prefix, ROUTE_STATIC, w->now));
        }
    }
}

static void t_size__many_prefixes__packed_up_to_what_was_negotiated(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(2, 65002);
    p.extended_message = true;
    struct bgp_open o = wire_open(2, 65002);
    o.caps.has_extended_message = true;
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up_with(&w, &p, &o);
    many(&w, 30000, true);
    wire_run(&w, 0);
    struct tally t = count(a, false), x = count(b, false);
    assert_int_equal(t.n_reach, 30000);
    assert_in_range(t.longest, BGP_MAX - 5, BGP_MAX);
    assert_in_range(t.n_msgs, 37, 60);
    assert_int_equal(x.n_reach, 30000);
    assert_in_range(x.longest, 10000, BGP_MAX_EXT);
    many(&w, 30000, false);
    wire_run(&w, 0);
    t = count(a, false);
    assert_int_equal(t.n_unreach, 30000);
    assert_in_range(t.longest, BGP_MAX - 5, BGP_MAX);
    struct speaker_stats st;
    speaker_stats(w.s, &st);
    assert_int_equal(st.n_out, 0);
    assert_int_equal(st.n_prefixes[BGP_V4], 0);
    wire_fini(&w);
}

static void t_size__attributes_longer_than_a_message__not_told_and_withdrawn(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *a = wire_up(&w, 1, 65001);
    struct local_route r = {.source = ROUTE_STATIC};
    assert_int_equal(prefix_parse(STR("10.44.0.0/26"), &r.prefix), 0);
    speaker_originate(w.s, &r, w.now);
    wire_run(&w, 0);
    wire_forget(a);
    static uint8_t big[4400];
    for (size_t i = 0; i < sizeof(big); i += 4) {
        set_u32(big + i, (uint32_t)i);
    }
    r.attrs.part[PART_COMMUNITIES] = str_n((char *)big, sizeof(big));
    speaker_originate(w.s, &r, w.now);
    wire_run(&w, 0);
    wire_expect(a, MARK "001c 02 0005 1a 0a2c0000 0000");
    r.attrs.part[PART_COMMUNITIES] = str_n((char *)big, 400);
    speaker_originate(w.s, &r, w.now);
    wire_run(&w, 0);
    assert_int_equal(count(a, false).n_reach, 1);
    wire_fini(&w);
}

static void t_slow_peer__changes_are_coalesced__the_fast_one_waits_for_nobody(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *fast = wire_up(&w, 1, 65001), *slow = wire_up(&w, 2, 65002);
    wire_run(&w, 0);
    slow->is_slow = true;
    for (unsigned round = 0; round < 10; round++) {
        many(&w, 20000, true);
        wire_run(&w, 0);
        assert_int_equal(count(fast, false).n_reach, 20000);
        many(&w, 20000, false);
        wire_run(&w, 0);
        assert_int_equal(count(fast, false).n_unreach, 20000);
    }
    many(&w, 20000, true);
    wire_run(&w, 0);
    assert_int_equal(count(fast, false).n_reach, 20000);
    struct speaker_stats st;
    speaker_stats(w.s, &st);
    assert_int_equal(st.n_out, 20000); /* no more than the table */
    slow->is_slow = false;
    wire_run(&w, 0);
    struct tally t = count(slow, false);
    /* What was on its way, then the state once: not ten rounds. */
    assert_in_range(t.n_reach, 20000, 130000);
    struct peer_status ps;
    assert_true(speaker_peer_status(w.s, slow->peer, &ps));
    assert_true(ps.family[BGP_V4].is_in_sync);
    wire_fini(&w);
}

static void t_slow_peer__withdrawn_while_away__told_in_the_end(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *fast = wire_up(&w, 1, 65001), *slow = wire_up(&w, 2, 65002);
    many(&w, 3000, true);
    wire_run(&w, 0);
    wire_forget(slow);
    wire_forget(fast);
    slow->is_slow = true;
    many(&w, 3000, false);
    wire_run(&w, 0);
    assert_int_equal(count(fast, false).n_unreach, 3000);
    slow->is_slow = false;
    wire_run(&w, 0);
    assert_int_equal(count(slow, false).n_unreach, 3000);
    struct speaker_stats st;
    speaker_stats(w.s, &st);
    assert_int_equal(st.n_out, 0);
    wire_fini(&w);
}

/* ---- the kernel's side ---- */

static void t_ecmp__equal_paths__all_told_and_only_changes(void **state) {
    (void)state;
    struct wire w;
    struct speaker_config cfg = {
        .as = 64512, .router_id = 0x0a0000fe, .max_paths = 4, .multipath_relax = true};
    wire_init_with(&w, &cfg, false);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002);
    wire_hex(&w, a, UPDATE_10_5);
    assert_int_equal(w.last_route.n_hops, 1);
    wire_hex(&w, b, MARK "002e 02 0000 0014 40010100 400206 0201 0000fdea 400304 0a000002 10 0a05");
    assert_int_equal(w.last_route.n_hops, 2);
    unsigned n = w.n_routes_told;
    wire_hex(&w, a, UPDATE_10_5); /* nothing new */
    assert_int_equal(w.n_routes_told, n);
    /* A longer path does not share. */
    wire_hex(&w, b,
             MARK "0032 02 0000 0018 40010100 40020a 0202 0000fdea 0000fdea"
                  "400304 0a000002 10 0a05");
    assert_int_equal(w.last_route.n_hops, 1);
    wire_hex(&w, a, WITHDRAW_10_5);
    assert_int_equal(w.last_route.n_hops, 1);
    assert_int_equal(w.last_hops[0].ip.b[3], 2);
    speaker_closed(w.s, b->id, w.now);
    wire_run(&w, 0);
    assert_int_equal(w.last_route.n_hops, 0);
    wire_fini(&w);
}

static void t_weights__link_bandwidth__in_proportion(void **state) {
    (void)state;
    struct wire w;
    struct speaker_config cfg = {
        .as = 64512, .router_id = 0x0a0000fe, .max_paths = 4, .multipath_relax = true};
    wire_init_with(&w, &cfg, false);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002);
    /* 1e6 (49742400) and 3e6 (4a371b00) bytes a second */
    wire_hex(&w, a,
             MARK "0039 02 0000 001f 40010100 400206 0201 0000fde9 400304 0a000001"
                  "c01008 4004fde949742400 10 0a05");
    wire_hex(&w, b,
             MARK "0039 02 0000 001f 40010100 400206 0201 0000fdea 400304 0a000002"
                  "c01008 4004fdea4a371b00 10 0a05");
    assert_int_equal(w.last_route.n_hops, 2);
    uint32_t x = w.last_hops[0].weight, y = w.last_hops[1].weight;
    assert_int_equal(x > y ? x : y, 255);
    assert_int_equal(x > y ? y : x, 85);
    wire_fini(&w);
}

static void t_next_hop__tracked__unreachable_until_told_and_cost_counts(void **state) {
    (void)state;
    struct wire w;
    struct speaker_config cfg = {.as = 64512, .router_id = 0x0a0000fe};
    wire_init_with(&w, &cfg, true);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002);
    wire_hex(&w, a, UPDATE_10_5);
    wire_hex(&w, b, MARK "002e 02 0000 0014 40010100 400206 0201 0000fdea 400304 0a000002 10 0a05");
    assert_int_equal(w.n_routes_told, 0);
    assert_int_equal(w.n_watched, 2);
    struct ip46 one = {.family = IP_V4, .b = {10, 0, 0, 1}},
                two = {.family = IP_V4, .b = {10, 0, 0, 2}}, none = {0};
    speaker_nexthop_set(w.s, &one, &none, true, 20, STR("eth0"), w.now);
    wire_run(&w, 0);
    assert_int_equal(w.last_hops[0].ip.b[3], 1);
    speaker_nexthop_set(w.s, &two, &none, true, 10, STR("eth0"), w.now);
    wire_run(&w, 0);
    assert_int_equal(w.last_hops[0].ip.b[3], 2);
    speaker_nexthop_set(w.s, &two, &none, false, 0, STR_NULL, w.now);
    wire_run(&w, 0);
    assert_int_equal(w.last_hops[0].ip.b[3], 1);
    speaker_nexthop_set(w.s, &one, &none, false, 0, STR_NULL, w.now);
    wire_run(&w, 0);
    assert_int_equal(w.last_route.n_hops, 0);
    wire_hex(&w, a, WITHDRAW_10_5);
    wire_run(&w, 31 * S_); /* what was kept at hand for speed is let go by and by */
    assert_int_equal(w.n_unwatched, 1);
    wire_fini(&w);
}

static void t_med__within_one_neighbour_as_only__order_of_arrival_does_not_matter(void **state) {
    (void)state;
    /* Paths: A (AS 65001, MED 10, id 1), B (AS 65002, MED 0, id 2), C (AS 65001, MED 5, id 3): C
     * beats A by MED, then B beats C by id; pairwise A would beat B. */
    static const unsigned ORDER[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                        {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (size_t k = 0; k < ARRAY_LEN(ORDER); k++) {
        struct wire w;
        struct speaker_config cfg = {.as = 64512, .router_id = 0x0a0000fe};
        wire_init_with(&w, &cfg, false);
        struct wire_conn *c[3];
        static const uint32_t AS[] = {65001, 65002, 65001};
        static const unsigned MED[] = {10, 0, 5};
        for (unsigned i = 0; i < 3; i++) {
            c[i] = wire_up(&w, i + 1, AS[i]);
        }
        for (unsigned i = 0; i < 3; i++) {
            unsigned j = ORDER[k][i];
            struct buf b = BUF_INIT(4096);
            buf_printf(&b,
                       MARK "0035 02 0000 001b 40010100 400206 0201 0000%04x 400304 0a00000%u"
                            "800404 %08x 10 0a05",
                       AS[j], j + 1, MED[j]);
            wire_hex(&w, c[j], buf_cstr(&b));
            buf_fini(&b);
        }
        assert_int_equal(w.last_hops[0].ip.b[3], 2);
        wire_fini(&w);
    }
}

/* ---- explain ---- */

static void t_explain__each_path_and_each_peer__says_why(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct filter_rule rule = {.name = "BGPFilter lab exportV4[0]",
                               .has_cidr = true,
                               .cidr = {.ip = {.family = IP_V4, .b = {10}}, .len = 8},
                               .action = FILTER_REJECT};
    struct bgp_filter *f = bgp_filter_new(&rule, 1, FILTER_ACCEPT);
    struct peer_config p = wire_peer_config(3, 65003);
    p.family[BGP_V4].export = f;
    struct bgp_open o = wire_open(3, 65003);
    struct wire_conn *a = wire_up(&w, 1, 65001), *b = wire_up(&w, 2, 65002);
    (void)wire_up_with(&w, &p, &o);
    bgp_filter_unref(f);
    wire_hex(&w, a, UPDATE_10_5);
    wire_hex(&w, b,
             MARK "0032 02 0000 0018 40010100 40020a 0202 0000fdea 0000fdff"
                  "400304 0a000002 10 0a05");
    struct buf out = BUF_INIT(1 << 16);
    struct prefix x;
    assert_int_equal(prefix_parse(STR("10.5.0.0/16"), &x), 0);
    speaker_explain(w.s, &x, 0, &out);
    assert_string_equal(
        buf_cstr(&out),
        "10.5.0.0/16\n"
        "  from p1 (10.0.0.1, AS 65001), AS path \"65001\", next hop 10.0.0.1, local preference "
        "100: best\n"
        "  from p2 (10.0.0.2, AS 65002), AS path \"65002 65023\", next hop 10.0.0.2, local "
        "preference 100: not best: longer AS path\n"
        "  to p1: no, it came from there\n"
        "  to p2: yes\n"
        "  to p3: no, rejected by export policy (BGPFilter lab exportV4[0])\n");
    buf_fini(&out);
    wire_fini(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_eor__first_dump_of_both_families__exact),
        cmocka_unit_test(t_external__to_external_and_internal__attributes_of_each),
        cmocka_unit_test(t_two_octets__as_trans_and_as4_path__exact),
        cmocka_unit_test(t_local__to_external_and_internal__own_next_hop),
        cmocka_unit_test(t_v4_over_v6__negotiated__mp_reach_with_16_octets),
        cmocka_unit_test(t_reflection__client_and_not__rfc4456),
        cmocka_unit_test(t_communities__well_known__kept_in),
        cmocka_unit_test(t_graceful_shutdown__from_external__least_preferred),
        cmocka_unit_test(t_policy__required_and_missing__nothing_in_nothing_out),
        cmocka_unit_test(t_otc__added_kept_and_refused__rfc9234),
        cmocka_unit_test(t_route_server__clients__untouched_and_next_best),
        cmocka_unit_test(t_confederation__members_and_outside__rfc5065),
        cmocka_unit_test(t_loop__own_as__kept_out_unless_allowed),
        cmocka_unit_test(t_next_hop__ours_or_no_hosts__kept_out),
        cmocka_unit_test(t_7606__malformed_attribute__route_goes_session_stays),
        cmocka_unit_test(t_refresh__plain_and_enhanced__all_is_sent_again),
        cmocka_unit_test(t_refresh__peer_sends_its_own_between_markers__rest_goes),
        cmocka_unit_test(t_addpath__sent_and_received__each_path_with_its_id),
        cmocka_unit_test(t_size__many_prefixes__packed_up_to_what_was_negotiated),
        cmocka_unit_test(t_size__attributes_longer_than_a_message__not_told_and_withdrawn),
        cmocka_unit_test(t_slow_peer__changes_are_coalesced__the_fast_one_waits_for_nobody),
        cmocka_unit_test(t_slow_peer__withdrawn_while_away__told_in_the_end),
        cmocka_unit_test(t_ecmp__equal_paths__all_told_and_only_changes),
        cmocka_unit_test(t_weights__link_bandwidth__in_proportion),
        cmocka_unit_test(t_next_hop__tracked__unreachable_until_told_and_cost_counts),
        cmocka_unit_test(t_med__within_one_neighbour_as_only__order_of_arrival_does_not_matter),
        cmocka_unit_test(t_explain__each_path_and_each_peer__says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
