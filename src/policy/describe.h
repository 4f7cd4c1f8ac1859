/* A compiled rule as a sentence, for people. */
#pragma once

#include "policy/verdict.h"

/* Appends e.g. "allows TCP to ports 80, 443 from [app == "web"] (3 addresses)". */
void rule_describe(const struct mirror *m, const struct calc_rule *r, struct buf *out);
