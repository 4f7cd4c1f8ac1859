/* Hashes: seeded SipHash-1-3 for keys from outside, a cheap mix for integers; SHA-1/224/256 for
 * names that Calico computes (interface names, selector ids). */
#pragma once

#include "base/str.h"

/* Random per process unless hash_seed_set was called first (tests, fuzzers: reproducible). */
uint64_t hash_str(struct str s);
void hash_seed_set(uint64_t k0, uint64_t k1);
/* The same in every process and version: for fingerprints that are kept. Not for outside keys. */
uint64_t hash_fixed(uint64_t seed, const void *p, size_t n);
static inline uint64_t hash_u64(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ (x >> 33);
}

void sha1(const void *p, size_t n, uint8_t out[20]);
void sha224(const void *p, size_t n, uint8_t out[28]);
void sha256(const void *p, size_t n, uint8_t out[32]);
/* Lower-case hex of n bytes into out, 2n characters and a NUL. */
void hex_encode(const uint8_t *p, size_t n, char *out);
/* URL-safe base64 without padding into out (room for (n*4+2)/3 + 1); returns the length. */
size_t base64url_encode(const uint8_t *p, size_t n, char *out);

/* A random UUID (RFC 9562, version 4) as text with NUL. */
enum { UUID_TEXT = 37 };
void uuid_v4(char out[UUID_TEXT]);
