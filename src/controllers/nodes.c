#include "controllers/nodes.h"

#include "base/log.h"
#include "controllers/convert.h"
#include "controllers/objects.h"

/* ---- endpoints ---- */

static int endpoint_once(struct store *source, struct store *target, struct str key,
                         struct arena *a, struct err *e) {
    const struct kind *k;
    struct str ns, name;
    if (kind_split_key(key, &k, &ns, &name) < 0 || k->id != K_WORKLOAD_ENDPOINT) {
        return 0;
    }
    struct stored wep, pod;
    int r = stored_get(target, k->id, ns, name, a, &wep, e);
    struct str pod_name = jnode_str(jnode_path(wep.doc, "spec.pod"));
    if (r < 0 || !pod_name.n ||
        !str_is(jnode_str(jnode_path(wep.doc, "spec.orchestrator")), "k8s")) {
        return r;
    }
    r = stored_get(source, K_POD, ns, pod_name, a, &pod, e);
    if (r < 0 || !pod.doc || !convert_endpoint(wep.doc, pod.doc, a)) {
        return r;
    }
    return stored_put(target, k->id, ns, name, wep.doc, wep.revision, e);
}

int endpoint_sync(struct store *source, struct store *target, struct str key, struct err *e) {
    struct arena a = {0};
    int r = endpoint_once(source, target, key, &a, e);
    arena_fini(&a);
    return r;
}

/* ---- nodes ---- */

static int node_once(struct store *source, struct store *target, struct str name, bool has_labels,
                     struct arena *a, struct err *e) {
    struct stored node, k8s;
    int r = stored_get(target, K_NODE, STR(""), name, a, &node, e);
    struct str k8s_name = convert_k8s_node_name(node.doc);
    if (r < 0 || !k8s_name.n) {
        return r;
    }
    r = stored_get(source, K_NODE_K8S, STR(""), k8s_name, a, &k8s, e);
    if (r < 0) {
        return r;
    }
    if (!k8s.doc) {
        LOG_I("controllers", "node_deleted", "node=%s", log_quote(name));
        return stored_delete(target, K_NODE, STR(""), name, node.revision, e);
    }
    if (!has_labels || !convert_node_labels(node.doc, k8s.doc, a)) {
        return 0;
    }
    return stored_put(target, K_NODE, STR(""), name, node.doc, node.revision, e);
}

int node_sync(struct store *source, struct store *target, struct str name, bool has_labels,
              struct err *e) {
    struct arena a = {0};
    int r = node_once(source, target, name, has_labels, &a, e);
    arena_fini(&a);
    return r;
}

/* ---- host endpoints ---- */

static const struct hep_wanted *find(const hep_list *l, struct str name) {
    for (size_t i = 0; i < l->n; i++) {
        if (str_eq(l->p[i].name, name)) {
            return &l->p[i];
        }
    }
    return NULL;
}

static bool is_as_wanted(const struct jnode *doc, const struct hep_wanted *w) {
    return convert_same(jnode_getc(doc, "spec"), w->spec) &&
           convert_same(jnode_path(doc, "metadata.labels"), w->labels) &&
           (!w->annotations ||
            convert_same(jnode_path(doc, "metadata.annotations"), w->annotations));
}

static int hep_once(struct store *target, struct str name, struct str node_name,
                    const struct jnode *config, struct arena *a, struct err *e) {
    struct stored hep, node;
    int r = stored_get(target, K_HOST_ENDPOINT, STR(""), name, a, &hep, e);
    if (r < 0 || (hep.doc && !convert_is_auto_hep(hep.doc))) {
        return r;
    }
    r = stored_get(target, K_NODE, STR(""), node_name, a, &node, e);
    if (r < 0) {
        return r;
    }
    hep_list wanted = {NULL, 0};
    if (node.doc) {
        wanted = convert_heps(node.doc, config, a);
    }
    const struct hep_wanted *w = find(&wanted, name);
    if (!w) {
        return hep.doc ? stored_delete(target, K_HOST_ENDPOINT, STR(""), name, hep.revision, e) : 0;
    }
    if (hep.doc && is_as_wanted(hep.doc, w)) {
        return 0;
    }
    struct jnode *doc = hep.doc ? hep.doc : stored_new(K_HOST_ENDPOINT, STR(""), name, a);
    struct jnode *meta = jnode_getc(doc, "metadata");
    jnode_set(a, meta, STR("labels"), w->labels);
    if (w->annotations) {
        jnode_set(a, meta, STR("annotations"), w->annotations);
    }
    jnode_set(a, doc, STR("spec"), w->spec);
    return stored_put(target, K_HOST_ENDPOINT, STR(""), name, doc, hep.revision, e);
}

int hep_sync(struct store *target, struct str name, struct str node, const struct jnode *config,
             struct err *e) {
    struct arena a = {0};
    int r = hep_once(target, name, node, config, &a, e);
    arena_fini(&a);
    return r;
}
