/* What goes to stdout: CNI errors and the answer to VERSION; and which CNI versions there are. */
#include "cni/plugin/plugin.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* In order of age; NEWEST is ours to say when the configuration's own can't be used. */
static const char *const versions[] = {"0.1.0", "0.2.0", "0.3.0", "0.3.1",
                                       "0.4.0", "1.0.0", "1.1.0"};
#define VERSIONS_TEXT "0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
#define NEWEST "1.1.0"
#define OLDEST_WITH_CHECK 4
#define OLDEST_WITH_GC 6
/* A configuration without cniVersion (Calico: cni-plugin/pkg/types, docs: "default 0.2.0"). */
#define UNSAID "0.2.0"

static int version_index(const char *version) {
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        if (strcmp(version, versions[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

bool version_is_known(const char *version) {
    return version_index(version) >= 0;
}

int version_check(const char *version, enum cni_command cmd, struct fail *f) {
    const char *v = version[0] != '\0' ? version : UNSAID;
    int i = version_index(v);
    int least = cmd == CNI_CHECK                     ? OLDEST_WITH_CHECK
                : cmd == CNI_GC || cmd == CNI_STATUS ? OLDEST_WITH_GC
                                                     : 0;
    if (i < 0) {
        return fail_set(f, CNI_INCOMPATIBLE_VERSION, "this plugin speaks " VERSIONS_TEXT,
                        "configuration wants CNI version \"%s\"", v);
    }
    if (i < least) {
        return fail_set(f, CNI_INCOMPATIBLE_VERSION, "raise cniVersion in the configuration",
                        "CNI version %s does not have this command: %s is the first that has it", v,
                        versions[least]);
    }
    return 0;
}

int fail_set(struct fail *f, int code, const char *details, const char *fmt, ...) {
    va_list ap;
    f->code = code;
    va_start(ap, fmt);
    vsnprintf(f->msg, sizeof(f->msg), fmt, ap);
    va_end(ap);
    snprintf(f->details, sizeof(f->details), "%s", details);
    return -1;
}

/* Text as the inside of a JSON string. Bytes that are no UTF-8 (an environment may hold any) and
 * control characters become '?'. At most two bytes for one. */
static size_t escape(const char *in, char *out) {
    const uint8_t *p = (const uint8_t *)in, *end = p + strlen(in);
    size_t n = 0;
    while (p < end) {
        size_t len = utf8_len(p, end);
        if (len == 0 || *p < 0x20 || *p == 0x7f) {
            out[n++] = '?';
            p++;
            continue;
        }
        if (*p == '"' || *p == '\\') {
            out[n++] = '\\';
        }
        memcpy(out + n, p, len);
        n += len;
        p += len;
    }
    out[n] = '\0';
    return n;
}

size_t fail_json(const struct fail *f, const char *version, char *out, size_t cap) {
    char msg[2 * sizeof(f->msg)], details[2 * sizeof(f->details)];
    const char *v = version[0] == '\0' ? UNSAID : version_is_known(version) ? version : NEWEST;
    escape(f->msg, msg);
    escape(f->details, details);
    int n = snprintf(
        out, cap, "{\"cniVersion\": \"%s\", \"code\": %d, \"msg\": \"%s\", \"details\": \"%s\"}\n",
        v, f->code, msg, details);
    return n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap - 1;
}

int print_all(const uint8_t *text, size_t n) {
    while (n > 0) {
        ssize_t k = write(STDOUT_FILENO, text, n);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return k < 0 ? -errno : -EIO;
        }
        text += k;
        n -= (size_t)k;
    }
    return 0;
}

int print_versions(const char *version) {
    char out[256];
    int n = snprintf(out, sizeof(out), "{\"cniVersion\": \"%s\", \"supportedVersions\": [",
                     version_is_known(version) ? version : NEWEST);
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        n += snprintf(out + n, sizeof(out) - (size_t)n, "%s\"%s\"", i > 0 ? ", " : "", versions[i]);
    }
    n += snprintf(out + n, sizeof(out) - (size_t)n, "]}\n");
    return print_all((const uint8_t *)out, (size_t)n);
}
