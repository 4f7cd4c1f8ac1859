/* Arenas: memory by lifetime (process, config, session, request, scratch). Everything allocated is
 * freed at once. Texts stand side by side, all else is aligned. Allocation aborts when memory is
 * out: callers bound what comes from outside before. */
#pragma once

#include "base/str.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *head; /* newest chunk */
    uint32_t first_bytes;     /* size of the first chunk; 0: 4 KiB. For many small arenas */
    size_t used_bytes;        /* sum of what was asked for, for limits and tests */
};

/* An arena starts as {0}; nothing is allocated before the first arena_alloc. */
void arena_fini(struct arena *a);
/* Empties the arena but keeps its newest chunk for reuse (scratch arenas). */
void arena_reset(struct arena *a);
/* Zeroed memory, aligned to 16 bytes, owned by the arena. n == 0 gives a valid unique pointer. */
void *arena_alloc(struct arena *a, size_t n);
/* Copies bytes; result is NUL-terminated behind its n bytes. STR_NULL stays STR_NULL. */
struct str arena_dup(struct arena *a, struct str s);
/* NUL-terminated copy for the libc edge. */
const char *arena_cstr(struct arena *a, struct str s);
struct str arena_printf(struct arena *a, const char *fmt, ...) MG_PRINTF(2, 3);

#define arena_new(a, T) ((T *)arena_alloc((a), sizeof(T)))
#define arena_array(a, T, n) ((T *)arena_alloc((a), sizeof(T) * (size_t)(n)))
