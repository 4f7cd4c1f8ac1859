/* UPDATEs, and routes of our own, into the table: loop checks, what RFC 8326 and 9234 say, import
 * policy. Each route keeps what was received beside what policy made of it, so that policy can be
 * run again without asking the peer. */
#include "bgp/speaker_int.h"

#include "base/err.h"

const char *import_why_text(enum import_why w) {
    static const char *const TEXT[] = {
        [WHY_NONE] = "accepted",
        [WHY_FILTER] = "rejected by import policy",
        [WHY_AS_LOOP] = "the AS path has our AS: a loop",
        [WHY_ORIGINATOR] = "we are its originator: a loop",
        [WHY_CLUSTER] = "the cluster list has our cluster: a loop",
        [WHY_LEAK] = "a route leak: ONLY_TO_CUSTOMER (RFC 9234)",
        [WHY_NEXT_HOP] = "the next hop is no address of another host",
        [WHY_POLICY] = "an external peer without import policy (RFC 8212)",
    };
    return TEXT[w];
}

/* ---- routes of a prefix ---- */

bool route_is_stale(const struct speaker *s, enum bgp_family f, const struct route *r) {
    const struct peer *p = peer_at(s, r->peer);
    return p && ((r->flags >> ROUTE_EPOCH_SHIFT) & (ROUTE_EPOCHS - 1)) != p->chan[f].epoch;
}

struct route *route_find(struct speaker *s, struct rib_node *n, uint16_t peer, uint32_t path_id,
                         uint32_t **link) {
    for (uint32_t *l = &n->routes; *l;) {
        struct route *r = pool_at(&s->routes, *l);
        if (r->peer == peer && r->path_id == path_id) {
            *link = l;
            return r;
        }
        l = &r->next;
    }
    return NULL;
}

static void note_change(struct rib_node *n, const struct route *r) {
    n->flags |= (uint8_t)(((r->flags & ROUTE_BEST) ? NODE_NEW_BEST : 0) |
                          ((r->flags & ROUTE_IN_SET) ? NODE_NEW_SET : 0));
}

void route_set_attr(struct speaker *s, enum bgp_family f, struct rib_node *n, struct route *r,
                    uint32_t take_attr) {
    struct peer *p = peer_at(s, r->peer);
    if (p) {
        p->chan[f].n_accepted += (take_attr != 0);
        p->chan[f].n_accepted -= (r->attr != 0);
    }
    if (r->attr != take_attr) {
        note_change(n, r);
    }
    attr_unref(s->attrs, r->attr);
    r->attr = take_attr;
}

void route_remove(struct speaker *s, enum bgp_family f, struct rib_node *n, uint32_t *link) {
    uint32_t i = *link;
    struct route *r = pool_at(&s->routes, i);
    struct peer *p = peer_at(s, r->peer);
    if (p) {
        struct chan *c = &p->chan[f];
        c->n_stale -= route_is_stale(s, f, r) && c->n_stale;
        c->n_routes--;
        c->n_best -= (r->flags & ROUTE_BEST) != 0;
    }
    route_set_attr(s, f, n, r, 0);
    note_change(n, r);
    attr_unref(s->attrs, r->attr_in);
    *link = r->next;
    pool_del(&s->routes, i);
}

/* Behind the best, so that the best stays first until the decision. */
static struct route *route_add(struct speaker *s, struct rib_node *n, uint16_t peer,
                               uint32_t path_id) {
    uint32_t i = pool_new(&s->routes);
    struct route *r = pool_at(&s->routes, i),
                 *head = n->routes ? pool_at(&s->routes, n->routes) : NULL;
    r->peer = peer;
    r->path_id = path_id;
    uint32_t *link = head && (head->flags & ROUTE_BEST) ? &head->next : &n->routes;
    r->next = *link;
    *link = i;
    return r;
}

/* ---- before policy ---- */

static bool has_cluster(struct str clusters, uint32_t id) {
    return comm_has(clusters, id); /* both are lists of four octets */
}

static bool is_loop(const struct speaker *s, const struct peer *p, struct str path) {
    uint32_t own = peer_local_as(s, p), confed = s->cfg.confederation;
    return as_path_count(path, own) > p->cfg.allow_own_as ||
           (confed && confed != own && as_path_count(path, confed) > p->cfg.allow_own_as);
}

/* RFC 9234 section 5. True: a leak. May add OTC. */
static bool otc_in(const struct peer *p, struct attr_src *a) {
    if (p->role == BGP_ROLE_NONE) {
        return false;
    }
    bool from_customer = p->role == BGP_ROLE_PROVIDER || p->role == BGP_ROLE_RS;
    if (a->has & HAS_OTC) {
        return from_customer || (p->role == BGP_ROLE_PEER && a->otc != p->remote_as);
    }
    if (!from_customer) {
        a->otc = p->remote_as;
        a->has |= HAS_OTC;
    }
    return false;
}

static bool same_ip(const struct ip46 *a, const struct ip46 *b) {
    return a->family != IP_NONE && a->family == b->family && ip_eq(a, b);
}

/* RFC 4271 section 6.3: an address of ours, or none of a host. */
static bool is_bad_hop(const struct peer *p, const struct ip46 *hop) {
    static const uint8_t ZERO[16] = {0};
    if (memcmp(hop->b, ZERO, 16) == 0 || (hop->family == IP_V4 && hop->b[0] >= 224) ||
        (hop->family == IP_V4 && hop->b[0] == 127) || (hop->family == IP_V6 && hop->b[0] == 0xff)) {
        return true;
    }
    const struct conn *c = p->up;
    return c && (same_ip(&c->local4, hop) || same_ip(&c->local6, hop) ||
                 same_ip(&c->link_local, hop) || same_ip(&c->local, hop));
}

/* All that does not depend on the prefix. Id with a reference, or 0 and *why. */
static uint32_t import_base(struct speaker *s, const struct peer *p, enum bgp_family f,
                            uint32_t attr_in, enum import_why *why) {
    struct attr_src a;
    attr_open(s->attrs, attr_in, &a);
    *why = WHY_NONE;
    if (is_bad_hop(p, &a.next_hop)) {
        *why = WHY_NEXT_HOP;
    } else if (is_loop(s, p, a.part[PART_AS_PATH])) {
        *why = WHY_AS_LOOP;
    } else if (p->is_ibgp && (a.has & HAS_ORIGINATOR) && a.originator == s->cfg.router_id) {
        *why = WHY_ORIGINATOR;
    } else if (p->is_ibgp &&
               (has_cluster(a.part[PART_CLUSTERS], s->cfg.cluster_id) ||
                (p->cfg.cluster_id && has_cluster(a.part[PART_CLUSTERS], p->cfg.cluster_id)))) {
        *why = WHY_CLUSTER;
    } else if (peer_is_external(p) && p->cfg.require_policy && !p->cfg.family[f].import) {
        *why = WHY_POLICY;
    } else if (otc_in(p, &a)) {
        *why = WHY_LEAK;
    }
    if (*why != WHY_NONE) {
        return 0;
    }
    bool is_changed = (a.has & HAS_OTC) && !(attr_get(s->attrs, attr_in)->has & HAS_OTC);
    if (peer_is_external(p) && comm_has(a.part[PART_COMMUNITIES], COMM_GRACEFUL_SHUTDOWN)) {
        a.local_pref = 0; /* RFC 8326 */
        a.has |= HAS_LOCAL_PREF;
        is_changed = true;
    }
    if (is_changed) {
        return attr_intern(s->attrs, &a);
    }
    attr_ref(s->attrs, attr_in);
    return attr_in;
}

/* Import policy over what import_base gave; takes no reference of base. */
static uint32_t import_filter(struct speaker *s, const struct peer *p, enum bgp_family f,
                              const struct prefix *prefix, uint32_t base, enum import_why *why,
                              struct filter_verdict *v) {
    const struct bgp_filter *filter = p->cfg.family[f].import;
    *v = (struct filter_verdict){.is_accepted = true, .rule = -1};
    if (!filter) {
        attr_ref(s->attrs, base);
        return base;
    }
    struct attr_src a;
    attr_open(s->attrs, base, &a);
    const struct nexthop *h = nexthop_get(s->hops, attr_get(s->attrs, base)->next_hop);
    struct filter_route r = {.prefix = prefix,
                             .source = ROUTE_PEER,
                             .interface = h ? str_c(h->interface) : STR_NULL,
                             .attrs = &a,
                             .is_ibgp_peer = p->is_ibgp,
                             .default_local_pref = s->cfg.default_local_pref};
    *v = bgp_filter_run(filter, &r, &s->filter_scratch);
    if (!v->is_accepted) {
        *why = WHY_FILTER;
        return 0;
    }
    if (v->is_changed) {
        return attr_intern(s->attrs, &a);
    }
    attr_ref(s->attrs, base);
    return base;
}

uint32_t import_attr(struct speaker *s, const struct peer *p, enum bgp_family f,
                     const struct prefix *prefix, uint32_t attr_in, enum import_why *why,
                     struct filter_verdict *verdict) {
    *verdict = (struct filter_verdict){.is_accepted = true, .rule = -1};
    uint32_t base = import_base(s, p, f, attr_in, why);
    if (!base) {
        return 0;
    }
    uint32_t id = import_filter(s, p, f, prefix, base, why, verdict);
    attr_unref(s->attrs, base);
    return id;
}

/* ---- routes in ---- */

/* Sets what a route is now; takes both references. True: the decision must be taken anew. */
static bool store(struct speaker *s, enum bgp_family f, struct rib_node *n, struct route *r,
                  uint32_t attr_in, uint32_t attr, enum import_why why) {
    bool is_changed = r->attr != attr || (r->flags & ROUTE_LLGR);
    if (r->flags & ROUTE_LLGR) {
        note_change(n, r);
    }
    attr_unref(s->attrs, r->attr_in);
    r->attr_in = attr_in;
    route_set_attr(s, f, n, r, attr);
    unsigned keep = r->flags & (ROUTE_BEST | ROUTE_IN_SET);
    const struct peer *p = peer_at(s, r->peer);
    unsigned epoch = p ? p->chan[f].epoch : 0;
    r->flags = (uint16_t)(keep | (attr ? 0 : ROUTE_REJECTED) | epoch << ROUTE_EPOCH_SHIFT |
                          (unsigned)why << ROUTE_WHY_SHIFT);
    return is_changed;
}

/* RFC 4486: AFI, SAFI and the limit. */
static void limit_reached(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct bgp_fail fail;
    uint8_t data[7] = {0, (uint8_t)bgp_afi(f), BGP_SAFI_UNICAST};
    set_u32(data + 3, p->cfg.family[f].max_prefixes);
    (void)bgp_fail_set(&fail, BGP_E_CEASE, BGP_E_CEASE_PREFIXES, data, sizeof(data));
    tell(s, &(struct speaker_event){
                .kind = EVENT_LIMIT, .peer = p->id, .family = f, .n = p->chan[f].n_routes});
    conn_fail(s, p, p->up, &fail);
}

static void table_full(struct speaker *s, struct peer *p) {
    struct bgp_fail fail;
    (void)bgp_fail_set(&fail, BGP_E_CEASE, BGP_E_CEASE_RESOURCES, NULL, 0);
    conn_fail(s, p, p->up, &fail);
}

struct import {
    struct speaker *s;
    struct peer *p;
    enum bgp_family f;
    uint32_t attr_in, base;
    enum import_why why;
};

/* False: the session is over. */
static bool import_one(const struct import *m, const struct nlri *x) {
    struct speaker *s = m->s;
    struct chan *c = &m->p->chan[m->f];
    uint32_t i = rib_put(&s->rib[m->f], x->addr, x->len);
    if (!i) {
        table_full(s, m->p);
        return false;
    }
    struct rib_node *n = rib_at(&s->rib[m->f], i);
    uint32_t *link;
    struct route *r = route_find(s, n, m->p->id, x->path_id, &link);
    bool is_new = r == NULL;
    if (is_new) {
        uint32_t max = m->p->cfg.family[m->f].max_prefixes;
        if (max && c->n_routes >= max) {
            decide(s, m->f, i); /* an empty prefix goes */
            limit_reached(s, m->p, m->f);
            return false;
        }
        r = route_add(s, n, m->p->id, x->path_id);
        c->n_routes++;
    } else if (route_is_stale(s, m->f, r) && c->n_stale) {
        c->n_stale--;
    }
    enum import_why why = m->why;
    uint32_t attr = 0;
    if (m->base && !m->p->cfg.family[m->f].import) {
        attr_ref(s->attrs, m->base);
        attr = m->base;
    } else if (m->base) {
        struct prefix prefix = rib_prefix(&s->rib[m->f], i);
        struct filter_verdict v;
        attr = import_filter(s, m->p, m->f, &prefix, m->base, &why, &v);
    }
    attr_ref(s->attrs, m->attr_in);
    if (store(s, m->f, n, r, m->attr_in, attr, why) &&
        !(is_new && decide_needless(s, m->f, n, r))) {
        decide(s, m->f, i);
    }
    return true;
}

static void withdraw_one(struct speaker *s, struct peer *p, enum bgp_family f,
                         const struct nlri *x) {
    uint32_t i = rib_find(&s->rib[f], x->addr, x->len), *link;
    struct rib_node *n = i ? rib_at(&s->rib[f], i) : NULL;
    if (n && route_find(s, n, p->id, x->path_id, &link)) {
        route_remove(s, f, n, link);
        decide(s, f, i);
    }
}

static void withdraw_list(struct speaker *s, struct peer *p, struct nlri_list l) {
    struct nlri x;
    while (nlri_next(&l, &x)) {
        withdraw_one(s, p, l.family, &x);
    }
}

static void note_leak(struct speaker *s, struct peer *p, const struct import *m) {
    if (m->why == WHY_LEAK && !p->otc_told) {
        p->otc_told = true;
        tell(s, &(struct speaker_event){.kind = EVENT_ROLE,
                                        .peer = p->id,
                                        .family = m->f,
                                        .text = import_why_text(WHY_LEAK)});
    }
}

/* False: the session is over. */
static bool reach_list(struct speaker *s, struct peer *p, struct bgp_update *u,
                       struct nlri_list l) {
    if (l.n == 0) {
        return true;
    }
    u->attrs.next_hop = l.is_classic ? u->next_hop : u->mp_next_hop;
    u->attrs.link_local = u->mp_link_local;
    if (l.is_classic) {
        memset(&u->attrs.link_local, 0, sizeof(u->attrs.link_local));
    }
    struct import m = {.s = s, .p = p, .f = l.family, .attr_in = attr_intern(s->attrs, &u->attrs)};
    m.base = import_base(s, p, l.family, m.attr_in, &m.why);
    note_leak(s, p, &m);
    struct nlri x;
    bool is_alive = true;
    while (is_alive && nlri_next(&l, &x)) {
        if (nlri_is_usable(l.family, &x)) {
            is_alive = import_one(&m, &x);
        }
    }
    attr_unref(s->attrs, m.base);
    attr_unref(s->attrs, m.attr_in);
    return is_alive;
}

static unsigned count_prefixes(const struct bgp_update *u) {
    unsigned n = 0;
    struct nlri x;
    for (unsigned i = 0; i < u->n_reach; i++) {
        for (struct nlri_list l = u->reach[i]; nlri_next(&l, &x);) {
            n++;
        }
    }
    return n;
}

void import_update(struct speaker *s, struct peer *p, const uint8_t *body, size_t n) {
    struct bgp_update u;
    struct bgp_fail f;
    enum bgp_update_verdict v = bgp_update_parse(body, n, &p->rx, &s->scratch, &u, &f);
    if (u.error) {
        p->n_update_errors++;
        tell(s, &(struct speaker_event){.kind = EVENT_UPDATE_ERROR,
                                        .peer = p->id,
                                        .text = u.error,
                                        .n = v == UPDATE_WITHDRAW ? count_prefixes(&u) : 0});
    }
    if (v == UPDATE_RESET) {
        conn_fail(s, p, p->up, &f);
        return;
    }
    for (unsigned i = 0; i < u.n_unreach; i++) {
        withdraw_list(s, p, u.unreach[i]);
    }
    for (unsigned i = 0; i < u.n_reach; i++) {
        if (v == UPDATE_WITHDRAW) {
            withdraw_list(s, p, u.reach[i]);
        } else if (!reach_list(s, p, &u, u.reach[i])) {
            return;
        }
    }
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        if (u.is_eor[i]) {
            restart_eor(s, p, (enum bgp_family)i);
        }
    }
}

/* ---- our own ---- */

static enum bgp_family family_of(const struct prefix *p) {
    return p->ip.family == IP_V4 ? BGP_V4 : BGP_V6;
}

void speaker_originate(struct speaker *s, const struct local_route *l, int64_t now) {
    s->now = now > s->now ? now : s->now;
    enum bgp_family f = family_of(&l->prefix);
    uint32_t i = rib_put(&s->rib[f], l->prefix.ip.b, l->prefix.len);
    if (!i) {
        return;
    }
    struct rib_node *n = rib_at(&s->rib[f], i);
    uint32_t *link;
    struct route *r = route_find(s, n, 0, l->source, &link);
    if (!r) {
        r = route_add(s, n, 0, l->source);
    }
    struct attr_src a = l->attrs;
    a.part[PART_LOCAL] = l->interface.n ? l->interface : STR_NULL;
    uint32_t attr = attr_intern(s->attrs, &a);
    attr_ref(s->attrs, attr);
    if (store(s, f, n, r, attr, attr, WHY_NONE)) {
        decide(s, f, i);
    }
}

bool speaker_withdraw(struct speaker *s, const struct prefix *p, enum route_source source,
                      int64_t now) {
    s->now = now > s->now ? now : s->now;
    enum bgp_family f = family_of(p);
    uint32_t i = rib_find(&s->rib[f], p->ip.b, p->len), *link;
    struct rib_node *n = i ? rib_at(&s->rib[f], i) : NULL;
    if (!n || !route_find(s, n, 0, source, &link)) {
        return false;
    }
    route_remove(s, f, n, link);
    decide(s, f, i);
    return true;
}
