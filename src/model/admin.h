/* Decoded specs of the admins' policies of Kubernetes: ClusterNetworkPolicy, AdminNetworkPolicy and
 * BaselineAdminNetworkPolicy (policy.networking.k8s.io). One shape for all three: members that a
 * version lacks are not set. */
#pragma once

#include "model/k8s.h"

struct admin_pods {
    bool set;
    struct label_selector namespaces, pods;
};

/* A union: one of them is set. A subject has only the first two. */
struct admin_peer {
    struct label_selector namespaces, nodes;
    struct admin_pods pods;
    struct str_list networks, domain_names;
};

struct admin_range {
    bool set;
    struct str protocol; /* v1alpha1 */
    struct opt_int start, end;
};
struct admin_number { /* v1alpha1 */
    bool set;
    struct str protocol;
    struct opt_int port;
};
struct admin_transport {
    bool set;
    struct {
        bool set;
        struct opt_int number;
        struct admin_range range;
    } port; /* not set: all */
};
/* A union: v1alpha2 has a member for each protocol, v1alpha1 number and range. */
struct admin_port {
    struct admin_transport tcp, udp, sctp;
    struct admin_number number;
    struct admin_range range;
    struct str named; /* whatever its protocol */
};

struct admin_rule {
    struct str action; /* Accept, Allow, Deny, Pass */
    LIST(struct admin_peer) peers;
    LIST(struct admin_port) ports; /* none: all */
    bool is_broken;                /* it had errors (MODEL_STORE) */
};

struct admin_policy {
    struct str tier; /* ClusterNetworkPolicy: Admin, Baseline */
    struct opt_int priority;
    struct admin_peer subject;
    bool is_broken; /* it has errors outside its rules */
    LIST(struct admin_rule) ingress, egress;
};
