/* The speaker's resources in a datastore, followed by two syncers: what matters to BGP is kept, and
 * a configuration is built anew a moment after each burst of changes. */
#pragma once

#include "base/loop.h"
#include "bgp/conf.h"

struct bgp_follow;

struct bgp_follow_ops {
    /* Everything is known, or something has changed: build. */
    void (*on_change)(void *arg);
    /* A CalicoNodeStatus, of any node; doc NULL: it is gone. May be NULL. */
    void (*on_status)(void *arg, struct str key, const struct jnode *doc);
};

/* url as store_open takes it. Tries again until the store answers; nothing fails. */
struct bgp_follow *bgp_follow_new(struct loop *l, const char *url, const char *node_name,
                                  const struct bgp_follow_ops *ops, void *arg);
void bgp_follow_free(struct bgp_follow *f); /* accepts NULL */
/* Objects and blocks as they are now; views live until the loop runs on. */
void bgp_follow_input(struct bgp_follow *f, struct conf_input *in);
