/* The agent's socket: one path for margay-cni (frames "MGC1") and the CLI (frames "MGA1"), told
 * apart by their first bytes; peers are root or the agent's own user. */
#pragma once

#include "base/err.h"
#include "base/loop.h"

struct listener;

struct listener_ops {
    void (*on_cni)(void *arg, int take_fd);
    void (*on_rpc)(void *arg, int take_fd);
};

/* Makes the folder (0700) if need be and the socket (0600). A socket of an agent that is alive is
 * refused by name; one that nobody serves is replaced. */
MG_NODISCARD int listener_new(struct loop *l, const char *path, const struct listener_ops *ops,
                              void *arg, struct listener **out, struct err *e);
/* Removes the socket. */
void listener_free(struct listener *l); /* accepts NULL */
