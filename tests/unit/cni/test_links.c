/* The host side of pods' interfaces against the real kernel, in namespaces of this process's own.
 */
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "dataplane/links.h"
#include "netlink/monitor.h"
#include "netlink/netns.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

/* after stdarg, setjmp */
#include <cmocka.h>

static const uint8_t pod_mac[6] = {2, 0, 0, 0, 0, 9};
static struct err e;
static struct loop *loop;
static struct nl *nl;
static int pod = -1;
static struct prefix nets[2];

#define OK(x)                                                                                  \
    do {                                                                                       \
        int ok_r = (x);                                                                        \
        if (ok_r < 0) {                                                                        \
            print_error("%s:%d %s: %s (%s)\n", __FILE__, __LINE__, #x, err_name(ok_r), e.msg); \
            fail();                                                                            \
        }                                                                                      \
    } while (0)

static struct prefix pfx(const char *s) {
    struct prefix p;
    assert_int_equal(prefix_parse(str_c(s), &p), 0);
    return p;
}

static int setup(void **state MG_UNUSED) {
    memset(&e, 0, sizeof(e));
    if (unshare(CLONE_NEWNET) < 0) {
        return -1;
    }
    int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (unshare(CLONE_NEWNET) < 0) {
        return -1;
    }
    pod = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    netns_leave(own);
    close(own);
    loop = loop_new();
    nets[0] = pfx("10.7.0.5/32");
    nets[1] = pfx("fd00:7::5/128");
    return nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &nl, &e);
}

static int teardown(void **state MG_UNUSED) {
    nl_close(nl);
    loop_free(loop);
    return close(pod);
}

static struct links *start(void) {
    struct links_settings s = {0};
    struct links *l = links_new(loop, &s, &e);
    assert_non_null(l);
    return l;
}

static void make(const char *name, const char *peer) {
    (void)link_add_veth(nl, &(struct veth){.name = name, .peer_name = peer, .peer_netns_fd = pod});
    OK(nl_commit(nl, &e));
}

/* Turns the loop until there was nothing to do for a while. */
static void turn(void) {
    for (int i = 0; i < 20; i++) {
        loop_step(loop, false);
        usleep(500);
    }
}

struct have {
    int index;
    size_t n_routes, n_neighs, n_others;
};
static int see_route(void *arg, const struct route *r) {
    struct have *h = arg;
    if (r->oif == h->index && (prefix_eq(&r->dst, &nets[0]) || prefix_eq(&r->dst, &nets[1]))) {
        assert_int_equal(r->protocol, 3);
        assert_true(r->dst.ip.family == IP_V6 || r->scope == RT_SCOPE_LINK);
        h->n_routes++;
    } else if (r->oif == h->index && r->dst.len == ip_bits(&r->dst.ip)) {
        h->n_others++;
    }
    return 0;
}
static int see_neigh(void *arg, const struct neigh *n) {
    struct have *h = arg;
    h->n_neighs += n->is_permanent && n->has_mac && memcmp(n->mac, pod_mac, 6) == 0;
    return 0;
}

static void check_right(const char *name) {
    struct link k;
    OK(link_get(nl, name, &k, &e));
    assert_true(k.flags & IFF_UP);
    assert_memory_equal(k.mac, links_host_mac, 6);
    assert_int_equal(k.conf.v4_proxy_arp, 1);
    assert_int_equal(k.conf.v4_forwarding, 1);
    assert_int_equal(k.conf.v4_route_localnet, 1);
    assert_int_equal(k.conf.v6_proxy_ndp, 1);
    assert_int_equal(k.conf.v6_forwarding, 1);
    assert_int_equal(k.conf.v6_accept_ra, 0);
    assert_int_equal(k.conf.v6_accept_dad, 0);
    struct have h = {.index = k.index};
    OK(route_dump(nl, &(struct route_filter){0}, see_route, &h, &e));
    OK(neigh_dump(nl, k.index, see_neigh, &h, &e));
    assert_int_equal(h.n_routes, 2);
    assert_int_equal(h.n_neighs, 2);
    assert_int_equal(h.n_others, 0);
}

static struct links_stats stats(struct links *l) {
    struct links_stats s;
    links_stats(l, &s);
    return s;
}

static void t_apply__then_zero_writes(void **state MG_UNUSED) {
    struct links *l = start();
    links_set(l, STR("cali1"), nets, 2, pod_mac);
    assert_int_equal(links_apply(l, STR("cali1"), &e), ERR_NOT_FOUND);
    assert_int_equal(links_apply(l, STR("cali2"), &e), ERR_NOT_FOUND);
    assert_int_equal(stats(l).n_pending, 1);
    make("cali1", "eth0");
    OK(links_apply(l, STR("cali1"), &e));
    check_right("cali1");
    struct links_stats a = stats(l);
    assert_int_equal(a.n_pending, 0);
    assert_true(a.writes > 0);
    turn();
    OK(links_apply(l, STR("cali1"), &e));
    links_set(l, STR("cali1"), nets, 2, pod_mac);
    OK(links_sync(l, &e));
    turn();
    assert_int_equal(stats(l).writes, a.writes);
    assert_int_equal(stats(l).repairs, 0);
    links_free(l);
    turn();
    check_right("cali1");

    /* The next start finds everything right. */
    l = start();
    links_set(l, STR("cali1"), nets, 2, pod_mac);
    turn();
    assert_int_equal(stats(l).writes, 0);
    assert_int_equal(stats(l).n_pending, 0);
    links_free(l);
}

static void t_pending__done_when_it_appears(void **state MG_UNUSED) {
    struct links *l = start();
    links_set(l, STR("cali1"), nets, 2, pod_mac);
    turn();
    make("cali1", "eth0");
    turn();
    check_right("cali1");
    assert_int_equal(stats(l).repairs, 0);
    /* It goes and comes back. */
    (void)link_del_name(nl, "cali1");
    OK(nl_commit(nl, &e));
    turn();
    assert_int_equal(stats(l).n_pending, 1);
    make("cali1", "eth0");
    turn();
    check_right("cali1");
    links_free(l);
}

static void break_it(int i, int index) {
    static const uint8_t other[6] = {2, 1, 1, 1, 1, 1};
    struct link_conf off = {.v4_forwarding = LINK_CONF_UNKNOWN,
                            .v4_proxy_arp = 0,
                            .v4_route_localnet = LINK_CONF_UNKNOWN};
    struct route gone = {.dst = nets[i & 1], .oif = index};
    struct route odd = {.dst = nets[0], .oif = index, .protocol = 99, .scope = RT_SCOPE_LINK};
    struct link lo;
    switch (i) {
    case 0:
    case 1:
        (void)route_del(nl, &gone);
        break;
    case 2:
        (void)link_change(nl, &(struct link_change){.index = index, .set_up = true, .up = false});
        break;
    case 3:
        (void)link_change(nl, &(struct link_change){.index = index, .mac = other});
        break;
    case 4:
        (void)neigh_set(nl, index, &nets[0].ip, other);
        break;
    case 5:
        (void)neigh_del(nl, index, &nets[1].ip);
        break;
    case 6:
        (void)route_add(nl, &odd, NLM_F_CREATE | NLM_F_REPLACE);
        break;
    case 7:
        OK(link_get(nl, "lo", &lo, &e));
        (void)link_change(nl, &(struct link_change){.index = lo.index, .set_up = true, .up = true});
        odd.oif = lo.index;
        (void)route_add(nl, &odd, NLM_F_CREATE | NLM_F_REPLACE);
        break;
    case 8:
        (void)link_change(nl, &(struct link_change){.index = index, .v4_conf = &off, .mtu = 1400});
        break;
    case 9:
        OK(sysctl_write("/proc/sys/net/ipv6/conf/cali1/forwarding", "0"));
        break;
    case 10:
        OK(sysctl_write("/proc/sys/net/ipv4/conf/cali1/proxy_arp", "0"));
        break;
    default:
        fail();
    }
    if (nl_pending(nl)) {
        OK(nl_commit(nl, &e));
    }
}

static void t_drift__is_repaired(void **state MG_UNUSED) {
    for (int i = 0; i <= 10; i++) {
        struct links *l = start();
        struct link k;
        links_set(l, STR("cali1"), nets, 2, pod_mac);
        make("cali1", "eth0");
        OK(links_apply(l, STR("cali1"), &e));
        turn();
        OK(link_get(nl, "cali1", &k, &e));
        break_it(i, k.index);
        turn();
        check_right("cali1");
        if (stats(l).repairs != 1) {
            print_error("break %d: %d repairs\n", i, (int)stats(l).repairs);
        }
        assert_int_equal(stats(l).repairs, 1);
        links_free(l);
        (void)link_del_name(nl, "cali1");
        OK(nl_commit(nl, &e));
    }
}

static void t_fight__is_slowed_down(void **state MG_UNUSED) {
    struct links *l = start();
    links_set(l, STR("cali1"), nets, 2, pod_mac);
    make("cali1", "eth0");
    OK(links_apply(l, STR("cali1"), &e));
    struct link k;
    OK(link_get(nl, "cali1", &k, &e));
    for (int i = 0; i < 100; i++) {
        (void)route_del(nl, &(struct route){.dst = nets[0], .oif = k.index});
        (void)!nl_exchange(nl, &e);
        loop_step(loop, false);
        loop_step(loop, false);
    }
    struct links_stats s = stats(l);
    assert_int_equal(s.fights, 1);
    assert_true(s.repairs >= 4 && s.repairs <= 10);
    int64_t until = clock_ns() + 1500000000;
    while (clock_ns() < until) {
        turn();
    }
    check_right("cali1");
    links_free(l);
}

static void t_change__addresses_and_unset(void **state MG_UNUSED) {
    struct links *l = start();
    struct prefix first[] = {pfx("10.7.0.9"), nets[0]};
    links_set(l, STR("cali1"), first, 2, NULL);
    make("cali1", "eth0");
    OK(links_apply(l, STR("cali1"), &e));
    links_set(l, STR("cali1"), nets, 2, pod_mac);
    turn();
    check_right("cali1");
    links_unset(l, STR("cali1"));
    links_unset(l, STR("cali1"));
    struct link k;
    OK(link_get(nl, "cali1", &k, &e));
    struct have h = {.index = k.index};
    OK(route_dump(nl, &(struct route_filter){0}, see_route, &h, &e));
    OK(neigh_dump(nl, k.index, see_neigh, &h, &e));
    assert_int_equal(h.n_routes + h.n_others + h.n_neighs, 0);
    turn();
    assert_int_equal(stats(l).n_ifaces, 0);
    links_free(l);
}

static int see_other(void *arg, const struct route *r) {
    struct have *h = arg;
    h->n_others += r->oif == h->index && prefix_eq(&r->dst, &nets[0]);
    return 0;
}

static size_t n_routes(const char *name) {
    struct link k;
    OK(link_get(nl, name, &k, &e));
    struct have h = {.index = k.index};
    OK(route_dump(nl, &(struct route_filter){0}, see_route, &h, &e));
    return h.n_routes;
}

static void t_away__not_routed_to_the_pod(void **state MG_UNUSED) {
    struct links *l = start();
    make("cali1", "eth0");
    links_away(l, &nets[0].ip, true); /* known before the pod is */
    links_set(l, STR("cali1"), nets, 2, pod_mac);
    OK(links_apply(l, STR("cali1"), &e));
    turn();
    assert_int_equal(n_routes("cali1"), 1);
    for (int i = 0; i < 3; i++) { /* it comes, and goes again */
        links_away(l, &nets[0].ip, false);
        links_away(l, &nets[1].ip, false);
        turn();
        check_right("cali1");
        links_away(l, &nets[0].ip, true);
        links_away(l, &nets[1].ip, i == 1);
        turn();
        assert_int_equal(n_routes("cali1"), i == 1 ? 0 : 1);
    }
    /* Somebody else's route to it is not touched, and no fight is begun. */
    make("other", "o0");
    (void)link_change(nl, &(struct link_change){
                              .index = (int)if_nametoindex("other"), .set_up = true, .up = true});
    OK(nl_commit(nl, &e));
    links_away(l, &nets[0].ip, false);
    turn();
    struct route theirs = {.dst = nets[0],
                           .oif = (int)if_nametoindex("other"),
                           .protocol = 80,
                           .scope = RT_SCOPE_LINK};
    (void)route_add(nl, &theirs, NLM_F_CREATE | NLM_F_REPLACE);
    links_away(l, &nets[0].ip, true);
    OK(nl_commit(nl, &e));
    turn();
    assert_int_equal(stats(l).fights, 0);
    assert_int_equal(stats(l).repairs, 0);
    struct have h = {.index = (int)if_nametoindex("other")};
    OK(route_dump(nl, &(struct route_filter){0}, see_other, &h, &e));
    assert_int_equal(h.n_others, 1);
    links_free(l);
}

static void t_start__removes_what_is_stale(void **state MG_UNUSED) {
    struct links *l = start();
    struct prefix three[] = {nets[0], nets[1], pfx("10.7.0.77")};
    make("cali1", "eth0");
    links_set(l, STR("cali1"), three, 3, pod_mac);
    OK(links_apply(l, STR("cali1"), &e));
    links_free(l);
    l = start();
    links_set(l, STR("cali1"), nets, 2, pod_mac);
    turn();
    struct link k;
    OK(link_get(nl, "cali1", &k, &e));
    struct have h = {.index = k.index};
    OK(route_dump(nl, &(struct route_filter){0}, see_route, &h, &e));
    assert_int_equal(h.n_routes, 2);
    assert_int_equal(h.n_others, 0);
    links_free(l);
}

static void t_taken_address__only_from_pods(void **state MG_UNUSED) {
    struct links *l = start();
    struct link other;
    make("cali0", "eth0");
    make("user0", "eth1");
    for (int i = 0; i < 2; i++) {
        const char *holder = i == 0 ? "cali0" : "user0";
        OK(link_get(nl, holder, &other, &e));
        (void)link_change(nl, &(struct link_change){.name = holder, .set_up = true, .up = true});
        (void)route_add(
            nl,
            &(struct route){
                .dst = nets[0], .oif = other.index, .protocol = 3, .scope = RT_SCOPE_LINK},
            NLM_F_CREATE | NLM_F_REPLACE);
        OK(nl_commit(nl, &e));
        links_set(l, STR("cali1"), nets, 2, pod_mac);
        make("cali1", "eth2");
        if (i == 0) {
            OK(links_apply(l, STR("cali1"), &e));
            check_right("cali1");
        } else {
            assert_int_equal(links_apply(l, STR("cali1"), &e), ERR_EXISTS);
            assert_non_null(strstr(e.msg, "user0"));
            assert_non_null(strstr(e.msg, "10.7.0.5/32"));
            assert_int_equal(stats(l).n_problems, 1);
        }
        links_forget(l, STR("cali1"));
        (void)link_del_name(nl, "cali1");
        OK(nl_commit(nl, &e));
    }
    links_free(l);
}

static void t_many__one_reading(void **state MG_UNUSED) {
    struct links *l = start();
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 60; i++) {
            char name[16], peer[16];
            struct prefix p = pfx("10.8.0.0/32");
            (void)snprintf(name, sizeof(name), "cali%u", i);
            (void)snprintf(peer, sizeof(peer), "eth%u", i);
            p.ip.b[3] = (uint8_t)i;
            if (round == 0) {
                make(name, peer);
            }
            links_set(l, str_c(name), &p, 1, pod_mac);
        }
        turn();
        assert_int_equal(stats(l).n_pending + stats(l).n_problems, 0);
        assert_int_equal(stats(l).n_ifaces, 60);
        if (round == 1) {
            assert_int_equal(stats(l).writes, 0);
        }
        links_free(l);
        l = start();
    }
    links_free(l);
}

static void t_bad_names__are_refused(void **state MG_UNUSED) {
    struct links *l = start();
    links_set(l, STR("../../x"), nets, 2, pod_mac);
    links_set(l, STR(""), nets, 2, pod_mac);
    links_set(l, STR("caliverylongname"), nets, 2, pod_mac);
    assert_int_equal(stats(l).n_ifaces, 0);
    links_free(l);
}

int main(void) {
    if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0) {
        return 77;
    }
    log_level_set(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(t_apply__then_zero_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(t_pending__done_when_it_appears, setup, teardown),
        cmocka_unit_test_setup_teardown(t_drift__is_repaired, setup, teardown),
        cmocka_unit_test_setup_teardown(t_fight__is_slowed_down, setup, teardown),
        cmocka_unit_test_setup_teardown(t_change__addresses_and_unset, setup, teardown),
        cmocka_unit_test_setup_teardown(t_away__not_routed_to_the_pod, setup, teardown),
        cmocka_unit_test_setup_teardown(t_start__removes_what_is_stale, setup, teardown),
        cmocka_unit_test_setup_teardown(t_taken_address__only_from_pods, setup, teardown),
        cmocka_unit_test_setup_teardown(t_many__one_reading, setup, teardown),
        cmocka_unit_test_setup_teardown(t_bad_names__are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
