/* Routes to the pods of a large cluster by VXLAN: all nodes at the start, one that joins, one that
 * leaves, and a start that finds everything there; ours from what the datastore says to the kernel,
 * and ip(8) with bridge(8) given the same routes, neighbours and forwarding entries, each in a
 * network namespace of its own.
 *
 * usage: bench_nodes NODES ROUNDS
 * Prints lines: NAME and one or two numbers (microseconds: median and 99th percentile; KiB). */
#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "dataplane/overlay.h"
#include "kernel.h"
#include "netlink/addr.h"
#include "netlink/link.h"

#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ROUNDS = 1000 };

struct side {
    int netns;
    struct loop *loop;
    struct overlay *o;
    struct paths *paths;
};

static void fatal(const struct err *e) {
    fprintf(stderr, "%s\n", e->msg);
    exit(1);
}

static struct ip46 ip4(unsigned a, unsigned b, unsigned c, unsigned d) {
    return (struct ip46){IP_V4, {(uint8_t)a, (uint8_t)b, (uint8_t)c, (uint8_t)d}};
}

/* ---- a cluster: node i has 10.128.0.0 + 64 i / 26, and its tunnel end is the first of these ----
 */

static struct prefix block_of(unsigned i) {
    return (struct prefix){ip4(10, 128 + (i >> 10 & 127), i >> 2 & 255, (i & 3) << 6), 26};
}
static struct ip46 address_of(unsigned i) {
    return ip4(172, 16 + (i >> 16), i >> 8 & 255, i & 255);
}

static void name_of(unsigned i, char out[32]) {
    (void)snprintf(out, 32, "node-%u", i);
}

static void tell(struct paths *p, unsigned i, bool is_there) {
    char name[32];
    name_of(i, name);
    struct prefix cidr = block_of(i);
    struct path_node node = {.addr = {{address_of(i), 12}, {{0}, 0}}, .vxlan_addr = {cidr.ip}};
    path_vxlan_mac(str_c(name), IP_V4, node.vxlan_mac[0]);
    struct path_block block = {.cidr = cidr, .node = str_c(name)};
    (void)paths_node(p, str_c(name), is_there ? &node : NULL);
    paths_block(p, &cidr, is_there ? &block : NULL);
}

/* ---- the kernel's side ---- */

static void on_route(void *arg, const struct path_route *r) {
    overlay_route(((struct side *)arg)->o, r);
}
static void on_route_gone(void *arg, const struct prefix *dst) {
    overlay_route_gone(((struct side *)arg)->o, dst);
}
static void on_vtep(void *arg, const struct path_vtep *v) {
    overlay_vtep(((struct side *)arg)->o, v);
}
static void on_vtep_gone(void *arg, const struct path_vtep *v) {
    overlay_vtep_gone(((struct side *)arg)->o, v);
}

static void flush(struct side *s) {
    struct err e;
    paths_flush(s->paths);
    if (overlay_flush(s->o, &e) < 0) {
        fatal(&e);
    }
}

/* An uplink with the address of node 0. */
static void make_uplink(void) {
    struct nl *nl = NULL;
    struct err e;
    struct prefix own = {address_of(0), 12};
    int r = nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &nl, &e);
    if (r == 0) {
        (void)link_add_veth(
            nl, &(struct veth){.name = "eth0", .peer_name = "peer", .peer_netns_fd = -1});
        for (const char *const *name = (const char *const[]){"lo", "peer", "eth0", NULL}; *name;
             name++) {
            (void)link_change(nl, &(struct link_change){.name = *name, .set_up = true, .up = true});
        }
        r = nl_commit(nl, &e);
    }
    if (r == 0) {
        (void)addr_add(nl, (int)if_nametoindex("eth0"), &own);
        r = nl_commit(nl, &e);
    }
    if (r < 0) {
        fatal(&e);
    }
    nl_close(nl);
}

static struct overlay_device device(void) {
    struct overlay_device d = {
        .local = address_of(0), .addr = block_of(0).ip, .vni = 4096, .port = 4789};
    path_vxlan_mac(STR("node-0"), IP_V4, d.mac);
    return d;
}

static void side_open(struct side *s) {
    static const struct path_ops ops = {on_route, on_route_gone, on_vtep, on_vtep_gone};
    struct overlay_device d = device();
    struct err e;
    s->loop = loop_new();
    s->o = overlay_new(s->loop, false, &e);
    if (!s->o) {
        fatal(&e);
    }
    s->paths = paths_new(STR("node-0"), false, &ops, s);
    overlay_set_device(s->o, IP_V4, &d);
    struct path_pool pool = {.cidr = {ip4(10, 128, 0, 0), 9}, .mode = PATH_VXLAN};
    paths_pool(s->paths, STR("pool"), &pool);
}

static void side_close(struct side *s) {
    overlay_free(s->o);
    paths_free(s->paths);
    loop_free(s->loop);
}

static long rss_kib(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f || fscanf(f, "%*d %ld", &pages) != 1) {
        pages = 0;
    }
    if (f) {
        fclose(f);
    }
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* ---- ip and bridge ---- */

/* Batches that add or delete the ways to nodes from..to. */
static void write_batches(const char *const files[2], const char *const verbs[3], unsigned from,
                          unsigned to) {
    FILE *ip = fopen(files[0], "we"), *bridge = fopen(files[1], "we");
    if (!ip || !bridge) {
        perror(files[0]);
        exit(1);
    }
    for (unsigned i = from; i < to; i++) {
        char name[32], net[IP_TEXT_MAX], end[IP_TEXT_MAX], outer[IP_TEXT_MAX], mac[MAC_TEXT_MAX];
        uint8_t bytes[6];
        struct prefix cidr = block_of(i);
        struct ip46 at = address_of(i);
        name_of(i, name);
        path_vxlan_mac(str_c(name), IP_V4, bytes);
        (void)prefix_text(&cidr, net);
        (void)ip_text(&cidr.ip, end);
        (void)ip_text(&at, outer);
        fprintf(ip, "neigh %s %s lladdr %s dev vxlan.calico nud permanent\n", verbs[1], end,
                mac_text(bytes, mac));
        fprintf(ip, "route %s %s via %s dev vxlan.calico onlink proto 80\n", verbs[0], net, end);
        fprintf(bridge, "fdb %s %s dst %s dev vxlan.calico self permanent\n", verbs[2], mac, outer);
    }
    fclose(ip);
    fclose(bridge);
}

static double tools(int netns, const char *const files[2]) {
    double a = tool_us(netns, NULL, NULL, (const char *const[]){"ip", "-batch", files[0], NULL});
    double b =
        tool_us(netns, NULL, NULL, (const char *const[]){"bridge", "-batch", files[1], NULL});
    return a < 0 || b < 0 ? -1 : a + b;
}

static double since_us(int64_t begin) {
    return (double)(clock_ns() - begin) / 1000;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: bench_nodes NODES ROUNDS\n");
        return 2;
    }
    static const char *const add[] = {"add", "add", "append"}, *const del[] = {"del", "del", "del"};
    static double join[MAX_ROUNDS], leave[MAX_ROUNDS], join_tools[MAX_ROUNDS];
    unsigned n = (unsigned)atoi(argv[1]) % 65000, rounds = (unsigned)atoi(argv[2]) % MAX_ROUNDS;
    struct side ours = {.netns = side_netns()};
    log_level_set(LOG_ERROR);
    make_uplink();
    long before = rss_kib();
    side_open(&ours);
    int64_t begin = clock_ns();
    for (unsigned i = 0; i < n; i++) {
        tell(ours.paths, i, true);
    }
    flush(&ours);
    double load = since_us(begin);
    long after = rss_kib();

    struct side theirs = {.netns = side_netns()};
    make_uplink();
    side_open(&theirs); /* for the device alone */
    tell(theirs.paths, 0, true);
    flush(&theirs);
    const char *const files[2] = {temp_path("ip"), temp_path("bridge")};
    write_batches(files, add, 1, n);
    double load_tools = tools(theirs.netns, files);

    for (unsigned r = 0; r < rounds; r++) {
        side_enter(ours.netns);
        begin = clock_ns();
        tell(ours.paths, n, true);
        flush(&ours);
        join[r] = since_us(begin);
        begin = clock_ns();
        tell(ours.paths, n, false);
        flush(&ours);
        leave[r] = since_us(begin);
        write_batches(files, add, n, n + 1);
        join_tools[r] = tools(theirs.netns, files);
        write_batches(files, del, n, n + 1);
        (void)tools(theirs.netns, files);
    }

    side_enter(ours.netns);
    struct overlay_stats first, again;
    overlay_stats(ours.o, &first);
    side_close(&ours);
    begin = clock_ns();
    side_open(&ours);
    for (unsigned i = 0; i < n; i++) {
        tell(ours.paths, i, true);
    }
    flush(&ours);
    double restart = since_us(begin);
    overlay_stats(ours.o, &again);

    printf("load_us %.0f\n", load);
    printf("restart_us %.0f\n", restart);
    printf("restart_writes %llu\n", (unsigned long long)again.writes);
    printf("resident_kib %ld\n", after - before);
    printf("load_tools_us %.0f\n", load_tools);
    print_us("join_us", join, rounds);
    print_us("leave_us", leave, rounds);
    print_us("join_tools_us", join_tools, rounds);
    side_close(&ours);
    side_close(&theirs);
    if (again.writes != 0) {
        fprintf(stderr, "a start that finds everything there wrote %llu times\n",
                (unsigned long long)again.writes);
        return 1;
    }
    return 0;
}
