/* Padding, integers, floats and strings by Go's flags; and format strings. */
#include "confd/tmpl_fmt.h"

/* Widths and precisions above this are refused, as in Go. */
#define FMT_NUMBER_MAX 1000000

static void fill(struct buf *b, char c, int n) {
    char *q = n > 0 ? buf_reserve(b, (size_t)n) : NULL;
    if (q) {
        memset(q, c, (size_t)n);
        b->n += (size_t)n;
    }
}

static void padding(struct printer *p, int n) {
    fill(p->b, p->f.zero ? '0' : ' ', n);
}

void fmt_pad(struct printer *p, struct str s) {
    if (!p->f.has_width || p->width == 0) {
        buf_str(p->b, s);
        return;
    }
    size_t runes = rune_count(s);
    int n = runes < (size_t)p->width ? p->width - (int)runes : 0;
    if (!p->f.minus) {
        padding(p, n);
    }
    buf_str(p->b, s);
    if (p->f.minus) {
        padding(p, n);
    }
}

static void pad_without_zeros(struct printer *p, struct str s) {
    bool zero = p->f.zero;
    p->f.zero = false;
    fmt_pad(p, s);
    p->f.zero = zero;
}

struct str fmt_cut(const struct printer *p, struct str s) {
    return p->f.has_precision ? rune_cut(s, (size_t)p->precision) : s;
}

/* Digits of u, backwards from `end`; returns their start. */
static char *digits_before(char *end, uint64_t u, unsigned base, bool is_upper) {
    const char *digits = is_upper ? "0123456789ABCDEF" : "0123456789abcdef";
    do {
        *--end = digits[u % base];
        u /= base;
    } while (u);
    return end;
}

/* How many digits at least. */
static int least_digits(const struct printer *p, bool is_negative) {
    if (p->f.has_precision) {
        return p->precision;
    }
    if (!p->f.zero || !p->f.has_width) {
        return 0;
    }
    return p->width - (is_negative || p->f.plus || p->f.space);
}

void fmt_integer(struct printer *p, uint64_t u, unsigned base, bool is_signed, uint32_t verb,
                 bool is_upper) {
    bool is_negative = is_signed && (int64_t)u < 0;
    if (p->f.has_precision && p->precision == 0 && u == 0) {
        bool zero = p->f.zero;
        p->f.zero = false;
        padding(p, p->f.has_width ? p->width : 0);
        p->f.zero = zero;
        return;
    }
    char text[72];
    char *start = digits_before(text + sizeof(text), is_negative ? 0 - u : u, base, is_upper);
    struct str digits = str_n(start, (size_t)(text + sizeof(text) - start));
    if (base == 10 && !p->f.has_width && !p->f.has_precision) {
        if (is_negative || p->f.plus || p->f.space) {
            buf_putc(p->b, is_negative ? '-' : p->f.plus ? '+' : ' ');
        }
        buf_str(p->b, digits);
        return;
    }
    int zeros = least_digits(p, is_negative) - (int)digits.n;
    struct buf b = BUF_INIT(p->b->max);
    if (is_negative || p->f.plus || p->f.space) {
        buf_putc(&b, is_negative ? '-' : p->f.plus ? '+' : ' ');
    }
    if (verb == 'O') {
        buf_puts(&b, "0o");
    }
    if (p->f.sharp && base == 2) {
        buf_puts(&b, "0b");
    } else if (p->f.sharp && base == 16) {
        buf_puts(&b, is_upper ? "0X" : "0x");
    } else if (p->f.sharp && base == 8 && zeros <= 0 && digits.p[0] != '0') {
        buf_putc(&b, '0');
    }
    fill(&b, '0', zeros);
    buf_str(&b, digits);
    p->b->overflow |= b.overflow;
    pad_without_zeros(p, buf_view(&b));
    buf_fini(&b);
}

static uint32_t rune_of(uint64_t u) {
    return u > RUNE_MAX ? RUNE_ERROR : (uint32_t)u;
}

void fmt_rune(struct printer *p, uint64_t u) {
    char utf8[4];
    fmt_pad(p, str_n(utf8, rune_put(utf8, rune_of(u))));
}

void fmt_quoted_rune(struct printer *p, uint64_t u) {
    struct buf b = BUF_INIT(64);
    go_quote_rune(&b, rune_of(u), p->f.plus);
    fmt_pad(p, buf_view(&b));
    buf_fini(&b);
}

void fmt_unicode(struct printer *p, uint64_t u) {
    char text[72];
    char *start = digits_before(text + sizeof(text), u, 16, true);
    int n = (int)(text + sizeof(text) - start);
    int least = p->f.has_precision && p->precision > 4 ? p->precision : 4;
    struct buf b = BUF_INIT(p->b->max);
    buf_puts(&b, "U+");
    fill(&b, '0', least - n);
    buf_add(&b, start, (size_t)n);
    p->b->overflow |= b.overflow;
    if (p->f.sharp && u <= RUNE_MAX && rune_is_print((uint32_t)u)) {
        buf_puts(&b, " '");
        rune_add(&b, (uint32_t)u);
        buf_putc(&b, '\'');
    }
    pad_without_zeros(p, buf_view(&b));
    buf_fini(&b);
}

/* %#g and the like: a point always, zeros at the end kept. num begins with the sign. */
static void keep_zeros(struct buf *num, char format, int precision) {
    int digits = format == 'g' || format == 'G' || format == 'x' ? precision : 0;
    if (digits == -1 && (format == 'g' || format == 'G' || format == 'x')) {
        digits = 6;
    }
    bool has_point = false, saw_nonzero = false, is_hex = format == 'x' || format == 'X';
    size_t tail = num->n;
    for (size_t i = 1; i < num->n && tail == num->n; i++) {
        char c = num->p[i];
        if (c == '.') {
            has_point = true;
        } else if (c == 'p' || c == 'P' || (!is_hex && (c == 'e' || c == 'E'))) {
            tail = i;
        } else {
            saw_nonzero |= c != '0';
            digits -= saw_nonzero;
        }
    }
    char exponent[16];
    size_t n_exponent = num->n - tail;
    memcpy(exponent, num->p + tail, n_exponent < sizeof(exponent) ? n_exponent : 0);
    num->n = tail;
    if (!has_point) {
        digits -= num->n == 2 && num->p[1] == '0';
        buf_putc(num, '.');
    }
    fill(num, '0', digits);
    buf_add(num, exponent, n_exponent);
}

void fmt_float(struct printer *p, double f, char format, int precision) {
    precision = p->f.has_precision ? p->precision : precision;
    struct buf num = BUF_INIT(p->b->max);
    go_format_float(&num, f, format, precision);
    if (num.overflow || p->b->max < 2) {
        p->b->overflow = true;
        buf_fini(&num);
        return;
    }
    char sign = '+';
    if (num.p[0] == '-' || num.p[0] == '+') {
        sign = num.p[0];
    } else {
        (void)buf_reserve(&num, 1);
        memmove(num.p + 1, num.p, num.n);
        num.n++;
    }
    num.p[0] = sign == '+' && p->f.space && !p->f.plus ? ' ' : sign;
    struct str s = buf_view(&num);
    if (s.p[1] == 'I' || s.p[1] == 'N') {
        bool has_sign = s.p[1] == 'I' || p->f.space || p->f.plus;
        pad_without_zeros(p, has_sign ? s : str_sub(s, 1, s.n));
        buf_fini(&num);
        return;
    }
    if (p->f.sharp && format != 'b') {
        keep_zeros(&num, format, precision);
        s = buf_view(&num);
    }
    if (!p->f.plus && s.p[0] == '+') {
        fmt_pad(p, str_sub(s, 1, s.n));
    } else if (p->f.zero && p->f.has_width && (size_t)p->width > s.n) {
        buf_putc(p->b, s.p[0]);
        padding(p, p->width - (int)s.n);
        buf_str(p->b, str_sub(s, 1, s.n));
    } else {
        fmt_pad(p, s);
    }
    buf_fini(&num);
}

void fmt_quoted(struct printer *p, struct str s) {
    s = fmt_cut(p, s);
    struct buf b = BUF_INIT(p->b->max);
    if (p->f.sharp && go_can_backquote(s)) {
        buf_putc(&b, '`');
        buf_str(&b, s);
        buf_putc(&b, '`');
    } else {
        go_quote(&b, s, p->f.plus);
    }
    p->b->overflow |= b.overflow;
    fmt_pad(p, buf_view(&b));
    buf_fini(&b);
}

void fmt_hex(struct printer *p, struct str s, bool is_upper) {
    if (p->f.has_precision && (size_t)p->precision < s.n) {
        s.n = (size_t)p->precision;
    }
    const char *hex = is_upper ? "0123456789ABCDEF" : "0123456789abcdef";
    const char *prefix = is_upper ? "0X" : "0x";
    size_t width = 2 * s.n;
    if (s.n == 0) {
        padding(p, p->f.has_width ? p->width : 0);
        return;
    }
    if (p->f.space) {
        width = width * (p->f.sharp ? 2 : 1) + s.n - 1;
    } else if (p->f.sharp) {
        width += 2;
    }
    int n = p->f.has_width && (size_t)p->width > width ? p->width - (int)width : 0;
    padding(p, p->f.minus ? 0 : n);
    for (size_t i = 0; i < s.n; i++) {
        buf_puts(p->b, i > 0 && p->f.space ? " " : "");
        buf_puts(p->b, p->f.sharp && (i == 0 || p->f.space) ? prefix : "");
        buf_putc(p->b, hex[(unsigned char)s.p[i] >> 4]);
        buf_putc(p->b, hex[s.p[i] & 15]);
    }
    padding(p, p->f.minus ? n : 0);
}

/* Format strings */

struct format {
    struct printer p;
    struct str text;
    size_t i;
    const struct value *args;
    size_t n, next; /* next: the argument that comes next */
    bool is_reordered, is_index_good, is_behind_index;
};

/* Decimal digits from *i on; false if there are none, or the number is absurd (then *i is `end`).
 */
static bool parse_number(struct str s, size_t *i, size_t end, int *out) {
    bool is_number = false;
    *out = 0;
    if (*i >= end) {
        *i = end;
        return false;
    }
    for (; *i < end && s.p[*i] >= '0' && s.p[*i] <= '9'; (*i)++) {
        if (*out > FMT_NUMBER_MAX) {
            *out = 0;
            *i = end;
            return false;
        }
        *out = *out * 10 + (s.p[*i] - '0');
        is_number = true;
    }
    return is_number;
}

/* "[3]": the argument to take next. */
static void argument_index(struct format *f) {
    f->is_behind_index = false;
    if (f->i >= f->text.n || f->text.p[f->i] != '[') {
        return;
    }
    f->is_reordered = true;
    struct str rest = str_sub(f->text, f->i, f->text.n);
    ptrdiff_t close = rest.n < 3 ? -1 : str_find(rest, ']', 1);
    if (close < 0) {
        f->is_index_good = false;
        f->i++;
        return;
    }
    size_t at = 1;
    int index;
    bool is_ok = parse_number(rest, &at, (size_t)close, &index) && at == (size_t)close;
    f->i += (size_t)close + 1;
    if (is_ok && index >= 1 && (size_t)index <= f->n) {
        f->next = (size_t)index - 1;
        f->is_behind_index = true;
    } else {
        f->is_index_good = false;
        f->is_behind_index = is_ok;
    }
}

/* A width or precision given as argument ("*"). */
static bool number_of_argument(struct format *f, int *out) {
    *out = 0;
    if (f->next >= f->n) {
        return false;
    }
    const struct value *v = &f->args[f->next++];
    int64_t i = FMT_NUMBER_MAX + 1;
    if (value_is_kind(v, VK_INT)) {
        i = v->i;
    } else if (value_is_kind(v, VK_UINT) && v->u <= FMT_NUMBER_MAX) {
        i = (int64_t)v->u;
    }
    if (i > FMT_NUMBER_MAX || i < -FMT_NUMBER_MAX) {
        return false;
    }
    *out = (int)i;
    return true;
}

static void parse_flags(struct format *f) {
    f->p.f = (struct fmt_flags){0};
    for (; f->i < f->text.n; f->i++) {
        switch (f->text.p[f->i]) {
        case '#':
            f->p.f.sharp = true;
            break;
        case '0':
            f->p.f.zero = !f->p.f.minus;
            break;
        case '+':
            f->p.f.plus = true;
            break;
        case '-':
            f->p.f.minus = true;
            f->p.f.zero = false;
            break;
        case ' ':
            f->p.f.space = true;
            break;
        default:
            return;
        }
    }
}

static bool take_star(struct format *f) {
    bool is_star = f->i < f->text.n && f->text.p[f->i] == '*';
    f->i += is_star;
    return is_star;
}

static void parse_width(struct format *f) {
    argument_index(f);
    if (!take_star(f)) {
        f->p.f.has_width = parse_number(f->text, &f->i, f->text.n, &f->p.width);
        if (f->is_behind_index && f->p.f.has_width) {
            f->is_index_good = false;
        }
        return;
    }
    f->p.f.has_width = number_of_argument(f, &f->p.width);
    if (!f->p.f.has_width) {
        buf_puts(f->p.b, "%!(BADWIDTH)");
    }
    if (f->p.width < 0) {
        f->p.width = -f->p.width;
        f->p.f.minus = true;
        f->p.f.zero = false;
    }
    f->is_behind_index = false;
}

static void parse_precision(struct format *f) {
    if (f->i + 1 >= f->text.n || f->text.p[f->i] != '.') {
        return;
    }
    f->i++;
    if (f->is_behind_index) {
        f->is_index_good = false;
    }
    argument_index(f);
    if (!take_star(f)) {
        (void)parse_number(f->text, &f->i, f->text.n, &f->p.precision);
        f->p.f.has_precision = true;
        return;
    }
    f->p.f.has_precision = number_of_argument(f, &f->p.precision);
    if (f->p.precision < 0) {
        f->p.precision = 0;
        f->p.f.has_precision = false;
    }
    if (!f->p.f.has_precision) {
        buf_puts(f->p.b, "%!(BADPREC)");
    }
    f->is_behind_index = false;
}

static void wrong_verb(struct format *f, uint32_t verb, const char *why) {
    buf_puts(f->p.b, "%!");
    rune_add(f->p.b, verb);
    buf_puts(f->p.b, why);
}

/* Behind a percent sign. */
static void one_verb(struct format *f) {
    f->is_index_good = true;
    f->p.width = f->p.precision = 0;
    parse_flags(f);
    bool is_simple =
        f->i < f->text.n && f->text.p[f->i] >= 'a' && f->text.p[f->i] <= 'z' && f->next < f->n;
    if (!is_simple) {
        parse_width(f);
        parse_precision(f);
        if (!f->is_behind_index) {
            argument_index(f);
        }
    }
    if (f->i >= f->text.n) {
        buf_puts(f->p.b, "%!(NOVERB)");
        return;
    }
    size_t width;
    uint32_t verb = rune_at(f->text, f->i, &width);
    f->i += width;
    if (verb == '%') {
        buf_putc(f->p.b, '%');
    } else if (!f->is_index_good) {
        wrong_verb(f, verb, "(BADINDEX)");
    } else if (f->next >= f->n) {
        wrong_verb(f, verb, "(MISSING)");
    } else {
        if (verb == 'v') {
            f->p.f.sharp_v = f->p.f.sharp;
            f->p.f.plus_v = f->p.f.plus;
            f->p.f.sharp = f->p.f.plus = false;
        }
        print_arg(&f->p, &f->args[f->next++], verb);
    }
}

static void extra_arguments(struct format *f) {
    f->p.f = (struct fmt_flags){0};
    buf_puts(f->p.b, "%!(EXTRA ");
    for (size_t i = f->next; i < f->n; i++) {
        buf_puts(f->p.b, i > f->next ? ", " : "");
        if (f->args[i].type) {
            buf_puts(f->p.b, f->args[i].type->name);
            buf_putc(f->p.b, '=');
        }
        print_arg(&f->p, &f->args[i], 'v');
    }
    buf_putc(f->p.b, ')');
}

void tmpl_printf(struct buf *out, struct str format, const struct value *args, size_t n) {
    struct format f = {.p = {.b = out}, .text = format, .args = args, .n = n};
    while (f.i < format.n) {
        ptrdiff_t percent = str_find(format, '%', f.i);
        size_t end = percent < 0 ? format.n : (size_t)percent;
        buf_add(out, format.p + f.i, end - f.i);
        f.i = end;
        if (f.i < format.n) {
            f.i++;
            one_verb(&f);
        }
    }
    if (!f.is_reordered && f.next < n) {
        extra_arguments(&f);
    }
}
