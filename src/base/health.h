/* /liveness, /readiness and /metrics over HTTP (libmicrohttpd), on the agent's loop. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

struct health;

struct health_ops {
    bool (*is_live)(void *arg);
    bool (*is_ready)(void *arg);
    void (*metrics)(void *arg, struct buf *out); /* Prometheus text */
};

enum health_pages { HEALTH_PROBES = 1, HEALTH_METRICS = 2 };

/* host "" listens on all addresses. ERR with what is wrong when the port can't be had. */
MG_NODISCARD int health_new(struct loop *l, struct str host, uint16_t port, unsigned pages,
                            const struct health_ops *ops, void *arg, struct health **out,
                            struct err *e);
void health_free(struct health *h); /* accepts NULL */
