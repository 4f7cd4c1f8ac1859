/* What of the Kubernetes API stands for which item: tables of both directions, names, UIDs. Pinned
 * to Calico's libcalico-go/lib/backend/k8s (resources, conversion). */
#include "store/kube.h"
#include "store/kube_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct arena a;

static int reset(void **state) {
    (void)state;
    arena_fini(&a);
    a = (struct arena){0};
    return 0;
}

static struct jnode *parse(const char *text) {
    struct jnode *n = NULL;
    struct err e = {0};
    if (json_parse(str_c(text), &json_limits_default, &a, &n, &e) < 0) {
        fail_msg("%s in %s", e.msg, text);
    }
    return n;
}

static const char *text_of(const struct jnode *n) {
    struct buf b = BUF_INIT(1 << 20);
    if (!n) {
        return "none";
    }
    json_write(&b, n, 0);
    const char *s = arena_cstr(&a, buf_view(&b));
    buf_fini(&b);
    return s;
}

static void assert_json(const struct jnode *n, const char *want) {
    if (!jnode_eq(n, parse(want))) {
        fail_msg("\nis   %s\nwant %s", text_of(n), want);
    }
}

static const struct kube_view *view(const char *prefix, enum kube_shape shape) {
    for (size_t i = 0; i < kube_n_views; i++) {
        if (strcmp(kube_views[i].prefix, prefix) == 0 && kube_views[i].shape == shape) {
            return &kube_views[i];
        }
    }
    fail_msg("no view %s", prefix);
    return NULL;
}

static struct store_key key(const char *k) {
    return (struct store_key){k[0] == '/' ? STR("i") : STR("r"), str_c(k)};
}

/* ---- names ---- */

static void t_uid__bits_of_bytes_reversed(void **state) {
    (void)state;
    /* version and variant bytes (7 and 9) stay; its own inverse */
    struct str flipped = kube_uid_flip(STR("30316465-6365-4463-ad63-3564622d3638"), &a);
    assert_true(str_is(flipped, "0c8c26a6-c6a6-44c6-adc6-ac2646b46c1c"));
    assert_true(str_is(kube_uid_flip(flipped, &a), "30316465-6365-4463-ad63-3564622d3638"));
    assert_null(kube_uid_flip(STR("not-a-uid"), &a).p);
    assert_null(kube_uid_flip(STR("30316465-6365-4463-ad63-3564622d363g"), &a).p);
    assert_null(kube_uid_flip(STR("30316465x6365-4463-ad63-3564622d3638"), &a).p);
}

static void t_names__of_ipam_objects(void **state) {
    (void)state;
    assert_true(str_is(kube_cidr_name(STR("10.44.7.0/26"), &a), "10-44-7-0-26"));
    assert_true(str_is(kube_cidr_name(STR("fd00:1::/122"), &a), "fd00-1---122"));
    assert_true(str_is(kube_host_hash(STR("node-1"), &a),
                       "A3XPYDATRKB7Q4SM2O5FN4RXIHBFIL2PITFX26BAIP5XAB2X74CA"));
    assert_true(str_is(kube_affinity_name(STR("n1"), STR("10-44-7-0-26"), &a), "n1-10-44-7-0-26"));
    char host[254];
    memset(host, 'h', sizeof(host) - 1);
    host[239] = '\0'; /* 239 + 1 + 12 = 252: fits */
    struct str fits = kube_affinity_name(str_c(host), STR("10-44-7-0-26"), &a);
    assert_int_equal(fits.n, 252);
    host[239] = 'h';
    host[240] = '\0'; /* 253: cut, with 11 digits of a hash */
    struct str cut = kube_affinity_name(str_c(host), STR("10-44-7-0-26"), &a);
    assert_int_equal(cut.n, 252);
    assert_true(str_starts(str_sub(cut, 227, cut.n), STR("-10-44-7-0-26-")));
}

static void t_wep_names__both_ways(void **state) {
    (void)state;
    struct str name = kube_wep_name(STR("node-1"), STR("web-7"), &a), node, pod;
    assert_true(str_is(name, "node--1-k8s-web--7-eth0"));
    assert_int_equal(kube_wep_parse(name, &a, &node, &pod), 0);
    assert_true(str_is(node, "node-1") && str_is(pod, "web-7"));
    static const char *const bad[] = {"",
                                      "n-k8s-p",
                                      "n-cni-p-eth0",
                                      "n-k8s-p-eth1",
                                      "-k8s-p-eth0",
                                      "n-k8s-p-eth0-x",
                                      "n-k8s--eth0",
                                      "n-k8s-p-"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(kube_wep_parse(str_c(bad[i]), &a, &node, &pod), ERR_INVALID);
    }
}

/* ---- places ---- */

static const struct {
    const char *key, *path; /* path NULL: no place */
} PLACES[] = {
    {"Pod/a/b", "/api/v1/namespaces/a/pods/b"},
    {"Namespace//a", "/api/v1/namespaces/a"},
    {"Node//n.x", "/api/v1/nodes/n.x"},
    {"EndpointSlice.discovery.k8s.io/a/b",
     "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/b"},
    {"NetworkPolicy.networking.k8s.io/a/b",
     "/apis/networking.k8s.io/v1/namespaces/a/networkpolicies/b"},
    {"NetworkPolicy.projectcalico.org/a/b",
     "/apis/crd.projectcalico.org/v1/namespaces/a/networkpolicies/b"},
    {"IPPool.projectcalico.org//p", "/apis/crd.projectcalico.org/v1/ippools/p"},
    {"IPAMConfiguration.projectcalico.org//default",
     "/apis/crd.projectcalico.org/v1/ipamconfigs/default"},
    {"Node.projectcalico.org//n1", "/api/v1/nodes/n1"},
    {"WorkloadEndpoint.projectcalico.org/a/n--1-k8s-p-eth0", "/api/v1/namespaces/a/pods/p"},
    {"Profile.projectcalico.org//kns.a", "/api/v1/namespaces/a"},
    {"Profile.projectcalico.org//ksa.a.b.c", "/api/v1/namespaces/a/serviceaccounts/b.c"},
    {"/ipam/v2/assignment/ipv4/block/10.44.7.0-26",
     "/apis/crd.projectcalico.org/v1/ipamblocks/10-44-7-0-26"},
    {"/ipam/v2/assignment/ipv6/block/fd00:1::-122",
     "/apis/crd.projectcalico.org/v1/ipamblocks/fd00-1---122"},
    {"/ipam/v2/host/n1/ipv4/block/10.44.7.0-26",
     "/apis/crd.projectcalico.org/v1/blockaffinities/n1-10-44-7-0-26"},
    {"/ipam/v2/virtual/load-balancer/ipv4/block/10.44.7.0-26",
     "/apis/crd.projectcalico.org/v1/blockaffinities/load-balancer-10-44-7-0-26"},
    {"/ipam/v2/handle/Net.ABC", "/apis/crd.projectcalico.org/v1/ipamhandles/net.abc"},
    {"/ipam/v2/config", "/apis/crd.projectcalico.org/v1/ipamconfigs/default"},
    {"Pod/a/../x", NULL},
    {"Pod//b", NULL},
    {"Pod/../b", NULL},
    {"Namespace//..", NULL},
    {"Nothing//a", NULL},
    {"Profile.projectcalico.org//mine", NULL},
    {"Profile.projectcalico.org//ksa.a", NULL},
    {"WorkloadEndpoint.projectcalico.org/a/n-cni-p-eth0", NULL},
    {"/ipam/v2/assignment/ipv6/block/10.44.7.0-26", NULL},
    {"/ipam/v2/assignment/ipv4/block/10.44.7.1-26", NULL},
    {"/ipam/v2/host/n1", NULL},
    {"/ipam/v2/handle/", NULL},
    {"/ipam/v2/handle/a/b", NULL},
    {"/ipam/v2/configs", NULL},
};

static void t_locate__key_to_path(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(PLACES); i++) {
        struct kube_at at;
        struct err e = {0};
        int r = kube_locate(key(PLACES[i].key), &a, &at, &e);
        if (!PLACES[i].path) {
            assert_true(r < 0 && e.msg[0]);
            continue;
        }
        if (r < 0) {
            fail_msg("%s: %s", PLACES[i].key, e.msg);
        }
        struct str path = kube_path(at.view->rest, false, at.ns, at.name, NULL, &a);
        assert_string_equal(arena_cstr(&a, path), PLACES[i].path);
    }
}

static void t_views__ordered_by_prefix(void **state) {
    (void)state;
    for (size_t i = 1; i < kube_n_views; i++) {
        if (strcmp(kube_views[i].space, kube_views[i - 1].space) == 0) {
            assert_true(strcmp(kube_views[i - 1].prefix, kube_views[i].prefix) <= 0);
        }
    }
    const struct kube_view *v[KUBE_VIEWS_MAX];
    struct str ns;
    assert_int_equal(kube_views_of(key("Pod/shop/"), v, &ns), 1);
    assert_true(str_is(ns, "shop"));
    assert_int_equal(kube_views_of(key("Pod/shop"), v, &ns), 1);
    assert_null(ns.p);
    assert_int_equal(kube_views_of(key("Profile.projectcalico.org/"), v, &ns), 2);
    assert_int_equal(kube_views_of(key("Nothing/"), v, &ns), 0);
}

/* ---- CRDs ---- */

static void t_crd__written_as_calico_writes(void **state) {
    (void)state;
    struct kube_at at;
    struct jnode *out = NULL;
    struct err e = {0};
    struct jnode *doc =
        parse("{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"NetworkPolicy\",\"metadata\":{"
              "\"name\":\"p\",\"namespace\":\"a\",\"uid\":\"30316465-6365-4463-ad63-3564622d3638\","
              "\"resourceVersion\":\"7\",\"creationTimestamp\":\"2026-01-02T03:04:05Z\","
              "\"labels\":{\"x\":\"y\",\"projectcalico.org/tier\":\"default\"},"
              "\"annotations\":{\"note\":\"n\",\"operator.tigera.io/o\":\"1\","
              "\"projectcalico.org/metadata\":\"{}\"},"
              "\"ownerReferences\":[{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"Tier\","
              "\"name\":\"t\",\"uid\":\"30316465-6365-4463-ad63-3564622d3638\"}]},"
              "\"spec\":{\"selector\":\"all()\"}}");
    assert_int_equal(kube_locate(key("NetworkPolicy.projectcalico.org/a/p"), &a, &at, &e), 0);
    assert_int_equal(kube_write(&at, key("NetworkPolicy.projectcalico.org/a/p"), doc, &a, &out, &e),
                     0);
    struct str note = jnode_str(
        jnode_getc(jnode_path(out, "metadata.annotations"), "projectcalico.org/metadata"));
    assert_json(parse(arena_cstr(&a, note)),
                "{\"name\":\"p\",\"creationTimestamp\":\"2026-01-02T03:04:05Z\",\"labels\":{\"x\":"
                "\"y\",\"projectcalico.org/tier\":\"default\"},\"annotations\":{\"note\":\"n\","
                "\"operator.tigera.io/o\":\"1\"},\"ownerReferences\":[{\"apiVersion\":"
                "\"crd.projectcalico.org/v1\",\"kind\":\"Tier\",\"name\":\"t\",\"uid\":"
                "\"0c8c26a6-c6a6-44c6-adc6-ac2646b46c1c\"}]}");
    assert_json(jnode_path(out, "metadata.labels"), "{\"projectcalico.org/tier\":\"default\"}");
    assert_null(jnode_path(out, "metadata.uid"));
    assert_null(jnode_path(out, "metadata.resourceVersion"));
    assert_true(str_is(jnode_str(jnode_getc(out, "apiVersion")), "crd.projectcalico.org/v1"));

    /* and back, with what the server adds */
    struct jnode *meta = jnode_getc(out, "metadata");
    jnode_set(&a, meta, STR("uid"), jnode_new_str(&a, STR("0c8c26a6-c6a6-44c6-adc6-ac2646b46c1c")));
    jnode_set(&a, meta, STR("resourceVersion"), jnode_new_str(&a, STR("9")));
    jnode_set(&a, meta, STR("creationTimestamp"), jnode_new_str(&a, STR("2027-01-01T00:00:00Z")));
    jnode_set(&a, meta, STR("managedFields"), jnode_new(&a, J_LIST));
    struct kube_item it = {0};
    assert_int_equal(
        kube_read(view("NetworkPolicy.projectcalico.org/", KUBE_CRD), out, &a, &it, &e), 0);
    assert_true(str_is(it.key, "NetworkPolicy.projectcalico.org/a/p"));
    jnode_set(&a, jnode_getc(doc, "metadata"), STR("resourceVersion"), jnode_new_str(&a, STR("9")));
    (void)jnode_del(jnode_path(doc, "metadata.annotations"), STR("projectcalico.org/metadata"));
    assert_json(it.value, text_of(doc));
}

static const struct {
    const char *prefix, *object, *key, *name;
} CRD_NAMES[] = {
    /* the stored name wins; without one an old default. goes, in the default tier */
    {"GlobalNetworkPolicy.projectcalico.org/",
     "{\"metadata\":{\"name\":\"default.x\",\"annotations\":{\"projectcalico.org/metadata\":"
     "\"{\\\"name\\\":\\\"y\\\"}\"}}}",
     "GlobalNetworkPolicy.projectcalico.org//y", "y"},
    {"GlobalNetworkPolicy.projectcalico.org/", "{\"metadata\":{\"name\":\"default.x\"}}",
     "GlobalNetworkPolicy.projectcalico.org//x", "x"},
    {"GlobalNetworkPolicy.projectcalico.org/",
     "{\"metadata\":{\"name\":\"default.x\"},\"spec\":{\"tier\":\"t\"}}",
     "GlobalNetworkPolicy.projectcalico.org//default.x", "default.x"},
    {"Tier.projectcalico.org/", "{\"metadata\":{\"name\":\"default.x\"}}",
     "Tier.projectcalico.org//default.x", "default.x"},
    {"IPAMConfiguration.projectcalico.org/",
     "{\"kind\":\"IPAMConfig\",\"metadata\":{\"name\":\"default\"},\"spec\":{}}",
     "IPAMConfiguration.projectcalico.org//default", "default"},
};

static void t_crd__names_of_policies(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(CRD_NAMES); i++) {
        struct kube_item it = {0};
        struct err e = {0};
        int r =
            kube_read(view(CRD_NAMES[i].prefix, KUBE_CRD), parse(CRD_NAMES[i].object), &a, &it, &e);
        assert_int_equal(r, 0);
        assert_string_equal(arena_cstr(&a, it.key), CRD_NAMES[i].key);
        assert_true(str_is(jnode_str(jnode_path(it.value, "metadata.name")), CRD_NAMES[i].name));
        assert_true(str_is(jnode_str(jnode_getc(it.value, "apiVersion")), "projectcalico.org/v3"));
    }
    struct kube_item it;
    struct err e = {0};
    struct jnode *bad = parse("{\"metadata\":{\"name\":\"x\",\"annotations\":{"
                              "\"projectcalico.org/metadata\":\"{\"}}}");
    assert_int_equal(kube_read(view("Tier.projectcalico.org/", KUBE_CRD), bad, &a, &it, &e),
                     ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "\"x\""));
}

static void t_crd__affinity_says_deleted_by_text(void **state) {
    (void)state;
    struct kube_item it = {0};
    struct err e = {0};
    const struct kube_view *v = view("BlockAffinity.projectcalico.org/", KUBE_CRD);
    struct jnode *o = parse("{\"metadata\":{\"name\":\"x\"},\"spec\":{\"deleted\":\"true\"}}");
    assert_int_equal(kube_read(v, o, &a, &it, &e), 0);
    assert_true(jnode_path(it.value, "spec.deleted")->type == J_BOOL);
    struct kube_at at = {v, STR(""), STR("x")};
    struct jnode *out = NULL;
    assert_int_equal(
        kube_write(&at, key("BlockAffinity.projectcalico.org//x"), it.value, &a, &out, &e), 0);
    assert_true(str_is(jnode_str(jnode_path(out, "spec.deleted")), "true"));
}

/* ---- Node ---- */

static void t_node__read_and_patched(void **state) {
    (void)state;
    struct kube_item it = {0};
    struct err e = {0};
    struct jnode *o = parse(
        "{\"metadata\":{\"name\":\"n1\",\"uid\":\"u\",\"resourceVersion\":\"5\",\"labels\":{"
        "\"rack\":\"a\"},\"annotations\":{\"projectcalico.org/IPv4Address\":\"192.0.2.11/24\","
        "\"projectcalico.org/IPv4IPIPTunnelAddr\":\"10.44.7.0\",\"projectcalico.org/ASNumber\":"
        "\"1.10\",\"projectcalico.org/IPv6Address\":\"rubbish\","
        "\"projectcalico.org/VXLANTunnelMACAddr\":\"66:aa:00:00:00:01\","
        "\"projectcalico.org/labels\":\"{\\\"own\\\":\\\"1\\\",\\\"rack\\\":\\\"z\\\"}\","
        "\"projectcalico.org/WireguardPublicKey\":\"k=\"}},"
        "\"spec\":{\"podCIDRs\":[\"10.1.0.0/24\"]},"
        "\"status\":{\"addresses\":[{\"type\":\"InternalIP\",\"address\":\"192.0.2.11\"},"
        "{\"type\":\"Hostname\",\"address\":\"n1\"}]}}");
    assert_int_equal(kube_read(view("Node.projectcalico.org/", KUBE_NODE), o, &a, &it, &e), 0);
    assert_true(str_is(it.key, "Node.projectcalico.org//n1"));
    assert_json(it.value,
                "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"Node\",\"metadata\":{"
                "\"name\":\"n1\",\"uid\":\"u\",\"resourceVersion\":\"5\",\"labels\":{\"own\":\"1\","
                "\"rack\":\"a\"},\"annotations\":{\"projectcalico.org/kube-labels\":"
                "\"{\\\"rack\\\":\\\"a\\\"}\"}},\"spec\":{\"bgp\":{\"ipv4Address\":"
                "\"192.0.2.11/24\",\"ipv4IPIPTunnelAddr\":\"10.44.7.0\",\"asNumber\":65546},"
                "\"vxlanTunnelMACAddr\":\"66:aa:00:00:00:01\",\"orchRefs\":[{\"nodeName\":\"n1\","
                "\"orchestrator\":\"k8s\"}],\"addresses\":[{\"address\":\"192.0.2.11/24\","
                "\"type\":\"CalicoNodeIP\"},{\"address\":\"192.0.2.11\",\"type\":\"InternalIP\"}]},"
                "\"status\":{\"wireguardPublicKey\":\"k=\",\"podCIDRs\":[\"10.1.0.0/24\"]}}");
    struct jnode *patch = NULL;
    assert_int_equal(kube_write_node(it.value, &a, &patch, &e), 0);
    struct jnode *ann = jnode_path(patch, "metadata.annotations");
    static const char *const WANT[][2] = {{KUBE_NODE_IPV4, "192.0.2.11/24"},
                                          {KUBE_NODE_IPIP, "10.44.7.0"},
                                          {KUBE_NODE_ASN, "65546"},
                                          {KUBE_NODE_WG_KEY, "k="},
                                          {"projectcalico.org/labels", "{\"own\":\"1\"}"}};
    for (size_t i = 0; i < ARRAY_LEN(WANT); i++) {
        assert_true(str_is(jnode_str(jnode_getc(ann, WANT[i][0])), WANT[i][1]));
    }
    assert_int_equal(jnode_getc(ann, KUBE_NODE_IPV6)->type, J_NULL);
    assert_int_equal(jnode_getc(ann, "projectcalico.org/annotations")->type, J_NULL);
}

/* ---- Pod ---- */

static const struct {
    const char *spec, *status, *meta; /* members of the pod */
    const char *nets;                 /* NULL: no endpoint */
} PODS[] = {
    {"\"nodeName\":\"n1\"", "\"podIPs\":[{\"ip\":\"10.0.0.1\"},{\"ip\":\"fd00::1\"}]", "",
     "[\"10.0.0.1/32\",\"fd00::1/128\"]"},
    {"\"nodeName\":\"n1\"", "\"podIP\":\"10.0.0.1\"",
     ",\"annotations\":{\"cni.projectcalico.org/podIP\":\"10.9.9.9/32\"}", "[\"10.0.0.1/32\"]"},
    {"\"nodeName\":\"n1\"", "",
     ",\"annotations\":{\"cni.projectcalico.org/podIP\":\"10.9.9.9/32\","
     "\"cni.projectcalico.org/podIPs\":\"10.0.0.2/32,fd00::2/128\"}",
     "[\"10.0.0.2/32\",\"fd00::2/128\"]"},
    {"\"nodeName\":\"n1\"", "", ",\"annotations\":{\"vpc.amazonaws.com/pod-ips\":\"10.0.0.3\"}",
     "[\"10.0.0.3/32\"]"},
    {"\"nodeName\":\"n1\"", "", "", NULL},
    {"\"nodeName\":\"n1\",\"hostNetwork\":true", "\"podIP\":\"10.0.0.1\"", "", NULL},
    {"\"x\":1", "\"podIP\":\"10.0.0.1\"", "", NULL},
    {"\"nodeName\":\"n1\"", "\"phase\":\"Succeeded\",\"podIP\":\"10.0.0.1\"", "", "[]"},
    {"\"nodeName\":\"n1\"", "\"phase\":\"Failed\",\"podIP\":\"10.0.0.1\"", "", "[]"},
    {"\"nodeName\":\"n1\"", "\"podIP\":\"10.0.0.1\"",
     ",\"deletionTimestamp\":\"2026-01-01T00:00:00Z\",\"annotations\":{"
     "\"cni.projectcalico.org/podIP\":\"\",\"cni.projectcalico.org/podIPs\":\"\"}",
     "[]"},
    {"\"nodeName\":\"n1\"", "\"podIP\":\"10.0.0.1\"",
     ",\"deletionTimestamp\":\"2026-01-01T00:00:00Z\"", "[\"10.0.0.1/32\"]"},
};

static void t_wep__addresses_of_pods(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(PODS); i++) {
        struct str text = arena_printf(
            &a,
            "{\"metadata\":{\"name\":\"p\",\"namespace\":\"a\"%s},\"spec\":{%s},\"status\":{%s}}",
            PODS[i].meta, PODS[i].spec, PODS[i].status);
        struct kube_item it = {0};
        struct err e = {0};
        const struct kube_view *v = view("WorkloadEndpoint.projectcalico.org/", KUBE_POD_WEP);
        assert_int_equal(kube_read(v, parse(text.p), &a, &it, &e), 0);
        if (!PODS[i].nets) {
            assert_null(it.value);
        } else {
            assert_json(jnode_path(it.value, "spec.ipNetworks"), PODS[i].nets);
        }
    }
}

static void t_wep__whole(void **state) {
    (void)state;
    struct kube_item it = {0};
    struct err e = {0};
    struct jnode *o = parse(
        "{\"metadata\":{\"name\":\"web-7\",\"namespace\":\"shop\",\"uid\":\"u\","
        "\"resourceVersion\":"
        "\"8\",\"labels\":{\"app\":\"web\"},\"annotations\":{\"cni.projectcalico.org/containerID\":"
        "\"4f0c\",\"cni.projectcalico.org/allowedSourcePrefixes\":\"[\\\"10.1.2.3/"
        "8\\\",\\\"x\\\"]\""
        "}},\"spec\":{\"nodeName\":\"n1\",\"serviceAccountName\":\"default\",\"containers\":[{"
        "\"ports\":[{\"name\":\"http\",\"containerPort\":8080},{\"containerPort\":9},"
        "{\"containerPort\":53,\"hostPort\":5353,\"protocol\":\"UDP\"}]}],\"initContainers\":[{"
        "\"ports\":[{\"name\":\"i\",\"containerPort\":1,\"protocol\":\"SCTP\"}]}]},"
        "\"status\":{\"podIP\":\"10.44.7.9\"}}");
    const struct kube_view *v = view("WorkloadEndpoint.projectcalico.org/", KUBE_POD_WEP);
    kube_slim(v->rest, o, &a); /* slimming keeps what this needs */
    assert_int_equal(kube_read(v, o, &a, &it, &e), 0);
    assert_true(str_is(it.key, "WorkloadEndpoint.projectcalico.org/shop/n1-k8s-web--7-eth0"));
    assert_json(
        it.value,
        "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"WorkloadEndpoint\",\"metadata\":{"
        "\"name\":\"n1-k8s-web--7-eth0\",\"namespace\":\"shop\",\"uid\":\"u\",\"resourceVersion\":"
        "\"8\",\"labels\":{\"app\":\"web\",\"projectcalico.org/namespace\":\"shop\","
        "\"projectcalico.org/orchestrator\":\"k8s\",\"projectcalico.org/serviceaccount\":"
        "\"default\"}},\"spec\":{\"orchestrator\":\"k8s\",\"node\":\"n1\",\"containerID\":\"4f0c\","
        "\"pod\":\"web-7\",\"endpoint\":\"eth0\",\"serviceAccountName\":\"default\","
        "\"ipNetworks\":[\"10.44.7.9/32\"],\"profiles\":[\"kns.shop\",\"ksa.shop.default\"],"
        "\"interfaceName\":\"cali4e38cc7c749\",\"ports\":[{\"name\":\"http\",\"protocol\":\"TCP\","
        "\"port\":8080,\"hostPort\":0,\"hostIP\":\"\"},{\"name\":\"\",\"protocol\":\"UDP\","
        "\"port\":53,\"hostPort\":5353,\"hostIP\":\"\"},{\"name\":\"i\",\"protocol\":\"SCTP\","
        "\"port\":1,\"hostPort\":0,\"hostIP\":\"\"}],"
        "\"allowSpoofedSourcePrefixes\":[\"10.0.0.0/8\"]}}");
    assert_json(kube_write_wep(it.value, &a),
                "{\"metadata\":{\"annotations\":{\"cni.projectcalico.org/podIP\":\"10.44.7.9/32\","
                "\"cni.projectcalico.org/podIPs\":\"10.44.7.9/32\","
                "\"cni.projectcalico.org/containerID\":\"4f0c\"}}}");
    assert_json(kube_write_wep(NULL, &a),
                "{\"metadata\":{\"annotations\":{\"cni.projectcalico.org/podIP\":\"\","
                "\"cni.projectcalico.org/podIPs\":\"\"}}}");
}

static void t_profiles__of_namespaces_and_accounts(void **state) {
    (void)state;
    struct kube_item it = {0};
    struct err e = {0};
    struct jnode *o = parse("{\"metadata\":{\"name\":\"shop\",\"labels\":{\"a\":\"b\"}}}");
    assert_int_equal(kube_read(view("Profile.projectcalico.org/", KUBE_NS_PROFILE), o, &a, &it, &e),
                     0);
    assert_json(
        it.value,
        "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"Profile\",\"metadata\":{"
        "\"name\":\"kns.shop\"},\"spec\":{\"ingress\":[{\"action\":\"Allow\"}],\"egress\":[{"
        "\"action\":\"Allow\"}],\"labelsToApply\":{\"pcns.a\":\"b\","
        "\"pcns.projectcalico.org/name\":\"shop\"}}}");
    o = parse("{\"metadata\":{\"name\":\"s\",\"namespace\":\"n\",\"labels\":{\"a\":\"b\"}}}");
    assert_int_equal(kube_read(view("Profile.projectcalico.org/", KUBE_SA_PROFILE), o, &a, &it, &e),
                     0);
    assert_json(jnode_getc(it.value, "spec"),
                "{\"labelsToApply\":{\"pcsa.a\":\"b\",\"pcsa.projectcalico.org/name\":\"s\"}}");
    assert_true(str_is(it.key, "Profile.projectcalico.org//ksa.n.s"));
}

/* ---- IPAM ---- */

static const struct {
    const char *key, *value, *spec; /* spec: of the object */
} IPAM[] = {
    {"/ipam/v2/assignment/ipv4/block/10.44.7.0-30",
     "{\"cidr\":\"10.44.7.0/30\",\"affinity\":\"host:n1\",\"affinity_claim_time\":"
     "\"2026-01-01T00:00:00Z\",\"allocations\":[0,null,null,null],\"unallocated\":[1,2,3],"
     "\"attributes\":[{\"handle_id\":\"h\",\"secondary\":{\"pod\":\"p\"},\"releasedAt\":"
     "\"2026-01-01T00:00:00Z\"}],\"sequenceNumber\":7,\"sequenceNumberForAllocation\":{\"0\":3},"
     "\"deleted\":false}",
     "{\"cidr\":\"10.44.7.0/30\",\"affinity\":\"host:n1\",\"affinityClaimTime\":"
     "\"2026-01-01T00:00:00Z\",\"allocations\":[0,null,null,null],\"unallocated\":[1,2,3],"
     "\"attributes\":[{\"handle_id\":\"h\",\"secondary\":{\"pod\":\"p\"},\"releasedAt\":"
     "\"2026-01-01T00:00:00Z\"}],\"sequenceNumber\":7,\"sequenceNumberForAllocation\":{\"0\":3},"
     "\"strictAffinity\":false,\"deleted\":false}"},
    {"/ipam/v2/host/n1/ipv6/block/fd00::-122", "{\"state\":\"pending\",\"deleted\":false}",
     "{\"state\":\"pending\",\"node\":\"n1\",\"type\":\"host\",\"cidr\":\"fd00::/122\","
     "\"deleted\":\"false\"}"},
    {"/ipam/v2/virtual/load-balancer/ipv4/block/10.0.0.0-26",
     "{\"state\":\"confirmed\",\"deleted\":false}",
     "{\"state\":\"confirmed\",\"node\":\"load-balancer\",\"type\":\"virtual\",\"cidr\":"
     "\"10.0.0.0/26\",\"deleted\":\"false\"}"},
    {"/ipam/v2/handle/Net.X", "{\"block\":{\"10.44.7.0/26\":2},\"deleted\":false}",
     "{\"handleID\":\"Net.X\",\"block\":{\"10.44.7.0/26\":2},\"deleted\":false}"},
    {"/ipam/v2/config",
     "{\"strict_affinity\":true,\"auto_allocate_blocks\":true,"
     "\"maxBlocksPerHost\":3}",
     "{\"strictAffinity\":true,\"autoAllocateBlocks\":true,\"maxBlocksPerHost\":3}"},
};

static void t_ipam__both_ways(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(IPAM); i++) {
        struct kube_at at;
        struct jnode *o = NULL;
        struct kube_item it = {0};
        struct err e = {0};
        assert_int_equal(kube_locate(key(IPAM[i].key), &a, &at, &e), 0);
        assert_int_equal(kube_write(&at, key(IPAM[i].key), parse(IPAM[i].value), &a, &o, &e), 0);
        assert_json(jnode_getc(o, "spec"), IPAM[i].spec);
        assert_int_equal(kube_read(at.view, jnode_copy(&a, o), &a, &it, &e), 0);
        assert_string_equal(arena_cstr(&a, it.key), IPAM[i].key);
        assert_json(it.value, IPAM[i].value);
        /* soft-deleted is absent */
        struct jnode *spec = jnode_getc(o, "spec");
        struct jnode *old = jnode_getc(spec, "deleted");
        if (old) {
            jnode_set(&a, spec, STR("deleted"),
                      old->type == J_STR ? jnode_new_str(&a, STR("true"))
                                         : jnode_new_bool(&a, true));
            it = (struct kube_item){0};
            assert_int_equal(kube_read(at.view, o, &a, &it, &e), 0);
            assert_true(!it.value && it.is_deleting);
        }
    }
    struct kube_item it = {0};
    struct err e = {0};
    struct jnode *bad =
        parse("{\"metadata\":{\"name\":\"x\"},\"spec\":{\"cidr\":\"10.0.0.1/26\"}}");
    assert_int_equal(kube_read(view("/ipam/v2/assignment/", KUBE_IPAM_BLOCK), bad, &a, &it, &e),
                     ERR_CORRUPT);
}

static void t_slice__v1beta1_as_v1(void **state) {
    (void)state;
    struct kube_item it = {0};
    struct err e = {0};
    struct jnode *o = parse("{\"metadata\":{\"name\":\"s\",\"namespace\":\"n\"},\"endpoints\":[{"
                            "\"addresses\":[\"10.0.0.1\"],\"topology\":{\"kubernetes.io/hostname\":"
                            "\"n1\",\"topology.kubernetes.io/zone\":\"z\"}}]}");
    const struct kube_view *v = view("EndpointSlice.discovery.k8s.io/", KUBE_PLAIN);
    assert_int_equal(kube_read(v, o, &a, &it, &e), 0);
    assert_json(jnode_getc(it.value, "endpoints"),
                "[{\"addresses\":[\"10.0.0.1\"],\"nodeName\":\"n1\",\"zone\":\"z\"}]");
    assert_true(str_is(jnode_str(jnode_getc(it.value, "apiVersion")), "discovery.k8s.io/v1"));
    kube_to_old(v->rest, it.value, &a);
    assert_true(str_is(jnode_str(jnode_getc(it.value, "apiVersion")), "discovery.k8s.io/v1beta1"));
    assert_non_null(jnode_getc(jnode_getc(it.value, "endpoints")->child, "topology"));
}

static void t_slim__keeps_what_is_used(void **state) {
    (void)state;
    struct jnode *o = parse(
        "{\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\",\"managedFields\":[1],"
        "\"ownerReferences\":[{}],\"annotations\":{\"cni.projectcalico.org/podIP\":\"\","
        "\"kubectl.kubernetes.io/last-applied-configuration\":\"x\"}},\"spec\":{\"nodeName\":\"n\","
        "\"volumes\":[],\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]},\"status\":{\"phase\":"
        "\"Running\",\"conditions\":[]}}");
    kube_slim(view("Pod/", KUBE_PLAIN)->rest, o, &a);
    assert_json(o, "{\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\",\"annotations\":{"
                   "\"cni.projectcalico.org/podIP\":\"\"}},\"spec\":{\"nodeName\":\"n\"},"
                   "\"status\":{\"phase\":\"Running\"}}");
}

int main(void) {
#define T(f) cmocka_unit_test_setup(f, reset)
    const struct CMUnitTest tests[] = {
        T(t_uid__bits_of_bytes_reversed),
        T(t_names__of_ipam_objects),
        T(t_wep_names__both_ways),
        T(t_locate__key_to_path),
        T(t_views__ordered_by_prefix),
        T(t_crd__written_as_calico_writes),
        T(t_crd__names_of_policies),
        T(t_crd__affinity_says_deleted_by_text),
        T(t_node__read_and_patched),
        T(t_wep__addresses_of_pods),
        T(t_wep__whole),
        T(t_profiles__of_namespaces_and_accounts),
        T(t_ipam__both_ways),
        T(t_slice__v1beta1_as_v1),
        T(t_slim__keeps_what_is_used),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    arena_fini(&a);
    return r;
}
