/* Framing, NOTIFICATION, KEEPALIVE and ROUTE-REFRESH. See msg.h; OPEN is in open.c. */
#include "bgp/msg.h"

#include "base/err.h"

static const uint8_t MARKER[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

int bgp_fail_set(struct bgp_fail *f, uint8_t code, uint8_t subcode, const void *data, size_t n) {
    f->code = code;
    f->subcode = subcode;
    f->n = (uint16_t)(n < sizeof(f->data) ? n : sizeof(f->data));
    if (f->n) {
        memcpy(f->data, data, f->n);
    }
    return ERR_INVALID;
}

/* Subcodes by code; "" where the registry has none. */
static const char *const CODES[] = {"",
                                    "Message Header Error",
                                    "OPEN Message Error",
                                    "UPDATE Message Error",
                                    "Hold Timer Expired",
                                    "Finite State Machine Error",
                                    "Cease",
                                    "ROUTE-REFRESH Message Error",
                                    "Send Hold Timer Expired"};
static const char *const SUBCODES[][12] = {
    [BGP_E_HEADER] = {"", "Connection Not Synchronized", "Bad Message Length", "Bad Message Type"},
    [BGP_E_OPEN] = {"", "Unsupported Version Number", "Bad Peer AS", "Bad BGP Identifier",
                    "Unsupported Optional Parameter", "", "Unacceptable Hold Time",
                    "Unsupported Capability", "", "", "", "Role Mismatch"},
    [BGP_E_UPDATE] = {"", "Malformed Attribute List", "Unrecognized Well-known Attribute",
                      "Missing Well-known Attribute", "Attribute Flags Error",
                      "Attribute Length Error", "Invalid ORIGIN Attribute", "",
                      "Invalid NEXT_HOP Attribute", "Optional Attribute Error",
                      "Invalid Network Field", "Malformed AS_PATH"},
    [BGP_E_FSM] = {"", "Unexpected Message in OpenSent", "Unexpected Message in OpenConfirm",
                   "Unexpected Message in Established"},
    [BGP_E_CEASE] = {"", "Maximum Number of Prefixes Reached", "Administrative Shutdown",
                     "Peer De-configured", "Administrative Reset", "Connection Rejected",
                     "Other Configuration Change", "Connection Collision Resolution",
                     "Out of Resources", "Hard Reset", "BFD Down"},
    [BGP_E_REFRESH] = {"", "Invalid Message Length"},
};

void bgp_fail_name(struct buf *b, uint8_t code, uint8_t subcode) {
    if (code == 0 || code >= ARRAY_LEN(CODES)) {
        buf_printf(b, "code %u/%u", code, subcode);
        return;
    }
    buf_puts(b, CODES[code]);
    const char *s = NULL;
    if (code < ARRAY_LEN(SUBCODES) && subcode < ARRAY_LEN(SUBCODES[0])) {
        s = SUBCODES[code][subcode];
    }
    if (s && s[0]) {
        buf_printf(b, "/%s", s);
    } else if (subcode) {
        buf_printf(b, "/%u", subcode);
    }
}

int bgp_header(const uint8_t *p, size_t max, struct bgp_fail *f) {
    if (memcmp(p, MARKER, sizeof(MARKER)) != 0) {
        return bgp_fail_set(f, BGP_E_HEADER, BGP_E_HEADER_MARKER, NULL, 0);
    }
    static const uint8_t LEAST[] = {[BGP_OPEN] = 29,
                                    [BGP_UPDATE] = 23,
                                    [BGP_NOTIFICATION] = 21,
                                    [BGP_KEEPALIVE] = 19,
                                    [BGP_ROUTE_REFRESH] = 23};
    size_t n = get_u16(p + 16);
    uint8_t type = p[18];
    if (n < BGP_HEADER || n > max) {
        return bgp_fail_set(f, BGP_E_HEADER, BGP_E_HEADER_LENGTH, p + 16, 2);
    }
    if (type < BGP_OPEN || type > BGP_ROUTE_REFRESH) {
        return bgp_fail_set(f, BGP_E_HEADER, BGP_E_HEADER_TYPE, p + 18, 1);
    }
    /* RFC 8654 section 3: these two never grow. */
    size_t most = type == BGP_KEEPALIVE ? BGP_HEADER : type == BGP_OPEN ? BGP_MAX : max;
    /* A begin or end of refresh that is too short is RFC 7313's error, not the header's. */
    size_t least = type == BGP_ROUTE_REFRESH ? BGP_HEADER : LEAST[type];
    if (n < least || n > most) {
        return bgp_fail_set(f, BGP_E_HEADER, BGP_E_HEADER_LENGTH, p + 16, 2);
    }
    return (int)n;
}

static void header(struct buf *b, unsigned n, enum bgp_type type) {
    buf_add(b, MARKER, sizeof(MARKER));
    wr_u16(b, n);
    wr_u8(b, type);
}

void bgp_keepalive_write(struct buf *b) {
    header(b, BGP_HEADER, BGP_KEEPALIVE);
}

void bgp_notification_write(struct buf *b, const struct bgp_fail *f) {
    header(b, BGP_HEADER + 2U + f->n, BGP_NOTIFICATION);
    wr_u8(b, f->code);
    wr_u8(b, f->subcode);
    buf_add(b, f->data, f->n);
}

int bgp_notification_parse(const uint8_t *p, size_t n, struct bgp_fail *out) {
    if (n < 2) {
        return ERR_INVALID;
    }
    (void)bgp_fail_set(out, p[0], p[1], p + 2, n - 2);
    return 0;
}

struct str bgp_shutdown_text(const struct bgp_fail *f) {
    if (f->code != BGP_E_CEASE ||
        (f->subcode != BGP_E_CEASE_SHUTDOWN && f->subcode != BGP_E_CEASE_RESET) || f->n < 1 ||
        f->data[0] > f->n - 1) {
        return STR_NULL;
    }
    return str_n((const char *)f->data + 1, f->data[0]);
}

void bgp_shutdown_set(struct bgp_fail *f, uint8_t subcode, struct str text) {
    size_t n = text.n < 255 ? text.n : 255;
    while (n < text.n && n > 0 && ((uint8_t)text.p[n] & 0xc0) == 0x80) {
        n--; /* in the middle of a character */
    }
    (void)bgp_fail_set(f, BGP_E_CEASE, subcode, NULL, 0);
    if (n) {
        f->data[0] = (uint8_t)n;
        memcpy(f->data + 1, text.p, n);
        f->n = (uint16_t)(n + 1);
    }
}

void bgp_hard_reset_set(struct bgp_fail *f) {
    size_t n = f->n < sizeof(f->data) - 2 ? f->n : sizeof(f->data) - 2;
    memmove(f->data + 2, f->data, n);
    f->data[0] = f->code;
    f->data[1] = f->subcode;
    f->n = (uint16_t)(n + 2);
    f->code = BGP_E_CEASE;
    f->subcode = BGP_E_CEASE_HARD;
}

bool bgp_hard_reset_open(struct bgp_fail *f) {
    if (f->code != BGP_E_CEASE || f->subcode != BGP_E_CEASE_HARD) {
        return false;
    }
    if (f->n >= 2) {
        f->code = f->data[0];
        f->subcode = f->data[1];
        f->n = (uint16_t)(f->n - 2);
        memmove(f->data, f->data + 2, f->n);
    }
    return true;
}

void bgp_refresh_write(struct buf *b, enum bgp_family f, uint8_t subtype) {
    header(b, BGP_HEADER + 4, BGP_ROUTE_REFRESH);
    wr_u16(b, bgp_afi(f));
    wr_u8(b, subtype);
    wr_u8(b, BGP_SAFI_UNICAST);
}

int bgp_refresh_parse(const uint8_t *msg, size_t n, bool is_enhanced, enum bgp_family *family,
                      uint8_t *subtype, struct bgp_fail *f) {
    const uint8_t *p = msg + BGP_HEADER;
    if (n != BGP_HEADER + 4) {
        /* RFC 7313 section 5; without it the length is the header's error. */
        if (is_enhanced) {
            return bgp_fail_set(f, BGP_E_REFRESH, BGP_E_REFRESH_LENGTH, msg, n);
        }
        return bgp_fail_set(f, BGP_E_HEADER, BGP_E_HEADER_LENGTH, msg + 16, 2);
    }
    enum bgp_family fam;
    if (!bgp_family_of(get_u16(p), p[3], &fam) || (!is_enhanced && p[2] != 0) ||
        p[2] > BGP_REFRESH_END) {
        return ERR_NOT_FOUND;
    }
    *family = fam;
    *subtype = p[2];
    return 0;
}
