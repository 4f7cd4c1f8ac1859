/* Calico's kinds of policy and of what it applies to: field tables. Source: Calico's
 * api/pkg/apis/projectcalico/v3 (policy_common.go, networkpolicy.go, tier.go, profile.go, …); rules
 * across fields are in rules_policy.c. */
#include "model/policy.h"
#include "model/schema.h"

#define MAX_ITEMS(k) .flags = FF_RANGE, .min = 0, .max = (k)
#define RANGE(lo, hi) .flags = FF_RANGE, .min = (lo), .max = (hi)

static const char *const ACTIONS[] = {"Allow", "Deny", "Log", "Pass", NULL};
static const char *const TYPES[] = {"Ingress", "Egress", NULL};
static const char *const STAGED_ACTIONS[] = {"Set", "Delete", "Learn", "Ignore", NULL};
static const char *const HINTS[] = {"AssumeNeededOnEveryNode", NULL};
static const char *const TIER_ACTIONS[] = {"Deny", "Pass", NULL};

/* ---- rules ---- */

static const struct field F_ICMP[] = {
    {NAMED("type"), F_INT, AT(struct icmp_match, type), RANGE(0, 254), .doc = "ICMP type"},
    {NAMED("code"), F_INT, AT(struct icmp_match, code), RANGE(0, 255),
     .doc = "ICMP code; needs type"},
};
static const struct schema S_ICMP = {"ICMPFields", FIELDS(F_ICMP),
                                     .size = sizeof(struct icmp_match),
                                     .set_at = AT(struct icmp_match, set), .rules = icmp_rules};

static const struct field F_SERVICES[] = {
    {NAMED("name"), F_STR, AT(struct service_match, name), .check = CHECK_NAME, .max_len = 253,
     .doc = "name of the Service"},
    {NAMED("namespace"), F_STR, AT(struct service_match, ns), .check = CHECK_NAME, .max_len = 253,
     .doc = "its namespace; a namespaced policy's own when absent"},
};
static const struct schema S_SERVICES = {
    "ServiceMatch", FIELDS(F_SERVICES), .size = sizeof(struct service_match),
    .set_at = AT(struct service_match, set), .rules = service_match_rules};

static const struct field F_ACCOUNTS[] = {
    {NAMED("names"), F_STRS, AT(struct service_account_match, names), .flags = FF_UNIQUE,
     .check = CHECK_NAME, .doc = "names of ServiceAccounts, any of them"},
    {NAMED("selector"), F_STR, AT(struct service_account_match, selector), .check = CHECK_SELECTOR1,
     .max_len = 1024, .doc = "selector on ServiceAccounts' labels"},
};
static const struct schema S_ACCOUNTS = {"ServiceAccountMatch", FIELDS(F_ACCOUNTS),
                                         .size = sizeof(struct service_account_match),
                                         .set_at = AT(struct service_account_match, set)};

#define NETS .flags = FF_RANGE | FF_UNIQUE, .min = 0, .max = 256
static const struct field F_ENTITY[] = {
    {NAMED("nets"), F_NETS, AT(struct entity_rule, nets), NETS, .check = CHECK_NET,
     .doc = "prefixes, any of them"},
    {NAMED("selector"), F_STR, AT(struct entity_rule, selector), .check = CHECK_SELECTOR1,
     .max_len = 1024, .doc = "selector on endpoints and network sets"},
    {NAMED("namespaceSelector"), F_STR, AT(struct entity_rule, namespace_selector),
     .check = CHECK_SELECTOR_NS, .max_len = 1024,
     .doc = "selector on namespaces' labels; global() for what has none"},
    {NAMED("services"), F_OBJ, AT(struct entity_rule, services), .sub = &S_SERVICES,
     .doc = "a Service's endpoints"},
    {NAMED("ports"), F_PORTS, AT(struct entity_rule, ports), MAX_ITEMS(50),
     .doc = "ports, ranges or port names, any of them"},
    {NAMED("notNets"), F_NETS, AT(struct entity_rule, not_nets), NETS, .check = CHECK_NOT_NET,
     .doc = "prefixes, none of them"},
    {NAMED("notSelector"), F_STR, AT(struct entity_rule, not_selector), .max_len = 1024,
     .doc = "selector that must not match"},
    {NAMED("notPorts"), F_PORTS, AT(struct entity_rule, not_ports), MAX_ITEMS(50),
     .doc = "ports, none of them"},
    {NAMED("serviceAccounts"), F_OBJ, AT(struct entity_rule, service_accounts), .sub = &S_ACCOUNTS,
     .doc = "ServiceAccounts that the pods run as"},
};
static const struct schema S_ENTITY = {"EntityRule", FIELDS(F_ENTITY),
                                       .size = sizeof(struct entity_rule)};

static const struct field F_HTTP_PATH[] = {
    {NAMED("exact"), F_STR, AT(struct http_path, exact), .check = CHECK_HTTP_PATH, .max_len = 1024,
     .doc = "the whole path"},
    {NAMED("prefix"), F_STR, AT(struct http_path, prefix), .check = CHECK_HTTP_PATH,
     .max_len = 1024, .doc = "how the path starts"},
};
static const struct schema S_HTTP_PATH = {
    "HTTPPath", FIELDS(F_HTTP_PATH), .size = sizeof(struct http_path), .rules = http_path_rules};
static const struct field F_HTTP[] = {
    {NAMED("methods"), F_STRS, AT(struct http_match, methods), .flags = FF_RANGE | FF_UNIQUE,
     .max = 20, .doc = "HTTP methods, any of them"},
    {NAMED("paths"), F_OBJS, AT(struct http_match, paths), MAX_ITEMS(20), .sub = &S_HTTP_PATH,
     .doc = "HTTP paths, any of them"},
};
static const struct schema S_HTTP = {"HTTPMatch", FIELDS(F_HTTP), .size = sizeof(struct http_match),
                                     .set_at = AT(struct http_match, set), .rules = http_rules};

static const struct field F_RULE_META[] = {
    {NAMED("annotations"), F_STRMAP, AT(struct rule, annotations), .doc = "notes for people"},
};
static const struct schema S_RULE_META = {"RuleMetadata", FIELDS(F_RULE_META),
                                          .rules = rule_metadata_rules};

static const struct field F_RULE[] = {
    {NAMED("action"), F_STR, AT(struct rule, action), AS_INDEX, FF_REQUIRED, .values = ACTIONS,
     .doc = "what happens to traffic that matches: Allow, Deny, Log or Pass"},
    {NAMED("ipVersion"), F_INT, AT(struct rule, ip_version), RANGE(4, 6),
     .doc = "only this family: 4 or 6"},
    {NAMED("protocol"), F_PROTOCOL, AT(struct rule, protocol),
     .doc = "TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number of 1 to 255"},
    {NAMED("icmp"), F_OBJ, AT(struct rule, icmp), .sub = &S_ICMP,
     .doc = "ICMP type and code; needs protocol ICMP or ICMPv6"},
    {NAMED("notProtocol"), F_PROTOCOL, AT(struct rule, not_protocol), .doc = "any protocol but it"},
    {NAMED("notICMP"), F_OBJ, AT(struct rule, not_icmp), .sub = &S_ICMP,
     .doc = "any ICMP type and code but these"},
    {NAMED("source"), F_OBJ, AT(struct rule, source), .sub = &S_ENTITY, .doc = "where from"},
    {NAMED("destination"), F_OBJ, AT(struct rule, destination), .sub = &S_ENTITY,
     .doc = "where to"},
    {NAMED("http"), F_OBJ, AT(struct rule, http), .sub = &S_HTTP,
     .doc = "HTTP method and path; ingress rules that allow only"},
    {NAMED("metadata"), F_OBJ, .flags = FF_FLAT, .sub = &S_RULE_META, .doc = "notes on the rule"},
};
static const struct schema S_RULE_IN = {"Rule", FIELDS(F_RULE), .size = sizeof(struct rule),
                                        .rules = rule_rules_in,
                                        .broken_at = AT(struct rule, is_broken)};
static const struct schema S_RULE_OUT = {"Rule", FIELDS(F_RULE), .size = sizeof(struct rule),
                                         .rules = rule_rules_out,
                                         .broken_at = AT(struct rule, is_broken)};
static const struct schema S_RULE_PROFILE = {"Rule", FIELDS(F_RULE), .size = sizeof(struct rule),
                                             .rules = rule_rules_profile,
                                             .broken_at = AT(struct rule, is_broken)};

/* ---- policies ---- */

#define POLICY_FIELDS                                                             \
    {NAMED("tier"),                                                               \
     F_STR,                                                                       \
     AT(struct policy_spec, tier),                                                \
     .flags = FF_FILL,                                                            \
     .check = CHECK_NAME,                                                         \
     .dflt = "\"default\"",                                                       \
     .doc = "the tier it belongs to"},                                            \
        {NAMED("order"), F_FLOAT, AT(struct policy_spec, order),                  \
         .doc = "place in its tier, lowest first; absent: last"},                 \
        {NAMED("ingress"),                                                        \
         F_OBJS,                                                                  \
         AT(struct policy_spec, ingress),                                         \
         MAX_ITEMS(1024),                                                         \
         .sub = &S_RULE_IN,                                                       \
         .doc = "rules for traffic to what is selected"},                         \
        {NAMED("egress"),                                                         \
         F_OBJS,                                                                  \
         AT(struct policy_spec, egress),                                          \
         MAX_ITEMS(1024),                                                         \
         .sub = &S_RULE_OUT,                                                      \
         .doc = "rules for traffic from what is selected"},                       \
        {NAMED("selector"),                                                       \
         F_STR,                                                                   \
         AT(struct policy_spec, selector),                                        \
         .check = CHECK_SELECTOR1,                                                \
         .max_len = 1024,                                                         \
         .doc = "selector on the endpoints that it applies to; absent: all"},     \
        {NAMED("types"),                                                          \
         F_STRS,                                                                  \
         AT(struct policy_spec, types),                                           \
         AS_BITS,                                                                 \
         FF_RANGE | FF_UNIQUE,                                                    \
         .min = 0,                                                                \
         .max = 2,                                                                \
         .values = TYPES,                                                         \
         .doc = "directions that it decides: Ingress, Egress or both"},           \
        {NAMED("serviceAccountSelector"),                                         \
         F_STR,                                                                   \
         AT(struct policy_spec, service_account_selector),                        \
         .check = CHECK_SELECTOR1,                                                \
         .max_len = 1024,                                                         \
         .doc = "selector on the pods' ServiceAccounts"},                         \
    {                                                                             \
        NAMED("performanceHints"), F_STRS, .flags = FF_UNIQUE, .values = HINTS,   \
                                           .doc = "hints that change no decision" \
    }
#define GLOBAL_FIELDS                                                                              \
    {NAMED("namespaceSelector"), F_STR,           AT(struct policy_spec, namespace_selector),      \
     .check = CHECK_SELECTOR1,   .max_len = 1024, .doc = "selector on the endpoints' namespaces"}, \
        {NAMED("doNotTrack"), F_BOOL, AT(struct policy_spec, do_not_track),                        \
         .doc = "apply before connection tracking; host endpoints only"},                          \
        {NAMED("preDNAT"), F_BOOL, AT(struct policy_spec, pre_dnat),                               \
         .doc = "apply before DNAT; host endpoints only, ingress only"},                           \
    {                                                                                              \
        NAMED("applyOnForward"), F_BOOL, AT(struct policy_spec, apply_on_forward),                 \
            .doc = "apply to forwarded traffic too; host endpoints only"                           \
    }
#define STAGED_FIELD(T)                                                       \
    {                                                                         \
        NAMED("stagedAction"), F_STR, AT(struct T, staged_action),            \
            .flags = FF_FILL, .values = STAGED_ACTIONS, .dflt = "\"Set\"",    \
            .doc = "what enforcing it would do: Set, Delete, Learn or Ignore" \
    }

static const struct field F_NETWORK_POLICY[] = {POLICY_FIELDS};
static const struct field F_GLOBAL_POLICY[] = {POLICY_FIELDS, GLOBAL_FIELDS};
static const struct field F_STAGED_POLICY[] = {STAGED_FIELD(policy_spec), POLICY_FIELDS};
static const struct field F_STAGED_GLOBAL[] = {STAGED_FIELD(policy_spec), POLICY_FIELDS,
                                               GLOBAL_FIELDS};

#define POLICY_KIND(var, fields, type, rule, text)                                       \
    static const struct schema var##_spec = {                                            \
        type, FIELDS(fields), .size = sizeof(struct policy_spec), .rules = policy_rules, \
        .own_broken_at = AT(struct policy_spec, is_broken)};                             \
    const struct kind_def var = {                                                        \
        .spec = &var##_spec, .size = sizeof(struct policy_spec), .name = rule, .doc = text}

POLICY_KIND(def_network_policy, F_NETWORK_POLICY, "NetworkPolicySpec", NAME_POLICY,
            "Rules for the pods of one namespace. Policies of a tier are tried by order; the first "
            "rule that matches decides.");
POLICY_KIND(def_global_network_policy, F_GLOBAL_POLICY, "GlobalNetworkPolicySpec",
            NAME_GLOBAL_POLICY,
            "Rules for pods of all namespaces and for host endpoints. Policies of a tier are tried "
            "by order; the first rule that matches decides.");
POLICY_KIND(def_staged_network_policy, F_STAGED_POLICY, "StagedNetworkPolicySpec", NAME_POLICY,
            "A NetworkPolicy that decides nothing yet: what it would decide is reported.");
POLICY_KIND(def_staged_global_network_policy, F_STAGED_GLOBAL, "StagedGlobalNetworkPolicySpec",
            NAME_GLOBAL_POLICY,
            "A GlobalNetworkPolicy that decides nothing yet: what it would decide is reported.");

static const struct field F_PROFILE[] = {
    {NAMED("ingress"), F_OBJS, AT(struct profile_spec, ingress), MAX_ITEMS(1024),
     .sub = &S_RULE_PROFILE, .doc = "rules for traffic to endpoints that have this profile"},
    {NAMED("egress"), F_OBJS, AT(struct profile_spec, egress), MAX_ITEMS(1024),
     .sub = &S_RULE_PROFILE, .doc = "rules for traffic from endpoints that have this profile"},
    {NAMED("labelsToApply"), F_STRMAP, AT(struct profile_spec, labels_to_apply),
     .check = CHECK_LABELS, .doc = "labels that its endpoints inherit"},
};
static const struct schema S_PROFILE = {
    "ProfileSpec", FIELDS(F_PROFILE), .size = sizeof(struct profile_spec), .rules = profile_rules};
const struct kind_def def_profile = {
    .spec = &S_PROFILE,
    .size = sizeof(struct profile_spec),
    .doc = "Rules and labels that endpoints name themselves; they decide what no policy decided. "
           "Each namespace and ServiceAccount has one of its own.",
};

static const struct field F_TIER[] = {
    {NAMED("order"), F_FLOAT, AT(struct tier_spec, order),
     .doc = "place among the tiers, lowest first; absent: last"},
    {NAMED("defaultAction"), F_STR, AT(struct tier_spec, default_action), .values = TIER_ACTIONS,
     .dflt = "\"Deny\"",
     .doc = "what happens at its end when its policies apply but no rule matched: Deny or Pass"},
};
static const struct schema S_TIER = {"TierSpec", FIELDS(F_TIER), .size = sizeof(struct tier_spec),
                                     .rules = tier_rules};
const struct kind_def def_tier = {
    .spec = &S_TIER,
    .size = sizeof(struct tier_spec),
    .name = NAME_LABEL,
    .doc = "A group of policies. Tiers are tried by order; Pass leads on to the next.",
};

/* ---- network sets ---- */

static const struct field F_NETWORK_SET[] = {
    {NAMED("nets"), F_NETS, AT(struct network_set_spec, nets), .flags = FF_UNIQUE,
     .check = CHECK_CIDR, .doc = "addresses and prefixes that the set's labels stand for"},
};
static const struct schema S_NETWORK_SET = {"NetworkSetSpec", FIELDS(F_NETWORK_SET),
                                            .size = sizeof(struct network_set_spec),
                                            .rules = network_set_rules};
static const struct schema S_GLOBAL_SET = {"GlobalNetworkSetSpec", FIELDS(F_NETWORK_SET),
                                           .size = sizeof(struct network_set_spec),
                                           .rules = network_set_rules};
const struct kind_def def_network_set = {
    .spec = &S_NETWORK_SET,
    .size = sizeof(struct network_set_spec),
    .doc = "Addresses outside the cluster under labels, for the policies of one namespace.",
};
const struct kind_def def_global_network_set = {
    .spec = &S_GLOBAL_SET,
    .size = sizeof(struct network_set_spec),
    .doc = "Addresses outside the cluster under labels, for policies of all namespaces.",
};

/* ---- endpoints ---- */

static const struct field F_EP_PORT[] = {
    {NAMED("name"), F_STR, AT(struct endpoint_port, name), .flags = FF_REQUIRED,
     .check = CHECK_PORT_NAME, .doc = "the port's name, for rules that name ports"},
    {NAMED("protocol"), F_PROTOCOL, AT(struct endpoint_port, protocol), AS_U8, FF_REQUIRED,
     .doc = "TCP, UDP or SCTP"},
    {NAMED("port"), F_INT, AT(struct endpoint_port, port), AS_U16, FF_REQUIRED | FF_RANGE, .min = 1,
     .max = 65535, .doc = "a port of 1 to 65535"},
};
static const struct schema S_EP_PORT = {"EndpointPort", FIELDS(F_EP_PORT),
                                        .size = sizeof(struct endpoint_port),
                                        .rules = endpoint_port_rules};

static const struct field F_HEP[] = {
    {NAMED("node"), F_STR, AT(struct host_endpoint_spec, node), .flags = FF_REQUIRED,
     .check = CHECK_NAME, .max_len = 253, .doc = "name of the node that the interface is on"},
    {NAMED("interfaceName"), F_STR, AT(struct host_endpoint_spec, interface_name),
     .check = CHECK_HEP_IFACE, .doc = "the interface, or * for all but the pods'"},
    {NAMED("expectedIPs"), F_IPS, AT(struct host_endpoint_spec, expected_ips), .flags = FF_UNIQUE,
     .check = CHECK_IP, .doc = "addresses of the interface; it is found by them without a name"},
    {NAMED("profiles"), F_STRS, AT(struct host_endpoint_spec, profiles), .check = CHECK_NAME,
     .doc = "names of Profiles, in order"},
    {NAMED("ports"), F_OBJS, AT(struct host_endpoint_spec, ports), .sub = &S_EP_PORT,
     .doc = "named ports"},
};
static const struct schema S_HEP = {"HostEndpointSpec", FIELDS(F_HEP),
                                    .size = sizeof(struct host_endpoint_spec),
                                    .rules = host_endpoint_rules};
const struct kind_def def_host_endpoint = {
    .spec = &S_HEP,
    .size = sizeof(struct host_endpoint_spec),
    .is_spec_required = true,
    .doc = "An interface of a node, so that policies apply to the node's own traffic.",
};

#define WEP(m) AT(struct workload_endpoint_spec, m)
static const struct field F_WEP_PORT[] = {
    {NAMED("name"), F_STR, AT(struct endpoint_port, name), .check = CHECK_PORT_NAME,
     .doc = "the port's name, for rules that name ports"},
    {NAMED("protocol"), F_PROTOCOL, AT(struct endpoint_port, protocol), AS_U8, FF_REQUIRED,
     .doc = "TCP, UDP or SCTP"},
    {NAMED("port"), F_INT, AT(struct endpoint_port, port), AS_U16, FF_REQUIRED | FF_RANGE, .min = 1,
     .max = 65535, .doc = "a port of 1 to 65535"},
    {NAMED("hostPort"), F_INT, RANGE(0, 65535), .doc = "port of the node that leads to it"},
    {NAMED("hostIP"), F_STR, .check = CHECK_IP, .doc = "address of the node that leads to it"},
};
static const struct schema S_WEP_PORT = {"WorkloadEndpointPort", FIELDS(F_WEP_PORT),
                                         .size = sizeof(struct endpoint_port),
                                         .rules = endpoint_port_rules};
static const struct field F_NAT[] = {
    {NAMED("internalIP"), F_STR, AT(struct endpoint_nat, internal_ip), .flags = FF_REQUIRED,
     .check = CHECK_IP, .doc = "the endpoint's own address"},
    {NAMED("externalIP"), F_STR, AT(struct endpoint_nat, external_ip), .flags = FF_REQUIRED,
     .check = CHECK_IP, .doc = "the address that leads to it"},
};
static const struct schema S_NAT = {"IPNAT", FIELDS(F_NAT), .size = sizeof(struct endpoint_nat)};
static const struct field F_WEP[] = {
    {NAMED("orchestrator"), F_STR, WEP(orchestrator), .doc = "who runs the workload: k8s"},
    {NAMED("workload"), F_STR, WEP(workload), .doc = "name of the workload"},
    {NAMED("node"), F_STR, WEP(node), .check = CHECK_NAME, .doc = "the node it runs on"},
    {NAMED("containerID"), F_STR, WEP(container_id), .doc = "its container or sandbox"},
    {NAMED("pod"), F_STR, WEP(pod), .check = CHECK_NAME, .doc = "name of the pod"},
    {NAMED("endpoint"), F_STR, WEP(endpoint), .doc = "name of its interface in the pod"},
    {NAMED("serviceAccountName"), F_STR, WEP(service_account), .check = CHECK_NAME,
     .doc = "ServiceAccount it runs as"},
    {NAMED("ipNetworks"), F_NETS, WEP(ip_networks), .flags = FF_UNIQUE, .check = CHECK_CIDR,
     .doc = "its addresses, as /32 and /128"},
    {NAMED("ipNATs"), F_OBJS, WEP(ip_nats), .sub = &S_NAT,
     .doc = "addresses translated to its own"},
    {NAMED("ipv4Gateway"), F_STR, WEP(ipv4_gateway), .check = CHECK_IPV4, .doc = "its gateway"},
    {NAMED("ipv6Gateway"), F_STR, WEP(ipv6_gateway), .check = CHECK_IPV6, .doc = "its gateway"},
    {NAMED("profiles"), F_STRS, WEP(profiles), .check = CHECK_NAME,
     .doc = "names of Profiles, in order"},
    {NAMED("interfaceName"), F_STR, WEP(interface_name), .check = CHECK_IFACE,
     .doc = "the interface on the node"},
    {NAMED("mac"), F_STR, WEP(mac), .check = CHECK_MAC, .doc = "MAC address in the pod"},
    {NAMED("ports"), F_OBJS, WEP(ports), .sub = &S_WEP_PORT, .doc = "named ports"},
    {NAMED("allowSpoofedSourcePrefixes"), F_STRS, WEP(allow_spoofed_source_prefixes),
     .check = CHECK_CIDR, .doc = "sources that it may send from beside its own addresses"},
};
static const struct schema S_WEP = {"WorkloadEndpointSpec", FIELDS(F_WEP),
                                    .size = sizeof(struct workload_endpoint_spec)};
const struct kind_def def_workload_endpoint = {
    .spec = &S_WEP,
    .size = sizeof(struct workload_endpoint_spec),
    .doc = "One interface of a pod, as the network knows it. Made by programs.",
};
