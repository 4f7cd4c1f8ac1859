/* The syncer: a list, then a watch, again a list when the position is lost; the difference to what
 * was passed on is worked out here, so that consumers never see a gap or a repeat. Keeps a hash and
 * a revision per key, no values. Which driver is below doesn't matter. */
#include "store/syncer.h"

#include "base/keytext.h"
#include "base/log.h"
#include "base/vec.h"

#include <inttypes.h>
#include <stdlib.h>

enum { RETRY_MS = 1000 };

struct known {
    uint64_t hash, revision;
    uint32_t snapshot; /* the last one that had it */
    struct keytext key;
};

#define MAP_NAME knowntab
#define MAP_KEY const struct keytext *
#define MAP_VAL struct known *
#define MAP_HASH(k) KEYTEXT_HASH(k)
#define MAP_EQ(a, b) KEYTEXT_EQ(a, b)
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
    struct known **v;
    while (knowntab_next(&y->known, &i, NULL, &v)) {
        free(*v);
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

static struct known *known_find(struct syncer *y, struct str key) {
    struct arena a = {.first_bytes = 128};
    struct known **k = knowntab_get(&y->known, keytext_of(&a, key));
    arena_fini(&a);
    return k ? *k : NULL;
}

/* An item as a list or a watch has it: passed on if it is news. */
static void take_item(struct syncer *y, const struct store_item *it) {
    struct known *k = known_find(y, it->key);
    if (!it->value.p) {
        if (k && it->revision > k->revision) {
            (void)knowntab_del(&y->known, &k->key);
            pass(y, it);
            free(k);
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
        k = malloc(sizeof(*k) + it->key.n);
        mg_assert(k != NULL);
        k->hash = hash;
        k->revision = it->revision;
        k->snapshot = y->snapshot;
        keytext_set(&k->key, it->key);
        *knowntab_put(&y->known, &k->key, NULL) = k;
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

static int known_cmp(const void *a, const void *b) {
    return str_cmp(keytext_view(&(*(struct known *const *)a)->key),
                   keytext_view(&(*(struct known *const *)b)->key));
}

/* Deletes of what the newest snapshot doesn't have, in the order of keys. */
static void drop_missing(struct syncer *y) {
    VEC(struct known *) gone = {0};
    size_t i = 0;
    struct known **v;
    while (knowntab_next(&y->known, &i, NULL, &v)) {
        if ((*v)->snapshot != y->snapshot) {
            vec_push(&gone, *v);
        }
    }
    vec_sort(&gone, known_cmp);
    for (i = 0; i < gone.n; i++) {
        (void)knowntab_del(&y->known, &gone.p[i]->key);
        struct store_item it = {.space = str_c(y->space),
                                .key = keytext_view(&gone.p[i]->key),
                                .value = STR_NULL,
                                .revision = y->list_revision};
        pass(y, &it);
        free(gone.p[i]);
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
