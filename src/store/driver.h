/* What a datastore driver is to store.c. Keys and values are checked there; a driver only stores.
 */
#pragma once

#include "store/store.h"

struct store_driver {
    const char *scheme; /* of its URLs: "sqlite" */
    /* rest: the URL behind "scheme:". */
    int (*open)(struct store *s, const char *rest, struct err *e);
    void (*close)(struct store *s);
    int (*get)(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
               struct err *e);
    int (*list)(struct store *s, struct store_key prefix, uint64_t *revision_out,
                int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e);
    int (*put)(struct store *s, struct store_key k, struct str value, uint64_t expect,
               uint64_t *revision_out, struct err *e);
    int (*del)(struct store *s, struct store_key k, uint64_t expect, struct err *e);
    int (*begin)(struct store *s, struct err *e);
    int (*commit)(struct store *s, struct err *e);
    void (*rollback)(struct store *s);
    uint64_t (*revision)(struct store *s);
    int (*watch)(struct store *s, struct loop *l, struct store_key prefix, uint64_t from_revision,
                 const struct store_watch_ops *ops, void *arg, struct store_watch **out,
                 struct err *e);
    void (*watch_free)(struct store_watch *w);
};

struct store {
    const struct store_driver *driver;
    void *d; /* the driver's own */
    bool in_transaction;
};

struct store_watch {
    struct store *store; /* first member of a driver's watch */
};

extern const struct store_driver store_sqlite;
