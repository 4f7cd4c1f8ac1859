/* A scripted peer: bytes into one engine, bytes out of it, and a clock to turn. Everything that the
 * engine wants to send is taken at once, unless told otherwise. */
#pragma once

#include "bgp/speaker.h"

#define S_ 1000000000LL
#define MARK "ffffffffffffffffffffffffffffffff "

enum { WIRE_PEERS = 64, WIRE_CONNS = 64 };

struct wire_conn {
    uint32_t id;
    struct buf out;           /* not yet looked at */
    bool is_closed, is_asked; /* asked: by ops.connect, not yet there */
    bool is_slow;             /* nothing is taken from it */
    uint16_t peer;
};

struct wire {
    struct speaker *s;
    struct speaker_config cfg;
    int64_t now;
    struct wire_conn conn[WIRE_CONNS];
    unsigned n_conns;
    unsigned n_events[EVENT_READY + 1];
    struct bgp_fail last_event_fail;
    unsigned n_routes_told, n_routes_gone;
    struct speaker_route last_route;
    struct route_hop last_hops[64];
    unsigned n_watched, n_unwatched;
};

/* AS 64512, id 10.0.0.254, address of the engine 10.0.0.254. */
void wire_init(struct wire *w);
void wire_init_with(struct wire *w, const struct speaker_config *cfg, bool has_next_hops);
void wire_fini(struct wire *w);
/* Peer i at 10.0.0.i, AS as; passive, both families, nothing special. */
struct peer_config wire_peer_config(unsigned i, uint32_t as);
uint16_t wire_peer(struct wire *w, const struct peer_config *c);
/* The peer at 10.0.0.i connects; NULL: refused. */
struct wire_conn *wire_accept(struct wire *w, unsigned i);
void wire_send(struct wire *w, struct wire_conn *c, const void *p, size_t n);
void wire_hex(struct wire *w, struct wire_conn *c, const char *hex);
/* What came since the last look is exactly this. */
#define wire_expect(c, hex) wire_expect_at((c), (hex), __FILE__, __LINE__)
void wire_expect_at(struct wire_conn *c, const char *hex, const char *file, int line);
/* … ends with a NOTIFICATION of this code, subcode and data, and the connection is closed. */
#define wire_expect_end(c, hex) wire_expect_end_at((c), (hex), __FILE__, __LINE__)
void wire_expect_end_at(struct wire_conn *c, const char *hex, const char *file, int line);
void wire_forget(struct wire_conn *c); /* what came is not looked at */
/* Time passes, timers run. */
void wire_run(struct wire *w, int64_t t);
void wire_pull(struct wire *w);
/* OPEN with the capabilities of a usual speaker, changed by the caller. */
struct bgp_open wire_open(unsigned i, uint32_t as);
void wire_send_open(struct wire *w, struct wire_conn *c, const struct bgp_open *o);
/* Peer i, AS as, from accept to Established; output forgotten. */
struct wire_conn *wire_up(struct wire *w, unsigned i, uint32_t as);
struct wire_conn *wire_up_with(struct wire *w, const struct peer_config *c,
                               const struct bgp_open *o);
enum bgp_state wire_state(struct wire *w, uint16_t peer);
