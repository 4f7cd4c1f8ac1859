/* Policies, the lists that endpoints walk, and endpoints: which chains must exist and who uses
 * them. Equal lists share one chain, and so do equal rests of lists. */
#include "dataplane/table.h"

#include <stdio.h>
#include <stdlib.h>

static char *dup_str(struct str s) {
    char *p = strndup(s.p ? s.p : "", s.n);
    mg_assert(p != NULL);
    return p;
}

/* A policy that is deleted and made again has the same name: its new chain takes over what the
 * kernel has of the old one, which then has nothing to remove. */
static void chain_register(struct dataplane *d, struct kchain *c) {
    struct kchain **old = str_kchain_get(&d->chains, str_c(c->name));
    if (old) {
        c->in_kernel = (*old)->in_kernel;
        c->hash = (*old)->hash;
        (*old)->in_kernel = false;
        str_kchain_del(&d->chains, str_c(c->name)); /* its key is the old one's text */
    }
    *str_kchain_put(&d->chains, str_c(c->name), NULL) = c;
}

/* ---- names ---- */

static const char *kind_short(struct str kind) {
    static const struct {
        const char *kind, *text;
    } names[] = {
        {"NetworkPolicy", "np"},
        {"GlobalNetworkPolicy", "gnp"},
        {"KubernetesNetworkPolicy", "knp"},
        {"KubernetesClusterNetworkPolicy", "kcnp"},
        {"AdminNetworkPolicy", "anp"},
        {"BaselineAdminNetworkPolicy", "banp"},
        {"StagedNetworkPolicy", "snp"},
        {"StagedGlobalNetworkPolicy", "sgnp"},
        {"StagedKubernetesNetworkPolicy", "sknp"},
        {"Profile", "profile"},
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_is(kind, names[i].kind)) {
            return names[i].text;
        }
    }
    return "policy";
}

enum { CHAIN_NAME_MAX = 200 };

/* "in/knp/prod/web": nft reads it as a name. What would not fit or not read back is replaced, and a
 * fingerprint of the whole is added. */
static void policy_chain_name(const struct calc_policy *p, const struct seg *pass_to,
                              enum list_mode mode, struct buf *b) {
    size_t start = b->n;
    buf_puts(b, mode == LIST_STAGED ? "staged/" : mode == LIST_RAW ? "raw/" : "");
    buf_puts(b, p->dir == CALC_INGRESS ? "in/" : "out/");
    buf_puts(b, kind_short(p->kind));
    if (p->ns.n) {
        buf_putc(b, '/');
        buf_str(b, p->ns);
    }
    buf_putc(b, '/');
    buf_str(b, p->name);
    uint64_t h = hash_fixed(0, b->p + start, b->n - start);
    bool altered = b->n - start > CHAIN_NAME_MAX;
    for (size_t i = start; i < b->n; i++) {
        char c = b->p[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == '.' || c == '/';
        if (!ok) {
            b->p[i] = '_';
            altered = true;
        }
    }
    if (altered) {
        b->n = b->n - start < CHAIN_NAME_MAX ? b->n : start + CHAIN_NAME_MAX;
        buf_printf(b, "-%016llx", (unsigned long long)h);
    }
    if (pass_to) {
        buf_printf(b, "/pass-%s", pass_to->c.name + strlen("list-"));
    }
}

/* ---- variants ---- */

void variant_dirty(struct dataplane *d, struct variant *v) {
    if (!v->c.is_dirty) {
        v->c.is_dirty = true;
        vec_push(&d->dirty_variants, v);
    }
}

static enum list_mode chain_mode(enum list_mode m) {
    return m == LIST_FORWARD ? LIST_NORMAL : m;
}

static struct variant *variant_get(struct dataplane *d, struct dpol *p, const struct seg *s) {
    struct seg *want = p->has_pass && !p->is_profile ? s->next : NULL;
    enum list_mode mode = chain_mode(s->mode);
    bool is_rest = s->merged != NULL;
    for (size_t i = 0; i < p->variants.n; i++) {
        struct variant *v = p->variants.p[i];
        if (v->pass_to == want && v->is_rest == is_rest && v->mode == mode) {
            v->c.is_gone = false;
            return v;
        }
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    policy_chain_name(p->p, want, mode, &b);
    if (is_rest) {
        buf_puts(&b, "/rest");
    }
    struct variant *v = calloc(1, sizeof(*v));
    mg_assert(v != NULL);
    v->c.name = dup_str(buf_view(&b));
    v->pol = p;
    v->pass_to = want;
    v->mode = mode;
    v->is_rest = is_rest;
    if (want) {
        want->refs++;
    }
    chain_register(d, &v->c);
    vec_push(&p->variants, v);
    variant_dirty(d, v);
    return v;
}

static void variant_unref(struct dataplane *d, struct variant *v) {
    if (--v->refs == 0) {
        v->c.is_gone = true;
        variant_dirty(d, v);
    }
}

/* ---- segments ---- */

void seg_dirty(struct dataplane *d, struct seg *s) {
    if (!s->c.is_dirty) {
        s->c.is_dirty = true;
        vec_push(&d->dirty_segs, s);
    }
}

void seg_unref(struct dataplane *d, struct seg *s) {
    if (s && --s->refs == 0) {
        s->c.is_gone = true;
        seg_dirty(d, s);
    }
}

struct seg_plan {
    const uint32_t *ids;
    size_t n;
    struct seg *next;
    struct str tier;
    enum list_mode mode;
    bool is_profiles;
    enum seg_end end;
};

/* Do all its policies only allow? */
static bool is_merged(struct dataplane *d, const struct seg_plan *p) {
    bool is_plain = p->n > 0;
    for (size_t i = 0; i < p->n && is_plain; i++) {
        struct dpol *pol = dpol_get(d, p->ids[i]);
        is_plain = pol && pol->is_plain;
    }
    return is_plain;
}

static void seg_key(struct dataplane *d, const struct seg_plan *p, struct buf *b) {
    static const char *const modes[] = {[LIST_NORMAL] = "",
                                        [LIST_STAGED] = "staged ",
                                        [LIST_FORWARD] = "", /* its chains are the same */
                                        [LIST_RAW] = "raw "};
    bool merged = is_merged(d, p);
    buf_printf(b, "%s%s%s %.*s\n", modes[p->mode], merged ? "merged " : "",
               p->is_profiles ? "profiles" : "tier", STR_FMT(p->tier));
    for (size_t i = 0; i < p->n; i++) {
        struct dpol *pol = dpol_get(d, p->ids[i]);
        if (pol) {
            struct seg *to = pol->has_pass && !pol->is_profile ? p->next : NULL;
            policy_chain_name(pol->p, to, chain_mode(p->mode), b);
            buf_puts(b, merged && pol->has_rest ? " rest\n" : "\n");
        }
    }
    const char *next = p->next ? p->next->c.name : "";
    buf_printf(b, "then %s pass %s",
               p->end == END_DROP     ? "drop"
               : p->end == END_ACCEPT ? "accept"
                                      : next,
               next);
}

static void seg_add(struct dataplane *d, struct seg *s, struct dpol *pol) {
    if (s->merged) {
        vec_push(&s->plains, pol);
        vec_push(&pol->segs, s);
        merged_change(d, s, &pol->allows, true);
    }
    if (!s->merged || pol->has_rest) {
        struct variant *v = variant_get(d, pol, s);
        v->refs++;
        vec_push(&s->list, v);
    }
}

/* The segment for a plan, shared or new; the caller's plan keeps its own reference to next. */
static struct seg *seg_get(struct dataplane *d, const struct seg_plan *p) {
    MG_CLEANUP(buf_fini) struct buf key = BUF_INIT(64 << 20);
    seg_key(d, p, &key);
    struct seg **found = str_seg_get(&d->segs, buf_view(&key));
    if (found) {
        (*found)->c.is_gone = false;
        (*found)->refs++;
        return *found;
    }
    struct seg *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    char name[64];
    snprintf(name, sizeof(name), "list-%016llx", (unsigned long long)hash_fixed(1, key.p, key.n));
    s->c.name = dup_str(str_c(name));
    s->key = str_c(dup_str(buf_view(&key)));
    s->tier = dup_str(p->tier);
    s->is_profiles = p->is_profiles;
    s->mode = p->mode;
    s->end = p->end;
    s->next = p->next;
    if (s->next) {
        s->next->refs++;
    }
    s->refs = 1;
    if (is_merged(d, p)) {
        s->merged = calloc(1, sizeof(*s->merged));
        mg_assert(s->merged != NULL);
    }
    for (size_t i = 0; i < p->n; i++) {
        struct dpol *pol = dpol_get(d, p->ids[i]);
        if (pol) {
            s->dir = pol->p->dir;
            seg_add(d, s, pol);
        }
    }
    *str_seg_put(&d->segs, s->key, NULL) = s;
    chain_register(d, &s->c);
    seg_dirty(d, s);
    return s;
}

static struct seg *seg_last(struct dataplane *d, const struct calc_chain *c, enum list_mode mode) {
    bool has_profiles = mode == LIST_NORMAL || mode == LIST_STAGED;
    return seg_get(d, &(struct seg_plan){.ids = c->profiles,
                                         .n = has_profiles ? c->n_profiles : 0,
                                         .mode = mode,
                                         .is_profiles = true,
                                         .end = has_profiles ? END_DROP : END_ACCEPT});
}

struct seg *seg_build(struct dataplane *d, const struct calc_chain *c, size_t i,
                      enum list_mode mode) {
    if (i == c->n_tiers) {
        return seg_last(d, c, mode);
    }
    const struct calc_tier *t = &c->tiers[i];
    bool goes_on = t->default_pass || mode == LIST_RAW, needs_next = goes_on;
    for (size_t j = 0; j < t->n_policies && !needs_next; j++) {
        struct dpol *p = dpol_get(d, t->policies[j]);
        needs_next = p && p->has_pass;
    }
    struct seg_plan plan = {.ids = t->policies,
                            .n = t->n_policies,
                            .tier = t->name,
                            .mode = mode,
                            .end = goes_on ? END_NEXT : END_DROP,
                            .next = needs_next ? seg_build(d, c, i + 1, mode) : NULL};
    struct seg *s = seg_get(d, &plan);
    seg_unref(d, plan.next);
    return s;
}

/* ---- policies ---- */

struct dpol *dpol_get(struct dataplane *d, uint32_t id) {
    struct dpol **p = id_dpol_get(&d->policies, id);
    return p ? *p : NULL;
}

static void dset_use(struct dataplane *d, uint32_t set, uint32_t pol, bool on) {
    struct dset **s = set ? id_dset_get(&d->sets, set) : NULL;
    if (!s) {
        return;
    }
    for (size_t i = 0; i < (*s)->users.n; i++) {
        if ((*s)->users.p[i] == pol) {
            if (!on) {
                vec_swap_remove(&(*s)->users, i);
            }
            return;
        }
    }
    if (on) {
        vec_push(&(*s)->users, pol);
    }
}

static void use(struct dataplane *d, struct dpol *p, uint32_t set) {
    if (set) {
        vec_push(&p->used_sets, set);
        dset_use(d, set, p->id, true);
    }
}

/* Which sets the policy's rules name, kept with the sets: they may grow new parts. used_sets holds
 * what was registered, since the old rules are gone when an update comes. */
static void policy_use(struct dataplane *d, struct dpol *p) {
    for (size_t i = 0; i < p->used_sets.n; i++) {
        dset_use(d, p->used_sets.p[i], p->id, false);
    }
    vec_clear(&p->used_sets);
    for (size_t i = 0; i < p->p->n_rules; i++) {
        const struct calc_rule *r = &p->p->rules[i];
        const struct calc_side *sides[] = {&r->src, &r->dst};
        for (size_t k = 0; k < 2; k++) {
            const struct calc_side *s = sides[k];
            use(d, p, s->set);
            use(d, p, s->not_set);
            use(d, p, s->service_set);
            for (size_t j = 0; j < s->n_port_sets; j++) {
                use(d, p, s->port_sets[j]);
            }
            for (size_t j = 0; j < s->n_not_port_sets; j++) {
                use(d, p, s->not_port_sets[j]);
            }
        }
    }
}

/* What its lists must be built anew for when it changes. */
struct shape {
    bool has_pass, is_plain, has_rest;
};

static struct shape shape_of(const struct dpol *x) {
    return (struct shape){x->has_pass && !x->is_profile, x->is_plain, x->is_plain && x->has_rest};
}

/* Sorts its rules; merged lists are told of what is let through now and no longer. */
static void policy_sort(struct dataplane *d, struct dpol *x) {
    allow_vec old = x->allows;
    x->allows = (allow_vec){0};
    x->has_pass = x->has_rest = false;
    x->is_plain = !x->p->is_untracked; /* accepting is not all then */
    for (size_t i = 0; i < x->p->n_rules; i++) {
        const struct calc_rule *r = &x->p->rules[i];
        x->has_pass |= r->action == RULE_PASS;
        x->is_plain &= r->action == RULE_ALLOW;
        x->has_rest |= !merge_rule(r, x->p->dir, &x->allows);
    }
    /* Added first: what stays is not touched. */
    for (size_t i = 0; i < x->segs.n; i++) {
        merged_change(d, x->segs.p[i], &x->allows, true);
        merged_change(d, x->segs.p[i], &old, false);
    }
    vec_fini(&old);
}

void dpol_update(struct dataplane *d, const struct calc_policy *p) {
    bool is_new;
    struct dpol **slot = id_dpol_put(&d->policies, p->id, &is_new);
    if (is_new) {
        *slot = calloc(1, sizeof(**slot));
        mg_assert(*slot != NULL);
        (*slot)->id = p->id;
    }
    struct dpol *x = *slot;
    struct calc_policy *copy = (struct calc_policy *)(uintptr_t)x->p;
    if (!copy) {
        copy = malloc(sizeof(*copy));
        mg_assert(copy != NULL);
    }
    *copy = *p;
    x->p = copy;
    x->is_removed = false;
    x->is_profile = str_is(p->kind, "Profile");
    struct shape old = shape_of(x);
    policy_use(d, x);
    policy_sort(d, x);
    struct shape now = shape_of(x);
    for (size_t i = 0; i < x->variants.n; i++) {
        variant_dirty(d, x->variants.p[i]);
    }
    if (!is_new && memcmp(&old, &now, sizeof(now)) != 0) {
        struct dep **e;
        for (size_t i = 0; id_dep_next(&d->endpoints, &i, NULL, &e);) {
            dep_dirty(d, *e);
        }
    }
}

void dpol_remove(struct dataplane *d, uint32_t id) {
    struct dpol *x = dpol_get(d, id);
    if (!x) {
        return;
    }
    for (size_t i = 0; i < x->used_sets.n; i++) {
        dset_use(d, x->used_sets.p[i], id, false);
    }
    vec_clear(&x->used_sets);
    x->is_removed = true;
    vec_push(&d->removed_policies, id);
}

/* ---- ends ---- */

static void chain_forget(struct dataplane *d, struct kchain *c) {
    struct kchain **x = str_kchain_get(&d->chains, str_c(c->name));
    if (x && *x == c) {
        str_kchain_del(&d->chains, str_c(c->name));
    }
    free(c->name);
}

static void variant_free(struct dataplane *d, struct variant *v) {
    chain_forget(d, &v->c);
    struct dpol *p = v->pol;
    for (size_t i = 0; i < p->variants.n; i++) {
        if (p->variants.p[i] == v) {
            vec_swap_remove(&p->variants, i);
            break;
        }
    }
    free(v);
}

static void seg_free(struct dataplane *d, struct seg *s) {
    chain_forget(d, &s->c);
    str_seg_del(&d->segs, s->key);
    free((char *)(uintptr_t)s->key.p);
    free(s->tier);
    vec_fini(&s->list);
    vec_fini(&s->plains);
    if (s->merged) {
        merged_fini(s->merged);
        free(s->merged);
    }
    free(s);
}

static void dpol_free(struct dataplane *d, struct dpol *p) {
    while (p->variants.n) {
        variant_free(d, p->variants.p[0]);
    }
    vec_fini(&p->variants);
    vec_fini(&p->allows);
    vec_fini(&p->segs);
    vec_fini(&p->used_sets);
    free((void *)(uintptr_t)p->p);
    free(p);
}

static void seg_let_go(struct dataplane *d, struct seg *s) {
    for (size_t i = 0; i < s->list.n; i++) {
        variant_unref(d, s->list.p[i]);
    }
    for (size_t i = 0; i < s->plains.n; i++) {
        struct dpol *p = s->plains.p[i];
        for (size_t k = 0; k < p->segs.n; k++) {
            if (p->segs.p[k] == s) {
                vec_swap_remove(&p->segs, k);
                break;
            }
        }
    }
    if (s->merged) {
        merged_let_go(d, s->merged);
    }
    seg_unref(d, s->next);
}

void lists_cascade(struct dataplane *d) {
    /* What one lets go of may be before it in either list, or be added: until nothing changes. */
    bool is_stable;
    do {
        is_stable = true;
        for (size_t i = 0; i < d->dirty_segs.n; i++) {
            struct seg *s = d->dirty_segs.p[i];
            if (s->c.is_gone && !s->c.has_let_go) {
                s->c.has_let_go = true;
                is_stable = false;
                seg_let_go(d, s);
            }
        }
        for (size_t i = 0; i < d->dirty_variants.n; i++) {
            struct variant *v = d->dirty_variants.p[i];
            if (v->c.is_gone && !v->c.has_let_go) {
                v->c.has_let_go = true;
                is_stable = false;
                seg_unref(d, v->pass_to);
            }
        }
    } while (!is_stable);
}

void lists_sweep(struct dataplane *d) {
    for (size_t i = 0; i < d->dirty_segs.n; i++) {
        struct seg *s = d->dirty_segs.p[i];
        s->c.is_dirty = false;
        if (s->c.is_gone) {
            seg_free(d, s);
        }
    }
    vec_clear(&d->dirty_segs);
    for (size_t i = 0; i < d->dirty_variants.n; i++) {
        struct variant *v = d->dirty_variants.p[i];
        v->c.is_dirty = false;
        if (v->c.is_gone) {
            variant_free(d, v);
        }
    }
    vec_clear(&d->dirty_variants);
    size_t n_left = 0; /* those whose chains are still in some endpoint's list */
    for (size_t i = 0; i < d->removed_policies.n; i++) {
        struct dpol *p = dpol_get(d, d->removed_policies.p[i]);
        if (p && p->is_removed && p->variants.n == 0 && p->segs.n == 0) {
            id_dpol_del(&d->policies, p->id);
            dpol_free(d, p);
        } else if (p && p->is_removed) {
            d->removed_policies.p[n_left++] = p->id;
        }
    }
    d->removed_policies.n = n_left;
}

void lists_fini(struct dataplane *d) {
    struct dpol **p;
    for (size_t i = 0; id_dpol_next(&d->policies, &i, NULL, &p);) {
        dpol_free(d, *p);
    }
    id_dpol_fini(&d->policies);
    struct seg **s;
    for (size_t i = 0; str_seg_next(&d->segs, &i, NULL, &s); i = 0) {
        seg_free(d, *s); /* leaves the map */
    }
    str_seg_fini(&d->segs);
    str_kchain_fini(&d->chains);
}
