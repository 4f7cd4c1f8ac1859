/* Reading the table back and marking what differs from what is wanted. */
#include "dataplane/table.h"

#include <stdlib.h>

struct resync {
    struct dataplane *d;
    struct kset *set; /* whose elements are coming */
    struct hops *hops;
};

static void forget_all(struct dataplane *d) {
    d->has_table = false;
    lists_cascade(d);
    /* What was about to be removed is unwanted like any other leftover, if it is still there. */
    for (size_t i = 0; i < d->dirty_sets.n; i++) {
        struct kset *s = d->dirty_sets.p[i];
        s->is_dirty = false;
        if (s->is_gone) {
            str_kset_del(&d->ksets, str_c(s->name));
            kset_fini(s);
            free(s);
        }
    }
    vec_clear(&d->dirty_sets);
    lists_sweep(d);
    for (size_t i = 0; i < d->stale_chains.n; i++) {
        free(d->stale_chains.p[i]);
    }
    for (size_t i = 0; i < d->stale_sets.n; i++) {
        free(d->stale_sets.p[i]);
    }
    vec_clear(&d->stale_chains);
    vec_clear(&d->stale_sets);

    struct kset **k;
    for (size_t i = 0; str_kset_next(&d->ksets, &i, NULL, &k);) {
        kset_forget_kernel(*k);
        kset_dirty(d, *k);
    }
    for (int i = 0; i < N_FIXED_SETS; i++) {
        kset_forget_kernel(&d->fixed[i]);
        kset_dirty(d, &d->fixed[i]);
    }
    for (int i = 0; i < N_HOP_MAPS; i++) {
        hops_forget_kernel(&d->hops[i]);
    }
    for (int i = 0; i < N_BASE_CHAINS; i++) {
        d->base[i].in_kernel = false;
        d->base[i].is_dirty = true;
    }
    struct dpol **p;
    for (size_t i = 0; id_dpol_next(&d->policies, &i, NULL, &p);) {
        for (size_t j = 0; j < (*p)->variants.n; j++) {
            (*p)->variants.p[j]->c.in_kernel = false;
            variant_dirty(d, (*p)->variants.p[j]);
        }
    }
    struct seg **s;
    for (size_t i = 0; str_seg_next(&d->segs, &i, NULL, &s);) {
        (*s)->c.in_kernel = false;
        (*s)->c.is_dirty = true;
        vec_push(&d->dirty_segs, *s);
    }
}

static void on_table(void *arg) {
    ((struct resync *)arg)->d->has_table = true;
}

static char *dup_str(struct str s) {
    char *p = strndup(s.p ? s.p : "", s.n);
    mg_assert(p != NULL);
    return p;
}

static struct kchain *chain_get(struct dataplane *d, struct str name) {
    for (int i = 0; i < N_BASE_CHAINS; i++) {
        if (str_is(name, d->base[i].name)) {
            return &d->base[i];
        }
    }
    struct kchain **c = str_kchain_get(&d->chains, name);
    return c ? *c : NULL;
}

/* want NULL: a plain chain. */
static bool same_hook(const struct nft_hook *want, const struct nft_hook *has) {
    if (!want || !has->type) {
        return !want && !has->type;
    }
    return want->hooknum == has->hooknum && want->priority == has->priority &&
           want->policy == has->policy && strcmp(want->type, has->type) == 0;
}

static void on_chain(void *arg, struct str name, const struct nft_hook *hook) {
    struct dataplane *d = ((struct resync *)arg)->d;
    struct kchain *c = chain_get(d, name);
    struct nft_hook want;
    bool is_base = c >= d->base && c < d->base + N_BASE_CHAINS &&
                   base_hook(d, (enum base_chain)(c - d->base), &want);
    if (c && same_hook(is_base ? &want : NULL, hook)) {
        c->in_kernel = true;
        c->hash = 0;
        return;
    }
    if (c) {
        d->has_wrong_chain = true;
    }
    vec_push(&d->stale_chains, dup_str(name));
}

static void on_rule(void *arg, struct str chain, const struct nft_rule_read *r) {
    struct kchain *c = chain_get(((struct resync *)arg)->d, chain);
    if (c) {
        c->hash = nft_chain_hash(c->hash, r->hash);
    }
}

static bool same_set(const struct nft_set *a, const struct nft_set *b) {
    return memcmp(a->fields, b->fields, sizeof(a->fields)) == 0 &&
           memcmp(a->data, b->data, sizeof(a->data)) == 0 && a->is_interval == b->is_interval &&
           a->is_verdict_map == b->is_verdict_map;
}

static void set_done(struct resync *r) {
    if (r->set) {
        kset_kernel_done(r->set);
    }
    r->set = NULL;
    r->hops = NULL;
}

static void on_set(void *arg, const struct nft_set *s) {
    struct resync *r = arg;
    struct dataplane *d = r->d;
    set_done(r);
    struct kset *k = NULL;
    for (size_t i = 0; i < N_HOP_MAPS && !k; i++) {
        if (str_eq(s->name, d->hops[i].set.desc.name)) {
            r->hops = &d->hops[i];
            k = &d->hops[i].set;
        }
    }
    for (int i = 0; i < N_FIXED_SETS && !k; i++) {
        if (str_eq(s->name, d->fixed[i].desc.name)) {
            k = &d->fixed[i];
        }
    }
    if (!k) {
        struct kset **found = str_kset_get(&d->ksets, s->name);
        k = found ? *found : NULL;
    }
    if (k && same_set(&k->desc, s)) {
        k->in_kernel = true;
        r->set = r->hops ? NULL : k;
        return;
    }
    r->hops = NULL;
    if (k) {
        d->has_wrong_chain = true;
    }
    vec_push(&d->stale_sets, dup_str(s->name));
}

static void on_elem(void *arg, struct str set, const struct nft_elem_read *e) {
    struct resync *r = arg;
    (void)set;
    if (r->hops) {
        hops_kernel(r->hops, e->key, e->chain);
    } else if (r->set) {
        kset_kernel_elem(r->set, e->key, e->data, e->is_interval_end);
    }
}

int dataplane_resync(struct dataplane *d, uint32_t *genid, struct err *e) {
    static const struct nft_read_ops ops = {on_table, on_chain, on_rule, on_set, on_elem};
    int r = nft_generation(d->sock, genid, e);
    if (r < 0) {
        return r;
    }
    forget_all(d);
    struct resync x = {.d = d};
    d->has_wrong_chain = false;
    r = nft_read(d->sock, d->table, &ops, &x, e);
    set_done(&x);
    if (r == 0 && d->has_wrong_chain) {
        /* Something of ours was made by other hands in a shape that can't be changed in place: the
         * table goes and comes whole in one transaction. */
        forget_all(d);
        d->must_replace_table = true;
    }
    return r;
}
