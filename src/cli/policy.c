/* policy: what policies do. */
#include "cli/cli.h"

#include "base/vec.h"

#include <getopt.h>
#include <stdio.h>

/* ---- counters ---- */

static struct str member(const struct jnode *n, const char *name) {
    const struct jnode *m = jnode_getc(n, name);
    return m ? m->s : STR("-");
}

/* The word is KIND/NS/NAME, NS/NAME or NAME, as far as given. */
static bool is_meant(struct str policy, const char *word) {
    struct str w = str_c(word);
    return !word || str_eq(policy, w) ||
           (policy.n > w.n && policy.p[policy.n - w.n - 1] == '/' &&
            str_eq(str_sub(policy, policy.n - w.n, policy.n), w));
}

static void show_counters(const struct jnode *q, const char *word, struct arena *a) {
    static const char *const heads[] = {"POLICY", "TIER", "DIRECTION", "RULE", "PACKETS", "BYTES"};
    VEC(struct str) cells = {0};
    jnode_each (r, jnode_getc(q, "rules")) {
        struct str policy = member(r, "policy");
        if (!is_meant(policy, word)) {
            continue;
        }
        const struct jnode *staged = jnode_getc(r, "staged");
        bool is_staged = staged && staged->type == J_BOOL && staged->b;
        vec_push(&cells, is_staged ? arena_printf(a, "%.*s (staged)", STR_FMT(policy)) : policy);
        struct str tier = member(r, "tier");
        vec_push(&cells, tier.n ? tier : STR("-"));
        vec_push(&cells, member(r, "direction"));
        vec_push(&cells, member(r, "rule"));
        vec_push(&cells, member(r, "packets"));
        vec_push(&cells, member(r, "bytes"));
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64 << 20);
    cli_table(&b, heads, cells.p, ARRAY_LEN(heads), cells.n / ARRAY_LEN(heads), false);
    printf("%.*s", STR_FMT(buf_view(&b)));
    vec_fini(&cells);
}

static int policy_cmp(const void *x, const void *y) {
    const struct jnode *a = *(struct jnode *const *)x, *b = *(struct jnode *const *)y;
    static const char *const keys[] = {"policy", "direction"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        int r = str_cmp(member(a, keys[i]), member(b, keys[i]));
        if (r) {
            return r;
        }
    }
    const struct jnode *m = jnode_getc(a, "rule"), *n = jnode_getc(b, "rule");
    return m && n && m->i != n->i ? (m->i < n->i ? -1 : 1) : 0;
}

/* By policy, direction and rule. */
static void sort_rules(struct jnode *list) {
    VEC(struct jnode *) v = {0};
    jnode_each (r, list) {
        vec_push(&v, r);
    }
    vec_sort(&v, policy_cmp);
    list->child = v.n ? v.p[0] : NULL;
    list->last = v.n ? v.p[v.n - 1] : NULL;
    for (size_t i = 0; i < v.n; i++) {
        v.p[i]->next = i + 1 < v.n ? v.p[i + 1] : NULL;
    }
    vec_fini(&v);
}

static int cmd_counters(int argc, char **argv) {
    static const struct option longs[] = {{"output", required_argument, NULL, 'o'},
                                          {NULL, 0, NULL, 0}};
    struct cli_output out = {.format = OUT_TABLE};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "o:", longs, NULL)) != -1;) {
        if (c != 'o') {
            return cli_usage("policy", "wrong option");
        }
        if (!cli_output_parse(optarg, "policy", &out)) {
            return 2;
        }
    }
    struct arena a = {0};
    struct jnode *q = NULL;
    struct err e;
    int rc = 0;
    if (cli_ask(STR("{\"op\":\"counters\"}"), 30, &a, &q, &e) < 0) {
        rc = cli_error("%s", e.msg);
    } else if (!jnode_getc(q, "rules")) {
        rc = cli_error("%.*s", STR_FMT(member(q, "message")));
    } else {
        sort_rules(jnode_get(q, STR("rules")));
        (void)jnode_del(q, STR("code"));
        rc = cli_print_tree(&out, "policy", q);
        if (rc < 0) {
            show_counters(q, optind < argc ? argv[optind] : NULL, &a);
            rc = 0;
        }
    }
    arena_fini(&a);
    return rc;
}

int cmd_policy(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {{"counters", cmd_counters}};
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return cli_usage("policy", "expected: counters");
}
