/* The decision process (RFC 4271 section 9.1.2, 4456 section 9, 5004, 5065, 9494) and the ways that
 * the kernel is told of. The best route of a prefix is first in its list and has ROUTE_BEST. */
#include "bgp/speaker_int.h"

const char *decide_step_text(enum decide_step s) {
    static const char *const TEXT[] = {
        [STEP_ONLY] = "the only path",
        [STEP_UNUSABLE] = "not usable",
        [STEP_STALE] = "long-lived stale",
        [STEP_LOCAL_PREF] = "lower local preference",
        [STEP_PATH_LEN] = "longer AS path",
        [STEP_ORIGIN] = "worse origin",
        [STEP_MED] = "higher MED",
        [STEP_EXTERNAL] = "internal, the other external or local",
        [STEP_COST] = "farther next hop",
        [STEP_AGE] = "the other is known longer",
        [STEP_ROUTER_ID] = "higher router id",
        [STEP_CLUSTERS] = "longer cluster list",
        [STEP_ADDRESS] = "higher peer address",
        [STEP_PATH_ID] = "higher path id",
    };
    return TEXT[s];
}

/* ---- what is compared ---- */

static bool hop_usable(const struct speaker *s, uint32_t id, uint16_t peer) {
    struct nexthop *h = nexthop_get(s->hops, id);
    if (!h) {
        return true; /* our own */
    }
    if (!h->is_known) {
        h->is_known = true;
        h->is_reachable = s->ops->nexthop == NULL;
        if (s->ops->nexthop) {
            s->ops->nexthop(s->user, &h->ip, &h->link_local, peer, true);
        }
    }
    return h->is_reachable;
}

bool route_is_usable(const struct speaker *s, const struct route *r) {
    return r->attr && hop_usable(s, attr_get(s->attrs, r->attr)->next_hop, r->peer);
}

uint32_t route_local_pref(const struct speaker *s, const struct route *r) {
    const struct attrs *a = attr_get(s->attrs, r->attr);
    return (a->has & HAS_LOCAL_PREF) ? a->local_pref : s->cfg.default_local_pref;
}

static bool is_llgr_stale(const struct speaker *s, const struct route *r) {
    return (r->flags & ROUTE_LLGR) ||
           comm_has(attrs_part(attr_get(s->attrs, r->attr), PART_COMMUNITIES), COMM_LLGR_STALE);
}

static bool is_external(const struct speaker *s, const struct route *r) {
    const struct peer *p = peer_at(s, r->peer);
    return !p || peer_is_external(p);
}

static uint32_t cost(const struct speaker *s, const struct route *r) {
    const struct nexthop *h = nexthop_get(s->hops, attr_get(s->attrs, r->attr)->next_hop);
    return h ? h->cost : 0;
}

static uint32_t med(const struct speaker *s, const struct route *r) {
    const struct attrs *a = attr_get(s->attrs, r->attr);
    return (a->has & HAS_MED) ? a->med : s->cfg.med_missing_as_worst ? UINT32_MAX : 0;
}

static uint32_t neighbour_as(const struct speaker *s, const struct route *r) {
    return as_path_first(attrs_part(attr_get(s->attrs, r->attr), PART_AS_PATH));
}

static bool med_counts(const struct speaker *s, const struct route *a, const struct route *b) {
    return s->cfg.always_compare_med || neighbour_as(s, a) == neighbour_as(s, b);
}

static int by(uint32_t a, uint32_t b) {
    return a < b ? -1 : a > b;
}

static int decided(int d, enum decide_step *step, enum decide_step at) {
    if (d) {
        *step = at;
    }
    return d;
}

/* Up to ORIGIN; 0: equal so far. */
static int compare_first(const struct speaker *s, const struct route *a, const struct route *b,
                         enum decide_step *step) {
    const struct attrs *x = attr_get(s->attrs, a->attr), *y = attr_get(s->attrs, b->attr);
    int d = decided(by(is_llgr_stale(s, a), is_llgr_stale(s, b)), step, STEP_STALE);
    d = d ? d : decided(by(route_local_pref(s, b), route_local_pref(s, a)), step, STEP_LOCAL_PREF);
    /* What we say ourselves comes first; among that, the pod before the block, and so on. */
    d = d ? d : decided(by(a->peer != 0, b->peer != 0), step, STEP_EXTERNAL);
    if (!d && !a->peer) {
        return decided(by(b->path_id, a->path_id), step, STEP_PATH_ID);
    }
    d = d ? d : decided(by(x->path_len, y->path_len), step, STEP_PATH_LEN);
    return d ? d : decided(by(x->origin, y->origin), step, STEP_ORIGIN);
}

/* Steps behind MED up to where paths are equal enough to share traffic. */
static int compare_cost(const struct speaker *s, const struct route *a, const struct route *b,
                        enum decide_step *step) {
    int d = decided(by(!is_external(s, a), !is_external(s, b)), step, STEP_EXTERNAL);
    return d ? d : decided(by(cost(s, a), cost(s, b)), step, STEP_COST);
}

static uint32_t router_id(const struct speaker *s, const struct route *r) {
    const struct attrs *a = attr_get(s->attrs, r->attr);
    const struct peer *p = peer_at(s, r->peer);
    return (a->has & HAS_ORIGINATOR) ? attrs_originator(a) : p ? p->remote_id : 0;
}

static int compare_last(const struct speaker *s, const struct route *a, const struct route *b,
                        enum decide_step *step) {
    const struct peer *p = peer_at(s, a->peer), *q = peer_at(s, b->peer);
    if (s->cfg.prefer_oldest && is_external(s, a) && is_external(s, b)) {
        int age = by(!(a->flags & ROUTE_BEST), !(b->flags & ROUTE_BEST));
        if (age) {
            return decided(age, step, STEP_AGE);
        }
    }
    int d = decided(by(router_id(s, a), router_id(s, b)), step, STEP_ROUTER_ID);
    size_t x = attrs_part(attr_get(s->attrs, a->attr), PART_CLUSTERS).n,
           y = attrs_part(attr_get(s->attrs, b->attr), PART_CLUSTERS).n;
    d = d ? d : decided(by((uint32_t)x, (uint32_t)y), step, STEP_CLUSTERS);
    if (!d && p && q) {
        d = decided(ip_cmp(&p->address, &q->address), step, STEP_ADDRESS);
    }
    return d ? d : decided(by(a->path_id, b->path_id), step, STEP_PATH_ID);
}

int route_compare(const struct speaker *s, const struct route *a, const struct route *b,
                  enum decide_step *step) {
    int d = by(!route_is_usable(s, a), !route_is_usable(s, b));
    if (d) {
        return decided(d, step, STEP_UNUSABLE);
    }
    if (!a->attr || !b->attr) {
        return decided(by(a->peer, b->peer), step, STEP_ADDRESS);
    }
    d = compare_first(s, a, b, step);
    if (!d && med_counts(s, a, b)) {
        d = decided(by(med(s, a), med(s, b)), step, STEP_MED);
    }
    d = d ? d : compare_cost(s, a, b, step);
    return d ? d : compare_last(s, a, b, step);
}

/* ---- choice ---- */

/* Candidates left, by elimination: pairwise comparison is no order where MED counts only within an
 * AS. Lists are short; a longer one than this is cut to the first ones found best. */
enum { CANDIDATES = 512 };
struct choice {
    const struct route *c[CANDIDATES];
    unsigned n;
};

static void gather(const struct speaker *s, const struct rib_node *n, struct choice *ch) {
    enum decide_step step;
    ch->n = 0;
    for (uint32_t i = n->routes; i;) {
        const struct route *r = pool_at(&s->routes, i);
        i = r->next;
        if (!route_is_usable(s, r)) {
            continue;
        }
        int d = ch->n ? compare_first(s, r, ch->c[0], &step) : 0;
        if (d < 0) {
            ch->n = 0;
        }
        if (d <= 0 && ch->n < CANDIDATES) {
            ch->c[ch->n++] = r;
        }
    }
}

static void drop_by_med(const struct speaker *s, struct choice *ch) {
    bool is_out[CANDIDATES];
    unsigned kept = 0;
    for (unsigned i = 0; i < ch->n; i++) {
        is_out[i] = false;
        for (unsigned j = 0; j < ch->n && !is_out[i]; j++) {
            is_out[i] = med(s, ch->c[j]) < med(s, ch->c[i]) && med_counts(s, ch->c[i], ch->c[j]);
        }
    }
    for (unsigned i = 0; i < ch->n; i++) {
        if (!is_out[i]) {
            ch->c[kept++] = ch->c[i];
        }
    }
    ch->n = kept;
}

static void keep_least(const struct speaker *s, struct choice *ch,
                       int (*cmp)(const struct speaker *, const struct route *,
                                  const struct route *, enum decide_step *)) {
    enum decide_step step;
    unsigned kept = 0;
    for (unsigned i = 0; i < ch->n; i++) {
        int d = kept ? cmp(s, ch->c[i], ch->c[0], &step) : 0;
        kept = d < 0 ? 0 : kept;
        if (d <= 0) {
            ch->c[kept++] = ch->c[i];
        }
    }
    ch->n = kept;
}

/* The best; ch then holds those that are equal to it but for the last steps. NULL: none. */
static const struct route *choose(const struct speaker *s, const struct rib_node *n,
                                  struct choice *ch) {
    gather(s, n, ch);
    if (ch->n > 1) {
        drop_by_med(s, ch);
        keep_least(s, ch, compare_cost);
    }
    const struct route *best = ch->n ? ch->c[0] : NULL;
    enum decide_step step;
    for (unsigned i = 1; i < ch->n; i++) {
        if (compare_last(s, ch->c[i], best, &step) < 0) {
            best = ch->c[i];
        }
    }
    return best;
}

/* ---- the kernel ---- */

/* May b share traffic with the best a? */
static bool shares(const struct speaker *s, const struct route *a, const struct route *b) {
    return a == b || (b->peer && (s->cfg.multipath_relax || !is_external(s, a) ||
                                  neighbour_as(s, a) == neighbour_as(s, b)));
}

/* Link bandwidth (extended community 0x0004 or 0x4004, a float); 0: none. */
static double bandwidth(const struct attrs *a) {
    struct str e = attrs_part(a, PART_EXT);
    for (size_t i = 0; i + 8 <= e.n; i += 8) {
        const uint8_t *p = (const uint8_t *)e.p + i;
        if ((p[0] & 0xbf) == 0 && p[1] == 4) {
            uint32_t bits = get_u32(p + 4);
            float v;
            memcpy(&v, &bits, 4);
            return v > 0 && v < 1e30F ? (double)v : 0;
        }
    }
    return 0;
}

static void weigh(struct route_hop *hops, const double *bw, unsigned n) {
    double most = 0;
    bool have_all = true;
    for (unsigned i = 0; i < n; i++) {
        most = bw[i] > most ? bw[i] : most;
        have_all = have_all && bw[i] > 0;
    }
    for (unsigned i = 0; i < n; i++) {
        double w = have_all ? bw[i] * 255 / most + 0.5 : 1;
        hops[i].weight = w < 1 ? 1 : (uint32_t)w;
    }
}

enum { MAX_HOPS = 64 };
struct ways {
    uint32_t id[MAX_HOPS]; /* of next hops */
    const struct route *route[MAX_HOPS];
    unsigned n;
};

static void add_way(const struct speaker *s, struct ways *w, const struct route *r) {
    uint32_t id = attr_get(s->attrs, r->attr)->next_hop;
    for (unsigned i = 0; i < w->n; i++) {
        if (w->id[i] == id) {
            return;
        }
    }
    if (w->n < s->cfg.max_paths && w->n < MAX_HOPS) {
        w->id[w->n] = id;
        w->route[w->n++] = r;
    }
}

static void tell_kernel(struct speaker *s, enum bgp_family f, uint32_t node,
                        const struct route *best, const struct ways *w) {
    struct route_hop hops[MAX_HOPS];
    double bw[MAX_HOPS];
    for (unsigned i = 0; i < w->n; i++) {
        const struct nexthop *h = nexthop_get(s->hops, w->id[i]);
        hops[i] = (struct route_hop){
            .ip = h->ip, .link_local = h->link_local, .peer = w->route[i]->peer, .weight = 1};
        bw[i] = bandwidth(attr_get(s->attrs, w->route[i]->attr));
    }
    weigh(hops, bw, w->n);
    struct speaker_route r = {.prefix = rib_prefix(&s->rib[f], node), .n_hops = w->n, .hops = hops};
    if (best) {
        r.local_pref = route_local_pref(s, best);
        r.is_external = is_external(s, best);
        r.is_stale = (best->flags & ROUTE_LLGR) || route_is_stale(s, f, best);
        r.attr = best->attr;
    }
    s->ops->route(s->user, &r);
}

/* Marks the ways of the kernel; tells them if they are others than before. */
static void update_kernel(struct speaker *s, enum bgp_family f, uint32_t node, struct rib_node *n,
                          const struct route *best, const struct choice *ch) {
    struct ways w = {.n = 0};
    if (best && best->peer) {
        add_way(s, &w, best);
        for (unsigned i = 0; i < ch->n && w.n < s->cfg.max_paths; i++) {
            if (shares(s, best, ch->c[i])) {
                add_way(s, &w, ch->c[i]);
            }
        }
    }
    bool is_changed = n->flags & NODE_NEW_SET;
    for (uint32_t i = n->routes; i;) {
        struct route *r = pool_at(&s->routes, i);
        bool is_in = false;
        for (unsigned k = 0; k < w.n; k++) {
            is_in = is_in || w.route[k] == r;
        }
        is_changed = is_changed || is_in != ((r->flags & ROUTE_IN_SET) != 0);
        r->flags = (uint16_t)(is_in ? r->flags | ROUTE_IN_SET : r->flags & ~ROUTE_IN_SET);
        i = r->next;
    }
    if (is_changed && s->ops->route && (w.n || (n->flags & NODE_TOLD))) {
        n->flags = (uint8_t)(w.n ? n->flags | NODE_TOLD : n->flags & ~NODE_TOLD);
        tell_kernel(s, f, node, best, &w);
    }
}

/* ---- decide ---- */

/* Puts the best first, with its flag; the one that was it loses that. True: another one than
 * before. */
static bool place_best(struct speaker *s, enum bgp_family f, struct rib_node *n,
                       const struct route *best) {
    struct route *head = n->routes ? pool_at(&s->routes, n->routes) : NULL;
    if (head && head == best && (head->flags & ROUTE_BEST)) {
        return false;
    }
    bool had_best = head && (head->flags & ROUTE_BEST);
    if (had_best) {
        const struct peer *p = peer_at(s, head->peer);
        head->flags &= (uint16_t)~ROUTE_BEST;
        if (p) {
            s->peers.p[head->peer]->chan[f].n_best--;
        }
    }
    if (!best) {
        return had_best;
    }
    for (uint32_t *l = &n->routes; *l;) {
        uint32_t i = *l;
        struct route *r = pool_at(&s->routes, i);
        if (r == best) {
            *l = r->next;
            r->next = n->routes;
            n->routes = i;
            r->flags |= ROUTE_BEST;
            if (peer_at(s, r->peer)) {
                s->peers.p[r->peer]->chan[f].n_best++;
            }
            break;
        }
        l = &r->next;
    }
    return true;
}

bool decide_needless(const struct speaker *s, enum bgp_family f, const struct rib_node *n,
                     const struct route *r) {
    const struct route *head = pool_at(&s->routes, n->routes);
    enum decide_step step;
    if (s->is_deferring || s->n_picky[f] || !(head->flags & ROUTE_BEST) ||
        (n->flags & (NODE_NEW_BEST | NODE_NEW_SET)) || (r->flags & (ROUTE_BEST | ROUTE_IN_SET))) {
        return false;
    }
    if (!route_is_usable(s, r)) {
        return true;
    }
    /* Behind MED it may still share the traffic, or rule out one that does. */
    return route_compare(s, head, r, &step) < 0 && (s->cfg.max_paths == 1 || step < STEP_MED);
}

void decide(struct speaker *s, enum bgp_family f, uint32_t node) {
    struct rib_node *n = rib_at(&s->rib[f], node);
    if (s->is_deferring) {
        if (!n->routes && !n->outs) {
            rib_del(&s->rib[f], node);
        }
        return;
    }
    struct choice ch;
    const struct route *best = NULL, *head = n->routes ? pool_at(&s->routes, n->routes) : NULL;
    ch.n = 0;
    if (head && !head->next) {
        best = route_is_usable(s, head) ? head : NULL;
        ch.c[0] = best;
        ch.n = best != NULL;
    } else if (head) {
        best = choose(s, n, &ch);
    }
    bool is_new = place_best(s, f, n, best) || (n->flags & NODE_NEW_BEST);
    update_kernel(s, f, node, n, best, &ch);
    n->flags &= (uint8_t) ~(NODE_NEW_BEST | NODE_NEW_SET);
    for (size_t i = 0; i < s->groups.n; i++) {
        if (s->groups.p[i] && s->groups.p[i]->key.family == f) {
            group_update(s, s->groups.p[i], node, is_new);
        }
    }
    if (!n->routes && !n->outs) {
        rib_del(&s->rib[f], node);
    }
}
