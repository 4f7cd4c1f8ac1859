/* Traits: what items have in common, once; which sets their items are in. */
#include "policy/calc_int.h"

#include <stdlib.h>

static size_t body_bytes(const struct traits *t) {
    return t->n_profs * sizeof(struct cprof *) + t->n_ports * sizeof(struct port_trait) +
           t->n_own * sizeof(uint32_t);
}

uint64_t traits_hash(const struct traits *t) {
    return hash_str(str_n((const char *)t->profs, body_bytes(t)));
}

bool traits_eq(const struct traits *a, const struct traits *b) {
    return a->n_profs == b->n_profs && a->n_ports == b->n_ports && a->n_own == b->n_own &&
           memcmp(a->profs, b->profs, body_bytes(a)) == 0;
}

const struct port_trait *traits_ports(const struct traits *t) {
    return (const void *)(t->profs + t->n_profs);
}

static uint32_t *own_of(struct traits *t) {
    return (void *)((char *)(t->profs + t->n_profs) + t->n_ports * sizeof(struct port_trait));
}

/* ---- labels ---- */

static bool is_calicos(const struct traits_in *in, struct str key) {
    return (in->ns.p && str_is(key, LABEL_NAMESPACE)) ||
           (in->orchestrator.p && str_is(key, LABEL_ORCHESTRATOR)) ||
           (in->service_account.p && str_is(key, LABEL_SERVICE_ACCOUNT));
}

static void insert(uint32_t *sorted, uint32_t n, uint32_t pair) {
    for (; n > 0 && sorted[n - 1] > pair; n--) {
        sorted[n] = sorted[n - 1];
    }
    sorted[n] = pair;
}

static void own_label(struct calc *c, struct traits *t, struct str key, struct str value) {
    insert(own_of(t), t->n_own++, ltab_ref(c->labels, key, value));
}

static void set_own_labels(struct calc *c, struct traits *t, const struct traits_in *in) {
    for (size_t i = 0; in->labels && i < in->labels->n; i++) {
        if (!is_calicos(in, in->labels->p[i].key)) {
            own_label(c, t, in->labels->p[i].key, in->labels->p[i].value);
        }
    }
    if (in->ns.p) {
        own_label(c, t, STR(LABEL_NAMESPACE), in->ns);
    }
    if (in->orchestrator.p) {
        own_label(c, t, STR(LABEL_ORCHESTRATOR), in->orchestrator);
    }
    if (in->service_account.p) {
        own_label(c, t, STR(LABEL_SERVICE_ACCOUNT), in->service_account);
    }
}

static bool has_key(const struct calc *c, uint32_t key) {
    for (size_t i = 0; i < c->pairs_scratch.n; i++) {
        if (ltab_key_of(c->labels, c->pairs_scratch.p[i]) == key) {
            return true;
        }
    }
    return false;
}

/* Own labels win over inherited ones, an earlier profile over a later one. */
static void set_effective_labels(struct calc *c, struct traits *t) {
    vec_clear(&c->pairs_scratch);
    vec_reserve(&c->pairs_scratch, t->n_own);
    for (uint32_t i = 0; i < t->n_own; i++) {
        vec_push(&c->pairs_scratch, own_of(t)[i]);
    }
    for (uint32_t i = 0; i < t->n_profs; i++) {
        const struct prof_def *d = profile_def(t->profs[i]);
        for (size_t j = 0; d && j < d->n_pairs; j++) {
            if (!has_key(c, ltab_key_of(c->labels, d->pairs[j]))) {
                vec_push(&c->pairs_scratch, 0);
                insert(c->pairs_scratch.p, (uint32_t)c->pairs_scratch.n - 1, d->pairs[j]);
            }
        }
    }
    lidx_item_set(c->all, t->lid, c->pairs_scratch.p, c->pairs_scratch.n);
}

/* ---- one of a kind ---- */

/* What is asked for, in the calculation's scratch memory; with references. */
static struct traits *make_scratch(struct calc *c, const struct traits_in *in) {
    size_t n_own = (in->labels ? in->labels->n : 0) + 3;
    size_t bytes = sizeof(struct traits) + in->n_profiles * sizeof(struct cprof *) +
                   in->n_ports * sizeof(struct port_trait) + n_own * sizeof(uint32_t);
    if (c->traits_scratch_bytes < bytes) {
        free(c->traits_scratch);
        c->traits_scratch = malloc(bytes);
        mg_assert(c->traits_scratch != NULL);
        c->traits_scratch_bytes = bytes;
    }
    struct traits *t = c->traits_scratch;
    memset(t, 0, bytes);
    t->n_profs = (uint32_t)in->n_profiles;
    for (size_t i = 0; i < in->n_profiles; i++) {
        t->profs[i] = profile_get(c, in->profiles[i]);
    }
    t->n_ports = (uint32_t)in->n_ports;
    struct port_trait *ports = (void *)(t->profs + t->n_profs);
    for (size_t i = 0; i < in->n_ports; i++) {
        ports[i].name = ltab_ref(c->labels, STR(""), in->ports[i].name);
        ports[i].port = in->ports[i].port;
        ports[i].protocol = in->ports[i].protocol;
    }
    set_own_labels(c, t, in);
    return t;
}

static void unref_labels(struct calc *c, struct traits *t) {
    for (uint32_t i = 0; i < t->n_own; i++) {
        ltab_unref(c->labels, own_of(t)[i]);
    }
    for (uint32_t i = 0; i < t->n_ports; i++) {
        ltab_unref(c->labels, traits_ports(t)[i].name);
    }
}

struct traits *traits_get(struct calc *c, const struct traits_in *in) {
    struct traits *asked = make_scratch(c, in);
    struct traits **found = map_traits_get(&c->traits, asked);
    if (found) {
        unref_labels(c, asked);
        (*found)->refs++;
        return *found;
    }
    size_t bytes = sizeof(*asked) + body_bytes(asked);
    struct traits *t = malloc(bytes);
    mg_assert(t != NULL);
    memcpy(t, asked, bytes);
    t->refs = 1;
    t->lid = lidx_item_new(c->all, t);
    *map_traits_put(&c->traits, t, NULL) = t;
    for (uint32_t i = 0; i < t->n_profs; i++) {
        profile_join(c, t->profs[i], t, true);
    }
    set_effective_labels(c, t);
    return t;
}

struct traits *traits_ref(struct traits *t) {
    t->refs++;
    return t;
}

void traits_unref(struct calc *c, struct traits *t) {
    if (!t || --t->refs) {
        return;
    }
    mg_assert(!t->items);
    lidx_item_free(c->all, t->lid);
    map_traits_del(&c->traits, t);
    for (uint32_t i = 0; i < t->n_profs; i++) {
        profile_join(c, t->profs[i], t, false);
    }
    unref_labels(c, t);
    free(t);
}

/* ---- sets ---- */

typedef VEC(struct cset *) set_vec;

static void collect_set(void *arg, void *sel_user) {
    set_vec *v = arg;
    vec_push(v, (struct cset *)sel_user);
}

static void sets_of(struct calc *c, const struct traits *t, set_vec *out) {
    lidx_item_each_match(c->all, t->lid, collect_set, out);
}

void item_in_sets(struct calc *c, const struct item *it, bool add) {
    set_vec v = {0};
    sets_of(c, it->traits, &v);
    for (size_t i = 0; i < v.n; i++) {
        cset_item(c, v.p[i], it, add);
    }
    vec_fini(&v);
}

static void all_in_set(struct calc *c, struct cset *s, const struct traits *t, bool add) {
    for (const struct item *it = t->items; it; it = it->next) {
        cset_item(c, s, it, add);
    }
}

void traits_relabel(struct calc *c, struct traits *t) {
    set_vec before = {0}, after = {0};
    sets_of(c, t, &before);
    set_effective_labels(c, t);
    sets_of(c, t, &after);
    uint64_t mark = ++c->mark;
    for (size_t i = 0; i < before.n; i++) {
        before.p[i]->mark = mark;
    }
    for (size_t i = 0; i < after.n; i++) {
        if (after.p[i]->mark == mark) {
            after.p[i]->mark = 0; /* stays */
        } else {
            all_in_set(c, after.p[i], t, true);
        }
    }
    for (size_t i = 0; i < before.n; i++) {
        if (before.p[i]->mark == mark) {
            all_in_set(c, before.p[i], t, false);
        }
    }
    vec_fini(&before);
    vec_fini(&after);
    for (struct item *it = t->items; it; it = it->next) {
        if (it->local) {
            local_relabel(c, it->local);
        }
    }
}
