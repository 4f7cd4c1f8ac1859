/* get, put, list, delete: codes, values, keys, prefixes, order, pages, transactions. */
#include "subject.h"

static void t_put__create_exists_conflict__codes(void **state) {
    (void)state;
    struct store *s = subject_open();
    struct err e;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    assert_int_equal(store_delete(s, net_key(ns, "x"), REV_ANY, &e), ERR_NOT_FOUND);
    assert_int_equal(store_delete(s, net_key(ns, "x"), 7, &e), ERR_NOT_FOUND);
    assert_int_equal(net_try_put(s, ns, "x", "1", 7, NULL, &e), ERR_NOT_FOUND);
    uint64_t r1 = net_put(s, ns, "x", "1", REV_NONE);
    assert_int_equal(net_try_put(s, ns, "x", "2", REV_NONE, NULL, &e), ERR_EXISTS);
    uint64_t r2 = net_put(s, ns, "x", "2", r1);
    assert_true(r2 > r1);
    assert_int_equal(net_try_put(s, ns, "x", "3", r1, NULL, &e), ERR_CONFLICT);
    assert_int_equal(net_try_put(s, ns, "x", "3", r2 + 1000000, NULL, &e), ERR_CONFLICT);
    assert_int_equal(store_delete(s, net_key(ns, "x"), r1, &e), ERR_CONFLICT);
    struct arena a = {0};
    struct str text;
    assert_int_equal(net_get(s, ns, "x", &a, &text), r2);
    assert_true(str_is(text, "2"));
    OK(store_delete(s, net_key(ns, "x"), r2, &e), e);
    struct store_item it;
    assert_int_equal(store_get(s, net_key(ns, "x"), &a, &it, &e), ERR_NOT_FOUND);
    assert_true(store_revision(s) >= r2);
    arena_fini(&a);
    store_close(s);
}

static void t_put__whatever_is_there__creates_and_replaces(void **state) {
    (void)state;
    struct store *s = subject_open();
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    uint64_t r1 = net_put(s, ns, "x", "1", REV_ANY), r2 = net_put(s, ns, "x", "2", REV_ANY);
    assert_true(r2 > r1);
    net_del(s, ns, "x");
    uint64_t r3 = net_put(s, ns, "x", "2", REV_NONE); /* after a delete it may be made again */
    assert_true(r3 > r2);
    assert_true(store_revision(s) >= r3);
    struct arena a = {0};
    struct str text;
    assert_int_equal(net_get(s, ns, "x", &a, &text), r3);
    arena_fini(&a);
    store_close(s);
}

static void t_put__every_text__comes_back_as_it_was(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "blank at the end ",
        "quotes \" and \\ and / and \t tab \n newline \x01 control",
        "käse 猫 \xf0\x9f\x90\x88 \xe2\x80\xa8",
        "</script><!-- & %2f %00 -->",
        "{\"json\": [1, 2, 3]}",
    };
    struct store *s = subject_open();
    struct arena a = {0};
    char ns[NAME_LEN], name[16];
    subject_namespace(s, ns);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        snprintf(name, sizeof(name), "t%zu", i);
        uint64_t r = net_put(s, ns, name, texts[i], REV_NONE);
        struct str text;
        assert_int_equal(net_get(s, ns, name, &a, &text), r);
        if (!str_is(text, texts[i])) {
            fail_msg("text %zu came back as \"%.*s\"", i, STR_FMT(text));
        }
    }
    arena_fini(&a);
    store_close(s);
}

static void t_put__unicode_keys__kept_apart(void **state) {
    (void)state;
    static const char *const names[] = {"käse", "ka\xcc\x88se", "猫", "\xf0\x9f\x90\x88",
                                        "a b",  "a%20b",        "A",  "a"};
    if (subject.is_kubernetes) {
        LEAVE_OUT("the Kubernetes API takes only names of DNS");
    }
    struct store *s = subject_open();
    struct arena a = {0};
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        net_put(s, ns, names[i], names[i], REV_NONE);
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct str text;
        net_get(s, ns, names[i], &a, &text);
        assert_true(str_is(text, names[i]));
        net_del(s, ns, names[i]);
    }
    arena_fini(&a);
    store_close(s);
}

/* ---- big values ---- */

/* A NetworkSet with so many bytes of networks. */
static void big_document(struct buf *b, const char *ns, size_t bytes) {
    buf_printf(b,
               "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"NetworkSet\",\"metadata\":"
               "{\"name\":\"big\",\"namespace\":\"%s\",\"annotations\":{\"text\":\"big\"}},"
               "\"spec\":{\"nets\":[",
               ns);
    for (unsigned i = 0; b->n < bytes; i++) {
        buf_printf(b, "%s\"10.%u.%u.%u/32\"", i ? "," : "", i >> 16 & 255, i >> 8 & 255, i & 255);
    }
    buf_puts(b, "]}}");
}

static void t_put__a_megabyte__comes_back(void **state) {
    (void)state;
    struct store *s = subject_open();
    struct arena a = {0};
    struct err e;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    struct buf b = BUF_INIT(4 << 20);
    big_document(&b, ns, 1000000);
    OK(store_put(s, net_key(ns, "big"), buf_view(&b), REV_NONE, NULL, &e), e);
    struct store_item it;
    OK(store_get(s, net_key(ns, "big"), &a, &it, &e), e);
    struct jnode *want = NULL, *has = NULL;
    OK(json_parse(buf_view(&b), &json_limits_default, &a, &want, &e), e);
    OK(json_parse(it.value, &json_limits_default, &a, &has, &e), e);
    assert_true(jnode_eq(jnode_path(want, "spec.nets"), jnode_path(has, "spec.nets")));
    net_del(s, ns, "big");
    buf_fini(&b);
    arena_fini(&a);
    store_close(s);
}

static void t_put__above_the_limit__refused_and_goes_on(void **state) {
    (void)state;
    struct store *s = subject_open();
    struct err e;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    struct buf b = BUF_INIT(8 << 20);
    big_document(&b, ns, STORE_VALUE_MAX + 1);
    assert_int_equal(store_put(s, net_key(ns, "big"), buf_view(&b), REV_NONE, NULL, &e),
                     ERR_TOO_BIG);
    buf_reset(&b);
    big_document(&b, ns, STORE_VALUE_MAX - 100000); /* servers may have lower limits of their own */
    int r = store_put(s, net_key(ns, "big"), buf_view(&b), REV_NONE, NULL, &e);
    if (r != 0 && r != ERR_TOO_BIG) {
        fail_msg("%s: %s", err_name(r), e.msg);
    }
    if (r == 0) {
        net_del(s, ns, "big");
    }
    net_put(s, ns, "small", "1", REV_NONE);
    buf_fini(&b);
    store_close(s);
}

static void t_calls__bad_keys__refused(void **state) {
    (void)state;
    struct store *s = subject_open();
    struct err e;
    struct store_item it;
    struct arena a = {0};
    char ns[NAME_LEN];
    char *text = malloc(STORE_KEY_MAX + 2);
    assert_non_null(text);
    memset(text, 'k', STORE_KEY_MAX + 1);
    text[STORE_KEY_MAX + 1] = '\0';
    subject_namespace(s, ns);
    assert_int_equal(net_try_put(s, ns, text, "1", REV_ANY, NULL, &e), ERR_TOO_BIG);
    struct store_key empty = {STR(STORE_SPACE_RESOURCES), STR("")};
    assert_int_equal(store_get(s, empty, &a, &it, &e), ERR_INVALID);
    assert_int_equal(store_put(s, empty, STR("{}"), REV_ANY, NULL, &e), ERR_INVALID);
    assert_int_equal(store_delete(s, empty, REV_ANY, &e), ERR_INVALID);
    net_put(s, ns, "x", "1", REV_NONE);
    free(text);
    arena_fini(&a);
    store_close(s);
}

/* ---- lists ---- */

struct listing {
    struct str prefix;
    struct arena a;
    char names[512]; /* without the prefix, each with a blank */
    unsigned n, stop_at;
    uint64_t newest;
    char last[256];
    struct store *write_to;
    const char *ns;
};

static int listed(void *arg, const struct store_item *it) {
    struct listing *l = arg;
    char key[256];
    snprintf(key, sizeof(key), "%.*s", STR_FMT(it->key));
    assert_true(strcmp(key, l->last) > 0); /* in order, none twice */
    memcpy(l->last, key, sizeof(key));
    assert_true(str_starts(it->key, l->prefix));
    assert_non_null(net_text(it->value, &l->a).p);
    size_t used = strlen(l->names);
    snprintf(l->names + used, sizeof(l->names) - used, "%s ", key + l->prefix.n);
    assert_true(it->revision > 0);
    l->newest = it->revision > l->newest ? it->revision : l->newest;
    if (l->write_to) {
        char name[16];
        snprintf(name, sizeof(name), "z%u", l->n);
        net_put(l->write_to, l->ns, name, "written in the list", REV_NONE);
    }
    arena_reset(&l->a);
    return ++l->n == l->stop_at ? -77 : 0;
}

static unsigned list(struct store *s, struct store_key prefix, struct listing *l) {
    struct err e;
    uint64_t revision = 0;
    l->prefix = prefix.key;
    OK(store_list(s, prefix, &revision, listed, l, &e), e);
    assert_true(revision >= l->newest);
    arena_fini(&l->a);
    return l->n;
}

static void t_list__prefixes__exact_and_in_order(void **state) {
    (void)state;
    struct store *s = subject_open();
    char ns[NAME_LEN], other[NAME_LEN + 4];
    subject_namespace(s, ns);
    snprintf(other, sizeof(other), "%s-b", ns); /* goes on where the first one's name ends */
    subject_namespace_called(s, other);
    static const char *const names[] = {"b", "a2", "a10", "a1", "a", "a-1", "a.1"};
    struct listing l = {0};
    assert_int_equal(list(s, net_key(ns, ""), &l), 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        net_put(s, ns, names[i], names[i], REV_NONE);
        net_put(s, other, names[i], names[i], REV_NONE);
    }
    l = (struct listing){0};
    list(s, net_key(ns, ""), &l);
    assert_string_equal(l.names, "a a-1 a.1 a1 a10 a2 b ");
    l = (struct listing){0};
    list(s, net_key(ns, "a1"), &l); /* a prefix of keys, not a name */
    assert_string_equal(l.names, " 0 ");
    l = (struct listing){0};
    list(s, net_key(ns, "c"), &l);
    assert_string_equal(l.names, "");
    net_del(s, ns, "a10");
    l = (struct listing){0};
    list(s, net_key(ns, "a1"), &l);
    assert_string_equal(l.names, " ");
    store_close(s);
}

static void t_list__stopped_and_written_to_inside__as_promised(void **state) {
    (void)state;
    struct store *s = subject_open();
    struct err e;
    uint64_t revision = 0;
    char ns[NAME_LEN], name[16];
    subject_namespace(s, ns);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        net_put(s, ns, name, "1", REV_NONE);
    }
    struct store_key prefix = net_key(ns, "");
    struct listing l = {.prefix = prefix.key, .stop_at = 2};
    assert_int_equal(store_list(s, prefix, &revision, listed, &l, &e), -77);
    assert_int_equal(l.n, 2);
    arena_fini(&l.a);
    net_put(s, ns, "n5", "1", REV_NONE); /* the connection is as good as before */
    struct store *writer = subject.is_sqlite ? s : subject_open();
    l = (struct listing){.write_to = writer, .ns = ns};
    assert_int_equal(list(s, net_key(ns, ""), &l), 6); /* what it wrote is not in the list */
    l = (struct listing){0};
    assert_int_equal(list(s, net_key(ns, ""), &l), 12);
    if (writer != s) {
        store_close(writer);
    }
    store_close(s);
}

static int count_item(void *arg, const struct store_item *it) {
    struct listing *l = arg;
    char want[256];
    snprintf(want, sizeof(want), "%.*sn%05u", STR_FMT(l->prefix), l->n);
    if (!str_is(it->key, want)) {
        fail_msg("%.*s where %s was expected", STR_FMT(it->key), want);
    }
    l->n++;
    return 0;
}

static int fill(struct store *s, int number, void *arg) {
    struct err e;
    char name[16];
    for (unsigned i = (unsigned)number; i < subject.many; i += 4) {
        snprintf(name, sizeof(name), "n%05u", i);
        if (net_try_put(s, arg, name, "one of many", REV_NONE, NULL, &e) < 0) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
    }
    return 0;
}

static void t_list__thousands__all_once_in_order(void **state) {
    (void)state;
    struct store *s = subject_open();
    struct err e;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    if (subject.has_transactions) {
        OK(store_begin(s, &e), e);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(fill(s, i, ns), 0);
        }
        OK(store_commit(s, &e), e);
    } else {
        in_processes(4, fill, ns);
    }
    uint64_t revision = 0;
    struct store_key prefix = net_key(ns, "");
    struct listing l = {.prefix = prefix.key};
    OK(store_list(s, prefix, &revision, count_item, &l, &e), e);
    assert_int_equal(l.n, subject.many);
    store_close(s);
}

/* ---- transactions ---- */

static void t_transaction__rollback_and_commit(void **state) {
    (void)state;
    struct store *s = subject_open();
    struct err e;
    struct arena a = {0};
    struct store_item it;
    struct str text;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    uint64_t before = store_revision(s);
    OK(store_begin(s, &e), e);
    net_put(s, ns, "one", "x", REV_NONE);
    net_get(s, ns, "one", &a, &text); /* its own writes are seen */
    store_rollback(s);
    if (subject.has_transactions) {
        assert_int_equal(store_get(s, net_key(ns, "one"), &a, &it, &e), ERR_NOT_FOUND);
        assert_int_equal(store_revision(s), before);
    } else {
        print_message("left out: undoing; writes of this store are single ones\n");
        net_del(s, ns, "one");
    }
    OK(store_begin(s, &e), e);
    uint64_t r = net_put(s, ns, "one", "x", REV_NONE);
    assert_int_equal(net_try_put(s, ns, "one", "y", REV_NONE, NULL, &e), ERR_EXISTS);
    net_put(s, ns, "two", "x", REV_NONE); /* a lost compare does not end the transaction */
    OK(store_commit(s, &e), e);
    store_close(s);
    s = subject_open(); /* all of it is there after a reopen */
    assert_int_equal(net_get(s, ns, "one", &a, &text), r);
    net_get(s, ns, "two", &a, &text);
    arena_fini(&a);
    store_close(s);
}

/* ---- IPAM's items ---- */

struct ipam_case {
    const char *key, *prefix, *first, *second, *path, *want;
};
/* Numbers of their own, so that several runs on one store don't meet. */
static const struct ipam_case ipam_cases[] = {
    {"/ipam/v2/handle/conformance.a1", "/ipam/v2/handle/conformance",
     "{\"block\":{\"10.199.7.0/26\":1},\"deleted\":false}",
     "{\"block\":{\"10.199.7.0/26\":2},\"deleted\":false}", "block", "10.199.7.0/26"},
    {"/ipam/v2/host/conformance/ipv4/block/10.199.7.0-26", "/ipam/v2/host/conformance/",
     "{\"state\":\"pending\",\"deleted\":false}", "{\"state\":\"confirmed\",\"deleted\":false}",
     "state", NULL},
    {"/ipam/v2/assignment/ipv4/block/10.199.7.0-29", "/ipam/v2/assignment/ipv4/block/10.199",
     "{\"cidr\":\"10.199.7.0/29\",\"affinity\":\"host:conformance\",\"allocations\":[null,null,"
     "null,null,null,null,null,null],\"unallocated\":[0,1,2,3,4,5,6,7],\"attributes\":[],"
     "\"sequenceNumber\":1767323045000000000,\"deleted\":false}",
     "{\"cidr\":\"10.199.7.0/29\",\"affinity\":\"host:conformance\",\"allocations\":[0,null,null,"
     "null,null,null,null,null],\"unallocated\":[1,2,3,4,5,6,7],\"attributes\":[{\"handle_id\":"
     "\"conformance.a1\",\"secondary\":{\"node\":\"conformance\"}}],\"sequenceNumber\":"
     "1767323045000000001,\"sequenceNumberForAllocation\":{\"0\":1767323045000000001},"
     "\"deleted\":false}",
     "sequenceNumber", NULL},
};

static int ipam_listed(void *arg, const struct store_item *it) {
    struct listing *l = arg;
    assert_true(str_eq(it->key, str_c(l->ns)));
    l->n++;
    return 0;
}

static void require_same(struct store *s, struct store_key k, const struct ipam_case *c,
                         const char *want, uint64_t revision) {
    struct arena a = {0};
    struct err e;
    struct store_item it;
    struct jnode *has = NULL, *doc = NULL;
    OK(store_get(s, k, &a, &it, &e), e);
    assert_int_equal(it.revision, revision);
    OK(json_parse(it.value, &json_limits_default, &a, &has, &e), e);
    OK(json_parse(str_c(want), &json_limits_default, &a, &doc, &e), e);
    has = jnode_getc(has, c->path);
    doc = jnode_getc(doc, c->path);
    if (c->want) {
        has = jnode_getc(has, c->want);
        doc = jnode_getc(doc, c->want);
    }
    if (!jnode_eq(has, doc)) {
        fail_msg("%.*s came back as %.*s", STR_FMT(k.key), STR_FMT(it.value));
    }
    arena_fini(&a);
}

static void t_ipam_items__compare_and_swap__codes(void **state) {
    (void)state;
    struct store *s = subject_open();
    struct err e;
    struct arena a = {0};
    struct store_item it;
    for (size_t i = 0; i < ARRAY_LEN(ipam_cases); i++) {
        const struct ipam_case *c = &ipam_cases[i];
        struct store_key k = {STR(STORE_SPACE_IPAM), str_c(c->key)};
        struct store_key prefix = {k.space, str_c(c->prefix)};
        uint64_t r1 = 0, r2 = 0, at = 0;
        int left = store_delete(s, k, REV_ANY, &e); /* of an earlier run */
        assert_true(left == 0 || left == ERR_NOT_FOUND);
        assert_int_equal(store_put(s, k, str_c(c->first), 7, NULL, &e), ERR_NOT_FOUND);
        OK(store_put(s, k, str_c(c->first), REV_NONE, &r1, &e), e);
        assert_int_equal(store_put(s, k, str_c(c->first), REV_NONE, NULL, &e), ERR_EXISTS);
        require_same(s, k, c, c->first, r1);
        OK(store_put(s, k, str_c(c->second), r1, &r2, &e), e);
        assert_true(r2 > r1);
        assert_int_equal(store_put(s, k, str_c(c->first), r1, NULL, &e), ERR_CONFLICT);
        assert_int_equal(store_delete(s, k, r1, &e), ERR_CONFLICT);
        require_same(s, k, c, c->second, r2);
        struct listing l = {.ns = c->key};
        OK(store_list(s, prefix, &at, ipam_listed, &l, &e), e);
        assert_int_equal(l.n, 1);
        assert_true(at >= r2);
        OK(store_delete(s, k, r2, &e), e);
        assert_int_equal(store_get(s, k, &a, &it, &e), ERR_NOT_FOUND);
        assert_int_equal(store_delete(s, k, r2, &e), ERR_NOT_FOUND);
        OK(store_put(s, k, str_c(c->first), REV_NONE, &r1, &e), e); /* and made again */
        OK(store_delete(s, k, REV_ANY, &e), e);
    }
    arena_fini(&a);
    store_close(s);
}

const struct CMUnitTest calls_tests[] = {
    cmocka_unit_test(t_put__create_exists_conflict__codes),
    cmocka_unit_test(t_put__whatever_is_there__creates_and_replaces),
    cmocka_unit_test(t_put__every_text__comes_back_as_it_was),
    cmocka_unit_test(t_put__unicode_keys__kept_apart),
    cmocka_unit_test(t_put__a_megabyte__comes_back),
    cmocka_unit_test(t_put__above_the_limit__refused_and_goes_on),
    cmocka_unit_test(t_calls__bad_keys__refused),
    cmocka_unit_test(t_list__prefixes__exact_and_in_order),
    cmocka_unit_test(t_list__stopped_and_written_to_inside__as_promised),
    cmocka_unit_test(t_list__thousands__all_once_in_order),
    cmocka_unit_test(t_transaction__rollback_and_commit),
    cmocka_unit_test(t_ipam_items__compare_and_swap__codes),
};
const size_t calls_n = ARRAY_LEN(calls_tests);
