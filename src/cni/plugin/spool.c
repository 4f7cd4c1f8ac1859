/* Leaves a DEL on disk for an agent that isn't there (format and promises: cni/wire.h). When this
 * returns 0 the file and its name have been flushed. Only folders that belong to us and that no
 * one else can write are used, and no symlink in their place is followed: the agent will carry
 * out what it finds there. */
#include "cni/plugin/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

static uint8_t frame[WIRE_HEADER_BYTES + WIRE_BODY_MAX];

/* Opens folder `name` below dir_fd, made if it isn't there: a descriptor or -errno. -EPERM: it
 * is another's, or others can write to it. */
static int open_folder(int dir_fd, const char *name) {
    struct stat st;
    bool made = mkdirat(dir_fd, name, 0700) == 0;
    if (!made && errno != EEXIST) {
        return -errno;
    }
    MG_CLEANUP(plugin_close)
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return -errno;
    }
    if (st.st_uid != geteuid() || (st.st_mode & 022) != 0) {
        return -EPERM;
    }
    if (made && fsync(dir_fd) < 0) {
        return -errno;
    }
    return TAKE_FD(fd);
}

/* Makes and opens the state folder. Those above it belong to the system and may be symlinks. */
static int open_state_dir(const char *path) {
    char parent[sizeof(((struct conf *)0)->state_dir)];
    size_t n = strlen(path);
    memcpy(parent, path, n + 1);
    while (n > 1 && parent[n - 1] == '/') {
        parent[--n] = '\0';
    }
    for (size_t i = 1; i < n; i++) {
        if (parent[i] == '/') {
            parent[i] = '\0';
            (void)mkdir(parent, 0755); /* if it fails, the open below says so */
            parent[i] = '/';
        }
    }
    char *name = strrchr(parent, '/');
    *name++ = '\0';
    MG_CLEANUP(plugin_close)
    int fd = open(parent[0] == '\0' ? "/" : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return -EINVAL;
    }
    return open_folder(fd, name);
}

static int write_all(int fd, const uint8_t *p, size_t n) {
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return k < 0 ? -errno : -EIO;
        }
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

/* Temporary name, flush, rename, flush of the folder. Leaves nothing behind on failure. */
static int write_file(int dir_fd, const uint8_t *p, size_t n) {
    char temp[80];
    const char *name = temp + 1; /* the temporary name is the final one behind a dot */
    uint64_t random = 0;
    struct timespec t;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        return -errno;
    }
    clock_gettime(CLOCK_REALTIME, &t);
    snprintf(temp, sizeof(temp), ".%020lld-%016llx" WIRE_SPOOL_SUFFIX,
             (long long)t.tv_sec * 1000000000 + t.tv_nsec, (unsigned long long)random);
    MG_CLEANUP(plugin_close)
    int fd = openat(dir_fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    int rc = write_all(fd, p, n);
    if (rc == 0 && fsync(fd) < 0) {
        rc = -errno;
    }
    if (rc == 0 && renameat(dir_fd, temp, dir_fd, name) < 0) {
        rc = -errno;
    }
    if (rc < 0) {
        (void)unlinkat(dir_fd, temp, 0); /* the first error is the one to tell */
        return rc;
    }
    return fsync(dir_fd) < 0 ? -errno : 0;
}

int spool_request(const struct request *r, struct fail *f) {
    MG_CLEANUP(plugin_close) int state_fd = open_state_dir(r->state_dir);
    MG_CLEANUP(plugin_close) int fd = state_fd < 0 ? state_fd : open_folder(state_fd, WIRE_SPOOL);
    int rc = fd < 0 ? fd : write_file(fd, frame, request_encode(r, false, frame));
    if (rc == 0) {
        return 0;
    }
    bool is_foreign = rc == -EPERM || rc == -ELOOP || rc == -ENOTDIR;
    return fail_set(f, CNI_IO, "start the agent (margay node), or repair the folder",
                    "no agent at %s, and the DEL can't be queued in %.300s/%s: %s", r->socket,
                    r->state_dir, WIRE_SPOOL,
                    is_foreign ? "it must be a folder, no link, ours and writable by us alone"
                               : strerror(-rc));
}
