/* Go's path.Match: *, ? and [class] that never match a slash, and backslash. */
#include "confd/funcs.h"

#include "confd/gotext.h"

static uint32_t char_at(struct str s, size_t *i) {
    size_t n = 0;
    uint32_t c = rune_at(s, *i, &n);
    *i += n;
    return c;
}

/* A possibly escaped character of a class. False: malformed. */
static bool class_char(struct str p, size_t *i, uint32_t *out) {
    if (*i >= p.n || p.p[*i] == '-' || p.p[*i] == ']') {
        return false;
    }
    if (p.p[*i] == '\\' && ++*i >= p.n) {
        return false;
    }
    *out = char_at(p, i);
    return *i < p.n; /* the class must still be closed */
}

/* [class] at p[*i]: 1, 0, or -1 malformed; *i is moved behind it. */
static int match_class(struct str p, size_t *i, uint32_t c) {
    (*i)++;
    bool is_negated = *i < p.n && p.p[*i] == '^', is_match = false;
    *i += is_negated;
    for (size_t n_ranges = 0;; n_ranges++) {
        if (*i < p.n && p.p[*i] == ']' && n_ranges > 0) {
            (*i)++;
            return is_match != is_negated;
        }
        uint32_t lo = 0, hi = 0;
        if (!class_char(p, i, &lo)) {
            return -1;
        }
        hi = lo;
        if (p.p[*i] == '-') {
            (*i)++;
            if (!class_char(p, i, &hi)) {
                return -1;
            }
        }
        is_match = is_match || (lo <= c && c <= hi);
    }
}

/* One step of the pattern (no star) against s at *si: 1, 0, -1. At the end of s the pattern is only
 * checked. */
static int match_one(struct str p, size_t *pi, struct str s, size_t *si) {
    bool is_end = *si >= s.n;
    if (p.p[*pi] == '[') {
        size_t at = *si;
        uint32_t c = is_end ? 0 : char_at(s, &at);
        int r = match_class(p, pi, c);
        bool is_slash = !is_end && s.p[*si] == '/';
        *si = at;
        return r < 0 ? r : r && !is_end && !is_slash;
    }
    if (p.p[*pi] == '?') {
        (*pi)++;
        if (is_end || s.p[*si] == '/') {
            return 0;
        }
        (void)char_at(s, si);
        return 1;
    }
    if (p.p[*pi] == '\\' && ++*pi >= p.n) {
        return -1;
    }
    char want = p.p[(*pi)++];
    return !is_end && s.p[(*si)++] == want;
}

/* Go also reports a malformed rest of a pattern whose beginning does not match. */
static bool is_malformed(struct str p, size_t i) {
    struct str none = STR("");
    while (i < p.n) {
        size_t si = 0;
        if (p.p[i] == '*') {
            i++;
        } else if (match_one(p, &i, none, &si) < 0) {
            return true;
        }
    }
    return false;
}

int glob_match(struct str p, struct str s) {
    size_t pi = 0, si = 0, star_p = SIZE_MAX, star_s = 0;
    while (pi < p.n || si < s.n) {
        if (pi < p.n && p.p[pi] == '*') {
            star_p = ++pi;
            star_s = si;
            continue;
        }
        if (pi < p.n && si < s.n) {
            size_t try_p = pi, try_s = si;
            int r = match_one(p, &try_p, s, &try_s);
            if (r < 0) {
                return -1;
            }
            if (r) {
                pi = try_p;
                si = try_s;
                continue;
            }
        }
        if (star_p == SIZE_MAX || star_s >= s.n || s.p[star_s] == '/') {
            return is_malformed(p, pi) ? -1 : 0;
        }
        star_s += 1;
        pi = star_p;
        si = star_s;
    }
    return 1;
}
