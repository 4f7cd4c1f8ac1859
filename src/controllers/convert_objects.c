/* Namespaces and service accounts to profiles, pods to the labels of their endpoints, Kubernetes
 * Nodes to the labels of Calico's. */
#include "controllers/convert.h"

#include "base/hash.h"
#include "base/vec.h"

#include <stdlib.h>

enum { LABEL_TEXT_MAX = 1 << 20 };

/* ---- maps of labels ---- */

static int pair_cmp(const void *x, const void *y) {
    return str_cmp(((const struct str_pair *)x)->key, ((const struct str_pair *)y)->key);
}

typedef VEC(struct str_pair) pair_vec;

static void add_pairs(pair_vec *v, const char *prefix, const struct jnode *labels,
                      struct arena *a) {
    jnode_each (l, labels) {
        if (l->type == J_STR && l->key.p) {
            vec_push(v, (struct str_pair){
                            prefix[0] ? arena_printf(a, "%s%.*s", prefix, STR_FMT(l->key)) : l->key,
                            l->s});
        }
    }
}

static void set_pair(pair_vec *v, struct str key, struct str value) {
    for (size_t i = 0; i < v->n; i++) {
        if (str_eq(v->p[i].key, key)) {
            v->p[i].value = value;
            return;
        }
    }
    vec_push(v, (struct str_pair){key, value});
}

/* Go writes a map's members sorted by key. */
static struct jnode *pairs_node(pair_vec *v, struct arena *a) {
    struct jnode *n = jnode_new(a, J_MAP);
    vec_sort(v, pair_cmp);
    for (size_t i = 0; i < v->n; i++) {
        jnode_set(a, n, v->p[i].key, jnode_new_str(a, v->p[i].value));
    }
    vec_fini(v);
    return n;
}

/* ---- profiles ---- */

static struct jnode *allow_all(struct arena *a) {
    struct jnode *list = jnode_new(a, J_LIST), *rule = jnode_new(a, J_MAP);
    jnode_set(a, rule, STR("action"), jnode_new_str(a, STR("Allow")));
    jnode_set(a, rule, STR("source"), jnode_new(a, J_MAP));
    jnode_set(a, rule, STR("destination"), jnode_new(a, J_MAP));
    jnode_append(list, rule);
    return list;
}

static struct jnode *labels_to_apply(const struct jnode *doc, const char *prefix, struct arena *a) {
    pair_vec v = {0};
    add_pairs(&v, prefix, jnode_path(doc, "metadata.labels"), a);
    struct str name = jnode_str(jnode_path(doc, "metadata.name"));
    set_pair(&v, arena_printf(a, "%sprojectcalico.org/name", prefix), name.p ? name : STR(""));
    return pairs_node(&v, a);
}

struct jnode *convert_namespace(const struct jnode *ns, struct arena *a) {
    struct jnode *spec = jnode_new(a, J_MAP);
    jnode_set(a, spec, STR("ingress"), allow_all(a));
    jnode_set(a, spec, STR("egress"), allow_all(a));
    jnode_set(a, spec, STR("labelsToApply"), labels_to_apply(ns, "pcns.", a));
    return spec;
}

struct jnode *convert_account(const struct jnode *account, struct arena *a) {
    struct jnode *spec = jnode_new(a, J_MAP);
    jnode_set(a, spec, STR("labelsToApply"), labels_to_apply(account, "pcsa.", a));
    return spec;
}

/* ---- endpoints ---- */

static struct jnode *member(struct jnode *map, const char *key, struct arena *a) {
    struct jnode *n = jnode_getc(map, key);
    if (!n || n->type != J_MAP) {
        n = jnode_new(a, J_MAP);
        jnode_set(a, map, str_c(key), n);
    }
    return n;
}

bool convert_endpoint(struct jnode *wep, const struct jnode *pod, struct arena *a) {
    struct str ns = jnode_str(jnode_path(pod, "metadata.namespace"));
    struct str account = jnode_str(jnode_path(pod, "spec.serviceAccountName"));
    pair_vec v = {0};
    add_pairs(&v, "", jnode_path(pod, "metadata.labels"), a);
    set_pair(&v, STR("projectcalico.org/namespace"), ns.p ? ns : STR("default"));
    set_pair(&v, STR("projectcalico.org/orchestrator"), STR("k8s"));
    if (account.n && account.n < 63) {
        set_pair(&v, STR("projectcalico.org/serviceaccount"), account);
    }
    struct jnode *labels = pairs_node(&v, a);
    struct jnode *meta = member(wep, "metadata", a), *spec = member(wep, "spec", a);
    struct str old = jnode_str(jnode_getc(spec, "serviceAccountName"));
    bool is_same = convert_same(jnode_getc(meta, "labels"), labels) && str_eq(old, account);
    if (is_same) {
        return false;
    }
    jnode_set(a, meta, STR("labels"), labels);
    if (account.n) {
        jnode_set(a, spec, STR("serviceAccountName"), jnode_new_str(a, account));
    } else {
        (void)jnode_del(spec, STR("serviceAccountName"));
    }
    return true;
}

static void put_doubled(struct buf *b, struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        buf_putc(b, s.p[i]);
        if (s.p[i] == '-') {
            buf_putc(b, '-');
        }
    }
}

struct str convert_endpoint_prefix(struct str node, struct str pod, struct arena *a) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    put_doubled(&b, node);
    buf_puts(&b, "-k8s-");
    put_doubled(&b, pod);
    buf_putc(&b, '-');
    return arena_dup(a, buf_view(&b));
}

/* ---- nodes ---- */

static struct jnode *old_kube_labels(const struct jnode *node, struct arena *a) {
    const struct jnode *notes = jnode_path(node, "metadata.annotations");
    struct str text = jnode_str(jnode_getc(notes, CONVERT_KUBE_LABELS));
    struct jnode *old = NULL;
    struct err ignored; /* unreadable: as if nothing had come from there yet */
    if (text.n == 0 || json_parse(text, &json_limits_default, a, &old, &ignored) < 0) {
        return NULL;
    }
    return old->type == J_MAP ? old : NULL;
}

bool convert_node_labels(struct jnode *node, const struct jnode *k8s_node, struct arena *a) {
    const struct jnode *now = jnode_path(k8s_node, "metadata.labels");
    const struct jnode *was = old_kube_labels(node, a);
    const struct jnode *has = jnode_path(node, "metadata.labels");
    pair_vec v = {0}, kube = {0};
    jnode_each (l, has) {
        bool is_gone = jnode_get(was, l->key) && !jnode_get(now, l->key);
        if (l->type == J_STR && !is_gone) {
            set_pair(&v, l->key, l->s);
        }
    }
    jnode_each (l, now) {
        if (l->type == J_STR) {
            set_pair(&v, l->key, l->s);
            set_pair(&kube, l->key, l->s);
        }
    }
    MG_CLEANUP(buf_fini) struct buf text = BUF_INIT(LABEL_TEXT_MAX);
    json_write(&text, pairs_node(&kube, a), 0);
    struct jnode *labels = pairs_node(&v, a), *meta = member(node, "metadata", a);
    struct jnode *notes = jnode_getc(meta, "annotations");
    bool is_same = (has ? jnode_eq(has, labels) : labels->n == 0) &&
                   str_eq(jnode_str(jnode_getc(notes, CONVERT_KUBE_LABELS)), buf_view(&text));
    if (is_same || text.overflow) {
        return false;
    }
    jnode_set(a, meta, STR("labels"), labels);
    jnode_set(a, member(meta, "annotations", a), STR(CONVERT_KUBE_LABELS),
              jnode_new_str(a, arena_dup(a, buf_view(&text))));
    return true;
}

struct str convert_k8s_node_name(const struct jnode *node) {
    const struct jnode *refs = jnode_path(node, "spec.orchRefs");
    jnode_each (r, refs) {
        if (str_is(jnode_str(jnode_getc(r, "orchestrator")), "k8s")) {
            return jnode_str(jnode_getc(r, "nodeName"));
        }
    }
    return STR_NULL;
}

/* ---- comparing ---- */

uint64_t convert_hash(const struct jnode *n) {
    if (!n) {
        return 0;
    }
    uint64_t h = hash_u64((uint64_t)n->type + 1);
    switch (n->type) {
    case J_NULL:
        break;
    case J_BOOL:
        h ^= hash_u64(n->b ? 2 : 3);
        break;
    case J_INT:
        h = hash_u64(h ^ (uint64_t)n->i);
        break;
    case J_FLOAT:
    case J_STR:
        h = hash_u64(h ^ hash_str(n->s));
        break;
    case J_LIST:
        jnode_each (m, n) {
            h = hash_u64(h * 31 + convert_hash(m));
        }
        break;
    case J_MAP:
        jnode_each (m, n) {
            h += hash_u64(hash_str(m->key) ^ (convert_hash(m) * 0x9e3779b97f4a7c15ULL));
        }
        break;
    }
    return h;
}
