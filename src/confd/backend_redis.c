/* Keys from Redis: strings, and hashes as KEY/FIELD. Changes are told by keyspace notifications,
 * where the server sends them, on a connection of their own. */
#include "confd/backend.h"

#include "base/buf.h"
#include "base/library.h"
#include "base/log.h"

#include <hiredis/hiredis.h>
#include <sys/stat.h>

#define CALLS(X)                   \
    X(freeReplyObject)             \
    X(redisAppendCommand)          \
    X(redisBufferRead)             \
    X(redisCommand)                \
    X(redisConnectUnixWithTimeout) \
    X(redisConnectWithTimeout)     \
    X(redisEnableKeepAlive)        \
    X(redisFree)                   \
    X(redisGetReply)               \
    X(redisGetReplyFromReader)     \
    X(redisSetTimeout)

static struct { CALLS(LIBRARY_POINTER) } lib;
#define SYMBOL(f) LIBRARY_SYMBOL(lib, f),
static const struct library_symbol symbols[] = {CALLS(SYMBOL)};
#define TEXT_OF(x) #x
#define SONAME(version) "libhiredis.so." TEXT_OF(version)
static struct library hiredis = {.soname = SONAME(HIREDIS_SONAME),
                                 .package = "libhiredis" TEXT_OF(HIREDIS_SONAME),
                                 .symbols = symbols,
                                 .n_symbols = ARRAY_LEN(symbols)};

enum {
    CONNECT_MS = 2000,
    ANSWER_MS = 5000,
    SCAN_COUNT = 1000,
    RETRY_MIN_MS = 1000,
    RETRY_MAX_MS = 60000,
};

struct redis {
    struct backend b;
    const struct confd_options *o;
    const struct str *prefixes;
    size_t n_prefixes;
    redisContext *c;
    struct arena scratch;
    /* watching */
    struct loop *loop;
    redisContext *sub;
    struct loop_poll *poll;
    struct loop_timer *retry, *every;
    int64_t retry_ms;
    const struct backend_events *ev;
    void *arg;
};

static struct redis *self_of(struct backend *b) {
    return container_of(b, struct redis, b);
}

/* ---- names ---- */

static struct str separator(const struct redis *r) {
    return str_c(r->o->separator && r->o->separator[0] ? r->o->separator : "/");
}

/* /a/b as the server has it: a:b with the separator ":". */
static struct str to_server(struct redis *r, struct str key) {
    struct str sep = separator(r);
    if (str_is(sep, "/")) {
        return key;
    }
    struct buf b = BUF_INIT(KV_KEY_MAX * 16);
    for (size_t i = key.n && key.p[0] == '/'; i < key.n; i++) {
        if (key.p[i] == '/') {
            buf_str(&b, sep);
        } else {
            buf_putc(&b, key.p[i]);
        }
    }
    struct str out = arena_dup(&r->scratch, buf_view(&b));
    buf_fini(&b);
    return out;
}

static struct str from_server(struct redis *r, struct str key) {
    struct str sep = separator(r);
    struct buf b = BUF_INIT(KV_KEY_MAX * 2);
    buf_putc(&b, '/');
    for (size_t i = str_starts(key, sep) ? sep.n : 0; i < key.n;) {
        if (str_starts(str_sub(key, i, key.n), sep)) {
            buf_putc(&b, '/');
            i += sep.n;
        } else {
            buf_putc(&b, key.p[i++]);
        }
    }
    struct str out = arena_dup(&r->scratch, buf_view(&b));
    buf_fini(&b);
    return out;
}

/* KEY and all below it as a pattern of SCAN. */
static struct str pattern_below(struct redis *r, struct str server_key) {
    struct buf b = BUF_INIT(KV_KEY_MAX * 16);
    for (size_t i = 0; i < server_key.n; i++) {
        if (strchr("*?[]\\^-", server_key.p[i])) {
            buf_putc(&b, '\\');
        }
        buf_putc(&b, server_key.p[i]);
    }
    if (server_key.n && !str_is(server_key, "/")) {
        buf_str(&b, separator(r));
    }
    buf_putc(&b, '*');
    struct str out = arena_dup(&r->scratch, buf_view(&b));
    buf_fini(&b);
    return out;
}

/* ---- connections ---- */

static int fail(struct err *e, const char *node, const redisContext *c) {
    return err_set(e, ERR_UNAVAILABLE, "redis %s: %s", node, c ? c->errstr : "out of memory");
}

static int answer(redisContext *c, void *reply, const char *node, const char *what, struct err *e) {
    redisReply *rp = reply;
    if (!rp) {
        return fail(e, node, c);
    }
    int r = rp->type == REDIS_REPLY_ERROR
                ? err_set(e, ERR_DENIED, "redis %s: %s: %s", node, what, rp->str)
                : 0;
    lib.freeReplyObject(rp);
    return r;
}

/* "HOST:PORT", "HOST:PORT/DB", "[V6]:PORT", or the path of a socket. */
static redisContext *dial(const char *node, uint64_t *db, struct err *e) {
    struct timeval tv = {CONNECT_MS / 1000, CONNECT_MS % 1000 * 1000};
    struct str s = str_c(node);
    struct stat st;
    *db = 0;
    if (str_starts(s, STR("redis://"))) {
        s = str_sub(s, 8, s.n);
    }
    if (node[0] == '/' && stat(node, &st) == 0) {
        return lib.redisConnectUnixWithTimeout(node, tv);
    }
    ptrdiff_t slash = str_find(s, '/', 0);
    bool is_ok = true;
    if (slash >= 0) {
        is_ok = str_to_u64(str_sub(s, (size_t)slash + 1, s.n), db) == 0;
        s = str_sub(s, 0, (size_t)slash);
    }
    uint64_t port = 6379;
    size_t host_n = s.n;
    for (size_t i = s.n; i-- > 0 && s.p[i] != ']';) {
        if (s.p[i] == ':') {
            is_ok = str_to_u64(str_sub(s, i + 1, s.n), &port) == 0 && is_ok;
            host_n = i;
            break;
        }
    }
    if (!is_ok || port == 0 || port > 65535) {
        (void)err_set(e, ERR_INVALID,
                      "redis: node \"%.200s\", allowed are HOST:PORT, HOST:PORT/DATABASE and the "
                      "path of a socket",
                      node);
        return NULL;
    }
    struct str h = str_sub(s, 0, host_n);
    if (h.n > 2 && h.p[0] == '[' && h.p[h.n - 1] == ']') {
        h = str_sub(h, 1, h.n - 1);
    }
    char host[256];
    snprintf(host, sizeof(host), "%.*s", STR_FMT(h));
    return lib.redisConnectWithTimeout(host, (int)port, tv);
}

static int login(struct redis *r, redisContext *c, const char *node, uint64_t db, struct err *e) {
    struct timeval tv = {ANSWER_MS / 1000, ANSWER_MS % 1000 * 1000};
    const char *user = r->o->username, *pw = r->o->password;
    int ret = 0;
    (void)lib.redisSetTimeout(c, tv);
    (void)lib.redisEnableKeepAlive(c);
    if (pw && pw[0]) {
        ret = answer(c,
                     user && user[0] ? lib.redisCommand(c, "AUTH %s %s", user, pw)
                                     : lib.redisCommand(c, "AUTH %s", pw),
                     node, "AUTH", e);
    }
    if (ret == 0 && db) {
        ret = answer(c, lib.redisCommand(c, "SELECT %llu", (unsigned long long)db), node, "SELECT",
                     e);
    }
    return ret;
}

/* The first node that takes us. *db: its database. */
static int connect_any(struct redis *r, redisContext **out, uint64_t *db, struct err *e) {
    int ret = ERR_UNAVAILABLE;
    for (size_t i = 0; i < r->o->nodes.n; i++) {
        const char *node = r->o->nodes.p[i];
        redisContext *c = dial(node, db, e);
        ret = !c ? ERR_INVALID : c->err ? fail(e, node, c) : login(r, c, node, *db, e);
        if (ret == 0) {
            *out = c;
            return 0;
        }
        if (c) {
            lib.redisFree(c);
        }
    }
    return ret;
}

/* ---- reading ---- */

static struct str text_of(const redisReply *rp) {
    return str_n(rp->str, (size_t)rp->len);
}

static int add(struct redis *r, struct kv *fresh, struct str server_key, const redisReply *field,
               struct str value, struct err *e) {
    struct str key = from_server(r, server_key);
    if (field) {
        key = arena_printf(&r->scratch, "%.*s/%.*s", STR_FMT(key), STR_FMT(text_of(field)));
    }
    if (!kv_add(fresh, key, value)) {
        return err_set(e, ERR_TOO_BIG, "redis: key %.*s or its value is too long",
                       key.n > 200 ? 200 : (int)key.n, key.p);
    }
    return 0;
}

/* The reply to GET or HGETALL of a key. */
static int take_value(struct redis *r, struct kv *fresh, struct str key, const redisReply *rp,
                      struct err *e) {
    int ret = 0;
    if (rp->type == REDIS_REPLY_STRING) {
        return add(r, fresh, key, NULL, text_of(rp), e);
    }
    for (size_t i = 0; rp->type == REDIS_REPLY_ARRAY && i + 1 < rp->elements && ret == 0; i += 2) {
        ret = add(r, fresh, key, rp->element[i], text_of(rp->element[i + 1]), e);
    }
    return ret; /* gone meanwhile, or of a type that has no keys */
}

static int next_reply(struct redis *r, redisReply **out, struct err *e) {
    void *p = NULL;
    if (lib.redisGetReply(r->c, &p) != REDIS_OK || !p) {
        return fail(e, r->o->nodes.p[0], r->c);
    }
    *out = p;
    return 0;
}

/* Values of some keys, in two round trips. */
static int read_keys(struct redis *r, const struct str *keys, size_t n, struct kv *fresh,
                     struct err *e) {
    redisReply *rp = NULL;
    bool *is_hash = arena_array(&r->scratch, bool, n);
    int ret = 0;
    for (size_t i = 0; i < n; i++) {
        (void)lib.redisAppendCommand(r->c, "TYPE %b", keys[i].p, keys[i].n);
    }
    for (size_t i = 0; i < n && ret == 0; i++) {
        ret = next_reply(r, &rp, e);
        if (ret == 0) {
            is_hash[i] = rp->type == REDIS_REPLY_STATUS && strcmp(rp->str, "hash") == 0;
            lib.freeReplyObject(rp);
        }
    }
    for (size_t i = 0; i < n && ret == 0; i++) {
        (void)lib.redisAppendCommand(r->c, is_hash[i] ? "HGETALL %b" : "GET %b", keys[i].p,
                                     keys[i].n);
    }
    for (size_t i = 0; i < n && ret == 0; i++) {
        ret = next_reply(r, &rp, e);
        if (ret == 0) {
            ret = take_value(r, fresh, keys[i], rp, e);
            lib.freeReplyObject(rp);
        }
    }
    return ret;
}

static int scan(struct redis *r, struct str pattern, struct kv *fresh, struct err *e) {
    const char *cursor = "0";
    do {
        redisReply *rp = lib.redisCommand(r->c, "SCAN %s MATCH %b COUNT %d", cursor, pattern.p,
                                          pattern.n, SCAN_COUNT);
        if (!rp || rp->type != REDIS_REPLY_ARRAY || rp->elements != 2 ||
            rp->element[1]->type != REDIS_REPLY_ARRAY) {
            int ret = rp && rp->type == REDIS_REPLY_ERROR
                          ? err_set(e, ERR_DENIED, "redis: SCAN: %s", rp->str)
                          : fail(e, r->o->nodes.p[0], r->c);
            lib.freeReplyObject(rp);
            return ret;
        }
        const redisReply *list = rp->element[1];
        struct str *keys = arena_array(&r->scratch, struct str, list->elements);
        for (size_t i = 0; i < list->elements; i++) {
            keys[i] = arena_dup(&r->scratch, text_of(list->element[i]));
        }
        cursor = arena_cstr(&r->scratch, text_of(rp->element[0]));
        size_t n = list->elements;
        lib.freeReplyObject(rp);
        int ret = read_keys(r, keys, n, fresh, e);
        if (ret < 0) {
            return ret;
        }
    } while (strcmp(cursor, "0") != 0);
    return 0;
}

static void drop(redisContext **c) {
    if (*c) {
        lib.redisFree(*c);
    }
    *c = NULL;
}

static int redis_read(struct backend *b, struct kv *fresh, struct err *e) {
    struct redis *r = self_of(b);
    uint64_t db = 0;
    if (r->c && answer(r->c, lib.redisCommand(r->c, "PING"), "", "PING", NULL) < 0) {
        drop(&r->c);
    }
    int ret = r->c ? 0 : connect_any(r, &r->c, &db, e);
    for (size_t i = 0; i < r->n_prefixes && ret == 0; i++) {
        struct str key = to_server(r, r->prefixes[i]);
        if (key.n) {
            ret = read_keys(r, &key, 1, fresh, e);
        }
        if (ret == 0) {
            ret = scan(r, pattern_below(r, key), fresh, e);
        }
    }
    if (ret < 0) {
        drop(&r->c);
    }
    arena_reset(&r->scratch);
    return ret;
}

/* ---- watching ---- */

static void subscribe(void *arg);

static void sub_lost(struct redis *r, const char *why) {
    r->ev->lost(r->arg, why); /* may be the connection's own text */
    loop_poll_free(r->poll);
    r->poll = NULL;
    drop(&r->sub);
    r->retry_ms = r->retry_ms ? r->retry_ms * 2 : RETRY_MIN_MS;
    r->retry_ms = r->retry_ms > RETRY_MAX_MS ? RETRY_MAX_MS : r->retry_ms;
    loop_timer_start(r->retry, r->retry_ms, 0);
}

static bool is_asked_for(struct redis *r, struct str key) {
    for (size_t i = 0; i < r->n_prefixes; i++) {
        if (str_starts(key, r->prefixes[i])) {
            return true;
        }
    }
    return false;
}

/* A key that was written. True: told; false: it is no string (any more), read everything. */
static bool tell_string(struct redis *r, struct str server_key) {
    struct str key = from_server(r, server_key);
    if (!is_asked_for(r, key)) {
        return true;
    }
    redisReply *rp = r->c ? lib.redisCommand(r->c, "GET %b", server_key.p, server_key.n) : NULL;
    bool is_string = rp && rp->type == REDIS_REPLY_STRING;
    if (is_string) {
        r->ev->change(r->arg, key, text_of(rp));
    } else if (!rp) {
        drop(&r->c);
    }
    lib.freeReplyObject(rp);
    return is_string;
}

static void on_message(void *arg, unsigned events MG_UNUSED) {
    struct redis *r = arg;
    void *p = NULL;
    bool is_stale = false;
    if (lib.redisBufferRead(r->sub) != REDIS_OK) {
        sub_lost(r, r->sub->errstr);
        return;
    }
    for (size_t n = 0; lib.redisGetReplyFromReader(r->sub, &p) == REDIS_OK && p; n++) {
        /* "pmessage", pattern, "__keyspace@DB__:KEY", what was done */
        const redisReply *rp = p;
        if (rp->type == REDIS_REPLY_ARRAY && rp->elements == 4 && !is_stale) {
            struct str key = text_of(rp->element[2]);
            ptrdiff_t colon = str_find(key, ':', 0);
            is_stale = colon < 0 || n > SCAN_COUNT ||
                       !tell_string(r, str_sub(key, (size_t)colon + 1, key.n));
        }
        lib.freeReplyObject(p);
    }
    arena_reset(&r->scratch);
    if (is_stale) {
        r->ev->stale(r->arg);
    }
}

/* Whether the server sends what we listen to; if not, changes are looked for at intervals. */
static bool sends_events(redisContext *c) {
    redisReply *rp = lib.redisCommand(c, "CONFIG GET notify-keyspace-events");
    bool is_ok = true; /* CONFIG may be forbidden: hope */
    if (rp && rp->type == REDIS_REPLY_ARRAY && rp->elements == 2 && rp->element[1]->str) {
        const char *v = rp->element[1]->str;
        is_ok = strchr(v, 'K') && (strchr(v, 'A') || (strchr(v, 'g') && strchr(v, '$')));
    }
    lib.freeReplyObject(rp);
    return is_ok;
}

static void on_every(void *arg) {
    struct redis *r = arg;
    r->ev->stale(r->arg);
}

static void subscribe(void *arg) {
    struct redis *r = arg;
    struct err e = {0};
    uint64_t db = 0;
    if (connect_any(r, &r->sub, &db, &e) < 0) {
        sub_lost(r, e.msg);
        return;
    }
    if (!sends_events(r->sub)) {
        LOG_W("confd", "redis_silent",
              "state=\"notify-keyspace-events is off: looking every %lld s\" "
              "repair=\"CONFIG SET notify-keyspace-events KA\"",
              (long long)r->o->interval_s);
        loop_timer_start(r->every, r->o->interval_s * 1000, r->o->interval_s * 1000);
    }
    if (answer(r->sub,
               lib.redisCommand(r->sub, "PSUBSCRIBE __keyspace@%llu__:*", (unsigned long long)db),
               "", "PSUBSCRIBE", &e) < 0) {
        sub_lost(r, e.msg);
        return;
    }
    r->retry_ms = 0;
    r->poll = loop_poll_new(r->loop, r->sub->fd, LOOP_READ, on_message, r);
    r->ev->stale(r->arg); /* what happened before we listened */
}

static int redis_watch(struct backend *b, struct loop *l, const struct backend_events *ev,
                       void *arg, struct err *e MG_UNUSED) {
    struct redis *r = self_of(b);
    r->loop = l;
    r->ev = ev;
    r->arg = arg;
    r->retry = loop_timer_new(l, subscribe, r);
    r->every = loop_timer_new(l, on_every, r);
    subscribe(r);
    return 0;
}

static int redis_open(const struct confd_options *o, const struct str *prefixes, size_t n,
                      struct backend **out, struct err *e) {
    int ret = library_load(&hiredis, e);
    if (ret < 0) {
        return err_wrap(e, ret, "-backend redis");
    }
    struct redis *r = calloc(1, sizeof(*r));
    mg_assert(r != NULL);
    r->b.ops = &backend_redis;
    r->o = o;
    r->prefixes = prefixes;
    r->n_prefixes = n;
    *out = &r->b;
    return 0;
}

static void redis_close(struct backend *b) {
    struct redis *r = self_of(b);
    loop_poll_free(r->poll);
    loop_timer_free(r->retry);
    loop_timer_free(r->every);
    drop(&r->sub);
    drop(&r->c);
    arena_fini(&r->scratch);
    free(r);
}

const struct backend_ops backend_redis = {.name = "redis",
                                          .open = redis_open,
                                          .close = redis_close,
                                          .read = redis_read,
                                          .watch = redis_watch};
