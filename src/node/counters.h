/* The answer to `margay policy counters`. */
#pragma once

#include "dataplane/dataplane.h"

/* Appends {"code":0,"rules":[{"policy","direction","rule","name","packets","bytes"}…]}; policy as
 * KIND/NAMESPACE/NAME. */
void counters_put(struct dataplane *d, struct buf *out);
