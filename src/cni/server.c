/* Connections of margay-cni: frames in and out, one request each, and which request may begin when.
 * What a request does is in server_add.c, server_del.c, server_check.c, server_ipam.c. */
#include "cni/server_extra.h"
#include "netlink/conntrack.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_MS 30000 /* for the whole REQUEST */
#define WRITE_MS 30000
#define READ_BYTES 65536U

/* ---- life of a request ---- */

struct cni_request *cni_request_new(struct cni_server *s) {
    struct cni_request *r = calloc(1, sizeof(*r));
    mg_assert(r != NULL);
    r->s = s;
    r->fd = r->netns_fd = r->spool_dir = -1;
    r->rx = BUF_INIT(WIRE_HEADER_BYTES + WIRE_BODY_MAX + READ_BYTES);
    r->tx = BUF_INIT(WIRE_HEADER_BYTES + WIRE_BODY_MAX);
    r->start_ns = clock_ns();
    r->next = s->requests;
    if (r->next) {
        r->next->prev = r;
    }
    s->requests = r;
    s->n_requests++;
    return r;
}

static void unlink_request(struct cni_request *r) {
    if (r->prev) {
        r->prev->next = r->next;
    } else {
        r->s->requests = r->next;
    }
    if (r->next) {
        r->next->prev = r->prev;
    }
    r->s->n_requests--;
}

static void free_request(struct cni_request *r) {
    unlink_request(r);
    cni_gates_stop(r);
    loop_poll_free(r->poll);
    loop_timer_free(r->timer);
    fd_close(&r->fd);
    fd_close(&r->netns_fd);
    fd_close(&r->spool_dir);
    buf_fini(&r->rx);
    buf_fini(&r->tx);
    arena_fini(&r->arena);
    free(r);
}

static void on_step(struct store *st MG_UNUSED, void *arg) {
    struct cni_request *r = arg;
    r->step_work(r);
}

static void on_step_done(void *arg, int code) {
    struct cni_request *r = arg;
    r->is_stepping = false;
    if (code < 0) {
        r->n_pending--; /* the agent stops: the server frees it */
    } else if (!cni_unref(r)) {
        r->step_next(r);
    }
}

void cni_step(struct cni_request *r, void (*work)(struct cni_request *r),
              void (*next)(struct cni_request *r)) {
    mg_assert(!r->is_stepping);
    r->is_stepping = true;
    r->step_work = work;
    r->step_next = next;
    r->step_code = 0;
    r->n_pending++;
    store_worker_run(r->s->worker, on_step, on_step_done, r);
}

static bool is_same_container(const struct cni_request *a, const struct cni_request *b) {
    return a->strings[WIRE_CONTAINERID].n &&
           str_eq(a->strings[WIRE_CONTAINERID], b->strings[WIRE_CONTAINERID]);
}

static void begin(struct cni_request *r) {
    r->is_waiting = false;
    r->is_busy = true;
    switch (r->cmd) {
    case CNI_CMD_ADD:
        r->s->stats.adds++;
        break;
    case CNI_CMD_DEL:
        r->s->stats.dels++;
        break;
    case CNI_CMD_CHECK:
        r->s->stats.checks++;
        break;
    case CNI_CMD_GC:
    case CNI_CMD_STATUS:
        r->s->stats.others++;
        break;
    }
    if (r->is_ipam_program) {
        cni_ipam_program(r);
        return;
    }
    switch (r->cmd) {
    case CNI_CMD_ADD:
        cni_add(r);
        break;
    case CNI_CMD_DEL:
        cni_del(r);
        break;
    case CNI_CMD_CHECK:
        cni_check(r);
        break;
    case CNI_CMD_GC:
        cni_gc(r);
        break;
    case CNI_CMD_STATUS:
        cni_status(r);
        break;
    }
}

/* The oldest request that waited for a container that is free now. */
static void begin_next(struct cni_server *s) {
    if (s->is_closing) {
        return;
    }
    struct cni_request *oldest = NULL;
    for (struct cni_request *r = s->requests; r; r = r->next) {
        if (!r->is_waiting) {
            continue;
        }
        bool is_blocked = false;
        for (struct cni_request *o = s->requests; o && !is_blocked; o = o->next) {
            is_blocked = o != r && o->is_busy && !o->is_done && is_same_container(o, r);
        }
        if (!is_blocked) {
            oldest = r; /* the list's end is the oldest */
        }
    }
    if (oldest) {
        begin(oldest);
    }
}

static void finish(struct cni_request *r) {
    struct cni_server *s = r->s;
    r->is_done = true;
    /* A spooled DEL that can never be understood isn't kept either. */
    bool is_hopeless = r->fail.code && r->fail.code < CNI_CODE_TRY_LATER;
    if (r->spool_dir >= 0 && (r->exit_code == 0 || is_hopeless)) {
        /* Gone already is fine. */
        (void)unlinkat(r->spool_dir, arena_cstr(&r->arena, r->spool_name), 0);
    }
    loop_poll_free(r->poll);
    r->poll = NULL;
    if (r->timer) {
        loop_timer_stop(r->timer);
    }
    fd_close(&r->fd);
    if (r->n_pending == 0) {
        free_request(r);
    }
    begin_next(s);
}

bool cni_unref(struct cni_request *r) {
    mg_assert(r->n_pending > 0);
    r->n_pending--;
    if (!r->is_done) {
        return false;
    }
    if (r->n_pending == 0) {
        free_request(r);
    }
    return true;
}

static void on_timer(void *arg) {
    struct cni_request *r = arg;
    void (*cb)(struct cni_request *) = r->on_timer;
    r->on_timer = NULL;
    if (cb && !r->is_done) {
        cb(r);
    }
}

void cni_timer(struct cni_request *r, int64_t ms, void (*cb)(struct cni_request *r)) {
    if (!r->timer) {
        r->timer = loop_timer_new(r->s->loop, on_timer, r);
    }
    r->on_timer = cb;
    if (cb) {
        loop_timer_start(r->timer, ms, 0);
    } else {
        loop_timer_stop(r->timer);
    }
}

/* ---- writing ---- */

static void gone(struct cni_request *r);

/* Sends what is left of tx; when all is out and it was the answer, the request ends. */
static void flush(struct cni_request *r) {
    while (r->tx.n) {
        ssize_t n = send(r->fd, r->tx.p, r->tx.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            buf_consume(&r->tx, (size_t)n);
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else if (n < 0 && errno == EAGAIN) {
            loop_poll_set(r->poll, r->is_answering ? LOOP_WRITE : LOOP_READ | LOOP_WRITE);
            return;
        } else {
            gone(r);
            return;
        }
    }
    if (r->is_answering) {
        finish(r);
    } else {
        loop_poll_set(r->poll, LOOP_READ);
    }
}

static void put_u32(struct buf *b, uint32_t v) {
    uint8_t p[4];
    (void)wire_put_u32(p, v);
    buf_add(b, p, sizeof(p));
}

static void put_header(struct buf *b, enum wire_type type, size_t n) {
    uint8_t p[WIRE_HEADER_BYTES];
    (void)wire_put_header(p, type, (uint32_t)n);
    buf_add(b, p, sizeof(p));
}

static void end_unsent(struct cni_request *r) {
    finish(r);
}

void cni_answer(struct cni_request *r, int exit_code, struct str text) {
    r->is_answering = true;
    r->exit_code = exit_code;
    r->on_delegated = NULL;
    if (r->is_gone || r->fd < 0) {
        finish(r);
        return;
    }
    if (text.n > WIRE_TEXT_MAX) {
        text = STR("{\"cniVersion\":\"1.0.0\",\"code\":5,\"msg\":\"the answer is above 1 MiB\"}");
        exit_code = 1;
    }
    buf_reset(&r->tx);
    put_header(&r->tx, WIRE_ANSWER, 4 + text.n);
    put_u32(&r->tx, (uint32_t)exit_code);
    buf_str(&r->tx, text);
    cni_timer(r, WRITE_MS, end_unsent);
    flush(r);
}

void cni_answer_fail(struct cni_request *r) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(16384);
    struct cni_server *s = r->s;
    s->stats.errors++;
    if (log_allow(&s->log, 50, 10)) {
        LOG_W("cni", "failed", "command=%.*s container=%s code=%d msg=%s",
              STR_FMT(r->strings[WIRE_COMMAND]), log_quote(r->strings[WIRE_CONTAINERID]),
              r->fail.code, log_quote(str_c(r->fail.msg)));
    }
    unsigned v = r->conf.doc ? r->conf.version : CNI_V_1_0;
    buf_printf(&b, "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":", cni_versions[v], r->fail.code);
    json_quote(&b, str_c(r->fail.msg));
    buf_puts(&b, ",\"details\":");
    json_quote(&b, str_c(r->fail.details));
    buf_puts(&b, "}\n");
    bool is_later = r->cmd == CNI_CMD_DEL && r->fail.code == CNI_CODE_TRY_LATER;
    cni_answer(r, is_later ? WIRE_EXIT_LATER : 1, buf_view(&b));
}

void cni_delegate(struct cni_request *r, struct str type, const char *command, struct str input,
                  void (*on_delegated)(struct cni_request *r, uint32_t code, struct str text)) {
    if (r->fd < 0 || r->is_gone || r->n_delegates == WIRE_DELEGATES_MAX) {
        on_delegated(r, UINT32_MAX, STR(""));
        return;
    }
    struct str parts[] = {type, str_c(command), input};
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        n += 4 + parts[i].n;
    }
    r->n_delegates++;
    r->on_delegated = on_delegated;
    put_header(&r->tx, WIRE_DELEGATE, n);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        put_u32(&r->tx, (uint32_t)parts[i].n);
        buf_str(&r->tx, parts[i]);
    }
    flush(r);
}

/* ---- reading ---- */

/* The plugin has hung up, or broken the protocol: nobody will hear an answer. */
static void gone(struct cni_request *r) {
    r->is_gone = true;
    if (r->is_answering || !r->is_busy) {
        finish(r);
        return;
    }
    loop_poll_set(r->poll, 0);
    if (r->on_delegated) {
        void (*cb)(struct cni_request *, uint32_t, struct str) = r->on_delegated;
        r->on_delegated = NULL;
        cb(r, UINT32_MAX, STR(""));
    } else if (r->wants_gates || (r->wants_pod && !r->is_stepping)) {
        cni_gates_stop(r);
        r->wants_pod = false;
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "", "the plugin was ended while it waited");
        cni_answer_fail(r);
    }
}

static int read_command(struct cni_request *r) {
    static const char *const names[] = {"ADD", "DEL", "CHECK", "GC", "STATUS"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_is(r->strings[WIRE_COMMAND], names[i])) {
            r->cmd = (enum cni_command)i;
            return 0;
        }
    }
    return cni_fail(&r->fail, CNI_CODE_BAD_ENV, "install margay and margay-cni of one release",
                    "CNI_COMMAND %s is not known", log_quote(r->strings[WIRE_COMMAND]));
}

int cni_request_take(struct cni_request *r, const uint8_t *body, size_t n) {
    static const size_t limits[WIRE_N_STRINGS] = {[WIRE_PROGRAM] = 64,
                                                  [WIRE_COMMAND] = 64,
                                                  [WIRE_CONTAINERID] = WIRE_SMALL_MAX,
                                                  [WIRE_NETNS] = WIRE_SMALL_MAX,
                                                  [WIRE_IFNAME] = 64,
                                                  [WIRE_ARGS] = WIRE_ENV_MAX,
                                                  [WIRE_PATH] = WIRE_ENV_MAX,
                                                  [WIRE_STDIN] = WIRE_TEXT_MAX};
    struct wire_cursor c = {body, n};
    int k = wire_take_u32(&c, &r->flags);
    for (size_t i = 0; k == 0 && i < WIRE_N_STRINGS; i++) {
        const uint8_t *p = NULL;
        size_t len = 0;
        k = wire_take_str(&c, limits[i], &p, &len);
        r->strings[i] = str_n(k == 0 ? (const char *)p : "", len);
    }
    return k < 0 ? k : c.n ? -EPROTO : 0;
}

/* Container ids become parts of names and keys. */
static int check_strings(struct cni_request *r) {
    struct str id = r->strings[WIRE_CONTAINERID], ifname = r->strings[WIRE_IFNAME];
    bool has_container = r->cmd != CNI_CMD_GC && r->cmd != CNI_CMD_STATUS;
    bool is_ok = !has_container || (id.n > 0 && id.n <= 1024);
    for (size_t i = 0; i < id.n && is_ok; i++) {
        char c = id.p[i];
        is_ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                (i && (c == '_' || c == '.' || c == '-'));
    }
    if (!is_ok) {
        return cni_fail(&r->fail, CNI_CODE_BAD_ENV, "letters, digits, '_', '.' and '-'",
                        "CNI_CONTAINERID %s is not valid", log_quote(id));
    }
    if (has_container && !link_name_is_valid(ifname)) {
        return cni_fail(&r->fail, CNI_CODE_BAD_ENV, "1 to 15 bytes, such as eth0",
                        "CNI_IFNAME %s is not valid", log_quote(ifname));
    }
    return 0;
}

void cni_request_start(struct cni_request *r) {
    struct cni_server *s = r->s;
    r->is_read = true;
    cni_timer(r, 0, NULL);
    r->is_ipam_program = str_ends(r->strings[WIRE_PROGRAM], STR("-ipam"));
    if (read_command(r) < 0 || check_strings(r) < 0 ||
        cni_conf_read(r->strings[WIRE_STDIN], &r->arena, &r->conf, &r->fail) < 0 ||
        cni_args_read(r->strings[WIRE_ARGS], &r->arena, &r->args, &r->fail) < 0) {
        cni_answer_fail(r);
        return;
    }
    for (struct cni_request *o = s->requests, *next; o; o = next) {
        next = o->next;
        if (o == r || !o->is_busy || o->is_done || !is_same_container(o, r)) {
            continue;
        }
        r->is_waiting = true;
        if (r->cmd == CNI_CMD_DEL && (o->wants_pod || o->wants_gates)) {
            /* The runtime has given the container up: its ADD need not wait any more. That begins
             * this request. */
            cni_gates_stop(o);
            o->wants_pod = false;
            if (o->is_stepping) {
                o->is_given_up = true;
                return;
            }
            (void)cni_fail(&o->fail, CNI_CODE_TRY_LATER, "", "the container was deleted meanwhile");
            cni_answer_fail(o);
            return;
        }
    }
    if (!r->is_waiting) {
        begin(r);
    }
}

/* One whole frame at the front of rx. */
static void on_frame(struct cni_request *r, uint32_t type, const uint8_t *body, size_t n) {
    if (!r->is_read) {
        /* The body stays: the request's strings point into it. */
        r->is_read = true;
        const uint8_t *copy = (const uint8_t *)arena_dup(&r->arena, str_n((const char *)body, n)).p;
        buf_reset(&r->rx);
        if (type != WIRE_REQUEST || cni_request_take(r, copy, n) < 0) {
            (void)cni_fail(&r->fail, CNI_CODE_IO, "install margay and margay-cni of one release",
                           "the plugin sent something that is no request");
            cni_answer_fail(r);
            return;
        }
        cni_request_start(r);
        return;
    }
    struct wire_cursor c = {body, n};
    uint32_t code = 0;
    if (type != WIRE_DELEGATED || !r->on_delegated || wire_take_u32(&c, &code) < 0 ||
        c.n > WIRE_TEXT_MAX) {
        gone(r);
        return;
    }
    struct str text = arena_dup(&r->arena, str_n((const char *)c.p, c.n));
    void (*cb)(struct cni_request *, uint32_t, struct str) = r->on_delegated;
    r->on_delegated = NULL;
    buf_reset(&r->rx);
    cb(r, code == UINT32_MAX ? 1 : code, text);
}

/* Descriptors that came with the bytes: the first is the namespace, if one was promised. */
static void take_fds(struct cni_request *r, struct msghdr *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd = -1;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (r->netns_fd < 0 && !r->is_read) {
                r->netns_fd = TAKE_FD(fd);
            }
            fd_close(&fd);
        }
    }
}

/* >0: bytes were read, 0: none are there, <0: the connection is over. */
static int read_some(struct cni_request *r) {
    union {
        char space[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control;
    char *p = buf_reserve(&r->rx, READ_BYTES);
    if (!p) {
        return -EMSGSIZE;
    }
    struct iovec iov = {p, READ_BYTES};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.space,
                       .msg_controllen = sizeof(control.space)};
    ssize_t n = recvmsg(r->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    take_fds(r, &m);
    r->rx.n += (size_t)n;
    return n == 0 ? -ECONNRESET : 1;
}

static void on_poll(void *arg, unsigned events) {
    struct cni_request *r = arg;
    if ((events & LOOP_WRITE) && r->tx.n) {
        flush(r); /* may end the request */
        return;
    }
    if (r->is_answering || !(events & LOOP_READ)) {
        return;
    }
    int k = read_some(r);
    if (k < 0) {
        gone(r);
        return;
    }
    if (r->rx.n < WIRE_HEADER_BYTES) {
        return;
    }
    uint32_t type = 0, n = 0;
    if (wire_header((const uint8_t *)r->rx.p, &type, &n) < 0) {
        gone(r);
    } else if (r->rx.n >= WIRE_HEADER_BYTES + (size_t)n) {
        on_frame(r, type, (const uint8_t *)r->rx.p + WIRE_HEADER_BYTES, n);
    }
}

static void give_up_reading(struct cni_request *r) {
    gone(r);
}

void cni_server_connection(struct cni_server *s, int take_fd) {
    struct cni_request *r = cni_request_new(s);
    r->fd = take_fd;
    r->poll = loop_poll_new(s->loop, r->fd, LOOP_READ, on_poll, r);
    if (s->n_requests > CNI_SERVER_MAX_REQUESTS) {
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "the runtime will try again",
                       "the agent is busy with %d requests", CNI_SERVER_MAX_REQUESTS);
        cni_answer_fail(r);
        return;
    }
    cni_timer(r, READ_MS, give_up_reading);
    on_poll(r, LOOP_READ); /* the caller has seen the first bytes */
}

/* ---- the server ---- */

void cni_server_object(struct cni_server *s, const struct kind *kind, struct str ns,
                       struct str name) {
    bool is_node = (kind->id == K_NODE || kind->id == K_NODE_K8S) && str_eq(name, s->node);
    if (is_node || kind->id == K_IP_POOL || kind->id == K_IP_RESERVATION ||
        kind->id == K_IPAM_CONFIGURATION) {
        s->are_pools_stale = true;
    }
    if (kind->id != K_POD) {
        return;
    }
    for (struct cni_request *r = s->requests; r; r = r->next) {
        r->wants_retry |= r->wants_pod && str_eq(r->args.ns, ns) && str_eq(r->args.pod, name);
    }
    for (struct cni_request *r = s->requests; r;) {
        if (r->wants_retry && !r->is_stepping) {
            r->wants_retry = false;
            cni_add_retry(r);
            r = s->requests; /* that may have ended any request */
        } else {
            r = r->next;
        }
    }
}

struct cni_server *cni_server_new(struct loop *l, struct store *st, struct store_worker *w,
                                  struct ipam *ipam, const struct cni_server_settings *settings,
                                  const struct cni_server_ops *ops, void *arg, struct err *e) {
    struct cni_server *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->loop = l;
    s->store = st;
    s->worker = w;
    s->ipam = ipam;
    s->ops = ops;
    s->arg = arg;
    s->extra_dir = -1;
    s->links = settings->links;
    s->may_ask_kube = settings->may_ask_kube;
    s->node = arena_dup(&s->arena, settings->node_name);
    s->iface_prefix =
        arena_dup(&s->arena, settings->iface_prefix.n ? settings->iface_prefix : STR("cali"));
    if (s->iface_prefix.n > 4) {
        /* 15 bytes are all that a name has; 11 of them tell pods apart. */
        (void)err_set(e, ERR_INVALID, "interfacePrefix %.*s is longer than 4 bytes",
                      STR_FMT(s->iface_prefix));
        cni_server_free(s);
        return NULL;
    }
    int r = nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &s->nl, e);
    for (size_t i = 0; r == 0 && i < CNI_REMOVERS; i++) {
        r = nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &s->removers[i].nl, e);
    }
    if (r == 0) {
        r = cni_extras_load(s, settings->state_dir, e);
    }
    if (r < 0 || (store_is_quick(st) && cni_attachments_load(s, e) < 0)) {
        cni_server_free(s);
        return NULL;
    }
    s->is_tended = store_is_quick(st);
    return s;
}

void cni_server_free(struct cni_server *s) {
    if (!s) {
        return;
    }
    s->is_closing = true;
    cni_removals_free(s);
    cni_stale_free(s);
    while (s->requests) {
        free_request(s->requests);
    }
    cni_moves_free(s);
    cni_attachments_free(s);
    cni_extras_free(s);
    free(s->denied_handle);
    cni_early_free(s);
    cni_pools_forget(s);
    loop_timer_free(s->batch_timer);
    nl_close(s->nl);
    for (size_t i = 0; i < CNI_REMOVERS; i++) {
        nl_close(s->removers[i].nl);
        conntrack_free(s->removers[i].conntrack);
    }
    store_close(s->kube);
    free(s->kube_path);
    arena_fini(&s->arena);
    free(s);
}

void cni_server_set_mtu(struct cni_server *s, uint32_t mtu) {
    s->mtu = mtu;
}

void cni_server_stats(const struct cni_server *s, struct cni_server_stats *out) {
    *out = s->stats;
    out->n_requests = s->n_requests;
    out->n_attachments = s->attachments.n;
}
