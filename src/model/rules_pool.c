/* Rules across fields of pools and of IPAM's settings. Decides what Calico's validator decides of
 * one pool by itself (libcalico-go/lib/validator/v3, clientv3/ippool.go); that pools don't overlap
 * takes the other pools: the store's writer checks it. */
#include "model/pool.h"
#include "model/schema.h"

static bool is_on(struct str mode) {
    return mode.n && !str_is(mode, "Never");
}

static bool has_use(const struct ip_pool_spec *p, const char *use) {
    for (size_t i = 0; i < p->allowed_uses.n; i++) {
        if (str_is(p->allowed_uses.p[i], use)) {
            return true;
        }
    }
    return false;
}

static void check_block(struct mctx *c, const struct at *at, const struct jnode *map,
                        const struct ip_pool_spec *p) {
    bool is_v4 = p->cidr.ip.family == IP_V4;
    unsigned min = is_v4 ? 20 : 116, max = is_v4 ? 32 : 128;
    if (p->block_size < min || p->block_size > max) {
        model_fail_in(c, at, map, "blockSize", "found %u, allowed is %u to %u for IPv%d",
                      p->block_size, min, max, p->cidr.ip.family);
    } else if (!p->disabled && p->cidr.len > p->block_size) {
        char text[IP_TEXT_MAX];
        model_fail_in(c, at, map, "cidr",
                      "%s is smaller than one block of /%u: enlarge it, or give a blockSize of %u "
                      "or more",
                      prefix_text(&p->cidr, text), p->block_size,
                      p->cidr.len > min ? p->cidr.len : min);
    }
}

static void check_link_local(struct mctx *c, const struct at *at, const struct jnode *map,
                             const struct ip_pool_spec *p) {
    static const char *const RANGES[] = {"169.254.0.0/16", "fe80::/10"};
    for (size_t i = 0; i < ARRAY_LEN(RANGES); i++) {
        struct prefix r;
        int rc = prefix_parse(str_c(RANGES[i]), &r);
        mg_assert(rc == 0);
        if (prefix_overlaps(&r, &p->cidr)) {
            model_fail_in(c, at, map, "cidr", "overlaps the link-local range %s: choose another",
                          RANGES[i]);
        }
    }
}

static void check_load_balancer(struct mctx *c, const struct at *at, const struct jnode *map,
                                const struct ip_pool_spec *p) {
    if (p->allowed_uses.n > 1) {
        model_fail_in(c, at, map, "allowedUses",
                      "LoadBalancer goes with no other use: make a pool of its own");
    }
    if (is_on(p->ipip_mode) || is_on(p->vxlan_mode)) {
        model_fail_in(c, at, map, is_on(p->ipip_mode) ? "ipipMode" : "vxlanMode",
                      "a pool for LoadBalancer is not encapsulated: allowed is Never");
    }
    struct str all = str_trim(p->node_selector);
    if (all.n && !str_is(all, "all()")) {
        model_fail_in(c, at, map, "nodeSelector",
                      "a pool for LoadBalancer is of all nodes: allowed is all()");
    }
    if (p->disable_bgp_export) {
        model_fail_in(c, at, map, "disableBGPExport",
                      "a pool for LoadBalancer must be told to peers: allowed is false");
    }
}

/* What Calico's client fills in on create (clientv3/ippool.go), in the document too. */
static void fill_pool(struct mctx *c, struct jnode *map, struct ip_pool_spec *p) {
    if (p->block_size == 0) {
        p->block_size = p->cidr.ip.family == IP_V6 ? 122 : 26;
        if (c->mode == MODEL_APPLY && p->cidr.ip.family) {
            model_fill(c, map, "blockSize", p->block_size == 26 ? "26" : "122");
        }
    }
    if (p->allowed_uses.n == 0) {
        struct str *uses = arena_array(c->a, struct str, 2);
        uses[0] = STR("Workload");
        uses[1] = STR("Tunnel");
        /* Tunnels belong to no namespace: a pool of some namespaces is for workloads alone. */
        bool is_split = p->namespace_selector.n > 0;
        p->allowed_uses = (struct str_list){uses, is_split ? 1 : 2, true};
        struct jnode *given = member(map, "allowedUses");
        if (c->mode == MODEL_APPLY && !(given && given->child)) {
            model_fill(c, map, "allowedUses",
                       is_split ? "[\"Workload\"]" : "[\"Workload\", \"Tunnel\"]");
        }
    }
    struct {
        struct str *s;
        const char *name, *value, *json;
    } texts[] = {{&p->vxlan_mode, "vxlanMode", "Never", "\"Never\""},
                 {&p->ipip_mode, "ipipMode", "Never", "\"Never\""},
                 {&p->assignment_mode, "assignmentMode", "Automatic", "\"Automatic\""}};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].s->n == 0) {
            *texts[i].s = str_c(texts[i].value);
        }
    }
}

void ip_pool_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    struct ip_pool_spec *p = out;
    fill_pool(c, map, p);
    if (p->cidr.ip.family) {
        check_block(c, at, map, p);
        check_link_local(c, at, map, p);
    }
    if (is_on(p->ipip_mode) && is_on(p->vxlan_mode)) {
        model_fail_in(c, at, map, "ipipMode",
                      "can't stand together with vxlanMode %.*s: set one "
                      "to Never",
                      STR_FMT(p->vxlan_mode));
    }
    if (is_on(p->ipip_mode) && p->cidr.ip.family == IP_V6) {
        model_fail_in(c, at, map, "ipipMode", "found %.*s, but IPIP is IPv4's: use vxlanMode",
                      STR_FMT(p->ipip_mode));
    }
    if (has_use(p, "LoadBalancer")) {
        check_load_balancer(c, at, map, p);
    }
    if (has_use(p, "Tunnel") && member(map, "allowedUses") && p->namespace_selector.n) {
        model_fail_in(c, at, map, "namespaceSelector",
                      "tunnels belong to no namespace: remove it, or set allowedUses: [Workload]");
    }
}

void ipam_configuration_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)c;
    (void)at;
    struct ipam_configuration_spec *s = out;
    if (!member(map, "autoAllocateBlocks")) {
        s->auto_allocate_blocks = true;
    }
}

void block_affinity_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)out;
    const struct jnode *deleted = member(map, "deleted");
    if (deleted && deleted->type == J_BOOL && deleted->b) {
        model_fail_in(c, at, map, "deleted", "found true, allowed is false: it is set by programs");
    }
}
