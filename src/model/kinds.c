/* The registry: every kind with its names, and how words, types and store keys find it. */
#include "model/schema.h"

#define ALIASES(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_ALIASES ((const char *const[]){NULL})
#define CALICO .group = "projectcalico.org", .version = "v3"
#define CORE .group = "", .version = "v1", .is_open = true
#define POLICY_API .group = "policy.networking.k8s.io"

const struct kind model_kinds[K_N_KINDS] = {
    [K_NAMESPACE] = {K_NAMESPACE, CORE, .kind = "Namespace", .singular = "namespace",
                     .plural = "namespaces", .aliases = ALIASES("ns"), .def = &def_namespace},
    [K_POD] = {K_POD, CORE, .kind = "Pod", .singular = "pod", .plural = "pods",
               .aliases = ALIASES("po"), .is_namespaced = true, .def = &def_pod},
    [K_SERVICE_ACCOUNT] = {K_SERVICE_ACCOUNT, CORE, .kind = "ServiceAccount",
                           .singular = "serviceaccount", .plural = "serviceaccounts",
                           .aliases = ALIASES("sa"), .is_namespaced = true,
                           .def = &def_service_account},
    [K_SERVICE] = {K_SERVICE, CORE, .kind = "Service", .singular = "service", .plural = "services",
                   .aliases = ALIASES("svc"), .is_namespaced = true, .def = &def_service},
    [K_NODE_K8S] = {K_NODE_K8S, CORE, .kind = "Node", .singular = "node", .plural = "nodes",
                    .aliases = ALIASES("no"), .def = &def_node_k8s},
    [K_SECRET] = {K_SECRET, CORE, .kind = "Secret", .singular = "secret", .plural = "secrets",
                  .aliases = NO_ALIASES, .is_namespaced = true, .def = &def_secret},
    [K_LEASE] = {K_LEASE, .group = "coordination.k8s.io", .version = "v1", .kind = "Lease",
                 .singular = "lease", .plural = "leases", .aliases = NO_ALIASES,
                 .is_namespaced = true, .is_open = true, .def = &def_lease},
    [K_ENDPOINT_SLICE] = {K_ENDPOINT_SLICE, .group = "discovery.k8s.io", .version = "v1",
                          .kind = "EndpointSlice", .singular = "endpointslice",
                          .plural = "endpointslices", .aliases = NO_ALIASES, .is_namespaced = true,
                          .is_open = true, .def = &def_endpoint_slice},
    [K_K8S_NETWORK_POLICY] = {K_K8S_NETWORK_POLICY, .group = "networking.k8s.io", .version = "v1",
                              .kind = "NetworkPolicy", .singular = "networkpolicy",
                              .plural = "networkpolicies", .aliases = ALIASES("netpol", "knp"),
                              .is_namespaced = true, .is_open = true,
                              .def = &def_k8s_network_policy},
    [K_CLUSTER_NETWORK_POLICY] = {K_CLUSTER_NETWORK_POLICY, POLICY_API, .version = "v1alpha2",
                                  .kind = "ClusterNetworkPolicy",
                                  .singular = "clusternetworkpolicy",
                                  .plural = "clusternetworkpolicies", .aliases = ALIASES("cnp"),
                                  .is_open = true, .def = &def_cluster_network_policy},
    [K_ADMIN_NETWORK_POLICY] = {K_ADMIN_NETWORK_POLICY, POLICY_API, .version = "v1alpha1",
                                .kind = "AdminNetworkPolicy", .singular = "adminnetworkpolicy",
                                .plural = "adminnetworkpolicies", .aliases = ALIASES("anp"),
                                .is_open = true, .def = &def_admin_network_policy},
    [K_BASELINE_ADMIN_NETWORK_POLICY] = {K_BASELINE_ADMIN_NETWORK_POLICY, POLICY_API,
                                         .version = "v1alpha1",
                                         .kind = "BaselineAdminNetworkPolicy",
                                         .singular = "baselineadminnetworkpolicy",
                                         .plural = "baselineadminnetworkpolicies",
                                         .aliases = ALIASES("banp"), .is_open = true,
                                         .def = &def_baseline_admin_network_policy},
    [K_BGP_CONFIGURATION] = {K_BGP_CONFIGURATION, CALICO, .kind = "BGPConfiguration",
                             .singular = "bgpconfiguration", .plural = "bgpconfigurations",
                             .aliases = ALIASES("bgpconfig", "bgpconfigs"),
                             .def = &def_bgp_configuration},
    [K_BGP_FILTER] = {K_BGP_FILTER, CALICO, .kind = "BGPFilter", .singular = "bgpfilter",
                      .plural = "bgpfilters", .aliases = ALIASES("bgpf", "bgpfs", "bf", "bfs"),
                      .def = &def_bgp_filter},
    [K_BGP_PEER] = {K_BGP_PEER, CALICO, .kind = "BGPPeer", .singular = "bgppeer",
                    .plural = "bgppeers", .aliases = ALIASES("bgpp", "bgpps", "bp", "bps"),
                    .def = &def_bgp_peer},
    [K_BLOCK_AFFINITY] = {K_BLOCK_AFFINITY, CALICO, .kind = "BlockAffinity",
                          .singular = "blockaffinity", .plural = "blockaffinities",
                          .aliases = NO_ALIASES, .def = &def_block_affinity},
    [K_CALICO_NODE_STATUS] = {K_CALICO_NODE_STATUS, CALICO, .kind = "CalicoNodeStatus",
                              .singular = "caliconodestatus", .plural = "caliconodestatuses",
                              .aliases = ALIASES("nodestatus", "nodestatuses"),
                              .def = &def_calico_node_status},
    [K_CLUSTER_INFORMATION] = {K_CLUSTER_INFORMATION, CALICO, .kind = "ClusterInformation",
                               .singular = "clusterinformation", .plural = "clusterinformations",
                               .aliases = ALIASES("clusterinfo", "clusterinfos"),
                               .def = &def_cluster_information},
    [K_FELIX_CONFIGURATION] = {K_FELIX_CONFIGURATION, CALICO, .kind = "FelixConfiguration",
                               .singular = "felixconfiguration", .plural = "felixconfigurations",
                               .aliases = ALIASES("felixconfig", "felixconfigs"),
                               .def = &def_felix_configuration},
    [K_GLOBAL_NETWORK_POLICY] = {K_GLOBAL_NETWORK_POLICY, CALICO, .kind = "GlobalNetworkPolicy",
                                 .singular = "globalnetworkpolicy",
                                 .plural = "globalnetworkpolicies",
                                 .aliases = ALIASES("gnp", "gnps"),
                                 .def = &def_global_network_policy},
    [K_GLOBAL_NETWORK_SET] = {K_GLOBAL_NETWORK_SET, CALICO, .kind = "GlobalNetworkSet",
                              .singular = "globalnetworkset", .plural = "globalnetworksets",
                              .aliases = ALIASES("gnetsets", "gnetset"),
                              .def = &def_global_network_set},
    [K_HOST_ENDPOINT] = {K_HOST_ENDPOINT, CALICO, .kind = "HostEndpoint",
                         .singular = "hostendpoint", .plural = "hostendpoints",
                         .aliases = ALIASES("hep", "heps"), .def = &def_host_endpoint},
    [K_IPAM_CONFIGURATION] = {K_IPAM_CONFIGURATION, CALICO, .kind = "IPAMConfiguration",
                              .singular = "ipamconfiguration", .plural = "ipamconfigurations",
                              .aliases = ALIASES("ipamconfig", "ipamconfigs"),
                              .def = &def_ipam_configuration},
    [K_IP_POOL] = {K_IP_POOL, CALICO, .kind = "IPPool", .singular = "ippool", .plural = "ippools",
                   .aliases = ALIASES("ipp", "ipps", "pool", "pools"), .def = &def_ip_pool},
    [K_IP_RESERVATION] = {K_IP_RESERVATION, CALICO, .kind = "IPReservation",
                          .singular = "ipreservation", .plural = "ipreservations",
                          .aliases = ALIASES("reservation", "reservations"),
                          .def = &def_ip_reservation},
    [K_KUBE_CONTROLLERS_CONFIGURATION] =
        {K_KUBE_CONTROLLERS_CONFIGURATION, CALICO, .kind = "KubeControllersConfiguration",
         .singular = "kubecontrollersconfiguration", .plural = "kubecontrollersconfigurations",
         .aliases = ALIASES("kubecontrollersconfig", "kubecontrollersconfigs"),
         .def = &def_kube_controllers_configuration},
    [K_NETWORK_POLICY] = {K_NETWORK_POLICY, CALICO, .kind = "NetworkPolicy",
                          .singular = "networkpolicy", .plural = "networkpolicies",
                          .aliases = ALIASES("np", "policy", "policies", "pol", "pols"),
                          .is_namespaced = true, .def = &def_network_policy},
    [K_NETWORK_SET] = {K_NETWORK_SET, CALICO, .kind = "NetworkSet", .singular = "networkset",
                       .plural = "networksets", .aliases = ALIASES("netsets", "netset"),
                       .is_namespaced = true, .def = &def_network_set},
    [K_NODE] = {K_NODE, CALICO, .kind = "Node", .singular = "node", .plural = "nodes",
                .aliases = ALIASES("no", "nos"), .def = &def_node},
    [K_PROFILE] = {K_PROFILE, CALICO, .kind = "Profile", .singular = "profile",
                   .plural = "profiles", .aliases = ALIASES("pro", "pros"), .def = &def_profile},
    [K_STAGED_GLOBAL_NETWORK_POLICY] = {K_STAGED_GLOBAL_NETWORK_POLICY, CALICO,
                                        .kind = "StagedGlobalNetworkPolicy",
                                        .singular = "stagedglobalnetworkpolicy",
                                        .plural = "stagedglobalnetworkpolicies",
                                        .aliases = ALIASES("sgnp", "sgnps"),
                                        .def = &def_staged_global_network_policy},
    [K_STAGED_KUBERNETES_NETWORK_POLICY] =
        {K_STAGED_KUBERNETES_NETWORK_POLICY, CALICO, .kind = "StagedKubernetesNetworkPolicy",
         .singular = "stagedkubernetesnetworkpolicy", .plural = "stagedkubernetesnetworkpolicies",
         .aliases = ALIASES("sknp", "stagedkubernetespolicy", "stagedkubernetespolicies", "skpol",
                            "skpols"),
         .is_namespaced = true, .def = &def_staged_kubernetes_network_policy},
    [K_STAGED_NETWORK_POLICY] = {K_STAGED_NETWORK_POLICY, CALICO, .kind = "StagedNetworkPolicy",
                                 .singular = "stagednetworkpolicy",
                                 .plural = "stagednetworkpolicies",
                                 .aliases = ALIASES("snp", "stagedpolicy", "stagedpolicies", "spol",
                                                    "spols"),
                                 .is_namespaced = true, .def = &def_staged_network_policy},
    [K_TIER] = {K_TIER, CALICO, .kind = "Tier", .singular = "tier", .plural = "tiers",
                .aliases = NO_ALIASES, .def = &def_tier},
    [K_WORKLOAD_ENDPOINT] = {K_WORKLOAD_ENDPOINT, CALICO, .kind = "WorkloadEndpoint",
                             .singular = "workloadendpoint", .plural = "workloadendpoints",
                             .aliases = ALIASES("wep", "weps"), .is_namespaced = true,
                             .def = &def_workload_endpoint},
};

/* "GROUP/VERSION" or "VERSION". */
static bool has_api_version(const struct kind *k, struct str v) {
    struct str group = str_c(k->group);
    if (group.n == 0) {
        return str_is(v, k->version);
    }
    return v.n > group.n && str_starts(v, group) && v.p[group.n] == '/' &&
           str_is(str_sub(v, group.n + 1, v.n), k->version);
}

const struct kind *kind_by_type(struct str api_version, struct str kind) {
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *k = &model_kinds[i];
        if (str_is(kind, k->kind) && has_api_version(k, api_version)) {
            return k;
        }
    }
    return NULL;
}

static bool has_word(const struct kind *k, struct str word) {
    if (str_ieq(word, str_c(k->singular)) || str_ieq(word, str_c(k->plural)) ||
        str_ieq(word, str_c(k->kind))) {
        return true;
    }
    for (size_t i = 0; k->aliases[i]; i++) {
        if (str_ieq(word, str_c(k->aliases[i]))) {
            return true;
        }
    }
    return false;
}

/* "GROUP" or "VERSION.GROUP"; v1 kinds: "v1". */
static bool has_group(const struct kind *k, struct str group) {
    if (k->group[0] && str_ieq(group, str_c(k->group))) {
        return true;
    }
    struct str rest = group, version = str_cut(&rest, '.');
    return str_ieq(version, str_c(k->version)) &&
           (k->group[0] ? rest.p && str_ieq(rest, str_c(k->group)) : !rest.p);
}

const struct kind *kind_by_word(struct str word, bool prefer_calico) {
    struct str group = word, bare = str_cut(&group, '.');
    const struct kind *found = NULL;
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *k = &model_kinds[i];
        if (!has_word(k, bare) || (group.p && !has_group(k, group))) {
            continue;
        }
        bool is_calico = str_is(str_c(k->group), "projectcalico.org");
        if (!found || is_calico == prefer_calico) {
            found = k;
        }
    }
    return found;
}

/* Two groups have NetworkPolicy and Node; only the names of v1 kinds stand alone. */
static const char *const STORE_NAMES[K_N_KINDS] = {
#define CALICO_NAME(k) k ".projectcalico.org"
    [K_NAMESPACE] = "Namespace",
    [K_POD] = "Pod",
    [K_SERVICE_ACCOUNT] = "ServiceAccount",
    [K_SERVICE] = "Service",
    [K_NODE_K8S] = "Node",
    [K_SECRET] = "Secret",
    [K_LEASE] = "Lease.coordination.k8s.io",
    [K_ENDPOINT_SLICE] = "EndpointSlice.discovery.k8s.io",
    [K_K8S_NETWORK_POLICY] = "NetworkPolicy.networking.k8s.io",
    [K_CLUSTER_NETWORK_POLICY] = "ClusterNetworkPolicy.policy.networking.k8s.io",
    [K_ADMIN_NETWORK_POLICY] = "AdminNetworkPolicy.policy.networking.k8s.io",
    [K_BASELINE_ADMIN_NETWORK_POLICY] = "BaselineAdminNetworkPolicy.policy.networking.k8s.io",
    [K_BGP_CONFIGURATION] = CALICO_NAME("BGPConfiguration"),
    [K_BGP_FILTER] = CALICO_NAME("BGPFilter"),
    [K_BGP_PEER] = CALICO_NAME("BGPPeer"),
    [K_BLOCK_AFFINITY] = CALICO_NAME("BlockAffinity"),
    [K_CALICO_NODE_STATUS] = CALICO_NAME("CalicoNodeStatus"),
    [K_CLUSTER_INFORMATION] = CALICO_NAME("ClusterInformation"),
    [K_FELIX_CONFIGURATION] = CALICO_NAME("FelixConfiguration"),
    [K_GLOBAL_NETWORK_POLICY] = CALICO_NAME("GlobalNetworkPolicy"),
    [K_GLOBAL_NETWORK_SET] = CALICO_NAME("GlobalNetworkSet"),
    [K_HOST_ENDPOINT] = CALICO_NAME("HostEndpoint"),
    [K_IPAM_CONFIGURATION] = CALICO_NAME("IPAMConfiguration"),
    [K_IP_POOL] = CALICO_NAME("IPPool"),
    [K_IP_RESERVATION] = CALICO_NAME("IPReservation"),
    [K_KUBE_CONTROLLERS_CONFIGURATION] = CALICO_NAME("KubeControllersConfiguration"),
    [K_NETWORK_POLICY] = CALICO_NAME("NetworkPolicy"),
    [K_NETWORK_SET] = CALICO_NAME("NetworkSet"),
    [K_NODE] = CALICO_NAME("Node"),
    [K_PROFILE] = CALICO_NAME("Profile"),
    [K_STAGED_GLOBAL_NETWORK_POLICY] = CALICO_NAME("StagedGlobalNetworkPolicy"),
    [K_STAGED_KUBERNETES_NETWORK_POLICY] = CALICO_NAME("StagedKubernetesNetworkPolicy"),
    [K_STAGED_NETWORK_POLICY] = CALICO_NAME("StagedNetworkPolicy"),
    [K_TIER] = CALICO_NAME("Tier"),
    [K_WORKLOAD_ENDPOINT] = CALICO_NAME("WorkloadEndpoint"),
#undef CALICO_NAME
};

const char *kind_store_name(const struct kind *k) {
    return STORE_NAMES[k->id];
}

const struct kind *kind_by_store_name(struct str s) {
    for (size_t i = 0; i < K_N_KINDS; i++) {
        if (str_is(s, STORE_NAMES[i])) {
            return &model_kinds[i];
        }
    }
    return NULL;
}

struct str kind_store_key(const struct kind *k, struct str ns, struct str name, struct arena *a) {
    struct str s = str_c(STORE_NAMES[k->id]);
    ns = k->is_namespaced ? ns : STR("");
    char *p = arena_alloc(a, s.n + ns.n + name.n + 3);
    size_t n = 0;
    const struct str parts[] = {s, ns, name};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (i) {
            p[n++] = '/';
        }
        if (parts[i].n) {
            memcpy(p + n, parts[i].p, parts[i].n);
        }
        n += parts[i].n;
    }
    return str_n(p, n);
}

int kind_split_key(struct str key, const struct kind **k, struct str *ns, struct str *name) {
    struct str rest = key, first = str_cut(&rest, '/'), second = str_cut(&rest, '/');
    const struct kind *found = kind_by_store_name(first);
    if (!found || !rest.p || rest.n == 0 || found->is_namespaced != (second.n > 0)) {
        return ERR_INVALID;
    }
    *k = found;
    *ns = second;
    *name = rest;
    return 0;
}

void kind_print_ref(const struct kind *k, struct str name, struct buf *b) {
    buf_puts(b, k->singular);
    if (k->group[0]) {
        buf_putc(b, '.');
        buf_puts(b, k->group);
    }
    buf_putc(b, '/');
    buf_str(b, name);
}
