/* Reflectors: one REST resource each, listed and watched on a loop without blocking it, until the
 * end. They share a source: the connection, its credential and the owner who is told. */
#pragma once

#include "store/kube_int.h"
#include "store/kube_split.h"

struct kube_reflect;

struct kube_source_ops {
    void (*on_snapshot)(void *owner, struct str scope);
    void (*on_item)(void *owner, const struct store_item *it);
    void (*on_snapshot_end)(void *owner, struct str scope, uint64_t revision);
    void (*on_progress)(void *owner, struct str scope, uint64_t revision);
    /* is_down or is_listed of a reflector is another one now. */
    void (*on_state)(void *owner, struct kube_reflect *r, const char *why);
    /* Only where nothing may be listed: the position is lost, the reflector rests. */
    void (*on_gone)(void *owner, int code);
};

struct kube_source {
    struct loop *loop;
    struct kube_shared *shared;
    struct kube_conn conn;
    const struct kube_source_ops *ops;
    void *owner; /* freed with the source, by free() */
    struct kube_reflect *reflectors;
    size_t n;
    bool is_slim;     /* items are cut down to what the engine uses */
    bool may_list;    /* else: only watches, from where they are told */
    bool is_fetching; /* a credential, on a worker */
    unsigned n_lost;  /* times in a row that no connection was to be had */
    int64_t retry_ns; /* when all reflectors try together again */
    uint64_t newest;  /* of all revisions that the server has named */
    bool is_dead;
    unsigned depth; /* callbacks under way, a fetch too: the end waits for them */
};

/* One answer that is being read. */
struct kube_fetch {
    struct kube_reflect *r;
    struct http_call *call;
    struct kube_split split;
    bool is_list, is_failing;
    bool is_raw; /* whatever comes is kept in error */
    int status, code;
    int64_t retry_ms;
    struct buf error;
    uint64_t list_revision;
    char *token; /* of the next page, or NULL */
    size_t n_objects;
    struct err e;
};

enum kube_phase {
    KUBE_WAIT, /* the timer says when to go on */
    KUBE_AUTH, /* a credential is being fetched */
    KUBE_LIST,
    KUBE_WATCH,
    KUBE_DISCOVER, /* whether the server has the kind at all */
    KUBE_REST,     /* over */
};

struct kube_reflect {
    struct kube_source *src;
    const struct kube_rest *rest;
    const struct kube_view *views[2]; /* the plain one last: it is allowed to change the object */
    size_t n_views;
    enum kube_phase phase;
    struct kube_fetch main, ask;
    struct loop_timer *timer, *settle;
    bool use_old;
    bool is_listed; /* a whole snapshot was told, or the server has no such kind */
    bool is_down;
    bool is_absent;   /* the server has no such kind; at absent_ns it said so last */
    bool needs_list;  /* no position, or it is lost */
    bool is_quorum;   /* the next list must not come from a server's memory */
    bool was_refused; /* 401 with the credential at hand */
    bool has_aliases; /* policies under their old names have been seen */
    bool is_snapshot; /* begun and not ended */
    uint64_t pos;     /* changes up to here have been told: a watch goes on from here */
    uint64_t base;    /* of the newest snapshot: older events are in it */
    uint64_t told;    /* by on_progress */
    size_t n_objects; /* in the newest snapshot */
    unsigned n_failed, n_stuck, n_lost;
    unsigned n_missing; /* 404 in a row, since missing_since_ns */
    int64_t missing_since_ns;
    uint64_t stuck_at;
    int64_t watch_since_ns, heard_ns, asked_ns, absent_ns, target_ns;
    bool wants_ask;  /* again, when this one is over */
    uint64_t target; /* what the one who asks waits for; 0: nobody */
    char why[512];
};

/* owner: an object from malloc that holds the source. views: those to follow. */
void kube_source_init(struct kube_source *s, struct loop *l, struct kube_shared *shared,
                      const struct kube_source_ops *ops, void *owner);
void kube_source_add(struct kube_source *s, const struct kube_view *v);
/* position: where to watch from when !may_list. */
void kube_source_start(struct kube_source *s, uint64_t position);
/* Ends everything; the owner is freed when no callback is under way. */
void kube_source_end(struct kube_source *s);
/* Finds out how far the reflector has really come (see kube_ask.c). */
void kube_reflect_ask(struct kube_reflect *r);

/* Between the files of reflecting. */
void kube_source_enter(struct kube_source *s);
void kube_source_leave(struct kube_source *s);
int kube_reflect_object(void *fetch, struct str text);
int kube_reflect_meta(void *fetch, struct str text);
void kube_reflect_begin_snapshot(struct kube_reflect *r);
void kube_reflect_end_snapshot(struct kube_reflect *r, uint64_t revision);
void kube_reflect_progress(struct kube_reflect *r, uint64_t revision);
/* Starts reading path into f. */
MG_NODISCARD int kube_fetch_start(struct kube_fetch *f, struct str path, int64_t timeout_ms,
                                  const struct http_call_ops *ops, struct err *e);
void kube_fetch_stop(struct kube_fetch *f);
void kube_fetch_head(struct kube_fetch *f, int status, const struct http_header *h, size_t n);
void kube_fetch_data(struct kube_fetch *f, struct str chunk);
void kube_reflect_asked_stop(struct kube_reflect *r);
void kube_reflect_go(struct kube_reflect *r);
/* The server has named a revision. */
void kube_source_saw(struct kube_source *s, uint64_t revision);
struct str kube_reflect_path(const struct kube_reflect *r, struct arena *a);
