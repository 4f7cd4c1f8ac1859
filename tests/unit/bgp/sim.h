/* Many speakers in one process with a clock and a network of their own: deterministic by seed. A
 * connection is two streams with delay, a limited window and no loss (it stands for TCP: what a
 * network loses shows as delay, partition or reset). */
#pragma once

#include "bgp/speaker.h"

#define SIM_S 1000000000LL
#define SIM_MS 1000000LL

struct sim;

struct sim_node {
    struct speaker *s;
    struct speaker_config cfg;
    struct ip46 ip;
    unsigned i;
    bool is_down;
    unsigned n_up, n_down;       /* events seen */
    unsigned n_ready, n_removed; /* EVENT_READY; routes taken from the kernel */
    size_t n_fib;                /* prefixes that the kernel has now */
    struct bgp_fail last_fail;   /* of the last notification, sent or received */
};

struct sim *sim_new(unsigned n, uint64_t seed);
void sim_free(struct sim *m);
int64_t sim_now(const struct sim *m);
uint64_t sim_random(struct sim *m);
/* Node i: made with cfg (AS, router id and so on) at 10.0.0.0 + i + 1. */
struct sim_node *sim_node(struct sim *m, unsigned i);
void sim_start(struct sim *m, unsigned i, const struct speaker_config *cfg);
/* The process dies: its connections break (reset), or just say nothing more (is_silent). */
void sim_kill(struct sim *m, unsigned i, bool is_silent);
/* A peer configuration for node a's session to node b, with IPv4 and IPv6; change, then sim_peer.
 */
struct peer_config sim_peer_config(struct sim *m, unsigned a, unsigned b);
void sim_peer(struct sim *m, unsigned a, unsigned b, const struct peer_config *cfg);
/* Both ends, plain. */
void sim_link(struct sim *m, unsigned a, unsigned b);
/* Nothing passes between a and b, in either direction, until it is healed. sim_reset: their
 * connections break. */
void sim_cut(struct sim *m, unsigned a, unsigned b, bool is_now_cut);
void sim_reset(struct sim *m, unsigned a, unsigned b);
void sim_set_delay(struct sim *m, int64_t least, int64_t most);
/* Bytes that may be on their way in one direction of a connection. */
void sim_set_window(struct sim *m, size_t bytes);
/* Runs for t, or until quiet: nothing is under way but keepalives, for a second. */
void sim_run(struct sim *m, int64_t t);
bool sim_settle(struct sim *m, int64_t most);
/* "10.1.2.0/24" from node i, with communities etc. in attrs (NULL: none). */
void sim_originate(struct sim *m, unsigned i, const char *prefix, const struct attr_src *attrs);
void sim_withdraw(struct sim *m, unsigned i, const char *prefix);
/* The best route of a prefix at node i; false: none. from: node, or -1 for an own one. */
bool sim_best(struct sim *m, unsigned i, const char *prefix, int *from, struct route_view *out);
/* Number of routes of a prefix at node i. */
unsigned sim_paths(struct sim *m, unsigned i, const char *prefix);
unsigned sim_established(struct sim *m);
/* The peer's name at node a for b. */
const char *sim_peer_name(unsigned b);
