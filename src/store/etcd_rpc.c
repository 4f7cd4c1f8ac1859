/* Calls to an etcd cluster. See etcd_rpc.h. A call asks one member after the other, each once a
 * round; while members answer that the cluster has no leader, rounds go on until the call's time is
 * over. A write is sent again only when the first was certainly not carried out. */
#include "store/etcd_rpc.h"

#include "base/clock.h"
#include "base/vec.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { REASON_MAX = 300, LOGINS_MAX = 2 };

struct member {
    struct http_client *http;
    char reason[REASON_MAX]; /* of its last failure in this op's round; "" none */
};

struct etcd_cluster {
    struct loop *l;
    const struct etcd_options *o;
    struct member member[ETCD_MEMBERS_MAX];
    size_t now;            /* the member that is asked */
    char *token;           /* of the login, or NULL */
    bool has_no_auth;      /* users are not enabled there: no login is needed */
    uint64_t id, revision; /* of the newest header; id 0: none yet */
    const atomic_bool *stop;
};

struct etcd_op {
    struct etcd_cluster *c;
    const char *path;
    struct buf request, login; /* frames */
    bool is_write, is_login;   /* is_login: the call under way is the login */
    void (*done)(void *arg, const struct etcd_end *end);
    void *arg;
    int64_t end_ns, timeout_ms;
    struct loop_timer *timer; /* of the pause, and of telling a failure later */
    struct http_call *call;
    struct grpc_split split;
    struct buf message;
    bool has_message;
    size_t n_tried; /* members in this round */
    unsigned n_logins;
    bool is_waiting_for_leader, is_unknown;
    int fail_code; /* of a broken answer */
    struct buf reasons;
};

/* ---- the cluster ---- */

int etcd_cluster_new(struct loop *l, const struct etcd_options *o, struct etcd_cluster **out,
                     struct err *e) {
    struct etcd_cluster *c = calloc(1, sizeof(*c));
    mg_assert(c != NULL);
    c->l = l;
    c->o = o;
    for (size_t i = 0; i < o->n_members; i++) {
        struct http_options h = {.url = o->member[i],
                                 .ca_file = o->ca_file,
                                 .ca_pem = o->ca_pem,
                                 .cert_file = o->cert_file,
                                 .cert_pem = o->cert_pem,
                                 .key_file = o->key_file,
                                 .key_pem = o->key_pem,
                                 .connect_timeout_ms = ETCD_CONNECT_MS,
                                 .ping_interval_ms = ETCD_PING_MS,
                                 .ping_timeout_ms = ETCD_PONG_MS,
                                 .is_insecure = o->is_insecure,
                                 .what = "etcd"};
        int r = http_client_new(l, &h, &c->member[i].http, e);
        if (r < 0) {
            etcd_cluster_free(c);
            return r;
        }
    }
    /* Not all agents on the same one. */
    uint64_t seed = (uint64_t)clock_ns();
    c->now = o->n_members ? (size_t)((seed / 1000) % o->n_members) : 0;
    *out = c;
    return 0;
}

void etcd_cluster_free(struct etcd_cluster *c) {
    if (!c) {
        return;
    }
    for (size_t i = 0; i < c->o->n_members; i++) {
        http_client_free(c->member[i].http);
    }
    etcd_cluster_forget_login(c);
    free(c);
}

void etcd_cluster_stop_by(struct etcd_cluster *c, const atomic_bool *stop) {
    c->stop = stop;
}

static bool is_stopped(const struct etcd_cluster *c) {
    return c->stop && atomic_load(c->stop);
}

struct http_client *etcd_cluster_member(const struct etcd_cluster *c) {
    return c->member[c->now].http;
}

const char *etcd_cluster_name(const struct etcd_cluster *c) {
    const char *url = c->o->member[c->now].p, *host = strstr(url, "://");
    return host ? host + 3 : url;
}

void etcd_cluster_next(struct etcd_cluster *c) {
    c->now = (c->now + 1) % c->o->n_members;
}

void etcd_cluster_forget_login(struct etcd_cluster *c) {
    if (c->token) {
        explicit_bzero(c->token, strlen(c->token));
        free(TAKE_PTR(c->token));
    }
    c->has_no_auth = false;
}

size_t etcd_cluster_headers(const struct etcd_cluster *c, struct http_header *out) {
    size_t n = 0;
    out[n++] = (struct http_header){STR("content-type"), STR("application/grpc")};
    out[n++] = (struct http_header){STR("te"), STR("trailers")};
    /* A member that is cut off from the others says so at once. */
    out[n++] = (struct http_header){STR("hasleader"), STR("true")};
    if (c->token) {
        out[n++] = (struct http_header){STR("token"), str_c(c->token)};
    }
    return n;
}

bool etcd_cluster_is_same(struct etcd_cluster *c, const Etcd__ResponseHeader *h, uint64_t least,
                          char *why, size_t room) {
    if (!h) {
        return true;
    }
    uint64_t was = c->id, revision = h->revision > 0 ? (uint64_t)h->revision : 0;
    c->id = h->cluster_id;
    c->revision = revision;
    if (was && was != h->cluster_id) {
        (void)snprintf(why, room,
                       "etcd at %s: another cluster answers: its id is %" PRIx64
                       ", it was %" PRIx64,
                       etcd_cluster_name(c), h->cluster_id, was);
        return false;
    }
    if (revision < least) {
        (void)snprintf(why, room,
                       "etcd at %s: its newest revision is %" PRIu64 ", %" PRIu64
                       " was seen before: it was restored from a backup",
                       etcd_cluster_name(c), revision, least);
        return false;
    }
    return true;
}

/* ---- one call ---- */

static void step(struct etcd_op *op);

static void finish(struct etcd_op *op, int code, const char *reason, struct str message) {
    struct etcd_end end = {
        .code = code,
        .reason = reason,
        .message = message,
        .is_unknown = code < 0 && op->is_write && op->is_unknown,
    };
    op->done(op->arg, &end);
}

/* In a turn of its own, so that nobody is told from inside of what he called. */
static void on_timer(void *arg) {
    struct etcd_op *op = arg;
    if (op->fail_code) {
        finish(op, op->fail_code, buf_cstr(&op->reasons), STR_NULL);
    } else {
        step(op);
    }
}

static void step_later(struct etcd_op *op, int64_t delay_ms) {
    loop_timer_start(op->timer, delay_ms, 0);
}

static void give_up(struct etcd_op *op, int code) {
    buf_reset(&op->reasons);
    for (size_t i = 0; i < op->c->o->n_members; i++) {
        const char *why = op->c->member[i].reason;
        if (why[0]) {
            buf_printf(&op->reasons, "%s%s", op->reasons.n ? "; " : "", why);
        }
    }
    if (op->is_unknown && op->is_write) {
        buf_puts(&op->reasons, "; whether the write was carried out is not known");
    }
    op->fail_code = code;
    step_later(op, 0);
}

/* This member can't: the next one, another round, or the end. */
static void elsewhere(struct etcd_op *op, const char *reason, bool may_repeat, bool is_wait) {
    struct etcd_cluster *c = op->c;
    (void)snprintf(c->member[c->now].reason, REASON_MAX, "%s", reason);
    op->is_waiting_for_leader = op->is_waiting_for_leader || is_wait;
    op->is_unknown = op->is_unknown || !may_repeat;
    etcd_cluster_next(c);
    op->n_tried++;
    if (clock_ns() >= op->end_ns || (op->is_write && !may_repeat)) {
        give_up(op, ERR_UNAVAILABLE);
        return;
    }
    if (op->n_tried < c->o->n_members) {
        step_later(op, 0);
        return;
    }
    if (!op->is_waiting_for_leader) {
        give_up(op, ERR_UNAVAILABLE);
        return;
    }
    op->n_tried = 0;
    op->is_waiting_for_leader = false;
    step_later(op, ETCD_PAUSE_MS);
}

static void final(struct etcd_op *op, int code, const char *reason) {
    buf_reset(&op->reasons);
    buf_puts(&op->reasons, reason);
    op->fail_code = code;
    step_later(op, 0);
}

static void take_login(struct etcd_op *op) {
    struct arena a = {0};
    const Etcd__AuthenticateResponse *r =
        grpc_unpack(&etcd__authenticate_response__descriptor, buf_view(&op->message), &a);
    if (r && r->token && r->token[0] && strlen(r->token) < 4096) {
        etcd_cluster_forget_login(op->c);
        op->c->token = strdup(r->token);
        mg_assert(op->c->token != NULL);
        step_later(op, 0);
    } else {
        final(op, -EPROTO, "etcd: the answer to the login holds no token");
    }
    arena_fini(&a);
}

static void answered(struct etcd_op *op, const struct grpc_status *st) {
    char reason[REASON_MAX * 2];
    struct etcd_cluster *c = op->c;
    (void)snprintf(reason, sizeof(reason), "etcd at %s: %s", etcd_cluster_name(c), st->reason);
    if (st->code == 0) {
        if (!op->has_message) {
            elsewhere(op, "etcd: an answer without a message", false, false);
        } else if (op->is_login) {
            take_login(op);
        } else {
            c->member[c->now].reason[0] = '\0';
            finish(op, 0, "", buf_view(&op->message));
        }
        return;
    }
    switch (st->kind) {
    case GRPC_FINAL:
        final(op, st->code, reason);
        break;
    case GRPC_ELSEWHERE:
    case GRPC_WAIT:
        elsewhere(op, reason, st->is_not_done || op->is_login, st->kind == GRPC_WAIT);
        break;
    case GRPC_LOGIN:
        etcd_cluster_forget_login(c);
        if (c->o->user.n && op->n_logins < LOGINS_MAX) {
            step_later(op, 0);
        } else {
            final(op, ERR_DENIED, reason);
        }
        break;
    case GRPC_NO_AUTH:
        if (op->is_login) {
            c->has_no_auth = true;
            step_later(op, 0);
        } else {
            final(op, st->code, reason);
        }
        break;
    }
}

static int on_message(void *arg, struct str message) {
    struct etcd_op *op = arg;
    if (op->has_message) {
        return -EPROTO;
    }
    op->has_message = true;
    buf_str(&op->message, message);
    return 0;
}

static void on_data(void *arg, struct str chunk) {
    struct etcd_op *op = arg;
    int r = op->fail_code ? 0 : grpc_split_feed(&op->split, chunk, on_message, op);
    if (r < 0) {
        http_call_free(TAKE_PTR(op->call));
        char text[REASON_MAX];
        (void)snprintf(text, sizeof(text), "etcd at %s: %s", etcd_cluster_name(op->c),
                       r == ERR_TOO_BIG ? "the answer is too large" : "no answer of gRPC");
        final(op, r, text);
    }
}

static void read_status(const struct http_header *h, size_t n, uint64_t *number, bool *has,
                        struct str *message) {
    struct str s = http_header_get(h, n, "grpc-status");
    if (s.p && str_to_u64(s, number) == 0) {
        *has = true;
        *message = http_header_get(h, n, "grpc-message");
    }
}

/* An answer that is all trailers has its status in the head. */
static void on_head(void *arg, int status, const struct http_header *h, size_t n) {
    struct etcd_op *op = arg;
    uint64_t number = 0;
    bool has = false;
    struct str message = STR_NULL;
    read_status(h, n, &number, &has, &message);
    struct grpc_status st = {0};
    if (has && number) {
        grpc_status_of(number, message, &st);
    } else if (status != 200) {
        st = (struct grpc_status){.code = ERR_UNAVAILABLE, .kind = GRPC_ELSEWHERE};
        st.is_not_done = status == 404 || status == 503;
        (void)snprintf(st.reason, sizeof(st.reason), "answers with HTTP status %d: is it etcd?",
                       status);
    }
    if (st.code) {
        http_call_free(TAKE_PTR(op->call));
        answered(op, &st);
    }
}

static void on_end(void *arg, const struct http_end *end) {
    struct etcd_op *op = arg;
    http_call_free(TAKE_PTR(op->call));
    if (end->code < 0) {
        bool is_ours = end->code == ERR_INVALID; /* our own certificate can't be read */
        if (is_ours) {
            final(op, end->code, end->reason);
        } else {
            elsewhere(op, end->reason, end->is_unsent || op->is_login, false);
        }
        return;
    }
    uint64_t number = 0;
    bool has = false;
    struct str message = STR_NULL;
    read_status(end->trailers, end->n_trailers, &number, &has, &message);
    struct grpc_status st;
    if (has) {
        grpc_status_of(number, message, &st);
    } else {
        st = (struct grpc_status){.code = ERR_UNAVAILABLE, .kind = GRPC_ELSEWHERE};
        (void)snprintf(st.reason, sizeof(st.reason), "the answer has no gRPC status: is it etcd?");
    }
    answered(op, &st);
}

static void frame_login(struct etcd_op *op) {
    const struct etcd_options *o = op->c->o;
    Etcd__AuthenticateRequest m;
    etcd__authenticate_request__init(&m);
    m.name = (char *)(uintptr_t)o->user.p;
    m.password = (char *)(uintptr_t)(o->password.p ? o->password.p : "");
    buf_reset(&op->login);
    grpc_frame(&op->login, &m.base);
}

/* Asks the member of now. */
static void step(struct etcd_op *op) {
    struct etcd_cluster *c = op->c;
    int64_t left_ms = (op->end_ns - clock_ns()) / 1000000;
    struct http_header headers[ETCD_HEADERS];
    op->is_login = c->o->user.n && !c->token && !c->has_no_auth;
    if (op->is_login) {
        op->n_logins++;
        frame_login(op);
    }
    grpc_split_fini(&op->split);
    grpc_split_init(&op->split, ETCD_MESSAGE_MAX);
    buf_reset(&op->message);
    op->has_message = false;
    struct http_request r = {
        .method = "POST",
        .path = str_c(op->is_login ? "/etcdserverpb.Auth/Authenticate" : op->path),
        .headers = headers,
        .n_headers = etcd_cluster_headers(c, headers),
        .body = buf_view(op->is_login ? &op->login : &op->request),
        .timeout_ms = left_ms < 1                ? 1
                      : left_ms < op->timeout_ms ? left_ms
                                                 : op->timeout_ms,
    };
    static const struct http_call_ops ops = {
        .on_head = on_head, .on_data = on_data, .on_end = on_end};
    struct err e = {.msg = ""};
    if (http_call_new(etcd_cluster_member(c), &r, &ops, op, &op->call, &e) < 0) {
        final(op, e.code, e.msg);
    }
}

struct etcd_op *etcd_op_new(struct etcd_cluster *c, const struct etcd_request *r,
                            void (*done)(void *arg, const struct etcd_end *end), void *arg) {
    struct etcd_op *op = calloc(1, sizeof(*op));
    mg_assert(op != NULL);
    int64_t total = r->timeout_ms > 0 ? r->timeout_ms : ETCD_CALL_MS;
    *op = (struct etcd_op){.c = c,
                           .path = r->path,
                           .is_write = r->is_write,
                           .done = done,
                           .arg = arg,
                           .end_ns = clock_ns() + total * 1000000,
                           .timeout_ms = ETCD_ATTEMPT_MS};
    op->request = BUF_INIT(HTTP_SEND_MAX);
    op->login = BUF_INIT(65536);
    op->message = BUF_INIT(ETCD_MESSAGE_MAX);
    op->reasons = BUF_INIT(900);
    grpc_split_init(&op->split, ETCD_MESSAGE_MAX);
    grpc_frame(&op->request, r->message);
    op->timer = loop_timer_new(c->l, on_timer, op);
    for (size_t i = 0; i < c->o->n_members; i++) {
        c->member[i].reason[0] = '\0';
    }
    if (op->request.overflow) {
        final(op, ERR_TOO_BIG, "etcd: the request is too large");
    } else {
        step(op);
    }
    return op;
}

void etcd_op_free(struct etcd_op *op) {
    if (!op) {
        return;
    }
    http_call_free(op->call);
    loop_timer_free(op->timer);
    grpc_split_fini(&op->split);
    buf_fini(&op->request);
    if (op->login.p) {
        explicit_bzero(op->login.p, op->login.n);
    }
    buf_fini(&op->login);
    buf_fini(&op->message);
    buf_fini(&op->reasons);
    free(op);
}

/* ---- blocking ---- */

struct run {
    bool is_done, is_unknown;
    int code;
    struct err *e;
    struct arena *a;
    const ProtobufCMessageDescriptor *d;
    void *answer;
};

static void on_run_done(void *arg, const struct etcd_end *end) {
    struct run *run = arg;
    run->is_done = true;
    run->code = end->code;
    run->is_unknown = end->is_unknown;
    if (end->code < 0) {
        (void)err_set(run->e, end->code, "%s", end->reason);
        return;
    }
    run->answer = grpc_unpack(run->d, end->message, run->a);
    if (!run->answer) {
        run->code = err_set(run->e, -EPROTO, "etcd: the answer can't be read");
    }
}

int etcd_run(struct etcd_cluster *c, struct loop *l, const struct etcd_request *r,
             const ProtobufCMessageDescriptor *d, struct arena *a, void *answer_out,
             bool *is_unknown, struct err *e) {
    struct run run = {.e = e, .a = a, .d = d};
    struct etcd_op *op = etcd_op_new(c, r, on_run_done, &run);
    while (!run.is_done && !is_stopped(c)) {
        loop_step(l, true);
    }
    etcd_op_free(op);
    if (!run.is_done) {
        run.code = err_set(e, -ECANCELED, "etcd: the call was given up: the program stops");
    }
    if (is_unknown) {
        *is_unknown = run.is_unknown;
    }
    if (run.code == 0) {
        *(void **)answer_out = run.answer;
    }
    return run.code;
}
