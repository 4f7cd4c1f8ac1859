/* Go's fmt: verbs, flags, and what is said of wrong ones. The printer's fields and steps are those
 * of Go's, since widths and flags of a wrong verb carry over to what is printed about it. */
#include "confd/tmpl_fmt.h"

/* Maps, functions and pointers print as an address in Go. Here it is always the same, so that a
 * file does not change from run to run; as long as it is in Go. */
#define ADDRESS 0xc000010000ULL
#define FUNC_ADDRESS 0x500000ULL

static void print_nested(struct printer *p, const struct value *v, uint32_t verb, unsigned depth);

static void bad_verb(struct printer *p, const struct value *v, uint32_t verb) {
    p->is_erroring = true;
    buf_puts(p->b, "%!");
    rune_add(p->b, verb);
    buf_putc(p->b, '(');
    if (v && v->type) {
        buf_puts(p->b, v->type->name);
        buf_putc(p->b, '=');
        print_nested(p, v, 'v', 0);
    } else {
        buf_puts(p->b, "<nil>");
    }
    buf_putc(p->b, ')');
    p->is_erroring = false;
}

static void print_bool(struct printer *p, const struct value *v, uint32_t verb) {
    if (verb == 't' || verb == 'v') {
        fmt_pad(p, v->b ? STR("true") : STR("false"));
    } else {
        bad_verb(p, v, verb);
    }
}

static void print_0x(struct printer *p, uint64_t u, bool has_prefix) {
    bool sharp = p->f.sharp;
    p->f.sharp = has_prefix;
    fmt_integer(p, u, 16, false, 'v', false);
    p->f.sharp = sharp;
}

static void print_integer(struct printer *p, const struct value *v, uint32_t verb) {
    bool is_signed = v->type->kind == VK_INT;
    switch (verb) {
    case 'v':
        if (p->f.sharp_v && !is_signed) {
            print_0x(p, v->u, true);
            return;
        }
        MG_FALLTHROUGH;
    case 'd':
        fmt_integer(p, v->u, 10, is_signed, verb, false);
        return;
    case 'b':
        fmt_integer(p, v->u, 2, is_signed, verb, false);
        return;
    case 'o':
    case 'O':
        fmt_integer(p, v->u, 8, is_signed, verb, false);
        return;
    case 'x':
    case 'X':
        fmt_integer(p, v->u, 16, is_signed, verb, verb == 'X');
        return;
    case 'c':
        fmt_rune(p, v->u);
        return;
    case 'q':
        fmt_quoted_rune(p, v->u);
        return;
    case 'U':
        fmt_unicode(p, v->u);
        return;
    default:
        bad_verb(p, v, verb);
    }
}

static void print_float(struct printer *p, const struct value *v, uint32_t verb) {
    switch (verb) {
    case 'v':
        fmt_float(p, v->f, 'g', -1);
        return;
    case 'b':
    case 'g':
    case 'G':
    case 'x':
    case 'X':
        fmt_float(p, v->f, (char)verb, -1);
        return;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
        fmt_float(p, v->f, verb == 'F' ? 'f' : (char)verb, 6);
        return;
    default:
        bad_verb(p, v, verb);
    }
}

/* s: the text of v. */
static void print_string(struct printer *p, const struct value *v, struct str s, uint32_t verb) {
    switch (verb) {
    case 'v':
        if (p->f.sharp_v) {
            fmt_quoted(p, s);
            return;
        }
        MG_FALLTHROUGH;
    case 's':
        fmt_pad(p, fmt_cut(p, s));
        return;
    case 'x':
    case 'X':
        fmt_hex(p, s, verb == 'X');
        return;
    case 'q':
        fmt_quoted(p, s);
        return;
    default:
        bad_verb(p, v, verb);
    }
}

static void print_pointer(struct printer *p, const struct value *v, uint32_t verb) {
    enum vkind kind = v->type->kind;
    uint64_t u = value_is_nil(v) ? 0 : kind == VK_FUNC ? FUNC_ADDRESS : ADDRESS;
    struct value as_uint = value_uint(u);
    if (kind != VK_LIST && kind != VK_MAP && kind != VK_PTR && kind != VK_FUNC) {
        bad_verb(p, v, verb);
        return;
    }
    switch (verb) {
    case 'v':
        if (p->f.sharp_v) {
            buf_printf(p->b, "(%s)(", v->type->name);
            if (u == 0) {
                buf_puts(p->b, "nil");
            } else {
                print_0x(p, u, true);
            }
            buf_putc(p->b, ')');
        } else if (u == 0) {
            fmt_pad(p, STR("<nil>"));
        } else {
            print_0x(p, u, !p->f.sharp);
        }
        return;
    case 'p':
        print_0x(p, u, !p->f.sharp);
        return;
    case 'b':
    case 'o':
    case 'd':
    case 'x':
    case 'X':
        print_integer(p, &as_uint, verb);
        return;
    default:
        bad_verb(p, v, verb);
    }
}

static void between(struct printer *p, size_t i) {
    if (i > 0) {
        buf_puts(p->b, p->f.sharp_v ? ", " : " ");
    }
}

static void print_map(struct printer *p, const struct value *v, uint32_t verb, unsigned depth) {
    buf_puts(p->b, p->f.sharp_v ? v->type->name : "map[");
    if (p->f.sharp_v && !v->map) {
        buf_puts(p->b, "(nil)");
        return;
    }
    if (p->f.sharp_v) {
        buf_putc(p->b, '{');
    }
    for (size_t i = 0; i < value_map_n(v); i++) {
        struct value key, val;
        value_map_at(v, i, &key, &val);
        between(p, i);
        print_nested(p, &key, verb, depth + 1);
        buf_putc(p->b, ':');
        print_nested(p, &val, verb, depth + 1);
    }
    buf_putc(p->b, p->f.sharp_v ? '}' : ']');
}

static void print_record(struct printer *p, const struct value *v, uint32_t verb, unsigned depth) {
    if (p->f.sharp_v) {
        buf_puts(p->b, v->type->name);
    }
    buf_putc(p->b, '{');
    for (size_t i = 0; i < v->type->n_fields; i++) {
        between(p, i);
        if (p->f.plus_v || p->f.sharp_v) {
            buf_puts(p->b, v->type->fields[i].name);
            buf_putc(p->b, ':');
        }
        struct value field = value_record_get(v, i);
        if (field.type) {
            field.is_iface = false; /* Go looks into interfaces here */
        }
        print_nested(p, &field, verb, depth + 1);
    }
    buf_putc(p->b, '}');
}

/* A []byte as text. */
static void print_bytes(struct printer *p, const struct value *v, uint32_t verb) {
    struct buf bytes = BUF_INIT(p->b->max);
    for (size_t i = 0; i < value_list_n(v); i++) {
        buf_putc(&bytes, (char)v->list->p[i].u);
    }
    print_string(p, v, buf_view(&bytes), verb);
    buf_fini(&bytes);
}

static void print_list(struct printer *p, const struct value *v, uint32_t verb, unsigned depth) {
    bool is_bytes = v->type->elem == &VT_UINT8;
    if (is_bytes && (verb == 's' || verb == 'q' || verb == 'x' || verb == 'X')) {
        print_bytes(p, v, verb);
        return;
    }
    if (p->f.sharp_v) {
        buf_puts(p->b, is_bytes && depth == 0 && verb == 'v' ? "[]byte" : v->type->name);
        if (!v->list) {
            buf_puts(p->b, "(nil)");
            return;
        }
    }
    buf_putc(p->b, p->f.sharp_v ? '{' : '[');
    for (size_t i = 0; i < value_list_n(v); i++) {
        between(p, i);
        struct value elem = value_list_get(v, i);
        print_nested(p, &elem, verb, depth + 1);
    }
    buf_putc(p->b, p->f.sharp_v ? '}' : ']');
}

/* Printed by its own String(), if the verb asks for text. */
static bool print_by_method(struct printer *p, const struct value *v, uint32_t verb) {
    if (p->is_erroring) {
        return false;
    }
    if (verb == 'w') {
        bad_verb(p, v, verb);
        return true;
    }
    bool is_text = verb == 'v' || verb == 's' || verb == 'x' || verb == 'X' || verb == 'q';
    if (!v->type->string || p->f.sharp_v || !is_text) {
        return false;
    }
    struct buf text = BUF_INIT(p->b->max);
    v->type->string(v, &text);
    print_string(p, v, buf_view(&text), verb);
    buf_fini(&text);
    return true;
}

static void print_kind(struct printer *p, const struct value *v, uint32_t verb, unsigned depth) {
    switch (v->type->kind) {
    case VK_BOOL:
        print_bool(p, v, verb);
        return;
    case VK_INT:
    case VK_UINT:
        print_integer(p, v, verb);
        return;
    case VK_FLOAT:
        print_float(p, v, verb);
        return;
    case VK_STRING:
        print_string(p, v, value_to_str(v), verb);
        return;
    case VK_LIST:
        print_list(p, v, verb, depth);
        return;
    case VK_MAP:
        print_map(p, v, verb, depth);
        return;
    case VK_RECORD:
        print_record(p, v, verb, depth);
        return;
    case VK_PTR:
        if (depth == 0 && v->ptr && v->ptr->type) {
            buf_putc(p->b, '&');
            print_nested(p, v->ptr, verb, 1);
            return;
        }
        MG_FALLTHROUGH;
    case VK_FUNC:
        print_pointer(p, v, verb);
        return;
    case VK_ANY:
    case VK_VALUE:
        break; /* no value has such a type */
    }
}

static void print_nested(struct printer *p, const struct value *v, uint32_t verb, unsigned depth) {
    if (depth > VALUE_DEPTH_MAX) {
        buf_puts(p->b, "%!(DEPTH)");
        return;
    }
    if (!v->type) {
        if (v->is_iface && p->f.sharp_v) {
            buf_puts(p->b, "interface {}(nil)");
        } else if (v->is_iface || verb == 'v') {
            buf_puts(p->b, "<nil>");
        } else {
            bad_verb(p, NULL, verb);
        }
        return;
    }
    if (depth > 0 && print_by_method(p, v, verb)) {
        return;
    }
    print_kind(p, v, verb, depth);
}

void print_arg(struct printer *p, const struct value *v, uint32_t verb) {
    if (!v->type) {
        if (verb == 'T' || verb == 'v') {
            fmt_pad(p, STR("<nil>"));
        } else {
            bad_verb(p, NULL, verb);
        }
        return;
    }
    if (verb == 'T') {
        fmt_pad(p, fmt_cut(p, str_c(v->type->name)));
        return;
    }
    if (verb == 'p') {
        print_pointer(p, v, verb);
        return;
    }
    enum vkind kind = v->type->kind;
    bool is_plain = (kind <= VK_STRING && !v->type->string) || v->type == &VT_BYTES;
    if (is_plain || !print_by_method(p, v, verb)) {
        print_kind(p, v, verb, 0);
    }
}

void print_verb(struct buf *out, const struct value *v, char verb) {
    struct printer p = {.b = out};
    print_arg(&p, v, (unsigned char)verb);
}

void print_value(struct buf *out, const struct value *v) {
    if (value_is_kind(v, VK_STRING) && !v->type->string) {
        buf_add(out, v->s, v->n);
    } else {
        print_verb(out, v, 'v');
    }
}

void tmpl_print(struct buf *out, const struct value *args, size_t n) {
    bool was_string = false;
    for (size_t i = 0; i < n; i++) {
        bool is_string = value_is_kind(&args[i], VK_STRING);
        if (i > 0 && !is_string && !was_string) {
            buf_putc(out, ' ');
        }
        print_value(out, &args[i]);
        was_string = is_string;
    }
}

void tmpl_quote(struct buf *out, struct str s) {
    go_quote(out, s, false);
}

void tmpl_float(struct buf *out, double f) {
    struct value v = value_float(f);
    print_value(out, &v);
}
