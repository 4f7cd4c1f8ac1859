/* Traffic control, as much as rates of pods need: token buckets, and what comes in by an interface
 * led through another one. Source: linux/pkt_sched.h, pkt_cls.h, sch_tbf.c. */
#pragma once

#include "netlink/nl.h"

/* Appends a token bucket as root of an interface, in place of what is there. Bytes, bytes a
 * second. */
size_t tc_set_bucket(struct nl *nl, int index, uint64_t rate, uint32_t burst, uint32_t limit);
/* Appends the two messages that lead all that comes in by `index` through `to` (kind ifb), which
 * hands it on as if it had come in just then. -EEXIST of the first: there is an ingress queue. */
size_t tc_redirect_in(struct nl *nl, int index, int to);
/* Appends the removal of either. -ENOENT, -EINVAL: there is none. */
size_t tc_del_bucket(struct nl *nl, int index);
size_t tc_del_redirect(struct nl *nl, int index);
/* Appends the birth of an ifb. */
size_t link_add_ifb(struct nl *nl, const char *name);

struct tc_seen {
    uint64_t rate; /* of a token bucket as root; 0: none */
    bool has_ingress;
};
MG_NODISCARD int tc_look(struct nl *nl, int index, struct tc_seen *out, struct err *e);
