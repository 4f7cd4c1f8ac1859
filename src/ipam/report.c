/* What is in use, and whether blocks, handles and affinities agree. What mends them is repair.c. */
#include "ipam/ipam_int.h"

#include "base/hash.h"
#include "base/vec.h"

#include <math.h>
#include <stdlib.h>

#define MAP_NAME count_map
#define MAP_KEY struct str
#define MAP_VAL int64_t
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

typedef VEC(struct block *) block_vec;

static int block_qcmp(const void *a, const void *b) {
    return prefix_cmp(&(*(struct block *const *)a)->cidr, &(*(struct block *const *)b)->cidr);
}

struct reading {
    struct arena *a;
    block_vec *out;
    struct err *e;
    int first;                                  /* the first block that could not be read */
    void (*on_bad)(void *arg, struct str text); /* may be NULL: then one is enough to fail */
    void *arg;
};
static int add_block(void *arg, const struct store_item *it) {
    struct reading *r = arg;
    struct block *b = NULL;
    struct err e = {.code = 0};
    int rc = ipam_parse_block(it->key, arena_dup(r->a, it->value), r->a, &b, &e);
    if (rc == 0) {
        vec_push(r->out, b);
    } else if (r->on_bad) {
        r->on_bad(r->arg, str_c(e.msg));
    } else if (r->first == 0) {
        r->first = err_set(r->e, rc, "%s", e.msg);
    }
    return 0;
}

static int read_with(struct ipam *m, struct reading *r) {
    struct store_key blocks = {STR(STORE_SPACE_IPAM), STR("/ipam/v2/assignment/")};
    int rc = store_list(m->store, blocks, NULL, add_block, r, r->e);
    return rc < 0 ? rc : r->first;
}

static int read_blocks(struct ipam *m, struct arena *a, block_vec *out, struct err *e) {
    struct reading r = {.a = a, .out = out, .e = e};
    return read_with(m, &r);
}

static double size_of(const struct prefix *p) {
    return ldexp(1, (int)(ip_bits(&p->ip) - p->len));
}

static void tell_blocks(const block_vec *v, const struct prefix *in, struct str pool,
                        void (*cb)(void *arg, const struct ipam_usage *u), void *arg) {
    for (size_t i = 0; i < v->n; i++) {
        const struct block *b = v->p[i];
        if (in->ip.family == b->cidr.ip.family && prefix_has(in, &b->cidr)) {
            struct ipam_usage u = {.pool = pool,
                                   .cidr = b->cidr,
                                   .total = b->size,
                                   .in_use = block_in_use(b),
                                   .affinity = b->affinity,
                                   .is_block = true};
            cb(arg, &u);
        }
    }
}

int ipam_show(struct ipam *m, const struct ipam_pool *pools, size_t n_pools,
              void (*cb)(void *arg, const struct ipam_usage *u), void *arg, struct err *e) {
    struct arena a = {0};
    block_vec v = {0};
    int r = read_blocks(m, &a, &v, e);
    for (size_t i = 0; r == 0 && i < n_pools; i++) {
        struct ipam_usage u = {
            .pool = pools[i].name, .cidr = pools[i].cidr, .total = size_of(&pools[i].cidr)};
        for (size_t j = 0; j < v.n; j++) {
            if (v.p[j]->cidr.ip.family == u.cidr.ip.family && prefix_has(&u.cidr, &v.p[j]->cidr)) {
                u.in_use += block_in_use(v.p[j]);
            }
        }
        cb(arg, &u);
        tell_blocks(&v, &u.cidr, pools[i].name, cb, arg);
    }
    vec_fini(&v);
    arena_fini(&a);
    return r;
}

int ipam_allocations(struct ipam *m, void (*cb)(void *arg, const struct ipam_allocation *x),
                     void *arg, struct err *e) {
    struct arena a = {0};
    block_vec v = {0};
    int r = read_blocks(m, &a, &v, e);
    vec_sort(&v, block_qcmp);
    for (size_t i = 0; r == 0 && i < v.n; i++) {
        const struct block *b = v.p[i];
        for (uint32_t k = 0; k < b->size; k++) {
            struct ipam_allocation x = {.block = b->cidr, .affinity = b->affinity};
            if (b->alloc[k] < 0 || !prefix_nth(&b->cidr, k, &x.ip)) {
                continue;
            }
            x.handle = block_handle_of(b, k);
            x.ns = block_attr_of(b, k, "namespace");
            x.pod = block_attr_of(b, k, "pod");
            x.node = block_attr_of(b, k, "node");
            x.type = block_attr_of(b, k, "type");
            x.sequence = b->sequence_of[k];
            x.is_resting = block_is_resting(b, k);
            x.attributes = b->attrs[b->alloc[k]];
            cb(arg, &x);
        }
    }
    vec_fini(&v);
    arena_fini(&a);
    return r;
}

struct each {
    void (*cb)(void *arg, const struct ip46 *ip, struct str handle, struct str ns, struct str pod);
    void *arg;
};
static void each_one(void *arg, const struct ipam_allocation *x) {
    const struct each *t = arg;
    if (!x->is_resting) {
        t->cb(t->arg, &x->ip, x->handle, x->ns, x->pod);
    }
}

int ipam_each(struct ipam *m,
              void (*cb)(void *arg, const struct ip46 *ip, struct str handle, struct str ns,
                         struct str pod),
              void *arg, struct err *e) {
    struct each t = {cb, arg};
    return ipam_allocations(m, each_one, &t, e);
}

struct checking {
    struct arena *a;
    struct count_map counts; /* "HANDLE CIDR" → what blocks have less what handles say */
    struct count_map owned;  /* "host:NODE CIDR" of affinities */
    block_vec v;             /* sorted by cidr */
    void (*cb)(void *arg, const struct ipam_fault *f);
    void *arg;
    int n;
};

static void tell(struct checking *c, enum ipam_fault_kind kind, const struct prefix *cidr,
                 struct str name, struct str text) {
    struct ipam_fault f = {
        .kind = kind, .cidr = cidr ? *cidr : (struct prefix){{0}, 0}, .name = name, .text = text};
    c->cb(c->arg, &f);
    c->n++;
}

static void tell_unreadable(void *arg, struct str text) {
    tell(arg, IPAM_UNREADABLE, NULL, STR(""), text);
}

static void count(struct checking *c, struct str handle, struct str cidr, int64_t n) {
    struct str key = arena_printf(c->a, "%.*s %.*s", STR_FMT(handle), STR_FMT(cidr));
    *count_map_put(&c->counts, key, NULL) += n;
}

static int check_handle(void *arg, const struct store_item *it) {
    struct checking *c = arg;
    struct jnode *doc = NULL;
    struct err e;
    struct str name = str_sub(it->key, strlen("/ipam/v2/handle/"), it->key.n);
    if (json_parse(arena_dup(c->a, it->value), &json_limits_default, c->a, &doc, &e) < 0) {
        tell_unreadable(c,
                        arena_printf(c->a, "handle %.*s can't be read: %s", STR_FMT(name), e.msg));
        return 0;
    }
    struct jnode *blocks = jnode_getc(doc, "block");
    jnode_each (n, blocks) {
        count(c, name, n->key, n->type == J_INT ? -n->i : 0);
    }
    return 0;
}

/* Index of the first block whose cidr is not less. */
static size_t first_from(const block_vec *v, const struct prefix *cidr) {
    size_t lo = 0, hi = v->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (prefix_cmp(&v->p[mid]->cidr, cidr) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static int check_affinity(void *arg, const struct store_item *it) {
    struct checking *c = arg;
    struct prefix cidr;
    bool is_host = str_starts(it->key, STR("/ipam/v2/host/"));
    struct str rest =
        str_sub(it->key, strlen(is_host ? "/ipam/v2/host/" : "/ipam/v2/virtual/"), it->key.n);
    ptrdiff_t slash = str_find(rest, '/', 0);
    if (slash < 0 || ipam_parse_cidr(it->key, &cidr) < 0) {
        return 0;
    }
    struct str owner =
        arena_printf(c->a, "%s:%.*s", is_host ? "host" : "virtual", (int)slash, rest.p);
    char text[IP_TEXT_MAX];
    (void)prefix_text(&cidr, text);
    *count_map_put(&c->owned, arena_printf(c->a, "%.*s %s", STR_FMT(owner), text), NULL) = 1;
    size_t i = first_from(&c->v, &cidr);
    if (i == c->v.n || !prefix_eq(&c->v.p[i]->cidr, &cidr)) {
        tell(c, IPAM_STRAY_AFFINITY, &cidr, owner,
             arena_printf(c->a, "%.*s has an affinity for block %s, which does not exist",
                          STR_FMT(owner), text));
    } else if (!str_eq(c->v.p[i]->affinity, owner)) {
        struct str own = c->v.p[i]->affinity;
        tell(c, IPAM_STRAY_AFFINITY, &cidr, owner,
             arena_printf(c->a, "%.*s has an affinity for block %s, the block says %.*s",
                          STR_FMT(owner), text, STR_FMT(own.n ? own : STR("nobody's"))));
    }
    return 0;
}

/* What a block says by itself. Counts its handles. */
static void check_block(struct checking *c, const struct block *b, const struct block *before) {
    char text[IP_TEXT_MAX], other[IP_TEXT_MAX];
    struct str cidr = arena_dup(c->a, str_c(prefix_text(&b->cidr, text)));
    for (uint32_t k = 0; k < b->size; k++) {
        struct str handle = block_handle_of(b, k); /* none: cooling down, or assigned without */
        if (handle.n) {
            count(c, handle, cidr, 1);
        }
    }
    if (b->n_queue + block_in_use(b) != b->size) {
        tell(c, IPAM_LOST, &b->cidr, STR(""),
             arena_printf(c->a, "block %.*s: %u addresses are neither free nor in use",
                          STR_FMT(cidr), b->size - b->n_queue - block_in_use(b)));
    }
    if (before && prefix_overlaps(&before->cidr, &b->cidr)) {
        /* The one that can go is named. */
        bool is_first = block_in_use(b) > 0 && block_in_use(before) == 0;
        tell(c, IPAM_OVERLAP, is_first ? &before->cidr : &b->cidr, STR(""),
             arena_printf(c->a, "blocks %s and %.*s have addresses in common",
                          prefix_text(&before->cidr, other), STR_FMT(cidr)));
    }
}

static void check_owner(struct checking *c, const struct block *b) {
    char text[IP_TEXT_MAX];
    (void)prefix_text(&b->cidr, text);
    if (b->affinity.n &&
        !count_map_get(&c->owned, arena_printf(c->a, "%.*s %s", STR_FMT(b->affinity), text))) {
        tell(c, IPAM_NO_AFFINITY, &b->cidr, b->affinity,
             arena_printf(c->a, "block %s says it is of %.*s, which has no affinity for it", text,
                          STR_FMT(b->affinity)));
    }
}

static void check_counts(struct checking *c) {
    VEC(struct str) keys = {0};
    struct str key;
    int64_t *n;
    for (size_t i = 0; count_map_next(&c->counts, &i, &key, &n);) {
        if (*n) {
            vec_push(&keys, key);
        }
    }
    vec_sort(&keys, str_cmp_qsort);
    for (size_t i = 0; i < keys.n; i++) {
        struct str rest = keys.p[i], handle = str_cut(&rest, ' ');
        int64_t more = *count_map_get(&c->counts, keys.p[i]);
        struct prefix cidr = {{0}, 0};
        if (prefix_parse(rest, &cidr) < 0) {
            cidr.ip.family = IP_NONE; /* a name of no block: repaired with the handle */
        }
        tell(c, IPAM_HANDLE, &cidr, handle,
             arena_printf(c->a, "handle and block disagree by %lld addresses: %.*s",
                          (long long)more, STR_FMT(keys.p[i])));
    }
    vec_fini(&keys);
}

int ipam_faults(struct ipam *m, void (*cb)(void *arg, const struct ipam_fault *f), void *arg,
                struct err *e) {
    static const char *const prefixes[] = {"/ipam/v2/handle/", "/ipam/v2/host/",
                                           "/ipam/v2/virtual/"};
    struct arena a = {0};
    struct checking c = {.a = &a, .cb = cb, .arg = arg};
    struct reading reading = {.a = &a, .out = &c.v, .e = e, .on_bad = tell_unreadable, .arg = &c};
    int r = read_with(m, &reading);
    vec_sort(&c.v, block_qcmp);
    const struct block *before = NULL; /* the one that reaches furthest */
    for (size_t i = 0; r == 0 && i < c.v.n; i++) {
        check_block(&c, c.v.p[i], before);
        before = before && prefix_has(&before->cidr, &c.v.p[i]->cidr) ? before : c.v.p[i];
    }
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(prefixes); i++) {
        struct store_key k = {STR(STORE_SPACE_IPAM), str_c(prefixes[i])};
        r = store_list(m->store, k, NULL, i == 0 ? check_handle : check_affinity, &c, e);
    }
    for (size_t i = 0; r == 0 && i < c.v.n; i++) {
        check_owner(&c, c.v.p[i]);
    }
    if (r == 0) {
        check_counts(&c);
    }
    count_map_fini(&c.counts);
    count_map_fini(&c.owned);
    vec_fini(&c.v);
    arena_fini(&a);
    return r < 0 ? r : c.n;
}

struct telling {
    void (*cb)(void *arg, struct str text);
    void *arg;
};
static void tell_text(void *arg, const struct ipam_fault *f) {
    const struct telling *t = arg;
    t->cb(t->arg, f->text);
}

int ipam_check(struct ipam *m, void (*cb)(void *arg, struct str text), void *arg, struct err *e) {
    struct telling t = {cb, arg};
    return ipam_faults(m, tell_text, &t, e);
}
