/* A text with its length in front, in one block with what it is the key of. Large maps have
 * pointers to such as their keys: 8 bytes a slot, nothing beside the owner's block. */
#pragma once

#include "base/arena.h"
#include "base/hash.h"

struct keytext {
    uint32_t n;
    char p[];
};

#define KEYTEXT_HASH(k) hash_str(str_n((k)->p, (k)->n))
#define KEYTEXT_EQ(a, b) ((a)->n == (b)->n && memcmp((a)->p, (b)->p, (a)->n) == 0)

static inline struct str keytext_view(const struct keytext *k) {
    return str_n(k->p, k->n);
}

/* k has room for the text. */
static inline void keytext_set(struct keytext *k, struct str text) {
    k->n = (uint32_t)text.n;
    memcpy(k->p, text.p, text.n);
}

/* For looking up. In the arena. */
static inline const struct keytext *keytext_of(struct arena *a, struct str text) {
    struct keytext *k = arena_alloc(a, sizeof(*k) + text.n);
    keytext_set(k, text);
    return k;
}
