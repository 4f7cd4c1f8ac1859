/* What a backend holds: keys and values, kept in key order, and what of it changed. A resource sees
 * the part below its keys through a view, with its prefix cut off, and the view notes what a
 * template read: nothing but that can change what it printed. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/hash.h"
#include "base/vec.h"

#define KV_KEY_MAX 4096
#define KV_VALUE_MAX (8U << 20)
#define KV_ITEMS_MAX 1000000U

struct kv_item {
    struct str key, value; /* one block of memory, at key.p */
};

struct kv {
    struct kv_item *p;
    size_t n, cap;
    bool is_sorted; /* false while a snapshot is being filled */
    size_t bytes;   /* of keys and values */
};

/* Keys that differ, in order, each once; the texts live in the arena. */
struct kv_changes {
    struct arena a;
    VEC(struct str) keys;
};

void kv_fini(struct kv *k);
/* Appends to a snapshot. The key is made canonical: one leading "/", no "//", no "/" at the end.
 * False: a limit was reached, the item was not taken. */
MG_NODISCARD bool kv_add(struct kv *k, struct str key, struct str value);
/* Brings a filled snapshot into order; of equal keys the last counts. */
void kv_sort(struct kv *k);
/* Sets one key (STR_NULL: deletes it); a difference is noted in c (may be NULL). False as kv_add.
 */
MG_NODISCARD bool kv_set(struct kv *k, struct str key, struct str value, struct kv_changes *c);
const struct kv_item *kv_get(const struct kv *k, struct str key);
/* Index of the first item whose key is not below key. */
size_t kv_lower(const struct kv *k, struct str key);
/* Makes *k what *fresh is and notes what differs in c; fresh is emptied. Both are sorted. */
void kv_replace(struct kv *k, struct kv *fresh, struct kv_changes *c);

void kv_changes_fini(struct kv_changes *c);
void kv_changes_reset(struct kv_changes *c);
void kv_changes_add(struct kv_changes *c, struct str key);
void kv_changes_sort(struct kv_changes *c);

/* Go's path.Clean with "/" in front, into the arena. */
struct str kv_clean(struct arena *a, struct str path);

/* ---- views ---- */

/* What was read: a key, or all keys that begin so. */
struct kv_read {
    struct str text; /* full: with the view's prefix */
    bool is_prefix;
};

#define MAP_NAME kv_readset
#define MAP_KEY struct str
#define MAP_VAL bool /* is_prefix */
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

/* Distinct reads that are told apart; a template with more depends on everything in its view. */
#define KV_READS_MAX 100000U

struct kv_view {
    const struct kv *kv;
    struct str prefix; /* cut off; "/" or without a "/" at the end */
    const struct str *keys;
    size_t n_keys; /* full key prefixes, sorted, none a prefix of another: kv_view_keys */
    struct arena *a;
    struct kv_readset seen;    /* while rendering */
    struct buf full;           /* scratch */
    VEC(struct kv_read) reads; /* settled: sorted, none covered by another */
};

/* Joins prefix and each of keys, sorts them and drops those that another one covers. */
void kv_view_keys(struct arena *a, struct str prefix, const struct str *keys, size_t n_keys,
                  const struct str **out, size_t *n_out);
void kv_view_fini(struct kv_view *v);
/* Begins a render: forgets what was read before. */
void kv_view_start(struct kv_view *v);
/* The item under a key as the view shows it, or NULL; the read is noted. */
const struct kv_item *kv_view_get(struct kv_view *v, struct str key);
/* Notes a full key as read. */
void kv_view_note(struct kv_view *v, struct str full);
/* Calls cb with the key as shown and the item for everything that begins with `prefix` (as shown);
 * noted as one read. Order is that of full keys. Stops and returns what cb returns if not 0. */
int kv_view_each(struct kv_view *v, struct str prefix,
                 int (*cb)(void *arg, struct str shown, const struct kv_item *it), void *arg);
/* Whether any of the changed keys was read, or (all) is in the view at all. */
bool kv_view_concerned(const struct kv_view *v, const struct kv_changes *c, bool all);
/* Sorts and unites the reads: after a render. */
void kv_view_settle(struct kv_view *v);
