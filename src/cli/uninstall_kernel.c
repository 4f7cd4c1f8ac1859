/* What an agent has left in this network namespace's kernel: pods' interfaces, tunnel devices,
 * routes and rules by their protocol number, the nftables table. Told apart from other's by what
 * the agent writes with each (name and address, kind, protocol). */
#include "cli/install.h"

#include "base/vec.h"
#include "cli/cli.h"
#include "dataplane/links.h"
#include "dataplane/overlay.h"
#include "netlink/link.h"
#include "netlink/nft.h"
#include "netlink/route.h"

#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <stdio.h>

#define TABLE "margay"

/* Devices of ours beside the pods': name and kind. */
static const struct {
    const char *name, *kind;
} devices[] = {{"vxlan.calico", "vxlan"},
               {"vxlan-v6.calico", "vxlan"},
               {"wireguard.cali", "wireguard"},
               {"wg-v6.cali", "wireguard"}};

struct found {
    const struct str *prefixes;
    size_t n_prefixes;
    VEC(struct link) pods;
    VEC(struct link) others;
    VEC(struct route) routes;
};

static int see_link(void *arg, const struct link *l) {
    struct found *f = arg;
    for (size_t i = 0; i < f->n_prefixes; i++) {
        if (link_is_pair(l) && l->has_mac && memcmp(l->mac, links_host_mac, 6) == 0 &&
            str_starts(str_c(l->name), f->prefixes[i])) {
            vec_push(&f->pods, *l);
            return 0;
        }
    }
    if (strcmp(l->kind, "ifb") == 0 && str_starts(str_c(l->name), STR("mgb"))) {
        vec_push(&f->others, *l); /* of a pod's rate */
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(devices); i++) {
        if (strcmp(l->name, devices[i].name) == 0 && strcmp(l->kind, devices[i].kind) == 0) {
            vec_push(&f->others, *l);
        }
    }
    return 0;
}

static int remove_link(struct install *in, struct nl *nl, const struct link *l) {
    struct err e = {0};
    if (!in->is_dry) {
        (void)link_del(nl, l->index);
        int r = nl_commit(nl, &e);
        if (r < 0 && r != -ENODEV) {
            return cli_error("removing interface %s: %s", l->name, e.msg);
        }
    }
    install_say(in, l->name, "removed");
    return 0;
}

static int see_route(void *arg, const struct route *r) {
    struct found *f = arg;
    if (r->protocol == OVERLAY_PROTOCOL) {
        vec_push(&f->routes, *r);
    }
    return 0;
}

static int remove_routes(struct install *in, struct nl *nl, struct found *f) {
    struct err e = {0};
    int bad = 0;
    if (route_dump(nl, &(struct route_filter){.is_any_table = true}, see_route, f, &e) < 0) {
        return cli_error("reading routes: %s", e.msg);
    }
    for (size_t i = 0; i < f->routes.n; i++) {
        const struct route *r = &f->routes.p[i];
        char text[IP_TEXT_MAX], what[IP_TEXT_MAX + 64];
        if (!in->is_dry) {
            (void)route_del(nl, &(struct route){.dst = r->dst,
                                                .table = r->table,
                                                .metric = r->metric,
                                                .type = r->type,
                                                .protocol = r->protocol});
            int k = nl_commit(nl, &e);
            if (k < 0 && k != -ESRCH) {
                bad = cli_error("removing route %s: %s", prefix_text(&r->dst, text), e.msg);
                continue;
            }
        }
        (void)snprintf(what, sizeof(what), "route %s table %u", prefix_text(&r->dst, text),
                       r->table);
        install_say(in, what, "removed");
    }
    return bad;
}

struct rules {
    struct nl *nl;
    unsigned n;
};

/* Queues the removal of a rule of ours: the same message with another type. */
static int see_rule(void *arg, const struct nlmsghdr *nlh) {
    struct rules *x = arg;
    const struct nlattr *tb[FRA_MAX + 1];
    struct fib_rule_hdr h;
    nl_attrs(nlh, sizeof(h), tb, FRA_MAX);
    if (nl_attr_u8(tb[FRA_PROTOCOL], 0) != OVERLAY_PROTOCOL) {
        return 0;
    }
    memcpy(&h, (const char *)nlh + NLMSG_HDRLEN, sizeof(h));
    (void)nl_add(x->nl, RTM_DELRULE, 0, &h, sizeof(h));
    for (unsigned i = 1; i <= FRA_MAX; i++) {
        if (tb[i]) {
            nl_put(x->nl, (uint16_t)i, mnl_attr_get_payload(tb[i]), nl_attr_bytes(tb[i]));
        }
    }
    x->n++;
    return 0;
}

static int remove_rules(struct install *in, struct nl *nl) {
    static const uint8_t families[] = {AF_INET, AF_INET6};
    MG_CLEANUP(nl_close_p) struct nl *to = NULL;
    struct err e = {0};
    if (nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &to, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    struct rules x = {.nl = to};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        struct fib_rule_hdr h = {.family = families[i]};
        (void)nl_add(nl, RTM_GETRULE, 0, &h, sizeof(h));
        int r = nl_dump(nl, sizeof(h), see_rule, &x, &e);
        if (r < 0 && r != -EAFNOSUPPORT && r != -EOPNOTSUPP) {
            return cli_error("reading routing rules: %s", e.msg);
        }
    }
    if (!x.n) {
        return 0;
    }
    if (!in->is_dry && nl_commit(to, &e) < 0) {
        return cli_error("removing routing rules: %s", e.msg);
    }
    char what[48];
    (void)snprintf(what, sizeof(what), "%u routing rules", x.n);
    install_say(in, what, "removed");
    return 0;
}

static void see_table(void *arg) {
    *(bool *)arg = true;
}
static void see_nothing_chain(void *a MG_UNUSED, struct str b MG_UNUSED,
                              const struct nft_hook *c MG_UNUSED) {
}
static void see_nothing_rule(void *a MG_UNUSED, struct str b MG_UNUSED,
                             const struct nft_rule_read *c MG_UNUSED) {
}
static void see_nothing_set(void *a MG_UNUSED, const struct nft_set *b MG_UNUSED) {
}
static void see_nothing_elem(void *a MG_UNUSED, struct str b MG_UNUSED,
                             const struct nft_elem_read *c MG_UNUSED) {
}

static int remove_table(struct install *in) {
    static const struct nft_read_ops ops = {see_table, see_nothing_chain, see_nothing_rule,
                                            see_nothing_set, see_nothing_elem};
    struct nft_sock *s = NULL;
    struct nft_batch b = {0};
    struct err e = {0};
    bool has_table = false;
    int r = nft_open(&s, &e);
    if (r == 0) {
        r = nft_read(s, STR(TABLE), &ops, &has_table, &e);
    }
    if (r == 0 && has_table && !in->is_dry) {
        nft_batch_begin(&b, STR(TABLE), 0);
        nft_table_del(&b);
        r = nft_commit(s, &b, &e);
    }
    nft_batch_fini(&b);
    nft_close(s);
    if (r < 0) {
        return cli_error("removing nftables table inet " TABLE ": %s", e.msg);
    }
    if (has_table) {
        install_say(in, "table inet " TABLE, "removed");
    }
    return 0;
}

int uninstall_kernel(struct install *in, const struct str *prefixes, size_t n_prefixes,
                     bool takes_pods) {
    MG_CLEANUP(nl_close_p) struct nl *nl = NULL;
    struct found f = {.prefixes = prefixes, .n_prefixes = n_prefixes};
    struct err e = {0};
    int r = 0;
    if (nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &nl, &e) < 0 || link_dump(nl, see_link, &f, &e) < 0) {
        r = cli_error("reading interfaces: %s", e.msg);
    } else if (f.pods.n && !takes_pods) {
        r = cli_error("%zu pods still have their network from here (%s …): delete them while the "
                      "agent runs, or give --force to take it away from them",
                      f.pods.n, f.pods.p[0].name);
        r = in->is_dry ? 0 : r;
    }
    for (size_t i = 0; r == 0 && i < f.pods.n; i++) {
        r = remove_link(in, nl, &f.pods.p[i]);
    }
    for (size_t i = 0; r == 0 && i < f.others.n; i++) {
        r = remove_link(in, nl, &f.others.p[i]);
    }
    r = r ? r : remove_routes(in, nl, &f);
    r = r ? r : remove_rules(in, nl);
    r = r ? r : remove_table(in);
    vec_fini(&f.pods);
    vec_fini(&f.others);
    vec_fini(&f.routes);
    return r;
}
