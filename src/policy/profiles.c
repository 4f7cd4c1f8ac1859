/* Profiles: labels that endpoints inherit, and the rules that come after the last tier. A Namespace
 * is the profile kns.NAME, a ServiceAccount ksa.NAMESPACE.NAME. */
#include "policy/calc_int.h"

#include <stdlib.h>

static const struct rule allow_all = {.action = RULE_ALLOW};

static void allow_both(struct prof_def *d) {
    for (int i = 0; i < 2; i++) {
        d->written[i] = rules_pack(&allow_all, 1, true);
    }
}

struct cprof *profile_get(struct calc *c, struct str name) {
    struct cprof **found = map_prof_get(&c->profiles, name);
    if (found) {
        return *found;
    }
    struct cprof *p = calloc(1, sizeof(*p));
    mg_assert(p != NULL);
    p->name = strndup(name.p, name.n);
    mg_assert(p->name != NULL);
    for (int d = 0; d < 2; d++) {
        p->dirs[d] =
            (struct ruleset){.id = ++c->next_id, .dir = (enum calc_dir)d, .is_stale = true};
    }
    if (str_is(name, "projectcalico-default-allow")) { /* there without anybody writing it */
        struct prof_def *d = &p->defs[PROF_BUILTIN];
        d->exists = true;
        allow_both(d);
    }
    *map_prof_put(&c->profiles, str_c(p->name), NULL) = p;
    return p;
}

static void def_fini(struct calc *c, struct prof_def *d) {
    for (size_t i = 0; i < d->n_pairs; i++) {
        ltab_unref(c->labels, d->pairs[i]);
    }
    free(d->pairs);
    free(d->written[0]);
    free(d->written[1]);
}

static void dirty(struct calc *c, struct cprof *p) {
    if (!p->is_dirty) {
        p->is_dirty = true;
        vec_push(&c->dirty_profiles, p);
    }
}

const struct prof_def *profile_def(const struct cprof *p) {
    for (int i = N_PROF_SOURCES - 1; i >= 0; i--) {
        if (p->defs[i].exists) {
            return &p->defs[i];
        }
    }
    return NULL;
}

void profile_join(struct calc *c, struct cprof *p, struct traits *t, bool join) {
    if (join) {
        vec_push(&p->traits, t);
        return;
    }
    for (size_t i = 0; i < p->traits.n; i++) {
        if (p->traits.p[i] == t) {
            vec_swap_remove(&p->traits, i);
            break;
        }
    }
    dirty(c, p); /* may be unused by now */
}

void profile_local(struct calc *c, struct cprof *p, bool add) {
    p->n_local += add ? 1 : (unsigned)-1;
    dirty(c, p);
}

static bool same_labels(const struct prof_def *a, const struct prof_def *b) {
    return a->n_pairs == b->n_pairs &&
           (a->n_pairs == 0 || memcmp(a->pairs, b->pairs, a->n_pairs * sizeof(*a->pairs)) == 0);
}

static int pair_cmp(const void *a, const void *b) {
    return str_cmp(((const struct str_pair *)a)->key, ((const struct str_pair *)b)->key);
}

/* Sets a label whatever the object says of it; the array has room. */
static void set_label(struct str_map *m, struct str key, struct str value) {
    for (size_t i = 0; i < m->n; i++) {
        if (str_eq(m->p[i].key, key)) {
            m->p[i].value = value;
            return;
        }
    }
    m->p[m->n++] = (struct str_pair){key, value};
}

/* "pcns.KEY" = value for each label, and "pcns.projectcalico.org/name" = the object's name. */
static struct str_map inherited(bool is_namespace, const struct str_map *labels, struct str name,
                                struct arena *a) {
    const char *prefix = is_namespace ? "pcns." : "pcsa.";
    struct str_map m = {.p = arena_array(a, struct str_pair, labels->n + 2)};
    for (size_t i = 0; i < labels->n; i++) {
        m.p[m.n++] = (struct str_pair){arena_printf(a, "%s%.*s", prefix, STR_FMT(labels->p[i].key)),
                                       labels->p[i].value};
    }
    set_label(&m, arena_printf(a, "%sprojectcalico.org/name", prefix), name);
    if (is_namespace) { /* what Kubernetes' API server sets on every Namespace */
        set_label(&m, arena_printf(a, "%skubernetes.io/metadata.name", prefix), name);
    }
    qsort(m.p, m.n, sizeof(*m.p), pair_cmp);
    return m;
}

static void set_pairs(struct calc *c, struct prof_def *d, const struct str_map *labels) {
    d->pairs = malloc((labels->n + 1) * sizeof(*d->pairs));
    mg_assert(d->pairs != NULL);
    for (size_t i = 0; i < labels->n; i++) {
        d->pairs[d->n_pairs++] = ltab_ref(c->labels, labels->p[i].key, labels->p[i].value);
    }
}

static void define(struct calc *c, struct prof_def *d, const struct kind *k, struct str name,
                   const struct object *o) {
    d->exists = true;
    if (k->id == K_NAMESPACE || k->id == K_SERVICE_ACCOUNT) {
        struct arena a = {.first_bytes = 1024};
        struct str_map m = inherited(k->id == K_NAMESPACE, &o->meta.labels, name, &a);
        set_pairs(c, d, &m);
        arena_fini(&a);
        if (k->id == K_NAMESPACE) {
            allow_both(d);
        }
        return;
    }
    const struct profile_spec *s = o->spec;
    if (!s) {
        return;
    }
    set_pairs(c, d, &s->labels_to_apply);
    d->written[CALC_INGRESS] = rules_pack(s->ingress.p, s->ingress.n, true);
    d->written[CALC_EGRESS] = rules_pack(s->egress.p, s->egress.n, true);
}

/* An endpoint's list names only profiles that exist. */
static void endpoints_dirty(struct calc *c, const struct cprof *p) {
    for (size_t i = 0; i < p->traits.n; i++) {
        for (const struct item *it = p->traits.p[i]->items; it; it = it->next) {
            if (it->local) {
                endpoint_dirty(c, it->local);
            }
        }
    }
}

void profile_object(struct calc *c, const struct kind *k, struct str ns, struct str name,
                    const struct object *o) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    if (k->id == K_NAMESPACE) {
        buf_printf(&b, "kns.%.*s", STR_FMT(name));
    } else if (k->id == K_SERVICE_ACCOUNT) {
        buf_printf(&b, "ksa.%.*s.%.*s", STR_FMT(ns), STR_FMT(name));
    } else {
        buf_str(&b, name);
    }
    struct cprof *p = profile_get(c, buf_view(&b));
    struct prof_def *d = &p->defs[k->id == K_PROFILE ? PROF_RESOURCE : PROF_K8S];
    struct prof_def fresh = {.exists = false};
    if (o) {
        define(c, &fresh, k, name, o);
    }
    const struct prof_def *before = profile_def(p);
    bool keeps_labels = before == d && o && same_labels(before, &fresh);
    struct prof_def old = *d;
    bool existed = before != NULL;
    *d = fresh;
    const struct prof_def *after = profile_def(p);
    if (!existed && after && after->n_pairs == 0) {
        keeps_labels = true;
    }
    for (int i = 0; i < 2; i++) {
        p->dirs[i].is_stale = true;
    }
    dirty(c, p);
    for (size_t i = 0; !keeps_labels && i < p->traits.n; i++) {
        traits_relabel(c, p->traits.p[i]);
    }
    def_fini(c, &old);
    if (existed != (after != NULL)) {
        endpoints_dirty(c, p);
    }
}

void profiles_compile(struct calc *c) {
    for (size_t i = 0; i < c->dirty_profiles.n; i++) {
        struct cprof *p = c->dirty_profiles.p[i];
        const struct prof_def *def = profile_def(p);
        const struct calc_policy head = {
            .kind = STR("Profile"), .tier = STR(""), .ns = STR(""), .name = str_c(p->name)};
        struct err problem = {.code = 0};
        for (int d = 0; d < 2; d++) {
            struct ruleset *s = &p->dirs[d];
            if (def && p->n_local > 0) {
                if (s->is_stale) {
                    s->written = def->written[d];
                    ruleset_compile(c, s, &head, &problem);
                }
            } else {
                if (s->is_out) {
                    vec_push(&c->gone_rulesets, s->id);
                }
                ruleset_release(c, s);
                s->is_out = false;
                s->is_stale = true;
            }
        }
    }
}

static void free_profile(struct calc *c, struct cprof *p) {
    ruleset_release(c, &p->dirs[0]);
    ruleset_release(c, &p->dirs[1]);
    for (int i = 0; i < N_PROF_SOURCES; i++) {
        def_fini(c, &p->defs[i]);
    }
    vec_fini(&p->traits);
    free(p->name);
    free(p);
}

void profiles_emit(struct calc *c) {
    for (size_t i = 0; i < c->dirty_profiles.n; i++) {
        struct cprof *p = c->dirty_profiles.p[i];
        p->is_dirty = false;
        const struct prof_def *def = profile_def(p);
        if (!def && p->traits.n == 0) {
            map_prof_del(&c->profiles, str_c(p->name));
            free_profile(c, p);
            continue;
        }
        for (int d = 0; d < 2; d++) {
            struct ruleset *s = &p->dirs[d];
            if (def && p->n_local > 0 && s->is_stale) {
                s->is_stale = false;
                s->is_out = true;
                c->ops.policy(c->arg, &s->compiled->out);
            }
        }
    }
    vec_clear(&c->dirty_profiles);
}

void profiles_fini(struct calc *c) {
    struct cprof **p;
    for (size_t i = 0; map_prof_next(&c->profiles, &i, NULL, &p);) {
        free_profile(c, *p);
    }
    map_prof_fini(&c->profiles);
    vec_fini(&c->dirty_profiles);
}
