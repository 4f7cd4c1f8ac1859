/* The work queue. A key has one entry from the first asking until its work has gone well and nobody
 * asks any more. Ready ones are a list in order of asking; those that wait for a time are looked
 * through, as they are few: what failed, and what was asked for later. */
#include "controllers/queue.h"

#include "base/keytext.h"
#include "base/vec.h"

enum entry_state { ENTRY_READY, ENTRY_WAITING, ENTRY_RUNNING };

struct entry {
    enum entry_state state;
    bool is_asked_again; /* while running */
    unsigned failures;
    int64_t at_ns;
    struct entry *next; /* of the ready ones */
    struct keytext key;
};

#define MAP_NAME entrytab
#define MAP_KEY const struct keytext *
#define MAP_VAL struct entry *
#define MAP_HASH(k) KEYTEXT_HASH(k)
#define MAP_EQ(a, b) KEYTEXT_EQ(a, b)
#include "base/map.tmpl.h"

struct queue {
    struct entrytab tab;
    struct entry *first, *last;
    VEC(struct entry *) waiting;
    int64_t earliest_ns; /* none that waits is due before */
    uint64_t n_retries;
    double tokens; /* retries that may come at once */
    int64_t tokens_ns;
};

struct queue *queue_new(void) {
    struct queue *q = calloc(1, sizeof(*q));
    mg_assert(q != NULL);
    q->tokens = QUEUE_RETRIES_BURST;
    q->earliest_ns = INT64_MAX;
    return q;
}

void queue_free(struct queue *q) {
    if (!q) {
        return;
    }
    size_t i = 0;
    struct entry **e;
    while (entrytab_next(&q->tab, &i, NULL, &e)) {
        free(*e);
    }
    entrytab_fini(&q->tab);
    vec_fini(&q->waiting);
    free(q);
}

static struct entry *find(const struct queue *q, struct str key) {
    struct arena a = {.first_bytes = 128};
    struct entry **e = entrytab_get(&q->tab, keytext_of(&a, key));
    arena_fini(&a);
    return e ? *e : NULL;
}

static struct entry *find_or_make(struct queue *q, struct str key, bool *is_new) {
    struct entry *e = find(q, key);
    *is_new = !e;
    if (!e) {
        e = calloc(1, sizeof(*e) + key.n);
        mg_assert(e != NULL && key.n <= QUEUE_KEY_MAX);
        keytext_set(&e->key, key);
        *entrytab_put(&q->tab, &e->key, NULL) = e;
    }
    return e;
}

static void make_ready(struct queue *q, struct entry *e) {
    e->state = ENTRY_READY;
    e->next = NULL;
    if (q->last) {
        q->last->next = e;
    } else {
        q->first = e;
    }
    q->last = e;
}

static void stop_waiting(struct queue *q, const struct entry *e) {
    for (size_t i = 0; i < q->waiting.n; i++) {
        if (q->waiting.p[i] == e) {
            vec_swap_remove(&q->waiting, i);
            return;
        }
    }
}

static void wait_until(struct queue *q, struct entry *e, int64_t at_ns) {
    e->state = ENTRY_WAITING;
    e->at_ns = at_ns;
    q->earliest_ns = at_ns < q->earliest_ns ? at_ns : q->earliest_ns;
    vec_push(&q->waiting, e);
}

void queue_add(struct queue *q, struct str key) {
    bool is_new;
    struct entry *e = find_or_make(q, key, &is_new);
    if (is_new) {
        make_ready(q, e);
    } else if (e->state == ENTRY_RUNNING) {
        e->is_asked_again = true;
    } else if (e->state == ENTRY_WAITING && e->failures == 0) {
        stop_waiting(q, e);
        make_ready(q, e);
    } /* one that failed keeps its pause: news of it don't make a store in trouble well */
}

void queue_add_at(struct queue *q, struct str key, int64_t at_ns) {
    bool is_new;
    struct entry *e = find_or_make(q, key, &is_new);
    if (is_new) {
        wait_until(q, e, at_ns);
    } else if (e->state == ENTRY_RUNNING) {
        e->is_asked_again = true;
    } else if (e->state == ENTRY_WAITING && at_ns < e->at_ns && e->failures == 0) {
        e->at_ns = at_ns;
        q->earliest_ns = at_ns < q->earliest_ns ? at_ns : q->earliest_ns;
    }
}

static void refill(struct queue *q, int64_t now_ns) {
    if (q->tokens_ns) {
        q->tokens += (double)(now_ns - q->tokens_ns) * QUEUE_RETRIES_PER_S / 1e9;
        q->tokens = q->tokens > QUEUE_RETRIES_BURST ? QUEUE_RETRIES_BURST : q->tokens;
    }
    q->tokens_ns = now_ns;
}

static int entry_by_time(const void *x, const void *y) {
    const struct entry *const *a = x, *const *b = y;
    return (*a)->at_ns < (*b)->at_ns ? -1 : (*a)->at_ns > (*b)->at_ns;
}

/* Those whose time has come become ready, the earliest first. Returns when the next one's will. */
static int64_t wake(struct queue *q, int64_t now_ns) {
    if (now_ns < q->earliest_ns) {
        return q->earliest_ns;
    }
    int64_t next = INT64_MAX;
    VEC(struct entry *) due = {0};
    for (size_t i = 0; i < q->waiting.n;) {
        struct entry *e = q->waiting.p[i];
        if (e->at_ns <= now_ns) {
            vec_push(&due, e);
            vec_swap_remove(&q->waiting, i);
        } else {
            next = e->at_ns < next ? e->at_ns : next;
            i++;
        }
    }
    vec_sort(&due, entry_by_time);
    for (size_t i = 0; i < due.n; i++) {
        make_ready(q, due.p[i]);
    }
    vec_fini(&due);
    q->earliest_ns = next;
    return next;
}

bool queue_take(struct queue *q, int64_t now_ns, struct str *key, int64_t *next_ns) {
    int64_t next = wake(q, now_ns);
    if (next_ns) {
        *next_ns = next;
    }
    struct entry *e = q->first;
    if (!e) {
        return false;
    }
    q->first = e->next;
    if (!q->first) {
        q->last = NULL;
    }
    e->state = ENTRY_RUNNING;
    *key = keytext_view(&e->key);
    return true;
}

void queue_done(struct queue *q, struct str key, bool has_failed, int64_t now_ns) {
    struct entry *e = find(q, key);
    mg_assert(e != NULL && e->state == ENTRY_RUNNING);
    bool is_asked = e->is_asked_again;
    e->is_asked_again = false;
    if (has_failed) {
        int64_t pause_ms = QUEUE_PAUSE_MAX_MS;
        if (e->failures < 10) {
            pause_ms = (int64_t)QUEUE_PAUSE_MIN_MS << e->failures;
            pause_ms = pause_ms > QUEUE_PAUSE_MAX_MS ? QUEUE_PAUSE_MAX_MS : pause_ms;
        }
        e->failures++;
        q->n_retries++;
        refill(q, now_ns);
        q->tokens -= 1;
        int64_t at = now_ns + pause_ms * 1000000;
        if (q->tokens < 0) {
            at += (int64_t)(-q->tokens * 1e9 / QUEUE_RETRIES_PER_S);
        }
        wait_until(q, e, at);
        return;
    }
    e->failures = 0;
    if (is_asked) {
        make_ready(q, e);
        return;
    }
    (void)entrytab_del(&q->tab, &e->key);
    free(e);
}

size_t queue_depth(const struct queue *q) {
    return q->tab.n;
}

uint64_t queue_retries(const struct queue *q) {
    return q->n_retries;
}

unsigned queue_failures(const struct queue *q, struct str key) {
    const struct entry *e = find(q, key);
    return e ? e->failures : 0;
}
