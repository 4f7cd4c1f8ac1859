/* What the files of the engine share. Who holds what:
 *   speaker.c    life, configuration, peers
 *   session.c    connections and the state machine; session_msg.c the messages in each state;
 *   restart.c    graceful restart, both roles, and long-lived stale routes
 *   import.c     UPDATEs to routes, import policy; walk.c the slow walks over a whole table
 *   decide.c     the decision process, ways for the kernel
 *   export.c     export policy: what a group of peers is to have; out.c lists, cohorts, encoding
 *   look.c       status, walks, explain */
#pragma once

#include "base/vec.h"
#include "bgp/nexthop.h"
#include "bgp/rib.h"
#include "bgp/speaker.h"

#define S_NS 1000000000LL
enum {
    OUT_LOW = 64 * 1024,   /* a peer with less waiting is given more */
    OUT_HIGH = 512 * 1024, /* … with more is left behind by its cohort */
    MAX_PEERS = 65534,
    WALK_SLICE = 2048, /* prefixes visited by one call of speaker_tick */
};

/* ---- output ---- */

/* Whole messages, shared by all peers that get the same. */
struct chunk {
    uint32_t n_refs, n;
    uint32_t n_msgs, n_updates;
    uint8_t p[];
};
struct chunk *chunk_new(const void *p, size_t n);
void chunk_unref(struct chunk *c);

/* ---- sessions ---- */

enum conn_state {
    CONN_NONE,
    CONN_CONNECTING, /* only outgoing */
    CONN_OPEN_SENT,
    CONN_OPEN_CONFIRM,
    CONN_ESTABLISHED,
};
enum { OUTGOING, INCOMING };

struct conn {
    enum conn_state state;
    uint8_t dir; /* who began it */
    uint32_t id;
    struct buf in; /* a message that has not wholly come */
    VEC(struct chunk *) out;
    size_t out_at, out_off; /* first chunk not yet sent, bytes of it sent */
    size_t n_waiting;       /* bytes */
    bool is_awake;          /* the driver knows that there is output */
    struct bgp_open open;   /* the peer's */
    struct ip46 local, local4, local6, link_local;
    int64_t hold_at, keepalive_at, send_hold_at; /* INT64_MAX: off */
    int64_t delay_at; /* DelayOpenTimer: our OPEN is not yet sent; INT64_MAX: it is */
    int64_t hold_ns, keepalive_ns;
};

struct group;
struct cohort;

enum {
    TASK_PURGE = 1,    /* routes of an old epoch go */
    TASK_LLGR = 2,     /* … become long-lived stale */
    TASK_REIMPORT = 4, /* import policy is run again */
};

/* One family of one peer. Each route has the epoch in which it came: a bump of the channel's epoch
 * makes all its routes stale at once. */
struct chan {
    uint16_t peer;
    uint8_t family;
    bool is_up, addpath_tx, addpath_rx;
    bool eor_in, eor_out, eor_due;     /* eor_due: to be sent when all has been */
    bool refresh_due, refresh_end_due; /* RFC 7313's markers */
    bool is_refreshing;                /* between the peer's markers */
    bool is_kept;                      /* stale routes are kept for the peer's return */
    bool is_llgr;
    bool limit_told;
    bool has_gr; /* the last session's capabilities, for when it is lost */
    uint8_t epoch, n_bumps, tasks;
    uint32_t left; /* prefixes that the walk has still to visit for the tasks */
    uint32_t n_routes, n_stale, n_accepted, n_best;
    uint32_t llgr_time_s;
    int64_t stale_at, refresh_at; /* INT64_MAX: off */
    struct group *group;
    struct cohort *cohort;
};

struct peer {
    struct peer_config cfg; /* strings and filters owned */
    char *name, *text;
    uint16_t id, template_id; /* of a dynamic neighbour: whose range it came from */
    bool is_dynamic, is_dead; /* dead: freed as soon as nothing names it */
    bool is_started;          /* ManualStart was given (not shut down) */
    struct ip46 address;
    struct conn conn[2];
    uint16_t conn_seq;
    enum bgp_state state;
    int64_t since, idle_until, retry_at; /* retry_at: next ops.connect */
    unsigned idle_s;                     /* next pause after an error */
    unsigned n_dynamic;
    struct conn *up; /* the established one */
    /* of the session */
    struct bgp_caps sent;
    uint32_t remote_as, remote_id;
    bool is_ibgp, is_confed; /* is_ibgp: same AS; is_confed: another member of the confederation */
    struct bgp_rx rx;
    bool as4, can_refresh, can_enhanced, extended, v4_over_v6, peer_gr_n;
    uint8_t role; /* ours, agreed on */
    uint16_t peer_gr_time_s;
    int64_t restart_at; /* the peer must be back; INT64_MAX: off */
    struct chan chan[BGP_N_FAMILIES];
    struct bgp_fail last;
    bool last_is_sent, otc_told;
    int64_t last_at;
    const char *reason;
    uint64_t msgs_in, msgs_out, updates_in, updates_out, bytes_in, bytes_out;
    uint32_t n_established, n_update_errors;
    int64_t established_at;
};

/* ---- groups ---- */

/* All that decides over what is sent: peers for whom it is the same share one group. */
struct group_key {
    uint8_t family;
    bool is_ibgp, is_confed, is_client, is_rs, as4, extended, addpath, v4_over_v6, has_llgr;
    bool remove_private, blocks_all;
    uint8_t addpath_max, next_hop, role;
    uint32_t local_as, cluster_id;
    struct ip46 self, self_link_local;
};

struct cohort {
    struct group *group;
    uint32_t marker;
    struct cohort *prev, *next; /* in order of the list: the one furthest behind is first */
    VEC(struct chan *) chans;
};

enum { XFORM_SLOTS = 64 };
struct xform {
    uint32_t in, out; /* references are held */
    uint16_t peer;
};

struct group {
    struct group_key key;
    struct bgp_filter *filter;
    uint16_t id;
    uint16_t sole; /* the only member since the group is there; 0: there are or were others */
    unsigned n_chans;
    uint32_t head, tail, n_outs, n_gone;
    struct cohort *first, *last;
    bool is_awake; /* all members know that there is output */
    uint32_t left; /* prefixes still to be visited before all of the table is in */
    struct xform cache[XFORM_SLOTS];
};

struct speaker {
    struct speaker_config cfg;
    uint32_t *members;
    const struct speaker_ops *ops;
    void *user;
    int64_t now, next; /* next: no timer ends before */
    uint64_t random;
    VEC(struct peer *) peers; /* by id; [0] is NULL */
    uint16_t last_id;
    struct attr_store *attrs;
    struct nexthops *hops;
    struct rib rib[BGP_N_FAMILIES];
    struct pool routes, outs;
    VEC(struct group *) groups;       /* by id; NULL where free */
    unsigned n_picky[BGP_N_FAMILIES]; /* groups that look at more than the best path */
    uint32_t walk_at[BGP_N_FAMILIES];
    uint32_t decide_left[BGP_N_FAMILIES]; /* decisions to be taken anew */
    bool is_deferring, is_walking;
    bool ready_due; /* EVENT_READY when the walk has ended */
    int64_t defer_until;
    struct update_scratch scratch;
    struct filter_scratch filter_scratch;
    struct buf enc, tmp, comm; /* scratch of out.c and export.c */
    struct {
        uint32_t conns; /* numbers given */
    } count;
};

/* speaker.c */
static inline struct peer *peer_at(const struct speaker *s, uint16_t id) {
    return id && id < s->peers.n ? s->peers.p[id] : NULL;
}
static inline uint32_t peer_local_as(const struct speaker *s, const struct peer *p) {
    return p->cfg.local_as ? p->cfg.local_as : s->cfg.as;
}
/* Neither of the AS nor of the confederation. */
static inline bool peer_is_external(const struct peer *p) {
    return !p->is_ibgp && !p->is_confed;
}
static inline struct peer *chan_peer(const struct speaker *s, const struct chan *c) {
    return s->peers.p[c->peer];
}
static inline const struct family_config *family_cfg(const struct peer *p, enum bgp_family f) {
    return &p->cfg.family[f];
}
struct peer *peer_new_dynamic(struct speaker *s, struct peer *from, const struct ip46 *address);
void peer_forget(struct speaker *s, struct peer *p); /* if it is dead and nothing names it */
void note_timer(struct speaker *s, int64_t at);
uint64_t speaker_random(struct speaker *s);
/* 75 to 100 % of t (RFC 4271 section 10). */
int64_t jitter(struct speaker *s, int64_t t);
void tell(struct speaker *s, const struct speaker_event *e);

/* session.c */
struct conn *conn_of(const struct speaker *s, uint32_t id, struct peer **out);
void conn_push(struct speaker *s, struct peer *p, struct conn *c, struct chunk *take_chunk);
void conn_push_buf(struct speaker *s, struct peer *p, struct conn *c, const struct buf *b);
void conn_wake(struct speaker *s, struct conn *c);
/* Sends f (NULL: nothing) as the last word, closes, and does what the state machine does then. */
void conn_fail(struct speaker *s, struct peer *p, struct conn *c, const struct bgp_fail *f);
/* Closes without consequence for the session (the loser of a collision); f as above. */
void conn_drop(struct speaker *s, struct peer *p, struct conn *c, const struct bgp_fail *f);
enum down { DOWN_LOST, DOWN_SENT, DOWN_RECEIVED, DOWN_ADMIN };
/* The end of c, for what reason; f: NULL if none was sent or received. */
void session_end(struct speaker *s, struct peer *p, struct conn *c, enum down how,
                 const struct bgp_fail *f);
void session_established(struct speaker *s, struct peer *p, struct conn *c);
/* A dynamic neighbour without connection and without kept routes is over. */
void peer_check_dynamic(struct speaker *s, struct peer *p);
void peer_start(struct speaker *s, struct peer *p);
/* Ends all connections with f and does not start again by itself until peer_start. */
void peer_stop(struct speaker *s, struct peer *p, const struct bgp_fail *f);
void peer_update_state(struct speaker *s, struct peer *p);
void session_timers(struct speaker *s, struct peer *p);
int64_t session_next(const struct peer *p);
void idle_for(struct speaker *s, struct peer *p, int64_t ns);

/* Our OPEN goes out, and its answer is waited for. */
void conn_open(struct speaker *s, struct peer *p, struct conn *c);

/* session_msg.c */
void conn_send_open(struct speaker *s, struct peer *p, struct conn *c);
/* One whole message; c may be closed afterwards. */
void conn_message(struct speaker *s, struct peer *p, struct conn *c, const uint8_t *m, size_t n);

/* restart.c */
void restart_session_lost(struct speaker *s, struct peer *p, bool keep);
void restart_session_up(struct speaker *s, struct peer *p, struct conn *c);
void restart_eor(struct speaker *s, struct peer *p, enum bgp_family f);
void restart_timers(struct speaker *s, struct peer *p);
int64_t restart_next(const struct peer *p);
void restart_check_defer(struct speaker *s);
void chan_bump(struct speaker *s, struct peer *p, enum bgp_family f); /* all its routes are stale */
void chan_purge(struct speaker *s, struct peer *p, enum bgp_family f); /* stale routes go */

/* import.c */
enum import_why {
    WHY_NONE,
    WHY_FILTER,
    WHY_AS_LOOP,
    WHY_ORIGINATOR,
    WHY_CLUSTER,
    WHY_LEAK,
    WHY_NEXT_HOP,
    WHY_POLICY
};
const char *import_why_text(enum import_why w);
void import_update(struct speaker *s, struct peer *p, const uint8_t *body, size_t n);
/* What import policy makes of attr: id with a reference, or 0 with *why; verdict for explain. */
uint32_t import_attr(struct speaker *s, const struct peer *p, enum bgp_family f,
                     const struct prefix *prefix, uint32_t attr_in, enum import_why *why,
                     struct filter_verdict *verdict);
struct route *route_find(struct speaker *s, struct rib_node *n, uint16_t peer, uint32_t path_id,
                         uint32_t **link);
/* link points at the index of the route in its list. */
void route_remove(struct speaker *s, enum bgp_family f, struct rib_node *n, uint32_t *link);
void route_set_attr(struct speaker *s, enum bgp_family f, struct rib_node *n, struct route *r,
                    uint32_t take_attr);
bool route_is_stale(const struct speaker *s, enum bgp_family f, const struct route *r);

/* walk.c */
void walk_start(struct speaker *s, struct peer *p, enum bgp_family f, unsigned tasks);
void walk_decide(struct speaker *s, enum bgp_family f);
void walk_group(struct speaker *s, struct group *g);
bool walk_is_due(const struct speaker *s);
/* About max prefixes. */
void walk_run(struct speaker *s, unsigned max);
/* Everything of one channel, at once. */
void walk_finish(struct speaker *s, struct peer *p, enum bgp_family f);

/* decide.c */
enum decide_step {
    STEP_ONLY,
    STEP_UNUSABLE,
    STEP_STALE,
    STEP_LOCAL_PREF,
    STEP_PATH_LEN,
    STEP_ORIGIN,
    STEP_MED,
    STEP_EXTERNAL,
    STEP_COST,
    STEP_AGE,
    STEP_ROUTER_ID,
    STEP_CLUSTERS,
    STEP_ADDRESS,
    STEP_PATH_ID
};
const char *decide_step_text(enum decide_step s);
bool route_is_usable(const struct speaker *s, const struct route *r);
/* Which is better: < 0 a, > 0 b, and by which step. MED counts as between any two of one AS. */
int route_compare(const struct speaker *s, const struct route *a, const struct route *b,
                  enum decide_step *step);
void decide(struct speaker *s, enum bgp_family f, uint32_t node);
/* r came newly, and becomes none that anybody is told of, nor changes who else does. */
bool decide_needless(const struct speaker *s, enum bgp_family f, const struct rib_node *n,
                     const struct route *r);
uint32_t route_local_pref(const struct speaker *s, const struct route *r);

/* export.c */
void group_join(struct speaker *s, struct peer *p, enum bgp_family f);
void group_leave(struct speaker *s, struct peer *p, enum bgp_family f);
/* On a living session what decides over the group has changed: the peer is told what is other, and
 * what it had and may not have any more is withdrawn. */
void group_move(struct speaker *s, struct peer *p, enum bgp_family f);
/* What the group is to have of a prefix. is_best_new: the best changed, or its attributes. */
void group_update(struct speaker *s, struct group *g, uint32_t node, bool is_best_new);
struct export_why {
    struct filter_verdict verdict;
    const char *text; /* why not */
};
/* What r becomes for g: id with a reference; 0: nothing. */
uint32_t export_attr(struct speaker *s, struct group *g, uint32_t node, const struct route *r,
                     struct export_why *why);
void group_drop_cache(struct speaker *s, struct group *g);
/* A group without members loses at most max entries of its list; true: it is gone. */
bool group_bury(struct speaker *s, struct group *g, unsigned max);

/* out.c */
void out_set(struct speaker *s, struct group *g, uint32_t node, uint32_t path_id, uint16_t source,
             uint32_t take_attr);
void out_join(struct speaker *s, struct group *g, struct chan *c);
void out_leave(struct speaker *s, struct chan *c);
/* From its group to another, with graves there for what the other does not have. */
void out_move(struct speaker *s, struct group *to, struct chan *c);
void out_restart(struct speaker *s, struct chan *c); /* all is sent again */
/* Frees at most max entries of a group without members; true: none are left. */
bool out_free_some(struct speaker *s, struct group *g, unsigned max);
/* Gives the connection more to send, if there is any. */
void out_fill(struct speaker *s, struct peer *p);
bool out_in_sync(const struct speaker *s, const struct chan *c);
void out_wake(struct speaker *s, struct group *g);
