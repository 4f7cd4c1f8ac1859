/* policy: what policies there are, what they say, whom they select, and what they do. */
#include "cli/lint.h"

#include "base/vec.h"
#include "model/policy.h"
#include "policy/describe.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

/* Options that the commands share. */
struct options {
    struct cli_output out;
    VEC(char *) files;
    const char *ns, *port;
    bool with_counters;
    char **args;
    int n_args;
};

static int parse_options(int argc, char **argv, struct options *o) {
    enum { O_COUNTERS = 256 };
    static const struct option longs[] = {
        {"output", required_argument, NULL, 'o'},    {"filename", required_argument, NULL, 'f'},
        {"namespace", required_argument, NULL, 'n'}, {"port", required_argument, NULL, 'p'},
        {"counters", no_argument, NULL, O_COUNTERS}, {NULL, 0, NULL, 0}};
    *o = (struct options){.out = {.format = OUT_TABLE}};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "o:f:n:p:", longs, NULL)) != -1;) {
        switch (c) {
        case 'o':
            if (!cli_output_parse(optarg, "policy", &o->out)) {
                return 2;
            }
            break;
        case 'f':
            vec_push(&o->files, optarg);
            break;
        case 'n':
            o->ns = optarg;
            break;
        case 'p':
            o->port = optarg;
            break;
        case O_COUNTERS:
            o->with_counters = true;
            break;
        default:
            return cli_usage("policy", "wrong option");
        }
    }
    o->args = argv + optind;
    o->n_args = argc - optind;
    return 0;
}

/* Prints JSON text in the format asked for, or the table if that is asked for. */
static int print(const struct options *o, struct buf *json, const struct buf *table) {
    if (o->out.format == OUT_TABLE || o->out.format == OUT_WIDE) {
        printf("%.*s", STR_FMT(buf_view(table)));
        return 0;
    }
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err e;
    int r = json_parse(buf_view(json), &json_limits_default, &a, &doc, &e);
    r = r < 0 ? cli_error("%s", e.msg) : cli_print_tree(&o->out, "policy", doc);
    arena_fini(&a);
    return r < 0 ? cli_usage("policy", "-o: allowed are json, yaml and jsonpath=…") : r;
}

/* The word is KIND/NS/NAME, NS/NAME or NAME, as far as given. */
static bool is_meant(struct str policy, const char *word) {
    struct str w = word ? str_c(word) : STR_NULL;
    return !word || str_eq(policy, w) ||
           (policy.n > w.n && policy.p[policy.n - w.n - 1] == '/' &&
            str_eq(str_sub(policy, policy.n - w.n, policy.n), w));
}

static struct str full_name(struct arena *a, struct str kind, struct str ns, struct str name) {
    return arena_printf(a, "%.*s/%.*s%s%.*s", STR_FMT(kind), STR_FMT(ns), ns.n ? "/" : "",
                        STR_FMT(name));
}

static void put_member(struct buf *b, const char *name, struct str value) {
    buf_printf(b, "\"%s\":", name);
    json_quote(b, value);
    buf_putc(b, ',');
}

/* ---- list ---- */

struct listing {
    struct arena a;
    struct buf json;
    VEC(struct str) cells;
    const char *ns;
};

static const char *types_text(unsigned types) {
    return types == (POLICY_INGRESS | POLICY_EGRESS) ? "Ingress,Egress"
           : types == POLICY_INGRESS                 ? "Ingress"
           : types == POLICY_EGRESS                  ? "Egress"
                                                     : "-";
}

static void list_policy(void *arg, const struct calc_policy_info *p) {
    struct listing *l = arg;
    if (l->ns && !str_is(p->ns, l->ns)) {
        return;
    }
    struct str name = full_name(&l->a, p->kind, p->ns, p->name);
    struct str order = p->has_order ? arena_printf(&l->a, "%.15g", p->order) : STR("-");
    struct str rules = arena_printf(&l->a, "%zu,%zu", p->n_rules[0], p->n_rules[1]);
    struct str selected = arena_printf(&l->a, "%zu", p->n_selected);
    const struct str row[] = {p->tier,
                              order,
                              p->is_staged ? arena_printf(&l->a, "%.*s (staged)", STR_FMT(name))
                                           : name,
                              str_c(types_text(p->types)),
                              rules,
                              selected};
    for (size_t i = 0; i < ARRAY_LEN(row); i++) {
        vec_push(&l->cells, arena_dup(&l->a, row[i]));
    }
    buf_puts(&l->json, l->json.p[l->json.n - 1] == '[' ? "{" : ",{");
    put_member(&l->json, "policy", name);
    put_member(&l->json, "tier", p->tier);
    if (p->has_order) {
        buf_printf(&l->json, "\"order\":%.15g,", p->order);
    }
    buf_printf(&l->json,
               "\"types\":\"%s\",\"ingressRules\":%zu,\"egressRules\":%zu,"
               "\"selected\":%zu,\"staged\":%s}",
               types_text(p->types), p->n_rules[0], p->n_rules[1], p->n_selected,
               p->is_staged ? "true" : "false");
}

static int cmd_list(const struct options *o, struct world *w) {
    static const char *const heads[] = {"TIER", "ORDER", "POLICY", "TYPES", "RULES", "SELECTS"};
    struct listing l = {.json = BUF_INIT(256U << 20), .ns = o->ns};
    buf_puts(&l.json, "{\"policies\":[");
    calc_each_policy(w->calc, list_policy, &l);
    buf_puts(&l.json, "]}");
    MG_CLEANUP(buf_fini) struct buf table = BUF_INIT(256U << 20);
    cli_table(&table, heads, l.cells.p, ARRAY_LEN(heads), l.cells.n / ARRAY_LEN(heads), false);
    int rc = print(o, &l.json, &table);
    buf_fini(&l.json);
    vec_fini(&l.cells);
    arena_fini(&l.a);
    return rc;
}

/* ---- show, for-pod: policies rule by rule ---- */

struct showing {
    const struct world *w;
    struct buf text, json;
    const char *word;
    size_t n;
};

static void show_rules(struct showing *s, const struct calc_policy *p, const char *indent) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
    buf_puts(&s->json, "\"rules\":[");
    for (size_t i = 0; i < p->n_rules; i++) {
        buf_reset(&b);
        rule_describe(s->w->mirror, &p->rules[i], &b);
        buf_printf(&s->text, "%s#%u %.*s\n", indent, p->rules[i].index, STR_FMT(buf_view(&b)));
        buf_printf(&s->json, "%s{\"rule\":%u,\"text\":", i ? "," : "", p->rules[i].index);
        json_quote(&s->json, buf_view(&b));
        buf_putc(&s->json, '}');
    }
    if (p->n_rules == 0) {
        buf_printf(&s->text, "%sno rules\n", indent);
    }
    buf_putc(&s->json, ']');
}

static void show_policy(void *arg, const struct calc_policy_info *p) {
    struct showing *s = arg;
    struct arena a = {0};
    struct str name = full_name(&a, p->kind, p->ns, p->name);
    if (is_meant(name, s->word)) {
        buf_printf(&s->text, "%s%.*s%s  tier %.*s", s->n ? "\n" : "", STR_FMT(name),
                   p->is_staged ? " (staged: decides nothing)" : "", STR_FMT(p->tier));
        if (p->has_order) {
            buf_printf(&s->text, "  order %.15g", p->order);
        }
        buf_printf(&s->text, "\n  selects %zu endpoint%s now\n", p->n_selected,
                   p->n_selected == 1 ? "" : "s");
        buf_puts(&s->json, s->n++ ? ",{" : "{");
        put_member(&s->json, "policy", name);
        put_member(&s->json, "tier", p->tier);
        buf_printf(&s->json, "\"selected\":%zu", p->n_selected);
        for (int d = 0; d < 2; d++) {
            unsigned bit = d == CALC_INGRESS ? POLICY_INGRESS : POLICY_EGRESS;
            const char *word = d == CALC_INGRESS ? "ingress" : "egress";
            const struct calc_policy *out = mirror_policy(s->w->mirror, p->ids[d]);
            if (!(p->types & bit)) {
                continue;
            }
            buf_printf(&s->text, "  %s\n", word);
            if (out) {
                buf_printf(&s->json, ",\"%s\":{", word);
                show_rules(s, out, "    ");
                buf_putc(&s->json, '}');
            } else {
                buf_printf(&s->text, "    %zu rules, of no effect: nothing is selected\n",
                           p->n_rules[d]);
            }
        }
        buf_putc(&s->json, '}');
    }
    arena_fini(&a);
}

static int counters(const struct options *o);

static int cmd_show(const struct options *o, struct world *w) {
    struct showing s = {.w = w,
                        .text = BUF_INIT(256U << 20),
                        .json = BUF_INIT(256U << 20),
                        .word = o->n_args ? o->args[0] : NULL};
    buf_puts(&s.json, "{\"policies\":[");
    calc_each_policy(w->calc, show_policy, &s);
    buf_puts(&s.json, "]}");
    int rc = s.n || !s.word ? print(o, &s.json, &s.text)
                            : cli_error("policy %s is not there: margay policy list", s.word);
    buf_fini(&s.text);
    buf_fini(&s.json);
    if (rc == 0 && o->with_counters) {
        putchar('\n');
        rc = counters(o);
    }
    return rc;
}

static void show_list(struct showing *s, const uint32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct calc_policy *p = mirror_policy(s->w->mirror, ids[i]);
        if (p) {
            struct arena a = {0};
            struct str name = full_name(&a, p->kind, p->ns, p->name);
            buf_printf(&s->text, "    %.*s\n", STR_FMT(name));
            buf_puts(&s->json, i ? ",{" : "{");
            put_member(&s->json, "policy", name);
            show_rules(s, p, "      ");
            buf_putc(&s->json, '}');
            arena_fini(&a);
        }
    }
}

static void show_chain(struct showing *s, const char *word, const struct calc_chain *c) {
    buf_printf(&s->text, "%s\n", word);
    buf_printf(&s->json, ",\"%s\":{\"tiers\":[", word);
    for (size_t i = 0; i < c->n_tiers; i++) {
        const struct calc_tier *t = &c->tiers[i];
        buf_printf(&s->text, "  tier %.*s\n", STR_FMT(t->name));
        buf_puts(&s->json, i ? ",{" : "{");
        put_member(&s->json, "tier", t->name);
        buf_printf(&s->json, "\"end\":\"%s\",\"policies\":[", t->default_pass ? "Pass" : "Deny");
        show_list(s, t->policies, t->n_policies);
        buf_puts(&s->json, "]}");
        buf_printf(&s->text, "    end of tier: %s\n",
                   t->default_pass ? "on to the next" : "denied");
    }
    buf_puts(&s->json, "],\"profiles\":[");
    bool is_reached = c->n_tiers == 0 || c->tiers[c->n_tiers - 1].default_pass;
    buf_printf(&s->text, "  profiles%s\n", is_reached ? "" : " (after Pass alone)");
    show_list(s, c->profiles, c->n_profiles);
    buf_puts(&s->text, "    end of profiles: denied\n");
    buf_puts(&s->json, "]}");
}

static int cmd_for_pod(const struct options *o, struct world *w) {
    if (o->n_args != 1) {
        return cli_usage("policy", "for-pod: expected NAMESPACE/POD");
    }
    struct str name = str_c(o->args[0]);
    ptrdiff_t slash = str_find(name, '/', 0);
    struct str ns = slash > 0 ? str_sub(name, 0, (size_t)slash) : STR("default");
    name = slash > 0 ? str_sub(name, (size_t)slash + 1, name.n) : name;
    const struct calc_endpoint *e = mirror_endpoint(w->mirror, ns, name);
    if (!e) {
        const struct world_pod *p = world_find(w, ns, name);
        return cli_error("pod %.*s/%.*s %s", STR_FMT(ns), STR_FMT(name),
                         !p                   ? "is not there"
                         : p->is_host_network ? "uses the host's network: no policy selects it"
                                              : "has no endpoint: it has no address, or has ended");
    }
    struct showing s = {.w = w, .text = BUF_INIT(256U << 20), .json = BUF_INIT(256U << 20)};
    buf_putc(&s.json, '{');
    put_member(&s.json, "namespace", ns);
    buf_puts(&s.json, "\"pod\":");
    json_quote(&s.json, name);
    show_chain(&s, "ingress", &e->ingress);
    show_chain(&s, "egress", &e->egress);
    if (e->staged) {
        buf_puts(&s.text, "with staged policies enforced:\n");
        show_chain(&s, "stagedIngress", &e->staged[CALC_INGRESS]);
        show_chain(&s, "stagedEgress", &e->staged[CALC_EGRESS]);
    }
    buf_putc(&s.json, '}');
    int rc = print(o, &s.json, &s.text);
    buf_fini(&s.text);
    buf_fini(&s.json);
    return rc;
}

/* ---- matrix ---- */

enum { MATRIX_PODS_MAX = 40 };

/* Rows and columns: pods, or namespaces when there are many. */
struct group {
    struct str name;
    VEC(const struct world_pod *) pods;
};
typedef VEC(struct group) group_vec;

static void make_groups(const struct world *w, const char *ns, group_vec *out) {
    size_t n = 0;
    for (size_t i = 0; i < w->n_pods; i++) {
        n += w->pods[i].has_endpoint && (!ns || str_is(w->pods[i].ns, ns));
    }
    for (size_t i = 0; i < w->n_pods; i++) {
        const struct world_pod *p = &w->pods[i];
        if (p->is_host_network || !(p->has_ip[0] || p->has_ip[1]) || (ns && !str_is(p->ns, ns))) {
            continue;
        }
        bool is_new =
            n <= MATRIX_PODS_MAX || out->n == 0 || !str_eq(out->p[out->n - 1].name, p->ns);
        if (is_new) {
            struct group g = {.name =
                                  n <= MATRIX_PODS_MAX
                                      ? arena_printf((struct arena *)(uintptr_t)&w->a, "%.*s/%.*s",
                                                     STR_FMT(p->ns), STR_FMT(p->name))
                                      : p->ns};
            vec_push(out, g);
        }
        vec_push(&out->p[out->n - 1].pods, p);
    }
}

/* '.' all may, 'X' none may, '~' some may, '#' a pod and itself. */
static char cell(const struct world *w, const struct group *from, const struct group *to,
                 struct packet p) {
    size_t yes = 0, no = 0;
    for (size_t i = 0; i < from->pods.n; i++) {
        for (size_t k = 0; k < to->pods.n; k++) {
            if (from->pods.p[i] != to->pods.p[k] &&
                world_ends(from->pods.p[i], to->pods.p[k], &p)) {
                bool ok = verdict_both(w->mirror, &p) == VERDICT_ALLOW;
                yes += ok;
                no += !ok;
            }
        }
        if (yes && no) {
            return '~';
        }
    }
    return yes ? '.' : no ? 'X' : '#';
}

static int cmd_matrix(const struct options *o, struct world *w) {
    struct packet p;
    const char *port = o->port ? o->port : "tcp/80";
    if (!world_traffic(port, &p)) {
        return cli_usage("policy", "--port: found \"%s\", allowed is tcp/80, udp/53, sctp/9, icmp",
                         port);
    }
    group_vec g = {0};
    make_groups(w, o->ns, &g);
    MG_CLEANUP(buf_fini) struct buf text = BUF_INIT(64U << 20), json = BUF_INIT(64U << 20);
    size_t width = 0;
    for (size_t i = 0; i < g.n; i++) {
        width = g.p[i].name.n > width ? g.p[i].name.n : width;
    }
    buf_printf(&text, "%s: rows may reach columns ( . yes  X no  ~ some  # itself )\n", port);
    buf_printf(&json, "{\"port\":\"%s\",\"rows\":[", port);
    for (size_t i = 0; i < g.n; i++) {
        buf_printf(&text, "%3zu %-*.*s ", i + 1, (int)width, STR_FMT(g.p[i].name));
        buf_puts(&json, i ? ",{" : "{");
        put_member(&json, "name", g.p[i].name);
        buf_puts(&json, "\"cells\":\"");
        for (size_t k = 0; k < g.n; k++) {
            char c = cell(w, &g.p[i], &g.p[k], p);
            buf_printf(&text, " %c", c);
            buf_putc(&json, c);
        }
        buf_putc(&text, '\n');
        buf_puts(&json, "\"}");
    }
    buf_puts(&json, "]}");
    int rc = print(o, &json, &text);
    for (size_t i = 0; i < g.n; i++) {
        vec_fini(&g.p[i].pods);
    }
    vec_fini(&g);
    buf_fini(&json);
    return rc;
}

/* ---- counters ---- */

static struct str member(const struct jnode *n, const char *name) {
    const struct jnode *m = jnode_getc(n, name);
    return m ? m->s : STR("-");
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

static int counters(const struct options *o) {
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
        rc = cli_print_tree(&o->out, "policy", q);
        if (rc < 0) {
            show_counters(q, o->n_args ? o->args[0] : NULL, &a);
            rc = 0;
        }
    }
    arena_fini(&a);
    return rc;
}

static int cmd_lint(const struct options *o) {
    MG_CLEANUP(buf_fini) struct buf text = BUF_INIT(256U << 20), json = BUF_INIT(256U << 20);
    int rc = lint_run(o->files.p, o->files.n, &text, &json);
    if (rc < 2) {
        int printed = print(o, &json, &text);
        rc = printed ? printed : rc;
    }
    buf_fini(&json);
    return rc;
}

int cmd_policy(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(const struct options *o, struct world *w);
        int (*run_alone)(const struct options *o); /* reads what it needs itself */
    } commands[] = {{"list", cmd_list, NULL},       {"show", cmd_show, NULL},
                    {"for-pod", cmd_for_pod, NULL}, {"matrix", cmd_matrix, NULL},
                    {"lint", NULL, cmd_lint},       {"counters", NULL, counters}};
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(commands); i++) {
        if (strcmp(argv[1], commands[i].name) != 0) {
            continue;
        }
        struct options o;
        int rc = parse_options(argc - 1, argv + 1, &o);
        if (rc == 0 && commands[i].run_alone) {
            rc = commands[i].run_alone(&o);
        } else if (rc == 0) {
            struct world *w = world_open(o.files.p, o.files.n);
            rc = w ? commands[i].run(&o, w) : 1;
            world_free(w);
        }
        vec_fini(&o.files);
        return rc;
    }
    return cli_usage("policy", "expected: list, show, for-pod, matrix, lint or counters");
}
