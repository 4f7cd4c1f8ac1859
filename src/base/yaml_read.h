/* The YAML reader's inside, shared by yaml.c (text, errors, nodes, documents) and yaml_scalar.c
 * (tags, scalars, keys). Nobody else includes it. */
#pragma once

#include "base/jtext.h"

#include <yaml.h>

struct anchor {
    struct jnode *node;
    size_t n_nodes; /* in it, itself included; 0 while it is still being read */
};

#define MAP_NAME anchortab
#define MAP_KEY struct str
#define MAP_VAL struct anchor
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct yaml_reader {
    yaml_parser_t p;
    struct str t;
    const char *name;
    const struct jlimits *lim;
    struct arena *a;
    struct err *e;
    size_t n_given; /* bytes that libyaml has */
    bool is_ended;  /* the last line's end too */
    size_t n_nodes, n_aliases, depth;
    struct anchortab anchors; /* of the document */
    uint32_t fail_line;       /* of the error, for whoever compares readings */
    size_t fail_col;
};

/* Source of an error, as people count. */
struct place {
    uint32_t line;
    size_t col;
};

static inline struct place place_of(yaml_mark_t m) {
    return (struct place){(uint32_t)m.line + 1, m.column + 1};
}

enum tag {
    TAG_NONE,
    TAG_STR,
    TAG_INT,
    TAG_FLOAT,
    TAG_BOOL,
    TAG_NULL,
    TAG_MAP,
    TAG_SEQ,
    TAG_MERGE,
    TAG_OTHER,
};

/* Error with name, place and the words "found this, need that"; returns code. */
MG_PRINTF(4, 5)
int yaml_fail(struct yaml_reader *r, struct place at, int code, const char *fmt, ...);
/* Text of a scalar or key for an error: short, without what could break the line. */
const char *yaml_shown(struct str s, char out[FOUND_MAX]);

/* The core's tags; everything else, "!" included, is TAG_OTHER. NULL: TAG_NONE. */
enum tag yaml_tag_of(const yaml_char_t *tag);
/* The error of a tag that can't stand here. */
int yaml_fail_tag(struct yaml_reader *r, struct place at, const yaml_char_t *tag);
/* Type and value of n from the event of a scalar. */
MG_NODISCARD int yaml_set_scalar(struct yaml_reader *r, const yaml_event_t *ev, struct jnode *n);
/* Text of a node that stands as a key, as kubectl makes it of what is no text. */
MG_NODISCARD int yaml_key_text(struct yaml_reader *r, struct place at, const struct jnode *n,
                               struct str *out);
