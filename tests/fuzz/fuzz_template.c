/* Templates from any bytes, executed with functions and data of every kind: no crash, every limit
 * holds, errors have a place, and a second run writes the same. */
#include "confd/template.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MAX_OUTPUT (1 << 16)

static const struct tmpl_limits limits = {
    .max_output_bytes = MAX_OUTPUT,
    .max_memory_bytes = 1 << 20,
    .max_steps = 5000,
    .max_ns = 5LL * 1000 * 1000 * 1000,
};

static int same(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                struct err *e) {
    (void)c, (void)n, (void)e;
    *out = args[0];
    return 0;
}

static int fail(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                struct err *e) {
    (void)c, (void)args, (void)n, (void)out;
    return err_set(e, ERR_INVALID, "refused");
}

/* Values within values, as deep as a loop likes. */
static int wrap(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                struct err *e) {
    (void)e;
    *out = value_list_new(c->arena, &VT_LIST, n);
    for (size_t i = 0; i < n; i++) {
        out->list->p[i] = args[i];
    }
    return 0;
}

static const struct tmpl_func funcs[] = {
    {"str", same, 1, false, {&VT_STRING}},   {"int", same, 1, false, {&VT_INT}},
    {"uint", same, 1, false, {&VT_UINT}},    {"num", same, 1, false, {&VT_FLOAT}},
    {"bool", same, 1, false, {&VT_BOOL}},    {"any", same, 1, false, {&VT_ANY}},
    {"list", same, 1, false, {&VT_STRINGS}}, {"map", same, 1, false, {&VT_MAP}},
    {"fail", fail, 0, false, {0}},           {"wrap", wrap, 1, true, {&VT_ANY}},
};
static const struct tmpl_funcs table = {funcs, ARRAY_LEN(funcs), NULL};

static const struct vfield pair_fields[] = {{"K", &VT_STRING}, {"V", &VT_ANY}};
static const struct tmpl_func pair_methods[] = {
    {"Say", same, 1, false, {&VT_STRING}},
    {"Bad", fail, 0, false, {0}},
};
static const struct vtype pair_type = {
    .kind = VK_RECORD,
    .name = "fuzz.Pair",
    .fields = pair_fields,
    .n_fields = 2,
    .methods = pair_methods,
    .n_methods = 2,
};
static const struct vtype ptr_type = {.kind = VK_PTR, .name = "*fuzz.Pair", .elem = &pair_type};
static const struct vtype func_type = {.kind = VK_FUNC, .name = "func(string) string"};

static struct value world(struct arena *a) {
    struct value map = value_map_new(a, &VT_MAP);
    struct value *fields = arena_array(a, struct value, 2);
    struct value *pair = arena_new(a, struct value);
    static const struct str words[] = {STR("a"), STR("b\xff"), STR("")};
    fields[0] = value_str(STR("key"));
    *pair = value_record(&pair_type, fields);
    struct value list = value_list_new(a, &VT_LIST, 3);
    list.list->p[0] = value_int(-1);
    list.list->p[1] = value_strings(a, words, ARRAY_LEN(words));
    value_map_set_str(a, &map, STR("s"), value_str(STR("text <\"'>")));
    value_map_set_str(a, &map, STR("i"), value_int(42));
    value_map_set_str(a, &map, STR("u"), value_uint(7));
    value_map_set_str(a, &map, STR("f"), value_float(1.5));
    value_map_set_str(a, &map, STR("t"), value_bool(true));
    value_map_set_str(a, &map, STR("n"), VALUE_NIL);
    value_map_set_str(a, &map, STR("l"), list);
    value_map_set_str(a, &map, STR("r"), *pair);
    value_map_set_str(a, &map, STR("p"), value_ptr(&ptr_type, pair));
    value_map_set_str(a, &map, STR("z"), value_ptr(&ptr_type, NULL));
    value_map_set_str(a, &map, STR("c"), value_func(a, &func_type, &funcs[0], NULL));
    return map;
}

static void check_error(int r, const struct err *e) {
    bool has_place = str_starts(str_c(e->msg), STR("template: fuzz:"));
    if (r >= 0 || e->code != r || !has_place) {
        abort();
    }
}

static int run(const struct tmpl_set *set, struct buf *out) {
    struct arena a = {0};
    struct err e = {0};
    int r = tmpl_execute(set, world(&a), &limits, NULL, out, &e);
    if (r < 0) {
        check_error(r, &e);
    }
    if (out->n > MAX_OUTPUT) {
        abort();
    }
    arena_fini(&a);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct tmpl_set *set = NULL;
    struct err e = {0};
    int r = tmpl_parse(STR("fuzz"), str_n((const char *)data, n), &table, 1, &set, &e);
    if (r < 0) {
        check_error(r, &e);
        return 0;
    }
    struct buf first = BUF_INIT(1 << 20), second = BUF_INIT(1 << 20);
    r = run(set, &first);
    if (run(set, &second) != r || !str_eq(buf_view(&first), buf_view(&second))) {
        abort();
    }
    buf_fini(&first);
    buf_fini(&second);
    tmpl_free(set);
    return 0;
}
