/* TOML's scalars: strings of four kinds, numbers in four bases, dates and times. See toml.h. */
#include "confd/toml_int.h"

#include "base/jtext.h"
#include "confd/gotext.h"

#include <math.h>
#include <stdio.h>

/* ---- strings ---- */

static int hex_digit(int c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* \uXXXX, \UXXXXXXXX: the reader stands behind the letter. */
static int unicode_escape(struct toml *t, unsigned n_digits, struct buf *b) {
    uint32_t c = 0;
    size_t start = t->pos;
    for (unsigned i = 0; i < n_digits; i++, t->pos++) {
        int d = hex_digit(toml_peek(t, 0));
        if (d < 0) {
            return toml_fail_found(t, n_digits == 4 ? "4 hex digits after \\u"
                                                    : "8 hex digits after \\U");
        }
        c = c << 4 | (uint32_t)d;
    }
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        t->pos = start;
        return toml_fail(t, ERR_INVALID, "U+%04X is no character: 0 to D7FF, E000 to 10FFFF", c);
    }
    rune_add(b, c);
    return 0;
}

/* A backslash at the end of a line takes all blanks and lines up to the next character. */
static bool line_continues(struct toml *t) {
    size_t start = t->pos;
    while (toml_peek(t, 0) == ' ' || toml_peek(t, 0) == '\t') {
        t->pos++;
    }
    if (!toml_newline(t)) {
        t->pos = start;
        return false;
    }
    while (toml_peek(t, 0) == ' ' || toml_peek(t, 0) == '\t' || toml_newline(t)) {
        if (toml_peek(t, 0) == ' ' || toml_peek(t, 0) == '\t') {
            t->pos++;
        }
    }
    return true;
}

static int escape(struct toml *t, bool is_multi, struct buf *b) {
    static const char FROM[] = "btnfr\"\\", TO[] = "\b\t\n\f\r\"\\";
    t->pos++;
    if (is_multi && line_continues(t)) {
        return 0;
    }
    int c = toml_peek(t, 0);
    const char *at = c > 0 ? strchr(FROM, c) : NULL;
    if (at) {
        buf_putc(b, TO[at - FROM]);
        t->pos++;
        return 0;
    }
    if (c == 'u' || c == 'U') {
        t->pos++;
        return unicode_escape(t, c == 'u' ? 4 : 8, b);
    }
    return toml_fail_found(t, "b t n f r \" \\ uXXXX or UXXXXXXXX after \\");
}

static size_t count_quotes(const struct toml *t, int quote) {
    size_t n = 0;
    while (n < 6 && toml_peek(t, n) == quote) {
        n++;
    }
    return n;
}

/* What stands between the quotes; ends behind the closing ones. */
static int string_body(struct toml *t, int quote, bool is_multi, struct buf *b) {
    for (;;) {
        int c = toml_peek(t, 0);
        if (c == quote) {
            size_t n = count_quotes(t, quote);
            if (!is_multi || n >= 3) {
                /* Up to two quotes may stand before the three that end it. */
                size_t inside = !is_multi ? 0 : n > 5 ? 2 : n - 3;
                buf_add(b, t->t.p + t->pos, inside);
                t->pos += is_multi ? inside + 3 : 1;
                return 0;
            }
            buf_add(b, t->t.p + t->pos, n);
            t->pos += n;
        } else if (c == '\\' && quote == '"') {
            int r = escape(t, is_multi, b);
            if (r < 0) {
                return r;
            }
        } else if (is_multi && (c == '\n' || c == '\r')) {
            size_t start = t->pos;
            if (!toml_newline(t)) {
                return toml_fail(t, ERR_INVALID, "found a CR without LF in a string: write \\r");
            }
            buf_add(b, t->t.p + start, t->pos - start);
        } else if (c < 0 || (c < 0x20 && c != '\t') || c == 0x7f) {
            return toml_fail_found(t, is_multi       ? "the end of the string: three quotes"
                                      : quote == '"' ? "the end of the string: \""
                                                     : "the end of the string: '");
        } else {
            buf_putc(b, (char)c);
            t->pos++;
        }
    }
}

int toml_string(struct toml *t, bool is_key, struct str *out) {
    int quote = toml_peek(t, 0);
    bool is_multi = toml_peek(t, 1) == quote && toml_peek(t, 2) == quote;
    if (is_multi && is_key) {
        return toml_fail_found(t, "a key of one line: one quote at each end");
    }
    t->pos += is_multi ? 3 : 1;
    if (is_multi) {
        (void)toml_newline(t); /* the first one is not part of it */
    }
    struct buf b = BUF_INIT(TOML_MAX_BYTES);
    int r = string_body(t, quote, is_multi, &b);
    if (r == 0) {
        *out = arena_dup(t->a, buf_view(&b));
    }
    buf_fini(&b);
    return r;
}

/* ---- dates and times ---- */

static bool digits(struct str s, size_t at, size_t n, unsigned *out) {
    *out = 0;
    for (size_t i = at; i < at + n; i++) {
        if (i >= s.n || s.p[i] < '0' || s.p[i] > '9') {
            return false;
        }
        *out = *out * 10 + (unsigned)(s.p[i] - '0');
    }
    return true;
}

static bool has(struct str s, size_t at, char c) {
    return at < s.n && s.p[at] == c;
}

static bool is_date(struct str s) {
    unsigned y = 0, m = 0, d = 0;
    if (s.n < 10 || !digits(s, 0, 4, &y) || !has(s, 4, '-') || !digits(s, 5, 2, &m) ||
        !has(s, 7, '-') || !digits(s, 8, 2, &d) || m < 1 || m > 12 || d < 1) {
        return false;
    }
    static const unsigned DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return d <= DAYS[m - 1] + (m == 2 && is_leap ? 1 : 0);
}

/* Length of the time at the beginning of s, 0 if there is none. */
static size_t time_len(struct str s) {
    unsigned h = 0, m = 0, sec = 0, f = 0;
    if (!digits(s, 0, 2, &h) || !has(s, 2, ':') || !digits(s, 3, 2, &m) || !has(s, 5, ':') ||
        !digits(s, 6, 2, &sec) || h > 23 || m > 59 || sec > 60) {
        return 0;
    }
    size_t n = 8;
    if (has(s, n, '.')) {
        n++;
        if (!digits(s, n, 1, &f)) {
            return 0;
        }
        while (digits(s, n, 1, &f)) {
            n++;
        }
    }
    return n;
}

static bool is_offset(struct str s) {
    unsigned h = 0, m = 0;
    return str_is(s, "Z") || str_is(s, "z") ||
           (s.n == 6 && (s.p[0] == '+' || s.p[0] == '-') && digits(s, 1, 2, &h) && has(s, 3, ':') &&
            digits(s, 4, 2, &m) && h <= 23 && m <= 59);
}

/* The type of a date or time, or TOML_STRING if s is none. */
static enum toml_type time_type(struct str s) {
    size_t n = time_len(s);
    if (n) {
        return n == s.n ? TOML_TIME_LOCAL : TOML_STRING;
    }
    if (!is_date(s)) {
        return TOML_STRING;
    }
    if (s.n == 10) {
        return TOML_DATE_LOCAL;
    }
    n = time_len(str_sub(s, 11, s.n));
    if (!n || !(s.p[10] == 'T' || s.p[10] == 't' || s.p[10] == ' ')) {
        return TOML_STRING;
    }
    struct str rest = str_sub(s, 11 + n, s.n);
    return rest.n == 0 ? TOML_DATETIME_LOCAL : is_offset(rest) ? TOML_DATETIME : TOML_STRING;
}

/* ---- numbers ---- */

/* Digits of a base with _ between them, to plain digits. False: something else is there. */
static bool plain_digits(struct str s, int base, struct buf *b) {
    for (size_t i = 0; i < s.n; i++) {
        int d = hex_digit((unsigned char)s.p[i]);
        if (s.p[i] == '_') {
            if (i == 0 || i + 1 == s.n || s.p[i - 1] == '_') {
                return false;
            }
        } else if (d < 0 || d >= base) {
            return false;
        } else {
            buf_putc(b, s.p[i]);
        }
    }
    return s.n > 0;
}

static bool base_integer(struct str s, int base, uint64_t *out, bool *is_too_big) {
    struct buf b = BUF_INIT(TOML_MAX_BYTES);
    bool is_ok = plain_digits(s, base, &b);
    uint64_t v = 0;
    for (size_t i = 0; is_ok && i < b.n; i++) {
        *is_too_big = *is_too_big || __builtin_mul_overflow(v, (uint64_t)base, &v) ||
                      __builtin_add_overflow(v, (uint64_t)hex_digit((unsigned char)b.p[i]), &v);
    }
    buf_fini(&b);
    *out = v;
    return is_ok;
}

/* Decimal, hex, octal, binary. False if s has another form. */
static bool integer(struct str s, int64_t *out, bool *is_too_big) {
    bool has_sign = s.n && (s.p[0] == '+' || s.p[0] == '-'), is_negative = has(s, 0, '-');
    struct str d = str_sub(s, has_sign ? 1 : 0, s.n);
    int base = 10;
    if (!has_sign && d.n > 2 && d.p[0] == '0') {
        base = d.p[1] == 'x' ? 16 : d.p[1] == 'o' ? 8 : d.p[1] == 'b' ? 2 : 10;
        d = base == 10 ? d : str_sub(d, 2, d.n);
    }
    if (base == 10 && d.n > 1 && d.p[0] == '0') {
        return false;
    }
    uint64_t v = 0;
    if (!base_integer(d, base, &v, is_too_big)) {
        return false;
    }
    *is_too_big = *is_too_big || v > (uint64_t)INT64_MAX + is_negative;
    *out = is_negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

/* A float as JSON writes it: no +, no _. False if s has another form. */
static bool float_text(struct str s, struct buf *b) {
    size_t i = 0;
    if (s.n && (s.p[0] == '+' || s.p[0] == '-')) {
        if (s.p[0] == '-') {
            buf_putc(b, '-');
        }
        i++;
    }
    size_t start = i, n_parts = 0;
    while (i < s.n && s.p[i] != '.' && s.p[i] != 'e' && s.p[i] != 'E') {
        i++;
    }
    struct str whole = str_sub(s, start, i);
    if (!plain_digits(whole, 10, b) || (whole.n > 1 && whole.p[0] == '0')) {
        return false;
    }
    if (has(s, i, '.')) {
        start = ++i;
        while (i < s.n && s.p[i] != 'e' && s.p[i] != 'E') {
            i++;
        }
        buf_putc(b, '.');
        if (!plain_digits(str_sub(s, start, i), 10, b)) {
            return false;
        }
        n_parts++;
    }
    if (i < s.n) {
        buf_putc(b, 'e');
        i++;
        if (has(s, i, '+') || has(s, i, '-')) {
            buf_putc(b, s.p[i++]);
        }
        if (!plain_digits(str_sub(s, i, s.n), 10, b)) {
            return false;
        }
        n_parts++;
    }
    return n_parts > 0;
}

static bool special_float(struct str s, double *out) {
    struct str v = s.n && (s.p[0] == '+' || s.p[0] == '-') ? str_sub(s, 1, s.n) : s;
    if (!str_is(v, "inf") && !str_is(v, "nan")) {
        return false;
    }
    double d = v.p[0] == 'i' ? INFINITY : NAN;
    *out = has(s, 0, '-') ? -d : d;
    return true;
}

static bool number(struct toml *t, struct str s, struct jnode *n, bool *is_too_big) {
    if (integer(s, &n->i, is_too_big)) {
        n->type = J_INT;
        n->s = arena_printf(t->a, "%lld", (long long)n->i);
        return true;
    }
    *is_too_big = false;
    struct buf b = BUF_INIT(TOML_MAX_BYTES);
    bool is_float = special_float(s, &n->f);
    if (!is_float && float_text(s, &b)) {
        /* Fails for what no double can hold, and for more digits than any double has. */
        is_float = num_to_double(buf_view(&b), &n->f) == 0;
        *is_too_big = !is_float;
    }
    if (is_float) {
        n->type = J_FLOAT;
        n->s = b.n ? arena_dup(t->a, buf_view(&b)) : arena_dup(t->a, s);
    }
    buf_fini(&b);
    return is_float;
}

static bool is_scalar_char(int c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '+' || c == '-' || c == '.' || c == ':';
}

/* The scalar's text; a date may be parted from its time by one blank. */
static struct str scalar_text(struct toml *t) {
    size_t end = t->pos;
    unsigned d = 0;
    while (end < t->t.n && is_scalar_char((unsigned char)t->t.p[end])) {
        end++;
    }
    if (end - t->pos == 10 && is_date(str_sub(t->t, t->pos, end)) && has(t->t, end, ' ') &&
        digits(t->t, end + 1, 2, &d)) {
        end++;
        while (end < t->t.n && is_scalar_char((unsigned char)t->t.p[end])) {
            end++;
        }
    }
    return str_sub(t->t, t->pos, end);
}

int toml_scalar(struct toml *t, struct jnode *n) {
    struct str s = scalar_text(t);
    if (s.n == 0) {
        return toml_fail_found(t, "a value");
    }
    bool is_too_big = false;
    if (str_is(s, "true") || str_is(s, "false")) {
        n->type = J_BOOL;
        n->b = s.p[0] == 't';
    } else if (!number(t, s, n, &is_too_big)) {
        n->i = time_type(s);
        n->s = s;
        if (is_too_big) {
            return toml_fail(t, ERR_INVALID, "%.*s is beyond the range of a double",
                             s.n > 60 ? 60 : (int)s.n, s.p);
        }
        if (n->i == TOML_STRING) {
            return toml_fail(t, ERR_INVALID,
                             "\"%.*s\" is no number, boolean, date or time: a string needs quotes",
                             s.n > 60 ? 60 : (int)s.n, s.p);
        }
    } else if (is_too_big) {
        return toml_fail(t, ERR_INVALID, "%.*s is beyond the range of 64 bits",
                         s.n > 60 ? 60 : (int)s.n, s.p);
    }
    t->pos += s.n;
    return 0;
}
