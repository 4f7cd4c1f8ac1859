/* The fixed chains: who is asked when. Egress of the sender and ingress of the receiver are two
 * base chains in a row: `accept` ends one, and the packet goes on to the other, so both must
 * accept. Nothing here touches packets that neither come from nor go to a pod. */
#include "dataplane/match.h"
#include "dataplane/table.h"

#include <arpa/inet.h>
#include <linux/icmpv6.h>
#include <linux/if.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter_ipv4.h>

static const struct {
    const char *name;
    bool is_hook;
    struct nft_hook hook;
} bases[N_BASE_CHAINS] = {
    [BASE_SPOOF] = {"pod-source", true, {NF_INET_PRE_ROUTING, NF_IP_PRI_RAW, "filter", NF_ACCEPT}},
    [BASE_SPOOF_CHECK] = {"pod-source-check", false, {0}},
    /* Just before the place where other firewalls filter: what they see has passed policy. */
    [BASE_FROM] = {"from-pod", true, {NF_INET_FORWARD, -11, "filter", NF_ACCEPT}},
    [BASE_TO] = {"to-pod", true, {NF_INET_FORWARD, -10, "filter", NF_ACCEPT}},
    [BASE_HOST] = {"from-pod-to-host", true, {NF_INET_LOCAL_IN, -11, "filter", NF_ACCEPT}},
    [BASE_HOST_ACTION] = {"host-from-pod", true, {NF_INET_LOCAL_IN, -10, "filter", NF_ACCEPT}},
    [BASE_NAT] = {"pod-masquerade",
                  true,
                  {NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC, "nat", NF_ACCEPT}},
};

const char *base_name(enum base_chain c) {
    return bases[c].name;
}
const struct nft_hook *base_hook(enum base_chain c) {
    return bases[c].is_hook ? &bases[c].hook : NULL;
}

/* One chain being written. */
struct out {
    struct dataplane *d;
    struct nft_batch *b;
    struct str chain;
    uint64_t hash;
};

static struct nft_batch *begin(struct out *o) {
    nft_rule_begin(o->b, o->chain);
    return o->b;
}
static void end(struct out *o, const char *comment) {
    o->hash = nft_chain_hash(o->hash, nft_rule_end(o->b, str_c(comment)));
}

/* iifname "cali*" (key NFT_META_IIFNAME) or oifname. */
static void match_iface(struct nft_batch *b, uint32_t key, struct str prefix) {
    nft_x_meta(b, key, R0);
    nft_x_cmp(b, R0, NFT_CMP_EQ, prefix.p, prefix.n);
}
static void match_ct_state(struct nft_batch *b, uint32_t bits) {
    uint32_t zero = 0;
    nft_x_ct(b, NFT_CT_STATE, R0);
    nft_x_and(b, R0, &bits, sizeof(bits));
    nft_x_cmp(b, R0, NFT_CMP_NEQ, &zero, sizeof(zero));
}
enum { CT_INVALID = 1, CT_ESTABLISHED = 2, CT_RELATED = 4 };

static void accept_established(struct out *o) {
    match_ct_state(begin(o), CT_ESTABLISHED | CT_RELATED);
    nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
    end(o, "");
}

/* For each pod interface prefix: packets of invalid state drop, unless switched off. */
static void drop_invalid(struct out *o, uint32_t iface_key) {
    const struct dataplane_settings *s = &o->d->settings;
    for (size_t i = 0; i < s->n_iface_prefixes && !s->has_no_invalid_check; i++) {
        match_iface(begin(o), iface_key, s->iface_prefixes[i]);
        match_ct_state(o->b, CT_INVALID);
        nft_x_verdict(o->b, NF_DROP, STR_NULL);
        end(o, "invalid conntrack state");
    }
}

static void dispatch(struct out *o, uint32_t iface_key, const struct hops *h) {
    nft_x_meta(begin(o), iface_key, R0);
    nft_x_vmap(o->b, h->set.desc.name, R0);
    end(o, "");
    for (size_t i = 0; i < o->d->settings.n_iface_prefixes; i++) {
        match_iface(begin(o), iface_key, o->d->settings.iface_prefixes[i]);
        nft_x_verdict(o->b, NF_DROP, STR_NULL);
        end(o, "unknown pod interface");
    }
}

/* Neighbour discovery, router solicitation, multicast listeners: a pod can't do without. */
static void accept_nd(struct out *o, struct str prefix) {
    static const uint8_t types[][2] = {{130, 133}, {135, 136}, {143, 143}};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        match_family(begin(o), IP_V6);
        if (prefix.n) {
            match_iface(o->b, NFT_META_IIFNAME, prefix);
        } else { /* only from a link-local or the unspecified address */
            uint8_t mask[16] = {0xff, 0xc0}, ll[16] = {0xfe, 0x80};
            load_addr(o->b, IP_V6, true, R0);
            nft_x_and(o->b, R0, mask, 16);
            nft_x_cmp(o->b, R0, NFT_CMP_EQ, ll, 16);
        }
        nft_x_meta(o->b, NFT_META_L4PROTO, R0);
        match_u8(o->b, IPPROTO_ICMPV6, false);
        nft_x_payload(o->b, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, R0);
        nft_x_range(o->b, R0, NFT_RANGE_EQ, &types[i][0], &types[i][1], 1);
        nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
        end(o, "neighbour discovery");
    }
}

static int iface_cmp(const void *a, const void *b) {
    return strcmp((*(const struct dep *const *)a)->iface, (*(const struct dep *const *)b)->iface);
}

/* What pods were allowed to send from (cni.projectcalico.org/allowedSourcePrefixes): a rule each,
 * they are few. */
static void accept_source_prefixes(struct out *o) {
    VEC(const struct dep *) deps = {0};
    struct dep **e;
    for (size_t i = 0; o->d->settings.may_spoof && id_dep_next(&o->d->endpoints, &i, NULL, &e);) {
        if ((*e)->spoof_ok.n) {
            vec_push(&deps, *e);
        }
    }
    vec_sort(&deps, iface_cmp);
    for (size_t i = 0; i < deps.n; i++) {
        const struct dep *x = deps.p[i];
        for (size_t k = 0; k < x->spoof_ok.n; k++) {
            const struct prefix *p = &x->spoof_ok.p[k];
            uint8_t mask[16] = {0};
            memset(mask, 0xff, p->len / 8);
            if (p->len % 8) {
                mask[p->len / 8] = (uint8_t)(0xff00 >> (p->len % 8));
            }
            match_iface(begin(o), NFT_META_IIFNAME, str_n(x->iface, strlen(x->iface) + 1));
            match_family(o->b, p->ip.family);
            load_addr(o->b, p->ip.family, true, R0);
            nft_x_and(o->b, R0, mask, ip_bytes(&p->ip));
            nft_x_cmp(o->b, R0, NFT_CMP_EQ, p->ip.b, ip_bytes(&p->ip));
            nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
            end(o, "allowedSourcePrefixes");
        }
    }
    vec_fini(&deps);
}

/* First of all rules, without a look at the interface's prefix: this is every packet's way. */
static void accept_own_sources(struct out *o) {
    static const struct {
        enum ip_family family;
        enum fixed_set set;
    } families[] = {{IP_V4, FIXED_SRC4}, {IP_V6, FIXED_SRC6}};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        match_family(begin(o), families[i].family);
        nft_x_meta(o->b, NFT_META_IIFNAME, R0);
        load_addr(o->b, families[i].family, true, R4);
        nft_x_lookup(o->b, o->d->fixed[families[i].set].desc.name, 0, R0, false);
        nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
        end(o, "the pod's own address");
    }
}

static void render_spoof_check(struct out *o) {
    accept_source_prefixes(o);
    accept_nd(o, STR_NULL);
    /* Duplicate address detection asks from the unspecified address. */
    uint8_t zero[16] = {0}, ns = 135;
    match_family(begin(o), IP_V6);
    load_addr(o->b, IP_V6, true, R0);
    nft_x_cmp(o->b, R0, NFT_CMP_EQ, zero, 16);
    nft_x_meta(o->b, NFT_META_L4PROTO, R0);
    match_u8(o->b, IPPROTO_ICMPV6, false);
    nft_x_payload(o->b, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, R0);
    match_u8(o->b, ns, false);
    nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
    end(o, "duplicate address detection");
    begin(o);
    nft_x_verdict(o->b, NF_DROP, STR_NULL);
    end(o, "source address is not the pod's");
}

static void render_host_action(struct out *o) {
    const struct dataplane_settings *s = &o->d->settings;
    if (s->endpoint_to_host != TO_HOST_DROP) {
        return; /* Accept, and Return to whatever else filters the host's input */
    }
    accept_established(o);
    for (size_t i = 0; i < s->n_iface_prefixes; i++) {
        accept_nd(o, s->iface_prefixes[i]);
        match_iface(begin(o), NFT_META_IIFNAME, s->iface_prefixes[i]);
        nft_x_verdict(o->b, NF_DROP, STR_NULL);
        end(o, "defaultEndpointToHostAction Drop");
    }
}

static void render_nat(struct out *o) {
    static const struct {
        enum ip_family family;
        enum fixed_set from, pools;
    } families[] = {{IP_V4, FIXED_NAT4, FIXED_POOL4}, {IP_V6, FIXED_NAT6, FIXED_POOL6}};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        if (o->d->fixed[families[i].from].keys.n_want == 0) {
            continue;
        }
        match_family(begin(o), families[i].family);
        load_addr(o->b, families[i].family, true, R0);
        nft_x_lookup(o->b, o->d->fixed[families[i].from].desc.name, 0, R0, false);
        load_addr(o->b, families[i].family, false, R0);
        nft_x_lookup(o->b, o->d->fixed[families[i].pools].desc.name, 0, R0, true);
        nft_x_masquerade(o->b, true);
        end(o, "natOutgoing");
    }
}

uint64_t render_base(struct dataplane *d, enum base_chain c) {
    struct out o = {d, &d->batch, str_c(bases[c].name), 0};
    const struct dataplane_settings *s = &d->settings;
    switch (c) {
    case BASE_SPOOF:
        accept_own_sources(&o);
        for (size_t i = 0; i < s->n_iface_prefixes; i++) {
            match_iface(begin(&o), NFT_META_IIFNAME, s->iface_prefixes[i]);
            nft_x_verdict(o.b, NFT_JUMP, str_c(bases[BASE_SPOOF_CHECK].name));
            end(&o, "");
        }
        break;
    case BASE_SPOOF_CHECK:
        render_spoof_check(&o);
        break;
    case BASE_FROM:
        accept_established(&o);
        drop_invalid(&o, NFT_META_IIFNAME);
        dispatch(&o, NFT_META_IIFNAME, &d->from);
        break;
    case BASE_TO:
        accept_established(&o);
        drop_invalid(&o, NFT_META_OIFNAME);
        dispatch(&o, NFT_META_OIFNAME, &d->to);
        break;
    case BASE_HOST:
        accept_established(&o);
        drop_invalid(&o, NFT_META_IIFNAME);
        for (size_t i = 0; i < s->n_iface_prefixes; i++) {
            accept_nd(&o, s->iface_prefixes[i]);
        }
        dispatch(&o, NFT_META_IIFNAME, &d->from);
        break;
    case BASE_HOST_ACTION:
        render_host_action(&o);
        break;
    case BASE_NAT:
        render_nat(&o);
        break;
    case N_BASE_CHAINS:
        break;
    }
    return o.hash;
}
