/* See template_world.h. Descriptions are trusted: they come with the tests. */
#include "template_world.h"

#include <ctype.h>
#include <stdlib.h>

static const struct vfield pair_fields[] = {{"Key", &VT_STRING}, {"Value", &VT_STRING}};
static const struct vtype pair_type = {
    .kind = VK_RECORD, .name = "main.Pair", .fields = pair_fields, .n_fields = 2};
static const struct vtype pairs_type = {.kind = VK_LIST, .name = "[]main.Pair", .elem = &pair_type};
static const struct vtype pair_ptr = {.kind = VK_PTR, .name = "*main.Pair", .elem = &pair_type};

static void level_string(const struct value *v, struct buf *out) {
    buf_printf(out, "level-%lld", (long long)v->i);
}

static const struct vtype level_type = {
    .kind = VK_INT, .name = "main.Level", .string = level_string};

static const struct vfield box_fields[] = {
    {"Name", &VT_STRING},  {"N", &VT_INT},        {"Any", &VT_ANY},
    {"List", &VT_STRINGS}, {"Inner", &pair_type}, {"Next", &pair_ptr},
};

static int box_greet(const struct tmpl_call *c, const struct value *args, size_t n,
                     struct value *out, struct err *e) {
    (void)n, (void)e;
    *out = value_str(arena_printf(c->arena, "hello %.*s from %.*s", STR_FMT(value_to_str(&args[0])),
                                  STR_FMT(value_to_str(&c->self.rec[0]))));
    return 0;
}

static int box_title(const struct tmpl_call *c, const struct value *args, size_t n,
                     struct value *out, struct err *e) {
    (void)args, (void)n, (void)e;
    *out = value_str(arena_printf(c->arena, "box %.*s", STR_FMT(value_to_str(&c->self.rec[0]))));
    return 0;
}

static int box_bad(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                   struct err *e) {
    (void)c, (void)args, (void)n, (void)out;
    return err_set(e, ERR_INVALID, "bad box");
}

static const struct tmpl_func box_methods[] = {
    {"Greet", box_greet, 1, false, {&VT_STRING}},
    {"Title", box_title, 0, false, {0}},
    {"Bad", box_bad, 0, false, {0}},
};
static const struct vtype box_type = {
    .kind = VK_RECORD,
    .name = "main.Box",
    .fields = box_fields,
    .n_fields = ARRAY_LEN(box_fields),
    .methods = box_methods,
    .n_methods = ARRAY_LEN(box_methods),
};

#define FUNC(name)                                                                 \
    static int name(const struct tmpl_call *c, const struct value *args, size_t n, \
                    struct value *out, struct err *e)
#define UNUSED (void)c, (void)args, (void)n, (void)out, (void)e

FUNC(do_add) {
    UNUSED;
    *out = value_int((int64_t)(args[0].u + args[1].u));
    return 0;
}

FUNC(do_upper) {
    UNUSED;
    struct str s = arena_dup(c->arena, value_to_str(&args[0]));
    for (size_t i = 0; i < s.n; i++) {
        ((char *)(uintptr_t)s.p)[i] = (char)toupper((unsigned char)s.p[i]);
    }
    *out = value_str(s);
    return 0;
}

FUNC(do_join) {
    UNUSED;
    for (size_t i = 0; i < value_list_n(&args[0]); i++) {
        struct value v = value_list_get(&args[0], i);
        if (i > 0) {
            buf_str(c->text, value_to_str(&args[1]));
        }
        buf_str(c->text, value_to_str(&v));
    }
    *out = value_str(arena_dup(c->arena, buf_view(c->text)));
    return 0;
}

FUNC(do_fail) {
    UNUSED;
    return err_set(e, ERR_INVALID, "failed: %.*s", STR_FMT(value_to_str(&args[0])));
}

FUNC(do_any) {
    UNUSED;
    *out = args[0];
    out->is_iface = true;
    return 0;
}

FUNC(do_half) {
    UNUSED;
    *out = value_float(args[0].f / 2);
    return 0;
}

FUNC(do_same) {
    UNUSED;
    *out = args[0];
    return 0;
}

FUNC(do_sum) {
    UNUSED;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += args[i].u;
    }
    *out = value_int((int64_t)sum);
    return 0;
}

FUNC(do_tagged) {
    UNUSED;
    struct value all[2] = {args[0], value_int((int64_t)n - 1)};
    tmpl_print(c->text, all, 2);
    *out = value_str(arena_dup(c->arena, buf_view(c->text)));
    return 0;
}

FUNC(do_keys) {
    UNUSED;
    *out = value_int((int64_t)value_map_n(&args[0]));
    return 0;
}

static struct value make_pair(struct arena *a, struct str key, struct str value) {
    struct value *fields = arena_array(a, struct value, 2);
    fields[0] = value_str(key);
    fields[1] = value_str(value);
    return value_record(&pair_type, fields);
}

FUNC(do_pairs) {
    UNUSED;
    *out = value_list_new(c->arena, &pairs_type, 2);
    out->list->p[0] = make_pair(c->arena, STR("a"), STR("1"));
    out->list->p[1] = make_pair(c->arena, STR("b"), STR("2"));
    return 0;
}

FUNC(do_words) {
    UNUSED;
    struct str s = value_to_str(&args[0]);
    struct str *words = arena_array(c->arena, struct str, s.n + 1);
    size_t count = 0;
    for (size_t i = 0; i < s.n;) {
        size_t end = i;
        while (end < s.n && !isspace((unsigned char)s.p[end])) {
            end++;
        }
        if (end > i) {
            words[count++] = str_sub(s, i, end);
        }
        i = end + 1;
    }
    *out = value_strings(c->arena, words, count);
    return 0;
}

FUNC(do_lookup) {
    UNUSED;
    if (!value_map_get(&args[0], args[1], out)) {
        *out = value_str(STR(""));
    }
    return 0;
}

FUNC(do_pair) {
    UNUSED;
    *out = make_pair(c->arena, value_to_str(&args[0]), value_to_str(&args[1]));
    return 0;
}

FUNC(do_keyof) {
    UNUSED;
    *out = args[0].rec[0];
    return 0;
}

FUNC(do_null) {
    UNUSED;
    *out = VALUE_NIL;
    return 0;
}

FUNC(do_level) {
    UNUSED;
    *out = args[0];
    out->type = &level_type;
    return 0;
}

static const struct tmpl_func funcs[] = {
    {"add", do_add, 2, false, {&VT_INT, &VT_INT}},
    {"upper", do_upper, 1, false, {&VT_STRING}},
    {"join", do_join, 2, false, {&VT_STRINGS, &VT_STRING}},
    {"fail", do_fail, 1, false, {&VT_STRING}},
    {"any", do_any, 1, false, {&VT_ANY}},
    {"half", do_half, 1, false, {&VT_FLOAT}},
    {"u", do_same, 1, false, {&VT_UINT}},
    {"flag", do_same, 1, false, {&VT_BOOL}},
    {"sum", do_sum, 1, true, {&VT_INT}},
    {"tagged", do_tagged, 2, true, {&VT_STRING, &VT_ANY}},
    {"keys", do_keys, 1, false, {&VT_MAP}},
    {"pairs", do_pairs, 0, false, {0}},
    {"words", do_words, 1, false, {&VT_STRING}},
    {"lookup", do_lookup, 2, false, {&VT_MAP_STRING, &VT_STRING}},
    {"pair", do_pair, 2, false, {&VT_STRING, &VT_STRING}},
    {"keyof", do_keyof, 1, false, {&pair_type}},
    {"null", do_null, 0, false, {0}},
    {"level", do_level, 1, false, {&VT_INT}},
};
const struct tmpl_funcs world_funcs = {funcs, ARRAY_LEN(funcs), NULL};

/* Functions as values, with their types' names. */
static const struct {
    const char *name;
    struct vtype type;
} func_values[] = {
    {"add", {.kind = VK_FUNC, .name = "func(int, int) int"}},
    {"upper", {.kind = VK_FUNC, .name = "func(string) string"}},
    {"fail", {.kind = VK_FUNC, .name = "func(string) (string, error)"}},
    {"sum", {.kind = VK_FUNC, .name = "func(...int) int"}},
    {"any", {.kind = VK_FUNC, .name = "func(interface {}) interface {}"}},
};

static struct value func_value(struct arena *a, struct str name) {
    for (size_t i = 0; i < ARRAY_LEN(func_values); i++) {
        for (size_t j = 0; j < ARRAY_LEN(funcs); j++) {
            if (str_is(name, func_values[i].name) && str_is(name, funcs[j].name)) {
                return value_func(a, &func_values[i].type, &funcs[j], NULL);
            }
        }
    }
    abort();
}

static struct value list_of(struct arena *a, const struct jnode *n, const struct vtype *type) {
    struct value list = value_list_new(a, type, n->n);
    size_t i = 0;
    jnode_each (it, n) {
        struct value v = world_value(a, it);
        if (type == &VT_FLOATS && value_is_kind(&v, VK_INT)) {
            v = value_float((double)v.i);
        }
        list.list->p[i++] = v;
    }
    return list;
}

static struct value map_of(struct arena *a, const struct jnode *n, const struct vtype *type) {
    struct value map = value_map_new(a, type);
    value_map_reserve(a, &map, n->n);
    jnode_each (it, n) {
        struct value key = value_str(arena_dup(a, it->key));
        if (type->key == &VT_INT) {
            int64_t i = 0;
            if (str_to_i64(it->key, &i) < 0) {
                abort();
            }
            key = value_int(i);
        }
        value_map_set(a, &map, key, world_value(a, it));
    }
    return map;
}

static struct value pair_of(struct arena *a, const struct jnode *n) {
    return make_pair(a, arena_dup(a, n->child->s), arena_dup(a, n->child->next->s));
}

static struct value pointer_to(struct arena *a, const struct jnode *n) {
    if (!n || n->type == J_NULL) {
        return value_ptr(&pair_ptr, NULL);
    }
    struct value *to = arena_new(a, struct value);
    *to = pair_of(a, n);
    return value_ptr(&pair_ptr, to);
}

static struct value box_of(struct arena *a, const struct jnode *n) {
    struct value *f = arena_array(a, struct value, ARRAY_LEN(box_fields));
    const struct jnode *list = jnode_getc(n, "list");
    f[0] = value_str(arena_dup(a, jnode_str(jnode_getc(n, "name"))));
    f[1] = value_int(jnode_getc(n, "n")->i);
    f[2] = world_value(a, jnode_getc(n, "any"));
    f[3] = list && list->type == J_LIST ? list_of(a, list, &VT_STRINGS)
                                        : (struct value){.type = &VT_STRINGS};
    f[4] = make_pair(a, STR("ik"), STR("iv"));
    f[5] = pointer_to(a, jnode_getc(n, "next"));
    return value_record(&box_type, f);
}

static struct value bytes_of(struct arena *a, struct str s) {
    struct value list = value_list_new(a, &VT_BYTES, s.n);
    for (size_t i = 0; i < s.n; i++) {
        list.list->p[i] = (struct value){.type = &VT_UINT8, .u = (unsigned char)s.p[i]};
    }
    return list;
}

static struct value pairs_of(struct arena *a, const struct jnode *n) {
    struct value list = value_list_new(a, &pairs_type, n->n);
    size_t i = 0;
    jnode_each (it, n) {
        list.list->p[i++] = pair_of(a, it);
    }
    return list;
}

static struct value uint_of(const struct jnode *n) {
    uint64_t u = 0;
    if (str_to_u64(n->s, &u) < 0) {
        abort();
    }
    return value_uint(u);
}

static struct value maps_of(struct arena *a, const struct jnode *n) {
    struct value list = value_list_new(a, &VT_LIST_MAP, n->n);
    size_t i = 0;
    jnode_each (it, n) {
        list.list->p[i++] = map_of(a, it, &VT_MAP);
    }
    return list;
}

static struct value typed(struct arena *a, struct str kind, const struct jnode *n) {
    static const struct {
        const char *kind;
        const struct vtype *type;
    } types[] = {
        {"$strings", &VT_STRINGS},      {"$ints", &VT_INTS},      {"$floats", &VT_FLOATS},
        {"$mapstring", &VT_MAP_STRING}, {"$mapint", &VT_MAP_INT}, {"$intkeyed", &VT_MAP_INT_KEYED},
        {"$nilstrings", &VT_STRINGS},   {"$nilmap", &VT_MAP},
    };
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (str_is(kind, types[i].kind)) {
            const struct vtype *type = types[i].type;
            return str_starts(kind, STR("$nil")) ? (struct value){.type = type}
                   : type->kind == VK_LIST       ? list_of(a, n, type)
                                                 : map_of(a, n, type);
        }
    }
    if (str_is(kind, "$uint")) {
        return uint_of(n);
    }
    if (str_is(kind, "$float")) {
        return value_float(strtod(arena_cstr(a, n->s), NULL));
    }
    if (str_is(kind, "$bytes")) {
        return bytes_of(a, n->s);
    }
    if (str_is(kind, "$maps")) {
        return maps_of(a, n);
    }
    if (str_is(kind, "$pair")) {
        return pair_of(a, n);
    }
    if (str_is(kind, "$pairs")) {
        return pairs_of(a, n);
    }
    if (str_is(kind, "$ptr")) {
        return pointer_to(a, n);
    }
    if (str_is(kind, "$box")) {
        return box_of(a, n);
    }
    if (str_is(kind, "$func")) {
        return func_value(a, n->s);
    }
    if (str_is(kind, "$level")) {
        return (struct value){.type = &level_type, .i = n->i};
    }
    abort();
}

struct value world_value(struct arena *a, const struct jnode *n) {
    if (!n) {
        return VALUE_NIL;
    }
    switch (n->type) {
    case J_NULL:
        return VALUE_NIL;
    case J_BOOL:
        return value_bool(n->b);
    case J_INT:
        return value_int(n->i);
    case J_FLOAT:
        return value_float(n->f);
    case J_STR:
        return value_str(arena_dup(a, n->s));
    case J_LIST:
        return list_of(a, n, &VT_LIST);
    case J_MAP:
        break;
    }
    if (n->n == 1 && n->child->key.n > 0 && n->child->key.p[0] == '$') {
        return typed(a, n->child->key, n->child);
    }
    return map_of(a, n, &VT_MAP);
}
