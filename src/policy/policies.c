/* Policies and tiers: what selects which local endpoint; rules go out while something is selected.
 */
#include "model/admin.h"
#include "policy/calc_int.h"

#include <math.h>
#include <stdlib.h>

void policy_dirty(struct calc *c, struct cpol *p) {
    if (!p->is_dirty) {
        p->is_dirty = true;
        vec_push(&c->dirty_policies, p);
    }
}

/* ---- tiers ---- */

#define TIER_ANP "adminnetworkpolicy"
#define TIER_BANP "baselineadminnetworkpolicy"
#define TIER_BROKEN "(malformed)" /* no name that a user can give */

static bool is_builtin(struct str name, struct ctier *out) {
    static const struct {
        const char *name;
        struct ctier tier;
    } builtin[] = {
        {"default", {true, false, 1000000}},
        {"kube-admin", {true, true, 1000}},
        {"kube-baseline", {true, true, 10000000}},
        {TIER_BROKEN, {true, false, -INFINITY}},
        {TIER_ANP, {true, true, 1000}}, /* by their names before the two above */
        {TIER_BANP, {true, true, 10000000}},
    };
    for (size_t i = 0; i < ARRAY_LEN(builtin); i++) {
        if (str_is(name, builtin[i].name)) {
            *out = builtin[i].tier;
            return true;
        }
    }
    return false;
}

struct ctier tier_of(const struct calc *c, struct str name, bool *exists) {
    struct ctier t = {.has_order = false};
    struct ctier *found = map_tier_get(&c->tiers, name);
    *exists = true;
    if (found) {
        return *found;
    }
    *exists = is_builtin(name, &t);
    return t;
}

void tier_object(struct calc *c, struct str name, const struct object *o) {
    struct ctier *t = map_tier_get(&c->tiers, name);
    if (o && o->spec) {
        const struct tier_spec *s = o->spec;
        if (!t) {
            char *copy = strndup(name.p, name.n);
            mg_assert(copy != NULL);
            t = map_tier_put(&c->tiers, str_n(copy, name.n), NULL);
        }
        *t = (struct ctier){s->order.set, str_is(s->default_action, "Pass"), s->order.v};
    } else if (t) {
        size_t i = 0;
        struct str k = STR_NULL;
        struct ctier *v;
        while (map_tier_next(&c->tiers, &i, &k, &v) && v != t) {
        }
        map_tier_del(&c->tiers, name);
        free((char *)(uintptr_t)k.p);
    }
    struct cpol **p;
    for (size_t i = 0; map_pol_next(&c->policies, &i, NULL, &p);) {
        if (str_eq((*p)->tier, name)) {
            for (size_t j = 0; j < (*p)->matched.n; j++) {
                endpoint_dirty(c, (*p)->matched.p[j]);
            }
        }
    }
}

/* ---- order ---- */

static int order_cmp(bool has_a, double a, bool has_b, double b) {
    if (has_a != has_b) {
        return has_a ? -1 : 1; /* no order comes last */
    }
    return has_a && a != b ? (a < b ? -1 : 1) : 0;
}

/* "name/namespace/kind", as bytes. */
static int name_cmp(const struct cpol *a, const struct cpol *b) {
    const struct str x[] = {a->name, STR("/"), a->ns, STR("/"), a->kind_text};
    const struct str y[] = {b->name, STR("/"), b->ns, STR("/"), b->kind_text};
    MG_CLEANUP(buf_fini) struct buf t = BUF_INIT(4096), u = BUF_INIT(4096);
    for (size_t i = 0; i < ARRAY_LEN(x); i++) {
        buf_str(&t, x[i]);
        buf_str(&u, y[i]);
    }
    int r = str_cmp(buf_view(&t), buf_view(&u));
    buf_fini(&u);
    return r;
}

int policy_cmp(const struct calc *c, const struct cpol *a, const struct cpol *b) {
    if (!str_eq(a->tier, b->tier)) {
        bool has_a, has_b;
        struct ctier x = tier_of(c, a->tier, &has_a), y = tier_of(c, b->tier, &has_b);
        if (has_a != has_b) {
            return has_a ? -1 : 1; /* tiers that don't exist come after those that do */
        }
        int r = order_cmp(x.has_order, x.order, y.has_order, y.order);
        return r ? r : str_cmp(a->tier, b->tier);
    }
    int r = order_cmp(a->has_order, a->order, b->has_order, b->order);
    return r ? r : name_cmp(a, b);
}

static const struct calc *sorting; /* qsort has no argument; one thread */
static int sort_cmp(const void *a, const void *b) {
    return policy_cmp(sorting, *(struct cpol *const *)a, *(struct cpol *const *)b);
}

void calc_each_policy(const struct calc *c, void (*cb)(void *arg, const struct calc_policy_info *p),
                      void *arg) {
    VEC(struct cpol *) v = {0};
    struct cpol **p;
    for (size_t i = 0; map_pol_next(&c->policies, &i, NULL, &p);) {
        vec_push(&v, *p);
    }
    sorting = c;
    vec_sort(&v, sort_cmp);
    for (size_t i = 0; i < v.n; i++) {
        const struct cpol *x = v.p[i];
        struct calc_policy_info info = {.kind = x->kind_text,
                                        .tier = x->tier,
                                        .ns = x->ns,
                                        .name = x->name,
                                        .has_order = x->has_order,
                                        .is_staged = x->is_staged,
                                        .order = x->order,
                                        .types = x->types,
                                        .n_selected = x->matched.n};
        for (int d = 0; d < 2; d++) {
            info.n_rules[d] = rules_count(x->written[d]);
            info.ids[d] = x->dirs[d].id;
        }
        cb(arg, &info);
    }
    vec_fini(&v);
}

/* ---- what a policy says ---- */

static void set_rules(struct cpol *p, enum calc_dir dir, struct written *take_w) {
    free(p->written[dir]);
    p->written[dir] = take_w;
}

static void no_rules(struct cpol *p) {
    set_rules(p, CALC_INGRESS, NULL);
    set_rules(p, CALC_EGRESS, NULL);
}

/* A policy that can't be read as it was meant: where it stands and what it says may be wrong, so it
 * comes before all others and denies. */
static void close_all(struct cpol *p) {
    static const struct rule deny_all = {.action = RULE_DENY};
    p->tier = STR(TIER_BROKEN);
    p->has_order = true;
    p->order = 0;
    p->types = POLICY_INGRESS | POLICY_EGRESS;
    p->is_untracked = p->is_pre_dnat = p->is_on_forward = false;
    for (int d = 0; d < 2; d++) {
        set_rules(p, (enum calc_dir)d, rules_pack(&deny_all, 1, true));
    }
}

/* projectcalico.org/namespace == 'ns' */
static void and_namespace(struct buf *b, struct str ns) {
    MG_CLEANUP(buf_fini) struct buf t = BUF_INIT(1024);
    buf_printf(&t, LABEL_NAMESPACE " == '%.*s'", STR_FMT(ns));
    selector_and(b, buf_view(&t));
}

static int read_calico(struct cpol *p, const struct policy_spec *s, struct str ns, struct arena *a,
                       struct buf *sel, struct err *e) {
    p->tier = s->tier.n ? s->tier : STR("default");
    p->has_order = s->order.set;
    p->order = s->order.v;
    p->types = s->types ? s->types : POLICY_INGRESS | POLICY_EGRESS;
    p->is_untracked = s->do_not_track;
    p->is_pre_dnat = s->pre_dnat;
    p->is_on_forward = s->apply_on_forward;
    set_rules(p, CALC_INGRESS, rules_pack(s->ingress.p, s->ingress.n, true));
    set_rules(p, CALC_EGRESS, rules_pack(s->egress.p, s->egress.n, true));
    if (s->is_broken) {
        close_all(p);
    }
    int r = 0;
    if (ns.n) {
        and_namespace(sel, ns);
    } else if (s->namespace_selector.n) {
        r = selector_prefixed(s->namespace_selector, "pcns.", LABEL_NAMESPACE, a, sel, e);
    }
    if (r == 0 && s->service_account_selector.n) {
        r = selector_prefixed(s->service_account_selector, "pcsa.", LABEL_SERVICE_ACCOUNT, a, sel,
                              e);
    }
    if (r == 0 && str_trim(s->selector).n) {
        selector_and(sel, s->selector);
    }
    return r;
}

static int read_k8s(struct cpol *p, const struct k8s_network_policy *s, struct str ns,
                    struct buf *sel, struct err *problem, struct err *e) {
    p->tier = STR("default");
    p->has_order = true;
    p->order = 1000;
    p->types = s->policy_types.n ? 0 : POLICY_INGRESS;
    for (size_t i = 0; i < s->policy_types.n; i++) {
        p->types |= str_is(s->policy_types.p[i], "Egress") ? POLICY_EGRESS : POLICY_INGRESS;
    }
    for (int d = 0; d < 2; d++) {
        set_rules(p, (enum calc_dir)d, k8s_rules(s, (enum calc_dir)d, problem));
    }
    if (s->is_broken) { /* it can only allow */
        p->types = POLICY_INGRESS | POLICY_EGRESS;
        no_rules(p);
    }
    selector_and(sel, STR(LABEL_ORCHESTRATOR " == 'k8s'"));
    and_namespace(sel, ns);
    MG_CLEANUP(buf_fini) struct buf own = BUF_INIT(4U << 20);
    /* A selector with errors may select others than it should: then all of the namespace. */
    int r = s->pod_selector.is_broken ? 0 : k8s_selector(&s->pod_selector, &own, e);
    if (r == 0 && own.n) {
        selector_and(sel, buf_view(&own));
    }
    return r;
}

/* A policy's types are the directions that it has rules for. */
static int read_admin(struct cpol *p, const struct admin_policy *s, struct arena *a,
                      struct buf *sel, struct err *problem, struct err *e) {
    bool is_baseline = str_is(s->tier, "Baseline");
    switch ((int)p->kind->id) {
    case K_ADMIN_NETWORK_POLICY:
        p->tier = STR(TIER_ANP);
        break;
    case K_BASELINE_ADMIN_NETWORK_POLICY:
        p->tier = STR(TIER_BANP);
        break;
    default:
        if (!is_baseline && !str_is(s->tier, "Admin")) {
            return err_set(e, ERR_INVALID, "tier %.*s: allowed are Admin and Baseline",
                           STR_FMT(s->tier));
        }
        p->tier = is_baseline ? STR("kube-baseline") : STR("kube-admin");
    }
    p->has_order = true;
    p->order = s->priority.set ? (double)s->priority.v : 0;
    for (int d = 0; d < 2; d++) {
        set_rules(p, (enum calc_dir)d, admin_rules(s, (enum calc_dir)d, problem));
        if (p->written[d]) {
            p->types |= d == CALC_INGRESS ? POLICY_INGRESS : POLICY_EGRESS;
        }
    }
    if (s->is_broken) {
        close_all(p);
    }
    return admin_subject(s, a, sel, e);
}

static const char *kind_text(const struct kind *k) {
    return k->id == K_K8S_NETWORK_POLICY       ? "KubernetesNetworkPolicy"
           : k->id == K_CLUSTER_NETWORK_POLICY ? "KubernetesClusterNetworkPolicy"
                                               : k->kind;
}

/* The kind whose policies a staged kind stands for; NULL: not staged. */
static const struct kind *staged_for(const struct kind *k) {
    switch ((int)k->id) {
    case K_STAGED_NETWORK_POLICY:
        return &model_kinds[K_NETWORK_POLICY];
    case K_STAGED_GLOBAL_NETWORK_POLICY:
        return &model_kinds[K_GLOBAL_NETWORK_POLICY];
    case K_STAGED_KUBERNETES_NETWORK_POLICY:
        return &model_kinds[K_K8S_NETWORK_POLICY];
    default:
        return NULL;
    }
}

static struct str policy_key(struct buf *b, const struct kind *k, struct str ns, struct str name) {
    buf_printf(b, "%s/%.*s/%.*s", kind_text(k), STR_FMT(ns), STR_FMT(name));
    return buf_view(b);
}

/* One block for all: the key, then the tier. */
static void keep_texts(struct cpol *p, struct str key) {
    char *block = malloc(key.n + p->tier.n);
    mg_assert(block != NULL);
    memcpy(block, key.p, key.n);
    memcpy(block + key.n, p->tier.p, p->tier.n);
    p->key = str_n(block, key.n);
    p->ns = str_n(block + p->kind_text.n + 1, p->ns.n);
    p->name = str_n(block + key.n - p->name.n, p->name.n);
    p->tier = str_n(block + key.n, p->tier.n);
}

/* ---- staged policies ---- */

/* The enforced policy is, or is no longer, left out where staged ones count. */
static void replace(struct calc *c, char *key, bool on) {
    if (on) {
        *map_replaced_put(&c->replaced, str_c(key), NULL) = true;
    } else {
        map_replaced_del(&c->replaced, str_c(key));
    }
    struct cpol **p = map_pol_get(&c->policies, str_c(key));
    for (size_t i = 0; p && i < (*p)->matched.n; i++) {
        endpoint_dirty(c, (*p)->matched.p[i]);
    }
}

bool policy_takes_part(const struct calc *c, const struct cpol *p, bool with_staged) {
    return with_staged ? p->is_staged || !map_replaced_get(&c->replaced, p->key) : !p->is_staged;
}

/* stagedAction: Set is in force where staged ones count; Delete takes its counterpart away there;
 * the others do nothing yet. */
static void read_staged(struct cpol *p, struct str action) {
    bool is_delete = str_is(action, "Delete");
    p->is_staged = true;
    if (is_delete || (action.n && !str_is(action, "Set"))) {
        p->types = 0;
    }
    if (is_delete || !action.n || str_is(action, "Set")) {
        struct buf b = BUF_INIT(1U << 20);
        (void)policy_key(&b, staged_for(p->kind), p->ns, p->name);
        p->replaces = strndup(b.p, b.n);
        mg_assert(p->replaces != NULL);
        buf_fini(&b);
    }
}

/* The tier's text may still be the object's. a: for texts that the selector is put together from.
 */
static int read_spec(struct cpol *p, const void *spec, struct arena *a, struct buf *sel,
                     struct err *problem, struct err *e) {
    int r;
    switch ((int)p->kind->id) {
    case K_K8S_NETWORK_POLICY:
    case K_STAGED_KUBERNETES_NETWORK_POLICY:
        r = read_k8s(p, spec, p->ns, sel, problem, e);
        break;
    case K_CLUSTER_NETWORK_POLICY:
    case K_ADMIN_NETWORK_POLICY:
    case K_BASELINE_ADMIN_NETWORK_POLICY:
        return read_admin(p, spec, a, sel, problem, e);
    default:
        r = read_calico(p, spec, p->ns, a, sel, e);
    }
    if (staged_for(p->kind)) {
        read_staged(p, p->kind->id == K_STAGED_KUBERNETES_NETWORK_POLICY
                           ? ((const struct k8s_network_policy *)spec)->staged_action
                           : ((const struct policy_spec *)spec)->staged_action);
    }
    return r;
}

/* ---- selection ---- */

static void unmatch(struct calc *c, struct cpol *p) {
    for (size_t i = 0; i < p->matched.n; i++) {
        struct local *l = p->matched.p[i];
        for (size_t j = 0; j < l->pols.n; j++) {
            if (l->pols.p[j] == p) {
                vec_swap_remove(&l->pols, j);
                break;
            }
        }
        endpoint_dirty(c, l);
    }
    vec_fini(&p->matched);
    if (p->lsel) {
        lidx_sel_free(c->local, p->lsel);
        p->lsel = NULL;
    }
}

struct matching {
    struct calc *c;
    struct cpol *p;
};
static void on_match(void *arg, void *item_user) {
    struct matching *m = arg;
    struct local *l = item_user;
    vec_push(&m->p->matched, l);
    vec_push(&l->pols, m->p);
    endpoint_dirty(m->c, l);
}

static void remove_policy(struct calc *c, struct cpol *p) {
    unmatch(c, p);
    map_pol_del(&c->policies, p->key);
    if (p->replaces) {
        replace(c, p->replaces, false);
    }
    p->is_gone = true;
    policy_dirty(c, p);
}

static bool is_admin(const struct kind *k) {
    return k->id == K_CLUSTER_NETWORK_POLICY || k->id == K_ADMIN_NETWORK_POLICY ||
           k->id == K_BASELINE_ADMIN_NETWORK_POLICY;
}

/* Same place in every list as before? Then a change of rules is a change of one chain only. */
static bool same_place(const struct cpol *p, const struct cpol *old) {
    return str_eq(p->tier, old->tier) && p->has_order == old->has_order && p->order == old->order &&
           p->types == old->types && p->is_untracked == old->is_untracked &&
           p->is_pre_dnat == old->is_pre_dnat && p->is_on_forward == old->is_on_forward;
}

void policy_object(struct calc *c, const struct kind *k, struct str ns, struct str name,
                   const struct object *o) {
    MG_CLEANUP(buf_fini) struct buf key = BUF_INIT(1U << 20);
    struct cpol **found = map_pol_get(&c->policies, policy_key(&key, k, ns, name));
    if (!o || !o->spec) {
        if (found) {
            remove_policy(c, *found);
        }
        calc_problem(c, k, ns, name, STR_NULL);
        return;
    }
    struct cpol *p = calloc(1, sizeof(*p));
    mg_assert(p != NULL);
    struct arena a = {.first_bytes = 2048};
    const struct selector *selector = NULL;
    p->kind = k;
    p->kind_text = str_c(kind_text(k));
    p->ns = ns.p ? ns : STR("");
    p->name = name;
    MG_CLEANUP(buf_fini) struct buf sel = BUF_INIT(8U << 20);
    struct err problem = {.code = 0}, e;
    int r = read_spec(p, o->spec, &a, &sel, &problem, &e);
    if (r == 0) {
        r = selector_parse(buf_view(&sel), 16U << 20, &a, &selector, &e);
    }
    if (r < 0) {
        /* Whom it selects is unknown. With the namespace's pods all selected, what it was meant to
         * close stays closed. (Not so of admin policies: without a subject they are skipped, as in
         * Calico; they come before or after those that close.) */
        err_set(&problem, r, "selector: %s", e.msg);
        buf_reset(&sel);
        if (ns.n) {
            and_namespace(&sel, p->ns);
        }
        p->types = is_admin(k) ? 0 : p->types;
        r = selector_parse(buf_view(&sel), 16U << 20, &a, &selector, &e);
        mg_assert(r == 0);
        no_rules(p);
        p->tier = p->tier.p ? p->tier : STR("default");
    }
    keep_texts(p, buf_view(&key));
    calc_problem(c, k, ns, name, problem.code ? str_c(problem.msg) : STR_NULL);
    bool keep_ids = found && same_place(p, *found);
    for (int d = 0; d < 2; d++) {
        struct ruleset *s = &p->dirs[d];
        s->dir = (enum calc_dir)d;
        s->is_stale = true;
        s->id = keep_ids ? (*found)->dirs[d].id : ++c->next_id;
        s->is_out = keep_ids && (*found)->dirs[d].is_out;
        if (keep_ids) {
            (*found)->dirs[d].is_out = false; /* the new one has taken its place */
        }
        s->written = p->written[d];
    }
    if (found) {
        remove_policy(c, *found);
    }
    if (p->replaces) {
        replace(c, p->replaces, true);
    }
    *map_pol_put(&c->policies, p->key, NULL) = p;
    p->lsel = lidx_sel_new(c->local, selector, p);
    arena_fini(&a);
    struct matching m = {c, p};
    lidx_sel_each_match(c->local, p->lsel, on_match, &m);
    policy_dirty(c, p);
}

/* ---- out ---- */

static void free_policy(struct calc *c, struct cpol *p) {
    ruleset_release(c, &p->dirs[0]);
    ruleset_release(c, &p->dirs[1]);
    vec_fini(&p->matched);
    no_rules(p);
    free((char *)(uintptr_t)p->key.p);
    free(p->replaces);
    free(p);
}

static void update_dir(struct calc *c, struct cpol *p, struct ruleset *s, struct err *problem) {
    bool want = !p->is_gone && p->matched.n > 0 &&
                (p->types & (s->dir == CALC_INGRESS ? POLICY_INGRESS : POLICY_EGRESS));
    if (want && (s->is_stale || !s->is_out)) {
        const struct calc_policy head = {.kind = p->kind_text,
                                         .tier = p->tier,
                                         .ns = p->ns,
                                         .name = p->name,
                                         .is_staged = p->is_staged,
                                         .is_untracked = p->is_untracked};
        ruleset_compile(c, s, &head, problem);
        s->is_stale = true; /* to be told, after the sets */
    } else if (!want) {
        if (s->is_out) {
            vec_push(&c->gone_rulesets, s->id);
        }
        ruleset_release(c, s);
        s->is_out = false;
        s->is_stale = true;
    }
}

void policies_compile(struct calc *c) {
    for (size_t i = 0; i < c->dirty_policies.n; i++) {
        struct cpol *p = c->dirty_policies.p[i];
        struct err problem = {.code = 0};
        update_dir(c, p, &p->dirs[0], &problem);
        update_dir(c, p, &p->dirs[1], &problem);
        if (problem.code) {
            calc_problem(c, p->kind, p->ns, p->name, str_c(problem.msg));
        }
    }
}

void policies_emit(struct calc *c) {
    for (size_t i = 0; i < c->dirty_policies.n; i++) {
        struct cpol *p = c->dirty_policies.p[i];
        p->is_dirty = false;
        if (p->is_gone) {
            free_policy(c, p);
            continue;
        }
        for (int d = 0; d < 2; d++) {
            struct ruleset *s = &p->dirs[d];
            if (s->is_stale && p->matched.n > 0 &&
                (p->types & (d == CALC_INGRESS ? POLICY_INGRESS : POLICY_EGRESS))) {
                s->is_stale = false;
                s->is_out = true;
                c->ops.policy(c->arg, &s->compiled->out);
            }
        }
    }
    vec_clear(&c->dirty_policies);
}

void policies_fini(struct calc *c) {
    for (size_t i = 0; i < c->dirty_policies.n; i++) {
        if (c->dirty_policies.p[i]->is_gone) {
            free_policy(c, c->dirty_policies.p[i]);
        }
    }
    struct cpol **p;
    for (size_t i = 0; map_pol_next(&c->policies, &i, NULL, &p);) {
        if ((*p)->lsel) {
            lidx_sel_free(c->local, (*p)->lsel);
        }
        free_policy(c, *p);
    }
    map_pol_fini(&c->policies);
    map_replaced_fini(&c->replaced);
    struct str k;
    for (size_t i = 0; map_tier_next(&c->tiers, &i, &k, NULL);) {
        free((char *)(uintptr_t)k.p);
    }
    map_tier_fini(&c->tiers);
    vec_fini(&c->dirty_policies);
}
