/* What is known of peers for stations and files, and who is told what. See monitor.h. */
#include "bgp/monitor_int.h"

#include "base/clock.h"

#include <stdlib.h>

static struct seen *seen_of(struct bgp_monitor *m, uint16_t peer) {
    struct seen **p = seen_map_get(&m->peers, peer);
    return p ? *p : NULL;
}

static struct seen *seen_make(struct bgp_monitor *m, uint16_t peer) {
    struct seen *p = seen_of(m, peer);
    if (!p) {
        p = calloc(1, sizeof(*p));
        mg_assert(p);
        p->m.peer = peer;
        p->sent = p->received = BUF_INIT(BGP_MAX_EXT);
        *seen_map_put(&m->peers, peer, NULL) = p;
    }
    return p;
}

static void seen_free(struct seen *p) {
    buf_fini(&p->sent);
    buf_fini(&p->received);
    free(p);
}

struct bmp_peer monitor_bmp_peer(const struct seen *p, int64_t wall_ns) {
    return (struct bmp_peer){
        .address = p->m.address, .as = p->m.as, .id = p->m.id, .as4 = p->m.as4, .wall_ns = wall_ns};
}

/* What the two OPENs agreed on. */
static void take_opens(struct seen *p) {
    struct bgp_open ours, theirs;
    struct bgp_fail f;
    if (p->sent.n < BGP_HEADER || p->received.n < BGP_HEADER ||
        bgp_open_parse((uint8_t *)p->sent.p + BGP_HEADER, p->sent.n - BGP_HEADER, &ours, &f) < 0 ||
        bgp_open_parse((uint8_t *)p->received.p + BGP_HEADER, p->received.n - BGP_HEADER, &theirs,
                       &f) < 0) {
        return;
    }
    p->m.as = theirs.as;
    p->m.id = theirs.id;
    p->m.as4 = ours.caps.has_as4 && theirs.caps.has_as4;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        p->m.addpath[i] = (ours.caps.addpath[i] & BGP_ADDPATH_RECEIVE) &&
                          (theirs.caps.addpath[i] & BGP_ADDPATH_SEND);
    }
}

void bgp_monitor_message(struct bgp_monitor *m, uint16_t peer, bool is_sent, const uint8_t *p,
                         size_t n) {
    bool is_open = p[18] == BGP_OPEN;
    if (!is_open && (is_sent || (!m->files && m->stations.n == 0))) {
        return;
    }
    struct seen *x = seen_make(m, peer);
    if (is_open) {
        struct buf *b = is_sent ? &x->sent : &x->received;
        buf_reset(b);
        buf_add(b, p, n);
        if (!is_sent) {
            take_opens(x);
        }
    }
    if (!is_sent) {
        files_message(m, x, p, n);
    }
    if (!is_sent && x->is_up && p[18] == BGP_UPDATE) {
        stations_update(m, x, p, n);
    }
}

void bgp_monitor_forget(struct bgp_monitor *m, uint16_t peer) {
    struct seen *x = seen_of(m, peer);
    if (x) {
        (void)seen_map_del(&m->peers, peer);
        seen_free(x);
    }
}

void bgp_monitor_event(struct bgp_monitor *m, const struct speaker_event *e) {
    struct seen *x;
    const struct peer_config *c;
    switch (e->kind) {
    case EVENT_STATE:
        x = seen_make(m, e->peer);
        c = speaker_peer_config(m->speaker, e->peer);
        if (c) {
            x->m.address = c->address;
            x->m.as = x->is_up ? x->m.as : c->as;
        }
        files_state(m, x, e->old, e->state);
        return;
    case EVENT_UP:
        x = seen_make(m, e->peer);
        x->is_up = true;
        x->m.up_wall_ns = clock_wall_ns();
        stations_up(m, x);
        return;
    case EVENT_DOWN:
        x = seen_of(m, e->peer);
        if (x && x->is_up) {
            x->is_up = false;
            stations_down(m, x, e->fail, e->is_sent);
        }
        return;
    case EVENT_PEER_GONE:
        bgp_monitor_forget(m, e->peer);
        return;
    case EVENT_NOTIFICATION:
    case EVENT_UPDATE_ERROR:
    case EVENT_EOR:
    case EVENT_STALE_OVER:
    case EVENT_LIMIT:
    case EVENT_ROLE:
    case EVENT_PEER_NEW:
    case EVENT_READY:
        return;
    }
}

void bgp_monitor_conn(struct bgp_monitor *m, uint16_t peer, const struct ip46 *local, uint16_t port,
                      uint16_t remote_port) {
    struct seen *x = seen_make(m, peer);
    if (!x->is_up) {
        x->m.local = *local;
        x->port = port;
        x->remote_port = remote_port;
    }
}

static int by_peer(const void *a, const void *b) {
    return (int)((const struct mrt_peer *)a)->peer - (int)((const struct mrt_peer *)b)->peer;
}

void bgp_monitor_dump(struct bgp_monitor *m, struct mrt_dump *d, struct buf *b) {
    struct mrt_peer *peers = calloc(m->peers.n + 1, sizeof(*peers));
    struct seen **x;
    size_t n = 1;
    int64_t now = clock_wall_ns();
    mg_assert(peers);
    peers[0] = (struct mrt_peer){.address.family = IP_V4,
                                 .as = m->conf->speaker.as,
                                 .id = m->conf->speaker.router_id,
                                 .as4 = true,
                                 .up_wall_ns = now};
    for (size_t i = 0; seen_map_next(&m->peers, &i, NULL, &x);) {
        if ((*x)->m.up_wall_ns) {
            peers[n++] = (*x)->m;
        }
    }
    qsort(peers, n, sizeof(*peers), by_peer);
    mrt_dump_begin(d, m->speaker, peers, n, m->conf->speaker.router_id, now, b);
}

/* ---- life ---- */

struct bgp_monitor *bgp_monitor_new(struct loop *l) {
    struct bgp_monitor *m = calloc(1, sizeof(*m));
    mg_assert(m);
    m->loop = l;
    return m;
}

void bgp_monitor_configure(struct bgp_monitor *m, const struct speaker *s,
                           const struct bgp_conf *c) {
    m->speaker = s;
    m->conf = c;
    stations_configure(m);
    files_configure(m);
}

void bgp_monitor_stats(const struct bgp_monitor *m, struct monitor_stats *out) {
    *out = m->stats;
    out->n_stations = m->stations.n;
}

void bgp_monitor_free(struct bgp_monitor *m) {
    struct seen **x;
    if (!m) {
        return;
    }
    stations_free(m);
    files_free(m);
    for (size_t i = 0; seen_map_next(&m->peers, &i, NULL, &x);) {
        seen_free(*x);
    }
    seen_map_fini(&m->peers);
    free(m);
}
