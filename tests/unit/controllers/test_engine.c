/* The controllers whole, between two stores of one process. The property: whatever changes in the
 * source, whoever tampers with the target, wherever a controller dies, the next one that is left in
 * peace makes the target what the source says, and touches nothing else. */
#include "controllers/convert.h"
#include "controllers/engine.h"
#include "controllers/mirror.h"
#include "store_lab.h"

/* ---- a store that fails from its n-th call on ---- */

static long calls_left = -1; /* -1: it never does */
static bool loses_answers;   /* the call that fails first is done all the same */

static int gate(bool *is_done) {
    *is_done = false;
    if (calls_left < 0) {
        return 0;
    }
    if (calls_left-- > 0) {
        return 0;
    }
    calls_left = 0;
    *is_done = loses_answers;
    loses_answers = false;
    return ERR_UNAVAILABLE;
}

int __real_store_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                     uint64_t *revision_out, struct err *e);
int __wrap_store_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                     uint64_t *revision_out, struct err *e);
int __wrap_store_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                     uint64_t *revision_out, struct err *e) {
    bool is_done;
    if (gate(&is_done) < 0) {
        if (is_done) {
            (void)!__real_store_put(s, k, value, expect, revision_out, e);
        }
        return err_set(e, ERR_UNAVAILABLE, "broken");
    }
    return __real_store_put(s, k, value, expect, revision_out, e);
}
int __real_store_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e);
int __wrap_store_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e);
int __wrap_store_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e) {
    bool is_done;
    if (gate(&is_done) < 0) {
        if (is_done) {
            (void)!__real_store_delete(s, k, expect, e);
        }
        return err_set(e, ERR_UNAVAILABLE, "broken");
    }
    return __real_store_delete(s, k, expect, e);
}
int __real_store_get(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
                     struct err *e);
int __wrap_store_get(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
                     struct err *e);
int __wrap_store_get(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
                     struct err *e) {
    bool is_done;
    return gate(&is_done) < 0 ? err_set(e, ERR_UNAVAILABLE, "broken")
                              : __real_store_get(s, k, a, out, e);
}

/* ---- helpers ---- */

static const char *no_env(void *arg, const char *name) {
    (void)arg;
    (void)name;
    return NULL;
}

static struct engine *start(struct loop *l, struct lab *lab, bool is_two) {
    struct engine_options o = {
        .stores = {is_two ? lab->source : lab->target, lab->target,
                   is_two ? lab->source : lab->target, lab->target, NULL},
        .env = no_env,
        .identity = STR("test"),
    };
    struct engine *x = NULL;
    struct err e;
    if (engine_new(l, &o, &x, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return x;
}

static void settle(struct loop *l, struct engine *x) {
    for (int quiet = 0, i = 0; quiet < 20; i++) {
        loop_step(l, !engine_is_idle(x));
        quiet = engine_is_idle(x) ? quiet + 1 : 0;
        assert_true(i < 100000);
    }
}

static uint64_t seed;
static unsigned rnd(unsigned n) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % n;
}

static const char *const spaces[] = {"a", "b-b", "c"};
static const char *const names[] = {"x", "y.z", "w"};

static const char *random_labels(struct arena *a) {
    return arena_cstr(a,
                      arena_printf(a, "'labels':{'k%u':'v%u','m':'%u'}", rnd(3), rnd(3), rnd(2)));
}

/* ---- random changes of the source ---- */

static void change_source(struct store *s) {
    struct arena a = {0};
    const char *ns = spaces[rnd(3)], *name = names[rnd(3)];
    bool is_gone = rnd(3) == 0;
    const char *labels = random_labels(&a);
    switch (rnd(4)) {
    case 0:
        is_gone ? lab_del(s, K_NAMESPACE, "", ns)
                : lab_put(s, K_NAMESPACE, "", ns,
                          arena_cstr(&a, arena_printf(&a, "{'metadata':{%s}}", labels)));
        break;
    case 1:
        is_gone ? lab_del(s, K_SERVICE_ACCOUNT, ns, name)
                : lab_put(s, K_SERVICE_ACCOUNT, ns, name,
                          arena_cstr(&a, arena_printf(&a, "{'metadata':{%s}}", labels)));
        break;
    case 2:
        is_gone
            ? lab_del(s, K_K8S_NETWORK_POLICY, ns, name)
            : lab_put(s, K_K8S_NETWORK_POLICY, ns, name,
                      arena_cstr(&a, arena_printf(&a,
                                                  "{'spec':{'podSelector':{'matchLabels':{'a':"
                                                  "'%u'}},'ingress':[{'ports':[{'port':%u}]}]}}",
                                                  rnd(4), 80 + rnd(3))));
        break;
    default:
        is_gone ? lab_del(s, K_POD, ns, name)
                : lab_put(s, K_POD, ns, name,
                          arena_cstr(&a, arena_printf(&a,
                                                      "{'metadata':{%s},'spec':{'nodeName':'n1',"
                                                      "'serviceAccountName':'sa%u'}}",
                                                      labels, rnd(2))));
        break;
    }
    arena_fini(&a);
}

/* By hand, or by an older release. */
static void tamper(struct store *s) {
    struct arena a = {0};
    const char *ns = spaces[rnd(3)], *name = names[rnd(3)];
    const char *profile = rnd(2) ? arena_cstr(&a, arena_printf(&a, "kns.%s", ns))
                                 : arena_cstr(&a, arena_printf(&a, "ksa.%s.%s", ns, name));
    const char *policy = arena_cstr(&a, arena_printf(&a, "knp.default.%s", name));
    switch (rnd(5)) {
    case 0:
        lab_del(s, K_PROFILE, "", profile);
        break;
    case 1:
        lab_put(s, K_PROFILE, "", profile, "{'spec':{'labelsToApply':{'evil':'1'}}}");
        break;
    case 2:
        lab_put(s, K_NETWORK_POLICY, ns, policy,
                "{'spec':{'order':1,'ingress':[{'action':"
                "'Allow'}]}}");
        break;
    case 3:
        lab_del(s, K_NETWORK_POLICY, ns, policy);
        break;
    default: /* an endpoint appears, as CNI makes it, or with labels of long ago */
        lab_put(s, K_WORKLOAD_ENDPOINT, ns,
                arena_cstr(&a, arena_printf(&a, "n1-k8s-%s-eth0", name)),
                arena_cstr(&a, arena_printf(&a,
                                            "{'metadata':{'labels':{'stale':'%u'}},'spec':{"
                                            "'orchestrator':'k8s','node':'n1','pod':'%s',"
                                            "'endpoint':'eth0','ipNetworks':['10.0.0.%u/32']}}",
                                            rnd(9), name, rnd(200))));
        break;
    }
    arena_fini(&a);
}

/* ---- what should be ---- */

static const struct {
    enum kind_id kind;
    const char *ns, *name, *text;
} foreign[] = {
    {K_PROFILE, "", "k8s-pod-network", "{'spec':{'labelsToApply':{'k8s-pod-network':''}}}"},
    {K_PROFILE, "", "kns", "{'spec':{}}"},
    {K_NETWORK_POLICY, "a", "mine", "{'spec':{'order':5}}"},
    {K_NETWORK_POLICY, "c", "knp.other", "{'spec':{'order':6}}"},
    {K_HOST_ENDPOINT, "", "n1-auto-hep", "{'spec':{'node':'n1','interfaceName':'eth0'}}"},
    {K_NODE, "", "metal", "{'spec':{'bgp':{'ipv4Address':'192.0.2.1/24'}}}"},
};

struct counting {
    size_t n;
};
static int count_ours(void *arg, const struct store_item *it) {
    struct counting *c = arg;
    const struct kind *k;
    struct str ns, name;
    assert_int_equal(kind_split_key(it->key, &k, &ns, &name), 0);
    for (int i = 0; i < MIRROR_N; i++) {
        struct str n = ns, m = name;
        c->n += k->id == mirror_defs[i].to && mirror_source((enum mirror_id)i, &n, &m);
    }
    return 0;
}

struct checking {
    struct lab *lab;
    struct arena *a;
    size_t n;
};
static int check_source(void *arg, const struct store_item *it) {
    struct checking *c = arg;
    const struct kind *k;
    struct str ns, name;
    struct err e = {.code = 0};
    struct jnode *doc = NULL;
    assert_int_equal(kind_split_key(it->key, &k, &ns, &name), 0);
    assert_int_equal(json_parse(arena_dup(c->a, it->value), &json_limits_default, c->a, &doc, &e),
                     0);
    for (int i = 0; i < MIRROR_N; i++) {
        if (k->id != mirror_defs[i].from) {
            continue;
        }
        struct jnode *want = i == MIRROR_POLICY      ? convert_policy(doc, c->a, &e)
                             : i == MIRROR_NAMESPACE ? convert_namespace(doc, c->a)
                                                     : convert_account(doc, c->a);
        struct str target = mirror_name((enum mirror_id)i, ns, name, c->a);
        struct jnode *is =
            lab_get(c->lab->target, mirror_defs[i].to,
                    i == MIRROR_POLICY ? arena_cstr(c->a, ns) : "", arena_cstr(c->a, target), c->a);
        if (!is || !convert_same(jnode_getc(is, "spec"), want)) {
            fail_msg("%.*s: %s", STR_FMT(target), is ? "differs" : "is missing");
        }
        assert_true(jnode_str(jnode_path(is, "metadata.name")).n > 0);
        c->n++;
    }
    if (k->id == K_POD) {
        const char *wep = arena_cstr(c->a, arena_printf(c->a, "n1-k8s-%.*s-eth0", STR_FMT(name)));
        struct jnode *is =
            lab_get(c->lab->target, K_WORKLOAD_ENDPOINT, arena_cstr(c->a, ns), wep, c->a);
        assert_true(!is || !convert_endpoint(is, doc, c->a));
    }
    return 0;
}

static void check(struct lab *lab) {
    struct arena a = {0};
    struct err e;
    struct checking c = {lab, &a, 0};
    struct counting ours = {0};
    struct store_key all = {STR(STORE_SPACE_RESOURCES), STR("")};
    assert_int_equal(store_list(lab->source, all, NULL, check_source, &c, &e), 0);
    assert_int_equal(store_list(lab->target, all, NULL, count_ours, &ours, &e), 0);
    assert_int_equal(c.n, ours.n);
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
        struct jnode *is =
            lab_get(lab->target, foreign[i].kind, foreign[i].ns, foreign[i].name, &a);
        assert_non_null(is);
        assert_true(
            jnode_eq(jnode_getc(is, "spec"), jnode_getc(lab_json(&a, foreign[i].text), "spec")));
    }
    arena_fini(&a);
}

/* A controller that breaks after some calls, or lives on for a while. */
static void one_life(struct loop *l, struct lab *lab, bool is_broken) {
    struct engine *x = start(l, lab, true);
    calls_left = -1;
    for (unsigned i = 0, n = 5 + rnd(25); i < n; i++) {
        long kept = calls_left;
        calls_left = -1; /* the changes themselves work */
        if (rnd(2)) {
            change_source(lab->source);
        } else if (rnd(3) == 0) {
            tamper(lab->target);
        }
        calls_left = kept;
        if (is_broken && i == n / 2) {
            calls_left = (long)rnd(12);
            loses_answers = rnd(2);
        }
        loop_step(l, false);
    }
    engine_free(x);
    calls_left = -1;
}

static void t_engine__changes_tampering_crashes__target_is_function_of_source(void **state) {
    struct lab *lab = *state;
    struct loop *l = loop_new();
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
        lab_put(lab->target, foreign[i].kind, foreign[i].ns, foreign[i].name, foreign[i].text);
    }
    seed = 20260102;
    for (int round = 0; round < 30; round++) { /* each begins where the last one ended */
        one_life(l, lab, round % 3 != 0);
        struct engine *x = start(l, lab, true);
        settle(l, x);
        check(lab);
        tamper(lab->target);
        settle(l, x);
        check(lab); /* put back at once, not at the next comparison */
        engine_free(x);
    }
    loop_free(l);
}

/* ---- nodes ---- */

static void t_engine__kubernetes_node_gone__calico_node_deleted_others_stay(void **state) {
    struct lab *lab = *state;
    struct loop *l = loop_new();
    struct arena a = {0};
    lab_put(lab->source, K_NODE_K8S, "", "n1", "{'metadata':{'labels':{'zone':'z'}}}");
    lab_put(lab->source, K_NODE_K8S, "", "n2", "{}");
    lab_put(lab->target, K_NODE, "", "n1",
            "{'metadata':{'labels':{'own':'1'}},'spec':{'orchRefs':["
            "{'nodeName':'n1','orchestrator':'k8s'}]}}");
    lab_put(lab->target, K_NODE, "", "calico-n2",
            "{'spec':{'orchRefs':[{'nodeName':'n2','orchestrator':'k8s'}]}}");
    lab_put(lab->target, K_NODE, "", "metal", "{'spec':{}}");
    struct engine *x = start(l, lab, true);
    settle(l, x);
    lab_assert_json(jnode_path(lab_get(lab->target, K_NODE, "", "n1", &a), "metadata.labels"),
                    "{'own':'1','zone':'z'}");
    lab_del(lab->source, K_NODE_K8S, "", "n2");
    settle(l, x);
    assert_null(lab_get(lab->target, K_NODE, "", "calico-n2", &a));
    assert_non_null(lab_get(lab->target, K_NODE, "", "n1", &a));
    assert_non_null(lab_get(lab->target, K_NODE, "", "metal", &a));
    engine_free(x);
    arena_fini(&a);
    loop_free(l);
}

static void t_engine__auto_host_endpoints__made_kept_and_taken_away(void **state) {
    struct lab *lab = *state;
    struct loop *l = loop_new();
    struct arena a = {0};
    lab_put(lab->target, K_NODE, "", "n1", "{'spec':{'bgp':{'ipv4Address':'192.0.2.1/24'}}}");
    lab_put(lab->target, K_HOST_ENDPOINT, "", "gone-auto-hep",
            "{'metadata':{'labels':{'projectcalico.org/created-by':'calico-kube-controllers'}},"
            "'spec':{'node':'gone'}}");
    lab_put(lab->target, K_HOST_ENDPOINT, "", "mine", "{'spec':{'node':'gone'}}");
    lab_put(lab->target, K_KUBE_CONTROLLERS_CONFIGURATION, "", "default",
            "{'spec':{'controllers':{'node':{'hostEndpoint':{'autoCreate':'Enabled'}}}}}");
    struct engine *x = start(l, lab, true);
    settle(l, x);
    struct jnode *hep = lab_get(lab->target, K_HOST_ENDPOINT, "", "n1-auto-hep", &a);
    lab_assert_json(jnode_path(hep, "spec.expectedIPs"), "['192.0.2.1']");
    assert_null(lab_get(lab->target, K_HOST_ENDPOINT, "", "gone-auto-hep", &a));
    lab_del(lab->target, K_HOST_ENDPOINT, "", "n1-auto-hep");
    settle(l, x);
    assert_non_null(lab_get(lab->target, K_HOST_ENDPOINT, "", "n1-auto-hep", &a));
    struct jnode *c = lab_get(lab->target, K_KUBE_CONTROLLERS_CONFIGURATION, "", "default", &a);
    assert_true(str_is(jnode_str(jnode_path(c, "status.runningConfig.controllers.node.hostEndpoint."
                                               "autoCreate")),
                       "Enabled"));
    lab_put(lab->target, K_KUBE_CONTROLLERS_CONFIGURATION, "", "default",
            "{'spec':{'controllers':{'node':{}}}}");
    settle(l, x); /* takes effect without a restart */
    assert_null(lab_get(lab->target, K_HOST_ENDPOINT, "", "n1-auto-hep", &a));
    assert_non_null(lab_get(lab->target, K_HOST_ENDPOINT, "", "mine", &a));
    engine_free(x);
    arena_fini(&a);
    loop_free(l);
}

static void t_engine__datastore_locked__nothing_written(void **state) {
    struct lab *lab = *state;
    struct loop *l = loop_new();
    struct arena a = {0};
    lab_put(lab->target, K_CLUSTER_INFORMATION, "", "default", "{'spec':{'datastoreReady':false}}");
    lab_put(lab->source, K_NAMESPACE, "", "a", "{}");
    struct engine *x = start(l, lab, true);
    for (int i = 0; i < 50; i++) {
        loop_step(l, false);
    }
    assert_false(engine_is_idle(x));
    assert_null(lab_get(lab->target, K_PROFILE, "", "kns.a", &a));
    lab_put(lab->target, K_CLUSTER_INFORMATION, "", "default", "{'spec':{'datastoreReady':true}}");
    settle(l, x);
    assert_non_null(lab_get(lab->target, K_PROFILE, "", "kns.a", &a));
    engine_free(x);
    arena_fini(&a);
    loop_free(l);
}

/* ---- services ---- */

static const char lb_pool[] = "{'spec':{'cidr':'%s','blockSize':%d,'allowedUses':['LoadBalancer'],"
                              "'assignmentMode':'%s','nodeSelector':'all()'}}";

static void put_pool(struct lab *lab, const char *name, const char *cidr, int block,
                     const char *mode) {
    char text[400];
    snprintf(text, sizeof(text), lb_pool, cidr, block, mode);
    lab_put(lab->target, K_IP_POOL, "", name, text);
}

static void assert_ingress(struct lab *lab, const char *name, const char *want) {
    struct arena a = {0};
    struct jnode *s = lab_get(lab->target, K_SERVICE, "shop", name, &a);
    const struct jnode *i = jnode_path(s, "status.loadBalancer.ingress");
    if (want) {
        lab_assert_json(i, want);
    } else {
        assert_null(i);
    }
    arena_fini(&a);
}

#define SVC(uid, notes, type, families)                                             \
    "{'metadata':{'uid':'" uid "','annotations':{" notes "}},'spec':{'type':'" type \
    "','ipFamilies':[" families "]}}"

static void t_engine__services__addresses_given_written_and_taken_back(void **state) {
    struct lab *lab = *state;
    struct loop *l = loop_new();
    struct arena a = {0};
    put_pool(lab, "four", "192.0.2.0/30", 32, "Automatic");
    put_pool(lab, "six", "2001:db8::/124", 124, "Automatic");
    put_pool(lab, "byhand", "198.51.100.0/29", 30, "Manual");
    struct engine *x = start(l, lab, false);
    lab_put(lab->target, K_SERVICE, "shop", "one", SVC("u1", "", "LoadBalancer", "'IPv4'"));
    lab_put(lab->target, K_SERVICE, "shop", "other", SVC("u2", "", "ClusterIP", "'IPv4'"));
    lab_put(lab->target, K_SERVICE, "shop", "dual", SVC("u3", "", "LoadBalancer", "'IPv4','IPv6'"));
    lab_put(lab->target, K_SERVICE, "shop", "fixed",
            SVC("u4", "'projectcalico.org/loadBalancerIPs':'[\\u0022198.51.100.3\\u0022]'",
                "LoadBalancer", "'IPv4'"));
    lab_put(lab->target, K_SERVICE, "shop", "named",
            SVC("u5", "'projectcalico.org/ipv4pools':'[\\u0022byhand\\u0022]'", "LoadBalancer",
                "'IPv4'"));
    settle(l, x);
    assert_ingress(lab, "other", NULL);
    assert_ingress(lab, "fixed", "[{'ip':'198.51.100.3'}]");
    const struct jnode *i = jnode_path(lab_get(lab->target, K_SERVICE, "shop", "dual", &a),
                                       "status.loadBalancer.ingress");
    assert_int_equal(i->n, 2);
    assert_true(str_starts(jnode_str(jnode_getc(i->child, "ip")), STR("192.0.2.")));
    assert_true(str_starts(jnode_str(jnode_getc(i->last, "ip")), STR("2001:db8::")));
    i = jnode_path(lab_get(lab->target, K_SERVICE, "shop", "named", &a),
                   "status.loadBalancer.ingress");
    assert_true(str_starts(jnode_str(jnode_getc(i->child, "ip")), STR("198.51.100.")));
    /* The owner of the blocks is virtual, the handle Calico's. */
    struct store_item it;
    struct err e;
    struct store_key handle = {STR(STORE_SPACE_IPAM), STR("/ipam/v2/virtual/load-balancer/ipv4/"
                                                          "block/198.51.100.0-30")};
    assert_int_equal(store_get(lab->target, handle, &a, &it, &e), 0);
    /* Other wishes: what is no more wanted goes back. */
    lab_put(lab->target, K_SERVICE, "shop", "named", SVC("u5", "", "LoadBalancer", "'IPv4'"));
    settle(l, x);
    i = jnode_path(lab_get(lab->target, K_SERVICE, "shop", "named", &a),
                   "status.loadBalancer.ingress");
    assert_true(str_starts(jnode_str(jnode_getc(i->child, "ip")), STR("192.0.2.")));
    /* Deleted, changed to another type: nothing is left in the books. */
    static const char *const all[] = {"one", "dual", "fixed"};
    for (size_t k = 0; k < ARRAY_LEN(all); k++) {
        lab_del(lab->target, K_SERVICE, "shop", all[k]);
    }
    lab_put(lab->target, K_SERVICE, "shop", "named", SVC("u5", "", "ClusterIP", "'IPv4'"));
    settle(l, x);
    assert_ingress(lab, "named", NULL);
    struct buf b = BUF_INIT(1 << 20);
    engine_metrics(x, &b);
    assert_true(str_contains(buf_view(&b), STR("ipam_ippool_size{ippool=\"byhand\"} 8\n")));
    assert_false(
        str_contains(buf_view(&b), STR("ipam_allocations_in_use{ippool=\"four\",node=\"un")));
    buf_fini(&b);
    engine_free(x);
    arena_fini(&a);
    loop_free(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            t_engine__changes_tampering_crashes__target_is_function_of_source, lab_setup,
            lab_teardown),
        cmocka_unit_test_setup_teardown(
            t_engine__kubernetes_node_gone__calico_node_deleted_others_stay, lab_setup,
            lab_teardown),
        cmocka_unit_test_setup_teardown(t_engine__auto_host_endpoints__made_kept_and_taken_away,
                                        lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(t_engine__datastore_locked__nothing_written, lab_setup,
                                        lab_teardown),
        cmocka_unit_test_setup_teardown(t_engine__services__addresses_given_written_and_taken_back,
                                        lab_setup, lab_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
