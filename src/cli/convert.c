/* convert: Kubernetes' objects of files as the Calico resources that they amount to, as
 * `calicoctl convert`; Calico's own pass through with their defaults filled in. */
#include "cli/cli.h"

#include "base/vec.h"
#include "controllers/convert.h"

#include <getopt.h>
#include <stdio.h>

struct converting {
    struct jnode *list; /* converted documents */
    struct arena *a;
    int failed;
};

static struct jnode *resource(struct arena *a, const struct kind *k, struct str ns, struct str name,
                              struct jnode *spec) {
    struct jnode *doc = jnode_new(a, J_MAP), *m = jnode_new(a, J_MAP);
    jnode_set(a, doc, STR("apiVersion"), jnode_new_str(a, STR("projectcalico.org/v3")));
    jnode_set(a, doc, STR("kind"), jnode_new_str(a, str_c(k->kind)));
    jnode_set(a, m, STR("name"), jnode_new_str(a, name));
    if (ns.n) {
        jnode_set(a, m, STR("namespace"), jnode_new_str(a, ns));
    }
    jnode_set(a, doc, STR("metadata"), m);
    jnode_set(a, doc, STR("spec"), spec);
    return doc;
}

/* NULL with problem: it can't be said in Calico's words. */
static struct jnode *converted(const struct object *o, struct arena *a, struct err *problem) {
    struct jnode *spec;
    struct str name;
    switch ((int)o->kind->id) {
    case K_K8S_NETWORK_POLICY:
        spec = convert_policy(o->doc, a, problem);
        name = arena_printf(a, CONVERT_POLICY_PREFIX "%.*s", STR_FMT(o->meta.name));
        return spec ? resource(a, &model_kinds[K_NETWORK_POLICY], o->meta.ns, name, spec) : NULL;
    case K_NAMESPACE:
        name = arena_printf(a, CONVERT_NAMESPACE_PREFIX "%.*s", STR_FMT(o->meta.name));
        return resource(a, &model_kinds[K_PROFILE], STR(""), name, convert_namespace(o->doc, a));
    case K_SERVICE_ACCOUNT:
        name = arena_printf(a, CONVERT_ACCOUNT_PREFIX "%.*s.%.*s", STR_FMT(o->meta.ns),
                            STR_FMT(o->meta.name));
        return resource(a, &model_kinds[K_PROFILE], STR(""), name, convert_account(o->doc, a));
    default:
        break;
    }
    if (str_is(str_c(o->kind->group), "projectcalico.org")) {
        return o->doc;
    }
    (void)err_set(
        problem, ERR_INVALID,
        "has no form of its own in Calico: NetworkPolicy, Namespace and ServiceAccount have");
    return NULL;
}

static int on_doc(void *arg, struct jnode *doc, const char *file) {
    struct converting *x = arg;
    struct object o;
    struct err problem = {0};
    if (cli_check(doc, file, STR_NULL, x->a, &o) < 0) {
        return x->failed = 1;
    }
    struct jnode *out = converted(&o, x->a, &problem);
    if (problem.code) {
        fprintf(stderr, "%s:%u: %s/%.*s: %s\n", file, doc->line, o.kind->kind, STR_FMT(o.meta.name),
                problem.msg);
        x->failed = 1;
    }
    if (out) {
        jnode_append(x->list, jnode_copy(x->a, out));
    }
    return 0;
}

int cmd_convert(int argc, char **argv) {
    static const struct option longs[] = {
        {"filename", required_argument, NULL, 'f'},
        {"recursive", no_argument, NULL, 'R'},
        {"output", required_argument, NULL, 'o'},
        {NULL, 0, NULL, 0},
    };
    struct cli_output out = {.format = OUT_YAML};
    struct arena a = {0};
    struct converting x = {.list = jnode_new(&a, J_LIST), .a = &a};
    VEC(char *) files = {0};
    bool recursive = false;
    int rc = -1;
    optind = 1;
    for (int c; rc < 0 && (c = getopt_long(argc, argv, "f:Ro:", longs, NULL)) != -1;) {
        if (c == 'f') {
            vec_push(&files, optarg);
        } else if (c == 'R') {
            recursive = true;
        } else if (c != 'o' || !cli_output_parse(optarg, "convert", &out) ||
                   (out.format != OUT_YAML && out.format != OUT_JSON)) {
            rc = cli_usage("convert", "options are -f FILE, -R, -o yaml|json");
        }
    }
    if (rc < 0 && (files.n == 0 || optind < argc)) {
        rc = cli_usage("convert", "give files with -f FILE, -f DIR, or -f - for standard input");
    }
    if (rc < 0) {
        rc = cli_each_document(files.p, files.n, recursive, &a, on_doc, &x) || x.failed;
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64 << 20);
        jnode_each (doc, x.list) {
            if (out.format == OUT_YAML) {
                buf_puts(&b, "---\n");
                yaml_write(&b, doc);
            } else {
                json_write(&b, doc, 4);
                buf_putc(&b, '\n');
            }
        }
        printf("%.*s", STR_FMT(buf_view(&b)));
    }
    vec_fini(&files);
    arena_fini(&a);
    return rc;
}
