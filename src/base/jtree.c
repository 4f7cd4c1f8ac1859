/* Trees of values: navigation, building, comparison, merge patch. See jtree.h. */
#include "base/jtext.h"

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

/* Puts value where old stands, so that the order of writing stays. */
static void replace(struct jnode *old, const struct jnode *value) {
    struct jnode *next = old->next;
    struct str key = old->key;
    *old = *value;
    old->next = next;
    old->key = key;
}

void jnode_set(struct arena *a, struct jnode *map, struct str key, struct jnode *value) {
    struct jnode *old = jnode_get(map, key);
    if (!old) {
        value->key = arena_dup(a, key);
        jnode_append(map, value);
        return;
    }
    replace(old, value);
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
    struct lookup in_b;
    bool eq = true;
    lookup_init(&in_b, b);
    jnode_each (x, a) {
        const struct jnode *y = lookup_get(&in_b, x->key);
        eq = y && jnode_eq(x, y);
        if (!eq) {
            break;
        }
    }
    lookup_fini(&in_b);
    return eq;
}

static bool is_number(const struct jnode *n) {
    return n->type == J_INT || n->type == J_FLOAT;
}

bool jnode_eq(const struct jnode *a, const struct jnode *b) {
    if (is_number(a) && is_number(b)) {
        return num_eq(a, b);
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
    case J_FLOAT:
        return num_eq(a, b);
    case J_STR:
        return str_eq(a->s, b->s);
    case J_LIST:
        return list_eq(a, b);
    case J_MAP:
        return map_eq(a, b);
    }
    return false;
}

/* Members of target that the patch names: gone when it says null, else merged in place. */
static void patch_members(struct arena *a, struct jnode *target, const struct lookup *patch) {
    struct jnode *prev = NULL;
    struct jnode *next = NULL;
    for (struct jnode *it = target->child; it; it = next) {
        next = it->next;
        const struct jnode *p = lookup_get(patch, it->key);
        if (p && p->type == J_NULL) {
            *(prev ? &prev->next : &target->child) = next;
            target->n--;
            continue;
        }
        if (p) {
            struct jnode *merged = jnode_merge_patch(a, it, p);
            if (merged != it) {
                replace(it, merged);
            }
        }
        prev = it;
    }
    target->last = prev;
}

struct jnode *jnode_merge_patch(struct arena *a, struct jnode *target, const struct jnode *patch) {
    if (patch->type != J_MAP) {
        return jnode_copy(a, patch);
    }
    if (!target || target->type != J_MAP) {
        target = jnode_new(a, J_MAP);
    }
    struct lookup in_target;
    struct lookup in_patch;
    lookup_init(&in_target, target);
    lookup_init(&in_patch, patch);
    /* What is new is found first and appended last: lookup wants maps that don't change. */
    struct jnode added = {.type = J_MAP};
    jnode_each (it, patch) {
        if (it->type != J_NULL && !lookup_get(&in_target, it->key)) {
            struct jnode *value = jnode_merge_patch(a, NULL, it);
            value->key = arena_dup(a, it->key);
            jnode_append(&added, value);
        }
    }
    patch_members(a, target, &in_patch);
    if (added.child) {
        *(target->last ? &target->last->next : &target->child) = added.child;
        target->last = added.last;
        target->n += added.n;
    }
    lookup_fini(&in_target);
    lookup_fini(&in_patch);
    return target;
}

void lookup_init(struct lookup *l, const struct jnode *map) {
    *l = (struct lookup){.map = map};
    if (map->n <= FEW_KEYS) {
        return;
    }
    jnode_each (it, map) {
        bool is_new = false;
        struct jnode **at = nodetab_put(&l->tab, it->key, &is_new);
        if (is_new) {
            *at = it;
        }
    }
}

struct jnode *lookup_get(const struct lookup *l, struct str key) {
    if (l->map->n <= FEW_KEYS) {
        return jnode_get(l->map, key);
    }
    struct jnode **at = nodetab_get(&l->tab, key);
    return at ? *at : NULL;
}

void lookup_fini(struct lookup *l) {
    nodetab_fini(&l->tab);
}

/* Index of the member with this key, or map->n. */
static size_t members_find(struct members *m, const struct jnode *map, struct str key) {
    size_t i = 0;
    if (map->n <= FEW_KEYS) {
        for (const struct jnode *it = map->child; it && !str_eq(it->key, key); it = it->next) {
            i++;
        }
        return i;
    }
    if (m->tab.n == 0) {
        jnode_each (it, map) {
            *indextab_put(&m->tab, it->key, NULL) = (uint32_t)i++;
        }
    }
    const uint32_t *at = indextab_get(&m->tab, key);
    return at ? *at : map->n;
}

bool members_add(struct members *m, struct jnode *map, struct str key, uint32_t key_line,
                 struct jnode *item, size_t *first) {
    size_t i = members_find(m, map, key);
    if (i < map->n) {
        *first = i;
        return false;
    }
    if (m->tab.n) {
        *indextab_put(&m->tab, key, NULL) = (uint32_t)map->n;
    }
    item->key = key;
    jnode_append(map, item);
    vec_push(&m->lines, key_line);
    return true;
}

void members_fini(struct members *m) {
    indextab_fini(&m->tab);
    vec_fini(&m->lines);
}
