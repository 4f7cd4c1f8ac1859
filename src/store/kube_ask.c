/* Somebody waits for a write to be followed: how far has a reflector really come?
 *
 * A watch says nothing while nothing changes (bookmarks come once a minute), so silence may mean
 * "nothing new" or "not here yet". What the API offers to tell them apart:
 *
 * - A list without resourceVersion is answered from the quorum, with the store's newest revision R.
 *   If the whole kind fits one page, that list is the answer: it is told as a snapshot at R, and
 *   events up to R that the watch still brings are dropped. This proves the position. The watch is
 *   paused while the page is read, so that no newer event is overtaken by the page.
 * - For larger kinds (pods, mostly) a list of one object gives R alone. Then an event or a bookmark
 *   at R or later proves it; failing these, the watch counts as having come to R when it has been
 *   silent for SETTLE_MS after R was known. This is true as long as the server's watch is less than
 *   that behind its store. The position from which a watch is taken up again is not moved by it.
 *
 * Asking for an object at "not older than R" would wait for the server's cache, but says nothing of
 * what was sent to us, and in Kubernetes before 1.21 fails for kinds that haven't changed lately.
 */
#include "store/kube_reflect.h"

#include "base/clock.h"

#include <stdlib.h>

enum { ASK_EVERY_MS = 1000, ASK_CALL_MS = 5000, SETTLE_MS = 1000, SETTLE_STEP_MS = 100 };

void kube_source_saw(struct kube_source *s, uint64_t revision) {
    if (revision <= s->newest) {
        return;
    }
    s->newest = revision;
    for (size_t i = 0; i < s->n && !s->is_dead; i++) {
        struct kube_reflect *r = &s->reflectors[i];
        bool is_sure = r->is_absent && clock_ns() - r->absent_ns < (int64_t)ASK_EVERY_MS * 2000000;
        if (is_sure) { /* nothing can have been written of a kind that is not there */
            kube_reflect_progress(r, revision);
        }
    }
}

void kube_reflect_asked_stop(struct kube_reflect *r) {
    if (r->ask.call) {
        r->is_snapshot = false;
        kube_fetch_stop(&r->ask);
    }
}

static void start_settle(struct kube_reflect *r, uint64_t revision) {
    r->target = revision;
    r->target_ns = clock_ns();
    loop_timer_start(r->settle, SETTLE_STEP_MS, 0);
}

static void on_ask_head(void *arg, int status, const struct http_header *h, size_t n) {
    struct kube_fetch *f = arg;
    struct kube_reflect *r = f->r;
    kube_source_enter(r->src);
    kube_fetch_head(f, status, h, n);
    if (status == 200 && r->n_objects <= KUBE_PAGE && r->main.call) {
        http_call_pause(r->main.call);
        kube_reflect_begin_snapshot(r);
    }
    kube_source_leave(r->src);
}

static void on_ask_data(void *arg, struct str chunk) {
    struct kube_fetch *f = arg;
    kube_source_enter(f->r->src);
    kube_fetch_data(f, chunk);
    kube_source_leave(f->r->src);
}

/* The page is read. */
static void take_answer(struct kube_reflect *r) {
    struct kube_fetch *f = &r->ask;
    bool is_page = r->is_snapshot;
    r->is_snapshot = false;
    if (f->is_failing || f->code < 0 || !kube_split_is_whole(&f->split) || !f->list_revision) {
        return; /* whoever waits asks again */
    }
    if (is_page && !f->token && f->list_revision >= r->pos) {
        r->pos = r->base = f->list_revision;
        r->n_objects = f->n_objects;
        kube_reflect_end_snapshot(r, r->pos);
    } else if (f->list_revision > r->told) {
        r->n_objects = is_page ? KUBE_PAGE + 1 : r->n_objects;
        start_settle(r, f->list_revision);
    }
    if (!r->src->is_dead) {
        kube_source_saw(r->src, f->list_revision);
    }
}

static void on_ask_end(void *arg, const struct http_end *end) {
    struct kube_fetch *f = arg;
    struct kube_reflect *r = f->r;
    kube_source_enter(r->src);
    if (end->code == 0) {
        take_answer(r);
    }
    if (!r->src->is_dead) {
        r->is_snapshot = false;
        kube_fetch_stop(f);
        if (r->main.call) {
            http_call_resume(r->main.call);
        }
        if (r->wants_ask) {
            r->wants_ask = false;
            kube_reflect_ask(r);
        }
    }
    kube_source_leave(r->src);
}

static void start_ask(struct kube_reflect *r) {
    static const struct http_call_ops ops = {
        .on_head = on_ask_head, .on_data = on_ask_data, .on_end = on_ask_end};
    struct arena a = {0};
    bool is_page = r->n_objects <= KUBE_PAGE;
    struct str path = arena_printf(&a, "%.*s?limit=%d", STR_FMT(kube_reflect_path(r, &a)),
                                   is_page ? KUBE_PAGE : 1);
    r->asked_ns = clock_ns();
    r->ask.is_list = true;
    r->ask.list_revision = 0;
    r->ask.n_objects = 0;
    /* No room for another call: the next question finds some. */
    (void)!kube_fetch_start(&r->ask, path, ASK_CALL_MS, &ops, NULL);
    arena_fini(&a);
}

static void on_settle(void *arg) {
    struct kube_reflect *r = arg;
    int64_t now = clock_ns(), quiet = (int64_t)SETTLE_MS * 1000000;
    kube_source_enter(r->src);
    if (r->target && r->phase == KUBE_WATCH && r->main.status == 200 &&
        now - r->heard_ns >= quiet && now - r->target_ns >= quiet) {
        kube_reflect_progress(r, r->target);
    }
    if (!r->src->is_dead && r->wants_ask && !r->ask.call) {
        r->wants_ask = false;
        kube_reflect_ask(r);
    }
    if (!r->src->is_dead && (r->target || r->wants_ask)) {
        loop_timer_start(r->settle, SETTLE_STEP_MS, 0);
    }
    kube_source_leave(r->src);
}

void kube_reflect_ask(struct kube_reflect *r) {
    int64_t now = clock_ns();
    if (!r->settle) {
        r->settle = loop_timer_new(r->src->loop, on_settle, r);
    }
    if (r->ask.call) {
        r->wants_ask = true;
    } else if (r->asked_ns && now - r->asked_ns < (int64_t)ASK_EVERY_MS * 1000000) {
        r->wants_ask = true;
        loop_timer_start(r->settle, SETTLE_STEP_MS, 0);
    } else if (r->phase == KUBE_WAIT && r->is_absent) {
        r->asked_ns = now;
        loop_timer_stop(r->timer);
        kube_reflect_go(r); /* maybe it has been installed */
    } else if (r->phase == KUBE_WATCH && r->main.status == 200) {
        start_ask(r);
    }
}
