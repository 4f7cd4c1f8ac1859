#include "cli/world.h"

#include "base/vec.h"
#include "model/k8s.h"
#include "model/policy.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#define HERE "here" /* the node that everything is taken to be on */

/* ---- pods ---- */

static struct world_pod *pod_get(struct world *w, struct str ns, struct str name) {
    for (size_t i = w->n_pods; i-- > 0;) { /* the newest is asked for most */
        if (str_eq(w->pods[i].ns, ns) && str_eq(w->pods[i].name, name)) {
            return &w->pods[i];
        }
        if (w->n_pods - i > 64) {
            break; /* sorted later: those of one name are joined then */
        }
    }
    if (w->n_pods == w->cap_pods) {
        w->cap_pods = w->cap_pods ? w->cap_pods * 2 : 64;
        w->pods = realloc(w->pods, w->cap_pods * sizeof(*w->pods));
        mg_assert(w->pods != NULL);
    }
    struct world_pod *p = &w->pods[w->n_pods++];
    *p = (struct world_pod){.ns = arena_dup(&w->a, ns), .name = arena_dup(&w->a, name)};
    return p;
}

static void add_ip(struct world_pod *p, const struct ip46 *ip) {
    size_t f = ip->family == IP_V6;
    if (!p->has_ip[f]) {
        p->ips[f] = *ip;
        p->has_ip[f] = true;
    }
}

static void keep_labels(struct world *w, struct world_pod *p, const struct str_map *labels) {
    p->labels.p = arena_array(&w->a, struct str_pair, labels->n);
    p->labels.n = labels->n;
    for (size_t i = 0; i < labels->n; i++) {
        p->labels.p[i] = (struct str_pair){arena_dup(&w->a, labels->p[i].key),
                                           arena_dup(&w->a, labels->p[i].value)};
    }
}

static void see_pod(struct world *w, const struct object *o) {
    struct k8s_pod *spec = o->spec;
    struct world_pod *p = pod_get(w, o->meta.ns, o->meta.name);
    bool is_finished = str_is(spec->phase, "Succeeded") || str_is(spec->phase, "Failed");
    keep_labels(w, p, &o->meta.labels);
    p->node = p->node.p ? p->node : arena_dup(&w->a, spec->node_name);
    p->is_host_network = spec->host_network;
    p->has_endpoint |= spec->host_network || is_finished; /* never gets one */
    for (size_t i = 0; i < spec->ips.n && !is_finished; i++) {
        add_ip(p, &spec->ips.p[i]);
    }
    spec->node_name = STR(HERE);
}

static void see_endpoint(struct world *w, const struct object *o) {
    struct workload_endpoint_spec *spec = o->spec;
    struct str name = spec->pod.n ? spec->pod : o->meta.name;
    struct world_pod *p = pod_get(w, o->meta.ns, name);
    p->has_endpoint = true;
    p->node = arena_dup(&w->a, spec->node);
    if (!spec->pod.n) {
        keep_labels(w, p, &o->meta.labels);
    }
    for (size_t i = 0; i < spec->ip_networks.n; i++) {
        add_ip(p, &spec->ip_networks.p[i].ip);
    }
    spec->node = STR(HERE);
    if (!spec->interface_name.n) {
        spec->interface_name = STR("cali0");
    }
}

enum { VXLAN_PORT = 4789 }; /* unless FelixConfiguration says another */

static void take(struct world *w, const struct kind *k, struct str ns, struct str name,
                 struct object *o) {
    if (w->seen && o->spec) {
        w->seen(w->seen_arg, k, o);
    }
    if (k->id == K_FELIX_CONFIGURATION && str_is(name, "default")) {
        const struct jnode *port = jnode_path(o->doc, "spec.vxlanPort");
        const struct jnode *may = jnode_path(o->doc, "spec.allowVXLANPacketsFromWorkloads");
        uint64_t v = 0;
        w->vxlan_port =
            port && str_to_u64(port->s, &v) == 0 && v <= UINT16_MAX ? (uint16_t)v : VXLAN_PORT;
        w->may_pods_send_vxlan = may && may->type == J_BOOL && may->b;
    }
    if (o->spec && k->id == K_POD) {
        see_pod(w, o);
    } else if (o->spec && k->id == K_WORKLOAD_ENDPOINT) {
        see_endpoint(w, o);
    } else if (o->spec && k->id == K_HOST_ENDPOINT) {
        ((struct host_endpoint_spec *)o->spec)->node = STR(HERE);
    }
    calc_object(w->calc, k, ns, name, o);
}

static int pod_cmp(const void *a, const void *b) {
    const struct world_pod *x = a, *y = b;
    int r = str_cmp(x->ns, y->ns);
    return r ? r : str_cmp(x->name, y->name);
}

/* What a Pod and its WorkloadEndpoint said, put together. */
static void join(struct world *w) {
    if (w->n_pods > 1) {
        qsort(w->pods, w->n_pods, sizeof(*w->pods), pod_cmp);
    }
    size_t n = 0;
    for (size_t i = 0; i < w->n_pods; i++) {
        struct world_pod *p = &w->pods[i];
        if (n && pod_cmp(&w->pods[n - 1], p) == 0) {
            struct world_pod *q = &w->pods[n - 1];
            for (size_t f = 0; f < 2; f++) {
                if (p->has_ip[f]) {
                    add_ip(q, &p->ips[f]);
                }
            }
            q->has_endpoint |= p->has_endpoint;
            q->is_host_network |= p->is_host_network;
            q->labels = q->labels.n ? q->labels : p->labels;
            q->node = p->node.n ? p->node : q->node;
        } else {
            w->pods[n++] = *p;
        }
    }
    w->n_pods = n;
}

/* A pod that has no WorkloadEndpoint (of another node, or of a file) gets one. */
static void make_endpoint(struct world *w, struct world_pod *p) {
    if (!p->has_ip[0] && !p->has_ip[1]) {
        uint32_t n = ++w->n_made_up; /* 198.18.0.0/15: for tests of networks (RFC 2544) */
        struct ip46 ip = {.family = IP_V4,
                          .b = {198, (uint8_t)(18 | (n >> 16 & 1)), (uint8_t)(n >> 8), (uint8_t)n}};
        add_ip(p, &ip);
    }
    struct prefix nets[2];
    struct workload_endpoint_spec spec = {.orchestrator = STR("k8s"),
                                          .node = STR(HERE),
                                          .pod = p->name,
                                          .endpoint = STR("eth0"),
                                          .interface_name = STR("cali0")};
    spec.ip_networks.p = nets;
    for (size_t f = 0; f < 2; f++) {
        if (p->has_ip[f]) {
            nets[spec.ip_networks.n++] = (struct prefix){p->ips[f], (uint8_t)ip_bits(&p->ips[f])};
        }
    }
    const struct kind *k = &model_kinds[K_WORKLOAD_ENDPOINT];
    struct object o = {.kind = k, .meta = {.ns = p->ns, .name = p->name}, .spec = &spec};
    calc_object(w->calc, k, p->ns, p->name, &o);
    p->has_endpoint = true;
}

/* ---- reading ---- */

static int on_item(void *arg, const struct store_item *it) {
    const struct kind *k = NULL;
    struct str ns, name;
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct object o;
    struct model_errors errs = {.a = &a};
    if (kind_split_key(it->key, &k, &ns, &name) == 0 &&
        json_parse(it->value, &json_limits_default, &a, &doc, NULL) == 0) {
        (void)!object_read(doc, MODEL_STORE, ns, &a, &o, &errs);
        if (o.kind == k) {
            take(arg, k, ns, name, &o);
        }
    }
    arena_fini(&a);
    return 0;
}

static int on_document(void *arg, struct jnode *doc, const char *file) {
    struct arena a = {0};
    struct object o;
    int r = cli_check(doc, file, STR("default"), &a, &o);
    if (r == 0) {
        take(arg, o.kind, o.meta.ns, o.meta.name, &o);
    }
    arena_fini(&a);
    return r < 0 ? 1 : 0;
}

static int read_store(struct world *w) {
    struct store *s = NULL;
    struct err e;
    int r = cli_store(&s, &e);
    if (r == 0) {
        r = store_list(s, (struct store_key){STR(STORE_SPACE_RESOURCES), STR("")}, NULL, on_item, w,
                       &e);
        store_close(s);
    }
    return r < 0 ? cli_error("%s", e.msg) : 0;
}

struct world *world_open(char **files, size_t n_files) {
    return world_open_seen(files, n_files, NULL, NULL);
}

struct world *world_open_seen(char **files, size_t n_files,
                              void (*seen)(void *arg, const struct kind *k, const struct object *o),
                              void *arg) {
    struct world *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    w->vxlan_port = VXLAN_PORT;
    w->seen = seen;
    w->seen_arg = arg;
    w->mirror = mirror_new();
    w->calc = calc_new(STR(HERE), &mirror_calc_ops, w->mirror);
    if (n_files ? cli_each_document(files, n_files, true, &w->a, on_document, w) : read_store(w)) {
        world_free(w);
        return NULL;
    }
    join(w);
    for (size_t i = 0; i < w->n_pods; i++) {
        if (!w->pods[i].has_endpoint && (n_files || w->pods[i].has_ip[0] || w->pods[i].has_ip[1])) {
            make_endpoint(w, &w->pods[i]);
        }
    }
    calc_flush(w->calc);
    return w;
}

void world_free(struct world *w) {
    if (w) {
        mirror_free(w->mirror);
        calc_free(w->calc);
        free(w->pods);
        arena_fini(&w->a);
        free(w);
    }
}

const struct world_pod *world_find(const struct world *w, struct str ns, struct str name) {
    struct world_pod key = {.ns = ns, .name = name};
    return w->n_pods ? bsearch(&key, w->pods, w->n_pods, sizeof(*w->pods), pod_cmp) : NULL;
}

const struct world_pod *world_by_ip(const struct world *w, const struct ip46 *ip) {
    size_t f = ip->family == IP_V6;
    for (size_t i = 0; i < w->n_pods; i++) {
        if (w->pods[i].has_ip[f] && !w->pods[i].is_host_network && ip_eq(&w->pods[i].ips[f], ip)) {
            return &w->pods[i];
        }
    }
    return NULL;
}

/* ---- packets ---- */

bool world_traffic(const char *word, struct packet *out) {
    static const struct {
        const char *name;
        uint8_t number;
        bool has_port;
    } protocols[] = {{"tcp", IPPROTO_TCP, true},
                     {"udp", IPPROTO_UDP, true},
                     {"sctp", IPPROTO_SCTP, true},
                     {"icmp", IPPROTO_ICMP, false}};
    struct str port = str_c(word), name = str_cut(&port, '/');
    for (size_t i = 0; i < ARRAY_LEN(protocols); i++) {
        uint64_t n = 0;
        if (!str_ieq(name, str_c(protocols[i].name))) {
            continue;
        }
        if (protocols[i].has_port != (port.p != NULL) ||
            (port.p && (str_to_u64(port, &n) < 0 || n == 0 || n > 65535))) {
            break;
        }
        *out = (struct packet){.protocol = protocols[i].number,
                               .dport = (uint16_t)n,
                               .sport = protocols[i].has_port ? 40000 : 0};
        return true;
    }
    return false;
}

bool world_ends(const struct world_pod *src, const struct world_pod *dst, struct packet *p) {
    for (size_t f = 0; f < 2; f++) {
        if (src->has_ip[f] && dst->has_ip[f]) {
            p->src = src->ips[f];
            p->dst = dst->ips[f];
            if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6) {
                p->protocol = f ? IPPROTO_ICMPV6 : IPPROTO_ICMP; /* an echo request */
                p->icmp_type = f ? 128 : 8;
            }
            return true;
        }
    }
    return false;
}
