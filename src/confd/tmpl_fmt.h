/* The printer behind Go's verbs. */
#pragma once

#include "confd/tmpl_int.h"

struct fmt_flags {
    bool has_width, has_precision;
    bool minus, plus, sharp, space, zero;
    bool plus_v, sharp_v; /* %+v, %#v */
};

struct printer {
    struct buf *b;
    struct fmt_flags f;
    int width, precision;
    bool is_erroring; /* String() methods are not asked */
};

/* One operand with a verb (a rune). */
void print_arg(struct printer *p, const struct value *v, uint32_t verb);

/* s, padded to the width. */
void fmt_pad(struct printer *p, struct str s);
/* s cut to the precision. */
struct str fmt_cut(const struct printer *p, struct str s);
void fmt_integer(struct printer *p, uint64_t u, unsigned base, bool is_signed, uint32_t verb,
                 bool is_upper);
void fmt_rune(struct printer *p, uint64_t u);
void fmt_quoted_rune(struct printer *p, uint64_t u);
/* U+0041, U+0041 'A' */
void fmt_unicode(struct printer *p, uint64_t u);
void fmt_float(struct printer *p, double f, char format, int precision);
void fmt_quoted(struct printer *p, struct str s);
void fmt_hex(struct printer *p, struct str s, bool is_upper);
