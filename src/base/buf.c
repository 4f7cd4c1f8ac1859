/* Growing text with a maximum. See buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buf_fini(struct buf *b) {
    free(b->p);
    *b = (struct buf){.max = b->max};
}

void buf_reset(struct buf *b) {
    b->n = 0;
    b->overflow = false;
}

char *buf_reserve(struct buf *b, size_t n) {
    if (b->overflow || n > b->max || b->n > b->max - n) {
        b->overflow = true;
        return NULL;
    }
    /* One byte more than counted, so that buf_cstr always has room for its NUL. */
    if (b->cap < b->n + n + 1) {
        size_t cap = b->cap ? b->cap : 256;
        while (cap < b->n + n + 1) {
            cap *= 2;
        }
        char *p = realloc(b->p, cap);
        mg_assert(p != NULL);
        b->p = p;
        b->cap = cap;
    }
    return b->p + b->n;
}

void buf_add(struct buf *b, const void *p, size_t n) {
    if (n == 0) {
        return;
    }
    char *q = buf_reserve(b, n);
    if (q) {
        memcpy(q, p, n);
        b->n += n;
    }
}

void buf_putc(struct buf *b, char c) {
    buf_add(b, &c, 1);
}

void buf_puts(struct buf *b, const char *s) {
    buf_add(b, s, strlen(s));
}

void buf_str(struct buf *b, struct str s) {
    buf_add(b, s.p, s.n);
}

void buf_printf(struct buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = str_vprintf_len(fmt, ap);
    char *q = n >= 0 ? buf_reserve(b, (size_t)n) : NULL;
    if (q) {
        (void)vsnprintf(q, (size_t)n + 1, fmt, ap);
        b->n += (size_t)n;
    }
    va_end(ap);
}

void buf_consume(struct buf *b, size_t n) {
    mg_assert(n <= b->n);
    if (n) {
        memmove(b->p, b->p + n, b->n - n);
        b->n -= n;
    }
}

const char *buf_cstr(struct buf *b) {
    if (!b->p) {
        return "";
    }
    b->p[b->n] = '\0';
    return b->p;
}
