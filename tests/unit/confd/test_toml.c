/* TOML 1.0, rule by rule: documents with their values, documents with their errors. */
#include "confd/toml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* A tree as JSON, with the type of what JSON has no word for. */
static void show(struct buf *b, const struct jnode *n) {
    enum toml_type t = toml_type(n);
    bool is_first = true;
    switch (t) {
    case TOML_STRING:
        json_quote(b, n->s);
        break;
    case TOML_INTEGER:
        buf_printf(b, "%lld", (long long)n->i);
        break;
    case TOML_FLOAT:
        buf_printf(b, "f%.17g", n->f);
        break;
    case TOML_BOOLEAN:
        buf_puts(b, n->b ? "true" : "false");
        break;
    case TOML_DATETIME:
    case TOML_DATETIME_LOCAL:
    case TOML_DATE_LOCAL:
    case TOML_TIME_LOCAL:
        buf_printf(b, "<%s %.*s>", toml_type_name(t), STR_FMT(n->s));
        break;
    case TOML_ARRAY:
    case TOML_TABLE:
        buf_putc(b, t == TOML_ARRAY ? '[' : '{');
        jnode_each (it, n) {
            buf_puts(b, is_first ? "" : ",");
            is_first = false;
            if (t == TOML_TABLE) {
                json_quote(b, it->key);
                buf_putc(b, ':');
            }
            show(b, it);
        }
        buf_putc(b, t == TOML_ARRAY ? ']' : '}');
        break;
    }
}

static void check(const char *const cases[][2], size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct arena a = {0};
        struct err e = {0};
        struct jnode *root = NULL;
        struct buf b = BUF_INIT(1 << 20);
        int r = toml_parse(str_c(cases[i][0]), "f", &a, &root, &e);
        if (r < 0) {
            buf_puts(&b, e.msg);
        } else {
            show(&b, root);
        }
        if (strcmp(buf_cstr(&b), cases[i][1]) != 0) {
            fail_msg("of:\n%s\ngot  %s\nneed %s", cases[i][0], buf_cstr(&b), cases[i][1]);
        }
        buf_fini(&b);
        arena_fini(&a);
    }
}

static void t_keys__all_forms__read(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"", "{}"},
        {"\xef\xbb\xbf# with a byte order mark\n", "{}"},
        {"# a comment\n\n  \t# another\r\nk = 1 # and one\n", "{\"k\":1}"},
        {"bare-key_1 = 1\n1234 = 2\n-=3\n_=4", "{\"bare-key_1\":1,\"1234\":2,\"-\":3,\"_\":4}"},
        {"\"a b\" = 1\n'c \"d\"' = 2\n\"\" = 3\n\"\\u00e9\" = 4",
         "{\"a b\":1,\"c \\\"d\\\"\":2,\"\":3,\"\xc3\xa9\":4}"},
        {"a.b.c = 1\na.\"x.y\" = 2\na . z = 3", "{\"a\":{\"b\":{\"c\":1},\"x.y\":2,\"z\":3}}"},
        {"3.14159 = \"pi\"", "{\"3\":{\"14159\":\"pi\"}}"},
        {"a.b = 1\nc = 2\na.d = 3", "{\"a\":{\"b\":1,\"d\":3},\"c\":2}"},
        {"true = 1\ninf = 2\n2024-01-01 = 3", "{\"true\":1,\"inf\":2,\"2024-01-01\":3}"},
        {"key = 1\r\nother = 2\r\n", "{\"key\":1,\"other\":2}"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void t_keys__bad__refused(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"= 1", "f:1:1: found \"=\", need a key: letters, digits, _ and -, or a quoted string"},
        {"a.. = 1", "f:1:3: found \".\", need a key: letters, digits, _ and -, or a quoted string"},
        {".a = 1", "f:1:1: found \".\", need a key: letters, digits, _ and -, or a quoted string"},
        {"a", "f:1:2: found the end of the file, need = after a key"},
        {"a\n= 1", "f:1:2: found the end of the line, need = after a key"},
        {"a b = 1", "f:1:3: found \"b\", need = after a key"},
        {"k = ", "f:1:5: found the end of the file, need a value"},
        {"k = # none\n", "f:1:5: found \"#\", need a value"},
        {"k = 1 j = 2", "f:1:7: found \"j\", need the end of the line"},
        {"a = 1\na = 2", "f:2:1: a is defined twice: remove one of them"},
        {"a = 1\n\"a\" = 2", "f:2:1: a is defined twice: remove one of them"},
        {"a = 1\n  a.b = 2", "f:2:3: a is no table: nothing can be added to it"},
        {"a.b = 1\na.b.c = 2", "f:2:1: a.b is no table: nothing can be added to it"},
        {"a.b.c = 1\na.b = 2", "f:2:1: a.b is defined twice: remove one of them"},
        {"\"\"\"a\"\"\" = 1", "f:1:1: found \"\"\", need a key of one line: one quote at each end"},
        {"\"a\nb\" = 1", "f:1:3: found the end of the line, need the end of the string: \""},
        {"\xc3\xa9 = 1",
         "f:1:1: found \"\xc3\xa9\", need a key: letters, digits, _ and -, or a quoted string"},
        {"k = 1\nj = \"\xff\"", "f:2:6: found byte 0xff, need UTF-8"},
        {"# \xed\xa0\x80", "f:1:3: found byte 0xed, need UTF-8"},
        {"# a\x01", "f:1:4: found control character 0x01, need text without control characters in "
                    "a comment"},
        {"# a\rb", "f:1:4: found the end of the line, need text without control characters in a "
                   "comment"},
        {"a = 1\rb = 2", "f:1:6: found the end of the line, need the end of the line"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void t_strings__four_kinds__read(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"s = \"a \\b\\t\\n\\f\\r\\\"\\\\ \\u00E9 \\U0001F600\t\"",
         "{\"s\":\"a \\u0008\\t\\n\\u000c\\u000d\\\"\\\\ \xc3\xa9 \xf0\x9f\x98\x80\\t\"}"},
        {"s = ''\nt = \"\"\nu = ''''''\nv = \"\"\"\"\"\"",
         "{\"s\":\"\",\"t\":\"\",\"u\":\"\",\"v\":\"\"}"},
        {"s = 'C:\\Users\\n'", "{\"s\":\"C:\\\\Users\\\\n\"}"},
        {"s = \"\"\"\nRoses\nViolets\"\"\"", "{\"s\":\"Roses\\nViolets\"}"},
        {"s = \"\"\"\r\na\r\nb\"\"\"", "{\"s\":\"a\\u000d\\nb\"}"},
        {"s = \"\"\"a \\\n\n   b \\ \t\n  c\\\n\"\"\"", "{\"s\":\"a b c\"}"},
        {"s = \"\"\"a\\\\\n b\"\"\"", "{\"s\":\"a\\\\\\n b\"}"},
        {"s = \"\"\"\"one\" \"\"two\"\" \\\"\"\"three\"\"\"\"\"",
         "{\"s\":\"\\\"one\\\" \\\"\\\"two\\\"\\\" \\\"\\\"\\\"three\\\"\\\"\"}"},
        {"s = '''I [dw]on't need \\d{2}\n'''''", "{\"s\":\"I [dw]on't need \\\\d{2}\\n''\"}"},
        {"s = '''\n\nx'''", "{\"s\":\"\\nx\"}"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void t_strings__bad__refused(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"s = \"abc", "f:1:9: found the end of the file, need the end of the string: \""},
        {"s = 'a\n'", "f:1:7: found the end of the line, need the end of the string: '"},
        {"s = \"\\x41\"", "f:1:7: found \"x\", need b t n f r \" \\ uXXXX or UXXXXXXXX after \\"},
        {"s = \"\\e\"", "f:1:7: found \"e\", need b t n f r \" \\ uXXXX or UXXXXXXXX after \\"},
        {"s = \"a\\\nb\"", "f:1:8: found the end of the line, need b t n f r \" \\ uXXXX or "
                           "UXXXXXXXX after \\"},
        {"s = \"\\u12G4\"", "f:1:10: found \"G\", need 4 hex digits after \\u"},
        {"s = \"\\U0001F60\"", "f:1:15: found \"\"\", need 8 hex digits after \\U"},
        {"s = \"\\ud800\"", "f:1:8: U+D800 is no character: 0 to D7FF, E000 to 10FFFF"},
        {"s = \"\\U00110000\"", "f:1:8: U+110000 is no character: 0 to D7FF, E000 to 10FFFF"},
        {"s = \"a\x07\"", "f:1:7: found control character 0x07, need the end of the string: \""},
        {"s = '\x7f'", "f:1:6: found control character 0x7f, need the end of the string: '"},
        {"s = \"\"\"a\n", "f:2:1: found the end of the file, need the end of the string: three "
                          "quotes"},
        {"s = \"\"\"a\\ b\"\"\"",
         "f:1:10: found \" \", need b t n f r \" \\ uXXXX or UXXXXXXXX after \\"},
        {"s = '''a\rb'''", "f:1:9: found a CR without LF in a string: write \\r"},
        {"s = '''a''''''", "f:1:14: found \"'\", need the end of the line"},
        {"s = plain",
         "f:1:5: \"plain\" is no number, boolean, date or time: a string needs quotes"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void t_numbers__all_bases__read(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"a = [+99, 42, 0, -17, +0, -0]", "{\"a\":[99,42,0,-17,0,0]}"},
        {"a = [1_000, 5_349_221, 1_2_3]", "{\"a\":[1000,5349221,123]}"},
        {"a = [0xDEADBEEF, 0xdead_beef, 0o01234567, 0o755, 0b11010110, 0x00]",
         "{\"a\":[3735928559,3735928559,342391,493,214,0]}"},
        {"a = [9223372036854775807, -9223372036854775808, 0x7fffffffffffffff]",
         "{\"a\":[9223372036854775807,-9223372036854775808,9223372036854775807]}"},
        {"a = [+1.0, 3.1415, -0.01, 5e+22, 1e06, -2E-2, 6.626e-34, 224_617.445_991_228]",
         "{\"a\":[f1,f3.1415000000000002,f-0.01,f4.9999999999999996e+22,f1000000,f-0.02,"
         "f6.6259999999999998e-34,f224617.44599122801]}"},
        {"a = [0.0, -0.0, +0e0, 0e1, 1e1_0, 1e-400]", "{\"a\":[f0,f-0,f0,f0,f10000000000,f0]}"},
        {"a = [inf, +inf, -inf, nan]", "{\"a\":[finf,finf,f-inf,fnan]}"},
        {"a = [true, false]", "{\"a\":[true,false]}"},
    };
    check(cases, ARRAY_LEN(cases));
}

#define NO_SCALAR " is no number, boolean, date or time: a string needs quotes"

static void t_numbers__bad__refused(void **state MG_UNUSED) {
    static const char *const bad[] = {
        "01",
        "-01",
        "+00",
        "_1",
        "1_",
        "1__0",
        "0x",
        "0xg",
        "+0x1",
        "-0b1",
        "0X1",
        "0o8",
        "0b2",
        "0x_1",
        "0x1_",
        "1.",
        ".5",
        "1.e1",
        "1._5",
        "1_.5",
        "1.5_",
        "1e",
        "1e+",
        "1e_5",
        "1e5_",
        "1e5.5",
        "03.14",
        "1.2.3",
        "+-1",
        "--1",
        "True",
        "FALSE",
        "truee",
        "Inf",
        "+nanx",
        "infi",
        "1979-13-01",
        "1979-02-29",
        "1900-02-29",
        "1979-05-00",
        "1979-5-27",
        "79-05-27",
        "24:00:00",
        "07:60:00",
        "07:32:61",
        "07:32",
        "07:32:00.",
        "1979-05-27T",
        "1979-05-27T07:32:00+1:00",
        "1979-05-27T07:32:00+24:00",
        "1979-05-27T07:32:00-07:60",
        "1979-05-27T07:32:00Zx",
        "1979-05-27x07:32:00",
        "0x1.5",
        "1e1e1",
        "0_1",
        "1_000_",
        "0e",
        "e5",
        "+",
        "-",
        "1:00",
        "07:32:00Z",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char text[64], need[128];
        snprintf(text, sizeof(text), "k = %s", bad[i]);
        snprintf(need, sizeof(need), "f:1:5: \"%s\"" NO_SCALAR, bad[i]);
        const char *const one[][2] = {{text, need}};
        check(one, 1);
    }
    static const char *const cases[][2] = {
        {"a = 9223372036854775808", "f:1:5: 9223372036854775808 is beyond the range of 64 bits"},
        {"a = -9223372036854775809", "f:1:5: -9223372036854775809 is beyond the range of 64 bits"},
        {"a = 0x10000000000000000", "f:1:5: 0x10000000000000000 is beyond the range of 64 bits"},
        {"a = 1e999", "f:1:5: 1e999 is beyond the range of a double"},
        {"a = 1979-05-27 x", "f:1:16: found \"x\", need the end of the line"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void t_dates__four_types__read(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"a = 1979-05-27T07:32:00Z", "{\"a\":<offset date-time 1979-05-27T07:32:00Z>}"},
        {"a = 1979-05-27 07:32:00.999999-07:00 # c",
         "{\"a\":<offset date-time 1979-05-27 07:32:00.999999-07:00>}"},
        {"a = 1979-05-27t07:32:00z", "{\"a\":<offset date-time 1979-05-27t07:32:00z>}"},
        {"a = 2000-02-29T23:59:60+23:59", "{\"a\":<offset date-time 2000-02-29T23:59:60+23:59>}"},
        {"a = 1979-05-27T00:32:00.5", "{\"a\":<local date-time 1979-05-27T00:32:00.5>}"},
        {"a = 1979-05-27 # not a time", "{\"a\":<local date 1979-05-27>}"},
        {"a = [2024-02-29, 07:32:00, 00:32:00.999999]",
         "{\"a\":[<local date 2024-02-29>,<local time 07:32:00>,<local time 00:32:00.999999>]}"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void t_arrays_and_inline__read(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"a = []\nb = [ ]\nc = [1,]", "{\"a\":[],\"b\":[],\"c\":[1]}"},
        {"a = [ # c\n 1, # one\n\n 2 # two\n , \r\n]", "{\"a\":[1,2]}"},
        {"a = [[1, 2], ['a', 1.5], {x = 1}, [[]]]", "{\"a\":[[1,2],[\"a\",f1.5],{\"x\":1},[[]]]}"},
        {"a = {}\nb = { }\nc = { x = 1, y.z = 2, y.w = 3, \"q r\" = {} }",
         "{\"a\":{},\"b\":{},\"c\":{\"x\":1,\"y\":{\"z\":2,\"w\":3},\"q r\":{}}}"},
        {"a = { x = [\n1,\n2\n] }", "{\"a\":{\"x\":[1,2]}}"},
        {"a = { s = \"\"\"\nx\n\"\"\" }", "{\"a\":{\"s\":\"x\\n\"}}"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void t_arrays_and_inline__bad__refused(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"a = [1", "f:1:7: found the end of the file, need \",\" or \"]\" in an array"},
        {"a = [1 2]", "f:1:8: found \"2\", need \",\" or \"]\" in an array"},
        {"a = [,1]", "f:1:6: found \",\", need a value"},
        {"a = [1,,2]", "f:1:8: found \",\", need a value"},
        {"a = {x = 1,}",
         "f:1:12: found \"}\", need a key: letters, digits, _ and -, or a quoted string"},
        {"a = {x = 1\n}", "f:1:11: found the end of the line, need \",\" or \"}\" in an inline "
                          "table, which is one line"},
        {"a = {\nx = 1}", "f:1:6: found the end of the line, need a key: letters, digits, _ and "
                          "-, or a quoted string"},
        {"a = {x = 1, x = 2}", "f:1:13: x is defined twice: remove one of them"},
        {"a = {x = 1, x.y = 2}", "f:1:13: x is no table: nothing can be added to it"},
        {"a = {x = {y = 1}, x.z = 2}", "f:1:19: x is a table that is complete: add to it there"},
        {"a = {x = 1}\na.y = 2", "f:2:1: a is a table that is complete: add to it there"},
        {"a = {x = 1}\n[a]", "f:2:2: a is defined twice: put its keys into one place"},
        {"a = {x = 1}\n[a.b]", "f:2:2: a is an inline table: nothing can be added to it"},
        {"a = {b = {}}\n[a.b.c]", "f:2:2: a is an inline table: nothing can be added to it"},
        {"a = [{x = 1}]\n[[a]]", "f:2:3: a is defined already, not as an array of tables"},
        {"a = [{x = 1}]\n[a.b]", "f:2:2: a is an array that is complete: nothing can be added"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void t_tables__read(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"[a]\nx=1\n[ b . 'c d' ]\ny=2\n[e]", "{\"a\":{\"x\":1},\"b\":{\"c d\":{\"y\":2}},"
                                              "\"e\":{}}"},
        {"[x.y.z.w]\n[x]\nk=1", "{\"x\":{\"y\":{\"z\":{\"w\":{}}},\"k\":1}}"},
        {"[f]\napple.color = 'r'\napple.taste.sweet = true\n[f.apple.texture]\nsmooth = true",
         "{\"f\":{\"apple\":{\"color\":\"r\",\"taste\":{\"sweet\":true},"
         "\"texture\":{\"smooth\":true}}}}"},
        {"[[p]]\nn='H'\n[[p]]\n[[p]]\nn='N'", "{\"p\":[{\"n\":\"H\"},{},{\"n\":\"N\"}]}"},
        {"[[f]]\nn='a'\n[f.phys]\nc='r'\n[[f.v]]\nn=1\n[[f.v]]\nn=2\n[[f]]\n[[f.v]]\nn=3",
         "{\"f\":[{\"n\":\"a\",\"phys\":{\"c\":\"r\"},\"v\":[{\"n\":1},{\"n\":2}]},"
         "{\"v\":[{\"n\":3}]}]}"},
        {"[[a.b]]\n[a]\nc = 1", "{\"a\":{\"b\":[{}],\"c\":1}}"},
        {"[a.b.c]\nz=1\n[a]\nd.e=2", "{\"a\":{\"b\":{\"c\":{\"z\":1}},\"d\":{\"e\":2}}}"},
        {"k = 1\n[\"\"]\n[t] # c", "{\"k\":1,\"\":{},\"t\":{}}"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void t_tables__bad__refused(void **state MG_UNUSED) {
    static const char *const cases[][2] = {
        {"[a]\n[a]", "f:2:2: a is defined twice: put its keys into one place"},
        {"[f]\napple.c=1\n[f.apple]", "f:3:2: f.apple is defined twice: put its keys into one "
                                      "place"},
        {"[f]\napple.t.s=1\n[f.apple.t]",
         "f:3:2: f.apple.t is defined twice: put its keys into one place"},
        {"[a]\nb=1\n[a.b]", "f:3:2: a.b is defined twice: put its keys into one place"},
        {"[a]\nb=1\n[a.b.c]", "f:3:2: a.b is no table: nothing can be added to it"},
        {"[a.b.c]\n[a]\nb.c.t = 1", "f:3:1: b.c is a table that is complete: add to it there"},
        {"[a]\n[[a]]", "f:2:3: a is defined already, not as an array of tables"},
        {"[[a]]\n[a]", "f:2:2: a is defined twice: put its keys into one place"},
        {"[f.p]\nc=1\n[[f]]", "f:3:3: f is defined already, not as an array of tables"},
        {"[[f]]\n[[f.v]]\n[f.v]", "f:3:2: f.v is defined twice: put its keys into one place"},
        {"[[a.b]]\n[a]\nb.y = 2", "f:3:1: b is no table: nothing can be added to it"},
        {"[]", "f:1:2: found \"]\", need a key: letters, digits, _ and -, or a quoted string"},
        {"[a.]", "f:1:4: found \"]\", need a key: letters, digits, _ and -, or a quoted string"},
        {"[a", "f:1:3: found the end of the file, need \"]\" after the name of a table"},
        {"[a]]", "f:1:4: found \"]\", need the end of the line"},
        {"[[a]", "f:1:5: found the end of the file, need \"]]\" after the name of an array of "
                 "tables"},
        {"[[a] ]", "f:1:5: found \" \", need \"]]\" after the name of an array of tables"},
        {"[ [a]]", "f:1:3: found \"[\", need a key: letters, digits, _ and -, or a quoted string"},
        {"[a] b = 1", "f:1:5: found \"b\", need the end of the line"},
    };
    check(cases, ARRAY_LEN(cases));
}

static void check_limit(const char *unit, size_t n, const char *before, const char *after,
                        const char *need) {
    struct arena a = {0};
    struct err e = {0};
    struct jnode *root = NULL;
    struct buf b = BUF_INIT(4 << 20);
    buf_puts(&b, before);
    for (size_t i = 0; i < n; i++) {
        buf_puts(&b, unit);
    }
    buf_puts(&b, after);
    int r = toml_parse(buf_view(&b), "f", &a, &root, &e);
    if (need) {
        assert_int_equal(r, ERR_TOO_BIG);
        assert_string_equal(e.msg, need);
    } else if (r < 0) {
        fail_msg("%s", e.msg);
    }
    buf_fini(&b);
    arena_fini(&a);
}

static void t_limits__reached__refused(void **state MG_UNUSED) {
    check_limit("1,", TOML_MAX_VALUES - 2, "a=[", "]", NULL);
    check_limit("1,", TOML_MAX_VALUES - 1, "a=[", "]", "f:1:20000: more than 10000 values");
    check_limit("[", TOML_MAX_DEPTH + 1, "a=", "", "f:1:67: values are more than 64 deep");
    check_limit("a.", TOML_MAX_DEPTH, "", "a=1", "f:1:129: a key of more than 64 parts");
    check_limit("#", TOML_MAX_BYTES + 1, "", "",
                "f:1:1: the file has 1048577 bytes, 1048576 are allowed");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_keys__all_forms__read),
        cmocka_unit_test(t_keys__bad__refused),
        cmocka_unit_test(t_strings__four_kinds__read),
        cmocka_unit_test(t_strings__bad__refused),
        cmocka_unit_test(t_numbers__all_bases__read),
        cmocka_unit_test(t_numbers__bad__refused),
        cmocka_unit_test(t_dates__four_types__read),
        cmocka_unit_test(t_arrays_and_inline__read),
        cmocka_unit_test(t_arrays_and_inline__bad__refused),
        cmocka_unit_test(t_tables__read),
        cmocka_unit_test(t_tables__bad__refused),
        cmocka_unit_test(t_limits__reached__refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
