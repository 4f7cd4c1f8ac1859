/* Import and export policy: rules compiled from BGPFilters (and from what Calico's templates encode
 * besides), evaluated for one route at a time, with a trace for `explain`. Filters are immutable
 * and shared; peers whose filters say the same share their encoded UPDATEs. No state of sessions
 * here. */
#pragma once

#include "bgp/attr.h"

/* LOCAL_PREF and Calico's priority are one thing: local_pref = BGP_PRIORITY_BASE - priority. */
#define BGP_PRIORITY_BASE 2147483647U

enum filter_operator { MATCH_IN = 0, MATCH_NOT_IN, MATCH_EQUAL, MATCH_NOT_EQUAL };
enum filter_action {
    FILTER_NEXT = 0, /* operations are done, evaluation goes on with the next rule */
    FILTER_ACCEPT,
    FILTER_REJECT,
};
/* Where a route comes from; a rule has a mask of 1U << … . */
enum route_source {
    ROUTE_PEER = 0,  /* learned from any BGP peer (BGPFilter's source: RemotePeers) */
    ROUTE_KERNEL,    /* read from the kernel, of another routing program */
    ROUTE_CONNECTED, /* of an interface */
    ROUTE_STATIC,    /* own configuration: blocks, service ranges, reachableBy */
    ROUTE_LOCAL,     /* a pod of this node */
};
enum filter_peer { FILTER_ANY_PEER = 0, FILTER_IBGP, FILTER_EBGP };

enum filter_op_kind {
    OP_ADD_COMMUNITY, /* bytes: 4 (standard) or 12 (large), in network order */
    OP_PREPEND,       /* as[0..n): as[0] ends up leftmost */
    OP_SET_PRIORITY,  /* value: sets LOCAL_PREF = BGP_PRIORITY_BASE - value */
    OP_SET_LOCAL_PREF,
    OP_SET_MED,
};
enum { FILTER_OPS = 10, FILTER_OP_AS = 10 };
struct filter_op {
    enum filter_op_kind kind;
    uint32_t value;
    uint8_t n; /* of bytes or as */
    uint8_t bytes[12];
    uint32_t as[FILTER_OP_AS];
};

/* All conditions that are given must hold; zero means: not given. */
struct filter_rule {
    char name[96]; /* for explain: "BGPFilter lab exportV4[2]" */
    bool has_cidr;
    struct prefix cidr;
    enum filter_operator op;
    bool has_len; /* prefix length within [len_min, len_max] */
    uint8_t len_min, len_max;
    uint32_t sources;   /* mask of 1U << enum route_source; 0: any */
    char interface[16]; /* glob with * and ?; "" : any */
    enum filter_peer peer;
    uint8_t n_community; /* 0, 4 or 12 bytes */
    uint8_t community[12];
    uint8_t n_as; /* path begins with these */
    uint32_t as[FILTER_OP_AS];
    bool has_priority; /* priority within [priority_min, priority_max] */
    uint32_t priority_min, priority_max;
    enum filter_action action;
    unsigned n_ops;
    struct filter_op ops[FILTER_OPS];
};

struct bgp_filter;
/* Copies the rules; otherwise says what happens to a route that no rule decides. Caller owns one
 * reference. */
struct bgp_filter *bgp_filter_new(const struct filter_rule *rules, unsigned n,
                                  enum filter_action otherwise);
struct bgp_filter *bgp_filter_ref(struct bgp_filter *f); /* accepts NULL */
void bgp_filter_unref(struct bgp_filter *f);             /* accepts NULL */
/* Do both decide alike (same rules in the same order; names do not count)? NULLs are equal. */
bool bgp_filter_eq(const struct bgp_filter *a, const struct bgp_filter *b);

/* A route as a filter sees it. */
struct filter_route {
    const struct prefix *prefix;
    enum route_source source;
    struct str interface;   /* of the route, or of the way to its next hop; STR_NULL: unknown */
    struct attr_src *attrs; /* in, and out with operations done */
    bool is_ibgp_peer;      /* the peer that the filter belongs to is internal */
    uint32_t default_local_pref; /* of routes that have none */
};
/* Memory for attributes that operations make; views in attrs live until the next reset. */
struct filter_scratch {
    struct buf path, other_path, communities, large;
};
#define FILTER_SCRATCH_INIT \
    { BUF_INIT(65535), BUF_INIT(65535), BUF_INIT(65535), BUF_INIT(65535) }
void filter_scratch_fini(struct filter_scratch *s);

struct filter_verdict {
    bool is_accepted;
    bool is_changed; /* an operation changed attrs */
    int rule;        /* index of the rule that decided; -1: none did */
};
/* Runs f (NULL accepts all). */
struct filter_verdict bgp_filter_run(const struct bgp_filter *f, const struct filter_route *r,
                                     struct filter_scratch *s);
/* Name of rule i; "no rule" for -1. */
const char *bgp_filter_rule_name(const struct bgp_filter *f, int i);
