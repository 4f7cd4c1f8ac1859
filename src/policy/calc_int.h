/* The calculation's own state, shared by its files. Not for other modules. */
#pragma once

#include "base/keytext.h"
#include "base/vec.h"
#include "model/k8s.h"
#include "policy/calc.h"
#include "policy/labels.h"
#include "policy/members.h"

#define LABEL_NAMESPACE "projectcalico.org/namespace"
#define LABEL_ORCHESTRATOR "projectcalico.org/orchestrator"
#define LABEL_SERVICE_ACCOUNT "projectcalico.org/serviceaccount"

/* ---- sets ---- */

/* By the member's id; the set has one reference to it. */
struct member_count {
    uint32_t refs : 30;  /* items that contribute it */
    uint32_t is_out : 1; /* the sink has it */
    uint32_t is_touched : 1;
};
#define MAP_NAME count_map
#define MAP_KEY uint32_t
#define MAP_VAL struct member_count
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct cservice;

struct cset {
    uint32_t id;
    enum calc_set_type type;
    char *uid, *text;
    struct lsel *lsel;        /* NULL: of a service */
    struct cservice *service; /* of service sets */
    uint32_t port_name;       /* of named ports: a pair's id */
    uint8_t protocol;         /* of named ports; 0 = any */
    unsigned refs;
    bool is_out, is_dirty;
    uint64_t mark; /* for comparing lists of sets */
    struct count_map members;
    VEC(uint32_t) touched;
};

/* ---- rules of a policy or profile in one direction ---- */

struct written; /* the rules as written, packed */

/* What the sink has. In one block. */
struct compiled {
    struct calc_policy out;
    struct arena a;     /* holds this, too */
    struct cset **sets; /* one reference each */
    size_t n_sets;
};

struct ruleset {
    uint32_t id;
    enum calc_dir dir;
    bool is_out;                   /* the sink has it */
    bool is_stale;                 /* the sink's is not what the rules say now */
    const struct written *written; /* the owner's */
    struct compiled *compiled;     /* NULL: not needed */
};

struct item;

struct cpol {
    const struct kind *kind;
    struct str key; /* "KIND/ns/name", the map's; ns and name are parts of it */
    struct str kind_text, tier, ns, name;
    bool has_order;
    double order;
    unsigned types;
    bool is_staged; /* no part in any decision */
    bool is_untracked, is_pre_dnat, is_on_forward;
    char *replaces;    /* of staged: key of the enforced policy that it stands for */
    struct lsel *lsel; /* in the index of local endpoints */
    struct written *written[2];
    struct ruleset dirs[2];
    VEC(struct local *) matched;
    bool is_dirty, is_gone;
};

/* What a profile is made of: a Profile resource, or a Namespace or ServiceAccount. */
enum prof_source { PROF_BUILTIN, PROF_RESOURCE, PROF_K8S, N_PROF_SOURCES };
struct prof_def {
    bool exists;
    uint32_t *pairs; /* labels, referenced, sorted by key */
    size_t n_pairs;
    struct written *written[2];
};

struct cprof {
    char *name;
    struct prof_def defs[N_PROF_SOURCES];
    VEC(struct traits *) traits; /* that name it; once per mention */
    unsigned n_local;            /* local endpoints with such traits */
    struct ruleset dirs[2];
    bool is_dirty;
};

struct ctier {
    bool has_order, default_pass;
    double order;
};

/* ---- items: endpoints and network sets ---- */

/* A named port; name: a pair's id, its key is empty. */
struct port_trait {
    uint32_t name;
    uint16_t port;
    uint8_t protocol;
};

/* What items have in common: labels, profiles, named ports. The pods of a Deployment share one. In
 * one block with its lists: profiles, ports, own labels (pairs, referenced, sorted by id). */
struct traits {
    struct item *items; /* list */
    uint32_t lid;       /* in the index of all, by own labels and those of the profiles */
    uint32_t refs;
    uint32_t n_profs, n_ports, n_own;
    struct cprof *profs[];
};

/* Ids of members, referenced: of most items there is one. */
struct netids {
    uint32_t n;
    union {
        uint32_t one;
        uint32_t *many;
    };
};

struct item {
    struct traits *traits;
    struct item *prev, *next; /* of the same traits */
    struct local *local;      /* NULL: not a local endpoint */
    struct netids nets;
};

/* What more there is of a local endpoint. */
struct local {
    struct item *item;
    uint32_t id;
    uint32_t lid; /* in the index of local endpoints */
    bool is_host, is_out, is_dirty;
    struct arena a; /* the following as given */
    struct str iface, ns, name;
    struct prefix *nets;
    size_t n_nets;
    struct prefix *spoof_ok;
    size_t n_spoof_ok;
    struct calc_nat *nats;
    size_t n_nats;
    uint8_t mac[6];
    VEC(struct cpol *) pols; /* that select it */
    uint64_t out_hash;
};

struct epsrc;

/* A WorkloadEndpoint. */
struct wep {
    struct wep *next; /* of the same source */
    struct epsrc *src;
    struct traits *traits; /* by its own word */
    struct item *item;     /* NULL: the Pod speaks for it */
    struct netids nets;
    bool is_here;           /* of this node */
    struct wep_local *here; /* with an interface on this node; else NULL */
    struct keytext name;    /* of the resource, with its namespace */
};

/* What is known of one pod: the Pod object and its WorkloadEndpoints. */
struct epsrc {
    struct traits *pod; /* NULL: no Pod object */
    struct netids pod_nets;
    struct item *pod_item; /* of a pod that has no WorkloadEndpoint here */
    struct wep *weps;
    bool is_elsewhere, is_host_network, is_finished; /* the Pod */
    struct keytext key; /* "NAMESPACE/POD", or "wep:NAMESPACE/NAME" without a pod's name */
};

struct slice {
    struct str name;
    struct arena a;
    struct calc_member *members;
    size_t n;
};
struct cservice {
    char *key; /* "ns/name" */
    VEC(struct slice *) slices;
    struct cset *sets[2]; /* addresses only, with ports */
};

#define MAP_NAME map_set
#define MAP_KEY struct str
#define MAP_VAL struct cset *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME map_pol
#define MAP_KEY struct str
#define MAP_VAL struct cpol *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME map_replaced
#define MAP_KEY struct str
#define MAP_VAL bool
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME map_prof
#define MAP_KEY struct str
#define MAP_VAL struct cprof *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME map_tier
#define MAP_KEY struct str
#define MAP_VAL struct ctier
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME map_src
#define MAP_KEY const struct keytext *
#define MAP_VAL struct epsrc *
#define MAP_HASH(k) KEYTEXT_HASH(k)
#define MAP_EQ(a, b) KEYTEXT_EQ(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME map_wep
#define MAP_KEY const struct keytext *
#define MAP_VAL struct wep *
#define MAP_HASH(k) KEYTEXT_HASH(k)
#define MAP_EQ(a, b) KEYTEXT_EQ(a, b)
#include "base/map.tmpl.h"
uint64_t traits_hash(const struct traits *t);
bool traits_eq(const struct traits *a, const struct traits *b);
#define MAP_NAME map_traits
#define MAP_KEY const struct traits *
#define MAP_VAL struct traits *
#define MAP_HASH(k) traits_hash(k)
#define MAP_EQ(a, b) traits_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME map_item
#define MAP_KEY struct str
#define MAP_VAL struct item *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME map_str
#define MAP_KEY struct str
#define MAP_VAL char *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME map_service
#define MAP_KEY struct str
#define MAP_VAL struct cservice *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct calc {
    char *node;
    struct calc_ops ops;
    void *arg;
    struct ltab *labels;
    struct mtab *members;
    struct lidx *all, *local;
    struct map_set sets;
    struct map_pol policies;
    struct map_replaced replaced; /* keys of policies that a staged one stands for */
    struct map_prof profiles;
    struct map_tier tiers;
    struct map_traits traits;
    struct map_src sources;  /* "ns/pod", or "wep:NAME" for endpoints without a pod */
    struct map_wep weps;     /* by the resource's key */
    struct map_item netsets; /* network sets and host endpoints by resource key */
    struct map_service services;
    struct map_str slice_owner; /* slice "ns/name" → service key */
    uint32_t next_id;
    VEC(struct cset *) dirty_sets;
    VEC(struct cpol *) dirty_policies;
    VEC(struct cprof *) dirty_profiles;
    VEC(struct local *) dirty_endpoints;
    VEC(uint32_t) gone_endpoints; /* ids that the sink has */
    VEC(uint32_t) gone_rulesets;
    VEC(uint32_t) pairs_scratch;
    struct traits *traits_scratch;
    size_t traits_scratch_bytes;
    uint64_t mark; /* the last that sets were marked with */
    size_t n_items, n_local;
};

/* ---- sets.c ---- */
/* A reference to the set of what a selector matches. sel_text: canonical. */
struct cset *cset_of_selector(struct calc *c, struct str sel_text);
/* … of the named ports of what a selector matches. */
struct cset *cset_of_port(struct calc *c, struct str sel_text, struct str port, uint8_t protocol);
struct cset *cset_of_service(struct calc *c, struct str ns, struct str name, bool with_ports);
void cset_unref(struct calc *c, struct cset *s);
/* The item's part in a set, added or taken away. */
void cset_item(struct calc *c, struct cset *s, const struct item *it, bool add);
void cset_member(struct calc *c, struct cset *s, const struct calc_member *m, bool add);
void csets_emit(struct calc *c);
void csets_emit_gone(struct calc *c);
void csets_replay(const struct calc *c, const struct calc_ops *ops, void *arg);
void cset_free(struct calc *c, struct cset *s);

/* ---- compile.c ---- */
/* Compiles the rules; takes references to sets. head: whose they are; its ns goes for selectors,
 * its texts must live as long as the owner. problem: filled with the first thing that can't be
 * enforced as written (left alone otherwise). */
void ruleset_compile(struct calc *c, struct ruleset *s, const struct calc_policy *head,
                     struct err *problem);
void ruleset_release(struct calc *c, struct ruleset *s);
/* Appends text in parentheses, after " && " if there is something already. */
void selector_and(struct buf *b, struct str text);
/* "pcns." and the like; all() and global() rewritten as in a rule's namespaceSelector when
 * existence is given. */
MG_NODISCARD int selector_prefixed(struct str text, const char *prefix, const char *existence,
                                   struct arena *a, struct buf *out, struct err *e);

/* ---- written.c ---- */
/* Caller owns; NULL if there are none. To be freed by free(). numbers_them: they are the policy's
 * own and in order; else each says which it is of. */
struct written *rules_pack(const struct rule *r, size_t n, bool numbers_them);
size_t rules_count(const struct written *w);
/* In the arena; texts are views of w. */
struct rule *rules_unpack(const struct written *w, struct arena *a);

/* ---- k8s.c ---- */
/* Selector text of a Kubernetes label selector; an empty one gives "". */
MG_NODISCARD int k8s_selector(const struct label_selector *s, struct buf *out, struct err *e);
/* The policy's rules as Calico's; caller owns. problem as in ruleset_compile. */
struct written *k8s_rules(const struct k8s_network_policy *p, enum calc_dir dir,
                          struct err *problem);

/* ---- admin.c ---- */
struct admin_policy;
/* Selector text of the pods that the policy is for. */
MG_NODISCARD int admin_subject(const struct admin_policy *p, struct arena *a, struct buf *out,
                               struct err *e);
/* Its rules as Calico's; caller owns. problem as in ruleset_compile. */
struct written *admin_rules(const struct admin_policy *p, enum calc_dir dir, struct err *problem);

/* ---- policies.c ---- */
void policy_object(struct calc *c, const struct kind *k, struct str ns, struct str name,
                   const struct object *o);
void tier_object(struct calc *c, struct str name, const struct object *o);
/* Compile takes references to sets; emit tells the sink, after the sets. */
void policies_compile(struct calc *c);
void policies_emit(struct calc *c);
void policy_dirty(struct calc *c, struct cpol *p);
void policies_fini(struct calc *c);
/* Order of evaluation: tier, order, name. */
/* Does it count, with staged policies enforced or as it is? */
bool policy_takes_part(const struct calc *c, const struct cpol *p, bool with_staged);
int policy_cmp(const struct calc *c, const struct cpol *a, const struct cpol *b);
struct ctier tier_of(const struct calc *c, struct str name, bool *exists);

/* ---- profiles.c ---- */
struct cprof *profile_get(struct calc *c, struct str name);
void profile_join(struct calc *c, struct cprof *p, struct traits *t, bool join);
void profile_local(struct calc *c, struct cprof *p, bool add);
void profile_object(struct calc *c, const struct kind *k, struct str ns, struct str name,
                    const struct object *o);
const struct prof_def *profile_def(const struct cprof *p);
void profiles_compile(struct calc *c);
void profiles_emit(struct calc *c);
void profiles_fini(struct calc *c);

/* ---- traits.c ---- */
struct traits_in {
    const struct str_map *labels;
    struct str ns, orchestrator, service_account; /* labels of Calico's own; p NULL = not set */
    const struct str *profiles;
    size_t n_profiles;
    const struct endpoint_port *ports;
    size_t n_ports;
};
/* One more reference. */
struct traits *traits_get(struct calc *c, const struct traits_in *in);
struct traits *traits_ref(struct traits *t);
void traits_unref(struct calc *c, struct traits *t); /* accepts NULL */
const struct port_trait *traits_ports(const struct traits *t);
/* Its profiles' labels changed. */
void traits_relabel(struct calc *c, struct traits *t);
/* The item's part in all sets of its traits. */
void item_in_sets(struct calc *c, const struct item *it, bool add);

/* ---- items.c ---- */
struct item_in {
    struct traits *traits;
    const struct prefix *nets;
    size_t n_nets;
    bool is_local, is_host; /* a local endpoint; a host's */
    struct str iface, pod_ns, pod_name;
    const struct prefix *spoof_ok;
    size_t n_spoof_ok;
    const struct calc_nat *nats;
    size_t n_nats;
    uint8_t mac[6];
};
void netids_set(struct calc *c, struct netids *ids, const struct prefix *p, size_t n);
static inline const uint32_t *netids_p(const struct netids *ids) {
    return ids->n > 1 ? ids->many : &ids->one;
}
/* In the arena. */
struct prefix *netids_prefixes(const struct calc *c, const struct netids *ids, struct arena *a);
/* Makes (*slot NULL) or changes an item. */
void item_set(struct calc *c, struct item **slot, const struct item_in *in);
void item_free(struct calc *c, struct item *it);
void local_relabel(struct calc *c, struct local *l);
void endpoint_dirty(struct calc *c, struct local *l);
void endpoints_emit(struct calc *c);
void endpoints_replay(const struct calc *c, const struct calc_ops *ops, void *arg);

/* ---- sources.c: pods, workload endpoints, network sets, services ---- */
void pod_object(struct calc *c, struct str ns, struct str name, const struct object *o);
void wep_object(struct calc *c, struct str ns, struct str name, const struct object *o);
void netset_object(struct calc *c, const struct kind *k, struct str ns, struct str name,
                   const struct object *o);
void slice_object(struct calc *c, struct str ns, struct str name, const struct object *o);
struct cservice *service_get(struct calc *c, struct str key);
void sources_fini(struct calc *c);

/* Reports or withdraws a problem. */
void calc_problem(struct calc *c, const struct kind *k, struct str ns, struct str name,
                  struct str reason);
