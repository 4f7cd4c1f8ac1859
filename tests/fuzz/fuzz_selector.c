/* Selectors from any bytes: no crash; the canonical form of what was accepted is accepted and
 * matches the same labels. */
#include "policy/selector.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct label labels[] = {{STR("a"), STR("b")}, {STR("k"), STR("")}};
    struct arena a = {0};
    struct err e;
    const struct selector *s = NULL;
    if (selector_parse(str_n((const char *)data, n), SELECTOR_MAX_BYTES, &a, &s, &e) == 0) {
        struct buf b = BUF_INIT(1 << 20);
        const struct selector *again = NULL;
        selector_print(s, &b);
        if (selector_parse(buf_view(&b), 1 << 20, &a, &again, &e) < 0) {
            abort();
        }
        for (size_t i = 0; i <= ARRAY_LEN(labels); i++) {
            if (selector_match(s, labels, i) != selector_match(again, labels, i)) {
                abort();
            }
        }
        buf_fini(&b);
    }
    arena_fini(&a);
    return 0;
}
