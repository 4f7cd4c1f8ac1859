/* JSON text to trees and back (RFC 8259), strict: one value, no duplicate keys, no NUL, valid
 * UTF-8, no lone surrogates, nothing behind. Every limit of struct jlimits is checked before memory
 * is used. */
#include "base/jtree.h"

#include "base/jtext.h"

#include <stdarg.h>
#include <stdio.h>

const struct jlimits json_limits_default = {
    .max_bytes = 32U << 20,
    .max_nodes = 2000000,
    .max_depth = 64,
    .max_string = 4U << 20,
    .max_aliases = 1000,
};

struct reader {
    struct str t;
    size_t pos, line_start, n_nodes, depth;
    uint32_t line;    /* newlines stand only between tokens, so blanks count them all */
    const char *name; /* of the source, or NULL */
    const struct jlimits *lim;
    struct arena *a;
    struct err *e;
};

MG_PRINTF(3, 4) static int fail(const struct reader *r, int code, const char *fmt, ...) {
    char what[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    return err_set(r->e, code, "%s%s%u:%zu: %s", r->name ? r->name : "JSON", r->name ? ":" : " ",
                   r->line, r->pos - r->line_start + 1, what);
}

/* The usual error: what stands here, and what could. */
static int fail_found(const struct reader *r, const char *allowed) {
    char found[FOUND_MAX];
    return fail(r, ERR_INVALID, "found %s, need %s", text_found(r->t, r->pos, found), allowed);
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
            return fail_found(r, "four hex digits after \\u");
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

/* The second half of a surrogate pair, behind the first. */
static int read_low_surrogate(struct reader *r, unsigned *u) {
    unsigned low = 0;
    if (!str_starts(str_sub(r->t, r->pos, r->t.n), STR("\\u"))) {
        return fail_found(r, "the second half of the surrogate pair, \\udc00 to \\udfff");
    }
    r->pos += 2;
    int rc = hex4(r, &low);
    if (rc < 0) {
        return rc;
    }
    if (low < 0xdc00 || low > 0xdfff) {
        return fail(r, ERR_INVALID,
                    "found \\u%04x behind \\u%04x, need the second half of the surrogate pair, "
                    "\\udc00 to \\udfff",
                    low, *u);
    }
    *u = 0x10000 + ((*u - 0xd800) << 10) + (low - 0xdc00);
    return 0;
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
        return fail_found(r, "one of \" \\ / b f n r t uXXXX behind a backslash");
    }
    r->pos++;
    unsigned u = 0;
    int rc = hex4(r, &u);
    if (rc == 0 && u >= 0xd800 && u < 0xdc00) {
        rc = read_low_surrogate(r, &u);
    }
    if (rc < 0) {
        return rc;
    }
    if (u >= 0xdc00 && u <= 0xdfff) {
        return fail(r, ERR_INVALID,
                    "found \\u%04x, the second half of a surrogate pair, without the first half "
                    "\\ud800 to \\udbff before it",
                    u);
    }
    if (u == 0) {
        return fail(r, ERR_INVALID, "found \\u0000 in a string, every other character is allowed");
    }
    *o += put_utf8(out + *o, u);
    return 0;
}

static int read_string(struct reader *r, struct str *out) {
    size_t end = r->pos + 1;
    while (end < r->t.n && r->t.p[end] != '"') {
        end += r->t.p[end] == '\\' ? 2 : 1;
    }
    if (end >= r->t.n) {
        return fail(r, ERR_INVALID, "found a string that is never closed, need a \" at its end");
    }
    r->pos++; /* the quote */
    if (end - r->pos > r->lim->max_string) {
        return fail(r, ERR_TOO_BIG, "found a string of %zu bytes, at most %zu are allowed",
                    end - r->pos, r->lim->max_string);
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
            return fail(r, ERR_INVALID,
                        "found byte 0x%02x in a string, write control characters as \\u%04x", c, c);
        }
        size_t len = utf8_len((const unsigned char *)r->t.p + r->pos, end - r->pos);
        if (len == 0) {
            return fail(r, ERR_INVALID, "found byte 0x%02x in a string, need valid UTF-8", c);
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
    if (!digits(r)) {
        return fail_found(r, "a digit behind the minus sign");
    }
    if (zero && r->pos - first > 1) {
        r->pos = first;
        return fail_found(r, "a number without zeros at its start");
    }
    if (peek(r) == '.') {
        whole = false;
        r->pos++;
        if (!digits(r)) {
            return fail_found(r, "digits behind the decimal point");
        }
    }
    if (peek(r) == 'e' || peek(r) == 'E') {
        whole = false;
        r->pos++;
        r->pos += peek(r) == '+' || peek(r) == '-';
        if (!digits(r)) {
            return fail_found(r, "digits in the exponent");
        }
    }
    struct str text = str_sub(r->t, start, r->pos);
    if (text.n > NUM_TEXT_MAX) {
        r->pos = start;
        return fail(r, ERR_TOO_BIG, "found a number of %zu characters, at most %d are allowed",
                    text.n, NUM_TEXT_MAX);
    }
    n->s = arena_dup(r->a, text);
    if (whole && str_to_i64(n->s, &n->i) == 0) {
        n->type = J_INT;
        return 0;
    }
    n->type = J_FLOAT;
    if (num_to_double(n->s, &n->f) < 0) {
        r->pos = start;
        return fail(r, ERR_INVALID,
                    "found a number beyond the largest double, need at most 1.79e308");
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
            return fail_found(r, "a comma or ] in a list");
        }
        r->pos++;
        if (c == ']') {
            return 0;
        }
    }
}

/* One member: key, colon, value. */
static int read_member(struct reader *r, struct jnode *map, struct members *seen) {
    skip_blanks(r);
    if (peek(r) != '"') {
        return fail_found(r, "a key in double quotes");
    }
    size_t key_pos = r->pos;
    struct jnode *item = jnode_new(r->a, J_NULL);
    struct str key;
    size_t first = 0;
    int rc = read_string(r, &key);
    if (rc < 0) {
        return rc;
    }
    if (!members_add(seen, map, key, r->line, item, &first)) {
        r->pos = key_pos;
        return fail(r, ERR_INVALID,
                    "found the key \"%.*s\" again, first on line %u; a key may stand once in an "
                    "object",
                    key.n > 200 ? 200 : (int)key.n, key.p, seen->lines.p[first]);
    }
    skip_blanks(r);
    if (peek(r) != ':') {
        return fail_found(r, "a colon behind the key");
    }
    r->pos++;
    return read_value(r, item);
}

static int read_members(struct reader *r, struct jnode *n, struct members *seen) {
    for (;;) {
        int rc = read_member(r, n, seen);
        if (rc < 0) {
            return rc;
        }
        skip_blanks(r);
        int c = peek(r);
        if (c != ',' && c != '}') {
            return fail_found(r, "a comma or } in an object");
        }
        r->pos++;
        if (c == '}') {
            return 0;
        }
    }
}

static int read_map(struct reader *r, struct jnode *n) {
    struct members seen = {0};
    r->pos++;
    skip_blanks(r);
    if (peek(r) == '}') {
        r->pos++;
        return 0;
    }
    int rc = read_members(r, n, &seen);
    members_fini(&seen);
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
    return fail_found(r, "a value: { [ \" a number, true, false or null");
}

static int read_value(struct reader *r, struct jnode *n) {
    skip_blanks(r);
    if (++r->n_nodes > r->lim->max_nodes) {
        return fail(r, ERR_TOO_BIG, "found more values than the %zu that are allowed",
                    r->lim->max_nodes);
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
        return fail(r, ERR_TOO_BIG,
                    "found lists and objects nested deeper than the %zu levels "
                    "that are allowed",
                    r->lim->max_depth);
    }
    r->depth++;
    n->type = c == '{' ? J_MAP : J_LIST;
    int rc = c == '{' ? read_map(r, n) : read_list(r, n);
    r->depth--;
    return rc;
}

static int check_size(struct str text, const char *name, const struct jlimits *lim, struct err *e) {
    if (text.n > lim->max_bytes) {
        return err_set(e, ERR_TOO_BIG, "%s: found a text of %zu bytes, at most %zu are allowed",
                       name ? name : "JSON", text.n, lim->max_bytes);
    }
    return 0;
}

int json_parse(struct str text, const struct jlimits *lim, struct arena *a, struct jnode **out,
               struct err *e) {
    int rc = check_size(text, NULL, lim, e);
    if (rc < 0) {
        return rc;
    }
    struct reader r = {.t = text, .lim = lim, .a = a, .e = e, .line = 1};
    struct jnode *n = jnode_new(a, J_NULL);
    rc = read_value(&r, n);
    if (rc < 0) {
        return rc;
    }
    skip_blanks(&r);
    if (r.pos != text.n) {
        return fail_found(&r, "the end of the text behind the value");
    }
    *out = n;
    return 0;
}

/* Blanks and lines of "---". */
static void skip_separators(struct reader *r) {
    for (;;) {
        skip_blanks(r);
        struct str rest = str_sub(r->t, r->pos, r->t.n);
        bool is_line = r->pos == r->line_start && str_starts(rest, STR("---")) &&
                       (rest.n == 3 || rest.p[3] == '\n' || rest.p[3] == '\r' || rest.p[3] == ' ');
        if (!is_line) {
            return;
        }
        r->pos += 3;
    }
}

int json_stream(struct str text, const char *name, const struct jlimits *lim, struct arena *a,
                struct jnode *docs, uint32_t *line, size_t *col, struct err *e) {
    int rc = check_size(text, name, lim, e);
    struct reader r = {.t = text, .lim = lim, .a = a, .e = e, .line = 1, .name = name};
    while (rc == 0) {
        skip_separators(&r);
        if (r.pos == text.n) {
            return 0;
        }
        struct jnode *n = jnode_new(a, J_NULL);
        rc = read_value(&r, n);
        if (rc == 0) {
            jnode_append(docs, n);
        }
    }
    *line = r.line;
    *col = r.pos - r.line_start + 1;
    return rc;
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
    case J_FLOAT:
        num_write(b, n);
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
