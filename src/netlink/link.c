/* Links over rtnetlink. See link.h. */
#include "netlink/link.h"

#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sys/socket.h>

static size_t add(struct nl *nl, uint16_t type, uint16_t flags, int index) {
    struct ifinfomsg m = {.ifi_family = AF_UNSPEC, .ifi_index = index};
    return nl_add(nl, type, flags, &m, sizeof(m));
}

static void put_common(struct nl *nl, const char *name, const uint8_t *mac, const struct veth *v) {
    nl_put_strz(nl, IFLA_IFNAME, name);
    if (mac) {
        nl_put(nl, IFLA_ADDRESS, mac, 6);
    }
    if (v->mtu) {
        nl_put_u32(nl, IFLA_MTU, v->mtu);
    }
    if (v->n_queues) {
        nl_put_u32(nl, IFLA_NUM_TX_QUEUES, v->n_queues);
        nl_put_u32(nl, IFLA_NUM_RX_QUEUES, v->n_queues);
    }
}

/* linux/if_link.h of 6.7 on: what is here has to build with older headers too. */
enum { NETKIT_PEER_INFO = 1, NETKIT_MODE = 5, NETKIT_MODE_L2 = 0 };
_Static_assert((int)NETKIT_PEER_INFO == (int)VETH_INFO_PEER, "one number for both kinds");

static size_t add_pair(struct nl *nl, const struct veth *v, bool is_netkit) {
    struct ifinfomsg peer = {.ifi_family = AF_UNSPEC};
    size_t i = add(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
    put_common(nl, v->name, v->mac, v);
    size_t info = nl_nest(nl, IFLA_LINKINFO, NULL, 0);
    nl_put_strz(nl, IFLA_INFO_KIND, is_netkit ? "netkit" : "veth");
    size_t data = nl_nest(nl, IFLA_INFO_DATA, NULL, 0);
    if (is_netkit) {
        nl_put_u32(nl, NETKIT_MODE, NETKIT_MODE_L2);
    }
    size_t p = nl_nest(nl, VETH_INFO_PEER, &peer, sizeof(peer));
    put_common(nl, v->peer_name, v->peer_mac, v);
    if (v->peer_netns_fd >= 0) {
        nl_put_u32(nl, IFLA_NET_NS_FD, (uint32_t)v->peer_netns_fd);
    }
    nl_nest_end(nl, p);
    nl_nest_end(nl, data);
    nl_nest_end(nl, info);
    return i;
}

size_t link_add_veth(struct nl *nl, const struct veth *v) {
    return add_pair(nl, v, false);
}

size_t link_add_netkit(struct nl *nl, const struct veth *v) {
    return add_pair(nl, v, true);
}

bool link_is_pair(const struct link *l) {
    return strcmp(l->kind, "veth") == 0 || strcmp(l->kind, "netkit") == 0;
}

static void put_v4_conf(struct nl *nl, const struct link_conf *c) {
    const struct {
        uint16_t type;
        int32_t v;
    } all[] = {{IPV4_DEVCONF_FORWARDING, c->v4_forwarding},
               {IPV4_DEVCONF_PROXY_ARP, c->v4_proxy_arp},
               {IPV4_DEVCONF_ROUTE_LOCALNET, c->v4_route_localnet}};
    size_t inet = nl_nest(nl, AF_INET, NULL, 0);
    size_t conf = nl_nest(nl, IFLA_INET_CONF, NULL, 0);
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i].v != LINK_CONF_UNKNOWN) {
            nl_put_u32(nl, all[i].type, (uint32_t)all[i].v);
        }
    }
    nl_nest_end(nl, conf);
    nl_nest_end(nl, inet);
}

size_t link_change(struct nl *nl, const struct link_change *c) {
    struct ifinfomsg m = {.ifi_family = AF_UNSPEC,
                          .ifi_index = c->index,
                          .ifi_change = c->set_up ? IFF_UP : 0,
                          .ifi_flags = c->set_up && c->up ? IFF_UP : 0};
    size_t i = nl_add(nl, RTM_SETLINK, 0, &m, sizeof(m));
    if (!c->index) {
        nl_put_strz(nl, IFLA_IFNAME, c->name);
    }
    if (c->mac) {
        nl_put(nl, IFLA_ADDRESS, c->mac, 6);
    }
    if (c->mtu) {
        nl_put_u32(nl, IFLA_MTU, c->mtu);
    }
    if (c->set_group) {
        nl_put_u32(nl, IFLA_GROUP, c->group);
    }
    if (c->v4_conf || c->use_eui64) {
        size_t spec = nl_nest(nl, IFLA_AF_SPEC, NULL, 0);
        if (c->v4_conf) {
            put_v4_conf(nl, c->v4_conf);
        }
        if (c->use_eui64) {
            size_t inet6 = nl_nest(nl, AF_INET6, NULL, 0);
            nl_put_u8(nl, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_EUI64);
            nl_nest_end(nl, inet6);
        }
        nl_nest_end(nl, spec);
    }
    return i;
}

size_t link_del(struct nl *nl, int index) {
    return add(nl, RTM_DELLINK, 0, index);
}

size_t link_del_name(struct nl *nl, const char *name) {
    size_t i = add(nl, RTM_DELLINK, 0, 0);
    nl_put_strz(nl, IFLA_IFNAME, name);
    return i;
}

size_t link_del_group(struct nl *nl, uint32_t group) {
    mg_assert(group != 0); /* every link that nobody grouped is in group 0 */
    size_t i = add(nl, RTM_DELLINK, 0, 0);
    nl_put_u32(nl, IFLA_GROUP, group);
    return i;
}

size_t link_proxy_delay(struct nl *nl, int index, uint32_t hundredths) {
    struct ndtmsg m = {.ndtm_family = AF_INET};
    uint64_t ms = (uint64_t)hundredths * 10;
    size_t i = nl_add(nl, RTM_SETNEIGHTBL, 0, &m, sizeof(m));
    nl_put_strz(nl, NDTA_NAME, "arp_cache");
    size_t parms = nl_nest(nl, NDTA_PARMS, NULL, 0);
    nl_put_u32(nl, NDTPA_IFINDEX, (uint32_t)index);
    nl_put(nl, NDTPA_PROXY_DELAY, &ms, sizeof(ms));
    nl_nest_end(nl, parms);
    return i;
}

/* Element i of an array of the kernel's int32; _UNKNOWN where the array is shorter. */
static int32_t conf_at(const struct nlattr *a, size_t i) {
    int32_t v = LINK_CONF_UNKNOWN;
    const char *p = nl_attr_data(a, (i + 1) * sizeof(v));
    if (p) {
        memcpy(&v, p + i * sizeof(v), sizeof(v));
    }
    return v;
}

static void parse_conf(const struct nlattr *spec, struct link_conf *c) {
    const struct nlattr *af[AF_INET6 + 1], *v4[IFLA_INET_CONF + 1], *v6[IFLA_INET6_CONF + 1];
    nl_attrs_nested(spec, af, AF_INET6);
    nl_attrs_nested(af[AF_INET], v4, IFLA_INET_CONF);
    nl_attrs_nested(af[AF_INET6], v6, IFLA_INET6_CONF);
    const struct nlattr *a = v4[IFLA_INET_CONF], *b = v6[IFLA_INET6_CONF];
    /* The IPv4 array begins with setting 1. */
    c->v4_forwarding = conf_at(a, IPV4_DEVCONF_FORWARDING - 1);
    c->v4_proxy_arp = conf_at(a, IPV4_DEVCONF_PROXY_ARP - 1);
    c->v4_route_localnet = conf_at(a, IPV4_DEVCONF_ROUTE_LOCALNET - 1);
    c->v6_forwarding = conf_at(b, DEVCONF_FORWARDING);
    c->v6_proxy_ndp = conf_at(b, DEVCONF_PROXY_NDP);
    c->v6_accept_ra = conf_at(b, DEVCONF_ACCEPT_RA);
    c->v6_accept_dad = conf_at(b, DEVCONF_ACCEPT_DAD);
    c->v6_disable = conf_at(b, DEVCONF_DISABLE_IPV6);
}

bool link_parse(const struct nlmsghdr *nlh, struct link *out) {
    struct ifinfomsg m;
    const struct nlattr *tb[IFLA_GROUP + 1];
    const struct nlattr *info[IFLA_INFO_KIND + 1];
    if ((nlh->nlmsg_type != RTM_NEWLINK && nlh->nlmsg_type != RTM_DELLINK) ||
        nlh->nlmsg_len < NLMSG_HDRLEN + sizeof(m)) {
        return false;
    }
    memcpy(&m, (const char *)nlh + NLMSG_HDRLEN, sizeof(m));
    nl_attrs(nlh, sizeof(m), tb, ARRAY_LEN(tb) - 1);
    struct link l = {.index = m.ifi_index, .flags = m.ifi_flags};
    /* Bridges tell of their ports in messages that look alike but are not of the link itself. */
    if (m.ifi_family != AF_UNSPEC || m.ifi_index <= 0 ||
        !nl_attr_text(tb[IFLA_IFNAME], l.name, sizeof(l.name))) {
        return false;
    }
    nl_attrs_nested(tb[IFLA_LINKINFO], info, IFLA_INFO_KIND);
    (void)nl_attr_text(info[IFLA_INFO_KIND], l.kind, sizeof(l.kind)); /* "" if longer: not ours */
    l.mtu = nl_attr_u32(tb[IFLA_MTU], 0);
    l.group = nl_attr_u32(tb[IFLA_GROUP], 0);
    l.master = (int)nl_attr_u32(tb[IFLA_MASTER], 0);
    l.peer_index = (int)nl_attr_u32(tb[IFLA_LINK], 0);
    const void *mac = nl_attr_data(tb[IFLA_ADDRESS], 6);
    if (mac && nl_attr_bytes(tb[IFLA_ADDRESS]) == 6) {
        memcpy(l.mac, mac, 6);
        l.has_mac = true;
    }
    parse_conf(tb[IFLA_AF_SPEC], &l.conf);
    *out = l;
    return true;
}

static int take_one(void *arg, const struct nlmsghdr *nlh) {
    (void)link_parse(nlh, arg);
    return 0;
}

static int get(struct nl *nl, int index, const char *name, struct link *out, struct err *e) {
    struct link l = {0};
    (void)add(nl, RTM_GETLINK, 0, index);
    if (name) {
        nl_put_strz(nl, IFLA_IFNAME, name);
    }
    nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    int r = nl_get(nl, sizeof(struct ifinfomsg), take_one, &l, e);
    if (r == -ENODEV || (r == 0 && !l.index)) {
        return err_set(e, ERR_NOT_FOUND, "there is no interface %s", name ? name : "of that index");
    }
    if (r == 0) {
        *out = l;
    }
    return r;
}

int link_get(struct nl *nl, const char *name, struct link *out, struct err *e) {
    return get(nl, 0, name, out, e);
}

int link_get_index(struct nl *nl, int index, struct link *out, struct err *e) {
    return get(nl, index, NULL, out, e);
}

struct dump {
    int (*cb)(void *, const struct link *);
    void *arg;
};

static int on_dump(void *arg, const struct nlmsghdr *nlh) {
    struct dump *d = arg;
    struct link l;
    return link_parse(nlh, &l) ? d->cb(d->arg, &l) : 0;
}

int link_dump(struct nl *nl, int (*cb)(void *, const struct link *), void *arg, struct err *e) {
    struct dump d = {cb, arg};
    (void)add(nl, RTM_GETLINK, 0, 0);
    nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    return nl_dump(nl, sizeof(struct ifinfomsg), on_dump, &d, e);
}

bool link_name_is_valid(struct str s) {
    if (s.n == 0 || s.n >= IF_NAMESIZE || str_is(s, ".") || str_is(s, "..")) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c <= ' ' || c == '/' || c == ':' || c == 0x7f || c == '%') {
            return false;
        }
    }
    return true;
}
