/* struct str: a view of bytes with a length, passed by value. It owns nothing: the memory belongs
 * to an arena, a buffer or a literal that outlives it. p == NULL is "absent"; n == 0 with p is
 * "empty". */
#pragma once

#include "base/attr.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit) ((struct str){"" lit, sizeof(lit) - 1})
#define STR_NULL ((struct str){NULL, 0})
/* For printf: printf("%.*s", STR_FMT(s)). */
#define STR_FMT(s) (int)(s).n, (s).p ? (s).p : ""

static inline struct str str_c(const char *c) {
    return c ? (struct str){c, strlen(c)} : STR_NULL;
}
static inline struct str str_n(const char *p, size_t n) {
    return (struct str){p, n};
}
static inline bool str_eq(struct str a, struct str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool str_is(struct str a, const char *c) {
    return str_eq(a, str_c(c));
}

/* Bytewise order; shorter first on a tie. Returns <0, 0, >0. */
int str_cmp(struct str a, struct str b);
/* qsort comparator for arrays of struct str. */
int str_cmp_qsort(const void *a, const void *b);
bool str_ieq(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
bool str_contains(struct str s, struct str needle);
/* Index of the first c in s from offset `from`, or -1. */
ptrdiff_t str_find(struct str s, char c, size_t from);
struct str str_sub(struct str s, size_t from, size_t to);
/* Without blanks (space, tab, CR, LF) at both ends. */
struct str str_trim(struct str s);
/* Cuts *rest at the first sep: returns the part before it and leaves the rest; when no sep is left
 * it returns everything and *rest becomes STR_NULL. Loop: while (rest.p) { part = str_cut(&rest,
 * ','); } */
struct str str_cut(struct str *rest, char sep);

/* Decimal, no blanks, no sign for _u64. Returns 0 or -EINVAL / -ERANGE; *out untouched on failure.
 */
MG_NODISCARD int str_to_u64(struct str s, uint64_t *out);
MG_NODISCARD int str_to_i64(struct str s, int64_t *out);
MG_NODISCARD int str_to_double(struct str s, double *out);

/* Bytes that vsnprintf would write, without the zero; ap may be used again. Negative: as vsnprintf.
 */
int str_vprintf_len(const char *fmt, va_list ap) MG_PRINTF(1, 0);
