/* Structured log lines on stderr: time, level, component, event, key=value fields.
 *   LOG_I("dataplane", "table_restored", "chains=%zu took_us=%lld", n, us);
 * Values that may hold blanks or control bytes go through log_quote. Secrets never. */
#pragma once

#include "base/str.h"

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_FATAL };

void log_level_set(enum log_level level);
/* "Trace" … "Fatal", any case, "none" too. False if unknown. */
bool log_level_parse(struct str s, enum log_level *out);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *component, const char *event, const char *fmt, ...)
    MG_PRINTF(4, 5);
/* Double-quoted, control bytes and non-ASCII escaped, cut at 200 bytes; in one of 8 static buffers.
 */
const char *log_quote(struct str s);

/* Rate limit by call site: at most `burst` lines per `per_s` seconds; the next one that is let
 * through says how many were dropped ("suppressed=N"). */
struct log_limit {
    int64_t window_start_ns;
    unsigned count, dropped;
};
bool log_allow(struct log_limit *l, unsigned burst, unsigned per_s);

#define LOG_AT(level, ...)                 \
    do {                                   \
        if (log_enabled(level)) {          \
            log_write(level, __VA_ARGS__); \
        }                                  \
    } while (0)
#define LOG_D(...) LOG_AT(LOG_DEBUG, __VA_ARGS__)
#define LOG_I(...) LOG_AT(LOG_INFO, __VA_ARGS__)
#define LOG_W(...) LOG_AT(LOG_WARN, __VA_ARGS__)
#define LOG_E(...) LOG_AT(LOG_ERROR, __VA_ARGS__)
