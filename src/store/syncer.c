/* The syncer: a list, then a watch, again a list when the position is lost; the difference to what
 * was passed on is worked out here, so that consumers never see a gap or a repeat. Keeps a hash and
 * a revision per key, no values. Which driver is below doesn't matter: one that answers at once is
 * listed and watched from here, one behind a network follows by itself (follow.h) and tells. */
#include "store/syncer.h"

#include "base/keytext.h"
#include "base/log.h"
#include "base/vec.h"
#include "store/driver.h"

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

/* Keys that are listed together: all of them, or those of one kind. */
struct scope {
    struct str prefix;
    uint32_t snapshot; /* the newest that began */
    uint64_t position; /* everything up to here has been passed on */
};

struct syncer {
    struct store *s;
    struct loop *l;
    char *space, *prefix;
    struct syncer_ops ops;
    void *arg;
    struct store_watch *watch;
    struct store_follow *follow;
    struct loop_timer *retry;
    struct knowntab known;
    VEC(struct scope) scopes;
    size_t i_scope;       /* the one looked at last */
    uint32_t n_snapshots; /* begun, of all scopes */
    uint64_t list_revision;
    bool is_in_sync, is_lost, is_dead;
    unsigned depth; /* callbacks under way: the end of the syncer waits for them */
};

static struct store_key key_of(const struct syncer *y) {
    return (struct store_key){str_c(y->space), str_c(y->prefix)};
}

static void destroy(struct syncer *y) {
    size_t i = 0;
    struct known **v;
    while (knowntab_next(&y->known, &i, NULL, &v)) {
        free(*v);
    }
    knowntab_fini(&y->known);
    for (i = 0; i < y->scopes.n; i++) {
        free((char *)(uintptr_t)y->scopes.p[i].prefix.p);
    }
    vec_fini(&y->scopes);
    free(y->space);
    free(y->prefix);
    free(y);
}

/* ---- scopes ---- */

/* The scope that a key (or a scope's own prefix) belongs to; NULL: none was told of. */
static struct scope *scope_of(struct syncer *y, struct str key) {
    if (y->i_scope < y->scopes.n && str_starts(key, y->scopes.p[y->i_scope].prefix)) {
        return &y->scopes.p[y->i_scope]; /* items of a kind come one after the other */
    }
    for (size_t i = 0; i < y->scopes.n; i++) {
        if (str_starts(key, y->scopes.p[i].prefix)) {
            y->i_scope = i;
            return &y->scopes.p[i];
        }
    }
    return NULL;
}

static struct scope *scope_begin(struct syncer *y, struct str prefix) {
    struct scope *c = scope_of(y, prefix);
    if (!c) {
        char *p = calloc(1, prefix.n + 1);
        mg_assert(p != NULL);
        memcpy(p, prefix.p ? prefix.p : "", prefix.n);
        vec_push(&y->scopes, (struct scope){.prefix = str_n(p, prefix.n)});
        c = &y->scopes.p[y->scopes.n - 1];
    }
    c->snapshot = ++y->n_snapshots;
    return c;
}

/* The least position of all scopes. */
static uint64_t position(const struct syncer *y) {
    uint64_t least = y->scopes.n ? UINT64_MAX : 0;
    for (size_t i = 0; i < y->scopes.n; i++) {
        least = y->scopes.p[i].position < least ? y->scopes.p[i].position : least;
    }
    return least;
}

uint64_t syncer_position(struct syncer *y, struct str key) {
    const struct scope *c = key.p ? scope_of(y, key) : NULL;
    return key.p ? c ? c->position : 0 : position(y);
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
    const struct scope *c = scope_of(y, it->key);
    if (!c) {
        return; /* outside of everything that is listed: its end would never be told */
    }
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
        k->snapshot = c->snapshot;
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
        k->snapshot = c->snapshot;
        keytext_set(&k->key, it->key);
        *knowntab_put(&y->known, &k->key, NULL) = k;
    }
    pass(y, it);
}

static int on_list_item(void *arg, const struct store_item *it) {
    struct syncer *y = arg;
    if (y->list_revision < position(y)) {
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

/* Deletes of what the scope's newest snapshot doesn't have, in the order of keys. */
static void drop_missing(struct syncer *y, const struct scope *c, uint64_t revision) {
    VEC(struct known *) gone = {0};
    size_t i = 0;
    struct known **v;
    while (knowntab_next(&y->known, &i, NULL, &v)) {
        if ((*v)->snapshot != c->snapshot && str_starts(keytext_view(&(*v)->key), c->prefix)) {
            vec_push(&gone, *v);
        }
    }
    vec_sort(&gone, known_cmp);
    for (i = 0; i < gone.n; i++) {
        (void)knowntab_del(&y->known, &gone.p[i]->key);
        struct store_item it = {.space = str_c(y->space),
                                .key = keytext_view(&gone.p[i]->key),
                                .value = STR_NULL,
                                .revision = revision};
        pass(y, &it);
        free(gone.p[i]);
    }
    vec_fini(&gone);
}

static void say_connected(struct syncer *y, bool is_connected, const char *why) {
    if (y->is_lost == is_connected && !y->is_dead) {
        y->is_lost = !is_connected;
        if (y->ops.on_connected) {
            y->ops.on_connected(y->arg, is_connected, why);
        }
    }
}

static void say_batch_end(struct syncer *y) {
    if (!y->is_dead && y->ops.on_batch_end) {
        y->ops.on_batch_end(y->arg, position(y));
    }
}

static void say_in_sync(struct syncer *y) {
    if (!y->is_in_sync && !y->is_dead) {
        y->is_in_sync = true;
        if (y->ops.on_in_sync) {
            y->ops.on_in_sync(y->arg);
        }
    }
}

static void move_to(struct scope *c, uint64_t revision) {
    if (c && revision > c->position) {
        c->position = revision;
    }
}

/* ---- a driver that is listed and watched ---- */

static void on_watch_item(void *arg, const struct store_item *it) {
    struct syncer *y = arg;
    enter(y);
    take_item(y, it);
    move_to(scope_of(y, it->key), it->revision);
    (void)leave(y);
}

static void on_watch_progress(void *arg, uint64_t revision) {
    struct syncer *y = arg;
    enter(y);
    move_to(&y->scopes.p[0], revision);
    say_batch_end(y);
    (void)leave(y);
}

static void retry_later(struct syncer *y, int64_t delay_ms) {
    if (!y->is_dead) {
        loop_timer_start(y->retry, delay_ms, 0);
    }
}

static void on_watch_end(void *arg, int code) {
    struct syncer *y = arg;
    LOG_D("store", "watch_ended", "space=%s code=%d position=%" PRIu64, y->space, code,
          position(y));
    struct store_watch *w = TAKE_PTR(y->watch);
    store_watch_free(w);
    enter(y);
    if (code != ERR_GONE) {
        say_connected(y, false, err_name(code));
    }
    retry_later(y, code == ERR_GONE ? 0 : RETRY_MS);
    (void)leave(y);
}

/* One snapshot and the watch behind it. */
static int sync_once(struct syncer *y, struct err *e) {
    struct store_key all = key_of(y);
    struct scope *c = scope_begin(y, all.key);
    y->list_revision = 0;
    int r = store_list(y->s, all, &y->list_revision, on_list_item, y, e);
    if (r == 0 && y->list_revision < c->position) {
        r = err_set(e, ERR_RETRY, "the snapshot is older than what was seen");
    }
    if (r < 0 || y->is_dead) {
        return y->is_dead ? -ECANCELED : r;
    }
    say_connected(y, true, "");
    drop_missing(y, c, y->list_revision);
    c->position = y->list_revision;
    say_in_sync(y);
    say_batch_end(y);
    if (y->is_dead) {
        return -ECANCELED;
    }
    static const struct store_watch_ops ops = {
        .on_item = on_watch_item, .on_end = on_watch_end, .on_progress = on_watch_progress};
    return store_watch(y->s, y->l, all, c->position, &ops, y, &y->watch, e);
}

static void on_retry(void *arg) {
    struct syncer *y = arg;
    struct err e = {0};
    enter(y);
    int r = sync_once(y, &e);
    if (r < 0 && !y->is_dead) {
        LOG_W("store", "sync_failed", "space=%s error=%s", y->space, log_quote(str_c(e.msg)));
        say_connected(y, false, e.msg);
        retry_later(y, RETRY_MS);
    }
    (void)leave(y);
}

/* ---- a driver that follows by itself ---- */

static void on_follow_snapshot(void *arg, struct str scope) {
    (void)scope_begin(arg, scope);
}

/* What is passed on stays; the values decide what is news, as no revision is old any more. */
static void on_follow_reset(void *arg, struct str prefix) {
    struct syncer *y = arg;
    struct scope *c = scope_begin(y, prefix);
    size_t i = 0;
    struct known **v;
    c->position = 0;
    while (knowntab_next(&y->known, &i, NULL, &v)) {
        if (str_starts(keytext_view(&(*v)->key), c->prefix)) {
            (*v)->revision = 0;
        }
    }
}

static void on_follow_item(void *arg, const struct store_item *it) {
    struct syncer *y = arg;
    enter(y);
    take_item(y, it);
    (void)leave(y);
}

static void on_follow_snapshot_end(void *arg, struct str prefix, uint64_t revision) {
    struct syncer *y = arg;
    struct scope *c = scope_of(y, prefix);
    mg_assert(c != NULL);
    enter(y);
    drop_missing(y, c, revision);
    move_to(c, revision);
    say_batch_end(y);
    (void)leave(y);
}

static void on_follow_progress(void *arg, struct str prefix, uint64_t revision) {
    struct syncer *y = arg;
    enter(y);
    move_to(scope_of(y, prefix), revision);
    say_batch_end(y);
    (void)leave(y);
}

static void on_follow_in_sync(void *arg) {
    struct syncer *y = arg;
    enter(y);
    say_in_sync(y);
    say_batch_end(y);
    (void)leave(y);
}

static void on_follow_connected(void *arg, bool is_connected, const char *why) {
    struct syncer *y = arg;
    enter(y);
    say_connected(y, is_connected, why);
    (void)leave(y);
}

static int start_following(struct syncer *y, struct err *e) {
    static const struct store_follow_ops ops = {.on_snapshot = on_follow_snapshot,
                                                .on_reset = on_follow_reset,
                                                .on_item = on_follow_item,
                                                .on_snapshot_end = on_follow_snapshot_end,
                                                .on_progress = on_follow_progress,
                                                .on_in_sync = on_follow_in_sync,
                                                .on_connected = on_follow_connected};
    return y->s->drv->follow(y->s, y->l, key_of(y), &ops, y, &y->follow, e);
}

void syncer_ask(struct syncer *y) {
    if (y->follow) {
        y->s->drv->follow_ask(y->follow);
    }
}

/* ---- life ---- */

int syncer_start(struct store *s, struct loop *l, struct store_key prefix,
                 const struct syncer_ops *ops, void *arg, struct syncer **out, struct err *e) {
    struct syncer *y = calloc(1, sizeof(*y));
    mg_assert(y != NULL);
    y->s = s;
    y->l = l;
    y->space = strndup(prefix.space.p, prefix.space.n);
    y->prefix = strndup(prefix.key.n ? prefix.key.p : "", prefix.key.n);
    mg_assert(y->space != NULL && y->prefix != NULL);
    y->ops = *ops;
    y->arg = arg;
    y->retry = loop_timer_new(l, on_retry, y);
    *out = y; /* callbacks may look at it, or free it */
    enter(y);
    int r = s->drv->follow ? start_following(y, e) : sync_once(y, e);
    if (!s->drv->follow && (r == ERR_UNAVAILABLE || r == ERR_RETRY)) {
        say_connected(y, false, e ? e->msg : "");
        retry_later(y, RETRY_MS);
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
    if (y->follow) {
        y->s->drv->follow_free(TAKE_PTR(y->follow));
    }
    loop_timer_free(y->retry);
    y->retry = NULL;
    y->is_dead = true;
    if (y->depth == 0) {
        destroy(y);
    }
}
