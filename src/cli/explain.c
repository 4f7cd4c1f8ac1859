/* explain: would a connection be let through, and which rule decides? Answered by the calculation
 * that programs the kernel, over what the store (or files) hold; no agent is asked, no packet sent.
 */
#include "cli/world.h"

#include "base/vec.h"
#include "policy/describe.h"

#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_ALLOWED, EXIT_DENIED, EXIT_UNKNOWN };

/* One end of the connection. */
struct end {
    const char *word; /* as asked for */
    const struct world_pod *pod;
    struct world_pod addr; /* of an address that is no pod's */
};

/* One policy or rule on the way. */
struct step {
    char *text;
    unsigned misses;   /* of a rule; 0: it matched, or is no rule */
    bool is_candidate; /* could have allowed it */
};

/* What one direction says. */
struct side {
    enum verdict verdict, staged;
    bool is_asked, has_staged;
    bool is_vxlan; /* what is in the packet would pass by all policies */
    struct verdict_why why, staged_why;
    VEC(struct step) steps;
};

static int parse_end(const struct world *w, const char *word, struct end *out) {
    struct ip46 ip;
    struct str name = str_c(word);
    *out = (struct end){.word = word};
    if (ip_parse(name, &ip) == 0) {
        size_t f = ip.family == IP_V6;
        out->pod = world_by_ip(w, &ip);
        out->addr.ips[f] = ip;
        out->addr.has_ip[f] = true;
        return 0;
    }
    ptrdiff_t slash = str_find(name, '/', 0);
    struct str ns = slash > 0 ? str_sub(name, 0, (size_t)slash) : STR("default");
    name = slash > 0 ? str_sub(name, (size_t)slash + 1, name.n) : name;
    if (slash == 0 || name.n == 0 || str_find(name, '/', 0) >= 0) {
        return cli_usage("explain", "found \"%s\", allowed is NAMESPACE/POD or an address", word);
    }
    out->pod = world_find(w, ns, name);
    if (!out->pod || !(out->pod->has_ip[0] || out->pod->has_ip[1])) {
        return cli_error("pod %.*s/%.*s %s: margay get pods,workloadendpoints -A", STR_FMT(ns),
                         STR_FMT(name), out->pod ? "has no address yet" : "is not there");
    }
    return 0;
}

/* ---- steps ---- */

static void on_policy(void *arg, const struct calc_policy *p) {
    struct side *s = arg;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    buf_printf(&b, "     %.*s ", STR_FMT(p->kind));
    if (p->tier.n) {
        buf_printf(&b, "%.*s ", STR_FMT(p->tier));
    }
    buf_printf(&b, "%.*s%s%.*s%s", STR_FMT(p->ns), p->ns.n ? "/" : "", STR_FMT(p->name),
               p->n_rules ? "" : "  no rules");
    struct step x = {.text = strdup(buf_cstr(&b))};
    vec_push(&s->steps, x);
}

static void on_rule(void *arg, const struct calc_rule *r, struct str misses, unsigned n) {
    static const char *const actions[] = {
        [RULE_ALLOW] = "Allow", [RULE_DENY] = "Deny", [RULE_PASS] = "Pass", [RULE_LOG] = "Log"};
    struct side *s = arg;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 17);
    buf_printf(&b, "       #%u %-5s ", r->index, actions[r->action]);
    if (misses.p) {
        buf_puts(&b, "no: ");
        buf_str(&b, misses);
    } else {
        buf_puts(&b, "matches");
    }
    struct step x = {strdup(buf_cstr(&b)), n, r->action == RULE_ALLOW && !r->never && n > 0};
    vec_push(&s->steps, x);
}

static void judge(const struct world *w, enum calc_dir dir, const struct end *e,
                  const struct packet *p, struct side *out) {
    const struct verdict_walk steps = {on_policy, on_rule, out};
    *out = (struct side){.verdict = VERDICT_ALLOW, .is_asked = e->pod != NULL};
    if (out->is_asked) {
        out->verdict = verdict_explain(w->mirror, dir, p, &out->why, &steps);
        out->has_staged = verdict_staged(w->mirror, dir, p, &out->staged, &out->staged_why);
        out->is_vxlan = dir == CALC_EGRESS && !w->may_pods_send_vxlan && !e->pod->is_host_network &&
                        p->protocol == IPPROTO_UDP && p->dport == w->vxlan_port;
        out->verdict = out->is_vxlan ? VERDICT_DENY : out->verdict;
    }
}

static void side_fini(struct side *s) {
    for (size_t i = 0; i < s->steps.n; i++) {
        free(s->steps.p[i].text);
    }
    vec_fini(&s->steps);
}

/* ---- text ---- */

static void put_why(struct buf *b, const struct verdict_why *why) {
    switch (why->what) {
    case WHY_RULE:
        calc_rule_name(why->policy, why->rule->index, b);
        break;
    case WHY_END_OF_TIER:
        buf_printf(b, "end of tier %.*s: none of its policies' rules matched", STR_FMT(why->tier));
        break;
    case WHY_NO_PROFILE:
        buf_puts(b, "no profile allows it: does the namespace exist?");
        break;
    case WHY_NOT_AN_ENDPOINT:
        buf_puts(b, "no policy: it has no network of its own, or has ended");
        break;
    }
}

static void put_side_why(struct buf *b, const struct side *s) {
    if (s->is_vxlan) {
        buf_puts(b, "FelixConfiguration default: allowVXLANPacketsFromWorkloads is not true");
    } else {
        put_why(b, &s->why);
    }
}

static const char *verdict_word(enum verdict v) {
    return v == VERDICT_ALLOW ? "ALLOW" : "DENY";
}

/* The rule that missed by least, of those that could have allowed it. */
static const struct step *nearest(const struct side *s) {
    const struct step *best = NULL;
    for (size_t i = 0; i < s->steps.n; i++) {
        const struct step *x = &s->steps.p[i];
        if (x->is_candidate && (!best || x->misses < best->misses)) {
            best = x;
        }
    }
    return best;
}

/* What this node's kernel has counted of the deciding rule; silent without an agent. */
static void show_kernel(const struct jnode *counters, enum calc_dir dir,
                        const struct verdict_why *why) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    if (why->what != WHY_RULE) {
        return;
    }
    put_why(&b, why);
    jnode_each (r, jnode_getc(counters, "rules")) {
        const struct jnode *n = jnode_getc(r, "packets");
        if (n && str_eq(jnode_str(jnode_getc(r, "name")), buf_view(&b)) &&
            str_is(jnode_str(jnode_getc(r, "direction")),
                   dir == CALC_INGRESS ? "ingress" : "egress")) {
            printf("     kernel of this node: %.*s packets have matched that rule\n",
                   STR_FMT(n->s));
        }
    }
}

static void show_side(enum calc_dir dir, const struct end *e, const struct side *s,
                      const struct jnode *counters) {
    const char *title = dir == CALC_EGRESS ? "1 egress  of" : "2 ingress of";
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    if (!s->is_asked) {
        printf(" %s %s  no pod, no policy\n", title, e->word);
        return;
    }
    put_side_why(&b, s);
    printf(" %s %.*s/%.*s on %.*s  %s  %.*s\n", title, STR_FMT(e->pod->ns), STR_FMT(e->pod->name),
           STR_FMT(e->pod->node.n ? e->pod->node : STR("-")), verdict_word(s->verdict),
           STR_FMT(buf_view(&b)));
    const struct step *best = s->verdict == VERDICT_DENY && !s->is_vxlan ? nearest(s) : NULL;
    for (size_t i = 0; i < s->steps.n; i++) {
        printf("%s%s\n", s->steps.p[i].text, &s->steps.p[i] == best ? "   <- nearest miss" : "");
    }
    show_kernel(counters, dir, &s->why);
    if (e->pod->is_host_network) {
        puts("     it uses the host's network: policies that select pods don't select it");
    }
    if (s->has_staged) {
        buf_reset(&b);
        put_why(&b, &s->staged_why);
        printf("     with staged policies enforced: %s  %.*s\n", verdict_word(s->staged),
               STR_FMT(buf_view(&b)));
    }
}

/* A rule that would let it through, as it stands in a Kubernetes NetworkPolicy. */
static void show_fix(enum calc_dir dir, const struct side *s, const struct end *self,
                     const struct end *peer, const struct packet *p) {
    const struct ip46 *ip = dir == CALC_INGRESS ? &p->src : &p->dst;
    if (s->is_vxlan) {
        puts(" fix     if its packets may pass by all policies: set that to true");
        return;
    }
    if (s->why.what == WHY_RULE) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
        put_why(&b, &s->why);
        printf(
            " fix     %.*s denies it: narrow that rule, or allow it in a policy of lower order\n",
            STR_FMT(buf_view(&b)));
        return;
    }
    if (s->why.what != WHY_END_OF_TIER) {
        return;
    }
    printf(" fix     in a NetworkPolicy of namespace %.*s that selects %.*s, add to %s:\n          "
           " - %s: [",
           STR_FMT(self->pod->ns), STR_FMT(self->pod->name),
           dir == CALC_INGRESS ? "ingress" : "egress", dir == CALC_INGRESS ? "from" : "to");
    if (peer->pod) {
        printf("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %.*s}}, "
               "podSelector: {matchLabels: {",
               STR_FMT(peer->pod->ns));
        for (size_t i = 0; i < peer->pod->labels.n; i++) {
            printf("%s%.*s: %.*s", i ? ", " : "", STR_FMT(peer->pod->labels.p[i].key),
                   STR_FMT(peer->pod->labels.p[i].value));
        }
        printf("}}}]\n");
    } else {
        char text[IP_TEXT_MAX];
        printf("{ipBlock: {cidr: %s/%u}}]\n", ip_text(ip, text), (unsigned)ip_bits(ip));
    }
    const char *protocol = p->protocol == IPPROTO_TCP    ? "TCP"
                           : p->protocol == IPPROTO_UDP  ? "UDP"
                           : p->protocol == IPPROTO_SCTP ? "SCTP"
                                                         : NULL;
    if (protocol) {
        printf("             ports: [{protocol: %s, port: %u}]\n", protocol, p->dport);
    }
}

/* ---- JSON ---- */

static void put_side(struct buf *b, const char *name, const struct side *s) {
    MG_CLEANUP(buf_fini) struct buf t = BUF_INIT(4096);
    buf_printf(b, ",\"%s\":{\"verdict\":\"%s\"", name, verdict_word(s->verdict));
    if (s->is_asked) {
        put_side_why(&t, s);
        buf_puts(b, ",\"by\":");
        json_quote(b, buf_view(&t));
    }
    if (s->has_staged) {
        buf_reset(&t);
        put_why(&t, &s->staged_why);
        buf_printf(b, ",\"staged\":{\"verdict\":\"%s\",\"by\":", verdict_word(s->staged));
        json_quote(b, buf_view(&t));
        buf_putc(b, '}');
    }
    buf_puts(b, ",\"steps\":[");
    for (size_t i = 0; i < s->steps.n; i++) {
        buf_puts(b, i ? "," : "");
        json_quote(b, str_trim(str_c(s->steps.p[i].text)));
    }
    buf_puts(b, "]}");
}

static int show_json(const struct cli_output *o, bool is_allowed, const struct packet *p,
                     const struct side *out, const struct side *in) {
    char src[IP_TEXT_MAX], dst[IP_TEXT_MAX];
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(16 << 20);
    buf_printf(&b,
               "{\"allowed\":%s,\"source\":\"%s\",\"destination\":\"%s\",\"protocol\":%u,"
               "\"port\":%u",
               is_allowed ? "true" : "false", ip_text(&p->src, src), ip_text(&p->dst, dst),
               p->protocol, p->dport);
    put_side(&b, "egress", out);
    put_side(&b, "ingress", in);
    buf_putc(&b, '}');
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err e;
    int r = json_parse(buf_view(&b), &json_limits_default, &a, &doc, &e);
    mg_assert(r == 0);
    r = cli_print_tree(o, "explain", doc);
    arena_fini(&a);
    return r < 0 ? cli_usage("explain", "-o: allowed are json, yaml and jsonpath=…") : r;
}

/* ---- the answer ---- */

static void put_end(const struct end *e, const struct ip46 *ip) {
    char text[IP_TEXT_MAX];
    if (e->pod) {
        printf("%.*s/%.*s (%s)", STR_FMT(e->pod->ns), STR_FMT(e->pod->name), ip_text(ip, text));
    } else {
        printf("%s", ip_text(ip, text));
    }
}

static int answer(const struct world *w, const struct end *src, const struct end *dst,
                  struct packet *p, const char *traffic, bool has_agent,
                  const struct cli_output *o) {
    const struct world_pod *from =
        src->addr.has_ip[0] || src->addr.has_ip[1] ? &src->addr : src->pod;
    const struct world_pod *to = dst->addr.has_ip[0] || dst->addr.has_ip[1] ? &dst->addr : dst->pod;
    if (!world_ends(from, to, p)) {
        (void)cli_error("%s and %s have no addresses of the same family", src->word, dst->word);
        return EXIT_UNKNOWN;
    }
    struct side out = {.verdict = VERDICT_ALLOW}, in = out;
    judge(w, CALC_EGRESS, src, p, &out);
    judge(w, CALC_INGRESS, dst, p, &in);
    bool is_own = ip_eq(&p->src, &p->dst); /* a pod reaches itself */
    bool is_allowed = is_own || (out.verdict == VERDICT_ALLOW && in.verdict == VERDICT_ALLOW);
    int rc = is_allowed ? EXIT_ALLOWED : EXIT_DENIED;
    if (o->format != OUT_TABLE) {
        rc = show_json(o, is_allowed, p, &out, &in) ? EXIT_UNKNOWN : rc;
    } else {
        printf("%s  ", is_allowed ? "ALLOWED" : "DENIED");
        put_end(src, &p->src);
        printf(" -> ");
        put_end(dst, &p->dst);
        printf(" %s   %s\n", traffic,
               is_own       ? "a pod reaches itself"
               : is_allowed ? "replies pass: the connection is tracked"
                            : "");
        struct arena a = {0};
        struct jnode *counters = NULL;
        if (has_agent) {
            (void)!cli_ask(STR("{\"op\":\"counters\"}"), 10, &a, &counters, NULL);
        }
        show_side(CALC_EGRESS, src, &out, counters);
        show_side(CALC_INGRESS, dst, &in, counters);
        arena_fini(&a);
        if (!is_allowed && out.verdict == VERDICT_DENY) {
            show_fix(CALC_EGRESS, &out, src, dst, p);
        }
        if (!is_allowed && in.verdict == VERDICT_DENY) {
            show_fix(CALC_INGRESS, &in, dst, src, p);
        }
    }
    side_fini(&out);
    side_fini(&in);
    return rc;
}

int cmd_explain(int argc, char **argv) {
    static const struct option longs[] = {{"filename", required_argument, NULL, 'f'},
                                          {"output", required_argument, NULL, 'o'},
                                          {NULL, 0, NULL, 0}};
    struct cli_output out = {.format = OUT_TABLE};
    VEC(char *) files = {0};
    for (int i = 1; i < argc; i++) { /* the arrow is no option */
        if (strcmp(argv[i], "->") == 0) {
            memmove(&argv[i], &argv[i + 1], (size_t)(argc - i) * sizeof(*argv));
            argc--;
            break;
        }
    }
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "f:o:", longs, NULL)) != -1;) {
        if (c == 'f') {
            vec_push(&files, optarg);
        } else if (c != 'o' || !cli_output_parse(optarg, "explain", &out)) {
            vec_fini(&files);
            return c == 'o' ? 2 : cli_usage("explain", "wrong option");
        }
    }
    argc -= optind;
    argv += optind;
    int rc = EXIT_UNKNOWN;
    struct packet p;
    struct end src, dst;
    if (argc != 3) {
        (void)cli_usage("explain", "expected: SRC -> DST PROTOCOL/PORT");
    } else if (!world_traffic(argv[2], &p)) {
        (void)cli_usage("explain", "found \"%s\", allowed is tcp/PORT, udp/PORT, sctp/PORT or icmp",
                        argv[2]);
    } else {
        struct world *w = world_open(files.p, files.n);
        if (w && parse_end(w, argv[0], &src) == 0 && parse_end(w, argv[1], &dst) == 0) {
            rc = answer(w, &src, &dst, &p, argv[2], files.n == 0, &out);
        }
        world_free(w);
    }
    vec_fini(&files);
    return rc;
}
