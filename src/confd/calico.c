/* The key space of Calico's confd (confd/pkg/backends/calico/client.go there), made of resources.
 */
#include "confd/calico.h"

#include "base/hash.h"

#include <ctype.h>
#include <stdio.h>

struct out {
    const struct bgp_view *v;
    struct kv *k;
    struct arena a;
    bool is_ok;
};

const struct jnode *calico_get(const struct jnode *map, const char *name) {
    return map && map->type == J_MAP ? jnode_getc(map, name) : NULL;
}

static struct str text(const struct jnode *map, const char *name) {
    return jnode_str(calico_get(map, name));
}

const struct object *calico_find(const struct bgp_view *v, enum kind_id kind, struct str name) {
    for (size_t i = 0; i < v->n_objects; i++) {
        if (v->objects[i].kind->id == kind && str_eq(v->objects[i].meta.name, name)) {
            return &v->objects[i];
        }
    }
    return NULL;
}

static const struct jnode *spec_of(const struct object *o) {
    return o ? calico_get(o->doc, "spec") : NULL;
}

const struct jnode *calico_filters(const struct bgp_view *v, const struct conf_peer *p) {
    return p->resource.n ? calico_get(spec_of(calico_find(v, K_BGP_PEER, p->resource)), "filters")
                         : NULL;
}

uint32_t calico_own_as(const struct bgp_view *v, const struct conf_peer *p) {
    return p->c.local_as ? p->c.local_as : v->conf->speaker.as;
}

static void put(struct out *o, struct str key, struct str value) {
    o->is_ok = kv_add(o->k, key, value.p ? value : STR("")) && o->is_ok;
}

MG_PRINTF(3, 4)
static void put_at(struct out *o, struct str value, const char *fmt, ...) {
    char key[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(key, sizeof(key), fmt, ap);
    va_end(ap);
    o->is_ok = n >= 0 && (size_t)n < sizeof(key) && o->is_ok;
    put(o, str_c(key), value);
}

static struct str as_json(struct out *o, const struct jnode *n) {
    struct buf b = BUF_INIT(KV_VALUE_MAX);
    json_write(&b, n, 0);
    struct str s = arena_dup(&o->a, buf_view(&b));
    o->is_ok = o->is_ok && !b.overflow;
    buf_fini(&b);
    return s;
}

/* "10.0.0.0-26" */
static struct str cidr_name(struct out *o, const struct prefix *p) {
    char out[IP_TEXT_MAX];
    prefix_text(p, out);
    for (char *c = out; *c; c++) {
        *c = *c == '/' ? '-' : *c;
    }
    return arena_dup(&o->a, str_c(out));
}

static struct str cidr_text(struct out *o, const struct prefix *p) {
    char out[IP_TEXT_MAX];
    return arena_dup(&o->a, str_c(prefix_text(p, out)));
}

static const char *suffix(const struct prefix *p) {
    return p->ip.family == IP_V6 ? "v6" : "";
}

static struct str number(struct out *o, int64_t v) {
    return arena_printf(&o->a, "%lld", (long long)v);
}

static struct str lower(struct out *o, struct str s) {
    struct str d = arena_dup(&o->a, s);
    for (size_t i = 0; i < d.n; i++) {
        ((char *)(uintptr_t)d.p)[i] = (char)tolower((unsigned char)d.p[i]);
    }
    return d;
}

/* ---- BGPConfiguration ---- */

/* Prefix advertisements of a family with the communities' names resolved. */
static struct str advertisements(struct out *o, const struct jnode *spec, uint8_t family) {
    struct jnode *list = jnode_new(&o->a, J_LIST);
    jnode_each (adv, calico_get(spec, "prefixAdvertisements")) {
        struct prefix p;
        if (prefix_parse(text(adv, "cidr"), &p) < 0 || p.ip.family != family) {
            continue;
        }
        struct jnode *item = jnode_new(&o->a, J_MAP), *values = jnode_new(&o->a, J_LIST);
        jnode_each (c, calico_get(adv, "communities")) {
            struct str value = jnode_str(c);
            jnode_each (named, calico_get(spec, "communities")) {
                value = str_eq(text(named, "name"), jnode_str(c)) ? text(named, "value") : value;
            }
            jnode_append(values, jnode_new_str(&o->a, value));
        }
        jnode_set(&o->a, item, STR("cidr"), jnode_new_str(&o->a, text(adv, "cidr")));
        jnode_set(&o->a, item, STR("communities"), values);
        jnode_append(list, item);
    }
    return list->n ? as_json(o, list) : STR_NULL;
}

/* Settings that both the whole cluster and one node may have, below base. */
static void put_settings(struct out *o, const struct jnode *spec, const char *base) {
    struct str level = text(spec, "logSeverityScreen");
    const struct jnode *port = calico_get(spec, "listenPort");
    struct str v4 = advertisements(o, spec, IP_V4), v6 = advertisements(o, spec, IP_V6);
    if (level.n) {
        put_at(o, lower(o, level), "%s/loglevel", base);
    }
    if (port && port->type == J_INT) {
        put_at(o, number(o, port->i), "%s/listen_port", base);
    }
    if (v4.p) {
        put_at(o, v4, "%s/prefix_advertisements/ip_v4", base);
    }
    if (v6.p) {
        put_at(o, v6, "%s/prefix_advertisements/ip_v6", base);
    }
}

static void put_global(struct out *o) {
    const struct jnode *spec = spec_of(calico_find(o->v, K_BGP_CONFIGURATION, STR("default")));
    const struct jnode *as = calico_get(spec, "asNumber");
    const struct jnode *mesh = calico_get(spec, "nodeToNodeMeshEnabled");
    bool has_mesh = !mesh || mesh->type != J_BOOL || mesh->b;
    put_settings(o, spec, "/calico/bgp/v1/global");
    put(o, STR("/calico/bgp/v1/global/as_num"),
        !as                 ? number(o, CONF_AS_DEFAULT)
        : as->type == J_INT ? number(o, as->i)
                            : jnode_str(as));
    put(o, STR("/calico/bgp/v1/global/node_mesh"),
        has_mesh ? STR("{\"enabled\":true}") : STR("{\"enabled\":false}"));
}

/* ---- nodes ---- */

static void put_node(struct out *o, const struct object *n) {
    static const char *const FIELDS[] = {"ipv4Address", "ipv6Address"};
    const struct jnode *bgp = calico_get(spec_of(n), "bgp");
    const struct jnode *guard = calico_get(spec_of(n), "wireguard");
    const struct jnode *as = calico_get(bgp, "asNumber");
    char base[512], conf[512], ip[IP_TEXT_MAX];
    (void)snprintf(base, sizeof(base), "/calico/bgp/v1/host/%.*s", STR_FMT(n->meta.name));
    for (int f = 0; f < 2; f++) {
        struct prefix p = {0};
        bool has = prefix_parse(text(bgp, FIELDS[f]), &p) == 0;
        put_at(o, has ? str_c(ip_text(&p.ip, ip)) : STR(""), "%s/ip_addr_v%d", base, f ? 6 : 4);
        if (has) {
            struct prefix net = prefix_mask(p);
            put_at(o, cidr_text(o, &net), "%s/network_v%d", base, f ? 6 : 4);
        }
    }
    if (as) {
        put_at(o, as->type == J_INT ? number(o, as->i) : jnode_str(as), "%s/as_num", base);
    }
    put_at(o, text(bgp, "routeReflectorClusterID"), "%s/rr_cluster_id", base);
    if (text(guard, "interfaceIPv4Address").n) {
        put_at(o, text(guard, "interfaceIPv4Address"), "%s/wireguard_addr_v4", base);
    }
    if (text(guard, "interfaceIPv6Address").n) {
        put_at(o, text(guard, "interfaceIPv6Address"), "%s/wireguard_addr_v6", base);
    }
    (void)snprintf(conf, sizeof(conf), "node.%.*s", STR_FMT(n->meta.name));
    put_settings(o, spec_of(calico_find(o->v, K_BGP_CONFIGURATION, str_c(conf))), base);
}

/* ---- peers of this node ---- */

static void put_string(struct buf *b, const char *key, struct str v) {
    buf_printf(b, ",\"%s\":", key);
    json_quote(b, v);
}

static void put_filters(struct out *o, struct buf *b, const struct conf_peer *p) {
    const struct jnode *filters = calico_filters(o->v, p);
    buf_puts(b, ",\"filters\":[");
    jnode_each (f, filters) {
        json_quote(b, jnode_str(f));
        buf_puts(b, f->next ? "," : "");
    }
    buf_puts(b, "]");
}

static void put_peer(struct out *o, const struct conf_peer *p) {
    char ip[IP_TEXT_MAX], id[16];
    const struct peer_config *c = &p->c;
    int version = c->address.family == IP_V6 ? 6 : 4;
    if (!c->address.family || p->type == CONF_MESH) {
        return; /* the mesh is the templates' own affair */
    }
    uint32_t cluster = o->v->conf->speaker.cluster_id;
    const struct object *peer_node = calico_find(o->v, K_NODE, p->node);
    (void)snprintf(id, sizeof(id), "%u.%u.%u.%u", cluster >> 24, cluster >> 16 & 255,
                   cluster >> 8 & 255, cluster & 255);
    struct buf b = BUF_INIT(1 << 16);
    buf_printf(&b, "{\"ip\":\"%s\",\"as_num\":\"%u\"", ip_text(&c->address, ip), c->as);
    if (c->local_as) {
        buf_printf(&b, ",\"local_as_num\":\"%u\"", c->local_as);
    }
    put_string(&b, "rr_cluster_id",
               text(calico_get(spec_of(peer_node), "bgp"), "routeReflectorClusterID"));
    if (c->port && c->port != 179) {
        buf_printf(&b, ",\"port\":%u", c->port);
    }
    put_string(&b, "password", p->password);
    put_string(&b, "source_addr", c->local.family ? STR("UseNodeIP") : STR("None"));
    put_string(&b, "restart_time", c->restart_time_s ? number(o, c->restart_time_s) : STR(""));
    put_string(&b, "keepalive_time", c->keepalive_s ? number(o, c->keepalive_s) : STR(""));
    put_string(&b, "next_hop_mode",
               c->next_hop == NEXT_HOP_SELF   ? STR("Self")
               : c->next_hop == NEXT_HOP_KEEP ? STR("Keep")
                                              : STR("Auto"));
    if (p->gateway.family) {
        put_string(&b, "reachable_by", str_c(ip_text(&p->gateway, ip)));
    }
    buf_printf(&b,
               ",\"keep_next_hop\":%s,\"calico_node\":%s,\"passive_mode\":%s,"
               "\"local_bgp_peer\":%s,\"num_allow_local_as\":%u,\"ttl_security\":%u",
               c->next_hop == NEXT_HOP_KEEP ? "true" : "false", p->node.n ? "true" : "false",
               c->is_passive ? "true" : "false", p->type == CONF_WORKLOAD_PEER ? "true" : "false",
               c->allow_own_as, c->gtsm ? c->ttl : 0);
    put_filters(o, &b, p);
    buf_puts(&b, "}");
    const char *host = p->type == CONF_GLOBAL_PEER ? "global" : "host/";
    struct str node = p->type == CONF_GLOBAL_PEER ? STR("") : o->v->node_name;
    char port[16] = "";
    if (c->port && c->port != 179) {
        (void)snprintf(port, sizeof(port), "-%u", c->port);
    }
    put_at(o, buf_view(&b), "/calico/bgp/v1/%s%.*s/peer_v%d/%s%s", host, STR_FMT(node), version,
           ip_text(&c->address, ip), port);
    buf_fini(&b);
}

/* ---- pools, blocks, services, filters ---- */

/* As Calico's first API called them. */
static struct str mode_name(struct str mode) {
    return str_ieq(mode, STR("CrossSubnet")) ? STR("cross-subnet")
           : str_ieq(mode, STR("Always"))    ? STR("always")
                                             : STR("");
}

static void put_pool(struct out *o, const struct object *pool) {
    const struct jnode *spec = spec_of(pool);
    struct prefix p;
    if (prefix_parse(text(spec, "cidr"), &p) < 0) {
        return;
    }
    const struct jnode *nat = calico_get(spec, "natOutgoing"),
                       *off = calico_get(spec, "disableBGPExport"),
                       *disabled = calico_get(spec, "disabled");
    struct str ipip = text(spec, "ipipMode"), vxlan = text(spec, "vxlanMode");
    bool has_ipip = ipip.n && !str_ieq(ipip, STR("Never"));
    struct buf b = BUF_INIT(4096);
    buf_printf(&b, "{\"cidr\":\"%.*s\",\"ipip\":\"%s\"", STR_FMT(cidr_text(o, &p)),
               has_ipip ? "tunl0" : "");
    put_string(&b, "ipip_mode", mode_name(ipip));
    put_string(&b, "vxlan_mode", mode_name(vxlan));
    buf_printf(&b, ",\"masquerade\":%s,\"disabled\":%s,\"disableBGPExport\":%s}",
               nat && nat->type == J_BOOL && nat->b ? "true" : "false",
               disabled && disabled->type == J_BOOL && disabled->b ? "true" : "false",
               off && off->type == J_BOOL && off->b ? "true" : "false");
    put_at(o, buf_view(&b), "/calico/v1/ipam/v%d/pool/%.*s", p.ip.family == IP_V6 ? 6 : 4,
           STR_FMT(cidr_name(o, &p)));
    buf_fini(&b);
}

static void put_routes(struct out *o) {
    const struct bgp_conf *c = o->v->conf;
    for (size_t i = 0; i < c->n_routes; i++) {
        const struct conf_route *r = &c->routes[i];
        if (r->is_block) {
            put_at(o, STR("{\"state\":\"confirmed\"}"),
                   "/calico/ipam/v2/host/%.*s/ipv%d/block/%.*s", STR_FMT(o->v->node_name),
                   r->prefix.ip.family == IP_V6 ? 6 : 4, STR_FMT(cidr_name(o, &r->prefix)));
        } else {
            put_at(o, cidr_text(o, &r->prefix), "/calico/staticroutes%s/%.*s", suffix(&r->prefix),
                   STR_FMT(cidr_name(o, &r->prefix)));
        }
    }
    for (size_t i = 0; i < c->n_kernel; i++) {
        const struct conf_kernel_rule *k = &c->kernel[i];
        if (str_starts(k->owner, STR("service"))) {
            put_at(o, cidr_text(o, &k->cidr), "/calico/rejectcidrs%s/%.*s", suffix(&k->cidr),
                   STR_FMT(cidr_name(o, &k->cidr)));
        }
    }
}

/* A digest of the whole configuration: passwords stay out of sight, but count. */
static void put_digest(struct out *o) {
    struct buf b = BUF_INIT(64 << 20);
    uint8_t sum[32];
    char hex[65];
    bgp_conf_print(o->v->conf, &b);
    for (size_t i = 0; i < o->v->conf->n_peers; i++) {
        const struct conf_peer *p = &o->v->conf->peers[i];
        uint64_t h = hash_fixed(1, p->password.p, p->password.n);
        buf_add(&b, &h, sizeof(h));
        put_filters(o, &b, p);
    }
    for (size_t i = 0; i < o->k->n; i++) {
        buf_str(&b, o->k->p[i].key);
        buf_putc(&b, '\n');
        buf_str(&b, o->k->p[i].value);
        buf_putc(&b, '\n');
    }
    sha256(b.p, b.n, sum);
    hex_encode(sum, sizeof(sum), hex);
    put(o, STR(CALICO_CONFIG_KEY), str_c(hex));
    buf_fini(&b);
}

bool calico_keys(const struct bgp_view *v, struct kv *k) {
    struct out o = {.v = v, .k = k, .is_ok = true};
    put_global(&o);
    for (size_t i = 0; i < v->n_objects; i++) {
        const struct object *obj = &v->objects[i];
        if (obj->kind->id == K_NODE) {
            put_node(&o, obj);
        } else if (obj->kind->id == K_IP_POOL) {
            put_pool(&o, obj);
        } else if (obj->kind->id == K_BGP_FILTER) {
            put_at(&o, as_json(&o, obj->doc),
                   "/calico/resources/v3/projectcalico.org/bgpfilters/%.*s",
                   STR_FMT(obj->meta.name));
        }
    }
    for (size_t i = 0; i < v->conf->n_peers; i++) {
        put_peer(&o, &v->conf->peers[i]);
    }
    put_routes(&o);
    kv_sort(k); /* so that the digest does not depend on the order of objects */
    put_digest(&o);
    arena_fini(&o.a);
    return o.is_ok;
}
