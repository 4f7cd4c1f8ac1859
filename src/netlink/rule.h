/* Routing rules by source address. */
#pragma once

#include "base/ip.h"
#include "netlink/nl.h"

struct route_rule {
    struct ip46 src;
    uint32_t table, priority;
    uint8_t protocol; /* RTPROT_… */
};

/* Appends a rule for all that src sends. -EEXIST. */
size_t rule_add(struct nl *nl, const struct route_rule *r);
size_t rule_del(struct nl *nl, const struct route_rule *r);
/* Rules of both families that are for one source address; others aren't told. */
MG_NODISCARD int rule_dump(struct nl *nl, int (*cb)(void *arg, const struct route_rule *r),
                           void *arg, struct err *e);
