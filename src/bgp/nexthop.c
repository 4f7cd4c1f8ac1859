/* See nexthop.h. */
#include "bgp/nexthop.h"

#include "base/hash.h"
#include "base/vec.h"

struct hop_key {
    struct ip46 ip, link_local;
};

static uint64_t key_hash(const struct hop_key *k) {
    return ip_hash(&k->ip) ^ hash_u64(ip_hash(&k->link_local) + 1);
}

#define MAP_NAME hopmap
#define MAP_KEY struct hop_key
#define MAP_VAL uint32_t
#define MAP_HASH(k) key_hash(&(k))
#define MAP_EQ(a, b) (ip_eq(&(a).ip, &(b).ip) && ip_eq(&(a).link_local, &(b).link_local))
#include "base/map.tmpl.h"

struct nexthops {
    VEC(struct nexthop) v; /* [0] stands for "none" */
    VEC(uint32_t) free_ids;
    struct hopmap by_ip;
    void (*unused)(void *user, const struct nexthop *h);
    void *user;
};

struct nexthops *nexthops_new(void) {
    struct nexthops *t = calloc(1, sizeof(*t));
    mg_assert(t != NULL);
    vec_push(&t->v, (struct nexthop){.is_reachable = true});
    return t;
}

void nexthops_free(struct nexthops *t) {
    if (t) {
        vec_fini(&t->v);
        vec_fini(&t->free_ids);
        hopmap_fini(&t->by_ip);
        free(t);
    }
}

uint32_t nexthop_intern(struct nexthops *t, const struct ip46 *ip, const struct ip46 *link_local) {
    if (ip->family == IP_NONE) {
        return 0;
    }
    bool is_new;
    uint32_t *id = hopmap_put(&t->by_ip, (struct hop_key){*ip, *link_local}, &is_new);
    if (is_new) {
        struct nexthop h = {.ip = *ip, .link_local = *link_local};
        if (t->free_ids.n) {
            *id = t->free_ids.p[--t->free_ids.n];
            t->v.p[*id] = h;
        } else {
            *id = (uint32_t)t->v.n;
            vec_push(&t->v, h);
        }
    }
    t->v.p[*id].n_refs++;
    return *id;
}

void nexthops_on_unused(struct nexthops *t, void (*fn)(void *user, const struct nexthop *h),
                        void *user) {
    t->unused = fn;
    t->user = user;
}

bool nexthop_set(struct nexthops *t, const struct ip46 *ip, const struct ip46 *link_local,
                 bool is_reachable, uint32_t cost, struct str interface) {
    const uint32_t *id = hopmap_get(&t->by_ip, (struct hop_key){*ip, *link_local});
    if (!id) {
        return false;
    }
    struct nexthop *h = &t->v.p[*id];
    char name[sizeof(h->interface)] = {0};
    if (interface.n) {
        memcpy(name, interface.p, interface.n < sizeof(name) ? interface.n : sizeof(name) - 1);
    }
    if (!h->is_known ||
        (h->is_reachable == is_reachable && h->cost == cost && strcmp(h->interface, name) == 0)) {
        return false;
    }
    h->is_reachable = is_reachable;
    h->cost = cost;
    memcpy(h->interface, name, sizeof(name));
    return true;
}

void nexthop_unref(struct nexthops *t, uint32_t id) {
    if (id == 0) {
        return;
    }
    struct nexthop *h = &t->v.p[id];
    mg_assert(h->n_refs > 0);
    if (--h->n_refs == 0) {
        if (h->is_known && t->unused) {
            t->unused(t->user, h);
        }
        (void)hopmap_del(&t->by_ip, (struct hop_key){h->ip, h->link_local});
        vec_push(&t->free_ids, id);
    }
}

struct nexthop *nexthop_get(const struct nexthops *t, uint32_t id) {
    return id ? &t->v.p[id] : NULL;
}

uint32_t nexthops_end(const struct nexthops *t) {
    return (uint32_t)t->v.n;
}
