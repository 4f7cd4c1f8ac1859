#include "policy/verdict.h"

#include "policy/calc_int.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MAP_NAME member_map
#define MAP_KEY struct calc_member
#define MAP_VAL bool
#define MAP_HASH(k) member_hash(&(k))
#define MAP_EQ(a, b) member_eq(&(a), &(b))
#include "base/map.tmpl.h"

struct mset {
    struct calc_set s;
    char *uid, *text;
    struct member_map members;
    VEC(struct prefix) nets; /* members that are not whole addresses */
};
struct mep {
    struct calc_endpoint e;
    struct arena a;
};

#define MAP_NAME id_mset
#define MAP_KEY uint32_t
#define MAP_VAL struct mset *
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"
#define MAP_NAME id_mpol
#define MAP_KEY uint32_t
#define MAP_VAL struct calc_policy
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"
#define MAP_NAME id_mep
#define MAP_KEY uint32_t
#define MAP_VAL struct mep *
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct mirror {
    struct id_mset sets;
    struct id_mpol policies;
    struct id_mep endpoints;
};

struct mirror *mirror_new(void) {
    struct mirror *m = calloc(1, sizeof(*m));
    mg_assert(m != NULL);
    return m;
}

static void mset_free(struct mset *s) {
    member_map_fini(&s->members);
    vec_fini(&s->nets);
    free(s->uid);
    free(s->text);
    free(s);
}
static void mep_free(struct mep *e) {
    arena_fini(&e->a);
    free(e);
}

void mirror_free(struct mirror *m) {
    struct mset **s;
    for (size_t i = 0; id_mset_next(&m->sets, &i, NULL, &s);) {
        mset_free(*s);
    }
    struct mep **e;
    for (size_t i = 0; id_mep_next(&m->endpoints, &i, NULL, &e);) {
        mep_free(*e);
    }
    id_mset_fini(&m->sets);
    id_mpol_fini(&m->policies);
    id_mep_fini(&m->endpoints);
    free(m);
}

/* ---- the sink ---- */

static void on_set_new(void *arg, const struct calc_set *s) {
    struct mirror *m = arg;
    struct mset *x = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    x->s = *s;
    x->uid = strndup(s->uid.p, s->uid.n);
    x->text = strndup(s->text.p ? s->text.p : "", s->text.n);
    mg_assert(x->uid != NULL && x->text != NULL);
    *id_mset_put(&m->sets, s->id, NULL) = x;
}

static bool is_whole(const struct prefix *p) {
    return p->len == ip_bits(&p->ip);
}

static void on_members(void *arg, uint32_t id, const struct calc_member *added, size_t n_added,
                       const struct calc_member *removed, size_t n_removed) {
    struct mset *s = *id_mset_get(&((struct mirror *)arg)->sets, id);
    for (size_t i = 0; i < n_removed; i++) {
        bool had = member_map_del(&s->members, removed[i]);
        mg_assert(had);
        for (size_t j = 0; !is_whole(&removed[i].net) && j < s->nets.n; j++) {
            if (prefix_eq(&s->nets.p[j], &removed[i].net)) {
                vec_swap_remove(&s->nets, j);
                break;
            }
        }
    }
    for (size_t i = 0; i < n_added; i++) {
        bool is_new;
        (void)member_map_put(&s->members, added[i], &is_new);
        mg_assert(is_new);
        if (!is_whole(&added[i].net)) {
            vec_push(&s->nets, added[i].net);
        }
    }
}

static void on_set_gone(void *arg, uint32_t id) {
    struct mirror *m = arg;
    mset_free(*id_mset_get(&m->sets, id));
    id_mset_del(&m->sets, id);
}

static void on_policy(void *arg, const struct calc_policy *p) {
    *id_mpol_put(&((struct mirror *)arg)->policies, p->id, NULL) = *p;
}
static void on_policy_gone(void *arg, uint32_t id) {
    bool had = id_mpol_del(&((struct mirror *)arg)->policies, id);
    mg_assert(had);
}

static void *copy(struct arena *a, const void *p, size_t n) {
    void *q = arena_alloc(a, n);
    if (n) {
        memcpy(q, p, n);
    }
    return q;
}

static void copy_chain(struct arena *a, struct calc_chain *dst, const struct calc_chain *src) {
    struct calc_tier *t = copy(a, src->tiers, src->n_tiers * sizeof(*t));
    for (size_t i = 0; i < src->n_tiers; i++) {
        t[i].name = arena_dup(a, t[i].name);
        t[i].policies = copy(a, t[i].policies, t[i].n_policies * sizeof(uint32_t));
    }
    dst->tiers = t;
    dst->profiles = copy(a, src->profiles, src->n_profiles * sizeof(uint32_t));
}

static void on_endpoint(void *arg, const struct calc_endpoint *e) {
    bool is_new;
    struct mep **slot = id_mep_put(&((struct mirror *)arg)->endpoints, e->id, &is_new);
    if (!is_new) {
        mep_free(*slot);
    }
    struct mep *x = *slot = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    x->e = *e;
    x->e.iface = arena_dup(&x->a, e->iface);
    x->e.ns = arena_dup(&x->a, e->ns);
    x->e.name = arena_dup(&x->a, e->name);
    x->e.nets = copy(&x->a, e->nets, e->n_nets * sizeof(*e->nets));
    x->e.spoof_ok = copy(&x->a, e->spoof_ok, e->n_spoof_ok * sizeof(*e->spoof_ok));
    x->e.nats = copy(&x->a, e->nats, e->n_nats * sizeof(*e->nats));
    copy_chain(&x->a, &x->e.ingress, &e->ingress);
    copy_chain(&x->a, &x->e.egress, &e->egress);
    if (e->staged) {
        struct calc_chain *staged = copy(&x->a, e->staged, 2 * sizeof(*staged));
        copy_chain(&x->a, &staged[0], &e->staged[0]);
        copy_chain(&x->a, &staged[1], &e->staged[1]);
        x->e.staged = staged;
    }
    if (e->host) {
        struct calc_host *host = copy(&x->a, e->host, sizeof(*host));
        for (int d = 0; d < 2; d++) {
            copy_chain(&x->a, &host->forward[d], &e->host->forward[d]);
            copy_chain(&x->a, &host->untracked[d], &e->host->untracked[d]);
        }
        copy_chain(&x->a, &host->pre_dnat, &e->host->pre_dnat);
        x->e.host = host;
    }
}
static void on_endpoint_gone(void *arg, uint32_t id) {
    struct mirror *m = arg;
    mep_free(*id_mep_get(&m->endpoints, id));
    id_mep_del(&m->endpoints, id);
}

const struct calc_ops mirror_calc_ops = {
    .set_new = on_set_new,
    .set_members = on_members,
    .set_gone = on_set_gone,
    .policy = on_policy,
    .policy_gone = on_policy_gone,
    .endpoint = on_endpoint,
    .endpoint_gone = on_endpoint_gone,
};

void mirror_each_pod_net(const struct mirror *m, void (*cb)(void *arg, const struct prefix *net),
                         void *arg) {
    struct mep **e;
    for (size_t i = 0; id_mep_next(&m->endpoints, &i, NULL, &e);) {
        for (size_t k = 0; k < (*e)->e.n_nets && !(*e)->e.host; k++) {
            cb(arg, &(*e)->e.nets[k]);
        }
    }
}

/* ---- evaluation ---- */

static bool set_has(const struct mirror *m, uint32_t id, const struct ip46 *ip, uint8_t protocol,
                    uint16_t port) {
    struct mset **s = id_mset_get(&m->sets, id);
    if (!s) {
        return false;
    }
    struct calc_member key = {.net = {*ip, (uint8_t)ip_bits(ip)}};
    if ((*s)->s.type == CALC_SET_ADDR_PORT) {
        key.protocol = protocol;
        key.port = port;
    }
    if (member_map_get(&(*s)->members, key)) {
        return true;
    }
    for (size_t i = 0; i < (*s)->nets.n; i++) {
        if (prefix_has_ip(&(*s)->nets.p[i], ip)) {
            return true;
        }
    }
    return false;
}

static bool has_net(const struct prefix *p, size_t n, const struct ip46 *ip) {
    for (size_t i = 0; i < n; i++) {
        if (p[i].ip.family == ip->family && prefix_has_ip(&p[i], ip)) {
            return true;
        }
    }
    return false;
}

static bool has_port(const struct calc_ports *p, size_t n, uint16_t port) {
    for (size_t i = 0; i < n; i++) {
        if (p[i].min <= port && port <= p[i].max) {
            return true;
        }
    }
    return false;
}

static bool has_named(const struct mirror *m, const uint32_t *sets, size_t n, const struct ip46 *ip,
                      uint8_t protocol, uint16_t port) {
    for (size_t i = 0; i < n; i++) {
        if (set_has(m, sets[i], ip, protocol, port)) {
            return true;
        }
    }
    return false;
}

/* Why a rule does not match: all reasons, and how many. */
struct misses {
    struct buf text;
    unsigned n;
};

/* One reason more. True when nobody asks for them: then the first one is enough. */
static bool miss(struct misses *m, const char *fmt, ...) MG_PRINTF(2, 3);
static bool miss(struct misses *m, const char *fmt, ...) {
    if (!m) {
        return true;
    }
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    buf_puts(&m->text, m->n++ ? "; " : "");
    buf_puts(&m->text, text);
    return false;
}

static const char *set_text(const struct mirror *m, uint32_t id) {
    struct mset **s = id_mset_get(&m->sets, id);
    return s ? (*s)->text : "nothing";
}

/* One end of the packet against one side of a rule. */
struct end {
    const char *name;
    const struct ip46 *ip;
    uint8_t protocol;
    uint16_t port;
};

static bool side_misses(const struct mirror *m, const struct calc_side *s, const struct end *x,
                        struct misses *why) {
    if ((s->n_nets && !has_net(s->nets, s->n_nets, x->ip)) &&
        miss(why, "its %s nets are others", x->name)) {
        return true;
    }
    if (has_net(s->not_nets, s->n_not_nets, x->ip) &&
        miss(why, "its %s notNets (except) have the address", x->name)) {
        return true;
    }
    if ((s->set && !set_has(m, s->set, x->ip, x->protocol, x->port)) &&
        miss(why, "the %s is not selected by %s", x->name, set_text(m, s->set))) {
        return true;
    }
    if ((s->not_set && set_has(m, s->not_set, x->ip, x->protocol, x->port)) &&
        miss(why, "the %s is selected by the notSelector %s", x->name, set_text(m, s->not_set))) {
        return true;
    }
    if ((s->service_set && !set_has(m, s->service_set, x->ip, x->protocol, x->port)) &&
        miss(why, "the %s is no endpoint of %s", x->name, set_text(m, s->service_set))) {
        return true;
    }
    if (((s->n_ports || s->n_port_sets) && !has_port(s->ports, s->n_ports, x->port) &&
         !has_named(m, s->port_sets, s->n_port_sets, x->ip, x->protocol, x->port)) &&
        miss(why, "its %s ports are others", x->name)) {
        return true;
    }
    if ((has_port(s->not_ports, s->n_not_ports, x->port) ||
         has_named(m, s->not_port_sets, s->n_not_port_sets, x->ip, x->protocol, x->port)) &&
        miss(why, "its %s notPorts have the port", x->name)) {
        return true;
    }
    return false;
}

/* why NULL: the answer alone. */
static bool rule_misses(const struct mirror *m, const struct calc_rule *r, const struct packet *p,
                        struct misses *why) {
    unsigned family = p->src.family == IP_V4 ? CALC_V4 : CALC_V6;
    if (r->never && miss(why, "it can match nothing")) {
        return true;
    }
    if (!(r->families & family) && miss(why, "it is for IPv%u", family == CALC_V4 ? 6U : 4U)) {
        return true;
    }
    if ((r->protocol >= 0 && r->protocol != p->protocol) &&
        miss(why, "it is for protocol %d", r->protocol)) {
        return true;
    }
    if ((r->not_protocol >= 0 && r->not_protocol == p->protocol) &&
        miss(why, "it is not for protocol %d", r->not_protocol)) {
        return true;
    }
    if ((r->icmp_type >= 0 &&
         (r->icmp_type != p->icmp_type || (r->icmp_code >= 0 && r->icmp_code != p->icmp_code))) &&
        miss(why, "it is for ICMP type %d", r->icmp_type)) {
        return true;
    }
    bool is_icmp = p->protocol == (family == CALC_V4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
    if ((is_icmp && r->not_icmp_type >= 0 && r->not_icmp_type == p->icmp_type &&
         (r->not_icmp_code < 0 || r->not_icmp_code == p->icmp_code)) &&
        miss(why, "it is not for ICMP type %d", r->not_icmp_type)) {
        return true;
    }
    const struct end src = {"source", &p->src, p->protocol, p->sport};
    const struct end dst = {"destination", &p->dst, p->protocol, p->dport};
    return side_misses(m, &r->src, &src, why) || side_misses(m, &r->dst, &dst, why) ||
           (why && why->n);
}

/* The first rule that decides (Log does not); NULL: none. */
static const struct calc_rule *first_match(const struct mirror *m, const struct calc_policy *p,
                                           const struct packet *k, const struct verdict_walk *w) {
    struct misses why = {.text = BUF_INIT(1 << 16)};
    const struct calc_rule *found = NULL;
    if (p && w) {
        w->policy(w->arg, p);
    }
    for (size_t i = 0; p && i < p->n_rules && !found; i++) {
        buf_reset(&why.text);
        why.n = 0;
        bool is_miss = rule_misses(m, &p->rules[i], k, w ? &why : NULL);
        if (w) {
            w->rule(w->arg, &p->rules[i], is_miss ? buf_view(&why.text) : STR_NULL, why.n);
        }
        if (!is_miss && p->rules[i].action != RULE_LOG) {
            found = &p->rules[i];
        }
    }
    buf_fini(&why.text);
    return found;
}

static enum verdict walk(const struct mirror *m, const struct calc_chain *c, const struct packet *p,
                         struct verdict_why *why, const struct verdict_walk *w) {
    for (size_t t = 0; t < c->n_tiers; t++) {
        const struct calc_rule *r = NULL;
        const struct calc_policy *pol = NULL;
        for (size_t i = 0; i < c->tiers[t].n_policies && !r; i++) {
            pol = id_mpol_get(&m->policies, c->tiers[t].policies[i]);
            r = first_match(m, pol, p, w);
        }
        if (r && r->action != RULE_PASS) {
            *why = (struct verdict_why){WHY_RULE, pol, r, STR_NULL};
            return r->action == RULE_ALLOW ? VERDICT_ALLOW : VERDICT_DENY;
        }
        if (!r && !c->tiers[t].default_pass) {
            *why = (struct verdict_why){WHY_END_OF_TIER, NULL, NULL, c->tiers[t].name};
            return VERDICT_DENY;
        }
    }
    for (size_t i = 0; i < c->n_profiles; i++) {
        const struct calc_policy *pol = id_mpol_get(&m->policies, c->profiles[i]);
        const struct calc_rule *r = first_match(m, pol, p, w);
        if (r && r->action != RULE_PASS) {
            *why = (struct verdict_why){WHY_RULE, pol, r, STR_NULL};
            return r->action == RULE_ALLOW ? VERDICT_ALLOW : VERDICT_DENY;
        }
    }
    *why = (struct verdict_why){WHY_NO_PROFILE, NULL, NULL, STR_NULL};
    return VERDICT_DENY;
}

/* Whose policies judge the packet in this direction. */
static const struct mep *find_endpoint(const struct mirror *m, enum calc_dir dir,
                                       const struct packet *p) {
    const struct ip46 *own = dir == CALC_INGRESS ? &p->dst : &p->src;
    struct mep **e;
    for (size_t i = 0; id_mep_next(&m->endpoints, &i, NULL, &e);) {
        if (has_net((*e)->e.nets, (*e)->e.n_nets, own)) {
            return *e;
        }
    }
    return NULL;
}

enum verdict verdict_explain(const struct mirror *m, enum calc_dir dir, const struct packet *p,
                             struct verdict_why *why, const struct verdict_walk *w) {
    const struct mep *e = find_endpoint(m, dir, p);
    if (e) {
        return walk(m, dir == CALC_INGRESS ? &e->e.ingress : &e->e.egress, p, why, w);
    }
    *why = (struct verdict_why){WHY_NOT_AN_ENDPOINT, NULL, NULL, STR_NULL};
    return VERDICT_ALLOW;
}

bool verdict_staged(const struct mirror *m, enum calc_dir dir, const struct packet *p,
                    enum verdict *out, struct verdict_why *why) {
    const struct mep *e = find_endpoint(m, dir, p);
    if (!e || !e->e.staged) {
        return false;
    }
    *out = walk(m, &e->e.staged[dir], p, why, NULL);
    return true;
}

enum verdict verdict_of(const struct mirror *m, enum calc_dir dir, const struct packet *p,
                        struct verdict_why *why) {
    return verdict_explain(m, dir, p, why, NULL);
}

enum verdict verdict_both(const struct mirror *m, const struct packet *p) {
    struct verdict_why why;
    if (verdict_of(m, CALC_EGRESS, p, &why) == VERDICT_DENY) {
        return VERDICT_DENY;
    }
    return verdict_of(m, CALC_INGRESS, p, &why);
}

const struct calc_endpoint *mirror_endpoint(const struct mirror *m, struct str ns,
                                            struct str name) {
    struct mep **e;
    for (size_t i = 0; id_mep_next(&m->endpoints, &i, NULL, &e);) {
        if (!(*e)->e.host && str_eq((*e)->e.ns, ns) && str_eq((*e)->e.name, name)) {
            return &(*e)->e;
        }
    }
    return NULL;
}

const struct calc_policy *mirror_policy(const struct mirror *m, uint32_t id) {
    return id_mpol_get(&m->policies, id);
}

const char *mirror_set_text(const struct mirror *m, uint32_t id, size_t *n_members) {
    struct mset **s = id_mset_get(&m->sets, id);
    *n_members = s ? (*s)->members.n : 0;
    return set_text(m, id);
}

/* ---- text ---- */

static void print_set_ref(const struct mirror *m, struct buf *b, const char *what, uint32_t id) {
    if (id) {
        struct mset **s = id_mset_get(&m->sets, id);
        buf_printf(b, " %s=%s", what, s ? (*s)->uid : "MISSING");
    }
}

static void print_side(const struct mirror *m, struct buf *b, const char *name,
                       const struct calc_side *s) {
    char text[IP_TEXT_MAX];
    buf_printf(b, " %s{", name);
    for (size_t i = 0; i < s->n_nets; i++) {
        buf_printf(b, " %s", prefix_text(&s->nets[i], text));
    }
    for (size_t i = 0; i < s->n_not_nets; i++) {
        buf_printf(b, " !%s", prefix_text(&s->not_nets[i], text));
    }
    print_set_ref(m, b, "set", s->set);
    print_set_ref(m, b, "not", s->not_set);
    print_set_ref(m, b, "service", s->service_set);
    for (size_t i = 0; i < s->n_ports; i++) {
        buf_printf(b, " port=%u-%u", s->ports[i].min, s->ports[i].max);
    }
    for (size_t i = 0; i < s->n_not_ports; i++) {
        buf_printf(b, " !port=%u-%u", s->not_ports[i].min, s->not_ports[i].max);
    }
    for (size_t i = 0; i < s->n_port_sets; i++) {
        print_set_ref(m, b, "ports", s->port_sets[i]);
    }
    for (size_t i = 0; i < s->n_not_port_sets; i++) {
        print_set_ref(m, b, "!ports", s->not_port_sets[i]);
    }
    buf_puts(b, " }");
}

static void print_policy(const struct mirror *m, struct buf *b, const struct calc_policy *p) {
    buf_printf(b, "policy %s %.*s %.*s %.*s/%.*s:", p->dir == CALC_INGRESS ? "in" : "out",
               STR_FMT(p->kind), STR_FMT(p->tier), STR_FMT(p->ns), STR_FMT(p->name));
    for (size_t i = 0; i < p->n_rules; i++) {
        const struct calc_rule *r = &p->rules[i];
        buf_printf(b, " [%d f%u p%d !p%d i%d/%d !i%d/%d%s", (int)r->action, r->families,
                   r->protocol, r->not_protocol, r->icmp_type, r->icmp_code, r->not_icmp_type,
                   r->not_icmp_code, r->never ? " never" : "");
        print_side(m, b, "src", &r->src);
        print_side(m, b, "dst", &r->dst);
        buf_putc(b, ']');
    }
}

static void print_ids(const struct mirror *m, struct buf *b, const uint32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct calc_policy *p = id_mpol_get(&m->policies, ids[i]);
        if (p) {
            buf_printf(b, " %.*s:%.*s/%.*s", STR_FMT(p->kind), STR_FMT(p->ns), STR_FMT(p->name));
        } else {
            buf_puts(b, " MISSING");
        }
    }
}

static void print_chain(const struct mirror *m, struct buf *b, const struct calc_chain *c) {
    for (size_t i = 0; i < c->n_tiers; i++) {
        buf_printf(b, " tier %.*s%s:", STR_FMT(c->tiers[i].name),
                   c->tiers[i].default_pass ? " pass" : "");
        print_ids(m, b, c->tiers[i].policies, c->tiers[i].n_policies);
    }
    buf_puts(b, " profiles:");
    print_ids(m, b, c->profiles, c->n_profiles);
}

static void print_endpoint(const struct mirror *m, struct buf *b, const struct calc_endpoint *e) {
    char text[IP_TEXT_MAX];
    buf_printf(b, "endpoint %.*s %.*s/%.*s", STR_FMT(e->iface), STR_FMT(e->ns), STR_FMT(e->name));
    for (size_t i = 0; i < e->n_nets; i++) {
        buf_printf(b, " %s", prefix_text(&e->nets[i], text));
    }
    buf_puts(b, " in");
    print_chain(m, b, &e->ingress);
    buf_puts(b, " out");
    print_chain(m, b, &e->egress);
    for (int d = 0; d < 2; d++) {
        if (e->staged) {
            buf_puts(b, d == CALC_INGRESS ? " staged in" : " staged out");
            print_chain(m, b, &e->staged[d]);
        }
        if (e->host) {
            buf_puts(b, d == CALC_INGRESS ? " forward in" : " forward out");
            print_chain(m, b, &e->host->forward[d]);
            buf_puts(b, " untracked");
            print_chain(m, b, &e->host->untracked[d]);
        }
    }
    if (e->host) {
        buf_puts(b, " preDNAT");
        print_chain(m, b, &e->host->pre_dnat);
    }
}

static void print_set(struct buf *b, const struct mset *s) {
    buf_printf(b, "set %s", s->uid);
    VEC(struct str) lines = {0};
    struct arena a = {0};
    struct calc_member k;
    for (size_t i = 0; member_map_next(&s->members, &i, &k, NULL);) {
        char text[IP_TEXT_MAX];
        vec_push(&lines,
                 arena_printf(&a, "%s,%u,%u", prefix_text(&k.net, text), k.protocol, k.port));
    }
    vec_sort(&lines, str_cmp_qsort);
    for (size_t i = 0; i < lines.n; i++) {
        buf_printf(b, " %.*s", STR_FMT(lines.p[i]));
    }
    vec_fini(&lines);
    arena_fini(&a);
}

void mirror_print(const struct mirror *m, struct buf *out) {
    VEC(struct str) lines = {0};
    struct arena a = {0};
    struct buf b = BUF_INIT(64U << 20);
    struct mset **s;
    for (size_t i = 0; id_mset_next(&m->sets, &i, NULL, &s);) {
        buf_reset(&b);
        print_set(&b, *s);
        vec_push(&lines, arena_dup(&a, buf_view(&b)));
    }
    struct calc_policy *p;
    for (size_t i = 0; id_mpol_next(&m->policies, &i, NULL, &p);) {
        buf_reset(&b);
        print_policy(m, &b, p);
        vec_push(&lines, arena_dup(&a, buf_view(&b)));
    }
    struct mep **e;
    for (size_t i = 0; id_mep_next(&m->endpoints, &i, NULL, &e);) {
        buf_reset(&b);
        print_endpoint(m, &b, &(*e)->e);
        vec_push(&lines, arena_dup(&a, buf_view(&b)));
    }
    vec_sort(&lines, str_cmp_qsort);
    for (size_t i = 0; i < lines.n; i++) {
        buf_str(out, lines.p[i]);
        buf_putc(out, '\n');
    }
    vec_fini(&lines);
    arena_fini(&a);
    buf_fini(&b);
}
