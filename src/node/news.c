/* What the syncer tells goes to the calculation, and to whoever else looks at an object. */
#include "node/node_int.h"

#include "model/k8s.h"
#include "model/pool.h"

#include <stdio.h>
#include <stdlib.h>

static void on_problem(void *arg, const struct kind *k, struct str ns, struct str name,
                       struct str reason) {
    struct node *n = arg;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(2048);
    buf_printf(&b, "%s/%.*s%s%.*s", k->kind, STR_FMT(ns), ns.n ? "/" : "", STR_FMT(name));
    struct problem *p = problem_map_get(&n->problems, buf_view(&b));
    if (p) {
        struct problem old = *p;
        problem_map_del(&n->problems, buf_view(&b));
        free(old.object);
        free(old.reason);
    }
    if (!reason.p) {
        return;
    }
    char *object = strndup(b.p, b.n);
    mg_assert(object != NULL);
    p = problem_map_put(&n->problems, str_n(object, b.n), NULL);
    p->object = object;
    p->reason = strndup(reason.p, reason.n);
    mg_assert(p->reason != NULL);
    LOG_W("policy", "problem", "object=%s reason=%s", object, log_quote(reason));
}

/* The calculation's sink: the dataplane, and what else keeps a copy; but problems come here. */
#define TELL(n, op, ...)                                           \
    do {                                                           \
        dataplane_calc_ops.op((n)->dataplane, __VA_ARGS__);        \
        if ((n)->cut) {                                            \
            mirror_calc_ops.op(cut_mirror((n)->cut), __VA_ARGS__); \
        }                                                          \
    } while (0)
static void sink_set_new(void *arg, const struct calc_set *s) {
    TELL((struct node *)arg, set_new, s);
}
static void sink_members(void *arg, uint32_t id, const struct calc_member *added, size_t n_added,
                         const struct calc_member *removed, size_t n_removed) {
    TELL((struct node *)arg, set_members, id, added, n_added, removed, n_removed);
}
static void sink_set_gone(void *arg, uint32_t id) {
    TELL((struct node *)arg, set_gone, id);
}
static void sink_policy(void *arg, const struct calc_policy *p) {
    TELL((struct node *)arg, policy, p);
}
static void sink_policy_gone(void *arg, uint32_t id) {
    TELL((struct node *)arg, policy_gone, id);
}
static void sink_endpoint(void *arg, const struct calc_endpoint *e) {
    TELL((struct node *)arg, endpoint, e);
}
static void sink_endpoint_gone(void *arg, uint32_t id) {
    TELL((struct node *)arg, endpoint_gone, id);
}
const struct calc_ops node_calc_ops = {
    .set_new = sink_set_new,
    .set_members = sink_members,
    .set_gone = sink_set_gone,
    .policy = sink_policy,
    .policy_gone = sink_policy_gone,
    .endpoint = sink_endpoint,
    .endpoint_gone = sink_endpoint_gone,
    .problem = on_problem,
};

static void pool_changed(struct node *n, struct str name, const struct object *o) {
    struct dataplane_pool *p = pool_map_get(&n->pools, name);
    n->pools_dirty = true;
    if (!o || !o->spec) {
        size_t i = 0;
        struct str key;
        struct dataplane_pool *v;
        while (p && pool_map_next(&n->pools, &i, &key, &v)) {
            if (v == p) {
                pool_map_del(&n->pools, name);
                free((char *)(uintptr_t)key.p);
                return;
            }
        }
        return;
    }
    if (!p) {
        char *key = strndup(name.p, name.n);
        mg_assert(key != NULL);
        p = pool_map_put(&n->pools, str_n(key, name.n), NULL);
    }
    const struct ip_pool_spec *s = o->spec;
    *p = (struct dataplane_pool){.cidr = s->cidr, .is_nat_outgoing = s->nat_outgoing};
}

static void felix_changed(struct node *n, struct str name, const struct object *o) {
    char own[300];
    snprintf(own, sizeof(own), "node.%s", n->name);
    bool is_own = str_is(name, own);
    if (!is_own && !str_is(name, "default")) {
        return;
    }
    struct arena *a = &n->felix_arena[is_own];
    struct jnode **slot = is_own ? &n->sources.node : &n->sources.deflt;
    arena_fini(a);
    *slot = o ? jnode_copy(a, jnode_getc(o->doc, "spec")) : NULL;
    n->settings_dirty = true;
}

/* The document of an item, decoded as far as it goes; *problem: its first error. False: it is no
 * document of that kind; what was known of the object holds on, since taking it for deleted could
 * let through what it denied.
 */
static bool decode(struct node *n, const struct kind *k, struct str ns, struct str name,
                   const struct store_item *it, struct object *o, struct str *problem) {
    struct jnode *doc = NULL;
    struct err e;
    struct model_errors errs = {.a = &n->scratch};
    if (json_parse(it->value, &json_limits_default, &n->scratch, &doc, &e) < 0) {
        LOG_E("store", "bad_item", "key=%s error=%s", log_quote(it->key), log_quote(str_c(e.msg)));
        on_problem(n, k, ns, name, str_c(e.msg));
        return false;
    }
    int r = object_read(doc, MODEL_STORE, ns, &n->scratch, o, &errs);
    if (r < 0 && errs.n) {
        *problem = arena_printf(&n->scratch, "%.*s: %.*s", STR_FMT(errs.p[0].path),
                                STR_FMT(errs.p[0].message));
    }
    if (o->kind != k) {
        LOG_E("store", "bad_item", "key=%s error=\"the document's kind is not the key's\"",
              log_quote(it->key));
        on_problem(n, k, ns, name, STR("kind: the document's kind is not that of its key"));
        return false;
    }
    return true;
}

static bool is_own_pod(const struct node *n, const struct object *o) {
    const struct k8s_pod *pod = o->spec;
    bool is_unnamed = pod && !pod->node_name.n && store_is_quick(n->store);
    return is_unnamed || (pod && str_is(pod->node_name, n->name));
}

static void on_item(void *arg, const struct store_item *it) {
    struct node *n = arg;
    const struct kind *k = NULL;
    struct str ns, name;
    if (kind_split_key(it->key, &k, &ns, &name) < 0) {
        return; /* of a kind that this version does not know */
    }
    struct object o = {.kind = k};
    struct object *p = it->value.p ? &o : NULL;
    struct str problem = STR_NULL;
    if (p && !decode(n, k, ns, name, it, p, &problem)) {
        arena_reset(&n->scratch);
        return;
    }
    calc_object(n->calc, k, ns, name, p);
    if (problem.p) { /* after the calculation, which has no more to say of it */
        on_problem(n, k, ns, name, problem);
    }
    switch ((int)k->id) {
    case K_IP_POOL:
        pool_changed(n, name, p);
        break;
    case K_FELIX_CONFIGURATION:
        felix_changed(n, name, p);
        break;
    default:
        break;
    }
    if (k->id == K_WORKLOAD_ENDPOINT && p && !n->in_sync && !store_is_quick(n->store)) {
        cni_server_endpoint(n->cni, it); /* attached before this agent's start */
    }
    if (n->cni) {
        cni_server_object(n->cni, k, ns, name);
    }
    if (n->cni && k->id == K_POD && p && is_own_pod(n, p)) {
        cni_server_pod(n->cni, ns, name, &p->meta.annotations);
    }
    if (n->autohep) {
        autohep_object(n->autohep, k, name);
    }
    if (n->network) {
        network_object(n->network, k, name, p);
    }
    arena_reset(&n->scratch);
}

static void on_in_sync(void *arg) {
    ((struct node *)arg)->in_sync = true;
}

static void on_batch_end(void *arg, uint64_t revision MG_UNUSED) {
    struct node *n = arg;
    if (!n->in_sync) {
        return;
    }
    node_apply(n);
    if (n->network) {
        network_flush(n->network, true);
    }
    if (!n->is_ready) {
        node_ready(n);
    }
}

static void on_connected(void *arg, bool is_connected, const char *why) {
    struct node *n = arg;
    if (is_connected) {
        LOG_I("store", "connected", "away_ms=%lld",
              n->lost_ns ? (long long)(clock_ns() - n->lost_ns) / 1000000 : 0);
        n->lost_ns = 0;
    } else {
        n->lost_ns = clock_ns();
        (void)snprintf(n->lost_why, sizeof(n->lost_why), "%s", why);
        LOG_W("store", "connection_lost", "reason=%s", log_quote(str_c(why)));
    }
}

const struct syncer_ops node_sync_ops = {on_item, on_in_sync, on_batch_end, on_connected};
