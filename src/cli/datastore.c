/* datastore export, import, lock, unlock: everything that a store holds as text, and back into any
 * other kind of store; the flag that keeps Calico and Margay from writing meanwhile.
 *
 * The text is a YAML stream of one line of JSON a document: resources as they are, and items of
 * address management as kind StoredItem (space, key, value). */
#include "cli/cli.h"

#include "base/vec.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#define STORED_ITEM "StoredItem"
#define STORED_VERSION "margay.io/v1"
/* One object and its quoting. */
enum { LINE_MAX_BYTES = 3 * (int)STORE_VALUE_MAX };

/* ---- export ---- */

struct exporting {
    FILE *to;
    size_t n_resources, n_items;
    bool failed;
};

static int export_one(void *arg, const struct store_item *it) {
    struct exporting *x = arg;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(LINE_MAX_BYTES);
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err e = {0};
    bool is_resource = str_is(it->space, STORE_SPACE_RESOURCES);
    if (json_parse(it->value, &json_limits_default, &a, &doc, &e) < 0) {
        x->failed = cli_error("%.*s: left out: %s", STR_FMT(it->key), e.msg);
        arena_fini(&a);
        return 0;
    }
    if (is_resource) {
        (void)jnode_del(jnode_getc(doc, "metadata"), STR("resourceVersion"));
        json_write(&b, doc, 0);
        x->n_resources++;
    } else {
        buf_puts(&b,
                 "{\"apiVersion\":\"" STORED_VERSION "\",\"kind\":\"" STORED_ITEM "\",\"space\":");
        json_quote(&b, it->space);
        buf_puts(&b, ",\"key\":");
        json_quote(&b, it->key);
        buf_puts(&b, ",\"value\":");
        json_write(&b, doc, 0);
        buf_putc(&b, '}');
        x->n_items++;
    }
    arena_fini(&a);
    return fprintf(x->to, "---\n%.*s\n", STR_FMT(buf_view(&b))) < 0 ? -errno : 0;
}

static int export_all(struct store *s, struct err *e) {
    static const char *const spaces[] = {STORE_SPACE_RESOURCES, STORE_SPACE_IPAM};
    struct exporting x = {.to = stdout};
    for (size_t i = 0; i < ARRAY_LEN(spaces); i++) {
        uint64_t revision;
        int r = store_list(s, (struct store_key){str_c(spaces[i]), STR("")}, &revision, export_one,
                           &x, e);
        if (r < 0) {
            return r;
        }
    }
    fprintf(stderr, "%zu resources and %zu items of address management exported\n", x.n_resources,
            x.n_items);
    return x.failed;
}

/* ---- import ---- */

struct importing {
    struct store *s;
    bool may_overwrite, is_dry;
    size_t n_created, n_replaced, n_same, n_derived, n_failed;
};

/* Written by a store itself: a cluster's API server has these from Pods, Namespaces and accounts.
 */
static bool is_derived(const struct kind *k, struct str name) {
    return k->id == K_WORKLOAD_ENDPOINT ||
           (k->id == K_PROFILE && (str_starts(name, STR("kns.")) || str_starts(name, STR("ksa."))));
}

/* 0, or negative with e; what says what was done. */
static int import_put(struct importing *m, struct store_key key, const struct jnode *doc,
                      struct arena *a, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(LINE_MAX_BYTES);
    struct store_item old;
    struct jnode *old_doc = NULL;
    json_write(&b, doc, 0);
    int r = store_get(m->s, key, a, &old, e);
    if (r == ERR_NOT_FOUND) {
        m->n_created++;
        return m->is_dry ? 0 : store_put(m->s, key, buf_view(&b), REV_NONE, NULL, e);
    }
    if (r == 0) {
        r = json_parse(old.value, &json_limits_default, a, &old_doc, e);
    }
    if (r < 0) {
        return r;
    }
    if (jnode_eq(old_doc, doc) ||
        (str_is(key.space, STORE_SPACE_RESOURCES) && object_same(old_doc, doc))) {
        m->n_same++;
        return 0;
    }
    if (!m->may_overwrite) {
        return err_set(e, ERR_EXISTS,
                       "is there already and says something else; --overwrite replaces it");
    }
    m->n_replaced++;
    return m->is_dry ? 0 : store_put(m->s, key, buf_view(&b), old.revision, NULL, e);
}

static int import_doc(struct importing *m, struct jnode *doc, struct arena *a, struct err *e) {
    struct str version = jnode_str(jnode_getc(doc, "apiVersion")),
               kind = jnode_str(jnode_getc(doc, "kind"));
    if (str_is(version, STORED_VERSION) && str_is(kind, STORED_ITEM)) {
        struct store_key key = {jnode_str(jnode_getc(doc, "space")),
                                jnode_str(jnode_getc(doc, "key"))};
        const struct jnode *value = jnode_getc(doc, "value");
        if (!str_is(key.space, STORE_SPACE_IPAM) || !key.key.n || !value) {
            return err_set(e, ERR_INVALID, "%s needs space \"%s\", key and value", STORED_ITEM,
                           STORE_SPACE_IPAM);
        }
        return import_put(m, key, value, a, e);
    }
    const struct kind *k = kind_by_type(version, kind);
    struct str name = jnode_str(jnode_path(doc, "metadata.name"));
    struct str ns = jnode_str(jnode_path(doc, "metadata.namespace"));
    if (!k || !name.n) {
        return err_set(e, ERR_INVALID, "apiVersion \"%.*s\", kind \"%.*s\": not known, or no name",
                       STR_FMT(version), STR_FMT(kind));
    }
    struct store_key key = {STR(STORE_SPACE_RESOURCES), kind_store_key(k, ns, name, a)};
    int r = import_put(m, key, doc, a, e);
    if (r == ERR_DENIED && is_derived(k, name)) {
        m->n_created--; /* counted before the store refused */
        m->n_derived++;
        return 0;
    }
    return r;
}

/* A line, without its end, of any length up to the limit. False at the end; *is_long: it was cut.
 */
static bool read_line(FILE *f, struct buf *b, bool *is_long) {
    int c;
    buf_reset(b);
    *is_long = false;
    while ((c = getc(f)) != EOF && c != '\n') {
        if (b->n < LINE_MAX_BYTES) {
            buf_putc(b, (char)c);
        } else {
            *is_long = true;
        }
    }
    return c != EOF || b->n > 0;
}

static int import_stream(struct importing *m, FILE *f, const char *name) {
    MG_CLEANUP(buf_fini) struct buf line = BUF_INIT(LINE_MAX_BYTES + 1);
    size_t n = 0;
    for (bool is_long; read_line(f, &line, &is_long);) {
        struct arena a = {0};
        struct jnode *doc = NULL;
        struct err e = {0};
        n++;
        int r = 0;
        if (is_long) {
            r = err_set(&e, ERR_TOO_BIG, "the line is longer than %d bytes", LINE_MAX_BYTES);
        } else if (line.n && !str_is(buf_view(&line), "---")) {
            r = json_parse(buf_view(&line), &json_limits_default, &a, &doc, &e);
            r = r < 0 ? err_wrap(&e, r, "not a line of 'datastore export'")
                      : import_doc(m, doc, &a, &e);
        }
        if (r < 0) {
            m->n_failed++;
            struct str kind = jnode_str(jnode_getc(doc, "kind"));
            struct str what = jnode_str(jnode_path(doc, "metadata.name"));
            what = what.n ? what : jnode_str(jnode_getc(doc, "key"));
            (void)cli_error("%s:%zu: %.*s %.*s: %s", name, n, STR_FMT(kind), STR_FMT(what), e.msg);
        }
        arena_fini(&a);
    }
    return m->n_failed > 0;
}

static int import_file(struct importing *m, const char *file) {
    bool is_stdin = strcmp(file, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(file, "re");
    if (!f) {
        return cli_error("%s: %s", file, strerror(errno));
    }
    int rc = import_stream(m, f, is_stdin ? "stdin" : file);
    if (ferror(f)) {
        rc = cli_error("%s: %s", file, strerror(errno));
    }
    if (!is_stdin) {
        fclose(f);
    }
    printf(
        "%zu created, %zu replaced, %zu unchanged, %zu kept by the cluster itself, %zu failed%s\n",
        m->n_created, m->n_replaced, m->n_same, m->n_derived, m->n_failed,
        m->is_dry ? " (dry run)" : "");
    return rc;
}

/* ---- the lock ---- */

static int set_ready(struct store *s, bool is_ready, struct err *e) {
    struct arena a = {0};
    struct cli_object old = {0};
    const struct kind *k = &model_kinds[K_CLUSTER_INFORMATION];
    int r = cli_get(s, k, STR(""), STR("default"), &a, &old, e);
    bool is_new = r == ERR_NOT_FOUND;
    if (r == 0 || is_new) {
        struct jnode *doc = is_new ? jnode_new(&a, J_MAP) : jnode_copy(&a, old.doc);
        if (is_new) {
            struct jnode *m = jnode_new(&a, J_MAP);
            jnode_set(&a, doc, STR("apiVersion"), jnode_new_str(&a, STR("projectcalico.org/v3")));
            jnode_set(&a, doc, STR("kind"), jnode_new_str(&a, str_c(k->kind)));
            jnode_set(&a, m, STR("name"), jnode_new_str(&a, STR("default")));
            jnode_set(&a, doc, STR("metadata"), m);
        }
        struct jnode *spec = jnode_getc(doc, "spec");
        if (!spec) {
            spec = jnode_new(&a, J_MAP);
            jnode_set(&a, doc, STR("spec"), spec);
        }
        jnode_set(&a, spec, STR("datastoreReady"), jnode_new_bool(&a, is_ready));
        r = cli_put(s, k, STR(""), STR("default"), doc, is_new ? NULL : &old,
                    is_new ? REV_NONE : old.revision, &a, e);
    }
    arena_fini(&a);
    if (r == 0) {
        puts(is_ready ? "datastore unlocked"
                      : "datastore locked: no pod gets or gives back an "
                        "address until 'margay datastore unlock'");
    }
    return r;
}

/* ---- the command ---- */

int cmd_datastore(int argc, char **argv) {
    static const struct option longs[] = {
        {"filename", required_argument, NULL, 'f'},
        {"overwrite", no_argument, NULL, 'o'},
        {"dry-run", no_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    struct importing m = {0};
    const char *file = NULL;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "f:", longs, NULL)) != -1;) {
        switch (c) {
        case 'f':
            file = optarg;
            break;
        case 'o':
            m.may_overwrite = true;
            break;
        case 'd':
            m.is_dry = true;
            break;
        default:
            return cli_usage("datastore", "wrong option");
        }
    }
    const char *what = optind < argc ? argv[optind++] : "";
    bool is_import = strcmp(what, "import") == 0, is_export = strcmp(what, "export") == 0;
    bool is_lock = strcmp(what, "lock") == 0, is_unlock = strcmp(what, "unlock") == 0;
    if (!is_import && !is_export && !is_lock && !is_unlock) {
        return cli_usage("datastore", "found \"%s\", expected export, import, lock or unlock",
                         what);
    }
    if (optind < argc || (file && !is_import)) {
        return cli_usage("datastore", "found argument \"%s\", expected none",
                         optind < argc ? argv[optind] : "-f");
    }
    if (is_import && !file) {
        return cli_usage("datastore", "import: give the file with -f FILE, or -f -");
    }
    struct err e = {0};
    if (cli_store(&m.s, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    int r = is_export   ? export_all(m.s, &e)
            : is_import ? import_file(&m, file)
                        : set_ready(m.s, is_unlock, &e);
    store_close(m.s);
    return r < 0 ? cli_error("%s", e.msg) : r;
}
