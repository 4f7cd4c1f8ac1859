/* The socket that `margay bgp status` and its kin ask. See ctl.h. Answers that may be long are made
 * piece by piece, as fast as they are read. */
#include "bgp/ctl.h"

#include "base/fd.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    PIECE_PREFIXES = 512, /* visited at once */
    ANSWER_MAX = 64 << 20,
    IDLE_MS = 30000, /* for a client that neither asks nor reads */
};

struct client {
    struct bgp_ctl *c;
    int fd;
    struct loop_poll *poll;
    struct loop_timer *timer;
    struct buf in, out;
    bool is_walking;  /* routes are being told */
    uint16_t sent_to; /* routes as announced to it; 0: the table */
    enum bgp_family family;
    uint32_t at;
    bool is_dumping; /* the table is told as MRT */
    struct mrt_dump dump;
};

struct bgp_ctl {
    struct loop *loop;
    struct bgp_proc *proc;
    char *path;
    int fd;
    struct loop_poll *poll;
    struct client *clients[BGP_CTL_CONNECTIONS_MAX];
};

static void client_free(struct client *x) {
    for (size_t i = 0; i < BGP_CTL_CONNECTIONS_MAX; i++) {
        if (x->c->clients[i] == x) {
            x->c->clients[i] = NULL;
        }
    }
    mrt_dump_fini(&x->dump);
    loop_poll_free(x->poll);
    loop_timer_free(x->timer);
    fd_close(&x->fd);
    buf_fini(&x->in);
    buf_fini(&x->out);
    free(x);
}

static void on_idle(void *arg) {
    client_free(arg);
}

static void on_view(void *user, const struct route_view *v) {
    struct client *x = user;
    bgp_report_route(x->c->proc, v, &x->out);
}

/* The next piece of a list of routes. */
static void walk(struct client *x) {
    struct speaker *s = bgp_proc_speaker(x->c->proc);
    while (x->is_walking && x->out.n < 65536 && !x->out.overflow) {
        if (x->sent_to) {
            speaker_sent_routes(s, x->sent_to, x->family, &x->at, PIECE_PREFIXES, on_view, x);
        } else {
            speaker_routes(s, x->family, &x->at, PIECE_PREFIXES, on_view, x);
        }
        x->is_walking = x->at != 0;
    }
    while (x->is_dumping && x->out.n < 65536 && !x->out.overflow) {
        x->is_dumping = mrt_dump_some(&x->dump, PIECE_PREFIXES, &x->out);
    }
}

/* ---- questions ---- */

static void fail(struct client *x, const char *fmt, ...) MG_PRINTF(2, 3);
static void fail(struct client *x, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    buf_printf(&x->out, "error %s\n", text);
}

static void ask_routes(struct client *x, struct str rest) {
    struct str family = str_cut(&rest, ' '), sent = str_cut(&rest, ' ');
    if (!str_is(family, "IPv4") && !str_is(family, "IPv6")) {
        fail(x, "found family %.*s, allowed are IPv4 and IPv6", STR_FMT(family));
        return;
    }
    if (str_is(sent, "sent")) {
        x->sent_to = bgp_report_find(x->c->proc, rest);
        if (!x->sent_to) {
            fail(x, "there is no peer %.*s", STR_FMT(rest));
            return;
        }
    }
    x->family = str_is(family, "IPv4") ? BGP_V4 : BGP_V6;
    x->is_walking = true;
    buf_puts(&x->out, "ok\n");
}

static void ask_explain(struct client *x, struct str rest) {
    struct prefix p;
    struct str net = str_cut(&rest, ' ');
    uint16_t peer = rest.n ? bgp_report_find(x->c->proc, rest) : 0;
    if (prefix_parse(net, &p) < 0) {
        fail(x, "found %.*s, allowed is a prefix or an address", STR_FMT(net));
    } else if (rest.n && !peer) {
        fail(x, "there is no peer %.*s", STR_FMT(rest));
    } else {
        buf_puts(&x->out, "ok\n");
        bgp_report_explain(x->c->proc, &p, peer, &x->out);
    }
}

static void ask_peer(struct client *x, struct str rest, bool is_reset) {
    struct speaker *s = bgp_proc_speaker(x->c->proc);
    uint16_t peer = bgp_report_find(x->c->proc, rest);
    if (!peer) {
        fail(x, "there is no peer %.*s", STR_FMT(rest));
        return;
    }
    int64_t now = loop_now_ns(x->c->loop);
    if (is_reset) {
        speaker_peer_reset(s, peer, false, STR("asked for by the operator"), now);
    } else {
        speaker_peer_refresh(s, peer, now);
    }
    bgp_proc_kick(x->c->proc);
    buf_puts(&x->out, "ok\n");
}

static void answer(struct client *x, struct str line) {
    struct str rest = line, what = str_cut(&rest, ' ');
    if (!bgp_proc_speaker(x->c->proc)) {
        fail(x, "there is no configuration yet: is the Node of this name in the datastore?");
    } else if (str_is(what, "status")) {
        buf_puts(&x->out, "ok\n");
        bgp_report_status(x->c->proc, loop_now_ns(x->c->loop), &x->out);
    } else if (str_is(what, "metrics")) {
        buf_puts(&x->out, "ok\n");
        bgp_report_metrics(x->c->proc, &x->out);
    } else if (str_is(what, "nodestatus")) {
        buf_puts(&x->out, "ok\n");
        bgp_report_node_status(x->c->proc, loop_now_ns(x->c->loop), rest, &x->out);
    } else if (str_is(what, "routes")) {
        ask_routes(x, rest);
    } else if (str_is(what, "explain")) {
        ask_explain(x, rest);
    } else if (str_is(what, "dump")) {
        buf_puts(&x->out, "ok\n");
        bgp_monitor_dump(bgp_proc_monitor(x->c->proc), &x->dump, &x->out);
        x->is_dumping = true;
    } else if (str_is(what, "reset") || str_is(what, "refresh")) {
        ask_peer(x, rest, str_is(what, "reset"));
    } else {
        fail(x,
             "found %.*s, allowed are status, routes, explain, metrics, nodestatus, dump, "
             "reset and refresh",
             STR_FMT(what));
    }
}

/* ---- connections ---- */

static void on_client(void *arg, unsigned events) {
    struct client *x = arg;
    char data[BGP_CTL_REQUEST_MAX];
    if ((events & LOOP_READ) && !x->out.n) {
        ssize_t n = recv(x->fd, data, sizeof(data), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            client_free(x);
            return;
        }
        buf_add(&x->in, data, n > 0 ? (size_t)n : 0);
        ptrdiff_t end = str_find(buf_view(&x->in), '\n', 0);
        if (end < 0 && !x->in.overflow) {
            return;
        }
        answer(x, str_trim(str_sub(buf_view(&x->in), 0, end < 0 ? 0 : (size_t)end)));
        loop_poll_set(x->poll, LOOP_WRITE);
    }
    walk(x);
    if (x->out.n) {
        ssize_t n = send(x->fd, x->out.p, x->out.n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            client_free(x);
            return;
        }
        if (n > 0) {
            buf_consume(&x->out, (size_t)n);
            loop_timer_start(x->timer, IDLE_MS, 0);
        }
    }
    if (!x->out.n && !x->is_walking && !x->is_dumping) {
        client_free(x);
    }
}

static void on_accept(void *arg, unsigned events) {
    struct bgp_ctl *c = arg;
    (void)events;
    int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    size_t i = 0;
    while (i < BGP_CTL_CONNECTIONS_MAX && c->clients[i]) {
        i++;
    }
    if (fd < 0 || i == BGP_CTL_CONNECTIONS_MAX) {
        fd_close(&fd);
        return;
    }
    struct client *x = calloc(1, sizeof(*x));
    mg_assert(x);
    x->c = c;
    x->fd = fd;
    x->in = BUF_INIT(BGP_CTL_REQUEST_MAX);
    x->out = BUF_INIT(ANSWER_MAX);
    x->poll = loop_poll_new(c->loop, fd, LOOP_READ, on_client, x);
    x->timer = loop_timer_new(c->loop, on_idle, x);
    loop_timer_start(x->timer, IDLE_MS, 0);
    c->clients[i] = x;
}

static bool is_served(const struct sockaddr_un *a) {
    MG_CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0;
}

int bgp_ctl_new(struct loop *l, struct bgp_proc *p, const char *run_dir, struct bgp_ctl **out,
                struct err *e) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/bgp.sock", run_dir);
    if (n < 0 || (size_t)n >= sizeof(a.sun_path)) {
        return err_set(e, ERR_INVALID, "the run dir's path is too long: %s", run_dir);
    }
    if (mkdir(run_dir, 0700) < 0 && errno != EEXIST) {
        return err_set(e, -errno, "making %s: %s", run_dir, err_name(-errno));
    }
    if (is_served(&a)) {
        return err_set(e, ERR_EXISTS,
                       "another margay bgp answers at %s: stop it, or give --run-dir", a.sun_path);
    }
    (void)unlink(a.sun_path); /* bind says if it is still there */
    MG_CLEANUP(fd_close)
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t old = umask(0177);
    int r =
        fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0 ? -errno : 0;
    (void)umask(old);
    if (r < 0) {
        return err_set(e, r, "making the socket %s: %s", a.sun_path, err_name(r));
    }
    struct bgp_ctl *c = calloc(1, sizeof(*c));
    mg_assert(c);
    c->loop = l;
    c->proc = p;
    c->path = strdup(a.sun_path);
    mg_assert(c->path);
    c->fd = TAKE_FD(fd);
    c->poll = loop_poll_new(l, c->fd, LOOP_READ, on_accept, c);
    *out = c;
    return 0;
}

void bgp_ctl_free(struct bgp_ctl *c) {
    if (!c) {
        return;
    }
    for (size_t i = 0; i < BGP_CTL_CONNECTIONS_MAX; i++) {
        if (c->clients[i]) {
            client_free(c->clients[i]);
        }
    }
    loop_poll_free(c->poll);
    fd_close(&c->fd);
    (void)unlink(c->path);
    free(c->path);
    free(c);
}
