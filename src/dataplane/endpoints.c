/* Endpoints: pods' interfaces and host endpoints, each with the lists that its packets meet. */
#include "dataplane/links.h"
#include "dataplane/table.h"

#include <stdio.h>
#include <stdlib.h>

static char *dup_str(struct str s) {
    char *p = strndup(s.p ? s.p : "", s.n);
    mg_assert(p != NULL);
    return p;
}

/* ---- lists as calculated ---- */

/* Which map has the interfaces of a way; -1: none. */
static int hop_of(const struct dep *x, enum way w) {
    static const int pods[N_WAYS] = {
        HOP_PODS_IN, HOP_PODS_OUT, HOP_STAGED_IN, HOP_STAGED_OUT, -1, -1, -1, -1, -1};
    return x->is_host ? -1 : pods[w]; /* host endpoints: hosts.c */
}

static enum list_mode mode_of(enum way w) {
    switch (w) {
    case WAY_STAGED_IN:
    case WAY_STAGED_OUT:
        return LIST_STAGED;
    case WAY_FORWARD_IN:
    case WAY_FORWARD_OUT:
        return LIST_FORWARD;
    case WAY_UNTRACKED_IN:
    case WAY_UNTRACKED_OUT:
    case WAY_PRE_DNAT:
        return LIST_RAW;
    default:
        return LIST_NORMAL;
    }
}

/* The endpoint's lists by way; NULL where it has none. */
static void ways_of(const struct calc_endpoint *e, const struct calc_chain *out[N_WAYS]) {
    memset(out, 0, N_WAYS * sizeof(*out));
    out[WAY_IN] = &e->ingress;
    out[WAY_OUT] = &e->egress;
    if (e->host) {
        out[WAY_FORWARD_IN] = &e->host->forward[CALC_INGRESS];
        out[WAY_FORWARD_OUT] = &e->host->forward[CALC_EGRESS];
        out[WAY_UNTRACKED_IN] = &e->host->untracked[CALC_INGRESS];
        out[WAY_UNTRACKED_OUT] = &e->host->untracked[CALC_EGRESS];
        out[WAY_PRE_DNAT] = &e->host->pre_dnat;
    }
    if (e->staged) {
        out[WAY_STAGED_IN] = &e->staged[CALC_INGRESS];
        out[WAY_STAGED_OUT] = &e->staged[CALC_EGRESS];
    }
}

static size_t chain_bytes(const struct calc_chain *c) {
    size_t n = c->n_tiers * sizeof(struct calc_tier) + c->n_profiles * sizeof(uint32_t);
    for (size_t i = 0; i < c->n_tiers; i++) {
        n += c->tiers[i].n_policies * sizeof(uint32_t) + c->tiers[i].name.n;
    }
    return n;
}

static void *place(uint8_t **at, const void *p, size_t n) {
    void *out = *at;
    if (n) {
        memcpy(out, p, n);
    }
    *at += n;
    return out;
}

/* Deep copies in one block: tiers first, then ids, then names, so that all are aligned. */
static void keep_lists(struct dep *x, const struct calc_chain *ways[N_WAYS]) {
    size_t n = 1;
    for (size_t w = 0; w < N_WAYS; w++) {
        n += ways[w] ? chain_bytes(ways[w]) : 0;
    }
    uint8_t *block = malloc(n), *at = block;
    mg_assert(block != NULL);
    for (size_t w = 0; w < N_WAYS; w++) {
        x->has_way[w] = ways[w] != NULL;
        x->calc[w] = ways[w] ? *ways[w] : (struct calc_chain){.tiers = NULL};
        x->calc[w].tiers =
            place(&at, x->calc[w].tiers, x->calc[w].n_tiers * sizeof(struct calc_tier));
    }
    for (size_t w = 0; w < N_WAYS; w++) {
        struct calc_tier *t = (struct calc_tier *)(uintptr_t)x->calc[w].tiers;
        x->calc[w].profiles =
            place(&at, x->calc[w].profiles, x->calc[w].n_profiles * sizeof(uint32_t));
        for (size_t i = 0; i < x->calc[w].n_tiers; i++) {
            t[i].policies = place(&at, t[i].policies, t[i].n_policies * sizeof(uint32_t));
        }
    }
    for (size_t w = 0; w < N_WAYS; w++) {
        struct calc_tier *t = (struct calc_tier *)(uintptr_t)x->calc[w].tiers;
        for (size_t i = 0; i < x->calc[w].n_tiers; i++) {
            t[i].name.p = place(&at, t[i].name.p, t[i].name.n);
        }
    }
    free(x->calc_block);
    x->calc_block = block;
}

/* ---- interfaces and addresses ---- */

static void unset_link(struct dataplane *d, const char *iface) {
    if (d->links) {
        links_unset(d->links, str_c(iface));
    }
}

static void source_key(const char *iface, const struct prefix *p, uint8_t key[32]) {
    memset(key, 0, 32);
    memcpy(key, iface, strlen(iface));
    memcpy(key + 16, p->ip.b, 16);
}

static void want_sources(struct dataplane *d, const struct dep *e, bool on) {
    if (e->is_host) {
        return; /* what comes from it may be from anywhere */
    }
    if (e->spoof_ok.n) {
        d->base[BASE_SPOOF_CHECK].is_dirty = true;
    }
    for (size_t i = 0; i < e->nets.n; i++) {
        uint8_t key[32];
        source_key(e->iface, &e->nets.p[i], key);
        bool is_v4 = e->nets.p[i].ip.family == IP_V4;
        kset_want_key(d, &d->fixed[is_v4 ? FIXED_SRC4 : FIXED_SRC6], key, on);
    }
}

/* Takes its interface out of the maps, if it still is its own. */
static void leave_maps(struct dataplane *d, const struct dep *x) {
    for (enum way w = 0; w < N_WAYS; w++) {
        if (hop_of(x, w) >= 0) {
            hops_want(&d->hops[hop_of(x, w)], x->iface, x->id, NULL);
        }
    }
}

void dep_dirty(struct dataplane *d, struct dep *x) {
    if (!x->is_dirty) {
        x->is_dirty = true;
        vec_push(&d->dirty_endpoints, x->id);
    }
}

/* Its floating addresses; v NULL: none any more. */
static void set_floating(struct dataplane *d, uint32_t id, const struct calc_nat *v, size_t n) {
    struct dataplane_nat list[CALC_MAX_NATS];
    char owner[24];
    (void)snprintf(owner, sizeof(owner), "endpoint:%u", id);
    memset(list, 0, sizeof(list));
    for (size_t i = 0; i < n; i++) {
        list[i].kind = NAT_FLOATING;
        list[i].to = v[i].internal;
        list[i].from = v[i].external;
    }
    dataplane_set_nat(d, str_c(owner), list, n);
}

void dep_update(struct dataplane *d, const struct calc_endpoint *e) {
    if ((!e->host && e->iface.n == 0) || e->iface.n > 15) {
        return; /* no such interface can exist */
    }
    bool is_new;
    struct dep **slot = id_dep_put(&d->endpoints, e->id, &is_new);
    if (is_new) {
        *slot = calloc(1, sizeof(**slot));
        mg_assert(*slot != NULL);
        (*slot)->id = e->id;
    }
    struct dep *x = *slot;
    if (!is_new) {
        want_sources(d, x, false);
        if (!x->is_host && (e->host || !str_is(e->iface, x->iface))) {
            leave_maps(d, x);
            unset_link(d, x->iface);
        }
    }
    free(x->iface);
    free(x->label);
    x->iface = dup_str(e->iface);
    char label[400];
    snprintf(label, sizeof(label), "%.*s/%.*s", STR_FMT(e->ns), STR_FMT(e->name));
    x->label = dup_str(str_c(label));
    vec_clear(&x->nets);
    for (size_t i = 0; i < e->n_nets; i++) {
        vec_push(&x->nets, e->nets[i]);
    }
    vec_clear(&x->spoof_ok);
    for (size_t i = 0; i < e->n_spoof_ok; i++) {
        vec_push(&x->spoof_ok, prefix_mask(e->spoof_ok[i]));
    }
    set_floating(d, x->id, e->nats, e->n_nats);
    x->is_host = e->host != NULL;
    d->are_hosts_dirty |= x->is_host;
    want_sources(d, x, true);
    const struct calc_chain *ways[N_WAYS];
    ways_of(e, ways);
    keep_lists(x, ways);
    dep_dirty(d, x);
    if (d->links && !x->is_host) {
        links_set(d->links, str_c(x->iface), x->nets.p, x->nets.n, e->mac);
    }
}

static void dep_free(struct dep *x) {
    free(x->iface);
    free(x->label);
    free(x->calc_block);
    vec_fini(&x->nets);
    vec_fini(&x->spoof_ok);
    free(x);
}

void dep_remove(struct dataplane *d, uint32_t id) {
    struct dep **slot = id_dep_get(&d->endpoints, id);
    if (!slot) {
        return;
    }
    struct dep *x = *slot;
    id_dep_del(&d->endpoints, id);
    d->are_hosts_dirty |= x->is_host;
    set_floating(d, id, NULL, 0);
    want_sources(d, x, false);
    if (!x->is_host) {
        uint32_t owner = hops_owner(&d->hops[HOP_PODS_OUT], x->iface);
        struct dep **heir = owner && owner != id ? id_dep_get(&d->endpoints, owner) : NULL;
        if (heir) {
            want_sources(d, *heir, true);
        } else {
            unset_link(d, x->iface);
        }
    }
    leave_maps(d, x);
    for (size_t w = 0; w < N_WAYS; w++) {
        seg_unref(d, x->segs[w]);
    }
    dep_free(x);
}

static void rebuild(struct dataplane *d, struct dep *x) {
    for (enum way w = 0; w < N_WAYS; w++) {
        struct seg *s = x->has_way[w] ? seg_build(d, &x->calc[w], 0, mode_of(w)) : NULL;
        if (hop_of(x, w) >= 0) {
            hops_want(&d->hops[hop_of(x, w)], x->iface, x->id, s ? s->c.name : NULL);
        }
        seg_unref(d, x->segs[w]);
        x->segs[w] = s;
    }
    d->are_hosts_dirty |= x->is_host;
}

/* The staged maps are there while somebody is in them. */
static void want_staged(struct dataplane *d) {
    bool is_wanted = false;
    struct dep **e;
    for (size_t i = 0; id_dep_next(&d->endpoints, &i, NULL, &e) && !is_wanted;) {
        is_wanted = !(*e)->is_host && (*e)->has_way[WAY_STAGED_IN];
    }
    d->hops[HOP_STAGED_IN].is_wanted = d->hops[HOP_STAGED_OUT].is_wanted = is_wanted;
}

void deps_rebuild(struct dataplane *d) {
    for (size_t i = 0; i < d->dirty_endpoints.n; i++) {
        struct dep **slot = id_dep_get(&d->endpoints, d->dirty_endpoints.p[i]);
        if (slot) {
            (*slot)->is_dirty = false;
            rebuild(d, *slot);
        }
    }
    vec_clear(&d->dirty_endpoints);
    want_staged(d);
    if (d->are_hosts_dirty) {
        d->are_hosts_dirty = false;
        hosts_assign(d);
    }
}

void deps_fini(struct dataplane *d) {
    struct dep **e;
    for (size_t i = 0; id_dep_next(&d->endpoints, &i, NULL, &e);) {
        dep_free(*e);
    }
    id_dep_fini(&d->endpoints);
}
