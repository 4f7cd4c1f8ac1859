/* Readiness gates of the network configuration: URLs that must answer before a pod gets a network,
 * as Calico's plugin has them: asked every 5 s for at most 30 s, ready with a status from 200 to
 * 399. Nothing has been done for the pod yet, so there is nothing to take back. */
#include "cni/server_int.h"
#include "http/probe.h"

#include <stdio.h>

enum { POLL_MS = 5000, PATIENCE_MS = 30000, LAST_MS = 1000 /* for the last answer */ };

static void ask(struct cni_request *r);

void cni_gates_stop(struct cni_request *r) {
    http_probe_free(TAKE_PTR(r->probe));
    if (r->wants_gates) {
        r->wants_gates = false;
        cni_timer(r, 0, NULL);
    }
}

static void not_ready(struct cni_request *r) {
    cni_gates_stop(r);
    (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER,
                   "the runtime will try again; readiness_gates in the network configuration lists "
                   "them",
                   "readiness gate %s is not ready after %d s: %s",
                   log_quote(r->conf.gates.p[r->gate]), PATIENCE_MS / 1000, r->gate_why);
    cni_answer_fail(r);
}

static void on_answer(void *arg, int status, const char *why) {
    struct cni_request *r = arg;
    if (status) {
        (void)snprintf(r->gate_why, sizeof(r->gate_why), "status %d", status);
    } else {
        (void)snprintf(r->gate_why, sizeof(r->gate_why), "%s", why);
    }
    http_probe_free(TAKE_PTR(r->probe));
    if (status >= 200 && status <= 399) {
        r->gate++;
        ask(r);
        return;
    }
    int64_t left_ms = (r->gate_deadline_ns - clock_ns()) / 1000000;
    if (left_ms <= 0) {
        not_ready(r);
    } else {
        cni_timer(r, left_ms < POLL_MS ? left_ms : POLL_MS, ask);
    }
}

static void ask(struct cni_request *r) {
    if (r->gate == r->conf.gates.n) {
        cni_gates_stop(r);
        r->gates_next(r);
        return;
    }
    int64_t left_ms = (r->gate_deadline_ns - clock_ns()) / 1000000;
    r->probe = http_probe_new(r->s->loop, r->conf.gates.p[r->gate],
                              left_ms < LAST_MS   ? LAST_MS
                              : left_ms < POLL_MS ? left_ms
                                                  : POLL_MS,
                              on_answer, r);
}

void cni_gates_wait(struct cni_request *r, void (*next)(struct cni_request *r)) {
    r->gates_next = next;
    r->wants_gates = r->conf.gates.n > 0;
    r->gate_deadline_ns = clock_ns() + (int64_t)PATIENCE_MS * 1000000;
    ask(r);
}
