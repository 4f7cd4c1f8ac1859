/* Peers: the mesh of nodes, BGPPeers of all kinds and their reverse sides, and what their options
 * mean to the engine. */
#include "bgp/conf_int.h"

#include "model/policy.h"
#include "policy/selector.h"

#include <stdio.h>

/* Where a peer is; port 0: not said. */
struct where {
    struct ip46 ip;
    uint16_t port;
};

static enum bgp_family family_of(const struct ip46 *ip) {
    return ip->family == IP_V4 ? BGP_V4 : BGP_V6;
}

static const struct conf_node *node_at(const struct build *b, const struct ip46 *ip) {
    for (size_t i = 0; i < b->nodes.n; i++) {
        if (ip_eq(&b->nodes.p[i].addr[family_of(ip)].ip, ip)) {
            return &b->nodes.p[i];
        }
    }
    return NULL;
}

/* Calico orders two nodes by the text of their addresses: the lower one connects. */
static bool waits_for(const struct build *b, const struct ip46 *peer) {
    char ours[IP_TEXT_MAX], theirs[IP_TEXT_MAX];
    ip_text(&b->self->addr[family_of(peer)].ip, ours);
    return strcmp(ip_text(peer, theirs), ours) > 0;
}

/* "Global_192_0_2_1_port_1179": how Calico names the session in BIRD. */
static struct str session_name(struct build *b, const char *kind, const struct where *w) {
    char text[IP_TEXT_MAX];
    ip_text(&w->ip, text);
    for (char *c = text; *c; c++) {
        *c = *c == '.' || *c == ':' ? '_' : *c;
    }
    if (w->port && w->port != BGP_PORT) {
        return arena_printf(b->a, "%s_%s_port_%u", kind, text, w->port);
    }
    return arena_printf(b->a, "%s_%s", kind, text);
}

bool conf_where(struct str s, struct ip46 *ip, uint16_t *port) {
    uint64_t number = 0;
    *port = 0;
    if (ip_parse(s, ip) == 0) {
        return true;
    }
    ptrdiff_t colon = -1;
    for (ptrdiff_t i = str_find(s, ':', 0); i >= 0; i = str_find(s, ':', (size_t)i + 1)) {
        colon = i;
    }
    if (colon < 0) {
        return false;
    }
    struct str text = str_sub(s, 0, (size_t)colon);
    if (text.n > 2 && text.p[0] == '[' && text.p[text.n - 1] == ']') {
        text = str_sub(text, 1, text.n - 1);
    }
    if (ip_parse(text, ip) < 0 || str_to_u64(str_sub(s, (size_t)colon + 1, s.n), &number) < 0 ||
        number == 0 || number > UINT16_MAX) {
        return false;
    }
    *port = (uint16_t)number;
    return true;
}

/* ---- options ---- */

static uint8_t addpath_bits(struct str s) {
    return str_is(s, "Send")       ? BGP_ADDPATH_SEND
           : str_is(s, "Receive")  ? BGP_ADDPATH_RECEIVE
           : str_is(s, "Disabled") ? 0
                                   : BGP_ADDPATH_SEND | BGP_ADDPATH_RECEIVE;
}

static uint8_t role_of(struct str s) {
    static const struct {
        const char *name;
        uint8_t role;
    } roles[] = {{"Provider", BGP_ROLE_PROVIDER},
                 {"RouteServer", BGP_ROLE_RS},
                 {"RouteServerClient", BGP_ROLE_RS_CLIENT},
                 {"Customer", BGP_ROLE_CUSTOMER},
                 {"Peer", BGP_ROLE_PEER}};
    for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
        if (str_is(s, roles[i].name)) {
            return roles[i].role;
        }
    }
    return BGP_ROLE_NONE;
}

static bool wants_family(const struct jnode *list, enum bgp_family f, enum bgp_family own) {
    if (!list || !list->child) {
        return f == own;
    }
    jnode_each (it, list) {
        if (str_is(jnode_str(it), f == BGP_V4 ? "IPv4" : "IPv6")) {
            return true;
        }
    }
    return false;
}

/* Peers of one resource, or of none, have the same filters. */
static const struct conf_filters *filters_of(struct build *b, const struct jnode *names,
                                             enum bgp_family f, bool is_ibgp, const char *what) {
    const void *key = names ? names->child : NULL;
    for (size_t i = 0; i < b->filters.n; i++) {
        const struct conf_filters *c = &b->filters.p[i];
        if (c->key == key && c->family == f && c->is_ibgp == is_ibgp) {
            return c;
        }
    }
    struct conf_filters c = {key, f, is_ibgp, conf_import(b, names, f, what),
                             conf_export(b, names, f, is_ibgp, what)};
    vec_push(&b->filters, c);
    return &b->filters.p[b->filters.n - 1];
}

static void set_families(struct build *b, struct conf_peer *p, const struct jnode *spec,
                         enum bgp_family own, bool is_ibgp, const char *what) {
    const struct jnode *filters = conf_get(spec, "filters");
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        enum bgp_family f = (enum bgp_family)i;
        struct family_config *c = &p->c.family[f];
        c->is_enabled = wants_family(conf_get(spec, "addressFamilies"), f, own);
        if (!c->is_enabled) {
            continue;
        }
        c->addpath = addpath_bits(conf_str(spec, "addPaths"));
        c->max_prefixes = (uint32_t)conf_int(spec, "maxPrefixes", 0);
        c->llgr_time_s = conf_seconds(spec, "longLivedRestartTime", 0xffffff, 0);
        const struct conf_filters *shared = filters_of(b, filters, f, is_ibgp, what);
        c->import = bgp_filter_ref(shared->import);
        c->export = bgp_filter_ref(shared->export);
    }
}

static void set_next_hop(struct peer_config *c, const struct jnode *spec, bool is_ibgp) {
    struct str mode = conf_str(spec, "nextHopMode");
    if (mode.n) {
        c->next_hop = str_is(mode, "Self")   ? NEXT_HOP_SELF
                      : str_is(mode, "Keep") ? NEXT_HOP_KEEP
                                             : NEXT_HOP_AUTO;
    } else if (conf_bool(spec, "keepOriginalNextHop", false) && !is_ibgp) {
        c->next_hop = NEXT_HOP_KEEP;
    }
}

static uint32_t micros(const struct jnode *bfd, const char *name) {
    int64_t us = conf_duration_ns(bfd, name) / 1000;
    return us <= 0 ? BFD_INTERVAL_DEFAULT_US : us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void set_bfd(struct conf_peer *p, const struct jnode *bfd) {
    if (!bfd) {
        return;
    }
    p->has_bfd = true;
    p->bfd = (struct bfd_config){.min_tx_us = micros(bfd, "minimumTransmitInterval"),
                                 .min_rx_us = micros(bfd, "minimumReceiveInterval"),
                                 .multiplier =
                                     (uint8_t)conf_int(bfd, "multiplier", BFD_MULTIPLIER_DEFAULT)};
}

static void set_timers(struct peer_config *c, const struct jnode *spec) {
    int64_t hold = conf_duration_ns(spec, "holdTime");
    c->hold_s = (uint16_t)(hold == 0 ? HOLD_NONE : conf_seconds(spec, "holdTime", 65534, 0));
    if (c->hold_s > 0 && c->hold_s < 3) {
        c->hold_s = 3; /* RFC 4271: one and two are not allowed */
    }
    c->keepalive_s = (uint16_t)conf_seconds(spec, "keepaliveTime", 65534, 0);
    c->connect_retry_s = (uint16_t)conf_seconds(spec, "connectRetryTime", 65534, 0);
    c->delay_open_s = (uint16_t)conf_seconds(spec, "delayOpenTime", 65534, 0);
    c->restart_time_s = (uint16_t)conf_seconds(spec, "maxRestartTime", 4095, 0);
    struct str gr = conf_str(spec, "gracefulRestart");
    c->gr = str_is(gr, "Disabled")     ? GR_DISABLED
            : str_is(gr, "HelperOnly") ? GR_HELPER_ONLY
                                       : GR_ENABLED;
}

/* Everything that the resource says of the session; the address is in p already. */
static void set_options(struct build *b, struct conf_peer *p, const struct jnode *spec,
                        enum bgp_family own, const char *what) {
    struct peer_config *c = &p->c;
    uint32_t our_as = c->local_as ? c->local_as : b->as;
    bool is_ibgp = c->as == our_as;
    set_timers(c, spec);
    set_next_hop(c, spec, is_ibgp);
    set_families(b, p, spec, own, is_ibgp, what);
    set_bfd(p, conf_get(spec, "bfd"));
    if (!str_is(conf_str(spec, "sourceAddress"), "None")) {
        c->local = b->self->addr[own].ip;
    }
    int64_t hops = conf_int(spec, "ttlSecurity", 0);
    if (hops > 0 && hops < 256) {
        c->gtsm = true;
        c->ttl = (uint8_t)hops;
    }
    p->interface = arena_dup(b->a, conf_str(spec, "interface"));
    if (p->interface.n) {
        c->local = (struct ip46){0}; /* a link-local session's address is of that interface */
    }
    c->extended_message = conf_bool(spec, "extendedMessages", false);
    c->extended_next_hop = conf_bool(spec, "extendedNextHop", false);
    c->role = role_of(conf_str(spec, "role"));
    c->is_rs_client = conf_bool(spec, "routeServerClient", false);
    struct str shutdown = conf_str(spec, "shutdown");
    c->is_shutdown = shutdown.n > 0;
    c->shutdown_text = arena_dup(b->a, shutdown);
    p->password = conf_password(b, conf_get(spec, "password"), what);
    const struct jnode *ao = conf_get(spec, "tcpAO");
    p->ao = conf_ao(b, ao, what);
    if (ao && !p->ao.n && !c->is_shutdown) { /* never without what was asked for */
        c->is_shutdown = true;
        c->shutdown_text = STR("no TCP-AO key");
    }
    /* A session inside our AS, when we reflect: all are clients but our cluster's own. */
    const struct conf_node *peer = c->address.family ? node_at(b, &c->address) : NULL;
    c->is_rr_client =
        is_ibgp && b->self->cluster_id && !(peer && peer->cluster_id == b->self->cluster_id);
    if (peer) {
        p->node = arena_dup(b->a, peer->name);
    }
}

/* ---- the list ---- */

/* The first of an address and port stays. */
static bool is_taken(const struct build *b, const struct where *w) {
    for (size_t i = 0; i < b->peers.n; i++) {
        const struct peer_config *c = &b->peers.p[i].c;
        if (ip_eq(&c->address, &w->ip) && c->port == w->port && c->address.family) {
            return true;
        }
    }
    return false;
}

static struct conf_peer *add_peer(struct build *b, const struct where *w, enum conf_peer_type type,
                                  struct str session, struct str resource) {
    struct conf_peer p = {.type = type, .session = session, .resource = arena_dup(b->a, resource)};
    char text[IP_TEXT_MAX];
    p.c.name = !w->ip.family ? session
               : w->port == BGP_PORT || !w->port
                   ? arena_printf(b->a, "%s", ip_text(&w->ip, text))
                   : arena_printf(b->a, "%s port %u", ip_text(&w->ip, text), w->port);
    p.c.address = w->ip;
    p.c.port = w->port;
    p.c.role = BGP_ROLE_NONE;
    vec_push(&b->peers, p);
    return &b->peers.p[b->peers.n - 1];
}

static uint32_t node_as(const struct build *b, const struct conf_node *n) {
    return n->as                            ? n->as
           : conf_as(b->global, "asNumber") ? conf_as(b->global, "asNumber")
                                            : CONF_AS_DEFAULT;
}

/* A Calico node as peer: found by peerSelector, or reversely. */
static void add_node_peers(struct build *b, const struct object *o, const struct conf_node *n,
                           const char *what) {
    const struct jnode *spec = conf_get(o->doc, "spec");
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        struct where w = {n->addr[f].ip, conf_listen_port(b, n->name)};
        if (n == b->self || !w.ip.family || !b->self->addr[f].ip.family || is_taken(b, &w)) {
            continue;
        }
        struct conf_peer *p =
            add_peer(b, &w, CONF_NODE_PEER, session_name(b, "Node", &w), o->meta.name);
        p->c.as = node_as(b, n);
        set_options(b, p, spec, (enum bgp_family)f, what);
    }
}

static bool selects(struct build *b, const struct jnode *spec, const struct conf_node *n,
                    const char *what) {
    struct str node = conf_str(spec, "node"), selector = conf_str(spec, "nodeSelector");
    return node.n       ? str_eq(node, n->name)
           : selector.n ? conf_matches(b, selector, n->labels, what)
                        : true;
}

static void set_gateway(struct build *b, struct conf_peer *p, const struct jnode *spec,
                        const char *what) {
    struct ip46 by;
    if (ip_parse(conf_str(spec, "reachableBy"), &by) < 0) {
        return;
    }
    if (by.family != p->c.address.family) {
        conf_problem(b, "%s: reachableBy is of another family than peerIP", what);
        return;
    }
    p->gateway = by;
}

static void add_address_peer(struct build *b, const struct object *o, const char *what) {
    const struct jnode *spec = conf_get(o->doc, "spec");
    bool is_global = !conf_str(spec, "node").n && !conf_str(spec, "nodeSelector").n;
    struct where w;
    if (!conf_where(conf_str(spec, "peerIP"), &w.ip, &w.port)) {
        return; /* the datastore's check says so */
    }
    enum bgp_family f = family_of(&w.ip);
    if (!b->self->addr[f].ip.family && !conf_str(spec, "interface").n) {
        conf_problem(b, "%s: node %.*s has no %s address to peer from", what,
                     STR_FMT(b->self->name), f == BGP_V4 ? "IPv4" : "IPv6");
        return;
    }
    const struct conf_node *peer = node_at(b, &w.ip);
    if (!w.port) {
        w.port = peer ? conf_listen_port(b, peer->name) : BGP_PORT;
    }
    if (peer == b->self || is_taken(b, &w)) {
        return;
    }
    struct conf_peer *p =
        add_peer(b, &w, is_global ? CONF_GLOBAL_PEER : CONF_NODE_PEER,
                 session_name(b, is_global ? "Global" : "Node", &w), o->meta.name);
    p->c.as = conf_as(spec, "asNumber");
    p->c.as = p->c.as ? p->c.as : b->as;
    p->c.local_as = conf_as(spec, "localASNumber");
    int64_t own = conf_int(spec, "numAllowedLocalASNumbers", 0);
    p->c.allow_own_as = own > 0 ? (unsigned)own : 0;
    p->c.is_passive = conf_bool(spec, "passive", is_global && peer && waits_for(b, &w.ip));
    set_options(b, p, spec, f, what);
    set_gateway(b, p, spec, what);
}

static void add_range_peer(struct build *b, const struct object *o, const char *what) {
    const struct jnode *spec = conf_get(o->doc, "spec");
    bool is_global = !conf_str(spec, "node").n && !conf_str(spec, "nodeSelector").n;
    struct where none = {0};
    struct prefix range;
    if (prefix_parse(conf_str(spec, "peerCIDR"), &range) < 0) {
        return;
    }
    struct conf_peer *p =
        add_peer(b, &none, is_global ? CONF_GLOBAL_PEER : CONF_NODE_PEER,
                 arena_printf(b->a, "Range_%.*s", STR_FMT(o->meta.name)), o->meta.name);
    p->c.range = prefix_mask(range);
    p->c.as = conf_as(spec, "asNumber");
    p->c.local_as = conf_as(spec, "localASNumber");
    p->c.is_passive = true;
    set_options(b, p, spec, range.ip.family == IP_V4 ? BGP_V4 : BGP_V6, what);
}

static void add_workload_peers(struct build *b, const struct object *o, const char *what) {
    const struct jnode *spec = conf_get(o->doc, "spec");
    struct str selector = conf_str(spec, "localWorkloadSelector");
    size_t at;
    for (const struct object *e = conf_first(b, K_WORKLOAD_ENDPOINT, &at); e;
         e = conf_next(b, K_WORKLOAD_ENDPOINT, &at)) {
        const struct jnode *pod = conf_get(e->doc, "spec");
        if (!str_eq(conf_str(pod, "node"), b->in->node_name) ||
            !conf_matches(b, selector, &e->meta.labels, what)) {
            continue;
        }
        if (conf_str(pod, "interfaceName").n) {
            vec_push(&b->local_links, arena_dup(b->a, conf_str(pod, "interfaceName")));
        }
        jnode_each (it, conf_get(pod, "ipNetworks")) {
            struct prefix net;
            if (prefix_parse(jnode_str(it), &net) < 0) {
                continue;
            }
            struct where w = {net.ip, BGP_PORT};
            enum bgp_family f = family_of(&w.ip);
            if (!b->self->addr[f].ip.family || is_taken(b, &w)) {
                continue;
            }
            struct conf_peer *p = add_peer(b, &w, CONF_WORKLOAD_PEER,
                                           session_name(b, "Local_Workload", &w), o->meta.name);
            p->c.as = conf_as(spec, "asNumber");
            p->c.local_as = conf_as(spec, "localASNumber");
            p->c.is_passive = true;
            p->c.gr = GR_ENABLED;
            uint32_t our_as = p->c.local_as ? p->c.local_as : b->as;
            struct jnode only = {.type = J_MAP}; /* nothing else of the resource counts */
            const struct jnode *filters = conf_get(spec, "filters");
            struct jnode copy;
            if (filters) {
                copy = *filters;
                copy.next = NULL;
                only.child = only.last = &copy;
            }
            set_families(b, p, &only, f, p->c.as == our_as, what);
        }
    }
}

/* One BGPPeer, from this node's point of view. */
static void add_bgp_peer(struct build *b, const struct object *o, bool want_global) {
    const struct jnode *spec = conf_get(o->doc, "spec");
    bool is_global = !conf_str(spec, "node").n && !conf_str(spec, "nodeSelector").n;
    struct str selector = conf_str(spec, "peerSelector");
    char what[300];
    if (is_global != want_global) {
        return;
    }
    (void)snprintf(what, sizeof(what), "BGPPeer %.*s", STR_FMT(o->meta.name));
    if (selects(b, spec, b->self, what)) {
        if (conf_str(spec, "localWorkloadSelector").n) {
            add_workload_peers(b, o, what);
        } else if (conf_str(spec, "peerCIDR").n) {
            add_range_peer(b, o, what);
        } else if (selector.n) {
            for (size_t i = 0; i < b->nodes.n; i++) {
                if (conf_matches(b, selector, b->nodes.p[i].labels, what)) {
                    add_node_peers(b, o, &b->nodes.p[i], what);
                }
            }
        } else {
            add_address_peer(b, o, what);
        }
    }
    /* The other side of a selected pair peers back. */
    if (selector.n && !conf_str(spec, "localWorkloadSelector").n &&
        !str_is(conf_str(spec, "reversePeering"), "Manual") &&
        conf_matches(b, selector, b->self->labels, what)) {
        for (size_t i = 0; i < b->nodes.n; i++) {
            if (selects(b, spec, &b->nodes.p[i], what)) {
                add_node_peers(b, o, &b->nodes.p[i], what);
            }
        }
    }
}

static void add_mesh(struct build *b) {
    if (!conf_bool(b->global, "nodeToNodeMeshEnabled", true) || b->self->cluster_id) {
        return;
    }
    struct arena *a = &b->scratch;
    struct jnode *spec = jnode_new(a, J_MAP); /* as if a BGPPeer said so */
    const struct jnode *password = conf_get(b->global, "nodeMeshPassword");
    struct str restart = conf_str(b->global, "nodeMeshMaxRestartTime");
    if (password) {
        jnode_set(a, spec, STR("password"), jnode_copy(a, password));
    }
    if (restart.n) {
        jnode_set(a, spec, STR("maxRestartTime"), jnode_new_str(a, restart));
    }
    for (size_t i = 0; i < b->nodes.n; i++) {
        const struct conf_node *n = &b->nodes.p[i];
        for (int f = 0; f < BGP_N_FAMILIES; f++) {
            struct where w = {n->addr[f].ip, conf_listen_port(b, n->name)};
            if (n == b->self || n->cluster_id || !w.ip.family || !b->self->addr[f].ip.family ||
                is_taken(b, &w)) {
                continue;
            }
            struct where plain = {w.ip, 0};
            struct conf_peer *p =
                add_peer(b, &w, CONF_MESH, session_name(b, "Mesh", &plain), STR(""));
            p->c.as = n->as ? n->as : b->as;
            p->c.is_passive = waits_for(b, &w.ip);
            set_options(b, p, spec, (enum bgp_family)f, "the mesh");
        }
    }
}

void conf_add_peers(struct build *b) {
    size_t at;
    if (!b->self || !b->out->has_node) {
        return;
    }
    for (int global = 1; global >= 0; global--) {
        for (const struct object *o = conf_first(b, K_BGP_PEER, &at); o;
             o = conf_next(b, K_BGP_PEER, &at)) {
            add_bgp_peer(b, o, global);
        }
    }
    add_mesh(b);
}
