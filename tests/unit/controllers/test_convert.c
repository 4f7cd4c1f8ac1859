/* What Kubernetes' objects become: pinned to Calico's conversion, libcalico-go/lib/backend/k8s/
 * conversion/conversion_test.go and kube-controllers/pkg/converter. */
#include "controllers/convert.h"
#include "controllers/mirror.h"
#include "store_lab.h"

/* ---- policies ---- */

struct policy_case {
    const char *what, *spec, *want; /* ~ stands for ' inside of texts */
    const char *problem;            /* what it says, NULL: nothing */
};

static const struct policy_case policies[] = {
    {"deny all", "{'podSelector':{}}",
     "{'tier':'default','order':1000,'selector':'projectcalico.org/orchestrator == ~k8s~',"
     "'types':['Ingress']}",
     NULL},
    {"labels in order of their names, expressions in the order of writing",
     "{'podSelector':{'matchLabels':{'b':'2','a':'1'},'matchExpressions':["
     "{'key':'z','operator':'In','values':['x','y']},{'key':'k','operator':'NotIn','values':['v']},"
     "{'key':'e','operator':'Exists'},{'key':'d','operator':'DoesNotExist'}]},"
     "'policyTypes':['Ingress','Egress']}",
     "{'tier':'default','order':1000,'selector':'projectcalico.org/orchestrator == ~k8s~ && a == "
     "~1~ && b == ~2~ && z in { ~x~, ~y~ } && k not in { ~v~ } && has(e) && ! has(d)',"
     "'types':['Ingress','Egress']}",
     NULL},
    {"one rule for each protocol, by its name, and for each peer",
     "{'podSelector':{},'ingress':[{'ports':[{'port':80},{'port':'dns','protocol':'UDP'}],"
     "'from':[{'podSelector':{'matchLabels':{'a':'b'}}},{'namespaceSelector':{}}]}]}",
     "{'tier':'default','order':1000,'ingress':["
     "{'action':'Allow','protocol':'TCP','source':{'selector':'projectcalico.org/orchestrator == "
     "~k8s~ && a == ~b~'},'destination':{'ports':[80]}},"
     "{'action':'Allow','protocol':'TCP','source':{'selector':'projectcalico.org/orchestrator == "
     "~k8s~','namespaceSelector':'all()'},'destination':{'ports':[80]}},"
     "{'action':'Allow','protocol':'UDP','source':{'selector':'projectcalico.org/orchestrator == "
     "~k8s~ && a == ~b~'},'destination':{'ports':['dns']}},"
     "{'action':'Allow','protocol':'UDP','source':{'selector':'projectcalico.org/orchestrator == "
     "~k8s~','namespaceSelector':'all()'},'destination':{'ports':['dns']}}],"
     "'selector':'projectcalico.org/orchestrator == ~k8s~','types':['Ingress']}",
     NULL},
    {"egress: the peer is the destination, ports stand before notNets",
     "{'podSelector':{},'policyTypes':['Egress'],'egress':[{'ports':[{'port':1,'endPort':9}],"
     "'to':[{'ipBlock':{'cidr':'10.1.2.3/8','except':['10.2.0.1/16','fd00::/8']}}]}]}",
     "{'tier':'default','order':1000,'egress':[{'action':'Allow','protocol':'TCP','source':{},"
     "'destination':{'nets':['10.0.0.0/8'],'ports':['1:9'],'notNets':['10.2.0.0/16']}}],"
     "'selector':'projectcalico.org/orchestrator == ~k8s~','types':['Egress']}",
     NULL},
    {"ports: names first, numbers joined where they touch or overlap",
     "{'podSelector':{},'ingress':[{'ports':[{'port':82},{'port':80},{'port':'web'},{'port':81},"
     "{'port':90,'endPort':95},{'port':93,'endPort':99},{'port':65535}]}]}",
     "{'tier':'default','order':1000,'ingress':[{'action':'Allow','protocol':'TCP','source':{},"
     "'destination':{'ports':['web','80:82','90:99',65535]}}],"
     "'selector':'projectcalico.org/orchestrator == ~k8s~','types':['Ingress']}",
     NULL},
    {"one number beside names stays where it was",
     "{'podSelector':{},'ingress':[{'ports':[{'port':80},{'port':'web'}]}]}",
     "{'tier':'default','order':1000,'ingress':[{'action':'Allow','protocol':'TCP','source':{},"
     "'destination':{'ports':[80,'web']}}],"
     "'selector':'projectcalico.org/orchestrator == ~k8s~','types':['Ingress']}",
     NULL},
    {"a protocol without a port is all of the protocol, whatever else is said of it",
     "{'podSelector':{},'ingress':[{'ports':[{'port':1,'protocol':'SCTP'},{'protocol':'SCTP'}]}]}",
     "{'tier':'default','order':1000,'ingress':[{'action':'Allow','protocol':'SCTP','source':{},"
     "'destination':{}}],'selector':'projectcalico.org/orchestrator == ~k8s~','types':['Ingress']}",
     NULL},
    {"no peers, no ports: everything", "{'podSelector':{},'ingress':[{}]}",
     "{'tier':'default','order':1000,'ingress':[{'action':'Allow','source':{},'destination':{}}],"
     "'selector':'projectcalico.org/orchestrator == ~k8s~','types':['Ingress']}",
     NULL},
    {"namespace and pod selector are one peer",
     "{'podSelector':{},'ingress':[{'from':[{'namespaceSelector':{'matchLabels':{'n':'1'}},"
     "'podSelector':{'matchLabels':{'p':'2'}}}]}]}",
     "{'tier':'default','order':1000,'ingress':[{'action':'Allow','source':{'selector':"
     "'projectcalico.org/orchestrator == ~k8s~ && p == ~2~','namespaceSelector':'n == ~1~'},"
     "'destination':{}}],'selector':'projectcalico.org/orchestrator == ~k8s~','types':['Ingress']}",
     NULL},
    {"a range that can't be read allows nothing (in Calico: everything)",
     "{'podSelector':{},'ingress':[{'from':[{'ipBlock':{'cidr':'10.0.0.0/99'}}]}]}",
     "{'tier':'default','order':1000,'selector':'projectcalico.org/orchestrator == ~k8s~',"
     "'types':['Ingress']}",
     "spec.ingress[0]"},
    {"a value with a quote can't be written: the rule goes",
     "{'podSelector':{},'ingress':[{'from':[{'podSelector':{'matchLabels':{'a':'x\\u0027 || "
     "all()'}}}]}]}",
     "{'tier':'default','order':1000,'selector':'projectcalico.org/orchestrator == ~k8s~',"
     "'types':['Ingress']}",
     "spec.ingress[0]"},
    {"an egress list without the type Egress is written and not in force",
     "{'podSelector':{},'policyTypes':['Ingress'],'egress':[{}]}",
     "{'tier':'default','order':1000,'egress':[{'action':'Allow','source':{},'destination':{}}],"
     "'selector':'projectcalico.org/orchestrator == ~k8s~','types':['Ingress']}",
     NULL},
};

static void t_policy__table__as_calico(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(policies); i++) {
        struct arena a = {0};
        struct err problem = {.code = 0};
        char text[4096];
        snprintf(text, sizeof(text),
                 "{'apiVersion':'networking.k8s.io/v1','kind':'NetworkPolicy','metadata':{'name':"
                 "'p','namespace':'n'},'spec':%s}",
                 policies[i].spec);
        struct jnode *spec = convert_policy(lab_json(&a, text), &a, &problem);
        struct buf b = BUF_INIT(1 << 16), w = BUF_INIT(1 << 16);
        json_write(&b, spec, 0);
        json_write(&w, lab_json(&a, policies[i].want), 0);
        for (size_t k = 0; k < w.n; k++) {
            w.p[k] = w.p[k] == '~' ? '\'' : w.p[k];
        }
        if (!str_eq(buf_view(&b), buf_view(&w))) {
            fail_msg("%s:\n  is   %s\n  want %s", policies[i].what, buf_cstr(&b), buf_cstr(&w));
        }
        if (!policies[i].problem != !problem.code ||
            (problem.code && !str_contains(str_c(problem.msg), str_c(policies[i].problem)))) {
            fail_msg("%s: problem \"%s\"", policies[i].what, problem.code ? problem.msg : "");
        }
        buf_fini(&b);
        buf_fini(&w);
        arena_fini(&a);
    }
}

static void t_policy__pod_selector_broken__not_converted(void **state) {
    (void)state;
    struct arena a = {0};
    struct err problem = {.code = 0};
    struct jnode *doc =
        lab_json(&a, "{'apiVersion':'networking.k8s.io/v1','kind':'NetworkPolicy','metadata':"
                     "{'name':'p','namespace':'n'},'spec':{'podSelector':{'matchExpressions':["
                     "{'key':'a','operator':'Like'}]},'ingress':[{}]}}");
    assert_null(convert_policy(doc, &a, &problem));
    assert_int_not_equal(problem.code, 0);
    arena_fini(&a);
}

/* ---- profiles ---- */

static void t_namespace__labels__prefixed_and_sorted(void **state) {
    (void)state;
    struct arena a = {0};
    lab_assert_json(convert_namespace(
                        lab_json(&a, "{'metadata':{'name':'shop','labels':{'z':'1','a':''}}}"), &a),
                    "{'ingress':[{'action':'Allow','source':{},'destination':{}}],"
                    "'egress':[{'action':'Allow','source':{},'destination':{}}],'labelsToApply':{"
                    "'pcns.a':'','pcns.projectcalico.org/name':'shop','pcns.z':'1'}}");
    lab_assert_json(convert_account(lab_json(&a, "{'metadata':{'name':'bot','namespace':'shop',"
                                                 "'labels':{'team':'x'}}}"),
                                    &a),
                    "{'labelsToApply':{'pcsa.projectcalico.org/name':'bot','pcsa.team':'x'}}");
    arena_fini(&a);
}

static void t_names__there_and_back(void **state) {
    (void)state;
    static const struct {
        enum mirror_id id;
        const char *ns, *name, *target;
    } cases[] = {{MIRROR_POLICY, "shop", "web", "knp.default.web"},
                 {MIRROR_NAMESPACE, "", "shop", "kns.shop"},
                 {MIRROR_ACCOUNT, "shop", "a.b-c", "ksa.shop.a.b-c"}};
    struct arena a = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str name = mirror_name(cases[i].id, str_c(cases[i].ns), str_c(cases[i].name), &a);
        assert_true(str_is(name, cases[i].target));
        struct str ns = str_c(cases[i].id == MIRROR_POLICY ? cases[i].ns : "");
        assert_true(mirror_source(cases[i].id, &ns, &name));
        assert_true(str_is(ns, cases[i].ns) && str_is(name, cases[i].name));
    }
    static const char *const foreign[] = {
        "kns.", "ksa.shop", "ksa..x", "projectcalico-default-allow", "knp.other.x", "default.web"};
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
        for (int id = 0; id < MIRROR_N; id++) {
            struct str ns = STR("n"), name = str_c(foreign[i]);
            assert_false(mirror_source((enum mirror_id)id, &ns, &name));
        }
    }
    arena_fini(&a);
}

/* ---- endpoints ---- */

static void t_endpoint__labels_and_account__of_the_pod(void **state) {
    (void)state;
    struct arena a = {0};
    struct jnode *wep = lab_json(&a, "{'metadata':{'name':'w','labels':{'old':'1'}},'spec':{'pod':"
                                     "'web','serviceAccountName':'x','node':'n1'}}");
    struct jnode *pod = lab_json(&a, "{'metadata':{'name':'web','namespace':'shop','labels':{'app':"
                                     "'web'}},'spec':{'serviceAccountName':'bot'}}");
    assert_true(convert_endpoint(wep, pod, &a));
    lab_assert_json(jnode_path(wep, "metadata.labels"),
                    "{'app':'web','projectcalico.org/namespace':'shop',"
                    "'projectcalico.org/orchestrator':'k8s',"
                    "'projectcalico.org/serviceaccount':'bot'}");
    lab_assert_json(jnode_getc(wep, "spec"),
                    "{'pod':'web','serviceAccountName':'bot','node':'n1'}");
    assert_false(convert_endpoint(wep, pod, &a));
    assert_true(str_is(convert_endpoint_prefix(STR("n-1"), STR("web-7"), &a), "n--1-k8s-web--7-"));
    arena_fini(&a);
}

/* ---- nodes ---- */

static void t_node_labels__first_time_then_removed__own_labels_stay(void **state) {
    (void)state;
    struct arena a = {0};
    struct jnode *node = lab_json(&a, "{'metadata':{'name':'n1','labels':{'mine':'1'}}}");
    assert_true(convert_node_labels(
        node, lab_json(&a, "{'metadata':{'labels':{'zone':'z','arch':'x'}}}"), &a));
    lab_assert_json(jnode_path(node, "metadata.labels"), "{'arch':'x','mine':'1','zone':'z'}");
    assert_true(str_is(jnode_str(jnode_getc(jnode_path(node, "metadata.annotations"),
                                            "projectcalico.org/kube-labels")),
                       "{\"arch\":\"x\",\"zone\":\"z\"}"));
    assert_true(
        convert_node_labels(node, lab_json(&a, "{'metadata':{'labels':{'zone':'y'}}}"), &a));
    lab_assert_json(jnode_path(node, "metadata.labels"), "{'mine':'1','zone':'y'}");
    assert_false(
        convert_node_labels(node, lab_json(&a, "{'metadata':{'labels':{'zone':'y'}}}"), &a));
    arena_fini(&a);
}

/* ---- host endpoints ---- */

static const char hep_node[] =
    "{'metadata':{'name':'n1','labels':{'role':'db'}},'spec':{'bgp':{'ipv4Address':'192.0.2.1/24',"
    "'ipv4IPIPTunnelAddr':'10.1.0.1'},'ipv4VXLANTunnelAddr':'10.1.0.2','wireguard':{"
    "'interfaceIPv4Address':'10.1.0.3'},'addresses':[{'address':'192.0.2.1','type':'InternalIP'},"
    "{'address':'192.0.2.9','type':'InternalIP'},{'address':'203.0.113.1','type':'ExternalIP'},"
    "{'address':'nonsense','type':'InternalIP'}],'interfaces':[{'name':'eth0','addresses':["
    "'192.0.2.1']},{'name':'eth1','addresses':['198.51.100.1','2001:db8::1']}]}}";

static void t_hep__default__all_addresses_once(void **state) {
    (void)state;
    struct arena a = {0};
    hep_list l = convert_heps(lab_json(&a, hep_node), lab_json(&a, "{'autoCreate':'Enabled'}"), &a);
    assert_int_equal(l.n, 1);
    assert_true(str_is(l.p[0].name, "n1-auto-hep"));
    lab_assert_json(l.p[0].labels,
                    "{'role':'db','projectcalico.org/created-by':'calico-kube-controllers'}");
    lab_assert_json(l.p[0].spec,
                    "{'node':'n1','interfaceName':'*','expectedIPs':['192.0.2.1','10.1.0.1',"
                    "'10.1.0.2','10.1.0.3','192.0.2.9','198.51.100.1','2001:db8::1'],"
                    "'profiles':['projectcalico-default-allow']}");
    l = convert_heps(lab_json(&a, hep_node), lab_json(&a, "{'autoCreate':'Disabled'}"), &a);
    assert_int_equal(l.n, 0);
    arena_fini(&a);
}

static void t_hep__templates__by_prefix_and_by_interface(void **state) {
    (void)state;
    struct arena a = {0};
    hep_list l = convert_heps(
        lab_json(&a, hep_node),
        lab_json(&a, "{'autoCreate':'Enabled','createDefaultHostEndpoint':'Disabled','templates':["
                     "{'generateName':'lan','interfaceCIDRs':['192.0.2.0/24'],'labels':{'l':'1'},"
                     "'nodeSelector':'role == \\u0027db\\u0027'},"
                     "{'generateName':'no','interfaceCIDRs':['192.0.2.0/24'],'nodeSelector':"
                     "'role == \\u0027web\\u0027'},"
                     "{'generateName':'none','interfaceCIDRs':['10.99.0.0/16']},"
                     "{'generateName':'each','interfacePattern':'^eth'}]}"),
        &a);
    assert_int_equal(l.n, 3);
    assert_true(str_is(l.p[0].name, "n1-lan-auto-hep"));
    lab_assert_json(l.p[0].spec, "{'node':'n1','expectedIPs':['192.0.2.1','192.0.2.9'],"
                                 "'profiles':['projectcalico-default-allow']}");
    lab_assert_json(l.p[0].labels, "{'role':'db','projectcalico.org/created-by':"
                                   "'calico-kube-controllers','l':'1'}");
    assert_true(str_is(l.p[1].name, "n1-each-eth0-auto-hep"));
    assert_true(str_is(l.p[2].name, "n1-each-eth1-auto-hep"));
    lab_assert_json(l.p[2].spec,
                    "{'node':'n1','interfaceName':'eth1','expectedIPs':['198.51.100.1',"
                    "'2001:db8::1'],'profiles':['projectcalico-default-allow']}");
    arena_fini(&a);
}

static void t_hep__long_name__hashed(void **state) {
    (void)state;
    struct arena a = {0};
    char node[254];
    memset(node, 'n', 253);
    node[253] = '\0';
    struct str name = convert_hep_name(str_c(node), &a);
    assert_true(name.n < 64 && str_ends(name, STR("-auto-hep")));
    arena_fini(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_policy__table__as_calico),
        cmocka_unit_test(t_policy__pod_selector_broken__not_converted),
        cmocka_unit_test(t_namespace__labels__prefixed_and_sorted),
        cmocka_unit_test(t_names__there_and_back),
        cmocka_unit_test(t_endpoint__labels_and_account__of_the_pod),
        cmocka_unit_test(t_node_labels__first_time_then_removed__own_labels_stay),
        cmocka_unit_test(t_hep__default__all_addresses_once),
        cmocka_unit_test(t_hep__templates__by_prefix_and_by_interface),
        cmocka_unit_test(t_hep__long_name__hashed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
