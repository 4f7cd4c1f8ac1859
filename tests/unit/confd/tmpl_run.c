/* Answers template cases on standard input as tests/data/confd/gen's "serve" does: a line "TEXT
 * DATA" in hexadecimal becomes "ok OUT" or "err MESSAGE OUT". tests/fuzz/tmpl_diff.py compares the
 * two. */
#include "template_world.h"

#include <stdio.h>
#include <stdlib.h>

static struct str unhex(struct arena *a, struct str hex) {
    char *p = arena_alloc(a, hex.n / 2 + 1);
    for (size_t i = 0; i + 1 < hex.n; i += 2) {
        char two[3] = {hex.p[i], hex.p[i + 1], '\0'};
        p[i / 2] = (char)strtoul(two, NULL, 16);
    }
    return str_n(p, hex.n / 2);
}

static void put_hex(struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        printf("%02x", (unsigned char)s.p[i]);
    }
}

static void answer(struct str line) {
    struct arena a = {0};
    struct buf out = BUF_INIT(64 << 20);
    struct err e = {0};
    struct tmpl_set *set = NULL;
    struct jnode *data = NULL;
    struct str text = unhex(&a, str_cut(&line, ' '));
    if (json_parse(unhex(&a, line), &json_limits_default, &a, &data, &e) < 0) {
        (void)fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    int r = tmpl_parse(STR("t"), text, &world_funcs, 1, &set, &e);
    if (r == 0) {
        r = tmpl_execute(set, value_concrete(world_value(&a, data)), NULL, NULL, &out, &e);
    }
    printf(r < 0 ? "err " : "ok ");
    if (r < 0) {
        put_hex(str_c(e.msg));
        printf(" ");
    }
    put_hex(buf_view(&out));
    printf("\n");
    (void)fflush(stdout);
    tmpl_free(set);
    buf_fini(&out);
    arena_fini(&a);
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
        answer(str_n(line, (size_t)n - (line[n - 1] == '\n')));
    }
    free(line);
    return 0;
}
