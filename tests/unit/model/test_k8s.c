/* Kubernetes' kinds: what the API server refuses of a NetworkPolicy, what is decoded of the others,
 * the admins' policies. */
#include "cases.h"
#include "model/k8s.h"

#define KNP                                                                                       \
    "{'apiVersion':'networking.k8s.io/v1','kind':'NetworkPolicy','metadata':{'name':'p'},'spec':" \
    "{'podSelector':{},"

static const struct doc_case POLICIES[] = {
    {"'ingress':[{}]", NULL, NULL},
    {"'policyTypes':['Ingress','Egress']", NULL, NULL},
    {"'policyTypes':['ingress']", "spec.policyTypes[0]", "Ingress or Egress"},
    {"'policyTypes':['Ingress','Egress','Ingress']", "spec.policyTypes", "0 to 2"},
    {"'later':1", NULL, NULL}, /* unknown fields are Kubernetes' own matter */
    /* ports */
    {"'ingress':[{'ports':[{'port':80},{'port':'http','protocol':'UDP'},{}]}]", NULL, NULL},
    {"'ingress':[{'ports':[{'port':0}]}]", "spec.ingress[0].ports[0].port", "1 to 65535"},
    {"'ingress':[{'ports':[{'port':65536}]}]", "spec.ingress[0].ports[0].port", "1 to 65535"},
    {"'ingress':[{'ports':[{'port':'Web'}]}]", "spec.ingress[0].ports[0].port", "a port name"},
    {"'ingress':[{'ports':[{'port':'a--b'}]}]", "spec.ingress[0].ports[0].port", "a port name"},
    {"'ingress':[{'ports':[{'port':'80'}]}]", "spec.ingress[0].ports[0].port", "with a letter"},
    {"'ingress':[{'ports':[{'port':true}]}]", "spec.ingress[0].ports[0].port",
     "a whole number or a text"},
    {"'ingress':[{'ports':[{'port':80,'protocol':'ICMP'}]}]", "spec.ingress[0].ports[0].protocol",
     "TCP, UDP or SCTP"},
    {"'ingress':[{'ports':[{'port':80,'protocol':'tcp'}]}]", "spec.ingress[0].ports[0].protocol",
     "TCP, UDP or SCTP"},
    {"'ingress':[{'ports':[{'port':80,'endPort':80}]}]", NULL, NULL},
    {"'ingress':[{'ports':[{'port':80,'endPort':79}]}]", "spec.ingress[0].ports[0].endPort",
     "port (80) to 65535"},
    {"'ingress':[{'ports':[{'port':80,'endPort':65536}]}]", "spec.ingress[0].ports[0].endPort",
     "1 to 65535"},
    {"'ingress':[{'ports':[{'endPort':80}]}]", "spec.ingress[0].ports[0].endPort", "needs port"},
    {"'ingress':[{'ports':[{'port':'a','endPort':80}]}]", "spec.ingress[0].ports[0].endPort",
     "as a number"},
    /* peers */
    {"'egress':[{'to':[{'podSelector':{},'namespaceSelector':{'matchLabels':{'a':'b'}}}]}]", NULL,
     NULL},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'10.0.0.0/8','except':['10.1.0.0/16']}}]}]", NULL, NULL},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'10.1.2.3/8'}}]}]", NULL, NULL},
    {"'egress':[{'to':[{}]}]", "spec.egress[0].to[0]", "at least one"},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'10.0.0.0/8'},'podSelector':{}}]}]",
     "spec.egress[0].to[0].ipBlock", "goes with no selector"},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'10.0.0.0/8'},'namespaceSelector':{}}]}]",
     "spec.egress[0].to[0].ipBlock", "goes with no selector"},
    {"'egress':[{'to':[{'ipBlock':{}}]}]", "spec.egress[0].to[0].ipBlock.cidr", "is missing"},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'10.0.0.1'}}]}]", "spec.egress[0].to[0].ipBlock.cidr",
     "a prefix such as"},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'10.0.0.0/33'}}]}]", "spec.egress[0].to[0].ipBlock.cidr",
     "a prefix such as"},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'10.0.0.0/8','except':['11.0.0.0/16']}}]}]",
     "spec.egress[0].to[0].ipBlock.except[0]", "inside 10.0.0.0/8"},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'10.0.0.0/8','except':['10.0.0.0/8']}}]}]",
     "spec.egress[0].to[0].ipBlock.except[0]", "smaller prefix"},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'10.0.0.0/8','except':['10.2.0.0/16','x']}}]}]",
     "spec.egress[0].to[0].ipBlock.except[1]", "inside 10.0.0.0/8"},
    {"'egress':[{'to':[{'ipBlock':{'cidr':'fd00::/8','except':['10.0.0.0/16']}}]}]",
     "spec.egress[0].to[0].ipBlock.except[0]", "inside fd00::/8"},
    /* label selectors */
    {"'ingress':[{'from':[{'podSelector':{'matchExpressions':[{'key':'a','operator':'In',"
     "'values':['b','']},{'key':'x/y','operator':'Exists'}]}}]}]",
     NULL, NULL},
    {"'ingress':[{'from':[{'podSelector':{'matchExpressions':[{'key':'a','operator':'in',"
     "'values':['b']}]}}]}]",
     "spec.ingress[0].from[0].podSelector.matchExpressions[0].operator",
     "In, NotIn, Exists or DoesNotExist"},
    {"'ingress':[{'from':[{'podSelector':{'matchExpressions':[{'key':'a','operator':'In'}]}}]}]",
     "spec.ingress[0].from[0].podSelector.matchExpressions[0].values", "at least one"},
    {"'ingress':[{'from':[{'podSelector':{'matchExpressions':[{'key':'a','operator':'NotIn',"
     "'values':[]}]}}]}]",
     "spec.ingress[0].from[0].podSelector.matchExpressions[0].values", "at least one"},
    {"'ingress':[{'from':[{'podSelector':{'matchExpressions':[{'key':'a','operator':'Exists',"
     "'values':['b']}]}}]}]",
     "spec.ingress[0].from[0].podSelector.matchExpressions[0].values", "takes none"},
    {"'ingress':[{'from':[{'podSelector':{'matchExpressions':[{'key':'a','operator':"
     "'DoesNotExist','values':['b']}]}}]}]",
     "spec.ingress[0].from[0].podSelector.matchExpressions[0].values", "takes none"},
    {"'ingress':[{'from':[{'podSelector':{'matchExpressions':[{'operator':'Exists'}]}}]}]",
     "spec.ingress[0].from[0].podSelector.matchExpressions[0].key", "is missing"},
    {"'ingress':[{'from':[{'podSelector':{'matchExpressions':[{'key':'-a','operator':'Exists'}]}}]"
     "}]",
     "spec.ingress[0].from[0].podSelector.matchExpressions[0].key", "a label's name"},
    {"'ingress':[{'from':[{'podSelector':{'matchExpressions':[{'key':'a','operator':'In',"
     "'values':['b c']}]}}]}]",
     "spec.ingress[0].from[0].podSelector.matchExpressions[0].values[0]", "a label's value"},
    {"'ingress':[{'from':[{'podSelector':{'matchLabels':{'a b':'c'}}}]}]",
     "spec.ingress[0].from[0].podSelector.matchLabels[\"a b\"]", "a label's name"},
    {"'ingress':[{'from':[{'podSelector':{'matchLabels':{'a':1}}}]}]",
     "spec.ingress[0].from[0].podSelector.matchLabels.a", "put it in quotes"},
};

static void t_policy_rules(void **state) {
    (void)state;
    run_cases(POLICIES, ARRAY_LEN(POLICIES), KNP, "}}");
}

static void t_policy__apply__types_and_protocol(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    const struct {
        const char *rules, *types;
    } cases[] = {{"'ingress':[{}]", "['Ingress']"},
                 {"'egress':[{}]", "['Ingress','Egress']"},
                 {"'egress':[]", "['Ingress']"},
                 {"'policyTypes':['Egress']", "['Egress']"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str text = arena_printf(&a, KNP "%s}}", cases[i].rules);
        struct object o = doc_read(&a, MODEL_APPLY, text.p);
        struct jnode *want = doc_parse(&a, cases[i].types);
        assert_true(jnode_eq(jnode_path(o.doc, "spec.policyTypes"), want));
        assert_int_equal(((const struct k8s_network_policy *)o.spec)->policy_types.n, want->n);
    }
    struct object o = doc_read(&a, MODEL_APPLY, KNP "'ingress':[{'ports':[{'port':80}]}]}}");
    const struct k8s_network_policy *p = o.spec;
    assert_true(str_is(p->ingress.p[0].ports.p[0].protocol, "TCP"));
}

static void t_policy__decoded(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct object o = doc_read(
        &a, MODEL_STORE,
        "{'apiVersion':'networking.k8s.io/v1','kind':'NetworkPolicy','metadata':{'name':'p'},"
        "'spec':{'podSelector':{'matchLabels':{'b':'2','a':'1'}},"
        "'ingress':[{'from':[{'podSelector':{}},{'ipBlock':{'cidr':'1.2.3.4/8','except':['x']}}],"
        "'ports':[{'port':'web'},{'port':1,'endPort':2,'protocol':'SCTP'}]}],"
        "'egress':[]}}");
    const struct k8s_network_policy *p = o.spec;
    assert_true(p->pod_selector.set);
    assert_true(str_is(p->pod_selector.match_labels.p[0].key, "a")); /* sorted */
    assert_true(p->egress.set);
    assert_int_equal(p->egress.n, 0);
    assert_false(p->policy_types.set);
    const struct k8s_rule *r = p->ingress.p;
    assert_int_equal(r->peers.n, 2);
    assert_true(r->peers.p[0].pod_selector.set && !r->peers.p[0].namespace_selector.set &&
                !r->peers.p[0].ip_block.set);
    assert_true(str_is(r->peers.p[1].ip_block.cidr, "1.2.3.4/8"));
    assert_true(!r->ports.p[0].port.is_int && str_is(r->ports.p[0].port.s, "web"));
    assert_null(r->ports.p[0].protocol.p);
    assert_true(r->ports.p[1].port.is_int && r->ports.p[1].end_port.v == 2);
}

static void t_pod__decoded(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    const char *POD = "{'apiVersion':'v1','kind':'Pod','metadata':{'name':'p','labels':{'x':'y'},"
                      "'annotations':{'cni.projectcalico.org/podIPs':'10.0.0.9/32, fd00::9/128',"
                      "'cni.projectcalico.org/podIP':'10.0.0.8/32'}},"
                      "'spec':{'nodeName':'n','serviceAccountName':'s','containers':[{'ports':["
                      "{'name':'web','containerPort':80,'hostPort':8080,'hostIP':'1.1.1.1'},"
                      "{'containerPort':53,'protocol':'UDP'}]}],'initContainers':[{'ports':["
                      "{'containerPort':1}]},{'restartPolicy':'Always','ports':["
                      "{'containerPort':2}]}]},'status':{'phase':'Running'%s}}";
    const struct {
        const char *status;
        size_t n;
        const char *first;
    } cases[] = {
        {",'podIPs':[{'ip':'10.0.0.1'},{'ip':'fd00::1'}],'podIP':'10.0.0.2'", 2, "10.0.0.1"},
        {",'podIP':'10.0.0.2'", 1, "10.0.0.2"},
        {"", 2, "10.0.0.9"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str rest = str_c(POD), head = str_cut(&rest, '%');
        struct str text = arena_printf(&a, "%.*s%s%.*s", STR_FMT(head), cases[i].status,
                                       STR_FMT(str_sub(rest, 1, rest.n)));
        struct object o = doc_read(&a, MODEL_STORE, text.p);
        const struct k8s_pod *p = o.spec;
        char ip[IP_TEXT_MAX];
        assert_int_equal(p->ips.n, cases[i].n);
        assert_string_equal(ip_text(&p->ips.p[0], ip), cases[i].first);
        assert_true(str_is(p->node_name, "n") && str_is(p->service_account_name, "s"));
        assert_true(str_is(p->phase, "Running") && !p->host_network);
        assert_int_equal(p->ports.n, 3); /* an init container that ends has none */
        assert_true(str_is(p->ports.p[0].name, "web") && p->ports.p[0].host_port == 8080);
        assert_true(p->ports.p[0].protocol == 6 && p->ports.p[1].protocol == 17);
        assert_int_equal(p->ports.p[2].container_port, 2);
    }
}

static void t_service_slice_node__decoded(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct object o = doc_read(
        &a, MODEL_STORE,
        "{'apiVersion':'v1','kind':'Service','metadata':{'name':'s'},'spec':{'type':'NodePort',"
        "'clusterIP':'10.96.0.1','clusterIPs':['10.96.0.1'],'externalIPs':['1.1.1.1'],"
        "'selector':{'a':'b'},'ports':[{'port':80,'targetPort':'web','nodePort':30080},"
        "{'port':53,'protocol':'UDP','targetPort':5353}]},"
        "'status':{'loadBalancer':{'ingress':[{'ip':'2.2.2.2'},{'hostname':'x'}]}}}");
    const struct k8s_service *s = o.spec;
    assert_true(str_is(s->type, "NodePort") && str_is(s->cluster_ip, "10.96.0.1"));
    assert_int_equal(s->ports.n, 2);
    assert_true(s->ports.p[0].protocol == 6 && s->ports.p[1].protocol == 17);
    assert_true(str_is(s->ports.p[0].target_port.s, "web") && s->ports.p[0].node_port.v == 30080);
    assert_true(s->ports.p[1].target_port.is_int && s->ports.p[1].target_port.i == 5353);
    assert_int_equal(s->load_balancer_ips.n, 1);
    o = doc_read(&a, MODEL_STORE,
                 "{'apiVersion':'discovery.k8s.io/v1','kind':'EndpointSlice','metadata':{'name':"
                 "'s'},'addressType':'IPv4','endpoints':[{'addresses':['10.0.0.1'],'conditions':"
                 "{'ready':false},'nodeName':'n'},{'addresses':['10.0.0.2']}],"
                 "'ports':[{'name':'web','port':80,'protocol':'TCP'}]}");
    const struct k8s_endpoint_slice *e = o.spec;
    assert_int_equal(e->endpoints.n, 2);
    assert_true(e->endpoints.p[0].ready.set && !e->endpoints.p[0].ready.v);
    assert_false(e->endpoints.p[1].ready.set);
    assert_true(e->ports.p[0].port.v == 80 && e->ports.p[0].protocol == 6);
    o = doc_read(&a, MODEL_STORE,
                 "{'apiVersion':'discovery.k8s.io/v1','kind':'EndpointSlice','metadata':{'name':"
                 "'s'},'addressType':'FQDN','endpoints':[{'addresses':['example.org']}]}");
    assert_int_equal(((const struct k8s_endpoint_slice *)o.spec)->endpoints.n, 0);
    o = doc_read(&a, MODEL_STORE,
                 "{'apiVersion':'v1','kind':'Node','metadata':{'name':'n'},'spec':{'podCIDR':"
                 "'10.1.0.0/24'},'status':{'addresses':[{'type':'Hostname','address':'n'},"
                 "{'type':'InternalIP','address':'192.168.0.1'}]}}");
    const struct k8s_node *n = o.spec;
    assert_int_equal(n->pod_cidrs.n, 1);
    assert_int_equal(n->internal_ips.n, 1);
}

/* ---- the admins' policies ---- */

#define CNP                                                                            \
    "{'apiVersion':'policy.networking.k8s.io/v1alpha2','kind':'ClusterNetworkPolicy'," \
    "'metadata':{'name':'p'},'spec':{"
#define CNP_RULE CNP "'tier':'Admin','priority':1,'subject':{'namespaces':{}},"
#define ANP                                                                          \
    "{'apiVersion':'policy.networking.k8s.io/v1alpha1','kind':'AdminNetworkPolicy'," \
    "'metadata':{'name':'p'},'spec':{"

static const struct doc_case CNPS[] = {
    {"'tier':'Admin','priority':0,'subject':{'namespaces':{}}", NULL, NULL},
    {"'tier':'Baseline','priority':1000,'subject':{'pods':{'namespaceSelector':{},"
     "'podSelector':{}}}",
     NULL, NULL},
    {"'tier':'admin','priority':0,'subject':{'namespaces':{}}", "spec.tier", "Admin or Baseline"},
    {"'priority':0,'subject':{'namespaces':{}}", "spec.tier", "is missing"},
    {"'tier':'Admin','subject':{'namespaces':{}}", "spec.priority", "is missing"},
    {"'tier':'Admin','priority':1001,'subject':{'namespaces':{}}", "spec.priority", "0 to 1000"},
    {"'tier':'Admin','priority':1", "spec.subject", "is missing"},
    {"'tier':'Admin','priority':1,'subject':{}", "spec.subject", "exactly one"},
    {"'tier':'Admin','priority':1,'subject':{'namespaces':{},'pods':{'namespaceSelector':{},"
     "'podSelector':{}}}",
     "spec.subject", "found 2 members"},
    {"'tier':'Admin','priority':1,'subject':{'pods':{'podSelector':{}}}",
     "spec.subject.pods.namespaceSelector", "is missing"},
};

static const struct doc_case CNP_RULES[] = {
    {"'ingress':[{'action':'Accept','from':[{'namespaces':{}}],'protocols':[{'tcp':"
     "{'destinationPort':{'number':80}}},{'udp':{'destinationPort':{'range':{'start':1,'end':2}}}}"
     ",{'sctp':{}},{'destinationNamedPort':'web'}]}]",
     NULL, NULL},
    {"'egress':[{'action':'Deny','to':[{'networks':['10.0.0.0/8','fd00::/8']}]}]", NULL, NULL},
    {"'ingress':[{'action':'Allow','from':[{'namespaces':{}}]}]", "spec.ingress[0].action",
     "Accept, Deny or Pass"},
    {"'ingress':[{'action':'Accept'}]", "spec.ingress[0].from", "is missing"},
    {"'ingress':[{'action':'Accept','from':[]}]", "spec.ingress[0].from", "1 to 25"},
    {"'ingress':[{'action':'Accept','from':[{}]}]", "spec.ingress[0].from[0]", "exactly one"},
    {"'egress':[{'action':'Deny','to':[{'networks':['10.0.0']}]}]",
     "spec.egress[0].to[0].networks[0]", "a prefix"},
    {"'egress':[{'action':'Deny','to':[{'networks':[]}]}]", "spec.egress[0].to[0].networks",
     "1 to 25"},
    {"'ingress':[{'action':'Deny','from':[{'namespaces':{}}],'protocols':[{'tcp':{},'udp':{}}]}]",
     "spec.ingress[0].protocols[0]", "exactly one"},
    {"'ingress':[{'action':'Deny','from':[{'namespaces':{}}],'protocols':[{'tcp':"
     "{'destinationPort':{'number':0}}}]}]",
     "spec.ingress[0].protocols[0].tcp.destinationPort.number", "1 to 65535"},
    {"'ingress':[{'action':'Deny','from':[{'namespaces':{}}],'protocols':[{'tcp':"
     "{'destinationPort':{'range':{'start':2,'end':1}}}}]}]",
     "spec.ingress[0].protocols[0].tcp.destinationPort.range.end", "start (2)"},
    {"'ingress':[{'action':'Deny','from':[{'namespaces':{'matchExpressions':[{'key':'a',"
     "'operator':'In'}]}}]}]",
     "spec.ingress[0].from[0].namespaces.matchExpressions[0].values", "at least one"},
};

static const struct doc_case ANPS[] = {
    {"'priority':5,'subject':{'namespaces':{}},'ingress':[{'name':'x','action':'Allow','from':["
     "{'namespaces':{}}],'ports':[{'portNumber':{'protocol':'TCP','port':80}},{'portRange':"
     "{'start':1,'end':2}},{'namedPort':'web'}]}]",
     NULL, NULL},
    {"'priority':5,'subject':{'namespaces':{}},'egress':[{'action':'Pass','to':[{'nodes':{}}]}]",
     NULL, NULL},
    {"'subject':{'namespaces':{}}", "spec.priority", "is missing"},
    {"'priority':5,'subject':{'namespaces':{}},'ingress':[{'action':'Accept','from':["
     "{'namespaces':{}}]}]",
     "spec.ingress[0].action", "Allow, Deny or Pass"},
    {"'priority':5,'subject':{'namespaces':{}},'ingress':[{'action':'Allow','from':["
     "{'namespaces':{}}],'ports':[{'portNumber':{'port':80}}]}]",
     "spec.ingress[0].ports[0].portNumber.protocol", "is missing"},
    {"'priority':5,'subject':{'namespaces':{}},'ingress':[{'action':'Allow','from':["
     "{'namespaces':{}}],'ports':[{'portRange':{'start':3,'end':2}}]}]",
     "spec.ingress[0].ports[0].portRange.end", "start (3)"},
};

static const struct doc_case BANPS[] = {
    {"'default'},'spec':{'subject':{'namespaces':{}}", NULL, NULL},
    {"'other'},'spec':{'subject':{'namespaces':{}}", "metadata.name", "only one"},
    {"'default'},'spec':{'subject':{'namespaces':{}},'ingress':[{'action':'Pass','from':["
     "{'namespaces':{}}]}]",
     "spec.ingress[0].action", "Allow or Deny"},
};

static void t_admin_policies(void **state) {
    (void)state;
    run_cases(CNPS, ARRAY_LEN(CNPS), CNP, "}}");
    run_cases(CNP_RULES, ARRAY_LEN(CNP_RULES), CNP_RULE, "}}");
    run_cases(ANPS, ARRAY_LEN(ANPS), ANP, "}}");
    run_cases(BANPS, ARRAY_LEN(BANPS),
              "{'apiVersion':'policy.networking.k8s.io/v1alpha1','kind':"
              "'BaselineAdminNetworkPolicy','metadata':{'name':",
              "}}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_policy_rules),
        cmocka_unit_test(t_policy__apply__types_and_protocol),
        cmocka_unit_test(t_policy__decoded),
        cmocka_unit_test(t_pod__decoded),
        cmocka_unit_test(t_service_slice_node__decoded),
        cmocka_unit_test(t_admin_policies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
