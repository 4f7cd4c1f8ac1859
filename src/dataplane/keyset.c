#include "dataplane/keyset.h"

#include "base/attr.h"
#include "base/hash.h"

#include <stdlib.h>

enum { IN_USE = 0x80, STATES = KEY_WANT | KEY_KERNEL };

static size_t stride(const struct keyset *k) {
    return 1U + k->key_len;
}
static uint8_t *slot(const struct keyset *k, size_t i) {
    return k->slots + i * stride(k);
}
static size_t home(const struct keyset *k, const uint8_t *key) {
    return (size_t)hash_str(str_n((const char *)key, k->key_len)) & (k->cap - 1);
}

void keyset_init(struct keyset *k, size_t key_len) {
    mg_assert(key_len > 0 && key_len < 256);
    *k = (struct keyset){.key_len = (uint8_t)key_len};
}

void keyset_fini(struct keyset *k) {
    free(k->slots);
    free(k->touched);
    *k = (struct keyset){.key_len = k->key_len};
}

/* The slot of key, or the empty one where it would go. */
static uint8_t *find(const struct keyset *k, const uint8_t *key) {
    for (size_t i = home(k, key);; i = (i + 1) & (k->cap - 1)) {
        uint8_t *s = slot(k, i);
        if (!*s || memcmp(s + 1, key, k->key_len) == 0) {
            return s;
        }
    }
}

static void grow(struct keyset *k) {
    struct keyset old = *k;
    k->cap = old.cap ? old.cap * 2 : 4;
    k->slots = calloc(k->cap, stride(k));
    mg_assert(k->slots != NULL);
    for (size_t i = 0; i < old.cap; i++) {
        uint8_t *s = slot(&old, i);
        if (*s) {
            memcpy(find(k, s + 1), s, stride(k));
        }
    }
    free(old.slots);
}

static void delete_slot(struct keyset *k, uint8_t *s) {
    size_t mask = k->cap - 1;
    size_t i = (size_t)(s - k->slots) / stride(k);
    for (size_t j = (i + 1) & mask; *slot(k, j); j = (j + 1) & mask) {
        if (((j - home(k, slot(k, j) + 1)) & mask) >= ((j - i) & mask)) {
            memcpy(slot(k, i), slot(k, j), stride(k));
            i = j;
        }
    }
    *slot(k, i) = 0;
    k->n--;
}

static void touch(struct keyset *k, uint8_t *s) {
    if (*s & KEY_TOUCHED) {
        return;
    }
    *s |= KEY_TOUCHED;
    if (k->n_touched == k->cap_touched) {
        k->cap_touched = k->cap_touched ? k->cap_touched * 2 : 4;
        k->touched = realloc(k->touched, k->cap_touched * k->key_len);
        mg_assert(k->touched != NULL);
    }
    memcpy(k->touched + k->n_touched++ * k->key_len, s + 1, k->key_len);
}

void keyset_mark(struct keyset *k, const void *key, unsigned bit, bool on) {
    if ((k->n + 1) * 4 > k->cap * 3) {
        grow(k);
    }
    uint8_t *s = find(k, key);
    if (!*s) {
        if (!on) {
            return;
        }
        *s = IN_USE;
        memcpy(s + 1, key, k->key_len);
        k->n++;
    }
    if (((*s & bit) != 0) == on) {
        return;
    }
    *s ^= (uint8_t)bit;
    if (bit == KEY_WANT) {
        k->n_want += on ? 1 : (size_t)-1;
    }
    touch(k, s);
}

unsigned keyset_state(const struct keyset *k, const void *key) {
    return k->n ? *find(k, key) & STATES : 0;
}

void keyset_settle(struct keyset *k) {
    for (size_t i = 0; i < k->n_touched; i++) {
        uint8_t *s = find(k, k->touched + i * k->key_len);
        if (!*s) {
            continue;
        }
        *s &= (uint8_t)~KEY_TOUCHED;
        *s = (uint8_t)((*s & ~KEY_KERNEL) | (*s & KEY_WANT ? KEY_KERNEL : 0));
        if (!(*s & STATES)) {
            delete_slot(k, s);
        }
    }
    k->n_touched = 0;
    if (k->cap_touched > 64) { /* a first load is not the size to keep */
        free(k->touched);
        k->touched = NULL;
        k->cap_touched = 0;
    }
}

void keyset_each_touched(struct keyset *k,
                         void (*cb)(void *arg, const uint8_t *key, unsigned state), void *arg) {
    for (size_t i = 0; i < k->n_touched; i++) {
        const uint8_t *key = k->touched + i * k->key_len;
        cb(arg, key, *find(k, key) & STATES);
    }
}

void keyset_each(const struct keyset *k, void (*cb)(void *arg, const uint8_t *key, unsigned state),
                 void *arg) {
    for (size_t i = 0; i < k->cap; i++) {
        const uint8_t *s = slot(k, i);
        if (*s) {
            cb(arg, s + 1, *s & STATES);
        }
    }
}

void keyset_forget_kernel(struct keyset *k) {
    k->n_touched = 0;
    struct keyset old = *k;
    k->slots = NULL;
    k->n = k->cap = k->n_want = 0;
    for (size_t i = 0; i < old.cap; i++) {
        const uint8_t *s = slot(&old, i);
        if (*s & KEY_WANT) {
            keyset_mark(k, s + 1, KEY_WANT, true);
        }
    }
    free(old.slots);
}

void keyset_unwant_all(struct keyset *k) {
    for (size_t i = 0; i < k->cap; i++) {
        uint8_t *s = slot(k, i);
        if (*s & KEY_WANT) {
            *s &= (uint8_t)~KEY_WANT;
            touch(k, s);
        }
    }
    k->n_want = 0;
}
