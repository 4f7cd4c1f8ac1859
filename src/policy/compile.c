/* Rules as written → rules as enforced: selectors become sets, ports are sorted and merged,
 * families worked out. What can't be understood fails closed: an Allow or Pass matches nothing, a
 * Deny matches everything. */
#include "policy/calc_int.h"

#include <netinet/in.h>
#include <stdlib.h>

enum { SEL_TEXT_MAX = 1 << 20 };

/* ---- copies of what was written ---- */

static struct str dup(struct arena *a, struct str s) {
    return s.p ? arena_dup(a, s) : STR_NULL;
}

#define COPY_LIST(a, dst, src)                                            \
    do {                                                                  \
        (dst) = (src);                                                    \
        (dst).p = arena_alloc((a), (src).n * sizeof(*(src).p));           \
        if ((src).n) {                                                    \
            memcpy((void *)(dst).p, (src).p, (src).n * sizeof(*(src).p)); \
        }                                                                 \
    } while (0)

static void copy_ports(struct arena *a, struct port_spec *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        p[i].name = dup(a, p[i].name);
    }
}

static void copy_entity(struct arena *a, struct entity_rule *dst, const struct entity_rule *src) {
    *dst = *src;
    COPY_LIST(a, dst->nets, src->nets);
    COPY_LIST(a, dst->not_nets, src->not_nets);
    COPY_LIST(a, dst->ports, src->ports);
    COPY_LIST(a, dst->not_ports, src->not_ports);
    copy_ports(a, dst->ports.p, dst->ports.n);
    copy_ports(a, dst->not_ports.p, dst->not_ports.n);
    dst->selector = dup(a, src->selector);
    dst->not_selector = dup(a, src->not_selector);
    dst->namespace_selector = dup(a, src->namespace_selector);
    dst->services.name = dup(a, src->services.name);
    dst->services.ns = dup(a, src->services.ns);
    dst->service_accounts.selector = dup(a, src->service_accounts.selector);
    COPY_LIST(a, dst->service_accounts.names, src->service_accounts.names);
    for (size_t i = 0; i < dst->service_accounts.names.n; i++) {
        dst->service_accounts.names.p[i] = dup(a, src->service_accounts.names.p[i]);
    }
}

static void rule_copy(struct arena *a, struct rule *dst, const struct rule *src) {
    *dst = *src;
    /* HTTP matches and annotations are not for the packet path. */
    dst->http = (struct http_match){.set = src->http.set};
    dst->annotations = (struct str_map){.set = false};
    copy_entity(a, &dst->source, &src->source);
    copy_entity(a, &dst->destination, &src->destination);
}

struct rule *rules_copy(struct arena *a, const struct rule *src, size_t n) {
    struct rule *dst = arena_array(a, struct rule, n);
    for (size_t i = 0; i < n; i++) {
        rule_copy(a, &dst[i], &src[i]);
    }
    return dst;
}

struct rule *rules_keep(struct arena *a, const struct rule *src, size_t n) {
    struct rule *dst = rules_copy(a, src, n);
    for (size_t i = 0; i < n; i++) {
        dst[i].index = (uint16_t)i;
    }
    return dst;
}

/* ---- selectors ---- */

void selector_and(struct buf *b, struct str text) {
    if (b->n) {
        buf_puts(b, " && ");
    }
    buf_putc(b, '(');
    buf_str(b, text);
    buf_putc(b, ')');
}

int selector_prefixed(struct str text, const char *prefix, const char *existence, struct arena *a,
                      struct buf *out, struct err *e) {
    const struct selector *s = NULL;
    int r = selector_parse(text, SEL_TEXT_MAX, a, &s, e);
    if (r < 0) {
        return r;
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(SEL_TEXT_MAX * 8);
    if (selector_is_all(s)) {
        buf_printf(&b, "has(%s)", existence);
    } else if (selector_is_global(s)) {
        buf_printf(&b, "!has(%s)", existence);
    } else {
        selector_print_prefixed(s, str_c(prefix), &b);
    }
    selector_and(out, buf_view(&b));
    return 0;
}

/* Canonical form of a text; in the arena. */
static int canonical(struct str text, struct arena *a, struct str *out, struct err *e) {
    const struct selector *s = NULL;
    int r = selector_parse(text, SEL_TEXT_MAX * 16, a, &s, e);
    if (r < 0) {
        return r;
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(SEL_TEXT_MAX * 64);
    selector_print(s, &b);
    *out = arena_dup(a, buf_view(&b));
    return 0;
}

static bool is_given(struct str s) {
    return s.p && str_trim(s).n > 0;
}

/* The one selector of a side: namespaces, service accounts and selector together. Empty: none. */
static int side_selector(const struct entity_rule *r, struct str ns, struct arena *a,
                         struct str *out, struct err *e) {
    const struct service_account_match *sa = &r->service_accounts;
    bool has_sa = sa->set && (sa->names.n > 0 || is_given(sa->selector));
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(SEL_TEXT_MAX * 16);
    int rc = 0;
    if (is_given(r->namespace_selector)) {
        rc = selector_prefixed(r->namespace_selector, "pcns.", LABEL_NAMESPACE, a, &b, e);
    } else if (ns.n && (is_given(r->selector) || is_given(r->not_selector) || has_sa)) {
        MG_CLEANUP(buf_fini) struct buf t = BUF_INIT(1024);
        buf_printf(&t, LABEL_NAMESPACE " == '%.*s'", STR_FMT(ns));
        selector_and(&b, buf_view(&t));
    }
    if (rc == 0 && has_sa && sa->names.n) {
        MG_CLEANUP(buf_fini) struct buf t = BUF_INIT(SEL_TEXT_MAX);
        buf_puts(&t, LABEL_SERVICE_ACCOUNT " in {");
        for (size_t i = 0; i < sa->names.n; i++) {
            buf_printf(&t, "%s'%.*s'", i ? ", " : "", STR_FMT(sa->names.p[i]));
        }
        buf_putc(&t, '}');
        selector_and(&b, buf_view(&t));
    }
    if (rc == 0 && has_sa && is_given(sa->selector)) {
        rc = selector_prefixed(sa->selector, "pcsa.", LABEL_SERVICE_ACCOUNT, a, &b, e);
    }
    if (rc == 0 && is_given(r->selector)) {
        struct str own = STR_NULL;
        rc = canonical(r->selector, a, &own, e);
        selector_and(&b, own);
    }
    if (rc < 0) {
        return rc;
    }
    *out = STR_NULL;
    return b.n ? canonical(buf_view(&b), a, out, e) : 0;
}

/* ---- ports ---- */

static int ports_cmp(const void *x, const void *y) {
    const struct calc_ports *a = x, *b = y;
    return a->min != b->min ? (a->min < b->min ? -1 : 1) : 0;
}

/* Sorted ranges that neither overlap nor touch. */
static size_t merge_ports(struct calc_ports *p, size_t n) {
    if (n == 0) {
        return 0;
    }
    qsort(p, n, sizeof(*p), ports_cmp);
    size_t k = 1;
    for (size_t i = 1; i < n; i++) {
        if (p[i].min <= (uint32_t)p[k - 1].max + 1) {
            p[k - 1].max = p[i].max > p[k - 1].max ? p[i].max : p[k - 1].max;
        } else {
            p[k++] = p[i];
        }
    }
    return k;
}

struct compiling {
    struct calc *c;
    struct ruleset *s;
    struct arena *scratch;
    uint8_t protocol; /* of the rule; 0 = any */
};

static uint32_t keep(struct compiling *x, struct cset *set) {
    vec_push(&x->s->sets, set);
    return set->id;
}

static void compile_ports(struct compiling *x, const struct port_spec *in, size_t n,
                          struct str sel_text, const struct calc_ports **out, size_t *n_out,
                          const uint32_t **sets, size_t *n_sets) {
    struct calc_ports *p = arena_array(&x->s->a, struct calc_ports, n);
    uint32_t *ids = arena_array(&x->s->a, uint32_t, n);
    size_t k = 0, m = 0;
    for (size_t i = 0; i < n; i++) {
        if (in[i].name.p) {
            struct str text = sel_text.n ? sel_text : STR("all()");
            ids[m++] = keep(x, cset_of_port(x->c, text, in[i].name, x->protocol));
        } else {
            p[k++] = (struct calc_ports){in[i].min, in[i].max};
        }
    }
    *out = p;
    *n_out = merge_ports(p, k);
    *sets = ids;
    *n_sets = m;
}

static uint8_t net_families(const struct prefix *p, size_t n) {
    uint8_t f = 0;
    for (size_t i = 0; i < n; i++) {
        f |= p[i].ip.family == IP_V4 ? CALC_V4 : CALC_V6;
    }
    return n ? f : CALC_V4 | CALC_V6;
}

/* One side. ERR_INVALID: something in it can't be understood. */
static int compile_side(struct compiling *x, const struct entity_rule *in, struct str ns,
                        bool is_source, struct calc_side *out, uint8_t *families, struct err *e) {
    struct arena *a = &x->s->a;
    *out = (struct calc_side){.nets = NULL};
    out->nets = memcpy(arena_array(a, struct prefix, in->nets.n),
                       in->nets.p ? in->nets.p : (const struct prefix *)a,
                       in->nets.n * sizeof(struct prefix));
    out->n_nets = in->nets.n;
    out->not_nets = memcpy(arena_array(a, struct prefix, in->not_nets.n),
                           in->not_nets.p ? in->not_nets.p : (const struct prefix *)a,
                           in->not_nets.n * sizeof(struct prefix));
    out->n_not_nets = in->not_nets.n;
    *families &= net_families(in->nets.p, in->nets.n);
    *families &= net_families(in->not_nets.p, in->not_nets.n);
    struct str text = STR_NULL;
    int r = side_selector(in, ns, x->scratch, &text, e);
    if (r < 0) {
        return r;
    }
    if (text.n) {
        out->set = keep(x, cset_of_selector(x->c, text));
    }
    if (is_given(in->not_selector)) {
        struct str neg = STR_NULL;
        r = canonical(in->not_selector, x->scratch, &neg, e);
        if (r < 0) {
            return r;
        }
        out->not_set = keep(x, cset_of_selector(x->c, neg));
    }
    if (in->services.set && in->services.name.n) {
        struct str sns = in->services.ns.n ? in->services.ns : ns;
        out->service_set = keep(x, cset_of_service(x->c, sns, in->services.name, !is_source));
    }
    compile_ports(x, in->ports.p, in->ports.n, text, &out->ports, &out->n_ports, &out->port_sets,
                  &out->n_port_sets);
    compile_ports(x, in->not_ports.p, in->not_ports.n, text, &out->not_ports, &out->n_not_ports,
                  &out->not_port_sets, &out->n_not_port_sets);
    return 0;
}

static int16_t opt16(const struct opt_int *o) {
    return o->set ? (int16_t)o->v : -1;
}

/* Matches on the insides of a connection are for a proxy, not for the packet path: such a rule,
 * which can only allow, matches nothing. */
static int check_http(const struct rule *in, struct err *e) {
    return in->http.set ? err_set(e, ERR_INVALID,
                                  "http: needs a proxy that looks into connections, which this "
                                  "dataplane has not: the rule matches nothing")
                        : 0;
}

static void compile_rule(struct compiling *x, const struct rule *in, struct str ns,
                         struct calc_rule *out, struct err *problem) {
    *out = (struct calc_rule){.action = in->action,
                              .families = CALC_V4 | CALC_V6,
                              .protocol = opt16(&in->protocol),
                              .not_protocol = opt16(&in->not_protocol),
                              .icmp_type = -1,
                              .icmp_code = -1,
                              .not_icmp_type = -1,
                              .not_icmp_code = -1,
                              .index = in->index};
    if (in->icmp.set) {
        out->icmp_type = opt16(&in->icmp.type);
        out->icmp_code = opt16(&in->icmp.code);
    }
    if (in->not_icmp.set) {
        out->not_icmp_type = opt16(&in->not_icmp.type);
        out->not_icmp_code = opt16(&in->not_icmp.code);
    }
    if (in->ip_version.set) {
        out->families &= in->ip_version.v == 4 ? CALC_V4 : CALC_V6;
    }
    if (out->protocol == IPPROTO_ICMP) {
        out->families &= CALC_V4;
    } else if (out->protocol == IPPROTO_ICMPV6) {
        out->families &= CALC_V6;
    }
    x->protocol = out->protocol > 0 ? (uint8_t)out->protocol : 0;
    struct err e;
    int r = compile_side(x, &in->source, ns, true, &out->src, &out->families, &e);
    if (r == 0) {
        r = compile_side(x, &in->destination, ns, false, &out->dst, &out->families, &e);
    }
    if (r == 0) {
        r = check_http(in, &e);
    }
    if (r < 0) {
        if (!problem->code) {
            err_set(problem, r, "%s[%u]: %s", x->s->dir == CALC_INGRESS ? "ingress" : "egress",
                    in->index, e.msg);
        }
        if (in->action == RULE_DENY) {
            struct calc_rule all = {.action = RULE_DENY,
                                    .families = CALC_V4 | CALC_V6,
                                    .protocol = -1,
                                    .not_protocol = -1,
                                    .icmp_type = -1,
                                    .icmp_code = -1,
                                    .not_icmp_type = -1,
                                    .not_icmp_code = -1,
                                    .index = in->index};
            *out = all;
            return;
        }
        out->never = true;
    }
    if (out->families == 0) {
        out->families = CALC_V4;
        out->never = true;
    }
}

void ruleset_compile(struct calc *c, struct ruleset *s, struct str ns, struct err *problem) {
    VEC(struct cset *) old = {s->sets.p, s->sets.n, s->sets.cap};
    s->sets.p = NULL;
    s->sets.n = s->sets.cap = 0;
    struct arena old_arena = s->a;
    s->a = (struct arena){.first_bytes = 256};
    struct arena scratch = {.first_bytes = 1024};
    struct compiling x = {.c = c, .s = s, .scratch = &scratch};
    struct calc_rule *rules = arena_array(&s->a, struct calc_rule, s->n_rules);
    for (size_t i = 0; i < s->n_rules; i++) {
        compile_rule(&x, &s->rules[i], ns, &rules[i], problem);
    }
    arena_fini(&scratch);
    s->out.rules = rules;
    s->out.n_rules = s->n_rules;
    /* Only now: a set that is wanted again must not be made anew. The sink keeps pointers into the
     * old arena until it is told of the new rules, at this same flush. */
    for (size_t i = 0; i < old.n; i++) {
        cset_unref(c, old.p[i]);
    }
    vec_fini(&old);
    arena_fini(&old_arena);
}

void ruleset_release(struct calc *c, struct ruleset *s) {
    for (size_t i = 0; i < s->sets.n; i++) {
        cset_unref(c, s->sets.p[i]);
    }
    vec_fini(&s->sets);
    arena_fini(&s->a);
}
