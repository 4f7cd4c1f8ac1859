/* Decoded views of Kubernetes' own objects: only what networking reads; the tree keeps the rest. */
#pragma once

#include "base/ip.h"
#include "model/model.h"

struct container_port {
    struct str name;
    uint16_t container_port, host_port; /* 0 = absent */
    uint8_t protocol;                   /* IANA number; TCP when absent */
    struct str host_ip;
};

struct k8s_pod {
    struct str node_name, service_account_name;
    bool host_network;
    struct str phase;      /* status.phase */
    LIST(struct ip46) ips; /* status.podIPs, else podIP; else Calico's annotations podIPs, podIP */
    LIST(struct container_port) ports; /* of all containers (init containers that stay, too) */
};

struct label_requirement {
    struct str key, op; /* In, NotIn, Exists, DoesNotExist */
    struct str_list values;
};
struct label_selector {
    bool set;       /* absent and empty differ */
    bool is_broken; /* it had errors. MODEL_STORE: it is not what was meant, so it may allow nothing
                     */
    struct str_map match_labels;
    LIST(struct label_requirement) match_expressions;
};

struct k8s_ip_block {
    bool set;
    struct str cidr; /* as written: conversion judges it */
    struct str_list except;
};
struct k8s_peer {
    struct label_selector pod_selector, namespace_selector;
    struct k8s_ip_block ip_block;
};
struct k8s_port {
    struct str protocol; /* p NULL = TCP */
    struct int_or_str port;
    struct opt_int end_port;
};
struct k8s_rule {
    LIST(struct k8s_port) ports;
    LIST(struct k8s_peer) peers; /* from or to */
    bool is_broken;              /* it had errors. MODEL_STORE: it allows nothing */
};
struct k8s_network_policy {
    struct label_selector pod_selector;
    LIST(struct k8s_rule) ingress, egress;
    struct str_list policy_types;
    struct str staged_action; /* StagedKubernetesNetworkPolicy */
    bool is_broken;           /* it has errors outside its rules and its podSelector */
};

struct service_port {
    struct str name;
    int64_t port;
    uint8_t protocol;
    struct int_or_str target_port;
    struct opt_int node_port;
};
struct k8s_service {
    struct str type, cluster_ip, external_traffic_policy;
    struct str_list cluster_ips, external_ips, load_balancer_ips; /* status.loadBalancer too */
    struct str_map selector;
    LIST(struct service_port) ports;
};

struct slice_port {
    struct str name;
    struct opt_int port;
    uint8_t protocol;
};
struct slice_endpoint {
    LIST(struct ip46) addresses;
    struct opt_bool ready;
    struct str node_name;
};
struct k8s_endpoint_slice {
    struct str address_type; /* IPv4, IPv6, FQDN */
    LIST(struct slice_endpoint) endpoints;
    LIST(struct slice_port) ports;
};

struct k8s_node {
    struct str_list pod_cidrs;
    LIST(struct ip46) internal_ips; /* status.addresses of type InternalIP */
};
