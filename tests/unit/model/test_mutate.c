/* Documents that nobody would write: random changes of trees and random trees. Nothing crashes in
 * either mode, every refusal has an error, what is accepted stays so. The seed is fixed; MODEL_SEED
 * and MODEL_ROUNDS give others. */
#include "cases.h"

#include <stdlib.h>

#include "minimal.h"

static uint64_t rng_state;

static uint64_t rng(void) {
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}

static size_t below(size_t n) {
    return (size_t)(rng() % n);
}

/* Fuller documents, so that mutations reach deep fields. */
static const char *const SEEDS[] = {
    "{'apiVersion':'projectcalico.org/v3','kind':'GlobalNetworkPolicy','metadata':{'name':'p',"
    "'labels':{'a':'b'},'annotations':{'c':'d'}},'spec':{'tier':'t','order':1,'selector':'all()',"
    "'types':['Ingress','Egress'],'ingress':[{'action':'Allow','protocol':'TCP','ipVersion':4,"
    "'source':{'nets':['10.0.0.0/8'],'notNets':['10.1.0.0/16'],'selector':'has(a)','ports':[1,"
    "'2:3','x'],'serviceAccounts':{'names':['s'],'selector':'has(q)'}},'destination':{'ports':[80],"
    "'notPorts':['9:10']},'http':{'methods':['GET'],'paths':[{'exact':'/a'}]},'metadata':"
    "{'annotations':{'k':'v'}}},{'action':'Deny','protocol':'ICMP','icmp':{'type':8,'code':0},"
    "'notICMP':{'type':3},'source':{'services':{'name':'s','namespace':'n'}}}],"
    "'egress':[{'action':'Pass'},{'action':'Log','notProtocol':17}]}}",
    "{'apiVersion':'projectcalico.org/v3','kind':'Profile','metadata':{'name':'kns.x'},'spec':"
    "{'ingress':[{'action':'Allow'}],'egress':[{'action':'Allow'}],'labelsToApply':{'a':'b'}}}",
    "{'apiVersion':'projectcalico.org/v3','kind':'HostEndpoint','metadata':{'name':'h'},'spec':"
    "{'node':'n','interfaceName':'eth0','expectedIPs':['10.0.0.1','fd00::1'],'profiles':['p'],"
    "'ports':[{'name':'web','protocol':'TCP','port':80}]}}",
    "{'apiVersion':'projectcalico.org/v3','kind':'StagedKubernetesNetworkPolicy','metadata':"
    "{'name':'p'},'spec':{'stagedAction':'Learn','podSelector':{'matchLabels':{'a':'b'}},"
    "'ingress':[{'from':[{'podSelector':{}}],'ports':[{'port':80}]}]}}",
    "{'apiVersion':'networking.k8s.io/v1','kind':'NetworkPolicy','metadata':{'name':'p'},'spec':"
    "{'podSelector':{'matchExpressions':[{'key':'a','operator':'In','values':['b']}]},"
    "'policyTypes':['Ingress'],'ingress':[{'from':[{'podSelector':{'matchLabels':{'x':'y'}},"
    "'namespaceSelector':{}},{'ipBlock':{'cidr':'10.0.0.0/8','except':['10.1.0.0/16']}}],"
    "'ports':[{'port':80,'endPort':90,'protocol':'TCP'},{'port':'web'}]}],'egress':[{}]}}",
    "{'apiVersion':'v1','kind':'Pod','metadata':{'name':'p','annotations':"
    "{'cni.projectcalico.org/podIPs':'10.0.0.1/32,fd00::1/128'}},'spec':{'nodeName':'n',"
    "'hostNetwork':false,'containers':[{'ports':[{'name':'web','containerPort':80,'hostPort':81,"
    "'protocol':'TCP'}]}],'initContainers':[{'restartPolicy':'Always','ports':[]}]},'status':"
    "{'phase':'Running','podIP':'10.0.0.1','podIPs':[{'ip':'10.0.0.1'}]}}",
    "{'apiVersion':'v1','kind':'Service','metadata':{'name':'s'},'spec':{'clusterIPs':['10.0.0.1'],"
    "'ports':[{'port':80,'targetPort':'web','nodePort':1,'protocol':'TCP'}],'selector':{'a':'b'}},"
    "'status':{'loadBalancer':{'ingress':[{'ip':'1.1.1.1'}]}}}",
    "{'apiVersion':'discovery.k8s.io/v1','kind':'EndpointSlice','metadata':{'name':'s'},"
    "'addressType':'IPv4','endpoints':[{'addresses':['10.0.0.1'],'conditions':{'ready':true},"
    "'nodeName':'n'}],'ports':[{'name':'a','port':80,'protocol':'TCP'}]}",
    "{'apiVersion':'v1','kind':'Node','metadata':{'name':'n'},'spec':{'podCIDRs':['10.0.0.0/24'],"
    "'podCIDR':'10.0.0.0/24'},'status':{'addresses':[{'type':'InternalIP','address':'1.1.1.1'}]}}",
    "{'apiVersion':'policy.networking.k8s.io/v1alpha2','kind':'ClusterNetworkPolicy','metadata':"
    "{'name':'p'},'spec':{'tier':'Admin','priority':1,'subject':{'pods':{'namespaceSelector':{},"
    "'podSelector':{'matchExpressions':[{'key':'a','operator':'Exists'}]}}},'ingress':[{'action':"
    "'Accept','from':[{'namespaces':{}}],'protocols':[{'tcp':{'destinationPort':{'range':"
    "{'start':1,'end':2}}}}]}],'egress':[{'action':'Deny','to':[{'networks':['10.0.0.0/8']}]}]}}",
    "{'apiVersion':'policy.networking.k8s.io/v1alpha1','kind':'AdminNetworkPolicy','metadata':"
    "{'name':'p'},'spec':{'priority':1,'subject':{'namespaces':{}},'ingress':[{'action':'Allow',"
    "'from':[{'namespaces':{'matchLabels':{'a':'b'}}}],'ports':[{'portRange':{'start':1,'end':2}},"
    "{'portNumber':{'protocol':'TCP','port':80}},{'namedPort':'x'}]}]}}",
    "{'apiVersion':'projectcalico.org/v3','kind':'BGPConfiguration','metadata':{'name':'default'},"
    "'spec':{'asNumber':'1.1','communities':[{'name':'c','value':'1:2'}],'prefixAdvertisements':["
    "{'cidr':'10.0.0.0/8','communities':['c','1:2']}],'nodeMeshPassword':{'secretKeyRef':{'name':"
    "'s','key':'k'}},'serviceClusterIPs':[{'cidr':'10.0.0.0/8'}],'ignoredInterfaces':['a*']}}",
    "{'apiVersion':'projectcalico.org/v3','kind':'BGPPeer','metadata':{'name':'p'},'spec':{'node':"
    "'n','peerIP':'[fd00::1]:179','asNumber':1,'reachableBy':'fd00::2','filters':['f'],"
    "'keepOriginalNextHop':true,'maxRestartTime':'1m','localWorkloadSelector':''}}",
    "{'apiVersion':'projectcalico.org/v3','kind':'BGPFilter','metadata':{'name':'f'},'spec':"
    "{'importV4':[{'action':'Accept','cidr':'10.0.0.0/8','matchOperator':'In','prefixLength':"
    "{'min':1},'communities':{'values':['1:2']},'asPathPrefix':[1],'operations':[{'prependASPath':"
    "{'prefix':[1,'2']}}]}]}}",
    "{'apiVersion':'projectcalico.org/v3','kind':'FelixConfiguration','metadata':{'name':"
    "'default'},'spec':{'routeTableRanges':[{'min':1,'max':9}],'kubeNodePortRanges':['1:2'],"
    "'failsafeInboundHostPorts':[{'protocol':'tcp','port':1,'net':'10.0.0.0/8'}],"
    "'bpfConntrackTimeouts':{'tcpSynSent':'1s'},'istioDSCPMark':'AF11','natPortRange':'1:2',"
    "'featureGates':'A=1','logDebugFilenameRegex':'a(b|c)*[d-]','logActionRateLimit':'1/day',"
    "'iptablesMarkMask':1,'bpfLogFilters':{'a':'b'}}}",
    "{'apiVersion':'projectcalico.org/v3','kind':'Node','metadata':{'name':'n'},'spec':{'bgp':"
    "{'ipv4Address':'10.0.0.1/24','asNumber':1},'orchRefs':[{'orchestrator':'k8s'}],'addresses':["
    "{'address':'10.0.0.1'}],'wireguard':{'interfaceIPv4Address':'10.0.0.1'}},'status':{}}",
    "{'apiVersion':'projectcalico.org/v3','kind':'KubeControllersConfiguration','metadata':"
    "{'name':'default'},'spec':{'controllers':{'node':{'hostEndpoint':{'templates':[{'labels':"
    "{'a':'b'},'interfaceCIDRs':['10.0.0.0/8'],'interfacePattern':'eth.*'}]}}}}}",
};
enum { N_SEEDS = ARRAY_LEN(SEEDS) };

static struct jnode *random_value(struct arena *a, size_t depth) {
    static const char *const TEXTS[] = {
        "",      "a",       "A",         "10.0.0.0/8", "10.0.0.1", "fd00::/8",   "0.0.0.0/0",
        "TCP",   "Ingress", "Delete",    "global()",   "\xff\xfe", "1:2",        "9:8",
        "65536", "90s",     "default",   "spec",       "/",        "a=b,",       "=",
        ":",     "[",       "[fd00::1]", "(",          "1.",       "node.",      "\"",
        "-",     "*",       "Auto",      "4294967296", "::/0",     "10.0.0.0/33"};
    switch (below(depth ? 8 : 6)) {
    case 0:
        return jnode_new(a, J_NULL);
    case 1:
        return jnode_new_bool(a, below(2));
    case 2: {
        static const int64_t INTS[] = {0,  1,   -1,  4,     5,         6,         58,
                                       80, 255, 256, 65535, INT64_MAX, INT64_MIN, 4294967296};
        return jnode_new_int(a, INTS[below(ARRAY_LEN(INTS))]);
    }
    case 3: {
        struct jnode *n = jnode_new(a, J_FLOAT);
        n->f = below(2) ? 1e300 : 0.5;
        n->s = n->f > 1 ? STR("1e300") : STR("0.5");
        return n;
    }
    case 4: {
        size_t len = below(4) ? below(40) : below(3000);
        char *p = arena_alloc(a, len);
        for (size_t i = 0; i < len; i++) {
            p[i] = (char)rng();
        }
        return jnode_new_str(a, str_n(p, len));
    }
    case 5:
        return jnode_new_str(a, str_c(TEXTS[below(ARRAY_LEN(TEXTS))]));
    case 6: {
        struct jnode *list = jnode_new(a, J_LIST);
        for (size_t n = below(4); n; n--) {
            jnode_append(list, random_value(a, depth - 1));
        }
        return list;
    }
    default: {
        struct jnode *map = jnode_new(a, J_MAP);
        for (size_t n = below(4); n; n--) {
            jnode_set(a, map, str_c(TEXTS[below(ARRAY_LEN(TEXTS))]), random_value(a, depth - 1));
        }
        return map;
    }
    }
}

static size_t count(const struct jnode *n) {
    size_t k = 1;
    jnode_each (it, n) {
        k += count(it);
    }
    return k;
}

/* The nth node, counted from the top. */
static struct jnode *nth(struct jnode *n, size_t *i) {
    if ((*i)-- == 0) {
        return n;
    }
    jnode_each (it, n) {
        struct jnode *found = nth(it, i);
        if (found) {
            return found;
        }
    }
    return NULL;
}

static void mutate(struct arena *a, struct jnode *doc, struct jnode *other) {
    size_t i = below(count(doc)), j = below(count(other));
    struct jnode *n = nth(doc, &i), *from = nth(other, &j);
    struct jnode *next = n->next;
    struct str key = n->key;
    switch (below(6)) {
    case 0: /* another value */
    case 1:
        *n = *random_value(a, 3);
        n->key = key;
        n->next = next;
        break;
    case 2: /* from another document */
        *n = *jnode_copy(a, from);
        n->key = key;
        n->next = next;
        break;
    case 3: /* one member less */
        if (n->type == J_MAP && n->child) {
            jnode_del(n, n->child->key);
        }
        break;
    case 4: /* another name, or none */
        n->key = key.p ? (below(2) ? from->key : STR("x")) : key;
        break;
    default: /* a member more, maybe one twice */
        if (n->type == J_MAP) {
            struct jnode *m = jnode_copy(a, from);
            m->next = NULL;
            jnode_append(n, m);
        } else if (n->type == J_LIST) {
            struct jnode *m = jnode_copy(a, n->child ? n->child : from);
            m->next = NULL;
            jnode_append(n, m);
        }
        break;
    }
}

static void read_it(struct arena *a, struct jnode *doc, enum model_mode mode) {
    struct object o;
    struct model_errors errs = {.a = a};
    int rc = object_read(doc, mode, STR_NULL, a, &o, &errs);
    assert_true(rc == 0 || rc == ERR_INVALID);
    assert_int_equal(rc != 0, errs.n != 0);
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(1 << 22);
    for (size_t i = 0; i < errs.n; i++) {
        assert_true(errs.p[i].message.n > 0);
        model_error_print(&b, "f", &o, &errs.p[i]);
    }
    if (o.kind) {
        struct str cells[MODEL_MAX_COLUMNS];
        size_t n = object_cells(o.kind, MODEL_WIDE, doc, 0, a, cells);
        for (size_t i = 0; i < n; i++) {
            buf_str(&b, cells[i]); /* all of it is read */
        }
    }
    if (rc == 0 && mode == MODEL_APPLY) {
        struct jnode *again = jnode_copy(a, doc);
        assert_int_equal(object_read(again, MODEL_APPLY, STR_NULL, a, &o, &errs), 0);
        /* By text: a tree that holds a key twice equals not even itself. */
        struct buf x MG_CLEANUP(buf_fini) = BUF_INIT(1 << 22), y MG_CLEANUP(buf_fini) = x;
        json_write(&x, doc, 0);
        json_write(&y, again, 0);
        assert_string_equal(buf_cstr(&x), buf_cstr(&y));
        assert_int_equal(object_read(again, MODEL_STORE, STR_NULL, a, &o, &errs), 0);
    }
}

static uint64_t env_number(const char *name, uint64_t dflt) {
    uint64_t v;
    return str_to_u64(str_c(getenv(name)), &v) == 0 ? v : dflt;
}

static struct jnode *seed_doc(struct arena *a) {
    size_t i = below(N_SEEDS + K_N_KINDS);
    return doc_parse(a, i < N_SEEDS ? SEEDS[i] : MINIMAL[i - N_SEEDS]);
}

static void t_seeds__accepted(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SEEDS; i++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        struct object o;
        struct model_errors errs = {.a = &a};
        int rc = object_read(doc_parse(&a, SEEDS[i]), MODEL_APPLY, STR_NULL, &a, &o, &errs);
        /* Some break a rule across fields on purpose; all are of a known kind. */
        assert_true(rc == 0 || errs.n > 0);
        assert_non_null(o.kind);
    }
}

static void t_mutated__never_crashes(void **state) {
    (void)state;
    uint64_t rounds = env_number("MODEL_ROUNDS", 20000);
    rng_state = env_number("MODEL_SEED", 88172645463325252ULL);
    for (uint64_t r = 0; r < rounds; r++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        struct jnode *doc = seed_doc(&a), *other = seed_doc(&a);
        for (size_t n = 1 + below(6); n; n--) {
            mutate(&a, doc, other);
        }
        read_it(&a, jnode_copy(&a, doc), MODEL_STORE);
        read_it(&a, doc, MODEL_APPLY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_seeds__accepted),
        cmocka_unit_test(t_mutated__never_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
