/* base: strings, buffers, arenas, maps, addresses, digests, small files, loop. */
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/hash.h"
#include "base/ip.h"
#include "base/library.h"
#include "base/loop.h"
#include "base/vec.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define MAP_NAME u64map
#define MAP_KEY uint64_t
#define MAP_VAL int
/* A poor hash on purpose: long probe runs test deletion by backward shift. */
#define MAP_HASH(k) ((k) % 7 * 2)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

static void t_str_numbers__edges__exact(void **state MG_UNUSED) {
    uint64_t u = 7;
    int64_t i = 7;
    assert_int_equal(str_to_u64(STR("18446744073709551615"), &u), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(str_to_u64(STR("18446744073709551616"), &u), -ERANGE);
    assert_int_equal(str_to_u64(STR(""), &u), -EINVAL);
    assert_int_equal(str_to_u64(STR("+1"), &u), -EINVAL);
    assert_true(u == UINT64_MAX); /* untouched on failure */
    assert_int_equal(str_to_i64(STR("-9223372036854775808"), &i), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(str_to_i64(STR("9223372036854775808"), &i), -ERANGE);
    assert_int_equal(str_to_i64(STR("-"), &i), -EINVAL);
}

static void t_str_cut__separators__all_parts(void **state MG_UNUSED) {
    struct str rest = STR("a,,b,");
    const char *want[] = {"a", "", "b", ""};
    size_t n = 0;
    while (rest.p) {
        assert_true(n < ARRAY_LEN(want));
        assert_true(str_is(str_cut(&rest, ','), want[n++]));
    }
    assert_int_equal(n, 4);
}

static void t_buf__beyond_max__overflow_and_no_write(void **state MG_UNUSED) {
    struct buf b = BUF_INIT(8);
    buf_puts(&b, "12345678");
    assert_false(b.overflow);
    buf_putc(&b, '9');
    assert_true(b.overflow);
    assert_string_equal(buf_cstr(&b), "12345678");
    buf_reset(&b);
    buf_printf(&b, "%d", 1234567);
    buf_consume(&b, 3);
    assert_string_equal(buf_cstr(&b), "4567");
    buf_fini(&b);
}

static void t_arena__many_sizes__aligned_zeroed_disjoint(void **state MG_UNUSED) {
    struct arena a = {0};
    for (int round = 0; round < 3; round++) {
        char *prev = NULL;
        for (size_t n = 0; n < 3000; n += 7) {
            char *p = arena_alloc(&a, n);
            assert_int_equal((uintptr_t)p % 16, 0);
            for (size_t k = 0; k < n; k++) {
                assert_int_equal(p[k], 0);
            }
            memset(p, 0xff, n);
            assert_ptr_not_equal(p, prev);
            prev = p;
        }
        arena_reset(&a);
    }
    assert_true(str_is(arena_printf(&a, "%s-%d", "x", 5), "x-5"));
    arena_fini(&a);
}

static void t_map__random_operations__equals_array(void **state MG_UNUSED) {
    struct u64map m = {0};
    int model[200];
    for (size_t i = 0; i < ARRAY_LEN(model); i++) {
        model[i] = -1;
    }
    uint64_t x = 42;
    for (int step = 0; step < 20000; step++) {
        x = hash_u64(x + 1);
        uint64_t k = x % 200;
        if (x >> 63) {
            bool is_new = false;
            *u64map_put(&m, k, &is_new) = step;
            assert_int_equal(is_new, model[k] < 0);
            model[k] = step;
        } else {
            assert_int_equal(u64map_del(&m, k), model[k] >= 0);
            model[k] = -1;
        }
    }
    size_t live = 0;
    for (uint64_t k = 0; k < 200; k++) {
        int *v = u64map_get(&m, k);
        assert_int_equal(v ? *v : -1, model[k]);
        live += v != NULL;
    }
    assert_int_equal(m.n, live);
    size_t seen = 0;
    for (size_t i = 0; u64map_next(&m, &i, NULL, NULL);) {
        seen++;
    }
    assert_int_equal(seen, live);
    u64map_fini(&m);
}

static void t_ip_parse__hostile_text__refused(void **state MG_UNUSED) {
    static const char *const bad[] = {"",          "1.2.3",    "1.2.3.4.5", "01.2.3.4",
                                      "1.2.3.256", "1.2.3.4 ", "::1%lo",    "1::2::3",
                                      "g::",       ":",        "1.2.3.04"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct ip46 ip;
        if (ip_parse(str_c(bad[i]), &ip) == 0) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
    static const char *const bad_prefix[] = {"1.2.3.4/33", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/08",
                                             "::/129",     "/8",       "1.2.3.4/8/8"};
    for (size_t i = 0; i < ARRAY_LEN(bad_prefix); i++) {
        struct prefix p;
        if (prefix_parse(str_c(bad_prefix[i]), &p) == 0) {
            fail_msg("accepted: %s", bad_prefix[i]);
        }
    }
}

static struct prefix pfx(const char *s) {
    struct prefix p = {0};
    assert_int_equal(prefix_parse(str_c(s), &p), 0);
    return p;
}

static void t_prefix__contains_and_offsets__agree(void **state MG_UNUSED) {
    struct prefix p = pfx("10.44.7.0/26");
    struct ip46 ip;
    char text[IP_TEXT_MAX];
    assert_true(prefix_nth(&p, 63, &ip));
    assert_string_equal(ip_text(&ip, text), "10.44.7.63");
    assert_int_equal(prefix_offset(&p, &ip), 63);
    assert_false(prefix_nth(&p, 64, &ip));
    struct prefix host = pfx("10.44.7.9/26");
    assert_false(prefix_is_masked(&host));
    struct prefix masked = prefix_mask(host);
    assert_true(prefix_eq(&masked, &p));
    struct prefix v6 = pfx("fd00:1::/122");
    assert_true(prefix_nth(&v6, 5, &ip));
    assert_string_equal(ip_text(&ip, text), "fd00:1::5");
    assert_false(prefix_has_ip(&p, &ip));
    struct prefix all = pfx("0.0.0.0/0");
    assert_true(prefix_has(&all, &p));
    assert_true(prefix_overlaps(&p, &all));
    assert_false(prefix_has(&p, &all));
}

static void t_digests__known_answers__match(void **state MG_UNUSED) {
    uint8_t d[32];
    char hex[65];
    sha1("default.nginx", 13, d);
    hex_encode(d, 20, hex);
    /* Calico's host interface name: cali + 11 digits (calico cni-plugin, VethNameForWorkload). */
    assert_memory_equal(hex, "c440f455693", 11);
    sha256("abc", 3, d);
    hex_encode(d, 32, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char id[48];
    sha224("s:has(a)", 8, d);
    base64url_encode(d, 28, id);
    assert_string_equal(id, "JpRGrxZ4kdS6g7WoF-uG_g7qlh2ipw2zGYBMpQ");
}

static void t_file_replace__symlink_at_target__replaced_not_followed(void **state MG_UNUSED) {
    char dir[] = "/tmp/margay-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    MG_CLEANUP(fd_close) int d = open(dir, O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(file_replace(d, "victim", STR("keep"), 0600), 0);
    assert_int_equal(symlinkat("victim", d, "link"), 0);
    assert_int_equal(file_replace(d, "link", STR("new"), 0600), 0);
    struct buf b = BUF_INIT(1 << 20);
    assert_int_equal(file_read(d, "victim", &b, 100), 0);
    assert_string_equal(buf_cstr(&b), "keep");
    buf_reset(&b);
    assert_int_equal(file_read(d, "link", &b, 2), ERR_TOO_BIG);
    buf_reset(&b);
    assert_int_equal(file_read(d, "link", &b, 3), 0);
    buf_fini(&b);
    struct buf small = BUF_INIT(3), smaller = BUF_INIT(2);
    assert_int_equal(file_read(d, "link", &small, 100), 0);
    assert_string_equal(buf_cstr(&small), "new");
    assert_int_equal(file_read(d, "link", &smaller, 100), ERR_TOO_BIG);
    buf_fini(&small);
    buf_fini(&smaller);
    (void)unlinkat(d, "link", 0);
    (void)unlinkat(d, "victim", 0);
    (void)rmdir(dir);
}

static void count(void *arg) {
    ++*(int *)arg;
}

static void work(void *arg) {
    *(int *)arg += 10;
}

static void t_loop__defer_timer_work__each_runs(void **state MG_UNUSED) {
    struct loop *l = loop_new();
    int deferred = 0;
    int timed = 0;
    int worked = 0;
    struct loop_defer *d = loop_defer_new(l, count, &deferred);
    struct loop_timer *t = loop_timer_new(l, count, &timed);
    loop_timer_start(t, 1, 0);
    loop_defer_ask(d);
    loop_defer_ask(d);
    loop_work(l, work, count, &worked);
    for (int i = 0; i < 1000 && (timed == 0 || worked < 11); i++) {
        loop_step(l, true);
    }
    assert_int_equal(deferred, 1);
    assert_int_equal(timed, 1);
    assert_int_equal(worked, 11);
    loop_defer_free(d);
    loop_timer_free(t);
    loop_free(l);
}

struct hearing {
    int fd;
    unsigned errors, messages;
};

static void on_hear(void *arg, unsigned events MG_UNUSED) {
    struct hearing *h = arg;
    char b[16];
    ssize_t n = recv(h->fd, b, sizeof(b), MSG_DONTWAIT);
    h->errors += n < 0;
    h->messages += n > 0;
}

static void t_loop__error_on_a_descriptor__watched_on(void **state MG_UNUSED) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, own;
    socklen_t n = sizeof(a), own_n = sizeof(own);
    int other = socket(AF_INET, SOCK_DGRAM, 0);
    struct hearing h = {.fd = socket(AF_INET, SOCK_DGRAM, 0)};
    assert_int_equal(bind(other, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockname(other, (struct sockaddr *)&a, &n), 0);
    assert_int_equal(connect(h.fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(h.fd, (struct sockaddr *)&own, &own_n), 0);
    close(other);
    struct loop *l = loop_new();
    struct loop_poll *p = loop_poll_new(l, h.fd, LOOP_READ, on_hear, &h);
    assert_int_equal(send(h.fd, "x", 1, 0), 1); /* nobody is there: an error on the socket */
    while (h.errors == 0) {
        loop_step(l, true);
    }
    other = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(other, (struct sockaddr *)&a, n), 0);
    assert_int_equal(sendto(other, "y", 1, 0, (struct sockaddr *)&own, own_n), 1);
    for (int i = 0; i < 1000 && h.messages == 0; i++) {
        loop_step(l, false);
    }
    assert_int_equal(h.messages, 1);
    loop_poll_free(p);
    loop_free(l);
    close(other);
    close(h.fd);
}

static void t_err_wrap__long_text__cut_not_overrun(void **state MG_UNUSED) {
    struct err e = {0};
    assert_int_equal(err_set(&e, ERR_INVALID, "%0900d", 1), ERR_INVALID);
    assert_int_equal(err_wrap(&e, ERR_RETRY, "%0900d", 2), ERR_RETRY);
    assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
}

static void t_library__missing_or_other_version__says_what_to_install(void **state MG_UNUSED) {
    void *at = NULL;
    struct err e = {0};
    const struct library_symbol none[] = {{"mg_no_such_symbol", &at}};
    struct library absent = {.soname = "libmg-absent.so.0", .package = "libmg0"};
    struct library other = {
        .soname = "libc.so.6", .package = "libc6", .symbols = none, .n_symbols = 1};
    assert_int_equal(library_load(&absent, &e), ERR_UNAVAILABLE);
    assert_true(str_contains(str_c(e.msg), STR("install the package libmg0")));
    assert_int_equal(library_load(&other, &e), ERR_UNAVAILABLE);
    assert_true(str_contains(str_c(e.msg), STR("libc.so.6 has no mg_no_such_symbol")));
    assert_null(other.handle);
}

static void t_library__there__pointers_work(void **state MG_UNUSED) {
#define CALLS(X) X(strlen)
    static struct { CALLS(LIBRARY_POINTER) } c;
#define SYMBOL(f) LIBRARY_SYMBOL(c, f),
    const struct library_symbol symbols[] = {CALLS(SYMBOL)};
    struct library l = {
        .soname = "libc.so.6", .package = "libc6", .symbols = symbols, .n_symbols = 1};
    struct err e = {0};
    assert_int_equal(library_load(&l, &e), 0);
    assert_int_equal(library_load(&l, &e), 0);
    assert_int_equal(c.strlen("four"), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_str_numbers__edges__exact),
        cmocka_unit_test(t_str_cut__separators__all_parts),
        cmocka_unit_test(t_buf__beyond_max__overflow_and_no_write),
        cmocka_unit_test(t_arena__many_sizes__aligned_zeroed_disjoint),
        cmocka_unit_test(t_map__random_operations__equals_array),
        cmocka_unit_test(t_ip_parse__hostile_text__refused),
        cmocka_unit_test(t_prefix__contains_and_offsets__agree),
        cmocka_unit_test(t_digests__known_answers__match),
        cmocka_unit_test(t_file_replace__symlink_at_target__replaced_not_followed),
        cmocka_unit_test(t_loop__defer_timer_work__each_runs),
        cmocka_unit_test(t_loop__error_on_a_descriptor__watched_on),
        cmocka_unit_test(t_err_wrap__long_text__cut_not_overrun),
        cmocka_unit_test(t_library__missing_or_other_version__says_what_to_install),
        cmocka_unit_test(t_library__there__pointers_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
