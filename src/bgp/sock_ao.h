/* TCP-AO (RFC 5925) on sockets, as Linux has it since 6.7 with CONFIG_TCP_AO. */
#pragma once

#include "base/ip.h"
#include "base/str.h"

#include <stddef.h>

/* A Master Key Tuple for one peer. */
struct ao_key {
    uint8_t send_id, receive_id;
    const char *algorithm; /* the kernel's name of the MAC, "hmac(sha1)"; static */
    struct str secret;     /* 1 to SOCK_AO_KEY_MAX bytes */
};
struct ao_keys {
    struct ao_key *p; /* the first one signs */
    size_t n;
};
enum { SOCK_AO_KEY_MAX = 80, SOCK_AO_KEYS_MAX = 16 };

/* All keys for the addresses of peers on a socket that listens or is not connected yet (is_active:
 * the first is the one to send with). A kernel without TCP-AO: -ENOPROTOOPT. */
MG_NODISCARD int sock_ao_set(int fd, const struct prefix *peers, const struct ao_keys *keys,
                             bool is_active);
/* Takes a listening socket's key away; one that isn't there is fine. */
MG_NODISCARD int sock_ao_unset(int fd, const struct prefix *peers, uint8_t send_id,
                               uint8_t receive_id);
/* A living connection goes over from one list of keys to another, without loss: the peer is asked
 * to sign with now's first key (RFC 5925 section 7.1); keys that are not in now are taken away, and
 * then now's first key signs at once if theirs did. -EEXIST: a key has other content under the
 * same ids, so the connection can't be kept. */
MG_NODISCARD int sock_ao_change(int fd, const struct ip46 *peer, const struct ao_keys *old,
                                const struct ao_keys *now);
/* Is the connection signed? False also where the kernel has no TCP-AO. */
bool sock_ao_is_on(int fd);
uint64_t ao_keys_sum(const struct ao_keys *k);
