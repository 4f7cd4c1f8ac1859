/* Routes over rtnetlink. See route.h. */
#include "netlink/route.h"

#include <net/if.h>
#include <sys/socket.h>

static size_t add(struct nl *nl, uint16_t type, uint16_t flags, const struct route *r) {
    uint32_t table = r->table ? r->table : RT_TABLE_MAIN;
    struct rtmsg m = {.rtm_family = r->dst.ip.family == IP_V4 ? AF_INET : AF_INET6,
                      .rtm_dst_len = r->dst.len,
                      .rtm_table = table < 256 ? (uint8_t)table : RT_TABLE_UNSPEC,
                      .rtm_protocol = r->protocol,
                      .rtm_scope = r->scope,
                      .rtm_type = r->type,
                      .rtm_flags = r->is_onlink ? RTNH_F_ONLINK : 0};
    if (type == RTM_NEWROUTE && !r->type) {
        m.rtm_type = RTN_UNICAST;
    }
    if (type == RTM_DELROUTE && !r->scope) {
        m.rtm_scope = RT_SCOPE_NOWHERE; /* the kernel's "any" */
    }
    size_t i = nl_add(nl, type, flags, &m, sizeof(m));
    nl_put_u32(nl, RTA_TABLE, table);
    if (r->dst.len) {
        nl_put(nl, RTA_DST, r->dst.ip.b, ip_bytes(&r->dst.ip));
    }
    if (r->via.family == r->dst.ip.family) {
        nl_put(nl, RTA_GATEWAY, r->via.b, ip_bytes(&r->via));
    }
    if (r->src.family) {
        nl_put(nl, RTA_PREFSRC, r->src.b, ip_bytes(&r->src));
    }
    if (r->oif) {
        nl_put_u32(nl, RTA_OIF, (uint32_t)r->oif);
    }
    if (r->metric) {
        nl_put_u32(nl, RTA_PRIORITY, r->metric);
    }
    if (r->mtu) {
        size_t n = nl_nest(nl, RTA_METRICS, NULL, 0);
        nl_put_u32(nl, RTAX_MTU, r->mtu);
        nl_nest_end(nl, n);
    }
    return i;
}

size_t route_add(struct nl *nl, const struct route *r, uint16_t flags) {
    return add(nl, RTM_NEWROUTE, flags, r);
}

size_t route_del(struct nl *nl, const struct route *r) {
    return add(nl, RTM_DELROUTE, 0, r);
}

static bool take_ip(const struct nlattr *a, uint8_t family, struct ip46 *out) {
    struct ip46 ip = {.family = family};
    const void *p = nl_attr_data(a, ip_bytes(&ip));
    if (p) {
        memcpy(ip.b, p, ip_bytes(&ip));
        *out = ip;
    }
    return p != NULL;
}

bool route_parse(const struct nlmsghdr *nlh, struct route *out) {
    struct rtmsg m;
    const struct nlattr *tb[RTA_TABLE + 1], *metrics[RTAX_MTU + 1];
    if ((nlh->nlmsg_type != RTM_NEWROUTE && nlh->nlmsg_type != RTM_DELROUTE) ||
        nlh->nlmsg_len < NLMSG_HDRLEN + sizeof(m)) {
        return false;
    }
    memcpy(&m, (const char *)nlh + NLMSG_HDRLEN, sizeof(m));
    /* Entries of the route cache are no routes. */
    if ((m.rtm_family != AF_INET && m.rtm_family != AF_INET6) || (m.rtm_flags & RTM_F_CLONED)) {
        return false;
    }
    nl_attrs(nlh, sizeof(m), tb, RTA_TABLE);
    uint8_t family = m.rtm_family == AF_INET ? IP_V4 : IP_V6;
    struct route r = {.protocol = m.rtm_protocol,
                      .scope = m.rtm_scope,
                      .type = m.rtm_type,
                      .table = nl_attr_u32(tb[RTA_TABLE], m.rtm_table),
                      .metric = nl_attr_u32(tb[RTA_PRIORITY], 0),
                      .oif = (int)nl_attr_u32(tb[RTA_OIF], 0),
                      .is_onlink = (m.rtm_flags & RTNH_F_ONLINK) != 0,
                      .is_multipath = tb[RTA_MULTIPATH] != NULL};
    r.dst.ip.family = family;
    r.dst.len = m.rtm_dst_len;
    if (m.rtm_dst_len > ip_bits(&r.dst.ip) ||
        (m.rtm_dst_len > 0 && !take_ip(tb[RTA_DST], family, &r.dst.ip))) {
        return false;
    }
    (void)take_ip(tb[RTA_GATEWAY], family, &r.via);
    (void)take_ip(tb[RTA_PREFSRC], family, &r.src);
    nl_attrs_nested(tb[RTA_METRICS], metrics, RTAX_MTU);
    r.mtu = nl_attr_u32(metrics[RTAX_MTU], 0);
    *out = r;
    return true;
}

struct dump {
    uint32_t table;
    int oif;
    int (*cb)(void *, const struct route *);
    void *arg;
};

static int on_dump(void *arg, const struct nlmsghdr *nlh) {
    struct dump *d = arg;
    struct route r;
    /* Kernels without strict checks give everything. */
    if (!route_parse(nlh, &r) || r.table != d->table || (d->oif && r.oif != d->oif)) {
        return 0;
    }
    return d->cb(d->arg, &r);
}

int route_dump(struct nl *nl, const struct route_filter *f, int (*cb)(void *, const struct route *),
               void *arg, struct err *e) {
    struct dump d = {f->table ? f->table : RT_TABLE_MAIN, f->oif, cb, arg};
    for (int i = 0; i < 2; i++) {
        uint8_t family = i == 0 ? IP_V4 : IP_V6;
        if (f->family && f->family != family) {
            continue;
        }
        struct rtmsg m = {.rtm_family = family == IP_V4 ? AF_INET : AF_INET6};
        (void)nl_add(nl, RTM_GETROUTE, 0, &m, sizeof(m));
        nl_put_u32(nl, RTA_TABLE, d.table);
        if (f->oif) {
            nl_put_u32(nl, RTA_OIF, (uint32_t)f->oif);
        }
        int r = nl_dump(nl, sizeof(m), on_dump, &d, e);
        /* -ENOENT: the table is empty and was never made. */
        if (r < 0 && r != -ENOENT && !(r == -ENODEV && f->oif)) {
            return r;
        }
    }
    return 0;
}
