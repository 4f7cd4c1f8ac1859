/* Policy changes through the agent's socket, as a controller would make them: the time from the
 * write's start until the kernel has it.
 *
 * usage: bench_policy sqlite:PATH load PODS POLICIES
 *        bench_policy SOCKET change POLICIES ROUNDS
 * load: pods (with their WorkloadEndpoints; no interfaces) and policies, each with three rules,
 * spread over the pods, into the file while no agent runs. change: another port in one policy at a
 * time, through the agent. Prints microseconds. */
#include "base/clock.h"
#include "base/jtree.h"
#include "store/rpc.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct store *s;
static int wait_fd;

static void die(const char *what, const struct err *e) {
    fprintf(stderr, "%s: %s\n", what, e ? e->msg : "");
    exit(1);
}

static void put(const char *key, const char *text) {
    struct err e;
    struct store_key k = {STR(STORE_SPACE_RESOURCES), str_c(key)};
    if (store_put(s, k, str_c(text), REV_ANY, NULL, &e) < 0) {
        die(key, &e);
    }
}

static void dial(const char *path) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    wait_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(wait_fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        die(path, NULL);
    }
}

/* Until everything written is in the kernel. */
static void wait_enforced(void) {
    struct buf b = BUF_INIT(4096);
    rpc_frame(&b, STR("{\"op\":\"wait\",\"timeoutMs\":120000}"));
    if (write(wait_fd, b.p, b.n) != (ssize_t)b.n) {
        die("wait", NULL);
    }
    buf_fini(&b);
    char answer[256];
    ssize_t n = read(wait_fd, answer, sizeof(answer) - 1);
    answer[n > 0 ? n : 0] = 0;
    if (n <= RPC_HEADER || !strstr(answer + RPC_HEADER, "\"code\":0")) {
        die("wait failed", NULL);
    }
}

static void put_policy(int i, int pods, int port) {
    char key[128], text[1024];
    snprintf(key, sizeof(key), "NetworkPolicy.networking.k8s.io/bench/p%d", i);
    snprintf(
        text, sizeof(text),
        "{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"NetworkPolicy\",\"metadata\":"
        "{\"name\":\"p%d\",\"namespace\":\"bench\"},\"spec\":{\"podSelector\":{\"matchLabels\":"
        "{\"n\":\"%d\"}},\"ingress\":[{\"from\":[{\"podSelector\":{\"matchLabels\":{\"n\":\"%d\""
        "}}}],\"ports\":[{\"port\":%d}]},{\"from\":[{\"ipBlock\":{\"cidr\":\"10.%d.%d.0/24\"}}]}"
        ",{\"ports\":[{\"port\":%d,\"protocol\":\"UDP\"}]}]}}",
        i, i % pods, (i + 1) % pods, port, i / 250 % 250, i % 250, 1000 + i % 60000);
    put(key, text);
}

static void load(int pods, int policies) {
    char key[128], text[1024];
    put("Namespace//bench", "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":"
                            "\"bench\"}}");
    for (int i = 0; i < pods; i++) {
        snprintf(key, sizeof(key), "Pod/bench/n%d", i);
        snprintf(text, sizeof(text),
                 "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"n%d\","
                 "\"namespace\":\"bench\",\"labels\":{\"n\":\"%d\",\"app\":\"bench\"}},\"spec\":{"
                 "\"nodeName\":\"bench\"}}",
                 i, i);
        put(key, text);
        snprintf(key, sizeof(key), "WorkloadEndpoint.projectcalico.org/bench/bench-k8s-n%d-eth0",
                 i);
        snprintf(
            text, sizeof(text),
            "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"WorkloadEndpoint\",\"metadata\""
            ":{\"name\":\"bench-k8s-n%d-eth0\",\"namespace\":\"bench\"},\"spec\":{"
            "\"orchestrator\":\"k8s\",\"node\":\"bench\",\"containerID\":\"c%d\",\"pod\":\"n%d\""
            ",\"endpoint\":\"eth0\",\"interfaceName\":\"calibench%d\",\"ipNetworks\":["
            "\"10.250.%d.%d/32\"],\"profiles\":[\"kns.bench\"]}}",
            i, i, i, i, i / 250, i % 250 + 1);
        put(key, text);
    }
    for (int i = 0; i < policies; i++) {
        put_policy(i, pods, 80);
    }
}

static int cmp(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    struct err e;
    char url[256];
    if (argc < 5) {
        fprintf(stderr, "usage: bench_policy SOCKET load PODS POLICIES | change POLICIES ROUNDS\n");
        return 2;
    }
    bool is_load = strcmp(argv[2], "load") == 0;
    snprintf(url, sizeof(url), "%s%s", is_load ? "" : "agent:", argv[1]);
    if (store_open(url, &s, &e) < 0) {
        die(url, &e);
    }
    int a = atoi(argv[3]), b = atoi(argv[4]);
    if (is_load) {
        int64_t t = clock_ns();
        if (store_begin(s, &e) < 0) {
            die("begin", &e);
        }
        load(a, b);
        if (store_commit(s, &e) < 0) {
            die("commit", &e);
        }
        printf("%lld\n", (long long)((clock_ns() - t) / 1000));
    } else {
        static int64_t us[10000];
        dial(argv[1]);
        b = b > 10000 ? 10000 : b;
        for (int i = 0; i < b; i++) {
            int64_t t = clock_ns();
            /* Another port than any run before: an unchanged text is no change. */
            put_policy(i * 37 % a, 100 < a ? 100 : a,
                       81 + (int)(clock_wall_ns() / 1000000 % 60000));
            wait_enforced();
            us[i] = clock_ns() - t;
        }
        qsort(us, (size_t)b, sizeof(*us), cmp);
        printf("%lld %lld\n", (long long)us[b / 2] / 1000, (long long)us[b * 99 / 100] / 1000);
    }
    store_close(s);
    return 0;
}
