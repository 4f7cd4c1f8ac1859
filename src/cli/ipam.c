/* ipam show, and which subcommand it is. */
#include "cli/ipam_cli.h"
#include "ipam/machines.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

struct reading {
    struct arena *a;
    ipam_pool_vec *out;
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
    const struct jnode *size = jnode_path(doc, "spec.blockSize");
    bool is_size = size && size->type == J_INT && size->i > 0 && size->i <= 128;
    p.block_len = is_size ? (unsigned)size->i : p.cidr.ip.family == IP_V4 ? 26 : 122;
    p.name = jnode_str(jnode_path(doc, "metadata.name"));
    vec_push(r->out, p);
    return 0;
}

int ipam_cli_pools(struct store *s, struct arena *a, ipam_pool_vec *out, struct err *e) {
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

static int show_pools(struct store *s, struct ipam *m, const struct cli_output *out, bool blocks,
                      struct err *e) {
    static const char *const heads[] = {"GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"};
    struct arena a = {0};
    ipam_pool_vec pools = {0};
    struct showing x = {.a = &a, .blocks = blocks, .pools = jnode_new(&a, J_LIST)};
    int r = ipam_cli_pools(s, &a, &pools, e);
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

/* Prints it as -o says, or as a table. */
static int put_table(const struct cli_output *out, struct jnode *doc, const char *const *heads,
                     size_t n_heads, const struct str *cells, size_t n_cells) {
    int r = cli_print_tree(out, "ipam", doc);
    if (r < 0) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64 << 20);
        cli_table(&b, heads, cells, n_heads, n_cells / n_heads, false);
        printf("%.*s", STR_FMT(buf_view(&b)));
        r = 0;
    }
    return r;
}

/* ---- one address ---- */

struct looking {
    struct ip46 ip;
    struct arena *a;
    struct jnode *found;
};
static void look(void *arg, const struct ipam_allocation *x) {
    struct looking *l = arg;
    if (ip_eq(&x->ip, &l->ip)) {
        l->found = jnode_copy(l->a, x->attributes);
    }
}

static void put_owner(const struct jnode *attributes, const char *title) {
    bool is_empty = !attributes || attributes->n == 0;
    printf("%s:%s\n", title, is_empty ? " none" : "");
    jnode_each (n, attributes) {
        printf("  %.*s: %.*s\n", STR_FMT(n->key), STR_FMT(jnode_str(n)));
    }
}

static int show_ip(struct ipam *m, const struct ipam_flags *f, struct err *e) {
    struct arena a = {0};
    struct looking l = {.a = &a};
    if (ip_parse(str_c(f->ip), &l.ip) < 0) {
        return cli_usage("ipam", "show: --ip \"%s\" is no address, such as 10.44.7.9", f->ip);
    }
    int r = ipam_allocations(m, look, &l, e), code = 1;
    if (r == 0 && !l.found) {
        printf("%s is not assigned\n", f->ip);
    } else if (r == 0 && !jnode_getc(l.found, "handle_id")) {
        printf("%s is at rest: released at %.*s\n", f->ip,
               STR_FMT(jnode_str(jnode_getc(l.found, "releasedAt"))));
    } else if (r == 0) {
        struct str handle = jnode_str(jnode_getc(l.found, "handle_id")), ns, name;
        bool is_machine = machine_of_allocation(l.found, handle, &ns, &name);
        printf("IP %s is in use\nHandle: %.*s\n", f->ip, STR_FMT(handle));
        put_owner(jnode_getc(l.found, "secondary"),
                  is_machine ? "Active Owner Attributes" : "Attributes");
        if (is_machine) {
            put_owner(jnode_getc(l.found, "alternateOwnerAttrs"), "Alternate Owner Attributes");
        }
        code = 0;
    }
    arena_fini(&a);
    return r < 0 ? r : code;
}

/* ---- borrowed ones ---- */

struct borrowing {
    struct arena *a;
    struct jnode *doc;
    VEC(struct str) cells;
};
static void if_borrowed(void *arg, const struct ipam_allocation *x) {
    static const char *const names[] = {"ip",         "borrowingNode", "block",
                                        "blockOwner", "type",          "allocatedTo"};
    struct borrowing *b = arg;
    struct arena *a = b->a;
    struct str owner = x->affinity;
    char text[IP_TEXT_MAX];
    if (str_starts(owner, STR("host:"))) {
        owner = str_sub(owner, strlen("host:"), owner.n);
    }
    if (x->is_resting || !x->node.n || str_eq(owner, x->node) ||
        str_starts(owner, STR("virtual:"))) {
        return;
    }
    struct str ns, machine;
    bool is_machine = machine_of_allocation(x->attributes, x->handle, &ns, &machine);
    bool is_pod = x->pod.n > 0 && !is_machine;
    struct str cells[] = {
        arena_dup(a, str_c(ip_text(&x->ip, text))),
        arena_dup(a, x->node),
        arena_dup(a, str_c(prefix_text(&x->block, text))),
        owner.n ? arena_dup(a, owner) : STR("nobody"),
        is_machine  ? STR("vmi")
        : is_pod    ? STR("pod")
        : x->type.n ? arena_dup(a, x->type)
                    : STR(""),
        is_machine ? arena_printf(a, "%.*s/%.*s", STR_FMT(ns), STR_FMT(machine))
        : is_pod   ? arena_printf(a, "%.*s/%.*s", STR_FMT(x->ns), STR_FMT(x->pod))
                   : arena_dup(a, x->handle.p ? x->handle : STR("")),
    };
    struct jnode *n = jnode_new(a, J_MAP);
    for (size_t i = 0; i < ARRAY_LEN(cells); i++) {
        vec_push(&b->cells, cells[i]);
        jnode_set(a, n, str_c(names[i]), jnode_new_str(a, cells[i]));
    }
    jnode_append(b->doc, n);
}

static int show_borrowed(struct ipam *m, const struct ipam_flags *f, struct err *e) {
    static const char *const heads[] = {"IP",          "BORROWING-NODE", "BLOCK",
                                        "BLOCK OWNER", "TYPE",           "ALLOCATED-TO"};
    struct arena a = {0};
    struct borrowing b = {.a = &a, .doc = jnode_new(&a, J_LIST)};
    int r = ipam_allocations(m, if_borrowed, &b, e);
    r = r < 0 ? r : put_table(&f->out, b.doc, heads, ARRAY_LEN(heads), b.cells.p, b.cells.n);
    vec_fini(&b.cells);
    arena_fini(&a);
    return r;
}

/* ---- settings ---- */

static int show_configuration(struct store *s, const struct ipam_flags *f, struct err *e) {
    static const char *const heads[] = {"PROPERTY", "VALUE"};
    struct ipam_settings v;
    struct arena a = {0};
    int r = ipam_settings_read(s, &v, e);
    if (r == 0) {
        struct str cells[] = {
            STR("StrictAffinity"),
            v.strict_affinity ? STR("true") : STR("false"),
            STR("AutoAllocateBlocks"),
            v.auto_blocks ? STR("true") : STR("false"),
            STR("MaxBlocksPerHost"),
            arena_printf(&a, "%u", v.max_blocks),
            STR("IPCooldownSeconds"),
            arena_printf(&a, "%lld", (long long)v.cooldown_s),
            STR("KubeVirtVMAddressPersistence"),
            v.vm_persistence ? STR("Enabled") : STR("Disabled"),
        };
        struct jnode *doc = jnode_new(&a, J_MAP);
        jnode_set(&a, doc, STR("strictAffinity"), jnode_new_bool(&a, v.strict_affinity));
        jnode_set(&a, doc, STR("autoAllocateBlocks"), jnode_new_bool(&a, v.auto_blocks));
        jnode_set(&a, doc, STR("maxBlocksPerHost"), jnode_new_int(&a, v.max_blocks));
        jnode_set(&a, doc, STR("ipCooldownSeconds"), jnode_new_int(&a, v.cooldown_s));
        jnode_set(&a, doc, STR("kubeVirtVMAddressPersistence"), jnode_new_str(&a, cells[9]));
        r = put_table(&f->out, doc, heads, ARRAY_LEN(heads), cells, ARRAY_LEN(cells));
    }
    arena_fini(&a);
    return r;
}

int ipam_cmd_show(struct store *s, struct ipam *m, const struct ipam_flags *f) {
    struct err e = {.code = 0};
    int r = f->ip              ? show_ip(m, f, &e)
            : f->configuration ? show_configuration(s, f, &e)
            : f->borrowed      ? show_borrowed(m, f, &e)
                               : show_pools(s, m, &f->out, f->blocks, &e);
    return r < 0 ? cli_error("%s", e.msg) : r;
}

/* ---- the command ---- */

/* What the options' values are for; names as calicoctl's. */
enum option_id {
    OPT_BLOCKS = 256,
    OPT_BORROWED,
    OPT_CONFIGURATION,
    OPT_IP,
    OPT_ALL_IPS,
    OPT_PROBLEM_IPS,
    OPT_REPORT,
    OPT_FORCE,
    OPT_STRICT,
    OPT_AUTO,
    OPT_MAX_BLOCKS,
    OPT_COOLDOWN,
    OPT_VM,
    OPT_CIDR,
    OPT_NAME,
    OPT_DRY,
};
static const struct {
    struct option option;
    const char *of; /* subcommands */
} options[] = {
    {{"show-blocks", no_argument, NULL, OPT_BLOCKS}, "show"},
    {{"show-borrowed", no_argument, NULL, OPT_BORROWED}, "show"},
    {{"show-configuration", no_argument, NULL, OPT_CONFIGURATION}, "show"},
    {{"ip", required_argument, NULL, OPT_IP}, "show release"},
    {{"show-all-ips", no_argument, NULL, OPT_ALL_IPS}, "check"},
    {{"show-problem-ips", no_argument, NULL, OPT_PROBLEM_IPS}, "check"},
    {{"from-report", required_argument, NULL, OPT_REPORT}, "release"},
    {{"force", no_argument, NULL, OPT_FORCE}, "release split"},
    {{"strictaffinity", required_argument, NULL, OPT_STRICT}, "configure"},
    {{"auto-allocate-blocks", required_argument, NULL, OPT_AUTO}, "configure"},
    {{"max-blocks-per-host", required_argument, NULL, OPT_MAX_BLOCKS}, "configure"},
    {{"ip-cooldown-seconds", required_argument, NULL, OPT_COOLDOWN}, "configure"},
    {{"kubevirt-ip-persistence", required_argument, NULL, OPT_VM}, "configure"},
    {{"cidr", required_argument, NULL, OPT_CIDR}, "split"},
    {{"name", required_argument, NULL, OPT_NAME}, "split"},
    {{"dry-run", no_argument, NULL, OPT_DRY}, "repair"},
    {{"output", required_argument, NULL, 'o'}, "show check"},
};

static void take_option(struct ipam_flags *f, int c) {
    switch (c) {
    case OPT_BLOCKS:
        f->blocks = true;
        break;
    case OPT_BORROWED:
        f->borrowed = true;
        break;
    case OPT_CONFIGURATION:
        f->configuration = true;
        break;
    case OPT_IP:
        f->ip = optarg;
        break;
    case OPT_ALL_IPS:
        f->all_ips = true;
        break;
    case OPT_PROBLEM_IPS:
        f->problem_ips = true;
        break;
    case OPT_REPORT:
    case 'o': /* check's file; show's format is read later */
        f->file = optarg;
        break;
    case OPT_FORCE:
        f->force = true;
        break;
    case OPT_STRICT:
        f->strict = optarg;
        break;
    case OPT_AUTO:
        f->auto_blocks = optarg;
        break;
    case OPT_MAX_BLOCKS:
        f->max_blocks = optarg;
        break;
    case OPT_COOLDOWN:
        f->cooldown = optarg;
        break;
    case OPT_VM:
        f->vm = optarg;
        break;
    case OPT_CIDR:
        f->cidr = optarg;
        break;
    case OPT_NAME:
        f->name = optarg;
        break;
    default: /* OPT_DRY */
        f->is_dry = true;
    }
}

/* 0, or the exit code after an error message. */
static int parse(int argc, char **argv, struct ipam_flags *f, const char **what) {
    struct option longs[ARRAY_LEN(options) + 1] = {{NULL, 0, NULL, 0}};
    bool is_given[ARRAY_LEN(options)] = {false};
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        longs[i] = options[i].option;
    }
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "o:", longs, NULL)) != -1;) {
        if (c == '?') {
            return cli_usage("ipam", "wrong option");
        }
        for (size_t i = 0; i < ARRAY_LEN(options); i++) {
            is_given[i] = is_given[i] || options[i].option.val == c;
        }
        take_option(f, c);
    }
    *what = optind < argc ? argv[optind] : "";
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (is_given[i] && **what && !strstr(options[i].of, *what)) {
            return cli_usage("ipam", "%s: --%s is of %s", *what, options[i].option.name,
                             options[i].of);
        }
    }
    f->words = argv + optind + 1;
    f->n_words = argc - optind - 1;
    bool is_split = strcmp(*what, "split") == 0;
    if (f->n_words > 0 && !is_split) {
        return cli_usage("ipam", "%s: found argument \"%s\", expected none", *what, f->words[0]);
    }
    bool is_show = strcmp(*what, "show") == 0;
    return !is_show || !f->file || cli_output_parse(f->file, "ipam", &f->out) ? 0 : 2;
}

int cmd_ipam(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(struct store *s, struct ipam *m, const struct ipam_flags *f);
    } subcommands[] = {{"show", ipam_cmd_show},           {"check", ipam_cmd_check},
                       {"repair", ipam_cmd_repair},       {"release", ipam_cmd_release},
                       {"configure", ipam_cmd_configure}, {"split", ipam_cmd_split}};
    struct ipam_flags f = {.out = {.format = OUT_TABLE}};
    const char *what;
    size_t k = 0;
    int r = parse(argc, argv, &f, &what);
    if (r) {
        return r;
    }
    while (k < ARRAY_LEN(subcommands) && strcmp(what, subcommands[k].name) != 0) {
        k++;
    }
    if (k == ARRAY_LEN(subcommands)) {
        return cli_usage("ipam",
                         "found \"%s\", expected show, check, repair, release, configure or split",
                         what);
    }
    struct store *s = NULL;
    struct err e;
    if (cli_store(&s, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    struct ipam *m = ipam_new(s, STR(""));
    r = subcommands[k].run(s, m, &f);
    ipam_free(m);
    store_close(s);
    return r;
}
