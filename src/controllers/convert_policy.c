/* networking.k8s.io NetworkPolicy to projectcalico.org/v3 NetworkPolicy, as
 * libcalico-go/lib/backend/k8s/conversion/conversion.go does it (K8sNetworkPolicyToCalico). The two
 * places where Calico's code lets more through than was written (a range that can't be read becomes
 * "from anywhere"; a peer without any field becomes the own namespace) are left out instead. */
#include "controllers/convert.h"

#include "base/vec.h"
#include "model/k8s.h"

#include <stdlib.h>

#define ORCHESTRATOR "projectcalico.org/orchestrator == 'k8s'"
enum { SELECTOR_TEXT_MAX = 4 << 20 };

static void note(struct err *problem, const struct err *e, const char *dir, size_t i,
                 const char *part, size_t k) {
    if (!problem->code) {
        (void)err_set(problem, e->code, "spec.%s[%zu].%s[%zu]: %s", dir, i, part, k, e->msg);
    }
}

/* ---- selectors ---- */

/* 'value'; the API server lets no quote into a label's value, so what has one came another way. */
static int put_value(struct buf *b, struct str v, struct err *e) {
    if (str_find(v, '\'', 0) >= 0) {
        return err_set(e, ERR_INVALID, "a label's value can't hold a quote");
    }
    buf_printf(b, "'%.*s'", STR_FMT(v));
    return 0;
}

static int put_key(struct buf *b, struct str key, struct err *e) {
    for (size_t i = 0; i < key.n; i++) {
        char c = key.p[i];
        bool is_ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '.' || c == '-' || c == '_' || c == '/';
        if (!is_ok) {
            return err_set(e, ERR_INVALID, "%.*s: not a label's name", STR_FMT(key));
        }
    }
    buf_str(b, key);
    return key.n ? 0 : err_set(e, ERR_INVALID, "a label without a name");
}

static int put_requirement(struct buf *b, const struct label_requirement *q, struct err *e) {
    if (str_is(q->op, "Exists") || str_is(q->op, "DoesNotExist")) {
        buf_puts(b, str_is(q->op, "Exists") ? "has(" : "! has(");
        int r = put_key(b, q->key, e);
        buf_putc(b, ')');
        return r;
    }
    if (!str_is(q->op, "In") && !str_is(q->op, "NotIn")) {
        return err_set(e, ERR_INVALID, "operator %.*s: allowed are In, NotIn, Exists, DoesNotExist",
                       STR_FMT(q->op));
    }
    int r = put_key(b, q->key, e);
    buf_puts(b, str_is(q->op, "In") ? " in { " : " not in { ");
    for (size_t i = 0; i < q->values.n && r == 0; i++) {
        buf_puts(b, i ? ", " : "");
        r = put_value(b, q->values.p[i], e);
    }
    buf_puts(b, " }");
    return r;
}

/* The terms of a label selector, joined behind what b already holds. */
static int put_selector(struct buf *b, const struct label_selector *s, struct err *e) {
    int r = s->is_broken ? err_set(e, ERR_INVALID, "the selector has errors") : 0;
    for (size_t i = 0; i < s->match_labels.n && r == 0; i++) {
        buf_puts(b, b->n ? " && " : "");
        r = put_key(b, s->match_labels.p[i].key, e);
        buf_puts(b, " == ");
        r = r == 0 ? put_value(b, s->match_labels.p[i].value, e) : r;
    }
    for (size_t i = 0; i < s->match_expressions.n && r == 0; i++) {
        buf_puts(b, b->n ? " && " : "");
        r = put_requirement(b, &s->match_expressions.p[i], e);
    }
    if (r == 0 && b->overflow) {
        r = err_set(e, ERR_TOO_BIG, "a selector of more than %d bytes", SELECTOR_TEXT_MAX);
    }
    return r;
}

static int pod_selector(const struct label_selector *s, struct arena *a, struct str *out,
                        struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(SELECTOR_TEXT_MAX);
    buf_puts(&b, ORCHESTRATOR);
    int r = put_selector(&b, s, e);
    *out = arena_dup(a, buf_view(&b));
    return r;
}

static int namespace_selector(const struct label_selector *s, struct arena *a, struct str *out,
                              struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(SELECTOR_TEXT_MAX);
    int r = put_selector(&b, s, e);
    *out = b.n ? arena_dup(a, buf_view(&b)) : STR("all()");
    return r;
}

/* ---- ports ---- */

struct range {
    int64_t min, max;
    struct str name; /* p NULL: a range */
};
struct group {
    struct str protocol; /* empty: any */
    bool is_all;
    VEC(struct range) ports;
};
typedef VEC(struct group) group_vec;

static int read_port(const struct k8s_port *in, struct range *out, struct err *e) {
    *out = (struct range){.name = STR_NULL};
    if (!in->port.set) {
        return in->end_port.set ? err_set(e, ERR_INVALID, "endPort without port") : 0;
    }
    if (!in->port.is_int) {
        out->name = in->port.s;
        return in->port.s.n && !in->end_port.set
                   ? 0
                   : err_set(e, ERR_INVALID, "a named port needs a name and has no endPort");
    }
    out->min = in->port.i;
    out->max = in->end_port.set ? in->end_port.v : in->port.i;
    return out->min >= 0 && out->max >= out->min && out->max <= 65535
               ? 0
               : err_set(e, ERR_INVALID, "port %lld to %lld: allowed is 0 to 65535, ascending",
                         (long long)out->min, (long long)out->max);
}

static int add_port(group_vec *g, const struct k8s_port *in, struct err *e) {
    struct str protocol = in->protocol.p ? in->protocol : STR("TCP");
    struct range p;
    int r = read_port(in, &p, e);
    if (r < 0) {
        return r;
    }
    if (!str_is(protocol, "TCP") && !str_is(protocol, "UDP") && !str_is(protocol, "SCTP")) {
        return err_set(e, ERR_INVALID, "protocol %.*s: allowed are TCP, UDP, SCTP",
                       STR_FMT(protocol));
    }
    struct group *x = NULL;
    for (size_t i = 0; i < g->n && !x; i++) {
        x = str_eq(g->p[i].protocol, protocol) ? &g->p[i] : NULL;
    }
    if (!x) {
        vec_push(g, (struct group){.protocol = protocol});
        x = &g->p[g->n - 1];
    }
    if (in->port.set) {
        vec_push(&x->ports, p);
    } else {
        x->is_all = true;
    }
    return 0;
}

static int range_cmp(const void *x, const void *y) {
    const struct range *a = x, *b = y;
    if (!a->name.p || !b->name.p) {
        /* Names first, in their order: they are equal to this. */
        if (a->name.p || b->name.p) {
            return a->name.p ? -1 : 1;
        }
        return a->min != b->min ? (a->min < b->min ? -1 : 1) : 0;
    }
    return a->min < b->min ? -1 : a->min > b->min;
}

/* SimplifyPorts: with two numbers or more, names first, then the fewest ranges, ascending. */
static void simplify(struct group *g) {
    int64_t n_numbers = 0;
    for (size_t i = 0; i < g->ports.n; i++) {
        struct range *p = &g->ports.p[i];
        n_numbers += p->name.p ? 0 : p->max - p->min + 1;
        p->min = p->name.p ? (int64_t)i : p->min; /* keeps names in order */
    }
    if (n_numbers <= 1) {
        return;
    }
    vec_sort(&g->ports, range_cmp);
    size_t n = 0;
    for (size_t i = 0; i < g->ports.n; i++) {
        struct range p = g->ports.p[i], *last = n ? &g->ports.p[n - 1] : NULL;
        if (last && !last->name.p && !p.name.p && p.min <= last->max + 1) {
            last->max = p.max > last->max ? p.max : last->max;
        } else {
            g->ports.p[n++] = p;
        }
    }
    g->ports.n = n;
}

static struct jnode *port_node(const struct range *p, struct arena *a) {
    if (p->name.p) {
        return jnode_new_str(a, p->name);
    }
    return p->min == p->max ? jnode_new_int(a, p->min)
                            : jnode_new_str(a, arena_printf(a, "%lld:%lld", (long long)p->min,
                                                            (long long)p->max));
}

/* ---- peers and rules ---- */

struct entity {
    struct str selector, ns_selector;
    struct jnode *nets, *not_nets;
};

static int range_text(struct str text, enum ip_family family, struct arena *a, struct jnode **out,
                      struct err *e) {
    struct prefix p;
    char canonical[IP_TEXT_MAX];
    *out = NULL;
    if (str_find(text, '/', 0) < 0 || prefix_parse(text, &p) < 0) {
        return err_set(e, ERR_INVALID, "ipBlock %.*s: not an address range", STR_FMT(text));
    }
    p = prefix_mask(p);
    if (family == IP_NONE || family == (enum ip_family)p.ip.family) {
        *out = jnode_new_str(a, arena_dup(a, str_c(prefix_text(&p, canonical))));
    } /* one of the other family takes nothing away */
    return str_find(text, ':', 0) >= 0 ? IP_V6 : IP_V4;
}

static int read_peer(const struct k8s_peer *p, struct arena *a, struct entity *out, struct err *e) {
    *out = (struct entity){.selector = STR_NULL};
    if (p->ip_block.set) {
        struct jnode *net;
        int family = range_text(p->ip_block.cidr, IP_NONE, a, &net, e);
        if (family < 0) {
            return family;
        }
        out->nets = jnode_new(a, J_LIST);
        jnode_append(out->nets, net);
        for (size_t i = 0; i < p->ip_block.except.n; i++) {
            int r = range_text(p->ip_block.except.p[i], (enum ip_family)family, a, &net, e);
            if (r < 0) {
                return r;
            }
            out->not_nets = out->not_nets || !net ? out->not_nets : jnode_new(a, J_LIST);
            if (net) {
                jnode_append(out->not_nets, net);
            }
        }
        return 0;
    }
    if (!p->pod_selector.set && !p->namespace_selector.set) {
        return err_set(e, ERR_INVALID, "a peer needs podSelector, namespaceSelector or ipBlock");
    }
    int r = pod_selector(&p->pod_selector, a, &out->selector, e);
    if (r == 0 && p->namespace_selector.set) {
        r = namespace_selector(&p->namespace_selector, a, &out->ns_selector, e);
    }
    return r;
}

/* An EntityRule in the order of Calico's fields. */
static struct jnode *entity_node(const struct entity *x, struct jnode *ports, struct arena *a) {
    struct jnode *n = jnode_new(a, J_MAP);
    if (x && x->nets) {
        jnode_set(a, n, STR("nets"), x->nets);
    }
    if (x && x->selector.n) {
        jnode_set(a, n, STR("selector"), jnode_new_str(a, x->selector));
    }
    if (x && x->ns_selector.n) {
        jnode_set(a, n, STR("namespaceSelector"), jnode_new_str(a, x->ns_selector));
    }
    if (ports) {
        jnode_set(a, n, STR("ports"), ports);
    }
    if (x && x->not_nets) {
        jnode_set(a, n, STR("notNets"), x->not_nets);
    }
    return n;
}

static void add_rule(struct jnode *rules, const struct group *g, const struct entity *peer,
                     bool is_ingress, struct arena *a) {
    struct jnode *rule = jnode_new(a, J_MAP), *ports = NULL;
    jnode_set(a, rule, STR("action"), jnode_new_str(a, STR("Allow")));
    if (g->protocol.n) {
        jnode_set(a, rule, STR("protocol"), jnode_new_str(a, g->protocol));
    }
    if (!g->is_all && g->ports.n) {
        ports = jnode_new(a, J_LIST);
        for (size_t i = 0; i < g->ports.n; i++) {
            jnode_append(ports, port_node(&g->ports.p[i], a));
        }
    }
    jnode_set(a, rule, STR("source"), entity_node(is_ingress ? peer : NULL, NULL, a));
    jnode_set(a, rule, STR("destination"), entity_node(is_ingress ? NULL : peer, ports, a));
    jnode_append(rules, rule);
}

static int group_cmp(const void *x, const void *y) {
    return str_cmp(((const struct group *)x)->protocol, ((const struct group *)y)->protocol);
}

static void groups_fini(group_vec *g) {
    for (size_t i = 0; i < g->n; i++) {
        vec_fini(&g->p[i].ports);
    }
    vec_fini(g);
}

/* One rule for each protocol and peer. */
static void add_rules(const struct k8s_rule *in, bool is_ingress, size_t index, struct arena *a,
                      struct jnode *rules, struct err *problem) {
    const char *dir = is_ingress ? "ingress" : "egress", *who = is_ingress ? "from" : "to";
    struct err e = {.code = 0};
    group_vec groups = {0};
    if (in->is_broken) {
        (void)err_set(&e, ERR_INVALID, "has errors: it allows nothing");
        note(problem, &e, dir, index, "ports", 0);
        return;
    }
    for (size_t i = 0; i < in->ports.n; i++) {
        if (add_port(&groups, &in->ports.p[i], &e) < 0) {
            note(problem, &e, dir, index, "ports", i);
            groups_fini(&groups);
            return;
        }
    }
    if (in->ports.n == 0) {
        vec_push(&groups, (struct group){.protocol = STR(""), .is_all = true});
    }
    vec_sort(&groups, group_cmp);
    for (size_t g = 0; g < groups.n; g++) {
        simplify(&groups.p[g]);
        for (size_t i = 0; i < (in->peers.n ? in->peers.n : 1); i++) {
            struct entity peer;
            if (in->peers.n && read_peer(&in->peers.p[i], a, &peer, &e) < 0) {
                note(problem, &e, dir, index, who, i);
                continue;
            }
            add_rule(rules, &groups.p[g], in->peers.n ? &peer : NULL, is_ingress, a);
        }
    }
    groups_fini(&groups);
}

static struct jnode *types_of(const struct k8s_network_policy *p, struct arena *a) {
    struct jnode *types = jnode_new(a, J_LIST);
    bool has[2] = {false, false};
    for (size_t i = 0; i < p->policy_types.n; i++) {
        has[0] = has[0] || str_is(p->policy_types.p[i], "Ingress");
        has[1] = has[1] || str_is(p->policy_types.p[i], "Egress");
    }
    if (has[0] || !has[1]) {
        jnode_append(types, jnode_new_str(a, STR("Ingress")));
    }
    if (has[1]) {
        jnode_append(types, jnode_new_str(a, STR("Egress")));
    }
    return types;
}

struct jnode *convert_policy(struct jnode *policy, struct arena *a, struct err *problem) {
    struct model_errors errs = {.a = a};
    struct object o = {.doc = policy};
    /* What has errors is marked in the decoded form, where it matters. */
    (void)!object_read(policy, MODEL_STORE, STR_NULL, a, &o, &errs);
    const struct k8s_network_policy *p = o.spec;
    struct str selector;
    if (!p || pod_selector(&p->pod_selector, a, &selector, problem) < 0) {
        if (!problem->code) {
            (void)err_set(problem, ERR_INVALID, "no spec");
        }
        return NULL;
    }
    struct jnode *spec = jnode_new(a, J_MAP), *ingress = jnode_new(a, J_LIST),
                 *egress = jnode_new(a, J_LIST);
    for (size_t i = 0; i < p->ingress.n; i++) {
        add_rules(&p->ingress.p[i], true, i, a, ingress, problem);
    }
    for (size_t i = 0; i < p->egress.n; i++) {
        add_rules(&p->egress.p[i], false, i, a, egress, problem);
    }
    jnode_set(a, spec, STR("tier"), jnode_new_str(a, STR("default")));
    jnode_set(a, spec, STR("order"), jnode_new_int(a, 1000));
    if (ingress->n) {
        jnode_set(a, spec, STR("ingress"), ingress);
    }
    if (egress->n) {
        jnode_set(a, spec, STR("egress"), egress);
    }
    jnode_set(a, spec, STR("selector"), jnode_new_str(a, selector));
    jnode_set(a, spec, STR("types"), types_of(p, a));
    return spec;
}
