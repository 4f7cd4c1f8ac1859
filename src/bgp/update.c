/* Reading an UPDATE. See update.h. Each attribute has one function, named in a table with the flags
 * and lengths that RFC 7606 section 7 asks for. */
#include "bgp/update.h"

#include "base/err.h"

struct parse {
    const struct bgp_rx *rx;
    struct update_scratch *s;
    struct bgp_update *u;
    struct bgp_fail *f;
    uint8_t seen[32]; /* bitmap of attribute types */
    bool is_withdraw; /* treat-as-withdraw was decided */
    struct str path2, as4_path;
    bool has_path, has_next_hop, has_origin, has_as4_aggregator, has_mp_reach;
    uint32_t as4_aggregator_as, as4_aggregator_id;
    bool others_seen; /* attributes beside MP_UNREACH */
};

void update_scratch_fini(struct update_scratch *s) {
    buf_fini(&s->path);
    buf_fini(&s->unknown);
}

/* ---- prefixes ---- */

bool nlri_next(struct nlri_list *l, struct nlri *out) {
    if (l->n == 0) {
        return false;
    }
    const uint8_t *p = l->p;
    memset(out, 0, sizeof(*out));
    if (l->has_path_ids) {
        out->path_id = get_u32(p);
        p += 4;
    }
    out->len = *p++;
    size_t bytes = (out->len + 7U) / 8U;
    memcpy(out->addr, p, bytes);
    if (out->len % 8) {
        out->addr[bytes - 1] &=
            (uint8_t)(0xff00U >> (out->len % 8)); /* trailing bits mean nothing */
    }
    p += bytes;
    l->n -= (size_t)(p - l->p);
    l->p = p;
    return true;
}

void nlri_write(struct buf *b, const struct nlri *n, bool with_path_id) {
    if (with_path_id) {
        wr_u32(b, n->path_id);
    }
    wr_u8(b, n->len);
    buf_add(b, n->addr, (n->len + 7U) / 8U);
}

bool nlri_is_usable(enum bgp_family f, const struct nlri *n) {
    const uint8_t *a = n->addr;
    if (f == BGP_V4) {
        bool is_this_network = a[0] == 0 && n->len >= 8;
        return !is_this_network && !(a[0] == 127 && n->len >= 8) && !(a[0] >= 224 && n->len >= 4);
    }
    static const uint8_t LOOPBACK[16] = {[15] = 1};
    return !(a[0] == 0xff && n->len >= 8) &&
           !(a[0] == 0xfe && (a[1] & 0xc0) == 0x80 && n->len >= 10) &&
           !(n->len == 128 && memcmp(a, LOOPBACK, 16) == 0);
}

/* RFC 7606 section 5.3: each prefix fits its family and the field. */
static bool nlri_check(const struct nlri_list *l) {
    struct rd r = rd_of(l->p, l->n), skipped;
    while (rd_left(&r)) {
        uint8_t len;
        if ((l->has_path_ids && !rd_sub(&r, 4, &skipped)) || !rd_u8(&r, &len) ||
            len > bgp_bits(l->family) || !rd_sub(&r, (len + 7U) / 8U, &skipped)) {
            return false;
        }
    }
    return true;
}

/* ---- answers to errors ---- */

enum { OK, WITHDRAW, DISCARD, RESET };

static int answer(struct parse *c, uint8_t type, int verdict, const char *why) {
    if (!c->u->error) {
        c->u->error = why;
        c->u->error_attr = type;
    }
    c->is_withdraw |= verdict == WITHDRAW;
    c->u->n_discarded += verdict == DISCARD;
    return verdict;
}

static int reset(struct parse *c, uint8_t subcode, const void *data, size_t n, const char *why) {
    if (!c->u->error) {
        c->u->error = why;
    }
    (void)bgp_fail_set(c->f, BGP_E_UPDATE, subcode, data, n);
    return RESET;
}

/* ---- attributes ---- */

/* One attribute as it lies in the message. */
struct attr_in {
    uint8_t flags, type;
    const uint8_t *p; /* value */
    size_t n;
    const uint8_t *whole; /* with its head, for NOTIFICATIONs */
    size_t n_whole;
};

/* Segments of as_bytes each: RFC 7606 section 7.2, RFC 7607 (AS 0). */
static bool path_check(const uint8_t *p, size_t n, size_t as_bytes, bool allow_confed) {
    struct rd r = rd_of(p, n), as;
    while (rd_left(&r)) {
        uint8_t type, count;
        if (!rd_u8(&r, &type) || !rd_u8(&r, &count) || count == 0 ||
            !rd_sub(&r, count * as_bytes, &as) || type < SEG_SET || type > SEG_CONFED_SET ||
            (!allow_confed && type > SEG_SEQUENCE)) {
            return false;
        }
        for (; rd_left(&as); as.p += as_bytes) {
            if ((as_bytes == 4 ? get_u32(as.p) : get_u16(as.p)) == 0) {
                return false;
            }
        }
    }
    return true;
}

static int read_origin(struct parse *c, const struct attr_in *a) {
    if (a->n != 1 || a->p[0] > ORIGIN_INCOMPLETE) {
        return answer(c, a->type, WITHDRAW, "ORIGIN is not one octet of 0 to 2");
    }
    c->u->attrs.origin = a->p[0];
    c->has_origin = true;
    return OK;
}

static int read_as_path(struct parse *c, const struct attr_in *a) {
    if (!path_check(a->p, a->n, c->rx->as4 ? 4 : 2, c->rx->is_confed)) {
        return answer(c, a->type, WITHDRAW, "AS_PATH has a wrong segment or AS 0");
    }
    c->path2 = str_n((const char *)a->p, a->n);
    c->has_path = true;
    return OK;
}

static void take_ip4(struct ip46 *out, const uint8_t *p) {
    *out = (struct ip46){.family = IP_V4};
    memcpy(out->b, p, 4);
}

static void take_ip6(struct ip46 *out, const uint8_t *p) {
    out->family = IP_V6;
    memcpy(out->b, p, 16);
}

static int read_next_hop(struct parse *c, const struct attr_in *a) {
    if (a->n != 4) {
        return answer(c, a->type, WITHDRAW, "NEXT_HOP is not four octets");
    }
    take_ip4(&c->u->next_hop, a->p);
    c->has_next_hop = true;
    return OK;
}

static int read_med(struct parse *c, const struct attr_in *a) {
    if (a->n != 4) {
        return answer(c, a->type, WITHDRAW, "MULTI_EXIT_DISC is not four octets");
    }
    c->u->attrs.med = get_u32(a->p);
    c->u->attrs.has |= HAS_MED;
    return OK;
}

static int read_local_pref(struct parse *c, const struct attr_in *a) {
    if (!c->rx->is_internal && !c->rx->is_confed) {
        return answer(c, a->type, DISCARD, "LOCAL_PREF from another AS");
    }
    if (a->n != 4) {
        return answer(c, a->type, WITHDRAW, "LOCAL_PREF is not four octets");
    }
    c->u->attrs.local_pref = get_u32(a->p);
    c->u->attrs.has |= HAS_LOCAL_PREF;
    return OK;
}

static int read_atomic(struct parse *c, const struct attr_in *a) {
    if (a->n != 0) {
        return answer(c, a->type, DISCARD, "ATOMIC_AGGREGATE is not empty");
    }
    c->u->attrs.has |= HAS_ATOMIC;
    return OK;
}

static int read_aggregator(struct parse *c, const struct attr_in *a) {
    if (a->n != (c->rx->as4 ? 8 : 6)) {
        return answer(c, a->type, DISCARD, "AGGREGATOR has a wrong length");
    }
    uint32_t as = c->rx->as4 ? get_u32(a->p) : get_u16(a->p);
    if (as == 0) {
        return answer(c, a->type, DISCARD, "AGGREGATOR has AS 0");
    }
    c->u->attrs.aggregator_as = as;
    c->u->attrs.aggregator_id = get_u32(a->p + a->n - 4);
    c->u->attrs.has |= HAS_AGGREGATOR;
    return OK;
}

static int read_originator(struct parse *c, const struct attr_in *a) {
    if (!c->rx->is_internal) {
        return answer(c, a->type, DISCARD, "ORIGINATOR_ID from another AS");
    }
    if (a->n != 4) {
        return answer(c, a->type, WITHDRAW, "ORIGINATOR_ID is not four octets");
    }
    c->u->attrs.originator = get_u32(a->p);
    c->u->attrs.has |= HAS_ORIGINATOR;
    return OK;
}

static int read_otc(struct parse *c, const struct attr_in *a) {
    if (a->n != 4) {
        return answer(c, a->type, WITHDRAW, "ONLY_TO_CUSTOMER is not four octets");
    }
    c->u->attrs.otc = get_u32(a->p);
    c->u->attrs.has |= HAS_OTC;
    return OK;
}

/* A list of elements of `each` octets, at least one. */
static int read_list(struct parse *c, const struct attr_in *a, enum attr_part part, size_t each) {
    if (a->n == 0 || a->n % each) {
        return answer(c, a->type, WITHDRAW, "a list of communities or clusters has a wrong length");
    }
    c->u->attrs.part[part] = str_n((const char *)a->p, a->n);
    return OK;
}

static int read_communities(struct parse *c, const struct attr_in *a) {
    return read_list(c, a, PART_COMMUNITIES, 4);
}
static int read_clusters(struct parse *c, const struct attr_in *a) {
    if (!c->rx->is_internal) {
        return answer(c, a->type, DISCARD, "CLUSTER_LIST from another AS");
    }
    return read_list(c, a, PART_CLUSTERS, 4);
}
static int read_ext(struct parse *c, const struct attr_in *a) {
    return read_list(c, a, PART_EXT, 8);
}
static int read_ext6(struct parse *c, const struct attr_in *a) {
    return read_list(c, a, PART_EXT6, 20);
}
static int read_large(struct parse *c, const struct attr_in *a) {
    return read_list(c, a, PART_LARGE, 12);
}

static int read_as4_path(struct parse *c, const struct attr_in *a) {
    /* RFC 6793 section 6: malformed or from a speaker that has four octets: left out. */
    if (c->rx->as4 || !path_check(a->p, a->n, 4, true)) {
        return answer(c, a->type, DISCARD, "AS4_PATH is wrong or needless");
    }
    c->as4_path = str_n((const char *)a->p, a->n);
    return OK;
}

static int read_as4_aggregator(struct parse *c, const struct attr_in *a) {
    if (c->rx->as4 || a->n != 8 || get_u32(a->p) == 0) {
        return answer(c, a->type, DISCARD, "AS4_AGGREGATOR is wrong or needless");
    }
    c->has_as4_aggregator = true;
    c->as4_aggregator_as = get_u32(a->p);
    c->as4_aggregator_id = get_u32(a->p + 4);
    return OK;
}

static int bad_mp(struct parse *c, const struct attr_in *a, const char *why) {
    c->u->error_attr = a->type;
    return reset(c, BGP_E_UPDATE_OPTIONAL, a->whole, a->n_whole, why);
}

/* A peer whose only address is link-local: BIRD writes :: in front of it, others leave the first
 * one out. Both fields hold it then. */
static void settle_link_local(struct bgp_update *u) {
    static const uint8_t NO_ADDRESS[16] = {0};
    if (ip_is_link_local(&u->mp_link_local) && memcmp(u->mp_next_hop.b, NO_ADDRESS, 16) == 0) {
        u->mp_next_hop = u->mp_link_local;
    } else if (ip_is_link_local(&u->mp_next_hop)) {
        u->mp_link_local = u->mp_next_hop;
    }
}

static int read_mp_reach(struct parse *c, const struct attr_in *a) {
    struct rd r = rd_of(a->p, a->n), hop;
    uint16_t afi;
    uint8_t safi, n, reserved;
    enum bgp_family f;
    if (!rd_u16(&r, &afi) || !rd_u8(&r, &safi) || !rd_u8(&r, &n) || !rd_sub(&r, n, &hop) ||
        !rd_u8(&r, &reserved)) {
        return bad_mp(c, a, "MP_REACH_NLRI is too short");
    }
    if (!bgp_family_of(afi, safi, &f) || !c->rx->mp[f]) {
        return answer(c, a->type, DISCARD, "MP_REACH_NLRI of a family that was not negotiated");
    }
    bool is_v6_hop = n == 16 || n == 32;
    if (f == BGP_V4 ? n != 4 && !(is_v6_hop && c->rx->v4_over_v6) : !is_v6_hop) {
        return bad_mp(c, a, "MP_REACH_NLRI has a next hop of a wrong length");
    }
    if (n == 4) {
        take_ip4(&c->u->mp_next_hop, hop.p);
    } else {
        take_ip6(&c->u->mp_next_hop, hop.p);
    }
    if (n == 32) {
        take_ip6(&c->u->mp_link_local, hop.p + 16);
    }
    if (is_v6_hop) {
        settle_link_local(c->u);
    }
    c->has_mp_reach = true;
    struct nlri_list l = {r.p, rd_left(&r), f, c->rx->addpath[f], false};
    if (!nlri_check(&l)) {
        return bad_mp(c, a, "MP_REACH_NLRI has a prefix that does not fit");
    }
    c->u->reach[c->u->n_reach++] = l;
    return OK;
}

static int read_mp_unreach(struct parse *c, const struct attr_in *a) {
    struct rd r = rd_of(a->p, a->n);
    uint16_t afi;
    uint8_t safi;
    enum bgp_family f;
    if (!rd_u16(&r, &afi) || !rd_u8(&r, &safi)) {
        return bad_mp(c, a, "MP_UNREACH_NLRI is too short");
    }
    if (!bgp_family_of(afi, safi, &f) || !c->rx->mp[f]) {
        return answer(c, a->type, DISCARD, "MP_UNREACH_NLRI of a family that was not negotiated");
    }
    struct nlri_list l = {r.p, rd_left(&r), f, c->rx->addpath[f], false};
    if (!nlri_check(&l)) {
        return bad_mp(c, a, "MP_UNREACH_NLRI has a prefix that does not fit");
    }
    c->u->unreach[c->u->n_unreach++] = l;
    return OK;
}

/* Optional and transitive ones travel on, marked; the others end here (RFC 4271 section 5). */
static int read_unknown(struct parse *c, const struct attr_in *a) {
    if (!(a->flags & ATTR_F_OPTIONAL)) {
        c->u->error_attr = a->type;
        return reset(c, BGP_E_UPDATE_UNKNOWN, a->whole, a->n_whole,
                     "an attribute is called well-known and is not");
    }
    if (!(a->flags & ATTR_F_TRANSITIVE)) {
        return OK;
    }
    /* Kept sorted by type: the order of the wire says nothing. */
    struct buf *b = &c->s->unknown;
    size_t at = 0;
    while (at + 4 <= b->n && (uint8_t)b->p[at + 1] < a->type) {
        at += 4U + get_u16((uint8_t *)b->p + at + 2);
    }
    if (!buf_reserve(b, a->n + 4)) {
        return answer(c, a->type, WITHDRAW, "too many unknown attributes");
    }
    memmove(b->p + at + a->n + 4, b->p + at, b->n - at);
    b->n += a->n + 4;
    b->p[at] = (char)(ATTR_F_OPTIONAL | ATTR_F_TRANSITIVE | ATTR_F_PARTIAL);
    b->p[at + 1] = (char)a->type;
    set_u16((uint8_t *)b->p + at + 2, (unsigned)a->n);
    memcpy(b->p + at + 4, a->p, a->n);
    return OK;
}

enum { OPT = ATTR_F_OPTIONAL, TRANS = ATTR_F_TRANSITIVE };
static const struct {
    int (*read)(struct parse *c, const struct attr_in *a);
    uint8_t flags;         /* that must be, of optional and transitive */
    bool discard_on_flags; /* RFC 7606: these lose only themselves */
} KNOWN[] = {
    [ATTR_ORIGIN] = {read_origin, TRANS, false},
    [ATTR_AS_PATH] = {read_as_path, TRANS, false},
    [ATTR_NEXT_HOP] = {read_next_hop, TRANS, false},
    [ATTR_MED] = {read_med, OPT, false},
    [ATTR_LOCAL_PREF] = {read_local_pref, TRANS, false},
    [ATTR_ATOMIC] = {read_atomic, TRANS, true},
    [ATTR_AGGREGATOR] = {read_aggregator, OPT | TRANS, true},
    [ATTR_COMMUNITIES] = {read_communities, OPT | TRANS, false},
    [ATTR_ORIGINATOR] = {read_originator, OPT, false},
    [ATTR_CLUSTERS] = {read_clusters, OPT, false},
    [ATTR_MP_REACH] = {read_mp_reach, OPT, false},
    [ATTR_MP_UNREACH] = {read_mp_unreach, OPT, false},
    [ATTR_EXT] = {read_ext, OPT | TRANS, false},
    [ATTR_AS4_PATH] = {read_as4_path, OPT | TRANS, true},
    [ATTR_AS4_AGGREGATOR] = {read_as4_aggregator, OPT | TRANS, true},
    [ATTR_EXT6] = {read_ext6, OPT | TRANS, false},
    [ATTR_LARGE] = {read_large, OPT | TRANS, false},
    [ATTR_OTC] = {read_otc, OPT | TRANS, false},
};

static int read_attr(struct parse *c, const struct attr_in *a) {
    uint8_t bit = (uint8_t)(1U << (a->type % 8));
    if (c->seen[a->type / 8] & bit) {
        /* RFC 7606 section 3 g. */
        if (a->type == ATTR_MP_REACH || a->type == ATTR_MP_UNREACH) {
            return reset(c, BGP_E_UPDATE_LIST, NULL, 0, "MP_REACH or MP_UNREACH twice");
        }
        return answer(c, a->type, DISCARD, "an attribute is there twice");
    }
    c->seen[a->type / 8] |= bit;
    c->others_seen |= a->type != ATTR_MP_UNREACH;
    if (a->type >= ARRAY_LEN(KNOWN) || !KNOWN[a->type].read) {
        return read_unknown(c, a);
    }
    if ((a->flags & (OPT | TRANS)) != KNOWN[a->type].flags) {
        int r = answer(c, a->type, KNOWN[a->type].discard_on_flags ? DISCARD : WITHDRAW,
                       "an attribute has wrong flags");
        /* Its prefixes are still wanted: they are what is withdrawn. */
        if (a->type != ATTR_MP_REACH && a->type != ATTR_MP_UNREACH) {
            return r;
        }
    }
    return KNOWN[a->type].read(c, a);
}

static int read_attrs(struct parse *c, struct rd r) {
    while (rd_left(&r)) {
        struct attr_in a = {.whole = r.p};
        uint8_t n8;
        uint16_t n16;
        struct rd value;
        bool ok = rd_u8(&r, &a.flags) && rd_u8(&r, &a.type);
        if (ok && (a.flags & ATTR_F_LONG)) {
            ok = rd_u16(&r, &n16);
            a.n = ok ? n16 : 0;
        } else if (ok) {
            ok = rd_u8(&r, &n8);
            a.n = ok ? n8 : 0;
        }
        if (!ok || !rd_sub(&r, a.n, &value)) {
            /* RFC 7606 section 4. */
            (void)answer(c, a.type, WITHDRAW, "an attribute is longer than the message");
            c->others_seen = true;
            return OK;
        }
        a.p = value.p;
        a.n_whole = (size_t)(r.p - a.whole);
        if (read_attr(c, &a) == RESET) {
            return RESET;
        }
    }
    return OK;
}

/* ---- after the last attribute ---- */

static unsigned count_as(struct str path, size_t as_bytes) {
    struct rd r = rd_of(path.p, path.n), as;
    uint8_t type, n;
    unsigned sum = 0;
    while (rd_u8(&r, &type) && rd_u8(&r, &n) && rd_sub(&r, n * as_bytes, &as)) {
        sum += type == SEG_SEQUENCE ? n : type == SEG_SET ? 1 : 0;
    }
    return sum;
}

/* Copies the first `want` ASes (a set counts once; confederations nothing) of a two-octet path. */
static void widen(struct buf *out, struct str path, unsigned want) {
    struct rd r = rd_of(path.p, path.n), as;
    uint8_t type, n;
    while (rd_u8(&r, &type) && rd_u8(&r, &n) && rd_sub(&r, n * 2U, &as)) {
        unsigned take = type == SEG_SEQUENCE && n > want ? want : n;
        unsigned counts = type == SEG_SEQUENCE ? take : type == SEG_SET ? 1 : 0;
        if (take == 0 || counts > want) {
            return;
        }
        want -= counts;
        wr_u8(out, type);
        wr_u8(out, take);
        for (unsigned i = 0; i < take; i++) {
            wr_u16(out, 0);
            wr_u16(out, get_u16(as.p + (size_t)i * 2));
        }
    }
}

/* The path in four octets: as it came, or put together as RFC 6793 section 4.2.3 says. */
static void finish_path(struct parse *c) {
    struct attr_src *a = &c->u->attrs;
    if (c->rx->as4) {
        a->part[PART_AS_PATH] = c->path2;
        return;
    }
    bool use_as4 = true;
    if ((a->has & HAS_AGGREGATOR) && c->has_as4_aggregator) {
        if (a->aggregator_as == BGP_AS_TRANS) {
            a->aggregator_as = c->as4_aggregator_as;
            a->aggregator_id = c->as4_aggregator_id;
        } else {
            use_as4 = false;
        }
    }
    struct buf *b = &c->s->path;
    buf_reset(b);
    unsigned n2 = count_as(c->path2, 2), n4 = count_as(c->as4_path, 4);
    if (c->as4_path.p && use_as4 && n2 >= n4) {
        widen(b, c->path2, n2 - n4);
        struct buf clean = BUF_INIT(BGP_MAX_EXT);
        as_path_strip_confed(&clean, c->as4_path);
        buf_str(b, buf_view(&clean));
        buf_fini(&clean);
    } else {
        widen(b, c->path2, UINT32_MAX);
    }
    if (b->overflow || b->n > BGP_MAX_EXT) {
        (void)answer(c, ATTR_AS_PATH, WITHDRAW, "AS_PATH is too long");
        return;
    }
    a->part[PART_AS_PATH] = buf_view(b);
}

static void finish(struct parse *c, bool has_classic) {
    if (!c->has_origin || !c->has_path || (has_classic && !c->has_next_hop)) {
        (void)answer(c,
                     !c->has_origin ? ATTR_ORIGIN
                     : !c->has_path ? ATTR_AS_PATH
                                    : ATTR_NEXT_HOP,
                     WITHDRAW, "a mandatory attribute is missing");
        return;
    }
    finish_path(c);
    struct attr_src *a = &c->u->attrs;
    if (c->rx->first_as && as_path_first(a->part[PART_AS_PATH]) != c->rx->first_as) {
        (void)answer(c, ATTR_AS_PATH, WITHDRAW, "AS_PATH does not begin with the peer's AS");
    }
    a->part[PART_UNKNOWN] = c->s->unknown.n ? buf_view(&c->s->unknown) : STR_NULL;
}

static void note_eor(struct bgp_update *u, const struct bgp_rx *rx, bool is_bare,
                     bool others_seen) {
    if (is_bare && rx->mp[BGP_V4]) {
        u->is_eor[BGP_V4] = true;
    } else if (u->n_unreach == 1 && u->n_reach == 0 && u->unreach[0].n == 0 && !others_seen) {
        u->is_eor[u->unreach[0].family] = true;
    }
}

enum bgp_update_verdict bgp_update_parse(const uint8_t *p, size_t n, const struct bgp_rx *rx,
                                         struct update_scratch *s, struct bgp_update *out,
                                         struct bgp_fail *f) {
    memset(out, 0, sizeof(*out));
    buf_reset(&s->unknown);
    struct parse c = {.rx = rx, .s = s, .u = out, .f = f};
    struct rd r = rd_of(p, n), withdrawn, attrs;
    uint16_t len;
    if (!rd_u16(&r, &len) || !rd_sub(&r, len, &withdrawn) || !rd_u16(&r, &len) ||
        !rd_sub(&r, len, &attrs)) {
        (void)reset(&c, BGP_E_UPDATE_LIST, NULL, 0, "lengths do not add up");
        return UPDATE_RESET;
    }
    bool v4_ids = rx->addpath[BGP_V4];
    struct nlri_list unreach = {withdrawn.p, rd_left(&withdrawn), BGP_V4, v4_ids, true};
    struct nlri_list reach = {r.p, rd_left(&r), BGP_V4, v4_ids, true};
    if (!nlri_check(&unreach) || !nlri_check(&reach)) {
        (void)reset(&c, BGP_E_UPDATE_NETWORK, NULL, 0, "a prefix does not fit its field");
        return UPDATE_RESET;
    }
    bool is_bare = unreach.n == 0 && reach.n == 0 && rd_left(&attrs) == 0;
    if (read_attrs(&c, attrs) == RESET) {
        return UPDATE_RESET;
    }
    bool has_classic = reach.n > 0;
    if (unreach.n && rx->mp[BGP_V4]) {
        out->unreach[out->n_unreach++] = unreach;
    }
    if (has_classic && rx->mp[BGP_V4]) {
        out->reach[out->n_reach++] = reach;
    }
    note_eor(out, rx, is_bare, c.others_seen);
    if (has_classic || c.has_mp_reach) {
        finish(&c, has_classic);
    } else if (c.is_withdraw && c.others_seen) {
        /* RFC 7606 section 5.2: what was to be withdrawn can't be known. */
        (void)reset(&c, BGP_E_UPDATE_LIST, NULL, 0, "an error, and no prefix to withdraw");
        return UPDATE_RESET;
    }
    return c.is_withdraw ? UPDATE_WITHDRAW : UPDATE_OK;
}
