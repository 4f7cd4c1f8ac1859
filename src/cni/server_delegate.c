/* What another IPAM plugin is given to read, and whether the datastore may be written at all. */
#include "cni/server_int.h"

/* "usePodCidr" and "usePodCidrIPv6" in subnet become the node's. -1: it has none (r->fail). */
static int replace_subnet(struct cni_request *r, struct jnode *range, const struct k8s_node *node,
                          bool *did_change) {
    struct str subnet = jnode_str(jnode_getc(range, "subnet"));
    bool is_v6 = str_is(subnet, "usePodCidrIPv6");
    if (!is_v6 && !str_is(subnet, "usePodCidr")) {
        return 0;
    }
    for (size_t i = 0; node && i < node->pod_cidrs.n; i++) {
        struct prefix p;
        if (prefix_parse(node->pod_cidrs.p[i], &p) == 0 && (p.ip.family == IP_V6) == is_v6) {
            jnode_set(&r->arena, range, STR("subnet"),
                      jnode_new_str(&r->arena, node->pod_cidrs.p[i]));
            *did_change = true;
            return 0;
        }
    }
    return cni_fail(&r->fail, CNI_CODE_TRY_LATER,
                    "the cluster's controller manager must allocate node CIDRs",
                    "ipam.subnet is %.*s, but node %.*s has no such podCIDR", STR_FMT(subnet),
                    STR_FMT(r->s->node));
}

/* The configuration for the plugin, in the arena. */
static int make_input(struct cni_request *r, struct str *out) {
    struct jnode *ipam = jnode_getc(r->conf.doc, "ipam");
    struct object o = {0};
    bool did_change = false;
    *out = r->strings[WIRE_STDIN];
    if (!str_contains(*out, STR("usePodCidr"))) {
        return 0;
    }
    const struct k8s_node *node = NULL;
    if (cni_read_object(r->s, K_NODE_K8S, STR_NULL, r->s->node, &r->arena, &o, NULL) == 0) {
        node = o.spec;
    }
    if (replace_subnet(r, ipam, node, &did_change) < 0) {
        return -1;
    }
    jnode_each (set, jnode_getc(ipam, "ranges")) {
        jnode_each (range, set) {
            if (range->type == J_MAP && replace_subnet(r, range, node, &did_change) < 0) {
                return -1;
            }
        }
    }
    if (did_change) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(WIRE_TEXT_MAX);
        json_write(&b, r->conf.doc, 0);
        if (b.overflow) {
            return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "shorten it",
                            "the network configuration is above 1 MiB");
        }
        *out = arena_dup(&r->arena, buf_view(&b));
    }
    return 0;
}

static void work_input(struct cni_request *r) {
    r->step_code = make_input(r, &r->delegate_input);
}

static void have_input(struct cni_request *r) {
    if (r->step_code < 0) {
        cni_answer_fail(r);
        return;
    }
    cni_delegate(r, r->conf.ipam_type, r->delegate_command, r->delegate_input, r->delegate_next);
}

void cni_delegate_ipam(struct cni_request *r, const char *command,
                       void (*on_delegated)(struct cni_request *r, uint32_t code,
                                            struct str text)) {
    r->delegate_command = command;
    r->delegate_next = on_delegated;
    cni_step(r, work_input, have_input);
}

int cni_check_ready(struct cni_request *r) {
    struct store_item it;
    struct jnode *doc = NULL;
    struct store_key key = {
        STR(STORE_SPACE_RESOURCES),
        kind_store_key(&model_kinds[K_CLUSTER_INFORMATION], STR_NULL, STR("default"), &r->arena)};
    if (store_get(r->s->store, key, &r->arena, &it, NULL) < 0 ||
        json_parse(it.value, &json_limits_default, &r->arena, &doc, NULL) < 0) {
        return 0; /* there need not be one; a store that is away shows at the next step */
    }
    const struct jnode *ready = jnode_path(doc, "spec.datastoreReady");
    if (ready && ready->type == J_BOOL && !ready->b) {
        return cni_fail(&r->fail, CNI_CODE_TRY_LATER,
                        "it is locked for a migration; when that is over: margay datastore unlock",
                        "ClusterInformation default: datastoreReady is false");
    }
    return 0;
}
