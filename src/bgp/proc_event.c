/* What the engine tells: the log, BFD sessions that come and go with BGP's, and the end of a
 * restart. */
#include "bgp/proc_int.h"

#include <stdlib.h>

static struct str name_of(const struct bgp_proc *p, uint16_t peer) {
    const struct peer_config *c = peer ? speaker_peer_config(p->speaker, peer) : NULL;
    return c ? c->name : STR("");
}

static void log_fail(const struct bgp_proc *p, const struct speaker_event *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    struct str said = e->fail ? bgp_shutdown_text(e->fail) : STR_NULL;
    if (e->fail) {
        bgp_fail_name(&b, e->fail->code, e->fail->subcode);
    }
    LOG_I("bgp", e->kind == EVENT_DOWN ? "session_down" : "notification", "peer=%s %s=%s text=%s",
          log_quote(name_of(p, e->peer)), e->is_sent ? "sent" : "received",
          e->fail ? log_quote(buf_view(&b)) : "\"connection lost\"",
          log_quote(said.n ? said : str_c(e->text ? e->text : "")));
}

static void ask_bfd(struct bgp_proc *p, uint16_t peer, bool is_up) {
    if (p->n_bfd_asks == p->cap_bfd_asks) {
        p->bfd_asks =
            vec_grow(p->bfd_asks, &p->cap_bfd_asks, p->n_bfd_asks + 1, sizeof(*p->bfd_asks));
    }
    p->bfd_asks[p->n_bfd_asks].peer = peer;
    p->bfd_asks[p->n_bfd_asks++].is_up = is_up;
    loop_defer_ask(p->defer);
}

void proc_bfd_ask(struct bgp_proc *p, uint16_t peer) {
    ask_bfd(p, peer, true);
}

static void on_gone(struct bgp_proc *p, uint16_t peer) {
    struct peer_state *st = proc_peer(p, peer);
    if (st) {
        bfd_io_del(p->bfd, st->bfd);
        (void)peer_map_del(&p->peers, peer);
    }
}

/* A dynamic neighbour has the options of its range. */
static void on_new(struct bgp_proc *p, uint16_t peer) {
    const struct peer_config *c = speaker_peer_config(p->speaker, peer);
    struct peer_state *st = peer_map_put(&p->peers, peer, NULL);
    for (size_t i = 0; p->conf && i < p->conf->n_peers; i++) {
        const struct conf_peer *conf = &p->conf->peers[i];
        if (conf->c.range.ip.family && prefix_has_ip(&conf->c.range, &c->address)) {
            st->conf = conf;
        }
    }
}

void proc_on_event(void *user, const struct speaker_event *e) {
    struct bgp_proc *p = user;
    static const char *const FAMILIES[] = {"IPv4", "IPv6"};
    const char *name = log_quote(name_of(p, e->peer));
    bgp_monitor_event(p->monitor, e);
    switch (e->kind) {
    case EVENT_STATE:
        LOG_D("bgp", "session_state", "peer=%s from=%s to=%s", name, bgp_state_name(e->old),
              bgp_state_name(e->state));
        return;
    case EVENT_UP:
        LOG_I("bgp", "session_up", "peer=%s", name);
        ask_bfd(p, e->peer, true);
        return;
    case EVENT_DOWN:
        log_fail(p, e);
        ask_bfd(p, e->peer, false);
        return;
    case EVENT_NOTIFICATION:
        log_fail(p, e);
        return;
    case EVENT_UPDATE_ERROR:
        LOG_W("bgp", "update_error", "peer=%s prefixes=%u text=%s", name, e->n,
              log_quote(str_c(e->text ? e->text : "")));
        return;
    case EVENT_EOR:
        LOG_D("bgp", "end_of_rib", "peer=%s family=%s", name, FAMILIES[e->family]);
        return;
    case EVENT_STALE_OVER:
        LOG_I("bgp", "stale_routes_dropped", "peer=%s routes=%u", name, e->n);
        return;
    case EVENT_LIMIT:
        LOG_W("bgp", "max_prefixes", "peer=%s family=%s prefixes=%u", name, FAMILIES[e->family],
              e->n);
        return;
    case EVENT_ROLE:
        LOG_W("bgp", "leak_rejected", "peer=%s text=%s", name,
              log_quote(str_c(e->text ? e->text : "")));
        return;
    case EVENT_PEER_NEW:
        LOG_I("bgp", "neighbour_new", "peer=%s", name);
        on_new(p, e->peer);
        return;
    case EVENT_PEER_GONE:
        LOG_I("bgp", "neighbour_gone", "peer=%s", name);
        on_gone(p, e->peer);
        return;
    case EVENT_READY:
        p->is_ready_asked = true;
        loop_defer_ask(p->defer);
        return;
    }
}

/* ---- BFD ---- */

void proc_bfd_on_state(void *arg, void *user, const struct bfd_status *s, bool is_failure) {
    struct bgp_proc *p = arg;
    uint16_t peer = (uint16_t)(uintptr_t)user;
    LOG_I("bgp", "bfd_state", "peer=%s state=%s diagnostic=\"%s\"", log_quote(name_of(p, peer)),
          bfd_state_name(s->state), bfd_diag_name(s->diag));
    if (is_failure) {
        speaker_peer_bfd_down(p->speaker, peer, proc_now(p));
        bgp_proc_kick(p);
    }
}

/* Is the peer on one of our networks (RFC 5881) or further away (5883)? */
static bool is_multihop(const struct bgp_proc *p, const struct ip46 *peer,
                        const struct ip46 *local) {
    if (ip_is_link_local(peer)) {
        return false;
    }
    for (int f = 0; f < BGP_N_FAMILIES && p->conf; f++) {
        if (ip_eq(&p->conf->node[f].ip, local) && p->conf->node[f].len < ip_bits(local)) {
            return !prefix_has_ip(&p->conf->node[f], peer);
        }
    }
    return !(p->kernel && bgp_kernel_is_connected(p->kernel, peer));
}

static void bfd_start(struct bgp_proc *p, uint16_t peer) {
    struct peer_state *st = proc_peer(p, peer);
    const struct peer_config *c = speaker_peer_config(p->speaker, peer);
    struct err e;
    if (!st || !st->conf || !st->conf->has_bfd || !c || st->bfd) {
        return;
    }
    struct bfd_config b = st->conf->bfd;
    b.peer = c->address;
    b.local = st->local;
    b.is_multihop = is_multihop(p, &b.peer, &b.local);
    b.ifindex = b.is_multihop ? 0 : st->ifindex;
    st->bfd = bfd_io_add(p->bfd, &b, (void *)(uintptr_t)peer, &e);
    if (!st->bfd) {
        LOG_W("bgp", "bfd_failed", "peer=%s error=%s", log_quote(c->name), log_quote(str_c(e.msg)));
    }
}

void proc_bfd_serve(struct bgp_proc *p) {
    for (size_t i = 0; i < p->n_bfd_asks; i++) {
        uint16_t peer = p->bfd_asks[i].peer;
        struct peer_state *st = proc_peer(p, peer);
        if (st && !p->bfd_asks[i].is_up) {
            bfd_io_del(p->bfd, st->bfd);
            st->bfd = NULL;
        } else if (st) {
            bfd_start(p, peer);
        }
    }
    p->n_bfd_asks = 0;
}

bool bgp_proc_bfd(const struct bgp_proc *p, uint16_t peer, struct bfd_status *out) {
    const struct peer_state *st = proc_peer(p, peer);
    if (!st || !st->bfd) {
        return false;
    }
    bfd_status_get(st->bfd, out);
    return true;
}
