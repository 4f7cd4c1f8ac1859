/* The event loop on libuv. See loop.h. */
#include "base/loop.h"

#include "base/clock.h"

#include <stdlib.h>
#include <uv.h>

struct loop {
    uv_loop_t uv;
    bool stopping;
};

struct loop_poll {
    uv_poll_t h;
    void (*cb)(void *, unsigned);
    void *arg;
    unsigned events; /* LOOP_ bits wanted */
    bool closed;
};

struct loop_timer {
    uv_timer_t h;
    void (*cb)(void *);
    void *arg;
};

struct loop_defer {
    uv_check_t check;
    uv_idle_t idle; /* keeps the loop from blocking while asked */
    void (*cb)(void *);
    void *arg;
    bool asked;
    int open_handles;
};

struct loop_signal {
    uv_signal_t h;
    void (*cb)(void *, int);
    void *arg;
};

struct loop_job {
    uv_work_t h;
    void (*work)(void *);
    void (*done)(void *);
    void *arg;
};

static void *zalloc(size_t n) {
    void *p = calloc(1, n);
    mg_assert(p != NULL);
    return p;
}

struct loop *loop_new(void) {
    struct loop *l = zalloc(sizeof(*l));
    mg_assert(uv_loop_init(&l->uv) == 0);
    return l;
}

static void free_signal(uv_handle_t *h) {
    free(container_of((uv_signal_t *)h, struct loop_signal, h));
}

static void close_left(uv_handle_t *h, void *arg MG_UNUSED) {
    /* Only signals have no free function of their own; everything else is its owner's to close. */
    if (h->type == UV_SIGNAL && !uv_is_closing(h)) {
        uv_close(h, free_signal);
    }
}

void loop_free(struct loop *l) {
    if (!l) {
        return;
    }
    uv_walk(&l->uv, close_left, NULL);
    (void)uv_run(&l->uv, UV_RUN_NOWAIT);
    (void)uv_run(&l->uv, UV_RUN_NOWAIT);
    (void)uv_loop_close(&l->uv);
    free(l);
}

void loop_run(struct loop *l) {
    l->stopping = false;
    while (!l->stopping) {
        (void)uv_run(&l->uv, UV_RUN_ONCE);
    }
}

void loop_stop(struct loop *l) {
    l->stopping = true;
    uv_stop(&l->uv);
}

void loop_step(struct loop *l, bool wait) {
    (void)uv_run(&l->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

int64_t loop_now_ns(struct loop *l MG_UNUSED) {
    return clock_ns();
}

static void on_poll(uv_poll_t *h, int status, int events) {
    struct loop_poll *p = container_of(h, struct loop_poll, h);
    unsigned ev =
        (events & UV_READABLE ? LOOP_READ : 0U) | (events & UV_WRITABLE ? LOOP_WRITE : 0U);
    /* An error on the descriptor shows up as readable: the owner's read will say what it is. */
    if (!p->closed) {
        p->cb(p->arg, status < 0 ? LOOP_READ : ev);
    }
    /* libuv has stopped to watch it. Where the owner goes on (ENOBUFS of netlink is no end), so do
     * we. */
    if (status < 0 && !p->closed) {
        loop_poll_set(p, p->events);
    }
}

static int uv_events(unsigned events) {
    return (events & LOOP_READ ? UV_READABLE : 0) | (events & LOOP_WRITE ? UV_WRITABLE : 0);
}

struct loop_poll *loop_poll_new(struct loop *l, int fd, unsigned events,
                                void (*cb)(void *, unsigned), void *arg) {
    struct loop_poll *p = zalloc(sizeof(*p));
    p->cb = cb;
    p->arg = arg;
    mg_assert(uv_poll_init(&l->uv, &p->h, fd) == 0);
    loop_poll_set(p, events);
    return p;
}

void loop_poll_set(struct loop_poll *p, unsigned events) {
    p->events = events;
    if (events) {
        (void)uv_poll_start(&p->h, uv_events(events), on_poll);
    } else {
        (void)uv_poll_stop(&p->h);
    }
}

static void free_poll(uv_handle_t *h) {
    free(container_of((uv_poll_t *)h, struct loop_poll, h));
}

void loop_poll_free(struct loop_poll *p) {
    if (p) {
        p->closed = true;
        (void)uv_poll_stop(&p->h);
        uv_close((uv_handle_t *)&p->h, free_poll);
    }
}

static void on_timer(uv_timer_t *h) {
    struct loop_timer *t = container_of(h, struct loop_timer, h);
    t->cb(t->arg);
}

struct loop_timer *loop_timer_new(struct loop *l, void (*cb)(void *), void *arg) {
    struct loop_timer *t = zalloc(sizeof(*t));
    t->cb = cb;
    t->arg = arg;
    mg_assert(uv_timer_init(&l->uv, &t->h) == 0);
    return t;
}

void loop_timer_start(struct loop_timer *t, int64_t delay_ms, int64_t repeat_ms) {
    uv_update_time(t->h.loop);
    (void)uv_timer_start(&t->h, on_timer, delay_ms > 0 ? (uint64_t)delay_ms : 0,
                         repeat_ms > 0 ? (uint64_t)repeat_ms : 0);
}

void loop_timer_stop(struct loop_timer *t) {
    (void)uv_timer_stop(&t->h);
}

static void free_timer(uv_handle_t *h) {
    free(container_of((uv_timer_t *)h, struct loop_timer, h));
}

void loop_timer_free(struct loop_timer *t) {
    if (t) {
        (void)uv_timer_stop(&t->h);
        uv_close((uv_handle_t *)&t->h, free_timer);
    }
}

static void on_check(uv_check_t *h) {
    struct loop_defer *d = container_of(h, struct loop_defer, check);
    (void)uv_check_stop(&d->check);
    (void)uv_idle_stop(&d->idle);
    d->asked = false;
    d->cb(d->arg);
}

static void on_idle(uv_idle_t *h MG_UNUSED) {
}

struct loop_defer *loop_defer_new(struct loop *l, void (*cb)(void *), void *arg) {
    struct loop_defer *d = zalloc(sizeof(*d));
    d->cb = cb;
    d->arg = arg;
    d->open_handles = 2;
    (void)uv_check_init(&l->uv, &d->check);
    (void)uv_idle_init(&l->uv, &d->idle);
    return d;
}

void loop_defer_ask(struct loop_defer *d) {
    if (!d->asked) {
        d->asked = true;
        (void)uv_check_start(&d->check, on_check);
        (void)uv_idle_start(&d->idle, on_idle);
    }
}

static void defer_closed(struct loop_defer *d) {
    if (--d->open_handles == 0) {
        free(d);
    }
}
static void free_check(uv_handle_t *h) {
    defer_closed(container_of((uv_check_t *)h, struct loop_defer, check));
}
static void free_idle(uv_handle_t *h) {
    defer_closed(container_of((uv_idle_t *)h, struct loop_defer, idle));
}

void loop_defer_free(struct loop_defer *d) {
    if (d) {
        uv_close((uv_handle_t *)&d->check, free_check);
        uv_close((uv_handle_t *)&d->idle, free_idle);
    }
}

static void on_work(uv_work_t *h) {
    struct loop_job *j = container_of(h, struct loop_job, h);
    j->work(j->arg);
}

static void on_work_done(uv_work_t *h, int status MG_UNUSED) {
    struct loop_job *j = container_of(h, struct loop_job, h);
    j->done(j->arg);
    free(j);
}

void loop_work(struct loop *l, void (*work)(void *), void (*done)(void *), void *arg) {
    struct loop_job *j = zalloc(sizeof(*j));
    j->work = work;
    j->done = done;
    j->arg = arg;
    mg_assert(uv_queue_work(&l->uv, &j->h, on_work, on_work_done) == 0);
}

static void on_signal(uv_signal_t *h, int signum) {
    struct loop_signal *s = container_of(h, struct loop_signal, h);
    s->cb(s->arg, signum);
}

void loop_signal(struct loop *l, int signum, void (*cb)(void *, int), void *arg) {
    struct loop_signal *s = zalloc(sizeof(*s));
    s->cb = cb;
    s->arg = arg;
    mg_assert(uv_signal_init(&l->uv, &s->h) == 0);
    (void)uv_signal_start(&s->h, on_signal, signum);
    uv_unref((uv_handle_t *)&s->h);
}
