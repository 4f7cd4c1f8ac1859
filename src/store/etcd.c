/* The store on etcd v3: Calico's keys (etcd_map.h), each call one transaction. Calls block, on a
 * loop of their own; their deadlines are in etcd_rpc.h. Reads are linearizable: no member answers
 * with what others have overwritten. A write whose answer was lost is looked up before anything is
 * said about it. */
#include "store/etcd_int.h"

#include "base/clock.h"
#include "base/fd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    CHECK_MS = 3000, /* looking up what became of a write */
    WRITE_MS = 9000, /* no further try of a write after this */
    ANY_TRIES = 16,  /* of a write without a condition, while others write the same item */
};

static struct etcd_store *of(struct store *s) {
    return (struct etcd_store *)s;
}

static void etcd_close(struct store *s) {
    struct etcd_store *t = of(s);
    etcd_cluster_free(t->c);
    loop_poll_free(t->wake);
    fd_close(&t->wake_fd);
    loop_free(t->l);
    if (t->o.password.p) {
        explicit_bzero((void *)(uintptr_t)t->o.password.p, t->o.password.n);
    }
    arena_fini(&t->o.mem);
    free(t);
}

static void on_wake(void *arg MG_UNUSED, unsigned events MG_UNUSED) {
}

static void etcd_interrupt(struct store *s) {
    struct etcd_store *t = of(s);
    uint64_t one = 1;
    atomic_store(&t->is_interrupted, true);
    /* Fails only when it was written 2^64 - 2 times: awake then too. */
    (void)!write(t->wake_fd, &one, sizeof(one));
}

static int etcd_open(struct str rest, struct store **out, struct err *e) {
    struct etcd_store *t = calloc(1, sizeof(*t));
    mg_assert(t != NULL);
    t->base.drv = &store_etcd;
    t->l = loop_new();
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->wake_fd < 0) {
        int err = errno;
        etcd_close(&t->base);
        return err_set(e, -err, "etcd: eventfd: %s", strerror(err));
    }
    t->wake = loop_poll_new(t->l, t->wake_fd, LOOP_READ, on_wake, t);
    int r = etcd_options_read(rest, &t->o, e);
    if (r == 0) {
        r = etcd_cluster_new(t->l, &t->o, &t->c, e);
    }
    if (r < 0) {
        etcd_close(&t->base);
        return r;
    }
    etcd_cluster_stop_by(t->c, &t->is_interrupted);
    *out = &t->base;
    return 0;
}

static void saw(struct etcd_store *t, const Etcd__ResponseHeader *h) {
    if (h && h->revision > 0) {
        t->revision = (uint64_t)h->revision;
    }
}

/* ---- reading ---- */

static int range_once(struct etcd_store *t, const Etcd__RangeRequest *q, int64_t timeout_ms,
                      struct arena *a, Etcd__RangeResponse **out, struct err *e) {
    struct etcd_request r = {ETCD_RANGE, &q->base, false, timeout_ms};
    int code = etcd_run(t->c, t->l, &r, &etcd__range_response__descriptor, a, (void *)out, NULL, e);
    if (code == 0) {
        saw(t, (*out)->header);
    }
    return code;
}

/* The pair at one etcd key; *out NULL: there is none. */
static int read_pair(struct etcd_store *t, struct str key, int64_t timeout_ms, struct arena *a,
                     const Etcd__KeyValue **out, struct err *e) {
    Etcd__RangeRequest q = ETCD__RANGE_REQUEST__INIT;
    Etcd__RangeResponse *r = NULL;
    q.key = pb_bytes(key);
    int code = range_once(t, &q, timeout_ms, a, &r, e);
    if (code == 0) {
        *out = r->n_kvs ? r->kvs[0] : NULL;
    }
    return code;
}

static int not_found(struct store_key k, struct err *e) {
    return err_set(e, ERR_NOT_FOUND, "etcd: \"%.*s\" does not exist", STR_FMT(k.key));
}

static int etcd_get(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
                    struct err *e) {
    struct etcd_store *t = of(s);
    if (etcd_is_built_in(k)) {
        *out = (struct store_item){arena_dup(a, k.space), etcd_built_in_key(),
                                   etcd_built_in_value(), 1};
        return 0;
    }
    const Etcd__KeyValue *kv = NULL;
    struct str key, early = etcd_key_early(k, a);
    int r = etcd_key_of(k, a, &key, e);
    if (r == 0) {
        r = read_pair(t, key, 0, a, &kv, e);
    }
    if (r == 0 && !kv && early.p) {
        r = read_pair(t, early, 0, a, &kv, e);
    }
    if (r < 0) {
        return r;
    }
    struct store_item it;
    if (!kv || !etcd_item_of(k.space, kv, a, &it)) {
        return kv ? err_set(e, ERR_TOO_BIG,
                            "etcd: the value of \"%.*s\" has %zu bytes, %u are read",
                            STR_FMT(k.key), kv->value.len, STORE_VALUE_MAX)
                  : not_found(k, e);
    }
    it.space = arena_dup(a, k.space);
    *out = it;
    return 0;
}

struct listing {
    struct etcd_store *t;
    struct store_key prefix;
    uint64_t *revision_out;
    int (*cb)(void *arg, const struct store_item *it);
    void *arg;
    bool wants_built_in; /* not told yet */
    uint64_t revision;
};

static int tell_built_in(struct listing *q) {
    q->wants_built_in = false;
    struct store_item it = {q->prefix.space, etcd_built_in_key(), etcd_built_in_value(), 1};
    return q->cb(q->arg, &it);
}

static int tell_page(struct listing *q, const Etcd__RangeResponse *r, struct arena *a) {
    for (size_t i = 0; i < r->n_kvs; i++) {
        struct store_item it;
        if (!etcd_item_of(q->prefix.space, r->kvs[i], a, &it) ||
            !str_starts(it.key, q->prefix.key)) {
            continue;
        }
        if (q->wants_built_in && str_cmp(it.key, etcd_built_in_key()) > 0) {
            int code = tell_built_in(q);
            if (code < 0) {
                return code;
            }
        }
        int code = q->cb(q->arg, &it);
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static void set_revision(struct listing *q, uint64_t revision) {
    if (q->revision == 0) {
        q->revision = revision;
        if (q->revision_out) {
            *q->revision_out = revision;
        }
    }
}

/* One page; *told is set when cb was the one who failed. */
static int list_page(struct listing *q, struct etcd_pager *p, struct err *e) {
    struct arena a = {0};
    Etcd__RangeRequest ask;
    Etcd__RangeResponse *r = NULL;
    etcd_pager_ask(p, &ask);
    int code = range_once(q->t, &ask, 0, &a, &r, e);
    if (code == ERR_TOO_BIG && etcd_pager_smaller(p)) {
        code = 0;
    } else if (code == ERR_GONE) {
        code = err_set(e, ERR_RETRY, "etcd: the store was compacted while it was listed");
    } else if (code == 0) {
        code = etcd_pager_took(p, r);
        if (code < 0) {
            (void)err_set(e, code, "etcd: keys of a list are out of order");
        } else {
            set_revision(q, p->revision);
            code = tell_page(q, r, &a);
        }
    }
    arena_fini(&a);
    return code;
}

static int list_range(struct listing *q, struct etcd_range range, struct err *e) {
    struct etcd_pager p;
    int code = 0;
    etcd_pager_init(&p, range, q->revision);
    while (code == 0 && !p.is_done) {
        code = list_page(q, &p, e);
    }
    etcd_pager_fini(&p);
    return code;
}

static int etcd_list(struct store *s, struct store_key prefix, uint64_t *revision_out,
                     int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e) {
    struct arena a = {0};
    struct listing q = {.t = of(s),
                        .prefix = prefix,
                        .revision_out = revision_out,
                        .cb = cb,
                        .arg = arg,
                        .wants_built_in = str_is(prefix.space, STORE_SPACE_RESOURCES) &&
                                          str_starts(etcd_built_in_key(), prefix.key)};
    struct etcd_range *range = NULL;
    size_t n = etcd_ranges(prefix, &a, &range);
    int code = 0;
    if (n == 0) {
        /* A prefix that no key can have still tells the revision. */
        Etcd__RangeRequest ask = ETCD__RANGE_REQUEST__INIT;
        Etcd__RangeResponse *r = NULL;
        ask.key = pb_bytes(STR("/calico/resources/"));
        code = range_once(q.t, &ask, 0, &a, &r, e);
        if (code == 0) {
            set_revision(&q, q.t->revision);
        }
    }
    for (size_t i = 0; i < n && code == 0; i++) {
        code = list_range(&q, range[i], e);
    }
    if (code == 0 && q.wants_built_in) {
        code = tell_built_in(&q);
    }
    arena_fini(&a);
    return code;
}

static uint64_t etcd_revision(struct store *s) {
    struct etcd_store *t = of(s);
    struct arena a = {0};
    Etcd__RangeRequest ask = ETCD__RANGE_REQUEST__INIT;
    Etcd__RangeResponse *r = NULL;
    ask.key = pb_bytes(STR("/calico/resources/"));
    /* Not reached: the newest that was seen is as good an answer as can be had. */
    (void)!range_once(t, &ask, 0, &a, &r, NULL);
    arena_fini(&a);
    return t->revision;
}

/* ---- writing ---- */

/* "If key's revision is expect (REV_NONE: it doesn't exist), and `absent`, if any, doesn't exist:
 * then `op`; else it is told whether the key exists". */
struct swap {
    struct str key, absent;
    uint64_t expect;
    bool is_done;      /* out: the condition held */
    bool exists;       /* out, if not: the key does */
    int64_t deleted;   /* out, of a delete */
    uint64_t revision; /* out */
    bool is_unknown;   /* out, on failure */
};

static Etcd__Compare compare_of(struct str key, uint64_t expect) {
    Etcd__Compare c = ETCD__COMPARE__INIT;
    c.key = pb_bytes(key);
    c.result = ETCD__COMPARE__COMPARE_RESULT__EQUAL;
    if (expect == REV_NONE) {
        c.target = ETCD__COMPARE__COMPARE_TARGET__VERSION;
        c.target_union_case = ETCD__COMPARE__TARGET_UNION_VERSION;
        c.version = 0;
    } else {
        c.target = ETCD__COMPARE__COMPARE_TARGET__MOD;
        c.target_union_case = ETCD__COMPARE__TARGET_UNION_MOD_REVISION;
        c.mod_revision = expect > INT64_MAX ? INT64_MAX : (int64_t)expect;
    }
    return c;
}

static void take_swap(struct swap *w, const Etcd__TxnResponse *r) {
    w->is_done = r->succeeded;
    w->revision = r->header && r->header->revision > 0 ? (uint64_t)r->header->revision : 0;
    for (size_t i = 0; i < r->n_responses; i++) {
        const Etcd__ResponseOp *o = r->responses[i];
        if (o->response_case == ETCD__RESPONSE_OP__RESPONSE_RESPONSE_RANGE && o->response_range) {
            w->exists = o->response_range->n_kvs > 0;
        } else if (o->response_case == ETCD__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE &&
                   o->response_delete_range) {
            w->deleted = o->response_delete_range->deleted;
        }
    }
}

static int swap(struct etcd_store *t, struct swap *w, Etcd__RequestOp *op, struct arena *a,
                struct err *e) {
    Etcd__Compare conditions[2];
    Etcd__Compare *compare[2] = {&conditions[0], &conditions[1]};
    Etcd__TxnRequest q = ETCD__TXN_REQUEST__INIT;
    q.compare = compare;
    conditions[q.n_compare++] = compare_of(w->key, w->expect);
    if (w->absent.p) {
        conditions[q.n_compare++] = compare_of(w->absent, REV_NONE);
    }
    Etcd__RangeRequest look = ETCD__RANGE_REQUEST__INIT;
    look.key = pb_bytes(w->key);
    look.keys_only = true;
    Etcd__RequestOp otherwise = ETCD__REQUEST_OP__INIT;
    otherwise.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_RANGE;
    otherwise.request_range = &look;
    Etcd__RequestOp *success[] = {op}, *failure[] = {&otherwise};
    q.success = success;
    q.n_success = 1;
    q.failure = failure;
    q.n_failure = 1;
    struct etcd_request r = {"/etcdserverpb.KV/Txn", &q.base, true, 0};
    Etcd__TxnResponse *answer = NULL;
    int code = etcd_run(t->c, t->l, &r, &etcd__txn_response__descriptor, a, (void *)&answer,
                        &w->is_unknown, e);
    if (code == 0) {
        saw(t, answer->header);
        take_swap(w, answer);
    }
    return code;
}

/* Does the key hold what was to be written (text STR_NULL: nothing)? */
static bool was_done(struct etcd_store *t, struct swap *w, struct str text) {
    struct arena a = {0};
    const Etcd__KeyValue *kv = NULL;
    bool yes =
        read_pair(t, w->key, CHECK_MS, &a, &kv, NULL) == 0 &&
        (text.p ? kv && str_eq(pb_str(kv->value), text) && (uint64_t)kv->mod_revision != w->expect
                : !kv);
    if (yes) {
        w->is_done = true;
        w->deleted = !text.p;
        w->revision = kv ? (uint64_t)kv->mod_revision : w->revision;
    }
    arena_fini(&a);
    return yes;
}

/* A swap that is tried again when nobody can say what became of it. Then what stands there decides:
 * what looks like somebody else's write may be the first try's. */
static int sure_swap(struct etcd_store *t, struct swap *w, Etcd__RequestOp *op, struct str text,
                     struct arena *a, struct err *e) {
    int64_t end_ns = clock_ns() + WRITE_MS * 1000000LL;
    bool is_doubtful = false;
    for (;;) {
        int code = swap(t, w, op, a, e);
        is_doubtful = is_doubtful || (code < 0 && w->is_unknown);
        bool is_undone = code < 0 || !w->is_done || (!text.p && w->deleted == 0);
        if (is_doubtful && is_undone && was_done(t, w, text)) {
            return 0;
        }
        if (code == 0 || !w->is_unknown || clock_ns() > end_ns) {
            return code;
        }
    }
}

static int put_at(struct etcd_store *t, struct swap *w, struct store_key k, struct str value,
                  int64_t lease, struct arena *a, struct err *e) {
    struct str text = etcd_value_out(k, w->key, value, a);
    Etcd__PutRequest put = ETCD__PUT_REQUEST__INIT;
    put.key = pb_bytes(w->key);
    put.value = pb_bytes(text);
    put.lease = lease;
    Etcd__RequestOp op = ETCD__REQUEST_OP__INIT;
    op.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_PUT;
    op.request_put = &put;
    return sure_swap(t, w, &op, text, a, e);
}

static int del_at(struct etcd_store *t, struct swap *w, struct arena *a, struct err *e) {
    Etcd__DeleteRangeRequest del = ETCD__DELETE_RANGE_REQUEST__INIT;
    del.key = pb_bytes(w->key);
    Etcd__RequestOp op = ETCD__REQUEST_OP__INIT;
    op.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    op.request_delete_range = &del;
    return sure_swap(t, w, &op, STR_NULL, a, e);
}

static int built_in(struct err *e) {
    return err_set(e, ERR_DENIED,
                   "profile projectcalico-default-allow is built in: it can't be written");
}

/* Where an item stands: at its key, or, a policy of early versions, elsewhere. */
struct place {
    struct str key;
    uint64_t revision; /* 0: nothing there */
};

static int find_place(struct etcd_store *t, struct str key, struct str early, struct arena *a,
                      struct place *out, struct err *e) {
    const Etcd__KeyValue *now = NULL, *then = NULL;
    int code = read_pair(t, key, 0, a, &now, e);
    if (code == 0 && !now && early.p) {
        code = read_pair(t, early, 0, a, &then, e);
    }
    if (code == 0) {
        const Etcd__KeyValue *kv = then ? then : now;
        *out = (struct place){then ? early : key, kv ? (uint64_t)kv->mod_revision : 0};
    }
    return code;
}

static int conflict(struct store_key k, struct err *e) {
    return err_set(e, ERR_CONFLICT, "etcd: \"%.*s\" was changed by somebody else", STR_FMT(k.key));
}

/* What is to be written; value STR_NULL: a delete. */
struct change {
    struct store_key k;
    struct str value;
    int64_t lease;
    struct str key, early;
};

static int change_at(struct etcd_store *t, const struct change *c, struct swap *w, struct arena *a,
                     struct err *e) {
    return c->value.p ? put_at(t, w, c->k, c->value, c->lease, a, e) : del_at(t, w, a, e);
}

/* Without a condition of the caller's there is one nevertheless: that nobody wrote since we looked.
 * So a try that was thought lost and comes late changes nothing. */
static int change_any(struct etcd_store *t, const struct change *c, struct swap *w, struct arena *a,
                      struct err *e) {
    for (int i = 0; i < ANY_TRIES; i++) {
        struct place p;
        int code = find_place(t, c->key, c->early, a, &p, e);
        if (code < 0) {
            return code;
        }
        if (!c->value.p && p.revision == 0) {
            return not_found(c->k, e);
        }
        *w = (struct swap){.key = p.key, .expect = p.revision};
        w->absent = p.revision == 0 ? c->early : STR_NULL;
        code = change_at(t, c, w, a, e);
        if (code < 0 || w->is_done) {
            return code;
        }
    }
    return conflict(c->k, e);
}

static int change_if(struct etcd_store *t, const struct change *c, uint64_t expect, struct swap *w,
                     struct arena *a, struct err *e) {
    *w = (struct swap){.key = c->key, .expect = expect};
    w->absent = expect == REV_NONE ? c->early : STR_NULL;
    int code = change_at(t, c, w, a, e);
    if (code == 0 && !w->is_done && !w->exists && expect != REV_NONE && c->early.p) {
        *w = (struct swap){.key = c->early, .expect = expect};
        code = change_at(t, c, w, a, e);
    }
    if (code < 0 || w->is_done) {
        return code;
    }
    if (expect == REV_NONE) {
        return err_set(e, ERR_EXISTS, "etcd: \"%.*s\" exists already", STR_FMT(c->k.key));
    }
    return w->exists ? conflict(c->k, e) : not_found(c->k, e);
}

static int change(struct etcd_store *t, struct store_key k, struct str value, int64_t lease,
                  uint64_t expect, uint64_t *revision_out, struct err *e) {
    if (etcd_is_built_in(k)) {
        return built_in(e);
    }
    struct arena a = {0};
    struct swap w = {0};
    struct change c = {.k = k, .value = value, .lease = lease, .early = etcd_key_early(k, &a)};
    int code = etcd_key_of(k, &a, &c.key, e);
    if (code == 0) {
        code =
            expect == REV_ANY ? change_any(t, &c, &w, &a, e) : change_if(t, &c, expect, &w, &a, e);
    }
    if (code == 0 && revision_out) {
        *revision_out = w.revision;
    }
    arena_fini(&a);
    return code;
}

int etcd_put_lease(struct etcd_store *t, struct store_key k, struct str value, uint64_t expect,
                   int64_t lease, uint64_t *revision_out, struct err *e) {
    return change(t, k, value, lease, expect, revision_out, e);
}

static int etcd_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                    uint64_t *revision_out, struct err *e) {
    return etcd_put_lease(of(s), k, value, expect, 0, revision_out, e);
}

static int etcd_del(struct store *s, struct store_key k, uint64_t expect, struct err *e) {
    return change(of(s), k, STR_NULL, 0, expect, NULL, e);
}

/* Single writes: see store_begin. */
static int etcd_nothing(struct store *s MG_UNUSED, struct err *e MG_UNUSED) {
    return 0;
}
static void etcd_rollback(struct store *s MG_UNUSED) {
}

const struct store_driver store_etcd = {
    .scheme = "etcd",
    .open = etcd_open,
    .close = etcd_close,
    .get = etcd_get,
    .list = etcd_list,
    .put = etcd_put,
    .del = etcd_del,
    .begin = etcd_nothing,
    .commit = etcd_nothing,
    .rollback = etcd_rollback,
    .revision = etcd_revision,
    .watch = etcd_watch,
    .watch_free = etcd_watch_free,
    .follow = etcd_follow,
    .follow_ask = etcd_follow_ask,
    .follow_free = etcd_follow_free,
    .interrupt = etcd_interrupt,
};
