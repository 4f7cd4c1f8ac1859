/* The executor's state, shared by its halves: statements (tmpl_exec.c) and expressions
 * (tmpl_eval.c). */
#pragma once

#include "confd/tmpl_int.h"

struct var {
    uint32_t id;
    struct value value;
};

enum frame_kind { FRAME_LIST, FRAME_RANGE, FRAME_TEMPLATE };

/* A list of nodes that is being executed. Frames are a stack of our own: templates that call
 * themselves use no C stack. */
struct frame {
    enum frame_kind kind;
    const struct node_list *list;
    size_t i;
    struct value dot;
    size_t first_var; /* variables from here on go when the frame does */
    union {
        struct {
            const struct node *node;
            struct value over;
            size_t i, n, body_var;
            struct arena *arena, *outer; /* arena: of one iteration; NULL if it can't be freed */
            size_t outer_bytes;
        } range;
        struct {
            const struct tree *tree;
            size_t vars_base;
        } call; /* what was before */
    };
};

struct exec {
    const struct tmpl_set *set;
    struct tmpl_limits limits;
    struct buf *out;
    struct arena root;    /* of what variables and dots hold */
    struct arena scratch; /* of one action */
    struct arena *keep;   /* root, or that of an iteration */
    struct arena *arena;  /* where values go now: keep or scratch */
    size_t kept_bytes;    /* in the arenas below keep */
    struct buf text;
    VEC(struct var) vars;
    size_t vars_base; /* of the template that is being executed */
    VEC(struct frame) frames;
    const struct tree *tree;
    const struct node *at; /* where messages point */
    unsigned depth;
    void *ctx;
    uint64_t n_steps;
    int64_t deadline_ns;
    struct err call_err; /* of a function; too large for the stack at each level */
    struct err *e;
};

/* "template: NAME:LINE:COL: executing …"; returns code. */
int exec_fail_code(struct exec *x, int code, const char *fmt, ...) MG_PRINTF(3, 4);
#define exec_fail(x, ...) exec_fail_code((x), ERR_INVALID, __VA_ARGS__)
/* The same with a node as Go prints it between two texts. */
int exec_fail_node(struct exec *x, const char *before, const struct node *n, const char *behind);

/* Counts n steps; fails beyond a limit. */
int exec_step(struct exec *x, uint64_t n);

static inline void exec_push_var(struct exec *x, uint32_t id, struct value v) {
    vec_push(&x->vars, (struct var){id, v});
}
int exec_set_var(struct exec *x, const struct node *variable, struct value v);

int eval_pipeline(struct exec *x, const struct value *dot, const struct node *pipe,
                  struct value *out);
