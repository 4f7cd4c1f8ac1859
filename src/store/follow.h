/* What a driver that follows the store by itself tells the syncer: drivers over a network list and
 * watch without ever blocking the loop, and try again by themselves. A scope is a prefix of keys
 * that has a snapshot and a position of its own: "" where one revision covers everything (etcd),
 * "KIND/" where each kind is a list of its own (the Kubernetes API). */
#pragma once

#include "store/store.h"

struct store_follow {
    const struct store_driver *drv;
};

struct store_follow_ops {
    /* Items up to on_snapshot_end are what scope holds now. May come again for the same scope, also
     * before the end of an earlier one, which then counts for nothing. */
    void (*on_snapshot)(void *arg, struct str scope);
    /* Of a snapshot or a change after it; value STR_NULL: deleted. The strings live until the call
     * returns. Revisions of an item may repeat: the syncer drops what is no news. */
    void (*on_item)(void *arg, const struct store_item *it);
    /* May be NULL. Another datastore answers, or one that was restored from a backup: revisions
     * begin anew, lower ones count as news, a snapshot follows. What is known stays known. */
    void (*on_reset)(void *arg, struct str scope);
    /* What was known of scope and did not come is gone. */
    void (*on_snapshot_end)(void *arg, struct str scope, uint64_t revision);
    /* End of a burst: every change in scope up to revision has been told. */
    void (*on_progress)(void *arg, struct str scope, uint64_t revision);
    /* Every scope has had a whole snapshot: once. */
    void (*on_in_sync)(void *arg);
    /* Lost: the first failure after it worked, with the reason; back: everything is followed. */
    void (*on_connected)(void *arg, bool is_connected, const char *why);
};
