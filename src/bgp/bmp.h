/* Messages of the BGP Monitoring Protocol (RFC 7854) to a station, as bytes. When they are sent is
 * in monitor.c. */
#pragma once

#include "bgp/msg.h"

enum bmp_type {
    BMP_ROUTE_MONITORING = 0,
    BMP_STATISTICS = 1,
    BMP_PEER_DOWN = 2,
    BMP_PEER_UP = 3,
    BMP_INITIATION = 4,
    BMP_TERMINATION = 5,
};
enum { BMP_TERMINATION_CLOSED = 0, BMP_TERMINATION_UNSPECIFIED = 1, BMP_TERMINATION_RESOURCES = 2 };

/* The per-peer header (section 4.2). */
struct bmp_peer {
    struct ip46 address;
    uint32_t as, id;
    bool as4;        /* paths on the session have four octets */
    int64_t wall_ns; /* of what is told */
};

/* Counters of a peer (section 4.8). */
struct bmp_counts {
    uint32_t n_rejected;                 /* routes that policy and loops keep out now: type 0 */
    uint32_t n_update_errors;            /* UPDATEs treated as withdrawals: type 11 */
    uint64_t n_received[BGP_N_FAMILIES]; /* in the Adj-RIB-In: types 7 and 9 */
    uint64_t n_best;                     /* of them in the Loc-RIB: type 8 */
};

/* Each appends one whole message. */
void bmp_initiation(struct buf *b, struct str name, struct str description);
void bmp_termination(struct buf *b, unsigned reason);
/* sent, received: whole OPEN messages. */
void bmp_peer_up(struct buf *b, const struct bmp_peer *p, const struct ip46 *local, uint16_t port,
                 uint16_t remote_port, struct str sent, struct str received);
/* f: the NOTIFICATION that ended the session, is_sent by us; NULL: the connection was lost. */
void bmp_peer_down(struct buf *b, const struct bmp_peer *p, const struct bgp_fail *f, bool is_sent);
/* update: a whole UPDATE message, before policy. */
void bmp_route(struct buf *b, const struct bmp_peer *p, const void *update, size_t n);
void bmp_statistics(struct buf *b, const struct bmp_peer *p, const struct bmp_counts *c);
