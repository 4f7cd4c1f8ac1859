/* Calico's resources inside of crd.projectcalico.org/v1 objects, and Kubernetes' own objects. The
 * metadata of Calico's resource is JSON in an annotation; the object's own name, namespace and
 * revision stay. Source: libcalico-go/lib/backend/k8s/resources/resources.go. */
#include "store/kube_shapes.h"

#include <string.h>

struct jnode *kube_map_at(struct arena *a, struct jnode *map, const char *name) {
    struct jnode *n = jnode_getc(map, name);
    if (!n || n->type != J_MAP) {
        n = jnode_new(a, J_MAP);
        jnode_set(a, map, str_c(name), n);
    }
    return n;
}

void kube_set_text(struct arena *a, struct jnode *map, const char *name, struct str value) {
    jnode_set(a, map, str_c(name), jnode_new_str(a, value));
}

struct jnode *kube_parse_text(struct str text, struct arena *a) {
    struct jnode *n = NULL;
    return text.n && json_parse(text, &json_limits_default, a, &n, NULL) == 0 ? n : NULL;
}

struct jnode *kube_new_object(struct arena *a, const char *api_version, const char *kind) {
    struct jnode *o = jnode_new(a, J_MAP);
    kube_set_text(a, o, "apiVersion", str_c(api_version));
    kube_set_text(a, o, "kind", str_c(kind));
    (void)kube_map_at(a, o, "metadata");
    return o;
}

struct str kube_annotation(const struct jnode *obj, const char *key) {
    return jnode_str(jnode_getc(jnode_getc(jnode_getc(obj, "metadata"), "annotations"), key));
}

/* A copy of a member, if it is there and not null. */
static void copy_member(struct arena *a, struct jnode *dst, const struct jnode *src,
                        const char *name) {
    const struct jnode *n = jnode_getc(src, name);
    if (n && n->type != J_NULL) {
        jnode_set(a, dst, str_c(name), jnode_copy(a, n));
    }
}

/* Members of src over those of dst's map of that name. */
static void merge_texts(struct arena *a, struct jnode *dst, const char *name,
                        const struct jnode *src) {
    jnode_each (n, src) {
        if (n->type == J_STR) {
            jnode_set(a, kube_map_at(a, dst, name), n->key, jnode_new_str(a, n->s));
        }
    }
}

struct str kube_uid_flip(struct str uid, struct arena *a) {
    static const char HEX[] = "0123456789abcdef";
    if (uid.n != 36) {
        return STR_NULL;
    }
    char *out = arena_alloc(a, 37);
    memcpy(out, uid.p, 36);
    unsigned i_byte = 0;
    for (size_t i = 0; i < 36;) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (uid.p[i++] != '-') {
                return STR_NULL;
            }
            continue;
        }
        unsigned v = 0, flipped = 0;
        for (size_t k = i; k < i + 2; k++) {
            char c = uid.p[k] >= 'A' && uid.p[k] <= 'F' ? (char)(uid.p[k] + 32) : uid.p[k];
            const char *at = c ? memchr(HEX, c, 16) : NULL;
            if (!at) {
                return STR_NULL;
            }
            v = v << 4 | (unsigned)(at - HEX);
        }
        for (unsigned b = 0; b < 8; b++) {
            flipped |= (v >> b & 1U) << (7 - b);
        }
        if (i_byte == 6 || i_byte == 8) { /* version and variant */
            flipped = v;
        }
        out[i] = HEX[flipped >> 4];
        out[i + 1] = HEX[flipped & 15];
        i += 2;
        i_byte++;
    }
    return str_n(out, 36);
}

void kube_copy_identity(struct arena *a, struct jnode *dst, const struct jnode *src,
                        bool flip_uid) {
    struct str uid = jnode_str(jnode_getc(src, "uid"));
    struct str flipped = flip_uid ? kube_uid_flip(uid, a) : STR_NULL;
    if (uid.n) {
        kube_set_text(a, dst, "uid", flipped.n ? flipped : uid);
    }
    copy_member(a, dst, src, "resourceVersion");
    copy_member(a, dst, src, "creationTimestamp");
}

/* Puts apiVersion and kind in front. */
static void set_type(struct arena *a, struct jnode *obj, struct str api_version, const char *kind) {
    (void)jnode_del(obj, STR("apiVersion"));
    (void)jnode_del(obj, STR("kind"));
    struct jnode *v = jnode_new_str(a, api_version), *k = jnode_new_str(a, str_c(kind));
    v->key = STR("apiVersion");
    k->key = STR("kind");
    v->next = k;
    k->next = obj->child;
    obj->child = v;
    if (!obj->last) {
        obj->last = k;
    }
    obj->n += 2;
}

static struct str type_of(const struct kind *k, struct arena *a) {
    return arena_printf(a, "%s%s%s", k->group, k->group[0] ? "/" : "", k->version);
}

/* ---- Kubernetes' own ---- */

/* discovery.k8s.io/v1beta1 says by topology what v1 says by nodeName and zone. */
static void slice_to_v1(struct jnode *obj, struct arena *a) {
    jnode_each (ep, jnode_getc(obj, "endpoints")) {
        struct jnode *topology = jnode_getc(ep, "topology");
        struct str host = jnode_str(jnode_getc(topology, "kubernetes.io/hostname"));
        struct str zone = jnode_str(jnode_getc(topology, "topology.kubernetes.io/zone"));
        if (!topology) {
            continue;
        }
        if (host.n && !jnode_getc(ep, "nodeName")) {
            kube_set_text(a, ep, "nodeName", host);
        }
        if (zone.n) {
            kube_set_text(a, ep, "zone", zone);
        }
        (void)jnode_del(ep, STR("topology"));
    }
}

void kube_to_old(const struct kube_rest *r, struct jnode *obj, struct arena *a) {
    jnode_each (ep, jnode_getc(obj, "endpoints")) {
        struct str host = jnode_str(jnode_getc(ep, "nodeName"));
        struct str zone = jnode_str(jnode_getc(ep, "zone"));
        if (host.n) {
            kube_set_text(a, kube_map_at(a, ep, "topology"), "kubernetes.io/hostname", host);
        }
        if (zone.n) {
            kube_set_text(a, kube_map_at(a, ep, "topology"), "topology.kubernetes.io/zone", zone);
        }
        (void)jnode_del(ep, STR("nodeName"));
        (void)jnode_del(ep, STR("zone"));
    }
    set_type(a, obj, arena_printf(a, "%s/%s", r->group, r->old_version), r->kind);
}

void kube_read_plain(const struct kube_view *v, struct jnode *obj, struct arena *a) {
    const struct kind *k = &model_kinds[v->kind];
    if (v->kind == K_ENDPOINT_SLICE) {
        slice_to_v1(obj, a);
    }
    set_type(a, obj, type_of(k, a), k->kind);
}

/* What only the server sets. */
static void drop_system(struct jnode *meta) {
    static const char *const NAMES[] = {
        "uid",        "resourceVersion", "creationTimestamp", "selfLink",
        "generation", "managedFields",   "deletionTimestamp"};
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++) {
        (void)jnode_del(meta, str_c(NAMES[i]));
    }
}

struct jnode *kube_write_plain(const struct kube_at *at, const struct jnode *value,
                               struct arena *a) {
    struct jnode *o = jnode_copy(a, value), *meta = kube_map_at(a, o, "metadata");
    drop_system(meta);
    kube_set_text(a, meta, "name", at->name);
    if (at->ns.n) {
        kube_set_text(a, meta, "namespace", at->ns);
    }
    return o;
}

void kube_strip(struct jnode *obj) {
    struct jnode *meta = jnode_getc(obj, "metadata"), *ann = jnode_getc(meta, "annotations");
    if (meta && meta->type == J_MAP) {
        (void)jnode_del(meta, STR("managedFields"));
        (void)jnode_del(meta, STR("selfLink"));
    }
    if (ann && ann->type == J_MAP &&
        jnode_del(ann, STR("kubectl.kubernetes.io/last-applied-configuration")) && ann->n == 0) {
        (void)jnode_del(meta, STR("annotations"));
    }
}

/* ---- CRDs ---- */

static bool has_stored_name(enum kind_id k) {
    return k == K_NETWORK_POLICY || k == K_GLOBAL_NETWORK_POLICY || k == K_STAGED_NETWORK_POLICY ||
           k == K_STAGED_GLOBAL_NETWORK_POLICY;
}

/* Written before names were stored: the default tier's policies were called default.NAME. */
static struct str policy_name(const struct jnode *obj, struct str name) {
    struct str tier = jnode_str(jnode_getc(jnode_getc(obj, "spec"), "tier"));
    bool is_default = !tier.n || str_is(tier, "default");
    return is_default && str_starts(name, STR("default.")) ? str_sub(name, 8, name.n) : name;
}

/* An owner by its v3 identity is one by its v1 identity for Kubernetes' garbage collector, and the
 * reverse. */
static void flip_owners(struct jnode *meta, bool to_v1, struct arena *a) {
    jnode_each (ref, jnode_getc(meta, "ownerReferences")) {
        struct str v = jnode_str(jnode_getc(ref, "apiVersion"));
        bool is_v3 = str_is(v, "projectcalico.org/v3"), is_v1 = str_is(v, KUBE_CRD_GROUP "/v1");
        if (ref->type != J_MAP || !(is_v3 || (is_v1 && !to_v1))) {
            continue;
        }
        struct str uid = kube_uid_flip(jnode_str(jnode_getc(ref, "uid")), a);
        kube_set_text(a, ref, "apiVersion",
                      to_v1 ? STR(KUBE_CRD_GROUP "/v1") : STR("projectcalico.org/v3"));
        if (uid.n) {
            kube_set_text(a, ref, "uid", uid);
        }
    }
}

/* Kinds whose CRD differs in more than its metadata. */
static void fix_spec(const struct kube_view *v, struct jnode *obj, bool to_v1, struct arena *a) {
    struct jnode *spec = jnode_getc(obj, "spec");
    if (v->kind == K_BLOCK_AFFINITY && spec && spec->type == J_MAP) {
        const struct jnode *d = jnode_getc(spec, "deleted");
        bool is_deleted = d && (d->type == J_BOOL ? d->b : str_is(jnode_str(d), "true"));
        if (to_v1) {
            kube_set_text(a, spec, "deleted", is_deleted ? STR("true") : STR("false"));
        } else if (d) {
            jnode_set(a, spec, STR("deleted"), jnode_new_bool(a, is_deleted));
        }
    }
}

int kube_read_crd(const struct kube_view *v, struct jnode *obj, struct arena *a,
                  struct kube_item *out, struct err *e) {
    const struct kind *k = &model_kinds[v->kind];
    struct jnode *old = jnode_getc(obj, "metadata");
    struct str name = jnode_str(jnode_getc(old, "name")),
               ns = jnode_str(jnode_getc(old, "namespace"));
    struct str text = kube_annotation(obj, KUBE_ANNOTATION_METADATA);
    struct jnode *meta = jnode_new(a, J_MAP), *stored = NULL;
    if (text.p) {
        stored = kube_parse_text(text, a);
        if (!stored || stored->type != J_MAP) {
            return err_set(e, ERR_CORRUPT,
                           "%s \"%.*s\": its annotation " KUBE_ANNOTATION_METADATA
                           " is no JSON object: write the object again",
                           k->singular, STR_FMT(name));
        }
    }
    struct str own_name = jnode_str(jnode_getc(stored, "name"));
    if (own_name.n) {
        name = own_name;
    } else if (has_stored_name(v->kind)) {
        name = policy_name(obj, name);
    }
    kube_set_text(a, meta, "name", name);
    if (ns.n) {
        kube_set_text(a, meta, "namespace", ns);
    }
    kube_copy_identity(a, meta, old, true);
    if (stored) {
        flip_owners(stored, false, a);
        copy_member(a, meta, stored, "creationTimestamp");
        copy_member(a, meta, stored, "generation");
        copy_member(a, meta, stored, "generateName");
    }
    copy_member(a, meta, old, "deletionTimestamp");
    merge_texts(a, meta, "labels", jnode_getc(old, "labels"));
    merge_texts(a, meta, "labels", jnode_getc(stored, "labels"));
    merge_texts(a, meta, "annotations", jnode_getc(old, "annotations"));
    struct jnode *annotations = jnode_getc(meta, "annotations");
    if (annotations && jnode_del(annotations, STR(KUBE_ANNOTATION_METADATA)) && !annotations->n) {
        (void)jnode_del(meta, STR("annotations"));
    }
    merge_texts(a, meta, "annotations", jnode_getc(stored, "annotations"));
    copy_member(a, meta, stored ? stored : old, "ownerReferences");
    copy_member(a, meta, old, "finalizers");
    copy_member(a, meta, stored, "finalizers");
    jnode_set(a, obj, STR("metadata"), meta);
    fix_spec(v, obj, false, a);
    set_type(a, obj, type_of(k, a), k->kind);
    kube_strip(obj);
    out->key = kind_store_key(k, ns, name, a);
    out->value = obj;
    return 0;
}

static bool is_ours(struct str key) {
    return str_contains(key, STR("projectcalico.org/")) ||
           str_contains(key, STR("operator.tigera.io/"));
}

static void copy_ours(struct arena *a, struct jnode *meta, const char *name,
                      const struct jnode *src) {
    jnode_each (n, src) {
        if (n->type == J_STR && is_ours(n->key) && !str_is(n->key, KUBE_ANNOTATION_METADATA)) {
            jnode_set(a, kube_map_at(a, meta, name), n->key, jnode_new_str(a, n->s));
        }
    }
}

/* The metadata that goes into the annotation, in the order in which Go writes it. */
static struct jnode *stored_meta(const struct kube_view *v, const struct jnode *meta,
                                 struct str name, struct arena *a) {
    struct jnode *s = jnode_new(a, J_MAP);
    if (has_stored_name(v->kind)) {
        kube_set_text(a, s, "name", name);
    }
    copy_member(a, s, meta, "generateName");
    copy_member(a, s, meta, "generation");
    jnode_set(a, s, STR("creationTimestamp"), jnode_new(a, J_NULL));
    copy_member(a, s, meta, "creationTimestamp");
    copy_member(a, s, meta, "labels");
    copy_member(a, s, meta, "annotations");
    struct jnode *annotations = jnode_getc(s, "annotations");
    if (annotations && annotations->type == J_MAP) {
        (void)jnode_del(annotations, STR(KUBE_ANNOTATION_METADATA));
        (void)jnode_del(annotations, STR("kubectl.kubernetes.io/last-applied-configuration"));
        if (annotations->n == 0) {
            (void)jnode_del(s, STR("annotations"));
        }
    }
    copy_member(a, s, meta, "ownerReferences");
    copy_member(a, s, meta, "finalizers");
    flip_owners(s, true, a);
    return s;
}

int kube_write_crd(const struct kube_at *at, const struct jnode *value, struct arena *a,
                   struct jnode **out, struct err *e) {
    const struct kube_view *v = at->view;
    const struct jnode *meta = jnode_getc(value, "metadata");
    struct str name = jnode_str(jnode_getc(meta, "name"));
    struct jnode *o = kube_new_object(a, KUBE_CRD_GROUP "/v1", v->rest->kind);
    struct jnode *om = jnode_getc(o, "metadata");
    if (value->type != J_MAP) {
        return err_set(e, ERR_INVALID, "%s \"%.*s\" is no JSON object", v->rest->kind,
                       STR_FMT(at->name));
    }
    kube_set_text(a, om, "name", at->name);
    if (at->ns.n) {
        kube_set_text(a, om, "namespace", at->ns);
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(STORE_VALUE_MAX);
    json_write(&b, stored_meta(v, meta, name.n ? name : at->name, a), 0);
    copy_ours(a, om, "labels", jnode_getc(meta, "labels"));
    kube_set_text(a, kube_map_at(a, om, "annotations"), KUBE_ANNOTATION_METADATA,
                  arena_dup(a, buf_view(&b)));
    copy_ours(a, om, "annotations", jnode_getc(meta, "annotations"));
    jnode_each (n, value) {
        if (!str_is(n->key, "apiVersion") && !str_is(n->key, "kind") &&
            !str_is(n->key, "metadata")) {
            jnode_set(a, o, n->key, jnode_copy(a, n));
        }
    }
    kind_omit_empty(&model_kinds[v->kind], jnode_getc(o, "spec"));
    fix_spec(v, o, true, a);
    *out = o;
    return 0;
}
