/* One member added to or removed from a large set, and a large set loaded at once: ours through the
 * dataplane, nft(8) with the same ruleset, ipset(8), each in a network namespace of its own, taking
 * turns; and the bare messages of ours.
 *
 * usage: bench_sets MEMBERS ROUNDS POLICIES
 * POLICIES of a made-up cluster stand beside the set. Prints lines: NAME and two numbers
 * (microseconds: median and 99th percentile). */
#include "base/clock.h"
#include "base/loop.h"
#include "dataplane/dataplane.h"
#include "feed.h"
#include "kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beyond all ids that the calculation gives out. */
enum { SET_ID = 1 << 30, POLICY_ID, ENDPOINT_ID };

static const struct dataplane_settings settings = {.iface_prefixes = {{"cali", 4}},
                                                   .n_iface_prefixes = 1};

struct side {
    int netns;
    struct dataplane *d;
    double load_us, *add_us, *remove_us;
};

static struct loop *loop;
static size_t n_members;

static struct calc_member member(unsigned i) {
    struct calc_member m = {.net = {.len = 32}};
    m.net.ip.family = IP_V4;
    uint8_t bytes[4] = {11, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};
    memcpy(m.net.ip.b, bytes, sizeof(bytes));
    return m;
}

static void flush(struct dataplane *d) {
    struct err e;
    if (dataplane_flush(d, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
}

/* ---- ours ---- */

/* A pod whose one policy lets the set in. */
static void tell_user(struct dataplane *d) {
    static const struct calc_rule rule = {.action = RULE_ALLOW,
                                          .families = CALC_V4 | CALC_V6,
                                          .protocol = 6,
                                          .not_protocol = -1,
                                          .icmp_type = -1,
                                          .icmp_code = -1,
                                          .not_icmp_type = -1,
                                          .not_icmp_code = -1,
                                          .src = {.set = SET_ID}};
    static const struct calc_policy policy = {.id = POLICY_ID,
                                              .dir = CALC_INGRESS,
                                              .kind = {"NetworkPolicy", 13},
                                              .tier = {"default", 7},
                                              .ns = {"big", 3},
                                              .name = {"big", 3},
                                              .rules = &rule,
                                              .n_rules = 1};
    static const uint32_t ids[] = {POLICY_ID};
    static const struct calc_tier tier = {.name = {"default", 7}, .policies = ids, .n_policies = 1};
    struct calc_member own = member(0xffffff);
    struct calc_endpoint e = {.id = ENDPOINT_ID,
                              .iface = STR("calibig"),
                              .ns = STR("big"),
                              .name = STR("big"),
                              .nets = &own.net,
                              .n_nets = 1,
                              .ingress = {.tiers = &tier, .n_tiers = 1},
                              .egress = {.tiers = NULL}};
    dataplane_calc_ops.policy(d, &policy);
    dataplane_calc_ops.endpoint(d, &e);
}

static struct calc *beside_ours(struct side *s, unsigned policies) {
    struct err e;
    side_enter(s->netns);
    if (dataplane_new(loop, NULL, &settings, &s->d, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    struct feed in = {.c = calc_new(STR(WORLD_NODE), &dataplane_calc_ops, s->d)};
    if (policies) {
        struct world w = world_of(policies, policies < 10 ? 10 : policies, false);
        feed_world(&in, &w);
    }
    flush(s->d);
    return in.c;
}

static void load_ours(struct side *s) {
    struct calc_set set = {SET_ID, CALC_SET_ADDR, STR("s:big"), STR("big == 'yes'")};
    struct calc_member *all = calloc(n_members, sizeof(*all));
    for (unsigned i = 0; all && i < n_members; i++) {
        all[i] = member(i);
    }
    side_enter(s->netns);
    record_start();
    int64_t begin = clock_ns();
    dataplane_calc_ops.set_new(s->d, &set);
    dataplane_calc_ops.set_members(s->d, SET_ID, all, n_members, NULL, 0);
    tell_user(s->d);
    flush(s->d);
    s->load_us = (double)(clock_ns() - begin) / 1000;
    record_stop();
    free(all);
}

static double change_ours(struct side *s, unsigned i, bool add) {
    struct calc_member m = member(i);
    record_start();
    int64_t begin = clock_ns();
    dataplane_calc_ops.set_members(s->d, SET_ID, &m, add, &m, !add);
    flush(s->d);
    double us = (double)(clock_ns() - begin) / 1000;
    record_stop();
    return us;
}

/* ---- tools ---- */

enum { IP_TEXT = 16 };

static const char *ip_of(unsigned i, char out[IP_TEXT]) {
    snprintf(out, IP_TEXT, "11.%u.%u.%u", i >> 16 & 255, i >> 8 & 255, i & 255);
    return out;
}

static FILE *create(const char *path) {
    FILE *f = fopen(path, "w");
    if (!f) {
        perror(path);
        exit(1);
    }
    return f;
}

static const char *nft_change, *ipset_change;

static void write_change(const char *path, const char *before, unsigned i, const char *after) {
    char ip[IP_TEXT];
    FILE *f = create(path);
    fprintf(f, "%s%s%s\n", before, ip_of(i, ip), after);
    fclose(f);
}

static double change_nft(const struct side *s, unsigned i, bool add) {
    write_change(nft_change, add ? "add element inet big big { " : "delete element inet big big { ",
                 i, " }");
    return tool_us(s->netns, NULL, NULL, (const char *const[]){"nft", "-f", nft_change, NULL});
}

static double change_ipset(const struct side *s, unsigned i, bool add) {
    write_change(ipset_change, add ? "add big " : "del big ", i, "");
    return tool_us(s->netns, ipset_change, NULL, (const char *const[]){"ipset", "restore", NULL});
}

/* What ours wrote before the big set came stands beside nft's, too. */
static void copy_ruleset(int from, int to) {
    const char *path = temp_path("beside");
    if (tool_us(from, NULL, path, (const char *const[]){"nft", "list", "ruleset", NULL}) >= 0) {
        (void)tool_us(to, NULL, NULL, (const char *const[]){"nft", "-f", path, NULL});
    }
}

static double load_nft(const struct side *s) {
    const char *path = temp_path("load.nft");
    FILE *f = create(path);
    char ip[IP_TEXT];
    fprintf(f, "table inet big {\n set big {\n  type ipv4_addr\n  elements = { ");
    for (unsigned i = 0; i < n_members; i++) {
        fprintf(f, "%s%s", i ? ", " : "", ip_of(i, ip));
    }
    fprintf(f, " }\n }\n chain in {\n  ip saddr @big meta l4proto tcp accept\n }\n}\n");
    fclose(f);
    return tool_us(s->netns, NULL, NULL, (const char *const[]){"nft", "-f", path, NULL});
}

static double load_ipset(const struct side *s) {
    const char *path = temp_path("load.ipset");
    FILE *f = create(path);
    char ip[IP_TEXT];
    fprintf(f, "create big hash:ip family inet maxelem 1048576\n");
    for (unsigned i = 0; i < n_members; i++) {
        fprintf(f, "add big %s\n", ip_of(i, ip));
    }
    fclose(f);
    return tool_us(s->netns, path, NULL, (const char *const[]){"ipset", "restore", NULL});
}

/* ---- all ---- */

/* The floor: the messages of ours' last change again. */
enum { OURS, FLOOR, NFT, IPSET, N_SIDES };
static const char *const side_names[N_SIDES] = {"ours", "floor", "nft", "ipset"};

static double change(struct side *s, int which, unsigned i, bool add) {
    switch (which) {
    case OURS:
        return change_ours(s, i, add);
    case FLOOR:
        return record_replay_us(s->netns);
    case NFT:
        return change_nft(s, i, add);
    default:
        return change_ipset(s, i, add);
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: bench_sets MEMBERS ROUNDS POLICIES\n");
        return 2;
    }
    n_members = (size_t)atol(argv[1]);
    unsigned rounds = (unsigned)atoi(argv[2]), policies = (unsigned)atoi(argv[3]);
    struct side sides[N_SIDES];
    for (int i = 0; i < N_SIDES; i++) {
        sides[i] = (struct side){.netns = side_netns(),
                                 .add_us = calloc(rounds, sizeof(double)),
                                 .remove_us = calloc(rounds, sizeof(double))};
    }
    loop = loop_new();
    nft_change = temp_path("change.nft");
    ipset_change = temp_path("change.ipset");
    struct calc *c = beside_ours(&sides[OURS], policies);
    copy_ruleset(sides[OURS].netns, sides[NFT].netns);
    copy_ruleset(sides[OURS].netns, sides[FLOOR].netns);
    load_ours(&sides[OURS]);
    sides[NFT].load_us = load_nft(&sides[NFT]);
    sides[IPSET].load_us = load_ipset(&sides[IPSET]);
    sides[FLOOR].load_us = record_replay_us(sides[FLOOR].netns);
    for (unsigned r = 0; r < 2 * rounds; r++) {
        for (int i = 0; i < N_SIDES; i++) {
            if (sides[i].load_us >= 0) {
                bool add = r % 2 == 0;
                (add ? sides[i].add_us : sides[i].remove_us)[r / 2] =
                    change(&sides[i], i, (unsigned)n_members + r / 2, add);
            }
        }
    }
    for (int i = 0; i < N_SIDES; i++) {
        char name[64];
        if (sides[i].load_us >= 0) {
            snprintf(name, sizeof(name), "load_%s_us", side_names[i]);
            print_us(name, &sides[i].load_us, 1);
            snprintf(name, sizeof(name), "add_%s_us", side_names[i]);
            print_us(name, sides[i].add_us, rounds);
            snprintf(name, sizeof(name), "remove_%s_us", side_names[i]);
            print_us(name, sides[i].remove_us, rounds);
        }
        free(sides[i].add_us);
        free(sides[i].remove_us);
    }
    dataplane_free(sides[OURS].d);
    calc_free(c);
    loop_free(loop);
    return 0;
}
