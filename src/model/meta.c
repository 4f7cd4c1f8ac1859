/* A whole document: apiVersion, kind, metadata, then its kind's schema. Decides what names, labels
 * and annotations may be, which metadata a user may write, and what counts as "the same" document.
 */
#include "model/schema.h"

#include <stdlib.h>

enum { ANNOTATIONS_MAX_BYTES = 256 * 1024 };

/* ---- maps of text ---- */

static int pair_cmp(const void *a, const void *b) {
    return str_cmp(((const struct str_pair *)a)->key, ((const struct str_pair *)b)->key);
}

struct str_map strmap_read(struct mctx *c, const struct at *at, const struct jnode *map) {
    struct str_map m = {.set = true};
    size_t n = 0;
    jnode_each (it, map) {
        n++;
    }
    m.p = arena_array(c->a, struct str_pair, n);
    bool is_sorted = true;
    jnode_each (it, map) {
        struct str key = it->key.p ? it->key : STR("");
        if (it->type == J_NULL) {
            m.p[m.n++] = (struct str_pair){key, STR("")};
        } else if (it->type == J_STR) {
            m.p[m.n++] = (struct str_pair){key, it->s};
        } else {
            struct at here = {at, key, 0};
            model_fail(c, &here, it, "found %s, allowed is text: put it in quotes",
                       model_found(c, it));
            continue;
        }
        is_sorted = is_sorted && (m.n < 2 || str_cmp(m.p[m.n - 2].key, key) < 0);
    }
    if (!is_sorted) {
        qsort(m.p, m.n, sizeof(*m.p), pair_cmp);
        size_t k = 0; /* a tree made by hand may hold a key twice: the first counts */
        for (size_t i = 0; i < m.n; i++) {
            if (k == 0 || !str_eq(m.p[k - 1].key, m.p[i].key)) {
                m.p[k++] = m.p[i];
            }
        }
        m.n = k;
    }
    return m;
}

void labels_check(struct mctx *c, const struct at *at, const struct jnode *map) {
    jnode_each (it, map) {
        struct at here = {at, it->key.p ? it->key : STR(""), 0};
        const char *allowed = check_text(CHECK_LABEL_KEY, here.name, c->a);
        if (allowed) {
            model_fail(c, &here, it, "allowed is %s", allowed);
        }
        allowed = it->type == J_STR ? check_text(CHECK_LABEL_VALUE, it->s, c->a) : NULL;
        if (allowed) {
            model_fail(c, &here, it, "found %s, allowed is %s", model_found(c, it), allowed);
        }
    }
}

void annotations_check(struct mctx *c, const struct at *at, const struct jnode *map) {
    size_t bytes = 0;
    jnode_each (it, map) {
        struct str key = it->key.p ? it->key : STR("");
        bytes += key.n + (it->type == J_STR ? it->s.n : 0);
        char lower[320];
        size_t n = key.n < sizeof(lower) ? key.n : sizeof(lower);
        for (size_t i = 0; i < n; i++) {
            lower[i] = key.p[i] >= 'A' && key.p[i] <= 'Z' ? (char)(key.p[i] | 32) : key.p[i];
        }
        if (key.n > sizeof(lower) || !is_label_key(str_n(lower, n))) {
            struct at here = {at, key, 0};
            model_fail(c, &here, it,
                       "allowed is an annotation's name: [DNS name/] and 1 to 63 of A-Z a-z 0-9 _ "
                       ". -, with a letter or digit at both ends");
        }
    }
    if (bytes > ANNOTATIONS_MAX_BYTES) {
        model_fail(c, at, map, "found %zu bytes of names and values, allowed are at most %d", bytes,
                   ANNOTATIONS_MAX_BYTES);
    }
}

/* ---- names ---- */

/* label, label.label, or one of the prefixes that Kubernetes' policies get in Calico. */
static bool is_policy_name(struct str s, bool is_global) {
    if (s.n > 253) {
        return false;
    }
    if (!is_global) {
        static const char *const PREFIXES[] = {"knp.default.", "ossg.default."};
        for (size_t i = 0; i < ARRAY_LEN(PREFIXES); i++) {
            struct str p = str_c(PREFIXES[i]);
            if (str_starts(s, p)) {
                return is_dns_subdomain(str_sub(s, p.n, s.n));
            }
        }
    }
    struct str rest = s, first = str_cut(&rest, '.');
    return is_dns_label(first, 253) && (!rest.p || is_dns_label(rest, 253));
}

/* NULL, or what is allowed. */
static const char *check_name(enum name_rule rule, struct str s, struct arena *a) {
    switch (rule) {
    case NAME_SUBDOMAIN:
        return check_text(CHECK_NAME, s, a);
    case NAME_LABEL:
        return check_text(CHECK_LABEL, s, a);
    case NAME_LABEL_1035:
        return is_dns_label(s, 63) && s.p[0] >= 'a' ? NULL
                                                    : "a name of lower-case letters, digits and -, "
                                                      "at most 63, with a letter first";
    case NAME_POLICY:
    case NAME_GLOBAL_POLICY:
        return is_policy_name(s, rule == NAME_GLOBAL_POLICY)
                   ? NULL
                   : "a name of lower-case letters, digits and -, with at most one . in it (TIER."
                     "NAME), at most 253 bytes";
    case NAME_DEFAULT:
        return str_is(s, "default") ? NULL : "default: there is only one such object";
    }
    return NULL;
}

static void read_name(struct mctx *c, const struct at *at, const struct jnode *meta) {
    const struct kind *k = c->obj->kind;
    struct str name = c->obj->meta.name;
    if (name.n == 0) {
        bool is_generated = c->obj->meta.generate_name.n > 0;
        model_fail_in(c, at, meta, is_generated ? "generateName" : "name", "%s",
                      is_generated ? "names are not generated: write metadata.name"
                                   : "is missing: every object needs a name");
        return;
    }
    const char *allowed = check_name(k->def->name, name, c->a);
    if (allowed) {
        model_fail_in(c, at, meta, "name", "found %s, allowed is %s",
                      model_found(c, jnode_getc(meta, "name")), allowed);
    }
}

/* ---- metadata ---- */

static const char *const META_TEXTS[] = {
    "name",         "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp",
    "generateName", NULL};
static const char *const META_KEPT[] = {"managedFields", "ownerReferences",
                                        "finalizers",    "selfLink",
                                        "clusterName",   "deletionGracePeriodSeconds",
                                        "generation",    "labels",
                                        "annotations",   NULL};

static int index_of(const char *const *names, struct str s) {
    for (int i = 0; names[i]; i++) {
        if (str_is(s, names[i])) {
            return i;
        }
    }
    return -1;
}

static const char *meta_name(const void *arg, size_t i) {
    (void)arg;
    size_t n = ARRAY_LEN(META_TEXTS) - 1;
    return i < n ? META_TEXTS[i] : META_KEPT[i - n];
}

static void read_map(struct mctx *c, const struct at *at, const struct jnode *n,
                     struct str_map *out) {
    if (n->type == J_MAP) {
        *out = strmap_read(c, at, n);
    } else if (n->type != J_NULL) {
        model_fail(c, at, n, "found %s, allowed is a map of text", model_found(c, n));
    }
}

static void read_members(struct mctx *c, const struct at *at, const struct jnode *meta) {
    struct meta *m = &c->obj->meta;
    struct str *const texts[] = {
        &m->name,
        &m->ns,
        &m->uid,
        &m->resource_version,
        &m->creation_timestamp,
        &m->deletion_timestamp,
        &m->generate_name,
    };
    bool is_checked = c->mode == MODEL_APPLY;
    jnode_each (n, meta) {
        struct at here = {at, n->key.p ? n->key : STR(""), 0};
        int i = index_of(META_TEXTS, here.name);
        if (i >= 0) {
            if (n->type == J_STR) {
                *texts[i] = n->s;
            } else if (n->type != J_NULL) {
                model_fail(c, &here, n, "found %s, allowed is text: put it in quotes",
                           model_found(c, n));
            }
        } else if (str_is(here.name, "labels")) {
            read_map(c, &here, n, &m->labels);
            if (is_checked && n->type == J_MAP) {
                labels_check(c, &here, n);
            }
        } else if (str_is(here.name, "annotations")) {
            read_map(c, &here, n, &m->annotations);
            if (is_checked && n->type == J_MAP) {
                annotations_check(c, &here, n);
            }
        } else if (str_is(here.name, "generation")) {
            m->generation = n->type == J_INT ? n->i : 0;
        } else if (is_checked && !c->obj->kind->is_open && index_of(META_KEPT, here.name) < 0) {
            const char *near = nearest_name(here.name, meta_name, NULL,
                                            ARRAY_LEN(META_TEXTS) + ARRAY_LEN(META_KEPT) - 2);
            struct jnode key = {.type = J_STR, .s = here.name};
            model_fail(c, &here, n,
                       near ? "unknown field %s: did you mean %s?" : "unknown field %s",
                       model_found(c, &key), near);
        }
    }
}

void meta_read(struct mctx *c, const struct at *at, struct jnode *doc, struct str default_ns) {
    struct at here = {at, STR("metadata"), 0};
    const struct kind *k = c->obj->kind;
    struct meta *m = &c->obj->meta;
    struct jnode *meta = member(doc, "metadata");
    if (!meta || meta->type != J_MAP) {
        model_fail(c, &here, meta ? meta : doc, "found %s, allowed is a map with a name in it",
                   model_found(c, meta));
        return;
    }
    read_members(c, &here, meta);
    read_name(c, &here, meta);
    if (!k->is_namespaced) {
        if (m->ns.n && c->mode == MODEL_APPLY && !k->is_open) {
            model_fail_in(c, &here, meta, "namespace",
                          "found %s, but a %s belongs to no namespace: remove it",
                          model_found(c, jnode_getc(meta, "namespace")), k->kind);
        }
        m->ns = STR_NULL;
        return;
    }
    if (m->ns.n == 0) {
        m->ns = default_ns.n ? default_ns : STR("default");
        if (c->mode == MODEL_APPLY) {
            struct jnode *ns = jnode_new_str(c->a, m->ns);
            ns->line = meta->line;
            ns->col = meta->col;
            jnode_set(c->a, meta, STR("namespace"), ns);
        }
    } else if (!is_dns_label(m->ns, 63)) {
        model_fail_in(c, &here, meta, "namespace", "found %s, allowed is %s",
                      model_found(c, jnode_getc(meta, "namespace")),
                      check_text(CHECK_LABEL, m->ns, c->a));
    }
}

/* ---- documents ---- */

static const char *kind_name_at(const void *arg, size_t i) {
    (void)arg;
    return model_kinds[i].kind;
}

/* Why kind_by_type found nothing. */
static void fail_kind(struct mctx *c, const struct jnode *doc) {
    const struct jnode *version = member(doc, "apiVersion"), *kind = member(doc, "kind");
    const struct jnode *bad[] = {version, kind};
    static const char *const NAMES[] = {"apiVersion", "kind"};
    static const char *const HINTS[] = {"projectcalico.org/v3, v1 or networking.k8s.io/v1",
                                        "a kind such as NetworkPolicy"};
    bool has_both = true;
    for (size_t i = 0; i < 2; i++) {
        struct at here = {NULL, str_c(NAMES[i]), 0};
        if (!bad[i] || bad[i]->type != J_STR || bad[i]->s.n == 0) {
            model_fail(c, &here, bad[i] ? bad[i] : doc, "found %s, allowed is text: %s",
                       model_found(c, bad[i]), HINTS[i]);
            has_both = false;
        }
    }
    if (!has_both) {
        return;
    }
    struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(1024);
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *k = &model_kinds[i];
        if (str_ieq(kind->s, str_c(k->kind))) {
            buf_printf(&b, "%sapiVersion %s%s%s, kind %s", b.n ? "; " : "", k->group,
                       k->group[0] ? "/" : "", k->version, k->kind);
        }
    }
    struct at here = {NULL, STR("kind"), 0};
    if (b.n) {
        model_fail(c, &here, kind, "no kind %s in apiVersion %s; known is: %s",
                   model_found(c, kind), model_found(c, version), buf_cstr(&b));
        return;
    }
    const char *near = nearest_name(kind->s, kind_name_at, NULL, K_N_KINDS);
    model_fail(c, &here, kind, near ? "unknown kind %s: did you mean %s?" : "unknown kind %s",
               model_found(c, kind), near);
}

static bool is_known_top(const struct kind_def *d, struct str key) {
    static const char *const KEPT[] = {"apiVersion", "kind", "metadata", NULL};
    size_t hint = 0;
    return index_of(KEPT, key) >= 0 || (d->spec && str_is(key, "spec")) || str_is(key, "status") ||
           (d->top && schema_find(d->top, key, &hint) >= 0);
}

static void read_spec(struct mctx *c, const struct kind_def *d, struct jnode *doc) {
    struct at here = {NULL, STR("spec"), 0};
    struct jnode *spec = member(doc, "spec");
    if (!d->spec) {
        return;
    }
    if (!spec && d->is_spec_required) {
        model_fail(c, &here, doc, "is missing: a %s needs one", c->obj->kind->kind);
        return;
    }
    if (!spec) {
        if (c->mode == MODEL_STORE || c->obj->kind->is_open) {
            /* Rules still see it, so that what is derived from absence is there. */
            spec = jnode_new(c->a, J_MAP);
        } else {
            model_fill(c, doc, "spec", "{}");
            spec = jnode_getc(doc, "spec");
        }
    }
    if (spec->type != J_MAP) {
        model_fail(c, &here, spec, "found %s, allowed is a map", model_found(c, spec));
        if (c->obj->spec && d->spec->own_broken_at) {
            *(bool *)((char *)c->obj->spec + d->spec->own_broken_at - 1) = true;
        }
        return;
    }
    schema_read(c, d->spec, &here, spec, c->obj->spec);
}

int object_read(struct jnode *doc, enum model_mode mode, struct str default_ns, struct arena *a,
                struct object *out, struct model_errors *errs) {
    struct mctx c = {.mode = mode, .a = a, .obj = out, .errs = errs};
    *out = (struct object){.doc = doc};
    if (!doc || doc->type != J_MAP) {
        model_fail(&c, NULL, doc, "found %s, allowed is a map: apiVersion, kind, metadata, spec",
                   model_found(&c, doc));
        return ERR_INVALID;
    }
    out->kind = kind_by_type(jnode_str(member(doc, "apiVersion")), jnode_str(member(doc, "kind")));
    if (!out->kind) {
        fail_kind(&c, doc);
        return ERR_INVALID;
    }
    const struct kind_def *d = out->kind->def;
    if (d->size) {
        out->spec = arena_alloc(a, d->size);
    }
    meta_read(&c, NULL, doc, default_ns);
    if (mode == MODEL_APPLY && !out->kind->is_open) {
        jnode_each (n, doc) {
            struct jnode key = {.type = J_STR, .s = n->key};
            struct at here = {NULL, n->key.p ? n->key : STR(""), 0};
            if (!is_known_top(d, here.name)) {
                model_fail(&c, &here, n,
                           "unknown field %s; known here are apiVersion, kind, "
                           "metadata and spec",
                           model_found(&c, &key));
            }
        }
    }
    read_spec(&c, d, doc);
    if (d->top) {
        schema_read(&c, d->top, NULL, doc, out->spec);
    }
    return c.n_failed ? ERR_INVALID : 0;
}

void model_error_print(struct buf *b, const char *file, const struct object *o,
                       const struct model_error *e) {
    if (file) {
        buf_puts(b, file);
        buf_putc(b, ':');
        if (e->line) {
            buf_printf(b, "%u:", e->line);
        }
        buf_putc(b, ' ');
    }
    if (o && o->kind) {
        buf_puts(b, o->kind->kind);
        buf_putc(b, '/');
        buf_str(b, o->meta.name.n ? o->meta.name : STR("(no name)"));
        buf_puts(b, ": ");
    }
    if (e->path.n) {
        buf_str(b, e->path);
        buf_puts(b, ": ");
    }
    buf_str(b, e->message);
}

/* ---- sameness ---- */

static bool is_servers(struct str key) {
    static const char *const SERVERS[] = {
        "resourceVersion", "uid", "creationTimestamp", "generation", "managedFields",
        "selfLink",        NULL,
    };
    return index_of(SERVERS, key) >= 0;
}

static bool is_blank(const struct jnode *n) {
    return !n || n->type == J_NULL || (n->type == J_MAP && !n->child);
}

/* Members of a that skip() leaves are in b, equal. An absent member, null and {} are the same. */
static bool covers(const struct jnode *a, const struct jnode *b, bool (*skip)(struct str key)) {
    jnode_each (n, a) {
        if (skip(n->key)) {
            continue;
        }
        const struct jnode *other = jnode_get(b, n->key);
        if (is_blank(n) ? !is_blank(other) : !other || !jnode_eq(n, other)) {
            return false;
        }
    }
    return true;
}

static bool is_apart(struct str key) {
    return str_is(key, "metadata") || str_is(key, "status");
}

bool object_same(const struct jnode *a, const struct jnode *b) {
    if (!a || !b || a->type != J_MAP || b->type != J_MAP) {
        return a == b || (a && b && jnode_eq(a, b));
    }
    const struct jnode *ma = jnode_getc(a, "metadata"), *mb = jnode_getc(b, "metadata");
    if (ma && mb && (ma->type != J_MAP || mb->type != J_MAP) && !jnode_eq(ma, mb)) {
        return false;
    }
    return covers(a, b, is_apart) && covers(b, a, is_apart) && covers(ma, mb, is_servers) &&
           covers(mb, ma, is_servers);
}
