/* The store's front: picks the driver by the URL's scheme and refuses what no driver may see. How
 * anything is kept is the drivers' affair (driver.h). */
#include "store/driver.h"

#include <stdlib.h>

static const struct store_driver *const drivers[] = {&store_sqlite, &store_agent, &store_etcd,
                                                     &store_kube};

int store_open(const char *url, struct store **out, struct err *e) {
    struct str u = str_c(url);
    ptrdiff_t colon = str_find(u, ':', 0);
    if (colon <= 0) {
        return err_set(e, ERR_INVALID,
                       "datastore URL \"%.200s\" has no scheme: write it as sqlite:PATH",
                       url ? url : "");
    }
    struct str scheme = str_sub(u, 0, (size_t)colon);
    char known[128];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(drivers); i++) {
        if (str_is(scheme, drivers[i]->scheme)) {
            return drivers[i]->open(str_sub(u, (size_t)colon + 1, u.n), out, e);
        }
        for (const char *c = drivers[i]->scheme; *c && n + 4 < sizeof(known); c++) {
            known[n++] = *c;
        }
        known[n++] = ':';
        known[n++] = ' ';
    }
    known[n - 1] = '\0';
    return err_set(e, ERR_INVALID,
                   "datastore URL \"%.200s\": no driver for \"%.*s:\"; this build has %s", url,
                   scheme.n > 40 ? 40 : (int)scheme.n, scheme.p, known);
}

static struct str env(const char *name) {
    const char *v = getenv(name);
    return v && v[0] ? str_c(v) : STR_NULL;
}

const char *store_url_from_env(void) {
    static const char *const types[] = {"DATASTORE_TYPE", "FELIX_DATASTORETYPE",
                                        "CALICO_DATASTORE_TYPE"};
    struct str type = STR_NULL;
    if (env("MARGAY_DATASTORE").p) {
        return env("MARGAY_DATASTORE").p;
    }
    for (size_t i = 0; i < ARRAY_LEN(types) && !type.p; i++) {
        type = env(types[i]);
    }
    if (str_ieq(type, STR("kubernetes"))) {
        return "kubernetes:";
    }
    bool is_etcd = str_ieq(type, STR("etcdv3")) || (!type.p && env("ETCD_ENDPOINTS").p);
    return is_etcd ? "etcd:" : NULL;
}

void store_close(struct store *s) {
    if (s) {
        s->drv->close(s);
    }
}

void store_interrupt(struct store *s) {
    if (s->drv->interrupt) {
        s->drv->interrupt(s);
    }
}

/* Keys go into SQL, URLs and file names of other tools: NUL is never one's part. */
static int check_key(struct store_key k, bool is_prefix, struct err *e) {
    if (k.space.n == 0 || k.space.n > STORE_KEY_MAX) {
        return err_set(e, ERR_INVALID, "store: a space has 1 to %d bytes, this one %zu",
                       STORE_KEY_MAX, k.space.n);
    }
    if ((k.key.n == 0 && !is_prefix) || k.key.n > STORE_KEY_MAX) {
        return err_set(e, k.key.n ? ERR_TOO_BIG : ERR_INVALID,
                       "store: a key has 1 to %d bytes, this one %zu", STORE_KEY_MAX, k.key.n);
    }
    if (memchr(k.space.p, '\0', k.space.n) || (k.key.n && memchr(k.key.p, '\0', k.key.n))) {
        return err_set(e, ERR_INVALID, "store: key \"%.*s\" holds a NUL byte", STR_FMT(k.key));
    }
    return 0;
}

int store_get(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
              struct err *e) {
    int r = check_key(k, false, e);
    return r < 0 ? r : s->drv->get(s, k, a, out, e);
}

int store_list(struct store *s, struct store_key prefix, uint64_t *revision_out,
               int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e) {
    int r = check_key(prefix, true, e);
    return r < 0 ? r : s->drv->list(s, prefix, revision_out, cb, arg, e);
}

int store_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
              uint64_t *revision_out, struct err *e) {
    int r = check_key(k, false, e);
    if (r < 0) {
        return r;
    }
    if (!value.p) {
        return err_set(e, ERR_INVALID, "store: no value for \"%.*s\"", STR_FMT(k.key));
    }
    if (value.n > STORE_VALUE_MAX) {
        return err_set(e, ERR_TOO_BIG, "store: the value of \"%.*s\" has %zu bytes, %u are allowed",
                       STR_FMT(k.key), value.n, STORE_VALUE_MAX);
    }
    return s->drv->put(s, k, value, expect, revision_out, e);
}

int store_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e) {
    int r = check_key(k, false, e);
    if (r < 0) {
        return r;
    }
    if (expect == REV_NONE) {
        return err_set(e, ERR_INVALID, "store: delete of \"%.*s\" that must not exist",
                       STR_FMT(k.key));
    }
    return s->drv->del(s, k, expect, e);
}

int store_begin(struct store *s, struct err *e) {
    if (s->in_tx) {
        return err_set(e, ERR_INVALID, "store: begin inside of begin");
    }
    int r = s->drv->begin(s, e);
    s->in_tx = r == 0;
    return r;
}

int store_commit(struct store *s, struct err *e) {
    if (!s->in_tx) {
        return err_set(e, ERR_INVALID, "store: commit without begin");
    }
    s->in_tx = false;
    return s->drv->commit(s, e);
}

void store_rollback(struct store *s) {
    if (s->in_tx) {
        s->in_tx = false;
        s->drv->rollback(s);
    }
}

uint64_t store_revision(struct store *s) {
    return s->drv->revision(s);
}

int store_watch(struct store *s, struct loop *l, struct store_key prefix, uint64_t from_revision,
                const struct store_watch_ops *ops, void *arg, struct store_watch **out,
                struct err *e) {
    int r = check_key(prefix, true, e);
    return r < 0 ? r : s->drv->watch(s, l, prefix, from_revision, ops, arg, out, e);
}

void store_watch_free(struct store_watch *w) {
    if (w) {
        w->drv->watch_free(w);
    }
}
