/* The other routers of a measured speaker: some announce the same N prefixes, each by a path of its
 * own, others listen and note for each prefix whose path they were told. All are in this process,
 * on addresses of their own, so that any speaker can be measured with the very same bytes.
 *   bench_bgp_peers TARGET AS PREFIXES SOURCES SINKS PREFIXES_PER_ATTRIBUTE_SET
 * Peer k is 10.98.1.k of AS 65000 + k: sources first. Commands come by stdin, one a line; each is
 * answered by its name and the seconds it took, when all sinks are where they should be:
 *   up      sessions are established
 *   feed    the sources have announced everything
 *   flap    the first source closes its connection: its paths are withdrawn, or replaced
 *   back    it comes back and announces everything again; from when it is established */
#include "base/vec.h"
#include "bgp/msg.h"
#include "bgp/update.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    PEERS_MAX = 200,
    A_MESSAGE = 900 /* prefixes */,
    KEEPALIVE_S = 20,
    ROOM = 1 << 18,
    FIRST_AS = 65000,
    COMMAND = PEERS_MAX
};
#define FIRST_NET (20U << 24)

struct router {
    unsigned k; /* from 1 */
    int fd;     /* -1: none */
    bool is_up, is_feeding;
    size_t at;   /* bytes of the feed written */
    uint8_t *in; /* ROOM */
    size_t n_in;
    struct buf out;           /* before the feed: OPEN, KEEPALIVE */
    uint8_t *whose;           /* of a sink: by prefix, the source it was told of; 0: none */
    unsigned n_of[PEERS_MAX]; /* … counted; [0]: none */
};

static struct {
    struct sockaddr_in target;
    uint32_t as;
    unsigned n, sources, sinks, each;
    struct router *routers;
    struct buf *feeds;
    int ep;
    double started, next_keepalive;
    char command[16];
} w;

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what) {
    (void)fprintf(stderr, "bench_bgp_peers: %s: %m\n", what);
    exit(1);
}

static bool is_source(const struct router *r) {
    return r->k <= w.sources;
}

/* ---- what sources say ---- */

static void feed_make(struct buf *b, unsigned k) {
    static const uint8_t HEAD[19] = {0xff, 0xff, 0xff, 0xff, 0xff,      0xff, 0xff,
                                     0xff, 0xff, 0xff, 0xff, 0xff,      0xff, 0xff,
                                     0xff, 0xff, 0,    0,    BGP_UPDATE};
    unsigned step = w.each < A_MESSAGE ? w.each : A_MESSAGE;
    for (unsigned i = 0; i < w.n; i += step) {
        size_t at = b->n;
        buf_add(b, HEAD, sizeof(HEAD));
        wr_u16(b, 0);
        size_t attrs_at = b->n;
        wr_u16(b, 0);
        uint8_t path[14] = {SEG_SEQUENCE, 3};
        set_u32(path + 2, FIRST_AS + k);
        set_u32(path + 6, 100 + i / w.each % 5000);
        set_u32(path + 10, 70000 + i / w.each);
        struct attr_src a = {.next_hop = {.family = IP_V4, .b = {10, 98, 1, (uint8_t)k}}};
        a.part[PART_AS_PATH] = str_n((char *)path, sizeof(path));
        struct attr_enc enc = {.as4 = true, .with_next_hop = true};
        attr_encode(b, &a, &enc);
        set_u16((uint8_t *)b->p + attrs_at, (unsigned)(b->n - attrs_at - 2));
        for (unsigned p = i; p < i + step && p < w.n; p++) {
            struct nlri x = {.len = 24};
            set_u32(x.addr, FIRST_NET + (p << 8));
            nlri_write(b, &x, false);
        }
        set_u16((uint8_t *)b->p + at + 16, (unsigned)(b->n - at));
    }
}

/* ---- what sinks hear ---- */

static void note(struct router *r, const struct nlri *x, unsigned source) {
    unsigned p = (get_u32(x->addr) - FIRST_NET) >> 8;
    if (x->len == 24 && p < w.n && source < PEERS_MAX) {
        r->n_of[r->whose[p]]--;
        r->whose[p] = (uint8_t)source;
        r->n_of[source]++;
    }
}

/* The AS behind the measured speaker's in the path is the source's. */
static unsigned source_of(struct str path) {
    const uint8_t *p = (const uint8_t *)path.p;
    return path.n >= 10 ? get_u32(p + 6) - FIRST_AS : 0;
}

static void hear_update(struct router *r, const uint8_t *body, size_t n) {
    static struct update_scratch scratch = UPDATE_SCRATCH_INIT;
    static const struct bgp_rx RX = {.as4 = true, .mp = {true, false}};
    struct bgp_update u;
    struct bgp_fail f;
    struct nlri x;
    if (bgp_update_parse(body, n, &RX, &scratch, &u, &f) != UPDATE_OK) {
        (void)fprintf(stderr, "bench_bgp_peers: peer %u got a bad UPDATE\n", r->k);
        exit(1);
    }
    for (unsigned i = 0; i < u.n_unreach; i++) {
        while (nlri_next(&u.unreach[i], &x)) {
            note(r, &x, 0);
        }
    }
    for (unsigned i = 0; i < u.n_reach; i++) {
        while (nlri_next(&u.reach[i], &x)) {
            note(r, &x, source_of(u.attrs.part[PART_AS_PATH]));
        }
    }
}

static void interest(const struct router *r) {
    bool wants = r->out.n || (r->is_feeding && r->at < w.feeds[r->k].n);
    struct epoll_event e = {.events = EPOLLIN | (wants ? (uint32_t)EPOLLOUT : 0U),
                            .data.u32 = r->k - 1};
    (void)epoll_ctl(w.ep, EPOLL_CTL_MOD, r->fd, &e);
}

static void hear(struct router *r, const uint8_t *m, size_t n) {
    switch (m[18]) {
    case BGP_OPEN:
        bgp_keepalive_write(&r->out);
        interest(r);
        break;
    case BGP_KEEPALIVE:
        r->is_up = true;
        break;
    case BGP_NOTIFICATION:
        (void)fprintf(stderr, "bench_bgp_peers: peer %u got NOTIFICATION %u/%u\n", r->k, m[19],
                      m[20]);
        exit(1);
    case BGP_UPDATE:
        if (!is_source(r)) {
            hear_update(r, m + BGP_HEADER, n - BGP_HEADER);
        }
        break;
    default:
        break;
    }
}

static void hang_up(struct router *r) {
    (void)epoll_ctl(w.ep, EPOLL_CTL_DEL, r->fd, NULL);
    (void)close(r->fd);
    r->fd = -1;
    r->is_up = r->is_feeding = false;
    buf_reset(&r->out);
}

static void hear_all(struct router *r) {
    ssize_t got = read(r->fd, r->in + r->n_in, ROOM - r->n_in);
    if (got <= 0 && (got == 0 || errno != EAGAIN) && !r->is_up) {
        hang_up(r); /* the measured one is not ready for it yet */
        return;
    }
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        (void)fprintf(stderr, "bench_bgp_peers: peer %u lost its connection\n", r->k);
        exit(1);
    }
    r->n_in += got > 0 ? (size_t)got : 0;
    size_t at = 0;
    while (r->n_in - at >= BGP_HEADER && r->n_in - at >= get_u16(r->in + at + 16)) {
        size_t n = get_u16(r->in + at + 16);
        hear(r, r->in + at, n);
        at += n;
    }
    memmove(r->in, r->in + at, r->n_in - at);
    r->n_in -= at;
}

static void say(struct router *r) {
    if (r->out.n) {
        ssize_t n = write(r->fd, r->out.p, r->out.n);
        buf_consume(&r->out, n > 0 ? (size_t)n : 0);
    } else if (r->is_feeding) {
        const struct buf *b = &w.feeds[r->k];
        ssize_t n = write(r->fd, b->p + r->at, b->n - r->at);
        r->at += n > 0 ? (size_t)n : 0;
    }
    interest(r);
}

/* ---- sessions ---- */

static void connect_one(struct router *r) {
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a620100 + r->k)};
    int one = 1;
    r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(r->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (r->fd < 0 || bind(r->fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
        connect(r->fd, (struct sockaddr *)&w.target, sizeof(w.target)) < 0) {
        die("connecting");
    }
    (void)fcntl(r->fd, F_SETFL, O_NONBLOCK);
    struct bgp_open o = {.as = FIRST_AS + r->k,
                         .hold_s = 240,
                         .id = 0x0a620100 + r->k,
                         .caps = {.has_mp = true,
                                  .mp = {true, false},
                                  .has_as4 = true,
                                  .as4 = FIRST_AS + r->k,
                                  .role = BGP_ROLE_NONE}};
    bgp_open_write(&r->out, &o);
    r->is_up = r->is_feeding = false;
    r->at = r->n_in = 0;
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = r->k - 1};
    (void)epoll_ctl(w.ep, EPOLL_CTL_ADD, r->fd, &e);
    interest(r);
}

static void feed_one(struct router *r) {
    r->is_feeding = true;
    interest(r);
}

/* ---- commands ---- */

static bool all_up(void) {
    for (unsigned i = 0; i < w.sources + w.sinks; i++) {
        if (!w.routers[i].is_up) {
            return false;
        }
    }
    return true;
}

static bool sinks_have(unsigned source, unsigned n) {
    for (unsigned i = w.sources; i < w.sources + w.sinks; i++) {
        if (w.routers[i].n_of[source] != n) {
            return false;
        }
    }
    return true;
}

static bool all_written(void) {
    for (unsigned i = 0; i < w.sources; i++) {
        if (w.routers[i].at < w.feeds[i + 1].n) {
            return false;
        }
    }
    return true;
}

static bool is_done(void) {
    if (strcmp(w.command, "up") == 0) {
        return all_up();
    }
    if (strcmp(w.command, "flap") == 0) {
        return w.sources == 1 ? sinks_have(0, w.n) : sinks_have(1, 0) && sinks_have(0, 0);
    }
    if (strcmp(w.command, "back") == 0) {
        if (w.routers[0].is_up && !w.routers[0].is_feeding) {
            w.started = now();
            feed_one(&w.routers[0]);
        }
        return w.routers[0].is_feeding && all_written() && sinks_have(1, w.n);
    }
    return all_written() && sinks_have(1, w.n);
}

static void begin(void) {
    w.started = now();
    if (strcmp(w.command, "up") == 0) {
        for (unsigned i = 0; i < w.sources + w.sinks; i++) {
            connect_one(&w.routers[i]);
        }
    } else if (strcmp(w.command, "feed") == 0) {
        for (unsigned i = 0; i < w.sources; i++) {
            feed_one(&w.routers[i]);
        }
    } else if (strcmp(w.command, "flap") == 0) {
        hang_up(&w.routers[0]);
    } else if (strcmp(w.command, "back") == 0) {
        connect_one(&w.routers[0]);
    } else {
        (void)fprintf(stderr, "bench_bgp_peers: found %s\n", w.command);
        exit(2);
    }
}

static void read_command(void) {
    char line[16];
    ssize_t n = read(0, line, sizeof(line) - 1);
    if (n <= 1) {
        exit(0);
    }
    line[n - 1] = 0;
    memcpy(w.command, line, (size_t)n);
    begin();
}

static void keepalives(void) {
    for (unsigned i = 0; i < w.sources + w.sinks; i++) {
        struct router *r = &w.routers[i];
        bool is_between = !r->is_feeding || r->at == w.feeds[r->k].n;
        if (r->fd >= 0 && r->is_up && is_between) {
            bgp_keepalive_write(&r->out);
            interest(r);
        }
    }
    w.next_keepalive = now() + KEEPALIVE_S;
}

/* Who should be connected and is not. */
static void connect_again(void) {
    bool is_away = strcmp(w.command, "flap") == 0 || w.command[0] == 0;
    for (unsigned i = 0; i < w.sources + w.sinks; i++) {
        if (w.routers[i].fd < 0 && !is_away) {
            connect_one(&w.routers[i]);
        }
    }
}

static void turn(void) {
    struct epoll_event e[64];
    int n = epoll_wait(w.ep, e, 64, 50);
    if (n == 0) {
        connect_again();
    }
    for (int i = 0; i < n; i++) {
        if (e[i].data.u32 == COMMAND) {
            read_command();
            continue;
        }
        struct router *r = &w.routers[e[i].data.u32];
        if (r->fd >= 0 && (e[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
            hear_all(r);
        }
        if (r->fd >= 0 && (e[i].events & EPOLLOUT)) {
            say(r);
        }
    }
    if (now() > w.next_keepalive) {
        keepalives();
    }
    if (w.command[0] && is_done()) {
        printf("%s %.6f\n", w.command, now() - w.started);
        (void)fflush(stdout);
        w.command[0] = 0;
    }
}

/* 0: it is none. */
static unsigned number(const char *s) {
    uint64_t v = 0;
    return str_to_u64(str_c(s), &v) == 0 && v <= UINT32_MAX ? (unsigned)v : 0;
}

int main(int argc, char **argv) {
    if (argc < 7) {
        (void)fprintf(stderr, "usage: bench_bgp_peers TARGET AS PREFIXES SOURCES SINKS PER_SET\n");
        return 2;
    }
    struct ip46 target;
    w.as = number(argv[2]);
    w.n = number(argv[3]);
    w.sources = number(argv[4]);
    w.sinks = number(argv[5]);
    w.each = number(argv[6]);
    if (ip_parse(str_c(argv[1]), &target) < 0 || target.family != IP_V4 || !w.sources || !w.each ||
        w.sources + w.sinks >= PEERS_MAX || w.n > 8000000) {
        (void)fprintf(stderr, "bench_bgp_peers: too many, or not an IPv4 address\n");
        return 2;
    }
    w.target = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(BGP_PORT)};
    memcpy(&w.target.sin_addr, target.b, 4);
    w.ep = epoll_create1(EPOLL_CLOEXEC);
    w.routers = calloc(w.sources + w.sinks, sizeof(*w.routers));
    w.feeds = calloc(w.sources + w.sinks + 1, sizeof(*w.feeds));
    mg_assert(w.routers && w.feeds);
    for (unsigned i = 0; i < w.sources + w.sinks; i++) {
        struct router *r = &w.routers[i];
        r->k = i + 1;
        r->fd = -1;
        r->out = BUF_INIT(1 << 16);
        r->in = malloc(ROOM);
        w.feeds[r->k] = BUF_INIT((size_t)1 << 31);
        if (is_source(r)) {
            feed_make(&w.feeds[r->k], r->k);
        } else {
            r->whose = calloc(w.n + 1, 1);
            r->n_of[0] = w.n;
        }
    }
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = COMMAND};
    (void)epoll_ctl(w.ep, EPOLL_CTL_ADD, 0, &e);
    w.next_keepalive = now() + KEEPALIVE_S;
    for (;;) {
        turn();
    }
}
