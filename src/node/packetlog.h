/* The lines of rules with action Log: packets that the kernel sends up become structured lines with
 * the names of pods and of the rule. Bounded in rate; what was lost is counted and said. */
#pragma once

#include "base/loop.h"
#include "policy/calc.h"

struct packetlog;

/* prefix (Felix' logPrefix) is copied. NULL with e: without it policies hold just as well. */
struct packetlog *packetlog_new(struct loop *l, const struct calc *c, struct str prefix,
                                struct err *e);
void packetlog_free(struct packetlog *p); /* accepts NULL */
/* Appends "rule=… src=… dst=…" for a packet; what can't be read is left out. For tests and fuzzing
 * too: payload is as it came. name may be NULL. */
void packetlog_line(struct buf *out, struct str rule, struct str payload,
                    void (*name)(void *arg, const struct ip46 *ip, struct buf *out), void *arg);
