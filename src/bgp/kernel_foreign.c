/* What is in the kernel and not ours: links, addresses, routes of others. From these come the
 * speaker's local routes and the ways to next hops. */
#include "bgp/kernel_int.h"

#include <stdio.h>
#include <stdlib.h>

enum { PROTO_RA = 9 };

struct str kernel_link_name(const struct bgp_kernel *k, int ifindex) {
    const struct klink *l = link_map_get(&k->links, ifindex);
    return l ? str_c(l->name) : STR_NULL;
}

/* The agent's tunnels: VXLAN, WireGuard, and IPIP while the agent writes its routes. */
static bool is_tunnel(const struct bgp_kernel *k, int oif) {
    struct str name = kernel_link_name(k, oif);
    if (str_is(name, "tunl0")) {
        for (size_t i = 0; k->conf && i < k->conf->n_kernel; i++) {
            enum kernel_verdict v = k->conf->kernel[i].verdict;
            if (v == KERNEL_TUNNEL || v == KERNEL_CROSS) {
                return false;
            }
        }
        return true;
    }
    return str_ends(name, STR(".calico")) || str_ends(name, STR(".cali")) ||
           str_ends(name, STR(".margay"));
}

bool kernel_is_ours(const struct bgp_kernel *k, const struct route *r) {
    bool has_gateway = r->via.family || r->n_ways;
    if (r->protocol != KERNEL_PROTOCOL) {
        return false;
    }
    if (r->type == RTN_BLACKHOLE) {
        return k->is_alone; /* the agent writes those of the node's blocks */
    }
    return r->type == RTN_UNICAST && has_gateway && (k->is_alone || !is_tunnel(k, r->oif));
}

bool kernel_is_of_interest(const struct route *r) {
    return (r->table == RT_TABLE_MAIN || r->table == 0) &&
           (r->type == RTN_UNICAST || r->type == RTN_BLACKHOLE || r->type == RTN_UNREACHABLE ||
            r->type == RTN_PROHIBIT);
}

/* ---- the table ---- */

static bool is_same(const struct foreign *f, const struct route *r) {
    return f->metric == r->metric && f->protocol == r->protocol && f->type == r->type &&
           (f->n_ways || r->n_ways ? f->n_ways == r->n_ways
                                   : f->oif == r->oif && ip_eq(&f->via, &r->via));
}

void kernel_foreign_set(struct bgp_kernel *k, const struct route *r, bool is_gone) {
    struct prefix p = prefix_mask(r->dst);
    bool is_new;
    struct foreign **head = foreign_map_put(&k->foreign, p, &is_new), **at = head;
    /* IPv4 has one route for prefix and metric (but for `ip route append`); a change comes as
     * NEWROUTE. In IPv6 each next hop of a multipath route may come by itself. */
    while (*at && !is_same(*at, r)) {
        at = &(*at)->next;
    }
    if (*at && is_gone) {
        struct foreign *old = *at;
        *at = old->next;
        free(old);
        k->stats.n_foreign--;
    } else if (!*at && !is_gone) {
        struct foreign *f = calloc(1, sizeof(*f) + r->n_ways * sizeof(r->ways[0]));
        mg_assert(f);
        f->metric = r->metric;
        f->protocol = r->protocol;
        f->type = r->type;
        f->oif = r->oif;
        f->via = r->via;
        f->n_ways = r->n_ways;
        memcpy(f->ways, r->ways, r->n_ways * sizeof(r->ways[0]));
        at = head;
        if (r->dst.ip.family == IP_V4) { /* a replaced route: the one of this metric goes */
            for (struct foreign **old = head; *old; old = &(*old)->next) {
                if ((*old)->metric == r->metric) {
                    struct foreign *gone = *old;
                    *old = gone->next;
                    free(gone);
                    k->stats.n_foreign--;
                    break;
                }
            }
        }
        while (*at && (*at)->metric <= f->metric) {
            at = &(*at)->next;
        }
        f->next = *at;
        *at = f;
        k->stats.n_foreign++;
    }
    if (!*head) {
        (void)foreign_map_del(&k->foreign, p);
    }
    k->routes_changed = true;
    vec_push(&k->foreign_dirty, p);
}

void kernel_foreign_clear(struct bgp_kernel *k) {
    struct prefix p;
    struct foreign **f;
    for (size_t i = 0; foreign_map_next(&k->foreign, &i, &p, &f);) {
        while (*f) {
            struct foreign *old = *f;
            *f = old->next;
            free(old);
        }
    }
    foreign_map_fini(&k->foreign);
    k->stats.n_foreign = 0;
}

const struct foreign *kernel_bird_route(const struct bgp_kernel *k, const struct prefix *p) {
    struct foreign **list = foreign_map_get(&k->foreign, *p);
    const struct foreign *f = list && !k->is_alone ? *list : NULL;
    while (f && (f->protocol != KERNEL_BIRD ||
                 !(f->type == RTN_BLACKHOLE || f->via.family || f->n_ways))) {
        f = f->next;
    }
    return f;
}

/* ---- next hops ---- */

static bool link_is_up(const struct bgp_kernel *k, int ifindex) {
    const struct klink *l = link_map_get(&k->links, ifindex);
    return l && l->is_up;
}

static bool is_usable(const struct bgp_kernel *k, const struct foreign *f) {
    if (f->type != RTN_UNICAST) {
        return true; /* it decides: there is no way */
    }
    if (!f->n_ways) {
        return link_is_up(k, f->oif);
    }
    for (size_t i = 0; i < f->n_ways; i++) {
        if (link_is_up(k, f->ways[i].oif)) {
            return true;
        }
    }
    return false;
}

static const struct foreign *lookup(const struct bgp_kernel *k, const struct ip46 *ip) {
    for (int len = (int)ip_bits(ip); len >= 0; len--) {
        struct prefix p = prefix_mask((struct prefix){*ip, (uint8_t)len});
        struct foreign **f = foreign_map_get(&k->foreign, p);
        for (const struct foreign *x = f ? *f : NULL; x; x = x->next) {
            if (x->protocol != KERNEL_BIRD && is_usable(k, x)) {
                return x;
            }
        }
    }
    return NULL;
}

size_t kernel_resolve(const struct bgp_kernel *k, const struct kernel_hop *hop,
                      struct route_way out[ROUTE_WAYS_MAX], uint32_t *cost) {
    *cost = 0;
    bool is_ll = ip_is_link_local(&hop->ip);
    if (is_ll || hop->ip.family == IP_NONE) {
        const struct ip46 *via = is_ll ? &hop->ip : &hop->link_local;
        if (via->family == IP_NONE || !hop->ifindex || !link_is_up(k, hop->ifindex)) {
            return 0;
        }
        out[0] = (struct route_way){*via, hop->ifindex, 1, false};
        return 1;
    }
    const struct foreign *f = lookup(k, &hop->ip);
    if (!f || f->type != RTN_UNICAST) {
        return 0;
    }
    *cost = f->protocol == RTPROT_KERNEL ? 0 : f->metric + 1 ? f->metric + 1 : f->metric;
    if (!f->n_ways) {
        out[0] = (struct route_way){f->via.family ? f->via : hop->ip, f->oif, 1, false};
        return 1;
    }
    size_t n = 0;
    for (size_t i = 0; i < f->n_ways; i++) {
        if (link_is_up(k, f->ways[i].oif)) {
            out[n] = f->ways[i];
            if (!out[n].via.family) {
                out[n].via = hop->ip;
            }
            n++;
        }
    }
    return n;
}

static void tell_watches(struct bgp_kernel *k) {
    for (size_t i = 0; i < k->watches.n; i++) {
        struct watch *w = &k->watches.p[i];
        struct kernel_hop hop = {w->ip, w->link_local, w->ifindex, 1};
        struct route_way ways[ROUTE_WAYS_MAX];
        uint32_t cost;
        size_t n = kernel_resolve(k, &hop, ways, &cost);
        struct str name = n ? kernel_link_name(k, ways[0].oif) : STR("");
        if (!w->is_new && w->is_reachable == (n > 0) && w->cost == cost &&
            str_is(name, w->interface)) {
            continue;
        }
        w->is_new = false;
        w->is_reachable = n > 0;
        w->cost = cost;
        (void)snprintf(w->interface, sizeof(w->interface), "%.*s", STR_FMT(name));
        struct watch copy = *w; /* the speaker may ask for more in the call */
        k->ops.nexthop(k->arg, &copy.ip, &copy.link_local, copy.is_reachable, cost,
                       str_c(copy.interface));
    }
}

void kernel_watches_tell(struct bgp_kernel *k) {
    do { /* the answer to one may be another question */
        k->watches_changed = false;
        tell_watches(k);
    } while (k->watches_changed);
}

/* ---- local routes ---- */

static bool is_special(const struct prefix *p) {
    const uint8_t *b = p->ip.b;
    if (p->len == 0) {
        return false;
    }
    if (p->ip.family == IP_V4) {
        return b[0] == 127 || b[0] >= 224 || (b[0] == 169 && b[1] == 254);
    }
    static const uint8_t LOOPBACK[16] = {[15] = 1};
    return b[0] == 0xff || (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) || memcmp(b, LOOPBACK, 16) == 0;
}

/* What BIRD's learn takes: not the kernel's own, not redirects; and no router advertisements, nor
 * what a BIRD of this node left, nor the agent's blackholes, which stand for blocks. */
static bool is_learned(const struct foreign *f) {
    return !(f->protocol == KERNEL_PROTOCOL && f->type == RTN_BLACKHOLE) &&
           f->protocol != RTPROT_KERNEL && f->protocol != RTPROT_REDIRECT &&
           f->protocol != KERNEL_BIRD && f->protocol != PROTO_RA;
}

static void originate(struct bgp_kernel *k, const struct prefix *p, enum route_source source,
                      struct str interface, uint32_t metric) {
    struct local_route r = {.prefix = *p, .source = source, .interface = interface};
    uint32_t dflt = k->conf->priority[p->ip.family == IP_V6];
    r.attrs.origin = ORIGIN_IGP;
    r.attrs.has = HAS_LOCAL_PREF;
    r.attrs.local_pref = BGP_PRIORITY_BASE - (metric && metric < BGP_PRIORITY_BASE ? metric : dflt);
    k->ops.originate(k->arg, &r);
}

static void tell_one(struct bgp_kernel *k, const struct prefix *p) {
    struct foreign **list = foreign_map_get(&k->foreign, *p);
    const struct foreign *f = list && !is_special(p) ? *list : NULL;
    while (f && !is_learned(f)) {
        f = f->next;
    }
    struct told *old = told_map_get(&k->told, *p);
    if (!f) {
        if (old) {
            k->ops.withdraw(k->arg, p, (enum route_source)old->source);
            (void)told_map_del(&k->told, *p);
        }
        return;
    }
    struct str name = kernel_link_name(k, f->n_ways ? f->ways[0].oif : f->oif);
    enum route_source source =
        p->len == ip_bits(&p->ip) && str_starts(name, STR("cali")) ? ROUTE_LOCAL : ROUTE_KERNEL;
    uint32_t sum = (uint32_t)hash_fixed(f->metric, name.p ? name.p : "", name.n);
    if (old && old->sum == sum && old->source == source) {
        return;
    }
    if (old && old->source != source) {
        k->ops.withdraw(k->arg, p, (enum route_source)old->source);
    }
    *told_map_put(&k->told, *p, NULL) = (struct told){sum, (uint8_t)source};
    originate(k, p, source, name, f->metric);
}

void kernel_foreign_tell(struct bgp_kernel *k) {
    for (size_t i = 0; i < k->foreign_dirty.n; i++) {
        struct prefix p = k->foreign_dirty.p[i];
        tell_one(k, &p);
        /* A conflict may be over. */
        struct entry *en = kernel_entry(k, &p);
        if (en && en->is_conflict) {
            kernel_mark(k, &p, en);
        }
    }
    vec_clear(&k->foreign_dirty);
}

void kernel_foreign_dirty_all(struct bgp_kernel *k) {
    struct prefix p;
    for (size_t i = 0; foreign_map_next(&k->foreign, &i, &p, NULL);) {
        vec_push(&k->foreign_dirty, p);
    }
    for (size_t i = 0; told_map_next(&k->told, &i, &p, NULL);) {
        vec_push(&k->foreign_dirty, p);
    }
}

static int compare_prefixes(const void *a, const void *b) {
    return prefix_cmp(a, b);
}

void kernel_connected_tell(struct bgp_kernel *k) {
    VEC(struct prefix) now = {0};
    for (size_t i = 0; i < k->addrs.n; i++) {
        struct prefix p = prefix_mask(k->addrs.p[i].net);
        struct str name = kernel_link_name(k, k->addrs.p[i].index);
        if (!is_special(&p) && p.len && link_is_up(k, k->addrs.p[i].index) &&
            !bgp_conf_is_ignored(k->conf, name)) {
            vec_push(&now, p);
        }
    }
    vec_sort(&now, compare_prefixes);
    size_t i = 0, j = 0;
    while (i < now.n || j < k->connected.n) {
        int c = i == now.n            ? 1
                : j == k->connected.n ? -1
                                      : prefix_cmp(&now.p[i], &k->connected.p[j]);
        if (c > 0) {
            k->ops.withdraw(k->arg, &k->connected.p[j++], ROUTE_CONNECTED);
            continue;
        }
        if (c < 0) {
            struct str name = STR_NULL;
            for (size_t m = 0; m < k->addrs.n && !name.p; m++) {
                struct prefix p = prefix_mask(k->addrs.p[m].net);
                if (prefix_eq(&p, &now.p[i])) {
                    name = kernel_link_name(k, k->addrs.p[m].index);
                }
            }
            originate(k, &now.p[i], ROUTE_CONNECTED, name, 0);
        } else {
            j++;
        }
        do {
            i++;
        } while (i < now.n && prefix_eq(&now.p[i], &now.p[i - 1]));
    }
    size_t n = 0;
    for (size_t m = 0; m < now.n; m++) {
        if (m == 0 || !prefix_eq(&now.p[m], &now.p[m - 1])) {
            now.p[n++] = now.p[m];
        }
    }
    now.n = n;
    vec_fini(&k->connected);
    k->connected.p = now.p;
    k->connected.n = now.n;
    k->connected.cap = now.cap;
}
