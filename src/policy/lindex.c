/* The index of items by their labels. What items have in common is a label set (lset): found by its
 * pairs, with the selectors that match it. Numbers of label sets only grow, so posting lists are
 * sorted by themselves; those of label sets that are gone stay in the lists until they are half of
 * all, then everything is numbered anew. */
#include "policy/lexpr.h"

struct lset {
    uint32_t id;
    uint32_t first;          /* of its items */
    VEC(struct lsel *) sels; /* that match */
    uint64_t epoch;
    uint32_t n;
    uint32_t pairs[]; /* referenced */
};

struct lset_key {
    const uint32_t *p;
    size_t n;
};
#define MAP_NAME lset_map
#define MAP_KEY struct lset_key
#define MAP_VAL struct lset *
#define MAP_HASH(k) hash_str(str_n((const char *)(k).p, (k).n * sizeof(uint32_t)))
#define MAP_EQ(a, b) ((a).n == (b).n && memcmp((a).p, (b).p, (a).n * sizeof(uint32_t)) == 0)
#include "base/map.tmpl.h"

struct litem {
    void *user; /* NULL: free */
    struct lset *set;
    uint32_t prev, next; /* of the same set; 0 = none */
};

enum { N_PAIRS_NEEDED = SELECTOR_MAX_NEEDS };
#define TERM_IS_KEY (1U << 31) /* a term is a pair's id, or with this bit a key's */

struct lsel {
    void *user;
    struct lexpr *expr;
    uint64_t epoch;
    VEC(uint32_t) matched;           /* ids of label sets, some gone */
    uint32_t needed[N_PAIRS_NEEDED]; /* pairs that a match has, all of them; 0 = no more */
    uint32_t pos;                    /* in the list of those without terms */
    uint32_t n_terms;
    uint32_t terms[]; /* of which a match has one; the selector is listed there */
};
typedef VEC(struct lsel *) sel_vec;
typedef VEC(uint32_t) id_vec;

struct lpost {
    id_vec sets; /* ascending */
    sel_vec sels;
};

struct lidx {
    struct ltab *t;
    VEC(struct lpost) by_pair; /* pair id - 1 */
    VEC(sel_vec) by_key;       /* key id - 1 */
    sel_vec residual;
    VEC(struct lset *) sets; /* id - 1; NULL: gone */
    size_t n_gone;
    struct lset_map by_pairs;
    VEC(struct litem) items; /* id - 1 */
    id_vec free_items;
    uint64_t epoch;
};

struct lidx *lidx_new(struct ltab *t) {
    struct lidx *x = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    x->t = t;
    return x;
}

static void lset_drop(struct lidx *x, struct lset *s) {
    for (uint32_t i = 0; i < s->n; i++) {
        ltab_unref(x->t, s->pairs[i]);
    }
    vec_fini(&s->sels);
    free(s);
}

void lidx_free(struct lidx *x) {
    for (size_t i = 0; i < x->sets.n; i++) {
        if (x->sets.p[i]) {
            lset_drop(x, x->sets.p[i]);
        }
    }
    for (size_t i = 0; i < x->by_pair.n; i++) {
        vec_fini(&x->by_pair.p[i].sets);
        vec_fini(&x->by_pair.p[i].sels);
    }
    for (size_t i = 0; i < x->by_key.n; i++) {
        vec_fini(&x->by_key.p[i]);
    }
    vec_fini(&x->by_pair);
    vec_fini(&x->by_key);
    vec_fini(&x->residual);
    vec_fini(&x->sets);
    lset_map_fini(&x->by_pairs);
    vec_fini(&x->items);
    vec_fini(&x->free_items);
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

/* ---- matching ---- */

static bool matches(const struct lidx *x, const struct lsel *l, const struct lset *s) {
    for (size_t k = 0; k < N_PAIRS_NEEDED && l->needed[k]; k++) {
        uint32_t i = 0;
        while (i < s->n && s->pairs[i] != l->needed[k]) {
            i++;
        }
        if (i == s->n) {
            return false;
        }
    }
    return lexpr_match(x->t, l->expr, s->pairs, s->n);
}

static void try(struct lidx *x, struct lsel *l, struct lset *s) {
    if (matches(x, l, s)) {
        vec_push(&s->sels, l);
        vec_push(&l->matched, s->id);
    }
}

static void try_sels(struct lidx *x, struct lset *s, const sel_vec *v) {
    for (size_t i = 0; i < v->n; i++) {
        if (v->p[i]->epoch != x->epoch) {
            v->p[i]->epoch = x->epoch;
            try(x, v->p[i], s);
        }
    }
}

/* The selectors of new labels. */
static void match_set(struct lidx *x, struct lset *s) {
    x->epoch++;
    for (uint32_t i = 0; i < s->n; i++) {
        try_sels(x, s, &post(x, s->pairs[i])->sels);
        uint32_t key = x->t->pairs.p[s->pairs[i] - 1].key_id;
        if (key <= x->by_key.n) {
            try_sels(x, s, &x->by_key.p[key - 1]);
        }
    }
    try_sels(x, s, &x->residual);
}

static void try_id(struct lidx *x, struct lsel *l, uint32_t id) {
    struct lset *s = x->sets.p[id - 1];
    if (s && s->epoch != x->epoch) {
        s->epoch = x->epoch;
        try(x, l, s);
    }
}

/* The first place from `at` on whose id is not below. */
static size_t seek(const id_vec *v, size_t at, uint32_t id) {
    size_t step = 1;
    while (at + step < v->n && v->p[at + step] < id) {
        at += step;
        step *= 2;
    }
    size_t end = at + step < v->n ? at + step : v->n;
    while (at < end) {
        size_t middle = at + (end - at) / 2;
        if (v->p[middle] < id) {
            at = middle + 1;
        } else {
            end = middle;
        }
    }
    return at;
}

/* Of the label sets in list a, those that are in list b, too. */
static void try_both(struct lidx *x, struct lsel *l, const id_vec *a, const id_vec *b) {
    size_t at = 0;
    for (size_t i = 0; i < a->n; i++) {
        at = seek(b, at, a->p[i]);
        if (at == b->n) {
            return;
        }
        if (b->p[at] == a->p[i]) {
            try_id(x, l, a->p[i]);
        }
    }
}

static void try_pair(struct lidx *x, struct lsel *l, uint32_t pair, uint32_t other) {
    const id_vec *a = &post(x, pair)->sets;
    if (other && other != pair) {
        const id_vec other_sets = {post(x, other)->sets.p, post(x, other)->sets.n, 0};
        a = &post(x, pair)->sets; /* the table may have grown */
        try_both(x, l, a, &other_sets);
        return;
    }
    for (size_t i = 0; i < a->n; i++) {
        try_id(x, l, a->p[i]);
    }
}

/* The label sets of a new selector. */
static void match_sel(struct lidx *x, struct lsel *l) {
    x->epoch++;
    for (size_t i = 0; l->n_terms == 0 && i < x->sets.n; i++) {
        try_id(x, l, (uint32_t)i + 1);
    }
    /* Where the terms are one pair, another pair that is needed makes the list shorter. */
    uint32_t other = l->n_terms == 1 && l->needed[0] == l->terms[0] ? l->needed[1] : l->needed[0];
    for (uint32_t i = 0; i < l->n_terms; i++) {
        uint32_t term = l->terms[i];
        if (!(term & TERM_IS_KEY)) {
            try_pair(x, l, term, other);
            continue;
        }
        size_t n = x->t->keys.p[(term & ~TERM_IS_KEY) - 1].pairs.n;
        for (size_t k = 0; k < n; k++) {
            try_pair(x, l, x->t->keys.p[(term & ~TERM_IS_KEY) - 1].pairs.p[k], other);
        }
    }
}

/* ---- label sets ---- */

static struct lset *lset_get(struct lidx *x, const uint32_t *pairs, size_t n) {
    struct lset **found = lset_map_get(&x->by_pairs, (struct lset_key){pairs, n});
    if (found) {
        return *found;
    }
    struct lset *s = calloc(1, sizeof(*s) + n * sizeof(*pairs));
    mg_assert(s != NULL);
    s->n = (uint32_t)n;
    if (n) {
        memcpy(s->pairs, pairs, n * sizeof(*pairs));
    }
    vec_push(&x->sets, s);
    s->id = (uint32_t)x->sets.n;
    for (size_t i = 0; i < n; i++) {
        ltab_again(x->t, pairs[i]);
        vec_push(&post(x, pairs[i])->sets, s->id);
    }
    *lset_map_put(&x->by_pairs, (struct lset_key){s->pairs, n}, NULL) = s;
    match_set(x, s);
    return s;
}

static void clear_matched(const sel_vec *v) {
    for (size_t i = 0; i < v->n; i++) {
        vec_clear(&v->p[i]->matched);
    }
}

/* Numbers the label sets anew and makes all lists from them. */
static void renumber(struct lidx *x) {
    for (size_t i = 0; i < x->by_pair.n; i++) {
        vec_fini(&x->by_pair.p[i].sets);
        const sel_vec sels = {x->by_pair.p[i].sels.p, x->by_pair.p[i].sels.n, 0};
        clear_matched(&sels);
    }
    for (size_t i = 0; i < x->by_key.n; i++) {
        clear_matched(&x->by_key.p[i]);
    }
    clear_matched(&x->residual);
    size_t n = 0;
    for (size_t i = 0; i < x->sets.n; i++) {
        struct lset *s = x->sets.p[i];
        if (!s) {
            continue;
        }
        x->sets.p[n++] = s;
        s->id = (uint32_t)n;
        for (uint32_t k = 0; k < s->n; k++) {
            vec_push(&post(x, s->pairs[k])->sets, s->id);
        }
        for (size_t k = 0; k < s->sels.n; k++) {
            vec_push(&s->sels.p[k]->matched, s->id);
        }
    }
    x->sets.n = n;
    x->n_gone = 0;
}

static void lset_gone(struct lidx *x, struct lset *s) {
    enum { GONE_MIN = 1024 };
    lset_map_del(&x->by_pairs, (struct lset_key){s->pairs, s->n});
    x->sets.p[s->id - 1] = NULL;
    x->n_gone++;
    lset_drop(x, s);
    if (x->n_gone > GONE_MIN && x->n_gone > x->sets.n / 2) {
        renumber(x);
    }
}

/* ---- items ---- */

void lidx_each(const struct lidx *x, void (*cb)(void *arg, void *item_user), void *arg) {
    for (size_t i = 0; i < x->items.n; i++) {
        if (x->items.p[i].user) {
            cb(arg, x->items.p[i].user);
        }
    }
}

uint32_t lidx_item_new(struct lidx *x, void *user) {
    uint32_t id;
    if (x->free_items.n) {
        id = x->free_items.p[--x->free_items.n];
    } else {
        vec_push(&x->items, (struct litem){.user = NULL});
        id = (uint32_t)x->items.n;
    }
    x->items.p[id - 1] = (struct litem){.user = user};
    return id;
}

static struct litem *item_at(struct lidx *x, uint32_t id) {
    return &x->items.p[id - 1];
}

static void leave(struct lidx *x, struct litem *it) {
    struct lset *s = it->set;
    if (!s) {
        return;
    }
    if (it->next) {
        item_at(x, it->next)->prev = it->prev;
    }
    if (it->prev) {
        item_at(x, it->prev)->next = it->next;
    } else {
        s->first = it->next;
    }
    it->set = NULL;
    it->prev = it->next = 0;
    if (!s->first) {
        lset_gone(x, s);
    }
}

void lidx_item_set(struct lidx *x, uint32_t item, const uint32_t *pairs, size_t n) {
    struct litem *it = item_at(x, item);
    struct lset *s = lset_get(x, pairs, n); /* first: pairs that stay must not go in between */
    if (s == it->set) {
        return;
    }
    leave(x, it);
    it->set = s;
    it->next = s->first;
    if (s->first) {
        item_at(x, s->first)->prev = item;
    }
    s->first = item;
}

void lidx_item_free(struct lidx *x, uint32_t item) {
    struct litem *it = item_at(x, item);
    leave(x, it);
    it->user = NULL;
    vec_push(&x->free_items, item);
}

const uint32_t *lidx_item_pairs(const struct lidx *x, uint32_t item, size_t *n) {
    const struct lset *s = x->items.p[item - 1].set;
    *n = s ? s->n : 0;
    return s ? s->pairs : NULL;
}

void lidx_item_each_match(struct lidx *x, uint32_t item, void (*cb)(void *arg, void *sel_user),
                          void *arg) {
    const struct lset *s = item_at(x, item)->set;
    for (size_t i = 0; s && i < s->sels.n; i++) {
        cb(arg, s->sels.p[i]->user);
    }
}

/* ---- selectors ---- */

static size_t term_weight(void *arg, struct selector_term t) {
    struct lidx *x = arg;
    if (t.value.p) {
        uint32_t *id = pair_id_get(&x->t->by_pair, (struct pair_key){t.key, t.value});
        return id && *id <= x->by_pair.n ? x->by_pair.p[*id - 1].sets.n + 1 : 1;
    }
    uint32_t *k = key_id_get(&x->t->by_key, t.key);
    size_t sum = 1;
    for (size_t i = 0; k && i < x->t->keys.p[*k - 1].pairs.n; i++) {
        uint32_t pair = x->t->keys.p[*k - 1].pairs.p[i];
        sum += pair <= x->by_pair.n ? x->by_pair.p[pair - 1].sets.n : 0;
    }
    return sum;
}

/* The compiled selector refers to the pairs: their ids stay as long as it. */
static uint32_t term_id(struct lidx *x, const struct selector_term *t) {
    if (!t->value.p) {
        return ltab_key(x->t, t->key) | TERM_IS_KEY;
    }
    return *pair_id_get(&x->t->by_pair, (struct pair_key){t->key, t->value});
}

static struct lsel *sel_make(struct lidx *x, const struct selector *s, void *user) {
    struct selector_need needs[SELECTOR_MAX_NEEDS];
    struct lexpr *expr = lexpr_new(x->t, s);
    size_t n = selector_needs(s, term_weight, x, needs), n_terms = n ? needs[0].n : 0;
    struct lsel *l = calloc(1, sizeof(*l) + n_terms * sizeof(*l->terms));
    mg_assert(l != NULL);
    l->expr = expr;
    l->user = user;
    l->n_terms = (uint32_t)n_terms;
    for (size_t i = 0; i < n_terms; i++) {
        l->terms[i] = term_id(x, &needs[0].terms[i]);
    }
    for (size_t i = 0, k = 0; i < n; i++) {
        if (needs[i].n == 1 && needs[i].terms[0].value.p) {
            l->needed[k++] = term_id(x, &needs[i].terms[0]);
        }
    }
    return l;
}

static sel_vec *listed_at(struct lidx *x, uint32_t term) {
    return term & TERM_IS_KEY ? key_sels(x, term & ~TERM_IS_KEY) : &post(x, term)->sels;
}

struct lsel *lidx_sel_new(struct lidx *x, const struct selector *s, void *user) {
    struct lsel *l = sel_make(x, s, user);
    l->pos = (uint32_t)x->residual.n;
    if (l->n_terms == 0) {
        vec_push(&x->residual, l);
    }
    for (uint32_t i = 0; i < l->n_terms; i++) {
        vec_push(listed_at(x, l->terms[i]), l);
    }
    match_sel(x, l);
    return l;
}

static void unlist(sel_vec *v, const struct lsel *l) {
    for (size_t i = 0; i < v->n; i++) {
        if (v->p[i] == l) {
            vec_swap_remove(v, i);
            return;
        }
    }
}

void lidx_sel_free(struct lidx *x, struct lsel *l) {
    for (size_t i = 0; i < l->matched.n; i++) {
        struct lset *s = x->sets.p[l->matched.p[i] - 1];
        for (size_t k = 0; s && k < s->sels.n; k++) {
            if (s->sels.p[k] == l) {
                vec_swap_remove(&s->sels, k);
                break;
            }
        }
    }
    if (l->n_terms == 0) {
        struct lsel *moved = x->residual.p[--x->residual.n];
        x->residual.p[l->pos] = moved;
        moved->pos = l->pos;
    }
    for (uint32_t i = 0; i < l->n_terms; i++) {
        unlist(listed_at(x, l->terms[i]), l);
    }
    vec_fini(&l->matched);
    lexpr_free(x->t, l->expr);
    free(l);
}

void lidx_sel_each_match(struct lidx *x, struct lsel *l, void (*cb)(void *arg, void *item_user),
                         void *arg) {
    for (size_t i = 0; i < l->matched.n; i++) {
        const struct lset *s = x->sets.p[l->matched.p[i] - 1];
        for (uint32_t id = s ? s->first : 0; id; id = item_at(x, id)->next) {
            cb(arg, item_at(x, id)->user);
        }
    }
}
