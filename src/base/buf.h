/* struct buf: growing text with a mandatory maximum. Overflow is a state, checked once at the end.
 */
#pragma once

#include "base/str.h"

struct buf {
    char *p;
    size_t n, cap, max;
    bool overflow; /* something did not fit below max: the content is incomplete */
};

#define BUF_INIT(max_bytes) ((struct buf){.max = (max_bytes)})

void buf_fini(struct buf *b);
/* Empties, keeps the memory, clears overflow. */
void buf_reset(struct buf *b);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_putc(struct buf *b, char c);
void buf_puts(struct buf *b, const char *s);
void buf_str(struct buf *b, struct str s);
void buf_printf(struct buf *b, const char *fmt, ...) MG_PRINTF(2, 3);
/* Removes n bytes from the front (consumed input). */
void buf_consume(struct buf *b, size_t n);
/* Room for n more bytes at b->p + b->n, or NULL (and overflow). Caller adds to b->n what it wrote.
 */
char *buf_reserve(struct buf *b, size_t n);
static inline struct str buf_view(const struct buf *b) {
    return (struct str){b->p ? b->p : "", b->n};
}
/* NUL-terminated content; the NUL is not counted in n. */
const char *buf_cstr(struct buf *b);
