/* UPDATE: from bytes to attributes and prefixes with RFC 7606's three answers to an error, and the
 * iteration over prefixes. RFC 4271 sections 4.3 and 6.3, 4760, 6793, 7606, 7911, 8950. */
#pragma once

#include "bgp/attr.h"

/* What must be known of the session to read its UPDATEs. */
struct bgp_rx {
    bool is_internal;             /* own AS, or the own confederation's member */
    bool is_confed;               /* within the own confederation: its segments are allowed */
    bool as4;                     /* both have four octets */
    bool mp[BGP_N_FAMILIES];      /* families negotiated */
    bool addpath[BGP_N_FAMILIES]; /* the peer sends path ids */
    bool v4_over_v6;              /* RFC 8950 negotiated */
    uint32_t first_as;            /* the path must begin with it; 0: need not */
};

/* A key of the RIB: address bytes behind `len` bits are zero. */
struct nlri {
    uint8_t len;
    uint8_t addr[16];
    uint32_t path_id;
};

struct nlri_list {
    const uint8_t *p;
    size_t n;
    enum bgp_family family;
    bool has_path_ids;
    bool is_classic; /* RFC 4271's own fields, with NEXT_HOP; else MP_REACH or MP_UNREACH */
};
/* Next prefix of a list that bgp_update_parse has checked; false at the end. */
bool nlri_next(struct nlri_list *l, struct nlri *out);
/* Can the prefix be a destination at all (not multicast, loopback, link-local, class E)? */
bool nlri_is_usable(enum bgp_family f, const struct nlri *n);
/* Appends one; path_id only if with_path_id. */
void nlri_write(struct buf *b, const struct nlri *n, bool with_path_id);
static inline size_t nlri_bytes(const struct nlri *n, bool with_path_id) {
    return (with_path_id ? 4U : 0U) + 1U + (n->len + 7U) / 8U;
}

enum bgp_update_verdict {
    UPDATE_OK,
    UPDATE_WITHDRAW, /* RFC 7606: its prefixes count as withdrawn */
    UPDATE_RESET,    /* the session ends with the fail */
};

struct bgp_update {
    struct attr_src attrs; /* valid if n_reach > 0 and the verdict is UPDATE_OK; without next hop */
    struct ip46 next_hop;  /* of the classic prefixes */
    struct ip46 mp_next_hop, mp_link_local; /* of the others; link-local: IP_NONE if not given */
    struct nlri_list reach[2], unreach[2];  /* at most the classic one and the MP one */
    unsigned n_reach, n_unreach;
    bool is_eor[BGP_N_FAMILIES]; /* End-of-RIB (RFC 4724) */
    uint8_t error_attr;          /* type of the first attribute that was wrong; 0: none */
    const char *error;           /* what was wrong with it, for logs; NULL: nothing */
    unsigned n_discarded;        /* attributes left out (RFC 7606: attribute discard) */
};

/* Memory for what can't be a view into the message. Reused from message to message. */
struct update_scratch {
    struct buf path, unknown;
};
#define UPDATE_SCRATCH_INIT \
    { BUF_INIT(2U * BGP_MAX_EXT), BUF_INIT(BGP_MAX_EXT) }
void update_scratch_fini(struct update_scratch *s);

/* Reads the body of an UPDATE (behind the header). out's views live as long as p and s. */
enum bgp_update_verdict bgp_update_parse(const uint8_t *p, size_t n, const struct bgp_rx *rx,
                                         struct update_scratch *s, struct bgp_update *out,
                                         struct bgp_fail *f);
