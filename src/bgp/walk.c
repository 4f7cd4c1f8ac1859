/* Slow walks over a whole table, in slices: stale routes removed, policy run again, decisions taken
 * anew, a new group of peers filled. One walk a family serves all that is to be done: it goes
 * round, and each task ends when it has come by every prefix once. */
#include "bgp/speaker_int.h"

void walk_start(struct speaker *s, struct peer *p, enum bgp_family f, unsigned tasks) {
    p->chan[f].tasks |= (uint8_t)tasks;
    p->chan[f].left = s->rib[f].nodes.end;
    s->is_walking = true;
}

void walk_decide(struct speaker *s, enum bgp_family f) {
    s->decide_left[f] = s->rib[f].nodes.end;
    s->is_walking = true;
}

void walk_group(struct speaker *s, struct group *g) {
    g->left = s->rib[g->key.family].nodes.end;
    s->is_walking = true;
}

bool walk_is_due(const struct speaker *s) {
    return s->is_walking;
}

/* RFC 9494 section 4.2. False: the route goes instead. */
static bool make_llgr(struct speaker *s, enum bgp_family f, struct rib_node *n, struct route *r) {
    struct attr_src a;
    if (r->flags & (ROUTE_LLGR | ROUTE_REJECTED)) {
        return true;
    }
    attr_open(s->attrs, r->attr, &a);
    if (comm_has(a.part[PART_COMMUNITIES], COMM_NO_LLGR)) {
        return false;
    }
    uint8_t c[4];
    set_u32(c, COMM_LLGR_STALE);
    buf_reset(&s->comm);
    comm_add(&s->comm, a.part[PART_COMMUNITIES], c, sizeof(c));
    a.part[PART_COMMUNITIES] = buf_view(&s->comm);
    r->flags |= ROUTE_LLGR;
    n->flags |= (uint8_t)(((r->flags & ROUTE_BEST) ? NODE_NEW_BEST : 0) |
                          ((r->flags & ROUTE_IN_SET) ? NODE_NEW_SET : 0));
    route_set_attr(s, f, n, r, attr_intern(s->attrs, &a));
    return true;
}

static void reimport(struct speaker *s, const struct peer *p, enum bgp_family f, uint32_t node,
                     struct rib_node *n, struct route *r) {
    struct prefix prefix = rib_prefix(&s->rib[f], node);
    enum import_why why;
    struct filter_verdict v;
    uint32_t attr = import_attr(s, p, f, &prefix, r->attr_in, &why, &v);
    route_set_attr(s, f, n, r, attr);
    r->flags = (uint16_t)((r->flags & ~((unsigned)ROUTE_REJECTED | 0xfU << ROUTE_WHY_SHIFT)) |
                          (attr ? 0 : ROUTE_REJECTED) | (unsigned)why << ROUTE_WHY_SHIFT);
}

/* What a channel's tasks ask of one route. True: it was removed. */
static bool do_tasks(struct speaker *s, const struct peer *p, enum bgp_family f, uint32_t node,
                     struct rib_node *n, uint32_t *link) {
    struct route *r = pool_at(&s->routes, *link);
    unsigned tasks = p->chan[f].tasks;
    bool is_stale = route_is_stale(s, f, r);
    if ((tasks & TASK_REIMPORT) && !(r->flags & ROUTE_LLGR)) {
        reimport(s, p, f, node, n, r);
    }
    if (is_stale && ((tasks & TASK_PURGE) || ((tasks & TASK_LLGR) && !make_llgr(s, f, n, r)))) {
        route_remove(s, f, n, link);
        return true;
    }
    return false;
}

/* True: something of the prefix may have changed. */
static bool visit_routes(struct speaker *s, enum bgp_family f, uint32_t node, struct rib_node *n) {
    bool is_touched = false;
    for (uint32_t *l = &n->routes; *l;) {
        struct route *r = pool_at(&s->routes, *l);
        const struct peer *p = peer_at(s, r->peer);
        if (p && p->chan[f].tasks) {
            is_touched = true;
            if (do_tasks(s, p, f, node, n, l)) {
                continue;
            }
        }
        l = &((struct route *)pool_at(&s->routes, *l))->next;
    }
    return is_touched;
}

static void visit(struct speaker *s, enum bgp_family f, uint32_t node) {
    struct rib_node *n = rib_at(&s->rib[f], node);
    if (!(n->flags & NODE_USED)) {
        return;
    }
    bool is_touched = visit_routes(s, f, node, n);
    for (size_t i = 0; i < s->groups.n && !s->is_deferring; i++) {
        struct group *g = s->groups.p[i];
        if (g && g->left && g->key.family == f && n->routes) {
            group_update(s, g, node, true);
        }
    }
    if (is_touched || s->decide_left[f]) {
        decide(s, f, node); /* the node may be gone afterwards */
    }
}

static bool less(uint32_t *left, uint32_t n) {
    *left = *left > n ? *left - n : 0;
    return *left != 0;
}

static void end_tasks(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct chan *c = &p->chan[f];
    if (c->tasks & TASK_PURGE) {
        c->n_stale = 0;
        c->n_bumps = 0;
    }
    c->tasks = 0;
    c->left = 0;
    peer_forget(s, p);
}

/* n prefixes were visited: what is over? True: something is left. */
static bool account(struct speaker *s, enum bgp_family f, uint32_t n) {
    bool is_left = false;
    if (s->decide_left[f]) {
        is_left = less(&s->decide_left[f], n);
    }
    for (size_t i = 1; i < s->peers.n; i++) {
        struct peer *p = s->peers.p[i];
        if (p && p->chan[f].tasks) {
            if (less(&p->chan[f].left, n)) {
                is_left = true;
            } else {
                end_tasks(s, p, f);
            }
        }
    }
    for (size_t i = 0; i < s->groups.n; i++) {
        struct group *g = s->groups.p[i];
        if (g && g->key.family == f && g->left) {
            if (less(&g->left, n)) {
                is_left = true;
            } else {
                out_wake(s, g); /* End-of-RIB can go out */
            }
        }
    }
    return is_left;
}

static bool has_work(const struct speaker *s, enum bgp_family f) {
    if (s->decide_left[f]) {
        return true;
    }
    for (size_t i = 1; i < s->peers.n; i++) {
        if (s->peers.p[i] && s->peers.p[i]->chan[f].tasks) {
            return true;
        }
    }
    for (size_t i = 0; i < s->groups.n; i++) {
        if (s->groups.p[i] && s->groups.p[i]->left && s->groups.p[i]->key.family == f) {
            return true;
        }
    }
    return false;
}

static bool run_family(struct speaker *s, enum bgp_family f, uint32_t max) {
    uint32_t n = 0, *at = &s->walk_at[f], end = s->rib[f].nodes.end;
    while (n < max && n < end) {
        if (*at >= end) {
            *at = 0;
        }
        if (*at) {
            visit(s, f, *at);
        }
        (*at)++;
        n++;
    }
    return account(s, f, n);
}

/* Groups that nobody is in any more. True: something is left. */
static bool bury_groups(struct speaker *s, unsigned max) {
    bool is_left = false;
    for (size_t i = 0; i < s->groups.n; i++) {
        struct group *g = s->groups.p[i];
        if (g && !g->n_chans) {
            is_left = !group_bury(s, g, max) || is_left;
        }
    }
    return is_left;
}

void walk_run(struct speaker *s, unsigned max) {
    bool is_left = bury_groups(s, max);
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        enum bgp_family f = (enum bgp_family)i;
        if (has_work(s, f)) {
            is_left = run_family(s, f, max) || is_left;
        }
    }
    s->is_walking = is_left;
    if (!is_left && s->ready_due) {
        s->ready_due = false;
        for (size_t i = 0; i < s->groups.n; i++) {
            if (s->groups.p[i]) {
                out_wake(s, s->groups.p[i]); /* now End-of-RIB may go out */
            }
        }
        tell(s, &(struct speaker_event){.kind = EVENT_READY});
    }
}

void walk_finish(struct speaker *s, struct peer *p, enum bgp_family f) {
    for (uint32_t i = 1; i < s->rib[f].nodes.end; i++) {
        struct rib_node *n = rib_at(&s->rib[f], i);
        bool is_touched = false;
        if (!(n->flags & NODE_USED)) {
            continue;
        }
        for (uint32_t *l = &n->routes; *l;) {
            struct route *r = pool_at(&s->routes, *l);
            if (r->peer == p->id) {
                is_touched = true;
                if (do_tasks(s, p, f, i, n, l)) {
                    continue;
                }
            }
            l = &r->next;
        }
        if (is_touched) {
            decide(s, f, i);
        }
    }
}
