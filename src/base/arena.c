/* Arenas: a list of chunks, bump allocation in the newest. See arena.h. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct arena_chunk {
    struct arena_chunk *prev;
    size_t cap, used;
    _Alignas(16) char data[];
};

enum { CHUNK_MIN = 4096 - 64, CHUNK_MAX = 1 << 20 };

static struct arena_chunk *chunk_new(size_t cap) {
    struct arena_chunk *c = malloc(sizeof(*c) + cap);
    mg_assert(c != NULL);
    c->prev = NULL;
    c->cap = cap;
    c->used = 0;
    return c;
}

/* n bytes, not zeroed, at a multiple of align (a power of two, at most 16). */
static void *take(struct arena *a, size_t n, size_t align) {
    mg_assert(n <= SIZE_MAX / 4);
    struct arena_chunk *c = a->head;
    size_t start = c ? (c->used + align - 1) & ~(align - 1) : 0;
    if (!c || start > c->cap || c->cap - start < n) {
        size_t cap = c ? c->cap * 2 : a->first_bytes ? a->first_bytes : CHUNK_MIN;
        if (cap > CHUNK_MAX) {
            cap = CHUNK_MAX;
        }
        if (cap < n) {
            cap = n;
        }
        cap = (cap + 15) & ~(size_t)15;
        c = chunk_new(cap);
        c->prev = a->head;
        a->head = c;
        start = 0;
    }
    c->used = start + n;
    a->used_bytes += n;
    return c->data + start;
}

void *arena_alloc(struct arena *a, size_t n) {
    void *p = take(a, n ? n : 1, 16);
    memset(p, 0, n ? n : 1);
    return p;
}

void arena_fini(struct arena *a) {
    for (struct arena_chunk *c = a->head; c;) {
        struct arena_chunk *prev = c->prev;
        free(c);
        c = prev;
    }
    *a = (struct arena){.first_bytes = a->first_bytes};
}

void arena_reset(struct arena *a) {
    struct arena_chunk *keep = a->head;
    if (!keep) {
        return;
    }
    a->head = keep->prev;
    arena_fini(a);
    keep->prev = NULL;
    keep->used = 0;
    a->head = keep;
}

struct str arena_dup(struct arena *a, struct str s) {
    if (!s.p) {
        return s;
    }
    char *p = take(a, s.n + 1, 1); /* texts are many and short: they stand side by side */
    memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return (struct str){p, s.n};
}

const char *arena_cstr(struct arena *a, struct str s) {
    return s.p ? arena_dup(a, s).p : "";
}

struct str arena_printf(struct arena *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = str_vprintf_len(fmt, ap);
    mg_assert(n >= 0);
    char *p = take(a, (size_t)n + 1, 1);
    (void)vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return (struct str){p, (size_t)n};
}
