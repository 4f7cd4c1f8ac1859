/* YAML text to trees, on libyaml's events: the checks of the text, documents, anchors and aliases,
 * merge keys, limits. Scalars and keys are yaml_scalar.c's; writing is yaml_write.c's.
 * Where readers of YAML disagree, the answer is kubectl's (sigs.k8s.io/yaml on go-yaml v2) or, if
 * that would surprise, an error. Every copy that an alias makes counts as nodes before it is made.
 */
#include "base/yaml_read.h"

#include <stdarg.h>
#include <stdio.h>

enum { TAG_LINES_MAX = 16 }; /* libyaml compares each %TAG with all before it */

MG_PRINTF(4, 5)
int yaml_fail(struct yaml_reader *r, struct place at, int code, const char *fmt, ...) {
    char what[768];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    r->fail_line = at.line;
    r->fail_col = at.col;
    return err_set(r->e, code, "%s:%u:%zu: %s", r->name, at.line, at.col, what);
}

const char *yaml_shown(struct str s, char out[FOUND_MAX]) {
    size_t n = 0;
    while (n < s.n && n < FOUND_MAX - 8 && (unsigned char)s.p[n] >= 0x20 && s.p[n] != 0x7f) {
        n++;
    }
    while (n < s.n && n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80) {
        n--; /* not within a character */
    }
    (void)snprintf(out, FOUND_MAX, "'%.*s%s'", (int)n, s.p ? s.p : "", n < s.n ? "..." : "");
    return out;
}

/* --- the text, before libyaml sees it --- */

/* libyaml's own set: what it would refuse without a line. */
static bool is_printable(const unsigned char *p, size_t len) {
    if (len == 1) {
        return (p[0] >= 0x20 && p[0] < 0x7f) || p[0] == '\t' || p[0] == '\n' || p[0] == '\r';
    }
    if (len == 2 && p[0] == 0xc2) {
        return p[1] >= 0xa0 || p[1] == 0x85;
    }
    return !(len == 3 && p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe); /* U+FFFE, U+FFFF */
}

static int check_text(struct yaml_reader *r) {
    struct place at = {1, 1};
    size_t tag_lines = 0;
    const unsigned char *p = (const unsigned char *)r->t.p;
    for (size_t i = 0; i < r->t.n;) {
        size_t len = utf8_len(p + i, r->t.n - i);
        if (len == 0) {
            return yaml_fail(r, at, ERR_INVALID, "found byte 0x%02x, need valid UTF-8", p[i]);
        }
        if (!is_printable(p + i, len)) {
            return yaml_fail(
                r, at, ERR_INVALID,
                "found a control character (byte 0x%02x), need printable text; in double "
                "quotes it can be written as an escape",
                p[i + len - 1]);
        }
        if (at.col == 1 && p[i] == '%' && str_starts(str_sub(r->t, i, r->t.n), STR("%TAG")) &&
            ++tag_lines > TAG_LINES_MAX) {
            return yaml_fail(r, at, ERR_TOO_BIG,
                             "found more %%TAG lines than the %d that are allowed", TAG_LINES_MAX);
        }
        bool line_ends = p[i] == '\n' || (p[i] == '\r' && (i + 1 == r->t.n || p[i + 1] != '\n'));
        at.line += line_ends;
        at.col = line_ends ? 1 : at.col + 1;
        i += len;
    }
    return 0;
}

/* --- libyaml's errors in our words --- */

/* Byte offset of a character; libyaml counts characters. */
static size_t offset_of(struct str t, size_t n_chars) {
    size_t i = 0;
    while (n_chars > 0 && i < t.n) {
        do {
            i++;
        } while (i < t.n && ((unsigned char)t.p[i] & 0xc0) == 0x80);
        n_chars--;
    }
    return i;
}

static const char *allowed_for(const char *problem, bool is_tab) {
    static const struct {
        const char *problem, *allowed;
    } words[] = {
        {"mapping values are not allowed in this context",
         "keys at the column of their neighbours, and quotes around text with a colon and a "
         "blank"},
        {"found character that cannot start any token", "quotes around text that starts like this"},
        {"found a tab character", "blanks to indent"},
        {"did not find expected key", "a key at the column of the keys before it"},
        {"did not find expected '-' indicator", "a '-' at the column of the items before it"},
        {"could not find expected ':'", "a colon and a blank behind a key, all on one line"},
        {"did not find expected ',' or ']'", "a comma or ] in a list"},
        {"did not find expected ',' or '}'", "a comma or } in an object"},
        {"block sequence entries are not allowed", "a list to begin on a line of its own"},
        {"block mapping entries are not allowed", "a map to begin on a line of its own"},
        {"did not find expected <document start>", "'---' before another document"},
        {"did not find expected node content", "a value"},
        {"found unexpected end of stream", "the quote that closes the text"},
        {"found unexpected document indicator", "the quote that closes the text"},
        {"found undefined tag handle", "one of the tags !!str !!int !!float !!bool !!null"},
        {"found unknown escape character", "an escape that YAML knows, like \\n \\\" \\\\ \\u00e9"},
        {"did not find expected hexdecimal number", "hex digits in the escape"},
        {"found incompatible YAML document", "version 1.1 or 1.2"},
    };
    if (is_tab) {
        return "blanks to indent";
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strncmp(problem, words[i].problem, strlen(words[i].problem)) == 0) {
            return words[i].allowed;
        }
    }
    return NULL;
}

static int parser_fail(struct yaml_reader *r) {
    yaml_parser_t *p = &r->p;
    if (p->error == YAML_MEMORY_ERROR) {
        return err_set(r->e, -ENOMEM, "%s: out of memory", r->name);
    }
    const char *problem = p->problem ? p->problem : "text that is no YAML";
    yaml_mark_t mark = p->problem_mark;
    /* A key without colon is noticed a line later than it stands. */
    if (p->context && strcmp(p->context, "while scanning a simple key") == 0) {
        mark = p->context_mark;
    }
    char found[FOUND_MAX];
    size_t at = offset_of(r->t, mark.index);
    /* At the end a new line was begun, even if the text didn't. */
    if (at == r->t.n && mark.column == 0 && mark.line > 0) {
        size_t n_chars = 0;
        for (size_t i = at; i > 0 && r->t.p[i - 1] != '\n' && r->t.p[i - 1] != '\r'; i--) {
            n_chars += ((unsigned char)r->t.p[i - 1] & 0xc0) != 0x80;
        }
        mark.line -= n_chars > 0;
        mark.column = n_chars;
    }
    (void)text_found(r->t, at, found);
    const char *allowed = allowed_for(problem, at < r->t.n && r->t.p[at] == '\t');
    char context[128] = "";
    if (p->context && p->context_mark.line != mark.line) {
        (void)snprintf(context, sizeof(context), " (%s that begins on line %zu)", p->context,
                       p->context_mark.line + 1);
    }
    if (!allowed) {
        return yaml_fail(r, place_of(mark), ERR_INVALID, "found %s: %s%s", found, problem, context);
    }
    return yaml_fail(r, place_of(mark), ERR_INVALID, "found %s, need %s%s", found, allowed,
                     context);
}

static int next(struct yaml_reader *r, yaml_event_t *ev) {
    return yaml_parser_parse(&r->p, ev) ? 0 : parser_fail(r);
}

/* --- anchors and aliases --- */

static int find_anchor(struct yaml_reader *r, const yaml_event_t *ev, struct anchor *out) {
    struct place at = place_of(ev->start_mark);
    char text[FOUND_MAX];
    struct str name = str_c((const char *)ev->data.alias.anchor);
    if (++r->n_aliases > r->lim->max_aliases) {
        return yaml_fail(r, at, ERR_TOO_BIG, "found more aliases than the %zu that are allowed",
                         r->lim->max_aliases);
    }
    const struct anchor *anchor = anchortab_get(&r->anchors, name);
    if (!anchor) {
        return yaml_fail(r, at, ERR_INVALID,
                         "found the alias %s, need an anchor &NAME before it in the same document",
                         yaml_shown(name, text));
    }
    if (anchor->n_nodes == 0) {
        return yaml_fail(r, at, ERR_INVALID,
                         "found the alias %s inside of what it names, need it outside",
                         yaml_shown(name, text));
    }
    *out = *anchor;
    return 0;
}

/* Copies src's value into n; texts are shared. The nodes were counted by the caller. */
static int copy_value(struct yaml_reader *r, struct place at, const struct jnode *src,
                      struct jnode *n) {
    struct jnode copy = *src;
    copy.key = n->key;
    copy.next = n->next;
    copy.child = copy.last = NULL;
    copy.n = 0;
    *n = copy;
    if (src->type != J_LIST && src->type != J_MAP) {
        return 0;
    }
    if (r->depth >= r->lim->max_depth) {
        return yaml_fail(r, at, ERR_TOO_BIG,
                         "found an alias that nests deeper than the %zu levels that are allowed",
                         r->lim->max_depth);
    }
    int rc = 0;
    r->depth++;
    for (const struct jnode *it = src->child; it && rc == 0; it = it->next) {
        struct jnode *item = jnode_new(r->a, J_NULL);
        item->key = it->key;
        rc = copy_value(r, at, it, item);
        jnode_append(n, item);
    }
    r->depth--;
    return rc;
}

static int read_alias(struct yaml_reader *r, const yaml_event_t *ev, struct jnode *n) {
    struct place at = place_of(ev->start_mark);
    struct anchor anchor;
    int rc = find_anchor(r, ev, &anchor);
    if (rc < 0) {
        return rc;
    }
    if (anchor.n_nodes > r->lim->max_nodes - r->n_nodes) {
        return yaml_fail(r, at, ERR_TOO_BIG,
                         "found an alias to %zu values, with its copies more than the %zu that are "
                         "allowed",
                         anchor.n_nodes, r->lim->max_nodes);
    }
    r->n_nodes += anchor.n_nodes;
    rc = copy_value(r, at, anchor.node, n);
    n->line = at.line;
    n->col = (uint32_t)at.col;
    return rc;
}

/* --- nodes --- */

static int read_node(struct yaml_reader *r, const yaml_event_t *ev, struct jnode *n);

static int read_list(struct yaml_reader *r, struct jnode *n) {
    for (;;) {
        MG_CLEANUP(yaml_event_delete) yaml_event_t ev = {0};
        int rc = next(r, &ev);
        if (rc < 0 || ev.type == YAML_SEQUENCE_END_EVENT) {
            return rc;
        }
        struct jnode *item = jnode_new(r->a, J_NULL);
        rc = read_node(r, &ev, item);
        if (rc < 0) {
            return rc;
        }
        jnode_append(n, item);
    }
}

/* The merge key of a map, while its members are read. */
struct merge {
    struct jnode *value; /* NULL: none */
    struct place at;
    size_t n_before; /* members that stand before it */
};

static bool is_merge_key(const yaml_event_t *ev) {
    if (ev->type != YAML_SCALAR_EVENT) {
        return false;
    }
    enum tag tag = yaml_tag_of(ev->data.scalar.tag);
    bool is_plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return ev->data.scalar.length == 2 && memcmp(ev->data.scalar.value, "<<", 2) == 0 &&
           (tag == TAG_MERGE || (tag == TAG_NONE && is_plain));
}

/* Members of one merged map that n doesn't have. What hangs below them is shared with `from`, which
 * nobody reaches but through an anchor, that is by deep copy. */
static int merge_one(struct yaml_reader *r, struct jnode *n, struct members *seen,
                     const struct merge *merge, const struct jnode *from) {
    char text[FOUND_MAX];
    if (from->type != J_MAP) {
        return yaml_fail(r, merge->at, ERR_INVALID,
                         "found a value for << that is no map, need a map or a list of maps");
    }
    jnode_each (it, from) {
        size_t first = 0;
        struct jnode *item = jnode_new(r->a, J_NULL);
        *item = *it;
        if (!members_add(seen, n, it->key, it->line, item, &first) && first < merge->n_before) {
            return yaml_fail(
                r, merge->at, ERR_INVALID,
                "found << behind the key %s of line %u, which it sets too: readers differ "
                "on which one counts; put << before it",
                yaml_shown(it->key, text), seen->lines.p[first]);
        }
    }
    return 0;
}

static int apply_merge(struct yaml_reader *r, struct jnode *n, struct members *seen,
                       const struct merge *merge) {
    if (merge->value->type != J_LIST) {
        return merge_one(r, n, seen, merge, merge->value);
    }
    int rc = 0;
    for (struct jnode *it = merge->value->child; it && rc == 0; it = it->next) {
        rc = merge_one(r, n, seen, merge, it);
    }
    return rc;
}

static int read_key(struct yaml_reader *r, const yaml_event_t *ev, struct str *key) {
    struct place at = place_of(ev->start_mark);
    struct jnode value = {.type = J_NULL};
    struct anchor anchor;
    int rc = 0;
    if (ev->type == YAML_ALIAS_EVENT) {
        rc = find_anchor(r, ev, &anchor);
        value = rc == 0 ? *anchor.node : value;
    } else if (ev->type == YAML_SCALAR_EVENT) {
        rc = yaml_set_scalar(r, ev, &value);
        if (rc == 0 && ev->data.scalar.anchor) {
            struct jnode *kept = jnode_new(r->a, J_NULL);
            *kept = value;
            struct str name = arena_dup(r->a, str_c((const char *)ev->data.scalar.anchor));
            *anchortab_put(&r->anchors, name, NULL) = (struct anchor){kept, 1};
        }
    } else {
        value.type = ev->type == YAML_SEQUENCE_START_EVENT ? J_LIST : J_MAP;
    }
    return rc < 0 ? rc : yaml_key_text(r, at, &value, key);
}

/* One member, the event of its key given. */
static int read_member(struct yaml_reader *r, const yaml_event_t *key_ev, struct jnode *n,
                       struct members *seen, struct merge *merge) {
    struct place at = place_of(key_ev->start_mark);
    MG_CLEANUP(yaml_event_delete) yaml_event_t ev = {0};
    struct jnode *item = jnode_new(r->a, J_NULL);
    char text[FOUND_MAX];
    int rc = 0;
    if (is_merge_key(key_ev)) {
        if (merge->value) {
            return yaml_fail(
                r, at, ERR_INVALID,
                "found the key << again, first on line %u; write one << with a list of "
                "maps",
                merge->at.line);
        }
        *merge = (struct merge){item, at, n->n};
    } else {
        struct str key;
        size_t first = 0;
        rc = read_key(r, key_ev, &key);
        if (rc < 0) {
            return rc;
        }
        if (!members_add(seen, n, key, at.line, item, &first)) {
            return yaml_fail(
                r, at, ERR_INVALID,
                "found the key %s again, first on line %u; a key may stand once in a map",
                yaml_shown(key, text), seen->lines.p[first]);
        }
    }
    rc = next(r, &ev);
    return rc < 0 ? rc : read_node(r, &ev, item);
}

static int read_members(struct yaml_reader *r, struct jnode *n, struct members *seen) {
    struct merge merge = {0};
    for (;;) {
        MG_CLEANUP(yaml_event_delete) yaml_event_t ev = {0};
        int rc = next(r, &ev);
        if (rc < 0) {
            return rc;
        }
        if (ev.type == YAML_MAPPING_END_EVENT) {
            return merge.value ? apply_merge(r, n, seen, &merge) : 0;
        }
        rc = read_member(r, &ev, n, seen, &merge);
        if (rc < 0) {
            return rc;
        }
    }
}

static int read_container(struct yaml_reader *r, const yaml_event_t *ev, struct jnode *n) {
    bool is_map = ev->type == YAML_MAPPING_START_EVENT;
    const yaml_char_t *tag_text = is_map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag;
    enum tag tag = yaml_tag_of(tag_text);
    if (tag != TAG_NONE && tag != (is_map ? TAG_MAP : TAG_SEQ) &&
        strcmp((const char *)tag_text, "!") != 0) {
        return yaml_fail_tag(r, place_of(ev->start_mark), tag_text);
    }
    if (r->depth >= r->lim->max_depth) {
        return yaml_fail(r, place_of(ev->start_mark), ERR_TOO_BIG,
                         "found lists and maps nested deeper than the %zu levels that are allowed",
                         r->lim->max_depth);
    }
    n->type = is_map ? J_MAP : J_LIST;
    r->depth++;
    int rc = 0;
    if (is_map) {
        struct members seen = {0};
        rc = read_members(r, n, &seen);
        members_fini(&seen);
    } else {
        rc = read_list(r, n);
    }
    r->depth--;
    return rc;
}

static const yaml_char_t *anchor_of(const yaml_event_t *ev) {
    return ev->type == YAML_SCALAR_EVENT           ? ev->data.scalar.anchor
           : ev->type == YAML_SEQUENCE_START_EVENT ? ev->data.sequence_start.anchor
                                                   : ev->data.mapping_start.anchor;
}

static int read_node(struct yaml_reader *r, const yaml_event_t *ev, struct jnode *n) {
    struct place at = place_of(ev->start_mark);
    n->line = at.line;
    n->col = (uint32_t)at.col;
    if (ev->type == YAML_ALIAS_EVENT) {
        return read_alias(r, ev, n);
    }
    size_t before = r->n_nodes;
    if (++r->n_nodes > r->lim->max_nodes) {
        return yaml_fail(r, at, ERR_TOO_BIG, "found more values than the %zu that are allowed",
                         r->lim->max_nodes);
    }
    struct str name = STR_NULL;
    if (anchor_of(ev)) {
        name = arena_dup(r->a, str_c((const char *)anchor_of(ev)));
        *anchortab_put(&r->anchors, name, NULL) = (struct anchor){n, 0};
    }
    int rc = ev->type == YAML_SCALAR_EVENT ? yaml_set_scalar(r, ev, n) : read_container(r, ev, n);
    if (rc == 0 && name.p) {
        *anchortab_put(&r->anchors, name, NULL) = (struct anchor){n, r->n_nodes - before};
    }
    return rc;
}

/* --- documents --- */

static bool is_empty_document(const yaml_event_t *ev) {
    return ev->type == YAML_SCALAR_EVENT && ev->data.scalar.length == 0 && !ev->data.scalar.tag &&
           !ev->data.scalar.anchor && ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* The next document; *out is NULL for an empty one, *is_end set behind the last. */
static int read_document(struct yaml_reader *r, struct jnode **out, bool *is_end) {
    *out = NULL;
    MG_CLEANUP(yaml_event_delete) yaml_event_t start = {0};
    int rc = next(r, &start);
    if (rc < 0 || start.type == YAML_STREAM_END_EVENT) {
        *is_end = true;
        return rc;
    }
    MG_CLEANUP(yaml_event_delete) yaml_event_t root = {0};
    rc = next(r, &root);
    if (rc < 0) {
        return rc;
    }
    struct jnode *n = NULL;
    if (!is_empty_document(&root)) {
        n = jnode_new(r->a, J_NULL);
        rc = read_node(r, &root, n);
        if (rc < 0) {
            return rc;
        }
    }
    anchortab_fini(&r->anchors);
    MG_CLEANUP(yaml_event_delete) yaml_event_t end = {0};
    rc = next(r, &end);
    *out = rc == 0 ? n : NULL;
    return rc;
}

/* Negative cb_rc: cb's answer, the end of reading. */
static int read_stream(struct yaml_reader *r, int (*cb)(void *arg, struct jnode *doc), void *arg,
                       int *cb_rc) {
    MG_CLEANUP(yaml_event_delete) yaml_event_t start = {0};
    int rc = next(r, &start);
    bool is_end = false;
    while (rc == 0 && !is_end && *cb_rc >= 0) {
        struct jnode *doc = NULL;
        rc = read_document(r, &doc, &is_end);
        if (rc == 0 && doc) {
            *cb_rc = cb(arg, doc);
        }
    }
    return rc;
}

/* libyaml's input: the text and, as kubectl does, a line end behind it if it has none. */
static int give_text(void *data, unsigned char *out, size_t size, size_t *n_given) {
    struct yaml_reader *r = data;
    size_t n = r->t.n - r->n_given;
    n = n < size ? n : size;
    if (n) {
        memcpy(out, r->t.p + r->n_given, n);
        r->n_given += n;
    }
    if (n < size && !r->is_ended) {
        r->is_ended = true;
        if (r->t.n && r->t.p[r->t.n - 1] != '\n') {
            out[n++] = '\n';
        }
    }
    *n_given = n;
    return 1;
}

/* Does the text look like JSON: { or [ behind blanks and a line of "---"? */
static bool looks_like_json(struct str t) {
    t = str_trim(t);
    if (str_starts(t, STR("---"))) {
        t = str_trim(str_sub(t, 3, t.n));
    }
    return t.n && (t.p[0] == '{' || t.p[0] == '[');
}

int yaml_each(struct str text, const char *name, const struct jlimits *lim, struct arena *a,
              int (*cb)(void *arg, struct jnode *doc), void *arg, struct err *e) {
    struct yaml_reader r = {.t = text, .name = name ? name : "YAML", .lim = lim, .a = a, .e = e};
    struct err json_err = {0};
    uint32_t json_line = 0;
    size_t json_col = 0;
    if (text.n > lim->max_bytes) {
        return err_set(e, ERR_TOO_BIG, "%s: found a text of %zu bytes, at most %zu are allowed",
                       r.name, text.n, lim->max_bytes);
    }
    if (str_starts(r.t, STR("\xef\xbb\xbf"))) {
        r.t = str_sub(r.t, 3, r.t.n);
    }
    /* JSON is almost a subset of YAML; tabs, surrogate pairs and values one behind another are
     * not. */
    if (looks_like_json(r.t)) {
        struct jnode docs = {.type = J_LIST};
        int rc = json_stream(r.t, r.name, lim, a, &docs, &json_line, &json_col, &json_err);
        struct jnode *after = NULL;
        for (struct jnode *doc = docs.child; rc == 0 && doc; doc = after) {
            after = doc->next;
            doc->next = NULL;
            int cb_rc = cb(arg, doc);
            if (cb_rc < 0) {
                return cb_rc;
            }
        }
        if (rc == 0 || rc == ERR_TOO_BIG) {
            return rc < 0 ? err_set(e, rc, "%s", json_err.msg) : 0;
        }
    }
    int rc = check_text(&r);
    if (rc < 0) {
        return rc;
    }
    if (!yaml_parser_initialize(&r.p)) {
        return err_set(e, -ENOMEM, "%s: out of memory", r.name);
    }
    yaml_parser_set_encoding(&r.p, YAML_UTF8_ENCODING);
    yaml_parser_set_input(&r.p, give_text, &r);
    int cb_rc = 0;
    rc = read_stream(&r, cb, arg, &cb_rc);
    yaml_parser_delete(&r.p);
    anchortab_fini(&r.anchors);
    /* The reading that came further understood the text better. */
    if (rc == ERR_INVALID &&
        (json_line > r.fail_line || (json_line == r.fail_line && json_col > r.fail_col))) {
        return err_set(e, rc, "%s", json_err.msg);
    }
    return cb_rc < 0 ? cb_rc : rc;
}
