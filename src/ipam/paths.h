/* Which way each block of addresses lies: from blocks (whose they are), nodes (where these are) and
 * pools (how packets get there) to the routes and tunnel ends that this node should have. No
 * kernel, no store: values in, changes out. Source: felix/calc/l3_route_resolver.go,
 * vxlan_resolver.go.
 *
 *     own block                                   blackhole: what no pod has goes nowhere
 *     another's, pool with vxlanMode Always       by the VXLAN device, to the node's end of it
 *     …, CrossSubnet, node in our subnet          by the node's own address
 *     …, no encapsulation, node in our subnet     likewise, unless BGP makes these routes
 *     …, no encapsulation, node elsewhere         none: only BGP knows a way
 *
 * An address that a node holds in another's block ("borrowed") has a route of its own. */
#pragma once

#include "base/ip.h"
#include "base/str.h"

struct paths;

enum path_mode { PATH_PLAIN, PATH_VXLAN, PATH_VXLAN_CROSS, PATH_IPIP, PATH_IPIP_CROSS };

struct path_pool {
    struct prefix cidr;
    enum path_mode mode;
};

struct path_node {
    struct prefix addr[2];     /* IPv4, IPv6 of the node, with its subnet's length; IP_NONE: none */
    struct ip46 vxlan_addr[2]; /* of its VXLAN devices; IP_NONE: none (yet) */
    uint8_t vxlan_mac[2][6];
};

/* An address of a block that another node than the block's holds. */
struct path_borrowed {
    struct ip46 ip;
    struct str node;
};

struct path_block {
    struct prefix cidr;
    struct str node; /* empty: nobody's */
    const struct path_borrowed *borrowed;
    size_t n_borrowed;
};

enum path_kind { PATH_TO_NOWHERE, PATH_DIRECT, PATH_BY_VXLAN };

struct path_route {
    struct prefix dst;
    enum path_kind kind;
    struct ip46 via; /* PATH_DIRECT: the node's address; PATH_BY_VXLAN: its end of the tunnel */
};

/* The other end of a tunnel. */
struct path_vtep {
    struct ip46 addr; /* inside */
    struct ip46 node; /* outside */
    uint8_t mac[6];
};

struct path_ops {
    void (*route)(void *arg, const struct path_route *r);
    void (*route_gone)(void *arg, const struct prefix *dst);
    void (*vtep)(void *arg, const struct path_vtep *v);
    void (*vtep_gone)(void *arg, const struct path_vtep *v);
};

/* own: this node's name. has_bgp: routes to nodes in our subnet without encapsulation are BGP's. */
struct paths *paths_new(struct str own, bool has_bgp, const struct path_ops *ops, void *arg);
void paths_free(struct paths *p); /* accepts NULL */

/* What is; NULL: no longer. Nothing is told before paths_flush. */
void paths_pool(struct paths *p, struct str name, const struct path_pool *pool);
/* Returns whether it differs from what was known. */
bool paths_node(struct paths *p, struct str name, const struct path_node *node);
void paths_block(struct paths *p, const struct prefix *cidr, const struct path_block *block);
/* Tells the difference to what was told. */
void paths_flush(struct paths *p);

/* Each node that is known, in no order. */
void paths_each_node(const struct paths *p,
                     void (*cb)(void *arg, const char *name, const struct path_node *node),
                     void *arg);

struct paths_stats {
    size_t n_nodes, n_blocks, n_routes, n_vteps;
    size_t n_unreachable;  /* routes that can't be: other subnet, no encapsulation, no BGP */
    char unreachable[256]; /* one of them in words; "" without */
    bool wants_vxlan[2];   /* some pool of the family is encapsulated so */
};
void paths_stats(const struct paths *p, struct paths_stats *out);

/* The MAC address that a node's VXLAN device has unless its Node says another: 0x66 and the first
 * five bytes of SHA-1 of the name (IPv6: name-v6). */
void path_vxlan_mac(struct str node, enum ip_family family, uint8_t mac[6]);
/* The one that text says; of the name if it is none. */
void path_node_mac(struct str text, struct str node, enum ip_family family, uint8_t mac[6]);
