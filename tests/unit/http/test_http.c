/* The HTTP/2 client against a server of the tests' own: what calls do, and what goes wrong. */
#include "http/http_int.h"

#include "base/clock.h"

#include "h2_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <zlib.h>

#include <cmocka.h>

static void tick(void *arg) {
    (void)arg;
}

struct rig {
    struct h2_server s;
    struct loop *l;
    struct loop_timer *tick;
    struct http_client *c;
};

static struct http_client *client_to(struct loop *l, const char *scheme, int port,
                                     struct http_options o) {
    char url[64];
    struct err e = {.msg = ""};
    struct http_client *c = NULL;
    (void)snprintf(url, sizeof(url), "%s://127.0.0.1:%d", scheme, port);
    o.url = str_c(url);
    if (http_client_new(l, &o, &c, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return c;
}

static void rig_start(struct rig *r, struct http_options o) {
    h2_server_start(&r->s, NULL);
    r->l = loop_new();
    r->tick = loop_timer_new(r->l, tick, NULL);
    loop_timer_start(r->tick, 20, 20);
    r->c = client_to(r->l, "http", r->s.port, o);
}

static void rig_stop(struct rig *r) {
    http_client_free(r->c);
    loop_timer_free(r->tick);
    h2_server_stop(&r->s);
    loop_free(r->l);
}

#define until(r, cond)                                      \
    do {                                                    \
        int64_t until_end = clock_ns() + 30 * 1000000000LL; \
        while (!(cond)) {                                   \
            if (clock_ns() > until_end) {                   \
                fail_msg("never: %s", #cond);               \
            }                                               \
            loop_step((r)->l, true);                        \
        }                                                   \
    } while (0)

/* A call's story. */
struct story {
    struct http_call *call;
    int status, code;
    size_t n_bytes, n_chunks, n_headers;
    bool is_ended, is_unsent, pauses, frees_itself, frees_client;
    char first[64], reason[700], grpc[16];
    struct rig *rig;
};

static void on_head(void *arg, int status, const struct http_header *h, size_t n) {
    struct story *t = arg;
    t->status = status;
    t->n_headers = n;
    assert_false(http_header_get(h, n, "content-type").p && status == 0);
}
static void on_data(void *arg, struct str chunk) {
    struct story *t = arg;
    if (t->n_bytes < sizeof(t->first) - 1) {
        size_t room = sizeof(t->first) - 1 - t->n_bytes;
        memcpy(t->first + t->n_bytes, chunk.p, chunk.n < room ? chunk.n : room);
    }
    t->n_bytes += chunk.n;
    t->n_chunks++;
    if (t->pauses) {
        http_call_pause(t->call);
    }
    if (t->frees_itself) {
        http_call_free(TAKE_PTR(t->call));
    }
    if (t->frees_client) {
        http_client_free(TAKE_PTR(t->rig->c));
    }
}
static void on_end(void *arg, const struct http_end *end) {
    struct story *t = arg;
    assert_false(t->is_ended);
    t->is_ended = true;
    t->code = end->code;
    t->is_unsent = end->is_unsent;
    (void)snprintf(t->reason, sizeof(t->reason), "%s", end->reason);
    struct str g = http_header_get(end->trailers, end->n_trailers, "grpc-status");
    (void)snprintf(t->grpc, sizeof(t->grpc), "%.*s", STR_FMT(g));
    http_call_free(TAKE_PTR(t->call));
}

static void begin(struct rig *r, struct story *t, const char *path, bool is_streaming,
                  int64_t timeout_ms) {
    static const struct http_call_ops ops = {on_head, on_data, on_end};
    struct http_request q = {.method = is_streaming ? "POST" : "GET",
                             .path = str_c(path),
                             .is_streaming = is_streaming,
                             .timeout_ms = timeout_ms};
    struct err e = {.msg = ""};
    t->rig = r;
    if (http_call_new(r->c, &q, &ops, t, &t->call, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    assert_false(t->is_ended);
}

static struct story get(struct rig *r, const char *path, int64_t timeout_ms) {
    struct story t = {0};
    begin(r, &t, path, false, timeout_ms);
    until(r, t.is_ended);
    return t;
}

static void t_http__answers__whole(void **state) {
    struct rig r;
    rig_start(&r, (struct http_options){0});
    struct story t = get(&r, "/ok", 5000);
    assert_int_equal(t.code, 0);
    assert_int_equal(t.status, 200);
    assert_string_equal(t.first, "xxxxx");
    assert_string_equal(t.grpc, "0");
    t = get(&r, "/status/404", 5000);
    assert_int_equal(t.status, 404);
    assert_int_equal(t.code, 0);
    t = get(&r, "/big30000000", 20000);
    assert_int_equal(t.n_bytes, 30000000);
    assert_int_equal(t.code, 0);
    assert_int_equal(http_client_connections(r.c), 1);
    rig_stop(&r);
    (void)state;
}

static void t_http__many_calls__beside_each_other(void **state) {
    enum { N = 500 };
    struct rig r;
    struct story *t = calloc(N, sizeof(*t));
    rig_start(&r, (struct http_options){0});
    for (int i = 0; i < N; i++) {
        begin(&r, &t[i], i % 3 ? "/big10000" : "/ok", false, 20000);
    }
    for (int i = 0; i < N; i++) {
        until(&r, t[i].is_ended);
        assert_int_equal(t[i].code, 0);
        assert_int_equal(t[i].n_bytes, i % 3 ? 10000 : 5);
    }
    assert_int_equal(http_client_connections(r.c), 1);
    free(t);
    rig_stop(&r);
    (void)state;
}

static void t_http__too_many_calls__refused(void **state) {
    struct rig r;
    struct story *t = calloc(HTTP_CALLS_MAX, sizeof(*t));
    struct http_call *more = NULL;
    struct err e = {.msg = ""};
    static const struct http_call_ops ops = {on_head, on_data, on_end};
    rig_start(&r, (struct http_options){0});
    for (int i = 0; i < HTTP_CALLS_MAX; i++) {
        begin(&r, &t[i], "/slow", false, 0);
    }
    struct http_request q = {.method = "GET", .path = STR("/")};
    assert_int_equal(http_call_new(r.c, &q, &ops, NULL, &more, &e), ERR_TOO_BIG);
    for (int i = 0; i < HTTP_CALLS_MAX; i++) {
        http_call_free(t[i].call);
    }
    assert_int_equal(get(&r, "/ok", 5000).code, 0);
    free(t);
    rig_stop(&r);
    (void)state;
}

static void t_http__streaming__both_ways(void **state) {
    struct rig r;
    struct story t = {0};
    rig_start(&r, (struct http_options){0});
    begin(&r, &t, "/echo", true, 0);
    assert_int_equal(http_call_send(t.call, STR("one ")), 0);
    until(&r, t.n_bytes == 4);
    assert_int_equal(http_call_send(t.call, STR("two")), 0);
    until(&r, t.n_bytes == 7);
    assert_string_equal(t.first, "one two");
    char *mega = calloc(1, 3000000);
    assert_int_equal(http_call_send(t.call, str_n(mega, 3000000)), 0);
    until(&r, t.n_bytes == 3000007);
    assert_int_equal(http_call_unsent(t.call), 0);
    http_call_finish(t.call);
    assert_int_equal(http_call_send(t.call, STR("x")), ERR_UNAVAILABLE);
    until(&r, t.is_ended);
    assert_int_equal(t.code, 0);
    free(mega);
    rig_stop(&r);
    (void)state;
}

static void t_http__paused__peer_waits_others_go_on(void **state) {
    struct rig r;
    struct story t = {.pauses = true};
    rig_start(&r, (struct http_options){0});
    begin(&r, &t, "/big5000000", false, 0);
    until(&r, t.n_bytes);
    size_t at = t.n_bytes;
    for (int i = 0; i < 3; i++) {
        struct story o = get(&r, "/big3000000", 10000);
        assert_int_equal(o.n_bytes, 3000000);
    }
    assert_int_equal(t.n_bytes, at);
    assert_true(t.call->in.n <= HTTP_WINDOW);
    size_t n_pauses = 0;
    while (!t.is_ended) {
        if (t.call->is_paused) {
            n_pauses++;
            http_call_resume(t.call);
        }
        loop_step(r.l, true);
    }
    assert_int_equal(t.n_bytes, 5000000);
    assert_int_equal(t.code, 0);
    assert_true(n_pauses > 3);
    rig_stop(&r);
    (void)state;
}

/* What `n` bytes of c pack to. */
static struct buf packed(char c, size_t n) {
    struct buf out = BUF_INIT(64 << 20);
    z_stream z = {0};
    char *text = malloc(n + 1);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++) { /* c 0: hard to pack */
        text[i] = c ? c : (char)('a' + (i * i / 7 + i / 1013) % 26);
    }
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)text;
    z.avail_in = (unsigned)n;
    z.avail_out = (unsigned)deflateBound(&z, n);
    unsigned room = z.avail_out;
    z.next_out = (unsigned char *)buf_reserve(&out, room);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.n = room - z.avail_out;
    (void)deflateEnd(&z);
    free(text);
    return out;
}

/* Sends it in pieces to a server that gives it back as a gzip answer. */
static void unpack(struct rig *r, struct story *t, const char *path, struct str in, size_t piece) {
    begin(r, t, path, true, 0);
    for (size_t i = 0; i < in.n && !t->is_ended; i += piece) {
        struct str now = str_sub(in, i, i + piece < in.n ? i + piece : in.n);
        while (!t->is_ended && http_call_send(t->call, now) == ERR_TOO_BIG) {
            loop_step(r->l, true);
        }
        loop_step(r->l, false);
    }
    if (!t->is_ended) {
        http_call_finish(t->call);
    }
    while (!t->is_ended) {
        if (t->pauses && t->call->is_paused) {
            http_call_resume(t->call);
        }
        loop_step(r->l, true);
    }
}

static void t_http__gzip__unpacked_within_bounds(void **state) {
    struct rig r;
    rig_start(&r, (struct http_options){.is_gzip_welcome = true});
    struct buf easy = packed('x', 3000000), hard = packed(0, 3000000), bomb = packed('x', 60000000),
               late = packed(0, 20000);
    for (int pauses = 0; pauses < 2; pauses++) {
        struct story t = {.pauses = pauses};
        unpack(&r, &t, "/echo-gzip", buf_view(&easy), 97);
        assert_int_equal(t.code, 0);
        assert_int_equal(t.n_bytes, 3000000);
        t = (struct story){.pauses = pauses};
        unpack(&r, &t, "/echo-gzip", buf_view(&hard), 50000);
        assert_int_equal(t.code, 0);
        assert_int_equal(t.n_bytes, 3000000);
        t = (struct story){.pauses = pauses};
        unpack(&r, &t, "/echo-gzip", str_sub(buf_view(&hard), 0, hard.n / 2), 50000);
        assert_int_equal(t.code, -EPROTO);
        assert_non_null(strstr(t.reason, "ends in the middle"));
        t = (struct story){.pauses = pauses};
        unpack(&r, &t, "/echo-gzip", buf_view(&bomb), 50000);
        assert_int_equal(t.code, ERR_TOO_BIG);
        assert_true(t.n_bytes < 20000000);
    }
    static const struct {
        const char *path, *text, *why;
    } bad[] = {{"/echo-gzip", "{\"plain\":1}", "is not"},
               {"/echo-gzip", "", "ends in the middle"},
               {"/echo-br", "x", "content-encoding"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct story t = {0};
        unpack(&r, &t, bad[i].path, str_c(bad[i].text), 100);
        assert_int_equal(t.code, -EPROTO);
        assert_non_null(strstr(t.reason, bad[i].why));
    }
    struct story t = {0};
    buf_puts(&late, "more");
    unpack(&r, &t, "/echo-gzip", buf_view(&late), 1000);
    assert_int_equal(t.code, -EPROTO);
    assert_non_null(strstr(t.reason, "behind its end"));
    assert_int_equal(get(&r, "/ok", 5000).code, 0);
    assert_int_equal(http_client_connections(r.c), 1);
    buf_fini(&easy);
    buf_fini(&hard);
    buf_fini(&bomb);
    buf_fini(&late);
    rig_stop(&r);
    (void)state;
}

static void t_http__freed_in_callbacks__nothing_follows(void **state) {
    struct rig r;
    struct story t = {.frees_itself = true};
    rig_start(&r, (struct http_options){0});
    begin(&r, &t, "/big5000000", false, 0);
    until(&r, t.n_chunks);
    assert_int_equal(get(&r, "/ok", 5000).code, 0);
    assert_int_equal(t.n_chunks, 1);
    assert_false(t.is_ended);
    struct story u = {.frees_itself = true, .frees_client = true};
    begin(&r, &u, "/big5000000", false, 0);
    until(&r, u.n_chunks);
    loop_step(r.l, true);
    assert_int_equal(u.n_chunks, 1);
    rig_stop(&r);
    (void)state;
}

static void t_http__deadline__said_and_connection_suspected(void **state) {
    struct rig r;
    rig_start(&r, (struct http_options){.what = "etcd"});
    assert_int_equal(get(&r, "/ok", 5000).code, 0);
    usleep(2000);
    struct story t = get(&r, "/deaf", 500);
    assert_int_equal(t.code, -ETIMEDOUT);
    assert_non_null(strstr(t.reason, "etcd at 127.0.0.1:"));
    assert_non_null(strstr(t.reason, "no answer to GET /deaf within 500 ms"));
    r.s.is_deaf = false;
    assert_int_equal(get(&r, "/ok", 5000).code, 0);
    assert_int_equal(http_client_connections(r.c), 2); /* not a word on the first since */
    rig_stop(&r);
    (void)state;
}

static void t_http__half_open__found_by_ping(void **state) {
    struct rig r;
    struct story t = {0};
    rig_start(&r, (struct http_options){.ping_interval_ms = 100, .ping_timeout_ms = 4000});
    begin(&r, &t, "/slow", false, 0);
    int64_t end = clock_ns() + 500 * 1000000LL;
    while (clock_ns() < end) {
        loop_step(r.l, true);
    }
    assert_false(t.is_ended); /* answers pings: alive */
    r.s.is_deaf = true;
    until(&r, t.is_ended);
    assert_int_equal(t.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(t.reason, "no answer to a ping"));
    rig_stop(&r);
    (void)state;
}

static void t_http__goaway__new_connection_old_call_ends(void **state) {
    struct rig r;
    struct story slow = {0}, echo = {0};
    rig_start(&r, (struct http_options){0});
    begin(&r, &echo, "/echo", true, 0);
    assert_int_equal(http_call_send(echo.call, STR("a")), 0);
    until(&r, echo.n_bytes == 1);
    assert_int_equal(get(&r, "/goaway", 5000).code, 0);
    assert_int_equal(get(&r, "/ok", 5000).code, 0);
    assert_int_equal(http_client_connections(r.c), 2);
    assert_int_equal(http_call_send(echo.call, STR("b")), 0);
    http_call_finish(echo.call);
    until(&r, echo.is_ended);
    assert_int_equal(echo.code, 0);
    assert_string_equal(echo.first, "ab");
    /* Refused: tried once more by itself, on another connection. */
    http_client_refresh(r.c);
    begin(&r, &slow, "/refuse", false, 5000);
    until(&r, slow.is_ended);
    assert_int_equal(slow.code, ERR_UNAVAILABLE);
    assert_true(slow.is_unsent);
    rig_stop(&r);
    (void)state;
}

static void t_http__broken_answers__said(void **state) {
    struct rig r;
    rig_start(&r, (struct http_options){0});
    struct story t = get(&r, "/truncate", 5000);
    assert_int_equal(t.code, ERR_UNAVAILABLE);
    assert_true(strstr(t.reason, "closed the connection") || strstr(t.reason, "reset by peer"));
    assert_int_equal(t.n_bytes, 5);
    assert_false(t.is_unsent);
    t = get(&r, "/reset", 5000);
    assert_int_equal(t.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(t.reason, "INTERNAL_ERROR"));
    t = get(&r, "/headers100", 5000); /* :status is one of them */
    assert_int_equal(t.code, 0);
    assert_int_equal(t.n_headers, 100);
    t = get(&r, "/headers140", 5000);
    assert_int_equal(t.code, ERR_TOO_BIG);
    assert_non_null(strstr(t.reason, "headers are too large"));
    t = get(&r, "/garbage", 5000);
    assert_true(t.code == -EPROTO || t.code == ERR_UNAVAILABLE);
    assert_int_equal(get(&r, "/ok", 5000).code, 0);
    rig_stop(&r);
    (void)state;
}

/* Peers that are no HTTP/2 servers. */
static struct story get_from(int port, const char *scheme, struct http_options o) {
    struct rig r = {.l = loop_new()};
    r.tick = loop_timer_new(r.l, tick, NULL);
    loop_timer_start(r.tick, 20, 20);
    r.c = client_to(r.l, scheme, port, o);
    struct story t = get(&r, "/", 5000);
    http_client_free(r.c);
    loop_timer_free(r.tick);
    loop_free(r.l);
    return t;
}

static void *answer_once(void *arg) {
    int fd = accept(*(int *)arg, NULL, NULL);
    char in[256];
    (void)!read(fd, in, sizeof(in));
    static const char text[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    (void)!write(fd, text, sizeof(text) - 1);
    usleep(100000);
    close(fd);
    return NULL;
}

static void t_http__no_server__why(void **state) {
    int port = 0, fd = h2_listen(&port);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_once, &fd), 0);
    struct story t = get_from(port, "http", (struct http_options){0});
    (void)pthread_join(thread, NULL);
    assert_int_equal(t.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(t.reason, "does not speak HTTP/2"));
    assert_int_equal(pthread_create(&thread, NULL, answer_once, &fd), 0);
    t = get_from(port, "https", (struct http_options){.is_insecure = true});
    (void)pthread_join(thread, NULL);
    assert_non_null(strstr(t.reason, "does not speak TLS"));
    /* Accepts, and says nothing. */
    t = get_from(port, "http", (struct http_options){.connect_timeout_ms = 1000});
    assert_non_null(strstr(t.reason, "no HTTP/2 came back within 1000 ms"));
    close(fd);
    t = get_from(port, "http", (struct http_options){0});
    assert_int_equal(t.code, ERR_UNAVAILABLE);
    assert_true(t.is_unsent);
    assert_non_null(strstr(t.reason, "Connection refused"));
    (void)state;
}

static void t_http__options__contradictions(void **state) {
    static const struct {
        struct http_options o;
        const char *says;
    } cases[] = {
        {{.url = STR("ftp://x")}, "must begin with http"},
        {{.url = STR("http://x/path")}, "has a path"},
        {{.url = STR("http://")}, "HOST:PORT"},
        {{.url = STR("http://a b")}, "HOST:PORT"},
        {{.url = STR("http://x:0")}, "HOST:PORT"},
        {{.url = STR("http://x:70000")}, "HOST:PORT"},
        {{.url = STR("http://::1:80")}, "HOST:PORT"},
        {{.url = STR("http://[::1")}, "HOST:PORT"},
        {{.url = STR("http://x\r\ny")}, "HOST:PORT"},
        {{.url = STR("https://x"), .ca_file = STR("a"), .ca_pem = STR("b")}, "only one of them"},
        {{.url = STR("https://x"), .cert_file = STR("a")}, "key is missing"},
        {{.url = STR("https://x"), .key_pem = STR("a")}, "certificate is missing"},
        {{.url = STR("https://x"), .proxy_url = STR("https://p")}, "only proxies of http"},
        {{.url = STR("http://[::1]:80")}, NULL},
        {{.url = STR("https://host.name/"), .proxy_url = STR("http://u:p%40@p:3128")}, NULL},
    };
    struct loop *l = loop_new();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http_client *c = NULL;
        struct err e = {.msg = ""};
        int r = http_client_new(l, &cases[i].o, &c, &e);
        if (cases[i].says) {
            assert_int_equal(r, ERR_INVALID);
            if (!strstr(e.msg, cases[i].says)) {
                fail_msg("case %zu: %s", i, e.msg);
            }
        } else {
            assert_int_equal(r, 0);
            http_client_free(c);
        }
    }
    loop_free(l);
    (void)state;
}

/* A proxy in front of the server: one connection, by the book. */
struct proxy {
    int fd, to_port;
    bool refuses;
    char asked[512];
};
static void *proxy_main(void *arg) {
    struct proxy *p = arg;
    int in = accept(p->fd, NULL, NULL), out = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)p->to_port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    size_t n = 0;
    while (!strstr(p->asked, "\r\n\r\n") && n + 1 < sizeof(p->asked)) {
        ssize_t got = read(in, p->asked + n, sizeof(p->asked) - 1 - n);
        n += got > 0 ? (size_t)got : 0;
    }
    const char *says = p->refuses ? "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
                                  : "HTTP/1.1 200 OK\r\nX: y\r\n\r\n";
    (void)!write(in, says, strlen(says));
    if (!p->refuses && connect(out, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
        char buf[4096];
        for (;;) {
            struct pollfd w[2] = {{in, POLLIN, 0}, {out, POLLIN, 0}};
            (void)poll(w, 2, -1);
            int from = w[0].revents ? 0 : 1;
            ssize_t got = read(w[from].fd, buf, sizeof(buf));
            if (got <= 0 || write(w[1 - from].fd, buf, (size_t)got) != got) {
                break;
            }
        }
    }
    close(in);
    close(out);
    return NULL;
}

static void t_http__proxy__connect(void **state) {
    for (int refuses = 0; refuses < 2; refuses++) {
        struct rig r;
        struct proxy p = {.refuses = refuses};
        int port = 0;
        char url[64];
        pthread_t thread;
        p.fd = h2_listen(&port);
        (void)snprintf(url, sizeof(url), "http://me:p%%40ss@127.0.0.1:%d", port);
        rig_start(&r, (struct http_options){.proxy_url = str_c(url)});
        p.to_port = r.s.port;
        assert_int_equal(pthread_create(&thread, NULL, proxy_main, &p), 0);
        struct story t = get(&r, "/ok", 5000);
        assert_int_equal(t.code, refuses ? ERR_UNAVAILABLE : 0);
        assert_true(!refuses || strstr(t.reason, "407"));
        rig_stop(&r);
        (void)pthread_join(thread, NULL);
        close(p.fd);
        assert_non_null(strstr(p.asked, "CONNECT 127.0.0.1:"));
        assert_non_null(strstr(p.asked, "Basic bWU6cEBzcw=="));
    }
    (void)state;
}

static void t_http__name_lookup__unknown_and_known(void **state) {
    struct rig r = {.l = loop_new()};
    struct err e = {.msg = ""};
    struct http_options o = {.url = STR("http://no-such-name.invalid:1")};
    r.tick = loop_timer_new(r.l, tick, NULL);
    loop_timer_start(r.tick, 20, 20);
    assert_int_equal(http_client_new(r.l, &o, &r.c, &e), 0);
    struct story t = get(&r, "/", 20000);
    assert_int_equal(t.code, ERR_UNAVAILABLE);
    assert_true(t.is_unsent);
    assert_non_null(strstr(t.reason, "no-such-name.invalid"));
    http_client_free(r.c);
    char url[64];
    h2_server_start(&r.s, NULL);
    (void)snprintf(url, sizeof(url), "http://localhost:%d", r.s.port);
    o.url = str_c(url);
    assert_int_equal(http_client_new(r.l, &o, &r.c, &e), 0);
    t = get(&r, "/ok", 20000);
    assert_int_equal(t.code, 0);
    rig_stop(&r);
    (void)state;
}

static void t_http__run__blocks_to_the_end(void **state) {
    struct rig r;
    struct arena a = {0};
    struct http_answer w;
    struct err e = {.msg = ""};
    struct http_request q = {.method = "GET", .path = STR("/ok"), .timeout_ms = 5000};
    rig_start(&r, (struct http_options){0});
    assert_int_equal(http_run(r.c, &q, 1000, &a, &w, &e), 0);
    assert_int_equal(w.status, 200);
    assert_true(str_is(w.body, "xxxxx"));
    assert_true(str_is(http_header_get(w.trailers, w.n_trailers, "grpc-status"), "0"));
    q.path = STR("/big100000");
    assert_int_equal(http_run(r.c, &q, 1000, &a, &w, &e), ERR_TOO_BIG);
    q.path = STR("/slow");
    q.timeout_ms = 100;
    assert_int_equal(http_run(r.c, &q, 1000, &a, &w, &e), -ETIMEDOUT);
    q.path = STR("/echo");
    q.method = "POST";
    q.body = STR("hello");
    q.timeout_ms = 5000;
    assert_int_equal(http_run(r.c, &q, 1000, &a, &w, &e), 0);
    assert_true(str_is(w.body, "hello"));
    arena_fini(&a);
    rig_stop(&r);
    (void)state;
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_http__answers__whole),
        cmocka_unit_test(t_http__many_calls__beside_each_other),
        cmocka_unit_test(t_http__too_many_calls__refused),
        cmocka_unit_test(t_http__streaming__both_ways),
        cmocka_unit_test(t_http__paused__peer_waits_others_go_on),
        cmocka_unit_test(t_http__gzip__unpacked_within_bounds),
        cmocka_unit_test(t_http__freed_in_callbacks__nothing_follows),
        cmocka_unit_test(t_http__deadline__said_and_connection_suspected),
        cmocka_unit_test(t_http__half_open__found_by_ping),
        cmocka_unit_test(t_http__goaway__new_connection_old_call_ends),
        cmocka_unit_test(t_http__broken_answers__said),
        cmocka_unit_test(t_http__no_server__why),
        cmocka_unit_test(t_http__options__contradictions),
        cmocka_unit_test(t_http__proxy__connect),
        cmocka_unit_test(t_http__name_lookup__unknown_and_known),
        cmocka_unit_test(t_http__run__blocks_to_the_end),
    };
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    (void)signal(SIGPIPE, SIG_IGN); /* the test's server, not the client, writes to the dead */
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
