/* Pods of KubeVirt's virtual machines. A machine keeps its addresses over its pods' lives, under a
 * handle of its own: a pod that is made for it is noted as their active owner, the pod that a live
 * migration makes as the alternate one, and a pod that is deleted is crossed out. The addresses go
 * when nobody owns them and the machine is being deleted; what can't be found out keeps them, and
 * the collector of `margay controllers` frees them later. Source of the rules: Calico's
 * cni-plugin/pkg/ipamplugin. */
#include "cni/server_int.h"
#include "ipam/ipam.h"
#include "ipam/machines.h"
#include "store/kube.h"

/* Many DELs don't wait for a server that doesn't answer, one after the other. */
#define ASK_AGAIN_NS (10 * 1000000000LL)

struct store *cni_kube(const struct cni_server *s) {
    return s->kube ? s->kube : kube_is(s->store) ? s->store : NULL;
}

/* ---- ADD ---- */

static void note(struct cni_request *r, struct cni_ipam_want *w, const char *key,
                 struct str value) {
    (void)r;
    if (value.n) {
        w->attrs.p[w->attrs.n++] = (struct str_pair){str_c(key), value};
    }
}

static int find_failed(struct cni_request *r, int k, const struct err *e) {
    bool is_stale = k == ERR_INVALID;
    return cni_fail(&r->fail, CNI_CODE_TRY_LATER,
                    k == ERR_DENIED ? "the agent needs get on virtualmachineinstances and "
                                      "virtualmachines of kubevirt.io"
                    : is_stale      ? "delete the pod"
                                    : "the runtime will try again",
                    "pod %.*s/%.*s of a virtual machine: %.700s", STR_FMT(r->pod.ns),
                    STR_FMT(r->pod.pod), e->msg);
}

int cni_machine_find(struct cni_request *r, struct cni_ipam_want *w) {
    struct cni_server *s = r->s;
    struct store *kube = cni_kube(s);
    struct machine m;
    struct err e = {0};
    bool persists = true;
    if (!kube || !r->pod.doc || !machine_is_launcher(r->pod.pod)) {
        return 0;
    }
    int k = machine_of_pod(kube, r->pod.ns, r->pod.doc, &r->arena, &m, &e);
    if (k == 0) {
        return 0; /* a pod that is only called so */
    }
    k = k < 0 ? k : cni_ipam_persists(s, &persists, &e);
    if (k < 0) {
        return find_failed(r, k, &e);
    }
    if (!persists && m.migration_uid.n) {
        return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG,
                        "margay ipam configure --kubevirt-ip-persistence=Enabled",
                        "pod %.*s/%.*s is the target of a live migration of virtual machine %.*s, "
                        "which has to keep its addresses, and kubeVirtVMAddressPersistence of the "
                        "IPAM configuration is Disabled (allowed here: Enabled)",
                        STR_FMT(r->pod.ns), STR_FMT(r->pod.pod), STR_FMT(m.name));
    }
    if (!persists) {
        return 0;
    }
    r->pod.is_machine = true;
    r->pod.is_target = m.migration_uid.n > 0;
    r->pod.migration_uid = m.migration_uid;
    r->pod.handle = machine_handle(r->conf.name, r->pod.ns, m.name, &r->arena);
    w->handle = r->pod.handle;
    w->max_held = 1;
    w->attrs.p = arena_array(&r->arena, struct str_pair, 4);
    note(r, w, "vmi-name", m.name);
    note(r, w, "vmi-uid", m.vmi_uid);
    note(r, w, "vm-uid", m.vm_uid);
    note(r, w, "vmim-uid", m.migration_uid);
    return 0;
}

/* A handle that counts an address which no block has (a crash between two writes) would keep the
 * machine without one for ever. That it was so at an earlier ADD, too, which was refused for it,
 * tells it from an ADD under way on another node. */
static void mend_handle(struct cni_request *r) {
    struct cni_server *s = r->s;
    if (s->denied_handle && str_is(r->pod.handle, s->denied_handle)) {
        (void)!cni_ipam_release(s, r->pod.handle, NULL); /* the next step tells what is wrong */
        free(TAKE_PTR(s->denied_handle));
    }
}

int cni_machine_reuse(struct cni_request *r, const struct cni_ipam_want *w) {
    struct err e = {0};
    int k = cni_ipam_reuse(r->s, w, r->pod.is_target, r->nets, CNI_MAX_IPS, &r->n_nets, &e);
    if (k == 0) {
        memcpy(r->block_nets, r->nets, r->n_nets * sizeof(*r->nets));
        return 1;
    }
    if (k == ERR_NOT_FOUND && r->pod.is_target) {
        return cni_fail(&r->fail, CNI_CODE_TRY_LATER, "margay ipam show lists what is held",
                        "pod %.*s/%.*s is the target of a live migration, but its machine has no "
                        "address: handle %.*s holds none",
                        STR_FMT(r->pod.ns), STR_FMT(r->pod.pod), STR_FMT(w->handle));
    }
    if (k != ERR_NOT_FOUND) {
        return find_failed(r, k, &e);
    }
    mend_handle(r);
    return 0;
}

/* ---- whose it is ---- */

struct search {
    struct str ns, pod;
    struct arena *a;
    struct str handle, name;
};

static void see_allocation(void *arg, const struct ipam_allocation *x) {
    struct search *q = arg;
    if (!q->handle.n && x->handle.n && ipam_is_owner(x->attributes, q->ns, q->pod)) {
        struct str name = jnode_str(jnode_path(x->attributes, "secondary.vmi-name"));
        name = name.n ? name : jnode_str(jnode_path(x->attributes, "alternateOwnerAttrs.vmi-name"));
        if (name.n) {
            q->handle = arena_dup(q->a, x->handle);
            q->name = arena_dup(q->a, name);
        }
    }
}

int cni_machine_of(struct cni_server *s, struct str network, struct str ns, struct str pod,
                   struct arena *a, struct str *handle, struct str *name, struct err *e) {
    struct search q = {ns, pod, a, STR(""), STR("")};
    *name = machine_name_of_launcher(pod);
    if (name->p && network.n) {
        *handle = machine_handle(network, ns, *name, a);
        return 0;
    }
    if (!machine_is_launcher(pod)) {
        return ERR_NOT_FOUND;
    }
    int r = ipam_allocations(s->ipam, see_allocation, &q, e);
    *handle = q.handle;
    *name = q.name;
    return r < 0 ? r : q.handle.n ? 0 : ERR_NOT_FOUND;
}

/* ---- DEL ---- */

int cni_machine_leave(struct cni_server *s, struct str network, struct str ns, struct str pod,
                      struct err *e) {
    struct arena a = {0};
    struct ipam_exact held[CNI_MAX_IPS];
    size_t n_held = 0, n_released = 0;
    struct str handle, name;
    enum machine_life life = MACHINE_LIVES;
    struct err ignored = {0}; /* what can't be found out keeps the addresses */
    bool is_owned = true;
    if (!machine_is_launcher(pod)) {
        return 0;
    }
    int r = cni_machine_of(s, network, ns, pod, &a, &handle, &name, e);
    r = r < 0 ? r
              : ipam_owner_clear(s->ipam, handle, ns, pod, &is_owned, held, CNI_MAX_IPS, &n_held,
                                 &a, e);
    bool may_ask = cni_kube(s) && (!s->kube_lost_ns || clock_ns() - s->kube_lost_ns > ASK_AGAIN_NS);
    if (r == 0 && !is_owned && may_ask &&
        machine_life(cni_kube(s), ns, name, &life, &ignored) < 0) {
        s->kube_lost_ns = clock_ns();
        LOG_W("cni", "machine_unknown", "machine=%.*s/%.*s its addresses stay: %s", STR_FMT(ns),
              STR_FMT(name), log_quote(str_c(ignored.msg)));
        life = MACHINE_LIVES;
    }
    if (r == 0 && !is_owned && life != MACHINE_LIVES) {
        r = ipam_release_exact(s->ipam, held, n_held, &n_released, e);
    }
    arena_fini(&a);
    return r == ERR_NOT_FOUND ? 0 : r;
}
