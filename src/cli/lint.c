/* policy lint: did I write what I meant? Each finding names object and field, says why it matters
 * and how to repair it. Most are seen in one object; references are looked up at the end; what pods
 * can reach is asked of the calculation that programs the kernel. */
#include "cli/lint.h"

#include "base/hash.h"
#include "base/vec.h"
#include "model/k8s.h"
#include "model/policy.h"
#include "model/pool.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

struct finding {
    const char *id;
    struct str object, field, message, fix;
};

/* Something that another object must define. */
struct use {
    enum use_what { USE_PORT, USE_TIER, USE_ACCOUNT, USE_NET } what;
    struct str object, field, name;
    struct prefix net;
};

#define MAP_NAME lint_names
#define MAP_KEY struct str
#define MAP_VAL struct str
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct lint {
    struct arena a;
    VEC(struct finding) findings;
    VEC(struct use) uses;
    VEC(struct prefix) pools;
    struct lint_names defined; /* "port/http", "tier/x", "account/ns/name" */
    struct lint_names specs;   /* fingerprint of kind, namespace and spec → object */
    VEC(struct ip46) apiserver;
    struct str object; /* being looked at */
};

static void define(struct lint *l, struct str name) {
    *lint_names_put(&l->defined, name, NULL) = name;
}

static void found(struct lint *l, const char *id, struct str object, struct str field,
                  struct str message, struct str fix) {
    struct finding f = {id, object, field, message, fix};
    vec_push(&l->findings, f);
}

static void use(struct lint *l, enum use_what what, struct str field, struct str name) {
    struct use u = {.what = what,
                    .object = l->object,
                    .field = arena_dup(&l->a, field),
                    .name = arena_dup(&l->a, name)};
    vec_push(&l->uses, u);
}

static void use_net(struct lint *l, struct str field, const struct prefix *p) {
    char text[IP_TEXT_MAX];
    use(l, USE_NET, field, str_c(prefix_text(p, text)));
    l->uses.p[l->uses.n - 1].net = *p;
}

/* ---- Kubernetes' policies ---- */

static bool is_only_namespaces(const struct k8s_peer *p) {
    return p->namespace_selector.set && !p->pod_selector.set && !p->ip_block.set;
}
static bool is_only_pods(const struct k8s_peer *p) {
    return p->pod_selector.set && !p->namespace_selector.set && !p->ip_block.set;
}

static void see_k8s_rule(struct lint *l, const struct k8s_rule *r, const char *dir,
                         const char *peers, size_t i) {
    for (size_t k = 0; k < r->ports.n; k++) {
        if (r->ports.p[k].port.set && !r->ports.p[k].port.is_int) {
            use(l, USE_PORT, arena_printf(&l->a, "spec.%s[%zu].ports[%zu].port", dir, i, k),
                r->ports.p[k].port.s);
        }
    }
    for (size_t k = 0; k < r->peers.n; k++) {
        struct str field = arena_printf(&l->a, "spec.%s[%zu].%s[%zu]", dir, i, peers, k);
        struct prefix p;
        if (k + 1 < r->peers.n && is_only_namespaces(&r->peers.p[k]) &&
            is_only_pods(&r->peers.p[k + 1])) {
            found(l, "and-or-suspicious", l->object, field,
                  STR("a namespaceSelector and, as an entry of its own, a podSelector: either one "
                      "lets in, all pods of those namespaces too"),
                  STR("if pods of those namespaces were meant, put both into one entry (no dash "
                      "before podSelector)"));
        }
        if (r->peers.p[k].ip_block.set && prefix_parse(r->peers.p[k].ip_block.cidr, &p) == 0) {
            use_net(l, field, &p);
        }
    }
}

static bool has_type(const struct k8s_network_policy *p, const char *type) {
    for (size_t i = 0; i < p->policy_types.n; i++) {
        if (str_is(p->policy_types.p[i], type)) {
            return true;
        }
    }
    return p->policy_types.n == 0 && strcmp(type, "Ingress") == 0;
}

static void missing_type(struct lint *l, const char *field, const char *type) {
    found(l, "missing-policy-type", l->object, arena_printf(&l->a, "spec.%s", field),
          arena_printf(&l->a, "has %s rules, but its types lack %s: they are without effect",
                       strcmp(type, "Egress") == 0 ? "egress" : "ingress", type),
          arena_printf(&l->a, "add %s to spec.%s", type, field));
}

static void see_k8s(struct lint *l, const struct k8s_network_policy *p) {
    if (p->egress.n && !has_type(p, "Egress")) {
        missing_type(l, "policyTypes", "Egress");
    }
    if (p->ingress.n && !has_type(p, "Ingress")) {
        missing_type(l, "policyTypes", "Ingress");
    }
    for (size_t i = 0; i < p->ingress.n; i++) {
        see_k8s_rule(l, &p->ingress.p[i], "ingress", "from", i);
    }
    for (size_t i = 0; i < p->egress.n; i++) {
        see_k8s_rule(l, &p->egress.p[i], "egress", "to", i);
    }
}

/* ---- Calico's policies ---- */

static bool is_given(struct str s) {
    return s.p && str_trim(s).n > 0;
}

static bool is_blank(const struct entity_rule *e) {
    return !e->nets.n && !e->not_nets.n && !e->ports.n && !e->not_ports.n &&
           !is_given(e->selector) && !is_given(e->not_selector) &&
           !is_given(e->namespace_selector) && !e->services.set && !e->service_accounts.set;
}

static bool matches_all(const struct rule *r) {
    return !r->protocol.set && !r->not_protocol.set && !r->icmp.set && !r->not_icmp.set &&
           !r->ip_version.set && !r->http.set && is_blank(&r->source) && is_blank(&r->destination);
}

static void see_side(struct lint *l, const struct entity_rule *e, struct str field, struct str ns) {
    const struct {
        const struct port_spec *p;
        size_t n;
    } ports[] = {{e->ports.p, e->ports.n}, {e->not_ports.p, e->not_ports.n}};
    for (size_t k = 0; k < ARRAY_LEN(ports); k++) {
        for (size_t i = 0; i < ports[k].n; i++) {
            if (ports[k].p[i].name.p) {
                use(l, USE_PORT, arena_printf(&l->a, "%.*s.ports", STR_FMT(field)),
                    ports[k].p[i].name);
            }
        }
    }
    for (size_t i = 0; i < e->nets.n; i++) {
        use_net(l, arena_printf(&l->a, "%.*s.nets", STR_FMT(field)), &e->nets.p[i]);
    }
    for (size_t i = 0; ns.n && !is_given(e->namespace_selector) && i < e->service_accounts.names.n;
         i++) {
        use(l, USE_ACCOUNT, arena_printf(&l->a, "%.*s.serviceAccounts.names", STR_FMT(field)),
            arena_printf(&l->a, "%.*s/%.*s", STR_FMT(ns), STR_FMT(e->service_accounts.names.p[i])));
    }
}

static void see_rules(struct lint *l, const struct rule *v, size_t n, const char *dir,
                      struct str ns) {
    size_t n_logs = 0;
    bool is_over = false;
    for (size_t i = 0; i < n; i++) {
        struct str field = arena_printf(&l->a, "spec.%s[%zu]", dir, i);
        see_side(l, &v[i].source, arena_printf(&l->a, "%.*s.source", STR_FMT(field)), ns);
        see_side(l, &v[i].destination, arena_printf(&l->a, "%.*s.destination", STR_FMT(field)), ns);
        if (is_over) {
            found(l, "shadowed", l->object, field,
                  STR("comes after a rule that matches everything: it is never asked"),
                  STR("move it before that rule, or remove it"));
        }
        n_logs += v[i].action == RULE_LOG;
        is_over = v[i].action != RULE_LOG && matches_all(&v[i]);
        if (is_over && i + 2 < n) {
            n = i + 2; /* one finding is enough */
        }
    }
    if (n && n_logs == n) {
        found(
            l, "log-only-drops", l->object, arena_printf(&l->a, "spec.%s", dir),
            STR("only logs: the pods that it selects are closed all the same, since the end of the "
                "tier denies what no rule decided"),
            STR("end with a rule of action Pass or Allow"));
    }
}

static void see_calico(struct lint *l, const struct policy_spec *p, struct str ns) {
    if (p->tier.n) {
        use(l, USE_TIER, STR("spec.tier"), p->tier);
    }
    if (p->types && p->egress.n && !(p->types & POLICY_EGRESS)) {
        missing_type(l, "types", "Egress");
    }
    if (p->types && p->ingress.n && !(p->types & POLICY_INGRESS)) {
        missing_type(l, "types", "Ingress");
    }
    see_rules(l, p->ingress.p, p->ingress.n, "ingress", ns);
    see_rules(l, p->egress.p, p->egress.n, "egress", ns);
}

/* ---- all objects ---- */

static void see_spec(struct lint *l, const struct kind *k, const struct object *o) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64U << 20);
    buf_printf(&b, "%s %.*s ", k->kind, STR_FMT(o->meta.ns));
    const struct jnode *spec = jnode_getc(o->doc, "spec");
    if (spec) {
        json_write(&b, spec, 0);
    }
    struct str key = arena_printf(&l->a, "%016llx", (unsigned long long)hash_fixed(0, b.p, b.n));
    bool is_new;
    struct str *first = lint_names_put(&l->specs, key, &is_new);
    if (is_new) {
        *first = l->object;
    } else {
        found(l, "duplicate", l->object, STR("spec"),
              arena_printf(&l->a, "says the same as %.*s", STR_FMT(*first)), STR("remove one"));
    }
}

static void see_slice(struct lint *l, const struct object *o) {
    const struct k8s_endpoint_slice *s = o->spec;
    for (size_t i = 0; str_is(o->meta.ns, "default") && i < o->meta.labels.n; i++) {
        if (!str_is(o->meta.labels.p[i].key, "kubernetes.io/service-name") ||
            !str_is(o->meta.labels.p[i].value, "kubernetes")) {
            continue;
        }
        for (size_t k = 0; k < s->endpoints.n; k++) {
            for (size_t m = 0; m < s->endpoints.p[k].addresses.n; m++) {
                vec_push(&l->apiserver, s->endpoints.p[k].addresses.p[m]);
            }
        }
    }
}

static void on_object(void *arg, const struct kind *k, const struct object *o) {
    struct lint *l = arg;
    struct str ns = o->meta.ns.p ? o->meta.ns : STR("");
    l->object = arena_printf(&l->a, "%s/%.*s%s%.*s", k->kind, STR_FMT(ns), ns.n ? "/" : "",
                             STR_FMT(o->meta.name));
    switch ((int)k->id) {
    case K_POD: {
        const struct k8s_pod *p = o->spec;
        for (size_t i = 0; i < p->ports.n; i++) {
            if (p->ports.p[i].name.n) {
                define(l, arena_printf(&l->a, "port/%.*s", STR_FMT(p->ports.p[i].name)));
            }
        }
        break;
    }
    case K_TIER:
        define(l, arena_printf(&l->a, "tier/%.*s", STR_FMT(o->meta.name)));
        break;
    case K_SERVICE_ACCOUNT:
        define(l, arena_printf(&l->a, "account/%.*s/%.*s", STR_FMT(ns), STR_FMT(o->meta.name)));
        break;
    case K_IP_POOL:
        vec_push(&l->pools, ((const struct ip_pool_spec *)o->spec)->cidr);
        break;
    case K_ENDPOINT_SLICE:
        see_slice(l, o);
        break;
    case K_K8S_NETWORK_POLICY:
        see_k8s(l, o->spec);
        see_spec(l, k, o);
        break;
    case K_NETWORK_POLICY:
    case K_GLOBAL_NETWORK_POLICY:
        see_calico(l, o->spec, ns);
        see_spec(l, k, o);
        break;
    default:
        break;
    }
}

/* ---- references ---- */

static bool is_defined(const struct lint *l, const char *what, struct str name) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    buf_printf(&b, "%s/%.*s", what, STR_FMT(name));
    return lint_names_get(&l->defined, buf_view(&b)) != NULL;
}

static bool in_pool(const struct lint *l, const struct prefix *p) {
    for (size_t i = 0; i < l->pools.n; i++) {
        if (l->pools.p[i].ip.family == p->ip.family && l->pools.p[i].len <= p->len &&
            prefix_has_ip(&l->pools.p[i], &p->ip)) {
            return true;
        }
    }
    return false;
}

static void look_up(struct lint *l, const struct use *u) {
    static const char *const builtin[] = {"default", "kube-admin", "kube-baseline"};
    bool is_builtin = false;
    for (size_t i = 0; u->what == USE_TIER && i < ARRAY_LEN(builtin); i++) {
        is_builtin |= str_is(u->name, builtin[i]);
    }
    switch (u->what) {
    case USE_PORT:
        if (!is_defined(l, "port", u->name)) {
            found(l, "unknown-port-name", u->object, u->field,
                  arena_printf(&l->a, "no pod has a port named \"%.*s\": it matches nothing",
                               STR_FMT(u->name)),
                  STR("give the container's port that name, or write the number"));
        }
        break;
    case USE_TIER:
        if (!is_builtin && !is_defined(l, "tier", u->name)) {
            found(l, "unknown-tier", u->object, u->field,
                  arena_printf(&l->a,
                               "tier \"%.*s\" does not exist: it comes after all that do, and "
                               "its end denies",
                               STR_FMT(u->name)),
                  STR("create the Tier"));
        }
        break;
    case USE_ACCOUNT:
        if (!is_defined(l, "account", u->name)) {
            found(l, "unknown-service-account", u->object, u->field,
                  arena_printf(&l->a, "service account %.*s does not exist", STR_FMT(u->name)),
                  STR("correct the name, or create it"));
        }
        break;
    case USE_NET:
        if (in_pool(l, &u->net)) {
            found(l, "ipblock-inside-pod-cidr", u->object, u->field,
                  arena_printf(&l->a, "%.*s is inside a pool of pods: their addresses come and go",
                               STR_FMT(u->name)),
                  STR("select pods by labels"));
        }
        break;
    }
}

/* ---- what pods can reach ---- */

static void on_policy(void *arg, const struct calc_policy_info *p) {
    struct lint *l = arg;
    if (p->n_selected == 0 && p->types) {
        found(l, "selects-nothing",
              arena_printf(&l->a, "%.*s/%.*s%s%.*s", STR_FMT(p->kind), STR_FMT(p->ns),
                           p->ns.n ? "/" : "", STR_FMT(p->name)),
              STR("spec"), STR("no pod is selected: it has no effect"),
              STR("compare its selector with `margay get pods -A --show-labels`"));
    }
}

static bool has_label(const struct world_pod *p, const char *key, const char *value) {
    for (size_t i = 0; i < p->labels.n; i++) {
        if (str_is(p->labels.p[i].key, key) && str_is(p->labels.p[i].value, value)) {
            return true;
        }
    }
    return false;
}

/* May the pod send there? An end without a pod is outside. */
static bool may_send(const struct world *w, const struct world_pod *from,
                     const struct world_pod *to, uint8_t protocol, uint16_t port) {
    struct packet p = {.protocol = protocol, .sport = 40000, .dport = port};
    struct verdict_why why;
    return !world_ends(from, to, &p) ||
           verdict_of(w->mirror, CALC_EGRESS, &p, &why) == VERDICT_ALLOW;
}

/* One finding a namespace: its first pod that can't, and how many can't. */
struct blocked {
    const char *id, *what;
    struct str first;
    size_t n;
};

static void count(struct blocked *b, const struct world_pod *p, bool is_blocked) {
    if (is_blocked && b->n++ == 0) {
        b->first = p->name;
    }
}

static void tell_blocked(struct lint *l, struct str ns, struct blocked *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (v[i].n) {
            found(l, v[i].id, arena_printf(&l->a, "Namespace/%.*s", STR_FMT(ns)), STR("egress"),
                  arena_printf(&l->a, "%zu pod%s (%.*s …) can't reach %s", v[i].n,
                               v[i].n == 1 ? "" : "s", STR_FMT(v[i].first), v[i].what),
                  arena_printf(&l->a,
                               "allow it in a policy that selects them; margay policy for-pod "
                               "%.*s/%.*s",
                               STR_FMT(ns), STR_FMT(v[i].first)));
            v[i].n = 0;
        }
    }
}

static void see_egress(struct lint *l, const struct world *w) {
    struct world_pod resolver = {.has_ip = {true, true}}, api = {.ns = STR("")};
    bool has_dns = false;
    (void)!ip_parse(STR("198.51.100.53"), &resolver.ips[0]); /* somebody outside (RFC 5737, 3849) */
    (void)!ip_parse(STR("2001:db8::53"), &resolver.ips[1]);
    for (size_t i = 0; i < w->n_pods && !has_dns; i++) {
        has_dns = has_label(&w->pods[i], "k8s-app", "kube-dns");
        resolver = has_dns ? w->pods[i] : resolver;
    }
    for (size_t i = 0; i < l->apiserver.n; i++) {
        size_t f = l->apiserver.p[i].family == IP_V6;
        api.ips[f] = l->apiserver.p[i];
        api.has_ip[f] = true;
    }
    const char *dns = has_dns ? "the pods of the cluster's DNS" : "a DNS server outside";
    struct blocked v[] = {
        {.id = "dns-blocked-udp", .what = arena_printf(&l->a, "%s by UDP 53", dns).p},
        {.id = "dns-blocked-tcp", .what = arena_printf(&l->a, "%s by TCP 53", dns).p},
        {.id = "cuts-apiserver", .what = "the Kubernetes API server (TCP 443 or 6443)"}};
    for (size_t i = 0; i < w->n_pods; i++) {
        const struct world_pod *p = &w->pods[i];
        if (i && !str_eq(p->ns, w->pods[i - 1].ns)) {
            tell_blocked(l, w->pods[i - 1].ns, v, ARRAY_LEN(v));
        }
        const struct calc_endpoint *e = mirror_endpoint(w->mirror, p->ns, p->name);
        if (!e || e->egress.n_tiers == 0) {
            continue; /* open */
        }
        count(&v[0], p, !may_send(w, p, &resolver, IPPROTO_UDP, 53));
        count(&v[1], p, !may_send(w, p, &resolver, IPPROTO_TCP, 53));
        count(&v[2], p,
              l->apiserver.n && !may_send(w, p, &api, IPPROTO_TCP, 443) &&
                  !may_send(w, p, &api, IPPROTO_TCP, 6443));
    }
    if (w->n_pods) {
        tell_blocked(l, w->pods[w->n_pods - 1].ns, v, ARRAY_LEN(v));
    }
}

static void see_host_network(struct lint *l, const struct world *w) {
    for (size_t i = 0; i < w->n_pods; i++) {
        const struct world_pod *p = &w->pods[i];
        for (size_t k = 0; p->is_host_network && k < w->n_pods; k++) {
            const struct world_pod *q = &w->pods[k];
            const struct calc_endpoint *e =
                !q->is_host_network && str_eq(p->ns, q->ns) && p->labels.n &&
                        p->labels.n == q->labels.n &&
                        str_eq(p->labels.p[0].value, q->labels.p[0].value)
                    ? mirror_endpoint(w->mirror, q->ns, q->name)
                    : NULL;
            if (e && (e->ingress.n_tiers || e->egress.n_tiers)) {
                found(l, "hostnetwork-ignored",
                      arena_printf(&l->a, "Pod/%.*s/%.*s", STR_FMT(p->ns), STR_FMT(p->name)),
                      STR("spec.hostNetwork"),
                      STR("policies select its like by labels, but not it: it uses the host's "
                          "network"),
                      STR("a HostEndpoint closes the host's interfaces"));
                break;
            }
        }
    }
}

/* ---- out ---- */

static int finding_cmp(const void *a, const void *b) {
    const struct finding *x = a, *y = b;
    int r = str_cmp(x->object, y->object);
    r = r ? r : str_cmp(x->field, y->field);
    return r ? r : strcmp(x->id, y->id);
}

static void put(struct buf *json, const char *name, struct str value, const char *end) {
    buf_printf(json, "\"%s\":", name);
    json_quote(json, value);
    buf_puts(json, end);
}

int lint_run(char **files, size_t n_files, struct buf *text, struct buf *json) {
    struct lint l = {.object = STR("")};
    struct world *w = world_open_seen(files, n_files, on_object, &l);
    if (!w) {
        return 2;
    }
    for (size_t i = 0; i < l.uses.n; i++) {
        look_up(&l, &l.uses.p[i]);
    }
    calc_each_policy(w->calc, on_policy, &l);
    see_egress(&l, w);
    see_host_network(&l, w);
    vec_sort(&l.findings, finding_cmp);
    buf_puts(json, "{\"findings\":[");
    for (size_t i = 0; i < l.findings.n; i++) {
        const struct finding *f = &l.findings.p[i];
        buf_printf(text, "%-24s %.*s  %.*s\n    %.*s\n    repair: %.*s\n", f->id,
                   STR_FMT(f->object), STR_FMT(f->field), STR_FMT(f->message), STR_FMT(f->fix));
        buf_puts(json, i ? ",{" : "{");
        put(json, "id", str_c(f->id), ",");
        put(json, "object", f->object, ",");
        put(json, "field", f->field, ",");
        put(json, "message", f->message, ",");
        put(json, "fix", f->fix, "}");
    }
    buf_puts(json, "]}");
    buf_printf(text, "%zu finding%s\n", l.findings.n, l.findings.n == 1 ? "" : "s");
    int rc = l.findings.n > 0;
    world_free(w);
    vec_fini(&l.findings);
    vec_fini(&l.uses);
    vec_fini(&l.pools);
    vec_fini(&l.apiserver);
    lint_names_fini(&l.defined);
    lint_names_fini(&l.specs);
    arena_fini(&l.a);
    return rc;
}
