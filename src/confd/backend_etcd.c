/* Keys from etcd v3, as they are (the store's space "raw"). Every prefix is listed, and watched
 * from the revision of the list, so nothing is missed between the two. */
#include "confd/backend.h"

#include "base/buf.h"
#include "base/log.h"
#include "store/etcd_map.h"
#include "store/store.h"

enum { WATCHES_MAX = 8 }; /* each is a connection; more prefixes are watched as what they share */

struct etcd_backend {
    struct backend b;
    const struct confd_options *o;
    const struct str *prefixes;
    size_t n_prefixes;
    struct store *s;
    uint64_t revision; /* the lowest of the last lists */
    /* watching */
    struct loop *loop;
    struct store_watch *watch[WATCHES_MAX];
    size_t n_watches;
    const struct backend_events *ev;
    void *arg;
};

static struct etcd_backend *self_of(struct backend *b) {
    return container_of(b, struct etcd_backend, b);
}

static void put_escaped(struct buf *b, const char *s) {
    for (; *s; s++) {
        if (strchr("%&?=#,", *s)) {
            buf_printf(b, "%%%02x", (unsigned char)*s);
        } else {
            buf_putc(b, *s);
        }
    }
}

static void put_option(struct buf *b, const char *name, const char *value, bool *has_query) {
    if (value && value[0]) {
        buf_printf(b, "%c%s=", *has_query ? '&' : '?', name);
        put_escaped(b, value);
        *has_query = true;
    }
}

static int open_store(struct etcd_backend *t, struct err *e) {
    const struct confd_options *o = t->o;
    bool has_tls = o->client_cakeys || o->client_cert || o->client_insecure, has_query = false;
    struct buf b = BUF_INIT(1 << 16);
    buf_puts(&b, "etcd:");
    for (size_t i = 0; i < o->nodes.n; i++) {
        const char *node = o->nodes.p[i];
        buf_printf(&b, "%s%s%s", i ? "," : "",
                   strstr(node, "://")               ? ""
                   : has_tls                         ? "https://"
                   : strcmp(o->scheme, "https") == 0 ? "https://"
                                                     : "http://",
                   node);
    }
    put_option(&b, "ca", o->client_cakeys, &has_query);
    put_option(&b, "cert", o->client_cert, &has_query);
    put_option(&b, "key", o->client_key, &has_query);
    put_option(&b, "insecure", o->client_insecure ? "true" : NULL, &has_query);
    put_option(&b, "user", o->username, &has_query);
    put_option(&b, "password", o->password, &has_query);
    int r = store_open(buf_cstr(&b), &t->s, e);
    explicit_bzero(b.p, b.n);
    buf_fini(&b);
    return r;
}

struct listing {
    struct kv *fresh;
    struct err *e;
};

static int take_item(void *arg, const struct store_item *it) {
    struct listing *l = arg;
    if (!kv_add(l->fresh, it->key, it->value)) {
        return err_set(l->e, ERR_TOO_BIG,
                       "etcd: key %.*s or its value is too long, or there are "
                       "too many",
                       it->key.n > 200 ? 200 : (int)it->key.n, it->key.p);
    }
    return 0;
}

static struct store_key raw(struct str key) {
    return (struct store_key){STR(STORE_SPACE_RAW), key};
}

/* ---- watching ---- */

static void end_watches(struct etcd_backend *t) {
    for (size_t i = 0; i < t->n_watches; i++) {
        store_watch_free(t->watch[i]);
    }
    t->n_watches = 0;
}

static void on_item(void *arg, const struct store_item *it) {
    struct etcd_backend *t = arg;
    for (size_t i = 0; i < t->n_prefixes; i++) {
        if (str_starts(it->key, t->prefixes[i])) {
            t->ev->change(t->arg, it->key, it->value);
            return;
        }
    }
}

/* The history is gone, or the server: everything is read again. */
static void on_end(void *arg, int code MG_UNUSED) {
    struct etcd_backend *t = arg;
    t->ev->stale(t->arg);
}

static const struct store_watch_ops watch_ops = {.on_item = on_item, .on_end = on_end};

/* What all prefixes share: "/a" of /app and /apple. */
static struct str common(const struct etcd_backend *t) {
    struct str s = t->prefixes[0];
    for (size_t i = 1; i < t->n_prefixes; i++) {
        while (!str_starts(t->prefixes[i], s)) {
            s.n--;
        }
    }
    return s;
}

static int start_watches(struct etcd_backend *t, struct err *e) {
    bool is_one = t->n_prefixes > WATCHES_MAX;
    size_t n = is_one ? 1 : t->n_prefixes;
    end_watches(t);
    for (size_t i = 0; i < n; i++) {
        struct str p = is_one ? common(t) : t->prefixes[i];
        int r = store_watch(t->s, t->loop, raw(p), t->revision, &watch_ops, t,
                            &t->watch[t->n_watches], e);
        if (r < 0) {
            return r;
        }
        t->n_watches++;
    }
    return 0;
}

static int etcd_read(struct backend *b, struct kv *fresh, struct err *e) {
    struct etcd_backend *t = self_of(b);
    struct listing l = {fresh, e};
    int r = t->s ? 0 : open_store(t, e);
    t->revision = UINT64_MAX;
    for (size_t i = 0; i < t->n_prefixes && r == 0; i++) {
        uint64_t revision = 0;
        r = store_list(t->s, raw(t->prefixes[i]), &revision, take_item, &l, e);
        t->revision = revision < t->revision ? revision : t->revision;
    }
    return r < 0 || !t->loop || t->n_prefixes == 0 ? r : start_watches(t, e);
}

static int etcd_watch(struct backend *b, struct loop *l, const struct backend_events *ev, void *arg,
                      struct err *e MG_UNUSED) {
    struct etcd_backend *t = self_of(b);
    t->loop = l;
    t->ev = ev;
    t->arg = arg;
    ev->stale(arg);
    return 0;
}

static int etcd_open(const struct confd_options *o, const struct str *prefixes, size_t n,
                     struct backend **out, struct err *e) {
    struct etcd_backend *t = calloc(1, sizeof(*t));
    mg_assert(t != NULL);
    t->b.ops = &backend_etcd;
    t->o = o;
    t->prefixes = prefixes;
    t->n_prefixes = n;
    int r = open_store(t, e);
    if (r < 0 && r != ERR_UNAVAILABLE) {
        free(t);
        return r;
    }
    *out = &t->b;
    return 0;
}

static void etcd_close(struct backend *b) {
    struct etcd_backend *t = self_of(b);
    end_watches(t);
    store_close(t->s);
    free(t);
}

const struct backend_ops backend_etcd = {
    .name = "etcd", .open = etcd_open, .close = etcd_close, .read = etcd_read, .watch = etcd_watch};
