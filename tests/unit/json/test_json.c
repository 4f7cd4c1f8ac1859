/* JSON: strictness, limits, error text, round trip, merge patch, comparison; jansson as the second
 * opinion on mutated texts. */
#include "tree_gen.h"

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

static struct jnode *must_parse(struct arena *a, const char *text) {
    struct err e;
    struct jnode *n = NULL;
    if (parse(a, str_c(text), &n, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return n;
}

static void t_errors__each_kind__found_and_allowed(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"", "JSON 1:1: found the end of the text, need a value: { [ \" a number, true, false or "
             "null"},
        {"tru", "JSON 1:1: found 'tru', need a value"},
        {"{a:1}", "JSON 1:2: found 'a', need a key in double quotes"},
        {"{\"a\":1,\n}", "JSON 2:1: found '}', need a key in double quotes"},
        {"{\"a\" 1}", "JSON 1:6: found '1', need a colon behind the key"},
        {"{\"a\":1 \"b\"", "JSON 1:8: found '\"', need a comma or } in an object"},
        {"[1 2]", "JSON 1:4: found '2', need a comma or ] in a list"},
        {"[1\n", "JSON 2:1: found the end of the text, need a comma or ] in a list"},
        {"1 2", "JSON 1:3: found '2', need the end of the text behind the value"},
        {"{\"k\":1,\n\n\"k\":2}", "JSON 3:1: found the key \"k\" again, first on line 1; a key may "
                                  "stand once in an object"},
        {"-x", "JSON 1:2: found 'x', need a digit behind the minus sign"},
        {"[01]", "JSON 1:2: found '01', need a number without zeros at its start"},
        {"1.x", "JSON 1:3: found 'x', need digits behind the decimal point"},
        {"1e+", "JSON 1:4: found the end of the text, need digits in the exponent"},
        {"[1e999]", "JSON 1:2: found a number beyond the largest double"},
        {"\"abc", "JSON 1:1: found a string that is never closed, need a \" at its end"},
        {"\"a\\x\"", "JSON 1:4: found 'x', need one of \" \\ / b f n r t uXXXX behind a backslash"},
        {"\"\\u00g0\"", "JSON 1:6: found 'g0', need four hex digits after \\u"},
        {"\"\\ud800x\"", "JSON 1:8: found 'x', need the second half of the surrogate pair"},
        {"\"\\ud800\\u0041\"", "JSON 1:14: found \\u0041 behind \\ud800, need the second half"},
        {"\"\\udc00\"", "JSON 1:8: found \\udc00, the second half of a surrogate pair, without"},
        {"\"\\u0000\"", "JSON 1:8: found \\u0000 in a string"},
        {"\"a\nb\"", "JSON 1:3: found byte 0x0a in a string, write control characters as \\u000a"},
        {"\"\xff\"", "JSON 1:2: found byte 0xff in a string, need valid UTF-8"},
        {"\t\x01", "JSON 1:2: found byte 0x01, need a value"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a = {0};
        struct err e = {0};
        struct jnode *n = NULL;
        assert_int_equal(parse(&a, str_c(cases[i][0]), &n, &e), ERR_INVALID);
        assert_null(n);
        if (strncmp(e.msg, cases[i][1], strlen(cases[i][1])) != 0) {
            fail_msg("of %s\ngot  %s\nneed %s", cases[i][0], e.msg, cases[i][1]);
        }
        arena_fini(&a);
    }
}

/* The 17th key changes how duplicates are found; the line of the first must stay right. */
static void t_duplicate_key__in_large_object__first_line_named(void **state MG_UNUSED) {
    for (int first = 0; first < 40; first++) {
        struct arena a = {0};
        struct err e = {0};
        struct jnode *n = NULL;
        struct buf b = BUF_INIT(1 << 16);
        buf_puts(&b, "{");
        for (int i = 0; i < 40; i++) {
            buf_printf(&b, "\n\"k%d\":\n[%d],", i, i);
        }
        buf_printf(&b, "\n\"k%d\":1}", first);
        assert_int_equal(parse(&a, buf_view(&b), &n, &e), ERR_INVALID);
        const char *need = arena_printf(&a,
                                        "JSON 82:1: found the key \"k%d\" again, first on line "
                                        "%d;",
                                        first, 2 + 2 * first)
                               .p;
        assert_true(strncmp(e.msg, need, strlen(need)) == 0);
        buf_fini(&b);
        arena_fini(&a);
    }
}

static void t_numbers__any_notation__text_kept(void **state MG_UNUSED) {
    static const char *const texts[] = {
        "0", "-0", "-0.0", "1e5", "1E+5", "12345678901234567890", "0.10", "-9223372036854775808",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct arena a = {0};
        struct buf b = BUF_INIT(1 << 10);
        json_write(&b, must_parse(&a, texts[i]), 0);
        assert_string_equal(buf_cstr(&b), texts[i]);
        buf_fini(&b);
        arena_fini(&a);
    }
    struct arena a = {0};
    struct err e;
    struct jnode *n = NULL;
    char digits[401];
    memset(digits, '7', sizeof(digits));
    memcpy(digits, "0.", 2);
    assert_int_equal(parse(&a, str_n(digits, 400), &n, &e), 0);
    assert_int_equal(n->s.n, 400);
    assert_int_equal(parse(&a, str_n(digits, 401), &n, &e), ERR_TOO_BIG);
    assert_string_equal(e.msg,
                        "JSON 1:1: found a number of 401 characters, at most 400 are allowed");
    /* A number that code changed is written as it is now. */
    n = must_parse(&a, "0");
    n->i = 7;
    struct buf b = BUF_INIT(64);
    json_write(&b, n, 0);
    assert_string_equal(buf_cstr(&b), "7");
    buf_fini(&b);
    arena_fini(&a);
}

static void t_eq__numbers__by_exact_value(void **state MG_UNUSED) {
    static const struct {
        const char *a, *b;
        bool eq;
    } cases[] = {
        {"0", "-0", true},
        {"0", "-0.0", true},
        {"0", "0e9", true},
        {"1", "1.0", true},
        {"100", "1e2", true},
        {"100", "1E+2", true},
        {"0.01", "1e-2", true},
        {"0.0120", "12e-3", true},
        {"-5", "5", false},
        {"-5.0", "-5", true},
        {"10", "1", false},
        {"0.1", "0.01", false},
        {"9007199254740993", "9007199254740992.0", false},
        {"9007199254740993", "9007199254740993.0", true},
        {"9223372036854775807", "9223372036854775808", false},
        {"9223372036854775808", "9223372036854775809", false},
        {"18446744073709551616", "1.8446744073709551616e19", true},
        {"0.1", "0.10000000000000000555", false},
        {"1e-400", "0", false},
        {"1e-400", "10e-401", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a = {0};
        const struct jnode *x = must_parse(&a, cases[i].a);
        const struct jnode *y = must_parse(&a, cases[i].b);
        if (jnode_eq(x, y) != cases[i].eq || jnode_eq(y, x) != cases[i].eq) {
            fail_msg("%s and %s", cases[i].a, cases[i].b);
        }
        arena_fini(&a);
    }
}

/* {"k0": base, "k1": base + 1, ...}, from the last to the first when reversed. */
static struct jnode *big_map(struct arena *a, int n, int base, bool reversed) {
    struct jnode *map = jnode_new(a, J_MAP);
    for (int i = 0; i < n; i++) {
        int k = reversed ? n - 1 - i : i;
        struct jnode *v = jnode_new_int(a, base + k);
        v->key = arena_printf(a, "k%d", k);
        jnode_append(map, v);
    }
    return map;
}

/* Sizes on both sides of where a table takes over; the largest takes minutes if each member is
 * looked for among all. */
static void t_eq_and_merge_patch__map_sizes__linear(void **state MG_UNUSED) {
    static const int sizes[] = {1, 15, 16, 17, 18, 200000};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        int n = sizes[i];
        struct arena a = {0};
        struct jnode *x = big_map(&a, n, 0, false);
        struct jnode *y = big_map(&a, n, 0, true);
        assert_true(jnode_eq(x, y));
        y->last->i++;
        assert_false(jnode_eq(x, y));
        y->last->i--;
        y->last->key = STR("other");
        assert_false(jnode_eq(x, y));
        /* Every second member goes, the others change, as many are new. */
        struct jnode *patch = big_map(&a, 2 * n, 5, true);
        for (struct jnode *it = patch->child; it; it = it->next) {
            it->type = (it->i - 5) % 2 ? J_NULL : J_INT;
        }
        struct jnode *got = jnode_merge_patch(&a, x, patch);
        assert_ptr_equal(got, x);
        size_t members = 0;
        jnode_each (it, got) {
            assert_int_equal(it->type, J_INT);
            assert_true(str_eq(it->key, arena_printf(&a, "k%d", (int)it->i - 5)));
            assert_true(it->next || it == got->last);
            members++;
        }
        assert_int_equal(members, n);
        assert_int_equal(got->n, n);
        assert_true(str_is(got->child->key, "k0"));
        arena_fini(&a);
    }
}

/* RFC 7396's pseudocode, member by member. */
static struct jnode *plain_merge(struct arena *a, struct jnode *target, const struct jnode *patch) {
    if (patch->type != J_MAP) {
        return jnode_copy(a, patch);
    }
    struct jnode *out = jnode_new(a, J_MAP);
    if (target && target->type == J_MAP) {
        out = jnode_copy(a, target);
    }
    jnode_each (it, patch) {
        if (it->type == J_NULL) {
            (void)jnode_del(out, it->key);
        } else {
            jnode_set(a, out, it->key, plain_merge(a, jnode_get(out, it->key), it));
        }
    }
    return out;
}

static void t_merge_patch__random_trees__as_rfc_pseudocode(void **state MG_UNUSED) {
    size_t maps = 0;
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        struct arena a = {0};
        struct gen g = {hash_u64(seed), &a};
        struct jnode *target = gen_tree(&g, 3);
        struct jnode *patch = gen_tree(&g, 3);
        maps += target->type == J_MAP && patch->type == J_MAP;
        struct jnode *need = plain_merge(&a, target, patch);
        struct jnode *got = jnode_merge_patch(&a, target, patch);
        struct buf b[2] = {BUF_INIT(1 << 22), BUF_INIT(1 << 22)};
        json_write(&b[0], need, 0);
        json_write(&b[1], got, 0);
        if (!str_eq(buf_view(&b[0]), buf_view(&b[1])) || !jnode_eq(need, got)) {
            fail_msg("seed %llu:\nneed %s\ngot  %s", (unsigned long long)seed, buf_cstr(&b[0]),
                     buf_cstr(&b[1]));
        }
        buf_fini(&b[0]);
        buf_fini(&b[1]);
        arena_fini(&a);
    }
    assert_true(maps > 200);
}

static struct str any_text(struct gen *g, struct buf *b) {
    static const char seed_text[] = "{\"kind\":\"Pod\",\"n\":[1,-2.5e3,0,true,false,null],\"s\":"
                                    "\"a\\n\\u00e9\\ud83d\\ude00 \xc3\xa9\","
                                    "\"m\":{\"x\":{},\"y\":[]}}";
    if (gen_below(g, 3) == 0) {
        return str_c(seed_text);
    }
    buf_reset(b);
    json_write(b, gen_tree(g, 3), (unsigned)gen_below(g, 3));
    return arena_dup(g->a, buf_view(b));
}

/* One change of a text: a byte replaced, put in or taken out, a piece moved in from another text
 * or from itself, the end cut off. */
static struct str mutate(struct gen *g, struct str t, struct str other) {
    static const char alphabet[] = "{}[]\",:0123456789.eE+-\\untrfals \n\t\r\x0b/\xc3\xa9\x01\x7f";
    size_t at = (size_t)gen_below(g, t.n + 1);
    size_t skip = 0;
    struct str in = str_n(alphabet + gen_below(g, sizeof(alphabet) - 1), 1);
    switch (gen_below(g, 6)) {
    case 0:
        skip = 1;
        break;
    case 1:
        break;
    case 2:
        skip = 1 + gen_below(g, 5);
        in.n = 0;
        break;
    case 3:
        in = str_sub(other, gen_below(g, other.n + 1), gen_below(g, other.n + 1));
        skip = gen_below(g, 2) ? in.n : 0;
        break;
    case 4:
        in = str_sub(t, gen_below(g, t.n + 1), gen_below(g, t.n + 1));
        break;
    default:
        if (gen_below(g, 10) == 0) {
            return str_sub(t, 0, at);
        }
        skip = 1;
        break;
    }
    struct str rest = str_sub(t, at + skip, t.n);
    return arena_printf(g->a, "%.*s%.*s%.*s", (int)at, t.p, STR_FMT(in), STR_FMT(rest));
}

/* What we accept, jansson accepts, and both print the same value; what we refuse, it refuses.
 * It alone refuses whole numbers beyond 64 bits. */
static void t_parse__mutated_texts__agrees_with_jansson(void **state MG_UNUSED) {
    size_t accepted = 0;
    size_t refused = 0;
    struct buf b = BUF_INIT(1 << 22);
    for (uint64_t seed = 1; seed <= 60000; seed++) {
        struct arena a = {0};
        struct gen g = {hash_u64(seed), &a};
        struct str t = any_text(&g, &b);
        struct str other = any_text(&g, &b);
        for (uint64_t k = gen_below(&g, 4); k > 0; k--) {
            t = mutate(&g, t, other);
        }
        struct err e;
        struct jnode *tree = NULL;
        int ours = parse(&a, t, &tree, &e);
        json_error_t je;
        json_t *theirs = json_loadb(t.p, t.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
        bool too_big = !theirs && json_error_code(&je) == json_error_numeric_overflow;
        if (!(ours == 0 && too_big) && (ours == 0) != (theirs != NULL)) {
            fail_msg("seed %llu: ours %d (%s), jansson %s: %.*s", (unsigned long long)seed, ours,
                     ours ? e.msg : "", je.text, STR_FMT(t));
        }
        refused += ours < 0;
        if (ours == 0) {
            accepted++;
            buf_reset(&b);
            json_write(&b, tree, (unsigned)(seed % 3));
            struct jnode *again = NULL;
            assert_int_equal(parse(&a, buf_view(&b), &again, &e), 0);
            assert_true(jnode_eq(tree, again));
        }
        if (theirs) {
            json_t *back = json_loadb(b.p, b.n, JSON_DECODE_ANY, &je);
            assert_non_null(back);
            assert_true(json_equal(back, theirs));
            json_decref(back);
            json_decref(theirs);
        }
        arena_fini(&a);
    }
    buf_fini(&b);
    assert_true(accepted > 15000);
    assert_true(refused > 15000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_parse__invalid__position_named),
        cmocka_unit_test(t_parse__beyond_limits__refused),
        cmocka_unit_test(t_parse__nodes__line_and_column),
        cmocka_unit_test(t_errors__each_kind__found_and_allowed),
        cmocka_unit_test(t_duplicate_key__in_large_object__first_line_named),
        cmocka_unit_test(t_numbers__any_notation__text_kept),
        cmocka_unit_test(t_eq__numbers__by_exact_value),
        cmocka_unit_test(t_eq_and_merge_patch__map_sizes__linear),
        cmocka_unit_test(t_merge_patch__rfc7396_examples__result),
        cmocka_unit_test(t_merge_patch__random_trees__as_rfc_pseudocode),
        cmocka_unit_test(t_parse__mutated_texts__agrees_with_jansson),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
