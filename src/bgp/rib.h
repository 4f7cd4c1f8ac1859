/* Tables of prefixes and routes, packed: indexes of 32 bits into chunked pools instead of pointers,
 * and no more than what the decision and the update groups need. A prefix costs 16 bytes (IPv4) or
 * 28 (IPv6) and about 6 of its hash slot, a route 20, a route announced to a group of peers 28. */
#pragma once

#include "bgp/update.h"

/* ---- pools ---- */

enum { POOL_BITS = 10, POOL_CHUNK = 1 << POOL_BITS };
struct pool {
    uint8_t **chunks;
    uint32_t n_chunks, cap_chunks;
    uint32_t end;  /* indexes in use are below it; 0 is never one */
    uint32_t free; /* head of the list of free elements, linked by their first four bytes */
    uint32_t n_used;
    uint32_t each; /* bytes */
};
void pool_init(struct pool *p, size_t each);
void pool_fini(struct pool *p);
uint32_t pool_new(struct pool *p); /* zero-filled */
void pool_del(struct pool *p, uint32_t i);
static inline void *pool_at(const struct pool *p, uint32_t i) {
    return p->chunks[i >> POOL_BITS] + (size_t)(i & (POOL_CHUNK - 1)) * p->each;
}
static inline size_t pool_bytes(const struct pool *p) {
    return (size_t)p->n_chunks * POOL_CHUNK * p->each;
}

/* ---- elements ---- */

enum {
    ROUTE_BEST = 1,     /* chosen of its prefix, told to groups */
    ROUTE_IN_SET = 2,   /* told to the kernel as one of the ways */
    ROUTE_REJECTED = 4, /* by import policy or a loop: attr is 0 */
    ROUTE_LLGR = 8,     /* long-lived stale (RFC 9494) */
    ROUTE_EPOCH_SHIFT = 4,
    ROUTE_EPOCHS = 8,    /* three bits: see struct chan */
    ROUTE_WHY_SHIFT = 8, /* enum import_why of a rejected one */
};
struct route {
    uint32_t next;    /* of the same prefix; the best is first */
    uint32_t attr;    /* after import policy; 0: rejected */
    uint32_t attr_in; /* as received; each holds a reference, even when they are the same */
    uint32_t path_id; /* received (RFC 7911); of a local route its enum route_source */
    uint16_t peer;    /* 0: local */
    uint16_t flags;
};

enum {
    NODE_USED = 1,
    NODE_TOLD = 2,     /* the kernel was told of ways */
    NODE_NEW_BEST = 4, /* the best was removed or has changed attributes */
    NODE_NEW_SET = 8,  /* … one of the kernel's ways */
};
struct rib_node {
    uint32_t routes; /* 0: none (the node lives on while groups have something of it) */
    uint32_t outs;   /* struct out, chained */
    uint8_t flags, len;
    uint16_t spare;
    uint8_t addr[]; /* 4 or 16 bytes */
};

enum {
    OUT_SENT = 0x8000,  /* some peer has been told of it: to go it must be withdrawn */
    OUT_MIXED = 0x4000, /* it came from several peers in its life: see out.c */
    OUT_GROUP = 0x3fff,
};
/* A route as announced to a group, in the group's list in order of change; or (node == 0) the
 * marker of a cohort, how far that has come. */
struct out {
    uint32_t node, attr; /* attr 0: to be withdrawn */
    uint32_t prev, next;
    uint32_t chain;   /* next of the same prefix, of another group or path */
    uint32_t path_id; /* sent: the route's index; 0 without add-path. Of a marker: nothing */
    uint16_t source;  /* peer that gave it */
    uint16_t group;   /* id, and OUT_ flags */
};

/* ---- the table of one family ---- */

enum { RIB_MAX = (1 << 24) - 1 }; /* prefixes: a slot has 24 bits of index and 8 of the hash */
struct rib {
    enum bgp_family family;
    unsigned addr_bytes;
    uint64_t seed;
    struct pool nodes;
    uint32_t *slots;
    uint32_t n_slots;
};
void rib_init(struct rib *r, enum bgp_family f, uint64_t seed);
void rib_fini(struct rib *r);
static inline struct rib_node *rib_at(const struct rib *r, uint32_t i) {
    return pool_at(&r->nodes, i);
}
/* Index of a prefix; 0: not there. */
uint32_t rib_find(const struct rib *r, const uint8_t *addr, unsigned len);
/* … made if new; 0: the table is full (RIB_MAX). */
uint32_t rib_put(struct rib *r, const uint8_t *addr, unsigned len);
/* The node has neither routes nor outs. */
void rib_del(struct rib *r, uint32_t i);
struct prefix rib_prefix(const struct rib *r, uint32_t i);
static inline size_t rib_bytes(const struct rib *r) {
    return pool_bytes(&r->nodes) + (size_t)r->n_slots * sizeof(*r->slots);
}
