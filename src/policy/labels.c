#include "policy/labels.h"

#include "base/hash.h"

#include <stdlib.h>

/* ---- interned pairs ---- */

struct lpair {
    char *text; /* key, value, in one block */
    struct str key, value;
    uint32_t key_id, pos; /* place in the key's list */
    uint32_t refs;
};

struct lkey {
    char *text;
    struct str name;
    VEC(uint32_t) pairs;
};

struct pair_key {
    struct str key, value;
};

#define MAP_NAME pair_id
#define MAP_KEY struct pair_key
#define MAP_VAL uint32_t
#define MAP_HASH(k) (hash_str((k).key) * 31 + hash_str((k).value))
#define MAP_EQ(a, b) (str_eq((a).key, (b).key) && str_eq((a).value, (b).value))
#include "base/map.tmpl.h"

#define MAP_NAME key_id
#define MAP_KEY struct str
#define MAP_VAL uint32_t
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct ltab {
    VEC(struct lpair) pairs; /* id - 1 */
    VEC(struct lkey) keys;   /* id - 1; never removed: there are few */
    VEC(uint32_t) free_pairs;
    struct pair_id by_pair;
    struct key_id by_key;
};

struct ltab *ltab_new(void) {
    struct ltab *t = calloc(1, sizeof(*t));
    mg_assert(t != NULL);
    return t;
}

void ltab_free(struct ltab *t) {
    for (size_t i = 0; i < t->pairs.n; i++) {
        free(t->pairs.p[i].text);
    }
    for (size_t i = 0; i < t->keys.n; i++) {
        free(t->keys.p[i].text);
        vec_fini(&t->keys.p[i].pairs);
    }
    vec_fini(&t->pairs);
    vec_fini(&t->keys);
    vec_fini(&t->free_pairs);
    pair_id_fini(&t->by_pair);
    key_id_fini(&t->by_key);
    free(t);
}

static uint32_t key_ref(struct ltab *t, struct str key) {
    uint32_t *id = key_id_get(&t->by_key, key);
    if (id) {
        return *id;
    }
    struct lkey k = {.text = strndup(key.p ? key.p : "", key.n)};
    mg_assert(k.text != NULL);
    k.name = str_n(k.text, key.n);
    vec_push(&t->keys, k);
    *key_id_put(&t->by_key, k.name, NULL) = (uint32_t)t->keys.n;
    return (uint32_t)t->keys.n;
}

uint32_t ltab_ref(struct ltab *t, struct str key, struct str value) {
    uint32_t *found = pair_id_get(&t->by_pair, (struct pair_key){key, value});
    if (found) {
        t->pairs.p[*found - 1].refs++;
        return *found;
    }
    uint32_t id;
    if (t->free_pairs.n) {
        id = t->free_pairs.p[--t->free_pairs.n];
    } else {
        vec_push(&t->pairs, (struct lpair){.text = NULL});
        id = (uint32_t)t->pairs.n;
    }
    struct lpair *p = &t->pairs.p[id - 1];
    char *text = malloc(key.n + value.n + 1);
    mg_assert(text != NULL);
    memcpy(text, key.p ? key.p : "", key.n);
    memcpy(text + key.n, value.p ? value.p : "", value.n);
    uint32_t k = key_ref(t, key);
    *p = (struct lpair){.text = text,
                        .key = str_n(text, key.n),
                        .value = str_n(text + key.n, value.n),
                        .key_id = k,
                        .pos = (uint32_t)t->keys.p[k - 1].pairs.n,
                        .refs = 1};
    vec_push(&t->keys.p[k - 1].pairs, id);
    *pair_id_put(&t->by_pair, (struct pair_key){p->key, p->value}, NULL) = id;
    return id;
}

void ltab_unref(struct ltab *t, uint32_t id) {
    struct lpair *p = &t->pairs.p[id - 1];
    if (--p->refs) {
        return;
    }
    pair_id_del(&t->by_pair, (struct pair_key){p->key, p->value});
    struct lkey *k = &t->keys.p[p->key_id - 1];
    uint32_t moved = k->pairs.p[k->pairs.n - 1];
    k->pairs.p[p->pos] = moved;
    t->pairs.p[moved - 1].pos = p->pos;
    k->pairs.n--;
    free(p->text);
    *p = (struct lpair){.text = NULL};
    vec_push(&t->free_pairs, id);
}

struct label ltab_label(const struct ltab *t, uint32_t pair) {
    const struct lpair *p = &t->pairs.p[pair - 1];
    return (struct label){p->key, p->value};
}

/* ---- the index ---- */

struct lref {
    uint32_t pair, pos; /* place in the pair's posting list */
};

struct litem {
    void *user;
    struct lref *labels;
    uint32_t n;
    uint32_t epoch;
    bool used;
};

struct lterm {
    bool is_pair;
    uint32_t id;
};

struct lsel {
    const struct selector *s;
    void *user;
    struct lterm *terms;
    uint32_t n_terms;
    uint32_t epoch;
    uint32_t pos; /* in the list of those without terms */
};

struct lpost {
    VEC(uint32_t) items;
    VEC(struct lsel *) sels;
};
typedef VEC(struct lsel *) sel_vec;

struct lidx {
    struct ltab *t;
    VEC(struct lpost) by_pair; /* pair id - 1 */
    VEC(sel_vec) by_key;       /* key id - 1 */
    sel_vec residual;
    VEC(struct litem) items; /* id - 1 */
    VEC(uint32_t) free_items;
    VEC(struct label) scratch;
    uint32_t epoch;
};

void lidx_each(const struct lidx *x, void (*cb)(void *arg, void *item_user), void *arg) {
    for (size_t i = 0; i < x->items.n; i++) {
        if (x->items.p[i].used) {
            cb(arg, x->items.p[i].user);
        }
    }
}

struct lidx *lidx_new(struct ltab *t) {
    struct lidx *x = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    x->t = t;
    return x;
}

void lidx_free(struct lidx *x) {
    for (size_t i = 0; i < x->items.n; i++) {
        for (size_t j = 0; j < x->items.p[i].n; j++) {
            ltab_unref(x->t, x->items.p[i].labels[j].pair);
        }
        free(x->items.p[i].labels);
    }
    for (size_t i = 0; i < x->by_pair.n; i++) {
        vec_fini(&x->by_pair.p[i].items);
        vec_fini(&x->by_pair.p[i].sels);
    }
    for (size_t i = 0; i < x->by_key.n; i++) {
        vec_fini(&x->by_key.p[i]);
    }
    vec_fini(&x->by_pair);
    vec_fini(&x->by_key);
    vec_fini(&x->residual);
    vec_fini(&x->items);
    vec_fini(&x->free_items);
    vec_fini(&x->scratch);
    free(x);
}

static struct lpost *post(struct lidx *x, uint32_t pair) {
    if (x->by_pair.n < pair) {
        vec_reserve(&x->by_pair, pair);
        memset(x->by_pair.p + x->by_pair.n, 0, (pair - x->by_pair.n) * sizeof(*x->by_pair.p));
        x->by_pair.n = pair;
    }
    return &x->by_pair.p[pair - 1];
}

static sel_vec *key_sels(struct lidx *x, uint32_t key) {
    if (x->by_key.n < key) {
        vec_reserve(&x->by_key, key);
        memset(x->by_key.p + x->by_key.n, 0, (key - x->by_key.n) * sizeof(*x->by_key.p));
        x->by_key.n = key;
    }
    return &x->by_key.p[key - 1];
}

uint32_t lidx_item_new(struct lidx *x, void *user) {
    uint32_t id;
    if (x->free_items.n) {
        id = x->free_items.p[--x->free_items.n];
    } else {
        vec_push(&x->items, (struct litem){.used = false});
        id = (uint32_t)x->items.n;
    }
    x->items.p[id - 1] = (struct litem){.user = user, .used = true};
    return id;
}

/* Takes an item out of a posting list; the list's last one moves into its place. */
static void post_remove(struct lidx *x, const struct lref *r) {
    struct lpost *p = post(x, r->pair);
    uint32_t moved = p->items.p[p->items.n - 1];
    p->items.p[r->pos] = moved;
    p->items.n--;
    struct litem *m = &x->items.p[moved - 1];
    for (uint32_t i = 0; i < m->n; i++) {
        if (m->labels[i].pair == r->pair) {
            m->labels[i].pos = r->pos;
            return;
        }
    }
}

void lidx_item_set(struct lidx *x, uint32_t item, const uint32_t *pairs, size_t n) {
    struct litem *it = &x->items.p[item - 1];
    /* The new references first: a pair that stays must not go in between. */
    struct lref *fresh = n ? malloc(n * sizeof(*fresh)) : NULL;
    mg_assert(fresh || n == 0);
    for (size_t i = 0; i < n; i++) {
        struct label l = ltab_label(x->t, pairs[i]);
        fresh[i].pair = ltab_ref(x->t, l.key, l.value);
    }
    for (uint32_t i = 0; i < it->n; i++) {
        struct lref r = it->labels[i];
        post_remove(x, &r);
        ltab_unref(x->t, r.pair);
    }
    free(it->labels);
    it->labels = fresh;
    it->n = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        struct lpost *p = post(x, fresh[i].pair);
        fresh[i].pos = (uint32_t)p->items.n;
        vec_push(&p->items, item);
    }
}

void lidx_item_free(struct lidx *x, uint32_t item) {
    lidx_item_set(x, item, NULL, 0);
    x->items.p[item - 1].used = false;
    vec_push(&x->free_items, item);
}

static bool matches(struct lidx *x, const struct lsel *s, const struct litem *it) {
    vec_reserve(&x->scratch, it->n);
    for (uint32_t i = 0; i < it->n; i++) {
        x->scratch.p[i] = ltab_label(x->t, it->labels[i].pair);
    }
    return selector_match(s->s, x->scratch.p, it->n);
}

static void try_sels(struct lidx *x, const struct litem *it, const sel_vec *v,
                     void (*cb)(void *arg, void *sel_user), void *arg) {
    for (size_t i = 0; i < v->n; i++) {
        struct lsel *s = v->p[i];
        if (s->epoch != x->epoch) {
            s->epoch = x->epoch;
            /* The scratch labels were filled by the caller. */
            if (selector_match(s->s, x->scratch.p, it->n)) {
                cb(arg, s->user);
            }
        }
    }
}

void lidx_item_each_match(struct lidx *x, uint32_t item, void (*cb)(void *arg, void *sel_user),
                          void *arg) {
    const struct litem *it = &x->items.p[item - 1];
    x->epoch++;
    vec_reserve(&x->scratch, it->n);
    for (uint32_t i = 0; i < it->n; i++) {
        x->scratch.p[i] = ltab_label(x->t, it->labels[i].pair);
    }
    for (uint32_t i = 0; i < it->n; i++) {
        uint32_t pair = it->labels[i].pair;
        const struct lpost *p = post(x, pair);
        sel_vec v = {p->sels.p, p->sels.n, p->sels.cap};
        try_sels(x, it, &v, cb, arg);
        uint32_t key = x->t->pairs.p[pair - 1].key_id;
        if (key <= x->by_key.n) {
            try_sels(x, it, &x->by_key.p[key - 1], cb, arg);
        }
    }
    try_sels(x, it, &x->residual, cb, arg);
}

/* ---- selectors ---- */

static size_t term_weight(void *arg, struct selector_term t) {
    struct lidx *x = arg;
    if (t.value.p) {
        uint32_t *id = pair_id_get(&x->t->by_pair, (struct pair_key){t.key, t.value});
        return id && *id <= x->by_pair.n ? x->by_pair.p[*id - 1].items.n + 1 : 1;
    }
    uint32_t *k = key_id_get(&x->t->by_key, t.key);
    size_t sum = 1;
    for (size_t i = 0; k && i < x->t->keys.p[*k - 1].pairs.n; i++) {
        uint32_t pair = x->t->keys.p[*k - 1].pairs.p[i];
        sum += pair <= x->by_pair.n ? x->by_pair.p[pair - 1].items.n : 0;
    }
    return sum;
}

struct lsel *lidx_sel_new(struct lidx *x, const struct selector *s, void *user) {
    struct lsel *l = calloc(1, sizeof(*l));
    mg_assert(l != NULL);
    l->s = s;
    l->user = user;
    struct selector_term terms[SELECTOR_MAX_TERMS];
    size_t n = selector_terms(s, term_weight, x, terms);
    if (n == 0) {
        l->pos = (uint32_t)x->residual.n;
        vec_push(&x->residual, l);
        return l;
    }
    l->terms = calloc(n, sizeof(*l->terms));
    mg_assert(l->terms != NULL);
    l->n_terms = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        struct lterm *t = &l->terms[i];
        t->is_pair = terms[i].value.p != NULL;
        if (t->is_pair) {
            t->id = ltab_ref(x->t, terms[i].key, terms[i].value);
            vec_push(&post(x, t->id)->sels, l);
        } else {
            t->id = key_ref(x->t, terms[i].key);
            vec_push(key_sels(x, t->id), l);
        }
    }
    return l;
}

static void unlist(struct lsel **p, size_t *n, const struct lsel *l) {
    for (size_t i = 0; i < *n; i++) {
        if (p[i] == l) {
            p[i] = p[--*n];
            return;
        }
    }
}

void lidx_sel_free(struct lidx *x, struct lsel *l) {
    if (l->n_terms == 0) {
        struct lsel *moved = x->residual.p[--x->residual.n];
        x->residual.p[l->pos] = moved;
        moved->pos = l->pos;
    }
    for (uint32_t i = 0; i < l->n_terms; i++) {
        struct lterm *t = &l->terms[i];
        if (t->is_pair) {
            struct lpost *p = post(x, t->id);
            unlist(p->sels.p, &p->sels.n, l);
            ltab_unref(x->t, t->id);
        } else {
            sel_vec *v = key_sels(x, t->id);
            unlist(v->p, &v->n, l);
        }
    }
    free(l->terms);
    free(l);
}

static void try_item(struct lidx *x, const struct lsel *s, uint32_t id,
                     void (*cb)(void *arg, void *item_user), void *arg) {
    struct litem *it = &x->items.p[id - 1];
    if (it->used && it->epoch != x->epoch) {
        it->epoch = x->epoch;
        if (matches(x, s, it)) {
            cb(arg, it->user);
        }
    }
}

void lidx_sel_each_match(struct lidx *x, struct lsel *s, void (*cb)(void *arg, void *item_user),
                         void *arg) {
    x->epoch++;
    if (s->n_terms == 0) {
        for (uint32_t i = 1; i <= x->items.n; i++) {
            try_item(x, s, i, cb, arg);
        }
        return;
    }
    for (uint32_t i = 0; i < s->n_terms; i++) {
        const struct lterm *t = &s->terms[i];
        if (t->is_pair) {
            const struct lpost *p = post(x, t->id);
            for (size_t j = 0; j < p->items.n; j++) {
                try_item(x, s, p->items.p[j], cb, arg);
            }
            continue;
        }
        for (size_t k = 0; k < x->t->keys.p[t->id - 1].pairs.n; k++) {
            uint32_t pair = x->t->keys.p[t->id - 1].pairs.p[k];
            for (size_t j = 0; pair <= x->by_pair.n && j < x->by_pair.p[pair - 1].items.n; j++) {
                try_item(x, s, x->by_pair.p[pair - 1].items.p[j], cb, arg);
            }
        }
    }
}
