/* Time. See clock.h. */
#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t read_clock(clockid_t id) {
    struct timespec ts;
    (void)clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t clock_ns(void) {
    return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_wall_ns(void) {
    return read_clock(CLOCK_REALTIME);
}

const char *clock_rfc3339(int64_t wall_ns, char *out) {
    time_t t = wall_ns / 1000000000;
    struct tm tm;
    (void)gmtime_r(&t, &tm);
    (void)snprintf(out, 32, "%04d-%02d-%02dT%02d:%02d:%02dZ", (tm.tm_year + 1900) % 10000,
                   tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
    return out;
}

int64_t clock_parse_rfc3339(struct str s) {
    char text[40];
    struct tm tm = {0};
    if (s.n < 20 || s.n >= sizeof(text)) {
        return -1;
    }
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end) {
        return -1;
    }
    if (*end == '.') {
        end++;
        while (*end >= '0' && *end <= '9') {
            end++;
        }
    }
    int64_t offset = 0;
    if (*end == '+' || *end == '-') {
        struct str zone = str_c(end + 1), hours = str_cut(&zone, ':');
        uint64_t h, m;
        if (str_to_u64(hours, &h) < 0 || str_to_u64(zone, &m) < 0 || h > 23 || m > 59) {
            return -1;
        }
        offset = (int64_t)(h * 3600 + m * 60) * (*end == '+' ? 1 : -1);
    } else if (strcmp(end, "Z") != 0) {
        return -1;
    }
    return (int64_t)timegm(&tm) - offset;
}
