/* Sockets of BGP and BFD. See sock.h. */
#include "bgp/sock.h"

#include "base/fd.h"

#include <linux/tcp.h>
#include <unistd.h>

socklen_t sock_addr_set(union sock_addr *a, const struct ip46 *ip, uint16_t port, int ifindex) {
    memset(a, 0, sizeof(*a));
    if (ip->family == IP_V4) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons(port);
        memcpy(&a->v4.sin_addr, ip->b, 4);
        return sizeof(a->v4);
    }
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_port = htons(port);
    memcpy(&a->v6.sin6_addr, ip->b, 16);
    a->v6.sin6_scope_id = ip_is_link_local(ip) ? (uint32_t)ifindex : 0;
    return sizeof(a->v6);
}

void sock_addr_get(const union sock_addr *a, struct ip46 *ip, uint16_t *port) {
    *ip = (struct ip46){0};
    uint16_t p = 0;
    if (a->sa.sa_family == AF_INET) {
        ip->family = IP_V4;
        memcpy(ip->b, &a->v4.sin_addr, 4);
        p = ntohs(a->v4.sin_port);
    } else if (a->sa.sa_family == AF_INET6) {
        ip->family = IP_V6;
        memcpy(ip->b, &a->v6.sin6_addr, 16);
        p = ntohs(a->v6.sin6_port);
    }
    if (port) {
        *port = p;
    }
}

int sock_addr_ifindex(const union sock_addr *a) {
    return a->sa.sa_family == AF_INET6 ? (int)a->v6.sin6_scope_id : 0;
}

static int af(uint8_t family) {
    return family == IP_V4 ? AF_INET : AF_INET6;
}

static int set_int(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_ttl(int fd, uint8_t family, int ttl) {
    return family == IP_V4 ? set_int(fd, IPPROTO_IP, IP_TTL, ttl)
                           : set_int(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl);
}

static int bind_to(int fd, uint8_t family, const struct ip46 *local, uint16_t port, int ifindex,
                   struct err *e) {
    struct ip46 any = {.family = family};
    const struct ip46 *ip = local && local->family ? local : &any;
    union sock_addr a;
    socklen_t n = sock_addr_set(&a, ip, port, ifindex);
    if (bind(fd, &a.sa, n) < 0) {
        int r = -errno;
        char text[IP_TEXT_MAX];
        return err_set(e, r, "binding to %s port %u: %s", ip_text(ip, text), port, err_name(r));
    }
    return 0;
}

/* ---- UDP ---- */

int sock_udp(uint8_t family, const struct ip46 *local, uint16_t port, int ifindex, int *out,
             struct err *e) {
    MG_CLEANUP(fd_close) int fd = socket(af(family), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_set(e, -errno, "opening a UDP socket: %s", err_name(-errno));
    }
    int r = set_ttl(fd, family, 255);
    if (r == 0 && family == IP_V4) {
        r = set_int(fd, IPPROTO_IP, IP_RECVTTL, 1);
        r = r ? r : set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
        r = r ? r : set_int(fd, IPPROTO_IP, IP_TOS, 0xc0); /* network control */
    } else if (r == 0) {
        r = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
        r = r ? r : set_int(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
        r = r ? r : set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
        r = r ? r : set_int(fd, IPPROTO_IPV6, IPV6_TCLASS, 0xc0);
    }
    if (r < 0) {
        return err_set(e, r, "setting up a UDP socket: %s", err_name(r));
    }
    r = bind_to(fd, family, local, port, ifindex, e);
    if (r < 0) {
        return r;
    }
    *out = TAKE_FD(fd);
    return 0;
}

static void take_control(const struct msghdr *h, struct sock_meta *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c;
         c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)h, c)) {
        size_t n = c->cmsg_len - CMSG_LEN(0);
        const void *p = CMSG_DATA(c);
        if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
            (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT)) {
            if (n >= sizeof(int)) {
                memcpy(&m->ttl, p, sizeof(int));
            }
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo i;
            if (n >= sizeof(i)) {
                memcpy(&i, p, sizeof(i));
                m->to.family = IP_V4;
                memcpy(m->to.b, &i.ipi_addr, 4);
                m->ifindex = i.ipi_ifindex;
            }
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo i;
            if (n >= sizeof(i)) {
                memcpy(&i, p, sizeof(i));
                m->to.family = IP_V6;
                memcpy(m->to.b, &i.ipi6_addr, 16);
                m->ifindex = (int)i.ipi6_ifindex;
            }
        }
    }
}

ssize_t sock_recv(int fd, void *p, size_t n, union sock_addr *from, struct sock_meta *m) {
    char control[256] __attribute__((aligned(8)));
    struct iovec iov = {p, n};
    struct msghdr h = {.msg_name = from,
                       .msg_namelen = sizeof(*from),
                       .msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof(control)};
    memset(from, 0, sizeof(*from));
    *m = (struct sock_meta){.ttl = -1};
    ssize_t got = recvmsg(fd, &h, MSG_DONTWAIT);
    if (got < 0) {
        return -errno;
    }
    take_control(&h, m);
    return got;
}

/* ---- TCP ---- */

int sock_tcp_listen(uint8_t family, const struct ip46 *addr, uint16_t port, int *out,
                    struct err *e) {
    MG_CLEANUP(fd_close) int fd = socket(af(family), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r = fd < 0 ? -errno : set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (r == 0 && family == IP_V6) {
        r = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    }
    /* Connections have it from here: a peer with GTSM must hear of a refusal, too. */
    r = r ? r : set_ttl(fd, family, 255);
    if (r < 0) {
        return err_set(e, r, "opening a TCP socket: %s", err_name(r));
    }
    r = bind_to(fd, family, addr, port, 0, e);
    if (r < 0) {
        return r;
    }
    if (listen(fd, 128) < 0) {
        return err_set(e, -errno, "listening on port %u: %s", port, err_name(-errno));
    }
    *out = TAKE_FD(fd);
    return 0;
}

int sock_tcp_accepted(int fd, const struct sock_tcp *t) {
    int r = 0;
    if (t->hops) {
        int min = 256 - t->hops;
        r = set_ttl(fd, t->peer.family, 255);
        r = r                         ? r
            : t->peer.family == IP_V4 ? set_int(fd, IPPROTO_IP, IP_MINTTL, min)
                                      : set_int(fd, IPPROTO_IPV6, IPV6_MINHOPCOUNT, min);
    } else if (t->ttl) {
        r = set_ttl(fd, t->peer.family, t->ttl);
    }
    r = r ? r : set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (r == 0) {
        /* Network control. Best effort: a packet's class decides nothing of ours. */
        (void)(t->peer.family == IP_V4 ? set_int(fd, IPPROTO_IP, IP_TOS, 0xc0)
                                       : set_int(fd, IPPROTO_IPV6, IPV6_TCLASS, 0xc0));
    }
    return r;
}

int sock_md5(int fd, const struct prefix *peers, int ifindex, struct str key) {
    struct tcp_md5sig s = {.tcpm_keylen = (uint16_t)key.n, .tcpm_prefixlen = peers->len};
    union sock_addr a;
    if (key.n > SOCK_MD5_KEY_MAX) {
        return ERR_INVALID;
    }
    socklen_t n = sock_addr_set(&a, &peers->ip, 0, ifindex);
    memcpy(&s.tcpm_addr, &a, n);
    if (key.n) {
        memcpy(s.tcpm_key, key.p, key.n);
    }
    s.tcpm_flags = TCP_MD5SIG_FLAG_PREFIX;
    if (ifindex && ip_is_link_local(&peers->ip)) {
        /* The kernel binds keys to L3 master devices only: the address alone tells a key here. */
        ((struct sockaddr_in6 *)&s.tcpm_addr)->sin6_scope_id = 0;
    }
    int r = setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG_EXT, &s, sizeof(s)) < 0 ? -errno : 0;
    explicit_bzero(&s, sizeof(s));
    return r == -ENOENT && key.n == 0 ? 0 : r;
}

static int set_up(int fd, const struct sock_tcp *t, struct err *e) {
    int r = sock_tcp_accepted(fd, t);
    if (r < 0) {
        return err_set(e, r, "setting up a TCP socket: %s", err_name(r));
    }
    if (t->password.n) {
        struct prefix p = {t->peer, (uint8_t)ip_bits(&t->peer)};
        r = sock_md5(fd, &p, t->ifindex, t->password);
        if (r < 0) {
            return err_set(e, r, "setting the MD5 password: %s", err_name(r));
        }
    }
    if (t->ao.n) {
        struct prefix p = {t->peer, (uint8_t)ip_bits(&t->peer)};
        r = sock_ao_set(fd, &p, &t->ao, true);
        if (r < 0) {
            return err_set(e, r, "setting the keys of TCP-AO: %s",
                           r == -ENOPROTOOPT ? "this kernel has no TCP-AO (CONFIG_TCP_AO)"
                                             : err_name(r));
        }
    }
    if (t->local.family) {
        /* Lets other connections from this address share the port range. */
        (void)set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        return bind_to(fd, t->local.family, &t->local, 0, t->ifindex, e);
    }
    return 0;
}

int sock_tcp_connect(const struct sock_tcp *t, int *out, struct err *e) {
    MG_CLEANUP(fd_close)
    int fd = socket(af(t->peer.family), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_set(e, -errno, "opening a TCP socket: %s", err_name(-errno));
    }
    int r = set_up(fd, t, e);
    if (r < 0) {
        return r;
    }
    union sock_addr a;
    socklen_t n = sock_addr_set(&a, &t->peer, t->port, t->ifindex);
    if (connect(fd, &a.sa, n) < 0 && errno != EINPROGRESS) {
        char text[IP_TEXT_MAX];
        r = -errno;
        return err_set(e, r, "connecting to %s port %u: %s", ip_text(&t->peer, text), t->port,
                       err_name(r));
    }
    *out = TAKE_FD(fd);
    return 0;
}

int sock_error(int fd) {
    int v = 0;
    socklen_t n = sizeof(v);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &n) < 0 ? -errno : -v;
}
