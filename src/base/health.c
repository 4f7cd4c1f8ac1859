#include "base/health.h"

#include "base/fd.h"
#include "base/ip.h"
#include "base/library.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

/* Loaded when a port is asked for, which it is not by default: it brings GnuTLS with it, a quarter
 * of an idle agent's memory. */
#define CALLS(X)                       \
    X(MHD_add_response_header)         \
    X(MHD_create_response_from_buffer) \
    X(MHD_destroy_response)            \
    X(MHD_get_daemon_info)             \
    X(MHD_get_timeout)                 \
    X(MHD_queue_response)              \
    X(MHD_run)                         \
    X(MHD_start_daemon)                \
    X(MHD_stop_daemon)

static struct { CALLS(LIBRARY_POINTER) } mhd;
#define SYMBOL(f) LIBRARY_SYMBOL(mhd, f),
static const struct library_symbol symbols[] = {CALLS(SYMBOL)};
static struct library microhttpd = {.soname = "libmicrohttpd.so.12",
                                    .package = "libmicrohttpd12",
                                    .symbols = symbols,
                                    .n_symbols = ARRAY_LEN(symbols)};

enum { METRICS_MAX = 1 << 20, CONNECTIONS_MAX = 32, TIMEOUT_S = 10 };

struct health {
    struct MHD_Daemon *daemon;
    struct loop_poll *poll;
    struct loop_timer *timer;
    unsigned pages;
    struct health_ops ops;
    void *arg;
};

static enum MHD_Result answer(struct MHD_Connection *c, unsigned code, const char *text, size_t n) {
    struct MHD_Response *r =
        mhd.MHD_create_response_from_buffer(n, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (!r) {
        return MHD_NO;
    }
    (void)mhd.MHD_add_response_header(r, "Content-Type",
                                      "text/plain; version=0.0.4; charset=utf-8");
    enum MHD_Result ok = mhd.MHD_queue_response(c, code, r);
    mhd.MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result probe(struct MHD_Connection *c, bool ok, const char *good, const char *bad) {
    const char *text = ok ? good : bad;
    return answer(c, ok ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, text, strlen(text));
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_n, void **state) {
    struct health *h = arg;
    (void)version;
    (void)upload;
    (void)upload_n;
    (void)state;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        return answer(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n", 9);
    }
    if ((h->pages & HEALTH_PROBES) && strcmp(url, "/liveness") == 0) {
        return probe(c, h->ops.is_live(h->arg), "live\n", "not live\n");
    }
    if ((h->pages & HEALTH_PROBES) && strcmp(url, "/readiness") == 0) {
        return probe(c, h->ops.is_ready(h->arg), "ready\n", "not ready\n");
    }
    if ((h->pages & HEALTH_METRICS) && strcmp(url, "/metrics") == 0) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(METRICS_MAX);
        h->ops.metrics(h->arg, &b);
        return answer(c, MHD_HTTP_OK, b.p ? b.p : "", b.n);
    }
    return answer(c, MHD_HTTP_NOT_FOUND, "not found\n", 10);
}

/* Runs what is ready and asks for the next time-out. */
static void turn(struct health *h) {
    (void)mhd.MHD_run(h->daemon);
    MHD_UNSIGNED_LONG_LONG ms;
    if (mhd.MHD_get_timeout(h->daemon, &ms) == MHD_YES) {
        loop_timer_start(h->timer, (int64_t)(ms ? ms : 1), 0);
    }
}
static void on_poll(void *arg, unsigned events) {
    (void)events;
    turn(arg);
}
static void on_timer(void *arg) {
    turn(arg);
}

static int address(struct str host, uint16_t port, struct sockaddr_storage *out, struct err *e) {
    struct ip46 ip;
    struct str text = str_is(host, "localhost") ? STR("127.0.0.1") : host.n ? host : STR("::");
    if (ip_parse(text, &ip) < 0) {
        return err_set(e, ERR_INVALID,
                       "host %.*s: found no address; allowed are an IP address or "
                       "localhost",
                       STR_FMT(host));
    }
    *out = (struct sockaddr_storage){.ss_family = 0};
    if (ip.family == IP_V4) {
        struct sockaddr_in *a = (struct sockaddr_in *)out;
        a->sin_family = AF_INET;
        a->sin_port = htons(port);
        memcpy(&a->sin_addr, ip.b, 4);
    } else {
        struct sockaddr_in6 *a = (struct sockaddr_in6 *)out;
        a->sin6_family = AF_INET6;
        a->sin6_port = htons(port);
        memcpy(&a->sin6_addr, ip.b, 16);
    }
    return 0;
}

int health_new(struct loop *l, struct str host, uint16_t port, unsigned pages,
               const struct health_ops *ops, void *arg, struct health **out, struct err *e) {
    struct sockaddr_storage sa;
    int r = address(host, port, &sa, e);
    r = r < 0 ? r : library_load(&microhttpd, e);
    if (r < 0) {
        return r;
    }
    struct health *h = calloc(1, sizeof(*h));
    mg_assert(h != NULL);
    h->pages = pages;
    h->ops = *ops;
    h->arg = arg;
    unsigned flags = MHD_USE_EPOLL | (sa.ss_family == AF_INET6 ? MHD_USE_DUAL_STACK : 0);
    h->daemon =
        mhd.MHD_start_daemon(flags, port, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR, &sa,
                             MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
                             MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        h->daemon ? mhd.MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info) {
        int err = errno;
        health_free(h);
        return err_set(e, err ? -err : -EIO, "HTTP on %.*s port %u: %s", STR_FMT(host), port,
                       err ? strerror(err) : "failed");
    }
    h->timer = loop_timer_new(l, on_timer, h);
    h->poll = loop_poll_new(l, info->epoll_fd, LOOP_READ, on_poll, h);
    *out = h;
    return 0;
}

void health_free(struct health *h) {
    if (!h) {
        return;
    }
    loop_poll_free(h->poll);
    loop_timer_free(h->timer);
    if (h->daemon) {
        mhd.MHD_stop_daemon(h->daemon);
    }
    free(h);
}
