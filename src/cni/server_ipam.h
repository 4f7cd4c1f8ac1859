/* What the CNI server asks of address management, in steps (cni_step); server_ipam_blocks.c answers
 * by src/ipam. All but the status is called between store_begin and store_commit or alone; a
 * rollback undoes it where the store can. */
#pragma once

#include "base/ip.h"
#include "cni/server.h"

struct cni_ipam_want {
    struct str handle;               /* under which the addresses are held */
    struct str ns, pod;              /* attributes; empty: none */
    struct str_map attrs;            /* further ones */
    unsigned max_held;               /* addresses of a family under the handle; 0: any number */
    const struct str_map *ns_labels; /* of the pod's Namespace; NULL: not known */
    const struct ip46 *ips;          /* exactly these; else by number */
    size_t n_ips;
    unsigned n_v4, n_v6;
    struct str_list pools_v4, pools_v6; /* names or CIDRs; not set: all that select node and pod */
};

/* Addresses for w into out (room for max), each with the mask of its block. All or none.
 * ERR_INVALID: a pool or address that can't be had by anyone; ERR_NO_SPACE: none is free. */
MG_NODISCARD int cni_ipam_assign(struct cni_server *s, const struct cni_ipam_want *w,
                                 struct prefix *out, size_t max, size_t *n, struct err *e);
/* What w's handle holds already: its active (or alternate) owner is now w's pod. Whole addresses.
 * ERR_NOT_FOUND: it holds nothing. */
MG_NODISCARD int cni_ipam_reuse(struct cni_server *s, const struct cni_ipam_want *w,
                                bool is_alternate, struct prefix *out, size_t max, size_t *n,
                                struct err *e);
/* Do virtual machines keep their addresses? As the store says now. */
MG_NODISCARD int cni_ipam_persists(struct cni_server *s, bool *out, struct err *e);
/* Gives back all that the handle holds; nothing is fine. */
MG_NODISCARD int cni_ipam_release(struct cni_server *s, struct str handle, struct err *e);
/* What the handle holds. ERR_NOT_FOUND: nothing. */
MG_NODISCARD int cni_ipam_held(struct cni_server *s, struct str handle, struct ip46 *out,
                               size_t max, size_t *n, struct err *e);
/* 0, or why no address could be given to anybody now. */
MG_NODISCARD int cni_ipam_ready(struct cni_server *s, struct err *e);
/* Frees what was read of pools and settings. */
void cni_pools_forget(struct cni_server *s);
