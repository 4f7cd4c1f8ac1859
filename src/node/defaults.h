/* What calico/node puts into an empty datastore at its first start. */
#pragma once

#include "store/store.h"

/* The default pool, from CALICO_IPV4POOL_…, if there is none of the family. */
MG_NODISCARD int default_pool_make(struct store *s, struct err *e);
