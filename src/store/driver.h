/* What a driver of the store is: store.c checks the arguments that every driver would have to check
 * and calls through this table. One driver per URL scheme; a new one is an entry in store.c. */
#pragma once

#include "store/follow.h"
#include "store/store.h"

/* Every driver's store and watch start with these. */
struct store {
    const struct store_driver *drv;
    bool in_tx; /* between store_begin and its end; kept by store.c */
};
struct store_watch {
    const struct store_driver *drv;
};

/* Contracts are store.h's. Arguments are checked: keys and values are within their limits, begin is
 * not nested, commit and rollback follow a begin. */
struct store_driver {
    const char *scheme;
    /* rest: the URL after "SCHEME:". */
    int (*open)(struct str rest, struct store **out, struct err *e);
    void (*close)(struct store *s);
    int (*get)(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
               struct err *e);
    int (*list)(struct store *s, struct store_key prefix, uint64_t *revision_out,
                int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e);
    int (*put)(struct store *s, struct store_key k, struct str value, uint64_t expect,
               uint64_t *revision_out, struct err *e);
    int (*del)(struct store *s, struct store_key k, uint64_t expect, struct err *e);
    int (*begin)(struct store *s, struct err *e);
    /* Whatever it returns, the transaction is over. */
    int (*commit)(struct store *s, struct err *e);
    void (*rollback)(struct store *s);
    uint64_t (*revision)(struct store *s);
    int (*watch)(struct store *s, struct loop *l, struct store_key prefix, uint64_t from_revision,
                 const struct store_watch_ops *ops, void *arg, struct store_watch **out,
                 struct err *e);
    void (*watch_free)(struct store_watch *w);
    /* NULL: the syncer lists and watches (list, watch above). Else: follows what begins with prefix
     * (of the resources, always all: prefix.key is empty; of addresses, say "/ipam/v2/assignment/")
     * on the loop, without blocking it, until follow_free; failures are retried with back-off and
     * told by on_connected. Fails only for what trying again can't mend. */
    int (*follow)(struct store *s, struct loop *l, struct store_key prefix,
                  const struct store_follow_ops *ops, void *arg, struct store_follow **out,
                  struct err *e);
    /* Somebody waits: find out the newest revision and tell on_progress soon. */
    void (*follow_ask)(struct store_follow *f);
    void (*follow_free)(struct store_follow *f); /* safe inside its own callbacks */
    /* May be NULL, where no call waits for a network. From any thread: the call that runs and all
     * later ones end soon, with -ECANCELED. */
    void (*interrupt)(struct store *s);
};

extern const struct store_driver store_sqlite;
extern const struct store_driver store_agent;
extern const struct store_driver store_etcd;
extern const struct store_driver store_kube;
