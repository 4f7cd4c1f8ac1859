/* Looking into the engine: status, routes, and why a route is announced or not. */
#include "bgp/speaker_int.h"

bool speaker_peer_status(const struct speaker *s, uint16_t id, struct peer_status *out) {
    const struct peer *p = peer_at(s, id);
    if (!p || p->is_dead) {
        return false;
    }
    const struct conn *c = p->up;
    *out = (struct peer_status){.state = p->state,
                                .reason = p->state == BGP_ESTABLISHED ? "" : p->reason,
                                .address = p->address,
                                .as = c ? p->remote_as : p->cfg.as,
                                .router_id = p->remote_id,
                                .is_dynamic = p->is_dynamic,
                                .since = p->since,
                                .hold_s = c ? (uint16_t)(c->hold_ns / S_NS) : 0,
                                .keepalive_s = c ? (uint16_t)(c->keepalive_ns / S_NS) : 0,
                                .sent = p->sent,
                                .last = p->last,
                                .last_is_sent = p->last_is_sent,
                                .last_at = p->last_at,
                                .msgs_in = p->msgs_in,
                                .msgs_out = p->msgs_out,
                                .updates_in = p->updates_in,
                                .updates_out = p->updates_out,
                                .bytes_in = p->bytes_in,
                                .bytes_out = p->bytes_out,
                                .n_established = p->n_established,
                                .n_update_errors = p->n_update_errors};
    if (c) {
        out->received = c->open.caps;
    }
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        const struct chan *ch = &p->chan[f];
        out->family[f] = (struct family_status){
            .is_negotiated = ch->is_up,
            .addpath_send = ch->addpath_tx,
            .addpath_receive = ch->addpath_rx,
            .n_received = ch->n_routes,
            .n_accepted = ch->n_accepted,
            .n_stale = ch->n_stale,
            .n_best = ch->n_best,
            .n_sent = ch->group ? ch->group->n_outs - ch->group->n_gone : 0,
            .is_eor_received = ch->eor_in,
            .is_eor_sent = ch->eor_out,
            .is_in_sync = c && out_in_sync(s, ch) && c->n_waiting == 0,
        };
    }
    return true;
}

/* ---- routes ---- */

static void view(const struct speaker *s, enum bgp_family f, uint32_t node, const struct route *r,
                 struct route_view *v) {
    bool is_local = r->peer == 0;
    *v = (struct route_view){
        .prefix = rib_prefix(&s->rib[f], node),
        .peer = r->peer,
        .source = is_local ? (enum route_source)r->path_id : ROUTE_PEER,
        .path_id = is_local ? 0 : r->path_id,
        .attr_in = r->attr_in,
        .is_best = r->flags & ROUTE_BEST,
        .is_in_kernel_set = r->flags & ROUTE_IN_SET,
        .is_stale = route_is_stale(s, f, r),
        .is_llgr_stale = r->flags & ROUTE_LLGR,
        .is_rejected = r->flags & ROUTE_REJECTED,
        .is_unreachable = r->attr && !route_is_usable(s, r),
    };
    attr_open(s->attrs, r->attr ? r->attr : r->attr_in, &v->attrs);
}

static void view_node(const struct speaker *s, enum bgp_family f, uint32_t node,
                      void (*fn)(void *user, const struct route_view *v), void *user) {
    for (uint32_t i = rib_at(&s->rib[f], node)->routes; i;) {
        const struct route *r = pool_at(&s->routes, i);
        struct route_view v;
        view(s, f, node, r, &v);
        fn(user, &v);
        i = r->next;
    }
}

void speaker_routes(const struct speaker *s, enum bgp_family f, uint32_t *at, unsigned max,
                    void (*fn)(void *user, const struct route_view *v), void *user) {
    uint32_t end = s->rib[f].nodes.end, i = *at ? *at : 1;
    for (unsigned n = 0; i < end && n < max; i++, n++) {
        if (rib_at(&s->rib[f], i)->flags & NODE_USED) {
            view_node(s, f, i, fn, user);
        }
    }
    *at = i < end ? i : 0;
}

static enum bgp_family family_of(const struct ip46 *ip) {
    return ip->family == IP_V4 ? BGP_V4 : BGP_V6;
}

void speaker_routes_of(const struct speaker *s, const struct prefix *p,
                       void (*fn)(void *user, const struct route_view *v), void *user) {
    enum bgp_family f = family_of(&p->ip);
    uint32_t node = rib_find(&s->rib[f], p->ip.b, p->len);
    if (node) {
        view_node(s, f, node, fn, user);
    }
}

static const struct route *best_of(const struct speaker *s, const struct rib_node *n) {
    const struct route *r = n->routes ? pool_at(&s->routes, n->routes) : NULL;
    return r && (r->flags & ROUTE_BEST) ? r : NULL;
}

bool speaker_lookup(const struct speaker *s, const struct ip46 *ip, struct prefix *out) {
    enum bgp_family f = family_of(ip);
    for (int len = (int)bgp_bits(f); len >= 0; len--) {
        struct prefix p = prefix_mask((struct prefix){.ip = *ip, .len = (uint8_t)len});
        uint32_t node = rib_find(&s->rib[f], p.ip.b, p.len);
        if (node && best_of(s, rib_at(&s->rib[f], node))) {
            *out = p;
            return true;
        }
    }
    return false;
}

void speaker_sent_routes(const struct speaker *s, uint16_t peer, enum bgp_family f, uint32_t *at,
                         unsigned max, void (*fn)(void *user, const struct route_view *v),
                         void *user) {
    const struct peer *p = peer_at(s, peer);
    const struct group *g = p ? p->chan[f].group : NULL;
    uint32_t end = s->rib[f].nodes.end, node = *at ? *at : 1;
    if (!g) {
        *at = 0;
        return;
    }
    for (unsigned n = 0; node < end && n < max; node++, n++) {
        const struct rib_node *x = rib_at(&s->rib[f], node);
        if (!(x->flags & NODE_USED)) {
            continue;
        }
        for (uint32_t i = x->outs; i;) {
            const struct out *o = pool_at(&s->outs, i);
            i = o->chain;
            if ((o->group & OUT_GROUP) != g->id || !o->attr || o->source == peer) {
                continue;
            }
            struct route_view v = {
                .prefix = rib_prefix(&s->rib[f], node), .peer = o->source, .path_id = o->path_id};
            attr_open(s->attrs, o->attr, &v.attrs);
            fn(user, &v);
        }
    }
    *at = node < end ? node : 0;
}

void speaker_stats(const struct speaker *s, struct speaker_stats *out) {
    *out = (struct speaker_stats){.n_routes = s->routes.n_used,
                                  .n_attrs = attr_store_count(s->attrs),
                                  .bytes = pool_bytes(&s->routes) + pool_bytes(&s->outs) +
                                           attr_store_bytes(s->attrs)};
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        out->n_prefixes[f] = s->rib[f].nodes.n_used;
        out->bytes += rib_bytes(&s->rib[f]);
    }
    for (uint32_t i = 1; i < nexthops_end(s->hops); i++) {
        out->n_next_hops += nexthop_get(s->hops, i)->n_refs > 0;
    }
    for (size_t i = 0; i < s->groups.n; i++) {
        out->n_groups += s->groups.p[i] != NULL;
        out->n_out += s->groups.p[i] ? s->groups.p[i]->n_outs : 0;
    }
    for (size_t i = 1; i < s->peers.n; i++) {
        out->n_peers += s->peers.p[i] != NULL;
    }
}

/* ---- explain ---- */

static void put_source(const struct speaker *s, struct buf *b, const struct route *r) {
    static const char *const SOURCES[] = {"peer", "kernel", "connected", "static", "pod"};
    const struct peer *p = peer_at(s, r->peer);
    char text[IP_TEXT_MAX];
    if (p) {
        buf_printf(b, "from %.*s (%s, AS %u)", STR_FMT(p->cfg.name), ip_text(&p->address, text),
                   p->remote_as);
        if (r->path_id) {
            buf_printf(b, " path %u", r->path_id);
        }
    } else {
        buf_printf(b, "own (%s)", SOURCES[r->path_id % ARRAY_LEN(SOURCES)]);
    }
}

static void put_attrs(const struct speaker *s, struct buf *b, const struct route *r) {
    struct attr_src a;
    char text[IP_TEXT_MAX];
    attr_open(s->attrs, r->attr ? r->attr : r->attr_in, &a);
    buf_puts(b, ", AS path \"");
    as_path_print(b, a.part[PART_AS_PATH]);
    buf_puts(b, "\"");
    if (a.next_hop.family != IP_NONE) {
        buf_printf(b, ", next hop %s", ip_text(&a.next_hop, text));
    }
    if (r->attr) {
        buf_printf(b, ", local preference %u", route_local_pref(s, r));
    }
    if (a.has & HAS_MED) {
        buf_printf(b, ", MED %u", a.med);
    }
}

static void explain_import(struct speaker *s, enum bgp_family f, uint32_t node,
                           const struct route *r, struct buf *b) {
    const struct peer *p = peer_at(s, r->peer);
    if (!p || !p->cfg.family[f].import) {
        return;
    }
    struct prefix prefix = rib_prefix(&s->rib[f], node);
    enum import_why why;
    struct filter_verdict v;
    attr_unref(s->attrs, import_attr(s, p, f, &prefix, r->attr_in, &why, &v));
    if (why == WHY_NONE || why == WHY_FILTER) {
        buf_printf(b, "; import: %s by %s", v.is_accepted ? "accepted" : "rejected",
                   bgp_filter_rule_name(p->cfg.family[f].import, v.rule));
    }
}

static void explain_route(struct speaker *s, enum bgp_family f, uint32_t node,
                          const struct route *r, const struct route *best, struct buf *b) {
    enum decide_step step = STEP_ONLY;
    buf_puts(b, "  ");
    put_source(s, b, r);
    put_attrs(s, b, r);
    buf_puts(b, ": ");
    if (r->flags & ROUTE_REJECTED) {
        enum import_why why = (enum import_why)((r->flags >> ROUTE_WHY_SHIFT) & 0xf);
        buf_puts(b, import_why_text(why));
    } else if (r == best) {
        buf_puts(b, "best");
    } else if (!route_is_usable(s, r)) {
        buf_puts(b, "not usable: its next hop is unreachable");
    } else if (best) {
        (void)route_compare(s, best, r, &step);
        buf_printf(b, "not best: %s", decide_step_text(step));
    } else {
        buf_puts(b, "not decided yet");
    }
    if ((r->flags & ROUTE_IN_SET) && r != best) {
        buf_puts(b, ", shares the traffic");
    }
    if (r->flags & ROUTE_LLGR) {
        buf_puts(b, ", long-lived stale");
    } else if (route_is_stale(s, f, r)) {
        buf_puts(b, ", stale");
    }
    explain_import(s, f, node, r, b);
    buf_putc(b, '\n');
}

static void explain_peer(struct speaker *s, const struct peer *p, enum bgp_family f, uint32_t node,
                         const struct route *best, struct buf *b) {
    struct group *g = p->chan[f].group;
    buf_printf(b, "  to %.*s: ", STR_FMT(p->cfg.name));
    if (!g) {
        buf_printf(b, "no, %s\n",
                   p->up ? "the address family was not negotiated" : "not established");
        return;
    }
    if (!best) {
        buf_puts(b, "no, there is no usable route\n");
        return;
    }
    if (best->peer == p->id) {
        buf_puts(b, "no, it came from there\n");
        return;
    }
    struct export_why why;
    uint32_t attr = export_attr(s, g, node, best, &why);
    if (attr) {
        buf_puts(b, "yes");
    } else {
        buf_printf(b, "no, %s", why.text);
    }
    if (g->filter && !(why.text && why.verdict.is_accepted)) {
        buf_printf(b, " (%s)", bgp_filter_rule_name(g->filter, why.verdict.rule));
    }
    buf_putc(b, '\n');
    attr_unref(s->attrs, attr);
}

void speaker_explain(struct speaker *s, const struct prefix *p, uint16_t peer, struct buf *out) {
    enum bgp_family f = family_of(&p->ip);
    uint32_t node = rib_find(&s->rib[f], p->ip.b, p->len);
    char text[IP_TEXT_MAX];
    buf_printf(out, "%s\n", prefix_text(p, text));
    const struct rib_node *n = node ? rib_at(&s->rib[f], node) : NULL;
    if (!n || !n->routes) {
        buf_puts(out, "  no route\n");
        return;
    }
    const struct route *best = best_of(s, n);
    for (uint32_t i = n->routes; i;) {
        const struct route *r = pool_at(&s->routes, i);
        explain_route(s, f, node, r, best, out);
        i = r->next;
    }
    for (uint16_t id = 0; (id = speaker_peer_next(s, id));) {
        const struct peer *q = peer_at(s, id);
        if ((!peer || peer == id) && q->address.family != IP_NONE) {
            explain_peer(s, q, f, node, best, out);
        }
    }
}
