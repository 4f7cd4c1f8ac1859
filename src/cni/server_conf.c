/* What a request says: the network configuration (Calico's fields, the CNI conventions) and
 * CNI_ARGS. Decides what each field means and refuses what can't be; unknown fields are ignored. */
#include "cni/server_int.h"
#include "http/probe.h"

#include <stdarg.h>
#include <stdio.h>

const char *const cni_versions[7] = {"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};

#define POLICY_TIMEOUT_MS_DEFAULT 10000
#define POLICY_TIMEOUT_S_MAX 600

int cni_fail(struct cni_fail *f, int code, const char *details, const char *fmt, ...) {
    va_list ap;
    f->code = code;
    (void)snprintf(f->details, sizeof(f->details), "%s", details);
    va_start(ap, fmt);
    (void)vsnprintf(f->msg, sizeof(f->msg), fmt, ap);
    va_end(ap);
    return -1;
}

static int bad(struct cni_fail *f, const char *field, const char *want) {
    return cni_fail(f, CNI_CODE_BAD_CONFIG, "change the network configuration",
                    "field \"%s\" must be %s", field, want);
}

/* A text; absent and null count as empty. */
static int read_str(const struct jnode *map, const char *key, struct str *out, struct cni_fail *f) {
    const struct jnode *n = jnode_getc(map, key);
    *out = STR("");
    if (!n || n->type == J_NULL) {
        return 0;
    }
    if (n->type != J_STR) {
        return bad(f, key, "a text");
    }
    *out = n->s;
    return 0;
}

/* A number, also written as text, as Calico takes some. */
static int read_int(const struct jnode *map, const char *key, int64_t max, int64_t *out,
                    struct cni_fail *f) {
    const struct jnode *n = jnode_getc(map, key);
    int64_t v = 0;
    if (n && n->type == J_INT) {
        v = n->i;
    } else if (n && n->type == J_STR && n->s.n) {
        if (str_to_i64(n->s, &v) < 0) {
            return bad(f, key, "a number");
        }
    } else if (n && n->type != J_NULL && n->type != J_STR) {
        return bad(f, key, "a number");
    }
    if (v < 0 || v > max) {
        return bad(f, key, "a number in range");
    }
    *out = v;
    return 0;
}

/* true and false, also as texts. */
static int read_bool(const struct jnode *map, const char *key, bool *out, struct cni_fail *f) {
    const struct jnode *n = jnode_getc(map, key);
    if (!n || n->type == J_NULL || (n->type == J_STR && n->s.n == 0)) {
        return 0;
    }
    if (n->type == J_BOOL) {
        *out = n->b;
        return 0;
    }
    if (n->type == J_STR && (str_ieq(n->s, STR("true")) || str_ieq(n->s, STR("false")))) {
        *out = str_ieq(n->s, STR("true"));
        return 0;
    }
    return bad(f, key, "true or false");
}

static int read_list(const struct jnode *map, const char *key, struct arena *a,
                     struct str_list *out, struct cni_fail *f) {
    const struct jnode *n = jnode_getc(map, key);
    if (!n || n->type == J_NULL) {
        return 0;
    }
    if (n->type != J_LIST || n->n > CNI_MAX_POOLS) {
        return bad(f, key, "a list of names or CIDRs, at most 32");
    }
    out->p = arena_array(a, struct str, n->n);
    out->set = true;
    jnode_each (it, n) {
        if (it->type != J_STR || it->s.n == 0) {
            return bad(f, key, "a list of names or CIDRs");
        }
        out->p[out->n++] = it->s;
    }
    return 0;
}

int cni_ips_read(const struct jnode *list, const char *what, struct prefix *out, size_t *n,
                 struct cni_fail *f) {
    if (!list || list->type == J_NULL) {
        return 0;
    }
    if (list->type != J_LIST) {
        return bad(f, what, "a list of addresses");
    }
    jnode_each (it, list) {
        struct prefix p;
        if (it->type != J_STR || prefix_parse(it->s, &p) < 0) {
            return cni_fail(f, CNI_CODE_BAD_CONFIG, "give addresses such as 10.1.2.3",
                            "%s: %.*s is not an address", what, STR_FMT(jnode_str(it)));
        }
        p.len = (uint8_t)ip_bits(&p.ip);
        bool is_known = false;
        for (size_t i = 0; i < *n; i++) {
            is_known |= prefix_eq(&out[i], &p);
        }
        if (is_known) {
            continue;
        }
        if (*n == CNI_MAX_IPS) {
            return bad(f, what, "at most 16 addresses");
        }
        out[(*n)++] = p;
    }
    return 0;
}

static int cmp_pairs(const void *a, const void *b) {
    return str_cmp(((const struct str_pair *)a)->key, ((const struct str_pair *)b)->key);
}

static int finish_labels(struct str_map *m, struct cni_fail *f) {
    if (m->n > 1) {
        qsort(m->p, m->n, sizeof(*m->p), cmp_pairs);
    }
    for (size_t i = 0; i < m->n; i++) {
        if (m->p[i].key.n == 0 || m->p[i].key.n > 317 || m->p[i].value.n > 1024) {
            return cni_fail(f, CNI_CODE_BAD_CONFIG, "as Kubernetes has them",
                            "label %.*s: the name is empty, or name or value is too long",
                            (int)(m->p[i].key.n < 100 ? m->p[i].key.n : 100), m->p[i].key.p);
        }
        if (i && str_eq(m->p[i].key, m->p[i - 1].key)) {
            return cni_fail(f, CNI_CODE_BAD_CONFIG, "give each label once",
                            "label %.*s is there twice", STR_FMT(m->p[i].key));
        }
    }
    return 0;
}

static int read_labels(const struct jnode *n, struct arena *a, struct str_map *out,
                       struct cni_fail *f) {
    if (!n || n->type == J_NULL) {
        return 0;
    }
    if (n->type != J_MAP || n->n > CNI_MAX_LABELS) {
        return bad(f, "labels", "an object of at most 64 texts");
    }
    out->p = arena_array(a, struct str_pair, n->n);
    out->set = true;
    jnode_each (it, n) {
        if (it->type != J_STR) {
            return bad(f, "labels", "an object of texts");
        }
        out->p[out->n++] = (struct str_pair){it->key, it->s};
    }
    return finish_labels(out, f);
}

static int read_gates(const struct jnode *doc, struct arena *a, struct str_list *out,
                      struct cni_fail *f) {
    const struct jnode *n = jnode_getc(doc, "readiness_gates");
    if (!n || n->type == J_NULL) {
        return 0;
    }
    if (n->type != J_LIST || n->n > CNI_MAX_GATES) {
        return bad(f, "readiness_gates", "a list of at most 16 URLs");
    }
    out->p = arena_array(a, struct str, n->n);
    out->set = true;
    jnode_each (it, n) {
        struct err e = {0};
        if (it->type != J_STR) {
            return bad(f, "readiness_gates", "a list of URLs");
        }
        if (http_probe_check(it->s, &e) < 0) {
            return cni_fail(f, CNI_CODE_BAD_CONFIG, "such as http://127.0.0.1:9099/readiness",
                            "field \"readiness_gates\"[%zu]: %.900s", out->n, e.msg);
        }
        out->p[out->n++] = it->s;
    }
    return 0;
}

/* What decides of which kind the pod's interface is, and who makes it. */
static int read_device(struct cni_conf *c, struct cni_fail *f) {
    struct str type, dataplane;
    if (read_str(c->doc, "device_type", &type, f) < 0 ||
        read_str(jnode_getc(c->doc, "dataplane_options"), "type", &dataplane, f) < 0) {
        return -1;
    }
    c->wants_netkit = str_is(type, "netkit");
    if (type.n && !c->wants_netkit && !str_is(type, "veth")) {
        return bad(f, "device_type", "\"veth\" or \"netkit\"");
    }
    return !dataplane.n || str_is(dataplane, "linux")
               ? 0
               : bad(f, "dataplane_options.type", "\"linux\": there is no other dataplane");
}

/* Capability "mac", or the same as an argument. */
static int read_mac(struct cni_conf *c, struct cni_fail *f) {
    struct str other;
    if (read_str(jnode_getc(c->doc, "runtimeConfig"), "mac", &c->mac, f) < 0 ||
        read_str(jnode_path(c->doc, "args.cni"), "mac", &other, f) < 0) {
        return -1;
    }
    c->mac = c->mac.n ? c->mac : other;
    return 0;
}

/* Calico's plugin takes the name from there; ours is the agent's. */
static int read_node(struct cni_conf *c, struct cni_fail *f) {
    struct str old;
    if (read_str(c->doc, "nodename", &c->node, f) < 0 ||
        read_str(jnode_getc(c->doc, "kubernetes"), "node_name", &old, f) < 0) {
        return -1;
    }
    c->node = c->node.n ? c->node : old;
    return 0;
}

static int read_ipam(struct cni_conf *c, struct arena *a, struct cni_fail *f) {
    const struct jnode *ipam = jnode_getc(c->doc, "ipam");
    if (ipam && ipam->type != J_MAP && ipam->type != J_NULL) {
        return bad(f, "ipam", "an object");
    }
    c->assign_v4 = true;
    if (read_str(ipam, "type", &c->ipam_type, f) < 0 ||
        read_bool(ipam, "assign_ipv4", &c->assign_v4, f) < 0 ||
        read_bool(ipam, "assign_ipv6", &c->assign_v6, f) < 0 ||
        read_list(ipam, "ipv4_pools", a, &c->pools_v4, f) < 0 ||
        read_list(ipam, "ipv6_pools", a, &c->pools_v6, f) < 0) {
        return -1;
    }
    c->has_ipam = c->ipam_type.n > 0;
    c->is_own_ipam = str_is(c->ipam_type, "margay-ipam") || str_is(c->ipam_type, "calico-ipam");
    return 0;
}

static int read_version(struct cni_conf *c, struct cni_fail *f) {
    struct str v;
    if (read_str(c->doc, "cniVersion", &v, f) < 0) {
        return -1;
    }
    c->version = CNI_V_0_2;
    for (unsigned i = 0; i < ARRAY_LEN(cni_versions); i++) {
        if (str_is(v, cni_versions[i])) {
            c->version = i;
            return 0;
        }
    }
    return v.n == 0 ? 0
                    : cni_fail(f, CNI_CODE_VERSION, "0.1.0 to 1.1.0 are spoken",
                               "cniVersion %.*s is not known", STR_FMT(v));
}

int cni_conf_read(struct str text, struct arena *a, struct cni_conf *out, struct cni_fail *f) {
    struct cni_conf c = {0};
    struct jlimits lim = json_limits_default;
    struct err e = {0};
    int64_t mtu = 0, queues = 0, timeout = 0;
    lim.max_bytes = WIRE_TEXT_MAX;
    lim.max_nodes = 65536;
    if (json_parse(text, &lim, a, &c.doc, &e) < 0) {
        return cni_fail(f, CNI_CODE_UNDECODABLE, "correct the network configuration",
                        "network configuration: %.900s", e.msg);
    }
    if (c.doc->type != J_MAP) {
        return cni_fail(f, CNI_CODE_UNDECODABLE, "correct the network configuration",
                        "the network configuration is not an object");
    }
    struct jnode *settings = jnode_getc(c.doc, "container_settings");
    struct jnode *features = jnode_getc(c.doc, "feature_control");
    if (read_version(&c, f) < 0 || read_str(c.doc, "name", &c.name, f) < 0 ||
        read_str(jnode_getc(c.doc, "policy"), "type", &c.policy_type, f) < 0 ||
        read_str(jnode_getc(c.doc, "kubernetes"), "kubeconfig", &c.kubeconfig, f) < 0 ||
        read_int(c.doc, "mtu", 65535, &mtu, f) < 0 ||
        read_int(c.doc, "num_queues", 64, &queues, f) < 0 ||
        read_int(c.doc, "policy_setup_timeout_seconds", POLICY_TIMEOUT_S_MAX, &timeout, f) < 0 ||
        read_bool(c.doc, "require_mtu_file", &c.needs_mtu, f) < 0 ||
        read_bool(c.doc, "include_default_routes", &c.include_default_routes, f) < 0 ||
        read_device(&c, f) < 0 || read_node(&c, f) < 0 || read_gates(c.doc, a, &c.gates, f) < 0 ||
        read_bool(settings, "allow_ip_forwarding", &c.allow_ip_forwarding, f) < 0 ||
        read_bool(features, "floating_ips", &c.allow_floating_ips, f) < 0 ||
        read_bool(features, "ip_addrs_no_ipam", &c.allow_ips_without_ipam, f) < 0 ||
        read_labels(jnode_getc(c.doc, "labels"), a, &c.labels, f) < 0 || read_ipam(&c, a, f) < 0 ||
        cni_ips_read(jnode_path(c.doc, "runtimeConfig.ips"), "runtimeConfig.ips", c.ips, &c.n_ips,
                     f) < 0 ||
        read_mac(&c, f) < 0 ||
        cni_ips_read(jnode_path(c.doc, "args.cni.ips"), "args.cni.ips", c.ips, &c.n_ips, f) < 0) {
        return -1;
    }
    if (c.name.n == 0 || c.name.n > 200) {
        return bad(f, "name", "the network's name, of at most 200 bytes");
    }
    for (size_t i = 0; i < c.name.n; i++) {
        char ch = c.name.p[i];
        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
              (i && (ch == '_' || ch == '.' || ch == '-')))) {
            return bad(f, "name", "letters, digits, '_', '.' and '-'");
        }
    }
    if (mtu && mtu < 68) {
        return bad(f, "mtu", "0 or at least 68");
    }
    c.mtu = (uint32_t)mtu;
    c.n_queues = queues > 1 ? (uint32_t)queues : 1; /* the kernel's default is one a CPU */
    c.policy_timeout_ms = timeout ? timeout * 1000 : POLICY_TIMEOUT_MS_DEFAULT;
    c.prev_result = jnode_getc(c.doc, "prevResult");
    if (c.prev_result && c.prev_result->type != J_MAP) {
        c.prev_result = NULL;
    }
    c.dns = jnode_path(c.doc, "runtimeConfig.dns");
    c.dns = c.dns ? c.dns : jnode_getc(c.doc, "dns");
    c.port_mappings = jnode_path(c.doc, "runtimeConfig.portMappings");
    c.bandwidth = jnode_path(c.doc, "runtimeConfig.bandwidth");
    if (c.port_mappings && c.port_mappings->type == J_NULL) {
        c.port_mappings = NULL;
    }
    if (c.port_mappings &&
        (c.port_mappings->type != J_LIST || c.port_mappings->n > CNI_MAX_PORTS)) {
        return bad(f, "runtimeConfig.portMappings", "a list of at most 256 mappings");
    }
    c.valid_attachments = jnode_getc(c.doc, "cni.dev/valid-attachments");
    *out = c;
    return 0;
}

/* Names that become parts of keys in the store. */
static int check_name(const char *what, struct str s, struct cni_fail *f) {
    bool is_ok = s.n <= 253;
    for (size_t i = 0; i < s.n && is_ok; i++) {
        char c = s.p[i];
        is_ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                (i && i + 1 < s.n && (c == '-' || c == '.'));
    }
    return is_ok
               ? 0
               : cni_fail(f, CNI_CODE_BAD_ENV, "names are of a-z, 0-9, '-' and '.'",
                          "CNI_ARGS: %s=%s is not a name that Kubernetes has", what, log_quote(s));
}

static int read_label_text(struct str text, struct arena *a, struct str_map *out,
                           struct cni_fail *f) {
    out->p = arena_array(a, struct str_pair, CNI_MAX_LABELS);
    out->set = true;
    while (text.p && text.n) {
        struct str value = str_cut(&text, ',');
        struct str key = str_cut(&value, '=');
        if (!value.p || out->n == CNI_MAX_LABELS) {
            return cni_fail(f, CNI_CODE_BAD_ENV, "MARGAY_LABELS=k=v,k2=v2, at most 64",
                            "CNI_ARGS: MARGAY_LABELS can't be read");
        }
        out->p[out->n++] = (struct str_pair){key, value};
    }
    return finish_labels(out, f);
}

int cni_args_read(struct str text, struct arena *a, struct cni_args *out, struct cni_fail *f) {
    struct cni_args r = {0};
    struct str labels = STR_NULL;
    const struct {
        const char *key;
        struct str *to;
    } known[] = {{"K8S_POD_NAMESPACE", &r.ns},
                 {"K8S_POD_NAME", &r.pod},
                 {"K8S_POD_UID", &r.uid},
                 {"K8S_POD_INFRA_CONTAINER_ID", &r.infra_container},
                 {"IP", &r.ip},
                 {"MAC", &r.mac},
                 {"MARGAY_LABELS", &labels}};
    while (text.p && text.n) {
        struct str value = str_cut(&text, ';');
        struct str pair = value, key = str_cut(&value, '=');
        if (pair.n && !value.p) {
            return cni_fail(f, CNI_CODE_BAD_ENV, "KEY=VALUE pairs with ';' between them",
                            "CNI_ARGS: %s is no pair", log_quote(pair));
        }
        for (size_t i = 0; i < ARRAY_LEN(known); i++) {
            if (value.n && str_is(key, known[i].key)) {
                *known[i].to = value;
            }
        }
    }
    if (check_name("K8S_POD_NAMESPACE", r.ns, f) < 0 || check_name("K8S_POD_NAME", r.pod, f) < 0 ||
        (labels.p && read_label_text(labels, a, &r.labels, f) < 0)) {
        return -1;
    }
    *out = r;
    return 0;
}
