/* What operators see from outside: BMP to stations (RFC 7854) and MRT to files (RFC 6396). Fed by
 * what the engine tells (messages, events); the tables are read from it in slices. A station that
 * reads slowly is given up and begun anew; nothing here ever holds the speaker back. */
#pragma once

#include "base/loop.h"
#include "bgp/conf.h"
#include "bgp/mrt.h"

struct bgp_monitor;

struct monitor_stats {
    size_t n_stations, n_connected;
    uint64_t n_sent_bytes, n_lost; /* lost: stations given up because they did not read */
    uint64_t n_mrt_records, n_mrt_failures;
};

struct bgp_monitor *bgp_monitor_new(struct loop *l);
/* Tells stations that it is over. Accepts NULL. */
void bgp_monitor_free(struct bgp_monitor *m);
/* The speaker and its configuration, which live until the next call. */
void bgp_monitor_configure(struct bgp_monitor *m, const struct speaker *s,
                           const struct bgp_conf *c);
void bgp_monitor_stats(const struct bgp_monitor *m, struct monitor_stats *out);

/* From the engine's callbacks: these call nothing of it but speaker_peer_config. */
void bgp_monitor_message(struct bgp_monitor *m, uint16_t peer, bool is_sent, const uint8_t *p,
                         size_t n);
void bgp_monitor_event(struct bgp_monitor *m, const struct speaker_event *e);
/* A peer is configured no more, and its session is over. */
void bgp_monitor_forget(struct bgp_monitor *m, uint16_t peer);
/* The addresses and ports of a peer's connection. */
void bgp_monitor_conn(struct bgp_monitor *m, uint16_t peer, const struct ip46 *local, uint16_t port,
                      uint16_t remote_port);

/* A dump of the table as it is now; the caller ends it with mrt_dump_fini. */
void bgp_monitor_dump(struct bgp_monitor *m, struct mrt_dump *d, struct buf *b);
