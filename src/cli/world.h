/* All objects of the store, or of files, in the calculation that programs the kernel: the commands
 * that ask what policies mean read its output. Every pod counts as if it ran here, so that one
 * calculation answers for all nodes. */
#pragma once

#include "cli/cli.h"
#include "policy/verdict.h"

/* A pod, or an endpoint without a Pod. */
struct world_pod {
    struct str ns, name, node;
    struct str_map labels;
    struct ip46 ips[2];
    bool has_ip[2]; /* IPv4, IPv6 */
    bool is_host_network, has_endpoint;
};

struct world {
    struct arena a;
    struct calc *calc;
    struct mirror *mirror;
    struct world_pod *pods; /* sorted by namespace and name */
    size_t n_pods, cap_pods;
    void (*seen)(void *arg, const struct kind *k, const struct object *o);
    void *seen_arg;
    uint16_t vxlan_port; /* of FelixConfiguration default, as is: */
    bool may_pods_send_vxlan;
    unsigned n_made_up; /* addresses given to pods of files, which have none */
};

/* files: of -f; none: the store. Pods of files have made-up addresses of 198.18.0.0/15 where they
 * have none. Errors are told on stderr; NULL then. */
struct world *world_open(char **files, size_t n_files);
/* The same, showing each object as it was written. */
struct world *world_open_seen(char **files, size_t n_files,
                              void (*seen)(void *arg, const struct kind *k, const struct object *o),
                              void *arg);
void world_free(struct world *w); /* accepts NULL */
const struct world_pod *world_find(const struct world *w, struct str ns, struct str name);
const struct world_pod *world_by_ip(const struct world *w, const struct ip46 *ip);

/* "tcp/80", "udp/53", "sctp/9", "icmp" into a packet without addresses. False: not understood. */
bool world_traffic(const char *word, struct packet *out);
/* Puts in addresses of one family that both have, IPv4 first. */
bool world_ends(const struct world_pod *src, const struct world_pod *dst, struct packet *p);
