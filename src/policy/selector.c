/* Selectors as a small tree: leaves test one label, AND and OR hold lists, NOT holds one. The
 * parser is recursive descent over bytes; its depth is bounded, so hostile text can't exhaust the
 * stack. */
#include "policy/selector_int.h"

#include "base/hash.h"

#include <stdlib.h>

struct parser {
    struct str t;
    size_t pos;
    unsigned depth;
    struct arena *a;
    struct err *e;
};

static bool is_label_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '/' || c == '-';
}

static char peek(const struct parser *p) {
    return p->pos < p->t.n ? p->t.p[p->pos] : '\0';
}

static void skip_blanks(struct parser *p) {
    while (p->pos < p->t.n && (p->t.p[p->pos] == ' ' || p->t.p[p->pos] == '\t')) {
        p->pos++;
    }
}

static bool eat(struct parser *p, const char *what) {
    struct str w = str_c(what);
    if (!str_starts(str_sub(p->t, p->pos, p->t.n), w)) {
        return false;
    }
    p->pos += w.n;
    return true;
}

static int fail(struct parser *p, const char *want) {
    if (p->pos >= p->t.n) {
        return err_set(p->e, ERR_INVALID, "selector ends at byte %zu, where %s must follow", p->pos,
                       want);
    }
    char c = p->t.p[p->pos];
    if (c < 0x20 || c > 0x7e) {
        return err_set(p->e, ERR_INVALID, "selector byte %zu: found byte 0x%02x, need %s", p->pos,
                       (unsigned char)c, want);
    }
    struct str rest = str_sub(p->t, p->pos, p->pos + 20);
    for (size_t i = 0; i < rest.n; i++) {
        if (rest.p[i] < 0x20 || rest.p[i] > 0x7e) {
            rest.n = i;
        }
    }
    return err_set(p->e, ERR_INVALID, "selector byte %zu: found \"%.*s\", need %s", p->pos,
                   STR_FMT(rest), want);
}

static struct selector *node(struct parser *p, enum sel_op op) {
    struct selector *s = arena_new(p->a, struct selector);
    s->op = op;
    return s;
}

static int parse_string(struct parser *p, struct str *out) {
    skip_blanks(p);
    char quote = peek(p);
    if (quote != '\'' && quote != '"') {
        return fail(p, "a value in quotes");
    }
    ptrdiff_t end = str_find(p->t, quote, p->pos + 1);
    if (end < 0) {
        return err_set(p->e, ERR_INVALID, "selector byte %zu: the quote is never closed", p->pos);
    }
    *out = str_sub(p->t, p->pos + 1, (size_t)end);
    p->pos = (size_t)end + 1;
    return 0;
}

static int parse_set(struct parser *p, struct selector *s) {
    skip_blanks(p);
    if (!eat(p, "{")) {
        return fail(p, "a set in braces, {'a', 'b'}");
    }
    /* Each value takes two bytes of text at least: the array can't outgrow the text. */
    size_t cap = 1;
    for (size_t i = p->pos; i < p->t.n && p->t.p[i] != '}'; i++) {
        cap += p->t.p[i] == ',';
    }
    /* A } inside quotes would end that count early: count again by growing below. */
    s->values = arena_array(p->a, struct str, cap);
    for (;;) {
        skip_blanks(p);
        if (eat(p, "}")) {
            break;
        }
        if (s->n_values == cap) {
            struct str *more = arena_array(p->a, struct str, cap * 2);
            memcpy(more, s->values, cap * sizeof(*more));
            s->values = more;
            cap *= 2;
        }
        int r = parse_string(p, &s->values[s->n_values]);
        if (r < 0) {
            return r;
        }
        s->n_values++;
        skip_blanks(p);
        if (!eat(p, ",") && peek(p) != '}') {
            return fail(p, "a comma or a closing brace");
        }
    }
    if (s->n_values > 1) {
        qsort(s->values, s->n_values, sizeof(*s->values), str_cmp_qsort);
    }
    size_t n = 0;
    for (size_t i = 0; i < s->n_values; i++) {
        if (n == 0 || !str_eq(s->values[n - 1], s->values[i])) {
            s->values[n++] = s->values[i];
        }
    }
    s->n_values = n;
    return 0;
}

/* A word operator: its one or two words, with or without blanks between, not followed by more of an
 * identifier. Leaves the position where it was if it is not there. */
static bool eat_words(struct parser *p, const char *first, const char *second) {
    size_t start = p->pos;
    if (eat(p, first)) {
        if (second) {
            skip_blanks(p);
        }
        if ((!second || eat(p, second)) && !is_label_char(peek(p))) {
            return true;
        }
    }
    p->pos = start;
    return false;
}

static int parse_relation(struct parser *p, struct str label, struct selector **out) {
    static const struct {
        const char *first, *second;
        enum sel_op op;
    } words[] = {
        {"contains", NULL, SEL_CONTAINS}, {"starts", "with", SEL_STARTS},
        {"ends", "with", SEL_ENDS},       {"in", NULL, SEL_IN},
        {"not", "in", SEL_NOT_IN},
    };
    struct selector *s = node(p, SEL_EQ);
    s->label = label;
    skip_blanks(p);
    bool found = eat(p, "==");
    if (!found && eat(p, "!=")) {
        s->op = SEL_NE;
        found = true;
    }
    for (size_t i = 0; !found && i < ARRAY_LEN(words); i++) {
        if (eat_words(p, words[i].first, words[i].second)) {
            s->op = words[i].op;
            found = true;
        }
    }
    if (!found) {
        return fail(p, "an operator: == != contains, starts with, ends with, in, not in");
    }
    int r;
    if (s->op == SEL_IN || s->op == SEL_NOT_IN) {
        r = parse_set(p, s);
    } else {
        s->values = arena_new(p->a, struct str);
        s->n_values = 1;
        r = parse_string(p, s->values);
    }
    if (r == 0) {
        *out = s;
    }
    return r;
}

static struct str parse_word(struct parser *p) {
    size_t start = p->pos;
    while (p->pos < p->t.n && is_label_char(p->t.p[p->pos])) {
        p->pos++;
    }
    return str_sub(p->t, start, p->pos);
}

static int parse_call(struct parser *p, struct str word, size_t start, struct selector **out) {
    struct selector *s = node(p, SEL_HAS);
    p->pos++; /* the parenthesis */
    skip_blanks(p);
    if (str_is(word, "has")) {
        s->label = parse_word(p);
        if (s->label.n == 0) {
            return fail(p, "a label name");
        }
        if (s->label.n > SELECTOR_MAX_LABEL) {
            return err_set(p->e, ERR_INVALID,
                           "selector byte %zu: label name of %zu bytes, at most %d",
                           p->pos - s->label.n, s->label.n, SELECTOR_MAX_LABEL);
        }
        skip_blanks(p);
    } else if (str_is(word, "all")) {
        s->op = SEL_ALL;
    } else if (str_is(word, "global")) {
        s->op = SEL_GLOBAL;
    } else {
        p->pos = start;
        return fail(p, "has(LABEL), all(), global() or a label name");
    }
    if (!eat(p, ")")) {
        return fail(p, "a closing parenthesis");
    }
    *out = s;
    return 0;
}

static int parse_or(struct parser *p, struct selector **out);

static int parse_operand(struct parser *p, struct selector **out) {
    skip_blanks(p);
    bool negate = false;
    bool has_not = false;
    while (eat(p, "!")) {
        has_not = true;
        negate = !negate;
        skip_blanks(p);
    }
    struct selector *s = NULL;
    int r;
    if (eat(p, "(")) {
        if (++p->depth > SELECTOR_MAX_DEPTH) {
            return err_set(p->e, ERR_TOO_BIG, "selector byte %zu: more than %d nested parentheses",
                           p->pos - 1, SELECTOR_MAX_DEPTH);
        }
        r = parse_or(p, &s);
        p->depth--;
        if (r == 0 && !eat(p, ")")) {
            r = fail(p, "&&, || or a closing parenthesis");
        }
    } else {
        size_t start = p->pos;
        struct str word = parse_word(p);
        if (word.n == 0) {
            return fail(p,
                        has_not ? "what to negate" : "has(LABEL), all(), global(), ! or a label");
        }
        if (word.n > SELECTOR_MAX_LABEL) {
            return err_set(p->e, ERR_INVALID,
                           "selector byte %zu: label name of %zu bytes, at most %d", start, word.n,
                           SELECTOR_MAX_LABEL);
        }
        r = peek(p) == '(' ? parse_call(p, word, start, &s) : parse_relation(p, word, &s);
    }
    if (r < 0) {
        return r;
    }
    if (negate) {
        struct selector *inverse = node(p, SEL_NOT);
        inverse->child = s;
        s = inverse;
    }
    *out = s;
    return 0;
}

/* One level of the grammar: operands joined by `token`; a single operand stands for itself. */
static int parse_list(struct parser *p, enum sel_op op, const char *token,
                      int (*operand)(struct parser *, struct selector **), struct selector **out) {
    struct selector *list = NULL;
    struct selector *last = NULL;
    for (;;) {
        struct selector *s = NULL;
        int r = operand(p, &s);
        if (r < 0) {
            return r;
        }
        /* A node of a list is linked by `next`; an operand that is itself used once only is ours.
         */
        if (last) {
            last->next = s;
        } else {
            list = s;
        }
        last = s;
        skip_blanks(p);
        if (!eat(p, token)) {
            break;
        }
    }
    if (list != last) {
        struct selector *all = node(p, op);
        all->child = list;
        list = all;
    }
    *out = list;
    return 0;
}

static int parse_and(struct parser *p, struct selector **out) {
    return parse_list(p, SEL_AND, "&&", parse_operand, out);
}

static int parse_or(struct parser *p, struct selector **out) {
    return parse_list(p, SEL_OR, "||", parse_and, out);
}

int selector_parse(struct str text, size_t max_bytes, struct arena *a, const struct selector **out,
                   struct err *e) {
    if (text.n > max_bytes) {
        return err_set(e, ERR_TOO_BIG, "selector of %zu bytes, at most %zu", text.n, max_bytes);
    }
    struct parser p = {.t = arena_dup(a, text), .a = a, .e = e};
    struct selector *s = NULL;
    skip_blanks(&p);
    if (p.pos == p.t.n) {
        *out = node(&p, SEL_ALL);
        return 0;
    }
    int r = parse_or(&p, &s);
    if (r == 0 && p.pos != p.t.n) {
        r = fail(&p, "&&, || or the end");
    }
    if (r == 0) {
        *out = s;
    }
    return r;
}

static const struct str *find_label(const struct label *labels, size_t n, struct str key) {
    size_t lo = 0;
    while (lo < n) {
        size_t mid = lo + (n - lo) / 2;
        int c = str_cmp(labels[mid].key, key);
        if (c == 0) {
            return &labels[mid].value;
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            n = mid;
        }
    }
    return NULL;
}

static bool in_values(const struct selector *s, struct str v) {
    return s->n_values &&
           bsearch(&v, s->values, s->n_values, sizeof(*s->values), str_cmp_qsort) != NULL;
}

bool selector_match(const struct selector *s, const struct label *labels, size_t n_labels) {
    const struct str *v = s->label.n ? find_label(labels, n_labels, s->label) : NULL;
    switch (s->op) {
    case SEL_ALL:
    case SEL_GLOBAL:
        return true;
    case SEL_HAS:
        return v != NULL;
    case SEL_EQ:
        return v && str_eq(*v, s->values[0]);
    case SEL_NE:
        return !v || !str_eq(*v, s->values[0]);
    case SEL_CONTAINS:
        return v && str_contains(*v, s->values[0]);
    case SEL_STARTS:
        return v && str_starts(*v, s->values[0]);
    case SEL_ENDS:
        return v && str_ends(*v, s->values[0]);
    case SEL_IN:
        return v && in_values(s, *v);
    case SEL_NOT_IN:
        return !v || !in_values(s, *v);
    case SEL_NOT:
        return !selector_match(s->child, labels, n_labels);
    case SEL_AND:
    case SEL_OR:
        for (const struct selector *c = s->child; c; c = c->next) {
            if (selector_match(c, labels, n_labels) == (s->op == SEL_OR)) {
                return s->op == SEL_OR;
            }
        }
        return s->op == SEL_AND;
    }
    return false;
}

static void print_value(struct buf *b, struct str v) {
    char quote = str_find(v, '"', 0) >= 0 ? '\'' : '"';
    buf_putc(b, quote);
    buf_str(b, v);
    buf_putc(b, quote);
}

static void print_binary(struct buf *b, const struct selector *s, struct str prefix,
                         const char *op) {
    buf_str(b, prefix);
    buf_str(b, s->label);
    buf_putc(b, ' ');
    buf_puts(b, op);
    buf_putc(b, ' ');
    if (s->op != SEL_IN && s->op != SEL_NOT_IN) {
        print_value(b, s->values[0]);
        return;
    }
    buf_putc(b, '{');
    for (size_t i = 0; i < s->n_values; i++) {
        buf_puts(b, i ? ", " : "");
        print_value(b, s->values[i]);
    }
    buf_putc(b, '}');
}

void selector_print_prefixed(const struct selector *s, struct str prefix, struct buf *b) {
    switch (s->op) {
    case SEL_ALL:
        buf_puts(b, "all()");
        return;
    case SEL_GLOBAL:
        buf_puts(b, "global()");
        return;
    case SEL_HAS:
        buf_puts(b, "has(");
        buf_str(b, prefix);
        buf_str(b, s->label);
        buf_putc(b, ')');
        return;
    case SEL_EQ:
        print_binary(b, s, prefix, "==");
        return;
    case SEL_NE:
        print_binary(b, s, prefix, "!=");
        return;
    case SEL_CONTAINS:
        print_binary(b, s, prefix, "contains");
        return;
    case SEL_STARTS:
        print_binary(b, s, prefix, "starts with");
        return;
    case SEL_ENDS:
        print_binary(b, s, prefix, "ends with");
        return;
    case SEL_IN:
        print_binary(b, s, prefix, "in");
        return;
    case SEL_NOT_IN:
        print_binary(b, s, prefix, "not in");
        return;
    case SEL_NOT:
        buf_putc(b, '!');
        selector_print_prefixed(s->child, prefix, b);
        return;
    case SEL_AND:
    case SEL_OR:
        buf_putc(b, '(');
        for (const struct selector *c = s->child; c; c = c->next) {
            if (c != s->child) {
                buf_puts(b, s->op == SEL_AND ? " && " : " || ");
            }
            selector_print_prefixed(c, prefix, b);
        }
        buf_putc(b, ')');
        return;
    }
}

void selector_print(const struct selector *s, struct buf *b) {
    selector_print_prefixed(s, STR(""), b);
}

bool selector_is_all(const struct selector *s) {
    return s->op == SEL_ALL;
}
bool selector_is_global(const struct selector *s) {
    return s->op == SEL_GLOBAL;
}

void selector_id(const struct selector *s, char out[SELECTOR_ID_BYTES]) {
    /* Canonical text is at most 6 times the source: parentheses and quotes around each term. */
    struct buf b = BUF_INIT(64U << 20);
    uint8_t digest[28];
    buf_puts(&b, "s:");
    selector_print(s, &b);
    mg_assert(!b.overflow);
    sha224(b.p, b.n, digest);
    memcpy(out, "s:", 2);
    (void)base64url_encode(digest, sizeof(digest), out + 2);
    buf_fini(&b);
}

struct weigher {
    size_t (*weight)(void *arg, struct selector_term t);
    void *arg;
};

static size_t weigh(const struct weigher *w, const struct selector_term *t, size_t n) {
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += w->weight(w->arg, t[i]);
    }
    return sum;
}

static size_t terms_of(const struct selector *s, const struct weigher *w,
                       struct selector_term *out);

/* Any one operand's terms will do: those with the least weight. */
static size_t terms_of_and(const struct selector *s, const struct weigher *w,
                           struct selector_term *out) {
    size_t best = 0, best_weight = SIZE_MAX;
    for (const struct selector *c = s->child; c; c = c->next) {
        struct selector_term t[SELECTOR_MAX_TERMS];
        size_t n = terms_of(c, w, t);
        size_t weight = n ? weigh(w, t, n) : SIZE_MAX;
        if (weight < best_weight) {
            memcpy(out, t, n * sizeof(*t));
            best = n;
            best_weight = weight;
        }
    }
    return best;
}

/* The operands' terms together, if each has some. */
static size_t terms_of_or(const struct selector *s, const struct weigher *w,
                          struct selector_term *out) {
    size_t n = 0;
    for (const struct selector *c = s->child; c; c = c->next) {
        struct selector_term t[SELECTOR_MAX_TERMS];
        size_t k = terms_of(c, w, t);
        if (k == 0 || n + k > SELECTOR_MAX_TERMS) {
            return 0;
        }
        memcpy(out + n, t, k * sizeof(*t));
        n += k;
    }
    return n;
}

static size_t terms_of(const struct selector *s, const struct weigher *w,
                       struct selector_term *out) {
    switch (s->op) {
    case SEL_HAS:
    case SEL_CONTAINS:
    case SEL_STARTS:
    case SEL_ENDS:
        out[0] = (struct selector_term){s->label, STR_NULL};
        return 1;
    case SEL_EQ:
        out[0] = (struct selector_term){s->label, s->values[0]};
        return 1;
    case SEL_IN:
        if (s->n_values == 0 || s->n_values > SELECTOR_MAX_TERMS) {
            out[0] = (struct selector_term){s->label, STR_NULL};
            return 1;
        }
        for (size_t i = 0; i < s->n_values; i++) {
            out[i] = (struct selector_term){s->label, s->values[i]};
        }
        return s->n_values;
    case SEL_AND:
        return terms_of_and(s, w, out);
    case SEL_OR:
        return terms_of_or(s, w, out);
    case SEL_ALL:
    case SEL_GLOBAL:
    case SEL_NE:
    case SEL_NOT_IN:
    case SEL_NOT:
        return 0;
    }
    return 0;
}

/* Keeps the lightest, in order of weight. */
static size_t add_need(const struct selector *s, const struct weigher *w,
                       struct selector_need out[SELECTOR_MAX_NEEDS], size_t n) {
    if (s->op == SEL_AND) {
        for (const struct selector *c = s->child; c; c = c->next) {
            n = add_need(c, w, out, n);
        }
        return n;
    }
    struct selector_need need;
    need.n = terms_of(s, w, need.terms);
    need.weight = weigh(w, need.terms, need.n);
    if (need.n == 0 || (n == SELECTOR_MAX_NEEDS && out[n - 1].weight <= need.weight)) {
        return n;
    }
    size_t at = n < SELECTOR_MAX_NEEDS ? n++ : n - 1;
    for (; at > 0 && out[at - 1].weight > need.weight; at--) {
        out[at] = out[at - 1];
    }
    out[at] = need;
    return n;
}

size_t selector_needs(const struct selector *s, size_t (*weight)(void *arg, struct selector_term t),
                      void *arg, struct selector_need out[SELECTOR_MAX_NEEDS]) {
    struct weigher w = {weight, arg};
    return add_need(s, &w, out, 0);
}
