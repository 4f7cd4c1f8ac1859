/* Routes over rtnetlink. See route.h. */
#include "netlink/route.h"

#include <net/if.h>
#include <sys/socket.h>

/* RTA_VIA's payload: family, then the address. */
struct via_text {
    uint8_t p[2 + 16];
    size_t n;
};

static struct via_text via_of(const struct ip46 *ip) {
    struct via_text v = {.n = 2 + ip_bytes(ip)};
    uint16_t family = ip->family == IP_V4 ? AF_INET : AF_INET6;
    memcpy(v.p, &family, 2);
    memcpy(v.p + 2, ip->b, ip_bytes(ip));
    return v;
}

static void put_via(struct nl *nl, const struct ip46 *via, uint8_t family) {
    if (via->family == family) {
        nl_put(nl, RTA_GATEWAY, via->b, ip_bytes(via));
    } else if (via->family) {
        struct via_text v = via_of(via);
        nl_put(nl, RTA_VIA, v.p, v.n);
    }
}

/* struct rtnexthop with its one attribute, for each way. */
static void put_ways(struct nl *nl, const struct route *r) {
    uint8_t all[ROUTE_WAYS_MAX * 64] __attribute__((aligned(4)));
    size_t n = 0;
    for (size_t i = 0; i < r->n_ways; i++) {
        const struct route_way *w = &r->ways[i];
        struct rtnexthop h = {.rtnh_ifindex = w->oif,
                              .rtnh_hops = (uint8_t)(w->weight ? w->weight - 1 : 0),
                              .rtnh_flags = w->is_onlink ? RTNH_F_ONLINK : 0};
        bool same = w->via.family == r->dst.ip.family;
        struct via_text v = via_of(&w->via);
        struct nlattr a = {.nla_type = same ? RTA_GATEWAY : RTA_VIA,
                           .nla_len = (uint16_t)(sizeof(a) + (same ? v.n - 2 : v.n))};
        size_t attr = w->via.family ? NLA_ALIGN(a.nla_len) : 0;
        h.rtnh_len = (uint16_t)(sizeof(h) + attr);
        memcpy(all + n, &h, sizeof(h));
        if (attr) {
            memset(all + n + sizeof(h), 0, attr);
            memcpy(all + n + sizeof(h), &a, sizeof(a));
            memcpy(all + n + sizeof(h) + sizeof(a), v.p + (same ? 2 : 0), a.nla_len - sizeof(a));
        }
        n += h.rtnh_len;
    }
    nl_put(nl, RTA_MULTIPATH, all, n);
}

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
    if (r->n_ways) {
        put_ways(nl, r);
    } else {
        put_via(nl, &r->via, r->dst.ip.family);
    }
    if (r->src.family) {
        nl_put(nl, RTA_PREFSRC, r->src.b, ip_bytes(&r->src));
    }
    if (r->oif && !r->n_ways) {
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

static void take_via(const struct nlattr *gateway, const struct nlattr *via, uint8_t family,
                     struct ip46 *out) {
    uint16_t af;
    const void *p = nl_attr_data(via, sizeof(af));
    if (!take_ip(gateway, family, out) && p) {
        memcpy(&af, p, sizeof(af));
        struct ip46 ip = {.family = af == AF_INET ? IP_V4 : IP_V6};
        if ((af == AF_INET || af == AF_INET6) && nl_attr_bytes(via) >= 2 + ip_bytes(&ip)) {
            memcpy(ip.b, (const char *)p + 2, ip_bytes(&ip));
            *out = ip;
        }
    }
}

/* Next hops of RTA_MULTIPATH. Nothing is kept of a list that is too long or lies. */
static void take_ways(const struct nlattr *list, uint8_t family, struct route *out) {
    size_t left = nl_attr_bytes(list);
    const char *p = nl_attr_data(list, 0);
    uint8_t n = 0;
    while (p && left >= sizeof(struct rtnexthop)) {
        struct rtnexthop h;
        memcpy(&h, p, sizeof(h));
        if (h.rtnh_len < sizeof(h) || h.rtnh_len > left || n == ROUTE_WAYS_MAX) {
            return;
        }
        struct route_way *w = &out->ways[n++];
        *w = (struct route_way){.oif = h.rtnh_ifindex,
                                .weight = (uint16_t)(h.rtnh_hops + 1),
                                .is_onlink = (h.rtnh_flags & RTNH_F_ONLINK) != 0};
        const struct nlattr *gateway = NULL, *via = NULL;
        for (size_t at = sizeof(h); at + sizeof(struct nlattr) <= h.rtnh_len;) {
            const struct nlattr *a = (const struct nlattr *)(const void *)(p + at);
            if (a->nla_len < sizeof(*a) || a->nla_len > h.rtnh_len - at) {
                break;
            }
            unsigned type = a->nla_type & NLA_TYPE_MASK;
            gateway = type == RTA_GATEWAY ? a : gateway;
            via = type == RTA_VIA ? a : via;
            at += NLA_ALIGN(a->nla_len);
        }
        take_via(gateway, via, family, &w->via);
        size_t step = NLA_ALIGN(h.rtnh_len);
        p += step;
        left = step < left ? left - step : 0;
    }
    out->n_ways = n;
}

bool route_parse(const struct nlmsghdr *nlh, struct route *out) {
    struct rtmsg m;
    const struct nlattr *tb[RTA_VIA + 1], *metrics[RTAX_MTU + 1];
    if ((nlh->nlmsg_type != RTM_NEWROUTE && nlh->nlmsg_type != RTM_DELROUTE) ||
        nlh->nlmsg_len < NLMSG_HDRLEN + sizeof(m)) {
        return false;
    }
    memcpy(&m, (const char *)nlh + NLMSG_HDRLEN, sizeof(m));
    /* Entries of the route cache are no routes. */
    if ((m.rtm_family != AF_INET && m.rtm_family != AF_INET6) || (m.rtm_flags & RTM_F_CLONED)) {
        return false;
    }
    nl_attrs(nlh, sizeof(m), tb, RTA_VIA);
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
    take_via(tb[RTA_GATEWAY], tb[RTA_VIA], family, &r.via);
    if (r.is_multipath) {
        take_ways(tb[RTA_MULTIPATH], family, &r);
    }
    (void)take_ip(tb[RTA_PREFSRC], family, &r.src);
    nl_attrs_nested(tb[RTA_METRICS], metrics, RTAX_MTU);
    r.mtu = nl_attr_u32(metrics[RTAX_MTU], 0);
    *out = r;
    return true;
}

struct dump {
    uint32_t table; /* 0: any */
    int oif;
    int (*cb)(void *, const struct route *);
    void *arg;
};

static int on_dump(void *arg, const struct nlmsghdr *nlh) {
    struct dump *d = arg;
    struct route r;
    /* Kernels without strict checks give everything. */
    if (!route_parse(nlh, &r) || (d->table && r.table != d->table) || (d->oif && r.oif != d->oif)) {
        return 0;
    }
    return d->cb(d->arg, &r);
}

int route_dump(struct nl *nl, const struct route_filter *f, int (*cb)(void *, const struct route *),
               void *arg, struct err *e) {
    struct dump d = {f->is_any_table ? 0 : f->table ? f->table : RT_TABLE_MAIN, f->oif, cb, arg};
    for (int i = 0; i < 2; i++) {
        uint8_t family = i == 0 ? IP_V4 : IP_V6;
        if (f->family && f->family != family) {
            continue;
        }
        struct rtmsg m = {.rtm_family = family == IP_V4 ? AF_INET : AF_INET6};
        (void)nl_add(nl, RTM_GETROUTE, 0, &m, sizeof(m));
        if (d.table) {
            nl_put_u32(nl, RTA_TABLE, d.table);
        }
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
