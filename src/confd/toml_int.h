/* The TOML reader's inside, shared by toml.c (keys, tables, documents) and toml_value.c (scalars).
 */
#pragma once

#include "confd/toml.h"

struct toml {
    struct str t;
    size_t pos, line_start;
    uint32_t line;
    const char *name;
    struct arena *a;
    struct err *e;
    size_t n_values;
    unsigned depth;
};

static inline int toml_peek(const struct toml *t, size_t ahead) {
    return t->pos + ahead < t->t.n ? (unsigned char)t->t.p[t->pos + ahead] : -1;
}

/* Error at the reader's place; returns code. */
int toml_fail(const struct toml *t, int code, const char *fmt, ...) MG_PRINTF(3, 4);
/* "found X, need NEED". */
int toml_fail_found(const struct toml *t, const char *need);
/* A string of any of the four kinds, at its first quote; multi-line ones unless is_key. */
MG_NODISCARD int toml_string(struct toml *t, bool is_key, struct str *out);
/* A number, boolean, date or time. Sets the type and value of n. */
MG_NODISCARD int toml_scalar(struct toml *t, struct jnode *n);
/* Takes one end of line, LF or CR LF; false if there is none. */
bool toml_newline(struct toml *t);
