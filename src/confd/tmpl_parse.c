/* Templates, blocks and controls of a text. Blocks are kept on a stack of our own, not by
 * recursion: nesting costs no C stack. */
#include "confd/tmpl_parse_int.h"

#include <stdarg.h>
#include <stdio.h>

struct node *parse_fail(struct parser *p, const char *fmt, ...) {
    if (p->has_failed) {
        return NULL;
    }
    p->has_failed = true;
    char msg[sizeof(((struct err *)NULL)->msg)];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    (void)ERR_GO(p->e, "template: %.*s:%u: %s", STR_FMT(p->set->name), p->at->token[0].line, msg);
    return NULL;
}

struct node *parse_unexpected(struct parser *p, const struct item *it, const char *context) {
    struct buf b = BUF_INIT(TMPL_TEXT_MAX);
    item_describe(it, &b);
    if (it->type != ITEM_ERROR) {
        (void)parse_fail(p, "unexpected %s in %s", buf_cstr(&b), context);
    } else if (p->at->action_line && p->at->action_line != it->line) {
        /* not "action in action" */
        const char *in = str_ends(it->val, STR(" action")) ? "" : " in action";
        (void)parse_fail(p, "%s%s started at %.*s:%u", buf_cstr(&b), in, STR_FMT(p->set->name),
                         p->at->action_line);
    } else {
        (void)parse_fail(p, "%s", buf_cstr(&b));
    }
    buf_fini(&b);
    return NULL;
}

struct node *parse_node(struct parser *p, enum node_kind kind, uint32_t pos) {
    struct node *n = arena_new(&p->set->arena, struct node);
    n->kind = kind;
    n->pos = pos;
    return n;
}

struct node_list parse_list(struct parser *p, size_t first) {
    struct node_list list = {.n = p->nodes.n - first};
    if (list.n) {
        list.p = arena_array(&p->set->arena, struct node *, list.n);
        memcpy(list.p, p->nodes.p + first, list.n * sizeof(struct node *));
    }
    p->nodes.n = first;
    return list;
}

struct item parse_next(struct parser *p) {
    struct tree_state *at = p->at;
    if (at->n_peeked > 0) {
        at->n_peeked--;
    } else {
        at->token[0] = lex_item(&p->lex);
    }
    return at->token[at->n_peeked];
}

struct item parse_peek(struct parser *p) {
    if (p->at->n_peeked == 0) {
        p->at->token[0] = lex_item(&p->lex);
        p->at->n_peeked = 1;
    }
    return p->at->token[p->at->n_peeked - 1];
}

struct item parse_next_nonspace(struct parser *p) {
    struct item it;
    do {
        it = parse_next(p);
    } while (it.type == ITEM_SPACE);
    return it;
}

struct item parse_peek_nonspace(struct parser *p) {
    struct item it = parse_next_nonspace(p);
    parse_backup(p);
    return it;
}

static bool expect(struct parser *p, enum item_type type, const char *context) {
    struct item it = parse_next_nonspace(p);
    if (it.type != type) {
        (void)parse_unexpected(p, &it, context);
    }
    return it.type == type;
}

static struct block *top(struct parser *p) {
    return &p->blocks.p[p->blocks.n - 1];
}

static void push_block(struct parser *p, enum block_kind kind, struct node *node,
                       size_t first_var) {
    vec_push(&p->blocks, (struct block){
                             .kind = kind,
                             .node = node,
                             .first_node = p->nodes.n,
                             .n_assigns = p->n_assigns,
                             .first_var = first_var,
                         });
}

/* Begins a tree within the one that is being read. */
static void push_tree(struct parser *p, struct str name) {
    struct tree_state *at = arena_new(&p->set->arena, struct tree_state);
    at->outer = p->at;
    at->tree = arena_new(&p->set->arena, struct tree);
    at->tree->name = name;
    at->id = ++p->n_trees;
    at->first_var = p->vars.n;
    p->at = at;
    parse_push_var(p, STR("$"));
}

static bool is_empty(const struct node_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        if (list->p[i]->kind != NODE_TEXT) {
            return false;
        }
        struct str text = list->p[i]->text;
        for (size_t j = 0, width; j < text.n; j += width) {
            uint32_t r = rune_at(text, j, &width);
            bool is_space = (r >= '\t' && r <= '\r') || r == ' ' || r == 0x85 || r == 0xA0 ||
                            r == 0x1680 || (r >= 0x2000 && r <= 0x200A) || r == 0x2028 ||
                            r == 0x2029 || r == 0x202F || r == 0x205F || r == 0x3000;
            if (!is_space) {
                return false;
            }
        }
    }
    return true;
}

/* Files the tree that was read under its name: an empty one never replaces another. */
static void add_tree(struct parser *p) {
    struct tree *tree = p->at->tree;
    bool is_new;
    struct tree **known = trees_put(p->set->trees, tree->name, &is_new);
    if (is_new || is_empty(&(*known)->root)) {
        *known = tree;
    } else if (!is_empty(&tree->root)) {
        struct buf b = BUF_INIT(4 * TMPL_TEXT_MAX);
        go_quote(&b, tree->name, false);
        (void)parse_fail(p, "template: multiple definition of template %s", buf_cstr(&b));
        buf_fini(&b);
    }
}

static bool template_name(struct parser *p, const struct item *it, const char *context,
                          struct str *name) {
    if (it->type != ITEM_STRING && it->type != ITEM_RAW_STRING) {
        (void)parse_unexpected(p, it, context);
        return false;
    }
    if (!go_unquote(&p->set->arena, it->val, name)) {
        (void)parse_fail(p, "invalid syntax");
        return false;
    }
    return true;
}

/* The keyword is past. */
static void open_define(struct parser *p) {
    push_tree(p, STR("definition"));
    struct item it = parse_next_nonspace(p);
    if (template_name(p, &it, "define clause", &p->at->tree->name) &&
        expect(p, ITEM_RIGHT_DELIM, "define clause")) {
        push_block(p, BLOCK_DEFINE, NULL, p->at->first_var);
    }
}

static void open_block(struct parser *p) {
    struct item it = parse_next_nonspace(p);
    struct node *n = parse_node(p, NODE_TEMPLATE, it.pos);
    if (!template_name(p, &it, "block clause", &n->call.name)) {
        return;
    }
    n->call.pipe = parse_pipeline(p, "block clause", ITEM_RIGHT_DELIM);
    if (n->call.pipe) {
        push_tree(p, n->call.name);
        push_block(p, BLOCK_BLOCK, n, p->at->first_var);
    }
}

static struct node *template_call(struct parser *p) {
    struct item it = parse_next_nonspace(p);
    struct node *n = parse_node(p, NODE_TEMPLATE, it.pos);
    if (!template_name(p, &it, "template clause", &n->call.name)) {
        return NULL;
    }
    if (parse_next_nonspace(p).type != ITEM_RIGHT_DELIM) {
        parse_backup(p);
        n->call.pipe = parse_pipeline(p, "template clause", ITEM_RIGHT_DELIM);
        if (!n->call.pipe) {
            return NULL;
        }
    }
    vec_push(&p->calls, n);
    return n;
}

static void open_control(struct parser *p, enum node_kind kind, bool is_chained) {
    static const char *const contexts[] = {
        [NODE_IF] = "if", [NODE_RANGE] = "range", [NODE_WITH] = "with"};
    size_t first_var = p->vars.n, n_assigns = p->n_assigns;
    struct node *pipe = parse_pipeline(p, contexts[kind], ITEM_RIGHT_DELIM);
    if (!pipe) {
        return;
    }
    struct node *n = parse_node(p, kind, pipe->pos);
    n->branch.pipe = pipe;
    p->at->range_depth += kind == NODE_RANGE;
    push_block(p, BLOCK_CONTROL, n, first_var);
    top(p)->is_chained = is_chained;
    top(p)->n_assigns = n_assigns; /* a range's own `$x = ` counts */
}

static void handle_else(struct parser *p) {
    enum item_type next = parse_peek_nonspace(p).type;
    if (next != ITEM_IF && next != ITEM_WITH && !expect(p, ITEM_RIGHT_DELIM, "else")) {
        return;
    }
    p->at->action_line = 0;
    struct block *b = top(p);
    if (b->kind != BLOCK_CONTROL) {
        static const char *const where[] = {[BLOCK_ROOT] = "",
                                            [BLOCK_DEFINE] = " in define clause",
                                            [BLOCK_BLOCK] = " in block clause"};
        if (b->kind == BLOCK_BLOCK) {
            p->at = p->at->outer; /* it is the tree around that complains, where it was left */
        }
        (void)parse_fail(p, "unexpected {{else}}%s", where[b->kind]);
        return;
    }
    if (b->in_else) {
        (void)parse_fail(p, "expected end; found {{else}}");
        return;
    }
    struct node *n = b->node;
    n->branch.list = parse_list(p, b->first_node);
    n->branch.has_else = b->in_else = true;
    p->at->range_depth -= n->kind == NODE_RANGE;
    if ((n->kind == NODE_IF && next == ITEM_IF) || (n->kind == NODE_WITH && next == ITEM_WITH)) {
        (void)parse_next_nonspace(p);
        open_control(p, n->kind, true);
    }
}

/* {{end}} of a control, and of those that it is the `else if` of. */
static void close_controls(struct parser *p) {
    bool is_chained;
    do {
        struct block b = *top(p);
        struct node_list list = parse_list(p, b.first_node);
        if (b.in_else) {
            b.node->branch.else_list = list;
        } else {
            b.node->branch.list = list;
            p->at->range_depth -= b.node->kind == NODE_RANGE;
        }
        b.node->branch.assigns = p->n_assigns > b.n_assigns;
        parse_pop_vars(p, b.first_var);
        p->blocks.n--;
        vec_push(&p->nodes, b.node);
        is_chained = b.is_chained;
    } while (is_chained);
}

static void close_tree(struct parser *p) {
    struct block b = *top(p);
    p->at->tree->root = parse_list(p, b.first_node);
    add_tree(p);
    parse_pop_vars(p, b.first_var);
    p->blocks.n--;
    p->at = p->at->outer;
    if (b.node) {
        vec_push(&p->calls, b.node);
        vec_push(&p->nodes, b.node);
    }
}

static void handle_end(struct parser *p) {
    if (!expect(p, ITEM_RIGHT_DELIM, "end")) {
        return;
    }
    p->at->action_line = 0;
    switch (top(p)->kind) {
    case BLOCK_ROOT:
        (void)parse_fail(p, "unexpected {{end}}");
        break;
    case BLOCK_CONTROL:
        close_controls(p);
        p->at->action_line = 0;
        break;
    case BLOCK_DEFINE:
    case BLOCK_BLOCK:
        close_tree(p);
        p->at->action_line = 0;
        break;
    }
}

static struct node *jump(struct parser *p, enum node_kind kind, uint32_t pos, const char *what) {
    struct item it = parse_next_nonspace(p);
    if (it.type != ITEM_RIGHT_DELIM) {
        return parse_unexpected(p, &it, what);
    }
    if (p->at->range_depth == 0) {
        return parse_fail(p, "%s outside {{range}}", what);
    }
    return parse_node(p, kind, pos);
}

/* The left delimiter is past. NULL: a block began or ended, or failure. */
static struct node *action(struct parser *p) {
    struct item it = parse_next_nonspace(p);
    switch (it.type) {
    case ITEM_BLOCK:
        open_block(p);
        return NULL;
    case ITEM_IF:
        open_control(p, NODE_IF, false);
        return NULL;
    case ITEM_RANGE:
        open_control(p, NODE_RANGE, false);
        return NULL;
    case ITEM_WITH:
        open_control(p, NODE_WITH, false);
        return NULL;
    case ITEM_ELSE:
        handle_else(p);
        return NULL;
    case ITEM_END:
        handle_end(p);
        return NULL;
    case ITEM_BREAK:
        return jump(p, NODE_BREAK, it.pos, "{{break}}");
    case ITEM_CONTINUE:
        return jump(p, NODE_CONTINUE, it.pos, "{{continue}}");
    case ITEM_TEMPLATE:
        return template_call(p);
    default:
        break;
    }
    parse_backup(p);
    struct node *n = parse_node(p, NODE_ACTION, parse_peek(p).pos);
    n->pipe = parse_pipeline(p, "command", ITEM_RIGHT_DELIM);
    return n->pipe ? n : NULL;
}

static void text_or_action(struct parser *p) {
    struct item it = parse_next_nonspace(p);
    struct node *n = NULL;
    if (it.type == ITEM_TEXT) {
        n = parse_node(p, NODE_TEXT, it.pos);
        n->text = it.val;
    } else if (it.type == ITEM_LEFT_DELIM) {
        p->at->action_line = it.line;
        n = action(p);
        if (n) {
            p->at->action_line = 0;
        }
    } else {
        (void)parse_unexpected(p, &it, "input");
    }
    if (n) {
        vec_push(&p->nodes, n);
    }
}

/* True if a {{define}} begins here, which is then opened. */
static bool at_define(struct parser *p) {
    if (parse_peek(p).type != ITEM_LEFT_DELIM) {
        return false;
    }
    struct item delim = parse_next(p);
    if (parse_next_nonspace(p).type == ITEM_DEFINE) {
        open_define(p);
        return true;
    }
    p->at->token[1] = delim;
    p->at->n_peeked = 2;
    return false;
}

static void parse_text(struct parser *p) {
    while (!p->has_failed) {
        bool is_root = top(p)->kind == BLOCK_ROOT;
        if ((is_root ? parse_peek(p) : parse_peek_nonspace(p)).type == ITEM_EOF) {
            if (is_root) {
                return;
            }
            (void)parse_fail(p, "unexpected EOF");
        } else if (!is_root || !at_define(p)) {
            text_or_action(p);
        }
    }
}

static bool has_function(const struct tmpl_set *t, const char *name) {
    for (size_t i = 0; i < t->n_tables; i++) {
        for (size_t j = 0; j < t->tables[i].n; j++) {
            if (strcmp(t->tables[i].p[j].name, name) == 0) {
                return true;
            }
        }
    }
    return false;
}

static void parser_fini(struct parser *p) {
    vec_fini(&p->nodes);
    vec_fini(&p->blocks);
    vec_fini(&p->calls);
    vec_fini(&p->vars);
    vec_fini(&p->seen);
    var_ids_fini(&p->ids);
}

static void parse_set(struct parser *p) {
    struct tmpl_set *t = p->set;
    lex_init(&p->lex, t->text, &t->arena);
    p->lex.break_ok = !has_function(t, "break");
    p->lex.continue_ok = !has_function(t, "continue");
    push_tree(p, t->name);
    push_block(p, BLOCK_ROOT, NULL, 0);
    parse_text(p);
    if (p->has_failed) {
        return;
    }
    p->at->tree->root = parse_list(p, 0);
    add_tree(p);
    for (size_t i = 0; i < p->calls.n; i++) {
        p->calls.p[i]->call.tree = tmpl_lookup(t, p->calls.p[i]->call.name);
    }
    t->main = tmpl_lookup(t, t->name);
    t->n_vars = (uint32_t)p->seen.n;
}

const struct tree *tmpl_lookup(const struct tmpl_set *t, struct str name) {
    struct tree **tree = trees_get(t->trees, name);
    return tree ? *tree : NULL;
}

int tmpl_parse(struct str name, struct str text, const struct tmpl_funcs *tables, size_t n_tables,
               struct tmpl_set **out, struct err *e) {
    if (text.n > TMPL_TEXT_MAX) {
        return err_set(e, ERR_TOO_BIG, "template: %.*s: %zu bytes, at most %zu are allowed",
                       STR_FMT(name), text.n, TMPL_TEXT_MAX);
    }
    struct tmpl_set *t = calloc(1, sizeof(*t));
    mg_assert(t != NULL);
    t->trees = calloc(1, sizeof(*t->trees));
    mg_assert(t->trees != NULL);
    t->tables = tables;
    t->n_tables = n_tables;
    t->name = arena_dup(&t->arena, name.p ? name : STR(""));
    t->text = arena_dup(&t->arena, text.p ? text : STR(""));
    struct parser p = {.set = t, .e = e};
    parse_set(&p);
    parser_fini(&p);
    if (p.has_failed) {
        tmpl_free(t);
        return ERR_INVALID;
    }
    *out = t;
    return 0;
}

void tmpl_free(struct tmpl_set *t) {
    if (t) {
        trees_fini(t->trees);
        free(t->trees);
        arena_fini(&t->arena);
        free(t);
    }
}
