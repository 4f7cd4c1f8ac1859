/* Routing rules. See rule.h. */
#include "netlink/rule.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

static size_t change(struct nl *nl, uint16_t type, uint16_t flags, const struct route_rule *r) {
    struct fib_rule_hdr h = {.family = r->src.family == IP_V4 ? AF_INET : AF_INET6,
                             .src_len = (uint8_t)ip_bits(&r->src),
                             .action = FR_ACT_TO_TBL};
    size_t i = nl_add(nl, type, flags, &h, sizeof(h));
    nl_put(nl, FRA_SRC, r->src.b, ip_bytes(&r->src));
    nl_put_u32(nl, FRA_TABLE, r->table);
    nl_put_u32(nl, FRA_PRIORITY, r->priority);
    nl_put_u8(nl, FRA_PROTOCOL, r->protocol);
    return i;
}

size_t rule_add(struct nl *nl, const struct route_rule *r) {
    return change(nl, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, r);
}

size_t rule_del(struct nl *nl, const struct route_rule *r) {
    return change(nl, RTM_DELRULE, 0, r);
}

struct dump {
    int (*cb)(void *arg, const struct route_rule *r);
    void *arg;
};

static int on_rule(void *arg, const struct nlmsghdr *nlh) {
    struct dump *d = arg;
    const struct nlattr *tb[FRA_PROTOCOL + 1];
    struct fib_rule_hdr h;
    struct route_rule r = {.src = {.family = IP_NONE}};
    nl_attrs(nlh, sizeof(h), tb, FRA_PROTOCOL);
    memcpy(&h, (const char *)nlh + NLMSG_HDRLEN, sizeof(h));
    r.src.family = h.family == AF_INET ? IP_V4 : IP_V6;
    const void *src = nl_attr_data(tb[FRA_SRC], ip_bytes(&r.src));
    if (!src || h.src_len != ip_bits(&r.src)) {
        return 0;
    }
    memcpy(r.src.b, src, ip_bytes(&r.src));
    r.table = nl_attr_u32(tb[FRA_TABLE], h.table);
    r.priority = nl_attr_u32(tb[FRA_PRIORITY], 0);
    r.protocol = nl_attr_u8(tb[FRA_PROTOCOL], 0);
    return d->cb(d->arg, &r);
}

int rule_dump(struct nl *nl, int (*cb)(void *arg, const struct route_rule *r), void *arg,
              struct err *e) {
    static const uint8_t families[] = {AF_INET, AF_INET6};
    struct dump d = {cb, arg};
    for (size_t i = 0; i < sizeof(families); i++) {
        struct fib_rule_hdr h = {.family = families[i]};
        (void)nl_add(nl, RTM_GETRULE, 0, &h, sizeof(h));
        int r = nl_dump(nl, sizeof(h), on_rule, &d, e);
        if (r < 0 && r != -EAFNOSUPPORT && r != -EOPNOTSUPP) {
            return r;
        }
    }
    return 0;
}
