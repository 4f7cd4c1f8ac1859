/* What a reflector does next: list, watch, wait. Transitions are in go(), on_list_end() and
 * on_watch_end(); what is read is in kube_items.c, the questions of somebody who waits in
 * kube_ask.c.
 *
 * A snapshot is never taken from a server that is behind what was told: the first list may come
 * from a server's memory (resourceVersion=0), each later one asks for "not older than", and where
 * that is refused for the quorum's state. A watch goes on from the last revision that was seen,
 * events and bookmarks alike. */
#include "store/kube_reflect.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BACKOFF_FIRST_MS = 200,
    BACKOFF_MAX_MS = 10000,
    LOST_FIRST_MS = 100,
    LOST_MAX_MS = 5000,
    ABSENT_MS = 30 * 60 * 1000, /* a kind of others that the server lacks is looked for again */
    ABSENT_OURS_MS = 60 * 1000, /* one of ours */
    WATCH_MIN_S = 300,          /* and up to as much again */
    WATCH_SHORT_NS = 1000000000,
    STUCK_MAX = 5, /* failures at one position before it is given up */
    DOWN_AFTER = 2 /* failures in a row before it is said */
};

#define SECOND_NS INT64_C(1000000000)

/* ---- life of a source ---- */

void kube_source_enter(struct kube_source *s) {
    s->depth++;
}

static void destroy(struct kube_source *s) {
    for (size_t i = 0; i < s->n; i++) {
        struct kube_reflect *r = &s->reflectors[i];
        kube_split_fini(&r->main.split);
        kube_split_fini(&r->ask.split);
        buf_fini(&r->main.error);
        buf_fini(&r->ask.error);
        free(r->main.token);
        free(r->ask.token);
    }
    free(s->reflectors);
    kube_shared_unref(s->shared);
    free(s->owner);
}

void kube_source_leave(struct kube_source *s) {
    if (--s->depth == 0 && s->is_dead) {
        destroy(s);
    }
}

void kube_source_init(struct kube_source *s, struct loop *l, struct kube_shared *shared,
                      const struct kube_source_ops *ops, void *owner) {
    *s = (struct kube_source){.loop = l, .shared = shared, .ops = ops, .owner = owner};
    shared->n_refs++;
    kube_conn_init(&s->conn, l, &shared->cfg);
}

void kube_source_add(struct kube_source *s, const struct kube_view *v) {
    for (size_t i = 0; i < s->n; i++) {
        struct kube_reflect *r = &s->reflectors[i];
        if (r->rest != v->rest || r->n_views == ARRAY_LEN(r->views)) {
            continue;
        }
        bool is_first = v->shape != KUBE_PLAIN;
        r->views[1] = is_first ? r->views[0] : v;
        r->views[0] = is_first ? v : r->views[0];
        r->n_views = 2;
        return;
    }
    s->reflectors = realloc(s->reflectors, (s->n + 1) * sizeof(*s->reflectors));
    mg_assert(s->reflectors != NULL);
    s->reflectors[s->n++] = (struct kube_reflect){.rest = v->rest, .views = {v}, .n_views = 1};
}

void kube_fetch_stop(struct kube_fetch *f) {
    http_call_free(f->call);
    f->call = NULL;
    free(f->token);
    f->token = NULL;
}

void kube_source_end(struct kube_source *s) {
    if (s->is_dead) {
        return;
    }
    kube_source_enter(s);
    s->is_dead = true;
    for (size_t i = 0; i < s->n; i++) {
        struct kube_reflect *r = &s->reflectors[i];
        kube_fetch_stop(&r->main);
        kube_fetch_stop(&r->ask);
        loop_timer_free(r->timer);
        loop_timer_free(r->settle);
        r->timer = r->settle = NULL;
        r->phase = KUBE_REST;
    }
    kube_conn_fini(&s->conn);
    kube_source_leave(s);
}

/* ---- waiting ---- */

static int64_t jittered(int64_t ms) {
    uint64_t x = hash_u64((uint64_t)clock_ns() ^ (uint64_t)(uintptr_t)&x);
    return ms / 2 + (int64_t)(x % (uint64_t)(ms + 1)); /* half to one and a half */
}

static void wait_ms(struct kube_reflect *r, int64_t ms) {
    r->phase = KUBE_WAIT;
    loop_timer_start(r->timer, ms, 0);
}

static void set_down(struct kube_reflect *r, bool is_down, const char *why) {
    if (r->is_down != is_down) {
        r->is_down = is_down;
        (void)snprintf(r->why, sizeof(r->why), "%s", why);
        r->src->ops->on_state(r->src->owner, r, r->why);
    }
}

/* It didn't work: again later, the later the more often it happened. */
static void fail(struct kube_reflect *r, int64_t at_least_ms, const char *why) {
    int64_t ms = BACKOFF_FIRST_MS;
    for (unsigned i = 0; i < r->n_failed && ms < BACKOFF_MAX_MS; i++) {
        ms *= 2;
    }
    ms = jittered(ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms);
    ms = ms < at_least_ms ? at_least_ms + ms / 4 : ms;
    r->n_failed++;
    LOG_D("store", "kube_failed", "resource=%s position=%" PRIu64 " retry_ms=%lld why=%s",
          r->rest->plural, r->pos, (long long)ms, log_quote(str_c(why)));
    wait_ms(r, ms);
    if (r->n_failed >= DOWN_AFTER || !r->is_listed) {
        set_down(r, true, why);
    }
}

/* No connection, or lost: that is the same for all reflectors, so they try again together. */
static void fail_lost(struct kube_reflect *r, const char *why) {
    struct kube_source *s = r->src;
    int64_t now = clock_ns();
    if (now >= s->retry_ns) {
        int64_t ms = LOST_FIRST_MS;
        for (unsigned i = 0; i < s->n_lost && ms < LOST_MAX_MS; i++) {
            ms *= 2;
        }
        s->n_lost++;
        ms = ms > LOST_MAX_MS ? LOST_MAX_MS : ms;
        s->retry_ns = now + jittered(ms * 2 / 3) * 1000000; /* a third to the whole */
        LOG_D("store", "kube_lost", "n=%u retry_ms=%lld why=%s", s->n_lost,
              (long long)((s->retry_ns - now) / 1000000), log_quote(str_c(why)));
    }
    wait_ms(r, (s->retry_ns - now) / 1000000 + 1);
    if (++r->n_lost >= DOWN_AFTER || !r->is_listed) {
        set_down(r, true, why);
    }
}

/* ---- credentials ---- */

struct auth_job {
    struct kube_source *s;
    struct kube_auth auth;
    int code;
    struct err e;
};

static void auth_work(void *arg) {
    struct auth_job *j = arg;
    j->code = kube_auth_fetch(&j->s->shared->cfg, &j->auth, &j->e);
}

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void use_auth(struct auth_job *j) {
    struct kube_source *s = j->s;
    bool is_new_cert = !same_text(s->conn.auth.cert_pem, j->auth.cert_pem);
    for (size_t i = 0; is_new_cert && i < s->n; i++) { /* another identity: another connection */
        struct kube_reflect *r = &s->reflectors[i];
        kube_reflect_asked_stop(r);
        kube_fetch_stop(&r->main);
        r->phase = r->phase == KUBE_WAIT || r->phase == KUBE_REST ? r->phase : KUBE_AUTH;
    }
    if (j->code == 0) {
        j->code = kube_conn_use(&s->conn, &j->auth, &j->e);
    }
    for (size_t i = 0; i < s->n && !s->is_dead; i++) {
        struct kube_reflect *r = &s->reflectors[i];
        if (r->phase == KUBE_AUTH && j->code < 0) {
            fail(r, 0, j->e.msg);
        } else if (r->phase == KUBE_AUTH) {
            kube_reflect_go(r);
        }
    }
}

static void auth_done(void *arg) {
    struct auth_job *j = arg;
    struct kube_source *s = j->s;
    s->is_fetching = false;
    if (!s->is_dead) {
        use_auth(j);
    }
    kube_auth_fini(&j->auth);
    free(j);
    kube_source_leave(s);
}

/* True: go on. Else the reflector waits for a credential. */
static bool has_auth(struct kube_reflect *r) {
    struct kube_source *s = r->src;
    bool is_fresh = s->conn.client && kube_auth_is_fresh(&s->conn.auth, kube_now_s());
    if (is_fresh && !r->was_refused) {
        return true;
    }
    if (is_fresh && s->conn.auth.good_until_s == INT64_MAX) {
        r->was_refused = false; /* there is no other to be had */
        return true;
    }
    r->was_refused = false;
    r->phase = KUBE_AUTH;
    if (!s->is_fetching) {
        struct auth_job *j = calloc(1, sizeof(*j));
        mg_assert(j != NULL);
        j->s = s;
        s->is_fetching = true;
        kube_source_enter(s);
        loop_work(s->loop, auth_work, auth_done, j);
    }
    return false;
}

/* ---- calls ---- */

int kube_fetch_start(struct kube_fetch *f, struct str path, int64_t timeout_ms,
                     const struct http_call_ops *ops, struct err *e) {
    static const struct kube_split_ops split = {.on_object = kube_reflect_object,
                                                .on_meta = kube_reflect_meta};
    struct http_header h[KUBE_HEADERS];
    struct kube_conn *c = &f->r->src->conn;
    struct http_request q = {.method = "GET",
                             .path = path,
                             .headers = h,
                             .n_headers = kube_headers(c, NULL, h),
                             .timeout_ms = timeout_ms};
    mg_assert(f->call == NULL);
    kube_split_fini(&f->split);
    kube_split_init(&f->split, !f->is_list, f->r->rest->kind, &split, f);
    f->error.max = KUBE_STATUS_MAX;
    buf_reset(&f->error);
    free(f->token);
    f->token = NULL;
    f->is_failing = false;
    f->status = f->code = 0;
    f->e.msg[0] = '\0';
    return http_call_new(c->client, &q, ops, f, &f->call, e);
}

void kube_fetch_head(struct kube_fetch *f, int status, const struct http_header *h, size_t n) {
    f->status = status;
    f->is_failing = status != 200;
    f->retry_ms = kube_retry_after_ms(h, n, 0);
}

void kube_fetch_data(struct kube_fetch *f, struct str chunk) {
    if (f->is_failing || f->is_raw) {
        buf_str(&f->error, chunk);
    } else if (f->code == 0) {
        f->code = kube_split_feed(&f->split, chunk);
        if (f->code == -EPROTO && !f->e.msg[0]) {
            (void)err_set(&f->e, -EPROTO, "API server: %s: its answer is not what was asked for",
                          f->r->rest->plural);
        } else if (f->code == ERR_TOO_BIG) {
            (void)err_set(&f->e, ERR_TOO_BIG, "API server: %s: an object of more than %d bytes",
                          f->r->rest->plural, KUBE_OBJECT_MAX);
        }
    }
}

struct str kube_reflect_path(const struct kube_reflect *r, struct arena *a) {
    return kube_path(r->rest, r->use_old, STR_NULL, STR_NULL, NULL, a);
}

static void on_head(void *arg, int status, const struct http_header *h, size_t n) {
    struct kube_fetch *f = arg;
    struct kube_reflect *r = f->r;
    kube_source_enter(r->src);
    kube_fetch_head(f, status, h, n);
    r->n_missing = status == 200 ? 0 : r->n_missing;
    r->n_lost = r->src->n_lost = 0;
    if (status == 200 && r->phase == KUBE_LIST && !r->is_snapshot) {
        kube_reflect_begin_snapshot(r);
    } else if (status == 200 && r->phase == KUBE_WATCH) {
        set_down(r, false, "");
    }
    kube_source_leave(r->src);
}

static void on_main_end(struct kube_reflect *r, int code, const char *reason);

static void on_data(void *arg, struct str chunk) {
    struct kube_fetch *f = arg;
    struct kube_source *s = f->r->src;
    kube_source_enter(s);
    f->r->heard_ns = clock_ns();
    kube_fetch_data(f, chunk);
    if (!s->is_dead && f->code < 0) {
        http_call_free(TAKE_PTR(f->call));
        on_main_end(f->r, f->code, f->e.msg);
    } else if (!s->is_dead && f->r->phase == KUBE_WATCH) {
        kube_reflect_progress(f->r, f->r->pos);
    }
    kube_source_leave(s);
}

static void on_end(void *arg, const struct http_end *end) {
    struct kube_fetch *f = arg;
    struct kube_source *s = f->r->src;
    char reason[512];
    kube_source_enter(s);
    (void)snprintf(reason, sizeof(reason), "%s", end->reason);
    http_call_free(TAKE_PTR(f->call));
    on_main_end(f->r, end->code, reason);
    kube_source_leave(s);
}

static const struct http_call_ops main_ops = {
    .on_head = on_head, .on_data = on_data, .on_end = on_end};

static void start_call(struct kube_reflect *r, struct str path, int64_t timeout_ms) {
    struct err e = {0};
    if (kube_fetch_start(&r->main, path, timeout_ms, &main_ops, &e) < 0) {
        fail(r, 0, e.msg);
    }
}

static void start_list(struct kube_reflect *r, const char *token) {
    struct arena a = {0};
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
    buf_str(&b, kube_reflect_path(r, &a));
    buf_printf(&b, "?limit=%d", KUBE_PAGE);
    if (token) {
        buf_puts(&b, "&continue=");
        kube_escape(&b, str_c(token));
    } else if (!r->is_quorum && r->pos) {
        buf_printf(&b, "&resourceVersion=%" PRIu64 "&resourceVersionMatch=NotOlderThan", r->pos);
    } else if (!r->is_quorum) {
        buf_puts(&b, "&resourceVersion=0");
    }
    if (!token) {
        r->is_snapshot = false;
        r->main.list_revision = 0;
        r->main.n_objects = 0;
    }
    r->phase = KUBE_LIST;
    r->main.is_list = true;
    r->main.is_raw = false;
    start_call(r, buf_view(&b), KUBE_LIST_MS);
    arena_fini(&a);
}

static void start_watch(struct kube_reflect *r) {
    struct arena a = {0};
    int64_t s = WATCH_MIN_S / 2 + jittered(WATCH_MIN_S);
    struct str path = arena_printf(
        &a,
        "%.*s?watch=true&allowWatchBookmarks=true&resourceVersion=%" PRIu64 "&timeoutSeconds=%lld",
        STR_FMT(kube_reflect_path(r, &a)), r->pos, (long long)s);
    r->phase = KUBE_WATCH;
    r->main.is_list = r->main.is_raw = false;
    r->watch_since_ns = clock_ns();
    start_call(r, path, (s + 30) * 1000);
    arena_fini(&a);
}

static void start_discovery(struct kube_reflect *r) {
    struct arena a = {0};
    r->phase = KUBE_DISCOVER;
    r->main.is_list = r->main.is_raw = true;
    start_call(r, arena_printf(&a, "/apis/%s/%s", r->rest->group, r->rest->version), KUBE_CALL_MS);
    arena_fini(&a);
}

void kube_reflect_go(struct kube_reflect *r) {
    if (r->src->is_dead || r->phase == KUBE_REST || !has_auth(r)) {
        return;
    }
    if (r->needs_list) {
        start_list(r, NULL);
    } else {
        start_watch(r);
    }
}

static void on_timer(void *arg) {
    struct kube_reflect *r = arg;
    kube_source_enter(r->src);
    kube_reflect_go(r);
    kube_source_leave(r->src);
}

/* The position is no good any more. */
static void lose_position(struct kube_reflect *r, bool is_quorum) {
    if (!r->src->may_list) {
        r->phase = KUBE_REST;
        r->src->ops->on_gone(r->src->owner, ERR_GONE);
        return;
    }
    r->needs_list = true;
    r->is_quorum = r->is_quorum || is_quorum;
    kube_reflect_go(r);
}

/* ---- how calls end ---- */

/* A server that has just started may say 404 of kinds that it has and doesn't serve yet: what was
 * there before must be missing for a minute, one of Calico's at our start three times. */
static bool is_surely_absent(struct kube_reflect *r) {
    int64_t now = clock_ns();
    if (r->n_missing++ == 0) {
        r->missing_since_ns = now;
    }
    if (r->is_absent || r->rest->is_optional) {
        return true;
    }
    return r->is_listed ? r->n_missing >= 5 && now - r->missing_since_ns >= 60 * SECOND_NS
                        : r->n_missing >= 3;
}

/* The server doesn't have the kind: as good as an empty list, and looked for again later. */
static void set_absent(struct kube_reflect *r) {
    LOG_D("store", "kube_absent", "resource=%s.%s", r->rest->plural, r->rest->group);
    r->n_failed = 0;
    if (!r->is_absent || !r->is_listed) {
        kube_reflect_begin_snapshot(r);
        if (!r->src->is_dead) {
            kube_reflect_end_snapshot(r, r->pos);
        }
    }
    r->is_absent = true;
    r->absent_ns = clock_ns();
    if (!r->src->is_dead) {
        kube_reflect_progress(r, r->src->newest);
    }
    if (!r->src->is_dead) {
        set_down(r, false, "");
    }
    if (!r->src->is_dead) {
        wait_ms(r, jittered(r->rest->is_optional ? ABSENT_MS : ABSENT_OURS_MS));
    }
}

/* An answer that is an error's. */
static void on_refused(struct kube_reflect *r) {
    struct kube_fetch *f = &r->main;
    struct kube_subject sub = {r->phase == KUBE_WATCH ? "watch" : "list", r->rest, NULL, STR_NULL,
                               STR_NULL};
    struct err e = {0};
    struct str body = buf_view(&f->error);
    int code = kube_status_error(&sub, f->status, body, &e);
    bool is_too_new = str_contains(body, STR("Too large resource version")) ||
                      str_contains(body, STR("ResourceVersionTooLarge"));
    if (f->status == 401 && r->n_failed == 0) {
        r->was_refused = true;
        r->n_failed++;
        kube_reflect_go(r);
        return;
    }
    r->was_refused = f->status == 401;
    if (code == ERR_GONE || is_too_new) { /* at once, but not for ever */
        r->n_failed++;
        if (r->n_failed > 1 && r->src->may_list) {
            r->needs_list = r->is_quorum = true;
            fail(r, 0, e.msg);
        } else {
            lose_position(r, is_too_new || r->phase == KUBE_LIST);
        }
    } else if (f->status == 404 && r->rest->old_version && !r->use_old) {
        r->use_old = true;
        kube_reflect_go(r);
    } else if (f->status == 404 && r->src->may_list && is_surely_absent(r)) {
        r->needs_list = true;
        set_absent(r);
    } else if (f->status == 403 && r->rest->is_optional) {
        start_discovery(r); /* rights are judged before the kind is looked for */
    } else {
        fail(r, f->retry_ms, e.msg);
    }
}

static void on_discovered(struct kube_reflect *r) {
    struct arena a = {0};
    struct str word = arena_printf(&a, "\"name\":\"%s\"", r->rest->plural);
    bool is_there = r->main.status == 200 && str_contains(buf_view(&r->main.error), word);
    if (is_there || (r->main.status != 200 && r->main.status != 404)) {
        fail(r, 0,
             arena_printf(&a, "API server: no right to list %s.%s", r->rest->plural, r->rest->group)
                 .p);
    } else {
        set_absent(r);
    }
    arena_fini(&a);
}

static void on_list_end(struct kube_reflect *r) {
    struct kube_fetch *f = &r->main;
    if (!kube_split_is_whole(&f->split) || f->list_revision == 0) {
        fail(r, 0, "API server: a list ends in the middle");
        return;
    }
    if (f->token) {
        char *token = TAKE_PTR(f->token);
        start_list(r, token);
        free(token);
        return;
    }
    if (f->list_revision < r->pos && !r->is_quorum) {
        r->is_quorum = true;
        fail(r, 0, "API server: its list is older than what was seen");
        return;
    }
    if (f->list_revision < r->pos) {
        LOG_W("store", "kube_back", "resource=%s seen=%" PRIu64 " now=%" PRIu64, r->rest->plural,
              r->pos, f->list_revision);
    }
    r->pos = r->base = f->list_revision;
    kube_source_saw(r->src, r->pos);
    r->n_objects = f->n_objects;
    r->needs_list = r->is_quorum = r->is_absent = false;
    r->n_failed = r->n_stuck = 0;
    kube_reflect_end_snapshot(r, r->pos);
    if (!r->src->is_dead) {
        kube_reflect_go(r);
    }
}

static void on_watch_end(struct kube_reflect *r, int code, const char *reason) {
    bool is_short = clock_ns() - r->watch_since_ns < WATCH_SHORT_NS;
    bool is_half = !kube_split_is_whole(&r->main.split);
    if (code == ERR_GONE) {
        lose_position(r, false);
        return;
    }
    if (code == 0 && !is_half && !is_short) { /* its time was over */
        r->n_failed = r->n_stuck = 0;
        kube_reflect_go(r);
        return;
    }
    if (code == ERR_UNAVAILABLE) {
        fail_lost(r, reason);
        return;
    }
    r->n_stuck = r->stuck_at == r->pos ? r->n_stuck + 1 : 0;
    r->stuck_at = r->pos;
    if (!is_short) {
        r->n_failed = 0;
    }
    if (r->n_stuck >= STUCK_MAX && r->src->may_list) {
        r->needs_list = true;
        r->n_stuck = 0;
    }
    fail(r, 0, code < 0 ? reason : "API server: a watch ended early");
}

static void on_main_end(struct kube_reflect *r, int code, const char *reason) {
    kube_reflect_asked_stop(r);
    if (r->src->is_dead || r->phase == KUBE_REST) {
        return;
    }
    if (r->phase == KUBE_DISCOVER && code == 0) {
        on_discovered(r);
    } else if (code == 0 && r->main.is_failing) {
        on_refused(r);
    } else if (r->phase == KUBE_WATCH) {
        on_watch_end(r, code, reason);
    } else if (code == ERR_UNAVAILABLE) {
        fail_lost(r, reason);
    } else if (code < 0) {
        fail(r, 0, reason);
    } else {
        on_list_end(r);
    }
}

void kube_source_start(struct kube_source *s, uint64_t position) {
    kube_source_enter(s);
    for (size_t i = 0; i < s->n; i++) {
        struct kube_reflect *r = &s->reflectors[i];
        r->src = s;
        r->main.r = r->ask.r = r;
        r->timer = loop_timer_new(s->loop, on_timer, r);
        r->needs_list = s->may_list;
        r->pos = s->may_list ? 0 : position;
        wait_ms(r, 0);
    }
    kube_source_leave(s);
}
