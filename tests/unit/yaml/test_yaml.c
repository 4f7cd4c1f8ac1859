/* YAML: scalars as kubectl reads them, structure, anchors, merge keys, limits, error text, and the
 * round trip of random trees through the writer. */
#include "../json/tree_gen.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct docs {
    struct jnode *p[16];
    size_t n;
    int answer; /* what the callback returns */
};

static int keep(void *arg, struct jnode *doc) {
    struct docs *d = arg;
    assert_true(d->n < ARRAY_LEN(d->p));
    d->p[d->n++] = doc;
    return d->answer;
}

static int read_all(struct arena *a, struct str text, struct docs *d, struct err *e) {
    *d = (struct docs){.n = 0};
    return yaml_each(text, "f", &json_limits_default, a, keep, d, e);
}

/* The documents of a YAML text, each as compact JSON, one a line. */
static const char *as_json(struct arena *a, struct str text) {
    struct docs d;
    struct err e = {0};
    struct buf b = BUF_INIT(1 << 22);
    if (read_all(a, text, &d, &e) < 0) {
        fail_msg("%s\nin:\n%.*s", e.msg, STR_FMT(text));
    }
    for (size_t i = 0; i < d.n; i++) {
        if (i) {
            buf_putc(&b, '\n');
        }
        json_write(&b, d.p[i], 0);
    }
    const char *out = arena_cstr(a, buf_view(&b));
    buf_fini(&b);
    return out;
}

static void check_table(const char *const cases[][2], size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct arena a = {0};
        const char *got = as_json(&a, str_c(cases[i][0]));
        if (strcmp(got, cases[i][1]) != 0) {
            fail_msg("of:\n%s\ngot  %s\nneed %s", cases[i][0], got, cases[i][1]);
        }
        arena_fini(&a);
    }
}

/* Values checked against kubectl 1.32 (annotate --local -o json). */
static void t_plain_scalars__all_forms__as_kubectl(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"[y, Y, n, N, yes, Yes, YES, no, on, On, off, OFF, true, True, TRUE, false]",
         "[true,true,false,false,true,true,true,false,true,true,false,false,true,true,true,false]"},
        {"[yEs, tRUE, nO, yess, nope, oN]", "[\"yEs\",\"tRUE\",\"nO\",\"yess\",\"nope\",\"oN\"]"},
        {"[null, Null, NULL, ~, nUll]", "[null,null,null,null,\"nUll\"]"},
        {"{a: , b: ~}", "{\"a\":null,\"b\":null}"},
        {"[0777, 0o17, 0b11, 0x1F, 0XfF, -0x10, -0b11, +5, -7]", "[511,15,3,31,255,-16,-3,5,-7]"},
        {"[08, 09.5, 1_0, 1_, 1__0, 0x_1]", "[8,9.5,10,1,10,1]"},
        {"[1., .5, -.5, +.5, 1e3, 1.e3, 0.1e-3, 1_0.5]",
         "[1.0,0.5,-0.5,0.5,1e3,1.0e3,0.1e-3,10.5]"},
        {"[9223372036854775807, 18446744073709551615, 0xffffffffffffffff, 99999999999999999999]",
         "[9223372036854775807,18446744073709551615,18446744073709551615,99999999999999999999]"},
        {"[-9223372036854775808, -9223372036854775809]",
         "[-9223372036854775808,-9223372036854775809]"},
        {"[0xFFFFFFFFFFFFFFFFFF, 1e999, 1:20, 2001-01-01, =, 1.2.3, 1e, 0x, ., +, _1, 1-2, ._5]",
         "[\"0xFFFFFFFFFFFFFFFFFF\",\"1e999\",\"1:20\",\"2001-01-01\",\"=\",\"1.2.3\",\"1e\","
         "\"0x\",\".\",\"+\",\"_1\",\"1-2\",\"._5\"]"},
        {"['12', \"true\", 'null', \"\", '']", "[\"12\",\"true\",\"null\",\"\",\"\"]"},
        {"[!!str 5, !!str , !!int '7', !!float 5, !!bool yes, !!null '', ! 12, !!int 0x10]",
         "[\"5\",\"\",7,5,true,null,\"12\",16]"},
        {"!!map {a: !!seq [1]}", "{\"a\":[1]}"},
        {"a: >\n  x\n  y\n\n  z\nb: |\n  x\n  y\nc: |-\n  x\nd: |+\n  x\n\ne: 1",
         "{\"a\":\"x y\\nz\\n\",\"b\":\"x\\ny\\n\",\"c\":\"x\",\"d\":\"x\\n\\n\",\"e\":1}"},
        {"a: |\n  no line end", "{\"a\":\"no line end\\n\"}"},
        {"a: b\n   c\n\n   d", "{\"a\":\"b c\\nd\"}"},
        {"\"a\\tb\\x41\\u00e9\\\n  c\"", "\"a\\tbA\xc3\xa9"
                                         "c\""},
    };
    check_table(cases, ARRAY_LEN(cases));
}

static void t_keys__not_text__become_text(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"0x1F: b\n1.0: c\n2.50: d\n1e6: e\n100000.0: f\n1234567890.5: g\n1e-5: h\n0.1: i\n"
         "-0.25: j\nyes: k\n08: l\n0: m",
         "{\"31\":\"b\",\"1\":\"c\",\"2.5\":\"d\",\"1e+06\":\"e\",\"100000\":\"f\","
         "\"1.234568e+09\":\"g\",\"1e-05\":\"h\",\"0.1\":\"i\",\"-0.25\":\"j\",\"true\":\"k\","
         "\"8\":\"l\",\"0\":\"m\"}"},
        {"? a\n: b\n? >\n  c\n: d\n? 'e'", "{\"a\":\"b\",\"c\\n\":\"d\",\"e\":null}"},
        {"- &k x\n- {*k : 2}", "[\"x\",{\"x\":2}]"},
        {"&k x: *k", "{\"x\":\"x\"}"},
    };
    check_table(cases, ARRAY_LEN(cases));
    struct arena a = {0};
    struct docs d;
    struct err e;
    assert_int_equal(read_all(&a, STR("1: a\nb: c\n1.0: d\n"), &d, &e), ERR_INVALID);
    assert_string_equal(e.msg, "f:3:1: found the key '1' again, first on line 1; a key may stand "
                               "once in a map");
    arena_fini(&a);
}

static void t_documents__streams__each_once(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"", ""},
        {"\n# nothing\n", ""},
        {"---\n---\n# c\n---\n", ""},
        {"a: 1\n---\nb: 2\n", "{\"a\":1}\n{\"b\":2}"},
        {"---\na: 1\n...\n---\n---\nb: 2\n...\n", "{\"a\":1}\n{\"b\":2}"},
        {"--- null\n--- ''\n--- x", "null\n\"\"\n\"x\""},
        {"%YAML 1.1\n---\na: 1\n", "{\"a\":1}"},
        {"\xef\xbb\xbf"
         "a: 1\n",
         "{\"a\":1}"},
        {"a: 1\r\nb:\r\n- c\r\n---\r\nd: |\r\n  x\r\n  y\r\n",
         "{\"a\":1,\"b\":[\"c\"]}\n{\"d\":\"x\\ny\\n\"}"},
        {"{\n\t\"a\": [1,\n\t2]\n}\n", "{\"a\":[1,2]}"},
        {"\xef\xbb\xbf{\n\t\"a\": 1}", "{\"a\":1}"},
        {"{\"a\":1}{\"b\":2}\n[3]", "{\"a\":1}\n{\"b\":2}\n[3]"},
        {"---\n{\"a\":1}\n---\n\t{\"b\":2}\n---\n", "{\"a\":1}\n{\"b\":2}"},
        {"{\"a\": \"\\ud83d\\ude00\"}", "{\"a\":\"\xf0\x9f\x98\x80\"}"},
        {"{a: b, c: [d, 'e']}", "{\"a\":\"b\",\"c\":[\"d\",\"e\"]}"},
        {"{\"a\":1}\n---\nb: 2", "{\"a\":1}\n{\"b\":2}"},
        {"[1]\n---\n- 2", "[1]\n[2]"},
    };
    check_table(cases, ARRAY_LEN(cases));
}

static void t_documents__syntax_error_in_second__first_was_given(void **state MG_UNUSED) {
    static const char *const texts[] = {"a: 1\n---\nb: [1\n", "{\"a\":1}\n{\"b\":}\n",
                                        "{\"a\":1}\n---\n{\"b\":1,\"b\":2}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct arena a = {0};
        struct docs d;
        struct err e;
        assert_int_equal(read_all(&a, str_c(texts[i]), &d, &e), ERR_INVALID);
        assert_int_equal(d.n, 1);
        assert_int_equal(jnode_getc(d.p[0], "a")->i, 1);
        arena_fini(&a);
    }
}

static void t_callback__negative__stops_and_is_returned(void **state MG_UNUSED) {
    static const char *const texts[] = {"a: 1\n---\nb: 2\n", "{\"a\":1}{\"b\":2}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct arena a = {0};
        struct docs d = {.answer = ERR_CONFLICT};
        struct err e = {.msg = "mine"};
        assert_int_equal(yaml_each(str_c(texts[i]), "f", &json_limits_default, &a, keep, &d, &e),
                         ERR_CONFLICT);
        assert_int_equal(d.n, 1);
        assert_string_equal(e.msg, "mine");
        arena_fini(&a);
    }
}

static void t_anchors__aliases_and_merges__expanded(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"a: &x {b: [1]}\nc: *x\nd: *x", "{\"a\":{\"b\":[1]},\"c\":{\"b\":[1]},\"d\":{\"b\":[1]}}"},
        {"- &x 1\n- &x 2\n- *x", "[1,2,2]"},
        {"- &x [&x 1, *x]\n- *x", "[[1,1],[1,1]]"},
        {"a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  k: 3",
         "{\"a\":{\"k\":1,\"l\":2},\"b\":{\"k\":3,\"l\":2}}"},
        {"a: &x {k: 1}\nb: {m: 0, <<: *x}", "{\"a\":{\"k\":1},\"b\":{\"m\":0,\"k\":1}}"},
        {"- &x {k: 1}\n- &y {k: 2, l: 2}\n- {<<: [*x, *y], z: 1}",
         "[{\"k\":1},{\"k\":2,\"l\":2},{\"z\":1,\"k\":1,\"l\":2}]"},
        {"- {<<: &x {k: [1], m: 2}, l: 1}\n- *x\n- {<<: *x}",
         "[{\"l\":1,\"k\":[1],\"m\":2},{\"k\":[1],\"m\":2},{\"k\":[1],\"m\":2}]"},
        {"{'<<': 1}", "{\"<<\":1}"},
        {"a: &e\nb: *e", "{\"a\":null,\"b\":null}"},
    };
    check_table(cases, ARRAY_LEN(cases));
}

/* A copy is a copy: changing one leaves the other. */
static void t_alias__changed__anchor_is_not(void **state MG_UNUSED) {
    struct arena a = {0};
    struct docs d;
    struct err e;
    assert_int_equal(read_all(&a, STR("a: &x {b: {c: 1}}\nd: *x\ne: {<<: *x}\n"), &d, &e), 0);
    assert_int_equal(jnode_getc(d.p[0], "d")->line, 2);
    jnode_path(d.p[0], "a.b.c")->i = 7;
    assert_int_equal(jnode_path(d.p[0], "d.b.c")->i, 1);
    jnode_path(d.p[0], "d.b.c")->i = 8;
    assert_int_equal(jnode_path(d.p[0], "e.b.c")->i, 1);
    arena_fini(&a);
}

static void t_errors__each_kind__place_found_and_allowed(void **state MG_UNUSED) {
    static const struct {
        const char *text, *msg;
    } cases[] = {
        {"a: 1\nb: 2\na: 3\n",
         "f:3:1: found the key 'a' again, first on line 1; a key may stand once in a map"},
        {"a:\n  x: 1\n  'x': 2\n",
         "f:3:3: found the key 'x' again, first on line 2; a key may stand once in a map"},
        {"{\"a\":1,\n\"a\":2}",
         "f:2:1: found the key 'a' again, first on line 1; a key may stand once in a map"},
        {"a: .inf",
         "f:1:4: found '.inf', need a finite number; put it in quotes if it is meant as text"},
        {"a: !!binary aGk=", "f:1:4: found the tag !!binary, need text: write the base64 text "
                             "without a tag"},
        {"a: !x b",
         "f:1:4: found the tag '!x' here, allowed are !!str !!int !!float !!bool !!null"},
        {"a: !!set {b}", "f:1:4: found the tag '!!set' here"},
        {"a: !!int b", "f:1:4: found 'b' behind the tag !!int, need a whole number"},
        {"a: !!int 1.5", "f:1:4: found '1.5' behind the tag !!int, need a whole number"},
        {"a: !!bool 1", "f:1:4: found '1' behind the tag !!bool, need true or false"},
        {"a: !!null x", "f:1:4: found 'x' behind the tag !!null, need null"},
        {"a: !!float x", "f:1:4: found 'x' behind the tag !!float, need a number"},
        {"a: !!seq {}", "f:1:4: found the tag '!!seq' here"},
        {"a: b: c", "f:1:5: found ':', need keys at the column"},
        {"a:\n\tb: 1", "f:2:1: found a tab, need blanks to indent"},
        {"a: b\n\tc: d", "f:2:1: found a tab, need blanks to indent"},
        {"a: @b", "f:1:4: found '@', need quotes around text that starts like this"},
        {"a:\n  b: 1\n c: 2", "f:3:2: found 'c', need a key at the column of the keys before it"},
        {"- a\n -b\n- c\nd", "f:4:1: found 'd', need a"},
        {"a: 1\nxyz\nb: 2", "f:2:1: found 'xyz', need a colon and a blank behind a key"},
        {"a: [1, 2\nb: 3\n", "f:2:2: found ':', need a comma or ] in a list (while parsing a flow "
                             "sequence that begins on line 1)"},
        {"a: 'b\nc: d\n", "f:3:1: found the end of the text, need the quote that closes the text "
                          "(while scanning a quoted scalar that begins on line 1)"},
        {"a: *x", "f:1:4: found the alias 'x', need an anchor &NAME before it"},
        {"&x a\n---\n*x", "f:3:1: found the alias 'x', need an anchor &NAME before it"},
        {"a: &x\n  b: *x", "f:2:6: found the alias 'x' inside of what it names"},
        {"? [a]\n: b", "f:1:3: found a list as a key, need text"},
        {"? {a: b}\n: b", "f:1:3: found a map as a key, need text"},
        {"~: b", "f:1:1: found no key or null, need text"},
        {"a: 1\n? \n: b", "f:2:2: found no key or null, need text"},
        {"18446744073709551615: b", "f:1:1: found a number beyond 64 bits as a key"},
        {"1e300: b", "f:1:1: found a number beyond 64 bits as a key"},
        {"- &x {a: 1}\n- {a: 2, <<: *x}",
         "f:2:10: found << behind the key 'a' of line 2, which it sets too"},
        {"- &x {a: 1}\n- {<<: *x, <<: *x}", "f:2:12: found the key << again, first on line 2"},
        {"<<: 1", "f:1:1: found a value for << that is no map"},
        {"<<: [{a: 1}, 2]", "f:1:1: found a value for << that is no map"},
        {"a: 1\nb: \xff", "f:2:4: found byte 0xff, need valid UTF-8"},
        {"a: \xed\xa0\x80", "f:1:4: found byte 0xed, need valid UTF-8"},
        {"a: \xc3\xa9\xc0\x80", "f:1:5: found byte 0xc0, need valid UTF-8"},
        {"a: \x01", "f:1:4: found a control character (byte 0x01), need printable text"},
        {"a: \"\\0\"", "f:1:4: found a NUL in a string"},
        {"{\"a\": \"\\u0000\"}", "f:1:14: found \\u0000 in a string"},
        {"{\n\t\"a\": ]", "f:2:7: found ']', need a value"},
        {"{\"a\": 1", "f:1:8: found the end of the text, need a comma or }"},
        {"a: \"\\q\"", "f:1:5: found '\\', need an escape that YAML knows"},
        {"%YAML 2.0\n--- a", "f:1:1: found '%', need version 1.1 or 1.2"},
        {"a: !q!x b", "f:1:4: found '!', need one of the tags"},
        {"a: 1\n...\nb: 2\nc", "f:"},
    };
    int n_bad = 0;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a = {0};
        struct docs d;
        struct err e = {0};
        int rc = read_all(&a, str_c(cases[i].text), &d, &e);
        if (rc != ERR_INVALID || strncmp(e.msg, cases[i].msg, strlen(cases[i].msg)) != 0) {
            print_error("of:\n%s\ngot  %d %s\nneed %s\n", cases[i].text, rc, e.msg, cases[i].msg);
            n_bad++;
        }
        arena_fini(&a);
    }
    assert_int_equal(n_bad, 0);
    struct arena a = {0};
    struct docs d;
    struct err e;
    assert_int_equal(read_all(&a, str_n("a: \0", 4), &d, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "f:1:4: found a control character (byte 0x00)"));
    arena_fini(&a);
}

static void t_nodes__places__line_and_column(void **state MG_UNUSED) {
    struct arena a = {0};
    struct docs d;
    struct err e;
    assert_int_equal(
        read_all(&a, STR("# c\nspec:\n  list:\n  - \xc3\xa9: 1\n    b: x\n--- \n- q"), &d, &e), 0);
    const struct jnode *b = jnode_getc(jnode_path(d.p[0], "spec.list")->child, "b");
    assert_int_equal(b->line, 5);
    assert_int_equal(b->col, 8);
    assert_int_equal(jnode_path(d.p[0], "spec.list")->line, 4);
    assert_int_equal(jnode_path(d.p[0], "spec.list")->col, 3);
    assert_int_equal(d.p[1]->child->line, 7);
    arena_fini(&a);
}

static int limited(const char *text, struct jlimits lim, struct err *e, size_t *used) {
    struct arena a = {0};
    struct docs d = {.n = 0};
    int rc = yaml_each(str_c(text), "f", &lim, &a, keep, &d, e);
    if (used) {
        *used = a.used_bytes;
    }
    arena_fini(&a);
    return rc;
}

static void t_limits__exceeded__too_big(void **state MG_UNUSED) {
    struct err e;
    struct jlimits lim = json_limits_default;
    lim.max_depth = 3;
    assert_int_equal(limited("a:\n- [1]\n", lim, &e, NULL), 0);
    assert_int_equal(limited("a:\n- [[1]]\n", lim, &e, NULL), ERR_TOO_BIG);
    assert_non_null(strstr(e.msg, "f:2:4: found lists and maps nested deeper than the 3 levels"));
    assert_int_equal(limited("- &x [[1]]\n- *x\n", lim, &e, NULL), 0);
    assert_int_equal(limited("- &x [[1]]\n- [*x]\n", lim, &e, NULL), ERR_TOO_BIG);
    lim = json_limits_default;
    lim.max_nodes = 4;
    assert_int_equal(limited("a: [1, 2]\n", lim, &e, NULL), 0);
    assert_int_equal(limited("a: [1, 2, 3]\n", lim, &e, NULL), ERR_TOO_BIG);
    assert_int_equal(limited("a: &x [1]\nb: *x\n", lim, &e, NULL), ERR_TOO_BIG);
    assert_int_equal(limited("a: 1\n---\na: 1\n---\na: 1\n", lim, &e, NULL), ERR_TOO_BIG);
    assert_int_equal(limited("[1,2,3,4]", lim, &e, NULL), ERR_TOO_BIG);
    lim = json_limits_default;
    lim.max_string = 3;
    assert_int_equal(limited("abc: def\n", lim, &e, NULL), 0);
    assert_int_equal(limited("abc: defg\n", lim, &e, NULL), ERR_TOO_BIG);
    assert_int_equal(limited("abcd: def\n", lim, &e, NULL), ERR_TOO_BIG);
    lim = json_limits_default;
    lim.max_bytes = 4;
    assert_int_equal(limited("a: 1", lim, &e, NULL), 0);
    assert_int_equal(limited("a: 12", lim, &e, NULL), ERR_TOO_BIG);
    lim = json_limits_default;
    lim.max_aliases = 2;
    assert_int_equal(limited("- &x 1\n- *x\n- *x\n", lim, &e, NULL), 0);
    assert_int_equal(limited("- &x 1\n- *x\n- *x\n- *x\n", lim, &e, NULL), ERR_TOO_BIG);
    assert_non_null(strstr(e.msg, "f:4:3: found more aliases than the 2"));
}

static void t_limits__billion_laughs__small_memory(void **state MG_UNUSED) {
    struct buf b = BUF_INIT(1 << 16);
    struct err e;
    size_t used = 0;
    buf_puts(&b, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 20; i++) {
        buf_printf(&b, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++) {
            buf_printf(&b, "%s*a%d", k ? ", " : "", i - 1);
        }
        buf_puts(&b, "]\n");
    }
    struct jlimits lim = json_limits_default;
    lim.max_nodes = 100000;
    assert_int_equal(limited(buf_cstr(&b), lim, &e, &used), ERR_TOO_BIG);
    assert_non_null(strstr(e.msg, "found an alias to 11111 values"));
    assert_true(used < 100000 * sizeof(struct jnode) + (1 << 16));
    buf_fini(&b);
}

static void t_limits__hostile_shapes__no_quadratic_work(void **state MG_UNUSED) {
    enum { N = 200000 };
    struct buf b = BUF_INIT(1 << 24);
    struct arena a = {0};
    struct docs d;
    struct err e;
    /* Many keys in one map, with a merge of as many. */
    buf_puts(&b, "base: &b\n");
    for (int i = 0; i < N; i++) {
        buf_printf(&b, "  k%d: 1\n", i);
    }
    buf_puts(&b, "copy:\n  <<: *b\n");
    for (int i = 0; i < N; i++) {
        buf_printf(&b, "  k%d: 2\n", i);
    }
    assert_int_equal(read_all(&a, buf_view(&b), &d, &e), 0);
    assert_int_equal(jnode_getc(d.p[0], "copy")->n, N);
    assert_int_equal(jnode_getc(d.p[0], "copy")->last->i, 2);
    arena_fini(&a);
    buf_reset(&b);
    for (int i = 0; i < N; i++) {
        buf_printf(&b, "%%TAG !t%d! tag:x\n", i);
    }
    buf_puts(&b, "--- a\n");
    assert_int_equal(read_all(&a, buf_view(&b), &d, &e), ERR_TOO_BIG);
    arena_fini(&a);
    static const char *const repeated[] = {"[",   "{a: ", "- ", "? ", "? - ", "!!str ", "&a ",
                                           "a: ", "'",    "\"", "{",  "[a, ", "*a : "};
    for (size_t i = 0; i < ARRAY_LEN(repeated); i++) {
        buf_reset(&b);
        for (int k = 0; k < N; k++) {
            buf_puts(&b, repeated[i]);
        }
        int rc = read_all(&a, buf_view(&b), &d, &e);
        if (rc == 0 && str_eq(str_c(repeated[i]), STR("'")) == false &&
            str_eq(str_c(repeated[i]), STR("\"")) == false) {
            fail_msg("accepted: %s", repeated[i]);
        }
        arena_fini(&a);
    }
    buf_fini(&b);
}

static void t_write__tree__as_kubectl_prints(void **state MG_UNUSED) {
    static const char text[] =
        "{\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\",\"labels\":{}},\"spec\":{\"ports\":"
        "[{\"port\":80,\"names\":[\"x\",\"y\"]},{\"port\":-0.5}],\"list\":[],\"nested\":[[1,[2]],"
        "[],{}],\"on\":true,\"no\":null,\"s\":[\"true\",\"12\",\"\",\"*\",\"a: "
        "b\",\"it's\",\"'q'\","
        "\"a\\tb\",\"0x1\",\"1:20\",\"::\",\"y\"],\"script\":\"#!/bin/sh\\necho\\n\",\"keep\":"
        "\"a\\n\\n\",\"strip\":\"a\\n\\n  b\",\"odd\":\" a\\nb\"}}";
    static const char need[] = "apiVersion: v1\n"
                               "metadata:\n"
                               "  name: a\n"
                               "  labels: {}\n"
                               "spec:\n"
                               "  ports:\n"
                               "  - port: 80\n"
                               "    names:\n"
                               "    - x\n"
                               "    - \"y\"\n"
                               "  - port: -0.5\n"
                               "  list: []\n"
                               "  nested:\n"
                               "  - - 1\n"
                               "    - - 2\n"
                               "  - []\n"
                               "  - {}\n"
                               "  \"on\": true\n"
                               "  \"no\": null\n"
                               "  s:\n"
                               "  - \"true\"\n"
                               "  - \"12\"\n"
                               "  - \"\"\n"
                               "  - '*'\n"
                               "  - 'a: b'\n"
                               "  - it's\n"
                               "  - '''q'''\n"
                               "  - \"a\\tb\"\n"
                               "  - \"0x1\"\n"
                               "  - \"1:20\"\n"
                               "  - '::'\n"
                               "  - \"y\"\n"
                               "  script: |\n"
                               "    #!/bin/sh\n"
                               "    echo\n"
                               "  keep: |+\n"
                               "    a\n"
                               "\n"
                               "  strip: |-\n"
                               "    a\n"
                               "\n"
                               "      b\n"
                               "  odd: \" a\\nb\"\n";
    struct arena a = {0};
    struct err e;
    struct jnode *n = NULL;
    struct buf b = BUF_INIT(1 << 16);
    assert_int_equal(json_parse(str_c(text), &json_limits_default, &a, &n, &e), 0);
    yaml_write(&b, n);
    assert_string_equal(buf_cstr(&b), need);
    buf_fini(&b);
    arena_fini(&a);
}

/* Equal in the strict sense: order of members too, and numbers by their text. */
static bool same(const struct jnode *x, const struct jnode *y) {
    if (x->type != y->type || x->n != y->n) {
        return false;
    }
    const struct jnode *b = y->child;
    jnode_each (a, x) {
        if (!str_eq(a->key, b->key) || !same(a, b)) {
            return false;
        }
        b = b->next;
    }
    return jnode_eq(x, y) && (x->type == J_BOOL || str_eq(x->s, y->s));
}

static void t_write__random_trees__read_back_equal(void **state MG_UNUSED) {
    for (uint64_t seed = 1; seed <= 30000; seed++) {
        struct arena a = {0};
        struct gen g = {hash_u64(seed), &a};
        struct jnode *tree = gen_tree(&g, 4);
        assert_non_null(tree);
        struct buf b = BUF_INIT(1 << 22);
        struct docs d;
        struct err e = {0};
        yaml_write(&b, tree);
        assert_false(b.overflow);
        int rc = read_all(&a, buf_view(&b), &d, &e);
        if (rc < 0 || d.n != 1 || !same(tree, d.p[0])) {
            fail_msg("seed %llu: %d %s, %zu documents of:\n%s", (unsigned long long)seed, rc, e.msg,
                     d.n, buf_cstr(&b));
        }
        /* As one document among several, what ends a document must not be lost. */
        struct jnode *first = d.p[0];
        struct buf two = BUF_INIT(1 << 23);
        buf_str(&two, STR("---\n"));
        buf_str(&two, buf_view(&b));
        buf_str(&two, STR("---\n"));
        buf_str(&two, buf_view(&b));
        rc = read_all(&a, buf_view(&two), &d, &e);
        if (rc < 0 || d.n != 2 || !same(first, d.p[0]) || !same(first, d.p[1])) {
            fail_msg("seed %llu, twice: %d %s:\n%s", (unsigned long long)seed, rc, e.msg,
                     buf_cstr(&two));
        }
        buf_fini(&two);
        buf_fini(&b);
        arena_fini(&a);
    }
}

/* Trees made by code may hold what no text can: still one readable document. */
static void t_write__invalid_utf8_and_long_keys__readable(void **state MG_UNUSED) {
    struct arena a = {0};
    struct jnode *map = jnode_new(&a, J_MAP);
    char key[3000];
    memset(key, 'k', sizeof(key));
    struct jnode *list = jnode_new(&a, J_LIST);
    jnode_append(list, jnode_new_str(&a, STR("a\xff\n"
                                             "b\xc3")));
    jnode_set(&a, map, str_n(key, sizeof(key)), list);
    jnode_set(&a, map, STR("a\nb"), jnode_new_int(&a, -5));
    jnode_set(&a, map, STR("f"), jnode_new(&a, J_FLOAT));
    jnode_getc(map, "f")->f = 0.25;
    struct buf b = BUF_INIT(1 << 16);
    struct docs d;
    struct err e = {0};
    yaml_write(&b, map);
    if (read_all(&a, buf_view(&b), &d, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    assert_int_equal(d.p[0]->n, 3);
    assert_true(str_is(d.p[0]->child->child->s, "a\xef\xbf\xbd\n"
                                                "b\xef\xbf\xbd"));
    assert_true(str_eq(d.p[0]->child->key, str_n(key, sizeof(key))));
    assert_int_equal(jnode_getc(d.p[0], "a\nb")->i, -5);
    assert_true(jnode_getc(d.p[0], "f")->f == 0.25);
    buf_fini(&b);
    arena_fini(&a);
}

static void t_numbers__long__read_or_refused(void **state MG_UNUSED) {
    struct arena a = {0};
    struct docs d;
    struct err e;
    char text[600];
    memset(text, '3', sizeof(text));
    memcpy(text, "0.", 2);
    assert_int_equal(read_all(&a, str_n(text, 400), &d, &e), 0);
    assert_int_equal(d.p[0]->type, J_FLOAT);
    assert_int_equal(read_all(&a, str_n(text, 401), &d, &e), ERR_TOO_BIG);
    assert_non_null(strstr(e.msg, "f:1:1: found a number of 401 characters, at most 400"));
    memset(text, 'a', sizeof(text));
    text[0] = '3'; /* a hash, not a number */
    assert_int_equal(read_all(&a, str_n(text, sizeof(text)), &d, &e), 0);
    assert_int_equal(d.p[0]->type, J_STR);
    arena_fini(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_plain_scalars__all_forms__as_kubectl),
        cmocka_unit_test(t_keys__not_text__become_text),
        cmocka_unit_test(t_documents__streams__each_once),
        cmocka_unit_test(t_documents__syntax_error_in_second__first_was_given),
        cmocka_unit_test(t_callback__negative__stops_and_is_returned),
        cmocka_unit_test(t_anchors__aliases_and_merges__expanded),
        cmocka_unit_test(t_alias__changed__anchor_is_not),
        cmocka_unit_test(t_errors__each_kind__place_found_and_allowed),
        cmocka_unit_test(t_nodes__places__line_and_column),
        cmocka_unit_test(t_limits__exceeded__too_big),
        cmocka_unit_test(t_limits__billion_laughs__small_memory),
        cmocka_unit_test(t_limits__hostile_shapes__no_quadratic_work),
        cmocka_unit_test(t_write__tree__as_kubectl_prints),
        cmocka_unit_test(t_write__random_trees__read_back_equal),
        cmocka_unit_test(t_write__invalid_utf8_and_long_keys__readable),
        cmocka_unit_test(t_numbers__long__read_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
