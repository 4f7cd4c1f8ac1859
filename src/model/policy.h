/* Decoded specs of policies, in C: Calico's rules (projectcalico.org/v3 policy_common.go, tier.go,
 * profile.go, networkset.go, hostendpoint.go). Texts are as written; nets and ports are parsed. */
#pragma once

#include "base/ip.h"
#include "model/model.h"

/* One entry of ports: a number, a range or a name. */
struct port_spec {
    uint16_t min, max; /* name.p == NULL: min ≤ port ≤ max */
    struct str name;
};

struct service_match {
    bool set;
    struct str name, ns;
};
struct service_account_match {
    bool set;
    struct str_list names;
    struct str selector;
};

struct entity_rule {
    LIST(struct prefix) nets, not_nets;
    struct str selector, not_selector, namespace_selector; /* p NULL = absent */
    LIST(struct port_spec) ports, not_ports;
    struct service_match services;
    struct service_account_match service_accounts;
};

struct icmp_match {
    bool set;
    struct opt_int type, code;
};

struct http_path {
    struct str exact, prefix;
};
struct http_match {
    bool set;
    struct str_list methods;
    LIST(struct http_path) paths;
};

enum rule_action { RULE_ALLOW, RULE_DENY, RULE_LOG, RULE_PASS };

struct rule {
    enum rule_action action;
    struct opt_int ip_version; /* 4 or 6 */
    struct opt_int protocol;   /* IANA number: names are translated */
    struct opt_int not_protocol;
    struct icmp_match icmp, not_icmp;
    struct entity_rule source, destination;
    struct http_match http;
    struct str_map annotations; /* metadata.annotations */
    uint16_t index; /* which of the policy's own rules it is (conversions make several of one);
                       filled in by the calculation */
    bool is_broken; /* it had errors. MODEL_STORE, so that no error lets more through: Deny and Pass
                       became a Deny of everything, Allow and Log match nothing */
};

enum { POLICY_INGRESS = 1, POLICY_EGRESS = 2 };

/* NetworkPolicy, GlobalNetworkPolicy and their staged forms. */
struct policy_spec {
    struct str tier; /* "default" when absent */
    struct opt_float order;
    LIST(struct rule) ingress, egress;
    struct str selector, namespace_selector, service_account_selector;
    unsigned types; /* POLICY_INGRESS | POLICY_EGRESS; 0 = not given */
    bool do_not_track, pre_dnat, apply_on_forward;
    struct str staged_action; /* staged kinds only */
    bool is_broken;           /* it has errors outside its rules */
};

struct profile_spec {
    LIST(struct rule) ingress, egress;
    struct str_map labels_to_apply;
};

struct tier_spec {
    struct opt_float order;
    struct str default_action; /* "Deny" when absent */
};

struct network_set_spec { /* NetworkSet and GlobalNetworkSet */
    LIST(struct prefix) nets;
};

struct endpoint_port {
    struct str name;
    uint16_t port;
    uint8_t protocol; /* IANA number */
};

struct host_endpoint_spec {
    struct str node, interface_name;
    LIST(struct ip46) expected_ips;
    struct str_list profiles;
    LIST(struct endpoint_port) ports;
};

struct endpoint_nat {
    struct str internal_ip, external_ip;
};

struct workload_endpoint_spec {
    struct str orchestrator, workload, node, container_id, pod, endpoint, service_account,
        interface_name, mac;
    LIST(struct prefix) ip_networks;
    struct str_list profiles;
    struct str ipv4_gateway, ipv6_gateway;
    LIST(struct endpoint_port) ports;
    LIST(struct endpoint_nat) ip_nats;
    struct str_list allow_spoofed_source_prefixes;
};
