/* A cluster of up to 50 nodes in one process: the real address management against a store in memory
 * (sim_store.h), any call of any node between any two of another, with lost swaps, old readings,
 * errors, answers that get lost, and nodes that die at any call. All follows from a seed.
 *
 *     test_ipam_sim                  10,000 schedules
 *     test_ipam_sim SEED [COUNT]     from this one on
 *
 * Held to be true, whatever happens:
 *   - no address is given to two pods at a time;
 *   - a pod's address stays its own, in a block, under its handle, until it is given back;
 *   - mending (ipam_mend) what ipam_faults finds leaves nothing to find and takes no address away;
 *   - when all pods are gone, every address of the pools can be assigned again. */
#include "base/hash.h"
#include "base/vec.h"
#include "ipam/ipam.h"
#include "sim_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>
#include <unistd.h>

enum {
    MAX_NODES = 50,
    STACK_BYTES = 512 * 1024,
    MAX_IPS = 4,
    N_FAMILIES = 2,
    /* Rather often: most calls are a few store calls long. */
    CHANCES = 1000,
};

enum pod_state {
    POD_STARTING, /* ADD runs */
    POD_RUNS,     /* ADD answered */
    POD_FAILED,   /* ADD failed or its node died in it: a DEL will come */
    POD_ENDING,   /* a DEL runs, or has failed and comes again */
};
struct pod {
    enum pod_state state;
    char handle[24];
    int node;
    struct ip46 ips[MAX_IPS];
    size_t n_ips;
    bool is_busy;  /* a call for it runs: the runtime makes one at a time */
    size_t n_seen; /* of its addresses, in the blocks */
};

struct actor {
    ucontext_t context;
    char *stack;
    int id; /* node; n_nodes: the controllers */
    struct ipam *ipam;
    int steps_left;
    bool is_dead; /* every call fails until the operation has ended */
    bool is_done;
};

static struct {
    uint64_t seed, random;
    struct store *store;
    int n_nodes, n_actors;
    struct actor actors[MAX_NODES + 1];
    struct actor *now; /* NULL: the scheduler */
    ucontext_t scheduler;
    VEC(struct pod *) pods;
    unsigned n_born;
    int64_t clock_ns;
    /* this schedule's temper */
    unsigned p_fail, p_lost, p_die, p_stale; /* of CHANCES */
    bool is_strict, is_quiet;
    unsigned max_blocks;
    int64_t cooldown_s;
    struct ipam_pool pools[N_FAMILIES];
    size_t sizes[N_FAMILIES];
    size_t n_switches;
} w;

/* ---- chance, time, failure ---- */

static uint64_t rnd(uint64_t n) {
    w.random += 0x9e3779b97f4a7c15ULL;
    return hash_u64(w.random) % n;
}

static bool chance(unsigned of_chances) {
    return of_chances && rnd(CHANCES) < of_chances;
}

static int64_t sim_now(void) {
    return w.clock_ns;
}

static void broken(const char *fmt, ...) MG_PRINTF(1, 2);
static void broken(const char *fmt, ...) {
    va_list ap;
    printf("seed %llu: ", (unsigned long long)w.seed);
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    printf("\nagain: test_ipam_sim %llu 1\n", (unsigned long long)w.seed);
    (void)fflush(stdout);
    _exit(1);
}

/* ---- the scheduler ---- */

static void give_way(void) {
    struct actor *me = w.now;
    w.now = NULL;
    w.n_switches++;
    (void)swapcontext(&me->context, &w.scheduler);
}

static enum sim_fate before_call(void *arg MG_UNUSED, bool is_write) {
    struct actor *me = w.now;
    if (rnd(4)) {
        give_way();
    }
    w.clock_ns += (int64_t)rnd(3) * 1000000000;
    if (me->is_dead) {
        return SIM_FAILS;
    }
    if (w.is_quiet) {
        return SIM_GOES_WELL;
    }
    if (chance(w.p_die)) {
        me->is_dead = true;
        return rnd(2) ? SIM_FAILS : SIM_LOST_ANSWER;
    }
    if (chance(w.p_fail)) {
        return SIM_FAILS;
    }
    if (is_write && chance(w.p_lost)) {
        return SIM_LOST_ANSWER;
    }
    return !is_write && chance(w.p_stale) ? SIM_STALE : SIM_GOES_WELL;
}

static void after_call(void *arg MG_UNUSED) {
    if (rnd(4) == 0) {
        give_way();
    }
}

static uint64_t hook_rnd(uint64_t n) {
    return rnd(n);
}

/* ---- what is true ---- */

static void see(void *arg MG_UNUSED, const struct ipam_allocation *x) {
    for (size_t i = 0; i < w.pods.n; i++) {
        struct pod *p = w.pods.p[i];
        for (size_t k = 0; p->state == POD_RUNS && k < p->n_ips; k++) {
            if (ip_eq(&p->ips[k], &x->ip)) {
                char text[IP_TEXT_MAX];
                if (!str_is(x->handle, p->handle)) {
                    broken("%s of pod %s is %.*s's", ip_text(&x->ip, text), p->handle,
                           STR_FMT(x->handle));
                }
                p->n_seen++;
            }
        }
    }
}

/* Looks from outside, between two calls. */
static void look(struct ipam *m, void (*cb)(void *arg, const struct ipam_allocation *x),
                 void *arg) {
    struct err e = {.code = 0};
    sim_store_quiet(w.store, true);
    if (ipam_allocations(m, cb, arg, &e) < 0) {
        broken("%s", e.msg);
    }
    sim_store_quiet(w.store, false);
}

static void handle_is_right(struct ipam *m, const struct pod *p) {
    struct err e = {.code = 0};
    struct ip46 ips[MAX_IPS];
    size_t n = 0;
    if (w.p_stale) {
        return; /* a handle may be too small until it is mended */
    }
    sim_store_quiet(w.store, true);
    int r = ipam_ips_by_handle(m, str_c(p->handle), ips, MAX_IPS, &n, &e);
    sim_store_quiet(w.store, false);
    if (r < 0 || n != p->n_ips) {
        broken("handle %s: %zu of %zu addresses: %s", p->handle, n, p->n_ips, e.msg);
    }
}

static void all_pods_are_whole(struct ipam *m) {
    for (size_t i = 0; i < w.pods.n; i++) {
        w.pods.p[i]->n_seen = 0;
    }
    look(m, see, NULL);
    for (size_t i = 0; i < w.pods.n; i++) {
        const struct pod *p = w.pods.p[i];
        if (p->state == POD_RUNS && p->n_seen != p->n_ips) {
            broken("pod %s has %zu addresses, the blocks know %zu of them", p->handle, p->n_ips,
                   p->n_seen);
        }
        if (p->state == POD_RUNS) {
            handle_is_right(m, p);
        }
    }
}

static void is_nobody_elses(const struct pod *mine) {
    for (size_t i = 0; i < w.pods.n; i++) {
        const struct pod *p = w.pods.p[i];
        for (size_t k = 0; p != mine && p->state == POD_RUNS && k < p->n_ips; k++) {
            for (size_t j = 0; j < mine->n_ips; j++) {
                char text[IP_TEXT_MAX];
                if (ip_eq(&p->ips[k], &mine->ips[j])) {
                    broken("%s given to %s, while %s has it", ip_text(&mine->ips[j], text),
                           mine->handle, p->handle);
                }
            }
        }
    }
}

/* ---- what nodes do ---- */

static struct ipam_options options(void) {
    return (struct ipam_options){.pools = w.pools,
                                 .n_pools = N_FAMILIES,
                                 .strict_affinity = w.is_strict,
                                 .max_blocks = w.max_blocks};
}

static struct pod *new_pod(const struct actor *me) {
    struct pod *p = calloc(1, sizeof(*p));
    mg_assert(p != NULL);
    snprintf(p->handle, sizeof(p->handle), "net.c%u", ++w.n_born);
    p->node = me->id;
    p->is_busy = true;
    vec_push(&w.pods, p);
    return p;
}

static void drop_pod(struct pod *p) {
    for (size_t i = 0; i < w.pods.n; i++) {
        if (w.pods.p[i] == p) {
            vec_swap_remove(&w.pods, i);
            break;
        }
    }
    free(p);
}

static void add(struct actor *me) {
    struct pod *p = new_pod(me);
    struct ipam_options o = options();
    char node[16];
    snprintf(node, sizeof(node), "n%d", me->id);
    const struct ipam_attr attrs[] = {{STR("node"), str_c(node)}, {STR("pod"), str_c(p->handle)}};
    struct err e = {.code = 0};
    uint64_t what = rnd(10);
    int r = 0;
    if (what == 0) { /* an address by name */
        struct ip46 ip;
        int f = (int)rnd(N_FAMILIES);
        bool inside = prefix_nth(&w.pools[f].cidr, rnd(w.sizes[f]), &ip);
        mg_assert(inside);
        r = ipam_assign_ip(me->ipam, &o, &ip, str_c(p->handle), attrs, 2, &e);
        p->ips[0] = ip;
        p->n_ips = 1;
    } else {
        size_t count = what == 1 ? 2 : 1;
        bool has[N_FAMILIES] = {what<8, what> 6};
        for (int f = 0; f < N_FAMILIES && r == 0; f++) {
            if (has[f]) {
                r = ipam_assign_auto(me->ipam, &o, f ? IP_V6 : IP_V4, count, str_c(p->handle),
                                     attrs, 2, p->ips + p->n_ips, &e);
                p->n_ips += count;
            }
        }
    }
    p->is_busy = false;
    if (r < 0 || me->is_dead) {
        p->state = POD_FAILED;
        return;
    }
    p->state = POD_RUNS;
    is_nobody_elses(p);
    handle_is_right(me->ipam, p);
}

static struct pod *pick(const struct actor *me) {
    for (size_t k = 0; w.pods.n && k < 8; k++) {
        struct pod *p = w.pods.p[rnd(w.pods.n)];
        if (!p->is_busy && (p->node == me->id || (me->id == w.n_nodes && p->state != POD_RUNS))) {
            return p;
        }
    }
    return NULL;
}

static void del(struct actor *me, struct pod *p) {
    struct ip46 out[MAX_IPS];
    struct err e = {.code = 0};
    size_t n = 0;
    p->is_busy = true;
    p->state = POD_ENDING;
    int r = ipam_release_by_handle(me->ipam, str_c(p->handle), out, MAX_IPS, &n, &e);
    p->is_busy = false;
    /* Old readings can hide an address from its DEL: then it is the controllers' (collect). */
    if ((r == 0 || r == ERR_NOT_FOUND) && !me->is_dead && !w.p_stale) {
        drop_pod(p);
    }
}

struct leaks {
    VEC(struct ipam_exact) v;
    const char *handle;
    struct arena a;
};
static void add_leak(void *arg, const struct ipam_allocation *x) {
    struct leaks *l = arg;
    if (str_is(x->handle, l->handle)) {
        vec_push(&l->v, (struct ipam_exact){x->ip, arena_dup(&l->a, x->handle), x->sequence});
    }
}

/* As the controllers collect a pod that has gone without a DEL. */
static void collect(struct actor *me, struct pod *p) {
    struct leaks l = {.handle = p->handle};
    struct err e = {.code = 0};
    size_t n;
    p->is_busy = true;
    p->state = POD_ENDING;
    int r = ipam_allocations(me->ipam, add_leak, &l, &e);
    if (r == 0 && l.v.n) {
        r = ipam_release_exact(me->ipam, l.v.p, l.v.n, &n, &e);
    }
    (void)r; /* tried again: the pod is still in the list */
    p->is_busy = false;
    vec_fini(&l.v);
    arena_fini(&l.a);
}

struct some_block {
    struct prefix cidr;
    char owner[16];
    size_t n;
};
static void choose_block(void *arg, const struct ipam_usage *u) {
    struct some_block *b = arg;
    if (u->is_block && str_starts(u->affinity, STR("host:")) && rnd(++b->n) == 0) {
        b->cidr = u->cidr;
        snprintf(b->owner, sizeof(b->owner), "%.*s",
                 STR_FMT(str_sub(u->affinity, 5, u->affinity.n)));
    }
}

/* A block or a node is given up as the controllers do it: the node may be there and know nothing.
 */
static void give_up(struct actor *me, bool is_node) {
    struct some_block b = {.n = 0};
    struct err e = {.code = 0};
    if (ipam_show(me->ipam, w.pools, N_FAMILIES, choose_block, &b, &e) < 0 || !b.n) {
        return;
    }
    struct ipam *m = ipam_new(w.store, str_c(b.owner));
    ipam_set_clock(m, sim_now);
    ipam_set_cooldown(m, w.cooldown_s);
    (void)!(is_node ? ipam_release_owner(m, &e) : ipam_release_block(m, &b.cidr, &e));
    ipam_free(m);
}

static void control(struct actor *me) {
    struct pod *p = pick(me);
    uint64_t what = rnd(6);
    if (what < 3 && p) {
        collect(me, p);
    } else if (what < 5) {
        give_up(me, false);
    } else {
        give_up(me, true);
    }
}

static void act(struct actor *me) {
    if (me->id == w.n_nodes) {
        control(me);
        return;
    }
    struct pod *p = rnd(5) < 2 ? pick(me) : NULL;
    if (p) {
        del(me, p);
    } else {
        add(me);
    }
}

static void live(void) {
    struct actor *me = w.now;
    while (me->steps_left-- > 0) {
        act(me);
        me->is_dead = false;
        if (rnd(8) == 0) {
            all_pods_are_whole(me->ipam);
        }
    }
    me->is_done = true;
    give_way();
}

/* ---- a schedule ---- */

static void begin(struct actor *a) {
    (void)getcontext(&a->context);
    a->context.uc_stack.ss_sp = a->stack;
    a->context.uc_stack.ss_size = STACK_BYTES;
    a->context.uc_link = NULL;
    makecontext(&a->context, live, 0);
}

static void set_temper(void) {
    uint64_t crowd = rnd(100);
    w.n_nodes = crowd == 0 ? MAX_NODES : crowd < 20 ? 8 : 2 + (int)rnd(4);
    w.n_actors = w.n_nodes + 1;
    bool is_rough = rnd(4) > 0;
    w.p_fail = is_rough ? (unsigned)rnd(30) : 0;
    w.p_lost = is_rough ? (unsigned)rnd(60) : 0;
    w.p_die = is_rough ? (unsigned)rnd(40) : 0;
    w.p_stale = rnd(5) == 0 ? (unsigned)rnd(200) : 0;
    w.is_strict = rnd(4) == 0;
    w.max_blocks = rnd(4) == 0 ? 1 + (unsigned)rnd(3) : 0;
    w.cooldown_s = rnd(4) == 0 ? 1 + (int64_t)rnd(60) : 0;
    w.clock_ns = 1800000000LL * 1000000000;
    /* So few addresses that the last ones are fought for. */
    unsigned bits = w.n_nodes > 8 ? 5 : 3 + (unsigned)rnd(3);
    w.pools[0] = (struct ipam_pool){
        STR("four"), {{IP_V4, {10, 44, 0, 0}}, (uint8_t)(32 - bits)}, 31 - (unsigned)rnd(2)};
    w.pools[1] = (struct ipam_pool){
        STR("six"), {{IP_V6, {0xfd, 0x44}}, (uint8_t)(128 - bits)}, 127 - (unsigned)rnd(2)};
    w.sizes[0] = w.sizes[1] = (size_t)1 << bits;
}

static void run_actors(int steps) {
    int n_left = w.n_actors;
    for (int i = 0; i < w.n_actors; i++) {
        struct actor *a = &w.actors[i];
        a->steps_left = steps;
        a->is_done = a->is_dead = false;
        begin(a);
    }
    while (n_left > 0) {
        struct actor *a = &w.actors[rnd((uint64_t)w.n_actors)];
        if (!a->is_done) {
            w.now = a;
            (void)swapcontext(&w.scheduler, &a->context);
            n_left -= a->is_done;
        }
    }
}

struct faults {
    struct arena a;
    VEC(struct ipam_fault) v;
};
static void keep_fault(void *arg, const struct ipam_fault *f) {
    struct faults *l = arg;
    struct ipam_fault copy = *f;
    copy.name = arena_dup(&l->a, f->name);
    copy.text = arena_dup(&l->a, f->text);
    vec_push(&l->v, copy);
}

static void must_be_sound(struct ipam *m, const char *when) {
    struct faults l = {.v = {0}};
    struct err e = {.code = 0};
    int n = ipam_faults(m, keep_fault, &l, &e);
    if (n) {
        broken("%s: %d faults, the first: %.*s", when, n, n > 0 ? (int)l.v.p[0].text.n : 0,
               n > 0 ? l.v.p[0].text.p : "");
    }
    vec_fini(&l.v);
    arena_fini(&l.a);
}

static size_t mend(struct ipam *m) {
    struct faults l = {.v = {0}};
    struct err e = {.code = 0};
    if (ipam_faults(m, keep_fault, &l, &e) < 0) {
        broken("%s", e.msg);
    }
    for (size_t i = 0; i < l.v.n; i++) {
        if (ipam_mend(m, &l.v.p[i], &e) < 0) {
            broken("%.*s: can't be mended: %s", STR_FMT(l.v.p[i].text), e.msg);
        }
    }
    size_t n = l.v.n;
    vec_fini(&l.v);
    arena_fini(&l.a);
    return n;
}

static int no_handle(void *arg MG_UNUSED, const struct store_item *it) {
    broken("left behind: %.*s", STR_FMT(it->key));
    return 0;
}

static void release_all(struct ipam *m) {
    struct err e = {.code = 0};
    while (w.pods.n) {
        struct pod *p = w.pods.p[w.pods.n - 1];
        struct ip46 out[MAX_IPS];
        size_t n = 0;
        int r = ipam_release_by_handle(m, str_c(p->handle), out, MAX_IPS, &n, &e);
        if (r < 0 && r != ERR_NOT_FOUND) {
            broken("%s", e.msg);
        }
        if (p->state == POD_RUNS && n != p->n_ips) {
            broken("pod %s gave %zu of %zu addresses back", p->handle, n, p->n_ips);
        }
        drop_pod(p);
    }
    struct store_key k = {STR(STORE_SPACE_IPAM), STR("/ipam/v2/handle/")};
    if (store_list(w.store, k, NULL, no_handle, NULL, &e) < 0) {
        broken("%s", e.msg);
    }
}

/* Nobody has any: one newcomer can have them all. */
static void all_can_be_had(void) {
    struct ipam *m = ipam_new(w.store, STR("newcomer"));
    struct ipam_options o = {.pools = w.pools, .n_pools = N_FAMILIES, .max_blocks = 1000};
    struct ip46 out[64];
    struct err e = {.code = 0};
    ipam_set_clock(m, sim_now);
    ipam_set_cooldown(m, w.cooldown_s);
    w.clock_ns += 3600LL * 1000000000;
    for (int f = 0; f < N_FAMILIES; f++) {
        if (ipam_assign_auto(m, &o, f ? IP_V6 : IP_V4, w.sizes[f], STR("all"), NULL, 0, out, &e) <
            0) {
            broken("addresses are lost: %s", e.msg);
        }
    }
    must_be_sound(m, "after all were assigned");
    ipam_free(m);
}

static size_t n_mended;

static void schedule(uint64_t seed) {
    w.seed = seed;
    w.random = hash_u64(seed);
    w.is_quiet = false;
    w.n_born = 0;
    set_temper();
    for (int i = 0; i < w.n_actors; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        w.actors[i].id = i;
        w.actors[i].ipam = ipam_new(w.store, str_c(name));
        ipam_set_clock(w.actors[i].ipam, sim_now);
        ipam_set_cooldown(w.actors[i].ipam, w.cooldown_s);
    }
    struct ipam *m = w.actors[0].ipam;
    run_actors(w.n_nodes > 8 ? 3 : 4 + (int)rnd(6));
    sim_store_quiet(w.store, true);
    size_t n = mend(m);
    n_mended += n;
    must_be_sound(m, "after mending");
    w.p_stale = 0; /* from here on handles must be right, too */
    all_pods_are_whole(m);
    sim_store_quiet(w.store, true);
    release_all(m);
    must_be_sound(m, "after the last DEL");
    all_can_be_had();
    sim_store_quiet(w.store, false);
    for (int i = 0; i < w.n_actors; i++) {
        ipam_free(w.actors[i].ipam);
    }
    sim_store_reset(w.store);
}

int main(int argc, char **argv) {
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : 10000;
    struct sim_hooks hooks = {before_call, after_call, hook_rnd, NULL};
    hash_seed_set(1, 2);
    w.store = sim_store_new(&hooks);
    for (int i = 0; i <= MAX_NODES; i++) {
        w.actors[i].stack = malloc(STACK_BYTES);
        mg_assert(w.actors[i].stack != NULL);
    }
    for (uint64_t s = first; s < first + count; s++) {
        schedule(s);
    }
    printf("seeds %llu to %llu: %zu store calls, %zu switches, %zu faults mended\n",
           (unsigned long long)first, (unsigned long long)(first + count - 1),
           sim_store_calls(w.store), w.n_switches, n_mended);
    for (int i = 0; i <= MAX_NODES; i++) {
        free(w.actors[i].stack);
    }
    vec_fini(&w.pods);
    store_close(w.store);
    return 0;
}
