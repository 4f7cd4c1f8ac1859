/* Default pools by environment, kubeadm's configuration and what the host has.
 * Source of names and defaults: node/pkg/lifecycle/startup. */
#include "node/defaultpool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static const char *environment; /* "NAME=value;NAME=value" */

static const char *fake_env(const char *name) {
    static char value[256];
    size_t n = strlen(name);
    for (const char *p = environment; p && *p;) {
        const char *end = strchrnul(p, ';');
        if (strncmp(p, name, n) == 0 && p[n] == '=') {
            (void)snprintf(value, sizeof(value), "%.*s", (int)(end - p - (ptrdiff_t)n - 1),
                           p + n + 1);
            return value[0] ? value : NULL;
        }
        p = *end ? end + 1 : end;
    }
    return NULL;
}

#define DEFAULT6 "fd12:3456:789a::/48"
#define FULL \
    "192.168.0.0/16,172.16.0.0/12,10.0.0.0/8" /* a host with routes to all that is private */

static const struct {
    const char *environment, *taken, *kubeadm;
    bool has_pool4, has_no_ipv6;
    const char *want4, *want6; /* "CIDR/BLOCK IPIP VXLAN nat"; "": none; NULL with an error */
    const char *error;
} CASES[] = {
    {"", "", "", 0, 0, "192.168.0.0/16 26 Never Never nat", DEFAULT6 " 122 Never Never", NULL},
    {"", "", "", 0, 1, "192.168.0.0/16 26 Never Never nat", "", NULL},
    {"", "", "", 1, 0, "", DEFAULT6 " 122 Never Never", NULL},
    {"NO_DEFAULT_POOLS=true", "", "", 0, 0, "", "", NULL},
    {"NO_DEFAULT_POOLS=TRUE;CALICO_IPV4POOL_CIDR=none", "", "", 0, 0, "", "", NULL},
    {"NO_DEFAULT_POOLS=true;CALICO_IPV4POOL_CIDR=10.0.0.0/16", "", "", 0, 0, NULL, NULL,
     "NO_DEFAULT_POOLS is true and CALICO_IPV4POOL_CIDR is 10.0.0.0/16"},
    {"NO_DEFAULT_POOLS=yes", "", "", 0, 0, NULL, NULL, "NO_DEFAULT_POOLS: found \"yes\""},
    {"CALICO_IPV4POOL_CIDR=none;CALICO_IPV6POOL_CIDR=none", "", "", 0, 0, "", "", NULL},
    {"CALICO_IPV4POOL_CIDR=10.244.7.7/16", "", "10.1.0.0/16", 0, 1,
     "10.244.0.0/16 26 Never Never nat", "", NULL},
    {"", "", "10.1.0.0/16,fd01::/48", 0, 0, "10.1.0.0/16 26 Never Never nat",
     "fd01::/48 122 Never Never", NULL},
    /* Nothing that the host reaches otherwise. */
    {"", "192.168.178.0/24", "", 0, 1, "172.16.0.0/16 26 Never Never nat", "", NULL},
    {"", "192.168.0.0/16,172.16.5.1/32", "", 0, 1, "10.244.0.0/16 26 Never Never nat", "", NULL},
    {"", FULL, "", 0, 1, NULL, NULL, "overlaps 10.0.0.0/8 (test)"},
    {"CALICO_IPV4POOL_CIDR=10.96.0.0/12", "10.96.0.1/32", "", 0, 1, NULL, NULL,
     "CALICO_IPV4POOL_CIDR: 10.96.0.0/12 overlaps 10.96.0.1/32 (test)"},
    {"", "10.1.2.0/24", "10.1.0.0/16", 0, 1, NULL, NULL,
     "kubeadm's podSubnet: 10.1.0.0/16 overlaps"},
    {"", "fd00::/8", "", 1, 0, NULL, NULL, "overlaps fd00::/8"},
    /* Everything else can be said, too. */
    {"CALICO_IPV4POOL_IPIP=Always;CALICO_IPV4POOL_BLOCK_SIZE=24;CALICO_IPV4POOL_NAT_OUTGOING=false",
     "", "", 0, 1, "192.168.0.0/16 24 Always Never", "", NULL},
    {"CALICO_IPV4POOL_VXLAN=CrossSubnet;CALICO_IPV4POOL_IPIP=Off;CALICO_IPV6POOL_VXLAN=Always;"
     "CALICO_IPV6POOL_NAT_OUTGOING=true",
     "", "", 0, 0, "192.168.0.0/16 26 Never CrossSubnet nat", DEFAULT6 " 122 Never Always nat",
     NULL},
    {"CALICO_IPV4POOL_DISABLE_BGP_EXPORT=true;CALICO_IPV4POOL_NODE_SELECTOR=zone == \"a\"", "", "",
     0, 1, "192.168.0.0/16 26 Never Never nat nobgp zone == \"a\"", "", NULL},
    {"CALICO_IPV4POOL_IPIP=Always;CALICO_IPV4POOL_VXLAN=Always", "", "", 0, 1, NULL, NULL,
     "CALICO_IPV4POOL_VXLAN: found \"Always\", allowed is Never while"},
    {"CALICO_IPV4POOL_IPIP=Sometimes", "", "", 0, 1, NULL, NULL,
     "CALICO_IPV4POOL_IPIP: found \"Sometimes\", allowed is Always, CrossSubnet or Never"},
    {"CALICO_IPV4POOL_BLOCK_SIZE=19", "", "", 0, 1, NULL, NULL, "allowed is 20 to 32"},
    {"CALICO_IPV4POOL_BLOCK_SIZE=26x", "", "", 0, 1, NULL, NULL, "found \"26x\""},
    {"CALICO_IPV4POOL_CIDR=10.0.0.0/28", "", "", 0, 1, NULL, NULL, "allowed is 28 to 32"},
    {"CALICO_IPV6POOL_BLOCK_SIZE=64", "", "", 1, 0, NULL, NULL, "allowed is 116 to 128"},
    {"CALICO_IPV4POOL_CIDR=fd00::/48", "", "", 0, 1, NULL, NULL, "allowed is an IPv4 network"},
    {"CALICO_IPV4POOL_CIDR=10.0.0.1", "", "", 0, 1, NULL, NULL, "allowed is an IPv4 network"},
    {"CALICO_IPV6POOL_CIDR=10.0.0.0/8", "", "", 1, 0, NULL, NULL, "allowed is an IPv6 network"},
    {"CALICO_IPV4POOL_NAT_OUTGOING=maybe", "", "", 0, 1, NULL, NULL, "allowed is true or false"},
};

static struct str words(const struct pool_wanted *p, struct arena *a) {
    if (!p->name) {
        return STR("");
    }
    struct str selector = jnode_str(jnode_getc(p->spec, "nodeSelector"));
    bool is_all = str_is(selector, "all()");
    return arena_printf(a, "%.*s %d %.*s %.*s%s%s%s%.*s",
                        STR_FMT(jnode_str(jnode_getc(p->spec, "cidr"))),
                        (int)jnode_getc(p->spec, "blockSize")->i,
                        STR_FMT(jnode_str(jnode_getc(p->spec, "ipipMode"))),
                        STR_FMT(jnode_str(jnode_getc(p->spec, "vxlanMode"))),
                        jnode_getc(p->spec, "natOutgoing")->b ? " nat" : "",
                        jnode_getc(p->spec, "disableBGPExport") ? " nobgp" : "", is_all ? "" : " ",
                        is_all ? 0 : (int)selector.n, selector.p);
}

static void t_pools__each_case(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
        struct arena a = {0};
        struct err e = {0};
        struct pool_taken taken[8] = {0};
        struct pool_wanted got[2] = {{NULL, NULL}, {NULL, NULL}};
        struct pool_world w = {.env = fake_env,
                               .taken = taken,
                               .has_pool = {CASES[i].has_pool4, false},
                               .has_ipv6 = !CASES[i].has_no_ipv6,
                               .random = {0x12, 0x34, 0x56, 0x78, 0x9a}};
        environment = CASES[i].environment;
        for (struct str rest = str_c(CASES[i].taken); rest.n; w.n_taken++) {
            assert_int_equal(prefix_parse(str_cut(&rest, ','), &taken[w.n_taken].net), 0);
            taken[w.n_taken].what = STR("test");
        }
        for (struct str rest = str_c(CASES[i].kubeadm); rest.n;) {
            struct prefix p;
            assert_int_equal(prefix_parse(str_cut(&rest, ','), &p), 0);
            w.kubeadm[p.ip.family == IP_V6] = p;
        }
        int r = default_pools(&w, &a, got, &e);
        print_message("%zu: %d %s\n", i, r, e.msg);
        if (CASES[i].error) {
            assert_int_equal(r, ERR_INVALID);
            assert_non_null(strstr(e.msg, CASES[i].error));
        } else {
            assert_int_equal(r, 0);
            assert_string_equal(arena_cstr(&a, words(&got[0], &a)), CASES[i].want4);
            assert_string_equal(arena_cstr(&a, words(&got[1], &a)), CASES[i].want6);
        }
        arena_fini(&a);
    }
}

static void t_kubeadm__its_text__both_subnets(void **state) {
    static const char text[] =
        "apiServer:\n  extraArgs: {}\nnetworking:\n  dnsDomain: cluster.local\n"
        "  podSubnet: 10.5.0.0/16,fd05::/56\n  serviceSubnet: \"10.96.0.0/12\"\n"
        "podSubnet: 1.0.0.0/8\n";
    struct prefix pods[2], services[2];
    char t[IP_TEXT_MAX];
    (void)state;
    kubeadm_subnets(str_c(text), pods, services);
    assert_string_equal(prefix_text(&pods[0], t), "10.5.0.0/16");
    assert_string_equal(prefix_text(&pods[1], t), "fd05::/56");
    assert_string_equal(prefix_text(&services[0], t), "10.96.0.0/12");
    assert_int_equal(services[1].ip.family, IP_NONE);
    kubeadm_subnets(STR("podSubnet: ,,x,10.0.0.0/40\n\n"), pods, services);
    assert_int_equal(pods[0].ip.family, IP_NONE);
    kubeadm_subnets(STR_NULL, pods, services);
    assert_int_equal(pods[0].ip.family, IP_NONE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_pools__each_case),
        cmocka_unit_test(t_kubeadm__its_text__both_subnets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
