/* The BGP engine: sessions, routing tables, decision, what is told to whom. Takes bytes, time and
 * local routes; gives bytes, connections to open, and routes for the kernel. It has no socket, no
 * clock and no kernel inside: whoever drives it (the process `margay bgp`, or a simulation) brings
 * those. RFC 4271 and those named at the fields.
 *
 * How it is driven
 *   - Time is int64 nanoseconds of any monotonic clock, passed as `now` and never going back.
 *   - speaker_deadline says when speaker_tick must be called next; work is cut into slices, and
 *     while some is left the deadline is in the past: call tick again after serving other things.
 *   - Connections have numbers (never 0, not reused soon). The engine asks for one by ops.connect;
 *     the driver answers later by speaker_connected or speaker_closed. Incoming ones are offered by
 *     speaker_accept.
 *   - Output is pulled: ops.wake says once that a connection has something; then call
 *     speaker_output and speaker_sent until there is nothing. Who does not pull makes the engine
 *     hold back: it keeps at most some messages for a slow peer, never copies of the table.
 *   - Callbacks must not call functions of this header, but speaker_peer_config. What they are
 *     given lives until they return. */
#pragma once

#include "bgp/filter.h"
#include "bgp/msg.h"

struct speaker;

/* ---- configuration ---- */

struct speaker_config {
    uint32_t as;             /* own AS; within a confederation: the member AS */
    uint32_t router_id;      /* host order; unique in the AS */
    uint32_t cluster_id;     /* RFC 4456; 0: the router id */
    uint32_t confederation;  /* RFC 5065: the AS that others see; 0: none */
    const uint32_t *members; /* member ASes of the confederation, beside `as`; copied */
    size_t n_members;
    uint32_t default_local_pref; /* 0: 100 */
    unsigned max_paths;          /* next hops of one prefix in the kernel; 0: 1; at most 64 */
    bool multipath_relax;        /* ECMP of paths with different ASes of the same length */
    bool always_compare_med;     /* else only of paths from the same neighbour AS */
    bool med_missing_as_worst;
    bool prefer_oldest; /* RFC 5004: among external paths the one known longest stays, instead of
                           the lowest router id (fewer changes, but history counts) */
    uint16_t restart_time_s; /* RFC 4724: how long we may be away; 0: 120; at most 4095 */
    bool is_restarting; /* the process came back, its routes are still in the kernel: the restart
                           bit is set, and routes are held back until each restarting-aware peer
                           has sent End-of-RIB or defer_s is over */
    uint16_t defer_s;   /* 0: restart_time_s */
    uint64_t seed;      /* of jitter */
};

enum next_hop_mode {
    NEXT_HOP_AUTO, /* external: self; internal: kept, self for local routes */
    NEXT_HOP_SELF,
    NEXT_HOP_KEEP, /* kept to external peers as well; local routes: self */
};
enum gr_mode { GR_ENABLED, GR_HELPER_ONLY, GR_DISABLED };

struct family_config {
    bool is_enabled;
    uint8_t addpath;                    /* BGP_ADDPATH_ bits offered (RFC 7911) */
    uint8_t addpath_max;                /* paths sent for a prefix; 0: all */
    uint32_t max_prefixes;              /* received, before policy; above: cease 6/1. 0: no limit */
    struct bgp_filter *import, *export; /* a reference is taken; NULL accepts all */
    uint32_t llgr_time_s; /* RFC 9494: stale routes kept this long after the restart time; 0: off;
                             24 bits */
};

struct peer_config {
    struct str name;      /* unique among peers; the key of speaker_peer_set */
    struct ip46 address;  /* IP_NONE: only dynamic neighbours of `range` */
    uint32_t ifindex;     /* of a link-local address; 0: any */
    struct prefix range;  /* dynamic neighbours: any address within; family IP_NONE: none */
    unsigned max_dynamic; /* neighbours of the range at once; 0: 1000 */
    uint32_t as;          /* the peer's; 0: any but the own (external) */
    uint32_t local_as;    /* that we show to it; 0: the speaker's */
    bool is_passive;      /* never connect */
    bool is_shutdown;     /* no session; with a text told to the peer (RFC 9003) */
    struct str shutdown_text;
    uint16_t hold_s;                 /* 0: 90. HOLD_NONE: no hold timer at all */
    uint16_t keepalive_s;            /* 0: a third of the negotiated hold time */
    uint16_t connect_retry_s;        /* 0: 5 (Calico's), with jitter */
    uint16_t connect_delay_s;        /* before the first try; 0: at once */
    uint16_t delay_open_s;           /* DelayOpen: after TCP is up, the peer's OPEN is waited for */
    uint16_t idle_min_s, idle_max_s; /* pause after an error, doubled each time; 0: 5, 60 */
    bool is_rr_client;               /* RFC 4456 */
    bool is_rs_client;   /* RFC 7947: AS path, next hop and MED are passed on untouched */
    uint32_t cluster_id; /* with this client instead of the speaker's; 0: the speaker's */
    enum next_hop_mode next_hop;
    unsigned allow_own_as;  /* how often the own AS may be in a received path */
    bool no_first_as_check; /* an external peer's path need not begin with its AS (a route server's)
                             */
    bool remove_private_as;
    bool require_policy; /* RFC 8212: an external peer without a filter gets and gives nothing */
    uint8_t role;        /* RFC 9234, enum bgp_role; BGP_ROLE_NONE: none */
    bool role_strict;
    uint8_t gr;                               /* enum gr_mode; RFC 4724, 8538 */
    uint16_t restart_time_s;                  /* told to this peer; 0: the speaker's */
    bool extended_message;                    /* RFC 8654 */
    bool extended_next_hop;                   /* RFC 8950 */
    bool no_as4, no_refresh, no_capabilities; /* for peers of old */
    uint16_t prefix_restart_s;                /* after max_prefixes: the next try; 0: 60 */
    struct family_config family[BGP_N_FAMILIES];
    /* For the driver alone; a change of these ends the session (they are the connection's). */
    uint16_t port;        /* 0: 179 */
    uint8_t ttl;          /* 0: the system's */
    bool gtsm;            /* RFC 5082 with ttl hops */
    struct ip46 local;    /* source address; IP_NONE: the system's choice */
    uint64_t secret_hash; /* of the password: so that a new one is noticed */
    void *user;
};
enum { HOLD_NONE = 0xffff };

/* ---- what the engine asks for and tells ---- */

/* A way for the kernel. */
struct route_hop {
    struct ip46 ip;         /* next hop as the route gave it */
    struct ip46 link_local; /* IP_NONE: none */
    uint16_t peer;          /* that gave it */
    uint32_t weight;        /* from the link bandwidth community; 1 each without it */
};
struct speaker_route {
    struct prefix prefix;
    unsigned n_hops; /* 0: no more a route of BGP */
    const struct route_hop *hops;
    uint32_t local_pref; /* of the best; priority = BGP_PRIORITY_BASE - local_pref */
    bool is_external;    /* the best came from another AS */
    bool is_stale;       /* kept through a restart (RFC 4724, 9494) */
    uint32_t attr;       /* id in speaker_attrs */
};

enum speaker_event_kind {
    EVENT_STATE,        /* a peer's state changed: old, state */
    EVENT_UP,           /* established */
    EVENT_DOWN,         /* was established: fail, is_sent say why */
    EVENT_NOTIFICATION, /* sent or received, in any state */
    EVENT_UPDATE_ERROR, /* RFC 7606: text says what, n how many prefixes were withdrawn for it */
    EVENT_EOR,          /* End-of-RIB received for family */
    EVENT_STALE_OVER,   /* routes kept for the peer were dropped */
    EVENT_LIMIT,        /* max_prefixes reached for family */
    EVENT_ROLE,         /* a leak was rejected by OTC (RFC 9234); rate-limited to one a session */
    EVENT_PEER_NEW,     /* a dynamic neighbour came: its id is now valid */
    EVENT_PEER_GONE,    /* … and is forgotten: its id becomes invalid after the callback */
    EVENT_READY,        /* all that was held back after a restart has been told by ops.route: what
                           the kernel has beside it can go. peer 0 */
};
enum bgp_state {
    BGP_IDLE,
    BGP_CONNECT,
    BGP_ACTIVE,
    BGP_OPEN_SENT,
    BGP_OPEN_CONFIRM,
    BGP_ESTABLISHED
};
const char *bgp_state_name(enum bgp_state s); /* "Idle" … "Established" */

struct speaker_event {
    enum speaker_event_kind kind;
    uint16_t peer;
    enum bgp_state old, state;
    enum bgp_family family;
    const struct bgp_fail *fail; /* NULL: none (the connection was lost) */
    bool is_sent;                /* fail was sent by us */
    const char *text;            /* plain words; NULL: none */
    unsigned n;
};

struct speaker_ops {
    /* Open a TCP connection to the peer's address. */
    void (*connect)(void *user, uint32_t conn, uint16_t peer);
    /* Send these last n bytes (0 of them: maybe nothing), which come behind what speaker_sent was
     * told of, and close. The number is over: nothing more is said of it by either side. */
    void (*close)(void *user, uint32_t conn, const void *last, size_t n);
    /* There is output again. */
    void (*wake)(void *user, uint32_t conn);
    /* The way to a prefix changed. May be told again without change. NULL: nobody cares. */
    void (*route)(void *user, const struct speaker_route *r);
    /* Start or stop to watch the way to a next hop: answer (later) by speaker_nexthop_set. Until
     * then it counts as unreachable. NULL: all are reachable at cost 0. */
    void (*nexthop)(void *user, const struct ip46 *ip, const struct ip46 *link_local, uint16_t peer,
                    bool is_watched);
    void (*event)(void *user, const struct speaker_event *e); /* may be NULL */
    /* Whole messages as received (before they are judged) and sent: for BMP and dumps. May be NULL.
     */
    void (*message)(void *user, uint16_t peer, bool is_sent, const uint8_t *p, size_t n);
};

/* ---- life ---- */

/* ops must live as long as the speaker. */
struct speaker *speaker_new(const struct speaker_config *cfg, const struct speaker_ops *ops,
                            void *user, int64_t now);
/* Frees all at once: no NOTIFICATION is sent, no callback called. Peers with graceful restart keep
 * our routes: speaker_shutdown first where they should not. Accepts NULL. */
void speaker_free(struct speaker *s);
/* Changes of the speaker itself. A new AS, router id, confederation or cluster id resets the
 * sessions that it concerns; all else is taken over live. */
void speaker_configure(struct speaker *s, const struct speaker_config *cfg, int64_t now);
/* Ends all sessions with Cease/Administrative Shutdown and text; as a graceful restart to peers
 * that have it (RFC 8538) when keep_routes. */
void speaker_shutdown(struct speaker *s, struct str text, bool keep_routes, int64_t now);

/* Adds a peer or changes the one of that name, touching its session only if it must. Returns its id
 * (1 to 65534; 0: too many peers). */
uint16_t speaker_peer_set(struct speaker *s, const struct peer_config *cfg, int64_t now);
/* Cease/Peer De-configured; routes go. False: no such name. */
bool speaker_peer_del(struct speaker *s, struct str name, int64_t now);
uint16_t speaker_peer_find(const struct speaker *s, struct str name); /* 0: none */
/* NULL for an id that is not in use. A dynamic neighbour's has its own name and address. */
const struct peer_config *speaker_peer_config(const struct speaker *s, uint16_t peer);
/* Ids in order: for (id = 0; (id = speaker_peer_next(s, id));) … */
uint16_t speaker_peer_next(const struct speaker *s, uint16_t id);

/* What an operator asks: Cease/Administrative Reset, hard (RFC 8538) or not; a soft reset asks for
 * the peer's routes again and sends ours again. */
void speaker_peer_reset(struct speaker *s, uint16_t peer, bool is_hard, struct str text,
                        int64_t now);
void speaker_peer_refresh(struct speaker *s, uint16_t peer, int64_t now);
/* BFD says that the peer is down (RFC 9384: 6/10; graceful restart is not kept when is_final). */
void speaker_peer_bfd_down(struct speaker *s, uint16_t peer, int64_t now);
/* The interface of the peer went or came, the driver gained a password …: try now. */
void speaker_peer_kick(struct speaker *s, uint16_t peer, int64_t now);

/* ---- connections ---- */

/* A connection came in. Returns its number, or 0: nobody is expected from there, close it. */
uint32_t speaker_accept(struct speaker *s, const struct ip46 *remote, const struct ip46 *local,
                        uint32_t ifindex, int64_t now);
/* The connection asked for is there; local: its own address (a next hop is made of it). */
void speaker_connected(struct speaker *s, uint32_t conn, const struct ip46 *local, int64_t now);
/* It could not be opened, or the other side closed it, or it broke. */
void speaker_closed(struct speaker *s, uint32_t conn, int64_t now);
/* The own link-local and, for the other family, global addresses of a connection's interface: for
 * next hops of IPv6 routes and of IPv6 over an IPv4 session. IP_NONE: none. */
void speaker_conn_addrs(struct speaker *s, uint32_t conn, const struct ip46 *v4,
                        const struct ip46 *v6, const struct ip46 *link_local);
/* n bytes came in. A number that is over is ignored. */
void speaker_input(struct speaker *s, uint32_t conn, const void *bytes, size_t n, int64_t now);
/* True: stop reading from it until speaker_output has been drained (a peer that asks much and reads
 * nothing). */
bool speaker_wants_pause(const struct speaker *s, uint32_t conn);
/* The next bytes to write; n == 0: nothing now. The view lives until the next call of any function
 * that is not const. */
struct str speaker_output(struct speaker *s, uint32_t conn, int64_t now);
/* The first n bytes of it were written. */
void speaker_sent(struct speaker *s, uint32_t conn, size_t n, int64_t now);
uint16_t speaker_conn_peer(const struct speaker *s, uint32_t conn); /* 0: the number is over */

/* ---- time ---- */

/* When speaker_tick must run; INT64_MAX: never. */
int64_t speaker_deadline(const struct speaker *s);
void speaker_tick(struct speaker *s, int64_t now);

/* ---- local routes, next hops ---- */

struct local_route {
    struct prefix prefix;
    enum route_source source; /* not ROUTE_PEER */
    struct str interface;     /* STR_NULL: none */
    struct attr_src attrs;    /* zero but for what is wanted: origin, communities, local_pref … */
};
/* A prefix that we announce ourselves; one for each source and prefix. It takes part in the
 * decision (before all learned ones, unless its local preference is lower) and never reaches
 * ops.route as a hop: where it wins, n_hops is 0. */
void speaker_originate(struct speaker *s, const struct local_route *l, int64_t now);
/* False: there was none. */
bool speaker_withdraw(struct speaker *s, const struct prefix *p, enum route_source source,
                      int64_t now);

/* The way to a next hop changed. interface: of the way; STR_NULL: unknown. */
void speaker_nexthop_set(struct speaker *s, const struct ip46 *ip, const struct ip46 *link_local,
                         bool is_reachable, uint32_t cost, struct str interface, int64_t now);

/* ---- looking in ---- */

struct family_status {
    bool is_negotiated;
    bool addpath_send, addpath_receive;
    uint32_t n_received, n_accepted, n_stale; /* prefixes (paths with add-path) from the peer */
    uint32_t n_best;                          /* of them the best of their prefix */
    uint32_t n_sent; /* announced to the peer, counted as entries of its update group */
    bool is_eor_received, is_eor_sent;
    bool is_in_sync; /* nothing is left to be sent */
};
struct peer_status {
    enum bgp_state state;
    const char *reason; /* why it is not established; "" */
    struct ip46 address;
    uint32_t as, router_id; /* of the peer, from its OPEN */
    bool is_dynamic;
    int64_t since; /* of the state */
    uint16_t hold_s, keepalive_s;
    struct bgp_caps sent, received;
    struct bgp_fail last; /* last NOTIFICATION; code 0: none */
    bool last_is_sent;
    int64_t last_at;
    uint64_t msgs_in, msgs_out, updates_in, updates_out, bytes_in, bytes_out;
    uint32_t n_established, n_update_errors;
    struct family_status family[BGP_N_FAMILIES];
};
/* False: no such peer. */
bool speaker_peer_status(const struct speaker *s, uint16_t peer, struct peer_status *out);

struct route_view {
    struct prefix prefix;
    uint16_t peer; /* 0: local */
    enum route_source source;
    uint32_t path_id;
    uint32_t attr_in; /* attributes before import policy, in speaker_attrs; 0: not looked at */
    bool is_best, is_in_kernel_set, is_stale, is_llgr_stale, is_rejected, is_unreachable;
    struct attr_src attrs; /* after import policy */
};
/* Walks all routes, best first within a prefix, unsorted by prefix. *at begins as 0 and is 0 again
 * at the end; at most about max prefixes are visited by one call, and the table may change between
 * calls. */
void speaker_routes(const struct speaker *s, enum bgp_family f, uint32_t *at, unsigned max,
                    void (*fn)(void *user, const struct route_view *v), void *user);
/* Routes of one prefix. */
void speaker_routes_of(const struct speaker *s, const struct prefix *p,
                       void (*fn)(void *user, const struct route_view *v), void *user);
/* Longest prefix that covers ip and has a usable route; false: none. */
bool speaker_lookup(const struct speaker *s, const struct ip46 *ip, struct prefix *out);
/* What is announced to a peer; as speaker_routes (attrs as sent). */
void speaker_sent_routes(const struct speaker *s, uint16_t peer, enum bgp_family f, uint32_t *at,
                         unsigned max, void (*fn)(void *user, const struct route_view *v),
                         void *user);
/* Why: each path of the prefix with what import policy said and at which step of the decision it
 * lost; then for each peer whether it is announced, and which rule decided. Lines of text,
 * appended. peer 0: all. */
void speaker_explain(struct speaker *s, const struct prefix *p, uint16_t peer, struct buf *out);

struct speaker_stats {
    size_t n_prefixes[BGP_N_FAMILIES], n_routes, n_attrs, n_next_hops, n_out, n_groups, n_peers;
    size_t bytes; /* of tables */
};
void speaker_stats(const struct speaker *s, struct speaker_stats *out);
/* The attributes that ids in callbacks name. */
const struct attr_store *speaker_attrs(const struct speaker *s);
