/* Host ports and rates of attachments (server_extra.c, server_shape.c). Only for src/cni/server*.c.
 */
#pragma once

#include "cni/server_int.h"
#include "dataplane/dataplane.h"

enum cni_way { CNI_TO_POD, CNI_FROM_POD, CNI_N_WAYS };

struct cni_rate {
    uint64_t rate;  /* bytes a second; 0: no limit */
    uint64_t burst; /* bytes */
};

struct cni_extra {
    struct cni_extra *next;
    struct arena arena;
    struct str container, ifname, iface;
    struct dataplane_nat *ports;
    size_t n_ports;
    struct cni_rate rates[CNI_N_WAYS]; /* in force */
    struct cni_rate base[CNI_N_WAYS];  /* the runtime's, where no annotation says another */
};

/* What annotations of a Pod say. */
struct cni_asked {
    struct cni_rate rates[CNI_N_WAYS];
    bool is_named[CNI_N_WAYS];
};

struct cni_extra *cni_extra_find(struct cni_server *s, struct str container, struct str ifname);
/* Opens STATE_DIR/attachments and takes what is there. */
MG_NODISCARD int cni_extras_load(struct cni_server *s, const char *state_dir, struct err *e);
void cni_extras_free(struct cni_server *s);
/* r's, from its configuration and annotations; its addresses are known. Ports are in the kernel, or
 * in what it is to have next. -1: r->fail. */
MG_NODISCARD int cni_extra_add(struct cni_request *r);
void cni_extra_drop(struct cni_server *s, struct str container, struct str ifname);
/* A running pod's annotations say this now. */
void cni_extra_ask(struct cni_server *s, const struct cni_attachment *t, const struct cni_asked *a);

/* ---- server_shape.c ---- */
/* Fills x->rates. -1: r->fail. */
MG_NODISCARD int cni_shape_read(struct cni_request *r, struct cni_extra *x);
/* Makes the kernel so where it isn't; nothing while the interface isn't there. */
MG_NODISCARD int cni_shape_apply(struct cni_server *s, const struct cni_extra *x, struct err *e);
/* Makes the kernel so after a change; was: what it had. */
MG_NODISCARD int cni_shape_change(struct cni_server *s, const struct cni_extra *x,
                                  const struct cni_rate was[CNI_N_WAYS], struct err *e);
/* What was told of Pods before their attachments were known. */
void cni_shape_catch_up(struct cni_server *s);
void cni_early_free(struct cni_server *s);
/* What of it doesn't go with the pod's interface. */
void cni_shape_remove(struct cni_server *s, const struct cni_extra *x);

/* ---- server_stale.c ---- */
/* r's ports are in the kernel: removes connections that know nothing of it, then next(r). */
void cni_stale_remove(struct cni_request *r, void (*next)(struct cni_request *r));
/* Waits for the removal that runs; requests are not told. */
void cni_stale_free(struct cni_server *s);
