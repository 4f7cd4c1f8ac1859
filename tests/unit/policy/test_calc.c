/* The calculation: after any changes in any order, what was put out in steps equals what a fresh
 * one puts out for the same objects; and a few decisions spelled out. */
#include "base/jtree.h"
#include "policy/verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_OBJECTS = 32 };

/* The admins' policies, staged ones, host endpoints and their policies. */
static void more_text_of(size_t i, unsigned version, const char *app, const char *other, char *out,
                         size_t n) {
    static const char *const actions[] = {"Set", "Learn", "Ignore", "Set"};
    switch (i) {
    case 24:
        snprintf(
            out, n,
            "{\"apiVersion\":\"policy.networking.k8s.io/v1alpha2\",\"kind\":"
            "\"ClusterNetworkPolicy\",\"metadata\":{\"name\":\"c\"},\"spec\":{\"tier\":\"%s\","
            "\"priority\":%u,\"subject\":{\"namespaces\":{\"matchLabels\":{\"env\":\"%s\"}}},"
            "\"ingress\":[{\"action\":\"Accept\",\"from\":[{\"pods\":{\"namespaceSelector\":{},"
            "\"podSelector\":{\"matchLabels\":{\"app\":\"%s\"}}}}],\"protocols\":[{\"tcp\":{"
            "\"destinationPort\":{\"number\":%u}}},{\"destinationNamedPort\":\"http\"}]},{"
            "\"action\":\"Deny\",\"from\":[{\"namespaces\":{}}]}]}}",
            version % 2 ? "Admin" : "Baseline", version, app, other, 80 + version);
        break;
    case 25:
    case 26:
        snprintf(
            out, n,
            "{\"apiVersion\":\"policy.networking.k8s.io/v1alpha1\",\"kind\":\"%s\",\"metadata\":{"
            "\"name\":\"default\"},\"spec\":{\"priority\":%u,\"subject\":{\"pods\":{"
            "\"namespaceSelector\":{},\"podSelector\":{}}},\"egress\":[{\"action\":\"%s\",\"to\":["
            "{\"networks\":[\"10.0.%u.0/24\"]}],\"ports\":[{\"portRange\":{\"start\":1,\"end\":"
            "90}}]}]}}",
            i == 25 ? "AdminNetworkPolicy" : "BaselineAdminNetworkPolicy", version,
            version % 2 ? "Deny" : "Allow", version);
        break;
    case 27: /* stands for one of the Kubernetes policies, or takes it away */
        snprintf(
            out, n,
            "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"StagedKubernetesNetworkPolicy\","
            "\"metadata\":{\"name\":\"k11\",\"namespace\":\"n1\"},\"spec\":{%s}}",
            version == 2 ? "\"stagedAction\":\"Delete\""
                         : "\"podSelector\":{},\"policyTypes\":[\"Ingress\"]");
        break;
    case 28:
        snprintf(
            out, n,
            "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"StagedGlobalNetworkPolicy\","
            "\"metadata\":{\"name\":\"first.s\"},\"spec\":{\"tier\":\"first\",\"stagedAction\":"
            "\"%s\",\"selector\":\"app == '%s'\",\"types\":[\"Egress\"],\"egress\":[{\"action\":"
            "\"Deny\"}]}}",
            actions[version % 4], app);
        break;
    case 29:
    case 30:
        snprintf(out, n,
                 "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"HostEndpoint\",\"metadata\":{"
                 "\"name\":\"h%zu\",\"labels\":{\"app\":\"%s\"}},\"spec\":{\"node\":\"%s\","
                 "\"interfaceName\":\"%s\",\"expectedIPs\":[\"192.0.2.%u\"],\"profiles\":["
                 "\"projectcalico-default-allow\"]}}",
                 i, app, version == 3 ? "there" : "here", i == 29 ? "*" : "eth0", version);
        break;
    default:
        snprintf(
            out, n,
            "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"GlobalNetworkPolicy\","
            "\"metadata\":{\"name\":\"h\"},\"spec\":{\"selector\":\"has(app)\",\"types\":["
            "\"Ingress\"],\"applyOnForward\":true,\"%s\":%s,\"ingress\":[{\"action\":\"Allow\"}]}}",
            version == 1 ? "preDNAT" : "doNotTrack", version == 3 ? "false" : "true");
        break;
    }
}

/* Object i in one of several versions; version 0: absent. */
static const char *text_of(size_t i, unsigned version, char *out, size_t n) {
    static const char *const apps[] = {"web", "api", "db"};
    const char *app = apps[(i + version) % 3], *other = apps[(i + version + 1) % 3];
    if (i < 2) { /* namespaces */
        snprintf(out, n,
                 "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"n%zu\","
                 "\"labels\":{\"env\":\"%s\"}}}",
                 i, app);
    } else if (i < 8) { /* pods, some here, some elsewhere */
        snprintf(
            out, n,
            "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"p%zu\",\"namespace\":"
            "\"n%zu\",\"labels\":{\"app\":\"%s\"}},\"spec\":{\"nodeName\":\"%s\",\"containers\":[{"
            "\"name\":\"c\",\"ports\":[{\"name\":\"http\",\"containerPort\":%u}]}]},\"status\":{"
            "\"phase\":\"%s\",\"podIP\":\"10.0.1.%zu\"}}",
            i, i % 2, app, i < 5 ? "here" : "there", 80 + version,
            version == 3 ? "Succeeded" : "Running", i);
    } else if (i < 11) { /* endpoints of the pods that are here */
        snprintf(
            out, n,
            "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"WorkloadEndpoint\",\"metadata\":{"
            "\"name\":\"here-k8s-p%zu-eth0\",\"namespace\":\"n%zu\"},\"spec\":{\"orchestrator\":"
            "\"k8s\",\"node\":\"here\",\"pod\":\"p%zu\",\"endpoint\":\"eth0\",\"interfaceName\":"
            "\"cali%zu\",\"ipNetworks\":[\"10.0.0.%zu/32\"]}}",
            i - 6, (i - 6) % 2, i - 6, i - 6, i + version % 2 * 100);
    } else if (i < 15) { /* Kubernetes policies */
        snprintf(
            out, n,
            "{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"NetworkPolicy\",\"metadata\":{"
            "\"name\":\"k%zu\",\"namespace\":\"n%zu\"},\"spec\":{\"podSelector\":{\"matchLabels\":{"
            "\"app\":\"%s\"}},\"ingress\":[{\"from\":[{\"podSelector\":{\"matchLabels\":{\"app\":\""
            "%s\"}}},{\"namespaceSelector\":{\"matchLabels\":{\"env\":\"%s\"}}}],\"ports\":[{"
            "\"port\":\"http\"},{\"port\":%u}]}]}}",
            i, i % 2, app, other, app, 100 + version);
    } else if (i < 20) { /* Calico policies, namespaced and global, in two tiers */
        bool global = i % 2;
        snprintf(
            out, n,
            "{\"apiVersion\":\"projectcalico.org/"
            "v3\",\"kind\":\"%s\",\"metadata\":{\"name\":\"%sc%zu"
            "\"%s},\"spec\":{\"tier\":\"%s\",\"order\":%u,\"selector\":\"app == "
            "'%s'\"%s,\"types\":["
            "\"Ingress\",\"Egress\"],\"ingress\":[{\"action\":\"%s\",\"source\":{\"selector\":"
            "\"app == '%s' || has(trusted)\",\"notNets\":[\"10.0.1.0/30\"]}}],\"egress\":[{"
            "\"action\":\"Pass\",\"protocol\":\"TCP\",\"destination\":{\"ports\":[%u,\"http\"]}}]}"
            "}",
            global ? "GlobalNetworkPolicy" : "NetworkPolicy", i > 17 ? "first." : "", i,
            global ? "" : ",\"namespace\":\"n0\"", i > 17 ? "first" : "default", version * 7 % 5,
            app, global ? ",\"namespaceSelector\":\"env == 'api'\"" : "",
            version == 2 ? "Deny" : "Allow", other, 90 + version);
    } else if (i < 22) { /* network sets */
        snprintf(
            out, n,
            "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"GlobalNetworkSet\",\"metadata\":{"
            "\"name\":\"s%zu\",\"labels\":{\"trusted\":\"%s\"}},\"spec\":{\"nets\":[\"10.%u.0.0/"
            "16\","
            "\"10.0.1.5/32\"]}}",
            i, app, version);
    } else if (i >= 24) {
        more_text_of(i, version, app, other, out, n);
    } else {
        snprintf(out, n,
                 "{\"apiVersion\":\"projectcalico.org/"
                 "v3\",\"kind\":\"Tier\",\"metadata\":{\"name\":\"%s\"}"
                 ",\"spec\":{\"order\":%u,\"defaultAction\":\"%s\"}}",
                 i == 22 ? "first" : "other", version * 100, version == 2 ? "Pass" : "Deny");
    }
    return out;
}

static void tell_text(struct calc *c, const char *text, bool is_there) {
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err e;
    struct object o;
    struct model_errors errs = {.a = &a};
    if (json_parse(str_c(text), &json_limits_default, &a, &doc, &e) < 0) {
        fail_msg("%s: %s", text, e.msg);
    }
    if (object_read(doc, MODEL_STORE, STR_NULL, &a, &o, &errs) < 0) {
        fail_msg("%s: %.*s", text, STR_FMT(errs.p[0].message));
    }
    calc_object(c, o.kind, o.meta.ns, o.meta.name, is_there ? &o : NULL);
    arena_fini(&a);
}

static char *state_text(const struct mirror *m) {
    struct buf b = BUF_INIT(64U << 20);
    mirror_print(m, &b);
    char *p = strdup(buf_cstr(&b));
    buf_fini(&b);
    return p;
}

static void t_calc__any_changes__as_from_scratch(void **state) {
    (void)state;
    char text[4096];
    for (unsigned seed = 1; seed <= 20; seed++) {
        srandom(seed);
        unsigned version[N_OBJECTS] = {0};
        struct mirror *m = mirror_new();
        struct calc *c = calc_new(STR("here"), &mirror_calc_ops, m);
        for (int step = 0; step < 150; step++) {
            for (long k = random() % 4; k >= 0; k--) {
                size_t i = (size_t)random() % N_OBJECTS;
                unsigned v = (unsigned)random() % 4;
                tell_text(c, text_of(i, v ? v : version[i], text, sizeof(text)), v != 0);
                version[i] = v;
            }
            calc_flush(c);
            struct mirror *fm = mirror_new();
            struct calc *fresh = calc_new(STR("here"), &mirror_calc_ops, fm);
            for (size_t i = N_OBJECTS; i-- > 0;) { /* in another order */
                if (version[i]) {
                    tell_text(fresh, text_of(i, version[i], text, sizeof(text)), true);
                }
            }
            calc_flush(fresh);
            char *a = state_text(m), *b = state_text(fm);
            if (strcmp(a, b) != 0) {
                printf("seed %u step %d\n---- in steps ----\n%s---- from scratch ----\n%s", seed,
                       step, a, b);
            }
            assert_int_equal(strcmp(a, b), 0);
            assert_null(strstr(a, "MISSING"));
            free(a);
            free(b);
            calc_free(fresh);
            mirror_free(fm);
        }
        calc_free(c);
        mirror_free(m);
    }
}

static void t_calc__tiers_pass_profiles__decide_in_order(void **state) {
    (void)state;
    static const char *const objects[] = {
        "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"n\"}}",
        "{\"apiVersion\":\"projectcalico.org/"
        "v3\",\"kind\":\"WorkloadEndpoint\",\"metadata\":{\"name\":"
        "\"w\",\"namespace\":\"n\",\"labels\":{\"a\":\"b\"}},\"spec\":{\"orchestrator\":\"k8s\","
        "\"node\":"
        "\"here\",\"interfaceName\":\"cali1\",\"ipNetworks\":[\"10.0.0.1/"
        "32\"],\"profiles\":[\"kns.n\"]}}",
        "{\"apiVersion\":\"projectcalico.org/"
        "v3\",\"kind\":\"Tier\",\"metadata\":{\"name\":\"t\"},\"spec\":"
        "{\"order\":1}}",
        "{\"apiVersion\":\"projectcalico.org/"
        "v3\",\"kind\":\"GlobalNetworkPolicy\",\"metadata\":{\"name\":"
        "\"t.x\"},\"spec\":{\"tier\":\"t\",\"selector\":\"a == "
        "'b'\",\"types\":[\"Ingress\"],\"ingress\":[{"
        "\"action\":\"Pass\",\"protocol\":\"TCP\",\"destination\":{\"ports\":[80]}},{\"action\":"
        "\"Allow\","
        "\"protocol\":\"UDP\"}]}}",
    };
    struct mirror *m = mirror_new();
    struct calc *c = calc_new(STR("here"), &mirror_calc_ops, m);
    for (size_t i = 0; i < sizeof(objects) / sizeof(*objects); i++) {
        tell_text(c, objects[i], true);
    }
    calc_flush(c);
    struct packet p = {.protocol = 6, .dport = 80};
    assert_int_equal(ip_parse(STR("192.0.2.1"), &p.src), 0);
    assert_int_equal(ip_parse(STR("10.0.0.1"), &p.dst), 0);
    struct verdict_why why;
    /* Pass: the profile of the namespace allows. */
    assert_int_equal(verdict_of(m, CALC_INGRESS, &p, &why), VERDICT_ALLOW);
    assert_true(str_is(why.policy->name, "kns.n"));
    p.dport = 81; /* no rule: the end of the tier */
    assert_int_equal(verdict_of(m, CALC_INGRESS, &p, &why), VERDICT_DENY);
    assert_int_equal(why.what, WHY_END_OF_TIER);
    p.protocol = 17;
    assert_int_equal(verdict_of(m, CALC_INGRESS, &p, &why), VERDICT_ALLOW);
    assert_int_equal(why.rule->index, 1);
    /* Without the Namespace there is no profile: what was passed on is denied. */
    tell_text(c, objects[0], false);
    calc_flush(c);
    p.protocol = 6;
    p.dport = 80;
    assert_int_equal(verdict_of(m, CALC_INGRESS, &p, &why), VERDICT_DENY);
    assert_int_equal(why.what, WHY_NO_PROFILE);
    calc_free(c);
    mirror_free(m);
}

/* A stored policy with errors lets nothing through that its writer did not name. */
static void t_calc__broken_kubernetes_policy__never_wider(void **state) {
    (void)state;
    static const char *const specs[] = {
        "{\"podSelector\":{},\"ingress\":[{\"from\":5}]}",
        "{\"podSelector\":{},\"ingress\":[{\"from\":[5]}]}",
        "{\"podSelector\":{},\"ingress\":[{\"from\":[{\"podSelector\":5}]}]}",
        "{\"podSelector\":{},\"ingress\":[{\"from\":[{\"podSelector\":{\"matchLabels\":5}}]}]}",
        "{\"podSelector\":{},\"ingress\":[{\"from\":[{\"namespaceSelector\":{\"matchExpressions\":"
        "[{\"key\":\"a\",\"operator\":\"Near\"}]}}]}]}",
        "{\"podSelector\":{},\"ingress\":[{\"from\":[{\"ipBlock\":{\"cidr\":7}}]}]}",
        "{\"podSelector\":{},\"ingress\":[{\"from\":[{\"ipBlock\":{\"cidr\":\"192.0.2.0/24\","
        "\"except\":\"192.0.2.1/32\"}}]}]}",
        "{\"podSelector\":{},\"ingress\":[{\"ports\":\"x\"}]}",
        "{\"podSelector\":{},\"ingress\":[{\"ports\":[{\"port\":{}}]}]}",
        "{\"podSelector\":{},\"ingress\":[{\"ports\":[{\"port\":80,\"endPort\":\"90\"}]}]}",
        "{\"podSelector\":{},\"ingress\":[{\"ports\":[{\"port\":80,\"protocol\":6}]}]}",
        "{\"podSelector\":5,\"ingress\":[{}]}",
        "{\"podSelector\":{\"matchLabels\":[]},\"ingress\":[{}]}",
        "{\"podSelector\":{},\"ingress\":[5]}",
        "{\"podSelector\":{},\"ingress\":5}",
    };
    for (size_t i = 0; i < sizeof(specs) / sizeof(*specs); i++) {
        struct mirror *m = mirror_new();
        struct calc *c = calc_new(STR("here"), &mirror_calc_ops, m);
        char text[1024];
        tell_text(c, "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"n\"}}",
                  true);
        tell_text(c,
                  "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"WorkloadEndpoint\","
                  "\"metadata\":{\"name\":\"w\",\"namespace\":\"n\",\"labels\":{"
                  "\"projectcalico.org/orchestrator\":\"k8s\"}},\"spec\":{\"orchestrator\":\"k8s\","
                  "\"node\":\"here\",\"interfaceName\":\"cali1\",\"ipNetworks\":[\"10.0.0.1/32\"],"
                  "\"profiles\":[\"kns.n\"]}}",
                  true);
        snprintf(
            text, sizeof(text),
            "{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"NetworkPolicy\",\"metadata\":{"
            "\"name\":\"p\",\"namespace\":\"n\"},\"spec\":%s}",
            specs[i]);
        struct arena a = {0};
        struct jnode *doc = NULL;
        struct object o;
        struct model_errors errs = {.a = &a};
        assert_int_equal(json_parse(str_c(text), &json_limits_default, &a, &doc, NULL), 0);
        assert_int_equal(object_read(doc, MODEL_STORE, STR_NULL, &a, &o, &errs), ERR_INVALID);
        calc_object(c, o.kind, o.meta.ns, o.meta.name, &o);
        arena_fini(&a);
        calc_flush(c);
        struct verdict_why why;
        for (uint16_t port = 79; port < 96; port += 1) {
            struct packet p = {.protocol = 6, .dport = port};
            assert_int_equal(ip_parse(STR("192.0.2.1"), &p.src), 0);
            assert_int_equal(ip_parse(STR("10.0.0.1"), &p.dst), 0);
            if (verdict_of(m, CALC_INGRESS, &p, &why) != VERDICT_DENY) {
                fail_msg("port %u is let through by %s", port, specs[i]);
            }
        }
        calc_free(c);
        mirror_free(m);
    }
}

static void on_problem(void *arg, const struct kind *k, struct str ns, struct str name,
                       struct str reason) {
    (void)k;
    (void)ns;
    (void)name;
    if (reason.p) {
        snprintf(arg, 256, "%.*s", STR_FMT(reason));
    }
}

static void on_some_policy(void *arg, const struct calc_policy *p) {
    (void)arg;
    for (size_t i = 0; i < p->n_rules; i++) {
        assert_true(p->rules[i].never);
    }
}
static void on_some_endpoint(void *arg, const struct calc_endpoint *e) {
    (void)arg;
    (void)e;
}

/* A match on HTTP needs a proxy: such a rule lets nothing through, and that is told. */
static void t_calc__http_match__refused(void **state) {
    (void)state;
    char said[256] = "";
    static const struct calc_ops ops = {
        .policy = on_some_policy, .endpoint = on_some_endpoint, .problem = on_problem};
    struct calc *c = calc_new(STR("here"), &ops, said);
    tell_text(
        c,
        "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"WorkloadEndpoint\",\"metadata\":{"
        "\"name\":\"w\",\"namespace\":\"n\"},\"spec\":{\"orchestrator\":\"k8s\",\"node\":"
        "\"here\",\"interfaceName\":\"cali1\",\"ipNetworks\":[\"10.0.0.1/32\"]}}",
        true);
    tell_text(c,
              "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"NetworkPolicy\",\"metadata\":{"
              "\"name\":\"p\",\"namespace\":\"n\"},\"spec\":{\"types\":[\"Ingress\"],\"ingress\":[{"
              "\"action\":\"Allow\",\"http\":{\"methods\":[\"GET\"]}}]}}",
              true);
    calc_flush(c);
    assert_non_null(strstr(said, "ingress[0]: http"));
    calc_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_calc__broken_kubernetes_policy__never_wider),
        cmocka_unit_test(t_calc__http_match__refused),
        cmocka_unit_test(t_calc__any_changes__as_from_scratch),
        cmocka_unit_test(t_calc__tiers_pass_profiles__decide_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
