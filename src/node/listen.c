#include "node/listen.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/vec.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 256, WAITING_MAX = 256, HELLO_MS = 10000 };

/* A connection whose first bytes have not come yet. */
struct waiting {
    struct listener *l;
    int fd;
    struct loop_poll *poll;
    struct loop_timer *timer;
};

struct listener {
    struct loop *loop;
    char *path;
    int fd;
    struct loop_poll *poll;
    struct listener_ops ops;
    void *arg;
    VEC(struct waiting *) waiting;
};

static void waiting_free(struct waiting *w) {
    for (size_t i = 0; i < w->l->waiting.n; i++) {
        if (w->l->waiting.p[i] == w) {
            vec_swap_remove(&w->l->waiting, i);
            break;
        }
    }
    loop_poll_free(w->poll);
    loop_timer_free(w->timer);
    fd_close(&w->fd);
    free(w);
}

static void on_timeout(void *arg) {
    waiting_free(arg);
}

/* Hands the connection on once its first four bytes are there; they are only peeked at. */
static void on_hello(void *arg, unsigned events) {
    struct waiting *w = arg;
    (void)events;
    char head[4];
    ssize_t n = recv(w->fd, head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    struct listener *l = w->l;
    void (*to)(void *, int) = NULL;
    if (n == sizeof(head) && memcmp(head, "MGC1", 4) == 0) {
        to = l->ops.on_cni;
    } else if (n == sizeof(head) && memcmp(head, "MGA1", 4) == 0) {
        to = l->ops.on_rpc;
    } else if (n > 0 && n < (ssize_t)sizeof(head)) {
        return;
    }
    loop_poll_free(w->poll); /* before the descriptor gets another one */
    w->poll = NULL;
    int fd = TAKE_FD(w->fd);
    if (to) {
        waiting_free(w);
        to(l->arg, fd);
    } else {
        close(fd);
        waiting_free(w);
    }
}

static bool is_allowed(int fd) {
    struct ucred cred;
    socklen_t n = sizeof(cred);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0) {
        return false;
    }
    if (cred.uid == 0 || cred.uid == geteuid()) {
        return true;
    }
    static struct log_limit limit;
    if (log_allow(&limit, 5, 60)) {
        LOG_W("socket", "peer_refused", "uid=%u pid=%d", cred.uid, cred.pid);
    }
    return false;
}

static void on_accept(void *arg, unsigned events) {
    struct listener *l = arg;
    (void)events;
    for (;;) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            return;
        }
        if (!is_allowed(fd) || l->waiting.n >= WAITING_MAX) {
            close(fd);
            continue;
        }
        struct waiting *w = calloc(1, sizeof(*w));
        mg_assert(w != NULL);
        *w = (struct waiting){.l = l, .fd = fd};
        vec_push(&l->waiting, w);
        w->poll = loop_poll_new(l->loop, fd, LOOP_READ, on_hello, w);
        w->timer = loop_timer_new(l->loop, on_timeout, w);
        loop_timer_start(w->timer, HELLO_MS, 0);
        on_hello(w, LOOP_READ); /* most have sent by now */
    }
}

static bool is_served(const struct sockaddr_un *sa) {
    MG_CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 ||
                       errno == EAGAIN || errno == EINPROGRESS);
}

static void make_folder(const char *path) {
    char dir[PATH_MAX];
    snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash && slash != dir) {
        *slash = 0;
        (void)mkdir(dir, 0700); /* bind says what is wrong with it */
    }
}

int listener_new(struct loop *loop, const char *path, const struct listener_ops *ops, void *arg,
                 struct listener **out, struct err *e) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(sa.sun_path)) {
        return err_set(e, ERR_INVALID,
                       "socket %s: path of %zu bytes, at most %zu are allowed; choose a shorter "
                       "--run-dir",
                       path, strlen(path), sizeof(sa.sun_path) - 1);
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    make_folder(path);
    struct stat st;
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode)) {
            return err_set(e, ERR_EXISTS, "%s: in the way of the socket: not a socket", path);
        }
        if (is_served(&sa)) {
            return err_set(e, -EBUSY,
                           "%s: another agent answers there; stop it first, or choose "
                           "another --run-dir",
                           path);
        }
        (void)unlink(path); /* left by one that was killed */
    }
    MG_CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0177);
    int r = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&sa, sizeof(sa));
    int err = errno;
    (void)umask(mask);
    if (r < 0 || listen(fd, BACKLOG) < 0) {
        err = r < 0 ? err : errno;
        return err_set(e, -err, "socket %s: %s", path, strerror(err));
    }
    struct listener *l = calloc(1, sizeof(*l));
    mg_assert(l != NULL);
    l->loop = loop;
    l->path = strdup(path);
    mg_assert(l->path != NULL);
    l->ops = *ops;
    l->arg = arg;
    l->fd = TAKE_FD(fd);
    l->poll = loop_poll_new(loop, l->fd, LOOP_READ, on_accept, l);
    *out = l;
    return 0;
}

void listener_free(struct listener *l) {
    if (!l) {
        return;
    }
    while (l->waiting.n) {
        waiting_free(l->waiting.p[0]);
    }
    vec_fini(&l->waiting);
    loop_poll_free(l->poll);
    fd_close(&l->fd);
    (void)unlink(l->path); /* the next start replaces it otherwise */
    free(l->path);
    free(l);
}
