/* Life and configuration of the engine and of its peers. See speaker.h. */
#include "bgp/speaker_int.h"

#include "base/hash.h"

const char *bgp_state_name(enum bgp_state s) {
    static const char *const NAMES[] = {"Idle",     "Connect",     "Active",
                                        "OpenSent", "OpenConfirm", "Established"};
    return NAMES[s];
}

uint64_t speaker_random(struct speaker *s) {
    s->random += 0x9e3779b97f4a7c15ULL;
    return hash_u64(s->random);
}

int64_t jitter(struct speaker *s, int64_t t) {
    return t - (int64_t)(speaker_random(s) % (uint64_t)(t / 4 + 1));
}

void note_timer(struct speaker *s, int64_t at) {
    if (at < s->next) {
        s->next = at;
    }
}

void tell(struct speaker *s, const struct speaker_event *e) {
    if (s->ops->event) {
        s->ops->event(s->user, e);
    }
}

static void set_now(struct speaker *s, int64_t now) {
    if (now > s->now) {
        s->now = now;
    }
}

/* ---- the speaker ---- */

static void take_config(struct speaker *s, const struct speaker_config *cfg) {
    free(s->members);
    s->members = NULL;
    s->cfg = *cfg;
    if (cfg->n_members) {
        s->members = malloc(cfg->n_members * sizeof(*s->members));
        mg_assert(s->members != NULL);
        memcpy(s->members, cfg->members, cfg->n_members * sizeof(*s->members));
    }
    s->cfg.members = s->members;
    if (!s->cfg.default_local_pref) {
        s->cfg.default_local_pref = 100;
    }
    s->cfg.max_paths = cfg->max_paths == 0 ? 1 : cfg->max_paths > 64 ? 64 : cfg->max_paths;
    if (!s->cfg.cluster_id) {
        s->cfg.cluster_id = cfg->router_id;
    }
    if (!s->cfg.restart_time_s) {
        s->cfg.restart_time_s = 120;
    } else if (s->cfg.restart_time_s > 4095) {
        s->cfg.restart_time_s = 4095;
    }
    if (!s->cfg.defer_s) {
        s->cfg.defer_s = s->cfg.restart_time_s;
    }
}

static void unwatch(void *user, const struct nexthop *h) {
    struct speaker *s = user;
    if (s->ops->nexthop) {
        s->ops->nexthop(s->user, &h->ip, &h->link_local, 0, false);
    }
}

struct speaker *speaker_new(const struct speaker_config *cfg, const struct speaker_ops *ops,
                            void *user, int64_t now) {
    struct speaker *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->ops = ops;
    s->user = user;
    s->now = now;
    s->next = INT64_MAX;
    take_config(s, cfg);
    s->random = cfg->seed;
    vec_push(&s->peers, NULL);
    s->hops = nexthops_new();
    nexthops_on_unused(s->hops, unwatch, s);
    s->attrs = attr_store_new(s->hops);
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        /* The tables' seed is as secret as the process': prefixes come from strangers. */
        rib_init(&s->rib[f], (enum bgp_family)f,
                 hash_str(str_n((const char *)&s->random, sizeof(s->random))) + (uint64_t)f);
    }
    pool_init(&s->routes, sizeof(struct route));
    pool_init(&s->outs, sizeof(struct out));
    s->scratch = (struct update_scratch)UPDATE_SCRATCH_INIT;
    s->filter_scratch = (struct filter_scratch)FILTER_SCRATCH_INIT;
    s->enc = s->tmp = s->comm = BUF_INIT(1U << 20);
    if (s->cfg.is_restarting) {
        s->is_deferring = true;
        s->defer_until = now + s->cfg.defer_s * S_NS;
        note_timer(s, s->defer_until);
    }
    return s;
}

static void free_conn(struct conn *c) {
    for (size_t i = c->out_at; i < c->out.n; i++) {
        chunk_unref(c->out.p[i]);
    }
    vec_fini(&c->out);
    buf_fini(&c->in);
}

static void free_peer(struct peer *p) {
    free_conn(&p->conn[OUTGOING]);
    free_conn(&p->conn[INCOMING]);
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        bgp_filter_unref(p->cfg.family[f].import);
        bgp_filter_unref(p->cfg.family[f].export);
    }
    free(p->name);
    free(p->text);
    free(p);
}

void speaker_free(struct speaker *s) {
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->groups.n; i++) {
        if (s->groups.p[i]) {
            for (struct cohort *c = s->groups.p[i]->first, *next; c; c = next) {
                next = c->next;
                vec_fini(&c->chans);
                free(c);
            }
            bgp_filter_unref(s->groups.p[i]->filter);
            free(s->groups.p[i]);
        }
    }
    vec_fini(&s->groups);
    for (size_t i = 1; i < s->peers.n; i++) {
        if (s->peers.p[i]) {
            free_peer(s->peers.p[i]);
        }
    }
    vec_fini(&s->peers);
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        rib_fini(&s->rib[f]);
    }
    pool_fini(&s->routes);
    pool_fini(&s->outs);
    attr_store_free(s->attrs);
    nexthops_free(s->hops);
    update_scratch_fini(&s->scratch);
    filter_scratch_fini(&s->filter_scratch);
    buf_fini(&s->enc);
    buf_fini(&s->tmp);
    buf_fini(&s->comm);
    free(s->members);
    free(s);
}

static bool same_identity(const struct speaker_config *a, const struct speaker_config *b) {
    return a->as == b->as && a->router_id == b->router_id && a->cluster_id == b->cluster_id &&
           a->confederation == b->confederation && a->n_members == b->n_members &&
           (!a->n_members ||
            memcmp(a->members, b->members, a->n_members * sizeof(*a->members)) == 0);
}

/* Cease with a subcode and no data, and a new start. */
static void restart_peer(struct speaker *s, struct peer *p, uint8_t subcode) {
    struct bgp_fail f;
    (void)bgp_fail_set(&f, BGP_E_CEASE, subcode, NULL, 0);
    peer_stop(s, p, &f);
    peer_start(s, p);
}

void speaker_configure(struct speaker *s, const struct speaker_config *cfg, int64_t now) {
    set_now(s, now);
    struct speaker_config old = s->cfg;
    uint32_t *old_members = s->members;
    s->members = NULL;
    take_config(s, cfg);
    s->cfg.is_restarting = old.is_restarting; /* only a start can be a restart */
    bool is_same = same_identity(&old, &s->cfg);
    free(old_members);
    for (uint16_t id = 0; !is_same && (id = speaker_peer_next(s, id));) {
        restart_peer(s, peer_at(s, id), BGP_E_CEASE_CONFIG);
    }
    walk_decide(s, BGP_V4);
    walk_decide(s, BGP_V6);
}

/* ---- peers ---- */

uint16_t speaker_peer_find(const struct speaker *s, struct str name) {
    for (uint16_t i = 1; i < s->peers.n; i++) {
        const struct peer *p = s->peers.p[i];
        if (p && !p->is_dead && str_eq(p->cfg.name, name)) {
            return i;
        }
    }
    return 0;
}

const struct peer_config *speaker_peer_config(const struct speaker *s, uint16_t peer) {
    const struct peer *p = peer_at(s, peer);
    return p ? &p->cfg : NULL;
}

uint16_t speaker_peer_next(const struct speaker *s, uint16_t id) {
    for (uint32_t i = (uint32_t)id + 1; i < s->peers.n; i++) {
        if (s->peers.p[i] && !s->peers.p[i]->is_dead) {
            return (uint16_t)i;
        }
    }
    return 0;
}

/* Ids go round, so that one that was freed is not taken again at once. */
static uint16_t free_id(struct speaker *s) {
    if (s->peers.n <= MAX_PEERS) {
        vec_push(&s->peers, NULL);
        return (uint16_t)(s->peers.n - 1);
    }
    for (unsigned k = 1; k <= MAX_PEERS; k++) {
        uint16_t id = (uint16_t)((s->last_id + k - 1) % MAX_PEERS + 1);
        if (!s->peers.p[id]) {
            s->last_id = id;
            return id;
        }
    }
    return 0;
}

static char *copy(struct str t) {
    char *c = malloc(t.n + 1);
    mg_assert(c != NULL);
    if (t.n) {
        memcpy(c, t.p, t.n);
    }
    c[t.n] = 0;
    return c;
}

/* Takes cfg over, with references and strings of its own. */
static void set_cfg(struct peer *p, const struct peer_config *cfg) {
    char *text = copy(cfg->shutdown_text);
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        (void)bgp_filter_ref(cfg->family[f].import);
        (void)bgp_filter_ref(cfg->family[f].export);
        bgp_filter_unref(p->cfg.family[f].import);
        bgp_filter_unref(p->cfg.family[f].export);
    }
    p->cfg = *cfg;
    free(p->text);
    p->text = text;
    p->cfg.shutdown_text = str_c(text);
    p->cfg.name = str_c(p->name);
}

static struct peer *new_peer(struct speaker *s, const struct peer_config *cfg, struct str name) {
    uint16_t id = free_id(s);
    if (!id) {
        return NULL;
    }
    struct peer *p = calloc(1, sizeof(*p));
    mg_assert(p != NULL);
    p->id = id;
    p->name = copy(name);
    set_cfg(p, cfg);
    p->address = cfg->address;
    p->since = s->now;
    p->idle_until = p->retry_at = p->restart_at = INT64_MAX;
    p->reason = "";
    for (int d = 0; d < 2; d++) {
        p->conn[d].in = BUF_INIT(BGP_MAX_EXT);
    }
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        p->chan[f] = (struct chan){
            .peer = id, .family = (uint8_t)f, .stale_at = INT64_MAX, .refresh_at = INT64_MAX};
    }
    s->peers.p[id] = p;
    return p;
}

static bool addr_same(const struct ip46 *a, const struct ip46 *b) {
    return a->family == b->family && (a->family == IP_NONE || ip_eq(a, b));
}

/* What is of the connection or was negotiated: a change needs a new session. */
static bool needs_reset(const struct peer_config *a, const struct peer_config *b) {
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        const struct family_config *x = &a->family[f], *y = &b->family[f];
        if (x->is_enabled != y->is_enabled || x->addpath != y->addpath ||
            x->llgr_time_s != y->llgr_time_s) {
            return true;
        }
    }
    return !addr_same(&a->address, &b->address) || a->ifindex != b->ifindex || a->as != b->as ||
           a->local_as != b->local_as || a->hold_s != b->hold_s ||
           a->keepalive_s != b->keepalive_s || a->role != b->role ||
           a->role_strict != b->role_strict || a->gr != b->gr ||
           a->restart_time_s != b->restart_time_s || a->extended_message != b->extended_message ||
           a->extended_next_hop != b->extended_next_hop || a->no_as4 != b->no_as4 ||
           a->no_refresh != b->no_refresh || a->no_capabilities != b->no_capabilities ||
           a->port != b->port || a->ttl != b->ttl || a->gtsm != b->gtsm ||
           !addr_same(&a->local, &b->local) || a->secret_hash != b->secret_hash;
}

static bool export_differs(const struct peer_config *a, const struct peer_config *b, int f) {
    return !bgp_filter_eq(a->family[f].export, b->family[f].export) ||
           a->family[f].addpath_max != b->family[f].addpath_max ||
           a->is_rr_client != b->is_rr_client || a->is_rs_client != b->is_rs_client ||
           a->cluster_id != b->cluster_id || a->next_hop != b->next_hop ||
           a->remove_private_as != b->remove_private_as || a->require_policy != b->require_policy;
}

static bool import_differs(const struct peer_config *a, const struct peer_config *b, int f) {
    return !bgp_filter_eq(a->family[f].import, b->family[f].import) ||
           a->allow_own_as != b->allow_own_as || a->require_policy != b->require_policy ||
           a->cluster_id != b->cluster_id;
}

/* Policy taken over on a living session. */
static void change_live(struct speaker *s, struct peer *p, const struct peer_config *old) {
    p->rx.first_as = peer_is_external(p) && !p->cfg.no_first_as_check ? p->remote_as : 0;
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        struct chan *c = &p->chan[f];
        if (c->n_routes && import_differs(old, &p->cfg, f)) {
            walk_start(s, p, (enum bgp_family)f, TASK_REIMPORT);
        }
        if (c->is_up && export_differs(old, &p->cfg, f)) {
            group_move(s, p, (enum bgp_family)f);
        }
    }
}

static void apply(struct speaker *s, struct peer *p, const struct peer_config *cfg) {
    struct peer_config old = p->cfg;
    for (int f = 0; f < BGP_N_FAMILIES; f++) { /* kept alive for comparison */
        (void)bgp_filter_ref(old.family[f].import);
        (void)bgp_filter_ref(old.family[f].export);
    }
    bool is_reset = needs_reset(&old, cfg);
    struct bgp_fail f;
    if (is_reset && !cfg->is_shutdown) {
        (void)bgp_fail_set(&f, BGP_E_CEASE, BGP_E_CEASE_CONFIG, NULL, 0);
        peer_stop(s, p, &f);
    }
    set_cfg(p, cfg);
    if (!p->is_dynamic) {
        p->address = cfg->address;
    } else {
        p->cfg.address = p->address;
    }
    if (cfg->is_shutdown) {
        if (!old.is_shutdown) {
            bgp_shutdown_set(&f, BGP_E_CEASE_SHUTDOWN, p->cfg.shutdown_text);
            peer_stop(s, p, &f);
            p->reason = "shut down";
        }
    } else if (is_reset || old.is_shutdown || old.is_passive != cfg->is_passive) {
        peer_start(s, p);
    } else {
        change_live(s, p, &old);
    }
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        bgp_filter_unref(old.family[i].import);
        bgp_filter_unref(old.family[i].export);
    }
}

uint16_t speaker_peer_set(struct speaker *s, const struct peer_config *cfg, int64_t now) {
    set_now(s, now);
    struct peer *p = peer_at(s, speaker_peer_find(s, cfg->name));
    if (!p) {
        p = new_peer(s, cfg, cfg->name);
        if (!p) {
            return 0;
        }
        if (cfg->is_shutdown) {
            p->reason = "shut down";
        } else {
            peer_start(s, p);
        }
        return p->id;
    }
    uint16_t id = p->id;
    apply(s, p, cfg);
    for (uint16_t i = 0; (i = speaker_peer_next(s, i));) {
        struct peer *d = peer_at(s, i);
        if (d->is_dynamic && d->template_id == id) {
            struct peer_config mine = *cfg;
            mine.address = d->address;
            mine.is_passive = true;
            apply(s, d, &mine);
        }
    }
    return id;
}

struct peer *peer_new_dynamic(struct speaker *s, struct peer *from, const struct ip46 *address) {
    unsigned max = from->cfg.max_dynamic ? from->cfg.max_dynamic : 1000;
    if (from->n_dynamic >= max) {
        return NULL;
    }
    char text[IP_TEXT_MAX];
    struct buf name = BUF_INIT(from->cfg.name.n + IP_TEXT_MAX + 1);
    buf_str(&name, from->cfg.name);
    buf_printf(&name, "/%s", ip_text(address, text));
    struct peer_config cfg = from->cfg;
    cfg.address = *address;
    cfg.is_passive = true;
    struct peer *p = new_peer(s, &cfg, buf_view(&name));
    buf_fini(&name);
    if (p) {
        p->is_dynamic = true;
        p->template_id = from->id;
        from->n_dynamic++;
        peer_start(s, p);
        tell(s, &(struct speaker_event){.kind = EVENT_PEER_NEW, .peer = p->id});
    }
    return p;
}

void peer_forget(struct speaker *s, struct peer *p) {
    bool is_bound = p->conn[0].state != CONN_NONE || p->conn[1].state != CONN_NONE;
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        is_bound = is_bound || p->chan[f].n_routes || p->chan[f].group || p->chan[f].tasks;
    }
    if (!p->is_dead || is_bound) {
        return;
    }
    if (p->is_dynamic) {
        struct peer *from = peer_at(s, p->template_id);
        if (from && from->n_dynamic) {
            from->n_dynamic--;
        }
        tell(s, &(struct speaker_event){.kind = EVENT_PEER_GONE, .peer = p->id});
    }
    s->peers.p[p->id] = NULL;
    free_peer(p);
}

static void remove_peer(struct speaker *s, struct peer *p) {
    struct bgp_fail f;
    (void)bgp_fail_set(&f, BGP_E_CEASE, BGP_E_CEASE_DECONFIGURED, NULL, 0);
    peer_stop(s, p, &f);
    p->is_dead = true;
    peer_forget(s, p);
}

bool speaker_peer_del(struct speaker *s, struct str name, int64_t now) {
    set_now(s, now);
    uint16_t id = speaker_peer_find(s, name);
    if (!id) {
        return false;
    }
    for (uint16_t i = 0; (i = speaker_peer_next(s, i));) {
        struct peer *d = peer_at(s, i);
        if (d->is_dynamic && d->template_id == id) {
            d->template_id = 0;
            remove_peer(s, d);
        }
    }
    remove_peer(s, peer_at(s, id));
    return true;
}

void speaker_shutdown(struct speaker *s, struct str text, bool keep_routes, int64_t now) {
    set_now(s, now);
    for (uint16_t id = 0; (id = speaker_peer_next(s, id));) {
        struct peer *p = peer_at(s, id);
        struct bgp_fail f;
        bgp_shutdown_set(&f, BGP_E_CEASE_SHUTDOWN, text);
        /* Who keeps our routes without RFC 8538 does so only if the connection just ends. */
        bool just_ends = keep_routes && p->sent.has_gr && !p->peer_gr_n;
        if (p->up && !keep_routes && p->peer_gr_n) {
            bgp_hard_reset_set(&f);
        }
        peer_stop(s, p, just_ends ? NULL : &f);
        p->reason = "shut down";
    }
}

void speaker_peer_reset(struct speaker *s, uint16_t peer, bool is_hard, struct str text,
                        int64_t now) {
    set_now(s, now);
    struct peer *p = peer_at(s, peer);
    if (!p || p->is_dead || p->cfg.is_shutdown) {
        return;
    }
    struct bgp_fail f;
    bgp_shutdown_set(&f, BGP_E_CEASE_RESET, text);
    if (p->up && is_hard && p->peer_gr_n) {
        bgp_hard_reset_set(&f);
    }
    if (p->up && !is_hard && p->peer_gr_n) {
        conn_fail(s, p, p->up, &f); /* routes stay on both sides (RFC 8538) */
        idle_for(s, p, 0);
        return;
    }
    peer_stop(s, p, &f);
    peer_start(s, p);
}

void speaker_peer_refresh(struct speaker *s, uint16_t peer, int64_t now) {
    set_now(s, now);
    struct peer *p = peer_at(s, peer);
    if (!p || !p->up) {
        return;
    }
    struct buf b = BUF_INIT(BGP_MAX);
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        struct chan *c = &p->chan[f];
        if (c->is_up && p->can_refresh) {
            bgp_refresh_write(&b, (enum bgp_family)f, BGP_REFRESH);
        }
        if (c->is_up) {
            out_restart(s, c);
        }
    }
    if (b.n) {
        conn_push_buf(s, p, p->up, &b);
    }
    buf_fini(&b);
}

void speaker_peer_bfd_down(struct speaker *s, uint16_t peer, int64_t now) {
    set_now(s, now);
    struct peer *p = peer_at(s, peer);
    if (!p || !p->up) {
        return;
    }
    struct bgp_fail f;
    (void)bgp_fail_set(&f, BGP_E_CEASE, BGP_E_CEASE_BFD, NULL, 0);
    conn_fail(s, p, p->up, &f);
    p->reason = "BFD says that the peer is down";
}

void speaker_peer_kick(struct speaker *s, uint16_t peer, int64_t now) {
    set_now(s, now);
    struct peer *p = peer_at(s, peer);
    if (p && !p->up && p->is_started) {
        p->idle_s = 0;
        idle_for(s, p, 0);
    }
}

/* ---- time ---- */

int64_t speaker_deadline(const struct speaker *s) {
    return walk_is_due(s) ? s->now : s->next;
}

/* Timers of all peers; the next is known afterwards. */
static void run_timers(struct speaker *s) {
    s->next = INT64_MAX;
    if (s->is_deferring) {
        restart_check_defer(s);
    }
    if (s->is_deferring) {
        note_timer(s, s->defer_until);
    }
    for (size_t i = 0; i < s->groups.n; i++) {
        if (s->groups.p[i]) {
            group_drop_cache(s, s->groups.p[i]); /* it holds on to attributes of routes gone */
        }
    }
    for (size_t i = 1; i < s->peers.n; i++) {
        struct peer *p = s->peers.p[i];
        if (!p) {
            continue;
        }
        session_timers(s, p);
        restart_timers(s, p);
        note_timer(s, session_next(p));
        note_timer(s, restart_next(p));
        peer_forget(s, p);
    }
}

void speaker_tick(struct speaker *s, int64_t now) {
    set_now(s, now);
    if (s->now >= s->next) {
        run_timers(s);
    }
    if (walk_is_due(s)) {
        walk_run(s, WALK_SLICE);
    }
}

/* ---- next hops ---- */

void speaker_nexthop_set(struct speaker *s, const struct ip46 *ip, const struct ip46 *link_local,
                         bool is_reachable, uint32_t cost, struct str interface, int64_t now) {
    set_now(s, now);
    if (nexthop_set(s->hops, ip, link_local, is_reachable, cost, interface)) {
        walk_decide(s, BGP_V4);
        walk_decide(s, BGP_V6);
    }
}

const struct attr_store *speaker_attrs(const struct speaker *s) {
    return s->attrs;
}
