/* Answers of the API server from any bytes: lists and watches cut into objects, objects read by
 * every view. Wherever the bytes are cut, the same objects come; each has balanced brackets; what a
 * view reads can be written back. */
#include "store/kube_map.h"
#include "store/kube_split.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(bool ok) {
    if (!ok) {
        abort();
    }
}

/* The keys of an item lead back to its object's place. */
static void try_views(struct jnode *doc, struct arena *a) {
    for (size_t i = 0; i < kube_n_views; i++) {
        const struct kube_view *v = &kube_views[i];
        struct kube_item it = {0};
        struct err e = {0};
        struct jnode *copy = jnode_copy(a, doc);
        kube_slim(v->rest, copy, a);
        if (kube_read(v, copy, a, &it, &e) < 0) {
            check(e.msg[0] != '\0');
            continue;
        }
        check(it.key.n > 0 || !it.value);
        struct kube_at at;
        struct store_key k = {str_c(v->space), it.key};
        if (!it.value || kube_locate(k, a, &at, &e) < 0) {
            continue; /* a name that no server would have taken */
        }
        struct jnode *out = NULL;
        if (v->shape == KUBE_NODE) {
            (void)!kube_write_node(it.value, a, &out, &e);
        } else if (v->shape == KUBE_POD_WEP) {
            out = kube_write_wep(it.value, a);
        } else if (v->shape != KUBE_NS_PROFILE && v->shape != KUBE_SA_PROFILE) {
            check(kube_write(&at, k, it.value, a, &out, &e) == 0 || e.msg[0]);
        }
    }
}

static struct buf seen;

static int on_object(void *arg, struct str text) {
    struct arena a = {0};
    struct jnode *doc = NULL;
    check(text.n >= 2 && text.p[0] == '{' && text.p[text.n - 1] == '}');
    buf_str(&seen, text);
    buf_putc(&seen, '\n');
    if (arg && json_parse(text, &json_limits_default, &a, &doc, NULL) == 0) {
        try_views(doc, &a);
    }
    arena_fini(&a);
    return 0;
}
static int on_meta(void *arg, struct str text) {
    (void)arg;
    buf_putc(&seen, 'm');
    buf_str(&seen, text);
    return 0;
}

static int run(struct str text, bool is_watch, size_t step, const char *kind, bool with_views,
               bool *is_whole) {
    static const struct kube_split_ops ops = {.on_object = on_object, .on_meta = on_meta};
    struct kube_split s;
    int r = 0;
    kube_split_init(&s, is_watch, kind, &ops, with_views ? &s : NULL);
    for (size_t at = 0; at < text.n && r == 0; at += step) {
        r = kube_split_feed(&s, str_sub(text, at, at + step < text.n ? at + step : text.n));
    }
    *is_whole = r == 0 && kube_split_is_whole(&s);
    check(s.text.n <= KUBE_OBJECT_MAX);
    kube_split_fini(&s);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) {
        return 0;
    }
    struct str text = str_n((const char *)data + 2, n - 2);
    bool is_watch = data[0] & 1, whole = false, again = false;
    size_t step = data[1] ? data[1] : 1;
    const char *kind = data[0] & 2 ? "Pod" : NULL;
    seen = BUF_INIT(1 << 24);
    int first = run(text, is_watch, text.n ? text.n : 1, kind, true, &whole);
    struct buf all = seen;
    seen = BUF_INIT(1 << 24);
    int second = run(text, is_watch, step, kind, false, &again);
    check(first == second && whole == again);
    check(str_eq(buf_view(&all), buf_view(&seen)));
    buf_fini(&all);
    buf_fini(&seen);
    return 0;
}
