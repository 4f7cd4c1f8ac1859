/* What a crash, an old version, another node or a hand left in the store: repaired by the next use,
 * kept, or refused by name. And reservations. */
#include "ipam_lab.h"

#include "base/jtree.h"

static struct arena arena;
static const struct ipam_pool small = {{"small", 5}, {{IP_V4, {10, 44, 7, 0}}, 29}, 30};

static int setup(void **state) {
    return lab_setup(state);
}
static int teardown(void **state) {
    arena_fini(&arena);
    arena = (struct arena){0};
    return lab_teardown(state);
}

static struct ipam_options with_pools(const struct ipam_pool *p, size_t n) {
    return (struct ipam_options){.pools = p, .n_pools = n};
}

static struct store_key item_key(const char *key) {
    return (struct store_key){STR(STORE_SPACE_IPAM), str_c(key)};
}

static bool has_item(const char *key) {
    struct store_item it;
    struct err e = {.code = 0};
    return store_get(lab_store, item_key(key), &arena, &it, &e) == 0;
}

static struct jnode *item(const char *key) {
    struct store_item it;
    struct err e = {.code = 0};
    struct jnode *doc = NULL;
    if (store_get(lab_store, item_key(key), &arena, &it, &e) < 0 ||
        json_parse(it.value, &json_limits_default, &arena, &doc, &e) < 0) {
        fail_msg("%s: %s", key, e.msg);
    }
    return doc;
}

static const char *text_at(const char *key, const char *path) {
    struct str s = jnode_str(jnode_path(item(key), path));
    return s.p ? arena_cstr(&arena, s) : "(none)";
}

static const char *json_of(const struct jnode *n) {
    struct buf b = BUF_INIT(1 << 16);
    json_write(&b, n, 0);
    const char *c = arena_cstr(&arena, buf_view(&b));
    buf_fini(&b);
    return c;
}

static void put_item(const char *key, const char *value) {
    struct err e = {.code = 0};
    if (store_put(lab_store, item_key(key), str_c(value), REV_ANY, NULL, &e) < 0) {
        fail_msg("%s: %s", key, e.msg);
    }
}

/* One IPv4 address, or the code. */
static int take_one(struct ipam *m, const struct ipam_options *o, const char *handle, char *out,
                    struct err *e) {
    struct ip46 ip;
    int r = ipam_assign_auto(m, o, IP_V4, 1, str_c(handle), NULL, 0, &ip, e);
    if (r == 0) {
        (void)ip_text(&ip, out);
    }
    return r;
}

static void must_take(struct ipam *m, const struct ipam_options *o, const char *handle,
                      const char *want) {
    char got[IP_TEXT_MAX];
    struct err e = {.code = 0};
    if (take_one(m, o, handle, got, &e) < 0) {
        fail_msg("%s: %s", handle, e.msg);
    }
    if (want) {
        assert_string_equal(got, want);
    }
}

static int take_ip(struct ipam *m, const struct ipam_options *o, const char *ip, const char *handle,
                   struct err *e) {
    struct ip46 a = lab_ip(ip);
    return ipam_assign_ip(m, o, &a, str_c(handle), NULL, 0, e);
}

static void must_release(struct ipam *m, const char *handle, size_t want) {
    struct ip46 out[64];
    size_t n = 0;
    struct err e = {.code = 0};
    if (ipam_release_by_handle(m, str_c(handle), out, 64, &n, &e) < 0) {
        fail_msg("%s: %s", handle, e.msg);
    }
    assert_int_equal(n, want);
}

static void assert_has(const char *text, const char *part) {
    if (!strstr(text, part)) {
        fail_msg("\"%s\" lacks \"%s\"", text, part);
    }
}

#define NEW(name, node) struct ipam *name = ipam_new(lab_store, STR(node))

static void t_ipam__fields_of_others__stay(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    put_item("/ipam/v2/host/n1/ipv4/block/10.44.7.0-30", "");
    /* A cooling address (no handle), an attribute nobody uses, a name cut at \r, the old field. */
    put_item("/ipam/v2/assignment/ipv4/block/10.44.7.0-30",
             "{\"cidr\":\"10.44.7.0/30\",\"hostAffinity\":\"n1\",\"affinity\":\"host:n1\","
             "\"allocations\":[2,null,1,null],\"unallocated\":[3,1],\"attributes\":["
             "{\"handle_id\":\"unused\",\"secondary\":null},"
             "{\"handle_id\":\"old\\r\\u0001\",\"secondary\":{\"pod\":\"p\"},"
             "\"alternateOwnerAttrs\":{\"pod\":\"q\"}},"
             "{\"releasedAt\":\"2999-01-02T03:04:05Z\"}],"
             "\"sequenceNumber\":5,\"deleted\":false}");
    put_item("/ipam/v2/handle/old", "{\"block\":{\"10.44.7.0/30\":1},\"deleted\":false}");
    must_take(m, &o, "new", "10.44.7.3");
    const char *key = "/ipam/v2/assignment/ipv4/block/10.44.7.0-30";
    struct jnode *attrs = jnode_getc(item(key), "attributes");
    assert_int_equal(attrs->n, 3);
    assert_string_equal(json_of(attrs->child),
                        "{\"handle_id\":\"old\\u000d\\u0001\",\"secondary\":{\"pod\":\"p\"},"
                        "\"alternateOwnerAttrs\":{\"pod\":\"q\"}}");
    assert_string_equal(json_of(jnode_getc(item(key), "allocations")), "[1,null,0,2]");
    lab_assert_sound(m);
    must_release(m, "old", 1);
    lab_assert_sound(m);
    ipam_free(m);
}

static void t_ipam__reserved__skipped_unless_asked_for(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_pool p = lab_pool("p", "10.44.7.0/28", 30);
    /* Two halves of the first block, the second whole, part of the third. */
    struct prefix reserved[] = {lab_prefix("10.44.7.0/31"), lab_prefix("10.44.7.2/31"),
                                lab_prefix("10.44.7.4/30"), lab_prefix("10.44.7.8/31")};
    struct ipam_options o = with_pools(&p, 1);
    o.reserved = reserved;
    o.n_reserved = ARRAY_LEN(reserved);
    struct ip46 ips[7];
    struct err e = {.code = 0};
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 7, STR("h"), NULL, 0, ips, &e), ERR_NO_SPACE);
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 6, STR("h"), NULL, 0, ips, &e), 0);
    for (int i = 0; i < 6; i++) {
        for (size_t k = 0; k < o.n_reserved; k++) {
            assert_false(prefix_has_ip(&reserved[k], &ips[i]));
        }
    }
    /* No block is claimed that has nothing to give. */
    assert_false(has_item("/ipam/v2/assignment/ipv4/block/10.44.7.0-30"));
    assert_false(has_item("/ipam/v2/host/n1/ipv4/block/10.44.7.0-30"));
    assert_false(has_item("/ipam/v2/assignment/ipv4/block/10.44.7.4-30"));
    assert_int_equal(take_ip(m, &o, "10.44.7.5", "x", &e), 0);
    lab_assert_sound(m);
    ipam_free(m);
}

static void t_ipam__pending_affinity__confirmed_by_next_use(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    must_take(m, &o, "a", NULL);
    const char *key = has_item("/ipam/v2/host/n1/ipv4/block/10.44.7.0-30")
                          ? "/ipam/v2/host/n1/ipv4/block/10.44.7.0-30"
                          : "/ipam/v2/host/n1/ipv4/block/10.44.7.4-30";
    const char *states[] = {"{\"state\":\"pending\",\"deleted\":false}",
                            "{\"state\":\"pendingDeletion\",\"deleted\":false}"};
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        put_item(key, states[i]);
        must_take(m, &o, "b", NULL);
        assert_string_equal(text_at(key, "state"), "confirmed");
    }
    lab_assert_sound(m);
    ipam_free(m);
}

static void t_ipam__affinity_for_anothers_block__dropped(void **state) {
    (void)state;
    NEW(m1, "n1");
    NEW(m2, "n2");
    struct ipam_options o = with_pools(&small, 1);
    struct err e = {.code = 0};
    assert_int_equal(take_ip(m1, &o, "10.44.7.0", "a", &e), 0);
    put_item("/ipam/v2/host/n2/ipv4/block/10.44.7.0-30", "{\"state\":\"pending\"}");
    o.max_blocks = 1; /* a block that isn't ours doesn't count */
    must_take(m2, &o, "b", "10.44.7.4");
    assert_false(has_item("/ipam/v2/host/n2/ipv4/block/10.44.7.0-30"));
    lab_assert_sound(m1);
    ipam_free(m1);
    ipam_free(m2);
}

/* The block says it is ours, the affinity is gone: found again, not lost. */
static void t_ipam__own_block_without_affinity__taken_up_again(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_pool p = lab_pool("p", "10.44.7.0/30", 30);
    struct ipam_options o = with_pools(&p, 1);
    must_take(m, &o, "a", "10.44.7.0");
    struct err e = {.code = 0};
    const char *key = "/ipam/v2/host/n1/ipv4/block/10.44.7.0-30";
    assert_int_equal(store_delete(lab_store, item_key(key), REV_ANY, &e), 0);
    struct buf b = BUF_INIT(4096);
    assert_int_equal(ipam_check(m, lab_note, &b, &e), 1);
    assert_has(buf_cstr(&b), "10.44.7.0/30");
    buf_fini(&b);
    o.strict_affinity = true;
    must_take(m, &o, "b", "10.44.7.1");
    assert_string_equal(text_at(key, "state"), "confirmed");
    lab_assert_sound(m);
    ipam_free(m);
}

static void t_ipam__handle_counts_too_many__release_clears_it(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    struct err e = {.code = 0};
    assert_int_equal(take_ip(m, &o, "10.44.7.0", "a", &e), 0);
    put_item("/ipam/v2/handle/a",
             "{\"block\":{\"10.44.7.0/30\":3,\"10.44.7.4/30\":1},\"deleted\":false}");
    struct buf b = BUF_INIT(4096);
    assert_int_equal(ipam_check(m, lab_note, &b, &e), 2);
    buf_fini(&b);
    must_release(m, "a", 1);
    assert_false(has_item("/ipam/v2/handle/a"));
    lab_assert_sound(m);
    ipam_free(m);
}

static void t_ipam__bad_block__refused_by_name(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    put_item("/ipam/v2/host/n1/ipv4/block/10.44.7.0-30", "{\"state\":\"confirmed\"}");
    const char *bad[] = {
        "",
        "[]",
        "{\"cidr\":\"10.44.7.0/30\"",
        "{\"cidr\":\"10.44.7.1/30\",\"allocations\":[null,null,null,null]}",
        "{\"cidr\":\"10.0.0.0/8\",\"allocations\":[]}",
        "{\"cidr\":\"10.44.7.4/"
        "30\",\"affinity\":\"host:n1\",\"allocations\":[null,null,null,null]}",
        "{\"cidr\":\"10.44.7.0/30\",\"allocations\":[null,null,null]}",
        "{\"cidr\":\"10.44.7.0/30\",\"allocations\":[null,null,null,null,null]}",
        "{\"cidr\":\"10.44.7.0/30\",\"allocations\":[0,null,null,null],\"attributes\":[]}",
        "{\"cidr\":\"10.44.7.0/30\",\"allocations\":[-1,null,null,null],\"attributes\":[{}]}",
        "{\"cidr\":\"10.44.7.0/30\",\"allocations\":[0,null,null,null],\"attributes\":[{}],"
        "\"unallocated\":[0]}",
        "{\"cidr\":\"10.44.7.0/30\",\"allocations\":[null,null,null,null],\"unallocated\":[1,1]}",
        "{\"cidr\":\"10.44.7.0/30\",\"allocations\":[null,null,null,null],\"unallocated\":[4]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        put_item("/ipam/v2/assignment/ipv4/block/10.44.7.0-30", bad[i]);
        char got[IP_TEXT_MAX];
        struct err e = {.code = 0};
        int r = take_one(m, &o, "a", got, &e);
        if (r != ERR_CORRUPT) {
            fail_msg("%s: %d", bad[i], r);
        }
        assert_has(e.msg, "10.44.7.0");
        struct buf b = BUF_INIT(4096);
        int n = ipam_check(m, lab_note, &b, &e);
        if (n < 1) {
            fail_msg("%s: check finds %d (%s)", bad[i], n, e.msg);
        }
        assert_has(buf_cstr(&b), "10.44.7.0");
        buf_fini(&b);
    }
    ipam_free(m);
}

/* As many attributes as addresses, none of them used: room for one more all the same. */
static void t_ipam__attributes_nobody_uses__dropped(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    put_item("/ipam/v2/host/n1/ipv4/block/10.44.7.0-30", "{}");
    put_item("/ipam/v2/assignment/ipv4/block/10.44.7.0-30",
             "{\"cidr\":\"10.44.7.0/30\",\"affinity\":\"host:n1\","
             "\"allocations\":[null,null,null,null],\"unallocated\":[0,1,2,3],"
             "\"attributes\":[{\"a\":1},{\"a\":2},{\"a\":3},{\"a\":4},{\"a\":5}]}");
    must_take(m, &o, "a", "10.44.7.0");
    must_take(m, &o, "b", "10.44.7.1");
    assert_int_equal(
        jnode_getc(item("/ipam/v2/assignment/ipv4/block/10.44.7.0-30"), "attributes")->n, 2);
    lab_assert_sound(m);
    ipam_free(m);
}

/* Nobody's block goes with its last address. */
static void t_ipam__block_without_affinity__deleted_when_empty(void **state) {
    (void)state;
    NEW(m, "n1");
    const char *key = "/ipam/v2/assignment/ipv4/block/10.44.7.0-30";
    put_item(key, "{\"cidr\":\"10.44.7.0/30\",\"affinity\":null,\"allocations\":[0,null,1,null],"
                  "\"unallocated\":[1,3],\"attributes\":[{\"handle_id\":\"a\",\"secondary\":{}},"
                  "{\"handle_id\":\"b\",\"secondary\":{}}]}");
    put_item("/ipam/v2/handle/a", "{\"block\":{\"10.44.7.0/30\":1},\"deleted\":false}");
    put_item("/ipam/v2/handle/b", "{\"block\":{\"10.44.7.0/30\":1},\"deleted\":false}");
    must_release(m, "a", 1);
    assert_true(has_item(key));
    assert_string_equal(json_of(jnode_getc(item(key), "affinity")), "null");
    must_release(m, "b", 1);
    assert_false(has_item(key));
    lab_assert_sound(m);
    ipam_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(t_ipam__fields_of_others__stay),
        T(t_ipam__reserved__skipped_unless_asked_for),
        T(t_ipam__pending_affinity__confirmed_by_next_use),
        T(t_ipam__affinity_for_anothers_block__dropped),
        T(t_ipam__own_block_without_affinity__taken_up_again),
        T(t_ipam__handle_counts_too_many__release_clears_it),
        T(t_ipam__bad_block__refused_by_name),
        T(t_ipam__attributes_nobody_uses__dropped),
        T(t_ipam__block_without_affinity__deleted_when_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
