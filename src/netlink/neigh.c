/* Neighbour entries over rtnetlink. See neigh.h. */
#include "netlink/neigh.h"

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

static size_t add(struct nl *nl, uint16_t type, uint16_t flags, int index, const struct ip46 *ip) {
    struct ndmsg m = {.ndm_family = ip->family == IP_V4 ? AF_INET : AF_INET6,
                      .ndm_ifindex = index,
                      .ndm_state = NUD_PERMANENT};
    size_t i = nl_add(nl, type, flags, &m, sizeof(m));
    nl_put(nl, NDA_DST, ip->b, ip_bytes(ip));
    return i;
}

size_t neigh_set(struct nl *nl, int index, const struct ip46 *ip, const uint8_t mac[6]) {
    size_t i = add(nl, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index, ip);
    nl_put(nl, NDA_LLADDR, mac, 6);
    return i;
}

size_t neigh_del(struct nl *nl, int index, const struct ip46 *ip) {
    return add(nl, RTM_DELNEIGH, 0, index, ip);
}

bool neigh_parse(const struct nlmsghdr *nlh, struct neigh *out) {
    struct ndmsg m;
    const struct nlattr *tb[NDA_LLADDR + 1];
    if ((nlh->nlmsg_type != RTM_NEWNEIGH && nlh->nlmsg_type != RTM_DELNEIGH) ||
        nlh->nlmsg_len < NLMSG_HDRLEN + sizeof(m)) {
        return false;
    }
    memcpy(&m, (const char *)nlh + NLMSG_HDRLEN, sizeof(m));
    if ((m.ndm_family != AF_INET && m.ndm_family != AF_INET6) || (m.ndm_flags & NTF_PROXY)) {
        return false;
    }
    nl_attrs(nlh, sizeof(m), tb, NDA_LLADDR);
    struct neigh n = {.index = m.ndm_ifindex, .is_permanent = (m.ndm_state & NUD_PERMANENT) != 0};
    n.ip.family = m.ndm_family == AF_INET ? IP_V4 : IP_V6;
    const void *p = nl_attr_data(tb[NDA_DST], ip_bytes(&n.ip));
    if (!p) {
        return false;
    }
    memcpy(n.ip.b, p, ip_bytes(&n.ip));
    const void *mac = nl_attr_data(tb[NDA_LLADDR], 6);
    if (mac && nl_attr_bytes(tb[NDA_LLADDR]) == 6) {
        memcpy(n.mac, mac, 6);
        n.has_mac = true;
    }
    *out = n;
    return true;
}

struct dump {
    int index;
    int (*cb)(void *, const struct neigh *);
    void *arg;
};

static int on_dump(void *arg, const struct nlmsghdr *nlh) {
    struct dump *d = arg;
    struct neigh n;
    return neigh_parse(nlh, &n) && (!d->index || n.index == d->index) ? d->cb(d->arg, &n) : 0;
}

int neigh_dump(struct nl *nl, int index, int (*cb)(void *, const struct neigh *), void *arg,
               struct err *e) {
    static const uint8_t families[] = {AF_INET, AF_INET6};
    struct dump d = {index, cb, arg};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        struct ndmsg m = {.ndm_family = families[i]};
        (void)nl_add(nl, RTM_GETNEIGH, 0, &m, sizeof(m));
        if (index) {
            nl_put_u32(nl, NDA_IFINDEX, (uint32_t)index);
        }
        int r = nl_dump(nl, sizeof(m), on_dump, &d, e);
        if (r < 0 && !(r == -ENODEV && index)) {
            return r;
        }
    }
    return 0;
}
