/* The controllers at work: what two stores tell becomes facts, differences become keys of the
 * queue, keys become work on a worker. One loop; nothing on it waits for a store. */
#pragma once

#include "controllers/config.h"
#include "store/store.h"

struct engine;

struct engine_stores {
    /* Followed on the loop, and called by work; the same handle twice where the driver answers at
     * once. source: Kubernetes' objects; target: Calico's; equal when one store has both. */
    struct store *source, *target, *source_calls, *target_calls;
    struct store *election; /* NULL: elected at once */
};

struct engine_options {
    struct engine_stores stores; /* must outlive the engine */
    config_env env;
    void *env_arg;
    struct str identity; /* who we are in an election */
    bool is_kubernetes;  /* the target is the Kubernetes API */
    bool is_embedded;    /* the target is one host's own store: its agent has the host endpoint */
    const char *status_path; /* a file that tells of health, as Calico's; NULL: none */
    bool has_http;           /* serve metrics and probes */
};

/* ERR_INVALID: a bad value in the environment. Starts at once. */
MG_NODISCARD int engine_new(struct loop *l, const struct engine_options *o, struct engine **out,
                            struct err *e);
/* Waits for work that runs. */
void engine_free(struct engine *x); /* accepts NULL */

/* Nothing waits or is worked on, and everything is in sync. */
bool engine_is_idle(const struct engine *x);
/* Compares everything now, as it is done every few minutes. */
void engine_reconcile(struct engine *x);
/* A pass of the collector, as if the clock showed now_ns. */
void engine_collect(struct engine *x, int64_t now_ns);
void engine_metrics(const struct engine *x, struct buf *out);
