/* See sim.h. */
#include "sim.h"

#include "base/hash.h"
#include "base/vec.h"

#include <stdio.h>

enum event_kind { EV_TICK, EV_CONNECT, EV_DATA, EV_DONE };
struct event {
    int64_t at;
    uint64_t seq;
    enum event_kind kind;
    unsigned node;
    uint32_t conn; /* EV_CONNECT */
    uint16_t peer;
    uint32_t pipe; /* EV_DATA: index, and direction */
    unsigned dir;
    char *data;
    size_t n;
    bool is_end;
};

struct pipe {
    unsigned node[2];
    uint32_t conn[2];
    bool is_over[2]; /* that side has closed */
    bool is_broken;  /* nothing is delivered any more */
    size_t in_flight[2];
    int64_t last_at[2];
};

#define MAP_NAME pmap
#define MAP_KEY uint64_t
#define MAP_VAL uint32_t
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct sim {
    struct sim_node *nodes;
    int64_t *tick_at;
    unsigned n;
    int64_t now, delay_min, delay_max, busy_at;
    uint64_t random, seq;
    size_t window;
    VEC(struct event) heap;
    VEC(struct pipe) pipes;
    struct pmap by_conn; /* node << 32 | conn: pipe << 1 | side */
    struct pmap cuts;    /* a << 32 | b */
    VEC(uint64_t) woken; /* node << 32 | conn */
};

int64_t sim_now(const struct sim *m) {
    return m->now;
}

uint64_t sim_random(struct sim *m) {
    m->random += 0x9e3779b97f4a7c15ULL;
    return hash_u64(m->random);
}

/* ---- events ---- */

static bool before(const struct event *a, const struct event *b) {
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void push(struct sim *m, struct event e) {
    e.seq = ++m->seq;
    vec_push(&m->heap, e);
    size_t i = m->heap.n - 1;
    while (i > 0 && before(&m->heap.p[i], &m->heap.p[(i - 1) / 2])) {
        struct event t = m->heap.p[i];
        m->heap.p[i] = m->heap.p[(i - 1) / 2];
        m->heap.p[(i - 1) / 2] = t;
        i = (i - 1) / 2;
    }
}

static struct event pop(struct sim *m) {
    struct event top = m->heap.p[0];
    m->heap.p[0] = m->heap.p[--m->heap.n];
    for (size_t i = 0;;) {
        size_t l = 2 * i + 1, least = i;
        if (l < m->heap.n && before(&m->heap.p[l], &m->heap.p[least])) {
            least = l;
        }
        if (l + 1 < m->heap.n && before(&m->heap.p[l + 1], &m->heap.p[least])) {
            least = l + 1;
        }
        if (least == i) {
            return top;
        }
        struct event t = m->heap.p[i];
        m->heap.p[i] = m->heap.p[least];
        m->heap.p[least] = t;
        i = least;
    }
}

static int64_t delay(struct sim *m) {
    return m->delay_min + (int64_t)(sim_random(m) % (uint64_t)(m->delay_max - m->delay_min + 1));
}

static bool is_cut(const struct sim *m, unsigned a, unsigned b) {
    return pmap_get(&m->cuts, (uint64_t)(a < b ? a : b) << 32 | (a < b ? b : a)) != NULL;
}

static void plan_tick(struct sim *m, unsigned i) {
    if (!m->nodes[i].s) {
        return;
    }
    int64_t at = speaker_deadline(m->nodes[i].s);
    if (at < m->tick_at[i]) {
        m->tick_at[i] = at < m->now ? m->now : at;
        push(m, (struct event){.at = m->tick_at[i], .kind = EV_TICK, .node = i});
    }
}

/* ---- what the speakers ask for ---- */

struct side {
    struct sim *m;
    unsigned i;
};
static struct sim *g_sim; /* callbacks get the node; the world is one at a time */

static uint64_t key(unsigned node, uint32_t conn) {
    return (uint64_t)node << 32 | conn;
}

static void on_connect(void *user, uint32_t conn, uint16_t peer) {
    const struct sim_node *n = user;
    push(g_sim, (struct event){.at = g_sim->now + delay(g_sim),
                               .kind = EV_CONNECT,
                               .node = n->i,
                               .conn = conn,
                               .peer = peer});
}

static void send_data(struct sim *m, uint32_t pipe, unsigned dir, const void *p, size_t n,
                      bool is_end) {
    struct pipe *q = &m->pipes.p[pipe];
    int64_t at = m->now + delay(m);
    at = at > q->last_at[dir] ? at : q->last_at[dir];
    q->last_at[dir] = at;
    q->in_flight[dir] += n;
    char *copy = malloc(n + 1);
    mg_assert(copy != NULL);
    if (n) {
        memcpy(copy, p, n);
    }
    push(m, (struct event){.at = at,
                           .kind = EV_DATA,
                           .pipe = pipe,
                           .dir = dir,
                           .data = copy,
                           .n = n,
                           .is_end = is_end});
}

static void on_close(void *user, uint32_t conn, const void *last, size_t n) {
    const struct sim_node *node = user;
    const uint32_t *at = pmap_get(&g_sim->by_conn, key(node->i, conn));
    if (!at) {
        return;
    }
    uint32_t pipe = *at >> 1;
    unsigned side = *at & 1;
    (void)pmap_del(&g_sim->by_conn, key(node->i, conn));
    g_sim->pipes.p[pipe].is_over[side] = true;
    send_data(g_sim, pipe, side, last, n, true);
}

static void on_wake(void *user, uint32_t conn) {
    const struct sim_node *n = user;
    vec_push(&g_sim->woken, key(n->i, conn));
}

static void on_route(void *user, const struct speaker_route *r) {
    struct sim_node *n = user;
    n->n_removed += r->n_hops == 0;
}

static void on_event(void *user, const struct speaker_event *e) {
    struct sim_node *n = user;
    n->n_up += e->kind == EVENT_UP;
    n->n_down += e->kind == EVENT_DOWN;
    n->n_ready += e->kind == EVENT_READY;
    if (e->kind == EVENT_NOTIFICATION) {
        n->last_fail = *e->fail;
    }
}

static const struct speaker_ops OPS = {.connect = on_connect,
                                       .close = on_close,
                                       .wake = on_wake,
                                       .route = on_route,
                                       .event = on_event};

/* ---- running ---- */

static bool is_keepalive(const char *p, size_t n) {
    return n == BGP_HEADER && p[18] == BGP_KEEPALIVE;
}

/* Moves output into the pipe, as much as the window takes. */
static void pump(struct sim *m, unsigned node, uint32_t conn) {
    const uint32_t *at = pmap_get(&m->by_conn, key(node, conn));
    while (at) {
        uint32_t pipe = *at >> 1;
        unsigned side = *at & 1;
        struct pipe *q = &m->pipes.p[pipe];
        if (q->in_flight[side] >= m->window) {
            return;
        }
        struct str out = speaker_output(m->nodes[node].s, conn, m->now);
        if (!out.n) {
            return;
        }
        size_t n = out.n < m->window - q->in_flight[side] ? out.n : m->window - q->in_flight[side];
        if (sim_random(m) % 8 == 0 && n > 1) {
            n = 1 + sim_random(m) % n; /* sockets take what they like */
        }
        if (!is_keepalive(out.p, n)) {
            m->busy_at = m->now;
        }
        send_data(m, pipe, side, out.p, n, false);
        speaker_sent(m->nodes[node].s, conn, n, m->now);
        at = pmap_get(&m->by_conn, key(node, conn));
    }
}

static void pump_woken(struct sim *m) {
    while (m->woken.n) {
        uint64_t k = m->woken.p[--m->woken.n];
        if (m->nodes[k >> 32].s) {
            pump(m, (unsigned)(k >> 32), (uint32_t)k);
        }
    }
}

static int node_of(const struct sim *m, const struct ip46 *ip) {
    for (unsigned i = 0; i < m->n; i++) {
        if (ip_eq(&m->nodes[i].ip, ip)) {
            return (int)i;
        }
    }
    return -1;
}

static void do_connect(struct sim *m, const struct event *e) {
    struct sim_node *a = &m->nodes[e->node];
    if (!a->s || speaker_conn_peer(a->s, e->conn) != e->peer) {
        return;
    }
    const struct peer_config *cfg = speaker_peer_config(a->s, e->peer);
    int to = node_of(m, &cfg->address);
    if (to < 0 || is_cut(m, a->i, (unsigned)to)) {
        return; /* no answer: the speaker's timer ends it */
    }
    struct sim_node *b = &m->nodes[to];
    uint32_t other = b->s ? speaker_accept(b->s, &a->ip, &b->ip, 0, m->now) : 0;
    if (!other) {
        speaker_closed(a->s, e->conn, m->now);
        plan_tick(m, (unsigned)to);
        return;
    }
    uint32_t pipe = (uint32_t)m->pipes.n;
    vec_push(&m->pipes, (struct pipe){.node = {a->i, b->i}, .conn = {e->conn, other}});
    *pmap_put(&m->by_conn, key(a->i, e->conn), NULL) = pipe << 1;
    *pmap_put(&m->by_conn, key(b->i, other), NULL) = pipe << 1 | 1;
    vec_push(&m->woken, key(b->i, other)); /* it had no pipe when it was woken */
    speaker_connected(a->s, e->conn, &a->ip, m->now);
    plan_tick(m, (unsigned)to);
}

static void do_data(struct sim *m, struct event *e) {
    struct pipe *q = &m->pipes.p[e->pipe];
    unsigned from = q->node[e->dir], to = q->node[1 - e->dir];
    if (q->is_broken) {
        free(e->data);
        return;
    }
    if (is_cut(m, from, to)) {
        e->at = m->now + 50 * SIM_MS;
        q->last_at[e->dir] = e->at;
        push(m, *e);
        return;
    }
    q->in_flight[e->dir] -= e->n;
    if (!q->is_over[1 - e->dir] && m->nodes[to].s) {
        if (e->n) {
            if (!is_keepalive(e->data, e->n)) {
                m->busy_at = m->now;
            }
            speaker_input(m->nodes[to].s, q->conn[1 - e->dir], e->data, e->n, m->now);
            q = &m->pipes.p[e->pipe];
        }
        if (e->is_end && !q->is_over[1 - e->dir]) {
            (void)pmap_del(&m->by_conn, key(to, q->conn[1 - e->dir]));
            q->is_over[1 - e->dir] = true;
            speaker_closed(m->nodes[to].s, q->conn[1 - e->dir], m->now);
        }
    }
    free(e->data);
    q = &m->pipes.p[e->pipe];
    if (!q->is_over[e->dir] && m->nodes[from].s) {
        pump(m, from, q->conn[e->dir]);
    }
    plan_tick(m, to);
    plan_tick(m, from);
}

static void step(struct sim *m) {
    struct event e = pop(m);
    m->now = e.at > m->now ? e.at : m->now;
    switch (e.kind) {
    case EV_TICK:
        if (e.at == m->tick_at[e.node]) {
            m->tick_at[e.node] = INT64_MAX;
            if (m->nodes[e.node].s) {
                speaker_tick(m->nodes[e.node].s, m->now);
            }
        }
        break;
    case EV_CONNECT:
        do_connect(m, &e);
        break;
    case EV_DATA:
        do_data(m, &e);
        break;
    case EV_DONE:
        break;
    }
    pump_woken(m);
    if (e.kind != EV_DATA) {
        plan_tick(m, e.node);
    }
}

void sim_run(struct sim *m, int64_t t) {
    int64_t end = m->now + t;
    g_sim = m;
    pump_woken(m);
    while (m->heap.n && m->heap.p[0].at <= end) {
        step(m);
    }
    m->now = end;
}

bool sim_settle(struct sim *m, int64_t most) {
    int64_t end = m->now + most;
    m->busy_at = m->now;
    while (m->now < end) {
        sim_run(m, SIM_S / 10);
        if (m->now - m->busy_at > 8 * SIM_S) {
            return true;
        }
    }
    return false;
}

/* ---- the world ---- */

struct sim *sim_new(unsigned n, uint64_t seed) {
    struct sim *m = calloc(1, sizeof(*m));
    mg_assert(m != NULL);
    m->n = n;
    m->random = seed;
    m->now = 1000 * SIM_S;
    m->delay_min = SIM_MS / 10;
    m->delay_max = 2 * SIM_MS;
    m->window = 128 * 1024;
    m->nodes = calloc(n, sizeof(*m->nodes));
    m->tick_at = calloc(n, sizeof(*m->tick_at));
    mg_assert(m->nodes && m->tick_at);
    for (unsigned i = 0; i < n; i++) {
        m->nodes[i].i = i;
        m->nodes[i].ip = (struct ip46){.family = IP_V4, .b = {10}};
        set_u32(m->nodes[i].ip.b, 0x0a000001U + i);
        m->tick_at[i] = INT64_MAX;
    }
    g_sim = m;
    return m;
}

void sim_free(struct sim *m) {
    for (unsigned i = 0; i < m->n; i++) {
        speaker_free(m->nodes[i].s);
    }
    for (size_t i = 0; i < m->heap.n; i++) {
        free(m->heap.p[i].data);
    }
    vec_fini(&m->heap);
    vec_fini(&m->pipes);
    vec_fini(&m->woken);
    pmap_fini(&m->by_conn);
    pmap_fini(&m->cuts);
    free(m->nodes);
    free(m->tick_at);
    free(m);
}

struct sim_node *sim_node(struct sim *m, unsigned i) {
    return &m->nodes[i];
}

void sim_start(struct sim *m, unsigned i, const struct speaker_config *cfg) {
    struct sim_node *n = &m->nodes[i];
    n->cfg = *cfg;
    n->cfg.seed = sim_random(m);
    n->s = speaker_new(&n->cfg, &OPS, n, m->now);
    plan_tick(m, i);
}

static void break_pipes(struct sim *m, unsigned a, int b, bool is_silent) {
    for (size_t k = 0; k < m->pipes.n; k++) {
        struct pipe *q = &m->pipes.p[k];
        bool is_it = b < 0 ? q->node[0] == a || q->node[1] == a
                           : (q->node[0] == a && q->node[1] == (unsigned)b) ||
                                 (q->node[1] == a && q->node[0] == (unsigned)b);
        if (!is_it || q->is_broken) {
            continue;
        }
        q->is_broken = true;
        for (unsigned side = 0; side < 2; side++) {
            unsigned node = q->node[side];
            if (q->is_over[side] || (is_silent && node != a)) {
                continue;
            }
            q->is_over[side] = true;
            (void)pmap_del(&m->by_conn, key(node, q->conn[side]));
            if (m->nodes[node].s) {
                speaker_closed(m->nodes[node].s, q->conn[side], m->now);
                plan_tick(m, node);
            }
        }
    }
}

void sim_kill(struct sim *m, unsigned i, bool is_silent) {
    g_sim = m;
    speaker_free(m->nodes[i].s);
    m->nodes[i].s = NULL;
    m->tick_at[i] = INT64_MAX;
    break_pipes(m, i, -1, is_silent);
}

void sim_reset(struct sim *m, unsigned a, unsigned b) {
    g_sim = m;
    break_pipes(m, a, (int)b, false);
}

void sim_cut(struct sim *m, unsigned a, unsigned b, bool is_now_cut) {
    uint64_t k = (uint64_t)(a < b ? a : b) << 32 | (a < b ? b : a);
    if (is_now_cut) {
        (void)pmap_put(&m->cuts, k, NULL);
    } else {
        (void)pmap_del(&m->cuts, k);
    }
}

void sim_set_delay(struct sim *m, int64_t least, int64_t most) {
    m->delay_min = least;
    m->delay_max = most;
}

void sim_set_window(struct sim *m, size_t bytes) {
    m->window = bytes;
}

const char *sim_peer_name(unsigned b) {
    static char name[4][16];
    static unsigned turn;
    char *out = name[turn++ % 4];
    (void)snprintf(out, sizeof(name[0]), "n%u", b);
    return out;
}

struct peer_config sim_peer_config(struct sim *m, unsigned a, unsigned b) {
    (void)a;
    return (struct peer_config){.name = str_c(sim_peer_name(b)),
                                .address = m->nodes[b].ip,
                                .as = m->nodes[b].cfg.as,
                                .role = BGP_ROLE_NONE,
                                .family = {{.is_enabled = true}, {.is_enabled = true}}};
}

void sim_peer(struct sim *m, unsigned a, unsigned b, const struct peer_config *cfg) {
    g_sim = m;
    (void)b;
    mg_assert(speaker_peer_set(m->nodes[a].s, cfg, m->now) != 0);
    plan_tick(m, a);
}

void sim_link(struct sim *m, unsigned a, unsigned b) {
    struct peer_config x = sim_peer_config(m, a, b), y = sim_peer_config(m, b, a);
    sim_peer(m, a, b, &x);
    sim_peer(m, b, a, &y);
}

static struct prefix parse(const char *text) {
    struct prefix p;
    mg_assert(prefix_parse(str_c(text), &p) == 0);
    return p;
}

void sim_originate(struct sim *m, unsigned i, const char *prefix, const struct attr_src *attrs) {
    g_sim = m;
    struct local_route r = {.prefix = parse(prefix), .source = ROUTE_STATIC};
    if (attrs) {
        r.attrs = *attrs;
    }
    speaker_originate(m->nodes[i].s, &r, m->now);
    plan_tick(m, i);
}

void sim_withdraw(struct sim *m, unsigned i, const char *prefix) {
    g_sim = m;
    struct prefix p = parse(prefix);
    mg_assert(speaker_withdraw(m->nodes[i].s, &p, ROUTE_STATIC, m->now));
    plan_tick(m, i);
}

struct found {
    struct route_view best;
    unsigned n;
    bool has_best;
};

static void look(void *user, const struct route_view *v) {
    struct found *f = user;
    f->n++;
    if (v->is_best) {
        f->best = *v;
        f->has_best = true;
    }
}

bool sim_best(struct sim *m, unsigned i, const char *prefix, int *from, struct route_view *out) {
    struct found f = {.n = 0};
    struct prefix p = parse(prefix);
    speaker_routes_of(m->nodes[i].s, &p, look, &f);
    if (!f.has_best) {
        return false;
    }
    if (from) {
        const struct peer_config *cfg =
            f.best.peer ? speaker_peer_config(m->nodes[i].s, f.best.peer) : NULL;
        *from = cfg ? node_of(m, &cfg->address) : -1;
    }
    if (out) {
        *out = f.best;
    }
    return true;
}

unsigned sim_paths(struct sim *m, unsigned i, const char *prefix) {
    struct found f = {.n = 0};
    struct prefix p = parse(prefix);
    speaker_routes_of(m->nodes[i].s, &p, look, &f);
    return f.n;
}

unsigned sim_established(struct sim *m) {
    unsigned n = 0;
    for (unsigned i = 0; i < m->n; i++) {
        struct peer_status st;
        for (uint16_t id = 0; m->nodes[i].s && (id = speaker_peer_next(m->nodes[i].s, id));) {
            n += speaker_peer_status(m->nodes[i].s, id, &st) && st.state == BGP_ESTABLISHED;
        }
    }
    return n;
}
