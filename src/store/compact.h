/* Forgetting old revisions: etcd keeps all of them until somebody says which. Those of the last one
 * to two periods stay, so that a watch that was away for a while goes on where it was.
 *
 * Several may do it, kube-apiserver and Calico's controllers on the same etcd among them: the key
 * "compact_rev_key", which they use too, tells who of them it was this time, and it is done once a
 * period in all. Calls block, like those of store.h. */
#pragma once

#include "store/store.h"

/* What was found the last time; zero at first. */
struct store_compaction {
    uint64_t mark;     /* revision of the key, if has_mark */
    uint64_t revision; /* the store's newest then */
    bool has_mark;
};

/* Does the store keep a history that somebody has to cut? */
bool store_has_history(const struct store *s);
/* Once a period: forgets what was old at the call before, unless another program did it since.
 * *forgotten_out: up to where; 0: nothing this time. */
MG_NODISCARD int store_compact(struct store *s, struct store_compaction *last,
                               uint64_t *forgotten_out, struct err *e);
