/* What the files of `margay ipam` share. */
#pragma once

#include "base/vec.h"
#include "cli/cli.h"
#include "ipam/ipam.h"

typedef VEC(struct ipam_pool) ipam_pool_vec;
/* All pools of the store, disabled ones too, by name. */
MG_NODISCARD int ipam_cli_pools(struct store *s, struct arena *a, ipam_pool_vec *out,
                                struct err *e);

/* ---- who uses which address (ipam_users.c) ---- */

struct ipam_user {
    struct ip46 ip;
    struct str what;    /* "pod shop/web-7", "VXLAN tunnel of node n1", "service shop/web" */
    struct str ns, pod; /* of a pod; else empty */
    struct str container, node;
};
struct ipam_users {
    struct arena *a;
    VEC(struct ipam_user) v;                            /* by address, then what; no two alike */
    VEC(struct str) pods, nodes;                        /* "NS/NAME"; names. Sorted */
    size_t n_endpoints, n_tunnels, n_services, n_nodes; /* read */
};
MG_NODISCARD int ipam_users_read(struct store *s, struct arena *a, struct ipam_users *out,
                                 struct err *e);
void ipam_users_fini(struct ipam_users *u);
/* The first user of an address; *n: how many there are. NULL: none. */
const struct ipam_user *ipam_users_of(const struct ipam_users *u, const struct ip46 *ip, size_t *n);
bool ipam_users_has(const struct str *sorted, size_t n, struct str name);

/* ---- what is wrong (ipam_audit.c) ---- */

enum ipam_problem_kind {
    PROBLEM_BOOKS,   /* blocks, handles and affinities disagree: fault */
    PROBLEM_LEAK,    /* allocated, and nobody has it */
    PROBLEM_FOREIGN, /* somebody has it, in a pool, and it is not allocated: may be given again */
    PROBLEM_DOUBLE,  /* two have it */
};
struct ipam_problem {
    enum ipam_problem_kind kind;
    struct ip46 ip;
    struct str handle;
    int64_t sequence;
    struct ipam_fault fault;
    const struct ipam_user *user;
    struct str text;   /* what is the matter, and the evidence */
    struct str repair; /* what mends it */
};
struct ipam_audited {
    struct ip46 ip;           /* first: they are searched by it */
    struct ipam_allocation x; /* texts in the audit's arena; attributes NULL */
    bool may_be_judged;       /* who should have it is known, and it is not brand new */
    struct str machine_ns, machine, pods[2]; /* a virtual machine's: its name, its owners' pods */
};
struct ipam_audit {
    struct arena *a;
    ipam_pool_vec pools;
    struct ipam_users users;
    VEC(struct ipam_problem) problems;
    VEC(struct ipam_audited) allocations; /* by address */
    size_t n_blocks, n_outside, n_unjudged, n_resting;
    int64_t now_ns;
};
MG_NODISCARD int ipam_audit_run(struct store *s, struct ipam *m, struct arena *a,
                                struct ipam_audit *out, struct err *e);
void ipam_audit_fini(struct ipam_audit *x);
/* Are they the same problem, seen twice? */
bool ipam_problem_eq(const struct ipam_problem *a, const struct ipam_problem *b);

/* ---- subcommands: exit codes ---- */
struct ipam_flags {
    struct cli_output out;
    const char *ip, *file, *name, *cidr;
    const char *strict, *auto_blocks, *max_blocks, *cooldown, *vm;
    bool blocks, borrowed, configuration, all_ips, problem_ips, force, is_dry;
    char **words; /* after the subcommand */
    int n_words;
};
int ipam_cmd_show(struct store *s, struct ipam *m, const struct ipam_flags *f);
int ipam_cmd_check(struct store *s, struct ipam *m, const struct ipam_flags *f);
int ipam_cmd_repair(struct store *s, struct ipam *m, const struct ipam_flags *f);
int ipam_cmd_release(struct store *s, struct ipam *m, const struct ipam_flags *f);
int ipam_cmd_configure(struct store *s, struct ipam *m, const struct ipam_flags *f);
int ipam_cmd_split(struct store *s, struct ipam *m, const struct ipam_flags *f);
/* Is the datastore locked (ClusterInformation datastoreReady false)? */
MG_NODISCARD int ipam_cli_is_locked(struct store *s, bool *is_locked, struct str *guid,
                                    struct arena *a, struct err *e);
