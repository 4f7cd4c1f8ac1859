/* Structured log lines. See log.h. */
#include "base/log.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static enum log_level min_level = LOG_INFO;

static const char *const level_names[] = {"trace", "debug", "info", "warning", "error", "fatal"};

void log_level_set(enum log_level level) {
    min_level = level;
}

bool log_level_parse(struct str s, enum log_level *out) {
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (str_ieq(s, str_c(level_names[i]))) {
            *out = (enum log_level)i;
            return true;
        }
    }
    if (str_ieq(s, STR("none")) || str_ieq(s, STR(""))) {
        *out = LOG_FATAL;
        return true;
    }
    if (str_ieq(s, STR("warn"))) {
        *out = LOG_WARN;
        return true;
    }
    return false;
}

bool log_enabled(enum log_level level) {
    return level >= min_level;
}

void log_write(enum log_level level, const char *component, const char *event, const char *fmt,
               ...) {
    char line[2048];
    struct timespec ts;
    struct tm tm;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    (void)gmtime_r(&ts.tv_sec, &tm);
    int n = snprintf(line, sizeof(line), "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s %s %s",
                     tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                     ts.tv_nsec / 1000000, level_names[level], component, event);
    size_t used = n > 0 ? (size_t)n : 0;
    if (fmt && fmt[0] && used < sizeof(line) - 2) {
        line[used++] = ' ';
        va_list ap;
        va_start(ap, fmt);
        n = vsnprintf(line + used, sizeof(line) - used - 1, fmt, ap);
        va_end(ap);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used > sizeof(line) - 2) {
        used = sizeof(line) - 2;
    }
    for (size_t i = 0; i < used; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = '?'; /* one event is one line, whatever came in from outside */
        }
    }
    line[used++] = '\n';
    (void)!write(STDERR_FILENO, line, used);
}

const char *log_quote(struct str s) {
    static _Thread_local char ring[8][832];
    static _Thread_local unsigned next;
    char *out = ring[next++ % ARRAY_LEN(ring)];
    size_t o = 0;
    out[o++] = '"';
    size_t n = s.n < 200 ? s.n : 200;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\') {
            out[o++] = '\\';
            out[o++] = (char)c;
        } else if (c < 0x20 || c >= 0x7f) {
            o += (size_t)snprintf(out + o, 5, "\\x%02x", c);
        } else {
            out[o++] = (char)c;
        }
    }
    if (n < s.n) {
        memcpy(out + o, "...", 3);
        o += 3;
    }
    out[o++] = '"';
    out[o] = '\0';
    return out;
}

bool log_allow(struct log_limit *l, unsigned burst, unsigned per_s) {
    int64_t now = clock_ns();
    if (l->window_start_ns == 0 || now - l->window_start_ns >= (int64_t)per_s * 1000000000) {
        l->window_start_ns = now;
        l->count = 0;
    }
    if (l->count >= burst) {
        l->dropped++;
        return false;
    }
    l->count++;
    return true;
}
