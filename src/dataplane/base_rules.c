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

#define NAT_BASE(name, hook, priority)       \
    {                                        \
        name, N_HOP_MAPS, true, {            \
            hook, priority, "nat", NF_ACCEPT \
        }                                    \
    }

/* map: the verdict map that it asks, and without which it isn't needed; N_HOP_MAPS: none. */
static const struct {
    const char *name;
    enum hop_map map;
    bool is_hook;
    struct nft_hook hook;
} bases[N_BASE_CHAINS] = {
    [BASE_SPOOF] = {"pod-source",
                    N_HOP_MAPS,
                    true,
                    {NF_INET_PRE_ROUTING, NF_IP_PRI_RAW, "filter", NF_ACCEPT}},
    [BASE_SPOOF_CHECK] = {"pod-source-check", N_HOP_MAPS, false, {0}},
    /* Just before the place where other firewalls filter: what they see has passed policy. */
    [BASE_FROM] = {"from-pod", N_HOP_MAPS, true, {NF_INET_FORWARD, -11, "filter", NF_ACCEPT}},
    [BASE_TO] = {"to-pod", N_HOP_MAPS, true, {NF_INET_FORWARD, -10, "filter", NF_ACCEPT}},
    [BASE_HOST] = {"from-pod-to-host",
                   N_HOP_MAPS,
                   true,
                   {NF_INET_LOCAL_IN, -11, "filter", NF_ACCEPT}},
    [BASE_HOST_ACTION] = {"host-from-pod",
                          N_HOP_MAPS,
                          true,
                          {NF_INET_LOCAL_IN, -10, "filter", NF_ACCEPT}},
    [BASE_NAT] = NAT_BASE("pod-masquerade", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC),
    [BASE_TUNNEL_IN] = {"tunnel-in",
                        N_HOP_MAPS,
                        true,
                        {NF_INET_LOCAL_IN, -13, "filter", NF_ACCEPT}},
    [BASE_DNAT] = NAT_BASE("host-dnat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST),
    [BASE_DNAT_OWN] = NAT_BASE("host-dnat-own", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST),
    [BASE_STAGED_FROM] = {"staged-from-pod",
                          HOP_STAGED_OUT,
                          true,
                          {NF_INET_FORWARD, -14, "filter", NF_ACCEPT}},
    [BASE_STAGED_TO] = {"staged-to-pod",
                        HOP_STAGED_IN,
                        true,
                        {NF_INET_FORWARD, -13, "filter", NF_ACCEPT}},
    [BASE_UNTRACKED_IN] = {"untracked-in",
                           HOP_UNTRACKED_IN,
                           true,
                           {NF_INET_PRE_ROUTING, NF_IP_PRI_RAW + 1, "filter", NF_ACCEPT}},
    [BASE_UNTRACKED_OUT] = {"untracked-out",
                            HOP_UNTRACKED_OUT,
                            true,
                            {NF_INET_LOCAL_OUT, NF_IP_PRI_RAW, "filter", NF_ACCEPT}},
    [BASE_PRE_DNAT] = {"pre-dnat",
                       HOP_PRE_DNAT,
                       true,
                       {NF_INET_PRE_ROUTING, NF_IP_PRI_MANGLE, "filter", NF_ACCEPT}},
    [BASE_HOST_IN] = {"host-in", HOP_HOST_IN, true, {NF_INET_LOCAL_IN, -9, "filter", NF_ACCEPT}},
    [BASE_HOST_OUT] = {"host-out",
                       HOP_HOST_OUT,
                       true,
                       {NF_INET_LOCAL_OUT, -9, "filter", NF_ACCEPT}},
    [BASE_HOST_STAGED_IN] = {"host-staged-in",
                             HOP_HOST_STAGED_IN,
                             true,
                             {NF_INET_LOCAL_IN, -12, "filter", NF_ACCEPT}},
    [BASE_HOST_STAGED_OUT] = {"host-staged-out",
                              HOP_HOST_STAGED_OUT,
                              true,
                              {NF_INET_LOCAL_OUT, -12, "filter", NF_ACCEPT}},
    [BASE_FORWARD_IN] = {"forward-in",
                         HOP_FORWARD_IN,
                         true,
                         {NF_INET_FORWARD, -12, "filter", NF_ACCEPT}},
    [BASE_FORWARD_OUT] = {"forward-out",
                          HOP_FORWARD_OUT,
                          true,
                          {NF_INET_FORWARD, -9, "filter", NF_ACCEPT}},
};

const char *base_name(enum base_chain c) {
    return bases[c].name;
}

bool base_hook(const struct dataplane *d, enum base_chain c, struct nft_hook *out) {
    enum { AFTER_OTHERS = 30 }; /* from just before priority 0 to after it */
    *out = bases[c].hook;
    bool is_filter = out->hooknum == NF_INET_FORWARD || out->hooknum == NF_INET_LOCAL_IN ||
                     (out->hooknum == NF_INET_LOCAL_OUT && out->priority > NF_IP_PRI_MANGLE);
    if (bases[c].is_hook && is_filter && d->settings.is_append) {
        out->priority += AFTER_OTHERS;
    }
    return bases[c].is_hook;
}

struct hops *base_hops(struct dataplane *d, enum base_chain c) {
    return bases[c].map == N_HOP_MAPS ? NULL : &d->hops[bases[c].map];
}

bool base_is_wanted(struct dataplane *d, enum base_chain c) {
    const struct hops *h = base_hops(d, c);
    if (c == BASE_DNAT || c == BASE_DNAT_OWN) {
        return nat_is_wanted(d);
    }
    return c == BASE_TUNNEL_IN ? tunnel_is_wanted(d) : !h || h->is_wanted;
}

struct nft_batch *chain_rule(struct chain_out *o) {
    nft_rule_begin(o->b, o->chain);
    return o->b;
}
void chain_rule_end(struct chain_out *o, const char *comment) {
    o->hash = nft_chain_hash(o->hash, nft_rule_end(o->b, str_c(comment)));
}

static void end_drop(struct chain_out *o, const char *comment) {
    nft_x_counter(o->b);
    nft_x_verdict(o->b, NF_DROP, STR_NULL);
    chain_rule_end(o, comment);
}

/* iifname "cali*" (key NFT_META_IIFNAME) or oifname. */
void match_iface(struct nft_batch *b, uint32_t key, struct str prefix) {
    nft_x_meta(b, key, R0);
    nft_x_cmp(b, R0, NFT_CMP_EQ, prefix.p, prefix.n);
}
void match_ct_state(struct nft_batch *b, uint32_t bits) {
    uint32_t zero = 0;
    nft_x_ct(b, NFT_CT_STATE, R0);
    nft_x_and(b, R0, &bits, sizeof(bits));
    nft_x_cmp(b, R0, NFT_CMP_NEQ, &zero, sizeof(zero));
}

void accept_established(struct chain_out *o) {
    match_ct_state(chain_rule(o), CT_ESTABLISHED | CT_RELATED);
    nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
    chain_rule_end(o, "");
}

/* For each pod interface prefix: packets of invalid state drop, unless switched off. */
static void drop_invalid(struct chain_out *o, uint32_t iface_key) {
    const struct dataplane_settings *s = &o->d->settings;
    for (size_t i = 0; i < s->n_iface_prefixes && !s->has_no_invalid_check; i++) {
        match_iface(chain_rule(o), iface_key, s->iface_prefixes[i]);
        match_ct_state(o->b, CT_INVALID);
        end_drop(o, "invalid conntrack state");
    }
}

static void dispatch(struct chain_out *o, uint32_t iface_key, const struct hops *h) {
    nft_x_meta(chain_rule(o), iface_key, R0);
    nft_x_vmap(o->b, h->set.desc.name, R0);
    chain_rule_end(o, "");
    for (size_t i = 0; i < o->d->settings.n_iface_prefixes; i++) {
        match_iface(chain_rule(o), iface_key, o->d->settings.iface_prefixes[i]);
        end_drop(o, "unknown pod interface");
    }
}

/* Neighbour discovery, router solicitation, multicast listeners: a pod can't do without. */
static void accept_nd(struct chain_out *o, struct str prefix) {
    static const uint8_t types[][2] = {{130, 133}, {135, 136}, {143, 143}};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        match_family(chain_rule(o), IP_V6);
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
        chain_rule_end(o, "neighbour discovery");
    }
}

static int iface_cmp(const void *a, const void *b) {
    return strcmp((*(const struct dep *const *)a)->iface, (*(const struct dep *const *)b)->iface);
}

/* What pods were allowed to send from (cni.projectcalico.org/allowedSourcePrefixes): a rule each,
 * they are few. */
static void accept_source_prefixes(struct chain_out *o) {
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
            match_iface(chain_rule(o), NFT_META_IIFNAME, str_n(x->iface, strlen(x->iface) + 1));
            match_family(o->b, p->ip.family);
            match_prefix(o->b, p, true);
            nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
            chain_rule_end(o, "allowedSourcePrefixes");
        }
    }
    vec_fini(&deps);
}

/* First of all rules, without a look at the interface's prefix: this is every packet's way. */
static void accept_own_sources(struct chain_out *o) {
    static const struct {
        enum ip_family family;
        enum fixed_set set;
    } families[] = {{IP_V4, FIXED_SRC4}, {IP_V6, FIXED_SRC6}};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        match_family(chain_rule(o), families[i].family);
        nft_x_meta(o->b, NFT_META_IIFNAME, R0);
        load_addr(o->b, families[i].family, true, R4);
        nft_x_lookup(o->b, o->d->fixed[families[i].set].desc.name, 0, R0, false);
        nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
        chain_rule_end(o, "the pod's own address");
    }
}

static void render_spoof_check(struct chain_out *o) {
    accept_source_prefixes(o);
    accept_nd(o, STR_NULL);
    /* Duplicate address detection asks from the unspecified address. */
    uint8_t zero[16] = {0}, ns = 135;
    match_family(chain_rule(o), IP_V6);
    load_addr(o->b, IP_V6, true, R0);
    nft_x_cmp(o->b, R0, NFT_CMP_EQ, zero, 16);
    nft_x_meta(o->b, NFT_META_L4PROTO, R0);
    match_u8(o->b, IPPROTO_ICMPV6, false);
    nft_x_payload(o->b, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, R0);
    match_u8(o->b, ns, false);
    nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
    chain_rule_end(o, "duplicate address detection");
    (void)chain_rule(o);
    end_drop(o, "source address is not the pod's");
}

static void render_host_action(struct chain_out *o) {
    const struct dataplane_settings *s = &o->d->settings;
    if (s->endpoint_to_host != TO_HOST_DROP) {
        return; /* Accept, and Return to whatever else filters the host's input */
    }
    accept_established(o);
    for (size_t i = 0; i < s->n_iface_prefixes; i++) {
        accept_nd(o, s->iface_prefixes[i]);
        match_iface(chain_rule(o), NFT_META_IIFNAME, s->iface_prefixes[i]);
        nft_x_counter(o->b);
        put_deny(o->d, LIST_NORMAL, STR("defaultEndpointToHostAction Drop"));
        chain_rule_end(o, "defaultEndpointToHostAction Drop");
    }
}

static void render_nat(struct chain_out *o) {
    static const struct {
        enum ip_family family;
        enum fixed_set from, pools;
    } families[] = {{IP_V4, FIXED_NAT4, FIXED_POOL4}, {IP_V6, FIXED_NAT6, FIXED_POOL6}};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        if (o->d->fixed[families[i].from].keys.n_want == 0) {
            continue;
        }
        match_family(chain_rule(o), families[i].family);
        load_addr(o->b, families[i].family, true, R0);
        nft_x_lookup(o->b, o->d->fixed[families[i].from].desc.name, 0, R0, false);
        load_addr(o->b, families[i].family, false, R0);
        nft_x_lookup(o->b, o->d->fixed[families[i].pools].desc.name, 0, R0, true);
        nft_x_masquerade(o->b, true);
        chain_rule_end(o, "natOutgoing");
    }
}

/* Looks new connections up; every list ends with an accept. */
static void render_staged(struct chain_out *o, uint32_t iface_key, const struct hops *h) {
    accept_established(o);
    nft_x_meta(chain_rule(o), iface_key, R0);
    nft_x_vmap(o->b, h->set.desc.name, R0);
    chain_rule_end(o, "");
}

uint64_t render_base(struct dataplane *d, enum base_chain c) {
    struct chain_out o = {d, &d->batch, str_c(bases[c].name), 0};
    const struct dataplane_settings *s = &d->settings;
    switch (c) {
    case BASE_SPOOF:
        accept_own_sources(&o);
        for (size_t i = 0; i < s->n_iface_prefixes; i++) {
            match_iface(chain_rule(&o), NFT_META_IIFNAME, s->iface_prefixes[i]);
            nft_x_verdict(o.b, NFT_JUMP, str_c(bases[BASE_SPOOF_CHECK].name));
            chain_rule_end(&o, "");
        }
        break;
    case BASE_SPOOF_CHECK:
        render_spoof_check(&o);
        break;
    case BASE_FROM:
        accept_established(&o);
        drop_invalid(&o, NFT_META_IIFNAME);
        drop_pods_tunnels(&o);
        dispatch(&o, NFT_META_IIFNAME, &d->hops[HOP_PODS_OUT]);
        break;
    case BASE_TO:
        accept_established(&o);
        drop_invalid(&o, NFT_META_OIFNAME);
        dispatch(&o, NFT_META_OIFNAME, &d->hops[HOP_PODS_IN]);
        break;
    case BASE_HOST:
        accept_established(&o);
        drop_invalid(&o, NFT_META_IIFNAME);
        drop_pods_tunnels(&o);
        for (size_t i = 0; i < s->n_iface_prefixes; i++) {
            accept_nd(&o, s->iface_prefixes[i]);
        }
        dispatch(&o, NFT_META_IIFNAME, &d->hops[HOP_PODS_OUT]);
        break;
    case BASE_HOST_ACTION:
        render_host_action(&o);
        break;
    case BASE_NAT:
        nat_render_snat(&o);
        render_nat(&o);
        break;
    case BASE_TUNNEL_IN:
        render_tunnel_in(&o);
        break;
    case BASE_DNAT:
    case BASE_DNAT_OWN:
        nat_render_dnat(&o);
        break;
    case BASE_STAGED_FROM:
        render_staged(&o, NFT_META_IIFNAME, &d->hops[HOP_STAGED_OUT]);
        break;
    case BASE_STAGED_TO:
        render_staged(&o, NFT_META_OIFNAME, &d->hops[HOP_STAGED_IN]);
        break;
    case BASE_UNTRACKED_IN:
    case BASE_UNTRACKED_OUT:
    case BASE_PRE_DNAT:
    case BASE_HOST_IN:
    case BASE_HOST_OUT:
    case BASE_HOST_STAGED_IN:
    case BASE_HOST_STAGED_OUT:
    case BASE_FORWARD_IN:
    case BASE_FORWARD_OUT:
        render_host(&o, c);
        break;
    case N_BASE_CHAINS:
        break;
    }
    return o.hash;
}
