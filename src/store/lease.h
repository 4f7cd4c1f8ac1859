/* Items that vanish when their writer no longer says that it lives: status reports and leader
 * election on stores that have leases (etcd). Calls block, like those of store.h. With other
 * drivers they fail with -ENOTSUP and a sentence. */
#pragma once

#include "store/store.h"

bool store_has_leases(const struct store *s);
/* Makes a lease of at least ttl_s seconds; *ttl_out_s (may be NULL) is what the store made of it.
 */
MG_NODISCARD int store_lease_grant(struct store *s, int64_t ttl_s, int64_t *id_out,
                                   int64_t *ttl_out_s, struct err *e);
/* Starts the lease's time anew; *ttl_out_s (may be NULL) as above. Call it about three times a TTL.
 * ERR_NOT_FOUND: it has run out, and what hung on it is gone. */
MG_NODISCARD int store_lease_keep(struct store *s, int64_t id, int64_t *ttl_out_s, struct err *e);
/* store_put of an item that goes with the lease. A later store_put of it cuts the tie. */
MG_NODISCARD int store_lease_put(struct store *s, struct store_key k, struct str value,
                                 uint64_t expect, int64_t id, uint64_t *revision_out,
                                 struct err *e);
/* Ends it now, with its items. ERR_NOT_FOUND: it had run out. */
MG_NODISCARD int store_lease_revoke(struct store *s, int64_t id, struct err *e);
