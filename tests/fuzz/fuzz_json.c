/* JSON from any bytes: no crash; what was accepted is written, in both forms and as YAML, to text
 * that reads back as the same tree, and equals its copy. */
#include "base/jtree.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct jlimits limits = {
    .max_bytes = 1 << 16,
    .max_nodes = 20000,
    .max_depth = 64,
    .max_string = 1 << 16,
    .max_aliases = 100,
};

static int check_doc(void *arg, struct jnode *doc) {
    if (!jnode_eq(arg, doc)) {
        abort();
    }
    return 1;
}

/* More room than the first reading had: escapes and indentation grow the text. */
static void check_again(struct arena *a, const struct jnode *tree, const struct jnode *copy) {
    struct jlimits lim = limits;
    lim.max_bytes = lim.max_string = 1 << 24;
    for (unsigned indent = 0; indent < 3; indent++) {
        struct buf b = BUF_INIT(1 << 24);
        struct err e;
        struct jnode *again = NULL;
        json_write(&b, tree, indent);
        if (b.overflow || json_parse(buf_view(&b), &lim, a, &again, &e) < 0 ||
            !jnode_eq(tree, again) || !jnode_eq(again, copy)) {
            abort();
        }
        buf_fini(&b);
    }
    struct buf b = BUF_INIT(1 << 24);
    struct err e;
    struct jnode arg = *tree;
    yaml_write(&b, tree);
    if (b.overflow || yaml_each(buf_view(&b), "again", &lim, a, check_doc, &arg, &e) < 0) {
        abort();
    }
    buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a = {0};
    struct err e;
    struct jnode *tree = NULL;
    if (json_parse(str_n((const char *)data, n), &limits, &a, &tree, &e) == 0) {
        struct jnode *copy = jnode_copy(&a, tree);
        check_again(&a, tree, copy);
        /* Patched with itself, only members that are null go. */
        struct jnode *patched = jnode_merge_patch(&a, copy, tree);
        struct jnode *twice = jnode_merge_patch(&a, jnode_copy(&a, patched), tree);
        if (!jnode_eq(patched, twice)) {
            abort();
        }
    } else if (tree || !e.msg[0]) {
        abort();
    }
    arena_fini(&a);
    return 0;
}
