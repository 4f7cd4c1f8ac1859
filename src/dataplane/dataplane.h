/* The dataplane: desired state in (struct calc_ops), kernel made so, drift repaired.
 *
 * Everything lives in one nftables table, `inet margay`. State is collected between flushes; a
 * flush is one transaction that holds only the difference. The first flush, and any after somebody
 * else touched the table, reads what the kernel holds and writes what differs. The shape of the
 * table: docs/architecture.md. */
#pragma once

#include "base/loop.h"
#include "policy/calc.h"

struct dataplane;
struct links;

enum { DATAPLANE_MAX_PREFIXES = 8 };

enum endpoint_to_host { TO_HOST_DROP, TO_HOST_RETURN, TO_HOST_ACCEPT };

/* What becomes of denied packets. */
enum deny_action { DENY_DROP, DENY_REJECT };
/* Felix' dropActionOverride: for trying policies out. */
enum drop_override { OVERRIDE_DROP, OVERRIDE_ACCEPT, OVERRIDE_LOG_DROP, OVERRIDE_LOG_ACCEPT };

/* A port of the host that no policy can close. */
struct dataplane_failsafe {
    struct prefix net; /* of the other side; family IP_NONE: any */
    uint16_t port;
    uint8_t protocol; /* IANA number */
};
enum { DATAPLANE_LOG_GROUP = 4790 }; /* NFLOG group of rules with action Log */

struct dataplane_settings {
    struct str iface_prefixes[DATAPLANE_MAX_PREFIXES]; /* of pods' host side; at least one */
    size_t n_iface_prefixes;
    enum endpoint_to_host endpoint_to_host; /* Felix' defaultEndpointToHostAction */
    bool has_no_invalid_check;              /* Felix' disableConntrackInvalidCheck */
    bool may_spoof;                         /* Felix' workloadSourceSpoofing: Any */
    enum deny_action deny;                  /* Felix' nftablesFilterDenyAction */
    enum drop_override drop_override;
    uint16_t vxlan_port;
    bool may_vxlan, may_ipip; /* Felix' allowVXLANPacketsFromWorkloads, allowIPIP… */
    bool has_floating_ips;    /* Felix' floatingIPs */
    bool is_append; /* Felix' chainInsertMode: after other filters of the host, not before them */
    const struct dataplane_failsafe *failsafe[2]; /* [CALC_INGRESS], [CALC_EGRESS] */
    size_t n_failsafe[2];
};

/* An interface of the host, for host endpoints that are found by address. */
struct dataplane_iface {
    char name[16];
    struct ip46 ip; /* one entry for each address */
};

struct dataplane_pool {
    struct prefix cidr;
    bool is_nat_outgoing;
};

/* links may be NULL (rules only). Nothing is written before the first flush. Texts in settings are
 * copied. */
MG_NODISCARD int dataplane_new(struct loop *l, struct links *links,
                               const struct dataplane_settings *s, struct dataplane **out,
                               struct err *e);
/* Leaves the kernel as it is. */
void dataplane_free(struct dataplane *d);

/* The sink for calc_new; arg is the struct dataplane. */
extern const struct calc_ops dataplane_calc_ops;
void dataplane_set_settings(struct dataplane *d, const struct dataplane_settings *s);
void dataplane_set_pools(struct dataplane *d, const struct dataplane_pool *p, size_t n);

/* VXLAN between nodes: has, whether this node has a device of the family (IPv4, IPv6). Packets to
 * its port are then taken from the other nodes' addresses (hosts) only, and policies of host
 * endpoints don't stop them. */
void dataplane_set_tunnels(struct dataplane *d, const bool has[2], const struct ip46 *hosts,
                           size_t n);
/* An address or a port of the host that leads to a pod. */
struct dataplane_nat {
    enum { NAT_FLOATING, NAT_PORT } kind;
    struct ip46 to;   /* the pod's own */
    struct ip46 from; /* the floating address; of a port: the host's address, IP_NONE: any */
    uint8_t protocol; /* of a port: IANA number */
    uint16_t port, to_port;
};
/* What leads to owner from now on, in place of what did; none: n 0. Where two owners want the same,
 * the first by name has it. Floating addresses of endpoints come by themselves. Zero v's padding:
 * it is compared. */
void dataplane_set_nat(struct dataplane *d, struct str owner, const struct dataplane_nat *v,
                       size_t n);

void dataplane_set_ifaces(struct dataplane *d, const struct dataplane_iface *v, size_t n);

/* Makes the kernel so. 0, or negative: nothing was changed, and the next flush or a timer (backing
 * off from 0.1 to 10 s) tries again from a fresh reading. */
MG_NODISCARD int dataplane_flush(struct dataplane *d, struct err *e);

/* Called after each transaction that a repair or retry made by itself. */
void dataplane_on_applied(struct dataplane *d, void (*cb)(void *arg), void *arg);

/* What the kernel counted of a rule. The first packet of a connection counts, for later ones need
 * no rule; from the moment that the rule was written. When several rules of policies that only
 * allow let a packet through, it is counted by the first of them whose condition was found. */
struct dataplane_count {
    const struct calc_policy *policy;
    unsigned rule; /* index in the resource */
    uint64_t packets, bytes;
};
MG_NODISCARD int dataplane_counts(struct dataplane *d,
                                  void (*cb)(void *arg, const struct dataplane_count *c), void *arg,
                                  struct err *e);

struct dataplane_stats {
    size_t chains, sets, members, endpoints;
    uint64_t transactions, messages; /* written since start */
    uint64_t refused;                /* transactions that the kernel refused */
    uint64_t repairs;                /* times that foreign changes were undone */
    bool is_fighting;                /* somebody changes the table again and again */
    bool is_applied;                 /* the last flush succeeded, nothing is pending */
    int64_t last_flush_ns;           /* duration of the last transaction, rendering included */
    char last_error[256];            /* empty when is_applied */
};
void dataplane_stats(const struct dataplane *d, struct dataplane_stats *out);
