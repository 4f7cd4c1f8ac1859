/* Items: what selectors can match (endpoints, network sets), with own and inherited labels; and
 * local endpoints, whose lists of policies go out. */
#include "policy/calc_int.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- labels ---- */

static int pair_key_cmp(const struct calc *c, uint32_t a, uint32_t b) {
    return str_cmp(ltab_label(c->labels, a).key, ltab_label(c->labels, b).key);
}

static void own_label(struct calc *c, struct item *it, struct str key, struct str value) {
    uint32_t pair = ltab_ref(c->labels, key, value);
    uint32_t i = it->n_own;
    while (i > 0 && pair_key_cmp(c, it->own[i - 1], pair) > 0) {
        it->own[i] = it->own[i - 1];
        i--;
    }
    it->own[i] = pair;
    it->n_own++;
}

static bool is_calicos(const struct item_in *in, struct str key) {
    return (in->ns.p && str_is(key, LABEL_NAMESPACE)) ||
           (in->orchestrator.p && str_is(key, LABEL_ORCHESTRATOR)) ||
           (in->service_account.p && str_is(key, LABEL_SERVICE_ACCOUNT));
}

static void set_own_labels(struct calc *c, struct item *it, const struct item_in *in) {
    size_t n = in->labels ? in->labels->n : 0;
    it->own = arena_array(&it->a, uint32_t, n + 3);
    for (size_t i = 0; i < n; i++) {
        if (!is_calicos(in, in->labels->p[i].key)) {
            own_label(c, it, in->labels->p[i].key, in->labels->p[i].value);
        }
    }
    if (in->ns.p) {
        own_label(c, it, STR(LABEL_NAMESPACE), in->ns);
    }
    if (in->orchestrator.p) {
        own_label(c, it, STR(LABEL_ORCHESTRATOR), in->orchestrator);
    }
    if (in->service_account.p) {
        own_label(c, it, STR(LABEL_SERVICE_ACCOUNT), in->service_account);
    }
}

static bool has_key(const struct calc *c, struct str key) {
    for (size_t i = 0; i < c->pairs_scratch.n; i++) {
        if (str_eq(ltab_label(c->labels, c->pairs_scratch.p[i]).key, key)) {
            return true;
        }
    }
    return false;
}

/* Own labels win over inherited ones, an earlier profile over a later one. */
static void set_effective_labels(struct calc *c, struct item *it) {
    vec_clear(&c->pairs_scratch);
    for (uint32_t i = 0; i < it->n_own; i++) {
        vec_push(&c->pairs_scratch, it->own[i]);
    }
    size_t first_ref = c->pairs_scratch.n;
    for (uint32_t i = 0; i < it->n_profs; i++) {
        const struct prof_def *d = profile_def(it->profs[i]);
        for (size_t j = 0; d && j < d->labels.n; j++) {
            if (!has_key(c, d->labels.p[j].key)) {
                vec_push(&c->pairs_scratch,
                         ltab_ref(c->labels, d->labels.p[j].key, d->labels.p[j].value));
            }
        }
    }
    size_t n = c->pairs_scratch.n;
    uint32_t *sorted = malloc((n + 1) * sizeof(*sorted));
    mg_assert(sorted != NULL);
    for (size_t i = 0; i < n; i++) {
        size_t k = i;
        while (k > 0 && pair_key_cmp(c, sorted[k - 1], c->pairs_scratch.p[i]) > 0) {
            sorted[k] = sorted[k - 1];
            k--;
        }
        sorted[k] = c->pairs_scratch.p[i];
    }
    lidx_item_set(c->all, it->lid, sorted, n);
    if (it->local_lid) {
        lidx_item_set(c->local, it->local_lid, sorted, n);
    }
    free(sorted);
    for (size_t i = first_ref; i < n; i++) {
        ltab_unref(c->labels, c->pairs_scratch.p[i]); /* the index has its own */
    }
}

/* ---- sets and policies that know the item ---- */

struct touching {
    struct calc *c;
    struct item *it;
    bool add;
};
static void touch_set(void *arg, void *sel_user) {
    struct touching *t = arg;
    cset_item(t->c, sel_user, t->it, t->add);
}
static void in_sets(struct calc *c, struct item *it, bool add) {
    struct touching t = {c, it, add};
    lidx_item_each_match(c->all, it->lid, touch_set, &t);
}

typedef VEC(struct cpol *) pol_vec;
static void collect_pol(void *arg, void *sel_user) {
    pol_vec *v = arg;
    vec_push(v, (struct cpol *)sel_user);
}

static int ptr_cmp(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

static void unmatched(struct calc *c, struct cpol *p, const struct item *it) {
    for (size_t i = 0; i < p->matched.n; i++) {
        if (p->matched.p[i] == it) {
            vec_swap_remove(&p->matched, i);
            break;
        }
    }
    if (p->matched.n == 0) {
        policy_dirty(c, p);
    }
}

/* Which policies select the endpoint now. */
static void rematch(struct calc *c, struct item *it) {
    pol_vec now = {0};
    if (it->local_lid) {
        lidx_item_each_match(c->local, it->local_lid, collect_pol, &now);
    }
    vec_sort(&now, ptr_cmp);
    vec_sort(&it->pols, ptr_cmp);
    size_t i = 0, j = 0;
    while (i < it->pols.n || j < now.n) {
        uintptr_t a = i < it->pols.n ? (uintptr_t)it->pols.p[i] : UINTPTR_MAX;
        uintptr_t b = j < now.n ? (uintptr_t)now.p[j] : UINTPTR_MAX;
        if (a < b) {
            unmatched(c, it->pols.p[i++], it);
        } else if (b < a) {
            struct cpol *p = now.p[j++];
            vec_push(&p->matched, it);
            if (p->matched.n == 1) {
                policy_dirty(c, p);
            }
        } else {
            i++;
            j++;
        }
    }
    vec_fini(&it->pols);
    it->pols.p = now.p;
    it->pols.n = now.n;
    it->pols.cap = now.cap;
}

void endpoint_dirty(struct calc *c, struct item *it) {
    if (it->local_lid && !it->is_dirty) {
        it->is_dirty = true;
        vec_push(&c->dirty_endpoints, it);
    }
}

void item_relabel(struct calc *c, struct item *it) {
    in_sets(c, it, false);
    set_effective_labels(c, it);
    in_sets(c, it, true);
    if (it->local_lid) {
        rematch(c, it);
        endpoint_dirty(c, it);
    }
}

/* ---- making and changing ---- */

static void leave_profiles(struct calc *c, struct item *it) {
    for (uint32_t i = 0; i < it->n_profs; i++) {
        profile_join(c, it->profs[i], it, false);
        if (it->local_lid) {
            profile_local(c, it->profs[i], false);
        }
    }
    it->n_profs = 0;
}

static void forget(struct calc *c, struct item *it) {
    in_sets(c, it, false);
    leave_profiles(c, it);
    for (uint32_t i = 0; i < it->n_own; i++) {
        ltab_unref(c->labels, it->own[i]);
    }
    it->n_own = 0;
    arena_fini(&it->a);
}

static void *copy(struct arena *a, const void *p, size_t bytes) {
    void *q = arena_alloc(a, bytes);
    if (bytes) {
        memcpy(q, p, bytes);
    }
    return q;
}

static void take(struct calc *c, struct item *it, const struct item_in *in) {
    struct arena *a = &it->a;
    it->nets = copy(a, in->nets, in->n_nets * sizeof(*in->nets));
    it->n_nets = in->n_nets;
    it->ports = copy(a, in->ports, in->n_ports * sizeof(*in->ports));
    it->n_ports = in->n_ports;
    for (size_t i = 0; i < it->n_ports; i++) {
        it->ports[i].name = arena_dup(a, it->ports[i].name);
    }
    it->profs = arena_array(a, struct cprof *, in->n_profiles);
    for (size_t i = 0; i < in->n_profiles; i++) {
        it->profs[it->n_profs++] = profile_get(c, in->profiles[i]);
        profile_join(c, it->profs[i], it, true);
        if (in->is_local) {
            profile_local(c, it->profs[i], true);
        }
    }
    if (in->is_local) {
        it->is_host = in->is_host;
        it->iface = arena_dup(a, in->iface);
        it->ns = arena_dup(a, in->pod_ns);
        it->name = arena_dup(a, in->pod_name);
        it->spoof_ok = copy(a, in->spoof_ok, in->n_spoof_ok * sizeof(*in->spoof_ok));
        it->n_spoof_ok = in->n_spoof_ok;
        memcpy(it->mac, in->mac, sizeof(it->mac));
    }
    set_own_labels(c, it, in);
}

void item_set(struct calc *c, struct item **slot, const struct item_in *in) {
    struct item *it = *slot;
    if (it && (it->local_lid != 0) != in->is_local) {
        item_free(c, it);
        it = NULL;
    }
    if (it) {
        forget(c, it);
    } else {
        it = calloc(1, sizeof(*it));
        mg_assert(it != NULL);
        it->a.first_bytes = 128;
        it->lid = lidx_item_new(c->all, it);
        c->n_items++;
        if (in->is_local) {
            it->local_lid = lidx_item_new(c->local, it);
            it->id = ++c->next_id;
            c->n_local++;
        }
    }
    *slot = it;
    take(c, it, in);
    set_effective_labels(c, it);
    in_sets(c, it, true);
    if (it->local_lid) {
        rematch(c, it);
        endpoint_dirty(c, it);
    }
}

void item_free(struct calc *c, struct item *it) {
    forget(c, it);
    lidx_item_free(c->all, it->lid);
    c->n_items--;
    if (it->local_lid) {
        for (size_t i = 0; i < it->pols.n; i++) {
            unmatched(c, it->pols.p[i], it);
        }
        lidx_item_free(c->local, it->local_lid);
        c->n_local--;
        if (it->is_out) {
            vec_push(&c->gone_endpoints, it->id);
        }
        for (size_t i = 0; it->is_dirty && i < c->dirty_endpoints.n; i++) {
            if (c->dirty_endpoints.p[i] == it) {
                vec_swap_remove(&c->dirty_endpoints, i);
                break;
            }
        }
    }
    vec_fini(&it->pols);
    free(it);
}

/* ---- out ---- */

struct chain_build {
    VEC(struct calc_tier) tiers;
    VEC(uint32_t) ids; /* of all tiers, one after the other */
    VEC(uint32_t) profiles;
};

static const struct calc *sorting; /* qsort has no argument; one thread */
static int pol_cmp(const void *a, const void *b) {
    return policy_cmp(sorting, *(struct cpol *const *)a, *(struct cpol *const *)b);
}

/* Which policies a list holds. */
enum list_use { USE_NORMAL, USE_STAGED, USE_FORWARD, USE_UNTRACKED, USE_PRE_DNAT };

static bool takes_part(const struct calc *c, const struct cpol *p, enum calc_dir dir,
                       enum list_use use) {
    bool is_special = p->is_untracked || p->is_pre_dnat;
    if (!(p->types & (dir == CALC_INGRESS ? POLICY_INGRESS : POLICY_EGRESS)) ||
        !policy_takes_part(c, p, use == USE_STAGED)) {
        return false;
    }
    switch (use) {
    case USE_FORWARD:
        return p->is_on_forward && !is_special;
    case USE_UNTRACKED:
        return p->is_untracked;
    case USE_PRE_DNAT:
        return p->is_pre_dnat;
    case USE_NORMAL:
    case USE_STAGED:
        break;
    }
    return !is_special;
}

static void build_chain(const struct calc *c, const struct item *it, enum calc_dir dir,
                        enum list_use use, struct chain_build *b, struct calc_chain *out) {
    vec_clear(&b->tiers);
    vec_clear(&b->ids);
    vec_clear(&b->profiles);
    for (size_t i = 0; i < it->pols.n; i++) {
        const struct cpol *p = it->pols.p[i];
        if (!takes_part(c, p, dir, use)) {
            continue;
        }
        struct calc_tier *last = b->tiers.n ? &b->tiers.p[b->tiers.n - 1] : NULL;
        if (!last || !str_eq(last->name, p->tier)) {
            bool exists;
            struct ctier t = tier_of(c, p->tier, &exists);
            struct calc_tier fresh = {.name = p->tier, .default_pass = t.default_pass};
            vec_push(&b->tiers, fresh);
            last = &b->tiers.p[b->tiers.n - 1];
        }
        last->n_policies++;
        vec_push(&b->ids, p->dirs[dir].id);
    }
    size_t at = 0;
    for (size_t i = 0; i < b->tiers.n; i++) {
        b->tiers.p[i].policies = b->ids.p + at;
        at += b->tiers.p[i].n_policies;
    }
    bool has_profiles = use == USE_NORMAL || use == USE_STAGED;
    for (uint32_t i = 0; has_profiles && i < it->n_profs; i++) {
        if (profile_def(it->profs[i])) {
            vec_push(&b->profiles, it->profs[i]->dirs[dir].id);
        }
    }
    *out = (struct calc_chain){b->tiers.p, b->tiers.n, b->profiles.p, b->profiles.n};
}

static uint64_t chain_hash(uint64_t h, const struct calc_chain *c) {
    for (size_t i = 0; i < c->n_tiers; i++) {
        h = hash_fixed(h, c->tiers[i].name.p, c->tiers[i].name.n);
        h = hash_fixed(h, &c->tiers[i].default_pass, sizeof(bool));
        h = hash_fixed(h, c->tiers[i].policies, c->tiers[i].n_policies * sizeof(uint32_t));
    }
    return hash_fixed(h, c->profiles, c->n_profiles * sizeof(uint32_t));
}

static uint64_t endpoint_hash(const struct calc_endpoint *e) {
    uint64_t h = hash_fixed(1, e->iface.p, e->iface.n);
    for (size_t i = 0; i < e->n_nets; i++) {
        h = hash_fixed(h, e->nets[i].ip.b, 16) + e->nets[i].len;
    }
    for (size_t i = 0; i < e->n_spoof_ok; i++) {
        h = hash_fixed(h, e->spoof_ok[i].ip.b, 16) + e->spoof_ok[i].len;
    }
    h = hash_fixed(h, e->mac, sizeof(e->mac));
    h = chain_hash(chain_hash(h, &e->ingress) ^ 1, &e->egress);
    for (size_t i = 0; e->staged && i < 2; i++) {
        h = chain_hash(h ^ 2, &e->staged[i]);
    }
    for (size_t i = 0; e->host && i < 2; i++) {
        h = chain_hash(h ^ 3, &e->host->forward[i]);
        h = chain_hash(h ^ 4, &e->host->untracked[i]);
    }
    return (e->host ? chain_hash(h ^ 5, &e->host->pre_dnat) : h) | 1;
}

/* A profile that does not exist contributes nothing: without a policy, nothing gets through. */
static void report_profiles(struct calc *c, const struct item *it) {
    const struct kind *k = &model_kinds[it->is_host ? K_HOST_ENDPOINT : K_POD];
    for (uint32_t i = 0; i < it->n_profs; i++) {
        if (!profile_def(it->profs[i])) {
            char text[600];
            const char *p = it->profs[i]->name;
            bool is_ns = strncmp(p, "kns.", 4) == 0;
            if (!is_ns && strncmp(p, "ksa.", 4) == 0) {
                continue; /* a service account's profile has no rules anyway */
            }
            snprintf(text, sizeof(text),
                     "%s %s does not exist: what no policy allows is denied; create it",
                     is_ns ? "namespace" : "profile", is_ns ? p + 4 : p);
            calc_problem(c, k, it->ns, it->name, str_c(text));
            return;
        }
    }
    calc_problem(c, k, it->ns, it->name, STR_NULL);
}

/* All lists of one endpoint. */
struct lists_build {
    struct chain_build in, out, staged[2], forward[2], untracked[2], pre_dnat;
    struct calc_chain staged_chains[2];
    struct calc_host host;
};

static void build_fini(struct chain_build *b) {
    vec_fini(&b->tiers);
    vec_fini(&b->ids);
    vec_fini(&b->profiles);
}
static void lists_fini(struct lists_build *b) {
    build_fini(&b->in);
    build_fini(&b->out);
    for (int d = 0; d < 2; d++) {
        build_fini(&b->staged[d]);
        build_fini(&b->forward[d]);
        build_fini(&b->untracked[d]);
    }
    build_fini(&b->pre_dnat);
}

/* Do staged policies make a difference to it? */
static bool is_staged(const struct calc *c, const struct item *it) {
    for (size_t i = 0; i < it->pols.n; i++) {
        const struct cpol *p = it->pols.p[i];
        if (p->types && policy_takes_part(c, p, true) != policy_takes_part(c, p, false)) {
            return true;
        }
    }
    return false;
}

static void build_lists(const struct calc *c, const struct item *it, struct lists_build *b,
                        struct calc_endpoint *e) {
    build_chain(c, it, CALC_INGRESS, USE_NORMAL, &b->in, &e->ingress);
    build_chain(c, it, CALC_EGRESS, USE_NORMAL, &b->out, &e->egress);
    for (int d = 0; d < 2 && is_staged(c, it); d++) {
        build_chain(c, it, (enum calc_dir)d, USE_STAGED, &b->staged[d], &b->staged_chains[d]);
        e->staged = b->staged_chains;
    }
    if (!it->is_host) {
        return;
    }
    for (int d = 0; d < 2; d++) {
        enum calc_dir dir = (enum calc_dir)d;
        build_chain(c, it, dir, USE_FORWARD, &b->forward[d], &b->host.forward[d]);
        build_chain(c, it, dir, USE_UNTRACKED, &b->untracked[d], &b->host.untracked[d]);
    }
    build_chain(c, it, CALC_INGRESS, USE_PRE_DNAT, &b->pre_dnat, &b->host.pre_dnat);
    e->host = &b->host;
}

/* Its policies are sorted. */
static struct calc_endpoint build_endpoint(const struct calc *c, const struct item *it,
                                           struct lists_build *b) {
    struct calc_endpoint e = {.id = it->id,
                              .iface = it->iface,
                              .ns = it->ns,
                              .name = it->name,
                              .nets = it->nets,
                              .n_nets = it->n_nets,
                              .spoof_ok = it->spoof_ok,
                              .n_spoof_ok = it->n_spoof_ok};
    memcpy(e.mac, it->mac, sizeof(e.mac));
    build_lists(c, it, b, &e);
    return e;
}

struct replaying {
    const struct calc *c;
    const struct calc_ops *ops;
    void *arg;
    struct lists_build b;
};
static void replay_item(void *arg, void *item_user) {
    struct replaying *r = arg;
    const struct item *it = item_user;
    if (it->is_out) {
        struct calc_endpoint e = build_endpoint(r->c, it, &r->b);
        r->ops->endpoint(r->arg, &e);
    }
}
void endpoints_replay(const struct calc *c, const struct calc_ops *ops, void *arg) {
    struct replaying r = {.c = c, .ops = ops, .arg = arg};
    lidx_each(c->local, replay_item, &r);
    lists_fini(&r.b);
}

void endpoints_emit(struct calc *c) {
    struct lists_build b = {.host = {.forward = {{0}}}};
    sorting = c;
    for (size_t i = 0; i < c->dirty_endpoints.n; i++) {
        struct item *it = c->dirty_endpoints.p[i];
        it->is_dirty = false;
        vec_sort(&it->pols, pol_cmp);
        struct calc_endpoint e = build_endpoint(c, it, &b);
        uint64_t h = endpoint_hash(&e);
        if (!it->is_out || h != it->out_hash) {
            it->is_out = true;
            it->out_hash = h;
            report_profiles(c, it);
            c->ops.endpoint(c->arg, &e);
        }
    }
    vec_clear(&c->dirty_endpoints);
    lists_fini(&b);
}
