#include "node/autohep.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "controllers/convert.h"

#include <stdlib.h>

struct autohep {
    struct store *store;
    char *node;
    struct loop_defer *later;
    VEC(struct ip46) own;
};

static struct jnode *read_object(struct autohep *h, enum kind_id id, struct str name,
                                 struct arena *a, uint64_t *revision) {
    struct store_item it;
    struct err e;
    struct jnode *doc = NULL;
    struct store_key key = {STR(STORE_SPACE_RESOURCES),
                            kind_store_key(&model_kinds[id], STR(""), name, a)};
    if (store_get(h->store, key, a, &it, &e) < 0 ||
        json_parse(it.value, &json_limits_default, a, &doc, &e) < 0) {
        return NULL;
    }
    *revision = it.revision;
    return doc;
}

/* The document as it should be; uid and time are the old one's, if there is one. */
static struct jnode *document(const struct autohep *h, struct str name, const struct jnode *node,
                              struct str uid, struct str created, struct arena *a) {
    struct jnode *doc = jnode_new(a, J_MAP), *meta = jnode_new(a, J_MAP);
    struct str *ips = arena_array(a, struct str, h->own.n);
    for (size_t i = 0; i < h->own.n; i++) {
        char text[IP_TEXT_MAX];
        ips[i] = arena_dup(a, str_c(ip_text(&h->own.p[i], text)));
    }
    jnode_set(a, doc, STR("apiVersion"), jnode_new_str(a, STR("projectcalico.org/v3")));
    jnode_set(a, doc, STR("kind"), jnode_new_str(a, STR("HostEndpoint")));
    jnode_set(a, meta, STR("name"), jnode_new_str(a, name));
    jnode_set(a, meta, STR("uid"), jnode_new_str(a, uid));
    jnode_set(a, meta, STR("creationTimestamp"), jnode_new_str(a, created));
    jnode_set(a, meta, STR("labels"), convert_hep_labels(node, a));
    jnode_set(a, doc, STR("metadata"), meta);
    jnode_set(a, doc, STR("spec"), convert_hep_spec(str_c(h->node), STR("*"), ips, h->own.n, a));
    return doc;
}

static bool is_wanted(struct autohep *h, struct arena *a) {
    uint64_t revision;
    const struct jnode *c =
        read_object(h, K_KUBE_CONTROLLERS_CONFIGURATION, STR("default"), a, &revision);
    return str_is(jnode_str(jnode_path(c, "spec.controllers.node.hostEndpoint.autoCreate")),
                  "Enabled");
}

static void reconcile(void *arg) {
    struct autohep *h = arg;
    struct arena a = {0};
    struct err e;
    uint64_t revision = REV_NONE, other;
    struct str name = convert_hep_name(str_c(h->node), &a);
    struct jnode *old = read_object(h, K_HOST_ENDPOINT, name, &a, &revision);
    bool is_ours = old && convert_is_auto_hep(old);
    struct store_key key = {STR(STORE_SPACE_RESOURCES),
                            kind_store_key(&model_kinds[K_HOST_ENDPOINT], STR(""), name, &a)};
    int r = 0;
    if (!is_wanted(h, &a)) {
        r = is_ours ? store_delete(h->store, key, revision, &e) : 0;
    } else if (!old || is_ours) {
        struct jnode *node = read_object(h, K_NODE, str_c(h->node), &a, &other);
        node = node ? node : read_object(h, K_NODE_K8S, str_c(h->node), &a, &other);
        char uid[UUID_TEXT], created[32];
        uuid_v4(uid);
        struct str old_uid = jnode_str(jnode_path(old, "metadata.uid"));
        struct str old_created = jnode_str(jnode_path(old, "metadata.creationTimestamp"));
        struct jnode *now = document(
            h, name, node, old_uid.p ? old_uid : str_c(uid),
            old_created.p ? old_created : str_c(clock_rfc3339(clock_wall_ns(), created)), &a);
        if (!old || !jnode_eq(old, now)) {
            MG_CLEANUP(buf_fini) struct buf text = BUF_INIT(1 << 20);
            json_write(&text, now, 0);
            r = store_put(h->store, key, buf_view(&text), old ? revision : REV_NONE, NULL, &e);
        }
    }
    if (r < 0) {
        LOG_W("node", "auto_host_endpoint", "error=%s", log_quote(str_c(e.msg)));
    }
    arena_fini(&a);
}

struct autohep *autohep_new(struct loop *l, struct store *s, struct str node) {
    struct autohep *h = calloc(1, sizeof(*h));
    mg_assert(h != NULL);
    h->store = s;
    h->node = strndup(node.p, node.n);
    mg_assert(h->node != NULL);
    h->later = loop_defer_new(l, reconcile, h);
    return h;
}

void autohep_free(struct autohep *h) {
    if (h) {
        loop_defer_free(h->later);
        vec_fini(&h->own);
        free(h->node);
        free(h);
    }
}

void autohep_object(struct autohep *h, const struct kind *k, struct str name) {
    bool is_node = (k->id == K_NODE || k->id == K_NODE_K8S) && str_is(name, h->node);
    if (is_node || k->id == K_KUBE_CONTROLLERS_CONFIGURATION) {
        loop_defer_ask(h->later);
    }
}

void autohep_set_own(struct autohep *h, const struct dataplane_iface *v, size_t n) {
    vec_clear(&h->own);
    for (size_t i = 0; i < n; i++) {
        if (v[i].ip.family != IP_V4 || v[i].ip.b[0] != 127) {
            vec_push(&h->own, v[i].ip);
        }
    }
    loop_defer_ask(h->later);
}
