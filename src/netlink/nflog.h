/* Packets that nftables' log statement sends to a group (nfnetlink_log). What they hold was written
 * by strangers: everything is bounded by what came. */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* Opens a nonblocking descriptor that becomes readable when packets of the group have come; only
 * their first bytes are kept. -EBUSY: another program listens to the group. */
MG_NODISCARD int nflog_open(uint16_t group, int *fd, struct err *e);

struct nflog_packet {
    struct str prefix;  /* as the rule has it */
    struct str payload; /* from the network header on */
    int in, out;        /* indexes of interfaces; 0: none */
    uint32_t seq;       /* counts all packets of the group: a gap is a loss */
};
/* Hands over at most max packets that wait. Returns how many; *is_lost: the socket had no room for
 * some. */
size_t nflog_read(int fd, size_t max, void (*cb)(void *arg, const struct nflog_packet *p),
                  void *arg, bool *is_lost);
