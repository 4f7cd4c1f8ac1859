/* Error objects. See err.h. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...) {
    if (!e) {
        return code;
    }
    e->code = code;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    return code;
}

int err_wrap(struct err *e, int code, const char *fmt, ...) {
    if (!e) {
        return code;
    }
    char old[sizeof(e->msg)];
    memcpy(old, e->msg, sizeof(old));
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    if (n < 0) {
        n = 0;
    }
    if ((size_t)n < sizeof(e->msg)) {
        (void)snprintf(e->msg + n, sizeof(e->msg) - (size_t)n, ": %s",
                       old[0] ? old : err_name(code));
    }
    e->code = code;
    return code;
}

const char *err_name(int code) {
    return code == 0 ? "ok" : strerror(code < 0 ? -code : code);
}
