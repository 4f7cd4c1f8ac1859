/* A set of keys of one fixed length that knows, for each key, whether it is wanted and whether the
 * kernel has it; keys where the two differ are found through a list of what was touched. */
#pragma once

#include "base/str.h"

enum { KEY_WANT = 1, KEY_KERNEL = 2, KEY_TOUCHED = 4 };

struct keyset {
    uint8_t *slots; /* cap × (1 + key_len): state, key; state 0 = empty, 0x80 set = in use */
    size_t n, cap;
    size_t n_want;
    uint8_t key_len;
    uint8_t *touched; /* keys of key_len */
    size_t n_touched, cap_touched;
};

void keyset_init(struct keyset *k, size_t key_len);
void keyset_fini(struct keyset *k);
/* Sets or clears one of KEY_WANT, KEY_KERNEL; the key is touched if it changed. */
void keyset_mark(struct keyset *k, const void *key, unsigned bit, bool on);
/* State bits of a key; 0 = unknown. */
unsigned keyset_state(const struct keyset *k, const void *key);
/* Calls cb for each touched key with its state. The callback may not change the set. */
void keyset_each_touched(struct keyset *k,
                         void (*cb)(void *arg, const uint8_t *key, unsigned state), void *arg);
/* After a successful write: what was touched is as wanted in the kernel; keys that are in neither
 * state leave the set. */
void keyset_settle(struct keyset *k);
/* All keys; order unspecified. */
void keyset_each(const struct keyset *k, void (*cb)(void *arg, const uint8_t *key, unsigned state),
                 void *arg);
/* Forgets what the kernel has: every wanted key is touched, the others go. */
void keyset_forget_kernel(struct keyset *k);
/* Nothing is wanted any more. */
void keyset_unwant_all(struct keyset *k);
