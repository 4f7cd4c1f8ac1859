/* Typed growing arrays: struct { T *p; size_t n, cap; }. Start as {0}; free with vec_fini. */
#pragma once

#include "base/attr.h"

#include <stdlib.h>
#include <string.h>

#define VEC(T)         \
    struct {           \
        T *p;          \
        size_t n, cap; \
    }

/* Makes room for at least `want` elements of `size` bytes; aborts when memory is out. */
void *vec_grow(void *p, size_t *cap, size_t want, size_t size);

#define vec_reserve(v, want)                                               \
    do {                                                                   \
        if ((v)->cap < (want)) {                                           \
            (v)->p = vec_grow((v)->p, &(v)->cap, (want), sizeof(*(v)->p)); \
        }                                                                  \
    } while (0)
#define vec_push(v, ...)                  \
    do {                                  \
        vec_reserve((v), (v)->n + 1);     \
        (v)->p[(v)->n++] = (__VA_ARGS__); \
    } while (0)
/* Removes element i, order not kept. */
#define vec_swap_remove(v, i)             \
    do {                                  \
        (v)->p[(i)] = (v)->p[(v)->n - 1]; \
        (v)->n--;                         \
    } while (0)
/* Removes element i, order kept. */
#define vec_remove(v, i)                                                             \
    do {                                                                             \
        memmove(&(v)->p[(i)], &(v)->p[(i) + 1], ((v)->n - (i)-1) * sizeof(*(v)->p)); \
        (v)->n--;                                                                    \
    } while (0)
#define vec_clear(v) ((void)((v)->n = 0))
#define vec_fini(v)            \
    do {                       \
        free((v)->p);          \
        (v)->p = NULL;         \
        (v)->n = (v)->cap = 0; \
    } while (0)
#define vec_sort(v, cmp)                                   \
    do {                                                   \
        if ((v)->n > 1) {                                  \
            qsort((v)->p, (v)->n, sizeof(*(v)->p), (cmp)); \
        }                                                  \
    } while (0)
