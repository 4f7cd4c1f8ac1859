/* Watches and the syncer: everything is told, once, in order, whatever happens in between. */
#include "subject.h"

#include "base/clock.h"
#include "base/hash.h"
#include "store/driver.h"

#include <time.h>

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void tick(void *arg) {
    (void)arg;
}

/* Steps of the loop until is_done(arg); false after a minute. */
static bool run_until(struct loop *l, bool (*is_done)(void *arg), void *arg, int64_t for_ms) {
    int64_t until = now_ms() + for_ms;
    struct loop_timer *t = loop_timer_new(l, tick, NULL);
    loop_timer_start(t, 10, 10);
    bool done = is_done(arg);
    while (!done && now_ms() < until) {
        loop_step(l, true);
        done = is_done(arg);
    }
    loop_timer_free(t);
    return done;
}

/* ---- watches ---- */

enum { EVENTS = 400 };

struct seen {
    struct str prefix;
    struct arena a;
    char last[24];
    uint64_t revision, progress;
    int n, end, puts, deletes;
};

static void on_watched(void *arg, const struct store_item *it) {
    struct seen *v = arg;
    assert_true(str_starts(it->key, v->prefix));
    assert_true(it->revision > v->revision); /* in order, none twice */
    v->revision = it->revision;
    *(it->value.p ? &v->puts : &v->deletes) += 1;
    struct str text = net_text(it->value, &v->a);
    snprintf(v->last, sizeof(v->last), "%.*s", STR_FMT(text.p ? text : STR("gone")));
    v->n++;
}
static void on_watch_end(void *arg, int code) {
    ((struct seen *)arg)->end = code;
}
static void on_watch_progress(void *arg, uint64_t revision) {
    struct seen *v = arg;
    assert_true(revision >= v->progress && revision >= v->revision);
    v->progress = revision;
}
static bool all_seen(void *arg) {
    const struct seen *v = arg;
    return v->n == EVENTS || v->end != 0;
}

/* The first of each ten is made, then changed eight times, then deleted. */
static int ten_by_ten(struct store *s, int number, void *arg) {
    const char *ns = arg;
    struct err e;
    (void)number;
    for (int i = 0; i < EVENTS; i++) {
        char name[16], text[16];
        snprintf(name, sizeof(name), "n%d", i / 10 % 7);
        snprintf(text, sizeof(text), "%d", i);
        int r = i % 10 == 9 ? store_delete(s, net_key(ns, name), REV_ANY, &e)
                            : net_try_put(s, ns, name, text, REV_ANY, NULL, &e);
        if (r < 0) {
            fprintf(stderr, "%s: %s\n", err_name(r), e.msg);
            return 1;
        }
    }
    return 0;
}

static void t_watch__changes_of_another__all_once_in_order(void **state) {
    (void)state;
    static const struct store_watch_ops ops = {on_watched, on_watch_end, on_watch_progress};
    struct store *s = subject_open();
    if (!s->drv->watch) {
        store_close(s);
        LEAVE_OUT("this driver has no watch of its own; it follows (the syncer's tests)");
    }
    struct loop *l = loop_new();
    struct store_watch *w = NULL, *late = NULL;
    struct err e;
    char ns[NAME_LEN], other[NAME_LEN], prefix[160];
    subject_namespace(s, ns);
    subject_namespace(s, other);
    uint64_t from = net_put(s, ns, "before", "not told", REV_NONE);
    snprintf(prefix, sizeof(prefix), "%s", net_key(ns, "").key.p);
    struct store_key k = {STR(STORE_SPACE_RESOURCES), str_c(prefix)};
    struct seen v = {.prefix = k.key}, again = v;
    OK(store_watch(s, l, k, from, &ops, &v, &w, &e), e);
    if (subject.is_sqlite) {
        assert_int_equal(ten_by_ten(s, 0, ns), 0);
    } else {
        in_processes(1, ten_by_ten, ns);
    }
    net_put(s, other, "elsewhere", "not told", REV_NONE);
    assert_true(run_until(l, all_seen, &v, DEADLINE_MS));
    assert_int_equal(v.end, 0);
    assert_int_equal(v.deletes, EVENTS / 10);
    assert_string_equal(v.last, "gone");
    /* A second watch from the same place, late, is told the same. */
    OK(store_watch(s, l, k, from, &ops, &again, &late, &e), e);
    assert_true(run_until(l, all_seen, &again, DEADLINE_MS));
    assert_int_equal(again.end, 0);
    assert_int_equal(again.revision, v.revision);
    store_watch_free(w);
    store_watch_free(late);
    arena_fini(&v.a);
    arena_fini(&again.a);
    store_close(s);
    loop_free(l);
}

/* ---- the syncer against a model ---- */

enum { N_KEYS = 20, TEXT = 16, RECOVERY_MS = 30000 };

struct mirror {
    const char *ns;
    struct str prefix;
    struct arena a;
    char text[N_KEYS][TEXT]; /* "" = absent */
    char want[N_KEYS][TEXT];
    uint64_t revision[N_KEYS], hash[N_KEYS]; /* of what was told last */
    uint64_t batch, wait_for;
    struct syncer *syncer;
    unsigned in_syncs, told, other;
    bool is_connected;
};

static void m_item(void *arg, const struct store_item *it) {
    struct mirror *m = arg;
    if (!str_starts(it->key, m->prefix)) {
        m->other++;
        return;
    }
    int64_t i = -1;
    struct str name = {it->key.p + m->prefix.n + 1, it->key.n - m->prefix.n - 1};
    assert_true(str_to_i64(name, &i) == 0 && i >= 0 && i < N_KEYS);
    char now[TEXT] = ""; /* zero behind the text: it is compared whole */
    struct str text = net_text(it->value, &m->a);
    assert_true(!it->value.p || text.p);
    snprintf(now, sizeof(now), "%.*s", STR_FMT(text.p ? text : STR("")));
    /* Nothing is told twice. (A text may be: of an object that was deleted and made again while
     * nobody looked; at the Kubernetes API it has another uid.) */
    uint64_t hash = it->value.p ? hash_str(it->value) : 0;
    assert_true(hash != m->hash[i]);
    m->hash[i] = hash;
    assert_true(it->revision >= m->revision[i]);
    m->revision[i] = it->revision;
    memcpy(m->text[i], now, sizeof(now));
    m->told++;
    arena_reset(&m->a);
}
static void m_sync(void *arg) {
    ((struct mirror *)arg)->in_syncs++;
}
static void m_batch(void *arg, uint64_t revision) {
    struct mirror *m = arg;
    assert_true(revision >= m->batch);
    m->batch = revision;
}
static void m_connected(void *arg, bool is_connected, const char *why) {
    ((struct mirror *)arg)->is_connected = is_connected;
    assert_true(is_connected || (why && why[0]));
}
static const struct store_key all_resources = {{STORE_SPACE_RESOURCES, 1}, {"", 0}};
static const struct syncer_ops mirror_ops = {m_item, m_sync, m_batch, m_connected};

static bool is_in_sync(void *arg) {
    return ((struct mirror *)arg)->in_syncs > 0;
}
static bool is_equal(void *arg) {
    const struct mirror *m = arg;
    return memcmp(m->text, m->want, sizeof(m->text)) == 0;
}
/* The syncer says that it is as far as it has to be: then it has told all. */
static bool is_settled(void *arg) {
    const struct mirror *m = arg;
    return syncer_position(m->syncer, m->prefix) >= m->wait_for;
}

static void require_equal(struct loop *l, struct mirror *m) {
    if (!run_until(l, is_equal, m, DEADLINE_MS)) {
        for (int i = 0; i < N_KEYS; i++) {
            if (strcmp(m->text[i], m->want[i]) != 0) {
                print_message("n%d: told \"%s\", is \"%s\"\n", i, m->text[i], m->want[i]);
            }
        }
        fail_msg("what the syncer told is not what is there");
    }
}

/* One random change of one of the keys, as the model has it. */
static void change(struct store *s, struct mirror *m) {
    struct err e;
    int i = (int)(random() % N_KEYS);
    char name[16];
    snprintf(name, sizeof(name), "n%d", i);
    if (random() % 4 == 0) {
        int r = store_delete(s, net_key(m->ns, name), REV_ANY, &e);
        assert_int_equal(r, m->want[i][0] ? 0 : ERR_NOT_FOUND);
        memset(m->want[i], 0, TEXT);
        return;
    }
    memset(m->want[i], 0, TEXT);
    snprintf(m->want[i], TEXT, "%ld", random() % 3); /* often the same again */
    uint64_t r = net_put(s, m->ns, name, m->want[i], REV_ANY);
    m->wait_for = r > m->wait_for ? r : m->wait_for;
}

static void mirror_begin(struct mirror *m, struct store *s, const char *ns) {
    *m = (struct mirror){.ns = ns};
    struct str key = net_key(ns, "").key;
    m->prefix = str_c(strndup(key.p, key.n));
    (void)s;
}
static void mirror_end(struct mirror *m) {
    free((char *)(uintptr_t)m->prefix.p);
    arena_fini(&m->a);
}

static void t_syncer__random_changes__mirror_is_equal(void **state) {
    (void)state;
    struct store *s = subject_open();
    struct store *writer = subject.is_sqlite ? s : subject_open();
    struct loop *l = loop_new();
    struct syncer *y = NULL;
    struct err e;
    struct mirror m;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    mirror_begin(&m, s, ns);
    srandom(3);
    int steps = subject.is_sqlite ? 3000 : 600;
    for (int step = 0; step < steps; step++) {
        change(writer, &m);
        if (step == 100) {
            OK(syncer_start(s, l, all_resources, &mirror_ops, &m, &y, &e), e);
            assert_true(run_until(l, is_in_sync, &m, DEADLINE_MS));
            require_equal(l, &m);
        }
        if (step > 100 && random() % 5 == 0) {
            require_equal(l, &m);
        }
    }
    require_equal(l, &m);
    assert_int_equal(m.in_syncs, 1);
    /* Sooner or later it says that it has told all of it (when_enforced waits for that). */
    m.wait_for = net_put(writer, ns, "n0", "last", REV_ANY);
    memset(m.want[0], 0, TEXT);
    memcpy(m.want[0], "last", 4);
    m.syncer = y;
    syncer_ask(y);
    if (!run_until(l, is_settled, &m, DEADLINE_MS)) {
        fail_msg("told up to %llu, never %llu", (unsigned long long)syncer_position(y, m.prefix),
                 (unsigned long long)m.wait_for);
    }
    assert_true(is_equal(&m));
    syncer_free(y);
    if (writer != s) {
        store_close(writer);
    }
    store_close(s);
    loop_free(l);
    mirror_end(&m);
}

/* Each of several processes owns some keys and leaves them as the model has them. */
static int churn(struct store *s, int number, void *arg) {
    const char *ns = arg;
    struct err e;
    for (int round = 1; round <= 30; round++) {
        for (int i = number; i < N_KEYS; i += 4) {
            char name[16], text[16];
            snprintf(name, sizeof(name), "n%d", i);
            snprintf(text, sizeof(text), "%d.%d", round, i);
            int r = round % 5 == 0 && i % 3 != 0
                        ? store_delete(s, net_key(ns, name), REV_ANY, &e)
                        : net_try_put(s, ns, name, text, REV_ANY, NULL, &e);
            if (r < 0) {
                fprintf(stderr, "%s: %s\n", err_name(r), e.msg);
                return 1;
            }
        }
    }
    return 0;
}

static void t_syncer__several_writers__ends_equal(void **state) {
    (void)state;
    if (subject.is_sqlite) {
        LEAVE_OUT("the embedded store has one writer; the agent's socket shares it");
    }
    struct store *s = subject_open();
    struct loop *l = loop_new();
    struct syncer *y = NULL;
    struct err e;
    struct mirror m;
    char ns[NAME_LEN];
    subject_namespace(s, ns);
    mirror_begin(&m, s, ns);
    OK(syncer_start(s, l, all_resources, &mirror_ops, &m, &y, &e), e);
    assert_true(run_until(l, is_in_sync, &m, DEADLINE_MS));
    in_processes(4, churn, ns);
    for (int i = 0; i < N_KEYS; i++) {
        if (i % 3 == 0) {
            snprintf(m.want[i], TEXT, "30.%d", i);
        }
    }
    require_equal(l, &m);
    assert_int_equal(m.in_syncs, 1);
    syncer_free(y);
    store_close(s);
    loop_free(l);
    mirror_end(&m);
}

static bool is_cut(void *arg) {
    return !((struct mirror *)arg)->is_connected;
}
static bool is_back(void *arg) {
    return ((struct mirror *)arg)->is_connected;
}
static bool never(void *arg) {
    (void)arg;
    return false;
}

/* The way to the server is cut; meanwhile things change and, if the runner can, history is
 * forgotten; the way is back: only differences come. */
static void lose_and_return(const char *disturb, bool has_changes) {
    if (!hook("break") || !hook("mend")) {
        LEAVE_OUT(
            "nobody here can break the way to the store (tests/e2e/test_store_conformance.py can)");
    }
    struct store *s = subject_open();
    struct store *direct = NULL;
    struct loop *l = loop_new();
    struct syncer *y = NULL;
    struct err e;
    struct mirror m;
    char ns[NAME_LEN];
    OK(store_open(subject.url_direct, &direct, &e), e);
    subject_namespace(s, ns);
    mirror_begin(&m, s, ns);
    m.is_connected = true;
    for (int i = 0; i < 40; i++) {
        change(direct, &m);
    }
    OK(syncer_start(s, l, all_resources, &mirror_ops, &m, &y, &e), e);
    assert_true(run_until(l, is_in_sync, &m, DEADLINE_MS));
    require_equal(l, &m);
    for (int round = 0; round < 3; round++) {
        unsigned told = m.told;
        assert_true(hook("break"));
        assert_true(run_until(l, is_cut, &m, DEADLINE_MS)); /* it is noticed and said */
        for (int i = 0; has_changes && i < 30; i++) {
            change(direct, &m);
        }
        if (disturb && !hook(disturb)) {
            fail_msg("the runner can't %s", disturb);
        }
        assert_true(hook("mend")); /* the server answers: from here on it is our own patience */
        int64_t mended = clock_ns();
        if (has_changes) {
            require_equal(l, &m);
        }
        if (!run_until(l, is_back, &m, RECOVERY_MS)) {
            fail_msg("not everything is followed %d ms after the way was back", RECOVERY_MS);
        }
        print_message("back %lld ms after the way was\n",
                      (long long)(clock_ns() - mended) / 1000000);
        (void)run_until(l, never, &m, 600);
        assert_true(is_equal(&m) && m.is_connected);
        assert_true(has_changes || m.told == told); /* no flap: nothing changed, nothing told */
        memset(m.want[1], 0, TEXT);
        snprintf(m.want[1], TEXT, "round %d", round);
        net_put(direct, ns, "n1", m.want[1], REV_ANY);
        require_equal(l, &m); /* and it goes on following */
    }
    assert_int_equal(m.in_syncs, 1);
    syncer_free(y);
    store_close(direct);
    store_close(s);
    loop_free(l);
    mirror_end(&m);
}

static void t_syncer__cut_and_back__only_differences(void **state) {
    (void)state;
    lose_and_return(NULL, true);
}
static void t_syncer__cut_and_back_unchanged__nothing_told(void **state) {
    (void)state;
    lose_and_return(NULL, false);
}
static void t_syncer__history_forgotten_meanwhile__only_differences(void **state) {
    (void)state;
    lose_and_return("compact", true);
}
static void t_syncer__server_restarted_meanwhile__only_differences(void **state) {
    (void)state;
    lose_and_return("restart", true);
}

const struct CMUnitTest follow_tests[] = {
    cmocka_unit_test(t_watch__changes_of_another__all_once_in_order),
    cmocka_unit_test(t_syncer__random_changes__mirror_is_equal),
    cmocka_unit_test(t_syncer__several_writers__ends_equal),
    cmocka_unit_test(t_syncer__cut_and_back__only_differences),
    cmocka_unit_test(t_syncer__cut_and_back_unchanged__nothing_told),
    cmocka_unit_test(t_syncer__history_forgotten_meanwhile__only_differences),
    cmocka_unit_test(t_syncer__server_restarted_meanwhile__only_differences),
};
const size_t follow_n = ARRAY_LEN(follow_tests);
