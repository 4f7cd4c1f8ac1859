/* Address management of the CNI server's test program. */
#pragma once

#include "store/store.h"

struct ipam;

/* Lives as long as the program. */
MG_NODISCARD int ipam_for_test(struct store *s, const char *node, struct ipam **out, struct err *e);
