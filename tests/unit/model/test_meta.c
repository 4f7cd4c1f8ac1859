/* Kinds and how they are found, metadata, whole documents, sameness, tables, the reference. */
#include "cases.h"

#include "base/clock.h"
#include "minimal.h"

static void read_all(enum model_mode mode) {
    for (size_t i = 0; i < K_N_KINDS; i++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        assert_non_null(MINIMAL[i]);
        struct object o = doc_read(&a, mode, MINIMAL[i]);
        assert_ptr_equal(o.kind, &model_kinds[i]);
        assert_int_equal(o.kind->id, i);
        assert_int_equal(o.meta.ns.n > 0, o.kind->is_namespaced);
    }
}

static void t_every_kind__minimal__accepted(void **state) {
    (void)state;
    read_all(MODEL_APPLY);
    read_all(MODEL_STORE);
}

/* What was accepted, with what was filled in, reads again as the same; so does its JSON. */
static void t_every_kind__round_trip__same(void **state) {
    (void)state;
    for (size_t i = 0; i < K_N_KINDS; i++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        struct object o = doc_read(&a, MODEL_APPLY, MINIMAL[i]);
        struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(65536);
        json_write(&b, o.doc, 0);
        struct jnode *again = NULL;
        assert_int_equal(json_parse(buf_view(&b), &json_limits_default, &a, &again, NULL), 0);
        struct object o2;
        struct model_errors errs = {.a = &a};
        for (enum model_mode m = MODEL_APPLY; m <= MODEL_STORE; m++) {
            assert_int_equal(object_read(again, m, STR_NULL, &a, &o2, &errs), 0);
            assert_true(jnode_eq(again, o.doc));
        }
    }
}

static void t_unknown_field__calico_refuses__kubernetes_keeps(void **state) {
    (void)state;
    for (size_t i = 0; i < K_N_KINDS; i++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        struct jnode *doc = doc_parse(&a, MINIMAL[i]);
        if (!jnode_getc(doc, "spec")) {
            jnode_set(&a, doc, STR("spec"), jnode_new(&a, J_MAP));
        }
        jnode_set(&a, jnode_getc(doc, "spec"), STR("quux"), jnode_new_int(&a, 1));
        struct object o;
        struct model_errors errs = {.a = &a};
        int rc = object_read(doc, MODEL_APPLY, STR_NULL, &a, &o, &errs);
        if (model_kinds[i].is_open) {
            assert_int_equal(rc, 0);
        } else {
            assert_int_equal(rc, ERR_INVALID);
            assert_int_equal(errs.n, 1);
            assert_true(str_is(errs.p[0].path, "spec.quux"));
            assert_true(str_contains(errs.p[0].message, STR("unknown field \"quux\"")));
        }
        assert_int_equal(object_read(doc, MODEL_STORE, STR_NULL, &a, &o, &errs), 0);
        assert_non_null(jnode_path(o.doc, "spec.quux"));
    }
}

/* ---- metadata ---- */

static const struct doc_case METAS[] = {
    {"'metadata':{'name':'a'}", NULL, NULL},
    {"'metadata':{'name':'a','namespace':'n','uid':'u','resourceVersion':'1','generation':2,"
     "'creationTimestamp':null,'managedFields':[],'ownerReferences':[],'finalizers':[]}",
     NULL, NULL},
    {"'metadata':{}", "metadata.name", "is missing"},
    {"'metadata':null", "metadata", "a map"},
    {"'x':1", "metadata", "found nothing"},
    {"'metadata':[]", "metadata", "found an empty list"},
    {"'metadata':{'name':5}", "metadata.name", "put it in quotes"},
    {"'metadata':{'name':''}", "metadata.name", "is missing"},
    {"'metadata':{'generateName':'a-'}", "metadata.generateName", "not generated"},
    {"'metadata':{'name':'A'}", "metadata.name", "lower-case"},
    {"'metadata':{'name':'-a'}", "metadata.name", "lower-case"},
    {"'metadata':{'name':'a.b'}", NULL, NULL}, /* tier.name, of old */
    {"'metadata':{'name':'a.b.c'}", "metadata.name", "at most one ."},
    {"'metadata':{'name':'knp.default.a.b.c'}", NULL, NULL},
    {"'metadata':{'name':'ossg.default.a'}", NULL, NULL},
    {"'metadata':{'name':'a','namespace':'N'}", "metadata.namespace", "lower-case"},
    {"'metadata':{'name':'a','namespace':'a.b'}", "metadata.namespace", "letters, digits and -"},
    {"'metadata':{'name':'a','lables':{}}", "metadata.lables", "did you mean labels?"},
    {"'metadata':{'name':'a','labels':[]}", "metadata.labels", "a map of text"},
    {"'metadata':{'name':'a','labels':{'a':'b','x.y/z':'','q':'1.2_3'}}", NULL, NULL},
    {"'metadata':{'name':'a','labels':{'a':1}}", "metadata.labels.a", "put it in quotes"},
    {"'metadata':{'name':'a','labels':{'a':'b c'}}", "metadata.labels.a", "a label's value"},
    {"'metadata':{'name':'a','labels':{'a':'-b'}}", "metadata.labels.a", "a label's value"},
    {"'metadata':{'name':'a','labels':{'X.y/z':''}}", "metadata.labels[\"X.y/z\"]",
     "a label's name"},
    {"'metadata':{'name':'a','labels':{'a/b/c':''}}", "metadata.labels[\"a/b/c\"]",
     "a label's name"},
    {"'metadata':{'name':'a','annotations':{'X.Y/Z':'any thing'}}", NULL, NULL},
    {"'metadata':{'name':'a','annotations':{'a b':'c'}}", "metadata.annotations[\"a b\"]",
     "an annotation's name"},
    {"'metadata':{'name':'a'},'spce':{}", "spce", "unknown field"},
};

static void t_metadata(void **state) {
    (void)state;
    run_cases(METAS, ARRAY_LEN(METAS),
              "{'apiVersion':'projectcalico.org/v3','kind':'NetworkPolicy',", "}");
}

static const struct doc_case DOCS[] = {
    {"{'kind':'IPPool','metadata':{'name':'a'}}", "apiVersion", "found nothing"},
    {"{'apiVersion':'v1','metadata':{'name':'a'}}", "kind", "found nothing"},
    {"{'apiVersion':'v1','kind':'Pood','metadata':{'name':'a'}}", "kind", "did you mean Pod?"},
    {"{'apiVersion':'v1','kind':'IPPool','metadata':{'name':'a'}}", "kind",
     "apiVersion projectcalico.org/v3, kind IPPool"},
    {"{'apiVersion':'projectcalico.org/v4','kind':'Tier','metadata':{'name':'a'}}", "kind",
     "projectcalico.org/v3"},
    {"{'apiVersion':5,'kind':'Tier'}", "apiVersion", "found 5"},
    {"[]", "", "a map"},
    {"5", "", "a map"},
    {"{'apiVersion':'projectcalico.org/v3','kind':'Tier','metadata':{'name':'a','namespace':'n'}}",
     "metadata.namespace", "belongs to no namespace"},
    {"{'apiVersion':'projectcalico.org/v3','kind':'Tier','metadata':{'name':'a'},'spec':5}", "spec",
     "found 5"},
    {"{'apiVersion':'v1','kind':'Service','metadata':{'name':'9a'}}", "metadata.name",
     "a letter first"},
    {"{'apiVersion':'v1','kind':'Namespace','metadata':{'name':'a.b'}}", "metadata.name",
     "letters, digits and -"},
    {"{'apiVersion':'v1','kind':'Pod','metadata':{'name':'a.b'}}", NULL, NULL},
    {"{'apiVersion':'crd.projectcalico.org/v1','kind':'Tier','metadata':{'name':'a'}}", "kind",
     "projectcalico.org/v3"},
};

static void t_documents(void **state) {
    (void)state;
    run_cases(DOCS, ARRAY_LEN(DOCS), "", "");
}

static void t_names__lengths(void **state) {
    (void)state;
    for (size_t n = 252; n <= 254; n++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        char *name = arena_alloc(&a, n + 1);
        memset(name, 'a', n);
        static const char *const KINDS[] = {"NetworkPolicy", "GlobalNetworkPolicy",
                                            "IPReservation"};
        for (size_t i = 0; i < ARRAY_LEN(KINDS); i++) {
            struct str text = arena_printf(&a,
                                           "{'apiVersion':'projectcalico.org/v3','kind':'%s',"
                                           "'metadata':{'name':'%s'}}",
                                           KINDS[i], name);
            struct object o;
            struct model_errors errs = {.a = &a};
            int rc = object_read(doc_parse(&a, text.p), MODEL_APPLY, STR_NULL, &a, &o, &errs);
            assert_int_equal(rc, n <= 253 ? 0 : ERR_INVALID);
        }
    }
    /* A tier's name and a label's value: 63. */
    for (size_t n = 63; n <= 64; n++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        char *name = arena_alloc(&a, n + 1);
        memset(name, 'a', n);
        const char *const TEXTS[] = {
            arena_printf(&a, "'Tier','metadata':{'name':'%s'}", name).p,
            arena_printf(&a, "'Tier','metadata':{'name':'t','labels':{'a':'%s'}}", name).p,
            arena_printf(&a, "'Tier','metadata':{'name':'t','labels':{'%s':'a'}}", name).p,
        };
        for (size_t i = 0; i < ARRAY_LEN(TEXTS); i++) {
            struct str text =
                arena_printf(&a, "{'apiVersion':'projectcalico.org/v3','kind':%s}", TEXTS[i]);
            struct object o;
            struct model_errors errs = {.a = &a};
            int rc = object_read(doc_parse(&a, text.p), MODEL_APPLY, STR_NULL, &a, &o, &errs);
            assert_int_equal(rc, n <= 63 ? 0 : ERR_INVALID);
        }
    }
}

static void t_annotations__size(void **state) {
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        struct jnode *doc = doc_parse(&a, MINIMAL[K_TIER]);
        size_t n = 256 * 1024 - 1 + extra; /* and one byte of key */
        char *value = arena_alloc(&a, n);
        memset(value, 'v', n);
        struct jnode *map = jnode_new(&a, J_MAP);
        jnode_set(&a, map, STR("k"), jnode_new_str(&a, str_n(value, n)));
        jnode_set(&a, jnode_getc(doc, "metadata"), STR("annotations"), map);
        struct object o;
        struct model_errors errs = {.a = &a};
        int rc = object_read(doc, MODEL_APPLY, STR_NULL, &a, &o, &errs);
        assert_int_equal(rc, extra ? ERR_INVALID : 0);
        if (extra) {
            assert_true(str_is(errs.p[0].path, "metadata.annotations"));
        }
    }
}

static void t_namespace__absent__given(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct object o;
    struct model_errors errs = {.a = &a};
    struct jnode *doc = doc_parse(&a, MINIMAL[K_NETWORK_POLICY]);
    assert_int_equal(object_read(doc, MODEL_APPLY, STR("web"), &a, &o, &errs), 0);
    assert_true(str_is(o.meta.ns, "web"));
    assert_true(str_is(jnode_str(jnode_path(doc, "metadata.namespace")), "web"));
    o = doc_read(&a, MODEL_STORE, MINIMAL[K_NETWORK_POLICY]);
    assert_true(str_is(o.meta.ns, "default"));
    assert_null(jnode_path(o.doc, "metadata.namespace"));
}

static void t_errors__line_column_and_limit(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct jnode *doc = doc_parse(&a, "{'apiVersion':'projectcalico.org/v3','kind':'IPPool',\n"
                                      "'metadata':{'name':'p'},\n 'spec':{'cidr':'10.0.0.1/8'}}");
    struct object o;
    struct model_errors errs = {.a = &a};
    assert_int_equal(object_read(doc, MODEL_APPLY, STR_NULL, &a, &o, &errs), ERR_INVALID);
    assert_int_equal(errs.n, 1);
    assert_int_equal(errs.p[0].line, 3);
    assert_int_equal(errs.p[0].col, 17);
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(4096);
    model_error_print(&b, "f.yaml", &o, &errs.p[0]);
    assert_string_equal(buf_cstr(&b), "f.yaml:3: IPPool/p: spec.cidr: found \"10.0.0.1/8\", "
                                      "allowed is a prefix without host bits: write 10.0.0.0/8");
    /* More than are kept are counted. */
    struct buf many MG_CLEANUP(buf_fini) = BUF_INIT(65536);
    buf_puts(&many, "{'apiVersion':'projectcalico.org/v3','kind':'NetworkSet','metadata':"
                    "{'name':'s'},'spec':{'nets':[");
    for (size_t i = 0; i < 100; i++) {
        buf_printf(&many, "%s'x%zu'", i ? "," : "", i);
    }
    buf_puts(&many, "]}}");
    errs = (struct model_errors){.a = &a};
    assert_int_equal(
        object_read(doc_parse(&a, buf_cstr(&many)), MODEL_APPLY, STR_NULL, &a, &o, &errs),
        ERR_INVALID);
    assert_int_equal(errs.n, MODEL_MAX_ERRORS);
    assert_int_equal(errs.n_dropped, 100 - MODEL_MAX_ERRORS);
    /* Without a collection the answer is the same. */
    assert_int_equal(
        object_read(doc_parse(&a, buf_cstr(&many)), MODEL_STORE, STR_NULL, &a, &o, NULL),
        ERR_INVALID);
}

/* ---- kinds ---- */

static void t_kinds__words(void **state) {
    (void)state;
    static const struct {
        const char *word;
        bool prefer_calico;
        int id;
    } words[] = {
        {"pod", false, K_POD},
        {"PODS", true, K_POD},
        {"po", true, K_POD},
        {"ns", true, K_NAMESPACE},
        {"sa", true, K_SERVICE_ACCOUNT},
        {"svc", true, K_SERVICE},
        {"netpol", true, K_K8S_NETWORK_POLICY},
        {"networkpolicy", true, K_NETWORK_POLICY},
        {"networkpolicies", false, K_K8S_NETWORK_POLICY},
        {"networkpolicies.networking.k8s.io", true, K_K8S_NETWORK_POLICY},
        {"networkpolicy.v1.networking.k8s.io", true, K_K8S_NETWORK_POLICY},
        {"networkpolicies.projectcalico.org", false, K_NETWORK_POLICY},
        {"networkpolicies.v3.projectcalico.org", false, K_NETWORK_POLICY},
        {"networkpolicies.v4.projectcalico.org", false, -1},
        {"node", true, K_NODE},
        {"no", true, K_NODE},
        {"nodes", false, K_NODE_K8S},
        {"nodes.v1", true, K_NODE_K8S},
        {"gnp", false, K_GLOBAL_NETWORK_POLICY},
        {"np", false, K_NETWORK_POLICY},
        {"policy", false, K_NETWORK_POLICY},
        {"policies", false, K_NETWORK_POLICY},
        {"pols", false, K_NETWORK_POLICY},
        {"gnetsets", false, K_GLOBAL_NETWORK_SET},
        {"netsets", false, K_NETWORK_SET},
        {"HEPs", false, K_HOST_ENDPOINT},
        {"wep", false, K_WORKLOAD_ENDPOINT},
        {"pool", false, K_IP_POOL},
        {"ipps", false, K_IP_POOL},
        {"reservations", false, K_IP_RESERVATION},
        {"ipamconfig", false, K_IPAM_CONFIGURATION},
        {"bgpp", false, K_BGP_PEER},
        {"bp", false, K_BGP_PEER},
        {"bfs", false, K_BGP_FILTER},
        {"bgpconfigs", false, K_BGP_CONFIGURATION},
        {"clusterinfo", false, K_CLUSTER_INFORMATION},
        {"felixconfig", false, K_FELIX_CONFIGURATION},
        {"kubecontrollersconfigs", false, K_KUBE_CONTROLLERS_CONFIGURATION},
        {"nodestatuses", false, K_CALICO_NODE_STATUS},
        {"pros", false, K_PROFILE},
        {"sgnp", false, K_STAGED_GLOBAL_NETWORK_POLICY},
        {"skpols", false, K_STAGED_KUBERNETES_NETWORK_POLICY},
        {"stagedkubernetespolicies", false, K_STAGED_KUBERNETES_NETWORK_POLICY},
        {"spol", false, K_STAGED_NETWORK_POLICY},
        {"cnp", true, K_CLUSTER_NETWORK_POLICY},
        {"anp", true, K_ADMIN_NETWORK_POLICY},
        {"banp", true, K_BASELINE_ADMIN_NETWORK_POLICY},
        {"", true, -1},
        {".", true, -1},
        {"podd", true, -1},
        {"pod.x", true, -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        const struct kind *k = kind_by_word(str_c(words[i].word), words[i].prefer_calico);
        if ((k ? (int)k->id : -1) != words[i].id) {
            fail_msg("%s gives %s", words[i].word, k ? k->kind : "nothing");
        }
    }
    /* Every kind's own words find it, among those of its group. */
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *k = &model_kinds[i];
        bool is_calico = strcmp(k->group, "projectcalico.org") == 0;
        assert_ptr_equal(kind_by_word(str_c(k->singular), is_calico), k);
        assert_ptr_equal(kind_by_word(str_c(k->plural), is_calico), k);
        for (size_t j = 0; k->aliases[j]; j++) {
            assert_ptr_equal(kind_by_word(str_c(k->aliases[j]), is_calico), k);
        }
    }
}

static void t_kinds__keys_there_and_back(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *k = &model_kinds[i], *back = NULL;
        assert_ptr_equal(kind_by_store_name(str_c(kind_store_name(k))), k);
        struct str key = kind_store_key(k, STR("ns"), STR("a.b"), &a), ns, name;
        assert_int_equal(kind_split_key(key, &back, &ns, &name), 0);
        assert_ptr_equal(back, k);
        assert_true(str_is(name, "a.b"));
        assert_true(str_is(ns, k->is_namespaced ? "ns" : ""));
    }
    assert_true(str_is(kind_store_key(&model_kinds[K_K8S_NETWORK_POLICY], STR("n"), STR("p"), &a),
                       "NetworkPolicy.networking.k8s.io/n/p"));
    assert_true(str_is(kind_store_key(&model_kinds[K_TIER], STR_NULL, STR("p"), &a),
                       "Tier.projectcalico.org//p"));
    assert_true(str_is(kind_store_key(&model_kinds[K_POD], STR("n"), STR("p"), &a), "Pod/n/p"));
    static const char *const BAD[] = {
        "",       "/",        "Pod",           "Pod/n",       "Pod/n/",
        "Pod//p", "Podd/n/p", "Namespace/n/p", "Namespace//", "//"};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        const struct kind *k;
        struct str ns, name;
        assert_int_equal(kind_split_key(str_c(BAD[i]), &k, &ns, &name), ERR_INVALID);
    }
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(256);
    kind_print_ref(&model_kinds[K_K8S_NETWORK_POLICY], STR("web"), &b);
    buf_putc(&b, ' ');
    kind_print_ref(&model_kinds[K_POD], STR("web"), &b);
    assert_string_equal(buf_cstr(&b), "networkpolicy.networking.k8s.io/web pod/web");
}

/* ---- sameness ---- */

static void t_same(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    static const struct {
        const char *a, *b;
        bool is_same;
    } cases[] = {
        {"{'metadata':{'name':'a'},'spec':{'x':1}}", "{'spec':{'x':1},'metadata':{'name':'a'}}",
         true},
        {"{'metadata':{'name':'a','uid':'1','resourceVersion':'5','generation':1,"
         "'creationTimestamp':'x','managedFields':[1]}}",
         "{'metadata':{'name':'a','resourceVersion':'6'},'status':{'y':2}}", true},
        {"{'metadata':{'name':'a','labels':{}}}", "{'metadata':{'name':'a'}}", true},
        {"{'metadata':{'name':'a','labels':{'x':'y'}}}", "{'metadata':{'name':'a'}}", false},
        {"{'metadata':{'name':'a','annotations':{'x':'y'}}}",
         "{'metadata':{'name':'a','annotations':{'x':'z'}}}", false},
        {"{'metadata':{'name':'a'}}", "{'metadata':{'name':'b'}}", false},
        {"{'metadata':{'name':'a'},'spec':{'x':1}}", "{'metadata':{'name':'a'},'spec':{'x':2}}",
         false},
        {"{'metadata':{'name':'a'},'spec':{'x':[1,2]}}",
         "{'metadata':{'name':'a'},'spec':{'x':[2,1]}}", false},
        {"{'metadata':{'name':'a'},'data':{'x':'1'}}", "{'metadata':{'name':'a'}}", false},
        {"{'metadata':{'name':'a'},'status':{'x':1}}", "{'metadata':{'name':'a'},'status':{}}",
         true},
        {"{'metadata':5}", "{'metadata':6}", false},
        {"[]", "[]", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct jnode *x = doc_parse(&a, cases[i].a), *y = doc_parse(&a, cases[i].b);
        if (object_same(x, y) != cases[i].is_same || object_same(y, x) != cases[i].is_same) {
            fail_msg("%s and %s", cases[i].a, cases[i].b);
        }
        assert_true(object_same(x, x) && object_same(y, y));
    }
}

/* ---- tables and the reference ---- */

static const char *line(struct arena *a, const char *json, enum model_table t, bool want_heads,
                        int64_t now_ns) {
    struct object o = doc_read(a, MODEL_STORE, json);
    const char *heads[MODEL_MAX_COLUMNS];
    struct str cells[MODEL_MAX_COLUMNS];
    size_t n = kind_columns(o.kind, t, heads);
    assert_int_equal(object_cells(o.kind, t, o.doc, now_ns, a, cells), n);
    assert_true(n > 0 && n <= MODEL_MAX_COLUMNS);
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(8192);
    for (size_t i = 0; i < n; i++) {
        buf_puts(&b, i ? "|" : "");
        want_heads ? buf_puts(&b, heads[i]) : buf_str(&b, cells[i]);
    }
    return arena_cstr(a, buf_view(&b));
}

static void t_tables(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    for (size_t i = 0; i < K_N_KINDS; i++) {
        for (enum model_table t = MODEL_TABLE; t <= MODEL_WIDE; t++) {
            const char *heads = line(&a, MINIMAL[i], t, true, 0);
            assert_non_null(strstr(heads, i == K_WORKLOAD_ENDPOINT ? "WORKLOAD" : "NAME"));
            (void)line(&a, MINIMAL[i], t, false, 0);
        }
    }
    static const struct {
        const char *json;
        enum model_table t;
        const char *heads, *cells;
    } cases[] = {
        {"{'apiVersion':'projectcalico.org/v3','kind':'IPPool','metadata':{'name':'p'},'spec':"
         "{'cidr':'10.0.0.0/16','nodeSelector':'all()','natOutgoing':true,'ipipMode':'Never',"
         "'vxlanMode':'Always','assignmentMode':'Automatic'}}",
         MODEL_TABLE, "NAME|CIDR|SELECTOR", "p|10.0.0.0/16|all()"},
        {"{'apiVersion':'projectcalico.org/v3','kind':'IPPool','metadata':{'name':'p'},'spec':"
         "{'cidr':'10.0.0.0/16','nodeSelector':'all()','natOutgoing':true,'ipipMode':'Never',"
         "'vxlanMode':'Always','disabled':false,'disableBGPExport':false,"
         "'assignmentMode':'Automatic'}}",
         MODEL_WIDE,
         "NAME|CIDR|NAT|IPIPMODE|VXLANMODE|DISABLED|DISABLEBGPEXPORT|SELECTOR|ASSIGNMENTMODE",
         "p|10.0.0.0/16|true|Never|Always|false|false|all()|Automatic"},
        {"{'apiVersion':'projectcalico.org/v3','kind':'NetworkPolicy','metadata':{'name':'p'},"
         "'spec':{'tier':'t','order':10,'selector':'has(a)'}}",
         MODEL_WIDE, "NAME|TIER|ORDER|SELECTOR", "p|t|10|has(a)"},
        {"{'apiVersion':'projectcalico.org/v3','kind':'BGPPeer','metadata':{'name':'p'},'spec':"
         "{'peerIP':'10.0.0.1','asNumber':64512}}",
         MODEL_TABLE, "NAME|PEERIP|NODE|ASN", "p|10.0.0.1|(global)|64512"},
        {"{'apiVersion':'projectcalico.org/v3','kind':'BGPPeer','metadata':{'name':'p'},'spec':"
         "{'nodeSelector':'has(x)'}}",
         MODEL_TABLE, "NAME|PEERIP|NODE|ASN", "p||has(x)|"},
        {"{'apiVersion':'projectcalico.org/v3','kind':'BGPFilter','metadata':{'name':'p'},'spec':"
         "{'importV4':[{'action':'Accept'},{'action':'Reject'}],'exportV6':[{'action':'Accept'}]}}",
         MODEL_TABLE, "NAME|NUMEXPORTV4|NUMIMPORTV4|NUMEXPORTV6|NUMIMPORTV6", "p|0|2|1|0"},
        {"{'apiVersion':'projectcalico.org/v3','kind':'HostEndpoint','metadata':{'name':'h'},"
         "'spec':{'node':'n','interfaceName':'eth0','expectedIPs':['10.0.0.1','10.0.0.2'],"
         "'profiles':['a']}}",
         MODEL_WIDE, "NAME|NODE|INTERFACE|IPS|PROFILES", "h|n|eth0|10.0.0.1,10.0.0.2|a"},
        {"{'apiVersion':'projectcalico.org/v3','kind':'Profile','metadata':{'name':'p'},'spec':"
         "{'labelsToApply':{'a':'b','c':''}}}",
         MODEL_WIDE, "NAME|LABELS", "p|a=b,c="},
        {"{'apiVersion':'networking.k8s.io/v1','kind':'NetworkPolicy','metadata':{'name':'p',"
         "'creationTimestamp':'1970-01-01T00:00:10Z'},'spec':{'podSelector':{'matchLabels':"
         "{'a':'b'},'matchExpressions':[{'key':'c','operator':'NotIn','values':['d','e']},"
         "{'key':'f','operator':'DoesNotExist'}]}}}",
         MODEL_TABLE, "NAME|POD-SELECTOR|AGE", "p|a=b,c notin (d,e),!f|90s"},
        {"{'apiVersion':'networking.k8s.io/v1','kind':'NetworkPolicy','metadata':{'name':'p'},"
         "'spec':{'podSelector':{}}}",
         MODEL_TABLE, "NAME|POD-SELECTOR|AGE", "p|<none>|<unknown>"},
        {"{'apiVersion':'v1','kind':'Pod','metadata':{'name':'p','creationTimestamp':"
         "'1969-12-31T00:00:00Z'},'spec':{'nodeName':'n'},'status':{'podIP':'10.0.0.1',"
         "'phase':'Running'}}",
         MODEL_TABLE, "NAME|NODE|IP|PHASE|AGE", "p|n|10.0.0.1|Running|24h"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t now = 100LL * 1000000000;
        assert_string_equal(line(&a, cases[i].json, cases[i].t, true, now), cases[i].heads);
        assert_string_equal(line(&a, cases[i].json, cases[i].t, false, now), cases[i].cells);
    }
}

static void t_reference__names_every_field(void **state) {
    (void)state;
    for (size_t i = 0; i < K_N_KINDS; i++) {
        struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(1 << 20);
        kind_print_docs(&model_kinds[i], &b);
        assert_false(b.overflow);
        assert_true(str_contains(buf_view(&b), str_c(model_kinds[i].kind)));
        assert_true(str_contains(buf_view(&b), str_c(model_kinds[i].plural)));
    }
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(1 << 20);
    kind_print_docs(&model_kinds[K_NETWORK_POLICY], &b);
    static const char *const WANTED[] = {
        "| serviceAccountSelector |",       "## EntityRule", "| notPorts |",
        "Allow, Deny, Log, Pass; required", "## HTTPPath",   "short: `np`"};
    for (size_t i = 0; i < ARRAY_LEN(WANTED); i++) {
        assert_true(str_contains(buf_view(&b), str_c(WANTED[i])));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_every_kind__minimal__accepted),
        cmocka_unit_test(t_every_kind__round_trip__same),
        cmocka_unit_test(t_unknown_field__calico_refuses__kubernetes_keeps),
        cmocka_unit_test(t_metadata),
        cmocka_unit_test(t_documents),
        cmocka_unit_test(t_names__lengths),
        cmocka_unit_test(t_annotations__size),
        cmocka_unit_test(t_namespace__absent__given),
        cmocka_unit_test(t_errors__line_column_and_limit),
        cmocka_unit_test(t_kinds__words),
        cmocka_unit_test(t_kinds__keys_there_and_back),
        cmocka_unit_test(t_same),
        cmocka_unit_test(t_tables),
        cmocka_unit_test(t_reference__names_every_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
