/* Keys and values as Calico has them in etcd. See etcd_map.h; learned from libcalico-go's
 * lib/backend/model and lib/backend/etcdv3. */
#include "store/etcd_map.h"

#include "base/jtree.h"
#include "base/vec.h"
#include "model/model.h"

#include <stdlib.h>

#define RESOURCES "/calico/resources/"
#define IPAM "/calico/ipam/"
#define METADATA_ANNOTATION "projectcalico.org/metadata"
#define DEFAULT_ALLOW "projectcalico-default-allow"

static struct str builtin_text(void) {
    return STR("{\"kind\":\"Profile\",\"apiVersion\":\"projectcalico.org/v3\","
               "\"metadata\":{\"name\":\"" DEFAULT_ALLOW "\"},"
               "\"spec\":{\"ingress\":[{\"action\":\"Allow\",\"source\":{},\"destination\":{}}],"
               "\"egress\":[{\"action\":\"Allow\",\"source\":{},\"destination\":{}}]}}");
}

static struct str builtin_key(void) {
    return STR("Profile.projectcalico.org//" DEFAULT_ALLOW);
}

bool etcd_is_built_in(struct store_key k) {
    return str_is(k.space, STORE_SPACE_RESOURCES) && str_eq(k.key, builtin_key());
}
struct str etcd_built_in_key(void) {
    return builtin_key();
}
struct str etcd_built_in_value(void) {
    return builtin_text();
}

static bool is_policy(const struct kind *k) {
    return k->id == K_NETWORK_POLICY || k->id == K_GLOBAL_NETWORK_POLICY ||
           k->id == K_STAGED_NETWORK_POLICY || k->id == K_STAGED_GLOBAL_NETWORK_POLICY;
}

/* ---- keys ---- */

/* "/calico/resources/VERSION/GROUP/PLURAL/" */
static struct str kind_path(const struct kind *k, struct arena *a) {
    return arena_printf(a, RESOURCES "%s/%s/%s/", k->version, k->group[0] ? k->group : "core",
                        k->plural);
}

static struct str join(struct arena *a, struct str x, struct str y) {
    char *p = arena_alloc(a, x.n + y.n + 1);
    memcpy(p, x.n ? x.p : "", x.n);
    memcpy(p + x.n, y.n ? y.p : "", y.n);
    return str_n(p, x.n + y.n);
}

static struct str join3(struct arena *a, struct str x, struct str y, struct str z) {
    return join(a, join(a, x, y), z);
}

/* The prefix of a space that isn't r. */
static struct str space_path(struct str space, struct arena *a) {
    if (str_is(space, STORE_SPACE_IPAM) || str_is(space, STORE_SPACE_CALICO)) {
        return STR("/calico");
    }
    if (str_is(space, STORE_SPACE_RAW)) {
        return STR("");
    }
    return join3(a, STR("/margay/"), space, STR("/"));
}

int etcd_key_of(struct store_key k, struct arena *a, struct str *out, struct err *e) {
    if (str_is(k.space, STORE_SPACE_RESOURCES)) {
        const struct kind *kind = NULL;
        struct str ns, name;
        if (kind_split_key(k.key, &kind, &ns, &name) < 0) {
            return err_set(e, ERR_INVALID,
                           "etcd: \"%.*s\" is no key of a resource: KIND.GROUP/NAMESPACE/NAME",
                           STR_FMT(k.key));
        }
        struct str path = kind_path(kind, a);
        *out =
            kind->is_namespaced ? join(a, join3(a, path, ns, STR("/")), name) : join(a, path, name);
        return 0;
    }
    bool is_ipam = str_is(k.space, STORE_SPACE_IPAM);
    if ((is_ipam && !str_starts(k.key, STR("/ipam/"))) ||
        (str_is(k.space, STORE_SPACE_CALICO) && !str_starts(k.key, STR("/")))) {
        return err_set(e, ERR_INVALID, "etcd: key \"%.*s\" must begin with \"%s\"", STR_FMT(k.key),
                       is_ipam ? "/ipam/" : "/");
    }
    *out = join(a, space_path(k.space, a), k.key);
    return 0;
}

/* The kind of "VERSION/GROUP/PLURAL/…"; *rest is what follows. */
static const struct kind *kind_of_path(struct str path, struct str *rest) {
    struct str version = str_cut(&path, '/'), group = str_cut(&path, '/'),
               plural = str_cut(&path, '/');
    if (!path.p) {
        return NULL;
    }
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *k = &model_kinds[i];
        if (str_is(plural, k->plural) && str_is(version, k->version) &&
            str_is(group, k->group[0] ? k->group : "core")) {
            *rest = path;
            return k;
        }
    }
    return NULL;
}

static bool resource_key_back(struct str path, struct arena *a, struct str *out) {
    struct str rest;
    const struct kind *k = kind_of_path(path, &rest);
    if (!k) {
        return false;
    }
    struct str ns = STR("");
    if (k->is_namespaced) {
        ns = str_cut(&rest, '/');
        if (!rest.p || ns.n == 0) {
            return false;
        }
    }
    if (rest.n == 0) {
        return false;
    }
    *out = kind_store_key(k, ns, rest, a);
    return out->n <= STORE_KEY_MAX;
}

bool etcd_key_back(struct str space, struct str etcd_key, struct arena *a, struct str *out) {
    if (etcd_key.n > STORE_KEY_MAX || (etcd_key.n && memchr(etcd_key.p, '\0', etcd_key.n))) {
        return false;
    }
    if (str_is(space, STORE_SPACE_RESOURCES)) {
        return str_starts(etcd_key, STR(RESOURCES)) &&
               resource_key_back(str_sub(etcd_key, sizeof(RESOURCES) - 1, etcd_key.n), a, out);
    }
    if (str_is(space, STORE_SPACE_IPAM) && !str_starts(etcd_key, STR(IPAM))) {
        return false;
    }
    struct str path = space_path(space, a);
    if (!str_starts(etcd_key, path) || etcd_key.n == path.n) {
        return false;
    }
    *out = arena_dup(a, str_sub(etcd_key, path.n, etcd_key.n));
    return true;
}

struct str etcd_key_early(struct store_key k, struct arena *a) {
    const struct kind *kind = NULL;
    struct str ns, name, out;
    if (!str_is(k.space, STORE_SPACE_RESOURCES) || kind_split_key(k.key, &kind, &ns, &name) < 0 ||
        !is_policy(kind) || str_starts(name, STR("default."))) {
        return STR_NULL;
    }
    struct store_key early = {k.space, kind_store_key(kind, ns, join(a, STR("default."), name), a)};
    return etcd_key_of(early, a, &out, NULL) < 0 ? STR_NULL : out;
}

/* ---- ranges ---- */

/* The first key behind all that start with p, which doesn't end in 0xff: it ends in a key's text or
 * in a slash; in a hostile case the range is cut to what can be said. */
static struct str range_end(struct str p, struct arena *a) {
    struct str end = arena_dup(a, p);
    char *c = (char *)(uintptr_t)end.p;
    while (end.n && (unsigned char)c[end.n - 1] == 0xff) {
        end.n--;
    }
    if (end.n == 0) {
        return STR_NULL;
    }
    c[end.n - 1] = (char)((unsigned char)c[end.n - 1] + 1);
    return end;
}

static struct etcd_range range_of(struct str p, struct arena *a) {
    return (struct etcd_range){p, range_end(p, a)};
}

static bool starts_either_way(struct str x, struct str y) {
    return str_starts(x, y) || str_starts(y, x);
}

struct kind_name {
    struct str name; /* with the slash behind it, as in keys */
    const struct kind *kind;
};

static int kind_name_cmp(const void *x, const void *y) {
    return str_cmp(((const struct kind_name *)x)->name, ((const struct kind_name *)y)->name);
}

/* The etcd prefix of those of a kind whose store key starts with prefix, which reaches beyond the
 * kind's name. False: none can. */
static bool kind_prefix(const struct kind *k, struct str beyond, struct arena *a, struct str *out) {
    struct str path = kind_path(k, a);
    if (k->is_namespaced) {
        *out = join(a, path, beyond);
        return beyond.n == 0 || beyond.p[0] != '/';
    }
    if (beyond.n && beyond.p[0] != '/') {
        return false;
    }
    *out = join(a, path, beyond.n ? str_sub(beyond, 1, beyond.n) : STR(""));
    return true;
}

static size_t resource_ranges(struct str prefix, struct arena *a, struct etcd_range **out) {
    struct kind_name names[K_N_KINDS];
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *k = &model_kinds[i];
        names[i] = (struct kind_name){join(a, str_c(kind_store_name(k)), STR("/")), k};
    }
    qsort(names, K_N_KINDS, sizeof(names[0]), kind_name_cmp);
    *out = arena_array(a, struct etcd_range, K_N_KINDS);
    size_t n = 0;
    for (size_t i = 0; i < K_N_KINDS; i++) {
        struct str name = names[i].name, at;
        if (!starts_either_way(name, prefix)) {
            continue;
        }
        struct str beyond = prefix.n > name.n ? str_sub(prefix, name.n, prefix.n) : STR("");
        if (kind_prefix(names[i].kind, beyond, a, &at)) {
            (*out)[n++] = range_of(at, a);
        }
    }
    return n;
}

size_t etcd_ranges(struct store_key prefix, struct arena *a, struct etcd_range **out) {
    if (str_is(prefix.space, STORE_SPACE_RESOURCES)) {
        return resource_ranges(prefix.key, a, out);
    }
    struct str least = str_is(prefix.space, STORE_SPACE_IPAM) ? STR("/ipam/") : STR("");
    if (!starts_either_way(prefix.key, least)) {
        return 0;
    }
    struct str key = prefix.key.n > least.n ? prefix.key : least;
    *out = arena_new(a, struct etcd_range);
    **out = range_of(join(a, space_path(prefix.space, a), key), a);
    return 1;
}

bool etcd_range_around(struct store_key prefix, struct arena *a, struct etcd_range *out) {
    struct etcd_range *v = NULL;
    size_t n = etcd_ranges(prefix, a, &v);
    if (n == 1) {
        *out = v[0];
    } else if (n > 1) {
        *out = range_of(STR(RESOURCES), a);
    }
    return n > 0;
}

/* ---- values ---- */

static struct jnode *parse(struct str text, struct arena *a) {
    struct jnode *doc = NULL;
    struct jlimits lim = json_limits_default;
    lim.max_string = STORE_VALUE_MAX;
    return json_parse(text, &lim, a, &doc, NULL) == 0 && doc->type == J_MAP ? doc : NULL;
}

static struct str print(const struct jnode *doc, struct arena *a) {
    struct buf b = BUF_INIT(16U * STORE_VALUE_MAX);
    json_write(&b, doc, 0);
    struct str out = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return out;
}

static struct jnode *map_in(struct jnode *map, const char *name, struct arena *a) {
    struct jnode *m = jnode_getc(map, name);
    if (!m || m->type != J_MAP) {
        m = jnode_new(a, J_MAP);
        jnode_set(a, map, str_c(name), m);
        m = jnode_getc(map, name);
    }
    return m;
}

static void set_text(struct jnode *map, const char *name, struct str text, struct arena *a) {
    jnode_set(a, map, str_c(name), jnode_new_str(a, text));
}

/* {"name": what the user calls it} beside the name that the key has. */
static void annotate(struct jnode *doc, struct str key_name, struct arena *a) {
    struct jnode *meta = map_in(doc, "metadata", a);
    struct str name = jnode_str(jnode_getc(meta, "name"));
    struct jnode *note = jnode_new(a, J_MAP);
    set_text(note, "name", name.n ? name : key_name, a);
    set_text(meta, "name", key_name, a);
    set_text(map_in(meta, "annotations", a), METADATA_ANNOTATION, print(note, a), a);
}

static bool set_missing(struct jnode *doc, const struct kind *k, struct arena *a) {
    bool has_kind = jnode_str(jnode_getc(doc, "kind")).n,
         has_version = jnode_str(jnode_getc(doc, "apiVersion")).n;
    if (!has_kind) {
        set_text(doc, "kind", str_c(k->kind), a);
    }
    if (!has_version) {
        set_text(doc, "apiVersion",
                 arena_printf(a, "%s%s%s", k->group, k->group[0] ? "/" : "", k->version), a);
    }
    return !has_kind || !has_version;
}

/* BlockAffinity's `deleted` is a text there, as in the Kubernetes API's objects. */
static bool deleted_to_text(struct jnode *doc, struct arena *a) {
    struct jnode *spec = jnode_getc(doc, "spec"), *d = jnode_getc(spec, "deleted");
    if (!d || d->type != J_BOOL) {
        return false;
    }
    set_text(spec, "deleted", d->b ? STR("true") : STR("false"), a);
    return true;
}

static bool deleted_to_bool(struct jnode *doc, struct arena *a) {
    struct jnode *spec = jnode_getc(doc, "spec");
    struct str d = jnode_str(jnode_getc(spec, "deleted"));
    if (!d.p) {
        return false;
    }
    jnode_set(a, spec, STR("deleted"), jnode_new_bool(a, str_is(d, "true")));
    return true;
}

struct str etcd_value_out(struct store_key k, struct str etcd_key, struct str value,
                          struct arena *a) {
    const struct kind *kind = NULL;
    struct str ns, name;
    if (!str_is(k.space, STORE_SPACE_RESOURCES) || kind_split_key(k.key, &kind, &ns, &name) < 0) {
        return value;
    }
    struct jnode *doc = parse(value, a);
    if (!doc) {
        return value;
    }
    bool changed = set_missing(doc, kind, a);
    struct jnode *meta = jnode_getc(doc, "metadata");
    if (meta && meta->type == J_MAP) {
        changed = jnode_del(meta, STR("resourceVersion")) || changed;
        changed = jnode_del(meta, STR("selfLink")) || changed;
    }
    if (is_policy(kind)) {
        struct str rest = etcd_key, last = etcd_key;
        while (rest.p) {
            last = str_cut(&rest, '/');
        }
        annotate(doc, last, a);
        changed = true;
    } else if (kind->id == K_BLOCK_AFFINITY) {
        changed = deleted_to_text(doc, a) || changed;
    }
    return changed ? print(doc, a) : value;
}

/* The user's name of a policy, and no trace of how it is kept. */
static bool unannotate(struct jnode *doc, struct arena *a) {
    struct jnode *meta = jnode_getc(doc, "metadata"), *notes = jnode_getc(meta, "annotations");
    struct str kept = jnode_str(jnode_getc(notes, METADATA_ANNOTATION));
    struct str name = jnode_str(jnode_getc(meta, "name"));
    if (kept.p) {
        struct str own = jnode_str(jnode_getc(parse(kept, a), "name"));
        if (own.n) {
            set_text(meta, "name", own, a);
        }
        (void)jnode_del(notes, STR(METADATA_ANNOTATION));
        if (notes->n == 0) {
            (void)jnode_del(meta, STR("annotations"));
        }
        return true;
    }
    struct str tier = jnode_str(jnode_path(doc, "spec.tier"));
    if (str_starts(name, STR("default.")) && (tier.n == 0 || str_is(tier, "default"))) {
        set_text(meta, "name", str_sub(name, sizeof("default.") - 1, name.n), a);
        return true;
    }
    return false;
}

struct str etcd_value_in(struct str space, struct str key, struct str value, struct arena *a) {
    if (str_is(space, STORE_SPACE_IPAM) && value.n == 0) {
        /* An affinity of an early version. */
        return str_starts(key, STR("/ipam/v2/host/")) ? STR("{}") : STR("");
    }
    if (value.n == 0) {
        return STR("");
    }
    const struct kind *kind = NULL;
    struct str ns, name;
    if (!str_is(space, STORE_SPACE_RESOURCES) || kind_split_key(key, &kind, &ns, &name) < 0 ||
        !(is_policy(kind) || kind->id == K_BLOCK_AFFINITY)) {
        return value;
    }
    struct jnode *doc = parse(value, a);
    if (!doc) {
        return value;
    }
    bool changed = is_policy(kind) ? unannotate(doc, a) : deleted_to_bool(doc, a);
    return changed ? print(doc, a) : value;
}
