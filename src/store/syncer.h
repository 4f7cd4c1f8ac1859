/* "Snapshot, then changes": list + watch + reconnect + compaction become one ordered stream.
 * Guarantees to the consumer: each item it knows is the newest this syncer has seen; an update that
 * changes nothing is not passed on; in_sync is said exactly once, after the first whole snapshot;
 * after a lost position a new snapshot is compared with what was passed on, so only differences
 * (deletes included) arrive; revisions of an item never go backwards. */
#pragma once

#include "store/store.h"

struct syncer;

struct syncer_ops {
    /* value STR_NULL = deleted. The strings live until the call returns. */
    void (*on_item)(void *arg, const struct store_item *it);
    void (*on_in_sync)(void *arg);
    /* End of a burst: everything up to `revision` has been passed on. Consumers flush here. */
    void (*on_batch_end)(void *arg, uint64_t revision);
    /* Connection to the store lost (why says how) or back. Embedded: never. */
    void (*on_connected)(void *arg, bool is_connected, const char *why);
};

/* prefix: what is followed; an empty key: the whole space. Starts at once; the first snapshot is
 * passed on from inside this call when the driver answers at once (sqlite). */
MG_NODISCARD int syncer_start(struct store *s, struct loop *l, struct store_key prefix,
                              const struct syncer_ops *ops, void *arg, struct syncer **out,
                              struct err *e);
void syncer_free(struct syncer *y); /* accepts NULL */
/* Everything up to this revision has been passed on of the keys that are listed together with key;
 * STR_NULL: of all. */
uint64_t syncer_position(struct syncer *y, struct str key);
/* Somebody waits for the newest revision: on_batch_end is to come soon even if nothing changes. */
void syncer_ask(struct syncer *y);
