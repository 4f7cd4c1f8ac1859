/* Wires the parts: what the store tells goes to the calculation, at the end of a burst to the
 * kernel; whoever waits for a revision is told when the kernel has it. */
#include "node/node.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "cni/server.h"
#include "dataplane/links.h"
#include "ipam/ipam.h"
#include "model/pool.h"
#include "node/autohep.h"
#include "node/counters.h"
#include "node/cut.h"
#include "node/defaults.h"
#include "base/health.h"
#include "node/ifaces.h"
#include "node/listen.h"
#include "node/mtu.h"
#include "node/packetlog.h"
#include "node/sd.h"
#include "node/settings.h"
#include "store/serve.h"
#include "store/syncer.h"

#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SPOOL_MS = 5000, WAIT_MAX_MS = 3600 * 1000 };

struct waiter {
    struct node *n;
    uint64_t revision;
    void (*cb)(void *arg, int code);
    void *arg;
    struct loop_timer *timer;
};

/* A thing that can't be enforced as written. */
struct problem {
    char *object, *reason;
};
#define MAP_NAME problem_map
#define MAP_KEY struct str
#define MAP_VAL struct problem
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

#define MAP_NAME pool_map
#define MAP_KEY struct str
#define MAP_VAL struct dataplane_pool
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct node {
    struct node_options o;
    char *name;
    struct loop *loop;
    struct store *store;
    struct syncer *syncer;
    struct calc *calc;
    struct links *links;
    struct dataplane *dataplane;
    struct ipam *ipam;
    struct cni_server *cni;
    struct mtu_watch *mtu;
    struct iface_watch *ifaces;
    VEC(struct dataplane_iface) own;
    struct packetlog *packetlog;
    struct autohep *autohep; /* NULL: a datastore whose controllers do its work */
    struct cut *cut;         /* NULL: established connections go on */
    struct store_server *rpc;
    struct listener *listener;
    struct health *health, *metrics;
    struct loop_timer *spool_timer;
    struct arena file_arena, felix_arena[2];
    struct settings_sources sources;
    struct settings settings;
    struct pool_map pools;
    bool pools_dirty, settings_dirty, in_sync;
    uint64_t told;     /* newest revision that the calculation has */
    uint64_t enforced; /* newest revision that the kernel has */
    VEC(struct waiter *) waiters;
    struct problem_map problems;
    struct arena scratch;
    int64_t started_ns, ready_ns, last_apply_ns;
};

/* ---- waiting for a revision ---- */

static void waiter_done(struct waiter *w, int code) {
    struct node *n = w->n;
    for (size_t i = 0; i < n->waiters.n; i++) {
        if (n->waiters.p[i] == w) {
            vec_remove(&n->waiters, i); /* in order of asking */
            break;
        }
    }
    loop_timer_free(w->timer);
    void (*cb)(void *, int) = w->cb;
    void *arg = w->arg;
    free(w);
    cb(arg, code);
}

static void on_wait_timeout(void *arg) {
    waiter_done(arg, -ETIMEDOUT);
}

static void when_enforced(void *arg, uint64_t revision, int64_t timeout_ms,
                          void (*cb)(void *cb_arg, int code), void *cb_arg) {
    struct node *n = arg;
    if (n->in_sync && n->enforced >= revision) {
        cb(cb_arg, 0);
        return;
    }
    struct waiter *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    *w = (struct waiter){.n = n, .revision = revision, .cb = cb, .arg = cb_arg};
    w->timer = loop_timer_new(n->loop, on_wait_timeout, w);
    loop_timer_start(w->timer, timeout_ms, 0);
    vec_push(&n->waiters, w);
}

static void set_enforced(struct node *n, uint64_t revision) {
    n->enforced = revision;
    for (size_t i = 0; i < n->waiters.n;) {
        if (n->waiters.p[i]->revision <= revision) {
            waiter_done(n->waiters.p[i], 0);
            i = 0; /* the callback may have changed the list */
        } else {
            i++;
        }
    }
}

/* ---- the store's news ---- */

static void on_problem(void *arg, const struct kind *k, struct str ns, struct str name,
                       struct str reason) {
    struct node *n = arg;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(2048);
    buf_printf(&b, "%s/%.*s%s%.*s", k->kind, STR_FMT(ns), ns.n ? "/" : "", STR_FMT(name));
    struct problem *p = problem_map_get(&n->problems, buf_view(&b));
    if (p) {
        struct problem old = *p;
        problem_map_del(&n->problems, buf_view(&b));
        free(old.object);
        free(old.reason);
    }
    if (!reason.p) {
        return;
    }
    char *object = strndup(b.p, b.n);
    mg_assert(object != NULL);
    p = problem_map_put(&n->problems, str_n(object, b.n), NULL);
    p->object = object;
    p->reason = strndup(reason.p, reason.n);
    mg_assert(p->reason != NULL);
    LOG_W("policy", "problem", "object=%s reason=%s", object, log_quote(reason));
}

/* The calculation's sink: the dataplane, and what else keeps a copy; but problems come here. */
#define TELL(n, op, ...)                                           \
    do {                                                           \
        dataplane_calc_ops.op((n)->dataplane, __VA_ARGS__);        \
        if ((n)->cut) {                                            \
            mirror_calc_ops.op(cut_mirror((n)->cut), __VA_ARGS__); \
        }                                                          \
    } while (0)
static void sink_set_new(void *arg, const struct calc_set *s) {
    TELL((struct node *)arg, set_new, s);
}
static void sink_members(void *arg, uint32_t id, const struct calc_member *added, size_t n_added,
                         const struct calc_member *removed, size_t n_removed) {
    TELL((struct node *)arg, set_members, id, added, n_added, removed, n_removed);
}
static void sink_set_gone(void *arg, uint32_t id) {
    TELL((struct node *)arg, set_gone, id);
}
static void sink_policy(void *arg, const struct calc_policy *p) {
    TELL((struct node *)arg, policy, p);
}
static void sink_policy_gone(void *arg, uint32_t id) {
    TELL((struct node *)arg, policy_gone, id);
}
static void sink_endpoint(void *arg, const struct calc_endpoint *e) {
    TELL((struct node *)arg, endpoint, e);
}
static void sink_endpoint_gone(void *arg, uint32_t id) {
    TELL((struct node *)arg, endpoint_gone, id);
}
static const struct calc_ops sink = {
    .set_new = sink_set_new,
    .set_members = sink_members,
    .set_gone = sink_set_gone,
    .policy = sink_policy,
    .policy_gone = sink_policy_gone,
    .endpoint = sink_endpoint,
    .endpoint_gone = sink_endpoint_gone,
    .problem = on_problem,
};

static void pool_changed(struct node *n, struct str name, const struct object *o) {
    struct dataplane_pool *p = pool_map_get(&n->pools, name);
    n->pools_dirty = true;
    if (!o || !o->spec) {
        size_t i = 0;
        struct str key;
        struct dataplane_pool *v;
        while (p && pool_map_next(&n->pools, &i, &key, &v)) {
            if (v == p) {
                pool_map_del(&n->pools, name);
                free((char *)(uintptr_t)key.p);
                return;
            }
        }
        return;
    }
    if (!p) {
        char *key = strndup(name.p, name.n);
        mg_assert(key != NULL);
        p = pool_map_put(&n->pools, str_n(key, name.n), NULL);
    }
    const struct ip_pool_spec *s = o->spec;
    *p = (struct dataplane_pool){.cidr = s->cidr, .is_nat_outgoing = s->nat_outgoing};
}

static void felix_changed(struct node *n, struct str name, const struct object *o) {
    char own[300];
    snprintf(own, sizeof(own), "node.%s", n->name);
    bool is_own = str_is(name, own);
    if (!is_own && !str_is(name, "default")) {
        return;
    }
    struct arena *a = &n->felix_arena[is_own];
    struct jnode **slot = is_own ? &n->sources.node : &n->sources.deflt;
    arena_fini(a);
    *slot = o ? jnode_copy(a, jnode_getc(o->doc, "spec")) : NULL;
    n->settings_dirty = true;
}

/* The document of an item, decoded as far as it goes; *problem: its first error. False: it is no
 * document of that kind; what was known of the object holds on, since taking it for deleted could
 * let through what it denied.
 */
static bool decode(struct node *n, const struct kind *k, struct str ns, struct str name,
                   const struct store_item *it, struct object *o, struct str *problem) {
    struct jnode *doc = NULL;
    struct err e;
    struct model_errors errs = {.a = &n->scratch};
    if (json_parse(it->value, &json_limits_default, &n->scratch, &doc, &e) < 0) {
        LOG_E("store", "bad_item", "key=%s error=%s", log_quote(it->key), log_quote(str_c(e.msg)));
        on_problem(n, k, ns, name, str_c(e.msg));
        return false;
    }
    int r = object_read(doc, MODEL_STORE, ns, &n->scratch, o, &errs);
    if (r < 0 && errs.n) {
        *problem = arena_printf(&n->scratch, "%.*s: %.*s", STR_FMT(errs.p[0].path),
                                STR_FMT(errs.p[0].message));
    }
    if (o->kind != k) {
        LOG_E("store", "bad_item", "key=%s error=\"the document's kind is not the key's\"",
              log_quote(it->key));
        on_problem(n, k, ns, name, STR("kind: the document's kind is not that of its key"));
        return false;
    }
    return true;
}

static void on_item(void *arg, const struct store_item *it) {
    struct node *n = arg;
    const struct kind *k = NULL;
    struct str ns, name;
    if (kind_split_key(it->key, &k, &ns, &name) < 0) {
        return; /* of a kind that this version does not know */
    }
    struct object o = {.kind = k};
    struct object *p = it->value.p ? &o : NULL;
    struct str problem = STR_NULL;
    if (p && !decode(n, k, ns, name, it, p, &problem)) {
        arena_reset(&n->scratch);
        return;
    }
    calc_object(n->calc, k, ns, name, p);
    if (problem.p) { /* after the calculation, which has no more to say of it */
        on_problem(n, k, ns, name, problem);
    }
    switch ((int)k->id) {
    case K_IP_POOL:
        pool_changed(n, name, p);
        break;
    case K_FELIX_CONFIGURATION:
        felix_changed(n, name, p);
        break;
    default:
        break;
    }
    if (n->cni) {
        cni_server_object(n->cni, k, ns, name);
    }
    if (n->autohep) {
        autohep_object(n->autohep, k, name);
    }
    arena_reset(&n->scratch);
}

/* ---- to the kernel ---- */

static void apply(struct node *n);

static struct dataplane_settings dataplane_settings_of(const struct settings *s) {
    struct dataplane_settings d = {.n_iface_prefixes = s->n_iface_prefixes,
                                   .endpoint_to_host = s->endpoint_to_host,
                                   .has_no_invalid_check = s->has_no_invalid_check,
                                   .may_spoof = s->may_spoof,
                                   .deny = s->deny,
                                   .drop_override = s->drop_override,
                                   .is_append = s->is_append};
    for (size_t i = 0; i < 2; i++) {
        d.failsafe[i] = s->failsafe[i];
        d.n_failsafe[i] = s->n_failsafe[i];
    }
    memcpy(d.iface_prefixes, s->iface_prefixes, sizeof(d.iface_prefixes));
    return d;
}

static void read_settings(struct node *n) {
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

static void on_mtu(void *arg, uint32_t mtu) {
    struct node *n = arg;
    cni_server_set_mtu(n->cni, mtu);
    LOG_I("node", "pod_mtu", "mtu=%u", mtu);
}

/* Without it pods have the kernel's default. */
static void watch_mtu(struct node *n) {
    struct err e = {0};
    mtu_watch_free(n->mtu);
    n->mtu = mtu_watch_new(n->loop, n->settings.mtu_pattern.p, on_mtu, n, &e);
    if (!n->mtu) {
        LOG_W("node", "mtu_not_watched", "error=%s", log_quote(str_c(e.msg)));
    }
}

static void on_ifaces(void *arg, const struct dataplane_iface *v, size_t count) {
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
    if (n->in_sync) {
        apply(n);
    }
}

/* Parts that settings switch on and off. */
static void follow_settings(struct node *n) {
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

static void apply(struct node *n) {
    int64_t start = clock_ns();
    bool is_other = n->settings_dirty;
    if (n->settings_dirty) {
        n->settings_dirty = false;
        read_settings(n);
        struct dataplane_settings d = dataplane_settings_of(&n->settings);
        dataplane_set_settings(n->dataplane, &d);
        watch_mtu(n);
    }
    if (n->pools_dirty) {
        n->pools_dirty = false;
        push_pools(n);
    }
    calc_flush(n->calc);
    int64_t calculated = clock_ns();
    struct err e;
    int r = dataplane_flush(n->dataplane, &e);
    n->last_apply_ns = clock_ns() - start;
    if (is_other) { /* now that the calculation has told all that it knows */
        follow_settings(n);
    }
    LOG_D("node", "applied", "calculation_us=%lld kernel_us=%lld",
          (long long)(calculated - start) / 1000,
          (long long)(start + n->last_apply_ns - calculated) / 1000);
    if (r < 0) {
        LOG_E("dataplane", "apply_failed", "error=%s", log_quote(str_c(e.msg)));
        return; /* it tries again by itself */
    }
    if (n->cut) {
        cut_ask(n->cut);
    }
    set_enforced(n, n->told);
}

static void on_applied(void *arg) {
    struct node *n = arg;
    set_enforced(n, n->told);
}

static void on_in_sync(void *arg) {
    ((struct node *)arg)->in_sync = true;
}
static void on_batch_end(void *arg, uint64_t revision) {
    struct node *n = arg;
    n->told = revision;
    if (n->in_sync) {
        apply(n);
    }
}
static void on_connected(void *arg, bool is_connected) {
    (void)arg;
    LOG_I("store", is_connected ? "connected" : "connection_lost", "%s", "");
}

/* ---- status ---- */

static const char *health_of(const struct node *n) {
    struct dataplane_stats d;
    struct links_stats l;
    dataplane_stats(n->dataplane, &d);
    links_stats(n->links, &l);
    if (!n->in_sync || !d.is_applied || d.is_fighting || l.n_problems || n->problems.n) {
        return "degraded";
    }
    return "healthy";
}

static int problem_cmp(const void *a, const void *b) {
    return strcmp(((const struct problem *)a)->object, ((const struct problem *)b)->object);
}

static void put_problems(const struct node *n, struct buf *b) {
    VEC(struct problem) v = {0};
    struct problem *p;
    for (size_t i = 0; problem_map_next(&n->problems, &i, NULL, &p);) {
        vec_push(&v, *p);
    }
    vec_sort(&v, problem_cmp);
    struct dataplane_stats d;
    struct links_stats l;
    dataplane_stats(n->dataplane, &d);
    links_stats(n->links, &l);
    if (d.last_error[0]) {
        vec_push(&v, (struct problem){(char *)(uintptr_t) "dataplane", d.last_error});
    }
    if (d.is_fighting) {
        vec_push(&v,
                 (struct problem){(char *)(uintptr_t) "dataplane",
                                  (char *)(uintptr_t) "another program changes table inet margay "
                                                      "again and again; repairs are slowed down"});
    }
    if (l.problem[0]) {
        vec_push(&v, (struct problem){(char *)(uintptr_t) "interfaces", l.problem});
    }
    for (size_t i = 0; i < v.n; i++) {
        buf_puts(b, i ? ",{\"object\":" : "{\"object\":");
        json_quote(b, str_c(v.p[i].object));
        buf_puts(b, ",\"reason\":");
        json_quote(b, str_c(v.p[i].reason));
        buf_putc(b, '}');
    }
    vec_fini(&v);
}

struct all_stats {
    struct calc_stats c;
    struct dataplane_stats d;
    struct links_stats l;
    struct cni_server_stats s;
};
static void read_stats(const struct node *n, struct all_stats *out) {
    calc_stats(n->calc, &out->c);
    dataplane_stats(n->dataplane, &out->d);
    links_stats(n->links, &out->l);
    cni_server_stats(n->cni, &out->s);
}

static void put_status(const struct node *n, struct buf *b) {
    struct all_stats st;
    read_stats(n, &st);
    buf_printf(b, "{\"code\":0,\"health\":\"%s\",\"node\":", health_of(n));
    json_quote(b, str_c(n->name));
    buf_printf(b,
               ",\"version\":\"%s\",\"pid\":%d,\"uptimeSeconds\":%lld,"
               "\"revision\":\"%llu\",\"enforcedRevision\":\"%llu\",",
               MARGAY_VERSION, (int)getpid(),
               (long long)((clock_ns() - n->started_ns) / 1000000000),
               (unsigned long long)store_revision(n->store), (unsigned long long)n->enforced);
    buf_printf(b,
               "\"policies\":%zu,\"activePolicies\":%zu,\"endpoints\":%zu,\"localEndpoints\":%zu,"
               "\"sets\":%zu,\"members\":%zu,\"chains\":%zu,",
               st.c.policies, st.c.active_policies, st.c.endpoints, st.c.local_endpoints, st.c.sets,
               st.c.members, st.d.chains);
    buf_printf(b,
               "\"transactions\":%llu,\"repairs\":%llu,\"linkRepairs\":%llu,\"lastApplyUs\":%lld,"
               "\"readyUs\":%lld,",
               (unsigned long long)st.d.transactions, (unsigned long long)st.d.repairs,
               (unsigned long long)st.l.repairs, (long long)n->last_apply_ns / 1000,
               (long long)(n->ready_ns - n->started_ns) / 1000);
    buf_printf(b,
               "\"cni\":{\"adds\":%llu,\"dels\":%llu,\"errors\":%llu,\"attachments\":%zu,"
               "\"lastAddUs\":%lld},\"problems\":[",
               (unsigned long long)st.s.adds, (unsigned long long)st.s.dels,
               (unsigned long long)st.s.errors, st.s.n_attachments,
               (long long)st.s.last_add_ns / 1000);
    put_problems(n, b);
    buf_puts(b, "]}");
}

static void on_waited(void *arg, int code) {
    struct store_reply *r = arg;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(256);
    buf_printf(&b, "{\"code\":%d%s}", code,
               code < 0 ? ",\"message\":\"not enforced within the time\"" : "");
    store_reply_send(r, buf_view(&b));
}

static bool on_op(void *arg, const struct jnode *q, struct store_reply *reply) {
    struct node *n = arg;
    struct str op = jnode_str(jnode_getc(q, "op"));
    if (str_is(op, "status")) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(16 << 20);
        put_status(n, &b);
        store_reply_send(reply, buf_view(&b));
        return true;
    }
    if (str_is(op, "counters")) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64 << 20);
        counters_put(n->dataplane, &b);
        store_reply_send(reply, buf_view(&b));
        return true;
    }
    if (str_is(op, "wait")) {
        /* Without a revision: everything written before this call. */
        uint64_t rev = store_revision(n->store);
        const struct jnode *r = jnode_getc(q, "revision"), *t = jnode_getc(q, "timeoutMs");
        int64_t ms = t && t->type == J_INT && t->i >= 0 && t->i <= WAIT_MAX_MS ? t->i : 30000;
        if (r && str_to_u64(r->s, &rev) < 0) {
            return false;
        }
        when_enforced(n, rev, ms, on_waited, reply);
        return true;
    }
    return false;
}

/* ---- health ---- */

static bool is_live(void *arg) {
    (void)arg;
    return true; /* the loop answered */
}
static bool is_ready(void *arg) {
    const struct node *n = arg;
    struct dataplane_stats d;
    dataplane_stats(n->dataplane, &d);
    return n->in_sync && d.is_applied;
}

static void metric(struct buf *b, const char *name, const char *type, const char *help, double v) {
    buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name, type, name, v);
}

static void put_metrics(void *arg, struct buf *b) {
    const struct node *n = arg;
    struct all_stats st;
    read_stats(n, &st);
    metric(b, "felix_active_local_endpoints", "gauge", "Pods of this node.",
           (double)st.c.local_endpoints);
    metric(b, "felix_active_local_policies", "gauge", "Policies that select a pod of this node.",
           (double)st.c.active_policies);
    metric(b, "felix_active_local_selectors", "gauge", "Sets in use.", (double)st.c.sets);
    metric(b, "felix_cluster_num_policies", "gauge", "Policies known.", (double)st.c.policies);
    metric(b, "felix_cluster_num_workload_endpoints", "gauge", "Endpoints and network sets known.",
           (double)st.c.endpoints);
    metric(b, "felix_ipset_members", "gauge", "Members of all sets.", (double)st.c.members);
    metric(b, "felix_resync_state", "gauge", "1 wait for ready, 2 resync, 3 in sync.",
           n->in_sync ? 3 : 2);
    metric(b, "felix_int_dataplane_failures", "counter", "Transactions that the kernel refused.",
           (double)st.d.refused);
    metric(b, "margay_nft_transactions_total", "counter", "Transactions written.",
           (double)st.d.transactions);
    metric(b, "margay_nft_repairs_total", "counter", "Foreign changes undone.",
           (double)st.d.repairs);
    metric(b, "margay_link_repairs_total", "counter", "Interfaces put right again.",
           (double)st.l.repairs);
    metric(b, "margay_last_apply_seconds", "gauge", "Calculation and transaction, last time.",
           (double)n->last_apply_ns / 1e9);
    metric(b, "margay_cni_adds_total", "counter", "CNI ADDs answered.", (double)st.s.adds);
    metric(b, "margay_cni_dels_total", "counter", "CNI DELs answered.", (double)st.s.dels);
    metric(b, "margay_cni_errors_total", "counter", "CNI requests that failed.",
           (double)st.s.errors);
    metric(b, "margay_problems", "gauge", "Resources that can't be enforced as written.",
           (double)n->problems.n);
}

static void start_health(struct node *n) {
    static const struct health_ops ops = {is_live, is_ready, put_metrics};
    struct err e;
    const struct settings *s = &n->settings;
    /* A port in use is no reason to leave pods without policy. */
    if (s->has_health && health_new(n->loop, s->health_host, s->health_port, HEALTH_PROBES, &ops, n,
                                    &n->health, &e) < 0) {
        LOG_E("health", "not_served", "error=%s", log_quote(str_c(e.msg)));
    }
    if (s->has_metrics && health_new(n->loop, s->metrics_host, s->metrics_port, HEALTH_METRICS,
                                     &ops, n, &n->metrics, &e) < 0) {
        LOG_E("metrics", "not_served", "error=%s", log_quote(str_c(e.msg)));
    }
}

/* ---- start ---- */

static void on_cni(void *arg, int fd) {
    cni_server_connection(((struct node *)arg)->cni, fd);
}
static void on_rpc(void *arg, int fd) {
    store_server_connection(((struct node *)arg)->rpc, fd);
}

static void run_spool(void *arg) {
    struct node *n = arg;
    char dir[PATH_MAX];
    snprintf(dir, sizeof(dir), "%s/spool", n->o.state_dir);
    int r = cni_server_spool(n->cni, dir);
    if (r < 0 && r != -ENOENT) {
        static struct log_limit limit;
        if (log_allow(&limit, 1, 60)) {
            LOG_W("cni", "spool", "folder=%s error=%s", dir, strerror(-r));
        }
    }
}

static int open_parts(struct node *n, struct err *e) {
    static const struct cni_server_ops cni_ops = {when_enforced};
    static const struct store_server_hooks rpc_hooks = {on_op};
    const struct settings *s = &n->settings;
    struct links_settings ls = {.route_proto = s->route_proto,
                                .n_iface_prefixes = s->n_iface_prefixes};
    memcpy(ls.iface_prefixes, s->iface_prefixes, sizeof(ls.iface_prefixes));
    n->links = links_new(n->loop, &ls, e);
    if (!n->links) {
        return e->code;
    }
    struct dataplane_settings ds = dataplane_settings_of(s);
    int r = dataplane_new(n->loop, n->links, &ds, &n->dataplane, e);
    if (r < 0) {
        return r;
    }
    dataplane_on_applied(n->dataplane, on_applied, n);
    n->calc = calc_new(str_c(n->name), &sink, n);
    n->ipam = ipam_new(n->store, str_c(n->name));
    struct cni_server_settings cs = {
        .node_name = str_c(n->name), .iface_prefix = s->iface_prefixes[0], .links = n->links};
    n->cni = cni_server_new(n->loop, n->store, n->ipam, &cs, &cni_ops, n, e);
    if (!n->cni) {
        return e->code;
    }
    watch_mtu(n);
    follow_settings(n);
    if (strncmp(n->o.datastore, "sqlite:", 7) == 0) {
        n->autohep = autohep_new(n->loop, n->store, str_c(n->name));
    }
    n->ifaces = iface_watch_new(n->loop, on_ifaces, n, e);
    if (!n->ifaces) {
        return e->code;
    }
    n->rpc = store_server_new(n->loop, n->store, &rpc_hooks, n);
    return 0;
}

static int start(struct node *n, struct err *e) {
    static const struct syncer_ops sync_ops = {on_item, on_in_sync, on_batch_end, on_connected};
    static const struct listener_ops listen_ops = {on_cni, on_rpc};
    int r = settings_file(n->o.config_file, &n->file_arena, &n->sources.file, e);
    if (r < 0) {
        return r;
    }
    read_settings(n);
    if (mkdir(n->o.state_dir, 0700) < 0 && errno != EEXIST) {
        r = -errno;
        return err_set(e, r, "state folder %s: %s", n->o.state_dir, strerror(-r));
    }
    r = store_open(n->o.datastore, &n->store, e);
    if (r == 0) {
        r = default_pool_make(n->store, e);
    }
    if (r == 0) {
        r = open_parts(n, e);
    }
    if (r == 0) {
        r = syncer_start(n->store, n->loop, STR(STORE_SPACE_RESOURCES), &sync_ops, n, &n->syncer,
                         e);
    }
    if (r == 0) {
        r = links_sync(n->links, e);
        if (r < 0) { /* what is wrong with one interface is no reason not to serve the others */
            LOG_W("links", "start", "error=%s", log_quote(str_c(e->msg)));
            r = 0;
        }
    }
    if (r == 0) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/agent.sock", n->o.run_dir);
        r = listener_new(n->loop, path, &listen_ops, n, &n->listener, e);
    }
    if (r < 0) {
        return r;
    }
    n->spool_timer = loop_timer_new(n->loop, run_spool, n);
    loop_timer_start(n->spool_timer, 0, SPOOL_MS);
    start_health(n);
    return 0;
}

static void on_signal(void *arg, int signum) {
    struct node *n = arg;
    LOG_I("node", "stopping", "signal=%d", signum);
    sd_notify_state("STOPPING=1");
    loop_stop(n->loop);
}

int node_new(const struct node_options *o, struct node **out, struct err *e) {
    struct node *n = calloc(1, sizeof(*n));
    mg_assert(n != NULL);
    n->started_ns = clock_ns();
    n->o = *o;
    n->name = strdup(o->node_name);
    mg_assert(n->name != NULL);
    n->loop = loop_new();
    loop_signal(n->loop, SIGTERM, on_signal, n);
    loop_signal(n->loop, SIGINT, on_signal, n);
    int r = start(n, e);
    if (r < 0) {
        node_free(n);
        return r;
    }
    n->ready_ns = clock_ns();
    (void)malloc_trim(0); /* the first reading of everything needs more than what follows */
    LOG_I("node", "ready", "node=%s store=%s took_us=%lld", n->name, o->datastore,
          (long long)(n->ready_ns - n->started_ns) / 1000);
    sd_notify_state("READY=1\nSTATUS=in sync");
    *out = n;
    return 0;
}

void node_run(struct node *n) {
    loop_run(n->loop);
}

void node_free(struct node *n) {
    if (!n) {
        return;
    }
    listener_free(n->listener);
    health_free(n->health);
    health_free(n->metrics);
    loop_timer_free(n->spool_timer);
    if (n->cni) {
        mtu_watch_free(n->mtu);
        cni_server_free(n->cni);
    }
    iface_watch_free(n->ifaces);
    vec_fini(&n->own);
    packetlog_free(n->packetlog);
    autohep_free(n->autohep);
    cut_free(n->cut);
    n->cut = NULL;
    while (n->waiters.n) {
        struct waiter *w = n->waiters.p[--n->waiters.n];
        loop_timer_free(w->timer);
        free(w);
    }
    vec_fini(&n->waiters);
    store_server_free(n->rpc);
    syncer_free(n->syncer);
    calc_free(n->calc);
    dataplane_free(n->dataplane);
    if (n->links) {
        links_free(n->links);
    }
    if (n->ipam) {
        ipam_free(n->ipam);
    }
    store_close(n->store);
    settings_fini(&n->settings);
    struct problem *p;
    for (size_t i = 0; problem_map_next(&n->problems, &i, NULL, &p);) {
        free(p->object);
        free(p->reason);
    }
    problem_map_fini(&n->problems);
    struct str key;
    for (size_t i = 0; pool_map_next(&n->pools, &i, &key, NULL);) {
        free((char *)(uintptr_t)key.p);
    }
    pool_map_fini(&n->pools);
    arena_fini(&n->file_arena);
    arena_fini(&n->felix_arena[0]);
    arena_fini(&n->felix_arena[1]);
    arena_fini(&n->scratch);
    loop_free(n->loop);
    free(n->name);
    free(n);
}
