/* File descriptors and small files. See fd.h. */
#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void fd_close(int *fd) {
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

int fd_set_nonblock(int fd) {
    int fl = fcntl(fd, F_GETFL);
    return fl < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0 ? -errno : 0;
}

int file_read(int dir_fd, const char *path, struct buf *b, size_t max) {
    enum { CHUNK = 65536 };
    MG_CLEANUP(fd_close) int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return -errno;
    }
    for (size_t total = 0;;) {
        /* One byte more than may be there shows that there is more. */
        char more, *p = &more;
        size_t room = b->max - b->n < max - total ? b->max - b->n : max - total;
        room = room < CHUNK ? room : CHUNK;
        if (room && !(p = buf_reserve(b, room))) {
            return ERR_TOO_BIG;
        }
        ssize_t n = read(fd, p, room ? room : 1);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : 0;
        }
        if (room == 0) {
            return ERR_TOO_BIG;
        }
        b->n += (size_t)n;
        total += (size_t)n;
    }
}

static int write_all(int fd, struct str s) {
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        s = str_sub(s, (size_t)n, s.n);
    }
    return 0;
}

int file_replace(int dir_fd, const char *path, struct str content, unsigned mode) {
    char tmp[512];
    if (snprintf(tmp, sizeof(tmp), "%s.tmp.%d", path, (int)getpid()) >= (int)sizeof(tmp)) {
        return -ENAMETOOLONG;
    }
    (void)unlinkat(dir_fd, tmp, 0);
    MG_CLEANUP(fd_close)
    int fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0) {
        return -errno;
    }
    int r = write_all(fd, content);
    if (r == 0 && fsync(fd) < 0) {
        r = -errno;
    }
    if (r == 0 && renameat(dir_fd, tmp, dir_fd, path) < 0) {
        r = -errno;
    }
    if (r < 0) {
        (void)unlinkat(dir_fd, tmp, 0);
    }
    return r;
}

int sysctl_write(const char *path, const char *value) {
    MG_CLEANUP(fd_close) int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -errno : write_all(fd, str_c(value));
}

static char journal[512];

void sysctl_journal(const char *dir) {
    if (snprintf(journal, sizeof(journal), "%s/" SYSCTL_JOURNAL, dir) >= (int)sizeof(journal)) {
        journal[0] = '\0';
    }
}

/* Adds a line for the setting, unless there is one already. */
static int keep(const char *path, struct str was) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1U << 20);
    int r = file_read(-1, journal, &b, 1U << 19);
    if (r < 0 && r != -ENOENT) {
        return r;
    }
    for (struct str rest = buf_view(&b); rest.p;) {
        struct str line = str_cut(&rest, '\n');
        if (str_is(str_cut(&line, ' '), path)) {
            return 0;
        }
    }
    buf_printf(&b, "%s %.*s\n", path, STR_FMT(was));
    return file_replace(AT_FDCWD, journal, buf_view(&b), 0600);
}

int sysctl_change(const char *path, const char *value) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1U << 17);
    int r = file_read(-1, path, &b, 64);
    struct str was = str_trim(buf_view(&b));
    if (r == 0 && str_is(was, value)) {
        return 0;
    }
    if (r == 0 && journal[0]) {
        r = keep(path, was);
        if (r < 0) {
            return r;
        }
    }
    r = sysctl_write(path, value);
    return r < 0 ? r : 1;
}
