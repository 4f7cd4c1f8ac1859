#include "cli/netns.h"

#include "base/fd.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef NSFS_MAGIC
#define NSFS_MAGIC 0x6e736673
#endif

#define NETNS_DIR "/run/netns"

/* Runs f in a child that is in process 1's mount namespace; its errno comes back. */
static int in_first_mount_ns(int (*f)(const char *path), const char *name) {
    char path[300];
    snprintf(path, sizeof(path), NETNS_DIR "/%s", name);
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        return -errno;
    }
    if (pid == 0) {
        int fd = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
        /* Without it (a container with a /proc of its own) the mount is ours alone. */
        if (fd >= 0) {
            (void)!setns(fd, CLONE_NEWNS);
        }
        int r = f(path);
        _exit(r < 0 ? -r & 0xff : 0);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

static int make(const char *path) {
    if (mkdir(NETNS_DIR, 0755) < 0 && errno != EEXIST) {
        return -errno;
    }
    /* As ip netns does: mounts below it must reach other mount namespaces. */
    if (mount("", NETNS_DIR, "none", MS_SHARED | MS_REC, NULL) < 0) {
        if (errno != EINVAL || mount(NETNS_DIR, NETNS_DIR, "none", MS_BIND | MS_REC, NULL) < 0 ||
            mount("", NETNS_DIR, "none", MS_SHARED | MS_REC, NULL) < 0) {
            return -errno;
        }
    }
    int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    close(fd);
    if (unshare(CLONE_NEWNET) < 0 || mount("/proc/self/ns/net", path, "none", MS_BIND, NULL) < 0) {
        int err = errno;
        (void)unlink(path); /* the first error counts */
        return -err;
    }
    return 0;
}

static int drop(const char *path) {
    if (umount2(path, MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT) {
        return -errno;
    }
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int netns_make(const char *name, struct err *e) {
    int r = in_first_mount_ns(make, name);
    if (r == -EEXIST) {
        return err_set(e, ERR_EXISTS,
                       "network namespace %s already exists: remove it with 'ip netns "
                       "del %s' if nothing uses it",
                       name, name);
    }
    return r < 0 ? err_set(e, r, "network namespace %s: %s%s", name, strerror(-r),
                           r == -EPERM ? "; run as root" : "")
                 : 0;
}

int netns_remove(const char *name, struct err *e) {
    int r = in_first_mount_ns(drop, name);
    return r < 0 ? err_set(e, r, "network namespace %s: %s", name, strerror(-r)) : 0;
}

static int open_ns(const char *path) {
    struct statfs st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 &&
        (fstatfs(fd, &st) < 0 || (st.f_type != NSFS_MAGIC && st.f_type != PROC_SUPER_MAGIC))) {
        close(fd);
        errno = EINVAL;
        return -1;
    }
    return fd;
}

int netns_get(const char *name, struct err *e) {
    char path[400];
    const char *prefix = name[0] == '/' ? "" : NETNS_DIR "/";
    snprintf(path, sizeof(path), "%s%s", prefix, name);
    int fd = open_ns(path);
    if (fd < 0) { /* mounted after our own mount namespace was made */
        snprintf(path, sizeof(path), "/proc/1/root%s%s", prefix, name);
        fd = open_ns(path);
    }
    if (fd < 0) {
        int err = errno;
        return err_set(e, -err, "network namespace %s: %s", name,
                       err == EINVAL ? "not a namespace" : strerror(err));
    }
    return fd;
}
