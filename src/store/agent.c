/* The store's driver that asks a running agent over its socket (store/rpc.h). Calls block; a watch
 * has a connection of its own on the loop. Transactions are single writes here. */
#include "store/driver.h"

#include "base/fd.h"
#include "store/rpc.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { TIMEOUT_S = 60 };

struct agent {
    struct store base;
    char *path;
    int fd;
    struct buf in;
};

static int dial(const char *path, int *out, struct err *e) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(sa.sun_path)) {
        return err_set(e, ERR_INVALID, "agent socket %s: path longer than %zu bytes", path,
                       sizeof(sa.sun_path) - 1);
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    MG_CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        int err = errno;
        return err_set(e, ERR_UNAVAILABLE, "agent socket %s: %s", path, strerror(err));
    }
    struct timeval tv = {.tv_sec = TIMEOUT_S};
    /* Without them a dead agent is noticed later, that is all. */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    *out = TAKE_FD(fd);
    return 0;
}

static int ag_open(struct str rest, struct store **out, struct err *e) {
    struct agent *g = calloc(1, sizeof(*g));
    mg_assert(g != NULL);
    g->base.drv = &store_agent;
    g->path = strndup(rest.p ? rest.p : "", rest.n);
    mg_assert(g->path != NULL);
    g->in = BUF_INIT(RPC_BODY_MAX + RPC_HEADER);
    int r = dial(g->path, &g->fd, e);
    if (r < 0) {
        free(g->path);
        free(g);
        return r;
    }
    *out = &g->base;
    return 0;
}

static void ag_close(struct store *s) {
    struct agent *g = (struct agent *)s;
    fd_close(&g->fd);
    buf_fini(&g->in);
    free(g->path);
    free(g);
}

static int lost(struct agent *g, int err, struct err *e) {
    return err_set(e, ERR_UNAVAILABLE, "agent at %s: %s", g->path,
                   err ? strerror(err) : "connection closed");
}

static int send_request(struct agent *g, struct str body, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(RPC_BODY_MAX + RPC_HEADER);
    rpc_frame(&b, body);
    for (size_t off = 0; off < b.n;) {
        ssize_t n = send(g->fd, b.p + off, b.n - off, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            return lost(g, errno, e);
        }
        off += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int read_exactly(struct agent *g, size_t want, struct err *e) {
    while (g->in.n < want) {
        char *p = buf_reserve(&g->in, want - g->in.n);
        if (!p) {
            return err_set(e, ERR_TOO_BIG, "agent at %s: answer too large", g->path);
        }
        ssize_t n = recv(g->fd, p, want - g->in.n, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return lost(g, n < 0 ? errno : 0, e);
        }
        g->in.n += (size_t)n;
    }
    return 0;
}

/* The next answer as a tree in the arena. */
static int receive(struct agent *g, struct arena *a, struct jnode **out, struct err *e) {
    buf_reset(&g->in);
    int r = read_exactly(g, RPC_HEADER, e);
    if (r < 0) {
        return r;
    }
    int64_t n = rpc_body_len((const uint8_t *)g->in.p);
    if (n < 0) {
        return err_set(e, (int)n, "agent at %s: not an answer of this protocol", g->path);
    }
    r = read_exactly(g, RPC_HEADER + (size_t)n, e);
    if (r < 0) {
        return r;
    }
    struct jlimits lim = json_limits_default;
    lim.max_bytes = lim.max_string = RPC_BODY_MAX;
    return json_parse(str_n(g->in.p + RPC_HEADER, (size_t)n), &lim, a, out, e);
}

static int code_of(const struct jnode *q, struct err *e) {
    const struct jnode *c = jnode_getc(q, "code");
    if (!c || c->type != J_INT) {
        return err_set(e, -EPROTO, "agent: answer without a code");
    }
    if (c->i < 0) {
        struct str m = jnode_str(jnode_getc(q, "message"));
        return err_set(e, (int)c->i, "%.*s", STR_FMT(m));
    }
    return 0;
}

static uint64_t number_of(const struct jnode *q, const char *name) {
    uint64_t v = 0;
    const struct jnode *n = jnode_getc(q, name);
    if (!n || str_to_u64(n->s, &v) < 0) {
        return 0;
    }
    return v;
}
static uint64_t revision_of(const struct jnode *q) {
    return number_of(q, "revision");
}

static void begin_request(struct buf *b, const char *op, struct store_key k) {
    buf_printf(b, "{\"op\":\"%s\",\"space\":", op);
    json_quote(b, k.space);
    buf_puts(b, ",\"key\":");
    json_quote(b, k.key.p ? k.key : STR(""));
}

static int call(struct agent *g, struct buf *b, struct arena *a, struct jnode **out,
                struct err *e) {
    buf_putc(b, '}');
    int r = send_request(g, buf_view(b), e);
    if (r == 0) {
        r = receive(g, a, out, e);
    }
    return r < 0 ? r : code_of(*out, e);
}

static int ag_get(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
                  struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(RPC_BODY_MAX);
    struct jnode *q = NULL;
    begin_request(&b, "get", k);
    int r = call((struct agent *)s, &b, a, &q, e);
    if (r == 0) {
        *out = (struct store_item){.space = arena_dup(a, k.space),
                                   .key = arena_dup(a, k.key),
                                   .value = jnode_str(jnode_getc(q, "value")),
                                   .revision = revision_of(q)};
    }
    return r;
}

static int ag_list(struct store *s, struct store_key prefix, uint64_t *revision_out,
                   int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e) {
    struct agent *g = (struct agent *)s;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(RPC_BODY_MAX);
    begin_request(&b, "list", prefix);
    buf_putc(&b, '}');
    int r = send_request(g, buf_view(&b), e), stopped = 0;
    for (bool more = true; more && r == 0;) {
        struct arena a = {0};
        struct jnode *q = NULL;
        r = receive(g, &a, &q, e);
        struct jnode *items = r == 0 ? jnode_getc(q, "items") : NULL;
        if (r == 0 && !items) {
            more = false;
            r = code_of(q, e);
            if (r == 0 && revision_out) {
                *revision_out = revision_of(q);
            }
        }
        if (items && revision_out) {
            *revision_out = revision_of(q); /* the callback may ask for it */
        }
        /* After a stop the rest is read and thrown away: the connection stays usable. */
        jnode_each (n, items) {
            struct store_item it = {.space = prefix.space,
                                    .key = jnode_str(jnode_getc(n, "key")),
                                    .value = jnode_str(jnode_getc(n, "value")),
                                    .revision = revision_of(n)};
            stopped = stopped < 0 ? stopped : cb(arg, &it);
        }
        arena_fini(&a);
    }
    return r < 0 ? r : stopped;
}

static void put_expect(struct buf *b, uint64_t expect) {
    if (expect != REV_ANY) {
        buf_printf(b, ",\"expect\":\"%llu\"", (unsigned long long)expect);
    }
}

static int write_call(struct store *s, struct buf *b, uint64_t *revision_out, struct err *e) {
    struct arena a = {0};
    struct jnode *q = NULL;
    int r = call((struct agent *)s, b, &a, &q, e);
    if (r == 0 && revision_out) {
        *revision_out = revision_of(q);
    }
    arena_fini(&a);
    return r;
}

static int ag_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                  uint64_t *revision_out, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(RPC_BODY_MAX);
    begin_request(&b, "put", k);
    buf_puts(&b, ",\"value\":");
    json_quote(&b, value);
    put_expect(&b, expect);
    return write_call(s, &b, revision_out, e);
}

static int ag_del(struct store *s, struct store_key k, uint64_t expect, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(RPC_BODY_MAX);
    begin_request(&b, "delete", k);
    put_expect(&b, expect);
    return write_call(s, &b, NULL, e);
}

static int ag_nothing(struct store *s, struct err *e) {
    (void)s;
    (void)e;
    return 0;
}
static void ag_rollback(struct store *s) {
    (void)s;
}

static uint64_t ag_revision(struct store *s) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(128);
    uint64_t v = 0;
    struct err ignored; /* 0 then: older than everything */
    buf_puts(&b, "{\"op\":\"revision\"");
    (void)write_call(s, &b, &v, &ignored);
    return v;
}

/* ---- watch ---- */

struct agent_watch {
    struct store_watch base;
    struct agent *g; /* a connection of its own */
    struct loop_poll *poll;
    struct str space;
    struct buf in;
    struct store_watch_ops ops;
    void *arg;
    bool is_in_callback, is_freed;
};

static void watch_destroy(struct agent_watch *w) {
    loop_poll_free(w->poll);
    ag_close(&w->g->base);
    buf_fini(&w->in);
    free((char *)(uintptr_t)w->space.p);
    free(w);
}

static void watch_frame(struct agent_watch *w, struct str body) {
    struct arena a = {0};
    struct jnode *q = NULL;
    struct err e;
    struct jlimits lim = json_limits_default;
    lim.max_bytes = lim.max_string = RPC_BODY_MAX;
    int r = json_parse(body, &lim, &a, &q, &e);
    struct jnode *it = jnode_getc(q, "item"), *end = jnode_getc(q, "end");
    if (r == 0 && it) {
        struct store_item item = {.space = w->space,
                                  .key = jnode_str(jnode_getc(it, "key")),
                                  .value = jnode_str(jnode_getc(it, "value")),
                                  .revision = revision_of(it)};
        w->ops.on_item(w->arg, &item);
    } else if (r == 0 && jnode_getc(q, "progress")) {
        if (w->ops.on_progress) {
            w->ops.on_progress(w->arg, number_of(q, "progress"));
        }
    } else if (r < 0 || end) {
        w->ops.on_end(w->arg, r < 0 ? r : (int)end->i);
    }
    arena_fini(&a);
}

static void on_watch_poll(void *arg, unsigned events) {
    struct agent_watch *w = arg;
    (void)events;
    w->is_in_callback = true;
    char *p = buf_reserve(&w->in, 65536);
    ssize_t n = p ? recv(w->g->fd, p, 65536, MSG_DONTWAIT) : -1;
    if (n > 0) {
        w->in.n += (size_t)n;
        while (!w->is_freed && w->in.n >= RPC_HEADER) {
            int64_t len = rpc_body_len((const uint8_t *)w->in.p);
            if (len < 0) {
                n = 0;
                break;
            }
            if (w->in.n < RPC_HEADER + (size_t)len) {
                break;
            }
            watch_frame(w, str_n(w->in.p + RPC_HEADER, (size_t)len));
            buf_consume(&w->in, RPC_HEADER + (size_t)len);
        }
    }
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        loop_poll_set(w->poll, 0);
        if (!w->is_freed) {
            w->ops.on_end(w->arg, ERR_UNAVAILABLE);
        }
    }
    w->is_in_callback = false;
    if (w->is_freed) {
        watch_destroy(w);
    }
}

static int ag_watch(struct store *s, struct loop *l, struct store_key prefix,
                    uint64_t from_revision, const struct store_watch_ops *ops, void *arg,
                    struct store_watch **out, struct err *e) {
    struct agent *own = (struct agent *)s;
    struct store *conn = NULL;
    int r = ag_open(str_c(own->path), &conn, e);
    if (r < 0) {
        return r;
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(RPC_BODY_MAX);
    begin_request(&b, "watch", prefix);
    buf_printf(&b, ",\"from\":\"%llu\"", (unsigned long long)from_revision);
    r = write_call(conn, &b, NULL, e);
    if (r < 0) {
        ag_close(conn);
        return r;
    }
    struct agent_watch *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    w->base.drv = s->drv;
    w->g = (struct agent *)conn;
    w->space = str_c(strndup(prefix.space.p, prefix.space.n));
    w->in = BUF_INIT(RPC_BODY_MAX + RPC_HEADER + 65536);
    w->ops = *ops;
    w->arg = arg;
    w->poll = loop_poll_new(l, w->g->fd, LOOP_READ, on_watch_poll, w);
    *out = &w->base;
    return 0;
}

static void ag_watch_free(struct store_watch *base) {
    struct agent_watch *w = (struct agent_watch *)base;
    if (w->is_in_callback) {
        w->is_freed = true;
    } else {
        watch_destroy(w);
    }
}

const struct store_driver store_agent = {
    .scheme = "agent",
    .open = ag_open,
    .close = ag_close,
    .get = ag_get,
    .list = ag_list,
    .put = ag_put,
    .del = ag_del,
    .begin = ag_nothing,
    .commit = ag_nothing,
    .rollback = ag_rollback,
    .revision = ag_revision,
    .watch = ag_watch,
    .watch_free = ag_watch_free,
};
