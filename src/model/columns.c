/* Tables: the columns of kinds that do not bring their own, and cells from paths. */
#include "model/schema.h"

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* ---- cells that are no plain text ---- */

/* kubectl's duration: 45s, 12m, 3h, 5d. */
static struct str age(const struct jnode *doc, int64_t now_wall_ns, struct arena *a) {
    struct str t = jnode_str(jnode_path(doc, "metadata.creationTimestamp"));
    struct tm tm = {.tm_isdst = 0};
    char text[32];
    if (t.n == 0 || t.n >= sizeof(text)) {
        return STR("<unknown>");
    }
    snprintf(text, sizeof(text), "%.*s", STR_FMT(t));
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end) {
        return STR("<unknown>");
    }
    int64_t s = now_wall_ns / 1000000000 - (int64_t)timegm(&tm);
    s = s < 0 ? 0 : s;
    if (s < 120) {
        return arena_printf(a, "%llds", (long long)s);
    }
    if (s < 7200) {
        return arena_printf(a, "%lldm", (long long)(s / 60));
    }
    if (s < 172800) {
        return arena_printf(a, "%lldh", (long long)(s / 3600));
    }
    return arena_printf(a, "%lldd", (long long)(s / 86400));
}

static void put_requirement(struct buf *b, const struct jnode *r) {
    struct str op = jnode_str(jnode_getc(r, "operator")), key = jnode_str(jnode_getc(r, "key"));
    if (str_is(op, "Exists") || str_is(op, "DoesNotExist")) {
        buf_printf(b, "%s%.*s", str_is(op, "Exists") ? "" : "!", STR_FMT(key));
        return;
    }
    buf_printf(b, "%.*s %s (", STR_FMT(key), str_is(op, "NotIn") ? "notin" : "in");
    const struct jnode *values = jnode_getc(r, "values");
    const char *sep = "";
    jnode_each (v, values) {
        buf_printf(b, "%s%.*s", sep, STR_FMT(jnode_str(v)));
        sep = ",";
    }
    buf_putc(b, ')');
}

static struct str pod_selector(const struct jnode *doc, int64_t now_wall_ns, struct arena *a) {
    (void)now_wall_ns;
    const struct jnode *s = jnode_path(doc, "spec.podSelector");
    const struct jnode *labels = jnode_getc(s, "matchLabels");
    const struct jnode *exprs = jnode_getc(s, "matchExpressions");
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(65536);
    jnode_each (n, labels) {
        buf_printf(&b, "%s%.*s=%.*s", b.n ? "," : "", STR_FMT(n->key), STR_FMT(jnode_str(n)));
    }
    jnode_each (n, exprs) {
        buf_puts(&b, b.n ? "," : "");
        put_requirement(&b, n);
    }
    return b.n ? arena_dup(a, buf_view(&b)) : STR("<none>");
}

static struct str workload(const struct jnode *doc, int64_t now_wall_ns, struct arena *a) {
    (void)now_wall_ns;
    (void)a;
    static const char *const paths[] = {"spec.pod", "spec.workload", "spec.containerID"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct str v = jnode_str(jnode_path(doc, paths[i]));
        if (v.n) {
            return v;
        }
    }
    return STR("");
}

/* ---- columns ---- */

#define NAME \
    { "NAME", "metadata.name", NULL, false }
#define AGE \
    { "AGE", NULL, age, false }

static const struct column name_age[] = {NAME, AGE};
static const struct column name_only[] = {NAME};
static const struct column namespaces[] = {NAME, {"STATUS", "status.phase", NULL, false}, AGE};
static const struct column pods[] = {NAME,
                                     {"NODE", "spec.nodeName", NULL, false},
                                     {"IP", "status.podIP", NULL, false},
                                     {"PHASE", "status.phase", NULL, false},
                                     AGE};
static const struct column services[] = {
    NAME, {"TYPE", "spec.type", NULL, false}, {"CLUSTER-IP", "spec.clusterIP", NULL, false}, AGE};
static const struct column netpols[] = {NAME, {"POD-SELECTOR", NULL, pod_selector, false}, AGE};
static const struct column policies[] = {NAME,
                                         {"TIER", "spec.tier", NULL, false},
                                         {"ORDER", "spec.order", NULL, true},
                                         {"SELECTOR", "spec.selector", NULL, true}};
static const struct column staged_k8s[] = {NAME, {"PODSELECTOR", NULL, pod_selector, true}};
static const struct column netsets[] = {NAME, {"NETS", "spec.nets", NULL, true}};
static const struct column heps[] = {NAME,
                                     {"NODE", "spec.node", NULL, false},
                                     {"INTERFACE", "spec.interfaceName", NULL, true},
                                     {"IPS", "spec.expectedIPs", NULL, true},
                                     {"PROFILES", "spec.profiles", NULL, true}};
static const struct column profiles[] = {NAME, {"LABELS", "spec.labelsToApply", NULL, true}};
static const struct column tiers[] = {NAME, {"ORDER", "spec.order", NULL, false}};
static const struct column pools[] = {NAME,
                                      {"CIDR", "spec.cidr", NULL, false},
                                      {"NAT", "spec.natOutgoing", NULL, true},
                                      {"IPIPMODE", "spec.ipipMode", NULL, true},
                                      {"VXLANMODE", "spec.vxlanMode", NULL, true},
                                      {"DISABLED", "spec.disabled", NULL, true},
                                      {"DISABLEBGPEXPORT", "spec.disableBGPExport", NULL, true},
                                      {"SELECTOR", "spec.nodeSelector", NULL, false},
                                      {"ASSIGNMENTMODE", "spec.assignmentMode", NULL, true}};
static const struct column reservations[] = {NAME, {"CIDRS", "spec.reservedCIDRs", NULL, true}};
static const struct column ipam_configs[] = {
    NAME,
    {"STRICTAFFINITY", "spec.strictAffinity", NULL, false},
    {"AUTOALLOCATEBLOCKS", "spec.autoAllocateBlocks", NULL, false},
    {"MAXBLOCKSPERHOST", "spec.maxBlocksPerHost", NULL, true}};
static const struct column weps[] = {{"NAME", "metadata.name", NULL, true},
                                     {"WORKLOAD", NULL, workload, false},
                                     {"NODE", "spec.node", NULL, false},
                                     {"NETWORKS", "spec.ipNetworks", NULL, false},
                                     {"INTERFACE", "spec.interfaceName", NULL, false},
                                     {"PROFILES", "spec.profiles", NULL, true}};
static const struct column affinities[] = {NAME,
                                           {"NODE", "spec.node", NULL, false},
                                           {"CIDR", "spec.cidr", NULL, false},
                                           {"STATE", "spec.state", NULL, false}};

struct table {
    const struct column *c;
    size_t n;
};
#define TABLE(a) \
    { a, ARRAY_LEN(a) }
static const struct table tables[K_N_KINDS] = {
    [K_NAMESPACE] = TABLE(namespaces),
    [K_POD] = TABLE(pods),
    [K_SERVICE] = TABLE(services),
    [K_K8S_NETWORK_POLICY] = TABLE(netpols),
    [K_NETWORK_POLICY] = TABLE(policies),
    [K_GLOBAL_NETWORK_POLICY] = TABLE(policies),
    [K_STAGED_NETWORK_POLICY] = TABLE(policies),
    [K_STAGED_GLOBAL_NETWORK_POLICY] = TABLE(policies),
    [K_STAGED_KUBERNETES_NETWORK_POLICY] = TABLE(staged_k8s),
    [K_NETWORK_SET] = TABLE(netsets),
    [K_GLOBAL_NETWORK_SET] = TABLE(netsets),
    [K_HOST_ENDPOINT] = TABLE(heps),
    [K_PROFILE] = TABLE(profiles),
    [K_TIER] = TABLE(tiers),
    [K_IP_POOL] = TABLE(pools),
    [K_IP_RESERVATION] = TABLE(reservations),
    [K_IPAM_CONFIGURATION] = TABLE(ipam_configs),
    [K_WORKLOAD_ENDPOINT] = TABLE(weps),
    [K_BLOCK_AFFINITY] = TABLE(affinities),
    [K_KUBE_CONTROLLERS_CONFIGURATION] = TABLE(name_only),
};

static struct table table_of(const struct kind *k) {
    if (tables[k->id].n) {
        return tables[k->id];
    }
    if (k->def->n_columns) {
        return (struct table){k->def->columns, k->def->n_columns};
    }
    return (struct table)TABLE(name_age);
}

const struct column *kind_column_rows(const struct kind *k, size_t *n) {
    struct table t = table_of(k);
    *n = t.n;
    return t.c;
}

size_t kind_columns(const struct kind *k, enum model_table t,
                    const char *heads[MODEL_MAX_COLUMNS]) {
    struct table x = table_of(k);
    size_t n = 0;
    for (size_t i = 0; i < x.n && n < MODEL_MAX_COLUMNS; i++) {
        if (!x.c[i].is_wide || t == MODEL_WIDE) {
            heads[n++] = x.c[i].head;
        }
    }
    return n;
}

static void put_value(struct buf *b, const struct jnode *n) {
    if (n->type == J_STR) {
        buf_str(b, n->s);
    } else if (n->type == J_LIST) {
        const char *sep = "";
        jnode_each (m, n) {
            buf_puts(b, sep);
            put_value(b, m);
            sep = ",";
        }
    } else if (n->type == J_MAP) {
        const char *sep = "";
        jnode_each (m, n) {
            buf_printf(b, "%s%.*s=", sep, STR_FMT(m->key));
            put_value(b, m);
            sep = ",";
        }
    } else if (n->type != J_NULL) {
        json_write(b, n, 0);
    }
}

static struct str cell(const struct column *c, const struct jnode *doc, int64_t now_wall_ns,
                       struct arena *a) {
    if (c->fn) {
        return c->fn(doc, now_wall_ns, a);
    }
    for (struct str rest = str_c(c->path); rest.p;) {
        const struct jnode *n = jnode_path(doc, arena_cstr(a, str_cut(&rest, ' ')));
        if (n && n->type != J_NULL) {
            MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
            put_value(&b, n);
            return arena_dup(a, buf_view(&b));
        }
    }
    return STR("");
}

size_t object_cells(const struct kind *k, enum model_table t, const struct jnode *doc,
                    int64_t now_wall_ns, struct arena *a, struct str cells[MODEL_MAX_COLUMNS]) {
    struct table x = table_of(k);
    size_t n = 0;
    for (size_t i = 0; i < x.n && n < MODEL_MAX_COLUMNS; i++) {
        if (!x.c[i].is_wide || t == MODEL_WIDE) {
            cells[n++] = cell(&x.c[i], doc, now_wall_ns, a);
        }
    }
    return n;
}
