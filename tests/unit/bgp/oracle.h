/* What each speaker of a topology must end up with, worked out by brute force: everyone looks at
 * what all neighbours have chosen, again and again, until nobody changes his mind. No messages, no
 * tables, no code of the engine. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { ORC_NODES = 1000, ORC_PATH = 64 };

struct orc_route {
    bool has;
    int from; /* neighbour; -1: own */
    bool is_external, from_client;
    uint32_t originator; /* 0: none */
    unsigned n_path, n_clusters;
    uint32_t path[ORC_PATH], clusters[ORC_PATH];
};

struct oracle {
    unsigned n;
    uint32_t as[ORC_NODES], id[ORC_NODES];
    bool *link;   /* [a * n + b] */
    bool *client; /* b is a's reflector client */
    bool *origin; /* of the prefix looked at */
    struct orc_route *best;
};

struct oracle *oracle_new(unsigned n);
void oracle_free(struct oracle *o);
void oracle_link(struct oracle *o, unsigned a, unsigned b);
/* Fills best[] for the prefix that origin[] names. */
void oracle_solve(struct oracle *o);
