/* Addresses of virtual machines: names (libcalico-go/lib/ipam/vmipam, lib/hash), and owners that
 * come and go while the addresses stay. */
#include "ipam_lab.h"

#include "ipam/machines.h"

static struct arena arena;
static struct ipam *m;
static const struct ipam_pool small = {{"small", 5}, {{IP_V4, {10, 44, 7, 0}}, 29}, 30};
static const struct ipam_options options = {.pools = &small, .n_pools = 1, .max_held = 1};
#define VM STR("net.vmi.shop.web")

static int setup(void **state) {
    int r = lab_setup(state);
    m = ipam_new(lab_store, STR("n1"));
    return r;
}
static int teardown(void **state) {
    ipam_free(m);
    arena_fini(&arena);
    arena = (struct arena){0};
    return lab_teardown(state);
}

/* ---- names ---- */

static void t_handle__as_calico_makes_it(void **state) {
    static const struct {
        const char *network, *ns, *name, *want;
    } cases[] = {
        {"k8s-pod-network", "default", "vm1", "k8s-pod-network.vmi.default.vm1"},
        {"net", "vmi", "a.b", "net.vmi.vmi.a.b"},
        /* 146 bytes: the end is base64url(SHA-256("NAMESPACE.NAME")) */
        {"k8s-pod-network", "a-namespace-of-sixty-three-characters-which-is-the-most-allowed",
         "a-virtual-machine-with-a-name-that-is-long-enough-to-be-hashed",
         "k8s-pod-network.vmi._utuu59-r9JU3ubKaL_EHqrkPLWnsGDADk-zKGYkRAY4"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str h = machine_handle(str_c(cases[i].network), str_c(cases[i].ns),
                                      str_c(cases[i].name), &arena);
        assert_string_equal(arena_cstr(&arena, h), cases[i].want);
    }
}

static void t_launcher__name_of_its_machine(void **state) {
    static const struct {
        const char *pod, *want;
        bool is_launcher;
    } cases[] = {
        {"virt-launcher-web-x7k2p", "web", true},
        {"virt-launcher-my-web-x7k2p", "my-web", true},
        {"virt-launcher-x7k2p", NULL, false},
        {"virt-launcher--x7k2p", NULL, false},
        {"web-x7k2p", NULL, false},
        {"", NULL, false},
        /* 63 characters: Kubernetes may have cut the name to make room */
        {"virt-launcher-a-name-so-long-that-it-does-not-fit-in-a-po-x7k2p", NULL, true},
        {"virt-launcher-a-name-so-long-that-it-just-fits-into-a-po-x7k2p",
         "a-name-so-long-that-it-just-fits-into-a-po", true},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str pod = str_c(cases[i].pod), name = machine_name_of_launcher(pod);
        assert_int_equal(machine_is_launcher(pod), cases[i].is_launcher);
        assert_true(cases[i].want ? str_is(name, cases[i].want) : !name.p);
    }
}

static void t_allocation__whose(void **state) {
    static const struct {
        const char *attr, *handle, *ns, *name; /* name NULL: no machine's */
    } cases[] = {
        {"{\"secondary\":{\"namespace\":\"shop\",\"pod\":\"p\",\"vmi-name\":\"web\"}}", "h", "shop",
         "web"},
        {"{\"alternateOwnerAttrs\":{\"namespace\":\"shop\",\"vmi-name\":\"web\"}}", "h", "shop",
         "web"},
        {"{}", "net.vmi.shop.web.a", "shop", "web.a"},
        {"{\"secondary\":{}}", "a.b.vmi.shop.web", "shop", "web"},
        {"{}", "net.vmi._utuu59", "", NULL},
        {"{}", "net.vmi.shop", "", NULL},
        {"{}", "net.vmi.shop.", "", NULL},
        {"{}", ".vmi.shop.web", "", NULL},
        {"{}", "", "", NULL},
        /* a container's, of a network with an odd name */
        {"{\"secondary\":{\"namespace\":\"shop\",\"pod\":\"p\"}}", "a.vmi.b.4f0c", "", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct jnode *attr;
        struct err e;
        struct str ns, name;
        assert_int_equal(json_parse(str_c(cases[i].attr), &json_limits_default, &arena, &attr, &e),
                         0);
        assert_int_equal(machine_of_allocation(attr, str_c(cases[i].handle), &ns, &name),
                         cases[i].name != NULL);
        assert_true(!cases[i].name || (str_is(ns, cases[i].ns) && str_is(name, cases[i].name)));
    }
}

/* ---- owners ---- */

static size_t attrs_of(const char *pod, const char *node, struct ipam_attr *out) {
    const struct ipam_attr v[] = {{STR("node"), str_c(node)},
                                  {STR("namespace"), STR("shop")},
                                  {STR("pod"), str_c(pod)},
                                  {STR("vmi-name"), STR("web")}};
    memcpy(out, v, sizeof(v));
    return ARRAY_LEN(v);
}

static struct ip46 start(const char *pod) {
    struct ipam_attr a[4];
    struct err e = {.code = 0};
    struct ip46 ip;
    size_t n = attrs_of(pod, "n1", a);
    if (ipam_assign_auto(m, &options, IP_V4, 1, VM, a, n, &ip, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return ip;
}

static int own(const char *pod, const char *node, bool is_alternate, struct ip46 *ip) {
    struct ipam_attr a[4];
    struct err e;
    size_t n = attrs_of(pod, node, a), n_out = 0;
    int r = ipam_owner_set(m, VM, is_alternate, a, n, ip, 1, &n_out, &e);
    assert_true(r < 0 || n_out == 1);
    return r;
}

static bool leave(const char *pod, struct ipam_exact *held, size_t *n) {
    struct err e = {.code = 0};
    bool is_owned = false;
    if (ipam_owner_clear(m, VM, STR("shop"), str_c(pod), &is_owned, held, 1, n, &arena, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    assert_int_equal(*n, 1);
    return is_owned;
}

struct seen {
    struct ip46 ip;
    char active[64], node[64], alternate[64];
};
static void see(void *arg, const struct ipam_allocation *x) {
    struct seen *s = arg;
    if (ip_eq(&x->ip, &s->ip)) {
        struct str other = jnode_str(jnode_path(x->attributes, "alternateOwnerAttrs.pod"));
        snprintf(s->active, sizeof(s->active), "%.*s", STR_FMT(x->pod));
        snprintf(s->node, sizeof(s->node), "%.*s", STR_FMT(x->node));
        snprintf(s->alternate, sizeof(s->alternate), "%.*s", STR_FMT(other));
    }
}
static void expect(const struct ip46 *ip, const char *active, const char *node,
                   const char *alternate) {
    struct seen s = {.ip = *ip};
    struct err e;
    assert_int_equal(ipam_allocations(m, see, &s, &e), 0);
    assert_string_equal(s.active, active);
    assert_string_equal(s.node, node);
    assert_string_equal(s.alternate, alternate);
    lab_assert_sound(m);
}

static void t_owner__comes_goes_and_moves__address_stays(void **state) {
    struct ip46 ip = start("a"), same = {0}, other;
    struct ipam_exact held[1];
    struct err e;
    size_t n;
    (void)state;
    /* a neighbour that shares nothing but the block */
    assert_int_equal(ipam_assign_auto(m, &options, IP_V4, 1, STR("net.c"), NULL, 0, &other, &e), 0);
    assert_false(leave("a", held, &n));
    expect(&ip, "", "", "");
    assert_false(leave("a", held, &n)); /* again */
    assert_int_equal(own("b", "n2", false, &same), 0);
    assert_true(ip_eq(&ip, &same));
    expect(&ip, "b", "n2", "");
    assert_true(leave("a", held, &n)); /* late: not its any more */
    expect(&ip, "b", "n2", "");
    assert_int_equal(own("t", "n1", true, &same), 0);
    expect(&ip, "b", "n2", "t");
    assert_int_equal(own("u", "n1", true, &same), 0); /* the next try of a migration */
    expect(&ip, "b", "n2", "u");
    assert_true(leave("t", held, &n));
    expect(&ip, "b", "n2", "u");
    for (int i = 0; i < 2; i++) { /* done already is fine */
        assert_int_equal(ipam_owner_promote(m, VM, STR("shop"), STR("u"), &e), 0);
        expect(&ip, "u", "n1", "b");
    }
    assert_int_equal(ipam_owner_promote(m, VM, STR("shop"), STR("t"), &e), ERR_INVALID);
    assert_int_equal(ipam_owner_promote(m, VM, STR("other"), STR("b"), &e), ERR_INVALID);
    expect(&ip, "u", "n1", "b");
    assert_true(leave("b", held, &n));
    expect(&ip, "u", "n1", "");
    /* the source has gone before: nothing is left as the alternate */
    assert_int_equal(own("v", "n2", true, &same), 0);
    assert_true(leave("u", held, &n));
    assert_int_equal(ipam_owner_promote(m, VM, STR("shop"), STR("v"), &e), 0);
    expect(&ip, "v", "n2", "");
    assert_int_equal(ipam_ips_by_handle(m, STR("net.c"), &same, 1, &n, &e), 0);
    assert_true(ip_eq(&other, &same));
}

static void t_owner__handle_holds_nothing__not_found(void **state) {
    struct ip46 ip;
    struct ipam_exact held[1];
    struct err e;
    size_t n;
    bool is_owned;
    (void)state;
    assert_int_equal(own("a", "n1", false, &ip), ERR_NOT_FOUND);
    assert_int_equal(ipam_owner_promote(m, VM, STR("shop"), STR("a"), &e), ERR_NOT_FOUND);
    assert_int_equal(
        ipam_owner_clear(m, VM, STR("shop"), STR("a"), &is_owned, held, 1, &n, &arena, &e),
        ERR_NOT_FOUND);
}

static void t_release__owner_since_the_decision__refused(void **state) {
    struct ip46 ip = start("a"), same;
    struct ipam_exact held[1];
    struct err e;
    size_t n, n_released = 9;
    (void)state;
    assert_false(leave("a", held, &n));
    assert_int_equal(own("b", "n2", false, &same), 0); /* the machine is started anew meanwhile */
    assert_int_equal(ipam_release_exact(m, held, n, &n_released, &e), 0);
    assert_int_equal(n_released, 0);
    expect(&ip, "b", "n2", "");
    assert_false(leave("b", held, &n));
    assert_int_equal(ipam_release_exact(m, held, n, &n_released, &e), 0);
    assert_int_equal(n_released, 1);
    assert_int_equal(own("c", "n1", false, &same), ERR_NOT_FOUND);
    lab_assert_sound(m);
}

static void t_assign__handle_has_one__no_second_of_the_family(void **state) {
    const struct ipam_pool p[] = {small, lab_pool("six", "fd00::/64", 122)};
    const struct ipam_options o = {.pools = p, .n_pools = 2, .max_held = 1};
    struct ip46 ip = start("a"), more;
    struct err e;
    (void)state;
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 1, VM, NULL, 0, &more, &e), ERR_DENIED);
    assert_non_null(strstr(e.msg, "net.vmi.shop.web may hold 1 IPv4 addresses"));
    more = ip;
    more.b[3] ^= 1;
    assert_int_equal(ipam_assign_ip(m, &o, &more, VM, NULL, 0, &e), ERR_DENIED);
    assert_int_equal(ipam_assign_auto(m, &o, IP_V6, 1, VM, NULL, 0, &more, &e), 0);
    assert_int_equal(ipam_assign_auto(m, &o, IP_V4, 1, STR("net.c"), NULL, 0, &more, &e), 0);
    lab_assert_sound(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(t_handle__as_calico_makes_it),
        T(t_launcher__name_of_its_machine),
        T(t_allocation__whose),
        T(t_owner__comes_goes_and_moves__address_stays),
        T(t_owner__handle_holds_nothing__not_found),
        T(t_release__owner_since_the_decision__refused),
        T(t_assign__handle_has_one__no_second_of_the_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
