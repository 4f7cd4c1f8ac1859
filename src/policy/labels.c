/* Labels as numbers: each pair of key and value once, while somebody has it. */
#include "policy/labels_int.h"

#include <stdlib.h>

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

uint32_t ltab_key(struct ltab *t, struct str key) {
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
    uint32_t k = ltab_key(t, key);
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

void ltab_again(struct ltab *t, uint32_t id) {
    t->pairs.p[id - 1].refs++;
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

uint32_t ltab_key_of(const struct ltab *t, uint32_t pair) {
    return t->pairs.p[pair - 1].key_id;
}

struct label ltab_label(const struct ltab *t, uint32_t pair) {
    const struct lpair *p = &t->pairs.p[pair - 1];
    return (struct label){p->key, p->value};
}
