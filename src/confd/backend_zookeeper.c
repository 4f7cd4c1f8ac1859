/* Keys from ZooKeeper: the data of nodes without children. Every node that was read is watched;
 * ZooKeeper's own thread hands the events over, and the loop reads again what changed. */
#include "confd/backend.h"

#include "base/buf.h"
#include "base/fd.h"
#include "base/library.h"
#include "base/log.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>
#define THREADED /* the calls that block */
#include <zookeeper/zookeeper.h>

/* Its functions, and its constants, which are objects of the library. */
#define CALLS(X)                 \
    X(ZOO_AUTH_FAILED_STATE)     \
    X(ZOO_CHANGED_EVENT)         \
    X(ZOO_CONNECTED_STATE)       \
    X(ZOO_EXPIRED_SESSION_STATE) \
    X(ZOO_SESSION_EVENT)         \
    X(deallocate_String_vector)  \
    X(zerror)                    \
    X(zoo_set_debug_level)       \
    X(zoo_state)                 \
    X(zoo_wexists)               \
    X(zoo_wget)                  \
    X(zoo_wget_children)         \
    X(zookeeper_close)           \
    X(zookeeper_init)

static struct { CALLS(LIBRARY_POINTER) } lib;
#define SYMBOL(f) LIBRARY_SYMBOL(lib, f),
static const struct library_symbol symbols[] = {CALLS(SYMBOL)};
static struct library zookeeper = {.soname = "libzookeeper_mt.so.2",
                                   .package = "libzookeeper-mt2",
                                   .symbols = symbols,
                                   .n_symbols = ARRAY_LEN(symbols)};

enum {
    SESSION_MS = 10000,
    CONNECT_MS = 5000,
    DATA_MAX = 1 << 20, /* ZooKeeper's own limit */
    DEPTH_MAX = 64,
    EVENTS_MAX = 256, /* beyond, everything is read again */
};

struct zk {
    struct backend b;
    const struct confd_options *o;
    const struct str *prefixes;
    size_t n_prefixes;
    zhandle_t *h;
    char *data; /* DATA_MAX bytes */
    /* watching */
    struct loop_poll *poll;
    const struct backend_events *ev;
    void *arg;
    /* between the two threads */
    pthread_mutex_t lock;
    int fd; /* eventfd: something below is new */
    struct arena paths_arena;
    VEC(struct str) changed; /* paths whose data is new */
    bool is_stale, is_expired, is_away;
};

static struct zk *self_of(struct backend *b) {
    return container_of(b, struct zk, b);
}

/* On ZooKeeper's thread. */
static void on_event(zhandle_t *h MG_UNUSED, int type, int state, const char *path, void *context) {
    struct zk *z = context;
    (void)pthread_mutex_lock(&z->lock);
    if (type == *lib.ZOO_SESSION_EVENT) {
        z->is_away = state != *lib.ZOO_CONNECTED_STATE;
        z->is_expired = z->is_expired || state == *lib.ZOO_EXPIRED_SESSION_STATE;
        z->is_stale = z->is_stale || z->is_expired || state == *lib.ZOO_CONNECTED_STATE;
    } else if (type == *lib.ZOO_CHANGED_EVENT && path && z->changed.n < EVENTS_MAX) {
        vec_push(&z->changed, arena_dup(&z->paths_arena, str_c(path)));
    } else {
        z->is_stale = true;
    }
    (void)pthread_mutex_unlock(&z->lock);
    (void)!write(z->fd, &(uint64_t){1}, sizeof(uint64_t));
}

static int fail(struct zk *z, int rc, const char *path, struct err *e) {
    return err_set(e, ERR_UNAVAILABLE, "zookeeper %s: %s: %s", z->o->nodes.p[0], path,
                   lib.zerror(rc));
}

static void hang_up(struct zk *z) {
    if (z->h) {
        (void)lib.zookeeper_close(z->h);
    }
    z->h = NULL;
}

static int connect_to(struct zk *z, struct err *e) {
    (void)pthread_mutex_lock(&z->lock);
    bool is_expired = z->is_expired;
    z->is_expired = false;
    (void)pthread_mutex_unlock(&z->lock);
    if (is_expired) {
        hang_up(z);
    }
    if (!z->h) {
        struct buf hosts = BUF_INIT(1 << 16);
        for (size_t i = 0; i < z->o->nodes.n; i++) {
            buf_printf(&hosts, "%s%s", i ? "," : "", z->o->nodes.p[i]);
        }
        lib.zoo_set_debug_level((ZooLogLevel)0);
        z->h = lib.zookeeper_init(buf_cstr(&hosts), on_event, SESSION_MS, NULL, z, 0);
        buf_fini(&hosts);
        if (!z->h) {
            return err_set(e, ERR_UNAVAILABLE, "zookeeper %s: %s", z->o->nodes.p[0],
                           err_name(-errno));
        }
    }
    for (int ms = 0; lib.zoo_state(z->h) != *lib.ZOO_CONNECTED_STATE; ms += 10) {
        int state = lib.zoo_state(z->h);
        if (state == *lib.ZOO_EXPIRED_SESSION_STATE || state == *lib.ZOO_AUTH_FAILED_STATE ||
            ms >= CONNECT_MS) {
            hang_up(z); /* the next try begins anew */
            return err_set(e, ERR_UNAVAILABLE, "zookeeper %s: no session within %d s",
                           z->o->nodes.p[0], CONNECT_MS / 1000);
        }
        (void)poll(NULL, 0, 10);
    }
    return 0;
}

static int get_data(struct zk *z, const char *path, struct str *out, struct err *e) {
    int n = DATA_MAX;
    struct Stat st;
    int rc = lib.zoo_wget(z->h, path, z->ev ? on_event : NULL, z, z->data, &n, &st);
    *out = n > 0 ? str_n(z->data, (size_t)n) : STR("");
    return rc == ZNONODE ? ERR_NOT_FOUND : rc != ZOK ? fail(z, rc, path, e) : 0;
}

static int walk(struct zk *z, const char *path, unsigned depth, struct kv *fresh, struct err *e) {
    struct String_vector kids = {0};
    struct str v = STR_NULL;
    if (depth > DEPTH_MAX) {
        return err_set(e, ERR_TOO_BIG, "zookeeper: %s is more than %d deep", path, DEPTH_MAX);
    }
    int rc = lib.zoo_wget_children(z->h, path, z->ev ? on_event : NULL, z, &kids);
    if (rc == ZNONODE) {
        struct Stat st;
        (void)lib.zoo_wexists(z->h, path, z->ev ? on_event : NULL, z, &st); /* to be told of it */
        return 0;
    }
    if (rc != ZOK) {
        return fail(z, rc, path, e);
    }
    int r = 0;
    if (kids.count == 0) {
        r = get_data(z, path, &v, e);
        if (r == 0 && !kv_add(fresh, str_c(path), v)) {
            r = err_set(e, ERR_TOO_BIG, "zookeeper: %s: the path or its data is too long", path);
        }
        r = r == ERR_NOT_FOUND ? 0 : r;
    }
    for (int32_t i = 0; i < kids.count && r == 0; i++) {
        struct buf b = BUF_INIT(KV_KEY_MAX);
        buf_printf(&b, "%s/%s", strcmp(path, "/") == 0 ? "" : path, kids.data[i]);
        if (!b.overflow) {
            r = walk(z, buf_cstr(&b), depth + 1, fresh, e);
        }
        buf_fini(&b);
    }
    (void)lib.deallocate_String_vector(&kids);
    return r;
}

static int zk_read(struct backend *b, struct kv *fresh, struct err *e) {
    struct zk *z = self_of(b);
    struct arena a = {0};
    int r = connect_to(z, e);
    for (size_t i = 0; i < z->n_prefixes && r == 0; i++) {
        r = walk(z, arena_cstr(&a, z->prefixes[i]), 0, fresh, e);
    }
    arena_fini(&a);
    return r;
}

/* On the loop. */
static void on_wake(void *arg, unsigned events MG_UNUSED) {
    struct zk *z = arg;
    uint64_t n = 0;
    struct arena a = {0};
    (void)!read(z->fd, &n, sizeof(n));
    (void)pthread_mutex_lock(&z->lock);
    bool is_stale = z->is_stale, is_away = z->is_away;
    size_t n_changed = z->changed.n;
    struct str *changed = arena_array(&a, struct str, n_changed);
    for (size_t i = 0; i < n_changed; i++) {
        changed[i] = arena_dup(&a, z->changed.p[i]);
    }
    vec_clear(&z->changed);
    arena_reset(&z->paths_arena);
    z->is_stale = false;
    (void)pthread_mutex_unlock(&z->lock);
    if (is_away) {
        z->ev->lost(z->arg, "the session is interrupted");
    }
    for (size_t i = 0; i < n_changed && !is_stale; i++) {
        struct str v = STR_NULL;
        struct err e;
        if (z->h && get_data(z, changed[i].p, &v, &e) == 0) {
            z->ev->change(z->arg, changed[i], v);
        } else {
            is_stale = true;
        }
    }
    if (is_stale) {
        z->ev->stale(z->arg);
    }
    arena_fini(&a);
}

static int zk_watch(struct backend *b, struct loop *l, const struct backend_events *ev, void *arg,
                    struct err *e MG_UNUSED) {
    struct zk *z = self_of(b);
    z->ev = ev;
    z->arg = arg;
    z->poll = loop_poll_new(l, z->fd, LOOP_READ, on_wake, z);
    ev->stale(arg);
    return 0;
}

static int zk_open(const struct confd_options *o, const struct str *prefixes, size_t n,
                   struct backend **out, struct err *e) {
    int r = library_load(&zookeeper, e);
    if (r < 0) {
        return err_wrap(e, r, "-backend zookeeper");
    }
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return err_set(e, -errno, "eventfd: %s", err_name(-errno));
    }
    struct zk *z = calloc(1, sizeof(*z));
    mg_assert(z != NULL);
    z->b.ops = &backend_zookeeper;
    z->o = o;
    z->prefixes = prefixes;
    z->n_prefixes = n;
    z->fd = fd;
    z->data = malloc(DATA_MAX);
    mg_assert(z->data != NULL);
    (void)pthread_mutex_init(&z->lock, NULL);
    *out = &z->b;
    return 0;
}

static void zk_close(struct backend *b) {
    struct zk *z = self_of(b);
    hang_up(z); /* ends its thread */
    loop_poll_free(z->poll);
    fd_close(&z->fd);
    (void)pthread_mutex_destroy(&z->lock);
    vec_fini(&z->changed);
    arena_fini(&z->paths_arena);
    free(z->data);
    free(z);
}

const struct backend_ops backend_zookeeper = {
    .name = "zookeeper", .open = zk_open, .close = zk_close, .read = zk_read, .watch = zk_watch};
