/* What calico/node puts into an empty datastore at its first start. */
#pragma once

#include "store/store.h"

/* The default pools (defaultpool.h) of each family that has none; where other programs of Calico
 * may meet ours (not in the embedded store) also ClusterInformation, the tiers, and
 * FelixConfiguration default and node.NODE. What is there stays as it is. */
MG_NODISCARD int defaults_make(struct store *s, const char *node, struct err *e);
