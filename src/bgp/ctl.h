/* The process's own socket, RUN_DIR/bgp.sock (0600): one line asks, the answer ends with the
 * connection. Its first line is "ok", or "error TEXT".
 *   status                            JSON: speaker, peers, kernel
 *   routes FAMILY [sent PEER]         a JSON object a line; FAMILY IPv4 or IPv6
 *   explain PREFIX [PEER]             text
 *   metrics                           Prometheus' text format
 *   nodestatus CLASS[,CLASS…]         JSON: status of a CalicoNodeStatus; CLASS Agent, BGP, Routes
 *   dump                              the table as MRT records (RFC 6396), behind the first line
 *   reset PEER | refresh PEER         ends the session and begins anew; sends routes again both
 *                                     ways
 * PEER is a session's or a BGPPeer's name, or an address. */
#pragma once

#include "base/loop.h"
#include "bgp/proc.h"

struct bgp_ctl;
enum { BGP_CTL_CONNECTIONS_MAX = 32, BGP_CTL_REQUEST_MAX = 512 };

/* Makes the folder if need be. A socket that a living process serves is refused. */
MG_NODISCARD int bgp_ctl_new(struct loop *l, struct bgp_proc *p, const char *run_dir,
                             struct bgp_ctl **out, struct err *e);
void bgp_ctl_free(struct bgp_ctl *c); /* accepts NULL; removes the socket */

/* report.c */
void bgp_report_status(struct bgp_proc *p, int64_t now_ns, struct buf *out);
void bgp_report_metrics(struct bgp_proc *p, struct buf *out);
void bgp_report_route(struct bgp_proc *p, const struct route_view *v, struct buf *out);
void bgp_report_explain(struct bgp_proc *p, const struct prefix *net, uint16_t peer,
                        struct buf *out);
/* report_node.c */
void bgp_report_node_status(struct bgp_proc *p, int64_t now_ns, struct str classes,
                            struct buf *out);
/* 0: none of that name. */
uint16_t bgp_report_find(const struct bgp_proc *p, struct str name);
