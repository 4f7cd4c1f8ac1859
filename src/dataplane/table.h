/* The dataplane's own state, shared by its files. Not for other modules. */
#pragma once

#include "base/vec.h"
#include "dataplane/dataplane.h"
#include "dataplane/keyset.h"
#include "dataplane/merge.h"
#include "netlink/nft.h"

/* ---- sets ---- */

struct range {
    uint8_t from[16], to[16];
};
typedef VEC(struct range) range_vec;

/* Of a map of values: key and value, one after the other, are one key of `keys`. */
enum { KSET_PAIR_MAX = 64 };

/* One set of the kernel. Hash sets keep their elements in `keys`; interval sets keep the wanted
 * prefixes (16 bytes of address, 1 of length) there and the ranges that the kernel has in `ranges`.
 */
struct kset {
    char *name, *comment;
    struct nft_set desc;
    struct keyset keys;
    range_vec ranges; /* interval sets: as the kernel has them, sorted */
    range_vec next;   /* interval sets: what the transaction under way writes */
    bool in_kernel, is_dirty, is_gone;
};

/* The four kernel sets of a calculated set: made when the first such member comes. */
enum part { PART_V4, PART_V4_NETS, PART_V6, PART_V6_NETS, N_PARTS };

struct dset {
    uint32_t id;
    enum calc_set_type type;
    char *base_name, *text;
    struct kset *parts[N_PARTS];
    VEC(uint32_t) users; /* ids of policies whose rules name this set */
};

/* ---- chains ---- */

struct kchain {
    char *name;
    uint64_t hash; /* of the rules that the kernel has; meaningful when in_kernel */
    uint64_t next_hash;
    bool in_kernel, is_dirty, is_gone;
    bool has_let_go; /* is_gone, and what it held has been released */
};

struct seg;

/* What a list of policies is for. */
enum list_mode {
    LIST_NORMAL,
    LIST_STAGED,  /* decides nothing: what it would decide is counted */
    LIST_FORWARD, /* what a host endpoint forwards: after the last tier it may pass */
    LIST_RAW,     /* before connection tracking or DNAT: no tier's end drops */
};

/* A policy's rules in one direction as a chain. Policies with a Pass rule need to know where Pass
 * goes, so they have one chain for each continuation; the others have one chain in all, and one of
 * the rest of their rules if lists merge what the others allow (merge.h). */
struct variant {
    struct kchain c;
    struct dpol *pol;
    struct seg *pass_to; /* NULL: no Pass rule, or a profile (Pass returns to the next profile) */
    enum list_mode mode; /* LIST_FORWARD's are LIST_NORMAL's */
    bool is_rest;
    unsigned refs;
};

struct dpol {
    uint32_t id;
    const struct calc_policy *p; /* a copy of the struct; what it points to belongs to calc */
    bool has_pass, is_profile, is_removed;
    bool is_plain; /* only allows */
    bool has_rest; /* some of its rules don't take part in merging */
    allow_vec allows;
    VEC(struct seg *) segs; /* merged lists that it is in */
    VEC(struct variant *) variants;
    VEC(uint32_t) used_sets; /* ids that its rules name, registered with these sets */
};

/* The rest of an endpoint's way: the policies of one tier, then what follows. Equal lists are one
 * chain, shared by all endpoints that have it. */
struct seg {
    struct kchain c;
    struct str key; /* what it is made of, for sharing */
    enum calc_dir dir;
    VEC(struct variant *) list;
    struct merged *merged;     /* NULL: not of plain policies alone */
    VEC(struct dpol *) plains; /* merged: all its policies */
    struct seg *next;          /* END_NEXT: where the end of the tier goes on */
    char *tier;
    enum list_mode mode;
    bool is_profiles;
    enum seg_end { END_DROP, END_NEXT, END_ACCEPT } end;
    unsigned refs;
};

/* The lists that packets of an endpoint meet. */
enum way {
    WAY_IN,
    WAY_OUT,
    WAY_STAGED_IN,
    WAY_STAGED_OUT,
    WAY_FORWARD_IN,
    WAY_FORWARD_OUT,
    WAY_UNTRACKED_IN,
    WAY_UNTRACKED_OUT,
    WAY_PRE_DNAT,
    N_WAYS,
};

struct dep {
    uint32_t id;
    char *iface, *label; /* label: "namespace/name", for comments and logs */
    bool is_host;        /* iface may be "*" or "" then, nets are the expected addresses */
    struct seg *segs[N_WAYS];
    VEC(struct prefix) nets;
    VEC(struct prefix) spoof_ok;
    bool is_dirty;
    /* What was calculated, to build the lists again when a policy's shape changes. */
    bool has_way[N_WAYS];
    struct calc_chain calc[N_WAYS];
    void *calc_block;
};

/* One element of a verdict map: interface → chain. */
struct hop {
    char iface[16];
    const char *want; /* a chain's name, owned by the chain; NULL: no element */
    char *kernel;     /* the name that the kernel has; NULL: no element */
    uint32_t owner;   /* id of the endpoint that wants it */
    bool is_touched;
};

#define MAP_NAME str_hop
#define MAP_KEY struct str
#define MAP_VAL struct hop *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/hash.h"
#include "base/map.tmpl.h"

struct hops {
    struct kset set; /* the map itself; its keys are not used */
    struct str_hop by_iface;
    VEC(struct hop *) touched;
    bool is_wanted;  /* the map, and the base chain that looks into it */
    const char *any; /* chain of host interfaces that have no element; NULL: none */
};

/* The verdict maps, and the base chain that asks each. */
enum hop_map {
    HOP_PODS_IN,
    HOP_PODS_OUT,
    HOP_STAGED_IN,
    HOP_STAGED_OUT,
    HOP_HOST_IN,
    HOP_HOST_OUT,
    HOP_HOST_STAGED_IN,
    HOP_HOST_STAGED_OUT,
    HOP_FORWARD_IN,
    HOP_FORWARD_OUT,
    HOP_UNTRACKED_IN,
    HOP_UNTRACKED_OUT,
    HOP_PRE_DNAT,
    N_HOP_MAPS,
};

#define MAP_NAME id_dset
#define MAP_KEY uint32_t
#define MAP_VAL struct dset *
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"
#define MAP_NAME id_dpol
#define MAP_KEY uint32_t
#define MAP_VAL struct dpol *
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"
#define MAP_NAME id_dep
#define MAP_KEY uint32_t
#define MAP_VAL struct dep *
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"
#define MAP_NAME str_seg
#define MAP_KEY struct str
#define MAP_VAL struct seg *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME str_kchain
#define MAP_KEY struct str
#define MAP_VAL struct kchain *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME str_kset
#define MAP_KEY struct str
#define MAP_VAL struct kset *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

enum base_chain {
    BASE_SPOOF,       /* prerouting, before conntrack: is the source the pod's own? */
    BASE_SPOOF_CHECK, /* plain chain: the check itself */
    BASE_FROM,        /* forward: what the sending pod may send */
    BASE_TO,          /* forward: what the receiving pod may receive */
    BASE_HOST,        /* input: what the sending pod may send to its own host */
    BASE_HOST_ACTION, /* input: what the host takes from its pods */
    BASE_TUNNEL_IN,   /* input: VXLAN comes from nodes only */
    BASE_NAT,         /* postrouting: masquerade, and NAT of host ports and floating addresses */
    /* Only while something needs them. */
    BASE_DNAT,            /* prerouting: host ports and floating addresses (nat.c) */
    BASE_DNAT_OWN,        /* output: the same for the host's own connections */
    BASE_STAGED_FROM,     /* forward: what staged policies would decide */
    BASE_STAGED_TO,       /* forward */
    BASE_UNTRACKED_IN,    /* prerouting, before conntrack: host endpoints' untracked policies */
    BASE_UNTRACKED_OUT,   /* output, before conntrack */
    BASE_PRE_DNAT,        /* prerouting, before DNAT */
    BASE_HOST_IN,         /* input: what a host endpoint lets in */
    BASE_HOST_OUT,        /* output */
    BASE_HOST_STAGED_IN,  /* input: what staged policies would decide */
    BASE_HOST_STAGED_OUT, /* output */
    BASE_FORWARD_IN,      /* forward: what comes in by a host endpoint */
    BASE_FORWARD_OUT,     /* forward: what goes out by one */
    N_BASE_CHAINS,
};

/* Maps of nat.c, each for both families. */
enum nat_set {
    NAT_SET_FLOATING,
    NAT_SET_BACK,
    NAT_SET_HAIRPIN,
    NAT_SET_PORT,
    NAT_SET_IP_PORT,
    N_NAT_SETS,
};
struct nat;
struct chain_out;

enum fixed_set {
    FIXED_SRC4, /* interface . address: what a pod may use as source */
    FIXED_SRC6,
    FIXED_NAT4, /* pools with natOutgoing */
    FIXED_NAT6,
    FIXED_POOL4, /* all pools */
    FIXED_POOL6,
    FIXED_FAILSAFE_IN, /* protocol . port that no policy of a host endpoint can close */
    FIXED_FAILSAFE_OUT,
    FIXED_NODE4, /* addresses of the cluster's other nodes */
    FIXED_NODE6,
    N_FIXED_SETS,
};

struct dataplane {
    struct loop *loop;
    struct links *links;
    struct nft_sock *sock;
    int monitor_fd;
    struct loop_poll *monitor;
    struct loop_timer *retry;
    int64_t retry_ms;
    struct str table;
    struct nft_batch batch;
    struct arena settings_arena;
    struct dataplane_settings settings;

    struct kchain base[N_BASE_CHAINS];
    struct kset fixed[N_FIXED_SETS];
    struct hops hops[N_HOP_MAPS];
    bool has_tunnel[2];       /* IPv4, IPv6 */
    VEC(struct prefix) pools; /* all of them: where floating addresses may be */
    struct nat *nat;          /* of nat.c; NULL: never needed */
    bool are_hosts_dirty;     /* host endpoints or interfaces changed */
    VEC(struct dataplane_iface) ifaces;
    struct id_dset sets;
    struct id_dpol policies;
    struct id_dep endpoints;
    struct str_seg segs;
    struct str_kchain chains; /* by name: variants and segs, gone ones too until written */
    struct str_kset ksets;    /* by name: sets of members, gone ones too until written */

    bool is_started; /* the first flush was done: from now on drift is repaired */
    bool has_table, needs_resync;
    bool has_wrong_chain;    /* found by a resync: a name of ours with another shape */
    bool must_replace_table; /* the next transaction deletes the table first */
    VEC(struct kset *) dirty_sets;
    VEC(struct variant *) dirty_variants;
    VEC(struct seg *) dirty_segs;
    VEC(uint32_t) dirty_endpoints;
    VEC(uint32_t) removed_policies;
    VEC(char *) stale_chains; /* names in the kernel that nothing wants */
    VEC(char *) stale_sets;

    void (*on_applied)(void *arg);
    void *on_applied_arg;
    struct dataplane_stats stats;
    int64_t repairs_window_ns; /* start of the window in which repairs are counted */
    unsigned repairs_in_window;
};

/* ---- ksets.c ---- */
void kset_init(struct kset *s, const char *name, const struct nft_set *desc, struct str comment);
void kset_fini(struct kset *s);
/* A set of the table by its name, made if it isn't there, kept if it was about to go. */
struct kset *kset_make(struct dataplane *d, const char *name, const struct nft_set *desc,
                       struct str comment);
/* Puts it on the list of sets to write. */
void kset_dirty(struct dataplane *d, struct kset *s);
/* A member of a set of addresses or prefixes, wanted or not. */
void kset_want_prefix(struct dataplane *d, struct kset *s, const struct prefix *p, bool on);
void kset_want_key(struct dataplane *d, struct kset *s, const void *key, bool on);
/* Appends the set, if it is new, and what differs in its elements. */
void kset_write(struct dataplane *d, struct kset *s);
void kset_settle(struct kset *s);
void kset_forget_kernel(struct kset *s);
/* An element that the kernel has, as read back. Interval ends come as ranges' ends. */
void kset_kernel_elem(struct kset *s, struct str key, struct str data, bool is_interval_end);
void kset_kernel_done(struct kset *s);
struct dset *dset_new(struct dataplane *d, const struct calc_set *s);
void dset_member(struct dataplane *d, struct dset *s, const struct calc_member *m, bool on);
void dset_free(struct dataplane *d, struct dset *s);

/* ---- hops.c ---- */
void hops_init(struct hops *h, const char *name, const char *comment, bool is_wanted);
void hops_fini(struct hops *h);
/* chain NULL: none, if the interface still is the owner's. */
void hops_want(struct hops *h, const char *iface, uint32_t owner, const char *chain);
/* The endpoint that has the interface; 0 = none. */
uint32_t hops_owner(const struct hops *h, const char *iface);
void hops_kernel(struct hops *h, struct str key, struct str chain);
void hops_unwant_all(struct hops *h);
void hops_write(struct dataplane *d, struct hops *h);
/* Removes the map that nothing needs any more. */
void hops_remove(struct dataplane *d, struct hops *h);
void hops_settle(struct hops *h);
void hops_forget_kernel(struct hops *h);

/* ---- lists.c: policies, segments ---- */
struct dpol *dpol_get(struct dataplane *d, uint32_t id);
void dpol_update(struct dataplane *d, const struct calc_policy *p);
void dpol_remove(struct dataplane *d, uint32_t id);
void variant_dirty(struct dataplane *d, struct variant *v);
void seg_dirty(struct dataplane *d, struct seg *s);
/* The list of tier i and of all that follows; caller owns one reference. */
struct seg *seg_build(struct dataplane *d, const struct calc_chain *c, size_t i,
                      enum list_mode mode);
void seg_unref(struct dataplane *d, struct seg *s);
/* Lets go of what chains without users hold, so that all that must go is marked so. Before writing.
 */
void lists_cascade(struct dataplane *d);
/* Frees what is gone, after it left the kernel (or the kernel is to be read again). */
void lists_sweep(struct dataplane *d);
void lists_fini(struct dataplane *d);

/* ---- endpoints.c ---- */
void dep_update(struct dataplane *d, const struct calc_endpoint *e);
void dep_remove(struct dataplane *d, uint32_t id);
void dep_dirty(struct dataplane *d, struct dep *x);
/* Builds the lists of endpoints that need it. Before writing. */
void deps_rebuild(struct dataplane *d);
void deps_fini(struct dataplane *d);
/* ---- nat.c ---- */
/* The settings may have changed what is wanted. */
void nat_settings(struct dataplane *d);
bool nat_is_wanted(const struct dataplane *d);
void nat_free(struct dataplane *d);
void nat_render_dnat(struct chain_out *o);
void nat_render_snat(struct chain_out *o);
/* ---- hosts.c ---- */
/* Which host endpoint an interface belongs to. */
void hosts_assign(struct dataplane *d);

/* ---- render.c, base_rules.c, host_rules.c: rules ---- */
/* One chain being written. */
struct chain_out {
    struct dataplane *d;
    struct nft_batch *b;
    struct str chain;
    uint64_t hash;
};
struct nft_batch *chain_rule(struct chain_out *o);
void chain_rule_end(struct chain_out *o, const char *comment);
/* The last expressions of a rule that denies; name: of the rule, for the log. */
void put_deny(struct dataplane *d, enum list_mode mode, struct str name);
void accept_established(struct chain_out *o);
void match_iface(struct nft_batch *b, uint32_t key, struct str prefix);
void match_ct_state(struct nft_batch *b, uint32_t bits);
enum { CT_INVALID = 1, CT_ESTABLISHED = 2, CT_RELATED = 4, CT_UNTRACKED = 64 };
void render_host(struct chain_out *o, enum base_chain c);

/* ---- tunnel_rules.c ---- */
bool tunnel_is_wanted(const struct dataplane *d);
void drop_pods_tunnels(struct chain_out *o);
void accept_tunnels(struct chain_out *o, bool is_in);
void render_tunnel_in(struct chain_out *o);

/* Appends all rules of a chain to the batch; returns their combined hash. */
uint64_t render_variant(struct dataplane *d, const struct variant *v);
uint64_t render_seg(struct dataplane *d, const struct seg *s);
uint64_t render_base(struct dataplane *d, enum base_chain c);
/* False: a plain chain. */
bool base_hook(const struct dataplane *d, enum base_chain c, struct nft_hook *out);
const char *base_name(enum base_chain c);
/* The map that the base chain asks, or NULL: the chain is always there. */
struct hops *base_hops(struct dataplane *d, enum base_chain c);
bool base_is_wanted(struct dataplane *d, enum base_chain c);

/* ---- resync.c ---- */
/* Takes the kernel's state as it is now; marks all that differs as dirty. */
MG_NODISCARD int dataplane_resync(struct dataplane *d, uint32_t *genid, struct err *e);
