/* Links: veth and netkit pairs, flags, addresses, settings of an interface; links by name or index.
 */
#pragma once

#include "netlink/nl.h"

#include <net/if.h>

/* Settings of one interface as /proc/sys/net/ipvX/conf/IF has them; LINK_CONF_UNKNOWN where the
 * kernel didn't say. */
#define LINK_CONF_UNKNOWN (-1)
struct link_conf {
    int32_t v4_forwarding, v4_proxy_arp, v4_route_localnet;
    int32_t v6_forwarding, v6_proxy_ndp, v6_accept_ra, v6_accept_dad, v6_disable;
};

struct link {
    int index;
    char name[IF_NAMESIZE];
    char kind[16]; /* "veth", "netkit"; "" for hardware */
    unsigned flags;
    uint32_t mtu, group;
    int peer_index; /* IFLA_LINK; 0 if unknown */
    int master;     /* 0 = none */
    uint8_t mac[6];
    bool has_mac;
    struct link_conf conf;
};

struct veth {
    const char *name, *peer_name;
    const uint8_t *mac, *peer_mac; /* 6 bytes; NULL: the kernel draws one */
    uint32_t mtu;                  /* 0: the kernel's default */
    uint32_t n_queues;             /* 0: the kernel's default */
    int peer_netns_fd;             /* -1: same namespace */
};

/* Appends the birth of a pair; neither end is up. -EEXIST: one of the names is taken. */
size_t link_add_veth(struct nl *nl, const struct veth *v);
/* The same of a netkit pair that passes all and carries Ethernet (Linux 6.7; -EOPNOTSUPP without).
 */
size_t link_add_netkit(struct nl *nl, const struct veth *v);
/* Is it one end of such a pair? */
bool link_is_pair(const struct link *l);

/* What to change; the link is named by index, or by name where index is 0. */
struct link_change {
    int index;
    const char *name;
    bool set_up, up;
    const uint8_t *mac; /* 6 bytes or NULL */
    uint32_t mtu;       /* 0: leave */
    bool set_group;
    uint32_t group;
    const struct link_conf *v4_conf; /* its IPv4 values are written; _UNKNOWN: leave */
    bool use_eui64; /* the link-local address comes from the MAC; -EAFNOSUPPORT without IPv6 */
};
size_t link_change(struct nl *nl, const struct link_change *c);
size_t link_del(struct nl *nl, int index);
size_t link_del_name(struct nl *nl, const char *name);
/* Deletes every link of the group, paying the kernel's waits once. group is not 0. */
size_t link_del_group(struct nl *nl, uint32_t group);
/* Delay of answers for others' addresses, 1/100 s (/proc/sys/net/ipv4/neigh/IF/proxy_delay). */
size_t link_proxy_delay(struct nl *nl, int index, uint32_t hundredths);

/* False when nlh is not a link that can be told. */
bool link_parse(const struct nlmsghdr *nlh, struct link *out);
/* ERR_NOT_FOUND when there is none. */
MG_NODISCARD int link_get(struct nl *nl, const char *name, struct link *out, struct err *e);
MG_NODISCARD int link_get_index(struct nl *nl, int index, struct link *out, struct err *e);
MG_NODISCARD int link_dump(struct nl *nl, int (*cb)(void *arg, const struct link *l), void *arg,
                           struct err *e);
/* Can it be a name of an interface: 1..15 bytes, none of them '/', ':' or blank, not "." or "..".
 */
bool link_name_is_valid(struct str s);
