/* What Kubernetes' objects become in Calico's store: object in, what should be there out. Nothing
 * here asks or writes anything. Sources: libcalico-go/lib/backend/k8s/conversion and
 * kube-controllers/pkg/{converter,controllers/node}. All results live in the arena; members come in
 * the order in which Calico's own programs write them. */
#pragma once

#include "base/ip.h"
#include "model/model.h"

#define CONVERT_POLICY_PREFIX "knp.default."
#define CONVERT_NAMESPACE_PREFIX "kns."
#define CONVERT_ACCOUNT_PREFIX "ksa."
#define CONVERT_CREATED_BY "projectcalico.org/created-by"
#define CONVERT_CONTROLLERS "calico-kube-controllers"
#define CONVERT_KUBE_LABELS "projectcalico.org/kube-labels"

/* spec of the NetworkPolicy knp.default.NAME. A rule or peer that can't be converted is left out,
 * so that it allows nothing; problem->code then says why (of the first). NULL: not even whom the
 * policy is for can be said. */
struct jnode *convert_policy(struct jnode *policy, struct arena *a, struct err *problem);
/* spec of the Profile kns.NAME, ksa.NAMESPACE.NAME. */
struct jnode *convert_namespace(const struct jnode *ns, struct arena *a);
struct jnode *convert_account(const struct jnode *account, struct arena *a);

/* Puts a pod's labels and service account into its WorkloadEndpoint. True: something changed. */
bool convert_endpoint(struct jnode *wep, const struct jnode *pod, struct arena *a);
/* "NODE-k8s-POD-": how the names of a pod's WorkloadEndpoints begin. */
struct str convert_endpoint_prefix(struct str node, struct str pod, struct arena *a);

/* Puts a Kubernetes Node's labels into Calico's Node, takes away those that came from there and are
 * gone, and keeps those that somebody else gave it. True: something changed. */
bool convert_node_labels(struct jnode *node, const struct jnode *k8s_node, struct arena *a);
/* Name of the Kubernetes node that a Calico Node stands for; STR_NULL: none, it is another
 * orchestrator's. */
struct str convert_k8s_node_name(const struct jnode *node);

/* The same value; NULL is the same as NULL alone. */
static inline bool convert_same(const struct jnode *a, const struct jnode *b) {
    return a && b ? jnode_eq(a, b) : a == b;
}
/* Where a Calico Node's document tells of addresses of its own: paths; ends with NULL. */
extern const char *const convert_node_ips[];

/* Hash of a tree's meaning: the order of map members doesn't count. */
uint64_t convert_hash(const struct jnode *n);

/* ---- automatic host endpoints ---- */

struct hep_wanted {
    struct str name;
    struct jnode *labels, *annotations, *spec; /* annotations may be NULL */
};
typedef struct {
    struct hep_wanted *p;
    size_t n;
} hep_list;

/* The name of a node's host endpoint for all interfaces. */
struct str convert_hep_name(struct str node, struct arena *a);
/* Labels of a host endpoint: the node's, and who made it. */
struct jnode *convert_hep_labels(const struct jnode *node, struct arena *a);
/* spec of the one for all interfaces. */
struct jnode *convert_hep_spec(struct str node, struct str interface, const struct str *ips,
                               size_t n_ips, struct arena *a);
/* All that a Calico Node should have by spec.controllers.node.hostEndpoint. */
hep_list convert_heps(const struct jnode *node, const struct jnode *config, struct arena *a);
/* Was it made by a controller? */
bool convert_is_auto_hep(const struct jnode *hep);
