/* Evaluation of import and export rules. See filter.h. */
#include "bgp/filter.h"

#include <stdlib.h>

struct bgp_filter {
    unsigned n_refs, n;
    enum filter_action otherwise;
    struct filter_rule rules[];
};

struct bgp_filter *bgp_filter_new(const struct filter_rule *rules, unsigned n,
                                  enum filter_action otherwise) {
    struct bgp_filter *f = calloc(1, sizeof(*f) + n * sizeof(*rules));
    mg_assert(f != NULL);
    f->n_refs = 1;
    f->n = n;
    f->otherwise = otherwise;
    for (unsigned i = 0; i < n; i++) {
        f->rules[i] = rules[i];
        mg_assert(rules[i].n_ops <= FILTER_OPS && rules[i].n_as <= FILTER_OP_AS);
    }
    return f;
}

struct bgp_filter *bgp_filter_ref(struct bgp_filter *f) {
    if (f) {
        f->n_refs++;
    }
    return f;
}

void bgp_filter_unref(struct bgp_filter *f) {
    if (f && --f->n_refs == 0) {
        free(f);
    }
}

/* ---- equality ---- */

static bool op_eq(const struct filter_op *a, const struct filter_op *b) {
    if (a->kind != b->kind) {
        return false;
    }
    switch (a->kind) {
    case OP_ADD_COMMUNITY:
        return a->n == b->n && memcmp(a->bytes, b->bytes, a->n) == 0;
    case OP_PREPEND:
        return a->n == b->n && memcmp(a->as, b->as, a->n * sizeof(a->as[0])) == 0;
    case OP_SET_PRIORITY:
    case OP_SET_LOCAL_PREF:
    case OP_SET_MED:
        return a->value == b->value;
    }
    return false;
}

static bool conditions_eq(const struct filter_rule *a, const struct filter_rule *b) {
    return a->has_cidr == b->has_cidr &&
           (!a->has_cidr || (a->op == b->op && prefix_eq(&a->cidr, &b->cidr))) &&
           a->has_len == b->has_len &&
           (!a->has_len || (a->len_min == b->len_min && a->len_max == b->len_max)) &&
           a->sources == b->sources &&
           strncmp(a->interface, b->interface, sizeof(a->interface)) == 0 && a->peer == b->peer &&
           a->n_community == b->n_community &&
           memcmp(a->community, b->community, a->n_community) == 0 && a->n_as == b->n_as &&
           memcmp(a->as, b->as, a->n_as * sizeof(a->as[0])) == 0 &&
           a->has_priority == b->has_priority &&
           (!a->has_priority ||
            (a->priority_min == b->priority_min && a->priority_max == b->priority_max));
}

static bool rule_eq(const struct filter_rule *a, const struct filter_rule *b) {
    if (a->action != b->action || a->n_ops != b->n_ops || !conditions_eq(a, b)) {
        return false;
    }
    for (unsigned i = 0; i < a->n_ops; i++) {
        if (!op_eq(&a->ops[i], &b->ops[i])) {
            return false;
        }
    }
    return true;
}

bool bgp_filter_eq(const struct bgp_filter *a, const struct bgp_filter *b) {
    if (a == b) {
        return true;
    }
    if (!a || !b || a->n != b->n || a->otherwise != b->otherwise) {
        return false;
    }
    for (unsigned i = 0; i < a->n; i++) {
        if (!rule_eq(&a->rules[i], &b->rules[i])) {
            return false;
        }
    }
    return true;
}

/* ---- conditions ---- */

/* Glob with * and ? over at most 16 characters. */
static bool glob(const char *pattern, size_t n, struct str s) {
    size_t p = 0, i = 0, star = SIZE_MAX, back = 0;
    while (i < s.n) {
        if (p < n && pattern[p] && (pattern[p] == '?' || pattern[p] == s.p[i])) {
            p++;
            i++;
        } else if (p < n && pattern[p] == '*') {
            star = p++;
            back = i;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++back;
        } else {
            return false;
        }
    }
    while (p < n && pattern[p] == '*') {
        p++;
    }
    return p == n || pattern[p] == 0;
}

static bool cidr_matches(const struct filter_rule *r, const struct prefix *p) {
    switch (r->op) {
    case MATCH_IN:
        return prefix_has(&r->cidr, p);
    case MATCH_NOT_IN:
        return !prefix_has(&r->cidr, p);
    case MATCH_EQUAL:
        return prefix_eq(&r->cidr, p);
    case MATCH_NOT_EQUAL:
        return !prefix_eq(&r->cidr, p);
    }
    return false;
}

static bool set_has(struct str set, const uint8_t *c, size_t n) {
    for (size_t i = 0; i + n <= set.n; i += n) {
        if (memcmp(set.p + i, c, n) == 0) {
            return true;
        }
    }
    return false;
}

/* The path, confederations left out, begins with these ASes; a set matches none. */
static bool path_begins(struct str path, const uint32_t *as, unsigned n) {
    const uint8_t *p = (const uint8_t *)path.p;
    unsigned have = 0;
    for (size_t at = 0; at + 2 <= path.n && have < n;) {
        unsigned count = p[at + 1];
        if (p[at] == SEG_SET) {
            return false;
        }
        for (unsigned i = 0; p[at] == SEG_SEQUENCE && i < count && have < n; i++) {
            if (get_u32(p + at + 2 + (size_t)i * 4) != as[have++]) {
                return false;
            }
        }
        at += 2 + (size_t)count * 4;
    }
    return have == n;
}

static uint32_t priority_of(const struct filter_route *r) {
    uint32_t pref = r->attrs->has & HAS_LOCAL_PREF ? r->attrs->local_pref : r->default_local_pref;
    return pref < BGP_PRIORITY_BASE ? BGP_PRIORITY_BASE - pref : 0;
}

static bool matches(const struct filter_rule *r, const struct filter_route *t) {
    if (r->has_cidr && !cidr_matches(r, t->prefix)) {
        return false;
    }
    if (r->has_len && (t->prefix->len < r->len_min || t->prefix->len > r->len_max)) {
        return false;
    }
    if (r->sources && !(r->sources & 1U << t->source)) {
        return false;
    }
    if (r->peer != FILTER_ANY_PEER && (r->peer == FILTER_IBGP) != t->is_ibgp_peer) {
        return false;
    }
    if (r->interface[0] && !glob(r->interface, sizeof(r->interface), t->interface)) {
        return false;
    }
    if (r->n_community &&
        !set_has(t->attrs->part[r->n_community == 12 ? PART_LARGE : PART_COMMUNITIES], r->community,
                 r->n_community)) {
        return false;
    }
    if (r->n_as && !path_begins(t->attrs->part[PART_AS_PATH], r->as, r->n_as)) {
        return false;
    }
    uint32_t prio = r->has_priority ? priority_of(t) : 0;
    return !r->has_priority || (prio >= r->priority_min && prio <= r->priority_max);
}

/* ---- operations ---- */

void filter_scratch_fini(struct filter_scratch *s) {
    buf_fini(&s->path);
    buf_fini(&s->other_path);
    buf_fini(&s->communities);
    buf_fini(&s->large);
}

static void add_community(struct attr_src *a, const struct filter_op *op,
                          struct filter_scratch *s) {
    enum attr_part part = op->n == 12 ? PART_LARGE : PART_COMMUNITIES;
    struct buf *b = op->n == 12 ? &s->large : &s->communities;
    struct buf out = BUF_INIT(b->max);
    comm_add(&out, a->part[part], op->bytes, op->n);
    if (out.overflow) {
        buf_fini(&out);
        return; /* the attribute is as long as can be: it stays as it is */
    }
    buf_fini(b);
    *b = out;
    a->part[part] = buf_view(b);
}

static void prepend(struct attr_src *a, const struct filter_op *op, struct filter_scratch *s) {
    for (unsigned i = op->n; i-- > 0;) {
        bool in_first = a->part[PART_AS_PATH].p == s->path.p && s->path.p;
        struct buf *b = in_first ? &s->other_path : &s->path;
        as_path_prepend(b, a->part[PART_AS_PATH], SEG_SEQUENCE, op->as[i], 1);
        if (b->overflow) {
            return;
        }
        a->part[PART_AS_PATH] = buf_view(b);
    }
}

static void set_local_pref(struct attr_src *a, uint32_t v) {
    a->local_pref = v;
    a->has |= HAS_LOCAL_PREF;
}

static void operate(struct attr_src *a, const struct filter_op *op, struct filter_scratch *s) {
    switch (op->kind) {
    case OP_ADD_COMMUNITY:
        add_community(a, op, s);
        break;
    case OP_PREPEND:
        prepend(a, op, s);
        break;
    case OP_SET_PRIORITY:
        set_local_pref(a, BGP_PRIORITY_BASE - op->value);
        break;
    case OP_SET_LOCAL_PREF:
        set_local_pref(a, op->value);
        break;
    case OP_SET_MED:
        a->med = op->value;
        a->has |= HAS_MED;
        break;
    }
}

struct filter_verdict bgp_filter_run(const struct bgp_filter *f, const struct filter_route *r,
                                     struct filter_scratch *s) {
    struct filter_verdict v = {.is_accepted = true, .rule = -1};
    if (!f) {
        return v;
    }
    for (unsigned i = 0; i < f->n; i++) {
        const struct filter_rule *rule = &f->rules[i];
        if (!matches(rule, r)) {
            continue;
        }
        for (unsigned k = 0; rule->action != FILTER_REJECT && k < rule->n_ops; k++) {
            operate(r->attrs, &rule->ops[k], s);
            v.is_changed = true;
        }
        if (rule->action != FILTER_NEXT) {
            v.is_accepted = rule->action == FILTER_ACCEPT;
            v.rule = (int)i;
            return v;
        }
    }
    v.is_accepted = f->otherwise != FILTER_REJECT;
    return v;
}

const char *bgp_filter_rule_name(const struct bgp_filter *f, int i) {
    return f && i >= 0 && (unsigned)i < f->n ? f->rules[i].name : "no rule";
}
