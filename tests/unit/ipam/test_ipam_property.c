/* Random assignments and releases of several instances against a model, with other instances'
 * calls between any reading and its write, and with writes that fail from one on (a crash). */
#include "ipam_lab.h"

enum {
    N_INSTANCES = 4, /* two of them on one node */
    N_HANDLES = 6,   /* an instance; handles are never shared */
    N_FAMILIES = 2,
    POOL_SIZE = 64,
    MAX_HELD = 2 * POOL_SIZE,
};

static uint64_t seed_state;
static uint64_t rnd(uint64_t n) {
    seed_state ^= seed_state << 13;
    seed_state ^= seed_state >> 7;
    seed_state ^= seed_state << 17;
    return seed_state % n;
}

/* ---- the model: who has each address ---- */

struct held {
    int owner; /* instance * N_HANDLES + handle, -1: free */
    bool is_leaving;
};
static struct held model[N_FAMILIES][POOL_SIZE];
static struct ipam *instances[N_INSTANCES];
static const char *const nodes[N_INSTANCES] = {"n1", "n1", "n2", "n3"};
static bool is_strict;
static struct ipam_pool pools[N_FAMILIES];

static int depth;               /* 1: inside a call that came between */
static unsigned between_one_in; /* 0: nobody comes between */
static int64_t writes_left;     /* < 0: all succeed; else how many before a crash */
static bool has_crashed;
static bool is_one_handle; /* all assign for owner 0, nobody releases */
static int busy;           /* the instance whose call is interrupted */

static struct str handle_of(int owner, char text[32]) {
    snprintf(text, 32, "net.i%d-h%d", owner / N_HANDLES, owner % N_HANDLES);
    return str_c(text);
}

static struct held *held_at(const struct ip46 *ip) {
    int f = ip->family == IP_V6;
    assert_true(prefix_has_ip(&pools[f].cidr, ip));
    return &model[f][prefix_offset(&pools[f].cidr, ip)];
}

static struct ipam_options options(void) {
    return (struct ipam_options){
        .pools = pools, .n_pools = N_FAMILIES, .strict_affinity = is_strict};
}

/* ---- calls, mirrored in the model ---- */

static void got(const struct ip46 *ip, int owner) {
    struct held *h = held_at(ip);
    if (h->owner >= 0 && !h->is_leaving) {
        char text[IP_TEXT_MAX];
        fail_msg("%s given to %d while %d has it", ip_text(ip, text), owner, h->owner);
    }
    *h = (struct held){owner, false};
}

static void do_assign(int instance) {
    int owner = is_one_handle ? 0 : instance * N_HANDLES + (int)rnd(N_HANDLES);
    enum ip_family family = rnd(2) ? IP_V4 : IP_V6;
    size_t count = 1 + rnd(rnd(8) ? 2 : 12);
    struct ip46 out[16];
    char text[32];
    struct str handle = handle_of(owner, text);
    struct ipam_attr attr = {STR("node"), str_c(nodes[instance])};
    struct ipam_options o = options();
    struct err e = {.code = 0};
    int r = ipam_assign_auto(instances[instance], &o, family, count, handle, &attr, 1, out, &e);
    if (has_crashed) {
        return; /* whatever got written is read back by whoever injects crashes */
    }
    if (r != 0) {
        if (r != ERR_NO_SPACE) {
            fail_msg("assign: %d %s", r, e.msg);
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        got(&out[i], owner);
    }
}

static void do_assign_ip(int instance) {
    int owner = instance * N_HANDLES + (int)rnd(N_HANDLES);
    int f = (int)rnd(2);
    struct ip46 ip;
    assert_true(prefix_nth(&pools[f].cidr, rnd(POOL_SIZE), &ip));
    char text[32];
    struct str handle = handle_of(owner, text);
    struct ipam_options o = options();
    struct err e = {.code = 0};
    bool was_free = held_at(&ip)->owner < 0;
    int r = ipam_assign_ip(instances[instance], &o, &ip, handle, NULL, 0, &e);
    if (r == 0) {
        got(&ip, owner);
    } else if (!has_crashed && r != ERR_EXISTS && !(is_strict && r == ERR_DENIED)) {
        fail_msg("assign_ip: %d %s", r, e.msg);
    } else if (r == ERR_EXISTS && was_free && !has_crashed && !depth && !between_one_in) {
        fail_msg("%s, but it is free", e.msg);
    }
}

static size_t mark_leaving(int owner, bool is_leaving) {
    size_t n = 0;
    for (int f = 0; f < N_FAMILIES; f++) {
        for (int i = 0; i < POOL_SIZE; i++) {
            if (model[f][i].owner == owner) {
                model[f][i].is_leaving = is_leaving;
                n++;
            }
        }
    }
    return n;
}

static void forget_leaving(int owner) {
    for (int f = 0; f < N_FAMILIES; f++) {
        for (int i = 0; i < POOL_SIZE; i++) {
            if (model[f][i].owner == owner && model[f][i].is_leaving) {
                model[f][i] = (struct held){-1, false};
            }
        }
    }
}

static void do_release_handle(int instance) {
    int owner = instance * N_HANDLES + (int)rnd(N_HANDLES);
    char text[32];
    struct str handle = handle_of(owner, text);
    struct ip46 out[MAX_HELD];
    size_t n = 0, want = mark_leaving(owner, true);
    struct err e = {.code = 0};
    int r = ipam_release_by_handle(instances[instance], handle, out, MAX_HELD, &n, &e);
    if (r != 0 && r != ERR_NOT_FOUND && !has_crashed) {
        fail_msg("release: %d %s", r, e.msg);
    }
    if (!has_crashed) {
        assert_int_equal(n, want);
        assert_int_equal(r, want ? 0 : ERR_NOT_FOUND);
        forget_leaving(owner);
    }
}

static void do_release_ips(int instance) {
    int owner = instance * N_HANDLES + (int)rnd(N_HANDLES);
    char text[32];
    struct str handle = handle_of(owner, text);
    struct ip46 ips[2];
    size_t n = 0;
    for (int f = 0; f < N_FAMILIES; f++) {
        for (uint64_t i = 0; i < POOL_SIZE; i++) {
            if (n < 2 && model[f][i].owner == owner && rnd(2)) {
                assert_true(prefix_nth(&pools[f].cidr, i, &ips[n++]));
                model[f][i].is_leaving = true;
            }
        }
    }
    size_t released = 0;
    struct err e = {.code = 0};
    int r = ipam_release_ips(instances[instance], ips, n, handle, &released, &e);
    if (!has_crashed) {
        assert_int_equal(r, 0);
        assert_int_equal(released, n);
        forget_leaving(owner);
    }
}

static void do_any(int instance) {
    if (is_one_handle) {
        do_assign(instance);
        return;
    }
    switch (rnd(8)) {
    case 0:
    case 1:
        do_release_handle(instance);
        break;
    case 2:
        do_release_ips(instance);
        break;
    case 3:
        do_assign_ip(instance);
        break;
    default:
        do_assign(instance);
        break;
    }
}

/* ---- the store's writes ---- */

int __real_store_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                     uint64_t *revision_out, struct err *e);
int __wrap_store_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                     uint64_t *revision_out, struct err *e);
int __real_store_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e);
int __wrap_store_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e);

static bool is_crashed(void) {
    if (depth == 0 && between_one_in && rnd(between_one_in) == 0) {
        depth = 1;
        int other = (busy + 1 + (int)rnd(N_INSTANCES - 1)) % N_INSTANCES;
        do_any(other);
        depth = 0;
    }
    if (writes_left > 0) {
        writes_left--;
        return false;
    }
    has_crashed |= writes_left == 0;
    return writes_left == 0;
}

int __wrap_store_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                     uint64_t *revision_out, struct err *e) {
    if (is_crashed()) {
        return err_set(e, -EIO, "crash");
    }
    return __real_store_put(s, k, value, expect, revision_out, e);
}

int __wrap_store_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e) {
    if (is_crashed()) {
        return err_set(e, -EIO, "crash");
    }
    return __real_store_delete(s, k, expect, e);
}

/* ---- runs ---- */

static void start(uint64_t seed, bool strict) {
    seed_state = seed;
    is_strict = strict;
    depth = 0;
    between_one_in = 0;
    writes_left = -1;
    has_crashed = false;
    is_one_handle = false;
    pools[0] = lab_pool("four", "10.44.0.0/26", 29);
    pools[1] = lab_pool("six", "fd00:44::40/122", 125);
    for (int i = 0; i < N_INSTANCES; i++) {
        instances[i] = ipam_new(lab_store, str_c(nodes[i]));
    }
    for (int f = 0; f < N_FAMILIES; f++) {
        for (int i = 0; i < POOL_SIZE; i++) {
            model[f][i] = (struct held){-1, false};
        }
    }
}

static void stop(void) {
    for (int i = 0; i < N_INSTANCES; i++) {
        ipam_free(instances[i]);
    }
}

static size_t n_seen;
static void see(void *arg, const struct ip46 *ip, struct str handle, struct str ns,
                struct str pod) {
    (void)arg;
    (void)ns;
    (void)pod;
    const struct held *h = held_at(ip);
    char text[32], shown[IP_TEXT_MAX];
    if (h->owner < 0) {
        fail_msg("%s is taken in the store, free in the model", ip_text(ip, shown));
    }
    assert_true(str_eq(handle, handle_of(h->owner, text)));
    n_seen++;
}

static void compare_with_model(void) {
    struct err e = {.code = 0};
    n_seen = 0;
    assert_int_equal(ipam_each(instances[0], see, NULL, &e), 0);
    size_t want = 0;
    for (int f = 0; f < N_FAMILIES; f++) {
        for (int i = 0; i < POOL_SIZE; i++) {
            want += model[f][i].owner >= 0;
        }
    }
    assert_int_equal(n_seen, want);
}

static void release_everything(void) {
    for (int owner = 0; owner < N_INSTANCES * N_HANDLES; owner++) {
        char text[32];
        struct ip46 out[MAX_HELD];
        size_t n;
        struct err e = {.code = 0};
        int r = ipam_release_by_handle(instances[0], handle_of(owner, text), out, MAX_HELD, &n, &e);
        if (r != 0 && r != ERR_NOT_FOUND) {
            fail_msg("%s", e.msg);
        }
        (void)mark_leaving(owner, true);
        forget_leaving(owner);
    }
}

static int no_item(void *arg, const struct store_item *it) {
    (void)arg;
    fail_msg("left behind: %.*s = %.*s", STR_FMT(it->key), STR_FMT(it->value));
    return 0;
}

static void assert_no_handles(void) {
    struct err e = {.code = 0};
    struct store_key k = {STR(STORE_SPACE_IPAM), STR("/ipam/v2/handle/")};
    assert_int_equal(store_list(lab_store, k, NULL, no_item, NULL, &e), 0);
}

static void run(uint64_t seed, bool strict, unsigned one_in, int steps) {
    print_message("seed %llu strict %d between 1/%u\n", (unsigned long long)seed, strict, one_in);
    start(seed, strict);
    between_one_in = one_in;
    for (int i = 0; i < steps; i++) {
        busy = (int)rnd(N_INSTANCES);
        do_any(busy);
        if (i % 16 == 0) {
            compare_with_model();
            lab_assert_sound(instances[0]);
        }
    }
    between_one_in = 0;
    compare_with_model();
    lab_assert_sound(instances[0]);
    release_everything();
    compare_with_model();
    lab_assert_sound(instances[0]);
    assert_no_handles();
    stop();
}

static void t_ipam__random_calls__agree_with_model(void **state) {
    (void)state;
    run(88172645463325252ULL, false, 0, 800);
}
static void t_ipam__random_calls_strict__agree_with_model(void **state) {
    (void)state;
    run(1181783497276652981ULL, true, 0, 800);
}
static void t_ipam__others_between_read_and_write__agree_with_model(void **state) {
    (void)state;
    run(5995207340172331ULL, false, 3, 800);
}
/* Young stores: most claims of blocks, and two callers of one node after the same ones. */
static void t_ipam__others_between_first_claims__agree_with_model(void **state) {
    for (uint64_t seed = 1; seed <= 24; seed++) {
        run(seed * 0x9e3779b97f4a7c15ULL, seed % 2, 2, 24);
        assert_int_equal(lab_teardown(state), 0);
        (void)lab_setup(state);
    }
}
static void t_ipam__others_between_strict__agree_with_model(void **state) {
    (void)state;
    run(777767777ULL, true, 2, 800);
}

/* One handle that several assign for (a virtual machine's): its counts are right. */
static void t_ipam__one_handle_of_many__counts_agree(void **state) {
    (void)state;
    start(31337, false);
    is_one_handle = true;
    between_one_in = 2;
    for (int i = 0; i < 30; i++) {
        busy = (int)rnd(N_INSTANCES);
        do_any(busy);
    }
    between_one_in = 0;
    compare_with_model();
    assert_true(n_seen > 20);
    lab_assert_sound(instances[0]);
    release_everything();
    assert_no_handles();
    stop();
}

/* A call that dies at any of its writes: no address twice, none that its handle doesn't know; the
 * handle's release (the DEL that follows) gives all back. */
static void t_ipam__crash_at_any_write__release_repairs(void **state) {
    (void)state;
    start(424242424242ULL, false);
    for (int i = 0; i < 400; i++) {
        busy = (int)rnd(N_INSTANCES);
        int64_t n = (int64_t)rnd(9);
        if (n < 8) {
            writes_left = n;
            has_crashed = false;
            do_any(busy);
            writes_left = -1;
            if (has_crashed) {
                for (int h = 0; h < N_HANDLES; h++) {
                    int owner = busy * N_HANDLES + h;
                    char text[32];
                    struct ip46 out[MAX_HELD];
                    size_t k;
                    struct err e = {.code = 0};
                    int r = ipam_release_by_handle(instances[busy], handle_of(owner, text), out,
                                                   MAX_HELD, &k, &e);
                    assert_true(r == 0 || r == ERR_NOT_FOUND);
                    (void)mark_leaving(owner, true);
                    forget_leaving(owner);
                }
            }
        } else {
            has_crashed = false;
            do_any(busy);
        }
        compare_with_model();
    }
    has_crashed = false;
    release_everything();
    compare_with_model();
    assert_no_handles();
    /* Enough for every block: what the crashes left of affinities is repaired on the way. */
    for (int k = 0; k < N_INSTANCES; k++) {
        struct ip46 out[POOL_SIZE];
        struct ipam_options o = options();
        struct err e = {.code = 0};
        for (int f = 0; f < N_FAMILIES; f++) {
            enum ip_family family = f ? IP_V6 : IP_V4;
            if (ipam_assign_auto(instances[k], &o, family, POOL_SIZE, STR("all"), NULL, 0, out,
                                 &e) < 0) {
                fail_msg("%s", e.msg);
            }
        }
        size_t n;
        assert_int_equal(ipam_release_by_handle(instances[k], STR("all"), out, 0, &n, &e), 0);
    }
    lab_assert_sound(instances[0]);
    stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, lab_setup, lab_teardown)
        T(t_ipam__random_calls__agree_with_model),
        T(t_ipam__random_calls_strict__agree_with_model),
        T(t_ipam__others_between_read_and_write__agree_with_model),
        T(t_ipam__others_between_strict__agree_with_model),
        T(t_ipam__others_between_first_claims__agree_with_model),
        T(t_ipam__one_handle_of_many__counts_agree),
        T(t_ipam__crash_at_any_write__release_repairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
