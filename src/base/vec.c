/* Growth of typed arrays. See vec.h. */
#include "base/vec.h"

#include <stdint.h>

void *vec_grow(void *p, size_t *cap, size_t want, size_t size) {
    size_t c = *cap ? *cap : 4;
    while (c < want) {
        mg_assert(c <= SIZE_MAX / 2 / size);
        c *= 2;
    }
    void *q = realloc(p, c * size);
    mg_assert(q != NULL);
    *cap = c;
    return q;
}
