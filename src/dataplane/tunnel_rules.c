/* Encapsulated packets carry others inside, which no policy sees on the way. So pods may not send
 * any, unless settings say so, and this node takes them from other nodes alone. Source:
 * felix/rules/static.go, endpoints.go. */
#include "dataplane/match.h"
#include "dataplane/table.h"

static const struct {
    enum ip_family family;
    enum fixed_set nodes;
} FAMILIES[] = {{IP_V4, FIXED_NODE4}, {IP_V6, FIXED_NODE6}};

bool tunnel_is_wanted(const struct dataplane *d) {
    return d->has_tunnel[0] || d->has_tunnel[1];
}

void dataplane_set_tunnels(struct dataplane *d, const bool has[2], const struct ip46 *hosts,
                           size_t n) {
    static const enum base_chain chains[] = {BASE_TUNNEL_IN,    BASE_HOST_IN,       BASE_HOST_OUT,
                                             BASE_UNTRACKED_IN, BASE_UNTRACKED_OUT, BASE_PRE_DNAT};
    bool is_same = has[0] == d->has_tunnel[0] && has[1] == d->has_tunnel[1];
    for (size_t f = 0; f < ARRAY_LEN(FAMILIES); f++) {
        struct kset *k = &d->fixed[FAMILIES[f].nodes];
        keyset_unwant_all(&k->keys);
        kset_dirty(d, k);
        for (size_t i = 0; i < n && has[f]; i++) {
            if (hosts[i].family == FAMILIES[f].family) {
                kset_want_key(d, k, hosts[i].b, true);
            }
        }
    }
    memcpy(d->has_tunnel, has, sizeof(d->has_tunnel));
    for (size_t i = 0; i < ARRAY_LEN(chains) && !is_same; i++) {
        d->base[chains[i]].is_dirty = true;
    }
}

static void match_vxlan(struct chain_out *o) {
    uint16_t port = htons(o->d->settings.vxlan_port);
    nft_x_meta(o->b, NFT_META_L4PROTO, R0);
    match_u8(o->b, IPPROTO_UDP, false);
    load_port(o->b, false, R0);
    nft_x_cmp(o->b, R0, NFT_CMP_EQ, &port, sizeof(port));
}

static void drop(struct chain_out *o, const char *comment) {
    nft_x_counter(o->b);
    nft_x_verdict(o->b, NF_DROP, STR_NULL);
    chain_rule_end(o, comment);
}

void drop_pods_tunnels(struct chain_out *o) {
    const struct dataplane_settings *s = &o->d->settings;
    for (size_t i = 0; i < s->n_iface_prefixes; i++) {
        if (!s->may_vxlan && s->vxlan_port) {
            match_iface(chain_rule(o), NFT_META_IIFNAME, s->iface_prefixes[i]);
            match_vxlan(o);
            drop(o, "VXLAN from a pod");
        }
        if (!s->may_ipip) {
            match_iface(chain_rule(o), NFT_META_IIFNAME, s->iface_prefixes[i]);
            nft_x_meta(o->b, NFT_META_L4PROTO, R0);
            match_u8(o->b, IPPROTO_IPIP, false);
            drop(o, "IPIP from a pod");
        }
    }
}

/* A packet to the device's port whose other end (is_src) is a node. */
static void match_node(struct chain_out *o, size_t f, bool is_src, bool negate) {
    match_family(chain_rule(o), FAMILIES[f].family);
    match_vxlan(o);
    load_addr(o->b, FAMILIES[f].family, is_src, R0);
    nft_x_lookup(o->b, o->d->fixed[FAMILIES[f].nodes].desc.name, 0, R0, negate);
}

void accept_tunnels(struct chain_out *o, bool is_in) {
    for (size_t f = 0; f < ARRAY_LEN(FAMILIES); f++) {
        if (o->d->has_tunnel[f]) {
            match_node(o, f, is_in, false);
            nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
            chain_rule_end(o, "VXLAN between nodes");
        }
    }
}

void render_tunnel_in(struct chain_out *o) {
    for (size_t f = 0; f < ARRAY_LEN(FAMILIES); f++) {
        if (o->d->has_tunnel[f]) {
            match_node(o, f, true, true);
            drop(o, "VXLAN from no node of the cluster");
        }
    }
}
