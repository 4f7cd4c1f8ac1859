/* What is done for one node, endpoint or host endpoint at a time. Calls block; each reads what it
 * acts on again and writes only if nobody else did meanwhile. */
#pragma once

#include "model/model.h"
#include "store/store.h"

/* Labels and account of the pod into the WorkloadEndpoint of this key. A pod that is gone changes
 * nothing: its endpoint is the CNI plugin's to delete. */
MG_NODISCARD int endpoint_sync(struct store *source, struct store *target, struct str key,
                               struct err *e);
/* Labels of the Kubernetes Node into Calico's, if asked; Calico's Node is deleted when the
 * Kubernetes Node that it stands for is gone. Nodes of other orchestrators are left alone. */
MG_NODISCARD int node_sync(struct store *source, struct store *target, struct str name,
                           bool has_labels, struct err *e);
/* The automatic host endpoint of this name, as its node and config ask for; node: its node, by what
 * is known. A host endpoint that no controller made is never touched. */
MG_NODISCARD int hep_sync(struct store *target, struct str name, struct str node,
                          const struct jnode *config, struct err *e);
