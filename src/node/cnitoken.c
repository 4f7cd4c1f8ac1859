/* See cnitoken.h. */
#include "node/cnitoken.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "controllers/config.h"
#include "node/kubeconfig.h"
#include "store/kube.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LIFE_S = 24 * 3600,
    SOONEST_MS = 5000,
    RETRY_MAX_MS = 300000,
    SETTLE_MS = 1000, /* several files of the account change together */
    NAME_MAX_BYTES = 253,
    TEXT_MAX = 4 << 20
};

struct cnitoken {
    struct store_worker *worker;
    struct loop_timer *timer;
    struct loop_poll *poll;
    int watch_fd;
    char path[PATH_MAX];
    char account[NAME_MAX_BYTES + 1];
    int64_t interval_ms; /* 0: by what is left */
    int64_t retry_ms;
    bool is_busy, is_asked;
};

/* What a job is given and what it gives back. */
struct job {
    struct cnitoken *t;
    struct err e;
    int64_t expires_s;
};

static const char *env_or(const char *name, const char *otherwise) {
    const char *v = getenv(name);
    return v && v[0] ? v : otherwise;
}

static int write_it(const struct cnitoken *t, const struct kube_account *k, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(TEXT_MAX);
    struct kubeconfig c = {k->server, k->ca_pem, k->is_insecure, k->token};
    kubeconfig_put(&c, &b);
    int r = b.overflow ? ERR_TOO_BIG : file_replace(AT_FDCWD, t->path, buf_view(&b), 0600);
    return r < 0 ? err_set(e, r, "%s: %s", t->path, err_name(r)) : 0;
}

static void work(struct store *s, void *arg) {
    struct job *j = arg;
    struct arena a = {0};
    struct kube_account k = {0};
    struct str ns = kube_own_namespace(s);
    int r = kube_account_token(s, ns.n ? ns : STR("kube-system"), str_c(j->t->account), LIFE_S, &a,
                               &k, &j->e);
    r = r < 0 ? r : write_it(j->t, &k, &j->e);
    j->e.code = r;
    j->expires_s = k.expires_s;
    arena_fini(&a);
}

/* ms and up to as much again, not too soon. */
static int64_t spread(int64_t ms) {
    uint32_t random = 0;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
        random = (uint32_t)clock_ns();
    }
    ms += (int64_t)((double)ms * (double)random / (double)UINT32_MAX);
    return ms < SOONEST_MS ? SOONEST_MS : ms;
}

static void run(void *arg);

static void done(void *arg, int code) {
    struct job *j = arg;
    struct cnitoken *t = j->t;
    t->is_busy = false;
    if (code < 0) { /* the agent stops */
        free(j);
        return;
    }
    int64_t wait_ms;
    if (j->e.code < 0) {
        static struct log_limit limit;
        if (log_allow(&limit, 1, 60)) {
            LOG_W("cni", "token_not_renewed", "account=%s error=%s", t->account,
                  log_quote(str_c(j->e.msg)));
        }
        wait_ms = t->retry_ms;
        t->retry_ms = t->retry_ms * 2 < RETRY_MAX_MS ? t->retry_ms * 2 : RETRY_MAX_MS;
    } else {
        int64_t left_ms = j->expires_s * 1000 - clock_wall_ns() / 1000000;
        wait_ms = spread(t->interval_ms ? t->interval_ms : left_ms > 0 ? left_ms / 4 : 0);
        t->retry_ms = SOONEST_MS;
        LOG_I("cni", "token_renewed", "file=%s account=%s valid_s=%lld again_in_s=%lld",
              log_quote(str_c(t->path)), t->account, (long long)left_ms / 1000,
              (long long)wait_ms / 1000);
    }
    free(j);
    loop_timer_start(t->timer, t->is_asked ? SETTLE_MS : wait_ms, 0);
    t->is_asked = false;
}

static void run(void *arg) {
    struct cnitoken *t = arg;
    struct job *j = calloc(1, sizeof(*j));
    mg_assert(j != NULL);
    j->t = t;
    t->is_busy = true;
    store_worker_run(t->worker, work, done, j);
}

static void on_account(void *arg, unsigned events MG_UNUSED) {
    struct cnitoken *t = arg;
    char drain[4096];
    while (read(t->watch_fd, drain, sizeof(drain)) > 0) {
    }
    if (t->is_busy) {
        t->is_asked = true;
    } else {
        loop_timer_start(t->timer, SETTLE_MS, 0);
    }
}

/* Outside of a pod there is nothing to watch. */
static void watch_account(struct cnitoken *t, struct loop *l) {
    const char *dir = env_or("MARGAY_TOKEN_DIR", KUBECONFIG_TOKEN_DIR);
    t->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (t->watch_fd >= 0 &&
        inotify_add_watch(t->watch_fd, dir,
                          IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR) >= 0) {
        t->poll = loop_poll_new(l, t->watch_fd, LOOP_READ, on_account, t);
    }
}

static bool is_name(const char *s) {
    size_t n = strlen(s);
    return n > 0 && n <= NAME_MAX_BYTES && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == n;
}

static int read_settings(struct cnitoken *t, struct err *e) {
    struct stat st;
    const char *host = "/host/etc/cni/net.d", *every = env_or("CNI_TOKEN_REFRESH_INTERVAL", NULL);
    const char *dir = env_or("CNI_NET_DIR",
                             stat(host, &st) == 0 && S_ISDIR(st.st_mode) ? host : "/etc/cni/net.d");
    const char *name = env_or("KUBECONFIG_FILE_NAME", KUBECONFIG_NAME);
    const char *account = env_or("CALICO_CNI_SERVICE_ACCOUNT", "calico-cni-plugin");
    int64_t ns = 0;
    if (strchr(name, '/')) {
        return err_set(e, ERR_INVALID,
                       "KUBECONFIG_FILE_NAME: found \"%s\", allowed is a file's "
                       "name without '/'",
                       name);
    }
    if (dir[0] != '/' ||
        snprintf(t->path, sizeof(t->path), "%s/%s", dir, name) >= (int)sizeof(t->path)) {
        return err_set(e, ERR_INVALID, "CNI_NET_DIR: found \"%.200s\", allowed is an absolute path",
                       dir);
    }
    if (!is_name(account)) {
        return err_set(e, ERR_INVALID,
                       "CALICO_CNI_SERVICE_ACCOUNT: found \"%.100s\", allowed is a "
                       "service account's name",
                       account);
    }
    if (every && (config_parse_duration(str_c(every), &ns) < 0 || ns < 0)) {
        return err_set(e, ERR_INVALID,
                       "CNI_TOKEN_REFRESH_INTERVAL: found \"%.100s\", allowed is a "
                       "duration such as 6h",
                       every);
    }
    (void)snprintf(t->account, sizeof(t->account), "%s", account);
    t->interval_ms = ns / 1000000;
    return 0;
}

int cnitoken_new(struct loop *l, struct store_worker *w, struct cnitoken **out, struct err *e) {
    *out = NULL;
    if (strcmp(env_or("CALICO_MANAGE_CNI", "false"), "true") != 0) {
        return 0;
    }
    struct cnitoken *t = calloc(1, sizeof(*t));
    mg_assert(t != NULL);
    t->worker = w;
    t->watch_fd = -1;
    t->retry_ms = SOONEST_MS;
    int r = read_settings(t, e);
    if (r < 0) {
        cnitoken_free(t);
        return r;
    }
    t->timer = loop_timer_new(l, run, t);
    watch_account(t, l);
    run(t);
    *out = t;
    return 0;
}

void cnitoken_free(struct cnitoken *t) {
    if (t) {
        loop_timer_free(t->timer);
        loop_poll_free(t->poll);
        fd_close(&t->watch_fd);
        free(t);
    }
}
