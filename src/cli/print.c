/* -o table|wide|json|yaml|name|jsonpath=…|custom-columns=… */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/vec.h"

#include <stdio.h>
#include <stdlib.h>

bool cli_output_parse(const char *arg, const char *command, struct cli_output *out) {
    static const struct {
        const char *name;
        enum cli_format format;
    } plain[] = {{"json", OUT_JSON}, {"yaml", OUT_YAML},   {"wide", OUT_WIDE},
                 {"name", OUT_NAME}, {"table", OUT_TABLE}, {"ps", OUT_TABLE}};
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        if (strcmp(arg, plain[i].name) == 0) {
            out->format = plain[i].format;
            return true;
        }
    }
    if (strncmp(arg, "jsonpath=", 9) == 0) {
        out->format = OUT_JSONPATH;
        out->template = arg + 9;
        return true;
    }
    if (strncmp(arg, "custom-columns=", 15) == 0) {
        out->format = OUT_COLUMNS;
        out->template = arg + 15;
        return true;
    }
    cli_usage(command,
              "-o %s: allowed are json, yaml, wide, table, name, jsonpath=TEMPLATE, "
              "custom-columns=HEAD:.path,…",
              arg);
    return false;
}

/* Width on a terminal: code points are near enough. */
static size_t width(struct str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += ((uint8_t)s.p[i] & 0xc0) != 0x80;
    }
    return n;
}

static void put_row(struct buf *out, const struct str *cells, const size_t *widths, size_t n) {
    for (size_t i = 0; i < n; i++) {
        buf_str(out, cells[i]);
        for (size_t w = width(cells[i]); i + 1 < n && w < widths[i] + 3; w++) {
            buf_putc(out, ' ');
        }
    }
    buf_putc(out, '\n');
}

void cli_table(struct buf *out, const char *const *heads, const struct str *cells, size_t n_columns,
               size_t n_rows, bool no_headers) {
    size_t widths[MODEL_MAX_COLUMNS + 4] = {0};
    struct str head[MODEL_MAX_COLUMNS + 4];
    mg_assert(n_columns <= ARRAY_LEN(widths));
    for (size_t i = 0; i < n_columns; i++) {
        head[i] = str_c(heads[i]);
        widths[i] = no_headers ? 0 : head[i].n;
        for (size_t r = 0; r < n_rows; r++) {
            size_t w = width(cells[r * n_columns + i]);
            widths[i] = w > widths[i] ? w : widths[i];
        }
    }
    if (!no_headers) {
        put_row(out, head, widths, n_columns);
    }
    for (size_t r = 0; r < n_rows; r++) {
        put_row(out, cells + r * n_columns, widths, n_columns);
    }
}

static struct str labels_cell(const struct jnode *doc, struct arena *a) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
    const struct jnode *labels = jnode_path(doc, "metadata.labels");
    jnode_each (n, labels) {
        buf_printf(&b, "%s%.*s=%.*s", b.n ? "," : "", STR_FMT(n->key), STR_FMT(jnode_str(n)));
    }
    return b.n ? arena_dup(a, buf_view(&b)) : STR("<none>");
}

/* The items of one kind as a table. */
static void print_kind(const struct cli_output *o, const struct cli_item *items, size_t n,
                       struct arena *a, struct buf *out) {
    enum model_table t = o->format == OUT_WIDE ? MODEL_WIDE : MODEL_TABLE;
    const char *heads[MODEL_MAX_COLUMNS + 4], *own[MODEL_MAX_COLUMNS];
    size_t k = 0, n_own = kind_columns(items[0].kind, t, own);
    bool show_ns = o->show_ns && items[0].kind->is_namespaced;
    if (show_ns) {
        heads[k++] = "NAMESPACE";
    }
    for (size_t i = 0; i < n_own; i++) {
        heads[k++] = own[i];
    }
    if (o->show_labels) {
        heads[k++] = "LABELS";
    }
    VEC(struct str) cells = {0};
    int64_t now = clock_wall_ns();
    for (size_t i = 0; i < n; i++) {
        struct str row[MODEL_MAX_COLUMNS];
        (void)object_cells(items[i].kind, t, items[i].doc, now, a, row);
        if (show_ns) {
            vec_push(&cells, items[i].ns);
        }
        for (size_t j = 0; j < n_own; j++) {
            struct str cell = row[j];
            if (j == 0 && o->show_kind) {
                cell = arena_printf(a, "%s%s%s/%.*s", items[i].kind->singular,
                                    items[i].kind->group[0] ? "." : "", items[i].kind->group,
                                    STR_FMT(row[j]));
            }
            vec_push(&cells, cell);
        }
        if (o->show_labels) {
            vec_push(&cells, labels_cell(items[i].doc, a));
        }
    }
    cli_table(out, heads, cells.p, k, n, o->no_headers);
    vec_fini(&cells);
}

static struct jnode *as_list(const struct cli_item *items, size_t n, struct arena *a) {
    struct jnode *list = jnode_new(a, J_MAP), *members = jnode_new(a, J_LIST);
    jnode_set(a, list, STR("apiVersion"), jnode_new_str(a, STR("v1")));
    jnode_set(a, list, STR("kind"), jnode_new_str(a, STR("List")));
    for (size_t i = 0; i < n; i++) {
        jnode_append(members, jnode_copy(a, items[i].doc));
    }
    jnode_set(a, list, STR("items"), members);
    return list;
}

/* HEAD:.path,HEAD:.path */
static bool print_columns(const struct cli_output *o, const struct cli_item *items, size_t n,
                          struct arena *a, struct buf *out, struct err *e) {
    const char *heads[MODEL_MAX_COLUMNS];
    const char *paths[MODEL_MAX_COLUMNS];
    size_t k = 0;
    for (struct str rest = str_c(o->template); rest.p;) {
        struct str part = str_cut(&rest, ',');
        ptrdiff_t colon = str_find(part, ':', 0);
        if (colon <= 0 || k == MODEL_MAX_COLUMNS) {
            err_set(e, ERR_INVALID, "custom-columns: found \"%.*s\", allowed is HEAD:.path",
                    STR_FMT(part));
            return false;
        }
        heads[k] = arena_cstr(a, str_sub(part, 0, (size_t)colon));
        struct str p = str_sub(part, (size_t)colon + 1, part.n);
        struct str t = arena_printf(a, "{%s%.*s}", p.n && p.p[0] != '.' ? "." : "", STR_FMT(p));
        paths[k++] = t.p;
    }
    VEC(struct str) cells = {0};
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        for (size_t j = 0; j < k && ok; j++) {
            MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
            ok = cli_jsonpath(paths[j], items[i].doc, &b, e) == 0;
            vec_push(&cells, b.n ? arena_dup(a, buf_view(&b)) : STR("<none>"));
        }
    }
    if (ok) {
        cli_table(out, heads, cells.p, k, n, o->no_headers);
    }
    vec_fini(&cells);
    return ok;
}

bool cli_print(const struct cli_output *o, const struct cli_item *items, size_t n, bool is_single,
               struct arena *a, struct buf *out, struct err *e) {
    switch (o->format) {
    case OUT_JSON:
    case OUT_YAML:
    case OUT_JSONPATH: {
        struct jnode *doc = is_single && n == 1 ? items[0].doc : as_list(items, n, a);
        if (o->format == OUT_JSONPATH) {
            return cli_jsonpath(o->template, doc, out, e) == 0;
        }
        if (o->format == OUT_JSON) {
            json_write(out, doc, 4);
            buf_putc(out, '\n');
        } else {
            yaml_write(out, doc);
        }
        return true;
    }
    case OUT_NAME:
        for (size_t i = 0; i < n; i++) {
            kind_print_ref(items[i].kind, items[i].name, out);
            buf_putc(out, '\n');
        }
        return true;
    case OUT_COLUMNS:
        return print_columns(o, items, n, a, out, e);
    case OUT_TABLE:
    case OUT_WIDE:
        for (size_t i = 0; i < n;) {
            size_t j = i;
            while (j < n && items[j].kind == items[i].kind) {
                j++;
            }
            if (i) {
                buf_putc(out, '\n');
            }
            print_kind(o, items + i, j - i, a, out);
            i = j;
        }
        return true;
    }
    return true;
}

int cli_print_tree(const struct cli_output *o, const char *command, struct jnode *q) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(256U << 20);
    struct err e;
    int rc = 0;
    switch (o->format) {
    case OUT_JSON:
        json_write(&b, q, 4);
        buf_putc(&b, '\n');
        break;
    case OUT_YAML:
        yaml_write(&b, q);
        break;
    case OUT_JSONPATH:
        if (cli_jsonpath(o->template, q, &b, &e) < 0) {
            rc = cli_usage(command, "%s", e.msg);
        }
        break;
    default:
        return -1;
    }
    printf("%.*s", STR_FMT(buf_view(&b)));
    return rc;
}
