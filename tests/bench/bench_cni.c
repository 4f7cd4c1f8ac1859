/* CNI ADD and DEL as a runtime sees them: posix_spawn of the plugin, its exit, in network
 * namespaces made beforehand. Plugins take turns, so that noise hits all alike.
 *
 * usage: bench_cni ROUNDS PARALLEL PRESENT NAME=PLUGIN_PATH=CONF_FILE…
 * With BENCH_PODS=NAMESPACE in the environment, each is asked for the Pod pod-N of that namespace,
 * N from 0 to ROUNDS + 1. PRESENT pods of each plugin are there already. PARALLEL 1: none in
 * parallel. Prints one line a plugin and operation: NAME OPERATION MEDIAN_US P99_US (serial), then
 * NAME parallel-OPERATION WALL_US_PER_POD. */
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PLUGINS = 8, MAX_PODS = 1024, BURST = 10 };

struct plugin {
    const char *name, *path, *conf;
    double add_us[4096], del_us[4096];
};

static int netns_fd[MAX_PODS];

static double now_us(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* A descriptor of a new network namespace. */
static int make_netns(void) {
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (unshare(CLONE_NEWNET) < 0) {
        perror("unshare");
        exit(1);
    }
    int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (setns(home, CLONE_NEWNET) < 0) {
        perror("setns");
        exit(1);
    }
    close(home);
    return fd;
}

static pid_t start(const struct plugin *p, const char *command, int pod, unsigned serial) {
    char cmd[32], id[64], ns[64], args[128];
    const char *pods = getenv("BENCH_PODS");
    snprintf(cmd, sizeof(cmd), "CNI_COMMAND=%s", command);
    /* The first characters make interface names: they must differ. */
    snprintf(id, sizeof(id), "CNI_CONTAINERID=%08x-%s", serial, p->name);
    snprintf(ns, sizeof(ns), "CNI_NETNS=/proc/%d/fd/%d", (int)getpid(), netns_fd[pod]);
    char bin_path[] = "CNI_PATH=/usr/lib/cni:/opt/cni/bin", ifname[] = "CNI_IFNAME=eth0";
    snprintf(args, sizeof(args),
             "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%.60s;K8S_POD_NAME=pod-%u",
             pods ? pods : "", serial);
    char *const envp[] = {cmd, id, ns, bin_path, ifname, pods ? args : NULL, NULL};
    char *const argv[] = {(char *)(size_t)p->path, NULL};
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, p->conf, O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
    pid_t pid;
    int r = posix_spawn(&pid, p->path, &fa, NULL, argv, envp);
    posix_spawn_file_actions_destroy(&fa);
    if (r) {
        fprintf(stderr, "%s: %s\n", p->path, strerror(r));
        exit(1);
    }
    return pid;
}

static void finish(const struct plugin *p, const char *command, pid_t pid) {
    int status;
    if (waitpid(pid, &status, 0) < 0 || status != 0) {
        fprintf(stderr, "%s %s failed (%d)\n", p->name, command, status);
        exit(1);
    }
}

static double once(const struct plugin *p, const char *command, int pod, unsigned serial) {
    double t = now_us();
    finish(p, command, start(p, command, pod, serial));
    return now_us() - t;
}

/* n at a time, in the namespaces from pod on. */
static double parallel(const struct plugin *p, const char *command, int pod, int n,
                       unsigned first) {
    static pid_t pids[MAX_PODS];
    double t = now_us();
    for (int i = 0; i < n; i++) {
        pids[i] = start(p, command, pod + i, first + (unsigned)i);
    }
    for (int i = 0; i < n; i++) {
        finish(p, command, pids[i]);
    }
    return (now_us() - t) / n;
}

/* The pods that are there all the time. */
static void crowd(const struct plugin *p, const char *command, int pod, int n) {
    for (int i = 0; i < n; i += BURST) {
        int left = n - i;
        (void)parallel(p, command, pod + i, left < BURST ? left : BURST, 500000U + (unsigned)i);
    }
}

static int cmp(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    static struct plugin plugins[MAX_PLUGINS];
    int rounds = argc > 4 ? atoi(argv[1]) : 0, width = argc > 4 ? atoi(argv[2]) : 0;
    int n = argc - 4, present = argc > 4 ? atoi(argv[3]) : 0;
    if (rounds < 1 || rounds > 4096 || width < 1 || present < 0 || n > MAX_PLUGINS ||
        width + present * n > MAX_PODS) {
        fprintf(stderr, "usage: bench_cni ROUNDS PARALLEL PRESENT NAME=PATH=CONF…\n");
        return 2;
    }
    for (int i = 0; i < n; i++) {
        char *eq = strchr(argv[4 + i], '='), *eq2 = eq ? strchr(eq + 1, '=') : NULL;
        if (!eq2) {
            return 2;
        }
        *eq = *eq2 = 0;
        plugins[i].name = argv[4 + i];
        plugins[i].path = eq + 1;
        plugins[i].conf = eq2 + 1;
    }
    const struct rlimit files = {4096, 4096};
    (void)setrlimit(RLIMIT_NOFILE, &files);
    for (int i = 0; i < width + present * n; i++) {
        netns_fd[i] = make_netns();
    }
    for (int i = 0; i < n; i++) {
        crowd(&plugins[i], "ADD", width + i * present, present);
    }
    for (int r = -2; r < rounds; r++) { /* two rounds to warm up */
        for (int i = 0; i < n; i++) {
            unsigned serial = (unsigned)(r + 2);
            double add = once(&plugins[i], "ADD", 0, serial);
            double del = once(&plugins[i], "DEL", 0, serial);
            if (r >= 0) {
                plugins[i].add_us[r] = add;
                plugins[i].del_us[r] = del;
            }
        }
    }
    for (int i = 0; i < n; i++) {
        struct plugin *p = &plugins[i];
        size_t size = sizeof(double);
        qsort(p->add_us, (size_t)rounds, size, cmp);
        qsort(p->del_us, (size_t)rounds, size, cmp);
        int p99 = rounds * 99 / 100;
        printf("%s ADD %.0f %.0f\n", p->name, p->add_us[rounds / 2], p->add_us[p99]);
        printf("%s DEL %.0f %.0f\n", p->name, p->del_us[rounds / 2], p->del_us[p99]);
    }
    for (int r = 0; width > 1 && r < 3; r++) {
        for (int i = 0; i < n; i++) {
            unsigned first = 100000U + (unsigned)(r * width);
            double add = parallel(&plugins[i], "ADD", 0, width, first);
            double del = parallel(&plugins[i], "DEL", 0, width, first);
            printf("%s parallel-ADD %.0f\n%s parallel-DEL %.0f\n", plugins[i].name, add,
                   plugins[i].name, del);
        }
    }
    for (int i = 0; i < n; i++) {
        crowd(&plugins[i], "DEL", width + i * present, present);
    }
    return 0;
}
