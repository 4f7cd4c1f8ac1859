/* Connections of a peer, its timers, and what begins and ends a session: the state machine of RFC
 * 4271 section 8. What messages do in each state is in session_msg.c. A peer has two places for
 * connections, so that two that cross can be told apart (section 6.8). */
#include "bgp/speaker_int.h"

enum { DEFAULT_RETRY_S = 5, DEFAULT_IDLE_MIN_S = 5, DEFAULT_IDLE_MAX_S = 60 };
#define OPEN_HOLD (240 * S_NS)     /* RFC 4271 section 8.2.2: "a large value", four minutes */
#define SEND_HOLD_MIN (480 * S_NS) /* RFC 9687 section 6 */

struct chunk *chunk_new(const void *p, size_t n) {
    struct chunk *c = malloc(sizeof(*c) + n);
    mg_assert(c != NULL);
    *c = (struct chunk){.n_refs = 1, .n = (uint32_t)n};
    memcpy(c->p, p, n);
    for (size_t at = 0; at + BGP_HEADER <= n; at += get_u16(c->p + at + 16)) {
        c->n_msgs++;
        c->n_updates += c->p[at + 18] == BGP_UPDATE;
    }
    return c;
}

void chunk_unref(struct chunk *c) {
    if (--c->n_refs == 0) {
        free(c);
    }
}

/* ---- numbers ---- */

/* peer (16 bits), sequence (15), place (1). */
static uint32_t conn_number(struct peer *p, unsigned place) {
    p->conn_seq = (uint16_t)((p->conn_seq + 1) & 0x7fff);
    return (uint32_t)p->id << 16 | (uint32_t)p->conn_seq << 1 | place;
}

struct conn *conn_of(const struct speaker *s, uint32_t id, struct peer **out) {
    struct peer *p = peer_at(s, (uint16_t)(id >> 16));
    struct conn *c = p ? &p->conn[id & 1] : NULL;
    if (!c || c->state == CONN_NONE || c->id != id) {
        return NULL;
    }
    *out = p;
    return c;
}

uint16_t speaker_conn_peer(const struct speaker *s, uint32_t conn) {
    struct peer *p;
    return conn_of(s, conn, &p) ? p->id : 0;
}

static struct conn *begin(struct peer *p, unsigned place, uint8_t dir, enum conn_state state) {
    struct conn *c = &p->conn[place];
    c->state = state;
    c->dir = dir;
    c->id = conn_number(p, place);
    c->hold_at = c->keepalive_at = c->send_hold_at = c->delay_at = INT64_MAX;
    c->hold_ns = c->keepalive_ns = 0;
    c->local = c->local4 = c->local6 = c->link_local = (struct ip46){0};
    c->is_awake = false;
    return c;
}

/* ---- output ---- */

void conn_wake(struct speaker *s, struct conn *c) {
    if (!c->is_awake) {
        c->is_awake = true;
        s->ops->wake(s->user, c->id);
    }
}

static void tell_messages(struct speaker *s, const struct peer *p, const struct chunk *k) {
    for (size_t at = 0; at + BGP_HEADER <= k->n; at += get_u16(k->p + at + 16)) {
        s->ops->message(s->user, p->id, true, k->p + at, get_u16(k->p + at + 16));
    }
}

static int64_t send_hold(const struct conn *c) {
    return 2 * c->hold_ns > SEND_HOLD_MIN ? 2 * c->hold_ns : SEND_HOLD_MIN;
}

void conn_push(struct speaker *s, struct peer *p, struct conn *c, struct chunk *k) {
    if (c->n_waiting == 0) {
        c->send_hold_at = s->now + send_hold(c);
        note_timer(s, c->send_hold_at);
    }
    vec_push(&c->out, k);
    c->n_waiting += k->n;
    p->msgs_out += k->n_msgs;
    p->updates_out += k->n_updates;
    p->bytes_out += k->n;
    if (c->keepalive_ns) {
        c->keepalive_at = s->now + jitter(s, c->keepalive_ns);
        note_timer(s, c->keepalive_at);
    }
    if (s->ops->message) {
        tell_messages(s, p, k);
    }
    conn_wake(s, c);
}

void conn_push_buf(struct speaker *s, struct peer *p, struct conn *c, const struct buf *b) {
    conn_push(s, p, c, chunk_new(b->p, b->n));
}

struct str speaker_output(struct speaker *s, uint32_t conn, int64_t now) {
    struct peer *p;
    struct conn *c = conn_of(s, conn, &p);
    if (!c) {
        return str_n("", 0);
    }
    s->now = now > s->now ? now : s->now;
    if (c->state == CONN_ESTABLISHED && c->n_waiting < OUT_LOW) {
        out_fill(s, p);
    }
    if (c->n_waiting == 0) {
        c->is_awake = false;
        for (int f = 0; f < BGP_N_FAMILIES; f++) {
            if (c == p->up && p->chan[f].group) {
                p->chan[f].group->is_awake = false;
            }
        }
        return str_n("", 0);
    }
    const struct chunk *k = c->out.p[c->out_at];
    return str_n((const char *)k->p + c->out_off, k->n - c->out_off);
}

void speaker_sent(struct speaker *s, uint32_t conn, size_t n, int64_t now) {
    struct peer *p;
    struct conn *c = conn_of(s, conn, &p);
    if (!c || n == 0) {
        return;
    }
    s->now = now > s->now ? now : s->now;
    mg_assert(n <= c->n_waiting);
    c->n_waiting -= n;
    c->out_off += n;
    while (c->out_at < c->out.n && c->out_off >= c->out.p[c->out_at]->n) {
        c->out_off -= c->out.p[c->out_at]->n;
        chunk_unref(c->out.p[c->out_at++]);
    }
    if (c->out_at == c->out.n) {
        c->out.n = c->out_at = 0;
    } else if (c->out_at > 64 && c->out_at * 2 > c->out.n) {
        memmove(c->out.p, c->out.p + c->out_at, (c->out.n - c->out_at) * sizeof(*c->out.p));
        c->out.n -= c->out_at;
        c->out_at = 0;
    }
    c->send_hold_at = c->n_waiting ? s->now + send_hold(c) : INT64_MAX;
}

bool speaker_wants_pause(const struct speaker *s, uint32_t conn) {
    struct peer *p;
    const struct conn *c = conn_of(s, conn, &p);
    return c && c->n_waiting > OUT_HIGH;
}

/* ---- the end of a connection ---- */

/* What is left of a message of which the driver has sent a part. */
static struct str partial(const struct conn *c) {
    if (c->out_off == 0) {
        return STR_NULL;
    }
    const struct chunk *k = c->out.p[c->out_at];
    size_t at = 0;
    while (at < c->out_off) {
        at += get_u16(k->p + at + 16);
    }
    return str_n((const char *)k->p + c->out_off, at - c->out_off);
}

static void clear(struct conn *c) {
    for (size_t i = c->out_at; i < c->out.n; i++) {
        chunk_unref(c->out.p[i]);
    }
    vec_fini(&c->out);
    c->out_at = c->out_off = c->n_waiting = 0;
    buf_fini(&c->in);
    c->state = CONN_NONE;
    c->hold_at = c->keepalive_at = c->send_hold_at = c->delay_at = INT64_MAX;
}

static void note_fail(struct speaker *s, struct peer *p, const struct bgp_fail *f, bool is_sent) {
    p->last = *f;
    p->last_is_sent = is_sent;
    p->last_at = s->now;
    tell(s, &(struct speaker_event){
                .kind = EVENT_NOTIFICATION, .peer = p->id, .fail = f, .is_sent = is_sent});
}

void conn_drop(struct speaker *s, struct peer *p, struct conn *c, const struct bgp_fail *f) {
    struct buf last = BUF_INIT(2U * BGP_MAX_EXT);
    if (c->state > CONN_CONNECTING) {
        buf_str(&last, partial(c));
        if (f) {
            size_t at = last.n;
            bgp_notification_write(&last, f);
            p->msgs_out++;
            if (s->ops->message) {
                s->ops->message(s->user, p->id, true, (uint8_t *)last.p + at, last.n - at);
            }
            note_fail(s, p, f, true);
        }
    }
    s->ops->close(s->user, c->id, last.p, last.n);
    buf_fini(&last);
    clear(c);
}

static struct conn *other(struct peer *p, const struct conn *c) {
    return c == &p->conn[0] ? &p->conn[1] : &p->conn[0];
}

void idle_for(struct speaker *s, struct peer *p, int64_t ns) {
    p->idle_until = s->now + ns;
    p->retry_at = INT64_MAX;
    note_timer(s, p->idle_until);
    peer_update_state(s, p);
}

/* Pause after an error: each longer than the one before (DampPeerOscillations). */
static void pause_after_error(struct speaker *s, struct peer *p, const struct bgp_fail *f) {
    unsigned min = p->cfg.idle_min_s ? p->cfg.idle_min_s : DEFAULT_IDLE_MIN_S;
    unsigned max = p->cfg.idle_max_s ? p->cfg.idle_max_s : DEFAULT_IDLE_MAX_S;
    if (p->established_at && s->now - p->established_at > max * S_NS) {
        p->idle_s = 0;
    }
    p->established_at = 0;
    p->idle_s = p->idle_s ? p->idle_s * 2 : min;
    p->idle_s = p->idle_s > max ? max : p->idle_s;
    int64_t t = jitter(s, p->idle_s * S_NS);
    if (f && p->last_is_sent && f->code == BGP_E_CEASE && f->subcode == BGP_E_CEASE_PREFIXES) {
        t = (p->cfg.prefix_restart_s ? p->cfg.prefix_restart_s : 60) * S_NS;
    }
    idle_for(s, p, t);
}

static int64_t retry_ns(const struct peer *p) {
    return (p->cfg.connect_retry_s ? p->cfg.connect_retry_s : DEFAULT_RETRY_S) * S_NS;
}

static void retry_later(struct speaker *s, struct peer *p) {
    p->idle_until = INT64_MAX;
    p->retry_at = p->cfg.is_passive ? INT64_MAX : s->now + jitter(s, retry_ns(p));
    note_timer(s, p->retry_at);
    peer_update_state(s, p);
}

/* RFC 8538 section 4: may the other's routes be kept when the session ended like this? */
static bool may_keep(const struct peer *p, enum down how, const struct bgp_fail *f) {
    if (p->cfg.gr == GR_DISABLED || how == DOWN_ADMIN) {
        return false;
    }
    if (how == DOWN_LOST && !f) {
        return true;
    }
    bool is_hard = f && f->code == BGP_E_CEASE &&
                   (f->subcode == BGP_E_CEASE_HARD ||
                    (how == DOWN_SENT && f->subcode == BGP_E_CEASE_PREFIXES));
    return p->peer_gr_n && p->sent.gr_notification && !is_hard;
}

static void session_down(struct speaker *s, struct peer *p, enum down how,
                         const struct bgp_fail *f) {
    bool keep = may_keep(p, how, f);
    p->up = NULL;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        if (p->chan[i].is_up) {
            group_leave(s, p, (enum bgp_family)i);
        }
    }
    restart_session_lost(s, p, keep);
    tell(s, &(struct speaker_event){
                .kind = EVENT_DOWN, .peer = p->id, .fail = f, .is_sent = how != DOWN_RECEIVED});
}

void session_end(struct speaker *s, struct peer *p, struct conn *c, enum down how,
                 const struct bgp_fail *f) {
    bool was_up = p->up == c;
    if (was_up) {
        session_down(s, p, how, f);
    }
    p->reason = how == DOWN_RECEIVED ? "the peer sent a NOTIFICATION"
                : how == DOWN_SENT   ? "a NOTIFICATION was sent"
                : was_up             ? "the connection was lost"
                : how == DOWN_LOST   ? "no connection"
                                     : p->reason;
    peer_check_dynamic(s, p);
    if (other(p, c)->state > CONN_CONNECTING || how == DOWN_ADMIN) {
        peer_update_state(s, p);
    } else if (how == DOWN_LOST) {
        retry_later(s, p);
    } else {
        if (other(p, c)->state == CONN_CONNECTING) {
            conn_drop(s, p, other(p, c), NULL);
        }
        pause_after_error(s, p, f);
    }
}

void conn_fail(struct speaker *s, struct peer *p, struct conn *c, const struct bgp_fail *f) {
    struct bgp_fail copy;
    if (f) {
        copy = *f;
    }
    conn_drop(s, p, c, f ? &copy : NULL);
    session_end(s, p, c, f ? DOWN_SENT : DOWN_LOST, f ? &copy : NULL);
}

void peer_check_dynamic(struct speaker *s, struct peer *p) {
    bool keeps = p->chan[BGP_V4].is_kept || p->chan[BGP_V6].is_kept;
    if (p->is_dynamic && !keeps && p->conn[0].state == CONN_NONE && p->conn[1].state == CONN_NONE) {
        p->is_dead = true;
        note_timer(s, s->now); /* it is freed by the next tick */
    }
}

/* ---- start and stop ---- */

void peer_start(struct speaker *s, struct peer *p) {
    if (p->cfg.is_shutdown || p->address.family == IP_NONE) {
        return;
    }
    p->is_started = true;
    if (p->conn[0].state > CONN_CONNECTING || p->conn[1].state > CONN_CONNECTING) {
        return;
    }
    p->idle_s = 0;
    p->idle_until = INT64_MAX;
    p->retry_at = p->cfg.is_passive ? INT64_MAX : s->now + p->cfg.connect_delay_s * S_NS;
    note_timer(s, p->retry_at);
    p->reason = p->cfg.is_passive ? "waiting for the peer to connect" : "";
    peer_update_state(s, p);
}

void peer_stop(struct speaker *s, struct peer *p, const struct bgp_fail *f) {
    p->is_started = false;
    for (unsigned i = 0; i < 2; i++) {
        struct conn *c = &p->conn[i];
        if (c->state != CONN_NONE) {
            conn_drop(s, p, c, f);
            session_end(s, p, c, DOWN_ADMIN, f);
        }
    }
    p->idle_until = p->retry_at = p->restart_at = INT64_MAX;
    p->idle_s = 0;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        chan_bump(s, p, (enum bgp_family)i);
        chan_purge(s, p, (enum bgp_family)i);
    }
    peer_update_state(s, p);
}

static enum bgp_state state_of(const struct conn *c) {
    static const enum bgp_state OF[] = {BGP_IDLE, BGP_CONNECT, BGP_OPEN_SENT, BGP_OPEN_CONFIRM,
                                        BGP_ESTABLISHED};
    bool is_delayed = c->state == CONN_OPEN_SENT && c->delay_at != INT64_MAX;
    return !is_delayed ? OF[c->state] : c->dir == OUTGOING ? BGP_CONNECT : BGP_ACTIVE;
}

void peer_update_state(struct speaker *s, struct peer *p) {
    enum bgp_state a = state_of(&p->conn[0]), b = state_of(&p->conn[1]);
    enum bgp_state state = a > b ? a : b;
    if (state == BGP_IDLE && p->is_started && p->idle_until == INT64_MAX) {
        state = BGP_ACTIVE;
    }
    if (state != p->state) {
        enum bgp_state old = p->state;
        p->state = state;
        p->since = s->now;
        tell(s, &(struct speaker_event){
                    .kind = EVENT_STATE, .peer = p->id, .old = old, .state = state});
    }
}

/* ---- TCP ---- */

static void open_sent(struct speaker *s, struct peer *p, struct conn *c, const struct ip46 *local) {
    c->state = CONN_OPEN_SENT;
    c->local = *local;
    if (local->family == IP_V4) {
        c->local4 = *local;
    } else if (ip_is_link_local(local)) {
        c->link_local = *local;
    } else {
        c->local6 = *local;
    }
    if (p->cfg.delay_open_s) {
        c->delay_at = s->now + p->cfg.delay_open_s * S_NS;
        note_timer(s, c->delay_at);
        peer_update_state(s, p);
        return;
    }
    conn_open(s, p, c);
}

void conn_open(struct speaker *s, struct peer *p, struct conn *c) {
    c->delay_at = INT64_MAX;
    c->hold_at = s->now + OPEN_HOLD;
    note_timer(s, c->hold_at);
    conn_send_open(s, p, c);
    peer_update_state(s, p);
}

static void connect_out(struct speaker *s, struct peer *p) {
    if (p->up || p->conn[INCOMING].state > CONN_CONNECTING) {
        p->retry_at = INT64_MAX; /* if that fails, its end sets the timer again */
        return;
    }
    struct conn *c = &p->conn[OUTGOING];
    if (c->state == CONN_CONNECTING) {
        conn_drop(s, p, c, NULL);
        p->reason = "no connection: the peer does not answer";
    } else if (c->state != CONN_NONE) {
        p->retry_at = INT64_MAX;
        return;
    }
    c = begin(p, OUTGOING, OUTGOING, CONN_CONNECTING);
    p->retry_at = s->now + jitter(s, retry_ns(p));
    note_timer(s, p->retry_at);
    peer_update_state(s, p);
    s->ops->connect(s->user, c->id, p->id);
}

void speaker_connected(struct speaker *s, uint32_t conn, const struct ip46 *local, int64_t now) {
    struct peer *p;
    struct conn *c = conn_of(s, conn, &p);
    if (!c || c->state != CONN_CONNECTING) {
        return;
    }
    s->now = now > s->now ? now : s->now;
    p->retry_at = INT64_MAX;
    open_sent(s, p, c, local);
}

void speaker_closed(struct speaker *s, uint32_t conn, int64_t now) {
    struct peer *p;
    struct conn *c = conn_of(s, conn, &p);
    if (!c) {
        return;
    }
    s->now = now > s->now ? now : s->now;
    clear(c);
    session_end(s, p, c, DOWN_LOST, NULL);
    peer_forget(s, p);
}

static struct peer *peer_expected(struct speaker *s, const struct ip46 *remote, uint32_t ifindex) {
    struct peer *range = NULL;
    for (size_t i = 1; i < s->peers.n; i++) {
        struct peer *p = s->peers.p[i];
        if (!p || p->is_dead || p->cfg.is_shutdown) {
            continue;
        }
        if (p->address.family != IP_NONE && ip_eq(&p->address, remote) &&
            (!ip_is_link_local(remote) || !p->cfg.ifindex || p->cfg.ifindex == ifindex)) {
            return p;
        }
        if (!p->is_dynamic && p->cfg.range.ip.family == remote->family &&
            prefix_has_ip(&p->cfg.range, remote) &&
            (!range || p->cfg.range.len > range->cfg.range.len)) {
            range = p;
        }
    }
    return range ? peer_new_dynamic(s, range, remote) : NULL;
}

uint32_t speaker_accept(struct speaker *s, const struct ip46 *remote, const struct ip46 *local,
                        uint32_t ifindex, int64_t now) {
    s->now = now > s->now ? now : s->now;
    struct peer *p = peer_expected(s, remote, ifindex);
    if (!p || !p->is_started || p->idle_until != INT64_MAX) {
        return 0; /* Idle refuses (RFC 4271 section 8.2.2) */
    }
    unsigned place = p->up == &p->conn[INCOMING] ? OUTGOING : INCOMING;
    struct conn *c = &p->conn[place];
    if (c->state != CONN_NONE) {
        /* The peer tries anew: what it began before is over for it. */
        struct bgp_fail f;
        (void)bgp_fail_set(&f, BGP_E_CEASE, BGP_E_CEASE_COLLISION, NULL, 0);
        conn_drop(s, p, c, &f);
    }
    c = begin(p, place, INCOMING, CONN_OPEN_SENT);
    open_sent(s, p, c, local);
    return c->id;
}

void speaker_conn_addrs(struct speaker *s, uint32_t conn, const struct ip46 *v4,
                        const struct ip46 *v6, const struct ip46 *link_local) {
    struct peer *p;
    struct conn *c = conn_of(s, conn, &p);
    if (!c) {
        return;
    }
    bool is_changed = false;
    const struct ip46 *from[] = {v4, v6, link_local};
    struct ip46 *to[] = {&c->local4, &c->local6, &c->link_local};
    for (size_t i = 0; i < ARRAY_LEN(to); i++) {
        if (from[i]->family != IP_NONE && memcmp(from[i], to[i], sizeof(*to[i])) != 0) {
            *to[i] = *from[i];
            is_changed = true;
        }
    }
    for (int f = 0; is_changed && c == p->up && f < BGP_N_FAMILIES; f++) {
        if (p->chan[f].is_up) {
            group_move(s, p, (enum bgp_family)f);
        }
    }
}

/* Takes one whole message from the front of p; 0: none is there yet. */
static size_t take(struct speaker *s, struct peer *p, struct conn *c, const uint8_t *m, size_t n) {
    if (n < BGP_HEADER) {
        return 0;
    }
    struct bgp_fail f;
    /* RFC 8654 section 4: who offered it must take it, whatever the other offered. */
    bool is_extended = c == p->up && p->sent.has_extended_message;
    int len = bgp_header(m, is_extended ? BGP_MAX_EXT : BGP_MAX, &f);
    if (len < 0) {
        conn_fail(s, p, c, &f);
        return 0;
    }
    if ((size_t)len > n) {
        return 0;
    }
    conn_message(s, p, c, m, (size_t)len);
    return (size_t)len;
}

void speaker_input(struct speaker *s, uint32_t conn, const void *bytes, size_t n, int64_t now) {
    struct peer *p;
    struct conn *c = conn_of(s, conn, &p);
    if (!c || c->state == CONN_CONNECTING) {
        return;
    }
    s->now = now > s->now ? now : s->now;
    p->bytes_in += n;
    const uint8_t *m = bytes;
    size_t used;
    /* First what completes a message that began earlier, then in place. */
    while (c->in.n && n) {
        size_t want = c->in.n < BGP_HEADER ? BGP_HEADER : get_u16((uint8_t *)c->in.p + 16);
        size_t more = want > c->in.n ? want - c->in.n : 0;
        more = more < n ? more : n;
        buf_add(&c->in, m, more);
        m += more;
        n -= more;
        struct buf whole = c->in; /* the end of the connection must not free what is read */
        c->in = BUF_INIT(BGP_MAX_EXT);
        used = take(s, p, c, (uint8_t *)whole.p, whole.n);
        if (conn_of(s, conn, &p) != c) {
            buf_fini(&whole);
            return; /* it is over */
        }
        c->in = whole;
        if (used) {
            buf_reset(&c->in);
        } else if (more == 0) {
            return;
        }
    }
    while ((used = take(s, p, c, m, n)) > 0) {
        m += used;
        n -= used;
        if (conn_of(s, conn, &p) != c) {
            return;
        }
    }
    if (conn_of(s, conn, &p) == c && n) {
        buf_add(&c->in, m, n);
    }
}

/* ---- timers ---- */

static void conn_timers(struct speaker *s, struct peer *p, struct conn *c) {
    struct bgp_fail f;
    if (c->state == CONN_OPEN_SENT && s->now >= c->delay_at) {
        conn_open(s, p, c);
    }
    if (c->state > CONN_CONNECTING && s->now >= c->hold_at) {
        (void)bgp_fail_set(&f, BGP_E_HOLD, 0, NULL, 0);
        conn_fail(s, p, c, &f);
        return;
    }
    if (c->state > CONN_CONNECTING && s->now >= c->send_hold_at) {
        (void)bgp_fail_set(&f, BGP_E_SEND_HOLD, 0, NULL, 0);
        conn_fail(s, p, c, &f);
        return;
    }
    if (c->state >= CONN_OPEN_CONFIRM && s->now >= c->keepalive_at) {
        c->keepalive_at = s->now + jitter(s, c->keepalive_ns);
        if (c->n_waiting == 0) { /* else what waits says as much */
            struct buf b = BUF_INIT(BGP_HEADER);
            bgp_keepalive_write(&b);
            conn_push_buf(s, p, c, &b);
            buf_fini(&b);
        }
    }
}

void session_timers(struct speaker *s, struct peer *p) {
    conn_timers(s, p, &p->conn[0]);
    conn_timers(s, p, &p->conn[1]);
    if (s->now >= p->idle_until) {
        p->idle_until = INT64_MAX;
        p->retry_at = p->cfg.is_passive ? INT64_MAX : s->now;
        peer_update_state(s, p);
    }
    if (p->is_started && s->now >= p->retry_at) {
        connect_out(s, p);
    }
}

int64_t session_next(const struct peer *p) {
    int64_t t = p->idle_until < p->retry_at ? p->idle_until : p->retry_at;
    for (int i = 0; i < 2; i++) {
        const struct conn *c = &p->conn[i];
        if (c->state != CONN_NONE) {
            t = c->hold_at < t ? c->hold_at : t;
            t = c->keepalive_at < t ? c->keepalive_at : t;
            t = c->send_hold_at < t ? c->send_hold_at : t;
            t = c->delay_at < t ? c->delay_at : t;
        }
    }
    return t;
}
