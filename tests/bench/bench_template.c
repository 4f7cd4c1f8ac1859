/* Rendering of one template: what "bench" of tests/data/confd/gen does with Go's text/template.
 *
 * usage: bench_template TEMPLATE DATA ROUNDS
 * Prints lines: us MICROSECONDS_A_ROUND, bytes OF_ONE_OUTPUT, sum OF_ITS_BYTES, peak_kib RESIDENT.
 */
#include "base/clock.h"
#include "template_world.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

static void die(const char *what, const char *why) {
    (void)fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static struct str read_file(struct arena *a, const char *path) {
    FILE *f = fopen(path, "re");
    if (!f) {
        die(path, "can't be opened");
    }
    struct buf b = BUF_INIT(64 << 20);
    for (size_t n = 1; n > 0;) {
        char *p = buf_reserve(&b, 1 << 16);
        n = p ? fread(p, 1, 1 << 16, f) : 0;
        b.n += n;
    }
    (void)fclose(f);
    struct str text = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return text;
}

static uint64_t sum_of(const struct buf *b) {
    uint64_t sum = 0;
    for (size_t i = 0; i < b->n; i++) {
        sum = sum * 31 + (unsigned char)b->p[i];
    }
    return sum;
}

/* What reading the data took is no longer counted. */
static void forget_peak(void) {
    (void)malloc_trim(0);
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (!f || fputs("5", f) < 0 || fclose(f) != 0) {
        die("/proc/self/clear_refs", "can't be written");
    }
}

/* Not ru_maxrss, which a program inherits from whoever started it. */
static long peak_kib(void) {
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kib = strtol(line + 6, NULL, 10);
        }
    }
    if (f) {
        (void)fclose(f);
    }
    return kib;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        die("usage", "bench_template TEMPLATE DATA ROUNDS");
    }
    struct arena texts = {0}, a = {0};
    struct err e = {0};
    struct tmpl_set *set = NULL;
    struct jnode *tree = NULL;
    long rounds = strtol(argv[3], NULL, 10);
    if (tmpl_parse(STR("t"), read_file(&texts, argv[1]), &world_funcs, 1, &set, &e) < 0 ||
        json_parse(read_file(&texts, argv[2]), &json_limits_default, &texts, &tree, &e) < 0) {
        die("bench", e.msg);
    }
    struct value data = value_concrete(world_value(&a, tree));
    struct buf out = BUF_INIT(256 << 20);
    arena_fini(&texts);
    forget_peak();
    int64_t begin = clock_ns();
    for (long i = 0; i < rounds; i++) {
        buf_reset(&out);
        if (tmpl_execute(set, data, NULL, NULL, &out, &e) < 0) {
            die("bench", e.msg);
        }
    }
    double us = (double)(clock_ns() - begin) / 1000 / (double)rounds;
    printf("us %.3f\nbytes %zu\nsum %llu\npeak_kib %ld\n", us, out.n,
           (unsigned long long)sum_of(&out), peak_kib());
    buf_fini(&out);
    tmpl_free(set);
    arena_fini(&a);
    return 0;
}
