/* What one store holds because another does: NetworkPolicies, Namespaces and ServiceAccounts of
 * Kubernetes as policies and profiles in Calico's. The table knows for each object, by a hash, what
 * should be and what is; whoever acts reads both again. Objects of other names are never touched.
 */
#pragma once

#include "model/model.h"
#include "store/store.h"

enum mirror_id { MIRROR_POLICY, MIRROR_NAMESPACE, MIRROR_ACCOUNT, MIRROR_N };

struct mirror_def {
    enum kind_id from, to;
    const char *prefix; /* of the names of what we make */
};
extern const struct mirror_def mirror_defs[MIRROR_N];

/* Name of what an object of the source becomes. */
struct str mirror_name(enum mirror_id id, struct str ns, struct str name, struct arena *a);
/* Back: false when it is no name that we give. ns and name are of the target, then of the source.
 */
bool mirror_source(enum mirror_id id, struct str *ns, struct str *name);

/* ---- the table ---- */

struct mirror_table;
struct mirror_table *mirror_table_new(void);
void mirror_table_free(struct mirror_table *m); /* accepts NULL */
/* An object of the source or the target as it is now; doc NULL: gone. Returns the target's key when
 * the two differ, in the arena; else STR_NULL. Others' objects: STR_NULL. */
struct str mirror_saw_source(struct mirror_table *m, enum mirror_id id, struct str ns,
                             struct str name, struct jnode *doc, struct arena *a);
struct str mirror_saw_target(struct mirror_table *m, enum mirror_id id, struct str ns,
                             struct str name, const struct jnode *doc, struct arena *a);
/* Every key whose two sides differ, of the enabled ones. */
void mirror_each_different(const struct mirror_table *m, const bool is_enabled[MIRROR_N],
                           void (*cb)(void *arg, struct str key), void *arg);
/* How many the target should have. */
size_t mirror_n_wanted(const struct mirror_table *m, enum mirror_id id);

/* Makes the target's object what the source says it should be. key: the target's. Blocks. 0: it is
 * so. ERR_CONFLICT, ERR_EXISTS: somebody else wrote at the same time, try again. */
MG_NODISCARD int mirror_sync(struct store *source, struct store *target, struct str key,
                             struct err *e);
