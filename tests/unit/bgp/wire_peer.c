/* See wire_peer.h. */
#include "wire_peer.h"

#include "hex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct wire_conn *conn_of(struct wire *w, uint32_t id) {
    for (unsigned i = 0; i < w->n_conns; i++) {
        if (w->conn[i].id == id) {
            return &w->conn[i];
        }
    }
    return NULL;
}

static struct wire_conn *add(struct wire *w, uint32_t id) {
    struct wire_conn *c = conn_of(w, id);
    if (!c) {
        assert_true(w->n_conns < WIRE_CONNS);
        c = &w->conn[w->n_conns++];
        *c = (struct wire_conn){.id = id, .out = BUF_INIT((size_t)1 << 30)};
    }
    return c;
}

static void on_connect(void *user, uint32_t conn, uint16_t peer) {
    struct wire_conn *c = add(user, conn);
    c->is_asked = true;
    c->peer = peer;
}

static void on_close(void *user, uint32_t conn, const void *last, size_t n) {
    struct wire_conn *c = add(user, conn);
    buf_add(&c->out, last, n);
    c->is_closed = true;
}

static void on_wake(void *user, uint32_t conn) {
    (void)add(user, conn);
}

static void on_route(void *user, const struct speaker_route *r) {
    struct wire *w = user;
    w->n_routes_told += r->n_hops > 0;
    w->n_routes_gone += r->n_hops == 0;
    w->last_route = *r;
    memcpy(w->last_hops, r->hops, r->n_hops * sizeof(*r->hops));
}

static void on_event(void *user, const struct speaker_event *e) {
    struct wire *w = user;
    w->n_events[e->kind]++;
    if (e->fail) {
        w->last_event_fail = *e->fail;
    }
}

static void on_nexthop(void *user, const struct ip46 *ip, const struct ip46 *link_local,
                       uint16_t peer, bool is_watched) {
    struct wire *w = user;
    (void)ip, (void)link_local, (void)peer;
    w->n_watched += is_watched;
    w->n_unwatched += !is_watched;
}

static const struct speaker_ops OPS = {.connect = on_connect,
                                       .close = on_close,
                                       .wake = on_wake,
                                       .route = on_route,
                                       .event = on_event};
static const struct speaker_ops OPS_HOPS = {.connect = on_connect,
                                            .close = on_close,
                                            .wake = on_wake,
                                            .route = on_route,
                                            .nexthop = on_nexthop,
                                            .event = on_event};

void wire_init_with(struct wire *w, const struct speaker_config *cfg, bool has_next_hops) {
    memset(w, 0, sizeof(*w));
    w->cfg = *cfg;
    w->now = 1000 * S_;
    w->s = speaker_new(cfg, has_next_hops ? &OPS_HOPS : &OPS, w, w->now);
}

void wire_init(struct wire *w) {
    struct speaker_config cfg = {.as = 64512, .router_id = 0x0a0000fe, .max_paths = 8, .seed = 1};
    wire_init_with(w, &cfg, false);
}

void wire_fini(struct wire *w) {
    speaker_free(w->s);
    for (unsigned i = 0; i < w->n_conns; i++) {
        buf_fini(&w->conn[i].out);
    }
}

struct peer_config wire_peer_config(unsigned i, uint32_t as) {
    static char name[4][16];
    static unsigned turn;
    char *text = name[turn++ % 4];
    (void)snprintf(text, sizeof(name[0]), "p%u", i);
    return (struct peer_config){.name = str_c(text),
                                .address = {.family = IP_V4, .b = {10, 0, 0, (uint8_t)i}},
                                .as = as,
                                .is_passive = true,
                                .gr = GR_DISABLED,
                                .role = BGP_ROLE_NONE,
                                .family = {{.is_enabled = true}, {.is_enabled = true}}};
}

uint16_t wire_peer(struct wire *w, const struct peer_config *c) {
    uint16_t id = speaker_peer_set(w->s, c, w->now);
    assert_int_not_equal(id, 0);
    wire_run(w, 0);
    return id;
}

void wire_pull(struct wire *w) {
    for (unsigned i = 0; i < w->n_conns; i++) {
        struct wire_conn *c = &w->conn[i];
        while (!c->is_closed && !c->is_slow) {
            struct str out = speaker_output(w->s, c->id, w->now);
            if (!out.n) {
                break;
            }
            buf_str(&c->out, out);
            speaker_sent(w->s, c->id, out.n, w->now);
        }
    }
}

void wire_run(struct wire *w, int64_t t) {
    int64_t end = w->now + t;
    for (unsigned i = 0; i < 100000; i++) {
        wire_pull(w);
        int64_t at = speaker_deadline(w->s);
        if (at > end) {
            break;
        }
        w->now = at > w->now ? at : w->now;
        speaker_tick(w->s, w->now);
    }
    w->now = end;
    wire_pull(w);
}

static const struct ip46 SELF = {.family = IP_V4, .b = {10, 0, 0, 254}};

struct wire_conn *wire_accept(struct wire *w, unsigned i) {
    struct ip46 from = {.family = IP_V4, .b = {10, 0, 0, (uint8_t)i}};
    uint32_t id = speaker_accept(w->s, &from, &SELF, 0, w->now);
    if (!id) {
        return NULL;
    }
    struct wire_conn *c = add(w, id);
    c->peer = speaker_conn_peer(w->s, id);
    wire_run(w, 0);
    return c;
}

void wire_send(struct wire *w, struct wire_conn *c, const void *p, size_t n) {
    speaker_input(w->s, c->id, p, n, w->now);
    wire_run(w, 0);
}

void wire_hex(struct wire *w, struct wire_conn *c, const char *hex) {
    static uint8_t p[70000];
    wire_send(w, c, p, unhex(hex, p, sizeof(p)));
}

void wire_expect_at(struct wire_conn *c, const char *hex, const char *file, int line) {
    static char got[2 * 70000 + 1];
    (void)snprintf(got, sizeof(got), "%s", tohex(c->out.p, c->out.n));
    if (strcmp(got, squeeze(hex)) != 0) {
        print_error("%s:%d:\n  got  %s\n  want %s\n", file, line, got, squeeze(hex));
        fail();
    }
    buf_reset(&c->out);
}

void wire_expect_end_at(struct wire_conn *c, const char *hex, const char *file, int line) {
    size_t at = 0, last = 0;
    while (at + BGP_HEADER <= c->out.n) {
        last = at;
        at += get_u16((uint8_t *)c->out.p + at + 16);
    }
    static char got[2 * 70000 + 1];
    bool is_notification = c->out.n >= last + BGP_HEADER && c->out.p[last + 18] == BGP_NOTIFICATION;
    (void)snprintf(got, sizeof(got), "%s",
                   is_notification
                       ? tohex(c->out.p + last + BGP_HEADER, c->out.n - last - BGP_HEADER)
                       : "no NOTIFICATION");
    if (strcmp(got, squeeze(hex)) != 0 || !c->is_closed) {
        print_error("%s:%d: got %s, want %s%s\n", file, line, got, squeeze(hex),
                    c->is_closed ? "" : ", and it is open still");
        fail();
    }
    buf_reset(&c->out);
}

void wire_forget(struct wire_conn *c) {
    buf_reset(&c->out);
}

struct bgp_open wire_open(unsigned i, uint32_t as) {
    return (struct bgp_open){.as = as,
                             .hold_s = 90,
                             .id = 0x0a000000U + i,
                             .caps = {.has_mp = true,
                                      .mp = {true, true},
                                      .has_refresh = true,
                                      .has_as4 = true,
                                      .as4 = as,
                                      .role = BGP_ROLE_NONE}};
}

void wire_send_open(struct wire *w, struct wire_conn *c, const struct bgp_open *o) {
    struct buf b = BUF_INIT(BGP_MAX);
    bgp_open_write(&b, o);
    wire_send(w, c, b.p, b.n);
    buf_fini(&b);
}

struct wire_conn *wire_up_with(struct wire *w, const struct peer_config *cfg,
                               const struct bgp_open *o) {
    uint16_t id = wire_peer(w, cfg);
    struct wire_conn *c = wire_accept(w, cfg->address.b[3]);
    assert_non_null(c);
    wire_send_open(w, c, o);
    wire_hex(w, c, MARK "0013 04");
    assert_int_equal(wire_state(w, id), BGP_ESTABLISHED);
    wire_forget(c);
    return c;
}

struct wire_conn *wire_up(struct wire *w, unsigned i, uint32_t as) {
    struct peer_config c = wire_peer_config(i, as);
    struct bgp_open o = wire_open(i, as);
    return wire_up_with(w, &c, &o);
}

enum bgp_state wire_state(struct wire *w, uint16_t peer) {
    struct peer_status st;
    assert_true(speaker_peer_status(w->s, peer, &st));
    return st.state;
}
