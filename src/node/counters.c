#include "node/counters.h"

#include "base/jtree.h"

static void on_count(void *arg, const struct dataplane_count *c) {
    struct buf *b = arg;
    const struct calc_policy *p = c->policy;
    MG_CLEANUP(buf_fini) struct buf t = BUF_INIT(4096);
    buf_puts(b, b->p[b->n - 1] == '[' ? "{\"policy\":" : ",{\"policy\":");
    buf_printf(&t, "%.*s/%.*s%s%.*s", STR_FMT(p->kind), STR_FMT(p->ns), p->ns.n ? "/" : "",
               STR_FMT(p->name));
    json_quote(b, buf_view(&t));
    buf_puts(b, ",\"name\":");
    buf_reset(&t);
    calc_rule_name(p, c->rule, &t);
    json_quote(b, buf_view(&t));
    buf_puts(b, ",\"tier\":");
    json_quote(b, p->tier);
    buf_printf(b,
               ",\"direction\":\"%s\",\"rule\":%u,\"staged\":%s,\"packets\":%llu,"
               "\"bytes\":%llu}",
               p->dir == CALC_INGRESS ? "ingress" : "egress", c->rule,
               p->is_staged ? "true" : "false", (unsigned long long)c->packets,
               (unsigned long long)c->bytes);
}

void counters_put(struct dataplane *d, struct buf *out) {
    struct err e;
    size_t start = out->n;
    buf_puts(out, "{\"code\":0,\"rules\":[");
    if (dataplane_counts(d, on_count, out, &e) < 0) {
        out->n = start;
        buf_printf(out, "{\"code\":%d,\"message\":", e.code);
        json_quote(out, str_c(e.msg));
        buf_putc(out, '}');
        return;
    }
    buf_puts(out, "]}");
}
