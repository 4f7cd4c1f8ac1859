/* Host endpoints: which of them has which interface of the host. By name, or by an address that the
 * interface has; of several the one whose name comes first. "*" has all that no other has, but
 * pods' interfaces and the loopback. Source: Felix, resolveHostEndpoints. */
#include "dataplane/table.h"

static const struct {
    enum way way;
    enum hop_map map;
} ways[] = {
    {WAY_IN, HOP_HOST_IN},
    {WAY_OUT, HOP_HOST_OUT},
    {WAY_STAGED_IN, HOP_HOST_STAGED_IN},
    {WAY_STAGED_OUT, HOP_HOST_STAGED_OUT},
    {WAY_FORWARD_IN, HOP_FORWARD_IN},
    {WAY_FORWARD_OUT, HOP_FORWARD_OUT},
    {WAY_UNTRACKED_IN, HOP_UNTRACKED_IN},
    {WAY_UNTRACKED_OUT, HOP_UNTRACKED_OUT},
    {WAY_PRE_DNAT, HOP_PRE_DNAT},
};

#define MAP_NAME host_claims /* interface's name → its host endpoint */
#define MAP_KEY struct str
#define MAP_VAL struct dep *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

static bool is_any(const struct dep *x) {
    return strcmp(x->iface, "*") == 0;
}

static void claim(struct host_claims *c, const char *iface, struct dep *x) {
    bool is_new;
    struct dep **slot = host_claims_put(c, str_c(iface), &is_new);
    if (is_new || strcmp(x->label, (*slot)->label) < 0) {
        *slot = x;
    }
}

static bool has_address(const struct dep *x, const struct ip46 *ip) {
    for (size_t i = 0; i < x->nets.n; i++) {
        if (ip_eq(&x->nets.p[i].ip, ip)) {
            return true;
        }
    }
    return false;
}

static void claim_all(const struct dataplane *d, struct dep *x, struct host_claims *c) {
    if (*x->iface) {
        claim(c, x->iface, x);
    }
    for (size_t i = 0; i < d->ifaces.n; i++) {
        if (has_address(x, &d->ifaces.p[i].ip)) {
            claim(c, d->ifaces.p[i].name, x);
        }
    }
}

/* Its own traffic is always judged; the rest if there are policies for it. */
static bool is_needed(const struct dep *x, enum way w) {
    bool is_staged = w == WAY_STAGED_IN || w == WAY_STAGED_OUT;
    return w == WAY_IN || w == WAY_OUT || (is_staged ? x->has_way[w] : x->calc[w].n_tiers > 0);
}

void hosts_assign(struct dataplane *d) {
    struct host_claims claims = {0};
    struct dep **e, *any = NULL;
    bool is_wanted[ARRAY_LEN(ways)] = {false};
    for (size_t i = 0; id_dep_next(&d->endpoints, &i, NULL, &e);) {
        struct dep *x = *e;
        if (!x->is_host) {
            continue;
        }
        if (!is_any(x)) {
            claim_all(d, x, &claims);
        } else if (!any || strcmp(x->label, any->label) < 0) {
            any = x;
        }
        for (size_t k = 0; k < ARRAY_LEN(ways); k++) {
            is_wanted[k] |= is_needed(x, ways[k].way);
        }
    }
    for (size_t k = 0; k < ARRAY_LEN(ways); k++) {
        struct hops *h = &d->hops[ways[k].map];
        const struct seg *any_list = is_wanted[k] && any ? any->segs[ways[k].way] : NULL;
        const char *any_chain = any_list ? any_list->c.name : NULL;
        bool is_other = !h->any != !any_chain || (any_chain && strcmp(h->any, any_chain) != 0);
        for (int c = 0; c < N_BASE_CHAINS && is_other; c++) {
            d->base[c].is_dirty |= base_hops(d, (enum base_chain)c) == h;
        }
        d->base[BASE_HOST_STAGED_IN].is_dirty = d->base[BASE_HOST_STAGED_OUT].is_dirty = true;
        h->any = any_chain;
        h->is_wanted = is_wanted[k];
        hops_unwant_all(h);
        struct str iface;
        for (size_t i = 0; is_wanted[k] && host_claims_next(&claims, &i, &iface, &e);) {
            const struct seg *list = (*e)->segs[ways[k].way];
            if (list) { /* none: no staged policies concern it */
                hops_want(h, iface.p, (*e)->id, list->c.name);
            }
        }
    }
    host_claims_fini(&claims);
}
