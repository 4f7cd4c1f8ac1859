/* gRPC's frames and statuses. See etcd_grpc.h. The texts of errors are etcd's own
 * (api/v3rpc/rpctypes): their codes alone don't tell a full disk from a busy server. */
#include "store/etcd_grpc.h"

#include "http/http.h"

#include <stdio.h>
#include <stdlib.h>

enum grpc_code {
    CODE_OK = 0,
    CODE_CANCELED = 1,
    CODE_UNKNOWN = 2,
    CODE_DEADLINE = 4,
    CODE_PERMISSION_DENIED = 7,
    CODE_RESOURCE_EXHAUSTED = 8,
    CODE_OUT_OF_RANGE = 11,
    CODE_UNIMPLEMENTED = 12,
    CODE_INTERNAL = 13,
    CODE_UNAVAILABLE = 14,
    CODE_DATA_LOSS = 15,
    CODE_UNAUTHENTICATED = 16,
};

/* A message of many small parts takes this many times its bytes in memory, and no more. */
enum { UNPACK_FACTOR = 16, UNPACK_SPARE = 65536 };

void grpc_frame(struct buf *out, const ProtobufCMessage *m) {
    size_t n = protobuf_c_message_get_packed_size(m);
    const uint8_t head[GRPC_HEADER] = {0, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8),
                                       (uint8_t)n};
    buf_add(out, head, sizeof(head));
    uint8_t *p = (uint8_t *)buf_reserve(out, n);
    if (p) {
        out->n += protobuf_c_message_pack(m, p);
    }
}

void grpc_split_init(struct grpc_split *s, size_t max) {
    *s = (struct grpc_split){.max = max, .in = BUF_INIT(max + GRPC_HEADER)};
}

void grpc_split_fini(struct grpc_split *s) {
    buf_fini(&s->in);
}

/* Size of the frame that begins here, or negative; needs GRPC_HEADER bytes. */
static int64_t frame_size(const struct grpc_split *s, const char *p) {
    const uint8_t *h = (const uint8_t *)p;
    uint32_t n = (uint32_t)h[1] << 24 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 8 | (uint32_t)h[4];
    if (h[0] != 0) {
        return -EPROTO;
    }
    return n > s->max ? ERR_TOO_BIG : (int64_t)n + GRPC_HEADER;
}

/* Moves up to n bytes of *chunk behind what is kept. */
static void keep(struct grpc_split *s, struct str *chunk, size_t n) {
    n = n < chunk->n ? n : chunk->n;
    buf_add(&s->in, chunk->p, n);
    *chunk = str_sub(*chunk, n, chunk->n);
}

/* The kept beginning of a message, completed from chunk. 1: it is whole. */
static int complete(struct grpc_split *s, struct str *chunk) {
    if (s->in.n < GRPC_HEADER) {
        keep(s, chunk, GRPC_HEADER - s->in.n);
        if (s->in.n < GRPC_HEADER) {
            return 0;
        }
    }
    int64_t size = frame_size(s, s->in.p);
    if (size < 0) {
        return (int)size;
    }
    keep(s, chunk, (size_t)size - s->in.n);
    return s->in.n == (size_t)size;
}

int grpc_split_feed(struct grpc_split *s, struct str chunk,
                    int (*cb)(void *arg, struct str message), void *arg) {
    int r = 0;
    if (s->in.n) {
        r = complete(s, &chunk);
        if (r <= 0) {
            return r;
        }
        struct buf whole = s->in;
        s->in = BUF_INIT(s->max + GRPC_HEADER);
        r = cb(arg, str_sub(buf_view(&whole), GRPC_HEADER, whole.n));
        if (r >= 0) {
            s->in = whole; /* its memory serves the next */
            buf_reset(&s->in);
        } else {
            buf_fini(&whole);
        }
    }
    /* Whole messages need no copy. */
    while (r >= 0 && chunk.n >= GRPC_HEADER) {
        int64_t size = frame_size(s, chunk.p);
        if (size < 0) {
            return (int)size;
        }
        if ((size_t)size > chunk.n) {
            break;
        }
        r = cb(arg, str_sub(chunk, GRPC_HEADER, (size_t)size));
        chunk = str_sub(chunk, (size_t)size, chunk.n);
    }
    if (r >= 0) {
        keep(s, &chunk, chunk.n);
    }
    return r < 0 ? r : 0;
}

struct budget {
    struct arena *a;
    size_t left;
};

static void *budget_alloc(void *data, size_t n) {
    struct budget *b = data;
    if (n > b->left) {
        return NULL;
    }
    b->left -= n;
    return arena_alloc(b->a, n);
}

static void budget_free(void *data MG_UNUSED, void *p MG_UNUSED) {
}

void *grpc_unpack(const ProtobufCMessageDescriptor *d, struct str bytes, struct arena *a) {
    struct budget b = {a, bytes.n * UNPACK_FACTOR + UNPACK_SPARE};
    ProtobufCAllocator alloc = {budget_alloc, budget_free, &b};
    return protobuf_c_message_unpack(d, &alloc, bytes.n, (const uint8_t *)(bytes.p ? bytes.p : ""));
}

/* Percent-decoded and fit for a log line. */
static void decode_message(struct str in, char *out, size_t room) {
    size_t n = http_percent_decode(str_sub(in, 0, in.n < room - 1 ? in.n : room - 1), out);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f) {
            out[i] = ' ';
        }
    }
    out[n] = '\0';
}

/* What etcd says, what it means to us, and what a person can do. */
static const struct known {
    const char *text; /* a part of the message */
    int code;
    enum grpc_kind kind;
    bool is_not_done;
    const char *say; /* NULL: etcd's own words */
} KNOWN[] = {
    {"database space exceeded", ERR_NO_SPACE, GRPC_FINAL, true,
     "its database is full (alarm NOSPACE): compact and defragment it, then run \"etcdctl alarm "
     "disarm\""},
    {"required revision has been compacted", ERR_GONE, GRPC_FINAL, true,
     "the revision has been compacted away"},
    {"invalid auth token", ERR_DENIED, GRPC_LOGIN, true, "the login has expired"},
    {"revision of auth store is old", ERR_DENIED, GRPC_LOGIN, true,
     "the login is older than the last change of users and roles"},
    {"authentication is not enabled", ERR_INVALID, GRPC_NO_AUTH, true, NULL},
    {"invalid user ID or password", ERR_DENIED, GRPC_FINAL, true,
     "wrong user name or password (ETCD_USERNAME, ETCD_PASSWORD)"},
    {"user name is empty", ERR_DENIED, GRPC_FINAL, true,
     "it wants to know who we are: set ETCD_USERNAME and ETCD_PASSWORD, or give a client "
     "certificate whose common name is a user"},
    {"permission denied", ERR_DENIED, GRPC_FINAL, true,
     "permission denied: the user's roles don't allow this for the keys below /calico/"},
    {"request is too large", ERR_TOO_BIG, GRPC_FINAL, true,
     "the request is larger than it takes (--max-request-bytes)"},
    {"larger than max", ERR_TOO_BIG, GRPC_FINAL, true,
     "the message is larger than it takes (--max-request-bytes)"},
    {"too many requests", ERR_UNAVAILABLE, GRPC_WAIT, true, NULL},
    {"no leader", ERR_UNAVAILABLE, GRPC_WAIT, true, "the cluster has no leader"},
    {"not leader", ERR_UNAVAILABLE, GRPC_WAIT, true, NULL},
    {"leader changed", ERR_UNAVAILABLE, GRPC_WAIT, false, NULL},
    {"leader failure", ERR_UNAVAILABLE, GRPC_WAIT, false, NULL},
    {"request timed out", ERR_UNAVAILABLE, GRPC_WAIT, false, NULL},
    {"corrupt cluster", ERR_CORRUPT, GRPC_ELSEWHERE, true,
     "its data is corrupt (alarm CORRUPT): replace the member"},
    {"requested lease not found", ERR_NOT_FOUND, GRPC_FINAL, true, "the lease has run out"},
    {"lease already exists", ERR_EXISTS, GRPC_FINAL, true, NULL},
};

static void by_number(uint64_t number, struct grpc_status *out) {
    out->code = ERR_INVALID;
    out->kind = GRPC_FINAL;
    switch (number) {
    case CODE_UNAVAILABLE:
    case CODE_DEADLINE:
    case CODE_CANCELED:
    case CODE_UNKNOWN:
    case CODE_INTERNAL:
    case CODE_RESOURCE_EXHAUSTED:
        out->code = ERR_UNAVAILABLE;
        out->kind = GRPC_ELSEWHERE;
        break;
    case CODE_UNAUTHENTICATED:
        out->code = ERR_DENIED;
        out->kind = GRPC_LOGIN;
        out->is_not_done = true;
        break;
    case CODE_PERMISSION_DENIED:
        out->code = ERR_DENIED;
        break;
    case CODE_OUT_OF_RANGE:
        out->code = ERR_GONE;
        break;
    case CODE_UNIMPLEMENTED:
        out->code = -ENOTSUP;
        break;
    case CODE_DATA_LOSS:
        out->code = ERR_CORRUPT;
        break;
    default:
        break;
    }
}

void grpc_status_of(uint64_t number, struct str message, struct grpc_status *out) {
    *out = (struct grpc_status){0};
    if (number == CODE_OK) {
        return;
    }
    decode_message(message, out->reason, sizeof(out->reason));
    for (size_t i = 0; i < ARRAY_LEN(KNOWN); i++) {
        const struct known *k = &KNOWN[i];
        if (strstr(out->reason, k->text)) {
            out->code = k->code;
            out->kind = k->kind;
            out->is_not_done = k->is_not_done;
            if (k->say) {
                (void)snprintf(out->reason, sizeof(out->reason), "%s", k->say);
            }
            return;
        }
    }
    by_number(number, out);
    if (!out->reason[0]) {
        (void)snprintf(out->reason, sizeof(out->reason), "it answers with gRPC status %llu",
                       (unsigned long long)number);
    }
}
