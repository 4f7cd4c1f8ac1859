/* The MTU that pods get where the CNI configuration names none: the smallest of the host's own
 * interfaces whose names match Felix' mtuIfacePattern, as Calico chooses it. */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "base/str.h"

struct mtu_watch;

/* Calls on_mtu with the MTU (0: no interface matches) from inside, and whenever it changes.
 * pattern: an extended regular expression (POSIX). NULL with e. */
struct mtu_watch *mtu_watch_new(struct loop *l, const char *pattern,
                                void (*on_mtu)(void *arg, uint32_t mtu), void *arg, struct err *e);
void mtu_watch_free(struct mtu_watch *w); /* accepts NULL */
