/* Import and export rules: each condition alone and together, each operation, what decides. The
 * meaning is that of Calico's BGPFilter (design of its confd templates). */
#include "bgp/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct prefix prefix(const char *text) {
    struct prefix p;
    assert_int_equal(prefix_parse(str_c(text), &p), 0);
    return p;
}

static const uint8_t PATH[] = {SEG_SEQUENCE, 3,    0, 0, 0xfd, 0xe9, 0, 0,
                               0xfd,         0xea, 0, 0, 0xfd, 0xeb};
static const uint8_t COMM[] = {0xfd, 0xe9, 0, 1, 0xfd, 0xe9, 0, 2};
static const uint8_t LARGE[] = {0, 0, 0xfd, 0xe9, 0, 0, 0, 1, 0, 0, 0, 2};

/* One rule that accepts, everything else is rejected. The route: 10.1.2.0/24 from a peer over eth1,
 * path 65001 65002 65003, communities 65001:1 and :2, large 65001:1:2, priority 1024; the filter is
 * an external peer's. */
static bool accepts(struct filter_rule rule) {
    rule.action = FILTER_ACCEPT;
    struct bgp_filter *f = bgp_filter_new(&rule, 1, FILTER_REJECT);
    struct filter_scratch s = FILTER_SCRATCH_INIT;
    struct prefix p = prefix("10.1.2.0/24");
    struct attr_src a = {.has = HAS_LOCAL_PREF, .local_pref = BGP_PRIORITY_BASE - 1024};
    a.part[PART_AS_PATH] = str_n((const char *)PATH, sizeof(PATH));
    a.part[PART_COMMUNITIES] = str_n((const char *)COMM, sizeof(COMM));
    a.part[PART_LARGE] = str_n((const char *)LARGE, sizeof(LARGE));
    struct filter_route r = {.prefix = &p,
                             .source = ROUTE_PEER,
                             .interface = STR("eth1"),
                             .attrs = &a,
                             .default_local_pref = 100};
    struct filter_verdict v = bgp_filter_run(f, &r, &s);
    assert_int_equal(v.rule, v.is_accepted ? 0 : -1);
    filter_scratch_fini(&s);
    bgp_filter_unref(f);
    return v.is_accepted;
}

static bool cidr(const char *text, enum filter_operator op) {
    return accepts((struct filter_rule){.has_cidr = true, .cidr = prefix(text), .op = op});
}

static void t_rule__each_condition(void **state) {
    (void)state;
    assert_true(accepts((struct filter_rule){.n_ops = 0}));
    assert_true(cidr("10.1.0.0/16", MATCH_IN));
    assert_true(cidr("10.1.2.0/24", MATCH_IN));
    assert_false(cidr("10.1.2.0/25", MATCH_IN));
    assert_false(cidr("10.1.0.0/16", MATCH_NOT_IN));
    assert_true(cidr("10.2.0.0/16", MATCH_NOT_IN));
    assert_true(cidr("10.1.2.0/24", MATCH_EQUAL));
    assert_false(cidr("10.1.0.0/16", MATCH_EQUAL));
    assert_true(cidr("10.1.0.0/16", MATCH_NOT_EQUAL));
    assert_false(cidr("10.1.2.0/24", MATCH_NOT_EQUAL));
    static const struct {
        struct filter_rule rule;
        bool want;
    } cases[] = {
        {{.has_len = true, .len_min = 24, .len_max = 32}, true},
        {{.has_len = true, .len_min = 0, .len_max = 24}, true},
        {{.has_len = true, .len_min = 25, .len_max = 32}, false},
        {{.has_len = true, .len_min = 0, .len_max = 23}, false},
        {{.sources = 1U << ROUTE_PEER}, true},
        {{.sources = 1U << ROUTE_STATIC | 1U << ROUTE_LOCAL}, false},
        {{.interface = "eth1"}, true},
        {{.interface = "eth*"}, true},
        {{.interface = "*1"}, true},
        {{.interface = "e?h1"}, true},
        {{.interface = "*"}, true},
        {{.interface = "*h*"}, true},
        {{.interface = "eth"}, false},
        {{.interface = "eth1?"}, false},
        {{.interface = "*2"}, false},
        {{.peer = FILTER_EBGP}, true},
        {{.peer = FILTER_IBGP}, false},
        {{.n_community = 4, .community = {0xfd, 0xe9, 0, 2}}, true},
        {{.n_community = 4, .community = {0xfd, 0xe9, 0, 3}}, false},
        {{.n_community = 12, .community = {0, 0, 0xfd, 0xe9, 0, 0, 0, 1, 0, 0, 0, 2}}, true},
        {{.n_community = 12, .community = {0, 0, 0xfd, 0xe9, 0, 0, 0, 1, 0, 0, 0, 3}}, false},
        {{.n_as = 1, .as = {65001}}, true},
        {{.n_as = 3, .as = {65001, 65002, 65003}}, true},
        {{.n_as = 2, .as = {65002, 65003}}, false},
        {{.n_as = 4, .as = {65001, 65002, 65003, 1}}, false},
        {{.has_priority = true, .priority_min = 1024, .priority_max = 1024}, true},
        {{.has_priority = true, .priority_min = 1, .priority_max = 1023}, false},
        {{.peer = FILTER_EBGP, .interface = "eth1", .n_as = 1, .as = {65001}}, true},
        {{.peer = FILTER_EBGP, .interface = "eth2", .n_as = 1, .as = {65001}}, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        print_message("case %zu\n", i);
        assert_int_equal(accepts(cases[i].rule), cases[i].want);
    }
}

static void t_rules__in_order__first_decision_counts(void **state) {
    (void)state;
    struct filter_rule rules[] = {
        {.name = "marks",
         .action = FILTER_NEXT,
         .n_ops = 1,
         .ops = {{.kind = OP_SET_MED, .value = 7}}},
        {.name = "no", .n_as = 1, .as = {1}, .action = FILTER_REJECT},
        {.name = "yes", .action = FILTER_ACCEPT},
        {.name = "never", .action = FILTER_REJECT},
    };
    struct bgp_filter *f = bgp_filter_new(rules, ARRAY_LEN(rules), FILTER_REJECT);
    struct filter_scratch s = FILTER_SCRATCH_INIT;
    struct prefix p = prefix("10.1.2.0/24");
    struct attr_src a = {0};
    struct filter_route r = {.prefix = &p, .attrs = &a};
    struct filter_verdict v = bgp_filter_run(f, &r, &s);
    assert_true(v.is_accepted && v.is_changed);
    assert_string_equal(bgp_filter_rule_name(f, v.rule), "yes");
    assert_int_equal(a.med, 7);
    static const uint8_t path[] = {SEG_SEQUENCE, 1, 0, 0, 0, 1};
    a.part[PART_AS_PATH] = str_n((const char *)path, sizeof(path));
    v = bgp_filter_run(f, &r, &s);
    assert_false(v.is_accepted);
    assert_string_equal(bgp_filter_rule_name(f, v.rule), "no");
    assert_string_equal(bgp_filter_rule_name(f, -1), "no rule");
    bgp_filter_unref(f);
    assert_true(bgp_filter_run(NULL, &r, &s).is_accepted);
    filter_scratch_fini(&s);
}

static void t_operations__each__attributes_changed(void **state) {
    (void)state;
    struct filter_rule rule = {
        .action = FILTER_ACCEPT,
        .n_ops = 6,
        .ops = {{.kind = OP_ADD_COMMUNITY, .n = 4, .bytes = {0, 1, 0, 1}},
                {.kind = OP_ADD_COMMUNITY, .n = 4, .bytes = {0xfd, 0xe9, 0, 1}}, /* is there */
                {.kind = OP_ADD_COMMUNITY, .n = 12, .bytes = {[11] = 9}},
                {.kind = OP_PREPEND, .n = 2, .as = {64512, 64513}},
                {.kind = OP_PREPEND, .n = 1, .as = {64514}},
                {.kind = OP_SET_PRIORITY, .value = 500}}};
    struct bgp_filter *f = bgp_filter_new(&rule, 1, FILTER_REJECT);
    struct filter_scratch s = FILTER_SCRATCH_INIT;
    struct prefix p = prefix("fd00::/64");
    for (unsigned turn = 0; turn < 2; turn++) { /* scratch is used again */
        struct attr_src a = {0};
        a.part[PART_AS_PATH] = str_n((const char *)PATH, sizeof(PATH));
        a.part[PART_COMMUNITIES] = str_n((const char *)COMM, sizeof(COMM));
        struct filter_route r = {.prefix = &p, .attrs = &a};
        assert_true(bgp_filter_run(f, &r, &s).is_changed);
        struct buf b = BUF_INIT(4096);
        as_path_print(&b, a.part[PART_AS_PATH]);
        assert_string_equal(buf_cstr(&b), "64514 64512 64513 65001 65002 65003");
        buf_fini(&b);
        assert_int_equal(a.part[PART_COMMUNITIES].n, 12);
        assert_true(comm_has(a.part[PART_COMMUNITIES], 0x00010001));
        assert_int_equal(a.part[PART_LARGE].n, 12);
        assert_int_equal(a.local_pref, BGP_PRIORITY_BASE - 500);
        assert_true(a.has & HAS_LOCAL_PREF);
    }
    filter_scratch_fini(&s);
    bgp_filter_unref(f);
}

static void t_equal__what_counts_and_what_does_not(void **state) {
    (void)state;
    struct filter_rule a = {.name = "a", .has_len = true, .len_max = 24, .action = FILTER_ACCEPT},
                       b = a;
    (void)snprintf(b.name, sizeof(b.name), "b");
    struct bgp_filter *x = bgp_filter_new(&a, 1, FILTER_REJECT),
                      *y = bgp_filter_new(&b, 1, FILTER_REJECT);
    assert_true(bgp_filter_eq(x, y)); /* names do not count */
    assert_true(bgp_filter_eq(NULL, NULL));
    assert_false(bgp_filter_eq(x, NULL));
    bgp_filter_unref(y);
    y = bgp_filter_new(&a, 1, FILTER_ACCEPT);
    assert_false(bgp_filter_eq(x, y));
    bgp_filter_unref(y);
    b.len_max = 25;
    y = bgp_filter_new(&b, 1, FILTER_REJECT);
    assert_false(bgp_filter_eq(x, y));
    bgp_filter_unref(y);
    b = a;
    b.n_ops = 1;
    b.ops[0] = (struct filter_op){.kind = OP_SET_MED, .value = 1};
    y = bgp_filter_new(&b, 1, FILTER_REJECT);
    assert_false(bgp_filter_eq(x, y));
    bgp_filter_unref(y);
    bgp_filter_unref(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_rule__each_condition),
        cmocka_unit_test(t_rules__in_order__first_decision_counts),
        cmocka_unit_test(t_operations__each__attributes_changed),
        cmocka_unit_test(t_equal__what_counts_and_what_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
