/* The table of next hops: each address once, with what is known of the way to it. Attributes name a
 * next hop by its id, so one change of the network is noted once, however many routes use it. */
#pragma once

#include "base/ip.h"

struct nexthops;

struct nexthop {
    struct ip46 ip, link_local; /* link_local: IP_NONE if none */
    uint32_t n_refs;
    uint32_t cost; /* of the way there, for the decision; the lower the better */
    bool is_reachable;
    bool is_known;      /* reachability was asked for */
    char interface[16]; /* of the way there; "": unknown */
};

struct nexthops *nexthops_new(void);
void nexthops_free(struct nexthops *t); /* accepts NULL */
/* fn is called when an entry that is_known is no longer used. */
void nexthops_on_unused(struct nexthops *t, void (*fn)(void *user, const struct nexthop *h),
                        void *user);
/* What is known of the way; false: nothing new, or nobody asked for this next hop. */
bool nexthop_set(struct nexthops *t, const struct ip46 *ip, const struct ip46 *link_local,
                 bool is_reachable, uint32_t cost, struct str interface);
/* Id of the pair (never 0; IP_NONE: 0), with one reference more. */
uint32_t nexthop_intern(struct nexthops *t, const struct ip46 *ip, const struct ip46 *link_local);
void nexthop_unref(struct nexthops *t, uint32_t id);
/* NULL for id 0. The pointer lives until the next nexthop_intern. */
struct nexthop *nexthop_get(const struct nexthops *t, uint32_t id);
/* Ids that may be in use are below this. An entry with n_refs == 0 is free. */
uint32_t nexthops_end(const struct nexthops *t);
