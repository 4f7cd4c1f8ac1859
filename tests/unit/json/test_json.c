/* JSON: strictness, limits, round trip; jansson as the second opinion on mutated texts. */
#include "base/hash.h"
#include "base/jtree.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int parse(struct arena *a, struct str text, struct jnode **out, struct err *e) {
    return json_parse(text, &json_limits_default, a, out, e);
}

static void t_parse__invalid__position_named(void **state MG_UNUSED) {
    static const char *const bad[] = {
        "",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\":1,\"a\":2}",
        "01",
        "1.",
        "1e",
        "-",
        "\"\\ud800\"",
        "\"\\udc00x\"",
        "\"\\u0000\"",
        "\"\x01\"",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "tru",
        "1 2",
        "\"abc",
        "\"\\x\"",
        "[1 2]",
        "{a:1}",
        "1e999",
        "nul",
        "\"\xed\xa0\x80\"",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct arena a = {0};
        struct err e = {0};
        struct jnode *n = NULL;
        if (parse(&a, str_c(bad[i]), &n, &e) == 0) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_non_null(strstr(e.msg, "JSON 1:"));
        arena_fini(&a);
    }
}

static void t_parse__beyond_limits__refused(void **state MG_UNUSED) {
    struct arena a = {0};
    struct err e = {0};
    struct jnode *n = NULL;
    char deep[200];
    memset(deep, '[', sizeof(deep));
    assert_int_equal(parse(&a, str_n(deep, sizeof(deep)), &n, &e), ERR_TOO_BIG);
    struct jlimits lim = json_limits_default;
    lim.max_nodes = 3;
    assert_int_equal(json_parse(STR("[1,2,3]"), &lim, &a, &n, &e), ERR_TOO_BIG);
    lim.max_string = 2;
    assert_int_equal(json_parse(STR("\"abc\""), &lim, &a, &n, &e), ERR_TOO_BIG);
    lim.max_bytes = 3;
    assert_int_equal(json_parse(STR("1234"), &lim, &a, &n, &e), ERR_TOO_BIG);
    arena_fini(&a);
}

static void t_parse__nodes__line_and_column(void **state MG_UNUSED) {
    struct arena a = {0};
    struct err e;
    struct jnode *n = NULL;
    assert_int_equal(parse(&a, STR("{\n \"a\": {\"b\":\n  [1, true]}}"), &n, &e), 0);
    struct jnode *b = jnode_path(n, "a.b");
    assert_int_equal(b->line, 3);
    assert_int_equal(b->col, 3);
    assert_int_equal(b->n, 2);
    assert_null(jnode_path(n, "a.c.d"));
    arena_fini(&a);
}

static void t_merge_patch__rfc7396_examples__result(void **state MG_UNUSED) {
    static const char *const cases[][3] = {
        {"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
        {"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
        {"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
        {"[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]"},
        {"{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"},
        {"[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}"},
        {"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a = {0};
        struct err e;
        struct jnode *n[3];
        for (int k = 0; k < 3; k++) {
            assert_int_equal(parse(&a, str_c(cases[i][k]), &n[k], &e), 0);
        }
        struct jnode *got = jnode_merge_patch(&a, n[0], n[1]);
        if (!jnode_eq(got, n[2])) {
            fail_msg("case %zu", i);
        }
        arena_fini(&a);
    }
}

/* What we accept, jansson accepts, and both print the same value; what we refuse, it refuses. */
static void t_parse__mutated_texts__agrees_with_jansson(void **state MG_UNUSED) {
    static const char seed_text[] = "{\"kind\":\"Pod\",\"n\":[1,-2.5e3,0,true,false,null],\"s\":"
                                    "\"a\\n\\u00e9\\ud83d\\ude00 \xc3\xa9\","
                                    "\"m\":{\"x\":{},\"y\":[]}}";
    static const char alphabet[] = "{}[]\",:0123456789.eE+-\\untrfals \n\t\xc3\xa9\x01";
    uint64_t x = 7;
    size_t accepted = 0;
    for (int round = 0; round < 200000; round++) {
        char t[sizeof(seed_text)];
        memcpy(t, seed_text, sizeof(t));
        size_t n = sizeof(t) - 1;
        x = hash_u64(x + 1);
        for (uint64_t k = 0; k <= x % 3; k++) {
            uint64_t m = hash_u64(x + k);
            t[m % n] = alphabet[(m >> 20) % (sizeof(alphabet) - 1)];
        }
        struct arena a = {0};
        struct err e;
        struct jnode *tree = NULL;
        int ours = parse(&a, str_n(t, n), &tree, &e);
        json_error_t je;
        json_t *theirs = json_loadb(t, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
        if ((ours == 0) != (theirs != NULL)) {
            fail_msg("ours %d (%s), jansson %s: %s", ours, ours ? e.msg : "", je.text, t);
        }
        if (theirs) {
            accepted++;
            struct buf b = BUF_INIT(1 << 16);
            json_write(&b, tree, (unsigned)(x % 3));
            json_t *back = json_loadb(b.p, b.n, JSON_DECODE_ANY, &je);
            assert_non_null(back);
            assert_true(json_equal(back, theirs));
            struct jnode *again = NULL;
            assert_int_equal(parse(&a, buf_view(&b), &again, &e), 0);
            assert_true(jnode_eq(tree, again));
            json_decref(back);
            json_decref(theirs);
            buf_fini(&b);
        }
        arena_fini(&a);
    }
    assert_true(accepted > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_parse__invalid__position_named),
        cmocka_unit_test(t_parse__beyond_limits__refused),
        cmocka_unit_test(t_parse__nodes__line_and_column),
        cmocka_unit_test(t_merge_patch__rfc7396_examples__result),
        cmocka_unit_test(t_parse__mutated_texts__agrees_with_jansson),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
