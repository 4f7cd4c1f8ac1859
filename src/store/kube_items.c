/* What a reflector reads: objects of lists and events of watches become items for the owner. */
#include "store/kube_reflect.h"

#include "base/log.h"

#include <stdlib.h>

static struct str scope_of(const struct kube_view *v) {
    return str_c(v->prefix);
}

static bool is_told(const struct kube_reflect *r, const struct kube_view *v) {
    return v->shape != KUBE_POD_WEP || r->src->shared->node.n > 0 || !r->src->is_slim;
}

void kube_reflect_begin_snapshot(struct kube_reflect *r) {
    r->is_snapshot = true;
    for (size_t i = 0; i < r->n_views && !r->src->is_dead; i++) {
        if (is_told(r, r->views[i])) {
            r->src->ops->on_snapshot(r->src->owner, scope_of(r->views[i]));
        }
    }
}

void kube_reflect_end_snapshot(struct kube_reflect *r, uint64_t revision) {
    struct kube_source *s = r->src;
    r->is_snapshot = false;
    r->told = revision;
    for (size_t i = 0; i < r->n_views && !s->is_dead; i++) {
        if (is_told(r, r->views[i])) {
            s->ops->on_snapshot_end(s->owner, scope_of(r->views[i]), revision);
        }
    }
    if (!s->is_dead && !r->is_listed) {
        r->is_listed = true;
        s->ops->on_state(s->owner, r, "");
    }
}

void kube_reflect_progress(struct kube_reflect *r, uint64_t revision) {
    struct kube_source *s = r->src;
    if (revision <= r->told) {
        return;
    }
    r->told = revision;
    r->n_failed = 0;
    r->target = revision >= r->target ? 0 : r->target;
    for (size_t i = 0; i < r->n_views && !s->is_dead; i++) {
        if (is_told(r, r->views[i])) {
            s->ops->on_progress(s->owner, scope_of(r->views[i]), revision);
        }
    }
}

/* Endpoints are told of our own node's pods alone; a command that watches gets all. */
static bool is_wanted(const struct kube_reflect *r, const struct kube_view *v,
                      const struct jnode *obj) {
    if (v->shape != KUBE_POD_WEP || !r->src->is_slim) {
        return true;
    }
    struct str node = jnode_str(jnode_getc(jnode_getc(obj, "spec"), "nodeName"));
    return r->src->shared->node.n && str_eq(node, r->src->shared->node);
}

/* Whether the object has another name than its item: a policy of an old version. */
static bool is_alias(const struct kube_view *v, struct str key, struct str name) {
    struct str own = key;
    ptrdiff_t slash = -1;
    for (size_t i = 0; i < key.n; i++) {
        slash = key.p[i] == '/' ? (ptrdiff_t)i : slash;
    }
    own = str_sub(key, (size_t)(slash + 1), key.n);
    return v->shape == KUBE_CRD && !v->is_sorted && !str_eq(own, name);
}

static void tell(struct kube_reflect *r, struct jnode *obj, bool is_deleted, uint64_t revision,
                 struct arena *a) {
    struct kube_source *s = r->src;
    struct str name = arena_dup(a, jnode_str(jnode_path(obj, "metadata.name")));
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(KUBE_OBJECT_TEXT_MAX);
    if (s->is_slim) {
        kube_slim(r->rest, obj, a);
    } else {
        kube_strip(obj);
    }
    for (size_t i = 0; i < r->n_views && !s->is_dead; i++) {
        const struct kube_view *v = r->views[i];
        struct kube_item it = {0};
        struct err e = {0};
        if (!is_wanted(r, v, obj)) {
            continue;
        }
        if (kube_read(v, obj, a, &it, &e) < 0) {
            LOG_W("store", "kube_bad_object", "resource=%s error=%s", r->rest->plural,
                  log_quote(str_c(e.msg)));
            continue;
        }
        if (!it.key.n || !str_starts(it.key, scope_of(v))) { /* another view's */
            continue;
        }
        r->has_aliases = r->has_aliases || is_alias(v, it.key, name);
        if (s->is_slim && it.value) { /* what changes with every write is no news */
            struct jnode *meta = jnode_getc(it.value, "metadata");
            (void)jnode_del(meta, STR("resourceVersion"));
            (void)jnode_del(meta, STR("generation"));
        }
        buf_reset(&b);
        if (it.value && !is_deleted) {
            json_write(&b, it.value, 0);
        }
        struct store_item item = {.space = str_c(v->space),
                                  .key = it.key,
                                  .value = b.n ? buf_view(&b) : STR_NULL,
                                  .revision = revision};
        s->ops->on_item(s->owner, &item);
    }
}

static int on_event(struct kube_fetch *f, struct jnode *event, struct arena *a) {
    struct kube_reflect *r = f->r;
    struct str type = jnode_str(jnode_getc(event, "type"));
    struct jnode *obj = jnode_getc(event, "object");
    if (str_is(type, "ERROR")) {
        const struct jnode *code = jnode_getc(obj, "code");
        struct str message = jnode_str(jnode_getc(obj, "message"));
        bool is_gone = code && code->type == J_INT && code->i == 410;
        return err_set(&f->e, is_gone ? ERR_GONE : ERR_RETRY, "API server: watch of %s: %.*s",
                       r->rest->plural, message.n > 300 ? 300 : (int)message.n,
                       message.p ? message.p : "an error");
    }
    struct str kind = jnode_str(jnode_getc(obj, "kind"));
    uint64_t revision = kube_revision(obj);
    bool is_bookmark = str_is(type, "BOOKMARK"), is_deleted = str_is(type, "DELETED");
    bool is_known = is_bookmark || is_deleted || str_is(type, "ADDED") || str_is(type, "MODIFIED");
    if (!is_known || revision == 0 || (kind.n && !str_is(kind, r->rest->kind))) {
        return err_set(&f->e, -EPROTO, "API server: watch of %s: an event \"%.*s\" of no object",
                       r->rest->plural, type.n > 40 ? 40 : (int)type.n, type.p ? type.p : "");
    }
    if (revision <= r->base) { /* a newer snapshot has it */
        return 0;
    }
    if (is_deleted && r->has_aliases && r->src->may_list) {
        /* The other name may still be there: the list knows. */
        return err_set(&f->e, ERR_GONE, "a policy of an old name was deleted");
    }
    if (!is_bookmark) {
        tell(r, obj, is_deleted, revision, a);
    }
    r->pos = revision > r->pos ? revision : r->pos;
    return r->src->is_dead ? -ECANCELED : 0;
}

int kube_reflect_object(void *fetch, struct str text) {
    struct kube_fetch *f = fetch;
    struct arena a = {.first_bytes = 16384};
    struct jnode *doc = NULL;
    struct jlimits lim = json_limits_default;
    lim.max_string = KUBE_OBJECT_TEXT_MAX;
    lim.max_bytes = KUBE_OBJECT_MAX;
    int r = json_parse(text, &lim, &a, &doc, &f->e);
    if (r < 0) {
        r = err_wrap(&f->e, -EPROTO, "API server: %s", f->r->rest->plural);
    } else if (!f->is_list) {
        r = on_event(f, doc, &a);
    } else if (f->r->is_snapshot) {
        f->n_objects++;
        tell(f->r, doc, false, kube_revision(doc), &a);
        r = f->r->src->is_dead ? -ECANCELED : 0;
    }
    arena_fini(&a);
    return r;
}

int kube_reflect_meta(void *fetch, struct str text) {
    struct kube_fetch *f = fetch;
    struct arena a = {0};
    struct jnode *meta = NULL;
    uint64_t revision = 0;
    int r = json_parse(text, &json_limits_default, &a, &meta, &f->e);
    if (r < 0 || str_to_u64(jnode_str(jnode_getc(meta, "resourceVersion")), &revision) < 0) {
        r = err_set(&f->e, -EPROTO, "API server: list of %s: its resourceVersion is no number",
                    f->r->rest->plural);
    } else {
        struct str token = jnode_str(jnode_getc(meta, "continue"));
        f->list_revision = f->list_revision ? f->list_revision : revision;
        free(f->token);
        f->token = token.n ? strndup(token.p, token.n) : NULL;
    }
    arena_fini(&a);
    return r;
}
