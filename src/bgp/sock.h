/* Sockets as BGP and BFD need them: TCP with source address, MD5 (RFC 2385) and GTSM (RFC 5082),
 * UDP with the TTL of what came in. Nothing here blocks. */
#pragma once

#include "base/err.h"
#include "base/ip.h"
#include "bgp/sock_ao.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>

union sock_addr {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* ifindex: scope of a link-local address. Returns the length. */
socklen_t sock_addr_set(union sock_addr *a, const struct ip46 *ip, uint16_t port, int ifindex);
/* port and ifindex may be NULL; ifindex: of a link-local address, else 0. */
void sock_addr_get(const union sock_addr *a, struct ip46 *ip, uint16_t *port);
int sock_addr_ifindex(const union sock_addr *a);

/* A bound UDP socket that sends with TTL 255 and tells TTL, address and interface of what comes in.
 * local: NULL or IP_NONE for any; ifindex: 0, or the only interface. Caller owns *out. */
MG_NODISCARD int sock_udp(uint8_t family, const struct ip46 *local, uint16_t port, int ifindex,
                          int *out, struct err *e);
struct sock_meta {
    struct ip46 to;   /* IP_NONE: not told */
    int ifindex, ttl; /* 0, -1: not told */
};
/* One datagram: its bytes, or -errno. */
ssize_t sock_recv(int fd, void *p, size_t n, union sock_addr *from, struct sock_meta *m);

/* Listens on addr (NULL: all addresses of the family). Caller owns *out. */
MG_NODISCARD int sock_tcp_listen(uint8_t family, const struct ip46 *addr, uint16_t port, int *out,
                                 struct err *e);

struct sock_tcp {
    struct ip46 peer, local; /* local IP_NONE: the kernel's choice */
    uint16_t port;
    int ifindex;         /* of a link-local peer */
    uint8_t hops;        /* GTSM: peer at most so many hops away; 0: no check */
    uint8_t ttl;         /* without GTSM; 0: the system's */
    struct str password; /* MD5; n == 0: none */
    struct ao_keys ao;   /* TCP-AO; n == 0: none */
};
/* Begins a connection; writable: it is there, or sock_error says why not. Caller owns *out. */
MG_NODISCARD int sock_tcp_connect(const struct sock_tcp *t, int *out, struct err *e);
/* GTSM and TTL of a connection that came in. */
MG_NODISCARD int sock_tcp_accepted(int fd, const struct sock_tcp *t);
/* What a connection broke of: 0 or -errno. */
int sock_error(int fd);
/* MD5 key for all addresses of peers on a listening or not yet connected socket; key.n == 0 takes
 * it away. ifindex: of a link-local peer. ERR_INVALID: longer than 80 bytes. */
MG_NODISCARD int sock_md5(int fd, const struct prefix *peers, int ifindex, struct str key);
enum { SOCK_MD5_KEY_MAX = 80 };
