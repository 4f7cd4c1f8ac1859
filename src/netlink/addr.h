/* Addresses of interfaces. */
#pragma once

#include "base/ip.h"
#include "netlink/nl.h"

struct addr {
    int index; /* of the link */
    struct prefix net;
    bool is_tentative; /* duplicate address detection still runs, or failed */
};

/* Appends an address; IPv6 without duplicate address detection. -EEXIST if it is there. */
size_t addr_add(struct nl *nl, int index, const struct prefix *net);
size_t addr_del(struct nl *nl, int index, const struct prefix *net);
bool addr_parse(const struct nlmsghdr *nlh, struct addr *out);
/* All addresses of one link (index 0: of all). */
MG_NODISCARD int addr_dump(struct nl *nl, int index, int (*cb)(void *arg, const struct addr *a),
                           void *arg, struct err *e);
