/* Addresses: pools, blocks, affinities, handles, in Calico's own layout (libcalico-go/lib/ipam),
 * all state in the store by compare-and-swap. Source of names and shapes: lib/backend/model.
 *
 * Several calls may stand between the caller's store_begin and store_commit; none here begins one.
 * A lost compare-and-swap is tried again from a fresh reading. */
#pragma once

#include "base/ip.h"
#include "base/jtree.h"
#include "store/store.h"

struct ipam;

/* A pool that may be used: enabled, its selectors match (the caller's affair). */
struct ipam_pool {
    struct str name;
    struct prefix cidr;
    unsigned block_len; /* prefix length of a block */
};

struct ipam_options {
    const struct ipam_pool *pools; /* in order of preference */
    size_t n_pools;
    /* Whose nodeSelector excludes this node: its empty blocks there are given up. */
    const struct ipam_pool *refusing;
    size_t n_refusing;
    const struct prefix *reserved; /* of IPReservations: skipped by automatic assignment */
    size_t n_reserved;
    bool strict_affinity; /* never take from another node's block */
    bool no_new_blocks;   /* autoAllocateBlocks false */
    unsigned max_blocks;  /* a node may own; 0: 20 */
    unsigned max_held;    /* addresses of a family that the handle may hold; 0: any number */
};

/* What is noted with an address: pod, namespace, node, timestamp, … */
struct ipam_attr {
    struct str key, value;
};

/* node: name of this node. The store must outlive it. */
struct ipam *ipam_new(struct store *s, struct str node);
/* An owner that is no node: "load-balancer" has the addresses of Services. */
struct ipam *ipam_new_virtual(struct store *s, struct str name);
void ipam_free(struct ipam *m);
/* How long a released address rests before anybody gets it (ipCooldownSeconds); 0: not at all. */
void ipam_set_cooldown(struct ipam *m, int64_t seconds);
/* Another clock than the wall's (ns since 1970), for simulations. */
void ipam_set_clock(struct ipam *m, int64_t (*now)(void));

/* ---- settings (settings.c) ---- */

struct ipam_settings {
    bool strict_affinity, auto_blocks; /* false, true unless set */
    unsigned max_blocks;               /* of a node; 0: 20 */
    int64_t cooldown_s;
    bool vm_persistence; /* virtual machines keep their addresses; true unless set */
};
/* What is in the store; defaults where nothing is. */
MG_NODISCARD int ipam_settings_read(struct store *s, struct ipam_settings *out, struct err *e);
/* What of them an instance needs for giving addresses back (cooldown), from its store. */
MG_NODISCARD int ipam_settings_heed(struct ipam *m, struct err *e);
/* All of them. ERR_INVALID: they don't go together. */
MG_NODISCARD int ipam_settings_write(struct store *s, const struct ipam_settings *v, struct err *e);

/* ---- assignment ---- */

/* Assigns count addresses of a family, from this node's blocks first, then from new ones, then from
 * others' that have been empty for a minute, then (unless strict) addresses of others' blocks. All
 * or none. ERR_NO_SPACE says which pools were tried and how full they are. */
MG_NODISCARD int ipam_assign_auto(struct ipam *m, const struct ipam_options *o,
                                  enum ip_family family, size_t count, struct str handle,
                                  const struct ipam_attr *attrs, size_t n_attrs, struct ip46 *out,
                                  struct err *e);
/* Assigns this very address. ERR_EXISTS names the holder; ERR_NOT_FOUND: in none of the pools;
 * ERR_DENIED: in another node's block, and affinity is strict. */
MG_NODISCARD int ipam_assign_ip(struct ipam *m, const struct ipam_options *o, const struct ip46 *ip,
                                struct str handle, const struct ipam_attr *attrs, size_t n_attrs,
                                struct err *e);
/* Gives addresses back; those that are free already, or held by another handle than `handle` (if
 * given), are left alone. *n_released (may be NULL): how many were. */
MG_NODISCARD int ipam_release_ips(struct ipam *m, const struct ip46 *ips, size_t n,
                                  struct str handle, size_t *n_released, struct err *e);
/* Gives back all of a handle; the first max addresses are told in out. ERR_NOT_FOUND: it had none.
 */
MG_NODISCARD int ipam_release_by_handle(struct ipam *m, struct str handle, struct ip46 *out,
                                        size_t max, size_t *n_out, struct err *e);
/* ERR_NOT_FOUND: none. */
MG_NODISCARD int ipam_ips_by_handle(struct ipam *m, struct str handle, struct ip46 *out, size_t max,
                                    size_t *n_out, struct err *e);

/* ---- owners of a virtual machine's addresses (owners.c) ---- */

/* One allocation, and no other that the address may have had or got since. */
struct ipam_exact {
    struct ip46 ip;
    struct str handle;
    int64_t sequence; /* the block's number when it was assigned, or its owner set */
};

/* All that the handle holds gets these attributes, as its active owner's or as the alternate's; the
 * addresses are told. ERR_NOT_FOUND: it holds none. */
MG_NODISCARD int ipam_owner_set(struct ipam *m, struct str handle, bool is_alternate,
                                const struct ipam_attr *attrs, size_t n_attrs, struct ip46 *out,
                                size_t max, size_t *n_out, struct err *e);
/* Takes away what a pod is noted as, active or alternate. *is_owned: somebody is left. held: the
 * handle's allocations as they are now, for ipam_release_exact: an owner that is set later keeps
 * them. ERR_NOT_FOUND: it holds none. */
MG_NODISCARD int ipam_owner_clear(struct ipam *m, struct str handle, struct str ns, struct str pod,
                                  bool *is_owned, struct ipam_exact *held, size_t max,
                                  size_t *n_held, struct arena *a, struct err *e);
/* The pod, alternate owner till now, becomes the active one, and that one the alternate. Done
 * already is fine. ERR_INVALID: it is neither; ERR_NOT_FOUND: the handle holds no address. */
MG_NODISCARD int ipam_owner_promote(struct ipam *m, struct str handle, struct str ns,
                                    struct str pod, struct err *e);
/* Is the pod an owner by these attributes of an allocation? */
bool ipam_is_owner(const struct jnode *attr, struct str ns, struct str pod);

/* ---- collecting what is left over (collect.c) ---- */

/* Gives back those of the allocations that are still the same. */
MG_NODISCARD int ipam_release_exact(struct ipam *m, const struct ipam_exact *v, size_t n,
                                    size_t *n_released, struct err *e);
/* Gives up a block of this owner that has no address in use. ERR_CONFLICT: it has, or it is no more
 * the owner's. */
MG_NODISCARD int ipam_release_block(struct ipam *m, const struct prefix *cidr, struct err *e);
/* Gives up all of the owner's blocks and, for a node, its name. Blocks with addresses in use lose
 * their owner and stay: ERR_CONFLICT then, after all others. */
MG_NODISCARD int ipam_release_owner(struct ipam *m, struct err *e);

/* One allocation, or one pool, or one block, for reports. */
struct ipam_usage {
    struct str pool;    /* name; empty: blocks outside all pools */
    struct prefix cidr; /* of the pool or block */
    double total;       /* addresses */
    uint64_t in_use;
    struct str affinity; /* of a block: "host:NAME" or empty */
    bool is_block;
};
/* Each pool, followed by its blocks. */
MG_NODISCARD int ipam_show(struct ipam *m, const struct ipam_pool *pools, size_t n_pools,
                           void (*cb)(void *arg, const struct ipam_usage *u), void *arg,
                           struct err *e);
/* Every allocation: address, handle, attributes' pod and namespace (may be empty). */
MG_NODISCARD int ipam_each(struct ipam *m,
                           void (*cb)(void *arg, const struct ip46 *ip, struct str handle,
                                      struct str ns, struct str pod),
                           void *arg, struct err *e);
/* One address in use, for reports. Texts live until the callback returns. */
struct ipam_allocation {
    struct ip46 ip;
    struct prefix block;
    struct str affinity;            /* of the block; empty: nobody's */
    struct str handle;              /* empty: at rest, or assigned without one */
    struct str ns, pod, node, type; /* attributes; may be empty */
    int64_t sequence;
    bool is_resting;                /* released, in cooldown */
    const struct jnode *attributes; /* as they stand in the block */
};
/* By address. */
MG_NODISCARD int ipam_allocations(struct ipam *m,
                                  void (*cb)(void *arg, const struct ipam_allocation *x), void *arg,
                                  struct err *e);

/* ---- whether the books agree, and mending them (report.c, repair.c) ---- */

enum ipam_fault_kind {
    IPAM_UNREADABLE,     /* a block or handle: for a person to look at */
    IPAM_OVERLAP,        /* cidr: the emptier one of two blocks with addresses in common */
    IPAM_LOST,           /* addresses of block cidr that are neither free nor in use */
    IPAM_STRAY_AFFINITY, /* name ("host:NODE") claims cidr, which isn't there or another's */
    IPAM_NO_AFFINITY,    /* block cidr says it is name's, who has no affinity for it */
    IPAM_HANDLE,         /* handle name and block cidr count differently */
};
struct ipam_fault {
    enum ipam_fault_kind kind;
    struct prefix cidr;
    struct str name, text; /* live until the callback returns */
};
/* Calls cb for each inconsistency between blocks, handles and affinities. What another writes
 * meanwhile can look like one: ask twice. Returns their number, or negative. */
MG_NODISCARD int ipam_faults(struct ipam *m, void (*cb)(void *arg, const struct ipam_fault *f),
                             void *arg, struct err *e);
/* The same, in sentences. */
MG_NODISCARD int ipam_check(struct ipam *m, void (*cb)(void *arg, struct str text), void *arg,
                            struct err *e);
/* Mends one, by compare-and-swap on what it finds now: nothing, if the fault has gone. No address
 * that is in use changes. 0: it is no more. ERR_INVALID says what a person has to do. */
MG_NODISCARD int ipam_mend(struct ipam *m, const struct ipam_fault *f, struct err *e);
