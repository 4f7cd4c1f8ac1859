/* Several processes write the same keys at once, each with a store of its own. */
#include "subject.h"

enum { RACERS = 4, ROUNDS = 25 };

static void require_several(void) {
    if (subject.is_sqlite) {
        LEAVE_OUT("the embedded store has one writer; the agent's socket shares it");
    }
}

/* Reads the counter and writes it back one higher, again when somebody was quicker. */
static int count_up(struct store *s, int number, void *arg) {
    const char *ns = arg;
    struct err e;
    (void)number;
    for (int done = 0; done < ROUNDS;) {
        struct arena a = {0};
        struct store_item it;
        if (store_get(s, net_key(ns, "counter"), &a, &it, &e) < 0) {
            return 1;
        }
        uint64_t value = 0;
        char text[24];
        if (str_to_u64(net_text(it.value, &a), &value) < 0) {
            return 2;
        }
        snprintf(text, sizeof(text), "%llu", (unsigned long long)value + 1);
        int r = net_try_put(s, ns, "counter", text, it.revision, NULL, &e);
        arena_fini(&a);
        if (r < 0 && r != ERR_CONFLICT) {
            fprintf(stderr, "%s: %s\n", err_name(r), e.msg);
            return 3;
        }
        done += r == 0;
    }
    return 0;
}

static void t_race__counter__no_write_is_lost(void **state) {
    (void)state;
    require_several();
    struct store *s = subject_open();
    struct arena a = {0};
    struct str text;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    net_put(s, ns, "counter", "0", REV_NONE);
    in_processes(RACERS, count_up, ns);
    net_get(s, ns, "counter", &a, &text);
    assert_true(str_is(text, "100"));
    arena_fini(&a);
    store_close(s);
}

/* For each round one key: whoever makes it signs in a key of his own; whoever removes it too. */
static int make_and_remove(struct store *s, int number, void *arg) {
    const char *ns = arg;
    struct err e;
    for (int round = 0; round < ROUNDS; round++) {
        char name[24], made[24], removed[24];
        snprintf(name, sizeof(name), "n%d", round);
        snprintf(made, sizeof(made), "made%d.%d", round, number);
        snprintf(removed, sizeof(removed), "removed%d.%d", round, number);
        int r = net_try_put(s, ns, name, "x", REV_NONE, NULL, &e);
        if (r == 0) {
            r = net_try_put(s, ns, made, "x", REV_NONE, NULL, &e);
        } else if (r == ERR_EXISTS) {
            r = 0;
        }
        if (r < 0) {
            fprintf(stderr, "%s: %s\n", err_name(r), e.msg);
            return 1;
        }
    }
    for (int round = 0; round < ROUNDS; round++) {
        char name[24], removed[24];
        snprintf(name, sizeof(name), "n%d", round);
        snprintf(removed, sizeof(removed), "removed%d.%d", round, number);
        int r = store_delete(s, net_key(ns, name), REV_ANY, &e);
        if (r == 0) {
            r = net_try_put(s, ns, removed, "x", REV_NONE, NULL, &e);
        } else if (r == ERR_NOT_FOUND) {
            r = 0;
        }
        /* Somebody behind may not have made his last ones yet: those he makes again stay. */
        if (r < 0) {
            fprintf(stderr, "%s: %s\n", err_name(r), e.msg);
            return 2;
        }
    }
    return 0;
}

struct balance {
    int made, removed, there;
};
static int weigh(void *arg, const struct store_item *it) {
    struct balance *b = arg;
    b->made += str_contains(it->key, STR("/made"));
    b->removed += str_contains(it->key, STR("/removed"));
    b->there += str_contains(it->key, STR("/n"));
    return 0;
}

static void t_race__create_and_delete__one_wins(void **state) {
    (void)state;
    require_several();
    struct store *s = subject_open();
    struct err e;
    uint64_t revision = 0;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    in_processes(RACERS, make_and_remove, ns);
    struct balance b = {0};
    OK(store_list(s, net_key(ns, ""), &revision, weigh, &b, &e), e);
    assert_true(b.made >= ROUNDS);
    assert_int_equal(b.made - b.removed,
                     b.there); /* each creation had one winner, each delete too */
    store_close(s);
}

/* ---- a list is of one moment ---- */

enum { BETWEEN = 1500, STEPS = 150 };

/* `first` is always written before `last`: never may the list show last ahead of first, or first
 * ahead by more than one. Thousands of keys stand between them. */
static int step_both(struct store *s, int number, void *arg) {
    const char *ns = arg;
    struct err e;
    struct arena a = {0};
    (void)number;
    for (int i = 1; i <= STEPS; i++) {
        char text[16];
        snprintf(text, sizeof(text), "%d", i);
        if (net_try_put(s, ns, "a-first", text, REV_ANY, NULL, &e) < 0 ||
            net_try_put(s, ns, "z-last", text, REV_ANY, NULL, &e) < 0) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
    }
    arena_fini(&a);
    return 0;
}

static int fill_between(struct store *s, int number, void *arg) {
    struct err e;
    for (int i = number; i < BETWEEN; i += RACERS) {
        char name[16];
        snprintf(name, sizeof(name), "m%05d", i);
        if (net_try_put(s, arg, name, "between", REV_NONE, NULL, &e) < 0) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
    }
    return 0;
}

struct ends {
    struct arena a;
    uint64_t first, last;
    int n;
};
static int see_ends(void *arg, const struct store_item *it) {
    struct ends *v = arg;
    bool is_first = str_contains(it->key, STR("/a-first"));
    if (is_first || str_contains(it->key, STR("/z-last"))) {
        assert_int_equal(str_to_u64(net_text(it->value, &v->a), is_first ? &v->first : &v->last),
                         0);
    }
    arena_reset(&v->a);
    v->n++;
    return 0;
}

static void t_list__while_written__of_one_revision(void **state) {
    (void)state;
    require_several();
    struct store *s = subject_open();
    struct err e;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    net_put(s, ns, "a-first", "0", REV_NONE);
    net_put(s, ns, "z-last", "0", REV_NONE);
    in_processes(RACERS, fill_between, ns);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct store *own = NULL;
        _exit(store_open(subject.url, &own, &e) < 0 ? 9 : step_both(own, 0, ns));
    }
    uint64_t seen = 0;
    int status = 0;
    do {
        struct ends v = {0};
        uint64_t revision = 0;
        OK(store_list(s, net_key(ns, ""), &revision, see_ends, &v, &e), e);
        assert_int_equal(v.n, BETWEEN + 2);
        if (v.last > v.first || v.first > v.last + 1) {
            fail_msg("one list has first %llu and last %llu", (unsigned long long)v.first,
                     (unsigned long long)v.last);
        }
        assert_true(v.first >= seen); /* never back in time */
        seen = v.first;
        arena_fini(&v.a);
    } while (waitpid(pid, &status, WNOHANG) == 0);
    assert_int_equal(status, 0);
    store_close(s);
}

const struct CMUnitTest processes_tests[] = {
    cmocka_unit_test(t_race__counter__no_write_is_lost),
    cmocka_unit_test(t_race__create_and_delete__one_wins),
    cmocka_unit_test(t_list__while_written__of_one_revision),
};
const size_t processes_n = ARRAY_LEN(processes_tests);
