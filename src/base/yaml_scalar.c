/* Tags, scalars and keys of the YAML reader. What an untagged plain scalar means is yaml_plain.c's;
 * here it meets tags, limits and the question what text a key has. */
#include "base/yaml_read.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

#define CORE_TAG "tag:yaml.org,2002:" /* "!!" in a text */

static const struct {
    const char *name, *needs; /* needs: what a scalar with this tag must look like */
} tags[] = {
    [TAG_STR] = {"str", "text"},         [TAG_INT] = {"int", "a whole number"},
    [TAG_FLOAT] = {"float", "a number"}, [TAG_BOOL] = {"bool", "true or false"},
    [TAG_NULL] = {"null", "null"},       [TAG_MAP] = {"map", "a map"},
    [TAG_SEQ] = {"seq", "a list"},       [TAG_MERGE] = {"merge", "<<"},
};

enum tag yaml_tag_of(const yaml_char_t *tag) {
    if (!tag) {
        return TAG_NONE;
    }
    struct str t = str_c((const char *)tag);
    if (str_starts(t, STR(CORE_TAG))) {
        t = str_sub(t, sizeof(CORE_TAG) - 1, t.n);
        for (size_t i = TAG_STR; i < ARRAY_LEN(tags); i++) {
            if (str_is(t, tags[i].name)) {
                return (enum tag)i;
            }
        }
    }
    return TAG_OTHER;
}

int yaml_fail_tag(struct yaml_reader *r, struct place at, const yaml_char_t *tag) {
    struct str prefix = STR(CORE_TAG);
    struct str t = str_c((const char *)tag);
    char text[FOUND_MAX];
    if (str_starts(t, prefix)) {
        t = str_sub(t, prefix.n, t.n);
        t = arena_printf(r->a, "!!%.*s", t.n > FOUND_MAX ? FOUND_MAX : (int)t.n, t.p);
    }
    if (str_is(t, "!!binary")) {
        return yaml_fail(r, at, ERR_INVALID,
                         "found the tag !!binary, need text: write the base64 text without a tag");
    }
    return yaml_fail(
        r, at, ERR_INVALID,
        "found the tag %s here, allowed are !!str !!int !!float !!bool !!null on scalars, "
        "!!map and !!seq on theirs",
        yaml_shown(t, text));
}

/* Sets the value of n from a scalar that is or claims to be no string. */
static int set_resolved(struct yaml_reader *r, struct place at, struct str s, enum tag tag,
                        struct jnode *n) {
    struct plain v;
    char text[FOUND_MAX];
    enum plain_kind kind = yaml_plain(s, &v);
    if (kind == PLAIN_NOT_JSON && tag != TAG_INT && tag != TAG_BOOL && tag != TAG_NULL) {
        return yaml_fail(r, at, ERR_INVALID,
                         "found %s, need a finite number; put it in quotes if it is meant as text",
                         yaml_shown(s, text));
    }
    if (kind == PLAIN_TOO_LONG) {
        return yaml_fail(
            r, at, ERR_TOO_BIG,
            "found a number of %zu characters, at most %d are allowed; put it in quotes if "
            "it is meant as text",
            s.n, NUM_TEXT_MAX);
    }
    static const enum jtype types[] = {
        [PLAIN_STR] = J_STR, [PLAIN_NULL] = J_NULL,   [PLAIN_BOOL] = J_BOOL,
        [PLAIN_INT] = J_INT, [PLAIN_FLOAT] = J_FLOAT,
    };
    bool is_whole = kind == PLAIN_INT || (kind == PLAIN_FLOAT && !memchr(v.text, '.', v.n) &&
                                          !memchr(v.text, 'e', v.n) && !memchr(v.text, 'E', v.n));
    bool matches = tag == TAG_NONE || (tag == TAG_INT && is_whole) ||
                   (tag == TAG_FLOAT && (kind == PLAIN_INT || kind == PLAIN_FLOAT)) ||
                   (tag == TAG_BOOL && kind == PLAIN_BOOL) ||
                   (tag == TAG_NULL && kind == PLAIN_NULL);
    if (!matches) {
        return yaml_fail(r, at, ERR_INVALID, "found %s behind the tag !!%s, need %s",
                         yaml_shown(s, text), tags[tag].name, tags[tag].needs);
    }
    n->type = types[kind];
    if (kind == PLAIN_STR) {
        n->s = arena_dup(r->a, s);
    } else if (kind == PLAIN_BOOL) {
        n->b = v.b;
    } else if (kind == PLAIN_INT || kind == PLAIN_FLOAT) {
        n->s = arena_dup(r->a, str_n(v.text, v.n));
        if (kind == PLAIN_FLOAT) {
            n->f = v.f;
        } else {
            n->i = v.i;
        }
    }
    return 0;
}

int yaml_set_scalar(struct yaml_reader *r, const yaml_event_t *ev, struct jnode *n) {
    struct place at = place_of(ev->start_mark);
    struct str s = str_n((const char *)ev->data.scalar.value, ev->data.scalar.length);
    if (s.n > r->lim->max_string) {
        return yaml_fail(r, at, ERR_TOO_BIG, "found a string of %zu bytes, at most %zu are allowed",
                         s.n, r->lim->max_string);
    }
    if (s.n && memchr(s.p, '\0', s.n)) {
        return yaml_fail(r, at, ERR_INVALID,
                         "found a NUL in a string, every other character is allowed");
    }
    const yaml_char_t *tag_text = ev->data.scalar.tag;
    bool is_plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    enum tag tag = yaml_tag_of(tag_text);
    if (tag == TAG_STR || (tag_text && strcmp((const char *)tag_text, "!") == 0) ||
        (tag == TAG_NONE && !is_plain)) {
        n->type = J_STR;
        n->s = arena_dup(r->a, s);
        return 0;
    }
    if (tag == TAG_MAP || tag == TAG_SEQ || tag == TAG_MERGE || tag == TAG_OTHER) {
        return yaml_fail_tag(r, at, tag_text);
    }
    return set_resolved(r, at, s, tag, n);
}

/* A float as a key: Go's FormatFloat(f, 'g', -1, 32), which is kubectl's choice. */
static struct str float_key(struct arena *a, double f) {
    char text[40];
    float single = (float)f;
    int precision = 0;
    do {
        (void)snprintf(text, sizeof(text), "%.*e", precision, (double)single);
    } while (precision++ < 8 && strtof(text, NULL) != single);
    const char *e = strchr(text, 'e');
    long exp = e ? strtol(e + 1, NULL, 10) : 0;
    if (exp < -4 || exp >= 6) {
        return arena_dup(a, str_c(text));
    }
    long decimals = precision - 1 - exp;
    return arena_printf(a, "%.*f", decimals > 0 ? (int)decimals : 0, (double)single);
}

/* Text of a scalar that stands as a key. */
int yaml_key_text(struct yaml_reader *r, struct place at, const struct jnode *n, struct str *out) {
    switch (n->type) {
    case J_STR:
        *out = n->s;
        return 0;
    case J_BOOL:
        *out = n->b ? STR("true") : STR("false");
        return 0;
    case J_INT:
        *out = arena_printf(r->a, "%lld", (long long)n->i);
        return 0;
    case J_FLOAT:
        if (n->f > FLT_MAX || n->f < -FLT_MAX ||
            !(memchr(n->s.p, '.', n->s.n) || memchr(n->s.p, 'e', n->s.n) ||
              memchr(n->s.p, 'E', n->s.n))) {
            break;
        }
        *out = float_key(r->a, n->f);
        return 0;
    case J_NULL:
        return yaml_fail(r, at, ERR_INVALID, "found no key or null, need text; put it in quotes");
    case J_LIST:
    case J_MAP:
        return yaml_fail(r, at, ERR_INVALID, "found a %s as a key, need text",
                         n->type == J_LIST ? "list" : "map");
    }
    return yaml_fail(r, at, ERR_INVALID,
                     "found a number beyond 64 bits as a key, need quotes around it");
}
