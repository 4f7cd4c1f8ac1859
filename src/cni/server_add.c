/* ADD: identify the pod, give it addresses, record its endpoint, wait until its policy is in the
 * kernel, make its interfaces, answer. Any failure takes back what was done, in the reverse order.
 * An answer without policy is never given. */
#include "cni/server_extra.h"
#include "netlink/netns.h"

#include <sys/random.h>

#define TRIES_MAX 3
#define POD_POLL_MS 250

static void identify(struct cni_request *r);
static void make(struct cni_request *r);
static void made(struct cni_request *r);
static void recorded(struct cni_request *r);

static void log_add(struct cni_request *r) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(2048);
    char text[IP_TEXT_MAX];
    if (!log_enabled(LOG_INFO)) {
        return;
    }
    for (size_t i = 0; i < r->n_nets; i++) {
        buf_printf(&b, "%s%s", i ? "," : "", ip_text(&r->nets[i].ip, text));
    }
    LOG_I("cni", "add", "endpoint=%.*s/%.*s container=%.*s iface=%.*s ips=%s took_us=%lld",
          STR_FMT(r->pod.ns), STR_FMT(r->pod.endpoint_name), STR_FMT(r->strings[WIRE_CONTAINERID]),
          STR_FMT(r->pod.iface), buf_cstr(&b), (long long)(clock_ns() - r->start_ns) / 1000);
}

static void answer(struct cni_request *r) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(WIRE_TEXT_MAX);
    char mac[18];
    cni_result(r, str_c(mac_text(r->pod.mac, mac)), &b);
    cni_answer(r, 0, buf_view(&b));
}

/* ---- taking back ---- */

static void undone(struct cni_request *r, uint32_t code MG_UNUSED, struct str text MG_UNUSED) {
    cni_answer_fail(r);
}

static void undo_delegated(struct cni_request *r) {
    if (!r->has_delegated_ipam) {
        cni_answer_fail(r);
        return;
    }
    r->has_delegated_ipam = false;
    cni_delegate_ipam(r, "DEL", undone);
}

static void on_removed(void *arg, struct cni_removal *m MG_UNUSED) {
    struct cni_request *r = arg;
    if (!cni_unref(r)) {
        undo_delegated(r);
    }
}

/* r->fail says why. */
static void undo(struct cni_request *r) {
    cni_extra_drop(r->s, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    if (!r->has_ipam && !r->has_endpoint && !r->has_link) {
        undo_delegated(r);
        return;
    }
    struct cni_removal *m =
        cni_removal_new(r->s, r->conf.name, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    struct arena *a = &m->arena;
    /* A machine's handle lives on. */
    m->handle = r->has_ipam && !r->pod.is_machine ? arena_dup(a, r->pod.handle) : STR("");
    if (r->has_ipam) {
        cni_removal_of_pod(m, r);
    }
    m->wep_key = r->has_endpoint ? arena_dup(a, r->pod.key) : STR("");
    m->iface = r->has_link ? arena_dup(a, r->pod.iface) : STR("");
    m->done = on_removed;
    m->arg = r;
    r->n_pending++;
    cni_removal_queue(r->s, m);
}

static int fail_err(struct cni_request *r, int code, const char *what, const struct err *e) {
    return cni_fail(&r->fail, code, "look at the agent's log", "%s: %.900s", what, e->msg);
}

/* ---- interfaces ---- */

static void on_old_link_gone(void *arg, struct cni_removal *m) {
    struct cni_request *r = arg;
    int code = m->code;
    if (cni_unref(r)) {
        return;
    }
    if (code < 0) {
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "",
                       "interface %.*s of an older container can't be removed: %s",
                       STR_FMT(r->pod.iface), err_name(code));
        undo(r);
        return;
    }
    make(r);
}

static int shape(struct cni_request *r) {
    const struct cni_extra *x =
        cni_extra_find(r->s, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    struct err e = {0};
    if (x && cni_shape_apply(r->s, x, &e) < 0) {
        return fail_err(r, CNI_CODE_TRY_LATER, "limiting the pod's bandwidth", &e);
    }
    return 0;
}

static void make(struct cni_request *r) {
    int index = 0;
    if (r->is_gone) {
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "", "the plugin was ended meanwhile");
        undo(r);
        return;
    }
    int64_t start = clock_ns();
    int k = cni_kernel_make(r, &index, &r->fail);
    r->s->stats.last_add_kernel_ns = clock_ns() - start;
    if (k == -EEXIST && r->n_tries++ < TRIES_MAX && cni_host_link(r->s, r->pod.iface) == index) {
        /* Of an older container of the same pod, whose DEL is still to come. */
        struct cni_removal *m = cni_removal_of_link(index);
        m->done = on_old_link_gone;
        m->arg = r;
        r->n_pending++;
        cni_removal_queue(r->s, m);
        return;
    }
    if (k == -EEXIST) {
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "remove it: ip link del NAME",
                       "interface %.*s is there already and is not a pod's", STR_FMT(r->pod.iface));
    }
    if (k < 0 || shape(r) < 0) {
        undo(r);
        return;
    }
    cni_stale_remove(r, made);
}

static void made(struct cni_request *r) {
    cni_attachment_add(r);
    if (r->s->is_tended) {
        cni_shape_catch_up(r->s); /* annotations may have changed meanwhile */
    }
    r->s->stats.last_add_ns = clock_ns() - r->start_ns;
    log_add(r);
    answer(r);
}

static void on_enforced(void *arg, int code) {
    struct cni_request *r = arg;
    if (cni_unref(r)) {
        return;
    }
    if (code < 0) {
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER,
                       "margay status says what is wrong; the runtime will try again",
                       "the pod's policy is not in the kernel: %s", err_name(code));
        undo(r);
        return;
    }
    make(r);
}

/* ---- the store ---- */

static int record_all(struct cni_request *r, struct err *e) {
    struct cni_server *s = r->s;
    int k = store_begin(s->store, e);
    if (k < 0) {
        return fail_err(r, CNI_CODE_TRY_LATER, "the datastore", e);
    }
    if (r->conf.is_own_ipam && !r->n_nets) {
        r->has_ipam = true;
        if (cni_ipam_add(r) < 0) {
            return -1;
        }
    }
    if (cni_floating_read(r) < 0) {
        return -1;
    }
    if (!r->pod.has_pod_object) {
        k = cni_ensure_profile(s, r->conf.name, &r->arena, e);
    }
    if (k == 0) {
        r->has_endpoint = true;
        k = cni_put_endpoint(r, e);
    }
    if (k == 0) {
        k = store_commit(s->store, e);
    }
    return k < 0 ? fail_err(r, CNI_CODE_TRY_LATER, "the datastore", e) : 0;
}

static void work_record(struct cni_request *r) {
    struct err e = {0};
    r->step_code = record_all(r, &e);
    if (r->step_code < 0) {
        store_rollback(r->s->store);
    }
}

static void record(struct cni_request *r) {
    static const uint8_t zero[6];
    if (memcmp(r->pod.mac, zero, 6) == 0) {
        if (getrandom(r->pod.mac, 6, 0) != 6) {
            memcpy(r->pod.mac, &r->start_ns, 6);
        }
        r->pod.mac[0] = (uint8_t)((r->pod.mac[0] & 0xfc) | 0x02); /* local, of one interface */
    }
    cni_step(r, work_record, recorded);
}

static void recorded(struct cni_request *r) {
    if (r->step_code < 0 || cni_extra_add(r) < 0) {
        undo(r);
        return;
    }
    r->n_pending++;
    r->s->ops->when_enforced(r->s->arg, r->pod.key, r->wep_revision, r->conf.policy_timeout_ms,
                             on_enforced, r);
}

/* ---- addresses ---- */

static void on_delegated_ipam(struct cni_request *r, uint32_t code, struct str text) {
    if (code == UINT32_MAX) {
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "", "the plugin was ended meanwhile");
        undo(r);
        return;
    }
    if (code != 0) {
        r->s->stats.errors++;
        cni_answer(r, 1, text); /* its own error, in its own words */
        return;
    }
    r->has_delegated_ipam = true;
    if (cni_read_ipam_result(r, text, &r->fail) < 0) {
        undo(r);
        return;
    }
    record(r);
}

/* Annotation ipAddrsNoIpam: addresses that nobody manages. 1: there are some. */
static int take_ips_without_ipam(struct cni_request *r) {
    struct str text = cni_annotation(&r->pod.annotations, "cni.projectcalico.org/ipAddrsNoIpam");
    struct jnode *list = NULL;
    struct err e = {0};
    if (!text.n) {
        return 0;
    }
    if (!r->conf.allow_ips_without_ipam) {
        return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG,
                        "set feature_control.ip_addrs_no_ipam in the network configuration",
                        "annotation ipAddrsNoIpam is not allowed in this network");
    }
    if (cni_annotation(&r->pod.annotations, "cni.projectcalico.org/ipAddrs").n) {
        return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "remove one of them",
                        "annotations ipAddrs and ipAddrsNoIpam exclude each other");
    }
    if (json_parse(text, &json_limits_default, &r->arena, &list, &e) < 0) {
        return fail_err(r, CNI_CODE_BAD_CONFIG, "annotation ipAddrsNoIpam", &e);
    }
    if (cni_ips_read(list, "annotation ipAddrsNoIpam", r->nets, &r->n_nets, &r->fail) < 0) {
        return -1;
    }
    if (!r->n_nets) {
        return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "name an address",
                        "annotation ipAddrsNoIpam is empty");
    }
    memcpy(r->block_nets, r->nets, sizeof(r->nets));
    return 1;
}

static void assign(struct cni_request *r) {
    int k = take_ips_without_ipam(r);
    if (k < 0) {
        undo(r);
    } else if (k == 1 || r->conf.is_own_ipam) {
        record(r);
    } else if (!r->conf.has_ipam) {
        (void)cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "add \"ipam\": {\"type\": \"margay-ipam\"}",
                       "the network configuration has no ipam.type");
        undo(r);
    } else {
        cni_delegate_ipam(r, "ADD", on_delegated_ipam);
    }
}

/* ---- the pod ---- */

static void on_pod_timeout(struct cni_request *r) {
    if (r->is_stepping) {
        cni_timer(r, POD_POLL_MS, on_pod_timeout); /* the worker has it just now */
        return;
    }
    if (clock_ns() < r->pod_deadline_ns) {
        identify(r);
        return;
    }
    r->wants_pod = false;
    (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "the runtime will try again",
                   "pod %.*s/%.*s is not in the datastore for node %.*s (waited %lld s)",
                   STR_FMT(r->args.ns), STR_FMT(r->args.pod), STR_FMT(r->s->node),
                   (long long)r->conf.policy_timeout_ms / 1000);
    undo(r);
}

static void work_identify(struct cni_request *r) {
    r->step_code = cni_find_kube(r);
    if (r->step_code == 0) {
        r->step_code = cni_identify(r);
    }
}

static void identified(struct cni_request *r) {
    int k = r->step_code;
    if (r->is_given_up || (r->is_gone && r->wants_pod)) {
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "", "the container was deleted meanwhile");
        undo(r);
        return;
    }
    if (k == 1 && r->wants_retry) {
        r->wants_retry = false;
        identify(r);
        return;
    }
    if (k == 1) {
        if (!r->wants_pod) {
            r->wants_pod = true;
            r->pod_deadline_ns = clock_ns() + r->conf.policy_timeout_ms * 1000000;
        }
        /* Pods that the syncer doesn't tell of are asked for again and again. */
        int64_t left_ms = (r->pod_deadline_ns - clock_ns()) / 1000000;
        cni_timer(r,
                  r->s->kube && left_ms > POD_POLL_MS ? POD_POLL_MS
                  : left_ms > 0                       ? left_ms
                                                      : 0,
                  on_pod_timeout);
        return;
    }
    if (r->wants_pod) {
        r->wants_pod = false;
        cni_timer(r, 0, NULL);
    }
    if (k < 0) {
        undo(r);
    } else {
        r->pod.iface = cni_iface_name(r);
        assign(r);
    }
}

static void identify(struct cni_request *r) {
    cni_step(r, work_identify, identified);
}

void cni_add_retry(struct cni_request *r) {
    identify(r);
}

static void on_old_gone(void *arg, struct cni_removal *m MG_UNUSED) {
    struct cni_request *r = arg;
    if (!cni_unref(r)) {
        identify(r);
    }
}

/* The same ADD again: the same answer if all is there. */
static bool answer_again(struct cni_request *r, const struct cni_attachment *at) {
    struct cni_fail ignored = {0};
    if (at->is_superseded || !str_eq(at->network, r->conf.name) || at->n_nets > CNI_MAX_IPS ||
        cni_check_endpoint(r, at) < 0 || cni_kernel_check(r, at, r->pod.mac, &ignored) < 0) {
        memset(&r->fail, 0, sizeof(r->fail));
        return false;
    }
    memcpy(r->nets, at->nets, at->n_nets * sizeof(*at->nets));
    r->n_nets = at->n_nets;
    r->pod.iface = at->iface;
    answer(r);
    return true;
}

static void work_look(struct cni_request *r) {
    r->step_code = cni_check_ready(r);
    if (r->step_code == 0 && r->look_key.n) {
        cni_look(r);
    }
}

static void looked(struct cni_request *r) {
    if (r->step_code < 0) {
        cni_answer_fail(r);
        return;
    }
    struct cni_attachment *at =
        cni_attachment_find(r->s, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    if (!at) {
        identify(r);
        return;
    }
    if (answer_again(r, at)) {
        return;
    }
    struct cni_removal *m =
        cni_removal_new(r->s, r->conf.name, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    m->done = on_old_gone;
    m->arg = r;
    r->n_pending++;
    cni_removal_queue(r->s, m);
}

static void begin(struct cni_request *r) {
    struct cni_attachment *at =
        cni_attachment_find(r->s, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    if (at) {
        cni_look_at(r, at);
    }
    cni_step(r, work_look, looked);
}

void cni_add(struct cni_request *r) {
    static struct log_limit limit;
    int k = r->netns_fd < 0 ? ERR_INVALID : netns_check(r->netns_fd);
    if (k < 0) {
        (void)cni_fail(&r->fail, CNI_CODE_BAD_ENV, "CNI_NETNS must name a network namespace",
                       "no network namespace came with the request (CNI_NETNS=%s)",
                       log_quote(r->strings[WIRE_NETNS]));
        cni_answer_fail(r);
        return;
    }
    if (netns_is_own(r->netns_fd) != 0) {
        (void)cni_fail(&r->fail, CNI_CODE_BAD_ENV, "pods of the host's network need no plugin",
                       "CNI_NETNS=%s is the host's own network namespace",
                       log_quote(r->strings[WIRE_NETNS]));
        cni_answer_fail(r);
        return;
    }
    if (r->conf.needs_mtu && !r->conf.mtu && !r->s->mtu) {
        (void)cni_fail(
            &r->fail, CNI_CODE_TRY_LATER,
            "is an interface of mtuIfacePattern (FelixConfiguration) up? Else set \"mtu\" "
            "in the network configuration",
            "require_mtu_file: the agent does not know the pods' MTU");
        cni_answer_fail(r);
        return;
    }
    if (r->conf.node.n && !str_eq(r->conf.node, r->s->node) && log_allow(&limit, 1, 60)) {
        LOG_W("cni", "other_node_name", "configuration=%s agent=%.*s the agent's counts",
              log_quote(r->conf.node), STR_FMT(r->s->node));
    }
    cni_gates_wait(r, begin);
}
