/* Ways to other nodes against the real kernel, in a network namespace of its own: random changes,
 * after each of which the kernel has what is wanted and a second instance finds nothing to write;
 * tampering is undone; what is others' stays. */
#include "base/clock.h"
#include "base/log.h"
#include "base/vec.h"
#include "dataplane/overlay.h"
#include "netlink/addr.h"
#include "netlink/route.h"
#include "netlink/vxlan.h"

#include <linux/rtnetlink.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct err e;
static struct loop *loop;
static struct nl *nl;
static struct overlay *o;

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
static struct ip46 ip(const char *s) {
    return pfx(s).ip;
}

static struct overlay_device device4(void) {
    struct overlay_device d = {.vni = 4096, .port = 4789};
    d.local = ip("192.0.2.1");
    d.addr = ip("10.0.1.1");
    memcpy(d.mac, "\x66\1\2\3\4\5", 6);
    return d;
}
static struct overlay_device device6(void) {
    struct overlay_device d = {.vni = 4096, .port = 4789};
    d.local = ip("2001:db8::1");
    d.addr = ip("fd00:1::1");
    memcpy(d.mac, "\x66\1\2\3\4\6", 6);
    return d;
}

/* A namespace with an uplink of both families. */
static int setup(void **state MG_UNUSED) {
    memset(&e, 0, sizeof(e));
    if (unshare(CLONE_NEWNET) < 0) {
        return -1;
    }
    log_level_set(LOG_ERROR);
    loop = loop_new();
    OK(nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &nl, &e));
    (void)link_add_veth(nl,
                        &(struct veth){.name = "eth0", .peer_name = "peer", .peer_netns_fd = -1});
    (void)link_change(nl, &(struct link_change){.name = "eth0", .set_up = true, .up = true});
    (void)link_change(nl, &(struct link_change){.name = "peer", .set_up = true, .up = true});
    (void)link_change(nl, &(struct link_change){.name = "lo", .set_up = true, .up = true});
    OK(nl_commit(nl, &e));
    int index = (int)if_nametoindex("eth0");
    struct prefix a = pfx("192.0.2.1/24"), b = pfx("2001:db8::1/64");
    (void)addr_add(nl, index, &a);
    (void)addr_add(nl, index, &b);
    OK(nl_commit(nl, &e));
    o = overlay_new(loop, false, &e);
    return o ? 0 : -1;
}

static int teardown(void **state MG_UNUSED) {
    overlay_free(o);
    nl_close(nl);
    loop_free(loop);
    return 0;
}

/* ---- the world ---- */

enum { N_ROUTES = 24, N_NODES = 8 };
struct world {
    bool has_dev[2], has_route[N_ROUTES], has_vtep[2 * N_NODES];
    struct path_route routes[N_ROUTES];
    struct path_vtep vteps[2 * N_NODES];
};

static uint32_t seed;
static uint32_t rnd(uint32_t n) {
    seed = seed * 1664525U + 1013904223U;
    return (seed >> 8) % n;
}

static struct path_route random_route(uint32_t i) {
    char text[64];
    bool v6 = i % 2;
    snprintf(text, sizeof(text), v6 ? "fd00:2::%x00/122" : "10.2.%u.0/26", i);
    struct path_route r = {.dst = pfx(text), .kind = (enum path_kind)rnd(3)};
    uint32_t n = rnd(N_NODES);
    if (r.kind == PATH_DIRECT) {
        snprintf(text, sizeof(text), v6 ? "2001:db8::%u" : "192.0.2.%u", n + 10);
        r.via = ip(text);
    } else if (r.kind == PATH_BY_VXLAN) {
        snprintf(text, sizeof(text), v6 ? "fd00:9::%u" : "10.9.0.%u", n + 1);
        r.via = ip(text);
    }
    return r;
}

static struct path_vtep random_vtep(uint32_t i) {
    char text[64];
    bool v6 = i % 2;
    snprintf(text, sizeof(text), v6 ? "fd00:9::%u" : "10.9.0.%u", i / 2 + 1);
    struct path_vtep v = {.addr = ip(text)};
    snprintf(text, sizeof(text), v6 ? "2001:db8::%u" : "192.0.2.%u", i / 2 + 10 + rnd(2));
    v.node = ip(text);
    memcpy(v.mac, (uint8_t[]){0x66, 0, 0, (uint8_t)rnd(2), v6, (uint8_t)i}, 6);
    return v;
}

static void set_device(struct overlay *to, size_t f, bool has) {
    struct overlay_device d = f ? device6() : device4();
    overlay_set_device(to, f ? IP_V6 : IP_V4, has ? &d : NULL);
}

static void change(struct world *w) {
    uint32_t what = rnd(12), i;
    if (what == 0) {
        i = rnd(2);
        w->has_dev[i] = rnd(4) != 0;
        set_device(o, i, w->has_dev[i]);
    } else if (what < 5) {
        i = rnd(2 * N_NODES);
        if (w->has_vtep[i]) {
            overlay_vtep_gone(o, &w->vteps[i]);
        }
        w->has_vtep[i] = rnd(3) != 0;
        w->vteps[i] = random_vtep(i);
        if (w->has_vtep[i]) {
            overlay_vtep(o, &w->vteps[i]);
        }
    } else {
        i = rnd(N_ROUTES);
        struct path_route r = random_route(i);
        if (w->has_route[i] && rnd(3) == 0) {
            overlay_route_gone(o, &r.dst);
            w->has_route[i] = false;
        } else {
            overlay_route(o, &r);
            w->has_route[i] = true;
        }
        w->routes[i] = r;
    }
}

static void tell_all(const struct world *w, struct overlay *to) {
    for (size_t i = 0; i < 2; i++) {
        set_device(to, i, w->has_dev[i]);
    }
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (w->has_route[i]) {
            overlay_route(to, &w->routes[i]);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(w->vteps); i++) {
        if (w->has_vtep[i]) {
            overlay_vtep(to, &w->vteps[i]);
        }
    }
}

struct counting {
    const struct world *w;
    size_t n_ours, n_wrong;
    int dev[2];
};

static int count_route(void *arg, const struct route *r) {
    struct counting *c = arg;
    if (r->protocol != OVERLAY_PROTOCOL) {
        return 0;
    }
    c->n_ours++;
    for (size_t i = 0; i < N_ROUTES; i++) {
        const struct path_route *p = &c->w->routes[i];
        if (!c->w->has_route[i] || !prefix_eq(&p->dst, &r->dst)) {
            continue;
        }
        bool is_right = p->kind == PATH_TO_NOWHERE
                            ? r->type == RTN_BLACKHOLE
                            : r->type == RTN_UNICAST && ip_eq(&r->via, &p->via);
        is_right &= p->kind != PATH_BY_VXLAN || r->oif == c->dev[p->dst.ip.family == IP_V6];
        c->n_wrong += !is_right;
        return 0;
    }
    c->n_wrong++;
    return 0;
}

static void check(const struct world *w) {
    struct counting c = {
        .w = w,
        .dev = {(int)if_nametoindex("vxlan.calico"), (int)if_nametoindex("vxlan-v6.calico")}};
    size_t n_wanted = 0;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(c.dev[i] != 0, w->has_dev[i]);
    }
    for (size_t i = 0; i < N_ROUTES; i++) {
        const struct path_route *p = &w->routes[i];
        n_wanted +=
            w->has_route[i] && (p->kind != PATH_BY_VXLAN || w->has_dev[p->dst.ip.family == IP_V6]);
    }
    OK(route_dump(nl, &(struct route_filter){0}, count_route, &c, &e));
    assert_int_equal(c.n_wrong, 0);
    assert_int_equal(c.n_ours, n_wanted);
}

static void t_overlay__random_changes__kernel_as_wanted(void **state MG_UNUSED) {
    struct world w = {.has_dev = {true, true}};
    set_device(o, 0, true);
    set_device(o, 1, true);
    for (seed = 1; seed < 4000; seed += rnd(50) + 20) {
        for (uint32_t n = rnd(5) + 1; n; n--) {
            change(&w);
        }
        OK(overlay_flush(o, &e));
        check(&w);
        if (rnd(8) == 0) {
            struct overlay *second = overlay_new(loop, false, &e);
            struct overlay_stats s;
            tell_all(&w, second);
            OK(overlay_flush(second, &e));
            overlay_stats(second, &s);
            assert_int_equal(s.writes, 0);
            overlay_free(second);
        }
    }
}

static void sh(const char *command) {
    assert_int_equal(system(command), 0);
}

/* Runs the loop until the kernel is as it should be again, or fails. */
static void until_repaired(const struct world *w, uint64_t repairs) {
    struct overlay_stats s;
    int64_t end = clock_ns() + 20000000000LL;
    do {
        loop_step(loop, true);
        overlay_stats(o, &s);
    } while (s.repairs < repairs && clock_ns() < end);
    assert_true(s.repairs >= repairs);
    check(w);
}

static void t_overlay__tampering__undone(void **state MG_UNUSED) {
    static const char *const deeds[] = {
        "ip route del 10.2.0.0/26",
        "ip route del blackhole 10.2.2.0/26",
        "ip link del vxlan.calico",
        "ip link set vxlan.calico down",
        "ip link set vxlan.calico address 02:00:00:00:00:01",
        "ip addr flush dev vxlan.calico",
        "ip link set vxlan.calico mtu 1300",
        "ip link set eth0 mtu 1400",
        "ip link set eth0 mtu 1500",
        "ip route replace 10.2.4.0/26 via 192.0.2.77",
        "ip route add 10.66.0.0/16 via 192.0.2.77 proto 80",
        "ip link set eth0 down && ip link set eth0 up",
        "ip neigh del 10.9.0.1 dev vxlan.calico",
        "sysctl -qw net.ipv4.ip_forward=0",
    };
    struct world w = {.has_dev = {true, false}};
    set_device(o, 0, true);
    w.routes[0] = (struct path_route){pfx("10.2.0.0/26"), PATH_BY_VXLAN, ip("10.9.0.1")};
    w.routes[1] = (struct path_route){pfx("10.2.2.0/26"), PATH_TO_NOWHERE, {0}};
    w.routes[2] = (struct path_route){pfx("10.2.4.0/26"), PATH_DIRECT, ip("192.0.2.10")};
    w.has_route[0] = w.has_route[1] = w.has_route[2] = true;
    w.vteps[0] = random_vtep(0);
    w.has_vtep[0] = true;
    tell_all(&w, o);
    OK(overlay_flush(o, &e));
    check(&w);
    for (size_t i = 0; i < ARRAY_LEN(deeds); i++) {
        struct overlay_stats s;
        while (loop_step(loop, false), false) {
        }
        overlay_stats(o, &s);
        sh(deeds[i]);
        print_message("%s\n", deeds[i]);
        until_repaired(&w, s.repairs + 1);
    }
    sh("ip -j neigh show dev vxlan.calico | grep -q 10.9.0.1");
    sh("test $(sysctl -n net.ipv4.ip_forward) = 1");
    sh("bridge fdb show dev vxlan.calico | grep -q 'dst 192.0.2.1'");
    sh("ip link show vxlan.calico | grep -q 'mtu 1450'");
}

static void t_overlay__foreign_routes__untouched(void **state MG_UNUSED) {
    sh("ip route add 10.77.0.0/16 via 192.0.2.77 proto static");
    sh("ip route add blackhole 10.78.0.0/16 proto bird");
    sh("ip route add 10.2.0.0/26 via 192.0.2.77 proto static metric 50");
    struct world w = {.has_dev = {true, false}};
    w.routes[0] = (struct path_route){pfx("10.2.0.0/26"), PATH_BY_VXLAN, ip("10.9.0.1")};
    w.has_route[0] = true;
    tell_all(&w, o);
    OK(overlay_flush(o, &e));
    check(&w);
    overlay_route_gone(o, &w.routes[0].dst);
    overlay_set_device(o, IP_V4, NULL);
    OK(overlay_flush(o, &e));
    sh("ip route show 10.77.0.0/16 | grep -q static");
    sh("ip route show 10.78.0.0/16 | grep -q blackhole");
    sh("ip route show 10.2.0.0/26 | grep -q 192.0.2.77");
    assert_int_equal(if_nametoindex("vxlan.calico"), 0);
}

static void t_overlay__routes_of_bgp__untouched(void **state MG_UNUSED) {
    overlay_free(o);
    o = overlay_new(loop, true, &e);
    sh("ip route add 10.79.0.0/16 via 192.0.2.77 proto 80");
    sh("ip route add blackhole 10.80.0.0/16 proto 80");
    OK(overlay_flush(o, &e));
    sh("ip route show 10.79.0.0/16 | grep -q 192.0.2.77");
    sh("test -z \"$(ip route show 10.80.0.0/16)\"");
}

static void t_overlay__no_uplink__says_so_and_recovers(void **state MG_UNUSED) {
    struct world w = {.has_dev = {true, false}};
    struct overlay_stats s;
    sh("ip addr del 192.0.2.1/24 dev eth0");
    w.routes[0] = (struct path_route){pfx("10.2.0.0/26"), PATH_BY_VXLAN, ip("10.9.0.1")};
    w.has_route[0] = true;
    tell_all(&w, o);
    assert_true(overlay_flush(o, &e) < 0);
    overlay_stats(o, &s);
    assert_non_null(strstr(s.problem, "192.0.2.1 is on no interface"));
    sh("ip addr add 192.0.2.1/24 dev eth0");
    until_repaired(&w, 1);
    overlay_stats(o, &s);
    assert_string_equal(s.problem, "");
}

int main(void) {
    if (geteuid() != 0) {
        print_message("skipped: needs root for a network namespace\n");
        return 77;
    }
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(t_overlay__random_changes__kernel_as_wanted), T(t_overlay__tampering__undone),
        T(t_overlay__foreign_routes__untouched),        T(t_overlay__routes_of_bgp__untouched),
        T(t_overlay__no_uplink__says_so_and_recovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
