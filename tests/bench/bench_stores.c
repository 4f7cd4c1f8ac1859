/* Following a store from nothing, and how soon a change is told. `datastores.py` runs it beside
 * what users would run instead.
 *
 *     bench_stores dump POLICIES PODS         the made-up cluster, a line each: KEY tab TEXT
 *     bench_stores sync URL                   "took_us", "cpu_us", "peak_kib", "items"
 *     bench_stores run CMD…                   the same of another program; "items": lines it wrote
 *     bench_stores load PATH POLICIES PODS    the made-up cluster into an embedded store
 *     bench_stores latency URL ROUNDS [CMD…]  "ours_us MEDIAN P99"; with CMD, which prints lines
 *                                             with the changed object's name: "theirs_us …", of the
 *                                             same changes */
#include "base/clock.h"
#include "store/syncer.h"
#include "world.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_NS = 2000000000 };
#define SPOT "NetworkSet.projectcalico.org/ns0/"

struct run {
    struct loop *loop;
    uint64_t items;
    bool is_in_sync;
    char name[32]; /* of the object that is waited for */
    int64_t told_ns, line_ns;
    int pipe;
    char text[1 << 16];
    size_t n;
};

static void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void on_item(void *arg, const struct store_item *it) {
    struct run *r = arg;
    r->items += it->value.p != NULL;
    if (r->name[0] && str_ends(it->key, str_c(r->name))) {
        r->told_ns = clock_ns();
    }
}
static void on_in_sync(void *arg) {
    ((struct run *)arg)->is_in_sync = true;
}
static void on_batch_end(void *arg, uint64_t revision) {
    (void)arg;
    (void)revision;
}
static void on_connected(void *arg, bool is_connected, const char *why) {
    (void)arg;
    if (!is_connected) {
        fprintf(stderr, "away: %s\n", why);
    }
}

static struct store *open_url(const char *url) {
    struct store *s = NULL;
    struct err e;
    if (store_open(url, &s, &e) < 0) {
        die(url, e.msg);
    }
    return s;
}

static struct syncer *follow(struct run *r, struct store *s) {
    static const struct syncer_ops ops = {on_item, on_in_sync, on_batch_end, on_connected};
    struct store_key all = {STR(STORE_SPACE_RESOURCES), STR("")};
    struct syncer *y = NULL;
    struct err e;
    if (syncer_start(s, r->loop, all, &ops, r, &y, &e) < 0) {
        die("syncer", e.msg);
    }
    while (!r->is_in_sync) {
        loop_step(r->loop, true);
    }
    return y;
}

static void print_usage(int64_t took_ns, const struct rusage *u, long peak_kib, uint64_t items) {
    int64_t cpu = (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000 + u->ru_utime.tv_usec +
                  u->ru_stime.tv_usec;
    printf("took_us %lld\ncpu_us %lld\npeak_kib %ld\nitems %llu\n", (long long)took_ns / 1000,
           (long long)cpu, peak_kib, (unsigned long long)items);
}

/* Of this program alone: what getrusage says begins with the size of who started it. */
static long own_peak_kib(void) {
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    mg_assert(f != NULL);
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kib = strtol(line + 6, NULL, 10);
        }
    }
    (void)fclose(f);
    return kib;
}

/* Started by this small program, another one's peak is its own. */
static int run_other(char **argv) {
    int p[2], status = 0;
    struct rusage u;
    uint64_t lines = 0;
    char text[1 << 16];
    mg_assert(pipe2(p, O_CLOEXEC) == 0);
    int64_t start = clock_ns();
    pid_t pid = fork();
    mg_assert(pid >= 0);
    if (pid == 0) {
        dup2(p[1], 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(p[1]);
    for (ssize_t n; (n = read(p[0], text, sizeof(text))) > 0;) {
        for (const char *c = text; (c = memchr(c, '\n', (size_t)(text + n - c))) != NULL; c++) {
            lines++;
        }
    }
    mg_assert(wait4(pid, &status, 0, &u) == pid);
    print_usage(clock_ns() - start, &u, u.ru_maxrss, lines);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void sync_all(const char *url) {
    struct run *r = calloc(1, sizeof(*r));
    mg_assert(r != NULL);
    int64_t start = clock_ns();
    struct store *s = open_url(url);
    r->loop = loop_new();
    struct syncer *y = follow(r, s);
    int64_t took = clock_ns() - start;
    struct rusage u;
    mg_assert(getrusage(RUSAGE_SELF, &u) == 0);
    print_usage(took, &u, own_peak_kib(), r->items);
    syncer_free(y);
    store_close(s);
    loop_free(r->loop);
    free(r);
}

/* ---- latency ---- */

static void on_pipe(void *arg, unsigned events) {
    struct run *r = arg;
    (void)events;
    if (r->n > sizeof(r->text) / 2) {
        r->n = 0; /* names are short: what is cut was read long ago */
    }
    ssize_t n = read(r->pipe, r->text + r->n, sizeof(r->text) - r->n);
    if (n > 0) {
        r->n += (size_t)n;
        if (r->line_ns == 0 && r->name[0] && str_contains(str_n(r->text, r->n), str_c(r->name))) {
            r->line_ns = clock_ns();
        }
    }
}

static pid_t start_watcher(struct run *r, char **argv) {
    int p[2];
    mg_assert(pipe2(p, O_CLOEXEC) == 0);
    pid_t pid = fork();
    mg_assert(pid >= 0);
    if (pid == 0) {
        dup2(p[1], 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(p[1]);
    r->pipe = p[0];
    (void)loop_poll_new(r->loop, p[0], LOOP_READ, on_pipe, r);
    return pid;
}

static int ns_cmp(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void print(const char *name, int64_t *ns, size_t n) {
    qsort(ns, n, sizeof(*ns), ns_cmp);
    printf("%s %lld %lld\n", name, (long long)ns[n / 2] / 1000, (long long)ns[n * 99 / 100] / 1000);
}

static void tick(void *arg) {
    (void)arg;
}

/* Writes an object of a name of its own; false when it was not told in time. */
static bool one_change(struct run *r, struct store *writer, unsigned i, bool has_watcher,
                       int64_t *ours, int64_t *theirs) {
    char key[64], text[256];
    struct err e;
    snprintf(r->name, sizeof(r->name), "spot%06u", i);
    snprintf(key, sizeof(key), SPOT "%s", r->name);
    snprintf(text, sizeof(text),
             "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"NetworkSet\",\"metadata\":{"
             "\"name\":\"%s\",\"namespace\":\"ns0\"},\"spec\":{\"nets\":[\"10.9.8.0/24\"]}}",
             r->name);
    r->told_ns = r->line_ns = 0;
    r->n = 0;
    int64_t start = clock_ns();
    struct store_key k = {STR(STORE_SPACE_RESOURCES), str_c(key)};
    if (store_put(writer, k, str_c(text), REV_ANY, NULL, &e) < 0) {
        die("put", e.msg);
    }
    while ((!r->told_ns || (has_watcher && !r->line_ns)) && clock_ns() - start < WAIT_NS) {
        loop_step(r->loop, true);
    }
    *ours = r->told_ns - start;
    *theirs = r->line_ns - start;
    bool told = r->told_ns && (!has_watcher || r->line_ns);
    if (store_delete(writer, k, REV_ANY, &e) < 0) {
        die("delete", e.msg);
    }
    return told;
}

static void latency(const char *url, unsigned rounds, char **watcher) {
    struct run *r = calloc(1, sizeof(*r));
    int64_t *ours = calloc(rounds + 1, sizeof(*ours)), *theirs = calloc(rounds + 1, sizeof(*ours));
    mg_assert(r && ours && theirs);
    r->loop = loop_new();
    struct store *s = open_url(url);
    struct store *writer = strncmp(url, "sqlite:", 7) == 0 ? s : open_url(url);
    struct syncer *y = follow(r, s);
    struct loop_timer *t = loop_timer_new(r->loop, tick, NULL);
    loop_timer_start(t, 50, 50);
    pid_t pid = watcher ? start_watcher(r, watcher) : 0;
    unsigned n = 0, serial = 0;
    /* A watcher takes a while to get going: its first change doesn't count. */
    for (int i = 0; i < 30 && n == 0; i++) {
        n = one_change(r, writer, serial++, pid > 0, &ours[0], &theirs[0]);
    }
    if (n == 0) {
        die("latency", "no change was told");
    }
    for (n = 0; n < rounds; n++) {
        if (!one_change(r, writer, serial++, pid > 0, &ours[n], &theirs[n])) {
            die("latency", "a change was not told within two seconds");
        }
    }
    print("ours_us", ours, n);
    if (pid > 0) {
        print("theirs_us", theirs, n);
        kill(pid, SIGTERM);
        waitpid(pid, NULL, 0);
    }
    loop_timer_free(t);
    syncer_free(y);
    if (writer != s) {
        store_close(writer);
    }
    store_close(s);
    loop_free(r->loop);
    free(ours);
    free(theirs);
    free(r);
}

static void dump_one(void *arg, const struct world_doc *d) {
    (void)arg;
    printf("%s\t%s\n", d->key, d->text);
}

static void load_one(void *arg, const struct world_doc *d) {
    struct err e;
    struct store_key k = {STR(STORE_SPACE_RESOURCES), str_c(d->key)};
    if (store_put(arg, k, str_c(d->text), REV_ANY, NULL, &e) < 0) {
        die(d->key, e.msg);
    }
}

static void load(const char *path, unsigned policies, unsigned pods) {
    char url[4096];
    struct world w = world_of(policies, pods, false);
    struct err e;
    snprintf(url, sizeof(url), "sqlite:%s", path);
    struct store *s = open_url(url);
    if (store_begin(s, &e) < 0) {
        die(path, e.msg);
    }
    world_each(&w, load_one, s);
    if (store_commit(s, &e) < 0) {
        die(path, e.msg);
    }
    store_close(s);
}

static unsigned number(const char *text) {
    char *end = NULL;
    unsigned long n = strtoul(text, &end, 10);
    if (!*text || *end || n > 100000000) {
        die(text, "no number up to 100000000");
    }
    return (unsigned)n;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "dump") == 0) {
        struct world w = world_of(number(argv[2]), number(argv[3]), false);
        world_each(&w, dump_one, NULL);
    } else if (argc == 5 && strcmp(argv[1], "load") == 0) {
        load(argv[2], number(argv[3]), number(argv[4]));
    } else if (argc >= 3 && strcmp(argv[1], "run") == 0) {
        return run_other(argv + 2);
    } else if (argc == 3 && strcmp(argv[1], "sync") == 0) {
        sync_all(argv[2]);
    } else if (argc >= 4 && strcmp(argv[1], "latency") == 0) {
        latency(argv[2], number(argv[3]), argc > 4 ? argv + 4 : NULL);
    } else {
        fprintf(stderr, "usage: bench_stores dump POLICIES PODS | load PATH POLICIES "
                        "PODS | sync URL | run COMMAND... | latency URL ROUNDS "
                        "[COMMAND...]\n");
        return 2;
    }
    return 0;
}
