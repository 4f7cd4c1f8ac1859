/* What each message does in each state, and what an OPEN offers and settles. RFC 4271 sections 6
 * and 8.2.2, 5492, 6286, 6608, 6793, 7607, 9234. */
#include "bgp/speaker_int.h"

#include "base/err.h"

/* ---- OPEN out ---- */

/* Is the peer of the own AS, of the own confederation, or another's, as far as configuration says?
 */
static bool as_is_member(const struct speaker *s, uint32_t as) {
    for (size_t i = 0; s->cfg.confederation && i < s->cfg.n_members; i++) {
        if (s->members[i] == as) {
            return true;
        }
    }
    return false;
}

/* The AS that the peer is shown (RFC 5065 section 4). */
static uint32_t shown_as(const struct speaker *s, const struct peer *p) {
    if (p->cfg.local_as) {
        return p->cfg.local_as;
    }
    bool is_inside = p->cfg.as == s->cfg.as || as_is_member(s, p->cfg.as);
    return s->cfg.confederation && !is_inside ? s->cfg.confederation : s->cfg.as;
}

static void offer_restart(const struct speaker *s, const struct peer *p, struct bgp_caps *c) {
    if (p->cfg.gr == GR_DISABLED) {
        return;
    }
    c->has_gr = c->gr_notification = true;
    c->gr_restarted = s->is_deferring;
    uint16_t t = p->cfg.restart_time_s ? p->cfg.restart_time_s : s->cfg.restart_time_s;
    c->gr_time_s = t > 4095 ? 4095 : t;
    if (p->cfg.gr == GR_HELPER_ONLY) {
        return;
    }
    /* After a start that kept nothing there is no forwarding to speak of. */
    bool is_forwarding = s->cfg.is_restarting || p->n_established;
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        c->gr[f] = c->mp[f];
        c->gr_forwarding[f] = c->mp[f] && is_forwarding;
        if (c->mp[f] && p->cfg.family[f].llgr_time_s) {
            c->has_llgr = c->llgr[f] = true;
            c->llgr_forwarding[f] = is_forwarding;
            c->llgr_time_s[f] = p->cfg.family[f].llgr_time_s & 0xffffff;
        }
    }
}

static void offer(const struct speaker *s, const struct peer *p, struct bgp_caps *c) {
    *c = (struct bgp_caps){.role = BGP_ROLE_NONE};
    if (p->cfg.no_capabilities) {
        return;
    }
    c->has_mp = true;
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        c->mp[f] = p->cfg.family[f].is_enabled;
        c->addpath[f] = c->mp[f] ? p->cfg.family[f].addpath : 0;
    }
    c->has_refresh = c->has_enhanced_refresh = !p->cfg.no_refresh;
    c->has_extended_message = p->cfg.extended_message;
    c->has_as4 = !p->cfg.no_as4;
    c->as4 = shown_as(s, p);
    c->has_v4_over_v6 = p->cfg.extended_next_hop && c->mp[BGP_V4];
    c->role = p->cfg.role;
    offer_restart(s, p, c);
}

void conn_send_open(struct speaker *s, struct peer *p, struct conn *c) {
    offer(s, p, &p->sent);
    struct bgp_open o = {.as = shown_as(s, p),
                         .hold_s = p->cfg.hold_s == HOLD_NONE ? 0
                                   : p->cfg.hold_s            ? p->cfg.hold_s
                                                              : 90,
                         .id = s->cfg.router_id,
                         .caps = p->sent};
    struct buf b = BUF_INIT(BGP_MAX);
    bgp_open_write(&b, &o);
    conn_push_buf(s, p, c, &b);
    buf_fini(&b);
}

/* ---- OPEN in ---- */

/* RFC 9234 section 4.2: which role of the peer fits ours. */
static bool roles_fit(uint8_t ours, uint8_t theirs) {
    static const uint8_t FIT[] = {[BGP_ROLE_PROVIDER] = BGP_ROLE_CUSTOMER,
                                  [BGP_ROLE_RS] = BGP_ROLE_RS_CLIENT,
                                  [BGP_ROLE_RS_CLIENT] = BGP_ROLE_RS,
                                  [BGP_ROLE_CUSTOMER] = BGP_ROLE_PROVIDER,
                                  [BGP_ROLE_PEER] = BGP_ROLE_PEER};
    return ours < ARRAY_LEN(FIT) && FIT[ours] == theirs;
}

/* RFC 5492 section 3: the capabilities that we cannot do without, as we sent them. */
static int lacks_families(const struct bgp_caps *sent, struct bgp_fail *f) {
    uint8_t data[12];
    size_t n = 0;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        if (sent->mp[i]) {
            const uint8_t cap[] = {
                1, 4, 0, (uint8_t)bgp_afi((enum bgp_family)i), 0, BGP_SAFI_UNICAST};
            memcpy(data + n, cap, sizeof(cap));
            n += sizeof(cap);
        }
    }
    return bgp_fail_set(f, BGP_E_OPEN, BGP_E_OPEN_CAPABILITY, data, n);
}

static int check_open(const struct speaker *s, const struct peer *p, const struct bgp_open *o,
                      struct bgp_fail *f) {
    uint32_t own = shown_as(s, p);
    if (p->cfg.as ? o->as != p->cfg.as : o->as == own) {
        return bgp_fail_set(f, BGP_E_OPEN, BGP_E_OPEN_AS, NULL, 0);
    }
    if (o->id == s->cfg.router_id && o->as == own) {
        return bgp_fail_set(f, BGP_E_OPEN, BGP_E_OPEN_ID, NULL, 0); /* RFC 6286 section 2.2 */
    }
    bool is_external = o->as != own && !as_is_member(s, o->as);
    if (p->cfg.role != BGP_ROLE_NONE && is_external &&
        (o->caps.role == BGP_ROLE_NONE ? p->cfg.role_strict
                                       : !roles_fit(p->cfg.role, o->caps.role))) {
        return bgp_fail_set(f, BGP_E_OPEN, BGP_E_OPEN_ROLE, NULL, 0);
    }
    bool has_common = p->cfg.no_capabilities;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        has_common = has_common || (p->sent.mp[i] && o->caps.mp[i]);
    }
    return has_common ? 0 : lacks_families(&p->sent, f);
}

/* RFC 4271 section 6.8, 6286 section 2.3: of two connections the one begun by the speaker with the
 * higher identifier (or AS) stays. True: c is that. */
static bool wins(const struct speaker *s, const struct peer *p, const struct conn *c,
                 const struct conn *than, const struct bgp_open *o) {
    if (c->dir == than->dir) {
        return false;
    }
    bool we_are_higher =
        s->cfg.router_id != o->id ? s->cfg.router_id > o->id : shown_as(s, p) > o->as;
    return we_are_higher == (c->dir == OUTGOING);
}

/* True: c goes on. */
static bool resolve_collision(struct speaker *s, struct peer *p, struct conn *c,
                              const struct bgp_open *o) {
    struct conn *old = c == &p->conn[0] ? &p->conn[1] : &p->conn[0];
    struct bgp_fail f;
    (void)bgp_fail_set(&f, BGP_E_CEASE, BGP_E_CEASE_COLLISION, NULL, 0);
    if (old->state == CONN_ESTABLISHED) {
        /* RFC 4724 section 4.2: a peer that restarted comes back on a new connection. */
        if (p->cfg.gr != GR_DISABLED && o->caps.has_gr && old->open.caps.has_gr) {
            conn_drop(s, p, old, NULL);
            session_end(s, p, old, DOWN_LOST, NULL);
            return true;
        }
        conn_drop(s, p, c, &f);
        return false;
    }
    if (old->state != CONN_OPEN_CONFIRM) {
        return true;
    }
    bool stays = wins(s, p, c, old, o);
    conn_drop(s, p, stays ? old : c, &f);
    return stays;
}

static void on_open(struct speaker *s, struct peer *p, struct conn *c, const uint8_t *m, size_t n) {
    struct bgp_open o;
    struct bgp_fail f;
    if (bgp_open_parse(m + BGP_HEADER, n - BGP_HEADER, &o, &f) < 0 ||
        check_open(s, p, &o, &f) < 0) {
        conn_fail(s, p, c, &f);
        return;
    }
    if (!resolve_collision(s, p, c, &o)) {
        peer_update_state(s, p);
        return;
    }
    c->open = o;
    uint16_t ours = p->cfg.hold_s == HOLD_NONE ? 0 : p->cfg.hold_s ? p->cfg.hold_s : 90;
    uint16_t hold = o.hold_s < ours ? o.hold_s : ours;
    uint16_t keepalive =
        p->cfg.keepalive_s && p->cfg.keepalive_s < hold ? p->cfg.keepalive_s : hold / 3;
    c->hold_ns = hold * S_NS;
    c->keepalive_ns = hold ? (keepalive ? keepalive : 1) * S_NS : 0;
    c->hold_at = hold ? s->now + c->hold_ns : INT64_MAX;
    note_timer(s, c->hold_at);
    c->state = CONN_OPEN_CONFIRM;
    struct buf b = BUF_INIT(BGP_HEADER);
    bgp_keepalive_write(&b);
    conn_push_buf(s, p, c, &b);
    buf_fini(&b);
    peer_update_state(s, p);
}

/* ---- Established ---- */

static void negotiate(struct speaker *s, struct peer *p, const struct conn *c) {
    const struct bgp_caps *a = &p->sent, *b = &c->open.caps;
    uint32_t own = shown_as(s, p);
    p->remote_as = c->open.as;
    p->remote_id = c->open.id;
    p->is_ibgp = c->open.as == own;
    p->is_confed = !p->is_ibgp && as_is_member(s, c->open.as);
    p->as4 = a->has_as4 && b->has_as4;
    p->can_refresh = a->has_refresh && b->has_refresh;
    p->can_enhanced = p->can_refresh && a->has_enhanced_refresh && b->has_enhanced_refresh;
    p->extended = a->has_extended_message && b->has_extended_message;
    p->v4_over_v6 = a->has_v4_over_v6 && b->has_v4_over_v6;
    p->peer_gr_n = a->has_gr && b->has_gr && b->gr_notification;
    p->peer_gr_time_s = b->gr_time_s;
    p->role = peer_is_external(p) ? p->cfg.role : BGP_ROLE_NONE;
    p->rx = (struct bgp_rx){.is_internal = p->is_ibgp,
                            .is_confed = p->is_confed || (p->is_ibgp && s->cfg.confederation),
                            .as4 = p->as4,
                            .v4_over_v6 = p->v4_over_v6};
    if (peer_is_external(p) && !p->cfg.no_first_as_check) {
        p->rx.first_as = p->remote_as;
    }
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        struct chan *ch = &p->chan[f];
        ch->is_up = a->has_mp ? a->mp[f] && b->mp[f]
                              : p->cfg.family[f].is_enabled && f == BGP_V4 && b->mp[f];
        ch->addpath_tx = ch->is_up && (a->addpath[f] & BGP_ADDPATH_SEND) &&
                         (b->addpath[f] & BGP_ADDPATH_RECEIVE);
        ch->addpath_rx = ch->is_up && (a->addpath[f] & BGP_ADDPATH_RECEIVE) &&
                         (b->addpath[f] & BGP_ADDPATH_SEND);
        p->rx.mp[f] = ch->is_up;
        p->rx.addpath[f] = ch->addpath_rx;
    }
}

void session_established(struct speaker *s, struct peer *p, struct conn *c) {
    struct conn *old = c == &p->conn[0] ? &p->conn[1] : &p->conn[0];
    if (old->state != CONN_NONE) {
        struct bgp_fail f;
        (void)bgp_fail_set(&f, BGP_E_CEASE, BGP_E_CEASE_COLLISION, NULL, 0);
        conn_drop(s, p, old, &f);
    }
    c->state = CONN_ESTABLISHED;
    p->up = c;
    p->retry_at = p->idle_until = INT64_MAX;
    p->established_at = s->now;
    p->n_established++;
    p->otc_told = false;
    p->reason = "";
    negotiate(s, p, c);
    restart_session_up(s, p, c);
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        struct chan *ch = &p->chan[f];
        ch->eor_in = ch->eor_out = ch->refresh_due = ch->refresh_end_due = false;
        ch->is_refreshing = ch->limit_told = false;
        ch->eor_due = ch->is_up;
        if (ch->is_up) {
            group_join(s, p, (enum bgp_family)f);
        }
    }
    peer_update_state(s, p);
    tell(s, &(struct speaker_event){.kind = EVENT_UP, .peer = p->id});
    conn_wake(s, c);
    if (s->is_deferring) {
        restart_check_defer(s); /* it may be one that is not waited for */
    }
}

static void on_refresh(struct speaker *s, struct peer *p, struct conn *c, const uint8_t *m,
                       size_t n) {
    enum bgp_family family;
    uint8_t subtype;
    struct bgp_fail f;
    int e = bgp_refresh_parse(m, n, p->can_enhanced, &family, &subtype, &f);
    if (e == ERR_INVALID) {
        conn_fail(s, p, c, &f);
        return;
    }
    struct chan *ch = e == 0 ? &p->chan[family] : NULL;
    if (!ch || !ch->is_up) {
        return;
    }
    switch (subtype) {
    case BGP_REFRESH:
        out_restart(s, ch);
        ch->refresh_due = ch->refresh_end_due = p->can_enhanced && !ch->eor_due;
        break;
    case BGP_REFRESH_BEGIN:
        chan_bump(s, p, family);
        ch->is_refreshing = true;
        break;
    case BGP_REFRESH_END:
        if (ch->is_refreshing) {
            ch->is_refreshing = false;
            chan_purge(s, p, family);
        }
        break;
    default:
        break;
    }
}

static void unexpected(struct speaker *s, struct peer *p, struct conn *c, uint8_t type) {
    struct bgp_fail f;
    /* RFC 6608 has no subcode of Connect and Active, in which a delayed OPEN is. */
    unsigned subcode =
        c->delay_at != INT64_MAX ? 0 : (unsigned)c->state - CONN_OPEN_SENT + BGP_E_FSM_OPEN_SENT;
    (void)bgp_fail_set(&f, BGP_E_FSM, (uint8_t)subcode, &type, 1);
    conn_fail(s, p, c, &f);
}

static void on_notification(struct speaker *s, struct peer *p, struct conn *c, const uint8_t *m,
                            size_t n) {
    struct bgp_fail f;
    if (bgp_notification_parse(m + BGP_HEADER, n - BGP_HEADER, &f) < 0) {
        f = (struct bgp_fail){0};
    }
    p->last = f;
    p->last_is_sent = false;
    p->last_at = s->now;
    tell(s, &(struct speaker_event){.kind = EVENT_NOTIFICATION, .peer = p->id, .fail = &f});
    conn_drop(s, p, c, NULL);
    /* A peer that closes one of two colliding connections means just that: the other is there, or
     * about to come. */
    if (f.code == BGP_E_CEASE && f.subcode == BGP_E_CEASE_COLLISION && p->up != c) {
        session_end(s, p, c, DOWN_LOST, NULL);
    } else {
        session_end(s, p, c, DOWN_RECEIVED, &f);
    }
}

static void on_update(struct speaker *s, struct peer *p, const uint8_t *m, size_t n) {
    p->updates_in++;
    import_update(s, p, m + BGP_HEADER, n - BGP_HEADER);
}

void conn_message(struct speaker *s, struct peer *p, struct conn *c, const uint8_t *m, size_t n) {
    uint8_t type = m[18];
    p->msgs_in++;
    if (s->ops->message) {
        s->ops->message(s->user, p->id, false, m, n);
    }
    if (type == BGP_NOTIFICATION) {
        on_notification(s, p, c, m, n);
        return;
    }
    static const bool EXPECTED[CONN_ESTABLISHED + 1][BGP_ROUTE_REFRESH + 1] = {
        [CONN_OPEN_SENT] = {[BGP_OPEN] = true},
        [CONN_OPEN_CONFIRM] = {[BGP_KEEPALIVE] = true},
        [CONN_ESTABLISHED] =
            {[BGP_UPDATE] = true, [BGP_KEEPALIVE] = true, [BGP_ROUTE_REFRESH] = true},
    };
    if (!EXPECTED[c->state][type]) {
        unexpected(s, p, c, type);
        return;
    }
    if (c->hold_ns) {
        c->hold_at = s->now + c->hold_ns;
    }
    switch (type) {
    case BGP_OPEN:
        if (c->delay_at != INT64_MAX) {
            conn_open(s, p, c); /* event 20: now it is ours that is missing */
        }
        on_open(s, p, c, m, n);
        break;
    case BGP_UPDATE:
        on_update(s, p, m, n);
        break;
    case BGP_KEEPALIVE:
        if (c->state == CONN_OPEN_CONFIRM) {
            session_established(s, p, c);
        }
        break;
    case BGP_ROUTE_REFRESH:
        on_refresh(s, p, c, m, n);
        break;
    default:
        break;
    }
}
