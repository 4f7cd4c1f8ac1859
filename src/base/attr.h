/* Compiler attributes under names of our own, so that the code reads the same on gcc and clang. */
#pragma once

#include <stddef.h>

#define MG_CLEANUP(f) __attribute__((cleanup(f)))
#define MG_NODISCARD __attribute__((warn_unused_result))
#define MG_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define MG_NONNULL __attribute__((nonnull))
#define MG_NORETURN __attribute__((noreturn))
#define MG_UNUSED __attribute__((unused))
#define MG_FALLTHROUGH __attribute__((fallthrough))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

/* TAKE(fd): hand a resource over; the variable keeps the empty value, so its cleanup does nothing.
 */
#define TAKE_FD(fd)          \
    __extension__({          \
        int take_tmp = (fd); \
        (fd) = -1;           \
        take_tmp;            \
    })
#define TAKE_PTR(p)                 \
    __extension__({                 \
        __auto_type take_tmp = (p); \
        (p) = NULL;                 \
        take_tmp;                   \
    })

/* mg_assert: for the impossible only, never for outside input; stays on in release builds. */
#define mg_assert(c)                          \
    do {                                      \
        if (__builtin_expect(!(c), 0)) {      \
            mg_abort(__FILE__, __LINE__, #c); \
        }                                     \
    } while (0)

MG_NORETURN void mg_abort(const char *file, int line, const char *what);
