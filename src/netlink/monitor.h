/* Changes of links, addresses, routes, neighbours and interface settings, as the kernel tells of
 * them, on the event loop. */
#pragma once

#include "base/loop.h"
#include "netlink/addr.h"
#include "netlink/link.h"
#include "netlink/neigh.h"
#include "netlink/route.h"

struct nl_monitor;

/* Settings of an interface that changed (forwarding, proxying). */
struct nl_netconf {
    int index;
    uint8_t family;                  /* enum ip_family */
    int32_t forwarding, proxy_neigh; /* LINK_CONF_UNKNOWN: not told */
};

/* Members may be NULL: then that kind of event is not subscribed to. */
struct nl_monitor_ops {
    void (*on_link)(void *arg, const struct link *l, bool is_gone);
    void (*on_addr)(void *arg, const struct addr *a, bool is_gone);
    void (*on_route)(void *arg, const struct route *r, bool is_gone);
    void (*on_neigh)(void *arg, const struct neigh *n, bool is_gone);
    void (*on_netconf)(void *arg, const struct nl_netconf *c);
    /* All that was waiting has been told: the place to act. */
    void (*on_batch_end)(void *arg);
    /* Events were lost: read everything again. */
    void (*on_resync)(void *arg);
};

/* Listens in the calling thread's network namespace. Caller owns *out; ops must outlive it. */
MG_NODISCARD int nl_monitor_new(struct loop *l, const struct nl_monitor_ops *ops, void *arg,
                                struct nl_monitor **out, struct err *e);
/* Tells all that is waiting, now: changes made by the caller are among it. on_batch_end is called
 * if there was anything. */
void nl_monitor_drain(struct nl_monitor *m);
void nl_monitor_free(struct nl_monitor *m); /* accepts NULL */
