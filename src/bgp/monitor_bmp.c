/* BMP stations: a connection each, the table as it was when it came up, then what changes. A piece
 * of the table is made when the station has read the last one; messages of peers are queued as they
 * come. More than QUEUE_MAX waiting: the station is given up, and begun anew later. */
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "bgp/monitor_int.h"
#include "bgp/sock.h"
#include "bgp/update.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

enum {
    QUEUE_MAX = 32 << 20,
    QUEUE_LOW = 256 << 10, /* below it the next piece of the table is made */
    PIECE = 1024,          /* prefixes */
    RETRY_MIN_MS = 1000,
    RETRY_MAX_MS = 60000,
    DROPPED_BYTES = 4096,
};

struct station {
    struct bgp_monitor *m;
    char *name; /* "192.0.2.9:11019" */
    struct conf_station conf;
    bool is_wanted; /* by the configuration that is being applied */
    int fd;
    struct loop_poll *poll;
    struct loop_timer *retry, *statistics;
    int64_t retry_ms;
    bool is_up;
    struct buf out;
    size_t sent; /* of out's bytes, those that are gone */
    /* The table on its way: peers that were up at the start have bits. */
    bool is_dumping;
    enum bgp_family family;
    uint32_t at;
    uint8_t *has_peer; /* by id, a bit each */
    /* Prefixes of one peer with the same attributes. */
    uint16_t run_peer;
    uint32_t run_attr;
    struct buf nlri, update, attrs;
};

enum { PEERS_BYTES = 65536 / 8 };

static bool in_dump(const struct station *s, uint16_t peer) {
    return s->has_peer[peer / 8] & 1U << peer % 8;
}

static const struct seen *seen_at(const struct station *s, uint16_t peer) {
    struct seen **x = seen_map_get(&s->m->peers, peer);
    return x ? *x : NULL;
}

static void interest(struct station *s) {
    loop_poll_set(s->poll, (unsigned)LOOP_READ | (s->out.n > s->sent || s->is_dumping || !s->is_up
                                                      ? (unsigned)LOOP_WRITE
                                                      : 0U));
}

static void hang_up(struct station *s) {
    loop_poll_free(s->poll);
    s->poll = NULL;
    fd_close(&s->fd);
    loop_timer_stop(s->statistics);
    s->m->stats.n_connected -= s->is_up;
    s->is_up = s->is_dumping = false;
    buf_reset(&s->out);
    s->sent = 0;
}

static void try_later(struct station *s) {
    hang_up(s);
    s->retry_ms = s->retry_ms ? s->retry_ms * 2 : RETRY_MIN_MS;
    s->retry_ms = s->retry_ms > RETRY_MAX_MS ? RETRY_MAX_MS : s->retry_ms;
    loop_timer_start(s->retry, s->retry_ms, 0);
}

/* After something was queued. */
static void queued(struct station *s) {
    if (s->out.overflow) {
        LOG_W("bgp", "bmp_station_slow", "station=%s waiting_bytes=%zu", s->name,
              s->out.n - s->sent);
        s->m->stats.n_lost++;
        try_later(s);
        return;
    }
    interest(s);
}

/* ---- the table ---- */

/* One UPDATE with the run's prefixes, as the peer would have sent it. */
static void flush_run(struct station *s) {
    const struct seen *p = seen_at(s, s->run_peer);
    if (s->nlri.n == 0 || !p) {
        buf_reset(&s->nlri);
        return;
    }
    static const uint8_t HEAD[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,      0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,    0,    BGP_UPDATE};
    struct attr_src a;
    struct buf *b = &s->update;
    attr_open(speaker_attrs(s->m->speaker), s->run_attr, &a);
    bool is_classic = s->family == BGP_V4 && a.next_hop.family != IP_V6;
    struct attr_enc enc = {.as4 = p->m.as4, .with_next_hop = is_classic};
    buf_reset(b);
    buf_reset(&s->attrs);
    if (!is_classic) {
        bool has_both = a.link_local.family != IP_NONE;
        size_t n = 5U + (has_both ? 32U : 16U) + s->nlri.n;
        wr_u8(&s->attrs, ATTR_F_OPTIONAL | ATTR_F_LONG);
        wr_u8(&s->attrs, ATTR_MP_REACH);
        wr_u16(&s->attrs, (unsigned)n);
        wr_u16(&s->attrs, bgp_afi(s->family));
        wr_u8(&s->attrs, BGP_SAFI_UNICAST);
        wr_u8(&s->attrs, has_both ? 32 : 16);
        buf_add(&s->attrs, a.next_hop.b, 16);
        if (has_both) {
            buf_add(&s->attrs, a.link_local.b, 16);
        }
        wr_u8(&s->attrs, 0);
        buf_str(&s->attrs, buf_view(&s->nlri));
    }
    attr_encode(&s->attrs, &a, &enc);
    buf_add(b, HEAD, sizeof(HEAD));
    wr_u16(b, 0);
    wr_u16(b, (unsigned)s->attrs.n);
    buf_str(b, buf_view(&s->attrs));
    if (is_classic) {
        buf_str(b, buf_view(&s->nlri));
    }
    if (!b->overflow && !s->attrs.overflow) {
        set_u16((uint8_t *)b->p + 16, (unsigned)b->n);
        struct bmp_peer peer = monitor_bmp_peer(p, p->m.up_wall_ns);
        bmp_route(&s->out, &peer, b->p, b->n);
    }
    buf_reset(&s->nlri);
}

static void on_route(void *user, const struct route_view *v) {
    struct station *s = user;
    const struct seen *p = v->peer && in_dump(s, v->peer) ? seen_at(s, v->peer) : NULL;
    if (!p || v->is_stale || v->is_llgr_stale) {
        return;
    }
    if (v->peer != s->run_peer || v->attr_in != s->run_attr ||
        s->nlri.n > BGP_MAX / 4) { /* attributes fit beside it whatever they are */
        flush_run(s);
        s->run_peer = v->peer;
        s->run_attr = v->attr_in;
    }
    struct nlri x = {.len = v->prefix.len, .path_id = v->path_id};
    memcpy(x.addr, v->prefix.ip.b, sizeof(x.addr));
    nlri_write(&s->nlri, &x, p->m.addpath[s->family]);
}

/* Section 5: after the dump, End-of-RIB. */
static void push_end(struct station *s) {
    static const uint8_t EOR4[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                   0,    23,   2,    0,    0,    0,    0};
    static const uint8_t EOR6[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,    30,   2,    0,
                                   0,    0,    7,    0x90, 15,   0,    3,    0,    2,    1};
    struct seen **x;
    for (size_t i = 0; seen_map_next(&s->m->peers, &i, NULL, &x);) {
        if ((*x)->is_up && in_dump(s, (*x)->m.peer)) {
            struct bmp_peer peer = monitor_bmp_peer(*x, clock_wall_ns());
            bmp_route(&s->out, &peer, s->family == BGP_V4 ? EOR4 : EOR6,
                      s->family == BGP_V4 ? sizeof(EOR4) : sizeof(EOR6));
        }
    }
}

static void dump_some(struct station *s) {
    speaker_routes(s->m->speaker, s->family, &s->at, PIECE, on_route, s);
    flush_run(s); /* attributes may be gone before the next piece */
    s->run_attr = 0;
    if (s->at) {
        return;
    }
    push_end(s);
    s->is_dumping = s->family == BGP_V4;
    s->family = BGP_V6;
}

static void peer_up(struct station *s, const struct seen *p) {
    struct bmp_peer peer = monitor_bmp_peer(p, p->m.up_wall_ns);
    bmp_peer_up(&s->out, &peer, &p->m.local, p->port, p->remote_port, buf_view(&p->sent),
                buf_view(&p->received));
}

static void connected(struct station *s) {
    struct utsname u;
    struct seen **x;
    s->is_up = true;
    s->retry_ms = 0;
    s->m->stats.n_connected++;
    LOG_I("bgp", "bmp_station_up", "station=%s", s->name);
    bmp_initiation(&s->out, uname(&u) == 0 ? str_c(u.nodename) : STR("unknown"), STR("margay bgp"));
    memset(s->has_peer, 0, PEERS_BYTES);
    for (size_t i = 0; seen_map_next(&s->m->peers, &i, NULL, &x);) {
        if ((*x)->is_up) {
            s->has_peer[(*x)->m.peer / 8] |= (uint8_t)(1U << (*x)->m.peer % 8);
            peer_up(s, *x);
        }
    }
    s->is_dumping = true;
    s->family = BGP_V4;
    s->at = s->run_attr = 0;
    s->run_peer = 0;
    int64_t ms = s->conf.statistics_s * 1000LL;
    if (ms) {
        loop_timer_start(s->statistics, ms, ms);
    }
}

/* ---- the connection ---- */

static void on_io(void *arg, unsigned events) {
    struct station *s = arg;
    char drop[DROPPED_BYTES];
    if (!s->is_up) {
        int r = sock_error(s->fd);
        if (r < 0) {
            try_later(s);
            return;
        }
        connected(s);
    }
    if (events & LOOP_READ) { /* a station says nothing */
        ssize_t n = recv(s->fd, drop, sizeof(drop), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            LOG_I("bgp", "bmp_station_lost", "station=%s", s->name);
            try_later(s);
            return;
        }
    }
    if (s->is_dumping && s->out.n - s->sent < QUEUE_LOW) {
        dump_some(s);
    }
    if (s->out.n > s->sent && !s->out.overflow) {
        ssize_t n =
            send(s->fd, s->out.p + s->sent, s->out.n - s->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            try_later(s);
            return;
        }
        if (n > 0) {
            s->m->stats.n_sent_bytes += (uint64_t)n;
            s->sent += (size_t)n;
        }
        if (s->sent > s->out.n / 2) { /* a move costs no more than what it makes room for */
            buf_consume(&s->out, s->sent);
            s->sent = 0;
        }
    }
    queued(s);
}

static void on_retry(void *arg) {
    struct station *s = arg;
    struct sock_tcp t = {.peer = s->conf.address, .port = s->conf.port};
    struct err e;
    if (sock_tcp_connect(&t, &s->fd, &e) < 0) {
        LOG_D("bgp", "bmp_connect_failed", "error=%s", log_quote(str_c(e.msg)));
        try_later(s);
        return;
    }
    s->poll = loop_poll_new(s->m->loop, s->fd, LOOP_WRITE, on_io, s);
}

static void on_statistics(void *arg) {
    struct station *s = arg;
    struct seen **x;
    for (size_t i = 0; seen_map_next(&s->m->peers, &i, NULL, &x);) {
        struct peer_status st;
        if (!(*x)->is_up || !speaker_peer_status(s->m->speaker, (*x)->m.peer, &st)) {
            continue;
        }
        struct bmp_peer peer = monitor_bmp_peer(*x, clock_wall_ns());
        struct bmp_counts c = {.n_update_errors = st.n_update_errors};
        for (int f = 0; f < BGP_N_FAMILIES; f++) {
            c.n_received[f] = st.family[f].n_received;
            c.n_rejected += st.family[f].n_received - st.family[f].n_accepted;
            c.n_best += st.family[f].n_best;
        }
        bmp_statistics(&s->out, &peer, &c);
    }
    queued(s);
}

/* ---- what is told to all ---- */

void stations_up(struct bgp_monitor *m, const struct seen *p) {
    for (size_t i = 0; i < m->stations.n; i++) {
        struct station *s = m->stations.p[i];
        if (s->is_up) {
            /* All its routes come as messages from now on. */
            s->has_peer[p->m.peer / 8] &= (uint8_t) ~(1U << p->m.peer % 8);
            peer_up(s, p);
            queued(s);
        }
    }
}

void stations_down(struct bgp_monitor *m, const struct seen *p, const struct bgp_fail *f,
                   bool is_sent) {
    for (size_t i = 0; i < m->stations.n; i++) {
        struct station *s = m->stations.p[i];
        if (s->is_up) {
            struct bmp_peer peer = monitor_bmp_peer(p, clock_wall_ns());
            s->has_peer[p->m.peer / 8] &= (uint8_t) ~(1U << p->m.peer % 8);
            bmp_peer_down(&s->out, &peer, f, is_sent);
            queued(s);
        }
    }
}

void stations_update(struct bgp_monitor *m, const struct seen *p, const uint8_t *update, size_t n) {
    for (size_t i = 0; i < m->stations.n; i++) {
        struct station *s = m->stations.p[i];
        if (s->is_up) {
            struct bmp_peer peer = monitor_bmp_peer(p, clock_wall_ns());
            bmp_route(&s->out, &peer, update, n);
            queued(s);
        }
    }
}

/* ---- configuration ---- */

static void station_free(struct station *s) {
    if (s->is_up) {
        struct buf last = BUF_INIT(64);
        bmp_termination(&last, BMP_TERMINATION_CLOSED);
        if (s->out.n == s->sent) { /* else it would cut a message in two */
            (void)send(s->fd, last.p, last.n, MSG_DONTWAIT | MSG_NOSIGNAL); /* best effort */
        }
        buf_fini(&last);
    }
    hang_up(s);
    loop_timer_free(s->retry);
    loop_timer_free(s->statistics);
    buf_fini(&s->out);
    buf_fini(&s->nlri);
    buf_fini(&s->update);
    buf_fini(&s->attrs);
    free(s->has_peer);
    free(s->name);
    free(s);
}

static void station_add(struct bgp_monitor *m, const struct conf_station *c) {
    struct station *s = calloc(1, sizeof(*s));
    char text[IP_TEXT_MAX];
    mg_assert(s);
    s->m = m;
    s->conf = *c;
    s->fd = -1;
    s->is_wanted = true;
    int n = asprintf(&s->name, c->address.family == IP_V6 ? "[%s]:%u" : "%s:%u",
                     ip_text(&c->address, text), c->port);
    mg_assert(n > 0);
    s->has_peer = calloc(1, PEERS_BYTES);
    mg_assert(s->has_peer);
    s->out = BUF_INIT(QUEUE_MAX);
    s->nlri = s->update = s->attrs = BUF_INIT(BGP_MAX_EXT);
    s->retry = loop_timer_new(m->loop, on_retry, s);
    s->statistics = loop_timer_new(m->loop, on_statistics, s);
    loop_timer_start(s->retry, 0, 0);
    vec_push(&m->stations, s);
}

static bool is_same(const struct conf_station *a, const struct conf_station *b) {
    return ip_eq(&a->address, &b->address) && a->port == b->port &&
           a->statistics_s == b->statistics_s;
}

void stations_configure(struct bgp_monitor *m) {
    for (size_t i = 0; i < m->stations.n; i++) {
        m->stations.p[i]->is_wanted = false;
    }
    for (size_t k = 0; k < m->conf->n_stations; k++) {
        bool is_there = false;
        for (size_t i = 0; i < m->stations.n && !is_there; i++) {
            is_there = is_same(&m->stations.p[i]->conf, &m->conf->stations[k]);
            m->stations.p[i]->is_wanted |= is_there;
        }
        if (!is_there) {
            station_add(m, &m->conf->stations[k]);
        }
    }
    for (size_t i = 0; i < m->stations.n;) {
        if (m->stations.p[i]->is_wanted) {
            i++;
            continue;
        }
        station_free(m->stations.p[i]);
        vec_swap_remove(&m->stations, i);
    }
}

void stations_free(struct bgp_monitor *m) {
    for (size_t i = 0; i < m->stations.n; i++) {
        station_free(m->stations.p[i]);
    }
    vec_fini(&m->stations);
}
