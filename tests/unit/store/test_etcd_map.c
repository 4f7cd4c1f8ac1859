/* Calico's keys and values in etcd, key by key as libcalico-go's backend/model and backend/etcdv3
 * have them, and back. No etcd is needed. */
#include "store/etcd_map.h"

#include "base/jtree.h"
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define V3 "/calico/resources/v3/projectcalico.org/"

static const struct {
    const char *space, *key, *etcd;
} KEYS[] = {
    {"r", "IPPool.projectcalico.org//lab", V3 "ippools/lab"},
    {"r", "Node.projectcalico.org//n1", V3 "nodes/n1"},
    {"r", "WorkloadEndpoint.projectcalico.org/shop/n1-k8s-web--7-eth0",
     V3 "workloadendpoints/shop/n1-k8s-web--7-eth0"},
    {"r", "NetworkPolicy.projectcalico.org/shop/allow-db", V3 "networkpolicies/shop/allow-db"},
    {"r", "NetworkPolicy.projectcalico.org/shop/knp.default.web",
     V3 "networkpolicies/shop/knp.default.web"},
    {"r", "GlobalNetworkPolicy.projectcalico.org//deny", V3 "globalnetworkpolicies/deny"},
    {"r", "StagedNetworkPolicy.projectcalico.org/a/b", V3 "stagednetworkpolicies/a/b"},
    {"r", "StagedGlobalNetworkPolicy.projectcalico.org//b", V3 "stagedglobalnetworkpolicies/b"},
    {"r", "StagedKubernetesNetworkPolicy.projectcalico.org/a/b",
     V3 "stagedkubernetesnetworkpolicies/a/b"},
    {"r", "NetworkSet.projectcalico.org/a/b", V3 "networksets/a/b"},
    {"r", "GlobalNetworkSet.projectcalico.org//b", V3 "globalnetworksets/b"},
    {"r", "HostEndpoint.projectcalico.org//n1-eth0", V3 "hostendpoints/n1-eth0"},
    {"r", "Profile.projectcalico.org//kns.shop", V3 "profiles/kns.shop"},
    {"r", "ClusterInformation.projectcalico.org//default", V3 "clusterinformations/default"},
    {"r", "FelixConfiguration.projectcalico.org//node.n1", V3 "felixconfigurations/node.n1"},
    {"r", "BGPConfiguration.projectcalico.org//default", V3 "bgpconfigurations/default"},
    {"r", "BGPPeer.projectcalico.org//tor", V3 "bgppeers/tor"},
    {"r", "BGPFilter.projectcalico.org//f", V3 "bgpfilters/f"},
    {"r", "BlockAffinity.projectcalico.org//n1-10-44-7-0-26", V3 "blockaffinities/n1-10-44-7-0-26"},
    {"r", "CalicoNodeStatus.projectcalico.org//n1", V3 "caliconodestatuses/n1"},
    {"r", "IPAMConfiguration.projectcalico.org//default", V3 "ipamconfigurations/default"},
    {"r", "IPReservation.projectcalico.org//r", V3 "ipreservations/r"},
    {"r", "KubeControllersConfiguration.projectcalico.org//default",
     V3 "kubecontrollersconfigurations/default"},
    {"r", "Tier.projectcalico.org//kube-admin", V3 "tiers/kube-admin"},
    {"r", "Pod/shop/web-7", "/calico/resources/v1/core/pods/shop/web-7"},
    {"r", "Node//n1", "/calico/resources/v1/core/nodes/n1"},
    {"r", "NetworkPolicy.networking.k8s.io/a/b",
     "/calico/resources/v1/networking.k8s.io/networkpolicies/a/b"},
    {"r", "AdminNetworkPolicy.policy.networking.k8s.io//b",
     "/calico/resources/v1alpha1/policy.networking.k8s.io/adminnetworkpolicies/b"},
    {"r", "EndpointSlice.discovery.k8s.io/a/b",
     "/calico/resources/v1/discovery.k8s.io/endpointslices/a/b"},
    {"r", "Pod/ünï/cødé", "/calico/resources/v1/core/pods/ünï/cødé"},
    {"i", "/ipam/v2/assignment/ipv4/block/10.1.2.0-26",
     "/calico/ipam/v2/assignment/ipv4/block/10.1.2.0-26"},
    {"i", "/ipam/v2/assignment/ipv6/block/fd00:1::-122",
     "/calico/ipam/v2/assignment/ipv6/block/fd00:1::-122"},
    {"i", "/ipam/v2/host/n1/ipv4/block/10.1.2.0-26",
     "/calico/ipam/v2/host/n1/ipv4/block/10.1.2.0-26"},
    {"i", "/ipam/v2/handle/k8s-pod-network.4f0c", "/calico/ipam/v2/handle/k8s-pod-network.4f0c"},
    {"i", "/ipam/v2/config", "/calico/ipam/v2/config"},
    {"c", "/felix/v2/no-region/host/n1/status", "/calico/felix/v2/no-region/host/n1/status"},
    {"lock", "leader", "/margay/lock/leader"},
};

static void t_map__keys__there_and_back(void **state) {
    for (size_t i = 0; i < ARRAY_LEN(KEYS); i++) {
        struct arena a = {0};
        struct err e = {.msg = ""};
        struct str out;
        struct store_key k = {str_c(KEYS[i].space), str_c(KEYS[i].key)};
        if (etcd_key_of(k, &a, &out, &e) < 0) {
            fail_msg("%s: %s", KEYS[i].key, e.msg);
        }
        assert_string_equal(arena_cstr(&a, out), KEYS[i].etcd);
        assert_true(etcd_key_back(k.space, str_c(KEYS[i].etcd), &a, &out));
        assert_string_equal(arena_cstr(&a, out), KEYS[i].key);
        arena_fini(&a);
    }
    (void)state;
}

/* Every kind has a place of its own. */
static void t_map__kinds__all_have_a_place(void **state) {
    struct arena a = {0};
    struct str all[K_N_KINDS];
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *kind = &model_kinds[i];
        struct str key = kind_store_key(kind, STR("ns"), STR("name"), &a), back;
        assert_int_equal(etcd_key_of((struct store_key){STR("r"), key}, &a, &all[i], NULL), 0);
        assert_true(etcd_key_back(STR("r"), all[i], &a, &back));
        assert_true(str_eq(key, back));
        for (size_t k = 0; k < i; k++) {
            assert_false(str_eq(all[k], all[i]));
        }
    }
    arena_fini(&a);
    (void)state;
}

static void t_map__keys__of_others_left_out(void **state) {
    static const char *const foreign[] = {
        "",
        "/",
        "/calico/resources/",
        "/calico/resources/v3/projectcalico.org/",
        V3 "ippools",
        V3 "ippools/",
        V3 "unknownkinds/x",
        V3 "networkpolicies/only-a-name",
        V3 "networkpolicies//x",
        V3 "networkpolicies/ns/",
        "/calico/resources/v2/projectcalico.org/ippools/x",
        "/calico/resources/v1//pods/a/b",
        "/calico/ipam/v2/config",
        "/registry/pods/a/b",
    };
    struct arena a = {0};
    struct str out;
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
        assert_false(etcd_key_back(STR("r"), str_c(foreign[i]), &a, &out));
    }
    assert_false(etcd_key_back(STR("i"), STR("/calico/resources/v3/x"), &a, &out));
    assert_false(
        etcd_key_back(STR("r"), str_n(V3 "ippools/a\0b", sizeof(V3 "ippools/a\0b") - 1), &a, &out));
    char *long_key = arena_alloc(&a, 5000);
    memset(long_key, 'x', 5000);
    memcpy(long_key, V3 "ippools/", sizeof(V3 "ippools/") - 1);
    assert_false(etcd_key_back(STR("r"), str_n(long_key, 5000), &a, &out));
    struct err e = {.msg = ""};
    assert_int_equal(etcd_key_of((struct store_key){STR("r"), STR("IPPool.projectcalico.org/ns/x")},
                                 &a, &out, &e),
                     ERR_INVALID);
    assert_int_equal(etcd_key_of((struct store_key){STR("i"), STR("config")}, &a, &out, &e),
                     ERR_INVALID);
    arena_fini(&a);
    (void)state;
}

static const struct {
    const char *key;     /* of space r */
    const char *written; /* what the store is given */
    const char *kept;    /* what etcd has; NULL: the same text */
    const char *read;    /* what the store gives back; NULL: the text that was written */
} VALUES[] = {
    /* Unknown fields, blanks and numbers stay as they are. */
    {"IPPool.projectcalico.org//lab",
     "{\"kind\":\"IPPool\",  "
     "\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":\"lab\","
     "\"creationTimestamp\":null},\"spec\":{\"cidr\":\"10.44.0.0/16\",\"later\":1.50e2}}",
     NULL, NULL},
    {"IPPool.projectcalico.org//lab",
     "{\"kind\":\"IPPool\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":\"lab\","
     "\"resourceVersion\":\"7\",\"selfLink\":\"x\"},\"spec\":{\"later\":1.50e2}}",
     "{\"kind\":\"IPPool\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":\"lab\"},"
     "\"spec\":{\"later\":1.50e2}}",
     "{\"kind\":\"IPPool\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":\"lab\"},"
     "\"spec\":{\"later\":1.50e2}}"},
    {"NetworkPolicy.projectcalico.org/shop/allow-db",
     "{\"kind\":\"NetworkPolicy\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":"
     "\"allow-db\",\"namespace\":\"shop\"},\"spec\":{\"selector\":\"role == 'db'\"}}",
     "{\"kind\":\"NetworkPolicy\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":"
     "\"allow-db\",\"namespace\":\"shop\",\"annotations\":{\"projectcalico.org/metadata\":"
     "\"{\\\"name\\\":\\\"allow-db\\\"}\"}},\"spec\":{\"selector\":\"role == 'db'\"}}",
     NULL},
    {"GlobalNetworkPolicy.projectcalico.org//sec.deny",
     "{\"kind\":\"GlobalNetworkPolicy\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{"
     "\"name\":\"sec.deny\",\"annotations\":{\"a\":\"b\"}},\"spec\":{\"tier\":\"sec\"}}",
     "{\"kind\":\"GlobalNetworkPolicy\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{"
     "\"name\":\"sec.deny\",\"annotations\":{\"a\":\"b\",\"projectcalico.org/metadata\":"
     "\"{\\\"name\\\":\\\"sec.deny\\\"}\"}},\"spec\":{\"tier\":\"sec\"}}",
     NULL},
    /* Not one of the four kinds that have the annotation. */
    {"StagedKubernetesNetworkPolicy.projectcalico.org/a/b",
     "{\"kind\":\"StagedKubernetesNetworkPolicy\",\"apiVersion\":\"projectcalico.org/v3\","
     "\"metadata\":{\"name\":\"b\"}}",
     NULL, NULL},
    {"BlockAffinity.projectcalico.org//x",
     "{\"kind\":\"BlockAffinity\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":"
     "\"x\"},\"spec\":{\"state\":\"confirmed\",\"deleted\":false}}",
     "{\"kind\":\"BlockAffinity\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":"
     "\"x\"},\"spec\":{\"state\":\"confirmed\",\"deleted\":\"false\"}}",
     NULL},
    {"Pod/a/b", "{\"metadata\":{\"name\":\"b\"}}",
     "{\"metadata\":{\"name\":\"b\"},\"kind\":\"Pod\",\"apiVersion\":\"v1\"}",
     "{\"metadata\":{\"name\":\"b\"},\"kind\":\"Pod\",\"apiVersion\":\"v1\"}"},
    /* What is no document is nobody's business here. */
    {"NetworkPolicy.projectcalico.org/shop/x", "{broken", NULL, NULL},
    {"NetworkPolicy.projectcalico.org/shop/x", "[1,2]", NULL, NULL},
};

static void t_map__values__there_and_back(void **state) {
    for (size_t i = 0; i < ARRAY_LEN(VALUES); i++) {
        struct arena a = {0};
        struct store_key k = {STR("r"), str_c(VALUES[i].key)};
        struct str at;
        assert_int_equal(etcd_key_of(k, &a, &at, NULL), 0);
        const char *written = VALUES[i].written;
        struct str kept = etcd_value_out(k, at, str_c(written), &a);
        assert_string_equal(arena_cstr(&a, kept), VALUES[i].kept ? VALUES[i].kept : written);
        struct str back = etcd_value_in(k.space, k.key, kept, &a);
        assert_string_equal(arena_cstr(&a, back), VALUES[i].read ? VALUES[i].read : written);
        arena_fini(&a);
    }
    (void)state;
}

static const char *name_of(const char *key, const char *kept, struct arena *a) {
    struct jnode *doc = NULL;
    struct str v = etcd_value_in(STR("r"), str_c(key), str_c(kept), a);
    assert_int_equal(json_parse(v, &json_limits_default, a, &doc, NULL), 0);
    assert_null(strstr(arena_cstr(a, v), "projectcalico.org/metadata"));
    return arena_cstr(a, jnode_str(jnode_path(doc, "metadata.name")));
}

/* Where a policy's name comes from. */
static void t_map__policy_names__annotation_then_prefix(void **state) {
    struct arena a = {0};
    const char *np = "NetworkPolicy.projectcalico.org/a/default.x";
#define DOC(meta, spec) "{\"metadata\":{" meta "},\"spec\":{" spec "}}"
#define NOTE(name) \
    "\"annotations\":{\"projectcalico.org/metadata\":\"{\\\"name\\\":\\\"" name "\\\"}\"}"
    assert_string_equal(name_of(np, DOC("\"name\":\"default.x\"", ""), &a), "x");
    assert_string_equal(name_of(np, DOC("\"name\":\"default.x\"", "\"tier\":\"\""), &a), "x");
    assert_string_equal(name_of(np, DOC("\"name\":\"default.x\"", "\"tier\":\"default\""), &a),
                        "x");
    assert_string_equal(name_of(np, DOC("\"name\":\"default.x\"", "\"tier\":\"sec\""), &a),
                        "default.x");
    assert_string_equal(name_of(np, DOC("\"name\":\"sec.x\"", "\"tier\":\"sec\""), &a), "sec.x");
    assert_string_equal(name_of(np, DOC("\"name\":\"default.x\"," NOTE("default.x"), ""), &a),
                        "default.x");
    assert_string_equal(name_of(np, DOC("\"name\":\"default.x\"," NOTE("x"), ""), &a), "x");
    assert_string_equal(
        name_of("NetworkSet.projectcalico.org/a/default.x", DOC("\"name\":\"default.x\"", ""), &a),
        "default.x");
    struct store_key k = {STR("r"), STR("NetworkPolicy.projectcalico.org/a/x")};
    assert_string_equal(arena_cstr(&a, etcd_key_early(k, &a)), V3 "networkpolicies/a/default.x");
    k.key = STR("NetworkSet.projectcalico.org/a/x");
    assert_null(etcd_key_early(k, &a).p);
    /* Written again at its early place, it keeps its name. */
    k.key = STR("NetworkPolicy.projectcalico.org/a/x");
    struct str kept = etcd_value_out(k, etcd_key_early(k, &a),
                                     STR("{\"metadata\":{\"name\":\"x\"},\"spec\":{}}"), &a);
    assert_non_null(strstr(arena_cstr(&a, kept), "\"name\":\"default.x\""));
    assert_string_equal(name_of(np, arena_cstr(&a, kept), &a), "x");
    arena_fini(&a);
    (void)state;
}

static void t_map__empty_values__legal_and_old(void **state) {
    struct arena a = {0};
    struct str v =
        etcd_value_in(STR("i"), STR("/ipam/v2/host/n1/ipv4/block/10.1.2.0-26"), STR_NULL, &a);
    assert_true(str_is(v, "{}"));
    v = etcd_value_in(STR("i"), STR("/ipam/v2/handle/x"), STR_NULL, &a);
    assert_true(v.p && v.n == 0); /* absent would mean deleted */
    v = etcd_value_in(STR("r"), STR("IPPool.projectcalico.org//x"), STR_NULL, &a);
    assert_true(v.p && v.n == 0);
    arena_fini(&a);
    (void)state;
}

static void t_map__built_in_profile__valid(void **state) {
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct object o;
    struct model_errors errs = {.a = &a};
    assert_int_equal(json_parse(etcd_built_in_value(), &json_limits_default, &a, &doc, NULL), 0);
    assert_int_equal(object_read(doc, MODEL_STORE, STR_NULL, &a, &o, &errs), 0);
    assert_true(etcd_is_built_in((struct store_key){STR("r"), etcd_built_in_key()}));
    arena_fini(&a);
    (void)state;
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_map__keys__there_and_back),
        cmocka_unit_test(t_map__kinds__all_have_a_place),
        cmocka_unit_test(t_map__keys__of_others_left_out),
        cmocka_unit_test(t_map__values__there_and_back),
        cmocka_unit_test(t_map__policy_names__annotation_then_prefix),
        cmocka_unit_test(t_map__empty_values__legal_and_old),
        cmocka_unit_test(t_map__built_in_profile__valid),
    };
    return cmocka_run_group_tests_name("etcd_map", tests, NULL, NULL);
}
