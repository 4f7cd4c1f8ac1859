/* A cluster in motion: so many changes a second through the agent's socket, each at its time
 * whether or not the agent keeps up. Now and then a change is waited for: the time from when it was
 * due until the kernel has it.
 *
 * usage: bench_churn sqlite:PATH load POLICIES PODS [spread]
 *        bench_churn SOCKET run POLICIES PODS RATE SECONDS
 * load: a made-up cluster into the file while no agent runs. run: pods come, go and change labels,
 * policies change ports and peers, come and go, namespaces change labels. Prints lines: NAME and
 * numbers. */
#include "base/clock.h"
#include "store/rpc.h"
#include "store/store.h"
#include "world.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { WAITERS = 64, WAIT_EVERY = 5, MAX_SAMPLES = 1 << 20 };

static struct store *store;

static void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void put(void *arg, const struct world_doc *d) {
    (void)arg;
    struct err e;
    struct store_key k = {STR(STORE_SPACE_RESOURCES), str_c(d->key)};
    if (store_put(store, k, str_c(d->text), REV_ANY, NULL, &e) < 0) {
        die(d->key, e.msg);
    }
}

static void drop(const struct world_doc *d) {
    struct err e;
    struct store_key k = {STR(STORE_SPACE_RESOURCES), str_c(d->key)};
    if (store_delete(store, k, REV_ANY, &e) < 0) {
        die(d->key, e.msg);
    }
}

static void load(const struct world *w) {
    struct err e;
    if (store_begin(store, &e) < 0) {
        die("begin", e.msg);
    }
    world_each(w, put, NULL);
    if (store_commit(store, &e) < 0) {
        die("commit", e.msg);
    }
}

/* ---- waiting, on a thread of its own, so that a slow write is not taken for a slow agent ---- */

static struct waiter {
    atomic_int fd; /* -1: not needed so far; the agent closes connections that say nothing */
    atomic_bool is_busy;
    int64_t due_ns;
} waiters[WAITERS];
static int64_t samples[MAX_SAMPLES];
static size_t n_samples;
static atomic_bool is_over;

static int dial(const char *path) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        die(path, "cannot connect");
    }
    return fd;
}

static void take_answer(struct waiter *w) {
    char answer[512];
    ssize_t n = read(w->fd, answer, sizeof(answer) - 1);
    int64_t now = clock_ns();
    answer[n > 0 ? n : 0] = 0;
    if (n <= RPC_HEADER || !strstr(answer + RPC_HEADER, "\"code\":0")) {
        die("wait failed", n > RPC_HEADER ? answer + RPC_HEADER : "connection closed");
    }
    if (n_samples < MAX_SAMPLES) {
        samples[n_samples++] = now - w->due_ns;
    }
    atomic_store(&w->is_busy, false);
}

static void *take_answers(void *arg) {
    struct pollfd p[WAITERS];
    while (!atomic_load(&is_over)) {
        for (size_t i = 0; i < WAITERS; i++) {
            p[i] = (struct pollfd){.fd = atomic_load(&waiters[i].fd), .events = POLLIN};
        }
        if (poll(p, WAITERS, 1) <= 0) {
            continue;
        }
        for (size_t i = 0; i < WAITERS; i++) {
            if (p[i].revents) {
                take_answer(&waiters[i]);
            }
        }
    }
    return arg;
}

/* False: all are waiting already. */
static bool ask_when_enforced(const char *socket_path, int64_t due_ns) {
    for (size_t i = 0; i < WAITERS; i++) {
        struct waiter *w = &waiters[i];
        if (!atomic_load(&w->is_busy)) {
            struct buf b = BUF_INIT(4096);
            rpc_frame(&b, STR("{\"op\":\"wait\",\"timeoutMs\":120000}"));
            w->due_ns = due_ns;
            atomic_store(&w->is_busy, true);
            if (atomic_load(&w->fd) < 0) {
                atomic_store(&w->fd, dial(socket_path));
            }
            if (write(w->fd, b.p, b.n) != (ssize_t)b.n) {
                die("wait", "cannot write");
            }
            buf_fini(&b);
            return true;
        }
    }
    return false;
}

static void wait_for_all(void) {
    for (size_t i = 0; i < WAITERS; i++) {
        while (atomic_load(&waiters[i].is_busy)) {
            usleep(1000);
        }
    }
}

/* ---- what changes ---- */

/* Change number n. Each round of 200 has the same kinds of changes in the same order. */
static void change(const struct world *w, unsigned n) {
    struct world_doc d;
    unsigned kind = n % 20, round = n / 20, remote = w->pods > w->local ? w->pods - w->local : 1;
    if (kind < 8) {
        world_pod(w, (w->local + n * 7919 % remote) % w->pods, 1 + n, &d);
        put(NULL, &d);
    } else if (kind < 12) {
        world_pod(w, w->pods + round * 4 + kind - 8, 0, &d);
        put(NULL, &d);
    } else if (kind < 16) {
        world_pod(w, w->pods + round * 4 + kind - 12, 0, &d);
        drop(&d);
    } else if (kind < 18) {
        world_policy(w, n * 37 % w->policies, 2 + 2 * n, &d);
        put(NULL, &d);
    } else if (kind == 18) {
        world_policy(w, n * 37 % w->policies, 3 + 2 * n, &d);
        put(NULL, &d);
    } else if (round % 10 == 9) {
        world_namespace(w, round / 10 % w->namespaces, 1 + n, &d);
        put(NULL, &d);
    } else if (round % 2) {
        world_pod(w, round % w->local, 1 + n, &d); /* a local one */
        put(NULL, &d);
    } else {
        world_policy(w, round % w->policies, 0, &d);
        drop(&d);
        put(NULL, &d);
    }
}

static int ns_cmp(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static double us_at(size_t permille) {
    return n_samples ? (double)samples[(n_samples - 1) * permille / 1000] / 1000 : 0;
}

static void run(const struct world *w, const char *socket_path, unsigned rate, unsigned seconds) {
    pthread_t thread;
    for (size_t i = 0; i < WAITERS; i++) {
        waiters[i].fd = -1;
    }
    if (pthread_create(&thread, NULL, take_answers, NULL) != 0) {
        die("thread", "cannot start");
    }
    unsigned n = rate * seconds, missed = 0;
    int64_t begin = clock_ns(), late = 0;
    for (unsigned i = 0; i < n; i++) {
        int64_t due = begin + (int64_t)i * 1000000000 / rate, now = clock_ns();
        if (now < due) {
            struct timespec ts = {0, (long)(due - now)};
            nanosleep(&ts, NULL);
        }
        change(w, i);
        now = clock_ns();
        late = now - due > late ? now - due : late;
        if (i % WAIT_EVERY == 0) {
            missed += !ask_when_enforced(socket_path, due);
        }
    }
    double took = (double)(clock_ns() - begin) / 1e9;
    wait_for_all();
    atomic_store(&is_over, true);
    pthread_join(thread, NULL);
    qsort(samples, n_samples, sizeof(*samples), ns_cmp);
    printf("changes_a_second %.0f\n", n / took);
    printf("write_late_max_us %.0f\n", (double)late / 1000);
    printf("samples %zu %u\n", n_samples, missed);
    printf("latency_us %.0f %.0f %.0f %.0f\n", us_at(500), us_at(990), us_at(999), us_at(1000));
    for (size_t i = 0; i < WAITERS; i++) {
        if (waiters[i].fd >= 0) {
            close(waiters[i].fd);
        }
    }
}

int main(int argc, char **argv) {
    struct err e;
    char url[512];
    bool is_load = argc > 4 && strcmp(argv[2], "load") == 0;
    if (argc < 5 || (!is_load && argc < 7)) {
        fprintf(stderr, "usage: bench_churn sqlite:PATH load POLICIES PODS [spread] |\n"
                        "       SOCKET run POLICIES PODS RATE SECONDS\n");
        return 2;
    }
    snprintf(url, sizeof(url), "%s%s", is_load ? "" : "agent:", argv[1]);
    if (store_open(url, &store, &e) < 0) {
        die(url, e.msg);
    }
    struct world w =
        world_of((unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]), is_load && argc > 5);
    if (is_load) {
        load(&w);
    } else {
        run(&w, argv[1], (unsigned)atoi(argv[5]), (unsigned)atoi(argv[6]));
    }
    store_close(store);
    return 0;
}
