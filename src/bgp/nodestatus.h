/* CalicoNodeStatus: whoever makes one that names this node finds in its `status` what the speaker
 * knows, again each spec.updatePeriodSeconds. Written by compare-and-swap on a connection of its
 * own, beside the speaker's work. */
#pragma once

#include "base/loop.h"
#include "bgp/proc.h"

struct node_statuses;

/* url, node_name: live as long as it. */
struct node_statuses *node_statuses_new(struct loop *l, struct bgp_proc *p, const char *url,
                                        const char *node_name);
/* Accepts NULL. */
void node_statuses_free(struct node_statuses *s);
/* An item of the kind as the store has it now; doc NULL: it is gone. */
void node_statuses_see(struct node_statuses *s, struct str key, const struct jnode *doc);
