/* What links*.c keep of each interface. Only for them. */
#pragma once

#include "base/log.h"
#include "base/vec.h"
#include "dataplane/links.h"
#include "netlink/monitor.h"

enum links_wrong {
    WRONG_DOWN = 1,
    WRONG_MAC = 2,
    WRONG_SETTING = 4,
    WRONG_ROUTE = 8,
    WRONG_NEIGH = 16,
    WRONG_STALE = 32, /* a route of ours for an address that the pod no longer has, or not here */
};

struct links_net {
    struct prefix net;
    bool has_route, has_neigh; /* as seen */
    bool had_route;            /* it was ours once: whoever took it gets no further */
    bool is_kept;
    bool is_away; /* in use elsewhere: no route of ours */
};
typedef VEC(struct links_net) links_nets;

struct links_entry {
    char name[IF_NAMESIZE];
    struct link link; /* as seen; index 0: not there */
    links_nets nets;
    VEC(struct prefix) stale;
    uint8_t pod_mac[6];
    bool has_pod_mac;
    bool is_new;     /* desired state changed, kernel not looked at yet */
    bool is_touched; /* in links.touched */
    bool is_delayed; /* waits for the timer */
    bool is_seen;
    bool was_right;    /* what is wrong now was changed by somebody else */
    int64_t window_ns; /* repairs since then */
    unsigned n_repairs;
    char problem[256];
};

#define MAP_NAME links_by_name
#define MAP_KEY struct str
#define MAP_VAL struct links_entry *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq((a), (b))
#include "base/hash.h"
#include "base/map.tmpl.h"

#define MAP_NAME links_by_index
#define MAP_KEY int
#define MAP_VAL struct links_entry *
#define MAP_HASH(k) hash_u64((uint64_t)(k))
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

/* Which interface has an address: the one that was given it last. */
#define MAP_NAME links_owners
#define MAP_KEY struct prefix
#define MAP_VAL struct links_entry *
#define MAP_HASH(k) (ip_hash(&(k).ip) ^ (k).len)
#define MAP_EQ(a, b) prefix_eq(&(a), &(b))
#include "base/map.tmpl.h"

/* Addresses in use elsewhere. */
#define MAP_NAME links_aways
#define MAP_KEY struct prefix
#define MAP_VAL bool
#define MAP_HASH(k) (ip_hash(&(k).ip) ^ (k).len)
#define MAP_EQ(a, b) prefix_eq(&(a), &(b))
#include "base/map.tmpl.h"

struct links {
    struct nl *nl;
    struct nl_monitor *monitor;
    struct loop_timer *timer;
    struct loop_defer *defer;
    uint8_t proto;
    char prefixes[LINKS_MAX_PREFIXES][IF_NAMESIZE];
    size_t n_prefixes;
    struct links_by_name by_name;
    struct links_by_index by_index;
    struct links_owners owners;
    struct links_aways aways;
    VEC(struct links_entry *) touched;
    bool wants_sync, has_synced, is_timing;
    struct links_stats stats; /* the counters */
    struct log_limit log;
};

static inline bool links_is_whole(const struct prefix *p) {
    return p->len == ip_bits(&p->ip);
}

/* links.c: observed state */
void links_set_index(struct links *l, struct links_entry *e, int index);
void links_observe_link(struct links *l, struct links_entry *e, const struct link *k);
/* Is it the route that we would make to this interface? */
bool links_is_ours(const struct links *l, const struct links_entry *e, const struct route *r);
/* Routes of one destination differ by metric; ours have the kernel's default. */
bool links_is_our_metric(const struct route *r);
struct links_net *links_find_net(struct links_entry *e, const struct prefix *p);

/* links_write.c. What is wrong with an interface that is there: bits of enum links_wrong. */
unsigned links_wrongs(struct links *l, struct links_entry *e);
/* Makes an interface that is there as it should be; e->problem says what went wrong. */
MG_NODISCARD int links_fix(struct links *l, struct links_entry *e, bool is_repair, struct err *err);
/* Looks at the interface now. ERR_NOT_FOUND: it isn't there. */
MG_NODISCARD int links_look(struct links *l, struct links_entry *e, struct err *err);
