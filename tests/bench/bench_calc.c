/* The calculation alone: decoded objects in, a sink that only counts; no kernel, no store.
 *
 * usage: bench_calc POLICIES PODS [spread] [scan]
 * The first 100 pods are local. Every policy selects a local pod; with spread, any pod. scan: the
 * same by looking at every pod for every selector, and the members found that way are compared.
 * Prints a line each: NAME and one or two numbers (microseconds: median and 99th percentile). */
#include "base/clock.h"
#include "base/vec.h"
#include "feed.h"
#include "policy/selector.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

struct set_seen {
    uint32_t id;
    struct str selector;
};

struct bench {
    struct world w;
    struct feed in;
    size_t n_members; /* that the sink has now */
    size_t n_events;
    VEC(size_t) by_set; /* id - 1 */
    struct arena texts;
    VEC(struct set_seen) sets;
};

/* ---- a sink that counts ---- */

static void set_new(void *arg, const struct calc_set *s) {
    struct bench *b = arg;
    b->n_events++;
    vec_push(&b->sets, (struct set_seen){s->id, arena_dup(&b->texts, s->text)});
}
static size_t *count_of(struct bench *b, uint32_t id) {
    while (b->by_set.n < id) {
        vec_push(&b->by_set, 0);
    }
    return &b->by_set.p[id - 1];
}
static void set_members(void *arg, uint32_t id, const struct calc_member *added, size_t n_added,
                        const struct calc_member *removed, size_t n_removed) {
    (void)added, (void)removed;
    struct bench *b = arg;
    b->n_events++;
    b->n_members += n_added - n_removed;
    *count_of(b, id) += n_added - n_removed;
}
static void set_gone(void *arg, uint32_t id) {
    struct bench *b = arg;
    b->n_events++;
    b->n_members -= *count_of(b, id);
    *count_of(b, id) = 0;
}
static void gone(void *arg, uint32_t id) {
    (void)id;
    ((struct bench *)arg)->n_events++;
}
static void policy(void *arg, const struct calc_policy *p) {
    (void)p;
    ((struct bench *)arg)->n_events++;
}
static void endpoint(void *arg, const struct calc_endpoint *e) {
    (void)e;
    ((struct bench *)arg)->n_events++;
}

static const struct calc_ops counting = {
    .set_new = set_new,
    .set_members = set_members,
    .set_gone = set_gone,
    .policy = policy,
    .policy_gone = gone,
    .endpoint = endpoint,
    .endpoint_gone = gone,
};

/* ---- all ---- */

static int64_t cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000LL + u.ru_utime.tv_usec +
           u.ru_stime.tv_usec;
}

static void full(struct bench *b) {
    long before = resident_kib();
    int64_t cpu = cpu_us(), wall = clock_ns();
    b->in.c = calc_new(STR(WORLD_NODE), &counting, b);
    feed_world(&b->in, &b->w);
    cpu = cpu_us() - cpu;
    wall = clock_ns() - wall;
    struct calc_stats s;
    calc_stats(b->in.c, &s);
    printf("full_us %lld\n", (long long)b->in.calc_ns / 1000);
    /* One thread: of the CPU time as much is the calculation's as of the wall time. */
    printf("full_cpu_us %.0f\n", (double)cpu * (double)b->in.calc_ns / (double)wall);
    printf("decode_us %lld\n", (long long)b->in.decode_ns / 1000);
    printf("resident_kib %ld\n", resident_kib() - before);
    printf("active_policies %zu\nsets %zu\nmembers %zu\n", s.active_policies, s.sets, s.members);
}

/* ---- one change ---- */

enum change {
    CHANGE_PORT,        /* of one policy */
    CHANGE_PEER,        /* whom a policy lets in */
    CHANGE_LABEL,       /* of a pod of another node: into other sets */
    CHANGE_LOCAL_LABEL, /* of a local pod: under other policies */
    CHANGE_POD_ADDED,   /* on another node */
    CHANGE_POD_REMOVED,
    CHANGE_NAMESPACE, /* its labels */
    N_CHANGES,
};
static const char *const change_names[N_CHANGES] = {
    "policy_port", "policy_peer", "remote_label",    "local_label",
    "pod_added",   "pod_removed", "namespace_label",
};

static void change_doc(const struct bench *b, enum change what, unsigned round,
                       struct world_doc *d) {
    const struct world *w = &b->w;
    unsigned remote = w->pods - w->local;
    switch (what) {
    case CHANGE_PORT:
        world_policy(w, round * 37 % w->policies, 2 + 2 * round, d);
        break;
    case CHANGE_PEER: /* and the port back, so that nothing else differs */
        world_policy(w, round * 37 % w->policies, 3 + 2 * round, d);
        break;
    case CHANGE_LABEL:
        world_pod(w, remote ? w->local + round * 7919 % remote : 0, 1, d);
        break;
    case CHANGE_LOCAL_LABEL:
        world_pod(w, round % w->local, 1 + round / w->local, d);
        break;
    case CHANGE_POD_ADDED:
    case CHANGE_POD_REMOVED:
        world_pod(w, w->pods + round, 0, d);
        break;
    case CHANGE_NAMESPACE:
        world_namespace(w, round % w->namespaces, 1 + round / w->namespaces, d);
        break;
    case N_CHANGES:
        break;
    }
}

static int ns_cmp(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void changes(struct bench *b, enum change what) {
    enum { ROUNDS = 200 };
    int64_t took[ROUNDS];
    struct world_doc d;
    for (unsigned i = 0; i < ROUNDS; i++) {
        change_doc(b, what, i, &d);
        b->in.calc_ns = 0;
        feed_doc(&b->in, &d, what != CHANGE_POD_REMOVED);
        feed_flush(&b->in);
        took[i] = b->in.calc_ns;
    }
    qsort(took, ROUNDS, sizeof(*took), ns_cmp);
    printf("%s_us %.1f %.1f\n", change_names[what], (double)took[ROUNDS / 2] / 1000,
           (double)took[ROUNDS * 99 / 100] / 1000);
}

/* ---- the same by looking at everything ---- */

struct labels {
    struct label *p;
    size_t n;
};

static int label_cmp(const void *a, const void *b) {
    return str_cmp(((const struct label *)a)->key, ((const struct label *)b)->key);
}

/* What selectors see of a pod: its labels, Calico's own, those of its namespace. */
static struct labels labels_of(const struct world *w, unsigned pod, struct arena *a) {
    struct world_doc d;
    struct arena scratch = {0};
    world_pod(w, pod, 0, &d);
    struct object o = world_decode(&d, &scratch);
    world_namespace(w, pod % w->namespaces, 0, &d);
    struct object ns = world_decode(&d, &scratch);
    struct labels l = {arena_array(a, struct label, o.meta.labels.n + ns.meta.labels.n + 5), 0};
    for (size_t i = 0; i < o.meta.labels.n; i++) {
        l.p[l.n++] = (struct label){arena_dup(a, o.meta.labels.p[i].key),
                                    arena_dup(a, o.meta.labels.p[i].value)};
    }
    for (size_t i = 0; i < ns.meta.labels.n; i++) {
        l.p[l.n++] = (struct label){arena_printf(a, "pcns.%.*s", STR_FMT(ns.meta.labels.p[i].key)),
                                    arena_dup(a, ns.meta.labels.p[i].value)};
    }
    struct str name = arena_dup(a, o.meta.ns);
    l.p[l.n++] = (struct label){STR("projectcalico.org/namespace"), name};
    l.p[l.n++] = (struct label){STR("pcns.projectcalico.org/name"), name};
    l.p[l.n++] = (struct label){STR("pcns.kubernetes.io/metadata.name"), name};
    l.p[l.n++] = (struct label){STR("projectcalico.org/orchestrator"), STR("k8s")};
    l.p[l.n++] = (struct label){STR("projectcalico.org/serviceaccount"), STR("default")};
    qsort(l.p, l.n, sizeof(*l.p), label_cmp);
    arena_fini(&scratch);
    return l;
}

static size_t scan_pods(const struct selector *s, const struct labels *pods, size_t n) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        found += selector_match(s, pods[i].p, pods[i].n);
    }
    return found;
}

/* As many selectors as take a second or two, the times made those of all. Before any change: the
 * sets are those of the full calculation. 0: the same members. */
static int scan(struct bench *b) {
    enum { MATCHES_MAX = 20 * 1000 * 1000 };
    struct arena a = {0};
    size_t n_sets = b->sets.n, n_pods = b->w.pods, found = 0, known = 0;
    struct labels *pods = arena_array(&a, struct labels, n_pods);
    for (unsigned i = 0; i < n_pods; i++) {
        pods[i] = labels_of(&b->w, i, &a);
    }
    size_t step = n_sets * n_pods / MATCHES_MAX + 1, n = 0;
    const struct selector **selectors = arena_array(&a, const struct selector *, n_sets);
    int64_t begin = clock_ns();
    for (size_t i = 0; i < n_sets; i += step) {
        struct err e;
        if (selector_parse(b->sets.p[i].selector, SIZE_MAX, &a, &selectors[n], &e) < 0) {
            fprintf(stderr, "%.*s: %s\n", STR_FMT(b->sets.p[i].selector), e.msg);
            return 1;
        }
        found += scan_pods(selectors[n++], pods, n_pods);
        known += *count_of(b, b->sets.p[i].id);
    }
    double whole_us = (double)(clock_ns() - begin) / 1000 * (double)n_sets / (double)n;
    begin = clock_ns();
    size_t of_one = 0;
    for (size_t i = 0; i < n; i++) {
        of_one += scan_pods(selectors[i], &pods[n_pods - 1], 1);
    }
    double pod_us = (double)(clock_ns() - begin) / 1000 * (double)n_sets / (double)n;
    printf("scan_full_us %.0f\nscan_pod_us %.1f\nscan_selector_us %.1f\nsets_of_one_pod %zu\n",
           whole_us, pod_us, whole_us / (double)n_sets, of_one);
    arena_fini(&a);
    if (found != known) {
        fprintf(stderr, "a scan finds %zu members, the calculation %zu\n", found, known);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    bool is_spread = false, has_scan = false;
    for (int i = 3; i < argc; i++) {
        is_spread |= strcmp(argv[i], "spread") == 0;
        has_scan |= strcmp(argv[i], "scan") == 0;
    }
    int policies = argc > 2 ? atoi(argv[1]) : 0, pods = argc > 2 ? atoi(argv[2]) : 0;
    if (policies < 1 || pods < 10) {
        fprintf(stderr, "usage: bench_calc POLICIES PODS [spread] [scan]; 10 pods or more\n");
        return 2;
    }
    struct bench b = {.w = world_of((unsigned)policies, (unsigned)pods, is_spread)};
    full(&b);
    int bad = has_scan ? scan(&b) : 0;
    for (int i = 0; i < N_CHANGES; i++) {
        changes(&b, (enum change)i);
    }
    struct calc_stats s;
    calc_stats(b.in.c, &s);
    if (s.members != b.n_members) { /* the sink was told of everything */
        fprintf(stderr, "the sink has %zu members, the calculation %zu\n", b.n_members, s.members);
        bad = 1;
    }
    calc_free(b.in.c);
    arena_fini(&b.texts);
    vec_fini(&b.sets);
    vec_fini(&b.by_set);
    return bad;
}
