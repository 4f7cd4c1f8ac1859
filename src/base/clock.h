/* Time: monotonic nanoseconds for everything that measures or waits; wall time only for stamps. */
#pragma once

#include "base/str.h"

#include <stdint.h>

/* CLOCK_MONOTONIC. */
int64_t clock_ns(void);
/* CLOCK_REALTIME, ns since 1970: for creationTimestamp and the like. */
int64_t clock_wall_ns(void);
/* RFC 3339 UTC with seconds ("2026-01-02T03:04:05Z") into out[32]; returns out. */
const char *clock_rfc3339(int64_t wall_ns, char *out);
/* Seconds since 1970 of an RFC 3339 time, fractions cut off; -1: it is none. */
int64_t clock_parse_rfc3339(struct str s);
