/* eq, ne, lt, le, gt, ge with Go's rules of which types compare. */
#include "confd/tmpl_int.h"

/* Kinds that compare by value; others are BASIC_NONE. */
enum basic { BASIC_NONE, BASIC_BOOL, BASIC_INT, BASIC_UINT, BASIC_FLOAT, BASIC_STRING };

static enum basic basic_kind(const struct value *v) {
    if (!v->type) {
        return BASIC_NONE;
    }
    switch (v->type->kind) {
    case VK_BOOL:
        return BASIC_BOOL;
    case VK_INT:
        return BASIC_INT;
    case VK_UINT:
        return BASIC_UINT;
    case VK_FLOAT:
        return BASIC_FLOAT;
    case VK_STRING:
        return BASIC_STRING;
    case VK_LIST:
    case VK_MAP:
    case VK_RECORD:
    case VK_PTR:
    case VK_FUNC:
    case VK_ANY:
    case VK_VALUE:
        break;
    }
    return BASIC_NONE;
}

static bool is_comparable(const struct vtype *type, unsigned depth) {
    if (type->kind == VK_LIST || type->kind == VK_MAP || type->kind == VK_FUNC ||
        depth > VALUE_DEPTH_MAX) {
        return false;
    }
    for (size_t i = 0; type->kind == VK_RECORD && i < type->n_fields; i++) {
        if (!is_comparable(type->fields[i].type, depth + 1)) {
            return false;
        }
    }
    return true;
}

/* Go's == of two values of one basic kind. */
static bool basic_eq(const struct value *a, const struct value *b, enum basic kind) {
    switch (kind) {
    case BASIC_BOOL:
        return a->b == b->b;
    case BASIC_INT:
    case BASIC_UINT:
        return a->u == b->u;
    case BASIC_FLOAT:
        return a->f == b->f;
    case BASIC_STRING:
        return str_eq(value_to_str(a), value_to_str(b));
    case BASIC_NONE:
        break;
    }
    return false;
}

/* Go's == of interfaces: *bad is set to a type that can't be compared. */
static bool deep_eq(const struct value *a, const struct value *b, unsigned depth,
                    const struct vtype **bad) {
    if (a->type != b->type || !a->type || depth > VALUE_DEPTH_MAX) {
        return a->type == b->type;
    }
    if (a->type->kind == VK_PTR) {
        return a->ptr == b->ptr;
    }
    if (a->type->kind == VK_RECORD) {
        for (size_t i = 0; i < a->type->n_fields; i++) {
            if (!deep_eq(&a->rec[i], &b->rec[i], depth + 1, bad)) {
                return false;
            }
        }
        return true;
    }
    if (!is_comparable(a->type, 0)) {
        *bad = a->type;
        return false;
    }
    return basic_eq(a, b, basic_kind(a));
}

/* The message that a verb's printing of values is part of. */
static int fail_printing(struct err *e, const char *before, const struct value *v,
                         const char *behind) {
    struct buf b = BUF_INIT(sizeof(e->msg));
    print_verb(&b, v, 's');
    int r = ERR_GO(e, "%s%s%s", before, buf_cstr(&b), behind);
    buf_fini(&b);
    return r;
}

static int incompatible(const struct value *a, const struct value *b, struct err *e) {
    return ERR_GO(e, "incompatible types for comparison: %s and %s", a->type->name, b->type->name);
}

/* Neither has a basic kind. */
static int eq_other(const struct value *a, const struct value *b, bool *out, struct err *e) {
    if (a->type && b->type && a->type->kind != b->type->kind) {
        struct buf tail = BUF_INIT(sizeof(e->msg));
        buf_printf(&tail, ": %s, %s: ", a->type->name, b->type->name);
        print_value(&tail, b);
        int r = fail_printing(e, "non-comparable types ", a, buf_cstr(&tail));
        buf_fini(&tail);
        return r;
    }
    if (value_is_nil(a) || value_is_nil(b)) {
        *out = value_is_nil(a) == value_is_nil(b);
        return 0;
    }
    if (!is_comparable(b->type, 0)) {
        struct buf tail = BUF_INIT(sizeof(e->msg));
        buf_printf(&tail, ": %s", b->type->name);
        int r = fail_printing(e, "non-comparable type ", b, buf_cstr(&tail));
        buf_fini(&tail);
        return r;
    }
    const struct vtype *bad = NULL;
    *out = deep_eq(a, b, 0, &bad);
    return bad ? ERR_GO(e, "runtime error: comparing uncomparable type %s", bad->name) : 0;
}

static int eq_two(const struct value *a, const struct value *b, bool *out, struct err *e) {
    enum basic ka = basic_kind(a), kb = basic_kind(b);
    if (ka == kb) {
        if (ka == BASIC_NONE) {
            return eq_other(a, b, out, e);
        }
        *out = basic_eq(a, b, ka);
    } else if ((ka == BASIC_INT && kb == BASIC_UINT) || (ka == BASIC_UINT && kb == BASIC_INT)) {
        *out = (ka == BASIC_INT ? a->i : b->i) >= 0 && a->u == b->u;
    } else if (a->type && b->type) {
        return incompatible(a, b, e);
    } else {
        *out = false;
    }
    return 0;
}

int compare_eq(const struct value *args, size_t n, bool *out, struct err *e) {
    if (n < 2) {
        return ERR_GO(e, "missing argument for comparison");
    }
    struct value a = value_concrete(args[0]);
    *out = false;
    for (size_t i = 1; i < n && !*out; i++) {
        struct value b = value_concrete(args[i]);
        int r = eq_two(&a, &b, out, e);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int compare_lt(const struct value *args, bool *out, struct err *e) {
    const struct value *a = &args[0], *b = &args[1];
    enum basic ka = basic_kind(a), kb = basic_kind(b);
    if (ka == BASIC_NONE || kb == BASIC_NONE || (ka == kb && ka == BASIC_BOOL)) {
        return ERR_GO(e, "invalid type for comparison");
    }
    if (ka == BASIC_INT && kb == BASIC_UINT) {
        *out = a->i < 0 || a->u < b->u;
    } else if (ka == BASIC_UINT && kb == BASIC_INT) {
        *out = b->i >= 0 && a->u < b->u;
    } else if (ka != kb) {
        return incompatible(a, b, e);
    } else if (ka == BASIC_FLOAT) {
        *out = a->f < b->f;
    } else if (ka == BASIC_INT) {
        *out = a->i < b->i;
    } else if (ka == BASIC_UINT) {
        *out = a->u < b->u;
    } else {
        *out = str_cmp(value_to_str(a), value_to_str(b)) < 0;
    }
    return 0;
}
