/* The speaker's process: what a new configuration changes, time, and how the parts are wired. */
#include "base/clock.h"
#include "bgp/proc_int.h"

#include <stdlib.h>
#include <sys/random.h>

enum {
    LISTEN_RETRY_MS = 5000,
    /* RFC 4724 section 4.1 does not wait for peers that restart themselves. When a whole cluster
     * comes back at once, what they had to say follows within this time. */
    BOTH_RESTARTED_MS = 5000,
};

int64_t proc_now(const struct bgp_proc *p) {
    return loop_now_ns(p->loop);
}

static void on_timer(void *arg) {
    struct bgp_proc *p = arg;
    if (p->speaker) {
        speaker_tick(p->speaker, proc_now(p));
        bgp_proc_kick(p);
    }
}

void bgp_proc_kick(struct bgp_proc *p) {
    if (!p->speaker) {
        return;
    }
    if (p->wakes.n || p->failed.n || p->n_bfd_asks || p->is_ready_asked) {
        loop_defer_ask(p->defer);
    }
    int64_t at = speaker_deadline(p->speaker);
    if (at == INT64_MAX) {
        loop_timer_stop(p->timer);
        return;
    }
    int64_t wait = at - proc_now(p);
    loop_timer_start(p->timer, wait > 0 ? (wait + 999999) / 1000000 : 0, 0);
}

static bool has_restarting_peer(const struct bgp_proc *p) {
    for (uint16_t id = 0; (id = speaker_peer_next(p->speaker, id));) {
        struct peer_status st;
        if (speaker_peer_status(p->speaker, id, &st) && st.state == BGP_ESTABLISHED &&
            st.received.has_gr && st.received.gr_restarted) {
            return true;
        }
    }
    return false;
}

/* What a predecessor left in the kernel and nobody asked for goes. */
static void on_ready_timer(void *arg) {
    struct bgp_proc *p = arg;
    LOG_I("bgp", "ready", "routes_of_a_predecessor=%s",
          p->kernel && bgp_kernel_has_leftovers(p->kernel) ? "checked" : "none");
    if (p->kernel) {
        bgp_kernel_ready(p->kernel);
        bgp_proc_kick(p);
    }
}

static void on_defer(void *arg) {
    struct bgp_proc *p = arg;
    if (!p->speaker) {
        return;
    }
    proc_serve(p);
    proc_bfd_serve(p);
    if (p->is_ready_asked) {
        p->is_ready_asked = false;
        loop_timer_start(p->ready_timer, has_restarting_peer(p) ? BOTH_RESTARTED_MS : 0, 0);
    }
    bgp_proc_kick(p);
}

static void on_listen_timer(void *arg) {
    struct bgp_proc *p = arg;
    struct err e;
    if (proc_listen(p, &e) < 0) {
        LOG_W("bgp", "listen_failed", "error=%s", log_quote(str_c(e.msg)));
        loop_timer_start(p->listen_timer, LISTEN_RETRY_MS, 0);
    }
}

/* ---- the kernel's side ---- */

static void on_originate(void *arg, const struct local_route *r) {
    struct bgp_proc *p = arg;
    speaker_originate(p->speaker, r, proc_now(p));
    bgp_proc_kick(p);
}

static void on_withdraw(void *arg, const struct prefix *prefix, enum route_source source) {
    struct bgp_proc *p = arg;
    (void)speaker_withdraw(p->speaker, prefix, source, proc_now(p));
    bgp_proc_kick(p);
}

static void on_nexthop(void *arg, const struct ip46 *ip, const struct ip46 *link_local,
                       bool is_reachable, uint32_t cost, struct str interface) {
    struct bgp_proc *p = arg;
    speaker_nexthop_set(p->speaker, ip, link_local, is_reachable, cost, interface, proc_now(p));
    bgp_proc_kick(p);
}

static void set_peer(struct bgp_proc *p, const struct conf_peer *conf);

/* Peers that are named with this interface can be tried, or are gone. */
static void on_link(void *arg, int ifindex, struct str name, bool is_up) {
    struct bgp_proc *p = arg;
    (void)ifindex;
    for (size_t i = 0; p->conf && i < p->conf->n_peers; i++) {
        const struct conf_peer *c = &p->conf->peers[i];
        if (c->interface.n && str_eq(c->interface, name)) {
            if (is_up) {
                set_peer(p, c); /* its number may be new */
            }
            uint16_t peer = speaker_peer_find(p->speaker, c->c.name);
            if (peer) {
                speaker_peer_kick(p->speaker, peer, proc_now(p));
            }
        }
    }
    bgp_proc_kick(p);
}

/* ---- configuration ---- */

static void set_peer(struct bgp_proc *p, const struct conf_peer *conf) {
    struct peer_config c = conf->c;
    if (conf->interface.n && p->kernel) {
        c.ifindex = (uint32_t)bgp_kernel_ifindex(p->kernel, conf->interface);
    }
    c.secret_hash = conf->password.n ? hash_str(conf->password) | 1 : 0;
    uint16_t id = speaker_peer_set(p->speaker, &c, proc_now(p));
    if (!id) {
        LOG_E("bgp", "too_many_peers", "peer=%.*s", STR_FMT(conf->session));
        return;
    }
    struct peer_state *st = peer_map_put(&p->peers, id, NULL);
    st->conf = conf;
    if (c.ifindex) {
        st->ifindex = (int)c.ifindex;
    }
}

static bool is_wanted(const struct bgp_conf *c, struct str name) {
    for (size_t i = 0; i < c->n_peers; i++) {
        if (str_eq(c->peers[i].c.name, name)) {
            return true;
        }
    }
    return false;
}

static void remove_peers(struct bgp_proc *p, const struct bgp_conf *conf) {
    struct arena a = {0};
    VEC(struct str) gone = {0};
    VEC(uint16_t) ids = {0};
    for (uint16_t id = 0; (id = speaker_peer_next(p->speaker, id));) {
        struct peer_status st;
        const struct peer_config *c = speaker_peer_config(p->speaker, id);
        if (speaker_peer_status(p->speaker, id, &st) && !st.is_dynamic &&
            !is_wanted(conf, c->name)) {
            vec_push(&gone, arena_dup(&a, c->name));
            vec_push(&ids, id);
            struct peer_state *state = proc_peer(p, id);
            if (state) {
                bfd_io_del(p->bfd, state->bfd);
                (void)peer_map_del(&p->peers, id);
            }
        }
    }
    for (size_t i = 0; i < gone.n; i++) {
        (void)speaker_peer_del(p->speaker, gone.p[i], proc_now(p));
        bgp_monitor_forget(p->monitor, ids.p[i]);
    }
    vec_fini(&gone);
    vec_fini(&ids);
    arena_fini(&a);
}

/* What is known of each peer is of the new configuration now. Ranges' neighbours keep their
 * sessions; their options are the new ones. */
static void adopt_peers(struct bgp_proc *p, const struct bgp_conf *conf) {
    uint32_t id;
    struct peer_state *st;
    for (size_t i = 0; peer_map_next(&p->peers, &i, &id, &st);) {
        const struct peer_config *c = speaker_peer_config(p->speaker, (uint16_t)id);
        const struct conf_peer *was = st->conf;
        st->conf = NULL;
        for (size_t j = 0; c && j < conf->n_peers; j++) {
            const struct conf_peer *n = &conf->peers[j];
            if (str_eq(n->c.name, c->name) ||
                (!st->conf && n->c.range.ip.family && prefix_has_ip(&n->c.range, &c->address))) {
                st->conf = n;
            }
        }
        if (was && st->conf) {
            proc_keys_change(p, (uint16_t)id, &was->ao, &st->conf->ao);
        }
    }
}

/* BFD of sessions that are up already. */
static void update_bfd(struct bgp_proc *p) {
    uint32_t id;
    struct peer_state *st;
    for (size_t i = 0; peer_map_next(&p->peers, &i, &id, &st);) {
        struct peer_status s;
        bool is_up = speaker_peer_status(p->speaker, (uint16_t)id, &s) &&
                     s.state == BGP_ESTABLISHED && st->conf && st->conf->has_bfd;
        if (st->bfd && !is_up) {
            bfd_io_del(p->bfd, st->bfd);
            st->bfd = NULL;
        } else if (st->bfd) {
            struct bfd_config c = *bfd_config_of(st->bfd);
            c.min_rx_us = st->conf->bfd.min_rx_us;
            c.min_tx_us = st->conf->bfd.min_tx_us;
            c.multiplier = st->conf->bfd.multiplier;
            bfd_io_change(p->bfd, st->bfd, &c);
        } else if (is_up) {
            proc_bfd_ask(p, (uint16_t)id);
        }
    }
}

static void originate_static(struct bgp_proc *p, const struct bgp_conf *c,
                             const struct conf_route *r) {
    uint32_t priority = c->priority[r->prefix.ip.family == IP_V6];
    struct local_route l = {.prefix = r->prefix, .source = ROUTE_STATIC};
    l.attrs.origin = ORIGIN_IGP;
    l.attrs.has = HAS_LOCAL_PREF;
    l.attrs.local_pref = BGP_PRIORITY_BASE - priority;
    speaker_originate(p->speaker, &l, proc_now(p));
}

/* Both lists are sorted by prefix. */
static void update_routes(struct bgp_proc *p, const struct bgp_conf *old,
                          const struct bgp_conf *new) {
    size_t i = 0, j = 0, n_old = old ? old->n_routes : 0;
    bool anew = !old || old->priority[BGP_V4] != new->priority[BGP_V4] ||
                old->priority[BGP_V6] != new->priority[BGP_V6];
    while (i < n_old || j < new->n_routes) {
        int c = i == n_old           ? 1
                : j == new->n_routes ? -1
                                     : prefix_cmp(&old->routes[i].prefix, &new->routes[j].prefix);
        if (c < 0) {
            (void)speaker_withdraw(p->speaker, &old->routes[i++].prefix, ROUTE_STATIC, proc_now(p));
        } else if (c > 0) {
            originate_static(p, new, &new->routes[j++]);
        } else {
            if (anew) {
                originate_static(p, new, &new->routes[j]);
            }
            i++;
            j++;
        }
    }
}

static void log_problems(const struct bgp_conf *old, const struct bgp_conf *new) {
    for (size_t i = 0; i < new->n_problems; i++) {
        bool is_known = false;
        for (size_t j = 0; old && j < old->n_problems; j++) {
            is_known = is_known || str_eq(old->problems[j], new->problems[i]);
        }
        if (!is_known) {
            LOG_W("bgp", "configuration", "problem=%s", log_quote(new->problems[i]));
        }
    }
}

static void start(struct bgp_proc *p, struct speaker_config *c) {
    ssize_t got = getrandom(&c->seed, sizeof(c->seed), 0);
    mg_assert(got == (ssize_t)sizeof(c->seed));
    c->is_restarting = p->kernel && bgp_kernel_has_leftovers(p->kernel);
    static struct speaker_ops no_kernel;
    no_kernel = proc_ops;
    no_kernel.route = NULL;
    no_kernel.nexthop = NULL;
    p->speaker = speaker_new(c, p->kernel ? &proc_ops : &no_kernel, p, proc_now(p));
    p->is_ready_asked = !c->is_restarting; /* else the engine says when */
}

int bgp_proc_apply(struct bgp_proc *p, struct bgp_conf *take_conf, struct err *e) {
    struct bgp_conf *old = p->conf, *new = take_conf;
    log_problems(old, new);
    if (!p->speaker) {
        start(p, &new->speaker);
    } else {
        speaker_configure(p->speaker, &new->speaker, proc_now(p));
    }
    p->conf = new;
    bgp_monitor_configure(p->monitor, p->speaker, new);
    int r = proc_listen(p, e);
    if (r < 0 && !old) {
        return r; /* p owns the conf */
    }
    if (r < 0) {
        LOG_W("bgp", "listen_failed", "error=%s", log_quote(str_c(e->msg)));
        loop_timer_start(p->listen_timer, LISTEN_RETRY_MS, 0);
    }
    adopt_peers(p, new);
    remove_peers(p, new);
    update_routes(p, old, new);
    if (p->kernel) {
        bgp_kernel_configure(p->kernel, new);
    }
    for (size_t i = 0; i < new->n_peers; i++) {
        set_peer(p, &new->peers[i]);
    }
    update_bfd(p);
    bgp_conf_free(old);
    p->applied_wall_ns = clock_wall_ns();
    LOG_I("bgp", "configured", "as=%u peers=%zu routes=%zu problems=%zu", new->speaker.as,
          new->n_peers, new->n_routes, new->n_problems);
    bgp_proc_kick(p);
    return 0;
}

/* ---- life ---- */

int bgp_proc_new(struct loop *l, const struct bgp_proc_options *o, struct bgp_proc **out,
                 struct err *e) {
    static const struct kernel_ops kernel_ops = {on_originate, on_withdraw, on_nexthop, on_link};
    struct bgp_proc *p = calloc(1, sizeof(*p));
    mg_assert(p);
    p->loop = l;
    p->o = *o;
    p->started_wall_ns = clock_wall_ns();
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        p->listeners[f].fd = -1;
    }
    p->timer = loop_timer_new(l, on_timer, p);
    p->listen_timer = loop_timer_new(l, on_listen_timer, p);
    p->ready_timer = loop_timer_new(l, on_ready_timer, p);
    p->defer = loop_defer_new(l, on_defer, p);
    p->bfd = bfd_io_new(l, proc_bfd_on_state, p);
    p->monitor = bgp_monitor_new(l);
    if (!o->no_kernel) {
        int r = bgp_kernel_new(l, &kernel_ops, p, o->is_alone, &p->kernel, e);
        if (r < 0) {
            bgp_proc_free(p);
            return r;
        }
    }
    *out = p;
    return 0;
}

void bgp_proc_free(struct bgp_proc *p) {
    uint32_t id;
    struct peer_state *st;
    if (!p) {
        return;
    }
    for (size_t i = 0; peer_map_next(&p->peers, &i, &id, &st);) {
        if (st->bfd) {
            bfd_io_del(p->bfd, st->bfd);
        }
    }
    if (p->kernel && p->conf) {
        bgp_kernel_flush(p->kernel);
    }
    proc_conns_free(p);
    speaker_free(p->speaker);
    bgp_kernel_free(p->kernel);
    bfd_io_free(p->bfd);
    bgp_monitor_free(p->monitor);
    loop_timer_free(p->timer);
    loop_timer_free(p->listen_timer);
    loop_timer_free(p->ready_timer);
    loop_defer_free(p->defer);
    peer_map_fini(&p->peers);
    free(p->bfd_asks);
    bgp_conf_free(p->conf);
    free(p);
}

struct speaker *bgp_proc_speaker(const struct bgp_proc *p) {
    return p->speaker;
}
struct bgp_monitor *bgp_proc_monitor(const struct bgp_proc *p) {
    return p->monitor;
}
struct bgp_kernel *bgp_proc_kernel(const struct bgp_proc *p) {
    return p->kernel;
}
const struct bgp_conf *bgp_proc_conf(const struct bgp_proc *p) {
    return p->conf;
}
const struct conf_peer *bgp_proc_peer(const struct bgp_proc *p, uint16_t peer) {
    const struct peer_state *st = proc_peer(p, peer);
    return st ? st->conf : NULL;
}
int64_t bgp_proc_started_wall_ns(const struct bgp_proc *p) {
    return p->started_wall_ns;
}
int64_t bgp_proc_applied_wall_ns(const struct bgp_proc *p) {
    return p->applied_wall_ns;
}
