/* Addresses of virtual machines that are in use on other nodes, while pods here may have them, too:
 * the target of a live migration before, its source afterwards. By the blocks: the active owner of
 * such an address says which node it is on. links.h is told, so that it is routed to a pod here
 * only when the machine is. */
#pragma once

#include "dataplane/links.h"
#include "ipam/block.h"

struct aways;

/* own: this node's name. */
struct aways *aways_new(struct links *l, struct str own);
void aways_free(struct aways *w); /* accepts NULL */
/* A block as it is now; NULL: gone. Nothing is told before aways_flush. */
void aways_block(struct aways *w, const struct prefix *cidr, const struct block *b);
/* To be called when routes to other nodes are as the blocks say. */
void aways_flush(struct aways *w);
