/* Table-driven cases for documents: JSON text in, the first error's path and a piece of its message
 * out, or nothing for "accepted". */
#pragma once

#include "base/arena.h"
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct doc_case {
    const char *json; /* single quotes stand for double ones */
    const char *path; /* NULL: accepted */
    const char *message;
};

/* JSON with ' for ", parsed into the arena. */
static inline struct jnode *doc_parse(struct arena *a, const char *json) {
    size_t n = strlen(json);
    char *text = arena_alloc(a, n + 1);
    for (size_t i = 0; i < n; i++) {
        text[i] = json[i] == '\'' ? '"' : json[i];
    }
    struct jnode *doc = NULL;
    struct err e = {0};
    if (json_parse(str_n(text, n), &json_limits_default, a, &doc, &e)) {
        fail_msg("%s in %s", e.msg, text);
    }
    return doc;
}

/* For tests that give the same documents to somebody else: a line for each in the file that
 * MARGAY_TEST_DOCS names, as it is after its defaults were filled in. */
static inline void doc_pass_on(const struct jnode *doc, bool is_accepted) {
    const char *path = getenv("MARGAY_TEST_DOCS");
    FILE *f = path ? fopen(path, "ae") : NULL;
    if (f) {
        struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(1 << 22);
        json_write(&b, doc, 0);
        fprintf(f, "{\"accepted\":%s,\"doc\":%s}\n", is_accepted ? "true" : "false", buf_cstr(&b));
        fclose(f);
    }
}

/* Each case as `prefix` + json + `suffix`. */
static inline void run_cases(const struct doc_case *cases, size_t n, const char *prefix,
                             const char *suffix) {
    size_t n_bad = 0;
    for (size_t i = 0; i < n; i++) {
        struct arena a MG_CLEANUP(arena_fini) = {0};
        struct str text = arena_printf(&a, "%s%s%s", prefix, cases[i].json, suffix);
        struct jnode *doc = doc_parse(&a, text.p);
        struct object o;
        struct model_errors errs = {.a = &a};
        int rc = object_read(doc, MODEL_APPLY, STR_NULL, &a, &o, &errs);
        struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(65536);
        doc_pass_on(doc, rc == 0);
        for (size_t k = 0; k < errs.n; k++) {
            model_error_print(&b, NULL, &o, &errs.p[k]);
            buf_puts(&b, "\n  ");
        }
        bool ok = cases[i].path
                      ? rc == ERR_INVALID && errs.n > 0 && str_is(errs.p[0].path, cases[i].path) &&
                            str_contains(errs.p[0].message, str_c(cases[i].message))
                      : rc == 0 && errs.n == 0;
        if (!ok) {
            n_bad++;
            print_error("%s\n  wanted: %s: %s\n  got: %s\n", cases[i].json,
                        cases[i].path ? cases[i].path : "no error",
                        cases[i].message ? cases[i].message : "", buf_cstr(&b));
        }
        /* The same document from a datastore never crashes and gives the decoded struct. */
        struct object s;
        struct model_errors none = {.a = &a};
        int store_rc = object_read(doc_parse(&a, text.p), MODEL_STORE, STR_NULL, &a, &s, &none);
        if (rc == 0 && store_rc) {
            n_bad++;
            print_error("%s\n  accepted from a user, refused from the store\n", cases[i].json);
        }
    }
    assert_int_equal(n_bad, 0);
}

static inline struct object doc_read(struct arena *a, enum model_mode mode, const char *json) {
    struct object o;
    struct model_errors errs = {.a = a};
    int rc = object_read(doc_parse(a, json), mode, STR_NULL, a, &o, &errs);
    if (rc) {
        struct buf b MG_CLEANUP(buf_fini) = BUF_INIT(65536);
        for (size_t k = 0; k < errs.n; k++) {
            model_error_print(&b, "doc", &o, &errs.p[k]);
            buf_putc(&b, '\n');
        }
        fail_msg("%s: %s", json, buf_cstr(&b));
    }
    return o;
}
