/* Kernel events. See monitor.h. Bounded work for each turn of the loop: a flood of others' events
 * must not starve the rest. */
#include "netlink/monitor.h"

#include "base/fd.h"

#include <libmnl/libmnl.h>
#include <linux/netconf.h>
#include <stdlib.h>
#include <sys/socket.h>

#define RECV_BYTES (64U << 10)
#define DATAGRAMS_A_TURN 4096
#define DATAGRAMS_A_DRAIN 65536

struct nl_monitor {
    int fd;
    struct loop_poll *poll;
    const struct nl_monitor_ops *ops;
    void *arg;
    char rx[RECV_BYTES] __attribute__((aligned(8)));
};

static int32_t as_conf(const struct nlattr *a) {
    return (int32_t)nl_attr_u32(a, (uint32_t)LINK_CONF_UNKNOWN);
}

static void tell_netconf(struct nl_monitor *m, const struct nlmsghdr *h) {
    struct netconfmsg c;
    const struct nlattr *tb[NETCONFA_PROXY_NEIGH + 1];
    if (h->nlmsg_len < NLMSG_HDRLEN + sizeof(c)) {
        return;
    }
    memcpy(&c, (const char *)h + NLMSG_HDRLEN, sizeof(c));
    nl_attrs(h, sizeof(c), tb, NETCONFA_PROXY_NEIGH);
    struct nl_netconf n = {.index = (int)nl_attr_u32(tb[NETCONFA_IFINDEX], 0),
                           .family = c.ncm_family == AF_INET    ? IP_V4
                                     : c.ncm_family == AF_INET6 ? IP_V6
                                                                : IP_NONE,
                           .forwarding = as_conf(tb[NETCONFA_FORWARDING]),
                           .proxy_neigh = as_conf(tb[NETCONFA_PROXY_NEIGH])};
    if (n.index > 0 && n.family) {
        m->ops->on_netconf(m->arg, &n);
    }
}

static void tell(struct nl_monitor *m, const struct nlmsghdr *h) {
    union {
        struct link link;
        struct addr addr;
        struct route route;
        struct neigh neigh;
    } u;
    switch (h->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        if (m->ops->on_link && link_parse(h, &u.link)) {
            m->ops->on_link(m->arg, &u.link, h->nlmsg_type == RTM_DELLINK);
        }
        break;
    case RTM_NEWADDR:
    case RTM_DELADDR:
        if (m->ops->on_addr && addr_parse(h, &u.addr)) {
            m->ops->on_addr(m->arg, &u.addr, h->nlmsg_type == RTM_DELADDR);
        }
        break;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        if (m->ops->on_route && route_parse(h, &u.route)) {
            m->ops->on_route(m->arg, &u.route, h->nlmsg_type == RTM_DELROUTE);
        }
        break;
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
        if (m->ops->on_neigh && neigh_parse(h, &u.neigh)) {
            m->ops->on_neigh(m->arg, &u.neigh, h->nlmsg_type == RTM_DELNEIGH);
        }
        break;
    case RTM_NEWNETCONF:
        if (m->ops->on_netconf) {
            tell_netconf(m, h);
        }
        break;
    default:
        break;
    }
}

/* Reads at most `max` datagrams. */
static void take(struct nl_monitor *m, unsigned max) {
    bool any = false, lost = false;
    for (unsigned i = 0; i < max; i++) {
        struct sockaddr_nl from = {0};
        socklen_t from_n = sizeof(from);
        ssize_t n = recvfrom(m->fd, m->rx, sizeof(m->rx), MSG_DONTWAIT | MSG_TRUNC,
                             (struct sockaddr *)&from, &from_n);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno != ENOBUFS) {
                break;
            }
            lost = true;
            continue;
        }
        if ((size_t)n > sizeof(m->rx)) {
            lost = true; /* cut off */
            continue;
        }
        if (from.nl_pid != 0) {
            continue; /* not the kernel */
        }
        any = true;
        int left = (int)n;
        for (const struct nlmsghdr *h = (const struct nlmsghdr *)m->rx; nl_msg_ok(h, left);
             h = mnl_nlmsg_next(h, &left)) {
            tell(m, h);
        }
    }
    if (lost && m->ops->on_resync) {
        m->ops->on_resync(m->arg);
    }
    if (any && m->ops->on_batch_end) {
        m->ops->on_batch_end(m->arg);
    }
}

static void on_readable(void *arg, unsigned events MG_UNUSED) {
    take(arg, DATAGRAMS_A_TURN);
}

void nl_monitor_drain(struct nl_monitor *m) {
    take(m, DATAGRAMS_A_DRAIN);
}

static int join(int fd, bool want, unsigned group) {
    int g = (int)group;
    return want && setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &g, sizeof(g)) < 0 ? -errno
                                                                                          : 0;
}

int nl_monitor_new(struct loop *l, const struct nl_monitor_ops *ops, void *arg,
                   struct nl_monitor **out, struct err *e) {
    MG_CLEANUP(fd_close)
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    int bytes = 8 << 20;
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        return err_set(e, -errno, "opening a netlink monitor: %s", err_name(-errno));
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)); /* best effort */
    const struct {
        bool want;
        unsigned group;
    } groups[] = {
        {ops->on_link != NULL, RTNLGRP_LINK},
        {ops->on_addr != NULL, RTNLGRP_IPV4_IFADDR},
        {ops->on_addr != NULL, RTNLGRP_IPV6_IFADDR},
        {ops->on_route != NULL, RTNLGRP_IPV4_ROUTE},
        {ops->on_route != NULL, RTNLGRP_IPV6_ROUTE},
        {ops->on_neigh != NULL, RTNLGRP_NEIGH},
        {ops->on_netconf != NULL, RTNLGRP_IPV4_NETCONF},
        {ops->on_netconf != NULL, RTNLGRP_IPV6_NETCONF},
    };
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        int r = join(fd, groups[i].want, groups[i].group);
        if (r < 0) {
            return err_set(e, r, "subscribing to netlink group %u: %s", groups[i].group,
                           err_name(r));
        }
    }
    struct nl_monitor *m = calloc(1, sizeof(*m));
    mg_assert(m != NULL);
    m->fd = TAKE_FD(fd);
    m->ops = ops;
    m->arg = arg;
    m->poll = loop_poll_new(l, m->fd, LOOP_READ, on_readable, m);
    *out = m;
    return 0;
}

void nl_monitor_free(struct nl_monitor *m) {
    if (m) {
        loop_poll_free(m->poll);
        fd_close(&m->fd);
        free(m);
    }
}
