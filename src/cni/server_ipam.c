/* Addresses for pods from our own IPAM: what a request asks for, by annotation, argument or
 * configuration, in Calico's order of precedence; and margay-ipam, called by other plugins. How
 * addresses are kept is src/ipam's business. */
#include "cni/server_int.h"
#include "ipam/machines.h"

#define POOLS_KEY_V4 "cni.projectcalico.org/ipv4pools"
#define POOLS_KEY_V6 "cni.projectcalico.org/ipv6pools"
#define FAMILIES_KEY "cni.projectcalico.org/ipFamilies"
#define IPS_KEY "cni.projectcalico.org/ipAddrs"

/* Pools of the pod's annotation, else of its namespace's, else of the configuration. */
static int choose_pools(struct cni_request *r, const char *key, const struct str_list *conf,
                        struct str_list *out) {
    const struct str_map *maps[] = {&r->pod.annotations, &r->pod.ns_annotations};
    *out = *conf;
    for (size_t i = 0; i < ARRAY_LEN(maps); i++) {
        struct str text = cni_annotation(maps[i], key);
        if (text.n) {
            return cni_annotation_texts(r, key, text, CNI_MAX_POOLS, out);
        }
    }
    return 0;
}

/* Families of the pod's annotation, else of its namespace's, else of the configuration. */
static int choose_families(struct cni_request *r, struct cni_ipam_want *w) {
    struct str text = cni_annotation(&r->pod.annotations, FAMILIES_KEY);
    struct str_list list = {0};
    text = text.n ? text : cni_annotation(&r->pod.ns_annotations, FAMILIES_KEY);
    w->n_v4 = r->conf.assign_v4;
    w->n_v6 = r->conf.assign_v6;
    if (text.n) {
        if (cni_annotation_texts(r, FAMILIES_KEY, text, 2, &list) < 0) {
            return -1;
        }
        w->n_v4 = w->n_v6 = 0;
    }
    for (size_t i = 0; i < list.n; i++) {
        if (!str_is(list.p[i], "IPv4") && !str_is(list.p[i], "IPv6")) {
            return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "such as [\"IPv4\",\"IPv6\"]",
                            "annotation " FAMILIES_KEY ": %s is neither IPv4 nor IPv6",
                            log_quote(list.p[i]));
        }
        *(str_is(list.p[i], "IPv4") ? &w->n_v4 : &w->n_v6) = 1;
    }
    if (!w->n_v4 && !w->n_v6) {
        return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "set one of them to \"true\"",
                        "ipam.assign_ipv4 and ipam.assign_ipv6 are both false");
    }
    return 0;
}

/* Addresses asked for one by one. */
static int choose_ips(struct cni_request *r, struct prefix *ips, size_t *n) {
    struct str text = cni_annotation(&r->pod.annotations, IPS_KEY);
    if (text.n) {
        struct jnode *list = NULL;
        if (cni_annotation_list(r, IPS_KEY, text, &list) < 0) {
            return -1;
        }
        return cni_ips_read(list, "annotation " IPS_KEY, ips, n, &r->fail);
    }
    if (r->conf.n_ips) {
        memcpy(ips, r->conf.ips, r->conf.n_ips * sizeof(*ips));
        *n = r->conf.n_ips;
        return 0;
    }
    if (r->args.ip.n) {
        struct prefix p;
        if (prefix_parse(r->args.ip, &p) < 0) {
            return cni_fail(&r->fail, CNI_CODE_BAD_ENV, "an address such as 10.1.2.3",
                            "CNI_ARGS: IP=%s is not an address", log_quote(r->args.ip));
        }
        p.len = (uint8_t)ip_bits(&p.ip);
        ips[(*n)++] = p;
    }
    return 0;
}

/* Labels of the pod's namespace, for pools that select by them. */
static const struct str_map *namespace_labels(struct cni_request *r) {
    struct object *o = arena_new(&r->arena, struct object);
    if (!r->pod.ns.n ||
        cni_read_object(r->s, K_NAMESPACE, STR_NULL, r->pod.ns, &r->arena, o, NULL) < 0) {
        return NULL;
    }
    return &o->meta.labels;
}

int cni_ipam_add(struct cni_request *r) {
    struct prefix exact[CNI_MAX_IPS];
    struct ip46 ips[CNI_MAX_IPS];
    struct err e = {0};
    size_t n = 0;
    struct cni_ipam_want w = {.handle = r->pod.handle,
                              .ns = r->args.ns,
                              .pod = r->args.pod,
                              .ns_labels = namespace_labels(r)};
    if (choose_ips(r, exact, &n) < 0 ||
        choose_pools(r, POOLS_KEY_V4, &r->conf.pools_v4, &w.pools_v4) < 0 ||
        choose_pools(r, POOLS_KEY_V6, &r->conf.pools_v6, &w.pools_v6) < 0) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        ips[i] = exact[i].ip;
    }
    w.ips = ips;
    w.n_ips = n;
    int k = cni_machine_find(r, &w);
    k = k == 0 && r->pod.is_machine ? cni_machine_reuse(r, &w) : k;
    if (k != 0) {
        return k < 0 ? k : 0;
    }
    if (!n && choose_families(r, &w) < 0) {
        return -1;
    }
    k = cni_ipam_assign(r->s, &w, r->block_nets, CNI_MAX_IPS, &r->n_nets, &e);
    if (k == ERR_DENIED && r->pod.is_machine) {
        free(r->s->denied_handle);
        r->s->denied_handle = strndup(r->pod.handle.p, r->pod.handle.n);
    }
    if (k < 0) {
        bool is_lasting = k == ERR_INVALID || k == ERR_NOT_FOUND;
        return cni_fail(&r->fail, is_lasting ? CNI_CODE_BAD_CONFIG : CNI_CODE_TRY_LATER,
                        is_lasting ? "change the configuration or the annotation"
                                   : "margay ipam show lists pools and what is free",
                        "no address: %.900s", e.msg[0] ? e.msg : err_name(k));
    }
    for (size_t i = 0; i < r->n_nets; i++) {
        r->nets[i] = r->block_nets[i];
        r->nets[i].len = (uint8_t)ip_bits(&r->nets[i].ip);
        if (r->args.ip.n && n) {
            r->block_nets[i] = r->nets[i]; /* as Calico: CNI_ARGS IP comes back as /32 */
        }
    }
    return 0;
}

/* ---- margay-ipam ---- */

static int program_add(struct cni_request *r) {
    struct err e = {0};
    struct object pod = {0};
    bool is_k8s = r->args.ns.n && r->args.pod.n;
    r->pod.ns = is_k8s ? r->args.ns : STR("");
    r->pod.pod = is_k8s ? r->args.pod : STR("");
    if (cni_find_kube(r) < 0) {
        return -1;
    }
    int k = is_k8s ? cni_read_object(r->s, K_POD, r->args.ns, r->args.pod, &r->arena, &pod, &e)
                   : ERR_NOT_FOUND;
    if (k == 0) {
        r->pod.annotations = pod.meta.annotations;
        r->pod.doc = pod.doc;
    } else if (machine_is_launcher(r->pod.pod) && cni_kube(r->s)) {
        return cni_fail(&r->fail, CNI_CODE_TRY_LATER, "the runtime will try again",
                        "pod %.*s/%.*s, perhaps a virtual machine's, can't be read: %.700s",
                        STR_FMT(r->pod.ns), STR_FMT(r->pod.pod), e.msg);
    }
    k = store_begin(r->s->store, &e);
    if (k == 0 && cni_ipam_add(r) < 0) {
        store_rollback(r->s->store);
        /* Where the store can't roll back. */
        (void)!(r->pod.is_machine
                    ? cni_machine_leave(r->s, r->conf.name, r->pod.ns, r->pod.pod, NULL)
                    : cni_ipam_release(r->s, r->pod.handle, NULL));
        return -1;
    }
    k = k < 0 ? k : store_commit(r->s->store, &e);
    if (k < 0) {
        store_rollback(r->s->store);
        return cni_fail(&r->fail, CNI_CODE_TRY_LATER, "look at the agent's log",
                        "the datastore: %.900s", e.msg);
    }
    return 0;
}

static void work_program(struct cni_request *r) {
    struct err e = {0};
    struct ip46 held[CNI_MAX_IPS];
    size_t n = 0;
    int k = 0;
    r->pod.handle =
        cni_handle(&r->arena, r->conf.name, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    switch (r->cmd) {
    case CNI_CMD_ADD:
        r->step_code = program_add(r);
        return;
    case CNI_CMD_DEL:
        k = cni_ipam_release(r->s, r->pod.handle, &e);
        if (k == 0) {
            struct str old = cni_old_handle(r, &r->arena);
            k = old.n ? cni_ipam_release(r->s, old, &e) : 0;
        }
        if (k == 0 && machine_is_launcher(r->args.pod)) {
            (void)!cni_find_kube(r); /* without it the machine's addresses stay */
            k = cni_machine_leave(r->s, r->conf.name, r->args.ns, r->args.pod, &e);
        }
        break;
    case CNI_CMD_CHECK:
        k = cni_ipam_held(r->s, r->pod.handle, held, CNI_MAX_IPS, &n, &e);
        break;
    case CNI_CMD_GC: /* which addresses are whose is known to the plugin that called us */
    case CNI_CMD_STATUS:
        break;
    }
    if (k < 0) {
        r->step_code =
            cni_fail(&r->fail, k == ERR_NOT_FOUND ? CNI_CODE_DIFFERENT : CNI_CODE_TRY_LATER,
                     "margay ipam check says more", "addresses: %.900s", e.msg);
    }
}

static void program_done(struct cni_request *r) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(WIRE_TEXT_MAX);
    if (r->step_code < 0) {
        cni_answer_fail(r);
        return;
    }
    if (r->cmd == CNI_CMD_ADD) {
        cni_ipam_result(r, &b);
    }
    cni_answer(r, 0, buf_view(&b));
}

void cni_ipam_program(struct cni_request *r) {
    if (r->cmd == CNI_CMD_STATUS) {
        cni_status(r);
    } else {
        cni_step(r, work_program, program_done);
    }
}
