/* Labels and who has them. Items with the same labels are one entry of the index: what matches is
 * worked out once for all of them, and kept. An item with labels that another has costs no
 * matching; new labels cost the selectors that need one of them; a new selector costs the shortest
 * list of those that can match. */
#pragma once

#include "base/vec.h"
#include "policy/selector.h"

/* ---- interned pairs ---- */

struct ltab;
struct ltab *ltab_new(void);
void ltab_free(struct ltab *t);
/* The id of a pair, with one more reference; ids start at 1. */
uint32_t ltab_ref(struct ltab *t, struct str key, struct str value);
/* One more reference to a pair that has some. */
void ltab_again(struct ltab *t, uint32_t id);
void ltab_unref(struct ltab *t, uint32_t id);
/* The number of its key: equal for equal keys. */
uint32_t ltab_key_of(const struct ltab *t, uint32_t pair);
/* Views that live as long as the pair is referenced. */
struct label ltab_label(const struct ltab *t, uint32_t pair);

/* ---- an index of items by their labels ---- */

struct lidx;
struct lsel; /* a registered selector */

struct lidx *lidx_new(struct ltab *t);
void lidx_free(struct lidx *x);

/* Ids start at 1. */
uint32_t lidx_item_new(struct lidx *x, void *user);
/* All items. */
void lidx_each(const struct lidx *x, void (*cb)(void *arg, void *item_user), void *arg);
void lidx_item_free(struct lidx *x, uint32_t item);
/* Keys are unique; the same labels come in the same order. References are taken. */
void lidx_item_set(struct lidx *x, uint32_t item, const uint32_t *pairs, size_t n);
/* The item's pairs as they were set; the view lives until the next change. */
const uint32_t *lidx_item_pairs(const struct lidx *x, uint32_t item, size_t *n);
/* Each registered selector that matches the item. cb may not change the index. */
void lidx_item_each_match(struct lidx *x, uint32_t item, void (*cb)(void *arg, void *sel_user),
                          void *arg);

/* The selector is compiled: it may go after the call. */
struct lsel *lidx_sel_new(struct lidx *x, const struct selector *s, void *user);
void lidx_sel_free(struct lidx *x, struct lsel *l);
/* Each item that matches. cb may not change the index. */
void lidx_sel_each_match(struct lidx *x, struct lsel *l, void (*cb)(void *arg, void *item_user),
                         void *arg);
