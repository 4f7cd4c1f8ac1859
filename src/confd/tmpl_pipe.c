/* Pipelines of templates: variables, commands, operands, constants. */
#include "confd/tmpl_parse_int.h"

/* BEFORE "TEXT" BEHIND */
static struct node *fail_quoting(struct parser *p, const char *before, struct str s,
                                 const char *behind) {
    struct buf b = BUF_INIT(4 * TMPL_TEXT_MAX);
    go_quote(&b, s, false);
    (void)parse_fail(p, "%s%s%s", before, buf_cstr(&b), behind);
    buf_fini(&b);
    return NULL;
}

static uint32_t var_id(struct parser *p, struct str name) {
    bool is_new;
    uint32_t *id = var_ids_put(&p->ids, name, &is_new);
    if (is_new) {
        *id = (uint32_t)p->seen.n;
        vec_push(&p->seen, (struct var_seen){0, 0});
    }
    return *id;
}

void parse_push_var(struct parser *p, struct str name) {
    uint32_t id = var_id(p, name);
    struct var_seen *seen = &p->seen.p[id];
    vec_push(&p->vars, (struct var_entry){id, *seen});
    if (seen->tree == p->at->id) {
        seen->count++;
    } else {
        *seen = (struct var_seen){p->at->id, 1};
    }
}

void parse_pop_vars(struct parser *p, size_t n) {
    while (p->vars.n > n) {
        struct var_entry *last = &p->vars.p[--p->vars.n];
        p->seen.p[last->id] = last->before;
    }
}

static struct node *chain_node(struct parser *p, enum node_kind kind, uint32_t pos,
                               const struct str *names, size_t n) {
    struct node *node = parse_node(p, kind, pos);
    node->chain_of.names = names;
    node->chain_of.n = n;
    return node;
}

static struct node *one_name(struct parser *p, enum node_kind kind, uint32_t pos, struct str name) {
    struct str *names = arena_new(&p->set->arena, struct str);
    *names = name;
    return chain_node(p, kind, pos, names, 1);
}

static struct node *variable(struct parser *p, uint32_t pos, struct str name) {
    struct node *n = one_name(p, NODE_VARIABLE, pos, name);
    n->chain_of.var = var_id(p, name);
    return n;
}

static struct node *use_variable(struct parser *p, const struct item *it) {
    struct node *n = variable(p, it->pos, it->val);
    const struct var_seen *seen = &p->seen.p[n->chain_of.var];
    if (seen->tree != p->at->id || seen->count == 0) {
        return fail_quoting(p, "undefined variable ", it->val, "");
    }
    return n;
}

static struct node *identifier(struct parser *p, const struct item *it) {
    struct node *n = parse_node(p, NODE_IDENTIFIER, it->pos);
    n->ident.name = it->val;
    for (size_t i = 0; i < p->set->n_tables; i++) {
        const struct tmpl_funcs *t = &p->set->tables[i];
        for (size_t j = 0; j < t->n; j++) {
            if (str_is(it->val, t->p[j].name)) {
                n->ident.func = &t->p[j];
                n->ident.table = (uint32_t)i;
                return n;
            }
        }
    }
    n->ident.func = builtin_find(it->val, &n->ident.builtin);
    return n->ident.func ? n : fail_quoting(p, "function ", it->val, " not defined");
}

static struct node *char_constant(struct parser *p, struct node *n, struct str text) {
    struct str rest = str_sub(text, 1, text.n);
    uint32_t r;
    bool is_byte;
    if (!go_unquote_char(&rest, '\'', &r, &is_byte)) {
        return parse_fail(p, "invalid syntax");
    }
    if (!str_is(rest, "'")) {
        return parse_fail(p, "malformed character constant: %.*s", STR_FMT(text));
    }
    n->number.i = r;
    n->number.u = r;
    n->number.f = r;
    n->number.is_int = n->number.is_uint = n->number.is_float = true;
    return n;
}

static bool has_any(struct str s, const char *set) {
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] && strchr(set, s.p[i])) {
            return true;
        }
    }
    return false;
}

/* A number that is no integer as it is written. */
static struct node *float_constant(struct parser *p, struct node *n) {
    struct str text = n->number.text;
    double f;
    if (!go_parse_float(text, &f)) {
        return fail_quoting(p, "illegal number syntax: ", text, "");
    }
    if (!has_any(text, ".eEpP")) {
        return fail_quoting(p, "integer overflow: ", text, "");
    }
    n->number.is_float = true;
    n->number.f = f;
    const double two63 = 9223372036854775808.0;
    if (f >= -two63 && f < two63 && (double)(int64_t)f == f) {
        n->number.is_int = true;
        n->number.i = (int64_t)f;
    }
    if (f >= 0 && f < 2 * two63 && (double)(uint64_t)f == f) {
        n->number.is_uint = true;
        n->number.u = (uint64_t)f;
    }
    return n;
}

static struct node *number(struct parser *p, const struct item *it) {
    struct node *n = parse_node(p, NODE_NUMBER, it->pos);
    struct str text = it->val;
    n->number.text = text;
    if (it->type == ITEM_CHAR_CONST) {
        return char_constant(p, n, text);
    }
    if (it->type == ITEM_COMPLEX || (text.n > 1 && text.p[text.n - 1] == 'i')) {
        return fail_quoting(p, "complex numbers are not supported: ", text, "");
    }
    n->number.is_uint = go_parse_uint(text, &n->number.u);
    n->number.is_int = go_parse_int(text, &n->number.i);
    if (n->number.is_int) {
        n->number.is_float = true;
        n->number.f = (double)n->number.i;
        n->number.is_uint |= n->number.i == 0; /* -0 */
        return n;
    }
    if (n->number.is_uint) {
        n->number.is_float = true;
        n->number.f = (double)n->number.u;
        return n;
    }
    return float_constant(p, n);
}

static struct node *string(struct parser *p, const struct item *it) {
    struct node *n = parse_node(p, NODE_STRING, it->pos);
    n->string.quoted = it->val;
    if (!go_unquote(&p->set->arena, it->val, &n->string.text)) {
        return parse_fail(p, "invalid syntax");
    }
    return n;
}

static struct node *parenthesized(struct parser *p) {
    if (p->paren_depth >= TMPL_PAREN_DEPTH_MAX) {
        return parse_fail(p, "max expression depth exceeded");
    }
    p->paren_depth++;
    struct node *n = parse_pipeline(p, "parenthesized pipeline", ITEM_RIGHT_PAREN);
    p->paren_depth--;
    return n;
}

/* NULL without failure: the next item is no term. */
static struct node *term(struct parser *p) {
    struct item it = parse_next_nonspace(p);
    struct node *n;
    switch (it.type) {
    case ITEM_IDENTIFIER:
        return identifier(p, &it);
    case ITEM_DOT:
        return parse_node(p, NODE_DOT, it.pos);
    case ITEM_NIL:
        return parse_node(p, NODE_NIL, it.pos);
    case ITEM_VARIABLE:
        return use_variable(p, &it);
    case ITEM_FIELD:
        return one_name(p, NODE_FIELD, it.pos, str_sub(it.val, 1, it.val.n));
    case ITEM_BOOL:
        n = parse_node(p, NODE_BOOL, it.pos);
        n->b = str_is(it.val, "true");
        return n;
    case ITEM_CHAR_CONST:
    case ITEM_COMPLEX:
    case ITEM_NUMBER:
        return number(p, &it);
    case ITEM_LEFT_PAREN:
        return parenthesized(p);
    case ITEM_STRING:
    case ITEM_RAW_STRING:
        return string(p, &it);
    default:
        parse_backup(p);
        return NULL;
    }
}

/* The fields behind a term, in front of which stand `n_before` names. */
static const struct str *field_names(struct parser *p, const struct str *before, size_t n_before,
                                     size_t *n) {
    VEC(struct str) names = {0};
    for (size_t i = 0; i < n_before; i++) {
        vec_push(&names, before[i]);
    }
    while (parse_peek(p).type == ITEM_FIELD) {
        struct str field = parse_next(p).val;
        vec_push(&names, str_sub(field, 1, field.n));
    }
    struct str *copy = arena_array(&p->set->arena, struct str, names.n);
    memcpy(copy, names.p, names.n * sizeof(*copy));
    *n = names.n;
    vec_fini(&names);
    return copy;
}

static struct node *operand(struct parser *p) {
    struct node *node = term(p);
    if (!node || parse_peek(p).type != ITEM_FIELD) {
        return node;
    }
    uint32_t pos = parse_peek(p).pos;
    bool is_longer = node->kind == NODE_FIELD || node->kind == NODE_VARIABLE;
    size_t n;
    const struct str *names = field_names(p, is_longer ? node->chain_of.names : NULL,
                                          is_longer ? node->chain_of.n : 0, &n);
    if (is_longer) {
        struct node *chain = chain_node(p, node->kind, pos, names, n);
        chain->chain_of.var = node->chain_of.var;
        return chain;
    }
    if (node->kind == NODE_BOOL || node->kind == NODE_STRING || node->kind == NODE_NUMBER ||
        node->kind == NODE_NIL || node->kind == NODE_DOT) {
        struct buf b = BUF_INIT(TMPL_TEXT_MAX);
        node_write(node, &b);
        (void)fail_quoting(p, "unexpected . after term ", buf_view(&b), "");
        buf_fini(&b);
        return NULL;
    }
    struct node *chain = parse_node(p, NODE_CHAIN, pos);
    chain->chain.node = node;
    chain->chain.names = names;
    chain->chain.n = n;
    return chain;
}

static struct node *command(struct parser *p) {
    struct node *cmd = parse_node(p, NODE_COMMAND, parse_peek_nonspace(p).pos);
    size_t first = p->nodes.n;
    for (;;) {
        (void)parse_peek_nonspace(p);
        struct node *n = operand(p);
        if (p->has_failed) {
            return NULL;
        }
        if (n) {
            vec_push(&p->nodes, n);
        }
        struct item it = parse_next(p);
        if (it.type == ITEM_SPACE) {
            continue;
        }
        if (it.type == ITEM_RIGHT_DELIM || it.type == ITEM_RIGHT_PAREN) {
            parse_backup(p);
        } else if (it.type != ITEM_PIPE) {
            return parse_unexpected(p, &it, "operand");
        }
        break;
    }
    cmd->args = parse_list(p, first);
    return cmd->args.n ? cmd : parse_fail(p, "empty command");
}

/* "$x :=", "$x =", "$i, $x :=" at the front of a pipeline. The nodes go onto the stack. */
static void declarations(struct parser *p, struct node *pipe, const char *context) {
    size_t n_declared = 0;
    for (;;) {
        struct item v = parse_peek_nonspace(p);
        if (v.type != ITEM_VARIABLE) {
            return;
        }
        (void)parse_next(p);
        struct item behind = parse_peek(p);
        struct item next = parse_peek_nonspace(p);
        bool is_comma = next.type == ITEM_CHAR && str_is(next.val, ",");
        if (next.type != ITEM_ASSIGN && next.type != ITEM_DECLARE && !is_comma) {
            /* It is the first operand: put it back, with the space behind it. */
            p->at->token[1] = behind.type == ITEM_SPACE ? behind : v;
            p->at->token[2] = v;
            p->at->n_peeked = behind.type == ITEM_SPACE ? 3 : 2;
            return;
        }
        (void)parse_next_nonspace(p);
        vec_push(&p->nodes, variable(p, v.pos, v.val));
        parse_push_var(p, v.val);
        n_declared++;
        p->n_binds++;
        if (!is_comma) {
            pipe->pipeline.is_assign = next.type == ITEM_ASSIGN;
            p->n_assigns += pipe->pipeline.is_assign;
            return;
        }
        if (strcmp(context, "range") != 0 || n_declared >= 2) {
            (void)parse_fail(p, "too many declarations in %s", context);
            return;
        }
        enum item_type type = parse_peek_nonspace(p).type;
        if (type != ITEM_VARIABLE && type != ITEM_RIGHT_DELIM && type != ITEM_RIGHT_PAREN) {
            (void)parse_fail(p, "range can only initialize variables");
            return;
        }
    }
}

static struct node *check_pipeline(struct parser *p, struct node *pipe, const char *context) {
    const struct node_list *cmds = &pipe->pipeline.cmds;
    if (cmds->n == 0) {
        return parse_fail(p, "missing value for %s", context);
    }
    for (size_t i = 1; i < cmds->n; i++) {
        enum node_kind kind = cmds->p[i]->args.p[0]->kind;
        if (kind == NODE_BOOL || kind == NODE_DOT || kind == NODE_NIL || kind == NODE_NUMBER ||
            kind == NODE_STRING) {
            return parse_fail(p, "non executable command in pipeline stage %zu", i + 1);
        }
    }
    return pipe;
}

struct node *parse_pipeline(struct parser *p, const char *context, enum item_type end) {
    struct node *pipe = parse_node(p, NODE_PIPE, parse_peek_nonspace(p).pos);
    size_t first = p->nodes.n, n_binds = p->n_binds;
    declarations(p, pipe, context);
    if (p->has_failed) {
        return NULL;
    }
    pipe->pipeline.decl = parse_list(p, first);
    for (;;) {
        struct item it = parse_next_nonspace(p);
        if (it.type == end) {
            pipe->pipeline.cmds = parse_list(p, first);
            pipe->pipeline.binds = p->n_binds > n_binds;
            return check_pipeline(p, pipe, context);
        }
        switch (it.type) {
        case ITEM_BOOL:
        case ITEM_CHAR_CONST:
        case ITEM_COMPLEX:
        case ITEM_DOT:
        case ITEM_FIELD:
        case ITEM_IDENTIFIER:
        case ITEM_NUMBER:
        case ITEM_NIL:
        case ITEM_RAW_STRING:
        case ITEM_STRING:
        case ITEM_VARIABLE:
        case ITEM_LEFT_PAREN:
            break;
        default:
            return parse_unexpected(p, &it, context);
        }
        parse_backup(p);
        struct node *cmd = command(p);
        if (!cmd) {
            return NULL;
        }
        vec_push(&p->nodes, cmd);
    }
}
