/* What a server sends, from any bytes, into the HTTP/2 client: two calls over a socket pair. The
 * first byte chooses what the calls' callbacks do. */
#include "http/http_int.h"

#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { PAUSES = 1, FREES_ON_HEAD = 2, FREES_ON_DATA = 4, FREES_CLIENT = 8, PIECES = 16 };

static struct loop *l;
static struct http_client *client;
static size_t n_told; /* keeps the compiler from leaving things out */

struct talk {
    struct http_call *call;
    uint8_t how;
    bool is_ended;
};

static void on_head(void *arg, int status, const struct http_header *h, size_t n) {
    struct talk *t = arg;
    mg_assert(status >= 200 && n <= HTTP_HEADERS_MAX && !t->is_ended);
    for (size_t i = 0; i < n; i++) {
        n_told += h[i].name.n + h[i].value.n;
    }
    if (t->how & FREES_ON_HEAD) {
        http_call_free(TAKE_PTR(t->call));
    }
}
static void on_data(void *arg, struct str chunk) {
    struct talk *t = arg;
    mg_assert(t->call && !t->call->is_paused && !t->is_ended);
    n_told += chunk.n;
    if (t->how & PAUSES) {
        http_call_pause(t->call);
    }
    if (t->how & FREES_ON_DATA) {
        http_call_free(TAKE_PTR(t->call));
    }
}
static void on_end(void *arg, const struct http_end *end) {
    struct talk *t = arg;
    mg_assert(!t->is_ended);
    t->is_ended = true;
    n_told += strlen(end->reason) + end->n_trailers;
    http_call_free(TAKE_PTR(t->call));
}

static void begin(struct talk *t, bool is_streaming) {
    static const struct http_call_ops ops = {on_head, on_data, on_end};
    struct http_request r = {
        .method = "POST", .path = STR("/x"), .body = STR("abc"), .is_streaming = is_streaming};
    mg_assert(http_call_new(client, &r, &ops, t, &t->call, NULL) == 0);
}

static void feed(int fd, const uint8_t *p, size_t n, size_t piece) {
    for (size_t i = 0; i < n; i += piece) {
        size_t now = n - i < piece ? n - i : piece;
        if (send(fd, p + i, now, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)now) {
            return;
        }
        loop_step(l, false);
        uint8_t drop[4096];
        while (recv(fd, drop, sizeof(drop), MSG_DONTWAIT) > 0) {
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1) {
        return 0;
    }
    if (!l) {
        l = loop_new();
    }
    int fd[2];
    struct http_options o = {.url = STR("http://127.0.0.1:1")};
    struct talk one = {.how = data[0]}, two = {.how = (uint8_t)(data[0] >> 4)};
    mg_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) == 0);
    mg_assert(http_client_new(l, &o, &client, NULL) == 0);
    http_client_take_fd(client, fd[0]);
    begin(&one, false);
    begin(&two, true);
    loop_step(l, false);
    loop_step(l, false);
    feed(fd[1], data + 1, n - 1, data[0] & PIECES ? 7 : 32768);
    (void)shutdown(fd[1], SHUT_RDWR);
    for (int i = 0; i < 4; i++) {
        loop_step(l, false);
        if (one.call) {
            http_call_resume(one.call);
        }
        if (two.call) {
            (void)!http_call_send(two.call, STR("more"));
            http_call_resume(two.call);
        }
    }
    http_call_free(one.call);
    http_call_free(two.call);
    http_client_free(TAKE_PTR(client));
    close(fd[1]);
    loop_step(l, false);
    loop_step(l, false);
    return 0;
}
