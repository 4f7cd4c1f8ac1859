/* The admins' policies of Kubernetes as Calico's (libcalico-go/lib/backend/k8s/conversion):
 * ClusterNetworkPolicy is a global policy of tier kube-admin or kube-baseline. The older
 * AdminNetworkPolicy and BaselineAdminNetworkPolicy are the same in tiers of their own, which come
 * just before these. */
#include "model/admin.h"
#include "policy/calc_int.h"

#include <netinet/in.h>

/* ---- whom: subjects and peers ---- */

/* The pods that a namespace selector and a pod selector mean. Never network sets. */
static int put_pods(const struct label_selector *namespaces, const struct label_selector *pods,
                    struct arena *a, struct str *ns_out, struct str *sel_out, struct err *e) {
    if (namespaces->is_broken || (pods && pods->is_broken)) {
        return err_set(e, ERR_INVALID, "a selector has errors");
    }
    MG_CLEANUP(buf_fini) struct buf n = BUF_INIT(4U << 20), p = BUF_INIT(4U << 20);
    int r = k8s_selector(namespaces, &n, e);
    buf_puts(&p, LABEL_ORCHESTRATOR " == 'k8s'");
    size_t own = p.n;
    if (r == 0 && pods) {
        buf_puts(&p, " && ");
        r = k8s_selector(pods, &p, e);
        if (p.n == own + 4) {
            p.n = own; /* {}: all */
        }
    }
    if (r == 0) {
        *ns_out = n.n ? arena_dup(a, buf_view(&n)) : STR("all()");
        *sel_out = arena_dup(a, buf_view(&p));
    }
    buf_fini(&p);
    return r;
}

int admin_subject(const struct admin_policy *p, struct arena *a, struct buf *out, struct err *e) {
    const struct admin_peer *s = &p->subject;
    if (s->namespaces.set == s->pods.set) {
        return err_set(e, ERR_INVALID, "subject: needs exactly one of namespaces and pods");
    }
    struct str ns, sel;
    int r = s->pods.set ? put_pods(&s->pods.namespaces, &s->pods.pods, a, &ns, &sel, e)
                        : put_pods(&s->namespaces, NULL, a, &ns, &sel, e);
    if (r == 0) {
        r = selector_prefixed(ns, "pcns.", LABEL_NAMESPACE, a, out, e);
    }
    if (r == 0) {
        selector_and(out, sel);
    }
    return r;
}

static int peer_nets(const struct str_list *in, struct arena *a, struct entity_rule *out,
                     struct err *e) {
    out->nets.p = arena_array(a, struct prefix, in->n);
    for (size_t i = 0; i < in->n; i++) {
        struct prefix *p = &out->nets.p[out->nets.n++];
        if (prefix_parse(in->p[i], p) < 0) {
            return err_set(e, ERR_INVALID, "networks %.*s: not an address range",
                           STR_FMT(in->p[i]));
        }
        *p = prefix_mask(*p);
    }
    return 0;
}

static int entity_of_peer(const struct admin_peer *p, struct arena *a, struct entity_rule *out,
                          struct err *e) {
    *out = (struct entity_rule){.nets = {0}};
    if (p->pods.set) {
        return put_pods(&p->pods.namespaces, &p->pods.pods, a, &out->namespace_selector,
                        &out->selector, e);
    }
    if (p->namespaces.set) {
        return put_pods(&p->namespaces, NULL, a, &out->namespace_selector, &out->selector, e);
    }
    if (p->networks.n) {
        return peer_nets(&p->networks, a, out, e);
    }
    return err_set(e, ERR_INVALID,
                   p->nodes.set          ? "nodes: not supported: use networks"
                   : p->domain_names.set ? "domainNames: not supported: use networks"
                                         : "knows none of the peer's fields");
}

/* ---- to which ports ---- */

/* Ports of one protocol, as one rule has them. */
struct port_match {
    struct opt_int protocol;
    struct port_spec ports;
    bool has_ports;
};

static int numbers(int64_t min, int64_t max, struct port_match *out, struct err *e) {
    if (min < 1 || max < min || max > 65535) {
        return err_set(e, ERR_INVALID, "port %lld to %lld: allowed is 1 to 65535, ascending",
                       (long long)min, (long long)max);
    }
    out->ports = (struct port_spec){.min = (uint16_t)min, .max = (uint16_t)max};
    out->has_ports = true;
    return 0;
}

static int protocol_of(struct str name, struct opt_int *out, struct err *e) {
    *out = (struct opt_int){true, !name.n || str_is(name, "TCP") ? IPPROTO_TCP
                                  : str_is(name, "UDP")          ? IPPROTO_UDP
                                  : str_is(name, "SCTP")         ? IPPROTO_SCTP
                                                                 : 0};
    return out->v ? 0
                  : err_set(e, ERR_INVALID, "protocol %.*s: allowed are TCP, UDP, SCTP",
                            STR_FMT(name));
}

static int ports_of_transport(const struct admin_transport *t, struct port_match *out,
                              struct err *e) {
    if (!t->port.set) {
        return 0;
    }
    if (t->port.number.set) {
        return numbers(t->port.number.v, t->port.number.v, out, e);
    }
    if (t->port.range.set) {
        return numbers(t->port.range.start.v, t->port.range.end.v, out, e);
    }
    return err_set(e, ERR_INVALID, "destinationPort: needs number or range");
}

static int read_port(const struct admin_port *p, struct port_match *out, struct err *e) {
    const struct {
        const struct admin_transport *t;
        int protocol;
    } transports[] = {{&p->tcp, IPPROTO_TCP}, {&p->udp, IPPROTO_UDP}, {&p->sctp, IPPROTO_SCTP}};
    *out = (struct port_match){.has_ports = false};
    for (size_t i = 0; i < ARRAY_LEN(transports); i++) {
        if (transports[i].t->set) {
            out->protocol = (struct opt_int){true, transports[i].protocol};
            return ports_of_transport(transports[i].t, out, e);
        }
    }
    if (p->named.n) {
        out->ports.name = p->named;
        out->has_ports = true;
        return 0;
    }
    int r = err_set(e, ERR_INVALID, "knows none of the port's fields");
    if (p->number.set) {
        r = protocol_of(p->number.protocol, &out->protocol, e);
        return r < 0 ? r : numbers(p->number.port.v, p->number.port.v, out, e);
    }
    if (p->range.set) {
        r = protocol_of(p->range.protocol, &out->protocol, e);
        return r < 0 ? r : numbers(p->range.start.v, p->range.end.v, out, e);
    }
    return r;
}

/* ---- rules ---- */

typedef VEC(struct rule) rule_vec;

struct converting {
    enum calc_dir dir;
    enum rule_action action;
    uint16_t index;
    struct arena *a;
    rule_vec *out;
};

static void add_rule(const struct converting *x, const struct entity_rule *peer,
                     const struct port_match *m) {
    struct rule r = {.action = x->action, .index = x->index, .protocol = m->protocol};
    *(x->dir == CALC_INGRESS ? &r.source : &r.destination) = *peer;
    if (m->has_ports) {
        r.destination.ports.p = arena_new(x->a, struct port_spec);
        *r.destination.ports.p = m->ports;
        r.destination.ports.n = 1;
    }
    vec_push(x->out, r);
}

/* One rule for each peer and port. */
static int convert(const struct converting *x, const struct admin_rule *in, struct err *e) {
    static const struct port_match any = {.has_ports = false};
    if (in->is_broken) {
        return err_set(e, ERR_INVALID, "has errors");
    }
    for (size_t i = 0; i < in->peers.n; i++) {
        struct entity_rule peer;
        int r = entity_of_peer(&in->peers.p[i], x->a, &peer, e);
        if (r == 0 && in->ports.n == 0) {
            add_rule(x, &peer, &any);
        }
        for (size_t k = 0; r == 0 && k < in->ports.n; k++) {
            struct port_match m;
            r = read_port(&in->ports.p[k], &m, e);
            if (r == 0) {
                add_rule(x, &peer, &m);
            }
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

struct written *admin_rules(const struct admin_policy *p, enum calc_dir dir, struct err *problem) {
    struct arena a = {.first_bytes = 1024};
    rule_vec v = {0};
    size_t n = dir == CALC_INGRESS ? p->ingress.n : p->egress.n;
    const struct admin_rule *in = dir == CALC_INGRESS ? p->ingress.p : p->egress.p;
    for (size_t i = 0; i < n; i++) {
        struct str action = in[i].action;
        bool allows = str_is(action, "Accept") || str_is(action, "Allow");
        bool closes = str_is(action, "Deny") || str_is(action, "Pass");
        struct converting x = {dir,
                               allows                   ? RULE_ALLOW
                               : str_is(action, "Deny") ? RULE_DENY
                                                        : RULE_PASS,
                               (uint16_t)i, &a, &v};
        size_t before = v.n;
        struct err e;
        int r = allows || closes
                    ? convert(&x, &in[i], &e)
                    : err_set(&e, ERR_INVALID, "action %.*s is unknown", STR_FMT(action));
        if (r == 0) {
            continue;
        }
        /* What was meant to close closes everything; what was meant to open opens nothing. */
        v.n = before;
        if (closes || (in[i].is_broken && !allows)) {
            vec_push(&v, (struct rule){.action = RULE_DENY, .index = (uint16_t)i});
        }
        if (!problem->code) {
            err_set(problem, r, "%s[%zu]: %s: it %s", dir == CALC_INGRESS ? "ingress" : "egress", i,
                    e.msg, closes ? "denies everything" : "allows nothing");
        }
    }
    struct written *w = rules_pack(v.p, v.n, false);
    vec_fini(&v);
    arena_fini(&a);
    return w;
}
