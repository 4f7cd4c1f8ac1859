/* `margay controllers`: options, environment, the stores, and the run. */
#include "controllers/controllers.h"

#include "base/hash.h"
#include "base/log.h"
#include "controllers/engine.h"
#include "store/worker.h"

#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    const char *state_dir, *run_dir, *datastore, *source, *status_file;
};

static const char *env_or(const char *name, const char *deflt) {
    const char *v = getenv(name);
    return v && v[0] ? v : deflt;
}

static const char *real_env(void *arg, const char *name) {
    (void)arg;
    return getenv(name);
}

static bool has_scheme(const char *url, const char *scheme) {
    return strncmp(url, scheme, strlen(scheme)) == 0;
}

/* The datastore: as named, else the agent's of this host if one answers, else its file. */
static int open_target(const struct options *o, char *url, size_t n, struct store **out,
                       struct err *e) {
    const char *state = o->state_dir ? o->state_dir : "/var/lib/margay";
    const char *run = o->run_dir ? o->run_dir : o->state_dir ? o->state_dir : "/run/margay";
    if (o->datastore && !has_scheme(o->datastore, "sqlite:")) {
        snprintf(url, n, "%s", o->datastore);
        return store_open(url, out, e);
    }
    snprintf(url, n, "agent:%s/agent.sock", run);
    int r = store_open(url, out, e);
    if (r != ERR_UNAVAILABLE) {
        return r;
    }
    if (o->datastore) {
        snprintf(url, n, "%s", o->datastore);
    } else {
        snprintf(url, n, "sqlite:%s/margay.db", state);
    }
    return store_open(url, out, e);
}

/* Where Kubernetes' objects are when the datastore has none. */
static const char *source_of(const struct options *o, const char *target) {
    static char url[PATH_MAX + 16];
    if (o->source) {
        return o->source;
    }
    if (!has_scheme(target, "etcd:")) {
        return target;
    }
    snprintf(url, sizeof(url), "kubernetes:%s", env_or("KUBECONFIG", ""));
    return url;
}

/* A second handle for calls, where one is needed. */
static int open_calls(const char *url, struct store *s, struct store **calls, struct err *e) {
    *calls = s;
    return store_is_quick(s) ? 0 : store_open(url, calls, e);
}

struct opened {
    struct engine_stores s;
};

static void close_stores(struct opened *x) {
    struct engine_stores *s = &x->s;
    if (s->source_calls != s->source && s->source_calls != s->target_calls) {
        store_close(s->source_calls);
    }
    if (s->source != s->target) {
        store_close(s->source);
    }
    if (s->target_calls != s->target) {
        store_close(s->target_calls);
    }
    store_close(s->target);
    store_close(s->election);
}

static int open_stores(const struct options *o, struct opened *x, bool *is_kubernetes,
                       bool *is_embedded, struct err *e) {
    char url[PATH_MAX + 256];
    struct engine_stores *s = &x->s;
    int r = open_target(o, url, sizeof(url), &s->target, e);
    r = r == 0 ? open_calls(url, s->target, &s->target_calls, e) : r;
    if (r < 0) {
        return r;
    }
    const char *source = source_of(o, url);
    *is_kubernetes = has_scheme(url, "kubernetes:");
    *is_embedded = store_is_quick(s->target);
    if (strcmp(source, url) == 0) {
        s->source = s->target;
        s->source_calls = s->target_calls;
    } else {
        r = store_open(source, &s->source, e);
        r = r == 0 ? open_calls(source, s->source, &s->source_calls, e) : r;
    }
    /* The election is held where the Kubernetes objects are: every controller sees that. */
    if (r == 0 && (has_scheme(source, "kubernetes:") || has_scheme(source, "etcd:"))) {
        r = store_open(source, &s->election, e);
    }
    return r;
}

static void on_signal(void *arg, int signum) {
    (void)signum;
    loop_stop(arg);
}

static int run(const struct options *o) {
    struct opened x = {{NULL, NULL, NULL, NULL, NULL}};
    struct engine_options eo = {.env = real_env, .has_http = true};
    struct err e = {.code = 0};
    char host[256] = "controllers", uid[UUID_TEXT], identity[512];
    (void)gethostname(host, sizeof(host) - 1);
    uuid_v4(uid);
    snprintf(identity, sizeof(identity), "%s_%s", host, uid);
    struct loop *l = loop_new();
    struct engine *engine = NULL;
    int r = open_stores(o, &x, &eo.is_kubernetes, &eo.is_embedded, &e);
    if (r == 0) {
        eo.stores = x.s;
        eo.identity = str_c(identity);
        eo.status_path = o->status_file;
        r = engine_new(l, &eo, &engine, &e);
    }
    if (r == 0) {
        loop_signal(l, SIGTERM, on_signal, l);
        loop_signal(l, SIGINT, on_signal, l);
        loop_run(l);
    } else {
        fprintf(stderr, "margay controllers: %s\n", e.msg);
    }
    engine_free(engine);
    close_stores(&x);
    loop_free(l);
    return r == 0 ? 0 : 1;
}

int controllers_main(int argc, char **argv) {
    enum { STATE_DIR, RUN_DIR, DATASTORE, SOURCE, STATUS_FILE };
    static const struct option longs[] = {
        [STATE_DIR] = {"state-dir", required_argument, NULL, 0},
        [RUN_DIR] = {"run-dir", required_argument, NULL, 0},
        [DATASTORE] = {"datastore", required_argument, NULL, 0},
        [SOURCE] = {"source", required_argument, NULL, 0},
        [STATUS_FILE] = {"status-file", required_argument, NULL, 0},
        {NULL, 0, NULL, 0},
    };
    struct stat st;
    struct options o = {.state_dir = env_or("MARGAY_STATE_DIR", NULL),
                        .run_dir = env_or("MARGAY_RUN_DIR", NULL),
                        .datastore = store_url_from_env(),
                        .source = env_or("MARGAY_SOURCE", NULL)};
    const char **const places[] = {[STATE_DIR] = &o.state_dir,
                                   [RUN_DIR] = &o.run_dir,
                                   [DATASTORE] = &o.datastore,
                                   [SOURCE] = &o.source,
                                   [STATUS_FILE] = &o.status_file};
    if (stat("/status", &st) == 0 && S_ISDIR(st.st_mode)) {
        o.status_file = "/status/status.json"; /* where Calico's image has it */
    }
    optind = 1;
    for (int i = 0, c; (c = getopt_long(argc, argv, "", longs, &i)) != -1;) {
        if (c != 0) {
            fputs("See: margay controllers --help\n", stderr);
            return 2;
        }
        *places[i] = optarg;
    }
    if (optind < argc) {
        fprintf(stderr, "margay controllers: found argument \"%s\", expected none\n", argv[optind]);
        return 2;
    }
    return run(&o);
}
