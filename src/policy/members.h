/* Members of sets as numbers: each address, prefix, or address with port, once, while somebody has
 * it. Not for other modules. */
#pragma once

#include "policy/calc.h"

uint64_t member_hash(const struct calc_member *m);
bool member_eq(const struct calc_member *a, const struct calc_member *b);

struct mtab;
struct mtab *mtab_new(void);
void mtab_free(struct mtab *t);
/* The id of a member, with one more reference; ids start at 1. */
uint32_t mtab_ref(struct mtab *t, const struct calc_member *m);
/* One more reference to a member that has some. */
void mtab_again(struct mtab *t, uint32_t id);
void mtab_unref(struct mtab *t, uint32_t id);
struct calc_member mtab_get(const struct mtab *t, uint32_t id);
