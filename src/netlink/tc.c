/* Traffic control. See tc.h. */
#include "netlink/tc.h"

#include "netlink/link.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>

enum { BUCKET_HANDLE = 0x4d470000 }; /* "MG": others' are small numbers */

size_t tc_set_bucket(struct nl *nl, int index, uint64_t rate, uint32_t burst, uint32_t limit) {
    struct tcmsg m = {.tcm_family = AF_UNSPEC,
                      .tcm_ifindex = index,
                      .tcm_handle = BUCKET_HANDLE,
                      .tcm_parent = TC_H_ROOT};
    struct tc_tbf_qopt q = {.rate = {.rate = rate < UINT32_MAX ? (uint32_t)rate : UINT32_MAX,
                                     .linklayer = TC_LINKLAYER_ETHERNET},
                            .limit = limit};
    size_t i = nl_add(nl, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, &m, sizeof(m));
    nl_put_strz(nl, TCA_KIND, "tbf");
    size_t nest = nl_nest(nl, TCA_OPTIONS, NULL, 0);
    nl_put(nl, TCA_TBF_PARMS, &q, sizeof(q));
    nl_put_u32(nl, TCA_TBF_BURST, burst);
    if (rate >= UINT32_MAX) {
        nl_put(nl, TCA_TBF_RATE64, &rate, sizeof(rate));
    }
    nl_nest_end(nl, nest);
    return i;
}

size_t tc_redirect_in(struct nl *nl, int index, int to) {
    struct tcmsg m = {.tcm_family = AF_UNSPEC,
                      .tcm_ifindex = index,
                      .tcm_handle = TC_H_MAKE(TC_H_INGRESS, 0),
                      .tcm_parent = TC_H_INGRESS};
    size_t i = nl_add(nl, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof(m));
    nl_put_strz(nl, TCA_KIND, "ingress");

    struct tcmsg f = {.tcm_family = AF_UNSPEC,
                      .tcm_ifindex = index,
                      .tcm_parent = TC_H_MAKE(TC_H_INGRESS, 0),
                      .tcm_info = TC_H_MAKE(1U << 16, htons(ETH_P_ALL))};
    /* One key without any bit to compare: all packets. */
    struct tc_u32_sel sel = {.flags = TC_U32_TERMINAL, .nkeys = 1};
    uint8_t all[sizeof(struct tc_u32_sel) + sizeof(struct tc_u32_key)] = {0};
    memcpy(all, &sel, sizeof(sel));
    struct tc_mirred redirect = {
        .action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = (uint32_t)to};
    (void)nl_add(nl, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &f, sizeof(f));
    nl_put_strz(nl, TCA_KIND, "u32");
    size_t options = nl_nest(nl, TCA_OPTIONS, NULL, 0);
    nl_put(nl, TCA_U32_SEL, all, sizeof(all));
    size_t actions = nl_nest(nl, TCA_U32_ACT, NULL, 0);
    size_t first = nl_nest(nl, 1, NULL, 0);
    nl_put_strz(nl, TCA_ACT_KIND, "mirred");
    size_t own = nl_nest(nl, TCA_ACT_OPTIONS, NULL, 0);
    nl_put(nl, TCA_MIRRED_PARMS, &redirect, sizeof(redirect));
    nl_nest_end(nl, own);
    nl_nest_end(nl, first);
    nl_nest_end(nl, actions);
    nl_nest_end(nl, options);
    return i;
}

static size_t del_qdisc(struct nl *nl, int index, uint32_t handle, uint32_t parent) {
    struct tcmsg m = {
        .tcm_family = AF_UNSPEC, .tcm_ifindex = index, .tcm_handle = handle, .tcm_parent = parent};
    return nl_add(nl, RTM_DELQDISC, 0, &m, sizeof(m));
}

size_t tc_del_bucket(struct nl *nl, int index) {
    return del_qdisc(nl, index, BUCKET_HANDLE, TC_H_ROOT);
}

size_t tc_del_redirect(struct nl *nl, int index) {
    return del_qdisc(nl, index, TC_H_MAKE(TC_H_INGRESS, 0), TC_H_INGRESS);
}

size_t link_add_ifb(struct nl *nl, const char *name) {
    struct ifinfomsg m = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    size_t i = nl_add(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof(m));
    nl_put_strz(nl, IFLA_IFNAME, name);
    size_t nest = nl_nest(nl, IFLA_LINKINFO, NULL, 0);
    nl_put_strz(nl, IFLA_INFO_KIND, "ifb");
    nl_nest_end(nl, nest);
    return i;
}

struct look {
    int index;
    struct tc_seen seen;
};

static int see_qdisc(void *arg, const struct nlmsghdr *nlh) {
    struct look *x = arg;
    const struct nlattr *tb[TCA_OPTIONS + 1], *own[TCA_TBF_RATE64 + 1];
    struct tcmsg m;
    char kind[16];
    nl_attrs(nlh, sizeof(m), tb, TCA_OPTIONS);
    memcpy(&m, (const char *)nlh + NLMSG_HDRLEN, sizeof(m));
    if (m.tcm_ifindex != x->index || !nl_attr_text(tb[TCA_KIND], kind, sizeof(kind))) {
        return 0;
    }
    if (strcmp(kind, "ingress") == 0) {
        x->seen.has_ingress = true;
    } else if (strcmp(kind, "tbf") == 0 && m.tcm_parent == TC_H_ROOT) {
        struct tc_tbf_qopt q;
        nl_attrs_nested(tb[TCA_OPTIONS], own, TCA_TBF_RATE64);
        const void *p = nl_attr_data(own[TCA_TBF_PARMS], sizeof(q));
        const void *rate64 = nl_attr_data(own[TCA_TBF_RATE64], sizeof(uint64_t));
        if (rate64) {
            memcpy(&x->seen.rate, rate64, sizeof(uint64_t));
        } else if (p) {
            memcpy(&q, p, sizeof(q));
            x->seen.rate = q.rate.rate;
        }
    }
    return 0;
}

int tc_look(struct nl *nl, int index, struct tc_seen *out, struct err *e) {
    struct look x = {.index = index};
    struct tcmsg m = {.tcm_family = AF_UNSPEC, .tcm_ifindex = index};
    (void)nl_add(nl, RTM_GETQDISC, 0, &m, sizeof(m));
    int r = nl_dump(nl, sizeof(m), see_qdisc, &x, e);
    if (r == 0) {
        *out = x.seen;
    }
    return r;
}
