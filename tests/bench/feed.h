/* Documents into a calculation, one at a time: decoding and calculating are timed apart. */
#pragma once

#include "policy/calc.h"
#include "world.h"

struct feed {
    struct calc *c;
    int64_t decode_ns, calc_ns;
};

void feed_doc(struct feed *f, const struct world_doc *d, bool is_there);
void feed_flush(struct feed *f);
/* The whole of a world, and a flush. */
void feed_world(struct feed *f, const struct world *w);
