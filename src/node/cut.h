/* establishedPolicy "cut": after a change, connections of this node's pods that policy now denies
 * are taken out of connection tracking, so that their next packet is judged anew. */
#pragma once

#include "base/loop.h"
#include "dataplane/dataplane.h"
#include "policy/verdict.h"

struct cut;

/* Takes over what the calculation has put out so far. */
struct cut *cut_new(struct loop *l, const struct calc *c);
void cut_free(struct cut *x); /* accepts NULL; at the next turn of the loop if it is at work */
/* Its copy of the calculation's output, which must be told of all that follows. */
struct mirror *cut_mirror(struct cut *x);
/* The host's own addresses: what it sends to its pods needs no policy. */
void cut_set_own(struct cut *x, const struct dataplane_iface *v, size_t n);
/* Something changed, and the kernel has it. */
void cut_ask(struct cut *x);
