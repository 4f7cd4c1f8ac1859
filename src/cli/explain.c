/* explain: would a connection be let through, and which rule decides? Answered by the calculation
 * that programs the kernel, over what the store has now; no agent is asked, no packet sent. */
#include "cli/cli.h"

#include "base/vec.h"
#include "policy/verdict.h"

#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_ALLOWED, EXIT_DENIED, EXIT_UNKNOWN };

/* One end of the connection. */
struct end {
    const char *word; /* as asked for */
    struct ip46 ips[2];
    bool has_ip[2]; /* IPv4, IPv6 */
    struct str node;
    bool is_pod, is_found;
    struct str ns, name; /* of the pod */
};

struct explaining {
    struct store *s;
    struct arena a;
    struct end src, dst;
    struct packet packet;
    struct calc *calc;
};

/* ---- who ---- */

static void add_ip(struct end *x, const struct ip46 *ip) {
    size_t f = ip->family == IP_V6;
    if (!x->has_ip[f]) {
        x->ips[f] = *ip;
        x->has_ip[f] = true;
    }
}

static int parse_end(const char *word, struct end *out) {
    *out = (struct end){.word = word};
    struct ip46 ip;
    struct str name = str_c(word);
    if (ip_parse(name, &ip) == 0) {
        add_ip(out, &ip);
        return 0;
    }
    ptrdiff_t slash = str_find(name, '/', 0);
    out->is_pod = true;
    out->ns = slash > 0 ? str_sub(name, 0, (size_t)slash) : STR("default");
    out->name = slash > 0 ? str_sub(name, (size_t)slash + 1, name.n) : name;
    if (slash == 0 || out->name.n == 0 || str_find(out->name, '/', 0) >= 0) {
        return cli_usage("explain", "found \"%s\", allowed is NAMESPACE/POD or an address", word);
    }
    return 0;
}

static struct str text_at(const struct jnode *doc, const char *path) {
    const struct jnode *n = jnode_path(doc, path);
    return n && n->type == J_STR ? n->s : STR_NULL;
}

static bool has_own_ip(const struct end *x, const struct jnode *nets) {
    jnode_each (n, nets) {
        struct prefix p;
        size_t f = 0;
        if (prefix_parse(jnode_str(n), &p) == 0) {
            f = p.ip.family == IP_V6;
            if (x->has_ip[f] && ip_eq(&x->ips[f], &p.ip)) {
                return true;
            }
        }
    }
    return false;
}

/* What an endpoint's document says of an end: by the pod's name, or by address. */
static void match_endpoint(struct explaining *x, struct end *e, struct str ns,
                           const struct jnode *doc) {
    const struct jnode *nets = jnode_path(doc, "spec.ipNetworks");
    struct str pod = text_at(doc, "spec.pod");
    bool is_it = e->is_pod ? str_eq(ns, e->ns) && str_eq(pod, e->name) : has_own_ip(e, nets);
    if (!is_it || e->is_found) {
        return;
    }
    e->is_found = true;
    e->node = arena_dup(&x->a, text_at(doc, "spec.node"));
    if (!e->is_pod) { /* asked for by this address: its others don't count */
        e->ns = arena_dup(&x->a, ns);
        e->name = arena_dup(&x->a, pod);
        return;
    }
    jnode_each (n, nets) {
        struct prefix p;
        if (prefix_parse(jnode_str(n), &p) == 0) {
            add_ip(e, &p.ip);
        }
    }
}

/* An item of the store, in the arena; NULL if it is none that this version knows. */
static struct jnode *read_item(const struct store_item *it, struct arena *a, const struct kind **k,
                               struct str *ns, struct str *name) {
    struct jnode *doc = NULL;
    bool is_known = kind_split_key(it->key, k, ns, name) == 0 &&
                    json_parse(it->value, &json_limits_default, a, &doc, NULL) == 0;
    return is_known ? doc : NULL;
}

static int on_endpoint(void *arg, const struct store_item *it) {
    struct explaining *x = arg;
    const struct kind *k = NULL;
    struct str ns, name;
    struct arena a = {0};
    const struct jnode *doc = read_item(it, &a, &k, &ns, &name);
    if (doc && k->id == K_WORKLOAD_ENDPOINT) {
        match_endpoint(x, &x->src, ns, doc);
        match_endpoint(x, &x->dst, ns, doc);
    }
    arena_fini(&a);
    return 0;
}

/* ---- what ---- */

static int parse_traffic(struct explaining *x, const char *word) {
    static const struct {
        const char *name;
        uint8_t number;
        bool has_port;
    } protocols[] = {{"tcp", IPPROTO_TCP, true},
                     {"udp", IPPROTO_UDP, true},
                     {"sctp", IPPROTO_SCTP, true},
                     {"icmp", IPPROTO_ICMP, false}};
    struct str port = str_c(word), name = str_cut(&port, '/');
    for (size_t i = 0; i < ARRAY_LEN(protocols); i++) {
        uint64_t n = 0;
        if (!str_ieq(name, str_c(protocols[i].name))) {
            continue;
        }
        if (protocols[i].has_port != (port.p != NULL) ||
            (port.p && (str_to_u64(port, &n) < 0 || n == 0 || n > 65535))) {
            break;
        }
        x->packet.protocol = protocols[i].number;
        x->packet.dport = (uint16_t)n;
        x->packet.sport = protocols[i].has_port ? 40000 : 0;
        return 0;
    }
    return cli_usage("explain", "found \"%s\", allowed is tcp/PORT, udp/PORT, sctp/PORT or icmp",
                     word);
}

/* Both ends' addresses of one family, IPv4 first. */
static int choose_addresses(struct explaining *x) {
    for (size_t f = 0; f < 2; f++) {
        if (x->src.has_ip[f] && x->dst.has_ip[f]) {
            x->packet.src = x->src.ips[f];
            x->packet.dst = x->dst.ips[f];
            if (x->packet.protocol == IPPROTO_ICMP) { /* an echo request */
                x->packet.protocol = f ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
                x->packet.icmp_type = f ? 128 : 8;
            }
            return 0;
        }
    }
    return cli_error("%s and %s have no addresses of the same family", x->src.word, x->dst.word);
}

/* ---- the calculation ---- */

static int on_object(void *arg, const struct store_item *it) {
    struct explaining *x = arg;
    const struct kind *k = NULL;
    struct str ns, name;
    struct arena a = {0};
    struct object o;
    struct model_errors errs = {.a = &a};
    struct jnode *doc = read_item(it, &a, &k, &ns, &name);
    if (doc) {
        (void)!object_read(doc, MODEL_STORE, ns, &a, &o, &errs);
        if (o.kind == k) {
            calc_object(x->calc, k, ns, name, &o);
        }
    }
    arena_fini(&a);
    return 0;
}

static void mirror_drop(struct explaining *x, struct mirror *m) {
    mirror_free(m);
    calc_free(x->calc);
    x->calc = NULL;
}

/* What the agent of that node enforces. It lives with x->calc, whose texts and rules it names. */
static struct mirror *mirror_of(struct explaining *x, struct str node, struct err *e) {
    struct mirror *m = mirror_new();
    x->calc = calc_new(node, &mirror_calc_ops, m);
    int r = store_list(x->s, (struct store_key){STR(STORE_SPACE_RESOURCES), STR("")}, NULL,
                       on_object, x, e);
    calc_flush(x->calc);
    if (r < 0) {
        mirror_drop(x, m);
        return NULL;
    }
    return m;
}

/* ---- the answer ---- */

static void print_policy_name(const struct calc_policy *p) {
    printf("%.*s ", STR_FMT(p->kind));
    if (p->tier.n) {
        printf("%.*s ", STR_FMT(p->tier));
    }
    if (p->ns.n) {
        printf("%.*s/", STR_FMT(p->ns));
    }
    printf("%.*s", STR_FMT(p->name));
}

static void on_policy(void *arg, const struct calc_policy *p) {
    (void)arg;
    printf("      ");
    print_policy_name(p);
    puts(p->n_rules ? "" : "  (no rules)");
}

static void on_rule(void *arg, const struct calc_rule *r, struct str why_not) {
    static const char *const actions[] = {
        [RULE_ALLOW] = "Allow", [RULE_DENY] = "Deny", [RULE_PASS] = "Pass", [RULE_LOG] = "Log"};
    (void)arg;
    printf("        #%u %-5s ", r->index, actions[r->action]);
    if (why_not.p) {
        printf("no: %.*s\n", STR_FMT(why_not));
    } else {
        puts("matches");
    }
}

static const char *verdict_text(enum verdict v) {
    return v == VERDICT_ALLOW ? "ALLOW" : "DENY ";
}

/* One direction at one pod; the steps that led there below it. */
static int show_side(struct explaining *x, enum calc_dir dir, const struct end *e,
                     enum verdict *out) {
    static const struct verdict_walk steps = {on_policy, on_rule, NULL};
    const char *title = dir == CALC_EGRESS ? "egress  of" : "ingress of";
    struct verdict_why why;
    struct err err;
    *out = VERDICT_ALLOW;
    if (!e->is_found) {
        printf("  %s %s: no pod, no policy\n", title, e->word);
        return 0;
    }
    struct mirror *m = mirror_of(x, e->node, &err);
    if (!m) {
        return cli_error("%s", err.msg);
    }
    *out = verdict_of(m, dir, &x->packet, &why);
    printf("  %s %.*s/%.*s on %.*s: %s  ", title, STR_FMT(e->ns), STR_FMT(e->name),
           STR_FMT(e->node), verdict_text(*out));
    switch (why.what) {
    case WHY_RULE:
        print_policy_name(why.policy);
        printf("#%u\n", why.rule->index);
        break;
    case WHY_END_OF_TIER:
        printf("end of tier %.*s: none of its policies' rules matched\n", STR_FMT(why.tier));
        break;
    case WHY_NO_PROFILE:
        puts("no profile allows it");
        break;
    case WHY_NOT_AN_ENDPOINT:
        puts("no policy: it has no network of its own, or has ended");
        break;
    }
    (void)verdict_explain(m, dir, &x->packet, &why, &steps);
    mirror_drop(x, m);
    return 0;
}

static int answer(struct explaining *x) {
    struct err e;
    char src[IP_TEXT_MAX], dst[IP_TEXT_MAX];
    if (store_list(x->s, (struct store_key){STR(STORE_SPACE_RESOURCES), STR("WorkloadEndpoint")},
                   NULL, on_endpoint, x, &e) < 0) {
        (void)cli_error("%s", e.msg);
        return EXIT_UNKNOWN;
    }
    const struct end *ends[] = {&x->src, &x->dst};
    for (size_t i = 0; i < 2; i++) {
        if (ends[i]->is_pod && !ends[i]->is_found) {
            (void)cli_error("pod %.*s/%.*s has no endpoint: margay get workloadendpoints -A",
                            STR_FMT(ends[i]->ns), STR_FMT(ends[i]->name));
            return EXIT_UNKNOWN;
        }
    }
    if (choose_addresses(x)) {
        return EXIT_UNKNOWN;
    }
    printf("%s -> %s\n", ip_text(&x->packet.src, src), ip_text(&x->packet.dst, dst));
    enum verdict out, in;
    if (show_side(x, CALC_EGRESS, &x->src, &out) || show_side(x, CALC_INGRESS, &x->dst, &in)) {
        return EXIT_UNKNOWN;
    }
    bool is_allowed = (out == VERDICT_ALLOW && in == VERDICT_ALLOW) ||
                      ip_eq(&x->packet.src, &x->packet.dst); /* a pod reaches itself */
    puts(is_allowed ? "ALLOWED" : "DENIED");
    return is_allowed ? EXIT_ALLOWED : EXIT_DENIED;
}

int cmd_explain(int argc, char **argv) {
    bool has_arrow = argc == 5 && strcmp(argv[2], "->") == 0;
    struct explaining x = {0};
    struct err e;
    if (argc != 4 && !has_arrow) {
        return cli_usage("explain", "expected: SRC -> DST PROTOCOL/PORT");
    }
    if (parse_end(argv[1], &x.src) || parse_end(argv[argc - 2], &x.dst) ||
        parse_traffic(&x, argv[argc - 1])) {
        return EXIT_UNKNOWN;
    }
    if (cli_store(&x.s, &e) < 0) {
        (void)cli_error("%s", e.msg);
        return EXIT_UNKNOWN;
    }
    int rc = answer(&x);
    store_close(x.s);
    arena_fini(&x.a);
    return rc;
}
