/* Keys and places: the table of views, and which object a key is. What objects hold is in
 * kube_meta.c (CRDs), kube_core.c (Node, Pod, Profile) and kube_ipam.c. */
#include "store/kube_map.h"

#include "store/kube_shapes.h"

#include <string.h>

#define CORE(p, k, ns) \
    { .group = "", .version = "v1", .plural = p, .kind = k, .is_namespaced = ns }
#define CRD(p, k, ns) \
    { .group = KUBE_CRD_GROUP, .version = "v1", .plural = p, .kind = k, .is_namespaced = ns }
#define ADMIN(p, k, v)                                                             \
    {                                                                              \
        .group = "policy.networking.k8s.io", .version = v, .plural = p, .kind = k, \
        .is_optional = true                                                        \
    }

enum rest_id {
    R_NAMESPACES,
    R_PODS,
    R_SERVICE_ACCOUNTS,
    R_SERVICES,
    R_NODES,
    R_SECRETS,
    R_LEASES,
    R_SLICES,
    R_NETWORK_POLICIES,
    R_CNP,
    R_ANP,
    R_BANP,
    R_BGP_CONFIGURATIONS,
    R_BGP_FILTERS,
    R_BGP_PEERS,
    R_AFFINITIES,
    R_NODE_STATUSES,
    R_CLUSTER_INFORMATIONS,
    R_FELIX_CONFIGURATIONS,
    R_GLOBAL_NETWORK_POLICIES,
    R_GLOBAL_NETWORK_SETS,
    R_HOST_ENDPOINTS,
    R_IPAM_CONFIGS,
    R_IP_POOLS,
    R_IP_RESERVATIONS,
    R_CONTROLLERS_CONFIGURATIONS,
    R_CALICO_NETWORK_POLICIES,
    R_NETWORK_SETS,
    R_STAGED_GLOBAL,
    R_STAGED_K8S,
    R_STAGED,
    R_TIERS,
    R_BLOCKS,
    R_HANDLES,
};

static const struct kube_rest RESTS[] = {
    [R_NAMESPACES] = CORE("namespaces", "Namespace", false),
    [R_PODS] = CORE("pods", "Pod", true),
    [R_SERVICE_ACCOUNTS] = CORE("serviceaccounts", "ServiceAccount", true),
    [R_SERVICES] = CORE("services", "Service", true),
    [R_NODES] = CORE("nodes", "Node", false),
    [R_SECRETS] = CORE("secrets", "Secret", true),
    [R_LEASES] = {.group = "coordination.k8s.io",
                  .version = "v1",
                  .plural = "leases",
                  .kind = "Lease",
                  .is_namespaced = true},
    [R_SLICES] = {.group = "discovery.k8s.io",
                  .version = "v1",
                  .old_version = "v1beta1",
                  .plural = "endpointslices",
                  .kind = "EndpointSlice",
                  .is_namespaced = true},
    [R_NETWORK_POLICIES] = {.group = "networking.k8s.io",
                            .version = "v1",
                            .plural = "networkpolicies",
                            .kind = "NetworkPolicy",
                            .is_namespaced = true},
    [R_CNP] = ADMIN("clusternetworkpolicies", "ClusterNetworkPolicy", "v1alpha2"),
    [R_ANP] = ADMIN("adminnetworkpolicies", "AdminNetworkPolicy", "v1alpha1"),
    [R_BANP] = ADMIN("baselineadminnetworkpolicies", "BaselineAdminNetworkPolicy", "v1alpha1"),
    [R_BGP_CONFIGURATIONS] = CRD("bgpconfigurations", "BGPConfiguration", false),
    [R_BGP_FILTERS] = CRD("bgpfilters", "BGPFilter", false),
    [R_BGP_PEERS] = CRD("bgppeers", "BGPPeer", false),
    [R_AFFINITIES] = CRD("blockaffinities", "BlockAffinity", false),
    [R_NODE_STATUSES] = CRD("caliconodestatuses", "CalicoNodeStatus", false),
    [R_CLUSTER_INFORMATIONS] = CRD("clusterinformations", "ClusterInformation", false),
    [R_FELIX_CONFIGURATIONS] = CRD("felixconfigurations", "FelixConfiguration", false),
    [R_GLOBAL_NETWORK_POLICIES] = CRD("globalnetworkpolicies", "GlobalNetworkPolicy", false),
    [R_GLOBAL_NETWORK_SETS] = CRD("globalnetworksets", "GlobalNetworkSet", false),
    [R_HOST_ENDPOINTS] = CRD("hostendpoints", "HostEndpoint", false),
    [R_IPAM_CONFIGS] = CRD("ipamconfigs", "IPAMConfig", false),
    [R_IP_POOLS] = CRD("ippools", "IPPool", false),
    [R_IP_RESERVATIONS] = CRD("ipreservations", "IPReservation", false),
    [R_CONTROLLERS_CONFIGURATIONS] =
        CRD("kubecontrollersconfigurations", "KubeControllersConfiguration", false),
    [R_CALICO_NETWORK_POLICIES] = CRD("networkpolicies", "NetworkPolicy", true),
    [R_NETWORK_SETS] = CRD("networksets", "NetworkSet", true),
    [R_STAGED_GLOBAL] = CRD("stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy", false),
    [R_STAGED_K8S] = CRD("stagedkubernetesnetworkpolicies", "StagedKubernetesNetworkPolicy", true),
    [R_STAGED] = CRD("stagednetworkpolicies", "StagedNetworkPolicy", true),
    [R_TIERS] = CRD("tiers", "Tier", false),
    [R_BLOCKS] = CRD("ipamblocks", "IPAMBlock", false),
    [R_HANDLES] = CRD("ipamhandles", "IPAMHandle", false),
};

#define SPACE_R .space = STORE_SPACE_RESOURCES
#define IPAM(p, s, r) \
    { p, STORE_SPACE_IPAM, s, .kind = K_N_KINDS, REST(r), .is_sorted = false, .is_followed = true }
#define REST(id) .rest = &RESTS[id]
#define CALICO(k) k ".projectcalico.org/"
#define PLAIN(p, k, r) \
    { p, SPACE_R, KUBE_PLAIN, .kind = k, REST(r), .is_sorted = true, .is_followed = true }
#define CALICO_CRD(p, k, r) \
    { CALICO(p), SPACE_R, KUBE_CRD, .kind = k, REST(r), .is_sorted = true, .is_followed = true }
/* Names of policies may differ from their objects'. */
#define CALICO_POLICY(p, k, r) \
    { CALICO(p), SPACE_R, KUBE_CRD, .kind = k, REST(r), .is_sorted = false, .is_followed = true }

/* Ordered by prefix, so that a listing of everything is. */
const struct kube_view kube_views[] = {
    {"AdminNetworkPolicy.policy.networking.k8s.io/", SPACE_R, KUBE_PLAIN,
     .kind = K_ADMIN_NETWORK_POLICY, REST(R_ANP), .is_sorted = true, .is_followed = true},
    CALICO_CRD("BGPConfiguration", K_BGP_CONFIGURATION, R_BGP_CONFIGURATIONS),
    CALICO_CRD("BGPFilter", K_BGP_FILTER, R_BGP_FILTERS),
    CALICO_CRD("BGPPeer", K_BGP_PEER, R_BGP_PEERS),
    {"BaselineAdminNetworkPolicy.policy.networking.k8s.io/", SPACE_R, KUBE_PLAIN,
     .kind = K_BASELINE_ADMIN_NETWORK_POLICY, REST(R_BANP), .is_sorted = true, .is_followed = true},
    CALICO_CRD("BlockAffinity", K_BLOCK_AFFINITY, R_AFFINITIES),
    {CALICO("CalicoNodeStatus"), SPACE_R, KUBE_CRD, .kind = K_CALICO_NODE_STATUS,
     REST(R_NODE_STATUSES), .is_sorted = true},
    CALICO_CRD("ClusterInformation", K_CLUSTER_INFORMATION, R_CLUSTER_INFORMATIONS),
    {"ClusterNetworkPolicy.policy.networking.k8s.io/", SPACE_R, KUBE_PLAIN,
     .kind = K_CLUSTER_NETWORK_POLICY, REST(R_CNP), .is_sorted = true, .is_followed = true},
    PLAIN("EndpointSlice.discovery.k8s.io/", K_ENDPOINT_SLICE, R_SLICES),
    CALICO_CRD("FelixConfiguration", K_FELIX_CONFIGURATION, R_FELIX_CONFIGURATIONS),
    CALICO_POLICY("GlobalNetworkPolicy", K_GLOBAL_NETWORK_POLICY, R_GLOBAL_NETWORK_POLICIES),
    CALICO_CRD("GlobalNetworkSet", K_GLOBAL_NETWORK_SET, R_GLOBAL_NETWORK_SETS),
    CALICO_CRD("HostEndpoint", K_HOST_ENDPOINT, R_HOST_ENDPOINTS),
    CALICO_CRD("IPAMConfiguration", K_IPAM_CONFIGURATION, R_IPAM_CONFIGS),
    CALICO_CRD("IPPool", K_IP_POOL, R_IP_POOLS),
    CALICO_CRD("IPReservation", K_IP_RESERVATION, R_IP_RESERVATIONS),
    CALICO_CRD("KubeControllersConfiguration", K_KUBE_CONTROLLERS_CONFIGURATION,
               R_CONTROLLERS_CONFIGURATIONS),
    {"Lease.coordination.k8s.io/", SPACE_R, KUBE_PLAIN, .kind = K_LEASE, REST(R_LEASES),
     .is_sorted = true},
    PLAIN("Namespace/", K_NAMESPACE, R_NAMESPACES),
    PLAIN("NetworkPolicy.networking.k8s.io/", K_K8S_NETWORK_POLICY, R_NETWORK_POLICIES),
    CALICO_POLICY("NetworkPolicy", K_NETWORK_POLICY, R_CALICO_NETWORK_POLICIES),
    CALICO_CRD("NetworkSet", K_NETWORK_SET, R_NETWORK_SETS),
    {CALICO("Node"), SPACE_R, KUBE_NODE, .kind = K_NODE, REST(R_NODES), .is_sorted = true,
     .is_followed = true},
    PLAIN("Node/", K_NODE_K8S, R_NODES),
    PLAIN("Pod/", K_POD, R_PODS),
    {CALICO("Profile"), SPACE_R, KUBE_NS_PROFILE, .kind = K_PROFILE, REST(R_NAMESPACES),
     .is_sorted = false},
    {CALICO("Profile"), SPACE_R, KUBE_SA_PROFILE, .kind = K_PROFILE, REST(R_SERVICE_ACCOUNTS),
     .is_sorted = false},
    {"Secret/", SPACE_R, KUBE_PLAIN, .kind = K_SECRET, REST(R_SECRETS), .is_sorted = true},
    PLAIN("Service/", K_SERVICE, R_SERVICES),
    PLAIN("ServiceAccount/", K_SERVICE_ACCOUNT, R_SERVICE_ACCOUNTS),
    CALICO_POLICY("StagedGlobalNetworkPolicy", K_STAGED_GLOBAL_NETWORK_POLICY, R_STAGED_GLOBAL),
    CALICO_CRD("StagedKubernetesNetworkPolicy", K_STAGED_KUBERNETES_NETWORK_POLICY, R_STAGED_K8S),
    CALICO_POLICY("StagedNetworkPolicy", K_STAGED_NETWORK_POLICY, R_STAGED),
    CALICO_CRD("Tier", K_TIER, R_TIERS),
    {CALICO("WorkloadEndpoint"), SPACE_R, KUBE_POD_WEP, .kind = K_WORKLOAD_ENDPOINT, REST(R_PODS),
     .is_sorted = false, .is_followed = true},
    IPAM("/ipam/v2/assignment/", KUBE_IPAM_BLOCK, R_BLOCKS),
    IPAM("/ipam/v2/config", KUBE_IPAM_CONFIG, R_IPAM_CONFIGS),
    IPAM("/ipam/v2/handle/", KUBE_IPAM_HANDLE, R_HANDLES),
    IPAM("/ipam/v2/host/", KUBE_IPAM_AFFINITY, R_AFFINITIES),
    IPAM("/ipam/v2/virtual/", KUBE_IPAM_AFFINITY, R_AFFINITIES),
};
const size_t kube_n_views = ARRAY_LEN(kube_views);

static int bad_key(struct store_key k, struct err *e) {
    return err_set(e, ERR_INVALID, "key \"%.*s\" has no place in the Kubernetes API",
                   k.key.n > 200 ? 200 : (int)k.key.n, k.key.p);
}

static const struct kube_view *view_of(struct store_key k) {
    for (size_t i = 0; i < kube_n_views; i++) {
        if (str_is(k.space, kube_views[i].space) &&
            str_starts(k.key, str_c(kube_views[i].prefix))) {
            return &kube_views[i];
        }
    }
    return NULL;
}

static int locate_profile(struct store_key k, struct str name, struct arena *a, struct kube_at *out,
                          struct err *e) {
    for (size_t i = 0; i < kube_n_views; i++) {
        const struct kube_view *v = &kube_views[i];
        if (v->shape == KUBE_NS_PROFILE && str_starts(name, STR("kns."))) {
            *out = (struct kube_at){v, STR(""), arena_dup(a, str_sub(name, 4, name.n))};
            return 0;
        }
        if (v->shape == KUBE_SA_PROFILE && str_starts(name, STR("ksa."))) {
            struct str rest = arena_dup(a, str_sub(name, 4, name.n));
            struct str ns = str_cut(&rest, '.');
            if (rest.n) {
                *out = (struct kube_at){v, ns, rest};
                return 0;
            }
        }
    }
    return err_set(e, ERR_NOT_FOUND,
                   "%.*s: with the Kubernetes API as datastore there are only the profiles "
                   "kns.NAMESPACE, ksa.NAMESPACE.SERVICEACCOUNT and " KUBE_DEFAULT_ALLOW,
                   STR_FMT(k.key));
}

/* A name or namespace as a path's part: nothing that would lead elsewhere. */
static bool is_part(struct str s) {
    return s.n > 0 && s.n <= 253 && str_find(s, '/', 0) < 0 && !str_is(s, ".") && !str_is(s, "..");
}

int kube_locate(struct store_key k, struct arena *a, struct kube_at *out, struct err *e) {
    const struct kube_view *v = view_of(k);
    if (!v) {
        return bad_key(k, e);
    }
    struct kube_at at = {.view = v, .ns = STR("")};
    if (v->kind == K_N_KINDS) {
        int r = kube_ipam_name(v, k.key, a, &at.name, e);
        *out = at;
        return r;
    }
    const struct kind *kind;
    if (kind_split_key(k.key, &kind, &at.ns, &at.name) < 0) {
        return bad_key(k, e);
    }
    if (v->shape == KUBE_NS_PROFILE) {
        return locate_profile(k, at.name, a, out, e);
    }
    if (v->shape == KUBE_POD_WEP) {
        struct str node;
        if (kube_wep_parse(at.name, a, &node, &at.name) < 0) {
            return err_set(e, ERR_NOT_FOUND,
                           "workload endpoint \"%.*s\": with the Kubernetes API as datastore a pod "
                           "has one, NODE-k8s-POD-eth0 (each - of a part doubled); give a further "
                           "interface to another plugin",
                           STR_FMT(at.name));
        }
    }
    if (!is_part(at.name) || (at.ns.n && !is_part(at.ns))) {
        return bad_key(k, e);
    }
    *out = at;
    return 0;
}

size_t kube_views_of(struct store_key prefix, const struct kube_view *out[KUBE_VIEWS_MAX],
                     struct str *ns_out) {
    size_t n = 0;
    *ns_out = STR_NULL;
    for (size_t i = 0; i < kube_n_views; i++) {
        const struct kube_view *v = &kube_views[i];
        struct str p = str_c(v->prefix);
        if (!str_is(prefix.space, v->space)) {
            continue;
        }
        if (str_starts(p, prefix.key)) {
            out[n++] = v;
        } else if (str_starts(prefix.key, p)) {
            out[n++] = v;
            ptrdiff_t slash = str_find(prefix.key, '/', p.n);
            if (v->rest->is_namespaced && slash > 0 && v->shape != KUBE_SA_PROFILE &&
                is_part(str_sub(prefix.key, p.n, (size_t)slash))) {
                *ns_out = str_sub(prefix.key, p.n, (size_t)slash);
            }
        }
    }
    return n;
}

void kube_escape(struct buf *b, struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
        if (is_plain) {
            buf_putc(b, (char)c);
        } else {
            buf_printf(b, "%%%02X", c);
        }
    }
}

struct str kube_path(const struct kube_rest *r, bool use_old, struct str ns, struct str name,
                     const char *sub, struct arena *a) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(16384);
    const char *version = use_old && r->old_version ? r->old_version : r->version;
    if (r->group[0]) {
        buf_printf(&b, "/apis/%s/%s", r->group, version);
    } else {
        buf_printf(&b, "/api/%s", version);
    }
    if (r->is_namespaced && ns.n) {
        buf_puts(&b, "/namespaces/");
        kube_escape(&b, ns);
    }
    buf_printf(&b, "/%s", r->plural);
    if (name.n) {
        buf_putc(&b, '/');
        kube_escape(&b, name);
    }
    if (sub) {
        buf_printf(&b, "/%s", sub);
    }
    return arena_dup(a, buf_view(&b));
}

uint64_t kube_revision(const struct jnode *obj) {
    uint64_t v = 0;
    struct str s = jnode_str(jnode_getc(jnode_getc(obj, "metadata"), "resourceVersion"));
    return str_to_u64(s, &v) == 0 ? v : 0;
}

int kube_read(const struct kube_view *v, struct jnode *obj, struct arena *a, struct kube_item *out,
              struct err *e) {
    struct jnode *meta = jnode_getc(obj, "metadata");
    struct str name = jnode_str(jnode_getc(meta, "name"));
    struct str ns = jnode_str(jnode_getc(meta, "namespace"));
    struct kube_item it = {.value = obj};
    int r = 0;
    if (obj->type != J_MAP || !name.n || (v->rest->is_namespaced && !ns.n)) {
        return err_set(e, ERR_CORRUPT, "an object of %s without name or namespace",
                       v->rest->plural);
    }
    switch (v->shape) {
    case KUBE_PLAIN:
        kube_read_plain(v, obj, a);
        it.key = kind_store_key(&model_kinds[v->kind], ns, name, a);
        break;
    case KUBE_CRD:
        r = kube_read_crd(v, obj, a, &it, e);
        break;
    case KUBE_NODE:
        it.key = kind_store_key(&model_kinds[v->kind], ns, name, a);
        it.value = kube_read_node(obj, a);
        break;
    case KUBE_POD_WEP:
        r = kube_read_wep(obj, a, &it, e);
        break;
    case KUBE_NS_PROFILE:
    case KUBE_SA_PROFILE:
        kube_read_profile(v, obj, a, &it);
        break;
    case KUBE_IPAM_BLOCK:
    case KUBE_IPAM_AFFINITY:
    case KUBE_IPAM_HANDLE:
    case KUBE_IPAM_CONFIG:
        r = kube_read_ipam(v, obj, a, &it, e);
        break;
    }
    if (r == 0) {
        *out = it;
    }
    return r;
}

int kube_write(const struct kube_at *at, struct store_key k, const struct jnode *value,
               struct arena *a, struct jnode **out, struct err *e) {
    switch (at->view->shape) {
    case KUBE_PLAIN:
        *out = kube_write_plain(at, value, a);
        return 0;
    case KUBE_CRD:
        return kube_write_crd(at, value, a, out, e);
    case KUBE_IPAM_BLOCK:
    case KUBE_IPAM_AFFINITY:
    case KUBE_IPAM_HANDLE:
    case KUBE_IPAM_CONFIG:
        return kube_write_ipam(at, k, value, a, out, e);
    case KUBE_NODE:
    case KUBE_POD_WEP:
    case KUBE_NS_PROFILE:
    case KUBE_SA_PROFILE:
        break;
    }
    return err_set(e, ERR_INVALID, "\"%.*s\" can't be written", STR_FMT(k.key));
}
