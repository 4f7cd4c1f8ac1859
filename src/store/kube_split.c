/* A scanner of brackets and strings. Of a list only depth 1 is looked at closely: keys, and where
 * the values of "items" and "metadata" begin; everything else is skipped. */
#include "store/kube_split.h"

/* What may come at the depth that is looked at: 1, or 2 inside of items. */
enum { WANT_KEY_OR_END, WANT_KEY, WANT_COLON, WANT_VALUE, WANT_COMMA };

void kube_split_init(struct kube_split *s, bool is_watch, const char *kind,
                     const struct kube_split_ops *ops, void *arg) {
    *s = (struct kube_split){.ops = ops,
                             .arg = arg,
                             .is_watch = is_watch,
                             .kind = kind,
                             .text = BUF_INIT(KUBE_OBJECT_MAX)};
}

void kube_split_fini(struct kube_split *s) {
    buf_fini(&s->text);
}

bool kube_split_is_whole(const struct kube_split *s) {
    return s->is_watch ? s->depth == 0 : s->is_done && s->has_items;
}

/* Is it a list of what was asked for, as far as it says? */
static bool has_good_kind(const struct kube_split *s) {
    struct str is = str_n(s->list_kind, s->n_list_kind), kind = str_c(s->kind ? s->kind : "");
    return !is.n || !kind.n ||
           (s->n_list_kind <= sizeof(s->list_kind) && str_starts(is, kind) &&
            str_is(str_sub(is, kind.n, is.n), "List"));
}

static bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Bytes of a string up to its end or an escape; returns how many were taken. */
static size_t skip_string(struct kube_split *s, struct str in) {
    size_t i = 0;
    while (i < in.n) {
        char c = in.p[i++];
        if (s->is_escaped) {
            s->is_escaped = false;
        } else if (c == '\\') {
            s->is_escaped = true;
        } else if (c == '"') {
            s->in_string = false;
            break;
        }
        if (s->is_key && s->in_string) {
            if (s->n_key < sizeof(s->key)) {
                s->key[s->n_key] = c;
            }
            s->n_key++;
        }
        if (s->is_kind && s->in_string) {
            if (s->n_list_kind < sizeof(s->list_kind)) {
                s->list_kind[s->n_list_kind] = c;
            }
            s->n_list_kind++;
        }
    }
    return i;
}

static bool key_is(const struct kube_split *s, const char *name) {
    return s->n_key <= sizeof(s->key) && str_is(str_n(s->key, s->n_key), name);
}

static int emit(struct kube_split *s) {
    if (s->text.overflow || (s->capture == CAPTURE_META && s->text.n > KUBE_LIST_META_MAX)) {
        return ERR_TOO_BIG;
    }
    int r = 0;
    if (s->capture == CAPTURE_OBJECT) {
        r = s->ops->on_object(s->arg, buf_view(&s->text));
    } else if (s->ops->on_meta) {
        r = s->ops->on_meta(s->arg, buf_view(&s->text));
    }
    buf_reset(&s->text);
    s->capture_depth = 0;
    return r;
}

/* Whether the bracket that opens now begins something that is kept. */
static void begin_capture(struct kube_split *s, char c) {
    bool is_object = c == '{';
    if (s->capture_depth) {
        return;
    }
    if (s->is_watch) {
        if (s->depth == 0 && is_object) {
            s->capture = CAPTURE_OBJECT;
            s->capture_depth = 1;
        }
    } else if (s->in_items && s->depth == 2 && is_object) {
        s->capture = CAPTURE_OBJECT;
        s->capture_depth = 3;
    } else if (s->depth == 1 && is_object && key_is(s, "metadata")) {
        s->capture = CAPTURE_META;
        s->capture_depth = 2;
    }
}

static int open_bracket(struct kube_split *s, char c) {
    if (s->depth == KUBE_SPLIT_DEPTH) {
        return ERR_TOO_BIG;
    }
    begin_capture(s, c);
    if (!s->is_watch && s->depth == 1 && c == '[' && key_is(s, "items")) {
        s->in_items = s->has_items = true;
    }
    s->open[s->depth++] = c;
    if (!s->is_watch && s->depth == 1) {
        s->expect = WANT_KEY_OR_END;
    }
    return 0;
}

static int close_bracket(struct kube_split *s, char c) {
    if (s->depth == 0 || s->open[s->depth - 1] != (c == '}' ? '{' : '[')) {
        return -EPROTO;
    }
    s->depth--;
    if (s->in_items && s->depth == 1) {
        s->in_items = false;
    }
    if (!s->is_watch) {
        s->is_done = s->depth == 0;
        if (s->is_done && !has_good_kind(s)) {
            return -EPROTO;
        }
        s->expect = s->depth == 1 ? WANT_COMMA : s->expect;
    }
    return 0;
}

/* A byte of the list's own level, outside of strings; brackets are dealt with by the caller. */
static int list_byte(struct kube_split *s, char c) {
    switch (s->expect) {
    case WANT_KEY_OR_END:
    case WANT_KEY:
        if (c == '"') {
            s->is_key = true;
            s->n_key = 0;
            s->expect = WANT_COLON;
            return 0;
        }
        return -EPROTO;
    case WANT_COLON:
        s->is_key = false;
        s->expect = WANT_VALUE;
        return c == ':' ? 0 : -EPROTO;
    case WANT_VALUE: /* a string or the begin of a number or word */
        s->expect = WANT_COMMA;
        s->is_kind = c == '"' && key_is(s, "kind");
        s->n_list_kind = s->is_kind ? 0 : s->n_list_kind;
        s->has_items = s->has_items || (c == 'n' && key_is(s, "items")); /* null: of nothing */
        return c == ':' || c == ',' ? -EPROTO : 0;
    default: /* WANT_COMMA: or more of a number or word */
        s->is_kind = false;
        if (c == ',') {
            s->expect = WANT_KEY;
            return has_good_kind(s) ? 0 : -EPROTO;
        }
        return c == ':' || c == '"' ? -EPROTO : 0;
    }
}

/* One byte outside of strings. */
static int take_byte(struct kube_split *s, char c) {
    bool is_open = c == '{' || c == '[', is_close = c == '}' || c == ']';
    int r = 0;
    if (is_blank(c)) {
        return 0;
    }
    if (s->depth == 0 && (s->is_done || c != '{')) {
        return -EPROTO;
    }
    if (is_open) {
        if (!s->is_watch && s->depth == 1 && s->expect != WANT_VALUE) {
            return -EPROTO;
        }
        return open_bracket(s, c);
    }
    if (is_close) {
        if (!s->is_watch && s->depth == 1 && s->expect != WANT_COMMA &&
            s->expect != WANT_KEY_OR_END) {
            return -EPROTO;
        }
        return close_bracket(s, c);
    }
    if (!s->is_watch && s->depth == 1) {
        r = list_byte(s, c);
    } else if (s->in_items && s->depth == 2 && c != ',') {
        return -EPROTO; /* an element that is no object */
    }
    s->in_string = c == '"';
    return r;
}

int kube_split_feed(struct kube_split *s, struct str chunk) {
    size_t i = 0, from = 0;
    while (i < chunk.n) {
        if (s->in_string) {
            i += skip_string(s, str_sub(chunk, i, chunk.n));
            continue;
        }
        bool was_kept = s->capture_depth != 0;
        int r = take_byte(s, chunk.p[i]);
        if (r < 0) {
            return r;
        }
        if (!was_kept && s->capture_depth) {
            from = i;
        }
        i++;
        if (was_kept && s->depth < s->capture_depth) {
            buf_add(&s->text, chunk.p + from, i - from);
            r = emit(s);
            if (r < 0) {
                return r;
            }
        }
    }
    if (s->capture_depth) {
        buf_add(&s->text, chunk.p + from, i - from);
    }
    return s->text.overflow ? ERR_TOO_BIG : 0;
}
