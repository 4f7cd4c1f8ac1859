/* Resources to configuration: the table of conf_cases.h, the policy that Calico's templates encode,
 * and files that are refused whole. */
#include "bgp/conf.h"

#include "conf_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct arena a;

/* A file's objects; NULL: refused, errors say why. */
static struct object *read_text(const char *yaml, size_t *n, struct buf *errors) {
    char path[] = "/tmp/conf-XXXXXX";
    struct object *out = NULL;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, yaml, strlen(yaml)), (ssize_t)strlen(yaml));
    close(fd);
    int r = bgp_conf_read(path, &a, &out, n, errors);
    unlink(path);
    assert_int_equal(r == 0, errors->n == 0);
    if (errors->n > strlen(path)) { /* the name is of this run */
        buf_consume(errors, strlen(path));
    }
    return r == 0 ? out : NULL;
}

static struct bgp_conf *build(const char *node, const char *yaml, bool is_alone) {
    struct buf errors = BUF_INIT(65536);
    struct conf_input in = {.node_name = str_c(node), .is_alone = is_alone};
    in.objects = read_text(yaml, &in.n_objects, &errors);
    if (!in.objects) {
        print_error("%s\n", buf_cstr(&errors));
    }
    assert_non_null(in.objects);
    struct bgp_conf *c = bgp_conf_build(&in);
    buf_fini(&errors);
    /* Nothing of the input may be needed any more. */
    arena_fini(&a);
    return c;
}

static void t_build__each_case(void **state) {
    (void)state;
    unsigned n_bad = 0;
    for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
        struct bgp_conf *c = build(CASES[i].node, CASES[i].yaml, false);
        struct buf b = BUF_INIT(65536);
        bgp_conf_print(c, &b);
        if (strcmp(buf_cstr(&b), CASES[i].want) != 0) {
            print_error("case: %s\n--- got\n%s--- want\n%s", CASES[i].name, buf_cstr(&b),
                        CASES[i].want);
            n_bad++;
        }
        buf_fini(&b);
        bgp_conf_free(c);
    }
    assert_int_equal(n_bad, 0);
}

/* ---- policy ---- */

struct verdict {
    bool is_accepted;
    uint32_t local_pref;
    char communities[64];
    char rule[96];
};

static void judge(const struct bgp_filter *f, const char *net, enum route_source source,
                  const char *interface, uint32_t priority, bool is_ibgp, struct verdict *out) {
    struct prefix p;
    struct filter_scratch s = FILTER_SCRATCH_INIT;
    struct attr_src attrs = {0};
    assert_int_equal(prefix_parse(str_c(net), &p), 0);
    if (priority) {
        attrs.has = HAS_LOCAL_PREF;
        attrs.local_pref = BGP_PRIORITY_BASE - priority;
    }
    struct filter_route r = {.prefix = &p,
                             .source = source,
                             .interface = str_c(interface),
                             .attrs = &attrs,
                             .is_ibgp_peer = is_ibgp,
                             .default_local_pref = 100};
    struct filter_verdict v = bgp_filter_run(f, &r, &s);
    memset(out, 0, sizeof(*out));
    out->is_accepted = v.is_accepted;
    out->local_pref = attrs.local_pref;
    (void)snprintf(out->rule, sizeof(out->rule), "%s", bgp_filter_rule_name(f, v.rule));
    struct str c = attrs.part[PART_COMMUNITIES];
    for (size_t i = 0; i + 4 <= c.n && i < 16; i += 4) {
        (void)snprintf(out->communities + strlen(out->communities), 24, "%u:%u ",
                       get_u16((const uint8_t *)c.p + i), get_u16((const uint8_t *)c.p + i + 2));
    }
    filter_scratch_fini(&s);
}

#define CLUSTER                                                                                   \
    CONFIG("{nodeToNodeMeshEnabled: false, communities: [{name: edge, value: '64512:9'}], "       \
           "prefixAdvertisements: [{cidr: 10.1.0.0/16, communities: ['65000:1', edge]}], "        \
           "serviceClusterIPs: [{cidr: 10.96.0.0/16}]}")                                          \
    ABC POOL("open", "10.1.0.0/16", "") POOL("hidden", "10.2.0.0/16", ", disableBGPExport: true") \
        BLOCK("x", "a", "10.1.7.0/26", "confirmed")

static void t_export__as_calico(void **state) {
    (void)state;
    struct bgp_conf *c = build("a",
                               CLUSTER PEER("ibgp", "{peerIP: 192.0.2.1}")
                                   PEER("ebgp", "{peerIP: 192.0.2.2, asNumber: 65001}"),
                               false);
    assert_int_equal(c->n_peers, 2);
    static const struct {
        const char *net;
        enum route_source source;
        const char *interface;
        uint32_t priority;
        bool ibgp, ebgp;
        const char *communities;
    } cases[] = {
        {"10.1.7.0/26", ROUTE_STATIC, "", 1024, true, true, "64512:9 65000:1 "},
        {"10.1.7.5/32", ROUTE_LOCAL, "cali1", 1024, false, false, ""}, /* the block speaks for it */
        {"10.1.7.5/32", ROUTE_LOCAL, "cali1", 512, true, true, NULL},  /* a live migration */
        {"10.1.9.5/32", ROUTE_LOCAL, "cali1", 1024, true, true, NULL}, /* borrowed */
        {"10.1.9.0/26", ROUTE_PEER, "eth0", 1024, true, true, NULL},   /* another node's block */
        {"10.1.9.0/26", ROUTE_KERNEL, "vxlan.calico", 1024, false, true, NULL},
        {"10.1.9.0/26", ROUTE_KERNEL, "wireguard.cali", 1024, false, true, NULL},
        {"10.1.9.0/26", ROUTE_KERNEL, "tunl0", 1024, false, true, NULL},
        {"10.1.9.0/26", ROUTE_KERNEL, "bpfin.cali", 1024, false, false, ""},
        {"10.2.0.0/26", ROUTE_STATIC, "", 1024, false, false, ""}, /* disableBGPExport */
        {"10.96.0.0/16", ROUTE_STATIC, "", 1024, true, true, ""},
        {"10.96.0.7/32", ROUTE_STATIC, "", 1024, true, true, ""},
        {"172.16.0.0/12", ROUTE_KERNEL, "eth0", 0, false, false, ""},
        {"10.0.0.0/24", ROUTE_CONNECTED, "eth0", 0, false, false, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (int e = 0; e < 2; e++) {
            struct verdict v;
            judge(c->peers[e].c.family[BGP_V4].export, cases[i].net, cases[i].source,
                  cases[i].interface, cases[i].priority, !e, &v);
            bool want = e ? cases[i].ebgp : cases[i].ibgp;
            if (v.is_accepted != want) {
                print_error("%s from %s to %s: %s\n", cases[i].net, cases[i].interface,
                            e ? "eBGP" : "iBGP", v.rule);
            }
            assert_int_equal(v.is_accepted, want);
            if (want && cases[i].communities) {
                assert_string_equal(v.communities, cases[i].communities);
            }
        }
    }
    bgp_conf_free(c);
}

static void t_reflector__passes_service_addresses_on(void **state) {
    (void)state;
    struct bgp_conf *c = build(
        "a",
        CONFIG("{nodeToNodeMeshEnabled: false, serviceLoadBalancerIPs: [{cidr: 192.0.2.0/24}], "
               "serviceLoadBalancerAggregation: Disabled}")
            NODE("a", "10.0.0.1/24", ", routeReflectorClusterID: 1.0.0.1")
                PEER("p", "{peerIP: 198.51.100.1}"),
        false);
    struct verdict v;
    judge(c->peers[0].c.family[BGP_V4].export, "192.0.2.9/32", ROUTE_PEER, "eth0", 1024, true, &v);
    assert_true(v.is_accepted);
    assert_string_equal(v.rule, "route reflector, inside serviceLoadBalancerIPs");
    bgp_conf_free(c);
}

static void t_alone__what_no_rule_decides_is_announced(void **state) {
    (void)state;
    for (int alone = 0; alone < 2; alone++) {
        struct bgp_conf *c = build("a",
                                   NO_MESH ABC V3("BGPFilter", "f",
                                                  "{exportV4: [{cidr: 10.9.0.0/16, matchOperator: "
                                                  "In, action: Reject}]}")
                                       PEER("p", "{peerIP: 192.0.2.1, asNumber: 1, filters: [f]}"),
                                   alone);
        struct verdict v;
        judge(c->peers[0].c.family[BGP_V4].export, "10.9.1.0/24", ROUTE_KERNEL, "eth0", 0, false,
              &v);
        assert_false(v.is_accepted);
        assert_string_equal(v.rule, "BGPFilter f exportV4[0]");
        judge(c->peers[0].c.family[BGP_V4].export, "10.8.1.0/24", ROUTE_KERNEL, "eth0", 0, false,
              &v);
        assert_int_equal(v.is_accepted, alone);
        bgp_conf_free(c);
    }
}

static void t_filters__every_condition_and_operation(void **state) {
    (void)state;
    struct bgp_conf *c = build(
        "a",
        NO_MESH ABC V3("BGPFilter", "f",
                       "{importV4: [{cidr: 10.1.0.0/16, matchOperator: In, prefixLength: {min: 8, "
                       "max: 24}, action: Accept, operations: [{setPriority: {value: 512}}, "
                       "{addCommunity: {value: '65000:7'}}]}, {source: RemotePeers, interface: "
                       "'eth*', action: Reject}, {peerType: eBGP, priority: 77, action: Reject}]}")
            PEER("p", "{peerIP: 192.0.2.1, asNumber: 1, filters: [f]}"),
        false);
    const struct bgp_filter *f = c->peers[0].c.family[BGP_V4].import;
    struct verdict v;
    judge(f, "10.1.3.0/24", ROUTE_PEER, "eth0", 0, false, &v);
    assert_true(v.is_accepted);
    assert_int_equal(v.local_pref, BGP_PRIORITY_BASE - 512);
    assert_string_equal(v.communities, "65000:7 ");
    judge(f, "10.1.3.0/25", ROUTE_PEER, "eth0", 0, false, &v); /* longer than max */
    assert_false(v.is_accepted);
    judge(f, "10.1.3.0/25", ROUTE_PEER, "ens0", 0, false, &v);
    assert_true(v.is_accepted); /* what no rule decides comes in */
    judge(f, "10.1.3.0/25", ROUTE_PEER, "ens0", 77, false, &v);
    assert_false(v.is_accepted);
    judge(f, "10.1.3.0/25", ROUTE_PEER, "ens0", 77, true, &v);
    assert_true(v.is_accepted);
    bgp_conf_free(c);
}

static void t_metric__is_calicos_where_it_is_calicos(void **state) {
    (void)state;
    struct bgp_conf *c = build("a", CONFIG("{ipv4NormalRoutePriority: 2000}") ABC, false);
    struct prefix p4, p6;
    assert_int_equal(prefix_parse(STR("10.0.0.0/8"), &p4), 0);
    assert_int_equal(prefix_parse(STR("fd00::/8"), &p6), 0);
    assert_int_equal(bgp_conf_metric(c, &p4, BGP_PRIORITY_BASE - 512), 512);
    assert_int_equal(bgp_conf_metric(c, &p4, 100), 2000);
    assert_int_equal(bgp_conf_metric(c, &p6, 100), 1024);
    assert_int_equal(bgp_conf_metric(c, &p6, UINT32_MAX), 1024);
    bgp_conf_free(c);
}

static void t_kernel__cross_subnet_and_wireguard(void **state) {
    (void)state;
    struct bgp_conf *c = build("a",
                               CONFIG("{programClusterRoutes: Enabled}")
                                   ABC POOL("g", "10.3.0.0/16", ", ipipMode: CrossSubnet"),
                               false);
    struct prefix p;
    struct ip46 near, far;
    assert_int_equal(prefix_parse(STR("10.3.1.0/26"), &p), 0);
    assert_int_equal(ip_parse(STR("10.0.0.2"), &near), 0);
    assert_int_equal(ip_parse(STR("10.7.0.2"), &far), 0);
    assert_int_equal(bgp_conf_kernel(c, &p, &near), KERNEL_ACCEPT);
    assert_int_equal(bgp_conf_kernel(c, &p, &far), KERNEL_TUNNEL);
    bgp_conf_free(c);
#define GUARD(name, ip)                                                                         \
    "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: " name                      \
    "}\nspec: {bgp: {ipv4Address: " ip "/24}, wireguard: {interfaceIPv4Address: 172.16.0.1}}\n" \
    "status: {wireguardPublicKey: jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXgY=}\n---\n"
    c = build("a", GUARD("a", "10.0.0.1") GUARD("b", "10.0.0.2") NODE("c", "10.0.0.3/24", ""),
              false);
    assert_int_equal(bgp_conf_kernel(c, &p, &near), KERNEL_REJECT);
    assert_int_equal(bgp_conf_kernel(c, &p, &far), KERNEL_ACCEPT);
    bgp_conf_free(c);
}

static void t_ignored_interfaces(void **state) {
    (void)state;
    struct bgp_conf *c = build("a", CONFIG("{ignoredInterfaces: ['br-*', docker0]}") ABC, false);
    static const struct {
        const char *name;
        bool is_ignored;
    } cases[] = {{"br-1", true},       {"docker0", true}, {"docker1", false}, {"cali123", true},
                 {"kube-ipvs0", true}, {"eth0", false},   {"lo", false}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(bgp_conf_is_ignored(c, str_c(cases[i].name)), cases[i].is_ignored);
    }
    bgp_conf_free(c);
}

/* ---- files ---- */

static void t_file__bad__refused_with_line(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *want;
    } cases[] = {
        {"apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: p}\nspec: {peerIP: "
         "x}\n",
         ":4:"},
        {ABC PEER("p", "{peerIP: 10.0.0.9, peerCIDR: 10.0.0.0/8, asNumber: 1}"),
         "not together with peerCIDR"},
        {ABC PEER("p", "{peerCIDR: 10.0.0.0/8}"), "asNumber"},
        {ABC PEER("p", "{peerIP: 10.0.0.9, holdTime: soon}"), "holdTime"},
        {ABC PEER("p", "{peerIP: 10.0.0.9, addPaths: Maybe}"), "addPaths"},
        {ABC PEER("p", "{peerIP: 10.0.0.9, bfd: {multiplier: 0}}"), "multiplier"},
        {ABC PEER("p", "{peerIP: 10.0.0.9, nosuch: 1}"), "nosuch"},
        {ABC PEER("p", "{peerIP: 10.0.0.9}") PEER("p", "{peerIP: 10.0.0.8}"), "twice"},
        {"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", ":2: found kind Pod"},
        {"a: [\n", ":"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf errors = BUF_INIT(65536);
        size_t n = 0;
        assert_null(read_text(cases[i].yaml, &n, &errors));
        if (!strstr(buf_cstr(&errors), cases[i].want)) {
            print_error("case %zu: %s\n", i, buf_cstr(&errors));
        }
        assert_non_null(strstr(buf_cstr(&errors), cases[i].want));
        buf_fini(&errors);
        arena_fini(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_build__each_case),
        cmocka_unit_test(t_export__as_calico),
        cmocka_unit_test(t_reflector__passes_service_addresses_on),
        cmocka_unit_test(t_alone__what_no_rule_decides_is_announced),
        cmocka_unit_test(t_filters__every_condition_and_operation),
        cmocka_unit_test(t_metric__is_calicos_where_it_is_calicos),
        cmocka_unit_test(t_kernel__cross_subnet_and_wireguard),
        cmocka_unit_test(t_ignored_interfaces),
        cmocka_unit_test(t_file__bad__refused_with_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
