/* Floating-point numbers as Go prints them. Digits come from the C library, which rounds exactly.
 */
#include "confd/gotext.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* 0.DIGITS × 10^point, without zeros at the end. Zero has no digits. */
struct digits {
    char d[800];
    int n, point;
};

/* The digits of "d.ddde±xx". */
static void digits_of_text(struct digits *out, const char *text) {
    out->n = 0;
    for (; *text && *text != 'e'; text++) {
        if (*text >= '0' && *text <= '9' && out->n < (int)sizeof(out->d)) {
            out->d[out->n++] = *text;
        }
    }
    out->point = *text == 'e' ? (int)strtol(text + 1, NULL, 10) + 1 : 1;
    while (out->n > 0 && out->d[out->n - 1] == '0') {
        out->n--;
    }
    if (out->n == 0) {
        out->point = 0;
    }
}

/* The first `count` digits of f >= 0, rounded. */
static void digits_rounded(struct digits *out, double f, int count) {
    char text[820];
    /* A double has at most 767 significant digits. */
    (void)snprintf(text, sizeof(text), "%.*e", (count > 780 ? 780 : count) - 1, f);
    digits_of_text(out, text);
}

/* As few digits as tell f from its neighbours. */
static void digits_shortest(struct digits *out, double f) {
    char text[40];
    /* Below the normal numbers fewer than 15 digits may do; else 15 digits, where they are enough,
     * end in zeros if fewer are. */
    for (int count = f < 2.3e-308 ? 1 : 15; count <= 17; count++) {
        (void)snprintf(text, sizeof(text), "%.*e", count - 1, f);
        if (strtod(text, NULL) == f) {
            break;
        }
    }
    digits_of_text(out, text);
}

static void add_digits(struct buf *b, const struct digits *d, int from, int to) {
    if (!buf_reserve(b, (size_t)(to > from ? to - from : 0))) {
        return;
    }
    for (int i = from; i < to; i++) {
        buf_putc(b, i >= 0 && i < d->n ? d->d[i] : '0');
    }
}

static void format_e(struct buf *b, const struct digits *d, int precision, char e) {
    add_digits(b, d, 0, 1);
    if (precision > 0) {
        buf_putc(b, '.');
        add_digits(b, d, 1, 1 + precision);
    }
    int exponent = d->n ? d->point - 1 : 0;
    buf_printf(b, "%c%c%02d", e, exponent < 0 ? '-' : '+', abs(exponent));
}

static void format_f(struct buf *b, const struct digits *d, int precision) {
    if (d->point > 0) {
        add_digits(b, d, 0, d->point);
    } else {
        buf_putc(b, '0');
    }
    if (precision > 0) {
        buf_putc(b, '.');
        add_digits(b, d, d->point, d->point + precision);
    }
}

/* %g: %e for exponents below -4 and from the precision (6 if as short as possible) on. */
static void format_g(struct buf *b, double f, char format, int precision) {
    struct digits d;
    int most = 6;
    if (precision < 0) {
        digits_shortest(&d, f);
        precision = d.n;
    } else {
        precision = precision ? precision : 1;
        digits_rounded(&d, f, precision);
        most = precision > d.n && d.n >= d.point ? d.n : precision;
    }
    int exponent = d.point - 1;
    if (exponent < -4 || exponent >= most) {
        precision = precision > d.n ? d.n : precision;
        format_e(b, &d, precision - 1, (char)(format + 'e' - 'g'));
    } else {
        precision = precision > d.point ? d.n : precision;
        format_f(b, &d, precision > d.point ? precision - d.point : 0);
    }
}

#define MANTISSA_BITS 52

static void split(double f, uint64_t *mantissa, int *exponent) {
    uint64_t bits;
    memcpy(&bits, &f, sizeof(bits));
    *mantissa = bits & ((1ULL << MANTISSA_BITS) - 1);
    *exponent = (int)(bits >> MANTISSA_BITS & 0x7FF);
    if (*exponent == 0) {
        *exponent = 1;
    } else {
        *mantissa |= 1ULL << MANTISSA_BITS;
    }
    *exponent -= 1023;
}

static void format_b(struct buf *b, double f) {
    uint64_t mantissa;
    int exponent;
    split(f, &mantissa, &exponent);
    buf_printf(b, "%llup%+d", (unsigned long long)mantissa, exponent - MANTISSA_BITS);
}

/* Hexadecimal: 0x1.8p+01. */
static void format_x(struct buf *b, double f, char format, int precision) {
    const char *hex = format == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    uint64_t mantissa;
    int exponent;
    split(f, &mantissa, &exponent);
    if (mantissa == 0) {
        exponent = 0;
    }
    mantissa <<= 60 - MANTISSA_BITS;
    while (mantissa && !(mantissa & 1ULL << 60)) {
        mantissa <<= 1;
        exponent--;
    }
    if (precision >= 0 && precision < 15) {
        unsigned shift = (unsigned)precision * 4;
        uint64_t extra = mantissa << shift & ((1ULL << 60) - 1);
        mantissa >>= 60 - shift;
        if ((extra | (mantissa & 1)) > 1ULL << 59) {
            mantissa++;
        }
        mantissa <<= 60 - shift;
        if (mantissa & 1ULL << 61) {
            mantissa >>= 1;
            exponent++;
        }
    }
    buf_printf(b, "0%c%c", format, (char)('0' + (mantissa >> 60 & 1)));
    mantissa <<= 4;
    if (precision > 0 || (precision < 0 && mantissa)) {
        buf_putc(b, '.');
    }
    for (int i = 0; (precision < 0 ? mantissa != 0 : i < precision) && !b->overflow; i++) {
        buf_putc(b, hex[mantissa >> 60 & 15]);
        mantissa <<= 4;
    }
    buf_printf(b, "%c%c%02d", format == 'X' ? 'P' : 'p', exponent < 0 ? '-' : '+', abs(exponent));
}

void go_format_float(struct buf *b, double f, char format, int precision) {
    if (isnan(f)) {
        buf_puts(b, "NaN");
        return;
    }
    if (isinf(f)) {
        buf_puts(b, f > 0 ? "+Inf" : "-Inf");
        return;
    }
    if (signbit(f)) {
        buf_putc(b, '-');
        f = -f;
    }
    switch (format) {
    case 'b':
        format_b(b, f);
        break;
    case 'x':
    case 'X':
        format_x(b, f, format, precision);
        break;
    case 'g':
    case 'G':
        format_g(b, f, format, precision);
        break;
    case 'E':
        buf_printf(b, "%.*E", precision, f);
        break;
    case 'e':
        buf_printf(b, "%.*e", precision, f);
        break;
    default:
        buf_printf(b, "%.*f", precision, f);
    }
}
