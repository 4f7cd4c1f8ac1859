/* What the speaker says of itself: status and routes as JSON, metrics, explanations. */
#include "base/clock.h"
#include "bgp/ctl.h"

#include <stdio.h>

static const char *const FAMILIES[] = {"IPv4", "IPv6"};
static const char *const SOURCES[] = {"BGP", "Kernel", "Direct", "Static", "Local"};

uint16_t bgp_report_find(const struct bgp_proc *p, struct str name) {
    struct speaker *s = bgp_proc_speaker(p);
    struct ip46 ip;
    bool is_ip = ip_parse(name, &ip) == 0;
    for (uint16_t id = 0; (id = speaker_peer_next(s, id));) {
        const struct peer_config *c = speaker_peer_config(s, id);
        const struct conf_peer *conf = bgp_proc_peer(p, id);
        if (str_eq(c->name, name) || (is_ip && ip_eq(&c->address, &ip)) ||
            (conf && name.n && (str_eq(conf->session, name) || str_eq(conf->resource, name)))) {
            return id;
        }
    }
    return 0;
}

/* ---- building ---- */

struct tree {
    struct arena *a;
    struct jnode *map;
};

static void set(const struct tree *t, const char *key, struct jnode *v) {
    jnode_set(t->a, t->map, str_c(key), v);
}
static void set_str(const struct tree *t, const char *key, struct str v) {
    set(t, key, jnode_new_str(t->a, arena_dup(t->a, v.p ? v : STR(""))));
}
static void set_int(const struct tree *t, const char *key, int64_t v) {
    set(t, key, jnode_new_int(t->a, v));
}
static void set_bool(const struct tree *t, const char *key, bool v) {
    set(t, key, jnode_new_bool(t->a, v));
}
static struct tree sub(const struct tree *t, const char *key) {
    struct tree s = {t->a, jnode_new(t->a, J_MAP)};
    set(t, key, s.map);
    return s;
}

static void set_ip(const struct tree *t, const char *key, const struct ip46 *ip) {
    char text[IP_TEXT_MAX];
    set_str(t, key, str_c(ip->family ? ip_text(ip, text) : ""));
}

static void set_id(const struct tree *t, const char *key, uint32_t id) {
    char text[IP_TEXT_MAX];
    struct ip46 ip = {.family = IP_V4};
    set_u32(ip.b, id);
    set_str(t, key, str_c(ip_text(&ip, text)));
}

/* A moment of the loop's clock as wall time. */
static void set_since(const struct tree *t, const char *key, int64_t at_ns, int64_t now_ns) {
    char text[32];
    set_str(t, key, str_c(clock_rfc3339(clock_wall_ns() - (now_ns - at_ns), text)));
}

static void set_wall(const struct tree *t, const char *key, int64_t wall_ns) {
    char text[32];
    set_str(t, key, str_c(clock_rfc3339(wall_ns, text)));
}

/* ---- status ---- */

static const char *type_name(const struct conf_peer *c) {
    static const char *const NAMES[] = {
        [CONF_MESH] = "node-to-node mesh",
        [CONF_NODE_PEER] = "node specific",
        [CONF_GLOBAL_PEER] = "global",
        [CONF_WORKLOAD_PEER] = "local workload",
    };
    return c ? NAMES[c->type] : "";
}

static void set_notification(const struct tree *t, const struct peer_status *st, int64_t now_ns) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    if (st->last.code == 0) {
        return;
    }
    struct tree n = sub(t, "lastNotification");
    bgp_fail_name(&b, st->last.code, st->last.subcode);
    set_str(&n, "text", buf_view(&b));
    set_int(&n, "code", st->last.code);
    set_int(&n, "subcode", st->last.subcode);
    set_str(&n, "said", bgp_shutdown_text(&st->last));
    set_str(&n, "direction", str_c(st->last_is_sent ? "sent" : "received"));
    set_since(&n, "at", st->last_at, now_ns);
}

static void set_bfd(const struct tree *t, const struct bgp_proc *p, uint16_t id, int64_t now_ns) {
    struct bfd_status b;
    if (!bgp_proc_bfd(p, id, &b)) {
        return;
    }
    struct tree n = sub(t, "bfd");
    set_str(&n, "state", str_c(bfd_state_name(b.state)));
    set_str(&n, "diagnostic", str_c(bfd_diag_name(b.diag)));
    set_since(&n, "since", b.since_ns, now_ns);
    set_int(&n, "transmitIntervalUs", b.tx_us);
    set_int(&n, "detectionTimeUs", b.detection_us);
    set_int(&n, "packetsIn", (int64_t)b.n_in);
    set_int(&n, "packetsOut", (int64_t)b.n_out);
    set_int(&n, "failures", (int64_t)b.n_failures);
}

static void set_family(const struct tree *t, const char *name, const struct family_status *f) {
    struct tree n = sub(t, name);
    set_int(&n, "received", f->n_received);
    set_int(&n, "accepted", f->n_accepted);
    set_int(&n, "best", f->n_best);
    set_int(&n, "sent", f->n_sent);
    set_int(&n, "stale", f->n_stale);
    set_bool(&n, "endOfRIB", f->is_eor_received);
    set_bool(&n, "inSync", f->is_in_sync);
    set_bool(&n, "addPathSend", f->addpath_send);
    set_bool(&n, "addPathReceive", f->addpath_receive);
}

static struct jnode *peer_tree(struct bgp_proc *p, uint16_t id, int64_t now_ns, struct arena *a) {
    struct speaker *s = bgp_proc_speaker(p);
    const struct peer_config *c = speaker_peer_config(s, id);
    const struct conf_peer *conf = bgp_proc_peer(p, id);
    struct peer_status st;
    struct tree t = {a, jnode_new(a, J_MAP)};
    char range[IP_TEXT_MAX];
    if (!speaker_peer_status(s, id, &st)) {
        return NULL;
    }
    bool is_up = st.state == BGP_ESTABLISHED;
    set_str(&t, "name", conf && !st.is_dynamic ? conf->session : c->name);
    set_str(&t, "type", str_c(type_name(conf)));
    set_str(&t, "bgpPeer", conf ? conf->resource : STR(""));
    set_str(&t, "node", conf ? conf->node : STR(""));
    set_ip(&t, "ip", &st.address);
    if (c->range.ip.family && !st.address.family) {
        set_str(&t, "range", str_c(prefix_text(&c->range, range)));
    }
    set_int(&t, "as", st.as ? st.as : c->as);
    set_str(&t, "state", str_c(bgp_state_name(st.state)));
    set_bool(&t, "isUp", is_up);
    set_str(&t, "reason", str_c(st.reason ? st.reason : ""));
    set_since(&t, "since", st.since, now_ns);
    set_bool(&t, "isPassive", c->is_passive);
    if (is_up) {
        set_id(&t, "routerID", st.router_id);
        set_int(&t, "holdTime", st.hold_s);
        set_int(&t, "keepaliveTime", st.keepalive_s);
        set_bool(&t, "gracefulRestart", st.received.has_gr);
        set_int(&t, "peerRestartTime", st.received.gr_time_s);
    }
    set_notification(&t, &st, now_ns);
    set_bfd(&t, p, id, now_ns);
    struct tree families = sub(&t, "families");
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        if (st.family[f].is_negotiated || (!is_up && c->family[f].is_enabled)) {
            set_family(&families, FAMILIES[f], &st.family[f]);
        }
    }
    set_int(&t, "messagesIn", (int64_t)st.msgs_in);
    set_int(&t, "messagesOut", (int64_t)st.msgs_out);
    set_int(&t, "updatesIn", (int64_t)st.updates_in);
    set_int(&t, "updatesOut", (int64_t)st.updates_out);
    set_int(&t, "bytesIn", (int64_t)st.bytes_in);
    set_int(&t, "bytesOut", (int64_t)st.bytes_out);
    set_int(&t, "timesEstablished", st.n_established);
    set_int(&t, "updateErrors", st.n_update_errors);
    return t.map;
}

static void set_kernel(const struct tree *t, const struct bgp_kernel *k) {
    struct kernel_stats ks;
    if (!k) {
        return;
    }
    struct tree n = sub(t, "kernel");
    bgp_kernel_stats(k, &ks);
    set_int(&n, "routes", (int64_t)ks.n_routes);
    set_int(&n, "waiting", (int64_t)ks.n_waiting);
    set_int(&n, "conflicts", (int64_t)ks.n_conflicts);
    set_int(&n, "foreign", (int64_t)ks.n_foreign);
    set_int(&n, "writes", (int64_t)ks.n_writes);
    set_int(&n, "failures", (int64_t)ks.n_failures);
    set_int(&n, "scans", (int64_t)ks.n_scans);
    set_bool(&n, "keepsPredecessors", bgp_kernel_has_leftovers(k));
}

static void set_tables(const struct tree *t, const struct speaker *s) {
    struct speaker_stats ss;
    struct tree n = sub(t, "tables");
    speaker_stats(s, &ss);
    set_int(&n, "prefixesIPv4", (int64_t)ss.n_prefixes[BGP_V4]);
    set_int(&n, "prefixesIPv6", (int64_t)ss.n_prefixes[BGP_V6]);
    set_int(&n, "routes", (int64_t)ss.n_routes);
    set_int(&n, "attributes", (int64_t)ss.n_attrs);
    set_int(&n, "nextHops", (int64_t)ss.n_next_hops);
    set_int(&n, "updateGroups", (int64_t)ss.n_groups);
    set_int(&n, "bytes", (int64_t)ss.bytes);
}

void bgp_report_status(struct bgp_proc *p, int64_t now_ns, struct buf *out) {
    struct arena a = {0};
    struct speaker *s = bgp_proc_speaker(p);
    const struct bgp_conf *c = bgp_proc_conf(p);
    struct tree t = {&a, jnode_new(&a, J_MAP)};
    set_int(&t, "as", c->speaker.as);
    set_id(&t, "routerID", c->speaker.router_id);
    if (c->speaker.cluster_id) {
        set_id(&t, "clusterID", c->speaker.cluster_id);
    }
    set_wall(&t, "bootTime", bgp_proc_started_wall_ns(p));
    set_wall(&t, "reconfigurationTime", bgp_proc_applied_wall_ns(p));
    struct jnode *peers = jnode_new(&a, J_LIST), *problems = jnode_new(&a, J_LIST);
    for (uint16_t id = 0; (id = speaker_peer_next(s, id));) {
        struct jnode *n = peer_tree(p, id, now_ns, &a);
        if (n) {
            jnode_append(peers, n);
        }
    }
    set(&t, "peers", peers);
    set_tables(&t, s);
    set_kernel(&t, bgp_proc_kernel(p));
    for (size_t i = 0; i < c->n_problems; i++) {
        jnode_append(problems, jnode_new_str(&a, c->problems[i]));
    }
    set(&t, "problems", problems);
    json_write(out, t.map, 0);
    buf_putc(out, '\n');
    arena_fini(&a);
}

/* ---- routes ---- */

static void print_communities(struct buf *out, const struct attr_src *a) {
    struct str c = a->part[PART_COMMUNITIES], l = a->part[PART_LARGE];
    bool first = true;
    buf_puts(out, ",\"communities\":[");
    for (size_t i = 0; i + 4 <= c.n; i += 4) {
        const uint8_t *x = (const uint8_t *)c.p + i;
        buf_printf(out, "%s\"%u:%u\"", first ? "" : ",", get_u16(x), get_u16(x + 2));
        first = false;
    }
    for (size_t i = 0; i + 12 <= l.n; i += 12) {
        const uint8_t *x = (const uint8_t *)l.p + i;
        buf_printf(out, "%s\"%u:%u:%u\"", first ? "" : ",", get_u32(x), get_u32(x + 4),
                   get_u32(x + 8));
        first = false;
    }
    buf_putc(out, ']');
}

void bgp_report_route(struct bgp_proc *p, const struct route_view *v, struct buf *out) {
    static const char *const ORIGINS[] = {"IGP", "EGP", "incomplete"};
    MG_CLEANUP(buf_fini) struct buf way = BUF_INIT(4096);
    const struct peer_config *c =
        v->peer ? speaker_peer_config(bgp_proc_speaker(p), v->peer) : NULL;
    struct bgp_kernel *k = bgp_proc_kernel(p);
    char text[IP_TEXT_MAX];
    buf_printf(out, "{\"prefix\":\"%s\",\"source\":\"%s\",\"peer\":", prefix_text(&v->prefix, text),
               SOURCES[v->peer ? ROUTE_PEER : v->source]);
    json_quote(out, c ? c->name : STR(""));
    buf_printf(out, ",\"nextHop\":\"%s\"",
               v->attrs.next_hop.family ? ip_text(&v->attrs.next_hop, text) : "");
    buf_puts(out, ",\"asPath\":\"");
    as_path_print(out, v->attrs.part[PART_AS_PATH]);
    buf_printf(out, "\",\"origin\":\"%s\"", ORIGINS[v->attrs.origin % 3]);
    if (v->attrs.has & HAS_LOCAL_PREF) {
        buf_printf(out, ",\"localPref\":%u", v->attrs.local_pref);
    }
    if (v->attrs.has & HAS_MED) {
        buf_printf(out, ",\"med\":%u", v->attrs.med);
    }
    print_communities(out, &v->attrs);
    if (v->path_id) {
        buf_printf(out, ",\"pathID\":%u", v->path_id);
    }
    buf_printf(out, ",\"best\":%s,\"multipath\":%s,\"stale\":%s,\"rejected\":%s,\"unreachable\":%s",
               v->is_best ? "true" : "false", v->is_in_kernel_set ? "true" : "false",
               v->is_stale || v->is_llgr_stale ? "true" : "false",
               v->is_rejected ? "true" : "false", v->is_unreachable ? "true" : "false");
    if (k && v->is_best && bgp_kernel_print(k, &v->prefix, &way)) {
        buf_puts(out, ",\"kernel\":");
        json_quote(out, buf_view(&way));
    }
    buf_puts(out, "}\n");
}

/* ---- explain ---- */

void bgp_report_explain(struct bgp_proc *p, const struct prefix *net, uint16_t peer,
                        struct buf *out) {
    static const char *const VERDICTS[] = {"written", "left to others", "by the tunnel",
                                           "by the tunnel across subnets"};
    const struct bgp_conf *c = bgp_proc_conf(p);
    struct bgp_kernel *k = bgp_proc_kernel(p);
    struct prefix masked = prefix_mask(*net), found;
    struct speaker *s = bgp_proc_speaker(p);
    char text[IP_TEXT_MAX];
    for (size_t i = 0; i < c->n_routes; i++) {
        if (prefix_has(&c->routes[i].prefix, &masked)) {
            buf_printf(out, "announced by this node: %s, %.*s\n",
                       prefix_text(&c->routes[i].prefix, text), STR_FMT(c->routes[i].owner));
        }
    }
    if (speaker_lookup(s, &masked.ip, &found) && !prefix_eq(&found, &masked)) {
        buf_printf(out, "longest prefix with a route for %s: ", ip_text(&masked.ip, text));
        buf_printf(out, "%s\n", prefix_text(&found, text));
    }
    speaker_explain(s, &masked, peer, out);
    for (size_t i = 0; i < c->n_kernel; i++) {
        if (prefix_has(&c->kernel[i].cidr, &masked)) {
            buf_printf(out, "kernel: %s, decided by %.*s\n", VERDICTS[c->kernel[i].verdict],
                       STR_FMT(c->kernel[i].owner));
            break;
        }
    }
    if (k) {
        buf_puts(out, "kernel has: ");
        if (!bgp_kernel_print(k, &masked, out)) {
            buf_puts(out, "no route of ours");
        }
        buf_putc(out, '\n');
    }
}

/* ---- metrics ---- */

static void metric(struct buf *out, const char *name, const char *type, const char *help) {
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

struct peer_metric {
    const char *name, *type, *help;
    int64_t (*value)(const struct peer_status *st);
};

static int64_t is_up(const struct peer_status *st) {
    return st->state == BGP_ESTABLISHED;
}
static int64_t n_established(const struct peer_status *st) {
    return st->n_established;
}
static int64_t n_errors(const struct peer_status *st) {
    return st->n_update_errors;
}
static int64_t n_in(const struct peer_status *st) {
    return (int64_t)st->msgs_in;
}
static int64_t n_out(const struct peer_status *st) {
    return (int64_t)st->msgs_out;
}

static const struct peer_metric PEER_METRICS[] = {
    {"bgp_peer_up", "gauge", "1 while the session is established.", is_up},
    {"bgp_peer_established_total", "counter", "Times that the session was established.",
     n_established},
    {"bgp_peer_update_errors_total", "counter", "Malformed UPDATEs (RFC 7606).", n_errors},
    {"bgp_peer_messages_received_total", "counter", "Messages received.", n_in},
    {"bgp_peer_messages_sent_total", "counter", "Messages sent.", n_out},
};

static void print_peer_metrics(struct bgp_proc *p, struct buf *out) {
    struct speaker *s = bgp_proc_speaker(p);
    struct peer_status st;
    for (size_t i = 0; i < ARRAY_LEN(PEER_METRICS); i++) {
        const struct peer_metric *m = &PEER_METRICS[i];
        metric(out, m->name, m->type, m->help);
        for (uint16_t id = 0; (id = speaker_peer_next(s, id));) {
            if (speaker_peer_status(s, id, &st)) {
                buf_printf(out, "%s{peer=\"%.*s\"} %lld\n", m->name,
                           STR_FMT(speaker_peer_config(s, id)->name), (long long)m->value(&st));
            }
        }
    }
    static const char *const KINDS[] = {"received", "accepted", "sent", "stale"};
    metric(out, "bgp_peer_prefixes", "gauge", "Prefixes of a session by family and kind.");
    for (uint16_t id = 0; (id = speaker_peer_next(s, id));) {
        if (!speaker_peer_status(s, id, &st)) {
            continue;
        }
        for (int f = 0; f < BGP_N_FAMILIES; f++) {
            const struct family_status *x = &st.family[f];
            const uint32_t values[] = {x->n_received, x->n_accepted, x->n_sent, x->n_stale};
            for (size_t i = 0; x->is_negotiated && i < ARRAY_LEN(KINDS); i++) {
                buf_printf(out, "bgp_peer_prefixes{peer=\"%.*s\",family=\"%s\",kind=\"%s\"} %u\n",
                           STR_FMT(speaker_peer_config(s, id)->name), FAMILIES[f], KINDS[i],
                           values[i]);
            }
        }
    }
}

static void print_monitor_metrics(struct bgp_proc *p, struct buf *out) {
    struct monitor_stats ms;
    bgp_monitor_stats(bgp_proc_monitor(p), &ms);
    metric(out, "bgp_bmp_stations", "gauge", "BMP stations by state.");
    buf_printf(out, "bgp_bmp_stations{state=\"up\"} %zu\n", ms.n_connected);
    buf_printf(out, "bgp_bmp_stations{state=\"down\"} %zu\n", ms.n_stations - ms.n_connected);
    metric(out, "bgp_bmp_bytes_total", "counter", "Bytes sent to BMP stations.");
    buf_printf(out, "bgp_bmp_bytes_total %llu\n", (unsigned long long)ms.n_sent_bytes);
    metric(out, "bgp_bmp_lost_total", "counter",
           "BMP stations given up because they read too slowly.");
    buf_printf(out, "bgp_bmp_lost_total %llu\n", (unsigned long long)ms.n_lost);
    metric(out, "bgp_mrt_records_total", "counter", "MRT records of messages and states.");
    buf_printf(out, "bgp_mrt_records_total %llu\n", (unsigned long long)ms.n_mrt_records);
    metric(out, "bgp_mrt_failures_total", "counter", "MRT files that could not be written.");
    buf_printf(out, "bgp_mrt_failures_total %llu\n", (unsigned long long)ms.n_mrt_failures);
}

void bgp_report_metrics(struct bgp_proc *p, struct buf *out) {
    struct speaker_stats ss;
    struct kernel_stats ks = {0};
    struct bgp_kernel *k = bgp_proc_kernel(p);
    print_peer_metrics(p, out);
    speaker_stats(bgp_proc_speaker(p), &ss);
    metric(out, "bgp_prefixes", "gauge", "Prefixes in the table.");
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        buf_printf(out, "bgp_prefixes{family=\"%s\"} %zu\n", FAMILIES[f], ss.n_prefixes[f]);
    }
    metric(out, "bgp_routes", "gauge", "Routes in the tables.");
    buf_printf(out, "bgp_routes %zu\n", ss.n_routes);
    metric(out, "bgp_table_bytes", "gauge", "Memory of the tables.");
    buf_printf(out, "bgp_table_bytes %zu\n", ss.bytes);
    metric(out, "bgp_configuration_problems", "gauge", "Things asked for that can't be done.");
    buf_printf(out, "bgp_configuration_problems %zu\n", bgp_proc_conf(p)->n_problems);
    print_monitor_metrics(p, out);
    if (!k) {
        return;
    }
    bgp_kernel_stats(k, &ks);
    metric(out, "bgp_kernel_routes", "gauge", "Routes of ours in the kernel.");
    buf_printf(out, "bgp_kernel_routes %zu\n", ks.n_routes);
    metric(out, "bgp_kernel_waiting", "gauge", "Routes not written yet.");
    buf_printf(out, "bgp_kernel_waiting %zu\n", ks.n_waiting);
    metric(out, "bgp_kernel_conflicts", "gauge", "Prefixes that foreign routes keep from us.");
    buf_printf(out, "bgp_kernel_conflicts %zu\n", ks.n_conflicts);
    metric(out, "bgp_kernel_writes_total", "counter", "Routes written or removed.");
    buf_printf(out, "bgp_kernel_writes_total %llu\n", (unsigned long long)ks.n_writes);
    metric(out, "bgp_kernel_failures_total", "counter", "Routes that the kernel refused.");
    buf_printf(out, "bgp_kernel_failures_total %llu\n", (unsigned long long)ks.n_failures);
}
