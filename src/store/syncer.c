/* The syncer: a list, then a watch, again a list when the position is lost; the difference to what
 * was passed on is worked out here, so that consumers never see a gap or a repeat. Keeps a hash and
 * a revision per key, no values. Which driver is below doesn't matter. */
#include "store/syncer.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"

#include <inttypes.h>
#include <stdlib.h>

enum { RETRY_MS = 1000 };

struct known {
    char *key; /* malloc'ed: keys come and go one by one */
    uint64_t hash, revision;
    uint32_t snapshot; /* the last one that had it */
};

#define MAP_NAME knowntab
#define MAP_KEY struct str
#define MAP_VAL struct known
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct syncer {
    struct store *s;
    struct loop *l;
    char *space;
    struct syncer_ops ops;
    void *arg;
    struct store_watch *watch;
    struct loop_timer *retry;
    struct knowntab known;
    uint32_t snapshot;
    uint64_t position, list_revision;
    bool is_in_sync, is_lost, is_dead;
    unsigned depth; /* callbacks under way: the end of the syncer waits for them */
};

static void destroy(struct syncer *y) {
    size_t i = 0;
    struct known *v;
    while (knowntab_next(&y->known, &i, NULL, &v)) {
        free(v->key);
    }
    knowntab_fini(&y->known);
    free(y->space);
    free(y);
}

static void enter(struct syncer *y) {
    y->depth++;
}

/* False when the syncer is gone. */
static bool leave(struct syncer *y) {
    if (--y->depth > 0 || !y->is_dead) {
        return true;
    }
    destroy(y);
    return false;
}

static void pass(struct syncer *y, const struct store_item *it) {
    if (!y->is_dead) {
        y->ops.on_item(y->arg, it);
    }
}

/* An item as a list or a watch has it: passed on if it is news. */
static void take_item(struct syncer *y, const struct store_item *it) {
    struct known *k = knowntab_get(&y->known, it->key);
    if (!it->value.p) {
        if (k && it->revision > k->revision) {
            char *own = k->key;
            (void)knowntab_del(&y->known, it->key);
            pass(y, it);
            free(own);
        }
        return;
    }
    uint64_t hash = hash_str(it->value);
    if (k) {
        k->snapshot = y->snapshot;
        if (it->revision <= k->revision) {
            return;
        }
        bool is_same = k->hash == hash;
        k->hash = hash;
        k->revision = it->revision;
        if (is_same) {
            return;
        }
    } else {
        char *own = malloc(it->key.n + 1);
        mg_assert(own != NULL);
        memcpy(own, it->key.p, it->key.n);
        own[it->key.n] = '\0';
        k = knowntab_put(&y->known, str_n(own, it->key.n), NULL);
        *k = (struct known){
            .key = own, .hash = hash, .revision = it->revision, .snapshot = y->snapshot};
    }
    pass(y, it);
}

static int on_list_item(void *arg, const struct store_item *it) {
    struct syncer *y = arg;
    if (y->list_revision < y->position) {
        /* A member of a cluster that lags behind: what was passed on must not be taken back. */
        return ERR_RETRY;
    }
    take_item(y, it);
    return y->is_dead ? -ECANCELED : 0;
}

/* Deletes of what the newest snapshot doesn't have, in the order of keys. */
static void drop_missing(struct syncer *y) {
    VEC(struct str) gone = {0};
    size_t i = 0;
    struct str key;
    struct known *v;
    while (knowntab_next(&y->known, &i, &key, &v)) {
        if (v->snapshot != y->snapshot) {
            vec_push(&gone, key);
        }
    }
    vec_sort(&gone, str_cmp_qsort);
    for (i = 0; i < gone.n; i++) {
        (void)knowntab_del(&y->known, gone.p[i]);
        struct store_item it = {.space = str_c(y->space),
                                .key = gone.p[i],
                                .value = STR_NULL,
                                .revision = y->list_revision};
        pass(y, &it);
        free((char *)(uintptr_t)gone.p[i].p);
    }
    vec_fini(&gone);
}

static void say_connected(struct syncer *y, bool is_connected) {
    if (y->is_lost == is_connected && !y->is_dead) {
        y->is_lost = !is_connected;
        if (y->ops.on_connected) {
            y->ops.on_connected(y->arg, is_connected);
        }
    }
}

static void on_watch_item(void *arg, const struct store_item *it) {
    struct syncer *y = arg;
    enter(y);
    take_item(y, it);
    if (it->revision > y->position) {
        y->position = it->revision;
    }
    (void)leave(y);
}

static void on_watch_progress(void *arg, uint64_t revision) {
    struct syncer *y = arg;
    if (revision > y->position) {
        y->position = revision;
    }
    if (y->ops.on_batch_end) {
        enter(y);
        y->ops.on_batch_end(y->arg, y->position);
        (void)leave(y);
    }
}

static void retry_later(struct syncer *y, int64_t delay_ms) {
    loop_timer_start(y->retry, delay_ms, 0);
}

static void on_watch_end(void *arg, int code) {
    struct syncer *y = arg;
    LOG_D("store", "watch_ended", "space=%s code=%d position=%" PRIu64, y->space, code,
          y->position);
    struct store_watch *w = TAKE_PTR(y->watch);
    store_watch_free(w);
    enter(y);
    if (code != ERR_GONE) {
        say_connected(y, false);
    }
    if (!y->is_dead) {
        retry_later(y, code == ERR_GONE ? 0 : RETRY_MS);
    }
    (void)leave(y);
}

/* One snapshot and the watch behind it. */
static int sync_once(struct syncer *y, struct err *e) {
    struct store_key all = {.space = str_c(y->space), .key = STR("")};
    y->snapshot++;
    y->list_revision = 0;
    int r = store_list(y->s, all, &y->list_revision, on_list_item, y, e);
    if (r == 0 && y->list_revision < y->position) {
        r = err_set(e, ERR_RETRY, "the snapshot is older than what was seen");
    }
    if (r < 0 || y->is_dead) {
        return y->is_dead ? -ECANCELED : r;
    }
    say_connected(y, true);
    drop_missing(y);
    y->position = y->list_revision;
    if (!y->is_in_sync && !y->is_dead) {
        y->is_in_sync = true;
        if (y->ops.on_in_sync) {
            y->ops.on_in_sync(y->arg);
        }
    }
    if (!y->is_dead && y->ops.on_batch_end) {
        y->ops.on_batch_end(y->arg, y->position);
    }
    if (y->is_dead) {
        return -ECANCELED;
    }
    static const struct store_watch_ops ops = {
        .on_item = on_watch_item, .on_end = on_watch_end, .on_progress = on_watch_progress};
    return store_watch(y->s, y->l, all, y->position, &ops, y, &y->watch, e);
}

static void on_retry(void *arg) {
    struct syncer *y = arg;
    struct err e = {0};
    enter(y);
    int r = sync_once(y, &e);
    if (r < 0 && !y->is_dead) {
        LOG_W("store", "sync_failed", "space=%s error=%s", y->space, log_quote(str_c(e.msg)));
        say_connected(y, false);
        if (!y->is_dead) {
            retry_later(y, RETRY_MS);
        }
    }
    (void)leave(y);
}

int syncer_start(struct store *s, struct loop *l, struct str space, const struct syncer_ops *ops,
                 void *arg, struct syncer **out, struct err *e) {
    struct syncer *y = calloc(1, sizeof(*y));
    mg_assert(y != NULL);
    y->s = s;
    y->l = l;
    y->space = calloc(1, space.n + 1);
    mg_assert(y->space != NULL);
    memcpy(y->space, space.p, space.n);
    y->ops = *ops;
    y->arg = arg;
    y->retry = loop_timer_new(l, on_retry, y);
    *out = y; /* callbacks may look at it, or free it */
    enter(y);
    int r = sync_once(y, e);
    if (r == ERR_UNAVAILABLE || r == ERR_RETRY) {
        say_connected(y, false);
        if (!y->is_dead) {
            retry_later(y, RETRY_MS);
        }
        r = 0;
    }
    if (r < 0 && !y->is_dead) {
        *out = NULL;
        syncer_free(y);
    } else if (y->is_dead) {
        r = 0; /* freed from one of its callbacks */
    }
    (void)leave(y);
    return r;
}

void syncer_free(struct syncer *y) {
    if (!y || y->is_dead) {
        return;
    }
    store_watch_free(y->watch);
    y->watch = NULL;
    loop_timer_free(y->retry);
    y->retry = NULL;
    y->is_dead = true;
    if (y->depth == 0) {
        destroy(y);
    }
}
