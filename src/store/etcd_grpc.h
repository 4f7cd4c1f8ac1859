/* gRPC's frames and statuses as etcd uses them, and its messages in and out of an arena. No I/O. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include "store/etcd.pb-c.h"

enum { GRPC_HEADER = 5 };

/* Appends a message with its frame's header. */
void grpc_frame(struct buf *out, const ProtobufCMessage *m);

/* Cuts a stream into messages. Starts with max set (bytes of one message, header not counted). */
struct grpc_split {
    size_t max;
    struct buf in; /* a message's beginning */
};
void grpc_split_init(struct grpc_split *s, size_t max);
void grpc_split_fini(struct grpc_split *s);
/* Calls cb for each message that chunk completes; a negative answer of cb ends it and is returned.
 * ERR_TOO_BIG, -EPROTO (compressed: was not asked for). s may be gone when cb returned < 0. */
MG_NODISCARD int grpc_split_feed(struct grpc_split *s, struct str chunk,
                                 int (*cb)(void *arg, struct str message), void *arg);

/* NULL: not such a message, or it would need many times its size. Lives in the arena. */
void *grpc_unpack(const ProtobufCMessageDescriptor *d, struct str bytes, struct arena *a);

/* What to do about a failed call. */
enum grpc_kind {
    GRPC_FINAL,     /* code says what it is; trying again does not help */
    GRPC_ELSEWHERE, /* this member can't now */
    GRPC_WAIT,      /* the cluster can't now: no leader, overloaded */
    GRPC_LOGIN,     /* our token counts no more */
    GRPC_NO_AUTH,   /* answer to a login: there are no users here */
};
struct grpc_status {
    int code; /* of err.h; 0: fine */
    enum grpc_kind kind;
    bool is_not_done; /* the request was certainly not carried out */
    char reason[400]; /* without the member's name */
};
/* number: grpc-status, message: grpc-message still percent-encoded or a cancel_reason. */
void grpc_status_of(uint64_t number, struct str message, struct grpc_status *out);
