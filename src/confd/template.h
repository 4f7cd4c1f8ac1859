/* Go's text/template: parse once, execute many times. What a template prints, and what it refuses
 * and with which words, is what Go does (the semantics of Go 1.26: `break`, `continue`, `else
 * with`, range over an integer).
 *
 * A template can neither crash nor occupy the process: nesting, output, memory and time are
 * bounded. Not supported, and refused by name: complex numbers. */
#pragma once

#include "base/err.h"
#include "confd/value.h"

struct tmpl_set;

/* What a function is called with. */
struct tmpl_call {
    void *ctx;           /* of the function table or the func value */
    struct arena *arena; /* for results: lives until the execution ends, or shorter if the result is
                            only printed */
    struct buf *text;    /* empty, for building a result; its maximum is what the limits leave. Copy
                            to the arena what stays */
    struct value self;   /* methods: the receiver */
};

/* A function that templates may call. Go's messages come from the table: number of arguments, and
 * "wrong type for value; expected string; got int". A callback sees at least n_in arguments (less
 * one if is_variadic), each assignable to its type; numbers written in the template are already
 * converted to it; nil is passed to &VT_ANY as VALUE_NIL. */
#define TMPL_ARGS_MAX 6
struct tmpl_func {
    const char *name;
    /* Returns 0 and sets *out, or a negative code and e->msg (what Go's error says: the executor
     * puts template, line and "error calling NAME: " in front). */
    int (*call)(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                struct err *e);
    uint8_t n_in;
    bool is_variadic; /* the last type of `in` may come any number of times */
    const struct vtype *in[TMPL_ARGS_MAX];
};

/* Functions of a template. Names must be Go identifiers; they win over built-ins. */
struct tmpl_funcs {
    const struct tmpl_func *p;
    size_t n;
    void *ctx;
};

/* 0 means the default in brackets. */
struct tmpl_limits {
    size_t max_output_bytes; /* [64 MiB] */
    size_t max_memory_bytes; /* of values made while executing [256 MiB] */
    uint64_t max_steps;      /* actions and function calls [100 million] */
    int64_t max_ns;          /* [60 s] */
};

#define TMPL_TEXT_MAX ((size_t)16 << 20) /* bytes of a template's text */
#define TMPL_EXEC_DEPTH_MAX 100000       /* templates within templates, as in Go */
#define TMPL_PAREN_DEPTH_MAX 1000        /* parentheses within parentheses; Go: 10000 */

/* Parses text (copied) under a name, as Go's template.New(name).Funcs(…).Parse(text). tables:
 * n_tables function tables, which must outlive the set; the first that has a name wins. On success
 * *out is the caller's: tmpl_free. Errors: ERR_INVALID with Go's sentence ("template: NAME:LINE:
 * …"), ERR_TOO_BIG. Does not block. */
MG_NODISCARD int tmpl_parse(struct str name, struct str text, const struct tmpl_funcs *tables,
                            size_t n_tables, struct tmpl_set **out, struct err *e);
void tmpl_free(struct tmpl_set *t);

/* Renders the set's main template (the one named by tmpl_parse) with dot into out (whose own
 * maximum counts too). limits may be NULL. On failure out holds what was written before, and e
 * Go's sentence ("template: NAME:LINE:COL: executing "NAME" at <…>: …"). ctx, if not NULL, replaces
 * the ctx of the first function table for this execution. Errors: ERR_INVALID, ERR_TOO_BIG (a limit
 * was reached), or what a function returned. May be called again, not from within a callback of the
 * same set. */
MG_NODISCARD int tmpl_execute(const struct tmpl_set *t, struct value dot,
                              const struct tmpl_limits *limits, void *ctx, struct buf *out,
                              struct err *e);
/* The same for a template that the text defined. */
MG_NODISCARD int tmpl_execute_named(const struct tmpl_set *t, struct str name, struct value dot,
                                    const struct tmpl_limits *limits, void *ctx, struct buf *out,
                                    struct err *e);

/* Go's fmt.Sprint and fmt.Sprintf of values, for functions that print like templates do. */
void tmpl_print(struct buf *out, const struct value *args, size_t n);
void tmpl_printf(struct buf *out, struct str format, const struct value *args, size_t n);
/* Go's strconv.Quote (%q). */
void tmpl_quote(struct buf *out, struct str s);
/* Go's shortest %v of a float64 ("1e+06", "0.1", "NaN"). */
void tmpl_float(struct buf *out, double f);
