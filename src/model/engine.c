/* The walk: a document along its kind's schema, once; values are checked, decoded, defaulted.
 * Decides what a value of a type may look like and how errors say so; what a kind's fields are
 * stands in kinds_*.c, rules across fields in rules_*.c, what a text may be in check.c.
 *
 * Invariants: recursion follows the schema, never the document, so its depth is the tables'; a null
 * counts as absent, as in Kubernetes' API; nothing decoded points outside the arena. */
#include "model/policy.h"
#include "model/schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    FOUND_TEXT_MAX = 80, /* bytes of a value shown in an error */
    PATH_NAME_MAX = 80,
    PATH_MAX_BYTES = 2048,
    MESSAGE_MAX_BYTES = 2048,
};

/* ---- errors ---- */

static bool is_plain_name(struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
              ch == '_' || ch == '-')) {
            return false;
        }
    }
    return s.n > 0;
}

static void path_print(struct buf *b, const struct at *at) {
    if (!at) {
        return;
    }
    path_print(b, at->up);
    if (!at->name.p) {
        buf_printf(b, "[%zu]", at->i);
        return;
    }
    struct str name = str_sub(at->name, 0, at->name.n < PATH_NAME_MAX ? at->name.n : PATH_NAME_MAX);
    if (is_plain_name(name)) {
        if (b->n) {
            buf_putc(b, '.');
        }
        buf_str(b, name);
    } else {
        buf_putc(b, '[');
        json_quote(b, name);
        buf_putc(b, ']');
    }
}

MG_PRINTF(5, 0)
static void fail_v(struct mctx *c, const struct at *at, uint32_t line, uint32_t col,
                   const char *fmt, va_list ap) {
    c->n_failed++;
    struct model_errors *errs = c->errs;
    if (!errs) {
        return;
    }
    if (errs->n >= MODEL_MAX_ERRORS) {
        errs->n_dropped++;
        return;
    }
    struct arena *a = errs->a ? errs->a : c->a;
    if (errs->n == errs->cap) {
        size_t cap = errs->cap ? errs->cap * 2 : 8;
        struct model_error *p = arena_array(a, struct model_error, cap);
        if (errs->n) {
            memcpy(p, errs->p, errs->n * sizeof(*p));
        }
        errs->p = p;
        errs->cap = cap;
    }
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(PATH_MAX_BYTES);
    path_print(&b, at);
    char text[MESSAGE_MAX_BYTES];
    vsnprintf(text, sizeof(text), fmt, ap);
    errs->p[errs->n++] = (struct model_error){.line = line,
                                              .col = col,
                                              .path = arena_dup(a, buf_view(&b)),
                                              .message = arena_dup(a, str_c(text))};
}

void model_fail(struct mctx *c, const struct at *at, const struct jnode *node, const char *fmt,
                ...) {
    va_list ap;
    va_start(ap, fmt);
    fail_v(c, at, node ? node->line : 0, node ? node->col : 0, fmt, ap);
    va_end(ap);
}

void model_fail_in(struct mctx *c, const struct at *at, const struct jnode *map, const char *name,
                   const char *fmt, ...) {
    struct at here = {at, str_c(name), 0};
    const struct jnode *n = jnode_getc(map, name);
    n = n ? n : map;
    va_list ap;
    va_start(ap, fmt);
    fail_v(c, &here, n ? n->line : 0, n ? n->col : 0, fmt, ap);
    va_end(ap);
}

const char *model_found(struct mctx *c, const struct jnode *n) {
    if (!n) {
        return "nothing";
    }
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(FOUND_TEXT_MAX * 8);
    switch (n->type) {
    case J_NULL:
        return "null";
    case J_BOOL:
        return n->b ? "true" : "false";
    case J_LIST:
        return n->child ? "a list" : "an empty list";
    case J_MAP:
        return n->child ? "a map" : "an empty map";
    case J_INT:
    case J_FLOAT:
        if (n->s.p) {
            buf_str(&b, str_sub(n->s, 0, n->s.n < FOUND_TEXT_MAX ? n->s.n : FOUND_TEXT_MAX));
        } else {
            buf_printf(&b, "%.17g", n->type == J_INT ? (double)n->i : n->f);
        }
        break;
    case J_STR: {
        size_t cut = n->s.n < FOUND_TEXT_MAX ? n->s.n : FOUND_TEXT_MAX;
        while (cut < n->s.n && cut > FOUND_TEXT_MAX - 4 && (n->s.p[cut] & 0xC0) == 0x80) {
            cut--;
        }
        json_quote(&b, str_sub(n->s, 0, cut));
        if (cut < n->s.n) {
            buf_puts(&b, "...");
        }
        break;
    }
    }
    return arena_cstr(c->a, buf_view(&b));
}

const char *model_choices(struct arena *a, const char *const *values) {
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(1024);
    for (size_t i = 0; values[i]; i++) {
        if (i) {
            buf_puts(&b, values[i + 1] ? ", " : " or ");
        }
        buf_puts(&b, values[i][0] ? values[i] : "\"\"");
    }
    return arena_cstr(a, buf_view(&b));
}

/* ---- helpers ---- */

struct jnode *member(const struct jnode *map, const char *name) {
    if (!map || map->type != J_MAP) {
        return NULL;
    }
    struct jnode *n = jnode_getc(map, name);
    return n && n->type != J_NULL ? n : NULL;
}

void model_fill(struct mctx *c, struct jnode *map, const char *name, const char *json) {
    struct jnode *v = NULL;
    int rc = json_parse(str_c(json), &json_limits_default, c->a, &v, NULL);
    mg_assert(rc == 0);
    jnode_each (n, v) {
        n->line = map->line;
        n->col = map->col;
    }
    v->line = map->line;
    v->col = map->col;
    jnode_set(c->a, map, str_c(name), v);
}

int schema_find(const struct schema *s, struct str name, size_t *hint) {
    for (size_t k = 0; k < s->n_fields; k++) {
        size_t i = *hint + k;
        i = i < s->n_fields ? i : i - s->n_fields;
        if (s->fields[i].name_len == name.n && memcmp(s->fields[i].name, name.p, name.n) == 0) {
            *hint = i + 1 < s->n_fields ? i + 1 : 0;
            return (int)i;
        }
    }
    return -1;
}

static const char *field_name(const void *arg, size_t i) {
    return ((const struct schema *)arg)->fields[i].name;
}

static size_t count_members(const struct jnode *n) {
    size_t k = 0;
    jnode_each (it, n) {
        k++;
    }
    return k;
}

static bool value_is(const char *const *values, struct str s, bool icase, int *index) {
    for (int i = 0; values[i]; i++) {
        if (str_is(s, values[i]) || (icase && str_ieq(s, str_c(values[i])))) {
            *index = i;
            return true;
        }
    }
    return false;
}

/* ---- values ---- */

static bool wrong_type(struct mctx *c, const struct at *at, const struct jnode *n,
                       const char *allowed) {
    const char *repair = "";
    int64_t i;
    if (n->type == J_STR && !strcmp(allowed, "a list of text")) {
        repair = ": write it as a list";
    } else if (allowed[0] == 't' && !strncmp(allowed, "text", 4) &&
               (n->type == J_INT || n->type == J_FLOAT || n->type == J_BOOL)) {
        repair = ": put it in quotes";
    } else if (!strcmp(allowed, "true or false") && n->type == J_STR &&
               (str_ieq(n->s, STR("true")) || str_ieq(n->s, STR("false")))) {
        repair = ": write it without quotes";
    } else if (!strcmp(allowed, "a whole number") && n->type == J_STR &&
               str_to_i64(n->s, &i) == 0) {
        repair = ": write it without quotes";
    }
    model_fail(c, at, n, "found %s, allowed is %s%s", model_found(c, n), allowed, repair);
    return false;
}

static bool read_int(struct mctx *c, const struct field *f, const struct at *at,
                     const struct jnode *n, int64_t *out) {
    if (f->check == CHECK_AS_NUMBER && n->type == J_STR) {
        const char *allowed = check_text(CHECK_AS_NUMBER, n->s, c->a);
        if (allowed) {
            model_fail(c, at, n, "found %s, allowed is %s", model_found(c, n), allowed);
            return false;
        }
        *out = 0;
        return true;
    }
    if (n->type != J_INT) {
        return wrong_type(c, at, n, "a whole number");
    }
    if ((f->flags & FF_RANGE) && (n->i < f->min || n->i > f->max)) {
        model_fail(c, at, n, "found %s, allowed is %lld to %lld", model_found(c, n),
                   (long long)f->min, (long long)f->max);
        return false;
    }
    *out = n->i;
    return true;
}

static bool is_selector(enum check_id id) {
    return id == CHECK_SELECTOR || id == CHECK_SELECTOR1 || id == CHECK_SELECTOR_NS;
}

/* Text of a field or of a list's member: length, values, look. index: of the value. */
static bool read_text(struct mctx *c, const struct field *f, const struct at *at,
                      const struct jnode *n, int *index) {
    if (n->type != J_STR) {
        return wrong_type(c, at, n, f->values ? model_choices(c->a, f->values) : "text");
    }
    /* An empty text stands for "not given" in Calico's API, a required one aside. */
    if (n->s.n == 0 && !(f->flags & FF_REQUIRED) && f->type == F_STR) {
        return true;
    }
    if (f->values) {
        if (!value_is(f->values, n->s, f->flags & FF_ICASE, index)) {
            model_fail(c, at, n, "found %s, allowed is %s", model_found(c, n),
                       model_choices(c->a, f->values));
            return false;
        }
        return true;
    }
    if (c->mode == MODEL_STORE && is_selector(f->check)) {
        return true; /* who uses it parses it, and must see that it can't */
    }
    if (f->max_len && n->s.n > f->max_len) {
        model_fail(c, at, n, "found %zu bytes, allowed are at most %u: shorten it", n->s.n,
                   f->max_len);
        return false;
    }
    const char *allowed = check_text(f->check, n->s, c->a);
    if (allowed) {
        model_fail(c, at, n, "found %s, allowed is %s", model_found(c, n), allowed);
        return false;
    }
    return true;
}

static int text_cmp(const void *a, const void *b) {
    return str_cmp((*(const struct jnode *const *)a)->s, (*(const struct jnode *const *)b)->s);
}

static bool check_items(struct mctx *c, const struct field *f, const struct at *at,
                        const struct jnode *n, const char *what) {
    if (n->type != J_LIST) {
        return wrong_type(c, at, n, what);
    }
    size_t k = count_members(n);
    if ((f->flags & FF_RANGE) && ((int64_t)k < f->min || (int64_t)k > f->max)) {
        model_fail(c, at, n, "found %zu entries, allowed are %lld to %lld", k, (long long)f->min,
                   (long long)f->max);
        return false;
    }
    if ((f->flags & FF_UNIQUE) && c->mode == MODEL_APPLY && k > 1) {
        const struct jnode **seen = arena_array(c->a, const struct jnode *, k);
        size_t m = 0;
        jnode_each (it, n) {
            if (it->type == J_STR) {
                seen[m++] = it;
            }
        }
        qsort(seen, m, sizeof(*seen), text_cmp);
        for (size_t i = 1; i < m; i++) {
            if (str_eq(seen[i]->s, seen[i - 1]->s)) {
                model_fail(c, at, seen[i], "%s stands there twice: remove one",
                           model_found(c, seen[i]));
            }
        }
    }
    return true;
}

/* ---- lists ---- */

/* What every LIST(T) looks like. */
struct any_list {
    void *p;
    size_t n;
    bool set;
};

static void read_strs(struct mctx *c, const struct field *f, const struct at *at,
                      const struct jnode *n, void *dst) {
    if (!check_items(c, f, at, n, "a list of text")) {
        return;
    }
    struct str_list l = {.set = true};
    unsigned bits = 0;
    if (dst && f->as != AS_BITS) {
        l.p = arena_array(c->a, struct str, count_members(n));
    }
    struct at here = {at, STR_NULL, 0};
    jnode_each (it, n) {
        int index = 0;
        if (read_text(c, f, &here, it, &index)) {
            if (l.p) {
                l.p[l.n++] = it->s;
            }
            bits |= f->values ? 1U << index : 0;
        }
        here.i++;
    }
    if (dst && f->as == AS_BITS) {
        *(unsigned *)dst = bits;
    } else if (dst) {
        *(struct str_list *)dst = l;
    }
}

static void read_ints(struct mctx *c, const struct field *f, const struct at *at,
                      const struct jnode *n) {
    if (!check_items(c, f, at, n, "a list of numbers")) {
        return;
    }
    struct field item = *f;
    item.flags &= ~(unsigned)FF_RANGE; /* that was of the list */
    if (f->check == CHECK_AS_NUMBER) {
        item.flags |= FF_RANGE;
        item.min = 0;
        item.max = UINT32_MAX;
    }
    struct at here = {at, STR_NULL, 0};
    jnode_each (it, n) {
        int64_t v;
        (void)read_int(c, &item, &here, it, &v); /* it has noted the error itself */
        here.i++;
    }
}

static void read_ports(struct mctx *c, const struct field *f, const struct at *at,
                       const struct jnode *n, void *dst) {
    if (!check_items(c, f, at, n, "a list of ports")) {
        return;
    }
    struct any_list l = {.set = true, .p = arena_array(c->a, struct port_spec, count_members(n))};
    struct at here = {at, STR_NULL, 0};
    jnode_each (it, n) {
        const char *why = NULL;
        if (port_read(it, (struct port_spec *)l.p + l.n, &why)) {
            l.n++;
        } else {
            model_fail(c, &here, it, "found %s, allowed is %s", model_found(c, it), why);
        }
        here.i++;
    }
    if (dst) {
        *(struct any_list *)dst = l;
    }
}

static void read_nets(struct mctx *c, const struct field *f, const struct at *at,
                      const struct jnode *n, void *dst) {
    if (!check_items(c, f, at, n, "a list of text")) {
        return;
    }
    struct any_list l = {.set = true};
    size_t size = f->type == F_NETS ? sizeof(struct prefix) : sizeof(struct ip46);
    l.p = arena_alloc(c->a, size * count_members(n));
    struct at here = {at, STR_NULL, 0};
    jnode_each (it, n) {
        int index;
        char *p = (char *)l.p + l.n * size;
        if (read_text(c, f, &here, it, &index)) {
            int rc = f->type == F_NETS ? prefix_parse(it->s, (struct prefix *)(void *)p)
                                       : ip_parse(it->s, (struct ip46 *)(void *)p);
            if (rc) {
                model_fail(c, &here, it, "found %s, allowed is %s", model_found(c, it),
                           f->type == F_NETS ? "a prefix" : "an address");
            } else {
                l.n++;
            }
        }
        here.i++;
    }
    if (dst) {
        *(struct any_list *)dst = l;
    }
}

static void read_objs(struct mctx *c, const struct field *f, const struct at *at,
                      const struct jnode *n, void *dst) {
    if (!check_items(c, f, at, n, "a list")) {
        return;
    }
    size_t k = count_members(n);
    struct any_list l = {.set = true};
    if (f->sub->size) { /* without a place too: the schema's rules read it */
        l.p = arena_alloc(c->a, f->sub->size * k);
    }
    struct at here = {at, STR_NULL, 0};
    jnode_each (it, n) {
        if (it->type != J_MAP) {
            (void)wrong_type(c, &here, it, "a map"); /* always false */
        } else {
            schema_read(c, f->sub, &here, it, l.p ? (char *)l.p + l.n++ * f->sub->size : NULL);
        }
        here.i++;
    }
    if (dst) {
        *(struct any_list *)dst = l;
    }
}

/* ---- one field ---- */

static void put_int(const struct field *f, void *dst, int64_t v) {
    switch (f->as) {
    case AS_U8:
        *(uint8_t *)dst = (uint8_t)v;
        break;
    case AS_U16:
        *(uint16_t *)dst = (uint16_t)v;
        break;
    case AS_UNSIGNED:
        *(unsigned *)dst = (unsigned)v;
        break;
    case AS_I64:
        *(int64_t *)dst = v;
        break;
    case AS_DEFAULT:
    case AS_OPT:
    case AS_INDEX:
    case AS_BITS:
        *(struct opt_int *)dst = (struct opt_int){true, v};
        break;
    }
}

static void read_scalar(struct mctx *c, const struct field *f, const struct at *at, struct jnode *n,
                        void *dst) {
    int64_t v;
    int index = 0;
    switch (f->type) {
    case F_BOOL:
        if (n->type != J_BOOL) {
            (void)wrong_type(c, at, n, "true or false");
        } else if (dst && f->as == AS_OPT) {
            *(struct opt_bool *)dst = (struct opt_bool){true, n->b};
        } else if (dst) {
            *(bool *)dst = n->b;
        }
        break;
    case F_INT:
        if (read_int(c, f, at, n, &v) && dst) {
            put_int(f, dst, v);
        }
        break;
    case F_FLOAT:
        if (n->type != J_INT && n->type != J_FLOAT) {
            (void)wrong_type(c, at, n, "a number");
        } else if (dst) {
            *(struct opt_float *)dst =
                (struct opt_float){true, n->type == J_INT ? (double)n->i : n->f};
        }
        break;
    case F_STR:
        if (read_text(c, f, at, n, &index) && dst) {
            if (f->as == AS_INDEX) {
                *(int *)dst = index;
            } else {
                *(struct str *)dst = n->s;
            }
        }
        break;
    case F_NET:
        if (read_text(c, f, at, n, &index)) {
            struct prefix p;
            if (prefix_parse(n->s, &p)) {
                model_fail(c, at, n, "found %s, allowed is a prefix", model_found(c, n));
            } else if (dst) {
                *(struct prefix *)dst = p;
            }
        }
        break;
    case F_PROTOCOL:
        v = protocol_read(n);
        if (v < 1) {
            model_fail(c, at, n,
                       "found %s, allowed is TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number "
                       "from 1 to 255",
                       model_found(c, n));
        } else if (dst) {
            put_int(f, dst, v);
        }
        break;
    case F_PORT: {
        struct port_spec port;
        const char *why = NULL;
        if (!port_read(n, &port, &why)) {
            model_fail(c, at, n, "found %s, allowed is %s", model_found(c, n), why);
        }
        break;
    }
    case F_INT_OR_STR:
        if (n->type != J_INT && n->type != J_STR) {
            (void)wrong_type(c, at, n, "a whole number or a text");
        } else if (dst) {
            *(struct int_or_str *)dst = (struct int_or_str){.set = true,
                                                            .is_int = n->type == J_INT,
                                                            .i = n->type == J_INT ? n->i : 0,
                                                            .s = jnode_str(n)};
        }
        break;
    case F_ANY:
    case F_STRS:
    case F_INTS:
    case F_STRMAP:
    case F_OBJ:
    case F_OBJS:
    case F_PORTS:
    case F_NETS:
    case F_IPS:
        break;
    }
}

void field_read(struct mctx *c, const struct field *f, const struct at *at, struct jnode *n,
                void *out) {
    void *dst = out && f->at ? (char *)out + f->at - 1 : NULL;
    switch (f->type) {
    case F_ANY:
        break;
    case F_STRS:
        read_strs(c, f, at, n, dst);
        break;
    case F_INTS:
        read_ints(c, f, at, n);
        break;
    case F_PORTS:
        read_ports(c, f, at, n, dst);
        break;
    case F_NETS:
    case F_IPS:
        read_nets(c, f, at, n, dst);
        break;
    case F_OBJS:
        read_objs(c, f, at, n, dst);
        break;
    case F_OBJ:
        if (n->type != J_MAP) {
            (void)wrong_type(c, at, n, "a map");
            if (dst && f->sub->broken_at) {
                *(bool *)((char *)dst + f->sub->broken_at - 1) = true;
            }
        } else {
            void *place = f->flags & FF_FLAT ? out : dst;
            if (!place && f->sub->size) { /* the schema's rules read it */
                place = arena_alloc(c->a, f->sub->size);
            }
            schema_read(c, f->sub, at, n, place);
        }
        break;
    case F_STRMAP:
        if (n->type != J_MAP) {
            (void)wrong_type(c, at, n, "a map of text");
        } else {
            if (f->check == CHECK_LABELS && c->mode == MODEL_APPLY) {
                labels_check(c, at, n);
            }
            struct str_map m = strmap_read(c, at, n);
            if (dst) {
                *(struct str_map *)dst = m;
            }
        }
        break;
    case F_BOOL:
    case F_INT:
    case F_FLOAT:
    case F_STR:
    case F_NET:
    case F_PROTOCOL:
    case F_PORT:
    case F_INT_OR_STR:
        read_scalar(c, f, at, n, dst);
        break;
    }
}

static void unknown_field(struct mctx *c, const struct schema *s, const struct at *at,
                          const struct jnode *n) {
    const char *near = nearest_name(n->key, field_name, s, s->n_fields);
    struct jnode key = {.type = J_STR, .s = n->key};
    if (near) {
        model_fail(c, at, n, "unknown field %s: did you mean %s?", model_found(c, &key), near);
        return;
    }
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(512);
    for (size_t i = 0; i < s->n_fields && i < 20; i++) {
        buf_printf(&b, "%s%s", i ? ", " : "", s->fields[i].name);
    }
    model_fail(c, at, n, "unknown field %s; known here are %s%s", model_found(c, &key),
               s->n_fields ? buf_cstr(&b) : "none", s->n_fields > 20 ? ", ..." : "");
}

void schema_read(struct mctx *c, const struct schema *s, const struct at *at, struct jnode *map,
                 void *out) {
    size_t n_failed = c->n_failed, n_contained = c->n_contained;
    if (out && s->set_at) {
        *(bool *)((char *)out + s->set_at - 1) = true;
    }
    bool has[SCHEMA_MAX_FIELDS];
    memset(has, 0, s->n_fields);
    size_t hint = 0;
    jnode_each (n, map) {
        int i = schema_find(s, n->key, &hint);
        struct at here = {at, n->key.p ? n->key : STR(""), 0};
        if (i < 0) {
            if (c->mode == MODEL_APPLY && !s->is_open) {
                unknown_field(c, s, &here, n);
            }
            continue;
        }
        const struct field *f = &s->fields[i];
        if (n->type == J_NULL || (c->mode == MODEL_APPLY && (f->flags & FF_STATUS))) {
            continue;
        }
        has[i] = true;
        field_read(c, f, &here, n, out);
    }
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct field *f = &s->fields[i];
        if (has[i]) {
            continue;
        }
        if (f->flags & FF_REQUIRED) {
            struct at here = {at, str_c(f->name), 0};
            model_fail(c, &here, map, "is missing: %s", f->doc ? f->doc : "it must be given");
        } else if ((f->flags & FF_FILL) && c->mode == MODEL_APPLY) {
            model_fill(c, map, f->name, f->dflt);
            struct at here = {at, str_c(f->name), 0};
            field_read(c, f, &here, jnode_getc(map, f->name), out);
        }
    }
    if (s->rules) {
        s->rules(c, at, map, out);
    }
    size_t n = c->n_failed - n_failed;
    if (out && s->broken_at && n > 0) {
        *(bool *)((char *)out + s->broken_at - 1) = true;
        c->n_contained = n_contained + n;
    }
    if (out && s->own_broken_at && n > c->n_contained - n_contained) {
        *(bool *)((char *)out + s->own_broken_at - 1) = true;
    }
}
