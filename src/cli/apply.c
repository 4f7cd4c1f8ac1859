/* apply, create, replace, delete: whole objects in and out of the store. */
#include "cli/cli.h"

#include "base/vec.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum verb { VERB_APPLY, VERB_CREATE, VERB_REPLACE, VERB_DELETE };

struct job {
    enum verb verb;
    const char *name;
    struct store *s; /* NULL: --dry-run=client */
    struct str ns;   /* p NULL: not given */
    bool ignore_not_found;
    size_t n_done, n_docs;
};

static void say(const struct job *j, const struct kind *k, struct str name, const char *what) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    kind_print_ref(k, name, &b);
    printf("%.*s %s%s\n", STR_FMT(buf_view(&b)), what, j->s ? "" : " (dry run)");
}

/* A document's resourceVersion is a condition: it must still be so. */
static int expectation(const struct jnode *doc, uint64_t *out, struct err *e) {
    struct str v = jnode_str(jnode_path(doc, "metadata.resourceVersion"));
    *out = REV_ANY;
    if (v.n && str_to_u64(v, out) < 0) {
        return err_set(e, ERR_INVALID,
                       "metadata.resourceVersion: found \"%.*s\", allowed is the "
                       "number that 'get -o yaml' shows",
                       STR_FMT(v));
    }
    return 0;
}

static int write_object(struct job *j, const struct object *o, struct arena *a, const char **what,
                        struct err *e) {
    struct cli_object old;
    uint64_t expect;
    int r = expectation(o->doc, &expect, e);
    if (r < 0) {
        return r;
    }
    for (int i = 0; i < 10; i++) { /* somebody else may write at the same time */
        r = cli_get(j->s, o->kind, o->meta.ns, o->meta.name, a, &old, e);
        bool exists = r == 0;
        if (r < 0 && r != ERR_NOT_FOUND) {
            return r;
        }
        if (j->verb == VERB_REPLACE && !exists) {
            return r;
        }
        if (j->verb == VERB_CREATE || !exists) {
            *what = "created";
            return cli_put(j->s, o->kind, o->meta.ns, o->meta.name, o->doc, NULL, REV_NONE, a, e);
        }
        *what = j->verb == VERB_REPLACE ? "replaced" : "configured";
        if (j->verb == VERB_APPLY && object_same(old.doc, o->doc) &&
            (expect == REV_ANY || expect == old.revision)) {
            *what = "unchanged";
            return 0;
        }
        struct jnode *copy = jnode_copy(a, o->doc);
        r = cli_put(j->s, o->kind, o->meta.ns, o->meta.name, copy, &old,
                    expect == REV_ANY ? old.revision : expect, a, e);
        if (r != ERR_CONFLICT || expect != REV_ANY) {
            return r;
        }
    }
    return r;
}

static int where_error(const char *file, const struct jnode *doc, const struct err *e) {
    fprintf(stderr, "%s:%u: %s\n", file, doc->line, e->msg);
    return 1;
}

static int delete_doc(struct job *j, const struct object *o, const char *file) {
    struct err e;
    int r = cli_delete(j->s, o->kind, o->meta.ns, o->meta.name, REV_ANY, &e);
    if (r == ERR_NOT_FOUND && j->ignore_not_found) {
        return 0;
    }
    if (r < 0) {
        return where_error(file, o->doc, &e);
    }
    say(j, o->kind, o->meta.name, "deleted");
    j->n_done++;
    return 0;
}

static int on_doc(void *arg, struct jnode *doc, const char *file) {
    struct job *j = arg;
    struct arena a = {0};
    struct object o;
    j->n_docs++;
    struct str doc_ns = jnode_str(jnode_path(doc, "metadata.namespace"));
    if (j->ns.p && doc_ns.n && !str_eq(j->ns, doc_ns)) {
        fprintf(stderr,
                "%s:%u: metadata.namespace: found \"%.*s\", but --namespace says \"%.*s\"\n", file,
                doc->line, STR_FMT(doc_ns), STR_FMT(j->ns));
        return 1;
    }
    int r;
    if (j->verb == VERB_DELETE) { /* what is deleted need not be valid */
        struct model_errors errs = {.a = &a};
        o = (struct object){.doc = doc};
        r = object_read(doc, MODEL_STORE, j->ns, &a, &o, &errs);
        r = o.kind && o.meta.name.n ? 0 : cli_check(doc, file, j->ns, &a, &o);
        r = r == 0 ? delete_doc(j, &o, file) : 1;
        arena_fini(&a);
        return r;
    }
    r = cli_check(doc, file, j->ns, &a, &o);
    if (r == 0 && !j->s) {
        say(j, o.kind, o.meta.name, j->verb == VERB_REPLACE ? "replaced" : "created");
    } else if (r == 0) {
        struct err e;
        const char *what = "";
        r = write_object(j, &o, &a, &what, &e);
        if (r == 0) {
            say(j, o.kind, o.meta.name, what);
            j->n_done++;
        } else {
            where_error(file, doc, &e);
        }
    }
    arena_fini(&a);
    return r < 0;
}

/* delete KIND NAME… */
static int delete_named(struct job *j, int argc, char **argv) {
    const struct kind *k = NULL;
    int first = 0, failed = 0;
    char *slash = strchr(argv[0], '/');
    if (!slash) {
        k = cli_kind(argv[0]);
        first = 1;
        if (!k) {
            return 1;
        }
        if (argc < 2) {
            return cli_usage(j->name, "which %s? Give names, or -f FILE", k->plural);
        }
    }
    for (int i = first; i < argc; i++) {
        const struct kind *ki = k;
        const char *name = argv[i];
        if (!ki) { /* KIND/NAME */
            slash = strchr(argv[i], '/');
            if (!slash) {
                return cli_usage(j->name, "\"%s\": expected KIND/NAME", argv[i]);
            }
            *slash = 0;
            ki = cli_kind(argv[i]);
            name = slash + 1;
        }
        if (!ki) {
            failed = 1;
            continue;
        }
        struct err e;
        struct str ns = ki->is_namespaced ? (j->ns.p ? j->ns : STR("default")) : STR("");
        int r = cli_delete(j->s, ki, ns, str_c(name), REV_ANY, &e);
        if (r == 0) {
            say(j, ki, str_c(name), "deleted");
        } else if (r != ERR_NOT_FOUND || !j->ignore_not_found) {
            failed = cli_error("%s", e.msg);
        }
    }
    return failed;
}

static int run(enum verb verb, int argc, char **argv) {
    enum { O_DRY = 256, O_IGNORE, O_SERVER };
    static const struct option longs[] = {
        {"filename", required_argument, NULL, 'f'},
        {"recursive", no_argument, NULL, 'R'},
        {"namespace", required_argument, NULL, 'n'},
        {"dry-run", optional_argument, NULL, O_DRY},
        {"ignore-not-found", no_argument, NULL, O_IGNORE},
        {"skip-not-exists", no_argument, NULL, O_IGNORE},
        {"server-side", no_argument, NULL, O_SERVER},
        {NULL, 0, NULL, 0},
    };
    struct job j = {.verb = verb, .name = argv[0]};
    VEC(char *) files = {0};
    bool recursive = false, dry = false;
    int rc = -1;
    optind = 1;
    for (int c; rc < 0 && (c = getopt_long(argc, argv, "f:Rn:", longs, NULL)) != -1;) {
        switch (c) {
        case 'f':
            vec_push(&files, optarg);
            break;
        case 'R':
            recursive = true;
            break;
        case 'n':
            j.ns = str_c(optarg);
            break;
        case O_DRY:
            if (!optarg || strcmp(optarg, "client") != 0) {
                rc = cli_usage(argv[0], "--dry-run: only --dry-run=client is known; 'margay "
                                        "simulate' will show what a change does");
            }
            dry = true;
            break;
        case O_IGNORE:
            j.ignore_not_found = true;
            break;
        case O_SERVER:
            rc = cli_usage(argv[0],
                           "--server-side: field ownership is not kept; leave the flag out");
            break;
        default:
            rc = cli_usage(argv[0], "wrong option");
        }
    }
    bool by_name = verb == VERB_DELETE && optind < argc;
    if (rc < 0 && files.n == 0 && !by_name) {
        rc = cli_usage(argv[0], "give files with -f FILE, -f DIR, or -f - for standard input");
    }
    if (rc < 0 && !by_name && optind < argc) {
        rc = cli_usage(argv[0], "found argument \"%s\"; files are given with -f", argv[optind]);
    }
    struct err e;
    if (rc < 0 && !dry && cli_store(&j.s, &e) < 0) {
        rc = cli_error("%s", e.msg);
    }
    if (rc < 0) {
        struct arena a = {0};
        if (by_name) {
            rc = delete_named(&j, argc - optind, argv + optind);
        } else {
            rc = cli_each_document(files.p, files.n, recursive, &a, on_doc, &j);
            if (rc == 0 && j.n_docs == 0) {
                rc = cli_error("no objects found in the files given");
            }
        }
        arena_fini(&a);
    }
    store_close(j.s);
    vec_fini(&files);
    return rc;
}

int cmd_apply(int argc, char **argv) {
    return run(VERB_APPLY, argc, argv);
}
int cmd_create(int argc, char **argv) {
    return run(VERB_CREATE, argc, argv);
}
int cmd_replace(int argc, char **argv) {
    return run(VERB_REPLACE, argc, argv);
}
int cmd_delete(int argc, char **argv) {
    return run(VERB_DELETE, argc, argv);
}
