/* The queue, the configuration, the election and what a Service asks for. */
#include "controllers/config.h"
#include "controllers/lb.h"
#include "controllers/leader.h"
#include "controllers/queue.h"
#include "store_lab.h"

#define MS 1000000LL
#define S 1000000000LL

/* ---- queue ---- */

static bool takes(struct queue *q, int64_t now, const char *want) {
    struct str key;
    bool has = queue_take(q, now, &key, NULL);
    return want ? has && str_is(key, want) : !has;
}

static void t_queue__asked_often__done_once_in_order(void **state) {
    (void)state;
    struct queue *q = queue_new();
    queue_add(q, STR("b"));
    queue_add(q, STR("a"));
    queue_add(q, STR("b"));
    assert_true(takes(q, 0, "b"));
    queue_add(q, STR("b")); /* while it is worked on */
    assert_true(takes(q, 0, "a"));
    assert_true(takes(q, 0, NULL));
    queue_done(q, STR("a"), false, 0);
    queue_done(q, STR("b"), false, 0);
    assert_true(takes(q, 0, "b"));
    queue_done(q, STR("b"), false, 0);
    assert_int_equal(queue_depth(q), 0);
    queue_free(q);
}

static void t_queue__fails__pause_doubles_and_news_dont_shorten_it(void **state) {
    (void)state;
    struct queue *q = queue_new();
    int64_t now = 0, pause = QUEUE_PAUSE_MIN_MS * MS;
    queue_add(q, STR("a"));
    for (int i = 0; i < 12; i++) {
        assert_true(takes(q, now, "a"));
        queue_done(q, STR("a"), true, now);
        queue_add(q, STR("a"));
        assert_true(takes(q, now + pause - 1, NULL));
        now += pause;
        pause = pause * 2 > QUEUE_PAUSE_MAX_MS * MS ? QUEUE_PAUSE_MAX_MS * MS : pause * 2;
    }
    assert_true(takes(q, now, "a"));
    queue_done(q, STR("a"), false, now);
    assert_int_equal(queue_failures(q, STR("a")), 0);
    queue_free(q);
}

static void t_queue__many_fail__retries_are_limited(void **state) {
    (void)state;
    struct queue *q = queue_new();
    char name[16];
    struct str key;
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "k%d", i);
        queue_add(q, str_c(name));
    }
    while (queue_take(q, 1, &key, NULL)) {
        queue_done(q, key, true, 1);
    }
    size_t n = 0;
    while (queue_take(q, S, &key, NULL)) {
        n++;
    }
    assert_in_range(n, QUEUE_RETRIES_BURST, QUEUE_RETRIES_BURST + 2 * QUEUE_RETRIES_PER_S);
    queue_free(q);
}

static void t_queue__later__next_time_is_told(void **state) {
    (void)state;
    struct queue *q = queue_new();
    struct str key;
    int64_t next;
    queue_add_at(q, STR("a"), 5 * S);
    queue_add_at(q, STR("a"), 3 * S);
    assert_false(queue_take(q, 0, &key, &next));
    assert_true(next == 3 * S);
    assert_true(takes(q, 3 * S, "a"));
    queue_free(q);
}

/* ---- configuration ---- */

struct fake_env {
    const char *name, *value;
};
static const char *env_of(void *arg, const char *name) {
    const struct fake_env *e = arg;
    return e->name && strcmp(e->name, name) == 0 ? e->value : NULL;
}

static void t_duration__as_go(void **state) {
    (void)state;
    static const struct {
        const char *in;
        int64_t ns;
        const char *out;
    } cases[] = {{"5m", 300 * S, "5m0s"},
                 {"1h2m3.5s", 3723 * S + 500 * MS, "1h2m3.5s"},
                 {"0", 0, "0s"},
                 {"90s", 90 * S, "1m30s"},
                 {"1500ms", 1500 * MS, "1.5s"},
                 {"15m0s", 900 * S, "15m0s"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t ns = -1;
        struct buf b = BUF_INIT(64);
        assert_int_equal(config_parse_duration(str_c(cases[i].in), &ns), 0);
        assert_true(ns == cases[i].ns);
        config_print_duration(ns, &b);
        assert_string_equal(buf_cstr(&b), cases[i].out);
        buf_fini(&b);
    }
    static const char *const bad[] = {"", "5", "m", "5x", "-1s", "1s ", "999999999h"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t ns;
        assert_true(config_parse_duration(str_c(bad[i]), &ns) < 0);
    }
}

static void t_config__default_object__all_run(void **state) {
    (void)state;
    struct arena a = {0};
    struct run_config c;
    struct jnode *status;
    struct err e;
    struct fake_env env = {NULL, NULL};
    assert_int_equal(
        config_merge(config_default_spec(&a), env_of, &env, false, &a, &c, &status, &e), 0);
    for (int i = 0; i < CONTROLLER_N; i++) {
        assert_true(c.is_enabled[i]);
    }
    assert_true(c.leak_grace_ns == 900 * S && c.sync_labels && c.assigns_all_services);
    assert_int_equal(c.metrics_port, 9094);
    lab_assert_json(
        status,
        "{'runningConfig':{'logSeverityScreen':'Info','healthChecks':'Enabled',"
        "'etcdV3CompactionPeriod':'10m0s','prometheusMetricsPort':9094,'controllers':{"
        "'node':{'syncLabels':'Enabled','hostEndpoint':{'autoCreate':'Disabled',"
        "'createDefaultHostEndpoint':'Enabled'},'leakGracePeriod':'15m0s'},"
        "'policy':{'reconcilerPeriod':'5m0s'},'workloadEndpoint':{'reconcilerPeriod':'5m0s'},"
        "'serviceAccount':{'reconcilerPeriod':'5m0s'},'namespace':{'reconcilerPeriod':'5m0s'},"
        "'loadBalancer':{'assignIPs':'AllServices'}}},'environmentVars':{}}");
    arena_fini(&a);
}

static void t_config__environment_over_object__told_in_status(void **state) {
    (void)state;
    struct arena a = {0};
    struct run_config c;
    struct jnode *status;
    struct err e;
    struct fake_env env = {"ENABLED_CONTROLLERS", "node, profile"};
    struct jnode *spec =
        lab_json(&a, "{'prometheusMetricsPort':0,'controllers':{'policy':{},'node':"
                     "{'leakGracePeriod':'0s','syncLabels':'Disabled'}}}");
    assert_int_equal(config_merge(spec, env_of, &env, false, &a, &c, &status, &e), 0);
    assert_true(c.is_enabled[CONTROLLER_NODE] && c.is_enabled[CONTROLLER_NAMESPACE]);
    assert_false(c.is_enabled[CONTROLLER_POLICY]);
    assert_true(c.leak_grace_ns == 0 && !c.sync_labels);
    assert_int_equal(c.metrics_port, 0);
    lab_assert_json(jnode_getc(status, "environmentVars"),
                    "{'ENABLED_CONTROLLERS':'node, profile'}");
    assert_int_equal(config_merge(spec, env_of, &env, true, &a, &c, &status, &e), 0);
    assert_false(c.sync_labels); /* the labels are there already */
    arena_fini(&a);
}

static void t_config__bad_environment__named_with_what_is_allowed(void **state) {
    (void)state;
    static const struct {
        struct fake_env env;
        const char *says;
    } cases[] = {
        {{"ENABLED_CONTROLLERS", "node,bogus"}, "\"bogus\", allowed are node, policy"},
        {{"ENABLED_CONTROLLERS", "flannelmigration"}, "\"flannelmigration\""},
        {{"LOG_LEVEL", "loud"}, "LOG_LEVEL: found \"loud\""},
        {{"RECONCILER_PERIOD", "often"}, "RECONCILER_PERIOD"},
        {{"SYNC_NODE_LABELS", "perhaps"}, "true or false"},
        {{"AUTO_HOST_ENDPOINTS", "yes"}, "enabled or disabled"},
        {{"HEALTH_ENABLED", "2"}, "HEALTH_ENABLED"},
        {{"COMPACTION_PERIOD", "x"}, "COMPACTION_PERIOD"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a = {0};
        struct run_config c;
        struct jnode *status;
        struct err e;
        struct fake_env env = cases[i].env;
        assert_int_equal(config_merge(NULL, env_of, &env, false, &a, &c, &status, &e), ERR_INVALID);
        assert_true(str_contains(str_c(e.msg), str_c(cases[i].says)));
        arena_fini(&a);
    }
}

/* ---- election ---- */

static void t_leader__holder_silent_for_its_duration__taken_over(void **state) {
    (void)state;
    struct arena a = {0};
    struct leader_seen seen = {.has_record = false};
    struct jnode *r = leader_record(NULL, STR("a"), 1767323045123456789LL, &a);
    assert_true(str_is(jnode_str(jnode_path(r, "spec.renewTime")), "2026-01-02T03:04:05.123456Z"));
    assert_int_equal(leader_decide(&seen, NULL, STR("b"), 0), LEADER_TAKE);
    assert_int_equal(leader_decide(&seen, r, STR("a"), 0), LEADER_RENEW);
    assert_int_equal(leader_decide(&seen, r, STR("b"), 100 * S), LEADER_WAIT);
    assert_int_equal(leader_decide(&seen, r, STR("b"), 114 * S), LEADER_WAIT);
    struct jnode *renewed = leader_record(r, STR("a"), 1767323046123456789LL, &a);
    assert_int_equal(leader_decide(&seen, renewed, STR("b"), 116 * S), LEADER_WAIT);
    assert_int_equal(leader_decide(&seen, renewed, STR("b"), 130 * S), LEADER_WAIT);
    assert_int_equal(leader_decide(&seen, renewed, STR("b"), 131 * S), LEADER_TAKE);
    struct jnode *ours = leader_record(renewed, STR("b"), 1767323099000000000LL, &a);
    const struct jnode *n = jnode_path(ours, "spec.leaseTransitions");
    assert_true(n && n->i == 1);
    assert_true(str_is(jnode_str(jnode_path(ours, "spec.holderIdentity")), "b"));
    arena_fini(&a);
}

static void note_leader(void *arg, bool is_leader) {
    *(int *)arg += is_leader ? 1 : -1;
}

static void t_leader__two_on_one_store__one_works_the_other_follows(void **state) {
    struct lab *lab = *state;
    struct loop *l = loop_new();
    int a = 0, b = 0;
    struct leader *x = leader_new(l, lab->source, STR("x"), note_leader, &a);
    while (!a) {
        loop_step(l, true);
    }
    struct leader *y = leader_new(l, lab->source, STR("y"), note_leader, &b);
    while (!leader_holder(y).n) {
        loop_step(l, true);
    }
    assert_true(leader_is(x) && !leader_is(y) && str_is(leader_holder(y), "x"));
    leader_free(x); /* gives it up: no waiting for its time to be over */
    while (!b) {
        loop_step(l, true);
    }
    assert_true(leader_is(y));
    leader_free(y);
    loop_free(l);
}

/* ---- services ---- */

static void t_lb_handle__known_value(void **state) {
    (void)state;
    struct arena a = {0};
    assert_true(
        str_is(lb_handle(STR("web"), STR("shop"), STR("11111111-2222-3333-4444-555555555555"), &a),
               "lb-HzBwBkQsy1BaJi1fZbpWROnfy18WiFWDHACRnva1W6k"));
    arena_fini(&a);
}

static void t_lb_read__who_is_ours(void **state) {
    (void)state;
    static const struct {
        const char *service;
        bool assigns_all, is_managed, is_valid;
    } cases[] = {
        {"{'spec':{'type':'ClusterIP'}}", true, false, true},
        {"{'spec':{'type':'LoadBalancer'}}", true, true, true},
        {"{'spec':{'type':'LoadBalancer'}}", false, false, true},
        {"{'spec':{'type':'LoadBalancer','loadBalancerClass':'calico'}}", false, true, true},
        {"{'spec':{'type':'LoadBalancer','loadBalancerClass':'other'}}", true, false, true},
        {"{'metadata':{'annotations':{'projectcalico.org/ipv4pools':'[\\u0022a\\u0022]'}},"
         "'spec':{'type':'LoadBalancer'}}",
         false, true, true},
        {"{'metadata':{'annotations':{'projectcalico.org/loadBalancerIPs':'10.0.0.1'}},"
         "'spec':{'type':'LoadBalancer'}}",
         false, true, false},
        {"{'metadata':{'annotations':{'projectcalico.org/loadBalancerIPs':"
         "'[\\u002210.0.0.1\\u0022,\\u002210.0.0.2\\u0022]'}},'spec':{'type':'LoadBalancer'}}",
         false, true, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a = {0};
        struct lb_wish w;
        struct err e;
        int r = lb_read(lab_json(&a, cases[i].service), cases[i].assigns_all, &a, &w, &e);
        assert_int_equal(w.is_managed, cases[i].is_managed);
        assert_int_equal(r == 0, cases[i].is_valid);
        arena_fini(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_queue__asked_often__done_once_in_order),
        cmocka_unit_test(t_queue__fails__pause_doubles_and_news_dont_shorten_it),
        cmocka_unit_test(t_queue__many_fail__retries_are_limited),
        cmocka_unit_test(t_queue__later__next_time_is_told),
        cmocka_unit_test(t_duration__as_go),
        cmocka_unit_test(t_config__default_object__all_run),
        cmocka_unit_test(t_config__environment_over_object__told_in_status),
        cmocka_unit_test(t_config__bad_environment__named_with_what_is_allowed),
        cmocka_unit_test(t_leader__holder_silent_for_its_duration__taken_over),
        cmocka_unit_test_setup_teardown(t_leader__two_on_one_store__one_works_the_other_follows,
                                        lab_setup, lab_teardown),
        cmocka_unit_test(t_lb_handle__known_value),
        cmocka_unit_test(t_lb_read__who_is_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
