#include "kernel.h"

#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SKIPPED = 77 }; /* meson's word for it */

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* ---- namespaces ---- */

int side_netns(void) {
    if (unshare(CLONE_NEWNET) < 0) {
        perror("a network namespace");
        exit(errno == EPERM ? SKIPPED : 1);
    }
    int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        die("/proc/self/ns/net");
    }
    return fd;
}

void side_enter(int netns) {
    if (setns(netns, CLONE_NEWNET) < 0) {
        die("setns");
    }
}

/* ---- tools ---- */

double tool_us(int netns, const char *in, const char *out, const char *const argv[]) {
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, in ? in : "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, 1, out ? out : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC,
                                     0600);
    side_enter(netns);
    int64_t begin = clock_ns();
    pid_t pid;
    int status, r = posix_spawnp(&pid, argv[0], &fa, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    if (r == ENOENT) {
        return -1;
    }
    if (r != 0 || waitpid(pid, &status, 0) < 0 || status != 0) {
        fprintf(stderr, "%s failed\n", argv[0]);
        exit(1);
    }
    return (double)(clock_ns() - begin) / 1000;
}

/* ---- messages again ---- */

static struct {
    bool is_on;
    char *p;
    size_t n;
    struct {
        size_t from, to;
    } sent[64];
    size_t n_sent;
} record;

/* Ours takes the place of libc's in this program: all that the netlink code sends comes by here. */
ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to,
               socklen_t to_len) {
    if (record.is_on && record.n_sent < sizeof(record.sent) / sizeof(*record.sent) &&
        n > sizeof(struct nlmsghdr) &&
        ((const struct nlmsghdr *)p)->nlmsg_type == NFNL_MSG_BATCH_BEGIN) {
        record.p = realloc(record.p, record.n + n);
        if (!record.p) {
            die("memory");
        }
        memcpy(record.p + record.n, p, n);
        record.sent[record.n_sent].from = record.n;
        record.n += n;
        record.sent[record.n_sent++].to = record.n;
    }
    return syscall(SYS_sendto, fd, p, n, flags, to, to_len);
}

void record_start(void) {
    record.n = record.n_sent = 0;
    record.is_on = true;
}
void record_stop(void) {
    record.is_on = false;
}
size_t record_bytes(void) {
    return record.n;
}

/* Ends the program if the kernel refused anything. */
static void take_answers(int fd) {
    _Alignas(struct nlmsghdr) static char answer[1 << 16];
    ssize_t n;
    while ((n = recv(fd, answer, sizeof(answer), MSG_DONTWAIT)) > 0) {
        for (ssize_t at = 0; at + (ssize_t)sizeof(struct nlmsghdr) <= n;) {
            const struct nlmsghdr *h = (const void *)(answer + at);
            if (h->nlmsg_type == NLMSG_ERROR) {
                errno = -((const struct nlmsgerr *)(const void *)(h + 1))->error;
                if (errno) {
                    die("the same messages again");
                }
            }
            at += NLMSG_ALIGN(h->nlmsg_len);
        }
    }
}

double record_replay_us(int netns) {
    side_enter(netns);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    int room = 1 << 30;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0) {
        die("netlink");
    }
    int64_t begin = clock_ns();
    for (size_t i = 0; i < record.n_sent; i++) {
        if (sendto(fd, record.p + record.sent[i].from, record.sent[i].to - record.sent[i].from, 0,
                   (struct sockaddr *)&kernel, sizeof(kernel)) < 0) {
            die("netlink");
        }
        take_answers(fd);
    }
    double us = (double)(clock_ns() - begin) / 1000;
    close(fd);
    return us;
}

/* ---- the rest ---- */

static int us_cmp(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

void print_us(const char *name, double *us, size_t n) {
    if (n == 0 || us[0] < 0) {
        return;
    }
    qsort(us, n, sizeof(*us), us_cmp);
    printf("%s %.1f %.1f\n", name, us[n / 2], us[n * 99 / 100]);
}

static char temp_folder[256];

static void remove_temp(void) {
    DIR *d = opendir(temp_folder);
    for (const struct dirent *f = d ? readdir(d) : NULL; f; f = readdir(d)) {
        unlinkat(dirfd(d), f->d_name, 0);
    }
    if (d) {
        closedir(d);
    }
    rmdir(temp_folder);
}

const char *temp_path(const char *name) {
    static char paths[16][sizeof(temp_folder) + 64];
    static size_t n;
    if (!temp_folder[0]) {
        const char *base = getenv("TMPDIR");
        snprintf(temp_folder, sizeof(temp_folder), "%s/margay-bench-XXXXXX", base ? base : "/tmp");
        if (!mkdtemp(temp_folder)) {
            die(temp_folder);
        }
        atexit(remove_temp);
    }
    if (n == sizeof(paths) / sizeof(*paths)) {
        abort();
    }
    snprintf(paths[n], sizeof(paths[n]), "%s/%s", temp_folder, name);
    return paths[n++];
}
