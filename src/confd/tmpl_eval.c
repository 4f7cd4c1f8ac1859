/* Pipelines, commands, arguments, fields and calls, step by step as Go evaluates them: x->at moves
 * as Go's current node does, since messages show it. */
#include "confd/tmpl_exec_int.h"

static int eval_arg(struct exec *x, const struct value *dot, const struct vtype *type,
                    const struct node *n, struct value *out);

/* The arguments of a command; the first is the thing itself. n == 0: none were written. */
struct args {
    struct node *const *p;
    size_t n;
    const struct value *final; /* what came through the pipe, or NULL */
};

static const struct args no_args;

static bool has_args(const struct args *args) {
    return args->n > 1 || args->final;
}

int exec_set_var(struct exec *x, const struct node *variable, struct value v) {
    uint32_t id = variable->chain_of.var;
    for (size_t i = x->vars.n; i > x->vars_base; i--) {
        if (x->vars.p[i - 1].id == id) {
            x->vars.p[i - 1].value = v;
            return exec_step(x, (x->vars.n - i) / 16);
        }
    }
    return exec_fail(x, "undefined variable: %.*s", STR_FMT(variable->chain_of.names[0]));
}

static int var_value(struct exec *x, const struct node *variable, struct value *out) {
    uint32_t id = variable->chain_of.var;
    for (size_t i = x->vars.n; i > x->vars_base; i--) {
        if (x->vars.p[i - 1].id == id) {
            *out = x->vars.p[i - 1].value;
            return exec_step(x, (x->vars.n - i) / 16);
        }
    }
    return exec_fail(x, "undefined variable: %.*s", STR_FMT(variable->chain_of.names[0]));
}

static bool can_be_nil(const struct vtype *type) {
    switch (type->kind) {
    case VK_LIST:
    case VK_MAP:
    case VK_PTR:
    case VK_FUNC:
    case VK_ANY:
    case VK_VALUE:
        return true;
    case VK_BOOL:
    case VK_INT:
    case VK_UINT:
    case VK_FLOAT:
    case VK_STRING:
    case VK_RECORD:
        break;
    }
    return false;
}

/* v as something of a type (NULL: any), or "wrong type for value". */
static int validate_type(struct exec *x, struct value v, const struct vtype *type,
                         struct value *out) {
    if (!type || type == &VT_VALUE) {
        *out = v;
        return 0;
    }
    if (type == &VT_ANY) {
        *out = v.type ? value_concrete(v) : VALUE_NIL;
        return 0;
    }
    if (!v.type && !v.is_iface) {
        if (!can_be_nil(type)) {
            return exec_fail(x, "invalid value; expected %s", type->name);
        }
        *out = value_zero(type);
        return 0;
    }
    if (v.type) {
        v.is_iface = false;
        if (value_assignable(&v, type)) {
            *out = v;
            return 0;
        }
        if (v.type->kind == VK_PTR && v.type->elem == type) {
            if (!v.ptr) {
                return exec_fail(x, "dereference of nil pointer of type %s", type->name);
            }
            *out = *v.ptr;
            return 0;
        }
    }
    return exec_fail(x, "wrong type for value; expected %s; got %s", type->name,
                     value_type_name(&v));
}

static bool is_float_text(struct str s) {
    bool is_hex = s.n > 2 && s.p[0] == '0' && (s.p[1] | 0x20) == 'x';
    bool has_p = str_find(s, 'p', 0) >= 0 || str_find(s, 'P', 0) >= 0;
    return s.p[0] != '\'' && (!is_hex || has_p) &&
           (has_p || str_find(s, '.', 0) >= 0 || str_find(s, 'e', 0) >= 0 ||
            str_find(s, 'E', 0) >= 0);
}

/* A number where nothing says which type is wanted. */
static int ideal_constant(struct exec *x, const struct node *n, struct value *out) {
    x->at = n;
    if (n->number.is_float && is_float_text(n->number.text)) {
        *out = value_float(n->number.f);
    } else if (n->number.is_int) {
        *out = value_int(n->number.i);
    } else {
        return exec_fail(x, "%.*s overflows int", STR_FMT(n->number.text));
    }
    return 0;
}

/* A constant where a type is wanted. */
static int constant(struct exec *x, const struct vtype *type, const struct node *n,
                    struct value *out) {
    static const char *const wanted[] = {
        [VK_BOOL] = "bool",   [VK_INT] = "integer",   [VK_UINT] = "unsigned integer",
        [VK_FLOAT] = "float", [VK_STRING] = "string",
    };
    x->at = n;
    struct value v = {.type = type};
    bool is_number = n->kind == NODE_NUMBER, is_ok = false;
    if (type->kind == VK_BOOL && n->kind == NODE_BOOL) {
        v.b = n->b;
        is_ok = true;
    } else if (type->kind == VK_STRING && n->kind == NODE_STRING) {
        v.s = n->string.text.p;
        v.n = (uint32_t)n->string.text.n;
        is_ok = true;
    } else if (type->kind == VK_INT && is_number) {
        v.i = n->number.i;
        is_ok = n->number.is_int;
    } else if (type->kind == VK_UINT && is_number) {
        v.u = n->number.u;
        is_ok = n->number.is_uint;
    } else if (type->kind == VK_FLOAT && is_number) {
        v.f = n->number.f;
        is_ok = n->number.is_float;
    }
    if (!is_ok) {
        struct buf b = BUF_INIT(64);
        buf_printf(&b, "expected %s; found ", wanted[type->kind]);
        int r = exec_fail_node(x, buf_cstr(&b), n, "");
        buf_fini(&b);
        return r;
    }
    *out = v;
    return 0;
}

/* A literal; type NULL, interface {} or a type. */
static int eval_literal(struct exec *x, const struct vtype *type, const struct node *n,
                        struct value *out) {
    if (!type || type == &VT_ANY || type == &VT_VALUE) {
        x->at = n;
        if (n->kind == NODE_NUMBER) {
            return ideal_constant(x, n, out);
        }
        *out = n->kind == NODE_BOOL ? value_bool(n->b) : value_str(n->string.text);
        return 0;
    }
    if (type->kind > VK_STRING) {
        struct buf b = BUF_INIT(256);
        buf_printf(&b, " for arg of type %s", type->name);
        int r = exec_fail_node(x, "can't handle ", n, buf_cstr(&b));
        buf_fini(&b);
        return r;
    }
    return constant(x, type, n, out);
}

/* Calls */

static int fail_arg_count(struct exec *x, const struct tmpl_func *f, struct str name, size_t n_args,
                          size_t n_in) {
    if (f->is_variadic) {
        return exec_fail(x, "wrong number of args for %.*s: want at least %u got %zu",
                         STR_FMT(name), f->n_in - 1U, n_args);
    }
    return exec_fail(x, "wrong number of args for %.*s: want %u got %zu", STR_FMT(name), f->n_in,
                     n_in);
}

static int eval_and_or(struct exec *x, const struct value *dot, bool is_or, const struct args *args,
                       struct value *out) {
    for (size_t i = 1; i < args->n; i++) {
        int r = eval_arg(x, dot, &VT_VALUE, args->p[i], out);
        if (r < 0) {
            return r;
        }
        if (value_is_true(out) == is_or) {
            return 0;
        }
    }
    if (args->final) {
        *out = *args->final;
    }
    return 0;
}

/* The callback's result, or its error with Go's words around it. */
static int invoke(struct exec *x, const struct tmpl_func *f, void *ctx, const struct value *self,
                  const struct value *argv, size_t n, const struct node *node, struct str name,
                  struct value *out) {
    size_t used = x->kept_bytes + x->keep->used_bytes + x->scratch.used_bytes;
    buf_reset(&x->text);
    x->text.max = used < x->limits.max_memory_bytes ? x->limits.max_memory_bytes - used : 0;
    struct tmpl_call c = {.ctx = ctx, .arena = x->arena, .text = &x->text};
    if (self) {
        c.self = *self;
    }
    *out = VALUE_UNSET;
    x->call_err.msg[0] = '\0';
    int r = f->call(&c, argv, n, out, &x->call_err);
    if (r < 0) {
        x->at = node;
        return exec_fail_code(x, r, "error calling %.*s: %s", STR_FMT(name), x->call_err.msg);
    }
    return exec_step(x, 1);
}

/* `call`: the function that is the first argument. */
static int call_value(struct exec *x, const struct node *node, const struct args *args,
                      struct value *argv, size_t n, struct value *out) {
    struct buf name = BUF_INIT(1024);
    struct err *e = &x->call_err;
    struct value fn = value_concrete(argv[0]);
    int r = 0;
    if (args->n > 1) {
        node_write(args->p[1], &name);
    } else if (value_is_kind(&fn, VK_STRING)) {
        buf_str(&name, value_to_str(&fn));
    } else {
        buf_printf(&name, "<%s Value>", value_type_name(&fn));
    }
    const struct tmpl_func *f = value_is_kind(&fn, VK_FUNC) && fn.func ? fn.func->func : NULL;
    n--;
    if (!fn.type) {
        r = ERR_GO(e, "call of nil");
    } else if (fn.type->kind != VK_FUNC) {
        r = ERR_GO(e, "non-function %s of type %s", buf_cstr(&name), fn.type->name);
    } else if (!f) {
        r = ERR_GO(e, "reflect: call of nil function");
    } else if (f->is_variadic ? n + 1 < f->n_in : n != f->n_in) {
        r = ERR_GO(e, "wrong number of args for %s: got %zu want %s%u", buf_cstr(&name), n,
                   f->is_variadic ? "at least " : "", f->n_in - f->is_variadic);
    }
    for (size_t i = 0; r == 0 && f && i < n; i++) {
        struct value arg = value_concrete(argv[i + 1]);
        r = value_convert(&arg, f->in[i < f->n_in ? i : f->n_in - 1U], &argv[i + 1], e);
        if (r < 0) {
            (void)err_wrap(e, r, "arg %zu", i);
        }
    }
    buf_fini(&name);
    if (r < 0) {
        x->at = node;
        return exec_fail_code(x, r, "error calling call: %s", e->msg);
    }
    return invoke(x, f, fn.func->ctx, NULL, argv + 1, n, node, STR("call"), out);
}

/* What is called: a function of a table or a built-in, or a method (self). */
struct callee {
    const struct tmpl_func *func;
    struct str name;
    enum builtin builtin;
    void *ctx;
    const struct value *self;
};

static int eval_call(struct exec *x, const struct value *dot, const struct callee *callee,
                     const struct node *node, const struct args *args, struct value *out) {
    const struct tmpl_func *f = callee->func;
    size_t n_args = args->n ? args->n - 1 : 0;
    size_t n = n_args + (args->final != NULL);
    if (f->is_variadic ? n + 1 < f->n_in : n != f->n_in) {
        return fail_arg_count(x, f, callee->name, n_args, n);
    }
    if (callee->builtin == BUILTIN_AND || callee->builtin == BUILTIN_OR) {
        return eval_and_or(x, dot, callee->builtin == BUILTIN_OR, args, out);
    }
    struct value few[6];
    struct value *argv = n <= ARRAY_LEN(few) ? few : arena_array(x->arena, struct value, n);
    for (size_t i = 0; i < n; i++) {
        const struct vtype *type = f->in[i < f->n_in ? i : f->n_in - 1U];
        int r = i < n_args ? eval_arg(x, dot, type, args->p[i + 1], &argv[i])
                           : validate_type(x, *args->final, type, &argv[i]);
        if (r < 0) {
            return r;
        }
    }
    if (callee->builtin == BUILTIN_CALL) {
        return call_value(x, node, args, argv, n, out);
    }
    return invoke(x, f, callee->ctx, callee->self, argv, n, node, callee->name, out);
}

static int eval_function(struct exec *x, const struct value *dot, const struct node *n,
                         const struct node *cmd, const struct args *args, struct value *out) {
    x->at = n;
    struct callee callee = {
        .func = n->ident.func, .name = n->ident.name, .builtin = n->ident.builtin};
    if (n->ident.builtin == BUILTIN_NONE) {
        bool is_first = n->ident.table == 0;
        callee.ctx = is_first && x->ctx ? x->ctx : x->set->tables[n->ident.table].ctx;
    }
    return eval_call(x, dot, &callee, cmd, args, out);
}

/* Fields */

static const struct tmpl_func *find_method(const struct vtype *type, struct str name) {
    for (size_t i = 0; i < type->n_methods; i++) {
        if (str_is(name, type->methods[i].name)) {
            return &type->methods[i];
        }
    }
    return NULL;
}

static const struct vfield *find_field(const struct vtype *type, struct str name) {
    for (size_t i = 0; i < type->n_fields; i++) {
        if (str_is(name, type->fields[i].name)) {
            return &type->fields[i];
        }
    }
    return NULL;
}

static int map_field(struct exec *x, const struct value *map, struct str name,
                     const struct args *args, struct value *out) {
    if (has_args(args)) {
        return exec_fail(x, "%.*s is not a method but has arguments", STR_FMT(name));
    }
    if (!value_map_get_str(map, name, out)) {
        *out = VALUE_UNSET;
    }
    return 0;
}

/* What is left when the name is no method. type_name: of the receiver before pointers were
 * followed. */
static int plain_field(struct exec *x, const struct value *v, bool is_nil, const char *type_name,
                       struct str name, const struct args *args, struct value *out) {
    const struct vtype *type = v->type;
    if (type->kind == VK_RECORD) {
        const struct vfield *field = find_field(type, name);
        if (field && has_args(args)) {
            return exec_fail(x, "%.*s has arguments but cannot be invoked as function",
                             STR_FMT(name));
        }
        if (field) {
            *out = value_record_get(v, (size_t)(field - type->fields));
            return 0;
        }
    } else if (type->kind == VK_MAP && (type->key == &VT_STRING || type->key == &VT_ANY)) {
        return map_field(x, v, name, args, out);
    } else if (type->kind == VK_PTR && is_nil && find_field(type->elem, name)) {
        return exec_fail(x, "nil pointer evaluating %s.%.*s", type_name, STR_FMT(name));
    }
    return exec_fail(x, "can't evaluate field %.*s in type %s", STR_FMT(name), type_name);
}

static int eval_field(struct exec *x, const struct value *dot, struct str name,
                      const struct node *node, const struct args *args, struct value *v) {
    if (!v->type && !v->is_iface) {
        return 0; /* a field of what is missing is missing */
    }
    const char *type_name = value_type_name(v);
    const struct vtype *outer = v->type;
    bool is_nil;
    struct value self = value_indirect(*v, &is_nil);
    if (!self.type) {
        return exec_fail(x, "nil pointer evaluating %s.%.*s", type_name, STR_FMT(name));
    }
    const struct tmpl_func *method = find_method(self.type, name);
    method = method ? method : find_method(outer, name);
    if (method) {
        struct callee callee = {.func = method, .name = name, .ctx = x->ctx, .self = &self};
        return eval_call(x, dot, &callee, node, args, v);
    }
    return plain_field(x, &self, is_nil, type_name, name, args, v);
}

static int eval_fields(struct exec *x, const struct value *dot, const struct node *node,
                       const struct str *names, size_t n, const struct args *args,
                       struct value *v) {
    for (size_t i = 0; i < n; i++) {
        int r = eval_field(x, dot, names[i], node, i + 1 < n ? &no_args : args, v);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int not_a_function(struct exec *x, const struct args *args) {
    return has_args(args)
               ? exec_fail_node(x, "can't give argument to non-function ", args->p[0], "")
               : 0;
}

/* Things that may have fields behind them. */
static int eval_chain(struct exec *x, const struct value *dot, const struct node *n,
                      const struct args *args, struct value *out) {
    x->at = n;
    int r;
    if (n->kind == NODE_FIELD) {
        *out = *dot;
        return eval_fields(x, dot, n, n->chain_of.names, n->chain_of.n, args, out);
    }
    if (n->kind == NODE_VARIABLE) {
        r = var_value(x, n, out);
        if (r == 0 && n->chain_of.n == 1) {
            return not_a_function(x, args);
        }
        return r < 0 ? r
                     : eval_fields(x, dot, n, n->chain_of.names + 1, n->chain_of.n - 1, args, out);
    }
    r = eval_arg(x, dot, NULL, n->chain.node, out);
    return r < 0 ? r : eval_fields(x, dot, n, n->chain.names, n->chain.n, args, out);
}

static int eval_arg(struct exec *x, const struct value *dot, const struct vtype *type,
                    const struct node *n, struct value *out) {
    x->at = n;
    struct value v = *dot;
    int r = 0;
    switch (n->kind) {
    case NODE_DOT:
        break;
    case NODE_NIL:
        if (type && !can_be_nil(type)) {
            return exec_fail(x, "cannot assign nil to %s", type->name);
        }
        *out = !type || type == &VT_VALUE ? VALUE_UNSET : value_zero(type);
        return 0;
    case NODE_FIELD:
    case NODE_VARIABLE:
    case NODE_CHAIN:
        r = eval_chain(x, dot, n, &no_args, &v);
        break;
    case NODE_PIPE:
        r = eval_pipeline(x, dot, n, &v);
        break;
    case NODE_IDENTIFIER:
        r = eval_function(x, dot, n, n, &no_args, &v);
        break;
    default:
        return eval_literal(x, type, n, out);
    }
    return r < 0 ? r : validate_type(x, v, type, out);
}

static int eval_command(struct exec *x, const struct value *dot, const struct node *cmd,
                        const struct value *final, struct value *out) {
    const struct node *first = cmd->args.p[0];
    struct args args = {cmd->args.p, cmd->args.n, final};
    int r;
    switch (first->kind) {
    case NODE_FIELD:
    case NODE_VARIABLE:
    case NODE_CHAIN:
        return eval_chain(x, dot, first, &args, out);
    case NODE_IDENTIFIER:
        return eval_function(x, dot, first, cmd, &args, out);
    case NODE_PIPE:
        r = not_a_function(x, &args);
        return r < 0 ? r : eval_pipeline(x, dot, first, out);
    default:
        break;
    }
    x->at = first;
    r = not_a_function(x, &args);
    if (r < 0) {
        return r;
    }
    if (first->kind == NODE_DOT) {
        *out = *dot;
        return 0;
    }
    if (first->kind == NODE_NIL) {
        return exec_fail(x, "nil is not a command");
    }
    return eval_literal(x, NULL, first, out);
}

int eval_pipeline(struct exec *x, const struct value *dot, const struct node *pipe,
                  struct value *out) {
    x->at = pipe;
    struct value v = VALUE_UNSET;
    for (size_t i = 0; i < pipe->pipeline.cmds.n; i++) {
        struct value final = v;
        int r = eval_command(x, dot, pipe->pipeline.cmds.p[i], i > 0 ? &final : NULL, &v);
        if (r < 0) {
            return r;
        }
        v = value_concrete(v);
    }
    for (size_t i = 0; i < pipe->pipeline.decl.n; i++) {
        const struct node *variable = pipe->pipeline.decl.p[i];
        int r = 0;
        if (pipe->pipeline.is_assign) {
            r = exec_set_var(x, variable, v);
        } else {
            exec_push_var(x, variable->chain_of.var, v);
        }
        if (r < 0) {
            return r;
        }
    }
    *out = v;
    return 0;
}
