/* Routes of both families. */
#pragma once

#include "base/ip.h"
#include "netlink/nl.h"

#include <linux/rtnetlink.h>

/* One of several next hops. via of the other family: RTA_VIA (IPv4 over IPv6 next hops). */
struct route_way {
    struct ip46 via; /* IP_NONE: on link */
    int oif;
    uint16_t weight; /* 1 to 256; 0 counts as 1 */
    bool is_onlink;
};
enum { ROUTE_WAYS_MAX = 16 };

struct route {
    struct prefix dst;    /* length 0: default */
    struct ip46 via, src; /* IP_NONE: none; via may be of the other family */
    int oif;              /* 0: none (blackhole and the like, or several next hops) */
    uint32_t table;       /* 0 counts as RT_TABLE_MAIN */
    uint32_t metric;      /* 0: the kernel's default (IPv6: 1024) */
    uint32_t mtu;         /* 0: none */
    uint8_t protocol;     /* RTPROT_… */
    uint8_t scope;        /* RT_SCOPE_…; IPv6 has none */
    uint8_t type;         /* RTN_…; 0 counts as RTN_UNICAST */
    bool is_onlink;
    bool is_multipath; /* several next hops: oif and via are not filled (read only) */
    uint8_t n_ways;    /* of ways; written instead of oif and via if not 0. More than
                          ROUTE_WAYS_MAX are not read: is_multipath and n_ways 0 */
    struct route_way ways[ROUTE_WAYS_MAX];
};

/* Appends a route. flags: NLM_F_CREATE | NLM_F_EXCL to add (-EEXIST if dst and metric are taken),
 * NLM_F_CREATE | NLM_F_REPLACE to put it there in any case. */
size_t route_add(struct nl *nl, const struct route *r, uint16_t flags);
/* Appends a removal; only what is filled in must match. -ESRCH if there is none. */
size_t route_del(struct nl *nl, const struct route *r);
bool route_parse(const struct nlmsghdr *nlh, struct route *out);

struct route_filter {
    uint8_t family; /* IP_NONE: both */
    uint32_t table; /* 0: main */
    bool is_any_table;
    int oif; /* 0: any */
};
MG_NODISCARD int route_dump(struct nl *nl, const struct route_filter *f,
                            int (*cb)(void *arg, const struct route *r), void *arg, struct err *e);
