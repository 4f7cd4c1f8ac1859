/* Run-time values of templates, with Go's types: what a template may do with a value, and what it
 * prints as, depends on its type. Values are passed by value (24 bytes) and own nothing: strings,
 * lists, maps and records live in an arena that outlives them. Types are constants: two values are
 * of one type if their type pointers are equal, so declare one `static const struct vtype` a type.
 *
 * "Interface" is Go's `interface {}` as a static type: what comes out of a []interface {} or a
 * map[string]interface {} says so by is_iface, since Go's rules and messages show it. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"

enum vkind {
    VK_BOOL,
    VK_INT,  /* int, int64, …: the name tells which */
    VK_UINT, /* uint, uint8, … */
    VK_FLOAT,
    VK_STRING,
    VK_LIST, /* a Go slice */
    VK_MAP,
    VK_RECORD, /* a Go struct */
    VK_PTR,    /* a pointer to a record, or nil */
    VK_FUNC,
    VK_ANY,   /* interface {}: the type of elements, fields and parameters only */
    VK_VALUE, /* reflect.Value: a parameter of built-ins that takes anything, unset values too */
};

struct value;
struct tmpl_func;

/* A record's field. */
struct vfield {
    const char *name;
    const struct vtype *type; /* &VT_ANY for interface {} */
};

struct vtype {
    enum vkind kind;
    const char *name;            /* as %T prints it: "map[string]interface {}", "memkv.KVPair" */
    const struct vtype *elem;    /* of lists, maps, pointers */
    const struct vtype *key;     /* of maps: VT_STRING, VT_INT, … or &VT_ANY */
    const struct vtype *base;    /* a named type's unnamed one ([]memkv.KVPair of memkv.KVPairs) */
    const struct vfield *fields; /* of records */
    size_t n_fields;
    const struct tmpl_func *methods; /* `.Name arg` calls; the callback finds the value as self */
    size_t n_methods;
    /* Go's String() or Error(): how the value prints with %v and %s, or NULL. */
    void (*string)(const struct value *v, struct buf *out);
};

extern const struct vtype VT_ANY;           /* interface {} */
extern const struct vtype VT_VALUE;         /* reflect.Value */
extern const struct vtype VT_BOOL;          /* bool */
extern const struct vtype VT_INT;           /* int */
extern const struct vtype VT_INT64;         /* int64 */
extern const struct vtype VT_UINT;          /* uint */
extern const struct vtype VT_UINT8;         /* uint8 */
extern const struct vtype VT_UINT64;        /* uint64 */
extern const struct vtype VT_FLOAT;         /* float64 */
extern const struct vtype VT_STRING;        /* string */
extern const struct vtype VT_STRINGS;       /* []string */
extern const struct vtype VT_LIST;          /* []interface {} */
extern const struct vtype VT_INTS;          /* []int */
extern const struct vtype VT_FLOATS;        /* []float64 */
extern const struct vtype VT_BYTES;         /* []uint8 */
extern const struct vtype VT_MAP;           /* map[string]interface {} */
extern const struct vtype VT_MAP_STRING;    /* map[string]string */
extern const struct vtype VT_MAP_INT;       /* map[string]int */
extern const struct vtype VT_MAP_INT_KEYED; /* map[int]string */
extern const struct vtype VT_LIST_MAP;      /* []map[string]interface {} */

struct value {
    const struct vtype *type; /* NULL: nil if is_iface, else unset (prints as <no value>) */
    union {
        bool b;
        int64_t i;
        uint64_t u;
        double f;
        const char *s;            /* n bytes */
        const struct vlist *list; /* NULL: a nil slice */
        struct vmap *map;         /* NULL: a nil map */
        const struct value *rec;  /* one value a field, in the order of type->fields */
        const struct value *ptr;  /* NULL: a nil pointer */
        const struct vfunc *func; /* NULL: a nil func */
    };
    uint32_t n;    /* bytes of a string */
    bool is_iface; /* its static type is interface {} */
};

struct vlist {
    struct value *p;
    size_t n, cap; /* cap: how far `slice` may reach */
};

struct vmap_entry {
    struct value key, val;
};

/* Kept in the order of keys (Go's order for printing and range). */
struct vmap {
    struct vmap_entry *p;
    size_t n, cap;
    bool is_sorted;
};

/* A function as a value (`call .f 1`). */
struct vfunc {
    const struct tmpl_func *func;
    void *ctx;
};

/* Longest string a value can hold. */
#define VALUE_STRING_MAX ((size_t)UINT32_MAX)

/* The unset value: a missing key, `<no value>`. */
#define VALUE_UNSET ((struct value){.type = NULL})
/* nil of type interface {}. */
#define VALUE_NIL ((struct value){.type = NULL, .is_iface = true})

static inline struct value value_bool(bool b) {
    return (struct value){.type = &VT_BOOL, .b = b};
}
static inline struct value value_int(int64_t i) {
    return (struct value){.type = &VT_INT, .i = i};
}
static inline struct value value_uint(uint64_t u) {
    return (struct value){.type = &VT_UINT, .u = u};
}
static inline struct value value_float(double f) {
    return (struct value){.type = &VT_FLOAT, .f = f};
}
/* The bytes are not copied. s.n must be below VALUE_STRING_MAX. */
static inline struct value value_str(struct str s) {
    return (struct value){.type = &VT_STRING, .s = s.p ? s.p : "", .n = (uint32_t)s.n};
}
static inline struct str value_to_str(const struct value *v) {
    return str_n(v->s, v->n);
}
static inline bool value_is_kind(const struct value *v, enum vkind k) {
    return v->type && v->type->kind == k;
}
/* The value without "its static type is an interface": nil becomes unset. */
static inline struct value value_concrete(struct value v) {
    v.is_iface = false;
    return v;
}

/* A list with n unset elements for the caller to fill in (list->p[i]); type is a list type. */
struct value value_list_new(struct arena *a, const struct vtype *type, size_t n);
/* []string of n strings that are not copied. */
struct value value_strings(struct arena *a, const struct str *s, size_t n);
size_t value_list_n(const struct value *list);
/* Element i < n, with its static type. */
struct value value_list_get(const struct value *list, size_t i);

/* An empty map of a map type. */
struct value value_map_new(struct arena *a, const struct vtype *type);
/* Room for n keys: worth calling if their number is known. */
void value_map_reserve(struct arena *a, struct value *map, size_t n);
/* Sets a key; the last one set wins. The map must be from value_map_new. */
void value_map_set(struct arena *a, struct value *map, struct value key, struct value val);
void value_map_set_str(struct arena *a, struct value *map, struct str key, struct value val);
size_t value_map_n(const struct value *map);
/* Entry i < n in the order of keys. */
void value_map_at(const struct value *map, size_t i, struct value *key, struct value *val);
/* False if there is no such key. key is of the map's key type. */
bool value_map_get(const struct value *map, struct value key, struct value *out);
bool value_map_get_str(const struct value *map, struct str key, struct value *out);

/* A record: fields has one value a field and is not copied. */
struct value value_record(const struct vtype *type, const struct value *fields);
/* Field i, with its static type. */
struct value value_record_get(const struct value *rec, size_t i);
/* A pointer (type of kind VK_PTR) to *to, which is not copied; to NULL: a nil pointer. */
struct value value_ptr(const struct vtype *type, const struct value *to);
struct value value_func(struct arena *a, const struct vtype *type, const struct tmpl_func *func,
                        void *ctx);

/* Follows pointers; *is_nil tells that it ended at a nil (which is then returned). */
struct value value_indirect(struct value v, bool *is_nil);
/* nil or a nil slice, map, pointer, func, or unset. */
bool value_is_nil(const struct value *v);
/* What `if` thinks of it. */
bool value_is_true(const struct value *v);
/* Whether v may be given where a `to` is expected (Go's assignability). v is set. */
bool value_assignable(const struct value *v, const struct vtype *to);
/* Go's name of v's static type: "interface {}" for what is_iface, "" for unset. */
const char *value_type_name(const struct value *v);
/* The order of map keys of one type: <0, 0, >0. */
int value_key_cmp(const struct value *a, const struct value *b);
/* Deepest nesting of values that is printed or compared. */
#define VALUE_DEPTH_MAX 1000
