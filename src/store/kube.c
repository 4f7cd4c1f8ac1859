/* The driver of the Kubernetes API: opening by URL, the driver's table, and what the agent writes
 * at its own Node. */
#include "store/kube_int.h"

#include "base/clock.h"

#include <stdlib.h>

/* %XX of the URL's values. */
static struct str unescape(struct str s, struct arena *a) {
    char *p = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned v = 0, k = 0;
        for (; s.p[i] == '%' && i + 2 < s.n && k < 2; k++) {
            char c = s.p[i + 1 + k];
            int d = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
            if (d < 0) {
                break;
            }
            v = v << 4 | (unsigned)d;
        }
        p[n++] = k == 2 ? (char)v : s.p[i];
        i += k == 2 ? 2 : 0;
    }
    return str_n(p, n);
}

void kube_shared_unref(struct kube_shared *c) {
    if (c && --c->n_refs == 0) {
        arena_fini(&c->arena);
        free(c);
    }
}

static int read_url(struct str rest, struct kube_shared *s, struct err *e) {
    struct str query = rest, path = str_cut(&query, '?'), context = STR_NULL;
    bool wants_gzip = false;
    while (query.p) {
        struct str value = str_cut(&query, '&'), name = str_cut(&value, '=');
        if (str_is(name, "context")) {
            context = unescape(value, &s->arena);
        } else if (str_is(name, "node")) {
            s->node = unescape(value, &s->arena);
        } else if (str_is(name, "compression")) {
            wants_gzip = str_is(value, "gzip");
            if (!wants_gzip && !str_is(value, "none")) {
                return err_set(e, ERR_INVALID,
                               "datastore URL: compression: found \"%.*s\", allowed are gzip and "
                               "none",
                               value.n > 60 ? 60 : (int)value.n, value.p ? value.p : "");
            }
        } else if (name.n) {
            return err_set(
                e, ERR_INVALID,
                "datastore URL: kubernetes: knows no \"%.*s\", only context, compression "
                "and node",
                name.n > 60 ? 60 : (int)name.n, name.p);
        }
    }
    int r = kube_config_load(path, context, &s->arena, &s->cfg, e);
    s->cfg.wants_gzip = wants_gzip;
    return r;
}

static void kube_close(struct store *st) {
    struct kube_store *s = (struct kube_store *)st;
    kube_conn_fini(&s->conn);
    if (s->loop) {
        loop_free(s->loop);
    }
    kube_shared_unref(s->shared);
    free(s);
}

/* No request is made: a server that can't be reached now is no reason not to open. */
static int kube_open(struct str rest, struct store **out, struct err *e) {
    struct kube_store *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->base.drv = &store_kube;
    s->shared = calloc(1, sizeof(*s->shared));
    mg_assert(s->shared != NULL);
    s->shared->n_refs = 1;
    int r = read_url(rest, s->shared, e);
    if (r < 0) {
        kube_close(&s->base);
        return r;
    }
    s->loop = loop_new();
    kube_conn_init(&s->conn, s->loop, &s->shared->cfg);
    *out = &s->base;
    return 0;
}

/* Writes are single ones here. */
static int kube_begin(struct store *s, struct err *e) {
    (void)s;
    (void)e;
    return 0;
}
static void kube_rollback(struct store *s) {
    (void)s;
}

/* The server's newest, as far as it can be asked: a list of namespaces carries it. */
static uint64_t kube_store_revision(struct store *st) {
    struct kube_store *s = (struct kube_store *)st;
    struct arena a = {0};
    struct kube_at at = {.ns = STR_NULL, .name = STR_NULL};
    struct jnode *list = NULL;
    for (size_t i = 0; i < kube_n_views; i++) {
        if (kube_views[i].kind == K_NAMESPACE) {
            at.view = &kube_views[i];
        }
    }
    struct kube_subject sub = {"list", at.view->rest, NULL, STR_NULL, STR_NULL};
    struct str path =
        arena_printf(&a, "%.*s?limit=1", STR_FMT(kube_at_path(s, &at, false, NULL, &a)));
    if (kube_object(s, &sub, "GET", path, NULL, NULL, &a, &list, NULL, NULL) == 0) {
        kube_saw(s, kube_revision(list));
    }
    arena_fini(&a);
    return s->revision;
}

const struct store_driver store_kube = {
    .scheme = "kubernetes",
    .open = kube_open,
    .close = kube_close,
    .get = kube_get,
    .list = kube_list,
    .put = kube_put,
    .del = kube_del,
    .begin = kube_begin,
    .commit = kube_begin,
    .rollback = kube_rollback,
    .revision = kube_store_revision,
    .watch = kube_watch,
    .watch_free = kube_watch_free,
    .follow = kube_follow,
    .follow_ask = kube_follow_ask,
    .follow_free = kube_follow_free,
};

/* ---- the agent's own Node ---- */

bool kube_is(const struct store *s) {
    return s->drv == &store_kube;
}

static int patch_node(struct store *st, struct str node, const char *type,
                      const struct jnode *patch, struct arena *a, struct err *e) {
    struct kube_store *s = (struct kube_store *)st;
    struct store_key k = {STR(STORE_SPACE_RESOURCES),
                          kind_store_key(&model_kinds[K_NODE_K8S], STR(""), node, a)};
    struct kube_at at;
    struct jnode *got = NULL;
    if (!kube_is(st)) {
        return err_set(e, ERR_INVALID, "the datastore is not the Kubernetes API");
    }
    int r = kube_locate(k, a, &at, e);
    if (r < 0) {
        return r;
    }
    struct kube_subject sub = {"patch", at.view->rest, "status", STR_NULL, node};
    return kube_object(s, &sub, "PATCH", kube_at_path(s, &at, true, "status", a), type, patch, a,
                       &got, NULL, e);
}

int kube_node_annotate(struct store *s, struct str node, const struct kube_note *notes, size_t n,
                       struct err *e) {
    struct arena a = {0};
    struct jnode *p = jnode_new(&a, J_MAP), *meta = jnode_new(&a, J_MAP),
                 *ann = jnode_new(&a, J_MAP);
    for (size_t i = 0; i < n; i++) {
        jnode_set(&a, ann, str_c(notes[i].annotation),
                  notes[i].value.p ? jnode_new_str(&a, notes[i].value) : jnode_new(&a, J_NULL));
    }
    jnode_set(&a, meta, STR("annotations"), ann);
    jnode_set(&a, p, STR("metadata"), meta);
    int r = patch_node(s, node, "application/merge-patch+json", p, &a, e);
    arena_fini(&a);
    return r;
}

int kube_node_network(struct store *s, struct str node, bool is_up, struct err *e) {
    struct arena a = {0};
    char now[32];
    struct str stamp = str_c(clock_rfc3339(clock_wall_ns(), now));
    const struct str texts[][2] = {
        {STR("type"), STR("NetworkUnavailable")},
        {STR("status"), is_up ? STR("False") : STR("True")},
        {STR("reason"), is_up ? STR("CalicoIsUp") : STR("CalicoIsDown")},
        {STR("message"), is_up ? STR("Calico is running on this node")
                               : STR("Calico is shutting down on this node")},
        {STR("lastTransitionTime"), stamp},
        {STR("lastHeartbeatTime"), stamp},
    };
    struct jnode *p = jnode_new(&a, J_MAP), *status = jnode_new(&a, J_MAP),
                 *list = jnode_new(&a, J_LIST), *c = jnode_new(&a, J_MAP);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        jnode_set(&a, c, texts[i][0], jnode_new_str(&a, texts[i][1]));
    }
    jnode_append(list, c);
    jnode_set(&a, status, STR("conditions"), list);
    jnode_set(&a, p, STR("status"), status);
    int r = patch_node(s, node, "application/strategic-merge-patch+json", p, &a, e);
    arena_fini(&a);
    return r;
}

/* ---- what an installer left ---- */

int kube_config_map(struct store *st, const char *ns, const char *name, const char *key,
                    struct arena *a, struct str *out, struct err *e) {
    struct kube_store *s = (struct kube_store *)st;
    static const struct kube_rest rest = {.group = "",
                                          .version = "v1",
                                          .plural = "configmaps",
                                          .kind = "ConfigMap",
                                          .is_namespaced = true};
    struct jnode *got = NULL;
    if (!kube_is(st)) {
        return err_set(e, ERR_INVALID, "the datastore is not the Kubernetes API");
    }
    struct kube_subject sub = {"get", &rest, NULL, str_c(ns), str_c(name)};
    struct str path = arena_printf(a, "/api/v1/namespaces/%s/configmaps/%s", ns, name);
    int r = kube_object(s, &sub, "GET", path, NULL, NULL, a, &got, NULL, e);
    if (r < 0) {
        return r;
    }
    const struct jnode *n = jnode_getc(jnode_getc(got, "data"), key);
    if (!n || n->type != J_STR) {
        return err_set(e, ERR_NOT_FOUND, "ConfigMap %s/%s has no \"%s\"", ns, name, key);
    }
    *out = jnode_str(n);
    return 0;
}

int kube_resource_get(struct store *st, const struct kube_resource *k, struct str ns,
                      struct str name, struct arena *a, struct jnode **out, bool *unknown_kind,
                      struct err *e) {
    const struct kube_rest rest = {.group = k->group,
                                   .version = k->version,
                                   .plural = k->plural,
                                   .kind = k->kind,
                                   .is_namespaced = true};
    if (!kube_is(st)) {
        return err_set(e, ERR_INVALID, "the datastore is not the Kubernetes API");
    }
    struct kube_subject sub = {name.p ? "get" : "list", &rest, NULL, ns, name};
    return kube_object((struct kube_store *)st, &sub, "GET",
                       kube_path(&rest, false, ns, name, NULL, a), NULL, NULL, a, out, unknown_kind,
                       e);
}
