/* What plain YAML scalars mean. The rules are those of go-yaml v2, which kubectl reads with
 * (sigs.k8s.io/yaml goyaml.v2/resolve.go): YAML 1.1 words, yes and y included; numbers in Go's
 * notations; no base 60; dates stay text. Shared by the reader and by the writer, which quotes
 * every string that this would take for something else. */
#include "base/jtext.h"

#include <stdio.h>

static enum plain_kind plain_word(struct str s, bool *b) {
    static const struct {
        const char *text;
        enum plain_kind kind;
        bool b;
    } words[] = {
        {"", PLAIN_NULL, false},          {"~", PLAIN_NULL, false},
        {"null", PLAIN_NULL, false},      {"Null", PLAIN_NULL, false},
        {"NULL", PLAIN_NULL, false},      {"true", PLAIN_BOOL, true},
        {"True", PLAIN_BOOL, true},       {"TRUE", PLAIN_BOOL, true},
        {"yes", PLAIN_BOOL, true},        {"Yes", PLAIN_BOOL, true},
        {"YES", PLAIN_BOOL, true},        {"on", PLAIN_BOOL, true},
        {"On", PLAIN_BOOL, true},         {"ON", PLAIN_BOOL, true},
        {"y", PLAIN_BOOL, true},          {"Y", PLAIN_BOOL, true},
        {"false", PLAIN_BOOL, false},     {"False", PLAIN_BOOL, false},
        {"FALSE", PLAIN_BOOL, false},     {"no", PLAIN_BOOL, false},
        {"No", PLAIN_BOOL, false},        {"NO", PLAIN_BOOL, false},
        {"off", PLAIN_BOOL, false},       {"Off", PLAIN_BOOL, false},
        {"OFF", PLAIN_BOOL, false},       {"n", PLAIN_BOOL, false},
        {"N", PLAIN_BOOL, false},         {".nan", PLAIN_NOT_JSON, false},
        {".NaN", PLAIN_NOT_JSON, false},  {".NAN", PLAIN_NOT_JSON, false},
        {".inf", PLAIN_NOT_JSON, false},  {".Inf", PLAIN_NOT_JSON, false},
        {".INF", PLAIN_NOT_JSON, false},  {"+.inf", PLAIN_NOT_JSON, false},
        {"+.Inf", PLAIN_NOT_JSON, false}, {"+.INF", PLAIN_NOT_JSON, false},
        {"-.inf", PLAIN_NOT_JSON, false}, {"-.Inf", PLAIN_NOT_JSON, false},
        {"-.INF", PLAIN_NOT_JSON, false},
    };
    if (s.n > 5) {
        return PLAIN_STR;
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (str_is(s, words[i].text)) {
            *b = words[i].b;
            return words[i].kind;
        }
    }
    return PLAIN_STR;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Cuts sign and prefix of *s: 0x, 0o, 0b, a leading zero as octal. */
static unsigned cut_base(struct str *s) {
    if (s->n < 2 || s->p[0] != '0') {
        return 10;
    }
    char c = (char)(s->p[1] | 0x20);
    unsigned base = c == 'x' ? 16 : c == 'o' || is_digit(s->p[1]) ? 8 : c == 'b' ? 2 : 0;
    if (base == 0) {
        return 10;
    }
    *s = str_sub(*s, is_digit(s->p[1]) ? 1 : 2, s->n);
    return base;
}

/* Go's strconv.ParseInt(s, 0, 64), then ParseUint. */
static bool plain_int(struct str s, struct plain *out, enum plain_kind *kind) {
    bool neg = s.p[0] == '-';
    bool has_sign = neg || s.p[0] == '+';
    struct str t = str_sub(s, has_sign, s.n);
    unsigned base = cut_base(&t);
    uint64_t v = 0;
    if (t.n == 0) {
        return false;
    }
    for (size_t i = 0; i < t.n; i++) {
        char lower = (char)(t.p[i] | 0x20);
        unsigned d = is_digit(t.p[i])               ? (unsigned)(t.p[i] - '0')
                     : lower >= 'a' && lower <= 'f' ? (unsigned)(lower - 'a' + 10)
                                                    : 16;
        if (d >= base || __builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v)) {
            return false;
        }
    }
    bool fits = v <= (uint64_t)INT64_MAX + neg;
    if (!fits && has_sign) {
        return false; /* ParseUint takes no sign; it may still be a float */
    }
    if (v == 0 && neg) {
        out->n = (size_t)snprintf(out->text, sizeof(out->text), "-0");
    } else {
        out->n = (size_t)snprintf(out->text, sizeof(out->text), "%s%llu", neg ? "-" : "",
                                  (unsigned long long)v);
    }
    *kind = fits ? PLAIN_INT : PLAIN_FLOAT;
    out->i = neg ? (int64_t)(0 - v) : (int64_t)v;
    out->f = (double)v;
    return true;
}

static size_t skip_digits(struct str s, size_t i) {
    while (i < s.n && (is_digit(s.p[i]) || s.p[i] == '_')) {
        i++;
    }
    return i;
}

/* The parts of [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
struct float_parts {
    bool neg, has_point;
    struct str whole, fraction, exp; /* exp from its letter on */
};

static bool cut_float(struct str s, struct float_parts *f) {
    size_t i = s.p[0] == '-' || s.p[0] == '+';
    size_t end = skip_digits(s, i);
    *f = (struct float_parts){.neg = s.p[0] == '-', .whole = str_sub(s, i, end)};
    i = end;
    if (i < s.n && s.p[i] == '.') {
        f->has_point = true;
        end = skip_digits(s, i + 1);
        f->fraction = str_sub(s, i + 1, end);
        i = end;
    }
    if (f->whole.n == 0 && f->fraction.n == 0) {
        return false;
    }
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        size_t start = i++;
        i += i < s.n && (s.p[i] == '-' || s.p[i] == '+');
        end = skip_digits(s, i);
        if (end == i) {
            return false;
        }
        f->exp = str_sub(s, start, end);
        i = end;
    }
    return i == s.n;
}

static void put(struct plain *out, struct str s) {
    if (s.n) {
        memcpy(out->text + out->n, s.p, s.n);
        out->n += s.n;
    }
}

/* A number with point or exponent, or whole but beyond 64 bits, turned to JSON's grammar. */
static bool plain_float(struct str s, struct plain *out, enum plain_kind *kind) {
    struct float_parts f;
    if (!cut_float(s, &f)) {
        return false;
    }
    while (f.whole.n && f.whole.p[0] == '0') {
        f.whole = str_sub(f.whole, 1, f.whole.n);
    }
    out->n = 0;
    put(out, f.neg ? STR("-") : STR(""));
    put(out, f.whole.n ? f.whole : STR("0"));
    if (f.has_point) {
        put(out, STR("."));
        put(out, f.fraction.n ? f.fraction : STR("0"));
    }
    put(out, f.exp);
    struct str text = {out->text, out->n};
    if (text.n > NUM_TEXT_MAX) {
        *kind = PLAIN_TOO_LONG;
        return true;
    }
    if (num_to_double(text, &out->f) < 0) {
        return false; /* what no double can hold stays text, as in go-yaml */
    }
    *kind = str_to_i64(text, &out->i) == 0 ? PLAIN_INT : PLAIN_FLOAT;
    return true;
}

enum plain_kind yaml_plain(struct str s, struct plain *out) {
    enum plain_kind kind = plain_word(s, &out->b);
    if (kind != PLAIN_STR) {
        return kind;
    }
    if (!(is_digit(s.p[0]) || s.p[0] == '-' || s.p[0] == '+' || s.p[0] == '.')) {
        return PLAIN_STR;
    }
    char plain[NUM_TEXT_MAX];
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        bool known = is_digit(s.p[i]) || (s.p[i] && strchr("+-._abcdefABCDEFxXoO", s.p[i]));
        if (!known || (s.p[i] == '_' && s.p[0] == '.')) {
            return PLAIN_STR;
        }
        if (s.p[i] == '_') {
            continue;
        }
        if (n < sizeof(plain)) {
            plain[n] = s.p[i];
        }
        n++;
    }
    struct str t = {plain, n};
    if (n > sizeof(plain)) {
        struct float_parts f;
        return cut_float(s, &f) ? PLAIN_TOO_LONG : PLAIN_STR;
    }
    if (s.p[0] != '.' && plain_int(t, out, &kind)) {
        return kind;
    }
    return plain_float(t, out, &kind) ? kind : PLAIN_STR;
}
