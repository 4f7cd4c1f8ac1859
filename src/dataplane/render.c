/* Calculated rules as nftables rules. A rule becomes one for each family it speaks of and for each
 * alternative that one nftables rule can't hold (exact addresses or prefixes of a set; numbers or
 * names of ports). */
#include "dataplane/match.h"
#include "dataplane/table.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>

/* ---- what a rule means for one family ---- */

/* Alternatives of one side: each is tried in a rule of its own. */
struct side_plan {
    bool is_src;
    const struct calc_side *s;
    struct kset *sets[2]; /* positive selector set: exact, prefixes */
    size_t n_sets;        /* 0 and s->set: can't match */
    struct kset *service[2];
    size_t n_service;
    const struct kset *port_sets[64];
    size_t n_port_sets;
    size_t n_nets, n_not_nets; /* of the family */
};

static struct dset *dset_get(struct dataplane *d, uint32_t id) {
    struct dset **s = id ? id_dset_get(&d->sets, id) : NULL;
    return s ? *s : NULL;
}

/* The kernel sets of one family of a calculated set; returns how many (0..2). */
static size_t parts_of(struct dataplane *d, uint32_t id, enum ip_family f, struct kset *out[2]) {
    struct dset *s = dset_get(d, id);
    size_t n = 0;
    if (s) {
        enum part first = f == IP_V4 ? PART_V4 : PART_V6;
        for (size_t i = 0; i < 2; i++) {
            if (s->parts[first + i]) {
                out[n++] = s->parts[first + i];
            }
        }
    }
    return n;
}

static size_t count_nets(const struct prefix *p, size_t n, enum ip_family f) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        k += p[i].ip.family == f;
    }
    return k;
}

/* false: this side can match nothing in this family. */
static bool plan_side(struct dataplane *d, const struct calc_side *s, bool is_src, enum ip_family f,
                      struct side_plan *out) {
    *out = (struct side_plan){.is_src = is_src, .s = s};
    if (s->set && (out->n_sets = parts_of(d, s->set, f, out->sets)) == 0) {
        return false;
    }
    if (s->service_set && (out->n_service = parts_of(d, s->service_set, f, out->service)) == 0) {
        return false;
    }
    if (s->n_nets && (out->n_nets = count_nets(s->nets, s->n_nets, f)) == 0) {
        return false;
    }
    out->n_not_nets = count_nets(s->not_nets, s->n_not_nets, f);
    for (size_t i = 0; i < s->n_port_sets && out->n_port_sets < ARRAY_LEN(out->port_sets); i++) {
        struct kset *p[2];
        if (parts_of(d, s->port_sets[i], f, p)) {
            out->port_sets[out->n_port_sets++] = p[0];
        }
    }
    return !(s->n_port_sets && !s->n_ports && !out->n_port_sets);
}

/* Does this side look at addresses, so that the family matters? */
static bool side_has_l3(const struct calc_side *s) {
    return s->set || s->not_set || s->service_set || s->n_nets || s->n_not_nets || s->n_port_sets ||
           s->n_not_port_sets;
}

/* ---- anonymous sets ---- */

static struct nft_range net_range(const struct prefix *p) {
    struct nft_range r = {{0}, {0}};
    size_t n = ip_bytes(&p->ip);
    memcpy(r.from, p->ip.b, n);
    memcpy(r.to, p->ip.b, n);
    for (size_t bit = p->len; bit < n * 8; bit++) {
        uint8_t mask = (uint8_t)(0x80 >> (bit & 7));
        r.from[bit / 8] &= (uint8_t)~mask;
        r.to[bit / 8] |= mask;
    }
    return r;
}

static int range_cmp(const void *a, const void *b) {
    return memcmp(((const struct nft_range *)a)->from, ((const struct nft_range *)b)->from, 16);
}

/* An anonymous set of the nets of one family; overlaps joined, as the kernel refuses them. */
static uint32_t anon_nets(struct nft_batch *b, const struct prefix *p, size_t n, enum ip_family f) {
    VEC(struct nft_range) v = {0};
    for (size_t i = 0; i < n; i++) {
        if (p[i].ip.family == f) {
            vec_push(&v, net_range(&p[i]));
        }
    }
    vec_sort(&v, range_cmp);
    size_t k = 0, len = f == IP_V4 ? 4 : 16;
    for (size_t i = 0; i < v.n; i++) {
        if (k) {
            uint8_t after[16];
            memcpy(after, v.p[k - 1].to, 16);
            if (!nft_key_next(after, len) || memcmp(v.p[i].from, after, len) <= 0) {
                if (memcmp(v.p[i].to, v.p[k - 1].to, len) > 0) {
                    memcpy(v.p[k - 1].to, v.p[i].to, 16);
                }
                continue;
            }
        }
        v.p[k++] = v.p[i];
    }
    uint32_t id = nft_anon_set(b, f == IP_V4 ? NFT_TYPE_IPADDR : NFT_TYPE_IP6ADDR, v.p, k);
    vec_fini(&v);
    return id;
}

static uint32_t anon_ports(struct nft_batch *b, const struct calc_ports *p, size_t n) {
    VEC(struct nft_range) v = {0};
    for (size_t i = 0; i < n; i++) { /* sorted and merged by the calculation */
        struct nft_range r = {{(uint8_t)(p[i].min >> 8), (uint8_t)p[i].min},
                              {(uint8_t)(p[i].max >> 8), (uint8_t)p[i].max}};
        vec_push(&v, r);
    }
    uint32_t id = nft_anon_set(b, NFT_TYPE_INET_SERVICE, v.p, v.n);
    vec_fini(&v);
    return id;
}

/* Ids of the anonymous sets of one nftables rule: they must be in the transaction before it. */
struct anon {
    uint32_t nets, not_nets, ports, not_ports;
};

static struct anon make_anon(struct nft_batch *b, const struct side_plan *p, enum ip_family f,
                             bool by_number) {
    const struct calc_side *s = p->s;
    return (struct anon){
        .nets = p->n_nets > 1 ? anon_nets(b, s->nets, s->n_nets, f) : 0,
        .not_nets = p->n_not_nets > 1 ? anon_nets(b, s->not_nets, s->n_not_nets, f) : 0,
        .ports = by_number && s->n_ports > 1 ? anon_ports(b, s->ports, s->n_ports) : 0,
        .not_ports = s->n_not_ports > 1 ? anon_ports(b, s->not_ports, s->n_not_ports) : 0,
    };
}

/* ---- matches of one side ---- */

static void match_net(struct nft_batch *b, const struct prefix *nets, size_t n, uint32_t anon,
                      const struct side_plan *p, enum ip_family f, bool negate) {
    load_addr(b, f, p->is_src, R0);
    if (anon) {
        nft_x_lookup(b, STR("__set%d"), anon, R0, negate);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (nets[i].ip.family != f) {
            continue;
        }
        struct nft_range r = net_range(&nets[i]);
        size_t len = ip_bytes(&nets[i].ip);
        if (nets[i].len < len * 8) {
            uint8_t mask[16];
            for (size_t k = 0; k < len; k++) {
                mask[k] = (uint8_t) ~(r.from[k] ^ r.to[k]);
            }
            nft_x_and(b, R0, mask, len);
        }
        nft_x_cmp(b, R0, negate ? NFT_CMP_NEQ : NFT_CMP_EQ, r.from, len);
    }
}

static void match_ports(struct nft_batch *b, const struct calc_ports *ports, uint32_t anon,
                        bool is_src, bool negate) {
    load_port(b, is_src, R0);
    if (anon) {
        nft_x_lookup(b, STR("__set%d"), anon, R0, negate);
        return;
    }
    uint16_t lo = htons(ports->min), hi = htons(ports->max);
    if (lo == hi) {
        nft_x_cmp(b, R0, negate ? NFT_CMP_NEQ : NFT_CMP_EQ, &lo, 2);
    } else {
        nft_x_range(b, R0, negate ? NFT_RANGE_NEQ : NFT_RANGE_EQ, &lo, &hi, 2);
    }
}

static void match_addr_port(struct nft_batch *b, const struct kset *set, bool is_src,
                            enum ip_family f, bool negate) {
    uint32_t proto = f == IP_V4 ? R1 : R4;
    load_addr(b, f, is_src, R0);
    load_proto_port(b, is_src, proto);
    nft_x_lookup(b, set->desc.name, 0, R0, negate);
}

static void match_set(struct nft_batch *b, const struct kset *set, const struct side_plan *p,
                      enum ip_family f, bool negate) {
    if (set->desc.fields[1]) {
        match_addr_port(b, set, p->is_src, f, negate);
    } else {
        load_addr(b, f, p->is_src, R0);
        nft_x_lookup(b, set->desc.name, 0, R0, negate);
    }
}

/* One choice of alternatives. */
struct choice {
    size_t set, service, port; /* port: 0 = numbers if there are any, then names */
};

static bool by_number(const struct side_plan *p, const struct choice *c) {
    return p->s->n_ports && c->port == 0;
}

static void match_side(struct dataplane *d, const struct side_plan *p, const struct choice *c,
                       const struct anon *a, enum ip_family f) {
    struct nft_batch *b = &d->batch;
    const struct calc_side *s = p->s;
    if (p->n_nets) {
        match_net(b, s->nets, s->n_nets, a->nets, p, f, false);
    }
    if (p->n_not_nets) {
        match_net(b, s->not_nets, s->n_not_nets, a->not_nets, p, f, true);
    }
    if (by_number(p, c)) {
        match_ports(b, s->ports, a->ports, p->is_src, false);
    }
    if (s->n_not_ports) {
        match_ports(b, s->not_ports, a->not_ports, p->is_src, true);
    }
    if (s->set) {
        match_set(b, p->sets[c->set], p, f, false);
    }
    if (s->service_set) {
        match_set(b, p->service[c->service], p, f, false);
    }
    if (s->n_port_sets && !by_number(p, c)) {
        match_addr_port(b, p->port_sets[c->port - (s->n_ports ? 1 : 0)], p->is_src, f, false);
    }
    struct kset *parts[2];
    size_t n = s->not_set ? parts_of(d, s->not_set, f, parts) : 0;
    for (size_t i = 0; i < n; i++) {
        match_set(b, parts[i], p, f, true);
    }
    for (size_t i = 0; i < s->n_not_port_sets; i++) {
        if (parts_of(d, s->not_port_sets[i], f, parts)) {
            match_addr_port(b, parts[0], p->is_src, f, true);
        }
    }
}

static void match_icmp(struct nft_batch *b, int16_t type, int16_t code, bool negate) {
    if (type < 0) {
        return;
    }
    uint8_t v[2] = {(uint8_t)type, (uint8_t)code};
    size_t n = code < 0 ? 1 : 2;
    nft_x_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 0, (uint32_t)n, R0);
    nft_x_cmp(b, R0, negate ? NFT_CMP_NEQ : NFT_CMP_EQ, v, n);
}

/* ---- a rule ---- */

struct rule_out {
    struct dataplane *d;
    const struct variant *v;
    const struct calc_rule *r;
    struct str comment;
    uint64_t *hash;
    /* notICMP without a protocol: a rule for what is no ICMP, and one for ICMP of other types. */
    enum { ICMP_AS_GIVEN, ICMP_NONE, ICMP_OTHER } icmp;
};

static uint8_t icmp_protocol(enum ip_family f) {
    return f == IP_V6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
}

static void match_not_icmp(const struct rule_out *o, enum ip_family f) {
    struct nft_batch *b = &o->d->batch;
    const struct calc_rule *r = o->r;
    if (o->icmp != ICMP_AS_GIVEN) {
        nft_x_meta(b, NFT_META_L4PROTO, R0);
        match_u8(b, icmp_protocol(f), o->icmp == ICMP_NONE);
    }
    if (o->icmp == ICMP_OTHER || r->protocol == icmp_protocol(f)) {
        match_icmp(b, r->not_icmp_type, r->not_icmp_code, true);
    }
}

static void put_verdict(const struct rule_out *o) {
    struct nft_batch *b = &o->d->batch;
    switch (o->r->action) {
    case RULE_ALLOW:
        if (o->v->pol->p->is_untracked) {
            nft_x_notrack(b);
        }
        nft_x_verdict(b, NF_ACCEPT, STR_NULL);
        break;
    case RULE_DENY:
        put_deny(o->d, o->v->mode, o->comment);
        break;
    case RULE_PASS:
        if (o->v->pass_to) {
            nft_x_verdict(b, NFT_GOTO, str_c(o->v->pass_to->c.name));
        } else {
            nft_x_verdict(b, NFT_RETURN, STR_NULL);
        }
        break;
    case RULE_LOG:
        nft_x_log(b, DATAPLANE_LOG_GROUP, o->comment);
        break;
    }
}

static void put_rule(const struct rule_out *o, const struct side_plan *src, const struct choice *cs,
                     const struct side_plan *dst, const struct choice *cd, enum ip_family f) {
    struct nft_batch *b = &o->d->batch;
    const struct calc_rule *r = o->r;
    struct anon as = make_anon(b, src, f, by_number(src, cs));
    struct anon ad = make_anon(b, dst, f, by_number(dst, cd));
    nft_rule_begin(b, str_c(o->v->c.name));
    if (f != IP_NONE) {
        match_family(b, f);
    }
    if (r->protocol >= 0) {
        nft_x_meta(b, NFT_META_L4PROTO, R0);
        match_u8(b, (uint8_t)r->protocol, false);
    }
    if (r->not_protocol >= 0) {
        nft_x_meta(b, NFT_META_L4PROTO, R0);
        match_u8(b, (uint8_t)r->not_protocol, true);
    }
    match_icmp(b, r->icmp_type, r->icmp_code, false);
    match_not_icmp(o, f);
    match_side(o->d, src, cs, &as, f);
    match_side(o->d, dst, cd, &ad, f);
    nft_x_counter(b);
    put_verdict(o);
    *o->hash = nft_chain_hash(*o->hash, nft_rule_end(b, o->comment));
}

static size_t at_least_one(size_t n) {
    return n ? n : 1;
}

/* All alternatives. */
static void put_choices(const struct rule_out *o, const struct side_plan *src,
                        const struct side_plan *dst, enum ip_family f) {
    size_t sp = at_least_one((src->s->n_ports ? 1 : 0) + src->n_port_sets);
    size_t dp = at_least_one((dst->s->n_ports ? 1 : 0) + dst->n_port_sets);
    struct choice cs, cd;
    for (cs.set = 0; cs.set < at_least_one(src->n_sets); cs.set++) {
        for (cs.service = 0; cs.service < at_least_one(src->n_service); cs.service++) {
            for (cs.port = 0; cs.port < sp; cs.port++) {
                for (cd.set = 0; cd.set < at_least_one(dst->n_sets); cd.set++) {
                    for (cd.service = 0; cd.service < at_least_one(dst->n_service); cd.service++) {
                        for (cd.port = 0; cd.port < dp; cd.port++) {
                            put_rule(o, src, &cs, dst, &cd, f);
                        }
                    }
                }
            }
        }
    }
}

/* A rule in one family (IP_NONE: it does not look at addresses). */
static void put_family(struct rule_out *o, enum ip_family f) {
    struct side_plan src, dst;
    if (!plan_side(o->d, &o->r->src, true, f, &src) ||
        !plan_side(o->d, &o->r->dst, false, f, &dst)) {
        return;
    }
    bool is_any = o->r->not_icmp_type >= 0 && o->r->protocol < 0;
    o->icmp = is_any ? ICMP_NONE : ICMP_AS_GIVEN;
    put_choices(o, &src, &dst, f);
    if (is_any) {
        o->icmp = ICMP_OTHER;
        put_choices(o, &src, &dst, f);
    }
}

uint64_t render_variant(struct dataplane *d, const struct variant *v) {
    const struct calc_policy *p = v->pol->p;
    allow_vec merged = {0};
    uint64_t hash = 0;
    for (size_t i = 0; i < p->n_rules; i++) {
        const struct calc_rule *r = &p->rules[i];
        if (r->never || (v->is_rest && merge_rule(r, p->dir, &merged))) {
            continue;
        }
        if (r->action == RULE_LOG && v->mode == LIST_STAGED) {
            continue;
        }
        MG_CLEANUP(buf_fini) struct buf c = BUF_INIT(1024);
        calc_rule_name(p, r->index, &c);
        struct rule_out o = {d, v, r, buf_view(&c), &hash, ICMP_AS_GIVEN};
        bool is_l3 = side_has_l3(&r->src) || side_has_l3(&r->dst) || r->not_icmp_type >= 0;
        if (!is_l3 && r->families == (CALC_V4 | CALC_V6)) {
            put_family(&o, IP_NONE);
            continue;
        }
        if (r->families & CALC_V4) {
            put_family(&o, IP_V4);
        }
        if (r->families & CALC_V6) {
            put_family(&o, IP_V6);
        }
    }
    vec_fini(&merged);
    return hash;
}

void put_deny(struct dataplane *d, enum list_mode mode, struct str name) {
    struct nft_batch *b = &d->batch;
    enum drop_override o = d->settings.drop_override;
    if (mode == LIST_STAGED) {
        nft_x_verdict(b, NF_ACCEPT, STR_NULL);
        return;
    }
    if (o == OVERRIDE_LOG_DROP || o == OVERRIDE_LOG_ACCEPT) {
        nft_x_log(b, DATAPLANE_LOG_GROUP, name);
    }
    if (o == OVERRIDE_ACCEPT || o == OVERRIDE_LOG_ACCEPT) {
        nft_x_verdict(b, NF_ACCEPT, STR_NULL);
    } else if (d->settings.deny == DENY_REJECT && mode != LIST_RAW) {
        nft_x_reject(b);
    } else {
        nft_x_verdict(b, NF_DROP, STR_NULL);
    }
}

static void put_jump(struct dataplane *d, const struct seg *s, int32_t code, struct str chain,
                     uint64_t *hash) {
    nft_rule_begin(&d->batch, str_c(s->c.name));
    nft_x_verdict(&d->batch, code, chain);
    *hash = nft_chain_hash(*hash, nft_rule_end(&d->batch, STR_NULL));
}

uint64_t render_seg(struct dataplane *d, const struct seg *s) {
    uint64_t hash = 0;
    if (s->merged) {
        merged_render(d, s, &hash);
    }
    for (size_t i = 0; i < s->list.n; i++) {
        put_jump(d, s, NFT_JUMP, str_c(s->list.p[i]->c.name), &hash);
    }
    switch (s->end) {
    case END_NEXT:
        put_jump(d, s, NFT_GOTO, str_c(s->next->c.name), &hash);
        break;
    case END_ACCEPT:
        put_jump(d, s, NF_ACCEPT, STR_NULL, &hash);
        break;
    case END_DROP: {
        char text[128];
        snprintf(text, sizeof(text), s->is_profiles ? "no profile matched" : "end of tier %.80s",
                 s->tier);
        nft_rule_begin(&d->batch, str_c(s->c.name));
        nft_x_counter(&d->batch);
        put_deny(d, s->mode, str_c(text));
        hash = nft_chain_hash(hash, nft_rule_end(&d->batch, str_c(text)));
        break;
    }
    }
    return hash;
}
