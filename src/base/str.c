/* Views of bytes: comparison, search, cutting, numbers. See str.h. */
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

void mg_abort(const char *file, int line, const char *what) {
    (void)fprintf(stderr, "margay: %s:%d: impossible: !(%s)\n", file, line, what);
    abort();
}

int str_cmp(struct str a, struct str b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    if (c != 0) {
        return c;
    }
    return (a.n > b.n) - (a.n < b.n);
}

int str_cmp_qsort(const void *a, const void *b) {
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool str_ieq(struct str a, struct str b) {
    if (a.n != b.n) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        if (lower(a.p[i]) != lower(b.p[i])) {
            return false;
        }
    }
    return true;
}

bool str_starts(struct str s, struct str prefix) {
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool str_ends(struct str s, struct str suffix) {
    return s.n >= suffix.n &&
           (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

bool str_contains(struct str s, struct str needle) {
    return needle.n == 0 || (s.n >= needle.n && memmem(s.p, s.n, needle.p, needle.n) != NULL);
}

ptrdiff_t str_find(struct str s, char c, size_t from) {
    if (from >= s.n) {
        return -1;
    }
    const char *q = memchr(s.p + from, c, s.n - from);
    return q ? q - s.p : -1;
}

struct str str_sub(struct str s, size_t from, size_t to) {
    if (to > s.n) {
        to = s.n;
    }
    if (from > to) {
        from = to;
    }
    return s.p ? (struct str){s.p + from, to - from} : s;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct str str_trim(struct str s) {
    while (s.n && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && is_blank(s.p[s.n - 1])) {
        s.n--;
    }
    return s;
}

struct str str_cut(struct str *rest, char sep) {
    struct str all = *rest;
    ptrdiff_t i = str_find(all, sep, 0);
    if (i < 0) {
        *rest = STR_NULL;
        return all;
    }
    *rest = (struct str){all.p + i + 1, all.n - (size_t)i - 1};
    return (struct str){all.p, (size_t)i};
}

int str_to_u64(struct str s, uint64_t *out) {
    uint64_t v = 0;
    if (s.n == 0) {
        return -EINVAL;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') {
            return -EINVAL;
        }
        if (__builtin_mul_overflow(v, 10U, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v)) {
            return -ERANGE;
        }
    }
    *out = v;
    return 0;
}

int str_to_i64(struct str s, int64_t *out) {
    bool neg = s.n && s.p[0] == '-';
    uint64_t u = 0;
    int r = str_to_u64(neg ? str_sub(s, 1, s.n) : s, &u);
    if (r < 0) {
        return r;
    }
    if (u > (uint64_t)INT64_MAX + (neg ? 1 : 0)) {
        return -ERANGE;
    }
    *out = neg ? (int64_t)(0 - u) : (int64_t)u;
    return 0;
}

int str_to_double(struct str s, double *out) {
    char tmp[64];
    if (s.n == 0 || s.n >= sizeof(tmp)) {
        return -EINVAL;
    }
    memcpy(tmp, s.p, s.n);
    tmp[s.n] = '\0';
    char *end = NULL;
    double v = strtod(tmp, &end);
    if (end != tmp + s.n) {
        return -EINVAL;
    }
    *out = v;
    return 0;
}

int str_vprintf_len(const char *fmt, va_list ap) {
    va_list copy;
    va_copy(copy, ap);
    int n = vsnprintf(NULL, 0, fmt, copy);
    va_end(copy);
    return n;
}
