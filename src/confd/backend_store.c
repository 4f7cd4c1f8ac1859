/* Calico's resources, from any datastore that the store can open (the embedded one, etcd, the
 * Kubernetes API), under the keys that Calico's confd shows them by. */
#include "confd/backend.h"
#include "confd/calico.h"

#include "base/log.h"
#include "store/store.h"
#include "store/syncer.h"

#include <stdio.h>

enum { RETRY_MIN_MS = 1000, RETRY_MAX_MS = 60000, PATH_MAX_BYTES = 4096 };

/* A resource, or a block's affinity in the space of addresses. */
struct item {
    struct arena a;
    struct object object;
    bool is_block;
    struct conf_block block;
};

#define MAP_NAME itemtab
#define MAP_KEY struct str
#define MAP_VAL struct item *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct calico {
    struct backend b;
    const struct confd_options *o;
    struct arena a; /* of the URL and the node's name */
    const char *node_name;
    struct store *s;
    struct itemtab items;
    bool is_dirty;
    /* what was made of them */
    struct bgp_view view;
    VEC(struct object) objects;
    VEC(struct conf_block) blocks;
    /* watching */
    struct loop *loop;
    struct syncer *resources, *addresses;
    unsigned n_in_sync;
    struct loop_timer *retry;
    int64_t retry_ms;
    const struct backend_events *ev;
    void *arg;
};

static struct calico *self_of(struct backend *b) {
    return container_of(b, struct calico, b);
}

/* ---- which store ---- */

static const char *env_or(const char *name, const char *dflt) {
    const char *v = getenv(name);
    return v && v[0] ? v : dflt;
}

/* As the command line chooses: the one named, else the agent's, else its file. */
static int open_store(struct calico *t, struct err *e) {
    const char *named =
        t->o->datastore && t->o->datastore[0] ? t->o->datastore : store_url_from_env();
    if (!named && strcmp(t->o->backend, "kubernetes") == 0) {
        named = "kubernetes:";
    }
    if (named) {
        return store_open(named, &t->s, e);
    }
    const char *state = env_or("MARGAY_STATE_DIR", NULL);
    const char *run = env_or("MARGAY_RUN_DIR", state ? state : "/run/margay");
    char url[PATH_MAX_BYTES];
    struct err agent = {0};
    snprintf(url, sizeof(url), "agent:%s/agent.sock", run);
    int r = store_open(url, &t->s, &agent);
    if (r == ERR_UNAVAILABLE && t->o->onetime) {
        snprintf(url, sizeof(url), "sqlite:%s/margay.db?mode=ro",
                 state ? state : "/var/lib/margay");
        return store_open(url, &t->s, e);
    }
    return r < 0 ? err_set(e, r,
                           "%s; start one with 'margay node', or name a store with "
                           "-datastore",
                           agent.msg)
                 : 0;
}

/* ---- items ---- */

static const enum kind_id KINDS[] = {
    K_NODE,    K_BGP_CONFIGURATION, K_BGP_PEER,          K_BGP_FILTER, K_IP_POOL, K_BLOCK_AFFINITY,
    K_SERVICE, K_ENDPOINT_SLICE,    K_WORKLOAD_ENDPOINT, K_SECRET,     K_NODE_K8S};

static bool is_wanted(const struct calico *t, const struct kind *k, struct str value) {
    for (size_t i = 0; i < ARRAY_LEN(KINDS); i++) {
        if (KINDS[i] == k->id) {
            /* Pods of other nodes are many, and nothing of ours. */
            return k->id != K_WORKLOAD_ENDPOINT || str_contains(value, str_c(t->node_name));
        }
    }
    return false;
}

/* "/ipam/v2/host/NODE/ipv4/block/10.0.0.0-26", of this node. */
static bool read_block(const struct calico *t, struct str key, struct str value, struct item *it) {
    struct str rest = key, part[8];
    size_t n = 0;
    while (rest.p && n < ARRAY_LEN(part)) {
        part[n++] = str_cut(&rest, '/');
    }
    if (n != 8 || rest.p || !str_is(part[1], "ipam") || !str_is(part[3], "host") ||
        !str_is(part[4], t->node_name) || !str_is(part[6], "block")) {
        return false;
    }
    struct str cidr = arena_dup(&it->a, part[7]);
    for (size_t i = 0; i < cidr.n; i++) {
        char *c = (char *)(uintptr_t)&cidr.p[i];
        *c = *c == '-' ? '/' : *c;
    }
    struct jnode *doc = NULL;
    it->is_block = true;
    it->block.node = str_c(t->node_name);
    it->block.state = STR("confirmed"); /* of early versions, that wrote nothing */
    if (json_parse(value, &json_limits_default, &it->a, &doc, NULL) == 0 && doc->type == J_MAP) {
        struct str state = jnode_str(jnode_getc(doc, "state"));
        it->block.state = state.n ? state : it->block.state;
    }
    return prefix_parse(cidr, &it->block.cidr) == 0;
}

static bool read_object(const struct calico *t, struct str key, struct str value, struct item *it) {
    const struct kind *k = NULL;
    struct str ns, name;
    struct jnode *doc = NULL;
    struct model_errors errs = {.a = &it->a};
    if (kind_split_key(key, &k, &ns, &name) < 0 || !is_wanted(t, k, value) ||
        json_parse(value, &json_limits_default, &it->a, &doc, NULL) < 0) {
        return false;
    }
    /* What is wrong in it is reported by whoever wrote it; the rest counts. */
    (void)!object_read(doc, MODEL_STORE, STR_NULL, &it->a, &it->object, &errs);
    return it->object.kind != NULL;
}

static void item_free(struct item *it) {
    arena_fini(&it->a);
    free(it);
}

static void set_item(struct calico *t, const struct store_item *si) {
    bool is_address = str_is(si->space, STORE_SPACE_IPAM);
    struct item **old = itemtab_get(&t->items, si->key), *it = NULL;
    if (si->value.p) {
        it = calloc(1, sizeof(*it));
        mg_assert(it != NULL);
        if (!(is_address ? read_block : read_object)(t, si->key, si->value, it)) {
            item_free(it);
            it = NULL;
        }
    }
    if (old) {
        struct item *gone = *old;
        (void)itemtab_del(&t->items, si->key);
        item_free(gone);
        t->is_dirty = true;
    }
    if (it) {
        *itemtab_put(&t->items, arena_dup(&it->a, si->key), NULL) = it;
        t->is_dirty = true;
    }
}

static void forget_items(struct calico *t) {
    struct item **it = NULL;
    for (size_t i = 0; itemtab_next(&t->items, &i, NULL, &it);) {
        item_free(*it);
    }
    itemtab_fini(&t->items);
}

/* ---- what is made of them ---- */

static void rebuild(struct calico *t) {
    struct item **it = NULL;
    vec_clear(&t->objects);
    vec_clear(&t->blocks);
    for (size_t i = 0; itemtab_next(&t->items, &i, NULL, &it);) {
        if ((*it)->is_block) {
            vec_push(&t->blocks, (*it)->block);
        } else {
            vec_push(&t->objects, (*it)->object);
        }
    }
    struct conf_input in = {.node_name = str_c(t->node_name),
                            .router_id = str_c(env_or("CALICO_ROUTER_ID", "")),
                            .use_pod_cidr = strcmp(env_or("USE_POD_CIDR", ""), "true") == 0,
                            .objects = t->objects.p,
                            .n_objects = t->objects.n,
                            .blocks = t->blocks.p,
                            .n_blocks = t->blocks.n};
    bgp_conf_free(t->view.conf);
    t->view = (struct bgp_view){.node_name = in.node_name,
                                .objects = in.objects,
                                .n_objects = in.n_objects,
                                .blocks = in.blocks,
                                .n_blocks = in.n_blocks,
                                .conf = bgp_conf_build(&in)};
    t->is_dirty = false;
    for (size_t i = 0; i < t->view.conf->n_problems; i++) {
        LOG_W("confd", "problem", "what=%s", log_quote(t->view.conf->problems[i]));
    }
}

static const struct bgp_view *calico_bgp(struct backend *b) {
    struct calico *t = self_of(b);
    return t->view.conf ? &t->view : NULL;
}

static int fill(struct calico *t, struct kv *fresh, struct err *e) {
    rebuild(t);
    return calico_keys(&t->view, fresh)
               ? 0
               : err_set(e, ERR_TOO_BIG, "a key or value of the datastore is too long for confd");
}

static int take_item(void *arg, const struct store_item *it) {
    set_item(arg, it);
    return 0;
}

static int calico_read(struct backend *b, struct kv *fresh, struct err *e) {
    struct calico *t = self_of(b);
    if (!t->loop) {
        int r = t->s ? 0 : open_store(t, e);
        uint64_t revision = 0;
        forget_items(t);
        for (size_t i = 0; i < ARRAY_LEN(KINDS) && r == 0; i++) {
            char prefix[128];
            snprintf(prefix, sizeof(prefix), "%s/", kind_store_name(&model_kinds[KINDS[i]]));
            struct store_key k = {STR(STORE_SPACE_RESOURCES), str_c(prefix)};
            r = store_list(t->s, k, &revision, take_item, t, e);
        }
        if (r == 0) {
            struct store_key k = {STR(STORE_SPACE_IPAM),
                                  arena_printf(&t->a, "/ipam/v2/host/%s/", t->node_name)};
            r = store_list(t->s, k, &revision, take_item, t, e);
        }
        if (r < 0) {
            return r;
        }
    }
    return fill(t, fresh, e);
}

/* ---- watching ---- */

static void on_item(void *arg, const struct store_item *it) {
    set_item(arg, it);
}

static void pass_on(struct calico *t) {
    struct kv fresh = {0};
    struct err e = {0};
    if (t->n_in_sync < 2 || (!t->is_dirty && t->view.conf)) {
        return;
    }
    if (fill(t, &fresh, &e) < 0) {
        LOG_E("confd", "keys", "error=\"%s\"", e.msg);
    }
    kv_sort(&fresh);
    t->ev->snapshot(t->arg, &fresh);
}

static void on_in_sync(void *arg) {
    struct calico *t = arg;
    t->n_in_sync++;
    pass_on(t);
}

static void on_batch_end(void *arg, uint64_t revision MG_UNUSED) {
    pass_on(arg);
}

static void on_connected(void *arg, bool is_connected, const char *why) {
    struct calico *t = arg;
    if (!is_connected) {
        t->ev->lost(t->arg, why ? why : "the datastore does not answer");
    }
}

static const struct syncer_ops syncer_ops = {.on_item = on_item,
                                             .on_in_sync = on_in_sync,
                                             .on_batch_end = on_batch_end,
                                             .on_connected = on_connected};

static int start(struct calico *t, struct err *e) {
    int r = t->s ? 0 : open_store(t, e);
    if (r == 0) {
        r = syncer_start(t->s, t->loop, (struct store_key){STR(STORE_SPACE_RESOURCES), STR("")},
                         &syncer_ops, t, &t->resources, e);
    }
    if (r == 0) {
        r = syncer_start(t->s, t->loop, (struct store_key){STR(STORE_SPACE_IPAM), STR("")},
                         &syncer_ops, t, &t->addresses, e);
    }
    return r;
}

/* Until there is a store to open: an agent that starts later. */
static void on_retry(void *arg) {
    struct calico *t = arg;
    struct err e = {0};
    if (start(t, &e) < 0) {
        t->ev->lost(t->arg, e.msg);
        t->retry_ms = t->retry_ms ? t->retry_ms * 2 : RETRY_MIN_MS;
        t->retry_ms = t->retry_ms > RETRY_MAX_MS ? RETRY_MAX_MS : t->retry_ms;
        loop_timer_start(t->retry, t->retry_ms, 0);
    }
}

static int calico_watch(struct backend *b, struct loop *l, const struct backend_events *ev,
                        void *arg, struct err *e) {
    struct calico *t = self_of(b);
    t->loop = l;
    t->ev = ev;
    t->arg = arg;
    t->retry = loop_timer_new(l, on_retry, t);
    int r = start(t, e);
    if (r == ERR_UNAVAILABLE) {
        on_retry(t);
        return 0;
    }
    return r;
}

static int calico_open(const struct confd_options *o, const struct str *prefixes MG_UNUSED,
                       size_t n MG_UNUSED, struct backend **out, struct err *e MG_UNUSED) {
    struct calico *t = calloc(1, sizeof(*t));
    mg_assert(t != NULL);
    t->b.ops = &backend_store;
    t->o = o;
    t->node_name = confd_node_name(o, &t->a);
    *out = &t->b;
    return 0;
}

static void calico_close(struct backend *b) {
    struct calico *t = self_of(b);
    syncer_free(t->resources);
    syncer_free(t->addresses);
    loop_timer_free(t->retry);
    store_close(t->s);
    bgp_conf_free(t->view.conf);
    forget_items(t);
    vec_fini(&t->objects);
    vec_fini(&t->blocks);
    arena_fini(&t->a);
    free(t);
}

const struct backend_ops backend_store = {.name = "calico",
                                          .open = calico_open,
                                          .close = calico_close,
                                          .read = calico_read,
                                          .watch = calico_watch,
                                          .bgp = calico_bgp};
