/* Connections that the kernel tracks: removal of those of an address that has gone. */
#pragma once

#include "base/ip.h"
#include "netlink/nl.h"

struct conntrack;

/* Sockets are opened at the first use, in the network namespace of the thread that it happens on,
 * and kept: the kernel holds the lock of nf_tables' transactions while it closes one. For one
 * thread at a time. */
struct conntrack *conntrack_new(void);
void conntrack_free(struct conntrack *c); /* accepts NULL */

/* Deletes every entry with one of the addresses at either end, before or after translation.
 * Blocking, about 10 ms for the kernel's walk of an empty table: for a worker. *n_deleted (may be
 * NULL) counts. A kernel without connection tracking has none: 0. */
MG_NODISCARD int conntrack_flush(struct conntrack *c, const struct ip46 *ips, size_t n,
                                 size_t *n_deleted, struct err *e);
