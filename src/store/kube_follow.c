/* Following a space, and watching a prefix: owners of a source (kube_reflect.h). */
#include "store/kube_reflect.h"

#include "base/log.h"

#include <stdlib.h>

/* ---- following ---- */

struct follow {
    struct store_follow base;
    struct kube_source src;
    struct store_follow_ops ops;
    void *arg;
    size_t n_pending, n_down; /* reflectors without a first snapshot; that don't work */
    bool is_lost;
};

static void follow_snapshot(void *owner, struct str scope) {
    struct follow *f = owner;
    f->ops.on_snapshot(f->arg, scope);
}
static void follow_item(void *owner, const struct store_item *it) {
    struct follow *f = owner;
    f->ops.on_item(f->arg, it);
}
static void follow_snapshot_end(void *owner, struct str scope, uint64_t revision) {
    struct follow *f = owner;
    f->ops.on_snapshot_end(f->arg, scope, revision);
}
static void follow_progress(void *owner, struct str scope, uint64_t revision) {
    struct follow *f = owner;
    f->ops.on_progress(f->arg, scope, revision);
}

static void follow_state(void *owner, struct kube_reflect *r, const char *why) {
    struct follow *f = owner;
    size_t n_pending = 0, n_down = 0;
    for (size_t i = 0; i < f->src.n; i++) {
        n_pending += !f->src.reflectors[i].is_listed;
        n_down += f->src.reflectors[i].is_down;
    }
    bool is_first = f->n_pending && !n_pending;
    f->n_pending = n_pending;
    f->n_down = n_down;
    if (is_first) {
        f->ops.on_in_sync(f->arg);
    }
    if (f->src.is_dead) {
        return;
    }
    if (n_down && !f->is_lost) {
        f->is_lost = true;
        f->ops.on_connected(f->arg, false, why[0] ? why : r->why);
    } else if (!n_down && f->is_lost && !n_pending) {
        f->is_lost = false;
        f->ops.on_connected(f->arg, true, "");
    }
}

int kube_follow(struct store *s, struct loop *l, struct store_key prefix,
                const struct store_follow_ops *ops, void *arg, struct store_follow **out,
                struct err *e) {
    static const struct kube_source_ops source_ops = {.on_snapshot = follow_snapshot,
                                                      .on_item = follow_item,
                                                      .on_snapshot_end = follow_snapshot_end,
                                                      .on_progress = follow_progress,
                                                      .on_state = follow_state};
    struct kube_store *k = (struct kube_store *)s;
    const struct kube_view *views[KUBE_VIEWS_MAX];
    struct str ns;
    size_t n = kube_views_of(prefix, views, &ns);
    struct follow *f = calloc(1, sizeof(*f));
    mg_assert(f != NULL);
    f->base.drv = &store_kube;
    f->ops = *ops;
    f->arg = arg;
    kube_source_init(&f->src, l, k->shared, &source_ops, f);
    f->src.is_slim = f->src.may_list = true;
    for (size_t i = 0; i < n; i++) {
        if (views[i]->is_followed) {
            kube_source_add(&f->src, views[i]);
        }
    }
    if (f->src.n == 0) {
        kube_source_end(&f->src);
        return err_set(e, ERR_INVALID, "\"%.*s\" can't be followed at the Kubernetes API",
                       STR_FMT(prefix.key));
    }
    f->n_pending = f->src.n;
    *out = &f->base;
    kube_source_enter(&f->src);
    kube_source_start(&f->src, 0);
    for (size_t i = 0; i < f->src.n && !f->src.is_dead; i++) {
        kube_reflect_begin_snapshot(&f->src.reflectors[i]); /* so that every scope is known */
    }
    kube_source_leave(&f->src);
    return 0;
}

void kube_follow_ask(struct store_follow *sf) {
    struct follow *f = (struct follow *)sf;
    kube_source_enter(&f->src);
    for (size_t i = 0; i < f->src.n && !f->src.is_dead; i++) {
        kube_reflect_ask(&f->src.reflectors[i]);
    }
    kube_source_leave(&f->src);
}

void kube_follow_free(struct store_follow *sf) {
    kube_source_end(&((struct follow *)sf)->src);
}

/* ---- watching a prefix ---- */

struct watch {
    struct store_watch base;
    struct kube_source src;
    struct store_watch_ops ops;
    void *arg;
    bool is_over;
    size_t n_prefix;
    char prefix[];
};

static void watch_snapshot(void *owner, struct str scope) {
    (void)owner;
    (void)scope;
}
static void watch_snapshot_end(void *owner, struct str scope, uint64_t revision) {
    (void)owner;
    (void)scope;
    (void)revision;
}

static void watch_item(void *owner, const struct store_item *it) {
    struct watch *w = owner;
    if (!w->is_over && str_starts(it->key, str_n(w->prefix, w->n_prefix))) {
        w->ops.on_item(w->arg, it);
    }
}

/* The least that every reflector has come to. */
static void watch_progress(void *owner, struct str scope, uint64_t revision) {
    struct watch *w = owner;
    (void)scope;
    for (size_t i = 0; i < w->src.n; i++) {
        uint64_t pos = w->src.reflectors[i].pos;
        revision = pos < revision ? pos : revision;
    }
    if (!w->is_over && w->ops.on_progress) {
        w->ops.on_progress(w->arg, revision);
    }
}

static void watch_over(struct watch *w, int code) {
    if (!w->is_over) {
        w->is_over = true;
        w->ops.on_end(w->arg, code);
    }
}

/* Without a right or a kind there is nothing to wait for. */
static void watch_state(void *owner, struct kube_reflect *r, const char *why) {
    struct watch *w = owner;
    int status = r->main.status;
    if (r->is_down && status >= 400 && status < 500 && status != 429) {
        LOG_W("store", "watch_refused", "error=%s", log_quote(str_c(why)));
        watch_over(w, status == 404 ? ERR_NOT_FOUND : ERR_DENIED);
    }
}

static void watch_gone(void *owner, int code) {
    watch_over(owner, code);
}

int kube_watch(struct store *s, struct loop *l, struct store_key prefix, uint64_t from_revision,
               const struct store_watch_ops *ops, void *arg, struct store_watch **out,
               struct err *e) {
    static const struct kube_source_ops source_ops = {.on_snapshot = watch_snapshot,
                                                      .on_item = watch_item,
                                                      .on_snapshot_end = watch_snapshot_end,
                                                      .on_progress = watch_progress,
                                                      .on_state = watch_state,
                                                      .on_gone = watch_gone};
    struct kube_store *k = (struct kube_store *)s;
    const struct kube_view *views[KUBE_VIEWS_MAX];
    struct str ns;
    size_t n = kube_views_of(prefix, views, &ns);
    if (n == 0) {
        return err_set(e, ERR_INVALID, "prefix \"%.*s\" has no place in the Kubernetes API",
                       STR_FMT(prefix.key));
    }
    struct watch *w = calloc(1, sizeof(*w) + prefix.key.n + 1);
    mg_assert(w != NULL);
    w->base.drv = &store_kube;
    w->ops = *ops;
    w->arg = arg;
    w->n_prefix = prefix.key.n;
    memcpy(w->prefix, prefix.key.p ? prefix.key.p : "", prefix.key.n);
    kube_source_init(&w->src, l, k->shared, &source_ops, w);
    for (size_t i = 0; i < n; i++) {
        if (n <= 2 || views[i]->is_followed) {
            kube_source_add(&w->src, views[i]);
        }
    }
    kube_source_start(&w->src, from_revision);
    *out = &w->base;
    return 0;
}

void kube_watch_free(struct store_watch *w) {
    kube_source_end(&((struct watch *)w)->src);
}
