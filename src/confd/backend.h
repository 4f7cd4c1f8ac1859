/* Where keys come from. A backend can read everything below some prefixes, and may tell when that
 * has changed. One file a backend; the list is in backend.c. */
#pragma once

#include "base/loop.h"
#include "confd/kv.h"
#include "confd/options.h"

struct bgp_view;

/* On the loop, any time after backend_watch. */
struct backend_events {
    void (*stale)(void *arg); /* something may have changed: read again */
    /* Everything that is below the prefixes now, sorted; the callee takes the content. */
    void (*snapshot)(void *arg, struct kv *fresh);
    /* One key; STR_NULL: it is gone. */
    void (*change)(void *arg, struct str key, struct str value);
    /* Can't be reached; it is tried again. Told once until it works again. */
    void (*lost)(void *arg, const char *why);
};

struct backend {
    const struct backend_ops *ops;
};

/* Prefixes are canonical and live as long as the backend. */
struct backend_ops {
    const char *name;
    int (*open)(const struct confd_options *o, const struct str *prefixes, size_t n,
                struct backend **out, struct err *e);
    void (*close)(struct backend *b);
    /* Fills fresh (kv_add); more than was asked for is fine. May block, but not for ever. */
    int (*read)(struct backend *b, struct kv *fresh, struct err *e);
    /* NULL: changes are never told. Fails only for what trying again can't mend. At least one
     * stale or snapshot follows. */
    int (*watch)(struct backend *b, struct loop *l, const struct backend_events *ev, void *arg,
                 struct err *e);
    /* NULL: keys are what they are. Else: how the backend writes a key that was asked for. */
    struct str (*fold)(struct arena *a, struct str key);
    /* NULL: none. What getBGPConfig answers from, of the last read. */
    const struct bgp_view *(*bgp)(struct backend *b);
};

/* The ops of o->backend; NULL with e filled: unknown, or not built and why. */
const struct backend_ops *backend_find(const struct confd_options *o, struct err *e);
/* The node's name for "//NODENAME" and own resources: -node-name, NODENAME, HOSTNAME, the host's
 * name in lower case. */
const char *confd_node_name(const struct confd_options *o, struct arena *a);
/* "HOST:PORT" with the default port, of -node N, the default, or SRV records. Filled into the
 * options by confd_main. */
MG_NODISCARD int backend_nodes(struct confd_options *o, struct arena *a, struct err *e);

extern const struct backend_ops backend_env, backend_file, backend_store, backend_etcd,
    backend_redis, backend_zookeeper;
