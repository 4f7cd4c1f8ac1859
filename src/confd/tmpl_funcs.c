/* The functions that every template has. `and`, `or` and `call` are the executor's, since they
 * decide what of their arguments is evaluated, or call. */
#include "confd/tmpl_int.h"

struct value value_zero(const struct vtype *type) {
    if (type == &VT_ANY) {
        return VALUE_NIL;
    }
    struct value v = {.type = type};
    if (type->kind == VK_STRING) {
        v.s = "";
    }
    return v;
}

static bool is_int_like(const struct vtype *type) {
    return type->kind == VK_INT || type->kind == VK_UINT;
}

int value_convert(const struct value *v, const struct vtype *to, struct value *out, struct err *e) {
    bool can_be_nil = to->kind != VK_BOOL && !is_int_like(to) && to->kind != VK_FLOAT &&
                      to->kind != VK_STRING && to->kind != VK_RECORD;
    if (!v->type && !v->is_iface) {
        if (!can_be_nil) {
            return ERR_GO(e, "value is nil; should be of type %s", to->name);
        }
        *out = value_zero(to);
        return 0;
    }
    if (!value_assignable(v, to)) {
        if (v->is_iface || !is_int_like(v->type) || !is_int_like(to)) {
            return ERR_GO(e, "value has type %s; should be %s", value_type_name(v), to->name);
        }
        *out = *v;
        out->type = to;
        return 0;
    }
    *out = *v;
    return 0;
}

/* An index into n elements (n itself passes, as in Go). */
static int index_of(const struct value *v, size_t n, size_t *out, struct err *e) {
    if (!v->type && !v->is_iface) {
        return ERR_GO(e, "cannot index slice/array with nil");
    }
    if (v->is_iface || !is_int_like(v->type)) {
        return ERR_GO(e, "cannot index slice/array with type %s", value_type_name(v));
    }
    if (v->i < 0 || v->u > n) {
        return ERR_GO(e, "index out of range: %lld", (long long)v->i);
    }
    *out = (size_t)v->u;
    return 0;
}

static size_t length_of(const struct value *v) {
    return v->type->kind == VK_STRING ? v->n
           : v->type->kind == VK_MAP  ? value_map_n(v)
                                      : value_list_n(v);
}

static int index_one(struct value *item, const struct value *index, struct err *e) {
    bool is_nil;
    *item = value_indirect(*item, &is_nil);
    if (is_nil) {
        return ERR_GO(e, "index of nil pointer");
    }
    if (item->type->kind == VK_MAP) {
        struct value key, found;
        int r = value_convert(index, item->type->key, &key, e);
        if (r == 0 && key.type && (key.type->kind == VK_LIST || key.type->kind == VK_MAP)) {
            return ERR_GO(e, "runtime error: hash of unhashable type %s", key.type->name);
        }
        if (r == 0) {
            *item = value_map_get(item, value_concrete(key), &found) ? found
                                                                     : value_zero(item->type->elem);
        }
        return r;
    }
    if (item->type->kind != VK_LIST && item->type->kind != VK_STRING) {
        return ERR_GO(e, "can't index item of type %s", item->type->name);
    }
    size_t i, n = length_of(item);
    int r = index_of(index, n, &i, e);
    if (r < 0) {
        return r;
    }
    bool is_string = item->type->kind == VK_STRING;
    if (i == n) {
        return ERR_GO(e, "reflect: %s index out of range", is_string ? "string" : "slice");
    }
    if (is_string) {
        *item = (struct value){.type = &VT_UINT8, .u = (unsigned char)item->s[i]};
    } else {
        *item = value_list_get(item, i);
    }
    return 0;
}

static int do_index(const struct tmpl_call *c, const struct value *args, size_t n,
                    struct value *out, struct err *e) {
    (void)c;
    struct value item = value_concrete(args[0]);
    if (!item.type) {
        return ERR_GO(e, "index of untyped nil");
    }
    for (size_t i = 1; i < n; i++) {
        struct value index = value_concrete(args[i]);
        int r = index_one(&item, &index, e);
        if (r < 0) {
            return r;
        }
    }
    *out = item;
    return 0;
}

static struct value sliced(struct arena *a, const struct value *item, const size_t *at,
                           size_t cap) {
    struct value v = value_concrete(*item);
    if (v.type->kind == VK_STRING) {
        v.s += at[0];
        v.n = (uint32_t)(at[1] - at[0]);
        return v;
    }
    if (v.list) {
        struct vlist *part = arena_new(a, struct vlist);
        *part = (struct vlist){v.list->p + at[0], at[1] - at[0], cap - at[0]};
        v.list = part;
    }
    return v;
}

static int do_slice(const struct tmpl_call *c, const struct value *args, size_t n,
                    struct value *out, struct err *e) {
    struct value item = value_concrete(args[0]);
    bool is_nil;
    if (!item.type) {
        return ERR_GO(e, "slice of untyped nil");
    }
    item = value_indirect(item, &is_nil);
    if (is_nil) {
        return ERR_GO(e, "slice of nil pointer");
    }
    if (n > 4) {
        return ERR_GO(e, "too many slice indexes: %zu", n - 1);
    }
    bool is_string = item.type->kind == VK_STRING;
    if (is_string && n == 4) {
        return ERR_GO(e, "cannot 3-index slice a string");
    }
    if (!is_string && item.type->kind != VK_LIST) {
        return ERR_GO(e, "can't slice item of type %s", item.type->name);
    }
    size_t cap = is_string ? item.n : item.list ? item.list->cap : 0;
    size_t at[3] = {0, length_of(&item), cap};
    for (size_t i = 1; i < n; i++) {
        /* Go's slice does not look into interfaces here, as its index does. */
        int r = index_of(&args[i], cap, &at[i - 1], e);
        if (r < 0) {
            return r;
        }
    }
    if (at[0] > at[1]) {
        return ERR_GO(e, "invalid slice index: %zu > %zu", at[0], at[1]);
    }
    if (n == 4 && at[1] > at[2]) {
        return ERR_GO(e, "invalid slice index: %zu > %zu", at[1], at[2]);
    }
    *out = sliced(c->arena, &item, at, n == 4 ? at[2] : cap);
    return 0;
}

static int do_len(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                  struct err *e) {
    (void)c, (void)n;
    bool is_nil;
    struct value item = value_indirect(args[0], &is_nil);
    if (is_nil) {
        return ERR_GO(e, "len of nil pointer");
    }
    if (!item.type) {
        return ERR_GO(e, "reflect: call of reflect.Value.Type on zero Value");
    }
    enum vkind kind = item.type->kind;
    if (kind != VK_LIST && kind != VK_MAP && kind != VK_STRING) {
        return ERR_GO(e, "len of type %s", item.type->name);
    }
    *out = value_int((int64_t)length_of(&item));
    return 0;
}

static int do_not(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                  struct err *e) {
    (void)c, (void)n, (void)e;
    *out = value_bool(!value_is_true(&args[0]));
    return 0;
}

static int text_result(const struct tmpl_call *c, struct value *out, struct err *e) {
    if (c->text->overflow) {
        return err_set(e, ERR_TOO_BIG, "the text is longer than the limit of %zu bytes",
                       c->text->max);
    }
    *out = value_str(arena_dup(c->arena, buf_view(c->text)));
    return 0;
}

static int do_print(const struct tmpl_call *c, const struct value *args, size_t n,
                    struct value *out, struct err *e) {
    tmpl_print(c->text, args, n);
    return text_result(c, out, e);
}

static int do_printf(const struct tmpl_call *c, const struct value *args, size_t n,
                     struct value *out, struct err *e) {
    tmpl_printf(c->text, value_to_str(&args[0]), args + 1, n - 1);
    return text_result(c, out, e);
}

static int do_println(const struct tmpl_call *c, const struct value *args, size_t n,
                      struct value *out, struct err *e) {
    for (size_t i = 0; i < n; i++) {
        buf_puts(c->text, i > 0 ? " " : "");
        print_value(c->text, &args[i]);
    }
    buf_putc(c->text, '\n');
    return text_result(c, out, e);
}

/* The text that html, js and urlquery escape. */
static struct str args_text(const struct tmpl_call *c, const struct value *args, size_t n) {
    if (n == 1 && value_is_kind(&args[0], VK_STRING) && !args[0].type->string) {
        return value_to_str(&args[0]);
    }
    bool was_string = false;
    for (size_t i = 0; i < n; i++) {
        bool is_nil;
        struct value v = args[i].type ? value_indirect(args[i], &is_nil) : VALUE_UNSET;
        bool is_string = !v.type || v.type->kind == VK_STRING;
        if (i > 0 && !is_string && !was_string) {
            buf_putc(c->text, ' ');
        }
        if (v.type) {
            print_value(c->text, &v);
        } else {
            buf_puts(c->text, "<no value>");
        }
        was_string = is_string;
    }
    struct str text = arena_dup(c->arena, buf_view(c->text));
    c->text->n = 0;
    return text;
}

static int do_html(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                   struct err *e) {
    struct str s = args_text(c, args, n);
    for (size_t i = 0; i < s.n; i++) {
        switch (s.p[i]) {
        case '\0':
            buf_puts(c->text, "\xEF\xBF\xBD");
            break;
        case '"':
            buf_puts(c->text, "&#34;");
            break;
        case '\'':
            buf_puts(c->text, "&#39;");
            break;
        case '&':
            buf_puts(c->text, "&amp;");
            break;
        case '<':
            buf_puts(c->text, "&lt;");
            break;
        case '>':
            buf_puts(c->text, "&gt;");
            break;
        default:
            buf_putc(c->text, s.p[i]);
        }
    }
    return text_result(c, out, e);
}

static void js_escape(struct buf *b, struct str s, size_t i, size_t *width) {
    uint32_t r = rune_at(s, i, width);
    if (r == '\\' || r == '\'' || r == '"') {
        buf_putc(b, '\\');
        buf_putc(b, (char)r);
    } else if (r == '<' || r == '>' || r == '&' || r == '=' || r < ' ') {
        buf_printf(b, "\\u%04X", r);
    } else if (r < 0x80 || rune_is_print(r)) {
        buf_add(b, s.p + i, *width);
    } else {
        buf_printf(b, "\\u%04X", r);
    }
}

static int do_js(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                 struct err *e) {
    struct str s = args_text(c, args, n);
    for (size_t i = 0, width; i < s.n; i += width) {
        js_escape(c->text, s, i, &width);
    }
    return text_result(c, out, e);
}

static int do_urlquery(const struct tmpl_call *c, const struct value *args, size_t n,
                       struct value *out, struct err *e) {
    struct str s = args_text(c, args, n);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        bool is_plain = ch < 0x80 && (rune_is_alnum(ch) || ch == '-' || ch == '.' || ch == '~');
        if (is_plain) {
            buf_putc(c->text, (char)ch);
        } else if (ch == ' ') {
            buf_putc(c->text, '+');
        } else {
            buf_printf(c->text, "%%%02X", ch);
        }
    }
    return text_result(c, out, e);
}

enum order { ORDER_EQ, ORDER_NE, ORDER_LT, ORDER_LE, ORDER_GT, ORDER_GE };

static int compare(enum order order, const struct value *args, size_t n, struct value *out,
                   struct err *e) {
    struct value two[2];
    bool result = false;
    int r;
    if (order == ORDER_EQ || order == ORDER_NE) {
        r = compare_eq(args, n, &result, e);
    } else {
        two[0] = value_concrete(args[0]);
        two[1] = value_concrete(args[1]);
        r = compare_lt(two, &result, e);
        bool wants_eq = order == ORDER_LE || order == ORDER_GT;
        if (r == 0 && wants_eq && !result) {
            r = compare_eq(two, 2, &result, e);
        }
    }
    bool is_inverse = order == ORDER_NE || order == ORDER_GT || order == ORDER_GE;
    *out = value_bool(result != is_inverse);
    return r;
}

#define COMPARE(name, order)                                                       \
    static int name(const struct tmpl_call *c, const struct value *args, size_t n, \
                    struct value *out, struct err *e) {                            \
        (void)c;                                                                   \
        return compare((order), args, n, out, e);                                  \
    }

COMPARE(do_eq, ORDER_EQ)
COMPARE(do_ne, ORDER_NE)
COMPARE(do_lt, ORDER_LT)
COMPARE(do_le, ORDER_LE)
COMPARE(do_gt, ORDER_GT)
COMPARE(do_ge, ORDER_GE)

#define V &VT_VALUE

static const struct tmpl_func builtins[] = {
    {"and", NULL, 2, true, {V, V}},
    {"call", NULL, 2, true, {V, V}},
    {"eq", do_eq, 2, true, {V, V}},
    {"ge", do_ge, 2, false, {V, V}},
    {"gt", do_gt, 2, false, {V, V}},
    {"html", do_html, 1, true, {&VT_ANY}},
    {"index", do_index, 2, true, {V, V}},
    {"js", do_js, 1, true, {&VT_ANY}},
    {"le", do_le, 2, false, {V, V}},
    {"len", do_len, 1, false, {V}},
    {"lt", do_lt, 2, false, {V, V}},
    {"ne", do_ne, 2, false, {V, V}},
    {"not", do_not, 1, false, {V}},
    {"or", NULL, 2, true, {V, V}},
    {"print", do_print, 1, true, {&VT_ANY}},
    {"printf", do_printf, 2, true, {&VT_STRING, &VT_ANY}},
    {"println", do_println, 1, true, {&VT_ANY}},
    {"slice", do_slice, 2, true, {V, V}},
    {"urlquery", do_urlquery, 1, true, {&VT_ANY}},
};

const struct tmpl_func *builtin_find(struct str name, enum builtin *which) {
    for (size_t i = 0; i < ARRAY_LEN(builtins); i++) {
        if (str_is(name, builtins[i].name)) {
            *which = str_is(name, "and")    ? BUILTIN_AND
                     : str_is(name, "or")   ? BUILTIN_OR
                     : str_is(name, "call") ? BUILTIN_CALL
                                            : BUILTIN_OTHER;
            return &builtins[i];
        }
    }
    return NULL;
}
