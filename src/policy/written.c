/* Rules as written, packed: a decoded rule takes 700 bytes, most of them empty, and is needed only
 * when its policy is compiled. One description of the fields serves both ways. */
#include "policy/calc_int.h"

#include <stdlib.h>

struct written {
    size_t n;
    uint8_t bytes[];
};

struct codec {
    struct buf out;
    const uint8_t *in;
    struct arena *a; /* NULL: packing */
};

static void code_bytes(struct codec *c, void *p, size_t n) {
    if (!c->a) {
        buf_add(&c->out, p, n);
    } else if (n) {
        memcpy(p, c->in, n);
        c->in += n;
    }
}

/* Seven bits a byte, the lowest first. */
static void code_u64(struct codec *c, uint64_t *v) {
    if (!c->a) {
        uint64_t rest = *v;
        for (; rest >= 0x80; rest >>= 7) {
            buf_putc(&c->out, (char)(rest | 0x80));
        }
        buf_putc(&c->out, (char)rest);
        return;
    }
    *v = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t b = *c->in++;
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            return;
        }
    }
}

static void code_bool(struct codec *c, bool *v) {
    uint64_t x = *v;
    code_u64(c, &x);
    *v = x != 0;
}

static void code_str(struct codec *c, struct str *s) {
    uint64_t n = s->p ? s->n + 1 : 0;
    code_u64(c, &n);
    if (!c->a) {
        buf_str(&c->out, *s);
        return;
    }
    *s = n ? str_n((const char *)c->in, n - 1) : STR_NULL;
    c->in += s->n;
}

static void code_opt(struct codec *c, struct opt_int *o) {
    uint64_t v = (uint64_t)o->v;
    code_bool(c, &o->set);
    if (o->set) {
        code_u64(c, &v);
        o->v = (int64_t)v;
    }
}

static void *code_list(struct codec *c, void *p, size_t *n, bool *set, size_t size) {
    uint64_t x = (uint64_t)*n << 1 | *set;
    code_u64(c, &x);
    if (!c->a) {
        return p;
    }
    *n = x >> 1;
    *set = x & 1;
    return *n ? arena_alloc(c->a, *n * size) : NULL;
}
#define CODE_LIST(c, l) ((l)->p = code_list((c), (l)->p, &(l)->n, &(l)->set, sizeof(*(l)->p)))

static void code_ports(struct codec *c, struct port_spec *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t min = p[i].min, max = p[i].max;
        code_u64(c, &min);
        code_u64(c, &max);
        p[i].min = (uint16_t)min;
        p[i].max = (uint16_t)max;
        code_str(c, &p[i].name);
    }
}

static void code_entity(struct codec *c, struct entity_rule *e) {
    CODE_LIST(c, &e->nets);
    code_bytes(c, e->nets.p, e->nets.n * sizeof(*e->nets.p));
    CODE_LIST(c, &e->not_nets);
    code_bytes(c, e->not_nets.p, e->not_nets.n * sizeof(*e->not_nets.p));
    code_str(c, &e->selector);
    code_str(c, &e->not_selector);
    code_str(c, &e->namespace_selector);
    CODE_LIST(c, &e->ports);
    code_ports(c, e->ports.p, e->ports.n);
    CODE_LIST(c, &e->not_ports);
    code_ports(c, e->not_ports.p, e->not_ports.n);
    code_bool(c, &e->services.set);
    if (e->services.set) {
        code_str(c, &e->services.name);
        code_str(c, &e->services.ns);
    }
    code_bool(c, &e->service_accounts.set);
    if (e->service_accounts.set) {
        CODE_LIST(c, &e->service_accounts.names);
        for (size_t i = 0; i < e->service_accounts.names.n; i++) {
            code_str(c, &e->service_accounts.names.p[i]);
        }
        code_str(c, &e->service_accounts.selector);
    }
}

static void code_icmp(struct codec *c, struct icmp_match *m) {
    code_bool(c, &m->set);
    if (m->set) {
        code_opt(c, &m->type);
        code_opt(c, &m->code);
    }
}

/* Without what is not for the packet path: the insides of HTTP matches, annotations. */
static void code_rule(struct codec *c, struct rule *r) {
    uint64_t action = r->action, index = r->index;
    code_u64(c, &action);
    code_u64(c, &index);
    r->action = (enum rule_action)action;
    r->index = (uint16_t)index;
    code_opt(c, &r->ip_version);
    code_opt(c, &r->protocol);
    code_opt(c, &r->not_protocol);
    code_icmp(c, &r->icmp);
    code_icmp(c, &r->not_icmp);
    code_entity(c, &r->source);
    code_entity(c, &r->destination);
    code_bool(c, &r->http.set);
    code_bool(c, &r->is_broken);
}

struct written *rules_pack(const struct rule *r, size_t n, bool numbers_them) {
    if (n == 0) {
        return NULL;
    }
    struct codec c = {.out = BUF_INIT(SIZE_MAX / 2)};
    for (size_t i = 0; i < n; i++) {
        struct rule copy = r[i];
        copy.index = numbers_them ? (uint16_t)i : copy.index;
        code_rule(&c, &copy);
    }
    struct written *w = malloc(sizeof(*w) + c.out.n);
    mg_assert(w != NULL && !c.out.overflow);
    w->n = n;
    memcpy(w->bytes, c.out.p, c.out.n);
    buf_fini(&c.out);
    return w;
}

size_t rules_count(const struct written *w) {
    return w ? w->n : 0;
}

struct rule *rules_unpack(const struct written *w, struct arena *a) {
    size_t n = rules_count(w);
    struct rule *r = arena_array(a, struct rule, n);
    struct codec c = {.in = w ? w->bytes : NULL, .a = a};
    for (size_t i = 0; i < n; i++) {
        code_rule(&c, &r[i]);
    }
    return r;
}
