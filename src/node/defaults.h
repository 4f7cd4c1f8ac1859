/* What calico/node puts into an empty datastore at its first start. */
#pragma once

#include "store/store.h"

/* The default pool, from CALICO_IPV4POOL_…, if there is none of the family; where other programs
 * of Calico may meet ours (not in the embedded store) ClusterInformation and the tiers, too. */
MG_NODISCARD int defaults_make(struct store *s, struct err *e);
