/* What of Kubernetes stands for which of our items, as pure functions over trees. A view is a
 * prefix of our keys over one REST resource: CRDs that hold Calico's resources with their metadata
 * mangled (crd.projectcalico.org/v1), Calico's Node, WorkloadEndpoint and Profile as readings of
 * core objects, IPAM's items as CRDs, and Kubernetes' own kinds as they are.
 * Source: Calico's libcalico-go/lib/backend/k8s (resources, conversion). */
#pragma once

#include "model/model.h"
#include "store/store.h"

/* Where objects are found at the API server. */
struct kube_rest {
    const char *group, *version, *plural, *kind;
    const char *old_version; /* tried when version is not served (404); NULL: none */
    bool is_namespaced;
    bool is_optional; /* a CRD of others: not there is as good as empty */
};

enum kube_shape {
    KUBE_PLAIN,   /* the object as it is */
    KUBE_CRD,     /* metadata in an annotation */
    KUBE_NODE,    /* Calico's Node in a core Node's annotations */
    KUBE_POD_WEP, /* Calico's WorkloadEndpoint of a Pod */
    KUBE_NS_PROFILE,
    KUBE_SA_PROFILE,
    KUBE_IPAM_BLOCK,
    KUBE_IPAM_AFFINITY,
    KUBE_IPAM_HANDLE,
    KUBE_IPAM_CONFIG,
};

struct kube_view {
    const char *prefix; /* of our keys; a scope of follow */
    const char *space;
    enum kube_shape shape;
    enum kind_id kind; /* of the resource; IPAM: K_N_KINDS */
    const struct kube_rest *rest;
    bool is_sorted;   /* the server's order is the order of our keys */
    bool is_followed; /* one of those that follow() lists and watches */
};

extern const struct kube_view kube_views[];
extern const size_t kube_n_views;

/* An object's place: its path is /api/v1/… or /apis/GROUP/VERSION/…[/namespaces/NS]/PLURAL/NAME. */
struct kube_at {
    const struct kube_view *view;
    struct str ns, name; /* of the object at the server */
};

/* The place of one key. ERR_INVALID: the key is none of ours. Of a Profile kns.… and ksa.… lead to
 * the Namespace and ServiceAccount; other names: ERR_NOT_FOUND. */
MG_NODISCARD int kube_locate(struct store_key k, struct arena *a, struct kube_at *out,
                             struct err *e);
/* The views that a prefix of keys covers, at most KUBE_VIEWS_MAX, and what of it can be left to the
 * server: a namespace, a name's begin is not. */
enum { KUBE_VIEWS_MAX = 64 };
size_t kube_views_of(struct store_key prefix, const struct kube_view *out[KUBE_VIEWS_MAX],
                     struct str *ns_out);
/* Path of a collection (name STR_NULL) or an object, escaped; sub: "status" or NULL. use_old: with
 * rest's old_version. */
struct str kube_path(const struct kube_rest *r, bool use_old, struct str ns, struct str name,
                     const char *sub, struct arena *a);
/* Bytes that can't stand in a path or query as %XX. Appended. */
void kube_escape(struct buf *b, struct str s);

/* ---- reading: what an object is for us ---- */
struct kube_item {
    struct str key;
    struct jnode *value; /* NULL: no item (a pod that is no endpoint, a soft-deleted block) */
    bool is_deleting;    /* soft-deleted: its delete has to be finished */
};
/* Changes obj. ERR_CORRUPT names the object and the field. The key is set even when value is NULL
 * where the object has a name. */
MG_NODISCARD int kube_read(const struct kube_view *v, struct jnode *obj, struct arena *a,
                           struct kube_item *out, struct err *e);
/* A Calico's Profile that is there without anybody writing it. */
#define KUBE_DEFAULT_ALLOW "projectcalico-default-allow"
struct jnode *kube_default_allow(struct arena *a);

/* ---- writing ---- */
/* The object that holds an item (shapes CRD, PLAIN, IPAM_*); without resourceVersion and uid. */
MG_NODISCARD int kube_write(const struct kube_at *at, struct store_key k, const struct jnode *value,
                            struct arena *a, struct jnode **out, struct err *e);
/* Turns a written object into rest's old_version. */
void kube_to_old(const struct kube_rest *r, struct jnode *obj, struct arena *a);
/* Merge patch of the core Node that holds Calico's node `value`: annotations to set, null for those
 * to drop. */
MG_NODISCARD int kube_write_node(const struct jnode *value, struct arena *a, struct jnode **patch,
                                 struct err *e);
/* Merge patch of a pod for an endpoint; value NULL: the endpoint is gone. */
struct jnode *kube_write_wep(const struct jnode *value, struct arena *a);

/* ---- parts, for tests ---- */
/* Kubernetes' UIDs of v1 and v3 differ by the bits of each byte reversed, version and variant
 * excepted; its own inverse. STR_NULL when uid is no UUID. */
struct str kube_uid_flip(struct str uid, struct arena *a);
struct str kube_cidr_name(struct str cidr, struct arena *a);
struct str kube_affinity_name(struct str host, struct str cidr_name, struct arena *a);
struct str kube_host_hash(struct str host, struct arena *a);
struct str kube_wep_name(struct str node, struct str pod, struct arena *a);
/* Node and pod of "NODE-k8s-POD-eth0"; ERR_INVALID. */
MG_NODISCARD int kube_wep_parse(struct str name, struct arena *a, struct str *node,
                                struct str *pod);

/* Takes out of a Kubernetes object what no consumer of follow uses (managed fields, specs of
 * containers, conditions …). */
void kube_slim(const struct kube_rest *r, struct jnode *obj, struct arena *a);
/* managedFields and kubectl's last-applied annotation: nobody's content. */
void kube_strip(struct jnode *obj);

/* Number of metadata.resourceVersion; 0: none. */
uint64_t kube_revision(const struct jnode *obj);
