/* Host side of pods' interfaces. See links.h. What the kernel has is followed by its own events, in
 * order, so each interface's observed state is right at the end of a batch of events; only then it
 * is compared with what should be. Own writes come back as events, too: after each write they are
 * taken in at once. */
#include "dataplane/links_int.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define REPAIRS_A_WINDOW 8
#define WINDOW_NS ((int64_t)10 * 1000000000)
#define RETRY_MS 1000
#define TARGETED_MAX 16 /* more interfaces than that at once: read everything instead */

/* ---- observed state ---- */

static void forget_routes(struct links_entry *e) {
    for (size_t i = 0; i < e->nets.n; i++) {
        e->nets.p[i].has_route = e->nets.p[i].has_neigh = false;
    }
    vec_clear(&e->stale);
}

void links_set_index(struct links *l, struct links_entry *e, int index) {
    if (e->link.index != index) {
        if (e->link.index) {
            (void)links_by_index_del(&l->by_index, e->link.index);
        }
        if (index) {
            *links_by_index_put(&l->by_index, index, NULL) = e;
        }
        e->link.index = index;
        forget_routes(e);
    }
}

static void touch(struct links *l, struct links_entry *e) {
    if (!e->is_touched) {
        e->is_touched = true;
        vec_push(&l->touched, e);
    }
}

void links_observe_link(struct links *l, struct links_entry *e, const struct link *k) {
    links_set_index(l, e, k->index);
    e->link = *k;
    if (!(k->flags & IFF_UP)) {
        forget_routes(e); /* the kernel drops them, IPv4's without a word */
    }
}

static void on_link(void *arg, const struct link *k, bool is_gone) {
    struct links *l = arg;
    struct links_entry **by_index = links_by_index_get(&l->by_index, k->index);
    if (by_index && (is_gone || strcmp((*by_index)->name, k->name) != 0)) {
        touch(l, *by_index);
        links_set_index(l, *by_index, 0);
    }
    struct links_entry **e = links_by_name_get(&l->by_name, str_c(k->name));
    if (e && !is_gone) {
        links_observe_link(l, *e, k);
        touch(l, *e);
    }
}

bool links_is_ours(const struct links *l, const struct links_entry *e, const struct route *r) {
    return r->oif == e->link.index && r->protocol == l->proto && r->type == RTN_UNICAST &&
           !r->via.family && !r->is_multipath &&
           (r->dst.ip.family == IP_V6 || r->scope == RT_SCOPE_LINK);
}

/* Routes of one destination differ by metric; ours have the kernel's default. */
bool links_is_our_metric(const struct route *r) {
    return r->metric == (r->dst.ip.family == IP_V4 ? 0 : 1024);
}

struct links_net *links_find_net(struct links_entry *e, const struct prefix *p) {
    for (size_t i = 0; i < e->nets.n; i++) {
        if (prefix_eq(&e->nets.p[i].net, p)) {
            return &e->nets.p[i];
        }
    }
    return NULL;
}

static void on_route(void *arg, const struct route *r, bool is_gone) {
    struct links *l = arg;
    if (r->table != RT_TABLE_MAIN || !links_is_our_metric(r)) {
        return;
    }
    struct links_entry **e = links_owners_get(&l->owners, r->dst);
    struct links_net *n = e && (*e)->link.index ? links_find_net(*e, &r->dst) : NULL;
    if (n && (!is_gone || r->oif == (*e)->link.index)) {
        n->has_route = !is_gone && links_is_ours(l, *e, r);
        n->had_route |= n->has_route;
        touch(l, *e);
    }
}

static void on_neigh(void *arg, const struct neigh *k, bool is_gone) {
    struct links *l = arg;
    struct links_entry **e = links_by_index_get(&l->by_index, k->index);
    struct prefix p = {.ip = k->ip, .len = (uint8_t)ip_bits(&k->ip)};
    struct links_net *n = e ? links_find_net(*e, &p) : NULL;
    if (n) {
        n->has_neigh = !is_gone && k->is_permanent && k->has_mac && (*e)->has_pod_mac &&
                       memcmp(k->mac, (*e)->pod_mac, 6) == 0;
        touch(l, *e);
    }
}

static void on_netconf(void *arg, const struct nl_netconf *c) {
    struct links *l = arg;
    struct links_entry **e = links_by_index_get(&l->by_index, c->index);
    if (e) {
        struct link_conf *has = &(*e)->link.conf;
        int32_t *forwarding = c->family == IP_V4 ? &has->v4_forwarding : &has->v6_forwarding;
        int32_t *proxy = c->family == IP_V4 ? &has->v4_proxy_arp : &has->v6_proxy_ndp;
        *forwarding = c->forwarding == LINK_CONF_UNKNOWN ? *forwarding : c->forwarding;
        *proxy = c->proxy_neigh == LINK_CONF_UNKNOWN ? *proxy : c->proxy_neigh;
        touch(l, *e);
    }
}

int links_apply(struct links *l, struct str iface, struct err *err) {
    struct links_entry **p = links_by_name_get(&l->by_name, iface);
    if (!p) {
        return err_set(err, ERR_NOT_FOUND, "interface %.*s is not known", STR_FMT(iface));
    }
    struct links_entry *e = *p;
    e->is_new = false;
    int r = links_look(l, e, err);
    if (r == 0) {
        r = links_fix(l, e, false, err);
        e->was_right = links_wrongs(l, e) == 0;
        nl_monitor_drain(l->monitor);
    }
    return r;
}

/* ---- repair ---- */

static void retry_later(struct links *l, struct links_entry *e) {
    e->is_delayed = true;
    if (!l->is_timing) {
        l->is_timing = true;
        loop_timer_start(l->timer, RETRY_MS, 0);
    }
}

/* At most REPAIRS_A_WINDOW at once, then one a second: whoever undoes our work without end must not
 * keep us busy. */
static bool may_repair(struct links *l, struct links_entry *e) {
    int64_t now = clock_ns();
    if (now - e->window_ns >= WINDOW_NS) {
        e->window_ns = now;
        e->n_repairs = 0;
    }
    if (e->n_repairs++ < REPAIRS_A_WINDOW) {
        return true;
    }
    if (e->n_repairs == REPAIRS_A_WINDOW + 1) {
        l->stats.fights++;
        LOG_W("links", "fight", "iface=%s somebody changes it again and again", e->name);
    }
    return false;
}

static void repair(struct links *l, struct links_entry *e, bool is_due) {
    if (e->is_delayed && !is_due) {
        return;
    }
    if (links_wrongs(l, e) && (is_due || may_repair(l, e))) {
        struct err err = {0};
        bool was_there = e->was_right;
        int r = links_fix(l, e, was_there, &err);
        if (r == -ENODEV) {
            links_set_index(l, e, 0); /* gone since; the event that says so is on its way */
        } else if (r < 0) {
            if (log_allow(&l->log, 20, 10)) {
                LOG_W("links", "failed", "iface=%s %s", e->name, log_quote(str_c(err.msg)));
            }
            retry_later(l, e);
        }
    } else if (links_wrongs(l, e)) {
        retry_later(l, e);
    }
    e->was_right = e->link.index && !links_wrongs(l, e);
}

static void on_batch_end(void *arg) {
    struct links *l = arg;
    while (l->touched.n) {
        struct links_entry *e = l->touched.p[--l->touched.n];
        e->is_touched = false;
        if (!e->is_new) {
            repair(l, e, false);
        }
    }
}

static void on_timer(void *arg) {
    struct links *l = arg;
    l->is_timing = false;
    if (l->wants_sync) {
        loop_defer_ask(l->defer);
        return;
    }
    size_t i = 0;
    struct links_entry **e;
    while (links_by_name_next(&l->by_name, &i, NULL, &e)) {
        if ((*e)->is_delayed) {
            (*e)->is_delayed = false;
            repair(l, *e, true);
        }
    }
}

/* ---- everything at once ---- */

static int sync_link(void *arg, const struct link *k) {
    struct links *l = arg;
    struct links_entry **e = links_by_name_get(&l->by_name, str_c(k->name));
    if (e) {
        links_observe_link(l, *e, k);
        (*e)->is_seen = true;
    }
    return 0;
}

static int sync_route(void *arg, const struct route *r) {
    struct links *l = arg;
    struct links_entry **on = r->oif ? links_by_index_get(&l->by_index, r->oif) : NULL;
    on_route(l, r, false);
    if (on && links_is_whole(&r->dst) && links_is_our_metric(r) && links_is_ours(l, *on, r) &&
        !links_find_net(*on, &r->dst)) {
        vec_push(&(*on)->stale, r->dst);
    }
    return 0;
}

static int sync_neigh(void *arg, const struct neigh *n) {
    on_neigh(arg, n, false);
    return 0;
}

int links_sync(struct links *l, struct err *err) {
    size_t i = 0, n_wrong = 0;
    struct links_entry **e;
    nl_monitor_drain(l->monitor); /* older than what is read now */
    while (links_by_name_next(&l->by_name, &i, NULL, &e)) {
        (*e)->is_seen = false;
        forget_routes(*e);
    }
    int r = link_dump(l->nl, sync_link, l, err);
    for (i = 0; r == 0 && links_by_name_next(&l->by_name, &i, NULL, &e);) {
        if (!(*e)->is_seen) {
            links_set_index(l, *e, 0);
        }
    }
    if (r == 0 && l->by_index.n) {
        r = route_dump(l->nl, &(struct route_filter){0}, sync_route, l, err);
    }
    if (r == 0 && l->by_index.n) {
        r = neigh_dump(l->nl, 0, sync_neigh, l, err);
    }
    l->wants_sync = r < 0;
    if (r < 0) {
        return r;
    }
    l->has_synced = true;
    for (i = 0; links_by_name_next(&l->by_name, &i, NULL, &e);) {
        (*e)->is_new = false;
        n_wrong += links_wrongs(l, *e) != 0;
        repair(l, *e, false);
    }
    if (n_wrong) {
        LOG_I("links", "synced", "ifaces=%zu corrected=%zu", l->by_name.n, n_wrong);
    }
    nl_monitor_drain(l->monitor);
    return 0;
}

static void on_resync(void *arg) {
    struct links *l = arg;
    l->stats.resyncs++;
    l->wants_sync = true;
    loop_defer_ask(l->defer);
}

static void on_defer(void *arg) {
    struct links *l = arg;
    size_t i = 0, n_new = 0;
    struct links_entry **e;
    struct err err = {0};
    while (links_by_name_next(&l->by_name, &i, NULL, &e)) {
        n_new += (*e)->is_new;
    }
    if (l->wants_sync || (n_new && (!l->has_synced || n_new > TARGETED_MAX))) {
        if (links_sync(l, &err) < 0) {
            LOG_W("links", "sync_failed", "%s", log_quote(str_c(err.msg)));
            l->is_timing = true;
            loop_timer_start(l->timer, RETRY_MS, 0);
        }
        return;
    }
    for (i = 0; n_new && links_by_name_next(&l->by_name, &i, NULL, &e);) {
        if ((*e)->is_new) {
            (*e)->is_new = false;
            n_new--;
            if (links_look(l, *e, &err) == 0) {
                repair(l, *e, false);
            }
        }
    }
    nl_monitor_drain(l->monitor);
}

/* ---- desired state ---- */

static void own(struct links *l, struct links_entry *e) {
    for (size_t i = 0; i < e->nets.n; i++) {
        *links_owners_put(&l->owners, e->nets.p[i].net, NULL) = e;
    }
}

static void disown(struct links *l, struct links_entry *e) {
    for (size_t i = 0; i < e->nets.n; i++) {
        struct links_entry **o = links_owners_get(&l->owners, e->nets.p[i].net);
        if (o && *o == e) {
            (void)links_owners_del(&l->owners, e->nets.p[i].net);
        }
    }
}

static bool is_same(const struct links_entry *e, const struct prefix *nets, size_t n,
                    const uint8_t *mac) {
    if (e->nets.n != n || e->has_pod_mac != (mac != NULL) ||
        (mac && memcmp(mac, e->pod_mac, 6) != 0)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct prefix p = prefix_mask(nets[i]);
        if (!prefix_eq(&e->nets.p[i].net, &p)) {
            return false;
        }
    }
    return true;
}

void links_set(struct links *l, struct str iface, const struct prefix *nets, size_t n,
               const uint8_t *pod_mac) {
    static const uint8_t zero[6];
    bool is_new = false;
    if (pod_mac && memcmp(pod_mac, zero, 6) == 0) {
        pod_mac = NULL;
    }
    if (!link_name_is_valid(iface)) {
        LOG_W("links", "bad_name", "iface=%s", log_quote(iface));
        return;
    }
    struct links_entry **p = links_by_name_get(&l->by_name, iface);
    struct links_entry *e = p ? *p : NULL;
    if (e && is_same(e, nets, n, pod_mac)) {
        own(l, e);
        return;
    }
    if (!e) {
        e = calloc(1, sizeof(*e));
        mg_assert(e != NULL);
        memcpy(e->name, iface.p, iface.n);
        *links_by_name_put(&l->by_name, str_n(e->name, iface.n), &is_new) = e;
    }
    bool same_mac =
        e->has_pod_mac == (pod_mac != NULL) && (!pod_mac || memcmp(pod_mac, e->pod_mac, 6) == 0);
    disown(l, e);
    links_nets old = e->nets;
    memset(&e->nets, 0, sizeof(e->nets));
    for (size_t i = 0; i < n; i++) {
        struct links_net net = {.net = prefix_mask(nets[i])};
        if (links_find_net(e, &net.net)) {
            continue;
        }
        for (size_t j = 0; j < old.n; j++) {
            if (prefix_eq(&old.p[j].net, &net.net)) {
                net = old.p[j];
                net.has_neigh &= same_mac;
                old.p[j].is_kept = true;
            }
        }
        net.is_kept = false;
        net.is_away = links_aways_get(&l->aways, net.net) != NULL;
        vec_push(&e->nets, net);
    }
    for (size_t j = 0; j < old.n; j++) {
        if (!old.p[j].is_kept && e->link.index && old.p[j].had_route) {
            vec_push(&e->stale, old.p[j].net);
        }
    }
    vec_fini(&old);
    e->has_pod_mac = pod_mac != NULL;
    if (pod_mac) {
        memcpy(e->pod_mac, pod_mac, 6);
    }
    own(l, e);
    e->is_new = true;
    loop_defer_ask(l->defer);
}

bool links_is_away(const struct links *l, const struct ip46 *ip) {
    struct prefix p = {.ip = *ip, .len = (uint8_t)ip_bits(ip)};
    return links_aways_get(&l->aways, p) != NULL;
}

void links_away(struct links *l, const struct ip46 *ip, bool is_away) {
    struct prefix p = {.ip = *ip, .len = (uint8_t)ip_bits(ip)};
    size_t i = 0;
    struct links_entry **e;
    if (is_away == links_is_away(l, ip)) {
        return;
    }
    if (is_away) {
        *links_aways_put(&l->aways, p, NULL) = true;
    } else {
        (void)links_aways_del(&l->aways, p);
    }
    while (links_by_name_next(&l->by_name, &i, NULL, &e)) {
        struct links_net *n = links_find_net(*e, &p);
        if (n) {
            n->is_away = is_away;
            n->had_route = n->had_route && !is_away; /* another's route may be there by now */
            (*e)->is_new = true;
            (*e)->was_right = false; /* nobody else's doing */
            loop_defer_ask(l->defer);
        }
    }
}

static void drop(struct links *l, struct links_entry *e) {
    disown(l, e);
    links_set_index(l, e, 0);
    for (size_t i = 0; i < l->touched.n; i++) {
        if (l->touched.p[i] == e) {
            vec_swap_remove(&l->touched, i);
            break;
        }
    }
    (void)links_by_name_del(&l->by_name, str_c(e->name));
    vec_fini(&e->nets);
    vec_fini(&e->stale);
    free(e);
}

void links_forget(struct links *l, struct str iface) {
    struct links_entry **p = links_by_name_get(&l->by_name, iface);
    if (p) {
        drop(l, *p);
    }
}

void links_unset(struct links *l, struct str iface) {
    struct links_entry **p = links_by_name_get(&l->by_name, iface);
    if (!p) {
        return;
    }
    struct links_entry *e = *p;
    for (size_t i = 0; e->link.index && i < e->nets.n; i++) {
        struct links_net *n = &e->nets.p[i];
        if (n->has_route) {
            struct route gone = {.dst = n->net, .oif = e->link.index};
            (void)route_del(l->nl, &gone);
        }
        if (n->has_neigh) {
            (void)neigh_del(l->nl, e->link.index, &n->net.ip);
        }
    }
    drop(l, e);
    if (nl_pending(l->nl)) {
        l->stats.writes += nl_pending(l->nl);
        /* What is gone already is as it should be. */
        (void)!nl_exchange(l->nl, NULL);
    }
}

void links_stats(const struct links *l, struct links_stats *out) {
    struct links_entry **e;
    size_t i = 0;
    *out = l->stats;
    out->n_ifaces = l->by_name.n;
    while (links_by_name_next(&l->by_name, &i, NULL, &e)) {
        out->n_pending += !(*e)->link.index;
        if ((*e)->link.index && (*e)->problem[0]) {
            out->n_problems++;
            (void)snprintf(out->problem, sizeof(out->problem), "%s", (*e)->problem);
        }
    }
}

static const struct nl_monitor_ops ops = {.on_link = on_link,
                                          .on_route = on_route,
                                          .on_neigh = on_neigh,
                                          .on_netconf = on_netconf,
                                          .on_batch_end = on_batch_end,
                                          .on_resync = on_resync};

struct links *links_new(struct loop *loop, const struct links_settings *s, struct err *e) {
    struct links *l = calloc(1, sizeof(*l));
    mg_assert(l != NULL);
    l->proto = s->route_proto ? s->route_proto : LINKS_PROTOCOL_DEFAULT;
    for (size_t i = 0; i < s->n_iface_prefixes && i < LINKS_MAX_PREFIXES; i++) {
        struct str p = s->iface_prefixes[i];
        if (p.n && p.n < IF_NAMESIZE) {
            memcpy(l->prefixes[l->n_prefixes++], p.p, p.n);
        }
    }
    if (!l->n_prefixes) {
        memcpy(l->prefixes[l->n_prefixes++], "cali", 4);
    }
    if (nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &l->nl, e) < 0 ||
        nl_monitor_new(loop, &ops, l, &l->monitor, e) < 0) {
        links_free(l);
        return NULL;
    }
    l->timer = loop_timer_new(loop, on_timer, l);
    l->defer = loop_defer_new(loop, on_defer, l);
    return l;
}

void links_free(struct links *l) {
    size_t i = 0;
    struct links_entry **e;
    if (!l) {
        return;
    }
    while (links_by_name_next(&l->by_name, &i, NULL, &e)) {
        vec_fini(&(*e)->nets);
        vec_fini(&(*e)->stale);
        free(*e);
    }
    links_by_name_fini(&l->by_name);
    links_by_index_fini(&l->by_index);
    links_owners_fini(&l->owners);
    links_aways_fini(&l->aways);
    vec_fini(&l->touched);
    loop_timer_free(l->timer);
    loop_defer_free(l->defer);
    nl_monitor_free(l->monitor);
    nl_close(l->nl);
    free(l);
}
