/* Keeps the token in the kubeconfig of a runtime's folder valid, as calico-node does: asks the API
 * server for a token of the CNI plugin's service account (24 h) and writes the file anew after a
 * quarter of the time that is left and up to as much again at random, and when the files of the
 * agent's own service account change. Settings are environment variables of Calico's names:
 *
 *     CALICO_MANAGE_CNI           "true": do it; anything else: nothing is written
 *     CNI_NET_DIR                 the folder; default /host/etc/cni/net.d if it is there, else
 *                                 /etc/cni/net.d
 *     KUBECONFIG_FILE_NAME        default margay-kubeconfig
 *     CALICO_CNI_SERVICE_ACCOUNT  default calico-cni-plugin; of the agent's own namespace, else
 *                                 kube-system
 *     CNI_TOKEN_REFRESH_INTERVAL  a duration in place of the quarter
 *     MARGAY_TOKEN_DIR            where the agent's own service account is mounted */
#pragma once

#include "store/worker.h"

struct cnitoken;

/* *out NULL with 0: it is not wanted. ERR_INVALID: a setting can't be; e names it. Store calls run
 * on w. */
MG_NODISCARD int cnitoken_new(struct loop *l, struct store_worker *w, struct cnitoken **out,
                              struct err *e);
/* Accepts NULL. The worker has been freed before. */
void cnitoken_free(struct cnitoken *t);
