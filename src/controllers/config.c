#include "controllers/config.h"

#include "base/ip.h"

#include <stdlib.h>

const char *const controller_names[CONTROLLER_N] = {
    [CONTROLLER_NODE] = "node",
    [CONTROLLER_POLICY] = "policy",
    [CONTROLLER_WORKLOAD_ENDPOINT] = "workloadendpoint",
    [CONTROLLER_SERVICE_ACCOUNT] = "serviceaccount",
    [CONTROLLER_NAMESPACE] = "namespace",
    [CONTROLLER_LOAD_BALANCER] = "loadbalancer",
};

/* Their members in spec.controllers. */
static const char *const fields[CONTROLLER_N] = {
    [CONTROLLER_NODE] = "node",
    [CONTROLLER_POLICY] = "policy",
    [CONTROLLER_WORKLOAD_ENDPOINT] = "workloadEndpoint",
    [CONTROLLER_SERVICE_ACCOUNT] = "serviceAccount",
    [CONTROLLER_NAMESPACE] = "namespace",
    [CONTROLLER_LOAD_BALANCER] = "loadBalancer",
};

const char *const config_env_names[] = {
    "LOG_LEVEL",      "RECONCILER_PERIOD", "ENABLED_CONTROLLERS", "COMPACTION_PERIOD",
    "HEALTH_ENABLED", "SYNC_NODE_LABELS",  "AUTO_HOST_ENDPOINTS", NULL};

#define SECOND_NS 1000000000LL
#define DEFAULT_PERIOD_NS (300 * SECOND_NS)
#define DEFAULT_GRACE_NS (900 * SECOND_NS)
#define DEFAULT_COMPACTION_NS (600 * SECOND_NS)
enum { DEFAULT_METRICS_PORT = 9094 };

/* ---- durations ---- */

static bool take_unit(struct str s, size_t *at, double *ns) {
    static const struct {
        const char *name;
        double ns;
    } units[] = {{"ns", 1},   {"us", 1e3}, {"\xc2\xb5s", 1e3}, {"\xce\xbcs", 1e3},
                 {"ms", 1e6}, {"s", 1e9},  {"m", 60e9},        {"h", 3600e9}};
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        struct str u = str_c(units[i].name);
        size_t end = *at + u.n;
        bool is_whole = end >= s.n || s.p[end] == '.' || (s.p[end] >= '0' && s.p[end] <= '9');
        if (end <= s.n && is_whole && memcmp(s.p + *at, u.p, u.n) == 0) {
            *at = end;
            *ns = units[i].ns;
            return true;
        }
    }
    return false;
}

int config_parse_duration(struct str s, int64_t *out_ns) {
    double total = 0;
    size_t i = 0;
    if (str_is(s, "0")) {
        *out_ns = 0;
        return 0;
    }
    while (i < s.n) {
        size_t start = i;
        double n, unit;
        while (i < s.n && ((s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '.')) {
            i++;
        }
        struct str digits = str_sub(s, start, i);
        if (digits.n && digits.p[0] == '.') {
            return -EINVAL;
        }
        if (digits.n && digits.p[digits.n - 1] == '.') {
            digits.n--;
        }
        if (str_to_double(digits, &n) < 0 || !take_unit(s, &i, &unit)) {
            return -EINVAL;
        }
        total += n * unit;
        if (total > 4e18) {
            return -ERANGE;
        }
    }
    if (s.n == 0) {
        return -EINVAL;
    }
    *out_ns = (int64_t)total;
    return 0;
}

void config_print_duration(int64_t ns, struct buf *b) {
    if (ns == 0) {
        buf_puts(b, "0s");
        return;
    }
    int64_t h = ns / (3600 * SECOND_NS), m = ns / (60 * SECOND_NS) % 60;
    int64_t rest = ns % (60 * SECOND_NS);
    if (h) {
        buf_printf(b, "%lldh", (long long)h);
    }
    if (h || m) {
        buf_printf(b, "%lldm", (long long)m);
    }
    buf_printf(b, "%lld", (long long)(rest / SECOND_NS));
    int64_t frac = rest % SECOND_NS;
    if (frac) {
        char digits[10];
        size_t n = 9;
        for (size_t i = 9; i-- > 0; frac /= 10) {
            digits[i] = (char)('0' + frac % 10);
        }
        while (n && digits[n - 1] == '0') {
            n--;
        }
        buf_printf(b, ".%.*s", (int)n, digits);
    }
    buf_putc(b, 's');
}

/* ---- the merge ---- */

struct merging {
    const struct jnode *spec;
    config_env env;
    void *env_arg;
    struct arena *a;
    struct run_config *out;
    struct jnode *vars;    /* status.environmentVars */
    struct jnode *running; /* status.runningConfig */
    struct err *e;
};

static struct str from_env(struct merging *m, const char *name) {
    const char *v = m->env(m->env_arg, name);
    if (!v) {
        return STR_NULL;
    }
    struct str s = arena_dup(m->a, str_c(v));
    jnode_set(m->a, m->vars, str_c(name), jnode_new_str(m->a, s));
    return s;
}

static int bad_env(struct merging *m, const char *name, struct str v, const char *allowed) {
    return err_set(m->e, ERR_INVALID, "%s: found \"%.*s\", allowed is %s", name, STR_FMT(v),
                   allowed);
}

static const struct jnode *in_controllers(const struct merging *m, enum controller c) {
    const struct jnode *n = jnode_getc(jnode_path(m->spec, "controllers"), fields[c]);
    return n && n->type == J_MAP ? n : NULL;
}

static int64_t duration_or(const struct jnode *n, int64_t deflt) {
    int64_t ns;
    return config_parse_duration(jnode_str(n), &ns) == 0 ? ns : deflt;
}

static struct jnode *duration_node(int64_t ns, struct arena *a) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64);
    config_print_duration(ns, &b);
    return jnode_new_str(a, arena_dup(a, buf_view(&b)));
}

static int parse_bool(struct str v, bool *out) {
    /* What Go's strconv.ParseBool takes. */
    static const char *const words[2][6] = {{"0", "f", "F", "false", "FALSE", "False"},
                                            {"1", "t", "T", "true", "TRUE", "True"}};
    for (size_t i = 0; i < 12; i++) {
        if (str_is(v, words[i / 6][i % 6])) {
            *out = i >= 6;
            return 0;
        }
    }
    return -EINVAL;
}

static int merge_enabled(struct merging *m) {
    struct str v = from_env(m, "ENABLED_CONTROLLERS");
    if (!v.p) {
        for (int c = 0; c < CONTROLLER_N; c++) {
            m->out->is_enabled[c] = in_controllers(m, (enum controller)c) != NULL;
        }
        return 0;
    }
    for (struct str rest = v; rest.p;) {
        struct str word = str_trim(str_cut(&rest, ','));
        int c = 0;
        word = str_is(word, "profile") ? STR("namespace") : word;
        while (c < CONTROLLER_N && !str_is(word, controller_names[c])) {
            c++;
        }
        if (c == CONTROLLER_N) {
            return err_set(m->e, ERR_INVALID,
                           "ENABLED_CONTROLLERS: found \"%.*s\", allowed are node, policy, "
                           "workloadendpoint, serviceaccount, namespace (or profile), "
                           "loadbalancer, separated by commas",
                           STR_FMT(word));
        }
        m->out->is_enabled[c] = true;
    }
    return 0;
}

static int merge_periods(struct merging *m) {
    int64_t all_ns = -1;
    struct str v = from_env(m, "RECONCILER_PERIOD");
    if (v.p && config_parse_duration(v, &all_ns) < 0) {
        return bad_env(m, "RECONCILER_PERIOD", v, "a duration as 5m or 90s");
    }
    for (int c = 0; c < CONTROLLER_N; c++) {
        const struct jnode *n =
            jnode_getc(in_controllers(m, (enum controller)c), "reconcilerPeriod");
        m->out->period_ns[c] = all_ns >= 0 ? all_ns : duration_or(n, DEFAULT_PERIOD_NS);
    }
    return 0;
}

static int merge_log_level(struct merging *m) {
    static const char *const shown[] = {"Trace", "Debug", "Info", "Warning", "Error", "Fatal"};
    struct str v = from_env(m, "LOG_LEVEL");
    m->out->level = LOG_INFO;
    if (v.p && !log_level_parse(v, &m->out->level)) {
        return bad_env(m, "LOG_LEVEL", v, "one of trace, debug, info, warning, error, fatal, none");
    }
    struct str s = jnode_str(jnode_getc(m->spec, "logSeverityScreen"));
    if (!v.p && s.p && !log_level_parse(s, &m->out->level)) {
        m->out->level = LOG_INFO;
    }
    struct str text = m->out->level < ARRAY_LEN(shown) ? str_c(shown[m->out->level]) : STR("None");
    jnode_set(m->a, m->running, STR("logSeverityScreen"), jnode_new_str(m->a, text));
    return 0;
}

static struct jnode *enabled_node(bool is, struct arena *a) {
    return jnode_new_str(a, is ? STR("Enabled") : STR("Disabled"));
}

static int merge_health(struct merging *m) {
    struct str v = from_env(m, "HEALTH_ENABLED");
    m->out->is_health_enabled = !str_is(jnode_str(jnode_getc(m->spec, "healthChecks")), "Disabled");
    if (v.p && parse_bool(v, &m->out->is_health_enabled) < 0) {
        return bad_env(m, "HEALTH_ENABLED", v, "true or false");
    }
    jnode_set(m->a, m->running, STR("healthChecks"), enabled_node(m->out->is_health_enabled, m->a));
    return 0;
}

static int merge_compaction(struct merging *m) {
    struct str v = from_env(m, "COMPACTION_PERIOD");
    m->out->compaction_ns =
        duration_or(jnode_getc(m->spec, "etcdV3CompactionPeriod"), DEFAULT_COMPACTION_NS);
    if (v.p && config_parse_duration(v, &m->out->compaction_ns) < 0) {
        return bad_env(m, "COMPACTION_PERIOD", v, "a duration as 10m, or 0");
    }
    jnode_set(m->a, m->running, STR("etcdV3CompactionPeriod"),
              duration_node(m->out->compaction_ns, m->a));
    return 0;
}

static int merge_node(struct merging *m, bool is_kubernetes) {
    const struct jnode *n = in_controllers(m, CONTROLLER_NODE);
    struct run_config *o = m->out;
    o->sync_labels = !is_kubernetes && !str_is(jnode_str(jnode_getc(n, "syncLabels")), "Disabled");
    struct str v = is_kubernetes ? STR_NULL : from_env(m, "SYNC_NODE_LABELS");
    if (v.p && parse_bool(v, &o->sync_labels) < 0) {
        return bad_env(m, "SYNC_NODE_LABELS", v, "true or false");
    }
    if (is_kubernetes) {
        jnode_set(m->a, m->vars, STR("DATASTORE_TYPE"), jnode_new_str(m->a, STR("kubernetes")));
    }
    o->leak_grace_ns = duration_or(jnode_getc(n, "leakGracePeriod"), DEFAULT_GRACE_NS);
    struct jnode *hep = jnode_new(m->a, J_MAP);
    const struct jnode *given = jnode_getc(n, "hostEndpoint");
    bool is_auto = str_is(jnode_str(jnode_getc(given, "autoCreate")), "Enabled");
    bool has_default =
        !str_is(jnode_str(jnode_getc(given, "createDefaultHostEndpoint")), "Disabled");
    const struct jnode *templates = jnode_getc(given, "templates");
    v = from_env(m, "AUTO_HOST_ENDPOINTS");
    if (v.p) {
        is_auto = str_ieq(v, STR("enabled"));
        if (!is_auto && !str_ieq(v, STR("disabled"))) {
            return bad_env(m, "AUTO_HOST_ENDPOINTS", v, "enabled or disabled");
        }
        has_default = true;
        templates = NULL;
    }
    jnode_set(m->a, hep, STR("autoCreate"), enabled_node(is_auto, m->a));
    jnode_set(m->a, hep, STR("createDefaultHostEndpoint"), enabled_node(has_default, m->a));
    if (templates && templates->n) {
        jnode_set(m->a, hep, STR("templates"), jnode_copy(m->a, templates));
    }
    o->auto_hep = hep;
    return 0;
}

static struct jnode *running_node_controller(const struct merging *m) {
    struct jnode *n = jnode_new(m->a, J_MAP);
    jnode_set(m->a, n, STR("syncLabels"), enabled_node(m->out->sync_labels, m->a));
    jnode_set(m->a, n, STR("hostEndpoint"), jnode_copy(m->a, m->out->auto_hep));
    jnode_set(m->a, n, STR("leakGracePeriod"), duration_node(m->out->leak_grace_ns, m->a));
    return n;
}

/* status.runningConfig.controllers. */
static struct jnode *running_controllers(const struct merging *m) {
    struct jnode *all = jnode_new(m->a, J_MAP);
    for (int c = 0; c < CONTROLLER_N; c++) {
        if (!m->out->is_enabled[c]) {
            continue;
        }
        struct jnode *n = jnode_new(m->a, J_MAP);
        if (c == CONTROLLER_NODE) {
            n = running_node_controller(m);
        } else if (c == CONTROLLER_LOAD_BALANCER) {
            jnode_set(m->a, n, STR("assignIPs"),
                      jnode_new_str(m->a, m->out->assigns_all_services
                                              ? STR("AllServices")
                                              : STR("RequestedServicesOnly")));
        } else {
            jnode_set(m->a, n, STR("reconcilerPeriod"), duration_node(m->out->period_ns[c], m->a));
        }
        jnode_set(m->a, all, str_c(fields[c]), n);
    }
    return all;
}

int config_merge(const struct jnode *spec, config_env env, void *env_arg, bool is_kubernetes,
                 struct arena *a, struct run_config *out, struct jnode **status, struct err *e) {
    *out = (struct run_config){.metrics_port = DEFAULT_METRICS_PORT};
    struct merging m = {spec, env, env_arg, a, out, jnode_new(a, J_MAP), jnode_new(a, J_MAP), e};
    int r = merge_log_level(&m);
    r = r == 0 ? merge_enabled(&m) : r;
    r = r == 0 ? merge_health(&m) : r;
    r = r == 0 ? merge_periods(&m) : r;
    r = r == 0 ? merge_compaction(&m) : r;
    r = r == 0 ? merge_node(&m, is_kubernetes) : r;
    if (r < 0) {
        return r;
    }
    const struct jnode *port = jnode_getc(spec, "prometheusMetricsPort");
    if (port && port->type == J_INT && port->i >= 0 && port->i <= 65535) {
        out->metrics_port = (uint16_t)port->i;
    }
    jnode_set(a, m.running, STR("prometheusMetricsPort"), jnode_new_int(a, out->metrics_port));
    const struct jnode *lb = in_controllers(&m, CONTROLLER_LOAD_BALANCER);
    out->assigns_all_services =
        !str_is(jnode_str(jnode_getc(lb, "assignIPs")), "RequestedServicesOnly");
    jnode_set(a, m.running, STR("controllers"), running_controllers(&m));
    *status = jnode_new(a, J_MAP);
    jnode_set(a, *status, STR("runningConfig"), m.running);
    jnode_set(a, *status, STR("environmentVars"), m.vars);
    return 0;
}

struct jnode *config_default_spec(struct arena *a) {
    static const char text[] =
        "{\"logSeverityScreen\":\"Info\",\"healthChecks\":\"Enabled\","
        "\"etcdV3CompactionPeriod\":\"10m0s\",\"controllers\":{"
        "\"node\":{\"reconcilerPeriod\":\"5m0s\",\"syncLabels\":\"Enabled\",\"hostEndpoint\":{"
        "\"autoCreate\":\"Disabled\",\"createDefaultHostEndpoint\":\"Enabled\"},"
        "\"leakGracePeriod\":\"15m0s\"},"
        "\"policy\":{\"reconcilerPeriod\":\"5m0s\"},"
        "\"workloadEndpoint\":{\"reconcilerPeriod\":\"5m0s\"},"
        "\"serviceAccount\":{\"reconcilerPeriod\":\"5m0s\"},"
        "\"namespace\":{\"reconcilerPeriod\":\"5m0s\"},"
        "\"loadBalancer\":{\"assignIPs\":\"AllServices\"}}}";
    struct jnode *n = NULL;
    struct err e;
    int r = json_parse(str_c(text), &json_limits_default, a, &n, &e);
    mg_assert(r == 0);
    return n;
}
