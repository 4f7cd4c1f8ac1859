/* Trees of values: navigation, building, comparison, merge patch. See jtree.h. */
#include "base/jtree.h"

struct jnode *jnode_get(const struct jnode *map, struct str key) {
    if (map && map->type == J_MAP) {
        jnode_each (it, map) {
            if (str_eq(it->key, key)) {
                return it;
            }
        }
    }
    return NULL;
}

struct jnode *jnode_getc(const struct jnode *map, const char *key) {
    return jnode_get(map, str_c(key));
}

struct jnode *jnode_path(const struct jnode *doc, const char *path) {
    struct str rest = str_c(path);
    struct jnode *at = NULL;
    while (rest.p) {
        at = jnode_get(doc, str_cut(&rest, '.'));
        doc = at;
    }
    return at;
}

struct str jnode_str(const struct jnode *n) {
    return n && n->type == J_STR ? n->s : STR_NULL;
}

struct jnode *jnode_new(struct arena *a, enum jtype type) {
    struct jnode *n = arena_new(a, struct jnode);
    n->type = type;
    return n;
}

struct jnode *jnode_new_str(struct arena *a, struct str s) {
    struct jnode *n = jnode_new(a, J_STR);
    n->s = arena_dup(a, s);
    return n;
}

struct jnode *jnode_new_int(struct arena *a, int64_t i) {
    struct jnode *n = jnode_new(a, J_INT);
    n->i = i;
    n->s = arena_printf(a, "%lld", (long long)i);
    return n;
}

struct jnode *jnode_new_bool(struct arena *a, bool b) {
    struct jnode *n = jnode_new(a, J_BOOL);
    n->b = b;
    return n;
}

void jnode_append(struct jnode *list, struct jnode *value) {
    value->next = NULL;
    if (list->last) {
        list->last->next = value;
    } else {
        list->child = value;
    }
    list->last = value;
    list->n++;
}

bool jnode_del(struct jnode *map, struct str key) {
    struct jnode *prev = NULL;
    jnode_each (it, map) {
        if (str_eq(it->key, key)) {
            *(prev ? &prev->next : &map->child) = it->next;
            if (map->last == it) {
                map->last = prev;
            }
            map->n--;
            return true;
        }
        prev = it;
    }
    return false;
}

void jnode_set(struct arena *a, struct jnode *map, struct str key, struct jnode *value) {
    struct jnode *old = jnode_get(map, key);
    if (!old) {
        value->key = arena_dup(a, key);
        jnode_append(map, value);
        return;
    }
    /* In place, so that the order of writing stays. */
    struct jnode *next = old->next;
    struct str same_key = old->key;
    *old = *value;
    old->next = next;
    old->key = same_key;
}

struct jnode *jnode_copy(struct arena *a, const struct jnode *n) {
    struct jnode *c = arena_new(a, struct jnode);
    *c = *n;
    c->key = arena_dup(a, n->key);
    c->s = arena_dup(a, n->s);
    c->child = c->last = c->next = NULL;
    c->n = 0;
    jnode_each (it, n) {
        jnode_append(c, jnode_copy(a, it));
    }
    return c;
}

static bool list_eq(const struct jnode *a, const struct jnode *b) {
    const struct jnode *y = b->child;
    jnode_each (x, a) {
        if (!jnode_eq(x, y)) {
            return false;
        }
        y = y->next;
    }
    return true;
}

static bool map_eq(const struct jnode *a, const struct jnode *b) {
    jnode_each (x, a) {
        const struct jnode *y = jnode_get(b, x->key);
        if (!y || !jnode_eq(x, y)) {
            return false;
        }
    }
    return true;
}

bool jnode_eq(const struct jnode *a, const struct jnode *b) {
    bool numbers =
        (a->type == J_INT || a->type == J_FLOAT) && (b->type == J_INT || b->type == J_FLOAT);
    if (numbers && a->type != b->type) {
        return a->type == J_INT ? (double)a->i == b->f : a->f == (double)b->i;
    }
    if (a->type != b->type || a->n != b->n) {
        return false;
    }
    switch (a->type) {
    case J_NULL:
        return true;
    case J_BOOL:
        return a->b == b->b;
    case J_INT:
        return a->i == b->i;
    case J_FLOAT:
        return a->f == b->f;
    case J_STR:
        return str_eq(a->s, b->s);
    case J_LIST:
        return list_eq(a, b);
    case J_MAP:
        return map_eq(a, b);
    }
    return false;
}

struct jnode *jnode_merge_patch(struct arena *a, struct jnode *target, const struct jnode *patch) {
    if (patch->type != J_MAP) {
        return jnode_copy(a, patch);
    }
    if (!target || target->type != J_MAP) {
        target = jnode_new(a, J_MAP);
    }
    jnode_each (it, patch) {
        if (it->type == J_NULL) {
            (void)jnode_del(target, it->key);
        } else {
            struct jnode *merged = jnode_merge_patch(a, jnode_get(target, it->key), it);
            if (merged != jnode_get(target, it->key)) {
                jnode_set(a, target, it->key, merged);
            }
        }
    }
    return target;
}
