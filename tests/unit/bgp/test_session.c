/* Sessions from the wire: each state with each message, each NOTIFICATION with code, subcode and
 * data, each timer. RFC 4271 sections 4, 6 and 8, 5492, 6286, 6608, 7607, 8538, 9003, 9234, 9687.
 */
#include "wire_peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEEPALIVE MARK "0013 04"
/* 10.5.0.0/16 from AS 65001, next hop 10.0.0.1 */
#define UPDATE_10_5 MARK "002e 02 0000 0014 40010100 400206 0201 0000fde9 400304 0a000001 10 0a05"

/* ---- OPEN ---- */

static void t_open__plain_speaker__exact_bytes(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.no_capabilities = true;
    (void)wire_peer(&w, &p);
    wire_expect(wire_accept(&w, 1), MARK "001d 01 04 fc00 005a 0a0000fe 00");
    wire_fini(&w);
}

static void t_open__everything__exact_bytes(void **state) {
    (void)state;
    struct wire w;
    struct speaker_config cfg = {.as = 4200000001U, .router_id = 0x0a0000fe};
    wire_init_with(&w, &cfg, false);
    struct peer_config p = wire_peer_config(1, 65001);
    p.gr = GR_ENABLED;
    p.extended_message = p.extended_next_hop = true;
    p.role = BGP_ROLE_CUSTOMER;
    p.hold_s = 30;
    p.family[BGP_V4].addpath = BGP_ADDPATH_SEND | BGP_ADDPATH_RECEIVE;
    p.family[BGP_V6].llgr_time_s = 3600;
    (void)wire_peer(&w, &p);
    wire_expect(wire_accept(&w, 1),
                MARK "005d 01 04 5ba0 001e 0a0000fe 40 02 3e"
                     "0104 0001 0001 0104 0002 0001"
                     "0200 0506 0001 0001 0002 0600 0901 03"
                     "400a 4078 0001 01 00 0002 01 00"
                     "4104 fa56ea01 4504 0001 01 03 4600 4707 0002 01 00 000e10");
    wire_fini(&w);
}

static void t_open_sent__each_error__code_and_data(void **state) {
    (void)state;
    static const struct {
        uint32_t as;
        const char *hex, *fail;
    } cases[] = {
        {65001, "fffffffffffffffffffffffffffffffe 0013 04", "0101"},
        {65001, MARK "0012 01", "0102 0012"},
        {65001, MARK "1001 01", "0102 1001"},
        {65001, MARK "001c 01", "0102 001c"},
        {65001, MARK "0014 04", "0102 0014"},
        {65001, MARK "0013 06", "0103 06"},
        {65001, MARK "001d 01 03 fde9 005a 0a000001 00", "0201 0004"},
        {65001, MARK "001d 01 05 fde9 005a 0a000001 00", "0201 0004"},
        {65001, MARK "001d 01 04 fdea 005a 0a000001 00", "0202"},
        {65001, MARK "001d 01 04 0000 005a 0a000001 00", "0202"}, /* RFC 7607 */
        {65001, MARK "0025 01 04 fde9 005a 0a000001 08 0206 4104 00000000", "0202"},
        {0, MARK "001d 01 04 fc00 005a 0a000001 00", "0202"}, /* any but ours */
        {65001, MARK "001d 01 04 fde9 005a 00000000 00", "0203"},
        {64512, MARK "001d 01 04 fc00 005a 0a0000fe 00", "0203"}, /* RFC 6286 */
        {65001, MARK "0020 01 04 fde9 005a 0a000001 03 0101 00", "0204"},
        {65001, MARK "001d 01 04 fde9 0001 0a000001 00", "0206"},
        {65001, MARK "001d 01 04 fde9 0002 0a000001 00", "0206"},
        {65001, MARK "001f 01 04 fde9 005a 0a000001 02 0209", "0200"},
        {65001, MARK "001d 01 04 fde9 005a 0a000001 07", "0200"},
        /* only VPNv4: nothing in common */
        {65001, MARK "0025 01 04 fde9 005a 0a000001 08 0206 0104 0001 0080",
         "0207 0104 0001 0001 0104 0002 0001"},
        {65001, KEEPALIVE, "0501 04"},
        {65001, UPDATE_10_5, "0501 02"},
        {65001, MARK "0017 05 0001 00 01", "0501 05"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wire w;
        wire_init(&w);
        struct peer_config p = wire_peer_config(1, cases[i].as);
        uint16_t id = wire_peer(&w, &p);
        struct wire_conn *c = wire_accept(&w, 1);
        print_message("case %zu: %s\n", i, cases[i].fail);
        assert_int_equal(wire_state(&w, id), BGP_OPEN_SENT);
        wire_hex(&w, c, cases[i].hex);
        wire_expect_end(c, cases[i].fail);
        assert_int_equal(wire_state(&w, id), BGP_IDLE);
        assert_null(wire_accept(&w, 1)); /* Idle refuses */
        wire_fini(&w);
    }
}

static void t_open__same_id_of_another_as__accepted(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct bgp_open o = wire_open(254, 65001); /* our own identifier: RFC 6286 allows it */
    struct peer_config p = wire_peer_config(1, 65001);
    (void)wire_up_with(&w, &p, &o);
    wire_fini(&w);
}

static void t_open_confirm__each_error__code_and_data(void **state) {
    (void)state;
    static const struct {
        const char *hex, *fail;
    } cases[] = {
        {UPDATE_10_5, "0502 02"},
        {MARK "0017 05 0001 00 01", "0502 05"},
        {MARK "001d 01 04 fde9 005a 0a000001 00", "0502 01"},
        {MARK "0014 04 00", "0102 0014"},
        {MARK "1001 02", "0102 1001"}, /* not yet negotiated */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wire w;
        wire_init(&w);
        struct peer_config p = wire_peer_config(1, 65001);
        uint16_t id = wire_peer(&w, &p);
        struct wire_conn *c = wire_accept(&w, 1);
        struct bgp_open o = wire_open(1, 65001);
        wire_forget(c);
        wire_send_open(&w, c, &o);
        assert_int_equal(wire_state(&w, id), BGP_OPEN_CONFIRM);
        wire_expect(c, KEEPALIVE);
        wire_hex(&w, c, cases[i].hex);
        wire_expect_end(c, cases[i].fail);
        wire_fini(&w);
    }
}

static void t_established__each_error__code_and_data(void **state) {
    (void)state;
    static const struct {
        const char *hex, *fail;
    } cases[] = {
        {MARK "001d 01 04 fde9 005a 0a000001 00", "0503 01"},
        {"fffffffffffffffffffffffffffffffe 0013 04", "0101"},
        {MARK "0016 02", "0102 0016"},
        {MARK "1001 02", "0102 1001"},
        {MARK "0014 04 00", "0102 0014"},
        {MARK "0013 09", "0103 09"},
        {MARK "0018 05 0001 00 01 00", "0102 0018"},
        {MARK "0017 02 0001 0000", "0301"},           /* withdrawn routes are longer than all */
        {MARK "0017 02 0000 0001", "0301"},           /* so are attributes */
        {MARK "0019 02 0002 2100 0000", "030a"},      /* a prefix of 33 bits */
        {MARK "001b 02 0000 0000 20 0a0000", "030a"}, /* … of which a byte is missing */
        {MARK "001f 02 0000 0008 800f 05 0002 01 81 20", "0309 800f 05 0002 01 81 20"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wire w;
        wire_init(&w);
        struct wire_conn *c = wire_up(&w, 1, 65001);
        print_message("case %zu: %s\n", i, cases[i].fail);
        wire_hex(&w, c, cases[i].hex);
        wire_expect_end(c, cases[i].fail);
        assert_int_equal(w.n_events[EVENT_DOWN], 1);
        wire_fini(&w);
    }
}

static void t_roles__mismatch_and_strict__refused(void **state) {
    (void)state;
    static const struct {
        uint8_t ours, theirs;
        bool is_strict;
        const char *fail; /* NULL: fine */
    } cases[] = {
        {BGP_ROLE_PROVIDER, BGP_ROLE_CUSTOMER, true, NULL},
        {BGP_ROLE_PEER, BGP_ROLE_PEER, true, NULL},
        {BGP_ROLE_RS, BGP_ROLE_RS_CLIENT, false, NULL},
        {BGP_ROLE_PROVIDER, BGP_ROLE_PROVIDER, false, "020b"},
        {BGP_ROLE_CUSTOMER, BGP_ROLE_PEER, false, "020b"},
        {BGP_ROLE_CUSTOMER, BGP_ROLE_NONE, true, "020b"},
        {BGP_ROLE_CUSTOMER, BGP_ROLE_NONE, false, NULL},
        {BGP_ROLE_NONE, BGP_ROLE_PEER, false, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wire w;
        wire_init(&w);
        struct peer_config p = wire_peer_config(1, 65001);
        p.role = cases[i].ours;
        p.role_strict = cases[i].is_strict;
        uint16_t id = wire_peer(&w, &p);
        struct wire_conn *c = wire_accept(&w, 1);
        struct bgp_open o = wire_open(1, 65001);
        o.caps.role = cases[i].theirs;
        wire_send_open(&w, c, &o);
        if (cases[i].fail) {
            wire_expect_end(c, cases[i].fail);
        } else {
            assert_int_equal(wire_state(&w, id), BGP_OPEN_CONFIRM);
        }
        wire_fini(&w);
    }
}

/* ---- timers ---- */

static void t_hold__nothing_comes__expires_in_each_state(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    (void)wire_peer(&w, &p);
    struct wire_conn *c = wire_accept(&w, 1);
    wire_run(&w, 239 * S_);
    assert_false(c->is_closed);
    wire_run(&w, 2 * S_);
    wire_expect_end(c, "0400");
    wire_fini(&w);

    wire_init(&w);
    struct bgp_open o = wire_open(1, 65001);
    o.hold_s = 9;
    c = wire_up_with(&w, &p, &o);
    wire_run(&w, 8 * S_);
    assert_false(c->is_closed);
    wire_hex(&w, c, KEEPALIVE);
    wire_run(&w, 8 * S_);
    assert_false(c->is_closed);
    wire_run(&w, 2 * S_);
    wire_expect_end(c, "0400");
    wire_fini(&w);
}

static void t_keepalive__a_third_of_the_smaller_hold_time__with_jitter(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    struct bgp_open o = wire_open(1, 65001);
    o.hold_s = 30;
    struct wire_conn *c = wire_up_with(&w, &p, &o);
    unsigned n = 0;
    for (unsigned i = 0; i < 300; i++) {
        wire_run(&w, S_);
        n += (unsigned)(c->out.n / BGP_HEADER);
        wire_forget(c);
        if (i % 10 == 0) {
            wire_hex(&w, c, KEEPALIVE);
        }
    }
    assert_in_range(n, 30, 40); /* each 7.5 to 10 s */
    wire_fini(&w);
}

static void t_hold__zero__no_keepalives_no_end(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    struct bgp_open o = wire_open(1, 65001);
    o.hold_s = 0;
    struct wire_conn *c = wire_up_with(&w, &p, &o);
    wire_run(&w, 100000 * S_);
    wire_expect(c, "");
    assert_false(c->is_closed);
    wire_fini(&w);
}

static void t_send_hold__peer_reads_nothing__code_8(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *c = wire_up(&w, 1, 65001);
    c->is_slow = true;
    for (unsigned i = 0; i < 460; i += 20) {
        wire_run(&w, 20 * S_);
        wire_hex(&w, c, KEEPALIVE);
    }
    assert_false(c->is_closed);
    for (unsigned i = 0; i < 80; i += 20) {
        wire_run(&w, 20 * S_);
        wire_hex(&w, c, KEEPALIVE);
    }
    wire_expect_end(c, "0800");
    wire_fini(&w);
}

static struct wire_conn *asked(struct wire *w) {
    for (unsigned i = 0; i < w->n_conns; i++) {
        if (w->conn[i].is_asked && !w->conn[i].is_closed) {
            return &w->conn[i];
        }
    }
    return NULL;
}

static const struct ip46 SELF = {.family = IP_V4, .b = {10, 0, 0, 254}};

static struct wire_conn *connected(struct wire *w) {
    struct wire_conn *c = asked(w);
    assert_non_null(c);
    c->is_asked = false;
    speaker_connected(w->s, c->id, &SELF, w->now);
    wire_run(w, 0);
    return c;
}

static void t_connect__refused__tried_again_with_jitter(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.is_passive = false;
    p.connect_retry_s = 8;
    uint16_t id = wire_peer(&w, &p);
    for (unsigned i = 0; i < 5; i++) {
        struct wire_conn *c = asked(&w);
        assert_non_null(c);
        assert_int_equal(wire_state(&w, id), BGP_CONNECT);
        c->is_asked = false;
        speaker_closed(w.s, c->id, w.now);
        assert_int_equal(wire_state(&w, id), BGP_ACTIVE);
        wire_run(&w, 59 * S_ / 10);
        assert_null(asked(&w));
        wire_run(&w, 22 * S_ / 10);
    }
    wire_fini(&w);
}

static void t_connect__no_answer__given_up_and_tried_again(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.is_passive = false;
    uint16_t id = wire_peer(&w, &p);
    uint32_t first = asked(&w)->id;
    wire_run(&w, 6 * S_);
    assert_int_not_equal(asked(&w)->id, first);
    assert_int_equal(wire_state(&w, id), BGP_CONNECT);
    wire_fini(&w);
}

static void t_idle__errors_one_after_another__pause_doubles(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    uint16_t id = wire_peer(&w, &p);
    static const int64_t PAUSE[] = {5, 10, 20, 40, 60, 60};
    for (size_t i = 0; i < ARRAY_LEN(PAUSE); i++) {
        struct wire_conn *c = wire_accept(&w, 1);
        assert_non_null(c);
        wire_hex(&w, c, KEEPALIVE);
        wire_expect_end(c, "0501 04");
        wire_run(&w, PAUSE[i] * S_ * 74 / 100);
        assert_int_equal(wire_state(&w, id), BGP_IDLE);
        wire_run(&w, PAUSE[i] * S_ * 27 / 100);
        assert_int_equal(wire_state(&w, id), BGP_ACTIVE);
    }
    wire_fini(&w);
}

/* ---- collisions ---- */

/* An outgoing and an incoming connection of one peer; the peer's OPEN first on one, then on the
 * other. Which is closed? */
static void collide(uint32_t peer_id, uint32_t peer_as, bool out_first, bool out_stays) {
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, peer_as);
    p.is_passive = false;
    uint16_t id = wire_peer(&w, &p);
    struct wire_conn *out = connected(&w), *in = wire_accept(&w, 1);
    struct bgp_open o = wire_open(1, peer_as);
    o.id = peer_id;
    wire_send_open(&w, out_first ? out : in, &o);
    wire_send_open(&w, out_first ? in : out, &o);
    wire_expect_end(out_stays ? in : out, "0607");
    struct wire_conn *stays = out_stays ? out : in;
    assert_false(stays->is_closed);
    wire_hex(&w, stays, KEEPALIVE);
    assert_int_equal(wire_state(&w, id), BGP_ESTABLISHED);
    wire_fini(&w);
}

static void t_collision__connection_of_the_higher_identifier_stays(void **state) {
    (void)state;
    for (int first = 0; first < 2; first++) {
        collide(0x0a000001, 65001, first, true);  /* ours is higher: the one we began */
        collide(0x0b000001, 65001, first, false); /* theirs */
        collide(0x0a0000fe, 65001, first, false); /* the same: the higher AS (RFC 6286) */
        collide(0x0a0000fe, 64000, first, true);
    }
}

static void t_collision__established_already__the_new_one_goes(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *c = wire_up(&w, 1, 65001), *again = wire_accept(&w, 1);
    struct bgp_open o = wire_open(1, 65001);
    wire_send_open(&w, again, &o);
    wire_expect_end(again, "0607");
    assert_false(c->is_closed);
    wire_fini(&w);
}

static void t_collision__established_with_graceful_restart__the_old_one_goes(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.gr = GR_ENABLED;
    struct bgp_open o = wire_open(1, 65001);
    o.caps.has_gr = o.caps.gr[BGP_V4] = o.caps.gr_forwarding[BGP_V4] = true;
    o.caps.gr_time_s = 60;
    struct wire_conn *c = wire_up_with(&w, &p, &o);
    wire_hex(&w, c, UPDATE_10_5);
    wire_forget(c);
    struct wire_conn *again = wire_accept(&w, 1);
    wire_send_open(&w, again, &o);
    assert_true(c->is_closed);
    wire_expect(c, ""); /* without a word (RFC 4724 section 4.2) */
    wire_hex(&w, again, KEEPALIVE);
    assert_int_equal(wire_state(&w, again->peer), BGP_ESTABLISHED);
    assert_int_equal(w.n_routes_gone, 0);
    wire_hex(&w, again, MARK "0017 02 0000 0000"); /* End-of-RIB: it has the route no more */
    assert_int_equal(w.n_routes_gone, 1);
    wire_fini(&w);
}

static void t_incoming_twice__the_newer_one_counts(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    (void)wire_peer(&w, &p);
    struct wire_conn *a = wire_accept(&w, 1), *b = wire_accept(&w, 1);
    assert_non_null(b);
    wire_expect_end(a, "0607");
    assert_false(b->is_closed);
    wire_fini(&w);
}

static void t_connect__timers_ran_before__one_open(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.no_capabilities = true;
    p.is_passive = false;
    uint16_t id = wire_peer(&w, &p);
    wire_run(&w, 4 * S_);
    struct wire_conn *c = NULL;
    for (unsigned i = 0; i < w.n_conns; i++) {
        c = w.conn[i].is_asked && !w.conn[i].is_closed ? &w.conn[i] : c;
    }
    assert_non_null(c);
    speaker_connected(w.s, c->id, &(struct ip46){.family = IP_V4, .b = {10, 0, 0, 254}}, w.now);
    wire_run(&w, S_);
    wire_expect(c, MARK "001d 01 04 fc00 005a 0a0000fe 00");
    assert_int_equal(wire_state(&w, id), BGP_OPEN_SENT);
    wire_fini(&w);
}

/* ---- DelayOpen ---- */

static void t_delay_open__peer_silent_or_first__open_when_due(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.no_capabilities = true;
    p.delay_open_s = 10;
    uint16_t id = wire_peer(&w, &p);
    /* Silence: ours comes when the timer ends. */
    struct wire_conn *c = wire_accept(&w, 1);
    wire_run(&w, 9 * S_);
    wire_expect(c, "");
    assert_int_equal(wire_state(&w, id), BGP_ACTIVE);
    wire_run(&w, S_);
    wire_expect(c, MARK "001d 01 04 fc00 005a 0a0000fe 00");
    assert_int_equal(wire_state(&w, id), BGP_OPEN_SENT);
    /* The peer's OPEN: ours and the KEEPALIVE at once. */
    c = wire_accept(&w, 1);
    wire_hex(&w, c, MARK "001d 01 04 fde9 005a 0a000001 00");
    wire_expect(c, MARK "001d 01 04 fc00 005a 0a0000fe 00" KEEPALIVE);
    assert_int_equal(wire_state(&w, id), BGP_OPEN_CONFIRM);
    wire_hex(&w, c, KEEPALIVE);
    assert_int_equal(wire_state(&w, id), BGP_ESTABLISHED);
    wire_run(&w, 20 * S_); /* the timer is over: no second OPEN */
    assert_int_equal(wire_state(&w, id), BGP_ESTABLISHED);
    wire_fini(&w);
}

static void t_delay_open__anything_else__fsm_error_without_subcode(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.delay_open_s = 10;
    uint16_t id = wire_peer(&w, &p);
    struct wire_conn *c = wire_accept(&w, 1);
    wire_hex(&w, c, KEEPALIVE);
    wire_expect_end(c, "0500 04");
    assert_int_equal(wire_state(&w, id), BGP_IDLE);
    wire_fini(&w);
}

/* ---- ends on purpose ---- */

static void t_shutdown__with_text__told_and_not_tried_again(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *c = wire_up(&w, 1, 65001);
    struct peer_config p = wire_peer_config(1, 65001);
    p.is_shutdown = true;
    p.shutdown_text = STR("bye");
    (void)wire_peer(&w, &p);
    wire_expect_end(c, "0602 03 627965");
    assert_null(wire_accept(&w, 1));
    p.is_shutdown = false;
    (void)wire_peer(&w, &p);
    assert_non_null(wire_accept(&w, 1));
    wire_fini(&w);
}

static void t_reset_and_removal__subcodes(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *c = wire_up(&w, 1, 65001);
    speaker_peer_reset(w.s, c->peer, false, STR("x"), w.now);
    wire_expect_end(c, "0604 01 78");
    wire_run(&w, 0);
    c = wire_up(&w, 1, 65001); /* at once */
    struct peer_config p = wire_peer_config(1, 65001);
    p.hold_s = 60;
    (void)wire_peer(&w, &p);
    wire_expect_end(c, "0606");
    c = wire_up(&w, 2, 65002);
    speaker_peer_bfd_down(w.s, c->peer, w.now);
    wire_expect_end(c, "060a");
    wire_run(&w, 10 * S_);
    c = wire_up(&w, 2, 65002);
    assert_true(speaker_peer_del(w.s, STR("p2"), w.now));
    wire_expect_end(c, "0603");
    assert_int_equal(speaker_peer_find(w.s, STR("p2")), 0);
    assert_false(speaker_peer_del(w.s, STR("p2"), w.now));
    c = wire_up(&w, 3, 65003);
    struct wire_conn *d = wire_up(&w, 4, 65004);
    speaker_shutdown(w.s, STR("end"), false, w.now);
    wire_expect_end(c, "0602 03 656e64");
    wire_expect_end(d, "0602 03 656e64");
    wire_fini(&w);
}

static void t_hard_reset__notification_bit_agreed_on__wrapped(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    p.gr = GR_ENABLED;
    struct bgp_open o = wire_open(1, 65001);
    o.caps.has_gr = o.caps.gr_notification = o.caps.gr[BGP_V4] = true;
    o.caps.gr_forwarding[BGP_V4] = true;
    o.caps.gr_time_s = 60;
    struct wire_conn *c = wire_up_with(&w, &p, &o);
    wire_hex(&w, c, UPDATE_10_5);
    speaker_peer_reset(w.s, c->peer, false, STR(""), w.now);
    wire_expect_end(c, "0604");
    assert_int_equal(w.n_routes_gone, 0); /* RFC 8538: kept on both sides */
    wire_run(&w, S_);
    c = wire_up_with(&w, &p, &o);
    wire_hex(&w, c, UPDATE_10_5);
    speaker_peer_reset(w.s, c->peer, true, STR(""), w.now);
    wire_expect_end(c, "0609 0604");
    wire_run(&w, 0);
    assert_int_equal(w.n_routes_gone, 1);
    /* From the other side. */
    c = wire_up_with(&w, &p, &o);
    wire_hex(&w, c, UPDATE_10_5);
    wire_hex(&w, c, MARK "0015 03 0604");
    assert_int_equal(w.n_routes_gone, 1);
    wire_run(&w, 10 * S_);
    c = wire_up_with(&w, &p, &o);
    wire_hex(&w, c, UPDATE_10_5);
    wire_hex(&w, c, MARK "0017 03 0609 0604");
    assert_int_equal(w.n_routes_gone, 2);
    wire_fini(&w);
}

static void t_notification__received__closed_without_answer(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct wire_conn *c = wire_up(&w, 1, 65001);
    wire_hex(&w, c, MARK "0019 03 0602 03 627965");
    assert_true(c->is_closed);
    wire_expect(c, "");
    struct peer_status st;
    assert_true(speaker_peer_status(w.s, c->peer, &st));
    assert_int_equal(st.last.code, 6);
    assert_false(st.last_is_sent);
    assert_true(str_is(bgp_shutdown_text(&st.last), "bye"));
    wire_fini(&w);
}

static void t_max_prefixes__flood__cease_with_the_limit_and_a_pause(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    struct bgp_open o = wire_open(1, 65001);
    p.family[BGP_V4].max_prefixes = 2;
    p.prefix_restart_s = 30;
    struct wire_conn *c = wire_up_with(&w, &p, &o);
    wire_hex(&w, c,
             MARK "0031 02 0000 0014 40010100 400206 0201 0000fde9 400304 0a000001"
                  "10 0a05 10 0a06");
    assert_false(c->is_closed);
    wire_hex(&w, c, UPDATE_10_5); /* a change of one that is there */
    assert_false(c->is_closed);
    wire_hex(&w, c, MARK "002e 02 0000 0014 40010100 400206 0201 0000fde9 400304 0a000001 10 0a07");
    wire_expect_end(c, "0601 0001 01 00000002");
    assert_int_equal(w.n_events[EVENT_LIMIT], 1);
    wire_run(&w, 0);
    struct speaker_stats st;
    speaker_stats(w.s, &st);
    assert_int_equal(st.n_prefixes[BGP_V4], 0);
    wire_run(&w, 29 * S_);
    assert_null(wire_accept(&w, 1));
    wire_run(&w, 2 * S_);
    assert_non_null(wire_accept(&w, 1));
    wire_fini(&w);
}

/* ---- neighbours of a range ---- */

static void t_range__any_address_of_it__limited_and_forgotten(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(0, 0);
    p.name = STR("pods");
    p.address = (struct ip46){0};
    p.range = (struct prefix){.ip = {.family = IP_V4, .b = {10, 0, 0, 0}}, .len = 24};
    p.max_dynamic = 2;
    (void)wire_peer(&w, &p);
    struct wire_conn *a = wire_accept(&w, 7), *b = wire_accept(&w, 8);
    assert_true(a && b);
    assert_null(wire_accept(&w, 9));
    assert_int_equal(w.n_events[EVENT_PEER_NEW], 2);
    assert_true(str_is(speaker_peer_config(w.s, a->peer)->name, "pods/10.0.0.7"));
    struct bgp_open o = wire_open(7, 65007);
    wire_send_open(&w, a, &o);
    wire_hex(&w, a, KEEPALIVE);
    assert_int_equal(wire_state(&w, a->peer), BGP_ESTABLISHED);
    wire_hex(&w, a, MARK "002e 02 0000 0014 40010100 400206 0201 0000fdef 400304 0a000007 10 0a05");
    assert_int_equal(w.n_routes_told, 1);
    speaker_closed(w.s, a->id, w.now);
    wire_run(&w, S_);
    assert_int_equal(w.n_routes_gone, 1);
    assert_int_equal(w.n_events[EVENT_PEER_GONE], 1);
    assert_non_null(wire_accept(&w, 9));
    assert_true(speaker_peer_del(w.s, STR("pods"), w.now));
    wire_expect_end(b, "0603");
    wire_run(&w, S_);
    assert_int_equal(w.n_events[EVENT_PEER_GONE], 3);
    wire_fini(&w);
}

static void t_bytes__one_by_one__as_all_at_once(void **state) {
    (void)state;
    struct wire w;
    wire_init(&w);
    struct peer_config p = wire_peer_config(1, 65001);
    (void)wire_peer(&w, &p);
    struct wire_conn *c = wire_accept(&w, 1);
    struct buf b = BUF_INIT(1 << 16);
    struct bgp_open o = wire_open(1, 65001);
    bgp_open_write(&b, &o);
    bgp_keepalive_write(&b);
    for (unsigned i = 0; i < 5; i++) {
        static const uint8_t HEAD[] = {0, 0x2e, 2, 0, 0,    0,    0x14, 0x40, 1, 1,  0, 0x40, 2, 6,
                                       2, 1,    0, 0, 0xfd, 0xe9, 0x40, 3,    4, 10, 0, 0,    1};
        for (unsigned k = 0; k < 16; k++) {
            wr_u8(&b, 0xff);
        }
        buf_add(&b, HEAD, sizeof(HEAD));
        wr_u8(&b, 16);
        wr_u8(&b, 10);
        wr_u8(&b, i);
    }
    for (size_t i = 0; i < b.n; i++) {
        speaker_input(w.s, c->id, b.p + i, 1, w.now);
    }
    buf_fini(&b);
    wire_run(&w, 0);
    struct peer_status st;
    assert_true(speaker_peer_status(w.s, c->peer, &st));
    assert_int_equal(st.family[BGP_V4].n_received, 5);
    assert_int_equal(st.msgs_in, 7);
    wire_fini(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_open__plain_speaker__exact_bytes),
        cmocka_unit_test(t_open__everything__exact_bytes),
        cmocka_unit_test(t_open_sent__each_error__code_and_data),
        cmocka_unit_test(t_open__same_id_of_another_as__accepted),
        cmocka_unit_test(t_open_confirm__each_error__code_and_data),
        cmocka_unit_test(t_established__each_error__code_and_data),
        cmocka_unit_test(t_roles__mismatch_and_strict__refused),
        cmocka_unit_test(t_hold__nothing_comes__expires_in_each_state),
        cmocka_unit_test(t_keepalive__a_third_of_the_smaller_hold_time__with_jitter),
        cmocka_unit_test(t_hold__zero__no_keepalives_no_end),
        cmocka_unit_test(t_send_hold__peer_reads_nothing__code_8),
        cmocka_unit_test(t_connect__refused__tried_again_with_jitter),
        cmocka_unit_test(t_connect__no_answer__given_up_and_tried_again),
        cmocka_unit_test(t_idle__errors_one_after_another__pause_doubles),
        cmocka_unit_test(t_collision__connection_of_the_higher_identifier_stays),
        cmocka_unit_test(t_collision__established_already__the_new_one_goes),
        cmocka_unit_test(t_collision__established_with_graceful_restart__the_old_one_goes),
        cmocka_unit_test(t_incoming_twice__the_newer_one_counts),
        cmocka_unit_test(t_connect__timers_ran_before__one_open),
        cmocka_unit_test(t_delay_open__peer_silent_or_first__open_when_due),
        cmocka_unit_test(t_delay_open__anything_else__fsm_error_without_subcode),
        cmocka_unit_test(t_shutdown__with_text__told_and_not_tried_again),
        cmocka_unit_test(t_reset_and_removal__subcodes),
        cmocka_unit_test(t_hard_reset__notification_bit_agreed_on__wrapped),
        cmocka_unit_test(t_notification__received__closed_without_answer),
        cmocka_unit_test(t_max_prefixes__flood__cease_with_the_limit_and_a_pause),
        cmocka_unit_test(t_range__any_address_of_it__limited_and_forgotten),
        cmocka_unit_test(t_bytes__one_by_one__as_all_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
