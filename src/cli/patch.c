/* patch, label, annotate: changes to objects that are there. */
#include "cli/cli.h"

#include "base/vec.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

struct change {
    const char *command;
    const struct kind *kind;
    struct str ns;
    /* Changes the tree; sets *is_same when nothing is to be written. */
    int (*apply)(struct change *c, struct jnode **doc, struct arena *a, bool *is_same,
                 struct err *e);
    void *arg;
    const char *done; /* "patched", "labeled" */
};

/* Reads, changes, checks and writes; again when somebody else was faster. */
static int change_one(struct change *c, struct store *s, const char *name) {
    struct err e;
    int r = 0;
    for (int i = 0; i < 10; i++) {
        struct arena a = {0};
        struct cli_object old;
        bool is_same = false;
        r = cli_get(s, c->kind, c->ns, str_c(name), &a, &old, &e);
        struct jnode *doc = r == 0 ? jnode_copy(&a, old.doc) : NULL;
        if (r == 0) {
            r = c->apply(c, &doc, &a, &is_same, &e);
        }
        struct object o;
        if (r == 0 && cli_check_change(old.doc, doc, name, c->ns, &a, &o) < 0) {
            arena_fini(&a);
            return 1;
        }
        if (r == 0 && (o.kind != c->kind || !str_is(o.meta.name, name) ||
                       (c->kind->is_namespaced && !str_eq(o.meta.ns, c->ns)))) {
            arena_fini(&a);
            return cli_error("apiVersion, kind, name and namespace can't be changed");
        }
        if (r == 0 && (is_same || jnode_eq(old.doc, doc))) {
            is_same = true;
        } else if (r == 0) {
            r = cli_put(s, c->kind, c->ns, str_c(name), doc, &old, old.revision, &a, &e);
        }
        if (r == 0) {
            MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
            kind_print_ref(c->kind, str_c(name), &b);
            printf("%.*s %s\n", STR_FMT(buf_view(&b)), is_same ? "unchanged" : c->done);
        }
        arena_fini(&a);
        if (r != ERR_CONFLICT) {
            break;
        }
    }
    return r < 0 ? cli_error("%s", e.msg) : 0;
}

/* KIND NAME… or KIND/NAME; names end where stop says. Returns how many arguments were used, or -1
 * after an error message. */
static int target(struct change *c, int argc, char **argv, const char **name) {
    if (argc < 1) {
        cli_usage(c->command, "which object? Give KIND NAME");
        return -1;
    }
    char *slash = strchr(argv[0], '/');
    if (slash) {
        *slash = 0;
        *name = slash + 1;
    } else if (argc < 2) {
        cli_usage(c->command, "which %s? Give its name", argv[0]);
        return -1;
    } else {
        *name = argv[1];
    }
    c->kind = cli_kind(argv[0]);
    if (!c->kind) {
        return -1;
    }
    c->ns = !c->kind->is_namespaced ? STR("") : c->ns.p ? c->ns : STR("default");
    return slash ? 1 : 2;
}

/* ---- patch ---- */

/* RFC 6901: the parent of what a pointer names, and the last part. */
static struct jnode *pointer_parent(struct jnode *doc, struct str path, struct arena *a,
                                    struct str *last) {
    struct jnode *at = doc;
    if (path.n == 0 || path.p[0] != '/') {
        return NULL;
    }
    struct str rest = str_sub(path, 1, path.n);
    for (;;) {
        struct str part = str_cut(&rest, '/');
        char *text = arena_alloc(a, part.n + 1);
        size_t n = 0;
        for (size_t i = 0; i < part.n; i++) {
            bool esc = part.p[i] == '~' && i + 1 < part.n;
            text[n++] = esc ? (part.p[i + 1] == '1' ? '/' : '~') : part.p[i];
            i += esc;
        }
        struct str key = str_n(text, n);
        if (!rest.p) {
            *last = key;
            return at;
        }
        uint64_t want;
        struct jnode *next = NULL;
        if (at->type == J_MAP) {
            next = jnode_get(at, key);
        } else if (at->type == J_LIST && str_to_u64(key, &want) == 0) {
            uint64_t i = 0;
            jnode_each (m, at) {
                next = i++ == want ? m : next;
            }
        }
        if (!next) {
            return NULL;
        }
        at = next;
    }
}

/* Rebuilds a list with one member put in, replaced or left out. */
static bool list_edit(struct jnode *list, struct str at, struct jnode *value, bool replace) {
    uint64_t want = list->n;
    if (!str_is(at, "-") && (str_to_u64(at, &want) < 0 || want > list->n)) {
        return false;
    }
    if ((replace || !value) && want >= list->n) {
        return false;
    }
    VEC(struct jnode *) v = {0};
    uint64_t i = 0;
    jnode_each (m, list) {
        if (i++ == want) {
            if (value) {
                vec_push(&v, value);
            }
            if (replace || !value) {
                continue;
            }
        }
        vec_push(&v, m);
    }
    if (want == list->n && value) {
        vec_push(&v, value);
    }
    list->child = list->last = NULL;
    list->n = 0;
    for (size_t k = 0; k < v.n; k++) {
        v.p[k]->next = NULL;
        jnode_append(list, v.p[k]);
    }
    vec_fini(&v);
    return true;
}

static struct jnode *pointer_get(struct jnode *doc, struct str path, struct arena *a) {
    struct str last;
    struct jnode *parent = pointer_parent(doc, path, a, &last), *found = NULL;
    if (!parent) {
        return NULL;
    }
    if (parent->type == J_MAP) {
        return jnode_get(parent, last);
    }
    uint64_t want, i = 0;
    if (parent->type == J_LIST && str_to_u64(last, &want) == 0) {
        jnode_each (m, parent) {
            found = i++ == want ? m : found;
        }
    }
    return found;
}

static int json_op(struct jnode *doc, const struct jnode *op, struct arena *a, struct err *e) {
    struct str name = jnode_str(jnode_getc(op, "op")), path = jnode_str(jnode_getc(op, "path"));
    struct jnode *value = jnode_getc(op, "value");
    struct str from = jnode_str(jnode_getc(op, "from")), last;
    bool is_move = str_is(name, "move");
    if (is_move || str_is(name, "copy")) {
        struct jnode *src = pointer_get(doc, from, a);
        if (!src) {
            return err_set(e, ERR_INVALID, "patch: %.*s: nothing at %.*s", STR_FMT(name),
                           STR_FMT(from));
        }
        value = jnode_copy(a, src);
        if (is_move) {
            struct jnode *p = pointer_parent(doc, from, a, &last);
            if (p->type == J_MAP ? !jnode_del(p, last) : !list_edit(p, last, NULL, false)) {
                return err_set(e, ERR_INVALID, "patch: move: nothing at %.*s", STR_FMT(from));
            }
        }
        name = STR("add");
    }
    bool is_remove = str_is(name, "remove"), is_replace = str_is(name, "replace");
    if (str_is(name, "test")) {
        const struct jnode *has = pointer_get(doc, path, a);
        return has && value && jnode_eq(has, value)
                   ? 0
                   : err_set(e, ERR_INVALID, "patch: test: %.*s is something else", STR_FMT(path));
    }
    if (!is_remove && !is_replace && !str_is(name, "add")) {
        return err_set(e, ERR_INVALID,
                       "patch: op \"%.*s\": allowed are add, remove, replace, move, copy, test",
                       STR_FMT(name));
    }
    struct jnode *p = pointer_parent(doc, path, a, &last);
    bool ok = p && (value || is_remove);
    if (ok && p->type == J_MAP) {
        ok = str_is(name, "add") || jnode_get(p, last);
        if (ok && is_remove) {
            (void)jnode_del(p, last);
        } else if (ok) {
            jnode_set(a, p, last, jnode_copy(a, value));
        }
    } else if (ok && p->type == J_LIST) {
        ok = list_edit(p, last, is_remove ? NULL : jnode_copy(a, value), is_replace);
    } else {
        ok = false;
    }
    return ok ? 0
              : err_set(e, ERR_INVALID, "patch: %.*s: no such place, or no value: %.*s",
                        STR_FMT(name), STR_FMT(path));
}

struct patch {
    struct jnode *doc;
    bool is_json; /* RFC 6902, else a merge patch */
};

static int apply_patch(struct change *c, struct jnode **doc, struct arena *a, bool *is_same,
                       struct err *e) {
    struct patch *p = c->arg;
    (void)is_same;
    if (!p->is_json) {
        *doc = jnode_merge_patch(a, *doc, p->doc);
        return (*doc)->type == J_MAP ? 0
                                     : err_set(e, ERR_INVALID, "patch: the result is no object");
    }
    if (p->doc->type != J_LIST) {
        return err_set(e, ERR_INVALID, "patch: a JSON patch is a list of operations");
    }
    int r = 0;
    jnode_each (op, p->doc) {
        r = r == 0 ? json_op(*doc, op, a, e) : r;
    }
    return r;
}

static int first_doc(void *arg, struct jnode *doc) {
    struct jnode **out = arg;
    *out = *out ? *out : doc;
    return 0;
}

int cmd_patch(int argc, char **argv) {
    enum { O_TYPE = 256 };
    static const struct option longs[] = {
        {"namespace", required_argument, NULL, 'n'},
        {"patch", required_argument, NULL, 'p'},
        {"type", required_argument, NULL, O_TYPE},
        {NULL, 0, NULL, 0},
    };
    struct patch p = {NULL, false};
    struct change c = {.command = "patch", .apply = apply_patch, .arg = &p, .done = "patched"};
    const char *text = NULL, *name = NULL;
    struct arena a = {0};
    struct store *s = NULL;
    struct err e;
    int rc = -1;
    optind = 1;
    for (int ch; rc < 0 && (ch = getopt_long(argc, argv, "n:p:", longs, NULL)) != -1;) {
        switch (ch) {
        case 'n':
            c.ns = str_c(optarg);
            break;
        case 'p':
            text = optarg;
            break;
        case O_TYPE:
            p.is_json = strcmp(optarg, "json") == 0;
            if (!p.is_json && strcmp(optarg, "merge") != 0 && strcmp(optarg, "strategic") != 0) {
                rc = cli_usage("patch", "--type %s: allowed are merge, json, strategic", optarg);
            }
            break;
        default:
            rc = cli_usage("patch", "wrong option");
        }
    }
    if (rc < 0 && !text) {
        rc = cli_usage("patch", "what to change? Give -p '{\"spec\": …}'");
    }
    if (rc < 0 &&
        yaml_each(str_c(text), "-p", &json_limits_default, &a, first_doc, &p.doc, &e) < 0) {
        rc = cli_error("%s", e.msg);
    }
    if (rc < 0 && !p.doc) {
        rc = cli_usage("patch", "-p is empty");
    }
    if (rc < 0) {
        rc = target(&c, argc - optind, argv + optind, &name) < 0 ? 2 : -1;
    }
    if (rc < 0 && cli_store(&s, &e) < 0) {
        rc = cli_error("%s", e.msg);
    }
    if (rc < 0) {
        rc = change_one(&c, s, name);
    }
    if (s) {
        store_close(s);
    }
    arena_fini(&a);
    return rc;
}

/* ---- label, annotate ---- */

struct pairs {
    const char *field; /* "labels", "annotations" */
    int n;
    char **p; /* "k=v" or "k-" */
    bool overwrite;
};

static int apply_pairs(struct change *c, struct jnode **doc, struct arena *a, bool *is_same,
                       struct err *e) {
    struct pairs *q = c->arg;
    (void)is_same;
    struct jnode *m = jnode_getc(*doc, "metadata");
    struct jnode *map = jnode_getc(m, q->field);
    if (!map) {
        map = jnode_new(a, J_MAP);
        jnode_set(a, m, str_c(q->field), map);
    }
    for (int i = 0; i < q->n; i++) {
        struct str t = str_c(q->p[i]);
        ptrdiff_t eq = str_find(t, '=', 0);
        if (eq < 0) {
            (void)jnode_del(map, str_sub(t, 0, t.n - 1)); /* checked: ends with - */
            continue;
        }
        struct str key = str_sub(t, 0, (size_t)eq), val = str_sub(t, (size_t)eq + 1, t.n);
        const struct jnode *old = jnode_get(map, key);
        if (old && !q->overwrite && !str_eq(jnode_str(old), val)) {
            return err_set(e, ERR_EXISTS,
                           "%.*s already has a value (%.*s), and --overwrite is not "
                           "given",
                           STR_FMT(key), STR_FMT(jnode_str(old)));
        }
        jnode_set(a, map, arena_dup(a, key), jnode_new_str(a, arena_dup(a, val)));
    }
    if (map->n == 0) {
        (void)jnode_del(m, str_c(q->field));
    }
    return 0;
}

static bool is_pair(const char *s) {
    size_t n = strlen(s);
    return strchr(s, '=') || (n > 1 && s[n - 1] == '-');
}

static int set_pairs(int argc, char **argv, const char *field, const char *done) {
    enum { O_OVERWRITE = 256 };
    static const struct option longs[] = {
        {"namespace", required_argument, NULL, 'n'},
        {"overwrite", no_argument, NULL, O_OVERWRITE},
        {NULL, 0, NULL, 0},
    };
    struct pairs q = {.field = field};
    struct change c = {.command = argv[0], .apply = apply_pairs, .arg = &q, .done = done};
    const char *first = NULL;
    int rc = -1, used = 0;
    struct store *s = NULL;
    struct err e;
    optind = 1;
    for (int ch; rc < 0 && (ch = getopt_long(argc, argv, "n:", longs, NULL)) != -1;) {
        switch (ch) {
        case 'n':
            c.ns = str_c(optarg);
            break;
        case O_OVERWRITE:
            q.overwrite = true;
            break;
        default:
            rc = cli_usage(argv[0], "wrong option");
        }
    }
    if (rc < 0) {
        used = target(&c, argc - optind, argv + optind, &first);
        rc = used < 0 ? 2 : -1;
    }
    int at = optind + (used > 0 ? used : 0), n_names = 0;
    char **names = argv + at;
    while (rc < 0 && at + n_names < argc && !is_pair(names[n_names])) {
        n_names++;
    }
    q.p = names + n_names;
    q.n = argc - at - n_names;
    if (rc < 0 && q.n <= 0) {
        rc = cli_usage(argv[0], "give at least one KEY=VALUE, or KEY- to remove");
    }
    for (int i = 0; rc < 0 && i < q.n; i++) {
        if (!is_pair(q.p[i])) {
            rc = cli_usage(argv[0], "\"%s\": expected KEY=VALUE or KEY-", q.p[i]);
        }
    }
    if (rc < 0 && cli_store(&s, &e) < 0) {
        rc = cli_error("%s", e.msg);
    }
    if (rc < 0) {
        rc = change_one(&c, s, first);
        for (int i = 0; i < n_names; i++) {
            rc |= change_one(&c, s, names[i]);
        }
    }
    if (s) {
        store_close(s);
    }
    return rc;
}

int cmd_label(int argc, char **argv) {
    return set_pairs(argc, argv, "labels", "labeled");
}
int cmd_annotate(int argc, char **argv) {
    return set_pairs(argc, argv, "annotations", "annotated");
}
