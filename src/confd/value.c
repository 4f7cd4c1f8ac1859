/* Types and containers of template values. See value.h. */
#include "confd/value.h"

#include <stdlib.h>

#define TYPE(id, k, text, ...) const struct vtype id = {.kind = (k), .name = (text), __VA_ARGS__}

TYPE(VT_ANY, VK_ANY, "interface {}", .elem = NULL);
TYPE(VT_VALUE, VK_VALUE, "reflect.Value", .elem = NULL);
TYPE(VT_BOOL, VK_BOOL, "bool", .elem = NULL);
TYPE(VT_INT, VK_INT, "int", .elem = NULL);
TYPE(VT_INT64, VK_INT, "int64", .elem = NULL);
TYPE(VT_UINT, VK_UINT, "uint", .elem = NULL);
TYPE(VT_UINT8, VK_UINT, "uint8", .elem = NULL);
TYPE(VT_UINT64, VK_UINT, "uint64", .elem = NULL);
TYPE(VT_FLOAT, VK_FLOAT, "float64", .elem = NULL);
TYPE(VT_STRING, VK_STRING, "string", .elem = NULL);
TYPE(VT_STRINGS, VK_LIST, "[]string", .elem = &VT_STRING);
TYPE(VT_LIST, VK_LIST, "[]interface {}", .elem = &VT_ANY);
TYPE(VT_INTS, VK_LIST, "[]int", .elem = &VT_INT);
TYPE(VT_FLOATS, VK_LIST, "[]float64", .elem = &VT_FLOAT);
TYPE(VT_BYTES, VK_LIST, "[]uint8", .elem = &VT_UINT8);
TYPE(VT_MAP, VK_MAP, "map[string]interface {}", .elem = &VT_ANY, .key = &VT_STRING);
TYPE(VT_MAP_STRING, VK_MAP, "map[string]string", .elem = &VT_STRING, .key = &VT_STRING);
TYPE(VT_MAP_INT, VK_MAP, "map[string]int", .elem = &VT_INT, .key = &VT_STRING);
TYPE(VT_MAP_INT_KEYED, VK_MAP, "map[int]string", .elem = &VT_STRING, .key = &VT_INT);
TYPE(VT_LIST_MAP, VK_LIST, "[]map[string]interface {}", .elem = &VT_MAP);

/* v as it is read from a place of a static type. */
static struct value of_type(struct value v, const struct vtype *type) {
    v.is_iface = type == &VT_ANY;
    return v;
}

struct value value_list_new(struct arena *a, const struct vtype *type, size_t n) {
    struct vlist *list = arena_new(a, struct vlist);
    list->p = arena_array(a, struct value, n);
    list->n = list->cap = n;
    return (struct value){.type = type, .list = list};
}

struct value value_strings(struct arena *a, const struct str *s, size_t n) {
    struct value list = value_list_new(a, &VT_STRINGS, n);
    for (size_t i = 0; i < n; i++) {
        list.list->p[i] = value_str(s[i]);
    }
    return list;
}

size_t value_list_n(const struct value *list) {
    return list->list ? list->list->n : 0;
}

struct value value_list_get(const struct value *list, size_t i) {
    return of_type(list->list->p[i], list->type->elem);
}

struct value value_map_new(struct arena *a, const struct vtype *type) {
    struct vmap *map = arena_new(a, struct vmap);
    map->is_sorted = true;
    return (struct value){.type = type, .map = map};
}

static int type_cmp(const struct vtype *a, const struct vtype *b) {
    return a == b ? 0 : a < b ? -1 : 1;
}

static int float_cmp(double a, double b) {
    if (a != a) {
        return b != b ? 0 : -1;
    }
    return b != b ? 1 : (a > b) - (a < b);
}

int value_key_cmp(const struct value *a, const struct value *b) {
    if (!a->type || !b->type) {
        return (a->type != NULL) - (b->type != NULL);
    }
    if (a->type != b->type) {
        return a->type->kind != b->type->kind ? (int)a->type->kind - (int)b->type->kind
                                              : type_cmp(a->type, b->type);
    }
    switch (a->type->kind) {
    case VK_BOOL:
        return (int)a->b - (int)b->b;
    case VK_INT:
        return (a->i > b->i) - (a->i < b->i);
    case VK_UINT:
        return (a->u > b->u) - (a->u < b->u);
    case VK_FLOAT:
        return float_cmp(a->f, b->f);
    case VK_STRING:
        return str_cmp(value_to_str(a), value_to_str(b));
    case VK_LIST:
    case VK_MAP:
    case VK_RECORD:
    case VK_PTR:
    case VK_FUNC:
    case VK_ANY:
    case VK_VALUE:
        break;
    }
    return (a->ptr > b->ptr) - (a->ptr < b->ptr);
}

/* Stable: equal keys stay in the order in which they were set. */
static void merge_sort(struct vmap_entry *p, struct vmap_entry *tmp, size_t n) {
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n;
            size_t hi = lo + 2 * width < n ? lo + 2 * width : n;
            for (size_t i = lo, j = mid, k = lo; k < hi; k++) {
                bool left = i < mid && (j >= hi || value_key_cmp(&p[i].key, &p[j].key) <= 0);
                tmp[k] = left ? p[i++] : p[j++];
            }
        }
        memcpy(p, tmp, n * sizeof(*p));
    }
}

/* Puts the entries in order; of equal keys the last set stays. */
static void map_sort(struct vmap *map) {
    if (map->is_sorted) {
        return;
    }
    struct vmap_entry *tmp = malloc(map->n * sizeof(*tmp));
    mg_assert(tmp != NULL);
    merge_sort(map->p, tmp, map->n);
    free(tmp);
    size_t n = 0;
    for (size_t i = 0; i < map->n; i++) {
        if (i + 1 < map->n && value_key_cmp(&map->p[i].key, &map->p[i + 1].key) == 0) {
            continue;
        }
        map->p[n++] = map->p[i];
    }
    map->n = n;
    map->is_sorted = true;
}

void value_map_reserve(struct arena *a, struct value *map, size_t n) {
    struct vmap *m = map->map;
    if (m->cap < n) {
        struct vmap_entry *p = arena_array(a, struct vmap_entry, n);
        if (m->n) {
            memcpy(p, m->p, m->n * sizeof(*p));
        }
        m->p = p;
        m->cap = n;
    }
}

void value_map_set(struct arena *a, struct value *map, struct value key, struct value val) {
    struct vmap *m = map->map;
    if (m->n == m->cap) {
        value_map_reserve(a, map, m->cap ? m->cap * 2 : 4);
    }
    if (m->n && m->is_sorted) {
        m->is_sorted = value_key_cmp(&m->p[m->n - 1].key, &key) < 0;
    }
    key.is_iface = false;
    m->p[m->n++] = (struct vmap_entry){key, val};
}

void value_map_set_str(struct arena *a, struct value *map, struct str key, struct value val) {
    value_map_set(a, map, value_str(key), val);
}

size_t value_map_n(const struct value *map) {
    if (!map->map) {
        return 0;
    }
    map_sort(map->map);
    return map->map->n;
}

void value_map_at(const struct value *map, size_t i, struct value *key, struct value *val) {
    map_sort(map->map);
    if (key) {
        *key = of_type(map->map->p[i].key, map->type->key);
    }
    if (val) {
        *val = of_type(map->map->p[i].val, map->type->elem);
    }
}

bool value_map_get(const struct value *map, struct value key, struct value *out) {
    size_t lo = 0;
    size_t hi = value_map_n(map);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int r = value_key_cmp(&map->map->p[mid].key, &key);
        if (r == 0) {
            value_map_at(map, mid, NULL, out);
            return true;
        }
        if (r < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return false;
}

bool value_map_get_str(const struct value *map, struct str key, struct value *out) {
    return value_map_get(map, value_str(key), out);
}

struct value value_record(const struct vtype *type, const struct value *fields) {
    return (struct value){.type = type, .rec = fields};
}

struct value value_record_get(const struct value *rec, size_t i) {
    return of_type(rec->rec[i], rec->type->fields[i].type);
}

struct value value_ptr(const struct vtype *type, const struct value *to) {
    return (struct value){.type = type, .ptr = to};
}

struct value value_func(struct arena *a, const struct vtype *type, const struct tmpl_func *func,
                        void *ctx) {
    struct vfunc *f = arena_new(a, struct vfunc);
    *f = (struct vfunc){func, ctx};
    return (struct value){.type = type, .func = f};
}

struct value value_indirect(struct value v, bool *is_nil) {
    *is_nil = false;
    for (;;) {
        if (!v.type || (v.type->kind == VK_PTR && !v.ptr)) {
            *is_nil = v.type != NULL || v.is_iface;
            return v;
        }
        v.is_iface = false;
        if (v.type->kind != VK_PTR) {
            return v;
        }
        v = *v.ptr;
    }
}

bool value_is_nil(const struct value *v) {
    if (!v->type) {
        return true;
    }
    switch (v->type->kind) {
    case VK_LIST:
    case VK_MAP:
    case VK_PTR:
    case VK_FUNC:
        return v->ptr == NULL;
    case VK_BOOL:
    case VK_INT:
    case VK_UINT:
    case VK_FLOAT:
    case VK_STRING:
    case VK_RECORD:
    case VK_ANY:
    case VK_VALUE:
        break;
    }
    return false;
}

bool value_is_true(const struct value *v) {
    if (!v->type) {
        return false;
    }
    switch (v->type->kind) {
    case VK_BOOL:
        return v->b;
    case VK_INT:
        return v->i != 0;
    case VK_UINT:
        return v->u != 0;
    case VK_FLOAT:
        return v->f != 0;
    case VK_STRING:
        return v->n > 0;
    case VK_LIST:
        return value_list_n(v) > 0;
    case VK_MAP:
        return value_map_n(v) > 0;
    case VK_PTR:
    case VK_FUNC:
        return v->ptr != NULL;
    case VK_RECORD:
    case VK_ANY:
    case VK_VALUE:
        break;
    }
    return true;
}

bool value_assignable(const struct value *v, const struct vtype *to) {
    if (to == &VT_ANY || to == &VT_VALUE) {
        return true;
    }
    if (v->is_iface || !v->type) {
        return false;
    }
    return v->type == to || v->type->base == to || v->type == to->base;
}

const char *value_type_name(const struct value *v) {
    return v->is_iface ? VT_ANY.name : v->type ? v->type->name : "";
}
