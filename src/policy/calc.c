/* The calculation's front: hands resources to their parts, and flushes in the order that the sink
 * relies on. */
#include "policy/calc_int.h"

#include <stdlib.h>

struct calc *calc_new(struct str node_name, const struct calc_ops *ops, void *arg) {
    struct calc *c = calloc(1, sizeof(*c));
    mg_assert(c != NULL);
    c->node = strndup(node_name.p, node_name.n);
    mg_assert(c->node != NULL);
    c->ops = *ops;
    c->arg = arg;
    c->labels = ltab_new();
    c->members = mtab_new();
    c->all = lidx_new(c->labels);
    c->local = lidx_new(c->labels);
    return c;
}

void calc_free(struct calc *c) {
    if (!c) {
        return;
    }
    c->ops.problem = NULL;
    sources_fini(c);
    policies_fini(c);
    profiles_fini(c);
    struct cset **s;
    for (size_t i = 0; map_set_next(&c->sets, &i, NULL, &s); i = 0) {
        (*s)->service = NULL; /* gone already */
        cset_free(c, *s);     /* leaves the map */
    }
    map_set_fini(&c->sets);
    lidx_free(c->local);
    lidx_free(c->all);
    ltab_free(c->labels);
    mtab_free(c->members);
    vec_fini(&c->dirty_sets);
    vec_fini(&c->dirty_endpoints);
    vec_fini(&c->gone_endpoints);
    vec_fini(&c->gone_rulesets);
    vec_fini(&c->pairs_scratch);
    map_traits_fini(&c->traits);
    free(c->traits_scratch);
    free(c->node);
    free(c);
}

void calc_problem(struct calc *c, const struct kind *k, struct str ns, struct str name,
                  struct str reason) {
    if (c->ops.problem) {
        c->ops.problem(c->arg, k, ns, name, reason);
    }
}

void calc_object(struct calc *c, const struct kind *k, struct str ns, struct str name,
                 const struct object *o) {
    switch ((int)k->id) {
    case K_POD:
        pod_object(c, ns, name, o);
        break;
    case K_WORKLOAD_ENDPOINT:
        wep_object(c, ns, name, o);
        break;
    case K_NAMESPACE:
    case K_SERVICE_ACCOUNT:
    case K_PROFILE:
        profile_object(c, k, ns, name, o);
        break;
    case K_K8S_NETWORK_POLICY:
    case K_NETWORK_POLICY:
    case K_GLOBAL_NETWORK_POLICY:
    case K_CLUSTER_NETWORK_POLICY:
    case K_ADMIN_NETWORK_POLICY:
    case K_BASELINE_ADMIN_NETWORK_POLICY:
    case K_STAGED_NETWORK_POLICY:
    case K_STAGED_GLOBAL_NETWORK_POLICY:
    case K_STAGED_KUBERNETES_NETWORK_POLICY:
        policy_object(c, k, ns, name, o);
        break;
    case K_TIER:
        tier_object(c, name, o);
        break;
    case K_NETWORK_SET:
    case K_GLOBAL_NETWORK_SET:
    case K_HOST_ENDPOINT:
        netset_object(c, k, ns, name, o);
        break;
    case K_ENDPOINT_SLICE:
        slice_object(c, ns, name, o);
        break;
    default:
        break;
    }
}

void calc_flush(struct calc *c) {
    policies_compile(c);
    profiles_compile(c);
    csets_emit(c);
    policies_emit(c);
    profiles_emit(c);
    endpoints_emit(c);
    for (size_t i = 0; i < c->gone_endpoints.n; i++) {
        c->ops.endpoint_gone(c->arg, c->gone_endpoints.p[i]);
    }
    vec_clear(&c->gone_endpoints);
    for (size_t i = 0; i < c->gone_rulesets.n; i++) {
        c->ops.policy_gone(c->arg, c->gone_rulesets.p[i]);
    }
    vec_clear(&c->gone_rulesets);
    csets_emit_gone(c);
}

static void replay_rulesets(const struct ruleset dirs[2], const struct calc_ops *ops, void *arg) {
    for (int d = 0; d < 2; d++) {
        if (dirs[d].is_out) {
            ops->policy(arg, &dirs[d].compiled->out);
        }
    }
}

void calc_replay(const struct calc *c, const struct calc_ops *ops, void *arg) {
    csets_replay(c, ops, arg);
    struct cpol **p;
    for (size_t i = 0; map_pol_next(&c->policies, &i, NULL, &p);) {
        replay_rulesets((*p)->dirs, ops, arg);
    }
    struct cprof **f;
    for (size_t i = 0; map_prof_next(&c->profiles, &i, NULL, &f);) {
        replay_rulesets((*f)->dirs, ops, arg);
    }
    endpoints_replay(c, ops, arg);
}

void calc_stats(const struct calc *c, struct calc_stats *out) {
    *out = (struct calc_stats){.policies = c->policies.n,
                               .endpoints = c->n_items,
                               .local_endpoints = c->n_local,
                               .sets = c->sets.n};
    struct cpol **p;
    for (size_t i = 0; map_pol_next(&c->policies, &i, NULL, &p);) {
        out->active_policies += (*p)->matched.n > 0;
    }
    struct cset **s;
    for (size_t i = 0; map_set_next(&c->sets, &i, NULL, &s);) {
        out->members += (*s)->members.n;
    }
}
