/* Bytes of BGP: numbers of the registries, a cursor that can't read past its end, a writer into a
 * buffer. No state, no policy. */
#pragma once

#include "base/buf.h"
#include "base/ip.h"

enum {
    BGP_HEADER = 19,
    BGP_MAX = 4096,      /* RFC 4271; OPEN and KEEPALIVE always */
    BGP_MAX_EXT = 65535, /* RFC 8654 */
    BGP_PORT = 179,
    BGP_AS_TRANS = 23456, /* RFC 6793 */
};

enum bgp_type {
    BGP_OPEN = 1,
    BGP_UPDATE = 2,
    BGP_NOTIFICATION = 3,
    BGP_KEEPALIVE = 4,
    BGP_ROUTE_REFRESH = 5,
};

/* NOTIFICATION codes and subcodes (IANA bgp-parameters). */
enum {
    BGP_E_HEADER = 1,
    BGP_E_OPEN = 2,
    BGP_E_UPDATE = 3,
    BGP_E_HOLD = 4,
    BGP_E_FSM = 5,
    BGP_E_CEASE = 6,
    BGP_E_REFRESH = 7,
    BGP_E_SEND_HOLD = 8, /* RFC 9687 */
};
enum {
    BGP_E_HEADER_MARKER = 1,
    BGP_E_HEADER_LENGTH = 2,
    BGP_E_HEADER_TYPE = 3,
    BGP_E_OPEN_VERSION = 1,
    BGP_E_OPEN_AS = 2,
    BGP_E_OPEN_ID = 3,
    BGP_E_OPEN_PARAMETER = 4,
    BGP_E_OPEN_HOLD = 6,
    BGP_E_OPEN_CAPABILITY = 7, /* RFC 5492 */
    BGP_E_OPEN_ROLE = 11,      /* RFC 9234 */
    BGP_E_UPDATE_LIST = 1,
    BGP_E_UPDATE_UNKNOWN = 2,
    BGP_E_UPDATE_OPTIONAL = 9,
    BGP_E_UPDATE_NETWORK = 10,
    BGP_E_FSM_OPEN_SENT = 1, /* RFC 6608 */
    BGP_E_FSM_OPEN_CONFIRM = 2,
    BGP_E_FSM_ESTABLISHED = 3,
    BGP_E_CEASE_PREFIXES = 1, /* RFC 4486 */
    BGP_E_CEASE_SHUTDOWN = 2,
    BGP_E_CEASE_DECONFIGURED = 3,
    BGP_E_CEASE_RESET = 4,
    BGP_E_CEASE_REJECTED = 5,
    BGP_E_CEASE_CONFIG = 6,
    BGP_E_CEASE_COLLISION = 7,
    BGP_E_CEASE_RESOURCES = 8,
    BGP_E_CEASE_HARD = 9, /* RFC 8538 */
    BGP_E_CEASE_BFD = 10, /* RFC 9384 */
    BGP_E_REFRESH_LENGTH = 1,
};

enum bgp_family { BGP_V4, BGP_V6, BGP_N_FAMILIES };
enum { BGP_AFI_V4 = 1, BGP_AFI_V6 = 2, BGP_SAFI_UNICAST = 1 };

static inline uint16_t bgp_afi(enum bgp_family f) {
    return f == BGP_V4 ? BGP_AFI_V4 : BGP_AFI_V6;
}
static inline uint8_t bgp_family_ip(enum bgp_family f) {
    return f == BGP_V4 ? IP_V4 : IP_V6;
}
/* Address bits of a family. */
static inline unsigned bgp_bits(enum bgp_family f) {
    return f == BGP_V4 ? 32 : 128;
}
/* The family of an AFI and SAFI; false for all that this speaker does not carry. */
static inline bool bgp_family_of(uint16_t afi, uint8_t safi, enum bgp_family *out) {
    if (safi != BGP_SAFI_UNICAST || (afi != BGP_AFI_V4 && afi != BGP_AFI_V6)) {
        return false;
    }
    *out = afi == BGP_AFI_V4 ? BGP_V4 : BGP_V6;
    return true;
}

/* ---- reading ---- */

struct rd {
    const uint8_t *p, *end;
};
static inline struct rd rd_of(const void *p, size_t n) {
    return (struct rd){(const uint8_t *)p, (const uint8_t *)p + n};
}
static inline size_t rd_left(const struct rd *r) {
    return (size_t)(r->end - r->p);
}
static inline uint16_t get_u16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t get_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline bool rd_u8(struct rd *r, uint8_t *out) {
    if (rd_left(r) < 1) {
        return false;
    }
    *out = *r->p++;
    return true;
}
static inline bool rd_u16(struct rd *r, uint16_t *out) {
    if (rd_left(r) < 2) {
        return false;
    }
    *out = get_u16(r->p);
    r->p += 2;
    return true;
}
static inline bool rd_u32(struct rd *r, uint32_t *out) {
    if (rd_left(r) < 4) {
        return false;
    }
    *out = get_u32(r->p);
    r->p += 4;
    return true;
}
/* Cuts the next n bytes off as a cursor of their own. */
static inline bool rd_sub(struct rd *r, size_t n, struct rd *out) {
    if (rd_left(r) < n) {
        return false;
    }
    *out = (struct rd){r->p, r->p + n};
    r->p += n;
    return true;
}

/* ---- writing ---- */

static inline void set_u16(uint8_t *p, unsigned v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void set_u32(uint8_t *p, uint32_t v) {
    set_u16(p, v >> 16);
    set_u16(p + 2, v & 0xffff);
}
static inline void wr_u8(struct buf *b, unsigned v) {
    buf_putc(b, (char)v);
}
static inline void wr_u16(struct buf *b, unsigned v) {
    uint8_t x[2];
    set_u16(x, v);
    buf_add(b, x, 2);
}
static inline void wr_u32(struct buf *b, uint32_t v) {
    uint8_t x[4];
    set_u32(x, v);
    buf_add(b, x, 4);
}
