/* The speaker as a process: the engine (speaker.h) on an event loop with its sockets, BFD and the
 * kernel's routes. One configuration at a time; a new one touches only what differs. */
#pragma once

#include "base/loop.h"
#include "bgp/bfd_io.h"
#include "bgp/conf.h"
#include "bgp/kernel.h"
#include "bgp/monitor.h"

struct bgp_proc;

struct bgp_proc_options {
    bool is_alone;
    bool no_kernel; /* speak only: nothing is read from the kernel or written to it */
};

/* Caller owns *out. */
MG_NODISCARD int bgp_proc_new(struct loop *l, const struct bgp_proc_options *o,
                              struct bgp_proc **out, struct err *e);
/* Takes take_conf over, also on failure. The first call begins everything; its failure (a port is
 * taken) is final. Later ones go on with what works and try the rest again. */
MG_NODISCARD int bgp_proc_apply(struct bgp_proc *p, struct bgp_conf *take_conf, struct err *e);
/* Ends: peers that keep routes through a restart keep ours, the kernel keeps all. Accepts NULL. */
void bgp_proc_free(struct bgp_proc *p);

/* For what looks in (ctl.c). NULL before the first configuration. */
struct speaker *bgp_proc_speaker(const struct bgp_proc *p);
struct bgp_kernel *bgp_proc_kernel(const struct bgp_proc *p);
struct bgp_monitor *bgp_proc_monitor(const struct bgp_proc *p);
const struct bgp_conf *bgp_proc_conf(const struct bgp_proc *p);
const struct conf_peer *bgp_proc_peer(const struct bgp_proc *p, uint16_t peer); /* NULL: none */
/* False: no BFD session now. */
bool bgp_proc_bfd(const struct bgp_proc *p, uint16_t peer, struct bfd_status *out);
int64_t bgp_proc_started_wall_ns(const struct bgp_proc *p);
int64_t bgp_proc_applied_wall_ns(const struct bgp_proc *p); /* of the last configuration */
/* Call after engine functions called from outside. */
void bgp_proc_kick(struct bgp_proc *p);
