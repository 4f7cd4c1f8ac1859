/* Pools and IPAM's settings: each rule both ways. Rules: Calico's validator and clientv3/ippool.go.
 */
#include "cases.h"
#include "model/pool.h"

#define POOL "{'apiVersion':'projectcalico.org/v3','kind':'IPPool','metadata':{'name':'p'},'spec':"

static const struct doc_case POOLS[] = {
    {"{'cidr':'10.0.0.0/16'}", NULL, NULL},
    {"{'cidr':'fd00::/64'}", NULL, NULL},
    {"{}", "spec.cidr", "is missing"},
    {"{'cidr':'10.0.0.1/16'}", "spec.cidr", "write 10.0.0.0/16"},
    {"{'cidr':'10.0.0.1'}", "spec.cidr", "write 10.0.0.1/32"},
    {"{'cidr':'10.0.0/16'}", "spec.cidr", "allowed is a prefix"},
    {"{'cidr':7}", "spec.cidr", "found 7, allowed is text"},
    {"{'cidr':'169.254.4.0/24'}", "spec.cidr", "link-local range 169.254.0.0/16"},
    {"{'cidr':'168.0.0.0/6'}", "spec.cidr", "link-local"},
    {"{'cidr':'fe80::/64'}", "spec.cidr", "link-local range fe80::/10"},
    {"{'cidr':'10.0.0.0/26'}", NULL, NULL},
    {"{'cidr':'10.0.0.0/27'}", "spec.cidr", "smaller than one block of /26"},
    {"{'cidr':'10.0.0.0/27','disabled':true}", NULL, NULL},
    {"{'cidr':'10.0.0.0/27','blockSize':27}", NULL, NULL},
    {"{'cidr':'10.0.0.0/16','blockSize':19}", "spec.blockSize", "20 to 32"},
    {"{'cidr':'10.0.0.0/16','blockSize':33}", "spec.blockSize", "20 to 32"},
    {"{'cidr':'10.0.0.0/16','blockSize':129}", "spec.blockSize", "0 to 128"},
    {"{'cidr':'10.0.0.0/16','blockSize':'26'}", "spec.blockSize", "write it without quotes"},
    {"{'cidr':'fd00::/64','blockSize':115}", "spec.blockSize", "116 to 128"},
    {"{'cidr':'fd00::/64','blockSize':116}", NULL, NULL},
    {"{'cidr':'10.0.0.0/16','ipipMode':'Always'}", NULL, NULL},
    {"{'cidr':'10.0.0.0/16','ipipMode':'always'}", "spec.ipipMode", "Never, Always or CrossSubnet"},
    {"{'cidr':'10.0.0.0/16','ipipMode':'Always','vxlanMode':'Always'}", "spec.ipipMode",
     "vxlanMode Always"},
    {"{'cidr':'10.0.0.0/16','ipipMode':'Never','vxlanMode':'CrossSubnet'}", NULL, NULL},
    {"{'cidr':'fd00::/64','ipipMode':'Always'}", "spec.ipipMode", "IPv4's"},
    {"{'cidr':'fd00::/64','vxlanMode':'Always'}", NULL, NULL},
    {"{'cidr':'10.0.0.0/16','nodeSelector':'global()'}", "spec.nodeSelector", "without global()"},
    {"{'cidr':'10.0.0.0/16','allowedUses':['LoadBalancer']}", NULL, NULL},
    {"{'cidr':'10.0.0.0/16','allowedUses':['LoadBalancer','Workload']}", "spec.allowedUses",
     "no other use"},
    {"{'cidr':'10.0.0.0/16','allowedUses':['LoadBalancer'],'ipipMode':'Always'}", "spec.ipipMode",
     "not encapsulated"},
    {"{'cidr':'10.0.0.0/16','allowedUses':['LoadBalancer'],'nodeSelector':'has(a)'}",
     "spec.nodeSelector", "all()"},
    {"{'cidr':'10.0.0.0/16','allowedUses':['LoadBalancer'],'disableBGPExport':true}",
     "spec.disableBGPExport", "false"},
    {"{'cidr':'10.0.0.0/16','allowedUses':['Tunnel'],'namespaceSelector':'has(a)'}",
     "spec.namespaceSelector", "tunnels"},
    {"{'cidr':'10.0.0.0/16','namespaceSelector':'has(a)'}", NULL, NULL},
    {"{'cidr':'10.0.0.0/16','allowedUses':['Workload','Workload']}", "spec.allowedUses",
     "stands there twice"},
    {"{'cidr':'10.0.0.0/16','allowedUses':['Pods']}", "spec.allowedUses[0]",
     "Workload, Tunnel or LoadBalancer"},
    {"{'cidr':'10.0.0.0/16','natOutgong':true}", "spec.natOutgong", "did you mean natOutgoing?"},
    {"{'cidr':'10.0.0.0/16','natOutgoing':'true'}", "spec.natOutgoing", "without quotes"},
    {"null", "spec", "is missing"},
    {"[]", "spec", "found an empty list"},
};

static void t_pool_rules(void **state) {
    (void)state;
    run_cases(POOLS, ARRAY_LEN(POOLS), POOL, "}");
}

static void t_pool__apply__fills_what_calico_fills(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct object o = doc_read(&a, MODEL_APPLY, POOL "{'cidr':'10.0.0.0/16'}}");
    struct jnode *want =
        doc_parse(&a, "{'cidr':'10.0.0.0/16','blockSize':26,'ipipMode':'Never','vxlanMode':'Never',"
                      "'nodeSelector':'all()','allowedUses':['Workload','Tunnel'],"
                      "'assignmentMode':'Automatic'}");
    assert_true(jnode_eq(jnode_getc(o.doc, "spec"), want));
    const struct ip_pool_spec *p = o.spec;
    assert_int_equal(p->block_size, 26);
    assert_int_equal(p->cidr.len, 16);
    assert_true(str_is(p->node_selector, "all()"));
    assert_int_equal(p->allowed_uses.n, 2);
    /* What was filled in is accepted again, and the same. */
    struct jnode *copy = jnode_copy(&a, o.doc);
    struct object o2;
    struct model_errors errs = {.a = &a};
    assert_int_equal(object_read(copy, MODEL_APPLY, STR_NULL, &a, &o2, &errs), 0);
    assert_true(object_same(o.doc, o2.doc));
}

static void t_pool__store__document_untouched(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct object o = doc_read(&a, MODEL_STORE, POOL "{'cidr':'fd00::/64','x':1}}");
    const struct ip_pool_spec *p = o.spec;
    assert_int_equal(p->block_size, 122);
    assert_true(str_is(p->vxlan_mode, "Never"));
    assert_true(str_is(p->assignment_mode, "Automatic"));
    assert_null(p->node_selector.p);
    assert_true(jnode_eq(o.doc, doc_parse(&a, POOL "{'cidr':'fd00::/64','x':1}}")));
}

static const struct doc_case OTHERS[] = {
    {"'IPReservation','metadata':{'name':'r'},'spec':{'reservedCIDRs':['10.0.0.1','10.1.0.0/24']}",
     NULL, NULL},
    {"'IPReservation','metadata':{'name':'r'},'spec':{'reservedCIDRs':['10.0.0.300']}",
     "spec.reservedCIDRs[0]", "an address or a prefix"},
    {"'IPAMConfiguration','metadata':{'name':'default'},'spec':{'strictAffinity':true}", NULL,
     NULL},
    {"'IPAMConfiguration','metadata':{'name':'other'},'spec':{}", "metadata.name", "only one"},
    {"'IPAMConfiguration','metadata':{'name':'default'},'spec':{'maxBlocksPerHost':1000001}",
     "spec.maxBlocksPerHost", "0 to 1000000"},
    {"'IPAMConfiguration','metadata':{'name':'default'},'spec':{'maxBlocksPerHost':-1}",
     "spec.maxBlocksPerHost", "0 to 1000000"},
    {"'IPAMConfiguration','metadata':{'name':'default'},'spec':{'ipCooldownSeconds':1201}",
     "spec.ipCooldownSeconds", "0 to 1200"},
    {"'BlockAffinity','metadata':{'name':'n-10'},'spec':{'state':'confirmed','node':'n',"
     "'cidr':'10.0.0.0/26'}",
     NULL, NULL},
    {"'BlockAffinity','metadata':{'name':'n-10'},'spec':{'state':'confirmed','node':'n',"
     "'cidr':'10.0.0.0/26','deleted':true}",
     "spec.deleted", "allowed is false"},
    {"'BlockAffinity','metadata':{'name':'n-10'},'spec':{'state':'gone','node':'n',"
     "'cidr':'10.0.0.0/26'}",
     "spec.state", "confirmed, pending or pendingDeletion"},
};

static void t_ipam_kinds(void **state) {
    (void)state;
    run_cases(OTHERS, ARRAY_LEN(OTHERS), "{'apiVersion':'projectcalico.org/v3','kind':", "}");
}

static void t_ipam_configuration__absent__defaults(void **state) {
    (void)state;
    struct arena a MG_CLEANUP(arena_fini) = {0};
    struct object o = doc_read(&a, MODEL_STORE,
                               "{'apiVersion':'projectcalico.org/v3','kind':'IPAMConfiguration',"
                               "'metadata':{'name':'default'},'spec':{'maxBlocksPerHost':3}}");
    const struct ipam_configuration_spec *s = o.spec;
    assert_true(s->auto_allocate_blocks);
    assert_false(s->strict_affinity);
    assert_int_equal(s->max_blocks_per_host, 3);
    o = doc_read(&a, MODEL_STORE,
                 "{'apiVersion':'projectcalico.org/v3','kind':'IPAMConfiguration',"
                 "'metadata':{'name':'default'},'spec':{'autoAllocateBlocks':false}}");
    assert_false(((const struct ipam_configuration_spec *)o.spec)->auto_allocate_blocks);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_pool_rules),
        cmocka_unit_test(t_pool__apply__fills_what_calico_fills),
        cmocka_unit_test(t_pool__store__document_untouched),
        cmocka_unit_test(t_ipam_kinds),
        cmocka_unit_test(t_ipam_configuration__absent__defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
