/* What the readers and writers of trees share (json.c, jtree.c, yaml*.c). Nobody else includes it:
 * jtree.h is the interface. */
#pragma once

#include "base/hash.h"
#include "base/jtree.h"
#include "base/vec.h"

enum {
    FEW_KEYS = 16,      /* up to here a scan of a map is cheaper than a table */
    NUM_TEXT_MAX = 400, /* characters of one number: every finite double fits, %f included */
    FOUND_MAX = 48,
};

#define MAP_NAME nodetab
#define MAP_KEY struct str
#define MAP_VAL struct jnode *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

/* Lookup in one map that doesn't change meanwhile: by table when there are many members. */
struct lookup {
    const struct jnode *map;
    struct nodetab tab;
};
void lookup_init(struct lookup *l, const struct jnode *map);
struct jnode *lookup_get(const struct lookup *l, struct str key);
void lookup_fini(struct lookup *l);

#define MAP_NAME indextab
#define MAP_KEY struct str
#define MAP_VAL uint32_t
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

/* Members of a map that is being read, for duplicate keys. Starts as {0}. */
struct members {
    struct indextab tab;
    VEC(uint32_t) lines; /* of the keys, in order */
};
/* Appends item to map under key. False if the key is there already: *first is then its index and
 * nothing was appended. */
bool members_add(struct members *m, struct jnode *map, struct str key, uint32_t key_line,
                 struct jnode *item, size_t *first);
void members_fini(struct members *m);

/* Length of the valid UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates), or 0. */
size_t utf8_len(const unsigned char *p, size_t n);

/* What stands at text[pos], in words for an error: a character, the end of a line, the end of the
 * text. Writes to out and returns it. */
const char *text_found(struct str text, size_t pos, char out[FOUND_MAX]);

/* Decimal text in JSON's grammar to a double. -ERANGE if it is too long or not finite. */
MG_NODISCARD int num_to_double(struct str s, double *out);
/* Same value, exactly, whatever the notation (1e2, 100.0). Both are numbers. */
bool num_eq(const struct jnode *a, const struct jnode *b);
/* Text of a number node in JSON's grammar; null when a node made by hand is not finite. */
void num_write(struct buf *b, const struct jnode *n);

/* Values of a JSON stream: several one after another, or with lines of "---" between them, become
 * members of the list `docs`. name is for error text. On failure *line and *col say where. */
MG_NODISCARD int json_stream(struct str text, const char *name, const struct jlimits *lim,
                             struct arena *a, struct jnode *docs, uint32_t *line, size_t *col,
                             struct err *e);

/* What a plain (unquoted, untagged) YAML scalar means to kubectl. */
enum plain_kind {
    PLAIN_STR,
    PLAIN_NULL,
    PLAIN_BOOL,
    PLAIN_INT,
    PLAIN_FLOAT,
    PLAIN_NOT_JSON, /* .inf, .nan */
    PLAIN_TOO_LONG, /* a number of more than NUM_TEXT_MAX characters */
};
struct plain {
    bool b;
    int64_t i;
    double f;
    char text[NUM_TEXT_MAX + 4]; /* PLAIN_INT, PLAIN_FLOAT: in JSON's grammar */
    size_t n;
};
/* Sets the members of out that belong to the kind. */
enum plain_kind yaml_plain(struct str s, struct plain *out);
