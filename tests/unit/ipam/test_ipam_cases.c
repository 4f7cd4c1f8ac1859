/* What one call does: names and shapes in the store (libcalico-go/lib/ipam, lib/backend/model),
 * order of addresses, limits, refusals, repair of what a crash or another left. */
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

/* ---- shapes ---- */

/* lib/backend/model: ipam_block.go, ipam_affinity.go (block_affinity.go), ipam_handle.go. */
static void t_ipam__store__calicos_keys_and_fields(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_pool p = lab_pool("p", "10.44.7.0/26", 26);
    struct ipam_options o = with_pools(&p, 1);
    struct ipam_attr attrs[] = {{STR("pod"), STR("web-7")}, {STR("namespace"), STR("shop")}};
    struct ip46 ips[2];
    struct err e = {.code = 0};
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 2, STR("net.4f0c"), attrs, 2, ips, &e), 0);

    const char *key = "/ipam/v2/assignment/ipv4/block/10.44.7.0-26";
    struct jnode *b = item(key);
    const char *fields[] = {"cidr",        "affinity",       "affinity_claim_time",
                            "allocations", "unallocated",    "attributes",
                            "deleted",     "sequenceNumber", "sequenceNumberForAllocation"};
    assert_int_equal(b->n, ARRAY_LEN(fields));
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (!jnode_getc(b, fields[i])) {
            fail_msg("%s is missing", fields[i]);
        }
    }
    assert_string_equal(text_at(key, "cidr"), "10.44.7.0/26");
    assert_string_equal(text_at(key, "affinity"), "host:n1");
    assert_int_equal(jnode_getc(b, "allocations")->n, 64);
    assert_int_equal(jnode_getc(b, "unallocated")->n, 62);
    assert_int_equal(jnode_getc(b, "unallocated")->child->i, 2);
    assert_string_equal(json_of(jnode_getc(b, "attributes")),
                        "[{\"handle_id\":\"net.4f0c\",\"secondary\":{\"pod\":\"web-7\","
                        "\"namespace\":\"shop\"}}]");
    assert_int_equal(jnode_getc(b, "sequenceNumberForAllocation")->n, 2);
    assert_non_null(jnode_path(b, "sequenceNumberForAllocation.1"));
    assert_string_equal(json_of(item("/ipam/v2/host/n1/ipv4/block/10.44.7.0-26")),
                        "{\"state\":\"confirmed\",\"deleted\":false}");
    assert_string_equal(json_of(item("/ipam/v2/handle/net.4f0c")),
                        "{\"block\":{\"10.44.7.0/26\":2},\"deleted\":false}");
    must_release(m, "net.4f0c", 2);
    assert_false(has_item("/ipam/v2/handle/net.4f0c"));
    assert_string_equal(json_of(jnode_getc(item(key), "attributes")), "[]");
    lab_assert_sound(m);
    ipam_free(m);
}

static void t_ipam__ipv6__keys_and_offsets(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_pool p = lab_pool("six", "fd00:44::/64", 122);
    struct ipam_options o = with_pools(&p, 1);
    struct ip46 ips[3];
    struct err e = {.code = 0};
    assert_int_equal(ipam_assign_auto(m, &o, IP_V6, 3, STR("h"), NULL, 0, ips, &e), 0);
    for (int i = 0; i < 3; i++) {
        assert_true(prefix_has_ip(&p.cidr, &ips[i]));
    }
    assert_int_equal(ips[2].b[15], ips[0].b[15] + 2);
    /* The last address of the pool: an offset of 2^64 - 1. */
    assert_int_equal(take_ip(m, &o, "fd00:44::ffff:ffff:ffff:ffff", "h", &e), 0);
    assert_true(has_item("/ipam/v2/assignment/ipv6/block/fd00:44::ffff:ffff:ffff:ffc0-122"));
    lab_assert_sound(m);
    must_release(m, "h", 4);
    ipam_free(m);
}

/* ---- order and reservations ---- */

static void t_ipam__released__comes_back_last(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_pool p = lab_pool("p", "10.44.7.0/29", 29);
    struct ipam_options o = with_pools(&p, 1);
    must_take(m, &o, "a", "10.44.7.0");
    must_take(m, &o, "b", "10.44.7.1");
    must_release(m, "a", 1);
    must_release(m, "b", 1);
    const char *order[] = {"10.44.7.2", "10.44.7.3", "10.44.7.4", "10.44.7.5",
                           "10.44.7.6", "10.44.7.7", "10.44.7.0", "10.44.7.1"};
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        must_take(m, &o, "c", order[i]);
    }
    ipam_free(m);
}

/* ---- exhaustion, limits, borrowing ---- */

static void t_ipam__pool_full__says_how_full(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    struct ip46 ips[9];
    struct err e = {.code = 0};
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 8, STR("h"), NULL, 0, ips, &e), 0);
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < i; k++) {
            assert_false(ip_eq(&ips[i], &ips[k]));
        }
    }
    char got[IP_TEXT_MAX];
    assert_int_equal(take_one(m, &o, "i", got, &e), ERR_NO_SPACE);
    assert_has(e.msg, "small (8 of 8 in use)");
    assert_false(has_item("/ipam/v2/handle/i"));
    assert_int_equal(ipam_assign_auto(m, &o, IP_V6, 1, STR("h"), NULL, 0, ips, &e), ERR_NO_SPACE);
    assert_has(e.msg, "no enabled pool");
    lab_assert_sound(m);
    must_release(m, "h", 8);
    ipam_free(m);
}

static void t_ipam__not_all_fit__none_is_kept(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    struct ip46 ips[9];
    struct err e = {.code = 0};
    must_take(m, &o, "a", NULL);
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 8, STR("h"), NULL, 0, ips, &e), ERR_NO_SPACE);
    assert_has(e.msg, "small (");
    assert_false(has_item("/ipam/v2/handle/h"));
    lab_assert_sound(m);
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 7, STR("h"), NULL, 0, ips, &e), 0);
    ipam_free(m);
}

/* A failed call with a handle that has addresses already keeps those. */
static void t_ipam__not_all_fit__earlier_ones_stay(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    struct ip46 ips[9];
    struct err e = {.code = 0};
    must_take(m, &o, "h", NULL);
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 8, STR("h"), NULL, 0, ips, &e), ERR_NO_SPACE);
    must_release(m, "h", 1);
    ipam_free(m);
}

static void t_ipam__own_blocks_full__borrows_unless_strict(void **state) {
    (void)state;
    NEW(m1, "n1");
    NEW(m2, "n2");
    struct ipam_pool p = lab_pool("p", "10.44.7.0/30", 30);
    struct ipam_options o = with_pools(&p, 1);
    must_take(m1, &o, "a", "10.44.7.0");
    char got[IP_TEXT_MAX];
    struct err e = {.code = 0};
    o.strict_affinity = true;
    assert_int_equal(take_one(m2, &o, "b", got, &e), ERR_NO_SPACE);
    assert_has(e.msg, "p (1 of 4 in use)");
    assert_int_equal(take_ip(m2, &o, "10.44.7.3", "b", &e), ERR_DENIED);
    assert_has(e.msg, "10.44.7.3");
    assert_has(e.msg, "n1");
    o.strict_affinity = false;
    must_take(m2, &o, "b", "10.44.7.1");
    assert_int_equal(take_ip(m2, &o, "10.44.7.3", "b", &e), 0);
    assert_string_equal(text_at("/ipam/v2/assignment/ipv4/block/10.44.7.0-30", "affinity"),
                        "host:n1");
    assert_false(has_item("/ipam/v2/host/n2/ipv4/block/10.44.7.0-30"));
    lab_assert_sound(m1);
    must_release(m2, "b", 2);
    ipam_free(m1);
    ipam_free(m2);
}

static void t_ipam__block_limit__error_and_no_borrowing(void **state) {
    (void)state;
    NEW(m1, "n1");
    NEW(m2, "n2");
    struct ipam_pool p = lab_pool("p", "10.44.7.0/28", 30);
    struct ipam_options o = with_pools(&p, 1);
    must_take(m2, &o, "other", NULL);
    o.max_blocks = 2;
    struct ip46 ips[9];
    struct err e = {.code = 0};
    assert_int_equal(ipam_assign_auto(m1, &o, IP_V4, 8, STR("h"), NULL, 0, ips, &e), 0);
    assert_int_equal(ipam_assign_auto(m1, &o, IP_V4, 1, STR("h"), NULL, 0, ips, &e), ERR_NO_SPACE);
    assert_has(e.msg, "limit of 2 blocks");
    o.no_new_blocks = true;
    o.max_blocks = 0;
    assert_int_equal(ipam_assign_auto(m1, &o, IP_V4, 1, STR("h"), NULL, 0, ips, &e), 0);
    lab_assert_sound(m1);
    ipam_free(m1);
    ipam_free(m2);
}

static void t_ipam__pools__in_order(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_pool p[] = {lab_pool("a", "10.44.9.0/30", 30), lab_pool("b", "10.44.7.0/30", 30)};
    struct ipam_options o = with_pools(p, 2);
    for (int i = 0; i < 4; i++) {
        char want[IP_TEXT_MAX];
        snprintf(want, sizeof(want), "10.44.9.%d", i);
        must_take(m, &o, "h", want);
    }
    must_take(m, &o, "h", "10.44.7.0");
    must_release(m, "h", 5);
    ipam_free(m);
}

/* ---- one address ---- */

static void t_ipam__assign_ip__holder_and_pool(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    struct ipam_attr attrs[] = {{STR("pod"), STR("web-7")}, {STR("namespace"), STR("shop")}};
    struct ip46 ip = lab_ip("10.44.7.5");
    struct err e = {.code = 0};
    assert_int_equal(ipam_assign_ip(m, &o, &ip, STR("net.1"), attrs, 2, &e), 0);
    assert_int_equal(take_ip(m, &o, "10.44.7.5", "net.2", &e), ERR_EXISTS);
    assert_has(e.msg, "10.44.7.5");
    assert_has(e.msg, "shop/web-7");
    assert_has(e.msg, "net.1");
    assert_false(has_item("/ipam/v2/handle/net.2"));
    assert_int_equal(take_ip(m, &o, "10.44.8.5", "net.2", &e), ERR_NOT_FOUND);
    assert_has(e.msg, "10.44.8.5");
    assert_string_equal(text_at("/ipam/v2/host/n1/ipv4/block/10.44.7.4-30", "state"), "confirmed");
    /* Automatic assignment goes round it. */
    struct ip46 ips[7];
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 7, STR("h"), NULL, 0, ips, &e), 0);
    for (int i = 0; i < 7; i++) {
        assert_false(ip_eq(&ips[i], &ip));
    }
    lab_assert_sound(m);
    ipam_free(m);
}

static void t_ipam__release__only_what_the_handle_has(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    struct err e = {.code = 0};
    assert_int_equal(take_ip(m, &o, "10.44.7.0", "a", &e), 0);
    assert_int_equal(take_ip(m, &o, "10.44.7.1", "b", &e), 0);
    struct ip46 ips[] = {lab_ip("10.44.7.0"), lab_ip("10.44.7.1"), lab_ip("10.44.7.2"),
                         lab_ip("192.0.2.1")};
    size_t n = 9;
    assert_int_equal(ipam_release_ips(m, ips, 4, STR("a"), &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(ipam_ips_by_handle(m, STR("b"), ips, 4, &n, &e), 0);
    assert_int_equal(n, 1);
    char text[IP_TEXT_MAX];
    assert_string_equal(ip_text(&ips[0], text), "10.44.7.1");
    assert_int_equal(ipam_release_ips(m, ips, 1, STR_NULL, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(ipam_ips_by_handle(m, STR("b"), ips, 4, &n, &e), ERR_NOT_FOUND);
    struct ip46 out[4];
    e = (struct err){.code = 0};
    assert_int_equal(ipam_release_by_handle(m, STR("b"), out, 4, &n, &e), ERR_NOT_FOUND);
    assert_has(e.msg, "b");
    lab_assert_sound(m);
    ipam_free(m);
}

/* ---- what a crash, an old pool or another node left ---- */

static void t_ipam__other_block_size__no_address_twice(void **state) {
    (void)state;
    NEW(m1, "n1");
    NEW(m2, "n2");
    struct ipam_pool old = lab_pool("p", "10.44.7.0/27", 28),
                     now = lab_pool("p", "10.44.7.0/27", 30);
    struct ipam_options o = with_pools(&old, 1);
    struct err e = {.code = 0};
    assert_int_equal(take_ip(m1, &o, "10.44.7.5", "a", &e), 0);
    o.pools = &now; /* made anew with smaller blocks, then larger ones; the old blocks stand */
    struct ip46 ips[32];
    o.strict_affinity = true;
    assert_int_equal(take_ip(m2, &o, "10.44.7.5", "b", &e), ERR_DENIED);
    o.strict_affinity = false;
    assert_int_equal(take_ip(m2, &o, "10.44.7.5", "b", &e), ERR_EXISTS);
    assert_has(e.msg, "handle a");
    assert_int_equal(ipam_assign_auto(m2, &o, IP_V4, 31, STR("b"), NULL, 0, ips, &e), 0);
    for (int i = 0; i < 31; i++) {
        char text[IP_TEXT_MAX];
        assert_string_not_equal(ip_text(&ips[i], text), "10.44.7.5");
    }
    lab_assert_sound(m1);
    must_release(m2, "b", 31);
    struct ipam_pool large = lab_pool("p", "10.44.7.0/27", 27);
    o.pools = &large;
    assert_int_equal(take_ip(m2, &o, "10.44.7.5", "b", &e), ERR_EXISTS);
    assert_int_equal(take_ip(m2, &o, "10.44.7.6", "b", &e), 0);
    lab_assert_sound(m1);
    ipam_free(m1);
    ipam_free(m2);
}

static void t_ipam__affinity_without_block__block_made(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    put_item("/ipam/v2/host/n1/ipv4/block/10.44.7.4-30", "{\"state\":\"pending\"}");
    must_take(m, &o, "a", "10.44.7.4");
    assert_string_equal(text_at("/ipam/v2/host/n1/ipv4/block/10.44.7.4-30", "state"), "confirmed");
    lab_assert_sound(m);
    ipam_free(m);
}

/* ---- hostile blocks ---- */

/* ---- reports ---- */

static void note_usage(void *arg, const struct ipam_usage *u) {
    struct buf *b = arg;
    char text[IP_TEXT_MAX];
    buf_printf(b, "%s %.*s %s %llu/%.0f %.*s;", u->is_block ? "block" : "pool", STR_FMT(u->pool),
               prefix_text(&u->cidr, text), (unsigned long long)u->in_use, u->total,
               STR_FMT(u->affinity));
}

static void t_ipam__show__pools_then_blocks(void **state) {
    (void)state;
    NEW(m, "n1");
    struct ipam_options o = with_pools(&small, 1);
    struct err e = {.code = 0};
    assert_int_equal(take_ip(m, &o, "10.44.7.5", "a", &e), 0);
    struct ipam_pool p[] = {small, lab_pool("six", "fd00::/64", 122)};
    struct buf b = BUF_INIT(4096);
    assert_int_equal(ipam_show(m, p, 2, note_usage, &b, &e), 0);
    assert_string_equal(buf_cstr(&b),
                        "pool small 10.44.7.0/29 1/8 ;block small 10.44.7.4/30 1/4 host:n1;"
                        "pool six fd00::/64 0/18446744073709551616 ;");
    buf_fini(&b);
    ipam_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(t_ipam__store__calicos_keys_and_fields),
        T(t_ipam__ipv6__keys_and_offsets),
        T(t_ipam__released__comes_back_last),
        T(t_ipam__pool_full__says_how_full),
        T(t_ipam__not_all_fit__none_is_kept),
        T(t_ipam__not_all_fit__earlier_ones_stay),
        T(t_ipam__own_blocks_full__borrows_unless_strict),
        T(t_ipam__block_limit__error_and_no_borrowing),
        T(t_ipam__pools__in_order),
        T(t_ipam__assign_ip__holder_and_pool),
        T(t_ipam__release__only_what_the_handle_has),
        T(t_ipam__other_block_size__no_address_twice),
        T(t_ipam__affinity_without_block__block_made),
        T(t_ipam__show__pools_then_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
