/* What a template may not do to the process, and the calls of template.h and value.h that cases of
 * templates do not reach. */
#include "confd/template.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static int run(const char *text, struct value dot, const struct tmpl_limits *limits,
               struct buf *out, struct err *e) {
    struct tmpl_set *set = NULL;
    struct tmpl_limits lim = limits ? *limits : (struct tmpl_limits){0};
    if (!lim.max_ns) {
        lim.max_ns = 3600LL * 1000 * 1000 * 1000; /* a busy machine is no failure */
    }
    buf_reset(out);
    *e = (struct err){0};
    int r = tmpl_parse(STR("t"), str_c(text), NULL, 0, &set, e);
    if (r == 0) {
        r = tmpl_execute(set, dot, &lim, NULL, out, e);
    }
    tmpl_free(set);
    return r;
}

/* The template fails with code, and its message has `part`. */
static void refuses(const char *text, const struct tmpl_limits *limits, int code,
                    const char *part) {
    struct buf out = BUF_INIT((size_t)1 << 30);
    struct err e;
    int r = run(text, VALUE_UNSET, limits, &out, &e);
    if (r != code || !str_contains(str_c(e.msg), str_c(part))) {
        fail_msg("%.200s: %d %s, not %d … %s", text, r, e.msg, code, part);
    }
    buf_fini(&out);
}

static void t_limits__recursion__is_gos_error(void **state) {
    (void)state;
    refuses("{{define \"r\"}}{{template \"r\"}}{{end}}{{template \"r\"}}", NULL, ERR_INVALID,
            "executing \"r\" at <{{template \"r\"}}>: exceeded maximum template depth (100000)");
    refuses("{{define \"r\"}}{{if 1}}{{range 1}}{{with 1}}{{template \"r\" .}}{{end}}{{end}}{{end}}"
            "{{end}}{{template \"r\"}}",
            NULL, ERR_INVALID, "exceeded maximum template depth (100000)");
}

static void t_limits__output__ends(void **state) {
    (void)state;
    const struct tmpl_limits limits = {.max_output_bytes = 100};
    refuses("{{range 1000}}0123456789{{end}}", &limits, ERR_TOO_BIG,
            "the output is longer than 100 bytes");
    refuses("{{printf \"%500d\" 1}}", &limits, ERR_TOO_BIG, "the output is longer than 100 bytes");
    refuses("{{range 1000000000}}0123456789{{end}}", NULL, ERR_TOO_BIG,
            "the output is longer than");
}

static void t_limits__memory__ends(void **state) {
    (void)state;
    const struct tmpl_limits limits = {.max_memory_bytes = 1 << 20};
    refuses("{{$x := \"0123456789\"}}{{range 100}}{{$x = print $x $x}}{{end}}", &limits,
            ERR_TOO_BIG, "");
    refuses("{{$x := 1}}{{range 100000}}{{$x = printf \"%100d\" 1}}{{end}}", &limits, ERR_TOO_BIG,
            "its values need more than 1048576 bytes of memory");
    refuses("{{$x := printf \"%9000000d\" 1}}", &limits, ERR_TOO_BIG, "longer than the limit");
    refuses("{{$x := printf \"%.9000000f\" 1.5}}", &limits, ERR_TOO_BIG, "longer than the limit");
    refuses("{{define \"r\"}}{{$y := 1}}{{template \"r\"}}{{end}}{{template \"r\"}}", &limits,
            ERR_TOO_BIG, "its values need more than");
}

/* Values of an iteration go with it, unless the body sets a variable from outside. */
static void t_limits__iterations__do_not_pile_up(void **state) {
    (void)state;
    const struct tmpl_limits limits = {.max_memory_bytes = 1 << 20};
    struct buf out = BUF_INIT(1 << 20);
    struct err e;
    assert_int_equal(run("{{range 20000}}{{$x := printf \"%100d\" .}}{{with printf \"%100d\" 1}}"
                         "{{end}}{{end}}{{range 20000}}{{range 1}}{{$x := printf \"%100d\" .}}"
                         "{{break}}{{end}}{{if printf \"%100d\" .}}{{continue}}{{end}}{{end}}ok",
                         VALUE_UNSET, &limits, &out, &e),
                     0);
    assert_true(str_is(buf_view(&out), "ok"));
    buf_fini(&out);
}

static void t_limits__steps_and_time__end(void **state) {
    (void)state;
    const struct tmpl_limits steps = {.max_steps = 1000};
    const struct tmpl_limits time = {.max_ns = 20 * 1000 * 1000};
    refuses("{{range 1000000000000}}{{end}}", &steps, ERR_TOO_BIG, "it takes more than 1000 steps");
    int64_t begin = clock_ns();
    refuses("{{range 1000000000000}}{{end}}", &time, ERR_TOO_BIG, "it takes longer than 20 ms");
    assert_true(clock_ns() - begin < 60LL * 1000 * 1000 * 1000);
}

static void t_parse__nesting__needs_no_stack(void **state) {
    (void)state;
    struct buf b = BUF_INIT(TMPL_TEXT_MAX);
    struct buf out = BUF_INIT(100);
    struct err e;
    enum { DEPTH = 20000 };
    for (int i = 0; i < DEPTH; i++) {
        buf_puts(&b, "{{if 1}}");
    }
    buf_putc(&b, 'x');
    for (int i = 0; i < DEPTH; i++) {
        buf_puts(&b, "{{end}}");
    }
    assert_int_equal(run(buf_cstr(&b), VALUE_UNSET, NULL, &out, &e), 0);
    assert_true(str_is(buf_view(&out), "x"));
    buf_reset(&b);
    buf_puts(&b, "{{if 0}}");
    for (int i = 0; i < DEPTH; i++) {
        buf_puts(&b, "{{else if 0}}");
    }
    buf_puts(&b, "{{else}}y{{end}}");
    assert_int_equal(run(buf_cstr(&b), VALUE_UNSET, NULL, &out, &e), 0);
    assert_true(str_is(buf_view(&out), "y"));
    buf_fini(&b);
    buf_fini(&out);
}

static void add_parens(struct buf *b, int depth) {
    buf_reset(b);
    buf_puts(b, "{{");
    for (int i = 0; i < depth; i++) {
        buf_puts(b, i % 2 ? "(print " : "(1 | and ");
    }
    buf_puts(b, "7");
    for (int i = 0; i < depth; i++) {
        buf_putc(b, ')');
    }
    buf_puts(b, "}}");
}

static void t_parse__parentheses__are_bounded(void **state) {
    (void)state;
    struct buf b = BUF_INIT(1 << 20), out = BUF_INIT(100);
    struct err e;
    add_parens(&b, TMPL_PAREN_DEPTH_MAX);
    assert_int_equal(run(buf_cstr(&b), VALUE_UNSET, NULL, &out, &e), 0);
    add_parens(&b, TMPL_PAREN_DEPTH_MAX + 1);
    refuses(buf_cstr(&b), NULL, ERR_INVALID, "template: t:1: max expression depth exceeded");
    buf_fini(&b);
    buf_fini(&out);
}

static void t_parse__text_too_long__is_refused(void **state) {
    (void)state;
    struct buf b = BUF_INIT(TMPL_TEXT_MAX + 2);
    struct tmpl_set *set = NULL;
    struct err e;
    for (size_t i = 0; i <= TMPL_TEXT_MAX; i++) {
        buf_putc(&b, 'x');
    }
    assert_int_equal(tmpl_parse(STR("t"), buf_view(&b), NULL, 0, &set, &e), ERR_TOO_BIG);
    assert_null(set);
    buf_fini(&b);
}

static void t_print__deep_value__is_cut(void **state) {
    (void)state;
    struct arena a = {0};
    struct buf out = BUF_INIT(1 << 20);
    struct value v = value_int(1);
    for (int i = 0; i < 3 * VALUE_DEPTH_MAX; i++) {
        struct value list = value_list_new(&a, &VT_LIST, 1);
        list.list->p[0] = v;
        v = list;
    }
    tmpl_print(&out, &v, 1);
    assert_true(str_contains(buf_view(&out), STR("[[%!(DEPTH)]]")));
    buf_fini(&out);
    arena_fini(&a);
}

static int count_calls(const struct tmpl_call *c, const struct value *args, size_t n,
                       struct value *out, struct err *e) {
    (void)args, (void)n, (void)e;
    *out = value_int(++*(int *)c->ctx);
    return 0;
}

static int gone(const struct tmpl_call *c, const struct value *args, size_t n, struct value *out,
                struct err *e) {
    (void)c, (void)args, (void)n, (void)out;
    return err_set(e, ERR_NOT_FOUND, "no such key");
}

static void t_execute__tables__contexts_names_codes(void **state) {
    (void)state;
    int first = 0, second = 10, other = 100;
    const struct tmpl_func count = {.name = "count", .call = count_calls};
    const struct tmpl_func own[] = {{.name = "print", .call = count_calls},
                                    {.name = "gone", .call = gone}};
    const struct tmpl_funcs tables[] = {{&count, 1, &first}, {own, 2, &second}};
    struct tmpl_set *set = NULL;
    struct buf out = BUF_INIT(1000);
    struct err e = {0};
    struct str text = STR("{{count}} {{print}}{{define \"d\"}}{{.}}{{count}}{{end}}"
                          "{{define \"g\"}}{{gone}}{{end}}");
    assert_int_equal(tmpl_parse(STR("m"), text, tables, 2, &set, &e), 0);
    assert_int_equal(tmpl_execute(set, VALUE_UNSET, NULL, NULL, &out, &e), 0);
    assert_true(str_is(buf_view(&out), "1 11"));
    assert_int_equal(tmpl_execute(set, VALUE_UNSET, NULL, &other, &out, &e), 0);
    assert_true(str_is(buf_view(&out), "1 11101 12"));
    buf_reset(&out);
    assert_int_equal(tmpl_execute_named(set, STR("d"), value_str(STR("x")), NULL, NULL, &out, &e),
                     0);
    assert_true(str_is(buf_view(&out), "x2"));
    assert_int_equal(tmpl_execute_named(set, STR("g"), VALUE_UNSET, NULL, NULL, &out, &e),
                     ERR_NOT_FOUND);
    assert_string_equal(
        e.msg, "template: m:1:70: executing \"g\" at <gone>: error calling gone: no such key");
    assert_int_equal(tmpl_execute_named(set, STR("z"), VALUE_UNSET, NULL, NULL, &out, &e),
                     ERR_NOT_FOUND);
    assert_string_equal(e.msg, "template: no template \"z\" associated with template \"m\"");
    tmpl_free(set);
    buf_fini(&out);
}

static void t_map__any_order__is_sorted_and_the_last_wins(void **state) {
    (void)state;
    struct arena a = {0};
    struct value map = value_map_new(&a, &VT_MAP_INT), v;
    for (int i = 0; i < 1000; i++) {
        int key = i * 617 % 500;
        value_map_set_str(&a, &map, arena_printf(&a, "%03d", key), value_int(i));
    }
    assert_int_equal(value_map_n(&map), 500);
    for (size_t i = 0; i < 500; i++) {
        struct value key;
        value_map_at(&map, i, &key, &v);
        assert_true(str_eq(value_to_str(&key), arena_printf(&a, "%03zu", i)));
        assert_true(v.i >= 500);
    }
    assert_true(value_map_get_str(&map, STR("007"), &v));
    assert_false(value_map_get_str(&map, STR("7"), &v));
    arena_fini(&a);
}

static void t_assignable__named_and_unnamed__as_in_go(void **state) {
    (void)state;
    static const struct vtype names = {
        .kind = VK_LIST, .name = "x.Names", .elem = &VT_STRING, .base = &VT_STRINGS};
    struct value plain = {.type = &VT_STRINGS}, named = {.type = &names};
    assert_true(value_assignable(&plain, &names));
    assert_true(value_assignable(&named, &VT_STRINGS));
    assert_true(value_assignable(&named, &VT_ANY));
    assert_false(value_assignable(&named, &VT_LIST));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_limits__recursion__is_gos_error),
        cmocka_unit_test(t_limits__output__ends),
        cmocka_unit_test(t_limits__memory__ends),
        cmocka_unit_test(t_limits__iterations__do_not_pile_up),
        cmocka_unit_test(t_limits__steps_and_time__end),
        cmocka_unit_test(t_parse__nesting__needs_no_stack),
        cmocka_unit_test(t_parse__parentheses__are_bounded),
        cmocka_unit_test(t_parse__text_too_long__is_refused),
        cmocka_unit_test(t_print__deep_value__is_cut),
        cmocka_unit_test(t_execute__tables__contexts_names_codes),
        cmocka_unit_test(t_map__any_order__is_sorted_and_the_last_wins),
        cmocka_unit_test(t_assignable__named_and_unnamed__as_in_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
