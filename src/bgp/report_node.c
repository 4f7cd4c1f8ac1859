/* What a CalicoNodeStatus of this node says (spec.classes Agent, BGP, Routes), as JSON of its
 * status. */
#include "base/clock.h"
#include "bgp/ctl.h"
#include "bgp/wire.h"

enum { ROUTES_MAX = 10000 /* of a family; a resource can't hold a full table */ };

static void set(struct arena *a, struct jnode *map, const char *key, struct jnode *v) {
    jnode_set(a, map, str_c(key), v);
}
static void set_str(struct arena *a, struct jnode *map, const char *key, struct str v) {
    set(a, map, key, jnode_new_str(a, arena_dup(a, v)));
}

static struct jnode *agent(const struct bgp_proc *p, struct arena *a) {
    const struct bgp_conf *c = bgp_proc_conf(p);
    struct jnode *out = jnode_new(a, J_MAP);
    static const char *const NAMES[] = {"birdV4", "birdV6"};
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        struct jnode *d = jnode_new(a, J_MAP);
        char text[IP_TEXT_MAX], at[32];
        struct ip46 id = {.family = IP_V4};
        set_u32(id.b, c->speaker.router_id);
        set_str(a, d, "state", str_c(c->node[f].ip.family ? "Ready" : "NotReady"));
        set_str(a, d, "routerID", str_c(ip_text(&id, text)));
        set_str(a, d, "lastBootTime", str_c(clock_rfc3339(bgp_proc_started_wall_ns(p), at)));
        set_str(a, d, "lastReconfigurationTime",
                str_c(clock_rfc3339(bgp_proc_applied_wall_ns(p), at)));
        set(a, out, NAMES[f], d);
    }
    return out;
}

static const char *type_of(const struct conf_peer *c) {
    return !c || c->type == CONF_MESH    ? "NodeMesh"
           : c->type == CONF_GLOBAL_PEER ? "GlobalPeer"
                                         : "NodePeer";
}

static struct jnode *bgp(const struct bgp_proc *p, int64_t now_ns, struct arena *a) {
    static const char *const UP[] = {"numberEstablishedV4", "numberEstablishedV6"};
    static const char *const DOWN[] = {"numberNotEstablishedV4", "numberNotEstablishedV6"};
    static const char *const PEERS[] = {"peersV4", "peersV6"};
    const struct speaker *s = bgp_proc_speaker(p);
    struct jnode *out = jnode_new(a, J_MAP), *lists[BGP_N_FAMILIES];
    int64_t up[BGP_N_FAMILIES] = {0}, all[BGP_N_FAMILIES] = {0};
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        lists[f] = jnode_new(a, J_LIST);
    }
    for (uint16_t id = 0; (id = speaker_peer_next(s, id));) {
        struct peer_status st;
        char ip[IP_TEXT_MAX], at[32];
        if (!speaker_peer_status(s, id, &st) || !st.address.family) {
            continue;
        }
        int f = st.address.family == IP_V6;
        struct jnode *n = jnode_new(a, J_MAP);
        set_str(a, n, "peerIP", str_c(ip_text(&st.address, ip)));
        set_str(a, n, "type", str_c(type_of(bgp_proc_peer(p, id))));
        set_str(a, n, "state", str_c(bgp_state_name(st.state)));
        set_str(a, n, "since", str_c(clock_rfc3339(clock_wall_ns() - (now_ns - st.since), at)));
        jnode_append(lists[f], n);
        up[f] += st.state == BGP_ESTABLISHED;
        all[f]++;
    }
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        set(a, out, UP[f], jnode_new_int(a, up[f]));
        set(a, out, DOWN[f], jnode_new_int(a, all[f] - up[f]));
        set(a, out, PEERS[f], lists[f]);
    }
    return out;
}

struct walk {
    const struct bgp_proc *p;
    struct arena *a;
    struct jnode *list;
};

static void on_route(void *user, const struct route_view *v) {
    struct walk *w = user;
    static const char *const SOURCES[] = {[ROUTE_KERNEL] = "Kernel",
                                          [ROUTE_CONNECTED] = "Direct",
                                          [ROUTE_STATIC] = "Static",
                                          [ROUTE_LOCAL] = "Kernel"};
    if (v->is_rejected || w->list->n >= ROUTES_MAX) {
        return;
    }
    char text[IP_TEXT_MAX];
    struct jnode *n = jnode_new(w->a, J_MAP), *from = jnode_new(w->a, J_MAP);
    const struct peer_config *c =
        v->peer ? speaker_peer_config(bgp_proc_speaker(w->p), v->peer) : NULL;
    const struct conf_peer *conf = v->peer ? bgp_proc_peer(w->p, v->peer) : NULL;
    set_str(w->a, n, "type", str_c(v->is_best ? "FIB" : "RIB"));
    set_str(w->a, n, "destination", str_c(prefix_text(&v->prefix, text)));
    set_str(w->a, n, "gateway",
            str_c(v->attrs.next_hop.family ? ip_text(&v->attrs.next_hop, text) : "N/A"));
    if (c) {
        set_str(w->a, from, "sourceType",
                str_c(conf && conf->type == CONF_MESH ? "NodeMesh" : "BGPPeer"));
        set_str(w->a, from, "peerIP", str_c(ip_text(&c->address, text)));
    } else {
        set_str(w->a, from, "sourceType", str_c(SOURCES[v->source]));
    }
    set(w->a, n, "learnedFrom", from);
    jnode_append(w->list, n);
}

static struct jnode *routes(const struct bgp_proc *p, struct arena *a) {
    static const char *const NAMES[] = {"routesV4", "routesV6"};
    struct jnode *out = jnode_new(a, J_MAP);
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        struct walk w = {p, a, jnode_new(a, J_LIST)};
        uint32_t at = 0;
        do {
            speaker_routes(bgp_proc_speaker(p), (enum bgp_family)f, &at, 1024, on_route, &w);
        } while (at && w.list->n < ROUTES_MAX);
        set(a, out, NAMES[f], w.list);
    }
    return out;
}

void bgp_report_node_status(struct bgp_proc *p, int64_t now_ns, struct str classes,
                            struct buf *out) {
    struct arena a = {0};
    struct jnode *map = jnode_new(&a, J_MAP);
    char at[32];
    set_str(&a, map, "lastUpdated", str_c(clock_rfc3339(clock_wall_ns(), at)));
    while (classes.p) {
        struct str c = str_cut(&classes, ',');
        if (str_is(c, "Agent")) {
            set(&a, map, "agent", agent(p, &a));
        } else if (str_is(c, "BGP")) {
            set(&a, map, "bgp", bgp(p, now_ns, &a));
        } else if (str_is(c, "Routes")) {
            set(&a, map, "routes", routes(p, &a));
        }
    }
    json_write(out, map, 0);
    buf_putc(out, '\n');
    arena_fini(&a);
}
