/* Addresses of Services of type LoadBalancer: from pools with allowedUses LoadBalancer, at most one
 * of each family, written to the Service's status. Source: kube-controllers'
 * pkg/controllers/loadbalancer. */
#pragma once

#include "base/ip.h"
#include "model/model.h"
#include "store/store.h"

/* What a Service asks for. */
struct lb_wish {
    bool is_managed; /* its addresses are ours to give */
    struct ip46 ips[2];
    size_t n_ips;             /* of projectcalico.org/loadBalancerIPs */
    bool has_pools;           /* of projectcalico.org/ipv4pools, ipv6pools */
    struct str_list pools[2]; /* IPv4, IPv6: names or CIDRs */
    bool wants[2];            /* a family */
};
/* ERR_INVALID names the annotation and what is wrong with it; is_managed is set even then. */
MG_NODISCARD int lb_read(const struct jnode *service, bool assigns_all, struct arena *a,
                         struct lb_wish *out, struct err *e);
/* "lb-…": who holds the addresses in the books. */
struct str lb_handle(struct str name, struct str ns, struct str uid, struct arena *a);

/* Makes books and status agree with what the Service, if it is still there, asks for. held: handles
 * that the books have for a Service of this name (an earlier one's, too). Blocks. */
MG_NODISCARD int lb_sync(struct store *source, struct store *target, struct str ns, struct str name,
                         bool assigns_all, const struct str *held, size_t n_held, struct err *e);
