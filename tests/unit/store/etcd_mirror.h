/* Follows a space and keeps what it is told, as the syncer would; complains of what must not be. */
#pragma once

#include "store/driver.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

enum { MIRROR_MAX = 6000 };

struct mirror {
    struct loop *l;
    struct loop_timer *tick; /* the loop never sleeps for long */
    struct store *s;
    struct store_follow *f;
    struct {
        char key[200], value[64];
        uint64_t revision, snapshot;
    } item[MIRROR_MAX];
    size_t n, n_items_told;
    uint64_t snapshot, position, last_revision;
    unsigned n_in_sync, n_lost, n_back, n_snapshots;
    bool is_connected, is_in_snapshot;
    char why[1024];
};

static inline void mirror_tick(void *arg) {
    (void)arg;
}

static inline size_t mirror_find(const struct mirror *m, struct str key) {
    size_t i = 0;
    while (i < m->n && !str_is(key, m->item[i].key)) {
        i++;
    }
    return i;
}

static inline void mirror_on_snapshot(void *arg, struct str scope) {
    struct mirror *m = arg;
    assert_int_equal(scope.n, 0);
    m->snapshot++;
    m->n_snapshots++;
    m->is_in_snapshot = true;
}

static inline void mirror_on_item(void *arg, const struct store_item *it) {
    struct mirror *m = arg;
    size_t i = mirror_find(m, it->key);
    m->n_items_told++;
    if (!m->is_in_snapshot) {
        assert_true(it->revision >= m->last_revision); /* in order */
        m->last_revision = it->revision;
    }
    if (!it->value.p) {
        if (i < m->n) {
            m->item[i] = m->item[--m->n];
        }
        return;
    }
    assert_true(i < MIRROR_MAX);
    (void)snprintf(m->item[i].key, sizeof(m->item[i].key), "%.*s", STR_FMT(it->key));
    (void)snprintf(m->item[i].value, sizeof(m->item[i].value), "%.*s", STR_FMT(it->value));
    m->item[i].revision = it->revision;
    m->item[i].snapshot = m->snapshot;
    m->n = i == m->n ? m->n + 1 : m->n;
}

static inline void mirror_on_snapshot_end(void *arg, struct str scope, uint64_t revision) {
    struct mirror *m = arg;
    (void)scope;
    for (size_t i = 0; i < m->n;) {
        if (m->item[i].snapshot != m->snapshot) {
            m->item[i] = m->item[--m->n];
        } else {
            i++;
        }
    }
    m->is_in_snapshot = false;
    m->position = m->last_revision = revision;
}

static inline void mirror_on_progress(void *arg, struct str scope, uint64_t revision) {
    struct mirror *m = arg;
    (void)scope;
    assert_true(revision >= m->position && revision >= m->last_revision);
    m->position = revision;
}

static inline void mirror_on_in_sync(void *arg) {
    struct mirror *m = arg;
    m->n_in_sync++;
}

static inline void mirror_on_connected(void *arg, bool is_connected, const char *why) {
    struct mirror *m = arg;
    m->is_connected = is_connected;
    m->n_lost += !is_connected;
    m->n_back += is_connected;
    if (!is_connected) {
        (void)snprintf(m->why, sizeof(m->why), "%s", why);
    }
}

static inline void mirror_open(struct mirror *m, struct store *s, const char *space) {
    static const struct store_follow_ops ops = {.on_snapshot = mirror_on_snapshot,
                                                .on_item = mirror_on_item,
                                                .on_snapshot_end = mirror_on_snapshot_end,
                                                .on_progress = mirror_on_progress,
                                                .on_in_sync = mirror_on_in_sync,
                                                .on_connected = mirror_on_connected};
    struct err e = {.msg = ""};
    memset(m, 0, sizeof(*m));
    m->l = loop_new();
    m->tick = loop_timer_new(m->l, mirror_tick, NULL);
    loop_timer_start(m->tick, 20, 20);
    m->s = s;
    if (s->drv->follow(s, m->l, (struct store_key){str_c(space), STR("")}, &ops, m, &m->f, &e) <
        0) {
        fail_msg("%s", e.msg);
    }
}

static inline void mirror_close(struct mirror *m) {
    m->s->drv->follow_free(m->f);
    loop_timer_free(m->tick);
    loop_free(m->l);
}

/* Runs the loop until cond holds; a minute is far more than anything takes. */
#define mirror_until(m, cond)                                     \
    do {                                                          \
        int64_t until_end = clock_ns() + 60 * 1000000000LL;       \
        while (!(cond)) {                                         \
            if (clock_ns() > until_end) {                         \
                fail_msg("never: %s (why: %s)", #cond, (m)->why); \
            }                                                     \
            loop_step((m)->l, true);                              \
        }                                                         \
    } while (0)

static inline const char *mirror_value(const struct mirror *m, const char *key) {
    size_t i = mirror_find(m, str_c(key));
    return i < m->n ? m->item[i].value : "";
}

/* Until everything written so far has been told. */
static inline void mirror_catch_up(struct mirror *m) {
    uint64_t want = store_revision(m->s);
    m->s->drv->follow_ask(m->f);
    mirror_until(m, m->position >= want);
}

static inline struct store *open_url(const char *url) {
    char text[1200];
    struct store *s = NULL;
    struct err e = {.msg = ""};
    (void)snprintf(text, sizeof(text), "etcd:%s", url);
    if (store_open(text, &s, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return s;
}

/* Until the cluster answers to this store. */
static inline void wait_ready(struct store *s) {
    struct err e = {.msg = ""};
    struct arena a = {0};
    struct store_item it;
    int64_t end = clock_ns() + 60 * 1000000000LL;
    struct store_key k = {STR(STORE_SPACE_RESOURCES), STR("Pod/none/none")};
    while (store_get(s, k, &a, &it, &e) != ERR_NOT_FOUND) {
        if (clock_ns() > end) {
            fail_msg("etcd does not answer: %s", e.msg);
        }
        usleep(50000);
    }
    arena_fini(&a);
}

static inline void ok(int r, const struct err *e) {
    if (r < 0) {
        fail_msg("%d: %s", r, e->msg);
    }
}

static inline struct store_key ikey(const char *k) {
    return (struct store_key){STR(STORE_SPACE_IPAM), str_c(k)};
}

/* Writes to "/ipam/v2/handle/NAME", whatever is there. */
static inline uint64_t put_handle(struct store *s, const char *name, const char *value) {
    char key[100];
    struct err e = {.msg = ""};
    uint64_t revision = 0;
    (void)snprintf(key, sizeof(key), "/ipam/v2/handle/%s", name);
    ok(store_put(s, ikey(key), str_c(value), REV_ANY, &revision, &e), &e);
    return revision;
}
