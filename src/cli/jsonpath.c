/* kubectl's JSONPath: text with {…} in it; .field ['field'] [n] [*] [?(@.x=="y")], range … end,
 * quoted text. */
#include "cli/cli.h"

#include "base/vec.h"

#include <stdlib.h>

typedef VEC(struct jnode *) node_vec;

static void put_value(struct buf *out, const struct jnode *n) {
    if (n->type == J_STR) {
        buf_str(out, n->s);
    } else {
        json_write(out, n, 0);
    }
}

static int wrong(struct err *e, struct str at, const char *want) {
    return err_set(e, ERR_INVALID, "jsonpath: found \"%.*s\", allowed there is %s", STR_FMT(at),
                   want);
}

static void children(const struct jnode *n, node_vec *out) {
    if (n->type == J_LIST || n->type == J_MAP) {
        jnode_each (c, n) {
            vec_push(out, c);
        }
    }
}

/* ?(@.a.b=="text"), also != */
static int filter(struct str expr, const node_vec *in, node_vec *out, struct err *e) {
    struct str t = str_trim(expr);
    ptrdiff_t op = -1;
    bool negate = false;
    for (size_t i = 0; i + 1 < t.n && op < 0; i++) {
        if (t.p[i + 1] == '=' && (t.p[i] == '=' || t.p[i] == '!')) {
            op = (ptrdiff_t)i;
            negate = t.p[i] == '!';
        }
    }
    if (op < 0 || !str_starts(t, STR("@."))) {
        return wrong(e, expr, "@.field==\"text\"");
    }
    struct str path = str_trim(str_sub(t, 2, (size_t)op));
    struct str want = str_trim(str_sub(t, (size_t)op + 2, t.n));
    if (want.n >= 2 && (want.p[0] == '"' || want.p[0] == '\'')) {
        want = str_sub(want, 1, want.n - 1);
    }
    struct arena a = {0};
    const char *p = arena_cstr(&a, path);
    for (size_t i = 0; i < in->n; i++) {
        jnode_each (c, in->p[i]) {
            MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
            const struct jnode *v = jnode_path(c, p);
            if (v) {
                put_value(&b, v);
            }
            if ((v && str_eq(buf_view(&b), want)) != negate) {
                vec_push(out, c);
            }
        }
    }
    arena_fini(&a);
    return 0;
}

static int index_step(struct str in_brackets, const node_vec *in, node_vec *out, struct err *e) {
    struct str t = str_trim(in_brackets);
    if (str_is(t, "*")) {
        for (size_t i = 0; i < in->n; i++) {
            children(in->p[i], out);
        }
        return 0;
    }
    if (t.n > 2 && (t.p[0] == '\'' || t.p[0] == '"')) {
        for (size_t i = 0; i < in->n; i++) {
            struct jnode *c = jnode_get(in->p[i], str_sub(t, 1, t.n - 1));
            if (c) {
                vec_push(out, c);
            }
        }
        return 0;
    }
    if (str_starts(t, STR("?(")) && str_ends(t, STR(")"))) {
        return filter(str_sub(t, 2, t.n - 1), in, out, e);
    }
    int64_t want;
    if (str_to_i64(t, &want) < 0) {
        return wrong(e, t, "a number, *, 'field' or ?(…)");
    }
    for (size_t i = 0; i < in->n; i++) {
        int64_t k = 0, n = (int64_t)in->p[i]->n;
        int64_t at = want < 0 ? n + want : want;
        if (in->p[i]->type == J_LIST) {
            jnode_each (c, in->p[i]) {
                if (k++ == at) {
                    vec_push(out, c);
                }
            }
        }
    }
    return 0;
}

/* One path from some nodes. */
static int walk(struct str path, const node_vec *from, node_vec *out, struct err *e) {
    node_vec now = {0};
    for (size_t i = 0; i < from->n; i++) {
        vec_push(&now, from->p[i]);
    }
    int r = 0;
    size_t i = path.n && (path.p[0] == '@' || path.p[0] == '$') ? 1 : 0;
    while (i < path.n && r == 0) {
        node_vec next = {0};
        if (path.p[i] == '[') {
            ptrdiff_t end = str_find(path, ']', i);
            if (end < 0) {
                r = wrong(e, str_sub(path, i, path.n), "a closing ]");
            } else {
                r = index_step(str_sub(path, i + 1, (size_t)end), &now, &next, e);
                i = (size_t)end + 1;
            }
        } else if (path.p[i] == '.') {
            size_t j = ++i;
            while (j < path.n && path.p[j] != '.' && path.p[j] != '[') {
                j += path.p[j] == '\\' && j + 1 < path.n ? 2 : 1;
            }
            struct arena a = {0};
            char *name = arena_alloc(&a, j - i + 1);
            size_t n = 0;
            for (size_t k = i; k < j; k++) {
                if (path.p[k] != '\\') {
                    name[n++] = path.p[k];
                }
            }
            for (size_t k = 0; k < now.n; k++) {
                if (n == 1 && name[0] == '*') {
                    children(now.p[k], &next);
                } else if (n == 0) {
                    vec_push(&next, now.p[k]);
                } else {
                    struct jnode *c = jnode_get(now.p[k], str_n(name, n));
                    if (c) {
                        vec_push(&next, c);
                    }
                }
            }
            arena_fini(&a);
            i = j;
        } else {
            r = wrong(e, str_sub(path, i, path.n), ". or [");
        }
        vec_fini(&now);
        now.p = next.p;
        now.n = next.n;
        now.cap = next.cap;
    }
    for (size_t k = 0; k < now.n && r == 0; k++) {
        vec_push(out, now.p[k]);
    }
    vec_fini(&now);
    return r;
}

static void put_quoted(struct buf *out, struct str s) {
    for (size_t i = 1; i + 1 < s.n; i++) {
        if (s.p[i] == '\\' && i + 2 < s.n) {
            i++;
            buf_putc(out, s.p[i] == 'n' ? '\n' : s.p[i] == 't' ? '\t' : s.p[i]);
        } else {
            buf_putc(out, s.p[i]);
        }
    }
}

/* Where the "{end}" of a range is, counting ranges inside; t starts behind "{range …}". */
static ptrdiff_t find_end(struct str t) {
    int depth = 1;
    for (size_t i = 0; i < t.n; i++) {
        struct str rest = str_sub(t, i, t.n);
        if (str_starts(rest, STR("{range "))) {
            depth++;
        } else if (str_starts(rest, STR("{end}")) && --depth == 0) {
            return (ptrdiff_t)i;
        }
    }
    return -1;
}

static ptrdiff_t find_close(struct str t, size_t from) {
    char quote = 0;
    for (size_t i = from; i < t.n; i++) {
        if (quote) {
            i += t.p[i] == '\\';
            quote = i < t.n && t.p[i] == quote ? 0 : quote;
        } else if (t.p[i] == '"' || t.p[i] == '\'') {
            quote = t.p[i];
        } else if (t.p[i] == '}') {
            return (ptrdiff_t)i;
        }
    }
    return -1;
}

static int expand(struct str t, struct jnode *at, unsigned depth, struct buf *out, struct err *e) {
    node_vec here = {0};
    vec_push(&here, at);
    int r = depth > 16 ? err_set(e, ERR_TOO_BIG, "jsonpath: ranges nested more than 16 deep") : 0;
    for (size_t i = 0; i < t.n && r == 0;) {
        if (t.p[i] != '{') {
            buf_putc(out, t.p[i++]);
            continue;
        }
        ptrdiff_t close = find_close(t, i + 1);
        if (close < 0) {
            r = wrong(e, str_sub(t, i, t.n), "a closing }");
            break;
        }
        struct str in = str_trim(str_sub(t, i + 1, (size_t)close));
        i = (size_t)close + 1;
        node_vec found = {0};
        if (in.n >= 2 && (in.p[0] == '"' || in.p[0] == '\'')) {
            put_quoted(out, in);
        } else if (str_starts(in, STR("range "))) {
            struct str body = str_sub(t, i, t.n);
            ptrdiff_t end = find_end(body);
            r = end < 0 ? wrong(e, in, "an {end} for each {range}")
                        : walk(str_trim(str_sub(in, 6, in.n)), &here, &found, e);
            for (size_t k = 0; k < found.n && r == 0; k++) {
                r = expand(str_sub(body, 0, (size_t)end), found.p[k], depth + 1, out, e);
            }
            i += end < 0 ? 0 : (size_t)end + 5;
        } else {
            r = walk(in, &here, &found, e);
            for (size_t k = 0; k < found.n && r == 0; k++) {
                if (k) {
                    buf_putc(out, ' ');
                }
                put_value(out, found.p[k]);
            }
        }
        vec_fini(&found);
    }
    vec_fini(&here);
    return r;
}

int cli_jsonpath(const char *template, struct jnode *doc, struct buf *out, struct err *e) {
    return expand(str_c(template), doc, 0, out, e);
}
