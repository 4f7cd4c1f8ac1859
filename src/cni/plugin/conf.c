/* Reads the few top-level fields of the network configuration that the plugin needs. The whole
 * text is checked to be JSON, so that nothing half-read goes to the agent; only the fields of the
 * table below are kept. Keys count once decoded and in their case, and only at the top level. */
#include "cni/plugin/plugin.h"

#include <string.h>

#define DEPTH_MAX 64
#define TOO_LONG SIZE_MAX

struct scan {
    const uint8_t *p, *end;
    int depth;
};

size_t utf8_len(const uint8_t *p, const uint8_t *end) {
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (n == 1) {
        return 1;
    }
    if (p[0] < 0xc2 || p[0] > 0xf4 || (size_t)(end - p) < n) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    /* overlong forms, surrogates, above U+10FFFF */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) {
        return 0;
    }
    return n;
}

static void skip_space(struct scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r')) {
        s->p++;
    }
}

static bool take(struct scan *s, uint8_t c) {
    if (s->p < s->end && *s->p == c) {
        s->p++;
        return true;
    }
    return false;
}

static bool take_word(struct scan *s, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0) {
        return false;
    }
    s->p += n;
    return true;
}

static bool take_hex4(struct scan *s, uint32_t *v) {
    uint32_t x = 0;
    if (s->end - s->p < 4) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        uint8_t c = s->p[i], low = (uint8_t)(c | 0x20);
        if (c >= '0' && c <= '9') {
            x = x << 4 | (uint32_t)(c - '0');
        } else if (low >= 'a' && low <= 'f') {
            x = x << 4 | (uint32_t)(low - 'a' + 10);
        } else {
            return false;
        }
    }
    s->p += 4;
    *v = x;
    return true;
}

/* Where decoded text goes; n is TOO_LONG once it did not fit. */
struct text {
    char *p;
    size_t cap, n;
};

static void text_add(struct text *t, const uint8_t *p, size_t n) {
    if (t->n == TOO_LONG || n >= t->cap - t->n) { /* the last byte is the NUL's */
        t->n = TOO_LONG;
        return;
    }
    memcpy(t->p + t->n, p, n);
    t->n += n;
}

static void text_add_rune(struct text *t, uint32_t r) {
    uint8_t b[4];
    size_t n;
    if (r < 0x80) {
        b[0] = (uint8_t)r;
        n = 1;
    } else if (r < 0x800) {
        b[0] = (uint8_t)(0xc0 | r >> 6);
        n = 2;
    } else if (r < 0x10000) {
        b[0] = (uint8_t)(0xe0 | r >> 12);
        n = 3;
    } else {
        b[0] = (uint8_t)(0xf0 | r >> 18);
        n = 4;
    }
    for (size_t i = 1; i < n; i++) {
        b[i] = (uint8_t)(0x80 | (r >> (6 * (n - 1 - i)) & 0x3f));
    }
    text_add(t, b, n);
}

/* After the backslash. A half of a surrogate pair reads as U+FFFD, as Go's reader has it. */
static bool take_escape(struct scan *s, struct text *t) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->p == s->end) {
        return false;
    }
    uint8_t c = *s->p++;
    if (c != 'u') {
        const char *at = c == 0 ? NULL : strchr(from, c);
        if (at == NULL) {
            return false;
        }
        text_add(t, (const uint8_t *)&to[at - from], 1);
        return true;
    }
    uint32_t r, low;
    if (!take_hex4(s, &r)) {
        return false;
    }
    if (r >= 0xd800 && r <= 0xdfff) {
        struct scan ahead = *s;
        if (r < 0xdc00 && take_word(&ahead, "\\u") && take_hex4(&ahead, &low) && low >= 0xdc00 &&
            low <= 0xdfff) {
            s->p = ahead.p;
            r = 0x10000 + ((r - 0xd800) << 10) + (low - 0xdc00);
        } else {
            r = 0xfffd;
        }
    }
    text_add_rune(t, r);
    return true;
}

/* A string, decoded into t and ended with a NUL. */
static bool take_string(struct scan *s, struct text *t) {
    t->n = 0;
    if (!take(s, '"')) {
        return false;
    }
    while (s->p < s->end) {
        if (take(s, '"')) {
            if (t->n != TOO_LONG) {
                t->p[t->n] = '\0';
            }
            return true;
        }
        if (*s->p < 0x20) {
            return false;
        }
        if (take(s, '\\')) {
            if (!take_escape(s, t)) {
                return false;
            }
            continue;
        }
        size_t n = utf8_len(s->p, s->end);
        if (n == 0) {
            return false;
        }
        text_add(t, s->p, n);
        s->p += n;
    }
    return false;
}

static bool take_digits(struct scan *s) {
    const uint8_t *start = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9') {
        s->p++;
    }
    return s->p > start;
}

static bool take_number(struct scan *s) {
    take(s, '-');
    if (!take(s, '0') && !take_digits(s)) {
        return false;
    }
    if (take(s, '.') && !take_digits(s)) {
        return false;
    }
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+')) {
            take(s, '-');
        }
        return take_digits(s);
    }
    return true;
}

static bool skip_value(struct scan *s);

/* Members of an array or an object after its opening bracket. */
static bool skip_members(struct scan *s, bool is_object) {
    char nothing[1];
    uint8_t close_by = is_object ? '}' : ']';
    skip_space(s);
    if (take(s, close_by)) {
        return true;
    }
    do {
        skip_space(s);
        if (is_object) {
            struct text t = {nothing, sizeof(nothing), 0};
            if (!take_string(s, &t)) {
                return false;
            }
            skip_space(s);
            if (!take(s, ':')) {
                return false;
            }
        }
        if (!skip_value(s)) {
            return false;
        }
        skip_space(s);
    } while (take(s, ','));
    return take(s, close_by);
}

static bool skip_value(struct scan *s) {
    char nothing[1];
    struct text t = {nothing, sizeof(nothing), 0};
    skip_space(s);
    if (s->p == s->end) {
        return false;
    }
    switch (*s->p) {
    case '"':
        return take_string(s, &t);
    case 't':
        return take_word(s, "true");
    case 'f':
        return take_word(s, "false");
    case 'n':
        return take_word(s, "null");
    case '{':
    case '[':
        if (s->depth == DEPTH_MAX) {
            return false;
        }
        s->depth++;
        bool is_object = *s->p++ == '{';
        bool ok = skip_members(s, is_object);
        s->depth--;
        return ok;
    default:
        return take_number(s);
    }
}

struct field {
    const char *name;
    char *to;
    size_t cap;
    bool seen;
    bool may_be_number; /* is a text of Calico's that is written either way; no error if neither */
};

static int take_field(struct scan *s, struct field *fd, struct fail *f) {
    struct text t = {fd->to, fd->cap, 0};
    if (fd->seen) {
        return fail_set(f, CNI_UNDECODABLE, "remove one of them", "configuration has \"%s\" twice",
                        fd->name);
    }
    fd->seen = true;
    skip_space(s);
    if (fd->may_be_number && s->p < s->end && *s->p != '"') {
        const uint8_t *from = s->p;
        if (!skip_value(s)) {
            return -1;
        }
        size_t n = (size_t)(s->p - from);
        if (*from >= '0' && *from <= '9' && n < fd->cap) {
            memcpy(fd->to, from, n);
            fd->to[n] = '\0';
        }
        return 0;
    }
    if (s->p < s->end && *s->p != '"') {
        /* Go takes null as "not there" */
        if (take_word(s, "null")) {
            return 0;
        }
        struct scan ahead = *s;
        if (skip_value(&ahead)) {
            return fail_set(f, CNI_UNDECODABLE, "write it in quotes",
                            "field \"%s\" of the configuration must be a string", fd->name);
        }
        return -1;
    }
    if (!take_string(s, &t)) {
        fd->to[0] = '\0'; /* bytes of a broken string are no value */
        return -1;
    }
    if (t.n == TOO_LONG) {
        fd->to[0] = '\0';
        return fail_set(f, CNI_BAD_CONFIG, "shorten it",
                        "field \"%s\" of the configuration is longer than %zu bytes", fd->name,
                        fd->cap - 1);
    }
    if (memchr(fd->to, '\0', t.n) != NULL) {
        fd->to[0] = '\0';
        return fail_set(f, CNI_BAD_CONFIG, "remove \\u0000",
                        "field \"%s\" of the configuration holds a NUL byte", fd->name);
    }
    return 0;
}

/* Value of "type" in a value that skip_value has passed; left alone unless both are what they
 * should be. */
static void find_type(struct scan s, char *to, size_t cap) {
    char key[8] = "";
    skip_space(&s);
    if (!take(&s, '{')) {
        return;
    }
    skip_space(&s);
    do {
        struct text k = {key, sizeof(key), 0};
        skip_space(&s);
        if (!take_string(&s, &k)) {
            return; /* the object is empty */
        }
        skip_space(&s);
        (void)take(&s, ':');
        skip_space(&s);
        bool is_type = k.n == strlen("type") && memcmp(key, "type", k.n) == 0;
        if (is_type && s.p < s.end && *s.p == '"') {
            struct text t = {to, cap, 0};
            if (!take_string(&s, &t) || t.n == TOO_LONG || memchr(to, '\0', t.n) != NULL) {
                to[0] = '\0';
            }
            return;
        }
        (void)skip_value(&s);
        skip_space(&s);
    } while (take(&s, ','));
}

/* The top-level object. Leaves f->code 0 for plain syntax errors. */
static int take_document(struct scan *s, struct field *fields, size_t n_fields, struct conf *c,
                         struct fail *f) {
    char key[32] = "";
    skip_space(s);
    if (!take(s, '{')) {
        return -1;
    }
    s->depth = 1;
    skip_space(s);
    if (!take(s, '}')) {
        do {
            struct text t = {key, sizeof(key), 0};
            struct field *fd = NULL;
            skip_space(s);
            if (!take_string(s, &t)) {
                return -1;
            }
            skip_space(s);
            if (!take(s, ':')) {
                return -1;
            }
            for (size_t i = 0; i < n_fields; i++) {
                if (t.n == strlen(fields[i].name) && memcmp(key, fields[i].name, t.n) == 0) {
                    fd = &fields[i];
                }
            }
            struct scan value = *s;
            if (fd != NULL ? take_field(s, fd, f) < 0 : !skip_value(s)) {
                return -1;
            }
            if (t.n == strlen("ipam") && memcmp(key, "ipam", t.n) == 0) {
                find_type(value, c->ipam_type, sizeof(c->ipam_type));
            }
            skip_space(s);
        } while (take(s, ','));
        if (!take(s, '}')) {
            return -1;
        }
    }
    skip_space(s);
    return s->p == s->end ? 0 : -1;
}

int conf_parse(const uint8_t *text, size_t n, struct conf *c, struct fail *f) {
    struct field fields[] = {
        {"cniVersion", c->version, sizeof(c->version), false, false},
        {"name", c->name, sizeof(c->name), false, false},
        {"type", c->type, sizeof(c->type), false, false},
        {"socket", c->socket, sizeof(c->socket), false, false},
        {"state_dir", c->state_dir, sizeof(c->state_dir), false, false},
        {"log_file_path", c->log_file, sizeof(c->log_file), false, false},
        {"log_level", c->log_level, sizeof(c->log_level), false, false},
        {"log_file_max_size", c->log_max_size, sizeof(c->log_max_size), false, true},
        {"log_file_max_age", c->log_max_age, sizeof(c->log_max_age), false, true},
        {"log_file_max_count", c->log_max_count, sizeof(c->log_max_count), false, true},
    };
    struct scan s = {text, text + n, 0};
    memset(c, 0, sizeof(*c));
    f->code = 0;
    if (take_document(&s, fields, ARRAY_LEN(fields), c, f) == 0) {
        return 0;
    }
    if (f->code != 0) {
        return -1;
    }
    if (n == 0) {
        return fail_set(f, CNI_UNDECODABLE, "the runtime must write it there",
                        "no network configuration on stdin");
    }
    return fail_set(f, CNI_UNDECODABLE, "it must be one JSON object, nested at most 64 deep",
                    "network configuration on stdin is not JSON at byte %zu of %zu",
                    (size_t)(s.p - text), n);
}
