/* Frames to calls and back: nghttp2's callbacks. No I/O here: bytes come in by http_session_feed
 * and go out by http_session_drain. A call that was freed is no longer its stream's user data, so
 * what still comes for the stream is dropped. */
#include "http/http_int.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    OUT_ENOUGH = 65536,           /* bytes for the socket that are made at a time */
    CONNECTION_WINDOW = 16 << 20, /* of all streams together */
};

static struct http_call *call_of(nghttp2_session *h2, int32_t stream_id) {
    return nghttp2_session_get_stream_user_data(h2, stream_id);
}

/* Resets the stream; on_stream_close then reports what is said here. */
static void reset(nghttp2_session *h2, struct http_call *call, int code, const char *reason) {
    call->fail_code = code;
    call->fail_reason = reason;
    (void)nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_CANCEL);
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *f, void *arg MG_UNUSED) {
    struct http_call *call = call_of(h2, f->hd.stream_id);
    if (call && call->status == 0) {
        /* An interim answer (1xx) before this one counts for nothing. */
        arena_reset(&call->head.mem);
        vec_clear(&call->head.v);
    }
    return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *f, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len,
                     uint8_t flags MG_UNUSED, void *arg MG_UNUSED) {
    struct http_call *call = call_of(h2, f->hd.stream_id);
    if (!call || call->fail_code) {
        return 0;
    }
    struct http_fields *to = call->status ? &call->trailers : &call->head;
    if (http_fields_add(to, str_n((const char *)name, name_len),
                        str_n((const char *)value, value_len)) < 0) {
        reset(h2, call, ERR_TOO_BIG, "the answer's headers are too large");
    }
    return 0;
}

static void take_head(struct http_call *call) {
    uint64_t status = 0;
    if (str_to_u64(http_header_get(call->head.v.p, call->head.v.n, ":status"), &status) == 0 &&
        status >= 200 && status <= 999) {
        call->status = (int)status;
        http_call_head(call);
    }
}

static void take_goaway(struct http_conn *n, const nghttp2_goaway *g) {
    size_t len = g->opaque_data_len < sizeof(n->goaway_text) ? g->opaque_data_len
                                                             : sizeof(n->goaway_text) - 1;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = g->opaque_data[i];
        n->goaway_text[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    n->goaway = str_n(n->goaway_text, len);
    n->is_draining = true;
    if (n->client) {
        http_client_conn_done(n->client, n);
    }
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *f, void *arg) {
    struct http_conn *n = arg;
    switch (f->hd.type) {
    case NGHTTP2_SETTINGS:
        if (n->state == CONN_SETTINGS && !(f->hd.flags & NGHTTP2_FLAG_ACK)) {
            n->state = CONN_OPEN;
            loop_timer_free(TAKE_PTR(n->connect_timer));
        }
        break;
    case NGHTTP2_GOAWAY:
        take_goaway(n, &f->goaway);
        break;
    case NGHTTP2_HEADERS: {
        struct http_call *call = call_of(h2, f->hd.stream_id);
        if (call && call->status == 0 && !call->fail_code) {
            take_head(call);
        }
        break;
    }
    default:
        break;
    }
    return 0;
}

static int on_chunk(nghttp2_session *h2, uint8_t flags MG_UNUSED, int32_t stream_id,
                    const uint8_t *p, size_t len, void *arg MG_UNUSED) {
    struct http_call *call = call_of(h2, stream_id);
    if (call && http_call_holds(call) && !call->fail_code) {
        /* Others must not wait for this one: only its own window stays used up. */
        http_call_data(call, p, len);
        (void)nghttp2_session_consume_connection(h2, len);
        return 0;
    }
    if (call && !call->fail_code) {
        http_call_data(call, p, len);
    }
    (void)nghttp2_session_consume(h2, stream_id, len);
    return 0;
}

/* The peer has not looked at the call: it may go to a new connection. */
static bool move(struct http_call *call) {
    struct http_client *c = call->client;
    if (call->was_moved || call->has_lost_body || call->status || call->is_freed) {
        return false;
    }
    call->was_moved = true;
    call->is_sent = false;
    call->stream_id = 0;
    call->conn = NULL;
    call->body_sent = 0;
    link_leave(&call->link);
    link_join(&c->waiting, &call->link);
    http_client_wake(c);
    return true;
}

static void closed(struct http_conn *n, struct http_call *call, uint32_t error_code) {
    const char *label = call->client->label;
    char reason[400];
    if (call->fail_code) {
        (void)snprintf(reason, sizeof(reason), "%s: %s", label, call->fail_reason);
        http_call_fail(call, call->fail_code, false, reason);
        return;
    }
    if (error_code == NGHTTP2_NO_ERROR && call->status) {
        http_call_complete(call);
        return;
    }
    if (error_code == NGHTTP2_REFUSED_STREAM) {
        if (move(call)) {
            http_conn_call_left(n);
            return;
        }
        (void)snprintf(reason, sizeof(reason), "%s: refused the request%s%.*s", label,
                       n->goaway.n ? ": " : "", STR_FMT(n->goaway));
        http_call_fail(call, ERR_UNAVAILABLE, true, reason);
        return;
    }
    (void)snprintf(reason, sizeof(reason), "%s: reset the stream (%s)", label,
                   nghttp2_http2_strerror(error_code));
    http_call_fail(call, error_code == NGHTTP2_NO_ERROR ? -EPROTO : ERR_UNAVAILABLE, false, reason);
}

static int on_close(nghttp2_session *h2, int32_t stream_id, uint32_t error_code, void *arg) {
    struct http_call *call = call_of(h2, stream_id);
    if (call) {
        (void)nghttp2_session_set_stream_user_data(h2, stream_id, NULL);
        closed(arg, call, error_code);
    }
    return 0;
}

static int on_sent(nghttp2_session *h2, const nghttp2_frame *f, void *arg MG_UNUSED) {
    struct http_call *call = f->hd.stream_id ? call_of(h2, f->hd.stream_id) : NULL;
    if (call && f->hd.type == NGHTTP2_HEADERS) {
        call->is_sent = true;
    }
    return 0;
}

/* A request that could not go out: the peer said GOAWAY meanwhile, or there are no ids left. */
static int on_not_sent(nghttp2_session *h2, const nghttp2_frame *f, int error MG_UNUSED,
                       void *arg) {
    if (f->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    struct http_call *call = call_of(h2, f->hd.stream_id);
    if (call) {
        struct http_conn *n = arg;
        (void)nghttp2_session_set_stream_user_data(h2, f->hd.stream_id, NULL);
        n->is_draining = true;
        http_client_conn_done(n->client, n);
        closed(n, call, NGHTTP2_REFUSED_STREAM);
    }
    return 0;
}

static ssize_t read_body(nghttp2_session *h2, int32_t stream_id, uint8_t *out, size_t room,
                         uint32_t *flags, nghttp2_data_source *src MG_UNUSED, void *arg MG_UNUSED) {
    struct http_call *call = call_of(h2, stream_id);
    if (!call) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* freed, its RST_STREAM is on its way */
    }
    size_t left = call->body.n - call->body_sent, n = left < room ? left : room;
    if (n) {
        memcpy(out, call->body.p + call->body_sent, n);
        call->body_sent += n;
    }
    if (call->is_streaming && call->body_sent == call->body.n) {
        call->has_lost_body = call->has_lost_body || call->body_sent;
        buf_reset(&call->body);
        call->body_sent = 0;
    }
    if (call->body_sent == call->body.n) {
        if (call->is_finished) {
            *flags |= NGHTTP2_DATA_FLAG_EOF;
        } else if (n == 0) {
            return NGHTTP2_ERR_DEFERRED;
        }
    }
    return (ssize_t)n;
}

static nghttp2_session_callbacks *make_callbacks(void) {
    nghttp2_session_callbacks *cb = NULL;
    mg_assert(nghttp2_session_callbacks_new(&cb) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_not_sent);
    return cb;
}

int http_session_new(struct http_conn *n) {
    nghttp2_session_callbacks *cb = make_callbacks();
    nghttp2_option *opt = NULL;
    mg_assert(nghttp2_option_new(&opt) == 0);
    nghttp2_option_set_no_auto_window_update(opt, 1);
    int r = nghttp2_session_client_new2(&n->h2, cb, n, opt);
    nghttp2_option_del(opt);
    nghttp2_session_callbacks_del(cb);
    if (r != 0) {
        return -ENOMEM;
    }
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP_HEADER_BYTES_MAX},
    };
    r = nghttp2_submit_settings(n->h2, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
    if (r == 0) {
        r = nghttp2_session_set_local_window_size(n->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
    }
    return r == 0 ? 0 : -ENOMEM;
}

bool http_session_feed(struct http_conn *n, const uint8_t *p, size_t len) {
    ssize_t r = nghttp2_session_mem_recv(n->h2, p, len);
    if (n->state == CONN_LOST) {
        return false;
    }
    if (r < 0) {
        http_conn_lose(n, -EPROTO, "%s: breaks the HTTP/2 protocol: %s", n->client->label,
                       nghttp2_strerror((int)r));
        return false;
    }
    return true;
}

static nghttp2_nv field(struct str name, struct str value) {
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n,
                        value.n, NGHTTP2_NV_FLAG_NONE};
}

bool http_session_submit(struct http_conn *n, struct http_call *call) {
    const struct http_client *c = n->client;
    VEC(nghttp2_nv) v = {0};
    char length[24];
    vec_push(&v, field(STR(":method"), str_c(call->method)));
    vec_push(&v, field(STR(":scheme"), c->origin.is_tls ? STR("https") : STR("http")));
    vec_push(&v, field(STR(":authority"), str_c(c->origin.authority)));
    vec_push(&v, field(STR(":path"), call->path));
    vec_push(&v, field(STR("user-agent"), str_c(c->o.user_agent)));
    bool has_body = call->body.n || call->is_streaming;
    if (has_body && !call->is_streaming) {
        (void)snprintf(length, sizeof(length), "%zu", call->body.n);
        vec_push(&v, field(STR("content-length"), str_c(length)));
    }
    if (c->o.is_gzip_welcome) {
        vec_push(&v, field(STR("accept-encoding"), STR("gzip")));
    }
    for (size_t i = 0; i < call->n_headers; i++) {
        vec_push(&v, field(call->headers[i].name, call->headers[i].value));
    }
    nghttp2_data_provider body = {.read_callback = read_body};
    int32_t id = nghttp2_submit_request(n->h2, NULL, v.p, v.n, has_body ? &body : NULL, call);
    vec_fini(&v);
    mg_assert(id > 0 || id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE);
    if (id > 0) {
        call->stream_id = id;
    }
    return id > 0;
}

bool http_session_drain(struct http_conn *n) {
    while (n->out.n < OUT_ENOUGH) {
        const uint8_t *p = NULL;
        ssize_t got = nghttp2_session_mem_send(n->h2, &p);
        if (n->state == CONN_LOST) {
            return false;
        }
        if (got < 0) {
            http_conn_lose(n, -EPROTO, "%s: %s", n->client->label, nghttp2_strerror((int)got));
            return false;
        }
        if (got == 0) {
            break;
        }
        buf_add(&n->out, p, (size_t)got);
    }
    if (n->out.n == 0 && !nghttp2_session_want_read(n->h2) && !nghttp2_session_want_write(n->h2)) {
        /* GOAWAY and nothing left, or nghttp2 has hung up on a peer that broke the protocol. */
        http_conn_lose(n, n->is_draining ? ERR_UNAVAILABLE : -EPROTO, "%s: %s%.*s",
                       n->client->label,
                       n->goaway.n      ? "has ended the connection: "
                       : n->is_draining ? "has ended the connection"
                                        : "breaks the HTTP/2 protocol",
                       STR_FMT(n->goaway));
        return false;
    }
    return true;
}

void http_session_cancel(struct http_conn *n, struct http_call *call) {
    (void)nghttp2_session_set_stream_user_data(n->h2, call->stream_id, NULL);
    (void)nghttp2_submit_rst_stream(n->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_CANCEL);
    http_conn_flush_soon(n);
}

void http_session_body_grew(struct http_conn *n, struct http_call *call) {
    (void)nghttp2_session_resume_data(n->h2, call->stream_id);
    http_conn_flush_soon(n);
}
