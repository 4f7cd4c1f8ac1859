/* Kubernetes' NetworkPolicy as Calico rules (libcalico-go/lib/backend/k8s/conversion): one Allow
 * rule for each peer and protocol. */
#include "policy/calc_int.h"

#include <netinet/in.h>
#include <stdlib.h>

/* 'value' or "value"; a value with both quotes can't be written in the language. */
static int put_quoted(struct buf *b, struct str v, struct err *e) {
    char q = str_find(v, '\'', 0) < 0 ? '\'' : '"';
    if (str_find(v, q, 0) >= 0) {
        return err_set(e, ERR_INVALID, "label value with both kinds of quotes");
    }
    buf_putc(b, q);
    buf_str(b, v);
    buf_putc(b, q);
    return 0;
}

static int put_set(struct buf *b, const struct label_requirement *q, const char *op,
                   struct err *e) {
    buf_str(b, q->key);
    buf_puts(b, op);
    buf_puts(b, " {");
    for (size_t i = 0; i < q->values.n; i++) {
        buf_puts(b, i ? ", " : "");
        int r = put_quoted(b, q->values.p[i], e);
        if (r < 0) {
            return r;
        }
    }
    buf_putc(b, '}');
    return 0;
}

static int put_requirement(struct buf *b, const struct label_requirement *q, struct err *e) {
    if (str_is(q->op, "In")) {
        return put_set(b, q, " in", e);
    }
    if (str_is(q->op, "NotIn")) {
        return put_set(b, q, " not in", e);
    }
    if (str_is(q->op, "Exists") || str_is(q->op, "DoesNotExist")) {
        buf_printf(b, "%shas(%.*s)", str_is(q->op, "Exists") ? "" : "!", STR_FMT(q->key));
        return 0;
    }
    return err_set(e, ERR_INVALID, "operator %.*s: allowed are In, NotIn, Exists, DoesNotExist",
                   STR_FMT(q->op));
}

int k8s_selector(const struct label_selector *s, struct buf *out, struct err *e) {
    const char *sep = "";
    for (size_t i = 0; i < s->match_labels.n; i++) {
        buf_puts(out, sep);
        buf_str(out, s->match_labels.p[i].key);
        buf_puts(out, " == ");
        int r = put_quoted(out, s->match_labels.p[i].value, e);
        if (r < 0) {
            return r;
        }
        sep = " && ";
    }
    for (size_t i = 0; i < s->match_expressions.n; i++) {
        buf_puts(out, sep);
        int r = put_requirement(out, &s->match_expressions.p[i], e);
        if (r < 0) {
            return r;
        }
        sep = " && ";
    }
    return 0;
}

/* ---- ports: one group a protocol ---- */

struct port_group {
    int protocol; /* -1: any */
    bool is_all;  /* every port of the protocol */
    VEC(struct port_spec) ports;
};
typedef VEC(struct port_group) group_vec;

static int protocol_number(struct str s) {
    static const struct {
        const char *name;
        int number;
    } known[] = {{"SCTP", IPPROTO_SCTP}, {"TCP", IPPROTO_TCP}, {"UDP", IPPROTO_UDP}};
    if (!s.p) {
        return IPPROTO_TCP;
    }
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (str_is(s, known[i].name)) {
            return known[i].number;
        }
    }
    return -1;
}

static int add_port(group_vec *g, const struct k8s_port *in, struct err *e) {
    int proto = protocol_number(in->protocol);
    if (proto < 0) {
        return err_set(e, ERR_INVALID, "protocol %.*s: allowed are TCP, UDP, SCTP",
                       STR_FMT(in->protocol));
    }
    struct port_spec p = {.min = 0};
    if (in->port.set && in->port.is_int) {
        int64_t last = in->end_port.set ? in->end_port.v : in->port.i;
        if (in->port.i < 1 || in->port.i > 65535 || last < in->port.i || last > 65535) {
            return err_set(e, ERR_INVALID, "port %lld to %lld: allowed is 1 to 65535, ascending",
                           (long long)in->port.i, (long long)last);
        }
        p.min = (uint16_t)in->port.i;
        p.max = (uint16_t)last;
    } else if (in->port.set) {
        if (in->port.s.n == 0 || in->end_port.set) {
            return err_set(e, ERR_INVALID, "a named port needs a name and has no endPort");
        }
        p.name = in->port.s;
    } else if (in->end_port.set) {
        return err_set(e, ERR_INVALID, "endPort without port");
    }
    struct port_group *x = NULL;
    for (size_t i = 0; i < g->n && !x; i++) {
        x = g->p[i].protocol == proto ? &g->p[i] : NULL;
    }
    if (!x) {
        vec_push(g, (struct port_group){.protocol = proto});
        x = &g->p[g->n - 1];
    }
    if (in->port.set) {
        vec_push(&x->ports, p);
    } else {
        x->is_all = true;
    }
    return 0;
}

/* ---- peers ---- */

static int nets_of_block(const struct k8s_ip_block *b, struct arena *a, struct entity_rule *out,
                         struct err *e) {
    struct prefix *p = arena_new(a, struct prefix);
    if (prefix_parse(b->cidr, p) < 0) {
        return err_set(e, ERR_INVALID, "ipBlock.cidr %.*s: not an address range", STR_FMT(b->cidr));
    }
    *p = prefix_mask(*p);
    out->nets.p = p;
    out->nets.n = 1;
    out->not_nets.p = arena_array(a, struct prefix, b->except.n);
    for (size_t i = 0; i < b->except.n; i++) {
        struct prefix *x = &out->not_nets.p[out->not_nets.n];
        if (prefix_parse(b->except.p[i], x) < 0) {
            return err_set(e, ERR_INVALID, "ipBlock.except %.*s: not an address range",
                           STR_FMT(b->except.p[i]));
        }
        *x = prefix_mask(*x);
        /* One of the other family subtracts nothing. */
        out->not_nets.n += x->ip.family == p->ip.family;
    }
    return 0;
}

static int entity_of_peer(const struct k8s_peer *p, struct arena *a, struct entity_rule *out,
                          struct err *e) {
    *out = (struct entity_rule){.nets = {0}};
    if (p->ip_block.set) {
        return nets_of_block(&p->ip_block, a, out, e);
    }
    if (!p->pod_selector.set && !p->namespace_selector.set) {
        return err_set(e, ERR_INVALID,
                       "a peer without podSelector, namespaceSelector and ipBlock matches nothing");
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4U << 20);
    buf_puts(&b, LABEL_ORCHESTRATOR " == 'k8s'");
    size_t own = b.n;
    buf_puts(&b, " && ");
    int r = k8s_selector(&p->pod_selector, &b, e);
    if (r < 0) {
        return r;
    }
    if (b.n == own + 4) {
        b.n = own;
    }
    out->selector = arena_dup(a, buf_view(&b));
    if (p->namespace_selector.set) {
        MG_CLEANUP(buf_fini) struct buf n = BUF_INIT(4U << 20);
        r = k8s_selector(&p->namespace_selector, &n, e);
        if (r < 0) {
            return r;
        }
        out->namespace_selector = n.n ? arena_dup(a, buf_view(&n)) : STR("all()");
    }
    return 0;
}

/* ---- a policy ---- */

static int group_cmp(const void *x, const void *y) {
    /* By protocol name: SCTP, TCP, UDP. */
    static const uint8_t order[256] = {[IPPROTO_SCTP] = 1, [IPPROTO_TCP] = 2, [IPPROTO_UDP] = 3};
    const struct port_group *a = x, *b = y;
    return (int)order[a->protocol & 0xff] - (int)order[b->protocol & 0xff];
}

typedef VEC(struct rule) rule_vec;

static void groups_fini(group_vec *g) {
    for (size_t i = 0; i < g->n; i++) {
        vec_fini(&g->p[i].ports);
    }
    vec_fini(g);
}

static void add_rules(const struct k8s_rule *in, enum calc_dir dir, size_t index, struct arena *a,
                      rule_vec *out, struct err *problem) {
    group_vec groups = {0};
    struct err e;
    const char *name = dir == CALC_INGRESS ? "ingress" : "egress";
    if (in->is_broken) {
        if (!problem->code) {
            (void)err_set(problem, ERR_INVALID, "%s[%zu]: has errors: it allows nothing", name,
                          index);
        }
        return;
    }
    for (size_t i = 0; i < in->ports.n; i++) {
        if (add_port(&groups, &in->ports.p[i], &e) < 0) {
            if (!problem->code) {
                err_set(problem, e.code, "%s[%zu].ports[%zu]: %s", name, index, i, e.msg);
            }
            groups_fini(&groups); /* the whole rule is dropped, as in Calico */
            return;
        }
    }
    if (in->ports.n == 0) {
        vec_push(&groups, (struct port_group){.protocol = -1, .is_all = true});
    }
    if (groups.n > 1) {
        qsort(groups.p, groups.n, sizeof(*groups.p), group_cmp);
    }
    size_t n_peers = in->peers.n ? in->peers.n : 1;
    for (size_t g = 0; g < groups.n; g++) {
        for (size_t i = 0; i < n_peers; i++) {
            struct rule r = {.action = RULE_ALLOW, .index = (uint16_t)index};
            if (groups.p[g].protocol >= 0) {
                r.protocol = (struct opt_int){true, groups.p[g].protocol};
            }
            struct entity_rule *peer = dir == CALC_INGRESS ? &r.source : &r.destination;
            if (in->peers.n && entity_of_peer(&in->peers.p[i], a, peer, &e) < 0) {
                if (!problem->code) {
                    err_set(problem, e.code, "%s[%zu].%s[%zu]: %s", name, index,
                            dir == CALC_INGRESS ? "from" : "to", i, e.msg);
                }
                continue; /* dropped: it allows nothing */
            }
            if (!groups.p[g].is_all) {
                size_t n = groups.p[g].ports.n;
                r.destination.ports.p = memcpy(arena_array(a, struct port_spec, n),
                                               groups.p[g].ports.p, n * sizeof(struct port_spec));
                r.destination.ports.n = n;
            }
            vec_push(out, r);
        }
    }
    groups_fini(&groups);
}

struct written *k8s_rules(const struct k8s_network_policy *p, enum calc_dir dir,
                          struct err *problem) {
    struct arena a = {.first_bytes = 1024};
    rule_vec v = {0};
    size_t n = dir == CALC_INGRESS ? p->ingress.n : p->egress.n;
    const struct k8s_rule *in = dir == CALC_INGRESS ? p->ingress.p : p->egress.p;
    if (p->pod_selector.is_broken && n) {
        /* It may select others than those that the rules were meant for. */
        (void)err_set(problem, ERR_INVALID, "podSelector: has errors: the policy allows nothing");
        n = 0;
    }
    for (size_t i = 0; i < n; i++) {
        add_rules(&in[i], dir, i, &a, &v, problem);
    }
    struct written *w = rules_pack(v.p, v.n, false);
    vec_fini(&v);
    arena_fini(&a);
    return w;
}
