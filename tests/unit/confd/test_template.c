/* Template cases against what Go's text/template made of them (tests/data/confd/templates, filled
 * in by tests/data/confd/gen): the same output, the same error. Each case is a test of its own. */
#include "template_world.h"

#include "base/vec.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct template_case {
    const struct jnode *node, *data; /* data: of its file */
};

static void render(const struct template_case *tc, struct buf *out, struct err *e) {
    const struct jnode *c = tc->node, *own = jnode_getc(c, "data");
    struct arena a = {0};
    struct tmpl_set *set = NULL;
    struct value data = value_concrete(world_value(&a, own ? own : tc->data));
    int r = tmpl_parse(STR("t"), jnode_str(jnode_getc(c, "text")), &world_funcs, 1, &set, e);
    if (r == 0) {
        r = tmpl_execute(set, data, NULL, NULL, out, e);
    }
    assert_int_equal(r < 0, e->msg[0] != '\0');
    tmpl_free(set);
    arena_fini(&a);
}

static void t_case(void **state) {
    const struct template_case *tc = *state;
    const struct jnode *c = tc->node;
    struct buf out = BUF_INIT(1 << 20);
    struct err e = {0};
    render(tc, &out, &e);
    struct str text = jnode_str(jnode_getc(c, "text"));
    struct str want = jnode_str(jnode_getc(c, "out"));
    struct str want_err = jnode_str(jnode_getc(c, "err"));
    if (!str_eq(want_err.p ? want_err : STR(""), str_c(e.msg))) {
        fail_msg("%.*s\n  Go says: %.*s\n  we say:  %s", STR_FMT(text), STR_FMT(want_err), e.msg);
    }
    if (!str_eq(want, buf_view(&out))) {
        fail_msg("%.*s\n  Go writes: %.*s\n  we write:  %.*s", STR_FMT(text), STR_FMT(want),
                 STR_FMT(buf_view(&out)));
    }
    buf_fini(&out);
}

static void read_file(const char *path, struct buf *b) {
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), f)) > 0;) {
        buf_add(b, chunk, n);
    }
    (void)fclose(f);
}

int main(int argc, char **argv) {
    struct arena a = {0};
    VEC(struct CMUnitTest) tests = {0};
    for (int i = 1; i < argc; i++) {
        struct buf b = BUF_INIT(16 << 20);
        struct jnode *file;
        struct err e = {0};
        read_file(argv[i], &b);
        struct str text = arena_dup(&a, buf_view(&b));
        buf_fini(&b);
        if (json_parse(text, &json_limits_default, &a, &file, &e) < 0) {
            (void)fprintf(stderr, "%s: %s\n", argv[i], e.msg);
            arena_fini(&a);
            return 1;
        }
        jnode_each (it, jnode_getc(file, "cases")) {
            struct template_case *tc = arena_new(&a, struct template_case);
            *tc = (struct template_case){it, jnode_getc(file, "data")};
            const char *name = arena_cstr(&a, jnode_str(jnode_getc(it, "name")));
            vec_push(&tests,
                     (struct CMUnitTest){.name = name, .test_func = t_case, .initial_state = tc});
        }
    }
    int failed = _cmocka_run_group_tests("templates", tests.p, tests.n, NULL, NULL);
    vec_fini(&tests);
    arena_fini(&a);
    return failed != 0;
}
