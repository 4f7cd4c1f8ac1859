/* Rules on routes: BGPFilters, and what Calico's templates say around them. */
#include "bgp/conf_int.h"

#include <stdio.h>

struct rules {
    VEC(struct filter_rule) v;
};

static struct filter_rule *add(struct rules *r, const char *fmt, ...) MG_PRINTF(2, 3);
static struct filter_rule *add(struct rules *r, const char *fmt, ...) {
    struct filter_rule rule = {0};
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(rule.name, sizeof(rule.name), fmt, ap); /* cut at the end: names only explain */
    va_end(ap);
    vec_push(&r->v, rule);
    return &r->v.p[r->v.n - 1];
}

static void set_cidr(struct filter_rule *r, const struct prefix *cidr, enum filter_operator op,
                     enum filter_action action) {
    r->has_cidr = true;
    r->cidr = prefix_mask(*cidr);
    r->op = op;
    r->action = action;
}

/* "aa:nn" or "aa:nn:mm" in network order; 0: it is none. */
static uint8_t community(struct str s, uint8_t out[12]) {
    uint64_t v[3];
    size_t n = 0;
    while (s.p) {
        struct str part = str_cut(&s, ':');
        if (n == 3 || str_to_u64(part, &v[n]) < 0 || v[n] > UINT32_MAX) {
            return 0;
        }
        n++;
    }
    if (n == 2 && v[0] <= UINT16_MAX && v[1] <= UINT16_MAX) {
        set_u16(out, (unsigned)v[0]);
        set_u16(out + 2, (unsigned)v[1]);
        return 4;
    }
    if (n != 3) {
        return 0;
    }
    for (size_t i = 0; i < 3; i++) {
        set_u32(out + 4 * i, (uint32_t)v[i]);
    }
    return 12;
}

/* ---- BGPFilter ---- */

static uint8_t as_list(const struct jnode *list, uint32_t out[FILTER_OP_AS]) {
    uint8_t n = 0;
    jnode_each (it, list) {
        if (n < FILTER_OP_AS) {
            out[n++] = conf_as_of(it);
        }
    }
    return n;
}

static void take_match(struct build *b, struct filter_rule *r, const struct jnode *n,
                       enum bgp_family f) {
    static const char *const OPERATORS[] = {[MATCH_IN] = "In",
                                            [MATCH_NOT_IN] = "NotIn",
                                            [MATCH_EQUAL] = "Equal",
                                            [MATCH_NOT_EQUAL] = "NotEqual"};
    struct prefix cidr;
    if (prefix_parse(conf_str(n, "cidr"), &cidr) == 0) {
        r->has_cidr = true;
        r->cidr = prefix_mask(cidr);
        for (size_t i = 0; i < ARRAY_LEN(OPERATORS); i++) {
            if (str_is(conf_str(n, "matchOperator"), OPERATORS[i])) {
                r->op = (enum filter_operator)i;
            }
        }
        const struct jnode *len = conf_get(n, "prefixLength");
        if (len) {
            int64_t min = conf_int(len, "min", 0), max = conf_int(len, "max", bgp_bits(f));
            r->has_len = true;
            r->len_min = (uint8_t)(min < cidr.len ? cidr.len : min);
            r->len_max = (uint8_t)(max > (int64_t)bgp_bits(f) ? bgp_bits(f) : max);
        }
    }
    if (str_is(conf_str(n, "source"), "RemotePeers")) {
        r->sources = 1U << ROUTE_PEER;
    }
    struct str interface = conf_str(n, "interface");
    if (interface.n && interface.n < sizeof(r->interface)) {
        memcpy(r->interface, interface.p, interface.n);
    }
    struct str type = conf_str(n, "peerType");
    r->peer = str_is(type, "iBGP")   ? FILTER_IBGP
              : str_is(type, "eBGP") ? FILTER_EBGP
                                     : FILTER_ANY_PEER;
    const struct jnode *values = conf_get(conf_get(n, "communities"), "values");
    if (values && values->child) {
        r->n_community = community(jnode_str(values->child), r->community);
        if (!r->n_community) {
            conf_problem(b, "%s: community \"%.*s\" is none, so the rule is not used", r->name,
                         STR_FMT(jnode_str(values->child)));
        }
    }
    r->n_as = as_list(conf_get(n, "asPathPrefix"), r->as);
    int64_t priority = conf_int(n, "priority", 0);
    if (priority) {
        r->has_priority = true;
        r->priority_min = r->priority_max = (uint32_t)priority;
    }
}

static void take_operations(struct filter_rule *r, const struct jnode *list) {
    jnode_each (it, list) {
        struct filter_op op = {0};
        const struct jnode *v;
        if (r->n_ops == FILTER_OPS) {
            return;
        }
        if ((v = conf_get(it, "addCommunity")) != NULL) {
            op.kind = OP_ADD_COMMUNITY;
            op.n = community(conf_str(v, "value"), op.bytes);
            if (!op.n) {
                continue;
            }
        } else if ((v = conf_get(it, "prependASPath")) != NULL) {
            op.kind = OP_PREPEND;
            op.n = as_list(conf_get(v, "prefix"), op.as);
        } else if ((v = conf_get(it, "setPriority")) != NULL) {
            op.kind = OP_SET_PRIORITY;
            op.value = (uint32_t)conf_int(v, "value", CONF_PRIORITY_DEFAULT);
        } else {
            continue;
        }
        r->ops[r->n_ops++] = op;
    }
}

static const struct object *find_filter(struct build *b, struct str name) {
    size_t at;
    for (const struct object *o = conf_first(b, K_BGP_FILTER, &at); o;
         o = conf_next(b, K_BGP_FILTER, &at)) {
        if (str_eq(o->meta.name, name)) {
            return o;
        }
    }
    return NULL;
}

static void add_filters(struct build *b, struct rules *r, const struct jnode *names,
                        const char *list, const char *what) {
    jnode_each (it, names) {
        const struct object *o = find_filter(b, jnode_str(it));
        if (!o) {
            conf_problem(b, "%s: there is no BGPFilter %.*s", what, STR_FMT(jnode_str(it)));
            continue;
        }
        unsigned i = 0;
        jnode_each (n, conf_get(conf_get(o->doc, "spec"), list)) {
            struct filter_rule *rule =
                add(r, "BGPFilter %.*s %s[%u]", STR_FMT(o->meta.name), list, i++);
            take_match(b, rule, n, str_ends(str_c(list), STR("V6")) ? BGP_V6 : BGP_V4);
            bool is_broken = conf_get(n, "communities") && !rule->n_community;
            if (is_broken) {
                r->v.n--; /* a condition that can't hold */
                continue;
            }
            rule->action = str_is(conf_str(n, "action"), "Accept") ? FILTER_ACCEPT : FILTER_REJECT;
            take_operations(rule, conf_get(n, "operations"));
        }
    }
}

static struct bgp_filter *finish(struct rules *r, enum filter_action otherwise) {
    struct bgp_filter *f = bgp_filter_new(r->v.p, (unsigned)r->v.n, otherwise);
    vec_fini(&r->v);
    return f;
}

struct bgp_filter *conf_import(struct build *b, const struct jnode *filters, enum bgp_family f,
                               const char *what) {
    struct rules r = {0};
    add_filters(b, &r, filters, f == BGP_V4 ? "importV4" : "importV6", what);
    return finish(&r, FILTER_ACCEPT);
}

/* ---- export as Calico does it ---- */

/* prefixAdvertisements: values, or names that communities gives to values. */
static void add_communities(struct build *b, struct rules *r, enum bgp_family f) {
    const struct jnode *list = conf_setting(b, "prefixAdvertisements");
    const struct jnode *names = conf_setting(b, "communities");
    unsigned i = 0;
    jnode_each (it, list) {
        struct prefix cidr;
        unsigned at = i++;
        if (prefix_parse(conf_str(it, "cidr"), &cidr) < 0 || cidr.ip.family != bgp_family_ip(f)) {
            continue;
        }
        struct filter_rule *rule = NULL;
        jnode_each (n, conf_get(it, "communities")) {
            struct filter_op op = {.kind = OP_ADD_COMMUNITY};
            struct str value = jnode_str(n);
            jnode_each (def, names) {
                if (str_eq(conf_str(def, "name"), value)) {
                    value = conf_str(def, "value");
                    break;
                }
            }
            op.n = community(value, op.bytes);
            if (!op.n) {
                conf_problem(b,
                             "BGPConfiguration: prefixAdvertisements[%u]: community \"%.*s\" is "
                             "neither a value nor a name from communities",
                             at, STR_FMT(jnode_str(n)));
                continue;
            }
            if (!rule || rule->n_ops == FILTER_OPS) {
                rule = add(r, "prefixAdvertisements[%u]", at);
                set_cidr(rule, &cidr, MATCH_IN, FILTER_NEXT);
            }
            rule->ops[rule->n_ops++] = op;
        }
    }
}

static void add_hidden_pools(struct build *b, struct rules *r, enum bgp_family f, bool is_hidden) {
    for (size_t i = 0; i < b->pools.n; i++) {
        const struct conf_pool *p = &b->pools.p[i];
        if (p->cidr.ip.family != bgp_family_ip(f) || p->is_hidden != is_hidden) {
            continue;
        }
        struct filter_rule *rule =
            add(r, "IPPool %.*s%s", STR_FMT(p->name), is_hidden ? " disableBGPExport" : "");
        set_cidr(rule, &p->cidr, MATCH_IN, is_hidden ? FILTER_REJECT : FILTER_ACCEPT);
    }
}

/* Routes over the agent's tunnels are of no use to who has tunnels of his own. */
static void add_tunnels(struct build *b, struct rules *r, enum bgp_family f, bool is_ibgp) {
    static const char *const SAME_AS[] = {"*.cali", "*.calico"};
    for (size_t i = 0; is_ibgp && i < ARRAY_LEN(SAME_AS); i++) {
        struct filter_rule *rule = add(r, "tunnel route to a peer of the same AS");
        memcpy(rule->interface, SAME_AS[i], strlen(SAME_AS[i]));
        rule->action = FILTER_REJECT;
    }
    if (is_ibgp && f == BGP_V4 && b->felix_owns_ipip) {
        struct filter_rule *rule = add(r, "tunnel route to a peer of the same AS");
        memcpy(rule->interface, "tunl0", 5);
        rule->action = FILTER_REJECT;
    }
    struct filter_rule *rule = add(r, "route of the BPF data plane");
    memcpy(rule->interface, "bpf*.cali", 9);
    rule->action = FILTER_REJECT;
}

/* The block, nothing beneath it: but for what is moving, which has a better metric than normal. */
static void add_blocks(struct build *b, struct rules *r, enum bgp_family f) {
    uint32_t normal = b->out->priority[f];
    for (size_t i = 0; i < b->blocks.n; i++) {
        const struct prefix *cidr = &b->blocks.p[i].cidr;
        if (cidr->ip.family != bgp_family_ip(f)) {
            continue;
        }
        set_cidr(add(r, "own block"), cidr, MATCH_EQUAL, FILTER_ACCEPT);
        if (normal > 1) {
            struct filter_rule *rule = add(r, "moving pod in an own block");
            set_cidr(rule, cidr, MATCH_IN, FILTER_ACCEPT);
            rule->has_priority = true;
            rule->priority_min = 1;
            rule->priority_max = normal - 1;
        }
        set_cidr(add(r, "inside an own block, which is announced as a whole"), cidr, MATCH_IN,
                 FILTER_REJECT);
    }
}

static void add_services(struct build *b, struct rules *r, enum bgp_family f) {
    static const char *const LISTS[] = {"serviceLoadBalancerIPs", "serviceExternalIPs"};
    for (size_t i = 0; i < b->routes.n; i++) {
        const struct conf_route *route = &b->routes.p[i];
        if (!route->is_block && route->prefix.ip.family == bgp_family_ip(f) &&
            route->prefix.len < bgp_bits(f)) {
            set_cidr(add(r, "%.*s", STR_FMT(route->owner)), &route->prefix, MATCH_IN,
                     FILTER_ACCEPT);
        }
    }
    /* Single addresses may be thousands: what we originate by configuration and is no block. */
    struct filter_rule *rule = add(r, "service address of this node");
    rule->sources = 1U << ROUTE_STATIC;
    rule->action = FILTER_ACCEPT;
    if (!b->out->speaker.cluster_id) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(LISTS); i++) {
        struct prefix *cidrs;
        size_t n = conf_cidrs(b, LISTS[i], &cidrs);
        for (size_t k = 0; k < n; k++) {
            if (cidrs[k].ip.family == bgp_family_ip(f)) {
                set_cidr(add(r, "route reflector, inside %s", LISTS[i]), &cidrs[k], MATCH_IN,
                         FILTER_ACCEPT);
            }
        }
    }
}

struct bgp_filter *conf_export(struct build *b, const struct jnode *filters, enum bgp_family f,
                               bool is_ibgp, const char *what) {
    struct rules r = {0};
    add_filters(b, &r, filters, f == BGP_V4 ? "exportV4" : "exportV6", what);
    add_hidden_pools(b, &r, f, true);
    add_tunnels(b, &r, f, is_ibgp);
    add_communities(b, &r, f);
    add_blocks(b, &r, f);
    add_services(b, &r, f);
    add_hidden_pools(b, &r, f, false);
    return finish(&r, b->in->is_alone ? FILTER_ACCEPT : FILTER_REJECT);
}
