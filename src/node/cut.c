#include "node/cut.h"

#include "base/log.h"
#include "base/vec.h"
#include "netlink/conntrack.h"

#include <stdlib.h>

enum { PAUSE_MS = 50 }; /* changes that come together are looked at together */

struct cut {
    struct loop *loop;
    struct mirror *mirror;
    struct loop_timer *timer;
    struct conntrack *conntrack;
    bool is_busy, is_asked, is_closing;
    VEC(struct ip46) own;
    /* The worker's while is_busy. */
    VEC(struct ip46) pods;
    struct conn *conns;
    size_t n_conns, n_deleted;
    int code;
    struct err e;
};

static void finish(struct cut *x) {
    loop_timer_free(x->timer);
    conntrack_free(x->conntrack);
    mirror_free(x->mirror);
    vec_fini(&x->pods);
    vec_fini(&x->own);
    free(x->conns);
    free(x);
}

static bool is_in(const struct ip46 *v, size_t n, const struct ip46 *ip) {
    for (size_t i = 0; i < n; i++) {
        if (ip_eq(&v[i], ip)) {
            return true;
        }
    }
    return false;
}

static bool is_pod(const struct cut *x, const struct ip46 *ip) {
    return is_in(x->pods.p, x->pods.n, ip);
}

/* Loopback and link-local addresses are always the host's. */
static bool is_own(const struct cut *x, const struct ip46 *ip) {
    bool is_local = ip->family == IP_V4 ? ip->b[0] == 127 : ip->b[0] == 0xfe;
    return is_local || is_in(x->own.p, x->own.n, ip);
}

/* Would the connection's first packet get through now? */
static bool is_denied(const struct cut *x, const struct conn *c) {
    struct packet p = {.src = c->src,
                       .dst = c->dst,
                       .protocol = c->protocol,
                       .sport = c->sport,
                       .dport = c->dport,
                       .icmp_type = c->icmp_type,
                       .icmp_code = c->icmp_code};
    struct verdict_why why;
    if (ip_eq(&c->src, &c->dst)) {
        return false; /* a pod reaches itself */
    }
    return (is_pod(x, &c->src) && verdict_of(x->mirror, CALC_EGRESS, &p, &why) == VERDICT_DENY) ||
           (is_pod(x, &c->dst) && !is_own(x, &c->src) &&
            verdict_of(x->mirror, CALC_INGRESS, &p, &why) == VERDICT_DENY);
}

static void done(struct cut *x) {
    x->is_busy = false;
    free(x->conns);
    x->conns = NULL;
    if (x->code < 0) {
        LOG_W("policy", "established_not_cut", "error=%s", log_quote(str_c(x->e.msg)));
    } else if (x->n_deleted) {
        LOG_I("policy", "established_cut", "connections=%zu", x->n_deleted);
    }
    if (x->is_closing) {
        finish(x);
    } else if (x->is_asked) {
        x->is_asked = false;
        loop_timer_start(x->timer, PAUSE_MS, 0);
    }
}

static void work_delete(void *arg) {
    struct cut *x = arg;
    x->code = conntrack_delete(x->conntrack, x->conns, x->n_conns, &x->n_deleted, &x->e);
}
static void on_deleted(void *arg) {
    done(arg);
}

static void work_list(void *arg) {
    struct cut *x = arg;
    x->code = conntrack_list(x->conntrack, x->pods.p, x->pods.n, &x->conns, &x->n_conns, &x->e);
}
static void on_listed(void *arg) {
    struct cut *x = arg;
    size_t n = 0;
    for (size_t i = 0; x->code == 0 && !x->is_closing && i < x->n_conns; i++) {
        if (is_denied(x, &x->conns[i])) {
            x->conns[n++] = x->conns[i];
        }
    }
    x->n_conns = n;
    x->n_deleted = 0;
    if (n) {
        loop_work(x->loop, work_delete, on_deleted, x);
    } else {
        done(x);
    }
}

static void on_pod(void *arg, const struct prefix *net) {
    struct cut *x = arg;
    vec_push(&x->pods, net->ip);
}

static void on_timer(void *arg) {
    struct cut *x = arg;
    vec_clear(&x->pods);
    mirror_each_pod_net(x->mirror, on_pod, x);
    x->is_busy = true;
    loop_work(x->loop, work_list, on_listed, x);
}

struct cut *cut_new(struct loop *l, const struct calc *c) {
    struct cut *x = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    x->loop = l;
    x->mirror = mirror_new();
    calc_replay(c, &mirror_calc_ops, x->mirror);
    x->conntrack = conntrack_new();
    x->timer = loop_timer_new(l, on_timer, x);
    cut_ask(x); /* what was denied before */
    return x;
}

void cut_free(struct cut *x) {
    if (!x) {
        return;
    }
    if (x->is_busy) {
        x->is_closing = true;
    } else {
        finish(x);
    }
}

struct mirror *cut_mirror(struct cut *x) {
    return x->mirror;
}

void cut_set_own(struct cut *x, const struct dataplane_iface *v, size_t n) {
    vec_clear(&x->own);
    for (size_t i = 0; i < n; i++) {
        vec_push(&x->own, v[i].ip);
    }
}

void cut_ask(struct cut *x) {
    if (x->is_busy) {
        x->is_asked = true;
    } else {
        loop_timer_start(x->timer, PAUSE_MS, 0);
    }
}
