/* Who waits until the kernel has what was written: CNI ADD, `status --wait`. */
#include "node/node_int.h"

#include <stdlib.h>

enum { ASK_MS = 500 };

static void waiter_free(struct waiter *w) {
    loop_timer_free(w->timer);
    free(w->key);
    free(w);
}

static void waiter_done(struct waiter *w, int code) {
    struct node *n = w->n;
    for (size_t i = 0; i < n->waiters.n; i++) {
        if (n->waiters.p[i] == w) {
            vec_remove(&n->waiters, i); /* in order of asking */
            break;
        }
    }
    if (n->waiters.n == 0) {
        loop_timer_stop(n->ask_timer);
    }
    void (*cb)(void *, int) = w->cb;
    void *arg = w->arg;
    waiter_free(w);
    cb(arg, code);
}

static void on_wait_timeout(void *arg) {
    waiter_done(arg, -ETIMEDOUT);
}

static void on_ask(void *arg) {
    struct node *n = arg;
    if (n->syncer) {
        syncer_ask(n->syncer);
    }
}

static bool is_enforced(const struct node *n, struct str key, uint64_t revision) {
    return n->in_sync && n->is_current && syncer_position(n->syncer, key) >= revision;
}

void node_when_enforced(struct node *n, struct str key, uint64_t revision, int64_t timeout_ms,
                        void (*cb)(void *arg, int code), void *arg) {
    if (is_enforced(n, key, revision)) {
        cb(arg, 0);
        return;
    }
    struct waiter *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    *w = (struct waiter){.n = n, .revision = revision, .cb = cb, .arg = arg};
    w->key = key.p ? strndup(key.p, key.n) : NULL;
    w->timer = loop_timer_new(n->loop, on_wait_timeout, w);
    loop_timer_start(w->timer, timeout_ms, 0);
    vec_push(&n->waiters, w);
    if (!n->ask_timer) {
        n->ask_timer = loop_timer_new(n->loop, on_ask, n);
    }
    if (n->waiters.n == 1 && !store_is_quick(n->store)) {
        loop_timer_start(n->ask_timer, 0, ASK_MS); /* an ask is lost with its connection */
    }
}

void node_set_enforced(struct node *n) {
    n->is_current = true;
    n->enforced = syncer_position(n->syncer, STR_NULL);
    for (size_t i = 0; i < n->waiters.n;) {
        const struct waiter *w = n->waiters.p[i];
        if (is_enforced(n, w->key ? str_c(w->key) : STR_NULL, w->revision)) {
            waiter_done(n->waiters.p[i], 0);
            i = 0; /* the callback may have changed the list */
        } else {
            i++;
        }
    }
}

void node_waiters_free(struct node *n) {
    while (n->waiters.n) {
        waiter_free(n->waiters.p[--n->waiters.n]);
    }
    vec_fini(&n->waiters);
    loop_timer_free(n->ask_timer);
}
