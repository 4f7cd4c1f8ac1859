/* A pod's pair of interfaces: the host's end here, the pod's end born in its namespace, and all
 * that the pod needs to send. Calico's shape (cni-plugin/pkg/dataplane/linux): addresses with full
 * length, a gateway 169.254.1.1 that is nobody's and that the host answers for; IPv6 by the host
 * end's link-local address. The host's side is links.h's business. */
#include "cni/server_int.h"
#include "netlink/addr.h"
#include "netlink/neigh.h"
#include "netlink/netns.h"
#include "netlink/route.h"
#include "netlink/rule.h"

#include <stdio.h>

#define IPV6_DIR "/proc/sys/net/ipv6"

static const struct ip46 gateway_v4 = {IP_V4, {169, 254, 1, 1}};
static const struct ip46 gateway_v6 = {
    IP_V6, {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xec, 0xee, 0xee, 0xff, 0xfe, 0xee, 0xee, 0xee}};

static bool has_family(const struct prefix *nets, size_t n, uint8_t family) {
    for (size_t i = 0; i < n; i++) {
        if (nets[i].ip.family == family) {
            return true;
        }
    }
    return false;
}

static const char *cstr(struct cni_request *r, struct str s) {
    return arena_cstr(&r->arena, s);
}

/* Writes a setting if it isn't so already; writing takes locks that reading doesn't. */
static int set_sysctl(const char *path, const char *value) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1U << 17);
    if (file_read(-1, path, &b, 64) == 0 && str_is(str_trim(buf_view(&b)), value)) {
        return 0;
    }
    return sysctl_write(path, value);
}

/* Settings of the pod's namespace, from inside it. */
static int pod_settings(struct cni_request *r, bool has_v6, struct cni_fail *f) {
    const char *forward = r->conf.allow_ip_forwarding ? "1" : "0";
    char accept_dad[96];
    (void)snprintf(accept_dad, sizeof(accept_dad), IPV6_DIR "/conf/%.15s/accept_dad",
                   cstr(r, r->strings[WIRE_IFNAME]));
    const struct {
        const char *path, *value;
    } all[] = {{"/proc/sys/net/ipv4/ip_forward", forward},
               {IPV6_DIR "/conf/all/disable_ipv6", "0"},
               {IPV6_DIR "/conf/default/disable_ipv6", "0"},
               {IPV6_DIR "/conf/lo/disable_ipv6", "0"},
               {accept_dad, "0"},
               {IPV6_DIR "/conf/all/forwarding", forward}};
    for (size_t i = 0; i < (has_v6 ? ARRAY_LEN(all) : 1); i++) {
        int k = set_sysctl(all[i].path, all[i].value);
        if (k < 0) {
            return cni_fail(f, CNI_CODE_IO, "is /proc/sys writable, and IPv6 not switched off?",
                            "writing %s to %s in the pod's network namespace: %s", all[i].value,
                            all[i].path, err_name(k));
        }
    }
    return 0;
}

static int fail_kernel(struct cni_fail *f, const char *what, const struct err *e) {
    return cni_fail(f, CNI_CODE_TRY_LATER, "look at the agent's log", "%s: %.900s", what, e->msg);
}

/* Routes inside the pod; those that are there already (another interface's) stay. */
static void add_route(struct nl *nl, int index, struct prefix dst, const struct ip46 *via,
                      uint8_t scope) {
    struct route rt = {.dst = dst, .oif = index, .protocol = RTPROT_BOOT, .scope = scope};
    if (via) {
        rt.via = *via;
    }
    (void)route_add(nl, &rt, NLM_F_CREATE | NLM_F_EXCL);
}

/* Destinations of a delegated IPAM plugin's result, of one family, instead of the default route. */
static size_t add_ipam_routes(struct cni_request *r, struct nl *nl, int index, uint8_t family,
                              const struct ip46 *via) {
    size_t n = 0;
    jnode_each (route, jnode_getc(r->ipam_result, "routes")) {
        struct prefix dst;
        if (n < 64 && prefix_parse(jnode_str(jnode_getc(route, "dst")), &dst) == 0 &&
            dst.ip.family == family) {
            add_route(nl, index, prefix_mask(dst), via, RT_SCOPE_UNIVERSE);
            n++;
        }
    }
    return n;
}

static void add_gateway(struct cni_request *r, struct nl *nl, int index, uint8_t family) {
    const struct ip46 *via = family == IP_V4 ? &gateway_v4 : &gateway_v6;
    struct prefix all = {.ip = {.family = family}};
    (void)neigh_set(nl, index, via, links_host_mac);
    if (family == IP_V4) {
        add_route(nl, index, (struct prefix){*via, 32}, NULL, RT_SCOPE_LINK);
    }
    size_t n = add_ipam_routes(r, nl, index, family, via);
    if (!n || r->conf.include_default_routes) {
        add_route(nl, index, all, via, RT_SCOPE_UNIVERSE);
    }
}

/* ---- further interfaces of a pod ---- */

/* Tables of the pod's namespace with a gateway each, for all that an interface's addresses send: an
 * answer that left by another one would have a source that is not its own there. */
enum { TABLE_BASE = 0x4d470000, RULE_PRIORITY = 1000, RULE_PROTOCOL = 80, MAX_RULES = 64 };

struct own_rules {
    struct route_rule list[MAX_RULES];
    size_t n;
};

static int see_rule(void *arg, const struct route_rule *rule) {
    struct own_rules *x = arg;
    if (rule->protocol == RULE_PROTOCOL && rule->table > TABLE_BASE && x->n < MAX_RULES) {
        x->list[x->n++] = *rule;
    }
    return 0;
}

/* Interfaces that have gone took their routes along, not their rules. */
static void remove_stale_rules(struct nl *nl) {
    struct own_rules x = {.n = 0};
    if (rule_dump(nl, see_rule, &x, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < x.n; i++) {
        struct link l;
        if (link_get_index(nl, (int)(x.list[i].table - TABLE_BASE), &l, NULL) == ERR_NOT_FOUND) {
            (void)rule_del(nl, &x.list[i]);
            (void)!nl_exchange(nl, NULL); /* gone already is fine */
        }
    }
}

static int own_table(struct cni_request *r, struct nl *nl, int index, struct cni_fail *f) {
    static const uint8_t families[] = {IP_V4, IP_V6};
    uint32_t table = (uint32_t)(TABLE_BASE + index);
    struct err e = {0};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        bool is_v4 = families[i] == IP_V4;
        struct route gateway = {.dst = {is_v4 ? gateway_v4 : gateway_v6, is_v4 ? 32 : 128},
                                .oif = index,
                                .table = table,
                                .protocol = RTPROT_BOOT,
                                .scope = RT_SCOPE_LINK};
        struct route all = {.dst = {.ip = {.family = families[i]}},
                            .via = is_v4 ? gateway_v4 : gateway_v6,
                            .oif = index,
                            .table = table,
                            .protocol = RTPROT_BOOT,
                            .is_onlink = true};
        if (!has_family(r->nets, r->n_nets, families[i])) {
            continue;
        }
        (void)route_add(nl, &gateway, NLM_F_CREATE | NLM_F_REPLACE);
        (void)route_add(nl, &all, NLM_F_CREATE | NLM_F_REPLACE);
    }
    for (size_t i = 0; i < r->n_nets; i++) {
        (void)rule_add(nl,
                       &(struct route_rule){r->nets[i].ip, table, RULE_PRIORITY, RULE_PROTOCOL});
    }
    return nl_commit(nl, &e) < 0 ? fail_kernel(f, "routes of the pod's further interface", &e) : 0;
}

static int pod_side(struct cni_request *r, struct cni_fail *f) {
    MG_CLEANUP(nl_close_p) struct nl *nl = NULL;
    MG_CLEANUP(fd_close) int own = -1;
    struct err e = {0};
    struct link l;
    bool has_v6 = has_family(r->nets, r->n_nets, IP_V6);
    int k = netns_enter(r->netns_fd, &own);
    if (k < 0) {
        return cni_fail(f, CNI_CODE_UNKNOWN_CONTAINER, "has the container ended?",
                        "entering network namespace %.*s: %s", STR_FMT(r->strings[WIRE_NETNS]),
                        err_name(k));
    }
    k = nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &nl, &e);
    int settings = k < 0 ? 0 : pod_settings(r, has_v6, f);
    netns_leave(own);
    if (k < 0) {
        return fail_kernel(f, "the pod's network namespace", &e);
    }
    if (settings < 0) {
        return -1;
    }
    k = link_get(nl, cstr(r, r->strings[WIRE_IFNAME]), &l, &e);
    if (k < 0) {
        return fail_kernel(f, "the pod's interface", &e);
    }
    (void)link_change(nl, &(struct link_change){.index = l.index, .set_up = true, .up = true});
    for (size_t i = 0; i < r->n_nets; i++) {
        (void)addr_add(nl, l.index, &r->nets[i]);
    }
    size_t first_route = nl_pending(nl);
    if (has_family(r->nets, r->n_nets, IP_V4)) {
        add_gateway(r, nl, l.index, IP_V4);
    }
    if (has_v6) {
        add_gateway(r, nl, l.index, IP_V6);
    }
    size_t n = nl_pending(nl);
    k = nl_exchange(nl, &e);
    if (k < 0) {
        return fail_kernel(f, "the pod's interface", &e);
    }
    bool has_other = false;
    for (size_t i = 0; i < n; i++) {
        k = nl_code(nl, i);
        /* The pod's first interface has the routes; without the gateway's, the kernel refuses the
         * default route in other words. */
        has_other |= k == -EEXIST && i >= first_route;
        if (k < 0 && !(has_other && (k == -EEXIST || k == -ENETUNREACH))) {
            return cni_fail(f, CNI_CODE_TRY_LATER, "look at the agent's log",
                            "setting up interface %.*s in the pod: %s%s%.600s",
                            STR_FMT(r->strings[WIRE_IFNAME]), err_name(k),
                            nl_text(nl, i)[0] ? ": " : "", nl_text(nl, i));
        }
    }
    if (!has_other) {
        return 0;
    }
    remove_stale_rules(nl);
    return own_table(r, nl, l.index, f);
}

/* The host's name is taken (-EEXIST with its index), or the pod's. */
static int name_taken(struct cni_request *r, int *index, struct cni_fail *f) {
    struct link l;
    struct err e = {0};
    if (link_get(r->s->nl, cstr(r, r->pod.iface), &l, &e) == 0) {
        *index = l.index;
        return -EEXIST;
    }
    return cni_fail(f, CNI_CODE_BAD_ENV, "give CNI_IFNAME another name, or remove that interface",
                    "the pod has an interface %.*s already", STR_FMT(r->strings[WIRE_IFNAME]));
}

/* The pair, of the kind that the configuration wants if the kernel has it. */
static int add_pair(struct cni_request *r, const struct veth *v, struct err *e) {
    struct cni_server *s = r->s;
    if (r->conf.wants_netkit && !s->has_no_netkit) {
        (void)link_add_netkit(s->nl, v);
        int k = nl_commit(s->nl, e);
        if (k != -EOPNOTSUPP) {
            return k;
        }
        s->has_no_netkit = true;
        LOG_W("cni", "no_netkit", "reason=%s interfaces are made as veth",
              log_quote(str_c(e->msg)));
    }
    (void)link_add_veth(s->nl, v);
    return nl_commit(s->nl, e);
}

int cni_kernel_make(struct cni_request *r, int *index, struct cni_fail *f) {
    struct err e = {0};
    struct veth v = {.name = cstr(r, r->pod.iface),
                     .peer_name = cstr(r, r->strings[WIRE_IFNAME]),
                     .mac = links_host_mac,
                     .peer_mac = r->pod.mac,
                     .mtu = r->conf.mtu ? r->conf.mtu : r->s->mtu,
                     .n_queues = r->conf.n_queues,
                     .peer_netns_fd = r->netns_fd};
    int k = add_pair(r, &v, &e);
    if (k == -EEXIST) {
        return name_taken(r, index, f);
    }
    if (k < 0) {
        return fail_kernel(f, "making the pair of interfaces", &e);
    }
    r->has_link = true;
    for (size_t i = 0; i < r->n_nets && r->pod.is_machine; i++) {
        links_away(r->s->links, &r->nets[i].ip, r->pod.is_target);
    }
    links_set(r->s->links, r->pod.iface, r->nets, r->n_nets, r->pod.mac);
    if (links_apply(r->s->links, r->pod.iface, &e) < 0) {
        return fail_kernel(f, "the host's side of the pod's interface", &e);
    }
    return pod_side(r, f);
}

/* ---- CHECK ---- */

struct check {
    const struct prefix *nets;
    size_t n_nets;
    bool has_net[CNI_MAX_IPS];
    bool has_default_v4, has_default_v6;
};

static int see_addr(void *arg, const struct addr *a) {
    struct check *c = arg;
    for (size_t i = 0; i < c->n_nets && i < CNI_MAX_IPS; i++) {
        c->has_net[i] |= ip_eq(&a->net.ip, &c->nets[i].ip);
    }
    return 0;
}

static int see_route(void *arg, const struct route *r) {
    struct check *c = arg;
    c->has_default_v4 |= r->dst.ip.family == IP_V4 && r->via.family && ip_eq(&r->via, &gateway_v4);
    c->has_default_v6 |= r->dst.ip.family == IP_V6 && r->via.family && ip_eq(&r->via, &gateway_v6);
    return 0;
}

static int see_host_route(void *arg, const struct route *r) {
    struct check *c = arg;
    for (size_t i = 0; i < c->n_nets && i < CNI_MAX_IPS; i++) {
        c->has_net[i] |= prefix_eq(&r->dst, &c->nets[i]);
    }
    return 0;
}

static int different(struct cni_fail *f, const char *before, struct str name, const char *after) {
    return cni_fail(f, CNI_CODE_DIFFERENT, "the container must be made anew", "%s%.*s%s", before,
                    STR_FMT(name), after);
}

static int all_nets(const struct check *c, const char *what, struct str name, struct cni_fail *f) {
    char text[IP_TEXT_MAX];
    for (size_t i = 0; i < c->n_nets && i < CNI_MAX_IPS; i++) {
        if (!c->has_net[i]) {
            return cni_fail(f, CNI_CODE_DIFFERENT, "the container must be made anew",
                            "%s %s of interface %.*s is missing", what,
                            prefix_text(&c->nets[i], text), STR_FMT(name));
        }
    }
    return 0;
}

static int check_pod_side(struct cni_request *r, const struct cni_attachment *at, uint8_t mac[6],
                          struct cni_fail *f) {
    MG_CLEANUP(nl_close_p) struct nl *nl = NULL;
    struct err e = {0};
    struct link l;
    struct str name = r->strings[WIRE_IFNAME];
    struct check c = {.nets = at->nets, .n_nets = at->n_nets};
    if (nl_open(r->netns_fd, NETLINK_ROUTE, &nl, &e) < 0) {
        return fail_kernel(f, "the pod's network namespace", &e);
    }
    int k = link_get(nl, cstr(r, name), &l, &e);
    if (k == ERR_NOT_FOUND) {
        return different(f, "the pod has no interface ", name, "");
    }
    if (k == 0 && !(l.flags & IFF_UP)) {
        return different(f, "interface ", name, " of the pod is down");
    }
    if (k < 0 || addr_dump(nl, l.index, see_addr, &c, &e) < 0 ||
        route_dump(nl, &(struct route_filter){0}, see_route, &c, &e) < 0) {
        return fail_kernel(f, "the pod's interface", &e);
    }
    memcpy(mac, l.mac, 6);
    if (all_nets(&c, "address", name, f) < 0) {
        return -1;
    }
    if ((has_family(at->nets, at->n_nets, IP_V4) && !c.has_default_v4) ||
        (has_family(at->nets, at->n_nets, IP_V6) && !c.has_default_v6)) {
        return different(f, "the pod of interface ", name, " has no route to its gateway");
    }
    return 0;
}

int cni_kernel_check(struct cni_request *r, const struct cni_attachment *at, uint8_t mac[6],
                     struct cni_fail *f) {
    struct err e = {0};
    struct link l;
    struct check c = {.nets = at->nets, .n_nets = at->n_nets};
    int k = link_get(r->s->nl, cstr(r, at->iface), &l, &e);
    if (k == ERR_NOT_FOUND) {
        return different(f, "the host has no interface ", at->iface, "");
    }
    if (k == 0 && !(l.flags & IFF_UP)) {
        return different(f, "interface ", at->iface, " of the host is down");
    }
    if (k < 0 ||
        route_dump(r->s->nl, &(struct route_filter){.oif = l.index}, see_host_route, &c, &e) < 0) {
        return fail_kernel(f, "the host's side of the pod's interface", &e);
    }
    for (size_t i = 0; i < c.n_nets && i < CNI_MAX_IPS; i++) {
        c.has_net[i] |= links_is_away(r->s->links, &c.nets[i].ip); /* a machine's, elsewhere */
    }
    return all_nets(&c, "route", at->iface, f) < 0 ? -1 : check_pod_side(r, at, mac, f);
}
