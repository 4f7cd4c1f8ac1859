/* getBGPConfig, and BGPFilters as functions of BIRD's filter language. The record has the fields of
 * Calico's BirdBGPConfig (confd/pkg/backends/types), with filters in the syntax of BIRD 2, and some
 * of ours: what a template for one BIRD of both families, or for another speaker, needs besides. */
#include "confd/bird_filter.h"
#include "confd/calico.h"
#include "confd/funcs.h"

#include <ctype.h>
#include <stdio.h>

static int fn_filter_name(FUNC_ARGS) {
    struct str s = STR_NULL;
    int r = bird_filter_name(c->arena, value_to_str(&args[0]), value_to_str(&args[1]),
                             value_to_str(&args[2]), &s, e);
    if (r == 0) {
        *out = value_str(s);
    }
    return r;
}

static struct str base_of(struct str key) {
    size_t n = key.n;
    while (n > 0 && key.p[n - 1] != '/') {
        n--;
    }
    return str_sub(key, n, key.n);
}

static int fn_filter_funcs(FUNC_ARGS) {
    struct lines lines = {0};
    int r = 0;
    if (args[1].i != 4 && args[1].i != 6) {
        return err_set(e, ERR_INVALID, "version must be either 4 or 6");
    }
    for (size_t i = 0; i < value_list_n(&args[0]) && r == 0; i++) {
        struct value pair = value_list_get(&args[0], i);
        struct jnode *doc = NULL;
        r = json_parse(value_to_str(&pair.rec[1]), &json_limits_default, c->arena, &doc, e);
        if (r < 0) {
            (void)err_wrap(e, r, "error unmarshalling JSON");
        } else if (doc->type != J_MAP) {
            r = err_set(e, ERR_INVALID, "error unmarshalling JSON: %.*s holds no object",
                        STR_FMT(value_to_str(&pair.rec[0])));
        } else {
            r = bird_filter_lines(c->arena, base_of(value_to_str(&pair.rec[0])), doc, args[1].i,
                                  &lines, e);
        }
    }
    if (r == 0) {
        *out = value_strings(c->arena, lines.p.p, lines.p.n);
    }
    vec_fini(&lines.p);
    return r;
}

/* ---- getBGPConfig ---- */

#define S &VT_STRING
static const struct vfield peer_fields[] = {
    {"Name", S},
    {"IP", S},
    {"Port", S},
    {"ASNumber", S},
    {"LocalASNumber", S},
    {"Type", S},
    {"ImportFilter", S},
    {"ExportFilter", S},
    {"Password", S},
    {"TTLSecurity", S},
    {"RouteReflector", &VT_BOOL},
    {"RRClusterID", S},
    {"SourceAddr", S},
    {"NextHopSelf", &VT_BOOL},
    {"NextHopKeep", &VT_BOOL},
    {"AddPaths", S},
    {"Passive", &VT_BOOL},
    {"GracefulRestart", S},
    {"KeepaliveTime", S},
    {"NumAllowLocalAs", S},
    {"Internal", &VT_BOOL},
    {"Filters", &VT_STRINGS},
    {"ReachableBy", S},
    {"Node", S},
};
enum { N_PEER_FIELDS = ARRAY_LEN(peer_fields) };
static const struct vtype VT_PEER = {.kind = VK_RECORD,
                                     .name = "types.BirdBGPPeer",
                                     .fields = peer_fields,
                                     .n_fields = N_PEER_FIELDS};
static const struct vtype VT_PEERS = {
    .kind = VK_LIST, .name = "[]types.BirdBGPPeer", .elem = &VT_PEER};

static const struct vfield community_fields[] = {{"CIDR", S}, {"AddStatements", &VT_STRINGS}};
static const struct vtype VT_COMMUNITY = {
    .kind = VK_RECORD, .name = "types.CommunityRule", .fields = community_fields, .n_fields = 2};
static const struct vtype VT_COMMUNITIES = {
    .kind = VK_LIST, .name = "[]types.CommunityRule", .elem = &VT_COMMUNITY};

static const struct vfield config_fields[] = {
    {"NodeName", S},
    {"NodeIP", S},
    {"NodeIPv6", S},
    {"ASNumber", S},
    {"RouterID", S},
    {"Peers", &VT_PEERS},
    {"Filters", &VT_MAP_STRING},
    {"Communities", &VT_COMMUNITIES},
    {"LogLevel", S},
    {"DebugMode", S},
    {"PeerDebugMode", S},
    {"ListenAddress", S},
    {"ListenPort", S},
    {"DirectInterfaces", S},
    {"BGPExportFilterForDisabledIPPools", &VT_STRINGS},
    {"BGPExportFilterForEnabledIPPools", &VT_STRINGS},
    {"InternalBGPExportFilter", &VT_STRINGS},
    {"KernelFilterForIPPools", &VT_STRINGS},
    {"ExternalIPs", &VT_STRINGS},
    {"LoadBalancerIPs", &VT_STRINGS},
    {"NormalRoutePriority", &VT_INT},
    {"RRClusterID", S},
    {"Blocks", &VT_STRINGS},
    {"Services", &VT_STRINGS},
    {"RejectCIDRs", &VT_STRINGS},
    {"RejectNextHops", &VT_STRINGS},
    {"Pools", &VT_STRINGS},
    {"Problems", &VT_STRINGS},
};
enum { N_CONFIG_FIELDS = ARRAY_LEN(config_fields) };
static const struct vtype VT_CONFIG = {.kind = VK_RECORD,
                                       .name = "types.BirdBGPConfig",
                                       .fields = config_fields,
                                       .n_fields = N_CONFIG_FIELDS};
static const struct vtype VT_CONFIG_PTR = {
    .kind = VK_PTR, .name = "*types.BirdBGPConfig", .elem = &VT_CONFIG};

struct maker {
    struct arena *a;
    const struct bgp_view *v;
    int version;
    struct err *e;
};

static void set(const struct vfield *fields, size_t n, struct value *rec, const char *name,
                struct value v) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(fields[i].name, name) == 0) {
            rec[i] = v;
            return;
        }
    }
    mg_assert(!"a field that is not in the table");
}
#define SET_PEER(name, v) set(peer_fields, N_PEER_FIELDS, rec, name, v)
#define SET(name, v) set(config_fields, N_CONFIG_FIELDS, rec, name, v)

static struct value *record(struct arena *a, const struct vfield *fields, size_t n) {
    struct value *rec = arena_array(a, struct value, n);
    for (size_t i = 0; i < n; i++) {
        rec[i] = fields[i].type == &VT_STRING ? value_str(STR(""))
                                              : (struct value){.type = fields[i].type};
    }
    return rec;
}

static struct value strings(struct maker *m, struct lines *l) {
    struct value v = value_strings(m->a, l->p.p, l->p.n);
    vec_fini(&l->p);
    return v;
}

static struct value u32_text(struct maker *m, uint32_t v) {
    return value_str(v ? arena_printf(m->a, "%u", v) : STR(""));
}

static struct value ip_value(struct maker *m, const struct ip46 *ip) {
    char out[IP_TEXT_MAX];
    return value_str(ip->family ? arena_dup(m->a, str_c(ip_text(ip, out))) : STR(""));
}

static struct str dotted(struct maker *m, uint32_t v) {
    return arena_printf(m->a, "%u.%u.%u.%u", v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255);
}

static struct str prefix_str(struct maker *m, const struct prefix *p) {
    char out[IP_TEXT_MAX];
    return arena_dup(m->a, str_c(prefix_text(p, out)));
}

static bool of_version(const struct maker *m, const struct prefix *p) {
    return p->ip.family == (m->version == 6 ? IP_V6 : IP_V4);
}

/* Text that can stand between quotes in a configuration file. */
static bool is_quotable(struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == '"' || s.p[i] == '\\' || s.p[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static const struct jnode *spec_of(const struct object *o) {
    return o ? calico_get(o->doc, "spec") : NULL;
}

static const struct jnode *configuration(const struct maker *m, struct str name) {
    return spec_of(calico_find(m->v, K_BGP_CONFIGURATION, name));
}

/* Calls of the peer's BGPFilters in one direction, a line each. */
static int filter_calls(struct maker *m, const struct conf_peer *p, bool is_import,
                        struct buf *out) {
    bool is_internal = p->c.as == calico_own_as(m->v, p);
    jnode_each (f, calico_filters(m->v, p)) {
        const struct object *o = calico_find(m->v, K_BGP_FILTER, jnode_str(f));
        const struct jnode *rules =
            calico_get(spec_of(o), is_import ? (m->version == 4 ? "importV4" : "importV6")
                                             : (m->version == 4 ? "exportV4" : "exportV6"));
        struct str name = STR_NULL;
        if (!rules || !rules->child) {
            continue;
        }
        int r = bird_filter_name(m->a, o->meta.name, is_import ? STR("import") : STR("export"),
                                 m->version == 4 ? STR("4") : STR("6"), &name, m->e);
        if (r < 0) {
            return r;
        }
        bool has_type = bird_filter_has_peer_type(o->doc, is_import, m->version);
        buf_printf(out, "%.*s(%s);\n", STR_FMT(name),
                   !has_type     ? ""
                   : is_internal ? "true"
                                 : "false");
    }
    return 0;
}

static int set_filters(struct maker *m, const struct conf_peer *p, struct value *rec) {
    struct buf in = BUF_INIT(1 << 20), out = BUF_INIT(1 << 20);
    uint32_t normal = m->v->conf->priority[m->version == 6];
    int r = filter_calls(m, p, true, &in);
    buf_printf(&in,
               "if (defined(bgp_local_pref)) then { if (bgp_local_pref > %u) then preference = "
               "200; }\naccept;",
               BGP_PRIORITY_BASE - normal);
    buf_printf(&out,
               "bgp_local_pref = %u;\n"
               "if (defined(krt_metric)) then { if (krt_metric > 0) then bgp_local_pref = %u - "
               "krt_metric; }\n",
               BGP_PRIORITY_BASE - normal, BGP_PRIORITY_BASE);
    r = r < 0 ? r : filter_calls(m, p, false, &out);
    buf_printf(&out, "calico_export_to_bgp_peers_v%d(%s);\nreject;", m->version,
               p->c.as == calico_own_as(m->v, p) ? "true" : "false");
    SET_PEER("ImportFilter", value_str(arena_dup(m->a, buf_view(&in))));
    SET_PEER("ExportFilter", value_str(arena_dup(m->a, buf_view(&out))));
    buf_fini(&in);
    buf_fini(&out);
    return r;
}

/* "Global_192_0_2_1_port_1179": as Calico names the session, which is a symbol of BIRD. */
static struct str session_name(struct maker *m, const struct conf_peer *p) {
    static const char *const KINDS[] = {"Mesh", "Node", "Global", "Local_Workload"};
    char text[IP_TEXT_MAX];
    ip_text(&p->c.address, text);
    for (char *c = text; *c; c++) {
        *c = *c == '.' || *c == ':' ? '_' : *c;
    }
    if (p->type == CONF_MESH || p->c.port == 0 || p->c.port == 179) {
        return arena_printf(m->a, "%s_%s", KINDS[p->type], text);
    }
    return arena_printf(m->a, "%s_%s_port_%u", KINDS[p->type], text, p->c.port);
}

static int make_peer(struct maker *m, const struct conf_peer *p, struct value *out) {
    static const char *const TYPES[] = {"mesh", "nodeLocal", "global", "globalLocal"};
    const struct peer_config *c = &p->c;
    struct value *rec = record(m->a, peer_fields, N_PEER_FIELDS);
    struct lines filters = {0};
    if (!is_quotable(p->password)) {
        return err_set(m->e, ERR_INVALID,
                       "the password of peer %.*s holds a quote, backslash or control character, "
                       "which no BIRD configuration can",
                       STR_FMT(c->name));
    }
    jnode_each (f, calico_filters(m->v, p)) {
        vec_push(&filters.p, jnode_str(f));
    }
    SET_PEER("Name", value_str(session_name(m, p)));
    SET_PEER("IP", ip_value(m, &c->address));
    SET_PEER("Port", u32_text(m, c->port == 179 ? 0 : c->port));
    SET_PEER("ASNumber", u32_text(m, c->as));
    SET_PEER("LocalASNumber", u32_text(m, c->local_as));
    SET_PEER("Type", value_str(str_c(TYPES[p->type])));
    SET_PEER("Password", value_str(p->password));
    SET_PEER("TTLSecurity",
             value_str(c->gtsm ? arena_printf(m->a, "on;\n  multihop %u", c->ttl) : STR("off")));
    SET_PEER("RouteReflector", value_bool(c->is_rr_client));
    SET_PEER("RRClusterID",
             value_str(c->is_rr_client ? dotted(m, m->v->conf->speaker.cluster_id) : STR("")));
    SET_PEER("SourceAddr", ip_value(m, &c->local));
    SET_PEER("NextHopSelf", value_bool(c->next_hop == NEXT_HOP_SELF));
    SET_PEER("NextHopKeep", value_bool(c->next_hop == NEXT_HOP_KEEP));
    SET_PEER("AddPaths", value_str(STR("on")));
    SET_PEER("Passive", value_bool(c->is_passive));
    SET_PEER("GracefulRestart", u32_text(m, c->restart_time_s));
    SET_PEER("KeepaliveTime", u32_text(m, c->keepalive_s));
    SET_PEER("NumAllowLocalAs", u32_text(m, c->allow_own_as));
    SET_PEER("Internal", value_bool(c->as == calico_own_as(m->v, p)));
    SET_PEER("ReachableBy", ip_value(m, &p->gateway));
    SET_PEER("Node", value_str(p->node));
    SET_PEER("Filters", strings(m, &filters));
    *out = value_record(&VT_PEER, rec);
    return set_filters(m, p, rec);
}

static int set_peers(struct maker *m, struct value *rec) {
    const struct bgp_conf *conf = m->v->conf;
    VEC(struct value) peers = {0};
    int r = 0;
    for (size_t i = 0; i < conf->n_peers && r == 0; i++) {
        struct prefix p = {conf->peers[i].c.address, 0};
        struct value v;
        if (of_version(m, &p)) {
            r = make_peer(m, &conf->peers[i], &v);
            if (r == 0) {
                vec_push(&peers, v);
            }
        }
    }
    struct value list = value_list_new(m->a, &VT_PEERS, peers.n);
    for (size_t i = 0; i < peers.n; i++) {
        list.list->p[i] = peers.p[i];
    }
    vec_fini(&peers);
    SET("Peers", list);
    return r;
}

/* ---- filters' lines ---- */

static bool is_true(const struct jnode *map, const char *name) {
    const struct jnode *n = calico_get(map, name);
    return n && n->type == J_BOOL && n->b;
}

static void set_pools(struct maker *m, struct value *rec) {
    struct lines hidden = {0}, shown = {0}, pools = {0};
    for (size_t i = 0; i < m->v->n_objects; i++) {
        const struct object *o = &m->v->objects[i];
        struct prefix p;
        if (o->kind->id != K_IP_POOL ||
            prefix_parse(jnode_str(calico_get(spec_of(o), "cidr")), &p) < 0 || !of_version(m, &p)) {
            continue;
        }
        struct str cidr = prefix_str(m, &p);
        bool is_hidden = is_true(spec_of(o), "disableBGPExport");
        vec_push(&pools.p, cidr);
        if (is_hidden) {
            vec_push(&hidden.p,
                     arena_printf(m->a, "if (net ~ %.*s) then { reject; }", STR_FMT(cidr)));
        } else {
            vec_push(&shown.p,
                     arena_printf(m->a, "if (net ~ %.*s) then { accept; }", STR_FMT(cidr)));
        }
    }
    vec_sort(&hidden.p, str_cmp_qsort);
    vec_sort(&shown.p, str_cmp_qsort);
    vec_sort(&pools.p, str_cmp_qsort);
    SET("BGPExportFilterForDisabledIPPools", strings(m, &hidden));
    SET("BGPExportFilterForEnabledIPPools", strings(m, &shown));
    SET("Pools", strings(m, &pools));
}

/* BIRD 2 has no tunnel attribute: routes through the IPIP device stay the agent's. */
static void set_kernel(struct maker *m, struct value *rec) {
    const struct bgp_conf *conf = m->v->conf;
    struct lines kernel = {0}, reject = {0}, hops = {0}, internal = {0};
    bool agent_owns_ipip = false;
    for (size_t i = 0; i < conf->n_kernel; i++) {
        const struct conf_kernel_rule *k = &conf->kernel[i];
        if (!of_version(m, &k->cidr)) {
            continue;
        }
        struct str cidr = prefix_str(m, &k->cidr);
        struct prefix subnet = prefix_mask(conf->node[BGP_V4]);
        if (str_starts(k->owner, STR("service"))) {
            vec_push(&reject.p, cidr);
            continue;
        }
        agent_owns_ipip = agent_owns_ipip || k->verdict != KERNEL_ACCEPT;
        if (k->verdict == KERNEL_CROSS) {
            vec_push(&kernel.p,
                     arena_printf(m->a,
                                  "if (net ~ %.*s) then { if (defined(bgp_next_hop)) then { if "
                                  "(bgp_next_hop ~ %.*s) then accept; } reject; }",
                                  STR_FMT(cidr), STR_FMT(prefix_str(m, &subnet))));
        } else {
            vec_push(&kernel.p, arena_printf(m->a, "if (net ~ %.*s) then { %s; }", STR_FMT(cidr),
                                             k->verdict == KERNEL_ACCEPT ? "accept" : "reject"));
        }
    }
    for (size_t i = 0; i < conf->n_no_hops; i++) {
        struct prefix p = {conf->no_hops[i], 0};
        char out[IP_TEXT_MAX];
        if (of_version(m, &p)) {
            vec_push(&hops.p, arena_dup(m->a, str_c(ip_text(&conf->no_hops[i], out))));
        }
    }
    vec_push(&internal.p, STR("if ((defined(ifname))&&(ifname ~ \"*.cali\")) then { reject; }"));
    vec_push(&internal.p, STR("if ((defined(ifname))&&(ifname ~ \"*.calico\")) then { reject; }"));
    if (agent_owns_ipip) {
        vec_push(&internal.p, STR("if ((defined(ifname))&&(ifname ~ \"tunl0\")) then { reject; }"));
    }
    SET("KernelFilterForIPPools", strings(m, &kernel));
    SET("RejectCIDRs", strings(m, &reject));
    SET("RejectNextHops", strings(m, &hops));
    SET("InternalBGPExportFilter", strings(m, &internal));
}

static void set_routes(struct maker *m, struct value *rec) {
    const struct bgp_conf *conf = m->v->conf;
    struct lines blocks = {0}, services = {0};
    for (size_t i = 0; i < conf->n_routes; i++) {
        if (of_version(m, &conf->routes[i].prefix)) {
            struct lines *l = conf->routes[i].is_block ? &blocks : &services;
            vec_push(&l->p, prefix_str(m, &conf->routes[i].prefix));
        }
    }
    SET("Blocks", strings(m, &blocks));
    SET("Services", strings(m, &services));
}

static void set_ranges(struct maker *m, struct value *rec, const char *field, const char *list) {
    struct lines l = {0};
    jnode_each (it, calico_get(configuration(m, STR("default")), list)) {
        struct prefix p;
        if (prefix_parse(jnode_str(calico_get(it, "cidr")), &p) == 0 && of_version(m, &p)) {
            vec_push(&l.p, prefix_str(m, &p));
        }
    }
    SET(field, strings(m, &l));
}

/* "bgp_community.add((1, 2));" for each value; names are looked up. */
static struct value statements(struct maker *m, const struct jnode *spec, const struct jnode *adv) {
    struct lines l = {0};
    jnode_each (c, calico_get(adv, "communities")) {
        struct str value = jnode_str(c), part[3] = {STR_NULL};
        jnode_each (named, calico_get(spec, "communities")) {
            if (str_eq(jnode_str(calico_get(named, "name")), jnode_str(c))) {
                value = jnode_str(calico_get(named, "value"));
            }
        }
        size_t n = 0;
        bool is_ok = true;
        for (struct str rest = value; rest.p && n < 3; n++) {
            uint64_t v = 0;
            part[n] = str_cut(&rest, ':');
            is_ok = is_ok && str_to_u64(part[n], &v) == 0 && (n < 2 || !rest.p);
        }
        if (is_ok && n == 2) {
            vec_push(&l.p, arena_printf(m->a, "bgp_community.add((%.*s, %.*s));", STR_FMT(part[0]),
                                        STR_FMT(part[1])));
        } else if (is_ok && n == 3) {
            vec_push(&l.p, arena_printf(m->a, "bgp_large_community.add((%.*s, %.*s, %.*s));",
                                        STR_FMT(part[0]), STR_FMT(part[1]), STR_FMT(part[2])));
        }
    }
    return strings(m, &l);
}

static void set_communities(struct maker *m, struct value *rec) {
    const struct jnode *spec =
        configuration(m, arena_printf(m->a, "node.%.*s", STR_FMT(m->v->node_name)));
    if (!calico_get(spec, "prefixAdvertisements")) {
        spec = configuration(m, STR("default"));
    }
    const struct jnode *list = calico_get(spec, "prefixAdvertisements");
    VEC(struct value) rules = {0};
    jnode_each (adv, list) {
        struct prefix p;
        if (prefix_parse(jnode_str(calico_get(adv, "cidr")), &p) == 0 && of_version(m, &p)) {
            struct value *f = arena_array(m->a, struct value, 2);
            f[0] = value_str(prefix_str(m, &p));
            f[1] = statements(m, spec, adv);
            vec_push(&rules, value_record(&VT_COMMUNITY, f));
        }
    }
    struct value out = value_list_new(m->a, &VT_COMMUNITIES, rules.n);
    for (size_t i = 0; i < rules.n; i++) {
        out.list->p[i] = rules.p[i];
    }
    vec_fini(&rules);
    SET("Communities", out);
}

/* ---- the speaker ---- */

/* logSeverityScreen of the node, else of all. */
static struct str log_setting(struct maker *m) {
    struct str own = arena_printf(m->a, "node.%.*s", STR_FMT(m->v->node_name));
    struct str s = jnode_str(calico_get(configuration(m, own), "logSeverityScreen"));
    s = s.n ? s : jnode_str(calico_get(configuration(m, STR("default")), "logSeverityScreen"));
    return s.n ? s : STR("Info");
}

static struct str lower(struct maker *m, struct str s) {
    struct str d = arena_dup(m->a, s);
    for (size_t i = 0; i < d.n; i++) {
        ((char *)(uintptr_t)d.p)[i] = (char)tolower((unsigned char)d.p[i]);
    }
    return d;
}

static void set_speaker(struct maker *m, struct value *rec) {
    const struct bgp_conf *conf = m->v->conf;
    struct str level = log_setting(m);
    bool is_debug = str_ieq(level, STR("Debug")) || str_ieq(level, STR("Trace"));
    struct str debug = is_debug ? STR("all")
                       : str_ieq(level, STR("None")) || str_ieq(level, STR("Fatal"))
                           ? STR("")
                           : STR("{ states }");
    struct lines problems = {0};
    SET("NodeName", value_str(m->v->node_name));
    SET("NodeIP", ip_value(m, &conf->node[BGP_V4].ip));
    SET("NodeIPv6", ip_value(m, &conf->node[BGP_V6].ip));
    SET("ASNumber", u32_text(m, conf->speaker.as));
    SET("RouterID", value_str(dotted(m, conf->speaker.router_id)));
    SET("RRClusterID",
        value_str(conf->speaker.cluster_id ? dotted(m, conf->speaker.cluster_id) : STR("")));
    SET("LogLevel", value_str(lower(m, level)));
    SET("DebugMode", value_str(debug));
    SET("PeerDebugMode", value_str(debug));
    SET("ListenAddress",
        conf->bind_node_ip ? ip_value(m, &conf->node[m->version == 6].ip) : value_str(STR("")));
    SET("ListenPort", u32_text(m, conf->listen_port));
    SET("NormalRoutePriority", value_int(conf->priority[m->version == 6]));
    SET("Filters", value_map_new(m->a, &VT_MAP_STRING));
    for (size_t i = 0; i < conf->n_problems; i++) {
        vec_push(&problems.p, conf->problems[i]);
    }
    SET("Problems", strings(m, &problems));
    struct buf b = BUF_INIT(1 << 16);
    for (size_t i = 0; i < conf->n_ignored; i++) {
        if (is_quotable(conf->ignored[i])) {
            buf_printf(&b, "-\"%.*s\", ", STR_FMT(conf->ignored[i]));
        }
    }
    buf_puts(&b, "\"*\"");
    SET("DirectInterfaces", value_str(arena_dup(m->a, buf_view(&b))));
    buf_fini(&b);
}

static int fn_get_bgp_config(FUNC_ARGS) {
    struct funcs *f = c->ctx;
    if (!f->bgp) {
        return err_set(e, ERR_INVALID,
                       "client does not support GetBirdBGPConfig: use -backend "
                       "calico");
    }
    if (args[0].i != 4 && args[0].i != 6) {
        return err_set(e, ERR_INVALID, "version must be either 4 or 6");
    }
    struct maker m = {c->arena, f->bgp, (int)args[0].i, e};
    struct value *rec = record(c->arena, config_fields, N_CONFIG_FIELDS);
    kv_view_note(f->view, STR(CALICO_CONFIG_KEY));
    set_speaker(&m, rec);
    set_pools(&m, rec);
    set_kernel(&m, rec);
    set_routes(&m, rec);
    set_ranges(&m, rec, "ExternalIPs", "serviceExternalIPs");
    set_ranges(&m, rec, "LoadBalancerIPs", "serviceLoadBalancerIPs");
    set_communities(&m, rec);
    int r = set_peers(&m, rec);
    if (r == 0) {
        struct value *to = arena_array(c->arena, struct value, 1);
        *to = value_record(&VT_CONFIG, rec);
        *out = value_ptr(&VT_CONFIG_PTR, to);
    }
    return r;
}

/* What templates of Calico's pass to getBGPConfig. */
static const struct vtype VT_CLIENT_TO = {.kind = VK_RECORD, .name = "calico.client"};
static const struct vtype VT_CLIENT = {
    .kind = VK_PTR, .name = "*calico.client", .elem = &VT_CLIENT_TO};

struct value funcs_dot(const struct funcs *f) {
    static struct value none;
    none = value_record(&VT_CLIENT_TO, &none);
    return f->bgp ? value_ptr(&VT_CLIENT, &none) : VALUE_NIL;
}

static const struct tmpl_func table[] = {
    {"bgpFilterFunctionName", fn_filter_name, 3, false, {S, S, S}},
    {"bgpFilterBIRDFuncs", fn_filter_funcs, 2, false, {&VT_KVPAIRS, &VT_INT}},
    {"getBGPConfig", fn_get_bgp_config, 2, false, {&VT_INT, &VT_ANY}},
};
const struct func_part funcs_bgp = {table, ARRAY_LEN(table)};
