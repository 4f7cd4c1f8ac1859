/* Calico's kinds about the cluster and its nodes: KubeControllersConfiguration, CalicoNodeStatus,
 * ClusterInformation and Node. Source: Calico's api/pkg/apis/projectcalico/v3 and, for Node,
 * libcalico-go's internal API. */
#include "model/schema.h"

#define ROW(n, t, text) NAMED(n), .type = (t), .doc = (text)
#define DURATION(n, d, text) \
    { ROW(n, F_STR, text), .check = CHECK_GO_DURATION, .dflt = (d) }
#define ONE_OF(n, list, d, text) \
    { ROW(n, F_STR, text), .values = (list), .dflt = (d) }
#define PORT(n, d, text) \
    { ROW(n, F_INT, text), .flags = FF_RANGE, .min = 0, .max = 65535, .dflt = (d) }
#define PART(n, s, text) \
    { ROW(n, F_OBJ, text), .sub = &(s) }

static const char *const ENABLED[] = {"Enabled", "Disabled", NULL};

/* ---- KubeControllersConfiguration ---- */

static const char *const SEVERITIES[] = {"None",  "Debug", "Info",  "Warning",
                                         "Error", "Fatal", "Panic", NULL};
static const char *const ASSIGN_IPS[] = {"AllServices", "RequestedServicesOnly", NULL};

static const struct field F_TEMPLATE[] = {
    {ROW("generateName", F_STR, "end of the host endpoints' names"), .max_len = 253,
     .check = CHECK_NAME},
    {ROW("interfaceCIDRs", F_STRS, "addresses of the node in these prefixes"), .flags = FF_UNIQUE,
     .check = CHECK_CIDR},
    {ROW("interfacePattern", F_STR, "interfaces of the node"), .check = CHECK_REGEXP},
    {ROW("labels", F_STRMAP, "labels of the host endpoints"), .check = CHECK_LABELS},
    {ROW("annotations", F_STRMAP, "annotations of the host endpoints")},
    {ROW("nodeSelector", F_STR, "nodes that get one"), .max_len = 1024, .check = CHECK_SELECTOR},
};
static const struct schema S_TEMPLATE = {.name = "Template", FIELDS(F_TEMPLATE)};

static const struct field F_AUTO_HEP[] = {
    ONE_OF("autoCreate", ENABLED, "Disabled", "make a host endpoint for each node"),
    ONE_OF("createDefaultHostEndpoint", ENABLED, "Enabled", "make the one for all interfaces"),
    {ROW("templates", F_OBJS, "make more of them"), .sub = &S_TEMPLATE},
};
static const struct schema S_AUTO_HEP = {.name = "AutoHostEndpointConfig", FIELDS(F_AUTO_HEP)};

static const struct field F_NODE_CONTROLLER[] = {
    DURATION("reconcilerPeriod", "5m", "all is compared so often"),
    ONE_OF("syncLabels", ENABLED, "Enabled", "nodes' labels from Kubernetes to Calico"),
    PART("hostEndpoint", S_AUTO_HEP, "host endpoints by themselves"),
    DURATION("leakGracePeriod", "15m", "an address without a pod is released after; 0: never"),
};
static const struct schema S_NODE_CONTROLLER = {.name = "NodeControllerConfig",
                                                FIELDS(F_NODE_CONTROLLER)};

static const struct field F_PERIOD[] = {
    DURATION("reconcilerPeriod", "5m", "all is compared so often"),
};
static const struct schema S_POLICY_CONTROLLER = {.name = "PolicyControllerConfig",
                                                  FIELDS(F_PERIOD)};
static const struct schema S_WEP_CONTROLLER = {.name = "WorkloadEndpointControllerConfig",
                                               FIELDS(F_PERIOD)};
static const struct schema S_SA_CONTROLLER = {.name = "ServiceAccountControllerConfig",
                                              FIELDS(F_PERIOD)};
static const struct schema S_NS_CONTROLLER = {.name = "NamespaceControllerConfig",
                                              FIELDS(F_PERIOD)};

static const struct field F_LB_CONTROLLER[] = {
    ONE_OF("assignIPs", ASSIGN_IPS, "AllServices", "Services that get an address"),
};
static const struct schema S_LB_CONTROLLER = {.name = "LoadBalancerControllerConfig",
                                              FIELDS(F_LB_CONTROLLER)};

static const struct field F_MIGRATION[] = {
    ONE_OF("policyNameMigrator", ENABLED, "Enabled", "policies of old names get new ones"),
};
static const struct schema S_MIGRATION = {.name = "MigrationControllerConfig", FIELDS(F_MIGRATION)};

static const struct field F_CONTROLLERS[] = {
    PART("node", S_NODE_CONTROLLER, "nodes, their labels and host endpoints, leaked addresses"),
    PART("policy", S_POLICY_CONTROLLER, "NetworkPolicies to the datastore"),
    PART("workloadEndpoint", S_WEP_CONTROLLER, "pods' labels to the datastore"),
    PART("serviceAccount", S_SA_CONTROLLER, "ServiceAccounts to profiles"),
    PART("namespace", S_NS_CONTROLLER, "namespaces to profiles"),
    PART("loadBalancer", S_LB_CONTROLLER, "addresses for Services of type LoadBalancer"),
    PART("migration", S_MIGRATION, "changes of the datastore's form"),
};
static const struct schema S_CONTROLLERS = {.name = "ControllersConfig", FIELDS(F_CONTROLLERS)};

static const struct field F_KUBE_CONTROLLERS[] = {
    ONE_OF("logSeverityScreen", SEVERITIES, "Info", "what is logged"),
    ONE_OF("healthChecks", ENABLED, "Enabled", "serve health"),
    DURATION("etcdV3CompactionPeriod", "10m", "etcd is compacted so often; 0: never"),
    PORT("prometheusMetricsPort", "9094", "port of the metrics server; 0: off"),
    PART("controllers", S_CONTROLLERS, "controllers that run; absent ones don't"),
    PORT("debugProfilePort", NULL, "port of the profile server; unset or 0: off"),
};
static const struct schema S_KUBE_CONTROLLERS = {.name = "KubeControllersConfigurationSpec",
                                                 FIELDS(F_KUBE_CONTROLLERS)};

static const struct field F_STATUS_TOP[] = {
    {ROW("status", F_ANY, "set by programs"), .flags = FF_STATUS},
};
static const struct schema S_STATUS_TOP = {.name = "status", FIELDS(F_STATUS_TOP), .is_open = true};

static const struct column NAME_ONLY[] = {{"NAME", "metadata.name", NULL, false}};

const struct kind_def def_kube_controllers_configuration = {
    .spec = &S_KUBE_CONTROLLERS,
    .top = &S_STATUS_TOP,
    .name = NAME_DEFAULT,
    COLUMNS(NAME_ONLY),
    .doc = "Which cluster-wide controllers run and how. There is one, named default.",
};

/* ---- CalicoNodeStatus ---- */

static const char *const CLASSES[] = {"Agent", "BGP", "Routes", NULL};

static const struct field F_NODE_STATUS[] = {
    {ROW("node", F_STR, "the node to report on"), .flags = FF_REQUIRED, .check = CHECK_NAME},
    {ROW("classes", F_STRS, "what to report: Agent, BGP, Routes"), .flags = FF_REQUIRED | FF_UNIQUE,
     .values = CLASSES},
    {ROW("updatePeriodSeconds", F_INT, "so often; 0: once, never again"),
     .flags = FF_REQUIRED | FF_RANGE, .min = 0, .max = 86400},
};
static const struct schema S_NODE_STATUS = {.name = "CalicoNodeStatusSpec", FIELDS(F_NODE_STATUS)};

static const struct column NODE_STATUS_COLUMNS[] = {
    {"NAME", "metadata.name", NULL, false},
    {"NODE", "spec.node", NULL, false},
    {"CLASSES", "spec.classes", NULL, true},
};

const struct kind_def def_calico_node_status = {
    .spec = &S_NODE_STATUS,
    .top = &S_STATUS_TOP,
    .is_spec_required = true,
    COLUMNS(NODE_STATUS_COLUMNS),
    .doc = "Asks a node to report its state in `status`, again and again.",
};

/* ---- ClusterInformation ---- */

static const struct field F_CLUSTER[] = {
    {ROW("clusterGUID", F_STR, "the cluster's identity")},
    {ROW("clusterType", F_STR, "what it runs on, words with commas")},
    {ROW("calicoVersion", F_STR, "version of Calico that the nodes run")},
    {ROW("datastoreReady", F_BOOL, "false: agents wait, for a migration")},
    {ROW("variant", F_STR, "variant of Calico")},
};
static const struct schema S_CLUSTER = {.name = "ClusterInformationSpec", FIELDS(F_CLUSTER)};

static const struct column CLUSTER_COLUMNS[] = {
    {"NAME", "metadata.name", NULL, false},
    {"CLUSTERGUID", "spec.clusterGUID", NULL, false},
    {"CLUSTERTYPE", "spec.clusterType", NULL, false},
    {"CALICOVERSION", "spec.calicoVersion", NULL, false},
    {"DATASTOREREADY", "spec.datastoreReady", NULL, false},
};

const struct kind_def def_cluster_information = {
    .spec = &S_CLUSTER,
    .name = NAME_DEFAULT,
    COLUMNS(CLUSTER_COLUMNS),
    .doc = "The cluster's identity and versions. There is one, named default; programs write it.",
};

/* ---- Node ---- */

static const struct field F_NODE_BGP[] = {
    {ROW("asNumber", F_INT, "the node's AS number; unset: BGPConfiguration's"), .flags = FF_RANGE,
     .max = UINT32_MAX, .check = CHECK_AS_NUMBER},
    {ROW("ipv4Address", F_STR, "its IPv4 address, with the subnet's length"), .check = CHECK_CIDR},
    {ROW("ipv6Address", F_STR, "its IPv6 address, with the subnet's length"), .check = CHECK_CIDR},
    {ROW("ipv4IPIPTunnelAddr", F_STR, "address of its IPIP device"), .check = CHECK_IPV4},
    {ROW("routeReflectorClusterID", F_STR, "route reflector of this cluster, as an IPv4 address"),
     .check = CHECK_IPV4},
};

static void node_bgp_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    static const char *const NAMES[] = {"ipv4Address", "ipv6Address"};
    static const enum ip_family FAMILIES[] = {IP_V4, IP_V6};
    (void)out;
    bool has_value = false;
    jnode_each (n, map) {
        has_value = has_value || (n->type != J_NULL && !(n->type == J_STR && n->s.n == 0));
    }
    if (!has_value) {
        model_fail(c, at, map, "found an empty map: fill it, or remove bgp");
    }
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++) {
        struct prefix p;
        const struct jnode *n = member(map, NAMES[i]);
        if (prefix_parse(jnode_str(n), &p) == 0 && p.ip.family != FAMILIES[i]) {
            model_fail_in(c, at, map, NAMES[i], "found %s, allowed is an IPv%d address",
                          model_found(c, n), FAMILIES[i]);
        }
    }
}
static const struct schema S_NODE_BGP = {
    .name = "NodeBGPSpec", FIELDS(F_NODE_BGP), .rules = node_bgp_rules};

static const struct field F_ORCH_REF[] = {
    {ROW("nodeName", F_STR, "its name there")},
    {ROW("orchestrator", F_STR, "as in k8s"), .flags = FF_REQUIRED},
};
static const struct schema S_ORCH_REF = {.name = "OrchRef", FIELDS(F_ORCH_REF)};

static const struct field F_NODE_WIREGUARD[] = {
    {ROW("interfaceIPv4Address", F_STR, "address of its WireGuard device"), .check = CHECK_IPV4},
    {ROW("interfaceIPv6Address", F_STR, "address of its WireGuard device"), .check = CHECK_IPV6},
};
static const struct schema S_NODE_WIREGUARD = {.name = "NodeWireguardSpec",
                                               FIELDS(F_NODE_WIREGUARD)};

static const char *const ADDRESS_TYPES[] = {"CalicoNodeIP", "InternalIP", "ExternalIP", NULL};
static const struct field F_NODE_ADDRESS[] = {
    {ROW("address", F_STR, "an address, with a prefix length or without"), .flags = FF_REQUIRED,
     .check = CHECK_CIDR},
    ONE_OF("type", ADDRESS_TYPES, NULL, "where it comes from"),
};
static const struct schema S_NODE_ADDRESS = {.name = "NodeAddress", FIELDS(F_NODE_ADDRESS)};

static const struct field F_NODE[] = {
    PART("bgp", S_NODE_BGP, "its BGP; absent: no BGP"),
    {ROW("orchRefs", F_OBJS, "what orchestrators call it"), .sub = &S_ORCH_REF},
    {ROW("ipv4VXLANTunnelAddr", F_STR, "address of its VXLAN device"), .check = CHECK_IPV4},
    {ROW("vxlanTunnelMACAddr", F_STR, "MAC address of its VXLAN device"), .check = CHECK_MAC},
    {ROW("ipv6VXLANTunnelAddr", F_STR, "address of its IPv6 VXLAN device"), .check = CHECK_IPV6},
    {ROW("vxlanTunnelMACAddrV6", F_STR, "MAC address of its IPv6 VXLAN device"),
     .check = CHECK_MAC},
    PART("wireguard", S_NODE_WIREGUARD, "its WireGuard devices"),
    {ROW("addresses", F_OBJS, "its addresses"), .sub = &S_NODE_ADDRESS},
};
static const struct schema S_NODE = {.name = "NodeSpec", FIELDS(F_NODE)};

static const struct column NODE_COLUMNS[] = {
    {"NAME", "metadata.name", NULL, false},
    {"ASN", "spec.bgp.asNumber", NULL, true},
    {"IPV4", "spec.bgp.ipv4Address", NULL, true},
    {"IPV6", "spec.bgp.ipv6Address", NULL, true},
};

const struct kind_def def_node = {
    .spec = &S_NODE,
    .top = &S_STATUS_TOP,
    COLUMNS(NODE_COLUMNS),
    .doc = "A node as Calico sees it: its addresses, its BGP, its tunnels.",
};
