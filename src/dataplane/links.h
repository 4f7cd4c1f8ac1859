/* The host side of pods' interfaces: desired state in, kernel made so, drift repaired. An interface
 * is up, has Calico's MAC and settings, a route for each address of the pod and a permanent
 * neighbour entry for it, so that nothing a pod sends can change where its traffic goes. An
 * interface that is not there yet is pending: it is done when it appears. */
#pragma once

#include "base/err.h"
#include "base/ip.h"
#include "base/loop.h"

struct links;

enum { LINKS_MAX_PREFIXES = 8, LINKS_PROTOCOL_DEFAULT = 3 };

/* MAC address of every host side; its link-local address is the pods' IPv6 gateway. */
extern const uint8_t links_host_mac[6];

struct links_settings {
    uint8_t route_proto;                           /* of pods' routes; 0: LINKS_PROTOCOL_DEFAULT */
    struct str iface_prefixes[LINKS_MAX_PREFIXES]; /* of pods' host sides; none: "cali" */
    size_t n_iface_prefixes;
};

/* Works in the calling thread's network namespace. Texts in s are copied. NULL with e. */
struct links *links_new(struct loop *loop, const struct links_settings *s, struct err *e);
/* Leaves the kernel as it is. */
void links_free(struct links *l);

/* What the interface must be. Done at the end of this turn of the loop, or by links_apply. Every
 * net is a pod's whole address or a prefix routed to it (neighbour entries are made for whole
 * addresses). pod_mac NULL or zero: unknown, no neighbour entries. The same again changes nothing.
 */
void links_set(struct links *l, struct str iface, const struct prefix *nets, size_t n,
               const uint8_t *pod_mac);
/* No longer ours: its routes and neighbour entries go; the interface stays. */
void links_unset(struct links *l, struct str iface);
/* No longer ours, and about to be deleted: nothing is written. */
void links_forget(struct links *l, struct str iface);

/* An address that is in use elsewhere, though a pod here has it, too: a virtual machine that is
 * about to come, or has left. It is not routed to its pod, whichever interface that is, until
 * is_away is false again. */
void links_away(struct links *l, const struct ip46 *ip, bool is_away);
bool links_is_away(const struct links *l, const struct ip46 *ip);

/* Makes one interface so, now. ERR_NOT_FOUND: it is not there yet. ERR_EXISTS: an address is routed
 * to an interface of somebody else; the rest is done. */
MG_NODISCARD int links_apply(struct links *l, struct str iface, struct err *e);
/* Reads everything, writes what differs: nothing when all is right. */
MG_NODISCARD int links_sync(struct links *l, struct err *e);

struct links_stats {
    size_t n_ifaces;
    size_t n_pending;  /* not there yet */
    size_t n_problems; /* there, but not as they should be */
    uint64_t writes;   /* messages and settings written */
    uint64_t repairs;  /* times that an interface was put right again */
    uint64_t fights;   /* times that repairs had to be slowed down */
    uint64_t resyncs;  /* times that events were lost */
    char problem[256]; /* one of the problems; "" without */
};
void links_stats(const struct links *l, struct links_stats *out);
