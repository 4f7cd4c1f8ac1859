/* The reference of a kind, from its table. */
#include "model/schema.h"

#include "base/buf.h"

static const char *type_name(enum field_type t) {
    static const char *const names[] = {
        [F_ANY] = "any",
        [F_BOOL] = "boolean",
        [F_INT] = "integer",
        [F_FLOAT] = "number",
        [F_STR] = "string",
        [F_STRS] = "list of strings",
        [F_INTS] = "list of integers",
        [F_STRMAP] = "map of strings",
        [F_OBJ] = "object",
        [F_OBJS] = "list of objects",
        [F_PORTS] = "list of ports",
        [F_PORT] = "port",
        [F_PROTOCOL] = "protocol",
        [F_INT_OR_STR] = "integer or string",
        [F_NET] = "prefix",
        [F_NETS] = "list of prefixes",
        [F_IPS] = "list of addresses",
    };
    return names[t];
}

/* Cell text: | would end it. */
static void put_cell(struct buf *b, const char *s) {
    for (; s && *s; s++) {
        if (*s == '|') {
            buf_putc(b, '\\');
        }
        buf_putc(b, *s);
    }
}

static void put_allowed(struct buf *b, const struct field *f) {
    if (f->values) {
        for (size_t i = 0; f->values[i]; i++) {
            buf_puts(b, i ? ", " : "");
            put_cell(b, f->values[i]);
        }
    } else if (f->flags & FF_RANGE) {
        buf_printf(b, "%lld to %lld", (long long)f->min, (long long)f->max);
    } else if (f->max_len) {
        buf_printf(b, "at most %u bytes", f->max_len);
    }
    if (f->flags & FF_REQUIRED) {
        buf_puts(b, f->values || (f->flags & FF_RANGE) || f->max_len ? "; required" : "required");
    }
}

/* One table a schema; those it names follow, each once. */
enum { SEEN_MAX = 64 };
struct seen {
    const struct schema *p[SEEN_MAX];
    size_t n;
};

static void put_schema(struct buf *b, const struct schema *s, struct seen *seen) {
    for (size_t i = 0; i < seen->n; i++) {
        if (seen->p[i] == s) {
            return;
        }
    }
    if (seen->n == SEEN_MAX) {
        return;
    }
    seen->p[seen->n++] = s;
    buf_printf(b,
               "## %s\n\n| field | type | default | allowed | meaning |\n"
               "| --- | --- | --- | --- | --- |\n",
               s->name ? s->name : "fields");
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct field *f = &s->fields[i];
        buf_printf(b, "| %s | %s", f->name, type_name(f->type));
        if (f->sub && f->sub->name) {
            buf_printf(b, " (%s)", f->sub->name);
        }
        buf_puts(b, " | ");
        put_cell(b, f->dflt);
        buf_puts(b, " | ");
        put_allowed(b, f);
        buf_puts(b, " | ");
        put_cell(b, f->doc);
        buf_puts(b, " |\n");
    }
    buf_putc(b, '\n');
    for (size_t i = 0; i < s->n_fields; i++) {
        if (s->fields[i].sub) {
            put_schema(b, s->fields[i].sub, seen);
        }
    }
}

void kind_print_docs(const struct kind *k, struct buf *b) {
    buf_printf(b, "# %s\n\n`apiVersion: %s%s%s`, `kind: %s`, %s. `margay get %s`", k->kind,
               k->group, k->group[0] ? "/" : "", k->version, k->kind,
               k->is_namespaced ? "namespaced" : "cluster-wide", k->plural);
    for (size_t i = 0; k->aliases && k->aliases[i]; i++) {
        buf_printf(b, "%s`%s`", i ? ", " : "; short: ", k->aliases[i]);
    }
    buf_puts(b, ".\n\n");
    if (k->def->doc) {
        buf_printf(b, "%s\n\n", k->def->doc);
    }
    struct seen seen = {.n = 0};
    if (k->def->spec) {
        put_schema(b, k->def->spec, &seen);
    }
    if (k->def->top) {
        put_schema(b, k->def->top, &seen);
    }
}
