/* Get, put and delete of one item. Compare-and-swap is the server's resourceVersion. IPAM's objects
 * are deleted in two steps (marked, then deleted), as Calico does it: the API server couldn't
 * refuse a delete by revision when those objects were designed, and all clients of a cluster must
 * agree. */
#include "store/kube_int.h"

#include <inttypes.h>

#define JSON "application/json"
#define MERGE "application/merge-patch+json"
#define STRATEGIC "application/strategic-merge-patch+json"
enum { TRIES = 6 };

static bool is_ipam(const struct kube_at *at) {
    return at->view->shape == KUBE_IPAM_BLOCK || at->view->shape == KUBE_IPAM_AFFINITY ||
           at->view->shape == KUBE_IPAM_HANDLE;
}

static struct kube_subject subject_of(const struct kube_at *at, const char *verb, const char *sub) {
    return (struct kube_subject){verb, at->view->rest, sub, at->ns, at->name};
}

/* The object of a key as the server has it. Policies written by old versions are found by their old
 * name, which at->name then becomes. */
static int fetch(struct kube_store *s, struct kube_at *at, struct arena *a, struct jnode **out,
                 struct err *e) {
    struct kube_subject sub = subject_of(at, "get", NULL);
    bool is_unknown = false;
    size_t i = kube_view_index(at->view);
    int r = kube_object(s, &sub, "GET", kube_at_path(s, at, true, NULL, a), NULL, NULL, a, out,
                        &is_unknown, e);
    if (r == ERR_NOT_FOUND && is_unknown && at->view->rest->old_version && !s->use_old[i]) {
        s->use_old[i] = true;
        r = kube_object(s, &sub, "GET", kube_at_path(s, at, true, NULL, a), NULL, NULL, a, out,
                        NULL, e);
    }
    if (r == ERR_NOT_FOUND && !is_unknown && at->view->shape == KUBE_CRD && !at->view->is_sorted) {
        struct kube_at old = *at;
        struct kube_item it;
        old.name = arena_printf(a, "default.%.*s", STR_FMT(at->name));
        struct jnode *obj = NULL;
        if (kube_object(s, &sub, "GET", kube_at_path(s, &old, true, NULL, a), NULL, NULL, a, &obj,
                        NULL, NULL) == 0 &&
            kube_read(at->view, jnode_copy(a, obj), a, &it, NULL) == 0 &&
            str_ends(it.key, arena_printf(a, "/%.*s", STR_FMT(at->name)))) {
            at->name = old.name;
            *out = obj;
            return 0;
        }
    }
    return r;
}

static struct str text_of(const struct jnode *n, struct arena *a, bool *is_whole) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(KUBE_OBJECT_TEXT_MAX);
    json_write(&b, n, 0);
    *is_whole = !b.overflow;
    return arena_dup(a, buf_view(&b));
}

static bool is_default_allow(struct store_key k) {
    return str_is(k.space, STORE_SPACE_RESOURCES) &&
           str_is(k.key, "Profile.projectcalico.org//" KUBE_DEFAULT_ALLOW);
}

int kube_get(struct store *st, struct store_key k, struct arena *a, struct store_item *out,
             struct err *e) {
    struct kube_store *s = (struct kube_store *)st;
    struct arena tmp = {0};
    struct kube_at at;
    struct jnode *obj = NULL;
    struct kube_item it = {0};
    bool is_whole = true;
    uint64_t revision = 0;
    int r = 0;
    if (is_default_allow(k)) {
        it.value = kube_default_allow(&tmp);
    } else {
        r = kube_locate(k, &tmp, &at, e);
        r = r < 0 ? r : fetch(s, &at, &tmp, &obj, e);
        if (r < 0) {
            goto done;
        }
        revision = kube_revision(obj);
        kube_saw(s, revision);
        r = kube_read(at.view, jnode_copy(&tmp, obj), &tmp, &it, e);
        if (r < 0) {
            goto done;
        }
        if (it.is_deleting) {
            kube_finish_delete(s, &at, obj);
        }
        if (!it.value || !str_eq(it.key, k.key)) {
            r = err_set(e, ERR_NOT_FOUND, "\"%.*s\" is not there", STR_FMT(k.key));
            goto done;
        }
        kube_strip(it.value);
    }
    struct str text = text_of(it.value, a, &is_whole);
    if (!is_whole) {
        r = err_set(e, ERR_TOO_BIG, "\"%.*s\" is too large", STR_FMT(k.key));
        goto done;
    }
    *out = (struct store_item){.space = arena_dup(a, k.space),
                               .key = arena_dup(a, k.key),
                               .value = text,
                               .revision = revision};
done:
    arena_fini(&tmp);
    return r;
}

/* ---- writing ---- */

struct put {
    struct kube_store *s;
    struct kube_at at;
    struct store_key k;
    const struct jnode *value;
    uint64_t expect;
    struct arena *a;
    struct jnode *written; /* the server's answer */
    struct err *e;
};

static void set_revision(struct arena *a, struct jnode *obj, uint64_t revision) {
    struct jnode *meta = jnode_getc(obj, "metadata");
    jnode_set(a, meta, STR("resourceVersion"),
              jnode_new_str(a, arena_printf(a, "%" PRIu64, revision)));
}

/* The object to send, in the version that is served. */
static int body_of(struct put *p, struct jnode **out) {
    int r = kube_write(&p->at, p->k, p->value, p->a, out, p->e);
    if (r == 0 && p->s->use_old[kube_view_index(p->at.view)]) {
        kube_to_old(p->at.view->rest, *out, p->a);
    }
    return r;
}

static int create(struct put *p) {
    struct kube_subject sub = subject_of(&p->at, "create", NULL);
    struct jnode *obj = NULL;
    bool is_unknown = false;
    for (unsigned i = 0;; i++) {
        int r = body_of(p, &obj);
        r = r < 0 ? r
                  : kube_object(p->s, &sub, "POST", kube_at_path(p->s, &p->at, false, NULL, p->a),
                                JSON, obj, p->a, &p->written, &is_unknown, p->e);
        size_t v = kube_view_index(p->at.view);
        if (r == ERR_NOT_FOUND && is_unknown && p->at.view->rest->old_version &&
            !p->s->use_old[v]) {
            p->s->use_old[v] = true;
            continue;
        }
        if (r == ERR_NOT_FOUND) { /* of the namespace, or of the kind: nothing to create in */
            p->e->code = ERR_INVALID;
            return ERR_INVALID;
        }
        if (r != ERR_EXISTS || !is_ipam(&p->at) || i == TRIES) {
            return r;
        }
        struct jnode *old = NULL;
        struct kube_item it = {0};
        r = fetch(p->s, &p->at, p->a, &old, NULL);
        if (r == 0 && (kube_read(p->at.view, jnode_copy(p->a, old), p->a, &it, NULL) < 0 ||
                       !it.is_deleting)) {
            return err_set(p->e, ERR_EXISTS, "\"%.*s\" is there already", STR_FMT(p->k.key));
        }
        if (r == 0) { /* somebody began to delete it: done for him */
            kube_finish_delete(p->s, &p->at, old);
        }
    }
}

/* Labels and annotations that the object has and the new one lacks, as nulls of a merge patch. */
static void drop_missing(struct arena *a, struct jnode *patch_meta, const struct jnode *old_meta,
                         const char *name) {
    struct jnode *want = jnode_getc(patch_meta, name);
    jnode_each (n, jnode_getc(old_meta, name)) {
        if (!want) {
            want = jnode_new(a, J_MAP);
            jnode_set(a, patch_meta, str_c(name), want);
        }
        if (!jnode_get(want, n->key)) {
            jnode_set(a, want, n->key, jnode_new(a, J_NULL));
        }
    }
}

/* Kinds whose objects the server and its admission fill in: what a document doesn't say stays. */
static bool is_patched(const struct kube_at *at) {
    return at->view->kind == K_POD || at->view->kind == K_NODE_K8S ||
           at->view->kind == K_SERVICE_ACCOUNT;
}

/* A strategic patch that repeats a pod's ports is refused when two have the same number: the server
 * takes the number alone as their key. So what is as it was is left out. */
static void drop_unchanged(struct jnode *spec, const struct jnode *old_spec) {
    for (struct jnode *n = spec ? spec->child : NULL, *next; n; n = next) {
        next = n->next;
        const struct jnode *old = jnode_get(old_spec, n->key);
        if (old && jnode_eq(n, old)) {
            (void)jnode_del(spec, n->key);
        }
    }
}

static int patch_core(struct put *p, uint64_t revision, const struct jnode *old) {
    struct kube_subject sub = subject_of(&p->at, "patch", NULL);
    struct jnode *obj = NULL;
    struct jnode *now = NULL;
    int r = body_of(p, &obj);
    if (r == 0 && !old) {
        r = fetch(p->s, &p->at, p->a, &now, p->e);
        old = now;
    }
    if (r < 0) {
        return r;
    }
    (void)jnode_del(obj, STR("status"));
    drop_unchanged(jnode_getc(obj, "spec"), jnode_getc(old, "spec"));
    if (old) {
        const struct jnode *om = jnode_getc(old, "metadata");
        drop_missing(p->a, jnode_getc(obj, "metadata"), om, "labels");
        drop_missing(p->a, jnode_getc(obj, "metadata"), om, "annotations");
    }
    set_revision(p->a, obj, revision);
    return kube_object(p->s, &sub, "PATCH", kube_at_path(p->s, &p->at, true, NULL, p->a), STRATEGIC,
                       obj, p->a, &p->written, NULL, p->e);
}

static int update(struct put *p, uint64_t revision, const struct jnode *old) {
    struct kube_subject sub = subject_of(&p->at, "update", NULL);
    struct jnode *obj = NULL;
    if (is_patched(&p->at)) {
        return patch_core(p, revision, old);
    }
    int r = body_of(p, &obj);
    if (r < 0) {
        return r;
    }
    set_revision(p->a, obj, revision);
    return kube_object(p->s, &sub, "PUT", kube_at_path(p->s, &p->at, true, NULL, p->a), JSON, obj,
                       p->a, &p->written, NULL, p->e);
}

/* Objects of a kind with a status subresource keep their old status in the write above. */
static int put_status(struct put *p) {
    const struct jnode *want = jnode_getc(p->value, "status");
    struct kube_subject sub = subject_of(&p->at, "update", "status");
    bool has_status = (p->at.view->shape == KUBE_PLAIN || p->at.view->shape == KUBE_CRD) && want &&
                      want->type == J_MAP && want->n;
    for (unsigned i = 0; has_status && i < TRIES; i++) {
        struct jnode *is = jnode_getc(p->written, "status");
        if (is && jnode_eq(is, want)) {
            return 0;
        }
        struct jnode *obj = jnode_copy(p->a, p->written), *got = NULL;
        jnode_set(p->a, obj, STR("status"), jnode_copy(p->a, want));
        int r = kube_object(p->s, &sub, "PUT", kube_at_path(p->s, &p->at, true, "status", p->a),
                            JSON, obj, p->a, &got, NULL, p->e);
        if (r == 0) {
            p->written = got;
            return 0;
        }
        if (r == ERR_NOT_FOUND) { /* no such subresource: the status went with the rest */
            return 0;
        }
        if (r != ERR_CONFLICT || fetch(p->s, &p->at, p->a, &p->written, p->e) < 0) {
            return r;
        }
    }
    return 0;
}

static int put_object(struct put *p) {
    struct jnode *old = NULL;
    int r = ERR_CONFLICT;
    if (p->expect == REV_NONE) {
        r = create(p);
        return r < 0 ? r : put_status(p);
    }
    for (unsigned i = 0; i < TRIES && r == ERR_CONFLICT; i++) {
        bool needs_old = p->expect == REV_ANY || is_patched(&p->at) || !p->at.view->is_sorted;
        r = needs_old ? fetch(p->s, &p->at, p->a, &old, p->e) : 0;
        if (r == ERR_NOT_FOUND && p->expect == REV_ANY) {
            r = create(p);
            r = r == ERR_EXISTS ? ERR_CONFLICT : r;
            continue;
        }
        if (r < 0) {
            return r;
        }
        r = update(p, p->expect == REV_ANY ? kube_revision(old) : p->expect, old);
        if (p->expect != REV_ANY) {
            break;
        }
        r = r == ERR_NOT_FOUND ? ERR_CONFLICT : r; /* gone between the two */
    }
    return r < 0 ? r : put_status(p);
}

/* A patch of a core object's metadata, at its status: what node agents may do. */
static int patch_status(struct put *p, struct jnode *patch) {
    struct kube_subject sub = subject_of(&p->at, "patch", "status");
    if (p->expect != REV_ANY && p->expect != REV_NONE) {
        set_revision(p->a, patch, p->expect);
    }
    struct err first = {0};
    int r = kube_object(p->s, &sub, "PATCH", kube_at_path(p->s, &p->at, true, "status", p->a),
                        MERGE, patch, p->a, &p->written, NULL, &first);
    if (r == ERR_DENIED || r == ERR_INVALID) { /* no right, or no such subresource */
        sub.sub = NULL;
        int r2 = kube_object(p->s, &sub, "PATCH", kube_at_path(p->s, &p->at, true, NULL, p->a),
                             MERGE, patch, p->a, &p->written, NULL, NULL);
        r = r2 == 0 ? 0 : r;
    }
    return r < 0 ? err_set(p->e, r, "%s", first.msg) : 0;
}

static int put_node(struct put *p) {
    struct jnode *patch = NULL;
    int r = kube_write_node(p->value, p->a, &patch, p->e);
    if (r == 0 && p->expect == REV_NONE) {
        struct jnode *old = NULL;
        r = fetch(p->s, &p->at, p->a, &old, NULL);
        return r == 0
                   ? err_set(p->e, ERR_EXISTS, "node \"%.*s\" is there already",
                             STR_FMT(p->at.name))
                   : err_set(p->e, ERR_INVALID,
                             "node \"%.*s\": with the Kubernetes API as datastore, nodes are made "
                             "by their kubelets",
                             STR_FMT(p->at.name));
    }
    return r < 0 ? r : patch_status(p, patch);
}

static int refuse(const struct put *p) {
    if (is_default_allow(p->k)) {
        return err_set(p->e, ERR_INVALID, "profile " KUBE_DEFAULT_ALLOW " is built in");
    }
    return err_set(
        p->e, ERR_INVALID,
        "%.*s: with the Kubernetes API as datastore, profiles follow from Namespaces and "
        "ServiceAccounts: label those",
        STR_FMT(p->k.key));
}

static bool is_profile(const struct kube_at *at) {
    return at->view->shape == KUBE_NS_PROFILE || at->view->shape == KUBE_SA_PROFILE;
}

int kube_put(struct store *st, struct store_key k, struct str value, uint64_t expect,
             uint64_t *revision_out, struct err *e) {
    struct kube_store *s = (struct kube_store *)st;
    struct arena a = {0};
    struct err own = {0}; /* texts are passed on from one error to the next */
    struct jnode *doc = NULL;
    struct put p = {.s = s, .k = k, .expect = expect, .a = &a, .e = e ? e : &own};
    int r;
    if (str_starts(k.key, STR("Profile.projectcalico.org//"))) {
        return refuse(&p);
    }
    r = kube_locate(k, &a, &p.at, e);
    r = r < 0 ? r : json_parse(value, &json_limits_default, &a, &doc, e);
    if (r < 0) {
        goto done;
    }
    p.value = doc;
    if (p.at.view->shape == KUBE_NODE) {
        r = put_node(&p);
    } else if (p.at.view->shape == KUBE_POD_WEP) {
        r = patch_status(&p, kube_write_wep(doc, &a));
    } else {
        r = put_object(&p);
    }
    if (r == 0) {
        uint64_t revision = kube_revision(p.written);
        kube_saw(s, revision);
        if (revision_out) {
            *revision_out = revision;
        }
    }
done:
    arena_fini(&a);
    return r;
}

/* ---- deleting ---- */

static int delete_object(struct kube_store *s, const struct kube_at *at, struct str uid,
                         uint64_t revision, struct arena *a, struct err *e) {
    struct kube_subject sub = subject_of(at, "delete", NULL);
    struct jnode *o = jnode_new(a, J_MAP), *pre = jnode_new(a, J_MAP), *got = NULL;
    jnode_set(a, o, STR("kind"), jnode_new_str(a, STR("DeleteOptions")));
    jnode_set(a, o, STR("apiVersion"), jnode_new_str(a, STR("v1")));
    if (uid.n) {
        jnode_set(a, pre, STR("uid"), jnode_new_str(a, uid));
    }
    if (revision) {
        jnode_set(a, pre, STR("resourceVersion"),
                  jnode_new_str(a, arena_printf(a, "%" PRIu64, revision)));
    }
    if (pre->n) {
        jnode_set(a, o, STR("preconditions"), pre);
    }
    return kube_object(s, &sub, "DELETE", kube_at_path(s, at, true, NULL, a), JSON, o, a, &got,
                       NULL, e);
}

static struct str uid_of(const struct jnode *obj) {
    return jnode_str(jnode_getc(jnode_getc(obj, "metadata"), "uid"));
}

void kube_finish_delete(struct kube_store *s, const struct kube_at *at, const struct jnode *obj) {
    struct arena a = {0};
    /* Whoever meets the object next tries again. */
    (void)!delete_object(s, at, uid_of(obj), kube_revision(obj), &a, NULL);
    arena_fini(&a);
}

static int delete_ipam(struct kube_store *s, struct kube_at *at, uint64_t expect, struct arena *a,
                       struct err *e) {
    struct kube_subject sub = subject_of(at, "update", NULL);
    int r = ERR_CONFLICT;
    for (unsigned i = 0; i < TRIES && r == ERR_CONFLICT; i++) {
        struct jnode *obj = NULL, *marked = NULL, *spec = NULL;
        struct kube_item it = {0};
        r = fetch(s, at, a, &obj, e);
        if (r < 0) {
            return r;
        }
        if (kube_read(at->view, jnode_copy(a, obj), a, &it, NULL) == 0 && it.is_deleting) {
            kube_finish_delete(s, at, obj);
            return err_set(e, ERR_NOT_FOUND, "%s \"%.*s\" is deleted already", at->view->rest->kind,
                           STR_FMT(at->name));
        }
        if (expect != REV_ANY && kube_revision(obj) != expect) {
            return err_set(e, ERR_CONFLICT, "%s \"%.*s\" was changed meanwhile",
                           at->view->rest->kind, STR_FMT(at->name));
        }
        spec = jnode_getc(obj, "spec");
        if (spec && spec->type == J_MAP) {
            jnode_set(a, spec, STR("deleted"),
                      at->view->shape == KUBE_IPAM_AFFINITY ? jnode_new_str(a, STR("true"))
                                                            : jnode_new_bool(a, true));
            r = kube_object(s, &sub, "PUT", kube_at_path(s, at, true, NULL, a), JSON, obj, a,
                            &marked, NULL, e);
        }
        if (r == 0) {
            kube_finish_delete(s, at, marked ? marked : obj);
            return 0;
        }
        if (expect != REV_ANY) {
            return r;
        }
    }
    return r;
}

int kube_del(struct store *st, struct store_key k, uint64_t expect, struct err *e) {
    struct kube_store *s = (struct kube_store *)st;
    struct arena a = {0};
    struct kube_at at;
    struct jnode *obj = NULL;
    int r = kube_locate(k, &a, &at, e);
    if (r < 0 && !is_default_allow(k)) {
        goto done;
    }
    struct put p = {.s = s, .k = k, .expect = expect, .a = &a, .e = e};
    if (r < 0 || is_profile(&at)) {
        r = refuse(&p);
        goto done;
    }
    p.at = at;
    if (at.view->shape == KUBE_NODE) {
        r = err_set(e, ERR_INVALID,
                    "node \"%.*s\": with the Kubernetes API as datastore, a node is deleted as a "
                    "Kubernetes one: kubectl delete node",
                    STR_FMT(at.name));
    } else if (at.view->shape == KUBE_POD_WEP) {
        struct err own = {0};
        p.e = e ? e : &own;
        r = patch_status(&p, kube_write_wep(NULL, &a));
    } else if (is_ipam(&at)) {
        r = delete_ipam(s, &at, expect, &a, e);
    } else {
        if (!at.view->is_sorted) { /* maybe under its old name */
            r = fetch(s, &at, &a, &obj, e);
        }
        r = r < 0 ? r : delete_object(s, &at, STR_NULL, expect == REV_ANY ? 0 : expect, &a, e);
    }
done:
    arena_fini(&a);
    return r;
}
