/* Virtual machines of KubeVirt, as far as they decide about addresses: which pod is a machine's,
 * whether the machine is still there, how its migration goes. Objects of kubevirt.io/v1 are read
 * from the Kubernetes API one by one when they are needed; all of it blocks. Source of the rules:
 * Calico's libcalico-go/lib/kubevirt and kube-controllers' IPAM collector.
 *
 * VirtualMachineInstance (VMI): one run of a machine; its pod is virt-launcher-NAME-xxxxx.
 * VirtualMachine (VM): what runs are made of, under the same name; there are instances without. */
#pragma once

#include "base/jtree.h"
#include "store/store.h"

/* At the pod that is to take a machine over: the uid of the migration. */
#define MACHINE_MIGRATION_LABEL "kubevirt.io/migrationJobUID"

struct machine {
    struct str name;          /* of the instance, and of its VM */
    struct str vmi_uid;       /* of the instance */
    struct str vm_uid;        /* empty: an instance that no VM owns */
    struct str migration_uid; /* the pod is to take the machine over; else empty */
};

/* By its name: may it be a machine's pod at all? */
bool machine_is_launcher(struct str pod);
/* The machine's name that such a pod's name has in it; STR_NULL when it may be cut off. */
struct str machine_name_of_launcher(struct str pod);
/* Handle of a machine's addresses, NETWORK.vmi.NAMESPACE.NAME, at most 128 bytes. */
struct str machine_handle(struct str network, struct str ns, struct str name, struct arena *a);

/* Namespace and name of the machine that an allocation (its attributes in a block) is of, as views:
 * one of its owners names it; while nobody owns it its handle does, unless that ends in a hash. */
bool machine_of_allocation(const struct jnode *attr, struct str handle, struct str *ns,
                           struct str *name);

/* Whose a Pod document is: 1, *out is filled; 0: no machine's. ERR_INVALID: the instance that it
 * names is another one by now. ERR_NOT_FOUND: it is gone. */
MG_NODISCARD int machine_of_pod(struct store *kube, struct str ns, const struct jnode *pod,
                                struct arena *a, struct machine *out, struct err *e);

enum machine_life {
    MACHINE_LIVES, /* running or not: it may be started again */
    MACHINE_ENDS,  /* is being deleted */
    MACHINE_GONE,
};
/* By its VM; if there is none, by an instance that no VM owns. An error (KubeVirt not installed, no
 * right to read, no answer) says nothing of the machine. */
MG_NODISCARD int machine_life(struct store *kube, struct str ns, struct str name,
                              enum machine_life *out, struct err *e);

enum machine_move { MOVE_RUNS, MOVE_DONE };
/* Has the migration moved the machine to this node? A migration that is over and forgotten is
 * judged by where the instance says that it runs. */
MG_NODISCARD int machine_move(struct store *kube, struct str ns, struct str name,
                              struct str migration_uid, struct str node, enum machine_move *out,
                              struct err *e);
