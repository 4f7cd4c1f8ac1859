/* YAML from any bytes: no crash, limits hold, and each document that was accepted is written, as
 * YAML and as JSON, to text that reads back as the same tree. */
#include "base/jtree.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct jlimits limits = {
    .max_bytes = 1 << 16,
    .max_nodes = 5000,
    .max_depth = 32,
    .max_string = 1 << 16,
    .max_aliases = 100,
};

struct seen {
    struct arena *a;
    size_t n_docs, n_nodes;
};

static size_t count(const struct jnode *n, unsigned depth) {
    size_t sum = 1;
    if (depth > limits.max_depth) {
        abort();
    }
    jnode_each (it, n) {
        sum += count(it, depth + 1);
    }
    return sum;
}

static int same(void *arg, struct jnode *doc) {
    struct jnode *const *tree = arg;
    if (!jnode_eq(*tree, doc)) {
        abort();
    }
    return ERR_EXISTS; /* so that a second document shows */
}

static int check_doc(void *arg, struct jnode *doc) {
    struct seen *seen = arg;
    struct jlimits lim = limits;
    lim.max_bytes = lim.max_string = 1 << 24;
    seen->n_docs++;
    seen->n_nodes += count(doc, 0);
    if (seen->n_nodes > limits.max_nodes) {
        abort();
    }
    struct buf b = BUF_INIT(1 << 24);
    struct err e;
    yaml_write(&b, doc);
    if (!b.overflow &&
        yaml_each(buf_view(&b), "again", &lim, seen->a, same, &doc, &e) != ERR_EXISTS) {
        abort();
    }
    buf_reset(&b);
    struct jnode *again = NULL;
    json_write(&b, doc, 0);
    if (!b.overflow &&
        (json_parse(buf_view(&b), &lim, seen->a, &again, &e) < 0 || !jnode_eq(doc, again))) {
        abort();
    }
    buf_fini(&b);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a = {0};
    struct err e = {0};
    struct seen seen = {.a = &a};
    int rc = yaml_each(str_n((const char *)data, n), "f", &limits, &a, check_doc, &seen, &e);
    if (rc < 0 && strncmp(e.msg, "f:", 2) != 0) {
        abort();
    }
    arena_fini(&a);
    return 0;
}
