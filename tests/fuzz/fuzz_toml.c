/* TOML from any bytes: no crash, limits hold, errors say where, and what was accepted has the shape
 * that readers of trees rely on. */
#include "confd/toml.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static size_t check(const struct jnode *n, unsigned depth) {
    size_t sum = 1, members = 0;
    enum toml_type t = toml_type(n);
    if (depth > 2 * TOML_MAX_DEPTH + 2 || !toml_type_name(t)) {
        abort();
    }
    if (n->type == J_MAP || n->type == J_LIST) {
        jnode_each (it, n) {
            if ((n->type == J_MAP) != (it->key.p != NULL) ||
                (n->type == J_MAP && jnode_get(n, it->key) != it)) {
                abort(); /* a key twice, or an element with a key */
            }
            sum += check(it, depth + 1);
            members++;
        }
        if (members != n->n) {
            abort();
        }
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a = {0};
    struct err e = {0};
    struct jnode *root = NULL;
    int r = toml_parse(str_n((const char *)data, n), "f", &a, &root, &e);
    if (r < 0 ? strncmp(e.msg, "f:", 2) != 0
              : toml_type(root) != TOML_TABLE || check(root, 0) > TOML_MAX_VALUES) {
        abort();
    }
    arena_fini(&a);
    return 0;
}
