/* calico/node's default pools: which networks an empty datastore gets, from CALICO_IPV4POOL_…,
 * CALICO_IPV6POOL_… and kubeadm's configuration. Values in, documents out; what the host and the
 * datastore have is gathered by defaults.c. Source: node/pkg/lifecycle/startup, configureIPPools.
 *
 * Unlike Calico no pool is made that overlaps a route of the host or the services' range: packets
 * to one of the two would go to the other. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/ip.h"
#include "base/jtree.h"

/* A network that is in use. */
struct pool_taken {
    struct prefix net;
    struct str what; /* "route of the host by eth0" */
};

struct pool_world {
    const char *(*env)(const char *name); /* NULL if unset or empty, */
    const struct pool_taken *taken;
    size_t n_taken;
    struct prefix kubeadm[2]; /* podSubnet, IPv4 and IPv6; IP_NONE: none */
    bool has_pool[2];         /* of the family, in the datastore */
    bool has_ipv6;            /* the kernel */
    uint8_t random[5];        /* of the ULA network (RFC 4193 section 3.2.2: 40 bits) */
};

struct pool_wanted {
    const char *name;   /* default-ipv4-ippool; NULL: none is made */
    struct jnode *spec; /* in the arena */
};

/* out: IPv4, IPv6. ERR_INVALID names the variable, what it says and what is allowed. */
MG_NODISCARD int default_pools(const struct pool_world *w, struct arena *a,
                               struct pool_wanted out[2], struct err *e);

/* podSubnet and serviceSubnet of a kubeadm ClusterConfiguration (text of ConfigMap kubeadm-config);
 * what can't be read is IP_NONE. */
void kubeadm_subnets(struct str text, struct prefix pods[2], struct prefix services[2]);
