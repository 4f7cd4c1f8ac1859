/* One command at a time, by posix_spawn and a pidfd. See command.h. */
#include "confd/command.h"

#include "base/clock.h"
#include "base/fd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int spawn(const char *command, int out_fd, pid_t *pid) {
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t none, dfl;
    sigemptyset(&none);
    sigemptyset(&dfl);
    sigaddset(&dfl, SIGPIPE);
    sigaddset(&dfl, SIGTERM);
    sigaddset(&dfl, SIGINT);
    sigaddset(&dfl, SIGHUP);
    char *argv[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
                    (char *)(uintptr_t)command, NULL};
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, out_fd, 1);
    posix_spawn_file_actions_adddup2(&fa, out_fd, 2);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &dfl);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
    int r = posix_spawn(pid, "/bin/sh", &fa, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&fa);
    return -r;
}

/* What is there to read, without waiting; the rest beyond the limit is thrown away. False: end. */
static bool drain(int fd, struct buf *out, size_t *left) {
    char chunk[4096];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n <= 0) {
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        }
        size_t take = (size_t)n < *left ? (size_t)n : *left;
        buf_add(out, chunk, take);
        *left -= take;
    }
}

static int describe(int status, struct err *e) {
    if (WIFEXITED(status)) {
        int code = WEXITSTATUS(status);
        return code == 0 ? 0 : err_set(e, ERR_INVALID, "exit status %d", code);
    }
    return err_set(e, ERR_INVALID, "ended by signal %d", WTERMSIG(status));
}

/* Until the shell has ended (0), or -ETIMEDOUT, -EINTR. */
static int wait_for(int pid_fd, int out_fd, int stop_fd, int64_t deadline_ns, struct buf *out) {
    size_t left = COMMAND_OUTPUT_MAX;
    struct pollfd p[3] = {{pid_fd, POLLIN, 0}, {out_fd, POLLIN, 0}, {stop_fd, POLLIN, 0}};
    for (;;) {
        int64_t now = clock_ns();
        int64_t ms = deadline_ns ? (deadline_ns - now + 999999) / 1000000 : -1;
        if (deadline_ns && ms <= 0) {
            return -ETIMEDOUT;
        }
        int n = poll(p, 3, ms > 60000 ? 60000 : (int)ms);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n > 0 && p[1].revents && !drain(out_fd, out, &left)) {
            p[1].fd = -1;
        }
        if (n > 0 && p[0].revents) {
            (void)drain(out_fd, out, &left);
            return 0;
        }
        if (n > 0 && p[2].revents) {
            return -EINTR;
        }
    }
}

int command_run(const char *command, int64_t timeout_s, int stop_fd, struct buf *out,
                struct err *e) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0) {
        return err_set(e, -errno, "pipe: %s", err_name(-errno));
    }
    MG_CLEANUP(fd_close) int out_fd = fds[0], in_fd = fds[1], pid_fd = -1;
    pid_t pid = -1;
    int r = fd_set_nonblock(out_fd);
    if (r == 0) {
        r = spawn(command, in_fd, &pid);
    }
    if (r < 0) {
        return err_set(e, r, "/bin/sh: %s", err_name(r));
    }
    fd_close(&in_fd);
    pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    r = pid_fd < 0 ? -errno
                   : wait_for(pid_fd, out_fd, stop_fd,
                              timeout_s ? clock_ns() + timeout_s * 1000000000 : 0, out);
    int status = 0;
    if (r < 0) {
        (void)kill(-pid, SIGKILL); /* the whole group; it may have gone meanwhile */
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (r == 0) {
        return describe(status, e);
    }
    return r == -ETIMEDOUT
               ? err_set(e, r, "took longer than %lld s and was killed", (long long)timeout_s)
           : r == -EINTR ? err_set(e, r, "was killed: confd ends")
                         : err_set(e, r, "waiting: %s", err_name(r));
}
