/* What the files of the engine share. */
#pragma once

#include "base/health.h"
#include "base/vec.h"
#include "controllers/engine.h"
#include "controllers/facts.h"
#include "controllers/gc.h"
#include "controllers/jobs.h"
#include "controllers/leader.h"
#include "controllers/mirror.h"
#include "controllers/queue.h"
#include "store/syncer.h"

enum {
    ENGINE_BATCH = 64,          /* jobs that go to the worker together */
    ENGINE_FAR_NS = 1000000000, /* no timer is set further than … times this */
    ENGINE_SLOW_FAILURES = 3,   /* failures of a key before it is worth a line */
};

enum feed { FEED_SOURCE, FEED_TARGET, FEED_IPAM, FEED_N };

struct engine;
struct feed_state {
    struct engine *x;
    enum feed id;
    struct syncer *syncer;
    bool is_in_sync, is_lost;
};

struct engine {
    struct loop *loop;
    struct engine_options o;
    char *identity;
    bool is_two;    /* source and target differ */
    bool is_inline; /* no thread: all stores answer at once */
    struct feed_state feeds[FEED_N];
    struct facts *facts;
    struct mirror_table *mirror;
    struct gc *gc;
    struct queue *queue;
    struct leader *leader;
    struct loop_timer *pump, *reconcile, *collect, *status, *compact;
    struct loop_defer *later; /* pump soon */
    struct health *http;
    uint16_t http_port;
    bool is_datastore_ready, is_working;
    struct arena config_arena;
    struct run_config config;
    struct jnode *config_status;
    bool has_config;
    int64_t next_gc_ns;
    struct store_compaction compaction;
    /* the batch that is worked on */
    VEC(struct job *) batch;
    bool is_busy, is_dead;
    uint64_t n_done, n_failed;
    struct log_limit limit;
};

/* ---- engine_see.c: from items to facts and keys ---- */
void engine_see(struct engine *x, enum feed feed, const struct store_item *it);
/* Asks for everything that differs. */
void engine_ask_all(struct engine *x);
void engine_ask(struct engine *x, enum job_kind k, struct str rest);
/* May anything be changed now? */
bool engine_may_work(const struct engine *x);
/* Takes the configuration that the object's spec (NULL: none) asks for. */
MG_NODISCARD int engine_configure(struct engine *x, const struct jnode *spec, struct err *e);
/* What a job needs beside its key. */
void engine_prepare(struct engine *x, struct job *j);
