/* Kubernetes' kinds beyond single fields: a pod's addresses and ports gathered from all over it, a
 * service's addresses, and what the API server refuses of a NetworkPolicy (Kubernetes'
 * pkg/apis/networking/validation). The latter in MODEL_APPLY only: what a datastore holds has
 * passed it. */
#include "model/k8s.h"
#include "model/schema.h"

/* ---- Pod ---- */

static bool is_sidecar(const struct jnode *container) {
    return str_is(jnode_str(member(container, "restartPolicy")), "Always");
}

static uint8_t protocol_of(const struct jnode *map) {
    const struct jnode *n = member(map, "protocol");
    int p = n ? protocol_read(n) : 6;
    return p > 0 ? (uint8_t)p : 0;
}

static uint16_t port_of(const struct jnode *map, const char *name) {
    const struct jnode *n = member(map, name);
    return n && n->type == J_INT && n->i > 0 && n->i <= 65535 ? (uint16_t)n->i : 0;
}

/* Appends the ports of all containers of a list; counts alone with p NULL. */
static size_t add_ports(const struct jnode *containers, bool is_init, struct container_port *p) {
    size_t n = 0;
    jnode_each (container, containers) {
        const struct jnode *ports = member(container, "ports");
        if (is_init && !is_sidecar(container)) {
            continue;
        }
        jnode_each (port, ports) {
            uint16_t number = port_of(port, "containerPort");
            if (port->type != J_MAP || number == 0) {
                continue;
            }
            if (p) {
                p[n] = (struct container_port){.name = jnode_str(member(port, "name")),
                                               .container_port = number,
                                               .host_port = port_of(port, "hostPort"),
                                               .protocol = protocol_of(port),
                                               .host_ip = jnode_str(member(port, "hostIP"))};
            }
            n++;
        }
    }
    return n;
}

static void add_ip(struct k8s_pod *pod, size_t cap, struct str s) {
    struct prefix p;
    if (pod->ips.n >= cap || prefix_parse(s, &p) || p.len != ip_bits(&p.ip)) {
        return;
    }
    for (size_t i = 0; i < pod->ips.n; i++) {
        if (ip_eq(&pod->ips.p[i], &p.ip)) {
            return;
        }
    }
    pod->ips.p[pod->ips.n++] = p.ip;
}

static struct str annotation(const struct meta *m, const char *key) {
    for (size_t i = 0; i < m->annotations.n; i++) {
        if (str_is(m->annotations.p[i].key, key)) {
            return m->annotations.p[i].value;
        }
    }
    return STR_NULL;
}

/* status.podIPs, else podIP; else what Calico's CNI plugin noted before the kubelet did. */
static void read_ips(struct mctx *c, const struct jnode *doc, struct k8s_pod *pod) {
    enum { MAX_IPS = 16 };
    const struct jnode *status = member(doc, "status");
    pod->ips.p = arena_array(c->a, struct ip46, MAX_IPS);
    jnode_each (n, member(status, "podIPs")) {
        add_ip(pod, MAX_IPS, jnode_str(member(n, "ip")));
    }
    if (pod->ips.n == 0) {
        add_ip(pod, MAX_IPS, jnode_str(member(status, "podIP")));
    }
    struct str rest = annotation(&c->obj->meta, "cni.projectcalico.org/podIPs");
    while (pod->ips.n == 0 && rest.n) {
        struct str all = rest;
        while (all.p) {
            add_ip(pod, MAX_IPS, str_trim(str_cut(&all, ',')));
        }
        break;
    }
    if (pod->ips.n == 0) {
        add_ip(pod, MAX_IPS, annotation(&c->obj->meta, "cni.projectcalico.org/podIP"));
    }
    pod->ips.set = pod->ips.n > 0;
}

void k8s_pod_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)at;
    struct k8s_pod *pod = out;
    const struct jnode *spec = member(map, "spec");
    const struct jnode *containers = member(spec, "containers");
    const struct jnode *init = member(spec, "initContainers");
    size_t n = add_ports(containers, false, NULL) + add_ports(init, true, NULL);
    pod->ports.p = arena_array(c->a, struct container_port, n);
    pod->ports.n = add_ports(containers, false, pod->ports.p);
    pod->ports.n += add_ports(init, true, pod->ports.p + pod->ports.n);
    pod->ports.set = n > 0;
    read_ips(c, map, pod);
}

/* ---- Service, EndpointSlice, Node ---- */

void k8s_service_port_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)c;
    (void)at;
    struct service_port *p = out;
    p->protocol = p->protocol || member(map, "protocol") ? p->protocol : 6;
}

void k8s_slice_port_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)c;
    (void)at;
    struct slice_port *p = out;
    p->protocol = p->protocol || member(map, "protocol") ? p->protocol : 6;
}

void k8s_service_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)at;
    struct k8s_service *s = out;
    const struct jnode *ingress = member(member(member(map, "status"), "loadBalancer"), "ingress");
    size_t n = 1;
    jnode_each (it, ingress) {
        n++;
    }
    struct str_list *l = &s->load_balancer_ips;
    l->p = arena_array(c->a, struct str, n);
    struct str fixed = jnode_str(member(member(map, "spec"), "loadBalancerIP"));
    if (fixed.n) {
        l->p[l->n++] = fixed;
    }
    jnode_each (it, ingress) {
        struct str ip = jnode_str(member(it, "ip"));
        if (ip.n && !(l->n == 1 && str_eq(l->p[0], ip))) {
            l->p[l->n++] = ip;
        }
    }
    l->set = l->n > 0;
}

void k8s_slice_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    struct k8s_endpoint_slice *s = out;
    struct jnode *endpoints = member(map, "endpoints");
    if (endpoints && !str_is(s->address_type, "FQDN")) {
        struct at here = {at, STR("endpoints"), 0};
        field_read(c, &model_slice_endpoints, &here, endpoints, s);
    }
}

void k8s_node_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)at;
    struct k8s_node *node = out;
    const struct jnode *addresses = member(member(map, "status"), "addresses");
    size_t n = 0;
    jnode_each (it, addresses) {
        n++;
    }
    node->internal_ips.p = arena_array(c->a, struct ip46, n);
    jnode_each (it, addresses) {
        struct ip46 ip;
        if (str_is(jnode_str(member(it, "type")), "InternalIP") &&
            ip_parse(jnode_str(member(it, "address")), &ip) == 0) {
            node->internal_ips.p[node->internal_ips.n++] = ip;
        }
    }
    node->internal_ips.set = node->internal_ips.n > 0;
    struct str one = jnode_str(member(member(map, "spec"), "podCIDR"));
    if (node->pod_cidrs.n == 0 && one.n) {
        node->pod_cidrs = (struct str_list){arena_array(c->a, struct str, 1), 1, true};
        node->pod_cidrs.p[0] = one;
    }
}

/* ---- NetworkPolicy ---- */

void k8s_requirement_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    const struct label_requirement *r = out;
    bool want_values = str_is(r->op, "In") || str_is(r->op, "NotIn");
    if (c->mode != MODEL_APPLY || r->op.n == 0) {
        return;
    }
    if (want_values && !member(map, "values")) {
        model_fail_in(c, at, map, "values", "is missing: operator %.*s needs at least one",
                      STR_FMT(r->op));
    } else if (want_values && r->values.set && !member(map, "values")->child) {
        model_fail_in(c, at, map, "values", "found none, operator %.*s needs at least one",
                      STR_FMT(r->op));
    } else if (!want_values && r->values.n) {
        model_fail_in(c, at, map, "values", "operator %.*s takes none: remove it", STR_FMT(r->op));
    }
}

void k8s_ip_block_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    const struct k8s_ip_block *b = out;
    struct prefix net, sub;
    const struct jnode *cidr = member(map, "cidr");
    if (c->mode != MODEL_APPLY || !cidr || cidr->type != J_STR) {
        return;
    }
    if (str_find(b->cidr, '/', 0) < 0 || prefix_parse(b->cidr, &net)) {
        model_fail_in(c, at, map, "cidr",
                      "found %s, allowed is a prefix such as 10.0.0.0/8 or fd00::/8",
                      model_found(c, cidr));
        return;
    }
    net = prefix_mask(net);
    struct at list = {at, STR("except"), 0}, here = {&list, STR_NULL, 0};
    jnode_each (n, member(map, "except")) {
        struct str s = jnode_str(n);
        if (n->type == J_STR && (str_find(s, '/', 0) < 0 || prefix_parse(s, &sub))) {
            model_fail(c, &here, n, "found %s, allowed is a prefix inside %.*s", model_found(c, n),
                       STR_FMT(b->cidr));
        } else if (n->type == J_STR && (sub.len <= net.len || !prefix_has(&net, &sub))) {
            model_fail(c, &here, n, "found %s, allowed is a smaller prefix inside %.*s",
                       model_found(c, n), STR_FMT(b->cidr));
        }
        here.i++;
    }
}

void k8s_peer_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    const struct k8s_peer *p = out;
    if (c->mode != MODEL_APPLY) {
        return;
    }
    bool has_selector = member(map, "podSelector") || member(map, "namespaceSelector");
    if (p->ip_block.set && has_selector) {
        model_fail_in(c, at, map, "ipBlock", "goes with no selector: make it an entry of its own");
    } else if (!member(map, "ipBlock") && !has_selector) {
        model_fail(c, at, map,
                   "found none of podSelector, namespaceSelector, ipBlock: give at least one");
    }
}

void k8s_port_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    const struct k8s_port *p = out;
    if (c->mode != MODEL_APPLY) {
        return;
    }
    if (p->port.set && p->port.is_int && (p->port.i < 1 || p->port.i > 65535)) {
        model_fail_in(c, at, map, "port", "found %lld, allowed is 1 to 65535 or a port's name",
                      (long long)p->port.i);
    } else if (p->port.set && !p->port.is_int) {
        const char *allowed = check_text(CHECK_PORT_NAME, p->port.s, c->a);
        if (allowed) {
            model_fail_in(c, at, map, "port", "found %s, allowed is 1 to 65535 or %s",
                          model_found(c, member(map, "port")), allowed);
        }
    }
    if (!p->end_port.set) {
        return;
    }
    if (!p->port.set || !p->port.is_int) {
        model_fail_in(c, at, map, "endPort", "needs port, as a number: the start of the range");
    } else if (p->end_port.v < p->port.i) {
        model_fail_in(c, at, map, "endPort", "found %lld, allowed is port (%lld) to 65535",
                      (long long)p->end_port.v, (long long)p->port.i);
    }
}

void k8s_policy_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)at;
    struct k8s_network_policy *p = out;
    if (c->mode != MODEL_APPLY || member(map, "policyTypes")) {
        return;
    }
    /* As the API server fills it in. */
    bool has_egress = p->egress.n > 0;
    model_fill(c, map, "policyTypes", has_egress ? "[\"Ingress\", \"Egress\"]" : "[\"Ingress\"]");
    struct str *types = arena_array(c->a, struct str, 2);
    types[0] = STR("Ingress");
    types[1] = STR("Egress");
    p->policy_types = (struct str_list){types, has_egress ? 2 : 1, true};
}
