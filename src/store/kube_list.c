/* Listing: pages of 500, cut into objects as they come. What a listing gives out is kept until it
 * is whole, up to a limit: then names of ours are in order also where the server's are not, and a
 * server that has forgotten the revision meanwhile costs a second try, not half an answer. A larger
 * listing in the server's own order streams; one that breaks then ends with ERR_RETRY. */
#include "store/kube_int.h"

#include "base/vec.h"
#include "store/kube_split.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { KEEP_BYTES = 64 << 20, RESTARTS = 4 };

struct kept {
    size_t at; /* of the key in text; the value is behind it */
    uint32_t n_key, n_value;
    uint64_t revision;
};

struct listing {
    struct kube_store *s;
    const struct kube_view *view;
    struct store_key prefix;
    struct str ns; /* the server may leave the others out */
    const char *selector;
    int (*cb)(void *arg, const struct store_item *it);
    void *arg;
    uint64_t *revision_out;
    struct err *e;

    struct kube_split split;
    struct arena page, object;
    struct str token; /* of the next page; in next */
    struct arena next;
    uint64_t revision;
    VEC(struct kept) items;
    struct buf text;
    bool is_streaming; /* some were given out before the end */
    bool is_failing;   /* the answer is an error's */
    struct buf error;  /* its text */
    int status, code;  /* code: of a callback or of reading */
    bool is_ended;
    struct http_end end;
    char reason[512];
    int64_t retry_ms;
};

static int keep(struct listing *l, const struct kube_item *it, uint64_t revision) {
    struct kept k = {.at = l->text.n, .n_key = (uint32_t)it->key.n, .revision = revision};
    buf_str(&l->text, it->key);
    json_write(&l->text, it->value, 0);
    if (l->text.overflow) {
        return err_set(l->e, ERR_TOO_BIG, "the list of %s is too large to be sorted",
                       l->view->rest->plural);
    }
    k.n_value = (uint32_t)(l->text.n - k.at - it->key.n);
    vec_push(&l->items, k);
    return 0;
}

/* text is what the items lie in. */
static int kept_cmp(const void *a, const void *b, void *text) {
    const struct kept *x = a, *y = b;
    const char *t = text;
    int c = str_cmp(str_n(t + x->at, x->n_key), str_n(t + y->at, y->n_key));
    return c ? c : x->revision < y->revision ? 1 : -1; /* of two with a name the newer counts */
}

/* Gives out what is kept. */
static int give_out(struct listing *l) {
    int r = 0;
    struct str last = STR_NULL;
    for (size_t i = 0; i < l->items.n && r >= 0; i++) {
        const struct kept *k = &l->items.p[i];
        struct store_item it = {.space = l->prefix.space,
                                .key = str_n(l->text.p + k->at, k->n_key),
                                .value = str_n(l->text.p + k->at + k->n_key, k->n_value),
                                .revision = k->revision};
        if (!str_eq(last, it.key)) {
            r = l->cb(l->arg, &it);
        }
        last = it.key;
    }
    vec_clear(&l->items);
    buf_reset(&l->text);
    return r;
}

static int on_object(void *arg, struct str text) {
    struct listing *l = arg;
    struct jnode *obj = NULL;
    struct kube_item it = {0};
    arena_reset(&l->object);
    struct jlimits lim = json_limits_default;
    lim.max_string = KUBE_OBJECT_TEXT_MAX;
    int r = json_parse(text, &lim, &l->object, &obj, l->e);
    if (r < 0) {
        return err_wrap(l->e, -EPROTO, "API server: list of %s", l->view->rest->plural);
    }
    uint64_t revision = kube_revision(obj);
    r = kube_read(l->view, obj, &l->object, &it, l->e);
    if (r < 0) {
        return r;
    }
    if (!it.value || !str_starts(it.key, l->prefix.key)) {
        return 0;
    }
    kube_strip(it.value);
    return keep(l, &it, revision);
}

static int on_meta(void *arg, struct str text) {
    struct listing *l = arg;
    struct jnode *meta = NULL;
    int r = json_parse(text, &json_limits_default, &l->page, &meta, l->e);
    if (r < 0) {
        return err_wrap(l->e, -EPROTO, "API server: list of %s", l->view->rest->plural);
    }
    uint64_t revision = 0;
    if (str_to_u64(jnode_str(jnode_getc(meta, "resourceVersion")), &revision) < 0) {
        return err_set(l->e, -EPROTO, "API server: list of %s: its resourceVersion is no number",
                       l->view->rest->plural);
    }
    l->revision = l->revision ? l->revision : revision;
    arena_reset(&l->next);
    l->token = arena_dup(&l->next, jnode_str(jnode_getc(meta, "continue")));
    return 0;
}

static const struct kube_split_ops split_ops = {.on_object = on_object, .on_meta = on_meta};

static void on_head(void *arg, int status, const struct http_header *h, size_t n) {
    struct listing *l = arg;
    l->status = status;
    l->is_failing = status != 200;
    l->retry_ms = kube_retry_after_ms(h, n, 0);
}

static void on_data(void *arg, struct str chunk) {
    struct listing *l = arg;
    if (l->is_failing) {
        buf_str(&l->error, chunk);
    } else if (l->code == 0) {
        l->code = kube_split_feed(&l->split, chunk);
    }
}

static void on_end(void *arg, const struct http_end *end) {
    struct listing *l = arg;
    l->is_ended = true;
    l->end = *end;
    (void)snprintf(l->reason, sizeof(l->reason), "%s", end->reason);
}

static struct str page_path(struct listing *l) {
    const struct kube_store *s = l->s;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
    buf_str(&b, kube_path(l->view->rest, s->use_old[kube_view_index(l->view)], l->ns, STR_NULL,
                          NULL, &l->page));
    buf_printf(&b, "?limit=%d", KUBE_PAGE);
    if (l->selector) {
        buf_puts(&b, "&labelSelector=");
        kube_escape(&b, str_c(l->selector));
    }
    if (l->token.n) {
        buf_puts(&b, "&continue=");
        kube_escape(&b, l->token);
    }
    return arena_dup(&l->page, buf_view(&b));
}

/* One page over the wire. */
static int run_page(struct listing *l) {
    static const struct http_call_ops ops = {
        .on_head = on_head, .on_data = on_data, .on_end = on_end};
    struct http_header h[KUBE_HEADERS];
    struct http_call *call = NULL;
    struct http_request q = {
        .method = "GET", .path = page_path(l), .headers = h, .timeout_ms = KUBE_LIST_MS};
    int r = kube_conn_ready(&l->s->conn, l->e);
    if (r < 0) {
        return r;
    }
    q.n_headers = kube_headers(&l->s->conn, NULL, h);
    l->is_ended = l->is_failing = false;
    l->status = l->code = 0;
    buf_reset(&l->error);
    kube_split_init(&l->split, false, l->view->rest->kind, &split_ops, l);
    r = http_call_new(l->s->conn.client, &q, &ops, l, &call, l->e);
    while (r == 0 && !l->is_ended && l->code == 0) {
        loop_step(l->s->loop, true);
    }
    http_call_free(call);
    bool is_whole = kube_split_is_whole(&l->split);
    kube_split_fini(&l->split);
    if (r < 0 || l->code < 0) {
        if (l->code == -EPROTO && (!l->e || !l->e->msg[0])) {
            (void)err_set(l->e, -EPROTO, "API server: list of %s: its answer is no list",
                          l->view->rest->plural);
        }
        return r < 0 ? r : l->code;
    }
    if (l->end.code < 0) {
        return err_set(l->e, l->end.code, "%s", l->reason);
    }
    if (!l->is_failing && !is_whole) {
        return err_set(l->e, ERR_RETRY, "API server: list of %s: its answer ends in the middle",
                       l->view->rest->plural);
    }
    return 0;
}

static void restart(struct listing *l) {
    vec_clear(&l->items);
    buf_reset(&l->text);
    l->token = STR_NULL;
    l->revision = 0;
}

/* What to do about a page that failed: 0 again (the same page, or from the start), else the code.
 */
static int after_failure(struct listing *l, int r, unsigned *n_tries) {
    struct kube_subject sub = {"list", l->view->rest, NULL, l->ns, STR_NULL};
    size_t v = kube_view_index(l->view);
    struct timespec t = {.tv_nsec = 200 * 1000000};
    if (r < 0) {
        bool may = r == ERR_UNAVAILABLE && !l->is_streaming && l->items.n == 0;
        return may && (*n_tries)++ == 0 ? 0 : r;
    }
    int status = l->status;
    if (status == 404 && l->view->rest->old_version && !l->s->use_old[v]) {
        l->s->use_old[v] = true;
        return 0;
    }
    r = kube_status_error(&sub, status, buf_view(&l->error), l->e);
    if ((*n_tries)++ >= RESTARTS) {
        return r;
    }
    if (status == 410 && l->is_streaming) {
        return err_set(l->e, ERR_RETRY,
                       "API server: the list of %s took longer than it keeps its revision: again",
                       l->view->rest->plural);
    }
    if (status == 410) {
        restart(l);
        return 0;
    }
    if (status == 401 && l->s->conn.auth.good_until_s != INT64_MAX) {
        l->s->conn.auth.good_until_s = 0;
        return 0;
    }
    if (r == ERR_RETRY) {
        t.tv_sec = l->retry_ms / 1000;
        (void)nanosleep(&t, NULL);
        return 0;
    }
    return r;
}

/* One view's items, in the order of their keys. is_alone: nothing else was asked for. */
static int list_view(struct listing *l, bool is_alone) {
    unsigned n_tries = 0;
    int r = 0;
    restart(l);
    l->is_streaming = false;
    for (;;) {
        arena_reset(&l->page);
        size_t n_before = l->items.n, text_before = l->text.n;
        struct str token = arena_dup(&l->page, l->token);
        r = run_page(l);
        if (r < 0 || l->is_failing) {
            bool is_unknown = r == 0 && kube_is_unknown_kind(l->status, buf_view(&l->error));
            int again = after_failure(l, r, &n_tries);
            if (again < 0) {
                bool is_empty = is_unknown && (!is_alone || l->view->rest->is_optional);
                return is_empty ? 0 : again;
            }
            if (l->items.n > n_before) { /* half a page */
                l->items.n = n_before;
                l->text.n = text_before;
            }
            l->token = l->items.n || l->is_streaming ? arena_dup(&l->next, token) : STR_NULL;
            continue;
        }
        if (!l->token.n) {
            break;
        }
        if (l->view->is_sorted && l->text.n > KEEP_BYTES) {
            if (*l->revision_out == 0) {
                *l->revision_out = l->revision;
            }
            l->is_streaming = true;
            r = give_out(l);
            if (r < 0) {
                return r;
            }
        }
    }
    kube_saw(l->s, l->revision);
    return 0;
}

/* Labels of the affinities of one host, when that is all that is asked for. */
static void host_selector(struct str prefix, char out[256]) {
    struct arena a = {0};
    struct str rest = str_sub(prefix, 14, prefix.n);
    ptrdiff_t end = -1;
    for (size_t i = 0; i < rest.n && end < 0; i++) {
        if (str_starts(str_sub(rest, i, rest.n), STR("/ipv"))) {
            end = (ptrdiff_t)i;
        }
    }
    out[0] = '\0';
    if (str_starts(prefix, STR("/ipam/v2/host/")) && end > 0) {
        struct str hash = kube_host_hash(str_sub(rest, 0, (size_t)end), &a);
        (void)snprintf(out, 256, "projectcalico.org/hostname-hash=%.*s", STR_FMT(hash));
    }
    arena_fini(&a);
}

static int run_view(struct listing *l, bool is_alone) {
    char selector[256] = "";
    int r;
    if (l->view->shape == KUBE_IPAM_AFFINITY) {
        host_selector(l->prefix.key, selector);
    }
    l->selector = selector[0] ? selector : NULL;
    r = list_view(l, is_alone);
    if (r == 0 && l->selector) { /* those of before the labels */
        VEC(struct kept) labelled = {l->items.p, l->items.n, l->items.cap};
        struct buf text = l->text;
        uint64_t revision = l->revision;
        memset(&l->items, 0, sizeof(l->items));
        l->text = BUF_INIT(UINT32_MAX);
        l->selector = "!projectcalico.org/hostname-hash";
        r = list_view(l, is_alone);
        for (size_t i = 0; r == 0 && i < labelled.n; i++) {
            struct kept k = labelled.p[i];
            k.at += l->text.n;
            vec_push(&l->items, k);
        }
        if (r == 0) {
            buf_add(&l->text, text.p, text.n);
        }
        l->revision = revision;
        vec_fini(&labelled);
        buf_fini(&text);
    }
    if (r < 0) {
        return r;
    }
    if (!l->view->is_sorted && l->items.n > 1) {
        qsort_r(l->items.p, l->items.n, sizeof(*l->items.p), kept_cmp, l->text.p);
    }
    if (*l->revision_out == 0) {
        *l->revision_out = l->revision;
    }
    return give_out(l);
}

int kube_list(struct store *st, struct store_key prefix, uint64_t *revision_out,
              int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e) {
    struct kube_store *s = (struct kube_store *)st;
    const struct kube_view *views[KUBE_VIEWS_MAX];
    struct str ns;
    size_t n = kube_views_of(prefix, views, &ns);
    uint64_t ignored = 0;
    struct err own = {0};
    struct listing l = {.s = s,
                        .prefix = prefix,
                        .cb = cb,
                        .arg = arg,
                        .e = e ? e : &own,
                        .revision_out = revision_out ? revision_out : &ignored,
                        .text = BUF_INIT(UINT32_MAX),
                        .error = BUF_INIT(KUBE_STATUS_MAX)};
    int r = 0;
    *l.revision_out = 0;
    l.e->msg[0] = '\0';
    if (n == 0) {
        return err_set(e, ERR_INVALID, "prefix \"%.*s\" has no place in the Kubernetes API",
                       STR_FMT(prefix.key));
    }
    for (size_t i = 0; i < n && r >= 0; i++) {
        l.view = views[i];
        l.ns = l.view->rest->is_namespaced ? ns : STR_NULL;
        bool is_of_its_own = l.view->kind == K_SECRET || l.view->kind == K_LEASE;
        if (n > 2 && is_of_its_own) { /* only when asked for: it takes a right of its own */
            continue;
        }
        r = run_view(&l, n == 1);
        if (r >= 0 && l.view->shape == KUBE_SA_PROFILE &&
            str_starts(STR("Profile.projectcalico.org//" KUBE_DEFAULT_ALLOW), prefix.key)) {
            struct kube_item it = {.key = STR("Profile.projectcalico.org//" KUBE_DEFAULT_ALLOW),
                                   .value = kube_default_allow(&l.page)};
            r = keep(&l, &it, 0);
            r = r < 0 ? r : give_out(&l);
        }
    }
    vec_fini(&l.items);
    buf_fini(&l.text);
    buf_fini(&l.error);
    arena_fini(&l.page);
    arena_fini(&l.object);
    arena_fini(&l.next);
    return r;
}
