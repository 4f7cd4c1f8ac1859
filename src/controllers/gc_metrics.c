/* The collector's numbers, with the names of Calico's kube-controllers. */
#include "controllers/gc_int.h"

#include <math.h>
#include <stdlib.h>

struct row {
    const char *pool;
    struct str node;
    size_t blocks, in_use, borrowed, candidates;
};

#define MAP_NAME placetab
#define MAP_KEY uint64_t /* of pool and node: a clash of two would only add them up */
#define MAP_VAL uint32_t
#define MAP_HASH(k) (k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct rows {
    VEC(struct row) v;
    struct placetab places;
};

static struct row *row_of(struct rows *r, const char *pool, struct str node) {
    bool is_new;
    uint64_t key = hash_u64((uint64_t)(uintptr_t)pool) ^ hash_str(node);
    uint32_t *place = placetab_put(&r->places, key, &is_new);
    if (is_new) {
        *place = (uint32_t)r->v.n;
        vec_push(&r->v, (struct row){.pool = pool, .node = node});
    }
    return &r->v.p[*place];
}

static void rows_fini(struct rows *r) {
    vec_fini(&r->v);
    placetab_fini(&r->places);
}

static int row_cmp(const void *x, const void *y) {
    const struct row *a = x, *b = y;
    int c = strcmp(a->pool, b->pool);
    return c ? c : str_cmp(a->node, b->node);
}

static void add_block(const struct gc *g, const struct block_rec *b, struct rows *rows) {
    const char *pool = gc_pool_of(g, &b->cidr);
    struct str host = gc_host_of(b->affinity);
    struct str owner = host.n ? host : STR("no_affinity");
    row_of(rows, pool, owner)->blocks++;
    for (size_t i = 0; i < b->n; i++) {
        const struct gc_alloc *x = &b->allocs[i];
        struct row *r = row_of(rows, pool, x->node.n ? x->node : STR("unknown_node"));
        r->in_use++;
        r->borrowed += x->node.n && !str_eq(x->node, owner);
        r->candidates += candtab_get(&g->cands, gc_id(x)) != NULL;
    }
}

static void put_label(struct buf *out, struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\') {
            buf_putc(out, '\\');
        }
        buf_putc(out, s.p[i] == '\n' ? ' ' : s.p[i]);
    }
}

static void head(struct buf *out, const char *name, const char *type, const char *help) {
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static size_t number_in(const struct row *r, size_t offset) {
    return *(const size_t *)(const void *)((const char *)r + offset);
}

static void put_rows(struct buf *out, const struct rows *rows, const char *name, const char *help,
                     size_t offset, bool is_zero_shown) {
    head(out, name, "gauge", help);
    for (size_t i = 0; i < rows->v.n; i++) {
        const struct row *r = &rows->v.p[i];
        size_t n = number_in(r, offset);
        if (n || is_zero_shown) {
            buf_printf(out, "%s{", name);
            if (r->pool[0]) {
                buf_printf(out, "ippool=\"%s\",", r->pool);
            }
            buf_puts(out, "node=\"");
            put_label(out, r->node);
            buf_printf(out, "\"} %zu\n", n);
        }
    }
}

/* The older names, by node alone. */
static void put_by_node(struct buf *out, const struct rows *rows) {
    struct rows sums = {.v = {0}};
    for (size_t i = 0; i < rows->v.n; i++) {
        struct row *r = row_of(&sums, "", rows->v.p[i].node);
        r->in_use += rows->v.p[i].in_use;
        r->borrowed += rows->v.p[i].borrowed;
        r->blocks += rows->v.p[i].blocks;
    }
    put_rows(out, &sums, "ipam_allocations_per_node", "Number of IPs allocated.",
             offsetof(struct row, in_use), false);
    put_rows(out, &sums, "ipam_allocations_borrowed_per_node",
             "Number of allocated IPs from non-affine blocks.", offsetof(struct row, borrowed),
             false);
    put_rows(out, &sums, "ipam_blocks_per_node", "Number of IPAM blocks.",
             offsetof(struct row, blocks), false);
    rows_fini(&sums);
}

struct zeroing {
    const struct gc *g;
    struct rows *rows;
};
static void add_zero(void *arg, const struct fact_node *n) {
    struct zeroing *z = arg;
    for (size_t i = 0; i < z->g->pools.n; i++) {
        (void)row_of(z->rows, z->g->pools.p[i].name, n->name);
    }
}

void gc_released(struct gc *g, const struct gc_alloc *v) {
    struct prefix p = {v->ip, (uint8_t)ip_bits(&v->ip)};
    const char *pool = gc_pool_of(g, &p);
    struct str node = v->node.n ? v->node : STR("unknown_node");
    for (size_t i = 0; i < g->reclaimed.n; i++) {
        if (strcmp(g->reclaimed.p[i].pool, pool) == 0 && str_is(node, g->reclaimed.p[i].node)) {
            g->reclaimed.p[i].n++;
            return;
        }
    }
    struct reclaimed r = {strdup(pool), strndup(node.p, node.n), 1};
    mg_assert(r.pool && r.node);
    vec_push(&g->reclaimed, r);
}

void gc_metrics(const struct gc *g, const struct facts *f, struct buf *out) {
    struct rows rows = {.v = {0}};
    size_t i = 0;
    struct block_rec **b;
    struct zeroing z = {g, &rows};
    facts_each_node(f, add_zero, &z);
    while (blocktab_next(&g->blocks, &i, NULL, &b)) {
        add_block(g, *b, &rows);
    }
    vec_sort(&rows.v, row_cmp);
    put_rows(out, &rows, "ipam_allocations_in_use",
             "IPs currently allocated to a workload or tunnel endpoint.",
             offsetof(struct row, in_use), true);
    put_rows(out, &rows, "ipam_allocations_borrowed",
             "IPs allocated from a block that is affine to another node.",
             offsetof(struct row, borrowed), true);
    put_rows(out, &rows, "ipam_blocks", "IPAM blocks of the pool.", offsetof(struct row, blocks),
             false);
    put_rows(out, &rows, "ipam_allocations_gc_candidates",
             "Allocations that may be collected if nothing changes.",
             offsetof(struct row, candidates), true);
    head(out, "ipam_allocations_gc_reclamations", "counter", "Allocations that were collected.");
    for (i = 0; i < g->reclaimed.n; i++) {
        buf_printf(out, "ipam_allocations_gc_reclamations{ippool=\"%s\",node=\"%s\"} %llu\n",
                   g->reclaimed.p[i].pool, g->reclaimed.p[i].node,
                   (unsigned long long)g->reclaimed.p[i].n);
    }
    head(out, "ipam_ippool_size", "gauge", "Number of addresses in the IP pool.");
    for (i = 0; i < g->pools.n; i++) {
        const struct prefix *p = &g->pools.p[i].cidr;
        buf_printf(out, "ipam_ippool_size{ippool=\"%s\"} %.0f\n", g->pools.p[i].name,
                   ldexp(1, (int)(ip_bits(&p->ip) - p->len)));
    }
    put_by_node(out, &rows);
    rows_fini(&rows);
}
