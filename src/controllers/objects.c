#include "controllers/objects.h"

#include "base/clock.h"
#include "base/hash.h"

struct store_key stored_key(enum kind_id kind, struct str ns, struct str name, struct arena *a) {
    return (struct store_key){STR(STORE_SPACE_RESOURCES),
                              kind_store_key(&model_kinds[kind], ns, name, a)};
}

int stored_get(struct store *s, enum kind_id kind, struct str ns, struct str name, struct arena *a,
               struct stored *out, struct err *e) {
    struct store_item it;
    *out = (struct stored){NULL, REV_NONE};
    int r = store_get(s, stored_key(kind, ns, name, a), a, &it, e);
    if (r == ERR_NOT_FOUND) {
        return 0;
    }
    struct jnode *doc = NULL;
    r = r == 0 ? json_parse(it.value, &json_limits_default, a, &doc, e) : r;
    if (r == 0 && doc->type != J_MAP) {
        r = err_set(e, ERR_CORRUPT, "found no object");
    }
    if (r < 0) {
        return err_wrap(e, r, "%s %.*s/%.*s", model_kinds[kind].kind, STR_FMT(ns), STR_FMT(name));
    }
    *out = (struct stored){doc, it.revision};
    return 0;
}

int stored_put(struct store *s, enum kind_id kind, struct str ns, struct str name,
               const struct jnode *doc, uint64_t expect, struct err *e) {
    struct arena a = {0};
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(STORE_VALUE_MAX);
    json_write(&b, doc, 0);
    int r = b.overflow
                ? err_set(e, ERR_TOO_BIG, "more than %u bytes", STORE_VALUE_MAX)
                : store_put(s, stored_key(kind, ns, name, &a), buf_view(&b), expect, NULL, e);
    arena_fini(&a);
    return r < 0
               ? err_wrap(e, r, "%s %.*s/%.*s", model_kinds[kind].kind, STR_FMT(ns), STR_FMT(name))
               : 0;
}

int stored_delete(struct store *s, enum kind_id kind, struct str ns, struct str name,
                  uint64_t expect, struct err *e) {
    struct arena a = {0};
    int r = store_delete(s, stored_key(kind, ns, name, &a), expect, e);
    arena_fini(&a);
    return r == ERR_NOT_FOUND ? 0
           : r < 0
               ? err_wrap(e, r, "%s %.*s/%.*s", model_kinds[kind].kind, STR_FMT(ns), STR_FMT(name))
               : 0;
}

struct jnode *stored_new(enum kind_id kind, struct str ns, struct str name, struct arena *a) {
    const struct kind *k = &model_kinds[kind];
    struct jnode *doc = jnode_new(a, J_MAP), *meta = jnode_new(a, J_MAP);
    char uid[UUID_TEXT], stamp[32];
    uuid_v4(uid);
    jnode_set(a, doc, STR("kind"), jnode_new_str(a, str_c(k->kind)));
    jnode_set(a, doc, STR("apiVersion"),
              jnode_new_str(a, k->group[0] ? arena_printf(a, "%s/%s", k->group, k->version)
                                           : str_c(k->version)));
    jnode_set(a, meta, STR("name"), jnode_new_str(a, arena_dup(a, name)));
    if (ns.n) {
        jnode_set(a, meta, STR("namespace"), jnode_new_str(a, arena_dup(a, ns)));
    }
    jnode_set(a, meta, STR("uid"), jnode_new_str(a, arena_dup(a, str_c(uid))));
    jnode_set(a, meta, STR("creationTimestamp"),
              jnode_new_str(a, arena_dup(a, str_c(clock_rfc3339(clock_wall_ns(), stamp)))));
    jnode_set(a, doc, STR("metadata"), meta);
    return doc;
}
