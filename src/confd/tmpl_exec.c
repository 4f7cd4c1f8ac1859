/* Executes a template's nodes. Lists of nodes are frames on a stack of our own; C recursion happens
 * only within pipelines, whose nesting the parser bounds. Values live in the innermost iteration's
 * arena, or, if an action binds no variable, in one that is emptied behind it. */
#include "confd/tmpl_exec_int.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>

/* How often the clock is read. */
#define STEPS_PER_CLOCK 1024

static const struct tmpl_limits default_limits = {
    .max_output_bytes = (size_t)64 << 20,
    .max_memory_bytes = (size_t)256 << 20,
    .max_steps = 100000000,
    .max_ns = 60LL * 1000 * 1000 * 1000,
};

/* NAME:LINE:COL of the node that messages point at. */
static void add_location(const struct exec *x, struct buf *b) {
    struct str before = str_sub(x->set->text, 0, x->at->pos);
    size_t line = 1, column = before.n;
    for (size_t i = 0; i < before.n; i++) {
        if (before.p[i] == '\n') {
            line++;
            column = before.n - i - 1;
        }
    }
    buf_printf(b, "template: %.*s:%zu:%zu: executing ", STR_FMT(x->set->name), line, column);
    go_quote(b, x->tree->name, false);
    buf_puts(b, " at <");
    node_write(x->at, b);
    buf_puts(b, ">: ");
}

int exec_fail_code(struct exec *x, int code, const char *fmt, ...) {
    char msg[sizeof(x->e->msg)];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    struct buf b = BUF_INIT(TMPL_TEXT_MAX * 4);
    add_location(x, &b);
    (void)err_set(x->e, code, "%s%s", buf_cstr(&b), msg);
    buf_fini(&b);
    return code;
}

int exec_fail_node(struct exec *x, const char *before, const struct node *n, const char *behind) {
    struct buf b = BUF_INIT(TMPL_TEXT_MAX);
    node_write(n, &b);
    int r = exec_fail(x, "%s%s%s", before, buf_cstr(&b), behind);
    buf_fini(&b);
    return r;
}

/* printf-like with a value between, as %v prints it. */
static int fail_value(struct exec *x, const char *before, const struct value *v,
                      const char *behind) {
    struct buf b = BUF_INIT(sizeof(x->e->msg));
    print_value(&b, v);
    int r = exec_fail(x, "%s%s%s", before, buf_cstr(&b), behind);
    buf_fini(&b);
    return r;
}

static int check_limits(struct exec *x) {
    size_t bytes = x->kept_bytes + x->keep->used_bytes + x->scratch.used_bytes +
                   x->frames.n * sizeof(*x->frames.p) + x->vars.n * sizeof(*x->vars.p);
    if (bytes > x->limits.max_memory_bytes) {
        return exec_fail_code(x, ERR_TOO_BIG, "its values need more than %zu bytes of memory",
                              x->limits.max_memory_bytes);
    }
    if (x->n_steps > x->limits.max_steps) {
        return exec_fail_code(x, ERR_TOO_BIG, "it takes more than %llu steps",
                              (unsigned long long)x->limits.max_steps);
    }
    return 0;
}

int exec_step(struct exec *x, uint64_t n) {
    uint64_t before = x->n_steps / STEPS_PER_CLOCK;
    x->n_steps += n;
    if (x->n_steps / STEPS_PER_CLOCK != before && clock_ns() > x->deadline_ns) {
        return exec_fail_code(x, ERR_TOO_BIG, "it takes longer than %lld ms",
                              (long long)(x->limits.max_ns / 1000000));
    }
    return check_limits(x);
}

static int check_output(struct exec *x) {
    if (x->out->overflow) {
        return exec_fail_code(x, ERR_TOO_BIG, "the output is longer than %zu bytes", x->out->max);
    }
    return 0;
}

static struct frame *top(struct exec *x) {
    return &x->frames.p[x->frames.n - 1];
}

static struct frame *push_frame(struct exec *x, enum frame_kind kind, const struct node_list *list,
                                struct value dot, size_t first_var) {
    vec_push(&x->frames,
             (struct frame){.kind = kind, .list = list, .dot = dot, .first_var = first_var});
    return top(x);
}

/* Leaves an iteration's arena. */
static void drop_arena(struct exec *x, struct frame *f) {
    if (f->range.arena) {
        arena_fini(f->range.arena);
        x->keep = f->range.outer;
        x->kept_bytes = f->range.outer_bytes;
    }
}

static void pop_frame(struct exec *x) {
    struct frame *f = top(x);
    if (f->kind == FRAME_RANGE) {
        drop_arena(x, f);
    } else if (f->kind == FRAME_TEMPLATE) {
        x->tree = f->call.tree;
        x->vars_base = f->call.vars_base;
        x->depth--;
    }
    x->vars.n = f->first_var;
    x->frames.n--;
}

/* The i-th element of what a range goes over; *index is unset for integers. */
static void range_element(const struct frame *f, struct value *index, struct value *elem) {
    const struct value *over = &f->range.over;
    size_t i = f->range.i;
    *index = value_int((int64_t)i);
    switch (over->type->kind) {
    case VK_LIST:
        *elem = value_list_get(over, i);
        return;
    case VK_MAP:
        value_map_at(over, i, index, elem);
        return;
    default:
        *index = VALUE_UNSET;
        *elem = (struct value){.type = over->type, .u = i};
    }
}

static int set_range_vars(struct exec *x, const struct node *pipe, const struct value *index,
                          const struct value *elem) {
    const struct node_list *decl = &pipe->pipeline.decl;
    int r = 0;
    if (decl->n == 0) {
        return 0;
    }
    if (pipe->pipeline.is_assign) {
        r = exec_set_var(x, decl->p[0], decl->n > 1 ? *index : *elem);
        return r == 0 && decl->n > 1 ? exec_set_var(x, decl->p[1], *elem) : r;
    }
    x->vars.p[x->vars.n - 1].value = *elem;
    if (decl->n > 1) {
        x->vars.p[x->vars.n - 2].value = *index;
    }
    return 0;
}

/* The next iteration of the range on top, or its end. */
static int next_iteration(struct exec *x) {
    struct frame *f = top(x);
    if (f->range.i >= f->range.n) {
        pop_frame(x);
        return 0;
    }
    x->vars.n = f->range.body_var;
    if (f->range.arena) {
        arena_reset(f->range.arena);
    }
    struct value index, elem;
    range_element(f, &index, &elem);
    f->range.i++;
    f->i = 0;
    f->dot = elem;
    int r = set_range_vars(x, f->range.node->branch.pipe, &index, &elem);
    return r < 0 ? r : exec_step(x, 1);
}

static void walk_else(struct exec *x, const struct node *n, const struct value *dot, size_t mark) {
    if (n->branch.has_else) {
        (void)push_frame(x, FRAME_LIST, &n->branch.else_list, *dot, mark);
    } else {
        x->vars.n = mark;
    }
}

/* How many iterations; -1 if v can't be ranged over. */
static int64_t range_count(const struct value *v) {
    switch (v->type->kind) {
    case VK_LIST:
        return (int64_t)value_list_n(v);
    case VK_MAP:
        return (int64_t)value_map_n(v);
    case VK_INT:
        return v->i < 0 ? 0 : v->i;
    case VK_UINT:
        return v->u > INT64_MAX ? INT64_MAX : (int64_t)v->u;
    default:
        return -1;
    }
}

static int walk_range(struct exec *x, const struct node *n, struct value dot) {
    size_t mark = x->vars.n;
    struct value v;
    bool is_nil;
    int r = eval_pipeline(x, &dot, n->branch.pipe, &v);
    if (r < 0) {
        return r;
    }
    v = value_indirect(v, &is_nil);
    int64_t count = v.type ? range_count(&v) : 0;
    if (count < 0) {
        return fail_value(x, "range can't iterate over ", &v, "");
    }
    bool is_number = v.type && (v.type->kind == VK_INT || v.type->kind == VK_UINT);
    if (is_number && n->branch.pipe->pipeline.decl.n > 1) {
        return fail_value(x, "can't use ", &v, " to iterate over more than one variable");
    }
    if (count == 0) {
        walk_else(x, n, &dot, mark);
        return 0;
    }
    struct arena *arena = n->branch.assigns ? NULL : arena_new(x->keep, struct arena);
    struct frame *f = push_frame(x, FRAME_RANGE, &n->branch.list, dot, mark);
    f->range.node = n;
    f->range.over = v;
    f->range.n = (size_t)count;
    f->range.body_var = x->vars.n;
    f->range.arena = arena;
    if (arena) {
        arena->first_bytes = 512;
        f->range.outer = x->keep;
        f->range.outer_bytes = x->kept_bytes;
        x->kept_bytes += x->keep->used_bytes;
        x->keep = arena;
    }
    return next_iteration(x);
}

/* Back to the innermost range: out of it, or on with it. */
static int walk_jump(struct exec *x, bool is_break) {
    while (top(x)->kind != FRAME_RANGE) {
        pop_frame(x);
    }
    if (is_break) {
        pop_frame(x);
        return 0;
    }
    return next_iteration(x);
}

static int walk_if_with(struct exec *x, const struct node *n, struct value dot) {
    size_t mark = x->vars.n;
    struct value v;
    bool is_if = n->kind == NODE_IF;
    if (is_if && !n->branch.pipe->pipeline.binds) {
        x->arena = &x->scratch;
    }
    int r = eval_pipeline(x, &dot, n->branch.pipe, &v);
    bool is_true = r == 0 && value_is_true(&v);
    if (x->arena == &x->scratch) {
        arena_reset(&x->scratch);
        x->arena = x->keep;
    }
    if (r < 0) {
        return r;
    }
    if (is_true) {
        (void)push_frame(x, FRAME_LIST, &n->branch.list, is_if ? dot : v, mark);
    } else {
        walk_else(x, n, &dot, mark);
    }
    return 0;
}

static int walk_template(struct exec *x, const struct node *n, struct value dot) {
    if (!n->call.tree) {
        struct buf b = BUF_INIT(sizeof(x->e->msg));
        go_quote(&b, n->call.name, false);
        int r = exec_fail(x, "template %s not defined", buf_cstr(&b));
        buf_fini(&b);
        return r;
    }
    if (x->depth == TMPL_EXEC_DEPTH_MAX) {
        return exec_fail(x, "exceeded maximum template depth (%d)", TMPL_EXEC_DEPTH_MAX);
    }
    struct value v = VALUE_UNSET;
    int r = n->call.pipe ? eval_pipeline(x, &dot, n->call.pipe, &v) : 0;
    if (r < 0) {
        return r;
    }
    struct frame *f = push_frame(x, FRAME_TEMPLATE, &n->call.tree->root, v, x->vars.n);
    f->call.tree = x->tree;
    f->call.vars_base = x->vars_base;
    x->tree = n->call.tree;
    x->vars_base = x->vars.n;
    x->depth++;
    exec_push_var(x, 0, v);
    return 0;
}

static int walk_action(struct exec *x, const struct node *n, const struct value *dot) {
    struct value v;
    bool is_scratch = !n->pipe->pipeline.binds;
    x->arena = is_scratch ? &x->scratch : x->keep;
    int r = eval_pipeline(x, dot, n->pipe, &v);
    if (r == 0 && n->pipe->pipeline.decl.n == 0) {
        bool is_nil;
        x->at = n;
        v = value_indirect(v, &is_nil);
        if (!v.type) {
            buf_puts(x->out, "<no value>");
        } else if (v.type->kind == VK_FUNC) {
            struct buf b = BUF_INIT(256);
            buf_printf(&b, " of type %s", v.type->name);
            r = exec_fail_node(x, "can't print ", n, buf_cstr(&b));
            buf_fini(&b);
        } else {
            print_value(x->out, &v);
        }
    }
    if (is_scratch) {
        arena_reset(&x->scratch);
    }
    return r < 0 ? r : check_output(x);
}

static int walk(struct exec *x, const struct node *n) {
    struct value dot = top(x)->dot;
    x->at = n;
    x->arena = x->keep;
    int r = exec_step(x, 1);
    if (r < 0) {
        return r;
    }
    switch (n->kind) {
    case NODE_TEXT:
        buf_str(x->out, n->text);
        return check_output(x);
    case NODE_ACTION:
        return walk_action(x, n, &dot);
    case NODE_BREAK:
    case NODE_CONTINUE:
        return walk_jump(x, n->kind == NODE_BREAK);
    case NODE_IF:
    case NODE_WITH:
        return walk_if_with(x, n, dot);
    case NODE_RANGE:
        return walk_range(x, n, dot);
    case NODE_TEMPLATE:
        return walk_template(x, n, dot);
    default:
        mg_abort(__FILE__, __LINE__, "a statement");
    }
}

static int run(struct exec *x) {
    while (x->frames.n > 0) {
        struct frame *f = top(x);
        int r = 0;
        if (f->i < f->list->n) {
            r = walk(x, f->list->p[f->i++]);
        } else if (f->kind == FRAME_RANGE) {
            r = next_iteration(x);
        } else {
            pop_frame(x);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static void set_limits(struct exec *x, const struct tmpl_limits *limits) {
    const struct tmpl_limits *d = &default_limits;
    x->limits = limits ? *limits : *d;
    struct tmpl_limits *l = &x->limits;
    l->max_output_bytes = l->max_output_bytes ? l->max_output_bytes : d->max_output_bytes;
    l->max_memory_bytes = l->max_memory_bytes ? l->max_memory_bytes : d->max_memory_bytes;
    l->max_steps = l->max_steps ? l->max_steps : d->max_steps;
    l->max_ns = l->max_ns ? l->max_ns : d->max_ns;
    x->deadline_ns = clock_ns() + l->max_ns;
}

static int execute(const struct tmpl_set *t, const struct tree *tree, struct value dot,
                   const struct tmpl_limits *limits, void *ctx, struct buf *out, struct err *e) {
    struct exec x = {.set = t, .out = out, .tree = tree, .ctx = ctx, .e = e};
    if (!x.ctx && t->n_tables > 0) {
        x.ctx = t->tables[0].ctx;
    }
    set_limits(&x, limits);
    x.keep = x.arena = &x.root;
    size_t max = out->max;
    if (out->max - out->n > x.limits.max_output_bytes) {
        out->max = out->n + x.limits.max_output_bytes;
    }
    exec_push_var(&x, 0, dot);
    (void)push_frame(&x, FRAME_LIST, &tree->root, dot, 0);
    int r = run(&x);
    while (x.frames.n > 0) {
        pop_frame(&x);
    }
    out->max = max;
    vec_fini(&x.frames);
    vec_fini(&x.vars);
    buf_fini(&x.text);
    arena_fini(&x.scratch);
    arena_fini(&x.root);
    return r;
}

int tmpl_execute(const struct tmpl_set *t, struct value dot, const struct tmpl_limits *limits,
                 void *ctx, struct buf *out, struct err *e) {
    return execute(t, t->main, dot, limits, ctx, out, e);
}

int tmpl_execute_named(const struct tmpl_set *t, struct str name, struct value dot,
                       const struct tmpl_limits *limits, void *ctx, struct buf *out,
                       struct err *e) {
    const struct tree *tree = tmpl_lookup(t, name);
    if (!tree) {
        struct buf b = BUF_INIT(1024);
        buf_puts(&b, "template: no template ");
        go_quote(&b, name, false);
        buf_puts(&b, " associated with template ");
        go_quote(&b, t->name, false);
        int r = err_set(e, ERR_NOT_FOUND, "%s", buf_cstr(&b));
        buf_fini(&b);
        return r;
    }
    return execute(t, tree, dot, limits, ctx, out, e);
}
