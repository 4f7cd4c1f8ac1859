/* See vxlan.h. */
#include "netlink/vxlan.h"

#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

size_t vxlan_add(struct nl *nl, const struct vxlan *v) {
    struct ifinfomsg m = {.ifi_family = AF_UNSPEC};
    size_t i = nl_add(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof(m));
    nl_put_strz(nl, IFLA_IFNAME, v->name);
    nl_put(nl, IFLA_ADDRESS, v->mac, 6);
    nl_put_u32(nl, IFLA_MTU, v->mtu);
    size_t info = nl_nest(nl, IFLA_LINKINFO, NULL, 0);
    nl_put_strz(nl, IFLA_INFO_KIND, "vxlan");
    size_t data = nl_nest(nl, IFLA_INFO_DATA, NULL, 0);
    nl_put_u32(nl, IFLA_VXLAN_ID, v->vni);
    nl_put_u16be(nl, IFLA_VXLAN_PORT, v->port);
    nl_put_u8(nl, IFLA_VXLAN_LEARNING, 0);
    nl_put(nl, v->local.family == IP_V6 ? IFLA_VXLAN_LOCAL6 : IFLA_VXLAN_LOCAL, v->local.b,
           ip_bytes(&v->local));
    if (v->local.family == IP_V6) {
        nl_put_u8(nl, IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 0);
        nl_put_u8(nl, IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 0);
    }
    if (v->parent) {
        nl_put_u32(nl, IFLA_VXLAN_LINK, (uint32_t)v->parent);
    }
    nl_nest_end(nl, data);
    nl_nest_end(nl, info);
    return i;
}

struct reading {
    struct vxlan v;
    struct link link;
    bool is_vxlan;
};

static int take_one(void *arg, const struct nlmsghdr *nlh) {
    struct reading *r = arg;
    const struct nlattr *tb[IFLA_LINKINFO + 1], *info[IFLA_INFO_DATA + 1],
        *data[IFLA_VXLAN_LOCAL6 + 1];
    if (!link_parse(nlh, &r->link)) {
        return 0;
    }
    nl_attrs(nlh, sizeof(struct ifinfomsg), tb, IFLA_LINKINFO);
    nl_attrs_nested(tb[IFLA_LINKINFO], info, IFLA_INFO_DATA);
    nl_attrs_nested(info[IFLA_INFO_DATA], data, IFLA_VXLAN_LOCAL6);
    r->is_vxlan = strcmp(r->link.kind, "vxlan") == 0 && info[IFLA_INFO_DATA];
    memcpy(r->v.name, r->link.name, sizeof(r->v.name));
    memcpy(r->v.mac, r->link.mac, 6);
    r->v.mtu = r->link.mtu;
    r->v.vni = nl_attr_u32(data[IFLA_VXLAN_ID], 0);
    r->v.parent = (int)nl_attr_u32(data[IFLA_VXLAN_LINK], 0);
    const uint8_t *port = nl_attr_data(data[IFLA_VXLAN_PORT], 2);
    r->v.port = port ? (uint16_t)(port[0] << 8 | port[1]) : 0;
    const void *v4 = nl_attr_data(data[IFLA_VXLAN_LOCAL], 4),
               *v6 = nl_attr_data(data[IFLA_VXLAN_LOCAL6], 16);
    if (v4 || v6) {
        r->v.local.family = v4 ? IP_V4 : IP_V6;
        memcpy(r->v.local.b, v4 ? v4 : v6, v4 ? 4 : 16);
    }
    return 0;
}

int vxlan_get(struct nl *nl, const char *name, struct vxlan *out, struct link *link,
              struct err *e) {
    struct ifinfomsg m = {.ifi_family = AF_UNSPEC};
    struct reading x = {0};
    (void)nl_add(nl, RTM_GETLINK, 0, &m, sizeof(m));
    nl_put_strz(nl, IFLA_IFNAME, name);
    nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    int r = nl_get(nl, sizeof(m), take_one, &x, e);
    if (r == -ENODEV || (r == 0 && !x.link.index)) {
        return err_set(e, ERR_NOT_FOUND, "there is no interface %s", name);
    }
    if (r < 0) {
        return r;
    }
    if (!x.is_vxlan) {
        return err_set(e, ERR_INVALID, "interface %s is no VXLAN device", name);
    }
    *out = x.v;
    *link = x.link;
    return 0;
}

static size_t fdb_add(struct nl *nl, uint16_t type, uint16_t flags, const struct fdb *f) {
    struct ndmsg m = {.ndm_family = AF_BRIDGE,
                      .ndm_ifindex = f->index,
                      .ndm_state = NUD_PERMANENT | NUD_NOARP,
                      .ndm_flags = NTF_SELF};
    size_t i = nl_add(nl, type, flags, &m, sizeof(m));
    nl_put(nl, NDA_LLADDR, f->mac, 6);
    nl_put(nl, NDA_DST, f->dst.b, ip_bytes(&f->dst));
    return i;
}

size_t fdb_set(struct nl *nl, const struct fdb *f) {
    return fdb_add(nl, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, f);
}

size_t fdb_del(struct nl *nl, const struct fdb *f) {
    return fdb_add(nl, RTM_DELNEIGH, 0, f);
}

struct dump {
    int index;
    int (*cb)(void *, const struct fdb *);
    void *arg;
};

static int on_dump(void *arg, const struct nlmsghdr *nlh) {
    struct dump *d = arg;
    struct ndmsg m;
    const struct nlattr *tb[NDA_LLADDR + 1];
    struct fdb f = {0};
    if (nlh->nlmsg_type != RTM_NEWNEIGH || nlh->nlmsg_len < NLMSG_HDRLEN + sizeof(m)) {
        return 0;
    }
    memcpy(&m, (const char *)nlh + NLMSG_HDRLEN, sizeof(m));
    nl_attrs(nlh, sizeof(m), tb, NDA_LLADDR);
    const void *mac = nl_attr_data(tb[NDA_LLADDR], 6);
    size_t n = nl_attr_bytes(tb[NDA_DST]);
    const void *dst = nl_attr_data(tb[NDA_DST], n == 16 ? 16 : 4);
    if (m.ndm_family != AF_BRIDGE || m.ndm_ifindex != d->index || !mac || !dst ||
        !(m.ndm_state & NUD_PERMANENT)) {
        return 0;
    }
    f.index = m.ndm_ifindex;
    memcpy(f.mac, mac, 6);
    f.dst.family = n == 16 ? IP_V6 : IP_V4;
    memcpy(f.dst.b, dst, ip_bytes(&f.dst));
    return d->cb(d->arg, &f);
}

int fdb_dump(struct nl *nl, int index, int (*cb)(void *, const struct fdb *), void *arg,
             struct err *e) {
    struct dump d = {index, cb, arg};
    struct ndmsg m = {.ndm_family = AF_BRIDGE, .ndm_ifindex = index};
    (void)nl_add(nl, RTM_GETNEIGH, 0, &m, sizeof(m));
    int r = nl_dump(nl, sizeof(m), on_dump, &d, e);
    return r == -ENODEV ? 0 : r;
}
