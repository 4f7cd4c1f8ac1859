/* See defaultpool.h. */
#include "node/defaultpool.h"

#include <stdio.h>
#include <string.h>

enum { N_FAMILIES = 2 };

static const struct {
    const char *name, *word;
    enum ip_family family;
    const char *block_size, *nat_outgoing;
} FAMILIES[N_FAMILIES] = {{"default-ipv4-ippool", "IPV4POOL", IP_V4, "26", "true"},
                          {"default-ipv6-ippool", "IPV6POOL", IP_V6, "122", "false"}};

/* Calico's two, then what is seldom used elsewhere. */
static const char *const IPV4_CANDIDATES[] = {"192.168.0.0/16", "172.16.0.0/16", "10.244.0.0/16",
                                              "172.20.0.0/16",  "10.200.0.0/16", "10.128.0.0/16"};

struct choosing {
    const struct pool_world *w;
    size_t f;
    struct arena *a;
    struct err *e;
};

static const char *variable(const struct choosing *c, const char *what) {
    return arena_cstr(c->a, arena_printf(c->a, "CALICO_%s_%s", FAMILIES[c->f].word, what));
}

static const char *value_or(const struct choosing *c, const char *what, const char *deflt) {
    const char *v = c->w->env(variable(c, what));
    return v ? v : deflt;
}

static int refuse(const struct choosing *c, const char *what, const char *allowed) {
    const char *name = variable(c, what), *v = c->w->env(name);
    return err_set(c->e, ERR_INVALID, "%s: found \"%.60s\", allowed is %s", name, v ? v : "",
                   allowed);
}

static const struct pool_taken *overlap(const struct pool_world *w, const struct prefix *p) {
    for (size_t i = 0; i < w->n_taken; i++) {
        if (prefix_overlaps(&w->taken[i].net, p)) {
            return &w->taken[i];
        }
    }
    return NULL;
}

static int refuse_overlap(const struct choosing *c, const struct prefix *p, const char *source,
                          const struct pool_taken *t) {
    char mine[IP_TEXT_MAX], theirs[IP_TEXT_MAX];
    return err_set(c->e, ERR_INVALID,
                   "%s: %s overlaps %s (%.*s): packets to one would go to the other. Set "
                   "CALICO_%s_CIDR to a network that is free, or make an IPPool yourself",
                   source, prefix_text(p, mine), prefix_text(&t->net, theirs), STR_FMT(t->what),
                   FAMILIES[c->f].word);
}

/* The network of the family; 0 with IP_NONE: none wanted. */
static int choose_cidr(const struct choosing *c, struct prefix *out) {
    const struct pool_world *w = c->w;
    const char *given = value_or(c, "CIDR", NULL);
    const struct pool_taken *t = NULL;
    *out = (struct prefix){0};
    if (given && strcmp(given, "none") == 0) {
        return 0;
    }
    if (given) {
        if (prefix_parse(str_c(given), out) < 0 || out->ip.family != FAMILIES[c->f].family ||
            !strchr(given, '/')) {
            return refuse(c, "CIDR",
                          c->f ? "an IPv6 network such as fd00:10::/48, or none"
                               : "an IPv4 network such as 10.244.0.0/16, or none");
        }
        *out = prefix_mask(*out);
        t = overlap(w, out);
        return t ? refuse_overlap(c, out, variable(c, "CIDR"), t) : 0;
    }
    if (w->kubeadm[c->f].ip.family) {
        *out = prefix_mask(w->kubeadm[c->f]);
        t = overlap(w, out);
        return t ? refuse_overlap(c, out, "kubeadm's podSubnet", t) : 0;
    }
    if (c->f == 1) {
        *out = (struct prefix){{IP_V6, {0xfd}}, 48};
        memcpy(out->ip.b + 1, w->random, sizeof(w->random));
        t = overlap(w, out);
        return t ? refuse_overlap(c, out, "default pool", t) : 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(IPV4_CANDIDATES); i++) {
        mg_assert(prefix_parse(str_c(IPV4_CANDIDATES[i]), out) == 0);
        t = overlap(w, out);
        if (!t) {
            return 0;
        }
    }
    return refuse_overlap(c, out, "default pool, the last of all candidates", t);
}

/* Always, CrossSubnet, Never, in any case of letters; off is Never. */
static int read_mode(const struct choosing *c, const char *what, const char **out) {
    static const char *const modes[][2] = {{"always", "Always"},
                                           {"crosssubnet", "CrossSubnet"},
                                           {"cross-subnet", "CrossSubnet"},
                                           {"never", "Never"},
                                           {"off", "Never"}};
    const char *v = value_or(c, what, "Never");
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        if (strcasecmp(v, modes[i][0]) == 0) {
            *out = modes[i][1];
            return 0;
        }
    }
    return refuse(c, what, "Always, CrossSubnet or Never");
}

static int read_bool(const struct choosing *c, const char *what, const char *deflt,
                     const char **out) {
    *out = value_or(c, what, deflt);
    if (strcasecmp(*out, "true") == 0 || strcasecmp(*out, "false") == 0) {
        *out = strcasecmp(*out, "true") == 0 ? "true" : "false";
        return 0;
    }
    return refuse(c, what, "true or false");
}

static int read_block_size(const struct choosing *c, const struct prefix *cidr, unsigned *out) {
    unsigned low = c->f ? 116 : 20, high = c->f ? 128 : 32;
    const char *v = value_or(c, "BLOCK_SIZE", FAMILIES[c->f].block_size);
    char allowed[96];
    uint64_t n = 0;
    if (str_to_u64(str_c(v), &n) < 0 || n < low || n > high || n < cidr->len) {
        (void)snprintf(allowed, sizeof(allowed), "%u to %u, and not below the network's /%u",
                       low > cidr->len ? low : cidr->len, high, cidr->len);
        return refuse(c, "BLOCK_SIZE", allowed);
    }
    *out = (unsigned)n;
    return 0;
}

static int make_spec(const struct choosing *c, const struct prefix *cidr, struct jnode **out) {
    const char *ipip = "Never", *vxlan = "Never", *nat = NULL, *no_bgp = NULL;
    unsigned block_size = 0;
    char text[IP_TEXT_MAX];
    int r = c->f == 0 ? read_mode(c, "IPIP", &ipip) : 0;
    r = r < 0 ? r : read_mode(c, "VXLAN", &vxlan);
    r = r < 0 ? r : read_bool(c, "NAT_OUTGOING", FAMILIES[c->f].nat_outgoing, &nat);
    r = r < 0 ? r : read_bool(c, "DISABLE_BGP_EXPORT", "false", &no_bgp);
    r = r < 0 ? r : read_block_size(c, cidr, &block_size);
    if (r < 0) {
        return r;
    }
    if (strcmp(ipip, "Never") != 0 && strcmp(vxlan, "Never") != 0) {
        return refuse(c, "VXLAN", "Never while CALICO_IPV4POOL_IPIP is set: one of the two");
    }
    const struct str texts[][2] = {
        {STR("cidr"), arena_dup(c->a, str_c(prefix_text(cidr, text)))},
        {STR("ipipMode"), str_c(ipip)},
        {STR("vxlanMode"), str_c(vxlan)},
        {STR("nodeSelector"), str_c(value_or(c, "NODE_SELECTOR", "all()"))},
        {STR("assignmentMode"), STR("Automatic")},
    };
    struct jnode *spec = jnode_new(c->a, J_MAP), *uses = jnode_new(c->a, J_LIST);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        jnode_set(c->a, spec, texts[i][0], jnode_new_str(c->a, texts[i][1]));
    }
    jnode_set(c->a, spec, STR("blockSize"), jnode_new_int(c->a, block_size));
    jnode_set(c->a, spec, STR("natOutgoing"), jnode_new_bool(c->a, strcmp(nat, "true") == 0));
    if (strcmp(no_bgp, "true") == 0) {
        jnode_set(c->a, spec, STR("disableBGPExport"), jnode_new_bool(c->a, true));
    }
    jnode_append(uses, jnode_new_str(c->a, STR("Workload")));
    jnode_append(uses, jnode_new_str(c->a, STR("Tunnel")));
    jnode_set(c->a, spec, STR("allowedUses"), uses);
    *out = spec;
    return 0;
}

int default_pools(const struct pool_world *w, struct arena *a, struct pool_wanted out[2],
                  struct err *e) {
    const char *none = w->env("NO_DEFAULT_POOLS");
    bool is_off = none && strcasecmp(none, "true") == 0;
    if (none && !is_off && strcasecmp(none, "false") != 0) {
        return err_set(e, ERR_INVALID,
                       "NO_DEFAULT_POOLS: found \"%.60s\", allowed is true or false", none);
    }
    struct pool_wanted made[N_FAMILIES] = {{NULL, NULL}};
    for (size_t f = 0; f < N_FAMILIES; f++) {
        struct choosing c = {w, f, a, e};
        struct prefix cidr;
        const char *given = value_or(&c, "CIDR", NULL);
        if (is_off) {
            if (given && strcmp(given, "none") != 0) {
                return err_set(e, ERR_INVALID,
                               "NO_DEFAULT_POOLS is true and %s is %s: one of the two",
                               variable(&c, "CIDR"), given);
            }
            continue;
        }
        if (w->has_pool[f] || (f == 1 && !w->has_ipv6)) {
            continue;
        }
        int r = choose_cidr(&c, &cidr);
        if (r == 0 && cidr.ip.family) {
            r = make_spec(&c, &cidr, &made[f].spec);
            made[f].name = FAMILIES[f].name;
        }
        if (r < 0) {
            return r;
        }
    }
    memcpy(out, made, sizeof(made));
    return 0;
}

/* "A" or "A,B" after the first `word:` of the text, as Calico reads it: not all of YAML. */
static void read_subnets(struct str text, const char *word, struct prefix out[2]) {
    size_t n = strlen(word);
    for (struct str rest = text; rest.n;) {
        struct str line = str_trim(str_cut(&rest, '\n'));
        if (line.n <= n || memcmp(line.p, word, n) != 0) {
            continue;
        }
        struct str list = str_trim(str_n(line.p + n, line.n - n));
        if (list.n >= 2 && (list.p[0] == '"' || list.p[0] == '\'') &&
            list.p[list.n - 1] == list.p[0]) {
            list = str_n(list.p + 1, list.n - 2);
        }
        while (list.n) {
            struct prefix p;
            if (prefix_parse(str_trim(str_cut(&list, ',')), &p) == 0) {
                struct prefix *at = &out[p.ip.family == IP_V6];
                *at = at->ip.family ? *at : p;
            }
        }
        return;
    }
}

void kubeadm_subnets(struct str text, struct prefix pods[2], struct prefix services[2]) {
    memset(pods, 0, 2 * sizeof(*pods));
    memset(services, 0, 2 * sizeof(*services));
    read_subnets(text, "podSubnet:", pods);
    read_subnets(text, "serviceSubnet:", services);
}
