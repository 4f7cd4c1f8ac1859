/* The store over the agent's unix socket: frames of "MGA1", a length in network order, and one JSON
 * object. A connection carries requests one after the other; a watch keeps it for itself.
 *
 *     {"op": "get", "space", "key"}                      → {"code", "value", "revision"}
 *     {"op": "list", "space", "key"}                     → {"items": [{"key", "value",
 * "revision"}]}*, then {"code", "revision"}
 *     {"op": "put", "space", "key", "value", "expect"}   → {"code", "revision"}; expect as text,
 * absent for "whatever is there"
 *     {"op": "delete", "space", "key", "expect"}         → {"code"}
 *     {"op": "revision"}                                 → {"code", "revision"}
 *     {"op": "watch", "space", "key", "from"}            → {"code"}, then {"item": {…,
 * "deleted"}}*, at its end {"end": code}
 *
 * code is 0 or a negative errno with "message". Numbers that may pass 2^53 are text. Other ops go
 * to the hook of the server (status, wait). */
#pragma once

#include "base/buf.h"
#include "base/jtree.h"

enum { RPC_HEADER = 8, RPC_BODY_MAX = 40 << 20 };

/* Appends a frame around a body. */
static inline void rpc_frame(struct buf *out, struct str body) {
    uint32_t n = (uint32_t)body.n;
    const uint8_t head[RPC_HEADER] = {
        'M', 'G', 'A', '1', (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
    buf_add(out, head, sizeof(head));
    buf_str(out, body);
}

/* Length of the body that follows a header; -EPROTO when it is no header, -EMSGSIZE. */
static inline int64_t rpc_body_len(const uint8_t head[RPC_HEADER]) {
    if (memcmp(head, "MGA1", 4) != 0) {
        return -EPROTO;
    }
    uint32_t n =
        (uint32_t)head[4] << 24 | (uint32_t)head[5] << 16 | (uint32_t)head[6] << 8 | head[7];
    return n > RPC_BODY_MAX ? -EMSGSIZE : (int64_t)n;
}
