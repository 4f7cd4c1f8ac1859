/* Addresses assigned and given back a second: NODES processes, each a node with a connection of its
 * own, all at once.
 *
 * usage: bench_ipam URL NODES ADDRESSES own|shared
 * Each node takes ADDRESSES, one call for each, and gives them back. own: the pool has blocks of 64
 * for everybody; shared: two blocks for all, so that most addresses are fought for. Prints lines:
 * assign A_SECOND MEDIAN_US P99_US, then release likewise. */
#include "base/clock.h"
#include "ipam/ipam.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_NODES = 64, MAX_ADDRESSES = 4096 };

/* What the nodes write and the parent reads. */
struct shared {
    double assign_us[MAX_NODES][MAX_ADDRESSES], release_us[MAX_NODES][MAX_ADDRESSES];
};

static void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static struct store *open_store(const char *url) {
    struct store *s;
    struct err e;
    if (store_open(url, &s, &e) < 0) {
        die(url, e.msg);
    }
    return s;
}

static struct ipam_pool pool_of(bool is_shared, size_t n) {
    struct ipam_pool p = {STR("bench"), {{IP_V4, {10, 99, 0, 0}}, 16}, 26};
    unsigned bits = 1;
    while (is_shared && (1U << bits) < n) {
        bits++;
    }
    if (is_shared) {
        p.cidr.len = (uint8_t)(32 - bits);
        p.block_len = 33 - bits;
    }
    return p;
}

static void handle_name(char out[48], int node, int i, int parent) {
    snprintf(out, 48, "bench-%d.n%d-%d", parent, node, i);
}

/* One node: waits for the start, then works. */
static void run_node(const char *url, int node, int n, const struct ipam_pool *pool, int start_fd,
                     int ready_fd, struct shared *out) {
    char name[16], handle[48];
    struct err e;
    struct store *s = open_store(url);
    snprintf(name, sizeof(name), "bench-n%d", node);
    struct ipam *m = ipam_new(s, str_c(name));
    struct ipam_options o = {.pools = pool, .n_pools = 1, .max_blocks = 1000};
    struct ipam_attr attrs[] = {
        {STR("node"), str_c(name)}, {STR("namespace"), STR("bench")}, {STR("pod"), STR("pod")}};
    for (int part = 0; part < 2; part++) {
        char go;
        if (write(ready_fd, "r", 1) != 1 || read(start_fd, &go, 1) != 1) {
            die("start", "the parent is gone");
        }
        for (int i = 0; i < n; i++) {
            struct ip46 ip;
            size_t n_out;
            int64_t begin = clock_ns();
            handle_name(handle, node, i, (int)getppid());
            int r = store_begin(s, &e);
            if (r == 0) {
                r = part ? ipam_release_by_handle(m, str_c(handle), &ip, 1, &n_out, &e)
                         : ipam_assign_auto(m, &o, IP_V4, 1, str_c(handle), attrs, ARRAY_LEN(attrs),
                                            &ip, &e);
            }
            r = r == 0 ? store_commit(s, &e) : r;
            if (r < 0) {
                die(part ? "release" : "assign", e.msg);
            }
            (part ? out->release_us : out->assign_us)[node][i] = (double)(clock_ns() - begin) / 1e3;
        }
    }
    if (write(ready_fd, "r", 1) != 1) {
        die("end", "the parent is gone");
    }
    ipam_free(m);
    store_close(s);
    exit(0);
}

static int cmp(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void wait_for(int fd, int n) {
    char c;
    for (int i = 0; i < n; i++) {
        if (read(fd, &c, 1) != 1) {
            die("a node", "ended");
        }
    }
}

static void go(int fd, int n) {
    for (int i = 0; i < n; i++) {
        if (write(fd, "g", 1) != 1) {
            die("start", "a node ended");
        }
    }
}

static void report(const char *what, double (*us)[MAX_ADDRESSES], int nodes, int n, int64_t took) {
    size_t total = (size_t)nodes * (size_t)n;
    double *all = malloc(total * sizeof(*all));
    mg_assert(all != NULL);
    for (int i = 0; i < nodes; i++) {
        memcpy(all + (size_t)i * (size_t)n, us[i], (size_t)n * sizeof(*all));
    }
    qsort(all, total, sizeof(*all), cmp);
    printf("%s %.0f %.0f %.0f\n", what, (double)total * 1e9 / (double)took, all[total / 2],
           all[total * 99 / 100]);
    free(all);
}

static void count(void *arg, const struct ip46 *ip MG_UNUSED, struct str handle,
                  struct str ns MG_UNUSED, struct str pod MG_UNUSED) {
    *(size_t *)arg += str_starts(handle, STR("bench-"));
}

/* All are there, and the books agree. */
static void must_have(const char *url, size_t n) {
    struct store *s = open_store(url);
    struct ipam *m = ipam_new(s, STR("bench"));
    struct err e = {.code = 0};
    size_t found = 0;
    if (ipam_each(m, count, &found, &e) < 0) {
        die("list", e.msg);
    }
    if (found != n) {
        fprintf(stderr, "%zu addresses are assigned, expected %zu\n", found, n);
        exit(1);
    }
    ipam_free(m);
    store_close(s);
}

/* The blocks of the nodes, so that the next run finds the store as this one did. */
static void give_up_blocks(const char *url, int nodes) {
    struct store *s = open_store(url);
    for (int i = 0; i < nodes; i++) {
        char name[16];
        struct err e;
        snprintf(name, sizeof(name), "bench-n%d", i);
        struct ipam *m = ipam_new(s, str_c(name));
        if (ipam_release_owner(m, &e) < 0) {
            die("release", e.msg);
        }
        ipam_free(m);
    }
    store_close(s);
}

int main(int argc, char **argv) {
    int nodes = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 0;
    int n = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 0;
    bool is_shared = argc > 4 && strcmp(argv[4], "shared") == 0;
    int start[2], ready[2];
    if (nodes < 1 || nodes > MAX_NODES || n < 1 || n > MAX_ADDRESSES) {
        die("usage", "bench_ipam URL NODES(1-64) ADDRESSES(1-4096) own|shared");
    }
    struct ipam_pool pool = pool_of(is_shared, (size_t)nodes * (size_t)n);
    struct shared *out =
        mmap(NULL, sizeof(*out), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (out == MAP_FAILED || pipe(start) < 0 || pipe(ready) < 0) {
        die("start", "no memory or pipes");
    }
    must_have(argv[1], 0);
    for (int i = 0; i < nodes; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            (void)close(ready[0]);
            (void)close(start[1]);
            run_node(argv[1], i, n, &pool, start[0], ready[1], out);
        }
        if (pid < 0) {
            die("fork", "failed");
        }
    }
    (void)close(ready[1]); /* a node that dies is noticed */
    wait_for(ready[0], nodes);
    int64_t begin = clock_ns();
    go(start[1], nodes);
    wait_for(ready[0], nodes);
    int64_t took = clock_ns() - begin;
    report("assign", out->assign_us, nodes, n, took);
    /* A file has one owner, and it is a node that waits: then nobody else can look. */
    if (strncmp(argv[1], "sqlite:", 7) != 0) {
        must_have(argv[1], (size_t)nodes * (size_t)n);
    }
    begin = clock_ns();
    go(start[1], nodes);
    wait_for(ready[0], nodes);
    report("release", out->release_us, nodes, n, clock_ns() - begin);
    for (int i = 0, status; i < nodes; i++) {
        if (wait(&status) < 0 || status != 0) {
            die("a node", "failed");
        }
    }
    must_have(argv[1], 0);
    give_up_blocks(argv[1], nodes);
    return 0;
}
