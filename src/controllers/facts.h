/* What the loop knows of the cluster: pods, endpoints and nodes with their addresses, and which
 * automatic host endpoints and services of type LoadBalancer there are. Small records, no
 * documents: whoever acts on one reads the object itself again. */
#pragma once

#include "base/ip.h"
#include "base/jtree.h"

struct facts;

struct fact_pod {
    struct str node; /* empty: not scheduled */
    size_t n_ips;
    const struct ip46 *ips; /* all that its status and Calico's annotations tell */
    uint64_t shape;         /* of the labels and the account that its endpoints should have */
};
struct fact_endpoint {
    struct str key; /* in the store */
    struct str ns, pod, node;
    bool is_k8s; /* orchestrator */
    size_t n_ips;
    const struct ip46 *ips;
    uint64_t shape;
};
struct fact_node {             /* Calico's */
    struct str name, k8s_name; /* k8s_name.p NULL: of another orchestrator */
};

struct facts *facts_new(void);
void facts_free(struct facts *f); /* accepts NULL */

/* doc NULL: the object is gone. Names as in the store's key. */
void facts_pod(struct facts *f, struct str ns, struct str name, const struct jnode *doc);
void facts_endpoint(struct facts *f, struct str key, struct str ns, const struct jnode *doc);
void facts_node(struct facts *f, struct str name, const struct jnode *doc);
void facts_k8s_node(struct facts *f, struct str name, const struct jnode *doc);
void facts_hep(struct facts *f, struct str name, const struct jnode *doc);
void facts_service(struct facts *f, struct str ns, struct str name, const struct jnode *doc);

/* False: not there. Views live until the next change. */
bool facts_get_pod(const struct facts *f, struct str ns, struct str name, struct fact_pod *out);
bool facts_get_node(const struct facts *f, struct str name, struct fact_node *out);
bool facts_has_k8s_node(const struct facts *f, struct str name);
bool facts_has_auto_hep(const struct facts *f, struct str name, struct str *node);
/* Does the node that an address or a block belongs to still exist? A Calico Node of another
 * orchestrator does; else the Kubernetes Node decides. *k8s_name (may be NULL): its name there. */
bool facts_node_exists(const struct facts *f, struct str node, struct str *k8s_name);
/* Is it left over: of Kubernetes, its node gone, its pod gone or on a node that is there? */
bool facts_endpoint_is_left(const struct facts *f, const struct fact_endpoint *x);
/* Does anybody use the address: a pod, a node, a service, an endpoint that is not left over of this
 * pod? */
bool facts_ip_in_use(const struct facts *f, const struct ip46 *ip, struct str ns, struct str pod);

void facts_each_endpoint(const struct facts *f, struct str ns, struct str pod,
                         void (*cb)(void *arg, const struct fact_endpoint *x), void *arg);
void facts_each_node(const struct facts *f, void (*cb)(void *arg, const struct fact_node *n),
                     void *arg);
/* Every endpoint of all pods. */
void facts_each(const struct facts *f, void (*cb)(void *arg, const struct fact_endpoint *x),
                void *arg);
/* key: "NS/NAME". */
void facts_each_service(const struct facts *f, void (*cb)(void *arg, struct str key), void *arg);
void facts_each_auto_hep(const struct facts *f,
                         void (*cb)(void *arg, struct str name, struct str node), void *arg);
size_t facts_n_pods(const struct facts *f);

/* Of the labels and account that a WorkloadEndpoint has, or that convert_endpoint gives it. */
uint64_t facts_shape(const struct jnode *wep);
/* Addresses of a Pod document, all that it tells of. Returns their number, at most max. */
size_t facts_pod_ips(const struct jnode *pod, struct ip46 *out, size_t max);
