/* Results as CNI prints them, in the shape of each version, and IPAM plugins' results read back. */
#include "cni/server_int.h"

static void set_str(struct arena *a, struct jnode *map, const char *key, struct str v) {
    jnode_set(a, map, str_c(key), jnode_new_str(a, v));
}

/* A copy of prev's list `key`, or a new one. */
static struct jnode *list_of(struct arena *a, const struct jnode *prev, const char *key) {
    struct jnode *n = jnode_getc(prev, key);
    return n && n->type == J_LIST ? jnode_copy(a, n) : jnode_new(a, J_LIST);
}

static struct str net_text(struct arena *a, const struct prefix *p) {
    char text[IP_TEXT_MAX];
    return arena_dup(a, str_c(prefix_text(p, text)));
}

static void put_old(struct cni_request *r, struct jnode *doc, const struct prefix *nets) {
    struct arena *a = &r->arena;
    for (size_t i = 0; i < r->n_nets; i++) {
        const char *key = nets[i].ip.family == IP_V4 ? "ip4" : "ip6";
        if (!jnode_getc(doc, key)) { /* one of each is all that these versions can say */
            struct jnode *ip = jnode_new(a, J_MAP);
            set_str(a, ip, "ip", net_text(a, &nets[i]));
            jnode_set(a, doc, str_c(key), ip);
        }
    }
}

/* interface < 0: none (results of IPAM plugins). */
static struct jnode *ip_node(struct cni_request *r, const struct prefix *net, int64_t interface) {
    struct arena *a = &r->arena;
    struct jnode *ip = jnode_new(a, J_MAP);
    if (r->conf.version < CNI_V_1_0) {
        set_str(a, ip, "version", net->ip.family == IP_V4 ? STR("4") : STR("6"));
    }
    set_str(a, ip, "address", net_text(a, net));
    if (interface >= 0) {
        jnode_set(a, ip, STR("interface"), jnode_new_int(a, interface));
    }
    return ip;
}

static struct jnode *new_result(struct cni_request *r) {
    struct jnode *doc = jnode_new(&r->arena, J_MAP);
    set_str(&r->arena, doc, "cniVersion", str_c(cni_versions[r->conf.version]));
    return doc;
}

/* The DNS settings of the result before us, of the IPAM plugin, or of the configuration. */
static void put_dns(struct cni_request *r, struct jnode *doc) {
    struct jnode *all[] = {jnode_getc(r->conf.prev_result, "dns"),
                           jnode_getc(r->ipam_result, "dns"), r->conf.dns};
    struct jnode *dns = NULL;
    for (size_t i = 0; i < ARRAY_LEN(all) && !dns; i++) {
        dns = all[i] && all[i]->type == J_MAP && all[i]->n ? all[i] : NULL;
    }
    jnode_set(&r->arena, doc, STR("dns"),
              dns ? jnode_copy(&r->arena, dns) : jnode_new(&r->arena, J_MAP));
}

void cni_result(struct cni_request *r, struct str mac_text, struct buf *out) {
    struct arena *a = &r->arena;
    struct jnode *doc = new_result(r);
    if (r->conf.version <= CNI_V_0_2) {
        put_old(r, doc, r->nets);
        put_dns(r, doc);
        json_write(out, doc, 0);
        return;
    }
    const struct jnode *prev = r->conf.prev_result;
    struct jnode *ifaces = list_of(a, prev, "interfaces");
    struct jnode *ips = list_of(a, prev, "ips");
    struct jnode *host = jnode_new(a, J_MAP), *pod = jnode_new(a, J_MAP);
    set_str(a, host, "name", r->pod.iface);
    set_str(a, pod, "name", r->strings[WIRE_IFNAME]);
    set_str(a, pod, "mac", mac_text);
    if (r->conf.version >= CNI_V_1_1 && (r->conf.mtu || r->s->mtu)) {
        uint32_t mtu = r->conf.mtu ? r->conf.mtu : r->s->mtu;
        jnode_set(a, pod, STR("mtu"), jnode_new_int(a, mtu));
    }
    set_str(a, pod, "sandbox", r->strings[WIRE_NETNS]);
    jnode_append(ifaces, host);
    jnode_append(ifaces, pod);
    for (size_t i = 0; i < r->n_nets; i++) {
        jnode_append(ips, ip_node(r, &r->nets[i], (int64_t)ifaces->n - 1));
    }
    jnode_set(a, doc, STR("interfaces"), ifaces);
    jnode_set(a, doc, STR("ips"), ips);
    struct jnode *routes = list_of(a, prev, "routes");
    if (routes->n) {
        jnode_set(a, doc, STR("routes"), routes);
    }
    put_dns(r, doc);
    json_write(out, doc, 0);
}

void cni_ipam_result(struct cni_request *r, struct buf *out) {
    struct arena *a = &r->arena;
    struct jnode *doc = new_result(r);
    if (r->conf.version <= CNI_V_0_2) {
        put_old(r, doc, r->block_nets);
        json_write(out, doc, 0);
        return;
    }
    struct jnode *ips = jnode_new(a, J_LIST), *routes = jnode_new(a, J_LIST);
    for (size_t i = 0; i < r->n_nets; i++) {
        struct prefix net = prefix_mask(r->block_nets[i]);
        struct jnode *route = jnode_new(a, J_MAP);
        jnode_append(ips, ip_node(r, &r->block_nets[i], -1));
        set_str(a, route, "dst", net_text(a, &net));
        if (!r->pod.is_target) { /* the machine is elsewhere: as Calico, no route to it here yet */
            jnode_append(routes, route);
        }
    }
    jnode_set(a, doc, STR("ips"), ips);
    jnode_set(a, doc, STR("routes"), routes);
    jnode_set(a, doc, STR("dns"), jnode_new(a, J_MAP));
    json_write(out, doc, 0);
}

static int take_net(struct cni_request *r, const struct jnode *text, struct cni_fail *f) {
    struct prefix p;
    if (!text || text->type != J_STR || prefix_parse(text->s, &p) < 0) {
        return cni_fail(f, CNI_CODE_UNDECODABLE, "look at that plugin",
                        "IPAM plugin %.*s answered something that is no address",
                        STR_FMT(r->conf.ipam_type));
    }
    if (r->n_nets == CNI_MAX_IPS) {
        return cni_fail(f, CNI_CODE_UNDECODABLE, "look at that plugin",
                        "IPAM plugin %.*s answered more than %d addresses",
                        STR_FMT(r->conf.ipam_type), CNI_MAX_IPS);
    }
    r->block_nets[r->n_nets] = p;
    p.len = (uint8_t)ip_bits(&p.ip);
    r->nets[r->n_nets++] = p;
    return 0;
}

int cni_read_ipam_result(struct cni_request *r, struct str text, struct cni_fail *f) {
    struct jlimits lim = json_limits_default;
    struct jnode *doc = NULL;
    struct err e = {0};
    lim.max_bytes = WIRE_TEXT_MAX;
    lim.max_nodes = 65536;
    if (json_parse(text, &lim, &r->arena, &doc, &e) < 0 || doc->type != J_MAP) {
        return cni_fail(f, CNI_CODE_UNDECODABLE, "look at that plugin",
                        "IPAM plugin %.*s answered no result: %.700s", STR_FMT(r->conf.ipam_type),
                        e.msg);
    }
    r->ipam_result = doc;
    jnode_each (ip, jnode_getc(doc, "ips")) {
        if (take_net(r, jnode_getc(ip, "address"), f) < 0) {
            return -1;
        }
    }
    static const char *const old[] = {"ip4", "ip6"};
    for (size_t i = 0; i < ARRAY_LEN(old); i++) {
        struct jnode *ip = jnode_getc(doc, old[i]);
        if (ip && ip->type == J_MAP && take_net(r, jnode_getc(ip, "ip"), f) < 0) {
            return -1;
        }
    }
    return r->n_nets ? 0
                     : cni_fail(f, CNI_CODE_TRY_LATER, "look at that plugin's configuration",
                                "IPAM plugin %.*s gave no address", STR_FMT(r->conf.ipam_type));
}
