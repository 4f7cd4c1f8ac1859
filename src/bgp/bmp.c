/* BMP's messages. See bmp.h. */
#include "bgp/bmp.h"

enum { BMP_VERSION = 3, BMP_HEADER = 6 };
enum { PEER_F_V6 = 0x80, PEER_F_AS2 = 0x20 };
enum { INFO_DESCRIPTION = 1, INFO_NAME = 2, INFO_REASON = 1 };
enum { DOWN_LOCAL_NOTIFICATION = 1, DOWN_REMOTE_NOTIFICATION = 3, DOWN_REMOTE = 4 };
enum {
    STAT_REJECTED = 0,
    STAT_ADJ_RIB_IN = 7,
    STAT_LOC_RIB = 8,
    STAT_FAMILY_ADJ_RIB_IN = 9,
    STAT_AS_WITHDRAW = 11,
};

static size_t begin(struct buf *b, enum bmp_type type) {
    size_t at = b->n;
    wr_u8(b, BMP_VERSION);
    wr_u32(b, 0); /* the length, when it is known */
    wr_u8(b, type);
    return at;
}

static void end(struct buf *b, size_t at) {
    if (!b->overflow) {
        set_u32((uint8_t *)b->p + at + 1, (uint32_t)(b->n - at));
    }
}

/* IPv4 addresses stand in the last four of 16 bytes. */
static void put_address(struct buf *b, const struct ip46 *ip) {
    static const uint8_t ZERO[12] = {0};
    if (ip->family == IP_V6) {
        buf_add(b, ip->b, 16);
    } else {
        buf_add(b, ZERO, sizeof(ZERO));
        buf_add(b, ip->b, 4);
    }
}

static void put_peer(struct buf *b, const struct bmp_peer *p) {
    wr_u8(b, 0); /* a global instance peer */
    wr_u8(b, (p->address.family == IP_V6 ? PEER_F_V6 : 0U) | (p->as4 ? 0U : PEER_F_AS2));
    wr_u32(b, 0); /* distinguisher */
    wr_u32(b, 0);
    put_address(b, &p->address);
    wr_u32(b, p->as);
    wr_u32(b, p->id);
    wr_u32(b, (uint32_t)(p->wall_ns / 1000000000));
    wr_u32(b, (uint32_t)(p->wall_ns / 1000 % 1000000));
}

static void put_text(struct buf *b, unsigned type, struct str s) {
    wr_u16(b, type);
    wr_u16(b, (unsigned)s.n);
    buf_str(b, s);
}

void bmp_initiation(struct buf *b, struct str name, struct str description) {
    size_t at = begin(b, BMP_INITIATION);
    put_text(b, INFO_DESCRIPTION, description);
    put_text(b, INFO_NAME, name);
    end(b, at);
}

void bmp_termination(struct buf *b, unsigned reason) {
    size_t at = begin(b, BMP_TERMINATION);
    wr_u16(b, INFO_REASON);
    wr_u16(b, 2);
    wr_u16(b, reason);
    end(b, at);
}

void bmp_peer_up(struct buf *b, const struct bmp_peer *p, const struct ip46 *local, uint16_t port,
                 uint16_t remote_port, struct str sent, struct str received) {
    size_t at = begin(b, BMP_PEER_UP);
    put_peer(b, p);
    put_address(b, local);
    wr_u16(b, port);
    wr_u16(b, remote_port);
    buf_str(b, sent);
    buf_str(b, received);
    end(b, at);
}

void bmp_peer_down(struct buf *b, const struct bmp_peer *p, const struct bgp_fail *f,
                   bool is_sent) {
    size_t at = begin(b, BMP_PEER_DOWN);
    put_peer(b, p);
    if (f) {
        wr_u8(b, is_sent ? DOWN_LOCAL_NOTIFICATION : DOWN_REMOTE_NOTIFICATION);
        bgp_notification_write(b, f);
    } else {
        wr_u8(b, DOWN_REMOTE);
    }
    end(b, at);
}

void bmp_route(struct buf *b, const struct bmp_peer *p, const void *update, size_t n) {
    size_t at = begin(b, BMP_ROUTE_MONITORING);
    put_peer(b, p);
    buf_add(b, update, n);
    end(b, at);
}

static void put_stat(struct buf *b, unsigned type, uint64_t v, bool is_gauge) {
    wr_u16(b, type);
    wr_u16(b, is_gauge ? 8 : 4);
    if (is_gauge) {
        wr_u32(b, (uint32_t)(v >> 32));
    }
    wr_u32(b, (uint32_t)v);
}

void bmp_statistics(struct buf *b, const struct bmp_peer *p, const struct bmp_counts *c) {
    size_t at = begin(b, BMP_STATISTICS);
    put_peer(b, p);
    wr_u32(b, 4 + BGP_N_FAMILIES);
    put_stat(b, STAT_REJECTED, c->n_rejected, false);
    put_stat(b, STAT_ADJ_RIB_IN, c->n_received[BGP_V4] + c->n_received[BGP_V6], true);
    put_stat(b, STAT_LOC_RIB, c->n_best, true);
    put_stat(b, STAT_AS_WITHDRAW, c->n_update_errors, false);
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        wr_u16(b, STAT_FAMILY_ADJ_RIB_IN);
        wr_u16(b, 11);
        wr_u16(b, bgp_afi((enum bgp_family)f));
        wr_u8(b, BGP_SAFI_UNICAST);
        wr_u32(b, (uint32_t)(c->n_received[f] >> 32));
        wr_u32(b, (uint32_t)c->n_received[f]);
    }
    end(b, at);
}
