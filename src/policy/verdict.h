/* What the calculation's output says of one packet: a mirror of everything put out through struct
 * calc_ops, and an evaluator over it. It answers `explain`, and tests compare it with the kernel.
 */
#pragma once

#include "policy/calc.h"

struct mirror;

struct mirror *mirror_new(void);
void mirror_free(struct mirror *m);
/* The sink; arg is the struct mirror. */
extern const struct calc_ops mirror_calc_ops;

/* Each address of the local pods. */
void mirror_each_pod_net(const struct mirror *m, void (*cb)(void *arg, const struct prefix *net),
                         void *arg);

/* A new connection's first packet. */
struct packet {
    struct ip46 src, dst;
    uint8_t protocol;
    uint16_t sport, dport; /* TCP, UDP, SCTP */
    uint8_t icmp_type, icmp_code;
};

enum verdict { VERDICT_ALLOW, VERDICT_DENY };

/* Why: the rule that decided, or the end of a tier, or of the profiles. */
struct verdict_why {
    enum { WHY_RULE, WHY_END_OF_TIER, WHY_NO_PROFILE, WHY_NOT_AN_ENDPOINT } what;
    const struct calc_policy *policy; /* WHY_RULE */
    const struct calc_rule *rule;     /* WHY_RULE */
    struct str tier;                  /* WHY_END_OF_TIER */
};

/* One direction of the local endpoint that has the address. An address that no local endpoint has
 * is not judged: allow, WHY_NOT_AN_ENDPOINT. */
enum verdict verdict_of(const struct mirror *m, enum calc_dir dir, const struct packet *p,
                        struct verdict_why *why);
/* The same, telling of each policy that was looked at, and of each of its rules: all reasons why it
 * did not match and how many they are, or STR_NULL if it did. w may be NULL. */
struct verdict_walk {
    void (*policy)(void *arg, const struct calc_policy *p);
    void (*rule)(void *arg, const struct calc_rule *r, struct str misses, unsigned n);
    void *arg;
};
enum verdict verdict_explain(const struct mirror *m, enum calc_dir dir, const struct packet *p,
                             struct verdict_why *why, const struct verdict_walk *w);
/* What would be decided with the staged policies enforced; false: none concerns the endpoint. */
bool verdict_staged(const struct mirror *m, enum calc_dir dir, const struct packet *p,
                    enum verdict *out, struct verdict_why *why);
/* Both directions, as on this node: the sender's egress, then the receiver's ingress. */
enum verdict verdict_both(const struct mirror *m, const struct packet *p);

/* A pod's lists; NULL: it has no endpoint here. */
const struct calc_endpoint *mirror_endpoint(const struct mirror *m, struct str ns, struct str name);
const struct calc_policy *mirror_policy(const struct mirror *m, uint32_t id); /* NULL: gone */
/* What a set is of (a selector, …), and how many members it has. */
const char *mirror_set_text(const struct mirror *m, uint32_t id, size_t *n_members);

/* Everything as sorted text, ids replaced by names: equal states give equal text. */
void mirror_print(const struct mirror *m, struct buf *out);
