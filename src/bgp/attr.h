/* Path attributes. Two forms: struct attr_src, loose, in which messages are read and policy changes
 * things; and struct attrs, packed, immutable and shared by all routes that have the same ones.
 * AS numbers are four octets everywhere inside; RFC 6793's transition happens on the wire only. */
#pragma once

#include "bgp/msg.h"

enum attr_code {
    ATTR_ORIGIN = 1,
    ATTR_AS_PATH = 2,
    ATTR_NEXT_HOP = 3,
    ATTR_MED = 4,
    ATTR_LOCAL_PREF = 5,
    ATTR_ATOMIC = 6,
    ATTR_AGGREGATOR = 7,
    ATTR_COMMUNITIES = 8,
    ATTR_ORIGINATOR = 9,
    ATTR_CLUSTERS = 10,
    ATTR_MP_REACH = 14,
    ATTR_MP_UNREACH = 15,
    ATTR_EXT = 16,
    ATTR_AS4_PATH = 17,
    ATTR_AS4_AGGREGATOR = 18,
    ATTR_EXT6 = 25,
    ATTR_LARGE = 32,
    ATTR_OTC = 35,
};
enum {
    ATTR_F_OPTIONAL = 0x80,
    ATTR_F_TRANSITIVE = 0x40,
    ATTR_F_PARTIAL = 0x20,
    ATTR_F_LONG = 0x10
};

enum { SEG_SET = 1, SEG_SEQUENCE = 2, SEG_CONFED_SEQUENCE = 3, SEG_CONFED_SET = 4 };
enum { ORIGIN_IGP = 0, ORIGIN_EGP = 1, ORIGIN_INCOMPLETE = 2 };

/* Well-known communities (RFC 1997, 8326, 9494, 7999). */
#define COMM_GRACEFUL_SHUTDOWN 0xffff0000U
#define COMM_LLGR_STALE 0xffff0006U
#define COMM_NO_LLGR 0xffff0007U
#define COMM_NO_EXPORT 0xffffff01U
#define COMM_NO_ADVERTISE 0xffffff02U
#define COMM_NO_EXPORT_SUBCONFED 0xffffff03U

/* Which of the optional values are there. */
enum {
    HAS_MED = 1,
    HAS_LOCAL_PREF = 2,
    HAS_ATOMIC = 4,
    HAS_AGGREGATOR = 8,
    HAS_ORIGINATOR = 16,
    HAS_OTC = 32,
};

/* Attributes of variable length, in the bytes of the wire with AS numbers of four octets.
 * PART_LOCAL is ours: where a route came from that no peer gave (struct attr_local). */
enum attr_part {
    PART_AS_PATH,
    PART_COMMUNITIES,
    PART_CLUSTERS,
    PART_EXT,
    PART_EXT6,
    PART_LARGE,
    PART_UNKNOWN, /* whole attributes with flags, type, two bytes of length; sorted by type */
    PART_LOCAL,
    N_PARTS,
};

struct attr_src {
    uint16_t has; /* HAS_ bits */
    uint8_t origin;
    uint32_t med, local_pref, originator, otc, aggregator_as, aggregator_id;
    struct ip46 next_hop;   /* IP_NONE: none (a local route) */
    struct ip46 link_local; /* beside an IPv6 next hop; IP_NONE: none */
    struct str part[N_PARTS];
};

/* Packed. Parts follow as [part u8][length u16 host order][bytes], in order of enum attr_part. */
struct attrs {
    uint32_t n_refs;
    uint32_t hash;
    uint32_t next_hop; /* id in the table of next hops (nexthop.h); 0: none */
    uint32_t med, local_pref;
    uint32_t n_bytes;  /* of data */
    uint16_t path_len; /* RFC 4271 9.1.2.2 a: a set counts once, a confederation's nothing */
    uint8_t has, origin;
    uint8_t data[]; /* originator, otc, aggregator where HAS_ says so (4, 4, 8 bytes), then parts */
};

/* Views into a; live as long as a. STR_NULL: absent. */
struct str attrs_part(const struct attrs *a, enum attr_part part);
uint32_t attrs_originator(const struct attrs *a);
uint32_t attrs_otc(const struct attrs *a);

/* ---- AS paths (four octets) ---- */

unsigned as_path_len(struct str path);
/* Leftmost AS of a sequence, outside confederations; 0: none (empty, or begins with a set). */
uint32_t as_path_first(struct str path);
/* Last AS; 0: the path is empty or ends in a set. */
uint32_t as_path_origin(struct str path);
/* How often want is in it. */
unsigned as_path_count(struct str path, uint32_t want);
bool as_path_has_confed(struct str path);
/* Puts as n times in front (segment type SEG_SEQUENCE or SEG_CONFED_SEQUENCE). out is reset. */
void as_path_prepend(struct buf *out, struct str path, uint8_t seg, uint32_t as, unsigned n);
/* Without confederation segments. out is reset. */
void as_path_strip_confed(struct buf *out, struct str path);
/* "64512 {64513,64514} (65000)", appended. */
void as_path_print(struct buf *b, struct str path);

/* ---- communities ---- */
bool comm_has(struct str communities, uint32_t c);
/* Large community or standard one in a sorted set; appends to out the set with c in it. */
void comm_add(struct buf *out, struct str set, const uint8_t *c, size_t n);

/* ---- shared storage ---- */
struct attr_store;
struct nexthops;
struct attr_store *attr_store_new(struct nexthops *nh);
void attr_store_free(struct attr_store *s); /* accepts NULL */
/* Id of the packed form of src, made if new; the caller holds one reference. Never 0. */
uint32_t attr_intern(struct attr_store *s, const struct attr_src *src);
void attr_ref(struct attr_store *s, uint32_t id);
void attr_unref(struct attr_store *s, uint32_t id);
const struct attrs *attr_get(const struct attr_store *s, uint32_t id);
/* Loose form; parts are views into the packed one. */
void attr_open(const struct attr_store *s, uint32_t id, struct attr_src *out);
size_t attr_store_count(const struct attr_store *s);
/* Memory, heads of the allocator not counted. */
size_t attr_store_bytes(const struct attr_store *s);

/* ---- to the wire ---- */
struct attr_enc {
    bool as4;           /* the peer has four octets */
    bool with_next_hop; /* NEXT_HOP as attribute 3 (IPv4); else MP_REACH carries it */
};
/* Appends all attributes in order of type, without MP_REACH. */
void attr_encode(struct buf *b, const struct attr_src *a, const struct attr_enc *enc);
