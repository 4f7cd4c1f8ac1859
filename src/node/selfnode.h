/* This node's own Node in the datastore: its addresses, detected as calico/node does, and the
 * addresses of its tunnel devices, which are the pools'. Kept up while the agent runs. Not on the
 * embedded store, which has one node. */
#pragma once

#include "base/buf.h"
#include "base/loop.h"
#include "ipam/ipam.h"
#include "ipam/paths.h"
#include "node/autodetect.h"
#include "store/worker.h"

struct selfnode;

struct selfnode_ops {
    /* What the Node says now, or why there is none (why "" if all is well). */
    void (*on_change)(void *arg, const struct path_node *own, const char *why);
};

/* m uses the worker's store. NULL with e: the kernel can't be asked for addresses. */
struct selfnode *selfnode_new(struct loop *l, struct store_worker *w, struct ipam *m,
                              struct str name, bool is_kubernetes, const struct selfnode_ops *ops,
                              void *arg, struct err *e);
void selfnode_free(struct selfnode *s); /* accepts NULL; the worker has been freed before */
/* Something that it depends on may have changed: addresses of the host, the Node, pools. */
void selfnode_ask(struct selfnode *s);
/* Pods can have network here: on Kubernetes the Node's condition says so. */
void selfnode_up(struct selfnode *s);
/* The agent ends: schedulers are told that pods have no network here for now. done is called when
 * that was tried, or at once if nobody was told of more. */
void selfnode_down(struct selfnode *s, void (*done)(void *arg), void *arg);
/* Which families need the address of a VXLAN device. */
void selfnode_want_vxlan(struct selfnode *s, const bool wants[2]);
/* Appends {"ipv4":…,"ipv6":…,"rejected":[{"interface","address","reason"}…]}. */
void selfnode_put(const struct selfnode *s, struct buf *b);
