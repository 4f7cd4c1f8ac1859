/* The calculation: resources in; what this node must enforce out, incrementally.
 *
 * In: decoded objects, one call each, as the syncer tells of them. Out, through struct calc_ops:
 * sets (members of selectors and named ports), compiled policies (one per direction), endpoints
 * (local pods, each with its ordered lists of policies). Only what some local endpoint uses is put
 * out. A change costs work in proportion to what it touches. No syscalls, no clock.
 *
 * What resources mean: Calico (felix/calc, libcalico-go/lib/backend/k8s/conversion). */
#pragma once

#include "base/buf.h"
#include "base/ip.h"
#include "model/model.h"
#include "model/policy.h"

/* ---- out ---- */
enum calc_set_type {
    CALC_SET_ADDR,      /* addresses and prefixes */
    CALC_SET_ADDR_PORT, /* address, protocol, port: named ports and services */
};

struct calc_member {
    struct prefix net; /* CALC_SET_ADDR_PORT: always a whole address */
    uint8_t protocol;  /* CALC_SET_ADDR_PORT: IANA number */
    uint16_t port;     /* CALC_SET_ADDR_PORT */
};

/* uid names the set by its content for ever ("s:…" of its canonical selector, "n:…" of port name,
 * protocol and selector, "v:…" of a service): equal across restarts, so that kernel state can be
 * compared. text: for people (the canonical selector). */
struct calc_set {
    uint32_t id;
    enum calc_set_type type;
    struct str uid, text;
};

/* A range of ports, both ends in. */
struct calc_ports {
    uint16_t min, max;
};

/* One side of a compiled rule. A set id of 0 is none. Everything given must match (AND); nets OR
 * among themselves; ports and port_sets OR with each other, not_* likewise under the negation. */
struct calc_side {
    const struct prefix *nets, *not_nets;
    size_t n_nets, n_not_nets;
    uint32_t set,
        not_set;          /* selector, combined with namespaces and service accounts; notSelector */
    uint32_t service_set; /* CALC_SET_ADDR_PORT (destination) or CALC_SET_ADDR (source) */
    const struct calc_ports *ports, *not_ports; /* sorted, merged */
    size_t n_ports, n_not_ports;
    const uint32_t *port_sets, *not_port_sets; /* named ports */
    size_t n_port_sets, n_not_port_sets;
};

enum { CALC_V4 = 1, CALC_V6 = 2 };

struct calc_rule {
    enum rule_action action;
    uint8_t families;               /* CALC_V4 | CALC_V6: what it can match; never 0 */
    int16_t protocol, not_protocol; /* IANA number, -1 = not given */
    int16_t icmp_type, icmp_code, not_icmp_type, not_icmp_code; /* -1 = not given */
    bool never; /* can match nothing (a positive match of something unknown): kept for counting */
    uint16_t index; /* position in the resource's own list of this direction, from 0 */
    struct calc_side src, dst;
};

enum calc_dir { CALC_INGRESS, CALC_EGRESS };

/* The rules of one policy or profile in one direction. Strings and rules live until the policy is
 * updated or removed. */
struct calc_policy {
    uint32_t id; /* of this policy and direction */
    enum calc_dir dir;
    /* "NetworkPolicy", "GlobalNetworkPolicy", "KubernetesNetworkPolicy", "Profile", … */
    struct str kind, tier, ns, name; /* tier of a profile: empty */
    bool is_staged;                  /* decides nothing */
    bool is_untracked;               /* what it allows is not tracked */
    const struct calc_rule *rules;
    size_t n_rules;
};

/* Appends the name that stands in comments, logs and counters: "kind tier namespace/name#rule", cut
 * (with a fingerprint) to fit a comment of nftables and the prefix of a log. */
void calc_rule_name(const struct calc_policy *p, unsigned rule, struct buf *out);

/* Policies of one tier in order; after them default_pass false: drop, true: go on. */
struct calc_tier {
    struct str name;
    bool default_pass;
    const uint32_t *policies; /* ids of calc_policy */
    size_t n_policies;
};

/* Tiers in order, then profiles, then drop. No tier at all and no profile: drop. */
struct calc_chain {
    const struct calc_tier *tiers;
    size_t n_tiers;
    const uint32_t *profiles; /* ids of calc_policy, in order */
    size_t n_profiles;
};

/* What a host endpoint has beside its own traffic's lists. No list holds profiles; a list without
 * tiers lets everything pass, and so does the end of one of them but forward's. Indexed by enum
 * calc_dir. */
struct calc_host {
    struct calc_chain forward[2];
    struct calc_chain untracked[2]; /* before connection tracking */
    struct calc_chain pre_dnat;     /* ingress, before DNAT */
};

/* An address that leads to one of the endpoint's own, of the same family. */
struct calc_nat {
    struct ip46 internal, external;
};
enum { CALC_MAX_NATS = 32 }; /* of one endpoint: more are left out */

/* A local pod's interface, or a host endpoint of this node. */
struct calc_endpoint {
    uint32_t id;
    struct str iface;          /* host side; of a host endpoint: interfaceName, maybe "*" or none */
    struct str ns, name;       /* of the pod; container id as name where there is no Pod */
    const struct prefix *nets; /* its own addresses, whole (/32, /128) */
    size_t n_nets;
    const struct prefix *spoof_ok; /* allowed source prefixes beside its own */
    size_t n_spoof_ok;
    const struct calc_nat *nats;
    size_t n_nats;
    uint8_t mac[6]; /* of the pod side; zero when unknown */
    struct calc_chain ingress, egress;
    const struct calc_host *host; /* NULL: a pod. nets are the expected addresses */
    /* What would hold with the staged policies enforced, [CALC_INGRESS] and [CALC_EGRESS]; NULL: no
     * staged policy concerns it. */
    const struct calc_chain *staged;
};

struct calc_ops {
    void (*set_new)(void *arg, const struct calc_set *s); /* empty at first */
    void (*set_members)(void *arg, uint32_t id, const struct calc_member *added, size_t n_added,
                        const struct calc_member *removed, size_t n_removed);
    void (*set_gone)(void *arg, uint32_t id);
    void (*policy)(void *arg, const struct calc_policy *p); /* new or changed */
    void (*policy_gone)(void *arg, uint32_t id);
    void (*endpoint)(void *arg, const struct calc_endpoint *e); /* new or changed */
    void (*endpoint_gone)(void *arg, uint32_t id);
    /* A resource that can't be enforced as written, for status: reason p NULL = fine again. */
    void (*problem)(void *arg, const struct kind *k, struct str ns, struct str name,
                    struct str reason);
};

/* ---- in ---- */
struct calc;

struct calc *calc_new(struct str node_name, const struct calc_ops *ops, void *arg);
void calc_free(struct calc *c);

/* A resource is new, changed, or (o == NULL) gone. Kinds that mean nothing here are ignored. o and
 * its arena may go after the call: calc copies what it keeps.
 *
 * Pods: a Pod with this node's name, or none, is an endpoint from the moment a WorkloadEndpoint of
 * this node exists for it (CNI ADD writes that): labels, service account and ports come from the
 * Pod, addresses and interface from the WorkloadEndpoint. A WorkloadEndpoint without a Pod stands
 * for itself, with its own labels, profiles and ports. A Pod of another node counts with its
 * status.podIPs; a WorkloadEndpoint of another node counts unless there is a Pod of its name. */
void calc_object(struct calc *c, const struct kind *k, struct str ns, struct str name,
                 const struct object *o);

/* Works out all that changed since the last call and passes it to the ops, each thing at most once.
 * In that order: set_new, set_members, policy, endpoint, endpoint_gone, policy_gone, set_gone. */
void calc_flush(struct calc *c);

/* Puts out to another sink all that is out by now. Between flushes. */
void calc_replay(const struct calc *c, const struct calc_ops *ops, void *arg);

/* Appends "namespace/name" of the pod that has the address; nothing if none has. Looks through all.
 */
void calc_name_of(const struct calc *c, const struct ip46 *ip, struct buf *out);

/* A policy as it stands, selected or not. */
struct calc_policy_info {
    struct str kind, tier, ns, name;
    bool has_order, is_staged;
    double order;
    unsigned types;    /* POLICY_INGRESS | POLICY_EGRESS */
    size_t n_rules[2]; /* [CALC_INGRESS], [CALC_EGRESS] */
    size_t n_selected; /* local endpoints */
    uint32_t ids[2];   /* of its struct calc_policy, which is out if something is selected */
};
/* All of them, in order of evaluation. */
void calc_each_policy(const struct calc *c, void (*cb)(void *arg, const struct calc_policy_info *p),
                      void *arg);

struct calc_stats {
    size_t policies, active_policies, endpoints, local_endpoints, sets, members;
};
void calc_stats(const struct calc *c, struct calc_stats *out);
