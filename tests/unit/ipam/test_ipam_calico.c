/* A state as Calico writes it (libcalico-go/lib/backend/model, lib/ipam), taken over and given
 * back; and what Calico's protocol does beside plain assignment: reclaim, cooldown, pools that no
 * longer select a node, sequence numbers, settings, mending. */
#include "ipam_lab.h"

#include "base/clock.h"
#include "base/jtree.h"

static struct arena arena;
static int64_t now_ns;

static int64_t clock_of_test(void) {
    return now_ns;
}

static int setup(void **state) {
    now_ns = 1800000000LL * 1000000000;
    return lab_setup(state);
}
static int teardown(void **state) {
    arena_fini(&arena);
    arena = (struct arena){0};
    return lab_teardown(state);
}

static struct store_key item_key(const char *key) {
    return (struct store_key){STR(STORE_SPACE_IPAM), str_c(key)};
}

static void put(const char *key, const char *value) {
    struct err e = {.code = 0};
    if (store_put(lab_store, item_key(key), str_c(value), REV_ANY, NULL, &e) < 0) {
        fail_msg("%s: %s", key, e.msg);
    }
}

static struct jnode *get(const char *key) {
    struct store_item it;
    struct err e = {.code = 0};
    struct jnode *doc = NULL;
    int r = store_get(lab_store, item_key(key), &arena, &it, &e);
    if (r == 0 && json_parse(it.value, &json_limits_default, &arena, &doc, &e) < 0) {
        fail_msg("%s: %s", key, e.msg);
    }
    return doc;
}

static const char *json_of(const struct jnode *n) {
    struct buf b = BUF_INIT(1 << 16);
    json_write(&b, n, 0);
    const char *c = arena_cstr(&arena, buf_view(&b));
    buf_fini(&b);
    return c;
}

static struct ipam *node(const char *name) {
    struct ipam *m = ipam_new(lab_store, str_c(name));
    ipam_set_clock(m, clock_of_test);
    return m;
}

static int take(struct ipam *m, const struct ipam_options *o, enum ip_family f, const char *handle,
                char *out, struct err *e) {
    struct ip46 ip;
    int r = ipam_assign_auto(m, o, f, 1, str_c(handle), NULL, 0, &ip, e);
    if (r == 0) {
        (void)ip_text(&ip, out);
    }
    return r;
}

static void must_take(struct ipam *m, const struct ipam_options *o, const char *handle,
                      const char *want) {
    char got[IP_TEXT_MAX];
    struct err e = {.code = 0};
    if (take(m, o, IP_V4, handle, got, &e) < 0) {
        fail_msg("%s: %s", handle, e.msg);
    }
    if (want) {
        assert_string_equal(got, want);
    }
}

static void release(struct ipam *m, const char *handle) {
    struct ip46 out[8];
    size_t n;
    struct err e = {.code = 0};
    assert_int_equal(ipam_release_by_handle(m, str_c(handle), out, 8, &n, &e), 0);
}

#define BLOCK "/ipam/v2/assignment/ipv4/block/10.44.7.0-29"
#define BLOCK6 "/ipam/v2/assignment/ipv6/block/fd00:44::-125"

/* Two nodes' worth, as Go prints it: a tunnel, two pods, a borrowed address, a Service's, one that
 * cools down, one of a version to come. */
static void put_calicos_state(void) {
    put(BLOCK,
        "{\"cidr\":\"10.44.7.0/29\",\"affinity\":\"host:n1\",\"affinity_claim_time\":"
        "\"2026-01-02T03:04:05Z\",\"allocations\":[0,1,null,2,3,4,null,null],\"unallocated\":[7,2,"
        "6],"
        "\"attributes\":[{\"handle_id\":\"vxlan-tunnel-addr-n1\",\"secondary\":{\"node\":\"n1\","
        "\"type\":\"vxlanTunnelAddress\"}},{\"handle_id\":\"k8s-pod-network.4f0c\",\"secondary\":"
        "{\"namespace\":\"shop\",\"node\":\"n1\",\"pod\":\"web-7\",\"timestamp\":"
        "\"2026-01-02 03:04:05.6 +0000 "
        "UTC\"}},{\"handle_id\":\"k8s-pod-network.77aa\",\"secondary\":"
        "{\"namespace\":\"shop\",\"node\":\"n2\",\"pod\":\"db-0\"},\"alternateOwnerAttrs\":null},"
        "{\"handle_id\":null,\"secondary\":null,\"releasedAt\":\"2027-01-15T07:59:50Z\"},"
        "{\"handle_id\":\"k8s-pod-network.5511\",\"secondary\":{\"namespace\":\"shop\",\"node\":"
        "\"n1\","
        "\"pod\":\"new\"},\"ofAVersionToCome\":{\"a\":[1,2.5]}}],"
        "\"sequenceNumber\":1767323045000000000,\"sequenceNumberForAllocation\":{\"0\":"
        "1767323045000000001,\"1\":1767323045000000002,\"3\":1767323045000000003,\"5\":"
        "1767323045000000005},\"deleted\":false,\"topOfAVersionToCome\":\"kept\"}");
    put("/ipam/v2/host/n1/ipv4/block/10.44.7.0-29", "{\"state\":\"confirmed\",\"deleted\":false}");
    put("/ipam/v2/host/n1", "{}");
    put("/ipam/v2/handle/vxlan-tunnel-addr-n1",
        "{\"block\":{\"10.44.7.0/29\":1},\"deleted\":false}");
    put("/ipam/v2/handle/k8s-pod-network.4f0c",
        "{\"block\":{\"10.44.7.0/29\":1,\"fd00:44::/125\":1},\"deleted\":false}");
    put("/ipam/v2/handle/k8s-pod-network.77aa",
        "{\"block\":{\"10.44.7.0/29\":1},\"deleted\":false}");
    put("/ipam/v2/handle/k8s-pod-network.5511",
        "{\"block\":{\"10.44.7.0/29\":1},\"deleted\":false,\"keep\":true}");
    put(BLOCK6,
        "{\"cidr\":\"fd00:44::/125\",\"affinity\":\"host:n1\",\"allocations\":[null,null,null,"
        "0,null,null,null,null],\"unallocated\":[4,5,6,7,0,1,2],\"attributes\":[{\"handle_id\":"
        "\"k8s-pod-network.4f0c\",\"secondary\":{\"namespace\":\"shop\",\"node\":\"n1\","
        "\"pod\":\"web-7\"}}],\"sequenceNumber\":9,\"deleted\":false}");
    put("/ipam/v2/host/n1/ipv6/block/fd00:44::-125", "{\"state\":\"confirmed\",\"deleted\":false}");
    put("/ipam/v2/config", "{\"strict_affinity\":false,\"auto_allocate_blocks\":true,"
                           "\"maxBlocksPerHost\":0,\"ipCooldownSeconds\":60}");
}

struct seen {
    struct buf text;
};
static void see(void *arg, const struct ipam_allocation *x) {
    struct seen *s = arg;
    char text[IP_TEXT_MAX];
    buf_printf(&s->text, "%s %.*s %.*s\n", ip_text(&x->ip, text), STR_FMT(x->handle),
               STR_FMT(x->pod));
}

static const char *allocations(struct ipam *m) {
    struct seen s = {BUF_INIT(1 << 16)};
    struct err e = {.code = 0};
    assert_int_equal(ipam_allocations(m, see, &s, &e), 0);
    const char *c = arena_cstr(&arena, buf_view(&s.text));
    buf_fini(&s.text);
    return c;
}

static void t_ipam__calicos_state__used_and_given_back(void **state) {
    (void)state;
    put_calicos_state();
    struct ipam *m = node("n1");
    struct err e = {.code = 0};
    struct ipam_pool p[] = {lab_pool("p", "10.44.7.0/29", 29),
                            lab_pool("six", "fd00:44::/125", 125)};
    struct ipam_options o = {.pools = p, .n_pools = 2, .strict_affinity = true};
    char got[IP_TEXT_MAX];
    assert_int_equal(ipam_settings_heed(m, &e), 0);
    lab_assert_sound(m);
    const char *before = allocations(m);
    assert_non_null(strstr(before, "10.44.7.3 k8s-pod-network.77aa db-0\n"));
    /* The queue's order is Calico's; a cooling address is not given out. */
    must_take(m, &o, "net.a", "10.44.7.7");
    must_take(m, &o, "net.b", "10.44.7.2");
    must_take(m, &o, "net.c", "10.44.7.6");
    assert_int_equal(take(m, &o, IP_V4, "net.d", got, &e), ERR_NO_SPACE);
    assert_int_equal(take(m, &o, IP_V6, "net.d", got, &e), 0);
    assert_string_equal(got, "fd00:44::4");
    now_ns += 120LL * 1000000000;
    must_take(m, &o, "net.e", "10.44.7.4");
    release(m, "net.a");
    release(m, "net.b");
    release(m, "net.c");
    release(m, "net.d");
    release(m, "net.e");
    struct jnode *b = get(BLOCK);
    assert_string_equal(json_of(jnode_getc(b, "topOfAVersionToCome")), "\"kept\"");
    assert_non_null(strstr(json_of(b), "\"ofAVersionToCome\":{\"a\":[1,2.5]}"));
    assert_string_equal(json_of(jnode_path(b, "sequenceNumberForAllocation")),
                        "{\"0\":1767323045000000001,\"1\":1767323045000000002,"
                        "\"3\":1767323045000000003,\"5\":1767323045000000005}");
    assert_true(jnode_path(b, "sequenceNumber")->i > 1767323045000000000);
    assert_string_equal(json_of(jnode_getc(get("/ipam/v2/handle/k8s-pod-network.5511"), "keep")),
                        "true");
    lab_assert_sound(m);
    /* A pod of Calico's goes by its own handle, both families. */
    release(m, "k8s-pod-network.4f0c");
    assert_null(get("/ipam/v2/handle/k8s-pod-network.4f0c"));
    now_ns += 120LL * 1000000000;
    must_take(m, &o, "net.f", NULL);
    release(m, "net.f");
    now_ns += 120LL * 1000000000;
    must_take(m, &o, "net.g", NULL);
    release(m, "net.g");
    assert_null(strstr(allocations(m), "4f0c"));
    assert_non_null(strstr(allocations(m), "10.44.7.5 k8s-pod-network.5511 new\n"));
    lab_assert_sound(m);
    ipam_free(m);
}

/* Released, it rests in the block as {"releasedAt"}, without a handle, and counts as in use. */
static void t_ipam__cooldown__address_rests(void **state) {
    (void)state;
    struct ipam *m = node("n1");
    struct err e = {.code = 0};
    struct ipam_pool p = lab_pool("p", "10.44.7.0/31", 31);
    struct ipam_options o = {.pools = &p, .n_pools = 1};
    char got[IP_TEXT_MAX];
    ipam_set_cooldown(m, 30);
    must_take(m, &o, "a", "10.44.7.0");
    must_take(m, &o, "b", "10.44.7.1");
    release(m, "a");
    struct jnode *b = get("/ipam/v2/assignment/ipv4/block/10.44.7.0-31");
    assert_string_equal(json_of(jnode_getc(b, "attributes")),
                        "[{\"handle_id\":\"b\",\"secondary\":{}},{\"releasedAt\":"
                        "\"2027-01-15T08:00:00Z\"}]");
    assert_int_equal(jnode_getc(b, "unallocated")->n, 0);
    assert_int_equal(take(m, &o, IP_V4, "c", got, &e), ERR_NO_SPACE);
    now_ns += 29LL * 1000000000;
    assert_int_equal(take(m, &o, IP_V4, "c", got, &e), ERR_NO_SPACE);
    lab_assert_sound(m);
    now_ns += 2LL * 1000000000;
    must_take(m, &o, "c", "10.44.7.0");
    /* Who doesn't know the setting frees none before the longest time is over. */
    release(m, "c");
    struct ipam *other = node("n2");
    now_ns += 40LL * 1000000000;
    assert_int_equal(take(other, &o, IP_V4, "d", got, &e), ERR_NO_SPACE);
    now_ns += 1200LL * 1000000000;
    must_take(other, &o, "d", "10.44.7.0");
    lab_assert_sound(m);
    ipam_free(other);
    ipam_free(m);
}

static void t_ipam__others_empty_block__reclaimed_after_a_minute(void **state) {
    (void)state;
    struct ipam *m1 = node("n1"), *m2 = node("n2");
    struct err e = {.code = 0};
    struct ipam_pool p = lab_pool("p", "10.44.7.0/29", 30);
    struct ipam_options o = {.pools = &p, .n_pools = 1, .strict_affinity = true};
    char got[IP_TEXT_MAX];
    struct ip46 five[5];
    assert_int_equal(ipam_assign_auto(m1, &o, IP_V4, 5, STR("a"), NULL, 0, five, &e), 0);
    release(m1, "a");
    must_take(m1, &o, "b", NULL); /* one block in use, one empty, both n1's */
    assert_int_equal(take(m2, &o, IP_V4, "c", got, &e), ERR_NO_SPACE);
    now_ns += 59LL * 1000000000;
    assert_int_equal(take(m2, &o, IP_V4, "c", got, &e), ERR_NO_SPACE);
    now_ns += 2LL * 1000000000;
    o.no_new_blocks = true;
    assert_int_equal(take(m2, &o, IP_V4, "c", got, &e), ERR_NO_SPACE);
    o.no_new_blocks = false;
    must_take(m2, &o, "c", NULL);
    lab_assert_sound(m1);
    /* The one in use is not taken, however old. */
    now_ns += 3600LL * 1000000000;
    struct ip46 four[4];
    assert_int_equal(ipam_assign_auto(m2, &o, IP_V4, 4, STR("d"), NULL, 0, four, &e), ERR_NO_SPACE);
    lab_assert_sound(m1);
    ipam_free(m1);
    ipam_free(m2);
}

static void t_ipam__pool_selects_node_no_more__empty_block_given_up(void **state) {
    (void)state;
    struct ipam *m = node("n1");
    struct ipam_pool p[] = {lab_pool("old", "10.44.7.0/29", 29),
                            lab_pool("new", "10.44.8.0/29", 29)};
    struct ipam_options o = {.pools = p, .n_pools = 1};
    must_take(m, &o, "a", "10.44.7.0");
    o = (struct ipam_options){.pools = p + 1, .n_pools = 1, .refusing = p, .n_refusing = 1};
    must_take(m, &o, "b", "10.44.8.0");
    assert_non_null(get(BLOCK)); /* in use */
    release(m, "a");
    must_take(m, &o, "c", "10.44.8.1");
    assert_null(get(BLOCK));
    assert_null(get("/ipam/v2/host/n1/ipv4/block/10.44.7.0-29"));
    lab_assert_sound(m);
    ipam_free(m);
}

static void t_ipam__release_by_number__only_that_allocation(void **state) {
    (void)state;
    struct ipam *m = node("n1");
    struct err e = {.code = 0};
    struct ipam_pool p = lab_pool("p", "10.44.7.0/29", 29);
    struct ipam_options o = {.pools = &p, .n_pools = 1};
    must_take(m, &o, "a", "10.44.7.0");
    int64_t number = jnode_path(get(BLOCK), "sequenceNumberForAllocation.0")->i;
    struct ipam_exact v = {lab_ip("10.44.7.0"), STR("a"), number + 1};
    size_t n;
    assert_int_equal(ipam_release_exact(m, &v, 1, &n, &e), 0);
    assert_int_equal(n, 0);
    v = (struct ipam_exact){lab_ip("10.44.7.0"), STR("b"), number};
    assert_int_equal(ipam_release_exact(m, &v, 1, &n, &e), 0);
    assert_int_equal(n, 0);
    v.handle = STR("a");
    assert_int_equal(ipam_release_exact(m, &v, 1, &n, &e), 0);
    assert_int_equal(n, 1);
    lab_assert_sound(m);
    ipam_free(m);
}

static void t_ipam__settings__the_newer_of_item_and_resource(void **state) {
    (void)state;
    struct ipam_settings v;
    struct err e = {.code = 0};
    struct store_key resource = {STR(STORE_SPACE_RESOURCES),
                                 STR("IPAMConfiguration.projectcalico.org//default")};
    assert_int_equal(ipam_settings_read(lab_store, &v, &e), 0);
    assert_true(!v.strict_affinity && v.auto_blocks && !v.max_blocks && v.vm_persistence);
    put("/ipam/v2/config", "{\"strict_affinity\":true,\"auto_allocate_blocks\":false,"
                           "\"maxBlocksPerHost\":3,\"kubeVirtVMAddressPersistence\":\"Disabled\"}");
    assert_int_equal(ipam_settings_read(lab_store, &v, &e), 0);
    assert_true(v.strict_affinity && !v.auto_blocks && v.max_blocks == 3 && !v.vm_persistence);
    assert_int_equal(store_put(lab_store, resource,
                               STR("{\"kind\":\"IPAMConfiguration\",\"apiVersion\":"
                                   "\"projectcalico.org/v3\",\"metadata\":{\"name\":\"default\"},"
                                   "\"spec\":{\"strictAffinity\":false,\"ipCooldownSeconds\":9}}"),
                               REV_ANY, NULL, &e),
                     0);
    assert_int_equal(ipam_settings_read(lab_store, &v, &e), 0);
    assert_true(!v.strict_affinity && v.auto_blocks && !v.max_blocks && v.cooldown_s == 9);
    v.max_blocks = 7;
    assert_int_equal(ipam_settings_write(lab_store, &v, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "strictAffinity"));
    v.strict_affinity = true;
    assert_int_equal(ipam_settings_write(lab_store, &v, &e), 0);
    assert_string_equal(json_of(jnode_getc(get("/ipam/v2/config"), "maxBlocksPerHost")), "7");
    struct store_item it;
    assert_int_equal(store_get(lab_store, resource, &arena, &it, &e), 0);
    assert_true(str_contains(it.value, STR("\"strictAffinity\":true")));
    assert_int_equal(ipam_settings_read(lab_store, &v, &e), 0);
    assert_true(v.strict_affinity && v.max_blocks == 7 && v.cooldown_s == 9);
}

static struct ipam_fault faults[16];
static size_t n_faults;
static void keep(void *arg, const struct ipam_fault *f) {
    (void)arg;
    assert_true(n_faults < 16);
    faults[n_faults] = *f;
    faults[n_faults].name = arena_dup(&arena, f->name);
    faults[n_faults++].text = arena_dup(&arena, f->text);
}

/* One of each kind; nobody's address changes. */
static void t_ipam__faults__mended(void **state) {
    (void)state;
    struct ipam *m = node("n1");
    struct err e = {.code = 0};
    put_calicos_state();
    put("/ipam/v2/host/n2/ipv4/block/10.44.7.0-29", "{\"state\":\"confirmed\"}"); /* n1's */
    put("/ipam/v2/host/n2/ipv4/block/10.44.9.0-29", "{\"state\":\"pending\"}");   /* no block */
    put("/ipam/v2/virtual/load-balancer/ipv4/block/10.44.9.8-29", "{}");          /* no block */
    put("/ipam/v2/handle/k8s-pod-network.gone", "{\"block\":{\"10.44.7.0/29\":1}}");
    put("/ipam/v2/handle/k8s-pod-network.5511", "{\"block\":{\"10.44.7.0/29\":4}}");
    assert_int_equal(
        store_delete(lab_store, item_key("/ipam/v2/handle/k8s-pod-network.77aa"), REV_ANY, &e), 0);
    assert_int_equal(
        store_delete(lab_store, item_key("/ipam/v2/host/n1/ipv6/block/fd00:44::-125"), REV_ANY, &e),
        0);
    /* 2 and 3 of an own block are in nobody's hand. */
    put("/ipam/v2/assignment/ipv4/block/10.44.10.0-30",
        "{\"cidr\":\"10.44.10.0/"
        "30\",\"affinity\":\"host:n3\",\"allocations\":[null,null,null,null],"
        "\"unallocated\":[0,1],\"attributes\":[]}");
    put("/ipam/v2/host/n3/ipv4/block/10.44.10.0-30", "{\"state\":\"confirmed\"}");
    /* Over n1's block, and empty. */
    put("/ipam/v2/assignment/ipv4/block/10.44.7.4-30",
        "{\"cidr\":\"10.44.7.4/30\",\"affinity\":\"host:n3\",\"allocations\":[null,null,null,null],"
        "\"unallocated\":[0,1,2,3],\"attributes\":[]}");
    put("/ipam/v2/host/n3/ipv4/block/10.44.7.4-30", "{\"state\":\"confirmed\"}");
    const char *before = allocations(m);
    n_faults = 0;
    assert_int_equal(ipam_faults(m, keep, NULL, &e), 9);
    size_t kinds[IPAM_HANDLE + 1] = {0};
    for (size_t i = 0; i < n_faults; i++) {
        kinds[faults[i].kind]++;
        if (ipam_mend(m, &faults[i], &e) < 0) {
            fail_msg("%.*s: %s", STR_FMT(faults[i].text), e.msg);
        }
    }
    assert_int_equal(kinds[IPAM_OVERLAP], 1);
    assert_int_equal(kinds[IPAM_LOST], 1);
    assert_int_equal(kinds[IPAM_STRAY_AFFINITY], 3);
    assert_int_equal(kinds[IPAM_NO_AFFINITY], 1);
    assert_int_equal(kinds[IPAM_HANDLE], 3);
    lab_assert_sound(m);
    assert_string_equal(before, allocations(m));
    /* Twice does no harm. */
    for (size_t i = 0; i < n_faults; i++) {
        assert_int_equal(ipam_mend(m, &faults[i], &e), 0);
    }
    lab_assert_sound(m);
    ipam_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(t_ipam__calicos_state__used_and_given_back),
        T(t_ipam__cooldown__address_rests),
        T(t_ipam__others_empty_block__reclaimed_after_a_minute),
        T(t_ipam__pool_selects_node_no_more__empty_block_given_up),
        T(t_ipam__release_by_number__only_that_allocation),
        T(t_ipam__settings__the_newer_of_item_and_resource),
        T(t_ipam__faults__mended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
