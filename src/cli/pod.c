/* pod add, exec, del, list: pods for people without a runtime. They go the same way as a runtime's:
 * a network namespace, then margay-cni. What we made is noted in annotations of the Pod object. */
#include "base/fd.h"
#include "base/hash.h"
#include "base/vec.h"
#include "cli/cli.h"
#include "cli/netns.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOTE_NETNS "margay.io/netns"
#define NOTE_CONTAINER "margay.io/container-id"
#define NOTE_MADE "margay.io/made-netns"
#define NOTE_BIN "margay.io/cni-bin"

enum { CNI_OUTPUT_MAX = 1 << 20 };

struct pod_call {
    struct store *s;
    struct str ns, name;
    const char *netns;   /* path or name; NULL: to be made */
    const char *cni_bin; /* folder */
    char made[256];      /* name of the namespace that we made */
    char container[65];
    char **labels;
    size_t n_labels;
    char **ports;
    size_t n_ports;
    const char *service_account;
    bool want_v4, want_v6;
};

/* NS/NAME, or NAME in namespace default. */
static int split(char *arg, struct pod_call *p) {
    char *slash = strchr(arg, '/');
    p->ns = slash ? str_n(arg, (size_t)(slash - arg)) : STR("default");
    p->name = str_c(slash ? slash + 1 : arg);
    if (p->ns.n == 0 || p->name.n == 0 || strchr(p->name.p, '/')) {
        return cli_usage("pod", "\"%s\": expected NAMESPACE/NAME", arg);
    }
    return 0;
}

/* ---- the plugin ---- */

static const char *plugin_path(const struct pod_call *p) {
    static char path[PATH_MAX];
    char self[PATH_MAX - 16];
    if (p->cni_bin) {
        snprintf(path, sizeof(path), "%s/margay-cni", p->cni_bin);
        return path;
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = 0;
        char *slash = strrchr(self, '/');
        *slash = 0;
        snprintf(path, sizeof(path), "%s/margay-cni", self);
        if (access(path, X_OK) == 0) {
            return path;
        }
    }
    return "/opt/cni/bin/margay-cni";
}

static void plugin_conf(const struct pod_call *p, struct buf *b) {
    buf_puts(b, "{\"cniVersion\":\"1.0.0\",\"name\":\"k8s-pod-network\",\"type\":\"margay-cni\","
                "\"policy\":{\"type\":\"k8s\"},\"socket\":");
    json_quote(b, str_c(cli_socket()));
    buf_puts(b, ",\"state_dir\":");
    json_quote(b, str_c(cli_state_dir()));
    buf_printf(
        b, ",\"ipam\":{\"type\":\"margay-ipam\",\"assign_ipv4\":\"%s\",\"assign_ipv6\":\"%s\"}}",
        p->want_v4 || !p->want_v6 ? "true" : "false", p->want_v6 ? "true" : "false");
}

/* Runs the plugin; its stdout is appended. Returns its exit code, or negative. */
static int run_plugin(const struct pod_call *p, const char *command, const char *netns,
                      struct buf *out, struct err *e) {
    int in[2], back[2];
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(back, O_CLOEXEC) < 0) {
        return err_set(e, -errno, "pipe: %s", strerror(errno));
    }
    MG_CLEANUP(buf_fini) struct buf conf = BUF_INIT(65536), env = BUF_INIT(65536);
    plugin_conf(p, &conf);
    buf_printf(&env,
               "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%.*s;K8S_POD_NAME=%.*s;"
               "K8S_POD_INFRA_CONTAINER_ID=%s",
               STR_FMT(p->ns), STR_FMT(p->name), p->container);
    char cmd[64], id[96], ns[PATH_MAX + 16];
    snprintf(cmd, sizeof(cmd), "CNI_COMMAND=%s", command);
    snprintf(id, sizeof(id), "CNI_CONTAINERID=%s", p->container);
    snprintf(ns, sizeof(ns), "CNI_NETNS=%s", netns);
    char *const argv[] = {(char *)(uintptr_t) "margay-cni", NULL};
    char *const envp[] = {cmd,
                          id,
                          ns,
                          (char *)(uintptr_t) "CNI_IFNAME=eth0",
                          (char *)(uintptr_t) "CNI_PATH=/opt/cni/bin:/usr/lib/cni",
                          (char *)(uintptr_t)buf_cstr(&env),
                          NULL};
    const char *path = plugin_path(p);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(back[1], STDOUT_FILENO);
        execve(path, argv, envp);
        _exit(127);
    }
    close(in[0]);
    close(back[1]);
    (void)!write(in[1], conf.p, conf.n); /* the plugin says it if it got too little */
    close(in[1]);
    buf_fini(&env);
    for (;;) {
        char *q = buf_reserve(out, 4096);
        ssize_t n = q ? read(back[0], q, 4096) : 0;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        out->n += (size_t)n;
    }
    close(back[0]);
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) == 127) {
        return err_set(e, -ENOEXEC,
                       "%s can't be run: install it, or name its folder with --cni-bin", path);
    }
    return WEXITSTATUS(status);
}

/* The plugin's own error in an err. */
static int plugin_error(struct str text, struct err *e) {
    struct arena a = {0};
    struct jnode *q = NULL;
    int r = json_parse(text, &json_limits_default, &a, &q, e);
    if (r == 0) {
        struct str m = jnode_str(jnode_getc(q, "msg")), d = jnode_str(jnode_getc(q, "details"));
        err_set(e, -EIO, "%.*s%s%.*s", STR_FMT(m), d.n ? ": " : "", STR_FMT(d));
    }
    arena_fini(&a);
    return -EIO;
}

/* ---- objects ---- */

static void set_str(struct arena *a, struct jnode *m, const char *key, struct str v) {
    jnode_set(a, m, str_c(key), jnode_new_str(a, v));
}

static int ensure_namespace(struct pod_call *p, struct err *e) {
    const struct kind *k = &model_kinds[K_NAMESPACE];
    struct arena a = {0};
    struct cli_object o;
    int r = cli_get(p->s, k, STR(""), p->ns, &a, &o, e);
    if (r == ERR_NOT_FOUND) {
        struct jnode *doc = jnode_new(&a, J_MAP), *m = jnode_new(&a, J_MAP);
        set_str(&a, doc, "apiVersion", STR("v1"));
        set_str(&a, doc, "kind", STR("Namespace"));
        set_str(&a, m, "name", p->ns);
        jnode_set(&a, doc, STR("metadata"), m);
        r = cli_put(p->s, k, STR(""), p->ns, doc, NULL, REV_NONE, &a, e);
        if (r == 0) {
            printf("namespace/%.*s created\n", STR_FMT(p->ns));
        }
        r = r == ERR_EXISTS ? 0 : r;
    }
    arena_fini(&a);
    return r;
}

static int add_labels(struct pod_call *p, struct jnode *m, struct arena *a) {
    struct jnode *l = jnode_new(a, J_MAP);
    for (size_t i = 0; i < p->n_labels; i++) {
        for (struct str rest = str_c(p->labels[i]); rest.p;) {
            struct str one = str_cut(&rest, ',');
            ptrdiff_t eq = str_find(one, '=', 0);
            if (eq <= 0) {
                return cli_usage("pod", "--label %.*s: expected KEY=VALUE", STR_FMT(one));
            }
            jnode_set(a, l, str_sub(one, 0, (size_t)eq),
                      jnode_new_str(a, str_sub(one, (size_t)eq + 1, one.n)));
        }
    }
    if (l->n) {
        jnode_set(a, m, STR("labels"), l);
    }
    return 0;
}

/* name=8080/TCP */
static int add_ports(struct pod_call *p, struct jnode *container, struct arena *a) {
    struct jnode *list = jnode_new(a, J_LIST);
    for (size_t i = 0; i < p->n_ports; i++) {
        struct str t = str_c(p->ports[i]);
        ptrdiff_t eq = str_find(t, '=', 0), slash = str_find(t, '/', 0);
        uint64_t port;
        struct str number = str_sub(t, (size_t)(eq + 1), slash < 0 ? t.n : (size_t)slash);
        if (eq <= 0 || str_to_u64(number, &port) < 0 || port == 0 || port > 65535) {
            return cli_usage("pod", "--port %s: expected NAME=NUMBER or NAME=NUMBER/PROTOCOL",
                             p->ports[i]);
        }
        struct jnode *m = jnode_new(a, J_MAP);
        set_str(a, m, "name", str_sub(t, 0, (size_t)eq));
        jnode_set(a, m, STR("containerPort"), jnode_new_int(a, (int64_t)port));
        set_str(a, m, "protocol", slash < 0 ? STR("TCP") : str_sub(t, (size_t)slash + 1, t.n));
        jnode_append(list, m);
    }
    if (list->n) {
        jnode_set(a, container, STR("ports"), list);
    }
    return 0;
}

static int node_name(struct arena *a, struct str *out, struct err *e) {
    struct jnode *q = NULL;
    int r = cli_ask(STR("{\"op\":\"status\"}"), 10, a, &q, e);
    *out = jnode_str(jnode_getc(q, "node"));
    return r;
}

/* A Pod that was applied before keeps what it says; our notes, and what was asked for, come on top.
 */
static void merge_pod(const struct pod_call *p, struct jnode *old, struct jnode *fresh,
                      struct arena *a) {
    struct jnode *patch = jnode_new(a, J_MAP), *m = jnode_new(a, J_MAP), *s = jnode_new(a, J_MAP);
    const struct jnode *fm = jnode_getc(fresh, "metadata"), *fs = jnode_getc(fresh, "spec");
    jnode_set(a, m, STR("annotations"), jnode_copy(a, jnode_getc(fm, "annotations")));
    if (p->n_labels) {
        jnode_set(a, m, STR("labels"), jnode_copy(a, jnode_getc(fm, "labels")));
    }
    jnode_set(a, s, STR("nodeName"), jnode_copy(a, jnode_getc(fs, "nodeName")));
    if (p->n_ports) {
        jnode_set(a, s, STR("containers"), jnode_copy(a, jnode_getc(fs, "containers")));
    }
    if (p->service_account) {
        set_str(a, s, "serviceAccountName", str_c(p->service_account));
    }
    jnode_set(a, patch, STR("metadata"), m);
    jnode_set(a, patch, STR("spec"), s);
    (void)jnode_merge_patch(a, old, patch); /* a map stays the same map */
}

/* The Pod object: as asked for, and with our notes. 0, or an exit code. */
static int put_pod(struct pod_call *p, const char *netns_note) {
    const struct kind *k = &model_kinds[K_POD];
    struct arena a = {0};
    struct err e;
    struct str node = STR_NULL;
    struct jnode *doc = jnode_new(&a, J_MAP), *m = jnode_new(&a, J_MAP),
                 *notes = jnode_new(&a, J_MAP), *spec = jnode_new(&a, J_MAP),
                 *c = jnode_new(&a, J_MAP), *list = jnode_new(&a, J_LIST);
    set_str(&a, doc, "apiVersion", STR("v1"));
    set_str(&a, doc, "kind", STR("Pod"));
    set_str(&a, m, "name", p->name);
    set_str(&a, m, "namespace", p->ns);
    set_str(&a, notes, NOTE_NETNS, arena_dup(&a, str_c(netns_note)));
    set_str(&a, notes, NOTE_CONTAINER, arena_dup(&a, str_c(p->container)));
    if (p->made[0]) {
        set_str(&a, notes, NOTE_MADE, STR("true"));
    }
    if (p->cni_bin) {
        set_str(&a, notes, NOTE_BIN, str_c(p->cni_bin));
    }
    int rc = add_labels(p, m, &a);
    jnode_set(&a, m, STR("annotations"), notes);
    jnode_set(&a, doc, STR("metadata"), m);
    set_str(&a, c, "name", STR("main"));
    if (rc == 0) {
        rc = add_ports(p, c, &a);
    }
    if (rc == 0 && node_name(&a, &node, &e) < 0) {
        rc = cli_error("%s", e.msg);
    }
    if (rc == 0) {
        set_str(&a, spec, "nodeName", node);
        if (p->service_account) {
            set_str(&a, spec, "serviceAccountName", str_c(p->service_account));
        }
        jnode_append(list, c);
        jnode_set(&a, spec, STR("containers"), list);
        jnode_set(&a, doc, STR("spec"), spec);
        struct object o;
        struct cli_object old;
        if (cli_check(doc, "pod add", p->ns, &a, &o) < 0) {
            rc = 2;
        } else if (cli_get(p->s, k, p->ns, p->name, &a, &old, &e) == 0) {
            struct jnode *old_note = jnode_getc(jnode_path(old.doc, "metadata"), "annotations");
            if (jnode_getc(old_note, NOTE_CONTAINER)) {
                rc = cli_error("pod %.*s/%.*s is there already; remove it with 'margay pod del'",
                               STR_FMT(p->ns), STR_FMT(p->name));
            } else {
                merge_pod(p, old.doc, doc, &a);
                rc = cli_put(p->s, k, p->ns, p->name, old.doc, &(struct cli_object){old.doc, 0},
                             old.revision, &a, &e) < 0
                         ? cli_error("%s", e.msg)
                         : 0;
            }
        } else {
            rc = cli_put(p->s, k, p->ns, p->name, doc, NULL, REV_NONE, &a, &e) < 0
                     ? cli_error("%s", e.msg)
                     : 0;
        }
    }
    arena_fini(&a);
    return rc;
}

static int see_pool(void *arg, const struct store_item *it) {
    struct pod_call *p = arg;
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err e;
    if (json_parse(it->value, &json_limits_default, &a, &doc, &e) == 0) {
        bool v6 = str_find(jnode_str(jnode_path(doc, "spec.cidr")), ':', 0) >= 0;
        p->want_v6 |= v6;
        p->want_v4 |= !v6;
    }
    arena_fini(&a);
    return 0;
}

/* ---- add ---- */

static void print_addresses(struct str result) {
    struct arena a = {0};
    struct jnode *q = NULL;
    struct err e;
    if (json_parse(result, &json_limits_default, &a, &q, &e) == 0) {
        struct jnode *ips = jnode_getc(q, "ips");
        jnode_each (ip, ips) {
            struct str t = jnode_str(jnode_getc(ip, "address"));
            ptrdiff_t slash = str_find(t, '/', 0);
            printf(" %.*s", STR_FMT(slash < 0 ? t : str_sub(t, 0, (size_t)slash)));
        }
    }
    arena_fini(&a);
}

static int add(struct pod_call *p) {
    struct err e;
    uint8_t id[32];
    char uuid[UUID_TEXT];
    uuid_v4(uuid);
    sha256(uuid, strlen(uuid), id);
    hex_encode(id, 32, p->container);
    if (ensure_namespace(p, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    struct arena a = {0};
    struct str prefix = arena_printf(&a, "%s/", kind_store_name(&model_kinds[K_IP_POOL]));
    int r = store_list(p->s, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, NULL, see_pool,
                       p, &e);
    arena_fini(&a);
    if (r < 0) {
        return cli_error("%s", e.msg);
    }
    if (!p->netns) {
        snprintf(p->made, sizeof(p->made), "%.*s-%.*s", (int)(p->ns.n < 63 ? p->ns.n : 63), p->ns.p,
                 (int)(p->name.n < 100 ? p->name.n : 100), p->name.p);
        size_t n = strlen(p->made);
        if (strcmp(cli_state_dir(), "/var/lib/margay") != 0) {
            /* Agents with state dirs of their own may have pods of the same name. */
            snprintf(p->made + n, sizeof(p->made) - n, "-%06llx",
                     (unsigned long long)(hash_fixed(0, cli_state_dir(), strlen(cli_state_dir())) &
                                          0xffffff));
        }
    }
    int rc = put_pod(p, p->netns ? p->netns : p->made);
    if (rc) {
        return rc;
    }
    r = p->netns ? 0 : netns_make(p->made, &e);
    MG_CLEANUP(buf_fini) struct buf out = BUF_INIT(CNI_OUTPUT_MAX);
    if (r == 0) {
        MG_CLEANUP(fd_close) int fd = netns_get(p->netns ? p->netns : p->made, &e);
        char path[64];
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
        r = fd < 0 ? fd : run_plugin(p, "ADD", path, &out, &e);
        if (r > 0) {
            r = plugin_error(buf_view(&out), &e);
        }
        if (r < 0 && !p->netns) {
            struct err ignored; /* the first error counts */
            (void)!netns_remove(p->made, &ignored);
        }
    }
    if (r < 0) {
        struct err ignored;
        (void)!cli_delete(p->s, &model_kinds[K_POD], p->ns, p->name, REV_ANY, &ignored);
        return cli_error("%s", e.msg);
    }
    printf("pod/%.*s added:", STR_FMT(p->name));
    print_addresses(buf_view(&out));
    printf(" in network namespace %s\n", p->netns ? p->netns : p->made);
    return 0;
}

/* ---- exec, del, list ---- */

struct noted {
    struct str netns, container, cni_bin;
    bool is_made;
};

static int read_notes(struct pod_call *p, struct arena *a, struct noted *out, struct err *e) {
    struct cli_object o;
    int r = cli_get(p->s, &model_kinds[K_POD], p->ns, p->name, a, &o, e);
    if (r < 0) {
        return r;
    }
    struct jnode *notes = jnode_getc(jnode_getc(o.doc, "metadata"), "annotations");
    out->netns = jnode_str(jnode_getc(notes, NOTE_NETNS));
    out->container = jnode_str(jnode_getc(notes, NOTE_CONTAINER));
    out->cni_bin = jnode_str(jnode_getc(notes, NOTE_BIN));
    out->is_made = jnode_getc(notes, NOTE_MADE) != NULL;
    if (!out->netns.n) {
        return err_set(e, ERR_NOT_FOUND, "pod %.*s/%.*s was not added by 'margay pod add'",
                       STR_FMT(p->ns), STR_FMT(p->name));
    }
    return 0;
}

static int exec_in(struct pod_call *p, char **argv) {
    struct arena a = {0};
    struct noted n;
    struct err e;
    int r = read_notes(p, &a, &n, &e);
    MG_CLEANUP(fd_close) int fd = r < 0 ? -1 : netns_get(arena_cstr(&a, n.netns), &e);
    if (r < 0 || fd < 0) {
        arena_fini(&a);
        return cli_error("%s", e.msg);
    }
    if (setns(fd, CLONE_NEWNET) < 0) {
        return cli_error("entering the pod's network namespace: %s", strerror(errno));
    }
    store_close(p->s);
    execvp(argv[0], argv);
    cli_error("%s: %s", argv[0], strerror(errno));
    _exit(127);
}

static int del(struct pod_call *p) {
    struct arena a = {0};
    struct noted n;
    struct err e;
    int r = read_notes(p, &a, &n, &e), rc = 0;
    if (r < 0) {
        arena_fini(&a);
        return cli_error("%s", e.msg);
    }
    snprintf(p->container, sizeof(p->container), "%.*s", STR_FMT(n.container));
    if (!p->cni_bin && n.cni_bin.n) {
        p->cni_bin = arena_cstr(&a, n.cni_bin);
    }
    struct err lost; /* a namespace that is gone already is no reason to keep the rest */
    MG_CLEANUP(fd_close) int fd = netns_get(arena_cstr(&a, n.netns), &lost);
    char path[64] = "";
    if (fd >= 0) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
    }
    MG_CLEANUP(buf_fini) struct buf out = BUF_INIT(CNI_OUTPUT_MAX);
    r = run_plugin(p, "DEL", path, &out, &e);
    if (r > 0) {
        r = plugin_error(buf_view(&out), &e);
    }
    if (r == 0 && n.is_made) {
        r = netns_remove(arena_cstr(&a, n.netns), &e);
    }
    if (r == 0) {
        r = cli_delete(p->s, &model_kinds[K_POD], p->ns, p->name, REV_ANY, &e);
    }
    if (r < 0) {
        rc = cli_error("%s", e.msg);
    } else {
        printf("pod/%.*s deleted\n", STR_FMT(p->name));
    }
    arena_fini(&a);
    return rc;
}

struct listing {
    struct arena a;
    VEC(struct str) cells;
};

static int on_wep(void *arg, const struct store_item *it) {
    struct listing *l = arg;
    struct jnode *doc = NULL;
    struct err e;
    struct arena *a = &l->a;
    if (json_parse(arena_dup(a, it->value), &json_limits_default, a, &doc, &e) < 0) {
        return 0;
    }
    MG_CLEANUP(buf_fini) struct buf ips = BUF_INIT(65536);
    struct jnode *nets = jnode_path(doc, "spec.ipNetworks");
    jnode_each (n, nets) {
        struct str t = jnode_str(n);
        ptrdiff_t slash = str_find(t, '/', 0);
        buf_printf(&ips, "%s%.*s", ips.n ? "," : "",
                   STR_FMT(slash < 0 ? t : str_sub(t, 0, (size_t)slash)));
    }
    struct str pod = jnode_str(jnode_path(doc, "spec.pod"));
    struct str id = jnode_str(jnode_path(doc, "spec.containerID"));
    vec_push(&l->cells, jnode_str(jnode_path(doc, "metadata.namespace")));
    vec_push(&l->cells, pod.n ? pod : str_sub(id, 0, id.n < 12 ? id.n : 12));
    vec_push(&l->cells, arena_dup(a, buf_view(&ips)));
    vec_push(&l->cells, jnode_str(jnode_path(doc, "spec.interfaceName")));
    vec_push(&l->cells, jnode_str(jnode_path(doc, "spec.node")));
    return 0;
}

static int list(struct pod_call *p) {
    static const char *const heads[] = {"NAMESPACE", "NAME", "IP", "INTERFACE", "NODE"};
    struct listing l = {.a = {0}};
    struct err e;
    struct str prefix =
        arena_printf(&l.a, "%s/", kind_store_name(&model_kinds[K_WORKLOAD_ENDPOINT]));
    int r = store_list(p->s, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, NULL, on_wep,
                       &l, &e);
    if (r == 0) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64 << 20);
        cli_table(&b, heads, l.cells.p, ARRAY_LEN(heads), l.cells.n / ARRAY_LEN(heads), false);
        printf("%.*s", STR_FMT(buf_view(&b)));
    }
    vec_fini(&l.cells);
    arena_fini(&l.a);
    return r < 0 ? cli_error("%s", e.msg) : 0;
}

int cmd_pod(int argc, char **argv) {
    static const struct option longs[] = {
        {"label", required_argument, NULL, 'l'},
        {"netns", required_argument, NULL, 'N'},
        {"port", required_argument, NULL, 'p'},
        {"service-account", required_argument, NULL, 's'},
        {"cni-bin", required_argument, NULL, 'c'},
        {NULL, 0, NULL, 0},
    };
    struct pod_call p = {.netns = NULL};
    VEC(char *) labels = {0};
    VEC(char *) ports = {0};
    if (argc < 2) {
        return cli_usage("pod", "expected add, exec, del or list");
    }
    const char *what = argv[1];
    int rc = -1;
    optind = 2;
    /* "+": options of exec's command are its own. */
    for (int c; rc < 0 && (c = getopt_long(argc, argv, strcmp(what, "exec") == 0 ? "+l:" : "l:",
                                           longs, NULL)) != -1;) {
        switch (c) {
        case 'l':
            vec_push(&labels, optarg);
            break;
        case 'N':
            p.netns = optarg;
            break;
        case 'p':
            vec_push(&ports, optarg);
            break;
        case 's':
            p.service_account = optarg;
            break;
        case 'c':
            p.cni_bin = optarg;
            break;
        default:
            rc = cli_usage("pod", "wrong option");
        }
    }
    p.labels = labels.p;
    p.n_labels = labels.n;
    p.ports = ports.p;
    p.n_ports = ports.n;
    bool is_list = strcmp(what, "list") == 0;
    if (rc < 0 && !is_list && strcmp(what, "add") != 0 && strcmp(what, "exec") != 0 &&
        strcmp(what, "del") != 0) {
        rc = cli_usage("pod", "found \"%s\", expected add, exec, del or list", what);
    }
    if (rc < 0 && !is_list) {
        rc = optind < argc ? -1 : cli_usage("pod", "which pod? Give NAMESPACE/NAME");
        rc = rc < 0 && split(argv[optind], &p) ? 2 : rc;
    }
    struct err e;
    if (rc < 0 && cli_store(&p.s, &e) < 0) {
        rc = cli_error("%s", e.msg);
    }
    if (rc < 0 && is_list) {
        rc = list(&p);
    } else if (rc < 0 && strcmp(what, "add") == 0) {
        rc = add(&p);
    } else if (rc < 0 && strcmp(what, "del") == 0) {
        rc = del(&p);
    } else if (rc < 0) {
        int first = optind + 1;
        first += first < argc && strcmp(argv[first], "--") == 0;
        rc = first < argc ? exec_in(&p, argv + first)
                          : cli_usage("pod", "exec: which command? Give it after --");
    }
    if (p.s) {
        store_close(p.s);
    }
    vec_fini(&labels);
    vec_fini(&ports);
    return rc;
}
