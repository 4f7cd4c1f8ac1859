/* The admins' policies of Kubernetes: ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2), and
 * AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1) before it. Checked as their CRDs
 * check them, when a user applies one; a datastore's content is read as far as it goes. */
#include "model/admin.h"
#include "model/schema.h"

#define ROW(n, t, text) NAMED(n), .type = (t), .doc = (text)
#define OPEN(type, fields) .name = (type), FIELDS(fields), .is_open = true
#define COUNT(lo, hi) .flags = FF_RANGE, .min = (lo), .max = (hi)
#define NEEDED(lo, hi) .flags = FF_RANGE | FF_REQUIRED, .min = (lo), .max = (hi)

static const char *const TIERS[] = {"Admin", "Baseline", NULL};
static const char *const CNP_ACTIONS[] = {"Accept", "Deny", "Pass", NULL};
static const char *const ANP_ACTIONS[] = {"Allow", "Deny", "Pass", NULL};
static const char *const BANP_ACTIONS[] = {"Allow", "Deny", NULL};
static const char *const PROTOCOLS[] = {"TCP", "UDP", "SCTP", NULL};

/* Exactly one member: subjects, peers, ports and protocols are unions. */
static void one_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    size_t n = 0;
    (void)out;
    jnode_each (it, map) {
        n += it->type != J_NULL;
    }
    if (c->mode == MODEL_APPLY && n != 1) {
        model_fail(c, at, map, "found %zu members, allowed is exactly one: make an entry for each",
                   n);
    }
}

static const struct field F_PODS[] = {
    {ROW("namespaceSelector", F_OBJ, "namespaces; {}: all"),
     .at = AT(struct admin_pods, namespaces), .flags = FF_REQUIRED, .sub = &schema_label_selector},
    {ROW("podSelector", F_OBJ, "pods in them; {}: all"), .at = AT(struct admin_pods, pods),
     .flags = FF_REQUIRED, .sub = &schema_label_selector},
};
static const struct schema S_PODS = {OPEN("NamespacedPod", F_PODS),
                                     .set_at = AT(struct admin_pods, set),
                                     .size = sizeof(struct admin_pods)};

#define PEER(m) AT(struct admin_peer, m)
#define SUBJECT_FIELDS                                                                         \
    {ROW("namespaces", F_OBJ, "all pods of these namespaces"), .at = PEER(namespaces),         \
     .sub = &schema_label_selector},                                                           \
    {                                                                                          \
        ROW("pods", F_OBJ, "these pods of these namespaces"), .at = PEER(pods), .sub = &S_PODS \
    }

static const struct field F_SUBJECT[] = {SUBJECT_FIELDS};
static const struct schema S_SUBJECT = {OPEN("Subject", F_SUBJECT), .rules = one_rules,
                                        .size = sizeof(struct admin_peer)};
static const struct schema S_PEER_IN = {OPEN("IngressPeer", F_SUBJECT), .rules = one_rules,
                                        .size = sizeof(struct admin_peer)};

#define OUTER_FIELDS                                                                            \
    SUBJECT_FIELDS,                                                                             \
        {ROW("nodes", F_OBJ, "these nodes"), .at = PEER(nodes), .sub = &schema_label_selector}, \
        {ROW("networks", F_STRS, "prefixes"), .at = PEER(networks), COUNT(1, 25),               \
         .check = CHECK_CIDR},                                                                  \
    {                                                                                           \
        ROW("domainNames", F_STRS, "DNS names; Margay matches nothing by them"),                \
            .at = PEER(domain_names), COUNT(1, 25)                                              \
    }
static const struct field F_PEER_OUT[] = {OUTER_FIELDS};
static const struct schema S_PEER_OUT = {OPEN("EgressPeer", F_PEER_OUT), .rules = one_rules,
                                         .size = sizeof(struct admin_peer)};

/* ---- ClusterNetworkPolicy ---- */

static void range_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    const struct jnode *start = member(map, "start"), *end = member(map, "end");
    (void)out;
    if (c->mode == MODEL_APPLY && start && end && start->type == J_INT && end->type == J_INT &&
        end->i < start->i) {
        model_fail_in(c, at, map, "end", "found %lld, allowed is start (%lld) to 65535",
                      (long long)end->i, (long long)start->i);
    }
}

static const struct field F_RANGE[] = {
    {ROW("start", F_INT, "first port"), .at = AT(struct admin_range, start), NEEDED(1, 65535)},
    {ROW("end", F_INT, "last port"), .at = AT(struct admin_range, end), NEEDED(1, 65535)},
};
static const struct schema S_RANGE = {OPEN("PortRange", F_RANGE), .rules = range_rules,
                                      .set_at = AT(struct admin_range, set)};
static const struct field F_PORT_UNION[] = {
    {ROW("number", F_INT, "a port"), .at = AT(struct admin_transport, port.number),
     COUNT(1, 65535)},
    {ROW("range", F_OBJ, "a range of ports"), .at = AT(struct admin_transport, port.range),
     .sub = &S_RANGE},
};
static const struct schema S_PORT = {OPEN("Port", F_PORT_UNION), .rules = one_rules,
                                     .set_at = AT(struct admin_transport, port.set)};
static const struct field F_TRANSPORT[] = {
    {ROW("destinationPort", F_OBJ, "the destination's port; absent: all"), .flags = FF_FLAT,
     .sub = &S_PORT},
};
static const struct schema S_TRANSPORT = {OPEN("Transport", F_TRANSPORT),
                                          .set_at = AT(struct admin_transport, set)};
#define APORT(m) AT(struct admin_port, m)
static const struct field F_PROTOCOL_UNION[] = {
    {ROW("tcp", F_OBJ, "TCP"), .at = APORT(tcp), .sub = &S_TRANSPORT},
    {ROW("udp", F_OBJ, "UDP"), .at = APORT(udp), .sub = &S_TRANSPORT},
    {ROW("sctp", F_OBJ, "SCTP"), .at = APORT(sctp), .sub = &S_TRANSPORT},
    {ROW("destinationNamedPort", F_STR, "name of a port of the destination's pods"),
     .at = APORT(named), .check = CHECK_PORT_NAME},
};
static const struct schema S_PROTOCOL = {OPEN("ClusterNetworkPolicyProtocol", F_PROTOCOL_UNION),
                                         .rules = one_rules, .size = sizeof(struct admin_port)};

#define ARULE(m) AT(struct admin_rule, m)
#define RULE_NAME \
    { ROW("name", F_STR, "for people"), .max_len = 100 }
#define ACTION(list)                                                    \
    {                                                                   \
        ROW("action", F_STR, "what happens to traffic that matches"),   \
            .at = ARULE(action), .flags = FF_REQUIRED, .values = (list) \
    }
#define CNP_PROTOCOLS                                                    \
    {                                                                    \
        ROW("protocols", F_OBJS, "protocols, any of them; absent: all"), \
            .at = ARULE(ports), COUNT(1, 25), .sub = &S_PROTOCOL         \
    }

static const struct field F_CNP_IN[] = {
    RULE_NAME,
    ACTION(CNP_ACTIONS),
    {ROW("from", F_OBJS, "peers, any of them"), .at = ARULE(peers), NEEDED(1, 25),
     .sub = &S_PEER_IN},
    CNP_PROTOCOLS,
};
static const struct field F_CNP_OUT[] = {
    RULE_NAME,
    ACTION(CNP_ACTIONS),
    {ROW("to", F_OBJS, "peers, any of them"), .at = ARULE(peers), NEEDED(1, 25),
     .sub = &S_PEER_OUT},
    CNP_PROTOCOLS,
};
static const struct schema S_CNP_IN = {OPEN("ClusterNetworkPolicyIngressRule", F_CNP_IN),
                                       .size = sizeof(struct admin_rule),
                                       .broken_at = ARULE(is_broken)};
static const struct schema S_CNP_OUT = {OPEN("ClusterNetworkPolicyEgressRule", F_CNP_OUT),
                                        .size = sizeof(struct admin_rule),
                                        .broken_at = ARULE(is_broken)};

#define PRIORITY                                                                         \
    {                                                                                    \
        ROW("priority", F_INT, "lowest first"), .at = AT(struct admin_policy, priority), \
                                                NEEDED(0, 1000)                          \
    }
#define SUBJECT                                                                             \
    {                                                                                       \
        ROW("subject", F_OBJ, "the pods that it applies to"),                               \
            .at = AT(struct admin_policy, subject), .flags = FF_REQUIRED, .sub = &S_SUBJECT \
    }
#define RULES(max, in, out)                                                     \
    {ROW("ingress", F_OBJS, "rules for traffic to them, in order"),             \
     .at = AT(struct admin_policy, ingress), COUNT(0, max), .sub = &(in)},      \
    {                                                                           \
        ROW("egress", F_OBJS, "rules for traffic from them, in order"),         \
            .at = AT(struct admin_policy, egress), COUNT(0, max), .sub = &(out) \
    }

static const struct field F_CNP[] = {
    {ROW("tier", F_STR, "Admin: before all other policies; Baseline: after them"),
     .at = AT(struct admin_policy, tier), .flags = FF_REQUIRED, .values = TIERS},
    PRIORITY,
    SUBJECT,
    RULES(25, S_CNP_IN, S_CNP_OUT),
};
static const struct schema S_CNP = {OPEN("ClusterNetworkPolicySpec", F_CNP),
                                    .own_broken_at = AT(struct admin_policy, is_broken)};

static const struct column POLICY_COLUMNS[] = {
    {"NAME", "metadata.name", NULL, false},
    {"TIER", "spec.tier", NULL, false},
    {"PRIORITY", "spec.priority", NULL, false},
};
const struct kind_def def_cluster_network_policy = {
    .spec = &S_CNP,
    .is_spec_required = true,
    .size = sizeof(struct admin_policy),
    COLUMNS(POLICY_COLUMNS),
    .doc = "What the cluster's admins decide before (tier Admin) or after (tier Baseline) all "
           "namespaces' own policies.",
};

/* ---- AdminNetworkPolicy, BaselineAdminNetworkPolicy ---- */

static const struct field F_PORT_NUMBER[] = {
    {ROW("protocol", F_STR, "TCP, UDP or SCTP"), .at = AT(struct admin_number, protocol),
     .flags = FF_REQUIRED, .values = PROTOCOLS},
    {ROW("port", F_INT, "the port"), .at = AT(struct admin_number, port), NEEDED(1, 65535)},
};
static const struct schema S_PORT_NUMBER = {OPEN("Port", F_PORT_NUMBER),
                                            .set_at = AT(struct admin_number, set)};
static const struct field F_PORT_RANGE[] = {
    {ROW("protocol", F_STR, "TCP, UDP or SCTP; TCP when absent"),
     .at = AT(struct admin_range, protocol), .values = PROTOCOLS},
    {ROW("start", F_INT, "first port"), .at = AT(struct admin_range, start), NEEDED(1, 65535)},
    {ROW("end", F_INT, "last port"), .at = AT(struct admin_range, end), NEEDED(1, 65535)},
};
static const struct schema S_PORT_RANGE = {OPEN("PortRange", F_PORT_RANGE), .rules = range_rules,
                                           .set_at = AT(struct admin_range, set)};
static const struct field F_ANP_PORT[] = {
    {ROW("portNumber", F_OBJ, "a port"), .at = APORT(number), .sub = &S_PORT_NUMBER},
    {ROW("portRange", F_OBJ, "a range of ports"), .at = APORT(range), .sub = &S_PORT_RANGE},
    {ROW("namedPort", F_STR, "name of a port of the destination's pods"), .at = APORT(named),
     .check = CHECK_PORT_NAME},
};
static const struct schema S_ANP_PORT = {OPEN("AdminNetworkPolicyPort", F_ANP_PORT),
                                         .rules = one_rules, .size = sizeof(struct admin_port)};
#define ANP_PORTS                                                                                  \
    {                                                                                              \
        ROW("ports", F_OBJS, "ports, any of them; absent: all"), .at = ARULE(ports),               \
                                                                 COUNT(0, 100), .sub = &S_ANP_PORT \
    }
#define ANP_FROM                                                                       \
    {                                                                                  \
        ROW("from", F_OBJS, "peers, any of them"), .at = ARULE(peers), NEEDED(1, 100), \
                                                   .sub = &S_PEER_IN                   \
    }
#define ANP_TO                                                                       \
    {                                                                                \
        ROW("to", F_OBJS, "peers, any of them"), .at = ARULE(peers), NEEDED(1, 100), \
                                                 .sub = &S_PEER_OUT                  \
    }

static const struct field F_ANP_IN[] = {RULE_NAME, ACTION(ANP_ACTIONS), ANP_FROM, ANP_PORTS};
static const struct field F_ANP_OUT[] = {RULE_NAME, ACTION(ANP_ACTIONS), ANP_TO, ANP_PORTS};
static const struct field F_BANP_IN[] = {RULE_NAME, ACTION(BANP_ACTIONS), ANP_FROM, ANP_PORTS};
static const struct field F_BANP_OUT[] = {RULE_NAME, ACTION(BANP_ACTIONS), ANP_TO, ANP_PORTS};
static const struct schema S_ANP_IN = {OPEN("AdminNetworkPolicyIngressRule", F_ANP_IN),
                                       .size = sizeof(struct admin_rule),
                                       .broken_at = ARULE(is_broken)};
static const struct schema S_ANP_OUT = {OPEN("AdminNetworkPolicyEgressRule", F_ANP_OUT),
                                        .size = sizeof(struct admin_rule),
                                        .broken_at = ARULE(is_broken)};
static const struct schema S_BANP_IN = {OPEN("BaselineAdminNetworkPolicyIngressRule", F_BANP_IN),
                                        .size = sizeof(struct admin_rule),
                                        .broken_at = ARULE(is_broken)};
static const struct schema S_BANP_OUT = {OPEN("BaselineAdminNetworkPolicyEgressRule", F_BANP_OUT),
                                         .size = sizeof(struct admin_rule),
                                         .broken_at = ARULE(is_broken)};

static const struct field F_ANP[] = {PRIORITY, SUBJECT, RULES(100, S_ANP_IN, S_ANP_OUT)};
static const struct field F_BANP[] = {SUBJECT, RULES(100, S_BANP_IN, S_BANP_OUT)};
static const struct schema S_ANP = {OPEN("AdminNetworkPolicySpec", F_ANP),
                                    .own_broken_at = AT(struct admin_policy, is_broken)};
static const struct schema S_BANP = {OPEN("BaselineAdminNetworkPolicySpec", F_BANP),
                                     .own_broken_at = AT(struct admin_policy, is_broken)};

static const struct column ANP_COLUMNS[] = {
    {"NAME", "metadata.name", NULL, false},
    {"PRIORITY", "spec.priority", NULL, false},
};
const struct kind_def def_admin_network_policy = {
    .spec = &S_ANP,
    .is_spec_required = true,
    .size = sizeof(struct admin_policy),
    COLUMNS(ANP_COLUMNS),
    .doc = "What the cluster's admins decide before all other policies (v1alpha1; newer: "
           "ClusterNetworkPolicy of tier Admin).",
};
const struct kind_def def_baseline_admin_network_policy = {
    .spec = &S_BANP,
    .name = NAME_DEFAULT,
    .is_spec_required = true,
    .size = sizeof(struct admin_policy),
    .doc = "What the cluster's admins decide where no other policy did. There is one, named "
           "default (v1alpha1; newer: ClusterNetworkPolicy of tier Baseline).",
};

/* ---- Secret ---- */

static const struct field F_SECRET[] = {
    {ROW("type", F_STR, "what kind of secret")},
    {ROW("data", F_STRMAP, "values in base64")},
    {ROW("stringData", F_STRMAP, "values as they are")},
};
static const struct schema S_SECRET = {OPEN("Secret", F_SECRET)};
const struct kind_def def_secret = {.top = &S_SECRET, .doc = "Passwords of BGP peers."};

/* ---- Lease ---- */

static const struct field F_LEASE[] = {
    {ROW("holderIdentity", F_STR, "who has it; empty: given up")},
    {ROW("leaseDurationSeconds", F_INT, "it is left when it was not renewed for so long")},
    {ROW("acquireTime", F_STR, "when its holder got it")},
    {ROW("renewTime", F_STR, "when it was renewed last")},
    {ROW("leaseTransitions", F_INT, "how often the holder has changed")},
};
static const struct schema S_LEASE = {OPEN("LeaseSpec", F_LEASE)};
const struct kind_def def_lease = {
    .spec = &S_LEASE,
    .doc = "Who of several does a work that only one may do: kube-system/margay-controllers is the "
           "controllers'.",
};
