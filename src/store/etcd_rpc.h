/* Calls to an etcd cluster: which member is asked, what happens when it can't answer, who we are.
 * One struct etcd_cluster a loop; calls run beside each other. */
#pragma once

#include "base/loop.h"
#include "http/http.h"
#include "store/etcd_grpc.h"

#include <stdatomic.h>

enum {
    ETCD_MEMBERS_MAX = 16,
    ETCD_CONNECT_MS = 4000, /* to one member */
    ETCD_ATTEMPT_MS = 5000, /* one member's answer */
    ETCD_CALL_MS = 10000,   /* a call, all members and waiting for a leader together */
    ETCD_PAUSE_MS = 250,    /* between rounds, while the cluster has no leader */
    ETCD_PING_MS = 10000,   /* silence on a watch, after which the member is asked */
    ETCD_PONG_MS = 5000,
    ETCD_MESSAGE_MAX = 16 << 20,
};

/* From the URL and the environment; read only afterwards, also by other threads. */
struct etcd_options {
    struct arena mem;
    size_t n_members;
    struct str member[ETCD_MEMBERS_MAX]; /* "http://HOST:PORT" */
    struct str ca_file, ca_pem, cert_file, cert_pem, key_file, key_pem;
    struct str user, password;
    bool is_insecure; /* any server certificate will do */
};
/* rest: the datastore's URL behind "etcd:". Fields of *out live in out->mem; on failure too. */
MG_NODISCARD int etcd_options_read(struct str rest, struct etcd_options *out, struct err *e);

/* Adds the members that DNS names for a domain, best first. Blocks. ERR_UNAVAILABLE: none. */
MG_NODISCARD int etcd_srv_members(struct etcd_options *o, struct str domain, struct err *e);

struct etcd_cluster;
struct etcd_op;

/* The options outlive it. */
MG_NODISCARD int etcd_cluster_new(struct loop *l, const struct etcd_options *o,
                                  struct etcd_cluster **out, struct err *e);
/* While *stop, etcd_run ends at once; something must wake the loop too. */
void etcd_cluster_stop_by(struct etcd_cluster *c, const atomic_bool *stop);
void etcd_cluster_free(struct etcd_cluster *c); /* every op and call must have been freed */
/* The member asked now; it is kept as long as it answers. */
struct http_client *etcd_cluster_member(const struct etcd_cluster *c);
const char *etcd_cluster_name(const struct etcd_cluster *c); /* its HOST:PORT */
void etcd_cluster_next(struct etcd_cluster *c);
void etcd_cluster_forget_login(struct etcd_cluster *c);
/* Looks at an answer's header: false, with the reason, when another cluster answers than before or
 * the cluster's history was cut (its newest revision is below least). Both are remembered. */
bool etcd_cluster_is_same(struct etcd_cluster *c, const Etcd__ResponseHeader *h, uint64_t least,
                          char *why, size_t room);

/* Headers of a call: at most ETCD_HEADERS; strings live as long as the login. */
enum { ETCD_HEADERS = 5 };
size_t etcd_cluster_headers(const struct etcd_cluster *c, struct http_header *out);

struct etcd_request {
    const char *path; /* "/etcdserverpb.KV/Range" */
    const ProtobufCMessage *message;
    bool is_write;      /* not sent a second time when the first may have been carried out */
    int64_t timeout_ms; /* 0: ETCD_CALL_MS */
};
struct etcd_end {
    int code;           /* of err.h */
    const char *reason; /* names the members; "" with 0 */
    struct str message; /* the answer, with code 0 */
    bool is_unknown;    /* a write that failed, but may have been carried out */
};
/* Strings of the end live until done returns; done is never called from inside, and once. */
struct etcd_op *etcd_op_new(struct etcd_cluster *c, const struct etcd_request *r,
                            void (*done)(void *arg, const struct etcd_end *end), void *arg);
void etcd_op_free(struct etcd_op *op); /* accepts NULL; safe inside done */

/* Runs an op on the cluster's loop to its end. *answer is an unpacked message of d in the arena.
 * *is_unknown may be NULL. */
MG_NODISCARD int etcd_run(struct etcd_cluster *c, struct loop *l, const struct etcd_request *r,
                          const ProtobufCMessageDescriptor *d, struct arena *a, void *answer_out,
                          bool *is_unknown, struct err *e);

static inline ProtobufCBinaryData pb_bytes(struct str s) {
    return (ProtobufCBinaryData){s.n, (uint8_t *)(uintptr_t)s.p};
}
static inline struct str pb_str(ProtobufCBinaryData b) {
    return str_n((const char *)b.data, b.len);
}
