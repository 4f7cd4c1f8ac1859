/* The datastore: what should be. One interface over sqlite (embedded), etcd and the Kubernetes API.
 *
 * Objects are JSON texts, addressed by kind, namespace ("" for cluster-wide) and name. Every write
 * has a revision; an object's resourceVersion is the revision of its last write, as decimal text.
 * Calls block until the answer is durable (sqlite) or acknowledged (network drivers; the agent
 * calls those from a worker). A struct store belongs to one thread. All strings given out live in
 * the arena named by the caller.
 *
 * Beside resources there are raw items under a "space" of their own (IPAM blocks, affinities,
 * handles, config; state that is not an API object): space STORE_SPACE_IPAM uses Calico's key paths
 * without
 * "/calico", e.g. "/ipam/v2/assignment/ipv4/block/10.44.7.0-26". */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/loop.h"

struct store;

#define STORE_SPACE_RESOURCES \
    "r" /* key = kind "/" namespace "/" name, kind as "NetworkPolicy.networking.k8s.io" */
#define STORE_SPACE_IPAM "i"

struct store_key {
    struct str space;
    struct str key;
};

struct store_item {
    struct str space, key;
    struct str value;  /* JSON text; STR_NULL in a delete event */
    uint64_t revision; /* of the last write of this item (delete event: of the delete) */
};

/* REV_ANY: unconditional. REV_NONE: must not exist (create). Else: compare-and-swap. */
#define REV_ANY UINT64_MAX
#define REV_NONE 0

/* url: see interfaces, section 1 ("sqlite:PATH", …). Opens or makes the store. ERR_CORRUPT names
 * the file and what to do; the file is left as it is. A sqlite store has one writer: ERR_DENIED
 * names the process that has it open. "sqlite:PATH?mode=ro" reads beside it (no writes, no watch).
 */
MG_NODISCARD int store_open(const char *url, struct store **out, struct err *e);
void store_close(struct store *s);
/* The program stops: a call that waits for a network, and every later one, ends with -ECANCELED.
 * May be called from another thread than the store's. */
void store_interrupt(struct store *s);
/* The URL that the environment names, as with Calico: MARGAY_DATASTORE, else DATASTORE_TYPE
 * (kubernetes, etcdv3; FELIX_DATASTORETYPE, CALICO_DATASTORE_TYPE, too), else etcd if
 * ETCD_ENDPOINTS is set. NULL: none. */
const char *store_url_from_env(void);

/* ERR_NOT_FOUND when absent. */
MG_NODISCARD int store_get(struct store *s, struct store_key k, struct arena *a,
                           struct store_item *out, struct err *e);
/* All items whose key starts with prefix, in key order, as of one revision (*revision_out, set
 * before the first cb). cb < 0 stops and is returned. Item strings live until cb returns. cb may
 * write, unless between begin and commit; the list doesn't see it. */
MG_NODISCARD int store_list(struct store *s, struct store_key prefix, uint64_t *revision_out,
                            int (*cb)(void *arg, const struct store_item *it), void *arg,
                            struct err *e);
#define STORE_KEY_MAX 2048                   /* bytes of a key, and of a space */
#define STORE_VALUE_MAX (2U * 1024U * 1024U) /* bytes of a value: more is ERR_TOO_BIG */

/* Writes value if the item's revision is `expect`. New revision in *revision_out (may be NULL).
 * ERR_EXISTS (expect REV_NONE), ERR_CONFLICT, ERR_NOT_FOUND (CAS on an absent item). */
MG_NODISCARD int store_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                           uint64_t *revision_out, struct err *e);
/* ERR_NOT_FOUND when absent, ERR_CONFLICT. */
MG_NODISCARD int store_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e);

/* Writes between begin and commit become durable together, cheaply, where the driver can (sqlite:
 * one transaction, one fsync); elsewhere they are single writes. Rollback undoes only where it can:
 * logic must be right without it. Nesting is not allowed. Watchers see the changes after commit. */
MG_NODISCARD int store_begin(struct store *s, struct err *e);
MG_NODISCARD int store_commit(struct store *s, struct err *e);
void store_rollback(struct store *s);

/* The revision of the newest committed write; 0 in an empty store. */
uint64_t store_revision(struct store *s);

/* Watch: calls on the loop for every change of an item under prefix after `from_revision`, in
 * order, none missed, none twice. ERR_GONE through on_end when from_revision is too old. */
struct store_watch;
struct store_watch_ops {
    void (*on_item)(void *arg, const struct store_item *it); /* put or delete */
    void (*on_end)(void *arg, int code);                     /* the watch is over; free it */
    /* May be NULL. Every change up to `revision` has been passed on; other prefixes' changes count,
     * so it reaches the store's newest revision. Called at the end of each burst. */
    void (*on_progress)(void *arg, uint64_t revision);
};
MG_NODISCARD int store_watch(struct store *s, struct loop *l, struct store_key prefix,
                             uint64_t from_revision, const struct store_watch_ops *ops, void *arg,
                             struct store_watch **out, struct err *e);
void store_watch_free(struct store_watch *w);
