/* Runs another plugin of CNI_PATH for the agent, as the CNI specification's "delegated plugins":
 * same environment, another CNI_COMMAND, configuration on stdin, result from stdout; stderr stays
 * ours. The agent names the type; where it may lie and what runs is decided here. */
#include "cni/plugin/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define ENV_MAX 2048

/* First regular, executable file of that name in the colon-separated folders. */
static bool find_plugin(const char *path, const char *type, char *out, size_t cap) {
    for (const char *p = path; *p != '\0';) {
        size_t n = strcspn(p, ":");
        struct stat st;
        int len = snprintf(out, cap, "%.*s/%s", (int)n, p, type);
        if (n > 0 && len > 0 && (size_t)len < cap && stat(out, &st) == 0 && S_ISREG(st.st_mode) &&
            access(out, X_OK) == 0) {
            return true;
        }
        p += n + (p[n] == ':' ? 1 : 0);
    }
    return false;
}

/* Our environment with another CNI_COMMAND. */
static int make_env(char *command, char **out) {
    size_t n = 0;
    for (char **e = environ; *e != NULL; e++) {
        if (strncmp(*e, "CNI_COMMAND=", 12) == 0) {
            continue;
        }
        if (n == ENV_MAX - 2) {
            return -E2BIG;
        }
        out[n++] = *e;
    }
    out[n++] = command;
    out[n] = NULL;
    return 0;
}

/* Starts the program with the two pipe ends as stdin and stdout: its pid or -errno. */
static int start(char *file, char **envp, int in_fd, int out_fd, pid_t *pid) {
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t defaults;
    char *argv[] = {file, NULL};
    if (posix_spawn_file_actions_init(&fa) != 0) {
        return -ENOMEM;
    }
    if (posix_spawnattr_init(&attr) != 0) {
        posix_spawn_file_actions_destroy(&fa);
        return -ENOMEM;
    }
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE); /* main() ignores it, and exec keeps that */
    int e = posix_spawnattr_setsigdefault(&attr, &defaults);
    e = e != 0 ? e : posix_spawnattr_setpgroup(&attr, 0); /* to be ended with its children */
    e = e != 0 ? e : posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    e = e != 0 ? e : posix_spawn_file_actions_adddup2(&fa, in_fd, STDIN_FILENO);
    e = e != 0 ? e : posix_spawn_file_actions_adddup2(&fa, out_fd, STDOUT_FILENO);
    e = e != 0 ? e : posix_spawn(pid, file, &fa, &attr, argv, envp);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&fa);
    return -e;
}

/* Writes a chunk of input; closes *fd at its end or when the program has stopped reading. */
static void feed(int *fd, const uint8_t **input, size_t *n) {
    ssize_t k = *n > 0 ? write(*fd, *input, *n) : 0;
    if (k > 0) {
        *input += k;
        *n -= (size_t)k;
    }
    bool is_over = k < 0 && errno != EAGAIN && errno != EINTR;
    if (*n == 0 || is_over) {
        plugin_close(fd);
    }
}

/* Feeds stdin and drains stdout until its end: 0, -ETIMEDOUT, -EMSGSIZE, -errno. */
static int pump(int *in_fd, int out_fd, const uint8_t *input, size_t n, int64_t deadline,
                uint8_t *out, size_t *out_bytes) {
    for (;;) {
        struct pollfd p[2] = {{out_fd, POLLIN, 0}, {*in_fd, POLLOUT, 0}};
        int64_t left = deadline - now_ms();
        int k = left > 0 ? poll(p, 2, (int)left) : 0;
        if (k == 0) {
            return -ETIMEDOUT;
        }
        if (k < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        if (p[1].revents != 0) {
            feed(in_fd, &input, &n);
        }
        if (p[0].revents == 0) {
            continue;
        }
        uint8_t beyond;
        bool is_full = *out_bytes == WIRE_TEXT_MAX;
        ssize_t got = is_full ? read(out_fd, &beyond, 1)
                              : read(out_fd, out + *out_bytes, WIRE_TEXT_MAX - *out_bytes);
        if (got == 0) {
            return 0;
        }
        if (got < 0) {
            if (errno == EINTR || errno == EAGAIN) {
                continue;
            }
            return -errno;
        }
        if (is_full) {
            return -EMSGSIZE;
        }
        *out_bytes += (size_t)got;
    }
}

/* Waits for the program's end, and ends it at the deadline or at once. */
static int reap(pid_t pid, bool now, int64_t deadline, int *status) {
    int rc = 0;
    long pause_us = 100;
    for (;;) {
        if (now || now_ms() >= deadline) {
            rc = -ETIMEDOUT;
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL); /* if it left its group */
        }
        pid_t got = waitpid(pid, status, rc < 0 ? 0 : WNOHANG);
        if (got == pid) {
            return rc;
        }
        if (got < 0 && errno != EINTR) {
            return -errno;
        }
        struct timespec t = {0, pause_us * 1000};
        nanosleep(&t, NULL);
        pause_us = pause_us < 10000 ? pause_us * 2 : 10000;
    }
}

static int run(char *file, char **envp, const uint8_t *input, size_t n, int64_t deadline,
               uint8_t *out, size_t *out_bytes, int *status) {
    int in[2], res[2];
    pid_t pid = -1;
    if (pipe2(in, O_CLOEXEC) < 0) {
        return -errno;
    }
    MG_CLEANUP(plugin_close) int in_theirs = in[0];
    MG_CLEANUP(plugin_close) int in_ours = in[1];
    if (pipe2(res, O_CLOEXEC) < 0) {
        return -errno;
    }
    MG_CLEANUP(plugin_close) int out_ours = res[0];
    MG_CLEANUP(plugin_close) int out_theirs = res[1];
    if (fcntl(in_ours, F_SETFL, O_NONBLOCK) < 0) {
        return -errno;
    }
    int rc = start(file, envp, in_theirs, out_theirs, &pid);
    if (rc < 0) {
        return rc;
    }
    plugin_close(&in_theirs);
    plugin_close(&out_theirs);
    rc = pump(&in_ours, out_ours, input, n, deadline, out, out_bytes);
    plugin_close(&in_ours);
    int reaped = reap(pid, rc < 0, deadline, status);
    return rc < 0 ? rc : reaped;
}

int delegate_run(const struct request *r, const char *type, const char *command,
                 const uint8_t *input, size_t input_bytes, int64_t deadline_ms, uint8_t *out,
                 size_t *out_bytes) {
    static char *envp[ENV_MAX];
    static char file[PATH_MAX];
    static char command_var[32]; /* as long as envp, which names it */
    struct fail f = {0};
    int status = 0;
    *out_bytes = 0;
    snprintf(command_var, sizeof(command_var), "CNI_COMMAND=%s", command);
    if (!find_plugin(r->cni_path, type, file, sizeof(file))) {
        fail_set(&f, CNI_BAD_CONFIG, "install it there, or change ipam.type",
                 "plugin \"%s\" is not in CNI_PATH=%.300s", type, r->cni_path);
    } else {
        int rc = make_env(command_var, envp);
        rc =
            rc < 0 ? rc : run(file, envp, input, input_bytes, deadline_ms, out, out_bytes, &status);
        if (rc < 0) {
            const char *why = rc == -ETIMEDOUT  ? "it did not end in time"
                              : rc == -EMSGSIZE ? "it printed more than 1 MiB"
                                                : strerror(-rc);
            fail_set(&f, CNI_IO, "run it by hand to see why", "plugin %.300s: %s", file, why);
        } else if (WIFSIGNALED(status)) {
            fail_set(&f, CNI_IO, "run it by hand to see why", "plugin %.300s: killed by signal %d",
                     file, WTERMSIG(status));
        }
    }
    if (f.code != 0) {
        *out_bytes = fail_json(&f, r->version, (char *)out, WIRE_TEXT_MAX);
        return 1;
    }
    return WEXITSTATUS(status);
}
