/* Calico's Node, WorkloadEndpoint and Profile as readings of core objects, and the patches that
 * write the first two. Source: libcalico-go/lib/backend/k8s/resources/node.go, workloadendpoint.go
 * and conversion/. */
#include "base/hash.h"
#include "base/ip.h"
#include "store/kube.h"
#include "store/kube_shapes.h"

#include <stdlib.h>

/* ---- Node ---- */

enum node_check { ANY_TEXT, NET4, NET6, ADDR4, ADDR6, MAC, AS_NUMBER };

/* Which annotation holds what of Calico's Node. */
struct node_field {
    const char *annotation;
    const char *path; /* below spec or status */
    enum node_check check;
};
static const struct node_field NODE_FIELDS[] = {
    {KUBE_NODE_IPV4, "spec.bgp.ipv4Address", NET4},
    {KUBE_NODE_IPV6, "spec.bgp.ipv6Address", NET6},
    {KUBE_NODE_IPIP, "spec.bgp.ipv4IPIPTunnelAddr", ADDR4},
    {KUBE_NODE_ASN, "spec.bgp.asNumber", AS_NUMBER},
    {KUBE_NODE_RR_CLUSTER, "spec.bgp.routeReflectorClusterID", ADDR4},
    {KUBE_NODE_VXLAN4, "spec.ipv4VXLANTunnelAddr", ADDR4},
    {KUBE_NODE_VXLAN6, "spec.ipv6VXLANTunnelAddr", ADDR6},
    {KUBE_NODE_VXLAN_MAC, "spec.vxlanTunnelMACAddr", MAC},
    {KUBE_NODE_VXLAN_MAC6, "spec.vxlanTunnelMACAddrV6", MAC},
    {KUBE_NODE_WG4, "spec.wireguard.interfaceIPv4Address", ADDR4},
    {KUBE_NODE_WG6, "spec.wireguard.interfaceIPv6Address", ADDR6},
    {KUBE_NODE_WG_KEY, "status.wireguardPublicKey", ANY_TEXT},
    {KUBE_NODE_WG_KEY6, "status.wireguardPublicKeyV6", ANY_TEXT},
};
#define ANNOTATION_LABELS "projectcalico.org/labels"
#define ANNOTATION_ANNOTATIONS "projectcalico.org/annotations"
#define ANNOTATION_KUBE_LABELS "projectcalico.org/kube-labels"
#define ANNOTATION_INTERFACES "projectcalico.org/Interfaces"

static bool is_mac(struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        bool is_hex = (s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f') ||
                      (s.p[i] >= 'A' && s.p[i] <= 'F');
        if (i % 3 == 2 ? s.p[i] != ':' : !is_hex) {
            return false;
        }
    }
    return s.n == 17;
}

/* "64512" or "1.10". */
static bool as_number(struct str s, int64_t *out) {
    struct str low = s, high = str_cut(&low, '.');
    uint64_t h = 0, l = 0;
    if (str_to_u64(high, &h) < 0 || (low.p && str_to_u64(low, &l) < 0)) {
        return false;
    }
    if (low.p ? h > 65535 || l > 65535 : h > UINT32_MAX) {
        return false;
    }
    *out = (int64_t)(low.p ? h << 16 | l : h);
    return true;
}

/* Calico ignores an annotation whose value is none. */
static bool is_good(enum node_check check, struct str s) {
    struct prefix p;
    int64_t asn;
    switch (check) {
    case ANY_TEXT:
        return true;
    case MAC:
        return is_mac(s);
    case AS_NUMBER:
        return as_number(s, &asn);
    case NET4:
    case ADDR4:
        return prefix_parse(s, &p) == 0 && p.ip.family == IP_V4;
    case NET6:
    case ADDR6:
        return prefix_parse(s, &p) == 0 && p.ip.family == IP_V6;
    }
    return false;
}

/* The map that path's last part is a member of, made on the way; *last is that part. */
static struct jnode *parent_of(struct arena *a, struct jnode *doc, const char *path,
                               const char **last) {
    struct str rest = str_c(path);
    struct jnode *map = doc;
    for (;;) {
        struct str part = str_cut(&rest, '.');
        if (!rest.p) {
            *last = part.p;
            return map;
        }
        map = kube_map_at(a, map, arena_cstr(a, part));
    }
}

static void node_labels(struct jnode *obj, struct jnode *meta, struct arena *a) {
    struct jnode *labels = kube_parse_text(kube_annotation(obj, ANNOTATION_LABELS), a);
    struct jnode *annotations = kube_parse_text(kube_annotation(obj, ANNOTATION_ANNOTATIONS), a);
    struct jnode *own = jnode_getc(jnode_getc(obj, "metadata"), "labels");
    labels = labels && labels->type == J_MAP ? labels : jnode_new(a, J_MAP);
    jnode_each (n, own) {
        jnode_set(a, labels, n->key, jnode_copy(a, n));
    }
    if (labels->n) {
        jnode_set(a, meta, STR("labels"), labels);
    }
    annotations = annotations && annotations->type == J_MAP ? annotations : jnode_new(a, J_MAP);
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
    if (own) {
        json_write(&b, own, 0);
    } else {
        buf_puts(&b, "null");
    }
    kube_set_text(a, annotations, ANNOTATION_KUBE_LABELS, arena_dup(a, buf_view(&b)));
    jnode_set(a, meta, STR("annotations"), annotations);
}

static void add_address(struct arena *a, struct jnode *list, struct str addr, const char *type) {
    struct jnode *n = jnode_new(a, J_MAP);
    kube_set_text(a, n, "address", addr);
    kube_set_text(a, n, "type", str_c(type));
    jnode_append(list, n);
}

static void node_addresses(struct jnode *obj, struct jnode *spec, struct arena *a) {
    struct jnode *list = jnode_new(a, J_LIST);
    static const char *const BGP[] = {"ipv4Address", "ipv6Address"};
    for (size_t i = 0; i < ARRAY_LEN(BGP); i++) {
        struct str s = jnode_str(jnode_getc(jnode_getc(spec, "bgp"), BGP[i]));
        if (s.n) {
            add_address(a, list, s, "CalicoNodeIP");
        }
    }
    jnode_each (n, jnode_getc(jnode_getc(obj, "status"), "addresses")) {
        struct str type = jnode_str(jnode_getc(n, "type"));
        struct str addr = jnode_str(jnode_getc(n, "address"));
        if (addr.n && (str_is(type, "InternalIP") || str_is(type, "ExternalIP"))) {
            add_address(a, list, addr, arena_cstr(a, type));
        }
    }
    if (list->n) {
        jnode_set(a, spec, STR("addresses"), list);
    }
}

struct jnode *kube_read_node(struct jnode *obj, struct arena *a) {
    const struct jnode *om = jnode_getc(obj, "metadata");
    struct jnode *n = kube_new_object(a, "projectcalico.org/v3", "Node");
    struct jnode *meta = jnode_getc(n, "metadata"), *spec = kube_map_at(a, n, "spec");
    struct str name = jnode_str(jnode_getc(om, "name"));
    kube_set_text(a, meta, "name", name);
    kube_copy_identity(a, meta, om, false);
    node_labels(obj, meta, a);
    for (size_t i = 0; i < ARRAY_LEN(NODE_FIELDS); i++) {
        const struct node_field *f = &NODE_FIELDS[i];
        struct str s = kube_annotation(obj, f->annotation);
        const char *last;
        int64_t asn = 0;
        if (!s.n || !is_good(f->check, s)) {
            continue;
        }
        struct jnode *map = parent_of(a, n, f->path, &last);
        if (f->check == AS_NUMBER && as_number(s, &asn)) {
            jnode_set(a, map, str_c(last), jnode_new_int(a, asn));
        } else {
            kube_set_text(a, map, last, s);
        }
    }
    struct jnode *ref = jnode_new(a, J_MAP), *refs = jnode_new(a, J_LIST);
    kube_set_text(a, ref, "nodeName", name);
    kube_set_text(a, ref, "orchestrator", STR("k8s"));
    jnode_append(refs, ref);
    jnode_set(a, spec, STR("orchRefs"), refs);
    node_addresses(obj, spec, a);
    struct jnode *ifaces = kube_parse_text(kube_annotation(obj, ANNOTATION_INTERFACES), a);
    if (ifaces && ifaces->type == J_LIST) {
        jnode_set(a, spec, STR("interfaces"), ifaces);
    }
    struct jnode *cidrs = jnode_getc(jnode_getc(obj, "spec"), "podCIDRs");
    if (cidrs && cidrs->type == J_LIST && cidrs->n) {
        jnode_set(a, kube_map_at(a, n, "status"), STR("podCIDRs"), jnode_copy(a, cidrs));
    }
    return n;
}

/* Labels and annotations of Calico's own: those of Kubernetes are bookkept in kube-labels. */
static void write_node_meta(const struct jnode *value, struct jnode *out, struct arena *a) {
    const struct jnode *meta = jnode_getc(value, "metadata");
    struct str text = kube_annotation(value, ANNOTATION_KUBE_LABELS);
    struct jnode *inherited = kube_parse_text(text, a);
    static const char *const WHAT[][2] = {{"labels", ANNOTATION_LABELS},
                                          {"annotations", ANNOTATION_ANNOTATIONS}};
    for (size_t i = 0; i < ARRAY_LEN(WHAT); i++) {
        struct jnode *own = jnode_new(a, J_MAP);
        jnode_each (n, jnode_getc(meta, WHAT[i][0])) {
            bool is_theirs = i == 0 ? inherited && jnode_get(inherited, n->key) != NULL
                                    : str_is(n->key, ANNOTATION_KUBE_LABELS);
            if (!is_theirs) {
                jnode_set(a, own, n->key, jnode_copy(a, n));
            }
        }
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
        json_write(&b, own, 0);
        jnode_set(a, out, str_c(WHAT[i][1]),
                  own->n ? jnode_new_str(a, arena_dup(a, buf_view(&b))) : jnode_new(a, J_NULL));
    }
}

int kube_write_node(const struct jnode *value, struct arena *a, struct jnode **patch,
                    struct err *e) {
    struct jnode *p = jnode_new(a, J_MAP);
    struct jnode *out = kube_map_at(a, kube_map_at(a, p, "metadata"), "annotations");
    write_node_meta(value, out, a);
    for (size_t i = 0; i < ARRAY_LEN(NODE_FIELDS); i++) {
        const struct node_field *f = &NODE_FIELDS[i];
        const struct jnode *n = jnode_path(value, f->path);
        struct str s = n && (n->type == J_STR || n->type == J_INT) ? n->s : STR_NULL;
        if (n && n->type == J_INT && !s.n) {
            s = arena_printf(a, "%lld", (long long)n->i);
        }
        if (s.n && !is_good(f->check, s)) {
            return err_set(e, ERR_INVALID, "node: %s: found \"%.*s\", which is none", f->path,
                           s.n > 100 ? 100 : (int)s.n, s.p);
        }
        jnode_set(a, out, str_c(f->annotation), s.n ? jnode_new_str(a, s) : jnode_new(a, J_NULL));
    }
    const struct jnode *ifaces = jnode_path(value, "spec.interfaces");
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
    if (ifaces && ifaces->type == J_LIST) {
        json_write(&b, ifaces, 0);
    }
    jnode_set(a, out, STR(ANNOTATION_INTERFACES),
              b.n ? jnode_new_str(a, arena_dup(a, buf_view(&b))) : jnode_new(a, J_NULL));
    *patch = p;
    return 0;
}

/* ---- WorkloadEndpoint ---- */

/* A part of an endpoint's name: each - doubled. */
static void put_part(struct buf *b, struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        buf_putc(b, s.p[i]);
        if (s.p[i] == '-') {
            buf_putc(b, '-');
        }
    }
}

struct str kube_wep_name(struct str node, struct str pod, struct arena *a) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    put_part(&b, node);
    buf_puts(&b, "-k8s-");
    put_part(&b, pod);
    buf_puts(&b, "-eth0");
    return arena_dup(a, buf_view(&b));
}

int kube_wep_parse(struct str name, struct arena *a, struct str *node, struct str *pod) {
    char *text = arena_alloc(a, name.n + 1);
    struct str parts[4];
    size_t n = 0, used = 0, start = 0;
    for (size_t i = 0; i <= name.n; i++) {
        bool is_dash = i < name.n && name.p[i] == '-';
        if (is_dash && i + 1 < name.n && name.p[i + 1] == '-') {
            text[used++] = '-';
            i++;
        } else if (is_dash || i == name.n) {
            if (n == ARRAY_LEN(parts) || used == start) {
                return ERR_INVALID;
            }
            parts[n++] = str_n(text + start, used - start);
            start = used;
        } else {
            text[used++] = name.p[i];
        }
    }
    if (n != 4 || !str_is(parts[1], "k8s") || !str_is(parts[3], "eth0")) {
        return ERR_INVALID;
    }
    *node = parts[0];
    *pod = parts[2];
    return 0;
}

static bool is_finished(const struct jnode *pod) {
    struct str phase = jnode_str(jnode_getc(jnode_getc(pod, "status"), "phase"));
    if (str_is(phase, "Succeeded") || str_is(phase, "Failed")) {
        return true;
    }
    const struct jnode *gone = jnode_getc(jnode_getc(pod, "metadata"), "deletionTimestamp");
    struct str ip = kube_annotation(pod, KUBE_POD_IP);
    return gone && gone->type == J_STR && ip.p && ip.n == 0;
}

static bool add_net(struct arena *a, struct jnode *list, struct str s) {
    struct prefix p;
    char text[IP_TEXT_MAX];
    if (prefix_parse(s, &p) < 0) {
        return false;
    }
    jnode_append(list, jnode_new_str(a, arena_dup(a, str_c(prefix_text(&p, text)))));
    return true;
}

/* status.podIPs, else podIP, else the annotations. */
static int pod_nets(const struct jnode *pod, struct arena *a, struct jnode *list) {
    const struct jnode *st = jnode_getc(pod, "status");
    static const char *const NOTED[] = {KUBE_POD_IPS, KUBE_POD_IP, "vpc.amazonaws.com/pod-ips"};
    jnode_each (n, jnode_getc(st, "podIPs")) {
        struct str ip = jnode_str(jnode_getc(n, "ip"));
        if (ip.n && !add_net(a, list, ip)) {
            return ERR_CORRUPT;
        }
    }
    struct str ip = jnode_str(jnode_getc(st, "podIP"));
    if (list->n == 0 && ip.n && !add_net(a, list, ip)) {
        return ERR_CORRUPT;
    }
    for (size_t i = 0; i < ARRAY_LEN(NOTED) && list->n == 0; i++) {
        struct str rest = kube_annotation(pod, NOTED[i]);
        while (rest.n) {
            if (!add_net(a, list, str_trim(str_cut(&rest, ',')))) {
                return ERR_CORRUPT;
            }
        }
    }
    return 0;
}

static void pod_ports(const struct jnode *containers, struct arena *a, struct jnode *list) {
    jnode_each (c, containers) {
        jnode_each (p, jnode_getc(c, "ports")) {
            const struct jnode *port = jnode_getc(p, "containerPort");
            const struct jnode *host = jnode_getc(p, "hostPort");
            struct str name = jnode_str(jnode_getc(p, "name"));
            struct str proto = jnode_str(jnode_getc(p, "protocol"));
            struct str host_ip = jnode_str(jnode_getc(p, "hostIP"));
            bool has_host = host && host->type == J_INT && host->i > 0;
            bool is_known =
                !proto.n || str_is(proto, "TCP") || str_is(proto, "UDP") || str_is(proto, "SCTP");
            if (!port || port->type != J_INT || port->i <= 0 || (!has_host && !name.n) ||
                !is_known) {
                continue;
            }
            struct jnode *n = jnode_new(a, J_MAP);
            kube_set_text(a, n, "name", name.p ? name : STR(""));
            kube_set_text(a, n, "protocol", proto.n ? proto : STR("TCP"));
            jnode_set(a, n, STR("port"), jnode_new_int(a, port->i));
            jnode_set(a, n, STR("hostPort"), jnode_new_int(a, has_host ? host->i : 0));
            kube_set_text(a, n, "hostIP", host_ip.p ? host_ip : STR(""));
            jnode_append(list, n);
        }
    }
}

/* JSON list of prefixes in an annotation, as a list of those that are some. */
static void pod_spoof(const struct jnode *pod, struct jnode *spec, struct arena *a) {
    struct jnode *in =
        kube_parse_text(kube_annotation(pod, "cni.projectcalico.org/allowedSourcePrefixes"), a);
    struct jnode *list = jnode_new(a, J_LIST);
    if (in && in->type == J_LIST) {
        jnode_each (n, in) {
            struct prefix p;
            char text[IP_TEXT_MAX];
            if (prefix_parse(jnode_str(n), &p) == 0) {
                p = prefix_mask(p);
                jnode_append(list, jnode_new_str(a, arena_dup(a, str_c(prefix_text(&p, text)))));
            }
        }
    }
    if (list->n) {
        jnode_set(a, spec, STR("allowSpoofedSourcePrefixes"), list);
    }
}

/* Floating addresses, each to the first of the pod's own of its family. */
static void pod_floating(const struct jnode *pod, const struct jnode *nets, struct jnode *spec,
                         struct arena *a) {
    struct jnode *in =
        kube_parse_text(kube_annotation(pod, "cni.projectcalico.org/floatingIPs"), a);
    struct jnode *list = jnode_new(a, J_LIST);
    jnode_each (n, in && in->type == J_LIST ? in : NULL) {
        struct ip46 ip;
        struct prefix own = {.ip = {0}};
        char text[IP_TEXT_MAX];
        if (ip_parse(jnode_str(n), &ip) < 0) {
            continue;
        }
        const struct jnode *net = nets->child;
        while (net && (prefix_parse(jnode_str(net), &own) < 0 || own.ip.family != ip.family)) {
            net = net->next;
        }
        if (net) {
            struct jnode *m = jnode_new(a, J_MAP);
            kube_set_text(a, m, "internalIP", arena_dup(a, str_c(ip_text(&own.ip, text))));
            kube_set_text(a, m, "externalIP", arena_dup(a, str_c(ip_text(&ip, text))));
            jnode_append(list, m);
        }
    }
    if (list->n) {
        jnode_set(a, spec, STR("ipNATs"), list);
    }
}

static struct str veth_name(struct str ns, struct str pod, struct arena *a) {
    const char *prefix = getenv("FELIX_INTERFACEPREFIX");
    struct str rest = prefix && *prefix ? str_c(prefix) : STR("cali"), first = str_cut(&rest, ',');
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    uint8_t digest[20];
    char hex[41];
    buf_printf(&b, "%.*s.%.*s", STR_FMT(ns), STR_FMT(pod));
    sha1(b.p, b.n, digest);
    hex_encode(digest, sizeof(digest), hex);
    return arena_printf(a, "%.*s%.11s", STR_FMT(first), hex);
}

static void wep_meta(const struct jnode *pod, struct jnode *meta, struct arena *a) {
    const struct jnode *om = jnode_getc(pod, "metadata");
    struct str ns = jnode_str(jnode_getc(om, "namespace"));
    struct str sa = jnode_str(jnode_getc(jnode_getc(pod, "spec"), "serviceAccountName"));
    struct jnode *labels = kube_map_at(a, meta, "labels");
    kube_copy_identity(a, meta, om, false);
    jnode_each (n, jnode_getc(om, "labels")) {
        jnode_set(a, labels, n->key, jnode_copy(a, n));
    }
    kube_set_text(a, labels, "projectcalico.org/namespace", ns);
    kube_set_text(a, labels, "projectcalico.org/orchestrator", STR("k8s"));
    if (sa.n && sa.n < 63) {
        kube_set_text(a, labels, "projectcalico.org/serviceaccount", sa);
    }
    struct str network = kube_annotation(pod, "k8s.v1.cni.cncf.io/network-status");
    if (network.p) {
        kube_set_text(a, kube_map_at(a, meta, "annotations"), "k8s.v1.cni.cncf.io/network-status",
                      network);
    }
}

int kube_read_wep(struct jnode *pod, struct arena *a, struct kube_item *out, struct err *e) {
    const struct jnode *om = jnode_getc(pod, "metadata"), *ps = jnode_getc(pod, "spec");
    struct str ns = jnode_str(jnode_getc(om, "namespace")),
               name = jnode_str(jnode_getc(om, "name"));
    struct str node = jnode_str(jnode_getc(ps, "nodeName"));
    const struct jnode *host = jnode_getc(ps, "hostNetwork");
    struct str own = kube_wep_name(node, name, a), id = kube_annotation(pod, KUBE_POD_CONTAINER);
    out->key = kind_store_key(&model_kinds[K_WORKLOAD_ENDPOINT], ns, own, a);
    out->value = NULL;
    if (!node.n || (host && host->type == J_BOOL && host->b)) {
        return 0;
    }
    struct jnode *nets = jnode_new(a, J_LIST);
    if (pod_nets(pod, a, nets) < 0) {
        return err_set(e, ERR_CORRUPT, "pod %.*s/%.*s: one of its addresses is none", STR_FMT(ns),
                       STR_FMT(name));
    }
    if (nets->n == 0 && !kube_annotation(pod, KUBE_POD_IP).p) {
        return 0; /* no address yet */
    }
    if (is_finished(pod)) {
        nets = jnode_new(a, J_LIST);
    }
    struct jnode *w = kube_new_object(a, "projectcalico.org/v3", "WorkloadEndpoint");
    struct jnode *meta = jnode_getc(w, "metadata"), *spec = kube_map_at(a, w, "spec");
    struct str sa = jnode_str(jnode_getc(ps, "serviceAccountName"));
    kube_set_text(a, meta, "name", own);
    kube_set_text(a, meta, "namespace", ns);
    wep_meta(pod, meta, a);
    kube_set_text(a, spec, "orchestrator", STR("k8s"));
    kube_set_text(a, spec, "node", node);
    if (id.n) {
        kube_set_text(a, spec, "containerID", id);
    }
    kube_set_text(a, spec, "pod", name);
    kube_set_text(a, spec, "endpoint", STR("eth0"));
    if (sa.n) {
        kube_set_text(a, spec, "serviceAccountName", sa);
    }
    jnode_set(a, spec, STR("ipNetworks"), nets);
    struct jnode *profiles = jnode_new(a, J_LIST), *ports = jnode_new(a, J_LIST);
    jnode_append(profiles, jnode_new_str(a, arena_printf(a, "kns.%.*s", STR_FMT(ns))));
    if (sa.n) {
        jnode_append(profiles,
                     jnode_new_str(a, arena_printf(a, "ksa.%.*s.%.*s", STR_FMT(ns), STR_FMT(sa))));
    }
    jnode_set(a, spec, STR("profiles"), profiles);
    kube_set_text(a, spec, "interfaceName", veth_name(ns, name, a));
    pod_ports(jnode_getc(ps, "containers"), a, ports);
    pod_ports(jnode_getc(ps, "initContainers"), a, ports);
    if (ports->n) {
        jnode_set(a, spec, STR("ports"), ports);
    }
    pod_spoof(pod, spec, a);
    pod_floating(pod, nets, spec, a);
    out->value = w;
    return 0;
}

struct jnode *kube_write_wep(const struct jnode *value, struct arena *a) {
    struct jnode *p = jnode_new(a, J_MAP);
    struct jnode *out = kube_map_at(a, kube_map_at(a, p, "metadata"), "annotations");
    struct str id = jnode_str(jnode_path(value, "spec.containerID"));
    struct str first = STR("");
    MG_CLEANUP(buf_fini) struct buf all = BUF_INIT(65536);
    jnode_each (n, jnode_path(value, "spec.ipNetworks")) {
        struct str s = jnode_str(n);
        first = all.n ? first : s;
        buf_printf(&all, "%s%.*s", all.n ? "," : "", STR_FMT(s));
    }
    kube_set_text(a, out, KUBE_POD_IP, first);
    kube_set_text(a, out, KUBE_POD_IPS, arena_dup(a, buf_view(&all)));
    if (id.n) {
        kube_set_text(a, out, KUBE_POD_CONTAINER, id);
    }
    return p;
}

/* ---- Profile ---- */

static void add_rules(struct arena *a, struct jnode *spec) {
    static const char *const WAYS[] = {"ingress", "egress"};
    for (size_t i = 0; i < ARRAY_LEN(WAYS); i++) {
        struct jnode *rule = jnode_new(a, J_MAP), *list = jnode_new(a, J_LIST);
        kube_set_text(a, rule, "action", STR("Allow"));
        jnode_append(list, rule);
        jnode_set(a, spec, str_c(WAYS[i]), list);
    }
}

void kube_read_profile(const struct kube_view *v, struct jnode *obj, struct arena *a,
                       struct kube_item *out) {
    const struct jnode *om = jnode_getc(obj, "metadata");
    struct str name = jnode_str(jnode_getc(om, "name")),
               ns = jnode_str(jnode_getc(om, "namespace"));
    bool is_ns = v->shape == KUBE_NS_PROFILE;
    const char *prefix = is_ns ? "pcns." : "pcsa.";
    struct jnode *p = kube_new_object(a, "projectcalico.org/v3", "Profile");
    struct jnode *meta = jnode_getc(p, "metadata"), *spec = kube_map_at(a, p, "spec");
    struct str own = is_ns ? arena_printf(a, "kns.%.*s", STR_FMT(name))
                           : arena_printf(a, "ksa.%.*s.%.*s", STR_FMT(ns), STR_FMT(name));
    kube_set_text(a, meta, "name", own);
    kube_copy_identity(a, meta, om, true);
    if (is_ns) {
        add_rules(a, spec);
    }
    struct jnode *labels = kube_map_at(a, spec, "labelsToApply");
    jnode_each (n, jnode_getc(om, "labels")) {
        jnode_set(a, labels, arena_printf(a, "%s%.*s", prefix, STR_FMT(n->key)), jnode_copy(a, n));
    }
    kube_set_text(a, labels, is_ns ? "pcns.projectcalico.org/name" : "pcsa.projectcalico.org/name",
                  name);
    out->key = kind_store_key(&model_kinds[K_PROFILE], STR(""), own, a);
    out->value = p;
}

struct jnode *kube_default_allow(struct arena *a) {
    struct jnode *p = kube_new_object(a, "projectcalico.org/v3", "Profile");
    kube_set_text(a, jnode_getc(p, "metadata"), "name", STR(KUBE_DEFAULT_ALLOW));
    add_rules(a, kube_map_at(a, p, "spec"));
    return p;
}
