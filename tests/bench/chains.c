/* Felix' shape (felix/rules/policy.go, endpoints.go, dispatch.go): a policy's Allow sets the accept
 * mark and returns, the endpoint's chain looks at the marks after each policy. */
#include "chains.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct chains {
    FILE *ipset, *iptables, *nft;
    /* nft's sets must be whole before the chains, iptables' chains declared before rules. */
    FILE *declared, *rules, *elements, *nft_chains, *dispatch, *nft_dispatch;
    struct chains_stats stats;
    bool is_set_open; /* nft's block of the newest set: its members may follow */
};

static FILE *create(const char *path) {
    FILE *f = path ? fopen(path, "w+") : tmpfile();
    if (!f) {
        perror(path ? path : "tmpfile");
        exit(1);
    }
    return f;
}

struct chains *chains_new(const char *ipset, const char *iptables, const char *nft) {
    struct chains *c = calloc(1, sizeof(*c));
    if (!c) {
        abort();
    }
    *c = (struct chains){.ipset = create(ipset),
                         .iptables = create(iptables),
                         .nft = create(nft),
                         .declared = create(NULL),
                         .rules = create(NULL),
                         .elements = create(NULL),
                         .nft_chains = create(NULL),
                         .dispatch = create(NULL),
                         .nft_dispatch = create(NULL)};
    return c;
}

static void append(FILE *to, FILE *from) {
    char block[1 << 16];
    size_t n;
    rewind(from);
    while ((n = fread(block, 1, sizeof(block), from)) > 0) {
        fwrite(block, 1, n, to);
    }
    fclose(from);
}

static void close_set(struct chains *c) {
    fputs(c->is_set_open ? " }\n" : "", c->elements);
    c->is_set_open = false;
}

void chains_free(struct chains *c) {
    close_set(c);
    fputs("*filter\n:FORWARD ACCEPT [0:0]\n:cali-from-wl - [0:0]\n:cali-to-wl - [0:0]\n",
          c->iptables);
    append(c->iptables, c->declared);
    fputs("-A FORWARD -i cali+ -j cali-from-wl\n-A FORWARD -o cali+ -j cali-to-wl\n", c->iptables);
    append(c->iptables, c->rules);
    append(c->iptables, c->dispatch);
    fputs("COMMIT\n", c->iptables);
    fputs("table ip calico {\n", c->nft);
    append(c->nft, c->elements);
    append(c->nft, c->nft_chains);
    fputs(" chain forward {\n  type filter hook forward priority 0\n", c->nft);
    append(c->nft, c->nft_dispatch);
    fputs(" }\n}\n", c->nft);
    fclose(c->ipset);
    fclose(c->iptables);
    fclose(c->nft);
    free(c);
}

struct chains_stats chains_stats(const struct chains *c) {
    return c->stats;
}

/* ---- sets ---- */

static void put_ip(FILE *f, const struct prefix *p) {
    fprintf(f, "%u.%u.%u.%u", p->ip.b[0], p->ip.b[1], p->ip.b[2], p->ip.b[3]);
    if (p->len < 32) {
        fprintf(f, "/%u", p->len);
    }
}

static void on_set(void *arg, const struct calc_set *s) {
    struct chains *c = arg;
    close_set(c);
    c->is_set_open = true;
    c->stats.sets++;
    fprintf(c->ipset, "create s%u hash:%s family inet maxelem 1048576\n", s->id,
            s->type == CALC_SET_ADDR ? "net" : "ip,port");
    fprintf(c->elements, " set s%u {\n  type %s\n", s->id,
            s->type == CALC_SET_ADDR ? "ipv4_addr" : "ipv4_addr . inet_proto . inet_service");
}

static void on_members(void *arg, uint32_t id, const struct calc_member *added, size_t n_added,
                       const struct calc_member *removed, size_t n_removed) {
    (void)removed, (void)n_removed;
    struct chains *c = arg;
    c->stats.members += n_added;
    for (size_t i = 0; i < n_added; i++) {
        const struct calc_member *m = &added[i];
        fprintf(c->ipset, "add s%u ", id);
        put_ip(c->ipset, &m->net);
        if (m->port) {
            fprintf(c->ipset, ",%s:%u", m->protocol == 17 ? "udp" : "tcp", m->port);
        }
        fputc('\n', c->ipset);
    }
    fputs("  elements = { ", c->elements);
    for (size_t i = 0; i < n_added; i++) {
        fputs(i ? ", " : "", c->elements);
        put_ip(c->elements, &added[i].net);
        if (added[i].port) {
            fprintf(c->elements, " . %s . %u", added[i].protocol == 17 ? "udp" : "tcp",
                    added[i].port);
        }
    }
    fputs(" }\n", c->elements);
}

static void on_gone(void *arg, uint32_t id) {
    (void)arg, (void)id; /* nothing goes in a full calculation */
}

/* ---- chains ---- */

static void chain_open(struct chains *c, const char *name) {
    c->stats.chains++;
    fprintf(c->declared, ":%s - [0:0]\n", name);
    fprintf(c->nft_chains, " chain %s {\n", name);
}

/* A rule in both languages. */
static void rule(struct chains *c, const char *chain, const char *iptables, const char *nft) {
    c->stats.rules++;
    fprintf(c->rules, "-A %s %s\n", chain, iptables);
    fprintf(c->nft_chains, "  %s\n", nft);
}

struct text {
    char p[1024];
    size_t n;
};
static void put(struct text *t, const char *format, ...) MG_PRINTF(2, 3);
static void put(struct text *t, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(t->p + t->n, sizeof(t->p) - t->n, format, ap);
    va_end(ap);
    if (n < 0 || t->n + (size_t)n >= sizeof(t->p)) {
        abort();
    }
    t->n += (size_t)n;
}

static void put_nets(struct text *ipt, struct text *nft, const struct calc_side *s, bool is_src) {
    /* The made-up cluster has at most one of each. */
    const struct prefix *nets[] = {s->n_nets ? s->nets : NULL, s->n_not_nets ? s->not_nets : NULL};
    for (int i = 0; i < 2; i++) {
        if (nets[i]) {
            const uint8_t *b = nets[i]->ip.b;
            put(ipt, "%s-%c %u.%u.%u.%u/%u ", i ? "! " : "", is_src ? 's' : 'd', b[0], b[1], b[2],
                b[3], nets[i]->len);
            put(nft, "ip %caddr %s%u.%u.%u.%u/%u ", is_src ? 's' : 'd', i ? "!= " : "", b[0], b[1],
                b[2], b[3], nets[i]->len);
        }
    }
    if (s->set) {
        put(ipt, "-m set --match-set s%u %s ", s->set, is_src ? "src" : "dst");
        put(nft, "ip %caddr @s%u ", is_src ? 's' : 'd', s->set);
    }
}

static void put_ports(struct text *ipt, struct text *nft, const struct calc_rule *r) {
    const char *protocol = r->protocol == 17 ? "udp" : "tcp";
    if (r->protocol < 0) {
        return;
    }
    put(ipt, "-p %s ", protocol);
    if (r->dst.n_ports == 0) {
        put(nft, "meta l4proto %s ", protocol);
        return;
    }
    put(ipt, "-m multiport --dports ");
    put(nft, "%s dport { ", protocol);
    for (size_t i = 0; i < r->dst.n_ports; i++) {
        const struct calc_ports *p = &r->dst.ports[i];
        put(ipt, p->min == p->max ? "%s%u" : "%s%u:%u", i ? "," : "", p->min, p->max);
        put(nft, p->min == p->max ? "%s%u" : "%s%u-%u", i ? ", " : "", p->min, p->max);
    }
    put(ipt, " ");
    put(nft, " } ");
}

static void on_policy(void *arg, const struct calc_policy *p) {
    struct chains *c = arg;
    char name[32];
    snprintf(name, sizeof(name), "cali-p%c-%u", p->dir == CALC_INGRESS ? 'i' : 'o', p->id);
    chain_open(c, name);
    for (size_t i = 0; i < p->n_rules; i++) {
        const struct calc_rule *r = &p->rules[i];
        struct text ipt = {.n = 0}, nft = {.n = 0};
        put_ports(&ipt, &nft, r);
        put_nets(&ipt, &nft, &r->src, true);
        put_nets(&ipt, &nft, &r->dst, false);
        if (r->action == RULE_ALLOW) {
            put(&ipt, "-j MARK --set-xmark 0x10000/0x10000");
            put(&nft, "meta mark set meta mark or 0x10000");
            rule(c, name, ipt.p, nft.p);
            rule(c, name, "-m mark --mark 0x10000/0x10000 -j RETURN",
                 "meta mark and 0x10000 == 0x10000 return");
        } else {
            put(&ipt, "-j DROP");
            put(&nft, "drop");
            rule(c, name, ipt.p, nft.p);
        }
    }
    fputs(" }\n", c->nft_chains);
}

static void jump(struct chains *c, const char *chain, const char *condition[2], uint32_t id,
                 enum calc_dir dir) {
    char ipt[128], nft[128], d = dir == CALC_INGRESS ? 'i' : 'o';
    snprintf(ipt, sizeof(ipt), "%s-j cali-p%c-%u", condition[0], d, id);
    snprintf(nft, sizeof(nft), "%sjump cali-p%c-%u", condition[1], d, id);
    rule(c, chain, ipt, nft);
    rule(c, chain, "-m mark --mark 0x10000/0x10000 -j RETURN",
         "meta mark and 0x10000 == 0x10000 return");
}

static void endpoint_dir(struct chains *c, const struct calc_endpoint *e, enum calc_dir dir) {
    const struct calc_chain *way = dir == CALC_INGRESS ? &e->ingress : &e->egress;
    char name[32];
    snprintf(name, sizeof(name), "cali-%s-%u", dir == CALC_INGRESS ? "tw" : "fw", e->id);
    chain_open(c, name);
    rule(c, name, "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
         "ct state established,related accept");
    rule(c, name, "-m conntrack --ctstate INVALID -j DROP", "ct state invalid drop");
    rule(c, name, "-j MARK --set-xmark 0x0/0x10000", "meta mark set meta mark and 0xfffeffff");
    const char *pass[2] = {"-m mark --mark 0x0/0x20000 ", "meta mark and 0x20000 == 0 "};
    const char *always[2] = {"", ""};
    for (size_t i = 0; i < way->n_tiers; i++) {
        rule(c, name, "-j MARK --set-xmark 0x0/0x20000", "meta mark set meta mark and 0xfffdffff");
        for (size_t j = 0; j < way->tiers[i].n_policies; j++) {
            jump(c, name, pass, way->tiers[i].policies[j], dir);
        }
        rule(c, name, "-m mark --mark 0x0/0x20000 -j DROP", "meta mark and 0x20000 == 0 drop");
    }
    for (size_t i = 0; i < way->n_profiles; i++) {
        jump(c, name, always, way->profiles[i], dir);
    }
    rule(c, name, "-j DROP", "drop");
    fputs(" }\n", c->nft_chains);
    fprintf(c->dispatch, "-A %s %s %.*s -g %s\n",
            dir == CALC_INGRESS ? "cali-to-wl" : "cali-from-wl", dir == CALC_INGRESS ? "-o" : "-i",
            STR_FMT(e->iface), name);
    fprintf(c->nft_dispatch, "  %sifname %.*s goto %s\n", dir == CALC_INGRESS ? "o" : "i",
            STR_FMT(e->iface), name);
}

static void on_endpoint(void *arg, const struct calc_endpoint *e) {
    endpoint_dir(arg, e, CALC_INGRESS);
    endpoint_dir(arg, e, CALC_EGRESS);
}

const struct calc_ops chains_calc_ops = {
    .set_new = on_set,
    .set_members = on_members,
    .set_gone = on_gone,
    .policy = on_policy,
    .policy_gone = on_gone,
    .endpoint = on_endpoint,
    .endpoint_gone = on_gone,
};
