/* TOML's structure: keys, tables, arrays, and what may not be defined twice. See toml.h. */
#include "confd/toml_int.h"

#include "base/jtext.h"

#include <stdarg.h>
#include <stdio.h>

/* How a table or array came to be decides what may be added to it later. Kept in jnode.i, which
 * maps and lists don't use. */
enum origin {
    BY_PATH = 1,   /* a table on the way of a header */
    BY_HEADER = 2, /* [table], or an element of [[array]] */
    BY_DOTS = 4,   /* a.b = …: may be added to by dots alone */
    INLINE = 8,    /* { … }: closed */
    OF_TABLES = 16 /* a list made by [[array]] */
};

int toml_fail(const struct toml *t, int code, const char *fmt, ...) {
    char what[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    return err_set(t->e, code, "%s:%u:%zu: %s", t->name, t->line, t->pos - t->line_start + 1, what);
}

int toml_fail_found(const struct toml *t, const char *need) {
    int c = toml_peek(t, 0);
    if (c < 0) {
        return toml_fail(t, ERR_INVALID, "found the end of the file, need %s", need);
    }
    if (c == '\n' || c == '\r') {
        return toml_fail(t, ERR_INVALID, "found the end of the line, need %s", need);
    }
    if (c < 0x20 || c == 0x7f) {
        return toml_fail(t, ERR_INVALID, "found control character 0x%02x, need %s", (unsigned)c,
                         need);
    }
    size_t n = 1;
    while (c >= 0x80 && n < 4 && (toml_peek(t, n) & 0xc0) == 0x80 && toml_peek(t, n) >= 0) {
        n++;
    }
    return toml_fail(t, ERR_INVALID, "found \"%.*s\", need %s", (int)n, t->t.p + t->pos, need);
}

bool toml_newline(struct toml *t) {
    size_t n = toml_peek(t, 0) == '\n' ? 1 : 0;
    if (toml_peek(t, 0) == '\r' && toml_peek(t, 1) == '\n') {
        n = 2;
    }
    if (n) {
        t->pos += n;
        t->line++;
        t->line_start = t->pos;
    }
    return n > 0;
}

static void skip_blanks(struct toml *t) {
    while (toml_peek(t, 0) == ' ' || toml_peek(t, 0) == '\t') {
        t->pos++;
    }
}

/* Blanks, a comment if there is one; stops before the end of the line. */
static int skip_comment(struct toml *t) {
    skip_blanks(t);
    if (toml_peek(t, 0) != '#') {
        return 0;
    }
    for (int c; (c = toml_peek(t, 0)) >= 0 && c != '\n'; t->pos++) {
        if (c == '\r' && toml_peek(t, 1) == '\n') {
            return 0;
        }
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return toml_fail_found(t, "text without control characters in a comment");
        }
    }
    return 0;
}

/* Blanks, comments and line ends: between the elements of an array. */
static int skip_lines(struct toml *t) {
    do {
        int r = skip_comment(t);
        if (r < 0) {
            return r;
        }
    } while (toml_newline(t));
    return 0;
}

static int end_line(struct toml *t) {
    int r = skip_comment(t);
    if (r < 0 || toml_newline(t) || toml_peek(t, 0) < 0) {
        return r;
    }
    return toml_fail_found(t, "the end of the line");
}

static int new_node(struct toml *t, enum jtype type, struct jnode **out) {
    if (++t->n_values > TOML_MAX_VALUES) {
        return toml_fail(t, ERR_TOO_BIG, "more than %d values", TOML_MAX_VALUES);
    }
    *out = jnode_new(t->a, type);
    (*out)->line = t->line;
    (*out)->col = (uint32_t)(t->pos - t->line_start + 1);
    return 0;
}

static void add_member(struct jnode *map, struct str key, struct jnode *n) {
    n->key = key;
    if (map->last) {
        map->last->next = n;
    } else {
        map->child = n;
    }
    map->last = n;
    map->n++;
}

static bool is_bare(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

/* One part of a key. */
static int key_part(struct toml *t, struct str *out) {
    int c = toml_peek(t, 0);
    if (c == '"' || c == '\'') {
        return toml_string(t, true, out);
    }
    size_t start = t->pos;
    while (is_bare(toml_peek(t, 0))) {
        t->pos++;
    }
    if (t->pos == start) {
        return toml_fail_found(t, "a key: letters, digits, _ and -, or a quoted string");
    }
    *out = str_sub(t->t, start, t->pos);
    return 0;
}

struct key {
    struct str part[TOML_MAX_DEPTH];
    size_t n;
};

/* A key with its dots; the reader stands behind it and the blanks after it. */
static int read_key(struct toml *t, struct key *k) {
    k->n = 0;
    for (;;) {
        skip_blanks(t);
        if (k->n == TOML_MAX_DEPTH) {
            return toml_fail(t, ERR_TOO_BIG, "a key of more than %d parts", TOML_MAX_DEPTH);
        }
        int r = key_part(t, &k->part[k->n]);
        if (r < 0) {
            return r;
        }
        k->n++;
        skip_blanks(t);
        if (toml_peek(t, 0) != '.') {
            return 0;
        }
        t->pos++;
    }
}

/* Errors about a key point at its beginning, which is behind the reader by then. */
static int fail_key(struct toml *t, size_t at, const struct key *k, size_t n, const char *why) {
    struct buf b = BUF_INIT(256);
    for (size_t i = 0; i < n; i++) {
        buf_printf(&b, "%s%.*s", i ? "." : "", STR_FMT(k->part[i]));
    }
    t->pos = at;
    int r = toml_fail(t, ERR_INVALID, "%s %s", buf_cstr(&b), why);
    buf_fini(&b);
    return r;
}

static int read_value(struct toml *t, struct jnode **out);

/* KEY = VALUE into table. */
static int key_value(struct toml *t, struct jnode *table) {
    struct key k;
    size_t at = t->pos;
    int r = read_key(t, &k);
    for (size_t i = 0; r == 0 && i + 1 < k.n; i++) {
        struct jnode *n = jnode_get(table, k.part[i]);
        if (!n) {
            r = new_node(t, J_MAP, &n);
            if (r == 0) {
                n->i = BY_DOTS;
                add_member(table, k.part[i], n);
            }
        } else if (n->type != J_MAP) {
            return fail_key(t, at, &k, i + 1, "is no table: nothing can be added to it");
        } else if (n->i & (BY_HEADER | INLINE)) {
            return fail_key(t, at, &k, i + 1, "is a table that is complete: add to it there");
        }
        table = n;
    }
    if (r < 0) {
        return r;
    }
    if (jnode_get(table, k.part[k.n - 1])) {
        return fail_key(t, at, &k, k.n, "is defined twice: remove one of them");
    }
    if (toml_peek(t, 0) != '=') {
        return toml_fail_found(t, "= after a key");
    }
    t->pos++;
    skip_blanks(t);
    struct jnode *v = NULL;
    r = read_value(t, &v);
    if (r == 0) {
        add_member(table, k.part[k.n - 1], v);
    }
    return r;
}

static int read_array(struct toml *t, struct jnode *list) {
    t->pos++;
    for (;;) {
        int r = skip_lines(t);
        if (r < 0) {
            return r;
        }
        if (toml_peek(t, 0) == ']') {
            t->pos++;
            return 0;
        }
        struct jnode *v = NULL;
        r = read_value(t, &v);
        if (r < 0) {
            return r;
        }
        add_member(list, STR_NULL, v);
        r = skip_lines(t);
        if (r < 0) {
            return r;
        }
        if (toml_peek(t, 0) == ',') {
            t->pos++;
        } else if (toml_peek(t, 0) != ']') {
            return toml_fail_found(t, "\",\" or \"]\" in an array");
        }
    }
}

static int read_inline(struct toml *t, struct jnode *table) {
    t->pos++;
    skip_blanks(t);
    if (toml_peek(t, 0) == '}') {
        t->pos++;
        return 0;
    }
    for (;;) {
        skip_blanks(t);
        int r = key_value(t, table);
        if (r < 0) {
            return r;
        }
        skip_blanks(t);
        int c = toml_peek(t, 0);
        if (c != ',' && c != '}') {
            return toml_fail_found(t, "\",\" or \"}\" in an inline table, which is one line");
        }
        t->pos++;
        if (c == '}') {
            return 0;
        }
    }
}

static int read_value(struct toml *t, struct jnode **out) {
    struct jnode *n = NULL;
    int r = new_node(t, J_STR, &n);
    if (r == 0 && t->depth == TOML_MAX_DEPTH) {
        r = toml_fail(t, ERR_TOO_BIG, "values are more than %d deep", TOML_MAX_DEPTH);
    }
    if (r < 0) {
        return r;
    }
    t->depth++;
    int c = toml_peek(t, 0);
    if (c == '[') {
        n->type = J_LIST;
        r = read_array(t, n);
    } else if (c == '{') {
        n->type = J_MAP;
        r = read_inline(t, n);
        n->i = INLINE;
    } else if (c == '"' || c == '\'') {
        r = toml_string(t, false, &n->s);
    } else {
        r = toml_scalar(t, n);
    }
    t->depth--;
    *out = n;
    return r;
}

/* The table that part of a header's path leads to; made if absent. */
static int enter(struct toml *t, size_t at, const struct key *k, size_t i, struct jnode **table) {
    struct jnode *n = jnode_get(*table, k->part[i]);
    if (!n) {
        int r = new_node(t, J_MAP, &n);
        if (r < 0) {
            return r;
        }
        n->i = BY_PATH;
        add_member(*table, k->part[i], n);
    } else if (n->type == J_LIST && (n->i & OF_TABLES)) {
        n = n->last;
    } else if (n->type == J_LIST) {
        return fail_key(t, at, k, i + 1, "is an array that is complete: nothing can be added");
    } else if (n->type != J_MAP || (n->i & INLINE)) {
        return fail_key(t, at, k, i + 1,
                        n->type == J_MAP ? "is an inline table: nothing can be added to it"
                                         : "is no table: nothing can be added to it");
    }
    *table = n;
    return 0;
}

static int array_header(struct toml *t, size_t at, const struct key *k, struct jnode *table,
                        struct jnode **out) {
    struct str last = k->part[k->n - 1];
    struct jnode *list = jnode_get(table, last), *n = NULL;
    if (!list) {
        int r = new_node(t, J_LIST, &list);
        if (r < 0) {
            return r;
        }
        list->i = OF_TABLES;
        add_member(table, last, list);
    } else if (list->type != J_LIST || !(list->i & OF_TABLES)) {
        return fail_key(t, at, k, k->n, "is defined already, not as an array of tables");
    }
    int r = new_node(t, J_MAP, &n);
    if (r < 0) {
        return r;
    }
    n->i = BY_HEADER;
    add_member(list, STR_NULL, n);
    *out = n;
    return 0;
}

static int table_header(struct toml *t, size_t at, const struct key *k, struct jnode *table,
                        struct jnode **out) {
    struct str last = k->part[k->n - 1];
    struct jnode *n = jnode_get(table, last);
    if (!n) {
        int r = new_node(t, J_MAP, &n);
        if (r < 0) {
            return r;
        }
        add_member(table, last, n);
    } else if (n->type != J_MAP || n->i != BY_PATH) {
        return fail_key(t, at, k, k->n, "is defined twice: put its keys into one place");
    }
    n->i = BY_HEADER;
    *out = n;
    return 0;
}

/* [table] or [[array of tables]]: *table is where the next keys go. */
static int header(struct toml *t, struct jnode *root, struct jnode **table) {
    struct key k;
    size_t n_brackets = toml_peek(t, 1) == '[' ? 2 : 1;
    t->pos += n_brackets;
    skip_blanks(t);
    size_t at = t->pos;
    int r = read_key(t, &k);
    for (size_t i = 0; r == 0 && i < n_brackets; i++) {
        if (toml_peek(t, 0) != ']') {
            return toml_fail_found(t, n_brackets == 2
                                          ? "\"]]\" after the name of an array of tables"
                                          : "\"]\" after the name of a table");
        }
        t->pos++;
    }
    struct jnode *in = root;
    for (size_t i = 0; r == 0 && i + 1 < k.n; i++) {
        r = enter(t, at, &k, i, &in);
    }
    if (r < 0) {
        return r;
    }
    return (n_brackets == 2 ? array_header : table_header)(t, at, &k, in, table);
}

/* Valid UTF-8 is a rule for the whole document, comments included. */
static int check_utf8(struct toml *t) {
    const unsigned char *p = (const unsigned char *)t->t.p;
    for (size_t i = 0; i < t->t.n;) {
        size_t n = utf8_len(p + i, t->t.n - i);
        if (n == 0) {
            t->pos = i;
            return toml_fail(t, ERR_INVALID, "found byte 0x%02x, need UTF-8", (unsigned)p[i]);
        }
        i += n;
        if (p[i - 1] == '\n') {
            t->line++;
            t->line_start = i;
        }
    }
    t->line = 1;
    t->line_start = 0;
    return 0;
}

int toml_parse(struct str text, const char *name, struct arena *a, struct jnode **out,
               struct err *e) {
    struct toml t = {.t = text, .line = 1, .name = name, .a = a, .e = e};
    if (text.n > TOML_MAX_BYTES) {
        return toml_fail(&t, ERR_TOO_BIG, "the file has %zu bytes, %d are allowed", text.n,
                         TOML_MAX_BYTES);
    }
    t.t = arena_dup(a, text.p ? text : STR(""));
    struct jnode *root = NULL;
    int r = check_utf8(&t);
    if (r == 0) {
        t.pos = str_starts(text, STR("\xef\xbb\xbf")) ? 3 : 0;
        r = new_node(&t, J_MAP, &root);
    }
    struct jnode *table = root;
    while (r == 0) {
        r = skip_lines(&t);
        int c = toml_peek(&t, 0);
        if (r < 0 || c < 0) {
            break;
        }
        r = c == '[' ? header(&t, root, &table) : key_value(&t, table);
        if (r == 0) {
            r = end_line(&t);
        }
    }
    if (r == 0) {
        *out = root;
    }
    return r;
}

enum toml_type toml_type(const struct jnode *n) {
    switch (n->type) {
    case J_STR:
        return (enum toml_type)n->i; /* 0: TOML_STRING */
    case J_INT:
        return TOML_INTEGER;
    case J_FLOAT:
        return TOML_FLOAT;
    case J_BOOL:
        return TOML_BOOLEAN;
    case J_LIST:
        return TOML_ARRAY;
    case J_MAP:
    case J_NULL:
        break;
    }
    return TOML_TABLE;
}

const char *toml_type_name(enum toml_type t) {
    static const char *const NAMES[] = {
        "string",          "integer",    "float",      "boolean", "offset date-time",
        "local date-time", "local date", "local time", "array",   "table"};
    return NAMES[t];
}
