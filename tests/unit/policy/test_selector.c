/* Selectors: what is valid, canonical text, matches; pinned to projectcalico/calico
 * libcalico-go/lib/selector. */
#include "policy/selector.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct {
    const char *text, *canonical;
    const char *yes, *no; /* label sets "a=b,c=d" that match and don't; sorted by key */
} valid[] = {
    {"", "all()", "", NULL},
    {" \t", "all()", "", NULL},
    {"a=='b'", "a == \"b\"", "a=b", "a=c"},
    {"a == 'b'", "a == \"b\"", "a=b,z=1", ""},
    {"a != \"b\"", "a != \"b\"", "", "a=b"},
    {"a in {'y','x','y'}", "a in {\"x\", \"y\"}", "a=x", "a=z"},
    {"a in{'y'}", "a in {\"y\"}", "a=y", ""},
    {"a notin {'x',}", "a not in {\"x\"}", "", "a=x"},
    {"a not  in {'x'}", "a not in {\"x\"}", "a=y", "a=x"},
    {"a in {}", "a in {}", NULL, "a="},
    {"a not in {}", "a not in {}", "", NULL},
    {"a in {'},', 'b'}", "a in {\"b\", \"},\"}", "a=b", "a=}"},
    {"has(a) && !has(b) || c == ''", "((has(a) && !has(b)) || c == \"\")", "a=1", "a=1,b=1"},
    {"has(a) && !has(b) || c == ''", "((has(a) && !has(b)) || c == \"\")", "c=", "b=1"},
    {"!!has(a)", "has(a)", "a=", ""},
    {"! ! !has(a)", "!has(a)", "", "a="},
    {"!(!has(a))", "!!has(a)", "a=", ""},
    {"!(a=='b')", "!a == \"b\"", "", "a=b"},
    {"!(a=='b' || a=='c')", "!(a == \"b\" || a == \"c\")", "a=d", "a=b"},
    {"name startswith 'we' && name ends   with \"b\"",
     "(name starts with \"we\" && name ends with \"b\")", "name=web", "name=we"},
    {"k contains \"'\"", "k contains \"'\"", "k=it's", "k=its"},
    {"k == 'say \"x\"'", "k == 'say \"x\"'", "k=say \"x\"", "k=say"},
    {"((all()))", "all()", "", NULL},
    {"all( )", "all()", "", NULL},
    {"has( a )", "has(a)", "a=", ""},
    {"global()", "global()", "", NULL},
    {"in in {'in'}", "in in {\"in\"}", "in=in", "in=out"},
    {"contains contains 'x'", "contains contains \"x\"", "contains=axb", "contains=a"},
    {"has == 'x'", "has == \"x\"", "has=x", ""},
    {"a == 'x\ny'", "a == \"x\ny\"", NULL, "a=x"},
    {"(a == '1' || b == '2') && c == '3'", "((a == \"1\" || b == \"2\") && c == \"3\")", "b=2,c=3",
     "a=1"},
};

static const char *const invalid[] = {
    "a = 'b'",
    "a == b",
    "a == 'b",
    "a",
    "== 'b'",
    "a &&",
    "a == 'b' c == 'd'",
    "has (a)",
    "has()",
    "a in 'b'",
    "a in {b}",
    "a in {'b'",
    "(a == 'b'",
    "a == 'b')",
    "!",
    "a & b",
    "a==='b'",
    "a == 'b'\n",
    "a inside {'x'}",
    "a IN {'x'}",
    "a in {,}",
    "a in {'b' 'c'}",
    "all",
    "all(a)",
    "&& a == 'b'",
    "a == 'b' &&& c == 'd'",
    "a\n== 'b'",
    "foo()",
    "a containsx 'b'",
};

static size_t parse_labels(const char *text, struct label *out) {
    size_t n = 0;
    struct str rest = text[0] ? str_c(text) : STR_NULL;
    while (rest.p) {
        struct str value = str_cut(&rest, ',');
        struct str key = str_cut(&value, '=');
        out[n++] = (struct label){key, value};
    }
    return n;
}

static bool match_text(const struct selector *s, const char *labels) {
    struct label l[8];
    return selector_match(s, l, parse_labels(labels, l));
}

static void t_parse__valid__canonical_and_matches(void **state MG_UNUSED) {
    for (size_t i = 0; i < ARRAY_LEN(valid); i++) {
        struct arena a = {0};
        struct err e = {0};
        const struct selector *s = NULL;
        if (selector_parse(str_c(valid[i].text), SELECTOR_MAX_BYTES, &a, &s, &e) < 0) {
            fail_msg("%s: %s", valid[i].text, e.msg);
        }
        struct buf b = BUF_INIT(4096);
        selector_print(s, &b);
        assert_string_equal(buf_cstr(&b), valid[i].canonical);
        if (valid[i].yes && !match_text(s, valid[i].yes)) {
            fail_msg("%s must match %s", valid[i].text, valid[i].yes);
        }
        if (valid[i].no && match_text(s, valid[i].no)) {
            fail_msg("%s must not match %s", valid[i].text, valid[i].no);
        }
        /* The canonical form is a fixed point, except that adjacent ! are one run there. */
        if (!strstr(valid[i].canonical, "!!") && !strstr(valid[i].canonical, "!a ==")) {
            const struct selector *again = NULL;
            struct buf b2 = BUF_INIT(4096);
            assert_int_equal(selector_parse(buf_view(&b), 4096, &a, &again, &e), 0);
            selector_print(again, &b2);
            assert_string_equal(buf_cstr(&b2), valid[i].canonical);
            buf_fini(&b2);
        }
        buf_fini(&b);
        arena_fini(&a);
    }
}

static void t_parse__invalid__error_with_position(void **state MG_UNUSED) {
    for (size_t i = 0; i < ARRAY_LEN(invalid); i++) {
        struct arena a = {0};
        struct err e = {0};
        const struct selector *s = NULL;
        if (selector_parse(str_c(invalid[i]), SELECTOR_MAX_BYTES, &a, &s, &e) != ERR_INVALID) {
            fail_msg("accepted: %s", invalid[i]);
        }
        assert_null(s);
        assert_non_null(strstr(e.msg, "byte "));
        arena_fini(&a);
    }
}

static void t_parse__beyond_limits__refused(void **state MG_UNUSED) {
    struct arena a = {0};
    struct err e = {0};
    const struct selector *s = NULL;
    char deep[2000];
    memset(deep, '(', sizeof(deep));
    assert_int_equal(selector_parse(str_n(deep, sizeof(deep)), 1024, &a, &s, &e), ERR_TOO_BIG);
    assert_int_equal(selector_parse(str_n(deep, sizeof(deep)), 1 << 20, &a, &s, &e), ERR_TOO_BIG);
    assert_non_null(strstr(e.msg, "nested"));
    char label[600];
    memset(label, 'x', sizeof(label));
    assert_int_equal(selector_parse(str_n(label, sizeof(label)), 1024, &a, &s, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "600 bytes"));
    assert_int_equal(selector_parse(str_n("has(\0)", 6), 1024, &a, &s, &e), ERR_INVALID);
    arena_fini(&a);
}

static void t_id__known_selector__calicos_id(void **state MG_UNUSED) {
    struct arena a = {0};
    struct err e;
    const struct selector *s = NULL;
    char id[SELECTOR_ID_BYTES];
    assert_int_equal(selector_parse(STR(" has( a )"), 1024, &a, &s, &e), 0);
    selector_id(s, id);
    assert_string_equal(id, "s:JpRGrxZ4kdS6g7WoF-uG_g7qlh2ipw2zGYBMpQ");
    arena_fini(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_parse__valid__canonical_and_matches),
        cmocka_unit_test(t_parse__invalid__error_with_position),
        cmocka_unit_test(t_parse__beyond_limits__refused),
        cmocka_unit_test(t_id__known_selector__calicos_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
