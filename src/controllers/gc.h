/* Which addresses, blocks and nodes' shares nobody needs any more. It is told of every block and
 * asks facts.h; it decides, others do it.
 *
 * An address of a pod is given up on two proofs together: the pod is gone (or is on another node,
 * or has other addresses), and nobody else uses the address (facts_ip_in_use). Both must hold in
 * two passes at least and for the whole grace; if the node is gone too, a short while is enough. A
 * pod that exists keeps every address that it tells of. All addresses of a handle go together, or
 * none. Addresses of tunnels go with their node, when nothing else of the node is left. What says
 * nothing of its owner, and what Windows holds, is never given up.
 *
 * An address of a virtual machine is given up when the machine is gone (it may stand still for
 * years), and no pod has it: not before GC_MACHINE_NS, whatever became of the node, so that a
 * machine that is made anew has its address again. */
#pragma once

#include "controllers/facts.h"
#include "ipam/ipam.h"

struct gc;

#define GC_NODE_GONE_NS (10 * 1000000000LL) /* between two looks at what a gone node had */

#define GC_MACHINE_NS (300 * 1000000000LL) /* Calico's vmRecreationGracePeriod */

struct gc *gc_new(void);
void gc_free(struct gc *g); /* accepts NULL */

/* An item of the IPAM space; only blocks count. value STR_NULL: deleted. One that can't be read
 * stays known as it was last. */
void gc_item(struct gc *g, struct str key, struct str value);
/* A pool, for metrics; cidr NULL: gone. */
void gc_pool(struct gc *g, struct str name, const struct prefix *cidr);

struct gc_ops {
    void (*release_handle)(void *arg, struct str handle);
    void (*release_block)(void *arg, struct str node, const struct prefix *cidr);
    void (*release_node)(void *arg, struct str node);
    /* Is the machine gone? gc_machine is told, before the next pass. */
    void (*ask_machine)(void *arg, struct str ns, struct str name);
};
/* One pass over everything. grace_ns 0: only what gone nodes have is given up. True: look again
 * after GC_NODE_GONE_NS. */
bool gc_pass(struct gc *g, const struct facts *f, int64_t now_ns, int64_t grace_ns,
             const struct gc_ops *ops, void *arg);

/* The answer to ask_machine, as it is now; without one the machine's addresses stay. */
void gc_machine(struct gc *g, struct str ns, struct str name, bool is_gone);

struct gc_alloc {
    struct ip46 ip;
    struct str handle, ns, pod, node, type, service;
    struct str machine, other_pod; /* of a virtual machine: its name, the alternate owner's pod */
    int64_t sequence;
    bool is_virtual; /* of the LoadBalancer's blocks */
};
/* What to release for a handle: each is confirmed by the last pass. Returns the number, 0: nothing
 * (any more). Copied to the arena. */
size_t gc_confirmed(const struct gc *g, struct str handle, struct arena *a, struct gc_alloc **out);
void gc_released(struct gc *g, const struct gc_alloc *v); /* for the counters */

/* All addresses that a Service has, by the books. */
void gc_each_of_service(const struct gc *g, struct str ns, struct str service,
                        void (*cb)(void *arg, const struct gc_alloc *x), void *arg);
void gc_each_service_alloc(const struct gc *g, void (*cb)(void *arg, const struct gc_alloc *x),
                           void *arg);

/* Prometheus text with Calico's names. */
void gc_metrics(const struct gc *g, const struct facts *f, struct buf *out);
