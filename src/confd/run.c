/* Rounds: read the backend, find out what changed, process the resources that it concerns. Changes
 * that come close together are one round; what fails is tried again with growing pauses. */
#include "confd/run.h"

#include "confd/backend.h"
#include "confd/resource.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    SETTLE_MS = 5,       /* a change after quiet times: this long without another one, or … */
    BURST_MS = 100,      /* … this long; and while they keep coming: this long without one */
    BURST_MAX_MS = 1000, /* but no longer */
    RETRY_MIN_MS = 1000,
    RETRY_MAX_MS = 60000,
};

struct confd {
    struct confd_options *o;
    const char *node_name;
    struct loop *loop;
    int stop_fd, hup_fd;
    const struct backend_ops *ops;
    struct backend *backend;
    struct arena prefixes_arena;
    const struct str *prefixes;
    size_t n_prefixes;
    struct resources resources;
    struct kv kv;
    struct kv_changes changes;
    bool is_stale, has_snapshot, is_lost;
    struct loop_timer *settle, *retry, *interval;
    int64_t pending_since_ns, last_round_ns, retry_ms;
    int exit_code;
};

/* ---- what to read ---- */

/* Keys as the backend writes them, and all of them as one list of prefixes. */
static void gather_prefixes(struct confd *c) {
    struct arena *a = &c->prefixes_arena;
    arena_reset(a);
    VEC(struct str) all = {0};
    for (size_t i = 0; i < c->resources.n; i++) {
        struct resource *r = c->resources.p[i];
        if (c->ops->fold) {
            struct str *keys = arena_array(&r->a, struct str, r->n_keys);
            for (size_t k = 0; k < r->n_keys; k++) {
                keys[k] = c->ops->fold(&r->a, r->keys[k]);
            }
            if (!str_eq(c->ops->fold(&r->a, r->prefix), r->prefix)) {
                r->prefix = STR("/"); /* the backend's keys never begin so: nothing is cut off */
            }
            kv_view_keys(&r->a, STR("/"), keys, r->n_keys, &r->keys, &r->n_keys);
        }
        for (size_t k = 0; k < r->n_keys; k++) {
            vec_push(&all, arena_dup(a, r->keys[k]));
        }
    }
    kv_view_keys(a, STR("/"), all.p, all.n, &c->prefixes, &c->n_prefixes);
    vec_fini(&all);
}

static int load(struct confd *c, struct err *e) {
    struct resources fresh;
    int r = resources_load(c->o, c->node_name, &fresh, e);
    if (r < 0) {
        return r;
    }
    resources_free(&c->resources);
    c->resources = fresh;
    gather_prefixes(c);
    return 0;
}

static int open_backend(struct confd *c, struct err *e) {
    if (c->backend) {
        c->ops->close(c->backend);
        c->backend = NULL;
    }
    return c->ops->open(c->o, c->prefixes, c->n_prefixes, &c->backend, e);
}

static int read_backend(struct confd *c, struct err *e) {
    struct kv fresh = {0};
    int r = c->ops->read(c->backend, &fresh, e);
    if (r < 0) {
        kv_fini(&fresh);
        return r;
    }
    kv_sort(&fresh);
    kv_replace(&c->kv, &fresh, &c->changes);
    return 0;
}

/* ---- processing ---- */

static struct pass pass_of(struct confd *c) {
    return (struct pass){.o = c->o,
                         .kv = &c->kv,
                         .bgp = c->ops->bgp ? c->ops->bgp(c->backend) : NULL,
                         .stop_fd = c->stop_fd};
}

static int process(struct confd *c, struct resource *r) {
    struct pass p = pass_of(c);
    struct err e = {0};
    bool is_changed = false;
    int ret = resource_process(r, &p, &is_changed, &e);
    r->is_dirty = false;
    if (ret < 0) {
        LOG_E("confd", "failed", "resource=%s error=\"%s\"", log_quote(str_c(r->file)), e.msg);
    }
    /* A reload that failed is not repeated: the file is new, and nothing says that it would help.
     */
    r->is_failed = ret < 0;
    if (ret == 0 || is_changed) {
        r->retry_ns = r->retry_at_ns = 0;
    } else {
        r->retry_ns = r->retry_ns ? r->retry_ns * 2 : (int64_t)RETRY_MIN_MS * 1000000;
        int64_t max = (int64_t)RETRY_MAX_MS * 1000000;
        r->retry_ns = r->retry_ns > max ? max : r->retry_ns;
        r->retry_at_ns = clock_ns() + r->retry_ns;
    }
    return ret;
}

static int process_all(struct confd *c) {
    int ret = 0;
    for (size_t i = 0; i < c->resources.n; i++) {
        int r = process(c, c->resources.p[i]);
        ret = r < 0 ? r : ret;
    }
    return ret;
}

/* Those that never ran, that read what changed, or whose pause is over. */
static void process_concerned(struct confd *c) {
    int64_t now = clock_ns();
    size_t n = 0;
    kv_changes_sort(&c->changes);
    for (size_t i = 0; i < c->resources.n; i++) {
        struct resource *r = c->resources.p[i];
        if (r->is_dirty || (r->retry_at_ns && r->retry_at_ns <= now) ||
            (c->changes.keys.n && kv_view_concerned(&r->view, &c->changes, r->saw_world))) {
            (void)process(c, r);
            n++;
        }
    }
    LOG_D("confd", "round", "changed_keys=%zu rendered=%zu of=%zu took_us=%lld", c->changes.keys.n,
          n, c->resources.n, (long long)((clock_ns() - now) / 1000));
    kv_changes_reset(&c->changes);
}

/* ---- watching ---- */

static void plan_retry(struct confd *c) {
    int64_t next = 0;
    for (size_t i = 0; i < c->resources.n; i++) {
        int64_t at = c->resources.p[i]->retry_at_ns;
        next = at && (!next || at < next) ? at : next;
    }
    if (c->is_stale) { /* the backend could not be read */
        int64_t at = clock_ns() + c->retry_ms * 1000000;
        next = !next || at < next ? at : next;
    }
    if (next) {
        int64_t ms = (next - clock_ns()) / 1000000 + 1;
        loop_timer_start(c->retry, ms > 1 ? ms : 1, 0);
    }
}

static void lost(struct confd *c, const char *why) {
    if (!c->is_lost) {
        LOG_E("confd", "backend_lost", "backend=%s error=\"%s\"", c->ops->name, why);
    }
    c->is_lost = true;
}

static void working(struct confd *c) {
    if (c->is_lost) {
        LOG_I("confd", "backend_back", "backend=%s", c->ops->name);
    }
    c->is_lost = false;
}

static void round_now(void *arg) {
    struct confd *c = arg;
    struct err e = {0};
    c->pending_since_ns = 0;
    if (c->is_stale) {
        if (read_backend(c, &e) < 0) {
            lost(c, e.msg);
            c->retry_ms = c->retry_ms ? c->retry_ms * 2 : RETRY_MIN_MS;
            c->retry_ms = c->retry_ms > RETRY_MAX_MS ? RETRY_MAX_MS : c->retry_ms;
        } else {
            working(c);
            c->is_stale = false;
            c->has_snapshot = true;
            c->retry_ms = 0;
        }
    }
    if (c->has_snapshot) {
        process_concerned(c);
    }
    c->last_round_ns = clock_ns();
    plan_retry(c);
}

/* A round soon: at once after quiet times, else when the changes pause; if they never do, when the
 * first of them has waited long enough. */
static void ask_round(struct confd *c) {
    int64_t now = clock_ns();
    bool is_burst = c->last_round_ns && now - c->last_round_ns < (int64_t)BURST_MAX_MS * 1000000;
    int64_t pause = is_burst ? BURST_MS : SETTLE_MS;
    if (!c->pending_since_ns) {
        c->pending_since_ns = now;
    }
    int64_t left = (is_burst ? BURST_MAX_MS : BURST_MS) - (now - c->pending_since_ns) / 1000000;
    int64_t ms = left < 0 ? 0 : left < pause ? left : pause;
    loop_timer_start(c->settle, ms, 0);
}

static void on_stale(void *arg) {
    struct confd *c = arg;
    c->is_stale = true;
    ask_round(c);
}

static void on_snapshot(void *arg, struct kv *fresh) {
    struct confd *c = arg;
    kv_replace(&c->kv, fresh, &c->changes);
    c->has_snapshot = true;
    c->is_stale = false;
    working(c);
    ask_round(c);
}

static void on_change(void *arg, struct str key, struct str value) {
    struct confd *c = arg;
    size_t n = c->changes.keys.n;
    if (!kv_set(&c->kv, key, value, &c->changes)) {
        LOG_E("confd", "key_too_big", "key=%s bytes=%zu", log_quote(key), value.n);
    }
    if (c->changes.keys.n > n) {
        ask_round(c);
    }
}

static void on_lost(void *arg, const char *why) {
    lost(arg, why);
}

static const struct backend_events events = {
    .stale = on_stale, .snapshot = on_snapshot, .change = on_change, .lost = on_lost};

static int start_watch(struct confd *c, struct err *e) {
    int r = open_backend(c, e);
    if (r == 0 && c->ops->watch) {
        r = c->ops->watch(c->backend, c->loop, &events, c, e);
    } else if (r == 0) {
        LOG_W("confd", "no_changes", "backend=%s state=\"tells no changes: rendered once\"",
              c->ops->name);
        on_stale(c);
    }
    return r;
}

/* SIGHUP: resources and templates anew. A bad one is said, and the old ones stay. */
static void on_hup(void *arg, unsigned ev MG_UNUSED) {
    struct confd *c = arg;
    struct signalfd_siginfo si;
    struct err e = {0};
    (void)!read(c->hup_fd, &si, sizeof(si));
    LOG_I("confd", "reload", "why=SIGHUP");
    if (!c->o->watch) {
        loop_timer_start(c->interval, 1, c->o->interval_s * 1000);
        return;
    }
    if (load(c, &e) < 0) {
        LOG_E("confd", "reload_failed", "error=\"%s\"", e.msg);
        return;
    }
    c->has_snapshot = false;
    if (start_watch(c, &e) < 0) {
        LOG_E("confd", "reload_failed", "error=\"%s\"", e.msg);
        c->exit_code = 1;
        loop_stop(c->loop);
    }
}

static void on_stop(void *arg, unsigned ev MG_UNUSED) {
    struct confd *c = arg;
    LOG_I("confd", "stop", "why=signal");
    loop_stop(c->loop);
}

static void on_interval(void *arg) {
    struct confd *c = arg;
    struct err e = {0};
    if (load(c, &e) < 0) {
        LOG_E("confd", "resources", "error=\"%s\"", e.msg);
        c->exit_code = 1;
        loop_stop(c->loop);
        return;
    }
    if (open_backend(c, &e) < 0 || read_backend(c, &e) < 0) {
        lost(c, e.msg);
        return;
    }
    working(c);
    (void)process_all(c);
    kv_changes_reset(&c->changes);
}

/* ---- the three ways ---- */

static int run_once(struct confd *c, struct err *e) {
    int r = open_backend(c, e);
    if (r == 0) {
        r = read_backend(c, e);
    }
    if (r < 0) {
        return r;
    }
    if (process_all(c) < 0) {
        c->exit_code = 1; /* each was logged */
    }
    return 0;
}

static int run_loop(struct confd *c, struct err *e) {
    c->loop = loop_new();
    struct loop_poll *stop = loop_poll_new(c->loop, c->stop_fd, LOOP_READ, on_stop, c);
    struct loop_poll *hup = loop_poll_new(c->loop, c->hup_fd, LOOP_READ, on_hup, c);
    c->settle = loop_timer_new(c->loop, round_now, c);
    c->retry = loop_timer_new(c->loop, round_now, c);
    c->interval = loop_timer_new(c->loop, on_interval, c);
    int r = 0;
    if (c->o->watch) {
        r = start_watch(c, e);
    } else {
        loop_timer_start(c->interval, 0, c->o->interval_s * 1000);
    }
    if (r == 0) {
        loop_run(c->loop);
    }
    if (c->backend) {
        c->ops->close(c->backend);
        c->backend = NULL;
    }
    loop_timer_free(c->settle);
    loop_timer_free(c->retry);
    loop_timer_free(c->interval);
    loop_poll_free(hup);
    loop_poll_free(stop);
    loop_free(c->loop);
    return r;
}

static int signal_fd(const int *signals, size_t n) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < n; i++) {
        sigaddset(&set, signals[i]);
    }
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int confd_run(struct confd_options *o, struct arena *a) {
    struct confd c = {.o = o, .node_name = confd_node_name(o, a)};
    struct err e = {0};
    o->interval_s = o->interval_s < 1 ? 1 : o->interval_s; /* never hot */
    (void)setenv("NODENAME", c.node_name, 0);              /* templates of Calico's ask for it */
    c.stop_fd = signal_fd((const int[]){SIGTERM, SIGINT}, 2);
    c.hup_fd = signal_fd((const int[]){SIGHUP}, 1);
    c.ops = backend_find(o, &e);
    int r = c.ops ? backend_nodes(o, a, &e) : ERR_INVALID;
    if (r == 0) {
        r = load(&c, &e);
    }
    if (r == 0) {
        r = o->onetime ? run_once(&c, &e) : run_loop(&c, &e);
    }
    if (r < 0) {
        LOG_E("confd", "failed", "error=\"%s\"", e.msg);
    }
    if (c.backend) {
        c.ops->close(c.backend);
    }
    resources_free(&c.resources);
    kv_fini(&c.kv);
    kv_changes_fini(&c.changes);
    arena_fini(&c.prefixes_arena);
    fd_close(&c.stop_fd);
    fd_close(&c.hup_fd);
    return r < 0 ? 1 : c.exit_code;
}
