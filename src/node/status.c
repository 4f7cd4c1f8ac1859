/* What the agent tells of itself: `margay status`, probes, metrics. */
#include "node/counters.h"
#include "node/node_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WAIT_MAX_MS = 3600 * 1000 };

static const char *health_of(const struct node *n) {
    struct dataplane_stats d;
    struct links_stats l;
    dataplane_stats(n->dataplane, &d);
    links_stats(n->links, &l);
    if (!n->in_sync || n->lost_ns || n->init_error.code || !d.is_applied || d.is_fighting ||
        l.n_problems || n->problems.n) {
        return "degraded";
    }
    return "healthy";
}

static int problem_cmp(const void *a, const void *b) {
    return strcmp(((const struct problem *)a)->object, ((const struct problem *)b)->object);
}

typedef VEC(struct problem) problem_vec;
static const char NETWORK[] = "network";

static void add_network_problem(void *arg, const char *what) {
    char *copy = strdup(what); /* freed below */
    mg_assert(copy != NULL);
    vec_push((problem_vec *)arg, (struct problem){(char *)(uintptr_t)NETWORK, copy});
}

static void put_problems(const struct node *n, struct buf *b) {
    problem_vec v = {0};
    struct problem *p;
    for (size_t i = 0; problem_map_next(&n->problems, &i, NULL, &p);) {
        vec_push(&v, *p);
    }
    vec_sort(&v, problem_cmp);
    struct dataplane_stats d;
    struct links_stats l;
    char lost[sizeof(n->lost_why) + 128], init[sizeof(n->init_error.msg) + 64];
    dataplane_stats(n->dataplane, &d);
    links_stats(n->links, &l);
    if (n->lost_ns) {
        (void)snprintf(lost, sizeof(lost),
                       "away for %lld s: %s; what was known holds on in the kernel",
                       (long long)(clock_ns() - n->lost_ns) / 1000000000, n->lost_why);
        vec_push(&v, (struct problem){(char *)(uintptr_t) "datastore", lost});
    }
    if (n->network) {
        network_problems(n->network, add_network_problem, &v);
    }
    if (n->init_error.code) {
        (void)snprintf(init, sizeof(init), "not initialized: %s", n->init_error.msg);
        vec_push(&v, (struct problem){(char *)(uintptr_t) "datastore", init});
    }
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
        if (v.p[i].object == NETWORK) {
            free(v.p[i].reason);
        }
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

/* The URL without what stands behind "?": names of key files at the most, but nobody's affair. */
static void put_datastore(const struct node *n, struct buf *b) {
    struct str url = str_c(n->o.datastore);
    ptrdiff_t q = str_find(url, '?', 0);
    buf_puts(b, "\"datastore\":{\"url\":");
    json_quote(b, q >= 0 ? str_sub(url, 0, (size_t)q) : url);
    buf_printf(b, ",\"inSync\":%s,\"connected\":%s", n->in_sync ? "true" : "false",
               n->lost_ns ? "false" : "true");
    if (n->lost_ns) {
        buf_printf(b, ",\"lostSeconds\":%lld,\"reason\":",
                   (long long)(clock_ns() - n->lost_ns) / 1000000000);
        json_quote(b, str_c(n->lost_why));
    }
    buf_puts(b, "},");
}

static void put_status(const struct node *n, struct buf *b) {
    struct all_stats st;
    read_stats(n, &st);
    buf_printf(b, "{\"code\":0,\"health\":\"%s\",\"node\":", health_of(n));
    json_quote(b, str_c(n->name));
    buf_printf(
        b,
        ",\"version\":\"%s\",\"pid\":%d,\"uptimeSeconds\":%lld,"
        "\"revision\":\"%llu\",\"enforcedRevision\":\"%llu\",",
        MARGAY_VERSION, (int)getpid(), (long long)((clock_ns() - n->started_ns) / 1000000000),
        (unsigned long long)(store_is_quick(n->store) ? store_revision(n->store)
                                                      : syncer_position(n->syncer, STR_NULL)),
        (unsigned long long)n->enforced);
    put_datastore(n, b);
    if (n->network) {
        network_put(n->network, b);
    }
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
               n->is_ready ? (long long)(n->ready_ns - n->started_ns) / 1000 : -1);
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
               code == ERR_RETRY ? ",\"message\":\"the datastore does not answer\""
               : code < 0        ? ",\"message\":\"not enforced within the time\""
                                 : "");
    store_reply_send(r, buf_view(&b));
}

/* `status --wait`: until everything written before the call is in the kernel. */
struct wait_job {
    struct node *n;
    struct store_reply *reply;
    uint64_t revision;
    int64_t timeout_ms;
};

static void work_newest(struct store *s, void *arg) {
    ((struct wait_job *)arg)->revision = store_revision(s);
}

static void newest_known(void *arg, int code) {
    struct wait_job *j = arg;
    if (code == 0 && j->revision == 0 && !store_is_quick(j->n->store)) {
        code = ERR_UNAVAILABLE; /* a cluster's store is never empty */
    }
    if (code < 0) {
        on_waited(j->reply, ERR_RETRY); /* the agent is there; its datastore may come back */
    } else {
        node_when_enforced(j->n, STR_NULL, j->revision, j->timeout_ms, on_waited, j->reply);
    }
    free(j);
}

static bool op_wait(struct node *n, const struct jnode *q, struct store_reply *reply) {
    const struct jnode *r = jnode_getc(q, "revision"), *t = jnode_getc(q, "timeoutMs");
    int64_t ms = t && t->type == J_INT && t->i >= 0 && t->i <= WAIT_MAX_MS ? t->i : 30000;
    uint64_t rev = 0;
    if (r && str_to_u64(r->s, &rev) < 0) {
        return false;
    }
    if (r) {
        node_when_enforced(n, STR_NULL, rev, ms, on_waited, reply);
        return true;
    }
    struct wait_job *j = malloc(sizeof(*j));
    mg_assert(j != NULL);
    *j = (struct wait_job){n, reply, 0, ms};
    store_worker_run(n->worker, work_newest, newest_known, j);
    return true;
}

bool node_on_op(void *arg, const struct jnode *q, struct store_reply *reply) {
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
        return op_wait(n, q, reply);
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
    metric(b, "margay_datastore_connected", "gauge", "1: the datastore is followed.",
           n->lost_ns ? 0 : 1);
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

void node_start_health(struct node *n) {
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
