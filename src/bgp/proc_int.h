/* Shared by the files of proc.h. */
#pragma once

#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "bgp/monitor.h"
#include "bgp/proc.h"
#include "bgp/sock.h"

/* A connection of the engine and its socket. */
struct link_conn {
    struct bgp_proc *p;
    uint32_t id;
    int fd;
    struct loop_poll *poll;
    bool is_connecting, wants_write, is_paused;
};

/* A socket that still sends its last words. */
struct parting {
    struct bgp_proc *p;
    int fd;
    struct loop_poll *poll;
    struct loop_timer *timer;
    struct buf rest;
};

/* What the process knows of a peer of the engine. */
struct peer_state {
    const struct conf_peer *conf; /* in the present configuration; NULL: none */
    struct bfd_session *bfd;
    struct ip46 local; /* own address of the established session */
    int ifindex;       /* it is on */
};

struct listener {
    struct bgp_proc *p;
    int fd; /* -1: closed */
    struct loop_poll *poll;
    uint16_t port;
    struct ip46 addr; /* IP_NONE: all */
};

#define MAP_NAME conn_map
#define MAP_KEY uint32_t
#define MAP_VAL struct link_conn *
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"
#define MAP_NAME peer_map
#define MAP_KEY uint32_t
#define MAP_VAL struct peer_state
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

/* What a listening socket has to check the signatures of a peer by. */
struct key {
    struct prefix peers;
    int ifindex;
    uint64_t sum;
    uint8_t ids[2 * SOCK_AO_KEYS_MAX]; /* of TCP-AO: pairs of sendID, receiveID */
    size_t n_ids;                      /* pairs; 0: MD5 */
};

struct bgp_proc {
    struct loop *loop;
    struct bgp_proc_options o;
    struct speaker *speaker;
    struct bgp_kernel *kernel;
    struct bfd_io *bfd;
    struct bgp_monitor *monitor;
    struct bgp_conf *conf;
    struct loop_timer *timer, *listen_timer, *ready_timer;
    struct loop_defer *defer;
    struct conn_map conns;
    struct peer_map peers;
    struct listener listeners[BGP_N_FAMILIES];
    VEC(struct key) keys;
    VEC(struct parting *) lingers;
    VEC(uint32_t) wakes;  /* connections with output */
    VEC(uint32_t) failed; /* connections that could not be begun */
    struct {
        uint16_t peer;
        bool is_up;
    } * bfd_asks; /* sessions that came up or went down */
    size_t n_bfd_asks, cap_bfd_asks;
    bool is_ready_asked;
    int64_t started_wall_ns, applied_wall_ns;
    struct log_limit accept_limit, connect_limit;
};

int64_t proc_now(const struct bgp_proc *p);
/* proc_conn.c */
extern const struct speaker_ops proc_ops;
void proc_serve(struct bgp_proc *p); /* what callbacks left to do */
MG_NODISCARD int proc_listen(struct bgp_proc *p, struct err *e);
void proc_conns_free(struct bgp_proc *p);
struct peer_state *proc_peer(const struct bgp_proc *p, uint16_t peer);
/* proc_keys.c */
/* The listening sockets get what the configuration's peers sign by; all: they are new. */
void proc_keys_listen(struct bgp_proc *p, bool all);
/* The peer's living connections go over to other keys of TCP-AO; where that can't be, the session
 * is made anew. */
void proc_keys_change(struct bgp_proc *p, uint16_t peer, const struct ao_keys *old,
                      const struct ao_keys *now);
/* proc_event.c */
void proc_on_event(void *user, const struct speaker_event *e);
void proc_bfd_ask(struct bgp_proc *p, uint16_t peer); /* start it, soon */
void proc_bfd_serve(struct bgp_proc *p);
void proc_bfd_on_state(void *arg, void *user, const struct bfd_status *s, bool is_failure);
