/* TOML 1.0 to trees (base/jtree.h), strict. Tables are J_MAP, arrays J_LIST; dates and times are
 * J_STR with the text as written and toml_type telling them apart; inf and nan are J_FLOAT. */
#pragma once

#include "base/jtree.h"

enum {
    TOML_MAX_BYTES = 1 << 20,
    TOML_MAX_VALUES = 10000, /* in a document, tables included */
    TOML_MAX_DEPTH = 64,     /* of values, and parts of a key */
};

enum toml_type {
    TOML_STRING,
    TOML_INTEGER,
    TOML_FLOAT,
    TOML_BOOLEAN,
    TOML_DATETIME,       /* with an offset */
    TOML_DATETIME_LOCAL, /* without */
    TOML_DATE_LOCAL,
    TOML_TIME_LOCAL,
    TOML_ARRAY,
    TOML_TABLE,
};

/* Reads a whole document; *out is its root table and lives in a, as does all of it. ERR_INVALID or
 * ERR_TOO_BIG with "NAME:LINE:COLUMN: found …, need …" in e; columns count bytes. */
MG_NODISCARD int toml_parse(struct str text, const char *name, struct arena *a, struct jnode **out,
                            struct err *e);
enum toml_type toml_type(const struct jnode *n);
/* As TOML's documents call it: "integer", "table". */
const char *toml_type_name(enum toml_type t);
