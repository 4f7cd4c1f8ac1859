/* Addresses of services that this node announces: ranges as a whole, and single addresses of those
 * services that must be reached on the nodes of their pods (externalTrafficPolicy Local).
 * Learned from Calico's confd/pkg/backends/calico/routes.go. */
#include "bgp/conf_int.h"
#include "model/k8s.h"

#define EXCLUDE_LABEL "node.kubernetes.io/exclude-from-external-load-balancers"
#define SLICE_LABEL "kubernetes.io/service-name"

struct ranges {
    struct prefix *p;
    size_t n;
};
struct services {
    struct ranges cluster, external, balancer;
    bool aggregates; /* serviceLoadBalancerAggregation */
};

static bool has_label(const struct str_map *m, const char *key) {
    for (size_t i = 0; m && i < m->n; i++) {
        if (str_is(m->p[i].key, key)) {
            return true;
        }
    }
    return false;
}

static struct str label(const struct str_map *m, const char *key) {
    for (size_t i = 0; i < m->n; i++) {
        if (str_is(m->p[i].key, key)) {
            return m->p[i].value;
        }
    }
    return STR_NULL;
}

static void add_route(struct build *b, const struct prefix *p, struct str owner) {
    struct conf_route r = {.prefix = prefix_mask(*p), .owner = owner};
    vec_push(&b->routes, r);
}

static struct ranges ranges_of(struct build *b, const char *list) {
    struct ranges r;
    r.n = conf_cidrs(b, list, &r.p);
    return r;
}

/* The ranges as a whole; single addresses only while a service has them. */
static void add_ranges(struct build *b, const struct ranges *r, const char *list, bool aggregates) {
    for (size_t i = 0; i < r->n && aggregates; i++) {
        if (r->p[i].len < ip_bits(&r->p[i].ip)) {
            add_route(b, &r->p[i], arena_dup(b->a, str_c(list)));
        }
    }
}

static bool is_here(const struct build *b, const struct slice_endpoint *e) {
    return str_eq(e->node_name, b->in->node_name) && (!e->ready.set || e->ready.v) &&
           e->addresses.n > 0;
}

/* Does a ready endpoint of the service live on this node? */
static bool has_local_endpoint(struct build *b, const struct object *service) {
    size_t at;
    for (const struct object *o = conf_first(b, K_ENDPOINT_SLICE, &at); o;
         o = conf_next(b, K_ENDPOINT_SLICE, &at)) {
        const struct k8s_endpoint_slice *s = o->spec;
        if (!s || !str_eq(o->meta.ns, service->meta.ns) ||
            !str_eq(label(&o->meta.labels, SLICE_LABEL), service->meta.name)) {
            continue;
        }
        for (size_t i = 0; i < s->endpoints.n; i++) {
            if (is_here(b, &s->endpoints.p[i])) {
                return true;
            }
        }
    }
    return false;
}

/* Announces ip if one of the ranges holds it. With policy Cluster the range speaks for it, unless
 * the range is that very address, or ranges are not announced. */
static void add_address(struct build *b, const struct object *o, struct str text,
                        const struct ranges *r, bool is_local, bool aggregates, const char *what) {
    struct prefix p;
    if (ip_parse(text, &p.ip) < 0) {
        return;
    }
    p.len = (uint8_t)ip_bits(&p.ip);
    for (size_t i = 0; i < r->n; i++) {
        if (prefix_has(&r->p[i], &p) && (is_local || !aggregates || r->p[i].len == p.len)) {
            add_route(b, &p,
                      arena_printf(b->a, "Service %.*s/%.*s (%s, policy %s)", STR_FMT(o->meta.ns),
                                   STR_FMT(o->meta.name), what, is_local ? "Local" : "Cluster"));
            return;
        }
    }
}

static void add_service(struct build *b, const struct services *all, const struct object *o) {
    const struct k8s_service *s = o->spec;
    bool is_local = s && str_is(s->external_traffic_policy, "Local");
    if (!s || str_is(s->type, "ExternalName") || (is_local && !has_local_endpoint(b, o))) {
        return;
    }
    for (size_t i = 0; is_local && i < s->cluster_ips.n; i++) {
        add_address(b, o, s->cluster_ips.p[i], &all->cluster, true, true, "ClusterIP");
    }
    if (is_local && s->cluster_ips.n == 0) {
        add_address(b, o, s->cluster_ip, &all->cluster, true, true, "ClusterIP");
    }
    for (size_t i = 0; i < s->external_ips.n; i++) {
        add_address(b, o, s->external_ips.p[i], &all->external, is_local, true, "external IP");
    }
    for (size_t i = 0; i < s->load_balancer_ips.n && str_is(s->type, "LoadBalancer"); i++) {
        add_address(b, o, s->load_balancer_ips.p[i], &all->balancer, is_local, all->aggregates,
                    "LoadBalancer");
    }
}

void conf_add_services(struct build *b) {
    struct services all = {
        .cluster = ranges_of(b, "serviceClusterIPs"),
        .external = ranges_of(b, "serviceExternalIPs"),
        .balancer = ranges_of(b, "serviceLoadBalancerIPs"),
        .aggregates = !str_is(conf_str(b->global, "serviceLoadBalancerAggregation"), "Disabled")};
    if (!b->self || has_label(b->self->labels, EXCLUDE_LABEL) ||
        all.cluster.n + all.external.n + all.balancer.n == 0) {
        return;
    }
    add_ranges(b, &all.cluster, "serviceClusterIPs", true);
    add_ranges(b, &all.external, "serviceExternalIPs", true);
    add_ranges(b, &all.balancer, "serviceLoadBalancerIPs", all.aggregates);
    size_t at;
    for (const struct object *o = conf_first(b, K_SERVICE, &at); o;
         o = conf_next(b, K_SERVICE, &at)) {
        add_service(b, &all, o);
    }
}
