/* The collector: cases one by one, then the property: no interleaving of pods, CNI calls, nodes,
 * stale knowledge, passes and delayed releases frees an address that somebody uses, and what is
 * left over is collected in the end. */
#include "base/vec.h"
#include "controllers/facts.h"
#include "controllers/gc.h"
#include "controllers/jobs.h"
#include "ipam/ipam.h"
#include "store_lab.h"

#define S 1000000000LL
#define GRACE (900 * S)

/* ---- a little world on one store ---- */

struct world {
    struct lab *lab;
    struct facts *facts;
    struct gc *gc;
    VEC(char *) asked; /* keys of jobs */
};

static void ask(struct world *w, enum job_kind k, struct str rest) {
    struct arena a = {0};
    vec_push(&w->asked, strdup(arena_cstr(&a, job_key(k, rest, &a))));
    arena_fini(&a);
}
static void on_handle(void *arg, struct str handle) {
    ask(arg, JOB_RELEASE, handle);
}
static void on_block(void *arg, struct str node, const struct prefix *cidr) {
    struct arena a = {0};
    char text[IP_TEXT_MAX];
    ask(arg, JOB_BLOCK, arena_printf(&a, "%.*s %s", STR_FMT(node), prefix_text(cidr, text)));
    arena_fini(&a);
}
static void on_node(void *arg, struct str node) {
    ask(arg, JOB_GONE, node);
}
static void on_machine(void *arg, struct str ns, struct str name) {
    struct arena a = {0};
    ask(arg, JOB_MACHINE, arena_printf(&a, "%.*s/%.*s", STR_FMT(ns), STR_FMT(name)));
    arena_fini(&a);
}
static const struct gc_ops ops = {on_handle, on_block, on_node, on_machine};

static void forget_asked(struct world *w) {
    for (size_t i = 0; i < w->asked.n; i++) {
        free(w->asked.p[i]);
    }
    vec_clear(&w->asked);
}

/* What the loop learns of one item now. */
static void learn(struct world *w, const struct store_item *it) {
    const struct kind *k;
    struct str ns, name;
    if (str_is(it->space, STORE_SPACE_IPAM)) {
        gc_item(w->gc, it->key, it->value);
        return;
    }
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err e;
    assert_int_equal(kind_split_key(it->key, &k, &ns, &name), 0);
    if (it->value.p) {
        assert_int_equal(json_parse(it->value, &json_limits_default, &a, &doc, &e), 0);
    }
    if (k->id == K_POD) {
        facts_pod(w->facts, ns, name, doc);
    } else if (k->id == K_WORKLOAD_ENDPOINT) {
        facts_endpoint(w->facts, it->key, ns, doc);
    } else if (k->id == K_NODE) {
        facts_node(w->facts, name, doc);
    } else if (k->id == K_NODE_K8S) {
        facts_k8s_node(w->facts, name, doc);
    }
    arena_fini(&a);
}

static int learn_item(void *arg, const struct store_item *it) {
    learn(arg, it);
    return 0;
}

/* Starts knowing from nothing, as a controller that begins. */
static void learn_all(struct world *w) {
    struct err e;
    facts_free(w->facts);
    struct gc *old = w->gc;
    w->facts = facts_new();
    w->gc = gc_new();
    gc_free(old);
    struct store_key r = {STR(STORE_SPACE_RESOURCES), STR("")},
                     i = {STR(STORE_SPACE_IPAM), STR("")};
    assert_int_equal(store_list(w->lab->target, r, NULL, learn_item, w, &e), 0);
    assert_int_equal(store_list(w->lab->target, i, NULL, learn_item, w, &e), 0);
}

/* The loop learns how an item is now; the others stay as it knew them. */
static void relearn(struct world *w, const char *space, struct str key) {
    struct arena a = {0};
    struct err e;
    struct store_item it;
    struct store_key k = {str_c(space), key};
    if (store_get(w->lab->target, k, &a, &it, &e) < 0) {
        it = (struct store_item){k.space, k.key, STR_NULL, 0};
    }
    learn(w, &it);
    arena_fini(&a);
}
static int relearn_item(void *arg, const struct store_item *it) {
    learn(arg, it);
    return 0;
}
/* All blocks, those that are gone excepted: they are told by key. */
static void relearn_blocks(struct world *w) {
    struct err e;
    struct store_key i = {STR(STORE_SPACE_IPAM), STR("/ipam/v2/assignment/")};
    assert_int_equal(store_list(w->lab->target, i, NULL, relearn_item, w, &e), 0);
}

static const struct ipam_pool *pool(void) {
    static struct ipam_pool p;
    p.name = STR("pool");
    p.block_len = 29;
    assert_int_equal(prefix_parse(STR("10.0.0.0/24"), &p.cidr), 0);
    return &p;
}

static void assign(struct world *w, const char *node, const char *handle, const char *ns,
                   const char *pod, const char *type, struct ip46 *out) {
    struct err e = {.code = 0};
    struct ipam *m = ipam_new(w->lab->target, str_c(node));
    struct ipam_options o = {.pools = pool(), .n_pools = 1};
    struct ipam_attr attrs[] = {{STR("node"), str_c(node)},
                                {type ? STR("type") : STR("pod"), str_c(type ? type : pod)},
                                {STR("namespace"), str_c(ns)}};
    if (ipam_assign_auto(m, &o, IP_V4, 1, str_c(handle), attrs, type ? 2 : 3, out, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    ipam_free(m);
}

static void put_pod(struct world *w, const char *name, const char *node, const struct ip46 *ip) {
    char text[256], addr[IP_TEXT_MAX];
    snprintf(text, sizeof(text), "{'spec':{'nodeName':'%s'},'status':{%s%s%s}}", node,
             ip ? "'podIP':'" : "", ip ? ip_text(ip, addr) : "", ip ? "'" : "");
    lab_put(w->lab->target, K_POD, "n", name, text);
}

static void run(struct world *w, const char *key) {
    struct job j = {.key = str_c(key)};
    struct str rest = job_rest(j.key);
    if (key[0] == JOB_RELEASE) {
        j.n_allocs = gc_confirmed(w->gc, rest, &j.a, &j.allocs);
    }
    j.node = rest;
    job_run(&j, w->lab->target, w->lab->target);
    if (j.result < 0) {
        fail_msg("%s: %s", key, j.e.msg);
    }
    arena_fini(&j.a);
}

static void pass_and_run(struct world *w, int64_t now) {
    forget_asked(w);
    (void)gc_pass(w->gc, w->facts, now, GRACE, &ops, w);
    for (size_t i = 0; i < w->asked.n; i++) {
        run(w, w->asked.p[i]);
    }
    relearn_blocks(w);
}

static bool is_assigned(struct world *w, const char *handle, const struct ip46 *ip) {
    struct err e;
    struct ip46 out[8];
    size_t n = 0;
    struct ipam *m = ipam_new(w->lab->target, STR("x"));
    int r = ipam_ips_by_handle(m, str_c(handle), out, 8, &n, &e);
    ipam_free(m);
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (ip_eq(&out[i], ip)) {
            return true;
        }
    }
    return false;
}

static struct world *world_new(void **state) {
    struct world *w = calloc(1, sizeof(*w));
    w->lab = *state;
    w->facts = facts_new();
    w->gc = gc_new();
    return w;
}
static void world_free(struct world *w) {
    forget_asked(w);
    vec_fini(&w->asked);
    facts_free(w->facts);
    gc_free(w->gc);
    free(w);
}

/* ---- cases ---- */

static void t_gc__pod_gone_for_the_grace_in_two_passes__collected(void **state) {
    struct world *w = world_new(state);
    struct ip46 ip;
    lab_put(w->lab->target, K_NODE_K8S, "", "n1", "{}");
    assign(w, "n1", "h1", "n", "web", NULL, &ip);
    learn_all(w);
    pass_and_run(w, 0);
    pass_and_run(w, GRACE - 1);
    assert_true(is_assigned(w, "h1", &ip));
    pass_and_run(w, GRACE);
    assert_false(is_assigned(w, "h1", &ip));
    world_free(w);
}

static void t_gc__one_pass_after_the_grace__not_enough(void **state) {
    struct world *w = world_new(state);
    struct ip46 ip;
    lab_put(w->lab->target, K_NODE_K8S, "", "n1", "{}");
    assign(w, "n1", "h1", "n", "web", NULL, &ip);
    learn_all(w);
    pass_and_run(w, 100 * GRACE);
    assert_true(is_assigned(w, "h1", &ip));
    world_free(w);
}

static void t_gc__back_between_passes__counted_anew(void **state) {
    struct world *w = world_new(state);
    struct ip46 ip;
    struct arena a = {0};
    lab_put(w->lab->target, K_NODE_K8S, "", "n1", "{}");
    assign(w, "n1", "h1", "n", "web", NULL, &ip);
    learn_all(w);
    pass_and_run(w, 0);
    put_pod(w, "web", "n1", &ip);
    relearn(w, STORE_SPACE_RESOURCES, lab_key(&a, K_POD, "n", "web").key);
    pass_and_run(w, GRACE / 2);
    lab_del(w->lab->target, K_POD, "n", "web");
    relearn(w, STORE_SPACE_RESOURCES, lab_key(&a, K_POD, "n", "web").key);
    pass_and_run(w, GRACE);
    pass_and_run(w, GRACE * 3 / 2);
    assert_true(is_assigned(w, "h1", &ip));
    pass_and_run(w, GRACE * 2);
    assert_false(is_assigned(w, "h1", &ip));
    arena_fini(&a);
    world_free(w);
}

struct keep_case {
    const char *what, *pod, *other;
    bool is_kept;
};

static void t_gc__who_has_the_address__keeps_it(void **state) {
    struct lab *lab = *state;
    static const struct keep_case cases[] = {
        {"the pod has it", "{'spec':{'nodeName':'n1'},'status':{'podIP':'@'}}", NULL, true},
        {"it has told of none yet", "{'spec':{'nodeName':'n1'}}", NULL, true},
        {"it is finished, and there",
         "{'spec':{'nodeName':'n1'},'status':{'phase':'Failed','reason':"
         "'Evicted','podIP':'@'}}",
         NULL, true},
        {"by Calico's annotation",
         "{'metadata':{'annotations':{'cni.projectcalico.org/podIPs':"
         "'@/32'}},'spec':{'nodeName':'n1'},'status':{'podIP':'9.9.9.9'}}",
         NULL, true},
        {"it has another one", "{'spec':{'nodeName':'n1'},'status':{'podIP':'9.9.9.9'}}", NULL,
         false},
        {"it is on another node", "{'spec':{'nodeName':'n2'},'status':{'podIP':'9.9.9.9'}}", NULL,
         false},
        {"gone, but another pod has it", NULL,
         "{'spec':{'nodeName':'n1'},'status':{'podIPs':[{'ip':'@'}]}}", true},
        {"gone", NULL, NULL, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        void *s = lab;
        struct world *w = world_new(&s);
        struct ip46 ip;
        struct arena a = {0};
        char handle[16], addr[IP_TEXT_MAX];
        snprintf(handle, sizeof(handle), "h%zu", i);
        lab_put(lab->target, K_NODE_K8S, "", "n1", "{}");
        assign(w, "n1", handle, "n", "web", NULL, &ip);
        (void)ip_text(&ip, addr);
        const char *const pods[2] = {cases[i].pod, cases[i].other};
        for (size_t k = 0; k < 2; k++) {
            struct buf b = BUF_INIT(4096);
            for (const char *c = pods[k]; c && *c; c++) {
                *c == '@' ? buf_puts(&b, addr) : buf_putc(&b, *c);
            }
            if (pods[k]) {
                lab_put(lab->target, K_POD, "n", k ? "other" : "web", buf_cstr(&b));
            }
            buf_fini(&b);
        }
        learn_all(w);
        pass_and_run(w, 0);
        pass_and_run(w, 2 * GRACE);
        if (is_assigned(w, handle, &ip) != cases[i].is_kept) {
            fail_msg("%s", cases[i].what);
        }
        lab_del(lab->target, K_POD, "n", "web");
        lab_del(lab->target, K_POD, "n", "other");
        arena_fini(&a);
        world_free(w);
    }
}

static void t_gc__two_addresses_of_a_handle__together_or_not_at_all(void **state) {
    struct world *w = world_new(state);
    struct ip46 one, two;
    lab_put(w->lab->target, K_NODE_K8S, "", "n1", "{}");
    assign(w, "n1", "h1", "n", "web", NULL, &one);
    assign(w, "n1", "h1", "n", "web", NULL, &two);
    put_pod(w, "web", "n1", &two);
    learn_all(w);
    pass_and_run(w, 0);
    pass_and_run(w, 2 * GRACE);
    assert_true(is_assigned(w, "h1", &one) && is_assigned(w, "h1", &two));
    world_free(w);
}

static void t_gc__node_gone__all_of_it_soon_tunnels_last(void **state) {
    struct world *w = world_new(state);
    struct ip46 ip, tunnel;
    struct arena a = {0};
    struct store_item it;
    struct err e;
    assign(w, "n9", "h1", "n", "web", NULL, &ip);
    assign(w, "n9", "vxlan-tunnel-addr-n9", "", "", "vxlanTunnelAddress", &tunnel);
    put_pod(w, "web", "n9", &ip); /* the pod's object is still there: not yet */
    learn_all(w);
    pass_and_run(w, 0);
    pass_and_run(w, GC_NODE_GONE_NS);
    assert_true(is_assigned(w, "h1", &ip) && is_assigned(w, "vxlan-tunnel-addr-n9", &tunnel));
    lab_del(w->lab->target, K_POD, "n", "web");
    learn_all(w);
    for (int i = 0; i < 8; i++) {
        pass_and_run(w, (2 + i) * GC_NODE_GONE_NS);
    }
    assert_false(is_assigned(w, "h1", &ip));
    assert_false(is_assigned(w, "vxlan-tunnel-addr-n9", &tunnel));
    struct store_key block = {STR(STORE_SPACE_IPAM), STR("/ipam/v2/host/n9/ipv4/block/")};
    char cidr[IP_TEXT_MAX];
    struct prefix p = prefix_mask((struct prefix){ip, 29});
    (void)prefix_text(&p, cidr);
    *strchr(cidr, '/') = '-';
    block.key = arena_printf(&a, "%.*s%s", STR_FMT(block.key), cidr);
    assert_int_equal(store_get(w->lab->target, block, &a, &it, &e), ERR_NOT_FOUND);
    arena_fini(&a);
    world_free(w);
}

static void t_gc__unknown_owner_windows_machine__never(void **state) {
    struct world *w = world_new(state);
    struct ip46 ip[3];
    struct err e;
    struct ipam *m = ipam_new(w->lab->target, STR("gone"));
    struct ipam_options o = {.pools = pool(), .n_pools = 1};
    struct ipam_attr vm[] = {{STR("node"), STR("gone")},
                             {STR("pod"), STR("virt-launcher-x")},
                             {STR("namespace"), STR("n")},
                             {STR("vmi-name"), STR("x")}};
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 1, STR("byhand"), NULL, 0, &ip[0], &e), 0);
    assert_int_equal(
        ipam_assign_auto(m, &o, IP_V4, 1, STR("windows-reserved-ipam-handle"), vm, 1, &ip[1], &e),
        0);
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 1, STR("vm"), vm, 4, &ip[2], &e), 0);
    ipam_free(m);
    learn_all(w);
    for (int i = 0; i < 5; i++) {
        pass_and_run(w, i * 2 * GRACE);
    }
    assert_true(is_assigned(w, "byhand", &ip[0]) && is_assigned(w, "vm", &ip[2]) &&
                is_assigned(w, "windows-reserved-ipam-handle", &ip[1]));
    world_free(w);
}

static bool was_asked(const struct world *w, const char *key) {
    for (size_t i = 0; i < w->asked.n; i++) {
        if (strcmp(w->asked.p[i], key) == 0) {
            return true;
        }
    }
    return false;
}

/* One pass; the API's answer to it, if it asks, comes before the next. */
enum answer { LIVES, GONE, NO_ANSWER };
static bool passes(struct world *w, int64_t now, int64_t grace, enum answer answer) {
    forget_asked(w);
    (void)gc_pass(w->gc, w->facts, now, grace, &ops, w);
    if (answer != NO_ANSWER) {
        gc_machine(w->gc, STR("n"), STR("x"), answer == GONE);
    }
    return was_asked(w, "r:net.vmi.n.x");
}

static void t_gc__machine__kept_while_it_lives_and_five_minutes_longer(void **state) {
    struct world *w = world_new(state);
    struct ip46 ip;
    struct err e;
    struct ipam *m = ipam_new(w->lab->target, STR("n1"));
    struct ipam_options o = {.pools = pool(), .n_pools = 1};
    struct ipam_attr owner[] = {{STR("node"), STR("n1")},
                                {STR("pod"), STR("virt-launcher-x-aaaaa")},
                                {STR("namespace"), STR("n")},
                                {STR("vmi-name"), STR("x")}};
    bool is_owned;
    struct ipam_exact held[1];
    size_t n;
    struct arena a = {0};
    lab_put(w->lab->target, K_NODE_K8S, "", "n1", "{}");
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 1, STR("net.vmi.n.x"), owner, 4, &ip, &e), 0);
    put_pod(w, "virt-launcher-x-aaaaa", "n1", &ip);
    learn_all(w);
    /* its pod has it: nothing to ask */
    for (int i = 0; i < 3; i++) {
        assert_false(passes(w, i * 10 * GRACE, GRACE, GONE));
        assert_false(was_asked(w, "v:n/x"));
    }
    /* stopped: without an owner it is known by its handle; nobody answers, or it lives */
    lab_del(w->lab->target, K_POD, "n", "virt-launcher-x-aaaaa");
    assert_int_equal(ipam_owner_clear(m, STR("net.vmi.n.x"), STR("n"), STR("virt-launcher-x-aaaaa"),
                                      &is_owned, held, 1, &n, &a, &e),
                     0);
    learn_all(w);
    for (int i = 0; i < 5; i++) {
        assert_false(passes(w, i * 10 * GRACE, GRACE, i < 2 ? NO_ANSWER : LIVES));
        assert_true(was_asked(w, "v:n/x"));
    }
    /* gone: from the first pass that knows it, the grace and five minutes at the least */
    static const int64_t graces[] = {GRACE, 10 * S, 0};
    for (size_t i = 0; i < ARRAY_LEN(graces); i++) {
        int64_t need = graces[i] > 300 * S ? graces[i] : 300 * S;
        learn_all(w);
        assert_false(passes(w, 0, graces[i], GONE));
        assert_false(passes(w, 5 * S, graces[i], GONE));
        assert_false(passes(w, 5 * S + need - 1, graces[i], GONE));
        assert_true(passes(w, 5 * S + need, graces[i], GONE));
        /* made anew: asked from the beginning */
        assert_true(passes(w, 6 * S + need, graces[i], LIVES));
        assert_false(passes(w, 7 * S + need, graces[i], GONE));
        assert_false(passes(w, 8 * S + need, graces[i], GONE));
    }
    /* its node gone, too: no shorter */
    lab_del(w->lab->target, K_NODE_K8S, "", "n1");
    learn_all(w);
    assert_false(passes(w, 0, GRACE, GONE));
    assert_false(passes(w, 5 * S, GRACE, GONE));
    assert_false(passes(w, 5 * S + 299 * S, GRACE, GONE));
    /* somebody has the address after all */
    put_pod(w, "odd", "n1", &ip);
    learn_all(w);
    for (int i = 0; i < 4; i++) {
        assert_false(passes(w, i * 10 * GRACE, GRACE, GONE));
    }
    ipam_free(m);
    arena_fini(&a);
    world_free(w);
}

/* The last look asks the API itself, and where that can't be asked nothing is released. */
static void t_gc__machine__not_released_unasked(void **state) {
    struct world *w = world_new(state);
    struct ip46 ip;
    assign(w, "n1", "net.vmi.n.x", "n", "virt-launcher-x-aaaaa", NULL, &ip);
    struct gc_alloc x = {.ip = ip,
                         .handle = STR("net.vmi.n.x"),
                         .ns = STR("n"),
                         .machine = STR("x"),
                         .node = STR("n1")};
    struct job j = {.key = STR("r:net.vmi.n.x"), .allocs = &x, .n_allocs = 1};
    job_run(&j, w->lab->target, w->lab->target);
    assert_int_equal(j.result, 0);
    assert_int_equal(j.n_released, 0);
    assert_true(is_assigned(w, "net.vmi.n.x", &ip));
    arena_fini(&j.a);
    world_free(w);
}

static void t_gc__empty_blocks__all_but_the_last_given_up(void **state) {
    struct world *w = world_new(state);
    struct ip46 ip[17];
    struct err e;
    char handle[16];
    lab_put(w->lab->target, K_NODE_K8S, "", "n1", "{}");
    struct ipam *m = ipam_new(w->lab->target, STR("n1"));
    for (int i = 0; i < 17; i++) { /* three blocks of eight */
        snprintf(handle, sizeof(handle), "h%d", i);
        assign(w, "n1", handle, "n", "web", NULL, &ip[i]);
    }
    assert_int_equal(ipam_release_ips(m, ip, 17, STR_NULL, NULL, &e), 0);
    ipam_free(m);
    learn_all(w);
    size_t n = 0;
    for (int i = 0; i < 4; i++) {
        forget_asked(w);
        (void)gc_pass(w->gc, w->facts, i * GRACE, GRACE, &ops, w);
        n = w->asked.n > n ? w->asked.n : n;
        for (size_t k = 0; k < w->asked.n; k++) {
            assert_int_equal(w->asked.p[k][0], JOB_BLOCK);
            run(w, w->asked.p[k]);
        }
        learn_all(w);
    }
    assert_int_equal(n, 0); /* a controller that has just begun knows no history */
    for (int i = 0; i < 4; i++) {
        forget_asked(w);
        (void)gc_pass(w->gc, w->facts, i * GRACE, GRACE, &ops, w);
        n = w->asked.n > n ? w->asked.n : n;
    }
    assert_int_equal(n, 2);
    for (size_t k = 0; k < w->asked.n; k++) {
        run(w, w->asked.p[k]);
    }
    learn_all(w);
    struct buf b = BUF_INIT(1 << 16);
    gc_metrics(w->gc, w->facts, &b);
    assert_true(str_contains(buf_view(&b), STR("ipam_blocks_per_node{node=\"n1\"} 1\n")));
    buf_fini(&b);
    world_free(w);
}

/* ---- the property ---- */

enum { N_PODS = 6, N_NODES = 3, STEPS = 120 };

struct container { /* one that runs, or ran: each ADD makes a new one */
    bool is_running;
    char handle[24];
    struct ip46 ip;
    int node;
};
struct sim {
    struct world *w;
    struct container of[N_PODS]; /* of the pod of this number */
    bool has_object[N_PODS], has_node[N_NODES];
    unsigned n_adds;
    int64_t now;
    VEC(char *) stale;      /* "SPACE KEY": what the loop has not learned yet */
    VEC(struct job *) late; /* releases that a worker has yet to do */
};

static uint64_t seed;
static unsigned rnd(unsigned n) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % n;
}

static void note(struct sim *s, enum kind_id kind, const char *ns, const char *name) {
    struct arena a = {0};
    vec_push(&s->stale, strdup(arena_cstr(&a, lab_key(&a, kind, ns, name).key)));
    arena_fini(&a);
}

static void catch_up(struct sim *s, bool all) {
    for (size_t i = 0; i < s->stale.n;) {
        if (all || rnd(2)) {
            relearn(s->w, STORE_SPACE_RESOURCES, str_c(s->stale.p[i]));
            free(s->stale.p[i]);
            vec_remove(&s->stale, i);
        } else {
            i++;
        }
    }
    if (all || rnd(2)) {
        relearn_blocks(s->w);
    }
}

static const char *pod_name(int i, char out[16]) {
    snprintf(out, 16, "p%d", i);
    return out;
}
static const char *node_name(int i, char out[16]) {
    snprintf(out, 16, "n%d", i);
    return out;
}

/* CNI ADD, as the plugin and kubelet do it: object, address, endpoint, status. */
static void add(struct sim *s, int i) {
    char pod[16], node[16], text[256], wep[64], addr[IP_TEXT_MAX];
    struct container *c = &s->of[i];
    int n = (int)rnd(N_NODES);
    if (s->has_object[i] || c->is_running || !s->has_node[n]) {
        return;
    }
    pod_name(i, pod);
    node_name(n, node);
    put_pod(s->w, pod, node, NULL);
    note(s, K_POD, "n", pod);
    snprintf(c->handle, sizeof(c->handle), "net.c%u", s->n_adds++);
    assign(s->w, node, c->handle, "n", pod, NULL, &c->ip);
    snprintf(wep, sizeof(wep), "%s-k8s-%s-eth0", node, pod);
    snprintf(text, sizeof(text),
             "{'spec':{'orchestrator':'k8s','node':'%s','pod':'%s','ipNetworks':["
             "'%s/32']}}",
             node, pod, ip_text(&c->ip, addr));
    lab_put(s->w->lab->target, K_WORKLOAD_ENDPOINT, "n", wep, text);
    note(s, K_WORKLOAD_ENDPOINT, "n", wep);
    if (rnd(3)) {
        put_pod(s->w, pod, node, &c->ip);
    }
    c->is_running = true;
    c->node = n;
    s->has_object[i] = true;
}

/* CNI DEL: the address goes back, the endpoint too. */
static void del(struct sim *s, int i, bool is_done) {
    char pod[16], node[16], wep[64];
    struct container *c = &s->of[i];
    if (!c->is_running) {
        return;
    }
    c->is_running = false;
    pod_name(i, pod);
    node_name(c->node, node);
    snprintf(wep, sizeof(wep), "%s-k8s-%s-eth0", node, pod);
    if (is_done) {
        struct err e;
        struct ip46 out[4];
        size_t n;
        struct ipam *m = ipam_new(s->w->lab->target, str_c(node));
        (void)!ipam_release_by_handle(m, str_c(c->handle), out, 4, &n, &e);
        ipam_free(m);
    } /* else the address leaks */
    lab_del(s->w->lab->target, K_WORKLOAD_ENDPOINT, "n", wep);
    note(s, K_WORKLOAD_ENDPOINT, "n", wep);
}

static void delete_pod(struct sim *s, int i, bool is_forced) {
    char pod[16];
    if (!s->has_object[i]) {
        return;
    }
    if (!is_forced) {
        del(s, i, rnd(3) > 0);
    } /* else the container may run on without its object */
    s->has_object[i] = false;
    lab_del(s->w->lab->target, K_POD, "n", pod_name(i, pod));
    note(s, K_POD, "n", pod);
}

static void toggle_node(struct sim *s, int n) {
    char node[16];
    node_name(n, node);
    if (!s->has_node[n]) {
        lab_put(s->w->lab->target, K_NODE_K8S, "", node, "{}");
    } else {
        for (int i = 0; i < N_PODS; i++) { /* the machine is off: nothing runs, nothing is told */
            if (s->of[i].node == n && s->of[i].is_running) {
                s->of[i].is_running = false;
                delete_pod(s, i, true);
            }
        }
        lab_del(s->w->lab->target, K_NODE_K8S, "", node);
    }
    s->has_node[n] = !s->has_node[n];
    note(s, K_NODE_K8S, "", node);
}

static void check(struct sim *s) {
    for (int i = 0; i < N_PODS; i++) {
        const struct container *c = &s->of[i];
        if (c->is_running && !is_assigned(s->w, c->handle, &c->ip)) {
            char addr[IP_TEXT_MAX];
            fail_msg("%s of running %s was freed", ip_text(&c->ip, addr), c->handle);
        }
    }
}

struct leaving {
    const struct facts *facts;
    struct job *j;
};
static void add_endpoint(void *arg, const struct fact_endpoint *x) {
    const struct leaving *v = arg;
    struct job *j = v->j;
    if (!facts_endpoint_is_left(v->facts, x)) {
        return;
    }
    j->endpoints = realloc(j->endpoints, (j->n_endpoints + 1) * sizeof(*j->endpoints));
    j->endpoints[j->n_endpoints++] = arena_dup(&j->a, x->key);
}

/* Jobs as the engine starts them: with what is known now; the worker does them later. */
static void start_jobs(struct sim *s) {
    struct world *w = s->w;
    forget_asked(w);
    (void)gc_pass(w->gc, w->facts, s->now, GRACE, &ops, w);
    for (size_t i = 0; i < w->asked.n; i++) {
        struct job *j = calloc(1, sizeof(*j));
        j->key = arena_dup(&j->a, str_c(w->asked.p[i]));
        j->node = job_rest(j->key);
        if (w->asked.p[i][0] == JOB_RELEASE) {
            j->n_allocs = gc_confirmed(w->gc, job_rest(j->key), &j->a, &j->allocs);
        }
        for (size_t k = 0; k < j->n_allocs; k++) {
            struct leaving v = {w->facts, j};
            facts_each_endpoint(w->facts, j->allocs[k].ns, j->allocs[k].pod, add_endpoint, &v);
        }
        vec_push(&s->late, j);
    }
}

static void do_jobs(struct sim *s, bool all) {
    while (s->late.n && (all || rnd(2))) {
        struct job *j = s->late.p[0];
        vec_remove(&s->late, 0);
        job_run(j, s->w->lab->target, s->w->lab->target);
        free(j->endpoints);
        arena_fini(&j->a);
        free(j);
        check(s);
    }
}

static void one_step(struct sim *s) {
    int i = (int)rnd(N_PODS);
    switch (rnd(9)) {
    case 0:
    case 1:
    case 2:
        add(s, i);
        break;
    case 3:
        delete_pod(s, i, false);
        break;
    case 4:
        delete_pod(s, i, rnd(2));
        break;
    case 5:
        del(s, i, rnd(2)); /* a crash of the container: the object stays */
        break;
    case 6:
        toggle_node(s, (int)rnd(N_NODES));
        break;
    default:
        catch_up(s, rnd(3) == 0);
        start_jobs(s);
        break;
    }
    do_jobs(s, false);
    s->now += (int64_t)rnd(400) * S;
    check(s);
}

static void finish(struct sim *s) {
    for (int i = 0; i < N_PODS; i++) {
        s->of[i].is_running = s->of[i].is_running && s->has_object[i];
        if (!s->of[i].is_running) {
            delete_pod(s, i, true);
        }
    }
    struct arena a = {0};
    struct err e;
    for (int i = 0; i < N_PODS;
         i++) { /* containers without their object end, their addresses leak */
        char node[16], wep[64], pod[16];
        for (int n = 0; n < N_NODES && !s->of[i].is_running; n++) {
            snprintf(wep, sizeof(wep), "%s-k8s-%s-eth0", node_name(n, node), pod_name(i, pod));
            lab_del(s->w->lab->target, K_WORKLOAD_ENDPOINT, "n", wep);
        }
    }
    do_jobs(s, true);
    learn_all(s->w);
    for (int i = 0; i < 6; i++) {
        s->now += GRACE;
        start_jobs(s);
        do_jobs(s, true);
        relearn_blocks(s->w);
    }
    /* Every address that is assigned belongs to somebody. */
    struct ipam *m = ipam_new(s->w->lab->target, STR("x"));
    size_t n_running = 0, n_assigned = 0;
    for (unsigned c = 0; c < s->n_adds; c++) {
        char handle[24];
        struct ip46 out[4];
        size_t n = 0;
        snprintf(handle, sizeof(handle), "net.c%u", c);
        n_assigned += ipam_ips_by_handle(m, str_c(handle), out, 4, &n, &e) == 0 ? n : 0;
    }
    for (int i = 0; i < N_PODS; i++) {
        n_running += s->of[i].is_running;
    }
    ipam_free(m);
    assert_int_equal(n_assigned, n_running);
    arena_fini(&a);
}

static void t_gc__any_interleaving__never_frees_what_is_used(void **state) {
    for (unsigned round = 0; round < 12; round++) {
        struct sim s = {.w = world_new(state), .now = S};
        seed = 77 + round;
        for (int n = 0; n < N_NODES; n++) {
            toggle_node(&s, n);
        }
        catch_up(&s, true);
        for (int i = 0; i < STEPS; i++) {
            one_step(&s);
        }
        finish(&s);
        for (int i = 0; i < N_PODS; i++) { /* the next round begins with nothing */
            delete_pod(&s, i, true);
            del(&s, i, true);
        }
        for (int n = 0; n < N_NODES; n++) {
            if (s.has_node[n]) {
                toggle_node(&s, n);
            }
        }
        for (size_t i = 0; i < s.stale.n; i++) {
            free(s.stale.p[i]);
        }
        vec_fini(&s.stale);
        vec_fini(&s.late);
        world_free(s.w);
    }
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, lab_setup, lab_teardown)
    const struct CMUnitTest tests[] = {
        CASE(t_gc__pod_gone_for_the_grace_in_two_passes__collected),
        CASE(t_gc__one_pass_after_the_grace__not_enough),
        CASE(t_gc__back_between_passes__counted_anew),
        CASE(t_gc__who_has_the_address__keeps_it),
        CASE(t_gc__two_addresses_of_a_handle__together_or_not_at_all),
        CASE(t_gc__node_gone__all_of_it_soon_tunnels_last),
        CASE(t_gc__unknown_owner_windows_machine__never),
        CASE(t_gc__machine__kept_while_it_lives_and_five_minutes_longer),
        CASE(t_gc__machine__not_released_unasked),
        CASE(t_gc__empty_blocks__all_but_the_last_given_up),
        CASE(t_gc__any_interleaving__never_frees_what_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
