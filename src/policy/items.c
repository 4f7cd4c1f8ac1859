/* Items: what selectors can match (endpoints, network sets), with own and inherited labels; and
 * local endpoints, whose lists of policies go out. */
#include "policy/calc_int.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- addresses ---- */

static void netids_clear(struct calc *c, struct netids *ids) {
    for (uint32_t i = 0; i < ids->n; i++) {
        mtab_unref(c->members, netids_p(ids)[i]);
    }
    if (ids->n > 1) {
        free(ids->many);
    }
    ids->n = 0;
}

void netids_set(struct calc *c, struct netids *ids, const struct prefix *p, size_t n) {
    struct netids fresh = {.n = (uint32_t)n};
    uint32_t *out = &fresh.one;
    if (n > 1) {
        out = fresh.many = malloc(n * sizeof(*out));
        mg_assert(out != NULL);
    }
    for (size_t i = 0; i < n; i++) {
        struct calc_member m = {.net = p[i]};
        out[i] = mtab_ref(c->members, &m);
    }
    netids_clear(c, ids); /* last: what stays keeps its id */
    *ids = fresh;
}

static bool netids_eq(const struct netids *a, const struct netids *b) {
    return a->n == b->n && memcmp(netids_p(a), netids_p(b), a->n * sizeof(uint32_t)) == 0;
}

struct prefix *netids_prefixes(const struct calc *c, const struct netids *ids, struct arena *a) {
    struct prefix *p = arena_array(a, struct prefix, ids->n);
    for (uint32_t i = 0; i < ids->n; i++) {
        p[i] = mtab_get(c->members, netids_p(ids)[i]).net;
    }
    return p;
}

/* ---- policies that know the endpoint ---- */

typedef VEC(struct cpol *) pol_vec;
static void collect_pol(void *arg, void *sel_user) {
    pol_vec *v = arg;
    vec_push(v, (struct cpol *)sel_user);
}

static int ptr_cmp(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

static void unmatched(struct calc *c, struct cpol *p, const struct local *l) {
    for (size_t i = 0; i < p->matched.n; i++) {
        if (p->matched.p[i] == l) {
            vec_swap_remove(&p->matched, i);
            break;
        }
    }
    if (p->matched.n == 0) {
        policy_dirty(c, p);
    }
}

/* Which policies select the endpoint now. */
static void rematch(struct calc *c, struct local *l) {
    pol_vec now = {0};
    lidx_item_each_match(c->local, l->lid, collect_pol, &now);
    vec_sort(&now, ptr_cmp);
    vec_sort(&l->pols, ptr_cmp);
    size_t i = 0, j = 0;
    while (i < l->pols.n || j < now.n) {
        uintptr_t a = i < l->pols.n ? (uintptr_t)l->pols.p[i] : UINTPTR_MAX;
        uintptr_t b = j < now.n ? (uintptr_t)now.p[j] : UINTPTR_MAX;
        if (a < b) {
            unmatched(c, l->pols.p[i++], l);
        } else if (b < a) {
            struct cpol *p = now.p[j++];
            vec_push(&p->matched, l);
            if (p->matched.n == 1) {
                policy_dirty(c, p);
            }
        } else {
            i++;
            j++;
        }
    }
    vec_fini(&l->pols);
    l->pols.p = now.p;
    l->pols.n = now.n;
    l->pols.cap = now.cap;
}

void endpoint_dirty(struct calc *c, struct local *l) {
    if (!l->is_dirty) {
        l->is_dirty = true;
        vec_push(&c->dirty_endpoints, l);
    }
}

void local_relabel(struct calc *c, struct local *l) {
    size_t n;
    const uint32_t *pairs = lidx_item_pairs(c->all, l->item->traits->lid, &n);
    lidx_item_set(c->local, l->lid, pairs, n);
    rematch(c, l);
    endpoint_dirty(c, l);
}

/* ---- making and changing ---- */

static void join(struct item *it, struct traits *t) {
    it->traits = traits_ref(t);
    it->prev = NULL;
    it->next = t->items;
    if (t->items) {
        t->items->prev = it;
    }
    t->items = it;
}

static void leave(struct calc *c, struct item *it) {
    struct traits *t = it->traits;
    if (it->next) {
        it->next->prev = it->prev;
    }
    if (it->prev) {
        it->prev->next = it->next;
    } else {
        t->items = it->next;
    }
    traits_unref(c, t);
}

/* Its profiles are in use here, or no more. */
static void use_profiles(struct calc *c, const struct traits *t, bool add) {
    for (uint32_t i = 0; i < t->n_profs; i++) {
        profile_local(c, t->profs[i], add);
    }
}

static void *copy(struct arena *a, const void *p, size_t bytes) {
    void *q = arena_alloc(a, bytes);
    if (bytes) {
        memcpy(q, p, bytes);
    }
    return q;
}

static void local_take(struct local *l, const struct item_in *in) {
    struct arena *a = &l->a;
    arena_fini(a);
    l->is_host = in->is_host;
    l->iface = arena_dup(a, in->iface);
    l->ns = arena_dup(a, in->pod_ns);
    l->name = arena_dup(a, in->pod_name);
    l->nets = copy(a, in->nets, in->n_nets * sizeof(*in->nets));
    l->n_nets = in->n_nets;
    l->spoof_ok = copy(a, in->spoof_ok, in->n_spoof_ok * sizeof(*in->spoof_ok));
    l->n_spoof_ok = in->n_spoof_ok;
    l->nats = copy(a, in->nats, in->n_nats * sizeof(*in->nats));
    l->n_nats = in->n_nats;
    memcpy(l->mac, in->mac, sizeof(l->mac));
}

static struct item *item_new(struct calc *c, const struct item_in *in) {
    struct item *it = calloc(1, sizeof(*it));
    mg_assert(it != NULL);
    c->n_items++;
    if (in->is_local) {
        struct local *l = calloc(1, sizeof(*l));
        mg_assert(l != NULL);
        *l = (struct local){.item = it,
                            .id = ++c->next_id,
                            .lid = lidx_item_new(c->local, l),
                            .a = {.first_bytes = 128}};
        it->local = l;
        c->n_local++;
    }
    return it;
}

void item_set(struct calc *c, struct item **slot, const struct item_in *in) {
    struct item *it = *slot;
    if (it && (it->local != NULL) != in->is_local) {
        item_free(c, it);
        it = NULL;
    }
    struct netids nets = {.n = 0};
    netids_set(c, &nets, in->nets, in->n_nets);
    bool is_same = it && it->traits == in->traits && netids_eq(&it->nets, &nets);
    if (it && !is_same) {
        item_in_sets(c, it, false);
    }
    if (it && it->local) {
        use_profiles(c, it->traits, false);
    }
    *slot = it = it ? it : item_new(c, in);
    if (it->traits != in->traits) {
        if (it->traits) {
            leave(c, it);
        }
        join(it, in->traits);
    }
    netids_clear(c, &it->nets);
    it->nets = nets;
    if (!is_same) {
        item_in_sets(c, it, true);
    }
    if (it->local) {
        use_profiles(c, it->traits, true);
        local_take(it->local, in);
        local_relabel(c, it->local);
    }
}

static void local_free(struct calc *c, struct local *l) {
    use_profiles(c, l->item->traits, false);
    for (size_t i = 0; i < l->pols.n; i++) {
        unmatched(c, l->pols.p[i], l);
    }
    lidx_item_free(c->local, l->lid);
    c->n_local--;
    if (l->is_out) {
        vec_push(&c->gone_endpoints, l->id);
    }
    for (size_t i = 0; l->is_dirty && i < c->dirty_endpoints.n; i++) {
        if (c->dirty_endpoints.p[i] == l) {
            vec_swap_remove(&c->dirty_endpoints, i);
            break;
        }
    }
    vec_fini(&l->pols);
    arena_fini(&l->a);
    free(l);
}

void item_free(struct calc *c, struct item *it) {
    item_in_sets(c, it, false);
    if (it->local) {
        local_free(c, it->local);
    }
    netids_clear(c, &it->nets);
    leave(c, it);
    c->n_items--;
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

static void build_chain(const struct calc *c, const struct local *l, enum calc_dir dir,
                        enum list_use use, struct chain_build *b, struct calc_chain *out) {
    vec_clear(&b->tiers);
    vec_clear(&b->ids);
    vec_clear(&b->profiles);
    for (size_t i = 0; i < l->pols.n; i++) {
        const struct cpol *p = l->pols.p[i];
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
    for (uint32_t i = 0; has_profiles && i < l->item->traits->n_profs; i++) {
        if (profile_def(l->item->traits->profs[i])) {
            vec_push(&b->profiles, l->item->traits->profs[i]->dirs[dir].id);
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
    for (size_t i = 0; i < e->n_nats; i++) {
        h = hash_fixed(h, e->nats[i].internal.b, 16);
        h = hash_fixed(h ^ 5, e->nats[i].external.b, 16);
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
static void report_profiles(struct calc *c, const struct local *l) {
    const struct kind *k = &model_kinds[l->is_host ? K_HOST_ENDPOINT : K_POD];
    for (uint32_t i = 0; i < l->item->traits->n_profs; i++) {
        if (!profile_def(l->item->traits->profs[i])) {
            char text[600];
            const char *p = l->item->traits->profs[i]->name;
            bool is_ns = strncmp(p, "kns.", 4) == 0;
            if (!is_ns && strncmp(p, "ksa.", 4) == 0) {
                continue; /* a service account's profile has no rules anyway */
            }
            snprintf(text, sizeof(text),
                     "%s %s does not exist: what no policy allows is denied; create it",
                     is_ns ? "namespace" : "profile", is_ns ? p + 4 : p);
            calc_problem(c, k, l->ns, l->name, str_c(text));
            return;
        }
    }
    calc_problem(c, k, l->ns, l->name, STR_NULL);
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
static bool is_staged(const struct calc *c, const struct local *l) {
    for (size_t i = 0; i < l->pols.n; i++) {
        const struct cpol *p = l->pols.p[i];
        if (p->types && policy_takes_part(c, p, true) != policy_takes_part(c, p, false)) {
            return true;
        }
    }
    return false;
}

static void build_lists(const struct calc *c, const struct local *l, struct lists_build *b,
                        struct calc_endpoint *e) {
    build_chain(c, l, CALC_INGRESS, USE_NORMAL, &b->in, &e->ingress);
    build_chain(c, l, CALC_EGRESS, USE_NORMAL, &b->out, &e->egress);
    for (int d = 0; d < 2 && is_staged(c, l); d++) {
        build_chain(c, l, (enum calc_dir)d, USE_STAGED, &b->staged[d], &b->staged_chains[d]);
        e->staged = b->staged_chains;
    }
    if (!l->is_host) {
        return;
    }
    for (int d = 0; d < 2; d++) {
        enum calc_dir dir = (enum calc_dir)d;
        build_chain(c, l, dir, USE_FORWARD, &b->forward[d], &b->host.forward[d]);
        build_chain(c, l, dir, USE_UNTRACKED, &b->untracked[d], &b->host.untracked[d]);
    }
    build_chain(c, l, CALC_INGRESS, USE_PRE_DNAT, &b->pre_dnat, &b->host.pre_dnat);
    e->host = &b->host;
}

/* Its policies are sorted. */
static struct calc_endpoint build_endpoint(const struct calc *c, const struct local *l,
                                           struct lists_build *b) {
    struct calc_endpoint e = {.id = l->id,
                              .iface = l->iface,
                              .ns = l->ns,
                              .name = l->name,
                              .nets = l->nets,
                              .n_nets = l->n_nets,
                              .spoof_ok = l->spoof_ok,
                              .n_spoof_ok = l->n_spoof_ok,
                              .nats = l->nats,
                              .n_nats = l->n_nats};
    memcpy(e.mac, l->mac, sizeof(e.mac));
    build_lists(c, l, b, &e);
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
    const struct local *l = item_user;
    if (l->is_out) {
        struct calc_endpoint e = build_endpoint(r->c, l, &r->b);
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
        struct local *l = c->dirty_endpoints.p[i];
        l->is_dirty = false;
        vec_sort(&l->pols, pol_cmp);
        struct calc_endpoint e = build_endpoint(c, l, &b);
        uint64_t h = endpoint_hash(&e);
        if (!l->is_out || h != l->out_hash) {
            l->is_out = true;
            l->out_hash = h;
            report_profiles(c, l);
            c->ops.endpoint(c->arg, &e);
        }
    }
    vec_clear(&c->dirty_endpoints);
    lists_fini(&b);
}
