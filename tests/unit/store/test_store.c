/* The embedded store alone: files, durability, refusals, and the syncer's promptness on it. What
 * all stores have in common is tested in conformance/. */
#include "base/fd.h"
#include "base/hash.h"
#include "store/syncer.h"

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static char url[144];
static char path[128];

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/margay-store-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/margay.db", dir);
    snprintf(url, sizeof(url), "sqlite:%s", path);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    return system(cmd);
}

static struct store *open_store(void) {
    struct store *s = NULL;
    struct err e;
    if (store_open(url, &s, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return s;
}

static struct store_key key(const char *k) {
    return (struct store_key){STR("r"), str_c(k)};
}

static uint64_t put(struct store *s, const char *k, const char *v, uint64_t expect) {
    struct err e;
    uint64_t rev = 0;
    if (store_put(s, key(k), str_c(v), expect, &rev, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    return rev;
}

static void t_store__transaction__all_or_nothing(void **state) {
    (void)state;
    struct store *s = open_store();
    struct err e;
    struct arena a = {0};
    struct store_item it;
    uint64_t before = store_revision(s);
    assert_int_equal(store_begin(s, &e), 0);
    put(s, "k/1", "x", REV_NONE);
    put(s, "k/2", "x", REV_NONE);
    assert_int_equal(store_get(s, key("k/1"), &a, &it, &e), 0); /* its own writes are seen */
    store_rollback(s);
    assert_int_equal(store_get(s, key("k/1"), &a, &it, &e), ERR_NOT_FOUND);
    assert_int_equal(store_revision(s), before);
    assert_int_equal(store_begin(s, &e), 0);
    put(s, "k/1", "x", REV_NONE);
    assert_int_equal(store_put(s, key("k/1"), STR("y"), REV_NONE, NULL, &e), ERR_EXISTS);
    put(s, "k/2", "x", REV_NONE); /* a lost compare does not end the transaction */
    assert_int_equal(store_commit(s, &e), 0);
    assert_int_equal(store_get(s, key("k/2"), &a, &it, &e), 0);
    store_close(s);
    s = open_store(); /* and all of it is there after a reopen */
    assert_int_equal(store_get(s, key("k/1"), &a, &it, &e), 0);
    assert_int_equal(store_revision(s), before + 2);
    arena_fini(&a);
    store_close(s);
}

/* ---- syncer against a model ---- */

enum { N_KEYS = 20 };
struct mirror {
    char value[N_KEYS][16]; /* "" = absent */
    unsigned in_syncs, items;
    uint64_t revision;
};
static void m_item(void *arg, const struct store_item *it) {
    struct mirror *m = arg;
    int64_t i = -1;
    struct str digits = {it->key.p + 2, it->key.n - 2};
    assert_true(str_to_i64(digits, &i) == 0 && i >= 0 && i < N_KEYS);
    char now[16];
    snprintf(now, sizeof(now), "%.*s", STR_FMT(it->value));
    assert_string_not_equal(now, m->value[i]); /* nothing is told twice */
    memcpy(m->value[i], now, sizeof(now));
    m->items++;
}
static void m_sync(void *arg) {
    ((struct mirror *)arg)->in_syncs++;
}
static void m_batch(void *arg, uint64_t revision) {
    struct mirror *m = arg;
    assert_true(revision >= m->revision);
    m->revision = revision;
}
static void m_connected(void *arg, bool is_connected, const char *why MG_UNUSED) {
    (void)arg;
    (void)is_connected;
}

static void t_syncer__random_changes__mirror_is_equal(void **state) {
    (void)state;
    static const struct syncer_ops ops = {m_item, m_sync, m_batch, m_connected};
    struct store *s = open_store();
    struct loop *l = loop_new();
    struct syncer *y = NULL;
    struct err e;
    struct mirror *m = calloc(1, sizeof(*m));
    char want[N_KEYS][16] = {{0}};
    srandom(3);
    for (int step = 0; step < 3000; step++) {
        unsigned i = (unsigned)random() % N_KEYS;
        char k[16];
        snprintf(k, sizeof(k), "k/%u", i);
        if (random() % 4 == 0) {
            int r = store_delete(s, key(k), REV_ANY, &e);
            assert_int_equal(r, want[i][0] ? 0 : ERR_NOT_FOUND);
            want[i][0] = 0;
        } else {
            snprintf(want[i], sizeof(want[i]), "%ld", random() % 3); /* often the same again */
            put(s, k, want[i], REV_ANY);
        }
        if (step == 100) {
            assert_int_equal(
                syncer_start(s, l, (struct store_key){STR("r"), STR("")}, &ops, m, &y, &e), 0);
            assert_int_equal(m->in_syncs, 1);
        }
        if (step > 100 && random() % 5 == 0) {
            loop_step(l, false);
            loop_step(l, false); /* the end of a burst is told a turn later */
            for (unsigned j = 0; j < N_KEYS; j++) {
                assert_string_equal(m->value[j], want[j]);
            }
            assert_int_equal(m->revision, store_revision(s));
        }
    }
    assert_int_equal(m->in_syncs, 1);
    syncer_free(y);
    store_close(s);
    loop_free(l);
    free(m);
}

struct ended {
    int code;
    unsigned items;
};
static void w_item(void *arg, const struct store_item *it) {
    (void)it;
    ((struct ended *)arg)->items++;
}
static void w_end(void *arg, int code) {
    ((struct ended *)arg)->code = code;
}

static void t_store__watch_from_too_old__gone(void **state) {
    (void)state;
    static const struct store_watch_ops ops = {w_item, w_end, NULL};
    struct store *s = open_store();
    struct loop *l = loop_new();
    struct err e;
    for (int i = 0; i < 13; i++) { /* beyond what the log keeps */
        assert_int_equal(store_begin(s, &e), 0);
        for (int j = 0; j < 1000; j++) {
            char k[32];
            snprintf(k, sizeof(k), "k/%d", j);
            put(s, k, i % 2 ? "a" : "b", REV_ANY);
        }
        assert_int_equal(store_commit(s, &e), 0);
    }
    struct ended old = {0}, newer = {0};
    struct store_watch *w1, *w2;
    assert_int_equal(store_watch(s, l, key("k/"), 5, &ops, &old, &w1, &e), 0);
    assert_int_equal(store_watch(s, l, key("k/"), store_revision(s) - 3, &ops, &newer, &w2, &e), 0);
    loop_step(l, false);
    assert_int_equal(old.code, ERR_GONE);
    assert_int_equal(old.items, 0);
    assert_int_equal(newer.code, 0);
    assert_int_equal(newer.items, 3);
    store_watch_free(w1);
    store_watch_free(w2);
    store_close(s);
    loop_free(l);
}

/* ---- files ---- */

static void t_store__second_writer__refused_with_pid(void **state) {
    (void)state;
    struct store *s = open_store(), *second = NULL;
    struct err e;
    char pid[32];
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    assert_true(store_open(url, &second, &e) < 0);
    assert_non_null(strstr(e.msg, pid));
    char ro[160];
    snprintf(ro, sizeof(ro), "%s?mode=ro", url);
    put(s, "k", "v", REV_NONE);
    assert_int_equal(store_open(ro, &second, &e), 0);
    assert_int_equal(store_revision(second), store_revision(s));
    assert_int_equal(store_put(second, key("k"), STR("x"), REV_ANY, NULL, &e), ERR_DENIED);
    store_close(second);
    store_close(s);
}

static void write_file(const char *p, const char *text, size_t n) {
    FILE *f = fopen(p, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void t_store__bad_files__refused_untouched(void **state) {
    (void)state;
    struct store *s = NULL;
    struct err e;
    char garbage[8192];
    memset(garbage, 'x', sizeof(garbage));
    write_file(path, garbage, sizeof(garbage));
    assert_int_equal(store_open(url, &s, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, path));
    struct buf b = BUF_INIT(1 << 20);
    assert_int_equal(file_read(AT_FDCWD, path, &b, 1 << 20), 0);
    assert_true(b.n == sizeof(garbage) && memcmp(b.p, garbage, b.n) == 0);
    buf_fini(&b);
    assert_int_equal(unlink(path), 0);

    char target[160];
    snprintf(target, sizeof(target), "%s/other", dir);
    write_file(target, "", 0);
    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(store_open(url, &s, &e), ERR_DENIED);
    assert_int_equal(unlink(path), 0);

    assert_int_equal(store_open("mysql:x", &s, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "sqlite"));
    s = open_store();
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    store_close(s);
}

/* Runs f in a child; returns its wait status. */
static int in_child(void (*f)(int fd), int fd) {
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        f(fd);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void fill_disk(int fd) {
    (void)fd;
    /* A disk of 400 KiB, seen by this child alone. */
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", dir, "tmpfs", 0, "size=400k") < 0) {
        _exit(77);
    }
    struct store *s = NULL;
    struct err e;
    if (store_open(url, &s, &e) < 0) {
        _exit(2);
    }
    char big[4096];
    memset(big, 'y', sizeof(big));
    int acked = 0, r = 0;
    while (acked < 1000 && r == 0) {
        char k[16];
        snprintf(k, sizeof(k), "k/%d", acked);
        r = store_put(s, key(k), str_n(big, sizeof(big)), REV_NONE, NULL, &e);
        acked += r == 0;
    }
    if (r != ERR_NO_SPACE || acked == 0) {
        fprintf(stderr, "after %d: %d %s\n", acked, r, e.msg);
        _exit(4);
    }
    struct arena a = {0};
    struct store_item it;
    for (int i = 0; i < acked; i++) { /* still usable, everything is there */
        char k[16];
        snprintf(k, sizeof(k), "k/%d", i);
        if (store_get(s, key(k), &a, &it, &e) < 0) {
            _exit(5);
        }
    }
    arena_fini(&a);
    /* Room again: it goes on, in the same process. */
    if (mount("none", dir, NULL, MS_REMOUNT, "size=4m") < 0 ||
        store_put(s, key("after"), STR("1"), REV_NONE, NULL, &e) < 0) {
        _exit(6);
    }
    store_close(s);
}

static void t_store__full_disk__nothing_lost(void **state) {
    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: needs root for a small disk of its own\n");
        skip();
    }
    assert_int_equal(in_child(fill_disk, -1), 0);
}

static void write_until_killed(int fd) {
    struct store *s = NULL;
    struct err e;
    if (store_open(url, &s, &e) < 0) {
        _exit(2);
    }
    for (int i = 0;; i++) {
        char v[16];
        snprintf(v, sizeof(v), "%d", i);
        if (store_put(s, key("n"), str_c(v), REV_ANY, NULL, &e) < 0) {
            _exit(3);
        }
        if (write(fd, &i, sizeof(i)) != sizeof(i)) {
            _exit(4);
        }
    }
}

static void t_store__killed_at_random_moments__acknowledged_is_there(void **state) {
    (void)state;
    srandom(11);
    for (int round = 0; round < 50; round++) {
        int p[2], last = -1, i;
        assert_int_equal(pipe(p), 0);
        fflush(stdout);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(p[0]);
            write_until_killed(p[1]);
        }
        close(p[1]);
        usleep((useconds_t)(5000 + random() % 20000));
        assert_int_equal(kill(pid, SIGKILL), 0);
        while (read(p[0], &i, sizeof(i)) == sizeof(i)) {
            last = i;
        }
        close(p[0]);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        struct store *s = open_store();
        struct arena a = {0};
        struct store_item it;
        struct err e;
        int r = store_get(s, key("n"), &a, &it, &e);
        if (last >= 0) {
            assert_int_equal(r, 0);
            int64_t has = -1;
            assert_int_equal(str_to_i64(it.value, &has), 0);
            assert_true(has == last || has == last + 1);
            assert_int_equal(store_delete(s, key("n"), REV_ANY, &e), 0);
        }
        arena_fini(&a);
        store_close(s);
    }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(t_store__transaction__all_or_nothing),
        T(t_syncer__random_changes__mirror_is_equal),
        T(t_store__watch_from_too_old__gone),
        T(t_store__second_writer__refused_with_pid),
        T(t_store__bad_files__refused_untouched),
        T(t_store__full_disk__nothing_lost),
        T(t_store__killed_at_random_moments__acknowledged_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
