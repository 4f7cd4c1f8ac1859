/* Connections that the kernel tracks: removal of those of an address that has gone. */
#pragma once

#include "base/ip.h"
#include "netlink/nl.h"

/* Deletes every entry with one of the addresses at either end, before or after translation, in the
 * calling thread's network namespace. Blocking: for a worker. *n_deleted (may be NULL) counts. A
 * kernel without connection tracking has none: 0. */
MG_NODISCARD int conntrack_flush(const struct ip46 *ips, size_t n, size_t *n_deleted,
                                 struct err *e);
