/* The agent's end of CNI: takes requests from margay-cni (cni/wire.h) and carries them out. ADD
 * answers when the pod's addresses are recorded, its policy is in the kernel and its interface is
 * up; anything that fails undoes what was done before it. DELs that come together share one removal
 * in the kernel. All on one loop; only the kernel's slow removals go to a worker. */
#pragma once

#include "base/loop.h"
#include "dataplane/links.h"
#include "model/model.h"
#include "store/worker.h"

struct cni_server;
struct dataplane_nat;
struct ipam;

enum { CNI_SERVER_MAX_REQUESTS = 200 };

struct cni_server_settings {
    struct str node_name;
    struct str iface_prefix; /* of pods' host sides; empty: "cali" */
    struct links *links;     /* not owned */
    /* Has a folder "attachments" of the server's; NULL: host ports and rates end with it. */
    const char *state_dir;
    /* The store holds Calico's objects alone (etcd): Pods are asked of the API server of the
     * network configuration's kubernetes.kubeconfig, if there is one. */
    bool may_ask_kube;
};

enum cni_health {
    CNI_HEALTHY,
    CNI_NO_STORE,    /* no ADD would succeed */
    CNI_NO_DATAPATH, /* nor is it sure that the pods that run have the network that they should */
};

struct cni_server_ops {
    /* Calls cb once: with 0 when the write of that key with that revision is enforced in the
     * kernel, negative when that can't be had in time. May call it from inside; not after
     * cni_server_free. */
    void (*when_enforced)(void *arg, struct str key, uint64_t revision, int64_t timeout_ms,
                          void (*cb)(void *cb_arg, int code), void *cb_arg);
    /* Host ports that lead to owner, in place of what did: dataplane_set_nat, and written. */
    void (*set_nat)(void *arg, struct str owner, const struct dataplane_nat *v, size_t n);
    /* For STATUS; why: a sentence. NULL: always healthy. */
    enum cni_health (*health)(void *arg, char *why, size_t cap);
};

/* Reads this node's WorkloadEndpoints once, if the store answers at once; else the caller tells of
 * them (cni_server_endpoint) before the first connection. Store and ipam are used in w's jobs
 * alone. Texts in settings are copied; store, worker, ipam and loop must outlive the server. Works
 * in the calling thread's network namespace. NULL with e. */
struct cni_server *cni_server_new(struct loop *l, struct store *s, struct store_worker *w,
                                  struct ipam *ipam, const struct cni_server_settings *settings,
                                  const struct cni_server_ops *ops, void *arg, struct err *e);
/* Ends open requests without an answer (their plugins tell the runtime to try again) and waits for
 * a removal that runs. ops are not called any more. The worker has been freed before. */
void cni_server_free(struct cni_server *s);

/* One connection whose first bytes are a REQUEST, not yet read (the caller peeks), from a peer that
 * the caller has checked. Above CNI_SERVER_MAX_REQUESTS it is answered with code 11. */
void cni_server_connection(struct cni_server *s, int take_fd);

/* A resource changed or went: Pods that requests wait for, what addresses come from. To be called
 * for every change of Pod, IPPool, IPReservation, IPAMConfiguration and both kinds of Node that the
 * syncer tells of; for other kinds it does nothing. */
void cni_server_object(struct cni_server *s, const struct kind *kind, struct str ns,
                       struct str name);

/* A Pod of this node, when it appears and after every change: its annotations' rates. */
void cni_server_pod(struct cni_server *s, struct str ns, struct str name,
                    const struct str_map *annotations);

/* A WorkloadEndpoint as the store has it; those of other nodes are passed over. */
void cni_server_endpoint(struct cni_server *s, const struct store_item *it);

/* MTU of interfaces from now on, where the configuration says none; 0 (at first): the kernel's
 * default. */
void cni_server_set_mtu(struct cni_server *s, uint32_t mtu);

/* Carries out the DELs that plugins left in the folder (cni/wire.h, "Spool"), oldest first, and
 * removes their files when they are done. To be called at start and now and then. Returns how many
 * it began, or -errno. */
int cni_server_spool(struct cni_server *s, const char *dir);

/* Looks after host ports and rates: those whose attachment has gone, and what somebody removed. To
 * be called when the store's endpoints are all known, and now and then. */
void cni_server_tend(struct cni_server *s);

struct cni_server_stats {
    size_t n_requests;    /* open now */
    size_t n_attachments; /* of this node */
    uint64_t adds, dels, checks, others, errors;
    uint64_t removals;          /* batches of links removed together */
    uint64_t spooled;           /* DELs taken from the spool */
    int64_t last_add_ns;        /* from the request's last byte to the answer */
    int64_t last_add_kernel_ns; /* of that: making the interface */
};
void cni_server_stats(const struct cni_server *s, struct cni_server_stats *out);
