/* Wires the parts: what the store tells goes to the calculation, at the end of a burst to the
 * kernel; whoever waits for a revision is told when the kernel has it. This file begins and ends.
 */
#include "node/node_int.h"

#include "base/fd.h"

#include "node/defaults.h"
#include "node/sd.h"

#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SPOOL_MS = 5000, INIT_RETRY_MS = 5000, END_MS = 2000 };

static void on_applied(void *arg) {
    node_set_enforced(arg);
}

static void when_enforced(void *arg, struct str key, uint64_t revision, int64_t timeout_ms,
                          void (*cb)(void *cb_arg, int code), void *cb_arg) {
    node_when_enforced(arg, key, revision, timeout_ms, cb, cb_arg);
}

static void set_nat(void *arg, struct str owner, const struct dataplane_nat *v, size_t count) {
    struct node *n = arg;
    dataplane_set_nat(n->dataplane, owner, v, count);
    if (n->in_sync) {
        node_apply(n);
    }
}

/* A kernel that an agent of before has left as it was counts as in place only once it was compared
 * with the store: what has changed meanwhile is not enforced. */
static enum cni_health cni_health(void *arg, char *why, size_t cap) {
    const struct node *n = arg;
    struct dataplane_stats d;
    dataplane_stats(n->dataplane, &d);
    if (!n->in_sync) {
        (void)snprintf(why, cap,
                       "the datastore has not been read yet: policy in the kernel is as "
                       "before the agent's start, or not there");
        return CNI_NO_DATAPATH;
    }
    if (!d.is_applied) {
        (void)snprintf(why, cap, "the kernel did not take the policy: %s", d.last_error);
        return CNI_NO_DATAPATH;
    }
    if (n->lost_ns) {
        (void)snprintf(why, cap, "the datastore is away: %s", n->lost_why);
        return CNI_NO_STORE;
    }
    return CNI_HEALTHY;
}

static void on_cni(void *arg, int fd) {
    cni_server_connection(((struct node *)arg)->cni, fd);
}
static void on_rpc(void *arg, int fd) {
    store_server_connection(((struct node *)arg)->rpc, fd);
}

static void run_spool(void *arg) {
    struct node *n = arg;
    char dir[PATH_MAX];
    if (!n->in_sync || n->lost_ns) {
        return; /* nothing could be carried out */
    }
    snprintf(dir, sizeof(dir), "%s/spool", n->o.state_dir);
    cni_server_tend(n->cni);
    int r = cni_server_spool(n->cni, dir);
    if (r < 0 && r != -ENOENT) {
        static struct log_limit limit;
        if (log_allow(&limit, 1, 60)) {
            LOG_W("cni", "spool", "folder=%s error=%s", dir, strerror(-r));
        }
    }
}

/* ---- what an empty datastore is given ---- */

struct init_job {
    struct node *n;
    struct err e;
};

static void work_init(struct store *s, void *arg) {
    struct init_job *j = arg;
    j->e.code = defaults_make(s, j->n->name, &j->e);
}

static void on_init(void *arg, int code) {
    struct init_job *j = arg;
    struct node *n = j->n;
    if (code == 0) {
        if (j->e.code < 0 && n->init_error.code == 0) {
            LOG_W("store", "not_initialized", "error=%s", log_quote(str_c(j->e.msg)));
        }
        n->init_error = j->e;
        if (j->e.code < 0) {
            loop_timer_start(n->init_timer, INIT_RETRY_MS, 0);
        }
    }
    free(j);
}

static void run_init(void *arg) {
    struct init_job *j = calloc(1, sizeof(*j));
    mg_assert(j != NULL);
    j->n = arg;
    store_worker_run(j->n->worker, work_init, on_init, j);
}

/* ---- start ---- */

/* The store twice, where calls and following must not share a connection. */
static int open_store(struct node *n, struct err *e) {
    char url[PATH_MAX + 512];
    bool is_kube = strncmp(n->o.datastore, "kubernetes:", 11) == 0;
    (void)snprintf(url, sizeof(url), "%s%s%s", n->o.datastore,
                   !is_kube                      ? ""
                   : strchr(n->o.datastore, '?') ? "&node="
                                                 : "?node=",
                   is_kube ? n->name : "");
    int r = store_open(url, &n->store, e);
    if (r == 0 && store_is_quick(n->store)) {
        n->calls = n->store;
    } else if (r == 0) {
        r = store_open(url, &n->calls, e);
    }
    if (r < 0) {
        return r;
    }
    n->worker = store_worker_new(n->loop, n->calls);
    if (store_is_quick(n->store)) {
        return defaults_make(n->store, n->name, e);
    }
    n->init_timer = loop_timer_new(n->loop, run_init, n);
    run_init(n);
    return 0;
}

static int open_parts(struct node *n, struct err *e) {
    static const struct cni_server_ops cni_ops = {when_enforced, set_nat, cni_health};
    static const struct store_server_hooks rpc_hooks = {node_on_op};
    const struct settings *s = &n->settings;
    struct links_settings ls = {.route_proto = s->route_proto,
                                .n_iface_prefixes = s->n_iface_prefixes};
    memcpy(ls.iface_prefixes, s->iface_prefixes, sizeof(ls.iface_prefixes));
    n->links = links_new(n->loop, &ls, e);
    if (!n->links) {
        return e->code;
    }
    struct dataplane_settings ds = node_dataplane_settings(s);
    int r = dataplane_new(n->loop, n->links, &ds, &n->dataplane, e);
    if (r < 0) {
        return r;
    }
    dataplane_on_applied(n->dataplane, on_applied, n);
    n->calc = calc_new(str_c(n->name), &node_calc_ops, n);
    n->ipam = ipam_new(n->calls, str_c(n->name));
    struct cni_server_settings cs = {.node_name = str_c(n->name),
                                     .iface_prefix = s->iface_prefixes[0],
                                     .links = n->links,
                                     .state_dir = n->o.state_dir,
                                     .may_ask_kube = strncmp(n->o.datastore, "etcd:", 5) == 0};
    n->cni = cni_server_new(n->loop, n->calls, n->worker, n->ipam, &cs, &cni_ops, n, e);
    if (!n->cni) {
        return e->code;
    }
    node_watch_mtu(n);
    node_follow_settings(n);
    if (strncmp(n->o.datastore, "sqlite:", 7) == 0) {
        n->autohep = autohep_new(n->loop, n->store, str_c(n->name));
    }
    n->ifaces = iface_watch_new(n->loop, node_on_ifaces, n, e);
    if (!n->ifaces) {
        return e->code;
    }
    if (!store_is_quick(n->store)) {
        struct network_config nc = {.store = n->store,
                                    .worker = n->worker,
                                    .ipam = n->ipam,
                                    .links = n->links,
                                    .node = str_c(n->name),
                                    .is_kubernetes =
                                        strncmp(n->o.datastore, "kubernetes:", 11) == 0,
                                    .settings = &n->settings,
                                    .on_overhead = node_set_mtu,
                                    .arg = n};
        n->network = network_new(n->loop, &nc, e);
        if (!n->network) {
            return e->code;
        }
    }
    n->rpc = store_server_new(n->loop, n->store, n->worker, &rpc_hooks, n);
    bool is_kube = strncmp(n->o.datastore, "kubernetes:", 11) == 0;
    return is_kube ? cnitoken_new(n->loop, n->worker, &n->cnitoken, e) : 0;
}

static int start(struct node *n, struct err *e) {
    static const struct listener_ops listen_ops = {on_cni, on_rpc};
    int r = settings_file(n->o.config_file, &n->file_arena, &n->sources.file, e);
    if (r < 0) {
        return r;
    }
    node_read_settings(n);
    if (mkdir(n->o.state_dir, 0700) < 0 && errno != EEXIST) {
        r = -errno;
        return err_set(e, r, "state folder %s: %s", n->o.state_dir, strerror(-r));
    }
    sysctl_journal(n->o.state_dir);
    r = open_store(n, e);
    if (r == 0) {
        r = open_parts(n, e);
    }
    if (r == 0) {
        r = syncer_start(n->store, n->loop, (struct store_key){STR(STORE_SPACE_RESOURCES), STR("")},
                         &node_sync_ops, n, &n->syncer, e);
    }
    if (r == 0) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/agent.sock", n->o.run_dir);
        r = listener_new(n->loop, path, &listen_ops, n, &n->listener, e);
    }
    if (r < 0) {
        return r;
    }
    n->spool_timer = loop_timer_new(n->loop, run_spool, n);
    loop_timer_start(n->spool_timer, SPOOL_MS, SPOOL_MS);
    node_start_health(n);
    if (n->in_sync) {
        node_ready(n);
    } else {
        sd_notify_state("STATUS=waiting for the datastore");
        LOG_I("node", "waiting", "node=%s store=%s", n->name, n->o.datastore);
    }
    return 0;
}

/* CALICO_NETWORKING_BACKEND=bird: routes between nodes are BGP's, by our own speaker. */
static void start_bgp(struct node *n) {
    char self[PATH_MAX], url[PATH_MAX + 32];
    if (!network_has_bgp()) {
        return;
    }
    /* The embedded store has one owner: the speaker asks us. */
    bool is_embedded = strncmp(n->o.datastore, "sqlite:", 7) == 0;
    (void)snprintf(url, sizeof(url), "agent:%s/agent.sock", n->o.run_dir);
    ssize_t k = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (k < 0) {
        LOG_E("node", "bgp_not_started", "error=%s", strerror(errno));
        return;
    }
    self[k] = '\0';
    const char *const argv[] = {
        self,          "bgp",   "--datastore", is_embedded ? url : n->o.datastore,
        "--node-name", n->name, "--run-dir",   n->o.run_dir,
        NULL};
    n->bgp = supervise_new(n->loop, "bgp", argv);
}

void node_ready(struct node *n) {
    struct err e = {0};
    if (n->is_ready || !n->listener) {
        return;
    }
    n->is_ready = true;
    if (links_sync(n->links, &e) < 0) {
        /* What is wrong with one interface is no reason not to serve the others. */
        LOG_W("links", "start", "error=%s", log_quote(str_c(e.msg)));
    }
    n->ready_ns = clock_ns();
    (void)malloc_trim(0); /* the first reading of everything needs more than what follows */
    LOG_I("node", "ready", "node=%s store=%s took_us=%lld", n->name, n->o.datastore,
          (long long)(n->ready_ns - n->started_ns) / 1000);
    sd_notify_state("READY=1\nSTATUS=in sync");
    if (n->network) {
        network_ready(n->network);
    }
    start_bgp(n);
    run_spool(n);
}

static void end(void *arg) {
    loop_stop(((struct node *)arg)->loop);
}

/* The second one doesn't wait for the cluster to be told. */
static void on_signal(void *arg, int signum) {
    struct node *n = arg;
    LOG_I("node", "stopping", "signal=%d", signum);
    sd_notify_state("STOPPING=1");
    if (!n->network || n->end_timer) {
        end(n);
        return;
    }
    n->end_timer = loop_timer_new(n->loop, end, n);
    loop_timer_start(n->end_timer, END_MS, 0);
    network_down(n->network, end, n);
}

int node_new(const struct node_options *o, struct node **out, struct err *e) {
    struct node *n = calloc(1, sizeof(*n));
    mg_assert(n != NULL);
    n->started_ns = clock_ns();
    n->o = *o;
    n->name = strdup(o->node_name);
    mg_assert(n->name != NULL);
    n->loop = loop_new();
    loop_signal(n->loop, SIGTERM, on_signal, n);
    loop_signal(n->loop, SIGINT, on_signal, n);
    int r = start(n, e);
    if (r < 0) {
        node_free(n);
        return r;
    }
    *out = n;
    return 0;
}

void node_run(struct node *n) {
    loop_run(n->loop);
}

static void free_maps(struct node *n) {
    struct problem *p;
    for (size_t i = 0; problem_map_next(&n->problems, &i, NULL, &p);) {
        free(p->object);
        free(p->reason);
    }
    problem_map_fini(&n->problems);
    struct str key;
    for (size_t i = 0; pool_map_next(&n->pools, &i, &key, NULL);) {
        free((char *)(uintptr_t)key.p);
    }
    pool_map_fini(&n->pools);
}

void node_free(struct node *n) {
    if (!n) {
        return;
    }
    listener_free(n->listener);
    health_free(n->health);
    health_free(n->metrics);
    loop_timer_free(n->spool_timer);
    loop_timer_free(n->init_timer);
    loop_timer_free(n->end_timer);
    store_worker_free(n->worker); /* before all that its jobs look at */
    cnitoken_free(n->cnitoken);
    if (n->cni) {
        mtu_watch_free(n->mtu);
        cni_server_free(n->cni);
    }
    iface_watch_free(n->ifaces);
    supervise_free(n->bgp);
    network_free(n->network);
    vec_fini(&n->own);
    packetlog_free(n->packetlog);
    autohep_free(n->autohep);
    cut_free(n->cut);
    n->cut = NULL;
    node_waiters_free(n);
    store_server_free(n->rpc);
    syncer_free(n->syncer);
    calc_free(n->calc);
    dataplane_free(n->dataplane);
    if (n->links) {
        links_free(n->links);
    }
    if (n->ipam) {
        ipam_free(n->ipam);
    }
    if (n->calls != n->store) {
        store_close(n->calls);
    }
    store_close(n->store);
    settings_fini(&n->settings);
    free_maps(n);
    arena_fini(&n->file_arena);
    arena_fini(&n->felix_arena[0]);
    arena_fini(&n->felix_arena[1]);
    arena_fini(&n->scratch);
    loop_free(n->loop);
    free(n->name);
    free(n);
}
