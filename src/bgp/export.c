/* Export policy: which routes a group of peers is to have, and with which attributes. RFC 4271
 * section 5 and 9.2, 1997, 4456, 5065, 7947, 8212, 9234, 9494. */
#include "bgp/speaker_int.h"

/* ---- groups ---- */

static void set_self(const struct peer *p, enum bgp_family f, struct group_key *k) {
    const struct conn *c = p->up;
    k->self = f == BGP_V4 && c->local4.family == IP_V4 ? c->local4 : c->local6;
    if (f == BGP_V6 && k->self.family == IP_NONE && c->link_local.family == IP_NONE &&
        c->local4.family == IP_V4) {
        /* IPv6 over an IPv4 session of which no IPv6 address is known: RFC 2545 leaves the
         * IPv4-mapped one. */
        k->self = (struct ip46){.family = IP_V6, .b = {[10] = 0xff, [11] = 0xff}};
        memcpy(k->self.b + 12, c->local4.b, 4);
    }
    if (k->self.family != IP_V4) {
        k->self_link_local = c->link_local;
        if (k->self.family == IP_NONE) {
            k->self = c->link_local; /* unnumbered */
        }
    }
}

/* The AS that is put in front (RFC 5065 section 4). */
static uint32_t path_as(const struct speaker *s, const struct peer *p) {
    return p->cfg.local_as                               ? p->cfg.local_as
           : peer_is_external(p) && s->cfg.confederation ? s->cfg.confederation
                                                         : s->cfg.as;
}

static void make_key(const struct speaker *s, const struct peer *p, enum bgp_family f,
                     struct group_key *k) {
    const struct chan *c = &p->chan[f];
    const struct bgp_caps *caps = &p->up->open.caps;
    memset(k, 0, sizeof(*k));
    k->family = (uint8_t)f;
    k->is_ibgp = p->is_ibgp;
    k->is_confed = p->is_confed;
    k->is_client = p->is_ibgp && p->cfg.is_rr_client;
    k->is_rs = peer_is_external(p) && p->cfg.is_rs_client;
    k->as4 = p->as4;
    k->extended = p->extended;
    k->addpath = c->addpath_tx;
    k->addpath_max = c->addpath_tx ? p->cfg.family[f].addpath_max : 0;
    k->v4_over_v6 = f == BGP_V4 && p->v4_over_v6;
    k->has_llgr = caps->has_llgr && caps->llgr[f];
    k->remove_private = peer_is_external(p) && p->cfg.remove_private_as;
    k->blocks_all = peer_is_external(p) && p->cfg.require_policy && !p->cfg.family[f].export;
    k->next_hop = (uint8_t)p->cfg.next_hop;
    k->role = p->role;
    k->local_as = path_as(s, p);
    k->cluster_id = !p->is_ibgp ? 0 : p->cfg.cluster_id ? p->cfg.cluster_id : s->cfg.cluster_id;
    set_self(p, f, k);
}

static bool same_ip(const struct ip46 *a, const struct ip46 *b) {
    return a->family == b->family && memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

static bool same_key(const struct group_key *a, const struct group_key *b) {
    return a->family == b->family && a->is_ibgp == b->is_ibgp && a->is_confed == b->is_confed &&
           a->is_client == b->is_client && a->is_rs == b->is_rs && a->as4 == b->as4 &&
           a->extended == b->extended && a->addpath == b->addpath &&
           a->v4_over_v6 == b->v4_over_v6 && a->has_llgr == b->has_llgr &&
           a->remove_private == b->remove_private && a->blocks_all == b->blocks_all &&
           a->addpath_max == b->addpath_max && a->next_hop == b->next_hop && a->role == b->role &&
           a->local_as == b->local_as && a->cluster_id == b->cluster_id &&
           same_ip(&a->self, &b->self) && same_ip(&a->self_link_local, &b->self_link_local);
}

static struct group *find_group(struct speaker *s, const struct group_key *k,
                                const struct bgp_filter *filter) {
    for (size_t i = 0; i < s->groups.n; i++) {
        struct group *g = s->groups.p[i];
        if (g && g->n_chans && same_key(&g->key, k) && bgp_filter_eq(g->filter, filter)) {
            return g;
        }
    }
    return NULL;
}

static struct group *new_group(struct speaker *s, const struct group_key *k,
                               struct bgp_filter *filter) {
    size_t id = 0;
    while (id < s->groups.n && s->groups.p[id]) {
        id++;
    }
    mg_assert(id <= OUT_GROUP); /* that many configurations that differ are not configured */
    struct group *g = calloc(1, sizeof(*g));
    mg_assert(g != NULL);
    g->key = *k;
    g->filter = bgp_filter_ref(filter);
    g->id = (uint16_t)id;
    if (id == s->groups.n) {
        vec_push(&s->groups, NULL);
    }
    s->groups.p[id] = g;
    s->n_picky[k->family] += k->addpath || k->is_rs;
    walk_group(s, g);
    return g;
}

/* The group for a channel as it is configured now, with one member more. */
static struct group *enter(struct speaker *s, const struct group_key *k, struct bgp_filter *filter,
                           uint16_t peer) {
    struct group *g = find_group(s, k, filter);
    if (!g) {
        g = new_group(s, k, filter);
    }
    g->n_chans++;
    if (g->sole) {
        walk_group(s, g); /* what the first one gave was left out for him alone */
    }
    g->sole = g->n_chans == 1 ? peer : 0;
    return g;
}

void group_join(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct group_key k;
    make_key(s, p, f, &k);
    struct group *g = enter(s, &k, p->cfg.family[f].export, p->id);
    p->chan[f].group = g;
    out_join(s, g, &p->chan[f]);
    g->is_awake = false;
    out_wake(s, g);
}

void group_move(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct group_key k;
    struct chan *c = &p->chan[f];
    struct group *old = c->group;
    make_key(s, p, f, &k);
    if (find_group(s, &k, p->cfg.family[f].export) == old) {
        return;
    }
    struct group *g = enter(s, &k, p->cfg.family[f].export, p->id);
    out_move(s, g, c);
    c->group = g;
    if (--old->n_chans == 0) {
        group_drop_cache(s, old);
        s->is_walking = true;
    }
    g->is_awake = false;
    out_wake(s, g);
}

void group_drop_cache(struct speaker *s, struct group *g) {
    for (unsigned i = 0; i < XFORM_SLOTS; i++) {
        attr_unref(s->attrs, g->cache[i].in);
        attr_unref(s->attrs, g->cache[i].out);
        g->cache[i] = (struct xform){0};
    }
}

void group_leave(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct group *g = p->chan[f].group;
    if (!g) {
        return;
    }
    out_leave(s, &p->chan[f]);
    p->chan[f].group = NULL;
    if (--g->n_chans == 0) {
        group_drop_cache(s, g);
        s->is_walking = true; /* its list goes in slices */
    }
}

bool group_bury(struct speaker *s, struct group *g, unsigned max) {
    if (!out_free_some(s, g, max)) {
        return false;
    }
    bgp_filter_unref(g->filter);
    s->n_picky[g->key.family] -= g->key.addpath || g->key.is_rs;
    s->groups.p[g->id] = NULL;
    free(g);
    return true;
}

/* ---- may it go? ---- */

static bool is_external(const struct group *g) {
    return !g->key.is_ibgp && !g->key.is_confed;
}

/* Why it may not, whatever policy says; NULL: it may. */
static const char *barred(const struct speaker *s, const struct group *g, const struct route *r,
                          const struct attrs *a) {
    const struct peer *from = peer_at(s, r->peer);
    struct str comm = attrs_part(a, PART_COMMUNITIES);
    if (g->key.blocks_all) {
        return "an external peer without export policy (RFC 8212)";
    }
    if (from && from->is_ibgp && g->key.is_ibgp && !from->cfg.is_rr_client && !g->key.is_client) {
        return "from an internal peer, and neither is our reflector's client";
    }
    if (comm.n && comm_has(comm, COMM_NO_ADVERTISE)) {
        return "community NO_ADVERTISE";
    }
    if (comm.n && is_external(g) && comm_has(comm, COMM_NO_EXPORT)) {
        return "community NO_EXPORT";
    }
    if (comm.n && !g->key.is_ibgp && comm_has(comm, COMM_NO_EXPORT_SUBCONFED)) {
        return "community NO_EXPORT_SUBCONFED";
    }
    if (!g->key.has_llgr && ((r->flags & ROUTE_LLGR) || comm_has(comm, COMM_LLGR_STALE))) {
        return "long-lived stale, and the peer does not know of that (RFC 9494)";
    }
    uint8_t role = g->key.role;
    if ((a->has & HAS_OTC) &&
        (role == BGP_ROLE_CUSTOMER || role == BGP_ROLE_PEER || role == BGP_ROLE_RS_CLIENT)) {
        return "ONLY_TO_CUSTOMER, and the peer is no customer (RFC 9234)";
    }
    return NULL;
}

/* ---- what it becomes ---- */

/* Not ours to pass on to another AS: non-transitive extended communities (RFC 4360 section 6). */
static void strip_ext(struct speaker *s, struct attr_src *a) {
    struct str e = a->part[PART_EXT];
    bool has_any = false;
    for (size_t i = 0; i + 8 <= e.n; i += 8) {
        has_any = has_any || ((uint8_t)e.p[i] & 0x40);
    }
    if (!has_any) {
        return;
    }
    buf_reset(&s->comm);
    for (size_t i = 0; i + 8 <= e.n; i += 8) {
        if (!((uint8_t)e.p[i] & 0x40)) {
            buf_add(&s->comm, e.p + i, 8);
        }
    }
    a->part[PART_EXT] = s->comm.n ? buf_view(&s->comm) : STR_NULL;
}

static bool is_private_as(uint32_t as) {
    return (as >= 64512 && as <= 65534) || (as >= 4200000000U && as <= 4294967294U);
}

/* Appends the segments of path without confederations and, if asked, private ASes. */
static void copy_path(struct buf *out, struct str path, bool no_private) {
    const uint8_t *p = (const uint8_t *)path.p;
    for (size_t at = 0; at + 2 <= path.n; at += 2 + (size_t)p[at + 1] * 4) {
        size_t head = out->n;
        unsigned n = 0;
        if (p[at] > SEG_SEQUENCE) {
            continue;
        }
        wr_u8(out, p[at]);
        wr_u8(out, 0);
        for (unsigned i = 0; i < p[at + 1]; i++) {
            uint32_t as = get_u32(p + at + 2 + (size_t)i * 4);
            if (!no_private || !is_private_as(as)) {
                wr_u32(out, as);
                n++;
            }
        }
        if (n) {
            out->p[head + 1] = (char)n;
        } else {
            out->n = head;
        }
    }
}

static void to_external(struct speaker *s, const struct group *g, struct attr_src *a) {
    a->has &= (uint16_t) ~(HAS_LOCAL_PREF | HAS_ORIGINATOR);
    a->part[PART_CLUSTERS] = STR_NULL;
    strip_ext(s, a);
    if (g->key.is_rs) {
        return;
    }
    struct str path = a->part[PART_AS_PATH];
    struct buf *clean = &s->enc;
    buf_reset(clean);
    copy_path(clean, path, g->key.remove_private);
    as_path_prepend(&s->tmp, buf_view(clean), SEG_SEQUENCE, g->key.local_as, 1);
    a->part[PART_AS_PATH] = buf_view(&s->tmp);
}

static void to_internal(struct speaker *s, const struct group *g, const struct peer *from,
                        struct attr_src *a) {
    if (!(a->has & HAS_LOCAL_PREF)) {
        a->has |= HAS_LOCAL_PREF;
        a->local_pref = s->cfg.default_local_pref;
    }
    if (g->key.is_confed) {
        as_path_prepend(&s->tmp, a->part[PART_AS_PATH], SEG_CONFED_SEQUENCE, s->cfg.as, 1);
        a->part[PART_AS_PATH] = buf_view(&s->tmp);
        a->has &= (uint16_t)~HAS_ORIGINATOR;
        a->part[PART_CLUSTERS] = STR_NULL;
    } else if (from && from->is_ibgp) { /* reflected: RFC 4456 section 8 */
        if (!(a->has & HAS_ORIGINATOR)) {
            a->has |= HAS_ORIGINATOR;
            a->originator = from->remote_id;
        }
        buf_reset(&s->enc);
        wr_u32(&s->enc, g->key.cluster_id);
        buf_str(&s->enc, a->part[PART_CLUSTERS]);
        a->part[PART_CLUSTERS] = buf_view(&s->enc);
    }
}

static bool fits_family(const struct group *g, const struct ip46 *hop) {
    return g->key.family == BGP_V6
               ? hop->family == IP_V6
               : hop->family == IP_V4 || (hop->family == IP_V6 && g->key.v4_over_v6);
}

/* False: there is no next hop that the peer could use. */
static bool set_next_hop(const struct group *g, struct attr_src *a) {
    bool keep = a->next_hop.family != IP_NONE && g->key.next_hop != NEXT_HOP_SELF &&
                (g->key.next_hop == NEXT_HOP_KEEP || g->key.is_rs || !is_external(g));
    if (keep && fits_family(g, &a->next_hop)) {
        return true;
    }
    a->next_hop = g->key.self;
    a->link_local = g->key.self_link_local;
    if (a->link_local.family != IP_NONE && ip_eq(&a->link_local, &a->next_hop)) {
        a->link_local = (struct ip46){0};
    }
    return fits_family(g, &a->next_hop);
}

static uint32_t transform(struct speaker *s, const struct group *g, const struct peer *from,
                          struct attr_src *a) {
    a->part[PART_LOCAL] = STR_NULL;
    if (!set_next_hop(g, a)) {
        return 0;
    }
    uint8_t role = g->key.role;
    if (!(a->has & HAS_OTC) &&
        (role == BGP_ROLE_PROVIDER || role == BGP_ROLE_PEER || role == BGP_ROLE_RS)) {
        a->has |= HAS_OTC;
        a->otc = g->key.local_as;
    }
    if (is_external(g)) {
        to_external(s, g, a);
    } else {
        to_internal(s, g, from, a);
    }
    return attr_intern(s->attrs, a);
}

static struct xform *cache_slot(struct group *g, const struct route *r) {
    return &g->cache[(r->attr ^ (uint32_t)r->peer * 7U) % XFORM_SLOTS];
}

static void cache_put(struct speaker *s, struct xform *x, const struct route *r, uint32_t out) {
    attr_unref(s->attrs, x->in);
    attr_unref(s->attrs, x->out);
    attr_ref(s->attrs, r->attr);
    if (out) {
        attr_ref(s->attrs, out);
    }
    *x = (struct xform){.in = r->attr, .out = out, .peer = r->peer};
}

static struct str interface_of(const struct speaker *s, const struct attrs *a) {
    const struct nexthop *h = nexthop_get(s->hops, a->next_hop);
    return h ? str_c(h->interface) : attrs_part(a, PART_LOCAL);
}

uint32_t export_attr(struct speaker *s, struct group *g, uint32_t node, const struct route *r,
                     struct export_why *why) {
    const struct attrs *a = attr_get(s->attrs, r->attr);
    why->verdict = (struct filter_verdict){.is_accepted = true, .rule = -1};
    why->text = barred(s, g, r, a);
    if (why->text) {
        return 0;
    }
    struct xform *x = cache_slot(g, r);
    bool is_cached = x->in == r->attr && x->peer == r->peer;
    if (!g->filter && is_cached) {
        if (x->out) {
            attr_ref(s->attrs, x->out);
        }
        why->text = x->out ? NULL : "no next hop that the peer could use";
        return x->out;
    }
    const struct peer *from = peer_at(s, r->peer);
    struct attr_src src;
    attr_open(s->attrs, r->attr, &src);
    if (from && is_external(g) && !g->key.is_rs) {
        src.has &= (uint16_t)~HAS_MED; /* RFC 4271 section 5.1.4 */
    }
    if (g->filter) {
        struct prefix prefix = rib_prefix(&s->rib[g->key.family], node);
        struct filter_route t = {.prefix = &prefix,
                                 .source = from ? ROUTE_PEER : (enum route_source)r->path_id,
                                 .interface = interface_of(s, a),
                                 .attrs = &src,
                                 .is_ibgp_peer = g->key.is_ibgp,
                                 .default_local_pref = s->cfg.default_local_pref};
        why->verdict = bgp_filter_run(g->filter, &t, &s->filter_scratch);
        if (!why->verdict.is_accepted) {
            why->text = "rejected by export policy";
            return 0;
        }
        if (!why->verdict.is_changed && is_cached) {
            if (x->out) {
                attr_ref(s->attrs, x->out);
            }
            return x->out;
        }
    }
    uint32_t out = transform(s, g, from, &src);
    if (!why->verdict.is_changed) {
        cache_put(s, x, r, out);
    }
    if (!out) {
        why->text = "no next hop that the peer could use";
    }
    return out;
}

/* ---- what a group has of a prefix ---- */

/* A route server gives each client the best path that may go to it (RFC 7947 section 2.3). */
static const struct route *best_for_client(struct speaker *s, struct group *g, uint32_t node,
                                           const struct rib_node *n, uint32_t *attr) {
    const struct route *best = NULL;
    enum decide_step step;
    for (uint32_t i = n->routes; i;) {
        const struct route *r = pool_at(&s->routes, i);
        i = r->next;
        if (!route_is_usable(s, r) ||
            (best && !(r->flags & ROUTE_BEST) && route_compare(s, r, best, &step) >= 0)) {
            continue;
        }
        struct export_why why;
        uint32_t a = export_attr(s, g, node, r, &why);
        if (a) {
            attr_unref(s->attrs, *attr);
            *attr = a;
            best = r;
            if (r->flags & ROUTE_BEST) {
                break; /* it is first in the list */
            }
        }
    }
    return best;
}

/* The routes of a group's only member need no place in its list. */
static bool is_for_nobody(const struct group *g, const struct route *r) {
    return g->sole && g->sole == r->peer;
}

static void update_one(struct speaker *s, struct group *g, uint32_t node, struct rib_node *n) {
    const struct route *best = n->routes ? pool_at(&s->routes, n->routes) : NULL;
    uint32_t attr = 0;
    if (best && !(best->flags & ROUTE_BEST)) {
        best = NULL;
    }
    if (g->key.is_rs) {
        best = best ? best_for_client(s, g, node, n, &attr) : NULL;
    } else if (best && !is_for_nobody(g, best)) {
        struct export_why why;
        attr = export_attr(s, g, node, best, &why);
    }
    out_set(s, g, node, 0, best ? best->peer : 0, attr);
}

/* The paths of a prefix in order, at most max. */
enum { PATHS = 64 };
static unsigned sorted_paths(struct speaker *s, const struct rib_node *n, uint32_t *out,
                             unsigned max) {
    unsigned count = 0;
    enum decide_step step;
    for (uint32_t i = n->routes; i;) {
        const struct route *r = pool_at(&s->routes, i);
        if (route_is_usable(s, r)) {
            unsigned at = count;
            while (at > 0) {
                const struct route *q = pool_at(&s->routes, out[at - 1]);
                bool is_before = !(q->flags & ROUTE_BEST) &&
                                 ((r->flags & ROUTE_BEST) || route_compare(s, r, q, &step) < 0);
                if (!is_before) {
                    break;
                }
                at--;
            }
            if (at < max) {
                count += count < max;
                memmove(out + at + 1, out + at, (count - at - 1) * sizeof(*out));
                out[at] = i;
            }
        }
        i = r->next;
    }
    return count;
}

static void update_paths(struct speaker *s, struct group *g, uint32_t node,
                         const struct rib_node *n) {
    uint32_t paths[PATHS];
    unsigned max = g->key.addpath_max && g->key.addpath_max < PATHS ? g->key.addpath_max : PATHS;
    unsigned count = sorted_paths(s, n, paths, max), kept = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct route *r = pool_at(&s->routes, paths[i]);
        struct export_why why;
        uint32_t attr = is_for_nobody(g, r) ? 0 : export_attr(s, g, node, r, &why);
        if (attr) {
            out_set(s, g, node, paths[i], r->peer, attr);
            paths[kept++] = paths[i];
        }
    }
    for (uint32_t i = n->outs; i;) {
        const struct out *o = pool_at(&s->outs, i);
        uint32_t path = o->path_id;
        i = o->chain; /* before out_set may free o */
        bool is_kept = (o->group & OUT_GROUP) != g->id;
        for (unsigned k = 0; k < kept && !is_kept; k++) {
            is_kept = paths[k] == path;
        }
        if (!is_kept) {
            out_set(s, g, node, path, o->source, 0);
        }
    }
}

void group_update(struct speaker *s, struct group *g, uint32_t node, bool is_best_new) {
    struct rib_node *n = rib_at(&s->rib[g->key.family], node);
    if (!g->n_chans) {
        return; /* it is on its way out */
    }
    if (g->key.addpath) {
        update_paths(s, g, node, n);
    } else if (is_best_new || g->key.is_rs) {
        update_one(s, g, node, n);
    }
}
