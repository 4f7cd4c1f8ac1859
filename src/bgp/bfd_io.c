/* Sockets of BFD: one for what comes in per family and port, one per session for what goes out. See
 * bfd_io.h. */
#include "bgp/bfd_io.h"

#include "base/fd.h"
#include "base/log.h"
#include "bgp/sock.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_MAX = 64 /* datagrams a turn, so that a flood can't hold the loop */ };

struct port {
    struct bfd_io *io;
    int fd; /* -1: not open */
    struct loop_poll *poll;
    bool is_multihop;
};

struct bfd_io {
    struct loop *loop;
    struct loop_timer *timer;
    bfd_io_on_state on_state;
    void *arg;
    struct bfd *b;
    struct port ports[2][2]; /* family, multihop */
    struct log_limit send_limit;
};

/* What the engine's user pointer is: the session's socket and whose it is. */
struct out {
    int fd;
    void *user;
};

static void arm(struct bfd_io *io) {
    int64_t next = bfd_next_ns(io->b);
    if (next == INT64_MAX) {
        loop_timer_stop(io->timer);
        return;
    }
    int64_t wait = next - loop_now_ns(io->loop);
    loop_timer_start(io->timer, wait > 0 ? (wait + 999999) / 1000000 : 0, 0);
}

static void on_timer(void *arg) {
    struct bfd_io *io = arg;
    bfd_tick(io->b, loop_now_ns(io->loop));
    arm(io);
}

static void on_send(void *arg, struct bfd_session *s, const uint8_t p[BFD_PACKET]) {
    struct bfd_io *io = arg;
    struct out *o = bfd_user(s);
    const struct bfd_config *c = bfd_config_of(s);
    union sock_addr to;
    socklen_t n =
        sock_addr_set(&to, &c->peer, c->is_multihop ? BFD_PORT_MULTIHOP : BFD_PORT, c->ifindex);
    /* What can't be sent is noticed by the peer: that is what BFD is for. */
    if (sendto(o->fd, p, BFD_PACKET, MSG_DONTWAIT | MSG_NOSIGNAL, &to.sa, n) < 0 &&
        log_allow(&io->send_limit, 5, 60)) {
        char ip[IP_TEXT_MAX];
        LOG_D("bfd", "send_failed", "peer=%s errno=%d", ip_text(&c->peer, ip), errno);
    }
}

static void on_state(void *arg, struct bfd_session *s, bool is_failure) {
    struct bfd_io *io = arg;
    struct out *o = bfd_user(s);
    struct bfd_status st;
    bfd_status_get(s, &st);
    io->on_state(io->arg, o->user, &st, is_failure);
}

struct bfd_io *bfd_io_new(struct loop *l, bfd_io_on_state cb, void *arg) {
    static const struct bfd_ops ops = {on_send, on_state};
    struct bfd_io *io = calloc(1, sizeof(*io));
    mg_assert(io);
    uint64_t seed = 0;
    ssize_t got = getrandom(&seed, sizeof(seed), 0);
    mg_assert(got == (ssize_t)sizeof(seed));
    io->loop = l;
    io->on_state = cb;
    io->arg = arg;
    io->b = bfd_new(&ops, io, seed);
    io->timer = loop_timer_new(l, on_timer, io);
    for (int f = 0; f < 2; f++) {
        for (int hop = 0; hop < 2; hop++) {
            io->ports[f][hop] = (struct port){.io = io, .fd = -1, .is_multihop = hop};
        }
    }
    return io;
}

void bfd_io_free(struct bfd_io *io) {
    if (!io) {
        return;
    }
    for (int f = 0; f < 2; f++) {
        for (int hop = 0; hop < 2; hop++) {
            loop_poll_free(io->ports[f][hop].poll);
            fd_close(&io->ports[f][hop].fd);
        }
    }
    loop_timer_free(io->timer);
    bfd_free(io->b);
    free(io);
}

/* ---- in ---- */

static bool read_one(struct port *p) {
    uint8_t data[BFD_PACKET_MAX + 1];
    union sock_addr from;
    struct sock_meta m;
    ssize_t n = sock_recv(p->fd, data, sizeof(data), &from, &m);
    if (n < 0) {
        return false;
    }
    struct bfd_meta meta = {
        .to = m.to, .ifindex = m.ifindex, .ttl = m.ttl, .is_multihop = p->is_multihop};
    sock_addr_get(&from, &meta.from, NULL);
    bfd_input(p->io->b, data, (size_t)n, &meta, loop_now_ns(p->io->loop));
    return true;
}

static void on_readable(void *arg, unsigned events) {
    struct port *p = arg;
    (void)events;
    for (int i = 0; i < READ_MAX && read_one(p); i++) {
    }
    arm(p->io);
}

static int port_open(struct bfd_io *io, uint8_t family, bool is_multihop, struct err *e) {
    struct port *p = &io->ports[family == IP_V6][is_multihop];
    if (p->fd >= 0) {
        return 0;
    }
    uint16_t number = is_multihop ? BFD_PORT_MULTIHOP : BFD_PORT;
    MG_CLEANUP(fd_close) int fd = -1;
    int r = sock_udp(family, NULL, number, 0, &fd, e);
    if (r < 0) {
        return err_wrap(e, r, "BFD (UDP port %u)", number);
    }
    p->fd = TAKE_FD(fd);
    p->poll = loop_poll_new(io->loop, p->fd, LOOP_READ, on_readable, p);
    return 0;
}

/* ---- sessions ---- */

/* A source port of its own (RFC 5881 section 4), at random. */
static int out_open(const struct bfd_config *c, int *fd, struct err *e) {
    int r = 0;
    for (int i = 0; i < 32; i++) {
        uint16_t at = 0;
        ssize_t got = getrandom(&at, sizeof(at), 0);
        mg_assert(got == (ssize_t)sizeof(at));
        r = sock_udp(c->peer.family, &c->local, (uint16_t)(49152 + at % 16384), c->ifindex, fd, e);
        if (r != -EADDRINUSE) {
            break;
        }
    }
    return r;
}

struct bfd_session *bfd_io_add(struct bfd_io *io, const struct bfd_config *c, void *user,
                               struct err *e) {
    if (port_open(io, c->peer.family, c->is_multihop, e) < 0) {
        return NULL;
    }
    struct out *o = calloc(1, sizeof(*o));
    mg_assert(o);
    o->user = user;
    if (out_open(c, &o->fd, e) < 0) {
        free(o);
        return NULL;
    }
    struct bfd_session *s = bfd_add(io->b, c, o, loop_now_ns(io->loop));
    if (!s) {
        err_set(e, ERR_TOO_BIG, "there are %d BFD sessions, allowed are no more", BFD_SESSIONS_MAX);
        fd_close(&o->fd);
        free(o);
        return NULL;
    }
    arm(io);
    return s;
}

void bfd_io_change(struct bfd_io *io, struct bfd_session *s, const struct bfd_config *c) {
    bfd_change(io->b, s, c, loop_now_ns(io->loop));
    arm(io);
}

void bfd_io_del(struct bfd_io *io, struct bfd_session *s) {
    if (!s) {
        return;
    }
    struct out *o = bfd_user(s);
    bfd_del(io->b, s, loop_now_ns(io->loop));
    fd_close(&o->fd);
    free(o);
    arm(io);
}

void *bfd_io_user(const struct bfd_session *s) {
    const struct out *o = bfd_user(s);
    return o->user;
}
