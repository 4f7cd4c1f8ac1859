/* The store's front: picks the driver by URL, checks keys, keeps transactions from nesting. */
#include "store/driver.h"

#include <stdlib.h>

enum { KEY_MAX = 1024, VALUE_MAX = 32 << 20 };

static const struct store_driver *const drivers[] = {
    &store_sqlite,
};

int store_open(const char *url, struct store **out, struct err *e) {
    for (size_t i = 0; i < ARRAY_LEN(drivers); i++) {
        size_t n = strlen(drivers[i]->scheme);
        if (strncmp(url, drivers[i]->scheme, n) != 0 || url[n] != ':') {
            continue;
        }
        struct store *s = calloc(1, sizeof(*s));
        mg_assert(s != NULL);
        s->driver = drivers[i];
        int r = s->driver->open(s, url + n + 1, e);
        if (r < 0) {
            free(s);
            return r;
        }
        *out = s;
        return 0;
    }
    return err_set(e, ERR_INVALID,
                   "datastore %s: unknown kind of store; this build knows sqlite:PATH", url);
}

void store_close(struct store *s) {
    if (s) {
        s->driver->close(s);
        free(s);
    }
}

static int check_key(struct store_key k, struct err *e) {
    if (k.space.n == 0 || k.space.n > 16 || k.key.n == 0 || k.key.n > KEY_MAX ||
        memchr(k.key.p, 0, k.key.n)) {
        return err_set(e, ERR_INVALID, "store key of %zu bytes: allowed are 1 to %d without NUL",
                       k.key.n, KEY_MAX);
    }
    return 0;
}

int store_get(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
              struct err *e) {
    int r = check_key(k, e);
    return r < 0 ? r : s->driver->get(s, k, a, out, e);
}

int store_list(struct store *s, struct store_key prefix, uint64_t *revision_out,
               int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e) {
    return s->driver->list(s, prefix, revision_out, cb, arg, e);
}

int store_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
              uint64_t *revision_out, struct err *e) {
    int r = check_key(k, e);
    if (r == 0 && (!value.p || value.n > VALUE_MAX)) {
        r = err_set(e, ERR_TOO_BIG, "store value of %zu bytes: at most %d are allowed", value.n,
                    VALUE_MAX);
    }
    return r < 0 ? r : s->driver->put(s, k, value, expect, revision_out, e);
}

int store_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e) {
    int r = check_key(k, e);
    return r < 0 ? r : s->driver->del(s, k, expect, e);
}

int store_begin(struct store *s, struct err *e) {
    mg_assert(!s->in_transaction);
    int r = s->driver->begin(s, e);
    s->in_transaction = r == 0;
    return r;
}

int store_commit(struct store *s, struct err *e) {
    mg_assert(s->in_transaction);
    s->in_transaction = false;
    return s->driver->commit(s, e);
}

void store_rollback(struct store *s) {
    if (s->in_transaction) {
        s->in_transaction = false;
        s->driver->rollback(s);
    }
}

uint64_t store_revision(struct store *s) {
    return s->driver->revision(s);
}

int store_watch(struct store *s, struct loop *l, struct store_key prefix, uint64_t from_revision,
                const struct store_watch_ops *ops, void *arg, struct store_watch **out,
                struct err *e) {
    return s->driver->watch(s, l, prefix, from_revision, ops, arg, out, e);
}

void store_watch_free(struct store_watch *w) {
    if (w) {
        w->store->driver->watch_free(w);
    }
}
