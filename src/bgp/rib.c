/* Pools and prefix tables. See rib.h. */
#include "bgp/rib.h"

#include "base/hash.h"

#include <stdlib.h>

void pool_init(struct pool *p, size_t each) {
    *p = (struct pool){.each = (uint32_t)each, .end = 1};
}

void pool_fini(struct pool *p) {
    for (uint32_t i = 0; i < p->n_chunks; i++) {
        free(p->chunks[i]);
    }
    free(p->chunks);
    pool_init(p, p->each);
}

static void add_chunk(struct pool *p) {
    if (p->n_chunks == p->cap_chunks) {
        p->cap_chunks = p->cap_chunks ? p->cap_chunks * 2 : 16;
        p->chunks = realloc(p->chunks, p->cap_chunks * sizeof(*p->chunks));
        mg_assert(p->chunks != NULL);
    }
    uint8_t *c = malloc((size_t)POOL_CHUNK * p->each);
    mg_assert(c != NULL);
    p->chunks[p->n_chunks++] = c;
}

uint32_t pool_new(struct pool *p) {
    uint32_t i = p->free;
    if (i) {
        memcpy(&p->free, pool_at(p, i), 4);
    } else {
        if (p->end >= p->n_chunks * POOL_CHUNK) {
            mg_assert(p->end < UINT32_MAX - POOL_CHUNK);
            add_chunk(p);
        }
        i = p->end++;
    }
    p->n_used++;
    memset(pool_at(p, i), 0, p->each);
    return i;
}

void pool_del(struct pool *p, uint32_t i) {
    memset(pool_at(p, i), 0, p->each);
    memcpy(pool_at(p, i), &p->free, 4);
    p->free = i;
    p->n_used--;
}

/* ---- prefixes ---- */

enum { SLOTS_MIN = 256, INDEX_BITS = 24 };

void rib_init(struct rib *r, enum bgp_family f, uint64_t seed) {
    *r = (struct rib){.family = f, .addr_bytes = bgp_bits(f) / 8, .seed = seed};
    pool_init(&r->nodes, sizeof(struct rib_node) + r->addr_bytes);
}

void rib_fini(struct rib *r) {
    pool_fini(&r->nodes);
    free(r->slots);
    r->slots = NULL;
    r->n_slots = 0;
}

/* Peers choose prefixes: the seed keeps them from choosing collisions. */
static uint64_t key_hash(const struct rib *r, const uint8_t *addr, unsigned len) {
    if (r->addr_bytes == 4) {
        uint32_t a;
        memcpy(&a, addr, 4);
        return hash_u64(((uint64_t)a << 8 | len) ^ r->seed);
    }
    uint64_t hi, lo;
    memcpy(&hi, addr, 8);
    memcpy(&lo, addr + 8, 8);
    return hash_u64(hash_u64(hi ^ r->seed) + lo + len);
}

static uint32_t slot_of(uint64_t hash, uint32_t i) {
    return (uint32_t)(hash >> 56) << INDEX_BITS | i;
}

static void slot_put(struct rib *r, uint64_t hash, uint32_t i) {
    uint32_t mask = r->n_slots - 1, at = (uint32_t)hash & mask;
    while (r->slots[at]) {
        at = (at + 1) & mask;
    }
    r->slots[at] = slot_of(hash, i);
}

static void grow(struct rib *r) {
    free(r->slots);
    r->n_slots = r->n_slots ? r->n_slots * 2 : SLOTS_MIN;
    r->slots = calloc(r->n_slots, sizeof(*r->slots));
    mg_assert(r->slots != NULL);
    for (uint32_t i = 1; i < r->nodes.end; i++) {
        const struct rib_node *n = rib_at(r, i);
        if (n->flags & NODE_USED) {
            slot_put(r, key_hash(r, n->addr, n->len), i);
        }
    }
}

static uint32_t find(const struct rib *r, uint64_t hash, const uint8_t *addr, unsigned len) {
    if (!r->n_slots) {
        return 0;
    }
    uint32_t mask = r->n_slots - 1, tag = slot_of(hash, 0);
    for (uint32_t at = (uint32_t)hash & mask; r->slots[at]; at = (at + 1) & mask) {
        uint32_t i = r->slots[at] & RIB_MAX;
        if ((r->slots[at] & ~(uint32_t)RIB_MAX) == tag) {
            const struct rib_node *n = rib_at(r, i);
            if (n->len == len && memcmp(n->addr, addr, r->addr_bytes) == 0) {
                return i;
            }
        }
    }
    return 0;
}

uint32_t rib_find(const struct rib *r, const uint8_t *addr, unsigned len) {
    return find(r, key_hash(r, addr, len), addr, len);
}

uint32_t rib_put(struct rib *r, const uint8_t *addr, unsigned len) {
    uint64_t hash = key_hash(r, addr, len);
    uint32_t i = find(r, hash, addr, len);
    if (i) {
        return i;
    }
    if (r->nodes.n_used >= RIB_MAX - 1) {
        return 0;
    }
    if ((uint64_t)(r->nodes.n_used + 1) * 8 > (uint64_t)r->n_slots * 7) {
        grow(r);
    }
    i = pool_new(&r->nodes);
    struct rib_node *n = rib_at(r, i);
    n->flags = NODE_USED;
    n->len = (uint8_t)len;
    memcpy(n->addr, addr, r->addr_bytes);
    slot_put(r, hash, i);
    return i;
}

void rib_del(struct rib *r, uint32_t i) {
    const struct rib_node *n = rib_at(r, i);
    uint64_t hash = key_hash(r, n->addr, n->len);
    uint32_t mask = r->n_slots - 1, at = (uint32_t)hash & mask, want = slot_of(hash, i);
    while (r->slots[at] != want) {
        at = (at + 1) & mask;
    }
    for (uint32_t j = (at + 1) & mask; r->slots[j]; j = (j + 1) & mask) {
        const struct rib_node *m = rib_at(r, r->slots[j] & RIB_MAX);
        uint32_t home = (uint32_t)key_hash(r, m->addr, m->len) & mask;
        if (((j - home) & mask) >= ((j - at) & mask)) {
            r->slots[at] = r->slots[j];
            at = j;
        }
    }
    r->slots[at] = 0;
    pool_del(&r->nodes, i);
}

struct prefix rib_prefix(const struct rib *r, uint32_t i) {
    const struct rib_node *n = rib_at(r, i);
    struct prefix p = {.ip.family = bgp_family_ip(r->family), .len = n->len};
    memcpy(p.ip.b, n->addr, r->addr_bytes);
    return p;
}
