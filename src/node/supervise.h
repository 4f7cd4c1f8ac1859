/* The BGP speaker beside the agent: a process of its own, `margay bgp`, that the agent starts and
 * starts again. Whatever becomes of it, pods and their policies are not touched. */
#pragma once

#include "base/loop.h"
#include "base/str.h"

struct supervise;

/* argv[0] is the program's path; the list ends with NULL and is copied. name: for logs. */
struct supervise *supervise_new(struct loop *l, const char *name, const char *const *argv);
/* Ends it with SIGTERM; what it does then, it does alone. */
void supervise_free(struct supervise *s); /* accepts NULL */
/* How often it has ended by itself; *pid: 0 while it waits for its next start. */
unsigned supervise_restarts(const struct supervise *s, int *pid);
