/* Addresses and prefixes. See ip.h. */
#include "base/ip.h"

#include "base/hash.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

int ip_parse(struct str s, struct ip46 *out) {
    char tmp[INET6_ADDRSTRLEN + 1];
    if (s.n == 0 || s.n >= sizeof(tmp) || memchr(s.p, '\0', s.n)) {
        return -EINVAL;
    }
    memcpy(tmp, s.p, s.n);
    tmp[s.n] = '\0';
    struct ip46 ip = {0};
    ip.family = memchr(s.p, ':', s.n) ? IP_V6 : IP_V4;
    /* glibc's and musl's inet_pton refuse leading zeros only in part: do it here. */
    if (ip.family == IP_V4) {
        for (size_t i = 0; i + 1 < s.n; i++) {
            bool at_start = i == 0 || s.p[i - 1] == '.';
            if (at_start && s.p[i] == '0' && s.p[i + 1] != '.') {
                return -EINVAL;
            }
        }
    }
    if (inet_pton(ip.family == IP_V4 ? AF_INET : AF_INET6, tmp, ip.b) != 1) {
        return -EINVAL;
    }
    *out = ip;
    return 0;
}

int prefix_parse(struct str s, struct prefix *out) {
    struct prefix p = {0};
    ptrdiff_t slash = str_find(s, '/', 0);
    struct str addr = slash < 0 ? s : str_sub(s, 0, (size_t)slash);
    if (ip_parse(addr, &p.ip) < 0) {
        return -EINVAL;
    }
    p.len = (uint8_t)ip_bits(&p.ip);
    if (slash >= 0) {
        struct str len = str_sub(s, (size_t)slash + 1, s.n);
        uint64_t v = 0;
        if (len.n > 3 || (len.n > 1 && len.p[0] == '0') || str_to_u64(len, &v) < 0 || v > p.len) {
            return -EINVAL;
        }
        p.len = (uint8_t)v;
    }
    *out = p;
    return 0;
}

const char *ip_text(const struct ip46 *ip, char *out) {
    out[0] = '\0';
    if (ip->family == IP_V4 || ip->family == IP_V6) {
        (void)inet_ntop(ip->family == IP_V4 ? AF_INET : AF_INET6, ip->b, out, IP_TEXT_MAX);
    }
    return out;
}

const char *prefix_text(const struct prefix *p, char *out) {
    ip_text(&p->ip, out);
    size_t n = strlen(out);
    (void)snprintf(out + n, IP_TEXT_MAX - n, "/%u", p->len);
    return out;
}

int ip_cmp(const struct ip46 *a, const struct ip46 *b) {
    if (a->family != b->family) {
        return a->family < b->family ? -1 : 1;
    }
    return memcmp(a->b, b->b, sizeof(a->b));
}

bool ip_is_link_local(const struct ip46 *ip) {
    return ip->family == IP_V6 && ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80;
}

bool ip_eq(const struct ip46 *a, const struct ip46 *b) {
    return ip_cmp(a, b) == 0;
}

int prefix_cmp(const struct prefix *a, const struct prefix *b) {
    int c = ip_cmp(&a->ip, &b->ip);
    return c ? c : (int)a->len - (int)b->len;
}

bool prefix_eq(const struct prefix *a, const struct prefix *b) {
    return prefix_cmp(a, b) == 0;
}

struct prefix prefix_mask(struct prefix p) {
    for (unsigned bit = p.len; bit < 128; bit++) {
        if (bit % 8 == 0) {
            memset(p.ip.b + bit / 8, 0, 16 - bit / 8);
            break;
        }
        p.ip.b[bit / 8] &= (uint8_t) ~(0x80U >> (bit % 8));
    }
    return p;
}

bool prefix_is_masked(const struct prefix *p) {
    struct prefix m = prefix_mask(*p);
    return prefix_eq(&m, p);
}

bool prefix_has_ip(const struct prefix *p, const struct ip46 *ip) {
    if (p->ip.family != ip->family) {
        return false;
    }
    unsigned full = p->len / 8;
    unsigned rest = p->len % 8;
    if (memcmp(p->ip.b, ip->b, full) != 0) {
        return false;
    }
    return rest == 0 || ((p->ip.b[full] ^ ip->b[full]) >> (8 - rest)) == 0;
}

bool prefix_has(const struct prefix *outer, const struct prefix *inner) {
    return outer->len <= inner->len && prefix_has_ip(outer, &inner->ip);
}

bool prefix_overlaps(const struct prefix *a, const struct prefix *b) {
    return a->len <= b->len ? prefix_has_ip(a, &b->ip) : prefix_has_ip(b, &a->ip);
}

bool ip_add(struct ip46 *ip, uint64_t n) {
    for (int i = (int)ip_bytes(ip) - 1; i >= 0 && n; i--) {
        n += ip->b[i];
        ip->b[i] = (uint8_t)n;
        n >>= 8;
    }
    return n == 0;
}

bool prefix_nth(const struct prefix *p, uint64_t offset, struct ip46 *out) {
    struct ip46 ip = prefix_mask(*p).ip;
    if (!ip_add(&ip, offset) || !prefix_has_ip(p, &ip)) {
        return false;
    }
    *out = ip;
    return true;
}

uint64_t prefix_offset(const struct prefix *p, const struct ip46 *ip) {
    struct prefix m = prefix_mask(*p);
    uint64_t v = 0;
    for (size_t i = 0; i < ip_bytes(ip); i++) {
        uint8_t d = (uint8_t)(ip->b[i] ^ m.ip.b[i]);
        if (v >> 56) {
            return UINT64_MAX;
        }
        v = v << 8 | d;
    }
    return v;
}

uint64_t ip_hash(const struct ip46 *ip) {
    uint64_t a;
    uint64_t b;
    memcpy(&a, ip->b, 8);
    memcpy(&b, ip->b + 8, 8);
    return hash_u64(a ^ hash_u64(b ^ ip->family));
}

const char *mac_text(const uint8_t mac[6], char out[MAC_TEXT_MAX]) {
    (void)snprintf(out, MAC_TEXT_MAX, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
                   mac[3], mac[4], mac[5]);
    return out;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

int mac_parse(struct str s, uint8_t mac[6]) {
    uint8_t m[6];
    if (s.n != 17) {
        return -EINVAL;
    }
    for (size_t i = 0; i < 6; i++) {
        int hi = hex_digit(s.p[i * 3]), lo = hex_digit(s.p[i * 3 + 1]);
        if (hi < 0 || lo < 0 || (i < 5 && s.p[i * 3 + 2] != ':' && s.p[i * 3 + 2] != '-')) {
            return -EINVAL;
        }
        m[i] = (uint8_t)(hi << 4 | lo);
    }
    memcpy(mac, m, 6);
    return 0;
}
