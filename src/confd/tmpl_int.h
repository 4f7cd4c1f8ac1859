/* What lexer, parser and executor of templates share. */
#pragma once

#include "base/vec.h"
#include "confd/gotext.h"
#include "confd/template.h"

/* Lexer */

enum item_type {
    ITEM_ERROR, /* val is the message */
    ITEM_BOOL,
    ITEM_CHAR, /* a comma and the like */
    ITEM_CHAR_CONST,
    ITEM_COMPLEX,
    ITEM_ASSIGN,
    ITEM_DECLARE,
    ITEM_EOF,
    ITEM_FIELD,
    ITEM_IDENTIFIER,
    ITEM_LEFT_DELIM,
    ITEM_LEFT_PAREN,
    ITEM_NUMBER,
    ITEM_PIPE,
    ITEM_RAW_STRING,
    ITEM_RIGHT_DELIM,
    ITEM_RIGHT_PAREN,
    ITEM_SPACE,
    ITEM_STRING,
    ITEM_TEXT,
    ITEM_VARIABLE,
    ITEM_KEYWORD, /* what follows are keywords */
    ITEM_BLOCK,
    ITEM_BREAK,
    ITEM_CONTINUE,
    ITEM_DOT,
    ITEM_DEFINE,
    ITEM_ELSE,
    ITEM_END,
    ITEM_IF,
    ITEM_NIL,
    ITEM_RANGE,
    ITEM_TEMPLATE,
    ITEM_WITH,
};

struct item {
    enum item_type type;
    uint32_t pos, line;
    struct str val;
};

struct lexer {
    struct str in;
    struct arena *arena; /* for messages */
    size_t pos, start;
    uint32_t line, start_line;
    size_t width; /* of the rune that lex_next took; 0 at the end */
    int paren_depth;
    bool is_inside;             /* in an action */
    bool break_ok, continue_ok; /* they are keywords, not functions */
    struct item item;
};

void lex_init(struct lexer *l, struct str text, struct arena *a);
/* After an error or the end: ITEM_EOF for ever. */
struct item lex_item(struct lexer *l);
/* How Go shows an item in messages. */
void item_describe(const struct item *it, struct buf *out);

/* Nodes */

enum node_kind {
    NODE_TEXT,
    NODE_ACTION,
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_IF,
    NODE_RANGE,
    NODE_WITH,
    NODE_TEMPLATE,
    /* In pipelines: */
    NODE_PIPE,
    NODE_COMMAND,
    NODE_FIELD,
    NODE_CHAIN,
    NODE_IDENTIFIER,
    NODE_VARIABLE,
    NODE_DOT,
    NODE_NIL,
    NODE_BOOL,
    NODE_NUMBER,
    NODE_STRING,
};

struct node;

struct node_list {
    struct node **p;
    size_t n;
};

enum builtin {
    BUILTIN_NONE, /* of a function table */
    BUILTIN_AND,
    BUILTIN_OR,
    BUILTIN_CALL,
    BUILTIN_OTHER,
};

struct node {
    enum node_kind kind;
    uint32_t pos; /* where messages point */
    union {
        struct str text;
        struct node *pipe; /* of actions */
        struct {
            struct node *pipe;
            struct node_list list, else_list;
            bool has_else;
            bool assigns; /* something within sets a variable that was declared before */
        } branch;
        struct {
            struct str name;
            struct node *pipe; /* or NULL */
            const struct tree *tree;
        } call;
        struct {
            struct node_list decl, cmds;
            bool is_assign;
            bool binds; /* it, or a pipeline in it, declares or sets a variable */
        } pipeline;
        struct node_list args; /* of commands */
        struct {               /* fields; variables, whose first name is the variable's */
            const struct str *names;
            size_t n;
            uint32_t var;
        } chain_of;
        struct {
            struct node *node;
            const struct str *names;
            size_t n;
        } chain;
        struct {
            struct str name;
            const struct tmpl_func *func;
            uint32_t table; /* index of the function's table */
            enum builtin builtin;
        } ident;
        bool b;
        struct {
            struct str text;
            int64_t i;
            uint64_t u;
            double f;
            bool is_int, is_uint, is_float;
        } number;
        struct {
            struct str quoted, text;
        } string;
    };
};

/* A named template. */
struct tree {
    struct str name;
    struct node_list root;
};

struct tmpl_set {
    struct arena arena;
    struct str name, text;
    const struct tmpl_funcs *tables;
    size_t n_tables;
    struct trees *trees;
    const struct tree *main;
    uint32_t n_vars; /* how many different names variables have; 0 is "$" */
};

const struct tree *tmpl_lookup(const struct tmpl_set *t, struct str name);

/* Writes a node as Go's String() does. */
void node_write(const struct node *n, struct buf *out);

/* Built-ins */

/* NULL if there is none of that name. */
const struct tmpl_func *builtin_find(struct str name, enum builtin *which);
/* Go's prepareArg: an index or argument of `call`. */
int value_convert(const struct value *v, const struct vtype *to, struct value *out, struct err *e);
int compare_eq(const struct value *args, size_t n, bool *out, struct err *e);
/* args[0] < args[1]. */
int compare_lt(const struct value *args, bool *out, struct err *e);
struct value value_zero(const struct vtype *type);

#define ERR_GO(e, ...) err_set((e), ERR_INVALID, __VA_ARGS__)

/* Printing */

/* As fmt.Fprint prints one value. */
void print_value(struct buf *out, const struct value *v);
/* With the verb ('s' or 'v'), for messages. */
void print_verb(struct buf *out, const struct value *v, char verb);
