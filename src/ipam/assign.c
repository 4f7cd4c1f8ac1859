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
    ipam_wake(x->m, b);
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
        block_take(b, ordinal, attr);
        x->out[x->n + n++] = ip;
    }
    return n;
}

/* The handle counts first: a crash in between leaves a count too many, which a release repairs,
 * never an address that no handle knows. */
static int write_taken(struct assigning *x, struct stored_block *s, size_t n, struct arena *a) {
    int r = n ? ipam_handle_add(x->m, x->handle, &s->b->cidr, (int64_t)n, x->o->max_held, x->e) : 0;
    if (r < 0) {
        return r;
    }
    r = ipam_put_block(x->m, s, a, x->e);
    if (n && ipam_is_unwritten(r)) {
        struct err ignored; /* the first error counts; a count too many does no harm */
        (void)!ipam_handle_add(x->m, x->handle, &s->b->cidr, -(int64_t)n, 0, &ignored);
    }
    x->n += r == 0 ? n : 0;
    return r;
}

/* From one block, whosever it is. ERR_NOT_FOUND: no such block. */
static int borrow(struct assigning *x, const struct prefix *cidr) {
    int r = 0;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        struct arena a = {0};
        struct stored_block s;
        r = ipam_get_block(x->m, cidr, &a, &s, x->e);
        bool is_gone = r == ERR_NOT_FOUND;
        if (r == 0) {
            size_t n = take_free(x, s.b, &a);
            r = n ? write_taken(x, &s, n, &a) : 0;
        }
        arena_fini(&a);
        if (is_gone || !ipam_is_race(r)) {
            break;
        }
    }
    return r;
}

/* ---- affinities ---- */

/* A block or affinity of a listing. */
struct listed {
    struct prefix cidr;
    bool is_confirmed; /* affinities: the state is confirmed, or none is given (old data) */
    bool may_be_ours;  /* blocks: the text has our affinity's name in it */
};
struct cidr_list {
    struct str affinity; /* of blocks that are ours; empty when affinities are listed */
    VEC(struct listed) v;
};

static bool is_confirmed(struct str value) {
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err ignored; /* what can't be read is written anew, as what isn't confirmed */
    bool is = value.n == 0;
    if (value.n && json_parse(value, &json_limits_default, &a, &doc, &ignored) == 0) {
        struct str state = jnode_str(jnode_getc(doc, "state"));
        is = state.n == 0 || str_is(state, "confirmed");
    }
    arena_fini(&a);
    return is;
}

static int add_cidr(void *arg, const struct store_item *it) {
    struct cidr_list *l = arg;
    struct listed one = {.is_confirmed = false};
    if (ipam_parse_cidr(it->key, &one.cidr) == 0) {
        if (l->affinity.n) {
            one.may_be_ours = str_contains(it->value, l->affinity);
        } else {
            one.is_confirmed = is_confirmed(it->value);
        }
        vec_push(&l->v, one);
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
    int r = store_put(m->store, ipam_affinity_key(m, cidr, &a), text, REV_ANY, NULL, e);
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

static void drop_affinity(struct ipam *m, const struct prefix *cidr) {
    struct arena a = {0};
    struct err ignored; /* one that stays is dropped by the next try */
    (void)!store_delete(m->store, ipam_affinity_key(m, cidr, &a), REV_ANY, &ignored);
    arena_fini(&a);
}

/* Writes a new block, what is taken in it included, between the two states of its affinity.
 * ERR_EXISTS: somebody was faster; if that was another node, the affinity is dropped again (our
 * own node's other caller needs it). */
static int create(struct assigning *x, struct stored_block *s, size_t n, struct arena *a) {
    struct prefix cidr = s->b->cidr;
    int r = put_affinity(x->m, &cidr, "pending", x->e);
    if (r == 0) {
        r = write_taken(x, s, n, a);
    }
    if (r == 0) {
        return put_affinity(x->m, &cidr, "confirmed", x->e);
    }
    struct stored_block theirs;
    if (r == ERR_EXISTS) {
        int found = ipam_get_block(x->m, &cidr, a, &theirs, x->e);
        if (found == 0 && !str_is(theirs.b->affinity, x->m->affinity)) {
            drop_affinity(x->m, &cidr);
        }
        r = found == 0 || found == ERR_NOT_FOUND ? ERR_EXISTS : found;
    }
    return r;
}

/* Claims a block that nobody has and takes from it; one that has nothing to give is left alone
 * (*is_claimed). ERR_EXISTS: somebody was faster. */
static int claim(struct assigning *x, const struct prefix *cidr, bool *is_claimed) {
    struct arena a = {0};
    struct stored_block s = {block_new(cidr, str_c(x->m->affinity), x->m->now(), &a), REV_NONE};
    size_t n = take_free(x, s.b, &a);
    int r = n ? create(x, &s, n, &a) : 0;
    *is_claimed = n > 0 && r == 0;
    arena_fini(&a);
    return r;
}

static bool overlaps_any(const struct cidr_list *used, const struct prefix *p);
static int list_blocks(struct assigning *x, struct cidr_list *used);

/* An affinity without its block (a crash): made now, unless it can't be any more. */
static int remake(struct assigning *x, const struct prefix *cidr, bool *is_ours) {
    struct cidr_list used = {.v = {0}};
    int r = list_blocks(x, &used);
    bool is_possible = r == 0 && !overlaps_any(&used, cidr);
    vec_fini(&used.v);
    if (is_possible) {
        r = claim(x, cidr, is_ours);
    }
    if (r == 0 && !*is_ours) {
        drop_affinity(x->m, cidr);
    }
    return r;
}

/* One reading of a block that an affinity calls ours, and what follows. */
static int from_affine_once(struct assigning *x, const struct listed *own, bool *is_ours) {
    struct arena a = {0};
    struct stored_block s;
    int r = ipam_get_block(x->m, &own->cidr, &a, &s, x->e);
    if (r == ERR_NOT_FOUND) {
        arena_fini(&a);
        return remake(x, &own->cidr, is_ours);
    }
    *is_ours = r == 0 && str_is(s.b->affinity, x->m->affinity);
    if (r == 0 && !*is_ours) {
        drop_affinity(x->m, &own->cidr);
    } else if (r == 0) {
        size_t n = take_free(x, s.b, &a);
        if (own->is_confirmed) {
            r = n ? write_taken(x, &s, n, &a) : 0;
        } else {
            /* A crash in a claim or a release. The block is written even when nothing is taken:
             * whoever was releasing it loses its compare-and-swap. */
            r = put_affinity(x->m, &own->cidr, "pending", x->e);
            r = r == 0 ? write_taken(x, &s, n, &a) : r;
            r = r == 0 ? put_affinity(x->m, &own->cidr, "confirmed", x->e) : r;
        }
    }
    arena_fini(&a);
    return r;
}

/* From a block that is ours by its affinity. *is_ours: it is, by the block too. */
static int from_affine(struct assigning *x, const struct listed *own, bool *is_ours) {
    int r = 0;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        *is_ours = false;
        r = from_affine_once(x, own, is_ours);
        if (!ipam_is_race(r)) {
            break;
        }
    }
    return r;
}

/* ---- new blocks ---- */

static int listed_qcmp(const void *a, const void *b) {
    const struct listed *x = a, *y = b;
    return prefix_cmp(&x->cidr, &y->cidr);
}

/* All blocks of the family, sorted; of blocks over one another (there should be none) the larger
 * only, for overlaps_any. */
static int list_blocks(struct assigning *x, struct cidr_list *used) {
    struct arena a = {0};
    struct str prefix = arena_printf(&a, "/ipam/v2/assignment/ipv%u/block/", x->family);
    used->affinity = str_c(x->m->affinity);
    int r = list_cidrs(x->m, prefix, used, x->e);
    arena_fini(&a);
    vec_sort(&used->v, listed_qcmp);
    size_t n = 0;
    for (size_t i = 0; i < used->v.n; i++) {
        if (n == 0 || !prefix_has(&used->v.p[n - 1].cidr, &used->v.p[i].cidr)) {
            used->v.p[n++] = used->v.p[i];
        }
    }
    used->v.n = n;
    return r;
}

/* Does a block of the store (sorted, none over another) share addresses with p? It may be of
 * another size: the pool's block size was another one when it was made. */
static bool overlaps_any(const struct cidr_list *used, const struct prefix *p) {
    size_t lo = 0, hi = used->v.n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (prefix_cmp(&used->v.p[mid].cidr, p) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return (lo < used->v.n && prefix_overlaps(&used->v.p[lo].cidr, p)) ||
           (lo > 0 && prefix_overlaps(&used->v.p[lo - 1].cidr, p));
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
    bool is_claimed = false;
    int r = claim(c->x, block, &is_claimed);
    if (r == ERR_EXISTS) {
        return false;
    }
    c->n_owned += is_claimed;
    c->r = r;
    return r < 0 || c->x->n >= c->x->want || c->n_owned >= c->max_owned;
}

static int from_new_blocks(struct assigning *x, const struct cidr_list *used, size_t *n_owned,
                           bool *is_limited) {
    size_t max = x->o->max_blocks ? x->o->max_blocks : IPAM_DEFAULT_MAX_BLOCKS;
    struct claiming c = {x, used, *n_owned, max, 0};
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
    *n_owned = c.n_owned;
    return c.r;
}

/* ---- what others have ---- */

/* A block of another's, or nobody's, with what it may give. */
struct lent {
    struct prefix cidr;
    struct str owner; /* node; empty: nobody's */
    bool has_free;
    bool is_idle; /* a node's, nothing in use, claimed long enough ago */
};
struct survey {
    struct assigning *x;
    struct arena a;
    VEC(struct lent) v;
};

static int survey_block(void *arg, const struct store_item *it) {
    struct survey *s = arg;
    const struct assigning *x = s->x;
    struct arena a = {0};
    struct block *b = NULL;
    struct err ignored; /* one that can't be read gives nothing; check names it */
    if (ipam_parse_block(it->key, it->value, &a, &b, &ignored) == 0 && pool_of(x->o, &b->cidr)) {
        struct lent l = {.cidr = b->cidr, .owner = STR("")};
        bool is_host = str_starts(b->affinity, STR("host:"));
        ipam_wake(x->m, b);
        l.has_free = b->n_queue > 0;
        if (is_host) {
            l.owner = arena_dup(&s->a, str_sub(b->affinity, strlen("host:"), b->affinity.n));
            l.is_idle = block_in_use(b) == 0 &&
                        block_claimed_ns(b) + IPAM_RECLAIM_AGE_S * 1000000000LL <= x->m->now();
        }
        vec_push(&s->v, l);
    }
    arena_fini(&a);
    return 0;
}

/* Another node's block that has been empty for a while becomes ours, as Calico does: its owner
 * gives it up (a compare-and-swap; an address assigned meanwhile stops it) and we claim it. */
static int reclaim(struct survey *s, size_t n_owned, size_t max) {
    struct assigning *x = s->x;
    for (size_t i = 0; i < s->v.n && x->n < x->want && n_owned < max; i++) {
        struct lent *l = &s->v.p[i];
        if (!l->is_idle || str_eq(l->owner, str_c(x->m->node))) {
            continue;
        }
        struct ipam *owner = ipam_new(x->m->store, l->owner);
        owner->now = x->m->now;
        owner->cooldown_s = x->m->cooldown_s;
        /* A conflict: it is in use again, and not for us. */
        int r = ipam_release_block(owner, &l->cidr, x->e);
        ipam_free(owner);
        bool is_claimed = false;
        r = r == 0 ? claim(x, &l->cidr, &is_claimed) : r;
        n_owned += is_claimed;
        l->has_free = l->has_free && !is_claimed;
        if (r < 0 && !ipam_is_race(r)) {
            return r;
        }
    }
    return 0;
}

/* One address after the other out of blocks of others, from a place of this node's own on, so that
 * nodes do not all want the same one. */
static int borrow_any(struct survey *s) {
    struct assigning *x = s->x;
    uint64_t start = s->v.n ? first_index(x->m, s->v.n) : 0;
    for (size_t i = 0; i < s->v.n && x->n < x->want; i++) {
        const struct lent *l = &s->v.p[(start + i) % s->v.n];
        int r = l->has_free ? borrow(x, &l->cidr) : 0;
        if (r < 0 && r != ERR_NOT_FOUND) {
            return r;
        }
    }
    return 0;
}

static int from_others(struct assigning *x, size_t n_owned) {
    struct survey s = {.x = x};
    size_t max = x->o->max_blocks ? x->o->max_blocks : IPAM_DEFAULT_MAX_BLOCKS;
    struct str prefix = arena_printf(&s.a, "/ipam/v2/assignment/ipv%u/block/", x->family);
    int r = store_list(x->m->store, (struct store_key){STR(STORE_SPACE_IPAM), prefix}, NULL,
                       survey_block, &s, x->e);
    if (r == 0 && !x->o->no_new_blocks) {
        r = reclaim(&s, n_owned, max);
    }
    if (r == 0 && x->n < x->want && !x->o->strict_affinity) {
        r = borrow_any(&s);
    }
    vec_fini(&s.v);
    arena_fini(&s.a);
    return r;
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

/* Blocks that say they are ours while no affinity of ours names them: taken up again. */
static int from_forgotten(struct assigning *x, const struct cidr_list *used,
                          const struct cidr_list *own, size_t *n_owned) {
    int r = 0;
    for (size_t i = 0; i < used->v.n && r == 0 && x->n < x->want; i++) {
        const struct listed *b = &used->v.p[i];
        bool is_known = !b->may_be_ours || !pool_of(x->o, &b->cidr);
        for (size_t k = 0; k < own->v.n && !is_known; k++) {
            is_known = prefix_eq(&own->v.p[k].cidr, &b->cidr);
        }
        if (!is_known) {
            bool is_ours;
            r = from_affine(x, b, &is_ours);
            *n_owned += is_ours;
        }
    }
    return r;
}

static int from_elsewhere(struct assigning *x, const struct cidr_list *own, size_t n_owned,
                          bool *is_limited) {
    struct cidr_list used = {.v = {0}};
    int r = list_blocks(x, &used);
    if (r == 0) {
        r = from_forgotten(x, &used, own, &n_owned);
    }
    if (r == 0 && x->n < x->want && !x->o->no_new_blocks) {
        r = from_new_blocks(x, &used, &n_owned, is_limited);
    }
    if (r == 0 && x->n < x->want && !*is_limited) {
        r = from_others(x, n_owned);
    }
    vec_fini(&used.v);
    return r;
}

static bool is_refused(const struct ipam_options *o, const struct prefix *block) {
    for (size_t i = 0; i < o->n_refusing; i++) {
        if (prefix_has(&o->refusing[i].cidr, block)) {
            return true;
        }
    }
    return false;
}

static int assign(struct assigning *x, bool *is_limited) {
    struct cidr_list own = {.v = {0}};
    struct arena a = {0};
    struct str prefix =
        arena_printf(&a, "/ipam/v2/%s/%s/ipv%u/block/", x->m->owner_kind, x->m->node, x->family);
    int r = list_cidrs(x->m, prefix, &own, x->e);
    arena_fini(&a);
    size_t n_owned = own.v.n;
    for (size_t i = 0; i < own.v.n && r == 0 && x->n < x->want; i++) {
        if (pool_of(x->o, &own.v.p[i].cidr)) {
            bool is_ours;
            r = from_affine(x, &own.v.p[i], &is_ours);
            n_owned -= !is_ours;
        } else if (is_refused(x->o, &own.v.p[i].cidr)) {
            struct err ignored; /* still in use, or another's already */
            n_owned -= ipam_release_block(x->m, &own.v.p[i].cidr, &ignored) == 0;
        }
    }
    if (r == 0 && x->n < x->want) {
        r = from_elsewhere(x, &own, n_owned, is_limited);
    }
    vec_fini(&own.v);
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
    struct err ignored; /* what was taken goes back; the first error counts */
    (void)!ipam_release_ips(m, out, x.n, handle, NULL, &ignored);
    return r == 0 ? no_space(&x, is_limited) : r;
}

/* ---- one address ---- */

static int held_by(const struct assigning *x, const struct block *b, uint32_t ordinal,
                   const struct ip46 *ip) {
    char text[IP_TEXT_MAX];
    struct str ns = block_attr_of(b, ordinal, "namespace"), pod = block_attr_of(b, ordinal, "pod");
    struct str h = block_handle_of(b, ordinal);
    if (!pod.n) { /* a tunnel's, a Service's, or whoever left no name */
        return err_set(x->e, ERR_EXISTS, "address %s is in use under the handle %.*s",
                       ip_text(ip, text), STR_FMT(h));
    }
    return err_set(x->e, ERR_EXISTS, "address %s is in use by %.*s/%.*s (handle %.*s)",
                   ip_text(ip, text), STR_FMT(ns), STR_FMT(pod), STR_FMT(h));
}

static int assign_ip_once(struct assigning *x, const struct prefix *cidr, const struct ip46 *ip,
                          struct arena *a) {
    struct stored_block s;
    int r = ipam_get_block(x->m, cidr, a, &s, x->e);
    if (r == ERR_NOT_FOUND) {
        r = 0;
        s = (struct stored_block){block_new(cidr, str_c(x->m->affinity), x->m->now(), a), REV_NONE};
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
    block_take(s.b, ordinal, make_attr(x, a));
    r = is_new ? create(x, &s, 1, a) : write_taken(x, &s, 1, a);
    return r == ERR_EXISTS ? ERR_CONFLICT : r; /* the block came into being meanwhile */
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
