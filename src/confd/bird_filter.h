/* BGPFilters as functions of BIRD's filter language. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/jtree.h"
#include "base/vec.h"

struct lines {
    VEC(struct str) p;
};

/* Name of the function for a direction ("import", "export") and version ("4", "6"), in quotes. */
MG_NODISCARD int bird_filter_name(struct arena *a, struct str filter, struct str direction,
                                  struct str version, struct str *out, struct err *e);
/* Lines of the functions for one BGPFilter document (its tree), version 4 or 6. Appended. */
MG_NODISCARD int bird_filter_lines(struct arena *a, struct str name, const struct jnode *doc,
                                   int64_t version, struct lines *out, struct err *e);
/* Whether a rule of the direction names a peer type: then the function takes a bool. */
bool bird_filter_has_peer_type(const struct jnode *doc, bool is_import, int64_t version);
