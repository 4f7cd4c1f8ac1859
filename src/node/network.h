/* The way to other nodes' pods: what the datastore says of blocks, nodes and pools goes to the
 * paths (ipam/paths.h), what follows from these to the kernel (dataplane/overlay.h); and this
 * node's own Node (selfnode.h). Not with the embedded store, which has one node. */
#pragma once

#include "base/buf.h"
#include "dataplane/dataplane.h"
#include "ipam/ipam.h"
#include "model/model.h"
#include "node/settings.h"
#include "store/syncer.h"
#include "store/worker.h"

struct network;

struct network_config {
    struct store *store; /* followed */
    struct store_worker *worker;
    struct ipam *ipam;
    struct links *links;
    struct str node;
    bool is_kubernetes;
    const struct settings *settings; /* read when network_settings is called, and at first */
    /* Bytes that encapsulation takes off a packet's room changed (network_overhead). */
    void (*on_overhead)(void *arg);
    void *arg;
};

/* NULL with e. */
struct network *network_new(struct loop *l, const struct network_config *c, struct err *e);
void network_free(struct network *n); /* accepts NULL; the worker has been freed before */
/* A Node or IPPool of the datastore; o NULL: gone. Others are passed over. */
void network_object(struct network *n, const struct kind *k, struct str name,
                    const struct object *o);
/* End of a burst; is_whole: the resources' first snapshot has come. */
void network_flush(struct network *n, bool is_whole);
void network_settings(struct network *n);
/* Tells the dataplane which nodes VXLAN may come from, if that changed. Before each of its flushes.
 */
void network_tunnels(struct network *n, struct dataplane *d);
/* Pods can have network here: the cluster is told. */
void network_ready(struct network *n);
/* The agent ends; see selfnode_down. */
void network_down(struct network *n, void (*done)(void *arg), void *arg);
/* Routes to nodes without encapsulation are BGP's: CALICO_NETWORKING_BACKEND is bird. */
bool network_has_bgp(void);
/* Bytes that the largest encapsulation in use takes: pods get an MTU as much smaller. */
uint32_t network_overhead(const struct network *n);
/* Addresses of the host changed. */
void network_addresses(struct network *n);
/* What is wrong, each with cb; "" is never told. */
void network_problems(const struct network *n, void (*cb)(void *arg, const char *what), void *arg);
/* Appends the member "network" of the status. */
void network_put(const struct network *n, struct buf *b);
