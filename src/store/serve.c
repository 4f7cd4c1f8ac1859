#include "store/serve.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/vec.h"
#include "store/rpc.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    OUT_MAX = 256 << 20,       /* a watcher that does not read is cut off here */
    LIST_FRAME_BYTES = 1 << 20 /* a list goes out in frames of about this size */
};

struct conn {
    struct store_server *server;
    int fd;
    struct loop_poll *poll;
    struct buf in, out;
    struct store_watch *watch;
    struct store_reply *owed; /* of the hook; no request is taken before it is sent */
    bool is_closing, is_busy; /* busy: inside a callback, freed afterwards */
};

struct store_reply {
    struct conn *conn; /* NULL: gone */
};

struct store_server {
    struct loop *loop;
    struct store *store; /* for watches */
    struct store_worker *worker;
    struct store_server_hooks hooks;
    void *arg;
    VEC(struct conn *) conns;
};

struct store_server *store_server_new(struct loop *l, struct store *s, struct store_worker *w,
                                      const struct store_server_hooks *hooks, void *arg) {
    struct store_server *x = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    x->loop = l;
    x->store = s;
    x->worker = w;
    x->hooks = *hooks;
    x->arg = arg;
    return x;
}

static void conn_free(struct conn *c) {
    struct store_server *s = c->server;
    for (size_t i = 0; i < s->conns.n; i++) {
        if (s->conns.p[i] == c) {
            vec_swap_remove(&s->conns, i);
            break;
        }
    }
    if (c->owed) {
        c->owed->conn = NULL;
    }
    store_watch_free(c->watch);
    loop_poll_free(c->poll);
    fd_close(&c->fd);
    buf_fini(&c->in);
    buf_fini(&c->out);
    free(c);
}

void store_server_free(struct store_server *s) {
    if (!s) {
        return;
    }
    while (s->conns.n) {
        conn_free(s->conns.p[0]);
    }
    vec_fini(&s->conns);
    free(s);
}

/* ---- answers ---- */

static void flush_out(struct conn *c) {
    while (c->out.n > 0 && !c->is_closing) {
        ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            c->is_closing = errno != EAGAIN;
            break;
        }
        buf_consume(&c->out, (size_t)n);
    }
    if (c->out.overflow) {
        c->is_closing = true;
    }
    if (!c->is_closing) {
        loop_poll_set(c->poll, LOOP_READ | (c->out.n ? LOOP_WRITE : 0));
    }
}

static void send_body(struct conn *c, struct str body) {
    rpc_frame(&c->out, body);
    flush_out(c);
}

static void put_code(struct buf *out, int code, const char *message, uint64_t revision) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(8192);
    buf_printf(&b, "{\"code\":%d", code);
    if (code < 0) {
        buf_puts(&b, ",\"message\":");
        json_quote(&b, str_c(message));
    } else {
        buf_printf(&b, ",\"revision\":\"%llu\"", (unsigned long long)revision);
    }
    buf_putc(&b, '}');
    rpc_frame(out, buf_view(&b));
}

static void send_code(struct conn *c, int code, const char *message, uint64_t revision) {
    put_code(&c->out, code, message, revision);
    flush_out(c);
}

static void put_item(struct buf *b, const struct store_item *it) {
    buf_puts(b, "{\"key\":");
    json_quote(b, it->key);
    if (it->value.p) {
        buf_puts(b, ",\"value\":");
        json_quote(b, it->value);
    } else {
        buf_puts(b, ",\"deleted\":true");
    }
    buf_printf(b, ",\"revision\":\"%llu\"}", (unsigned long long)it->revision);
}

static void reply_frames(struct store_reply *r, struct buf *frames);

/* ---- requests: jobs of the store's worker ---- */

struct op_job {
    struct store_reply *reply;
    struct arena a;
    struct jnode *q;
    struct buf out; /* frames */
    void (*op)(struct store *s, struct op_job *j);
};

static struct store_key key_of(const struct jnode *q) {
    return (struct store_key){jnode_str(jnode_getc(q, "space")), jnode_str(jnode_getc(q, "key"))};
}

static bool number(const struct jnode *q, const char *name, uint64_t deflt, uint64_t *out) {
    const struct jnode *n = jnode_getc(q, name);
    *out = deflt;
    return !n || str_to_u64(n->s, out) == 0;
}

static void op_get(struct store *s, struct op_job *j) {
    struct store_item it;
    struct err e;
    int r = store_get(s, key_of(j->q), &j->a, &it, &e);
    if (r < 0) {
        put_code(&j->out, r, e.msg, 0);
        return;
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(OUT_MAX);
    buf_printf(&b, "{\"code\":0,\"revision\":\"%llu\",\"value\":", (unsigned long long)it.revision);
    json_quote(&b, it.value);
    buf_putc(&b, '}');
    rpc_frame(&j->out, buf_view(&b));
}

struct listing {
    struct buf *out;
    struct buf b;
    uint64_t revision; /* set before the first item comes */
};

static void put_items(struct listing *l) {
    if (l->b.n) {
        buf_puts(&l->b, "]}");
        rpc_frame(l->out, buf_view(&l->b));
        buf_reset(&l->b);
    }
}

static int on_list_item(void *arg, const struct store_item *it) {
    struct listing *l = arg;
    if (l->b.n == 0) {
        buf_printf(&l->b, "{\"revision\":\"%llu\",\"items\":[", (unsigned long long)l->revision);
    } else {
        buf_putc(&l->b, ',');
    }
    put_item(&l->b, it);
    if (l->b.n > LIST_FRAME_BYTES) {
        put_items(l);
    }
    return l->out->overflow ? ERR_TOO_BIG : 0;
}

static void op_list(struct store *s, struct op_job *j) {
    struct listing l = {&j->out, BUF_INIT(OUT_MAX), 0};
    struct err e;
    struct store_key k = key_of(j->q);
    if (!k.key.p) {
        k.key = STR("");
    }
    int r = store_list(s, k, &l.revision, on_list_item, &l, &e);
    if (r == 0) {
        put_items(&l);
    }
    buf_fini(&l.b);
    put_code(&j->out, r, r < 0 ? e.msg : "", l.revision);
}

static void op_put(struct store *s, struct op_job *j) {
    uint64_t expect, revision = 0;
    struct err e;
    if (!number(j->q, "expect", REV_ANY, &expect)) {
        put_code(&j->out, ERR_INVALID, "expect: not a revision", 0);
        return;
    }
    int r = store_put(s, key_of(j->q), jnode_str(jnode_getc(j->q, "value")), expect, &revision, &e);
    put_code(&j->out, r, r < 0 ? e.msg : "", revision);
}

static void op_delete(struct store *s, struct op_job *j) {
    uint64_t expect;
    struct err e;
    if (!number(j->q, "expect", REV_ANY, &expect)) {
        put_code(&j->out, ERR_INVALID, "expect: not a revision", 0);
        return;
    }
    int r = store_delete(s, key_of(j->q), expect, &e);
    put_code(&j->out, r, r < 0 ? e.msg : "", r == 0 ? store_revision(s) : 0);
}

static void op_revision(struct store *s, struct op_job *j) {
    put_code(&j->out, 0, "", store_revision(s));
}

static void on_watch_item(void *arg, const struct store_item *it) {
    struct conn *c = arg;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(OUT_MAX);
    buf_puts(&b, "{\"item\":");
    put_item(&b, it);
    buf_putc(&b, '}');
    send_body(c, buf_view(&b));
}
static void on_watch_end(void *arg, int code) {
    struct conn *c = arg;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64);
    buf_printf(&b, "{\"end\":%d}", code);
    send_body(c, buf_view(&b));
}

static void on_watch_progress(void *arg, uint64_t revision) {
    struct conn *c = arg;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64);
    buf_printf(&b, "{\"progress\":\"%llu\"}", (unsigned long long)revision);
    send_body(c, buf_view(&b));
}

static void op_watch(struct conn *c, const struct jnode *q) {
    static const struct store_watch_ops ops = {on_watch_item, on_watch_end, on_watch_progress};
    uint64_t from;
    struct err e;
    struct store_key k = key_of(q);
    if (!number(q, "from", 0, &from) || !k.space.p || c->watch) {
        send_code(c, ERR_INVALID, "watch: needs space, key, from; one a connection", 0);
        return;
    }
    if (!k.key.p) {
        k.key = STR("");
    }
    int r = store_watch(c->server->store, c->server->loop, k, from, &ops, c, &c->watch, &e);
    send_code(c, r, r < 0 ? e.msg : "", from);
}

static struct store_reply *owe(struct conn *c) {
    struct store_reply *reply = calloc(1, sizeof(*reply));
    mg_assert(reply != NULL);
    reply->conn = c;
    c->owed = reply;
    return reply;
}

static void on_op(struct store *s, void *arg) {
    struct op_job *j = arg;
    j->op(s, j);
}

static void on_op_done(void *arg, int code) {
    struct op_job *j = arg;
    if (code < 0) {
        put_code(&j->out, ERR_UNAVAILABLE, "the agent is stopping", 0);
    }
    reply_frames(j->reply, &j->out);
    buf_fini(&j->out);
    arena_fini(&j->a);
    free(j);
}

/* The ops that ask the store. */
static const struct {
    const char *name;
    void (*op)(struct store *s, struct op_job *j);
} store_ops[] = {{"get", op_get},
                 {"list", op_list},
                 {"put", op_put},
                 {"delete", op_delete},
                 {"revision", op_revision}};

static void handle(struct conn *c, struct str body) {
    struct op_job *j = calloc(1, sizeof(*j));
    mg_assert(j != NULL);
    j->out = BUF_INIT(OUT_MAX);
    struct err e;
    struct store_server *s = c->server;
    struct jlimits lim = json_limits_default;
    lim.max_bytes = lim.max_string = RPC_BODY_MAX;
    int r = json_parse(arena_dup(&j->a, body), &lim, &j->a, &j->q, &e);
    struct str op = jnode_str(jnode_getc(j->q, "op"));
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(store_ops); i++) {
        if (str_is(op, store_ops[i].name)) {
            j->op = store_ops[i].op;
            j->reply = owe(c);
            store_worker_run(s->worker, on_op, on_op_done, j);
            return;
        }
    }
    if (r < 0) {
        send_code(c, r, e.msg, 0);
    } else if (str_is(op, "watch")) {
        op_watch(c, j->q);
    } else {
        struct store_reply *reply = owe(c);
        if (!s->hooks.op || !s->hooks.op(s->arg, j->q, reply)) {
            c->owed = NULL;
            free(reply);
            send_code(c, ERR_INVALID, "unknown op", 0);
        }
    }
    arena_fini(&j->a);
    free(j);
}

/* Takes whole frames off the input while no answer is owed. */
static void pump(struct conn *c) {
    while (!c->is_closing && !c->owed && c->in.n >= RPC_HEADER) {
        int64_t n = rpc_body_len((const uint8_t *)c->in.p);
        if (n < 0) {
            send_code(c, (int)n, n == -EPROTO ? "not a frame of this protocol" : "frame too large",
                      0);
            c->is_closing = true;
            return;
        }
        if (c->in.n < RPC_HEADER + (size_t)n) {
            return;
        }
        handle(c, str_n(c->in.p + RPC_HEADER, (size_t)n));
        buf_consume(&c->in, RPC_HEADER + (size_t)n);
    }
}

static void after(struct conn *c) {
    c->is_busy = false;
    if (c->is_closing) {
        conn_free(c);
    }
}

static void on_poll(void *arg, unsigned events) {
    struct conn *c = arg;
    c->is_busy = true;
    if (events & LOOP_WRITE) {
        flush_out(c);
    }
    if (events & LOOP_READ) {
        char *p = buf_reserve(&c->in, 65536);
        ssize_t n = p ? recv(c->fd, p, 65536, MSG_DONTWAIT) : 0;
        if (n > 0) {
            c->in.n += (size_t)n;
            pump(c);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            c->is_closing = true;
        }
    }
    after(c);
}

void store_server_connection(struct store_server *s, int take_fd) {
    if (s->conns.n >= STORE_SERVER_MAX_CONNECTIONS || fd_set_nonblock(take_fd) < 0) {
        close(take_fd);
        return;
    }
    struct conn *c = calloc(1, sizeof(*c));
    mg_assert(c != NULL);
    c->server = s;
    c->fd = take_fd;
    c->in = BUF_INIT(RPC_BODY_MAX + RPC_HEADER + 65536);
    c->out = BUF_INIT(OUT_MAX);
    vec_push(&s->conns, c);
    c->poll = loop_poll_new(s->loop, c->fd, LOOP_READ, on_poll, c);
}

static void reply_frames(struct store_reply *r, struct buf *frames) {
    struct conn *c = r->conn;
    free(r);
    if (!c) {
        return;
    }
    c->owed = NULL;
    if (frames->overflow) {
        c->is_closing = true;
    } else {
        buf_str(&c->out, buf_view(frames));
        flush_out(c);
    }
    if (!c->is_busy) {
        c->is_busy = true;
        pump(c);
        after(c);
    }
}

void store_reply_send(struct store_reply *r, struct str body) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(OUT_MAX);
    rpc_frame(&b, body);
    reply_frames(r, &b);
}
