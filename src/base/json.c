/* JSON text to trees and back (RFC 8259), strict: one value, no duplicate keys, no NUL, valid
 * UTF-8, no lone surrogates, nothing behind. Every limit of struct jlimits is checked before memory
 * is used. */
#include "base/jtree.h"

#include "base/hash.h"

#include <math.h>
#include <stdio.h>

const struct jlimits json_limits_default = {
    .max_bytes = 32U << 20,
    .max_nodes = 2000000,
    .max_depth = 64,
    .max_string = 4U << 20,
    .max_aliases = 1000,
};

#define MAP_NAME keyset
#define MAP_KEY struct str
#define MAP_VAL char
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

enum { FEW_KEYS = 16 }; /* up to here a scan is cheaper than a table */

struct reader {
    struct str t;
    size_t pos, line_start, n_nodes, depth;
    uint32_t line; /* newlines stand only between tokens, so blanks count them all */
    const struct jlimits *lim;
    struct arena *a;
    struct err *e;
};

static int fail(const struct reader *r, int code, const char *what) {
    return err_set(r->e, code, "JSON %u:%zu: %s", r->line, r->pos - r->line_start + 1, what);
}

static void skip_blanks(struct reader *r) {
    while (r->pos < r->t.n) {
        char c = r->t.p[r->pos];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') {
            return;
        }
        r->pos++;
        if (c == '\n') {
            r->line++;
            r->line_start = r->pos;
        }
    }
}

static int peek(const struct reader *r) {
    return r->pos < r->t.n ? (unsigned char)r->t.p[r->pos] : -1;
}

static int hex4(struct reader *r, unsigned *out) {
    unsigned v = 0;
    for (int i = 0; i < 4; i++, r->pos++) {
        int c = peek(r);
        int lower = c | 0x20;
        if (c >= '0' && c <= '9') {
            v = v << 4 | (unsigned)(c - '0');
        } else if (lower >= 'a' && lower <= 'f') {
            v = v << 4 | (unsigned)(lower - 'a' + 10);
        } else {
            return fail(r, ERR_INVALID, "need four hex digits after \\u");
        }
    }
    *out = v;
    return 0;
}

static size_t put_utf8(char *o, unsigned c) {
    if (c < 0x80) {
        o[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        o[0] = (char)(0xc0 | c >> 6);
        o[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        o[0] = (char)(0xe0 | c >> 12);
        o[1] = (char)(0x80 | (c >> 6 & 63));
        o[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    o[0] = (char)(0xf0 | c >> 18);
    o[1] = (char)(0x80 | (c >> 12 & 63));
    o[2] = (char)(0x80 | (c >> 6 & 63));
    o[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Length of the valid UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates), or 0. */
static size_t utf8_len(const unsigned char *p, size_t n) {
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

static int read_escape(struct reader *r, char *out, size_t *o) {
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    int c = peek(r);
    const char *at = c > 0 ? strchr(from, c) : NULL;
    if (at) {
        out[(*o)++] = to[at - from];
        r->pos++;
        return 0;
    }
    if (c != 'u') {
        return fail(r, ERR_INVALID,
                    "unknown escape; allowed: \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX");
    }
    r->pos++;
    unsigned u = 0;
    unsigned low = 0;
    int rc = hex4(r, &u);
    if (rc < 0) {
        return rc;
    }
    if (u >= 0xd800 && u < 0xdc00) {
        if (!str_starts(str_sub(r->t, r->pos, r->t.n), STR("\\u"))) {
            return fail(r, ERR_INVALID, "half of a surrogate pair");
        }
        r->pos += 2;
        rc = hex4(r, &low);
        if (rc < 0) {
            return rc;
        }
        if (low < 0xdc00 || low > 0xdfff) {
            return fail(r, ERR_INVALID, "half of a surrogate pair");
        }
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    } else if (u >= 0xdc00 && u <= 0xdfff) {
        return fail(r, ERR_INVALID, "half of a surrogate pair");
    }
    if (u == 0) {
        return fail(r, ERR_INVALID, "NUL in a string");
    }
    *o += put_utf8(out + *o, u);
    return 0;
}

static int read_string(struct reader *r, struct str *out) {
    r->pos++; /* the quote */
    size_t end = r->pos;
    while (end < r->t.n && r->t.p[end] != '"') {
        end += r->t.p[end] == '\\' ? 2 : 1;
    }
    if (end >= r->t.n) {
        return fail(r, ERR_INVALID, "string is never closed");
    }
    if (end - r->pos > r->lim->max_string) {
        return fail(r, ERR_TOO_BIG, "string is longer than the limit");
    }
    /* Escapes only shrink, so the source's length is room enough. */
    char *text = arena_alloc(r->a, end - r->pos + 1);
    size_t o = 0;
    while (r->pos < end) {
        unsigned char c = (unsigned char)r->t.p[r->pos];
        if (c == '\\') {
            r->pos++;
            int rc = read_escape(r, text, &o);
            if (rc < 0) {
                return rc;
            }
            continue;
        }
        if (c < 0x20) {
            return fail(r, ERR_INVALID, "control byte in a string; write it as \\u00XX");
        }
        size_t len = utf8_len((const unsigned char *)r->t.p + r->pos, end - r->pos);
        if (len == 0) {
            return fail(r, ERR_INVALID, "invalid UTF-8");
        }
        memcpy(text + o, r->t.p + r->pos, len);
        o += len;
        r->pos += len;
    }
    r->pos = end + 1;
    *out = (struct str){text, o};
    return 0;
}

static bool digits(struct reader *r) {
    size_t start = r->pos;
    while (peek(r) >= '0' && peek(r) <= '9') {
        r->pos++;
    }
    return r->pos > start;
}

static int read_number(struct reader *r, struct jnode *n) {
    size_t start = r->pos;
    bool whole = true;
    r->pos += peek(r) == '-';
    bool zero = peek(r) == '0';
    size_t first = r->pos;
    if (!digits(r) || (zero && r->pos - first > 1)) {
        return fail(r, ERR_INVALID, "malformed number");
    }
    if (peek(r) == '.') {
        whole = false;
        r->pos++;
        if (!digits(r)) {
            return fail(r, ERR_INVALID, "need digits after the decimal point");
        }
    }
    if (peek(r) == 'e' || peek(r) == 'E') {
        whole = false;
        r->pos++;
        r->pos += peek(r) == '+' || peek(r) == '-';
        if (!digits(r)) {
            return fail(r, ERR_INVALID, "need digits in the exponent");
        }
    }
    n->s = arena_dup(r->a, str_sub(r->t, start, r->pos));
    if (whole && str_to_i64(n->s, &n->i) == 0) {
        n->type = J_INT;
        return 0;
    }
    n->type = J_FLOAT;
    if (n->s.n > 63 || str_to_double(n->s, &n->f) < 0 || !isfinite(n->f)) {
        return fail(r, ERR_INVALID, "number out of range");
    }
    return 0;
}

static int read_value(struct reader *r, struct jnode *n);

static int read_list(struct reader *r, struct jnode *n) {
    r->pos++;
    skip_blanks(r);
    if (peek(r) == ']') {
        r->pos++;
        return 0;
    }
    for (;;) {
        struct jnode *item = jnode_new(r->a, J_NULL);
        int rc = read_value(r, item);
        if (rc < 0) {
            return rc;
        }
        jnode_append(n, item);
        skip_blanks(r);
        int c = peek(r);
        if (c != ',' && c != ']') {
            return fail(r, ERR_INVALID, "need a comma or ] in a list");
        }
        r->pos++;
        if (c == ']') {
            return 0;
        }
    }
}

static bool key_is_new(struct keyset *seen, const struct jnode *map, struct str key) {
    if (map->n < FEW_KEYS) {
        return jnode_get(map, key) == NULL;
    }
    if (seen->n == 0) {
        jnode_each (it, map) {
            (void)keyset_put(seen, it->key, NULL);
        }
    }
    bool is_new = false;
    (void)keyset_put(seen, key, &is_new);
    return is_new;
}

static int read_members(struct reader *r, struct jnode *n, struct keyset *seen) {
    for (;;) {
        skip_blanks(r);
        if (peek(r) != '"') {
            return fail(r, ERR_INVALID, "need a key in double quotes");
        }
        struct jnode *item = jnode_new(r->a, J_NULL);
        struct str key;
        int rc = read_string(r, &key);
        if (rc < 0) {
            return rc;
        }
        if (!key_is_new(seen, n, key)) {
            return fail(r, ERR_INVALID, "this key was given before in the same object");
        }
        skip_blanks(r);
        if (peek(r) != ':') {
            return fail(r, ERR_INVALID, "need a colon after the key");
        }
        r->pos++;
        rc = read_value(r, item);
        if (rc < 0) {
            return rc;
        }
        item->key = key;
        jnode_append(n, item);
        skip_blanks(r);
        int c = peek(r);
        if (c != ',' && c != '}') {
            return fail(r, ERR_INVALID, "need a comma or } in an object");
        }
        r->pos++;
        if (c == '}') {
            return 0;
        }
    }
}

static int read_map(struct reader *r, struct jnode *n) {
    struct keyset seen = {0};
    r->pos++;
    skip_blanks(r);
    if (peek(r) == '}') {
        r->pos++;
        return 0;
    }
    int rc = read_members(r, n, &seen);
    keyset_fini(&seen);
    return rc;
}

static int read_word(struct reader *r, struct jnode *n) {
    static const struct {
        const char *text;
        enum jtype type;
        bool b;
    } words[] = {{"true", J_BOOL, true}, {"false", J_BOOL, false}, {"null", J_NULL, false}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        struct str w = str_c(words[i].text);
        if (str_starts(str_sub(r->t, r->pos, r->t.n), w)) {
            r->pos += w.n;
            n->type = words[i].type;
            n->b = words[i].b;
            return 0;
        }
    }
    return fail(r, ERR_INVALID,
                r->pos < r->t.n ? "need a value" : "text ends where a value must be");
}

static int read_value(struct reader *r, struct jnode *n) {
    skip_blanks(r);
    if (++r->n_nodes > r->lim->max_nodes) {
        return fail(r, ERR_TOO_BIG, "more values than the limit");
    }
    n->line = r->line;
    n->col = (uint32_t)(r->pos - r->line_start + 1);
    int c = peek(r);
    if (c == '"') {
        n->type = J_STR;
        return read_string(r, &n->s);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return read_number(r, n);
    }
    if (c != '{' && c != '[') {
        return read_word(r, n);
    }
    if (r->depth >= r->lim->max_depth) {
        return fail(r, ERR_TOO_BIG, "nested deeper than the limit");
    }
    r->depth++;
    n->type = c == '{' ? J_MAP : J_LIST;
    int rc = c == '{' ? read_map(r, n) : read_list(r, n);
    r->depth--;
    return rc;
}

int json_parse(struct str text, const struct jlimits *lim, struct arena *a, struct jnode **out,
               struct err *e) {
    if (text.n > lim->max_bytes) {
        return err_set(e, ERR_TOO_BIG, "JSON text of %zu bytes, at most %zu", text.n,
                       lim->max_bytes);
    }
    struct reader r = {.t = text, .lim = lim, .a = a, .e = e, .line = 1};
    struct jnode *n = jnode_new(a, J_NULL);
    int rc = read_value(&r, n);
    if (rc < 0) {
        return rc;
    }
    skip_blanks(&r);
    if (r.pos != text.n) {
        return fail(&r, ERR_INVALID, "more text behind the value");
    }
    *out = n;
    return 0;
}

void json_quote(struct buf *b, struct str s) {
    buf_putc(b, '"');
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        size_t len = utf8_len((const unsigned char *)s.p + i, s.n - i);
        if (c == '"' || c == '\\') {
            buf_putc(b, '\\');
            buf_putc(b, (char)c);
        } else if (c == '\n') {
            buf_puts(b, "\\n");
        } else if (c == '\t') {
            buf_puts(b, "\\t");
        } else if (c < 0x20) {
            buf_printf(b, "\\u%04x", c);
        } else if (len == 0) {
            buf_puts(b, "\\ufffd");
            len = 1;
        } else if (len == 3 && memcmp(s.p + i, "\xe2\x80", 2) == 0 &&
                   ((unsigned char)s.p[i + 2] | 1) == 0xa9) {
            /* U+2028 and U+2029 end lines in JavaScript. */
            buf_printf(b, "\\u202%c", (unsigned char)s.p[i + 2] == 0xa8 ? '8' : '9');
        } else {
            buf_add(b, s.p + i, len);
        }
        i += len;
    }
    buf_putc(b, '"');
}

static void new_line(struct buf *b, unsigned indent, unsigned level) {
    if (indent) {
        buf_putc(b, '\n');
        for (unsigned i = 0; i < indent * level; i++) {
            buf_putc(b, ' ');
        }
    }
}

static void write_node(struct buf *b, const struct jnode *n, unsigned indent, unsigned level) {
    switch (n->type) {
    case J_NULL:
        buf_puts(b, "null");
        return;
    case J_BOOL:
        buf_puts(b, n->b ? "true" : "false");
        return;
    case J_INT:
        buf_printf(b, "%lld", (long long)n->i);
        return;
    case J_FLOAT:
        buf_str(b, n->s);
        return;
    case J_STR:
        json_quote(b, n->s);
        return;
    case J_LIST:
    case J_MAP:
        break;
    }
    buf_putc(b, n->type == J_MAP ? '{' : '[');
    jnode_each (it, n) {
        if (it != n->child) {
            buf_putc(b, ',');
        }
        new_line(b, indent, level + 1);
        if (n->type == J_MAP) {
            json_quote(b, it->key);
            buf_puts(b, indent ? ": " : ":");
        }
        write_node(b, it, indent, level + 1);
    }
    if (n->child) {
        new_line(b, indent, level);
    }
    buf_putc(b, n->type == J_MAP ? '}' : ']');
}

void json_write(struct buf *b, const struct jnode *n, unsigned indent) {
    write_node(b, n, indent, 0);
}
