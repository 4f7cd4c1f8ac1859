/* Network namespaces by descriptor: a short visit of the calling thread, and questions about them.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>

/* Moves the calling thread into the namespace; *own_fd gets the way back. On failure the thread
 * stays where it is. */
MG_NODISCARD int netns_enter(int netns_fd, int *own_fd);
/* Moves the thread back; closing own_fd stays with its owner. Aborts when that fails: a process in
 * the wrong namespace must not go on. */
void netns_leave(int own_fd);
/* Is the descriptor a network namespace? 0, ERR_INVALID or -errno. */
MG_NODISCARD int netns_check(int netns_fd);
/* 1: the same namespace as the calling thread's, 0: another, negative: can't be told. */
MG_NODISCARD int netns_is_own(int netns_fd);
