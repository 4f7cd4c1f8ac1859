/* Messages of BGP but UPDATE (update.h): framing, OPEN with capabilities, NOTIFICATION,
 * ROUTE-REFRESH. Bytes in, structs out, and back. RFC 4271 section 4, 5492, 9072. */
#pragma once

#include "bgp/wire.h"

/* Why a session ends: what the NOTIFICATION says. */
struct bgp_fail {
    uint8_t code, subcode;
    uint16_t n; /* bytes of data */
    uint8_t data[BGP_MAX - BGP_HEADER - 2];
};
/* Fills f (data is cut to what a message holds); returns ERR_INVALID. */
int bgp_fail_set(struct bgp_fail *f, uint8_t code, uint8_t subcode, const void *data, size_t n);
/* "Cease/Administrative Shutdown"; appended. */
void bgp_fail_name(struct buf *b, uint8_t code, uint8_t subcode);

/* RFC 9234 section 4.1. */
enum bgp_role {
    BGP_ROLE_PROVIDER = 0,
    BGP_ROLE_RS = 1,
    BGP_ROLE_RS_CLIENT = 2,
    BGP_ROLE_CUSTOMER = 3,
    BGP_ROLE_PEER = 4,
    BGP_ROLE_NONE = 255,
};

enum { BGP_ADDPATH_RECEIVE = 1, BGP_ADDPATH_SEND = 2 };

/* Capabilities of one speaker. All zero (and role NONE): a speaker of RFC 4271 alone. */
struct bgp_caps {
    bool has_mp;                                /* any multiprotocol capability was given */
    bool mp[BGP_N_FAMILIES];                    /* RFC 4760 */
    bool has_refresh;                           /* RFC 2918 */
    bool has_enhanced_refresh;                  /* RFC 7313 */
    bool has_extended_message;                  /* RFC 8654 */
    bool has_as4;                               /* RFC 6793 */
    uint32_t as4;                               /* its AS number */
    bool has_v4_over_v6;                        /* RFC 8950: IPv4 unicast with IPv6 next hops */
    uint8_t addpath[BGP_N_FAMILIES];            /* RFC 7911: BGP_ADDPATH_ bits */
    bool has_gr, gr_restarted, gr_notification; /* RFC 4724, 8538 (N bit) */
    uint16_t gr_time_s;                         /* 12 bits */
    bool gr[BGP_N_FAMILIES], gr_forwarding[BGP_N_FAMILIES];
    bool has_llgr; /* RFC 9494 */
    bool llgr[BGP_N_FAMILIES], llgr_forwarding[BGP_N_FAMILIES];
    uint32_t llgr_time_s[BGP_N_FAMILIES]; /* 24 bits */
    uint8_t role;                         /* enum bgp_role */
};

struct bgp_open {
    uint32_t as; /* four octets, whichever way it came */
    uint16_t hold_s;
    uint32_t id; /* host order */
    struct bgp_caps caps;
};

/* The header of a message, of which at least BGP_HEADER bytes are there. Returns the whole length,
 * or ERR_INVALID with f (RFC 4271 section 6.1). max: BGP_MAX, or BGP_MAX_EXT where negotiated. */
MG_NODISCARD int bgp_header(const uint8_t *p, size_t max, struct bgp_fail *f);

/* The body (behind the header) of an OPEN. Checks all that needs no knowledge of the peer: version,
 * parameters, hold time, AS 0 and id 0. ERR_INVALID with f (RFC 4271 section 6.2). */
MG_NODISCARD int bgp_open_parse(const uint8_t *p, size_t n, struct bgp_open *out,
                                struct bgp_fail *f);
/* Appends a whole OPEN message. */
void bgp_open_write(struct buf *b, const struct bgp_open *o);

void bgp_keepalive_write(struct buf *b);
void bgp_notification_write(struct buf *b, const struct bgp_fail *f);
/* A body into code, subcode and data; a body of less than 2 bytes gives ERR_INVALID. */
MG_NODISCARD int bgp_notification_parse(const uint8_t *p, size_t n, struct bgp_fail *out);
/* Text of a shutdown or reset (RFC 9003: up to 255 bytes of UTF-8 behind a length byte); STR_NULL
 * if there is none or it is malformed. */
struct str bgp_shutdown_text(const struct bgp_fail *f);
/* Sets code, subcode and the text (cut at 255 bytes on a character's border). */
void bgp_shutdown_set(struct bgp_fail *f, uint8_t subcode, struct str text);
/* RFC 8538: wraps f into Cease/Hard Reset, and unwraps one (false: f is none). */
void bgp_hard_reset_set(struct bgp_fail *f);
bool bgp_hard_reset_open(struct bgp_fail *f);

enum { BGP_REFRESH = 0, BGP_REFRESH_BEGIN = 1, BGP_REFRESH_END = 2 };
void bgp_refresh_write(struct buf *b, enum bgp_family f, uint8_t subtype);
/* msg: the whole message. 0 with family and subtype; ERR_NOT_FOUND: not for us, ignore;
 * ERR_INVALID with f. */
MG_NODISCARD int bgp_refresh_parse(const uint8_t *msg, size_t n, bool is_enhanced,
                                   enum bgp_family *family, uint8_t *subtype, struct bgp_fail *f);
