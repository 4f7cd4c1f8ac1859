/* What the files of the collector share. */
#pragma once

#include "base/keytext.h"
#include "base/vec.h"
#include "controllers/gc.h"

struct block_rec {
    struct arena a; /* of all texts */
    struct prefix cidr;
    struct str affinity; /* "host:…", "virtual:…"; empty: none */
    struct gc_alloc *allocs;
    size_t n;
    int64_t empty_since_ns; /* 0: not empty when last looked at */
    unsigned n_empty;       /* passes that found it so */
    struct keytext key;
};

#define MAP_NAME blocktab
#define MAP_KEY const struct keytext *
#define MAP_VAL struct block_rec *
#define MAP_HASH(k) KEYTEXT_HASH(k)
#define MAP_EQ(a, b) KEYTEXT_EQ(a, b)
#include "base/map.tmpl.h"

/* An allocation that both proofs speak against, since when, and how often it was seen so. */
struct candidate {
    int64_t since_ns;
    uint32_t n_seen, pass;
    bool is_confirmed;
};
#define MAP_NAME candtab
#define MAP_KEY uint64_t /* gc_id */
#define MAP_VAL struct candidate
#define MAP_HASH(k) (k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

/* What was heard of a virtual machine since a pass asked for it. */
struct machine_rec {
    uint32_t pass;
    bool is_known, is_gone; /* the answer */
    bool was_gone;          /* to the pass before */
};
#define MAP_NAME machinetab
#define MAP_KEY uint64_t /* hash of "NS/NAME": who releases asks once more, by name */
#define MAP_VAL struct machine_rec
#define MAP_HASH(k) (k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct pool_rec {
    char *name;
    struct prefix cidr;
};
struct reclaimed { /* counter by pool and node */
    char *pool, *node;
    uint64_t n;
};

struct gc {
    struct blocktab blocks;
    struct candtab cands;
    struct candtab gone_nodes; /* hash of the name: how long it has had nothing left */
    struct machinetab machines;
    uint32_t pass;
    VEC(struct pool_rec) pools;
    VEC(struct reclaimed) reclaimed;
};

/* Of an allocation: address, handle and number together. */
uint64_t gc_id(const struct gc_alloc *x);
/* "host:NODE" → NODE; empty otherwise. */
struct str gc_host_of(struct str affinity);
/* Name of the pool that holds it, or "no_ippool". */
const char *gc_pool_of(const struct gc *g, const struct prefix *cidr);
