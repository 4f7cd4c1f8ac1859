/* What changed goes through the calculation into the kernel. */
#include "node/node_int.h"

struct dataplane_settings node_dataplane_settings(const struct settings *s) {
    struct dataplane_settings d = {.n_iface_prefixes = s->n_iface_prefixes,
                                   .endpoint_to_host = s->endpoint_to_host,
                                   .has_no_invalid_check = s->has_no_invalid_check,
                                   .has_floating_ips = s->has_floating_ips,
                                   .may_spoof = s->may_spoof,
                                   .deny = s->deny,
                                   .drop_override = s->drop_override,
                                   .is_append = s->is_append,
                                   .vxlan_port = s->vxlan_port,
                                   .may_vxlan = s->may_vxlan,
                                   .may_ipip = s->may_ipip};
    for (size_t i = 0; i < 2; i++) {
        d.failsafe[i] = s->failsafe[i];
        d.n_failsafe[i] = s->n_failsafe[i];
    }
    memcpy(d.iface_prefixes, s->iface_prefixes, sizeof(d.iface_prefixes));
    return d;
}

void node_read_settings(struct node *n) {
    settings_fini(&n->settings);
    settings_read(&n->settings, &n->sources);
    log_level_set(n->settings.log_level);
}

static int pool_cmp(const void *a, const void *b) {
    return prefix_cmp(&((const struct dataplane_pool *)a)->cidr,
                      &((const struct dataplane_pool *)b)->cidr);
}

static void push_pools(struct node *n) {
    VEC(struct dataplane_pool) v = {0};
    struct dataplane_pool *p;
    for (size_t i = 0; pool_map_next(&n->pools, &i, NULL, &p);) {
        vec_push(&v, *p);
    }
    vec_sort(&v, pool_cmp);
    dataplane_set_pools(n->dataplane, v.p, v.n);
    vec_fini(&v);
}

void node_set_mtu(void *arg) {
    struct node *n = arg;
    uint32_t overhead = n->network ? network_overhead(n->network) : 0;
    uint32_t mtu = n->host_mtu > overhead ? n->host_mtu - overhead : 0;
    cni_server_set_mtu(n->cni, mtu);
    LOG_I("node", "pod_mtu", "mtu=%u", mtu);
}

static void on_mtu(void *arg, uint32_t mtu) {
    ((struct node *)arg)->host_mtu = mtu;
    node_set_mtu(arg);
}

/* Without it pods have the kernel's default. */
void node_watch_mtu(struct node *n) {
    struct err e = {0};
    mtu_watch_free(n->mtu);
    n->mtu = mtu_watch_new(n->loop, n->settings.mtu_pattern.p, on_mtu, n, &e);
    if (!n->mtu) {
        LOG_W("node", "mtu_not_watched", "error=%s", log_quote(str_c(e.msg)));
    }
}

void node_on_ifaces(void *arg, const struct dataplane_iface *v, size_t count) {
    struct node *n = arg;
    vec_clear(&n->own);
    for (size_t i = 0; i < count; i++) {
        vec_push(&n->own, v[i]);
    }
    dataplane_set_ifaces(n->dataplane, v, count);
    if (n->cut) {
        cut_set_own(n->cut, v, count);
    }
    if (n->autohep) {
        autohep_set_own(n->autohep, v, count);
    }
    if (n->network) {
        network_addresses(n->network);
    }
    if (n->in_sync) {
        node_apply(n);
    }
}

/* Parts that settings switch on and off. */
void node_follow_settings(struct node *n) {
    struct err e = {0};
    if (!n->settings.cuts_established) {
        cut_free(n->cut);
        n->cut = NULL;
    } else if (!n->cut) {
        n->cut = cut_new(n->loop, n->calc);
        cut_set_own(n->cut, n->own.p, n->own.n);
    }
    packetlog_free(n->packetlog);
    n->packetlog = packetlog_new(n->loop, n->calc, n->settings.log_prefix, &e);
    if (!n->packetlog) {
        LOG_W("policy", "packets_not_logged", "error=%s", log_quote(str_c(e.msg)));
    }
}

void node_apply(struct node *n) {
    int64_t start = clock_ns();
    bool is_other = n->settings_dirty;
    if (n->settings_dirty) {
        n->settings_dirty = false;
        node_read_settings(n);
        struct dataplane_settings d = node_dataplane_settings(&n->settings);
        dataplane_set_settings(n->dataplane, &d);
        node_watch_mtu(n);
        if (n->network) {
            network_settings(n->network);
        }
    }
    if (n->pools_dirty) {
        n->pools_dirty = false;
        push_pools(n);
    }
    if (n->network) {
        network_tunnels(n->network, n->dataplane);
    }
    calc_flush(n->calc);
    int64_t calculated = clock_ns();
    struct err e;
    int r = dataplane_flush(n->dataplane, &e);
    n->last_apply_ns = clock_ns() - start;
    if (is_other) { /* now that the calculation has told all that it knows */
        node_follow_settings(n);
    }
    LOG_D("node", "applied", "calculation_us=%lld kernel_us=%lld",
          (long long)(calculated - start) / 1000,
          (long long)(start + n->last_apply_ns - calculated) / 1000);
    if (r < 0) {
        n->is_current = false;
        LOG_E("dataplane", "apply_failed", "error=%s", log_quote(str_c(e.msg)));
        return; /* it tries again by itself */
    }
    if (n->cut) {
        cut_ask(n->cut);
    }
    node_set_enforced(n);
}
