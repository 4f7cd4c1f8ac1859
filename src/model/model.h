/* Resources: every kind is one declarative schema table (src/model/kinds_*.c); one engine reads,
 * defaults, validates, decodes to a C struct, prints and compares.
 *
 * A document stays a tree (base/jtree.h) all its life: what the store holds is the JSON text of the
 * tree, so a round trip keeps everything that a user wrote. The typed struct is a view for the
 * engine, decoded from the tree into the same arena. */
#pragma once

#include "base/arena.h"
#include "base/jtree.h"

/* ---- values in decoded structs ---- */
struct opt_int {
    bool set;
    int64_t v;
};
struct opt_bool {
    bool set, v;
};
struct opt_float {
    bool set;
    double v;
};
/* A list of T; set tells an empty list from an absent one. */
#define LIST(T)   \
    struct {      \
        T *p;     \
        size_t n; \
        bool set; \
    }
struct str_list {
    struct str *p;
    size_t n;
    bool set;
};
struct str_pair {
    struct str key, value;
};
/* A map of string to string, sorted by key (layout equal to policy's struct label). */
struct str_map {
    struct str_pair *p;
    size_t n;
    bool set;
};
/* A number or a text (Kubernetes' IntOrString; protocols). */
struct int_or_str {
    bool set, is_int;
    int64_t i;
    struct str s; /* text when !is_int */
};

struct meta {
    struct str name, ns, uid, resource_version, creation_timestamp, deletion_timestamp,
        generate_name;
    int64_t generation;
    struct str_map labels, annotations;
};

struct kind;

struct object {
    const struct kind *kind;
    struct jnode *doc; /* defaults are filled in here too after object_default */
    struct meta meta;
    void *spec; /* the kind's struct (model/policy.h, pool.h, k8s.h, …); kinds without a decoded
                   struct: NULL */
};

/* ---- kinds ---- */
enum kind_id {
    /* Kubernetes */
    K_NAMESPACE,
    K_POD,
    K_SERVICE_ACCOUNT,
    K_SERVICE,
    K_NODE_K8S, /* v1 Node */
    K_SECRET,
    K_LEASE,
    K_ENDPOINT_SLICE,
    K_K8S_NETWORK_POLICY,
    K_CLUSTER_NETWORK_POLICY,
    K_ADMIN_NETWORK_POLICY,
    K_BASELINE_ADMIN_NETWORK_POLICY,
    /* projectcalico.org/v3 */
    K_BGP_CONFIGURATION,
    K_BGP_FILTER,
    K_BGP_PEER,
    K_BLOCK_AFFINITY,
    K_CALICO_NODE_STATUS,
    K_CLUSTER_INFORMATION,
    K_FELIX_CONFIGURATION,
    K_GLOBAL_NETWORK_POLICY,
    K_GLOBAL_NETWORK_SET,
    K_HOST_ENDPOINT,
    K_IPAM_CONFIGURATION,
    K_IP_POOL,
    K_IP_RESERVATION,
    K_KUBE_CONTROLLERS_CONFIGURATION,
    K_NETWORK_POLICY,
    K_NETWORK_SET,
    K_NODE, /* projectcalico.org/v3 Node */
    K_PROFILE,
    K_STAGED_GLOBAL_NETWORK_POLICY,
    K_STAGED_KUBERNETES_NETWORK_POLICY,
    K_STAGED_NETWORK_POLICY,
    K_TIER,
    K_WORKLOAD_ENDPOINT,
    K_N_KINDS,
};

struct kind {
    enum kind_id id;
    const char *group;   /* "projectcalico.org", "networking.k8s.io", "" for v1 */
    const char *version; /* "v3" */
    const char *kind;    /* "NetworkPolicy" */
    const char *singular, *plural;
    const char *const
        *aliases; /* NULL-terminated, lower case, as calicoctl and kubectl take them */
    bool is_namespaced;
    bool is_open;               /* Kubernetes' own: unknown fields are kept, never an error */
    const struct kind_def *def; /* schema and columns: the engine's own */
};

extern const struct kind model_kinds[K_N_KINDS];

/* By apiVersion and kind as written in a document. NULL if unknown. */
const struct kind *kind_by_type(struct str api_version, struct str kind);
/* By what a user types: singular, plural, alias, "plural.group", any case. Bare names of kinds that
 * two groups have (networkpolicy, node): the Calico one when prefer_calico, else Kubernetes'. */
const struct kind *kind_by_word(struct str word, bool prefer_calico);
/* "NetworkPolicy.networking.k8s.io" (v1 kinds: "Pod"): first part of a store key. */
const char *kind_store_name(const struct kind *k);
const struct kind *kind_by_store_name(struct str s);
/* Store key "STORE_NAME/NAMESPACE/NAME" in the arena, and back (views into key). */
struct str kind_store_key(const struct kind *k, struct str ns, struct str name, struct arena *a);
MG_NODISCARD int kind_split_key(struct str key, const struct kind **k, struct str *ns,
                                struct str *name);
/* "networkpolicy.networking.k8s.io/web": how apply names an object. Appended. */
void kind_print_ref(const struct kind *k, struct str name, struct buf *b);

/* ---- errors of a document: all of them, not just the first ---- */
struct model_error {
    uint32_t line, col;
    struct str path;    /* "spec.ingress[2].ports[0]" */
    struct str message; /* found …, allowed …, repair */
};
struct model_errors {
    struct arena *a; /* the caller's; texts live there */
    struct model_error *p;
    size_t n, cap; /* at most MODEL_MAX_ERRORS are kept, n_dropped counts the rest */
    size_t n_dropped;
};
enum { MODEL_MAX_ERRORS = 64 };

enum model_mode {
    MODEL_APPLY, /* from a user: unknown fields of Calico kinds are errors, all rules checked */
    MODEL_STORE, /* from a datastore: unknown fields ignored, bad values reported, the rest decoded
                  */
};

/* Checks a selector's text: policy/ is to the right of model/, so the program hands it in at start.
 * NULL (tests of model alone): selectors are not checked. Returns 0 or negative with e filled. */
typedef int (*model_selector_check)(struct str text, struct err *e);
void model_set_selector_check(model_selector_check check);

/* Reads apiVersion, kind, metadata of doc; validates all of it against the kind's schema and the
 * rules across fields; fills defaults into doc (MODEL_APPLY: those that Calico's client fills in on
 * create and update, e.g. types, tier, the label projectcalico.org/tier); decodes out->spec. All in
 * arena a, on which doc lives too. default_ns is used when metadata.namespace is absent (NULL str:
 * "default"). Returns 0, or ERR_INVALID with errors listed in errs. With MODEL_STORE out is filled
 * as far as possible even then. */
MG_NODISCARD int object_read(struct jnode *doc, enum model_mode mode, struct str default_ns,
                             struct arena *a, struct object *out, struct model_errors *errs);
/* "FILE:LINE: KIND/NAME: PATH: MESSAGE" for one error. Appended. */
void model_error_print(struct buf *b, const char *file, const struct object *o,
                       const struct model_error *e);

/* Same content as far as a user can write it: metadata that the store sets (resourceVersion, uid,
 * creationTimestamp, generation, managedFields) and status left out. For "unchanged". */
bool object_same(const struct jnode *a, const struct jnode *b);

/* ---- printing ---- */
enum model_table { MODEL_TABLE, MODEL_WIDE };
/* Column heads of a kind and the cells of one object, as calicoctl/kubectl print them; cells are
 * appended as strings to the arena. Both return the number of columns (at most MODEL_MAX_COLUMNS).
 */
enum { MODEL_MAX_COLUMNS = 16 };
size_t kind_columns(const struct kind *k, enum model_table t, const char *heads[MODEL_MAX_COLUMNS]);
size_t object_cells(const struct kind *k, enum model_table t, const struct jnode *doc,
                    int64_t now_wall_ns, struct arena *a, struct str cells[MODEL_MAX_COLUMNS]);

/* Markdown reference of one kind from its table (docs/resources/KIND.md). Appended. */
void kind_print_docs(const struct kind *k, struct buf *b);

/* CustomResourceDefinitions (apiextensions.k8s.io/v1, group crd.projectcalico.org) of Calico's
 * kinds and IPAM's objects, from the kinds' tables. Name of the i-th ("ippools"), NULL behind the
 * last. */
const char *crd_plural(size_t i);
/* One as YAML, appended; false when there is none of that name. */
bool crd_print(struct str plural, struct buf *b);
/* Takes nulls and empty texts out of a spec where they stand for "not given", as Calico's client
 * does before it writes: some API servers refuse them. */
void kind_omit_empty(const struct kind *k, struct jnode *spec);
