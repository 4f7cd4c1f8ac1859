/* check_cmd and reload_cmd: a shell command that can neither hang the process nor fill its memory.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

enum { COMMAND_OUTPUT_MAX = 64 << 10 };

/* Runs `/bin/sh -c command` in a process group of its own, standard input empty, and appends what
 * it printed (the first COMMAND_OUTPUT_MAX bytes) to out. timeout_s 0: none. stop_fd (-1: none):
 * becomes readable when the caller must end. 0 if it exited with 0; else an error that says how it
 * ended: ERR_INVALID, -ETIMEDOUT, -EINTR; the group is killed in the last two cases. A command that
 * leaves something in the background has ended when its shell has. Blocks. */
MG_NODISCARD int command_run(const char *command, int64_t timeout_s, int stop_fd, struct buf *out,
                             struct err *e);
