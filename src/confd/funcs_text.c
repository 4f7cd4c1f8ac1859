/* Functions on strings and numbers, with Go's rules and Go's words for errors. */
#include "confd/funcs.h"

#include "base/hash.h"
#include "confd/gotext.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <wctype.h>

#define ARG(i) value_to_str(&args[i])

static int too_big(struct err *e, size_t max) {
    return err_set(e, ERR_TOO_BIG, "the result is longer than %zu bytes", max);
}

/* ---- paths ---- */

static int fn_base(FUNC_ARGS) {
    struct str s = ARG(0);
    if (s.n == 0) {
        *out = value_str(STR("."));
        return 0;
    }
    while (s.n > 0 && s.p[s.n - 1] == '/') {
        s.n--;
    }
    size_t i = s.n;
    while (i > 0 && s.p[i - 1] != '/') {
        i--;
    }
    s = str_sub(s, i, s.n);
    *out = value_str(s.n ? s : STR("/"));
    return 0;
}

/* Go's path.Clean: relative paths stay relative. */
static struct str path_clean(struct arena *a, struct str path) {
    bool is_rooted = path.n && path.p[0] == '/';
    struct str rest = path;
    struct str *part = arena_array(a, struct str, path.n + 1);
    size_t n = 0;
    while (rest.p && path.n) {
        struct str p = str_cut(&rest, '/');
        if (p.n == 0 || str_is(p, ".")) {
            continue;
        }
        if (!str_is(p, "..")) {
            part[n++] = p;
        } else if (n > 0 && !str_is(part[n - 1], "..")) {
            n--;
        } else if (!is_rooted) {
            part[n++] = p;
        }
    }
    struct buf b = BUF_INIT(path.n + 2);
    for (size_t i = 0; i < n; i++) {
        buf_puts(&b, i || is_rooted ? "/" : "");
        buf_str(&b, part[i]);
    }
    struct str out = b.n ? arena_dup(a, buf_view(&b)) : is_rooted ? STR("/") : STR(".");
    buf_fini(&b);
    return out;
}

static int fn_dir(FUNC_ARGS) {
    struct str s = ARG(0);
    while (s.n > 0 && s.p[s.n - 1] != '/') {
        s.n--;
    }
    *out = value_str(path_clean(c->arena, s));
    return 0;
}

/* ---- strings ---- */

static ptrdiff_t find(struct str s, struct str needle, size_t from) {
    const char *at = from <= s.n ? memmem(s.p + from, s.n - from, needle.p, needle.n) : NULL;
    return at ? at - s.p : -1;
}

static size_t rune_len(struct str s, size_t i) {
    size_t n = 0;
    (void)rune_at(s, i, &n);
    return n;
}

static int fn_split(FUNC_ARGS) {
    struct str s = ARG(0), sep = ARG(1);
    VEC(struct str) v = {0};
    for (size_t i = 0; sep.n == 0 && i < s.n;) {
        size_t len = rune_len(s, i);
        vec_push(&v, str_sub(s, i, i + len));
        i += len;
    }
    for (size_t i = 0; sep.n;) {
        ptrdiff_t at = find(s, sep, i);
        vec_push(&v, str_sub(s, i, at < 0 ? s.n : (size_t)at));
        if (at < 0) {
            break;
        }
        i = (size_t)at + sep.n;
    }
    *out = value_strings(c->arena, v.p, v.n);
    vec_fini(&v);
    return 0;
}

static int finish(const struct tmpl_call *c, struct buf *b, struct value *out, struct err *e) {
    int r = b->overflow ? too_big(e, c->text->max) : 0;
    if (r == 0) {
        *out = value_str(arena_dup(c->arena, buf_view(b)));
    }
    buf_fini(b);
    return r;
}

static int fn_join(FUNC_ARGS) {
    struct buf b = BUF_INIT(c->text->max);
    for (size_t i = 0; i < value_list_n(&args[0]); i++) {
        struct value v = value_list_get(&args[0], i);
        if (i) {
            buf_str(&b, ARG(1));
        }
        buf_str(&b, value_to_str(&v));
    }
    return finish(c, &b, out, e);
}

static int fn_replace(FUNC_ARGS) {
    struct str s = ARG(0), old = ARG(1), with = ARG(2);
    int64_t left = args[3].i;
    struct buf b = BUF_INIT(c->text->max);
    size_t i = 0;
    if (str_eq(old, with)) {
        left = 0;
    }
    while (left != 0 && !b.overflow) {
        if (old.n) {
            ptrdiff_t at = find(s, old, i);
            if (at < 0) {
                break;
            }
            buf_add(&b, s.p + i, (size_t)at - i);
            buf_str(&b, with);
            i = (size_t)at + old.n;
        } else { /* before each character, and at the end */
            buf_str(&b, with);
            if (i >= s.n) {
                break;
            }
            size_t len = rune_len(s, i);
            buf_add(&b, s.p + i, len);
            i += len;
        }
        left--;
    }
    buf_add(&b, s.p + i, s.n - i);
    return finish(c, &b, out, e);
}

static int fn_contains(FUNC_ARGS) {
    *out = value_bool(find(ARG(0), ARG(1), 0) >= 0);
    return 0;
}

static int fn_has_suffix(FUNC_ARGS) {
    *out = value_bool(str_ends(ARG(0), ARG(1)));
    return 0;
}

static int fn_trim_suffix(FUNC_ARGS) {
    struct str s = ARG(0), x = ARG(1);
    *out = value_str(str_ends(s, x) ? str_sub(s, 0, s.n - x.n) : s);
    return 0;
}

/* Every character by Unicode's simple mapping; bytes that are none become U+FFFD, as in Go. */
static int change_case(const struct tmpl_call *c, struct str s, bool to_upper, struct value *out,
                       struct err *e) {
    static locale_t utf8;
    if (!utf8) {
        utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL); /* kept: for the process' life */
    }
    struct buf b = BUF_INIT(c->text->max);
    for (size_t i = 0; i < s.n;) {
        size_t len = 0;
        uint32_t ch = rune_at(s, i, &len);
        i += len;
        if (ch < 0x80) {
            bool is_other = to_upper ? ch >= 'a' && ch <= 'z' : ch >= 'A' && ch <= 'Z';
            ch = is_other ? ch ^ 0x20 : ch;
        } else if (utf8) {
            ch = (uint32_t)(to_upper ? towupper_l(ch, utf8) : towlower_l(ch, utf8));
        }
        rune_add(&b, ch);
    }
    return finish(c, &b, out, e);
}

static int fn_to_upper(FUNC_ARGS) {
    return change_case(c, ARG(0), true, out, e);
}

static int fn_to_lower(FUNC_ARGS) {
    return change_case(c, ARG(0), false, out, e);
}

/* ---- numbers ---- */

static int parse_error(struct err *e, const char *func, struct str s, const char *why) {
    struct buf b = BUF_INIT(512);
    tmpl_quote(&b, s);
    int r = err_set(e, ERR_INVALID, "strconv.%s: parsing %s: %s", func, buf_cstr(&b), why);
    buf_fini(&b);
    return r;
}

static int fn_parse_bool(FUNC_ARGS) {
    static const char *const WORDS[] = {"1", "t", "T", "true",  "TRUE",  "True",
                                        "0", "f", "F", "false", "FALSE", "False"};
    for (size_t i = 0; i < ARRAY_LEN(WORDS); i++) {
        if (str_is(ARG(0), WORDS[i])) {
            *out = value_bool(i < ARRAY_LEN(WORDS) / 2);
            return 0;
        }
    }
    return parse_error(e, "ParseBool", ARG(0), "invalid syntax");
}

static int fn_atoi(FUNC_ARGS) {
    struct str s = ARG(0);
    size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+') ? 1 : 0;
    bool is_negative = i && s.p[0] == '-', is_big = false;
    uint64_t v = 0;
    if (i == s.n) {
        return parse_error(e, "Atoi", s, "invalid syntax");
    }
    for (; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') {
            return parse_error(e, "Atoi", s, "invalid syntax");
        }
        is_big = is_big || __builtin_mul_overflow(v, 10U, &v) ||
                 __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v);
    }
    if (is_big || v > (uint64_t)INT64_MAX + is_negative) {
        return parse_error(e, "Atoi", s, "value out of range");
    }
    *out = value_int(is_negative ? (int64_t)(0 - v) : (int64_t)v);
    return 0;
}

/* Go's int arithmetic wraps round. */
static int fn_add(FUNC_ARGS) {
    *out = value_int((int64_t)((uint64_t)args[0].i + (uint64_t)args[1].i));
    return 0;
}

static int fn_sub(FUNC_ARGS) {
    *out = value_int((int64_t)((uint64_t)args[0].i - (uint64_t)args[1].i));
    return 0;
}

static int fn_mul(FUNC_ARGS) {
    *out = value_int((int64_t)((uint64_t)args[0].i * (uint64_t)args[1].i));
    return 0;
}

static int by_zero(struct err *e) {
    return err_set(e, ERR_INVALID, "runtime error: integer divide by zero");
}

static int fn_div(FUNC_ARGS) {
    if (args[1].i == 0) {
        return by_zero(e);
    }
    *out = args[1].i == -1 ? value_int((int64_t)(0 - (uint64_t)args[0].i))
                           : value_int(args[0].i / args[1].i);
    return 0;
}

static int fn_mod(FUNC_ARGS) {
    if (args[1].i == 0) {
        return by_zero(e);
    }
    *out = value_int(args[1].i == -1 ? 0 : args[0].i % args[1].i);
    return 0;
}

/* ---- base64, environment, files, hashes ---- */

static int fn_base64_encode(FUNC_ARGS) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct str s = ARG(0);
    struct buf b = BUF_INIT(c->text->max);
    for (size_t i = 0; i < s.n; i += 3) {
        size_t left = s.n - i;
        uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16;
        v |= left > 1 ? (uint32_t)(unsigned char)s.p[i + 1] << 8 : 0;
        v |= left > 2 ? (unsigned char)s.p[i + 2] : 0;
        buf_putc(&b, DIGITS[v >> 18]);
        buf_putc(&b, DIGITS[v >> 12 & 63]);
        buf_putc(&b, left > 1 ? DIGITS[v >> 6 & 63] : '=');
        buf_putc(&b, left > 2 ? DIGITS[v & 63] : '=');
    }
    return finish(c, &b, out, e);
}

static int digit64(char ch) {
    return ch >= 'A' && ch <= 'Z'   ? ch - 'A'
           : ch >= 'a' && ch <= 'z' ? ch - 'a' + 26
           : ch >= '0' && ch <= '9' ? ch - '0' + 52
           : ch == '+'              ? 62
           : ch == '/'              ? 63
                                    : -1;
}

static int fn_base64_decode(FUNC_ARGS) {
    struct str s = ARG(0);
    struct buf b = BUF_INIT(c->text->max);
    size_t bad = SIZE_MAX, n_digits = 0, i = 0;
    uint32_t v = 0;
    for (; i < s.n && bad == SIZE_MAX; i++) {
        int d = digit64(s.p[i]);
        if (s.p[i] == '\r' || s.p[i] == '\n') {
            continue;
        }
        if (s.p[i] == '=' && n_digits >= 2) {
            break;
        }
        if (d < 0) {
            bad = i;
            break;
        }
        v = v << 6 | (uint32_t)d;
        if (++n_digits == 4) {
            buf_add(&b, (char[]){(char)(v >> 16), (char)(v >> 8), (char)v}, 3);
            n_digits = 0;
            v = 0;
        }
    }
    if (bad == SIZE_MAX && n_digits) {
        size_t need = 4 - n_digits, at = i;
        for (; i < s.n && need; i++) {
            if (s.p[i] == '=') {
                need--;
            } else if (s.p[i] != '\r' && s.p[i] != '\n') {
                break;
            }
        }
        while (!need && i < s.n && (s.p[i] == '\r' || s.p[i] == '\n')) {
            i++;
        }
        /* Go points at the digits of an unfinished group, else at what follows the padding. */
        bad = need && at == s.n ? s.n - n_digits : need || i < s.n ? i : SIZE_MAX;
        v <<= 6 * (4 - n_digits);
        buf_add(&b, (char[]){(char)(v >> 16), (char)(v >> 8)}, n_digits - 1);
    }
    if (bad != SIZE_MAX) {
        buf_fini(&b);
        return err_set(e, ERR_INVALID, "illegal base64 data at input byte %zu", bad);
    }
    return finish(c, &b, out, e);
}

static int fn_getenv(FUNC_ARGS) {
    struct str name = ARG(0);
    const char *v = memchr(name.p, '\0', name.n) ? NULL : getenv(arena_cstr(c->arena, name));
    *out = v && v[0] ? value_str(str_c(v)) : n > 1 ? args[1] : value_str(STR(""));
    return 0;
}

static int fn_file_exists(FUNC_ARGS) {
    struct stat st;
    ((struct funcs *)c->ctx)->saw_world = true;
    *out = value_bool(!memchr(ARG(0).p, '\0', ARG(0).n) &&
                      stat(arena_cstr(c->arena, ARG(0)), &st) == 0);
    return 0;
}

static int fn_hash_to_ipv4(FUNC_ARGS) {
    uint8_t h[32];
    sha256(ARG(0).p, ARG(0).n, h);
    *out = value_str(
        arena_printf(c->arena, "%u.%u.%u.%u", h[0] > 223 ? h[0] - 32U : h[0], h[1], h[2], h[3]));
    return 0;
}

#define S &VT_STRING
#define I &VT_INT
static const struct tmpl_func table[] = {
    {"base", fn_base, 1, false, {S}},
    {"dir", fn_dir, 1, false, {S}},
    {"split", fn_split, 2, false, {S, S}},
    {"join", fn_join, 2, false, {&VT_STRINGS, S}},
    {"replace", fn_replace, 4, false, {S, S, S, I}},
    {"contains", fn_contains, 2, false, {S, S}},
    {"hasSuffix", fn_has_suffix, 2, false, {S, S}},
    {"trimSuffix", fn_trim_suffix, 2, false, {S, S}},
    {"toUpper", fn_to_upper, 1, false, {S}},
    {"toLower", fn_to_lower, 1, false, {S}},
    {"parseBool", fn_parse_bool, 1, false, {S}},
    {"atoi", fn_atoi, 1, false, {S}},
    {"add", fn_add, 2, false, {I, I}},
    {"sub", fn_sub, 2, false, {I, I}},
    {"mul", fn_mul, 2, false, {I, I}},
    {"div", fn_div, 2, false, {I, I}},
    {"mod", fn_mod, 2, false, {I, I}},
    {"base64Encode", fn_base64_encode, 1, false, {S}},
    {"base64Decode", fn_base64_decode, 1, false, {S}},
    {"getenv", fn_getenv, 2, true, {S, S}},
    {"fileExists", fn_file_exists, 1, false, {S}},
    {"hashToIPv4", fn_hash_to_ipv4, 1, false, {S}},
};
const struct func_part funcs_text = {table, ARRAY_LEN(table)};
