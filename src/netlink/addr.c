/* Addresses over rtnetlink. See addr.h. */
#include "netlink/addr.h"

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

static size_t add(struct nl *nl, uint16_t type, uint16_t flags, int index,
                  const struct prefix *net) {
    struct ifaddrmsg m = {.ifa_family = net->ip.family == IP_V4 ? AF_INET : AF_INET6,
                          .ifa_prefixlen = net->len,
                          .ifa_flags = net->ip.family == IP_V6 ? IFA_F_NODAD : 0,
                          .ifa_index = (unsigned)index};
    size_t i = nl_add(nl, type, flags, &m, sizeof(m));
    nl_put(nl, IFA_LOCAL, net->ip.b, ip_bytes(&net->ip));
    nl_put(nl, IFA_ADDRESS, net->ip.b, ip_bytes(&net->ip));
    return i;
}

size_t addr_add(struct nl *nl, int index, const struct prefix *net) {
    return add(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, net);
}

size_t addr_del(struct nl *nl, int index, const struct prefix *net) {
    return add(nl, RTM_DELADDR, 0, index, net);
}

bool addr_parse(const struct nlmsghdr *nlh, struct addr *out) {
    struct ifaddrmsg m;
    const struct nlattr *tb[IFA_FLAGS + 1];
    if ((nlh->nlmsg_type != RTM_NEWADDR && nlh->nlmsg_type != RTM_DELADDR) ||
        nlh->nlmsg_len < NLMSG_HDRLEN + sizeof(m)) {
        return false;
    }
    memcpy(&m, (const char *)nlh + NLMSG_HDRLEN, sizeof(m));
    if (m.ifa_family != AF_INET && m.ifa_family != AF_INET6) {
        return false;
    }
    nl_attrs(nlh, sizeof(m), tb, IFA_FLAGS);
    struct addr a = {.index = (int)m.ifa_index};
    a.net.ip.family = m.ifa_family == AF_INET ? IP_V4 : IP_V6;
    size_t n = ip_bytes(&a.net.ip);
    const void *p = nl_attr_data(tb[tb[IFA_LOCAL] ? IFA_LOCAL : IFA_ADDRESS], n);
    if (!p || m.ifa_prefixlen > ip_bits(&a.net.ip)) {
        return false;
    }
    memcpy(a.net.ip.b, p, n);
    a.net.len = m.ifa_prefixlen;
    a.is_tentative = (nl_attr_u32(tb[IFA_FLAGS], m.ifa_flags) & IFA_F_TENTATIVE) != 0;
    *out = a;
    return true;
}

struct dump {
    int index;
    int (*cb)(void *, const struct addr *);
    void *arg;
};

static int on_dump(void *arg, const struct nlmsghdr *nlh) {
    struct dump *d = arg;
    struct addr a;
    return addr_parse(nlh, &a) && (!d->index || a.index == d->index) ? d->cb(d->arg, &a) : 0;
}

int addr_dump(struct nl *nl, int index, int (*cb)(void *, const struct addr *), void *arg,
              struct err *e) {
    static const uint8_t families[] = {AF_INET, AF_INET6};
    struct dump d = {index, cb, arg};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        struct ifaddrmsg m = {.ifa_family = families[i], .ifa_index = (unsigned)index};
        (void)nl_add(nl, RTM_GETADDR, 0, &m, sizeof(m));
        int r = nl_dump(nl, sizeof(m), on_dump, &d, e);
        if (r < 0 && !(r == -ENODEV && index)) {
            return r;
        }
    }
    return 0;
}
