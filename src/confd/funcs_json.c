/* JSON as Go's encoding/json reads it into interface {}: numbers are float64, of equal keys the
 * last counts, what is no UTF-8 becomes U+FFFD; and Go's words for errors. */
#include "confd/funcs_json.h"

#include "base/jtext.h"
#include "confd/gotext.h"

#include <stdio.h>

enum { DEPTH_MAX = 1000 };

struct js {
    struct str t;
    size_t pos;
    unsigned depth;
    struct arena *a;
    struct err *e;
    struct err late; /* a number that no float64 holds: reported if all else is well */
};

static int fail_char(struct js *j, const char *where) {
    if (j->pos >= j->t.n) {
        return err_set(j->e, ERR_INVALID, "unexpected end of JSON input");
    }
    unsigned char c = (unsigned char)j->t.p[j->pos];
    struct buf b = BUF_INIT(64);
    go_quote_rune(&b, c, false);
    int r = err_set(j->e, ERR_INVALID, "invalid character %s %s", buf_cstr(&b), where);
    buf_fini(&b);
    return r;
}

static int peek(const struct js *j) {
    return j->pos < j->t.n ? (unsigned char)j->t.p[j->pos] : -1;
}

static void skip(struct js *j) {
    while (peek(j) == ' ' || peek(j) == '\t' || peek(j) == '\n' || peek(j) == '\r') {
        j->pos++;
    }
}

static int literal(struct js *j, const char *word) {
    for (size_t i = 0; word[i]; i++, j->pos++) {
        if (peek(j) != word[i]) {
            char where[64];
            snprintf(where, sizeof(where), "in literal %s (expecting '%c')", word, word[i]);
            return fail_char(j, where);
        }
    }
    return 0;
}

static bool digits(struct js *j) {
    size_t start = j->pos;
    while (peek(j) >= '0' && peek(j) <= '9') {
        j->pos++;
    }
    return j->pos > start;
}

static int number(struct js *j, struct value *out) {
    size_t start = j->pos;
    j->pos += peek(j) == '-';
    if (peek(j) == '0') {
        j->pos++;
    } else if (!digits(j)) {
        return fail_char(j, "in numeric literal");
    }
    if (peek(j) == '.') {
        j->pos++;
        if (!digits(j)) {
            return fail_char(j, "after decimal point in numeric literal");
        }
    }
    if (peek(j) == 'e' || peek(j) == 'E') {
        j->pos++;
        j->pos += peek(j) == '+' || peek(j) == '-';
        if (!digits(j)) {
            return fail_char(j, "in exponent of numeric literal");
        }
    }
    struct str s = str_sub(j->t, start, j->pos);
    double d = 0;
    if (num_to_double(s, &d) < 0) {
        (void)err_set(&j->late, ERR_INVALID,
                      "json: cannot unmarshal number %.*s into Go value of type float64",
                      s.n > 100 ? 100 : (int)s.n, s.p);
    }
    *out = value_float(d);
    return 0;
}

static int hex4(struct js *j, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < 4; i++, j->pos++) {
        int c = peek(j);
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) {
            return fail_char(j, "in \\u hexadecimal character escape");
        }
        *out = *out << 4 | (uint32_t)d;
    }
    return 0;
}

/* \uXXXX, with a second one if it is the first half of a pair; a half alone is U+FFFD. */
static int unicode(struct js *j, struct buf *b) {
    uint32_t c = 0, low = 0;
    int r = hex4(j, &c);
    if (r == 0 && c >= 0xd800 && c < 0xdc00 && peek(j) == '\\' && j->pos + 1 < j->t.n &&
        j->t.p[j->pos + 1] == 'u') {
        size_t back = j->pos;
        j->pos += 2;
        r = hex4(j, &low);
        if (r == 0 && low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        } else {
            j->pos = back;
        }
    }
    rune_add(b, c); /* half a pair: U+FFFD */
    return r;
}

static int escape(struct js *j, struct buf *b) {
    static const char FROM[] = "\"\\/bfnrt", TO[] = "\"\\/\b\f\n\r\t";
    j->pos++;
    int c = peek(j);
    const char *at = c > 0 ? strchr(FROM, c) : NULL;
    if (at) {
        j->pos++;
        buf_putc(b, TO[at - FROM]);
        return 0;
    }
    if (c != 'u') {
        return fail_char(j, "in string escape code");
    }
    j->pos++;
    return unicode(j, b);
}

/* Bytes from pos to the quote that ends a string, if they are what they stand for; else < 0. */
static ptrdiff_t plain(const struct js *j, size_t pos) {
    for (size_t i = pos; i < j->t.n; i++) {
        unsigned char c = (unsigned char)j->t.p[i];
        if (c == '"') {
            return (ptrdiff_t)(i - pos);
        }
        if (c == '\\' || c < 0x20 || c >= 0x80) {
            break;
        }
    }
    return -1;
}

static int string(struct js *j, struct str *out) {
    ptrdiff_t len = plain(j, j->pos + 1);
    if (len >= 0) { /* no copy: the text outlives what is made of it */
        *out = str_sub(j->t, j->pos + 1, j->pos + 1 + (size_t)len);
        j->pos += (size_t)len + 2;
        return 0;
    }
    struct buf b = BUF_INIT(j->t.n * 3 + 1);
    int r = 0;
    j->pos++;
    while (r == 0 && peek(j) != '"') {
        int c = peek(j);
        if (c == '\\') {
            r = escape(j, &b);
        } else if (c < 0x20) {
            r = fail_char(j, "in string literal");
        } else {
            size_t n = utf8_len((const unsigned char *)j->t.p + j->pos, j->t.n - j->pos);
            buf_add(&b, n ? j->t.p + j->pos : "\xef\xbf\xbd", n ? n : 3);
            j->pos += n ? n : 1;
        }
    }
    j->pos++;
    if (r == 0) {
        *out = arena_dup(j->a, buf_view(&b));
    }
    buf_fini(&b);
    return r;
}

static int value(struct js *j, struct value *out);

static int object(struct js *j, struct value *out) {
    *out = value_map_new(j->a, &VT_MAP);
    j->pos++;
    skip(j);
    if (peek(j) == '}') {
        j->pos++;
        return 0;
    }
    for (;;) {
        struct str key = STR_NULL;
        struct value v = VALUE_NIL;
        skip(j);
        if (peek(j) != '"') {
            return fail_char(j, "looking for beginning of object key string");
        }
        int r = string(j, &key);
        skip(j);
        if (r == 0 && peek(j) != ':') {
            r = fail_char(j, "after object key");
        }
        j->pos++;
        if (r == 0) {
            r = value(j, &v);
        }
        if (r < 0) {
            return r;
        }
        value_map_set_str(j->a, out, key, v);
        skip(j);
        int c = peek(j);
        if (c != ',' && c != '}') {
            return fail_char(j, "after object key:value pair");
        }
        j->pos++;
        if (c == '}') {
            return 0;
        }
    }
}

static int array(struct js *j, struct value *out) {
    VEC(struct value) v = {0};
    int r = 0;
    j->pos++;
    skip(j);
    bool is_end = peek(j) == ']';
    j->pos += is_end;
    while (r == 0 && !is_end) {
        struct value item = VALUE_NIL;
        r = value(j, &item);
        vec_push(&v, item);
        skip(j);
        if (r == 0 && peek(j) != ',' && peek(j) != ']') {
            r = fail_char(j, "after array element");
        }
        is_end = peek(j) == ']';
        j->pos++;
    }
    *out = value_list_new(j->a, &VT_LIST, v.n);
    for (size_t i = 0; i < v.n; i++) {
        out->list->p[i] = v.p[i];
    }
    vec_fini(&v);
    return r;
}

static int value(struct js *j, struct value *out) {
    skip(j);
    int r = 0, c = peek(j);
    struct str s = STR_NULL;
    if (++j->depth > DEPTH_MAX) {
        return err_set(j->e, ERR_TOO_BIG, "exceeded max depth: JSON nests more than %d deep",
                       DEPTH_MAX);
    }
    if (c == '{') {
        r = object(j, out);
    } else if (c == '[') {
        r = array(j, out);
    } else if (c == '"') {
        r = string(j, &s);
        *out = value_str(s);
    } else if (c == 't' || c == 'f') {
        r = literal(j, c == 't' ? "true" : "false");
        *out = value_bool(c == 't');
    } else if (c == 'n') {
        r = literal(j, "null");
        *out = VALUE_NIL;
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        r = number(j, out);
    } else {
        r = fail_char(j, "looking for beginning of value");
    }
    j->depth--;
    return r;
}

int go_json(struct str text, struct arena *a, struct value *out, struct err *e) {
    struct js j = {.t = text, .a = a, .e = e};
    int r = value(&j, out);
    skip(&j);
    if (r == 0 && j.pos < text.n) {
        r = fail_char(&j, "after top-level value");
    }
    return r < 0 || j.late.code == 0 ? r : err_set(e, j.late.code, "%.1000s", j.late.msg);
}
