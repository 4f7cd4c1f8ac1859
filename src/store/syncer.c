/* "Snapshot, then changes" over any driver. Of each item only a fingerprint is kept: enough to
 * know, after a lost position, what is different. */
#include "store/syncer.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"

#include <stdlib.h>

struct seen {
    char *key; /* the map's own copy */
    uint64_t revision, hash;
    uint32_t round; /* of the newest snapshot that had it */
};

#define MAP_NAME str_seen
#define MAP_KEY struct str
#define MAP_VAL struct seen
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct syncer {
    struct store *store;
    struct loop *loop;
    char *space;
    struct syncer_ops ops;
    void *arg;
    struct str_seen items;
    struct store_watch *watch;
    struct loop_defer *batch_end;
    struct loop_timer *retry;
    uint64_t revision; /* newest seen */
    uint32_t round;
    bool was_in_sync, is_disconnected;
};

enum { RETRY_MS = 500 };

static void on_batch_end(void *arg) {
    struct syncer *y = arg;
    y->ops.on_batch_end(y->arg, y->revision);
}

static void forget(struct syncer *y, struct str key) {
    struct seen *s = str_seen_get(&y->items, key);
    char *copy = s->key;
    str_seen_del(&y->items, key);
    free(copy);
}

/* Passes on an item if it is news. value STR_NULL: deleted. */
static void pass(struct syncer *y, const struct store_item *it) {
    if (it->revision > y->revision) {
        y->revision = it->revision;
    }
    struct seen *s = str_seen_get(&y->items, it->key);
    if (!it->value.p) {
        if (s && it->revision >= s->revision) {
            y->ops.on_item(y->arg, it);
            forget(y, it->key);
        }
        return;
    }
    uint64_t hash = hash_str(it->value);
    if (s && (it->revision < s->revision || s->hash == hash)) {
        s->round = y->round;
        if (it->revision > s->revision) {
            s->revision = it->revision;
        }
        return;
    }
    if (!s) {
        char *copy = strndup(it->key.p, it->key.n);
        mg_assert(copy != NULL);
        s = str_seen_put(&y->items, str_n(copy, it->key.n), NULL);
        s->key = copy;
    }
    s->revision = it->revision;
    s->hash = hash;
    s->round = y->round;
    y->ops.on_item(y->arg, it);
}

static int on_snapshot_item(void *arg, const struct store_item *it) {
    pass(arg, it);
    return 0;
}

static void on_watch_item(void *arg, const struct store_item *it) {
    struct syncer *y = arg;
    pass(y, it);
    loop_defer_ask(y->batch_end);
}

/* What an older snapshot had and the new one has not was deleted while we were not looking. */
static void pass_deletes(struct syncer *y, uint64_t revision) {
    VEC(char *) gone = {0};
    struct seen *s;
    for (size_t i = 0; str_seen_next(&y->items, &i, NULL, &s);) {
        if (s->round != y->round) {
            vec_push(&gone, s->key);
        }
    }
    for (size_t i = 0; i < gone.n; i++) {
        struct store_item it = {
            .space = str_c(y->space), .key = str_c(gone.p[i]), .revision = revision};
        y->ops.on_item(y->arg, &it);
        forget(y, it.key);
    }
    vec_fini(&gone);
}

static void on_watch_end(void *arg, int code);

static int start_over(struct syncer *y, struct err *e) {
    static const struct store_watch_ops ops = {on_watch_item, on_watch_end};
    struct store_key all = {str_c(y->space), STR("")};
    y->round++;
    uint64_t revision = 0;
    int r = store_list(y->store, all, &revision, on_snapshot_item, y, e);
    if (r == 0) {
        pass_deletes(y, revision);
        y->revision = revision;
        r = store_watch(y->store, y->loop, all, revision, &ops, y, &y->watch, e);
    }
    if (r < 0) {
        return r;
    }
    if (y->is_disconnected) {
        y->is_disconnected = false;
        y->ops.on_connected(y->arg, true);
    }
    if (!y->was_in_sync) {
        y->was_in_sync = true;
        y->ops.on_in_sync(y->arg);
    }
    y->ops.on_batch_end(y->arg, y->revision);
    return 0;
}

static void try_again(void *arg) {
    struct syncer *y = arg;
    struct err e;
    if (start_over(y, &e) == 0) {
        return;
    }
    if (!y->is_disconnected) {
        y->is_disconnected = true;
        y->ops.on_connected(y->arg, false);
        LOG_W("syncer", "store_lost", "space=%s error=%s", y->space, log_quote(str_c(e.msg)));
    }
    loop_timer_start(y->retry, RETRY_MS, 0);
}

static void on_watch_end(void *arg, int code) {
    struct syncer *y = arg;
    store_watch_free(y->watch);
    y->watch = NULL;
    LOG_I("syncer", "watch_ended", "space=%s code=%s", y->space, err_name(code));
    loop_timer_start(y->retry, 0, 0);
}

int syncer_start(struct store *s, struct loop *l, struct str space, const struct syncer_ops *ops,
                 void *arg, struct syncer **out, struct err *e) {
    struct syncer *y = calloc(1, sizeof(*y));
    mg_assert(y != NULL);
    *y = (struct syncer){.store = s, .loop = l, .ops = *ops, .arg = arg};
    y->space = strndup(space.p, space.n);
    mg_assert(y->space != NULL);
    y->batch_end = loop_defer_new(l, on_batch_end, y);
    y->retry = loop_timer_new(l, try_again, y);
    int r = start_over(y, e);
    if (r < 0) {
        syncer_free(y);
        return r;
    }
    *out = y;
    return 0;
}

void syncer_free(struct syncer *y) {
    if (!y) {
        return;
    }
    store_watch_free(y->watch);
    loop_defer_free(y->batch_end);
    loop_timer_free(y->retry);
    struct seen *s;
    for (size_t i = 0; str_seen_next(&y->items, &i, NULL, &s);) {
        free(s->key);
    }
    str_seen_fini(&y->items);
    free(y->space);
    free(y);
}
