/* Objects of a store, read and written whole. Calls block. */
#pragma once

#include "model/model.h"
#include "store/store.h"

struct stored {
    struct jnode *doc; /* NULL: not there */
    uint64_t revision; /* REV_NONE: not there */
};

struct store_key stored_key(enum kind_id kind, struct str ns, struct str name, struct arena *a);
/* 0 also when it is not there. */
MG_NODISCARD int stored_get(struct store *s, enum kind_id kind, struct str ns, struct str name,
                            struct arena *a, struct stored *out, struct err *e);
/* Writes doc if nobody else wrote meanwhile (ERR_CONFLICT, ERR_EXISTS). */
MG_NODISCARD int stored_put(struct store *s, enum kind_id kind, struct str ns, struct str name,
                            const struct jnode *doc, uint64_t expect, struct err *e);
/* Deletes what was read; 0 also when somebody else has deleted it. */
MG_NODISCARD int stored_delete(struct store *s, enum kind_id kind, struct str ns, struct str name,
                               uint64_t expect, struct err *e);
/* A new document of the kind with a uid and a time; metadata may be added to, spec is the caller's.
 */
struct jnode *stored_new(enum kind_id kind, struct str ns, struct str name, struct arena *a);
