/* `margay install`: the plugins, the kubeconfig and the network configuration of a container
 * runtime, in this order, the last one only when the agent can answer. At no moment is there a
 * runtime's folder without a valid configuration: ours is renamed into place, and only then is
 * another CNI's set aside. */
#include "cli/install.h"

#include "base/arena.h"
#include "base/fd.h"
#include "base/vec.h"
#include "cli/cli.h"

#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SETTLE_MS = 100, LOOK_AGAIN_MS = 60000, MAX_FILES = 4096 };

bool install_path(const struct install *in, const char *dir, const char *name, char out[PATH_MAX]) {
    int n = snprintf(out, PATH_MAX, "%s%s%s%s", in->root, dir, name[0] ? "/" : "", name);
    if (n >= PATH_MAX) {
        (void)cli_error("%s%s/%s: the path is too long", in->root, dir, name);
    }
    return n < PATH_MAX;
}

void install_say(const struct install *in, const char *path, const char *did) {
    printf("%s %s%s\n", path, did, in->is_dry ? " (dry run)" : "");
    (void)fflush(stdout);
}

/* ---- where ---- */

static bool is_dir(const struct install *in, const char *dir) {
    char path[PATH_MAX];
    struct stat st;
    return install_path(in, dir, "", path) && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The distributions that keep CNI's files elsewhere; `bins` in order of preference. */
static const struct {
    const char *who, *probe, *net_dir, *bins[3];
} distributions[] = {
    {"k3s",
     "/var/lib/rancher/k3s/agent",
     "/var/lib/rancher/k3s/agent/etc/cni/net.d",
     {"/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/data/current/bin", NULL}},
    {"microk8s",
     "/var/snap/microk8s/current",
     "/var/snap/microk8s/current/args/cni-network",
     {"/var/snap/microk8s/current/opt/cni/bin", NULL}},
    {"k0s", "/var/lib/k0s", "/etc/cni/net.d", {"/opt/cni/bin", NULL}},
    {"kubeadm", "/etc/kubernetes", "/etc/cni/net.d", {"/opt/cni/bin", NULL}},
};

static int add_place(struct install *in, const char *who, const char *net, const char *bin) {
    struct install_place *p = &in->places[in->n_places];
    for (size_t i = 0; i < in->n_places; i++) {
        if (strcmp(in->places[i].net_dir, net) == 0) {
            return 0; /* k0s and kubeadm share theirs */
        }
    }
    if (net[0] != '/' || bin[0] != '/' || strlen(net) >= PATH_MAX || strlen(bin) >= PATH_MAX) {
        return cli_usage(in->command, "folders are absolute paths, found %s and %s", net, bin);
    }
    p->who = who;
    (void)snprintf(p->net_dir, sizeof(p->net_dir), "%s", net);
    (void)snprintf(p->bin_dir, sizeof(p->bin_dir), "%s", bin);
    in->n_places++;
    return 0;
}

int install_find_places(struct install *in, const char *net_dir, const char *bin_dir) {
    if (net_dir || bin_dir) {
        return add_place(in, "named", net_dir ? net_dir : "/etc/cni/net.d",
                         bin_dir ? bin_dir : "/opt/cni/bin");
    }
    for (size_t i = 0; i < ARRAY_LEN(distributions); i++) {
        if (!is_dir(in, distributions[i].probe)) {
            continue;
        }
        const char *const *bin = distributions[i].bins;
        while (bin[1] && !is_dir(in, bin[0])) {
            bin++;
        }
        int r = add_place(in, distributions[i].who, distributions[i].net_dir, bin[0]);
        if (r != 0) {
            return r;
        }
    }
    return in->n_places ? 0 : add_place(in, "default", "/etc/cni/net.d", "/opt/cni/bin");
}

/* ---- other CNIs' files ---- */

bool install_is_conf(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (strcmp(dot, ".conf") == 0 || strcmp(dot, ".conflist") == 0 ||
                   strcmp(dot, ".json") == 0);
}

static void describe(const char *path, char *out, size_t cap) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(INSTALL_CONF_BYTES_MAX + 65536);
    struct arena a = {0};
    struct jnode *doc = NULL;
    if (file_read(-1, path, &b, INSTALL_CONF_BYTES_MAX) < 0 ||
        json_parse(buf_view(&b), &json_limits_default, &a, &doc, NULL) < 0) {
        (void)snprintf(out, cap, "no network configuration that can be read");
    } else {
        const struct jnode *plugins = jnode_getc(doc, "plugins");
        const struct jnode *first = plugins ? plugins->child : doc;
        (void)snprintf(out, cap, "network %.60s, plugin %.60s",
                       arena_cstr(&a, jnode_str(jnode_getc(doc, "name"))),
                       arena_cstr(&a, jnode_str(jnode_getc(first, "type"))));
    }
    arena_fini(&a);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int install_each_foreign(struct install *in, const struct install_place *p,
                         int (*cb)(void *arg, const char *name, const char *what, bool wins),
                         void *arg) {
    char dir[PATH_MAX], path[PATH_MAX], what[160];
    VEC(char *) names = {0};
    int r = 0;
    if (!install_path(in, p->net_dir, "", dir)) {
        return 1;
    }
    DIR *d = opendir(dir);
    if (!d) {
        return errno == ENOENT ? 0 : cli_error("%s: %s", dir, strerror(errno));
    }
    for (struct dirent *e = readdir(d); e && names.n < MAX_FILES; e = readdir(d)) {
        if (install_is_conf(e->d_name) && strcmp(e->d_name, in->conf_name) != 0) {
            char *name = strdup(e->d_name);
            mg_assert(name != NULL);
            vec_push(&names, name);
        }
    }
    (void)closedir(d);
    vec_sort(&names, by_name);
    for (size_t i = 0; i < names.n; i++) {
        if (r == 0 && install_path(in, p->net_dir, names.p[i], path)) {
            describe(path, what, sizeof(what));
            r = cb(arg, names.p[i], what, strcmp(names.p[i], in->conf_name) < 0);
        }
        free(names.p[i]);
    }
    vec_fini(&names);
    return r;
}

struct foreign {
    struct install *in;
    const struct install_place *p;
};

/* Before anything is written: another CNI's file that wins ends it, unless it may be set aside. */
static int refuse_foreign(void *arg, const char *name, const char *what, bool wins) {
    struct foreign *f = arg;
    if (!wins) {
        if (!f->in->is_quiet) {
            printf("%s/%s stays (%s): it comes after ours\n", f->p->net_dir, name, what);
        }
        return 0;
    }
    return f->in->takes_over
               ? 0
               : cli_error("%s/%s (%s) comes before %s, so the runtime would go on using it: "
                           "remove that CNI first, or give --takeover to set its file aside as "
                           "%s" INSTALL_ASIDE,
                           f->p->net_dir, name, what, f->in->conf_name, name);
}

static int set_aside(void *arg, const char *name, const char *what MG_UNUSED, bool wins) {
    struct foreign *f = arg;
    char from[PATH_MAX], to[PATH_MAX + 16];
    if (!wins || !f->in->takes_over || !install_path(f->in, f->p->net_dir, name, from)) {
        return 0;
    }
    (void)snprintf(to, sizeof(to), "%s" INSTALL_ASIDE, from);
    if (!f->in->is_dry && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) < 0) {
        return cli_error("setting %s aside as %s: %s%s", from, to, strerror(errno),
                         errno == EEXIST ? ": remove the older one" : "");
    }
    f->in->has_changed = true;
    install_say(f->in, from, "set aside");
    return 0;
}

/* ---- the whole ---- */

static int64_t now_ms(void) {
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* A configuration that names an agent that can't answer yet would make pods fail. */
static int wait_for_agent(struct install *in, int64_t timeout_ms) {
    int64_t end = now_ms() + timeout_ms;
    for (;;) {
        struct arena a = {0};
        struct jnode *q = NULL;
        struct err e = {0};
        int r = cli_ask(STR("{\"op\":\"status\"}"), 5, &a, &q, &e);
        bool is_up = r == 0 && !str_is(jnode_str(jnode_getc(q, "health")), "down");
        arena_fini(&a);
        if (is_up) {
            return 0;
        }
        if (now_ms() >= end) {
            return cli_error("the agent is not ready (%s), so %s was not written: start it "
                             "(margay node), or give --wait 0 to write it all the same",
                             r < 0 ? e.msg : "its health is down", in->conf_name);
        }
        (void)poll(NULL, 0, 100);
    }
}

static int install_place(struct install *in, const struct install_place *p, int64_t wait_ms) {
    struct foreign f = {in, p};
    bool has_kubeconfig = false;
    int r = install_programs(in, p);
    r = r ? r : install_kubeconfig(in, p, &has_kubeconfig);
    r = r ? r : !wait_ms || in->is_dry ? 0 : wait_for_agent(in, wait_ms);
    r = r ? r : install_conflist(in, p, has_kubeconfig);
    return r ? r : install_each_foreign(in, p, set_aside, &f);
}

static int install_all(struct install *in, int64_t wait_ms) {
    for (size_t i = 0; i < in->n_places; i++) {
        struct foreign f = {in, &in->places[i]};
        int r = install_each_foreign(in, &in->places[i], refuse_foreign, &f);
        if (r != 0) {
            return r;
        }
    }
    for (size_t i = 0; i < in->n_places; i++) {
        if (!in->is_quiet) {
            printf("%s: %s and %s\n", in->places[i].who, in->places[i].net_dir,
                   in->places[i].bin_dir);
        }
        int r = install_place(in, &in->places[i], wait_ms);
        if (r != 0) {
            return r;
        }
    }
    return 0;
}

static volatile sig_atomic_t must_end;
static void on_signal(int sig MG_UNUSED) {
    must_end = 1;
}

/* Stays: the token is renewed by the kubelet every hour or so, and files may be lost. */
static int watch(struct install *in) {
    struct sigaction sa = {.sa_handler = on_signal};
    sigset_t blocked, old;
    MG_CLEANUP(fd_close) int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    char dir[PATH_MAX];
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGTERM);
    (void)sigaddset(&blocked, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &blocked, &old);
    (void)sigaction(SIGTERM, &sa, NULL);
    (void)sigaction(SIGINT, &sa, NULL);
    const uint32_t events =
        IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CLOSE_WRITE | IN_ATTRIB;
    in->is_quiet = true;
    printf("watching\n");
    (void)fflush(stdout);
    while (!must_end) {
        /* Added again each time: a folder may have been made anew. */
        (void)inotify_add_watch(fd, in->token_dir, events);
        for (size_t i = 0; i < in->n_places; i++) {
            if (install_path(in, in->places[i].net_dir, "", dir)) {
                (void)inotify_add_watch(fd, dir, events);
            }
        }
        (void)install_all(in, 0); /* said why; tried again */
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        const struct timespec t = {LOOK_AGAIN_MS / 1000, 0}, settle = {0, SETTLE_MS * 1000000L};
        if (ppoll(&pfd, 1, &t, &old) > 0) {
            char drain[16384];
            (void)ppoll(NULL, 0, &settle, &old); /* several files change together */
            while (read(fd, drain, sizeof(drain)) > 0) {
            }
        }
    }
    return 0;
}

static char *read_template(const char *path) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(INSTALL_CONF_BYTES_MAX + 65536);
    int r = file_read(-1, path, &b, INSTALL_CONF_BYTES_MAX);
    if (r < 0) {
        (void)cli_error("%s: %s", path, r == ERR_TOO_BIG ? "longer than 1 MiB" : strerror(-r));
        return NULL;
    }
    char *text = strdup(buf_cstr(&b));
    mg_assert(text != NULL);
    return text;
}

static const char *env(const char *name) {
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

static int wrong_name(const char *what, const char *name) {
    return cli_usage("install", "%s %s: expected a file's name without '/'", what, name);
}

int cmd_install(int argc, char **argv) {
    enum {
        O_DRY = 256,
        O_TAKE,
        O_WATCH,
        O_ROOT,
        O_NET,
        O_BIN,
        O_FROM,
        O_CONF,
        O_WAIT,
        O_PORTS,
        O_TOKEN
    };
    static const struct option longs[] = {
        {"dry-run", no_argument, NULL, O_DRY},
        {"takeover", no_argument, NULL, O_TAKE},
        {"watch", no_argument, NULL, O_WATCH},
        {"root", required_argument, NULL, O_ROOT},
        {"cni-net-dir", required_argument, NULL, O_NET},
        {"cni-bin-dir", required_argument, NULL, O_BIN},
        {"from", required_argument, NULL, O_FROM},
        {"network-config", required_argument, NULL, O_CONF},
        {"wait", required_argument, NULL, O_WAIT},
        {"port-mappings", required_argument, NULL, O_PORTS},
        {"token-dir", required_argument, NULL, O_TOKEN},
        {NULL, 0, NULL, 0},
    };
    const char *name = env("CNI_CONF_NAME"), *kubeconfig = env("KUBECONFIG_FILE_NAME");
    const char *conf = env("CNI_NETWORK_CONFIG_FILE");
    const char *net = env("CNI_NET_DIR"), *bin = env("CNI_BIN_DIR");
    struct install in = {.command = "install",
                         .root = "",
                         .conf_name = name ? name : INSTALL_CONF_NAME,
                         .kubeconfig_name = kubeconfig ? kubeconfig : INSTALL_KUBECONFIG_NAME,
                         .network_config = env("CNI_NETWORK_CONFIG"),
                         .token_dir = KUBECONFIG_TOKEN_DIR};
    bool is_watch = false;
    uint64_t wait_s = 60;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case O_DRY:
            in.is_dry = true;
            break;
        case O_TAKE:
            in.takes_over = true;
            break;
        case O_WATCH:
            is_watch = true;
            break;
        case O_ROOT:
            in.root = strcmp(optarg, "/") == 0 ? "" : optarg;
            break;
        case O_NET:
            net = optarg;
            break;
        case O_BIN:
            bin = optarg;
            break;
        case O_FROM:
            in.from = optarg;
            break;
        case O_CONF:
            conf = optarg;
            break;
        case O_TOKEN:
            in.token_dir = optarg;
            break;
        case O_PORTS:
            in.port_mappings = optarg;
            if (strcmp(optarg, "own") != 0 && strcmp(optarg, "chained") != 0) {
                return cli_usage("install", "--port-mappings %s: expected own or chained", optarg);
            }
            break;
        case O_WAIT:
            if (str_to_u64(str_c(optarg), &wait_s) < 0 || wait_s > 86400) {
                return cli_usage("install", "--wait %s: expected seconds, up to 86400", optarg);
            }
            break;
        default:
            return cli_usage("install", "wrong option");
        }
    }
    if (optind < argc) {
        return cli_usage("install", "found \"%s\", expected options only", argv[optind]);
    }
    if (strchr(in.conf_name, '/') || !install_is_conf(in.conf_name)) {
        return cli_usage("install", "CNI_CONF_NAME %s: expected a name ending in .conflist",
                         in.conf_name);
    }
    if (strchr(in.kubeconfig_name, '/') || install_is_conf(in.kubeconfig_name)) {
        return wrong_name("KUBECONFIG_FILE_NAME", in.kubeconfig_name);
    }
    char *template = conf ? read_template(conf) : NULL;
    if (conf && !template) {
        return 1;
    }
    in.network_config = template ? template : in.network_config;
    (void)umask(022);
    int r = install_find_places(&in, net, bin);
    r = r ? r : install_all(&in, (int64_t)wait_s * 1000);
    if (r == 0 && is_watch && !in.is_dry) {
        r = watch(&in);
    }
    free(template);
    return r;
}
