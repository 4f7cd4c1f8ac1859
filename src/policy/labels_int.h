/* The table of labels, for what indexes them. Not for other modules. */
#pragma once

#include "base/hash.h"
#include "policy/labels.h"

struct lpair {
    char *text; /* key, value, in one block */
    struct str key, value;
    uint32_t key_id, pos; /* place in the key's list */
    uint32_t refs;
};

struct lkey {
    char *text;
    struct str name;
    VEC(uint32_t) pairs;
};

struct pair_key {
    struct str key, value;
};

#define MAP_NAME pair_id
#define MAP_KEY struct pair_key
#define MAP_VAL uint32_t
#define MAP_HASH(k) (hash_str((k).key) * 31 + hash_str((k).value))
#define MAP_EQ(a, b) (str_eq((a).key, (b).key) && str_eq((a).value, (b).value))
#include "base/map.tmpl.h"

#define MAP_NAME key_id
#define MAP_KEY struct str
#define MAP_VAL uint32_t
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct ltab {
    VEC(struct lpair) pairs; /* id - 1 */
    VEC(struct lkey) keys;   /* id - 1; never removed: there are few */
    VEC(uint32_t) free_pairs;
    struct pair_id by_pair;
    struct key_id by_key;
};

/* The id of a key; ids start at 1 and stay. */
uint32_t ltab_key(struct ltab *t, struct str key);
