#include "controllers/jobs.h"

#include "base/log.h"
#include "base/vec.h"
#include "controllers/config.h"
#include "controllers/convert.h"
#include "controllers/lb.h"
#include "controllers/mirror.h"
#include "controllers/nodes.h"
#include "controllers/objects.h"
#include "ipam/ipam.h"
#include "ipam/machines.h"

#include <stdlib.h>

struct str job_key(enum job_kind k, struct str rest, struct arena *a) {
    return arena_printf(a, "%c:%.*s", (char)k, STR_FMT(rest));
}

struct str job_rest(struct str key) {
    return str_sub(key, 2, key.n);
}

/* ---- addresses ---- */

/* The machine is there, or nobody can say that it isn't; or a pod of it is. */
static int machine_held(struct job *j, struct store *source, const struct gc_alloc *x, bool *held) {
    enum machine_life life = MACHINE_LIVES;
    struct err ignored = {.code = 0}; /* it stays, then */
    const struct str pods[] = {x->pod, x->other_pod};
    int r = 0;
    *held = machine_life(source, x->ns, x->machine, &life, &ignored) < 0 || life != MACHINE_GONE;
    for (size_t i = 0; i < ARRAY_LEN(pods) && r == 0 && !*held; i++) {
        struct stored pod = {0};
        r = pods[i].n ? stored_get(source, K_POD, x->ns, pods[i], &j->a, &pod, &j->e) : 0;
        *held = r == 0 && pods[i].n && pod.doc;
    }
    return r;
}

/* The last look, at the store itself: does the pod have the address now? */
static int still_held(struct job *j, struct store *source, const struct gc_alloc *x, bool *held) {
    struct stored pod;
    *held = false;
    if (x->machine.n) {
        return machine_held(j, source, x, held);
    }
    if (!x->pod.n) {
        return 0; /* a tunnel's */
    }
    int r = stored_get(source, K_POD, x->ns, x->pod, &j->a, &pod, &j->e);
    if (r < 0 || !pod.doc) {
        return r;
    }
    struct ip46 ips[64];
    size_t n = facts_pod_ips(pod.doc, ips, ARRAY_LEN(ips));
    *held = n == 0; /* it may be about to tell of it */
    for (size_t i = 0; i < n; i++) {
        *held = *held || ip_eq(&ips[i], &x->ip);
    }
    return 0;
}

struct endpoint_look {
    struct job *j;
    struct str *gone;
    size_t n_gone;
    bool is_used;
};
/* An endpoint that has one of the addresses and is not about to be deleted. */
static int look_at_endpoint(void *arg, const struct store_item *it) {
    struct endpoint_look *l = arg;
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err ignored; /* one that can't be read may have any address */
    bool is_bad = json_parse(it->value, &json_limits_default, &a, &doc, &ignored) < 0;
    const struct jnode *nets = jnode_path(doc, "spec.ipNetworks");
    jnode_each (n, nets) {
        struct prefix p;
        is_bad = is_bad || prefix_parse(jnode_str(n), &p) < 0;
        for (size_t i = 0; !is_bad && i < l->j->n_allocs; i++) {
            l->is_used = l->is_used || ip_eq(&l->j->allocs[i].ip, &p.ip);
        }
    }
    bool is_gone = false;
    for (size_t i = 0; i < l->n_gone; i++) {
        is_gone = is_gone || str_eq(l->gone[i], it->key);
    }
    l->is_used = (l->is_used && !is_gone) || is_bad;
    arena_fini(&a);
    return 0;
}

/* Endpoints in the pods' namespaces, read from the store: none may have an address that goes. */
static int endpoints_use(struct job *j, struct store *target, bool *is_used) {
    struct endpoint_look l = {j, j->endpoints, j->n_endpoints, false};
    int r = 0;
    for (size_t i = 0; i < j->n_allocs && r == 0 && !j->is_own_pods; i++) {
        if ((j->allocs[i].pod.n || j->allocs[i].machine.n) &&
            (i == 0 || !str_eq(j->allocs[i].ns, j->allocs[i - 1].ns))) {
            struct store_key prefix = {
                STR(STORE_SPACE_RESOURCES),
                arena_printf(&j->a, "%s/%.*s/", kind_store_name(&model_kinds[K_WORKLOAD_ENDPOINT]),
                             STR_FMT(j->allocs[i].ns))};
            r = store_list(target, prefix, NULL, look_at_endpoint, &l, &j->e);
        }
    }
    *is_used = l.is_used;
    return r;
}

/* A pod on a node that is there isn't the one whose endpoint a gone node left. */
static int is_elsewhere(struct job *j, struct store *source, const struct jnode *pod, bool *is) {
    struct stored node;
    struct str name = jnode_str(jnode_path(pod, "spec.nodeName"));
    *is = false;
    int r = name.n ? stored_get(source, K_NODE_K8S, STR(""), name, &j->a, &node, &j->e) : 0;
    *is = r == 0 && name.n && node.doc;
    return r;
}

static int delete_endpoints(struct job *j, struct store *source, struct store *target) {
    int r = 0;
    for (size_t i = 0; i < j->n_endpoints && r == 0; i++) {
        const struct kind *k;
        struct str ns, name;
        struct stored wep, pod;
        if (kind_split_key(j->endpoints[i], &k, &ns, &name) < 0) {
            continue;
        }
        r = stored_get(target, K_WORKLOAD_ENDPOINT, ns, name, &j->a, &wep, &j->e);
        struct str pod_name = jnode_str(jnode_path(wep.doc, "spec.pod"));
        if (r == 0 && wep.doc && pod_name.n) {
            r = stored_get(source, K_POD, ns, pod_name, &j->a, &pod, &j->e);
            bool is_gone = !pod.doc;
            r = r == 0 && pod.doc ? is_elsewhere(j, source, pod.doc, &is_gone) : r;
            r = r == 0 && is_gone
                    ? stored_delete(target, K_WORKLOAD_ENDPOINT, ns, name, wep.revision, &j->e)
                    : r;
        }
    }
    return r;
}

/* All addresses of a handle, or none. Endpoints of gone pods on gone nodes go first: an address
 * that is given to somebody else must have no other endpoint any more. */
static int release(struct job *j, struct store *source, struct store *target) {
    VEC(struct ipam_exact) v = {0};
    bool is_held = false;
    int r = 0;
    for (size_t i = 0; i < j->n_allocs && r == 0 && !is_held; i++) {
        const struct gc_alloc *x = &j->allocs[i];
        r = still_held(j, source, x, &is_held);
        vec_push(&v, (struct ipam_exact){x->ip, x->handle, x->sequence});
    }
    if (r == 0 && !is_held) {
        r = endpoints_use(j, target, &is_held);
    }
    if (r == 0 && !is_held && v.n) {
        r = delete_endpoints(j, source, target);
        struct ipam *m = ipam_new(target, STR("-"));
        r = r == 0 ? ipam_settings_heed(m, &j->e) : r;
        r = r == 0 ? ipam_release_exact(m, v.p, v.n, &j->n_released, &j->e) : r;
        ipam_free(m);
    }
    vec_fini(&v);
    if (r == 0 && j->n_released) {
        LOG_I("controllers", "addresses_collected", "handle=%s addresses=%zu",
              log_quote(job_rest(j->key)), j->n_released);
    }
    return r;
}

static int release_block(struct job *j, struct store *target) {
    struct str rest = job_rest(j->key), node = str_cut(&rest, ' ');
    struct prefix cidr;
    if (prefix_parse(rest, &cidr) < 0) {
        return 0;
    }
    struct ipam *m = ipam_new(target, node);
    int r = ipam_settings_heed(m, &j->e);
    r = r == 0 ? ipam_release_block(m, &cidr, &j->e) : r;
    ipam_free(m);
    return r == ERR_CONFLICT ? 0 : r; /* somebody uses it: so much the better */
}

/* What is there for a node that has gone: its shares of the pools, its endpoints. */
static int release_node(struct job *j, struct store *source, struct store *target) {
    struct str name = job_rest(j->key);
    struct stored node;
    int r = stored_get(source, K_NODE_K8S, STR(""), j->node, &j->a, &node, &j->e);
    if (r < 0 || node.doc) {
        return r; /* back again */
    }
    r = delete_endpoints(j, source, target);
    struct ipam *m = ipam_new(target, name);
    r = r == 0 ? ipam_settings_heed(m, &j->e) : r;
    r = r == 0 ? ipam_release_owner(m, &j->e) : r;
    ipam_free(m);
    if (r == 0) {
        LOG_I("controllers", "node_collected", "node=%s", log_quote(name));
    }
    return r;
}

/* Where there is no KubeVirt, or no right to ask, it stays unknown. */
static int machine(struct job *j, struct store *source) {
    struct str name = job_rest(j->key), ns = str_cut(&name, '/');
    enum machine_life life = MACHINE_LIVES;
    j->is_known = machine_life(source, ns, name, &life, &j->e) == 0;
    j->is_gone = j->is_known && life == MACHINE_GONE;
    return 0;
}

/* ---- the rest ---- */

static int service(struct job *j, struct store *source, struct store *target) {
    struct str name = job_rest(j->key), ns = str_cut(&name, '/');
    return lb_sync(source, target, ns, name, j->assigns_all, j->held, j->n_held, &j->e);
}

static int host_endpoint(struct job *j, struct store *target) {
    struct str node = job_rest(j->key), name = str_cut(&node, ' ');
    return node.n ? hep_sync(target, name, node, j->auto_hep, &j->e) : 0;
}

/* Writes the status, and the object if it isn't there. */
static int config(struct job *j, struct store *target) {
    struct stored c;
    const enum kind_id kind = K_KUBE_CONTROLLERS_CONFIGURATION;
    int r = stored_get(target, kind, STR(""), STR("default"), &j->a, &c, &j->e);
    if (r < 0 || (c.doc && convert_same(jnode_getc(c.doc, "status"), j->status))) {
        return r;
    }
    struct jnode *doc = c.doc;
    if (!doc) {
        doc = stored_new(kind, STR(""), STR("default"), &j->a);
        jnode_set(&j->a, doc, STR("spec"), config_default_spec(&j->a));
    }
    jnode_set(&j->a, doc, STR("status"), jnode_copy(&j->a, j->status));
    return stored_put(target, kind, STR(""), STR("default"), doc, c.revision, &j->e);
}

static int compact(struct job *j, struct store *target) {
    uint64_t forgotten = 0;
    int r = store_compact(target, &j->compaction, &forgotten, &j->e);
    if (r == 0 && forgotten) {
        LOG_I("controllers", "compacted", "revision=%llu", (unsigned long long)forgotten);
    }
    return r;
}

void job_run(struct job *j, struct store *source, struct store *target) {
    struct str rest = job_rest(j->key);
    j->e.code = 0;
    j->e.msg[0] = '\0';
    switch ((enum job_kind)j->key.p[0]) {
    case JOB_MIRROR:
        j->result = mirror_sync(source, target, rest, &j->e);
        break;
    case JOB_ENDPOINT:
        j->result = endpoint_sync(source, target, rest, &j->e);
        break;
    case JOB_NODE:
        j->result = node_sync(source, target, rest, j->has_labels, &j->e);
        break;
    case JOB_HEP:
        j->result = host_endpoint(j, target);
        break;
    case JOB_SERVICE:
        j->result = service(j, source, target);
        break;
    case JOB_RELEASE:
        j->result = release(j, source, target);
        break;
    case JOB_BLOCK:
        j->result = release_block(j, target);
        break;
    case JOB_GONE:
        j->result = release_node(j, source, target);
        break;
    case JOB_MACHINE:
        j->result = machine(j, source);
        break;
    case JOB_CONFIG:
        j->result = config(j, target);
        break;
    case JOB_COMPACT:
        j->result = compact(j, target);
        break;
    }
}
