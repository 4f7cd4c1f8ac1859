/* Shared by the files of kernel.h: tables of ways and of what is foreign. */
#pragma once

#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "bgp/kernel.h"
#include "netlink/monitor.h"

enum { KERNEL_BIRD = 12 }; /* protocol of Calico's BIRD */

/* ---- ways: what a route in the kernel says beside its prefix. Shared, by number; 0: none ---- */

struct way {
    uint32_t n_refs;
    uint32_t metric;
    uint8_t type; /* RTN_ */
    uint8_t n;
    struct route_way hops[]; /* sorted; one: weight 1 */
};
struct ways;
struct ways *ways_new(void);
void ways_free(struct ways *w);
/* Sorts hops and adds weights of equal ones. One reference more. */
uint32_t way_intern(struct ways *w, uint8_t type, uint32_t metric, struct route_way *hops,
                    size_t n);
void way_ref(struct ways *w, uint32_t id);
void way_unref(struct ways *w, uint32_t id);
const struct way *way_get(const struct ways *w, uint32_t id);
/* Of a route as the kernel told it. */
uint32_t way_of_route(struct ways *w, const struct route *r);
void way_to_route(const struct way *w, const struct prefix *p, struct route *out);

/* ---- wants: what the speaker asks for; its way is worked out when needed ---- */

struct want {
    uint32_t n_refs, local_pref;
    uint32_t way;   /* a reference; valid if !is_stale; 0: unresolved */
    uint8_t family; /* of prefixes */
    uint8_t n;
    bool is_stale, is_changed;
    struct kernel_hop hops[];
};

/* ---- entries: a prefix of ours ---- */

struct entry {
    uint32_t want, have, fixed; /* want; way in the kernel; way by configuration */
    bool is_dirty, is_leftover, is_conflict;
};

static inline uint64_t prefix_hash(const struct prefix *p) {
    uint64_t a, b;
    memcpy(&a, p->ip.b, 8);
    memcpy(&b, p->ip.b + 8, 8);
    return hash_u64(a ^ hash_u64(b ^ (uint64_t)p->len << 8 ^ p->ip.family));
}

/* ---- what is foreign ---- */

struct foreign {
    struct foreign *next; /* of the prefix, lowest metric first */
    uint32_t metric;
    int oif;
    uint8_t protocol, type, n_ways;
    struct ip46 via;
    struct route_way ways[];
};

struct klink {
    char name[IF_NAMESIZE];
    bool is_up, is_told;
};

struct watch {
    struct ip46 ip, link_local;
    int ifindex;
    bool is_new, is_reachable;
    uint32_t cost;
    char interface[IF_NAMESIZE];
};

/* A local route that was told to the speaker. */
struct told {
    uint32_t sum;
    uint8_t source;
};

#define MAP_NAME map4
#define MAP_KEY uint64_t
#define MAP_VAL struct entry
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"
#define MAP_NAME map6
#define MAP_KEY struct prefix
#define MAP_VAL struct entry
#define MAP_HASH(k) prefix_hash(&(k))
#define MAP_EQ(a, b) prefix_eq(&(a), &(b))
#include "base/map.tmpl.h"
#define MAP_NAME foreign_map
#define MAP_KEY struct prefix
#define MAP_VAL struct foreign *
#define MAP_HASH(k) prefix_hash(&(k))
#define MAP_EQ(a, b) prefix_eq(&(a), &(b))
#include "base/map.tmpl.h"
#define MAP_NAME told_map
#define MAP_KEY struct prefix
#define MAP_VAL struct told
#define MAP_HASH(k) prefix_hash(&(k))
#define MAP_EQ(a, b) prefix_eq(&(a), &(b))
#include "base/map.tmpl.h"
#define MAP_NAME link_map
#define MAP_KEY int
#define MAP_VAL struct klink
#define MAP_HASH(k) hash_u64((uint64_t)(k))
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"
/* Content's hash to a number. Two contents with one hash of 64 bits: the later is not shared. */
#define MAP_NAME number_map
#define MAP_KEY uint64_t
#define MAP_VAL uint32_t
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct bgp_kernel {
    struct loop *loop;
    struct loop_defer *defer;
    struct loop_timer *timer,
        *scan_timer; /* the rest of a batch, or another try; a whole reading */
    struct kernel_ops ops;
    void *arg;
    bool is_alone, is_ready, has_leftovers, is_scanning;
    struct nl *nl;
    struct nl_monitor *monitor;
    const struct bgp_conf *conf;
    /* ours */
    struct map4 v4;
    struct map6 v6;
    struct ways *ways;
    VEC(struct want *) wants; /* by number - 1; NULL: free */
    VEC(uint32_t) free_wants;
    struct number_map want_map; /* of a want's content to its number */
    VEC(struct prefix) dirty;
    size_t dirty_at;
    VEC(struct prefix) fixed; /* prefixes with a way by configuration */
    /* others' */
    struct link_map links;
    VEC(struct addr) addrs;
    struct foreign_map foreign;
    VEC(struct prefix) foreign_dirty;
    struct told_map told;
    VEC(struct prefix) connected; /* told; sorted */
    VEC(struct watch) watches;
    bool links_changed, routes_changed, watches_changed;
    struct kernel_stats stats;
    struct log_limit limit;
};

/* kernel_local.c: the address for peers in pods on the host sides of their links; what is to be
 * written is sent. */
void kernel_local_write(struct bgp_kernel *k);
/* Before conf takes the place of k's: an address that is another one now goes. */
void kernel_local_change(struct bgp_kernel *k, const struct bgp_conf *conf);

/* kernel_foreign.c */
bool kernel_is_ours(const struct bgp_kernel *k, const struct route *r);
bool kernel_is_of_interest(const struct route *r);
void kernel_foreign_set(struct bgp_kernel *k, const struct route *r, bool is_gone);
void kernel_foreign_clear(struct bgp_kernel *k);
void kernel_foreign_dirty_all(struct bgp_kernel *k);
/* A route of the prefix that Calico's BIRD left on this node; NULL: none, or none of our business.
 */
const struct foreign *kernel_bird_route(const struct bgp_kernel *k, const struct prefix *p);
/* Tells the speaker what changed of local routes and next hops. */
void kernel_foreign_tell(struct bgp_kernel *k);
void kernel_connected_tell(struct bgp_kernel *k);
void kernel_watches_tell(struct bgp_kernel *k);
/* Next hops of the kernel for a next hop of BGP; returns how many, 0: no way. cost and oif of the
 * first. */
size_t kernel_resolve(const struct bgp_kernel *k, const struct kernel_hop *hop,
                      struct route_way out[ROUTE_WAYS_MAX], uint32_t *cost);
struct str kernel_link_name(const struct bgp_kernel *k, int ifindex);

/* kernel.c */
struct entry *kernel_entry(const struct bgp_kernel *k, const struct prefix *p);
void kernel_mark(struct bgp_kernel *k, const struct prefix *p, struct entry *en);

/* kernel_want.c */
uint32_t want_intern(struct bgp_kernel *k, uint8_t family, uint32_t local_pref,
                     const struct kernel_hop *hops, size_t n);
void want_ref(struct bgp_kernel *k, uint32_t id);
void want_unref(struct bgp_kernel *k, uint32_t id);
/* The way that a want and the configuration ask for; a reference more. 0: none. */
uint32_t want_way(struct bgp_kernel *k, uint32_t id, const struct prefix *p);
/* Works the ways of all wants out again; true: some is_changed now. */
bool wants_refresh(struct bgp_kernel *k);
void wants_free(struct bgp_kernel *k);
