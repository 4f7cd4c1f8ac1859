#include "controllers/mirror.h"

#include "base/keytext.h"
#include "base/log.h"
#include "controllers/convert.h"
#include "controllers/objects.h"

#include <stdlib.h>

const struct mirror_def mirror_defs[MIRROR_N] = {
    [MIRROR_POLICY] = {K_K8S_NETWORK_POLICY, K_NETWORK_POLICY, CONVERT_POLICY_PREFIX},
    [MIRROR_NAMESPACE] = {K_NAMESPACE, K_PROFILE, CONVERT_NAMESPACE_PREFIX},
    [MIRROR_ACCOUNT] = {K_SERVICE_ACCOUNT, K_PROFILE, CONVERT_ACCOUNT_PREFIX},
};

/* ---- names ---- */

struct str mirror_name(enum mirror_id id, struct str ns, struct str name, struct arena *a) {
    return id == MIRROR_ACCOUNT
               ? arena_printf(a, CONVERT_ACCOUNT_PREFIX "%.*s.%.*s", STR_FMT(ns), STR_FMT(name))
               : arena_printf(a, "%s%.*s", mirror_defs[id].prefix, STR_FMT(name));
}

bool mirror_source(enum mirror_id id, struct str *ns, struct str *name) {
    struct str prefix = str_c(mirror_defs[id].prefix);
    if (!str_starts(*name, prefix) || name->n == prefix.n) {
        return false;
    }
    struct str rest = str_sub(*name, prefix.n, name->n);
    if (id == MIRROR_ACCOUNT) {
        struct str first = str_cut(&rest, '.'); /* a namespace has no dot in it */
        if (!first.n || !rest.n) {
            return false;
        }
        *ns = first;
    } else if (id == MIRROR_NAMESPACE) {
        *ns = STR("");
    }
    *name = rest;
    return true;
}

static bool mirror_of_key(struct str key, enum mirror_id *id, struct str *ns, struct str *name) {
    const struct kind *k;
    struct str target_ns, target_name;
    if (kind_split_key(key, &k, &target_ns, &target_name) < 0) {
        return false;
    }
    for (int i = 0; i < MIRROR_N; i++) {
        *ns = target_ns;
        *name = target_name;
        if (k->id == mirror_defs[i].to && mirror_source((enum mirror_id)i, ns, name)) {
            *id = (enum mirror_id)i;
            return true;
        }
    }
    return false;
}

/* spec that the source's object asks for; NULL: none can be made. */
static struct jnode *convert(enum mirror_id id, struct jnode *doc, struct arena *a,
                             struct err *problem) {
    problem->code = 0;
    switch (id) {
    case MIRROR_POLICY:
        return convert_policy(doc, a, problem);
    case MIRROR_NAMESPACE:
        return convert_namespace(doc, a);
    case MIRROR_ACCOUNT:
        return convert_account(doc, a);
    case MIRROR_N:
        break;
    }
    return NULL;
}

/* ---- the table ---- */

struct pair {
    uint64_t wanted, is; /* hashes; 0: should not be there, is not there */
    uint8_t id;
    struct keytext key; /* of the target */
};

#define MAP_NAME pairtab
#define MAP_KEY const struct keytext *
#define MAP_VAL struct pair *
#define MAP_HASH(k) KEYTEXT_HASH(k)
#define MAP_EQ(a, b) KEYTEXT_EQ(a, b)
#include "base/map.tmpl.h"

struct mirror_table {
    struct pairtab tab;
    size_t n_wanted[MIRROR_N];
};

struct mirror_table *mirror_table_new(void) {
    struct mirror_table *m = calloc(1, sizeof(*m));
    mg_assert(m != NULL);
    return m;
}

void mirror_table_free(struct mirror_table *m) {
    if (!m) {
        return;
    }
    size_t i = 0;
    struct pair **p;
    while (pairtab_next(&m->tab, &i, NULL, &p)) {
        free(*p);
    }
    pairtab_fini(&m->tab);
    free(m);
}

static struct pair *pair_of(struct mirror_table *m, enum mirror_id id, struct str key,
                            struct arena *a) {
    struct pair **found = pairtab_get(&m->tab, keytext_of(a, key));
    if (found) {
        return *found;
    }
    struct pair *p = calloc(1, sizeof(*p) + key.n);
    mg_assert(p != NULL);
    p->id = (uint8_t)id;
    keytext_set(&p->key, key);
    *pairtab_put(&m->tab, &p->key, NULL) = p;
    return p;
}

/* key when the sides differ; what neither has is forgotten. */
static struct str judge(struct mirror_table *m, struct pair *p, struct str key) {
    bool differs = p->wanted != p->is;
    if (p->wanted == 0 && p->is == 0) {
        (void)pairtab_del(&m->tab, &p->key);
        free(p);
    }
    return differs ? key : STR_NULL;
}

static uint64_t spec_hash(const struct jnode *spec) {
    uint64_t h = convert_hash(spec);
    return h ? h : 1;
}

struct str mirror_saw_source(struct mirror_table *m, enum mirror_id id, struct str ns,
                             struct str name, struct jnode *doc, struct arena *a) {
    struct str target = mirror_name(id, ns, name, a);
    enum kind_id to = mirror_defs[id].to;
    struct str key =
        kind_store_key(&model_kinds[to], model_kinds[to].is_namespaced ? ns : STR(""), target, a);
    struct err problem;
    struct jnode *spec = doc ? convert(id, doc, a, &problem) : NULL;
    struct pair *p = pair_of(m, id, key, a);
    if (doc && !spec) {
        /* Nothing that could be written; what is there stays, and is not ours to compare. */
        m->n_wanted[id] -= p->wanted != 0;
        p->wanted = p->is;
        m->n_wanted[id] += p->wanted != 0;
        return judge(m, p, key);
    }
    m->n_wanted[id] -= p->wanted != 0;
    p->wanted = spec ? spec_hash(spec) : 0;
    m->n_wanted[id] += p->wanted != 0;
    return judge(m, p, key);
}

struct str mirror_saw_target(struct mirror_table *m, enum mirror_id id, struct str ns,
                             struct str name, const struct jnode *doc, struct arena *a) {
    struct str source_ns = ns, source_name = name;
    if (!mirror_source(id, &source_ns, &source_name)) {
        return STR_NULL;
    }
    struct str key = kind_store_key(&model_kinds[mirror_defs[id].to], ns, name, a);
    struct pair *p = pair_of(m, id, key, a);
    p->is = doc ? spec_hash(jnode_getc(doc, "spec")) : 0;
    return judge(m, p, key);
}

void mirror_each_different(const struct mirror_table *m, const bool is_enabled[MIRROR_N],
                           void (*cb)(void *arg, struct str key), void *arg) {
    size_t i = 0;
    struct pair **p;
    while (pairtab_next(&m->tab, &i, NULL, &p)) {
        if ((*p)->wanted != (*p)->is && is_enabled[(*p)->id]) {
            cb(arg, keytext_view(&(*p)->key));
        }
    }
}

size_t mirror_n_wanted(const struct mirror_table *m, enum mirror_id id) {
    return m->n_wanted[id];
}

/* ---- doing it ---- */

static struct jnode *new_object(enum mirror_id id, struct str ns, struct str name,
                                struct jnode *spec, struct arena *a) {
    struct jnode *doc = stored_new(mirror_defs[id].to, ns, name, a);
    if (id == MIRROR_POLICY) { /* as Calico's client sets it on every policy */
        struct jnode *labels = jnode_new(a, J_MAP);
        jnode_set(a, labels, STR("projectcalico.org/tier"), jnode_new_str(a, STR("default")));
        jnode_set(a, jnode_getc(doc, "metadata"), STR("labels"), labels);
    }
    jnode_set(a, doc, STR("spec"), spec);
    return doc;
}

static int sync_once(struct store *source, struct store *target, struct str key, struct arena *a,
                     struct err *e) {
    enum mirror_id id;
    struct str ns, name, target_ns, target_name;
    const struct kind *k;
    if (!mirror_of_key(key, &id, &ns, &name) ||
        kind_split_key(key, &k, &target_ns, &target_name) < 0) {
        return 0;
    }
    struct stored from, to;
    struct err problem = {.code = 0};
    int r = stored_get(source, mirror_defs[id].from, ns, name, a, &from, e);
    r = r == 0 ? stored_get(target, k->id, target_ns, target_name, a, &to, e) : r;
    if (r < 0) {
        return r;
    }
    struct jnode *spec = from.doc ? convert(id, from.doc, a, &problem) : NULL;
    if (problem.code) {
        LOG_W("controllers", "not_converted", "object=%s reason=%s", log_quote(key),
              log_quote(str_c(problem.msg)));
    }
    if (!from.doc) {
        return to.doc ? stored_delete(target, k->id, target_ns, target_name, to.revision, e) : 0;
    }
    if (!spec || (to.doc && convert_same(jnode_getc(to.doc, "spec"), spec))) {
        return 0;
    }
    if (to.doc) {
        jnode_set(a, to.doc, STR("spec"), spec);
    }
    return stored_put(target, k->id, target_ns, target_name,
                      to.doc ? to.doc : new_object(id, target_ns, target_name, spec, a),
                      to.revision, e);
}

int mirror_sync(struct store *source, struct store *target, struct str key, struct err *e) {
    struct arena a = {0};
    int r = sync_once(source, target, key, &a, e);
    arena_fini(&a);
    return r;
}
