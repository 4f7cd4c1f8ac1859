/* MRT's records. See mrt.h. */
#include "bgp/mrt.h"

#include "bgp/update.h"

#include <stdlib.h>

enum { TYPE_TABLE_DUMP_V2 = 13, TYPE_BGP4MP_ET = 17 };
enum {
    PEER_INDEX_TABLE = 1,
    RIB_IPV4_UNICAST = 2,
    RIB_IPV6_UNICAST = 4,
    RIB_IPV4_UNICAST_ADDPATH = 8,
    RIB_IPV6_UNICAST_ADDPATH = 10,
};
enum {
    BGP4MP_MESSAGE = 1,
    BGP4MP_MESSAGE_AS4 = 4,
    BGP4MP_STATE_CHANGE_AS4 = 5,
    BGP4MP_MESSAGE_ADDPATH = 8,
    BGP4MP_MESSAGE_AS4_ADDPATH = 9,
};
enum { MRT_HEADER = 12, PEER_V6 = 1, PEER_AS4 = 2, ENTRIES_MAX = 65535, ENTRIES_BYTES = 1 << 24 };

/* ---- records ---- */

static size_t begin(struct buf *b, int64_t wall_ns, unsigned type, unsigned subtype) {
    size_t at = b->n;
    wr_u32(b, (uint32_t)(wall_ns / 1000000000));
    wr_u16(b, type);
    wr_u16(b, subtype);
    wr_u32(b, 0); /* the length, when it is known */
    if (type == TYPE_BGP4MP_ET) {
        wr_u32(b, (uint32_t)(wall_ns / 1000 % 1000000)); /* counted in the length */
    }
    return at;
}

static void end(struct buf *b, size_t at) {
    if (!b->overflow) {
        set_u32((uint8_t *)b->p + at + 8, (uint32_t)(b->n - at - MRT_HEADER));
    }
}

static void put_address(struct buf *b, const struct ip46 *ip, bool is_v6) {
    static const struct ip46 NONE = {0};
    buf_add(b, ip->family == IP_NONE ? NONE.b : ip->b, is_v6 ? 16 : 4);
}

/* Whom a message is between. */
static void put_pair(struct buf *b, const struct mrt_peer *p, uint32_t local_as, bool as4) {
    bool is_v6 = p->address.family == IP_V6;
    if (as4) {
        wr_u32(b, p->as);
        wr_u32(b, local_as);
    } else {
        wr_u16(b, p->as > 0xffff ? BGP_AS_TRANS : p->as);
        wr_u16(b, local_as > 0xffff ? BGP_AS_TRANS : local_as);
    }
    wr_u16(b, 0); /* interface */
    wr_u16(b, is_v6 ? BGP_AFI_V6 : BGP_AFI_V4);
    put_address(b, &p->address, is_v6);
    put_address(b, &p->local, is_v6);
}

void mrt_message(struct buf *b, const struct mrt_peer *p, uint32_t local_as, int64_t wall_ns,
                 const void *message, size_t n) {
    bool has_ids = p->addpath[BGP_V4] || p->addpath[BGP_V6];
    unsigned subtype = has_ids ? (p->as4 ? BGP4MP_MESSAGE_AS4_ADDPATH : BGP4MP_MESSAGE_ADDPATH)
                               : (p->as4 ? BGP4MP_MESSAGE_AS4 : BGP4MP_MESSAGE);
    size_t at = begin(b, wall_ns, TYPE_BGP4MP_ET, subtype);
    put_pair(b, p, local_as, p->as4);
    buf_add(b, message, n);
    end(b, at);
}

void mrt_state_change(struct buf *b, const struct mrt_peer *p, uint32_t local_as, int64_t wall_ns,
                      enum bgp_state old, enum bgp_state state) {
    size_t at = begin(b, wall_ns, TYPE_BGP4MP_ET, BGP4MP_STATE_CHANGE_AS4);
    put_pair(b, p, local_as, true);
    wr_u16(b, old + 1U); /* 1 is Idle */
    wr_u16(b, state + 1U);
    end(b, at);
}

/* ---- the table ---- */

void mrt_dump_begin(struct mrt_dump *d, const struct speaker *s, struct mrt_peer *take_peers,
                    size_t n_peers, uint32_t router_id, int64_t wall_ns, struct buf *b) {
    *d = (struct mrt_dump){.speaker = s,
                           .peers = take_peers,
                           .n_peers = n_peers < ENTRIES_MAX ? n_peers : ENTRIES_MAX,
                           .wall_ns = wall_ns,
                           .plain = BUF_INIT(ENTRIES_BYTES),
                           .with_ids = BUF_INIT(ENTRIES_BYTES)};
    size_t at = begin(b, wall_ns, TYPE_TABLE_DUMP_V2, PEER_INDEX_TABLE);
    wr_u32(b, router_id);
    wr_u16(b, 0); /* no name of a view */
    wr_u16(b, (unsigned)d->n_peers);
    for (size_t i = 0; i < d->n_peers; i++) {
        const struct mrt_peer *p = &d->peers[i];
        bool is_v6 = p->address.family == IP_V6;
        wr_u8(b, PEER_AS4 | (is_v6 ? PEER_V6 : 0U));
        wr_u32(b, p->id);
        put_address(b, &p->address, is_v6);
        wr_u32(b, p->as);
    }
    end(b, at);
}

static int compare_peer(const void *key, const void *member) {
    uint16_t a = *(const uint16_t *)key, b = ((const struct mrt_peer *)member)->peer;
    return a < b ? -1 : a > b;
}

/* RFC 6396 section 4.3.4: of MP_REACH_NLRI the next hop alone. */
static void put_attrs(struct buf *b, enum bgp_family f, const struct attr_src *a) {
    size_t at = b->n;
    struct attr_src full = *a;
    bool is_classic = f == BGP_V4 && a->next_hop.family != IP_V6;
    struct attr_enc enc = {.as4 = true, .with_next_hop = is_classic};
    full.part[PART_LOCAL] = STR_NULL;
    wr_u16(b, 0);
    attr_encode(b, &full, &enc);
    if (!is_classic) {
        bool has_both = a->link_local.family != IP_NONE;
        wr_u8(b, ATTR_F_OPTIONAL);
        wr_u8(b, ATTR_MP_REACH);
        wr_u8(b, has_both ? 33 : 17);
        wr_u8(b, has_both ? 32 : 16);
        put_address(b, &a->next_hop, true);
        if (has_both) {
            put_address(b, &a->link_local, true);
        }
    }
    if (!b->overflow) {
        set_u16((uint8_t *)b->p + at, (unsigned)(b->n - at - 2));
    }
}

static void put_rib(struct mrt_dump *d, struct buf *b, unsigned subtype, const struct buf *entries,
                    unsigned n) {
    if (n == 0) {
        return;
    }
    struct nlri x = {.len = d->prefix.len};
    memcpy(x.addr, d->prefix.ip.b, sizeof(x.addr));
    size_t at = begin(b, d->wall_ns, TYPE_TABLE_DUMP_V2, subtype);
    wr_u32(b, d->sequence++);
    nlri_write(b, &x, false);
    wr_u16(b, n);
    buf_add(b, entries->p, entries->n);
    end(b, at);
}

/* The prefix is complete: its records. */
static void flush(struct mrt_dump *d, struct buf *b) {
    bool is_v4 = d->family == BGP_V4;
    put_rib(d, b, is_v4 ? RIB_IPV4_UNICAST : RIB_IPV6_UNICAST, &d->plain, d->n_plain);
    put_rib(d, b, is_v4 ? RIB_IPV4_UNICAST_ADDPATH : RIB_IPV6_UNICAST_ADDPATH, &d->with_ids,
            d->n_with_ids);
    buf_reset(&d->plain);
    buf_reset(&d->with_ids);
    d->n_plain = d->n_with_ids = 0;
}

struct piece {
    struct mrt_dump *d;
    struct buf *b;
};

static void on_route(void *user, const struct route_view *v) {
    struct piece *x = user;
    struct mrt_dump *d = x->d;
    const struct mrt_peer *p =
        bsearch(&v->peer, d->peers, d->n_peers, sizeof(*d->peers), compare_peer);
    if (v->is_rejected || !p) {
        return; /* a session that is younger than the index: a later dump has it */
    }
    if (!prefix_eq(&d->prefix, &v->prefix)) {
        flush(d, x->b);
        d->prefix = v->prefix;
    }
    bool has_ids = p->addpath[d->family];
    struct buf *b = has_ids ? &d->with_ids : &d->plain;
    unsigned *n = has_ids ? &d->n_with_ids : &d->n_plain;
    size_t from = b->n;
    if (*n == ENTRIES_MAX) {
        return;
    }
    wr_u16(b, (unsigned)(p - d->peers));
    wr_u32(b, (uint32_t)(p->up_wall_ns / 1000000000));
    if (has_ids) {
        wr_u32(b, v->path_id);
    }
    put_attrs(b, d->family, &v->attrs);
    if (b->overflow) { /* megabytes of paths for one prefix: what fits */
        b->n = from;
        b->overflow = false;
        return;
    }
    (*n)++;
}

bool mrt_dump_some(struct mrt_dump *d, unsigned max, struct buf *b) {
    struct piece x = {d, b};
    speaker_routes(d->speaker, d->family, &d->at, max, on_route, &x);
    if (d->at) {
        return true;
    }
    flush(d, b);
    d->prefix = (struct prefix){0};
    if (d->family == BGP_V6) {
        return false;
    }
    d->family = BGP_V6;
    return true;
}

void mrt_dump_fini(struct mrt_dump *d) {
    buf_fini(&d->plain);
    buf_fini(&d->with_ids);
    free(d->peers);
    *d = (struct mrt_dump){0};
}
