/* Items become facts; facts that differ from what should be become keys of the queue. Before all is
 * in sync, and while another controller works, facts are kept and nothing is asked for. */
#include "controllers/engine_int.h"

#include "base/log.h"
#include "controllers/convert.h"

#include <stdlib.h>

bool engine_may_work(const struct engine *x) {
    bool is_in_sync = x->feeds[FEED_TARGET].is_in_sync && x->feeds[FEED_IPAM].is_in_sync &&
                      (x->feeds[FEED_SOURCE].is_in_sync || !x->is_two);
    return is_in_sync && x->has_config && x->is_datastore_ready && leader_is(x->leader);
}

void engine_ask(struct engine *x, enum job_kind k, struct str rest) {
    if (!x->is_working || rest.n + 2 > QUEUE_KEY_MAX) {
        return;
    }
    struct arena a = {.first_bytes = 256};
    queue_add(x->queue, job_key(k, rest, &a));
    loop_defer_ask(x->later);
    arena_fini(&a);
}

static bool is_on(const struct engine *x, enum controller c) {
    return x->config.is_enabled[c];
}

/* Which mirrors run: only between two stores. */
static void enabled_mirrors(const struct engine *x, bool out[MIRROR_N]) {
    out[MIRROR_POLICY] = x->is_two && is_on(x, CONTROLLER_POLICY);
    out[MIRROR_NAMESPACE] = x->is_two && is_on(x, CONTROLLER_NAMESPACE);
    out[MIRROR_ACCOUNT] = x->is_two && is_on(x, CONTROLLER_SERVICE_ACCOUNT);
}

/* ---- endpoints ---- */

static void ask_endpoint(void *arg, const struct fact_endpoint *e) {
    struct engine *x = arg;
    struct fact_pod p;
    if (e->is_k8s && e->pod.n && facts_get_pod(x->facts, e->ns, e->pod, &p) &&
        p.shape != e->shape) {
        engine_ask(x, JOB_ENDPOINT, e->key);
    }
}

static bool has_endpoints(const struct engine *x) {
    return x->is_two && is_on(x, CONTROLLER_WORKLOAD_ENDPOINT);
}

/* ---- nodes and host endpoints ---- */

static bool has_heps(const struct engine *x) {
    return is_on(x, CONTROLLER_NODE) && !x->o.is_embedded;
}

static void ask_hep(void *arg, struct str name, struct str node) {
    struct arena a = {.first_bytes = 1024};
    engine_ask(arg, JOB_HEP, arena_printf(&a, "%.*s %.*s", STR_FMT(name), STR_FMT(node)));
    arena_fini(&a);
}

/* All host endpoints of a node: those that should be there and those that are. */
struct hep_of {
    struct engine *x;
    struct str node;
};
static void ask_hep_of(void *arg, struct str name, struct str node) {
    struct hep_of *h = arg;
    if (str_eq(node, h->node)) {
        ask_hep(h->x, name, node);
    }
}
static void ask_heps(struct engine *x, struct str node, const struct jnode *doc) {
    struct arena a = {0};
    if (doc) {
        hep_list l = convert_heps(doc, x->config.auto_hep, &a);
        for (size_t i = 0; i < l.n; i++) {
            ask_hep(x, l.p[i].name, node);
        }
    }
    struct hep_of h = {x, node};
    facts_each_auto_hep(x->facts, ask_hep_of, &h);
    arena_fini(&a);
}

static void ask_node(void *arg, const struct fact_node *n) {
    struct engine *x = arg;
    if (x->is_two && is_on(x, CONTROLLER_NODE)) {
        engine_ask(x, JOB_NODE, n->name);
    }
    if (has_heps(x)) {
        struct arena a = {.first_bytes = 512};
        ask_hep(x, convert_hep_name(n->name, &a), n->name);
        arena_fini(&a);
    }
}

struct by_k8s_name {
    struct engine *x;
    struct str name;
};
static void ask_node_named(void *arg, const struct fact_node *n) {
    struct by_k8s_name *b = arg;
    if (str_eq(n->k8s_name, b->name)) {
        ask_node(b->x, n);
    }
}

/* ---- services ---- */

static void ask_service(void *arg, struct str key) {
    engine_ask(arg, JOB_SERVICE, key);
}

/* Services that have addresses by the books, but may be gone. */
static void ask_service_of(void *arg, const struct gc_alloc *v) {
    struct arena a = {.first_bytes = 512};
    engine_ask(arg, JOB_SERVICE,
               arena_printf(&a, "%.*s/%.*s", STR_FMT(v->ns), STR_FMT(v->service)));
    arena_fini(&a);
}

static void ask_services(struct engine *x) {
    if (is_on(x, CONTROLLER_LOAD_BALANCER)) {
        facts_each_service(x->facts, ask_service, x);
        gc_each_service_alloc(x->gc, ask_service_of, x);
    }
}

/* ---- everything ---- */

static void ask_mirror(void *arg, struct str key) {
    engine_ask(arg, JOB_MIRROR, key);
}

void engine_ask_all(struct engine *x) {
    bool mirrors[MIRROR_N];
    enabled_mirrors(x, mirrors);
    mirror_each_different(x->mirror, mirrors, ask_mirror, x);
    if (has_endpoints(x)) {
        facts_each(x->facts, ask_endpoint, x);
    }
    facts_each_node(x->facts, ask_node, x);
    if (has_heps(x)) {
        facts_each_auto_hep(x->facts, ask_hep, x);
    }
    ask_services(x);
}

/* ---- items ---- */

static void see_mirrored(struct engine *x, enum mirror_id id, bool is_source, struct str ns,
                         struct str name, struct jnode *doc, struct arena *a) {
    struct str key = is_source ? mirror_saw_source(x->mirror, id, ns, name, doc, a)
                               : mirror_saw_target(x->mirror, id, ns, name, doc, a);
    bool mirrors[MIRROR_N];
    enabled_mirrors(x, mirrors);
    if (key.p && mirrors[id]) {
        engine_ask(x, JOB_MIRROR, key);
    }
}

static void see_config(struct engine *x, struct str name, const struct jnode *doc) {
    struct err e = {.code = 0};
    if (!str_is(name, "default")) {
        return;
    }
    if (engine_configure(x, jnode_getc(doc, "spec"), &e) < 0) {
        LOG_W("controllers", "configuration", "error=%s", log_quote(str_c(e.msg)));
    }
}

static void see_pool(struct engine *x, struct str name, const struct jnode *doc) {
    struct prefix p;
    bool has = doc && prefix_parse(jnode_str(jnode_path(doc, "spec.cidr")), &p) == 0;
    gc_pool(x->gc, name, has ? &p : NULL);
    ask_services(x);
}

static void see_ready(struct engine *x, const struct jnode *doc) {
    const struct jnode *ready = jnode_path(doc, "spec.datastoreReady");
    x->is_datastore_ready = !ready || ready->type != J_BOOL || ready->b;
}

static void see_pod(struct engine *x, struct str ns, struct str name, const struct jnode *doc) {
    facts_pod(x->facts, ns, name, doc);
    if (has_endpoints(x)) {
        facts_each_endpoint(x->facts, ns, name, ask_endpoint, x);
    }
}

static void see_service(struct engine *x, struct str ns, struct str name, const struct jnode *doc) {
    facts_service(x->facts, ns, name, doc);
    if (is_on(x, CONTROLLER_LOAD_BALANCER)) {
        struct arena a = {.first_bytes = 512};
        engine_ask(x, JOB_SERVICE, arena_printf(&a, "%.*s/%.*s", STR_FMT(ns), STR_FMT(name)));
        arena_fini(&a);
    }
}

static void see_k8s_node(struct engine *x, struct str name, const struct jnode *doc) {
    facts_k8s_node(x->facts, name, doc);
    if (!doc) {
        x->next_gc_ns = 0; /* what it had may go soon */
    }
    if (x->is_two && is_on(x, CONTROLLER_NODE)) {
        struct by_k8s_name b = {x, name};
        facts_each_node(x->facts, ask_node_named, &b);
    }
}

static void see_node(struct engine *x, struct str name, const struct jnode *doc) {
    facts_node(x->facts, name, doc);
    if (x->is_two && is_on(x, CONTROLLER_NODE) && doc) {
        engine_ask(x, JOB_NODE, name);
    }
    if (has_heps(x)) {
        ask_heps(x, name, doc);
    }
}

static void see_source(struct engine *x, enum kind_id kind, struct str ns, struct str name,
                       struct jnode *doc, struct arena *a) {
    switch ((int)kind) {
    case K_POD:
        see_pod(x, ns, name, doc);
        break;
    case K_NODE_K8S:
        see_k8s_node(x, name, doc);
        break;
    case K_SERVICE:
        see_service(x, ns, name, doc);
        break;
    case K_K8S_NETWORK_POLICY:
        see_mirrored(x, MIRROR_POLICY, true, ns, name, doc, a);
        break;
    case K_NAMESPACE:
        see_mirrored(x, MIRROR_NAMESPACE, true, ns, name, doc, a);
        break;
    case K_SERVICE_ACCOUNT:
        see_mirrored(x, MIRROR_ACCOUNT, true, ns, name, doc, a);
        break;
    default:
        break;
    }
}

static void see_target(struct engine *x, enum kind_id kind, struct str key, struct str ns,
                       struct str name, struct jnode *doc, struct arena *a) {
    switch ((int)kind) {
    case K_NETWORK_POLICY:
        see_mirrored(x, MIRROR_POLICY, false, ns, name, doc, a);
        break;
    case K_PROFILE:
        see_mirrored(x, MIRROR_NAMESPACE, false, ns, name, doc, a);
        see_mirrored(x, MIRROR_ACCOUNT, false, ns, name, doc, a);
        break;
    case K_WORKLOAD_ENDPOINT:
        facts_endpoint(x->facts, key, ns, doc);
        if (has_endpoints(x) && doc) {
            facts_each_endpoint(x->facts, ns, jnode_str(jnode_path(doc, "spec.pod")), ask_endpoint,
                                x);
        }
        break;
    case K_NODE:
        see_node(x, name, doc);
        break;
    case K_HOST_ENDPOINT: {
        struct str node = STR("");
        bool was_auto = facts_has_auto_hep(x->facts, name, &node);
        node = arena_dup(a, node);
        facts_hep(x->facts, name, doc);
        if (has_heps(x) && (facts_has_auto_hep(x->facts, name, &node) || was_auto)) {
            ask_hep(x, name, node);
        }
        break;
    }
    case K_IP_POOL:
        see_pool(x, name, doc);
        break;
    case K_KUBE_CONTROLLERS_CONFIGURATION:
        see_config(x, name, doc);
        break;
    case K_CLUSTER_INFORMATION:
        see_ready(x, doc);
        break;
    default:
        break;
    }
}

/* Kinds that anything is done about. */
static bool is_seen(const struct engine *x, enum feed feed, enum kind_id id) {
    bool is_source = id == K_POD || id == K_NODE_K8S || id == K_SERVICE;
    bool is_mirrored = id == K_K8S_NETWORK_POLICY || id == K_NAMESPACE || id == K_SERVICE_ACCOUNT ||
                       id == K_NETWORK_POLICY || id == K_PROFILE;
    bool is_target = id == K_WORKLOAD_ENDPOINT || id == K_NODE || id == K_HOST_ENDPOINT ||
                     id == K_IP_POOL || id == K_KUBE_CONTROLLERS_CONFIGURATION ||
                     id == K_CLUSTER_INFORMATION;
    if (!x->is_two) {
        return is_source || is_target;
    }
    bool is_calico = strcmp(model_kinds[id].group, "projectcalico.org") == 0;
    return (is_source || is_target || is_mirrored) && is_calico == (feed == FEED_TARGET);
}

void engine_see(struct engine *x, enum feed feed, const struct store_item *it) {
    const struct kind *k;
    struct str ns, name;
    if (feed == FEED_IPAM) {
        gc_item(x->gc, it->key, it->value);
        return;
    }
    if (kind_split_key(it->key, &k, &ns, &name) < 0 || !is_seen(x, feed, k->id)) {
        return;
    }
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err e = {.code = 0};
    if (it->value.p && json_parse(it->value, &json_limits_default, &a, &doc, &e) < 0) {
        /* What it was counts on: an object that can't be read is no reason to delete anything. */
        if (log_allow(&x->limit, 5, 60)) {
            LOG_W("controllers", "unreadable", "key=%s error=%s", log_quote(it->key),
                  log_quote(str_c(e.msg)));
        }
        arena_fini(&a);
        return;
    }
    if (!x->is_two || feed == FEED_SOURCE) {
        see_source(x, k->id, ns, name, doc, &a);
    }
    if (!x->is_two || feed == FEED_TARGET) {
        see_target(x, k->id, it->key, ns, name, doc, &a);
    }
    arena_fini(&a);
}

/* ---- jobs ---- */

struct gathering {
    struct job *j;
    struct engine *x;
    struct str node;
    VEC(struct str) v;
};

static void add_handle(void *arg, const struct gc_alloc *v) {
    struct gathering *g = arg;
    for (size_t i = 0; i < g->v.n; i++) {
        if (str_eq(g->v.p[i], v->handle)) {
            return;
        }
    }
    vec_push(&g->v, arena_dup(&g->j->a, v->handle));
}

/* Endpoints that are left over of a node that is gone. */
static void add_endpoint(void *arg, const struct fact_endpoint *e) {
    struct gathering *g = arg;
    if (facts_endpoint_is_left(g->x->facts, e) && (!g->node.n || str_eq(e->node, g->node))) {
        vec_push(&g->v, arena_dup(&g->j->a, e->key));
    }
}

static struct str *take(struct gathering *g, size_t *n) {
    struct str *out = arena_array(&g->j->a, struct str, g->v.n);
    *n = g->v.n;
    if (*n) {
        memcpy(out, g->v.p, *n * sizeof(*out));
    }
    vec_fini(&g->v);
    return out;
}

void engine_prepare(struct engine *x, struct job *j) {
    struct str rest = job_rest(j->key);
    struct gathering g = {.j = j, .x = x, .v = {0}};
    j->has_labels = x->config.sync_labels;
    j->assigns_all = x->config.assigns_all_services;
    j->is_own_pods = x->o.is_kubernetes;
    j->auto_hep = jnode_copy(&j->a, x->config.auto_hep);
    switch ((enum job_kind)j->key.p[0]) {
    case JOB_SERVICE: {
        struct str name = rest, ns = str_cut(&name, '/');
        gc_each_of_service(x->gc, ns, name, add_handle, &g);
        j->held = take(&g, &j->n_held);
        break;
    }
    case JOB_RELEASE:
        j->n_allocs = gc_confirmed(x->gc, rest, &j->a, &j->allocs);
        for (size_t i = 0; i < j->n_allocs && !x->o.is_kubernetes; i++) {
            facts_each_endpoint(x->facts, j->allocs[i].ns, j->allocs[i].pod, add_endpoint, &g);
        }
        j->endpoints = take(&g, &j->n_endpoints);
        break;
    case JOB_GONE: {
        struct str k8s;
        (void)facts_node_exists(x->facts, rest, &k8s);
        j->node = arena_dup(&j->a, k8s);
        g.node = rest;
        if (!x->o.is_kubernetes) {
            facts_each(x->facts, add_endpoint, &g);
        }
        j->endpoints = take(&g, &j->n_endpoints);
        break;
    }
    case JOB_COMPACT:
        j->compaction = x->compaction;
        break;
    case JOB_CONFIG:
        j->status = jnode_copy(&j->a, x->config_status);
        break;
    case JOB_MIRROR:
    case JOB_ENDPOINT:
    case JOB_NODE:
    case JOB_HEP:
    case JOB_BLOCK:
    case JOB_MACHINE:
        break;
    }
}
