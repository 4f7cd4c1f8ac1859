/* Every function of templates, case by case: the cases are files, given as arguments. A line is a
 * template; the next one is "=> " and what it prints, or "!! " and what its error ends with. "\n"
 * in both stands for a line's end. */
#include "confd/funcs.h"

#include "base/fd.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char FILTER[] =
    "{\"spec\":{\"importV4\":[{\"cidr\":\"10.0.0.0/8\",\"matchOperator\":\"In\",\"action\":"
    "\"Accept\"},{\"cidr\":\"10.1.0.0/16\",\"matchOperator\":\"NotIn\",\"prefixLength\":{\"min\":"
    "20,\"max\":24},\"source\":\"RemotePeers\",\"interface\":\"eth*\",\"action\":\"Reject\"},"
    "{\"action\":\"Reject\"}],"
    "\"exportV4\":[{\"cidr\":\"10.2.0.0/16\",\"matchOperator\":\"Equal\",\"peerType\":\"iBGP\","
    "\"communities\":{\"values\":[\"65000:100\"]},\"asPathPrefix\":[65001,65002],\"priority\":512,"
    "\"operations\":[{\"addCommunity\":{\"value\":\"1:2:3\"}},{\"prependASPath\":{\"prefix\":"
    "[65001,65002]}},{\"setPriority\":{\"value\":100}}],\"action\":\"Accept\"},"
    "{\"peerType\":\"eBGP\",\"asPathPrefix\":[65001],\"action\":\"Reject\"}],"
    "\"importV6\":[{\"cidr\":\"fd00::/8\",\"matchOperator\":\"NotEqual\",\"prefixLength\":{\"min\":"
    "48},\"action\":\"Accept\"}]}}";

static const char *const keys_of_tests[][2] = {
    {"/app/db/host", "h1"},
    {"/app/db/port", "5432"},
    {"/app/empty", ""},
    {"/app/js", "{\"a\": 7, \"s\": \"x\", \"l\": [1, \"two\", null], \"n\": null, \"o\": {\"k\": "
                "\"v\"}, \"big\": 12345678901}"},
    {"/app/list", "[1, \"b\", [2], {\"k\": \"v\"}]"},
    {"/apple", "1"},
    {"/top", "t"},
    {"/x/aa", "3"},
    {"/x/b", "1"},
    {"/x/ccc", "2"},
    {"/deep/a/b/c", "1"},
    {"/deep/a/leaf", "2"},
    {"/filters/one", FILTER},
};

static const struct str root[] = {{"/", 1}};

struct world {
    struct kv kv;
    struct kv_view view;
    struct arena a;
    struct funcs funcs;
};

static void world_init(struct world *w) {
    *w = (struct world){0};
    for (size_t i = 0; i < ARRAY_LEN(keys_of_tests); i++) {
        assert_true(kv_add(&w->kv, str_c(keys_of_tests[i][0]), str_c(keys_of_tests[i][1])));
    }
    kv_sort(&w->kv);
    w->view.kv = &w->kv;
    w->view.prefix = STR("/");
    w->view.keys = root;
    w->view.n_keys = 1;
    w->view.a = &w->a;
    w->funcs.view = &w->view;
}

static void world_fini(struct world *w) {
    kv_view_fini(&w->view);
    kv_fini(&w->kv);
    arena_fini(&w->a);
}

/* What a template prints or why it fails. */
static int run(struct world *w, struct str text, struct buf *out, struct err *e) {
    struct tmpl_set *t = NULL;
    int r = tmpl_parse(STR("t"), text, confd_funcs(), 1, &t, e);
    kv_view_start(&w->view);
    if (r == 0) {
        r = tmpl_execute(t, funcs_dot(&w->funcs), NULL, &w->funcs, out, e);
    }
    kv_view_settle(&w->view);
    tmpl_free(t);
    return r;
}

static struct str unescape(struct arena *a, struct str s) {
    struct buf b = BUF_INIT(1 << 20);
    for (size_t i = 0; i < s.n; i++) {
        bool is_end = s.p[i] == '\\' && i + 1 < s.n && s.p[i + 1] == 'n';
        buf_putc(&b, is_end ? '\n' : s.p[i]);
        i += is_end;
    }
    struct str out = arena_dup(a, buf_view(&b));
    buf_fini(&b);
    return out;
}

static size_t n_cases, n_failed;

static void check(struct world *w, const char *file, size_t line, struct str text,
                  struct str need) {
    struct buf out = BUF_INIT(1 << 20);
    struct err e = {0};
    bool is_error = str_starts(need, STR("!! "));
    struct arena a = {0};
    /* Inside of actions \n is the template's own. */
    struct str want = is_error ? str_sub(need, 3, need.n) : unescape(&a, str_sub(need, 3, need.n));
    bool has_lines = str_contains(want, STR("\n"));
    int r = run(w, has_lines ? unescape(&a, text) : text, &out, &e);
    bool is_ok = is_error ? r < 0 && str_contains(str_c(e.msg), want)
                          : r == 0 && str_eq(buf_view(&out), want);
    n_cases++;
    if (!is_ok) {
        n_failed++;
        print_error("%s:%zu: %.*s\n  got  %s%s\n  need %.*s\n", file, line, STR_FMT(text),
                    r < 0 ? "!! " : "", r < 0 ? e.msg : buf_cstr(&out), STR_FMT(want));
    }
    buf_fini(&out);
    arena_fini(&a);
}

static int n_files;
static char **files;

static void t_functions__each_case__as_go(void **state MG_UNUSED) {
    struct world w;
    world_init(&w);
    setenv("CONFD_TEST_VAR", "val", 1);
    setenv("CONFD_TEST_EMPTY", "", 1);
    unsetenv("CONFD_TEST_NONE");
    for (int i = 0; i < n_files; i++) {
        struct buf b = BUF_INIT(1 << 20);
        assert_int_equal(file_read(AT_FDCWD, files[i], &b, 1 << 20), 0);
        struct str rest = buf_view(&b), text = STR_NULL;
        for (size_t line = 1; rest.p; line++) {
            struct str s = str_cut(&rest, '\n');
            if (str_starts(s, STR("# ")) || s.n == 0) {
                continue;
            }
            if (str_starts(s, STR("=> ")) || str_starts(s, STR("!! "))) {
                check(&w, files[i], line - 1, text, s);
            } else {
                text = s;
            }
        }
        buf_fini(&b);
    }
    world_fini(&w);
    print_message("%zu cases\n", n_cases);
    assert_true(n_files == 0 || n_cases > 50);
    assert_int_equal(n_failed, 0);
}

/* What a template read, as text. */
static void check_reads(const char *prefix, const char *const *keys, size_t n_keys,
                        const char *text, const char *need) {
    struct world w;
    world_init(&w);
    struct str full[4];
    for (size_t i = 0; i < n_keys; i++) {
        full[i] = str_c(keys[i]);
    }
    w.view.prefix = kv_clean(&w.a, str_c(prefix));
    kv_view_keys(&w.a, w.view.prefix, full, n_keys, &w.view.keys, &w.view.n_keys);
    struct buf out = BUF_INIT(1 << 16);
    struct err e = {0};
    int r = run(&w, str_c(text), &out, &e);
    buf_puts(&out, r < 0 ? "error" : "");
    buf_puts(&out, " :");
    for (size_t i = 0; i < w.view.reads.n; i++) {
        buf_printf(&out, " %.*s%s", STR_FMT(w.view.reads.p[i].text),
                   w.view.reads.p[i].is_prefix ? "…" : "");
    }
    assert_string_equal(buf_cstr(&out), need);
    buf_fini(&out);
    world_fini(&w);
}

static void t_views__prefix_and_keys__select_and_note(void **state MG_UNUSED) {
    static const char *const app[] = {"/db", "/empty"}, *const all[] = {"/"}, *const top[] = {""};
    check_reads("/app", app, 2, "{{getv \"/db/host\"}}{{exists \"/js\"}}",
                "h1false : /app/db/host /app/js /appjs");
    check_reads("/app", all, 1, "{{range gets \"/db/*\"}}{{.Key}} {{end}}",
                "/db/host /db/port  : /app/db/… /appdb/…");
    check_reads("/app", top, 1, "{{getv \"/le\"}}{{range gets \"/*\"}}{{.Key}},{{end}}",
                "1/empty,/js,/le,/list, : /app…");
    check_reads("/", all, 1, "{{ls \"/x\"}}{{getv \"/x/b\"}}{{getv \"/top\"}}",
                "[aa b ccc]1t : /top /x…");
    check_reads("/", app, 2, "{{gets \"/x/*\"}}{{getv \"/none\"}}", "[]error : /none /x/…");
}

static void t_changes__of_what_was_read__concern(void **state MG_UNUSED) {
    struct world w;
    world_init(&w);
    struct buf out = BUF_INIT(1 << 16);
    struct err e = {0};
    assert_int_equal(
        run(&w, STR("{{getv \"/top\"}}{{gets \"/x/*\"}}{{getv \"/no\" \"\"}}"), &out, &e), 0);
    static const struct {
        const char *key, *value;
        bool concerns;
    } cases[] = {
        {"/top", "t", false}, /* no difference */
        {"/top", "u", true},       {"/apple", "2", false}, {"/x/b", NULL, true},
        {"/x/new", "1", true},     {"/no", "now", true},   {"/top/below", "1", false},
        {"/nothing", NULL, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct kv_changes c = {0};
        assert_true(kv_set(&w.kv, str_c(cases[i].key), str_c(cases[i].value), &c));
        kv_changes_sort(&c);
        assert_int_equal(kv_view_concerned(&w.view, &c, false), cases[i].concerns);
        kv_changes_fini(&c);
    }
    buf_fini(&out);
    world_fini(&w);
}

static void t_replace__snapshots__differences_in_order(void **state MG_UNUSED) {
    struct kv k = {0}, fresh = {0};
    struct kv_changes c = {0};
    assert_true(kv_add(&k, STR("/a"), STR("1")) && kv_add(&k, STR("b//c/"), STR("2")) &&
                kv_add(&k, STR("/d"), STR("3")));
    kv_sort(&k);
    assert_true(kv_add(&fresh, STR("/e"), STR("4")) && kv_add(&fresh, STR("/b/c"), STR("1")) &&
                kv_add(&fresh, STR("/a"), STR("1")) && kv_add(&fresh, STR("/b/c"), STR("5")));
    kv_sort(&fresh);
    assert_int_equal(fresh.n, 3);
    kv_replace(&k, &fresh, &c);
    kv_changes_sort(&c);
    assert_int_equal(c.keys.n, 3);
    assert_string_equal(c.keys.p[0].p, "/b/c");
    assert_string_equal(c.keys.p[1].p, "/d");
    assert_string_equal(c.keys.p[2].p, "/e");
    assert_string_equal(kv_get(&k, STR("/b/c"))->value.p, "5");
    kv_fini(&k);
    kv_changes_fini(&c);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_functions__each_case__as_go),
        cmocka_unit_test(t_views__prefix_and_keys__select_and_note),
        cmocka_unit_test(t_changes__of_what_was_read__concern),
        cmocka_unit_test(t_replace__snapshots__differences_in_order),
    };
    n_files = argc - 1;
    files = argv + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
