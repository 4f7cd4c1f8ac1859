/* Neighbour entries: which MAC address an IP address has on a link. */
#pragma once

#include "base/ip.h"
#include "netlink/nl.h"

struct neigh {
    int index; /* of the link */
    struct ip46 ip;
    uint8_t mac[6];
    bool has_mac, is_permanent;
};

/* Appends a permanent entry, whatever stood there before. */
size_t neigh_set(struct nl *nl, int index, const struct ip46 *ip, const uint8_t mac[6]);
size_t neigh_del(struct nl *nl, int index, const struct ip46 *ip);
/* Not for proxy entries and those of bridges. */
bool neigh_parse(const struct nlmsghdr *nlh, struct neigh *out);
/* Of one link, or of all (index 0). */
MG_NODISCARD int neigh_dump(struct nl *nl, int index, int (*cb)(void *arg, const struct neigh *n),
                            void *arg, struct err *e);
