/* Packed rules: what is unpacked is what was written, every field of it. */
#include "policy/calc_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void same_str(struct str a, struct str b) {
    assert_int_equal(a.p == NULL, b.p == NULL);
    assert_true(str_eq(a, b));
}
static void same_opt(struct opt_int a, struct opt_int b) {
    assert_int_equal(a.set, b.set);
    assert_true(!a.set || a.v == b.v);
}
static void same_icmp(const struct icmp_match *a, const struct icmp_match *b) {
    assert_int_equal(a->set, b->set);
    same_opt(a->type, b->type);
    same_opt(a->code, b->code);
}

static void same_ports(const struct port_spec *a, const struct port_spec *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a[i].min, b[i].min);
        assert_int_equal(a[i].max, b[i].max);
        same_str(a[i].name, b[i].name);
    }
}

static void same_entity(const struct entity_rule *a, const struct entity_rule *b) {
    assert_int_equal(a->nets.n, b->nets.n);
    assert_int_equal(a->nets.set, b->nets.set);
    for (size_t i = 0; i < a->nets.n; i++) {
        assert_true(prefix_eq(&a->nets.p[i], &b->nets.p[i]));
    }
    assert_int_equal(a->not_nets.n, b->not_nets.n);
    for (size_t i = 0; i < a->not_nets.n; i++) {
        assert_true(prefix_eq(&a->not_nets.p[i], &b->not_nets.p[i]));
    }
    same_str(a->selector, b->selector);
    same_str(a->not_selector, b->not_selector);
    same_str(a->namespace_selector, b->namespace_selector);
    assert_int_equal(a->ports.n, b->ports.n);
    same_ports(a->ports.p, b->ports.p, a->ports.n);
    assert_int_equal(a->not_ports.n, b->not_ports.n);
    same_ports(a->not_ports.p, b->not_ports.p, a->not_ports.n);
    assert_int_equal(a->services.set, b->services.set);
    same_str(a->services.name, b->services.name);
    same_str(a->services.ns, b->services.ns);
    assert_int_equal(a->service_accounts.set, b->service_accounts.set);
    assert_int_equal(a->service_accounts.names.n, b->service_accounts.names.n);
    for (size_t i = 0; i < a->service_accounts.names.n; i++) {
        same_str(a->service_accounts.names.p[i], b->service_accounts.names.p[i]);
    }
    same_str(a->service_accounts.selector, b->service_accounts.selector);
}

static void same_rule(const struct rule *a, const struct rule *b) {
    assert_int_equal(a->action, b->action);
    same_opt(a->ip_version, b->ip_version);
    same_opt(a->protocol, b->protocol);
    same_opt(a->not_protocol, b->not_protocol);
    same_icmp(&a->icmp, &b->icmp);
    same_icmp(&a->not_icmp, &b->not_icmp);
    same_entity(&a->source, &b->source);
    same_entity(&a->destination, &b->destination);
    assert_int_equal(a->http.set, b->http.set);
    assert_int_equal(a->is_broken, b->is_broken);
}

static unsigned rnd(unsigned n) {
    return (unsigned)random() % n;
}
static struct str text(void) {
    static const char *const texts[] = {"", "a", "app == 'web' && has(x)", "kube-dns"};
    unsigned i = rnd(5);
    return i == 4 ? STR_NULL : str_c(texts[i]);
}
static struct opt_int number(void) {
    static const int64_t values[] = {0, 1, 6, 255, 65535, -1, INT64_MAX, INT64_MIN};
    bool is_set = rnd(2);
    return (struct opt_int){is_set, is_set ? values[rnd(8)] : 0};
}

static struct prefix nets[3];
static struct port_spec ports[3];
static struct str names[3];

static struct entity_rule entity(void) {
    for (size_t i = 0; i < 3; i++) {
        struct ip46 ip = {.family = rnd(2) ? IP_V4 : IP_V6};
        ip.b[0] = (uint8_t)rnd(256);
        nets[i] = (struct prefix){ip, (uint8_t)rnd(33)};
        ports[i] = (struct port_spec){(uint16_t)rnd(65536), (uint16_t)rnd(65536), text()};
        names[i] = text();
    }
    struct entity_rule e = {
        .selector = text(), .not_selector = text(), .namespace_selector = text()};
    e.nets.n = rnd(4);
    e.nets.p = e.nets.n ? nets : NULL;
    e.nets.set = rnd(2);
    e.not_nets.n = rnd(4);
    e.not_nets.p = nets;
    e.ports.n = rnd(4);
    e.ports.p = ports;
    e.not_ports.n = rnd(4);
    e.not_ports.p = ports;
    if (rnd(2)) {
        e.services = (struct service_match){true, text(), text()};
    }
    if (rnd(2)) {
        e.service_accounts = (struct service_account_match){true, {names, rnd(4), true}, text()};
    }
    return e;
}

static void t_written__packed__unpacks_to_the_same(void **state) {
    (void)state;
    srandom(7);
    for (int round = 0; round < 3000; round++) {
        struct rule rules[2];
        for (size_t i = 0; i < 2; i++) {
            rules[i] = (struct rule){.action = (enum rule_action)rnd(4),
                                     .ip_version = number(),
                                     .protocol = number(),
                                     .not_protocol = number(),
                                     .source = entity(),
                                     .destination = entity(),
                                     .http = {.set = rnd(2)},
                                     .index = (uint16_t)rnd(65536),
                                     .is_broken = rnd(2)};
            if (rnd(2)) {
                rules[i].icmp = (struct icmp_match){true, number(), number()};
                rules[i].not_icmp = (struct icmp_match){true, number(), number()};
            }
        }
        bool numbers_them = rnd(2);
        struct arena a = {0};
        struct written *w = rules_pack(rules, 2, numbers_them);
        assert_int_equal(rules_count(w), 2);
        const struct rule *r = rules_unpack(w, &a);
        for (size_t i = 0; i < 2; i++) {
            same_rule(&rules[i], &r[i]);
            assert_int_equal(r[i].index, numbers_them ? i : rules[i].index);
        }
        arena_fini(&a);
        free(w);
    }
    assert_null(rules_pack(NULL, 0, true));
    assert_int_equal(rules_count(NULL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_written__packed__unpacks_to_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
