/* What the files of the agent share. Only for src/node. */
#pragma once

#include "base/clock.h"
#include "base/hash.h"
#include "base/health.h"
#include "base/log.h"
#include "base/vec.h"
#include "cni/server.h"
#include "dataplane/links.h"
#include "ipam/ipam.h"
#include "node/autohep.h"
#include "node/cnitoken.h"
#include "node/cut.h"
#include "node/ifaces.h"
#include "node/listen.h"
#include "node/mtu.h"
#include "node/network.h"
#include "node/node.h"
#include "node/packetlog.h"
#include "node/settings.h"
#include "node/supervise.h"
#include "store/serve.h"
#include "store/syncer.h"

struct waiter {
    struct node *n;
    char *key; /* what was written; NULL: anything */
    uint64_t revision;
    void (*cb)(void *arg, int code);
    void *arg;
    struct loop_timer *timer;
};

/* A thing that can't be enforced as written. */
struct problem {
    char *object, *reason;
};
#define MAP_NAME problem_map
#define MAP_KEY struct str
#define MAP_VAL struct problem
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

#define MAP_NAME pool_map
#define MAP_KEY struct str
#define MAP_VAL struct dataplane_pool
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct node {
    struct node_options o;
    char *name;
    struct loop *loop;
    struct store *store; /* what the syncer and watches follow */
    struct store *calls; /* the worker's; the same where the driver answers at once */
    struct store_worker *worker;
    struct syncer *syncer;
    struct calc *calc;
    struct links *links;
    struct dataplane *dataplane;
    struct ipam *ipam;
    struct cni_server *cni;
    struct mtu_watch *mtu;
    uint32_t host_mtu; /* 0: not known */
    struct iface_watch *ifaces;
    VEC(struct dataplane_iface) own;
    struct packetlog *packetlog;
    struct autohep *autohep;   /* NULL: a datastore whose controllers do its work */
    struct cut *cut;           /* NULL: established connections go on */
    struct cnitoken *cnitoken; /* NULL: not wanted */
    struct network *network;   /* NULL: the embedded store, which has one node */
    struct supervise *bgp;     /* NULL: not wanted */
    struct store_server *rpc;
    struct listener *listener;
    struct health *health, *metrics;
    struct loop_timer *spool_timer;
    struct arena file_arena, felix_arena[2];
    struct settings_sources sources;
    struct settings settings;
    struct pool_map pools;
    bool pools_dirty, settings_dirty, in_sync, is_ready;
    bool is_current;   /* the kernel has all that the calculation was told */
    uint64_t enforced; /* newest revision that the kernel has */
    VEC(struct waiter *) waiters;
    struct loop_timer *ask_timer; /* runs while somebody waits */
    struct loop_timer *init_timer;
    struct loop_timer *end_timer; /* of telling the cluster goodbye */
    struct err init_error;        /* why the datastore is not initialized yet */
    int64_t lost_ns;              /* since when the datastore is away; 0: it is there */
    char lost_why[512];
    struct problem_map problems;
    struct arena scratch;
    int64_t started_ns, ready_ns, last_apply_ns;
};

/* ---- wait.c ---- */
/* Calls cb once: when the kernel has what was written (of key, or STR_NULL: of anything) up to
 * revision, or negative after the time. */
void node_when_enforced(struct node *n, struct str key, uint64_t revision, int64_t timeout_ms,
                        void (*cb)(void *arg, int code), void *arg);
/* The kernel has all that the syncer has told. */
void node_set_enforced(struct node *n);
void node_waiters_free(struct node *n);

/* ---- node.c ---- */
/* The first snapshot is in the kernel: once. */
void node_ready(struct node *n);

/* ---- news.c: from the syncer ---- */
extern const struct syncer_ops node_sync_ops;
extern const struct calc_ops node_calc_ops;

/* ---- apply.c: to the kernel ---- */
/* What changed, calculated and written. */
void node_apply(struct node *n);
void node_read_settings(struct node *n);
struct dataplane_settings node_dataplane_settings(const struct settings *s);
void node_watch_mtu(struct node *n);
/* Pods' MTU, as the host's and the encapsulation have it now. */
void node_set_mtu(void *arg);
void node_follow_settings(struct node *n);
void node_on_ifaces(void *arg, const struct dataplane_iface *v, size_t count);

/* ---- status.c ---- */
/* Ops of the socket that are not the store's. */
bool node_on_op(void *arg, const struct jnode *q, struct store_reply *reply);
void node_start_health(struct node *n);
