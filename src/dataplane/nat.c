/* Addresses and ports of the host that lead to pods: floating addresses and port mappings. Each is
 * one element of a map, so a packet costs one lookup however many there are. A key leads to one pod
 * only, as a map can have it: of several that want it the first in order gets it. The maps and
 * chains are there while something needs them. */
#include "dataplane/match.h"
#include "dataplane/table.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>

struct nat_owned {
    char *owner;
    VEC(struct dataplane_nat) list;
};

struct nat {
    VEC(struct nat_owned) owners; /* sorted by owner */
    struct kset *sets[2][N_NAT_SETS];
};

/* Per family: [0] IPv4, [1] IPv6. */
static const struct {
    const char *names[2], *comment;
    struct nft_set desc[2];
} shapes[N_NAT_SETS] = {
    [NAT_SET_FLOATING] = {{"floating4", "floating6"},
                          "floating address to the pod's",
                          {{.fields = {NFT_TYPE_IPADDR}, .data = {NFT_TYPE_IPADDR}},
                           {.fields = {NFT_TYPE_IP6ADDR}, .data = {NFT_TYPE_IP6ADDR}}}},
    [NAT_SET_BACK] = {{"floating-back4", "floating-back6"},
                      "a pod that asks for its own floating address meets it as source",
                      {{.fields = {NFT_TYPE_IPADDR}, .data = {NFT_TYPE_IPADDR}},
                       {.fields = {NFT_TYPE_IP6ADDR}, .data = {NFT_TYPE_IP6ADDR}}}},
    [NAT_SET_HAIRPIN] = {{"hairpins4", "hairpins6"},
                         "pods that may meet themselves by way of the host",
                         {{.fields = {NFT_TYPE_IPADDR, NFT_TYPE_IPADDR}},
                          {.fields = {NFT_TYPE_IP6ADDR, NFT_TYPE_IP6ADDR}}}},
    [NAT_SET_PORT] = {{"host-ports4", "host-ports6"},
                      "port of any address of the host to a pod's",
                      {{.fields = {NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE},
                        .data = {NFT_TYPE_IPADDR, NFT_TYPE_INET_SERVICE}},
                       {.fields = {NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE},
                        .data = {NFT_TYPE_IP6ADDR, NFT_TYPE_INET_SERVICE}}}},
    [NAT_SET_IP_PORT] =
        {{"host-ip-ports4", "host-ip-ports6"},
         "port of one address of the host to a pod's",
         {{.fields = {NFT_TYPE_IPADDR, NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE},
           .data = {NFT_TYPE_IPADDR, NFT_TYPE_INET_SERVICE}},
          {.fields = {NFT_TYPE_IP6ADDR, NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE},
           .data = {NFT_TYPE_IP6ADDR, NFT_TYPE_INET_SERVICE}}}},
};

/* ---- what is wanted ---- */

static size_t put_bytes(uint8_t *to, size_t at, const void *p, size_t n) {
    memcpy(to + at, p, n);
    return at + ((n + 3) & ~(size_t)3);
}

static size_t put_port(uint8_t *to, size_t at, uint16_t port) {
    uint8_t be[2] = {(uint8_t)(port >> 8), (uint8_t)port};
    return put_bytes(to, at, be, 2);
}

/* Adds a pair, unless its key is there already. */
static void want_pair(struct dataplane *d, unsigned v6, enum nat_set id, struct keyset *seen,
                      const uint8_t pair[KSET_PAIR_MAX]) {
    struct kset **s = &d->nat->sets[v6][id];
    size_t key_n = nft_set_key_len(&shapes[id].desc[v6]);
    if (!seen->key_len) {
        keyset_init(seen, key_n);
    }
    if (keyset_state(seen, pair) & KEY_WANT) {
        return;
    }
    keyset_mark(seen, pair, KEY_WANT, true);
    if (!*s) {
        *s = kset_make(d, shapes[id].names[v6], &shapes[id].desc[v6], str_c(shapes[id].comment));
    }
    kset_want_key(d, *s, pair, true);
}

static void want_one(struct dataplane *d, const struct dataplane_nat *n,
                     struct keyset seen[2][N_NAT_SETS]) {
    unsigned v6 = n->to.family == IP_V6;
    size_t bytes = ip_bytes(&n->to);
    uint8_t pair[KSET_PAIR_MAX] = {0};
    size_t at = 0;
    if (n->kind == NAT_FLOATING) {
        at = put_bytes(pair, 0, n->from.b, bytes);
        (void)put_bytes(pair, at, n->to.b, bytes);
        want_pair(d, v6, NAT_SET_FLOATING, &seen[v6][NAT_SET_FLOATING], pair);
        at = put_bytes(pair, 0, n->to.b, bytes);
        (void)put_bytes(pair, at, n->from.b, bytes);
        want_pair(d, v6, NAT_SET_BACK, &seen[v6][NAT_SET_BACK], pair);
    } else {
        bool is_one = n->from.family != IP_NONE;
        enum nat_set id = is_one ? NAT_SET_IP_PORT : NAT_SET_PORT;
        at = is_one ? put_bytes(pair, 0, n->from.b, bytes) : 0;
        at = put_bytes(pair, at, &n->protocol, 1);
        at = put_port(pair, at, n->port);
        at = put_bytes(pair, at, n->to.b, bytes);
        (void)put_port(pair, at, n->to_port);
        want_pair(d, v6, id, &seen[v6][id], pair);
    }
    uint8_t twice[KSET_PAIR_MAX] = {0};
    at = put_bytes(twice, 0, n->to.b, bytes);
    (void)put_bytes(twice, at, n->to.b, bytes);
    want_pair(d, v6, NAT_SET_HAIRPIN, &seen[v6][NAT_SET_HAIRPIN], twice);
}

/* A floating address must be switched on and in a range that the administrator has declared: where
 * it comes from, anybody who may annotate a pod can write. */
static bool is_allowed(const struct dataplane *d, const struct dataplane_nat *n) {
    bool is_in_pool = false;
    for (size_t i = 0; i < d->pools.n; i++) {
        is_in_pool |= prefix_has_ip(&d->pools.p[i], &n->from);
    }
    return n->kind != NAT_FLOATING || (d->settings.has_floating_ips && is_in_pool);
}

/* All maps anew; what stays the same is not written. */
static void rebuild(struct dataplane *d) {
    struct nat *t = d->nat;
    struct keyset seen[2][N_NAT_SETS] = {{{0}}};
    for (size_t i = 0; i < (size_t)2 * N_NAT_SETS; i++) {
        struct kset *s = t->sets[i / N_NAT_SETS][i % N_NAT_SETS];
        if (s) {
            keyset_unwant_all(&s->keys);
            kset_dirty(d, s);
        }
    }
    for (size_t i = 0; i < t->owners.n; i++) {
        for (size_t k = 0; k < t->owners.p[i].list.n; k++) {
            const struct dataplane_nat *n = &t->owners.p[i].list.p[k];
            if (is_allowed(d, n)) {
                want_one(d, n, seen);
            }
        }
    }
    for (size_t i = 0; i < (size_t)2 * N_NAT_SETS; i++) {
        struct kset **s = &t->sets[i / N_NAT_SETS][i % N_NAT_SETS];
        if (*s && (*s)->keys.n_want == 0) {
            (*s)->is_gone = true;
            *s = NULL;
        }
        if (seen[i / N_NAT_SETS][i % N_NAT_SETS].key_len) {
            keyset_fini(&seen[i / N_NAT_SETS][i % N_NAT_SETS]);
        }
    }
    d->base[BASE_DNAT].is_dirty = d->base[BASE_DNAT_OWN].is_dirty = true;
    d->base[BASE_NAT].is_dirty = true;
}

void nat_settings(struct dataplane *d) {
    if (d->nat) {
        rebuild(d);
    }
}

bool nat_is_wanted(const struct dataplane *d) {
    for (unsigned v6 = 0; d->nat && v6 < 2; v6++) {
        if (d->nat->sets[v6][NAT_SET_HAIRPIN]) {
            return true;
        }
    }
    return false;
}

/* Index of the owner, or where it belongs. */
static size_t find(const struct nat *t, struct str owner, bool *is_there) {
    size_t lo = 0, hi = t->owners.n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = str_cmp(str_c(t->owners.p[mid].owner), owner);
        if (c == 0) {
            *is_there = true;
            return mid;
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    *is_there = false;
    return lo;
}

void dataplane_set_nat(struct dataplane *d, struct str owner, const struct dataplane_nat *v,
                       size_t n) {
    bool is_there;
    if (!d->nat) {
        if (!n) {
            return;
        }
        d->nat = calloc(1, sizeof(*d->nat));
        mg_assert(d->nat != NULL);
    }
    struct nat *t = d->nat;
    size_t i = find(t, owner, &is_there);
    if (!is_there && !n) {
        return;
    }
    if (is_there && t->owners.p[i].list.n == n &&
        memcmp(t->owners.p[i].list.p, v, n * sizeof(*v)) == 0) {
        return;
    }
    if (!is_there) {
        vec_push(&t->owners, (struct nat_owned){.owner = NULL});
        memmove(&t->owners.p[i + 1], &t->owners.p[i], (t->owners.n - 1 - i) * sizeof(*t->owners.p));
        t->owners.p[i] = (struct nat_owned){.owner = strndup(owner.p, owner.n)};
        mg_assert(t->owners.p[i].owner != NULL);
    }
    vec_clear(&t->owners.p[i].list);
    for (size_t k = 0; k < n; k++) {
        vec_push(&t->owners.p[i].list, v[k]);
    }
    if (!n) {
        free(t->owners.p[i].owner);
        vec_fini(&t->owners.p[i].list);
        memmove(&t->owners.p[i], &t->owners.p[i + 1], (t->owners.n - 1 - i) * sizeof(*t->owners.p));
        t->owners.n--;
    }
    rebuild(d);
}

void nat_free(struct dataplane *d) {
    for (size_t i = 0; d->nat && i < d->nat->owners.n; i++) {
        free(d->nat->owners.p[i].owner);
        vec_fini(&d->nat->owners.p[i].list);
    }
    if (d->nat) {
        vec_fini(&d->nat->owners);
    }
    free(TAKE_PTR(d->nat));
}

/* ---- rules ---- */

static const struct kset *set_of(const struct dataplane *d, unsigned v6, enum nat_set id) {
    return d->nat ? d->nat->sets[v6][id] : NULL;
}

/* reg = address, and the next one the port. */
static uint32_t after(unsigned v6, uint32_t reg) {
    return reg + (v6 ? 4 : 1);
}

static void dnat_ports(struct chain_out *o, unsigned v6, enum nat_set id) {
    static const uint8_t loopback6[16] = {[15] = 1};
    const struct kset *s = set_of(o->d, v6, id);
    enum ip_family family = v6 ? IP_V6 : IP_V4;
    uint32_t local = RTN_LOCAL;
    if (!s) {
        return;
    }
    match_family(chain_rule(o), family);
    if (v6) { /* nothing that comes from ::1 can leave the host */
        load_addr(o->b, IP_V6, false, R0);
        nft_x_cmp(o->b, R0, NFT_CMP_NEQ, loopback6, 16);
    }
    /* Only what is for the host itself: not a connection on its way to somebody else's port. */
    nft_x_fib_daddr_type(o->b, R0);
    nft_x_cmp(o->b, R0, NFT_CMP_EQ, &local, sizeof(local));
    uint32_t reg = R0;
    if (id == NAT_SET_IP_PORT) {
        load_addr(o->b, family, false, R0);
        reg = after(v6, R0);
    }
    load_proto_port(o->b, false, reg);
    nft_x_map(o->b, s->desc.name, R0, R0);
    nft_x_nat(o->b, true, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4, R0, after(v6, R0));
    chain_rule_end(o, "host port");
}

void nat_render_dnat(struct chain_out *o) {
    for (unsigned v6 = 0; v6 < 2; v6++) {
        const struct kset *s = set_of(o->d, v6, NAT_SET_FLOATING);
        enum ip_family family = v6 ? IP_V6 : IP_V4;
        dnat_ports(o, v6, NAT_SET_IP_PORT);
        dnat_ports(o, v6, NAT_SET_PORT);
        if (s) {
            match_family(chain_rule(o), family);
            load_addr(o->b, family, false, R0);
            nft_x_map(o->b, s->desc.name, R0, R0);
            nft_x_nat(o->b, true, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4, R0, 0);
            chain_rule_end(o, "floating address");
        }
    }
}

static void match_dnat(struct chain_out *o) {
    uint32_t bit = IPS_DST_NAT, zero = 0;
    nft_x_ct(o->b, NFT_CT_STATUS, R0);
    nft_x_and(o->b, R0, &bit, sizeof(bit));
    nft_x_cmp(o->b, R0, NFT_CMP_NEQ, &zero, sizeof(zero));
}

static void match_hairpin(struct chain_out *o, unsigned v6) {
    enum ip_family family = v6 ? IP_V6 : IP_V4;
    match_family(chain_rule(o), family);
    match_dnat(o);
    load_addr(o->b, family, true, R0);
    load_addr(o->b, family, false, after(v6, R0));
    nft_x_lookup(o->b, set_of(o->d, v6, NAT_SET_HAIRPIN)->desc.name, 0, R0, false);
}

void nat_render_snat(struct chain_out *o) {
    const struct prefix loopback = {{IP_V4, {127}}, 8};
    for (unsigned v6 = 0; v6 < 2; v6++) {
        const struct kset *back = set_of(o->d, v6, NAT_SET_BACK);
        if (!set_of(o->d, v6, NAT_SET_HAIRPIN)) {
            continue;
        }
        if (back) {
            match_hairpin(o, v6);
            load_addr(o->b, v6 ? IP_V6 : IP_V4, true, R0);
            nft_x_map(o->b, back->desc.name, R0, R0);
            nft_x_nat(o->b, false, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4, R0, 0);
            chain_rule_end(o, "a pod by its own floating address");
        }
        match_hairpin(o, v6);
        nft_x_masquerade(o->b, true);
        chain_rule_end(o, "a pod by its own host port");
        if (!v6) {
            match_family(chain_rule(o), IP_V4);
            match_dnat(o);
            match_prefix(o->b, &loopback, true);
            nft_x_masquerade(o->b, true);
            chain_rule_end(o, "localhost to a host port");
        }
    }
}
