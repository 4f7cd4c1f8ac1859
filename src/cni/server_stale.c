/* UDP to a port of the host that leads to a pod from now on: connections that the kernel has
 * tracked since before go on where they went (to nobody, or to a pod that has gone) for as long as
 * their clients send. So they are deleted when the port's rule is in the kernel and before ADD
 * answers. The kernel's walk of its table takes some 10 ms: on a worker, one walk for all that wait
 * by then. (TCP connects anew; the reference plugin portmap does UDP alone, too.) */
#include "cni/server_extra.h"
#include "netlink/addr.h"
#include "netlink/conntrack.h"

#include <netinet/in.h>

struct stale_job {
    struct cni_server *s;
    VEC(struct cni_request *) requests;
    VEC(struct conntrack_port) ports;
    VEC(struct ip46) hosts;
};

static void start(struct cni_server *s);

static int take_host(void *arg, const struct addr *a) {
    vec_push(&((struct stale_job *)arg)->hosts, a->net.ip);
    return 0;
}

static void work(void *arg) {
    struct stale_job *j = arg;
    MG_CLEANUP(nl_close_p) struct nl *nl = NULL;
    struct err e = {0};
    size_t n = 0;
    int r = nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &nl, &e);
    r = r < 0 ? r : addr_dump(nl, 0, take_host, j, &e);
    r = r < 0 ? r
              : conntrack_flush_ports(j->s->stale_conntrack, j->ports.p, j->ports.n, j->hosts.p,
                                      j->hosts.n, &n, &e);
    if (r < 0) {
        LOG_W("cni", "stale_udp_not_removed", "error=%s", log_quote(str_c(e.msg)));
    } else if (n) {
        LOG_I("cni", "stale_udp_removed", "connections=%zu", n);
    }
}

static void worked(void *arg) {
    struct stale_job *j = arg;
    struct cni_server *s = j->s;
    s->is_stale_busy = false;
    for (size_t i = 0; i < j->requests.n && !s->is_closing; i++) {
        struct cni_request *r = j->requests.p[i];
        if (!cni_unref(r)) {
            r->stale_next(r);
        }
    }
    vec_fini(&j->requests);
    vec_fini(&j->ports);
    vec_fini(&j->hosts);
    free(j);
    if (!s->is_closing && s->stale_waiting.n) {
        start(s);
    }
}

static void take_ports(struct stale_job *j, const struct cni_extra *x) {
    for (size_t i = 0; i < x->n_ports; i++) {
        const struct dataplane_nat *p = &x->ports[i];
        if (p->protocol == IPPROTO_UDP) {
            struct conntrack_port port = {
                .protocol = p->protocol, .port = p->port, .host = p->from, .to = p->to};
            vec_push(&j->ports, port);
        }
    }
}

static void start(struct cni_server *s) {
    struct stale_job *j = calloc(1, sizeof(*j));
    mg_assert(j != NULL);
    j->s = s;
    if (!s->stale_conntrack) {
        s->stale_conntrack = conntrack_new();
    }
    for (size_t i = 0; i < s->stale_waiting.n; i++) {
        struct cni_request *r = s->stale_waiting.p[i];
        const struct cni_extra *x =
            cni_extra_find(s, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
        vec_push(&j->requests, r);
        if (x) {
            take_ports(j, x);
        }
    }
    vec_clear(&s->stale_waiting);
    s->is_stale_busy = true;
    loop_work(s->loop, work, worked, j);
}

void cni_stale_remove(struct cni_request *r, void (*next)(struct cni_request *r)) {
    struct cni_server *s = r->s;
    const struct cni_extra *x =
        cni_extra_find(s, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    bool has_udp = false;
    for (size_t i = 0; x && i < x->n_ports; i++) {
        has_udp |= x->ports[i].protocol == IPPROTO_UDP;
    }
    if (!has_udp) {
        next(r);
        return;
    }
    r->stale_next = next;
    r->n_pending++;
    vec_push(&s->stale_waiting, r);
    if (!s->is_stale_busy) {
        start(s);
    }
}

void cni_stale_free(struct cni_server *s) {
    while (s->is_stale_busy) {
        loop_step(s->loop, true);
    }
    vec_fini(&s->stale_waiting);
    conntrack_free(s->stale_conntrack);
}
