/* Runes and quoting. */
#include "confd/gotext.h"

#include "confd/unicode_tab.h"

#include <stdlib.h>

uint32_t rune_at(struct str s, size_t i, size_t *width) {
    const unsigned char *p = (const unsigned char *)s.p + i;
    size_t left = s.n - i;
    *width = 1;
    if (p[0] < 0x80) {
        return p[0];
    }
    unsigned more = p[0] >= 0xF0 ? 3 : p[0] >= 0xE0 ? 2 : 1;
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    if (p[0] < 0xC2 || p[0] > 0xF4 || left <= more) {
        return RUNE_ERROR;
    }
    uint32_t r = p[0] & (0x3FU >> more);
    for (unsigned j = 1; j <= more; j++) {
        if ((p[j] & 0xC0) != 0x80) {
            return RUNE_ERROR;
        }
        r = r << 6 | (p[j] & 0x3FU);
    }
    if (r < least[more] || !rune_is_valid(r)) {
        return RUNE_ERROR;
    }
    *width = more + 1;
    return r;
}

bool rune_is_valid(uint32_t r) {
    return r <= RUNE_MAX && (r < 0xD800 || r > 0xDFFF);
}

size_t rune_put(char out[4], uint32_t r) {
    if (!rune_is_valid(r)) {
        r = RUNE_ERROR;
    }
    if (r < 0x80) {
        out[0] = (char)r;
        return 1;
    }
    unsigned more = r >= 0x10000 ? 3 : r >= 0x800 ? 2 : 1;
    static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(lead[more] | (r >> (6 * more)));
    for (unsigned j = 1; j <= more; j++) {
        out[j] = (char)(0x80 | (r >> (6 * (more - j)) & 0x3F));
    }
    return more + 1;
}

void rune_add(struct buf *b, uint32_t r) {
    char out[4];
    buf_add(b, out, rune_put(out, r));
}

size_t rune_count(struct str s) {
    size_t count = 0;
    for (size_t i = 0, width; i < s.n; i += width) {
        width = 1;
        if (s.p[i] & 0x80) {
            (void)rune_at(s, i, &width);
        }
        count++;
    }
    return count;
}

struct str rune_cut(struct str s, size_t runes) {
    size_t i = 0;
    for (size_t width; i < s.n && runes > 0; i += width, runes--) {
        (void)rune_at(s, i, &width);
    }
    return str_n(s.p, i);
}

static int range_cmp(const void *key, const void *item) {
    uint32_t r = *(const uint32_t *)key;
    const struct unicode_range *range = item;
    return r < range->first ? -1 : r > range->last;
}

#define IN_TABLE(r, table) \
    (bsearch(&(r), (table), ARRAY_LEN(table), sizeof((table)[0]), range_cmp) != NULL)

bool rune_is_alnum(uint32_t r) {
    if (r < 0x80) {
        uint32_t low = r | 0x20;
        return r == '_' || (r >= '0' && r <= '9') || (low >= 'a' && low <= 'z');
    }
    return IN_TABLE(r, unicode_alnum);
}

bool rune_is_print(uint32_t r) {
    return r < 0x80 ? r >= 0x20 && r < 0x7F : IN_TABLE(r, unicode_print);
}

static void add_escaped(struct buf *b, uint32_t r, char quote, bool is_ascii) {
    static const char letters[] = "abtnvfr"; /* from \a, 7, on */
    if (r == (unsigned char)quote || r == '\\') {
        buf_putc(b, '\\');
        buf_putc(b, (char)r);
    } else if (is_ascii ? r < 0x80 && rune_is_print(r) : rune_is_print(r)) {
        rune_add(b, r);
    } else if (r >= '\a' && r <= '\r') {
        buf_putc(b, '\\');
        buf_putc(b, letters[r - '\a']);
    } else if (r < ' ' || r == 0x7F) {
        buf_printf(b, "\\x%02x", r);
    } else if (r < 0x10000) {
        buf_printf(b, "\\u%04x", r);
    } else {
        buf_printf(b, "\\U%08x", r);
    }
}

void go_quote(struct buf *b, struct str s, bool is_ascii) {
    buf_putc(b, '"');
    for (size_t i = 0, width; i < s.n; i += width) {
        uint32_t r = rune_at(s, i, &width);
        if (width == 1 && r == RUNE_ERROR) {
            buf_printf(b, "\\x%02x", (unsigned char)s.p[i]);
        } else {
            add_escaped(b, r, '"', is_ascii);
        }
    }
    buf_putc(b, '"');
}

void go_quote_rune(struct buf *b, uint32_t r, bool is_ascii) {
    buf_putc(b, '\'');
    add_escaped(b, rune_is_valid(r) ? r : RUNE_ERROR, '\'', is_ascii);
    buf_putc(b, '\'');
}

bool go_can_backquote(struct str s) {
    for (size_t i = 0, width; i < s.n; i += width) {
        uint32_t r = rune_at(s, i, &width);
        if (width == 1 && (r == RUNE_ERROR || (r < ' ' && r != '\t') || r == '`' || r == 0x7F)) {
            return false;
        }
        if (r == 0xFEFF) {
            return false;
        }
    }
    return true;
}

static int digit_of(char c, unsigned base) {
    int d = c >= '0' && c <= '9'                     ? c - '0'
            : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                     : 99;
    return d < (int)base ? d : -1;
}

/* n digits of a base at the front of *s. */
static bool take_digits(struct str *s, size_t n, unsigned base, uint32_t *out) {
    uint32_t v = 0;
    if (s->n < n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        int d = digit_of(s->p[i], base);
        if (d < 0) {
            return false;
        }
        v = v * base + (uint32_t)d;
    }
    *s = str_sub(*s, n, s->n);
    *out = v;
    return true;
}

static bool unquote_escape(struct str *s, char quote, uint32_t *r, bool *is_byte) {
    static const char letters[] = "abtnvfr";
    char c = s->p[0];
    const char *at = c ? strchr(letters, c) : NULL;
    if (c >= '0' && c <= '7') {
        return take_digits(s, 3, 8, r) && *r <= 255;
    }
    *s = str_sub(*s, 1, s->n);
    if (at) {
        *r = (uint32_t)('\a' + (at - letters));
        return true;
    }
    switch (c) {
    case 'x':
        return take_digits(s, 2, 16, r);
    case 'u':
    case 'U':
        *is_byte = false;
        return take_digits(s, c == 'u' ? 4 : 8, 16, r) && rune_is_valid(*r);
    case '\\':
        *r = '\\';
        return true;
    default:
        *r = (unsigned char)c;
        return c == quote;
    }
}

bool go_unquote_char(struct str *s, char quote, uint32_t *r, bool *is_byte) {
    if (s->n == 0 || s->p[0] == quote) {
        return false;
    }
    *is_byte = true;
    if (s->p[0] & 0x80) {
        size_t width;
        *r = rune_at(*s, 0, &width);
        *is_byte = false;
        *s = str_sub(*s, width, s->n);
        return true;
    }
    if (s->p[0] != '\\') {
        *r = (unsigned char)s->p[0];
        *s = str_sub(*s, 1, s->n);
        return true;
    }
    *s = str_sub(*s, 1, s->n);
    return s->n > 0 && unquote_escape(s, quote, r, is_byte);
}

static struct str unquote_raw(struct arena *a, struct str in) {
    char *p = arena_alloc(a, in.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        if (in.p[i] != '\r') {
            p[n++] = in.p[i];
        }
    }
    return str_n(p, n);
}

bool go_unquote(struct arena *a, struct str in, struct str *out) {
    if (in.n < 2 || in.p[in.n - 1] != in.p[0]) {
        return false;
    }
    struct str rest = str_sub(in, 1, in.n - 1);
    if (in.p[0] == '`') {
        if (str_find(rest, '`', 0) >= 0) {
            return false;
        }
        *out = str_find(rest, '\r', 0) >= 0 ? unquote_raw(a, rest) : rest;
        return true;
    }
    char *p = arena_alloc(a, rest.n * 3 + 4); /* a byte that is no UTF-8 becomes three */
    size_t n = 0;
    while (rest.n > 0) {
        uint32_t r;
        bool is_byte;
        if (rest.p[0] == '\n' || !go_unquote_char(&rest, '"', &r, &is_byte)) {
            return false;
        }
        if (is_byte) {
            p[n++] = (char)r;
        } else {
            n += rune_put(p + n, r);
        }
    }
    *out = str_n(p, n);
    return true;
}

/* Whether underscores stand only between digits, or between a base's prefix and a digit. */
static bool underscores_ok(struct str s) {
    char saw = '^';
    size_t i = s.n > 0 && (s.p[0] == '-' || s.p[0] == '+');
    bool is_hex = false;
    if (s.n >= i + 2 && s.p[i] == '0' && strchr("bBoOxX", s.p[i + 1]) && s.p[i + 1]) {
        is_hex = (s.p[i + 1] | 0x20) == 'x';
        i += 2;
        saw = '0';
    }
    for (; i < s.n; i++) {
        if (digit_of(s.p[i], is_hex ? 16 : 10) >= 0) {
            saw = '0';
        } else if (s.p[i] == '_') {
            if (saw != '0') {
                return false;
            }
            saw = '_';
        } else if (saw == '_') {
            return false;
        } else {
            saw = '!';
        }
    }
    return saw != '_';
}

bool go_parse_uint(struct str s, uint64_t *out) {
    struct str digits = s;
    unsigned base = 10;
    if (s.n > 0 && s.p[0] == '0') {
        char c = s.n >= 3 ? (char)(s.p[1] | 0x20) : 0;
        base = c == 'b' ? 2 : c == 'x' ? 16 : 8;
        digits = str_sub(s, c == 'b' || c == 'o' || c == 'x' ? 2 : 1, s.n);
    }
    uint64_t v = 0;
    bool has_underscores = false;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.p[i] == '_') {
            has_underscores = true;
            continue;
        }
        int d = digit_of(digits.p[i], base);
        if (d < 0 || __builtin_mul_overflow(v, (uint64_t)base, &v) ||
            __builtin_add_overflow(v, (uint64_t)d, &v)) {
            return false;
        }
    }
    if (s.n == 0 || (has_underscores && !underscores_ok(s))) {
        return false;
    }
    *out = v;
    return true;
}

bool go_parse_int(struct str s, int64_t *out) {
    bool is_negative = s.n > 0 && s.p[0] == '-';
    if (s.n > 0 && (is_negative || s.p[0] == '+')) {
        s = str_sub(s, 1, s.n);
    }
    uint64_t u;
    if (!go_parse_uint(s, &u) || u > (uint64_t)INT64_MAX + is_negative) {
        return false;
    }
    *out = (int64_t)(is_negative ? 0 - u : u);
    return true;
}

/* Digits with at most one point from *i on; how many digits. */
static size_t skip_mantissa(struct str s, size_t *i, unsigned base) {
    bool has_point = false;
    size_t n = 0;
    for (; *i < s.n; (*i)++) {
        char c = s.p[*i];
        if (c == '.' && !has_point) {
            has_point = true;
        } else if (digit_of(c, base) >= 0) {
            n++;
        } else if (c != '_') {
            break;
        }
    }
    return n;
}

static bool is_float_syntax(struct str s) {
    size_t i = s.n > 0 && (s.p[0] == '+' || s.p[0] == '-');
    bool is_hex = i + 2 < s.n && s.p[i] == '0' && (s.p[i + 1] | 0x20) == 'x';
    i += is_hex ? 2 : 0;
    if (skip_mantissa(s, &i, is_hex ? 16 : 10) == 0) {
        return false;
    }
    if (i < s.n && (s.p[i] | 0x20) == (is_hex ? 'p' : 'e')) {
        i++;
        i += i < s.n && (s.p[i] == '+' || s.p[i] == '-');
        if (i >= s.n || digit_of(s.p[i], 10) < 0) {
            return false;
        }
        while (i < s.n && (digit_of(s.p[i], 10) >= 0 || s.p[i] == '_')) {
            i++;
        }
    } else if (is_hex) {
        return false;
    }
    return i == s.n && (str_find(s, '_', 0) < 0 || underscores_ok(s));
}

bool go_parse_float(struct str s, double *out) {
    if (!is_float_syntax(s)) {
        return false;
    }
    struct buf b = BUF_INIT(s.n + 1);
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '_') {
            buf_putc(&b, s.p[i]);
        }
    }
    double f = strtod(buf_cstr(&b), NULL);
    buf_fini(&b);
    if (__builtin_isinf(f)) {
        return false;
    }
    *out = f;
    return true;
}
