/* Rates of pods: the annotations of the pod, now and when they change, or the runtime's capability
 * "bandwidth", as token buckets. To the pod: one on its host interface. From the pod: what it sends
 * is led through an interface of kind ifb that has one. */
#include "cni/server_extra.h"
#include "netlink/tc.h"

#include <math.h>
#include <stdio.h>

#define IFB_PREFIX "mgb"
#define LATENCY_MS 25 /* how long a packet may wait, as the reference plugin has it */
/* A bucket must hold what an interface hands over at once. */
enum { BURST_BYTES_MIN = 128 << 10 };
static const double rate_bits_max = 1e15, rate_bits_min = 1e3, burst_bits_max = 34359738360.0;

/* Kubernetes' quantities: 10M, 1.5Gi, 2e6, 500k. Negative: none. */
static double parse_quantity(struct str s) {
    static const struct {
        const char *suffix;
        double by;
    } units[] = {{"Ki", 0x1p10}, {"Mi", 0x1p20}, {"Gi", 0x1p30}, {"Ti", 0x1p40},
                 {"Pi", 0x1p50}, {"k", 1e3},     {"K", 1e3},     {"M", 1e6},
                 {"G", 1e9},     {"T", 1e12},    {"P", 1e15}};
    double by = 1, v = 0;
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (str_ends(s, str_c(units[i].suffix))) {
            by = units[i].by;
            s = str_sub(s, 0, s.n - strlen(units[i].suffix));
            break;
        }
    }
    return str_to_double(s, &v) < 0 || !isfinite(v) || v < 0 ? -1 : v * by;
}

static struct cni_rate rate_of(double bits, double burst_bits) {
    struct cni_rate r = {.rate = (uint64_t)(bits / 8)};
    /* Runtimes that know no burst pass the largest number: as if there were none. */
    bool has_burst = burst_bits > 0 && burst_bits < 2147483647.0;
    r.burst = has_burst ? (uint64_t)(burst_bits / 8) : r.rate / 10;
    r.burst = r.burst < BURST_BYTES_MIN ? BURST_BYTES_MIN : r.burst;
    r.burst = r.burst > UINT32_MAX / 2 ? UINT32_MAX / 2 : r.burst;
    return r;
}

/* Whose annotations are read. */
struct whose {
    const struct str_map *annotations;
    struct str ns, pod;
};

/* A wrong value is said and left out, as Calico does: it must not keep a pod from its network. */
static double annotation_bits(const struct whose *w, const char *key, double min, double max) {
    struct str text = cni_annotation(w->annotations, key);
    double v = text.n ? parse_quantity(text) : 0;
    if (text.n && (v < min || v > max)) {
        static struct log_limit limit;
        if (log_allow(&limit, 10, 60)) { /* pods change for many reasons */
            LOG_W("cni", "bad_annotation", "pod=%.*s/%.*s key=%s value=%s allowed=%g..%g",
                  STR_FMT(w->ns), STR_FMT(w->pod), key, log_quote(text), min, max);
        }
        return 0;
    }
    return v;
}

static void from_annotations(const struct whose *w, struct cni_asked *out) {
    static const char *const keys[CNI_N_WAYS][3] = {
        [CNI_TO_POD] = {"qos.projectcalico.org/ingressBandwidth", "kubernetes.io/ingress-bandwidth",
                        "qos.projectcalico.org/ingressBurst"},
        [CNI_FROM_POD] = {"qos.projectcalico.org/egressBandwidth", "kubernetes.io/egress-bandwidth",
                          "qos.projectcalico.org/egressBurst"}};
    memset(out, 0, sizeof(*out));
    for (enum cni_way way = 0; way < CNI_N_WAYS; way++) {
        double bits = annotation_bits(w, keys[way][0], rate_bits_min, rate_bits_max);
        if (bits == 0) {
            bits = annotation_bits(w, keys[way][1], rate_bits_min, rate_bits_max);
        }
        if (bits > 0) {
            out->is_named[way] = true;
            out->rates[way] =
                rate_of(bits, annotation_bits(w, keys[way][2], rate_bits_min, burst_bits_max));
        }
    }
}

static int read_number(const struct jnode *m, const char *key, double *out, struct cni_fail *f) {
    const struct jnode *n = jnode_getc(m, key);
    if (!n || n->type == J_NULL) {
        return 0;
    }
    if ((n->type != J_INT && n->type != J_FLOAT) || str_to_double(n->s, out) < 0 || *out < 0 ||
        *out > rate_bits_max * 1e4) {
        return cni_fail(f, CNI_CODE_BAD_CONFIG, "bits, or bits a second",
                        "runtimeConfig.bandwidth.%s is not a number from 0", key);
    }
    return 0;
}

int cni_shape_read(struct cni_request *r, struct cni_extra *x) {
    static const char *const keys[CNI_N_WAYS][2] = {[CNI_TO_POD] = {"ingressRate", "ingressBurst"},
                                                    [CNI_FROM_POD] = {"egressRate", "egressBurst"}};
    struct whose w = {&r->pod.annotations, r->pod.ns, r->pod.pod};
    struct cni_asked asked;
    from_annotations(&w, &asked);
    for (enum cni_way way = 0; way < CNI_N_WAYS; way++) {
        double bits = 0, burst = 0;
        if (read_number(r->conf.bandwidth, keys[way][0], &bits, &r->fail) < 0 ||
            read_number(r->conf.bandwidth, keys[way][1], &burst, &r->fail) < 0) {
            return -1;
        }
        /* A kubelet makes the capability of the annotations, which may change later: they count. */
        if (!asked.is_named[way] && bits >= 8) {
            x->base[way] = rate_of(bits < rate_bits_max ? bits : rate_bits_max, burst);
        }
        x->rates[way] = asked.is_named[way] ? asked.rates[way] : x->base[way];
    }
    return 0;
}

/* ---- the kernel ---- */

static void ifb_name(const struct cni_server *s, const struct cni_extra *x, char out[IF_NAMESIZE]) {
    struct str tail = str_starts(x->iface, s->iface_prefix)
                          ? str_sub(x->iface, s->iface_prefix.n, x->iface.n)
                          : x->iface;
    (void)snprintf(out, IF_NAMESIZE, IFB_PREFIX "%.*s", (int)(tail.n < 12 ? tail.n : 12), tail.p);
}

/* is_new: what is there may have the rate and another burst. */
static int set_bucket(struct cni_server *s, int index, const struct cni_rate *rate, bool is_new,
                      struct err *e) {
    struct tc_seen seen;
    int r = tc_look(s->nl, index, &seen, e);
    if (r < 0 || (seen.rate == rate->rate && !is_new)) {
        return r;
    }
    uint64_t limit = rate->rate / 1000 * LATENCY_MS + rate->burst;
    (void)tc_set_bucket(s->nl, index, rate->rate, (uint32_t)rate->burst,
                        limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
    return nl_commit(s->nl, e);
}

static int lead_through(struct cni_server *s, const struct cni_extra *x, int index, bool is_new,
                        struct err *e) {
    char name[IF_NAMESIZE];
    struct link ifb;
    struct tc_seen seen;
    ifb_name(s, x, name);
    int r = link_get(s->nl, name, &ifb, e);
    if (r == ERR_NOT_FOUND) {
        (void)link_add_ifb(s->nl, name);
        r = nl_commit(s->nl, e);
        r = r < 0 ? r : link_get(s->nl, name, &ifb, e);
    }
    r = r < 0 ? r : set_bucket(s, ifb.index, &x->rates[CNI_FROM_POD], is_new, e);
    r = r < 0 ? r : tc_look(s->nl, index, &seen, e);
    if (r < 0 || seen.has_ingress) {
        return r;
    }
    (void)tc_redirect_in(s->nl, index, ifb.index);
    return nl_commit(s->nl, e);
}

static int apply(struct cni_server *s, const struct cni_extra *x, int index, bool is_new,
                 struct err *e) {
    int r = 0;
    if (x->rates[CNI_TO_POD].rate) {
        r = set_bucket(s, index, &x->rates[CNI_TO_POD], is_new, e);
    }
    if (r == 0 && x->rates[CNI_FROM_POD].rate) {
        r = lead_through(s, x, index, is_new, e);
    }
    return r < 0 ? err_wrap(e, r, "rates of %.*s", STR_FMT(x->iface)) : 0;
}

int cni_shape_apply(struct cni_server *s, const struct cni_extra *x, struct err *e) {
    int index =
        x->rates[CNI_TO_POD].rate || x->rates[CNI_FROM_POD].rate ? cni_host_link(s, x->iface) : 0;
    return index ? apply(s, x, index, false, e) : 0;
}

static void on_removed(void *arg MG_UNUSED, struct cni_removal *m MG_UNUSED) {
}

static void remove_ifb(struct cni_server *s, const struct cni_extra *x) {
    char name[IF_NAMESIZE];
    struct link ifb;
    ifb_name(s, x, name);
    if (link_get(s->nl, name, &ifb, NULL) == 0 && strcmp(ifb.kind, "ifb") == 0) {
        struct cni_removal *m = cni_removal_of_link(ifb.index);
        m->done = on_removed;
        cni_removal_queue(s, m);
    }
}

void cni_shape_remove(struct cni_server *s, const struct cni_extra *x) {
    if (x->rates[CNI_FROM_POD].rate) {
        remove_ifb(s, x);
    }
}

int cni_shape_change(struct cni_server *s, const struct cni_extra *x,
                     const struct cni_rate was[CNI_N_WAYS], struct err *e) {
    int index = cni_host_link(s, x->iface);
    if (!index) {
        return 0;
    }
    if (was[CNI_TO_POD].rate && !x->rates[CNI_TO_POD].rate) {
        (void)tc_del_bucket(s->nl, index);
    }
    if (was[CNI_FROM_POD].rate && !x->rates[CNI_FROM_POD].rate) {
        (void)tc_del_redirect(s->nl, index);
    }
    if (nl_pending(s->nl)) {
        (void)!nl_exchange(s->nl, NULL); /* somebody may have removed them already */
    }
    if (was[CNI_FROM_POD].rate && !x->rates[CNI_FROM_POD].rate) {
        remove_ifb(s, x);
    }
    return apply(s, x, index, true, e);
}

/* ---- changes of a running pod ---- */

struct cni_early {
    struct cni_early *next;
    struct cni_asked asked;
    struct str ns, pod; /* in text */
    char text[];
};

/* "KIND/NAMESPACE/NODE-k8s-POD-": beginning of the keys of a pod's endpoints. */
static struct str key_prefix(struct cni_server *s, struct str ns, struct str pod, struct arena *a) {
    struct cni_request r = {.s = s, .args = {.ns = ns, .pod = pod}};
    struct str key;
    r.strings[WIRE_IFNAME] = STR("");
    cni_name_endpoint(&r, true);
    key = arena_dup(a, r.pod.key);
    arena_fini(&r.arena);
    return key;
}

/* Is it a pod with an interface of ours? */
static bool ask(struct cni_server *s, struct str ns, struct str pod,
                const struct cni_asked *asked) {
    bool is_known = false;
    struct arena a = {.first_bytes = 1024};
    struct str prefix = key_prefix(s, ns, pod, &a);
    struct cni_attachment **t;
    size_t i = 0;
    while (cni_attachments_next(&s->attachments, &i, NULL, &t)) {
        const struct cni_attachment *at = *t;
        /* What stands behind is the interface's name; "-" would be the middle of another pod's. */
        if (!at->is_superseded && str_starts(at->wep_key, prefix) && at->wep_key.n > prefix.n &&
            at->wep_key.p[prefix.n] != '-') {
            is_known = true;
            cni_extra_ask(s, at, asked);
        }
    }
    arena_fini(&a);
    return is_known;
}

/* Is the pod's interface being made, from annotations that may be of before? */
static bool is_in_work(const struct cni_server *s, struct str ns, struct str pod) {
    for (const struct cni_request *r = s->requests; r; r = r->next) {
        if (r->cmd == CNI_CMD_ADD && !r->is_done && str_eq(r->args.ns, ns) &&
            str_eq(r->args.pod, pod)) {
            return true;
        }
    }
    return false;
}

void cni_server_pod(struct cni_server *s, struct str ns, struct str name,
                    const struct str_map *annotations) {
    struct whose w = {annotations, ns, name};
    struct cni_asked asked;
    from_annotations(&w, &asked);
    if (!asked.is_named[CNI_TO_POD] && !asked.is_named[CNI_FROM_POD] && !s->extras && !s->early) {
        return; /* nobody has a rate */
    }
    if (ask(s, ns, name, &asked) || (s->is_tended && !is_in_work(s, ns, name))) {
        return;
    }
    struct cni_early *early = calloc(1, sizeof(*early) + ns.n + name.n + 1);
    mg_assert(early != NULL);
    memcpy(early->text, ns.p, ns.n);
    memcpy(early->text + ns.n, name.p, name.n);
    early->asked = asked;
    early->ns = str_n(early->text, ns.n);
    early->pod = str_n(early->text + ns.n, name.n);
    struct cni_early **end = &s->early;
    while (*end) { /* the newest counts */
        end = &(*end)->next;
    }
    *end = early;
}

void cni_early_free(struct cni_server *s) {
    while (s->early) {
        struct cni_early *x = s->early;
        s->early = x->next;
        free(x);
    }
}

void cni_shape_catch_up(struct cni_server *s) {
    for (struct cni_early **at = &s->early; *at;) {
        struct cni_early *x = *at;
        if (ask(s, x->ns, x->pod, &x->asked) || !is_in_work(s, x->ns, x->pod)) {
            *at = x->next;
            free(x);
        } else {
            at = &x->next;
        }
    }
}
