/* OPEN and its capabilities. See msg.h. */
#include "bgp/msg.h"

#include "base/err.h"

enum { PARAM_CAPABILITIES = 2, PARAM_EXTENDED = 255 };
enum {
    CAP_MP = 1,
    CAP_REFRESH = 2,
    CAP_NEXT_HOP = 5,
    CAP_EXTENDED_MESSAGE = 6,
    CAP_ROLE = 9,
    CAP_GR = 64,
    CAP_AS4 = 65,
    CAP_ADDPATH = 69,
    CAP_ENHANCED_REFRESH = 70,
    CAP_LLGR = 71,
};

/* RFC 4724: flags and time, then families. Of two the last counts: they are equal in practice. */
static bool read_gr(struct rd r, struct bgp_caps *c) {
    uint16_t head, afi;
    uint8_t safi, flags;
    if (!rd_u16(&r, &head) || rd_left(&r) % 4) {
        return false;
    }
    c->has_gr = true;
    c->gr_restarted = head & 0x8000;
    c->gr_notification = head & 0x4000;
    c->gr_time_s = head & 0xfff;
    memset(c->gr, 0, sizeof(c->gr));
    memset(c->gr_forwarding, 0, sizeof(c->gr_forwarding));
    while (rd_u16(&r, &afi) && rd_u8(&r, &safi) && rd_u8(&r, &flags)) {
        enum bgp_family f;
        if (bgp_family_of(afi, safi, &f)) {
            c->gr[f] = true;
            c->gr_forwarding[f] = flags & 0x80;
        }
    }
    return true;
}

static bool read_llgr(struct rd r, struct bgp_caps *c) {
    if (rd_left(&r) % 7) {
        return false;
    }
    c->has_llgr = true;
    for (; rd_left(&r); r.p += 7) {
        enum bgp_family f;
        if (bgp_family_of(get_u16(r.p), r.p[2], &f)) {
            c->llgr[f] = true;
            c->llgr_forwarding[f] = r.p[3] & 0x80;
            c->llgr_time_s[f] = get_u32(r.p + 3) & 0xffffff;
        }
    }
    return true;
}

static bool read_addpath(struct rd r, struct bgp_caps *c) {
    if (rd_left(&r) % 4) {
        return false;
    }
    for (; rd_left(&r); r.p += 4) {
        enum bgp_family f;
        /* RFC 7911 section 4: any other value is ignored. */
        if (bgp_family_of(get_u16(r.p), r.p[2], &f) && r.p[3] >= 1 && r.p[3] <= 3) {
            c->addpath[f] = r.p[3];
        }
    }
    return true;
}

static bool read_next_hop(struct rd r, struct bgp_caps *c) {
    if (rd_left(&r) % 6) {
        return false;
    }
    for (; rd_left(&r); r.p += 6) {
        c->has_v4_over_v6 |= get_u16(r.p) == BGP_AFI_V4 && get_u16(r.p + 2) == BGP_SAFI_UNICAST &&
                             get_u16(r.p + 4) == BGP_AFI_V6;
    }
    return true;
}

/* One capability; false: malformed (RFC 5492 leaves it to be ignored). */
static bool read_cap(uint8_t code, struct rd r, struct bgp_caps *c) {
    size_t n = rd_left(&r);
    enum bgp_family f;
    switch (code) {
    case CAP_MP:
        if (n != 4) {
            return false;
        }
        c->has_mp = true;
        if (bgp_family_of(get_u16(r.p), r.p[3], &f)) {
            c->mp[f] = true;
        }
        return true;
    case CAP_REFRESH:
        c->has_refresh = n == 0;
        return n == 0;
    case CAP_NEXT_HOP:
        return read_next_hop(r, c);
    case CAP_EXTENDED_MESSAGE:
        c->has_extended_message = n == 0;
        return n == 0;
    case CAP_ROLE:
        /* RFC 9234 section 4.2: several that differ are a mismatch. */
        if (n != 1) {
            return false;
        }
        c->role = c->role == BGP_ROLE_NONE || c->role == r.p[0] ? r.p[0] : 254;
        return true;
    case CAP_GR:
        return read_gr(r, c);
    case CAP_AS4:
        if (n != 4) {
            return false;
        }
        c->has_as4 = true;
        c->as4 = get_u32(r.p);
        return true;
    case CAP_ADDPATH:
        return read_addpath(r, c);
    case CAP_ENHANCED_REFRESH:
        c->has_enhanced_refresh = n == 0;
        return n == 0;
    case CAP_LLGR:
        return read_llgr(r, c);
    default:
        return true;
    }
}

static int malformed(struct bgp_fail *f) {
    return bgp_fail_set(f, BGP_E_OPEN, 0, NULL, 0);
}

static int read_caps(struct rd r, struct bgp_caps *c, struct bgp_fail *f) {
    while (rd_left(&r)) {
        uint8_t code, len;
        struct rd value;
        if (!rd_u8(&r, &code) || !rd_u8(&r, &len) || !rd_sub(&r, len, &value)) {
            return malformed(f);
        }
        (void)read_cap(code, value, c);
    }
    return 0;
}

static int read_params(struct rd r, bool is_extended, struct bgp_caps *c, struct bgp_fail *f) {
    while (rd_left(&r)) {
        uint8_t type, short_len = 0;
        uint16_t len = 0;
        struct rd value;
        if (!rd_u8(&r, &type) || !(is_extended ? rd_u16(&r, &len) : rd_u8(&r, &short_len)) ||
            !rd_sub(&r, is_extended ? len : short_len, &value)) {
            return malformed(f);
        }
        if (type != PARAM_CAPABILITIES) {
            return bgp_fail_set(f, BGP_E_OPEN, BGP_E_OPEN_PARAMETER, NULL, 0);
        }
        int e = read_caps(value, c, f);
        if (e < 0) {
            return e;
        }
    }
    return 0;
}

int bgp_open_parse(const uint8_t *p, size_t n, struct bgp_open *out, struct bgp_fail *f) {
    struct rd r = rd_of(p, n), params;
    uint8_t version, len, ext_type;
    uint16_t as2, hold, ext_len;
    uint32_t id;
    if (!rd_u8(&r, &version) || !rd_u16(&r, &as2) || !rd_u16(&r, &hold) || !rd_u32(&r, &id) ||
        !rd_u8(&r, &len)) {
        return malformed(f);
    }
    if (version != 4) {
        return bgp_fail_set(f, BGP_E_OPEN, BGP_E_OPEN_VERSION, "\0\4", 2);
    }
    /* RFC 9072: a first parameter of type 255 says that lengths have two octets. */
    bool is_extended = len != 0 && rd_left(&r) >= 3 && r.p[0] == PARAM_EXTENDED;
    if (is_extended) {
        if (!rd_u8(&r, &ext_type) || !rd_u16(&r, &ext_len) || rd_left(&r) != ext_len) {
            return malformed(f);
        }
        params = r;
    } else if (rd_left(&r) != len || !rd_sub(&r, len, &params)) {
        return malformed(f);
    }
    struct bgp_open o = {.as = as2, .hold_s = hold, .id = id, .caps.role = BGP_ROLE_NONE};
    int e = read_params(params, is_extended, &o.caps, f);
    if (e < 0) {
        return e;
    }
    if (o.caps.has_as4) {
        o.as = o.caps.as4;
    }
    /* RFC 7607: AS 0 is never a peer's; RFC 6793: a lone AS_TRANS isn't either. */
    if (o.as == 0 || as2 == 0 || (o.caps.has_as4 && o.as == BGP_AS_TRANS)) {
        return bgp_fail_set(f, BGP_E_OPEN, BGP_E_OPEN_AS, NULL, 0);
    }
    if (hold == 1 || hold == 2) {
        return bgp_fail_set(f, BGP_E_OPEN, BGP_E_OPEN_HOLD, NULL, 0);
    }
    if (id == 0) {
        return bgp_fail_set(f, BGP_E_OPEN, BGP_E_OPEN_ID, NULL, 0);
    }
    if (!o.caps.has_mp) {
        o.caps.mp[BGP_V4] = true; /* RFC 4760 section 8: who names no family speaks IPv4 */
    }
    *out = o;
    return 0;
}

static void cap(struct buf *b, unsigned code, unsigned n) {
    wr_u8(b, code);
    wr_u8(b, n);
}

static void afi_safi(struct buf *b, enum bgp_family f) {
    wr_u16(b, bgp_afi(f));
    wr_u8(b, BGP_SAFI_UNICAST);
}

static unsigned count(const bool *set) {
    return (unsigned)set[BGP_V4] + (unsigned)set[BGP_V6];
}

static void write_gr(struct buf *b, const struct bgp_caps *c) {
    cap(b, CAP_GR, 2 + 4 * count(c->gr));
    wr_u16(b, (c->gr_restarted ? 0x8000U : 0) | (c->gr_notification ? 0x4000U : 0) |
                  (c->gr_time_s & 0xfffU));
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        if (c->gr[f]) {
            afi_safi(b, (enum bgp_family)f);
            wr_u8(b, c->gr_forwarding[f] ? 0x80 : 0);
        }
    }
}

static void write_caps(struct buf *b, const struct bgp_caps *c) {
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        if (c->mp[f]) {
            cap(b, CAP_MP, 4);
            wr_u16(b, bgp_afi((enum bgp_family)f));
            wr_u16(b, BGP_SAFI_UNICAST);
        }
    }
    if (c->has_refresh) {
        cap(b, CAP_REFRESH, 0);
    }
    if (c->has_v4_over_v6) {
        cap(b, CAP_NEXT_HOP, 6);
        wr_u16(b, BGP_AFI_V4);
        wr_u16(b, BGP_SAFI_UNICAST);
        wr_u16(b, BGP_AFI_V6);
    }
    if (c->has_extended_message) {
        cap(b, CAP_EXTENDED_MESSAGE, 0);
    }
    if (c->role != BGP_ROLE_NONE) {
        cap(b, CAP_ROLE, 1);
        wr_u8(b, c->role);
    }
    if (c->has_gr) {
        write_gr(b, c);
    }
    if (c->has_as4) {
        cap(b, CAP_AS4, 4);
        wr_u32(b, c->as4);
    }
    bool ap[] = {c->addpath[BGP_V4] != 0, c->addpath[BGP_V6] != 0};
    if (count(ap)) {
        cap(b, CAP_ADDPATH, 4 * count(ap));
        for (int f = 0; f < BGP_N_FAMILIES; f++) {
            if (ap[f]) {
                afi_safi(b, (enum bgp_family)f);
                wr_u8(b, c->addpath[f]);
            }
        }
    }
    if (c->has_enhanced_refresh) {
        cap(b, CAP_ENHANCED_REFRESH, 0);
    }
    if (c->has_llgr) {
        cap(b, CAP_LLGR, 7 * count(c->llgr));
        for (int f = 0; f < BGP_N_FAMILIES; f++) {
            if (c->llgr[f]) {
                afi_safi(b, (enum bgp_family)f);
                wr_u32(b, (c->llgr_forwarding[f] ? 0x80000000U : 0) | c->llgr_time_s[f]);
            }
        }
    }
}

void bgp_open_write(struct buf *b, const struct bgp_open *o) {
    size_t at = b->n;
    static const uint8_t HEAD[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,     0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,    0,    BGP_OPEN, 4};
    buf_add(b, HEAD, sizeof(HEAD));
    wr_u16(b, o->as > 0xffff ? BGP_AS_TRANS : o->as);
    wr_u16(b, o->hold_s);
    wr_u32(b, o->id);
    /* All that this speaker can say fits the classic form: one parameter below 255 bytes. */
    size_t params = b->n;
    wr_u8(b, 0);
    wr_u8(b, PARAM_CAPABILITIES);
    wr_u8(b, 0);
    write_caps(b, &o->caps);
    if (!b->overflow) {
        size_t n = b->n - params - 3;
        mg_assert(n <= 253);
        b->p[params] = (char)(n ? n + 2 : 0);
        b->p[params + 2] = (char)n;
        if (n == 0) {
            b->n -= 2;
        }
        set_u16((uint8_t *)b->p + at + 16, (unsigned)(b->n - at));
    }
}
