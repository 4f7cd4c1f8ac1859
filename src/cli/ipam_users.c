/* Who uses which address, by all that the store tells: endpoints, pods, nodes' tunnels, services.
 */
#include "cli/ipam_cli.h"

#include <stdlib.h>

struct reading {
    struct ipam_users *u;
    const struct kind *kind;
};

static void add(struct ipam_users *u, struct str text, struct str what, struct str ns,
                struct str pod, struct str container, struct str node) {
    struct prefix p;
    if (text.n && prefix_parse(text, &p) == 0) {
        vec_push(&u->v, (struct ipam_user){p.ip, what, ns, pod, container, node});
    }
}

static void see_endpoint(struct ipam_users *u, struct str ns, struct str name,
                         const struct jnode *doc) {
    struct arena *a = u->a;
    struct str pod = jnode_str(jnode_path(doc, "spec.pod"));
    struct str container = jnode_str(jnode_path(doc, "spec.containerID"));
    struct str what = pod.n ? arena_printf(a, "pod %.*s/%.*s", STR_FMT(ns), STR_FMT(pod))
                            : arena_printf(a, "workload %.*s/%.*s", STR_FMT(ns), STR_FMT(name));
    u->n_endpoints++;
    const struct jnode *nets = jnode_path(doc, "spec.ipNetworks");
    jnode_each (n, nets) {
        add(u, jnode_str(n), what, ns, pod, container, jnode_str(jnode_path(doc, "spec.node")));
    }
}

static bool is_true(const struct jnode *n) {
    return n && n->type == J_BOOL && n->b;
}

static void see_pod(struct ipam_users *u, struct str ns, struct str name, const struct jnode *doc) {
    struct arena *a = u->a;
    struct str what = arena_printf(a, "pod %.*s/%.*s", STR_FMT(ns), STR_FMT(name));
    struct str phase = jnode_str(jnode_path(doc, "status.phase"));
    vec_push(&u->pods, str_sub(what, strlen("pod "), what.n));
    if (is_true(jnode_path(doc, "spec.hostNetwork")) || str_is(phase, "Succeeded") ||
        str_is(phase, "Failed")) {
        return; /* its address is the node's, or nobody's any more */
    }
    const struct jnode *ips = jnode_path(doc, "status.podIPs");
    jnode_each (n, ips) {
        add(u, jnode_str(jnode_getc(n, "ip")), what, ns, name, STR(""), STR(""));
    }
    if (!ips) {
        add(u, jnode_str(jnode_path(doc, "status.podIP")), what, ns, name, STR(""), STR(""));
    }
}

static void see_node(struct ipam_users *u, struct str name, const struct jnode *doc) {
    static const struct {
        const char *path, *what;
    } tunnels[] = {
        {"spec.bgp.ipv4IPIPTunnelAddr", "IPIP"},
        {"spec.ipv4VXLANTunnelAddr", "VXLAN"},
        {"spec.ipv6VXLANTunnelAddr", "VXLAN IPv6"},
        {"spec.wireguard.interfaceIPv4Address", "WireGuard"},
        {"spec.wireguard.interfaceIPv6Address", "WireGuard IPv6"},
    };
    u->n_nodes++;
    vec_push(&u->nodes, name);
    for (size_t i = 0; i < ARRAY_LEN(tunnels); i++) {
        struct str ip = jnode_str(jnode_path(doc, tunnels[i].path));
        u->n_tunnels += ip.n > 0;
        add(u, ip, arena_printf(u->a, "%s tunnel of node %.*s", tunnels[i].what, STR_FMT(name)),
            STR(""), STR(""), STR(""), name);
    }
}

static void see_service(struct ipam_users *u, struct str ns, struct str name,
                        const struct jnode *doc) {
    const struct jnode *list = jnode_path(doc, "status.loadBalancer.ingress");
    jnode_each (n, list) {
        u->n_services++;
        add(u, jnode_str(jnode_getc(n, "ip")),
            arena_printf(u->a, "service %.*s/%.*s", STR_FMT(ns), STR_FMT(name)), STR(""), STR(""),
            STR(""), STR(""));
    }
}

static int see(void *arg, const struct store_item *it) {
    const struct reading *r = arg;
    struct arena *a = r->u->a;
    const struct kind *k;
    struct str ns, name;
    struct jnode *doc = NULL;
    struct err e;
    if (kind_split_key(arena_dup(a, it->key), &k, &ns, &name) < 0 ||
        json_parse(arena_dup(a, it->value), &json_limits_default, a, &doc, &e) < 0) {
        return 0;
    }
    switch ((int)r->kind->id) {
    case K_WORKLOAD_ENDPOINT:
        see_endpoint(r->u, ns, name, doc);
        break;
    case K_POD:
        see_pod(r->u, ns, name, doc);
        break;
    case K_NODE:
        see_node(r->u, name, doc);
        break;
    case K_NODE_K8S:
        vec_push(&r->u->nodes, name);
        break;
    default:
        see_service(r->u, ns, name, doc);
    }
    return 0;
}

static int user_cmp(const void *x, const void *y) {
    const struct ipam_user *a = x, *b = y;
    int c = ip_cmp(&a->ip, &b->ip);
    return c ? c : str_cmp(a->what, b->what);
}

int ipam_users_read(struct store *s, struct arena *a, struct ipam_users *out, struct err *e) {
    static const enum kind_id kinds[] = {K_WORKLOAD_ENDPOINT, K_POD, K_NODE, K_NODE_K8S, K_SERVICE};
    int r = 0;
    *out = (struct ipam_users){.a = a};
    for (size_t i = 0; i < ARRAY_LEN(kinds) && r == 0; i++) {
        struct reading x = {out, &model_kinds[kinds[i]]};
        struct str prefix = arena_printf(a, "%s/", kind_store_name(x.kind));
        r = store_list(s, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, NULL, see, &x, e);
    }
    vec_sort(&out->v, user_cmp);
    vec_sort(&out->pods, str_cmp_qsort);
    vec_sort(&out->nodes, str_cmp_qsort);
    /* A pod and its endpoint are one. The endpoint's, which knows the container, stays. */
    size_t n = 0;
    for (size_t i = 0; i < out->v.n; i++) {
        if (n && user_cmp(&out->v.p[n - 1], &out->v.p[i]) == 0) {
            if (out->v.p[i].container.n) {
                out->v.p[n - 1] = out->v.p[i];
            }
        } else {
            out->v.p[n++] = out->v.p[i];
        }
    }
    out->v.n = n;
    return r;
}

void ipam_users_fini(struct ipam_users *u) {
    vec_fini(&u->v);
    vec_fini(&u->pods);
    vec_fini(&u->nodes);
}

const struct ipam_user *ipam_users_of(const struct ipam_users *u, const struct ip46 *ip,
                                      size_t *n) {
    size_t lo = 0, hi = u->v.n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (ip_cmp(&u->v.p[mid].ip, ip) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    *n = 0;
    while (lo + *n < u->v.n && ip_eq(&u->v.p[lo + *n].ip, ip)) {
        ++*n;
    }
    return *n ? &u->v.p[lo] : NULL;
}

bool ipam_users_has(const struct str *sorted, size_t n, struct str name) {
    return bsearch(&name, sorted, n, sizeof(*sorted), str_cmp_qsort) != NULL;
}
