/* A question by HTTP/1.1 against a server that answers with any bytes. */
#include "base/fd.h"
#include "base/loop.h"
#include "http/probe.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct server {
    struct loop *l;
    int fd, peer, port;
    struct loop_poll *poll, *peer_poll;
    const char *answer; /* NULL: none; "": hangs up */
    size_t piece;       /* bytes a time; 0: all */
    char request[512];
    bool is_done;
    int status;
    char why[200];
};

static void on_request(void *arg, unsigned events MG_UNUSED) {
    struct server *s = arg;
    ssize_t n = recv(s->peer, s->request, sizeof(s->request) - 1, MSG_DONTWAIT);
    s->request[n > 0 ? n : 0] = '\0';
    loop_poll_set(s->peer_poll, 0);
    if (!s->answer) {
        return;
    }
    size_t len = strlen(s->answer), piece = s->piece ? s->piece : len;
    for (size_t i = 0; i < len; i += piece) {
        (void)!send(s->peer, s->answer + i, len - i < piece ? len - i : piece, MSG_NOSIGNAL);
        loop_step(s->l, false);
    }
    (void)shutdown(s->peer, SHUT_WR);
}

static void on_accept(void *arg, unsigned events MG_UNUSED) {
    struct server *s = arg;
    s->peer = accept(s->fd, NULL, NULL);
    s->peer_poll = loop_poll_new(s->l, s->peer, LOOP_READ, on_request, s);
}

static void on_answer(void *arg, int status, const char *why) {
    struct server *s = arg;
    s->is_done = true;
    s->status = status;
    (void)snprintf(s->why, sizeof(s->why), "%s", why);
}

static void start(struct server *s) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    s->l = loop_new();
    s->peer = -1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(s->fd, 5), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &n), 0);
    s->port = ntohs(a.sin_port);
    s->poll = loop_poll_new(s->l, s->fd, LOOP_READ, on_accept, s);
}

static void stop(struct server *s) {
    loop_poll_free(s->poll);
    loop_poll_free(s->peer_poll);
    fd_close(&s->peer);
    fd_close(&s->fd);
    loop_free(s->l);
}

/* Asks SCHEME://127.0.0.1:PORT/PATH once; what came of it is in s. */
static void ask(struct server *s, const char *scheme, const char *path, int64_t ms) {
    char url[128];
    (void)snprintf(url, sizeof(url), "%s://127.0.0.1:%d%s", scheme, s->port, path);
    assert_int_equal(http_probe_check(str_c(url), NULL), 0);
    struct http_probe *p = http_probe_new(s->l, str_c(url), ms, on_answer, s);
    assert_false(s->is_done);
    while (!s->is_done) {
        loop_step(s->l, true);
    }
    http_probe_free(p);
}

static void t_probe__answers(void **state MG_UNUSED) {
    static const struct {
        const char *answer;
        int status;
        const char *why;
    } all[] = {{"HTTP/1.1 200 OK\r\n\r\n", 200, ""},
               {"HTTP/1.0 503\r\n", 503, ""},
               {"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", 302, ""},
               {"HTTP/1.1 20", 0, "closed before an answer"},
               {"", 0, "closed before an answer"},
               {"HTTP/2.0 200 OK\r\n", 0, "not HTTP/1.1"},
               {"HTTP/1.1 2x0 OK\r\n", 0, "not HTTP/1.1"},
               {"SSH-2.0-OpenSSH_9\r\n", 0, "not HTTP/1.1"},
               {"\x01\x02\x03\x04\xff\xff\xff\xff\xff\xff\xff\xff", 0, "not HTTP/1.1"}};
    for (size_t i = 0; i < 2 * ARRAY_LEN(all); i++) {
        struct server s = {.answer = all[i / 2].answer, .piece = i % 2};
        start(&s);
        ask(&s, "http", i % 2 ? "/a/b?c=d#e" : "", 20000);
        assert_int_equal(s.status, all[i / 2].status);
        assert_non_null(strstr(s.why, all[i / 2].why));
        const char *want = i % 2 ? "GET /a/b?c=d HTTP/1.1\r\nHost: 127.0.0.1:"
                                 : "GET / HTTP/1.1\r\nHost: 127.0.0.1:";
        assert_true(str_starts(str_c(s.request), str_c(want)));
        stop(&s);
    }
}

static void t_probe__no_answer(void **state MG_UNUSED) {
    struct server s = {.answer = NULL};
    start(&s);
    ask(&s, "http", "/", 100);
    assert_int_equal(s.status, 0);
    assert_string_equal(s.why, "connected, but no answer came");
    stop(&s);
    struct server tls = {.answer = NULL};
    start(&tls);
    ask(&tls, "https", "/", 100);
    assert_string_equal(tls.why, "the TLS handshake did not end");
    stop(&tls);
    struct server plain = {.answer = "HTTP/1.1 400 Bad Request\r\n\r\n"};
    start(&plain);
    ask(&plain, "https", "/", 20000);
    assert_int_equal(plain.status, 0);
    assert_int_equal(strncmp(plain.why, "TLS handshake: ", 15), 0);
    stop(&plain);
    struct server away = {.answer = NULL};
    start(&away);
    loop_poll_free(TAKE_PTR(away.poll));
    fd_close(&away.fd);
    ask(&away, "http", "/", 20000);
    assert_string_equal(away.why, "Connection refused");
    stop(&away);
}

/* Freed at any moment: nothing is told, nothing is left (the sanitizers look). */
static void t_probe__freed(void **state MG_UNUSED) {
    for (int steps = 0; steps < 6; steps++) {
        struct server s = {.answer = "HTTP/1.1 200 OK\r\n\r\n"};
        char url[64];
        start(&s);
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d", s.port);
        struct http_probe *p = http_probe_new(s.l, str_c(url), 20000, on_answer, &s);
        for (int i = 0; i < steps; i++) {
            loop_step(s.l, false);
        }
        bool was_done = s.is_done;
        http_probe_free(p);
        for (int i = 0; i < 5; i++) {
            loop_step(s.l, false);
        }
        assert_int_equal(s.is_done, was_done);
        stop(&s);
    }
}

static void t_probe__urls(void **state MG_UNUSED) {
    static const char *const good[] = {"http://a", "https://a/", "http://[::1]:80/x", "http://a?b",
                                       "http://a#b"};
    static const char *const bad[] = {"",
                                      "a",
                                      "ftp://a/",
                                      "http://",
                                      "http:///x",
                                      "http://a b",
                                      "http://a\n",
                                      "http://u:p@a/",
                                      "http://::1/",
                                      "http://a:0/",
                                      "http://a:70000/",
                                      "http:/a",
                                      "http://\xc3\xa9/"};
    char longer[HTTP_PROBE_URL_MAX + 16];
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(http_probe_check(str_c(good[i]), NULL), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err e = {0};
        assert_int_equal(http_probe_check(str_c(bad[i]), &e), ERR_INVALID);
        assert_true(e.msg[0] != '\0');
    }
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    memcpy(longer, "http://a/", 9);
    assert_int_equal(http_probe_check(str_c(longer), NULL), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_probe__answers),
        cmocka_unit_test(t_probe__no_answer),
        cmocka_unit_test(t_probe__freed),
        cmocka_unit_test(t_probe__urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
