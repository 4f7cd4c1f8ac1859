/* The event loop of a process: libuv behind a thin shape, so that logic never names libuv. One
 * thread runs the loop; loop_work is the only way to another thread. */
#pragma once

#include "base/arena.h"

struct loop;
struct loop_poll;
struct loop_timer;
struct loop_defer;

struct loop *loop_new(void);
void loop_free(struct loop *l);
/* Runs until loop_stop. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l);
/* Runs what is ready now and returns (tests; bool wait: block for at least one event). */
void loop_step(struct loop *l, bool wait);
/* Monotonic ns, cached at the start of the iteration. */
int64_t loop_now_ns(struct loop *l);

enum { LOOP_READ = 1, LOOP_WRITE = 2 };
/* Watches a descriptor; the caller keeps owning fd and closes it after loop_poll_free. */
struct loop_poll *loop_poll_new(struct loop *l, int fd, unsigned events,
                                void (*cb)(void *arg, unsigned events), void *arg);
void loop_poll_set(struct loop_poll *p, unsigned events);
void loop_poll_free(struct loop_poll *p); /* accepts NULL; safe inside its own callback */

struct loop_timer *loop_timer_new(struct loop *l, void (*cb)(void *arg), void *arg);
/* Fires once after delay (rounded up to ms), then every `repeat_ms` if not 0. Restarts if running.
 */
void loop_timer_start(struct loop_timer *t, int64_t delay_ms, int64_t repeat_ms);
void loop_timer_stop(struct loop_timer *t);
void loop_timer_free(struct loop_timer *t); /* accepts NULL */

/* Runs cb once at the end of this iteration, however often it was asked for: for coalescing. */
struct loop_defer *loop_defer_new(struct loop *l, void (*cb)(void *arg), void *arg);
void loop_defer_ask(struct loop_defer *d);
void loop_defer_free(struct loop_defer *d); /* accepts NULL */

/* Runs work(arg) on a worker thread, then done(arg) on the loop. work must own its data. */
void loop_work(struct loop *l, void (*work)(void *arg), void (*done)(void *arg), void *arg);

/* Calls cb on the loop when the signal comes. Lives as long as the loop. */
void loop_signal(struct loop *l, int signum, void (*cb)(void *arg, int signum), void *arg);
