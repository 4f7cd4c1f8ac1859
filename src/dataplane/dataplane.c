/* Collects desired state and writes it: one transaction a flush, holding only the difference. When
 * a transaction fails, or somebody else changed the table, the kernel is read and compared again.
 */
#include "dataplane/links.h"
#include "dataplane/table.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    RETRY_MIN_MS = 100,
    RETRY_MAX_MS = 10000,
    RESYNC_TRIES = 8,    /* a busy ruleset: read again at once */
    FIGHT_WINDOW_S = 60, /* more than FIGHT_REPAIRS in this time: said in status, and slower */
    FIGHT_REPAIRS = 10,
    FIGHT_PAUSE_MS = 1000,
};

static void on_monitor(void *arg, unsigned events);
static void on_retry(void *arg);

static void init_sets(struct dataplane *d) {
    static const struct {
        enum fixed_set id;
        const char *name, *comment;
        struct nft_set desc;
    } fixed[] = {
        {FIXED_SRC4,
         "pod-sources4",
         "what each pod may send from",
         {.fields = {NFT_TYPE_IFNAME, NFT_TYPE_IPADDR}}},
        {FIXED_SRC6,
         "pod-sources6",
         "what each pod may send from",
         {.fields = {NFT_TYPE_IFNAME, NFT_TYPE_IP6ADDR}}},
        {FIXED_NAT4,
         "nat-pools4",
         "pools with natOutgoing",
         {.fields = {NFT_TYPE_IPADDR}, .is_interval = true}},
        {FIXED_NAT6,
         "nat-pools6",
         "pools with natOutgoing",
         {.fields = {NFT_TYPE_IP6ADDR}, .is_interval = true}},
        {FIXED_POOL4, "pools4", "all pools", {.fields = {NFT_TYPE_IPADDR}, .is_interval = true}},
        {FIXED_POOL6, "pools6", "all pools", {.fields = {NFT_TYPE_IP6ADDR}, .is_interval = true}},
        {FIXED_FAILSAFE_IN,
         "failsafe-in",
         "ports of the host that no policy can close",
         {.fields = {NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE}}},
        {FIXED_FAILSAFE_OUT,
         "failsafe-out",
         "ports that the host can reach whatever its policies",
         {.fields = {NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE}}},
        {FIXED_NODE4, "nodes4", "the other nodes", {.fields = {NFT_TYPE_IPADDR}}},
        {FIXED_NODE6, "nodes6", "the other nodes", {.fields = {NFT_TYPE_IP6ADDR}}},
    };
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++) {
        kset_init(&d->fixed[fixed[i].id], fixed[i].name, &fixed[i].desc, str_c(fixed[i].comment));
    }
    static const struct {
        enum hop_map id;
        const char *name, *comment;
    } maps[N_HOP_MAPS] = {
        {HOP_PODS_IN, "pods-in", "pod interface to its ingress policies"},
        {HOP_PODS_OUT, "pods-out", "pod interface to its egress policies"},
        {HOP_STAGED_IN, "staged-in", "the same with staged policies: counts, decides nothing"},
        {HOP_STAGED_OUT, "staged-out", "the same with staged policies: counts, decides nothing"},
        {HOP_HOST_IN, "hosts-in", "interface to policies of what comes to the host"},
        {HOP_HOST_OUT, "hosts-out", "interface to policies of what the host sends"},
        {HOP_HOST_STAGED_IN, "hosts-staged-in", "the same with staged policies: only counts"},
        {HOP_HOST_STAGED_OUT, "hosts-staged-out", "the same with staged policies: only counts"},
        {HOP_FORWARD_IN, "forward-in", "interface to policies of what comes in to be forwarded"},
        {HOP_FORWARD_OUT, "forward-out", "interface to policies of what is forwarded by it"},
        {HOP_UNTRACKED_IN, "untracked-in", "interface to untracked policies"},
        {HOP_UNTRACKED_OUT, "untracked-out", "interface to untracked policies"},
        {HOP_PRE_DNAT, "pre-dnat", "interface to policies before DNAT"},
    };
    for (size_t i = 0; i < N_HOP_MAPS; i++) {
        hops_init(&d->hops[maps[i].id], maps[i].name, maps[i].comment,
                  maps[i].id == HOP_PODS_IN || maps[i].id == HOP_PODS_OUT);
    }
}

int dataplane_new(struct loop *l, struct links *links, const struct dataplane_settings *s,
                  struct dataplane **out, struct err *e) {
    struct dataplane *d = calloc(1, sizeof(*d));
    mg_assert(d != NULL);
    d->loop = l;
    d->links = links;
    d->table = STR("margay");
    d->needs_resync = true;
    d->monitor_fd = -1;
    init_sets(d);
    for (int i = 0; i < N_BASE_CHAINS; i++) {
        d->base[i].name = (char *)(uintptr_t)base_name((enum base_chain)i);
    }
    dataplane_set_settings(d, s);
    d->retry = loop_timer_new(l, on_retry, d);
    int r = nft_open(&d->sock, e);
    if (r == 0) {
        r = nft_monitor_open(&d->monitor_fd, e);
    }
    if (r < 0) {
        dataplane_free(d);
        return r;
    }
    d->monitor = loop_poll_new(l, d->monitor_fd, LOOP_READ, on_monitor, d);
    *out = d;
    return 0;
}

static void free_names(char **p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(p[i]);
    }
}

void dataplane_free(struct dataplane *d) {
    if (!d) {
        return;
    }
    loop_poll_free(d->monitor);
    loop_timer_free(d->retry);
    fd_close(&d->monitor_fd);
    nft_close(d->sock);
    struct dset **s;
    for (size_t i = 0; id_dset_next(&d->sets, &i, NULL, &s); i = 0) {
        dset_free(d, *s); /* leaves the map */
    }
    id_dset_fini(&d->sets);
    deps_fini(d);
    nat_free(d);
    vec_fini(&d->pools);
    lists_fini(d);
    struct kset **k;
    for (size_t i = 0; str_kset_next(&d->ksets, &i, NULL, &k);) {
        kset_fini(*k);
        free(*k);
    }
    str_kset_fini(&d->ksets);
    for (int i = 0; i < N_FIXED_SETS; i++) {
        kset_fini(&d->fixed[i]);
    }
    for (int i = 0; i < N_HOP_MAPS; i++) {
        hops_fini(&d->hops[i]);
    }
    vec_fini(&d->ifaces);
    free_names(d->stale_chains.p, d->stale_chains.n);
    free_names(d->stale_sets.p, d->stale_sets.n);
    vec_fini(&d->stale_chains);
    vec_fini(&d->stale_sets);
    vec_fini(&d->dirty_sets);
    vec_fini(&d->dirty_variants);
    vec_fini(&d->dirty_segs);
    vec_fini(&d->dirty_endpoints);
    vec_fini(&d->removed_policies);
    nft_batch_fini(&d->batch);
    arena_fini(&d->settings_arena);
    free(d);
}

/* ---- the sink of the calculation ---- */

static void on_set_new(void *arg, const struct calc_set *s) {
    (void)dset_new(arg, s);
}
static void on_set_members(void *arg, uint32_t id, const struct calc_member *added, size_t n_added,
                           const struct calc_member *removed, size_t n_removed) {
    struct dataplane *d = arg;
    struct dset **s = id_dset_get(&d->sets, id);
    if (!s) {
        return;
    }
    for (size_t i = 0; i < n_removed; i++) {
        dset_member(d, *s, &removed[i], false);
    }
    for (size_t i = 0; i < n_added; i++) {
        dset_member(d, *s, &added[i], true);
    }
}
static void on_set_gone(void *arg, uint32_t id) {
    struct dataplane *d = arg;
    struct dset **s = id_dset_get(&d->sets, id);
    if (s) {
        dset_free(d, *s);
    }
}
static void on_policy(void *arg, const struct calc_policy *p) {
    dpol_update(arg, p);
}
static void on_policy_gone(void *arg, uint32_t id) {
    dpol_remove(arg, id);
}
static void on_endpoint(void *arg, const struct calc_endpoint *e) {
    dep_update(arg, e);
}
static void on_endpoint_gone(void *arg, uint32_t id) {
    dep_remove(arg, id);
}

const struct calc_ops dataplane_calc_ops = {
    .set_new = on_set_new,
    .set_members = on_set_members,
    .set_gone = on_set_gone,
    .policy = on_policy,
    .policy_gone = on_policy_gone,
    .endpoint = on_endpoint,
    .endpoint_gone = on_endpoint_gone,
};

/* Those for anybody are elements of a set; those with a net are rules (host_rules.c). */
static void want_failsafes(struct dataplane *d) {
    for (size_t dir = 0; dir < 2; dir++) {
        struct kset *k = &d->fixed[dir == CALC_INGRESS ? FIXED_FAILSAFE_IN : FIXED_FAILSAFE_OUT];
        keyset_unwant_all(&k->keys);
        kset_dirty(d, k);
        for (size_t i = 0; i < d->settings.n_failsafe[dir]; i++) {
            const struct dataplane_failsafe *f = &d->settings.failsafe[dir][i];
            uint8_t key[8] = {f->protocol, 0, 0, 0, (uint8_t)(f->port >> 8), (uint8_t)f->port};
            if (f->net.ip.family == IP_NONE) {
                kset_want_key(d, k, key, true);
            }
        }
    }
}

/* A chain whose rules differ by settings: they are written again. A base chain can't change its
 * place: then the table is read again and found wrong. */
static void settings_changed(struct dataplane *d, const struct dataplane_settings *old) {
    const struct dataplane_settings *s = &d->settings;
    for (int i = 0; i < N_BASE_CHAINS; i++) {
        d->base[i].is_dirty = true;
    }
    d->needs_resync |= s->is_append != old->is_append;
    if (s->deny == old->deny && s->drop_override == old->drop_override) {
        return;
    }
    struct dpol **p;
    for (size_t i = 0; id_dpol_next(&d->policies, &i, NULL, &p);) {
        for (size_t k = 0; k < (*p)->variants.n; k++) {
            variant_dirty(d, (*p)->variants.p[k]);
        }
    }
    struct seg **g;
    for (size_t i = 0; str_seg_next(&d->segs, &i, NULL, &g);) {
        seg_dirty(d, *g);
    }
}

void dataplane_set_ifaces(struct dataplane *d, const struct dataplane_iface *v, size_t n) {
    vec_clear(&d->ifaces);
    for (size_t i = 0; i < n; i++) {
        vec_push(&d->ifaces, v[i]);
    }
    d->are_hosts_dirty = true;
}

void dataplane_set_settings(struct dataplane *d, const struct dataplane_settings *s) {
    const struct dataplane_settings old = d->settings;
    struct arena a = {0};
    struct dataplane_settings copy = *s;
    for (size_t i = 0; i < copy.n_iface_prefixes; i++) {
        copy.iface_prefixes[i] = arena_dup(&a, s->iface_prefixes[i]);
    }
    for (size_t dir = 0; dir < 2; dir++) {
        struct dataplane_failsafe *f =
            arena_array(&a, struct dataplane_failsafe, copy.n_failsafe[dir]);
        for (size_t i = 0; i < copy.n_failsafe[dir]; i++) {
            f[i] = s->failsafe[dir][i];
        }
        copy.failsafe[dir] = f;
    }
    arena_fini(&d->settings_arena);
    d->settings_arena = a;
    d->settings = copy;
    want_failsafes(d);
    if (s->has_floating_ips != old.has_floating_ips) {
        nat_settings(d);
    }
    settings_changed(d, &old);
}

void dataplane_set_pools(struct dataplane *d, const struct dataplane_pool *p, size_t n) {
    for (int i = FIXED_NAT4; i <= FIXED_POOL6; i++) {
        keyset_unwant_all(&d->fixed[i].keys);
        kset_dirty(d, &d->fixed[i]);
    }
    vec_clear(&d->pools);
    for (size_t i = 0; i < n; i++) {
        vec_push(&d->pools, p[i].cidr);
        bool is_v4 = p[i].cidr.ip.family == IP_V4;
        kset_want_prefix(d, &d->fixed[is_v4 ? FIXED_POOL4 : FIXED_POOL6], &p[i].cidr, true);
        if (p[i].is_nat_outgoing) {
            kset_want_prefix(d, &d->fixed[is_v4 ? FIXED_NAT4 : FIXED_NAT6], &p[i].cidr, true);
        }
    }
    d->base[BASE_NAT].is_dirty = true;
    nat_settings(d);
}

void dataplane_on_applied(struct dataplane *d, void (*cb)(void *arg), void *arg) {
    d->on_applied = cb;
    d->on_applied_arg = arg;
}

/* ---- writing ---- */

/* Chains are written like this: emptied and filled, unless the kernel has the same rules already.
 */
static void write_chain(struct dataplane *d, struct kchain *c,
                        uint64_t (*render)(struct dataplane *d, const void *x), const void *x) {
    struct nft_mark before = nft_batch_mark(&d->batch);
    if (c->in_kernel) {
        nft_chain_flush(&d->batch, str_c(c->name));
    }
    c->next_hash = render(d, x);
    if (c->in_kernel && c->next_hash == c->hash) {
        nft_batch_rewind(&d->batch, before);
    }
}
static uint64_t render_variant_x(struct dataplane *d, const void *x) {
    return render_variant(d, x);
}
static uint64_t render_seg_x(struct dataplane *d, const void *x) {
    return render_seg(d, x);
}
static uint64_t render_base_x(struct dataplane *d, const void *x) {
    return render_base(d, *(const enum base_chain *)x);
}

static void settle_chain(struct kchain *c) {
    c->in_kernel = true;
    c->hash = c->next_hash;
}

static void write_new_chains(struct dataplane *d) {
    for (int i = 0; i < N_BASE_CHAINS; i++) {
        enum base_chain c = (enum base_chain)i;
        struct nft_hook hook;
        if (!d->base[i].in_kernel && base_is_wanted(d, c)) {
            nft_chain_add(&d->batch, str_c(d->base[i].name), base_hook(d, c, &hook) ? &hook : NULL);
            d->base[i].is_dirty = true;
        }
    }
    for (size_t i = 0; i < d->dirty_segs.n; i++) {
        struct kchain *c = &d->dirty_segs.p[i]->c;
        if (!c->in_kernel && !c->is_gone) {
            nft_chain_add(&d->batch, str_c(c->name), NULL);
        }
    }
    for (size_t i = 0; i < d->dirty_variants.n; i++) {
        struct kchain *c = &d->dirty_variants.p[i]->c;
        if (!c->in_kernel && !c->is_gone) {
            nft_chain_add(&d->batch, str_c(c->name), NULL);
        }
    }
}

static void write_rules(struct dataplane *d) {
    for (size_t i = 0; i < d->dirty_variants.n; i++) {
        struct variant *v = d->dirty_variants.p[i];
        if (!v->c.is_gone) {
            write_chain(d, &v->c, render_variant_x, v);
        }
    }
    for (size_t i = 0; i < d->dirty_segs.n; i++) {
        struct seg *s = d->dirty_segs.p[i];
        if (!s->c.is_gone) {
            write_chain(d, &s->c, render_seg_x, s);
        }
    }
    for (int i = 0; i < N_BASE_CHAINS; i++) {
        enum base_chain c = (enum base_chain)i;
        if (d->base[i].is_dirty && base_is_wanted(d, c)) {
            write_chain(d, &d->base[i], render_base_x, &c);
        }
    }
}

/* First all rules of the chains that go, then the chains: none may be named by a rule any more. */
static void write_removals(struct dataplane *d) {
    struct nft_batch *b = &d->batch;
    for (int pass = 0; pass < 2; pass++) {
        void (*op)(struct nft_batch *, struct str) = pass == 0 ? nft_chain_flush : nft_chain_del;
        for (int i = 0; i < N_BASE_CHAINS; i++) {
            if (d->base[i].in_kernel && !base_is_wanted(d, (enum base_chain)i)) {
                op(b, str_c(d->base[i].name));
            }
        }
        for (size_t i = 0; i < d->dirty_segs.n; i++) {
            struct kchain *c = &d->dirty_segs.p[i]->c;
            if (c->is_gone && c->in_kernel) {
                op(b, str_c(c->name));
            }
        }
        for (size_t i = 0; i < d->dirty_variants.n; i++) {
            struct kchain *c = &d->dirty_variants.p[i]->c;
            if (c->is_gone && c->in_kernel) {
                op(b, str_c(c->name));
            }
        }
        for (size_t i = 0; i < d->stale_chains.n; i++) {
            op(b, str_c(d->stale_chains.p[i]));
        }
    }
    for (size_t i = 0; i < d->dirty_sets.n; i++) {
        struct kset *s = d->dirty_sets.p[i];
        if (s->is_gone && s->in_kernel) {
            nft_set_del(b, s->desc.name);
        }
    }
    for (int i = 0; i < N_HOP_MAPS; i++) {
        hops_remove(d, &d->hops[i]);
    }
    for (size_t i = 0; i < d->stale_sets.n; i++) {
        nft_set_del(b, str_c(d->stale_sets.p[i]));
    }
}

static void write_all(struct dataplane *d) {
    if (d->must_replace_table) {
        nft_table_del(&d->batch);
    }
    if (!d->has_table) {
        nft_table_add(&d->batch);
    }
    for (int i = 0; i < N_FIXED_SETS; i++) {
        if (!d->fixed[i].in_kernel) {
            kset_dirty(d, &d->fixed[i]);
        }
    }
    for (size_t i = 0; i < d->dirty_sets.n; i++) {
        if (!d->dirty_sets.p[i]->is_gone) {
            kset_write(d, d->dirty_sets.p[i]);
        }
    }
    write_new_chains(d);
    /* A verdict map must be there before the rules that look it up, its elements after the chains
     * that they name. */
    for (int i = 0; i < N_HOP_MAPS; i++) {
        hops_write(d, &d->hops[i]);
    }
    write_rules(d);
    write_removals(d);
}

static void settle_all(struct dataplane *d) {
    d->has_table = true;
    for (size_t i = 0; i < d->dirty_sets.n; i++) {
        struct kset *s = d->dirty_sets.p[i];
        if (s->is_gone) {
            str_kset_del(&d->ksets, str_c(s->name));
            kset_fini(s);
            free(s);
        } else {
            kset_settle(s);
        }
    }
    vec_clear(&d->dirty_sets);
    for (size_t i = 0; i < d->dirty_variants.n; i++) {
        settle_chain(&d->dirty_variants.p[i]->c);
    }
    for (size_t i = 0; i < d->dirty_segs.n; i++) {
        settle_chain(&d->dirty_segs.p[i]->c);
    }
    for (int i = 0; i < N_BASE_CHAINS; i++) {
        if (!base_is_wanted(d, (enum base_chain)i)) {
            d->base[i].in_kernel = false;
        } else if (d->base[i].is_dirty) {
            settle_chain(&d->base[i]);
            d->base[i].is_dirty = false;
        }
    }
    for (int i = 0; i < N_HOP_MAPS; i++) {
        hops_settle(&d->hops[i]);
    }
    lists_sweep(d);
    free_names(d->stale_chains.p, d->stale_chains.n);
    free_names(d->stale_sets.p, d->stale_sets.n);
    vec_clear(&d->stale_chains);
    vec_clear(&d->stale_sets);
}

/* After a burst the batch is not kept at its size. */
static void trim_batch(struct dataplane *d) {
    if (d->batch.cap > (256U << 10)) {
        nft_batch_fini(&d->batch);
    }
}

static int flush_once(struct dataplane *d, struct err *e) {
    uint32_t genid = 0;
    deps_rebuild(
        d); /* first: what is wanted must be known when the kernel's chains are told apart */
    if (d->needs_resync) {
        d->must_replace_table = false;
        int r = dataplane_resync(d, &genid, e);
        if (r < 0) {
            return r;
        }
    }
    lists_cascade(d);
    nft_batch_begin(&d->batch, d->table, genid);
    write_all(d);
    uint32_t n = d->batch.n_msgs;
    int r = nft_commit(d->sock, &d->batch, e);
    trim_batch(d);
    if (r < 0) {
        d->needs_resync = true;
        lists_sweep(d); /* what is gone has let go of the rest, and can't come back */
        if (r != ERR_RETRY) {
            d->stats.refused++;
            LOG_D("dataplane", "refused", "error=%s", log_quote(str_c(e->msg)));
        }
        return r;
    }
    d->needs_resync = false;
    d->must_replace_table = false;
    settle_all(d);
    d->stats.messages += n;
    d->stats.transactions += n > 0;
    return (int)(n > 0);
}

/* Returns the number of transactions written (0 or 1), or negative. */
static int flush(struct dataplane *d, struct err *e) {
    int64_t start = clock_ns();
    int r = -1;
    for (int i = 0; i < RESYNC_TRIES; i++) {
        r = flush_once(d, e);
        /* A failed difference is tried again from what the kernel really has. */
        if (r >= 0 || (r != ERR_RETRY && i > 0)) {
            break;
        }
    }
    d->stats.last_flush_ns = clock_ns() - start;
    d->stats.is_applied = r >= 0;
    if (r >= 0) {
        d->stats.last_error[0] = 0;
        d->retry_ms = 0;
        return r;
    }
    snprintf(d->stats.last_error, sizeof(d->stats.last_error), "%.*s",
             (int)sizeof(d->stats.last_error) - 1, e->msg);
    d->retry_ms = d->retry_ms ? d->retry_ms * 2 : RETRY_MIN_MS;
    d->retry_ms = d->retry_ms < RETRY_MAX_MS ? d->retry_ms : RETRY_MAX_MS;
    loop_timer_start(d->retry, d->retry_ms, 0);
    return r;
}

int dataplane_flush(struct dataplane *d, struct err *e) {
    struct err own;
    int r = flush(d, e ? e : &own);
    d->is_started = true;
    return r < 0 ? r : 0;
}

/* ---- repair ---- */

static void repair(struct dataplane *d) {
    struct err e;
    d->needs_resync = true;
    int64_t start = clock_ns();
    int r = flush(d, &e);
    static struct log_limit limit;
    if (r < 0) {
        if (log_allow(&limit, 5, 60)) {
            LOG_E("dataplane", "apply_failed", "error=%s retry_ms=%lld", log_quote(str_c(e.msg)),
                  (long long)d->retry_ms);
        }
        return;
    }
    if (r > 0) {
        int64_t now = clock_ns();
        if (now - d->repairs_window_ns > FIGHT_WINDOW_S * 1000000000LL) {
            d->repairs_window_ns = now;
            d->repairs_in_window = 0;
        }
        d->repairs_in_window++;
        d->stats.repairs++;
        if (log_allow(&limit, 5, 60)) {
            LOG_W("dataplane", "restored",
                  "table=margay took_us=%lld reason=\"changed by another program\"",
                  (long long)(now - start) / 1000);
        }
    }
    if (d->on_applied) {
        d->on_applied(d->on_applied_arg);
    }
}

static void on_retry(void *arg) {
    repair(arg);
}

static bool is_fighting(const struct dataplane *d) {
    return d->repairs_in_window > FIGHT_REPAIRS &&
           clock_ns() - d->repairs_window_ns <= FIGHT_WINDOW_S * 1000000000LL;
}

static void on_monitor(void *arg, unsigned events) {
    (void)events;
    struct dataplane *d = arg;
    int n = nft_monitor_read(d->monitor_fd, d->table, nft_portid(d->sock));
    if (n == 0 || !d->is_started) {
        return;
    }
    if (is_fighting(d)) {
        loop_timer_start(d->retry, FIGHT_PAUSE_MS, 0);
    } else {
        repair(d);
    }
}

void dataplane_stats(const struct dataplane *d, struct dataplane_stats *out) {
    *out = d->stats;
    out->chains = d->chains.n + N_BASE_CHAINS;
    out->sets = d->ksets.n + N_FIXED_SETS + 2;
    out->endpoints = d->endpoints.n;
    out->is_fighting = is_fighting(d);
    out->members = 0;
    struct kset **k;
    for (size_t i = 0; str_kset_next(&d->ksets, &i, NULL, &k);) {
        out->members += (*k)->keys.n_want;
    }
}
