/* Addresses and prefixes of both families in one shape; text only at the edges. */
#pragma once

#include "base/str.h"

enum ip_family { IP_NONE = 0, IP_V4 = 4, IP_V6 = 6 };

/* Network byte order; an IPv4 address is in b[0..3], the rest is zero, so that memcmp compares. */
struct ip46 {
    uint8_t family; /* enum ip_family */
    uint8_t b[16];
};

struct prefix {
    struct ip46 ip;
    uint8_t len;
};

#define IP_TEXT_MAX 64 /* longest text of an address or prefix, with NUL */

static inline unsigned ip_bits(const struct ip46 *ip) {
    return ip->family == IP_V4 ? 32 : 128;
}
static inline size_t ip_bytes(const struct ip46 *ip) {
    return ip->family == IP_V4 ? 4 : 16;
}

/* Strict text forms (no leading zeros in IPv4, no zone). 0 or -EINVAL. */
MG_NODISCARD int ip_parse(struct str s, struct ip46 *out);
/* "ADDR/LEN"; a bare address gives its full length. Host bits are kept: see prefix_is_masked. */
MG_NODISCARD int prefix_parse(struct str s, struct prefix *out);
/* Canonical text (RFC 5952 for IPv6) into out[IP_TEXT_MAX]; returns out. */
const char *ip_text(const struct ip46 *ip, char *out);
const char *prefix_text(const struct prefix *p, char *out);
bool ip_eq(const struct ip46 *a, const struct ip46 *b);
/* Is it of fe80::/10? */
bool ip_is_link_local(const struct ip46 *ip);
int ip_cmp(const struct ip46 *a, const struct ip46 *b);
bool prefix_eq(const struct prefix *a, const struct prefix *b);
/* Family, then address, then length. */
int prefix_cmp(const struct prefix *a, const struct prefix *b);
bool prefix_is_masked(const struct prefix *p);
struct prefix prefix_mask(struct prefix p);
bool prefix_has_ip(const struct prefix *p, const struct ip46 *ip);
bool prefix_has(const struct prefix *outer, const struct prefix *inner);
bool prefix_overlaps(const struct prefix *a, const struct prefix *b);
/* The address at `offset` from the start of p; false when it is outside. */
bool prefix_nth(const struct prefix *p, uint64_t offset, struct ip46 *out);
/* Offset of ip in p, saturating at UINT64_MAX. ip must be inside. */
uint64_t prefix_offset(const struct prefix *p, const struct ip46 *ip);
/* Adds n to an address; false on wrap-round. */
bool ip_add(struct ip46 *ip, uint64_t n);
uint64_t ip_hash(const struct ip46 *ip);

/* MAC addresses: "02:11:22:33:44:55" (or with '-'). 0 or -EINVAL. */
MG_NODISCARD int mac_parse(struct str s, uint8_t mac[6]);
enum { MAC_TEXT_MAX = 18 };
const char *mac_text(const uint8_t mac[6], char out[MAC_TEXT_MAX]);
