#include "sim_store.h"

#include "base/vec.h"

#include <stdlib.h>

enum { N_VERSIONS = 4 };

struct version {
    char *value; /* NULL: absent */
    size_t n;
    uint64_t revision;
};
struct sim_item {
    char *key;                    /* space and key, divided by '|' */
    struct version v[N_VERSIONS]; /* newest first */
};
struct sim_store {
    struct store base;
    const struct sim_hooks *hooks;
    VEC(struct sim_item) items; /* by key */
    uint64_t revision;
    size_t n_calls;
    bool is_quiet;
};

static struct sim_store *of(struct store *s) {
    return (struct sim_store *)s;
}

static size_t place(const struct sim_store *s, const char *key, bool *is_there) {
    size_t lo = 0, hi = s->items.n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(s->items.p[mid].key, key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    *is_there = lo < s->items.n && strcmp(s->items.p[lo].key, key) == 0;
    return lo;
}

static enum sim_fate before(struct sim_store *s, bool is_write) {
    s->n_calls++;
    return s->is_quiet ? SIM_GOES_WELL : s->hooks->before(s->hooks->arg, is_write);
}

static int after(struct sim_store *s, enum sim_fate fate, int code, struct err *e) {
    if (!s->is_quiet) {
        s->hooks->after(s->hooks->arg);
    }
    return fate == SIM_LOST_ANSWER ? err_set(e, -ETIMEDOUT, "no answer") : code;
}

static int failed(struct sim_store *s, struct err *e) {
    return after(s, SIM_FAILS, err_set(e, ERR_UNAVAILABLE, "no datastore"), e);
}

static const struct version *as_of(const struct sim_item *it, uint64_t revision) {
    for (int i = 0; i < N_VERSIONS; i++) {
        if (it->v[i].revision && it->v[i].revision <= revision) {
            return &it->v[i];
        }
    }
    return NULL; /* not born yet, or forgotten: as if absent */
}

static uint64_t seen_revision(struct sim_store *s, enum sim_fate fate) {
    uint64_t back = fate == SIM_STALE ? s->hooks->rnd(N_VERSIONS) : 0;
    return s->revision > back ? s->revision - back : 0;
}

static int sim_get(struct store *st, struct store_key k, struct arena *a, struct store_item *out,
                   struct err *e) {
    struct sim_store *s = of(st);
    enum sim_fate fate = before(s, false);
    if (fate == SIM_FAILS || fate == SIM_LOST_ANSWER) {
        return failed(s, e);
    }
    bool is_there;
    const char *key = arena_printf(a, "%.*s|%.*s", STR_FMT(k.space), STR_FMT(k.key)).p;
    size_t i = place(s, key, &is_there);
    const struct version *v = is_there ? as_of(&s->items.p[i], seen_revision(s, fate)) : NULL;
    if (!v || !v->value) {
        return after(s, fate, err_set(e, ERR_NOT_FOUND, "%s", key), e);
    }
    *out = (struct store_item){arena_dup(a, k.space), arena_dup(a, k.key),
                               arena_dup(a, str_n(v->value, v->n)), v->revision};
    return after(s, fate, 0, e);
}

static int sim_list(struct store *st, struct store_key prefix, uint64_t *revision_out,
                    int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e) {
    struct sim_store *s = of(st);
    enum sim_fate fate = before(s, false);
    if (fate == SIM_FAILS || fate == SIM_LOST_ANSWER) {
        return failed(s, e);
    }
    uint64_t revision = seen_revision(s, fate);
    struct arena a = {0};
    struct str start = arena_printf(&a, "%.*s|%.*s", STR_FMT(prefix.space), STR_FMT(prefix.key));
    VEC(struct store_item) found = {0};
    bool is_there;
    for (size_t i = place(s, start.p, &is_there); i < s->items.n; i++) {
        const struct version *v = as_of(&s->items.p[i], revision);
        if (!str_starts(str_c(s->items.p[i].key), start)) {
            break;
        }
        if (v && v->value) {
            struct str key = arena_dup(&a, str_c(s->items.p[i].key));
            vec_push(&found,
                     (struct store_item){prefix.space, str_sub(key, prefix.space.n + 1, key.n),
                                         arena_dup(&a, str_n(v->value, v->n)), v->revision});
        }
    }
    if (revision_out) {
        *revision_out = revision;
    }
    int r = 0;
    (void)after(s, fate, 0, NULL);
    for (size_t i = 0; i < found.n && r >= 0; i++) {
        r = cb(arg, &found.p[i]);
    }
    vec_fini(&found);
    arena_fini(&a);
    return r < 0 ? r : 0;
}

static void push(struct sim_item *it, struct version v) {
    free(it->v[N_VERSIONS - 1].value);
    memmove(&it->v[1], &it->v[0], (N_VERSIONS - 1) * sizeof(it->v[0]));
    it->v[0] = v;
}

/* value STR_NULL: delete. */
static int write(struct sim_store *s, struct store_key k, struct str value, uint64_t expect,
                 uint64_t *revision_out, struct err *e) {
    enum sim_fate fate = before(s, true);
    if (fate == SIM_FAILS) {
        return failed(s, e);
    }
    struct arena a = {0};
    bool is_there;
    const char *key = arena_printf(&a, "%.*s|%.*s", STR_FMT(k.space), STR_FMT(k.key)).p;
    size_t i = place(s, key, &is_there);
    bool has = is_there && s->items.p[i].v[0].value;
    int r = 0;
    if (expect == REV_NONE && has) {
        r = err_set(e, ERR_EXISTS, "%s", key);
    } else if (expect != REV_NONE && (expect != REV_ANY || !value.p) && !has) {
        r = err_set(e, ERR_NOT_FOUND, "%s", key);
    } else if (expect != REV_NONE && expect != REV_ANY && s->items.p[i].v[0].revision != expect) {
        r = err_set(e, ERR_CONFLICT, "%s", key);
    }
    if (r == 0) {
        if (!is_there) {
            vec_push(&s->items, (struct sim_item){.key = NULL});
            memmove(&s->items.p[i + 1], &s->items.p[i],
                    (s->items.n - 1 - i) * sizeof(s->items.p[0]));
            s->items.p[i] = (struct sim_item){.key = strdup(key)};
        }
        struct version v = {value.p ? strndup(value.p, value.n) : NULL, value.n, ++s->revision};
        push(&s->items.p[i], v);
        if (revision_out) {
            *revision_out = v.revision;
        }
    }
    arena_fini(&a);
    /* A refusal that got lost is a failure like others. */
    return after(s, fate, r, e);
}

static int sim_put(struct store *st, struct store_key k, struct str value, uint64_t expect,
                   uint64_t *revision_out, struct err *e) {
    return write(of(st), k, value, expect, revision_out, e);
}

static int sim_del(struct store *st, struct store_key k, uint64_t expect, struct err *e) {
    return write(of(st), k, STR_NULL, expect, NULL, e);
}

static int sim_begin(struct store *s MG_UNUSED, struct err *e MG_UNUSED) {
    return 0;
}
static void sim_rollback(struct store *s MG_UNUSED) {
}
static uint64_t sim_revision(struct store *s) {
    return of(s)->revision;
}

void sim_store_reset(struct store *st) {
    struct sim_store *s = of(st);
    for (size_t i = 0; i < s->items.n; i++) {
        for (int k = 0; k < N_VERSIONS; k++) {
            free(s->items.p[i].v[k].value);
        }
        free(s->items.p[i].key);
    }
    s->items.n = 0;
    s->revision = 0;
}

static void sim_close(struct store *s) {
    sim_store_reset(s);
    vec_fini(&of(s)->items);
    free(s);
}

void sim_store_quiet(struct store *s, bool is_quiet) {
    of(s)->is_quiet = is_quiet;
}

size_t sim_store_calls(const struct store *s) {
    return ((const struct sim_store *)s)->n_calls;
}

struct store *sim_store_new(const struct sim_hooks *hooks) {
    static const struct store_driver driver = {.scheme = "sim",
                                               .close = sim_close,
                                               .get = sim_get,
                                               .list = sim_list,
                                               .put = sim_put,
                                               .del = sim_del,
                                               .begin = sim_begin,
                                               .commit = sim_begin,
                                               .rollback = sim_rollback,
                                               .revision = sim_revision};
    struct sim_store *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->base.drv = &driver;
    s->hooks = hooks;
    return &s->base;
}
