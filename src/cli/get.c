/* get: what the store has, as tables or documents; -w goes on with changes. */
#include "cli/cli.h"

#include "base/loop.h"
#include "base/vec.h"
#include "policy/selector.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

typedef VEC(struct cli_item) item_vec;
typedef VEC(const struct kind *) kind_vec;

struct getting {
    struct arena a;
    struct store *s;
    struct str ns; /* of namespaced kinds; p NULL: all */
    const struct selector *labels;
    struct cli_output out;
    item_vec items;
    const struct kind *kind; /* being listed */
    uint64_t revision;
    bool is_watching;
};

/* One requirement of Kubernetes' label selectors: a=b a==b a!=b "a in (x,y)" "a notin (x)" a !a */
static int put_requirement(struct str r, struct buf *out, struct err *e) {
    static const char *const ops[] = {" notin ", " in ", "!=", "==", "="};
    if (r.n == 0) {
        return err_set(e, ERR_INVALID, "label selector: empty requirement");
    }
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        size_t n = strlen(ops[i]);
        for (size_t k = 0; k + n <= r.n; k++) {
            if (memcmp(r.p + k, ops[i], n) != 0) {
                continue;
            }
            struct str key = str_trim(str_sub(r, 0, k));
            struct str val = str_trim(str_sub(r, k + n, r.n));
            if (i > 1) {
                buf_printf(out, "%.*s %s '%.*s'", STR_FMT(key), i == 2 ? "!=" : "==", STR_FMT(val));
                return 0;
            }
            if (val.n < 2 || val.p[0] != '(' || val.p[val.n - 1] != ')') {
                return err_set(e, ERR_INVALID, "label selector: found \"%.*s\", expected (a, b)",
                               STR_FMT(val));
            }
            buf_printf(out, "%.*s %s {", STR_FMT(key), i == 0 ? "not in" : "in");
            struct str list = str_sub(val, 1, val.n - 1);
            for (const char *sep = ""; list.p; sep = ", ") {
                struct str v = str_trim(str_cut(&list, ','));
                buf_printf(out, "%s'%.*s'", sep, STR_FMT(v));
            }
            buf_putc(out, '}');
            return 0;
        }
    }
    bool is_not = r.p[0] == '!';
    struct str key = str_trim(str_sub(r, is_not ? 1 : 0, r.n));
    buf_printf(out, "%shas(%.*s)", is_not ? "!" : "", STR_FMT(key));
    return 0;
}

int cli_label_selector(const char *text, struct buf *out, struct err *e) {
    struct str t = str_c(text);
    int depth = 0;
    size_t start = 0;
    for (size_t i = 0; i <= t.n; i++) {
        if (i < t.n) {
            depth += t.p[i] == '(' ? 1 : t.p[i] == ')' ? -1 : 0;
        }
        if (i == t.n || (t.p[i] == ',' && depth == 0)) {
            if (out->n) {
                buf_puts(out, " && ");
            }
            int r = put_requirement(str_trim(str_sub(t, start, i)), out, e);
            if (r < 0) {
                return r;
            }
            start = i + 1;
        }
    }
    return 0;
}

static int label_cmp(const void *a, const void *b) {
    return str_cmp(((const struct label *)a)->key, ((const struct label *)b)->key);
}

static bool labels_match(struct getting *g, const struct jnode *doc) {
    if (!g->labels) {
        return true;
    }
    VEC(struct label) v = {0};
    const struct jnode *labels = jnode_path(doc, "metadata.labels");
    jnode_each (n, labels) {
        vec_push(&v, (struct label){n->key, jnode_str(n)});
    }
    vec_sort(&v, label_cmp);
    bool ok = selector_match(g->labels, v.p, v.n);
    vec_fini(&v);
    return ok;
}

static bool take(struct getting *g, const struct store_item *it, struct cli_item *out,
                 struct arena *a) {
    const struct kind *k = NULL;
    struct str ns, name;
    struct jnode *doc = NULL;
    struct err e;
    struct str key = arena_dup(a, it->key);
    if (kind_split_key(key, &k, &ns, &name) < 0 || (g->kind && k != g->kind)) {
        return false;
    }
    if (g->ns.p && k->is_namespaced && !str_eq(ns, g->ns)) {
        return false;
    }
    if (it->value.p && json_parse(arena_dup(a, it->value), &json_limits_default, a, &doc, &e) < 0) {
        cli_error("%.*s: %s", STR_FMT(it->key), e.msg);
        return false;
    }
    if (doc) {
        struct jnode *m = jnode_getc(doc, "metadata");
        if (m) {
            jnode_set(a, m, STR("resourceVersion"),
                      jnode_new_str(a, arena_printf(a, "%llu", (unsigned long long)it->revision)));
        }
        if (!labels_match(g, doc)) {
            return false;
        }
        /* A policy of Calico's early versions stands under another name than its own. */
        struct str own = jnode_str(jnode_getc(m, "name"));
        name = own.n ? own : name;
    }
    *out = (struct cli_item){k, doc, ns, name};
    return true;
}

static int on_item(void *arg, const struct store_item *it) {
    struct getting *g = arg;
    struct cli_item item;
    if (take(g, it, &item, &g->a)) {
        vec_push(&g->items, item);
    }
    return 0;
}

static int list_kind(struct getting *g, const struct kind *k, struct err *e) {
    struct str prefix = g->ns.p && k->is_namespaced
                            ? arena_printf(&g->a, "%s/%.*s/", kind_store_name(k), STR_FMT(g->ns))
                            : arena_printf(&g->a, "%s/", kind_store_name(k));
    g->kind = k;
    int r = store_list(g->s, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, &g->revision,
                       on_item, g, e);
    g->kind = NULL;
    return r;
}

static int get_named(struct getting *g, const struct kind *k, const char *name) {
    struct cli_object o;
    struct err e;
    struct str ns = !k->is_namespaced ? STR("") : g->ns.p ? g->ns : STR("default");
    if (cli_get(g->s, k, ns, str_c(name), &g->a, &o, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    struct jnode *m = jnode_getc(o.doc, "metadata");
    if (m) {
        jnode_set(
            &g->a, m, STR("resourceVersion"),
            jnode_new_str(&g->a, arena_printf(&g->a, "%llu", (unsigned long long)o.revision)));
    }
    vec_push(&g->items, (struct cli_item){k, o.doc, ns, arena_dup(&g->a, str_c(name))});
    return 0;
}

static int show(struct getting *g, bool is_single) {
    struct err e;
    struct buf b = BUF_INIT(1U << 30);
    bool ok = cli_print(&g->out, g->items.p, g->items.n, is_single, &g->a, &b, &e);
    if (ok) {
        fwrite(b.p ? b.p : "", 1, b.n, stdout);
        fflush(stdout);
    }
    buf_fini(&b);
    return ok ? 0 : cli_error("%s", e.msg);
}

/* ---- -w ---- */

struct watching {
    struct getting *g;
    struct loop *l;
    const kind_vec *kinds;
    char **names; /* none: all */
    int n_names;
    int code;
};

static bool is_asked_for(const struct watching *w, const struct cli_item *item) {
    bool kind = false, name = w->n_names == 0;
    for (size_t i = 0; i < w->kinds->n; i++) {
        kind |= w->kinds->p[i] == item->kind;
    }
    for (int i = 0; i < w->n_names; i++) {
        name |= str_is(item->name, w->names[i]);
    }
    return kind && name;
}

static void on_change(void *arg, const struct store_item *it) {
    struct watching *w = arg;
    struct getting *g = w->g;
    struct arena a = {0};
    struct cli_item item;
    if (take(g, it, &item, &a)) {
        bool wanted = is_asked_for(w, &item);
        if (wanted && item.doc) {
            struct err e;
            struct buf b = BUF_INIT(64 << 20);
            g->out.no_headers = true;
            if (cli_print(&g->out, &item, 1, true, &a, &b, &e)) {
                fwrite(b.p ? b.p : "", 1, b.n, stdout);
            }
            buf_fini(&b);
        } else if (wanted) {
            printf("%.*s deleted\n", STR_FMT(item.name));
        }
        fflush(stdout);
    }
    arena_fini(&a);
}
static void on_watch_end(void *arg, int code) {
    struct watching *w = arg;
    w->code = cli_error("the watch ended: %s", err_name(code));
    loop_stop(w->l);
}

static int watch(struct getting *g, const kind_vec *kinds, int n_names, char **names) {
    static const struct store_watch_ops ops = {on_change, on_watch_end, NULL};
    struct watching w = {g, loop_new(), kinds, names, n_names, 0};
    struct store_watch *sw = NULL;
    struct err e;
    struct str prefix =
        kinds->n == 1 ? arena_printf(&g->a, "%s/", kind_store_name(kinds->p[0])) : STR("");
    if (store_watch(g->s, w.l, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, g->revision,
                    &ops, &w, &sw, &e) < 0) {
        w.code = cli_error("%s", e.msg);
    } else {
        loop_run(w.l);
        store_watch_free(sw);
    }
    loop_free(w.l);
    return w.code;
}

/* ---- the command ---- */

static int parse_kinds(const char *word, kind_vec *out) {
    for (struct str rest = str_c(word); rest.p;) {
        struct str one = str_cut(&rest, ',');
        char name[128];
        snprintf(name, sizeof(name), "%.*s", STR_FMT(one));
        const struct kind *k = cli_kind(name);
        if (!k) {
            return 1;
        }
        vec_push(out, k);
    }
    return 0;
}

static int run(struct getting *g, const kind_vec *kinds, int n_names, char **names, bool all_ns,
               bool watched) {
    struct err e;
    int rc = 0;
    if (n_names) {
        for (int i = 0; i < n_names; i++) {
            rc |= get_named(g, kinds->p[0], names[i]);
        }
        g->revision = store_revision(g->s);
    } else {
        for (size_t i = 0; i < kinds->n && rc == 0; i++) {
            rc = list_kind(g, kinds->p[i], &e) < 0 ? cli_error("%s", e.msg) : 0;
        }
    }
    if (g->items.n) {
        rc |= show(g, n_names == 1);
    } else if (rc == 0 && (g->out.format == OUT_JSON || g->out.format == OUT_YAML)) {
        rc = show(g, false);
    } else if (rc == 0 && !watched) {
        bool one_ns = kinds->p[0]->is_namespaced && !all_ns;
        fprintf(stderr, one_ns ? "No resources found in %.*s namespace.\n" : "No resources found\n",
                STR_FMT(g->ns));
    }
    return rc == 0 && watched ? watch(g, kinds, n_names, names) : rc;
}

int cmd_get(int argc, char **argv) {
    enum { O_NO_HEADERS = 256, O_SHOW_LABELS, O_EXPORT };
    static const struct option longs[] = {
        {"namespace", required_argument, NULL, 'n'},
        {"all-namespaces", no_argument, NULL, 'A'},
        {"selector", required_argument, NULL, 'l'},
        {"output", required_argument, NULL, 'o'},
        {"watch", no_argument, NULL, 'w'},
        {"no-headers", no_argument, NULL, O_NO_HEADERS},
        {"show-labels", no_argument, NULL, O_SHOW_LABELS},
        {NULL, 0, NULL, 0},
    };
    struct getting g = {.ns = STR("default")};
    kind_vec kinds = {0};
    bool all = false, watched = false;
    int rc = -1;
    struct err e;
    optind = 1;
    for (int c; rc < 0 && (c = getopt_long(argc, argv, "n:Al:o:w", longs, NULL)) != -1;) {
        switch (c) {
        case 'n':
            g.ns = str_c(optarg);
            break;
        case 'A':
            all = true;
            break;
        case 'l': {
            MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(65536);
            if (cli_label_selector(optarg, &b, &e) < 0 ||
                selector_parse(buf_view(&b), 65536, &g.a, &g.labels, &e) < 0) {
                rc = cli_usage("get", "-l %s: %s", optarg, e.msg);
            }
            break;
        }
        case 'o':
            rc = cli_output_parse(optarg, "get", &g.out) ? -1 : 2;
            break;
        case 'w':
            watched = true;
            break;
        case O_NO_HEADERS:
            g.out.no_headers = true;
            break;
        case O_SHOW_LABELS:
            g.out.show_labels = true;
            break;
        default:
            rc = cli_usage("get", "wrong option");
        }
    }
    if (rc < 0 && optind == argc) {
        rc = cli_usage("get", "which kind? For example: margay get networkpolicies -A");
    }
    if (rc < 0) {
        char *slash = strchr(argv[optind], '/');
        if (slash) { /* KIND/NAME */
            *slash = 0;
            rc = parse_kinds(argv[optind], &kinds) ? 1 : -1;
            argv[optind] = slash + 1;
        } else {
            rc = parse_kinds(argv[optind++], &kinds) ? 1 : -1;
        }
    }
    if (rc < 0 && optind < argc && kinds.n > 1) {
        rc = cli_usage("get", "names need one kind, found %zu", kinds.n);
    }
    if (rc < 0 && cli_store(&g.s, &e) < 0) {
        rc = cli_error("%s", e.msg);
    }
    if (rc < 0) {
        g.ns = all ? STR_NULL : g.ns;
        g.out.show_ns = all;
        g.out.show_kind = kinds.n > 1;
        rc = run(&g, &kinds, argc - optind, argv + optind, all, watched);
    }
    store_close(g.s);
    vec_fini(&g.items);
    vec_fini(&kinds);
    arena_fini(&g.a);
    return rc;
}
