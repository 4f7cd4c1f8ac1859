/* Code in prefix order. AND and OR know where their operands end, so that the rest can be skipped:
 *
 *     ALL | HAS key | EQ pair | IN n pair… (sorted) | CONTAINS key from length (of the text) | NOT
 * operand AND end operand… | OR end operand…
 *
 * What matches labels that are absent (!=, not in) is NOT of what needs them. */
#include "policy/lexpr.h"

#include "policy/selector_int.h"

enum lexpr_op {
    LX_ALL,
    LX_HAS,
    LX_EQ,
    LX_IN,
    LX_CONTAINS,
    LX_STARTS,
    LX_ENDS,
    LX_NOT,
    LX_AND,
    LX_OR,
};

struct lexpr {
    uint32_t n_code;
    uint32_t code[]; /* then the text */
};

struct compiler {
    struct ltab *t;
    VEC(uint32_t) code;
    VEC(char) text;
};

static void put(struct compiler *c, uint32_t v) {
    vec_push(&c->code, v);
}

static void put_text(struct compiler *c, enum lexpr_op op, const struct selector *s) {
    struct str v = s->values[0];
    put(c, op);
    put(c, ltab_key(c->t, s->label));
    put(c, (uint32_t)c->text.n);
    put(c, (uint32_t)v.n);
    for (size_t i = 0; i < v.n; i++) {
        vec_push(&c->text, v.p[i]);
    }
}

static int id_cmp(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void put_in(struct compiler *c, const struct selector *s) {
    put(c, LX_IN);
    put(c, (uint32_t)s->n_values);
    for (size_t i = 0; i < s->n_values; i++) {
        put(c, ltab_ref(c->t, s->label, s->values[i]));
    }
    if (s->n_values) {
        qsort(c->code.p + c->code.n - s->n_values, s->n_values, sizeof(uint32_t), id_cmp);
    }
}

static void compile(struct compiler *c, const struct selector *s) {
    switch (s->op) {
    case SEL_ALL:
    case SEL_GLOBAL:
        put(c, LX_ALL);
        return;
    case SEL_HAS:
        put(c, LX_HAS);
        put(c, ltab_key(c->t, s->label));
        return;
    case SEL_NE:
        put(c, LX_NOT);
        MG_FALLTHROUGH;
    case SEL_EQ:
        put(c, LX_EQ);
        put(c, ltab_ref(c->t, s->label, s->values[0]));
        return;
    case SEL_NOT_IN:
        put(c, LX_NOT);
        MG_FALLTHROUGH;
    case SEL_IN:
        put_in(c, s);
        return;
    case SEL_CONTAINS:
        put_text(c, LX_CONTAINS, s);
        return;
    case SEL_STARTS:
        put_text(c, LX_STARTS, s);
        return;
    case SEL_ENDS:
        put_text(c, LX_ENDS, s);
        return;
    case SEL_NOT:
        put(c, LX_NOT);
        compile(c, s->child);
        return;
    case SEL_AND:
    case SEL_OR: {
        put(c, s->op == SEL_AND ? LX_AND : LX_OR);
        size_t end = c->code.n;
        put(c, 0);
        for (const struct selector *o = s->child; o; o = o->next) {
            compile(c, o);
        }
        c->code.p[end] = (uint32_t)c->code.n;
        return;
    }
    }
}

struct lexpr *lexpr_new(struct ltab *t, const struct selector *s) {
    struct compiler c = {.t = t};
    compile(&c, s);
    struct lexpr *e = malloc(sizeof(*e) + c.code.n * sizeof(*e->code) + c.text.n);
    mg_assert(e != NULL);
    e->n_code = (uint32_t)c.code.n;
    memcpy(e->code, c.code.p, c.code.n * sizeof(*e->code));
    if (c.text.n) {
        memcpy(e->code + c.code.n, c.text.p, c.text.n);
    }
    vec_fini(&c.code);
    vec_fini(&c.text);
    return e;
}

void lexpr_free(struct ltab *t, struct lexpr *e) {
    for (uint32_t i = 0; i < e->n_code;) {
        switch ((enum lexpr_op)e->code[i++]) {
        case LX_ALL:
        case LX_NOT:
            break;
        case LX_HAS:
        case LX_AND:
        case LX_OR:
            i++;
            break;
        case LX_EQ:
            ltab_unref(t, e->code[i++]);
            break;
        case LX_IN:
            for (uint32_t n = e->code[i++]; n > 0; n--) {
                ltab_unref(t, e->code[i++]);
            }
            break;
        case LX_CONTAINS:
        case LX_STARTS:
        case LX_ENDS:
            i += 3;
            break;
        }
    }
    free(e);
}

struct matcher {
    const struct ltab *t;
    const struct lexpr *e;
    const uint32_t *pairs;
    size_t n;
    uint32_t at;
};

static bool has_pair(const struct matcher *m, uint32_t pair) {
    for (size_t i = 0; i < m->n; i++) {
        if (m->pairs[i] == pair) {
            return true;
        }
    }
    return false;
}

static bool has_one_of(const struct matcher *m, const uint32_t *sorted, size_t n) {
    for (size_t i = 0; n && i < m->n; i++) {
        if (bsearch(&m->pairs[i], sorted, n, sizeof(*sorted), id_cmp)) {
            return true;
        }
    }
    return false;
}

/* The pair of a key; NULL: no such label. */
static const struct lpair *of_key(const struct matcher *m, uint32_t key) {
    for (size_t i = 0; i < m->n; i++) {
        const struct lpair *p = &m->t->pairs.p[m->pairs[i] - 1];
        if (p->key_id == key) {
            return p;
        }
    }
    return NULL;
}

static bool match_text(struct matcher *m, enum lexpr_op op) {
    const uint32_t *code = m->e->code + m->at;
    m->at += 3;
    const struct lpair *p = of_key(m, code[0]);
    struct str want = str_n((const char *)(m->e->code + m->e->n_code) + code[1], code[2]);
    return p && (op == LX_CONTAINS ? str_contains(p->value, want)
                 : op == LX_STARTS ? str_starts(p->value, want)
                                   : str_ends(p->value, want));
}

static bool run(struct matcher *m) {
    const uint32_t *code = m->e->code;
    enum lexpr_op op = (enum lexpr_op)code[m->at++];
    switch (op) {
    case LX_ALL:
        return true;
    case LX_HAS:
        return of_key(m, code[m->at++]) != NULL;
    case LX_EQ:
        return has_pair(m, code[m->at++]);
    case LX_IN: {
        uint32_t n = code[m->at++], from = m->at;
        m->at += n;
        return has_one_of(m, code + from, n);
    }
    case LX_CONTAINS:
    case LX_STARTS:
    case LX_ENDS:
        return match_text(m, op);
    case LX_NOT:
        return !run(m);
    case LX_AND:
    case LX_OR: {
        uint32_t end = code[m->at++];
        while (m->at < end) {
            if (run(m) == (op == LX_OR)) {
                m->at = end;
                return op == LX_OR;
            }
        }
        return op == LX_AND;
    }
    }
    return false;
}

bool lexpr_match(const struct ltab *t, const struct lexpr *e, const uint32_t *pairs, size_t n) {
    struct matcher m = {.t = t, .e = e, .pairs = pairs, .n = n};
    return run(&m);
}
