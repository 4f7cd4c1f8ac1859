#include "node/settings.h"

#include "base/fd.h"
#include "base/vec.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

enum { FILE_MAX = 1 << 20 };

/* Puts a value's text into its place; false: not understood. */
typedef bool (*take)(struct settings *s, struct str v);

static bool parse_bool(struct str v, bool *out) {
    static const char *const yes[] = {"true", "1", "yes", "y", "t"};
    static const char *const no[] = {"false", "0", "no", "n", "f"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        if (str_ieq(v, str_c(yes[i])) || str_ieq(v, str_c(no[i]))) {
            *out = str_ieq(v, str_c(yes[i]));
            return true;
        }
    }
    return false;
}

static bool parse_port(struct str v, uint16_t *out) {
    uint64_t n;
    if (str_to_u64(v, &n) < 0 || n > 65535) {
        return false;
    }
    *out = (uint16_t)n;
    return true;
}

static bool take_prefix(struct settings *s, struct str v) {
    size_t n = 0;
    struct str out[DATAPLANE_MAX_PREFIXES] = {{NULL, 0}};
    for (struct str rest = v; rest.p;) {
        struct str p = str_trim(str_cut(&rest, ','));
        if (p.n == 0 || p.n > 11 || n == DATAPLANE_MAX_PREFIXES) {
            return false;
        }
        out[n++] = arena_dup(&s->a, p);
    }
    memcpy(s->iface_prefixes, out, sizeof(out));
    s->n_iface_prefixes = n;
    return n > 0;
}
/* Index of the word among n, in any case; -1: none of them. */
static int word_of(struct str v, const char *const *words, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (str_ieq(v, str_c(words[i]))) {
            return (int)i;
        }
    }
    return -1;
}
static bool take_to_host(struct settings *s, struct str v) {
    static const char *const names[] = {
        [TO_HOST_DROP] = "Drop", [TO_HOST_RETURN] = "Return", [TO_HOST_ACCEPT] = "Accept"};
    int i = word_of(v, names, ARRAY_LEN(names));
    s->endpoint_to_host = i < 0 ? TO_HOST_DROP : (enum endpoint_to_host)i;
    return i >= 0;
}
static bool take_deny(struct settings *s, struct str v) {
    static const char *const names[] = {[DENY_DROP] = "Drop", [DENY_REJECT] = "Reject"};
    int i = word_of(v, names, ARRAY_LEN(names));
    s->deny = i < 0 ? DENY_DROP : (enum deny_action)i;
    return i >= 0;
}
static bool take_override(struct settings *s, struct str v) {
    static const char *const names[] = {[OVERRIDE_DROP] = "Drop",
                                        [OVERRIDE_ACCEPT] = "Accept",
                                        [OVERRIDE_LOG_DROP] = "LogAndDrop",
                                        [OVERRIDE_LOG_ACCEPT] = "LogAndAccept"};
    int i = word_of(v, names, ARRAY_LEN(names));
    s->drop_override = i < 0 ? OVERRIDE_DROP : (enum drop_override)i;
    return i >= 0;
}
static bool take_insert_mode(struct settings *s, struct str v) {
    static const char *const names[] = {"Insert", "Append"};
    int i = word_of(v, names, ARRAY_LEN(names));
    s->is_append = i == 1;
    return i >= 0;
}
static bool take_established(struct settings *s, struct str v) {
    static const char *const names[] = {"keep", "cut"};
    int i = word_of(v, names, ARRAY_LEN(names));
    s->cuts_established = i == 1;
    return i >= 0;
}

/* "22", "tcp:22", "tcp:10.0.0.0/8:22", "tcp:[fd00::]/8:22" */
static bool parse_failsafe(struct str v, struct dataplane_failsafe *out) {
    static const struct {
        const char *name;
        uint8_t number;
    } protocols[] = {{"tcp", IPPROTO_TCP}, {"udp", IPPROTO_UDP}, {"sctp", IPPROTO_SCTP}};
    *out = (struct dataplane_failsafe){.protocol = IPPROTO_TCP};
    ptrdiff_t first = str_find(v, ':', 0), last = first;
    for (ptrdiff_t i = first; i >= 0; i = str_find(v, ':', (size_t)i + 1)) {
        last = i;
    }
    if (!parse_port(str_sub(v, (size_t)(last + 1), v.n), &out->port) || out->port == 0) {
        return false;
    }
    bool is_known = first < 0;
    for (size_t i = 0; i < ARRAY_LEN(protocols) && first >= 0; i++) {
        if (str_ieq(str_sub(v, 0, (size_t)first), str_c(protocols[i].name))) {
            out->protocol = protocols[i].number;
            is_known = true;
        }
    }
    if (!is_known || first == last) {
        return is_known;
    }
    char net[80];
    size_t n = 0;
    for (ptrdiff_t i = first + 1; i < last && n < sizeof(net) - 1; i++) {
        if (v.p[i] != '[' && v.p[i] != ']') {
            net[n++] = v.p[i];
        }
    }
    bool ok = prefix_parse(str_n(net, n), &out->net) == 0;
    out->net = prefix_mask(out->net);
    return ok;
}

static bool take_failsafe(struct settings *s, struct str v, enum calc_dir dir) {
    VEC(struct dataplane_failsafe) list = {0};
    bool ok = true;
    bool is_none = str_trim(v).n == 0 || str_ieq(str_trim(v), STR("none"));
    for (struct str rest = v; rest.p && ok && !is_none;) {
        struct dataplane_failsafe f = {.port = 0};
        ok = list.n < 1000 && parse_failsafe(str_trim(str_cut(&rest, ',')), &f);
        vec_push(&list, f);
    }
    if (ok) {
        s->failsafe[dir] = arena_array(&s->a, struct dataplane_failsafe, list.n);
        s->n_failsafe[dir] = list.n;
        for (size_t i = 0; i < list.n; i++) {
            s->failsafe[dir][i] = list.p[i];
        }
    }
    vec_fini(&list);
    return ok;
}
static bool take_failsafe_in(struct settings *s, struct str v) {
    return take_failsafe(s, v, CALC_INGRESS);
}
static bool take_failsafe_out(struct settings *s, struct str v) {
    return take_failsafe(s, v, CALC_EGRESS);
}
static bool take_invalid(struct settings *s, struct str v) {
    return parse_bool(v, &s->has_no_invalid_check);
}
static bool take_pods_vxlan(struct settings *s, struct str v) {
    return parse_bool(v, &s->may_vxlan);
}
static bool take_pods_ipip(struct settings *s, struct str v) {
    return parse_bool(v, &s->may_ipip);
}
static bool take_floating(struct settings *s, struct str v) {
    s->has_floating_ips = str_ieq(v, STR("Enabled"));
    return s->has_floating_ips || str_ieq(v, STR("Disabled"));
}
static bool take_spoofing(struct settings *s, struct str v) {
    s->may_spoof = str_ieq(v, STR("Any"));
    return s->may_spoof || str_ieq(v, STR("Disabled"));
}
static bool take_log_prefix(struct settings *s, struct str v) {
    s->log_prefix = arena_dup(&s->a, v);
    return v.n <= 100;
}
static bool take_mtu_pattern(struct settings *s, struct str v) {
    regex_t x;
    struct str text = arena_dup(&s->a, v); /* with a NUL behind it */
    if (v.n > 1000 || regcomp(&x, text.p, REG_EXTENDED | REG_NOSUB) != 0) {
        return false;
    }
    regfree(&x);
    s->mtu_pattern = text;
    return true;
}
static bool take_log_level(struct settings *s, struct str v) {
    return log_level_parse(v, &s->log_level);
}
static bool take_health(struct settings *s, struct str v) {
    return parse_bool(v, &s->has_health);
}
static bool take_health_host(struct settings *s, struct str v) {
    s->health_host = arena_dup(&s->a, v);
    return true;
}
static bool take_health_port(struct settings *s, struct str v) {
    return parse_port(v, &s->health_port);
}
static bool take_metrics(struct settings *s, struct str v) {
    return parse_bool(v, &s->has_metrics);
}
static bool take_metrics_host(struct settings *s, struct str v) {
    s->metrics_host = arena_dup(&s->a, v);
    return true;
}
static bool take_metrics_port(struct settings *s, struct str v) {
    return parse_port(v, &s->metrics_port);
}
static bool take_route_proto(struct settings *s, struct str v) {
    uint64_t n;
    if (str_to_u64(v, &n) < 0 || n == 0 || n > 255) {
        return false;
    }
    s->route_proto = (uint8_t)n;
    return true;
}

static bool take_number(struct str v, uint64_t max, uint32_t *out) {
    uint64_t n;
    if (str_to_u64(v, &n) < 0 || n > max) {
        return false;
    }
    *out = (uint32_t)n;
    return true;
}
static bool take_vxlan_vni(struct settings *s, struct str v) {
    return take_number(v, 0xffffff, &s->vxlan_vni);
}
static bool take_vxlan_port(struct settings *s, struct str v) {
    return parse_port(v, &s->vxlan_port) && s->vxlan_port;
}
static bool take_vxlan_mtu(struct settings *s, struct str v) {
    return take_number(v, 65535, &s->vxlan_mtu[0]);
}
static bool take_vxlan_mtu_v6(struct settings *s, struct str v) {
    return take_number(v, 65535, &s->vxlan_mtu[1]);
}

static const struct setting {
    const char *name; /* of the field; the environment's is FELIX_ and this in capitals */
    take take;
    const char *deflt, *allowed;
} table[] = {
    {"interfacePrefix", take_prefix, "cali", "1 to 8 prefixes of at most 11 bytes, with commas"},
    {"defaultEndpointToHostAction", take_to_host, "Drop", "Drop, Return, Accept"},
    {"nftablesFilterDenyAction", take_deny, "Drop", "Drop, Reject"},
    {"dropActionOverride", take_override, "Drop",
     "Drop, Accept, LogAndDrop, LogAndAccept: what becomes of packets that policies deny"},
    {"chainInsertMode", take_insert_mode, "Insert",
     "Insert, Append: before or after the filters of others"},
    {"establishedPolicy", take_established, "keep",
     "keep, cut: connections that a change of policy now denies go on, or end"},
    {"failsafeInboundHostPorts", take_failsafe_in,
     "tcp:22,udp:68,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667",
     "PROTOCOL:PORT or PROTOCOL:NET:PORT with commas; none"},
    {"failsafeOutboundHostPorts", take_failsafe_out,
     "udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667",
     "PROTOCOL:PORT or PROTOCOL:NET:PORT with commas; none"},
    {"disableConntrackInvalidCheck", take_invalid, "false", "true, false"},
    {"allowVXLANPacketsFromWorkloads", take_pods_vxlan, "false", "true, false"},
    {"allowIPIPPacketsFromWorkloads", take_pods_ipip, "false", "true, false"},
    {"floatingIPs", take_floating, "Disabled", "Disabled, Enabled"},
    {"workloadSourceSpoofing", take_spoofing, "Disabled", "Disabled, Any"},
    {"mtuIfacePattern", take_mtu_pattern, "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)",
     "a regular expression: interfaces whose smallest MTU pods get"},
    {"logPrefix", take_log_prefix, "calico-packet", "at most 100 bytes"},
    {"logSeverityScreen", take_log_level, "Info", "Trace, Debug, Info, Warning, Error, Fatal"},
    {"healthEnabled", take_health, "false", "true, false"},
    {"healthHost", take_health_host, "localhost", "a host's address"},
    {"healthPort", take_health_port, "9099", "0 to 65535"},
    {"prometheusMetricsEnabled", take_metrics, "false", "true, false"},
    {"prometheusMetricsHost", take_metrics_host, "", "a host's address; empty: all"},
    {"prometheusMetricsPort", take_metrics_port, "9091", "0 to 65535"},
    {"deviceRouteProtocol", take_route_proto, "3", "1 to 255"},
    {"vxlanVNI", take_vxlan_vni, "4096", "0 to 16777215"},
    {"vxlanPort", take_vxlan_port, "4789", "1 to 65535"},
    {"vxlanMTU", take_vxlan_mtu, "0", "0 to 65535; 0: what the uplink leaves"},
    {"vxlanMTUV6", take_vxlan_mtu_v6, "0", "0 to 65535; 0: what the uplink leaves"},
};

/* A list of ports as the environment has it: "tcp:22,udp:10.0.0.0/8:53". */
static struct str ports_text(const struct jnode *list, struct arena *a) {
    static const char *const members[] = {"protocol", "net", "port"};
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
    jnode_each (it, list) {
        buf_puts(&b, b.n ? "," : "");
        for (size_t i = 0; i < ARRAY_LEN(members); i++) {
            const struct jnode *m = jnode_getc(it, members[i]);
            if (m && m->s.n) {
                buf_str(&b, m->s);
                buf_puts(&b, i == 2 ? "" : ":");
            }
        }
    }
    return b.n ? arena_dup(a, buf_view(&b)) : STR("none");
}

/* A value as the environment would have it; p NULL: absent. */
static struct str value_text(const struct jnode *n, struct arena *a) {
    if (!n || n->type == J_NULL || n->type == J_MAP) {
        return STR_NULL;
    }
    if (n->type == J_LIST) {
        return ports_text(n, a);
    }
    return n->type == J_BOOL ? (n->b ? STR("true") : STR("false")) : n->s;
}

static bool try_value(struct settings *s, const struct setting *t, struct str v,
                      const char *source) {
    if (!v.p) {
        return false;
    }
    if (t->take(s, v)) {
        return true;
    }
    LOG_W("settings", "bad_value", "setting=%s source=%s value=%s allowed=%s", t->name, source,
          log_quote(v), log_quote(str_c(t->allowed)));
    return false;
}

static struct str from_env(const char *name) {
    char env[64] = "FELIX_";
    size_t n = strlen(env);
    for (const char *c = name; *c && n < sizeof(env) - 1; c++) {
        env[n++] = (char)(*c >= 'a' && *c <= 'z' ? *c - 32 : *c);
    }
    env[n] = 0;
    return str_c(getenv(env));
}

void settings_read(struct settings *out, const struct settings_sources *src) {
    *out = (struct settings){.n_iface_prefixes = 0};
    const struct {
        const struct jnode *spec;
        const char *name;
    } trees[] = {{src->file, "file"},
                 {src->node, "FelixConfiguration/node"},
                 {src->deflt, "FelixConfiguration/default"}};
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const struct setting *t = &table[i];
        bool done = try_value(out, t, from_env(t->name), "environment");
        for (size_t k = 0; k < ARRAY_LEN(trees) && !done; k++) {
            struct str v = value_text(jnode_getc(trees[k].spec, t->name), &out->a);
            done = try_value(out, t, v, trees[k].name);
        }
        if (!done) {
            bool ok = t->take(out, str_c(t->deflt));
            mg_assert(ok);
        }
    }
}

void settings_fini(struct settings *s) {
    arena_fini(&s->a);
}

static int first_doc(void *arg, struct jnode *doc) {
    struct jnode **out = arg;
    if (!*out) {
        *out = doc;
    }
    return 0;
}

int settings_file(const char *path, struct arena *a, struct jnode **out, struct err *e) {
    *out = NULL;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(FILE_MAX);
    int r = file_read(AT_FDCWD, path, &b, FILE_MAX);
    if (r == -ENOENT) {
        return 0;
    }
    if (r < 0) {
        return err_set(e, r, "%s: %s", path, strerror(-r));
    }
    struct str text = arena_dup(a, buf_view(&b));
    r = yaml_each(text, path, &json_limits_default, a, first_doc, out, e);
    if (r == 0 && *out && (*out)->type != J_MAP) {
        r = err_set(e, ERR_INVALID, "%s: found something else than a map of settings", path);
    }
    return r;
}

void settings_print(struct buf *b) {
    buf_puts(b, "| name | default | allowed |\n| --- | --- | --- |\n");
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        buf_printf(b, "| %s | %s | %s |\n", table[i].name,
                   table[i].deflt[0] ? table[i].deflt : "(empty)", table[i].allowed);
    }
}
