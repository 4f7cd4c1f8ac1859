/* Rows by id, and a table of ids by content: a large cluster has a hundred thousand of them, so the
 * table has four bytes an entry. */
#include "policy/members.h"

#include "base/hash.h"
#include "base/vec.h"

struct row {
    struct calc_member m;
    uint32_t refs; /* 0: free */
};

struct mtab {
    VEC(struct row) rows; /* id - 1 */
    VEC(uint32_t) free_rows;
    uint32_t *slots; /* ids, 0 = empty; linear probing, no tombstones */
    size_t n, cap;
};

uint64_t member_hash(const struct calc_member *m) {
    return ip_hash(&m->net.ip) ^
           hash_u64((uint64_t)m->net.len << 32 | (uint64_t)m->protocol << 16 | m->port);
}

bool member_eq(const struct calc_member *a, const struct calc_member *b) {
    return prefix_eq(&a->net, &b->net) && a->protocol == b->protocol && a->port == b->port;
}

static size_t home_of(const struct mtab *t, const struct calc_member *m) {
    return (size_t)member_hash(m) & (t->cap - 1);
}

struct mtab *mtab_new(void) {
    struct mtab *t = calloc(1, sizeof(*t));
    mg_assert(t != NULL);
    return t;
}

void mtab_free(struct mtab *t) {
    vec_fini(&t->rows);
    vec_fini(&t->free_rows);
    free(t->slots);
    free(t);
}

/* Where it is, or the empty slot where it belongs. */
static size_t slot_of(const struct mtab *t, const struct calc_member *m) {
    size_t i = home_of(t, m);
    while (t->slots[i] && !member_eq(&t->rows.p[t->slots[i] - 1].m, m)) {
        i = (i + 1) & (t->cap - 1);
    }
    return i;
}

static void grow(struct mtab *t) {
    uint32_t *old = t->slots;
    size_t old_cap = t->cap;
    t->cap = old_cap ? old_cap * 2 : 16;
    t->slots = calloc(t->cap, sizeof(*t->slots));
    mg_assert(t->slots != NULL);
    for (size_t i = 0; i < old_cap; i++) {
        if (old[i]) {
            t->slots[slot_of(t, &t->rows.p[old[i] - 1].m)] = old[i];
        }
    }
    free(old);
}

uint32_t mtab_ref(struct mtab *t, const struct calc_member *m) {
    if ((t->n + 1) * 4 > t->cap * 3) {
        grow(t);
    }
    size_t i = slot_of(t, m);
    if (t->slots[i]) {
        t->rows.p[t->slots[i] - 1].refs++;
        return t->slots[i];
    }
    uint32_t id;
    if (t->free_rows.n) {
        id = t->free_rows.p[--t->free_rows.n];
    } else {
        vec_push(&t->rows, (struct row){.refs = 0});
        id = (uint32_t)t->rows.n;
    }
    t->rows.p[id - 1] = (struct row){.m = *m, .refs = 1};
    t->slots[i] = id;
    t->n++;
    return id;
}

void mtab_again(struct mtab *t, uint32_t id) {
    t->rows.p[id - 1].refs++;
}

void mtab_unref(struct mtab *t, uint32_t id) {
    struct row *r = &t->rows.p[id - 1];
    if (--r->refs) {
        return;
    }
    size_t mask = t->cap - 1, i = slot_of(t, &r->m);
    for (size_t j = (i + 1) & mask; t->slots[j]; j = (j + 1) & mask) {
        size_t home = home_of(t, &t->rows.p[t->slots[j] - 1].m);
        if (((j - home) & mask) >= ((j - i) & mask)) {
            t->slots[i] = t->slots[j];
            i = j;
        }
    }
    t->slots[i] = 0;
    t->n--;
    vec_push(&t->free_rows, id);
}

struct calc_member mtab_get(const struct mtab *t, uint32_t id) {
    return t->rows.p[id - 1].m;
}
