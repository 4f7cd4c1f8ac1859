/* What the kernel counted, rule by rule. A rule of a policy's chain carries its name; an element of
 * a merged list's sets is given to the first rule, in the policies' order, that put it there. */
#include "dataplane/table.h"

#include <stdio.h>

struct owner { /* of a thing that a merged list lets through */
    uint32_t policy;
    unsigned rule;
    size_t place; /* in the list, first to last */
};

#define MAP_NAME allow_owner
#define MAP_KEY struct allow
#define MAP_VAL struct owner
#define MAP_HASH(k) hash_str(str_n((const char *)&(k), sizeof(k)))
#define MAP_EQ(a, b) (memcmp(&(a), &(b), sizeof(a)) == 0)
#include "base/map.tmpl.h"

/* One merged list as it is now. */
struct list {
    const struct seg *seg;
    struct allow_owner owners;
};

/* What a kernel set of a merged list stands for. */
struct set_role {
    size_t list;
    enum { ROLE_PORTS, ROLE_NETS, ROLE_ADDRS, ROLE_PEER } role;
    uint8_t family;
    uint32_t peer; /* ROLE_PEER: id of the selector's set */
};

#define MAP_NAME role_map
#define MAP_KEY struct str
#define MAP_VAL struct set_role
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME list_map
#define MAP_KEY struct str /* name of the chain */
#define MAP_VAL size_t
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME pol_map
#define MAP_KEY struct str /* name of the chain */
#define MAP_VAL uint32_t
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"
#define MAP_NAME sum_map
#define MAP_KEY uint64_t /* policy << 32 | rule */
#define MAP_VAL struct nft_count
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct counting {
    struct dataplane *d;
    VEC(struct list) lists;
    struct role_map roles;
    struct list_map by_chain;
    struct pol_map policies;
    struct sum_map sums;
};

static void add(struct counting *x, uint32_t policy, unsigned rule, const struct nft_count *c) {
    struct nft_count *s = sum_map_put(&x->sums, (uint64_t)policy << 32 | rule, NULL);
    s->packets += c->packets;
    s->bytes += c->bytes;
}

/* ---- what is what ---- */

static void put_role(struct counting *x, const struct kset *k, struct set_role r) {
    if (k) {
        *role_map_put(&x->roles, k->desc.name, NULL) = r;
    }
}

static void know_list(struct counting *x, const struct seg *s) {
    struct list l = {.seg = s};
    for (size_t i = 0; i < s->plains.n; i++) {
        const struct calc_policy *p = s->plains.p[i]->p;
        for (size_t k = 0; k < p->n_rules; k++) {
            allow_vec v = {0};
            (void)merge_rule(&p->rules[k], p->dir, &v);
            for (size_t j = 0; j < v.n; j++) {
                bool is_new;
                struct owner *o = allow_owner_put(&l.owners, v.p[j], &is_new);
                if (is_new) {
                    *o = (struct owner){p->id, p->rules[k].index, l.owners.n};
                }
            }
            vec_fini(&v);
        }
    }
    size_t at = x->lists.n;
    vec_push(&x->lists, l);
    *list_map_put(&x->by_chain, str_c(s->c.name), NULL) = at;
    put_role(x, s->merged->ports, (struct set_role){.list = at, .role = ROLE_PORTS});
    for (uint8_t f = 0; f < 2; f++) {
        uint8_t family = f ? IP_V6 : IP_V4;
        put_role(x, s->merged->nets[f],
                 (struct set_role){.list = at, .role = ROLE_NETS, .family = family});
        put_role(x, s->merged->addrs[f],
                 (struct set_role){.list = at, .role = ROLE_ADDRS, .family = family});
    }
    uint32_t id;
    struct merged_peer *p;
    for (size_t i = 0; id_peer_next(&s->merged->peers, &i, &id, &p);) {
        put_role(x, p->ports, (struct set_role){.list = at, .role = ROLE_PEER, .peer = id});
    }
}

static void know_all(struct counting *x) {
    struct seg **s;
    for (size_t i = 0; str_seg_next(&x->d->segs, &i, NULL, &s);) {
        if ((*s)->merged) {
            know_list(x, *s);
        }
    }
    struct dpol **p;
    for (size_t i = 0; id_dpol_next(&x->d->policies, &i, NULL, &p);) {
        for (size_t k = 0; k < (*p)->variants.n; k++) {
            *pol_map_put(&x->policies, str_c((*p)->variants.p[k]->c.name), NULL) = (*p)->id;
        }
    }
}

/* ---- what was counted ---- */

static void add_owner(struct counting *x, const struct owner *o, const struct nft_count *c) {
    if (o) {
        add(x, o->policy, o->rule, c);
    }
}

static void add_allow(struct counting *x, const struct list *l, const struct allow *a,
                      const struct nft_count *c) {
    add_owner(x, allow_owner_get(&l->owners, *a), c);
}

/* A rule of the merged list itself: it lets all through, or all from a selector's members. */
static void on_list_rule(struct counting *x, const struct list *l, const struct nft_rule_read *r) {
    struct allow a = {.what = ALLOW_ALL};
    uint32_t id;
    struct merged_peer *p;
    for (size_t i = 0; id_peer_next(&l->seg->merged->peers, &i, &id, &p);) {
        struct dset **s = id_dset_get(&x->d->sets, id);
        if (p->is_all && s && str_is(r->comment, (*s)->base_name)) {
            a = (struct allow){.what = ALLOW_SET, .set = id};
        }
    }
    if (a.what == ALLOW_SET || str_is(r->comment, "all")) {
        add_allow(x, l, &a, &r->count);
    }
}

static void on_rule(void *arg, struct str chain, const struct nft_rule_read *r) {
    struct counting *x = arg;
    const size_t *list = list_map_get(&x->by_chain, chain);
    const uint32_t *policy = pol_map_get(&x->policies, chain);
    if (r->count.packets == 0) {
        return;
    }
    if (list) {
        on_list_rule(x, &x->lists.p[*list], r);
    } else if (policy) {
        struct str number = r->comment;
        uint64_t rule;
        while (number.n && str_find(number, '#', 0) >= 0) {
            number = str_sub(number, (size_t)str_find(number, '#', 0) + 1, number.n);
        }
        if (str_to_u64(number, &rule) == 0 && rule < UINT16_MAX) {
            add(x, *policy, (unsigned)rule, &r->count);
        }
    }
}

/* Whose is the first prefix that holds the start of a range? */
static const struct owner *net_owner(const struct list *l, uint8_t family, struct str key) {
    struct ip46 ip = {.family = family};
    memcpy(ip.b, key.p, key.n < 16 ? key.n : 16);
    struct owner *o;
    struct allow a;
    const struct owner *best = NULL;
    for (size_t i = 0; allow_owner_next(&l->owners, &i, &a, &o);) {
        struct prefix p = {.ip = {.family = a.family}, .len = a.len};
        memcpy(p.ip.b, a.addr, 16);
        if (a.what == ALLOW_NET && a.family == family && prefix_has_ip(&p, &ip) &&
            (!best || o->place < best->place)) {
            best = o;
        }
    }
    return best;
}

static void on_elem(void *arg, struct str set, const struct nft_elem_read *e) {
    struct counting *x = arg;
    const struct set_role *r = role_map_get(&x->roles, set);
    if (!r || e->count.packets == 0 || e->is_interval_end) {
        return;
    }
    const struct list *l = &x->lists.p[r->list];
    struct allow a = {.zero = 0};
    const uint8_t *k = (const uint8_t *)e->key.p;
    size_t at = 0;
    switch (r->role) {
    case ROLE_NETS:
        add_owner(x, net_owner(l, r->family, e->key), &e->count);
        return;
    case ROLE_ADDRS:
        a.what = ALLOW_ADDR_PORT;
        a.family = r->family;
        a.len = r->family == IP_V4 ? 32 : 128;
        at = a.len / 8U;
        break;
    case ROLE_PEER:
        a.what = ALLOW_SET_PORT;
        a.set = r->peer;
        break;
    case ROLE_PORTS:
        a.what = ALLOW_PORT;
        break;
    }
    if (e->key.n < at + 6) {
        return;
    }
    memcpy(a.addr, k, at);
    a.protocol = k[at];
    a.port = (uint16_t)(k[at + 4] << 8 | k[at + 5]);
    add_allow(x, l, &a, &e->count);
}

/* ---- out ---- */

static void on_table(void *arg) {
    (void)arg;
}
static void on_chain(void *arg, struct str name, const struct nft_hook *hook) {
    (void)arg;
    (void)name;
    (void)hook;
}
static void on_set(void *arg, const struct nft_set *s) {
    (void)arg;
    (void)s;
}

static void tell(struct counting *x, void (*cb)(void *arg, const struct dataplane_count *c),
                 void *arg) {
    struct dpol **p;
    for (size_t i = 0; id_dpol_next(&x->d->policies, &i, NULL, &p);) {
        const struct calc_policy *pol = (*p)->p;
        for (size_t k = 0; k < pol->n_rules && !(*p)->is_removed; k++) {
            unsigned rule = pol->rules[k].index;
            if (k && pol->rules[k - 1].index == rule) {
                continue; /* several were made of one */
            }
            const struct nft_count *c = sum_map_get(&x->sums, (uint64_t)(*p)->id << 32 | rule);
            struct dataplane_count out = {pol, rule, c ? c->packets : 0, c ? c->bytes : 0};
            cb(arg, &out);
        }
    }
}

int dataplane_counts(struct dataplane *d, void (*cb)(void *arg, const struct dataplane_count *c),
                     void *arg, struct err *e) {
    static const struct nft_read_ops ops = {on_table, on_chain, on_rule, on_set, on_elem};
    struct counting x = {.d = d};
    know_all(&x);
    int r = ERR_RETRY;
    for (int i = 0; i < 8 && r == ERR_RETRY; i++) {
        sum_map_fini(&x.sums);
        r = nft_read(d->sock, d->table, &ops, &x, e);
    }
    if (r == 0) {
        tell(&x, cb, arg);
    }
    for (size_t i = 0; i < x.lists.n; i++) {
        allow_owner_fini(&x.lists.p[i].owners);
    }
    vec_fini(&x.lists);
    role_map_fini(&x.roles);
    list_map_fini(&x.by_chain);
    pol_map_fini(&x.policies);
    sum_map_fini(&x.sums);
    return r;
}
