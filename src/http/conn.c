/* One connection: look the name up, connect (one address after the other), go through the proxy,
 * shake hands, then carry bytes between the socket and the session. Decides when the peer is lost:
 * nothing here tries again. A call may go out before the peer's first SETTINGS; a peer that does
 * not send them within the connect timeout speaks something else or is stuck. */
#include "http/http_int.h"

#include "base/clock.h"
#include "base/fd.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    READ_CHUNK = 16384,    /* a whole TLS record: none of it stays behind unseen in OpenSSL */
    READS_PER_EVENT = 16,  /* then the loop's others have a turn */
    ATTEMPT_MIN_MS = 1000, /* for one of several addresses */
    PROXY_ANSWER_MAX = 16384,
    FAILURES_MAX = 512,
};

static int64_t ms_of(int64_t ns) {
    return ns <= 0 ? 0 : (ns + 999999) / 1000000;
}

static void conn_destroy(struct http_conn *n) {
    if (n->h2) {
        nghttp2_session_del(n->h2);
    }
    buf_fini(&n->failures);
    buf_fini(&n->out);
    free(n);
}

void http_conn_leave(struct http_conn *n) {
    if (--n->depth == 0 && n->is_dead) {
        conn_destroy(n);
    }
}

/* The socket and what stands on it. */
static void close_socket(struct http_conn *n) {
    loop_poll_free(TAKE_PTR(n->poll));
    n->events = 0;
    SSL_free(TAKE_PTR(n->tls));
    SSL_CTX_free(TAKE_PTR(n->tls_context));
    X509_free(TAKE_PTR(n->refused));
    fd_close(&n->fd);
    n->fd = -1;
}

static void stop(struct http_conn *n) {
    n->state = CONN_LOST;
    http_lookup_free(TAKE_PTR(n->lookup));
    loop_timer_free(TAKE_PTR(n->connect_timer));
    loop_timer_free(TAKE_PTR(n->attempt_timer));
    loop_timer_free(TAKE_PTR(n->ping_timer));
    loop_defer_free(TAKE_PTR(n->flush));
    close_socket(n);
}

void http_conn_free(struct http_conn *n) {
    if (n->is_dead) {
        return;
    }
    if (n->tls && n->state >= CONN_SETTINGS && n->state != CONN_LOST) {
        ERR_clear_error();
        (void)SSL_shutdown(n->tls); /* a courtesy: lost if the socket is full */
        ERR_clear_error();
    }
    stop(n);
    link_leave(&n->link);
    n->client = NULL;
    n->is_dead = true;
    if (n->depth == 0) {
        conn_destroy(n);
    }
}

static void fail_calls(struct http_link *calls, int code, bool never_sent, const char *reason) {
    while (!link_is_alone(calls)) {
        struct http_call *call = container_of(calls->next, struct http_call, link);
        http_call_fail(call, code, never_sent || !call->is_sent, reason);
    }
}

void http_conn_lose(struct http_conn *n, int code, const char *fmt, ...) {
    if (n->state == CONN_LOST) {
        return;
    }
    struct err e;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(e.msg, sizeof(e.msg), fmt, ap);
    va_end(ap);
    http_conn_enter(n);
    struct http_client *c = n->client;
    bool was_made = n->state >= CONN_SETTINGS;
    stop(n);
    struct http_link waiting;
    link_init(&waiting);
    if (!was_made && c->conn == n) {
        /* They waited for this one. Those who call anew from their on_end get the next. */
        while (!link_is_alone(&c->waiting)) {
            struct http_link *l = c->waiting.next;
            link_leave(l);
            link_join(&waiting, l);
        }
    }
    http_client_conn_done(c, n);
    fail_calls(&waiting, code, true, e.msg);
    fail_calls(&n->calls, code, false, e.msg);
    http_conn_free(n);
    http_conn_leave(n);
}

static void want_events(struct http_conn *n, unsigned events) {
    if (n->poll && n->events != events) {
        n->events = events;
        loop_poll_set(n->poll, events);
    }
}

static void ping_restart(struct http_conn *n);

/* Calls may go out. */
static void start_session(struct http_conn *n) {
    loop_timer_free(TAKE_PTR(n->attempt_timer));
    n->state = CONN_SETTINGS;
    n->received_ns = clock_ns();
    if (http_session_new(n) < 0) {
        http_conn_lose(n, ERR_UNAVAILABLE, "%s: no memory for a session", n->client->label);
        return;
    }
    http_conn_flush_soon(n);
    ping_restart(n);
    http_client_wake(n->client);
}

static void tls_lost(struct http_conn *n, int ssl_result, const char *doing) {
    struct err e;
    int code = http_tls_error(n, ssl_result, doing, &e);
    http_conn_lose(n, code, "%s", e.msg);
}

static void handshake(struct http_conn *n) {
    ERR_clear_error();
    errno = 0;
    int r = SSL_do_handshake(n->tls);
    if (r != 1) {
        int kind = SSL_get_error(n->tls, r);
        if (kind == SSL_ERROR_WANT_READ) {
            want_events(n, LOOP_READ);
        } else if (kind == SSL_ERROR_WANT_WRITE) {
            want_events(n, LOOP_WRITE);
        } else {
            tls_lost(n, r, "handshake");
        }
        return;
    }
    const uint8_t *alpn = NULL;
    unsigned len = 0;
    SSL_get0_alpn_selected(n->tls, &alpn, &len);
    if (len != 2 || memcmp(alpn, "h2", 2) != 0) {
        http_conn_lose(n, ERR_UNAVAILABLE, "%s: does not speak HTTP/2", n->client->label);
        return;
    }
    start_session(n);
}

static void start_tls(struct http_conn *n) {
    if (!n->client->origin.is_tls) {
        start_session(n);
        return;
    }
    struct err e;
    int r = http_tls_start(n, &e);
    if (r < 0) {
        http_conn_lose(n, r, "%s: %s", n->client->label, e.msg);
        return;
    }
    n->state = CONN_TLS;
    handshake(n);
}

static void proxy_lost(struct http_conn *n, const char *what, struct str found) {
    http_conn_lose(n, ERR_UNAVAILABLE, "%s: the proxy %s %s%s%.*s", n->client->label,
                   n->client->proxy.authority, what, found.n ? ": " : "",
                   found.n > 200 ? 200 : (int)found.n, found.n ? found.p : "");
}

static void proxy_ask(struct http_conn *n) {
    const struct http_client *c = n->client;
    n->state = CONN_PROXY;
    buf_printf(&n->out, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", c->origin.authority,
               c->origin.authority);
    if (c->proxy.basic_auth) {
        buf_printf(&n->out, "Proxy-Authorization: Basic %s\r\n", c->proxy.basic_auth);
    }
    buf_puts(&n->out, "\r\n");
    /* A new socket takes these few bytes at once. */
    ssize_t put = send(n->fd, n->out.p, n->out.n, MSG_NOSIGNAL);
    if (put != (ssize_t)n->out.n) {
        proxy_lost(n, "did not take a request", STR_NULL);
        return;
    }
    buf_reset(&n->out);
    want_events(n, LOOP_READ);
}

/* Takes no byte behind the answer: those are the peer's. */
static void proxy_read(struct http_conn *n) {
    char peek[1024];
    ssize_t got = recv(n->fd, peek, sizeof(peek), MSG_PEEK);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0 || n->out.n + (size_t)got > PROXY_ANSWER_MAX) {
        proxy_lost(n, got <= 0 ? "closed the connection" : "sends an endless answer", STR_NULL);
        return;
    }
    size_t before = n->out.n;
    buf_add(&n->out, peek, (size_t)got);
    const char *end = memmem(n->out.p, n->out.n, "\r\n\r\n", 4);
    size_t take = end ? (size_t)(end + 4 - n->out.p) - before : (size_t)got;
    if (recv(n->fd, peek, take, 0) != (ssize_t)take) {
        proxy_lost(n, "closed the connection", STR_NULL);
        return;
    }
    if (!end) {
        return;
    }
    struct str rest = buf_view(&n->out), line = str_trim(str_cut(&rest, '\n'));
    bool is_ok = line.n >= 10 && str_starts(line, STR("HTTP/1.")) && line.p[9] == '2';
    if (!is_ok) {
        proxy_lost(n, "refuses", line);
        return;
    }
    buf_reset(&n->out);
    start_tls(n);
}

static void try_address(struct http_conn *n);

/* This address is no good: the next one, or the end. */
static void attempt_failed(struct http_conn *n, const char *why) {
    char text[INET6_ADDRSTRLEN] = "";
    if (n->addresses.n > 1) {
        const struct sockaddr_storage *sa = &n->addresses.a[n->i_address];
        const void *ip = sa->ss_family == AF_INET
                             ? (const void *)&((const struct sockaddr_in *)sa)->sin_addr
                             : (const void *)&((const struct sockaddr_in6 *)sa)->sin6_addr;
        (void)inet_ntop(sa->ss_family, ip, text, sizeof(text));
    }
    buf_printf(&n->failures, "%s%s%s%s", n->failures.n ? "; " : "", text, text[0] ? ": " : "", why);
    close_socket(n);
    n->i_address++;
    try_address(n);
}

static void on_attempt_timeout(void *arg) {
    attempt_failed(arg, "no answer to the connection request");
}

static void connected(struct http_conn *n) {
    int one = 1;
    /* Small frames must not wait for an acknowledgement; slower without, not wrong. */
    (void)setsockopt(n->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    loop_timer_stop(n->attempt_timer);
    if (n->client->proxy.host) {
        proxy_ask(n);
    } else {
        start_tls(n);
    }
}

static void tcp_ready(struct http_conn *n) {
    int err = 0;
    socklen_t len = sizeof(err);
    if (getsockopt(n->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0) {
        err = errno;
    }
    if (err) {
        attempt_failed(n, strerror(err));
    } else {
        connected(n);
    }
}

static void on_poll(void *arg, unsigned events);

static void try_address(struct http_conn *n) {
    n->state = CONN_TCP;
    for (; n->i_address < n->addresses.n; n->i_address++) {
        const struct sockaddr_storage *sa = &n->addresses.a[n->i_address];
        n->fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int r = n->fd < 0
                    ? -1
                    : connect(n->fd, (const struct sockaddr *)sa, n->addresses.len[n->i_address]);
        if (r < 0 && errno != EINPROGRESS) {
            buf_printf(&n->failures, "%s%s", n->failures.n ? "; " : "", strerror(errno));
            fd_close(&n->fd);
            n->fd = -1;
            continue;
        }
        int64_t left = ms_of(n->connect_end_ns - clock_ns());
        int64_t share = left / (int64_t)(n->addresses.n - n->i_address);
        if (n->addresses.n > n->i_address + 1) {
            loop_timer_start(n->attempt_timer, share > ATTEMPT_MIN_MS ? share : ATTEMPT_MIN_MS, 0);
        }
        n->events = LOOP_WRITE;
        n->poll = loop_poll_new(n->client->l, n->fd, n->events, on_poll, n);
        return;
    }
    const struct http_client *c = n->client;
    if (c->proxy.host) {
        http_conn_lose(n, ERR_UNAVAILABLE, "%s: the proxy %s: %s", c->label, c->proxy.authority,
                       buf_cstr(&n->failures));
    } else {
        http_conn_lose(n, ERR_UNAVAILABLE, "%s: %s", c->label, buf_cstr(&n->failures));
    }
}

static void on_lookup(void *arg, const struct http_addresses *a, const char *reason) {
    struct http_conn *n = arg;
    http_lookup_free(TAKE_PTR(n->lookup));
    if (a->n == 0) {
        http_conn_lose(n, ERR_UNAVAILABLE, "%s: %s", n->client->label, reason);
        return;
    }
    n->addresses = *a;
    http_conn_enter(n);
    try_address(n);
    http_conn_leave(n);
}

static void on_connect_timeout(void *arg) {
    struct http_conn *n = arg;
    static const char *const doing[] = {
        [CONN_LOOKUP] = "no answer to the name lookup",
        [CONN_TCP] = "no answer to the connection request",
        [CONN_PROXY] = "the proxy did not answer",
        [CONN_TLS] = "the TLS handshake did not end",
        [CONN_SETTINGS] = "connected, but no HTTP/2 came back",
        [CONN_OPEN] = "",
        [CONN_LOST] = "",
    };
    http_conn_lose(n, ERR_UNAVAILABLE, "%s: %s within %d ms", n->client->label, doing[n->state],
                   n->client->o.connect_timeout_ms);
}

static void on_flush(void *arg);
static void on_ping_timer(void *arg);

struct http_conn *http_conn_new(struct http_client *c) {
    struct http_conn *n = calloc(1, sizeof(*n));
    mg_assert(n != NULL);
    n->client = c;
    link_init(&n->link);
    link_init(&n->calls);
    n->fd = -1;
    n->failures = BUF_INIT(FAILURES_MAX);
    n->out = BUF_INIT(SIZE_MAX / 2); /* http_session_drain stops at its own limit */
    n->connect_end_ns = clock_ns() + (int64_t)c->o.connect_timeout_ms * 1000000;
    n->connect_timer = loop_timer_new(c->l, on_connect_timeout, n);
    n->attempt_timer = loop_timer_new(c->l, on_attempt_timeout, n);
    n->ping_timer = loop_timer_new(c->l, on_ping_timer, n);
    n->flush = loop_defer_new(c->l, on_flush, n);
    loop_timer_start(n->connect_timer, c->o.connect_timeout_ms, 0);
    c->n_connections++;
    if (c->next_fd >= 0) {
        n->fd = TAKE_FD(c->next_fd);
        n->state = CONN_TCP;
        n->events = LOOP_WRITE;
        n->poll = loop_poll_new(c->l, n->fd, n->events, on_poll, n);
        return n;
    }
    const struct http_origin *to = c->proxy.host ? &c->proxy : &c->origin;
    n->lookup = http_lookup_new(c->l, to->host, to->port, on_lookup, n);
    return n;
}

/* -1: nothing to read now; 0: lost; else bytes. */
static int read_some(struct http_conn *n, uint8_t *p, int size) {
    if (n->tls) {
        ERR_clear_error();
        errno = 0;
        int got = SSL_read(n->tls, p, size);
        if (got > 0) {
            return got;
        }
        int kind = SSL_get_error(n->tls, got);
        n->tls_wants_write = kind == SSL_ERROR_WANT_WRITE;
        if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
            return -1;
        }
        tls_lost(n, got, "read");
        return 0;
    }
    ssize_t got = recv(n->fd, p, (size_t)size, 0);
    if (got > 0) {
        return (int)got;
    }
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return -1;
    }
    http_conn_lose(n, ERR_UNAVAILABLE, "%s: %s%s%.*s", n->client->label,
                   got < 0 ? strerror(errno) : "closed the connection", n->goaway.n ? ": " : "",
                   STR_FMT(n->goaway));
    return 0;
}

static void read_all(struct http_conn *n) {
    uint8_t chunk[READ_CHUNK];
    for (int i = 0; i < READS_PER_EVENT && n->state != CONN_LOST; i++) {
        int got = read_some(n, chunk, sizeof(chunk));
        if (got <= 0) {
            return;
        }
        if (!n->has_bytes && got >= 7 && memcmp(chunk, "HTTP/1.", 7) == 0) {
            http_conn_lose(n, ERR_UNAVAILABLE, "%s: does not speak HTTP/2, answers with HTTP/1",
                           n->client->label);
            return;
        }
        n->has_bytes = true;
        n->received_ns = clock_ns();
        n->ping_sent_ns = 0;
        if (!http_session_feed(n, chunk, (size_t)got)) {
            return;
        }
    }
}

/* False: no more can be written now, or the connection is lost. */
static bool write_some(struct http_conn *n) {
    struct str left = str_sub(buf_view(&n->out), n->out_sent, n->out.n);
    ssize_t put;
    if (n->tls) {
        ERR_clear_error();
        errno = 0;
        put = SSL_write(n->tls, left.p, left.n > INT32_MAX ? INT32_MAX : (int)left.n);
        if (put <= 0) {
            int kind = SSL_get_error(n->tls, (int)put);
            if (kind != SSL_ERROR_WANT_WRITE && kind != SSL_ERROR_WANT_READ) {
                tls_lost(n, (int)put, "write");
            }
            return false;
        }
    } else {
        put = send(n->fd, left.p, left.n, MSG_NOSIGNAL);
        if (put < 0) {
            /* What the peer said before it hung up is still to be read: the read reports. */
            if (errno != EAGAIN && errno != EINTR && errno != EPIPE && errno != ECONNRESET) {
                http_conn_lose(n, ERR_UNAVAILABLE, "%s: %s", n->client->label, strerror(errno));
            }
            return false;
        }
    }
    n->out_sent += (size_t)put;
    if (n->out_sent == n->out.n) {
        buf_reset(&n->out);
        n->out_sent = 0;
    }
    return true;
}

static void flush(struct http_conn *n) {
    while (n->state == CONN_SETTINGS || n->state == CONN_OPEN) {
        if (n->out.n == 0 && !http_session_drain(n)) {
            return;
        }
        if (n->out.n == 0 || n->state == CONN_LOST || !write_some(n)) {
            break;
        }
    }
    if (n->state == CONN_SETTINGS || n->state == CONN_OPEN) {
        want_events(n, LOOP_READ | (n->out.n || n->tls_wants_write ? LOOP_WRITE : 0U));
    }
}

static void on_flush(void *arg) {
    struct http_conn *n = arg;
    http_conn_enter(n);
    flush(n);
    http_conn_leave(n);
}

void http_conn_flush_soon(struct http_conn *n) {
    if (n->flush && n->state >= CONN_SETTINGS && n->state != CONN_LOST) {
        loop_defer_ask(n->flush);
    }
}

static void on_poll(void *arg, unsigned events) {
    struct http_conn *n = arg;
    http_conn_enter(n);
    switch (n->state) {
    case CONN_TCP:
        tcp_ready(n);
        break;
    case CONN_PROXY:
        proxy_read(n);
        break;
    case CONN_TLS:
        handshake(n);
        break;
    case CONN_SETTINGS:
    case CONN_OPEN:
        if ((events & LOOP_READ) || n->tls_wants_write) {
            read_all(n);
        }
        flush(n);
        break;
    case CONN_LOOKUP:
    case CONN_LOST:
        break;
    }
    http_conn_leave(n);
}

/* Pings only while calls run: a server may count others as abuse. */
static void ping_restart(struct http_conn *n) {
    if (n->ping_timer && !link_is_alone(&n->calls)) {
        loop_timer_start(n->ping_timer, n->client->o.ping_interval_ms, 0);
    }
}

static void on_ping_timer(void *arg) {
    struct http_conn *n = arg;
    int64_t now = clock_ns();
    const struct http_options *o = &n->client->o;
    if (n->ping_sent_ns) {
        int64_t left = ms_of(n->ping_sent_ns + (int64_t)o->ping_timeout_ms * 1000000 - now);
        if (left > 0) {
            loop_timer_start(n->ping_timer, left, 0);
            return;
        }
        http_conn_lose(n, ERR_UNAVAILABLE,
                       "%s: nothing heard for %" PRId64 " ms, no answer to a ping",
                       n->client->label, ms_of(now - n->received_ns));
        return;
    }
    if (link_is_alone(&n->calls)) {
        return;
    }
    int64_t quiet = ms_of(now - n->received_ns);
    if (quiet < o->ping_interval_ms) {
        loop_timer_start(n->ping_timer, o->ping_interval_ms - quiet, 0);
        return;
    }
    n->ping_sent_ns = now;
    (void)nghttp2_submit_ping(n->h2, NGHTTP2_FLAG_NONE, NULL);
    http_conn_flush_soon(n);
    loop_timer_start(n->ping_timer, o->ping_timeout_ms, 0);
}

bool http_conn_submit(struct http_conn *n, struct http_call *call) {
    if (!http_session_submit(n, call)) {
        n->is_draining = true;
        http_client_conn_done(n->client, n);
        return false;
    }
    bool was_idle = link_is_alone(&n->calls);
    link_leave(&call->link);
    link_join(&n->calls, &call->link);
    call->conn = n;
    http_conn_flush_soon(n);
    if (was_idle) {
        ping_restart(n);
    }
    return true;
}

void http_conn_call_left(struct http_conn *n) {
    if (n->is_draining && link_is_alone(&n->calls) && n->state != CONN_LOST) {
        http_conn_free(n);
    }
}
