/* The parser's state, shared by its two halves: blocks (tmpl_parse.c) and pipelines
 * (tmpl_pipe.c). */
#pragma once

#include "confd/tmpl_int.h"

#include "base/hash.h"

#define MAP_NAME trees
#define MAP_KEY struct str
#define MAP_VAL struct tree *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

#define MAP_NAME var_ids
#define MAP_KEY struct str
#define MAP_VAL uint32_t
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

/* Which tree sees a variable's name, and how many declarations of it it has. */
struct var_seen {
    uint32_t tree, count;
};

struct var_entry {
    uint32_t id;
    struct var_seen before;
};

/* A tree on its way: a `define` or `block` within has items and variables of its own. */
struct tree_state {
    struct tree_state *outer;
    struct tree *tree;
    struct item token[3]; /* Go looks three items ahead; messages have the line of the first */
    unsigned n_peeked;
    uint32_t action_line; /* where the action that is being read began; 0: none is */
    uint32_t range_depth;
    uint32_t id;
    size_t first_var;
};

enum block_kind { BLOCK_ROOT, BLOCK_DEFINE, BLOCK_BLOCK, BLOCK_CONTROL };

/* What an {{end}} closes. */
struct block {
    enum block_kind kind;
    bool in_else;
    bool is_chained;   /* `else if`: closes with the one around it */
    struct node *node; /* of controls and blocks */
    size_t first_node; /* in parser.nodes */
    size_t n_assigns;  /* before it */
    size_t first_var;
};

struct parser {
    struct tmpl_set *set;
    struct lexer lex;
    struct tree_state *at;
    uint32_t n_trees;
    VEC(struct node *) nodes; /* of all lists that are open, one behind the other */
    VEC(struct block) blocks;
    VEC(struct node *) calls; /* to be given their trees */
    VEC(struct var_entry) vars;
    VEC(struct var_seen) seen; /* by id */
    struct var_ids ids;
    unsigned paren_depth;
    size_t n_binds, n_assigns; /* declarations and assignments so far */
    struct err *e;
    bool has_failed;
};

/* Sets the error once; always NULL. */
struct node *parse_fail(struct parser *p, const char *fmt, ...) MG_PRINTF(2, 3);
struct node *parse_unexpected(struct parser *p, const struct item *it, const char *context);
struct node *parse_node(struct parser *p, enum node_kind kind, uint32_t pos);
/* The nodes from `first` on, taken off the stack. */
struct node_list parse_list(struct parser *p, size_t first);

struct item parse_next(struct parser *p);
struct item parse_next_nonspace(struct parser *p);
struct item parse_peek(struct parser *p);
struct item parse_peek_nonspace(struct parser *p);
static inline void parse_backup(struct parser *p) {
    p->at->n_peeked++;
}

void parse_push_var(struct parser *p, struct str name);
void parse_pop_vars(struct parser *p, size_t n);

/* A pipeline up to `end`; NULL on failure. */
struct node *parse_pipeline(struct parser *p, const char *context, enum item_type end);
