/* Characters and numbers of the document readers: strict UTF-8, words for what an error found,
 * numbers compared exactly by their decimal text. See jtext.h. */
#include "base/jtext.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

size_t utf8_len(const unsigned char *p, size_t n) {
    if (p[0] < 0x80) {
        return 1;
    }
    size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n < len) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) {
        return 0;
    }
    return len;
}

const char *text_found(struct str text, size_t pos, char out[FOUND_MAX]) {
    enum { WORD_MAX = 24 };
    if (pos >= text.n) {
        (void)snprintf(out, FOUND_MAX, "the end of the text");
        return out;
    }
    const unsigned char *p = (const unsigned char *)text.p + pos;
    size_t len = utf8_len(p, text.n - pos);
    if (*p == '\n' || *p == '\r') {
        (void)snprintf(out, FOUND_MAX, "the end of the line");
    } else if (*p == '\t') {
        (void)snprintf(out, FOUND_MAX, "a tab");
    } else if (len == 0 || *p < 0x20 || *p == 0x7f) {
        (void)snprintf(out, FOUND_MAX, "byte 0x%02x", *p);
    } else {
        /* A word says more than its first letter. */
        size_t word = 0;
        while (word < WORD_MAX && pos + word < text.n && isalnum(p[word])) {
            word++;
        }
        (void)snprintf(out, FOUND_MAX, "'%.*s'", (int)(word > len ? word : len), (const char *)p);
    }
    return out;
}

int num_to_double(struct str s, double *out) {
    char tmp[NUM_TEXT_MAX + 1];
    if (s.n > NUM_TEXT_MAX) {
        return -ERANGE;
    }
    memcpy(tmp, s.p, s.n);
    tmp[s.n] = '\0';
    double v = strtod(tmp, NULL);
    if (!isfinite(v)) {
        return -ERANGE;
    }
    *out = v;
    return 0;
}

/* A number as sign, digits and the power of ten of the first digit: 0.0120 is 12 at -2. Digits are
 * those of the text, without zeros at either end; none is zero. */
struct decimal {
    bool neg;
    size_t n;
    int64_t power;
    char digits[NUM_TEXT_MAX];
};

static void decimal_of(struct str s, struct decimal *d) {
    enum { POWER_MAX = 1000000000 }; /* beyond, only the order matters: doubles end at 308 */
    int64_t point = 0;
    bool after_point = false;
    size_t i = 0;
    d->neg = s.n && s.p[0] == '-';
    d->n = 0;
    for (i = d->neg; i < s.n && s.p[i] != 'e' && s.p[i] != 'E'; i++) {
        if (s.p[i] == '.') {
            after_point = true;
            continue;
        }
        if (d->n || s.p[i] != '0') {
            d->digits[d->n++] = s.p[i];
            point += !after_point;
        } else {
            point -= after_point;
        }
    }
    while (d->n && d->digits[d->n - 1] == '0') {
        d->n--;
    }
    int64_t exp = 0;
    if (i < s.n) {
        i++;
        bool minus = i < s.n && s.p[i] == '-';
        i += minus || (i < s.n && s.p[i] == '+');
        for (; i < s.n && exp < POWER_MAX; i++) {
            exp = exp * 10 + (s.p[i] - '0');
        }
        exp = minus ? -exp : exp;
    }
    d->power = point + exp;
}

enum { OWN_TEXT_MAX = 32 };

/* The text of a number; nodes made by hand may have none, then it is written to own. */
static struct str num_text(const struct jnode *n, char own[OWN_TEXT_MAX]) {
    if (n->type == J_INT) {
        if (n->i == 0 && str_is(n->s, "-0")) {
            return n->s; /* the only whole number with two spellings */
        }
        (void)snprintf(own, OWN_TEXT_MAX, "%lld", (long long)n->i);
        return str_c(own);
    }
    if (n->s.n && n->s.n <= NUM_TEXT_MAX) {
        return n->s;
    }
    (void)snprintf(own, OWN_TEXT_MAX, "%.17g", n->f);
    return isfinite(n->f) ? str_c(own) : STR("null");
}

bool num_eq(const struct jnode *a, const struct jnode *b) {
    if (a->type == J_INT && b->type == J_INT) {
        return a->i == b->i;
    }
    char own[2][OWN_TEXT_MAX];
    struct str text[2] = {num_text(a, own[0]), num_text(b, own[1])};
    if (str_eq(text[0], text[1])) {
        return true;
    }
    if (str_is(text[0], "null") || str_is(text[1], "null")) {
        return false;
    }
    struct decimal x;
    struct decimal y;
    decimal_of(text[0], &x);
    decimal_of(text[1], &y);
    if (x.n == 0 || y.n == 0) {
        return x.n == y.n; /* zeros of either sign are one value */
    }
    return x.neg == y.neg && x.power == y.power &&
           str_eq(str_n(x.digits, x.n), str_n(y.digits, y.n));
}

void num_write(struct buf *b, const struct jnode *n) {
    char own[OWN_TEXT_MAX];
    buf_str(b, num_text(n, own));
}
