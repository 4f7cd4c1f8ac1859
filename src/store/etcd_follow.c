/* Following etcd on the caller's loop: a snapshot in pages of one revision, then a watch from
 * there; and the plain watch, which is the same without a snapshot.
 *
 * Each start asks first (a linearizable read): which member answers, whether it is the same cluster
 * with the same history, what its newest revision is. Then the watch goes on behind the position.
 * The position moves when a message is whole; what was told of a message that broke off is told
 * again. Compacted, restored, replaced: a new snapshot, of which the consumer takes the
 * differences.
 *
 * A member's answer to a request for progress may overtake events (etcd before 3.4.31 and 3.5.13,
 * issues 15220 and 17507 there), most of all after a watch was opened behind the newest revision:
 * etcd catches up in the background. So
 * - a watch is opened at the newest event that is known (the anchor): that it comes again shows
 *   that the member has caught up; before, nobody is asked for progress;
 * - the first answer's revision counts when a second, asked for a while later, has come behind it;
 * - what was learned so is told, but a watch never goes on from there: events can't be lost. */
#include "store/etcd_int.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    RETRY_MIN_MS = 200,
    RETRY_MAX_MS = 5000,
    PROGRESS_GAP_MS = 60,      /* between the two requests for progress */
    PROGRESS_AGAIN_MS = 50,    /* the member lags behind the cluster, or has not caught up */
    PROGRESS_WAIT_MS = 1000,   /* for an answer; a member that catches up may leave it out */
    PROGRESS_TRIES = 5,        /* without a word; then the member is given up */
    CAUGHT_UP_MS = 300,        /* when there is no anchor: three of etcd's rounds */
    CATCH_UP_REVISIONS = 1000, /* that etcd sends at once; a message with fewer is the last */
    OPEN_WAIT_MS = 10000,      /* for the watch to be there */
    WHY_MAX = 500,
};

enum state {
    STATE_ASKING,   /* the first read of a start */
    STATE_LISTING,  /* pages of the snapshot */
    STATE_OPENING,  /* the watch is asked for */
    STATE_WATCHING, /* and runs */
    STATE_PAUSING,  /* until the next start */
};

enum ask {
    ASK_NONE,
    ASK_READING, /* what is the newest revision? */
    ASK_FIRST,   /* the first request for progress is out */
    ASK_GAP,
    ASK_SECOND,
    ASK_AGAIN, /* the member was behind */
};

struct etcd_stream {
    struct store_follow follow; /* one of the two, by has_snapshot */
    struct store_watch watch;
    bool has_snapshot;
    struct store_follow_ops ops;
    struct store_watch_ops watch_ops;
    void *arg;
    struct loop *l;
    struct etcd_cluster *c;
    char *space, *prefix;
    struct arena mem; /* of range */
    struct etcd_range range;
    enum state state;
    struct etcd_op *op;
    struct etcd_pager pager;
    struct http_call *call;
    struct grpc_split split;
    struct loop_timer *retry, *ask_timer;
    int64_t pause_ms;
    uint64_t position; /* everything up to here has been told: the watch goes on behind it */
    uint64_t told;     /* the same with what was learned by asking; at least position */
    uint64_t newest;   /* in the message under way */
    uint64_t anchor;   /* revision of the newest event or item of the range, 0: none */
    bool has_anchor, is_caught_up; /* the watch was opened at it; it has come again */
    size_t n_revisions;            /* in the message under way */
    int64_t opened_ns;
    bool is_connected, was_told_lost, is_in_sync, is_listed;
    enum ask ask;
    bool ask_again; /* somebody asked after the reading began */
    uint64_t ask_target, ask_first;
    unsigned n_unanswered;
    struct etcd_op *ask_op;
    unsigned depth;
    bool is_dead;
};

static void destroy(struct etcd_stream *f) {
    etcd_cluster_free(f->c);
    grpc_split_fini(&f->split);
    etcd_pager_fini(&f->pager);
    arena_fini(&f->mem);
    free(f->space);
    free(f->prefix);
    free(f);
}

static void enter(struct etcd_stream *f) {
    f->depth++;
}

/* False: f is gone. */
static bool leave(struct etcd_stream *f) {
    bool is_dead = f->is_dead;
    if (--f->depth == 0 && is_dead) {
        destroy(f);
    }
    return !is_dead;
}

/* ---- what the consumer is told ---- */

static void tell_item(struct etcd_stream *f, const struct store_item *it) {
    if (f->has_snapshot) {
        f->ops.on_item(f->arg, it);
    } else if (f->watch_ops.on_item) {
        f->watch_ops.on_item(f->arg, it);
    }
}

static void tell_progress(struct etcd_stream *f) {
    if (f->has_snapshot) {
        f->ops.on_progress(f->arg, STR(""), f->told);
    } else if (f->watch_ops.on_progress) {
        f->watch_ops.on_progress(f->arg, f->told);
    }
}

static void tell_connected(struct etcd_stream *f, bool is_connected, const char *why) {
    bool is_news = is_connected ? !f->is_connected : f->is_connected || !f->was_told_lost;
    f->is_connected = is_connected;
    f->was_told_lost = !is_connected;
    if (is_news && f->has_snapshot && f->ops.on_connected) {
        f->ops.on_connected(f->arg, is_connected, why);
    }
}

/* ---- starting, again and again ---- */

static void start(struct etcd_stream *f);
static void list_next(struct etcd_stream *f);
static void open_watch(struct etcd_stream *f);
static void ask_restart(struct etcd_stream *f);

static void drop_calls(struct etcd_stream *f) {
    etcd_op_free(TAKE_PTR(f->op));
    etcd_op_free(TAKE_PTR(f->ask_op));
    http_call_free(TAKE_PTR(f->call));
    loop_timer_stop(f->ask_timer);
    if (f->ask != ASK_NONE) {
        f->ask = ASK_NONE;
        f->ask_again = true; /* answered once it runs again */
    }
}

/* Lost: tries again after a pause that grows, and is not the same for all. */
static void lost(struct etcd_stream *f, const char *reason) {
    char why[WHY_MAX]; /* the reason may be a call's, which goes now */
    (void)snprintf(why, sizeof(why), "%s", reason);
    LOG_D("store", "etcd_lost", "space=%s position=%" PRIu64 " why=%s", f->space, f->position,
          log_quote(str_c(why)));
    drop_calls(f);
    f->state = STATE_PAUSING;
    f->pause_ms = f->pause_ms ? f->pause_ms * 2 : RETRY_MIN_MS;
    f->pause_ms = f->pause_ms < RETRY_MAX_MS ? f->pause_ms : RETRY_MAX_MS;
    int64_t jitter = clock_ns() / 1000 % f->pause_ms;
    loop_timer_start(f->retry, f->pause_ms / 2 + jitter / 2 + 1, 0);
    tell_connected(f, false, why);
}

/* The position is of no use: everything is read again. A plain watch ends. why may be a call's. */
static void gone(struct etcd_stream *f, const char *why) {
    LOG_D("store", "etcd_gone", "space=%s position=%" PRIu64 " why=%s", f->space, f->position,
          log_quote(str_c(why)));
    drop_calls(f);
    if (!f->has_snapshot) {
        f->state = STATE_PAUSING;
        f->watch_ops.on_end(f->arg, ERR_GONE);
        return;
    }
    f->is_listed = false;
    start(f);
}

/* Another cluster, or one that has forgotten: what its revisions mean begins anew. */
static void replaced(struct etcd_stream *f, const char *why) {
    f->position = f->told = f->anchor = 0;
    f->was_told_lost = false; /* whatever was said before, this matters more */
    tell_connected(f, false, why);
    if (!f->is_dead && f->has_snapshot && f->ops.on_reset) {
        f->ops.on_reset(f->arg, STR(""));
    }
    if (!f->is_dead) {
        gone(f, why);
    }
}

static void on_retry(void *arg) {
    struct etcd_stream *f = arg;
    enter(f);
    if (f->state == STATE_OPENING) {
        etcd_cluster_next(f->c);
        lost(f, "etcd: no answer to a watch");
    } else {
        start(f);
    }
    (void)leave(f);
}

/* Etcd__RangeResponse of an op's end in the arena, or NULL after the stream was lost. */
static Etcd__RangeResponse *range_answer(struct etcd_stream *f, const struct etcd_end *end,
                                         struct arena *a) {
    if (end->code < 0) {
        lost(f, end->reason);
        return NULL;
    }
    Etcd__RangeResponse *r = grpc_unpack(&etcd__range_response__descriptor, end->message, a);
    if (!r || !r->header) {
        lost(f, "etcd: the answer can't be read");
        return NULL;
    }
    return r;
}

static void on_asked(void *arg, const struct etcd_end *end) {
    struct etcd_stream *f = arg;
    struct arena a = {0};
    char why[WHY_MAX];
    enter(f);
    Etcd__RangeResponse *r = range_answer(f, end, &a);
    if (r) {
        etcd_op_free(TAKE_PTR(f->op));
        if (!etcd_cluster_is_same(f->c, r->header, f->told, why, sizeof(why))) {
            replaced(f, why);
        } else if (f->is_listed) {
            open_watch(f);
        } else {
            etcd_pager_fini(&f->pager);
            etcd_pager_init(&f->pager, f->range, (uint64_t)r->header->revision);
            f->anchor = 0;
            f->ops.on_snapshot(f->arg, STR(""));
            if (!f->is_dead) {
                list_next(f);
            }
        }
    }
    arena_fini(&a);
    (void)leave(f);
}

static struct etcd_op *ask_revision(struct etcd_stream *f,
                                    void (*done)(void *arg, const struct etcd_end *end)) {
    Etcd__RangeRequest q = ETCD__RANGE_REQUEST__INIT;
    q.key = pb_bytes(f->range.from); /* below the range: roles that may read it allow this */
    q.keys_only = true;
    struct etcd_request r = {ETCD_RANGE, &q.base, false, 0};
    return etcd_op_new(f->c, &r, done, f);
}

static void start(struct etcd_stream *f) {
    f->state = STATE_ASKING;
    f->op = ask_revision(f, on_asked);
}

/* ---- the snapshot ---- */

static void tell_page(struct etcd_stream *f, const Etcd__RangeResponse *r, struct arena *a) {
    struct str space = str_c(f->space);
    for (size_t i = 0; i < r->n_kvs && !f->is_dead; i++) {
        struct store_item it;
        uint64_t revision = r->kvs[i]->mod_revision > 0 ? (uint64_t)r->kvs[i]->mod_revision : 0;
        f->anchor = revision > f->anchor ? revision : f->anchor;
        if (etcd_item_of(space, r->kvs[i], a, &it) && str_starts(it.key, str_c(f->prefix))) {
            tell_item(f, &it);
        }
    }
}

static void end_snapshot(struct etcd_stream *f) {
    if (str_is(str_c(f->space), STORE_SPACE_RESOURCES) &&
        str_starts(etcd_built_in_key(), str_c(f->prefix))) {
        struct store_item it = {str_c(f->space), etcd_built_in_key(), etcd_built_in_value(), 1};
        tell_item(f, &it);
    }
    f->position = f->told = f->pager.revision;
    f->is_listed = true;
    if (!f->is_dead) {
        f->ops.on_snapshot_end(f->arg, STR(""), f->position);
    }
    if (!f->is_dead && !f->is_in_sync) {
        f->is_in_sync = true;
        if (f->ops.on_in_sync) {
            f->ops.on_in_sync(f->arg);
        }
    }
    if (!f->is_dead) {
        open_watch(f);
    }
}

static void on_page(void *arg, const struct etcd_end *end) {
    struct etcd_stream *f = arg;
    struct arena a = {0};
    enter(f);
    if (end->code == ERR_TOO_BIG && etcd_pager_smaller(&f->pager)) {
        etcd_op_free(TAKE_PTR(f->op));
        list_next(f);
    } else {
        /* Compacted while it was listed: lost() is a new start after a pause. */
        Etcd__RangeResponse *r = range_answer(f, end, &a);
        if (r) {
            etcd_op_free(TAKE_PTR(f->op));
            if (etcd_pager_took(&f->pager, r) < 0) {
                lost(f, "etcd: keys of a list are out of order");
            } else {
                tell_page(f, r, &a);
                if (!f->is_dead && f->pager.is_done) {
                    end_snapshot(f);
                } else if (!f->is_dead) {
                    list_next(f);
                }
            }
        }
    }
    arena_fini(&a);
    (void)leave(f);
}

static void list_next(struct etcd_stream *f) {
    f->state = STATE_LISTING;
    Etcd__RangeRequest q;
    etcd_pager_ask(&f->pager, &q);
    struct etcd_request r = {ETCD_RANGE, &q.base, false, 0};
    f->op = etcd_op_new(f->c, &r, on_page, f);
}

/* ---- the watch ---- */

static void tell_event(struct etcd_stream *f, const Etcd__Event *ev, struct arena *a) {
    const Etcd__KeyValue *kv = ev->kv;
    uint64_t revision = kv && kv->mod_revision > 0 ? (uint64_t)kv->mod_revision : 0;
    if (revision > f->newest || f->n_revisions == 0) {
        f->n_revisions++;
    }
    f->newest = revision > f->newest ? revision : f->newest;
    if (revision <= f->position) {
        return; /* the anchor; and a member that came back has been seen to repeat itself */
    }
    struct store_item it;
    if (!etcd_item_of(str_c(f->space), kv, a, &it) || !str_starts(it.key, str_c(f->prefix))) {
        return;
    }
    if (ev->type == ETCD__EVENT__EVENT_TYPE__DELETE) {
        it.value = STR_NULL;
    }
    tell_item(f, &it);
}

/* The member has passed on everything up to revision. */
static void move_to(struct etcd_stream *f, uint64_t revision) {
    f->position = revision > f->position ? revision : f->position;
    f->told = f->position > f->told ? f->position : f->told;
    tell_progress(f);
}

/* The end of a message of events. */
static void end_message(struct etcd_stream *f) {
    f->is_caught_up = f->is_caught_up || (f->has_anchor && f->n_revisions < CATCH_UP_REVISIONS);
    f->n_revisions = 0;
    f->anchor = f->newest > f->anchor ? f->newest : f->anchor;
    move_to(f, f->newest);
}

static void ask_answered(struct etcd_stream *f, uint64_t revision);

static void watch_canceled(struct etcd_stream *f, const Etcd__WatchResponse *w) {
    char why[WHY_MAX];
    if (w->compact_revision > 0 && f->has_anchor && (uint64_t)w->compact_revision <= f->position) {
        f->anchor = 0; /* only the anchor is gone */
        http_call_free(TAKE_PTR(f->call));
        open_watch(f);
        return;
    }
    if (w->compact_revision > 0) {
        (void)snprintf(why, sizeof(why), "compacted up to revision %" PRId64, w->compact_revision);
        gone(f, why);
        return;
    }
    struct grpc_status st;
    grpc_status_of(2, str_c(w->cancel_reason), &st);
    if (st.kind == GRPC_LOGIN) {
        etcd_cluster_forget_login(f->c);
    } else if (st.code == ERR_GONE) {
        gone(f, st.reason);
        return;
    }
    (void)snprintf(why, sizeof(why), "etcd at %s: the watch was ended: %s", etcd_cluster_name(f->c),
                   st.reason);
    lost(f, why);
}

static int on_watch_message(void *arg, struct str message) {
    struct etcd_stream *f = arg;
    struct arena a = {0};
    char why[WHY_MAX];
    enter(f);
    f->n_unanswered = 0;
    const struct http_call *call = f->call;
    Etcd__WatchResponse *w = grpc_unpack(&etcd__watch_response__descriptor, message, &a);
    if (!w) {
        lost(f, "etcd: a message of the watch can't be read");
    } else if (w->canceled) {
        watch_canceled(f, w);
    } else if (!etcd_cluster_is_same(f->c, w->header, 0, why, sizeof(why))) {
        replaced(f, why);
    } else if (w->created) {
        f->state = STATE_WATCHING;
        f->opened_ns = clock_ns();
        loop_timer_stop(f->retry);
        f->pause_ms = 0;
        tell_connected(f, true, "");
        if (!f->is_dead && f->ask_again) {
            ask_restart(f);
        }
    } else if (w->n_events) {
        for (size_t i = 0; i < w->n_events && !f->is_dead; i++) {
            tell_event(f, w->events[i], &a);
        }
        if (!f->is_dead && !w->fragment) {
            end_message(f);
        }
    } else if (w->header && w->header->revision > 0) {
        uint64_t revision = (uint64_t)w->header->revision;
        if (w->watch_id >= 0) {
            move_to(f, revision); /* in order with the events */
        } else {
            ask_answered(f, revision);
        }
    }
    arena_fini(&a);
    bool is_over = f->is_dead || f->call != call;
    return leave(f) && !is_over ? 0 : -ECANCELED;
}

static void on_watch_data(void *arg, struct str chunk) {
    struct etcd_stream *f = arg;
    enter(f);
    int r = grpc_split_feed(&f->split, chunk, on_watch_message, f);
    if (r < 0 && r != -ECANCELED && !f->is_dead) {
        lost(f, "etcd: the watch is no stream of gRPC");
    }
    (void)leave(f);
}

static void watch_ended(struct etcd_stream *f, const struct http_header *h, size_t n,
                        const char *reason) {
    char why[WHY_MAX];
    uint64_t number = 0;
    struct str status = http_header_get(h, n, "grpc-status");
    struct grpc_status st = {.reason = "the watch was ended"};
    if (status.p && str_to_u64(status, &number) == 0 && number) {
        grpc_status_of(number, http_header_get(h, n, "grpc-message"), &st);
        if (st.kind == GRPC_LOGIN) {
            etcd_cluster_forget_login(f->c);
        }
    }
    (void)snprintf(why, sizeof(why), "etcd at %s: %s", etcd_cluster_name(f->c), st.reason);
    etcd_cluster_next(f->c);
    lost(f, reason ? reason : why);
}

static void on_watch_head(void *arg, int status, const struct http_header *h, size_t n) {
    struct etcd_stream *f = arg;
    enter(f);
    if (status != 200 || http_header_get(h, n, "grpc-status").p) {
        watch_ended(f, h, n, NULL);
    }
    (void)leave(f);
}

static void on_watch_end(void *arg, const struct http_end *end) {
    struct etcd_stream *f = arg;
    enter(f);
    watch_ended(f, end->trailers, end->n_trailers, end->code < 0 ? end->reason : NULL);
    (void)leave(f);
}

static void open_watch(struct etcd_stream *f) {
    static const struct http_call_ops ops = {
        .on_head = on_watch_head, .on_data = on_watch_data, .on_end = on_watch_end};
    f->state = STATE_OPENING;
    loop_timer_start(f->retry, OPEN_WAIT_MS, 0);
    f->newest = 0;
    f->n_revisions = 0;
    f->has_anchor = f->anchor > 0 && f->anchor <= f->position;
    f->is_caught_up = false;
    grpc_split_fini(&f->split);
    grpc_split_init(&f->split, ETCD_MESSAGE_MAX);
    Etcd__WatchCreateRequest create = ETCD__WATCH_CREATE_REQUEST__INIT;
    create.key = pb_bytes(f->range.from);
    create.range_end = pb_bytes(f->range.to);
    create.start_revision = (int64_t)(f->has_anchor ? f->anchor : f->position + 1);
    create.progress_notify = true;
    create.fragment = true;
    Etcd__WatchRequest q = ETCD__WATCH_REQUEST__INIT;
    q.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    q.create_request = &create;
    struct buf body = BUF_INIT(2 * STORE_KEY_MAX + 256);
    grpc_frame(&body, &q.base);
    struct http_header headers[ETCD_HEADERS];
    struct http_request r = {.method = "POST",
                             .path = STR("/etcdserverpb.Watch/Watch"),
                             .headers = headers,
                             .n_headers = etcd_cluster_headers(f->c, headers),
                             .body = buf_view(&body),
                             .is_streaming = true};
    struct err e = {.msg = ""};
    if (http_call_new(etcd_cluster_member(f->c), &r, &ops, f, &f->call, &e) < 0) {
        lost(f, e.msg);
    }
    buf_fini(&body);
}

/* ---- what is the newest revision, and has it been told? ---- */

static void on_ask_timer(void *arg);

static void send_progress_request(struct etcd_stream *f, enum ask next) {
    Etcd__WatchProgressRequest progress = ETCD__WATCH_PROGRESS_REQUEST__INIT;
    Etcd__WatchRequest q = ETCD__WATCH_REQUEST__INIT;
    q.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    q.progress_request = &progress;
    struct buf body = BUF_INIT(64);
    grpc_frame(&body, &q.base);
    f->ask = next;
    loop_timer_start(f->ask_timer, PROGRESS_WAIT_MS, 0);
    if (http_call_send(f->call, buf_view(&body)) < 0) {
        lost(f, "etcd: the watch takes no request for progress");
    }
    buf_fini(&body);
}

static void ask_first(struct etcd_stream *f) {
    if (f->is_caught_up ||
        (!f->has_anchor && clock_ns() - f->opened_ns > CAUGHT_UP_MS * 1000000LL)) {
        send_progress_request(f, ASK_FIRST);
    } else {
        f->ask = ASK_AGAIN;
        loop_timer_start(f->ask_timer, PROGRESS_AGAIN_MS, 0);
    }
}

static void on_newest(void *arg, const struct etcd_end *end) {
    struct etcd_stream *f = arg;
    struct arena a = {0};
    char why[WHY_MAX];
    enter(f);
    const Etcd__RangeResponse *r =
        end->code == 0 ? grpc_unpack(&etcd__range_response__descriptor, end->message, &a) : NULL;
    etcd_op_free(TAKE_PTR(f->ask_op));
    if (!r || !r->header || r->header->revision <= 0) {
        f->ask = ASK_AGAIN; /* the watch is well as far as is known: it says when it is not */
        loop_timer_start(f->ask_timer, RETRY_MAX_MS, 0);
    } else if (!etcd_cluster_is_same(f->c, r->header, f->told, why, sizeof(why))) {
        replaced(f, why);
    } else if ((uint64_t)r->header->revision <= f->told) {
        f->ask = ASK_NONE;
        tell_progress(f);
        if (!f->is_dead && f->ask_again) {
            ask_restart(f);
        }
    } else {
        f->ask_target = (uint64_t)r->header->revision;
        ask_first(f);
    }
    arena_fini(&a);
    (void)leave(f);
}

static void ask_restart(struct etcd_stream *f) {
    f->ask_again = false;
    f->ask = ASK_READING;
    f->ask_op = ask_revision(f, on_newest);
}

static void ask_answered(struct etcd_stream *f, uint64_t revision) {
    if (f->ask == ASK_FIRST) {
        f->ask = ASK_GAP;
        f->ask_first = revision;
        loop_timer_start(f->ask_timer, PROGRESS_GAP_MS, 0);
    } else if (f->ask == ASK_SECOND) {
        loop_timer_stop(f->ask_timer);
        bool is_behind = f->ask_first < f->ask_target;
        f->ask = is_behind ? ASK_AGAIN : ASK_NONE;
        if (is_behind) {
            loop_timer_start(f->ask_timer, PROGRESS_AGAIN_MS, 0);
        }
        f->told = f->ask_first > f->told ? f->ask_first : f->told;
        tell_progress(f);
        if (!f->is_dead && f->ask == ASK_NONE && f->ask_again) {
            ask_restart(f);
        }
    }
}

static void on_ask_timer(void *arg) {
    struct etcd_stream *f = arg;
    enter(f);
    switch (f->ask) {
    case ASK_GAP:
        send_progress_request(f, ASK_SECOND);
        break;
    case ASK_AGAIN:
        ask_restart(f);
        break;
    case ASK_FIRST:
    case ASK_SECOND:
        if (++f->n_unanswered < PROGRESS_TRIES) {
            ask_restart(f);
        } else {
            etcd_cluster_next(f->c);
            lost(f, "etcd: no answer to requests for the watch's progress");
        }
        break;
    case ASK_NONE:
    case ASK_READING:
        break;
    }
    (void)leave(f);
}

/* ---- life ---- */

static char *dup_str(struct str s) {
    char *p = calloc(1, s.n + 1);
    mg_assert(p != NULL);
    memcpy(p, s.n ? s.p : "", s.n);
    return p;
}

static int stream_new(struct etcd_store *t, struct loop *l, struct store_key prefix, void *arg,
                      struct etcd_stream **out, struct err *e) {
    struct etcd_stream *f = calloc(1, sizeof(*f));
    mg_assert(f != NULL);
    f->follow.drv = f->watch.drv = t->base.drv;
    f->arg = arg;
    f->l = l;
    f->space = dup_str(prefix.space);
    f->prefix = dup_str(prefix.key);
    if (!etcd_range_around((struct store_key){str_c(f->space), str_c(f->prefix)}, &f->mem,
                           &f->range)) {
        /* Nothing can be there: a key that never exists stands for it. */
        f->range = (struct etcd_range){STR("/calico/resources/"), STR("/calico/resources/ ")};
    }
    int r = etcd_cluster_new(l, &t->o, &f->c, e);
    if (r < 0) {
        destroy(f);
        return r;
    }
    f->retry = loop_timer_new(l, on_retry, f);
    f->ask_timer = loop_timer_new(l, on_ask_timer, f);
    *out = f;
    return 0;
}

static void stream_free(struct etcd_stream *f) {
    if (f->is_dead) {
        return;
    }
    f->is_dead = true;
    drop_calls(f);
    loop_timer_free(TAKE_PTR(f->retry));
    loop_timer_free(TAKE_PTR(f->ask_timer));
    if (f->depth == 0) {
        destroy(f);
    }
}

int etcd_follow(struct store *s, struct loop *l, struct store_key prefix,
                const struct store_follow_ops *ops, void *arg, struct store_follow **out,
                struct err *e) {
    struct etcd_stream *f = NULL;
    int r = stream_new((struct etcd_store *)s, l, prefix, arg, &f, e);
    if (r == 0) {
        f->has_snapshot = true;
        f->ops = *ops;
        *out = &f->follow;
        start(f);
    }
    return r;
}

void etcd_follow_ask(struct store_follow *base) {
    struct etcd_stream *f = container_of(base, struct etcd_stream, follow);
    if (f->state == STATE_WATCHING && f->ask == ASK_NONE) {
        ask_restart(f);
    } else {
        f->ask_again = true;
    }
}

void etcd_follow_free(struct store_follow *base) {
    stream_free(container_of(base, struct etcd_stream, follow));
}

int etcd_watch(struct store *s, struct loop *l, struct store_key prefix, uint64_t from_revision,
               const struct store_watch_ops *ops, void *arg, struct store_watch **out,
               struct err *e) {
    struct etcd_stream *f = NULL;
    int r = stream_new((struct etcd_store *)s, l, prefix, arg, &f, e);
    if (r == 0) {
        f->watch_ops = *ops;
        f->position = from_revision;
        f->is_listed = true;
        *out = &f->watch;
        start(f);
    }
    return r;
}

void etcd_watch_free(struct store_watch *base) {
    stream_free(container_of(base, struct etcd_stream, watch));
}
