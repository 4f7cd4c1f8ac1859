/* Reports to CalicoNodeStatus resources. See nodestatus.h. */
#include "bgp/nodestatus.h"

#include "base/hash.h"
#include "base/log.h"
#include "bgp/ctl.h"
#include "store/worker.h"

#include <stdlib.h>

enum {
    FIRST_MS = 100,
    RETRY_MS = 1000,
    REPORT_MAX = 1 << 20, /* a resource can't hold more than twice that */
    CLASSES_MAX = 64,     /* bytes of "Agent,BGP,Routes" */
};

struct status {
    struct node_statuses *all;
    struct str key; /* owned */
    char classes[CLASSES_MAX];
    int64_t period_s; /* 0: once */
    struct loop_timer *timer;
};

#define MAP_NAME status_map
#define MAP_KEY struct str
#define MAP_VAL struct status *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct node_statuses {
    struct loop *loop;
    struct bgp_proc *proc;
    const char *url, *node_name;
    struct store *store;
    struct store_worker *worker;
    struct status_map map;
    struct log_limit limit;
};

/* One write: key and report are copies, so that the resource may go meanwhile. */
struct job {
    struct node_statuses *all;
    struct arena a;
    struct str key, report;
    int result;
    struct err e;
};

/* ---- writing ---- */

static int write_status(struct store *st, struct job *j) {
    struct store_key key = {STR(STORE_SPACE_RESOURCES), j->key};
    struct store_item it;
    struct jnode *doc = NULL, *report = NULL;
    int r = store_get(st, key, &j->a, &it, &j->e);
    r = r < 0 ? r : json_parse(it.value, &json_limits_default, &j->a, &doc, &j->e);
    r = r < 0 ? r : json_parse(j->report, &json_limits_default, &j->a, &report, &j->e);
    if (r < 0) {
        return r;
    }
    MG_CLEANUP(buf_fini) struct buf text = BUF_INIT(STORE_VALUE_MAX);
    jnode_set(&j->a, doc, STR("status"), report);
    json_write(&text, doc, 0);
    if (text.overflow) {
        return err_set(&j->e, ERR_TOO_BIG, "%.*s: the report does not fit", STR_FMT(j->key));
    }
    return store_put(st, key, buf_view(&text), it.revision, NULL, &j->e);
}

static void work(struct store *st, void *arg) {
    struct job *j = arg;
    j->result = write_status(st, j);
}

static void done(void *arg, int code) {
    struct job *j = arg;
    struct node_statuses *s = j->all;
    int r = code < 0 ? code : j->result;
    struct status **x = code < 0 ? NULL : status_map_get(&s->map, j->key);
    if (r < 0 && code == 0 && r != ERR_NOT_FOUND) {
        if (r != ERR_CONFLICT && log_allow(&s->limit, 3, 60)) {
            LOG_W("bgp", "node_status_failed", "key=%s error=%s", log_quote(j->key),
                  log_quote(str_c(j->e.msg)));
        }
        if (x) { /* somebody wrote at the same time, or the store was away */
            loop_timer_start((*x)->timer, RETRY_MS, 0);
        }
    }
    struct arena a = j->a; /* j lives in it */
    arena_fini(&a);
}

static bool has_store(struct node_statuses *s) {
    struct err e;
    if (!s->store && store_open(s->url, &s->store, &e) < 0) {
        if (log_allow(&s->limit, 3, 60)) {
            LOG_W("bgp", "node_status_failed", "error=%s", log_quote(str_c(e.msg)));
        }
        return false;
    }
    s->worker = s->worker ? s->worker : store_worker_new(s->loop, s->store);
    return true;
}

static void on_timer(void *arg) {
    struct status *x = arg;
    struct node_statuses *s = x->all;
    if (!bgp_proc_speaker(s->proc) || !has_store(s)) {
        loop_timer_start(x->timer, RETRY_MS, 0);
        return;
    }
    MG_CLEANUP(buf_fini) struct buf report = BUF_INIT(REPORT_MAX);
    bgp_report_node_status(s->proc, loop_now_ns(s->loop), str_c(x->classes), &report);
    if (x->period_s) {
        loop_timer_start(x->timer, x->period_s * 1000, 0);
    }
    if (report.overflow) {
        LOG_W("bgp", "node_status_failed", "key=%s error=\"the report is too long\"",
              log_quote(x->key));
        return;
    }
    struct arena a = {0};
    struct job *j = arena_new(&a, struct job);
    j->all = s;
    j->a = a;
    j->key = arena_dup(&j->a, x->key);
    j->report = arena_dup(&j->a, buf_view(&report));
    store_worker_run(s->worker, work, done, j);
}

/* ---- what is asked for ---- */

static void status_free(struct status *x) {
    loop_timer_free(x->timer);
    free((char *)(uintptr_t)x->key.p);
    free(x);
}

static void forget(struct node_statuses *s, struct str key) {
    struct status **x = status_map_get(&s->map, key);
    if (x) {
        struct status *old = *x;
        (void)status_map_del(&s->map, key);
        status_free(old);
    }
}

/* "Agent,BGP" of the list; false: none of the three. */
static bool read_classes(const struct jnode *list, char *out) {
    struct buf b = BUF_INIT(CLASSES_MAX - 1);
    jnode_each (it, list) {
        buf_printf(&b, "%s%.*s", b.n ? "," : "", STR_FMT(jnode_str(it)));
    }
    bool ok = b.n && !b.overflow;
    if (ok) {
        memcpy(out, b.p, b.n);
        out[b.n] = '\0';
    }
    buf_fini(&b);
    return ok;
}

void node_statuses_see(struct node_statuses *s, struct str key, const struct jnode *doc) {
    const struct jnode *spec = doc ? jnode_getc(doc, "spec") : NULL;
    const struct jnode *period = spec ? jnode_getc(spec, "updatePeriodSeconds") : NULL;
    char classes[CLASSES_MAX];
    if (!spec || !str_is(jnode_str(jnode_getc(spec, "node")), s->node_name) ||
        !read_classes(jnode_getc(spec, "classes"), classes)) {
        forget(s, key);
        return;
    }
    int64_t period_s = period && period->type == J_INT && period->i > 0 ? period->i : 0;
    struct status **known = status_map_get(&s->map, key), *x = known ? *known : NULL;
    if (x && x->period_s == period_s && strcmp(x->classes, classes) == 0) {
        return; /* our own report came back */
    }
    if (!x) {
        x = calloc(1, sizeof(*x));
        char *own = strndup(key.p, key.n);
        mg_assert(x && own);
        x->all = s;
        x->key = str_c(own);
        x->timer = loop_timer_new(s->loop, on_timer, x);
        *status_map_put(&s->map, x->key, NULL) = x;
    }
    x->period_s = period_s;
    memcpy(x->classes, classes, sizeof(classes));
    loop_timer_start(x->timer, FIRST_MS, 0);
}

/* ---- life ---- */

struct node_statuses *node_statuses_new(struct loop *l, struct bgp_proc *p, const char *url,
                                        const char *node_name) {
    struct node_statuses *s = calloc(1, sizeof(*s));
    mg_assert(s);
    s->loop = l;
    s->proc = p;
    s->url = url;
    s->node_name = node_name;
    return s;
}

void node_statuses_free(struct node_statuses *s) {
    struct status **x;
    if (!s) {
        return;
    }
    if (s->store) {
        store_interrupt(s->store);
    }
    store_worker_free(s->worker);
    store_close(s->store);
    for (size_t i = 0; status_map_next(&s->map, &i, NULL, &x);) {
        status_free(*x);
    }
    status_map_fini(&s->map);
    free(s);
}
