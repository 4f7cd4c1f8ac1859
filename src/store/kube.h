/* What the agent writes at the Kubernetes API beside items of the store: what Calico's node notes
 * at its own Node. All of it blocks: for workers and starting up.
 *
 * The URL is kubernetes:[KUBECONFIG][?context=NAME&node=NAME]. node is the agent's own: follow then
 * tells a WorkloadEndpoint for each Pod of that node. */
#pragma once

#include "base/jtree.h"
#include "store/store.h"

/* Annotations at a core Node that Calico's Node is read from (calico/node writes them). */
#define KUBE_NODE_IPV4 "projectcalico.org/IPv4Address"
#define KUBE_NODE_IPV6 "projectcalico.org/IPv6Address"
#define KUBE_NODE_IPIP "projectcalico.org/IPv4IPIPTunnelAddr"
#define KUBE_NODE_ASN "projectcalico.org/ASNumber"
#define KUBE_NODE_RR_CLUSTER "projectcalico.org/RouteReflectorClusterID"
#define KUBE_NODE_VXLAN4 "projectcalico.org/IPv4VXLANTunnelAddr"
#define KUBE_NODE_VXLAN6 "projectcalico.org/IPv6VXLANTunnelAddr"
#define KUBE_NODE_VXLAN_MAC "projectcalico.org/VXLANTunnelMACAddr"
#define KUBE_NODE_VXLAN_MAC6 "projectcalico.org/VXLANTunnelMACAddrV6"
#define KUBE_NODE_WG4 "projectcalico.org/IPv4WireguardInterfaceAddr"
#define KUBE_NODE_WG6 "projectcalico.org/IPv6WireguardInterfaceAddr"
#define KUBE_NODE_WG_KEY "projectcalico.org/WireguardPublicKey"
#define KUBE_NODE_WG_KEY6 "projectcalico.org/WireguardPublicKeyV6"

/* Annotations at a Pod, written by the CNI plugin. */
#define KUBE_POD_IP "cni.projectcalico.org/podIP"
#define KUBE_POD_IPS "cni.projectcalico.org/podIPs"
#define KUBE_POD_CONTAINER "cni.projectcalico.org/containerID"

/* Whether s is a store of this driver. */
bool kube_is(const struct store *s);

struct kube_note {
    const char *annotation;
    struct str value; /* p NULL: taken away */
};
/* Sets annotations of a Node, all or none; those not named stay. One patch of nodes/NAME/status.
 * ERR_NOT_FOUND: no such Node. ERR_DENIED names the right that is missing. */
MG_NODISCARD int kube_node_annotate(struct store *s, struct str node, const struct kube_note *notes,
                                    size_t n, struct err *e);
/* Node condition NetworkUnavailable: status False with reason CalicoIsUp ("Calico is running on
 * this node"), or True with CalicoIsDown ("Calico is shutting down on this node"): schedulers hold
 * back pods while it is True. */
MG_NODISCARD int kube_node_network(struct store *s, struct str node, bool is_up, struct err *e);
/* data[key] of a ConfigMap. ERR_NOT_FOUND: no such map or key; ERR_DENIED: no right to read it. */
MG_NODISCARD int kube_config_map(struct store *s, const char *ns, const char *name, const char *key,
                                 struct arena *a, struct str *out, struct err *e);

/* A kind of namespaced objects that are no items of the store: read when they are needed. */
struct kube_resource {
    const char *group, *version, *plural, *kind;
};
/* One object, or with name STR_NULL the list of a namespace's. ERR_NOT_FOUND: no such object, or no
 * such kind (*unknown_kind, may be NULL); ERR_DENIED: no right to read it. */
MG_NODISCARD int kube_resource_get(struct store *s, const struct kube_resource *k, struct str ns,
                                   struct str name, struct arena *a, struct jnode **out,
                                   bool *unknown_kind, struct err *e);

/* A token of a service account (TokenRequest), and what else a kubeconfig needs: the server as we
 * reach it. */
struct kube_account {
    struct str server, ca_pem; /* ca_pem STR_NULL: the system's authorities */
    bool is_insecure;          /* whoever answers is trusted */
    struct str token;
    int64_t expires_s; /* wall clock */
};
/* ERR_NOT_FOUND: no such account, or an API server without this; ERR_DENIED names the right that is
 * missing. */
MG_NODISCARD int kube_account_token(struct store *s, struct str ns, struct str account,
                                    unsigned seconds, struct arena *a, struct kube_account *out,
                                    struct err *e);
/* The namespace of the service account that we run as; STR_NULL: none is known. */
struct str kube_own_namespace(const struct store *s);
