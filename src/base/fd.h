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
