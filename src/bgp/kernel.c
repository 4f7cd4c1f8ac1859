/* The kernel's routes kept as the speaker wants them: reading, comparing, writing in batches. See
 * kernel.h. */
#include "bgp/kernel_int.h"

#include <stdlib.h>

enum {
    BATCH_MAX = 2048,     /* routes written in one turn of the loop */
    RETRY_MS = 1000,      /* what the kernel refused is tried again */
    RESCAN_DELAY_MS = 50, /* after a link went, of which IPv4 tells no single route */
};

/* ---- entries ---- */

static uint64_t key4(const struct prefix *p) {
    return (uint64_t)get_u32(p->ip.b) << 8 | p->len;
}

static struct prefix prefix4(uint64_t key) {
    struct prefix p = {.ip.family = IP_V4, .len = (uint8_t)key};
    set_u32(p.ip.b, (uint32_t)(key >> 8));
    return p;
}

struct entry *kernel_entry(const struct bgp_kernel *k, const struct prefix *p) {
    return p->ip.family == IP_V4 ? map4_get(&k->v4, key4(p)) : map6_get(&k->v6, *p);
}

static struct entry *entry_make(struct bgp_kernel *k, const struct prefix *p) {
    return p->ip.family == IP_V4 ? map4_put(&k->v4, key4(p), NULL) : map6_put(&k->v6, *p, NULL);
}

static void entry_drop(struct bgp_kernel *k, const struct prefix *p) {
    if (p->ip.family == IP_V4) {
        (void)map4_del(&k->v4, key4(p));
    } else {
        (void)map6_del(&k->v6, *p);
    }
}

static void mark_for_later(struct bgp_kernel *k, const struct prefix *p, struct entry *en) {
    if (!en->is_dirty) {
        en->is_dirty = true;
        vec_push(&k->dirty, *p);
    }
}

void kernel_mark(struct bgp_kernel *k, const struct prefix *p, struct entry *en) {
    mark_for_later(k, p, en);
    loop_defer_ask(k->defer);
}

/* fn for every entry; it may mark, but not add or drop. */
static void each_entry(struct bgp_kernel *k,
                       void (*fn)(struct bgp_kernel *k, const struct prefix *p, struct entry *en)) {
    uint64_t key;
    struct prefix p;
    struct entry *en;
    for (size_t i = 0; map4_next(&k->v4, &i, &key, &en);) {
        p = prefix4(key);
        fn(k, &p, en);
    }
    for (size_t i = 0; map6_next(&k->v6, &i, &p, &en);) {
        fn(k, &p, en);
    }
}

static void mark_wanted(struct bgp_kernel *k, const struct prefix *p, struct entry *en) {
    if (en->want || en->fixed || (k->is_ready && en->have)) {
        kernel_mark(k, p, en);
    }
}

static void mark_changed(struct bgp_kernel *k, const struct prefix *p, struct entry *en) {
    if (en->want && k->wants.p[en->want - 1]->is_changed) {
        kernel_mark(k, p, en);
    }
}

/* ---- reading ---- */

static void have_set(struct bgp_kernel *k, struct entry *en, uint32_t take_way) {
    k->stats.n_routes += (take_way != 0) - (size_t)(en->have != 0);
    way_unref(k->ways, en->have);
    en->have = take_way;
}

static void see_ours(struct bgp_kernel *k, const struct route *r, bool is_gone) {
    struct prefix p = prefix_mask(r->dst);
    struct entry *en = kernel_entry(k, &p);
    if (is_gone) {
        const struct way *w = en ? way_get(k->ways, en->have) : NULL;
        if (!w || w->metric != r->metric) {
            return;
        }
        have_set(k, en, 0);
        kernel_mark(k, &p, en);
        return;
    }
    const struct foreign *bird = kernel_bird_route(k, &p);
    if (bird && bird->metric == r->metric) { /* ours has taken its place */
        struct route old = *r;
        old.protocol = KERNEL_BIRD;
        old.type = bird->type;
        old.oif = bird->oif;
        old.via = bird->via;
        old.n_ways = bird->n_ways;
        kernel_foreign_set(k, &old, true);
    }
    uint32_t way = way_of_route(k->ways, r);
    en = en ? en : entry_make(k, &p);
    if (en->have == way) {
        way_unref(k->ways, way);
        return;
    }
    have_set(k, en, way);
    if (k->is_scanning && !k->is_ready && !en->want && !en->fixed) {
        en->is_leftover = true;
        k->has_leftovers = true;
        return;
    }
    kernel_mark(k, &p, en);
}

static void see_route(struct bgp_kernel *k, const struct route *r, bool is_gone) {
    if (!kernel_is_of_interest(r)) {
        return;
    }
    if (kernel_is_ours(k, r)) {
        see_ours(k, r, is_gone);
    } else {
        kernel_foreign_set(k, r, is_gone);
        k->has_leftovers = k->has_leftovers || (r->protocol == KERNEL_BIRD && !k->is_alone &&
                                                k->is_scanning && !k->is_ready);
    }
}

static int on_dump_route(void *arg, const struct route *r) {
    see_route(arg, r, false);
    return 0;
}

static int on_dump_link(void *arg, const struct link *l) {
    struct bgp_kernel *k = arg;
    struct klink *x = link_map_put(&k->links, l->index, NULL);
    memcpy(x->name, l->name, sizeof(x->name));
    x->is_up = (l->flags & IFF_UP) && (l->flags & (IFF_RUNNING | IFF_LOOPBACK));
    return 0;
}

static int on_dump_addr(void *arg, const struct addr *a) {
    struct bgp_kernel *k = arg;
    vec_push(&k->addrs, *a);
    return 0;
}

static void forget_have(struct bgp_kernel *k, const struct prefix *p, struct entry *en) {
    (void)p;
    have_set(k, en, 0);
}

/* Everything again; what is there of ours is compared with what is wanted. */
static int scan(struct bgp_kernel *k, struct err *e) {
    struct route_filter all = {.family = IP_NONE};
    k->stats.n_scans++;
    kernel_foreign_dirty_all(k);
    kernel_foreign_clear(k);
    each_entry(k, forget_have);
    link_map_fini(&k->links);
    vec_clear(&k->addrs);
    k->is_scanning = true;
    int r = link_dump(k->nl, on_dump_link, k, e);
    r = r < 0 ? r : addr_dump(k->nl, 0, on_dump_addr, k, e);
    r = r < 0 ? r : route_dump(k->nl, &all, on_dump_route, k, e);
    k->is_scanning = false;
    each_entry(k, mark_wanted);
    k->links_changed = true;
    return r;
}

static void on_scan_timer(void *arg) {
    struct bgp_kernel *k = arg;
    struct err e;
    if (scan(k, &e) < 0) {
        LOG_W("bgp", "kernel_scan_failed", "error=%s", log_quote(str_c(e.msg)));
        loop_timer_start(k->scan_timer, RETRY_MS, 0);
    }
    loop_defer_ask(k->defer);
}

static void ask_scan(struct bgp_kernel *k) {
    loop_timer_start(k->scan_timer, RESCAN_DELAY_MS, 0);
}

/* ---- events ---- */

static void on_link(void *arg, const struct link *l, bool is_gone) {
    struct bgp_kernel *k = arg;
    struct klink *old = link_map_get(&k->links, l->index);
    bool was_up = old && old->is_up;
    if (is_gone) {
        (void)link_map_del(&k->links, l->index);
        k->ops.link(k->arg, l->index, str_c(l->name), false);
    } else {
        (void)on_dump_link(k, l);
        bool is_up = link_map_get(&k->links, l->index)->is_up;
        if (is_up == was_up && old) {
            return;
        }
        k->ops.link(k->arg, l->index, str_c(l->name), is_up);
        is_gone = !is_up;
    }
    if (is_gone && was_up) {
        ask_scan(k);
    }
    k->links_changed = true;
}

static void on_addr(void *arg, const struct addr *a, bool is_gone) {
    struct bgp_kernel *k = arg;
    for (size_t i = 0; i < k->addrs.n; i++) {
        if (k->addrs.p[i].index == a->index && prefix_eq(&k->addrs.p[i].net, &a->net)) {
            vec_swap_remove(&k->addrs, i);
            break;
        }
    }
    if (!is_gone) {
        vec_push(&k->addrs, *a);
    } else {
        ask_scan(k); /* routes with it as source went without a word */
    }
    k->links_changed = true;
}

static void on_route(void *arg, const struct route *r, bool is_gone) {
    see_route(arg, r, is_gone);
}

static void on_batch_end(void *arg) {
    struct bgp_kernel *k = arg;
    if (k->links_changed || k->routes_changed || k->dirty.n) {
        loop_defer_ask(k->defer);
    }
}

static void on_resync(void *arg) {
    LOG_D("bgp", "kernel_events_lost", "repair=%s", "reading everything again");
    ask_scan(arg);
}

/* ---- writing ---- */

/* What the entry should be in the kernel; a reference more. */
static uint32_t wanted_way(struct bgp_kernel *k, const struct prefix *p, const struct entry *en) {
    if (en->fixed) {
        way_ref(k->ways, en->fixed);
        return en->fixed;
    }
    return en->want ? want_way(k, en->want, p) : 0;
}

/* One change in a batch. */
struct change {
    struct prefix p;
    uint32_t way;    /* a reference, handed to the entry when it worked */
    size_t add, del; /* messages; SIZE_MAX: none */
};
struct batch {
    VEC(struct change) changes;
};

static size_t put_del(struct bgp_kernel *k, const struct prefix *p, const struct way *w) {
    struct route r = {.dst = *p,
                      .table = RT_TABLE_MAIN,
                      .metric = w->metric,
                      .protocol = KERNEL_PROTOCOL,
                      .type = w->type};
    return route_del(k->nl, &r);
}

static void put_change(struct bgp_kernel *k, struct batch *b, const struct prefix *p,
                       struct entry *en, uint32_t take_way) {
    struct change c = {*p, take_way, SIZE_MAX, SIZE_MAX};
    const struct way *old = way_get(k->ways, en->have), *new = way_get(k->ways, take_way);
    struct route r;
    if (new) {
        way_to_route(new, p, &r);
        const struct foreign *bird = kernel_bird_route(k, p);
        bool in_place =
            (old && old->metric == new->metric) || (!old && bird && bird->metric == new->metric);
        c.add = route_add(k->nl, &r,
                          (uint16_t)(NLM_F_CREATE | (in_place ? NLM_F_REPLACE : NLM_F_EXCL)));
        old = in_place ? NULL : old; /* it is replaced, or there is none */
    }
    if (old) {
        c.del = put_del(k, p, old);
    }
    vec_push(&b->changes, c);
}

static bool has_failed(const struct bgp_kernel *k, size_t message, int fine) {
    return message != SIZE_MAX && nl_code(k->nl, message) < 0 && nl_code(k->nl, message) != fine;
}

/* Takes the kernel's answers over. */
static bool take_answers(struct bgp_kernel *k, struct batch *b, bool broke) {
    bool retry = broke;
    for (size_t i = 0; i < b->changes.n; i++) {
        struct change *c = &b->changes.p[i];
        struct entry *en = kernel_entry(k, &c->p);
        int code = broke ? -EIO : c->add == SIZE_MAX ? 0 : nl_code(k->nl, c->add);
        bool fails = code < 0 || (!broke && has_failed(k, c->del, -ESRCH));
        k->stats.n_writes++;
        if (code == -EEXIST) {
            k->stats.n_conflicts += !en->is_conflict;
            en->is_conflict = true;
        } else {
            k->stats.n_conflicts -= en->is_conflict;
            en->is_conflict = false;
        }
        if (!fails) {
            have_set(k, en, c->way);
        } else {
            way_unref(k->ways, c->way);
            k->stats.n_failures++;
            retry = retry || code != -EEXIST;
            char text[IP_TEXT_MAX];
            if (log_allow(&k->limit, 10, 60)) {
                LOG_W("bgp", "kernel_route_failed", "prefix=%s error=%s", prefix_text(&c->p, text),
                      code == -EEXIST ? "another route of this metric is there" : err_name(code));
            }
            if (code != -EEXIST) {
                mark_for_later(k, &c->p, en);
            }
        }
        if (!en->want && !en->have && !en->fixed && !en->is_dirty) {
            k->stats.n_conflicts -= en->is_conflict;
            entry_drop(k, &c->p);
        }
    }
    return retry;
}

/* The next changes of the dirty list as one batch. True: something must be tried again later. */
static bool write_batch(struct bgp_kernel *k, size_t max) {
    struct batch b = {0};
    size_t end = k->dirty.n;
    struct err e;
    while (k->dirty_at < end && b.changes.n < max) {
        struct prefix p = k->dirty.p[k->dirty_at++];
        struct entry *en = kernel_entry(k, &p);
        if (!en || !en->is_dirty) {
            continue;
        }
        en->is_dirty = false;
        uint32_t way = wanted_way(k, &p, en);
        if (way == en->have) {
            way_unref(k->ways, way);
            if (!en->want && !en->have && !en->fixed) {
                entry_drop(k, &p);
            }
            continue;
        }
        en->is_leftover = false;
        put_change(k, &b, &p, en, way);
    }
    bool retry = false;
    if (b.changes.n) {
        int r = nl_exchange(k->nl, &e);
        if (r < 0) {
            LOG_W("bgp", "kernel_write_failed", "error=%s", log_quote(str_c(e.msg)));
            nl_abandon(k->nl);
        }
        retry = take_answers(k, &b, r < 0);
        vec_fini(&b.changes);
    }
    if (k->dirty_at == k->dirty.n) {
        vec_fini(&k->dirty);
        k->dirty_at = 0;
    }
    return retry;
}

static void digest(struct bgp_kernel *k) {
    if (!k->conf) {
        return;
    }
    if (k->links_changed || k->routes_changed) {
        kernel_foreign_tell(k);
        if (k->links_changed) {
            kernel_local_write(k);
            kernel_connected_tell(k);
        }
        if (wants_refresh(k)) {
            each_entry(k, mark_changed);
        }
        k->watches_changed = true;
        k->links_changed = k->routes_changed = false;
    }
    if (k->watches_changed) {
        kernel_watches_tell(k);
    }
}

static void on_defer(void *arg) {
    struct bgp_kernel *k = arg;
    if (!k->conf) {
        return;
    }
    digest(k);
    size_t end = k->dirty.n;
    bool retry = write_batch(k, BATCH_MAX);
    if (k->dirty_at && k->dirty_at < end) {
        loop_timer_start(k->timer, 0, 0); /* others come between */
    } else if (retry || k->dirty.n) {
        loop_timer_start(k->timer, retry ? RETRY_MS : 0, 0);
    }
}

void bgp_kernel_flush(struct bgp_kernel *k) {
    if (!k->conf) {
        return;
    }
    digest(k);
    while (k->dirty.n && !write_batch(k, BATCH_MAX)) {
    }
}

/* ---- life ---- */

int bgp_kernel_new(struct loop *l, const struct kernel_ops *ops, void *arg, bool is_alone,
                   struct bgp_kernel **out, struct err *e) {
    static const struct nl_monitor_ops events = {.on_link = on_link,
                                                 .on_addr = on_addr,
                                                 .on_route = on_route,
                                                 .on_batch_end = on_batch_end,
                                                 .on_resync = on_resync};
    struct bgp_kernel *k = calloc(1, sizeof(*k));
    mg_assert(k);
    k->loop = l;
    k->ops = *ops;
    k->arg = arg;
    k->is_alone = is_alone;
    k->ways = ways_new();
    k->defer = loop_defer_new(l, on_defer, k);
    k->timer = loop_timer_new(l, on_defer, k);
    k->scan_timer = loop_timer_new(l, on_scan_timer, k);
    int r = nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &k->nl, e);
    r = r < 0 ? r : nl_monitor_new(l, &events, k, &k->monitor, e);
    r = r < 0 ? r : scan(k, e);
    if (r < 0) {
        bgp_kernel_free(k);
        return r;
    }
    *out = k;
    return 0;
}

void bgp_kernel_free(struct bgp_kernel *k) {
    if (!k) {
        return;
    }
    loop_defer_free(k->defer);
    loop_timer_free(k->timer);
    loop_timer_free(k->scan_timer);
    nl_monitor_free(k->monitor);
    nl_close(k->nl);
    kernel_foreign_clear(k);
    wants_free(k);
    ways_free(k->ways);
    map4_fini(&k->v4);
    map6_fini(&k->v6);
    vec_fini(&k->dirty);
    vec_fini(&k->fixed);
    link_map_fini(&k->links);
    vec_fini(&k->addrs);
    vec_fini(&k->foreign_dirty);
    told_map_fini(&k->told);
    vec_fini(&k->connected);
    vec_fini(&k->watches);
    free(k);
}

bool bgp_kernel_has_leftovers(const struct bgp_kernel *k) {
    return k->has_leftovers;
}

/* ---- what is asked for ---- */

static void set_fixed(struct bgp_kernel *k, const struct prefix *p, uint32_t take_way) {
    struct entry *en = kernel_entry(k, p);
    if (!en) {
        en = entry_make(k, p);
    }
    way_unref(k->ways, en->fixed);
    en->fixed = take_way;
    kernel_mark(k, p, en);
}

/* Blackholes of blocks, so that packets to pods that are not there don't loop (where no agent
 * writes them); and the ways to peers that reachableBy names. */
static void set_fixed_routes(struct bgp_kernel *k) {
    for (size_t i = 0; i < k->fixed.n; i++) {
        set_fixed(k, &k->fixed.p[i], 0);
    }
    vec_clear(&k->fixed);
    for (size_t i = 0; i < k->conf->n_routes; i++) {
        const struct conf_route *r = &k->conf->routes[i];
        if (k->is_alone && r->is_block && r->prefix.len < ip_bits(&r->prefix.ip) &&
            bgp_conf_kernel(k->conf, &r->prefix, NULL) != KERNEL_REJECT) {
            uint32_t metric = k->conf->priority[r->prefix.ip.family == IP_V6];
            set_fixed(k, &r->prefix, way_intern(k->ways, RTN_BLACKHOLE, metric, NULL, 0));
            vec_push(&k->fixed, r->prefix);
        }
    }
    for (size_t i = 0; i < k->conf->n_peers; i++) {
        const struct conf_peer *peer = &k->conf->peers[i];
        struct kernel_hop hop = {.ip = peer->gateway, .weight = 1};
        struct prefix p = {peer->c.address, (uint8_t)ip_bits(&peer->c.address)};
        struct route_way ways[ROUTE_WAYS_MAX];
        uint32_t cost;
        size_t n = peer->gateway.family ? kernel_resolve(k, &hop, ways, &cost) : 0;
        if (n) {
            uint32_t metric = k->conf->priority[p.ip.family == IP_V6];
            set_fixed(k, &p, way_intern(k->ways, RTN_UNICAST, metric, ways, n));
            vec_push(&k->fixed, p);
        }
    }
}

void bgp_kernel_configure(struct bgp_kernel *k, const struct bgp_conf *conf) {
    bool is_first = !k->conf;
    kernel_local_change(k, conf);
    k->conf = conf;
    if (is_first) {
        kernel_foreign_dirty_all(k);
    }
    k->links_changed = true;
    set_fixed_routes(k);
    (void)wants_refresh(k);
    each_entry(k, mark_wanted);
    loop_defer_ask(k->defer);
}

void bgp_kernel_route(struct bgp_kernel *k, const struct prefix *p, const struct kernel_hop *hops,
                      size_t n, uint32_t local_pref) {
    struct entry *en = kernel_entry(k, p);
    if (!en && n == 0) {
        return;
    }
    uint32_t want = n ? want_intern(k, p->ip.family, local_pref, hops, n) : 0;
    en = en ? en : entry_make(k, p);
    if (en->want == want) {
        want_unref(k, want);
        return;
    }
    want_unref(k, en->want);
    en->want = want;
    kernel_mark(k, p, en);
}

void bgp_kernel_watch(struct bgp_kernel *k, const struct ip46 *ip, const struct ip46 *link_local,
                      int ifindex, bool is_watched) {
    for (size_t i = 0; i < k->watches.n; i++) {
        struct watch *w = &k->watches.p[i];
        if (ip_eq(&w->ip, ip) && ip_eq(&w->link_local, link_local)) {
            vec_swap_remove(&k->watches, i);
            k->watches_changed = true; /* another has its place */
            break;
        }
    }
    if (is_watched) {
        struct watch w = {.ip = *ip, .link_local = *link_local, .ifindex = ifindex, .is_new = true};
        vec_push(&k->watches, w);
        k->watches_changed = true;
        loop_defer_ask(k->defer);
    }
}

/* What Calico's BIRD left and nothing of ours has replaced. */
static void drop_bird(struct bgp_kernel *k) {
    struct prefix p;
    struct err e;
    for (size_t i = 0; foreign_map_next(&k->foreign, &i, &p, NULL);) {
        const struct foreign *f = kernel_bird_route(k, &p);
        if (f) {
            struct route r = {.dst = p,
                              .table = RT_TABLE_MAIN,
                              .metric = f->metric,
                              .protocol = KERNEL_BIRD,
                              .type = f->type};
            (void)route_del(k->nl, &r);
        }
    }
    if (nl_pending(k->nl) && nl_exchange(k->nl, &e) < 0) {
        LOG_W("bgp", "kernel_write_failed", "error=%s", log_quote(str_c(e.msg)));
        nl_abandon(k->nl);
    }
}

static void mark_leftover(struct bgp_kernel *k, const struct prefix *p, struct entry *en) {
    if (en->have) {
        kernel_mark(k, p, en);
    }
}

void bgp_kernel_ready(struct bgp_kernel *k) {
    if (k->is_ready) {
        return;
    }
    k->is_ready = true;
    k->has_leftovers = false;
    each_entry(k, mark_leftover);
    if (k->conf) {
        bgp_kernel_flush(k); /* ours first: nothing is ever without a way */
    }
    drop_bird(k);
}

/* ---- looking in ---- */

int bgp_kernel_ifindex(const struct bgp_kernel *k, struct str name) {
    int index;
    struct klink *l;
    for (size_t i = 0; link_map_next(&k->links, &i, &index, &l);) {
        if (str_is(name, l->name)) {
            return index;
        }
    }
    return 0;
}

void bgp_kernel_addrs(const struct bgp_kernel *k, int ifindex, struct ip46 *v4, struct ip46 *v6,
                      struct ip46 *link_local) {
    *v4 = *v6 = *link_local = (struct ip46){0};
    for (size_t i = 0; i < k->addrs.n; i++) {
        const struct ip46 *ip = &k->addrs.p[i].net.ip;
        if (k->addrs.p[i].index != ifindex) {
            continue;
        }
        bool is_ll = ip->family == IP_V6 && ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80;
        struct ip46 *to = is_ll ? link_local : ip->family == IP_V4 ? v4 : v6;
        if (!to->family) {
            *to = *ip;
        }
    }
}

int bgp_kernel_addr_owner(const struct bgp_kernel *k, const struct ip46 *ip) {
    for (size_t i = 0; i < k->addrs.n; i++) {
        if (ip_eq(&k->addrs.p[i].net.ip, ip)) {
            return k->addrs.p[i].index;
        }
    }
    return 0;
}

bool bgp_kernel_is_connected(const struct bgp_kernel *k, const struct ip46 *ip) {
    for (size_t i = 0; i < k->addrs.n; i++) {
        if (prefix_has_ip(&k->addrs.p[i].net, ip)) {
            return true;
        }
    }
    return false;
}

void bgp_kernel_stats(const struct bgp_kernel *k, struct kernel_stats *out) {
    *out = k->stats;
    out->n_waiting = k->dirty.n - k->dirty_at;
}

bool bgp_kernel_print(const struct bgp_kernel *k, const struct prefix *p, struct buf *out) {
    const struct entry *en = kernel_entry(k, p);
    const struct way *w = en ? way_get(k->ways, en->have) : NULL;
    char text[IP_TEXT_MAX];
    if (!w) {
        return false;
    }
    buf_puts(out, w->type == RTN_BLACKHOLE ? "blackhole" : "");
    for (size_t i = 0; i < w->n; i++) {
        struct str name = kernel_link_name(k, w->hops[i].oif);
        buf_printf(out, "%svia %s dev %.*s", i ? ", " : "", ip_text(&w->hops[i].via, text),
                   STR_FMT(name));
        if (w->n > 1) {
            buf_printf(out, " weight %u", w->hops[i].weight);
        }
    }
    buf_printf(out, " metric %u", w->metric);
    return true;
}
