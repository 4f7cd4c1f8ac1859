/* Policies that only allow say the same in any order. So a list of nothing but such policies is not
 * walked policy by policy: what their rules let through is put together in a few sets of the list,
 * looked up by a few rules. Another port in a policy is another element, the kernel is given no
 * rule; and what a new connection costs does not grow with the number of policies.
 *
 * A rule takes part if it is one of: allow all; protocol and ports; prefixes; whole addresses with
 * protocol and ports; a selector, with protocol and ports or without. What is left of a policy (its
 * rest) is a chain as ever. */
#pragma once

#include "base/vec.h"
#include "policy/calc.h"

struct dataplane;
struct dset;
struct kset;
struct seg;

enum allow_what {
    ALLOW_ALL = 1,
    ALLOW_PORT,
    ALLOW_NET,
    ALLOW_ADDR_PORT,
    ALLOW_SET,
    ALLOW_SET_PORT
};

/* One thing that is let through. No padding: compared and hashed as bytes. */
struct allow {
    uint8_t what; /* enum allow_what */
    uint8_t protocol;
    uint16_t port;
    uint32_t set; /* selector */
    uint8_t addr[16];
    uint8_t family, len; /* of addr */
    uint16_t zero;
};
_Static_assert(sizeof(struct allow) == 28, "no padding");
typedef VEC(struct allow) allow_vec;

#define MAP_NAME allow_count
#define MAP_KEY struct allow
#define MAP_VAL uint32_t
#define MAP_HASH(k) hash_str(str_n((const char *)&(k), sizeof(k)))
#define MAP_EQ(a, b) (memcmp(&(a), &(b), sizeof(a)) == 0)
#include "base/hash.h"
#include "base/map.tmpl.h"

/* What a selector's members are let through to, in one list. */
struct merged_peer {
    struct kset *ports; /* NULL: none */
    bool is_all;        /* whatever the port */
};

#define MAP_NAME id_peer
#define MAP_KEY uint32_t
#define MAP_VAL struct merged_peer
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

/* Of one list. Sets are made when there is something to put in. */
struct merged {
    struct allow_count counts; /* how many rules let it through */
    bool is_all;
    struct kset *ports;    /* from anybody */
    struct kset *nets[2];  /* IPv4, IPv6; whatever the port */
    struct kset *addrs[2]; /* address . protocol . port */
    struct id_peer peers;  /* by id of the selector's set */
};

/* Appends what the rule lets through to out; false: it belongs to the rest. */
bool merge_rule(const struct calc_rule *r, enum calc_dir dir, allow_vec *out);
/* The list lets it through, once more or once less. */
void merged_change(struct dataplane *d, struct seg *s, const allow_vec *v, bool on);
/* Appends the rules to the batch and to the hash of the list's chain. */
void merged_render(struct dataplane *d, const struct seg *s, uint64_t *hash);
/* The list goes: so do its sets. */
void merged_let_go(struct dataplane *d, struct merged *m);
void merged_fini(struct merged *m);
