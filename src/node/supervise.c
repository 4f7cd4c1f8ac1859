/* See supervise.h. A process that ends soon after its start is started again later and later. */
#include "node/supervise.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGS_MAX = 16, DELAY_MIN_MS = 200, DELAY_MAX_MS = 30000, STABLE_MS = 60000, LOOK_MS = 100 };

struct supervise {
    struct loop *loop;
    struct loop_timer *timer;
    char *name, *argv[ARGS_MAX + 1];
    pid_t pid; /* 0: none runs */
    int64_t started_ns, delay_ms;
    unsigned n_restarts;
};

static void begin(struct supervise *s) {
    s->started_ns = clock_ns();
    pid_t pid = fork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM); /* no speaker without an agent */
        execv(s->argv[0], s->argv);
        _exit(127);
    }
    s->pid = pid > 0 ? pid : 0;
    LOG_I("node", "started", "process=%s pid=%d", s->name, (int)pid);
    loop_timer_start(s->timer, LOOK_MS, LOOK_MS);
}

static void ended(struct supervise *s, int status) {
    int64_t ran_ms = (clock_ns() - s->started_ns) / 1000000;
    s->pid = 0;
    s->n_restarts++;
    s->delay_ms = ran_ms > STABLE_MS || !s->delay_ms ? DELAY_MIN_MS : s->delay_ms * 2;
    s->delay_ms = s->delay_ms > DELAY_MAX_MS ? DELAY_MAX_MS : s->delay_ms;
    LOG_W("node", "ended", "process=%s status=%d signal=%d again_in_ms=%lld", s->name,
          WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
          (long long)s->delay_ms);
    loop_timer_start(s->timer, s->delay_ms, 0);
}

static void on_timer(void *arg) {
    struct supervise *s = arg;
    int status = 0;
    if (!s->pid) {
        begin(s);
        return;
    }
    pid_t r = waitpid(s->pid, &status, WNOHANG);
    if (r == s->pid || (r < 0 && errno == ECHILD)) {
        ended(s, status);
    }
}

struct supervise *supervise_new(struct loop *l, const char *name, const char *const *argv) {
    struct supervise *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->loop = l;
    s->name = strdup(name);
    mg_assert(s->name != NULL);
    for (size_t i = 0; argv[i]; i++) {
        mg_assert(i < ARGS_MAX);
        s->argv[i] = strdup(argv[i]);
        mg_assert(s->argv[i] != NULL);
    }
    s->timer = loop_timer_new(l, on_timer, s);
    begin(s);
    return s;
}

void supervise_free(struct supervise *s) {
    if (!s) {
        return;
    }
    loop_timer_free(s->timer);
    if (s->pid) {
        (void)kill(s->pid, SIGTERM); /* gone already is fine */
        (void)waitpid(s->pid, NULL, WNOHANG);
    }
    for (size_t i = 0; s->argv[i]; i++) {
        free(s->argv[i]);
    }
    free(s->name);
    free(s);
}

unsigned supervise_restarts(const struct supervise *s, int *pid) {
    *pid = (int)s->pid;
    return s->n_restarts;
}
