/* Work of the queue, done: what a key says, with the stores. Runs on a worker when a store is
 * behind a network, so it owns all that it uses. */
#pragma once

#include "controllers/gc.h"
#include "store/compact.h"
#include "store/store.h"

/* First letters of keys. */
enum job_kind {
    JOB_MIRROR = 'm',   /* "m:" the target's key */
    JOB_ENDPOINT = 'e', /* "e:" the WorkloadEndpoint's key */
    JOB_NODE = 'n',     /* "n:" Calico's node */
    JOB_HEP = 'h',      /* "h:" NAME NODE: a host endpoint and its node */
    JOB_SERVICE = 's',  /* "s:" NS/NAME */
    JOB_RELEASE = 'r',  /* "r:" handle */
    JOB_BLOCK = 'b',    /* "b:" NODE CIDR */
    JOB_GONE = 'd',     /* "d:" a node that is gone */
    JOB_MACHINE = 'v',  /* "v:" NS/NAME: is the virtual machine gone? */
    JOB_CONFIG = 'c',   /* "c:" status of KubeControllersConfiguration */
    JOB_COMPACT = 'o',  /* "o:" old revisions of the target are forgotten */
};

struct job {
    struct arena a;
    struct str key;
    /* what the loop adds when the job starts */
    bool has_labels, assigns_all, is_own_pods; /* pods' endpoints are the pods themselves */
    struct str node;                           /* of JOB_GONE: its name in Kubernetes */
    const struct jnode *auto_hep, *status;
    struct str *held; /* handles of a Service */
    size_t n_held;
    struct gc_alloc *allocs; /* of a handle */
    size_t n_allocs;
    struct str *endpoints; /* keys of endpoints that are left over of gone nodes */
    size_t n_endpoints;
    struct store_compaction compaction; /* in and out */
    /* the answer */
    int result;
    size_t n_released;
    bool is_known, is_gone; /* JOB_MACHINE */
    struct err e;
};

/* Whole key of a job; view of the rest. */
struct str job_key(enum job_kind k, struct str rest, struct arena *a);
struct str job_rest(struct str key);

void job_run(struct job *j, struct store *source, struct store *target);
