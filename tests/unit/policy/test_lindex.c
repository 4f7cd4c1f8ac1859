/* The index of labels against looking at everything: after any changes, the selectors of an item
 * and the items of a selector are those that selector_match finds. */
#include "base/buf.h"
#include "policy/labels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_ITEMS = 60, N_SELECTORS = 40, N_KEYS = 5, STEPS = 6000 };

struct thing { /* an item */
    uint32_t id;
    struct label labels[N_KEYS];
    size_t n;
    char text[N_KEYS][16];
};
struct chosen { /* a selector */
    struct lsel *l;
    struct arena a;
    const struct selector *s;
};

static const char *const keys[N_KEYS] = {"a", "b", "c", "d", "e"};

static unsigned rnd(unsigned n) {
    return (unsigned)random() % n;
}

static void random_term(struct buf *b) {
    const char *key = keys[rnd(N_KEYS)];
    switch (rnd(9)) {
    case 0:
        buf_printf(b, "has(%s)", key);
        break;
    case 1:
        buf_printf(b, "!has(%s)", key);
        break;
    case 2:
        buf_printf(b, "%s != 'v%u'", key, rnd(4));
        break;
    case 3:
        buf_printf(b, "%s in {'v%u', 'v%u', 'w'}", key, rnd(4), rnd(4));
        break;
    case 4:
        buf_printf(b, "%s not in {'v%u', 'v%u'}", key, rnd(4), rnd(4));
        break;
    case 5:
        buf_printf(b, "%s %s '%u'", key, rnd(2) ? "contains" : "ends with", rnd(4));
        break;
    case 6:
        buf_printf(b, "%s starts with 'v'", key);
        break;
    default:
        buf_printf(b, "%s == 'v%u'", key, rnd(4));
    }
}

static void random_selector(struct buf *b, unsigned depth) {
    unsigned n = 1 + rnd(3);
    if (depth == 0 || n == 1) {
        random_term(b);
        return;
    }
    const char *op = rnd(3) ? " && " : " || ";
    buf_puts(b, rnd(5) ? "(" : "!(");
    for (unsigned i = 0; i < n; i++) {
        buf_puts(b, i ? op : "");
        random_selector(b, depth - 1);
    }
    buf_putc(b, ')');
}

static void random_labels(struct thing *t, unsigned serial) {
    t->n = 0;
    for (unsigned k = 0; k < N_KEYS; k++) {
        if (rnd(2)) {
            /* Values that nobody had before: label sets come and go. */
            unsigned value = k == 4 && rnd(2) ? serial : rnd(4);
            snprintf(t->text[k], sizeof(t->text[k]), "v%u", value);
            t->labels[t->n++] = (struct label){str_c(keys[k]), str_c(t->text[k])};
        }
    }
}

static void set_item(struct ltab *table, struct lidx *x, struct thing *t) {
    uint32_t pairs[N_KEYS];
    for (size_t i = 0; i < t->n; i++) {
        pairs[i] = ltab_ref(table, t->labels[i].key, t->labels[i].value);
    }
    lidx_item_set(x, t->id, pairs, t->n);
    for (size_t i = 0; i < t->n; i++) {
        ltab_unref(table, pairs[i]);
    }
}

static void new_selector(struct lidx *x, struct chosen *c) {
    struct buf b = BUF_INIT(4096);
    struct err e;
    random_selector(&b, 2);
    struct arena a = {0};
    const struct selector *s = NULL;
    assert_int_equal(selector_parse(buf_view(&b), 4096, &a, &s, &e), 0);
    c->l = lidx_sel_new(x, s, c);
    arena_fini(&a); /* compiled: the text and the tree are not needed */
    assert_int_equal(selector_parse(buf_view(&b), 4096, &c->a, &c->s, &e), 0);
    buf_fini(&b);
}

struct seen {
    unsigned times[N_ITEMS > N_SELECTORS ? N_ITEMS : N_SELECTORS];
    const void *base;
    size_t size;
};
static void see(void *arg, void *user) {
    struct seen *s = arg;
    s->times[(size_t)((const char *)user - (const char *)s->base) / s->size]++;
}

static void check_item(struct lidx *x, const struct thing *t, const struct chosen *selectors) {
    struct seen seen = {.base = selectors, .size = sizeof(*selectors)};
    lidx_item_each_match(x, t->id, see, &seen);
    for (size_t i = 0; i < N_SELECTORS; i++) {
        bool want = selectors[i].l && selector_match(selectors[i].s, t->labels, t->n);
        assert_int_equal(seen.times[i], want);
    }
}

static void check_selector(struct lidx *x, const struct chosen *c, const struct thing *items) {
    struct seen seen = {.base = items, .size = sizeof(*items)};
    lidx_sel_each_match(x, c->l, see, &seen);
    for (size_t i = 0; i < N_ITEMS; i++) {
        bool want = items[i].id && selector_match(c->s, items[i].labels, items[i].n);
        assert_int_equal(seen.times[i], want);
    }
}

static void step(struct ltab *table, struct lidx *x, struct thing *items, struct chosen *selectors,
                 unsigned serial) {
    struct thing *t = &items[rnd(N_ITEMS)];
    struct chosen *c = &selectors[rnd(N_SELECTORS)];
    if (t->id && rnd(4) == 0) {
        lidx_item_free(x, t->id);
        t->id = 0;
    } else {
        t->id = t->id ? t->id : lidx_item_new(x, t);
        random_labels(t, serial);
        set_item(table, x, t);
        check_item(x, t, selectors);
    }
    if (rnd(8) == 0) {
        if (c->l) {
            lidx_sel_free(x, c->l);
            arena_fini(&c->a);
            c->l = NULL;
        } else {
            new_selector(x, c);
        }
    }
    if (c->l) {
        check_selector(x, c, items);
    }
}

static void t_index__any_changes__as_looking_at_everything(void **state) {
    (void)state;
    for (unsigned seed = 1; seed <= 5; seed++) {
        static struct thing items[N_ITEMS];
        static struct chosen selectors[N_SELECTORS];
        struct ltab *table = ltab_new();
        struct lidx *x = lidx_new(table);
        srandom(seed);
        for (unsigned i = 0; i < STEPS; i++) {
            step(table, x, items, selectors, 10 + i);
        }
        for (size_t i = 0; i < N_ITEMS; i++) {
            if (items[i].id) {
                check_item(x, &items[i], selectors);
                lidx_item_free(x, items[i].id);
                items[i].id = 0;
            }
        }
        for (size_t i = 0; i < N_SELECTORS; i++) {
            if (selectors[i].l) {
                check_selector(x, &selectors[i], items);
                lidx_sel_free(x, selectors[i].l);
                arena_fini(&selectors[i].a);
                selectors[i].l = NULL;
            }
        }
        lidx_free(x);
        ltab_free(table);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_index__any_changes__as_looking_at_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
