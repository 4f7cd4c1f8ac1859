/* Documents as trees: what JSON and YAML text become before a schema reads them. A tree keeps all
 * that the user wrote, in order, with the line and column of each node for errors. Lives in one
 * arena. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum jtype { J_NULL, J_BOOL, J_INT, J_FLOAT, J_STR, J_LIST, J_MAP };

struct jnode {
    enum jtype type;
    uint32_t line, col; /* of the value, 1-based; 0 = unknown. col counts bytes in JSON, characters
                           in YAML */
    struct str key;     /* when member of a map */
    struct str s;       /* J_STR: the text; J_INT, J_FLOAT: as written, in JSON's grammar */
    union {
        bool b;
        int64_t i; /* J_INT: fits int64, else the node is J_FLOAT */
        double f;
    };
    struct jnode *child, *last, *next; /* J_LIST, J_MAP: members in order of writing */
    size_t n;                          /* number of members */
};

#define jnode_each(it, parent) \
    for (struct jnode *it = (parent) ? (parent)->child : NULL; it; it = it->next)

/* Limits for input from outside; json_limits_default is what every caller uses unless it says why.
 */
struct jlimits {
    size_t max_bytes; /* of text */
    size_t max_nodes;
    size_t max_depth;
    size_t max_string;  /* bytes of one scalar or key */
    size_t max_aliases; /* YAML */
};
extern const struct jlimits json_limits_default; /* 32 MiB, 2 M nodes, depth 64, 4 MiB, 1,000 */

/* One JSON text (RFC 8259, strict UTF-8; duplicate keys, NUL, lone surrogates, trailing data are
 * errors). Error text holds line:col. Caller owns the arena; *out lives in it. */
MG_NODISCARD int json_parse(struct str text, const struct jlimits *lim, struct arena *a,
                            struct jnode **out, struct err *e);

/* All documents of a YAML stream (1.1 core as kubectl reads it: sigs.k8s.io/yaml) or of a JSON
 * stream. Calls cb for each document, which it may keep; a negative answer ends the reading and is
 * returned, e untouched. A document with a syntax error ends the stream: cb was called for those
 * before it, and the error is returned. Empty documents are skipped. Limits are for the whole
 * stream. name is for error text ("pods.yaml:3:1: ...").
 * Aliases become copies, << is applied: a map's own members count, but one that stands before a <<
 * that sets it too is an error, as kubectl lets << win there. Keys that are no text become text as
 * kubectl makes them (0x10: "16", yes: "true"). Errors, where kubectl takes the last or makes
 * something up: duplicate keys, two <<, tags beyond the core's, .inf and .nan. */
MG_NODISCARD int yaml_each(struct str text, const char *name, const struct jlimits *lim,
                           struct arena *a, int (*cb)(void *arg, struct jnode *doc), void *arg,
                           struct err *e);

/* Navigation. NULL in, NULL out. */
struct jnode *jnode_get(const struct jnode *map, struct str key);
struct jnode *jnode_getc(const struct jnode *map, const char *key);
/* Dotted path: jnode_path(doc, "metadata.name"). */
struct jnode *jnode_path(const struct jnode *doc, const char *path);
/* Text of a J_STR, else STR_NULL. */
struct str jnode_str(const struct jnode *n);

/* Building and changing, in the arena. jnode_set replaces or appends a member. */
struct jnode *jnode_new(struct arena *a, enum jtype type);
struct jnode *jnode_new_str(struct arena *a, struct str s);
struct jnode *jnode_new_int(struct arena *a, int64_t i);
struct jnode *jnode_new_bool(struct arena *a, bool b);
void jnode_set(struct arena *a, struct jnode *map, struct str key, struct jnode *value);
void jnode_append(struct jnode *list, struct jnode *value);
bool jnode_del(struct jnode *map, struct str key);
struct jnode *jnode_copy(struct arena *a, const struct jnode *n);
/* Same value, whatever the order of map members. Numbers compare by value, exactly (2^53 + 1 is not
 * 2^53, 1.0 is 1). */
bool jnode_eq(const struct jnode *a, const struct jnode *b);
/* RFC 7396: patches target (changed in place or replaced); result in the arena. */
struct jnode *jnode_merge_patch(struct arena *a, struct jnode *target, const struct jnode *patch);

/* Output. json_write: compact when indent == 0. yaml_write: block style as kubectl prints it,
 * strings quoted only when they would read back as something else, here or in another reader. What
 * a parser made reads back equal; invalid UTF-8 in a tree made by hand becomes U+FFFD. */
void json_write(struct buf *b, const struct jnode *n, unsigned indent);
void yaml_write(struct buf *b, const struct jnode *n);
/* A JSON string with quotes and escapes (U+2028/9, control bytes; invalid UTF-8 becomes U+FFFD). */
void json_quote(struct buf *b, struct str s);
