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

/* A tracked connection: its first packet as the receiver sees it (destination after DNAT). */
struct conn {
    struct ip46 src, dst;
    uint16_t sport, dport;
    uint8_t protocol, icmp_type, icmp_code;
    uint8_t orig_bytes; /* what the kernel knows it by */
    uint8_t orig[88];
    uint32_t id;
    uint16_t zone;
    bool has_id, has_zone;
};
/* Connections with one of the addresses at either end; caller frees *out. Blocking. */
MG_NODISCARD int conntrack_list(struct conntrack *c, const struct ip46 *ips, size_t n,
                                struct conn **out, size_t *n_out, struct err *e);
/* Deletes them, if they are still the same ones. */
MG_NODISCARD int conntrack_delete(struct conntrack *c, const struct conn *v, size_t n,
                                  size_t *n_deleted, struct err *e);

/* A port of this host that leads to a pod by now. */
struct conntrack_port {
    uint8_t protocol;
    uint16_t port;
    struct ip46 host; /* address of the host; family 0: every one of `hosts` of to's family */
    struct ip46 to;   /* entries that lead there are right */
};
/* Deletes the entries that were made to such a port before it led there: as long as packets come,
 * they would go where they went. Blocking. *n_deleted (may be NULL) counts. */
MG_NODISCARD int conntrack_flush_ports(struct conntrack *c, const struct conntrack_port *v,
                                       size_t n, const struct ip46 *hosts, size_t n_hosts,
                                       size_t *n_deleted, struct err *e);

/* Deletes every entry with one of the addresses at either end, before or after translation.
 * Blocking, about 10 ms for the kernel's walk of an empty table: for a worker. *n_deleted (may be
 * NULL) counts. A kernel without connection tracking has none: 0. */
MG_NODISCARD int conntrack_flush(struct conntrack *c, const struct ip46 *ips, size_t n,
                                 size_t *n_deleted, struct err *e);
