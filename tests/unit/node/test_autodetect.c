/* Which address is the node's, by each method, on one host with one of everything.
 * Source: node/pkg/lifecycle/startup/autodetection. */
#include "node/autodetect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static const struct {
    const char *name, *addr;
    bool is_down;
} HOST[] = {
    {"lo", "127.0.0.1/8", false},        {"lo", "::1/128", false},
    {"docker0", "172.17.0.1/16", false}, {"cali12345", "10.65.0.1/32", false},
    {"eth9", "203.0.113.9/24", true},    {"eth0", "169.254.7.7/16", false},
    {"eth0", "fe80::1/64", false},       {"eth0", "10.0.0.5/24", false},
    {"eth0", "10.0.0.6/24", false},      {"eth0", "2001:db8::5/64", false},
    {"eth1", "192.0.2.7/25", false},     {"bond0", "198.51.100.1/30", false},
    {"eth1", "2001:db8:1::7/64", false},
};

static const struct {
    const char *method;
    enum ip_family family;
    const char *internal, *want; /* want: an address, or words of the error */
    int code;
} CASES[] = {
    {"", IP_V4, NULL, "10.0.0.5/24", 0},
    {"first-found", IP_V4, NULL, "10.0.0.5/24", 0},
    {"first-found", IP_V6, NULL, "2001:db8::5/64", 0},
    {"interface=eth1", IP_V4, NULL, "192.0.2.7/25", 0},
    {"interface=nope,eth1,eth0", IP_V4, NULL, "192.0.2.7/25", 0}, /* in their order */
    {"interface=bond.*", IP_V4, NULL, "198.51.100.1/30", 0},
    {"interface=docker0", IP_V4, NULL, "172.17.0.1/16", 0},            /* asked for by name */
    {"interface=eth9", IP_V4, NULL, "fits the method", ERR_NOT_FOUND}, /* down */
    {"interface=nope", IP_V4, NULL, "fits the method", ERR_NOT_FOUND},
    {"interface=(", IP_V4, NULL, "\"(\" is not a regular expression", ERR_INVALID},
    {"skip-interface=eth0", IP_V4, NULL, "192.0.2.7/25", 0},
    {"skip-interface=eth.*", IP_V4, NULL, "198.51.100.1/30", 0},
    {"skip-interface=eth.*,bond0", IP_V4, NULL, "fits the method", ERR_NOT_FOUND},
    {"cidr=192.0.2.0/24", IP_V4, NULL, "192.0.2.7/25", 0},
    {"cidr=8.0.0.0/8,198.51.100.0/24", IP_V4, NULL, "198.51.100.1/30", 0},
    {"cidr=2001:db8:1::/48", IP_V6, NULL, "2001:db8:1::7/64", 0},
    {"cidr=8.8.8.0/24", IP_V4, NULL, "fits the method", ERR_NOT_FOUND},
    {"cidr=10.0.0", IP_V4, NULL, "\"10.0.0\" is not a CIDR", ERR_INVALID},
    {"kubernetes-internal-ip", IP_V4, "192.0.2.7", "192.0.2.7/25", 0},
    {"kubernetes-internal-ip", IP_V4, "192.0.2.8", "fits the method", ERR_NOT_FOUND},
    {"kubernetes-internal-ip", IP_V4, NULL, "fits the method", ERR_NOT_FOUND},
    {"can-reach=127.0.0.1", IP_V4, NULL, "127.0.0.1/8", 0},
    {"can-reach=localhost", IP_V4, NULL, "127.0.0.1/8", 0},
    {"can-reach=127.0.0.1", IP_V6, NULL, "fits the method", ERR_NOT_FOUND},
    {"can-reach=no.such.name.invalid", IP_V4, NULL,
     "can-reach=no.such.name.invalid: ", ERR_NOT_FOUND},
    {"can-reach", IP_V4, NULL, "allowed are first-found", ERR_INVALID},
    {"interface=", IP_V4, NULL, "allowed are first-found", ERR_INVALID},
    {"last-found", IP_V4, NULL, "autodetection method \"last-found\"", ERR_INVALID},
};

static size_t host(struct host_iface *v) {
    for (size_t i = 0; i < ARRAY_LEN(HOST); i++) {
        v[i] = (struct host_iface){.is_up = !HOST[i].is_down};
        memcpy(v[i].name, HOST[i].name, strlen(HOST[i].name));
        assert_int_equal(prefix_parse(str_c(HOST[i].addr), &v[i].addr), 0);
    }
    return ARRAY_LEN(HOST);
}

static void t_detect__each_method(void **state) {
    struct host_iface v[ARRAY_LEN(HOST)];
    size_t n = host(v);
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
        struct arena a = {0};
        struct prefix got = {0};
        struct ip46 internal = {0};
        struct err e = {0};
        char text[IP_TEXT_MAX];
        if (CASES[i].internal) {
            assert_int_equal(ip_parse(str_c(CASES[i].internal), &internal), 0);
        }
        int r = detect_address(str_c(CASES[i].method), CASES[i].family, v, n,
                               CASES[i].internal ? &internal : NULL, &a, &got, NULL, &e);
        print_message("%s IPv%d: %d %s\n", CASES[i].method, CASES[i].family, r, e.msg);
        assert_int_equal(r, CASES[i].code);
        if (r == 0) {
            assert_string_equal(prefix_text(&got, text), CASES[i].want);
        } else {
            assert_non_null(strstr(e.msg, CASES[i].want));
            assert_int_equal(got.ip.family, IP_NONE); /* untouched */
        }
        arena_fini(&a);
    }
}

static void t_detect__report__says_why_not(void **state) {
    static const char *const want[][2] = {
        {"lo", "interfaces of that name are passed over"}, /* 127.0.0.1: see below */
        {"docker0", "interfaces of that name are passed over"},
        {"eth9", "the interface is down"},
        {"eth0", "not a global unicast address"},
    };
    struct host_iface v[ARRAY_LEN(HOST)];
    struct detect_report report = {0};
    struct arena a = {0};
    struct prefix got;
    struct err e;
    size_t n = host(v), n_seen = 0;
    (void)state;
    assert_int_equal(detect_address(STR(""), IP_V4, v, n, NULL, &a, &got, &report, &e), 0);
    for (size_t i = 0; i < report.n; i++) {
        for (size_t k = 1; k < ARRAY_LEN(want); k++) {
            n_seen += str_is(report.p[i].iface, want[k][0]) && str_is(report.p[i].why, want[k][1]);
        }
    }
    assert_int_equal(n_seen, 3);
    arena_fini(&a);
}

static void t_detect__many_addresses__report_is_bounded(void **state) {
    static struct host_iface v[4096];
    struct detect_report report = {0};
    struct arena a = {0};
    struct prefix got;
    struct err e;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        v[i] = (struct host_iface){.name = "docker0", .is_up = true, .addr = {{IP_V4, {10}}, 8}};
    }
    assert_int_equal(detect_address(STR(""), IP_V4, v, ARRAY_LEN(v), NULL, &a, &got, &report, &e),
                     ERR_NOT_FOUND);
    assert_int_equal(report.n, DETECT_MAX_REJECTED);
    arena_fini(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_detect__each_method),
        cmocka_unit_test(t_detect__report__says_why_not),
        cmocka_unit_test(t_detect__many_addresses__report_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
