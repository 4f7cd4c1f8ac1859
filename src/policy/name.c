/* The stable name of a rule. */
#include "base/hash.h"
#include "policy/calc.h"

enum { NAME_MAX_BYTES = 110 }; /* of what stands before the rule's number */

void calc_rule_name(const struct calc_policy *p, unsigned rule, struct buf *out) {
    size_t start = out->n;
    buf_str(out, p->kind);
    buf_putc(out, ' ');
    if (p->tier.n) {
        buf_str(out, p->tier);
        buf_putc(out, ' ');
    }
    if (p->ns.n) {
        buf_str(out, p->ns);
        buf_putc(out, '/');
    }
    buf_str(out, p->name);
    if (out->n - start > NAME_MAX_BYTES) {
        unsigned long long h = hash_fixed(0, out->p + start, out->n - start);
        out->n = start + NAME_MAX_BYTES - 9;
        buf_printf(out, "~%08llx", h & 0xffffffff);
    }
    buf_printf(out, "#%u", rule);
}
