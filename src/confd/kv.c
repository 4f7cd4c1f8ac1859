/* Keys in order, and views of them. See kv.h. */
#include "confd/kv.h"

static void item_free(struct kv_item *it) {
    free((void *)(uintptr_t)it->key.p);
}

void kv_fini(struct kv *k) {
    for (size_t i = 0; i < k->n; i++) {
        item_free(&k->p[i]);
    }
    free(k->p);
    *k = (struct kv){0};
}

/* Length of the canonical form written to out (room for path.n + 1). */
static size_t clean(struct str path, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < path.n;) {
        while (i < path.n && path.p[i] == '/') {
            i++;
        }
        size_t start = i;
        while (i < path.n && path.p[i] != '/') {
            i++;
        }
        struct str part = str_sub(path, start, i);
        if (part.n == 0 || str_is(part, ".")) {
            continue;
        }
        if (str_is(part, "..")) {
            while (n > 0 && out[--n] != '/') {
            }
            continue;
        }
        out[n++] = '/';
        memcpy(out + n, part.p, part.n);
        n += part.n;
    }
    if (n == 0) {
        out[n++] = '/';
    }
    return n;
}

struct str kv_clean(struct arena *a, struct str path) {
    char *out = arena_alloc(a, path.n + 2);
    return str_n(out, clean(path, out));
}

static bool item_new(const struct kv *k, struct str key, struct str value, struct kv_item *out) {
    if (key.n > KV_KEY_MAX || value.n > KV_VALUE_MAX || k->n >= KV_ITEMS_MAX) {
        return false;
    }
    char *p = malloc(key.n + value.n + 3);
    mg_assert(p != NULL);
    size_t n = clean(key, p);
    p[n] = '\0';
    if (value.n) {
        memcpy(p + n + 1, value.p, value.n);
    }
    p[n + 1 + value.n] = '\0';
    *out = (struct kv_item){str_n(p, n), str_n(p + n + 1, value.n)};
    return true;
}

bool kv_add(struct kv *k, struct str key, struct str value) {
    struct kv_item it;
    if (!item_new(k, key, value, &it)) {
        return false;
    }
    vec_push(k, it);
    k->bytes += it.key.n + it.value.n;
    k->is_sorted = false;
    return true;
}

struct ranked {
    struct kv_item it;
    size_t rank;
};

static int by_key(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    int c = str_cmp(x->it.key, y->it.key);
    return c ? c : (x->rank > y->rank) - (x->rank < y->rank);
}

void kv_sort(struct kv *k) {
    if (k->is_sorted || k->n == 0) {
        k->is_sorted = true;
        return;
    }
    struct ranked *r = malloc(k->n * sizeof(*r));
    mg_assert(r != NULL);
    for (size_t i = 0; i < k->n; i++) {
        r[i] = (struct ranked){k->p[i], i};
    }
    qsort(r, k->n, sizeof(*r), by_key);
    size_t n = 0;
    for (size_t i = 0; i < k->n; i++) {
        if (i + 1 < k->n && str_eq(r[i].it.key, r[i + 1].it.key)) {
            k->bytes -= r[i].it.key.n + r[i].it.value.n;
            item_free(&r[i].it);
        } else {
            k->p[n++] = r[i].it;
        }
    }
    k->n = n;
    k->is_sorted = true;
    free(r);
}

size_t kv_lower(const struct kv *k, struct str key) {
    size_t lo = 0, hi = k->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (str_cmp(k->p[mid].key, key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

const struct kv_item *kv_get(const struct kv *k, struct str key) {
    size_t i = kv_lower(k, key);
    return i < k->n && str_eq(k->p[i].key, key) ? &k->p[i] : NULL;
}

bool kv_set(struct kv *k, struct str key, struct str value, struct kv_changes *c) {
    struct kv_item it;
    if (!item_new(k, key, value, &it)) {
        return false;
    }
    size_t i = kv_lower(k, it.key);
    bool is_there = i < k->n && str_eq(k->p[i].key, it.key);
    if (value.p ? is_there && str_eq(k->p[i].value, value) : !is_there) {
        item_free(&it);
        return true;
    }
    if (c) {
        kv_changes_add(c, it.key);
    }
    if (is_there) {
        k->bytes -= k->p[i].key.n + k->p[i].value.n;
        item_free(&k->p[i]);
    }
    if (!value.p) {
        item_free(&it);
        vec_remove(k, i);
        return true;
    }
    k->bytes += it.key.n + it.value.n;
    if (!is_there) {
        vec_reserve(k, k->n + 1);
        memmove(&k->p[i + 1], &k->p[i], (k->n - i) * sizeof(*k->p));
        k->n++;
    }
    k->p[i] = it;
    return true;
}

void kv_replace(struct kv *k, struct kv *fresh, struct kv_changes *c) {
    size_t i = 0, j = 0;
    while (i < k->n || j < fresh->n) {
        int order = i == k->n ? 1 : j == fresh->n ? -1 : str_cmp(k->p[i].key, fresh->p[j].key);
        if (order != 0 || !str_eq(k->p[i].value, fresh->p[j].value)) {
            kv_changes_add(c, order <= 0 ? k->p[i].key : fresh->p[j].key);
        }
        i += order <= 0;
        j += order >= 0;
    }
    kv_fini(k);
    *k = *fresh;
    *fresh = (struct kv){0};
}

void kv_changes_fini(struct kv_changes *c) {
    vec_fini(&c->keys);
    arena_fini(&c->a);
}

void kv_changes_reset(struct kv_changes *c) {
    vec_clear(&c->keys);
    arena_reset(&c->a);
}

void kv_changes_add(struct kv_changes *c, struct str key) {
    vec_push(&c->keys, arena_dup(&c->a, key));
}

void kv_changes_sort(struct kv_changes *c) {
    vec_sort(&c->keys, str_cmp_qsort);
    size_t n = 0;
    for (size_t i = 0; i < c->keys.n; i++) {
        if (n == 0 || !str_eq(c->keys.p[n - 1], c->keys.p[i])) {
            c->keys.p[n++] = c->keys.p[i];
        }
    }
    c->keys.n = n;
}

/* ---- views ---- */

void kv_view_keys(struct arena *a, struct str prefix, const struct str *keys, size_t n_keys,
                  const struct str **out, size_t *n_out) {
    struct str *full = arena_array(a, struct str, n_keys);
    for (size_t i = 0; i < n_keys; i++) {
        full[i] = kv_clean(a, arena_printf(a, "%.*s/%.*s", STR_FMT(prefix), STR_FMT(keys[i])));
    }
    if (n_keys > 1) {
        qsort(full, n_keys, sizeof(*full), str_cmp_qsort);
    }
    size_t n = 0;
    for (size_t i = 0; i < n_keys; i++) {
        if (n == 0 || !str_starts(full[i], full[n - 1])) {
            full[n++] = full[i];
        }
    }
    *out = full;
    *n_out = n;
}

void kv_view_fini(struct kv_view *v) {
    kv_readset_fini(&v->seen);
    buf_fini(&v->full);
    vec_fini(&v->reads);
}

void kv_view_start(struct kv_view *v) {
    kv_readset_fini(&v->seen);
    v->full.max = (size_t)KV_KEY_MAX * 4;
    vec_clear(&v->reads);
}

/* The same read again costs no memory, so a loop can't fill it. */
static void note(struct kv_view *v, struct str text, bool is_prefix) {
    bool *known = kv_readset_get(&v->seen, text);
    if (known) {
        *known = *known || is_prefix;
    } else if (v->seen.n < KV_READS_MAX) {
        *kv_readset_put(&v->seen, arena_dup(v->a, text), NULL) = is_prefix;
    } else {
        *kv_readset_put(&v->seen, STR(""), NULL) = true; /* everything */
    }
}

void kv_view_note(struct kv_view *v, struct str full) {
    note(v, full, false);
}

static bool is_in_view(const struct kv_view *v, struct str full) {
    for (size_t i = 0; i < v->n_keys; i++) {
        if (str_starts(full, v->keys[i])) {
            return true;
        }
    }
    return false;
}

/* Bytes that the view cuts off: the prefix, and nothing of the root's. */
static size_t cut(const struct kv_view *v) {
    return str_is(v->prefix, "/") ? 0 : v->prefix.n;
}

const struct kv_item *kv_view_get(struct kv_view *v, struct str key) {
    if (key.n == 0 || key.p[0] != '/') {
        return NULL; /* every key that is shown begins with a slash */
    }
    struct str p = str_sub(v->prefix, 0, cut(v));
    /* "/app" also takes "/apple": shown as "/le". */
    for (size_t skip = 0; skip < (p.n ? 2U : 1U); skip++) {
        buf_reset(&v->full);
        buf_str(&v->full, p);
        buf_str(&v->full, str_sub(key, skip, key.n));
        if (v->full.overflow) {
            return NULL; /* longer than any key */
        }
        struct str full = buf_view(&v->full);
        note(v, full, false);
        const struct kv_item *it = kv_get(v->kv, full);
        if (it && is_in_view(v, full)) {
            return it;
        }
    }
    return NULL;
}

/* The key as the view shows it. */
static struct str shown(struct kv_view *v, struct str full) {
    struct str s = str_sub(full, cut(v), full.n);
    return s.n && s.p[0] == '/' ? s : arena_printf(v->a, "/%.*s", STR_FMT(s));
}

static int each_below(struct kv_view *v, struct str full,
                      int (*cb)(void *arg, struct str shown, const struct kv_item *it), void *arg) {
    note(v, full, true);
    for (size_t k = 0; k < v->n_keys; k++) {
        /* The narrower of the two prefixes, if one is within the other. */
        struct str from = v->keys[k].n > full.n ? v->keys[k] : full;
        if (!str_starts(from, full) || !str_starts(from, v->keys[k])) {
            continue;
        }
        for (size_t i = kv_lower(v->kv, from); i < v->kv->n && str_starts(v->kv->p[i].key, from);
             i++) {
            int r = cb(arg, shown(v, v->kv->p[i].key), &v->kv->p[i]);
            if (r != 0) {
                return r;
            }
        }
    }
    return 0;
}

/* each_below for the view's prefix and what follows, without the first `skip` bytes of that. */
static int each_joined(struct kv_view *v, struct str p, struct str rest, size_t skip,
                       int (*cb)(void *arg, struct str shown, const struct kv_item *it),
                       void *arg) {
    buf_reset(&v->full);
    buf_str(&v->full, p);
    buf_str(&v->full, str_sub(rest, skip, rest.n));
    return v->full.overflow ? 0 : each_below(v, buf_view(&v->full), cb, arg);
}

int kv_view_each(struct kv_view *v, struct str prefix,
                 int (*cb)(void *arg, struct str shown, const struct kv_item *it), void *arg) {
    struct str p = str_sub(v->prefix, 0, cut(v));
    if (prefix.n && prefix.p[0] != '/') {
        return 0; /* every key that is shown begins with a slash */
    }
    if (prefix.n <= 1 && p.n) {
        return each_joined(v, p, prefix, prefix.n, cb, arg);
    }
    int r = each_joined(v, p, prefix, 0, cb, arg);
    return r == 0 && p.n ? each_joined(v, p, prefix, 1, cb, arg) : r;
}

/* Whether a changed key is equal to or, for prefixes, begins with text. */
static bool is_changed(const struct kv_changes *c, struct str text, bool is_prefix) {
    size_t lo = 0, hi = c->keys.n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (str_cmp(c->keys.p[mid], text) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < c->keys.n &&
           (is_prefix ? str_starts(c->keys.p[lo], text) : str_eq(c->keys.p[lo], text));
}

bool kv_view_concerned(const struct kv_view *v, const struct kv_changes *c, bool all) {
    for (size_t i = 0; all && i < v->n_keys; i++) {
        if (is_changed(c, v->keys[i], true)) {
            return true;
        }
    }
    for (size_t i = 0; i < v->reads.n; i++) {
        if (is_changed(c, v->reads.p[i].text, v->reads.p[i].is_prefix)) {
            return true;
        }
    }
    return false;
}

static int by_text(const void *a, const void *b) {
    const struct kv_read *x = a, *y = b;
    return str_cmp(x->text, y->text);
}

void kv_view_settle(struct kv_view *v) {
    struct str text;
    bool *is_prefix;
    vec_clear(&v->reads);
    for (size_t i = 0; kv_readset_next(&v->seen, &i, &text, &is_prefix);) {
        vec_push(&v->reads, (struct kv_read){text, *is_prefix});
    }
    kv_readset_fini(&v->seen);
    vec_sort(&v->reads, by_text);
    size_t n = 0;
    struct str covered = STR_NULL; /* by the last prefix that was kept */
    for (size_t i = 0; i < v->reads.n; i++) {
        struct kv_read *r = &v->reads.p[i];
        if (covered.p && str_starts(r->text, covered)) {
            continue;
        }
        covered = r->is_prefix ? r->text : covered;
        v->reads.p[n++] = *r;
    }
    v->reads.n = n;
}
