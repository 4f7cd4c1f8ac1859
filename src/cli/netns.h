/* Network namespaces with a name, as ip-netns(8) keeps them: a bind mount below /run/netns in the
 * mount namespace of process 1, so that they are seen from everywhere on the host. */
#pragma once

#include "base/err.h"

/* Makes one. */
MG_NODISCARD int netns_make(const char *name, struct err *e);
/* Opens one by name or by path. The caller owns the descriptor. */
MG_NODISCARD int netns_get(const char *name_or_path, struct err *e);
MG_NODISCARD int netns_remove(const char *name, struct err *e);
