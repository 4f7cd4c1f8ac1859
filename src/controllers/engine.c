#include "controllers/engine_int.h"

#include "base/clock.h"
#include "base/fd.h"
#include "store/worker.h"

#include <fcntl.h>
#include <stdlib.h>

#define IPAM_BLOCKS "/ipam/v2/assignment/"
enum { COLLECT_TICK_MS = 1000, STATUS_TICK_MS = 10000 };

/* ---- the pump ---- */

static void pump(struct engine *x);

static void job_free(struct job *j) {
    arena_fini(&j->a);
    free(j);
}

static void work(void *arg) {
    struct engine *x = arg;
    for (size_t i = 0; i < x->batch.n; i++) {
        job_run(x->batch.p[i], x->o.stores.source_calls, x->o.stores.target_calls);
    }
}

static void job_over(struct engine *x, struct job *j) {
    bool has_failed = j->result < 0;
    x->n_done++;
    x->n_failed += has_failed;
    if (has_failed) {
        unsigned n = queue_failures(x->queue, j->key) + 1;
        if (n >= ENGINE_SLOW_FAILURES && log_allow(&x->limit, 5, 60)) {
            LOG_W("controllers", "failed", "work=%s times=%u error=%s", log_quote(j->key), n,
                  log_quote(str_c(j->e.msg)));
        }
    }
    for (size_t i = 0; i < j->n_allocs && !has_failed && j->n_released; i++) {
        gc_released(x->gc, &j->allocs[i]);
    }
    if (j->key.p[0] == JOB_MACHINE && j->is_known) {
        struct str name = job_rest(j->key), ns = str_cut(&name, '/');
        gc_machine(x->gc, ns, name, j->is_gone);
    } else if (j->key.p[0] == JOB_MACHINE && log_allow(&x->limit, 5, 60)) {
        LOG_W("controllers", "machine_unknown", "machine=%s its addresses stay: %s",
              log_quote(job_rest(j->key)), log_quote(str_c(j->e.msg)));
    }
    if (j->key.p[0] == JOB_COMPACT) {
        x->compaction = j->compaction;
    }
    queue_done(x->queue, j->key, has_failed, clock_ns());
}

static void done(void *arg) {
    struct engine *x = arg;
    x->is_busy = false;
    for (size_t i = 0; i < x->batch.n; i++) {
        job_over(x, x->batch.p[i]);
        job_free(x->batch.p[i]);
    }
    vec_clear(&x->batch);
    if (!x->is_dead) {
        loop_defer_ask(x->later);
    }
}

static void fill_batch(struct engine *x, int64_t *next_ns) {
    struct str key;
    while (x->batch.n < ENGINE_BATCH && queue_take(x->queue, clock_ns(), &key, next_ns)) {
        struct job *j = calloc(1, sizeof(*j));
        mg_assert(j != NULL);
        j->key = arena_dup(&j->a, key);
        engine_prepare(x, j);
        vec_push(&x->batch, j);
    }
}

static void pump(struct engine *x) {
    if (x->is_busy || !x->is_working) {
        return;
    }
    int64_t next_ns = INT64_MAX;
    fill_batch(x, &next_ns);
    if (x->batch.n == 0) {
        int64_t wait_ms = (next_ns - clock_ns()) / 1000000 + 1;
        if (next_ns < INT64_MAX) {
            loop_timer_start(x->pump, wait_ms > 0 ? wait_ms : 1, 0);
        }
        return;
    }
    x->is_busy = true;
    if (x->is_inline) {
        work(x);
        done(x);
    } else {
        loop_work(x->loop, work, done, x);
    }
}

static void on_pump(void *arg) {
    pump(arg);
}

/* ---- old revisions ---- */

static void on_compact(void *arg) {
    engine_ask(arg, JOB_COMPACT, STR(""));
}

/* Every period; the first time only looks. */
static void schedule_compaction(struct engine *x) {
    int64_t ms = x->config.compaction_ns / 1000000;
    if (ms > 0 && store_has_history(x->o.stores.target)) {
        loop_timer_start(x->compact, 0, ms);
    } else {
        loop_timer_stop(x->compact);
    }
}

/* ---- when to work ---- */

static void turn(struct engine *x) {
    bool may = engine_may_work(x);
    if (may == x->is_working) {
        return;
    }
    x->is_working = may;
    LOG_I("controllers", may ? "working" : "waiting", "leader=%s pods=%zu",
          leader_is(x->leader) ? "true" : "false", facts_n_pods(x->facts));
    if (may) {
        x->next_gc_ns = 0;
        x->compaction = (struct store_compaction){.has_mark = false};
        engine_ask(x, JOB_CONFIG, STR("default"));
        engine_ask_all(x);
        schedule_compaction(x);
    }
}

static void on_leader(void *arg, bool is_leader) {
    (void)is_leader;
    turn(arg);
}

void engine_reconcile(struct engine *x) {
    turn(x);
    if (x->is_working) {
        engine_ask_all(x);
    }
}

static void on_reconcile(void *arg) {
    engine_reconcile(arg);
}

/* ---- the collector ---- */

static void release_handle(void *arg, struct str handle) {
    engine_ask(arg, JOB_RELEASE, handle);
}
static void release_block(void *arg, struct str node, const struct prefix *cidr) {
    struct arena a = {.first_bytes = 512};
    char text[IP_TEXT_MAX];
    engine_ask(arg, JOB_BLOCK, arena_printf(&a, "%.*s %s", STR_FMT(node), prefix_text(cidr, text)));
    arena_fini(&a);
}
static void release_node(void *arg, struct str node) {
    engine_ask(arg, JOB_GONE, node);
}

static void ask_machine(void *arg, struct str ns, struct str name) {
    struct arena a = {.first_bytes = 512};
    engine_ask(arg, JOB_MACHINE, arena_printf(&a, "%.*s/%.*s", STR_FMT(ns), STR_FMT(name)));
    arena_fini(&a);
}

static bool is_lost(const struct engine *x) {
    for (size_t i = 0; i < FEED_N; i++) {
        if (x->feeds[i].is_lost) {
            return true;
        }
    }
    return false;
}

void engine_collect(struct engine *x, int64_t now_ns) {
    static const struct gc_ops ops = {release_handle, release_block, release_node, ask_machine};
    /* An old picture proves nothing. */
    if (!x->is_working || is_lost(x) || !x->config.is_enabled[CONTROLLER_NODE]) {
        return;
    }
    int64_t grace = x->config.leak_grace_ns;
    bool is_soon = gc_pass(x->gc, x->facts, now_ns, grace, &ops, x);
    int64_t period = grace > 0 ? grace / 2 : 300LL * 1000000000;
    x->next_gc_ns = now_ns + (is_soon && period > GC_NODE_GONE_NS ? GC_NODE_GONE_NS : period) + 1;
}

static void on_collect(void *arg) {
    struct engine *x = arg;
    int64_t now = clock_ns();
    if (now >= x->next_gc_ns) {
        engine_collect(x, now);
    }
}

/* ---- health, metrics ---- */

static bool is_live(void *arg) {
    (void)arg;
    return true; /* the loop answers */
}

static const char *not_ready(const struct engine *x) {
    for (size_t i = 0; i < FEED_N; i++) {
        if (x->feeds[i].syncer && (!x->feeds[i].is_in_sync || x->feeds[i].is_lost)) {
            return i == FEED_SOURCE ? "the Kubernetes API is not followed"
                                    : "the datastore is not followed";
        }
    }
    return x->has_config ? NULL : "no configuration yet";
}

static bool is_ready(void *arg) {
    return not_ready(arg) == NULL;
}

void engine_metrics(const struct engine *x, struct buf *out) {
    gc_metrics(x->gc, x->facts, out);
    buf_printf(out,
               "# HELP margay_controllers_leader Is this the controller that works.\n"
               "# TYPE margay_controllers_leader gauge\nmargay_controllers_leader %d\n"
               "# HELP margay_controllers_queue_depth Work that waits or is done.\n"
               "# TYPE margay_controllers_queue_depth gauge\nmargay_controllers_queue_depth %zu\n"
               "# HELP margay_controllers_work_total Work that was done.\n"
               "# TYPE margay_controllers_work_total counter\n"
               "margay_controllers_work_total{result=\"done\"} %llu\n"
               "margay_controllers_work_total{result=\"failed\"} %llu\n"
               "# HELP margay_controllers_pods Pods known.\n"
               "# TYPE margay_controllers_pods gauge\nmargay_controllers_pods %zu\n",
               leader_is(x->leader), queue_depth(x->queue),
               (unsigned long long)(x->n_done - x->n_failed), (unsigned long long)x->n_failed,
               facts_n_pods(x->facts));
}

static void put_metrics(void *arg, struct buf *out) {
    engine_metrics(arg, out);
}

/* The server follows the configuration. */
static void serve(struct engine *x) {
    static const struct health_ops ops = {is_live, is_ready, put_metrics};
    uint16_t port = x->o.has_http ? x->config.metrics_port : 0;
    if (port == x->http_port) {
        return;
    }
    health_free(x->http);
    x->http = NULL;
    x->http_port = port;
    struct err e = {.code = 0};
    unsigned pages = HEALTH_METRICS | (x->config.is_health_enabled ? HEALTH_PROBES : 0U);
    if (port && health_new(x->loop, STR(""), port, pages, &ops, x, &x->http, &e) < 0) {
        LOG_E("controllers", "metrics_not_served", "error=%s", log_quote(str_c(e.msg)));
    }
}

/* As Calico's /status/status.json: read by a probe that runs in the same container. */
static void on_status(void *arg) {
    struct engine *x = arg;
    if (!x->o.status_path || !x->config.is_health_enabled) {
        return;
    }
    const char *why = not_ready(x);
    struct arena a = {0};
    struct str text = arena_printf(
        &a,
        "{\"ready\":%s,\"conditions\":{\"CalicoDatastore\":{\"ready\":%s,\"reason\":\"%s\"},"
        "\"KubeAPIServer\":{\"ready\":%s,\"reason\":\"%s\"}}}\n",
        why ? "false" : "true", why ? "false" : "true", why ? why : "", why ? "false" : "true",
        why ? why : "");
    (void)!file_replace(AT_FDCWD, x->o.status_path, text, 0644); /* the probe sees it is old */
    arena_fini(&a);
}

/* ---- configuration ---- */

static int64_t shortest_period(const struct run_config *c) {
    int64_t best = 0;
    for (size_t i = 0; i < CONTROLLER_N; i++) {
        if (c->is_enabled[i] && c->period_ns[i] > 0 && (best == 0 || c->period_ns[i] < best)) {
            best = c->period_ns[i];
        }
    }
    return best;
}

int engine_configure(struct engine *x, const struct jnode *spec, struct err *e) {
    struct arena a = {0};
    struct run_config c;
    struct jnode *status;
    spec = spec ? spec : config_default_spec(&a);
    int r = config_merge(spec, x->o.env, x->o.env_arg, x->o.is_kubernetes, &a, &c, &status, e);
    if (r < 0) {
        arena_fini(&a);
        return r;
    }
    bool is_changed = !x->config_status || !jnode_eq(status, x->config_status);
    arena_fini(&x->config_arena);
    x->config_arena = a;
    x->config = c;
    x->config_status = status;
    log_level_set(c.level);
    serve(x);
    engine_ask(x, JOB_CONFIG, STR("default")); /* or somebody wrote a status of his own */
    if (is_changed) {
        int64_t ms = shortest_period(&c) / 1000000;
        if (ms > 0) {
            loop_timer_start(x->reconcile, ms, ms);
        } else {
            loop_timer_stop(x->reconcile);
        }
        schedule_compaction(x);
        x->next_gc_ns = 0;
        engine_reconcile(x);
    }
    return 0;
}

/* ---- feeds ---- */

static void on_item(void *arg, const struct store_item *it) {
    struct feed_state *f = arg;
    engine_see(f->x, f->id, it);
}
static void on_in_sync(void *arg) {
    struct feed_state *f = arg;
    struct engine *x = f->x;
    struct err e = {.code = 0};
    f->is_in_sync = true;
    if (f->id == FEED_TARGET && !x->has_config) {
        if (x->config_status == NULL && engine_configure(x, NULL, &e) < 0) {
            LOG_W("controllers", "configuration", "error=%s", log_quote(str_c(e.msg)));
        }
        x->has_config = x->config_status != NULL;
    }
}
static void on_batch_end(void *arg, uint64_t revision) {
    struct feed_state *f = arg;
    (void)revision;
    turn(f->x);
}
static void on_connected(void *arg, bool is_connected, const char *why) {
    struct feed_state *f = arg;
    f->is_lost = !is_connected;
    LOG_W("controllers", is_connected ? "store_back" : "store_lost", "which=%s why=%s",
          f->id == FEED_SOURCE ? "source" : "target", log_quote(str_c(why ? why : "")));
}

static int start_feed(struct engine *x, enum feed id, struct store *s, const char *space,
                      const char *key, struct err *e) {
    static const struct syncer_ops ops = {on_item, on_in_sync, on_batch_end, on_connected};
    struct feed_state *f = &x->feeds[id];
    f->x = x;
    f->id = id;
    return syncer_start(s, x->loop, (struct store_key){str_c(space), str_c(key)}, &ops, f,
                        &f->syncer, e);
}

/* ---- life ---- */

static int check_environment(struct engine *x, struct err *e) {
    struct arena a = {0};
    struct run_config c;
    struct jnode *status;
    int r = config_merge(NULL, x->o.env, x->o.env_arg, x->o.is_kubernetes, &a, &c, &status, e);
    arena_fini(&a);
    return r;
}

int engine_new(struct loop *l, const struct engine_options *o, struct engine **out, struct err *e) {
    struct engine *x = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    x->loop = l;
    x->o = *o;
    x->identity = strndup(o->identity.p ? o->identity.p : "", o->identity.n);
    x->is_two = o->stores.source != o->stores.target;
    x->is_inline = store_is_quick(o->stores.source_calls) && store_is_quick(o->stores.target_calls);
    x->is_datastore_ready = true;
    x->facts = facts_new();
    x->mirror = mirror_table_new();
    x->gc = gc_new();
    x->queue = queue_new();
    x->pump = loop_timer_new(l, on_pump, x);
    x->reconcile = loop_timer_new(l, on_reconcile, x);
    x->collect = loop_timer_new(l, on_collect, x);
    x->status = loop_timer_new(l, on_status, x);
    x->compact = loop_timer_new(l, on_compact, x);
    x->later = loop_defer_new(l, on_pump, x);
    int r = check_environment(x, e);
    if (r == 0) {
        x->leader = leader_new(l, o->stores.election, str_c(x->identity), on_leader, x);
        loop_timer_start(x->collect, COLLECT_TICK_MS, COLLECT_TICK_MS);
        loop_timer_start(x->status, 0, STATUS_TICK_MS);
        r = start_feed(x, FEED_TARGET, o->stores.target, STORE_SPACE_RESOURCES, "", e);
    }
    if (r == 0) {
        r = start_feed(x, FEED_IPAM, o->stores.target, STORE_SPACE_IPAM, IPAM_BLOCKS, e);
    }
    if (r == 0 && x->is_two) {
        r = start_feed(x, FEED_SOURCE, o->stores.source, STORE_SPACE_RESOURCES, "", e);
    }
    if (r < 0) {
        engine_free(x);
        return r;
    }
    *out = x;
    return 0;
}

void engine_free(struct engine *x) {
    if (!x) {
        return;
    }
    x->is_dead = true;
    x->is_working = false;
    for (size_t i = 0; i < FEED_N; i++) {
        syncer_free(x->feeds[i].syncer);
    }
    while (x->is_busy) {
        loop_step(x->loop, true);
    }
    leader_free(x->leader);
    health_free(x->http);
    loop_timer_free(x->pump);
    loop_timer_free(x->reconcile);
    loop_timer_free(x->collect);
    loop_timer_free(x->status);
    loop_timer_free(x->compact);
    loop_defer_free(x->later);
    for (size_t i = 0; i < x->batch.n; i++) {
        job_free(x->batch.p[i]);
    }
    vec_fini(&x->batch);
    queue_free(x->queue);
    gc_free(x->gc);
    mirror_table_free(x->mirror);
    facts_free(x->facts);
    arena_fini(&x->config_arena);
    free(x->identity);
    free(x);
}

bool engine_is_idle(const struct engine *x) {
    return x->is_working && !x->is_busy && queue_depth(x->queue) == 0;
}
