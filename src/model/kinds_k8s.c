/* Kubernetes' own kinds, as far as networking reads them: field tables. The rest of a document is
 * kept unseen. Source: Kubernetes' API v1, discovery.k8s.io/v1, networking.k8s.io/v1; what its API
 * server refuses of a NetworkPolicy is in rules_k8s.c. */
#include "model/k8s.h"
#include "model/schema.h"

static const char *const PROTOCOLS[] = {"TCP", "UDP", "SCTP", NULL};
static const char *const OPERATORS[] = {"In", "NotIn", "Exists", "DoesNotExist", NULL};
static const char *const TYPES[] = {"Ingress", "Egress", NULL};

#define OPEN(type, fields) type, FIELDS(fields), .is_open = true

/* ---- plain kinds ---- */

static const struct schema S_ANY = {.name = "any", .is_open = true};

const struct kind_def def_namespace = {
    .spec = &S_ANY, .name = NAME_LABEL, .doc = "A Kubernetes namespace."};
const struct kind_def def_service_account = {.doc = "A Kubernetes ServiceAccount."};

/* ---- Pod ---- */

static const struct field F_POD[] = {
    {NAMED("nodeName"), F_STR, AT(struct k8s_pod, node_name), .doc = "the node it runs on"},
    {NAMED("serviceAccountName"), F_STR, AT(struct k8s_pod, service_account_name),
     .doc = "ServiceAccount it runs as"},
    {NAMED("hostNetwork"), F_BOOL, AT(struct k8s_pod, host_network),
     .doc = "it uses the node's network"},
    {NAMED("containers"), F_ANY, .doc = "their ports count"},
    {NAMED("initContainers"), F_ANY, .doc = "ports of those that stay count"},
};
static const struct schema S_POD = {OPEN("PodSpec", F_POD)};
static const struct field F_POD_STATUS[] = {
    {NAMED("phase"), F_STR, AT(struct k8s_pod, phase), .doc = "where in its life it is"},
};
static const struct schema S_POD_STATUS = {OPEN("PodStatus", F_POD_STATUS)};
static const struct field F_POD_TOP[] = {
    {NAMED("status"), F_OBJ, .flags = FF_FLAT, .sub = &S_POD_STATUS, .doc = "set by the kubelet"},
};
static const struct schema S_POD_TOP = {OPEN("Pod", F_POD_TOP), .rules = k8s_pod_rules};
const struct kind_def def_pod = {
    .spec = &S_POD, .top = &S_POD_TOP, .size = sizeof(struct k8s_pod), .doc = "A Kubernetes pod."};

/* ---- Service ---- */

static const struct field F_SERVICE_PORT[] = {
    {NAMED("name"), F_STR, AT(struct service_port, name), .doc = "the port's name"},
    {NAMED("protocol"), F_PROTOCOL, AT(struct service_port, protocol), AS_U8,
     .doc = "TCP, UDP or SCTP"},
    {NAMED("port"), F_INT, AT(struct service_port, port), AS_I64, FF_RANGE, .min = 1, .max = 65535,
     .doc = "port of the Service"},
    {NAMED("targetPort"), F_INT_OR_STR, AT(struct service_port, target_port),
     .doc = "port of the pods, number or name"},
    {NAMED("nodePort"), F_INT, AT(struct service_port, node_port), .flags = FF_RANGE, .min = 0,
     .max = 65535, .doc = "port of the nodes"},
};
static const struct schema S_SERVICE_PORT = {OPEN("ServicePort", F_SERVICE_PORT),
                                             .size = sizeof(struct service_port),
                                             .rules = k8s_service_port_rules};
#define SVC(m) AT(struct k8s_service, m)
static const struct field F_SERVICE[] = {
    {NAMED("type"), F_STR, SVC(type), .doc = "ClusterIP, NodePort, LoadBalancer, ExternalName"},
    {NAMED("clusterIP"), F_STR, SVC(cluster_ip), .doc = "its first address"},
    {NAMED("clusterIPs"), F_STRS, SVC(cluster_ips), .doc = "its addresses"},
    {NAMED("externalIPs"), F_STRS, SVC(external_ips), .doc = "addresses routed to the nodes"},
    {NAMED("externalTrafficPolicy"), F_STR, SVC(external_traffic_policy), .doc = "Cluster, Local"},
    {NAMED("selector"), F_STRMAP, SVC(selector), .doc = "labels of its pods"},
    {NAMED("ports"), F_OBJS, SVC(ports), .sub = &S_SERVICE_PORT, .doc = "its ports"},
};
static const struct schema S_SERVICE = {OPEN("ServiceSpec", F_SERVICE)};
static const struct field F_SERVICE_TOP[] = {
    {NAMED("status"), F_ANY, .doc = "its loadBalancer.ingress counts"},
};
static const struct schema S_SERVICE_TOP = {OPEN("Service", F_SERVICE_TOP),
                                            .rules = k8s_service_rules};
const struct kind_def def_service = {.spec = &S_SERVICE,
                                     .top = &S_SERVICE_TOP,
                                     .size = sizeof(struct k8s_service),
                                     .name = NAME_LABEL_1035,
                                     .doc = "A Kubernetes Service."};

/* ---- EndpointSlice ---- */

static const struct field F_SLICE_PORT[] = {
    {NAMED("name"), F_STR, AT(struct slice_port, name), .doc = "the port's name"},
    {NAMED("protocol"), F_PROTOCOL, AT(struct slice_port, protocol), AS_U8,
     .doc = "TCP, UDP or SCTP"},
    {NAMED("port"), F_INT, AT(struct slice_port, port), .flags = FF_RANGE, .min = 1, .max = 65535,
     .doc = "the port; absent: all"},
};
static const struct schema S_SLICE_PORT = {OPEN("EndpointPort", F_SLICE_PORT),
                                           .size = sizeof(struct slice_port),
                                           .rules = k8s_slice_port_rules};
static const struct field F_CONDITIONS[] = {
    {NAMED("ready"), F_BOOL, AT(struct slice_endpoint, ready), AS_OPT, .doc = "may get traffic"},
};
static const struct schema S_CONDITIONS = {OPEN("EndpointConditions", F_CONDITIONS)};
static const struct field F_SLICE_EP[] = {
    {NAMED("addresses"), F_IPS, AT(struct slice_endpoint, addresses), .doc = "its addresses"},
    {NAMED("conditions"), F_OBJ, .flags = FF_FLAT, .sub = &S_CONDITIONS, .doc = "its state"},
    {NAMED("nodeName"), F_STR, AT(struct slice_endpoint, node_name), .doc = "the node it is on"},
};
static const struct schema S_SLICE_EP = {OPEN("Endpoint", F_SLICE_EP),
                                         .size = sizeof(struct slice_endpoint)};
/* Names are no addresses: a slice of them has endpoints that are kept unseen. */
static const struct field F_SLICE[] = {
    {NAMED("addressType"), F_STR, AT(struct k8s_endpoint_slice, address_type),
     .doc = "IPv4, IPv6 or FQDN"},
    {NAMED("endpoints"), F_ANY, .doc = "its endpoints"},
    {NAMED("ports"), F_OBJS, AT(struct k8s_endpoint_slice, ports), .sub = &S_SLICE_PORT,
     .doc = "the ports of all of them"},
};
static const struct schema S_SLICE = {OPEN("EndpointSlice", F_SLICE), .rules = k8s_slice_rules};
const struct field model_slice_endpoints = {
    NAMED("endpoints"), F_OBJS, AT(struct k8s_endpoint_slice, endpoints), .sub = &S_SLICE_EP};
const struct kind_def def_endpoint_slice = {
    .top = &S_SLICE, .size = sizeof(struct k8s_endpoint_slice), .doc = "Endpoints of a Service."};

/* ---- Node ---- */

static const struct field F_NODE[] = {
    {NAMED("podCIDRs"), F_STRS, AT(struct k8s_node, pod_cidrs), .check = CHECK_CIDR,
     .doc = "prefixes of its pods"},
};
static const struct schema S_NODE = {OPEN("NodeSpec", F_NODE)};
static const struct field F_NODE_TOP[] = {
    {NAMED("status"), F_ANY, .doc = "its addresses count"},
};
static const struct schema S_NODE_TOP = {OPEN("Node", F_NODE_TOP), .rules = k8s_node_rules};
const struct kind_def def_node_k8s = {.spec = &S_NODE,
                                      .top = &S_NODE_TOP,
                                      .size = sizeof(struct k8s_node),
                                      .doc = "A Kubernetes node."};

/* ---- NetworkPolicy ---- */

static const struct field F_REQUIREMENT[] = {
    {NAMED("key"), F_STR, AT(struct label_requirement, key), .flags = FF_REQUIRED,
     .check = CHECK_LABEL_KEY, .doc = "the label's name"},
    {NAMED("operator"), F_STR, AT(struct label_requirement, op), .flags = FF_REQUIRED,
     .values = OPERATORS, .doc = "In, NotIn, Exists or DoesNotExist"},
    {NAMED("values"), F_STRS, AT(struct label_requirement, values), .check = CHECK_LABEL_VALUE,
     .doc = "for In and NotIn"},
};
static const struct schema S_REQUIREMENT = {OPEN("LabelSelectorRequirement", F_REQUIREMENT),
                                            .size = sizeof(struct label_requirement),
                                            .rules = k8s_requirement_rules};
static const struct field F_LABEL_SELECTOR[] = {
    {NAMED("matchLabels"), F_STRMAP, AT(struct label_selector, match_labels), .check = CHECK_LABELS,
     .doc = "labels and their values, all of them"},
    {NAMED("matchExpressions"), F_OBJS, AT(struct label_selector, match_expressions),
     .sub = &S_REQUIREMENT, .doc = "requirements, all of them"},
};
const struct schema schema_label_selector = {
    OPEN("LabelSelector", F_LABEL_SELECTOR), .size = sizeof(struct label_selector),
    .set_at = AT(struct label_selector, set), .broken_at = AT(struct label_selector, is_broken)};

static const struct field F_IP_BLOCK[] = {
    {NAMED("cidr"), F_STR, AT(struct k8s_ip_block, cidr), .flags = FF_REQUIRED,
     .doc = "a prefix such as 10.0.0.0/8"},
    {NAMED("except"), F_STRS, AT(struct k8s_ip_block, except), .doc = "prefixes inside cidr"},
};
static const struct schema S_IP_BLOCK = {
    OPEN("IPBlock", F_IP_BLOCK), .size = sizeof(struct k8s_ip_block),
    .set_at = AT(struct k8s_ip_block, set), .rules = k8s_ip_block_rules};
static const struct field F_PEER[] = {
    {NAMED("podSelector"), F_OBJ, AT(struct k8s_peer, pod_selector), .sub = &schema_label_selector,
     .doc = "pods, of the policy's namespace without namespaceSelector"},
    {NAMED("namespaceSelector"), F_OBJ, AT(struct k8s_peer, namespace_selector),
     .sub = &schema_label_selector, .doc = "namespaces"},
    {NAMED("ipBlock"), F_OBJ, AT(struct k8s_peer, ip_block), .sub = &S_IP_BLOCK,
     .doc = "a prefix; goes with nothing else"},
};
static const struct schema S_PEER = {OPEN("NetworkPolicyPeer", F_PEER),
                                     .size = sizeof(struct k8s_peer), .rules = k8s_peer_rules};
static const struct field F_POLICY_PORT[] = {
    {NAMED("protocol"), F_STR, AT(struct k8s_port, protocol), .flags = FF_FILL, .values = PROTOCOLS,
     .dflt = "\"TCP\"", .doc = "TCP, UDP or SCTP"},
    {NAMED("port"), F_INT_OR_STR, AT(struct k8s_port, port), .doc = "number or name; absent: all"},
    {NAMED("endPort"), F_INT, AT(struct k8s_port, end_port), .flags = FF_RANGE, .min = 1,
     .max = 65535, .doc = "end of a range that starts at port"},
};
static const struct schema S_PORT = {OPEN("NetworkPolicyPort", F_POLICY_PORT),
                                     .size = sizeof(struct k8s_port), .rules = k8s_port_rules};

#define RULE_FIELDS(member_name)                                         \
    {NAMED("ports"), F_OBJS, AT(struct k8s_rule, ports), .sub = &S_PORT, \
     .doc = "ports, any of them; absent: all"},                          \
    {                                                                    \
        NAMED(member_name), F_OBJS, AT(struct k8s_rule, peers),          \
            .sub = &S_PEER, .doc = "peers, any of them; absent: all"     \
    }
static const struct field F_RULE_IN[] = {RULE_FIELDS("from")};
static const struct field F_RULE_OUT[] = {RULE_FIELDS("to")};
const struct schema schema_k8s_ingress_rule = {OPEN("NetworkPolicyIngressRule", F_RULE_IN),
                                               .broken_at = AT(struct k8s_rule, is_broken),
                                               .size = sizeof(struct k8s_rule)};
const struct schema schema_k8s_egress_rule = {OPEN("NetworkPolicyEgressRule", F_RULE_OUT),
                                              .broken_at = AT(struct k8s_rule, is_broken),
                                              .size = sizeof(struct k8s_rule)};

#define KNP(m) AT(struct k8s_network_policy, m)
#define K8S_POLICY_FIELDS                                                           \
    {NAMED("podSelector"), F_OBJ, KNP(pod_selector), .sub = &schema_label_selector, \
     .doc = "pods of its namespace that it applies to; {}: all"},                   \
        {NAMED("ingress"), F_OBJS, KNP(ingress), .sub = &schema_k8s_ingress_rule,   \
         .doc = "traffic allowed to them"},                                         \
        {NAMED("egress"), F_OBJS, KNP(egress), .sub = &schema_k8s_egress_rule,      \
         .doc = "traffic allowed from them"},                                       \
    {                                                                               \
        NAMED("policyTypes"), F_STRS, KNP(policy_types),                            \
            .flags = FF_RANGE, .max = 2, .values = TYPES,                           \
            .doc = "directions that it closes: Ingress, Egress or both"             \
    }
static const struct field F_K8S_POLICY[] = {K8S_POLICY_FIELDS};
static const struct schema S_K8S_POLICY = {OPEN("NetworkPolicySpec", F_K8S_POLICY),
                                           .own_broken_at = KNP(is_broken),
                                           .rules = k8s_policy_rules};
const struct kind_def def_k8s_network_policy = {
    .spec = &S_K8S_POLICY,
    .size = sizeof(struct k8s_network_policy),
    .doc = "What may reach the pods of a namespace, or be reached by them: Kubernetes' own.",
};

static const char *const STAGED_ACTIONS[] = {"Set", "Delete", "Learn", "Ignore", NULL};
static const struct field F_STAGED[] = {
    {NAMED("stagedAction"), F_STR, KNP(staged_action), .flags = FF_FILL, .values = STAGED_ACTIONS,
     .dflt = "\"Set\"", .doc = "what enforcing it would do: Set, Delete, Learn or Ignore"},
    K8S_POLICY_FIELDS,
};
static const struct schema S_STAGED = {"StagedKubernetesNetworkPolicySpec", FIELDS(F_STAGED),
                                       .rules = staged_k8s_rules};
const struct kind_def def_staged_kubernetes_network_policy = {
    .spec = &S_STAGED,
    .size = sizeof(struct k8s_network_policy),
    .doc = "A Kubernetes NetworkPolicy that decides nothing yet: what it would decide is reported.",
};
