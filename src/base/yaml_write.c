/* Trees to YAML as kubectl prints it: block style, two blanks a level, the items of a list at the
 * column of their key. Every text reads back as the same tree with yaml_each, and with other
 * readers of YAML 1.1 or 1.2: what only they would take for something else is quoted too. */
#include "base/jtext.h"

enum {
    STEP = 2,
    KEY_MAX = 1000, /* readers look 1,024 characters ahead for a key's colon; longer: "? " */
};

static void indent(struct buf *b, unsigned column) {
    for (unsigned i = 0; i < column; i++) {
        buf_putc(b, ' ');
    }
}

/* Can s stand as it is, apart from blanks and quotes? No line ends, nothing that needs an escape.
 */
static bool is_one_line(struct str s) {
    const unsigned char *p = (const unsigned char *)s.p;
    for (size_t i = 0; i < s.n;) {
        size_t len = utf8_len(p + i, s.n - i);
        bool bad = len == 0 || p[i] < 0x20 || p[i] == 0x7f ||
                   /* C1 controls with NEL; U+2028/9, which end lines; U+FEFF, U+FFFE/F */
                   (len == 2 && p[i] == 0xc2 && p[i + 1] < 0xa0) ||
                   (len == 3 && p[i] == 0xe2 && p[i + 1] == 0x80 && (p[i + 2] | 1) == 0xa9) ||
                   (len == 3 && memcmp(p + i, "\xef\xbb\xbf", 3) == 0) ||
                   (len == 3 && p[i] == 0xef && p[i + 1] == 0xbf && p[i + 2] >= 0xbe);
        if (bad) {
            return false;
        }
        i += len;
    }
    return true;
}

/* Numbers of base 60 and dates: text to kubectl, but not to every reader. */
static bool is_number_elsewhere(struct str s) {
    size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+');
    bool has_separator = false;
    if (i == s.n || s.p[i] < '0' || s.p[i] > '9') {
        return str_is(s, "=") || str_is(s, "<<");
    }
    for (; i < s.n; i++) {
        bool is_separator = strchr(":-.TtZz+ _", s.p[i]) != NULL;
        if (!is_separator && (s.p[i] < '0' || s.p[i] > '9')) {
            return false;
        }
        has_separator |= s.p[i] == ':' || s.p[i] == '-';
    }
    return has_separator;
}

enum style { STYLE_PLAIN, STYLE_SINGLE, STYLE_DOUBLE, STYLE_LITERAL };

/* Does syntax let s stand without quotes? s is one line and not empty. */
static bool is_plain_safe(struct str s) {
    char c = s.p[0];
    char last = s.p[s.n - 1];
    if (c == ' ' || last == ' ' || last == ':' || strchr(",[]{}#&*!|>'\"%@`", c)) {
        return false;
    }
    if ((c == '-' || c == '?' || c == ':') && (s.n == 1 || s.p[1] == ' ')) {
        return false;
    }
    if (str_starts(s, STR("---")) || str_starts(s, STR("..."))) {
        return false;
    }
    return !str_contains(s, STR(": ")) && !str_contains(s, STR(" #"));
}

/* A literal block shows its lines as they are; it must not begin with a blank or an empty line
 * (the reader finds the indentation there). */
static bool is_literal_safe(struct str s) {
    if (s.p[0] == ' ' || s.p[0] == '\t' || s.p[0] == '\n') {
        return false;
    }
    for (struct str rest = s; rest.p;) {
        struct str line = str_cut(&rest, '\n');
        for (struct str part = line; part.p;) {
            if (!is_one_line(str_cut(&part, '\t'))) {
                return false;
            }
        }
    }
    return true;
}

static enum style style_of(struct str s, bool is_key) {
    struct plain plain;
    if (s.n == 0) {
        return STYLE_DOUBLE;
    }
    if (memchr(s.p, '\n', s.n)) {
        return !is_key && is_literal_safe(s) ? STYLE_LITERAL : STYLE_DOUBLE;
    }
    if (!is_one_line(s) || yaml_plain(s, &plain) != PLAIN_STR || is_number_elsewhere(s)) {
        return STYLE_DOUBLE;
    }
    return is_plain_safe(s) ? STYLE_PLAIN : STYLE_SINGLE;
}

static void write_double(struct buf *b, struct str s) {
    const unsigned char *p = (const unsigned char *)s.p;
    buf_putc(b, '"');
    for (size_t i = 0; i < s.n;) {
        size_t len = utf8_len(p + i, s.n - i);
        struct str c = str_sub(s, i, i + (len ? len : 1));
        if (p[i] == '"' || p[i] == '\\') {
            buf_putc(b, '\\');
            buf_putc(b, (char)p[i]);
        } else if (p[i] == '\n') {
            buf_puts(b, "\\n");
        } else if (p[i] == '\t') {
            buf_puts(b, "\\t");
        } else if (p[i] == '\r') {
            buf_puts(b, "\\r");
        } else if (is_one_line(c)) {
            buf_str(b, c);
        } else if (len == 1) {
            buf_printf(b, "\\x%02x", p[i]);
        } else if (len == 2) {
            buf_printf(b, "\\x%02x", (p[i] & 0x1fU) << 6 | (p[i + 1] & 0x3fU));
        } else if (len == 3) {
            buf_printf(b, "\\u%04x",
                       (p[i] & 0xfU) << 12 | (p[i + 1] & 0x3fU) << 6 | (p[i + 2] & 0x3fU));
        } else {
            buf_puts(b, "\\ufffd"); /* no UTF-8 */
        }
        i += c.n;
    }
    buf_putc(b, '"');
}

static void write_single(struct buf *b, struct str s) {
    buf_putc(b, '\'');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\'') {
            buf_putc(b, '\'');
        }
        buf_putc(b, s.p[i]);
    }
    buf_putc(b, '\'');
}

/* Lines at `column`; the mark behind | says how many line ends stand at the end: none, one, more.
 */
static void write_literal(struct buf *b, struct str s, unsigned column) {
    bool ends = str_ends(s, STR("\n"));
    bool ends_twice = str_ends(s, STR("\n\n"));
    buf_puts(b, ends_twice ? "|+" : ends ? "|" : "|-");
    struct str rest = ends ? str_sub(s, 0, s.n - 1) : s;
    while (rest.p) {
        struct str line = str_cut(&rest, '\n');
        buf_putc(b, '\n');
        if (line.n) {
            indent(b, column);
            buf_str(b, line);
        }
    }
}

static void write_str(struct buf *b, struct str s, bool is_key, unsigned column) {
    switch (style_of(s, is_key)) {
    case STYLE_PLAIN:
        buf_str(b, s);
        return;
    case STYLE_SINGLE:
        write_single(b, s);
        return;
    case STYLE_DOUBLE:
        write_double(b, s);
        return;
    case STYLE_LITERAL:
        write_literal(b, s, column);
        return;
    }
}

static void write_members(struct buf *b, const struct jnode *n, unsigned column);

/* One scalar or empty container, on the line that was begun; further lines at `column`. */
static void write_inline(struct buf *b, const struct jnode *n, unsigned column) {
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
        write_str(b, n->s, false, column);
        return;
    case J_LIST:
        buf_puts(b, "[]");
        return;
    case J_MAP:
        buf_puts(b, "{}");
        return;
    }
}

/* Key and colon; what follows begins with a blank or a line end. */
static void write_key(struct buf *b, struct str key, unsigned column) {
    size_t start = b->n;
    write_str(b, key, true, column);
    if (b->n - start > KEY_MAX && !b->overflow) {
        b->n = start;
        buf_puts(b, "? ");
        write_str(b, key, true, column);
        buf_putc(b, '\n');
        indent(b, column);
    }
    buf_putc(b, ':');
}

static void write_member(struct buf *b, const struct jnode *n, unsigned column) {
    write_key(b, n->key, column);
    if (n->child) {
        /* A list's items may stand at the key's own column. */
        unsigned below = n->type == J_LIST ? column : column + STEP;
        buf_putc(b, '\n');
        indent(b, below);
        write_members(b, n, below);
        return;
    }
    buf_putc(b, ' ');
    write_inline(b, n, column + STEP);
    buf_putc(b, '\n');
}

/* A list or map that isn't empty; the first line's indentation is written already. */
static void write_members(struct buf *b, const struct jnode *n, unsigned column) {
    jnode_each (it, n) {
        if (it != n->child) {
            indent(b, column);
        }
        if (n->type == J_MAP) {
            write_member(b, it, column);
            continue;
        }
        buf_puts(b, "- ");
        if (it->child) {
            write_members(b, it, column + STEP);
        } else {
            write_inline(b, it, column + STEP);
            buf_putc(b, '\n');
        }
    }
}

void yaml_write(struct buf *b, const struct jnode *n) {
    if (n->child) {
        write_members(b, n, 0);
    } else {
        write_inline(b, n, STEP);
        buf_putc(b, '\n');
    }
}
