/* A call's life: its request, what came while its consumer paused, its deadline, its one end. */
#include "http/http_int.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

struct str http_header_get(const struct http_header *h, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++) {
        if (str_is(h[i].name, name)) {
            return h[i].value;
        }
    }
    return STR_NULL;
}

int http_fields_add(struct http_fields *f, struct str name, struct str value) {
    if (f->v.n == HTTP_HEADERS_MAX || name.n + value.n > HTTP_HEADER_BYTES_MAX - f->n_bytes) {
        return ERR_TOO_BIG;
    }
    f->n_bytes += name.n + value.n;
    vec_push(&f->v, (struct http_header){arena_dup(&f->mem, name), arena_dup(&f->mem, value)});
    return 0;
}

static void fields_fini(struct http_fields *f) {
    arena_fini(&f->mem);
    vec_fini(&f->v);
}

static void destroy(struct http_call *call) {
    arena_fini(&call->mem);
    fields_fini(&call->head);
    fields_fini(&call->trailers);
    buf_fini(&call->body);
    buf_fini(&call->in);
    http_inflate_free(call->inflate);
    free(call);
}

static void leave(struct http_call *call) {
    if (--call->depth == 0 && call->is_freed) {
        destroy(call);
    }
}

/* Out of its list and away from its connection, which may close itself. */
static void detach(struct http_call *call) {
    link_leave(&call->link);
    struct http_conn *n = TAKE_PTR(call->conn);
    if (n) {
        http_conn_call_left(n);
    }
}

static void end(struct http_call *call, const struct http_end *how) {
    call->is_ended = true;
    loop_timer_free(TAKE_PTR(call->deadline));
    detach(call);
    call->depth++;
    call->ops.on_end(call->arg, how);
    leave(call);
}

void http_call_fail(struct http_call *call, int code, bool is_unsent, const char *reason) {
    if (!call->is_ended) {
        struct http_end how = {.code = code, .reason = reason, .is_unsent = is_unsent};
        end(call, &how);
    }
}

/* We can't go on with the answer. */
static void spoil(struct http_call *call, int code, const char *why) {
    char reason[400];
    (void)snprintf(reason, sizeof(reason), "%s: %s", call->client->label, why);
    if (call->conn && call->stream_id) {
        http_session_cancel(call->conn, call);
    }
    http_call_fail(call, code, false, reason);
}

void http_call_head(struct http_call *call) {
    struct str how = http_header_get(call->head.v.p, call->head.v.n, "content-encoding");
    bool is_gzip = str_is(how, "gzip") || str_is(how, "x-gzip");
    call->depth++;
    if (is_gzip && !call->inflate) {
        call->inflate = http_inflate_new();
    }
    if (call->ops.on_head) {
        call->ops.on_head(call->arg, call->status, call->head.v.p, call->head.v.n);
    }
    if (how.n && !is_gzip && !str_is(how, "identity") && !call->is_freed) {
        spoil(call, -EPROTO, "its answer has a content-encoding that was not asked for");
    }
    leave(call);
}

/* Hands pieces over as long as somebody takes them; the rest of in. */
static struct str hand_on(struct http_call *call, struct str in) {
    while ((in.n || call->has_more) && !call->is_paused && !call->is_freed && !call->is_ended) {
        struct str piece = in;
        const char *why = "";
        int r = 0;
        if (call->inflate) {
            r = http_inflate_next(call->inflate, &in, &piece, &why);
            call->has_more = r > 0;
        } else {
            in = STR_NULL;
        }
        if (r < 0) {
            spoil(call, r, why);
        } else if (piece.n && call->ops.on_data) {
            call->ops.on_data(call->arg, piece);
        }
    }
    return in;
}

void http_call_data(struct http_call *call, const uint8_t *p, size_t n) {
    if (http_call_holds(call)) {
        buf_add(&call->in, p, n); /* nghttp2 holds the peer to its window */
        return;
    }
    call->depth++;
    struct str left = hand_on(call, str_n((const char *)p, n));
    if (left.n && !call->is_freed && !call->is_ended) { /* paused in the middle */
        buf_str(&call->in, left);
        call->in_done = left.n;
    }
    leave(call);
}

static void end_well(struct http_call *call) {
    if (call->inflate && !http_inflate_is_over(call->inflate)) {
        spoil(call, -EPROTO, "its compressed answer ends in the middle");
        return;
    }
    struct http_end how = {
        .reason = "", .trailers = call->trailers.v.p, .n_trailers = call->trailers.v.n};
    end(call, &how);
}

void http_call_complete(struct http_call *call) {
    if (http_call_holds(call)) {
        call->is_complete = true;
        detach(call);
    } else {
        end_well(call);
    }
}

static void on_deadline(void *arg) {
    struct http_call *call = arg;
    struct http_client *c = call->client;
    struct http_conn *n = call->conn;
    char reason[600];
    (void)snprintf(reason, sizeof(reason), "%s: no answer to %s %.300s within %lld ms%s", c->label,
                   call->method, call->path.p, (long long)call->timeout_ms,
                   n ? "" : ": no connection yet");
    bool is_unsent = !call->is_sent;
    if (n) {
        http_session_cancel(n, call);
        if (n->received_ns < call->started_ns && !n->is_draining) {
            /* Not a word since: the next call had better not wait for this one's peer. */
            n->is_draining = true;
            http_client_conn_done(c, n);
        }
    }
    http_call_fail(call, -ETIMEDOUT, is_unsent, reason);
}

static void copy_request(struct http_call *call, const struct http_request *r) {
    struct arena *a = &call->mem;
    call->method = arena_cstr(a, str_c(r->method));
    call->path = arena_dup(a, r->path);
    call->headers = arena_array(a, struct http_header, r->n_headers);
    call->n_headers = r->n_headers;
    for (size_t i = 0; i < r->n_headers; i++) {
        call->headers[i].name = arena_dup(a, r->headers[i].name);
        call->headers[i].value = arena_dup(a, r->headers[i].value);
    }
    buf_str(&call->body, r->body);
    call->is_streaming = r->is_streaming;
    call->is_finished = !r->is_streaming;
    call->timeout_ms = r->timeout_ms;
}

int http_call_new(struct http_client *c, const struct http_request *r,
                  const struct http_call_ops *ops, void *arg, struct http_call **out,
                  struct err *e) {
    if (c->n_calls >= HTTP_CALLS_MAX) {
        return err_set(e, ERR_TOO_BIG, "%s: %d calls are under way already", c->label,
                       HTTP_CALLS_MAX);
    }
    if (r->body.n > HTTP_SEND_MAX) {
        return err_set(e, ERR_TOO_BIG, "%s: a request of %zu bytes, %d are allowed", c->label,
                       r->body.n, HTTP_SEND_MAX);
    }
    struct http_call *call = calloc(1, sizeof(*call));
    mg_assert(call != NULL);
    call->client = c;
    call->ops = *ops;
    call->arg = arg;
    call->mem.first_bytes = 512;
    call->body = BUF_INIT(HTTP_SEND_MAX);
    call->in = BUF_INIT(2 * HTTP_WINDOW);
    call->started_ns = clock_ns();
    copy_request(call, r);
    link_init(&call->link);
    link_join(&c->waiting, &call->link);
    c->n_calls++;
    if (r->timeout_ms > 0) {
        call->deadline = loop_timer_new(c->l, on_deadline, call);
        loop_timer_start(call->deadline, r->timeout_ms, 0);
    }
    http_client_wake(c);
    *out = call;
    return 0;
}

void http_call_free(struct http_call *call) {
    if (!call || call->is_freed) {
        return;
    }
    call->is_freed = true;
    call->client->n_calls--;
    loop_timer_free(TAKE_PTR(call->deadline));
    loop_defer_free(TAKE_PTR(call->resume));
    if (call->conn && call->stream_id) {
        http_session_cancel(call->conn, call);
    }
    detach(call);
    if (call->depth == 0) {
        destroy(call);
    }
}

int http_call_send(struct http_call *call, struct str chunk) {
    if (call->is_ended || call->is_finished) {
        return ERR_UNAVAILABLE;
    }
    if (call->body_sent) {
        buf_consume(&call->body, call->body_sent);
        call->body_sent = 0;
        call->has_lost_body = true;
    }
    if (chunk.n > HTTP_SEND_MAX - call->body.n) {
        return ERR_TOO_BIG;
    }
    buf_str(&call->body, chunk);
    if (call->conn) {
        http_session_body_grew(call->conn, call);
    }
    return 0;
}

size_t http_call_unsent(const struct http_call *call) {
    return call->body.n - call->body_sent;
}

void http_call_finish(struct http_call *call) {
    if (!call->is_finished) {
        call->is_finished = true;
        if (call->conn && !call->is_ended) {
            http_session_body_grew(call->conn, call);
        }
    }
}

/* Hands over what waited, and the end if that waited too. */
static void on_resume(void *arg) {
    struct http_call *call = arg;
    if (call->is_paused || call->is_ended) {
        return;
    }
    call->depth++;
    struct buf in = call->in;
    struct http_conn *n = call->conn;
    if (n && in.n > call->in_done) {
        (void)nghttp2_session_consume_stream(n->h2, call->stream_id, in.n - call->in_done);
        http_conn_flush_soon(n);
    }
    call->in = BUF_INIT(2 * HTTP_WINDOW);
    call->in_done = 0;
    struct str left = hand_on(call, buf_view(&in));
    if (left.n && !call->is_freed && !call->is_ended) {
        buf_str(&call->in, left);
        call->in_done = left.n;
    }
    buf_fini(&in);
    if (!call->is_freed && !call->is_ended && call->is_complete && !http_call_holds(call)) {
        end_well(call);
    }
    leave(call);
}

void http_call_pause(struct http_call *call) {
    call->is_paused = true;
    if (!call->resume) {
        call->resume = loop_defer_new(call->client->l, on_resume, call);
    }
}

void http_call_resume(struct http_call *call) {
    if (call->is_paused) {
        call->is_paused = false;
        loop_defer_ask(call->resume);
    }
}

/* http_run */
struct run {
    struct http_answer *out;
    struct arena *a;
    struct buf body;
    struct err *e;
    int code;
    bool is_done;
    const char *label;
};

static const struct http_header *copy_fields(struct arena *a, const struct http_header *h,
                                             size_t n) {
    struct http_header *v = arena_array(a, struct http_header, n);
    for (size_t i = 0; i < n; i++) {
        v[i] = (struct http_header){arena_dup(a, h[i].name), arena_dup(a, h[i].value)};
    }
    return v;
}

static void run_head(void *arg, int status, const struct http_header *h, size_t n) {
    struct run *run = arg;
    run->out->status = status;
    run->out->headers = copy_fields(run->a, h, n);
    run->out->n_headers = n;
}

static void run_data(void *arg, struct str chunk) {
    struct run *run = arg;
    buf_str(&run->body, chunk);
    if (run->body.overflow && !run->is_done) {
        run->is_done = true;
        run->code = err_set(run->e, ERR_TOO_BIG, "%s: an answer of more than %zu bytes", run->label,
                            run->body.max);
    }
}

static void run_end(void *arg, const struct http_end *end_) {
    struct run *run = arg;
    if (run->is_done) {
        return;
    }
    run->is_done = true;
    run->out->is_unsent = end_->is_unsent;
    run->code = end_->code;
    if (end_->code < 0) {
        (void)err_set(run->e, end_->code, "%s", end_->reason);
        return;
    }
    run->out->trailers = copy_fields(run->a, end_->trailers, end_->n_trailers);
    run->out->n_trailers = end_->n_trailers;
    run->out->body = arena_dup(run->a, buf_view(&run->body));
}

int http_run(struct http_client *c, const struct http_request *r, size_t body_max, struct arena *a,
             struct http_answer *out, struct err *e) {
    static const struct http_call_ops ops = {
        .on_head = run_head, .on_data = run_data, .on_end = run_end};
    mg_assert(r->timeout_ms > 0 && !r->is_streaming);
    *out = (struct http_answer){0};
    struct run run = {.out = out, .a = a, .body = BUF_INIT(body_max), .e = e, .label = c->label};
    struct http_call *call = NULL;
    int code = http_call_new(c, r, &ops, &run, &call, e);
    if (code < 0) {
        out->is_unsent = true;
        return code;
    }
    while (!run.is_done) {
        loop_step(c->l, true);
    }
    http_call_free(call);
    buf_fini(&run.body);
    return run.code;
}
