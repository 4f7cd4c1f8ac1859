/* Graceful restart, as helper (a peer is away and its routes stay) and as the one who restarts
 * (routes are held back until the peers have told theirs), and long-lived stale routes. RFC 4724,
 * 8538, 9494. */
#include "bgp/speaker_int.h"

/* Stale routes live at most this long after the peer is back without End-of-RIB. */
#define EOR_WAIT (300 * S_NS)

void chan_bump(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct chan *c = &p->chan[f];
    if (!c->n_routes) {
        c->n_stale = 0;
        return;
    }
    /* An epoch must not come round while routes of its last turn are there. */
    if (++c->n_bumps >= ROUTE_EPOCHS - 1) {
        uint8_t tasks = c->tasks;
        c->tasks = TASK_PURGE;
        walk_finish(s, p, f);
        c->tasks = tasks & (uint8_t)~TASK_PURGE;
        c->n_bumps = 1;
    }
    c->epoch = (uint8_t)((c->epoch + 1) % ROUTE_EPOCHS);
    c->n_stale = c->n_routes;
}

void chan_purge(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct chan *c = &p->chan[f];
    bool was_kept = c->is_kept;
    c->is_kept = c->is_llgr = false;
    c->stale_at = INT64_MAX;
    c->tasks &= (uint8_t)~TASK_LLGR;
    if (c->n_stale) {
        walk_start(s, p, f, TASK_PURGE);
    }
    if (was_kept) {
        tell(s, &(struct speaker_event){.kind = EVENT_STALE_OVER, .peer = p->id, .family = f});
        peer_check_dynamic(s, p);
    }
}

/* ---- helper ---- */

static void start_llgr(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct chan *c = &p->chan[f];
    c->is_llgr = true;
    c->stale_at = s->now + c->llgr_time_s * S_NS;
    note_timer(s, c->stale_at);
    walk_start(s, p, f, TASK_LLGR);
}

/* The peer was not back in time. */
static void restart_over(struct speaker *s, struct peer *p) {
    p->restart_at = INT64_MAX;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        struct chan *c = &p->chan[i];
        if (!c->is_kept || c->is_llgr) {
            continue;
        }
        if (c->llgr_time_s) {
            start_llgr(s, p, (enum bgp_family)i);
        } else {
            chan_purge(s, p, (enum bgp_family)i);
        }
    }
}

void restart_session_lost(struct speaker *s, struct peer *p, bool keep) {
    bool is_any_kept = false;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        struct chan *c = &p->chan[i];
        bool was_up = c->is_up;
        c->is_up = c->is_refreshing = false;
        c->refresh_at = INT64_MAX;
        if (!c->n_routes) {
            c->is_kept = false;
            continue;
        }
        if (was_up) {
            chan_bump(s, p, (enum bgp_family)i);
        }
        c->is_kept = keep && (c->has_gr || c->llgr_time_s);
        if (!c->is_kept) {
            chan_purge(s, p, (enum bgp_family)i);
        }
        is_any_kept = is_any_kept || c->is_kept;
    }
    if (!is_any_kept) {
        p->restart_at = INT64_MAX;
        return;
    }
    p->restart_at = s->now + p->peer_gr_time_s * S_NS;
    note_timer(s, p->restart_at);
}

void restart_session_up(struct speaker *s, struct peer *p, struct conn *c) {
    const struct bgp_caps *b = &c->open.caps;
    p->restart_at = INT64_MAX;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        struct chan *ch = &p->chan[i];
        bool can_gr = p->cfg.gr != GR_DISABLED && b->has_gr;
        ch->has_gr = ch->is_up && can_gr && b->gr[i];
        uint32_t ours = p->cfg.family[i].llgr_time_s;
        ch->llgr_time_s = ch->is_up && can_gr && b->has_llgr && b->llgr[i] && ours
                              ? (b->llgr_time_s[i] < ours ? b->llgr_time_s[i] : ours)
                              : 0;
        if (!ch->is_kept) {
            continue;
        }
        bool is_forwarding =
            (ch->has_gr && b->gr_forwarding[i]) || (ch->llgr_time_s && b->llgr_forwarding[i]);
        if (!is_forwarding) {
            chan_purge(s, p, (enum bgp_family)i); /* RFC 4724 section 4.2 */
        } else if (!ch->is_llgr) {
            ch->stale_at = s->now + EOR_WAIT;
            note_timer(s, ch->stale_at);
        }
    }
}

void restart_eor(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct chan *c = &p->chan[f];
    if (!c->is_up) {
        return;
    }
    bool is_first = !c->eor_in;
    c->eor_in = true;
    if (c->is_kept) {
        chan_purge(s, p, f);
    }
    if (is_first) {
        tell(s, &(struct speaker_event){.kind = EVENT_EOR, .peer = p->id, .family = f});
    }
    if (s->is_deferring) {
        restart_check_defer(s);
    }
}

void restart_timers(struct speaker *s, struct peer *p) {
    if (s->now >= p->restart_at) {
        restart_over(s, p);
    }
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        if (s->now >= p->chan[i].stale_at) {
            chan_purge(s, p, (enum bgp_family)i);
        }
    }
}

int64_t restart_next(const struct peer *p) {
    int64_t t = p->restart_at;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        t = p->chan[i].stale_at < t ? p->chan[i].stale_at : t;
    }
    return t;
}

/* ---- the one who restarts ---- */

/* RFC 4724 section 4.1: who restarts himself, or knows no End-of-RIB, is not waited for. */
static bool is_waited_for(const struct peer *p) {
    if (!p->is_started) {
        return false;
    }
    if (!p->up) {
        return true;
    }
    const struct bgp_caps *b = &p->up->open.caps;
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        if (p->chan[i].is_up && b->has_gr && b->gr[i] && !b->gr_restarted && !p->chan[i].eor_in) {
            return true;
        }
    }
    return false;
}

void restart_check_defer(struct speaker *s) {
    for (size_t i = 1; s->now < s->defer_until && i < s->peers.n; i++) {
        if (s->peers.p[i] && is_waited_for(s->peers.p[i])) {
            return;
        }
    }
    s->is_deferring = false;
    s->ready_due = true;
    walk_decide(s, BGP_V4);
    walk_decide(s, BGP_V6);
}
