/* The BGP engine alone, bytes in and bytes out: N prefixes in from some peers, out to others. Time
 * on the CPU, messages, memory a route (all that malloc has given, its own overhead included).
 *   bench_bgp PREFIXES PEERS_IN PEERS_OUT [PREFIXES_PER_ATTRIBUTE_SET, default 10]
 * Checks what comes out: each receiving peer was told of each prefix once. */
#include "base/buf.h"
#include "base/vec.h"
#include "bgp/speaker.h"
#include "bgp/update.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PEERS = 128 };

static struct {
    uint32_t conn[PEERS + 1]; /* by peer id */
    uint64_t bytes_out;
    unsigned n_told;
} w;

static void on_connect(void *user, uint32_t conn, uint16_t peer) {
    (void)user, (void)conn, (void)peer;
}
static void on_close(void *user, uint32_t conn, const void *p, size_t n) {
    (void)user, (void)conn, (void)p, (void)n;
}
static void on_wake(void *user, uint32_t conn) {
    (void)user, (void)conn;
}
static void on_route(void *user, const struct speaker_route *r) {
    (void)user;
    w.n_told += r->n_hops > 0;
}
static const struct speaker_ops OPS = {
    .connect = on_connect, .close = on_close, .wake = on_wake, .route = on_route};

static double cpu(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t heap(void) {
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static uint64_t drain(struct speaker *s, uint32_t conn, unsigned *prefixes) {
    uint64_t bytes = 0;
    static struct update_scratch scratch = UPDATE_SCRATCH_INIT;
    static const struct bgp_rx RX = {.as4 = true, .mp = {true, true}};
    for (;;) {
        struct str out = speaker_output(s, conn, 1);
        if (!out.n) {
            return bytes;
        }
        for (size_t at = 0; prefixes && at < out.n;) {
            const uint8_t *m = (const uint8_t *)out.p + at;
            size_t n = get_u16(m + 16);
            struct bgp_update u;
            struct bgp_fail f;
            if (m[18] == BGP_UPDATE && bgp_update_parse(m + BGP_HEADER, n - BGP_HEADER, &RX,
                                                        &scratch, &u, &f) == UPDATE_OK) {
                struct nlri x;
                for (unsigned i = 0; i < u.n_reach; i++) {
                    while (nlri_next(&u.reach[i], &x)) {
                        (*prefixes)++;
                    }
                }
            }
            at += n;
        }
        bytes += out.n;
        speaker_sent(s, conn, out.n, 1);
    }
}

static void establish(struct speaker *s, unsigned i) {
    char name[16];
    (void)snprintf(name, sizeof(name), "p%u", i);
    struct peer_config c = {
        .name = str_c(name),
        .address = {.family = IP_V4, .b = {10, 0, (uint8_t)(i >> 8), (uint8_t)i}},
        .as = 65000 + i,
        .is_passive = true,
        .role = BGP_ROLE_NONE,
        .gr = GR_DISABLED,
        .family = {{.is_enabled = true}, {.is_enabled = true}}};
    struct ip46 local = {.family = IP_V4, .b = {10, 0, 255, 1}};
    (void)speaker_peer_set(s, &c, 1);
    uint32_t conn = speaker_accept(s, &c.address, &local, 0, 1);
    w.conn[i] = conn;
    struct bgp_open o = {.as = 65000 + i,
                         .hold_s = 0,
                         .id = i,
                         .caps = {.has_mp = true,
                                  .mp = {true, true},
                                  .has_as4 = true,
                                  .as4 = 65000 + i,
                                  .role = BGP_ROLE_NONE}};
    struct buf b = BUF_INIT(BGP_MAX);
    bgp_open_write(&b, &o);
    bgp_keepalive_write(&b);
    speaker_input(s, conn, b.p, b.n, 1);
    buf_fini(&b);
}

/* Updates of n prefixes, each set of attributes for `each` of them. */
static void updates(struct buf *b, unsigned peer, unsigned n, unsigned each) {
    for (unsigned i = 0; i < n; i += each) {
        size_t at = b->n;
        static const uint8_t HEAD[19] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,    0,    2};
        buf_add(b, HEAD, sizeof(HEAD));
        wr_u16(b, 0);
        size_t attrs_at = b->n;
        wr_u16(b, 0);
        uint8_t path[14] = {SEG_SEQUENCE, 3};
        set_u32(path + 2, 65000 + peer);
        set_u32(path + 6, 100 + i / each % 5000);
        set_u32(path + 10, 70000 + i / each);
        struct attr_src a = {.next_hop = {.family = IP_V4, .b = {10, 0, 0, (uint8_t)peer}}};
        a.part[PART_AS_PATH] = str_n((char *)path, sizeof(path));
        struct attr_enc enc = {.as4 = true, .with_next_hop = true};
        attr_encode(b, &a, &enc);
        set_u16((uint8_t *)b->p + attrs_at, (unsigned)(b->n - attrs_at - 2));
        for (unsigned k = i; k < i + each && k < n; k++) {
            struct nlri x = {.len = 24};
            set_u32(x.addr, (1U << 24) + (k << 8));
            nlri_write(b, &x, false);
        }
        set_u16((uint8_t *)b->p + at + 16, (unsigned)(b->n - at));
    }
}

static void feed(struct speaker *s, uint32_t conn, const struct buf *b) {
    for (size_t at = 0; at < b->n; at += 65536) {
        speaker_input(s, conn, b->p + at, b->n - at < 65536 ? b->n - at : 65536, 1);
    }
}

static void walk(struct speaker *s) {
    while (speaker_deadline(s) <= 1) {
        speaker_tick(s, 1);
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        (void)fprintf(stderr, "usage: bench_bgp PREFIXES PEERS_IN PEERS_OUT [PER_SET]\n");
        return 2;
    }
    unsigned n = (unsigned)atoi(argv[1]), in = (unsigned)atoi(argv[2]),
             out = (unsigned)atoi(argv[3]), each = argc > 4 ? (unsigned)atoi(argv[4]) : 10;
    if (in + out > PEERS || each == 0 || n > 10000000) {
        (void)fprintf(stderr, "bench_bgp: too many\n");
        return 2;
    }
    struct speaker_config cfg = {.as = 64512, .router_id = 0x0a00ff01};
    struct buf *bytes = calloc(in + 1, sizeof(*bytes));
    for (unsigned i = 1; i <= in; i++) {
        bytes[i] = BUF_INIT((size_t)1 << 31);
        updates(&bytes[i], i, n, each);
    }
    size_t before = heap();
    struct speaker *s = speaker_new(&cfg, &OPS, NULL, 1);
    for (unsigned i = 1; i <= in; i++) {
        establish(s, i);
    }
    walk(s);
    double t0 = cpu();
    for (unsigned i = 1; i <= in; i++) {
        feed(s, w.conn[i], &bytes[i]);
    }
    walk(s);
    double t1 = cpu();
    struct speaker_stats st;
    speaker_stats(s, &st);
    size_t routes = st.n_routes;
    printf("in: %u prefixes from %u peers: %.3f s CPU, %.0f ns and %.1f bytes a route (%zu routes, "
           "%zu attribute sets)\n",
           n, in, t1 - t0, (t1 - t0) * 1e9 / (double)routes,
           (double)(heap() - before) / (double)routes, routes, st.n_attrs);
    t0 = cpu();
    for (unsigned i = in + 1; i <= in + out; i++) {
        establish(s, i);
    }
    walk(s);
    unsigned told = 0;
    uint64_t sent = 0;
    for (unsigned i = in + 1; i <= in + out; i++) {
        unsigned one = 0;
        sent += drain(s, w.conn[i], i == in + 1 ? &one : NULL);
        if (i == in + 1) {
            told = one;
        }
    }
    t1 = cpu();
    if (out) {
        printf("out: to %u peers: %.3f s CPU, %.1f MB, %.1f bytes a route\n", out, t1 - t0,
               (double)sent / 1e6, (double)(heap() - before) / (double)routes);
        if (told != n) {
            (void)fprintf(stderr, "bench_bgp: a peer was told of %u prefixes\n", told);
            return 1;
        }
    }
    if (w.n_told < n) {
        (void)fprintf(stderr, "bench_bgp: the kernel was told of %u prefixes\n", w.n_told);
        return 1;
    }
    speaker_free(s);
    for (unsigned i = 1; i <= in; i++) {
        buf_fini(&bytes[i]);
    }
    free(bytes);
    return 0;
}
