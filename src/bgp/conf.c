/* Builds the speaker's configuration: what concerns the speaker itself, the node, its blocks, and
 * what goes into the kernel. Peers, filters and services have files of their own. */
#include "base/hash.h"
#include "base/log.h"
#include "bgp/conf_int.h"

#include <stdlib.h>

static int compare_objects(const void *x, const void *y) {
    const struct object *a = *(const struct object *const *)x,
                        *b = *(const struct object *const *)y;
    if (a->kind->id != b->kind->id) {
        return a->kind->id < b->kind->id ? -1 : 1;
    }
    int r = str_cmp(a->meta.ns, b->meta.ns);
    return r ? r : str_cmp(a->meta.name, b->meta.name);
}

const struct object *conf_next(const struct build *b, enum kind_id kind, size_t *at) {
    while (*at < b->n_objects && b->objects[*at]->kind->id < kind) {
        (*at)++;
    }
    return *at < b->n_objects && b->objects[*at]->kind->id == kind ? b->objects[(*at)++] : NULL;
}

const struct object *conf_first(const struct build *b, enum kind_id kind, size_t *at) {
    *at = 0;
    return conf_next(b, kind, at);
}

static const struct jnode *spec_of(const struct object *o) {
    return o ? conf_get(o->doc, "spec") : NULL;
}

static const struct jnode *configuration(const struct build *b, struct str name) {
    size_t at;
    for (const struct object *o = conf_first(b, K_BGP_CONFIGURATION, &at); o;
         o = conf_next(b, K_BGP_CONFIGURATION, &at)) {
        if (str_eq(o->meta.name, name)) {
            return spec_of(o);
        }
    }
    return NULL;
}

static const struct jnode *node_configuration(const struct build *b, struct str node) {
    struct arena a = {0};
    const struct jnode *n = configuration(b, arena_printf(&a, "node.%.*s", STR_FMT(node)));
    arena_fini(&a);
    return n;
}

const struct jnode *conf_setting(const struct build *b, const char *name) {
    const struct jnode *n = conf_get(b->own, name);
    return n ? n : conf_get(b->global, name);
}

uint16_t conf_listen_port(const struct build *b, struct str node) {
    int64_t port = conf_int(node_configuration(b, node), "listenPort", 0);
    return (uint16_t)(port ? port : conf_int(b->global, "listenPort", BGP_PORT));
}

/* ---- nodes and pools ---- */

static struct prefix address(const struct jnode *bgp, const char *name, uint8_t family) {
    struct prefix p;
    return prefix_parse(conf_str(bgp, name), &p) == 0 && p.ip.family == family ? p
                                                                               : (struct prefix){0};
}

static void add_node(struct build *b, const struct object *o) {
    const struct jnode *spec = spec_of(o), *bgp = conf_get(spec, "bgp");
    const struct jnode *guard = conf_get(spec, "wireguard"), *status = conf_get(o->doc, "status");
    struct ip46 cluster;
    struct conf_node n = {.name = o->meta.name, .labels = &o->meta.labels};
    n.addr[BGP_V4] = address(bgp, "ipv4Address", IP_V4);
    n.addr[BGP_V6] = address(bgp, "ipv6Address", IP_V6);
    n.as = conf_as(bgp, "asNumber");
    if (ip_parse(conf_str(bgp, "routeReflectorClusterID"), &cluster) == 0 &&
        cluster.family == IP_V4) {
        n.cluster_id = get_u32(cluster.b);
    }
    n.has_wireguard[BGP_V4] = conf_str(guard, "interfaceIPv4Address").n > 0 &&
                              conf_str(status, "wireguardPublicKey").n > 0;
    n.has_wireguard[BGP_V6] = conf_str(guard, "interfaceIPv6Address").n > 0 &&
                              conf_str(status, "wireguardPublicKeyV6").n > 0;
    vec_push(&b->nodes, n);
}

static bool is_mode(const struct jnode *spec, const char *name) {
    struct str s = conf_str(spec, name);
    return s.n && !str_ieq(s, STR("Never"));
}

static void read_nodes(struct build *b) {
    size_t at;
    for (const struct object *o = conf_first(b, K_NODE, &at); o; o = conf_next(b, K_NODE, &at)) {
        add_node(b, o);
    }
    for (size_t i = 0; i < b->nodes.n; i++) {
        if (str_eq(b->nodes.p[i].name, b->in->node_name)) {
            b->self = &b->nodes.p[i];
        }
    }
}

static void read_pools(struct build *b) {
    size_t at;
    for (const struct object *o = conf_first(b, K_IP_POOL, &at); o;
         o = conf_next(b, K_IP_POOL, &at)) {
        const struct jnode *spec = spec_of(o);
        struct conf_pool p = {.name = o->meta.name};
        if (prefix_parse(conf_str(spec, "cidr"), &p.cidr) < 0) {
            continue; /* the datastore's check says so */
        }
        p.is_vxlan = is_mode(spec, "vxlanMode");
        p.is_ipip = is_mode(spec, "ipipMode");
        p.is_cross = str_ieq(conf_str(spec, "ipipMode"), STR("CrossSubnet"));
        p.is_hidden = conf_bool(spec, "disableBGPExport", false);
        vec_push(&b->pools, p);
    }
}

/* ---- blocks ---- */

static void add_block(struct build *b, const struct prefix *cidr) {
    struct conf_block block = {.cidr = prefix_mask(*cidr), .node = b->in->node_name};
    for (size_t i = 0; i < b->blocks.n; i++) {
        if (prefix_eq(&b->blocks.p[i].cidr, &block.cidr)) {
            return;
        }
    }
    vec_push(&b->blocks, block);
    struct conf_route r = {.prefix = block.cidr,
                           .is_block = true,
                           .owner =
                               arena_printf(b->a, "block of node %.*s", STR_FMT(b->in->node_name))};
    vec_push(&b->routes, r);
}

static void read_blocks(struct build *b) {
    size_t at;
    struct prefix p;
    for (size_t i = 0; i < b->in->n_blocks; i++) {
        const struct conf_block *k = &b->in->blocks[i];
        if (str_eq(k->node, b->in->node_name) && str_is(k->state, "confirmed")) {
            add_block(b, &k->cidr);
        }
    }
    for (const struct object *o = conf_first(b, K_BLOCK_AFFINITY, &at); o;
         o = conf_next(b, K_BLOCK_AFFINITY, &at)) {
        const struct jnode *spec = spec_of(o);
        if (str_eq(conf_str(spec, "node"), b->in->node_name) &&
            str_is(conf_str(spec, "state"), "confirmed") && !conf_bool(spec, "deleted", false) &&
            prefix_parse(conf_str(spec, "cidr"), &p) == 0) {
            add_block(b, &p);
        }
    }
    if (!b->in->use_pod_cidr) {
        return;
    }
    for (const struct object *o = conf_first(b, K_NODE_K8S, &at); o;
         o = conf_next(b, K_NODE_K8S, &at)) {
        if (str_eq(o->meta.name, b->in->node_name)) {
            jnode_each (it, conf_get(spec_of(o), "podCIDRs")) {
                if (prefix_parse(jnode_str(it), &p) == 0) {
                    add_block(b, &p);
                }
            }
        }
    }
}

/* ---- the speaker ---- */

static uint32_t hashed_id(struct str name) {
    uint8_t sum[20];
    sha1(name.p, name.n, sum);
    uint32_t id = get_u32(sum);
    return id ? id : 1;
}

static uint32_t router_id(struct build *b) {
    struct ip46 ip;
    struct str asked = b->in->router_id;
    if (ip_parse(asked, &ip) == 0 && ip.family == IP_V4) {
        return get_u32(ip.b);
    }
    if (asked.n && !str_is(asked, "hash")) {
        conf_problem(b, "CALICO_ROUTER_ID: found \"%.*s\", allowed is an IPv4 address or hash",
                     STR_FMT(asked));
    }
    if (!str_is(asked, "hash") && b->self && b->self->addr[BGP_V4].ip.family) {
        return get_u32(b->self->addr[BGP_V4].ip.b);
    }
    return hashed_id(b->in->node_name);
}

static void read_speaker(struct build *b) {
    struct bgp_conf *o = b->out;
    uint32_t global_as = conf_as(b->global, "asNumber");
    b->as = b->self && b->self->as ? b->self->as : global_as ? global_as : CONF_AS_DEFAULT;
    o->speaker.as = b->as;
    o->speaker.router_id = router_id(b);
    o->speaker.cluster_id = b->self ? b->self->cluster_id : 0;
    o->speaker.max_paths = CONF_MAX_PATHS;
    o->speaker.multipath_relax = true;
    o->listen_port = conf_listen_port(b, b->in->node_name);
    o->bind_node_ip = str_is(jnode_str(conf_setting(b, "bindMode")), "NodeIP");
    o->priority[BGP_V4] =
        (uint32_t)conf_int(b->global, "ipv4NormalRoutePriority", CONF_PRIORITY_DEFAULT);
    o->priority[BGP_V6] =
        (uint32_t)conf_int(b->global, "ipv6NormalRoutePriority", CONF_PRIORITY_DEFAULT);
    enum log_level level;
    o->log_level = log_level_parse(jnode_str(conf_setting(b, "logSeverityScreen")), &level)
                       ? (enum log_conf_level)level
                       : CONF_LOG_UNSET;
    static const char *const LOCAL[] = {"localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6"};
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        struct ip46 ip;
        if (ip_parse(jnode_str(conf_setting(b, LOCAL[f])), &ip) == 0) {
            o->local_peering[f] = ip;
        }
    }
    if (b->self) {
        o->node[BGP_V4] = b->self->addr[BGP_V4];
        o->node[BGP_V6] = b->self->addr[BGP_V6];
        o->has_node = o->node[BGP_V4].ip.family || o->node[BGP_V6].ip.family;
    }
    if (!o->has_node) {
        conf_problem(b, "Node %.*s: %s, so it has no peers", STR_FMT(b->in->node_name),
                     b->self ? "it has neither spec.bgp.ipv4Address nor ipv6Address"
                             : "there is no such Node");
    }
}

static void read_ignored(struct build *b) {
    const struct jnode *list = conf_setting(b, "ignoredInterfaces");
    /* What is not ours to announce in any case: pods' interfaces, and kube-proxy's with every
     * service's address. */
    static const char *const ALWAYS[] = {"cali*", "kube-ipvs*"};
    VEC(struct str) names = {0};
    jnode_each (it, list) {
        vec_push(&names, arena_dup(b->a, jnode_str(it)));
    }
    for (size_t i = 0; i < ARRAY_LEN(ALWAYS); i++) {
        vec_push(&names, str_c(ALWAYS[i]));
    }
    b->out->ignored = arena_array(b->a, struct str, names.n);
    memcpy(b->out->ignored, names.p, sizeof(*names.p) * names.n);
    b->out->n_ignored = names.n;
    vec_fini(&names);
}

/* ---- kernel ---- */

size_t conf_cidrs(struct build *b, const char *list, struct prefix **out) {
    const struct jnode *blocks = conf_get(b->global, list);
    size_t n = 0;
    *out = arena_array(&b->scratch, struct prefix, blocks ? blocks->n : 0);
    jnode_each (it, blocks) {
        n += prefix_parse(conf_str(it, "cidr"), &(*out)[n]) == 0;
    }
    return n;
}

static void add_kernel(struct build *b, const struct prefix *p, enum kernel_verdict v,
                       struct str owner) {
    struct conf_kernel_rule r = {prefix_mask(*p), v, owner};
    vec_push(&b->kernel, r);
}

/* Who writes the routes to other nodes' blocks (BGPConfiguration.programClusterRoutes). */
static void read_kernel(struct build *b) {
    static const char *const LISTS[] = {"serviceClusterIPs", "serviceExternalIPs",
                                        "serviceLoadBalancerIPs"};
    struct str own = conf_str(b->global, "programClusterRoutes");
    bool all = str_is(own, "Enabled"), none = str_is(own, "Disabled");
    bool ipip = all || str_is(own, "EnabledIPIPOnly");
    bool plain = all || (!none && !ipip);
    b->felix_owns_ipip = !ipip;
    for (size_t i = 0; i < ARRAY_LEN(LISTS); i++) {
        struct prefix *cidrs;
        size_t n = conf_cidrs(b, LISTS[i], &cidrs);
        for (size_t k = 0; k < n; k++) {
            add_kernel(b, &cidrs[k], KERNEL_REJECT, str_c(LISTS[i]));
        }
    }
    for (size_t i = 0; i < b->pools.n; i++) {
        const struct conf_pool *p = &b->pools.p[i];
        enum kernel_verdict v = p->is_vxlan                 ? KERNEL_REJECT
                                : p->is_ipip && !ipip       ? KERNEL_REJECT
                                : p->is_ipip && p->is_cross ? KERNEL_CROSS
                                : p->is_ipip                ? KERNEL_TUNNEL
                                : plain                     ? KERNEL_ACCEPT
                                                            : KERNEL_REJECT;
        add_kernel(b, &p->cidr, v, arena_printf(b->a, "IPPool %.*s", STR_FMT(p->name)));
    }
    /* What WireGuard carries must not go around it. */
    b->out->no_hops = arena_array(b->a, struct ip46, b->nodes.n * BGP_N_FAMILIES);
    for (size_t i = 0; i < b->nodes.n; i++) {
        for (int f = 0; f < BGP_N_FAMILIES; f++) {
            const struct conf_node *n = &b->nodes.p[i];
            if (b->self && n != b->self && b->self->has_wireguard[f] && n->has_wireguard[f] &&
                n->addr[f].ip.family) {
                b->out->no_hops[b->out->n_no_hops++] = n->addr[f].ip;
            }
        }
    }
}

enum kernel_verdict bgp_conf_kernel(const struct bgp_conf *c, const struct prefix *p,
                                    const struct ip46 *hop) {
    for (size_t i = 0; hop && i < c->n_no_hops; i++) {
        if (ip_eq(&c->no_hops[i], hop)) {
            return KERNEL_REJECT;
        }
    }
    for (size_t i = 0; i < c->n_kernel; i++) {
        const struct conf_kernel_rule *r = &c->kernel[i];
        if (!prefix_has(&r->cidr, p)) {
            continue;
        }
        if (r->verdict == KERNEL_CROSS) {
            struct prefix net = c->node[BGP_V4];
            return hop && net.ip.family && prefix_has_ip(&net, hop) ? KERNEL_ACCEPT : KERNEL_TUNNEL;
        }
        return r->verdict;
    }
    return KERNEL_ACCEPT;
}

uint32_t bgp_conf_metric(const struct bgp_conf *c, const struct prefix *p, uint32_t local_pref) {
    /* Other routers' preferences (100 and the like) are no priority: only what lies in the upper
     * half of the range came of Calico's arithmetic. */
    if (local_pref > BGP_PRIORITY_BASE / 2 && local_pref < BGP_PRIORITY_BASE) {
        return BGP_PRIORITY_BASE - local_pref;
    }
    return c->priority[p->ip.family == IP_V6];
}

static bool glob(struct str pattern, struct str s) {
    size_t i = 0, k = 0, star = SIZE_MAX, mark = 0;
    while (k < s.n) {
        if (i < pattern.n && pattern.p[i] == '*') {
            star = i++;
            mark = k;
        } else if (i < pattern.n && pattern.p[i] == s.p[k]) {
            i++;
            k++;
        } else if (star != SIZE_MAX) {
            i = star + 1;
            k = ++mark;
        } else {
            return false;
        }
    }
    while (i < pattern.n && pattern.p[i] == '*') {
        i++;
    }
    return i == pattern.n;
}

bool bgp_conf_is_ignored(const struct bgp_conf *c, struct str interface) {
    for (size_t i = 0; i < c->n_ignored; i++) {
        if (glob(c->ignored[i], interface)) {
            return true;
        }
    }
    return false;
}

/* ---- all of it ---- */

static int compare_peers(const void *x, const void *y) {
    return str_cmp(((const struct conf_peer *)x)->session, ((const struct conf_peer *)y)->session);
}

static int compare_routes(const void *x, const void *y) {
    const struct conf_route *a = x, *b = y;
    int r = prefix_cmp(&a->prefix, &b->prefix);
    r = r ? r : (int)b->is_block - (int)a->is_block;
    return r ? r : str_cmp(a->owner, b->owner);
}

#define KEEP(o, member, vec)                                              \
    do {                                                                  \
        (o)->member = arena_alloc(&(o)->a, sizeof(*(vec)->p) * (vec)->n); \
        if ((vec)->n) {                                                   \
            memcpy((o)->member, (vec)->p, sizeof(*(vec)->p) * (vec)->n);  \
        }                                                                 \
        (o)->n_##member = (vec)->n;                                       \
        vec_fini(vec);                                                    \
    } while (0)

static void finish(struct build *b) {
    struct bgp_conf *o = b->out;
    vec_sort(&b->peers, compare_peers);
    vec_sort(&b->routes, compare_routes);
    vec_sort(&b->problems, str_cmp_qsort);
    size_t n = 0;
    for (size_t i = 0; i < b->routes.n; i++) { /* one route a prefix: the first owner's */
        if (n == 0 || !prefix_eq(&b->routes.p[n - 1].prefix, &b->routes.p[i].prefix)) {
            b->routes.p[n++] = b->routes.p[i];
        }
    }
    b->routes.n = n;
    KEEP(o, peers, &b->peers);
    KEEP(o, routes, &b->routes);
    KEEP(o, kernel, &b->kernel);
    KEEP(o, problems, &b->problems);
    KEEP(o, local_links, &b->local_links);
    for (size_t i = 0; i < b->filters.n; i++) {
        bgp_filter_unref(b->filters.p[i].import);
        bgp_filter_unref(b->filters.p[i].export);
    }
    vec_fini(&b->filters);
    vec_fini(&b->nodes);
    vec_fini(&b->pools);
    vec_fini(&b->blocks);
    arena_fini(&b->scratch);
}

struct bgp_conf *bgp_conf_build(const struct conf_input *in) {
    struct bgp_conf *o = calloc(1, sizeof(*o));
    mg_assert(o);
    struct build b = {.in = in, .out = o, .a = &o->a};
    b.objects = arena_array(&b.scratch, const struct object *, in->n_objects);
    for (size_t i = 0; i < in->n_objects; i++) {
        b.objects[b.n_objects++] = &in->objects[i];
    }
    if (b.n_objects > 1) {
        qsort(b.objects, b.n_objects, sizeof(struct object *), compare_objects);
    }
    b.global = configuration(&b, STR("default"));
    b.own = node_configuration(&b, in->node_name);
    read_nodes(&b);
    read_pools(&b);
    read_speaker(&b);
    read_ignored(&b);
    conf_read_monitor(&b);
    read_kernel(&b);
    read_blocks(&b);
    conf_add_services(&b);
    conf_add_peers(&b);
    finish(&b);
    return o;
}

void bgp_conf_free(struct bgp_conf *c) {
    if (!c) {
        return;
    }
    for (size_t i = 0; i < c->n_peers; i++) {
        for (int f = 0; f < BGP_N_FAMILIES; f++) {
            bgp_filter_unref(c->peers[i].c.family[f].import);
            bgp_filter_unref(c->peers[i].c.family[f].export);
        }
        if (c->peers[i].password.n) {
            explicit_bzero((char *)(uintptr_t)c->peers[i].password.p, c->peers[i].password.n);
        }
        for (size_t k = 0; k < c->peers[i].ao.n; k++) {
            struct str secret = c->peers[i].ao.p[k].secret;
            explicit_bzero((char *)(uintptr_t)secret.p, secret.n);
        }
    }
    arena_fini(&c->a);
    free(c);
}
