/* SipHash-1-3 (Aumasson, Bernstein), SHA-1 and SHA-2 (FIPS 180-4), hex and base64url. OpenSSL would
 * do the digests, but margay-cni and the agent's start-up pay 1 ms for loading it, and these are
 * names, not secrets. */
#include "base/hash.h"

#include <sys/random.h>

static uint64_t seed_k0, seed_k1;
static bool seed_ready;

void hash_seed_set(uint64_t k0, uint64_t k1) {
    seed_k0 = k0;
    seed_k1 = k1;
    seed_ready = true;
}

static void seed_init(void) {
    uint64_t k[2] = {0x6d617267617931ULL, 0x6d617267617932ULL};
    /* Without entropy the table still works; only the protection from chosen keys is weaker. */
    (void)!getrandom(k, sizeof(k), GRND_NONBLOCK);
    hash_seed_set(k[0], k[1]);
}

static inline uint64_t rotl64(uint64_t x, int b) {
    return (x << b) | (x >> (64 - b));
}

#define SIPROUND                  \
    do {                          \
        v0 += v1;                 \
        v1 = rotl64(v1, 13) ^ v0; \
        v0 = rotl64(v0, 32);      \
        v2 += v3;                 \
        v3 = rotl64(v3, 16) ^ v2; \
        v0 += v3;                 \
        v3 = rotl64(v3, 21) ^ v0; \
        v2 += v1;                 \
        v1 = rotl64(v1, 17) ^ v2; \
        v2 = rotl64(v2, 32);      \
    } while (0)

static uint64_t siphash(uint64_t k0, uint64_t k1, struct str s) {
    uint64_t v0 = k0 ^ 0x736f6d6570736575ULL;
    uint64_t v1 = k1 ^ 0x646f72616e646f6dULL;
    uint64_t v2 = k0 ^ 0x6c7967656e657261ULL;
    uint64_t v3 = k1 ^ 0x7465646279746573ULL;
    size_t n = s.n;
    const char *p = s.p;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t m;
        memcpy(&m, p, 8);
        v3 ^= m;
        SIPROUND;
        v0 ^= m;
    }
    uint64_t last = (uint64_t)s.n << 56;
    for (size_t i = 0; i < n; i++) {
        last |= (uint64_t)(uint8_t)p[i] << (8 * i);
    }
    v3 ^= last;
    SIPROUND;
    v0 ^= last;
    v2 ^= 0xff;
    SIPROUND;
    SIPROUND;
    SIPROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

uint64_t hash_str(struct str s) {
    if (!seed_ready) {
        seed_init();
    }
    return siphash(seed_k0, seed_k1, s);
}

uint64_t hash_fixed(uint64_t seed, const void *p, size_t n) {
    return siphash(seed, 0x6d61726761793031ULL, str_n(p, n));
}

static inline uint32_t rotl32(uint32_t x, int b) {
    return (x << b) | (x >> (32 - b));
}
static inline uint32_t rotr32(uint32_t x, int b) {
    return (x >> b) | (x << (32 - b));
}
static inline uint32_t rd_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void wr_be32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static void sha1_block(uint32_t *h, const uint8_t *p) {
    uint32_t w[80];
    for (int i = 0; i < 16; i++) {
        w[i] = rd_be32(p + 4 * i);
    }
    for (int i = 16; i < 80; i++) {
        w[i] = rotl32(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    }
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ed9eba1;
        } else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        } else {
            f = b ^ c ^ d;
            k = 0xca62c1d6;
        }
        uint32_t t = rotl32(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = rotl32(b, 30);
        b = a;
        a = t;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

static const uint32_t sha2_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static void sha2_block(uint32_t *h, const uint8_t *p) {
    uint32_t w[64];
    for (int i = 0; i < 16; i++) {
        w[i] = rd_be32(p + 4 * i);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotr32(w[i - 15], 7) ^ rotr32(w[i - 15], 18) ^ (w[i - 15] >> 3);
        uint32_t s1 = rotr32(w[i - 2], 17) ^ rotr32(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t v[8];
    memcpy(v, h, sizeof(v));
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotr32(v[4], 6) ^ rotr32(v[4], 11) ^ rotr32(v[4], 25);
        uint32_t ch = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t t1 = v[7] + s1 + ch + sha2_k[i] + w[i];
        uint32_t s0 = rotr32(v[0], 2) ^ rotr32(v[0], 13) ^ rotr32(v[0], 22);
        uint32_t maj = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        memmove(v + 1, v, 7 * sizeof(*v));
        v[4] += t1;
        v[0] = t1 + s0 + maj;
    }
    for (int i = 0; i < 8; i++) {
        h[i] += v[i];
    }
}

/* Merkle-Damgard padding with a 64-bit big-endian length, shared by SHA-1 and SHA-2. */
static void md_run(uint32_t *h, const void *data, size_t n,
                   void (*block)(uint32_t *, const uint8_t *)) {
    const uint8_t *p = data;
    size_t left = n;
    for (; left >= 64; left -= 64, p += 64) {
        block(h, p);
    }
    uint8_t tail[128] = {0};
    if (left) {
        memcpy(tail, p, left);
    }
    tail[left] = 0x80;
    size_t total = left < 56 ? 64 : 128;
    wr_be32(tail + total - 8, (uint32_t)((uint64_t)n >> 29));
    wr_be32(tail + total - 4, (uint32_t)(n << 3));
    for (size_t i = 0; i < total; i += 64) {
        block(h, tail + i);
    }
}

static void md_out(const uint32_t *h, size_t words, uint8_t *out) {
    for (size_t i = 0; i < words; i++) {
        wr_be32(out + 4 * i, h[i]);
    }
}

void sha1(const void *p, size_t n, uint8_t out[20]) {
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    md_run(h, p, n, sha1_block);
    md_out(h, 5, out);
}

void sha224(const void *p, size_t n, uint8_t out[28]) {
    uint32_t h[8] = {0xc1059ed8, 0x367cd507, 0x3070dd17, 0xf70e5939,
                     0xffc00b31, 0x68581511, 0x64f98fa7, 0xbefa4fa4};
    md_run(h, p, n, sha2_block);
    md_out(h, 7, out);
}

void sha256(const void *p, size_t n, uint8_t out[32]) {
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    md_run(h, p, n, sha2_block);
    md_out(h, 8, out);
}

void hex_encode(const uint8_t *p, size_t n, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * n] = '\0';
}

size_t base64url_encode(const uint8_t *p, size_t n, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    size_t o = 0;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16;
        v |= i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0;
        v |= i + 2 < n ? p[i + 2] : 0;
        size_t chars = n - i >= 3 ? 4 : n - i + 1;
        for (size_t k = 0; k < chars; k++) {
            out[o++] = digits[(v >> (18 - 6 * k)) & 63];
        }
    }
    out[o] = '\0';
    return o;
}

void uuid_v4(char out[UUID_TEXT]) {
    uint8_t b[16];
    char hex[33];
    if (getrandom(b, sizeof(b), 0) != sizeof(b)) {
        mg_abort(__FILE__, __LINE__, "getrandom");
    }
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    hex_encode(b, sizeof(b), hex);
    static const uint8_t cut[] = {8, 4, 4, 4, 12};
    size_t at = 0, n = 0;
    for (size_t i = 0; i < sizeof(cut); i++) {
        if (i) {
            out[n++] = '-';
        }
        memcpy(out + n, hex + at, cut[i]);
        n += cut[i];
        at += cut[i];
    }
    out[n] = 0;
}
