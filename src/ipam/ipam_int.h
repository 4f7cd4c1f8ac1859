/* What the files of ipam/ share. */
#pragma once

#include "ipam/block.h"
#include "ipam/ipam.h"

enum {
    IPAM_RETRIES = 100,
    IPAM_DEFAULT_MAX_BLOCKS = 20,
    IPAM_COOLDOWN_MAX_S = 1200,
    IPAM_RECLAIM_AGE_S = 60,
    BLOCK_TEXT_MAX = 1 << 20
};

struct ipam {
    struct store *store;
    char *node;             /* of the owner: a node, or what has addresses without being one */
    char *affinity;         /* "host:NODE", "virtual:NAME" */
    const char *owner_kind; /* "host", "virtual": a part of the keys, too */
    int64_t cooldown_s; /* -1: not told. Then none rests, and those at rest wait the longest time */
    int64_t (*now)(void); /* wall clock, ns */
};

/* A failed call that certainly wrote nothing. Of any other failure nobody can say what became of
 * the write: what it prepared must stay, so that a later release finds it. */
static inline bool ipam_is_unwritten(int r) {
    return r == ERR_CONFLICT || r == ERR_EXISTS || r == ERR_NOT_FOUND || r == ERR_INVALID ||
           r == ERR_TOO_BIG;
}

/* Somebody else wrote between our reading and our writing: read again. */
static inline bool ipam_is_race(int r) {
    return r == ERR_CONFLICT || r == ERR_EXISTS || r == ERR_NOT_FOUND;
}

/* A block as read, with the revision for its compare-and-swap. */
struct stored_block {
    struct block *b;
    uint64_t revision; /* REV_NONE: not in the store yet */
};

struct store_key ipam_block_key(const struct prefix *cidr, struct arena *a);
struct store_key ipam_affinity_key(const struct ipam *m, const struct prefix *cidr,
                                   struct arena *a);
struct store_key ipam_handle_key(struct str handle, struct arena *a);
/* Prefix of a key's last part ("10.44.7.0-26"). */
MG_NODISCARD int ipam_parse_cidr(struct str part, struct prefix *out);

/* ERR_CORRUPT names the key: unreadable, or a block of other addresses than the key's. */
MG_NODISCARD int ipam_parse_block(struct str key, struct str value, struct arena *a,
                                  struct block **out, struct err *e);
MG_NODISCARD int ipam_get_block(struct ipam *m, const struct prefix *cidr, struct arena *a,
                                struct stored_block *out, struct err *e);
/* A handle's document, NULL if it is not there, and its revision. */
MG_NODISCARD int ipam_get_handle(struct ipam *m, struct str handle, struct arena *a,
                                 struct store_item *it, struct jnode **doc, struct err *e);
/* Writes or, without affinity and allocations, deletes it. ERR_CONFLICT: read again. */
MG_NODISCARD int ipam_put_block(struct ipam *m, struct stored_block *s, struct arena *a,
                                struct err *e);
/* Frees an address, or lets it rest if that is set. */
void ipam_give(const struct ipam *m, struct block *b, uint32_t ordinal, struct arena *a);
/* Frees those that have rested long enough. */
void ipam_wake(const struct ipam *m, struct block *b);
/* Adds n (may be negative) to the handle's count for the block. max: of all its blocks of that
 * family together, or ERR_DENIED; 0: any. */
MG_NODISCARD int ipam_handle_add(struct ipam *m, struct str handle, const struct prefix *cidr,
                                 int64_t n, unsigned max, struct err *e);
/* The block of the store that holds an address, whatever its pool's block size is or was.
 * ERR_NOT_FOUND. */
MG_NODISCARD int ipam_block_of(struct ipam *m, const struct ip46 *ip, struct prefix *out,
                               struct err *e);
