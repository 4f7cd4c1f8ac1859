/* Records of MRT (RFC 6396, RFC 8050 for paths with ids), as bytes: the table (TABLE_DUMP_V2) and
 * what peers said (BGP4MP_ET). Files and their times are in monitor.c. */
#pragma once

#include "bgp/speaker.h"

struct mrt_peer {
    uint16_t peer; /* of the engine; 0: our own routes */
    struct ip46 address, local;
    uint32_t as, id;
    bool as4;
    bool addpath[BGP_N_FAMILIES]; /* it sends path ids */
    int64_t up_wall_ns;           /* since when its routes can be here */
};

/* A message that came from p. */
void mrt_message(struct buf *b, const struct mrt_peer *p, uint32_t local_as, int64_t wall_ns,
                 const void *message, size_t n);
void mrt_state_change(struct buf *b, const struct mrt_peer *p, uint32_t local_as, int64_t wall_ns,
                      enum bgp_state old, enum bgp_state state);

/* The whole table, piece by piece. The time of a route is that of its peer's session: the engine
 * keeps none of its own for each. */
struct mrt_dump {
    const struct speaker *speaker;
    struct mrt_peer *peers; /* sorted by id; [0] is for our own routes */
    size_t n_peers;
    int64_t wall_ns;
    enum bgp_family family;
    uint32_t at, sequence;
    struct prefix prefix;       /* of the entries that wait */
    struct buf plain, with_ids; /* entries of one prefix */
    unsigned n_plain, n_with_ids;
};
/* take_peers: from malloc, sorted by id, with [0] for our own routes. Appends the index of peers.
 */
void mrt_dump_begin(struct mrt_dump *d, const struct speaker *s, struct mrt_peer *take_peers,
                    size_t n_peers, uint32_t router_id, int64_t wall_ns, struct buf *b);
/* Appends the records of about max prefixes; false: that was all. */
bool mrt_dump_some(struct mrt_dump *d, unsigned max, struct buf *b);
void mrt_dump_fini(struct mrt_dump *d);
