/* See probe.h. Name, TCP, TLS, request, status line: one after the other, and one deadline for all
 * of it. */
#include "http/probe.h"

#include "base/fd.h"
#include "base/ip.h"
#include "http/http_int.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>

enum { STATUS_BYTES = 12 }; /* "HTTP/1.1 200" */

struct http_probe {
    struct loop *l;
    struct http_origin origin;
    struct buf request;
    size_t n_sent;
    struct http_lookup *lookup;
    struct http_addresses addresses;
    size_t i_address;
    int fd;
    struct loop_poll *poll;
    struct loop_timer *timer;
    SSL_CTX *context;
    SSL *tls;
    bool is_connected, is_shaken; /* TCP; TLS, if there is any */
    char answer[STATUS_BYTES];
    size_t n_answer;
    char why[160]; /* no address worked: the last one's reason */
    void (*cb)(void *arg, int status, const char *why);
    void *arg;
};

/* "SCHEME://AUTHORITY" and the rest without a fragment. */
static struct str split(struct str url, struct str *path) {
    ptrdiff_t at = str_find(url, ':', 0);
    size_t from = at < 0 || (size_t)at + 3 > url.n ? url.n : (size_t)at + 3, end = from;
    while (end < url.n && url.p[end] != '/' && url.p[end] != '?' && url.p[end] != '#') {
        end++;
    }
    ptrdiff_t hash = str_find(url, '#', end);
    *path = str_sub(url, end, hash < 0 ? url.n : (size_t)hash);
    return str_sub(url, 0, end);
}

int http_probe_check(struct str url, struct err *e) {
    struct http_origin o;
    struct str path;
    if (url.n > HTTP_PROBE_URL_MAX) {
        return err_set(e, ERR_INVALID, "URL of %zu bytes, allowed are %d", url.n,
                       HTTP_PROBE_URL_MAX);
    }
    for (size_t i = 0; i < url.n; i++) {
        if (url.p[i] <= ' ' || url.p[i] >= 0x7f) {
            return err_set(e, ERR_INVALID,
                           "URL with a byte that is no visible ASCII (at %zu): write it as %%XX",
                           i);
        }
    }
    int r = http_origin_parse(split(url, &path), false, &o, e);
    if (r == 0) {
        http_origin_fini(&o);
    }
    return r;
}

static void stop(struct http_probe *p) {
    http_lookup_free(TAKE_PTR(p->lookup));
    loop_timer_free(TAKE_PTR(p->timer));
    loop_poll_free(TAKE_PTR(p->poll));
    SSL_free(TAKE_PTR(p->tls));
    SSL_CTX_free(TAKE_PTR(p->context));
    fd_close(&p->fd);
}

void http_probe_free(struct http_probe *p) {
    if (p) {
        stop(p);
        http_origin_fini(&p->origin);
        buf_fini(&p->request);
        free(p);
    }
}

static void finish(struct http_probe *p, int status, const char *why) {
    stop(p);
    p->cb(p->arg, status, why);
}

static void try_address(struct http_probe *p);

static void start_tls(struct http_probe *p) {
    static const uint8_t alpn[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
    struct ip46 ip;
    p->context = SSL_CTX_new(TLS_client_method());
    mg_assert(p->context != NULL);
    (void)SSL_CTX_set_min_proto_version(p->context, TLS1_2_VERSION);
    (void)SSL_CTX_set_options(p->context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_verify(p->context, SSL_VERIFY_NONE, NULL);
    mg_assert(SSL_CTX_set_alpn_protos(p->context, alpn, sizeof(alpn)) == 0);
    p->tls = SSL_new(p->context);
    mg_assert(p->tls != NULL);
    if (ip_parse(str_c(p->origin.host), &ip) < 0) {
        (void)SSL_set_tlsext_host_name(p->tls, p->origin.host);
    }
    http_tls_set_fd(p->tls, &p->fd);
    SSL_set_connect_state(p->tls);
}

/* What an SSL call that did not succeed wants. False: the probe is over. */
static bool tls_waits(struct http_probe *p, int ssl_result, const char *doing) {
    int kind = SSL_get_error(p->tls, ssl_result);
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
        loop_poll_set(p->poll, kind == SSL_ERROR_WANT_READ ? LOOP_READ : LOOP_WRITE);
        return true;
    }
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    (void)snprintf(p->why, sizeof(p->why), "TLS %s: %s", doing,
                   reason ? reason : "the connection was closed");
    ERR_clear_error();
    finish(p, 0, p->why);
    return false;
}

/* 1: a part or all of the request is away; 0: must wait; -1: over. */
static int send_some(struct http_probe *p) {
    const char *at = p->request.p + p->n_sent;
    size_t n = p->request.n - p->n_sent;
    if (p->tls) {
        ERR_clear_error();
        int put = SSL_write(p->tls, at, (int)n);
        if (put <= 0) {
            return tls_waits(p, put, "write") ? 0 : -1;
        }
        p->n_sent += (size_t)put;
        return 1;
    }
    ssize_t put = send(p->fd, at, n, MSG_NOSIGNAL);
    if (put >= 0) {
        p->n_sent += (size_t)put;
        return 1;
    }
    if (errno == EAGAIN || errno == EINTR) {
        loop_poll_set(p->poll, LOOP_WRITE);
        return 0;
    }
    finish(p, 0, strerror(errno));
    return -1;
}

/* The same for bytes of the answer. */
static int read_some(struct http_probe *p) {
    char *at = p->answer + p->n_answer;
    size_t n = sizeof(p->answer) - p->n_answer;
    if (p->tls) {
        ERR_clear_error();
        int got = SSL_read(p->tls, at, (int)n);
        if (got <= 0) {
            return tls_waits(p, got, "read") ? 0 : -1;
        }
        p->n_answer += (size_t)got;
        return 1;
    }
    ssize_t got = recv(p->fd, at, n, 0);
    if (got > 0) {
        p->n_answer += (size_t)got;
        return 1;
    }
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        loop_poll_set(p->poll, LOOP_READ);
        return 0;
    }
    finish(p, 0, got < 0 ? strerror(errno) : "the connection was closed before an answer");
    return -1;
}

/* "HTTP/1.1 200" */
static void judge(struct http_probe *p) {
    const char *d = p->answer + 9;
    bool is_http = memcmp(p->answer, "HTTP/1.", 7) == 0 && p->answer[8] == ' ';
    for (int i = 0; i < 3; i++) {
        is_http = is_http && d[i] >= '0' && d[i] <= '9';
    }
    if (is_http) {
        finish(p, (d[0] - '0') * 100 + (d[1] - '0') * 10 + (d[2] - '0'), "");
    } else {
        finish(p, 0, "the answer is not HTTP/1.1");
    }
}

static void go_on(struct http_probe *p) {
    if (p->origin.is_tls && !p->is_shaken) {
        ERR_clear_error();
        int r = SSL_do_handshake(p->tls);
        if (r != 1) {
            (void)tls_waits(p, r, "handshake");
            return;
        }
        p->is_shaken = true;
    }
    while (p->n_sent < p->request.n) {
        if (send_some(p) <= 0) {
            return;
        }
    }
    while (p->n_answer < sizeof(p->answer)) {
        if (read_some(p) <= 0) {
            return;
        }
    }
    judge(p);
}

static void on_poll(void *arg, unsigned events MG_UNUSED) {
    struct http_probe *p = arg;
    int error = 0;
    socklen_t n = sizeof(error);
    if (p->is_connected) {
        go_on(p);
        return;
    }
    if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0) {
        error = errno;
    }
    if (error) {
        (void)snprintf(p->why, sizeof(p->why), "%s", strerror(error));
        loop_poll_free(TAKE_PTR(p->poll));
        fd_close(&p->fd);
        p->i_address++;
        try_address(p);
        return;
    }
    p->is_connected = true;
    if (p->origin.is_tls) {
        start_tls(p);
    }
    go_on(p);
}

static void try_address(struct http_probe *p) {
    for (; p->i_address < p->addresses.n; p->i_address++) {
        const struct sockaddr_storage *sa = &p->addresses.a[p->i_address];
        p->fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (p->fd >= 0 &&
            (connect(p->fd, (const struct sockaddr *)sa, p->addresses.len[p->i_address]) == 0 ||
             errno == EINPROGRESS)) {
            p->poll = loop_poll_new(p->l, p->fd, LOOP_WRITE, on_poll, p);
            return;
        }
        (void)snprintf(p->why, sizeof(p->why), "%s", strerror(errno));
        fd_close(&p->fd);
    }
    finish(p, 0, p->why);
}

static void on_lookup(void *arg, const struct http_addresses *a, const char *reason) {
    struct http_probe *p = arg;
    http_lookup_free(TAKE_PTR(p->lookup));
    if (a->n == 0) {
        (void)snprintf(p->why, sizeof(p->why), "%s", reason);
        finish(p, 0, p->why);
        return;
    }
    p->addresses = *a;
    try_address(p);
}

static void on_timeout(void *arg) {
    struct http_probe *p = arg;
    finish(p, 0,
           p->lookup                           ? "no answer to the name lookup"
           : !p->is_connected                  ? "no answer to the connection request"
           : p->origin.is_tls && !p->is_shaken ? "the TLS handshake did not end"
                                               : "connected, but no answer came");
}

struct http_probe *http_probe_new(struct loop *l, struct str url, int64_t timeout_ms,
                                  void (*cb)(void *arg, int status, const char *why), void *arg) {
    struct http_probe *p = calloc(1, sizeof(*p));
    struct str path;
    mg_assert(p != NULL);
    p->l = l;
    p->cb = cb;
    p->arg = arg;
    p->fd = -1;
    p->request = BUF_INIT(2 * HTTP_PROBE_URL_MAX);
    mg_assert(http_origin_parse(split(url, &path), false, &p->origin, NULL) == 0);
    buf_printf(&p->request,
               "GET %s%.*s HTTP/1.1\r\nHost: %s\r\nUser-Agent: margay\r\nAccept: */*\r\n"
               "Connection: close\r\n\r\n",
               path.n && path.p[0] == '/' ? "" : "/", STR_FMT(path), p->origin.authority);
    p->timer = loop_timer_new(l, on_timeout, p);
    loop_timer_start(p->timer, timeout_ms, 0);
    p->lookup = http_lookup_new(l, p->origin.host, p->origin.port, on_lookup, p);
    return p;
}
