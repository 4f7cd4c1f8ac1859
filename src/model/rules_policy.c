/* Rules across fields of policies, profiles, tiers, network sets and host endpoints. Decides what
 * Calico's validator decides (libcalico-go/lib/validator/v3/validator.go), one error a rule, at the
 * field to change. Works on decoded values; a value that could not be read has had its error. */
#include "model/policy.h"
#include "model/schema.h"

enum { PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ICMP6 = 58, PROTO_SCTP = 132 };

static bool is_global(const struct mctx *c) {
    enum kind_id id = c->obj->kind->id;
    return id == K_GLOBAL_NETWORK_POLICY || id == K_STAGED_GLOBAL_NETWORK_POLICY;
}

/* ---- parts of a rule ---- */

void icmp_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)out;
    if (member(map, "code") && !member(map, "type")) {
        model_fail_in(c, at, map, "code", "needs type: add type");
    }
}

void http_path_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    const struct http_path *p = out;
    if ((p->exact.n > 0) == (p->prefix.n > 0)) {
        model_fail(c, at, map, "found %s of exact and prefix, allowed is exactly one",
                   p->exact.n ? "both" : "neither");
    }
}

void http_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)out;
    jnode_each (m, member(map, "methods")) {
        if (m->type == J_STR && m->s.n == 0) {
            model_fail_in(c, at, map, "methods", "found an empty method, allowed is GET and such");
        }
    }
}

void service_match_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    const struct service_match *s = out;
    if (s->name.n == 0) {
        model_fail_in(c, at, map, "name", "is missing: name the Service");
    }
    if (is_global(c) && s->ns.n == 0) {
        model_fail_in(c, at, map, "namespace",
                      "is missing: a policy of all namespaces must say which one's Service");
    }
}

void rule_metadata_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)out;
    struct jnode *a = member(map, "annotations");
    if (a && a->type == J_MAP && c->mode == MODEL_APPLY) {
        struct at here = {at, STR("annotations"), 0};
        annotations_check(c, &here, a);
    }
}

/* ---- a rule ---- */

enum rule_side { SIDE_IN, SIDE_OUT, SIDE_PROFILE };

static bool has_ports(int64_t protocol) {
    return protocol == PROTO_TCP || protocol == PROTO_UDP || protocol == PROTO_SCTP;
}

static const struct port_spec *first_number(const struct port_spec *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!p[i].name.p) {
            return &p[i];
        }
    }
    return NULL;
}

static void check_ports(struct mctx *c, const struct at *at, const struct jnode *map,
                        const char *name, const struct port_spec *p, size_t n, const struct rule *r,
                        bool is_protocol_bad) {
    if (n == 0 || is_protocol_bad) {
        return;
    }
    if (!r->protocol.set) {
        if (first_number(p, n)) {
            model_fail_in(c, at, map, name,
                          "port numbers need a protocol: add protocol: TCP, UDP or SCTP");
        }
    } else if (!has_ports(r->protocol.v)) {
        model_fail_in(
            c, at, map, name,
            "protocol %lld has no ports, allowed is TCP, UDP or SCTP: change the protocol "
            "or remove %s",
            (long long)r->protocol.v, name);
    }
}

static void check_services(struct mctx *c, const struct at *at, const struct jnode *map,
                           const struct entity_rule *e, enum rule_side side, bool is_source) {
    static const char *const OTHERS[] = {"selector", "notSelector", "namespaceSelector",
                                         "nets",     "notNets",     "serviceAccounts"};
    if (side == SIDE_PROFILE || !e->services.set) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(OTHERS); i++) {
        const struct jnode *n = member(map, OTHERS[i]);
        bool is_given = n && (n->type == J_STR ? n->s.n > 0 : n->child != NULL);
        if (is_given) {
            model_fail_in(c, at, map, "services", "can't stand together with %s: remove one",
                          OTHERS[i]);
        }
    }
    if (!is_source && (e->ports.n || e->not_ports.n)) {
        model_fail_in(c, at, map, "services",
                      "can't stand together with %s: the Service has its own ports",
                      e->ports.n ? "ports" : "notPorts");
    }
    if (is_source != (side == SIDE_IN)) {
        model_fail_in(c, at, map, "services", "can only stand in the %s of an %s rule",
                      side == SIDE_IN ? "source" : "destination",
                      side == SIDE_IN ? "ingress" : "egress");
    }
}

/* The family of all nets must be one, and ipVersion's. */
static void check_families(struct mctx *c, const struct at *at, const struct jnode *map,
                           const struct rule *r) {
    static const char *const SIDES[] = {"source", "destination"};
    static const char *const NETS[] = {"nets", "notNets"};
    int family = r->ip_version.set ? (int)r->ip_version.v : 0;
    bool is_from_version = r->ip_version.set;
    for (size_t s = 0; s < 2; s++) {
        const struct jnode *side = member(map, SIDES[s]);
        struct at at_side = {at, str_c(SIDES[s]), 0};
        for (size_t k = 0; k < 2; k++) {
            const struct jnode *list = member(side, NETS[k]);
            struct at at_list = {&at_side, str_c(NETS[k]), 0};
            struct at here = {&at_list, STR_NULL, 0};
            if (!list || list->type != J_LIST) {
                continue;
            }
            jnode_each (n, list) {
                struct prefix p;
                if (n->type == J_STR && prefix_parse(n->s, &p) == 0) {
                    if (family && p.ip.family != family) {
                        model_fail(c, &here, n, "found %s, but %s IPv%d: make two rules",
                                   model_found(c, n),
                                   is_from_version ? "ipVersion of the rule says"
                                                   : "other nets of the rule are",
                                   family);
                        return;
                    }
                    family = p.ip.family;
                }
                here.i++;
            }
        }
    }
}

static void check_version(struct mctx *c, const struct at *at, const struct jnode *map,
                          const struct rule *r, const char *name, const struct opt_int *protocol) {
    if (!protocol->set || !r->ip_version.set) {
        return;
    }
    if (protocol->v == PROTO_ICMP && r->ip_version.v == 6) {
        model_fail_in(c, at, map, name, "ICMP is IPv4's, but ipVersion is 6: use ICMPv6");
    } else if (protocol->v == PROTO_ICMP6 && r->ip_version.v == 4) {
        model_fail_in(c, at, map, name, "ICMPv6 is IPv6's, but ipVersion is 4: use ICMP");
    }
}

static void check_http(struct mctx *c, const struct at *at, const struct jnode *map,
                       const struct rule *r, enum rule_side side) {
    if (!r->http.set || side == SIDE_PROFILE) {
        return;
    }
    if (side == SIDE_OUT) {
        model_fail_in(c, at, map, "http", "is for ingress rules only: remove it");
    }
    if (r->action != RULE_ALLOW) {
        model_fail_in(c, at, map, "http", "is for action Allow only: remove it");
    }
    if (r->protocol.set && r->protocol.v != PROTO_TCP) {
        model_fail_in(c, at, map, "http", "needs protocol TCP, or none given");
    }
}

static void rule_rules(struct mctx *c, const struct at *at, struct jnode *map, struct rule *r,
                       enum rule_side side) {
    const struct jnode *action = member(map, "action");
    if (!action || (r->action == RULE_ALLOW && !str_is(jnode_str(action), "Allow"))) {
        r->action = RULE_DENY; /* unreadable: the error is noted, never let more through */
    }
    if (r->ip_version.set && r->ip_version.v == 5) {
        model_fail_in(c, at, map, "ipVersion", "found 5, allowed is 4 or 6");
        r->ip_version.set = false;
    }
    bool is_protocol_bad = member(map, "protocol") && !r->protocol.set;
    if (r->icmp.set && !is_protocol_bad &&
        !(r->protocol.set && (r->protocol.v == PROTO_ICMP || r->protocol.v == PROTO_ICMP6))) {
        model_fail_in(c, at, map, "icmp", "needs protocol: ICMP or ICMPv6");
    }
    check_version(c, at, map, r, "protocol", &r->protocol);
    check_version(c, at, map, r, "notProtocol", &r->not_protocol);
    check_families(c, at, map, r);
    for (size_t i = 0; i < 2; i++) {
        const char *name = i ? "destination" : "source";
        const struct entity_rule *e = i ? &r->destination : &r->source;
        const struct jnode *m = member(map, name);
        struct at here = {at, str_c(name), 0};
        if (!m || m->type != J_MAP) {
            continue;
        }
        check_ports(c, &here, m, "ports", e->ports.p, e->ports.n, r, is_protocol_bad);
        check_ports(c, &here, m, "notPorts", e->not_ports.p, e->not_ports.n, r, is_protocol_bad);
        check_services(c, &here, m, e, side, i == 0);
    }
    check_http(c, at, map, r, side);
}

void rule_rules_in(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    rule_rules(c, at, map, out, SIDE_IN);
}
void rule_rules_out(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    rule_rules(c, at, map, out, SIDE_OUT);
}
void rule_rules_profile(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    rule_rules(c, at, map, out, SIDE_PROFILE);
}

/* What MODEL_STORE makes of rules with errors: see struct rule. They keep their places, so that
 * what is said of rule 3 stays true. */
static void settle_broken(struct mctx *c, struct rule *p, size_t n) {
    for (size_t i = 0; c->mode == MODEL_STORE && i < n; i++) {
        if (!p[i].is_broken) {
            continue;
        }
        enum rule_action action = p[i].action;
        p[i] = (struct rule){.action = RULE_DENY, .is_broken = true};
        if (action == RULE_ALLOW || action == RULE_LOG) {
            struct prefix *net = arena_new(c->a, struct prefix);
            net->ip.family = IP_V4;
            p[i].action = action;
            p[i].ip_version = (struct opt_int){true, 6}; /* no packet is of both families */
            p[i].source.nets.p = net;
            p[i].source.nets.n = 1;
            p[i].source.nets.set = true;
        }
    }
}

void profile_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    struct profile_spec *p = out;
    (void)at;
    (void)map;
    settle_broken(c, p->ingress.p, p->ingress.n);
    settle_broken(c, p->egress.p, p->egress.n);
}

/* ---- a policy ---- */

/* A selector that is no text must not become "no selector", which selects all: it becomes one that
 * does not parse, and the calculation closes what the policy may have meant. */
static void settle_selectors(struct mctx *c, const struct jnode *map, struct policy_spec *p) {
    struct {
        const char *name;
        struct str *s;
    } selectors[] = {{"selector", &p->selector},
                     {"namespaceSelector", &p->namespace_selector},
                     {"serviceAccountSelector", &p->service_account_selector}};
    for (size_t i = 0; c->mode == MODEL_STORE && i < ARRAY_LEN(selectors); i++) {
        const struct jnode *n = member(map, selectors[i].name);
        if (n && n->type != J_STR) {
            *selectors[i].s = STR("(not a text)");
        }
    }
}

/* What Calico's client writes on create and update (api/pkg/defaults): types by the rules given. */
static void fill_policy(struct mctx *c, struct jnode *spec, struct policy_spec *p) {
    if (p->types == 0) {
        bool has_in = p->ingress.n > 0, has_out = p->egress.n > 0;
        p->types =
            has_out ? (has_in ? POLICY_INGRESS | POLICY_EGRESS : POLICY_EGRESS) : POLICY_INGRESS;
        model_fill(c, spec, "types",
                   p->types == POLICY_INGRESS  ? "[\"Ingress\"]"
                   : p->types == POLICY_EGRESS ? "[\"Egress\"]"
                                               : "[\"Ingress\", \"Egress\"]");
    }
    struct jnode *meta = member(c->obj->doc, "metadata");
    if (!meta || meta->type != J_MAP) {
        return;
    }
    struct jnode *labels = member(meta, "labels");
    if (!labels) {
        model_fill(c, meta, "labels", "{}");
        labels = jnode_getc(meta, "labels");
    }
    if (labels->type == J_MAP) {
        struct at here = {NULL, STR("metadata"), 0};
        struct jnode *tier = jnode_new_str(c->a, p->tier);
        tier->line = labels->line;
        tier->col = labels->col;
        jnode_set(c->a, labels, STR("projectcalico.org/tier"), tier);
        c->obj->meta.labels = strmap_read(c, &here, labels);
    }
}

static void check_untracked(struct mctx *c, const struct at *at, const struct jnode *map,
                            const struct policy_spec *p) {
    if (p->do_not_track && p->pre_dnat) {
        model_fail_in(c, at, map, "preDNAT", "can't stand together with doNotTrack: remove one");
    }
    if (p->pre_dnat && (p->egress.n || (p->types & POLICY_EGRESS))) {
        model_fail_in(c, at, map, p->egress.n ? "egress" : "types",
                      "preDNAT is before routing, so nothing is egress there: remove it");
    }
    if ((p->pre_dnat || p->do_not_track) && !p->apply_on_forward) {
        model_fail_in(c, at, map, "applyOnForward", "%s needs it: add applyOnForward: true",
                      p->pre_dnat ? "preDNAT" : "doNotTrack");
    }
}

void policy_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    struct policy_spec *p = out;
    bool is_staged = c->obj->kind->id == K_STAGED_NETWORK_POLICY ||
                     c->obj->kind->id == K_STAGED_GLOBAL_NETWORK_POLICY;
    settle_selectors(c, map, p);
    settle_broken(c, p->ingress.p, p->ingress.n);
    settle_broken(c, p->egress.p, p->egress.n);
    if (p->tier.n == 0) {
        p->tier = STR("default");
        if (c->mode == MODEL_APPLY && str_is(jnode_str(member(map, "tier")), "")) {
            model_fill(c, map, "tier", "\"default\"");
        }
    }
    if (is_staged && p->staged_action.n == 0) {
        p->staged_action = STR("Set");
    }
    if (is_staged && str_is(p->staged_action, "Delete")) {
        jnode_each (n, map) {
            if (n->type != J_NULL && !str_is(n->key, "tier") && !str_is(n->key, "stagedAction")) {
                struct at here = {at, n->key.p ? n->key : STR(""), 0};
                model_fail(c, &here, n, "stagedAction Delete goes with tier alone: remove it");
            }
        }
        return;
    }
    check_untracked(c, at, map, p);
    if (c->mode == MODEL_APPLY) {
        fill_policy(c, map, p);
    }
}

void staged_k8s_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    if (str_is(jnode_str(member(map, "stagedAction")), "Delete")) {
        jnode_each (n, map) {
            if (n->type != J_NULL && !str_is(n->key, "stagedAction")) {
                struct at here = {at, n->key.p ? n->key : STR(""), 0};
                model_fail(c, &here, n, "stagedAction Delete goes with nothing else: remove it");
            }
        }
        return;
    }
    k8s_policy_rules(c, at, map, out);
}

/* ---- tier ---- */

void tier_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    static const struct {
        const char *name;
        double order;
        const char *text, *action;
    } FIXED[] = {{"default", 1000000, "1000000", "Deny"},
                 {"kube-admin", 1000, "1000", "Pass"},
                 {"kube-baseline", 10000000, "10000000", "Pass"}};
    struct tier_spec *t = out;
    const char *action = "Deny";
    for (size_t i = 0; i < ARRAY_LEN(FIXED); i++) {
        if (!str_is(c->obj->meta.name, FIXED[i].name)) {
            continue;
        }
        action = FIXED[i].action;
        if (t->order.set && t->order.v != FIXED[i].order) {
            model_fail_in(c, at, map, "order", "found %s, but tier %s has order %s: remove it",
                          model_found(c, member(map, "order")), FIXED[i].name, FIXED[i].text);
        }
        if (t->default_action.n && !str_is(t->default_action, action)) {
            model_fail_in(c, at, map, "defaultAction", "found %s, but tier %s has %s: remove it",
                          model_found(c, member(map, "defaultAction")), FIXED[i].name, action);
        }
        if (!t->order.set) {
            t->order = (struct opt_float){true, FIXED[i].order};
            if (c->mode == MODEL_APPLY) {
                model_fill(c, map, "order", FIXED[i].text);
            }
        }
    }
    if (t->default_action.n == 0) {
        t->default_action = str_c(action);
        if (c->mode == MODEL_APPLY) {
            model_fill(c, map, "defaultAction", action[0] == 'D' ? "\"Deny\"" : "\"Pass\"");
        }
    }
}

/* ---- sets and endpoints ---- */

void network_set_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    (void)at;
    (void)map;
    (void)out;
    const struct jnode *meta = member(c->obj->doc, "metadata");
    const struct jnode *labels = member(meta, "labels");
    if (member(labels, "projectcalico.org/namespace")) {
        struct at at_meta = {NULL, STR("metadata"), 0}, at_labels = {&at_meta, STR("labels"), 0};
        model_fail_in(c, &at_labels, labels, "projectcalico.org/namespace",
                      "network sets may not carry this label: remove it");
    }
}

void endpoint_port_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    const struct endpoint_port *p = out;
    if (p->protocol && !has_ports(p->protocol)) {
        model_fail_in(c, at, map, "protocol", "found %s, allowed is TCP, UDP or SCTP",
                      model_found(c, member(map, "protocol")));
    }
}

void host_endpoint_rules(struct mctx *c, const struct at *at, struct jnode *map, void *out) {
    const struct host_endpoint_spec *h = out;
    const struct jnode *ips = member(map, "expectedIPs");
    bool has_ips = ips && (ips->type != J_LIST || ips->child); /* a bad one has had its error */
    if (h->interface_name.n == 0 && !has_ips && !jnode_str(member(map, "interfaceName")).n) {
        model_fail_in(c, at, map, "interfaceName",
                      "is missing: add interfaceName, or expectedIPs to find it by");
    }
}
