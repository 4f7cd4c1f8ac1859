/* File descriptors and small files. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

/* For MG_CLEANUP(fd_close). Accepts -1. */
void fd_close(int *fd);
MG_NODISCARD int fd_set_nonblock(int fd);
/* Reads a whole file of at most max bytes into b (appended). -errno, ERR_TOO_BIG. */
MG_NODISCARD int file_read(int dir_fd, const char *path, struct buf *b, size_t max);
/* Writes a file for others to read: temporary name in the same folder, fsync, rename. Never follows
 * a symlink at the target. */
MG_NODISCARD int file_replace(int dir_fd, const char *path, struct str content, unsigned mode);
/* Writes one line to a /proc/sys file: 0 or -errno. */
MG_NODISCARD int sysctl_write(const char *path, const char *value);

/* Settings of the host that a daemon changes are to be as they were before, once it is gone for
 * good: sysctl_change writes one if it is different, and before the first time what it was to
 * DIR/SYSCTL_JOURNAL, as a line "PATH VALUE". dir is set once; without it nothing is kept. 1: it
 * was changed, 0: it was so already, -errno. */
#define SYSCTL_JOURNAL "sysctl-before"
void sysctl_journal(const char *dir);
MG_NODISCARD int sysctl_change(const char *path, const char *value);
