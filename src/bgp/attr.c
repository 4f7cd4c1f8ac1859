/* AS paths, communities, and attributes to the wire. See attr.h; storage is in attr_store.c,
 * reading in update.c. */
#include "bgp/attr.h"

#include <stdlib.h>

/* Next segment of a path that was checked when it came in. */
static bool segment(struct str *path, uint8_t *type, unsigned *n, const uint8_t **as) {
    if (path->n < 2) {
        return false;
    }
    const uint8_t *p = (const uint8_t *)path->p;
    size_t bytes = 2 + (size_t)p[1] * 4;
    if (bytes > path->n) {
        return false;
    }
    *type = p[0];
    *n = p[1];
    *as = p + 2;
    path->p += bytes;
    path->n -= bytes;
    return true;
}

unsigned as_path_len(struct str path) {
    uint8_t type;
    unsigned n, sum = 0;
    const uint8_t *as;
    while (segment(&path, &type, &n, &as)) {
        sum += type == SEG_SEQUENCE ? n : type == SEG_SET ? 1 : 0;
    }
    return sum;
}

uint32_t as_path_first(struct str path) {
    uint8_t type;
    unsigned n;
    const uint8_t *as;
    while (segment(&path, &type, &n, &as)) {
        if (type == SEG_SEQUENCE) {
            return get_u32(as);
        }
        if (type == SEG_SET) {
            return 0;
        }
    }
    return 0;
}

uint32_t as_path_origin(struct str path) {
    uint8_t type;
    unsigned n;
    const uint8_t *as;
    uint32_t last = 0;
    while (segment(&path, &type, &n, &as)) {
        last = type == SEG_SEQUENCE ? get_u32(as + 4 * (size_t)(n - 1)) : 0;
    }
    return last;
}

unsigned as_path_count(struct str path, uint32_t want) {
    uint8_t type;
    unsigned n, sum = 0;
    const uint8_t *as;
    while (segment(&path, &type, &n, &as)) {
        for (unsigned i = 0; i < n; i++) {
            sum += get_u32(as + (size_t)i * 4) == want;
        }
    }
    return sum;
}

bool as_path_has_confed(struct str path) {
    uint8_t type;
    unsigned n;
    const uint8_t *as;
    while (segment(&path, &type, &n, &as)) {
        if (type == SEG_CONFED_SEQUENCE || type == SEG_CONFED_SET) {
            return true;
        }
    }
    return false;
}

void as_path_prepend(struct buf *out, struct str path, uint8_t seg, uint32_t as, unsigned n) {
    buf_reset(out);
    const uint8_t *p = (const uint8_t *)path.p;
    if (path.n >= 2 && p[0] == seg && p[1] + n <= 255) {
        wr_u8(out, seg);
        wr_u8(out, p[1] + n);
        path = str_sub(path, 2, path.n);
    } else {
        wr_u8(out, seg);
        wr_u8(out, n);
    }
    for (unsigned i = 0; i < n; i++) {
        wr_u32(out, as);
    }
    buf_str(out, path);
}

void as_path_strip_confed(struct buf *out, struct str path) {
    uint8_t type;
    unsigned n;
    const uint8_t *as;
    buf_reset(out);
    while (segment(&path, &type, &n, &as)) {
        if (type == SEG_SET || type == SEG_SEQUENCE) {
            buf_add(out, as - 2, 2 + (size_t)n * 4);
        }
    }
}

void as_path_print(struct buf *b, struct str path) {
    static const char OPEN[] = " {  (", CLOSE[] = " }  )";
    static const char CONFED_SET_OPEN = '[', CONFED_SET_CLOSE = ']';
    uint8_t type;
    unsigned n;
    const uint8_t *as;
    bool is_first = true;
    while (segment(&path, &type, &n, &as)) {
        if (!is_first) {
            buf_putc(b, ' ');
        }
        is_first = false;
        bool is_set = type == SEG_SET || type == SEG_CONFED_SET;
        char open = type == SEG_CONFED_SET        ? CONFED_SET_OPEN
                    : type == SEG_CONFED_SEQUENCE ? '('
                                                  : OPEN[type];
        char close = type == SEG_CONFED_SET        ? CONFED_SET_CLOSE
                     : type == SEG_CONFED_SEQUENCE ? ')'
                                                   : CLOSE[type];
        if (type != SEG_SEQUENCE) {
            buf_putc(b, open);
        }
        for (unsigned i = 0; i < n; i++) {
            buf_printf(b, "%s%u", i == 0 ? "" : is_set ? "," : " ", get_u32(as + (size_t)i * 4));
        }
        if (type != SEG_SEQUENCE) {
            buf_putc(b, close);
        }
    }
}

bool comm_has(struct str set, uint32_t c) {
    for (size_t i = 0; i + 4 <= set.n; i += 4) {
        if (get_u32((const uint8_t *)set.p + i) == c) {
            return true;
        }
    }
    return false;
}

void comm_add(struct buf *out, struct str set, const uint8_t *c, size_t n) {
    size_t at = set.n;
    for (size_t i = 0; i + n <= set.n; i += n) {
        int d = memcmp(set.p + i, c, n);
        if (d == 0) {
            buf_str(out, set);
            return;
        }
        if (d > 0 && at == set.n) {
            at = i;
        }
    }
    buf_str(out, str_sub(set, 0, at));
    buf_add(out, c, n);
    buf_str(out, str_sub(set, at, set.n));
}

/* ---- to the wire ---- */

static void head(struct buf *b, unsigned flags, enum attr_code code, size_t n) {
    bool is_long = n > 255;
    wr_u8(b, flags | (is_long ? ATTR_F_LONG : 0U));
    wr_u8(b, code);
    if (is_long) {
        wr_u16(b, (unsigned)n);
    } else {
        wr_u8(b, (unsigned)n);
    }
}

static void put_u32(struct buf *b, unsigned flags, enum attr_code code, uint32_t v) {
    head(b, flags, code, 4);
    wr_u32(b, v);
}

static void put_part(struct buf *b, unsigned flags, enum attr_code code, struct str s) {
    if (s.n) {
        head(b, flags, code, s.n);
        buf_str(b, s);
    }
}

/* RFC 6793: does any AS of the path need four octets? */
static bool is_wide(struct str path) {
    uint8_t type;
    unsigned n;
    const uint8_t *as;
    while (segment(&path, &type, &n, &as)) {
        for (unsigned i = 0; i < n; i++) {
            if (get_u32(as + (size_t)i * 4) > 0xffff) {
                return true;
            }
        }
    }
    return false;
}

static void put_as_path(struct buf *b, struct str path, bool as4) {
    if (as4) {
        head(b, ATTR_F_TRANSITIVE, ATTR_AS_PATH, path.n);
        buf_str(b, path);
        return;
    }
    uint8_t type;
    unsigned n;
    const uint8_t *as;
    size_t bytes = 0;
    for (struct str p = path; segment(&p, &type, &n, &as);) {
        bytes += 2 + (size_t)n * 2;
    }
    head(b, ATTR_F_TRANSITIVE, ATTR_AS_PATH, bytes);
    while (segment(&path, &type, &n, &as)) {
        wr_u8(b, type);
        wr_u8(b, n);
        for (unsigned i = 0; i < n; i++) {
            uint32_t v = get_u32(as + (size_t)i * 4);
            wr_u16(b, v > 0xffff ? BGP_AS_TRANS : v);
        }
    }
}

/* AS4_PATH has no confederation segments (RFC 6793 section 3). */
static void put_as4_path(struct buf *b, struct str path) {
    uint8_t type;
    unsigned n;
    const uint8_t *as;
    size_t bytes = 0;
    for (struct str p = path; segment(&p, &type, &n, &as);) {
        bytes += type <= SEG_SEQUENCE ? 2 + (size_t)n * 4 : 0;
    }
    head(b, ATTR_F_OPTIONAL | ATTR_F_TRANSITIVE, ATTR_AS4_PATH, bytes);
    while (segment(&path, &type, &n, &as)) {
        if (type <= SEG_SEQUENCE) {
            buf_add(b, as - 2, 2 + (size_t)n * 4);
        }
    }
}

/* Unknown attributes with types from first to last; they are kept sorted. */
static void put_unknown(struct buf *b, struct str u, unsigned first, unsigned last) {
    while (u.n >= 4) {
        const uint8_t *p = (const uint8_t *)u.p;
        size_t n = get_u16(p + 2);
        if (n + 4 > u.n) {
            return;
        }
        if (p[1] >= first && p[1] <= last) {
            head(b, p[0] & ~(unsigned)ATTR_F_LONG, (enum attr_code)p[1], n);
            buf_add(b, p + 4, n);
        }
        u = str_sub(u, 4 + n, u.n);
    }
}

void attr_encode(struct buf *b, const struct attr_src *a, const struct attr_enc *enc) {
    const unsigned OT = ATTR_F_OPTIONAL | ATTR_F_TRANSITIVE;
    struct str path = a->part[PART_AS_PATH], unknown = a->part[PART_UNKNOWN];
    head(b, ATTR_F_TRANSITIVE, ATTR_ORIGIN, 1);
    wr_u8(b, a->origin);
    put_as_path(b, path, enc->as4);
    if (enc->with_next_hop) {
        head(b, ATTR_F_TRANSITIVE, ATTR_NEXT_HOP, 4);
        buf_add(b, a->next_hop.b, 4);
    }
    if (a->has & HAS_MED) {
        put_u32(b, ATTR_F_OPTIONAL, ATTR_MED, a->med);
    }
    if (a->has & HAS_LOCAL_PREF) {
        put_u32(b, ATTR_F_TRANSITIVE, ATTR_LOCAL_PREF, a->local_pref);
    }
    if (a->has & HAS_ATOMIC) {
        head(b, ATTR_F_TRANSITIVE, ATTR_ATOMIC, 0);
    }
    if (a->has & HAS_AGGREGATOR) {
        head(b, OT, ATTR_AGGREGATOR, enc->as4 ? 8 : 6);
        if (enc->as4) {
            wr_u32(b, a->aggregator_as);
        } else {
            wr_u16(b, a->aggregator_as > 0xffff ? BGP_AS_TRANS : a->aggregator_as);
        }
        wr_u32(b, a->aggregator_id);
    }
    put_part(b, OT, ATTR_COMMUNITIES, a->part[PART_COMMUNITIES]);
    if (a->has & HAS_ORIGINATOR) {
        put_u32(b, ATTR_F_OPTIONAL, ATTR_ORIGINATOR, a->originator);
    }
    put_part(b, ATTR_F_OPTIONAL, ATTR_CLUSTERS, a->part[PART_CLUSTERS]);
    put_unknown(b, unknown, ATTR_CLUSTERS + 1, ATTR_EXT);
    put_part(b, OT, ATTR_EXT, a->part[PART_EXT]);
    if (!enc->as4 && is_wide(path)) {
        put_as4_path(b, path);
    }
    if (!enc->as4 && (a->has & HAS_AGGREGATOR) && a->aggregator_as > 0xffff) {
        head(b, OT, ATTR_AS4_AGGREGATOR, 8);
        wr_u32(b, a->aggregator_as);
        wr_u32(b, a->aggregator_id);
    }
    put_unknown(b, unknown, ATTR_AS4_AGGREGATOR + 1, ATTR_EXT6 - 1);
    put_part(b, OT, ATTR_EXT6, a->part[PART_EXT6]);
    put_unknown(b, unknown, ATTR_EXT6 + 1, ATTR_LARGE - 1);
    put_part(b, OT, ATTR_LARGE, a->part[PART_LARGE]);
    put_unknown(b, unknown, ATTR_LARGE + 1, ATTR_OTC - 1);
    if (a->has & HAS_OTC) {
        put_u32(b, OT, ATTR_OTC, a->otc);
    }
    put_unknown(b, unknown, ATTR_OTC + 1, 255);
}
