/* Assignment: own blocks, new blocks, borrowed addresses; and one address asked for by name. */
#include "ipam/ipam_int.h"

#include "base/hash.h"
#include "base/vec.h"

#include <stdlib.h>

struct assigning {
    struct ipam *m;
    const struct ipam_options *o;
    enum ip_family family;
    struct str handle;
    const struct ipam_attr *attrs;
    size_t n_attrs;
    struct ip46 *out;
    size_t want, n;
    struct err *e;
};

static struct jnode *make_attr(const struct assigning *x, struct arena *a) {
    struct jnode *attr = jnode_new(a, J_MAP), *secondary = jnode_new(a, J_MAP);
    jnode_set(a, attr, STR("handle_id"), jnode_new_str(a, arena_dup(a, x->handle)));
    for (size_t i = 0; i < x->n_attrs; i++) {
        jnode_set(a, secondary, arena_dup(a, x->attrs[i].key),
                  jnode_new_str(a, arena_dup(a, x->attrs[i].value)));
    }
    jnode_set(a, attr, STR("secondary"), secondary);
    return attr;
}

static bool is_reserved(const struct ipam_options *o, const struct ip46 *ip) {
    for (size_t i = 0; i < o->n_reserved; i++) {
        if (o->reserved[i].ip.family == ip->family && prefix_has_ip(&o->reserved[i], ip)) {
            return true;
        }
    }
    return false;
}

/* Takes as many as are wanted and free, from the head of the queue. */
static size_t take_free(struct assigning *x, struct block *b, struct arena *a) {
    size_t n = 0;
    struct jnode *attr = NULL;
    for (uint32_t i = 0; i < b->n_queue && x->n + n < x->want;) {
        uint32_t ordinal = b->queue[i];
        struct ip46 ip;
        bool inside = prefix_nth(&b->cidr, ordinal, &ip);
        mg_assert(inside);
        if (is_reserved(x->o, &ip)) {
            i++;
            continue;
        }
        attr = attr ? attr : make_attr(x, a);
        block_take(b, ordinal, attr, a);
        x->out[x->n + n++] = ip;
    }
    return n;
}

/* The handle counts first: a crash in between leaves a count too many, which a release repairs,
 * never an address that no handle knows. */
static int write_taken(struct assigning *x, struct stored_block *s, size_t n, struct arena *a) {
    int r = ipam_handle_add(x->m, x->handle, &s->b->cidr, (int64_t)n, x->e);
    if (r < 0) {
        return r;
    }
    r = ipam_put_block(x->m, s, a, x->e);
    if (r < 0) {
        struct err ignored; /* the first error counts; a count too many does no harm */
        (void)!ipam_handle_add(x->m, x->handle, &s->b->cidr, -(int64_t)n, &ignored);
        return r;
    }
    x->n += n;
    return 0;
}

static bool is_race(int r) {
    return r == ERR_CONFLICT || r == ERR_EXISTS || r == ERR_NOT_FOUND;
}

/* From one block, if it is ours (or anybody's, with borrow). ERR_NOT_FOUND: no such block. */
static int from_block(struct assigning *x, const struct prefix *cidr, bool borrow) {
    int r = 0;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        struct arena a = {0};
        struct stored_block s;
        r = ipam_get_block(x->m, cidr, &a, &s, x->e);
        if (r == ERR_NOT_FOUND) {
            arena_fini(&a);
            return r;
        }
        if (r == 0 && (borrow || str_is(s.b->affinity, x->m->affinity))) {
            size_t n = take_free(x, s.b, &a);
            r = n ? write_taken(x, &s, n, &a) : 0;
        }
        arena_fini(&a);
        if (!is_race(r)) {
            return r;
        }
    }
    return r;
}

/* ---- affinities ---- */

struct cidr_list {
    VEC(struct prefix) v;
};
static int add_cidr(void *arg, const struct store_item *it) {
    struct cidr_list *l = arg;
    struct prefix p;
    if (ipam_parse_cidr(it->key, &p) == 0) {
        vec_push(&l->v, p);
    }
    return 0;
}

static int list_cidrs(struct ipam *m, struct str prefix, struct cidr_list *out, struct err *e) {
    return store_list(m->store, (struct store_key){STR(STORE_SPACE_IPAM), prefix}, NULL, add_cidr,
                      out, e);
}

static int put_affinity(struct ipam *m, const struct prefix *cidr, const char *state,
                        struct err *e) {
    struct arena a = {0};
    struct str text = arena_printf(&a, "{\"state\":\"%s\",\"deleted\":false}", state);
    int r =
        store_put(m->store, ipam_affinity_key(str_c(m->node), cidr, &a), text, REV_ANY, NULL, e);
    arena_fini(&a);
    return r;
}

static const struct ipam_pool *pool_of(const struct ipam_options *o, const struct prefix *block) {
    for (size_t i = 0; i < o->n_pools; i++) {
        if (o->pools[i].cidr.ip.family == block->ip.family &&
            prefix_has(&o->pools[i].cidr, block)) {
            return &o->pools[i];
        }
    }
    return NULL;
}

/* Claims a block that nobody has and takes from it. ERR_EXISTS: somebody was faster. */
static int claim(struct assigning *x, const struct prefix *cidr) {
    int r = put_affinity(x->m, cidr, "pending", x->e);
    if (r < 0) {
        return r;
    }
    struct arena a = {0};
    struct stored_block s = {block_new(cidr, str_c(x->m->affinity), &a), REV_NONE};
    size_t n = take_free(x, s.b, &a);
    r = write_taken(x, &s, n, &a);
    if (r == 0) {
        r = put_affinity(x->m, cidr, "confirmed", x->e);
    } else if (r == ERR_EXISTS) {
        struct err ignored; /* an affinity without its block is repaired by the next try */
        (void)!store_delete(x->m->store, ipam_affinity_key(str_c(x->m->node), cidr, &a), REV_ANY,
                            &ignored);
    }
    arena_fini(&a);
    return r;
}

/* An affinity of ours: block missing (a crash, or first use) → made; not ours → affinity dropped.
 */
static int from_affine(struct assigning *x, const struct prefix *cidr) {
    int r = from_block(x, cidr, false);
    if (r != ERR_NOT_FOUND) {
        return r;
    }
    r = claim(x, cidr);
    return r == ERR_EXISTS ? 0 : r;
}

/* ---- new blocks ---- */

static int prefix_qcmp(const void *a, const void *b) {
    return prefix_cmp(a, b);
}

/* Does a block of the store (sorted, none over another) share addresses with p? It may be of
 * another size: the pool's block size was another one when it was made. */
static bool overlaps_any(const struct cidr_list *used, const struct prefix *p) {
    size_t lo = 0, hi = used->v.n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (prefix_cmp(&used->v.p[mid], p) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return (lo < used->v.n && prefix_overlaps(&used->v.p[lo], p)) ||
           (lo > 0 && prefix_overlaps(&used->v.p[lo - 1], p));
}

static bool all_reserved(const struct ipam_options *o, const struct prefix *p) {
    for (size_t i = 0; i < o->n_reserved; i++) {
        if (o->reserved[i].ip.family == p->ip.family && prefix_has(&o->reserved[i], p)) {
            return true;
        }
    }
    return false;
}

/* Calico's hash of the host name spreads the nodes over the pool; any generator is compatible. */
static uint64_t first_index(const struct ipam *m, uint64_t n_blocks) {
    uint32_t h = 2166136261U;
    for (const char *c = m->node; *c; c++) {
        h = (h * 16777619U) ^ (uint8_t)*c;
    }
    return hash_u64(h) % n_blocks;
}

/* The blocks of a pool in this node's order; cb returns true to stop. */
static void each_candidate(const struct ipam *m, const struct ipam_pool *p, uint64_t limit,
                           bool (*cb)(void *arg, const struct prefix *block), void *arg) {
    unsigned bits = p->block_len - p->cidr.len;
    /* Of a vast pool only the first 2^40 blocks are used: offsets stay within 64 bits. */
    uint64_t n_blocks = 1ULL << (bits < 40 ? bits : 40);
    unsigned host_bits = ip_bits(&p->cidr.ip) - p->block_len;
    uint64_t start = first_index(m, n_blocks);
    for (uint64_t i = 0; i < n_blocks && i < limit; i++) {
        uint64_t index = (start + i) % n_blocks;
        struct prefix block = {p->cidr.ip, (uint8_t)p->block_len};
        if (!ip_add(&block.ip, index << host_bits)) {
            continue;
        }
        if (cb(arg, &block)) {
            return;
        }
    }
}

struct claiming {
    struct assigning *x;
    const struct cidr_list *used;
    size_t n_owned, max_owned;
    int r;
};
static bool try_claim(void *arg, const struct prefix *block) {
    struct claiming *c = arg;
    if (overlaps_any(c->used, block) || all_reserved(c->x->o, block)) {
        return false;
    }
    int r = claim(c->x, block);
    if (r == ERR_EXISTS) {
        return false;
    }
    c->n_owned += r == 0;
    c->r = r;
    return r < 0 || c->x->n >= c->x->want || c->n_owned >= c->max_owned;
}

static int from_new_blocks(struct assigning *x, const struct cidr_list *used, size_t n_owned,
                           bool *is_limited) {
    size_t max = x->o->max_blocks ? x->o->max_blocks : IPAM_DEFAULT_MAX_BLOCKS;
    struct claiming c = {x, used, n_owned, max, 0};
    for (size_t i = 0; i < x->o->n_pools && x->n < x->want && c.r == 0; i++) {
        const struct ipam_pool *p = &x->o->pools[i];
        if (p->cidr.ip.family != x->family || p->block_len < p->cidr.len ||
            ip_bits(&p->cidr.ip) - p->block_len > 12) {
            continue;
        }
        if (c.n_owned >= max) {
            *is_limited = true;
            return 0;
        }
        each_candidate(x->m, p, used->v.n + 65536, try_claim, &c);
    }
    *is_limited = x->n < x->want && c.n_owned >= max;
    return c.r;
}

static int from_others(struct assigning *x, const struct cidr_list *used) {
    for (size_t i = 0; i < used->v.n && x->n < x->want; i++) {
        if (!pool_of(x->o, &used->v.p[i])) {
            continue;
        }
        int r = from_block(x, &used->v.p[i], true);
        if (r < 0 && r != ERR_NOT_FOUND) {
            return r;
        }
    }
    return 0;
}

/* ---- the error that says how full what is ---- */

struct fullness {
    struct buf *b;
};
static void add_usage(void *arg, const struct ipam_usage *u) {
    struct fullness *f = arg;
    if (!u->is_block && u->pool.n) {
        buf_printf(f->b, "%s%.*s (%llu of %.0f in use)", f->b->n ? ", " : "", STR_FMT(u->pool),
                   (unsigned long long)u->in_use, u->total);
    }
}

static int no_space(struct assigning *x, bool is_limited) {
    VEC(struct ipam_pool) pools = {0};
    for (size_t i = 0; i < x->o->n_pools; i++) {
        if (x->o->pools[i].cidr.ip.family == x->family) {
            vec_push(&pools, x->o->pools[i]);
        }
    }
    struct buf b = BUF_INIT(600);
    struct fullness f = {&b};
    struct err ignored = {.code = 0}; /* only for the text */
    (void)!ipam_show(x->m, pools.p, pools.n, add_usage, &f, &ignored);
    int r;
    if (pools.n == 0) {
        r = err_set(x->e, ERR_NO_SPACE,
                    "no IPv%u address: no enabled pool of that family selects this node and "
                    "namespace; create an IPPool, or check its selectors",
                    x->family);
    } else if (is_limited) {
        r = err_set(x->e, ERR_NO_SPACE,
                    "no IPv%u address: limit of %u blocks a node reached; pools: %.*s", x->family,
                    x->o->max_blocks ? x->o->max_blocks : IPAM_DEFAULT_MAX_BLOCKS,
                    STR_FMT(buf_view(&b)));
    } else {
        r = err_set(x->e, ERR_NO_SPACE,
                    "no IPv%u address left in pools %.*s: delete pods that are not needed or add "
                    "an IPPool",
                    x->family, STR_FMT(buf_view(&b)));
    }
    buf_fini(&b);
    vec_fini(&pools);
    return r;
}

static int assign(struct assigning *x, bool *is_limited) {
    struct cidr_list own = {{0}}, used = {{0}};
    struct arena a = {0};
    struct str prefix = arena_printf(&a, "/ipam/v2/host/%s/ipv%u/block/", x->m->node, x->family);
    int r = list_cidrs(x->m, prefix, &own, x->e);
    for (size_t i = 0; i < own.v.n && r == 0 && x->n < x->want; i++) {
        if (pool_of(x->o, &own.v.p[i])) {
            r = from_affine(x, &own.v.p[i]);
        }
    }
    if (r == 0 && x->n < x->want) {
        prefix = arena_printf(&a, "/ipam/v2/assignment/ipv%u/block/", x->family);
        r = list_cidrs(x->m, prefix, &used, x->e);
        vec_sort(&used.v, prefix_qcmp);
        if (r == 0 && !x->o->no_new_blocks) {
            r = from_new_blocks(x, &used, own.v.n, is_limited);
        }
        if (r == 0 && x->n < x->want && !x->o->strict_affinity && !*is_limited) {
            r = from_others(x, &used);
        }
    }
    vec_fini(&own.v);
    vec_fini(&used.v);
    arena_fini(&a);
    return r;
}

int ipam_assign_auto(struct ipam *m, const struct ipam_options *o, enum ip_family family,
                     size_t count, struct str handle, const struct ipam_attr *attrs, size_t n_attrs,
                     struct ip46 *out, struct err *e) {
    struct assigning x = {m, o, family, handle, attrs, n_attrs, out, count, 0, e};
    bool is_limited = false;
    int r = assign(&x, &is_limited);
    if (r == 0 && x.n == count) {
        return 0;
    }
    if (r == 0) {
        r = no_space(&x, is_limited);
    }
    struct err ignored; /* what was taken goes back; the first error counts */
    (void)!ipam_release_ips(m, out, x.n, handle, NULL, &ignored);
    return r;
}

/* ---- one address ---- */

static int held_by(const struct assigning *x, const struct block *b, uint32_t ordinal,
                   const struct ip46 *ip) {
    char text[IP_TEXT_MAX];
    struct str ns = block_attr_of(b, ordinal, "namespace"), pod = block_attr_of(b, ordinal, "pod");
    struct str h = block_handle_of(b, ordinal);
    return err_set(x->e, ERR_EXISTS, "address %s is in use by %.*s%s%.*s (handle %.*s)",
                   ip_text(ip, text), STR_FMT(ns), pod.n ? "/" : "", STR_FMT(pod), STR_FMT(h));
}

static int assign_ip_once(struct assigning *x, const struct prefix *cidr, const struct ip46 *ip,
                          struct arena *a) {
    struct stored_block s;
    int r = ipam_get_block(x->m, cidr, a, &s, x->e);
    if (r == ERR_NOT_FOUND) {
        r = put_affinity(x->m, cidr, "pending", x->e);
        s = (struct stored_block){block_new(cidr, str_c(x->m->affinity), a), REV_NONE};
    }
    if (r < 0) {
        return r;
    }
    bool is_new = s.revision == REV_NONE;
    uint32_t ordinal = (uint32_t)prefix_offset(cidr, ip);
    if (x->o->strict_affinity && !str_is(s.b->affinity, x->m->affinity)) {
        char text[IP_TEXT_MAX];
        return err_set(x->e, ERR_DENIED,
                       "address %s is in a block of %.*s, and strictAffinity is set",
                       ip_text(ip, text), STR_FMT(s.b->affinity));
    }
    if (s.b->alloc[ordinal] >= 0) {
        return held_by(x, s.b, ordinal, ip);
    }
    block_take(s.b, ordinal, make_attr(x, a), a);
    r = write_taken(x, &s, 1, a);
    if (r == ERR_EXISTS) {
        return ERR_CONFLICT; /* the block came into being meanwhile */
    }
    return r == 0 && is_new ? put_affinity(x->m, cidr, "confirmed", x->e) : r;
}

int ipam_assign_ip(struct ipam *m, const struct ipam_options *o, const struct ip46 *ip,
                   struct str handle, const struct ipam_attr *attrs, size_t n_attrs,
                   struct err *e) {
    struct ip46 out[1];
    struct assigning x = {m, o, (enum ip_family)ip->family, handle, attrs, n_attrs, out, 1, 0, e};
    const struct ipam_pool *pool = NULL;
    struct prefix whole = {*ip, (uint8_t)ip_bits(ip)};
    char text[IP_TEXT_MAX];
    pool = pool_of(o, &whole);
    if (!pool || ip_bits(ip) - pool->block_len > 12) {
        return err_set(e, ERR_NOT_FOUND, "address %s is in no enabled pool of this node",
                       ip_text(ip, text));
    }
    /* The block that has it already may be of another size than the pool's blocks are now. */
    struct prefix cidr = prefix_mask((struct prefix){*ip, (uint8_t)pool->block_len}), has;
    int r = ipam_block_of(m, ip, &has, e);
    if (r < 0 && r != ERR_NOT_FOUND) {
        return r;
    }
    cidr = r == 0 ? has : cidr;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        struct arena a = {0};
        r = assign_ip_once(&x, &cidr, ip, &a);
        arena_fini(&a);
        if (r != ERR_CONFLICT && r != ERR_NOT_FOUND) {
            break;
        }
    }
    return r;
}
