/* Which of the host's addresses is the node's: calico/node's methods. The choice is a pure function
 * of the interfaces; only can-reach asks the kernel. Source: node/pkg/lifecycle/startup/
 * autodetection. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/ip.h"

struct host_iface {
    char name[16];
    bool is_up;
    struct prefix addr; /* one entry an address, in the kernel's order */
};

struct detect_rejected {
    struct str iface;
    struct prefix addr;
    struct str why;
};
/* Why the others were not taken, for status. */
struct detect_report {
    struct detect_rejected *p;
    size_t n;
};

enum { DETECT_MAX_REJECTED = 32 };

/* method: first-found (""), interface=RE[,…], skip-interface=RE[,…], cidr=CIDR[,…], can-reach=DEST,
 * kubernetes-internal-ip (internal_ip: that of the Kubernetes Node; may be IP_NONE).
 * ERR_INVALID: not a method; ERR_NOT_FOUND: no address fits, e says what was looked at. report (may
 * be NULL) lives in a. */
MG_NODISCARD int detect_address(struct str method, enum ip_family family,
                                const struct host_iface *v, size_t n,
                                const struct ip46 *internal_ip, struct arena *a, struct prefix *out,
                                struct detect_report *report, struct err *e);
