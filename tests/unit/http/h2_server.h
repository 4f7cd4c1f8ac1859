/* A small HTTP/2 server for tests: a thread, a connection at a time in a thread of its own, what it
 * does is chosen by the path. Blocking and simple; bounded only by the tests. */
#pragma once

#include "base/attr.h"

#include <arpa/inet.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct h2_server {
    int fd, port;
    SSL_CTX *tls; /* NULL: plain */
    pthread_t thread;
    atomic_bool stop, is_deaf; /* is_deaf: reads and answers nothing any more */
    atomic_int n_connections, n_open;
};

struct h2_stream {
    int32_t id;
    char path[256];
    char *echo; /* request body not sent back yet */
    size_t n_echo, left;
    bool has_ended;
};

struct h2_peer {
    struct h2_server *s;
    int fd;
    SSL *ssl;
    nghttp2_session *h2;
    bool hang_up; /* after what is queued */
};

static inline bool path_is(const struct h2_stream *t, const char *p) {
    return strncmp(t->path, p, strlen(p)) == 0;
}

#define NV(n, v)                                                                      \
    (nghttp2_nv) {                                                                    \
        (uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), strlen(v), 0 \
    }

static inline ssize_t h2_body(nghttp2_session *h2, int32_t id, uint8_t *out, size_t room,
                              uint32_t *flags, nghttp2_data_source *src, void *arg) {
    struct h2_stream *t = src->ptr;
    struct h2_peer *p = arg;
    if (path_is(t, "/echo")) {
        size_t n = t->n_echo < room ? t->n_echo : room;
        if (n) {
            memcpy(out, t->echo, n);
            memmove(t->echo, t->echo + n, t->n_echo - n);
            t->n_echo -= n;
        }
        if (n == 0 && !t->has_ended) {
            return NGHTTP2_ERR_DEFERRED;
        }
        *flags |= t->has_ended && t->n_echo == 0 ? NGHTTP2_DATA_FLAG_EOF : 0U;
        return (ssize_t)n;
    }
    if (p->hang_up) {
        return NGHTTP2_ERR_DEFERRED;
    }
    size_t n = t->left < room ? t->left : room;
    memset(out, 'x', n);
    t->left -= n;
    if (t->left == 0) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (path_is(t, "/truncate")) {
            *flags = 0;
            p->hang_up = true;
        } else if (path_is(t, "/ok")) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            nghttp2_nv trailer[] = {NV("grpc-status", "0")};
            (void)nghttp2_submit_trailer(h2, id, trailer, 1);
        }
    }
    return (ssize_t)n;
}

static inline void h2_answer(nghttp2_session *h2, struct h2_stream *t, struct h2_peer *p) {
    nghttp2_nv ok[] = {NV(":status", "200"), NV("content-type", "text/plain")};
    nghttp2_data_provider body = {.source.ptr = t, .read_callback = h2_body};
    t->left = 5;
    if (path_is(t, "/slow")) {
        return;
    }
    if (path_is(t, "/deaf")) {
        p->s->is_deaf = true;
        return;
    }
    if (path_is(t, "/refuse")) {
        (void)nghttp2_submit_rst_stream(h2, 0, t->id, NGHTTP2_REFUSED_STREAM);
        return;
    }
    if (path_is(t, "/reset")) {
        (void)nghttp2_submit_rst_stream(h2, 0, t->id, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    if (path_is(t, "/garbage")) {
        p->hang_up = true;
        (void)!write(p->fd, "\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16);
        return;
    }
    if (path_is(t, "/goaway")) {
        (void)nghttp2_submit_goaway(h2, 0, t->id, NGHTTP2_NO_ERROR, (const uint8_t *)"moving", 6);
    }
    if (path_is(t, "/big")) {
        t->left = (size_t)atol(t->path + 4);
    }
    if (path_is(t, "/status/")) {
        ok[0].value = (uint8_t *)(t->path + 8);
        ok[0].valuelen = 3;
    }
    if (path_is(t, "/headers")) { /* as many as it says, of 400 bytes */
        static char big[401];
        nghttp2_nv many[512] = {ok[0]};
        size_t n = (size_t)atol(t->path + 8);
        memset(big, 'h', sizeof(big) - 1);
        for (size_t i = 1; i < n && i < ARRAY_LEN(many); i++) {
            many[i] = NV("x-big", big);
        }
        (void)nghttp2_submit_response(h2, t->id, many, n, &body);
        return;
    }
    nghttp2_nv packed[] = {NV(":status", "200"), NV("content-encoding", "gzip")};
    if (path_is(t, "/echo-br")) {
        packed[1] = NV("content-encoding", "br");
    }
    bool is_packed = path_is(t, "/echo-gzip") || path_is(t, "/echo-br");
    (void)nghttp2_submit_response(h2, t->id, is_packed ? packed : ok, 2, &body);
}

static inline int h2_begin(nghttp2_session *h2, const nghttp2_frame *f, void *arg) {
    (void)arg;
    if (f->hd.type == NGHTTP2_HEADERS) {
        struct h2_stream *t = calloc(1, sizeof(*t));
        t->id = f->hd.stream_id;
        (void)nghttp2_session_set_stream_user_data(h2, t->id, t);
    }
    return 0;
}

static inline int h2_header(nghttp2_session *h2, const nghttp2_frame *f, const uint8_t *n,
                            size_t nlen, const uint8_t *v, size_t vlen, uint8_t flags, void *arg) {
    struct h2_stream *t = nghttp2_session_get_stream_user_data(h2, f->hd.stream_id);
    (void)flags;
    (void)arg;
    if (t && nlen == 5 && memcmp(n, ":path", 5) == 0 && vlen < sizeof(t->path)) {
        memcpy(t->path, v, vlen);
    }
    return 0;
}

static inline int h2_frame(nghttp2_session *h2, const nghttp2_frame *f, void *arg) {
    struct h2_stream *t =
        f->hd.stream_id ? nghttp2_session_get_stream_user_data(h2, f->hd.stream_id) : NULL;
    if (!t) {
        return 0;
    }
    if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        t->has_ended = true;
        (void)nghttp2_session_resume_data(h2, t->id);
    }
    bool is_whole = f->hd.type == NGHTTP2_HEADERS
                        ? t->has_ended || path_is(t, "/echo") || path_is(t, "/refuse")
                        : t->has_ended && !path_is(t, "/echo");
    if (is_whole && (f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA)) {
        h2_answer(h2, t, arg);
    }
    return 0;
}

static inline int h2_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p,
                          size_t n, void *arg) {
    struct h2_stream *t = nghttp2_session_get_stream_user_data(h2, id);
    (void)flags;
    (void)arg;
    if (t && path_is(t, "/echo")) {
        t->echo = realloc(t->echo, t->n_echo + n);
        memcpy(t->echo + t->n_echo, p, n);
        t->n_echo += n;
        (void)nghttp2_session_resume_data(h2, id);
    }
    return 0;
}

static inline int h2_close(nghttp2_session *h2, int32_t id, uint32_t code, void *arg) {
    struct h2_stream *t = nghttp2_session_get_stream_user_data(h2, id);
    (void)code;
    (void)arg;
    if (t) {
        (void)nghttp2_session_set_stream_user_data(h2, id, NULL);
        free(t->echo);
        free(t);
    }
    return 0;
}

static inline bool h2_flush(struct h2_peer *p) {
    for (;;) {
        const uint8_t *b = NULL;
        ssize_t n = nghttp2_session_mem_send(p->h2, &b);
        if (n <= 0) {
            return n == 0;
        }
        for (ssize_t at = 0; at < n;) {
            ssize_t put = p->ssl ? SSL_write(p->ssl, b + at, (int)(n - at))
                                 : send(p->fd, b + at, (size_t)(n - at), MSG_NOSIGNAL);
            if (put <= 0) {
                return false;
            }
            at += put;
        }
    }
}

static inline void h2_serve(struct h2_peer *p) {
    uint8_t in[16384];
    (void)nghttp2_submit_settings(p->h2, 0, NULL, 0);
    while (!p->s->stop && h2_flush(p) && !p->hang_up) {
        struct pollfd w = {p->fd, POLLIN, 0};
        if (p->s->is_deaf || (poll(&w, 1, 20) <= 0 && !(p->ssl && SSL_pending(p->ssl)))) {
            if (p->s->is_deaf) {
                usleep(10000);
            }
            continue;
        }
        ssize_t n = p->ssl ? SSL_read(p->ssl, in, sizeof(in)) : recv(p->fd, in, sizeof(in), 0);
        if (n <= 0 || nghttp2_session_mem_recv(p->h2, in, (size_t)n) < 0) {
            break;
        }
    }
}

static inline void *h2_peer_main(void *arg) {
    struct h2_peer *p = arg;
    if (p->s->tls) {
        p->ssl = SSL_new(p->s->tls);
        (void)SSL_set_fd(p->ssl, p->fd);
    }
    nghttp2_session_callbacks *cb = NULL;
    (void)nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, h2_begin);
    nghttp2_session_callbacks_set_on_header_callback(cb, h2_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, h2_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, h2_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, h2_close);
    (void)nghttp2_session_server_new(&p->h2, cb, p);
    nghttp2_session_callbacks_del(cb);
    bool is_open = !p->ssl || SSL_accept(p->ssl) == 1;
    if (is_open) {
        h2_serve(p);
    }
    if (!is_open || p->hang_up) {
        /* The last words must not be lost to a reset for bytes that nobody read. */
        char rest[4096];
        (void)shutdown(p->fd, SHUT_WR);
        while (recv(p->fd, rest, sizeof(rest), 0) > 0) {
        }
    }
    for (int32_t id = 1; id < 4096; id += 2) { /* streams that are open still */
        (void)h2_close(p->h2, id, 0, p);
    }
    nghttp2_session_del(p->h2);
    SSL_free(p->ssl);
    close(p->fd);
    p->s->n_open--;
    free(p);
    return NULL;
}

static inline void *h2_server_main(void *arg) {
    struct h2_server *s = arg;
    while (!s->stop) {
        struct pollfd w = {s->fd, POLLIN, 0};
        if (poll(&w, 1, 20) <= 0) {
            continue;
        }
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0) {
            continue;
        }
        s->n_connections++;
        s->n_open++;
        struct h2_peer *p = calloc(1, sizeof(*p));
        p->s = s;
        p->fd = fd;
        pthread_t t;
        if (pthread_create(&t, NULL, h2_peer_main, p) == 0) {
            (void)pthread_detach(t);
        }
    }
    return NULL;
}

static inline int h2_listen(int *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    mg_assert(fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(fd, 16) == 0);
    mg_assert(getsockname(fd, (struct sockaddr *)&sa, &len) == 0);
    *port = ntohs(sa.sin_port);
    return fd;
}

static inline void h2_server_start(struct h2_server *s, SSL_CTX *tls) {
    memset(s, 0, sizeof(*s));
    s->tls = tls;
    s->fd = h2_listen(&s->port);
    mg_assert(pthread_create(&s->thread, NULL, h2_server_main, s) == 0);
}

static inline void h2_server_stop(struct h2_server *s) {
    s->stop = true;
    (void)pthread_join(s->thread, NULL);
    while (s->n_open) {
        usleep(1000);
    }
    close(s->fd);
}
