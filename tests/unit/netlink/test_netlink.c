/* rtnetlink against the real kernel, in network namespaces that this process makes for itself. */
#include "base/clock.h"
#include "base/fd.h"
#include "base/loop.h"
#include "netlink/addr.h"
#include "netlink/conntrack.h"
#include "netlink/link.h"
#include "netlink/monitor.h"
#include "netlink/neigh.h"
#include "netlink/netns.h"
#include "netlink/route.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/neighbour.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* after stdarg, setjmp */
#include <cmocka.h>

static const uint8_t mac_a[6] = {0xee, 0xee, 0xee, 0xee, 0xee, 0xee};
static const uint8_t mac_b[6] = {0x02, 0, 0, 0, 0, 0x0b};
static struct err e;

#define OK(x)                                                                                  \
    do {                                                                                       \
        int ok_r = (x);                                                                        \
        if (ok_r < 0) {                                                                        \
            print_error("%s:%d %s: %s (%s)\n", __FILE__, __LINE__, #x, err_name(ok_r), e.msg); \
            fail();                                                                            \
        }                                                                                      \
    } while (0)

static int own_netns(void) {
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* A second namespace; the thread stays in the first. */
static int new_netns(void) {
    int own = own_netns();
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    int fd = own_netns();
    netns_leave(own);
    close(own);
    return fd;
}

static struct prefix pfx(const char *s) {
    struct prefix p;
    assert_int_equal(prefix_parse(str_c(s), &p), 0);
    return p;
}

static struct nl *open_here(void) {
    struct nl *nl = NULL;
    OK(nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &nl, &e));
    return nl;
}

static int fresh(void **state MG_UNUSED) {
    memset(&e, 0, sizeof(e));
    return unshare(CLONE_NEWNET);
}

/* Makes the pair h0 (here) - eth0 (in pod) and brings both up; index of h0. */
static int make_pair(struct nl *nl, int pod, int *pod_index) {
    struct veth v = {.name = "h0",
                     .peer_name = "eth0",
                     .mac = mac_a,
                     .peer_mac = mac_b,
                     .mtu = 1410,
                     .peer_netns_fd = pod};
    struct link l;
    MG_CLEANUP(nl_close_p) struct nl *pn = NULL;
    (void)link_add_veth(nl, &v);
    (void)link_change(nl, &(struct link_change){.name = "h0", .set_up = true, .up = true});
    OK(nl_commit(nl, &e));
    OK(nl_open(pod, NETLINK_ROUTE, &pn, &e));
    (void)link_change(pn, &(struct link_change){.name = "eth0", .set_up = true, .up = true});
    OK(nl_commit(pn, &e));
    OK(link_get(pn, "eth0", &l, &e));
    *pod_index = l.index;
    OK(link_get(nl, "h0", &l, &e));
    return l.index;
}

static void t_veth__peer_born_in_pod(void **state MG_UNUSED) {
    MG_CLEANUP(fd_close) int pod = new_netns();
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here(), *pn = NULL;
    struct link l;
    int pod_index;
    int index = make_pair(nl, pod, &pod_index);
    OK(link_get_index(nl, index, &l, &e));
    assert_string_equal(l.name, "h0");
    assert_string_equal(l.kind, "veth");
    assert_memory_equal(l.mac, mac_a, 6);
    assert_int_equal(l.mtu, 1410);
    assert_true(l.flags & IFF_UP);
    assert_true(l.conf.v4_proxy_arp != LINK_CONF_UNKNOWN);
    OK(nl_open(pod, NETLINK_ROUTE, &pn, &e));
    OK(link_get(pn, "eth0", &l, &e));
    assert_memory_equal(l.mac, mac_b, 6);
    assert_int_equal(l.mtu, 1410);
    assert_int_equal(link_get(nl, "eth0", &l, &e), ERR_NOT_FOUND);
}

static void t_batch__each_message_has_its_answer(void **state MG_UNUSED) {
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    struct link l;
    for (int i = 0; i < 500; i++) {
        (void)link_del_name(nl, i == 250 ? "lo" : "nothere");
    }
    OK(nl_exchange(nl, &e));
    for (size_t i = 0; i < 500; i++) {
        assert_int_equal(nl_code(nl, i), i == 250 ? -EOPNOTSUPP : -ENODEV);
    }
    assert_int_equal(nl_code(nl, 500), -EIO);
    OK(link_get(nl, "lo", &l, &e));
    /* A refusal comes with the kernel's words. */
    (void)link_change(nl, &(struct link_change){.index = l.index, .mtu = 3000000000U});
    int r = nl_commit(nl, &e);
    assert_true(r < 0);
    assert_true(strlen(e.msg) > strlen(err_name(r)));
}

static void t_batch__overflow_is_an_error(void **state MG_UNUSED) {
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    static const char big[60000];
    struct link l;
    for (int i = 0; i < 100; i++) {
        (void)link_del_name(nl, "lo");
        nl_put(nl, 200, big, sizeof(big));
    }
    assert_int_equal(nl_exchange(nl, &e), -EMSGSIZE);
    assert_int_equal(nl_pending(nl), 0);
    OK(link_get(nl, "lo", &l, &e));
}

static void t_conf__is_written_and_read(void **state MG_UNUSED) {
    MG_CLEANUP(fd_close) int pod = new_netns();
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    int pod_index;
    int index = make_pair(nl, pod, &pod_index);
    struct link_conf c = {.v4_forwarding = 1, .v4_proxy_arp = 1, .v4_route_localnet = 1};
    struct link l;
    (void)link_change(nl, &(struct link_change){.index = index, .v4_conf = &c});
    (void)link_proxy_delay(nl, index, 0);
    OK(nl_commit(nl, &e));
    OK(link_get_index(nl, index, &l, &e));
    assert_int_equal(l.conf.v4_forwarding, 1);
    assert_int_equal(l.conf.v4_proxy_arp, 1);
    assert_int_equal(l.conf.v4_route_localnet, 1);
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 17);
    OK(file_read(-1, "/proc/sys/net/ipv4/conf/h0/proxy_arp", &b, 64));
    OK(file_read(-1, "/proc/sys/net/ipv4/neigh/h0/proxy_delay", &b, 64));
    assert_string_equal(buf_cstr(&b), "1\n0\n");
    OK(sysctl_write("/proc/sys/net/ipv6/conf/h0/proxy_ndp", "1"));
    OK(sysctl_write("/proc/sys/net/ipv6/conf/h0/accept_dad", "0"));
    OK(link_get(nl, "h0", &l, &e));
    assert_int_equal(l.conf.v6_proxy_ndp, 1);
    assert_int_equal(l.conf.v6_accept_dad, 0);
    assert_int_equal(l.conf.v6_disable, 0);
}

struct seen {
    size_t n;
    struct route r[32];
    struct neigh ng[32];
    struct addr a[32];
};

static int see_route(void *arg, const struct route *r) {
    struct seen *s = arg;
    assert_true(s->n < 32);
    s->r[s->n++] = *r;
    return 0;
}
static int see_neigh(void *arg, const struct neigh *n) {
    struct seen *s = arg;
    if (n->is_permanent) {
        s->ng[s->n++] = *n;
    }
    return 0;
}
static int see_addr(void *arg, const struct addr *a) {
    struct seen *s = arg;
    s->a[s->n++] = *a;
    return 0;
}

static void t_routes_neighbours_addresses(void **state MG_UNUSED) {
    MG_CLEANUP(fd_close) int pod = new_netns();
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    int pod_index;
    int index = make_pair(nl, pod, &pod_index);
    struct prefix a4 = pfx("10.9.0.7/32"), a6 = pfx("fd00::7/128");
    struct route r4 = {.dst = a4, .oif = index, .protocol = 3, .scope = RT_SCOPE_LINK};
    struct route r6 = {.dst = a6, .oif = index, .protocol = 80};
    struct route far = {.dst = pfx("10.8.0.0/16"),
                        .via = pfx("10.9.0.7").ip,
                        .oif = index,
                        .protocol = 80,
                        .table = 1000,
                        .metric = 77,
                        .mtu = 1300,
                        .is_onlink = true};
    struct prefix own = pfx("10.9.0.1/32"), own6 = pfx("fd00::1/128");
    (void)addr_add(nl, index, &own);
    (void)addr_add(nl, index, &own6);
    (void)route_add(nl, &r4, NLM_F_CREATE | NLM_F_EXCL);
    (void)route_add(nl, &r6, NLM_F_CREATE | NLM_F_EXCL);
    (void)route_add(nl, &far, NLM_F_CREATE | NLM_F_EXCL);
    (void)neigh_set(nl, index, &a4.ip, mac_b);
    (void)neigh_set(nl, index, &a6.ip, mac_b);
    OK(nl_commit(nl, &e));

    struct seen s = {0};
    OK(route_dump(nl, &(struct route_filter){.oif = index, .family = IP_V4}, see_route, &s, &e));
    assert_int_equal(s.n, 1);
    assert_true(prefix_eq(&s.r[0].dst, &a4));
    assert_int_equal(s.r[0].protocol, 3);
    assert_int_equal(s.r[0].scope, RT_SCOPE_LINK);
    s.n = 0;
    OK(route_dump(nl, &(struct route_filter){.table = 1000}, see_route, &s, &e));
    assert_int_equal(s.n, 1);
    assert_int_equal(s.r[0].metric, 77);
    assert_int_equal(s.r[0].mtu, 1300);
    assert_true(ip_eq(&s.r[0].via, &a4.ip));
    s.n = 0;
    OK(route_dump(nl, &(struct route_filter){.table = 4242}, see_route, &s, &e));
    assert_int_equal(s.n, 0);
    OK(neigh_dump(nl, index, see_neigh, &s, &e));
    assert_int_equal(s.n, 2);
    assert_memory_equal(s.ng[0].mac, mac_b, 6);
    s.n = 0;
    OK(addr_dump(nl, index, see_addr, &s, &e));
    size_t n_own = 0;
    for (size_t i = 0; i < s.n; i++) {
        n_own += prefix_eq(&s.a[i].net, &own) || prefix_eq(&s.a[i].net, &own6);
        assert_false(prefix_eq(&s.a[i].net, &own6) && s.a[i].is_tentative);
    }
    assert_int_equal(n_own, 2);

    (void)route_add(nl, &r4, NLM_F_CREATE | NLM_F_EXCL);
    assert_int_equal(nl_commit(nl, &e), -EEXIST);
    (void)route_del(nl, &(struct route){.dst = a4, .oif = index});
    (void)route_del(nl, &r6);
    (void)neigh_del(nl, index, &a4.ip);
    (void)addr_del(nl, index, &own);
    OK(nl_commit(nl, &e));
    (void)route_del(nl, &r4);
    assert_int_equal(nl_commit(nl, &e), -ESRCH);
}

/* Several next hops with weights, of both families, and IPv4 by an IPv6 next hop. */
static void t_routes__several_next_hops__come_back_the_same(void **state MG_UNUSED) {
    MG_CLEANUP(fd_close) int pod = new_netns();
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    int pod_index;
    int index = make_pair(nl, pod, &pod_index);
    struct prefix own = pfx("10.9.0.1/24"), own6 = pfx("fd00::1/64");
    (void)addr_add(nl, index, &own);
    (void)addr_add(nl, index, &own6);
    OK(nl_commit(nl, &e));
    struct route r[] = {
        {.dst = pfx("10.8.0.0/24"),
         .protocol = 80,
         .metric = 7,
         .n_ways = 2,
         .ways = {{pfx("10.9.0.2").ip, index, 1, false}, {pfx("10.9.0.3").ip, index, 200, false}}},
        {.dst = pfx("fd01::/64"),
         .protocol = 80,
         .metric = 7,
         .n_ways = 2,
         .ways = {{pfx("fd00::2").ip, index, 3, false}, {pfx("fd00::3").ip, index, 4, false}}},
        {.dst = pfx("10.8.1.0/24"),
         .protocol = 80,
         .metric = 7,
         .via = pfx("fd00::2").ip,
         .oif = index},
        {.dst = pfx("10.8.2.0/24"),
         .protocol = 80,
         .metric = 7,
         .n_ways = 2,
         .ways = {{pfx("10.9.0.2").ip, index, 1, false}, {pfx("fd00::3").ip, index, 1, false}}},
    };
    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        (void)route_add(nl, &r[i], NLM_F_CREATE | NLM_F_EXCL);
    }
    OK(nl_commit(nl, &e));
    struct seen s = {0};
    OK(route_dump(nl, &(struct route_filter){0}, see_route, &s, &e));
    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        const struct route *got = NULL;
        for (size_t k = 0; k < s.n; k++) {
            got = prefix_eq(&s.r[k].dst, &r[i].dst) ? &s.r[k] : got;
        }
        assert_non_null(got);
        assert_int_equal(got->n_ways, r[i].n_ways);
        assert_int_equal(got->is_multipath, r[i].n_ways > 0);
        assert_true(ip_eq(&got->via, &r[i].via));
        for (size_t k = 0; k < r[i].n_ways; k++) {
            assert_true(ip_eq(&got->ways[k].via, &r[i].ways[k].via));
            assert_int_equal(got->ways[k].oif, index);
            assert_int_equal(got->ways[k].weight, r[i].ways[k].weight);
        }
        (void)route_del(nl, &(struct route){.dst = r[i].dst, .metric = 7, .protocol = 80});
    }
    OK(nl_commit(nl, &e));
}

static int count_link(void *arg, const struct link *l MG_UNUSED) {
    ++*(size_t *)arg;
    return 0;
}

static void t_group__deleted_by_one_request(void **state MG_UNUSED) {
    MG_CLEANUP(fd_close) int pod = new_netns();
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    size_t before = 0, after = 0, between = 0;
    OK(link_dump(nl, count_link, &before, &e));
    for (int i = 0; i < 20; i++) {
        char name[16], peer[16];
        (void)snprintf(name, sizeof(name), "g%d", i);
        (void)snprintf(peer, sizeof(peer), "p%d", i);
        (void)link_add_veth(nl,
                            &(struct veth){.name = name, .peer_name = peer, .peer_netns_fd = pod});
        (void)link_change(nl, &(struct link_change){.name = name, .set_group = true, .group = 77});
    }
    OK(nl_commit(nl, &e));
    OK(link_dump(nl, count_link, &between, &e));
    assert_int_equal(between, before + 20);
    (void)link_del_group(nl, 77);
    OK(nl_commit(nl, &e));
    OK(link_dump(nl, count_link, &after, &e));
    assert_int_equal(after, before);
}

struct told {
    size_t n_links, n_gone, n_routes, n_neighs, n_ends, n_resync;
};
static void on_link(void *arg, const struct link *l MG_UNUSED, bool is_gone) {
    struct told *t = arg;
    t->n_links += !is_gone;
    t->n_gone += is_gone;
}
static void on_route(void *arg, const struct route *r, bool is_gone MG_UNUSED) {
    ((struct told *)arg)->n_routes += r->protocol == 80;
}
static void on_neigh(void *arg, const struct neigh *n, bool is_gone MG_UNUSED) {
    ((struct told *)arg)->n_neighs += n->is_permanent && n->ip.family == IP_V4;
}
static void on_end(void *arg) {
    ((struct told *)arg)->n_ends++;
}
static void on_resync(void *arg) {
    ((struct told *)arg)->n_resync++;
}
static const struct nl_monitor_ops ops = {.on_link = on_link,
                                          .on_route = on_route,
                                          .on_neigh = on_neigh,
                                          .on_batch_end = on_end,
                                          .on_resync = on_resync};

static void t_monitor__tells_in_order(void **state MG_UNUSED) {
    MG_CLEANUP(fd_close) int pod = new_netns();
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    struct loop *loop = loop_new();
    struct nl_monitor *m = NULL;
    struct told t = {0};
    int pod_index;
    OK(nl_monitor_new(loop, &ops, &t, &m, &e));
    int index = make_pair(nl, pod, &pod_index);
    struct route r = {
        .dst = pfx("10.9.0.8/32"), .oif = index, .protocol = 80, .scope = RT_SCOPE_LINK};
    struct prefix a = pfx("10.9.0.8");
    (void)route_add(nl, &r, NLM_F_CREATE);
    (void)neigh_set(nl, index, &a.ip, mac_b);
    OK(nl_commit(nl, &e));
    loop_step(loop, true);
    assert_true(t.n_links >= 2);
    assert_int_equal(t.n_routes, 1);
    assert_int_equal(t.n_neighs, 1);
    assert_true(t.n_ends >= 1);
    size_t ends = t.n_ends;
    (void)link_del(nl, index);
    OK(nl_commit(nl, &e));
    nl_monitor_drain(m);
    assert_int_equal(t.n_gone, 1);
    assert_int_equal(t.n_ends, ends + 1);
    nl_monitor_drain(m);
    assert_int_equal(t.n_ends, ends + 1);
    assert_int_equal(t.n_resync, 0);
    nl_monitor_free(m);
    loop_free(loop);
}

static void t_monitor__lost_events_ask_for_resync(void **state MG_UNUSED) {
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    struct loop *loop = loop_new();
    struct nl_monitor *m = NULL;
    struct told t = {0};
    struct link lo;
    OK(nl_monitor_new(loop, &ops, &t, &m, &e));
    OK(link_get(nl, "lo", &lo, &e));
    for (int i = 0; i < 60000; i++) {
        (void)link_change(nl, &(struct link_change){.index = lo.index, .mtu = 1500U + (i & 1)});
        if (nl_pending(nl) == 10000) {
            OK(nl_commit(nl, &e));
        }
    }
    nl_monitor_drain(m);
    assert_true(t.n_resync >= 1);
    nl_monitor_free(m);
    loop_free(loop);
}

static void t_netns__questions(void **state MG_UNUSED) {
    MG_CLEANUP(fd_close) int pod = new_netns();
    MG_CLEANUP(fd_close) int own = own_netns();
    MG_CLEANUP(fd_close) int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    MG_CLEANUP(fd_close) int uts = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
    MG_CLEANUP(nl_close_p) struct nl *nl = NULL;
    assert_int_equal(netns_check(pod), 0);
    assert_true(netns_check(null) < 0);
    assert_true(netns_check(uts) < 0);
    assert_int_equal(netns_is_own(own), 1);
    assert_int_equal(netns_is_own(pod), 0);
    assert_true(nl_open(null, NETLINK_ROUTE, &nl, &e) < 0);
    assert_int_equal(netns_is_own(own), 1);
}

/* Bytes that no kernel sends must be harmless: every prefix and some bit flips of real messages. */
static int mangle(void *arg MG_UNUSED, const struct nlmsghdr *h) {
    struct link l;
    struct route r;
    struct neigh n;
    struct addr a;
    for (uint32_t len = NLMSG_HDRLEN; len <= h->nlmsg_len; len++) {
        struct nlmsghdr *copy = malloc(len);
        memcpy(copy, h, len);
        copy->nlmsg_len = len;
        static const uint16_t types[] = {RTM_NEWLINK, RTM_NEWROUTE, RTM_NEWNEIGH, RTM_NEWADDR};
        for (size_t i = 0; i < ARRAY_LEN(types); i++) {
            copy->nlmsg_type = types[i];
            (void)link_parse(copy, &l);
            (void)route_parse(copy, &r);
            (void)neigh_parse(copy, &n);
            (void)addr_parse(copy, &a);
            uint8_t *p = (uint8_t *)copy + NLMSG_HDRLEN;
            if (len > NLMSG_HDRLEN) {
                p[(unsigned)rand() % (len - NLMSG_HDRLEN)] ^= (uint8_t)(1U << (rand() & 7));
            }
        }
        free(copy);
    }
    return 0;
}

static void t_parse__odd_bytes_are_harmless(void **state MG_UNUSED) {
    MG_CLEANUP(fd_close) int pod = new_netns();
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    int pod_index;
    (void)make_pair(nl, pod, &pod_index);
    srand(7);
    const struct {
        uint16_t type;
        size_t n;
    } all[] = {{RTM_GETLINK, sizeof(struct ifinfomsg)},
               {RTM_GETROUTE, sizeof(struct rtmsg)},
               {RTM_GETNEIGH, sizeof(struct ndmsg)},
               {RTM_GETADDR, 8}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        static const char zero[64];
        (void)nl_add(nl, all[i].type, 0, zero, all[i].n);
        OK(nl_dump(nl, 1, mangle, NULL, &e));
    }
}

static int udp_to(const char *ip, uint16_t port) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    assert_int_equal(inet_pton(AF_INET, ip, &to.sin_addr), 1);
    assert_int_equal(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1);
    return fd;
}

static long tracked(void) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 17);
    uint64_t v = 0;
    if (file_read(-1, "/proc/sys/net/netfilter/nf_conntrack_count", &b, 64) < 0 ||
        str_to_u64(str_trim(buf_view(&b)), &v) < 0) {
        return -1;
    }
    return (long)v;
}

/* Tracking needs a rule that asks for it: a translation hook, made with nft where there is one. */
static void t_conntrack__only_the_addresses(void **state MG_UNUSED) {
    MG_CLEANUP(fd_close) int pod = new_netns();
    MG_CLEANUP(nl_close_p) struct nl *nl = open_here();
    int pod_index;
    int index = make_pair(nl, pod, &pod_index);
    struct prefix own = pfx("10.9.0.1/24");
    size_t n = 0;
    (void)addr_add(nl, index, &own);
    for (uint64_t i = 2; i < 6; i++) {
        struct ip46 ip;
        struct prefix net = pfx("10.9.0.0/24");
        assert_true(prefix_nth(&net, i, &ip));
        /* A packet that waits for its neighbour would keep its connection alive. */
        (void)neigh_set(nl, index, &ip, mac_b);
    }
    OK(nl_commit(nl, &e));
    if (system("nft 'add table ip t; add chain ip t c { type filter hook output priority 0; }; "
               "add rule ip t c ct state new counter' 2>/dev/null") != 0) {
        print_message("skipped: nft(8) is missing, or the kernel has no connection tracking\n");
        skip();
    }
    for (int i = 2; i < 6; i++) {
        char ip[32];
        (void)snprintf(ip, sizeof(ip), "10.9.0.%d", i);
        for (uint16_t port = 1000; port < 1003; port++) {
            close(udp_to(ip, port));
        }
    }
    if (tracked() <= 0) {
        print_message("skipped: the kernel tracks no connections here\n");
        skip();
    }
    long before = tracked();
    struct ip46 two = pfx("10.9.0.2").ip;
    struct conntrack *ct = conntrack_new();
    OK(conntrack_flush(ct, &two, 1, &n, &e));
    assert_int_equal(n, 3);
    assert_int_equal(tracked(), before - 3);
    struct ip46 many[] = {pfx("10.9.0.3").ip, pfx("10.9.0.4").ip, pfx("fd00::1").ip};
    OK(conntrack_flush(ct, many, 3, &n, &e));
    assert_int_equal(n, 6);
    assert_int_equal(tracked(), before - 9);
    OK(conntrack_flush(ct, &two, 1, &n, &e));
    assert_int_equal(n, 0);
    /* A large table is asked by filter. */
    for (uint16_t port = 1; port < 21000; port++) {
        close(udp_to("10.9.0.2", port));
    }
    for (uint16_t port = 1; port < 4; port++) {
        close(udp_to("10.9.0.3", port));
    }
    before = tracked();
    assert_true(before > 20000);
    OK(conntrack_flush(ct, many, 1, &n, &e));
    assert_int_equal(n, 3);
    OK(conntrack_flush(ct, &two, 1, &n, &e));
    assert_true(n > 20000);
    conntrack_free(ct);
}

int main(void) {
    if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0) {
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(t_veth__peer_born_in_pod, fresh),
        cmocka_unit_test_setup(t_batch__each_message_has_its_answer, fresh),
        cmocka_unit_test_setup(t_batch__overflow_is_an_error, fresh),
        cmocka_unit_test_setup(t_conf__is_written_and_read, fresh),
        cmocka_unit_test_setup(t_routes_neighbours_addresses, fresh),
        cmocka_unit_test_setup(t_routes__several_next_hops__come_back_the_same, fresh),
        cmocka_unit_test_setup(t_group__deleted_by_one_request, fresh),
        cmocka_unit_test_setup(t_monitor__tells_in_order, fresh),
        cmocka_unit_test_setup(t_monitor__lost_events_ask_for_resync, fresh),
        cmocka_unit_test_setup(t_netns__questions, fresh),
        cmocka_unit_test_setup(t_parse__odd_bytes_are_harmless, fresh),
        cmocka_unit_test_setup(t_conntrack__only_the_addresses, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
