/* BGPConfiguration's localWorkloadPeeringIPV4 and V6: pods that peer with their node all talk to
 * one address, which each finds at the other end of its own link. */
#include "bgp/kernel_int.h"

static bool is_local_link(const struct bgp_conf *c, struct str name) {
    for (size_t i = 0; i < c->n_local_links; i++) {
        if (str_eq(c->local_links[i], name)) {
            return true;
        }
    }
    return false;
}

static bool has_addr(const struct bgp_kernel *k, int index, const struct prefix *net) {
    for (size_t i = 0; i < k->addrs.n; i++) {
        if (k->addrs.p[i].index == index && prefix_eq(&k->addrs.p[i].net, net)) {
            return true;
        }
    }
    return false;
}

static void send_all(struct bgp_kernel *k, size_t n) {
    struct err e;
    if (n && nl_exchange(k->nl, &e) < 0) {
        LOG_W("bgp", "local_peering_failed", "error=%s", log_quote(str_c(e.msg)));
        nl_abandon(k->nl);
    }
}

void kernel_local_change(struct bgp_kernel *k, const struct bgp_conf *conf) {
    size_t n = 0;
    for (int f = 0; k->conf && f < BGP_N_FAMILIES; f++) {
        const struct ip46 *old = &k->conf->local_peering[f];
        struct prefix net = {.ip = *old, .len = (uint8_t)ip_bits(old)};
        if (!old->family || ip_eq(old, &conf->local_peering[f])) {
            continue;
        }
        for (size_t i = 0; i < k->addrs.n; i++) {
            const struct klink *l = link_map_get(&k->links, k->addrs.p[i].index);
            if (prefix_eq(&k->addrs.p[i].net, &net) && l &&
                is_local_link(k->conf, str_c(l->name))) {
                (void)addr_del(k->nl, k->addrs.p[i].index, &net);
                n++;
            }
        }
    }
    send_all(k, n);
}

void kernel_local_write(struct bgp_kernel *k) {
    int index;
    struct klink *l;
    size_t n = 0;
    for (size_t i = 0; link_map_next(&k->links, &i, &index, &l);) {
        struct str name = str_c(l->name);
        bool is_wanted = is_local_link(k->conf, name);
        for (int f = 0; f < BGP_N_FAMILIES; f++) {
            const struct ip46 *ip = &k->conf->local_peering[f];
            struct prefix net = {.ip = *ip, .len = (uint8_t)ip_bits(ip)};
            /* Only pods' links: the address may be one of the node's elsewhere. */
            bool is_pods = str_starts(name, STR("cali"));
            if (!ip->family || (!is_wanted && !is_pods)) {
                continue;
            }
            bool has = has_addr(k, index, &net);
            if (has != is_wanted) {
                (void)(is_wanted ? addr_add(k->nl, index, &net) : addr_del(k->nl, index, &net));
                n++;
            }
        }
    }
    send_all(k, n);
}
