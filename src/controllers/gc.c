#include "controllers/gc_int.h"

#include "base/log.h"
#include "ipam/block.h"
#include "ipam/machines.h"

#include <stdlib.h>

struct gc *gc_new(void) {
    struct gc *g = calloc(1, sizeof(*g));
    mg_assert(g != NULL);
    return g;
}

static void block_free(struct block_rec *b) {
    if (b) {
        arena_fini(&b->a);
        free(b);
    }
}

void gc_free(struct gc *g) {
    if (!g) {
        return;
    }
    size_t i = 0;
    struct block_rec **b;
    while (blocktab_next(&g->blocks, &i, NULL, &b)) {
        block_free(*b);
    }
    blocktab_fini(&g->blocks);
    candtab_fini(&g->cands);
    candtab_fini(&g->gone_nodes);
    machinetab_fini(&g->machines);
    for (i = 0; i < g->pools.n; i++) {
        free(g->pools.p[i].name);
    }
    for (i = 0; i < g->reclaimed.n; i++) {
        free(g->reclaimed.p[i].pool);
        free(g->reclaimed.p[i].node);
    }
    vec_fini(&g->pools);
    vec_fini(&g->reclaimed);
    free(g);
}

uint64_t gc_id(const struct gc_alloc *x) {
    return hash_u64(ip_hash(&x->ip) ^ hash_u64((uint64_t)x->sequence)) ^ hash_str(x->handle);
}

struct str gc_host_of(struct str affinity) {
    return str_starts(affinity, STR("host:")) ? str_sub(affinity, 5, affinity.n) : STR("");
}

/* ---- blocks ---- */

/* What makes it a machine's. */
static void read_machine(struct block_rec *r, const struct block *b, uint32_t ordinal,
                         struct gc_alloc *x) {
    const struct jnode *attr = b->attrs[b->alloc[ordinal]];
    struct str ns, name, pod = jnode_str(jnode_path(attr, "alternateOwnerAttrs.pod"));
    if (machine_of_allocation(attr, x->handle, &ns, &name)) {
        x->machine = arena_dup(&r->a, name);
        x->ns = arena_dup(&r->a, ns);
        x->other_pod = arena_dup(&r->a, pod.p ? pod : STR(""));
    }
}

static void read_allocs(struct block_rec *r, const struct block *b) {
    bool is_virtual = str_starts(r->affinity, STR("virtual:"));
    r->allocs = arena_array(&r->a, struct gc_alloc, block_in_use(b));
    for (uint32_t i = 0; i < b->size; i++) {
        struct gc_alloc *x = &r->allocs[r->n];
        if (b->alloc[i] < 0 || block_is_resting(b, i) || !prefix_nth(&b->cidr, i, &x->ip)) {
            continue; /* one at rest is nobody's; whoever writes the block next frees it in time */
        }
        *x = (struct gc_alloc){x->ip,
                               arena_dup(&r->a, block_handle_of(b, i)),
                               arena_dup(&r->a, block_attr_of(b, i, "namespace")),
                               arena_dup(&r->a, block_attr_of(b, i, "pod")),
                               arena_dup(&r->a, block_attr_of(b, i, "node")),
                               arena_dup(&r->a, block_attr_of(b, i, "type")),
                               arena_dup(&r->a, block_attr_of(b, i, "service")),
                               STR(""),
                               STR(""),
                               b->sequence_of[i],
                               is_virtual};
        read_machine(r, b, i, x);
        r->n++;
    }
}

void gc_item(struct gc *g, struct str key, struct str value) {
    if (!str_starts(key, STR("/ipam/v2/assignment/"))) {
        return;
    }
    struct arena a = {0};
    struct block_rec **found = blocktab_get(&g->blocks, keytext_of(&a, key));
    struct block_rec *old = found ? *found : NULL, *r = NULL;
    struct block *b = NULL;
    struct err e = {.code = 0};
    if (value.p && block_parse(value, &a, &b, &e) < 0) {
        LOG_W("controllers", "block_unreadable", "key=%s error=%s", log_quote(key),
              log_quote(str_c(e.msg)));
        arena_fini(&a);
        return;
    }
    if (old) {
        (void)blocktab_del(&g->blocks, &old->key);
    }
    if (b) {
        r = calloc(1, sizeof(*r) + key.n);
        mg_assert(r != NULL);
        r->a.first_bytes = 1024;
        r->cidr = b->cidr;
        r->affinity = b->affinity.p ? arena_dup(&r->a, b->affinity) : STR("");
        read_allocs(r, b);
        keytext_set(&r->key, key);
        *blocktab_put(&g->blocks, &r->key, NULL) = r;
    }
    block_free(old);
    arena_fini(&a);
}

/* ---- pools ---- */

void gc_pool(struct gc *g, struct str name, const struct prefix *cidr) {
    for (size_t i = 0; i < g->pools.n; i++) {
        if (str_is(name, g->pools.p[i].name)) {
            free(g->pools.p[i].name);
            vec_remove(&g->pools, i);
            break;
        }
    }
    if (cidr) {
        char *text = strndup(name.p, name.n);
        mg_assert(text != NULL);
        vec_push(&g->pools, (struct pool_rec){text, *cidr});
    }
}

const char *gc_pool_of(const struct gc *g, const struct prefix *cidr) {
    for (size_t i = 0; i < g->pools.n; i++) {
        if (g->pools.p[i].cidr.ip.family == cidr->ip.family &&
            prefix_has(&g->pools.p[i].cidr, cidr)) {
            return g->pools.p[i].name;
        }
    }
    return "no_ippool";
}

/* ---- judging ---- */

enum verdict {
    V_KEEP,      /* in use, or nothing is known against it */
    V_IGNORED,   /* goes with its block */
    V_TUNNEL,    /* goes with its node */
    V_LEAK,      /* both proofs, the node is there */
    V_LEAK_GONE, /* both proofs, and the node is gone */
    V_MACHINE,   /* a machine's that no pod has: if the machine is gone, a leak */
};

static bool is_tunnel(struct str type) {
    return str_is(type, "ipipTunnelAddress") || str_is(type, "vxlanTunnelAddress") ||
           str_is(type, "vxlanV6TunnelAddress") || str_is(type, "wireguardTunnelAddress") ||
           str_is(type, "wireguardV6TunnelAddress");
}

/* Does the pod exist and still have, or may yet tell of, the address? */
static bool pod_holds(const struct facts *f, const struct gc_alloc *x, struct str pod,
                      struct str k8s_node) {
    struct fact_pod p;
    if (!facts_get_pod(f, x->ns, pod, &p)) {
        return false;
    }
    if (p.node.n && k8s_node.n && !str_eq(p.node, k8s_node)) {
        return false;
    }
    bool has = p.n_ips == 0;
    for (size_t i = 0; i < p.n_ips; i++) {
        has = has || ip_eq(&p.ips[i], &x->ip);
    }
    return has;
}

static enum verdict judge(const struct facts *f, const struct gc_alloc *x, bool is_node_there,
                          struct str k8s_node) {
    if (str_is(x->handle, "windows-reserved-ipam-handle")) {
        return V_IGNORED;
    }
    if (is_tunnel(x->type)) {
        return V_TUNNEL;
    }
    if (x->machine.n && x->handle.n && x->ns.n) {
        bool is_held = (x->pod.n && pod_holds(f, x, x->pod, STR(""))) ||
                       (x->other_pod.n && pod_holds(f, x, x->other_pod, STR(""))) ||
                       facts_ip_in_use(f, &x->ip, x->ns, x->pod);
        return is_held ? V_KEEP : V_MACHINE;
    }
    if (x->is_virtual || x->handle.n == 0 || x->ns.n == 0 || x->pod.n == 0 || x->node.n == 0) {
        return V_KEEP;
    }
    if (pod_holds(f, x, x->pod, k8s_node) || facts_ip_in_use(f, &x->ip, x->ns, x->pod)) {
        return V_KEEP;
    }
    return is_node_there ? V_LEAK : V_LEAK_GONE;
}

/* ---- a pass ---- */

struct node_sum {
    bool is_there;
    struct str k8s_name;
    size_t n_keep, n_tunnels, n_left, n_blocks;
};
#define MAP_NAME nodetab
#define MAP_KEY struct str
#define MAP_VAL struct node_sum
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct handle_sum {
    size_t n, n_confirmed;
};
#define MAP_NAME handletab
#define MAP_KEY struct str
#define MAP_VAL struct handle_sum
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct passing {
    struct gc *g;
    const struct facts *f;
    int64_t now_ns, grace_ns;
    struct nodetab nodes;
    struct handletab handles;
    bool is_soon; /* something waits only for a second look */
};

static struct node_sum *node_of(struct passing *p, struct str name) {
    bool is_new;
    struct node_sum *n = nodetab_put(&p->nodes, name, &is_new);
    if (is_new) {
        n->is_there = facts_node_exists(p->f, name, &n->k8s_name);
    }
    return n;
}

static enum verdict judge_of(struct passing *p, const struct gc_alloc *x) {
    if (!x->node.n) {
        return judge(p->f, x, true, STR(""));
    }
    const struct node_sum *n = node_of(p, x->node);
    return judge(p->f, x, n->is_there, n->k8s_name);
}

/* What each node still has. */
static void sum_nodes(struct passing *p) {
    size_t i = 0;
    struct block_rec **b;
    while (blocktab_next(&p->g->blocks, &i, NULL, &b)) {
        struct str host = gc_host_of((*b)->affinity);
        if (host.n) {
            node_of(p, host)->n_blocks++;
        }
        for (size_t k = 0; k < (*b)->n; k++) {
            const struct gc_alloc *x = &(*b)->allocs[k];
            enum verdict v = judge_of(p, x);
            if (x->node.n) {
                struct node_sum *n = node_of(p, x->node);
                n->n_keep += v == V_KEEP || v == V_MACHINE;
                n->n_tunnels += v == V_TUNNEL;
                n->n_left += v != V_IGNORED;
            } else if (host.n) {
                node_of(p, host)->n_keep++; /* nobody knows whose */
            }
        }
    }
}

/* True when both proofs have held long and often enough. min_ns: at the least. */
static bool confirm(struct passing *p, const struct gc_alloc *x, bool is_node_gone,
                    int64_t min_ns) {
    bool is_new;
    struct candidate *c = candtab_put(&p->g->cands, gc_id(x), &is_new);
    if (is_new || c->pass + 1 != p->g->pass) {
        *c = (struct candidate){.since_ns = p->now_ns};
    }
    c->n_seen++;
    c->pass = p->g->pass;
    int64_t need = p->grace_ns;
    if (is_node_gone && (need == 0 || need > GC_NODE_GONE_NS)) {
        need = GC_NODE_GONE_NS;
    }
    need = need < min_ns ? min_ns : need;
    c->is_confirmed = need > 0 && c->n_seen >= 2 && p->now_ns - c->since_ns >= need;
    p->is_soon = p->is_soon || (is_node_gone && !c->is_confirmed);
    return c->is_confirmed;
}

static uint64_t machine_id(struct str ns, struct str name) {
    return hash_u64(hash_str(ns)) ^ hash_str(name);
}

/* Was it gone when it was last asked for, after the last pass? It is asked again for the next. */
static bool is_machine_gone(struct passing *p, const struct gc_alloc *x, const struct gc_ops *ops,
                            void *arg) {
    bool is_new;
    struct machine_rec *m = machinetab_put(&p->g->machines, machine_id(x->ns, x->machine), &is_new);
    if (is_new) {
        *m = (struct machine_rec){.is_known = false};
        p->is_soon = true;
    }
    if (m->pass != p->g->pass) { /* else another address of the same machine, in this pass */
        m->was_gone = m->is_known && m->is_gone;
        m->pass = p->g->pass;
        m->is_known = false;
        ops->ask_machine(arg, x->ns, x->machine);
    }
    return m->was_gone;
}

void gc_machine(struct gc *g, struct str ns, struct str name, bool is_gone) {
    struct machine_rec *m = machinetab_get(&g->machines, machine_id(ns, name));
    if (m) { /* else nobody wants to know any more */
        m->is_known = true;
        m->is_gone = is_gone;
    }
}

static void judge_all(struct passing *p, const struct gc_ops *ops, void *arg) {
    size_t i = 0;
    struct block_rec **b;
    while (blocktab_next(&p->g->blocks, &i, NULL, &b)) {
        for (size_t k = 0; k < (*b)->n; k++) {
            const struct gc_alloc *x = &(*b)->allocs[k];
            enum verdict v = judge_of(p, x);
            bool is_gone = v == V_LEAK_GONE;
            if (v == V_TUNNEL && x->node.n) {
                const struct node_sum *n = node_of(p, x->node);
                is_gone = !n->is_there && n->n_keep == 0;
            }
            bool is_machine = v == V_MACHINE && is_machine_gone(p, x, ops, arg);
            bool is_leak = v == V_LEAK || is_gone || is_machine;
            struct handle_sum *h = handletab_put(&p->handles, x->handle, NULL);
            h->n++;
            h->n_confirmed += is_leak && confirm(p, x, is_gone, is_machine ? GC_MACHINE_NS : 0);
        }
    }
}

static int str_cmp_rec(const void *x, const void *y) {
    return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

typedef VEC(struct str) str_vec;

static void release_handles(struct passing *p, const struct gc_ops *ops, void *arg) {
    str_vec v = {0};
    size_t i = 0;
    struct str name;
    struct handle_sum *h;
    while (handletab_next(&p->handles, &i, &name, &h)) {
        if (name.n && h->n_confirmed && h->n_confirmed == h->n) {
            vec_push(&v, name);
        }
    }
    vec_sort(&v, str_cmp_rec);
    for (i = 0; i < v.n; i++) {
        ops->release_handle(arg, v.p[i]);
    }
    vec_fini(&v);
}

/* Nodes that are gone and have nothing left, seen so twice, give up their blocks. */
static void release_nodes(struct passing *p, const struct gc_ops *ops, void *arg) {
    str_vec v = {0};
    size_t i = 0;
    struct str name;
    struct node_sum *n;
    while (nodetab_next(&p->nodes, &i, &name, &n)) {
        if (n->is_there || n->n_left || n->n_keep || !name.n) {
            continue;
        }
        bool is_new;
        struct candidate *c = candtab_put(&p->g->gone_nodes, hash_str(name), &is_new);
        if (is_new || c->pass + 1 != p->g->pass) {
            *c = (struct candidate){.since_ns = p->now_ns};
        }
        c->n_seen++;
        c->pass = p->g->pass;
        if (c->n_seen >= 2 && p->now_ns - c->since_ns >= GC_NODE_GONE_NS) {
            vec_push(&v, name);
        } else {
            p->is_soon = true;
        }
    }
    vec_sort(&v, str_cmp_rec);
    for (i = 0; i < v.n; i++) {
        ops->release_node(arg, v.p[i]);
    }
    vec_fini(&v);
}

static int block_cmp(const void *x, const void *y) {
    return prefix_cmp(&(*(struct block_rec *const *)x)->cidr,
                      &(*(struct block_rec *const *)y)->cidr);
}

/* Empty for the whole grace, and not the node's last. */
static void release_blocks(struct passing *p, const struct gc_ops *ops, void *arg) {
    VEC(struct block_rec *) v = {0};
    size_t i = 0;
    struct block_rec **b;
    while (blocktab_next(&p->g->blocks, &i, NULL, &b)) {
        struct block_rec *r = *b;
        bool is_empty = gc_host_of(r->affinity).n > 0;
        for (size_t k = 0; k < r->n && is_empty; k++) {
            is_empty = str_is(r->allocs[k].handle, "windows-reserved-ipam-handle");
        }
        if (!is_empty) {
            r->n_empty = 0;
            continue;
        }
        r->empty_since_ns = r->n_empty ? r->empty_since_ns : p->now_ns;
        r->n_empty++;
        if (p->grace_ns > 0 && r->n_empty >= 2 && p->now_ns - r->empty_since_ns >= p->grace_ns &&
            node_of(p, gc_host_of(r->affinity))->is_there) {
            vec_push(&v, r);
        }
    }
    vec_sort(&v, block_cmp);
    for (i = 0; i < v.n; i++) {
        struct str node = gc_host_of(v.p[i]->affinity);
        struct node_sum *n = node_of(p, node);
        if (n->n_blocks > 1) {
            n->n_blocks--;
            ops->release_block(arg, node, &v.p[i]->cidr);
        }
    }
    vec_fini(&v);
}

/* What wasn't seen in this pass is no candidate any more. */
static void forget(struct candtab *t, uint32_t pass) {
    VEC(uint64_t) old = {0};
    size_t i = 0;
    uint64_t id;
    struct candidate *c;
    while (candtab_next(t, &i, &id, &c)) {
        if (c->pass != pass) {
            vec_push(&old, id);
        }
    }
    for (i = 0; i < old.n; i++) {
        (void)candtab_del(t, old.p[i]);
    }
    vec_fini(&old);
}

/* Machines that this pass has not asked for. */
static void forget_machines(struct gc *g) {
    VEC(uint64_t) old = {0};
    size_t i = 0;
    uint64_t id;
    struct machine_rec *m;
    while (machinetab_next(&g->machines, &i, &id, &m)) {
        if (m->pass != g->pass) {
            vec_push(&old, id);
        }
    }
    for (i = 0; i < old.n; i++) {
        (void)machinetab_del(&g->machines, old.p[i]);
    }
    vec_fini(&old);
}

bool gc_pass(struct gc *g, const struct facts *f, int64_t now_ns, int64_t grace_ns,
             const struct gc_ops *ops, void *arg) {
    struct passing p = {g, f, now_ns, grace_ns, {0}, {0}, false};
    g->pass++;
    sum_nodes(&p);
    judge_all(&p, ops, arg);
    release_handles(&p, ops, arg);
    release_nodes(&p, ops, arg);
    release_blocks(&p, ops, arg);
    forget(&g->cands, g->pass);
    forget(&g->gone_nodes, g->pass);
    forget_machines(g);
    nodetab_fini(&p.nodes);
    handletab_fini(&p.handles);
    return p.is_soon;
}

size_t gc_confirmed(const struct gc *g, struct str handle, struct arena *a, struct gc_alloc **out) {
    VEC(struct gc_alloc) v = {0};
    bool is_all = true;
    size_t i = 0;
    struct block_rec **b;
    while (blocktab_next(&g->blocks, &i, NULL, &b)) {
        for (size_t k = 0; k < (*b)->n; k++) {
            const struct gc_alloc *x = &(*b)->allocs[k];
            if (str_eq(x->handle, handle)) {
                const struct candidate *c = candtab_get(&g->cands, gc_id(x));
                is_all = is_all && c && c->is_confirmed;
                vec_push(&v, *x);
            }
        }
    }
    size_t n = is_all ? v.n : 0;
    *out = arena_array(a, struct gc_alloc, n);
    for (i = 0; i < n; i++) {
        struct gc_alloc *x = &(*out)[i];
        *x = v.p[i];
        struct str *texts[] = {&x->handle, &x->ns,      &x->pod,     &x->node,
                               &x->type,   &x->service, &x->machine, &x->other_pod};
        for (size_t k = 0; k < ARRAY_LEN(texts); k++) {
            *texts[k] = arena_dup(a, *texts[k]);
        }
    }
    vec_fini(&v);
    return n;
}

void gc_each_service_alloc(const struct gc *g, void (*cb)(void *arg, const struct gc_alloc *x),
                           void *arg) {
    size_t i = 0;
    struct block_rec **b;
    while (blocktab_next(&g->blocks, &i, NULL, &b)) {
        for (size_t k = 0; k < (*b)->n && str_starts((*b)->affinity, STR("virtual:")); k++) {
            if ((*b)->allocs[k].service.n && (*b)->allocs[k].ns.n) {
                cb(arg, &(*b)->allocs[k]);
            }
        }
    }
}

struct of_service {
    struct str ns, service;
    void (*cb)(void *arg, const struct gc_alloc *x);
    void *arg;
};
static void if_service(void *arg, const struct gc_alloc *x) {
    const struct of_service *q = arg;
    if (str_eq(x->ns, q->ns) && str_eq(x->service, q->service)) {
        q->cb(q->arg, x);
    }
}

void gc_each_of_service(const struct gc *g, struct str ns, struct str service,
                        void (*cb)(void *arg, const struct gc_alloc *x), void *arg) {
    struct of_service q = {ns, service, cb, arg};
    gc_each_service_alloc(g, if_service, &q);
}
