/* The ways to other nodes' pods in the kernel: routes, blackholes for own blocks, VXLAN devices
 * with their neighbour and forwarding entries. Desired state in, kernel made so, drift repaired.
 * What is ours: the devices vxlan.calico and vxlan-v6.calico, routes of the main table with
 * protocol 80 that lead there or nowhere, and, unless BGP makes them, all others with that
 * protocol. */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "ipam/paths.h"

enum { OVERLAY_PROTOCOL = 80 };

struct overlay;

/* A VXLAN device of this node. */
struct overlay_device {
    struct ip46 local; /* the node's address */
    struct ip46 addr;  /* the device's, a pool's */
    uint8_t mac[6];
    uint32_t vni; /* 4096 with Calico */
    uint16_t port;
    uint32_t mtu; /* 0: what the interface with the local address leaves */
};

/* Works in the calling thread's network namespace. has_bgp: routes by nodes' own addresses are
 * somebody else's. NULL with e. */
struct overlay *overlay_new(struct loop *l, bool has_bgp, struct err *e);
/* Leaves the kernel as it is. */
void overlay_free(struct overlay *o); /* accepts NULL */

/* The device of a family; NULL: none, one that is there goes. */
void overlay_set_device(struct overlay *o, enum ip_family family, const struct overlay_device *d);
void overlay_route(struct overlay *o, const struct path_route *r);
void overlay_route_gone(struct overlay *o, const struct prefix *dst);
void overlay_vtep(struct overlay *o, const struct path_vtep *v);
void overlay_vtep_gone(struct overlay *o, const struct path_vtep *v);

/* Writes what changed; the first time all is read and what differs is written. An error leaves the
 * rest to a later try, which comes by itself. */
MG_NODISCARD int overlay_flush(struct overlay *o, struct err *e);

struct overlay_stats {
    size_t n_routes, n_vteps;
    uint64_t writes, repairs;
    char problem[256]; /* what can't be made so; "" without */
};
void overlay_stats(const struct overlay *o, struct overlay_stats *out);
