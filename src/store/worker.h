/* Calls of a store off the loop: those of a driver behind a network block. Jobs run one after the
 * other, in order. With a driver that answers at once a job runs inside of store_worker_run, and so
 * does what comes behind it: no thread, no delay. */
#pragma once

#include "store/store.h"

struct store_worker;

/* s: used by jobs alone from now on, if its driver is a slow one. Outlives the worker. */
struct store_worker *store_worker_new(struct loop *l, struct store *s);
/* Waits for the job that runs, with the loop; the others don't run, nor those that come meanwhile.
 * All are told -ECANCELED. */
void store_worker_free(struct store_worker *w); /* accepts NULL */

/* work(s, arg) on a thread (which owns what arg has meanwhile), then done(arg, 0) on the loop. */
void store_worker_run(struct store_worker *w, void (*work)(struct store *s, void *arg),
                      void (*done)(void *arg, int code), void *arg);
/* Jobs that wait or run. */
size_t store_worker_depth(const struct store_worker *w);

/* Does the driver answer without asking a network? */
bool store_is_quick(const struct store *s);
