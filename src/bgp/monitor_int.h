/* Shared by the files of monitor.h. */
#pragma once

#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "bgp/bmp.h"
#include "bgp/monitor.h"

/* A peer as stations and files are told of it. */
struct seen {
    struct mrt_peer m;
    uint16_t port, remote_port;
    bool is_up;
    struct buf sent, received; /* the last OPENs */
};

#define MAP_NAME seen_map
#define MAP_KEY uint32_t
#define MAP_VAL struct seen *
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct station;
struct mrt_files;

struct bgp_monitor {
    struct loop *loop;
    const struct speaker *speaker;
    const struct bgp_conf *conf;
    struct seen_map peers;
    VEC(struct station *) stations;
    struct mrt_files *files; /* NULL: none are asked for */
    struct monitor_stats stats;
};

struct bmp_peer monitor_bmp_peer(const struct seen *p, int64_t wall_ns);

/* monitor_bmp.c: the stations as configured. */
void stations_configure(struct bgp_monitor *m);
void stations_free(struct bgp_monitor *m);
void stations_up(struct bgp_monitor *m, const struct seen *p);
void stations_down(struct bgp_monitor *m, const struct seen *p, const struct bgp_fail *f,
                   bool is_sent);
void stations_update(struct bgp_monitor *m, const struct seen *p, const uint8_t *update, size_t n);

/* monitor_mrt.c */
void files_configure(struct bgp_monitor *m);
void files_free(struct bgp_monitor *m);
void files_message(struct bgp_monitor *m, const struct seen *p, const uint8_t *message, size_t n);
void files_state(struct bgp_monitor *m, const struct seen *p, enum bgp_state old,
                 enum bgp_state state);
