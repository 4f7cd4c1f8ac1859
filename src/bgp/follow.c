/* Resources from a datastore. See follow.h. */
#include "bgp/follow.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "store/syncer.h"

#include <stdlib.h>

enum {
    SETTLE_MS = 50, /* after a change, for others that come with it */
    RETRY_MS = 1000,
    ARENA_FIRST = 512,
};

/* One item of the store: an object, or a block's affinity. */
struct kept {
    struct arena a;
    struct str key;
    struct object object; /* kind NULL: a block */
    struct conf_block block;
};

#define MAP_NAME kept_map
#define MAP_KEY struct str
#define MAP_VAL struct kept *
#define MAP_HASH(k) hash_str(k)
#define MAP_EQ(a, b) str_eq(a, b)
#include "base/map.tmpl.h"

struct bgp_follow {
    struct loop *loop;
    struct loop_timer *open_timer, *settle_timer;
    struct bgp_follow_ops ops;
    void *arg;
    char *url;
    struct str node_name;
    struct store *store;
    struct syncer *resources, *ipam;
    bool resources_in_sync, ipam_in_sync;
    struct kept_map kept;
    VEC(struct object) objects;
    VEC(struct conf_block) blocks;
};

static void kept_free(struct kept *k) {
    struct arena a = k->a; /* k lives in it */
    arena_fini(&a);
}

/* Of pods and Kubernetes' nodes only this node's are of use. */
static bool is_of_use(const struct bgp_follow *f, const struct object *o) {
    if (o->kind->id == K_WORKLOAD_ENDPOINT) {
        return str_eq(jnode_str(jnode_path(o->doc, "spec.node")), f->node_name);
    }
    if (o->kind->id == K_NODE_K8S) {
        return str_eq(o->meta.name, f->node_name);
    }
    return true;
}

static void forget(struct bgp_follow *f, struct str key) {
    struct kept **old = kept_map_get(&f->kept, key);
    if (old) {
        struct kept *k = *old;
        (void)kept_map_del(&f->kept, key);
        kept_free(k);
    }
}

static void keep(struct bgp_follow *f, struct kept *k) {
    *kept_map_put(&f->kept, k->key, NULL) = k;
}

static struct kept *kept_new(struct str key) {
    struct arena a = {.first_bytes = ARENA_FIRST};
    struct kept *k = arena_new(&a, struct kept);
    k->a = a;
    k->key = arena_dup(&k->a, key);
    return k;
}

static void changed(struct bgp_follow *f) {
    if (f->resources_in_sync && f->ipam_in_sync) {
        loop_timer_start(f->settle_timer, SETTLE_MS, 0);
    }
}

static void tell_status(const struct bgp_follow *f, const struct store_item *it) {
    struct arena a = {0};
    struct jnode *doc = NULL;
    if (it->value.p && json_parse(it->value, &json_limits_default, &a, &doc, NULL) < 0) {
        doc = NULL;
    }
    f->ops.on_status(f->arg, it->key, doc);
    arena_fini(&a);
}

static void on_resource(void *arg, const struct store_item *it) {
    struct bgp_follow *f = arg;
    const struct kind *kind;
    struct str ns, name;
    if (kind_split_key(it->key, &kind, &ns, &name) < 0) {
        return;
    }
    if (kind->id == K_CALICO_NODE_STATUS && f->ops.on_status) {
        tell_status(f, it);
        return;
    }
    if (!bgp_conf_uses(kind->id)) {
        return;
    }
    forget(f, it->key);
    if (it->value.p) {
        struct kept *k = kept_new(it->key);
        struct model_errors errs = {.a = &k->a};
        struct jnode *doc;
        struct err e;
        if (json_parse(it->value, &json_limits_default, &k->a, &doc, &e) < 0) {
            LOG_W("bgp", "resource_unreadable", "key=%s error=%s", log_quote(it->key),
                  log_quote(str_c(e.msg)));
            kept_free(k);
            return;
        }
        /* With errors it is filled as far as possible: what is good of it counts. */
        if (object_read(doc, MODEL_STORE, ns, &k->a, &k->object, &errs) < 0) {
            LOG_W("bgp", "resource_invalid", "key=%s error=%s", log_quote(it->key),
                  errs.n ? log_quote(errs.p[0].message) : "");
        }
        if (k->object.kind && is_of_use(f, &k->object)) {
            keep(f, k);
        } else {
            kept_free(k);
        }
    }
    changed(f);
}

/* "/ipam/v2/host/NODE/ipv4/block/10.44.7.0-26": node and prefix; false: something else. */
static bool parse_affinity(struct str key, struct conf_block *out, struct arena *a) {
    static const char *const PARTS[] = {"", "ipam", "v2", "host", NULL, NULL, "block", NULL};
    struct str rest = key, part[ARRAY_LEN(PARTS)];
    for (size_t i = 0; i < ARRAY_LEN(PARTS); i++) {
        part[i] = str_cut(&rest, '/');
        if (!part[i].p || (PARTS[i] && !str_is(part[i], PARTS[i]))) {
            return false;
        }
    }
    struct str cidr = arena_dup(a, part[7]);
    for (size_t i = cidr.n; i-- > 0;) {
        if (cidr.p[i] == '-') {
            ((char *)(uintptr_t)cidr.p)[i] = '/';
            break;
        }
    }
    out->node = arena_dup(a, part[4]);
    return !rest.p && prefix_parse(cidr, &out->cidr) == 0;
}

static void on_ipam(void *arg, const struct store_item *it) {
    struct bgp_follow *f = arg;
    struct arena scratch = {0};
    struct conf_block b;
    bool is_affinity = parse_affinity(it->key, &b, &scratch);
    bool is_own = is_affinity && str_eq(b.node, f->node_name);
    arena_fini(&scratch);
    if (!is_own) {
        return;
    }
    forget(f, it->key);
    if (it->value.p) {
        struct kept *k = kept_new(it->key);
        struct jnode *doc;
        struct err e;
        (void)parse_affinity(it->key, &k->block, &k->a); /* it did above */
        if (json_parse(it->value, &json_limits_default, &k->a, &doc, &e) == 0) {
            k->block.state = jnode_str(jnode_getc(doc, "state"));
            keep(f, k);
        } else {
            kept_free(k);
        }
    }
    changed(f);
}

static void on_resources_in_sync(void *arg) {
    struct bgp_follow *f = arg;
    f->resources_in_sync = true;
    changed(f);
}

static void on_ipam_in_sync(void *arg) {
    struct bgp_follow *f = arg;
    f->ipam_in_sync = true;
    changed(f);
}

static void on_batch_end(void *arg, uint64_t revision) {
    (void)arg;
    (void)revision;
}

static void on_connected(void *arg, bool is_connected, const char *why) {
    (void)arg;
    LOG_I("bgp", "datastore", "connected=%s why=%s", is_connected ? "true" : "false",
          log_quote(str_c(why ? why : "")));
}

static void on_settled(void *arg) {
    struct bgp_follow *f = arg;
    f->ops.on_change(f->arg);
}

static void on_open(void *arg) {
    static const struct syncer_ops resources = {on_resource, on_resources_in_sync, on_batch_end,
                                                on_connected};
    static const struct syncer_ops ipam = {on_ipam, on_ipam_in_sync, on_batch_end, on_connected};
    struct bgp_follow *f = arg;
    struct err e;
    int r = f->store ? 0 : store_open(f->url, &f->store, &e);
    if (r == 0 && !f->resources) {
        r = syncer_start(f->store, f->loop, (struct store_key){STR(STORE_SPACE_RESOURCES), STR("")},
                         &resources, f, &f->resources, &e);
    }
    if (r == 0 && !f->ipam) {
        struct arena a = {0}; /* of IPAM only this node's affinities */
        struct str prefix = arena_printf(&a, "/ipam/v2/host/%.*s/", STR_FMT(f->node_name));
        r = syncer_start(f->store, f->loop, (struct store_key){STR(STORE_SPACE_IPAM), prefix},
                         &ipam, f, &f->ipam, &e);
        arena_fini(&a);
    }
    if (r < 0) {
        LOG_W("bgp", "datastore_unavailable", "error=%s", log_quote(str_c(e.msg)));
        loop_timer_start(f->open_timer, RETRY_MS, 0);
    }
}

struct bgp_follow *bgp_follow_new(struct loop *l, const char *url, const char *node_name,
                                  const struct bgp_follow_ops *ops, void *arg) {
    struct bgp_follow *f = calloc(1, sizeof(*f));
    mg_assert(f);
    f->loop = l;
    f->ops = *ops;
    f->arg = arg;
    f->url = strdup(url);
    mg_assert(f->url);
    f->node_name = str_c(node_name);
    f->open_timer = loop_timer_new(l, on_open, f);
    f->settle_timer = loop_timer_new(l, on_settled, f);
    loop_timer_start(f->open_timer, 0, 0);
    return f;
}

void bgp_follow_free(struct bgp_follow *f) {
    struct kept **k;
    if (!f) {
        return;
    }
    if (f->resources) {
        syncer_free(f->resources);
    }
    if (f->ipam) {
        syncer_free(f->ipam);
    }
    if (f->store) {
        store_close(f->store);
    }
    loop_timer_free(f->open_timer);
    loop_timer_free(f->settle_timer);
    for (size_t i = 0; kept_map_next(&f->kept, &i, NULL, &k);) {
        kept_free(*k);
    }
    kept_map_fini(&f->kept);
    vec_fini(&f->objects);
    vec_fini(&f->blocks);
    free(f->url);
    free(f);
}

void bgp_follow_input(struct bgp_follow *f, struct conf_input *in) {
    struct kept **k;
    vec_clear(&f->objects);
    vec_clear(&f->blocks);
    for (size_t i = 0; kept_map_next(&f->kept, &i, NULL, &k);) {
        if ((*k)->object.kind) {
            vec_push(&f->objects, (*k)->object);
        } else {
            vec_push(&f->blocks, (*k)->block);
        }
    }
    in->objects = f->objects.p;
    in->n_objects = f->objects.n;
    in->blocks = f->blocks.p;
    in->n_blocks = f->blocks.n;
}
