/* Ways and wants: shared descriptions of routes, so that a table of 100,000 prefixes holds numbers.
 */
#include "bgp/kernel_int.h"

#include <stdlib.h>

struct ways {
    VEC(struct way *) all; /* by number - 1; NULL: free */
    VEC(uint32_t) free;
    struct number_map by_sum;
};

struct ways *ways_new(void) {
    struct ways *w = calloc(1, sizeof(*w));
    mg_assert(w);
    return w;
}

void ways_free(struct ways *w) {
    if (!w) {
        return;
    }
    for (size_t i = 0; i < w->all.n; i++) {
        free(w->all.p[i]);
    }
    vec_fini(&w->all);
    vec_fini(&w->free);
    number_map_fini(&w->by_sum);
    free(w);
}

static int compare_hops(const void *x, const void *y) {
    const struct route_way *a = x, *b = y;
    int r = ip_cmp(&a->via, &b->via);
    return r ? r : a->oif < b->oif ? -1 : a->oif > b->oif;
}

/* Sorted, equal ones once with the sum of their weights, weights from 1 to 256. */
static size_t tidy(struct route_way *h, size_t n) {
    size_t m = 0;
    uint32_t max = 0;
    if (n > 1) {
        qsort(h, n, sizeof(*h), compare_hops);
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t weight = h[i].weight ? h[i].weight : 1;
        if (m && compare_hops(&h[m - 1], &h[i]) == 0) {
            weight += h[m - 1].weight;
            h[m - 1].weight = (uint16_t)(weight > UINT16_MAX ? UINT16_MAX : weight);
        } else {
            h[m] = h[i];
            h[m].weight = (uint16_t)weight;
            m++;
        }
        max = h[m - 1].weight > max ? h[m - 1].weight : max;
    }
    for (size_t i = 0; i < m; i++) {
        uint32_t weight = max > 256 ? h[i].weight * 256U / max : h[i].weight;
        h[i].weight = (uint16_t)(m == 1 || weight == 0 ? 1 : weight);
    }
    return m;
}

static uint64_t way_sum(uint8_t type, uint32_t metric, const struct route_way *h, size_t n) {
    uint64_t sum = hash_u64((uint64_t)type << 32 | metric) + n;
    for (size_t i = 0; i < n; i++) {
        uint64_t rest =
            (uint64_t)(uint32_t)h[i].oif << 32 | (uint32_t)h[i].weight << 8 | h[i].is_onlink;
        sum = hash_u64(sum ^ ip_hash(&h[i].via) ^ hash_u64(rest));
    }
    return sum;
}

static bool way_is(const struct way *w, uint8_t type, uint32_t metric, const struct route_way *h,
                   size_t n) {
    if (w->type != type || w->metric != metric || w->n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (compare_hops(&w->hops[i], &h[i]) || w->hops[i].weight != h[i].weight ||
            w->hops[i].is_onlink != h[i].is_onlink) {
            return false;
        }
    }
    return true;
}

uint32_t way_intern(struct ways *w, uint8_t type, uint32_t metric, struct route_way *hops,
                    size_t n) {
    n = tidy(hops, n);
    uint64_t sum = way_sum(type, metric, hops, n);
    bool is_new;
    uint32_t *at = number_map_put(&w->by_sum, sum, &is_new);
    if (!is_new && way_is(w->all.p[*at - 1], type, metric, hops, n)) {
        w->all.p[*at - 1]->n_refs++;
        return *at;
    }
    struct way *x = calloc(1, sizeof(*x) + n * sizeof(*hops));
    mg_assert(x);
    x->n_refs = 1;
    x->type = type;
    x->metric = metric;
    x->n = (uint8_t)n;
    if (n) {
        memcpy(x->hops, hops, n * sizeof(*hops));
    }
    uint32_t id;
    if (w->free.n) {
        id = w->free.p[--w->free.n];
        w->all.p[id - 1] = x;
    } else {
        vec_push(&w->all, x);
        id = (uint32_t)w->all.n;
    }
    if (is_new) {
        *at = id;
    }
    return id;
}

void way_ref(struct ways *w, uint32_t id) {
    if (id) {
        w->all.p[id - 1]->n_refs++;
    }
}

void way_unref(struct ways *w, uint32_t id) {
    if (!id || --w->all.p[id - 1]->n_refs) {
        return;
    }
    struct way *x = w->all.p[id - 1];
    uint64_t sum = way_sum(x->type, x->metric, x->hops, x->n);
    uint32_t *at = number_map_get(&w->by_sum, sum);
    if (at && *at == id) {
        (void)number_map_del(&w->by_sum, sum);
    }
    free(x);
    w->all.p[id - 1] = NULL;
    vec_push(&w->free, id);
}

const struct way *way_get(const struct ways *w, uint32_t id) {
    return id ? w->all.p[id - 1] : NULL;
}

uint32_t way_of_route(struct ways *w, const struct route *r) {
    struct route_way hops[ROUTE_WAYS_MAX];
    size_t n = r->n_ways;
    if (n) {
        memcpy(hops, r->ways, n * sizeof(*hops));
    } else if (r->type == RTN_UNICAST) {
        hops[0] = (struct route_way){r->via, r->oif, 1, r->is_onlink};
        n = 1;
    }
    return way_intern(w, r->type, r->metric, hops, n);
}

void way_to_route(const struct way *w, const struct prefix *p, struct route *out) {
    *out = (struct route){.dst = *p,
                          .table = RT_TABLE_MAIN,
                          .metric = w->metric,
                          .protocol = KERNEL_PROTOCOL,
                          .type = w->type};
    if (w->n == 1) {
        out->via = w->hops[0].via;
        out->oif = w->hops[0].oif;
        out->is_onlink = w->hops[0].is_onlink;
    } else {
        out->n_ways = w->n;
        memcpy(out->ways, w->hops, w->n * sizeof(w->hops[0]));
    }
}

/* ---- wants ---- */

static uint64_t want_sum(uint8_t family, uint32_t local_pref, const struct kernel_hop *h,
                         size_t n) {
    uint64_t sum = hash_u64((uint64_t)family << 32 | local_pref) + n;
    for (size_t i = 0; i < n; i++) {
        uint64_t rest = (uint64_t)(uint32_t)h[i].ifindex << 32 | h[i].weight;
        sum = hash_u64(sum ^ ip_hash(&h[i].ip) ^ hash_u64(ip_hash(&h[i].link_local)) ^
                       hash_u64(rest + 1));
    }
    return sum;
}

static bool want_is(const struct want *w, uint8_t family, uint32_t local_pref,
                    const struct kernel_hop *h, size_t n) {
    if (w->family != family || w->local_pref != local_pref || w->n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!ip_eq(&w->hops[i].ip, &h[i].ip) || !ip_eq(&w->hops[i].link_local, &h[i].link_local) ||
            w->hops[i].ifindex != h[i].ifindex || w->hops[i].weight != h[i].weight) {
            return false;
        }
    }
    return true;
}

uint32_t want_intern(struct bgp_kernel *k, uint8_t family, uint32_t local_pref,
                     const struct kernel_hop *hops, size_t n) {
    n = n > ROUTE_WAYS_MAX ? ROUTE_WAYS_MAX : n;
    uint64_t sum = want_sum(family, local_pref, hops, n);
    bool is_new;
    uint32_t *at = number_map_put(&k->want_map, sum, &is_new), id;
    if (!is_new && want_is(k->wants.p[*at - 1], family, local_pref, hops, n)) {
        k->wants.p[*at - 1]->n_refs++;
        return *at;
    }
    struct want *w = calloc(1, sizeof(*w) + n * sizeof(*hops));
    mg_assert(w);
    w->n_refs = 1;
    w->family = family;
    w->local_pref = local_pref;
    w->n = (uint8_t)n;
    w->is_stale = true;
    memcpy(w->hops, hops, n * sizeof(*hops));
    if (k->free_wants.n) {
        id = k->free_wants.p[--k->free_wants.n];
        k->wants.p[id - 1] = w;
    } else {
        vec_push(&k->wants, w);
        id = (uint32_t)k->wants.n;
    }
    if (is_new) {
        *at = id;
    }
    return id;
}

void want_ref(struct bgp_kernel *k, uint32_t id) {
    if (id) {
        k->wants.p[id - 1]->n_refs++;
    }
}

void want_unref(struct bgp_kernel *k, uint32_t id) {
    if (!id || --k->wants.p[id - 1]->n_refs) {
        return;
    }
    struct want *w = k->wants.p[id - 1];
    uint64_t sum = want_sum(w->family, w->local_pref, w->hops, w->n);
    uint32_t *at = number_map_get(&k->want_map, sum);
    if (at && *at == id) {
        (void)number_map_del(&k->want_map, sum);
    }
    way_unref(k->ways, w->way);
    free(w);
    k->wants.p[id - 1] = NULL;
    vec_push(&k->free_wants, id);
}

void wants_free(struct bgp_kernel *k) {
    for (size_t i = 0; i < k->wants.n; i++) {
        free(k->wants.p[i]);
    }
    vec_fini(&k->wants);
    vec_fini(&k->free_wants);
    number_map_fini(&k->want_map);
}

/* A hop may have several ways itself; each has the hop's weight. */
static size_t resolve_all(const struct bgp_kernel *k, const struct want *w,
                          struct route_way out[ROUTE_WAYS_MAX]) {
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++) {
        struct route_way ways[ROUTE_WAYS_MAX];
        uint32_t cost;
        size_t got = kernel_resolve(k, &w->hops[i], ways, &cost);
        for (size_t j = 0; j < got && n < ROUTE_WAYS_MAX; j++) {
            out[n] = ways[j];
            uint32_t weight = w->hops[i].weight;
            out[n++].weight = (uint16_t)(weight > UINT16_MAX ? UINT16_MAX : weight ? weight : 1);
        }
    }
    return n;
}

static uint32_t tunnel_way(struct bgp_kernel *k, const struct want *w, uint32_t metric) {
    struct route_way hops[ROUTE_WAYS_MAX];
    int oif = bgp_kernel_ifindex(k, STR("tunl0"));
    size_t n = 0;
    for (size_t i = 0; oif && i < w->n; i++) {
        hops[n++] = (struct route_way){w->hops[i].ip, oif, 1, true};
    }
    return n ? way_intern(k->ways, RTN_UNICAST, metric, hops, n) : 0;
}

/* True: the way is another than before. */
static bool resolve(struct bgp_kernel *k, struct want *w) {
    struct route_way hops[ROUTE_WAYS_MAX];
    struct prefix p = {.ip.family = w->family}; /* of the prefix only the family counts */
    size_t n = resolve_all(k, w, hops);
    uint32_t metric = bgp_conf_metric(k->conf, &p, w->local_pref);
    uint32_t way = n ? way_intern(k->ways, RTN_UNICAST, metric, hops, n) : 0;
    bool is_new = way != w->way;
    way_unref(k->ways, w->way);
    w->way = way;
    w->is_stale = false;
    return is_new;
}

bool wants_refresh(struct bgp_kernel *k) {
    bool any = false;
    for (size_t i = 0; i < k->wants.n; i++) {
        struct want *w = k->wants.p[i];
        if (w) {
            w->is_changed = resolve(k, w);
            any = any || w->is_changed;
        }
    }
    return any;
}

uint32_t want_way(struct bgp_kernel *k, uint32_t id, const struct prefix *p) {
    struct want *w = k->wants.p[id - 1];
    uint32_t metric = bgp_conf_metric(k->conf, p, w->local_pref);
    switch (bgp_conf_kernel(k->conf, p, &w->hops[0].ip)) {
    case KERNEL_REJECT:
        return 0;
    case KERNEL_TUNNEL:
    case KERNEL_CROSS:
        return tunnel_way(k, w, metric);
    case KERNEL_ACCEPT:
        break;
    }
    if (w->is_stale) {
        (void)resolve(k, w);
    }
    way_ref(k->ways, w->way);
    return w->way;
}
