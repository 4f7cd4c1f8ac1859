/* From a change in the datastore to the file that `margay confd -watch` renders from it.
 *
 * usage: bench_confd URL DEST ROUNDS
 * DEST's template is {{getv "/bgp/v1/global/as_num"}} under the prefix /calico. Each round writes
 * another AS number after a quiet second, as a person would. Prints: latency MEDIAN WORST of the
 * microseconds from the write's start until the file says so, write MEDIAN of those of the write
 * alone. */
#include "base/clock.h"
#include "base/fd.h"
#include "store/store.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { ROUNDS_MAX = 1000, QUIET_MS = 1100, WAIT_MS = 60000 };

static void die(const char *what, const char *why) {
    (void)fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void put(struct store *s, unsigned as_number) {
    char text[256];
    struct err e = {0};
    struct store_key k = {STR(STORE_SPACE_RESOURCES),
                          STR("BGPConfiguration.projectcalico.org//default")};
    snprintf(text, sizeof(text),
             "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"BGPConfiguration\",\"metadata\":"
             "{\"name\":\"default\"},\"spec\":{\"asNumber\":%u}}",
             as_number);
    if (store_put(s, k, str_c(text), REV_ANY, NULL, &e) < 0) {
        die("write", e.msg);
    }
}

static bool says(const char *dest, unsigned as_number) {
    char want[32];
    struct buf b = BUF_INIT(1 << 17);
    snprintf(want, sizeof(want), "%u", as_number);
    bool is_same = file_read(AT_FDCWD, dest, &b, 4096) == 0 && str_is(buf_view(&b), want);
    buf_fini(&b);
    return is_same;
}

/* Until the file says so, woken by its folder. */
static void wait_for(int fd, const char *dest, unsigned as_number) {
    struct pollfd p = {fd, POLLIN, 0};
    char events[4096];
    int64_t end = clock_ns() + (int64_t)WAIT_MS * 1000000;
    while (!says(dest, as_number)) {
        if (clock_ns() > end) {
            die(dest, "was not rendered");
        }
        if (poll(&p, 1, 100) > 0) {
            (void)!read(fd, events, sizeof(events));
        }
    }
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    static int64_t all[ROUNDS_MAX], writes[ROUNDS_MAX];
    struct store *s = NULL;
    struct err e = {0};
    size_t n = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    const char *slash = n ? strrchr(argv[2], '/') : NULL;
    if (n == 0 || n > ROUNDS_MAX || !slash) {
        die("usage", "bench_confd URL FOLDER/DEST ROUNDS");
    }
    if (store_open(argv[1], &s, &e) < 0) {
        die(argv[1], e.msg);
    }
    char folder[4096];
    snprintf(folder, sizeof(folder), "%.*s", (int)(slash - argv[2]), argv[2]);
    int fd = inotify_init1(IN_CLOEXEC);
    if (fd < 0 || inotify_add_watch(fd, folder, IN_MOVED_TO) < 0) {
        die(folder, err_name(-errno));
    }
    put(s, 64512);
    wait_for(fd, argv[2], 64512);
    for (size_t i = 0; i < n; i++) {
        unsigned as_number = 64513 + (unsigned)i;
        (void)poll(NULL, 0, QUIET_MS);
        int64_t start = clock_ns();
        put(s, as_number);
        writes[i] = clock_ns() - start;
        wait_for(fd, argv[2], as_number);
        all[i] = clock_ns() - start;
    }
    qsort(all, n, sizeof(*all), by_number);
    qsort(writes, n, sizeof(*writes), by_number);
    printf("latency %lld %lld\nwrite %lld\n", (long long)all[n / 2] / 1000,
           (long long)all[n - 1] / 1000, (long long)writes[n / 2] / 1000);
    (void)close(fd);
    store_close(s);
    return 0;
}
