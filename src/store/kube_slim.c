/* What follow's consumers don't use is cut before an object becomes an item: a first sync of
 * 100,000 pods passes on a tenth of their text. */
#include "store/kube_shapes.h"

#include <string.h>

/* Keeps the members of map that are named. */
static void keep(struct jnode *map, const char *const *names) {
    if (!map || map->type != J_MAP) {
        return;
    }
    struct jnode *kept = NULL;
    size_t n = 0;
    for (struct jnode *it = map->child, *next; it; it = next) {
        next = it->next;
        bool is_kept = false;
        for (size_t i = 0; names[i] && !is_kept; i++) {
            is_kept = str_is(it->key, names[i]);
        }
        if (is_kept) {
            *(kept ? &kept->next : &map->child) = it;
            kept = it;
            n++;
        }
    }
    if (kept) {
        kept->next = NULL;
    } else {
        map->child = NULL;
    }
    map->last = kept;
    map->n = n;
}

static bool is_used_annotation(struct str key) {
    static const char *const USED[] = {"projectcalico.org/",
                                       "operator.tigera.io/",
                                       "margay.io/",
                                       "kubernetes.io/ingress-bandwidth",
                                       "kubernetes.io/egress-bandwidth",
                                       "k8s.v1.cni.cncf.io/network-status",
                                       "vpc.amazonaws.com/pod-ips"};
    for (size_t i = 0; i < ARRAY_LEN(USED); i++) {
        if (str_contains(key, str_c(USED[i]))) {
            return true;
        }
    }
    return false;
}

static void slim_meta(struct jnode *obj, struct arena *a) {
    static const char *const KEPT[] = {
        "name",   "namespace",   "uid",          "resourceVersion", "creationTimestamp",
        "labels", "annotations", "generateName", "generation",      "deletionTimestamp",
        NULL};
    struct jnode *meta = jnode_getc(obj, "metadata"), *old = jnode_getc(meta, "annotations");
    keep(meta, KEPT);
    if (!old) {
        return;
    }
    struct jnode *used = jnode_new(a, J_MAP);
    for (struct jnode *it = old->child, *next; it; it = next) {
        next = it->next;
        if (is_used_annotation(it->key)) {
            it->next = NULL;
            *(used->last ? &used->last->next : &used->child) = it;
            used->last = it;
            used->n++;
        }
    }
    if (used->n) {
        jnode_set(a, meta, STR("annotations"), used);
    } else {
        (void)jnode_del(meta, STR("annotations"));
    }
}

static void slim_containers(struct jnode *spec, const char *name) {
    static const char *const KEPT[] = {"name", "ports", "restartPolicy", NULL};
    struct jnode *list = jnode_getc(spec, name);
    bool has_ports = false;
    jnode_each (c, list) {
        has_ports |= jnode_getc(c, "ports") != NULL;
        keep(c, KEPT);
    }
    if (list && !has_ports) {
        (void)jnode_del(spec, str_c(name));
    }
}

static void slim_pod(struct jnode *obj) {
    static const char *const SPEC[] = {"nodeName",   "hostNetwork",    "serviceAccountName",
                                       "containers", "initContainers", NULL};
    static const char *const STATUS[] = {"phase", "podIP", "podIPs", NULL};
    struct jnode *spec = jnode_getc(obj, "spec");
    keep(spec, SPEC);
    keep(jnode_getc(obj, "status"), STATUS);
    slim_containers(spec, "containers");
    slim_containers(spec, "initContainers");
}

void kube_slim(const struct kube_rest *r, struct jnode *obj, struct arena *a) {
    static const char *const TOP_META[] = {"apiVersion", "kind", "metadata", NULL};
    static const char *const NODE_SPEC[] = {"podCIDR", "podCIDRs", "taints", "unschedulable", NULL};
    static const char *const NODE_STATUS[] = {"addresses", NULL};
    static const char *const SERVICE_STATUS[] = {"loadBalancer", NULL};
    if (strcmp(r->group, KUBE_CRD_GROUP) == 0) {
        kube_strip(obj);
        return;
    }
    slim_meta(obj, a);
    if (strcmp(r->plural, "pods") == 0) {
        slim_pod(obj);
    } else if (strcmp(r->plural, "nodes") == 0) {
        keep(jnode_getc(obj, "spec"), NODE_SPEC);
        keep(jnode_getc(obj, "status"), NODE_STATUS);
    } else if (strcmp(r->plural, "services") == 0) {
        keep(jnode_getc(obj, "status"), SERVICE_STATUS);
    } else if (strcmp(r->plural, "namespaces") == 0 || strcmp(r->plural, "serviceaccounts") == 0) {
        keep(obj, TOP_META);
    }
}
