/* The chains of host endpoints. What a host endpoint's interface meets, in this order: untracked
 * policies (before conntrack), policies before DNAT, then those of forwarded or of the host's own
 * traffic. Failsafe ports come first in all but the forwarding ones. Interfaces of pods and the
 * loopback are nobody's. */
#include "dataplane/match.h"
#include "dataplane/table.h"

/* The ends of a chain's interface and of the ports that failsafes are about. */
struct view {
    enum calc_dir dir;
    uint32_t iface_key;
    bool is_raw; /* before conntrack: answers must be let through as well */
    bool is_staged;
};

static void end_accept(struct chain_out *o, const char *comment) {
    nft_x_verdict(o->b, NF_ACCEPT, STR_NULL);
    chain_rule_end(o, comment);
}

static void leave_others(struct chain_out *o, uint32_t iface_key) {
    const struct dataplane_settings *s = &o->d->settings;
    for (size_t i = 0; i < s->n_iface_prefixes; i++) {
        match_iface(chain_rule(o), iface_key, s->iface_prefixes[i]);
        end_accept(o, "a pod's");
    }
    match_iface(chain_rule(o), iface_key, str_n("lo", sizeof("lo")));
    end_accept(o, "");
}

/* One failsafe list: what is sent to its ports, or (answers) from them. is_src: the port is the
 * source's; net_is_src: the other side is. */
static void accept_failsafe(struct chain_out *o, enum calc_dir list, bool is_src, bool net_is_src) {
    const struct dataplane_settings *s = &o->d->settings;
    struct kset *k = &o->d->fixed[list == CALC_INGRESS ? FIXED_FAILSAFE_IN : FIXED_FAILSAFE_OUT];
    load_proto_port(chain_rule(o), is_src, R0);
    nft_x_lookup(o->b, k->desc.name, 0, R0, false);
    end_accept(o, "failsafe");
    for (size_t i = 0; i < s->n_failsafe[list]; i++) {
        const struct dataplane_failsafe *f = &s->failsafe[list][i];
        if (f->net.ip.family == IP_NONE) {
            continue;
        }
        uint16_t port = htons(f->port);
        match_family(chain_rule(o), f->net.ip.family);
        nft_x_meta(o->b, NFT_META_L4PROTO, R0);
        match_u8(o->b, f->protocol, false);
        load_port(o->b, is_src, R0);
        nft_x_cmp(o->b, R0, NFT_CMP_EQ, &port, sizeof(port));
        match_prefix(o->b, &f->net, net_is_src);
        end_accept(o, "failsafe");
    }
}

static void accept_failsafes(struct chain_out *o, const struct view *v) {
    bool is_in = v->dir == CALC_INGRESS;
    accept_failsafe(o, v->dir, false, is_in);
    if (v->is_raw) {
        accept_failsafe(o, is_in ? CALC_EGRESS : CALC_INGRESS, true, is_in);
    }
}

static int iface_cmp(const void *a, const void *b) {
    return strcmp((*(const struct hop *const *)a)->iface, (*(const struct hop *const *)b)->iface);
}

/* Interfaces of host endpoints that no staged policy concerns: those of "*" don't either. */
static void leave_unstaged(struct chain_out *o, const struct view *v, const struct hops *h) {
    const struct hops *all = &o->d->hops[v->dir == CALC_INGRESS ? HOP_HOST_IN : HOP_HOST_OUT];
    VEC(struct hop *) others = {0};
    struct hop **x;
    for (size_t i = 0; str_hop_next(&all->by_iface, &i, NULL, &x);) {
        if ((*x)->want && !hops_owner(h, (*x)->iface)) {
            vec_push(&others, *x);
        }
    }
    vec_sort(&others, iface_cmp);
    for (size_t i = 0; i < others.n; i++) {
        const char *iface = others.p[i]->iface;
        match_iface(chain_rule(o), v->iface_key, str_n(iface, strlen(iface) + 1));
        end_accept(o, "");
    }
    vec_fini(&others);
}

static void ask(struct chain_out *o, const struct view *v, const struct hops *h) {
    nft_x_meta(chain_rule(o), v->iface_key, R0);
    nft_x_vmap(o->b, h->set.desc.name, R0);
    chain_rule_end(o, "");
    if (h->any) {
        if (v->is_staged) {
            leave_unstaged(o, v, h);
        }
        (void)chain_rule(o);
        nft_x_verdict(o->b, NFT_GOTO, str_c(h->any));
        chain_rule_end(o, "all other interfaces");
    }
}

void render_host(struct chain_out *o, enum base_chain c) {
    bool is_out = c == BASE_UNTRACKED_OUT || c == BASE_HOST_OUT || c == BASE_HOST_STAGED_OUT ||
                  c == BASE_FORWARD_OUT;
    bool is_raw = c == BASE_UNTRACKED_IN || c == BASE_UNTRACKED_OUT;
    bool is_forward = c == BASE_FORWARD_IN || c == BASE_FORWARD_OUT;
    bool is_staged = c == BASE_HOST_STAGED_IN || c == BASE_HOST_STAGED_OUT;
    struct view v = {is_out ? CALC_EGRESS : CALC_INGRESS,
                     is_out ? NFT_META_OIFNAME : NFT_META_IIFNAME, is_raw, is_staged};
    if (!is_raw) {
        accept_established(o);
    }
    leave_others(o, v.iface_key);
    if (!is_raw) {
        match_ct_state(chain_rule(o), CT_UNTRACKED);
        end_accept(o, "untracked policy has decided");
    }
    if (!is_forward) {
        accept_failsafes(o, &v);
    }
    if (!is_staged && !is_forward) {
        accept_tunnels(o, !is_out);
    }
    if (!is_raw && !is_staged && c != BASE_PRE_DNAT && !o->d->settings.has_no_invalid_check) {
        match_ct_state(chain_rule(o), CT_INVALID);
        nft_x_counter(o->b);
        nft_x_verdict(o->b, NF_DROP, STR_NULL);
        chain_rule_end(o, "invalid conntrack state");
    }
    ask(o, &v, base_hops(o->d, c));
}
