/* See network.h. */
#include "node/network.h"

#include "base/log.h"
#include "base/vec.h"
#include "dataplane/overlay.h"
#include "ipam/block.h"
#include "model/pool.h"
#include "node/aways.h"
#include "node/selfnode.h"

#include <stdio.h>
#include <stdlib.h>

/* Outer Ethernet, IP, UDP and VXLAN headers. */
enum { VXLAN4_BYTES = 50, VXLAN6_BYTES = 70 };

struct network {
    struct loop *loop;
    struct network_config c;
    struct paths *paths;
    struct overlay *overlay;
    struct aways *aways;
    struct selfnode *self;
    struct syncer *blocks;
    struct loop_defer *defer;
    struct path_node own;
    char own_problem[1024];
    bool has_resources, has_blocks;
    bool are_tunnels_dirty; /* what network_tunnels tells */
    uint32_t overhead;
};

/* ---- blocks ---- */

/* "host:NAME" */
static struct str host_of(struct str affinity) {
    return str_starts(affinity, STR("host:")) ? str_sub(affinity, 5, affinity.n) : STR("");
}

static void take_block(struct network *n, struct str key, struct str text) {
    struct arena a = {0};
    struct block *b = NULL;
    struct err e = {0};
    if (block_parse(text, &a, &b, &e) < 0) {
        static struct log_limit limit;
        if (log_allow(&limit, 5, 60)) { /* what was known of it holds on */
            LOG_W("network", "bad_block", "key=%s error=%s", log_quote(key),
                  log_quote(str_c(e.msg)));
        }
        arena_fini(&a);
        return;
    }
    struct path_block p = {.cidr = b->cidr, .node = host_of(b->affinity)};
    struct path_borrowed *v = arena_array(&a, struct path_borrowed, b->size);
    for (uint32_t i = 0; i < b->size; i++) {
        struct str node = b->alloc[i] >= 0 ? block_attr_of(b, i, "node") : STR("");
        if (node.n && !str_eq(node, p.node) && prefix_nth(&b->cidr, i, &v[p.n_borrowed].ip)) {
            v[p.n_borrowed++].node = node;
        }
    }
    p.borrowed = v;
    paths_block(n->paths, &b->cidr, &p);
    aways_block(n->aways, &b->cidr, b);
    arena_fini(&a);
}

/* "/ipam/v2/assignment/ipv4/block/10.0.0.0-26" */
static bool cidr_of(struct str key, struct prefix *out) {
    char text[IP_TEXT_MAX];
    size_t at = key.n;
    while (at && key.p[at - 1] != '/') {
        at--;
    }
    struct str part = str_sub(key, at, key.n);
    if (part.n == 0 || part.n >= sizeof(text)) {
        return false;
    }
    memcpy(text, part.p, part.n);
    text[part.n] = '\0';
    char *dash = strrchr(text, '-');
    if (dash) {
        *dash = '/';
    }
    return prefix_parse(str_c(text), out) == 0;
}

static void on_block(void *arg, const struct store_item *it) {
    struct network *n = arg;
    struct prefix cidr;
    if (it->value.p) {
        take_block(n, it->key, it->value);
    } else if (cidr_of(it->key, &cidr)) {
        paths_block(n->paths, &cidr, NULL);
        aways_block(n->aways, &cidr, NULL);
    }
}

static void on_blocks_in_sync(void *arg) {
    ((struct network *)arg)->has_blocks = true;
}

static void on_blocks_end(void *arg, uint64_t revision MG_UNUSED) {
    loop_defer_ask(((struct network *)arg)->defer);
}

/* ---- resources ---- */

static struct ip46 ip_at(const struct jnode *doc, const char *path) {
    struct ip46 ip;
    return ip_parse(jnode_str(jnode_path(doc, path)), &ip) == 0 ? ip : (struct ip46){0};
}

/* spec.bgp's address, else the first of the family among spec.addresses. */
static struct prefix address_of(const struct jnode *doc, enum ip_family family) {
    struct prefix p;
    struct str text = jnode_str(
        jnode_path(doc, family == IP_V6 ? "spec.bgp.ipv6Address" : "spec.bgp.ipv4Address"));
    if (prefix_parse(text, &p) == 0 && p.ip.family == family) {
        return p;
    }
    const struct jnode *list = jnode_path(doc, "spec.addresses");
    jnode_each (it, list) {
        bool is_external = str_is(jnode_str(jnode_getc(it, "type")), "ExternalIP");
        if (!is_external && prefix_parse(jnode_str(jnode_getc(it, "address")), &p) == 0 &&
            p.ip.family == family) {
            return p;
        }
    }
    return (struct prefix){0};
}

static void take_node(struct network *n, struct str name, const struct object *o) {
    struct path_node p = {.addr = {address_of(o->doc, IP_V4), address_of(o->doc, IP_V6)}};
    p.vxlan_addr[0] = ip_at(o->doc, "spec.ipv4VXLANTunnelAddr");
    p.vxlan_addr[1] = ip_at(o->doc, "spec.ipv6VXLANTunnelAddr");
    path_node_mac(jnode_str(jnode_path(o->doc, "spec.vxlanTunnelMACAddr")), name, IP_V4,
                  p.vxlan_mac[0]);
    path_node_mac(jnode_str(jnode_path(o->doc, "spec.vxlanTunnelMACAddrV6")), name, IP_V6,
                  p.vxlan_mac[1]);
    n->are_tunnels_dirty |= paths_node(n->paths, name, &p);
}

static enum path_mode mode_of(const struct ip_pool_spec *p) {
    if (str_is(p->vxlan_mode, "Always")) {
        return PATH_VXLAN;
    }
    if (str_is(p->vxlan_mode, "CrossSubnet")) {
        return PATH_VXLAN_CROSS;
    }
    return str_is(p->ipip_mode, "Always")        ? PATH_IPIP
           : str_is(p->ipip_mode, "CrossSubnet") ? PATH_IPIP_CROSS
                                                 : PATH_PLAIN;
}

void network_object(struct network *n, const struct kind *k, struct str name,
                    const struct object *o) {
    if (k->id == K_NODE) {
        if (o) {
            take_node(n, name, o);
        } else {
            n->are_tunnels_dirty |= paths_node(n->paths, name, NULL);
        }
        if (str_eq(name, n->c.node)) {
            selfnode_ask(n->self); /* what somebody else wrote there, or took away */
        }
    } else if (k->id == K_IP_POOL) {
        const struct ip_pool_spec *p = o ? o->spec : NULL;
        struct path_pool pool = {0};
        if (p && p->cidr.ip.family) {
            pool = (struct path_pool){p->cidr, mode_of(p)};
        }
        paths_pool(n->paths, name, pool.cidr.ip.family ? &pool : NULL);
        n->are_tunnels_dirty = true;
        selfnode_ask(n->self);
    }
}

/* ---- who may send what is encapsulated ---- */

struct telling {
    const char *own;
    VEC(struct ip46) hosts;
};

static void tell_node(void *arg, const char *name, const struct path_node *node) {
    struct telling *t = arg;
    for (size_t f = 0; f < 2 && strcmp(name, t->own) != 0; f++) {
        if (node->addr[f].ip.family) {
            vec_push(&t->hosts, node->addr[f].ip);
        }
    }
}

void network_tunnels(struct network *n, struct dataplane *d) {
    struct paths_stats st;
    struct arena a = {0};
    struct telling t = {.own = arena_cstr(&a, n->c.node)};
    if (n->are_tunnels_dirty) {
        n->are_tunnels_dirty = false;
        paths_stats(n->paths, &st);
        paths_each_node(n->paths, tell_node, &t);
        dataplane_set_tunnels(d, st.wants_vxlan, t.hosts.p, t.hosts.n);
    }
    vec_fini(&t.hosts);
    arena_fini(&a);
}

/* ---- to the kernel ---- */

static void set_devices(struct network *n) {
    const struct settings *s = n->c.settings;
    struct paths_stats st;
    paths_stats(n->paths, &st);
    selfnode_want_vxlan(n->self, st.wants_vxlan);
    uint32_t overhead = st.wants_vxlan[1] ? VXLAN6_BYTES : st.wants_vxlan[0] ? VXLAN4_BYTES : 0;
    if (overhead != n->overhead) {
        n->overhead = overhead;
        n->c.on_overhead(n->c.arg);
    }
    for (size_t f = 0; f < 2; f++) {
        struct overlay_device d = {0};
        d.local = n->own.addr[f].ip;
        d.addr = n->own.vxlan_addr[f];
        memcpy(d.mac, n->own.vxlan_mac[f], 6);
        d.vni = s->vxlan_vni;
        d.port = s->vxlan_port;
        d.mtu = s->vxlan_mtu[f];
        bool has = st.wants_vxlan[f] && d.local.family && d.addr.family;
        overlay_set_device(n->overlay, f ? IP_V6 : IP_V4, has ? &d : NULL);
    }
}

static void flush(void *arg) {
    struct network *n = arg;
    struct err e = {0};
    if (!n->has_resources || !n->has_blocks) {
        return; /* what a part of the truth leaves out must not be taken away */
    }
    paths_flush(n->paths);
    set_devices(n);
    if (overlay_flush(n->overlay, &e) < 0) {
        static struct log_limit limit;
        if (log_allow(&limit, 1, 60)) {
            LOG_W("network", "not_applied", "error=%s", log_quote(str_c(e.msg)));
        }
    }
    aways_flush(n->aways); /* a machine that came: its route to another node has gone by now */
}

void network_flush(struct network *n, bool is_whole) {
    n->has_resources |= is_whole;
    loop_defer_ask(n->defer);
}

void network_settings(struct network *n) {
    loop_defer_ask(n->defer);
}

void network_ready(struct network *n) {
    selfnode_up(n->self);
}

void network_down(struct network *n, void (*done)(void *arg), void *arg) {
    selfnode_down(n->self, done, arg);
}

void network_addresses(struct network *n) {
    selfnode_ask(n->self);
}

static void on_self(void *arg, const struct path_node *own, const char *why) {
    struct network *n = arg;
    n->own = *own;
    (void)snprintf(n->own_problem, sizeof(n->own_problem), "%s", why);
    loop_defer_ask(n->defer);
}

uint32_t network_overhead(const struct network *n) {
    return n->overhead;
}

/* ---- the overlay's sink ---- */

static void on_route(void *arg, const struct path_route *r) {
    overlay_route(((struct network *)arg)->overlay, r);
}
static void on_route_gone(void *arg, const struct prefix *dst) {
    overlay_route_gone(((struct network *)arg)->overlay, dst);
}
static void on_vtep(void *arg, const struct path_vtep *v) {
    overlay_vtep(((struct network *)arg)->overlay, v);
}
static void on_vtep_gone(void *arg, const struct path_vtep *v) {
    overlay_vtep_gone(((struct network *)arg)->overlay, v);
}

/* ---- life ---- */

bool network_has_bgp(void) {
    const char *v = getenv("CALICO_NETWORKING_BACKEND");
    return v && strcmp(v, "bird") == 0;
}

struct network *network_new(struct loop *l, const struct network_config *c, struct err *e) {
    static const struct path_ops path_ops = {on_route, on_route_gone, on_vtep, on_vtep_gone};
    static const struct selfnode_ops self_ops = {on_self};
    static const struct syncer_ops sync_ops = {
        .on_item = on_block, .on_in_sync = on_blocks_in_sync, .on_batch_end = on_blocks_end};
    struct network *n = calloc(1, sizeof(*n));
    mg_assert(n != NULL);
    n->loop = l;
    n->c = *c;
    n->defer = loop_defer_new(l, flush, n);
    n->paths = paths_new(c->node, network_has_bgp(), &path_ops, n);
    n->aways = aways_new(c->links, c->node);
    n->overlay = overlay_new(l, network_has_bgp(), e);
    n->self = n->overlay
                  ? selfnode_new(l, c->worker, c->ipam, c->node, c->is_kubernetes, &self_ops, n, e)
                  : NULL;
    struct store_key blocks = {STR(STORE_SPACE_IPAM), STR("/ipam/v2/assignment/")};
    if (!n->self || syncer_start(c->store, l, blocks, &sync_ops, n, &n->blocks, e) < 0) {
        network_free(n);
        return NULL;
    }
    selfnode_ask(n->self);
    return n;
}

void network_free(struct network *n) {
    if (n) {
        syncer_free(n->blocks);
        selfnode_free(n->self);
        overlay_free(n->overlay);
        aways_free(n->aways);
        paths_free(n->paths);
        loop_defer_free(n->defer);
        free(n);
    }
}

/* ---- status ---- */

void network_problems(const struct network *n, void (*cb)(void *arg, const char *what), void *arg) {
    struct paths_stats p;
    struct overlay_stats o;
    paths_stats(n->paths, &p);
    overlay_stats(n->overlay, &o);
    const char *const all[] = {n->own_problem, p.unreachable, o.problem};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i][0]) {
            cb(arg, all[i]);
        }
    }
}

void network_put(const struct network *n, struct buf *b) {
    struct paths_stats p;
    struct overlay_stats o;
    paths_stats(n->paths, &p);
    overlay_stats(n->overlay, &o);
    buf_printf(b,
               "\"network\":{\"nodes\":%zu,\"blocks\":%zu,\"routes\":%zu,\"tunnelEnds\":%zu,"
               "\"unreachableBlocks\":%zu,\"repairs\":%llu,\"addresses\":",
               p.n_nodes, p.n_blocks, p.n_routes, p.n_vteps, p.n_unreachable,
               (unsigned long long)o.repairs);
    selfnode_put(n->self, b);
    buf_puts(b, "},");
}
