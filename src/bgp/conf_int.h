/* Shared by the files that build a struct bgp_conf: the resources by kind, and small readers. */
#pragma once

#include "base/vec.h"
#include "bgp/conf.h"

struct conf_node {
    struct str name;
    struct prefix addr[BGP_N_FAMILIES]; /* with the subnet's length; IP_NONE: none */
    uint32_t as;                        /* 0: none of its own */
    uint32_t cluster_id;                /* 0: no reflector */
    const struct str_map *labels;
    bool has_wireguard[BGP_N_FAMILIES];
};

struct conf_pool {
    struct prefix cidr;
    struct str name;
    bool is_vxlan, is_ipip, is_cross, is_hidden; /* hidden: disableBGPExport */
};

struct conf_filters {
    const void *key; /* of the list of names */
    enum bgp_family family;
    bool is_ibgp;
    struct bgp_filter *import, *export;
};

struct build {
    const struct conf_input *in;
    struct bgp_conf *out;
    struct arena *a; /* of out */
    struct arena scratch;
    const struct object **objects; /* sorted by kind, namespace, name */
    size_t n_objects;
    VEC(struct conf_node) nodes;
    VEC(struct conf_pool) pools;
    VEC(struct conf_block) blocks; /* own, confirmed */
    VEC(struct conf_peer) peers;
    VEC(struct conf_filters) filters;
    VEC(struct conf_route) routes;
    VEC(struct conf_kernel_rule) kernel;
    VEC(struct str) problems;
    VEC(struct str) local_links;
    const struct conf_node *self;     /* NULL: there is no such Node */
    const struct jnode *global, *own; /* specs of BGPConfiguration default, node.NAME */
    uint32_t as;                      /* own */
    bool felix_owns_ipip;
};

/* The first object of a kind; iterate with conf_next. */
const struct object *conf_first(const struct build *b, enum kind_id kind, size_t *at);
const struct object *conf_next(const struct build *b, enum kind_id kind, size_t *at);
void conf_problem(struct build *b, const char *fmt, ...) MG_PRINTF(2, 3);

const struct jnode *conf_get(const struct jnode *map, const char *name);
struct str conf_str(const struct jnode *map, const char *name); /* STR_NULL: absent */
bool conf_bool(const struct jnode *map, const char *name, bool dflt);
int64_t conf_int(const struct jnode *map, const char *name, int64_t dflt);
uint32_t conf_as(const struct jnode *map, const char *name); /* 0: absent */
uint32_t conf_as_of(const struct jnode *n); /* a number, or text with or without a dot */
/* Nanoseconds; -1: absent or no duration. */
int64_t conf_duration_ns(const struct jnode *map, const char *name);
/* Whole seconds, rounded, from 0 to max; dflt: absent. */
uint32_t conf_seconds(const struct jnode *map, const char *name, uint32_t max, uint32_t dflt);
/* A field of BGPConfiguration: node.NAME's, else default's. */
const struct jnode *conf_setting(const struct build *b, const char *name);
/* The same for another node. */
uint16_t conf_listen_port(const struct build *b, struct str node);
/* Does the selector match? A broken one matches nothing and is a problem of `what`. */
bool conf_matches(struct build *b, struct str selector, const struct str_map *labels,
                  const char *what);
/* Password of a secretKeyRef below map; STR_NULL: none is asked for, or (a problem) it is not
 * there. */
struct str conf_password(struct build *b, const struct jnode *map, const char *what);
/* Keys of a list tcpAO; what is missing is a problem. */
struct ao_keys conf_ao(struct build *b, const struct jnode *list, const char *what);

/* conf_filter.c */
struct bgp_filter *conf_import(struct build *b, const struct jnode *filters, enum bgp_family f,
                               const char *what);
struct bgp_filter *conf_export(struct build *b, const struct jnode *filters, enum bgp_family f,
                               bool is_ibgp, const char *what);
/* conf_peers.c, conf_service.c, conf_monitor.c */
void conf_add_peers(struct build *b);
/* "A", "A:PORT", "[V6]:PORT"; *port 0: not said. False: none of these. */
bool conf_where(struct str s, struct ip46 *ip, uint16_t *port);
void conf_read_monitor(struct build *b);
void conf_add_services(struct build *b);
/* The CIDRs of a list of {cidr} in BGPConfiguration default. */
size_t conf_cidrs(struct build *b, const char *list, struct prefix **out);
