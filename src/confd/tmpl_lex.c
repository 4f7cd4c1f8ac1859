/* From a template's text to items. Follows Go's lexer state by state, so that what is refused, and
 * with which words, is the same. */
#include "confd/tmpl_int.h"

#include <string.h>

#define RUNE_EOF UINT32_MAX

static const struct {
    struct str word;
    enum item_type type;
} keywords[] = {
    {STR("."), ITEM_DOT},
    {STR("block"), ITEM_BLOCK},
    {STR("break"), ITEM_BREAK},
    {STR("continue"), ITEM_CONTINUE},
    {STR("define"), ITEM_DEFINE},
    {STR("else"), ITEM_ELSE},
    {STR("end"), ITEM_END},
    {STR("if"), ITEM_IF},
    {STR("range"), ITEM_RANGE},
    {STR("nil"), ITEM_NIL},
    {STR("template"), ITEM_TEMPLATE},
    {STR("with"), ITEM_WITH},
};

void lex_init(struct lexer *l, struct str text, struct arena *a) {
    *l = (struct lexer){.in = text, .arena = a, .line = 1, .start_line = 1};
}

void item_describe(const struct item *it, struct buf *out) {
    if (it->type == ITEM_EOF) {
        buf_puts(out, "EOF");
    } else if (it->type == ITEM_ERROR) {
        buf_str(out, it->val);
    } else if (it->type > ITEM_KEYWORD) {
        buf_printf(out, "<%.*s>", STR_FMT(it->val));
    } else if (it->val.n > 10) {
        go_quote(out, rune_cut(it->val, 10), false);
        buf_puts(out, "...");
    } else {
        go_quote(out, it->val, false);
    }
}

/* The next rune; lex_back puts it back. */
static uint32_t lex_next(struct lexer *l) {
    if (l->pos >= l->in.n) {
        l->width = 0;
        return RUNE_EOF;
    }
    uint32_t r = rune_at(l->in, l->pos, &l->width);
    l->pos += l->width;
    l->line += r == '\n';
    return r;
}

static void lex_back(struct lexer *l) {
    l->pos -= l->width;
    l->line -= l->width && l->in.p[l->pos] == '\n';
    l->width = 0;
}

static uint32_t lex_peek(struct lexer *l) {
    uint32_t r = lex_next(l);
    lex_back(l);
    return r;
}

static struct str lexed(const struct lexer *l) {
    return str_sub(l->in, l->start, l->pos);
}

static void emit(struct lexer *l, enum item_type type) {
    l->item = (struct item){type, (uint32_t)l->start, l->start_line, lexed(l)};
    l->start = l->pos;
    l->start_line = l->line;
}

static void count_lines(struct lexer *l) {
    for (size_t i = l->start; i < l->pos; i++) {
        l->line += l->in.p[i] == '\n';
    }
}

/* Skips what was passed without lex_next. */
static void ignore(struct lexer *l) {
    count_lines(l);
    l->start = l->pos;
    l->start_line = l->line;
}

static void fail(struct lexer *l, struct str message) {
    l->item = (struct item){ITEM_ERROR, (uint32_t)l->start, l->start_line, message};
    l->in.n = l->pos = l->start = 0;
}

/* "…: U+0040 '@'" */
static void fail_rune(struct lexer *l, const char *what, uint32_t r) {
    char utf8[4] = "";
    size_t n = rune_put(utf8, r);
    /* Go shows the end of the text as the rune -1. */
    if (r == RUNE_EOF) {
        fail(l, arena_printf(l->arena, "%s U+FFFFFFFFFFFFFFFF", what));
    } else if (rune_is_print(r)) {
        fail(l, arena_printf(l->arena, "%s U+%04X '%.*s'", what, r, (int)n, utf8));
    } else {
        fail(l, arena_printf(l->arena, "%s U+%04X", what, r));
    }
}

static bool is_space(uint32_t r) {
    return r == ' ' || r == '\t' || r == '\r' || r == '\n';
}

static bool has_prefix(const struct lexer *l, size_t at, const char *what) {
    return at <= l->in.n && str_starts(str_sub(l->in, at, l->in.n), str_c(what));
}

static bool left_trim(const struct lexer *l, size_t at) {
    return at + 2 <= l->in.n && l->in.p[at] == '-' && is_space((unsigned char)l->in.p[at + 1]);
}

static bool right_trim(const struct lexer *l, size_t at) {
    return at + 2 <= l->in.n && l->in.p[at + 1] == '-' && is_space((unsigned char)l->in.p[at]);
}

static bool at_right_delim(const struct lexer *l, bool *trims) {
    *trims = right_trim(l, l->pos) && has_prefix(l, l->pos + 2, "}}");
    return *trims || has_prefix(l, l->pos, "}}");
}

static void skip_spaces(struct lexer *l) {
    while (l->pos < l->in.n && is_space((unsigned char)l->in.p[l->pos])) {
        l->pos++;
    }
}

/* Behind a comment's left mark; false: an error was set. */
static bool lex_comment(struct lexer *l) {
    l->pos += 2;
    const char *end = memmem(l->in.p + l->pos, l->in.n - l->pos, "*/", 2);
    if (!end) {
        fail(l, STR("unclosed comment"));
        return false;
    }
    l->pos = (size_t)(end - l->in.p) + 2;
    bool trims;
    if (!at_right_delim(l, &trims)) {
        fail(l, STR("comment ends before closing delimiter"));
        return false;
    }
    l->pos += trims ? 4 : 2;
    if (trims) {
        skip_spaces(l);
    }
    ignore(l);
    return true;
}

/* Text up to "{{", comments skipped. */
static void lex_text(struct lexer *l) {
    for (;;) {
        const char *open =
            l->pos < l->in.n ? memmem(l->in.p + l->pos, l->in.n - l->pos, "{{", 2) : NULL;
        if (!open) {
            l->pos = l->in.n;
            if (l->pos > l->start) {
                count_lines(l);
                emit(l, ITEM_TEXT);
            } else {
                emit(l, ITEM_EOF);
            }
            return;
        }
        size_t delim = (size_t)(open - l->in.p);
        l->pos = delim;
        while (left_trim(l, delim + 2) && l->pos > l->start &&
               is_space((unsigned char)l->in.p[l->pos - 1])) {
            l->pos--;
        }
        if (l->pos > l->start) {
            count_lines(l);
            emit(l, ITEM_TEXT);
            l->pos = delim;
            ignore(l);
            return;
        }
        l->pos = delim;
        ignore(l);
        l->pos += 2;
        size_t behind = l->pos + (left_trim(l, l->pos) ? 2 : 0);
        if (!has_prefix(l, behind, "/*")) {
            emit(l, ITEM_LEFT_DELIM);
            l->is_inside = true;
            l->pos = behind;
            ignore(l);
            l->paren_depth = 0;
            return;
        }
        l->pos = behind;
        ignore(l);
        if (!lex_comment(l)) {
            return;
        }
    }
}

static void lex_right_delim(struct lexer *l) {
    bool trims;
    (void)at_right_delim(l, &trims);
    if (trims) {
        l->pos += 2;
        ignore(l);
    }
    l->pos += 2;
    emit(l, ITEM_RIGHT_DELIM);
    if (trims) {
        skip_spaces(l);
        ignore(l);
    }
    l->is_inside = false;
}

static void lex_space(struct lexer *l) {
    size_t n = 0;
    while (is_space(lex_peek(l))) {
        (void)lex_next(l);
        n++;
    }
    /* The last space may belong to " -}}". */
    if (right_trim(l, l->pos - 1) && has_prefix(l, l->pos + 1, "}}")) {
        l->pos--;
        l->line -= l->in.p[l->pos] == '\n';
        if (n == 1) {
            lex_right_delim(l);
            return;
        }
    }
    emit(l, ITEM_SPACE);
}

/* Whether a name may end here. */
static bool at_terminator(struct lexer *l) {
    uint32_t r = lex_peek(l);
    return r == RUNE_EOF || is_space(r) || (r < 0x80 && r && strchr(".,|:)(", (int)r)) ||
           has_prefix(l, l->pos, "}}");
}

static enum item_type word_type(const struct lexer *l, struct str word) {
    for (size_t i = 0; i < ARRAY_LEN(keywords); i++) {
        if (str_eq(keywords[i].word, word)) {
            enum item_type type = keywords[i].type;
            bool is_function =
                (type == ITEM_BREAK && !l->break_ok) || (type == ITEM_CONTINUE && !l->continue_ok);
            return is_function ? ITEM_IDENTIFIER : type;
        }
    }
    return str_is(word, "true") || str_is(word, "false") ? ITEM_BOOL : ITEM_IDENTIFIER;
}

/* A name from here on, of a type; ITEM_IDENTIFIER may turn out to be a keyword. */
static void lex_name(struct lexer *l, enum item_type type) {
    uint32_t r;
    do {
        r = lex_next(l);
    } while (r != RUNE_EOF && rune_is_alnum(r));
    lex_back(l);
    if (!at_terminator(l)) {
        fail_rune(l, "bad character", r);
        return;
    }
    emit(l, type == ITEM_IDENTIFIER ? word_type(l, lexed(l)) : type);
}

static void lex_field_or_variable(struct lexer *l, enum item_type type) {
    if (at_terminator(l)) {
        emit(l, type == ITEM_VARIABLE ? ITEM_VARIABLE : ITEM_DOT);
    } else {
        lex_name(l, type);
    }
}

/* Up to the closing quote, which is `quote`; backslashes protect. */
static void lex_quoted(struct lexer *l, uint32_t quote, enum item_type type, const char *what) {
    for (;;) {
        uint32_t r = lex_next(l);
        if (r == '\\') {
            r = lex_next(l);
            if (r != RUNE_EOF && r != '\n') {
                continue;
            }
        }
        if (r == RUNE_EOF || r == '\n') {
            fail(l, str_c(what));
            return;
        }
        if (r == quote) {
            emit(l, type);
            return;
        }
    }
}

static void lex_raw(struct lexer *l) {
    for (;;) {
        uint32_t r = lex_next(l);
        if (r == RUNE_EOF) {
            fail(l, STR("unterminated raw quoted string"));
            return;
        }
        if (r == '`') {
            emit(l, ITEM_RAW_STRING);
            return;
        }
    }
}

static bool accept(struct lexer *l, const char *set) {
    uint32_t r = lex_next(l);
    if (r != RUNE_EOF && r && r < 0x80 && strchr(set, (int)r)) {
        return true;
    }
    lex_back(l);
    return false;
}

static void accept_run(struct lexer *l, const char *set) {
    while (accept(l, set)) {
    }
}

static bool scan_number(struct lexer *l) {
    const char *const decimal = "0123456789_";
    const char *const hex = "0123456789abcdefABCDEF_";
    const char *digits = decimal;
    (void)accept(l, "+-");
    if (accept(l, "0")) {
        digits = accept(l, "xX")   ? hex
                 : accept(l, "oO") ? "01234567_"
                 : accept(l, "bB") ? "01_"
                                   : decimal;
    }
    accept_run(l, digits);
    if (accept(l, ".")) {
        accept_run(l, digits);
    }
    if ((digits == decimal && accept(l, "eE")) || (digits == hex && accept(l, "pP"))) {
        (void)accept(l, "+-");
        accept_run(l, "0123456789_");
    }
    (void)accept(l, "i");
    uint32_t r = lex_peek(l);
    if (r != RUNE_EOF && rune_is_alnum(r)) {
        (void)lex_next(l);
        return false;
    }
    return true;
}

static void lex_number(struct lexer *l) {
    bool is_ok = scan_number(l);
    enum item_type type = ITEM_NUMBER;
    uint32_t r = lex_peek(l);
    if (is_ok && (r == '+' || r == '-')) {
        is_ok = scan_number(l) && l->in.p[l->pos - 1] == 'i';
        type = ITEM_COMPLEX;
    }
    if (is_ok) {
        emit(l, type);
        return;
    }
    struct buf b = BUF_INIT(TMPL_TEXT_MAX);
    buf_puts(&b, "bad number syntax: ");
    go_quote(&b, lexed(l), false);
    fail(l, arena_dup(l->arena, buf_view(&b)));
    buf_fini(&b);
}

static void lex_paren(struct lexer *l, bool is_open) {
    l->paren_depth += is_open ? 1 : -1;
    if (l->paren_depth < 0) {
        fail(l, STR("unexpected right paren"));
    } else {
        emit(l, is_open ? ITEM_LEFT_PAREN : ITEM_RIGHT_PAREN);
    }
}

static void lex_inside(struct lexer *l) {
    bool trims;
    if (at_right_delim(l, &trims)) {
        if (l->paren_depth == 0) {
            lex_right_delim(l);
        } else {
            fail(l, STR("unclosed left paren"));
        }
        return;
    }
    uint32_t r = lex_next(l);
    switch (r) {
    case RUNE_EOF:
        fail(l, STR("unclosed action"));
        return;
    case '=':
        emit(l, ITEM_ASSIGN);
        return;
    case ':':
        if (lex_next(l) != '=') {
            fail(l, STR("expected :="));
        } else {
            emit(l, ITEM_DECLARE);
        }
        return;
    case '|':
        emit(l, ITEM_PIPE);
        return;
    case '"':
        lex_quoted(l, '"', ITEM_STRING, "unterminated quoted string");
        return;
    case '`':
        lex_raw(l);
        return;
    case '\'':
        lex_quoted(l, '\'', ITEM_CHAR_CONST, "unterminated character constant");
        return;
    case '$':
        lex_field_or_variable(l, ITEM_VARIABLE);
        return;
    case '(':
    case ')':
        lex_paren(l, r == '(');
        return;
    default:
        break;
    }
    bool is_field =
        r == '.' && l->pos < l->in.n && (l->in.p[l->pos] < '0' || l->in.p[l->pos] > '9');
    if (is_field) {
        lex_field_or_variable(l, ITEM_FIELD);
    } else if (is_space(r)) {
        lex_back(l);
        lex_space(l);
    } else if (r == '.' || r == '+' || r == '-' || (r >= '0' && r <= '9')) {
        lex_back(l);
        lex_number(l);
    } else if (rune_is_alnum(r)) {
        lex_back(l);
        lex_name(l, ITEM_IDENTIFIER);
    } else if (r < 0x80 && rune_is_print(r)) {
        emit(l, ITEM_CHAR);
    } else {
        fail_rune(l, "unrecognized character in action:", r);
    }
}

struct item lex_item(struct lexer *l) {
    if (l->is_inside && l->in.n > 0) {
        lex_inside(l);
    } else {
        lex_text(l);
    }
    return l->item;
}
