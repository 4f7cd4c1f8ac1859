/* Rules as written → rules as enforced: selectors become sets, ports are sorted and merged,
 * families worked out. What can't be understood fails closed: an Allow or Pass matches nothing, a
 * Deny matches everything. */
#include "policy/calc_int.h"

#include <netinet/in.h>
#include <stdlib.h>

enum { SEL_TEXT_MAX = 1 << 20 };

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
    struct compiled *to;
    struct arena *a; /* to's */
    enum calc_dir dir;
    struct arena *scratch;
    uint8_t protocol; /* of the rule; 0 = any */
};

static uint32_t keep(struct compiling *x, struct cset *set) {
    x->to->sets[x->to->n_sets++] = set;
    return set->id;
}

static void *array_or_null(struct arena *a, size_t bytes) {
    return bytes ? arena_alloc(a, bytes) : NULL;
}

static const struct prefix *copy_nets(struct arena *a, const struct prefix *p, size_t n) {
    return n ? memcpy(arena_array(a, struct prefix, n), p, n * sizeof(*p)) : NULL;
}

static void compile_ports(struct compiling *x, const struct port_spec *in, size_t n,
                          struct str sel_text, const struct calc_ports **out, size_t *n_out,
                          const uint32_t **sets, size_t *n_sets) {
    size_t n_named = 0, k = 0, m = 0;
    for (size_t i = 0; i < n; i++) {
        n_named += in[i].name.p != NULL;
    }
    struct calc_ports *p = array_or_null(x->a, (n - n_named) * sizeof(*p));
    uint32_t *ids = array_or_null(x->a, n_named * sizeof(*ids));
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
    *out = (struct calc_side){.nets = copy_nets(x->a, in->nets.p, in->nets.n),
                              .n_nets = in->nets.n,
                              .not_nets = copy_nets(x->a, in->not_nets.p, in->not_nets.n),
                              .n_not_nets = in->not_nets.n};
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
            err_set(problem, r, "%s[%u]: %s", x->dir == CALC_INGRESS ? "ingress" : "egress",
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

/* Room for all of it, so that a policy's compiled rules are one block. Each list is rounded up. */
static size_t bytes_of(const struct rule *r, size_t n, size_t *n_sets_max) {
    size_t bytes = sizeof(struct compiled) + n * sizeof(struct calc_rule) + 64;
    *n_sets_max = 0;
    for (size_t i = 0; i < n; i++) {
        const struct entity_rule *sides[] = {&r[i].source, &r[i].destination};
        for (size_t k = 0; k < 2; k++) {
            const struct entity_rule *e = sides[k];
            size_t n_nets = e->nets.n + e->not_nets.n, n_ports = e->ports.n + e->not_ports.n;
            bytes += n_nets * sizeof(struct prefix) + n_ports * sizeof(struct calc_ports);
            bytes += (n_nets > 0) * 32U + (n_ports > 0) * 64U;
            *n_sets_max += 3; /* selector, not selector, service */
            for (size_t p = 0; p < n_ports; p++) {
                const struct port_spec *spec =
                    p < e->ports.n ? &e->ports.p[p] : &e->not_ports.p[p - e->ports.n];
                *n_sets_max += spec->name.p != NULL;
            }
        }
    }
    return bytes + *n_sets_max * (sizeof(struct cset *) + sizeof(uint32_t));
}

static void compiled_free(struct calc *c, struct compiled *x) {
    for (size_t i = 0; x && i < x->n_sets; i++) {
        cset_unref(c, x->sets[i]);
    }
    if (x) {
        struct arena a = x->a;
        arena_fini(&a);
    }
}

void ruleset_compile(struct calc *c, struct ruleset *s, const struct calc_policy *head,
                     struct err *problem) {
    struct arena scratch = {.first_bytes = 4096}, a = {.head = NULL};
    const struct rule *written = rules_unpack(s->written, &scratch);
    size_t n = rules_count(s->written), n_sets_max;
    a.first_bytes = (uint32_t)bytes_of(written, n, &n_sets_max);
    struct compiled *to = arena_new(&a, struct compiled);
    to->sets = arena_array(&a, struct cset *, n_sets_max);
    struct compiling x = {.c = c, .to = to, .a = &a, .dir = s->dir, .scratch = &scratch};
    struct calc_rule *rules = arena_array(&a, struct calc_rule, n);
    for (size_t i = 0; i < n; i++) {
        compile_rule(&x, &written[i], head->ns, &rules[i], problem);
    }
    mg_assert(to->n_sets <= n_sets_max);
    arena_fini(&scratch);
    to->out = *head;
    to->out.id = s->id;
    to->out.dir = s->dir;
    to->out.rules = rules;
    to->out.n_rules = n;
    to->a = a;
    /* Only now: a set that is wanted again must not be made anew. The sink keeps pointers into the
     * old block until it is told of the new rules, at this same flush. */
    struct compiled *old = s->compiled;
    s->compiled = to;
    compiled_free(c, old);
}

void ruleset_release(struct calc *c, struct ruleset *s) {
    compiled_free(c, s->compiled);
    s->compiled = NULL;
}
