/* Selectors compiled against the table of labels: a few numbers each, no text to compare. They hold
 * references to the pairs that they name. Not for other modules. */
#pragma once

#include "policy/labels_int.h"

struct lexpr;

struct lexpr *lexpr_new(struct ltab *t, const struct selector *s);
void lexpr_free(struct ltab *t, struct lexpr *e);
/* Pairs: keys unique, any order. Never blocks or allocates. */
bool lexpr_match(const struct ltab *t, const struct lexpr *e, const uint32_t *pairs, size_t n);
