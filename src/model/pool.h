/* Decoded specs of what addresses come from: IPPool, IPReservation, IPAMConfiguration. */
#pragma once

#include "base/ip.h"
#include "model/model.h"

struct ip_pool_spec {
    struct prefix cidr;
    unsigned block_size;              /* prefix length of a block: 26, 122 when absent */
    struct str vxlan_mode, ipip_mode; /* Never when absent */
    bool nat_outgoing, disabled, disable_bgp_export;
    struct str node_selector, namespace_selector; /* p NULL = absent (all()) */
    struct str_list allowed_uses;                 /* Workload and Tunnel when absent */
    struct str assignment_mode;                   /* Automatic when absent */
};

struct ip_reservation_spec {
    LIST(struct prefix) reserved_cidrs;
};

struct ipam_configuration_spec {
    bool strict_affinity, auto_allocate_blocks; /* false, true when absent */
    int64_t max_blocks_per_host;                /* 0 = no limit */
    int64_t ip_cooldown_seconds;
};
