/* Packed attributes, one of each, counted. See attr.h. */
#include "bgp/attr.h"

#include "base/hash.h"
#include "base/vec.h"
#include "bgp/nexthop.h"

#include <stdlib.h>

struct attr_store {
    struct nexthops *hops;
    VEC(struct attrs *) v; /* by id; [0] is never used */
    VEC(uint32_t) free_ids;
    uint32_t *slots; /* open addressing by hash; 0: empty */
    size_t n_slots, n_used, n_bytes;
};

struct attr_store *attr_store_new(struct nexthops *nh) {
    struct attr_store *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->hops = nh;
    vec_push(&s->v, NULL);
    return s;
}

void attr_store_free(struct attr_store *s) {
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->v.n; i++) {
        free(s->v.p[i]);
    }
    vec_fini(&s->v);
    vec_fini(&s->free_ids);
    free(s->slots);
    free(s);
}

static size_t fixed_bytes(unsigned has) {
    return ((has & HAS_ORIGINATOR) ? 4U : 0U) + ((has & HAS_OTC) ? 4U : 0U) +
           ((has & HAS_AGGREGATOR) ? 8U : 0U);
}

struct str attrs_part(const struct attrs *a, enum attr_part part) {
    size_t at = fixed_bytes(a->has);
    while (at + 3 <= a->n_bytes) {
        uint16_t n;
        memcpy(&n, a->data + at + 1, 2);
        if (a->data[at] == part) {
            return str_n((const char *)a->data + at + 3, n);
        }
        at += 3U + n;
    }
    return STR_NULL;
}

static uint32_t fixed(const struct attrs *a, size_t at) {
    uint32_t v;
    memcpy(&v, a->data + at, 4);
    return v;
}

uint32_t attrs_originator(const struct attrs *a) {
    return (a->has & HAS_ORIGINATOR) ? fixed(a, 0) : 0;
}

uint32_t attrs_otc(const struct attrs *a) {
    return (a->has & HAS_OTC) ? fixed(a, (a->has & HAS_ORIGINATOR) ? 4 : 0) : 0;
}

static uint8_t *add_u32(uint8_t *p, uint32_t v) {
    memcpy(p, &v, 4);
    return p + 4;
}

/* Packs src behind a; a->n_bytes says how much room there is. */
static void pack(struct attrs *a, const struct attr_src *src) {
    uint8_t *p = a->data;
    if (src->has & HAS_ORIGINATOR) {
        p = add_u32(p, src->originator);
    }
    if (src->has & HAS_OTC) {
        p = add_u32(p, src->otc);
    }
    if (src->has & HAS_AGGREGATOR) {
        p = add_u32(p, src->aggregator_as);
        p = add_u32(p, src->aggregator_id);
    }
    for (unsigned i = 0; i < N_PARTS; i++) {
        uint16_t n = (uint16_t)src->part[i].n;
        if (n) {
            *p = (uint8_t)i;
            memcpy(p + 1, &n, 2);
            memcpy(p + 3, src->part[i].p, n);
            p += 3 + n;
        }
    }
}

static bool same(const struct attrs *a, const struct attrs *b) {
    return a->hash == b->hash && a->next_hop == b->next_hop && a->med == b->med &&
           a->local_pref == b->local_pref && a->n_bytes == b->n_bytes && a->has == b->has &&
           a->origin == b->origin && memcmp(a->data, b->data, a->n_bytes) == 0;
}

static void slot_put(struct attr_store *s, uint32_t id) {
    size_t mask = s->n_slots - 1;
    size_t i = s->v.p[id]->hash & mask;
    while (s->slots[i]) {
        i = (i + 1) & mask;
    }
    s->slots[i] = id;
}

static void grow(struct attr_store *s) {
    free(s->slots);
    s->n_slots = s->n_slots ? s->n_slots * 2 : 64;
    s->slots = calloc(s->n_slots, sizeof(*s->slots));
    mg_assert(s->slots != NULL);
    for (uint32_t id = 1; id < s->v.n; id++) {
        if (s->v.p[id]) {
            slot_put(s, id);
        }
    }
}

static void slot_del(struct attr_store *s, uint32_t id) {
    size_t mask = s->n_slots - 1;
    size_t i = s->v.p[id]->hash & mask;
    while (s->slots[i] != id) {
        i = (i + 1) & mask;
    }
    for (size_t j = (i + 1) & mask; s->slots[j]; j = (j + 1) & mask) {
        size_t home = s->v.p[s->slots[j]]->hash & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            s->slots[i] = s->slots[j];
            i = j;
        }
    }
    s->slots[i] = 0;
}

uint32_t attr_intern(struct attr_store *s, const struct attr_src *src) {
    size_t n = fixed_bytes(src->has);
    for (unsigned i = 0; i < N_PARTS; i++) {
        n += src->part[i].n ? 3 + src->part[i].n : 0;
    }
    char local[512];
    size_t bytes = sizeof(struct attrs) + n;
    struct attrs *a = bytes <= sizeof(local) ? (void *)local : malloc(bytes);
    mg_assert(a != NULL);
    memset(a, 0, sizeof(*a));
    a->next_hop = nexthop_intern(s->hops, &src->next_hop, &src->link_local);
    a->med = (src->has & HAS_MED) ? src->med : 0;
    a->local_pref = (src->has & HAS_LOCAL_PREF) ? src->local_pref : 0;
    a->n_bytes = (uint32_t)n;
    a->has = (uint8_t)src->has;
    a->origin = src->origin;
    pack(a, src);
    unsigned len = as_path_len(src->part[PART_AS_PATH]);
    a->path_len = (uint16_t)(len < UINT16_MAX ? len : UINT16_MAX);
    a->hash =
        (uint32_t)(hash_str(str_n((const char *)a->data, n)) ^
                   hash_u64((uint64_t)a->next_hop << 32 | a->med) ^
                   hash_u64((uint64_t)a->local_pref << 16 | (uint64_t)a->origin << 8 | a->has));
    if ((s->n_used + 1) * 4 > s->n_slots * 3) {
        grow(s);
    }
    size_t mask = s->n_slots - 1;
    uint32_t id = 0;
    for (size_t i = a->hash & mask; s->slots[i]; i = (i + 1) & mask) {
        if (same(s->v.p[s->slots[i]], a)) {
            id = s->slots[i];
            break;
        }
    }
    if (id) {
        nexthop_unref(s->hops, a->next_hop); /* the shared one has its own */
        s->v.p[id]->n_refs++;
    } else {
        struct attrs *kept = malloc(bytes);
        mg_assert(kept != NULL);
        memcpy(kept, a, bytes);
        kept->n_refs = 1;
        if (s->free_ids.n) {
            id = s->free_ids.p[--s->free_ids.n];
            s->v.p[id] = kept;
        } else {
            id = (uint32_t)s->v.n;
            vec_push(&s->v, kept);
        }
        s->n_used++;
        s->n_bytes += bytes;
        slot_put(s, id);
    }
    if ((void *)a != (void *)local) {
        free(a);
    }
    return id;
}

void attr_ref(struct attr_store *s, uint32_t id) {
    s->v.p[id]->n_refs++;
}

void attr_unref(struct attr_store *s, uint32_t id) {
    if (id == 0) {
        return;
    }
    struct attrs *a = s->v.p[id];
    mg_assert(a && a->n_refs > 0);
    if (--a->n_refs == 0) {
        slot_del(s, id);
        nexthop_unref(s->hops, a->next_hop);
        s->n_bytes -= sizeof(*a) + a->n_bytes;
        free(a);
        s->v.p[id] = NULL;
        s->n_used--;
        vec_push(&s->free_ids, id);
    }
}

const struct attrs *attr_get(const struct attr_store *s, uint32_t id) {
    return s->v.p[id];
}

void attr_open(const struct attr_store *s, uint32_t id, struct attr_src *out) {
    const struct attrs *a = s->v.p[id];
    *out = (struct attr_src){.has = a->has,
                             .origin = a->origin,
                             .med = a->med,
                             .local_pref = a->local_pref,
                             .originator = attrs_originator(a),
                             .otc = attrs_otc(a)};
    if (a->has & HAS_AGGREGATOR) {
        size_t at = fixed_bytes(a->has) - 8;
        out->aggregator_as = fixed(a, at);
        out->aggregator_id = fixed(a, at + 4);
    }
    const struct nexthop *h = nexthop_get(s->hops, a->next_hop);
    if (h) {
        out->next_hop = h->ip;
        out->link_local = h->link_local;
    }
    for (size_t at = fixed_bytes(a->has); at + 3 <= a->n_bytes;) {
        uint16_t n;
        memcpy(&n, a->data + at + 1, 2);
        out->part[a->data[at]] = str_n((const char *)a->data + at + 3, n);
        at += 3U + n;
    }
}

size_t attr_store_count(const struct attr_store *s) {
    return s->n_used;
}

size_t attr_store_bytes(const struct attr_store *s) {
    return s->n_bytes + s->n_slots * sizeof(*s->slots) + s->v.cap * sizeof(*s->v.p);
}
