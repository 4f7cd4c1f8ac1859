/* Nodes as text, for messages: the parts of them that messages can point at. */
#include "confd/tmpl_int.h"

static void write_list(const struct node_list *list, const char *between, struct buf *out) {
    for (size_t i = 0; i < list->n; i++) {
        if (i > 0) {
            buf_puts(out, between);
        }
        bool is_paren = between[1] == '\0' && list->p[i]->kind == NODE_PIPE; /* an argument */
        buf_puts(out, is_paren ? "(" : "");
        node_write(list->p[i], out);
        buf_puts(out, is_paren ? ")" : "");
    }
}

static void write_names(const struct str *names, size_t n, struct buf *out) {
    for (size_t i = 0; i < n; i++) {
        buf_putc(out, '.');
        buf_str(out, names[i]);
    }
}

static void write_pipe(const struct node *n, struct buf *out) {
    if (n->pipeline.decl.n) {
        write_list(&n->pipeline.decl, ", ", out);
        buf_puts(out, n->pipeline.is_assign ? " = " : " := ");
    }
    write_list(&n->pipeline.cmds, " | ", out);
}

static void write_template(const struct node *n, struct buf *out) {
    buf_puts(out, "{{template ");
    go_quote(out, n->call.name, false);
    if (n->call.pipe) {
        buf_putc(out, ' ');
        write_pipe(n->call.pipe, out);
    }
    buf_puts(out, "}}");
}

static void write_chain(const struct node *n, struct buf *out) {
    bool is_paren = n->chain.node->kind == NODE_PIPE;
    buf_puts(out, is_paren ? "(" : "");
    node_write(n->chain.node, out);
    buf_puts(out, is_paren ? ")" : "");
    write_names(n->chain.names, n->chain.n, out);
}

void node_write(const struct node *n, struct buf *out) {
    switch (n->kind) {
    case NODE_ACTION:
        buf_puts(out, "{{");
        write_pipe(n->pipe, out);
        buf_puts(out, "}}");
        break;
    case NODE_TEMPLATE:
        write_template(n, out);
        break;
    case NODE_PIPE:
        write_pipe(n, out);
        break;
    case NODE_COMMAND:
        write_list(&n->args, " ", out);
        break;
    case NODE_FIELD:
        write_names(n->chain_of.names, n->chain_of.n, out);
        break;
    case NODE_VARIABLE:
        buf_str(out, n->chain_of.names[0]);
        write_names(n->chain_of.names + 1, n->chain_of.n - 1, out);
        break;
    case NODE_CHAIN:
        write_chain(n, out);
        break;
    case NODE_IDENTIFIER:
        buf_str(out, n->ident.name);
        break;
    case NODE_DOT:
        buf_putc(out, '.');
        break;
    case NODE_NIL:
        buf_puts(out, "nil");
        break;
    case NODE_BOOL:
        buf_puts(out, n->b ? "true" : "false");
        break;
    case NODE_NUMBER:
        buf_str(out, n->number.text);
        break;
    case NODE_STRING:
        buf_str(out, n->string.quoted);
        break;
    case NODE_TEXT:
    case NODE_BREAK:
    case NODE_CONTINUE:
    case NODE_IF:
    case NODE_RANGE:
    case NODE_WITH:
        break; /* no message is about these */
    }
}
