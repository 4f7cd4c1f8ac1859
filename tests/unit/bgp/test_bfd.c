/* BFD from the wire: every check on packets, the state machine's table, timers with their jitter,
 * poll sequences, and two engines that talk over a lossy line. */
#include "bgp/bfd.h"

#include "hex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MS 1000000LL
#define S (1000 * MS)

/* ---- packets ---- */

static void t_packet__each_check(void **state) {
    (void)state;
    static const struct {
        const char *hex;
        bool is_fine;
    } cases[] = {
        {"20 40 03 18 00000001 00000000 000f4240 000f4240 00000000", true},
        {"20 c0 03 18 00000001 00000002 000f4240 000f4240 00000000", true},
        {"00 40 03 18 00000001 00000000 000f4240 000f4240 00000000", false}, /* version 0 */
        {"40 40 03 18 00000001 00000000 000f4240 000f4240 00000000", false}, /* version 2 */
        {"20 40 03 17 00000001 00000000 000f4240 000f4240 00000000", false}, /* short length */
        {"20 40 03 19 00000001 00000000 000f4240 000f4240 00000000", false}, /* lies */
        {"20 40 03 18 00000001 00000000 000f4240 000f4240 000000", false},   /* cut */
        {"20 44 03 18 00000001 00000000 000f4240 000f4240 00000000", false}, /* auth, no room */
        {"20 44 03 1a 00000001 00000000 000f4240 000f4240 00000000 0102", true},
        {"20 40 00 18 00000001 00000000 000f4240 000f4240 00000000", false}, /* multiplier 0 */
        {"20 41 03 18 00000001 00000000 000f4240 000f4240 00000000", false}, /* multipoint */
        {"20 40 03 18 00000000 00000000 000f4240 000f4240 00000000", false}, /* my id 0 */
        {"20 80 03 18 00000001 00000000 000f4240 000f4240 00000000", false}, /* Init, your id 0 */
        {"20 c0 03 18 00000001 00000000 000f4240 000f4240 00000000", false}, /* Up, your id 0 */
        {"20 00 03 18 00000001 00000000 000f4240 000f4240 00000000", true},  /* AdminDown may */
        {"20 40 03 18 00000001 00000000 000f4240 000f4240 00000000 ffff", true}, /* padding */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t p[64], back[BFD_PACKET];
        size_t n = unhex(cases[i].hex, p, sizeof(p));
        struct bfd_packet k = {0};
        assert_int_equal(bfd_parse(p, n, &k) == 0, cases[i].is_fine);
        if (cases[i].is_fine && n == BFD_PACKET) {
            bfd_write(&k, back);
            assert_memory_equal(back, p, BFD_PACKET);
        }
    }
}

/* ---- a line between two engines, or an engine and a script ---- */

struct end {
    struct bfd *b;
    struct bfd_session *s;
    uint8_t last[BFD_PACKET];
    int64_t last_ns, gap_min_ns, gap_max_ns;
    unsigned n_sent, n_events, n_failures, n_polls, n_finals;
    struct end *other; /* NULL: what is sent is only looked at */
    bool is_cut, del_on_down;
};
static int64_t now;

static struct ip46 ip(const char *s) {
    struct ip46 out;
    assert_int_equal(ip_parse(str_c(s), &out), 0);
    return out;
}

static struct bfd_meta meta(void) {
    return (struct bfd_meta){.from = ip("192.0.2.2"), .to = ip("192.0.2.1"), .ttl = 255};
}

static void on_send(void *arg, struct bfd_session *s, const uint8_t p[BFD_PACKET]) {
    struct end *e = arg;
    (void)s;
    memcpy(e->last, p, BFD_PACKET);
    if (e->n_sent++ && !(p[1] & 0x10)) {
        int64_t gap = now - e->last_ns;
        e->gap_min_ns = gap < e->gap_min_ns ? gap : e->gap_min_ns;
        e->gap_max_ns = gap > e->gap_max_ns ? gap : e->gap_max_ns;
    }
    e->last_ns = now;
    e->n_polls += (p[1] & 0x20) != 0;
    e->n_finals += (p[1] & 0x10) != 0;
    assert_false((p[1] & 0x20) && (p[1] & 0x10));
    if (e->other && !e->is_cut) {
        struct bfd_meta m = meta();
        bfd_input(e->other->b, p, BFD_PACKET, &m, now);
    }
}

static void on_state(void *arg, struct bfd_session *s, bool is_failure) {
    struct end *e = arg;
    struct bfd_status st;
    bfd_status_get(s, &st);
    e->n_events++;
    e->n_failures += is_failure;
    if (e->del_on_down && st.state == BFD_DOWN) {
        e->s = NULL;
        bfd_del(e->b, s, now);
    }
}

static const struct bfd_ops ops = {on_send, on_state};

static void end_init(struct end *e, uint32_t tx_us, uint32_t rx_us, uint8_t multiplier,
                     uint64_t seed) {
    struct bfd_config c = {
        .peer = ip("192.0.2.2"), .min_tx_us = tx_us, .min_rx_us = rx_us, .multiplier = multiplier};
    e->gap_min_ns = INT64_MAX;
    e->b = bfd_new(&ops, e, seed);
    e->s = bfd_add(e->b, &c, e, now);
    assert_non_null(e->s);
}

static void run_until(struct end *a, struct end *b, int64_t until_ns) {
    for (;;) {
        int64_t next = bfd_next_ns(a->b);
        if (b && bfd_next_ns(b->b) < next) {
            next = bfd_next_ns(b->b);
        }
        if (next > until_ns) {
            now = until_ns;
            return;
        }
        now = next > now ? next : now;
        bfd_tick(a->b, now);
        if (b) {
            bfd_tick(b->b, now);
        }
    }
}

static enum bfd_state state_of(const struct end *e) {
    struct bfd_status st;
    bfd_status_get(e->s, &st);
    return st.state;
}

/* A packet of the scripted peer: state, flags, intervals. */
static void say_with(struct end *e, enum bfd_state st, unsigned flags, uint32_t tx_us,
                     uint32_t rx_us) {
    struct bfd_status mine;
    bfd_status_get(e->s, &mine);
    struct bfd_packet k = {.state = (uint8_t)st,
                           .multiplier = 3,
                           .my_id = 7,
                           .your_id = mine.id,
                           .min_tx_us = tx_us,
                           .min_rx_us = rx_us,
                           .is_poll = flags & 0x20,
                           .is_final = flags & 0x10};
    uint8_t p[BFD_PACKET];
    struct bfd_meta m = meta();
    bfd_write(&k, p);
    bfd_input(e->b, p, sizeof(p), &m, now);
}

static void say(struct end *e, enum bfd_state st) {
    say_with(e, st, 0, 300000, 300000);
}

static void t_machine__each_state_and_packet(void **state) {
    (void)state;
    /* RFC 5880 section 6.8.6: rows our state, columns what is received. */
    static const enum bfd_state want[4][4] = {
        /*                AdminDown  Down      Init      Up */
        [BFD_DOWN] = {BFD_DOWN, BFD_INIT, BFD_UP, BFD_DOWN},
        [BFD_INIT] = {BFD_DOWN, BFD_INIT, BFD_UP, BFD_UP},
        [BFD_UP] = {BFD_DOWN, BFD_DOWN, BFD_UP, BFD_UP},
    };
    for (int from = BFD_DOWN; from <= BFD_UP; from++) {
        for (int got = BFD_ADMIN_DOWN; got <= BFD_UP; got++) {
            struct end e = {0};
            now = S;
            end_init(&e, 300000, 300000, 3, 1);
            if (from >= BFD_INIT) {
                say(&e, BFD_DOWN);
            }
            if (from == BFD_UP) {
                say(&e, BFD_INIT);
            }
            assert_int_equal(state_of(&e), from);
            e.n_failures = 0;
            say(&e, (enum bfd_state)got);
            assert_int_equal(state_of(&e), want[from][got]);
            /* An operator's AdminDown is no failure (RFC 5882). */
            assert_int_equal(e.n_failures, from == BFD_UP && got == BFD_DOWN);
            if (want[from][got] == BFD_DOWN && from != BFD_DOWN) {
                struct bfd_status st;
                bfd_status_get(e.s, &st);
                assert_int_equal(st.diag, BFD_DIAG_NEIGHBOUR_DOWN);
            }
            bfd_free(e.b);
        }
    }
}

static void t_input__ttl_and_addresses__refused(void **state) {
    (void)state;
    struct end e = {0};
    now = S;
    end_init(&e, 300000, 300000, 3, 1);
    uint8_t p[BFD_PACKET];
    (void)unhex("20 40 03 18 00000001 00000000 000f4240 000f4240 00000000", p, sizeof(p));
    struct bfd_meta m = meta();
    for (int ttl = -1; ttl < 255; ttl++) {
        m.ttl = ttl;
        bfd_input(e.b, p, sizeof(p), &m, now);
    }
    m = meta();
    m.from = ip("192.0.2.3");
    bfd_input(e.b, p, sizeof(p), &m, now);
    m = meta();
    m.is_multihop = true;
    bfd_input(e.b, p, sizeof(p), &m, now);
    p[11] = 1; /* somebody else's discriminator */
    m = meta();
    bfd_input(e.b, p, sizeof(p), &m, now);
    assert_int_equal(e.n_events, 0);
    assert_int_equal(bfd_dropped(e.b), 256 + 3);
    bfd_free(e.b);
}

static void t_multihop__any_ttl(void **state) {
    (void)state;
    struct end e = {0};
    now = S;
    struct bfd_config c = {.peer = ip("192.0.2.2"),
                           .is_multihop = true,
                           .min_tx_us = 50000,
                           .min_rx_us = 50000,
                           .multiplier = 3};
    e.b = bfd_new(&ops, &e, 1);
    e.s = bfd_add(e.b, &c, NULL, now);
    uint8_t p[BFD_PACKET];
    (void)unhex("20 40 03 18 00000001 00000000 000f4240 000f4240 00000000", p, sizeof(p));
    struct bfd_meta m = meta();
    m.is_multihop = true;
    m.ttl = 3;
    bfd_input(e.b, p, sizeof(p), &m, now);
    assert_int_equal(state_of(&e), BFD_INIT);
    bfd_free(e.b);
}

static void t_slow__until_up__then_fast_with_jitter(void **state) {
    (void)state;
    struct end e = {0};
    now = S;
    end_init(&e, 50000, 50000, 3, 42);
    run_until(&e, NULL, 60 * S);
    assert_true(e.gap_min_ns >= 750 * MS && e.gap_max_ns <= 1000 * MS);
    assert_true(e.gap_max_ns - e.gap_min_ns > 150 * MS); /* it does jitter */
    say_with(&e, BFD_DOWN, 0, 50000, 50000);
    say_with(&e, BFD_INIT, 0, 50000, 50000);
    assert_int_equal(state_of(&e), BFD_UP);
    assert_int_equal(e.last[1] & 0xc0, 0x40); /* still the packet of before: not out of turn */
    int64_t t0 = now;
    unsigned before = e.n_sent;
    for (int i = 0; i < 20; i++) {
        run_until(&e, NULL, t0 + i * 50 * MS);
        say_with(&e, BFD_UP, i == 0 ? 0x10 : 0, 50000, 50000);
    }
    assert_in_range(e.n_sent - before, 18, 28);
    bfd_free(e.b);
}

static void t_multiplier_1__jitter_stays_below_90_percent(void **state) {
    (void)state;
    struct end e = {0};
    now = S;
    end_init(&e, 2000000, 50000, 1, 7);
    run_until(&e, NULL, 300 * S);
    assert_true(e.gap_min_ns >= 1500 * MS && e.gap_max_ns <= 1800 * MS);
    bfd_free(e.b);
}

static void t_silence__is_noticed_in_time(void **state) {
    (void)state;
    struct end e = {0};
    now = S;
    end_init(&e, 100000, 200000, 5, 1);
    say_with(&e, BFD_DOWN, 0, 300000, 100000);
    say_with(&e, BFD_INIT, 0, 300000, 100000);
    int64_t t0 = now;
    /* The peer's multiplier (3) times the larger of our 200 ms and its 300 ms. */
    run_until(&e, NULL, t0 + 899 * MS);
    assert_int_equal(state_of(&e), BFD_UP);
    run_until(&e, NULL, t0 + 901 * MS);
    assert_int_equal(state_of(&e), BFD_DOWN);
    struct bfd_status st;
    bfd_status_get(e.s, &st);
    assert_int_equal(st.diag, BFD_DIAG_EXPIRED);
    assert_int_equal(st.remote_id, 0);
    assert_int_equal(e.n_failures, 1);
    assert_int_equal(e.last[0] & 0x1f, BFD_DIAG_EXPIRED);
    bfd_free(e.b);
}

static void t_poll__is_answered_at_once(void **state) {
    (void)state;
    struct end e = {0};
    now = S;
    end_init(&e, 100000, 100000, 3, 1);
    say(&e, BFD_DOWN);
    unsigned before = e.n_sent;
    say_with(&e, BFD_DOWN, 0x20, 300000, 300000);
    assert_int_equal(e.n_sent, before + 1);
    assert_int_equal(e.last[1] & 0x30, 0x10);
    bfd_free(e.b);
}

static void t_change__by_poll__old_rate_until_final(void **state) {
    (void)state;
    struct end e = {0};
    now = S;
    end_init(&e, 100000, 100000, 3, 1);
    say_with(&e, BFD_DOWN, 0, 100000, 1000);
    say_with(&e, BFD_INIT, 0, 100000, 1000);
    say_with(&e, BFD_UP, 0x10, 100000, 1000);
    struct bfd_status st;
    bfd_status_get(e.s, &st);
    assert_int_equal(st.tx_us, 100000);
    struct bfd_config c = *bfd_config_of(e.s);
    c.min_tx_us = 500000; /* slower out: only once the peer knows */
    c.min_rx_us = 20000;  /* faster in: likewise */
    bfd_change(e.b, e.s, &c, now);
    assert_int_equal(e.last[1] & 0x20, 0x20);
    bfd_status_get(e.s, &st);
    assert_int_equal(st.tx_us, 100000);
    assert_int_equal(st.detection_us, 300000);
    say_with(&e, BFD_UP, 0x10, 20000, 1000);
    bfd_status_get(e.s, &st);
    assert_int_equal(st.tx_us, 500000);
    assert_int_equal(st.detection_us, 60000);
    bfd_free(e.b);
}

static void t_min_rx_0__no_packets(void **state) {
    (void)state;
    struct end e = {0};
    now = S;
    end_init(&e, 100000, 100000, 3, 1);
    bfd_tick(e.b, now);
    say_with(&e, BFD_DOWN, 0, 60000000, 0);
    unsigned before = e.n_sent;
    run_until(&e, NULL, now + 20 * S);
    assert_int_equal(e.n_sent, before);
    bfd_free(e.b);
}

static void t_two_engines__up_down_up__seeds(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct end a = {0}, b = {0};
        now = S;
        a.other = &b;
        b.other = &a;
        end_init(&a, 50000, 50000, 3, seed);
        end_init(&b, 100000, 20000, 5, seed + 1000);
        run_until(&a, &b, now + 5 * S);
        assert_int_equal(state_of(&a), BFD_UP);
        assert_int_equal(state_of(&b), BFD_UP);
        assert_true(a.n_polls && b.n_polls && a.n_finals && b.n_finals);
        struct bfd_status st;
        bfd_status_get(a.s, &st);
        assert_int_equal(st.detection_us, 500000);
        assert_int_equal(st.tx_us, 50000);
        unsigned polls = a.n_polls;
        run_until(&a, &b, now + 60 * S);
        assert_int_equal(a.n_failures + b.n_failures, 0);
        assert_int_equal(a.n_polls, polls); /* the sequence has ended */
        /* One direction is lost: both learn of it. */
        a.is_cut = true;
        run_until(&a, &b, now + S);
        assert_int_equal(a.n_failures, 1);
        assert_int_equal(b.n_failures, 1);
        a.is_cut = false;
        run_until(&a, &b, now + 5 * S);
        assert_int_equal(state_of(&a), BFD_UP);
        assert_int_equal(state_of(&b), BFD_UP);
        /* Taken away: the other end falls, and that is no failure. */
        bfd_del(b.b, b.s, now);
        assert_int_equal(state_of(&a), BFD_DOWN);
        assert_int_equal(a.n_failures, 1);
        bfd_free(a.b);
        bfd_free(b.b);
    }
}

static void t_callback__may_delete_its_session(void **state) {
    (void)state;
    struct end e = {.del_on_down = true};
    now = S;
    end_init(&e, 100000, 100000, 3, 1);
    say(&e, BFD_DOWN);
    say(&e, BFD_INIT);
    run_until(&e, NULL, now + 10 * S);
    assert_null(e.s);
    assert_int_equal(bfd_next_ns(e.b), INT64_MAX);
    assert_int_equal(e.last[1] >> 6, BFD_ADMIN_DOWN);
    bfd_free(e.b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_packet__each_check),
        cmocka_unit_test(t_machine__each_state_and_packet),
        cmocka_unit_test(t_input__ttl_and_addresses__refused),
        cmocka_unit_test(t_multihop__any_ttl),
        cmocka_unit_test(t_slow__until_up__then_fast_with_jitter),
        cmocka_unit_test(t_multiplier_1__jitter_stays_below_90_percent),
        cmocka_unit_test(t_silence__is_noticed_in_time),
        cmocka_unit_test(t_poll__is_answered_at_once),
        cmocka_unit_test(t_change__by_poll__old_rate_until_final),
        cmocka_unit_test(t_min_rx_0__no_packets),
        cmocka_unit_test(t_two_engines__up_down_up__seeds),
        cmocka_unit_test(t_callback__may_delete_its_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
