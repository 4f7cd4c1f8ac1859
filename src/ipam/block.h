/* One block in memory: read from and written as Calico's JSON. */
#pragma once

#include "base/ip.h"
#include "base/jtree.h"

enum { BLOCK_MAX_SIZE = 4096 };

struct block {
    struct prefix cidr;
    struct str affinity; /* "host:NAME", "virtual:…"; p NULL: none */
    struct str claim_time;
    uint32_t size;
    int32_t *alloc;  /* index into attrs, -1 = free */
    uint32_t *queue; /* unallocated ordinals, first out first */
    uint32_t n_queue;
    struct jnode **attrs; /* as they stand in the document; lists of members unknown to us stay */
    uint32_t n_attrs;
    int64_t sequence;
    int64_t *sequence_of;    /* number at allocation, 0 = none */
    const struct jnode *doc; /* as read, for the members that only others know; NULL: a new one */
};

/* A new block: nothing allocated. All in the arena. wall_ns: now. */
struct block *block_new(const struct prefix *cidr, struct str affinity, int64_t wall_ns,
                        struct arena *a);
MG_NODISCARD int block_parse(struct str text, struct arena *a, struct block **out, struct err *e);
void block_write(const struct block *b, struct buf *out);

struct str block_handle_of(const struct block *b, uint32_t ordinal);
/* A text of the owner's attributes ("pod"); empty without. */
struct str block_attr_of(const struct block *b, uint32_t ordinal, const char *key);
/* Other attributes for an address that stays allocated. */
void block_set_attr(struct block *b, uint32_t ordinal, struct jnode *attr);
/* attr: {"handle_id", "secondary"}; equal ones are shared. */
void block_take(struct block *b, uint32_t ordinal, struct jnode *attr);
/* Back to the tail of the queue. */
void block_give(struct block *b, uint32_t ordinal);
/* Released, but nobody's yet: rests until block_wake finds its time over. wall_ns: now. */
void block_rest(struct block *b, uint32_t ordinal, int64_t wall_ns, struct arena *a);
bool block_is_resting(const struct block *b, uint32_t ordinal);
/* Gives back what was released cooldown_s ago or earlier; how many. */
uint32_t block_wake(struct block *b, int64_t wall_ns, int64_t cooldown_s);
/* Addresses neither in use nor in the queue (somebody's broken write): into it. How many. */
uint32_t block_requeue(struct block *b);
uint32_t block_in_use(const struct block *b); /* those at rest count */
uint32_t block_resting(const struct block *b);
/* When the block was claimed, ns since 1970; 0: not known. */
int64_t block_claimed_ns(const struct block *b);
