#include "dataplane/merge.h"

#include "dataplane/match.h"
#include "dataplane/table.h"

#include <netinet/in.h>
#include <stdio.h>

/* A rule of more elements than this is cheaper as a rule. */
enum { ELEMENTS_MAX = 64 };

/* ---- which rules ---- */

static bool is_blank(const struct calc_side *s, bool but_ports) {
    return !s->n_nets && !s->n_not_nets && !s->set && !s->not_set && !s->service_set &&
           (but_ports || !s->n_ports) && !s->n_not_ports && !s->n_port_sets && !s->n_not_port_sets;
}

static bool has_ports(int protocol) {
    return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
           protocol == IPPROTO_UDPLITE;
}

static size_t count_ports(const struct calc_side *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->n_ports; i++) {
        n += (size_t)(s->ports[i].max - s->ports[i].min) + 1;
    }
    return n;
}

static struct allow of_net(const struct prefix *p) {
    struct allow a = {.what = ALLOW_NET, .family = p->ip.family, .len = p->len};
    memcpy(a.addr, p->ip.b, 16);
    return a;
}

/* The item as it is, or for each of the rule's ports. */
static void push(allow_vec *out, struct allow a, enum allow_what with_port, int protocol,
                 const struct calc_side *ports) {
    if (!ports->n_ports) {
        vec_push(out, a);
        return;
    }
    a.what = (uint8_t)with_port;
    a.protocol = (uint8_t)protocol;
    for (size_t i = 0; i < ports->n_ports; i++) {
        for (uint32_t port = ports->ports[i].min; port <= ports->ports[i].max; port++) {
            a.port = (uint16_t)port;
            vec_push(out, a);
        }
    }
}

bool merge_rule(const struct calc_rule *r, enum calc_dir dir, allow_vec *out) {
    const struct calc_side *peer = dir == CALC_INGRESS ? &r->src : &r->dst;
    const struct calc_side *own = dir == CALC_INGRESS ? &r->dst : &r->src;
    const struct calc_side *dst = &r->dst;
    size_t n_ports = count_ports(dst);
    struct calc_side bare = *peer; /* without what can take part */
    bare.nets = NULL;
    bare.n_nets = 0;
    bare.set = 0;
    if (r->action != RULE_ALLOW || r->never || r->not_protocol >= 0 || r->icmp_type >= 0 ||
        r->icmp_code >= 0 || r->not_icmp_type >= 0 || r->not_icmp_code >= 0 ||
        !is_blank(own, own == dst) || !is_blank(&bare, peer == dst) ||
        (peer->set && peer->n_nets)) {
        return false;
    }
    if (n_ports ? !has_ports(r->protocol) : r->protocol >= 0) {
        return false;
    }
    if (n_ports * (peer->n_nets ? peer->n_nets : 1) > ELEMENTS_MAX) {
        return false;
    }
    for (size_t i = 0; n_ports && i < peer->n_nets; i++) {
        if (peer->nets[i].len != ip_bits(&peer->nets[i].ip)) {
            return false;
        }
    }
    if (!peer->n_nets && r->families != (CALC_V4 | CALC_V6)) {
        return false;
    }
    for (size_t i = 0; i < peer->n_nets; i++) {
        if (r->families & (peer->nets[i].ip.family == IP_V4 ? CALC_V4 : CALC_V6)) {
            push(out, of_net(&peer->nets[i]), ALLOW_ADDR_PORT, r->protocol, dst);
        }
    }
    if (peer->set) {
        push(out, (struct allow){.what = ALLOW_SET, .set = peer->set}, ALLOW_SET_PORT, r->protocol,
             dst);
    } else if (!peer->n_nets) {
        push(out, (struct allow){.what = ALLOW_ALL}, ALLOW_PORT, r->protocol, dst);
    }
    return true;
}

/* ---- the sets of a list ---- */

static const uint8_t port_fields[4] = {NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE};
static const uint8_t net_fields[2][4] = {{NFT_TYPE_IPADDR}, {NFT_TYPE_IP6ADDR}};
static const uint8_t addr_fields[2][4] = {
    {NFT_TYPE_IPADDR, NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE},
    {NFT_TYPE_IP6ADDR, NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE}};

/* *slot, made if it isn't there: then the list needs other rules. */
static struct kset *need(struct dataplane *d, struct seg *s, struct kset **slot, const char *suffix,
                         const uint8_t fields[4], bool is_interval, const char *comment) {
    if (!*slot) {
        char name[300];
        (void)snprintf(name, sizeof(name), "%s/%s", s->c.name, suffix);
        struct nft_set desc = {.is_interval = is_interval, .has_counters = true};
        memcpy(desc.fields, fields, sizeof(desc.fields));
        *slot = kset_make(d, name, &desc, str_c(comment));
        seg_dirty(d, s);
    }
    return *slot;
}

/* An emptied set goes, and the rule that looked into it. */
static void drop_if_empty(struct dataplane *d, struct seg *s, struct kset **slot) {
    if (*slot && (*slot)->keys.n_want == 0) {
        (*slot)->is_gone = true;
        *slot = NULL;
        seg_dirty(d, s);
    }
}

static void want_port(struct dataplane *d, struct seg *s, struct kset **slot, const char *suffix,
                      const char *comment, const struct allow *a, bool on) {
    uint8_t key[8] = {a->protocol, 0, 0, 0, (uint8_t)(a->port >> 8), (uint8_t)a->port};
    kset_want_key(d, need(d, s, slot, suffix, port_fields, false, comment), key, on);
    drop_if_empty(d, s, slot);
}

static void want_net(struct dataplane *d, struct seg *s, const struct allow *a, bool on) {
    size_t f = a->family == IP_V6;
    struct kset **slot = &s->merged->nets[f];
    struct prefix p = {.ip = {.family = a->family}, .len = a->len};
    memcpy(p.ip.b, a->addr, 16);
    kset_want_prefix(d, need(d, s, slot, f ? "nets6" : "nets4", net_fields[f], true, "any port"),
                     &p, on);
    drop_if_empty(d, s, slot);
}

static void want_addr_port(struct dataplane *d, struct seg *s, const struct allow *a, bool on) {
    size_t f = a->family == IP_V6, n = f ? 16 : 4;
    struct kset **slot = &s->merged->addrs[f];
    uint8_t key[24] = {0};
    memcpy(key, a->addr, n);
    key[n] = a->protocol;
    key[n + 4] = (uint8_t)(a->port >> 8);
    key[n + 5] = (uint8_t)a->port;
    kset_want_key(d, need(d, s, slot, f ? "addrs6" : "addrs4", addr_fields[f], false, ""), key, on);
    drop_if_empty(d, s, slot);
}

static void want_peer(struct dataplane *d, struct seg *s, const struct allow *a, bool on) {
    bool is_new;
    struct merged_peer *p = id_peer_put(&s->merged->peers, a->set, &is_new);
    if (a->what == ALLOW_SET) {
        p->is_all = on;
        seg_dirty(d, s);
    } else {
        struct dset **x = id_dset_get(&d->sets, a->set);
        char none[16];
        (void)snprintf(none, sizeof(none), "%u", a->set);
        want_port(d, s, &p->ports, x ? (*x)->base_name : none, x ? (*x)->text : "", a, on);
    }
    if (!p->is_all && !p->ports) {
        id_peer_del(&s->merged->peers, a->set);
    }
}

static void want(struct dataplane *d, struct seg *s, const struct allow *a, bool on) {
    switch ((enum allow_what)a->what) {
    case ALLOW_ALL:
        s->merged->is_all = on;
        seg_dirty(d, s);
        break;
    case ALLOW_PORT:
        want_port(d, s, &s->merged->ports, "ports", "from or to anybody", a, on);
        break;
    case ALLOW_NET:
        want_net(d, s, a, on);
        break;
    case ALLOW_ADDR_PORT:
        want_addr_port(d, s, a, on);
        break;
    case ALLOW_SET:
    case ALLOW_SET_PORT:
        want_peer(d, s, a, on);
        break;
    }
}

void merged_change(struct dataplane *d, struct seg *s, const allow_vec *v, bool on) {
    struct allow_count *counts = &s->merged->counts;
    for (size_t i = 0; i < v->n; i++) {
        bool is_new;
        uint32_t *n = allow_count_put(counts, v->p[i], &is_new);
        if (on && (*n)++ == 0) {
            want(d, s, &v->p[i], true);
        } else if (!on && --*n == 0) {
            allow_count_del(counts, v->p[i]);
            want(d, s, &v->p[i], false);
        }
    }
}

/* ---- rules ---- */

struct out {
    struct dataplane *d;
    struct nft_batch *b;
    const struct seg *s;
    uint64_t *hash;
};

static struct nft_batch *begin(const struct out *o) {
    nft_rule_begin(o->b, str_c(o->s->c.name));
    return o->b;
}
static void end(const struct out *o, const char *comment) {
    nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
    *o->hash = nft_chain_hash(*o->hash, nft_rule_end(o->b, str_c(comment)));
}

/* The address of the other side, looked up. */
static void match_peer(const struct out *o, enum ip_family f, const struct kset *set) {
    match_family(o->b, f);
    load_addr(o->b, f, o->s->dir == CALC_INGRESS, R0);
    nft_x_lookup(o->b, set->desc.name, 0, R0, false);
}

static void render_peer(const struct out *o, const struct dset *x, const struct merged_peer *p) {
    for (size_t part = 0; part < N_PARTS; part++) {
        const struct kset *members = x->parts[part];
        if (!members) {
            continue;
        }
        (void)begin(o);
        match_peer(o, part < PART_V6 ? IP_V4 : IP_V6, members);
        if (!p->is_all) {
            load_proto_port(o->b, false, R0);
            nft_x_lookup(o->b, p->ports->desc.name, 0, R0, false);
            end(o, "");
        } else {
            nft_x_counter(o->b);
            end(o, x->base_name);
        }
    }
}

static int peer_cmp(const void *a, const void *b) {
    const struct dset *x = *(const struct dset *const *)a, *y = *(const struct dset *const *)b;
    return strcmp(x->base_name, y->base_name);
}

/* In order of the names of their sets: the same state gives the same rules after a restart. */
static void render_peers(const struct out *o) {
    const struct merged *m = o->s->merged;
    VEC(const struct dset *) sets = {0};
    uint32_t id;
    struct merged_peer *p;
    for (size_t i = 0; id_peer_next(&m->peers, &i, &id, &p);) {
        struct dset **x = id_dset_get(&o->d->sets, id);
        if (x) {
            vec_push(&sets, *x);
        }
    }
    vec_sort(&sets, peer_cmp);
    for (size_t i = 0; i < sets.n; i++) {
        render_peer(o, sets.p[i], id_peer_get(&m->peers, sets.p[i]->id));
    }
    vec_fini(&sets);
}

void merged_render(struct dataplane *d, const struct seg *s, uint64_t *hash) {
    const struct merged *m = s->merged;
    struct out o = {d, &d->batch, s, hash};
    if (m->is_all) {
        nft_x_counter(begin(&o));
        end(&o, "all");
        return;
    }
    if (m->ports) {
        load_proto_port(begin(&o), false, R0);
        nft_x_lookup(o.b, m->ports->desc.name, 0, R0, false);
        end(&o, "");
    }
    for (size_t f = 0; f < 2; f++) {
        enum ip_family family = f ? IP_V6 : IP_V4;
        if (m->nets[f]) {
            (void)begin(&o);
            match_peer(&o, family, m->nets[f]);
            end(&o, "");
        }
        if (m->addrs[f]) {
            uint32_t next = f ? R4 : R1;
            match_family(begin(&o), family);
            load_addr(o.b, family, s->dir == CALC_INGRESS, R0);
            load_proto_port(o.b, false, next);
            nft_x_lookup(o.b, m->addrs[f]->desc.name, 0, R0, false);
            end(&o, "");
        }
    }
    render_peers(&o);
}

/* ---- ends ---- */

static void let_go(struct dataplane *d, struct kset *k) {
    if (k) {
        keyset_unwant_all(&k->keys); /* should it come back before it is removed */
        k->is_gone = true;
        kset_dirty(d, k);
    }
}

void merged_let_go(struct dataplane *d, struct merged *m) {
    let_go(d, m->ports);
    for (size_t f = 0; f < 2; f++) {
        let_go(d, m->nets[f]);
        let_go(d, m->addrs[f]);
    }
    struct merged_peer *p;
    for (size_t i = 0; id_peer_next(&m->peers, &i, NULL, &p);) {
        let_go(d, p->ports);
    }
}

void merged_fini(struct merged *m) {
    allow_count_fini(&m->counts);
    id_peer_fini(&m->peers);
}
