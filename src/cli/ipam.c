/* ipam show, ipam check. */
#include "ipam/ipam.h"

#include "base/vec.h"
#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

typedef VEC(struct ipam_pool) pool_vec;

struct reading {
    struct arena *a;
    pool_vec *out;
};
static int on_pool(void *arg, const struct store_item *it) {
    struct reading *r = arg;
    struct jnode *doc = NULL;
    struct err e;
    struct ipam_pool p = {.block_len = 0};
    if (json_parse(arena_dup(r->a, it->value), &json_limits_default, r->a, &doc, &e) < 0 ||
        prefix_parse(jnode_str(jnode_path(doc, "spec.cidr")), &p.cidr) < 0) {
        return 0; /* 'apply' lets none in */
    }
    p.name = jnode_str(jnode_path(doc, "metadata.name"));
    vec_push(r->out, p);
    return 0;
}

static int read_pools(struct store *s, struct arena *a, pool_vec *out, struct err *e) {
    struct reading r = {a, out};
    struct str prefix = arena_printf(a, "%s/", kind_store_name(&model_kinds[K_IP_POOL]));
    return store_list(s, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, NULL, on_pool, &r,
                      e);
}

struct showing {
    struct arena *a;
    bool blocks;
    struct jnode *pools;
    VEC(struct str) cells;
    uint64_t total;
};

static void on_usage(void *arg, const struct ipam_usage *u) {
    struct showing *x = arg;
    char text[IP_TEXT_MAX];
    double free_addresses = u->total - (double)u->in_use;
    if (!u->is_block) {
        struct jnode *p = jnode_new(x->a, J_MAP);
        jnode_set(x->a, p, STR("name"), jnode_new_str(x->a, arena_dup(x->a, u->pool)));
        jnode_set(x->a, p, STR("cidr"),
                  jnode_new_str(x->a, arena_dup(x->a, str_c(prefix_text(&u->cidr, text)))));
        const struct {
            const char *name;
            double v;
        } numbers[] = {{"total", u->total}, {"inUse", (double)u->in_use}, {"free", free_addresses}};
        for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
            struct jnode *n =
                jnode_new_int(x->a, numbers[i].v < 9e18 ? (int64_t)numbers[i].v : INT64_MAX);
            jnode_set(x->a, p, str_c(numbers[i].name), n);
        }
        jnode_append(x->pools, p);
    } else if (!x->blocks) {
        return;
    }
    vec_push(&x->cells, u->is_block ? STR("Block") : STR("IP Pool"));
    vec_push(&x->cells, arena_dup(x->a, str_c(prefix_text(&u->cidr, text))));
    vec_push(&x->cells, arena_printf(x->a, "%.5g", u->total));
    vec_push(&x->cells, arena_printf(x->a, "%llu (%.0f%%)", (unsigned long long)u->in_use,
                                     u->total > 0 ? 100.0 * (double)u->in_use / u->total : 0));
    vec_push(&x->cells, arena_printf(x->a, "%.5g (%.0f%%)", free_addresses,
                                     u->total > 0 ? 100.0 * free_addresses / u->total : 0));
}

static void on_address(void *arg, const struct ip46 *ip, struct str handle, struct str ns,
                       struct str pod) {
    (void)ip;
    (void)handle;
    (void)ns;
    (void)pod;
    ((struct showing *)arg)->total++;
}

static int show(struct store *s, struct ipam *m, const struct cli_output *out, bool blocks,
                struct err *e) {
    static const char *const heads[] = {"GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"};
    struct arena a = {0};
    pool_vec pools = {0};
    struct showing x = {.a = &a, .blocks = blocks, .pools = jnode_new(&a, J_LIST)};
    int r = read_pools(s, &a, &pools, e);
    if (r == 0) {
        r = ipam_show(m, pools.p, pools.n, on_usage, &x, e);
    }
    if (r == 0) {
        r = ipam_each(m, on_address, &x, e);
    }
    if (r == 0) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64 << 20);
        if (out->format == OUT_TABLE || out->format == OUT_WIDE) {
            cli_table(&b, heads, x.cells.p, ARRAY_LEN(heads), x.cells.n / ARRAY_LEN(heads), false);
        } else {
            struct jnode *doc = jnode_new(&a, J_MAP);
            jnode_set(&a, doc, STR("allocations"), jnode_new_int(&a, (int64_t)x.total));
            jnode_set(&a, doc, STR("pools"), x.pools);
            if (out->format == OUT_YAML) {
                yaml_write(&b, doc);
            } else if (out->format == OUT_JSONPATH) {
                r = cli_jsonpath(out->template, doc, &b, e);
            } else {
                json_write(&b, doc, 4);
                buf_putc(&b, '\n');
            }
        }
        printf("%.*s", STR_FMT(buf_view(&b)));
    }
    vec_fini(&x.cells);
    vec_fini(&pools);
    arena_fini(&a);
    return r;
}

static void on_fault(void *arg, struct str text) {
    (void)arg;
    printf("%.*s\n", STR_FMT(text));
}

int cmd_ipam(int argc, char **argv) {
    static const struct option longs[] = {
        {"output", required_argument, NULL, 'o'},
        {"show-blocks", no_argument, NULL, 'b'},
        {NULL, 0, NULL, 0},
    };
    struct cli_output out = {.format = OUT_TABLE};
    bool blocks = false;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "o:", longs, NULL)) != -1;) {
        if (c == 'o') {
            if (!cli_output_parse(optarg, "ipam", &out)) {
                return 2;
            }
        } else if (c == 'b') {
            blocks = true;
        } else {
            return cli_usage("ipam", "wrong option");
        }
    }
    const char *what = optind < argc ? argv[optind] : "";
    bool is_check = strcmp(what, "check") == 0;
    if (!is_check && strcmp(what, "show") != 0) {
        return cli_usage("ipam", "found \"%s\", expected show or check", what);
    }
    struct store *s = NULL;
    struct err e;
    if (cli_store(&s, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    struct ipam *m = ipam_new(s, STR(""));
    int r = is_check ? ipam_check(m, on_fault, NULL, &e) : show(s, m, &out, blocks, &e);
    ipam_free(m);
    store_close(s);
    if (r < 0) {
        return cli_error("%s", e.msg);
    }
    if (is_check) {
        printf(r ? "%d inconsistencies found\n" : "IPAM is consistent\n", r);
    }
    return r > 0;
}
