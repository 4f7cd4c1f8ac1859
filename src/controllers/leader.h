/* Which of several controllers works: one at a time, elected by a record in the store that the
 * holder renews, as Kubernetes' own components do it (client-go's leader election). Time is
 * measured by each one's own clock: a record counts as left when it has not changed for its whole
 * duration. In a store with leases (etcd) the record hangs on the holder's lease and vanishes with
 * it. Where only one can run (the embedded store) it is elected at once. */
#pragma once

#include "base/jtree.h"
#include "base/loop.h"
#include "store/store.h"

enum {
    LEADER_LEASE_S = 15,   /* a record that isn't renewed is left after */
    LEADER_RENEW_S = 10,   /* who can't renew for so long stops working */
    LEADER_RETRY_MS = 2000 /* between two tries */
};

/* ---- the rules, pure ---- */

struct leader_seen {
    bool has_record;
    uint64_t record_hash;
    int64_t since_ns; /* it has been so */
};
enum leader_move { LEADER_WAIT, LEADER_TAKE, LEADER_RENEW };
/* What to do about the record as read (NULL: there is none). */
enum leader_move leader_decide(struct leader_seen *seen, const struct jnode *record, struct str own,
                               int64_t now_ns);
/* A Lease: made new, or the old one as it should be after the move. */
struct jnode *leader_record(const struct jnode *old, struct str own, int64_t wall_ns,
                            struct arena *a);

/* ---- the runner ---- */

struct leader;
/* s: used by the election alone; NULL: elected at once. own: who we are, the same for nobody else.
 * on_change is called on the loop. */
struct leader *leader_new(struct loop *l, struct store *s, struct str own,
                          void (*on_change)(void *arg, bool is_leader), void *arg);
/* Gives the record up, if it is ours. */
void leader_free(struct leader *x); /* accepts NULL */
bool leader_is(const struct leader *x);
/* Who has it, as far as known. */
struct str leader_holder(const struct leader *x);
