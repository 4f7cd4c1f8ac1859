/* VXLAN devices (RFC 7348) without learning, and their forwarding entries: which node is behind
 * which MAC address. */
#pragma once

#include "base/ip.h"
#include "netlink/link.h"

struct vxlan {
    char name[IF_NAMESIZE];
    uint32_t vni;
    uint16_t port;
    struct ip46 local; /* outer source address */
    int parent;        /* interface that packets leave by; 0: by the route */
    uint8_t mac[6];
    uint32_t mtu;
};

/* Appends the birth of a device, not up yet. -EEXIST. */
size_t vxlan_add(struct nl *nl, const struct vxlan *v);
/* What a device is; -EINVAL: an interface of that name is no VXLAN device. ERR_NOT_FOUND. */
MG_NODISCARD int vxlan_get(struct nl *nl, const char *name, struct vxlan *out, struct link *link,
                           struct err *e);

struct fdb {
    int index; /* of the device */
    uint8_t mac[6];
    struct ip46 dst; /* the node */
};
/* Appends a permanent entry, whatever stood there before. */
size_t fdb_set(struct nl *nl, const struct fdb *f);
size_t fdb_del(struct nl *nl, const struct fdb *f);
/* Permanent entries of one device. */
MG_NODISCARD int fdb_dump(struct nl *nl, int index, int (*cb)(void *arg, const struct fdb *f),
                          void *arg, struct err *e);
