/* Functions that make or change lists and maps: json, jsonArray, map, reverse, sorting, seq. */
#include "confd/funcs.h"

#include "confd/funcs_json.h"

static const char *json_name(const struct value *v) {
    switch (v->type->kind) {
    case VK_LIST:
        return "array";
    case VK_STRING:
        return "string";
    case VK_FLOAT:
        return "number";
    case VK_BOOL:
        return "bool";
    case VK_INT:
    case VK_UINT:
    case VK_MAP:
    case VK_RECORD:
    case VK_PTR:
    case VK_FUNC:
    case VK_ANY:
    case VK_VALUE:
        break;
    }
    return "object";
}

static int decode(const struct tmpl_call *c, const struct value *arg, const struct vtype *want,
                  struct value *out, struct err *e) {
    struct value v = VALUE_NIL;
    int r = go_json(value_to_str(arg), c->arena, &v, e);
    if (r < 0) {
        return r;
    }
    if (!v.type) { /* null: a nil map or slice */
        *out = (struct value){.type = want};
        return 0;
    }
    if (v.type != want) {
        return err_set(e, ERR_INVALID, "json: cannot unmarshal %s into Go value of type %s",
                       json_name(&v), want->name);
    }
    *out = v;
    return 0;
}

static int fn_json(FUNC_ARGS) {
    return decode(c, &args[0], &VT_MAP, out, e);
}

static int fn_json_array(FUNC_ARGS) {
    return decode(c, &args[0], &VT_LIST, out, e);
}

static int fn_map(FUNC_ARGS) {
    if (n % 2 != 0) {
        return err_set(e, ERR_INVALID, "invalid map call");
    }
    *out = value_map_new(c->arena, &VT_MAP);
    for (size_t i = 0; i < n; i += 2) {
        if (!value_is_kind(&args[i], VK_STRING)) {
            return err_set(e, ERR_INVALID, "map keys must be strings");
        }
        value_map_set_str(c->arena, out, value_to_str(&args[i]), value_concrete(args[i + 1]));
    }
    return 0;
}

/* In place, as in Go: whoever holds the same list sees it turned round. */
static int fn_reverse(FUNC_ARGS) {
    *out = value_concrete(args[0]);
    if (!args[0].type) {
        *out = VALUE_NIL;
    }
    if (args[0].type == &VT_STRINGS || args[0].type == &VT_KVPAIR_LIST) {
        for (size_t i = 0, k = value_list_n(out); i + 1 < k; i++) {
            k--;
            struct value tmp = out->list->p[i];
            out->list->p[i] = out->list->p[k];
            out->list->p[k] = tmp;
        }
    }
    return 0;
}

static int by_length(const void *a, const void *b) {
    const struct value *x = a, *y = b;
    return (x->n > y->n) - (x->n < y->n);
}

static int by_key_length(const void *a, const void *b) {
    return by_length(((const struct value *)a)->rec, ((const struct value *)b)->rec);
}

static int sort_list(const struct value *list, int (*cmp)(const void *, const void *),
                     const struct vtype *type, struct value *out) {
    *out = *list;
    out->type = type;
    if (value_list_n(out) > 1) {
        qsort(out->list->p, out->list->n, sizeof(*out->list->p), cmp);
    }
    return 0;
}

static int fn_sort_by_length(FUNC_ARGS) {
    return sort_list(&args[0], by_length, &VT_STRINGS, out);
}

static int fn_sort_kv_by_length(FUNC_ARGS) {
    return sort_list(&args[0], by_key_length, &VT_KVPAIR_LIST, out);
}

static int fn_seq(FUNC_ARGS) {
    int64_t first = args[0].i, last = args[1].i;
    if (first > last) {
        *out = (struct value){.type = &VT_INTS};
        return 0;
    }
    uint64_t more = (uint64_t)last - (uint64_t)first;
    if (more >= c->text->max / sizeof(struct value)) {
        return err_set(e, ERR_TOO_BIG, "seq %lld %lld: the list is too long", (long long)first,
                       (long long)last);
    }
    *out = value_list_new(c->arena, &VT_INTS, more + 1);
    for (uint64_t i = 0; i <= more; i++) {
        out->list->p[i] = value_int(first + (int64_t)i);
    }
    return 0;
}

static const struct tmpl_func table[] = {
    {"json", fn_json, 1, false, {&VT_STRING}},
    {"jsonArray", fn_json_array, 1, false, {&VT_STRING}},
    {"map", fn_map, 1, true, {&VT_ANY}},
    {"reverse", fn_reverse, 1, false, {&VT_ANY}},
    {"sortByLength", fn_sort_by_length, 1, false, {&VT_STRINGS}},
    {"sortKVByLength", fn_sort_kv_by_length, 1, false, {&VT_KVPAIR_LIST}},
    {"seq", fn_seq, 2, false, {&VT_INT, &VT_INT}},
};
const struct func_part funcs_list = {table, ARRAY_LEN(table)};
