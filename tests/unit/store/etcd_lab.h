/* A real etcd for tests: members on free ports of 127.0.0.1, data below a folder of the test's. */
#pragma once

#include "base/attr.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LAB_MEMBERS_MAX = 3 };

struct lab_member {
    pid_t pid; /* 0: not running */
    int client_port, peer_port;
};
struct lab {
    char dir[64];
    int n;
    struct lab_member m[LAB_MEMBERS_MAX];
    const char *scheme;      /* of clients */
    const char *const *more; /* further arguments of etcd, NULL-terminated, or NULL */
    char url[512];           /* "http://…,http://…" */
};

static inline int lab_free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    mg_assert(fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    mg_assert(getsockname(fd, (struct sockaddr *)&sa, &len) == 0);
    close(fd);
    return ntohs(sa.sin_port);
}

/* Runs a program with its output in dir/NAME.log; the child dies with the test. */
static inline pid_t lab_spawn(const char *dir, const char *log, char *const argv[]) {
    pid_t pid = fork();
    mg_assert(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        char path[160];
        (void)snprintf(path, sizeof(path), "%s/%s.log", dir, log);
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd >= 0) {
            (void)dup2(fd, 1);
            (void)dup2(fd, 2);
        }
        (void)execvp(argv[0], argv);
        _exit(127);
    }
    return pid;
}

static inline void lab_start(struct lab *b, int i) {
    char name[8], data[128], client[64], peer[64], cluster[512] = "";
    size_t n = 0;
    for (int k = 0; k < b->n; k++) {
        n += (size_t)snprintf(cluster + n, sizeof(cluster) - n, "%sm%d=http://127.0.0.1:%d",
                              k ? "," : "", k, b->m[k].peer_port);
    }
    (void)snprintf(name, sizeof(name), "m%d", i);
    (void)snprintf(data, sizeof(data), "%s/%s", b->dir, name);
    (void)snprintf(client, sizeof(client), "%s://127.0.0.1:%d", b->scheme, b->m[i].client_port);
    (void)snprintf(peer, sizeof(peer), "http://127.0.0.1:%d", b->m[i].peer_port);
    const char *argv[48] = {"etcd",  "--name",
                            name,    "--data-dir",
                            data,    "--listen-client-urls",
                            client,  "--advertise-client-urls",
                            client,  "--listen-peer-urls",
                            peer,    "--initial-advertise-peer-urls",
                            peer,    "--initial-cluster",
                            cluster, "--unsafe-no-fsync",
                            NULL};
    size_t k = 0;
    while (argv[k]) {
        k++;
    }
    for (const char *const *m = b->more; m && *m; m++) {
        argv[k++] = *m;
    }
    b->m[i].pid = lab_spawn(b->dir, name, (char *const *)(uintptr_t)argv);
}

/* Members are started, not waited for: the store's own calls do that. */
static inline void lab_open(struct lab *b, int n, const char *scheme, const char *const *more) {
    *b = (struct lab){.n = n, .scheme = scheme, .more = more};
    (void)snprintf(b->dir, sizeof(b->dir), "/tmp/margay-etcd-XXXXXX");
    mg_assert(mkdtemp(b->dir) != NULL);
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        b->m[i].client_port = lab_free_port();
        b->m[i].peer_port = lab_free_port();
        at += (size_t)snprintf(b->url + at, sizeof(b->url) - at, "%s%s://127.0.0.1:%d",
                               i ? "," : "", scheme, b->m[i].client_port);
    }
}

static inline void lab_start_all(struct lab *b) {
    for (int i = 0; i < b->n; i++) {
        lab_start(b, i);
    }
}

static inline void lab_signal(struct lab *b, int i, int signum) {
    if (b->m[i].pid) {
        (void)kill(b->m[i].pid, signum);
    }
}

static inline void lab_stop(struct lab *b, int i) {
    if (b->m[i].pid) {
        (void)kill(b->m[i].pid, SIGCONT);
        (void)kill(b->m[i].pid, SIGKILL);
        (void)waitpid(b->m[i].pid, NULL, 0);
        b->m[i].pid = 0;
    }
}

/* Exit status of a program. */
static inline int lab_run(const char *dir, char *const argv[]) {
    int status = -1;
    pid_t pid = lab_spawn(dir, "run", argv);
    (void)waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* etcdctl with words split at blanks, on all endpoints. */
static inline int lab_ctl(struct lab *b, const char *words) {
    char text[1024], endpoints[600];
    char *argv[40] = {NULL};
    size_t n = 0;
    (void)snprintf(endpoints, sizeof(endpoints), "--endpoints=%s", b->url);
    (void)snprintf(text, sizeof(text), "%s", words);
    argv[n++] = (char *)(uintptr_t) "etcdctl";
    argv[n++] = endpoints;
    for (char *save = NULL, *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        argv[n++] = w;
    }
    (void)setenv("ETCDCTL_API", "3", 1);
    return lab_run(b->dir, argv);
}

static inline void lab_close(struct lab *b) {
    for (int i = 0; i < b->n; i++) {
        lab_stop(b, i);
    }
    char *argv[] = {(char *)(uintptr_t) "rm", (char *)(uintptr_t) "-rf", b->dir, NULL};
    (void)lab_run("/tmp", argv);
}
