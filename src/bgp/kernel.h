/* The kernel's routes: what others put there becomes local routes of the speaker (as BIRD's learn
 * and direct do with Calico's filters), the way to next hops is followed, and the speaker's best
 * routes are kept in the main table with protocol 80. Desired state: what is asked for is compared
 * with what is there, at the start, after changes by others, and after lost events; only ours is
 * ever touched. */
#pragma once

#include "base/loop.h"
#include "bgp/conf.h"

enum { KERNEL_PROTOCOL = 80 };

struct kernel_hop {
    struct ip46 ip, link_local; /* link_local: IP_NONE if none */
    int ifindex;                /* of a link-local next hop; 0: unknown */
    uint32_t weight;
};

struct kernel_ops {
    /* Local routes that came or changed, and that went. */
    void (*originate)(void *arg, const struct local_route *r);
    void (*withdraw)(void *arg, const struct prefix *p, enum route_source source);
    /* Answer to bgp_kernel_watch, and each change after it. */
    void (*nexthop)(void *arg, const struct ip46 *ip, const struct ip46 *link_local,
                    bool is_reachable, uint32_t cost, struct str interface);
    /* An interface came up (or appeared), or went. */
    void (*link)(void *arg, int ifindex, struct str name, bool is_up);
};

struct bgp_kernel;

/* Reads links, addresses and routes of the calling thread's network namespace. Local routes are
 * told by the first bgp_kernel_configure. is_alone: all routes of our protocol are ours; else those
 * over the agent's tunnels and blackholes are the agent's, and routes that BIRD left are taken
 * over. Caller owns *out. */
MG_NODISCARD int bgp_kernel_new(struct loop *l, const struct kernel_ops *ops, void *arg,
                                bool is_alone, struct bgp_kernel **out, struct err *e);
/* Leaves the kernel as it is. Accepts NULL. */
void bgp_kernel_free(struct bgp_kernel *k);
/* Are there routes of a predecessor? They stay until bgp_kernel_ready. */
bool bgp_kernel_has_leftovers(const struct bgp_kernel *k);
/* conf must live until the next call. */
void bgp_kernel_configure(struct bgp_kernel *k, const struct bgp_conf *conf);
/* What is wanted for a prefix; n 0: nothing. Never calls back; the kernel follows soon. */
void bgp_kernel_route(struct bgp_kernel *k, const struct prefix *p, const struct kernel_hop *hops,
                      size_t n, uint32_t local_pref);
/* Start or stop to follow a next hop. Never calls back; the answer comes soon. */
void bgp_kernel_watch(struct bgp_kernel *k, const struct ip46 *ip, const struct ip46 *link_local,
                      int ifindex, bool is_watched);
/* All that a predecessor left and nobody asked for again goes now. */
void bgp_kernel_ready(struct bgp_kernel *k);
/* Writes what is waiting, all of it. Tests and shutdown. */
void bgp_kernel_flush(struct bgp_kernel *k);

/* 0: no such interface. */
int bgp_kernel_ifindex(const struct bgp_kernel *k, struct str name);
/* Addresses of the interface; IP_NONE where there is none. */
void bgp_kernel_addrs(const struct bgp_kernel *k, int ifindex, struct ip46 *v4, struct ip46 *v6,
                      struct ip46 *link_local);
/* The interface that has this address; 0: none. */
int bgp_kernel_addr_owner(const struct bgp_kernel *k, const struct ip46 *ip);

/* Is it an address of a network that we are on? */
bool bgp_kernel_is_connected(const struct bgp_kernel *k, const struct ip46 *ip);

struct kernel_stats {
    size_t n_routes;    /* of ours in the kernel */
    size_t n_waiting;   /* not written yet */
    size_t n_conflicts; /* prefixes that somebody else's route of that metric keeps from us */
    size_t n_foreign;
    uint64_t n_writes, n_failures, n_scans;
};
void bgp_kernel_stats(const struct bgp_kernel *k, struct kernel_stats *out);
/* What the kernel has of ours for a prefix, as `ip route` would say it; false: nothing. Appended.
 */
bool bgp_kernel_print(const struct bgp_kernel *k, const struct prefix *p, struct buf *out);
