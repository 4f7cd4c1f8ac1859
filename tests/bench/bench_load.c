/* All policies of a node at once, and read back after a restart: ours from decoded objects to the
 * kernel; what ours wrote, by nft(8) and as bare messages; the same policies as a chain each, as
 * Calico makes them, by nft(8), iptables-legacy and iptables-nft with ipset. Each has a network
 * namespace of its own.
 *
 * usage: bench_load POLICIES PODS [spread]
 * Each policy selects a local pod; with spread, any pod: few of them apply here.
 * Prints lines: NAME and a number (microseconds or counts); what is not installed is left out. */
#include "base/clock.h"
#include "base/loop.h"
#include "chains.h"
#include "dataplane/dataplane.h"
#include "feed.h"
#include "kernel.h"

#include <stdio.h>
#include <stdlib.h>

static const struct dataplane_settings settings = {.iface_prefixes = {{"cali", 4}},
                                                   .n_iface_prefixes = 1};
static struct loop *loop;

static void print(const char *name, double us) {
    if (us >= 0) {
        printf("%s %.0f\n", name, us);
    }
}

/* An agent's policy engine starts: everything into the calculation, then the kernel made so. */
static struct dataplane_stats start_ours(const struct world *w, int netns, const char *name) {
    struct err e;
    struct dataplane *d = NULL;
    side_enter(netns);
    int64_t begin = clock_ns();
    if (dataplane_new(loop, NULL, &settings, &d, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    int64_t made = clock_ns() - begin;
    struct feed in = {.c = calc_new(STR(WORLD_NODE), &dataplane_calc_ops, d)};
    feed_world(&in, w);
    begin = clock_ns();
    if (dataplane_flush(d, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    int64_t kernel = clock_ns() - begin + made;
    struct dataplane_stats stats;
    dataplane_stats(d, &stats);
    char text[64];
    snprintf(text, sizeof(text), "%s_calc_us", name);
    print(text, (double)in.calc_ns / 1000); /* telling the dataplane included */
    snprintf(text, sizeof(text), "%s_kernel_us", name);
    print(text, (double)kernel / 1000);
    snprintf(text, sizeof(text), "%s_us", name);
    print(text, (double)(in.calc_ns + kernel) / 1000);
    dataplane_free(d);
    calc_free(in.c);
    return stats;
}

static double nft_load(const char *file, int netns) {
    return tool_us(netns, NULL, NULL, (const char *const[]){"nft", "-f", file, NULL});
}

/* ipset and iptables-*-restore together. */
static void iptables(const char *kind, const char *sets, const char *rules) {
    int netns = side_netns();
    char tool[64], name[64];
    double before = tool_us(netns, sets, NULL, (const char *const[]){"ipset", "restore", NULL});
    if (before < 0) {
        return;
    }
    snprintf(tool, sizeof(tool), "iptables-%s-restore", kind);
    double more = tool_us(netns, rules, NULL, (const char *const[]){tool, NULL});
    if (more < 0) {
        return;
    }
    snprintf(name, sizeof(name), "load_%s_us", kind);
    print(name, before + more);
    snprintf(name, sizeof(name), "load_%s_ipset_us", kind);
    print(name, before);
    snprintf(tool, sizeof(tool), "iptables-%s-save", kind);
    double us = tool_us(netns, NULL, NULL, (const char *const[]){tool, NULL});
    us += tool_us(netns, NULL, NULL, (const char *const[]){"ipset", "save", NULL});
    snprintf(name, sizeof(name), "read_%s_us", kind);
    print(name, us);
}

static void others(const struct world *w) {
    const char *sets = temp_path("sets"), *rules = temp_path("rules"), *nft = temp_path("nft");
    struct chains *c = chains_new(sets, rules, nft);
    struct feed in = {.c = calc_new(STR(WORLD_NODE), &chains_calc_ops, c)};
    feed_world(&in, w);
    struct chains_stats n = chains_stats(c);
    chains_free(c);
    calc_free(in.c);
    printf("chains_chains %zu\nchains_rules %zu\nchains_sets %zu\nchains_members %zu\n", n.chains,
           n.rules, n.sets, n.members);
    int netns = side_netns();
    print("load_nft_chains_us", nft_load(nft, netns));
    print("read_nft_chains_us",
          tool_us(netns, NULL, NULL, (const char *const[]){"nft", "list", "ruleset", NULL}));
    iptables("legacy", sets, rules);
    iptables("nft", sets, rules);
}

int main(int argc, char **argv) {
    int policies = argc > 2 ? atoi(argv[1]) : 0, pods = argc > 2 ? atoi(argv[2]) : 0;
    if (policies < 1 || pods < 10) {
        fprintf(stderr, "usage: bench_load POLICIES PODS [spread]\n");
        return 2;
    }
    struct world w = world_of((unsigned)policies, (unsigned)pods, argc > 3);
    int ours = side_netns();
    loop = loop_new();
    record_start();
    struct dataplane_stats s = start_ours(&w, ours, "load_ours");
    record_stop();
    printf("ours_chains %zu\nours_sets %zu\nours_members %zu\nours_messages %llu\n", s.chains,
           s.sets, s.members, (unsigned long long)s.messages);
    printf("ours_bytes %zu\n", record_bytes());
    const char *copy = temp_path("ruleset");
    const char *const list[] = {"nft", "list", "ruleset", NULL};
    print("read_nft_ours_us", tool_us(ours, NULL, copy, list));
    print("load_floor_us", record_replay_us(side_netns()));
    print("load_nft_ours_us", nft_load(copy, side_netns()));
    s = start_ours(&w, ours, "restart_ours");
    printf("restart_messages %llu\n", (unsigned long long)s.messages);
    others(&w);
    loop_free(loop);
    if (s.messages) {
        fprintf(stderr, "a restart with nothing changed wrote %llu messages\n",
                (unsigned long long)s.messages);
        return 1;
    }
    return 0;
}
