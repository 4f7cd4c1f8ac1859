/* The calculation's output as others write it: a chain for each policy and direction and one for
 * each endpoint and direction, as Calico makes them; as texts for iptables-restore with ipset, and
 * for nft. A sink: the texts grow as the calculation tells. IPv4 only. For full calculations. */
#pragma once

#include "policy/calc.h"

struct chains;

/* Files to write; they are whole after chains_free. */
struct chains *chains_new(const char *ipset, const char *iptables, const char *nft);
void chains_free(struct chains *c);
extern const struct calc_ops chains_calc_ops;

struct chains_stats {
    size_t sets, members, chains, rules; /* rules of one of the texts */
};
struct chains_stats chains_stats(const struct chains *c);
