#include "h2_server.h"

#include <arpa/inet.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 64, STREAMS = 256, TICK_MS = 5, TEXT = 4096 };

static struct h2_reply (*answer)(void *arg, const struct h2_request *r);
static void *answer_arg;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile bool is_over, is_broken;
static volatile unsigned broken; /* how often */
static int listener = -1;
static pthread_t acceptor;
static pthread_t threads[CONNECTIONS];
static unsigned n_threads;

struct stream {
    int32_t id;
    char method[16], path[TEXT], authorization[TEXT], body[TEXT];
    struct h2_reply reply;
    unsigned part;
    size_t sent; /* of the part */
    long due_ms; /* the part's time */
    bool is_open, is_waiting;
};

struct conn {
    int fd;
    nghttp2_session *s;
    struct stream streams[STREAMS];
    bool is_closing;
};

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static ssize_t on_send(nghttp2_session *s, const uint8_t *p, size_t n, int flags, void *arg) {
    struct conn *c = arg;
    (void)s;
    (void)flags;
    ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
    return sent < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : sent;
}

static ssize_t read_part(nghttp2_session *s, int32_t id, uint8_t *out, size_t room, uint32_t *flags,
                         nghttp2_data_source *src, void *arg) {
    struct stream *st = src->ptr;
    struct conn *c = arg;
    (void)s;
    (void)id;
    bool is_end = st->part == H2_PARTS || !st->reply.parts[st->part].text;
    if (is_end && st->reply.end == H2_DONE) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        return 0;
    }
    if (is_end && st->reply.end == H2_RESET) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (is_end && st->reply.end == H2_CLOSE) {
        c->is_closing = true;
    }
    if (is_end || now_ms() < st->due_ms) {
        st->is_waiting = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    const char *text = st->reply.parts[st->part].text;
    size_t left = strlen(text) - st->sent, n = left < room ? left : room;
    memcpy(out, text + st->sent, n);
    st->sent += n;
    if (n == left) {
        st->part++;
        st->sent = 0;
        st->due_ms = now_ms() + (st->part < H2_PARTS ? st->reply.parts[st->part].delay_ms : 0);
    }
    return (ssize_t)n;
}

static nghttp2_nv header(const char *name, const char *value) {
    union {
        const char *c;
        uint8_t *u;
    } n = {.c = name}, v = {.c = value};
    return (nghttp2_nv){n.u, v.u, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static void respond(struct conn *c, struct stream *st) {
    struct h2_request r = {st->method, st->path, st->authorization, st->body};
    char status[16];
    nghttp2_nv h[3];
    size_t n = 0;
    pthread_mutex_lock(&lock);
    st->reply = answer(answer_arg, &r);
    pthread_mutex_unlock(&lock);
    snprintf(status, sizeof(status), "%d", st->reply.status);
    h[n++] = header(":status", status);
    h[n++] = header("content-type",
                    st->reply.content_type ? st->reply.content_type : "application/json");
    if (st->reply.retry_after) {
        h[n++] = header("retry-after", st->reply.retry_after);
    }
    st->due_ms = now_ms() + st->reply.parts[0].delay_ms;
    nghttp2_data_provider d = {.source.ptr = st, .read_callback = read_part};
    nghttp2_submit_response(c->s, st->id, h, n, &d);
}

static int on_begin(nghttp2_session *s, const nghttp2_frame *f, void *arg) {
    struct conn *c = arg;
    if (f->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    for (size_t i = 0; i < STREAMS; i++) {
        if (!c->streams[i].is_open) {
            memset(&c->streams[i], 0, sizeof(c->streams[i]));
            c->streams[i].id = f->hd.stream_id;
            c->streams[i].is_open = true;
            nghttp2_session_set_stream_user_data(s, f->hd.stream_id, &c->streams[i]);
            return 0;
        }
    }
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t n,
                     const uint8_t *value, size_t m, uint8_t flags, void *arg) {
    struct stream *st = nghttp2_session_get_stream_user_data(s, f->hd.stream_id);
    static const char *const NAMES[] = {":method", ":path", "authorization"};
    (void)flags;
    (void)arg;
    for (size_t i = 0; st && i < 3; i++) {
        char *to = i == 0 ? st->method : i == 1 ? st->path : st->authorization;
        size_t room = i == 0 ? sizeof(st->method) : TEXT;
        if (strlen(NAMES[i]) == n && memcmp(NAMES[i], name, n) == 0 && m < room) {
            memcpy(to, value, m);
            to[m] = '\0';
        }
    }
    return 0;
}

static int on_chunk(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                    void *arg) {
    struct stream *st = nghttp2_session_get_stream_user_data(s, id);
    (void)flags;
    (void)arg;
    size_t used = st ? strlen(st->body) : TEXT;
    if (used + n < TEXT) {
        memcpy(st->body + used, p, n);
    }
    return 0;
}

static int on_frame(nghttp2_session *s, const nghttp2_frame *f, void *arg) {
    bool is_last = (f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA) &&
                   (f->hd.flags & NGHTTP2_FLAG_END_STREAM);
    struct stream *st = nghttp2_session_get_stream_user_data(s, f->hd.stream_id);
    if (is_last && st) {
        respond(arg, st);
    }
    return 0;
}

static int on_close(nghttp2_session *s, int32_t id, uint32_t code, void *arg) {
    struct stream *st = nghttp2_session_get_stream_user_data(s, id);
    (void)code;
    (void)arg;
    if (st) {
        st->is_open = false;
    }
    return 0;
}

static void tick(struct conn *c) {
    for (size_t i = 0; i < STREAMS; i++) {
        struct stream *st = &c->streams[i];
        bool is_left = st->part < H2_PARTS && st->reply.parts[st->part].text;
        if (st->is_open && st->is_waiting && is_left && now_ms() >= st->due_ms) {
            st->is_waiting = false;
            nghttp2_session_resume_data(c->s, st->id);
        }
    }
}

static void *serve(void *arg) {
    struct conn *c = calloc(1, sizeof(*c));
    nghttp2_session_callbacks *cb;
    unsigned since = broken;
    uint8_t in[16384];
    if (!c) {
        return NULL;
    }
    c->fd = (int)(long)arg;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_send_callback(cb, on_send);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_session_server_new(&c->s, cb, c);
    nghttp2_session_callbacks_del(cb);
    nghttp2_settings_entry iv = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS};
    nghttp2_submit_settings(c->s, NGHTTP2_FLAG_NONE, &iv, 1);
    while (!is_over && since == broken && !c->is_closing) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        tick(c);
        if (nghttp2_session_send(c->s) != 0) {
            break;
        }
        if (poll(&p, 1, TICK_MS) > 0) {
            ssize_t n = read(c->fd, in, sizeof(in));
            if (n <= 0 || nghttp2_session_mem_recv(c->s, in, (size_t)n) < 0) {
                break;
            }
        }
    }
    nghttp2_session_del(c->s);
    close(c->fd);
    free(c);
    return NULL;
}

static void *accept_all(void *arg) {
    (void)arg;
    while (!is_over) {
        struct pollfd p = {.fd = listener, .events = POLLIN};
        if (poll(&p, 1, TICK_MS) <= 0) {
            continue;
        }
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && (is_broken || n_threads == CONNECTIONS)) {
            close(fd);
        } else if (fd >= 0 &&
                   pthread_create(&threads[n_threads], NULL, serve, (void *)(long)fd) == 0) {
            n_threads++;
        }
    }
    return NULL;
}

int h2_server_start(struct h2_reply (*a)(void *arg, const struct h2_request *r), void *arg) {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(sa);
    answer = a;
    answer_arg = arg;
    is_over = is_broken = false;
    n_threads = 0;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        listen(listener, 64) < 0 || getsockname(listener, (struct sockaddr *)&sa, &n) < 0 ||
        pthread_create(&acceptor, NULL, accept_all, NULL) != 0) {
        return -1;
    }
    return ntohs(sa.sin_port);
}

void h2_server_break(void) {
    is_broken = true;
    broken++;
}

void h2_server_go_on(void) {
    is_broken = false;
}

void h2_server_stop(void) {
    is_over = true;
    pthread_join(acceptor, NULL);
    for (unsigned i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
    }
    close(listener);
}
