/* One job at a time on the loop's pool of threads, so that a store needs no lock. */
#include "store/worker.h"

#include "base/vec.h"
#include "store/driver.h"

#include <stdlib.h>

struct job {
    struct store_worker *w;
    void (*work)(struct store *s, void *arg);
    void (*done)(void *arg, int code);
    void *arg;
};

struct store_worker {
    struct loop *loop;
    struct store *s;
    VEC(struct job) queue; /* the first runs, if is_busy */
    bool is_busy, is_dead;
};

bool store_is_quick(const struct store *s) {
    return !s->drv->follow;
}

struct store_worker *store_worker_new(struct loop *l, struct store *s) {
    struct store_worker *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    w->loop = l;
    w->s = s;
    return w;
}

size_t store_worker_depth(const struct store_worker *w) {
    return w->queue.n;
}

static void next(struct store_worker *w);

static void on_work(void *arg) {
    struct job *j = arg;
    j->work(j->w->s, j->arg);
}

static void on_done(void *arg) {
    struct job *j = arg;
    struct store_worker *w = j->w;
    w->is_busy = false;
    j->done(j->arg, w->is_dead ? -ECANCELED : 0);
    free(j);
    if (!w->is_dead) {
        next(w);
    }
}

static void next(struct store_worker *w) {
    if (w->is_busy || w->queue.n == 0) {
        return;
    }
    struct job *j = malloc(sizeof(*j));
    mg_assert(j != NULL);
    *j = w->queue.p[0];
    vec_remove(&w->queue, 0);
    w->is_busy = true;
    loop_work(w->loop, on_work, on_done, j);
}

void store_worker_run(struct store_worker *w, void (*work)(struct store *s, void *arg),
                      void (*done)(void *arg, int code), void *arg) {
    if (w->is_dead) { /* store_worker_free waits, and the loop's timers go on meanwhile */
        done(arg, -ECANCELED);
        return;
    }
    if (store_is_quick(w->s)) {
        work(w->s, arg);
        done(arg, 0);
        return;
    }
    vec_push(&w->queue, (struct job){w, work, done, arg});
    next(w);
}

void store_worker_free(struct store_worker *w) {
    if (!w) {
        return;
    }
    w->is_dead = true;
    if (w->is_busy) {
        store_interrupt(w->s); /* a call that waits for a datastore that is away */
    }
    while (w->is_busy) {
        loop_step(w->loop, true);
    }
    for (size_t i = 0; i < w->queue.n; i++) {
        w->queue.p[i].done(w->queue.p[i].arg, -ECANCELED);
    }
    vec_fini(&w->queue);
    free(w);
}
