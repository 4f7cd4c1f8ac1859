/* Automatic host endpoints of a Calico Node, as kube-controllers' node controller makes them
 * (kube-controllers/pkg/controllers/node/hostendpoints.go). */
#include "controllers/convert.h"

#include "base/hash.h"
#include "base/vec.h"
#include "policy/selector.h"

#include <regex.h>
#include <stdlib.h>

#define SUFFIX "auto-hep"
enum { NAME_MAX_BYTES = 253 };

/* ---- names ---- */

static struct str checked_name(struct str name, struct arena *a) {
    if (name.n <= NAME_MAX_BYTES) {
        return name;
    }
    uint8_t sum[32];
    char text[64], kept[64];
    size_t n = 0;
    sha256(name.p, name.n, sum);
    size_t len = base64url_encode(sum, sizeof(sum), text);
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '-' && text[i] != '_') {
            kept[n++] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] | 32) : text[i];
        }
    }
    return arena_printf(a, "%.*s-" SUFFIX, (int)n, kept);
}

struct str convert_hep_name(struct str node, struct arena *a) {
    return checked_name(arena_printf(a, "%.*s-" SUFFIX, STR_FMT(node)), a);
}

/* ---- addresses ---- */

const char *const convert_node_ips[] = {
    "spec.bgp.ipv4Address",
    "spec.bgp.ipv6Address",
    "spec.bgp.ipv4IPIPTunnelAddr",
    "spec.ipv4VXLANTunnelAddr",
    "spec.ipv6VXLANTunnelAddr",
    "spec.wireguard.interfaceIPv4Address",
    "spec.wireguard.interfaceIPv6Address",
    NULL,
};

typedef VEC(struct str) ip_vec;

static void add_ip(ip_vec *v, struct str text, struct arena *a) {
    struct prefix p;
    char canonical[IP_TEXT_MAX];
    if (!text.n || prefix_parse(text, &p) < 0) {
        return;
    }
    struct str ip = arena_dup(a, str_c(ip_text(&p.ip, canonical)));
    for (size_t i = 0; i < v->n; i++) {
        if (str_eq(v->p[i], ip)) {
            return;
        }
    }
    vec_push(v, ip);
}

/* All addresses that the node's object tells of. */
static void node_ips(const struct jnode *node, ip_vec *v, struct arena *a) {
    for (const char *const *p = convert_node_ips; *p; p++) {
        add_ip(v, jnode_str(jnode_path(node, *p)), a);
    }
    const struct jnode *addresses = jnode_path(node, "spec.addresses");
    jnode_each (x, addresses) {
        if (str_is(jnode_str(jnode_getc(x, "type")), "InternalIP")) {
            add_ip(v, jnode_str(jnode_getc(x, "address")), a);
        }
    }
    const struct jnode *interfaces = jnode_path(node, "spec.interfaces");
    jnode_each (x, interfaces) {
        const struct jnode *own = jnode_getc(x, "addresses");
        jnode_each (ip, own) {
            add_ip(v, jnode_str(ip), a);
        }
    }
}

/* Of all addresses those in one of the prefixes. */
static void ips_in(const ip_vec *all, const struct jnode *prefixes, ip_vec *out) {
    for (size_t i = 0; i < all->n; i++) {
        struct ip46 ip;
        jnode_each (p, prefixes) {
            struct prefix x;
            if (prefix_parse(jnode_str(p), &x) == 0 && ip_parse(all->p[i], &ip) == 0 &&
                x.ip.family == ip.family && prefix_has_ip(&x, &ip)) {
                vec_push(out, all->p[i]);
                break;
            }
        }
    }
}

/* ---- documents ---- */

struct jnode *convert_hep_labels(const struct jnode *node, struct arena *a) {
    struct jnode *labels = jnode_new(a, J_MAP);
    const struct jnode *of_node = jnode_path(node, "metadata.labels");
    jnode_each (l, of_node) {
        if (l->type == J_STR) {
            jnode_set(a, labels, l->key, jnode_new_str(a, l->s));
        }
    }
    jnode_set(a, labels, STR(CONVERT_CREATED_BY), jnode_new_str(a, STR(CONVERT_CONTROLLERS)));
    return labels;
}

struct jnode *convert_hep_spec(struct str node, struct str interface, const struct str *ips,
                               size_t n_ips, struct arena *a) {
    struct jnode *spec = jnode_new(a, J_MAP), *profiles = jnode_new(a, J_LIST);
    jnode_set(a, spec, STR("node"), jnode_new_str(a, node));
    if (interface.n) {
        jnode_set(a, spec, STR("interfaceName"), jnode_new_str(a, interface));
    }
    if (n_ips) {
        struct jnode *list = jnode_new(a, J_LIST);
        for (size_t i = 0; i < n_ips; i++) {
            jnode_append(list, jnode_new_str(a, ips[i]));
        }
        jnode_set(a, spec, STR("expectedIPs"), list);
    }
    jnode_append(profiles, jnode_new_str(a, STR("projectcalico-default-allow")));
    jnode_set(a, spec, STR("profiles"), profiles);
    return spec;
}

bool convert_is_auto_hep(const struct jnode *hep) {
    const struct jnode *labels = jnode_path(hep, "metadata.labels");
    return str_is(jnode_str(jnode_getc(labels, CONVERT_CREATED_BY)), CONVERT_CONTROLLERS);
}

/* ---- what a node should have ---- */

struct making {
    const struct jnode *node;
    struct str name; /* of the node */
    struct arena *a;
    ip_vec all; /* its addresses */
    VEC(struct hep_wanted) out;
};

static void add_hep(struct making *m, struct str name, const struct jnode *template,
                    struct str interface, const ip_vec *ips) {
    struct jnode *labels = convert_hep_labels(m->node, m->a);
    const struct jnode *more = jnode_getc(template, "labels");
    const struct jnode *notes = jnode_getc(template, "annotations");
    jnode_each (l, more) {
        if (l->type == J_STR && !str_is(l->key, CONVERT_CREATED_BY)) {
            jnode_set(m->a, labels, l->key, jnode_new_str(m->a, l->s));
        }
    }
    vec_push(&m->out,
             (struct hep_wanted){checked_name(name, m->a), labels,
                                 notes && notes->n ? jnode_copy(m->a, notes) : NULL,
                                 convert_hep_spec(m->name, interface, ips->p, ips->n, m->a)});
}

static int label_cmp(const void *x, const void *y) {
    return str_cmp(((const struct label *)x)->key, ((const struct label *)y)->key);
}

static bool selects(struct str text, const struct jnode *node, struct arena *a) {
    const struct selector *s = NULL;
    VEC(struct label) labels = {0};
    struct err ignored; /* one that can't be read selects nothing; writing it was refused */
    if (selector_parse(text.p ? text : STR(""), SELECTOR_MAX_BYTES, a, &s, &ignored) < 0) {
        return false;
    }
    const struct jnode *of_node = jnode_path(node, "metadata.labels");
    jnode_each (l, of_node) {
        if (l->type == J_STR) {
            vec_push(&labels, (struct label){l->key, l->s});
        }
    }
    vec_sort(&labels, label_cmp);
    bool does = selector_match(s, labels.p, labels.n);
    vec_fini(&labels);
    return does;
}

/* One for each interface that the pattern matches. */
static void add_interfaces(struct making *m, const struct jnode *template, const char *pattern,
                           const ip_vec *in_prefixes) {
    regex_t re;
    if (regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB) != 0) {
        return;
    }
    struct str name = jnode_str(jnode_getc(template, "generateName"));
    const struct jnode *interfaces = jnode_path(m->node, "spec.interfaces");
    jnode_each (x, interfaces) {
        struct str interface = jnode_str(jnode_getc(x, "name"));
        if (!interface.n || regexec(&re, arena_cstr(m->a, interface), 0, NULL, 0) != 0) {
            continue;
        }
        ip_vec ips = {0};
        for (size_t i = 0; i < in_prefixes->n; i++) {
            vec_push(&ips, in_prefixes->p[i]);
        }
        const struct jnode *own = jnode_getc(x, "addresses");
        jnode_each (ip, own) {
            add_ip(&ips, jnode_str(ip), m->a);
        }
        add_hep(m,
                arena_printf(m->a, "%.*s-%.*s-%.*s-" SUFFIX, STR_FMT(m->name), STR_FMT(name),
                             STR_FMT(interface)),
                template, interface, &ips);
        vec_fini(&ips);
    }
    regfree(&re);
}

static void add_template(struct making *m, const struct jnode *t) {
    struct str name = jnode_str(jnode_getc(t, "generateName"));
    struct str pattern = jnode_str(jnode_getc(t, "interfacePattern"));
    if (!name.n || !selects(jnode_str(jnode_getc(t, "nodeSelector")), m->node, m->a)) {
        return;
    }
    ip_vec ips = {0};
    ips_in(&m->all, jnode_getc(t, "interfaceCIDRs"), &ips);
    if (pattern.n) {
        add_interfaces(m, t, arena_cstr(m->a, pattern), &ips);
    } else if (ips.n) { /* without an interface's name it needs an address */
        add_hep(m, arena_printf(m->a, "%.*s-%.*s-" SUFFIX, STR_FMT(m->name), STR_FMT(name)), t,
                STR(""), &ips);
    }
    vec_fini(&ips);
}

hep_list convert_heps(const struct jnode *node, const struct jnode *config, struct arena *a) {
    hep_list out = {NULL, 0};
    if (!str_is(jnode_str(jnode_getc(config, "autoCreate")), "Enabled")) {
        return out;
    }
    struct making m = {.node = node, .name = jnode_str(jnode_path(node, "metadata.name")), .a = a};
    node_ips(node, &m.all, a);
    if (!str_is(jnode_str(jnode_getc(config, "createDefaultHostEndpoint")), "Disabled")) {
        add_hep(&m, convert_hep_name(m.name, a), NULL, STR("*"), &m.all);
    }
    const struct jnode *templates = jnode_getc(config, "templates");
    jnode_each (t, templates) {
        add_template(&m, t);
    }
    out.n = m.out.n;
    out.p = arena_array(a, struct hep_wanted, out.n);
    if (out.n) {
        memcpy(out.p, m.out.p, out.n * sizeof(*out.p));
    }
    vec_fini(&m.all);
    vec_fini(&m.out);
    return out;
}
