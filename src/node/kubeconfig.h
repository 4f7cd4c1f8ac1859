/* The kubeconfig that stands in a runtime's folder beside the network configuration: for Multus and
 * whoever else looks there (our plugin asks the agent). */
#pragma once

#include "base/buf.h"

#define KUBECONFIG_NAME "margay-kubeconfig"
/* Where a pod finds the files of its service account. */
#define KUBECONFIG_TOKEN_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

struct kubeconfig {
    struct str server; /* URL */
    struct str ca_pem; /* STR_NULL: the system's authorities */
    bool is_insecure;
    struct str token;
};
void kubeconfig_put(const struct kubeconfig *c, struct buf *b);
