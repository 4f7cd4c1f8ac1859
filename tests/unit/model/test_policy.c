/* Policies, profiles, tiers, sets and endpoints: each rule both ways, what is decoded, what is
 * filled in, and that no error makes a rule wider. */
#include "cases.h"
#include "model/policy.h"

#define V3(kind) "{'apiVersion':'projectcalico.org/v3','kind':'" kind "','metadata':{'name':'p'},"
#define NP V3("NetworkPolicy") "'spec':"
#define GNP V3("GlobalNetworkPolicy") "'spec':"

/* ---- one rule ---- */

static const struct doc_case RULES[] = {
    {"'action':'Allow'", NULL, NULL},
    {"'action':'Pass'", NULL, NULL},
    {"'action':'allow'", "spec.ingress[0].action", "Allow, Deny, Log or Pass"},
    {"'action':''", "spec.ingress[0].action", "Allow, Deny, Log or Pass"},
    {"'action':null", "spec.ingress[0].action", "is missing"},
    {"'ipVersion':4", "spec.ingress[0].action", "is missing"},
    {"'action':'Allow','ipVersion':4", NULL, NULL},
    {"'action':'Allow','ipVersion':6", NULL, NULL},
    {"'action':'Allow','ipVersion':5", "spec.ingress[0].ipVersion", "4 or 6"},
    {"'action':'Allow','ipVersion':'4'", "spec.ingress[0].ipVersion", "without quotes"},
    /* protocol */
    {"'action':'Allow','protocol':'tcp'", NULL, NULL},
    {"'action':'Allow','protocol':'UDPLite'", NULL, NULL},
    {"'action':'Allow','protocol':255", NULL, NULL},
    {"'action':'Allow','protocol':0", "spec.ingress[0].protocol", "1 to 255"},
    {"'action':'Allow','protocol':256", "spec.ingress[0].protocol", "1 to 255"},
    {"'action':'Allow','protocol':'GRE'", "spec.ingress[0].protocol", "found \"GRE\""},
    {"'action':'Allow','notProtocol':0", "spec.ingress[0].notProtocol", "1 to 255"},
    /* ports */
    {"'action':'Allow','protocol':'TCP','destination':{'ports':[80,'81','90:100','http']}", NULL,
     NULL},
    {"'action':'Allow','protocol':132,'source':{'ports':[1,65535]}", NULL, NULL},
    {"'action':'Allow','destination':{'ports':['http']}", NULL, NULL},
    {"'action':'Allow','destination':{'ports':[80]}", "spec.ingress[0].destination.ports",
     "need a protocol"},
    {"'action':'Allow','destination':{'ports':['1:2']}", "spec.ingress[0].destination.ports",
     "need a protocol"},
    {"'action':'Allow','source':{'notPorts':[80]}", "spec.ingress[0].source.notPorts",
     "need a protocol"},
    {"'action':'Allow','protocol':'ICMP','destination':{'ports':['http']}",
     "spec.ingress[0].destination.ports", "has no ports"},
    {"'action':'Allow','protocol':'UDPLite','destination':{'notPorts':[1]}",
     "spec.ingress[0].destination.notPorts", "has no ports"},
    {"'action':'Allow','protocol':'TCP','destination':{'ports':[0]}",
     "spec.ingress[0].destination.ports[0]", "1 to 65535"},
    {"'action':'Allow','protocol':'TCP','destination':{'ports':[1,65536]}",
     "spec.ingress[0].destination.ports[1]", "1 to 65535"},
    {"'action':'Allow','protocol':'TCP','destination':{'ports':['0']}",
     "spec.ingress[0].destination.ports[0]", "1 to 65535"},
    {"'action':'Allow','protocol':'TCP','destination':{'ports':['9:8']}",
     "spec.ingress[0].destination.ports[0]", "swap them"},
    {"'action':'Allow','protocol':'TCP','destination':{'ports':['9:']}",
     "spec.ingress[0].destination.ports[0]", "found \"9:\""},
    {"'action':'Allow','protocol':'TCP','destination':{'ports':['a b']}",
     "spec.ingress[0].destination.ports[0]", "A-Z a-z 0-9 _ . -"},
    {"'action':'Allow','protocol':'TCP','destination':{'ports':['']}",
     "spec.ingress[0].destination.ports[0]", "allowed is"},
    {"'action':'Allow','protocol':'TCP','destination':{'ports':80}",
     "spec.ingress[0].destination.ports", "a list of ports"},
    /* ICMP */
    {"'action':'Allow','protocol':'ICMP','icmp':{'type':8,'code':0}", NULL, NULL},
    {"'action':'Allow','protocol':58,'icmp':{'type':254,'code':255}", NULL, NULL},
    {"'action':'Allow','notICMP':{'type':8}", NULL, NULL},
    {"'action':'Allow','icmp':{'type':8}", "spec.ingress[0].icmp", "ICMP or ICMPv6"},
    {"'action':'Allow','protocol':'TCP','icmp':{'type':8}", "spec.ingress[0].icmp",
     "ICMP or ICMPv6"},
    {"'action':'Allow','protocol':'ICMP','icmp':{'code':8}", "spec.ingress[0].icmp.code",
     "needs type"},
    {"'action':'Allow','protocol':'ICMP','icmp':{'type':255}", "spec.ingress[0].icmp.type",
     "0 to 254"},
    {"'action':'Allow','protocol':'ICMP','icmp':{'type':0,'code':256}", "spec.ingress[0].icmp.code",
     "0 to 255"},
    {"'action':'Allow','protocol':'ICMP','ipVersion':6", "spec.ingress[0].protocol", "ICMPv6"},
    {"'action':'Allow','protocol':'ICMPv6','ipVersion':4", "spec.ingress[0].protocol", "ICMP"},
    {"'action':'Allow','notProtocol':1,'ipVersion':6", "spec.ingress[0].notProtocol", "ICMPv6"},
    {"'action':'Allow','notProtocol':58,'ipVersion':4", "spec.ingress[0].notProtocol", "ICMP"},
    {"'action':'Allow','protocol':'ICMPv6','ipVersion':6", NULL, NULL},
    /* nets */
    {"'action':'Allow','source':{'nets':['10.0.0.0/8','192.168.0.0/16']},"
     "'destination':{'notNets':['10.1.0.0/16']}",
     NULL, NULL},
    {"'action':'Allow','ipVersion':6,'source':{'nets':['fd00::/8']}", NULL, NULL},
    {"'action':'Allow','source':{'nets':['10.0.0.1']}", "spec.ingress[0].source.nets[0]",
     "write 10.0.0.1/32"},
    {"'action':'Allow','source':{'nets':['10.0.0.1/8']}", "spec.ingress[0].source.nets[0]",
     "write 10.0.0.0/8"},
    {"'action':'Allow','source':{'nets':['10.0.0.0/8','10.0.0.0/8']}",
     "spec.ingress[0].source.nets", "stands there twice"},
    {"'action':'Allow','source':{'nets':['10.0.0.0/8','fd00::/8']}",
     "spec.ingress[0].source.nets[1]", "make two rules"},
    {"'action':'Allow','source':{'nets':['10.0.0.0/8']},'destination':{'notNets':['fd00::/8']}",
     "spec.ingress[0].destination.notNets[0]", "make two rules"},
    {"'action':'Allow','ipVersion':6,'source':{'nets':['10.0.0.0/8']}",
     "spec.ingress[0].source.nets[0]", "ipVersion"},
    {"'action':'Allow','source':{'nets':['0.0.0.0/0']}", NULL, NULL},
    {"'action':'Allow','source':{'notNets':['0.0.0.0/0']}", "spec.ingress[0].source.notNets[0]",
     "leave nothing"},
    {"'action':'Allow','source':{'notNets':['::/0']}", "spec.ingress[0].source.notNets[0]",
     "leave nothing"},
    /* HTTP */
    {"'action':'Allow','http':{'methods':['GET'],'paths':[{'exact':'/a'},{'prefix':'/b'}]}", NULL,
     NULL},
    {"'action':'Allow','protocol':6,'http':{'methods':['GET']}", NULL, NULL},
    {"'action':'Deny','http':{'methods':['GET']}", "spec.ingress[0].http", "action Allow"},
    {"'action':'Allow','protocol':'UDP','http':{'methods':['GET']}", "spec.ingress[0].http",
     "protocol TCP"},
    {"'action':'Allow','http':{'methods':['']}", "spec.ingress[0].http.methods", "empty method"},
    {"'action':'Allow','http':{'methods':['GET','GET']}", "spec.ingress[0].http.methods", "twice"},
    {"'action':'Allow','http':{'paths':[{}]}", "spec.ingress[0].http.paths[0]", "neither"},
    {"'action':'Allow','http':{'paths':[{'exact':'/a','prefix':'/b'}]}",
     "spec.ingress[0].http.paths[0]", "both"},
    {"'action':'Allow','http':{'paths':[{'exact':'a'}]}", "spec.ingress[0].http.paths[0].exact",
     "starts with /"},
    {"'action':'Allow','http':{'paths':[{'prefix':'/a?b'}]}",
     "spec.ingress[0].http.paths[0].prefix", "no ?, # or blank"},
    {"'action':'Allow','http':{'paths':[{'prefix':'/a#b'}]}",
     "spec.ingress[0].http.paths[0].prefix", "no ?, # or blank"},
    {"'action':'Allow','http':{'paths':[{'prefix':'/a b'}]}",
     "spec.ingress[0].http.paths[0].prefix", "no ?, # or blank"},
    /* selectors */
    {"'action':'Allow','source':{'selector':'has(a)','namespaceSelector':'has(b)'}", NULL, NULL},
    {"'action':'Allow','source':{'namespaceSelector':'global()'}", NULL, NULL},
    {"'action':'Allow','source':{'namespaceSelector':' global() '}", NULL, NULL},
    {"'action':'Allow','source':{'namespaceSelector':'global() && has(a)'}",
     "spec.ingress[0].source.namespaceSelector", "by itself"},
    {"'action':'Allow','source':{'selector':'global()'}", "spec.ingress[0].source.selector",
     "global()"},
    {"'action':'Allow','source':{'notSelector':'bad'}", NULL, NULL},
    {"'action':'Allow','source':{'selector':'bad'}", "spec.ingress[0].source.selector",
     "a selector: bad one"},
    {"'action':'Allow','source':{'serviceAccounts':{'selector':'bad'}}",
     "spec.ingress[0].source.serviceAccounts.selector", "bad one"},
    {"'action':'Allow','source':{'serviceAccounts':{'names':['a','B']}}",
     "spec.ingress[0].source.serviceAccounts.names[1]", "lower-case"},
    /* services */
    {"'action':'Allow','source':{'services':{'name':'s'}}", NULL, NULL},
    {"'action':'Allow','source':{'services':{'name':'s','namespace':'n'},'ports':['a']}", NULL,
     NULL},
    {"'action':'Allow','source':{'services':{'namespace':'n'}}",
     "spec.ingress[0].source.services.name", "is missing"},
    {"'action':'Allow','destination':{'services':{'name':'s'}}",
     "spec.ingress[0].destination.services", "source of an ingress rule"},
    {"'action':'Allow','source':{'services':{'name':'s'},'selector':'has(a)'}",
     "spec.ingress[0].source.services", "selector"},
    {"'action':'Allow','source':{'services':{'name':'s'},'notSelector':'has(a)'}",
     "spec.ingress[0].source.services", "notSelector"},
    {"'action':'Allow','source':{'services':{'name':'s'},'namespaceSelector':'has(a)'}",
     "spec.ingress[0].source.services", "namespaceSelector"},
    {"'action':'Allow','source':{'services':{'name':'s'},'nets':['10.0.0.0/8']}",
     "spec.ingress[0].source.services", "nets"},
    {"'action':'Allow','source':{'services':{'name':'s'},'notNets':['10.0.0.0/8']}",
     "spec.ingress[0].source.services", "notNets"},
    {"'action':'Allow','source':{'services':{'name':'s'},'serviceAccounts':{'names':['a']}}",
     "spec.ingress[0].source.services", "serviceAccounts"},
    /* the rest */
    {"'action':'Allow','metadata':{'annotations':{'a/b':'c'}}", NULL, NULL},
    {"'action':'Allow','metadata':{'annotations':{'a b':'c'}}",
     "spec.ingress[0].metadata.annotations[\"a b\"]", "annotation's name"},
    {"'action':'Allow','protocl':'TCP'", "spec.ingress[0].protocl", "did you mean protocol?"},
    {"'action':'Allow','source':{'net':['10.0.0.0/8']}", "spec.ingress[0].source.net",
     "did you mean nets?"},
    {"'action':'Allow','source':[]", "spec.ingress[0].source", "allowed is a map"},
};

static int fake_check(struct str text, struct err *e) {
    return str_contains(text, STR("bad")) ? err_set(e, ERR_INVALID, "bad one") : 0;
}

static void t_rules(void **state) {
    (void)state;
    model_set_selector_check(fake_check);
    run_cases(RULES, ARRAY_LEN(RULES), NP "{'ingress':[{", "}]}}");
    model_set_selector_check(NULL);
}

static const struct doc_case EGRESS[] = {
    {"'action':'Allow','destination':{'services':{'name':'s'}}", NULL, NULL},
    {"'action':'Allow','destination':{'services':{'name':'s'},'ports':['a']}",
     "spec.egress[0].destination.services", "its own ports"},
    {"'action':'Allow','destination':{'services':{'name':'s'},'notPorts':['a']}",
     "spec.egress[0].destination.services", "its own ports"},
    {"'action':'Allow','source':{'services':{'name':'s'}}", "spec.egress[0].source.services",
     "destination of an egress rule"},
    {"'action':'Allow','http':{'methods':['GET']}", "spec.egress[0].http", "ingress rules only"},
};

static void t_egress_rules(void **state) {
    (void)state;
    run_cases(EGRESS, ARRAY_LEN(EGRESS), NP "{'egress':[{", "}]}}");
}

/* n times text, commas between. */
static const char *times(struct arena *a, const char *text, size_t n) {
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(1 << 22);
    for (size_t i = 0; i < n; i++) {
        buf_printf(&b, "%s%s", i ? "," : "", text);
    }
    return arena_cstr(a, buf_view(&b));
}

static const char *numbers(struct arena *a, const char *fmt, size_t n) {
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(1 << 22);
    for (size_t i = 0; i < n; i++) {
        struct str part = str_c(fmt), head = str_cut(&part, '#');
        buf_printf(&b, "%s%.*s%zu%.*s", i ? "," : "", STR_FMT(head), i + 1, STR_FMT(part));
    }
    return arena_cstr(a, buf_view(&b));
}

static void t_limits(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    const struct {
        const char *fmt, *fill; /* fill n and n + 1 times */
        size_t n;
        const char *path, *message;
    } limits[] = {
        {"'ingress':[%s]", "{'action':'Allow'}", 1024, "spec.ingress", "0 to 1024"},
        {"'egress':[%s]", "{'action':'Allow'}", 1024, "spec.egress", "0 to 1024"},
        {"'ingress':[{'action':'Allow','source':{'ports':[%s]}}]", "'a'", 50,
         "spec.ingress[0].source.ports", "0 to 50"},
        {"'ingress':[{'action':'Allow','http':{'paths':[%s]}}]", "{'exact':'/'}", 20,
         "spec.ingress[0].http.paths", "0 to 20"},
        {"'ingress':[{'action':'Allow','source':{'nets':[%s]}}]", "'10.0.#.0/32'", 256,
         "spec.ingress[0].source.nets", "0 to 256"},
        {"'ingress':[{'action':'Allow','http':{'methods':[%s]}}]", "'M#'", 20,
         "spec.ingress[0].http.methods", "0 to 20"},
    };
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct doc_case cases[2] = {{NULL, NULL, NULL}, {NULL, limits[i].path, limits[i].message}};
        for (size_t k = 0; k < 2; k++) {
            bool has_number = strchr(limits[i].fill, '#') != NULL;
            /* 10.0.256.0 is no address: the list's length is judged first. */
            size_t n = limits[i].n + k - (has_number && k == 0 && limits[i].n == 256);
            const char *items =
                has_number ? numbers(&a, limits[i].fill, n) : times(&a, limits[i].fill, n);
            struct str rest = str_c(limits[i].fmt);
            struct str head = str_cut(&rest, '%');
            cases[k].json = arena_printf(&a, "%.*s%s%.*s", STR_FMT(head), items,
                                         STR_FMT(str_sub(rest, 1, rest.n)))
                                .p;
        }
        run_cases(cases, 2, NP "{", "}}");
    }
    /* Selectors: 1024 bytes. */
    for (size_t k = 0; k < 2; k++) {
        struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(8192);
        buf_puts(&b, "'selector':'has(");
        for (size_t i = 0; i < 1024 - 5 + k; i++) {
            buf_putc(&b, 'a');
        }
        buf_puts(&b, ")'");
        struct doc_case one = {buf_cstr(&b), k ? "spec.selector" : NULL, "at most 1024"};
        run_cases(&one, 1, NP "{", "}}");
    }
}

static void t_rule_annotations__size(void **state) {
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        struct jnode *doc = doc_parse(&a, NP "{'ingress':[{'action':'Allow','metadata':"
                                             "{'annotations':{}}}]}}");
        size_t n = 256 * 1024 - 1 + extra; /* and one byte of key */
        char *value = arena_alloc(&a, n);
        memset(value, 'v', n);
        struct jnode *rule = jnode_path(doc, "spec.ingress")->child;
        jnode_set(&a, jnode_path(rule, "metadata.annotations"), STR("k"),
                  jnode_new_str(&a, str_n(value, n)));
        struct object o;
        struct model_errors errs = {.a = &a};
        int rc = object_read(doc, MODEL_APPLY, STR_NULL, &a, &o, &errs);
        assert_int_equal(rc, extra ? ERR_INVALID : 0);
        if (extra) {
            assert_int_equal(errs.n, 1);
            assert_true(str_is(errs.p[0].path, "spec.ingress[0].metadata.annotations"));
        }
    }
}

/* ---- policies ---- */

static const struct doc_case NPS[] = {
    {"{}", NULL, NULL},
    {"{'types':['Ingress','Egress'],'order':10.5,'tier':'t','selector':'has(a)'}", NULL, NULL},
    {"{'types':['Ingress','Ingress']}", "spec.types", "twice"},
    {"{'types':['Ingress','Egress','Egress']}", "spec.types", "0 to 2"},
    {"{'types':['ingress']}", "spec.types[0]", "Ingress or Egress"},
    {"{'types':'Ingress'}", "spec.types", "write it as a list"},
    {"{'order':'1'}", "spec.order", "a number"},
    {"{'tier':'A'}", "spec.tier", "lower-case"},
    {"{'selector':'has(a) && global()'}", "spec.selector", "global()"},
    {"{'serviceAccountSelector':'global()'}", "spec.serviceAccountSelector", "global()"},
    {"{'performanceHints':['AssumeNeededOnEveryNode']}", NULL, NULL},
    {"{'performanceHints':['Guess']}", "spec.performanceHints[0]", "AssumeNeededOnEveryNode"},
    {"{'namespaceSelector':'has(a)'}", "spec.namespaceSelector", "unknown field"},
    {"{'preDNAT':true}", "spec.preDNAT", "unknown field"},
    {"{'ingress':{}}", "spec.ingress", "a list"},
    {"{'ingress':[5]}", "spec.ingress[0]", "a map"},
    {"{'ingress':null}", NULL, NULL},
};

static const struct doc_case GNPS[] = {
    {"{'doNotTrack':true,'applyOnForward':true}", NULL, NULL},
    {"{'preDNAT':true,'applyOnForward':true,'types':['Ingress']}", NULL, NULL},
    {"{'doNotTrack':true,'preDNAT':true,'applyOnForward':true}", "spec.preDNAT", "doNotTrack"},
    {"{'doNotTrack':true}", "spec.applyOnForward", "doNotTrack needs it"},
    {"{'preDNAT':true,'applyOnForward':false}", "spec.applyOnForward", "preDNAT needs it"},
    {"{'preDNAT':true,'applyOnForward':true,'types':['Ingress','Egress']}", "spec.types",
     "preDNAT"},
    {"{'preDNAT':true,'applyOnForward':true,'egress':[{'action':'Allow'}]}", "spec.egress",
     "preDNAT"},
    {"{'namespaceSelector':'has(a)'}", NULL, NULL},
    {"{'namespaceSelector':'global()'}", "spec.namespaceSelector", "global()"},
    {"{'ingress':[{'action':'Allow','source':{'services':{'name':'s'}}}]}",
     "spec.ingress[0].source.services.namespace", "is missing"},
    {"{'ingress':[{'action':'Allow','source':{'services':{'name':'s','namespace':'n'}}}]}", NULL,
     NULL},
};

static const struct doc_case STAGED[] = {
    {"{}", NULL, NULL},
    {"{'stagedAction':'Learn'}", NULL, NULL},
    {"{'stagedAction':'set'}", "spec.stagedAction", "Set, Delete, Learn or Ignore"},
    {"{'stagedAction':'Delete','tier':'t'}", NULL, NULL},
    {"{'stagedAction':'Delete','selector':'has(a)'}", "spec.selector", "tier alone"},
    {"{'stagedAction':'Delete','order':1}", "spec.order", "tier alone"},
    {"{'ingress':[{'action':'Allow','destination':{'ports':[80]}}]}",
     "spec.ingress[0].destination.ports", "need a protocol"},
};

static const struct doc_case STAGED_K8S[] = {
    {"{'podSelector':{},'ingress':[{}]}", NULL, NULL},
    {"{'stagedAction':'Delete'}", NULL, NULL},
    {"{'stagedAction':'Delete','podSelector':{}}", "spec.podSelector", "nothing else"},
    {"{'podSelector':{},'policyTypes':['Both']}", "spec.policyTypes[0]", "Ingress or Egress"},
    {"{'podselector':{}}", "spec.podselector", "did you mean podSelector?"},
};

static void t_policies(void **state) {
    (void)state;
    run_cases(NPS, ARRAY_LEN(NPS), NP, "}");
    run_cases(GNPS, ARRAY_LEN(GNPS), GNP, "}");
    run_cases(STAGED, ARRAY_LEN(STAGED), V3("StagedNetworkPolicy") "'spec':", "}");
    run_cases(STAGED, ARRAY_LEN(STAGED), V3("StagedGlobalNetworkPolicy") "'spec':", "}");
    run_cases(STAGED_K8S, ARRAY_LEN(STAGED_K8S),
              V3("StagedKubernetesNetworkPolicy") "'spec':", "}");
}

/* ---- what is filled in ---- */

static void t_policy__apply__fills_tier_types_label(void **state) {
    (void)state;
    const struct {
        const char *spec, *types;
    } cases[] = {
        {"{}", "['Ingress']"},
        {"{'ingress':[]}", "['Ingress']"},
        {"{'egress':[{'action':'Allow'}]}", "['Egress']"},
        {"{'egress':[]}", "['Ingress']"},
        {"{'ingress':[{'action':'Deny'}],'egress':[{'action':'Allow'}]}", "['Ingress','Egress']"},
        {"{'types':['Egress']}", "['Egress']"},
        {"{'types':[],'egress':[{'action':'Allow'}]}", "['Egress']"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        struct str text = arena_printf(&a, NP "%s}", cases[i].spec);
        struct object o = doc_read(&a, MODEL_APPLY, text.p);
        assert_true(jnode_eq(jnode_path(o.doc, "spec.types"), doc_parse(&a, cases[i].types)));
        assert_true(str_is(jnode_str(jnode_path(o.doc, "spec.tier")), "default"));
        assert_true(str_is(jnode_str(jnode_path(o.doc, "metadata.namespace")), "default"));
        const struct jnode *labels = jnode_path(o.doc, "metadata.labels");
        assert_true(str_is(jnode_str(jnode_getc(labels, "projectcalico.org/tier")), "default"));
        assert_int_equal(o.meta.labels.n, 1);
        const struct policy_spec *p = o.spec;
        assert_true(str_is(p->tier, "default"));
        assert_int_not_equal(p->types, 0);
        /* Filling in again changes nothing. */
        struct jnode *again = jnode_copy(&a, o.doc);
        struct object o2;
        struct model_errors errs = {.a = &a};
        assert_int_equal(object_read(again, MODEL_APPLY, STR_NULL, &a, &o2, &errs), 0);
        assert_true(jnode_eq(again, o.doc));
    }
}

static void t_policy__tier_label_wrong__overwritten(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct object o = doc_read(
        &a, MODEL_APPLY,
        "{'apiVersion':'projectcalico.org/v3','kind':'GlobalNetworkPolicy','metadata':{'name':'p',"
        "'labels':{'a':'b','projectcalico.org/tier':'x'}},'spec':{'tier':'t'}}");
    assert_int_equal(o.meta.labels.n, 2);
    assert_true(str_is(o.meta.labels.p[1].value, "t"));
}

static void t_staged__apply__action_set(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct object o = doc_read(&a, MODEL_APPLY, V3("StagedNetworkPolicy") "'spec':{}}");
    assert_true(str_is(jnode_str(jnode_path(o.doc, "spec.stagedAction")), "Set"));
    o = doc_read(&a, MODEL_STORE, V3("StagedNetworkPolicy") "'spec':{}}");
    assert_null(jnode_path(o.doc, "spec.stagedAction"));
    assert_true(str_is(((const struct policy_spec *)o.spec)->staged_action, "Set"));
}

static void t_tier__defaults(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    const struct {
        const char *name, *action;
        double order;
    } cases[] = {{"default", "Deny", 1000000},
                 {"kube-admin", "Pass", 1000},
                 {"kube-baseline", "Pass", 10000000},
                 {"mine", "Deny", 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (enum model_mode m = MODEL_APPLY; m <= MODEL_STORE; m++) {
            struct str text = arena_printf(&a,
                                           "{'apiVersion':'projectcalico.org/v3','kind':'Tier',"
                                           "'metadata':{'name':'%s'}}",
                                           cases[i].name);
            struct object o = doc_read(&a, m, text.p);
            const struct tier_spec *t = o.spec;
            assert_true(str_is(t->default_action, cases[i].action));
            assert_int_equal(t->order.set, cases[i].order > 0);
            assert_true(t->order.v == cases[i].order);
            assert_int_equal(jnode_path(o.doc, "spec.defaultAction") != NULL, m == MODEL_APPLY);
        }
    }
}

static const struct doc_case OTHERS[] = {
    {"'Tier','metadata':{'name':'default'},'spec':{'order':1000000}", NULL, NULL},
    {"'Tier','metadata':{'name':'default'},'spec':{'order':5}", "spec.order", "1000000"},
    {"'Tier','metadata':{'name':'default'},'spec':{'defaultAction':'Pass'}", "spec.defaultAction",
     "Deny"},
    {"'Tier','metadata':{'name':'kube-admin'},'spec':{'order':1}", "spec.order", "1000"},
    {"'Tier','metadata':{'name':'kube-admin'},'spec':{'defaultAction':'Deny'}",
     "spec.defaultAction", "Pass"},
    {"'Tier','metadata':{'name':'kube-baseline'},'spec':{'order':1}", "spec.order", "10000000"},
    {"'Tier','metadata':{'name':'t'},'spec':{'order':1,'defaultAction':'Pass'}", NULL, NULL},
    {"'Tier','metadata':{'name':'t'},'spec':{'defaultAction':'Allow'}", "spec.defaultAction",
     "Deny or Pass"},
    {"'Tier','metadata':{'name':'a.b'}", "metadata.name", "letters, digits and -"},
    {"'Profile','metadata':{'name':'p'},'spec':{'labelsToApply':{'a':'b'}}", NULL, NULL},
    {"'Profile','metadata':{'name':'p'},'spec':{'labelsToApply':{'a':'b c'}}",
     "spec.labelsToApply.a", "label's value"},
    {"'Profile','metadata':{'name':'p'},'spec':{'egress':[{'action':'Deny',"
     "'http':{'methods':['GET']},'source':{'services':{'name':'s'}}}]}",
     NULL, NULL},
    {"'Profile','metadata':{'name':'p'},'spec':{'egress':[{'action':'Deny',"
     "'destination':{'ports':[1]}}]}",
     "spec.egress[0].destination.ports", "need a protocol"},
    {"'NetworkSet','metadata':{'name':'s'},'spec':{'nets':['10.0.0.1','fd00::/8']}", NULL, NULL},
    {"'NetworkSet','metadata':{'name':'s'},'spec':{'nets':['10.0.0']}", "spec.nets[0]",
     "an address or a prefix"},
    {"'NetworkSet','metadata':{'name':'s'},'spec':{'nets':['10.0.0.1','10.0.0.1']}", "spec.nets",
     "twice"},
    {"'GlobalNetworkSet','metadata':{'name':'s','labels':{'projectcalico.org/namespace':'x'}}",
     "metadata.labels[\"projectcalico.org/namespace\"]", "may not carry"},
    {"'NetworkSet','metadata':{'name':'s','labels':{'projectcalico.org/namespace':'x'}}",
     "metadata.labels[\"projectcalico.org/namespace\"]", "may not carry"},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','interfaceName':'*'}", NULL, NULL},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','expectedIPs':['10.0.0.1']}", NULL,
     NULL},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'interfaceName':'eth0'}", "spec.node",
     "is missing"},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n'}", "spec.interfaceName",
     "is missing"},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','expectedIPs':[]}",
     "spec.interfaceName", "is missing"},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','expectedIPs':['10.0.0']}",
     "spec.expectedIPs[0]", "an address"},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','interfaceName':'eth*'}",
     "spec.interfaceName", "an interface name"},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','interfaceName':"
     "'abcdefghijklmnop'}",
     "spec.interfaceName", "1 to 15"},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','interfaceName':'e','ports':["
     "{'name':'web','protocol':'TCP','port':80}]}",
     NULL, NULL},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','interfaceName':'e','ports':["
     "{'name':'Web','protocol':'TCP','port':80}]}",
     "spec.ports[0].name", "a port name"},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','interfaceName':'e','ports':["
     "{'name':'web','protocol':'ICMP','port':80}]}",
     "spec.ports[0].protocol", "TCP, UDP or SCTP"},
    {"'HostEndpoint','metadata':{'name':'h'},'spec':{'node':'n','interfaceName':'e','ports':["
     "{'name':'web','protocol':'TCP','port':0}]}",
     "spec.ports[0].port", "1 to 65535"},
    {"'HostEndpoint','metadata':{'name':'h'}", "spec", "is missing"},
    {"'WorkloadEndpoint','metadata':{'name':'n-k8s-p-eth0'},'spec':{'node':'n',"
     "'ipNetworks':['10.0.0.1/32'],'mac':'ee:ee:ee:ee:ee:ee'}",
     NULL, NULL},
    {"'WorkloadEndpoint','metadata':{'name':'n-k8s-p-eth0'},'spec':{'mac':'ee:ee'}", "spec.mac",
     "a MAC address"},
};

static void t_others(void **state) {
    (void)state;
    run_cases(OTHERS, ARRAY_LEN(OTHERS), "{'apiVersion':'projectcalico.org/v3','kind':", "}");
}

/* ---- what is decoded ---- */

static void t_rule__decoded(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct object o = doc_read(
        &a, MODEL_STORE,
        GNP "{'tier':'t','order':7,'selector':'has(a)','types':['Egress'],'applyOnForward':true,"
            "'ingress':[{'action':'Log','protocol':'ICMPv6','icmp':{'type':8},'notProtocol':17,"
            "'metadata':{'annotations':{'k':'v'}}}],"
            "'egress':[{'action':'Pass','ipVersion':4,'protocol':'sctp','source':{'ports':["
            "'a',7,'9:10'],'notPorts':['x'],'selector':'','namespaceSelector':'global()'},"
            "'destination':{'nets':['10.0.0.0/8'],'notNets':['10.1.0.0/16'],"
            "'serviceAccounts':{'names':['s'],'selector':'has(q)'}}}]}}");
    const struct policy_spec *p = o.spec;
    assert_true(str_is(p->tier, "t"));
    assert_true(p->order.set && p->order.v == 7);
    assert_int_equal(p->types, POLICY_EGRESS);
    assert_true(p->apply_on_forward && !p->do_not_track && !p->pre_dnat);
    assert_int_equal(p->ingress.n, 1);
    const struct rule *r = p->ingress.p;
    assert_int_equal(r->action, RULE_LOG);
    assert_true(r->protocol.set && r->protocol.v == 58);
    assert_true(r->not_protocol.set && r->not_protocol.v == 17);
    assert_true(r->icmp.set && r->icmp.type.v == 8 && !r->icmp.code.set && !r->not_icmp.set);
    assert_int_equal(r->annotations.n, 1);
    assert_false(r->is_broken);
    r = p->egress.p;
    assert_int_equal(r->action, RULE_PASS);
    assert_int_equal(r->protocol.v, 132);
    assert_int_equal(r->source.ports.n, 3);
    assert_true(str_is(r->source.ports.p[0].name, "a"));
    assert_true(r->source.ports.p[1].min == 7 && r->source.ports.p[1].max == 7);
    assert_true(r->source.ports.p[2].min == 9 && r->source.ports.p[2].max == 10);
    assert_null(r->source.ports.p[2].name.p);
    assert_int_equal(r->source.not_ports.n, 1);
    assert_non_null(r->source.selector.p);
    assert_int_equal(r->source.selector.n, 0);
    assert_null(r->destination.selector.p);
    assert_true(str_is(r->source.namespace_selector, "global()"));
    assert_int_equal(r->destination.nets.p[0].len, 8);
    assert_int_equal(r->destination.not_nets.p[0].len, 16);
    assert_true(r->destination.service_accounts.set && !r->source.service_accounts.set);
    assert_true(str_is(r->destination.service_accounts.names.p[0], "s"));
}

/* No error in a datastore's document may let more through. */
static void t_rule__broken_in_store__never_wider(void **state) {
    (void)state;
    static const char *const BROKEN[] = {
        "'source':{'nets':['10.0.0']}",
        "'source':{'nets':'10.0.0.0/8'}",
        "'source':5",
        "'protocol':'GRE'",
        "'protocol':'TCP','destination':{'ports':['9:8']}",
        "'destination':{'ports':[80]}",
        "'source':{'services':5}",
        "'ipVersion':5",
        "'source':{'selector':5}",
    };
    for (size_t i = 0; i < ARRAY_LEN(BROKEN); i++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        struct str text = arena_printf(
            &a,
            GNP "{'ingress':[{'action':'Allow',%s},{'action':'Deny',%s},{'action':'Log',%s},"
                "{'action':'Pass',%s},{'action':'Gone'},{'action':'Allow'}]}}",
            BROKEN[i], BROKEN[i], BROKEN[i], BROKEN[i]);
        struct object o;
        struct model_errors errs = {.a = &a};
        assert_int_equal(object_read(doc_parse(&a, text.p), MODEL_STORE, STR_NULL, &a, &o, &errs),
                         ERR_INVALID);
        const struct policy_spec *p = o.spec;
        assert_int_equal(p->ingress.n, 6);
        for (size_t k = 0; k < 5; k++) {
            const struct rule *r = &p->ingress.p[k];
            bool is_deny = k == 1 || k == 3 || k == 4;
            assert_true(r->is_broken);
            assert_int_equal(r->action, is_deny ? RULE_DENY : k == 0 ? RULE_ALLOW : RULE_LOG);
            if (is_deny) { /* of everything */
                struct rule all = {.action = RULE_DENY, .is_broken = true};
                assert_memory_equal(r, &all, sizeof(all));
            } else { /* of nothing: an IPv4 net in a rule for IPv6 */
                assert_int_equal(r->ip_version.v, 6);
                assert_int_equal(r->source.nets.p[0].ip.family, IP_V4);
            }
        }
        assert_false(p->ingress.p[5].is_broken);
        assert_int_equal(p->ingress.p[5].action, RULE_ALLOW);
    }
}

static void t_selector__broken_in_store__handed_on(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    model_set_selector_check(fake_check);
    /* Who uses a selector parses it: it must not turn into "none", which selects all. */
    struct object o = doc_read(&a, MODEL_STORE,
                               GNP "{'selector':'bad','ingress':[{'action':"
                                   "'Allow','source':{'selector':'bad'}}]}}");
    const struct policy_spec *p = o.spec;
    assert_true(str_is(p->selector, "bad"));
    assert_true(str_is(p->ingress.p[0].source.selector, "bad"));
    struct model_errors errs = {.a = &a};
    assert_int_equal(
        object_read(doc_parse(&a, GNP "{'selector':5}}"), MODEL_STORE, STR_NULL, &a, &o, &errs),
        ERR_INVALID);
    assert_true(((const struct policy_spec *)o.spec)->selector.n > 0);
    model_set_selector_check(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_rules),
        cmocka_unit_test(t_egress_rules),
        cmocka_unit_test(t_limits),
        cmocka_unit_test(t_rule_annotations__size),
        cmocka_unit_test(t_policies),
        cmocka_unit_test(t_policy__apply__fills_tier_types_label),
        cmocka_unit_test(t_policy__tier_label_wrong__overwritten),
        cmocka_unit_test(t_staged__apply__action_set),
        cmocka_unit_test(t_tier__defaults),
        cmocka_unit_test(t_others),
        cmocka_unit_test(t_rule__decoded),
        cmocka_unit_test(t_rule__broken_in_store__never_wider),
        cmocka_unit_test(t_selector__broken_in_store__handed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
