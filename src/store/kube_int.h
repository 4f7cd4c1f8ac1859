/* What the files of the Kubernetes driver share: a connection with its credential, and calls on it.
 * The driver's table is in kube.c, blocking calls in kube_call.c and kube_list.c, following in
 * kube_follow.c and kube_reflect.c. */
#pragma once

#include "base/buf.h"
#include "http/http.h"
#include "store/driver.h"
#include "store/kube.h"
#include "store/kube_config.h"
#include "store/kube_map.h"

enum {
    KUBE_PAGE = 500,             /* objects asked for at once */
    KUBE_CALL_MS = 30000,        /* deadline of one request */
    KUBE_LIST_MS = 300000,       /* of a page: the first list comes whole from a server's cache */
    KUBE_PATIENCE_MS = 30000,    /* a blocking call waits so long for a server that says "later" */
    KUBE_RETRY_AFTER_MAX_S = 60, /* more is not believed */
    KUBE_HEADERS = 24,
    KUBE_PING_MS = 10000, /* silence on a watch, after which the server is asked */
    KUBE_PONG_MS = 5000,
    KUBE_STATUS_MAX = 1 << 20,      /* bytes of an answer that is an error */
    KUBE_OBJECT_TEXT_MAX = 8 << 20, /* bytes of one object */
};

struct kube_conn {
    struct loop *loop;
    const struct kube_config *cfg;
    struct http_client *client; /* made when first needed */
    struct kube_auth auth;
};

/* cfg outlives the connection. */
void kube_conn_init(struct kube_conn *c, struct loop *l, const struct kube_config *cfg);
void kube_conn_fini(struct kube_conn *c);
/* Takes a credential over (take_auth becomes empty); makes the client, again if its certificate is
 * another one. Calls of the old client must have been freed then: *needs_new says so beforehand. */
MG_NODISCARD int kube_conn_use(struct kube_conn *c, struct kube_auth *take_auth, struct err *e);
/* A fresh credential and a client: blocks for both. */
MG_NODISCARD int kube_conn_ready(struct kube_conn *c, struct err *e);
/* Headers of a request; content_type NULL: no body. Views of c and static text. */
size_t kube_headers(const struct kube_conn *c, const char *content_type,
                    struct http_header h[KUBE_HEADERS]);
/* Wall clock in seconds. */
int64_t kube_now_s(void);

/* What a request is about, for errors. */
struct kube_subject {
    const char *verb; /* "get", "list", "create" … as RBAC calls it */
    const struct kube_rest *rest;
    const char *sub; /* "status" or NULL */
    struct str ns, name;
};
/* A code for an answer that is no success, and a sentence with the server's own message. */
int kube_status_error(const struct kube_subject *s, int status, struct str body, struct err *e);
/* 404 because the server has no such kind (rather than no such object). */
bool kube_is_unknown_kind(int status, struct str body);
/* Milliseconds that the server wants us to wait; fallback without. */
int64_t kube_retry_after_ms(const struct http_header *h, size_t n, int64_t fallback_ms);

/* A configuration that a store and those who follow it share. */
struct kube_shared {
    unsigned n_refs;
    struct arena arena;
    struct kube_config cfg;
    struct str node; /* ours, or STR_NULL */
};
void kube_shared_unref(struct kube_shared *c);

/* The store. */
struct kube_store {
    struct store base;
    struct kube_shared *shared;
    struct loop *loop;
    struct kube_conn conn;
    uint64_t revision; /* newest seen */
    bool use_old[64];  /* by view: its rest's old_version is what is served */
};

/* One blocking request with the manners of this API: 401 once with a fresh credential, 429 and 503
 * again when the server says so, a call that the server has not seen again on a new connection.
 * Returns the HTTP status, or negative. */
MG_NODISCARD int kube_request(struct kube_store *s, const char *method, struct str path,
                              const char *content_type, struct str body, struct arena *a,
                              struct http_answer *out, struct err *e);
/* The same, with the answer's object as a tree; a status that is no success becomes an error.
 * *unknown_kind (may be NULL): the server has no such kind. */
MG_NODISCARD int kube_object(struct kube_store *s, const struct kube_subject *subject,
                             const char *method, struct str path, const char *content_type,
                             const struct jnode *body, struct arena *a, struct jnode **out,
                             bool *unknown_kind, struct err *e);
/* Path of at's object (has_name) or collection, in the version that is served. */
struct str kube_at_path(const struct kube_store *s, const struct kube_at *at, bool has_name,
                        const char *sub, struct arena *a);
size_t kube_view_index(const struct kube_view *v);
void kube_saw(struct kube_store *s, uint64_t revision);

/* kube_call.c */
int kube_get(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
             struct err *e);
int kube_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
             uint64_t *revision_out, struct err *e);
int kube_del(struct store *s, struct store_key k, uint64_t expect, struct err *e);
/* Deletes a soft-deleted object of IPAM, as it was read. */
void kube_finish_delete(struct kube_store *s, const struct kube_at *at, const struct jnode *obj);

/* kube_list.c */
int kube_list(struct store *s, struct store_key prefix, uint64_t *revision_out,
              int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e);

/* kube_follow.c */
int kube_follow(struct store *s, struct loop *l, struct store_key prefix,
                const struct store_follow_ops *ops, void *arg, struct store_follow **out,
                struct err *e);
void kube_follow_ask(struct store_follow *f);
void kube_follow_free(struct store_follow *f);
int kube_watch(struct store *s, struct loop *l, struct store_key prefix, uint64_t from_revision,
               const struct store_watch_ops *ops, void *arg, struct store_watch **out,
               struct err *e);
void kube_watch_free(struct store_watch *w);
