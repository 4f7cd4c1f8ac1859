/* See paths.h. A block knows the routes that were told for it; a node knows the blocks that lead to
 * it: what changes is marked, and a flush looks at what is marked alone. */
#include "ipam/paths.h"

#include "base/buf.h"
#include "base/hash.h"
#include "base/vec.h"

#include <stdio.h>
#include <stdlib.h>

struct pblock;

/* A node that is known, or that blocks name. */
struct pnode {
    char *name;
    bool is_known, is_dirty;
    struct path_node info;
    struct path_vtep told[2];
    bool is_told[2];
    VEC(struct pblock *) blocks; /* whose routes depend on it */
};

struct holder {
    struct ip46 ip;
    struct pnode *node;
};

struct pblock {
    struct prefix cidr;
    struct pnode *node; /* NULL: nobody's */
    VEC(struct holder) borrowed;
    VEC(struct path_route) told;
    bool is_dirty, is_gone, is_unreachable;
};

struct ppool {
    char *name;
    struct path_pool pool;
};

#define MAP_NAME pnodes
#define MAP_KEY struct str
#define MAP_VAL struct pnode *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

#define MAP_NAME pblocks
#define MAP_KEY struct prefix
#define MAP_VAL struct pblock *
#define MAP_HASH(k) (ip_hash(&(k).ip) ^ (k).len)
#define MAP_EQ(a, b) prefix_eq(&(a), &(b))
#include "base/map.tmpl.h"

struct paths {
    char *own;
    bool has_bgp;
    struct path_ops ops;
    void *arg;
    VEC(struct ppool) pools;
    struct pnodes nodes;
    struct pblocks blocks;
    VEC(struct pblock *) dirty_blocks;
    VEC(struct pnode *) dirty_nodes;
    size_t n_routes, n_vteps, n_known;
    bool is_all_dirty;
};

struct paths *paths_new(struct str own, bool has_bgp, const struct path_ops *ops, void *arg) {
    struct paths *p = calloc(1, sizeof(*p));
    mg_assert(p != NULL);
    p->own = strndup(own.p, own.n);
    mg_assert(p->own != NULL);
    p->has_bgp = has_bgp;
    p->ops = *ops;
    p->arg = arg;
    return p;
}

static void block_free(struct pblock *b) {
    vec_fini(&b->borrowed);
    vec_fini(&b->told);
    free(b);
}

static void node_free(struct pnode *n) {
    vec_fini(&n->blocks);
    free(n->name);
    free(n);
}

void paths_free(struct paths *p) {
    if (!p) {
        return;
    }
    struct pnode **n;
    struct pblock **b;
    for (size_t i = 0; pnodes_next(&p->nodes, &i, NULL, &n);) {
        node_free(*n);
    }
    for (size_t i = 0; pblocks_next(&p->blocks, &i, NULL, &b);) {
        block_free(*b);
    }
    for (size_t i = 0; i < p->pools.n; i++) {
        free(p->pools.p[i].name);
    }
    pnodes_fini(&p->nodes);
    pblocks_fini(&p->blocks);
    vec_fini(&p->pools);
    vec_fini(&p->dirty_blocks);
    vec_fini(&p->dirty_nodes);
    free(p->own);
    free(p);
}

void path_vxlan_mac(struct str node, enum ip_family family, uint8_t mac[6]) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    uint8_t digest[20];
    buf_str(&b, node);
    if (family == IP_V6) {
        buf_puts(&b, "-v6");
    }
    sha1(b.p, b.n, digest);
    mac[0] = 0x66;
    memcpy(mac + 1, digest, 5);
}

void path_node_mac(struct str text, struct str node, enum ip_family family, uint8_t mac[6]) {
    if (mac_parse(text, mac) < 0) {
        path_vxlan_mac(node, family, mac);
    }
}

/* ---- what is ---- */

static void touch_block(struct paths *p, struct pblock *b) {
    if (!b->is_dirty) {
        b->is_dirty = true;
        vec_push(&p->dirty_blocks, b);
    }
}

static void touch_node(struct paths *p, struct pnode *n) {
    if (!n->is_dirty) {
        n->is_dirty = true;
        vec_push(&p->dirty_nodes, n);
    }
    for (size_t i = 0; i < n->blocks.n; i++) {
        touch_block(p, n->blocks.p[i]);
    }
}

static struct pnode *node_of(struct paths *p, struct str name) {
    struct pnode **at = pnodes_get(&p->nodes, name);
    if (at) {
        return *at;
    }
    struct pnode *n = calloc(1, sizeof(*n));
    mg_assert(n != NULL);
    n->name = strndup(name.p, name.n);
    mg_assert(n->name != NULL);
    *pnodes_put(&p->nodes, str_n(n->name, name.n), NULL) = n;
    return n;
}

/* A node that nobody names any more. */
static void drop_unused(struct paths *p, struct pnode *n) {
    if (!n->is_known && n->blocks.n == 0 && !n->is_dirty && !n->is_told[0] && !n->is_told[1]) {
        (void)pnodes_del(&p->nodes, str_c(n->name));
        node_free(n);
    }
}

void paths_pool(struct paths *p, struct str name, const struct path_pool *pool) {
    size_t i = 0;
    while (i < p->pools.n && !str_is(name, p->pools.p[i].name)) {
        i++;
    }
    if (i < p->pools.n && pool && prefix_eq(&p->pools.p[i].pool.cidr, &pool->cidr) &&
        p->pools.p[i].pool.mode == pool->mode) {
        return;
    }
    if (i == p->pools.n && !pool) {
        return;
    }
    p->is_all_dirty = true;
    if (i == p->pools.n) {
        char *copy = strndup(name.p, name.n);
        mg_assert(copy != NULL);
        vec_push(&p->pools, (struct ppool){copy, *pool});
    } else if (pool) {
        p->pools.p[i].pool = *pool;
    } else {
        free(p->pools.p[i].name);
        vec_swap_remove(&p->pools, i);
    }
}

static bool is_same_node(const struct path_node *a, const struct path_node *b) {
    for (size_t i = 0; i < 2; i++) {
        if (!prefix_eq(&a->addr[i], &b->addr[i]) || !ip_eq(&a->vxlan_addr[i], &b->vxlan_addr[i]) ||
            memcmp(a->vxlan_mac[i], b->vxlan_mac[i], 6) != 0) {
            return false;
        }
    }
    return true;
}

bool paths_node(struct paths *p, struct str name, const struct path_node *node) {
    struct pnode **at = pnodes_get(&p->nodes, name);
    if (!node && (!at || !(*at)->is_known)) {
        return false;
    }
    struct pnode *n = node_of(p, name);
    if (node && n->is_known && is_same_node(&n->info, node)) {
        return false;
    }
    p->n_known += (node != NULL) - (size_t)n->is_known;
    n->is_known = node != NULL;
    n->info = node ? *node : (struct path_node){0};
    touch_node(p, n);
    if (str_is(name, p->own)) {
        p->is_all_dirty = true; /* what is in our subnet */
    }
    return true;
}

void paths_each_node(const struct paths *p,
                     void (*cb)(void *arg, const char *name, const struct path_node *node),
                     void *arg) {
    struct pnode **n;
    for (size_t i = 0; pnodes_next(&p->nodes, &i, NULL, &n);) {
        if ((*n)->is_known) {
            cb(arg, (*n)->name, &(*n)->info);
        }
    }
}

static void detach(struct paths *p, struct pblock *b, struct pnode *n) {
    for (size_t i = 0; n && i < n->blocks.n; i++) {
        if (n->blocks.p[i] == b) {
            vec_swap_remove(&n->blocks, i);
            break;
        }
    }
    if (n) {
        drop_unused(p, n);
    }
}

static void attach(struct pblock *b, struct pnode *n) {
    vec_push(&n->blocks, b);
}

static bool is_same_block(const struct pblock *b, const struct path_block *o) {
    if (!str_is(o->node, b->node ? b->node->name : "") || b->borrowed.n != o->n_borrowed) {
        return false;
    }
    for (size_t i = 0; i < o->n_borrowed; i++) {
        if (!ip_eq(&b->borrowed.p[i].ip, &o->borrowed[i].ip) ||
            !str_is(o->borrowed[i].node, b->borrowed.p[i].node->name)) {
            return false;
        }
    }
    return true;
}

void paths_block(struct paths *p, const struct prefix *cidr, const struct path_block *block) {
    struct pblock **at = pblocks_get(&p->blocks, *cidr), *b = at ? *at : NULL;
    if (!block && !b) {
        return;
    }
    if (b && block && !b->is_gone && is_same_block(b, block)) {
        return; /* an address came or went: the usual news */
    }
    if (!b) {
        b = calloc(1, sizeof(*b));
        mg_assert(b != NULL);
        b->cidr = *cidr;
        *pblocks_put(&p->blocks, *cidr, NULL) = b;
    }
    VEC(struct pnode *) old = {0};
    if (b->node) {
        vec_push(&old, b->node);
    }
    for (size_t i = 0; i < b->borrowed.n; i++) {
        vec_push(&old, b->borrowed.p[i].node);
    }
    b->node = NULL;
    vec_clear(&b->borrowed);
    b->is_gone = !block;
    if (block && block->node.n) {
        b->node = node_of(p, block->node);
        attach(b, b->node);
    }
    for (size_t i = 0; block && i < block->n_borrowed; i++) {
        struct pnode *n = node_of(p, block->borrowed[i].node);
        vec_push(&b->borrowed, (struct holder){block->borrowed[i].ip, n});
        attach(b, n);
    }
    for (size_t i = 0; i < old.n; i++) {
        detach(p, b, old.p[i]);
    }
    vec_fini(&old);
    touch_block(p, b);
}

/* ---- what follows ---- */

static const struct path_pool *pool_of(const struct paths *p, const struct prefix *cidr) {
    for (size_t i = 0; i < p->pools.n; i++) {
        if (prefix_has(&p->pools.p[i].pool.cidr, cidr)) {
            return &p->pools.p[i].pool;
        }
    }
    return NULL;
}

static const struct path_node *own_node(const struct paths *p) {
    struct pnode **at = pnodes_get(&p->nodes, str_c(p->own));
    return at && (*at)->is_known ? &(*at)->info : NULL;
}

static bool is_own(const struct paths *p, const struct pnode *n) {
    return strcmp(n->name, p->own) == 0;
}

/* Is the node's address one that we reach without a router? */
static bool is_near(const struct paths *p, const struct pnode *n, size_t family) {
    const struct path_node *own = own_node(p);
    return own && own->addr[family].ip.family && n->info.addr[family].ip.family &&
           prefix_has_ip(&own->addr[family], &n->info.addr[family].ip);
}

/* The way to a node; false: there is none that we could make. *is_lost: there should be one. */
static bool way_to(const struct paths *p, const struct prefix *dst, const struct pnode *n,
                   struct path_route *out, bool *is_lost) {
    const struct path_pool *pool = pool_of(p, dst);
    size_t f = dst->ip.family == IP_V6;
    if (!pool || !n->is_known) {
        return false; /* of a pool that is gone, or the node's object is still to come */
    }
    bool is_cross = pool->mode == PATH_VXLAN_CROSS || pool->mode == PATH_IPIP_CROSS;
    bool is_vxlan = pool->mode == PATH_VXLAN || pool->mode == PATH_VXLAN_CROSS;
    bool is_plain = pool->mode == PATH_PLAIN;
    if ((is_cross || (is_plain && !p->has_bgp)) && is_near(p, n, f)) {
        *out = (struct path_route){*dst, PATH_DIRECT, n->info.addr[f].ip};
        return true;
    }
    if (is_vxlan) {
        *out = (struct path_route){*dst, PATH_BY_VXLAN, n->info.vxlan_addr[f]};
        return n->info.vxlan_addr[f].family != IP_NONE;
    }
    *is_lost = is_plain && !p->has_bgp;
    return false;
}

static void tell_route(struct paths *p, struct pblock *b, const struct path_route *r) {
    for (size_t i = 0; i < b->told.n; i++) {
        struct path_route *t = &b->told.p[i];
        if (prefix_eq(&t->dst, &r->dst)) {
            if (t->kind != r->kind || !ip_eq(&t->via, &r->via)) {
                *t = *r;
                p->ops.route(p->arg, r);
            }
            return;
        }
    }
    vec_push(&b->told, *r);
    p->n_routes++;
    p->ops.route(p->arg, r);
}

static void tell_routes(struct paths *p, struct pblock *b, const struct path_route *now, size_t n) {
    for (size_t i = 0; i < b->told.n;) {
        bool is_there = false;
        for (size_t k = 0; k < n && !is_there; k++) {
            is_there = prefix_eq(&b->told.p[i].dst, &now[k].dst);
        }
        if (is_there) {
            i++;
            continue;
        }
        struct prefix dst = b->told.p[i].dst;
        vec_swap_remove(&b->told, i);
        p->n_routes--;
        p->ops.route_gone(p->arg, &dst);
    }
    for (size_t i = 0; i < n; i++) {
        tell_route(p, b, &now[i]);
    }
}

static void look_at_block(struct paths *p, struct pblock *b) {
    VEC(struct path_route) now = {0};
    struct path_route r;
    bool is_lost = false;
    if (!b->is_gone && b->node && is_own(p, b->node)) {
        /* A block of one address is a pod's own route, or nothing. */
        if (b->cidr.len < ip_bits(&b->cidr.ip)) {
            vec_push(&now, (struct path_route){b->cidr, PATH_TO_NOWHERE, {0}});
        }
    } else if (!b->is_gone && b->node && way_to(p, &b->cidr, b->node, &r, &is_lost)) {
        vec_push(&now, r);
    }
    for (size_t i = 0; i < b->borrowed.n; i++) {
        const struct holder *h = &b->borrowed.p[i];
        struct prefix dst = {h->ip, (uint8_t)ip_bits(&h->ip)};
        if (!is_own(p, h->node) && way_to(p, &dst, h->node, &r, &is_lost)) {
            vec_push(&now, r);
        }
    }
    b->is_unreachable = is_lost;
    tell_routes(p, b, now.p, now.n);
    vec_fini(&now);
}

static void look_at_node(struct paths *p, struct pnode *n) {
    for (size_t f = 0; f < 2; f++) {
        struct path_vtep v = {n->info.vxlan_addr[f], n->info.addr[f].ip, {0}};
        memcpy(v.mac, n->info.vxlan_mac[f], 6);
        bool is_there = n->is_known && !is_own(p, n) && v.addr.family && v.node.family;
        bool is_same = is_there && n->is_told[f] && ip_eq(&n->told[f].addr, &v.addr) &&
                       ip_eq(&n->told[f].node, &v.node) && memcmp(n->told[f].mac, v.mac, 6) == 0;
        if (n->is_told[f] && !is_same) {
            n->is_told[f] = false;
            p->n_vteps--;
            p->ops.vtep_gone(p->arg, &n->told[f]);
        }
        if (is_there && !is_same) {
            n->is_told[f] = true;
            n->told[f] = v;
            p->n_vteps++;
            p->ops.vtep(p->arg, &v);
        }
    }
}

void paths_flush(struct paths *p) {
    struct pblock **b;
    if (p->is_all_dirty) {
        p->is_all_dirty = false;
        for (size_t i = 0; pblocks_next(&p->blocks, &i, NULL, &b);) {
            touch_block(p, *b);
        }
    }
    for (size_t i = 0; i < p->dirty_nodes.n; i++) {
        struct pnode *n = p->dirty_nodes.p[i];
        n->is_dirty = false;
        look_at_node(p, n);
        drop_unused(p, n);
    }
    vec_clear(&p->dirty_nodes);
    for (size_t i = 0; i < p->dirty_blocks.n; i++) {
        struct pblock *x = p->dirty_blocks.p[i];
        x->is_dirty = false;
        look_at_block(p, x);
        if (x->is_gone) {
            (void)pblocks_del(&p->blocks, x->cidr);
            block_free(x);
        }
    }
    vec_clear(&p->dirty_blocks);
}

static void say_unreachable(const struct pblock *b, char *out, size_t n) {
    char cidr[IP_TEXT_MAX], ip[IP_TEXT_MAX];
    size_t f = b->cidr.ip.family == IP_V6;
    const struct pnode *to = b->node;
    for (size_t i = 0; !to && i < b->borrowed.n; i++) {
        to = b->borrowed.p[i].node;
    }
    (void)snprintf(out, n,
                   "block %s is on node %s (%s), which is in another subnet: its pool needs "
                   "vxlanMode Always or CrossSubnet, or BGP",
                   prefix_text(&b->cidr, cidr), to ? to->name : "?",
                   to && to->info.addr[f].ip.family ? ip_text(&to->info.addr[f].ip, ip)
                                                    : "no address");
}

void paths_stats(const struct paths *p, struct paths_stats *out) {
    struct pblock **b;
    *out = (struct paths_stats){.n_nodes = p->n_known,
                                .n_blocks = p->blocks.n,
                                .n_routes = p->n_routes,
                                .n_vteps = p->n_vteps};
    const struct pblock *first = NULL;
    for (size_t i = 0; pblocks_next(&p->blocks, &i, NULL, &b);) {
        out->n_unreachable += (*b)->is_unreachable;
        if ((*b)->is_unreachable && (!first || prefix_cmp(&(*b)->cidr, &first->cidr) < 0)) {
            first = *b;
        }
    }
    if (first) {
        say_unreachable(first, out->unreachable, sizeof(out->unreachable));
    }
    for (size_t i = 0; i < p->pools.n; i++) {
        enum path_mode m = p->pools.p[i].pool.mode;
        out->wants_vxlan[p->pools.p[i].pool.cidr.ip.family == IP_V6] |=
            m == PATH_VXLAN || m == PATH_VXLAN_CROSS;
    }
}
