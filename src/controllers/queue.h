/* Work that waits: each key is there once however often it is asked for, one that failed comes
 * again after a pause that doubles, and retries together are limited, so that a store in trouble is
 * not asked harder than one that is well. Pure: time is told by the caller. */
#pragma once

#include "base/str.h"

struct queue;

enum {
    QUEUE_KEY_MAX = 2048 + 16,
    QUEUE_PAUSE_MIN_MS = 100, /* before the first retry of a key */
    QUEUE_PAUSE_MAX_MS = 60000,
    QUEUE_RETRIES_BURST = 100, /* retries of all keys together that may come at once … */
    QUEUE_RETRIES_PER_S = 10,  /* … and in a second in the long run */
};

struct queue *queue_new(void);
void queue_free(struct queue *q); /* accepts NULL */
/* Asks for a key. While it is worked on, it is remembered and comes again afterwards. */
void queue_add(struct queue *q, struct str key);
/* Not before the given time, unless somebody asks for it at once. */
void queue_add_at(struct queue *q, struct str key, int64_t at_ns);
/* A key that is due, in the order of asking; it counts as worked on until queue_done. The view
 * lives until then. False: none. *next_ns (may be NULL): when one will be, INT64_MAX if nothing
 * waits. */
bool queue_take(struct queue *q, int64_t now_ns, struct str *key, int64_t *next_ns);
/* The work on a key is over. Failed: it comes again after its pause. */
void queue_done(struct queue *q, struct str key, bool has_failed, int64_t now_ns);
/* Keys that wait or are worked on; retries so far. */
size_t queue_depth(const struct queue *q);
uint64_t queue_retries(const struct queue *q);
/* How often the key has failed in a row. */
unsigned queue_failures(const struct queue *q, struct str key);
