/* What Calico's confd writes for BGPFilters (confd/pkg/resource/template/template_funcs.go there):
 * the same functions, so that templates that call them by name go on to work. */
#include "confd/bird_filter.h"

#include "confd/funcs.h"

#include "base/hash.h"
#include "base/ip.h"

#include <ctype.h>

enum { SYMBOL_MAX = 64, HASH_DIGITS = 16 };

struct str bird_name(struct arena *a, struct str name, size_t max) {
    if (name.n <= max || max < HASH_DIGITS + 2) {
        return name;
    }
    uint8_t h[32];
    char hex[65];
    sha256(name.p, name.n, h);
    hex_encode(h, sizeof(h), hex);
    for (char *c = hex; *c; c++) {
        *c = (char)toupper((unsigned char)*c);
    }
    return arena_printf(a, "%.*s_%.*s", (int)(max - HASH_DIGITS - 1), name.p, HASH_DIGITS, hex);
}

int bird_filter_name(struct arena *a, struct str filter, struct str direction, struct str version,
                     struct str *out, struct err *e) {
    const char *d = str_ieq(direction, STR("import"))   ? "import"
                    : str_ieq(direction, STR("export")) ? "export"
                                                        : NULL;
    if (!d) {
        return err_set(e, ERR_INVALID,
                       "provided direction '%.*s' does not map to either 'import' or 'export'",
                       STR_FMT(direction));
    }
    size_t around = strlen("bgp_") + strlen("_") + strlen(d) + strlen("FilterV") + version.n;
    struct str name = bird_name(a, filter, around < SYMBOL_MAX ? SYMBOL_MAX - around : 0);
    *out = arena_printf(a, "'bgp_%.*s_%sFilterV%.*s'", STR_FMT(name), d, STR_FMT(version));
    return 0;
}

static struct str field(const struct jnode *map, const char *name) {
    return jnode_str(jnode_getc(map, name));
}

static const struct jnode *rules_of(const struct jnode *doc, bool is_import, int64_t version) {
    return jnode_getc(jnode_getc(doc, "spec"), is_import
                                                   ? (version == 4 ? "importV4" : "importV6")
                                                   : (version == 4 ? "exportV4" : "exportV6"));
}

bool bird_filter_has_peer_type(const struct jnode *doc, bool is_import, int64_t version) {
    jnode_each (rule, rules_of(doc, is_import, version)) {
        if (field(rule, "peerType").n) {
            return true;
        }
    }
    return false;
}

/* ---- conditions ---- */

static void condition(struct buf *b) {
    if (b->n) {
        buf_puts(b, "&&");
    }
}

static int add_cidr(struct buf *b, const struct jnode *rule, struct err *e) {
    static const char *const OPERATORS[][2] = {
        {"Equal", "="}, {"NotEqual", "!="}, {"In", "~"}, {"NotIn", "!~"}};
    struct str cidr = field(rule, "cidr"), op = field(rule, "matchOperator");
    const struct jnode *len = jnode_getc(rule, "prefixLength");
    const char *sign = NULL;
    if (!op.n) {
        return err_set(e, ERR_INVALID, "operator not included in BGPFilter");
    }
    for (size_t i = 0; i < ARRAY_LEN(OPERATORS); i++) {
        sign = str_is(op, OPERATORS[i][0]) ? OPERATORS[i][1] : sign;
    }
    if (!sign) {
        return err_set(e, ERR_INVALID, "unexpected operator found in BGPFilter: %.*s", STR_FMT(op));
    }
    struct prefix p;
    if (prefix_parse(cidr, &p) < 0) {
        return err_set(e, ERR_INVALID,
                       "unexpected error when parsing cidr %.*s: invalid CIDR "
                       "address: %.*s",
                       STR_FMT(cidr), STR_FMT(cidr));
    }
    condition(b);
    if (!len || len->type != J_MAP) {
        buf_printf(b, "(net %s %.*s)", sign, STR_FMT(cidr));
        return 0;
    }
    int64_t lo = p.len, hi = ip_bits(&p.ip);
    const struct jnode *min = jnode_getc(len, "min"), *max = jnode_getc(len, "max");
    lo = min && min->type == J_INT && min->i > lo ? min->i : lo;
    hi = max && max->type == J_INT && max->i < hi ? max->i : hi;
    buf_printf(b, "(net %s [ %.*s{%lld,%lld} ])", sign, STR_FMT(cidr), (long long)lo,
               (long long)hi);
    return 0;
}

/* "aa:nn" or "aa:nn:mm" as a pair or triple, with the attribute's name. */
static const char *community(struct arena *a, struct str value, struct str *out) {
    struct str rest = value, part[4];
    size_t n = 0;
    while (rest.p && n < 4) {
        part[n++] = str_cut(&rest, ':');
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t v = 0;
        if (str_to_u64(part[i], &v) < 0) {
            return NULL;
        }
    }
    if (n == 2) {
        *out = arena_printf(a, "(%.*s, %.*s)", STR_FMT(part[0]), STR_FMT(part[1]));
        return "bgp_community";
    }
    if (n == 3) {
        *out = arena_printf(a, "(%.*s, %.*s, %.*s)", STR_FMT(part[0]), STR_FMT(part[1]),
                            STR_FMT(part[2]));
        return "bgp_large_community";
    }
    return NULL;
}

static int add_community(struct arena *a, struct buf *b, const struct jnode *match, struct err *e) {
    const struct jnode *values = jnode_getc(match, "values");
    struct str text = STR_NULL, value = values ? jnode_str(values->child) : STR_NULL;
    if (!value.n) {
        return err_set(e, ERR_INVALID, "empty communities in BGPFilter");
    }
    const char *attr = community(a, value, &text);
    if (!attr) {
        return err_set(e, ERR_INVALID, "invalid community value format in BGPFilter: %.*s",
                       STR_FMT(value));
    }
    condition(b);
    buf_printf(b, "(%.*s ~ %s)", STR_FMT(text), attr);
    return 0;
}

/* AS numbers stand as numbers or as text. */
static void put_as(struct buf *b, const struct jnode *n) {
    if (n->type == J_INT) {
        buf_printf(b, "%lld", (long long)n->i);
        return;
    }
    struct str rest = jnode_str(n), high = str_cut(&rest, '.');
    uint64_t hi = 0, lo = 0;
    if (str_to_u64(high, &hi) == 0 && (!rest.p || str_to_u64(rest, &lo) == 0)) {
        buf_printf(b, "%llu", (unsigned long long)(rest.p ? hi << 16 | lo : hi));
    }
}

static void add_path(struct buf *b, const struct jnode *list) {
    if (!list || !list->child) {
        return;
    }
    condition(b);
    buf_puts(b, list->n == 1 ? "(bgp_path.first = " : "(bgp_path ~ [= ");
    jnode_each (it, list) {
        put_as(b, it);
        buf_puts(b, it->next ? " " : "");
    }
    buf_puts(b, list->n == 1 ? ")" : " * =])");
}

static int conditions(struct arena *a, struct buf *b, const struct jnode *rule, struct err *e) {
    struct str source = field(rule, "source"), iface = field(rule, "interface");
    const struct jnode *priority = jnode_getc(rule, "priority");
    int r = field(rule, "cidr").n ? add_cidr(b, rule, e) : 0;
    if (r < 0) {
        return r;
    }
    if (source.n && !str_is(source, "RemotePeers")) {
        return err_set(e, ERR_INVALID, "unexpected source found in BGPFilter: %.*s",
                       STR_FMT(source));
    }
    if (source.n) {
        condition(b);
        buf_puts(b, "((defined(source))&&(source ~ [ RTS_BGP ]))");
    }
    for (size_t i = 0; i < iface.n; i++) {
        if (iface.p[i] == '"' || (unsigned char)iface.p[i] < 0x20) {
            return err_set(e, ERR_INVALID,
                           "interface of a BGPFilter holds a quote or control "
                           "character");
        }
    }
    if (iface.n) {
        condition(b);
        buf_printf(b, "((defined(ifname))&&(ifname ~ \"%.*s\"))", STR_FMT(iface));
    }
    if (jnode_getc(rule, "communities")) {
        r = add_community(a, b, jnode_getc(rule, "communities"), e);
    }
    if (r == 0) {
        add_path(b, jnode_getc(rule, "asPathPrefix"));
    }
    if (r == 0 && priority && priority->type == J_INT) {
        condition(b);
        buf_printf(b, "(krt_metric = %lld)", (long long)priority->i);
    }
    return r;
}

/* ---- what is done ---- */

static void prepend(struct buf *b, const struct jnode *list) {
    const struct jnode *as[64];
    size_t n = 0;
    jnode_each (it, list) {
        if (n < ARRAY_LEN(as)) {
            as[n++] = it;
        }
    }
    while (n-- > 0) { /* the last one prepended stands first */
        buf_puts(b, "bgp_path.prepend(");
        put_as(b, as[n]);
        buf_puts(b, "); ");
    }
}

static int operations(struct arena *a, struct buf *b, const struct jnode *list, struct err *e) {
    jnode_each (op, list) {
        const struct jnode *add = jnode_getc(op, "addCommunity");
        const struct jnode *path = jnode_getc(op, "prependASPath");
        const struct jnode *priority = jnode_getc(op, "setPriority");
        struct str text = STR_NULL;
        if (add) {
            const char *attr = community(a, field(add, "value"), &text);
            if (!attr) {
                return err_set(e, ERR_INVALID,
                               "invalid community value format in BGPFilter operation: %.*s",
                               STR_FMT(field(add, "value")));
            }
            buf_printf(b, "%s.add(%.*s); ", attr, STR_FMT(text));
        } else if (path) {
            prepend(b, jnode_getc(path, "prefix"));
        } else if (priority) {
            const struct jnode *v = jnode_getc(priority, "value");
            buf_printf(b, "krt_metric = %lld; ", v && v->type == J_INT ? (long long)v->i : 0);
        } else {
            return err_set(e, ERR_INVALID, "BGPFilter operation has no field set");
        }
    }
    return 0;
}

static int statement(struct arena *a, const struct jnode *rule, struct buf *out, struct err *e) {
    struct str action = field(rule, "action"), peer = field(rule, "peerType");
    bool is_accept = str_is(action, "Accept");
    struct buf when = BUF_INIT(1 << 16), body = BUF_INIT(1 << 16);
    int r = 0;
    if (!is_accept && !str_is(action, "Reject")) {
        r = err_set(e, ERR_INVALID, "unexpected action found in BGPFilter: %.*s", STR_FMT(action));
    }
    r = r < 0 ? r : conditions(a, &when, rule, e);
    r = r < 0 ? r : operations(a, &body, jnode_getc(rule, "operations"), e);
    if (r == 0) {
        const char *guard = str_is(peer, "iBGP")   ? "if (is_same_as) then { "
                            : str_is(peer, "eBGP") ? "if (!is_same_as) then { "
                                                   : "";
        buf_puts(&body, is_accept ? "accept;" : "reject;");
        buf_printf(out, "  %s", guard);
        if (when.n) {
            buf_printf(out, "if (%.*s) then { %.*s }", STR_FMT(buf_view(&when)),
                       STR_FMT(buf_view(&body)));
        } else {
            buf_str(out, buf_view(&body));
        }
        buf_puts(out, guard[0] ? " }" : "");
    }
    buf_fini(&when);
    buf_fini(&body);
    return r;
}

static int function(struct arena *a, struct str name, const struct jnode *doc, bool is_import,
                    int64_t version, struct lines *out, struct err *e) {
    struct str symbol = STR_NULL;
    int r = bird_filter_name(a, name, is_import ? STR("import") : STR("export"),
                             version == 4 ? STR("4") : STR("6"), &symbol, e);
    if (r < 0) {
        return r;
    }
    vec_push(
        &out->p,
        arena_printf(a, "function %.*s(%s) {", STR_FMT(symbol),
                     bird_filter_has_peer_type(doc, is_import, version) ? "bool is_same_as" : ""));
    jnode_each (rule, rules_of(doc, is_import, version)) {
        struct buf b = BUF_INIT(1 << 16);
        r = statement(a, rule, &b, e);
        vec_push(&out->p, arena_dup(a, buf_view(&b)));
        buf_fini(&b);
        if (r < 0) {
            return r;
        }
    }
    vec_push(&out->p, STR("}"));
    return 0;
}

int bird_filter_lines(struct arena *a, struct str name, const struct jnode *doc, int64_t version,
                      struct lines *out, struct err *e) {
    bool has[2];
    for (int i = 0; i < 2; i++) {
        const struct jnode *rules = rules_of(doc, i == 0, version);
        has[i] = rules && rules->child;
    }
    if (has[0] || has[1]) {
        vec_push(&out->p,
                 arena_printf(a, "# v%lld BGPFilter %.*s", (long long)version, STR_FMT(name)));
    }
    int r = has[0] ? function(a, name, doc, true, version, out, e) : 0;
    return r < 0 || !has[1] ? r : function(a, name, doc, false, version, out, e);
}
