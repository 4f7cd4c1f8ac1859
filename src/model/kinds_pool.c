/* What addresses come from: field tables of IPPool, IPReservation, IPAMConfiguration and
 * BlockAffinity. Source: Calico's api/pkg/apis/projectcalico/v3 (ippool.go, ipreservation.go,
 * ipamconfig.go, blockaffinity.go); rules across fields are in rules_pool.c. */
#include "model/pool.h"
#include "model/schema.h"

static const char *const MODES[] = {"Never", "Always", "CrossSubnet", NULL};
static const char *const USES[] = {"Workload", "Tunnel", "LoadBalancer", NULL};
static const char *const ASSIGNMENTS[] = {"Automatic", "Manual", NULL};
static const char *const ENABLED[] = {"Enabled", "Disabled", NULL};
static const char *const STATES[] = {"confirmed", "pending", "pendingDeletion", NULL};

#define POOL(m) AT(struct ip_pool_spec, m)
static const struct field F_POOL[] = {
    {NAMED("cidr"), F_NET, POOL(cidr), .flags = FF_REQUIRED, .check = CHECK_NET, .max_len = 48,
     .doc = "the pool's prefix; can't be changed later"},
    {NAMED("vxlanMode"), F_STR, POOL(vxlan_mode), .flags = FF_FILL, .values = MODES,
     .dflt = "\"Never\"", .doc = "VXLAN between nodes: Never, Always or CrossSubnet"},
    {NAMED("ipipMode"), F_STR, POOL(ipip_mode), .flags = FF_FILL, .values = MODES,
     .dflt = "\"Never\"", .doc = "IPIP between nodes: Never, Always or CrossSubnet; IPv4 only"},
    {NAMED("natOutgoing"), F_BOOL, POOL(nat_outgoing), .dflt = "false",
     .doc = "masquerade what its pods send out of all pools"},
    {NAMED("disabled"), F_BOOL, POOL(disabled), .dflt = "false", .doc = "assign nothing from it"},
    {NAMED("disableBGPExport"), F_BOOL, POOL(disable_bgp_export), .dflt = "false",
     .doc = "tell no BGP peer of it"},
    {NAMED("blockSize"), F_INT, POOL(block_size), AS_UNSIGNED, FF_RANGE, .min = 0, .max = 128,
     .doc = "prefix length of a node's block: 20 to 32 (26 when absent), for IPv6 116 to 128 "
            "(122); can't be changed later"},
    {NAMED("nodeSelector"), F_STR, POOL(node_selector), .flags = FF_FILL, .check = CHECK_SELECTOR1,
     .max_len = 1024, .dflt = "\"all()\"", .doc = "selector on the nodes that may use it"},
    {NAMED("namespaceSelector"), F_STR, POOL(namespace_selector), .check = CHECK_SELECTOR1,
     .max_len = 1024, .doc = "selector on the namespaces that may use it"},
    {NAMED("allowedUses"), F_STRS, POOL(allowed_uses), .flags = FF_RANGE | FF_UNIQUE, .max = 10,
     .values = USES, .doc = "Workload, Tunnel or LoadBalancer; Workload and Tunnel when absent"},
    {NAMED("assignmentMode"), F_STR, POOL(assignment_mode), .flags = FF_FILL, .values = ASSIGNMENTS,
     .dflt = "\"Automatic\"", .doc = "Manual: only for those that name the pool or an address"},
};
static const struct schema S_POOL = {"IPPoolSpec", FIELDS(F_POOL),
                                     .size = sizeof(struct ip_pool_spec), .rules = ip_pool_rules};
const struct kind_def def_ip_pool = {
    .spec = &S_POOL,
    .size = sizeof(struct ip_pool_spec),
    .is_spec_required = true,
    .doc = "Addresses for pods, cut into blocks that nodes take.",
};

static const struct field F_RESERVATION[] = {
    {NAMED("reservedCIDRs"), F_NETS, AT(struct ip_reservation_spec, reserved_cidrs),
     .flags = FF_UNIQUE, .check = CHECK_CIDR, .doc = "addresses and prefixes never assigned"},
};
static const struct schema S_RESERVATION = {"IPReservationSpec", FIELDS(F_RESERVATION),
                                            .size = sizeof(struct ip_reservation_spec)};
const struct kind_def def_ip_reservation = {
    .spec = &S_RESERVATION,
    .size = sizeof(struct ip_reservation_spec),
    .doc = "Addresses of pools that are not assigned to pods.",
};

#define IPAM(m) AT(struct ipam_configuration_spec, m)
static const struct field F_IPAM[] = {
    {NAMED("strictAffinity"), F_BOOL, IPAM(strict_affinity), .dflt = "false",
     .doc = "a node uses its own blocks alone"},
    {NAMED("autoAllocateBlocks"), F_BOOL, IPAM(auto_allocate_blocks), .dflt = "true",
     .doc = "a node takes another block when it needs one"},
    {NAMED("maxBlocksPerHost"), F_INT, IPAM(max_blocks_per_host), AS_I64, FF_RANGE, .min = 0,
     .max = 1000000, .dflt = "0", .doc = "most blocks of a node; 0: no limit"},
    {NAMED("kubeVirtVMAddressPersistence"), F_STR, .values = ENABLED,
     .doc = "virtual machines keep their addresses: Enabled or Disabled"},
    {NAMED("ipCooldownSeconds"), F_INT, IPAM(ip_cooldown_seconds), AS_I64, FF_RANGE, .min = 0,
     .max = 1200, .dflt = "0", .doc = "how long a released address rests"},
};
static const struct schema S_IPAM = {"IPAMConfigurationSpec", FIELDS(F_IPAM),
                                     .size = sizeof(struct ipam_configuration_spec),
                                     .rules = ipam_configuration_rules};
const struct kind_def def_ipam_configuration = {
    .spec = &S_IPAM,
    .size = sizeof(struct ipam_configuration_spec),
    .name = NAME_DEFAULT,
    .doc = "How addresses are assigned. There is one, named default.",
};

static const struct field F_AFFINITY[] = {
    {NAMED("state"), F_STR, .flags = FF_REQUIRED, .values = STATES,
     .doc = "confirmed, pending or pendingDeletion"},
    {NAMED("node"), F_STR, .flags = FF_REQUIRED, .doc = "the node that has the block"},
    {NAMED("type"), F_STR, .doc = "host, or virtual for load balancers"},
    {NAMED("cidr"), F_STR, .flags = FF_REQUIRED, .check = CHECK_NET, .doc = "the block"},
    {NAMED("deleted"), F_BOOL, .dflt = "false", .doc = "for programs: about to go"},
};
static const struct schema S_AFFINITY = {"BlockAffinitySpec", FIELDS(F_AFFINITY),
                                         .rules = block_affinity_rules};
const struct kind_def def_block_affinity = {
    .spec = &S_AFFINITY,
    .is_spec_required = true,
    .doc = "Which node has which block of a pool. Made by programs.",
};
