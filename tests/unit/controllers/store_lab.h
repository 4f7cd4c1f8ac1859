/* What the controllers' tests share: stores in a folder of their own, objects as JSON with ' for ".
 */
#pragma once

#include "base/buf.h"
#include "base/jtree.h"
#include "model/model.h"
#include "store/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct lab {
    char dir[64];
    struct store *source, *target;
};

MG_UNUSED static struct store *lab_open(const char *dir, const char *name) {
    char url[160];
    struct err e = {.code = 0};
    struct store *s = NULL;
    snprintf(url, sizeof(url), "sqlite:%s/%s.db", dir, name);
    if (store_open(url, &s, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return s;
}

MG_UNUSED static int lab_setup(void **state) {
    struct lab *l = calloc(1, sizeof(*l));
    snprintf(l->dir, sizeof(l->dir), "/tmp/margay-controllers-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    l->source = lab_open(l->dir, "source");
    l->target = lab_open(l->dir, "target");
    *state = l;
    return 0;
}

MG_UNUSED static int lab_teardown(void **state) {
    struct lab *l = *state;
    char cmd[128];
    store_close(l->source);
    store_close(l->target);
    snprintf(cmd, sizeof(cmd), "rm -rf %s", l->dir);
    free(l);
    return system(cmd);
}

/* ' stands for ". */
MG_UNUSED static struct jnode *lab_json(struct arena *a, const char *text) {
    struct str s = arena_dup(a, str_c(text));
    struct jnode *n = NULL;
    struct err e;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\'') {
            ((char *)(uintptr_t)s.p)[i] = '"';
        }
    }
    if (json_parse(s, &json_limits_default, a, &n, &e) < 0) {
        fail_msg("%s: %.*s", e.msg, STR_FMT(s));
    }
    return n;
}

MG_UNUSED static struct store_key lab_key(struct arena *a, enum kind_id kind, const char *ns,
                                          const char *name) {
    return (struct store_key){STR(STORE_SPACE_RESOURCES),
                              kind_store_key(&model_kinds[kind], str_c(ns), str_c(name), a)};
}

/* Puts an object of which text is the rest after metadata's name and namespace. */
MG_UNUSED static void lab_put(struct store *s, enum kind_id kind, const char *ns, const char *name,
                              const char *text) {
    struct arena a = {0};
    struct err e = {.code = 0};
    const struct kind *k = &model_kinds[kind];
    struct jnode *doc = lab_json(&a, text), *meta = jnode_getc(doc, "metadata");
    if (!meta) {
        meta = jnode_new(&a, J_MAP);
        jnode_set(&a, doc, STR("metadata"), meta);
    }
    jnode_set(&a, doc, STR("kind"), jnode_new_str(&a, str_c(k->kind)));
    jnode_set(&a, doc, STR("apiVersion"),
              jnode_new_str(&a, k->group[0] ? arena_printf(&a, "%s/%s", k->group, k->version)
                                            : str_c(k->version)));
    jnode_set(&a, meta, STR("name"), jnode_new_str(&a, str_c(name)));
    if (ns[0]) {
        jnode_set(&a, meta, STR("namespace"), jnode_new_str(&a, str_c(ns)));
    }
    struct buf b = BUF_INIT(1 << 20);
    json_write(&b, doc, 0);
    if (store_put(s, lab_key(&a, kind, ns, name), buf_view(&b), REV_ANY, NULL, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    buf_fini(&b);
    arena_fini(&a);
}

MG_UNUSED static void lab_del(struct store *s, enum kind_id kind, const char *ns,
                              const char *name) {
    struct arena a = {0};
    struct err e = {.code = 0};
    int r = store_delete(s, lab_key(&a, kind, ns, name), REV_ANY, &e);
    assert_true(r == 0 || r == ERR_NOT_FOUND);
    arena_fini(&a);
}

/* NULL: not there. */
MG_UNUSED static struct jnode *lab_get(struct store *s, enum kind_id kind, const char *ns,
                                       const char *name, struct arena *a) {
    struct store_item it;
    struct jnode *n = NULL;
    struct err e;
    if (store_get(s, lab_key(a, kind, ns, name), a, &it, &e) < 0) {
        return NULL;
    }
    assert_int_equal(json_parse(it.value, &json_limits_default, a, &n, &e), 0);
    return n;
}

MG_UNUSED static void lab_assert_json(const struct jnode *n, const char *want) {
    struct buf b = BUF_INIT(1 << 20), w = BUF_INIT(1 << 20);
    struct arena a = {0};
    if (n) {
        json_write(&b, n, 0);
    }
    json_write(&w, lab_json(&a, want), 0);
    assert_string_equal(buf_cstr(&b), buf_cstr(&w));
    buf_fini(&b);
    buf_fini(&w);
    arena_fini(&a);
}
