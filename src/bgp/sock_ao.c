/* Keys of TCP-AO. See sock_ao.h. The structs are those of linux/tcp.h, which headers before 6.7
 * don't have. */
#include "bgp/sock_ao.h"

#include "base/err.h"
#include "base/hash.h"
#include "bgp/sock.h"

#include <netinet/tcp.h>

enum { AO_ADD_KEY = 38, AO_DEL_KEY = 39, AO_INFO = 40 };
/* Bits of the flags, from the lowest. */
enum { SET_CURRENT = 1, SET_RNEXT = 2 };

struct ao_add {
    struct sockaddr_storage addr;
    char algorithm[64];
    int32_t ifindex;
    uint32_t flags;
    uint16_t reserved;
    uint8_t prefix, send_id, receive_id;
    uint8_t mac_len; /* 0: 12, as RFC 5926 has it */
    uint8_t key_flags, key_len;
    uint8_t key[SOCK_AO_KEY_MAX];
} __attribute__((aligned(8)));

struct ao_del {
    struct sockaddr_storage addr;
    int32_t ifindex;
    uint32_t flags;
    uint16_t reserved;
    uint8_t prefix, send_id, receive_id, current, rnext, key_flags;
} __attribute__((aligned(8)));

struct ao_info {
    uint32_t flags;
    uint16_t reserved;
    uint8_t current, rnext;
    uint64_t n_good, n_bad, n_key_not_found, n_unsigned, n_icmp_dropped;
} __attribute__((aligned(8)));

/* The kernel binds keys to L3 master devices only: a link-local address alone tells a key. */
static void put_addr(struct sockaddr_storage *out, const struct prefix *peers) {
    union sock_addr a = {0};
    socklen_t n = sock_addr_set(&a, &peers->ip, 0, 0);
    memcpy(out, &a, n);
}

static int set(int fd, int option, const void *p, socklen_t n) {
    return setsockopt(fd, IPPROTO_TCP, option, p, n) < 0 ? -errno : 0;
}

static int add_key(int fd, const struct prefix *peers, const struct ao_key *k, uint32_t flags) {
    struct ao_add m = {.flags = flags,
                       .prefix = peers->len,
                       .send_id = k->send_id,
                       .receive_id = k->receive_id,
                       .key_len = (uint8_t)k->secret.n};
    mg_assert(k->secret.n <= sizeof(m.key) && strlen(k->algorithm) < sizeof(m.algorithm));
    put_addr(&m.addr, peers);
    memcpy(m.algorithm, k->algorithm, strlen(k->algorithm));
    memcpy(m.key, k->secret.p, k->secret.n);
    int r = set(fd, AO_ADD_KEY, &m, sizeof(m));
    explicit_bzero(&m, sizeof(m));
    return r;
}

int sock_ao_set(int fd, const struct prefix *peers, const struct ao_keys *keys, bool is_active) {
    for (size_t i = 0; i < keys->n; i++) {
        int r = add_key(fd, peers, &keys->p[i], is_active && i == 0 ? SET_CURRENT | SET_RNEXT : 0);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int del_key(int fd, const struct prefix *peers, uint8_t send_id, uint8_t receive_id,
                   const struct ao_key *instead) {
    struct ao_del m = {.prefix = peers->len, .send_id = send_id, .receive_id = receive_id};
    put_addr(&m.addr, peers);
    if (instead) {
        m.flags = SET_CURRENT | SET_RNEXT;
        m.current = instead->send_id;
        m.rnext = instead->receive_id;
    }
    int r = set(fd, AO_DEL_KEY, &m, sizeof(m));
    return r == -ENOENT ? 0 : r;
}

int sock_ao_unset(int fd, const struct prefix *peers, uint8_t send_id, uint8_t receive_id) {
    return del_key(fd, peers, send_id, receive_id, NULL);
}

static const struct ao_key *find(const struct ao_keys *keys, const struct ao_key *k) {
    for (size_t i = 0; i < keys->n; i++) {
        if (keys->p[i].send_id == k->send_id || keys->p[i].receive_id == k->receive_id) {
            return &keys->p[i];
        }
    }
    return NULL;
}

static bool is_same(const struct ao_key *a, const struct ao_key *b) {
    return a->send_id == b->send_id && a->receive_id == b->receive_id &&
           strcmp(a->algorithm, b->algorithm) == 0 && str_eq(a->secret, b->secret);
}

int sock_ao_change(int fd, const struct ip46 *peer, const struct ao_keys *old,
                   const struct ao_keys *now) {
    struct prefix one = {*peer, (uint8_t)ip_bits(peer)};
    if (!old->n || !now->n) {
        return -EEXIST;
    }
    for (size_t i = 0; i < now->n; i++) {
        const struct ao_key *had = find(old, &now->p[i]);
        int r = had ? (is_same(had, &now->p[i]) ? 0 : -EEXIST) : add_key(fd, &one, &now->p[i], 0);
        if (r < 0) {
            return r;
        }
    }
    struct ao_info info = {.flags = SET_RNEXT, .rnext = now->p[0].receive_id};
    int r = set(fd, AO_INFO, &info, sizeof(info));
    for (size_t i = 0; i < old->n && r == 0; i++) {
        const struct ao_key *k = &old->p[i];
        if (find(now, k)) {
            continue;
        }
        r = del_key(fd, &one, k->send_id, k->receive_id, NULL);
        if (r == -EBUSY) { /* the peer has not gone over */
            r = del_key(fd, &one, k->send_id, k->receive_id, &now->p[0]);
        }
    }
    return r;
}

bool sock_ao_is_on(int fd) {
    struct ao_info info = {0};
    socklen_t n = sizeof(info);
    return getsockopt(fd, IPPROTO_TCP, AO_INFO, &info, &n) == 0;
}

uint64_t ao_keys_sum(const struct ao_keys *k) {
    uint64_t sum = k->n;
    for (size_t i = 0; i < k->n; i++) {
        sum = hash_u64(sum ^ hash_str(k->p[i].secret)) ^ hash_str(str_c(k->p[i].algorithm));
        sum = hash_u64(sum + k->p[i].send_id * 256U + k->p[i].receive_id);
    }
    return sum;
}
