/* Names and addresses of the host's interfaces: host endpoints are found by them. */
#pragma once

#include "base/loop.h"
#include "dataplane/dataplane.h"

struct iface_watch;

/* on_change is called within, and whenever an address comes or goes; link-local addresses don't
 * count. v is sorted. NULL with e. */
struct iface_watch *iface_watch_new(struct loop *l,
                                    void (*on_change)(void *arg, const struct dataplane_iface *v,
                                                      size_t n),
                                    void *arg, struct err *e);
void iface_watch_free(struct iface_watch *w); /* accepts NULL */
