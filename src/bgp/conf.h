/* From resources to what the engine is told: which peers, with which policy, which routes of our
 * own, what goes into the kernel. A pure function of the resources and the node's name, which
 * encodes what Calico's templates for BIRD encode (confd/pkg/backends/calico and
 * node/filesystem/etc/calico/confd/templates). */
#pragma once

#include "base/ip.h"
#include "bgp/bfd.h"
#include "bgp/sock_ao.h"
#include "bgp/speaker.h"
#include "model/model.h"

enum {
    CONF_AS_DEFAULT = 64512,
    CONF_PRIORITY_DEFAULT = 1024, /* metric of a route in the kernel */
    CONF_MAX_PATHS = 16,          /* next hops of a route in the kernel, as BIRD's merge paths */
};

/* A block of a node. */
struct conf_block {
    struct prefix cidr;
    struct str node, state; /* "confirmed", … */
};

struct conf_input {
    struct str node_name;
    struct str router_id;         /* CALICO_ROUTER_ID: an address, "hash", or nothing */
    bool is_alone;                /* from a file: what no rule decides is announced */
    bool use_pod_cidr;            /* USE_POD_CIDR: blocks are the v1 Node's podCIDRs */
    const struct object *objects; /* read by object_read; any order */
    size_t n_objects;
    const struct conf_block *blocks; /* beside BlockAffinities among the objects */
    size_t n_blocks;
};

enum conf_peer_type { CONF_MESH, CONF_NODE_PEER, CONF_GLOBAL_PEER, CONF_WORKLOAD_PEER };

struct conf_peer {
    struct peer_config c; /* filters are owned by the conf. Its name says where the peer is, so that
                             a session outlives a change of what it is for */
    struct str session;   /* Calico's name of it: "Mesh_10_0_0_2" */
    enum conf_peer_type type;
    struct str resource; /* name of the BGPPeer; "" for the mesh */
    struct str node;     /* the Calico node that it is; "" if none */
    struct str password; /* of MD5; n == 0: none */
    struct ao_keys ao;   /* of TCP-AO, without those whose secret is missing; n == 0: none */
    struct str interface;
    bool has_bfd;
    struct bfd_config bfd;
    struct ip46 gateway; /* reachableBy; IP_NONE: none */
};

/* A prefix that we announce by configuration. */
struct conf_route {
    struct prefix prefix;
    bool is_block; /* of pods: the kernel gets a blackhole for it, so that what is not there does
                      not loop. Else of services */
    struct str
        owner; /* for explain: "block of node a", "Service web/front (LoadBalancer, Local)" */
};

enum kernel_verdict {
    KERNEL_ACCEPT,
    KERNEL_REJECT,
    KERNEL_TUNNEL, /* by the IPIP device */
    KERNEL_CROSS,  /* by the IPIP device if the next hop is in another subnet */
};
struct conf_kernel_rule {
    struct prefix cidr;
    enum kernel_verdict verdict;
    struct str owner; /* "IPPool default", "serviceClusterIPs" */
};

/* A BMP station (RFC 7854). */
struct conf_station {
    struct ip46 address;
    uint16_t port;
    uint32_t statistics_s; /* between reports; 0: none */
};
/* MRT files (RFC 6396). */
struct conf_mrt {
    struct str directory;       /* n == 0: none are written */
    uint32_t rotate_s, table_s; /* table_s 0: no table is written */
    uint32_t keep;              /* files of a kind */
};

struct bgp_conf {
    struct arena a;
    struct speaker_config speaker;
    bool has_node;         /* the Node is there and has addresses; without: no peers */
    struct prefix node[2]; /* [BGP_V4], [BGP_V6]: address with the subnet's length; IP_NONE */
    uint16_t listen_port;
    bool bind_node_ip;
    enum log_conf_level { CONF_LOG_UNSET = -1 } log_level; /* else enum log_level */
    uint32_t priority[BGP_N_FAMILIES];                     /* normal metric */
    struct conf_peer *peers;                               /* sorted by session */
    size_t n_peers;
    struct conf_route *routes; /* sorted by prefix */
    size_t n_routes;
    struct conf_kernel_rule *kernel; /* the first that holds the prefix decides */
    size_t n_kernel;
    struct ip46 *no_hops; /* next hops that must not be used: WireGuard carries these */
    size_t n_no_hops;
    struct str *ignored; /* interfaces, with *, whose addresses are not ours to announce */
    size_t n_ignored;
    struct ip46 local_peering[BGP_N_FAMILIES]; /* what peers in pods talk to; IP_NONE */
    struct str *local_links; /* host sides of pods that peer; each has that address */
    size_t n_local_links;
    struct conf_station *stations;
    size_t n_stations;
    struct conf_mrt mrt;
    struct str *problems; /* what was asked for and can't be done, as sentences; sorted */
    size_t n_problems;
};

/* Never fails: what is wrong is in problems, and the rest is done. Caller owns the result. */
struct bgp_conf *bgp_conf_build(const struct conf_input *in);
void bgp_conf_free(struct bgp_conf *c); /* accepts NULL */

/* What becomes of a route in the kernel. hop: its next hop. */
enum kernel_verdict bgp_conf_kernel(const struct bgp_conf *c, const struct prefix *p,
                                    const struct ip46 *hop);
/* Metric of a learned route: 2147483647 - LOCAL_PREF where that came of Calico's arithmetic, else
 * the normal one. */
uint32_t bgp_conf_metric(const struct bgp_conf *c, const struct prefix *p, uint32_t local_pref);
/* Are the addresses of this interface not to be announced? */
bool bgp_conf_is_ignored(const struct bgp_conf *c, struct str interface);

/* The whole as text, one line a thing: for `margay bgp --check` and tests. Passwords are hidden. */
void bgp_conf_print(const struct bgp_conf *c, struct buf *b);

/* Is the kind of any use here? */
bool bgp_conf_uses(enum kind_id kind);
/* Reads FILE: YAML documents of projectcalico.org/v3 and v1 Secret, Service, EndpointSlice, Node.
 * All or nothing; ERR_INVALID with "FILE:LINE: KIND/NAME: PATH: …" for each error in errors. The
 * objects live in a. */
MG_NODISCARD int bgp_conf_read(const char *path, struct arena *a, struct object **out, size_t *n,
                               struct buf *errors);
