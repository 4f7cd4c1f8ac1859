/* Functions on keys: get, gets, getv, getvs, exists, ls, lsdir, as memkv has them. */
#include "confd/funcs.h"

static const struct vfield pair_fields[] = {{"Key", &VT_STRING}, {"Value", &VT_STRING}};
const struct vtype VT_KVPAIR = {
    .kind = VK_RECORD, .name = "memkv.KVPair", .fields = pair_fields, .n_fields = 2};
const struct vtype VT_KVPAIR_LIST = {.kind = VK_LIST, .name = "[]memkv.KVPair", .elem = &VT_KVPAIR};
const struct vtype VT_KVPAIRS = {
    .kind = VK_LIST, .name = "memkv.KVPairs", .elem = &VT_KVPAIR, .base = &VT_KVPAIR_LIST};

static struct kv_view *view_of(const struct tmpl_call *c) {
    return ((struct funcs *)c->ctx)->view;
}

static struct value pair(struct arena *a, struct str key, struct str value) {
    struct value *f = arena_array(a, struct value, 2);
    f[0] = value_str(key);
    f[1] = value_str(value);
    return value_record(&VT_KVPAIR, f);
}

static int missing(struct err *e, struct str key) {
    return err_set(e, ERR_NOT_FOUND, "key does not exist: %.*s", STR_FMT(key));
}

static int fn_exists(FUNC_ARGS) {
    *out = value_bool(kv_view_get(view_of(c), value_to_str(&args[0])) != NULL);
    return 0;
}

static int fn_get(FUNC_ARGS) {
    struct str key = value_to_str(&args[0]);
    const struct kv_item *it = kv_view_get(view_of(c), key);
    if (!it) {
        return missing(e, key);
    }
    *out = pair(c->arena, arena_dup(c->arena, key), it->value);
    return 0;
}

static int fn_getv(FUNC_ARGS) {
    struct str key = value_to_str(&args[0]);
    const struct kv_item *it = kv_view_get(view_of(c), key);
    if (it) {
        *out = value_str(it->value);
    } else if (n > 1) {
        *out = args[1];
    } else {
        return missing(e, key);
    }
    return 0;
}

struct found {
    struct str pattern;
    bool is_bad;
    VEC(struct kv_item) items;
};

static int take_match(void *arg, struct str shown, const struct kv_item *it) {
    struct found *f = arg;
    int r = glob_match(f->pattern, shown);
    if (r > 0) {
        vec_push(&f->items, (struct kv_item){shown, it->value});
    }
    f->is_bad = r < 0;
    return r < 0 ? r : 0;
}

static int by_key(const void *a, const void *b) {
    const struct kv_item *x = a, *y = b;
    return str_cmp(x->key, y->key);
}

static int by_value(const void *a, const void *b) {
    const struct kv_item *x = a, *y = b;
    return str_cmp(x->value, y->value);
}

/* What a pattern finds, in f->items; the caller frees them. */
static int find(const struct tmpl_call *c, struct str pattern, struct found *f, struct err *e) {
    *f = (struct found){.pattern = pattern};
    size_t n = 0;
    while (n < pattern.n && !strchr("*?[\\", pattern.p[n])) {
        n++;
    }
    int r = kv_view_each(view_of(c), str_sub(pattern, 0, n), take_match, f);
    if (r == 0 && f->items.n == 0 && n < pattern.n && glob_match(pattern, STR("/")) < 0) {
        /* Go looks at every key: a malformed pattern shows if there is any. */
        r = kv_view_each(view_of(c), STR_NULL, take_match, f);
    }
    if (f->is_bad) {
        vec_fini(&f->items);
        return err_set(e, ERR_INVALID, "syntax error in pattern");
    }
    return r;
}

static int fn_gets(FUNC_ARGS) {
    struct found f;
    int r = find(c, value_to_str(&args[0]), &f, e);
    if (r < 0) {
        return r;
    }
    vec_sort(&f.items, by_key);
    *out = value_list_new(c->arena, &VT_KVPAIRS, f.items.n);
    for (size_t i = 0; i < f.items.n; i++) {
        out->list->p[i] = pair(c->arena, f.items.p[i].key, f.items.p[i].value);
    }
    vec_fini(&f.items);
    return 0;
}

static int fn_getvs(FUNC_ARGS) {
    struct found f;
    int r = find(c, value_to_str(&args[0]), &f, e);
    if (r < 0) {
        return r;
    }
    vec_sort(&f.items, by_value);
    *out = value_list_new(c->arena, &VT_STRINGS, f.items.n);
    for (size_t i = 0; i < f.items.n; i++) {
        out->list->p[i] = value_str(f.items.p[i].value);
    }
    vec_fini(&f.items);
    return 0;
}

struct listing {
    struct str path, clean;
    bool dirs_only;
    VEC(struct str) names;
};

/* Whether dir is clean or below it, by whole terms. "/" has two empty terms, so nothing is below it
 * but what stands in it. */
static bool same_terms(struct str clean, struct str dir) {
    return str_starts(dir, clean) && (dir.n == clean.n || (dir.p[clean.n] == '/' && clean.n > 1));
}

static struct str dir_of(struct str key) {
    size_t n = key.n;
    while (n > 0 && key.p[n - 1] != '/') {
        n--;
    }
    return str_sub(key, 0, n > 1 ? n - 1 : 1);
}

static int take_name(void *arg, struct str shown, const struct kv_item *it MG_UNUSED) {
    struct listing *l = arg;
    struct str dir = dir_of(shown), name = STR_NULL;
    if (l->dirs_only) {
        if (str_starts(shown, l->path) && same_terms(l->clean, dir) && dir.n > l->clean.n) {
            name = str_sub(dir, l->clean.n + 1, dir.n);
        }
    } else if (str_eq(shown, l->path)) {
        name = shown.n > 1 ? str_sub(shown, dir.n > 1 ? dir.n + 1 : 1, shown.n) : shown;
    } else if (same_terms(l->clean, dir)) {
        name = str_starts(shown, l->path) ? str_sub(shown, l->path.n, shown.n) : shown;
        name = name.n && name.p[0] == '/' ? str_sub(name, 1, name.n) : name;
    }
    if (name.p) {
        vec_push(&l->names, str_cut(&name, '/'));
    }
    return 0;
}

static int list(const struct tmpl_call *c, const struct value *args, bool dirs_only,
                struct value *out) {
    struct str path = value_to_str(&args[0]);
    *out = value_list_new(c->arena, &VT_STRINGS, 0);
    if (path.n == 0 || path.p[0] != '/') {
        return 0;
    }
    struct listing l = {.path = path, .clean = kv_clean(c->arena, path), .dirs_only = dirs_only};
    (void)kv_view_each(view_of(c), l.clean, take_name, &l);
    vec_sort(&l.names, str_cmp_qsort);
    size_t n = 0;
    for (size_t i = 0; i < l.names.n; i++) {
        if (n == 0 || !str_eq(l.names.p[n - 1], l.names.p[i])) {
            l.names.p[n++] = l.names.p[i];
        }
    }
    for (size_t i = 0; i < n; i++) {
        l.names.p[i] = arena_dup(c->arena, l.names.p[i]);
    }
    *out = value_strings(c->arena, l.names.p, n);
    vec_fini(&l.names);
    return 0;
}

static int fn_ls(FUNC_ARGS) {
    return list(c, args, false, out);
}

static int fn_lsdir(FUNC_ARGS) {
    return list(c, args, true, out);
}

static const struct tmpl_func table[] = {
    {"exists", fn_exists, 1, false, {&VT_STRING}},
    {"get", fn_get, 1, false, {&VT_STRING}},
    {"gets", fn_gets, 1, false, {&VT_STRING}},
    {"getv", fn_getv, 2, true, {&VT_STRING, &VT_STRING}},
    {"getvs", fn_getvs, 1, false, {&VT_STRING}},
    {"ls", fn_ls, 1, false, {&VT_STRING}},
    {"lsdir", fn_lsdir, 1, false, {&VT_STRING}},
};
const struct func_part funcs_kv = {table, ARRAY_LEN(table)};
