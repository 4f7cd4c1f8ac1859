/* A datastore in memory for simulations: compare-and-swap, lists as of one revision, readings that
 * are older than the newest write, calls that fail before or after they were carried out. Every
 * call is a point where the simulation may let somebody else go on. Deterministic: what happens is
 * asked of the simulation's own numbers. */
#pragma once

#include "store/driver.h"

/* What becomes of one call. */
enum sim_fate {
    SIM_GOES_WELL,
    SIM_FAILS,       /* not carried out, and the caller is told an error */
    SIM_LOST_ANSWER, /* carried out, and the caller is told an error */
    SIM_STALE,       /* a reading of an older state; writes go well */
};

struct sim_hooks {
    /* Before each call: others may run here. */
    enum sim_fate (*before)(void *arg, bool is_write);
    /* After it was carried out, before the caller has the answer. */
    void (*after)(void *arg);
    uint64_t (*rnd)(uint64_t n);
    void *arg;
};

/* Empty; hooks must outlive it. store_close frees it. */
struct store *sim_store_new(const struct sim_hooks *hooks);
/* Forgets everything, for the next schedule. */
void sim_store_reset(struct store *s);
/* The hooks are not asked: for whoever looks on from outside. */
void sim_store_quiet(struct store *s, bool is_quiet);
size_t sim_store_calls(const struct store *s);
