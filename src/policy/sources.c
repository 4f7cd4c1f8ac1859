/* Where items come from: Pods joined with WorkloadEndpoints, network sets, host endpoints; and the
 * addresses of services from EndpointSlices. */
#include "policy/calc_int.h"

#include <netinet/in.h>
#include <stdlib.h>

static struct str copy(struct arena *a, struct str s) {
    return s.p ? arena_dup(a, s) : STR_NULL;
}

static void copy_labels(struct arena *a, struct str_map *dst, const struct str_map *src) {
    dst->p = arena_array(a, struct str_pair, src->n);
    dst->n = src->n;
    for (size_t i = 0; i < src->n; i++) {
        dst->p[i] = (struct str_pair){arena_dup(a, src->p[i].key), arena_dup(a, src->p[i].value)};
    }
}

static void *copy_array(struct arena *a, const void *p, size_t bytes) {
    void *q = arena_alloc(a, bytes);
    if (bytes) {
        memcpy(q, p, bytes);
    }
    return q;
}

/* ---- pods and workload endpoints ---- */

static struct epsrc *source_get(struct calc *c, struct str key) {
    struct epsrc **found = map_src_get(&c->sources, key);
    if (found) {
        return *found;
    }
    struct epsrc *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->key = strndup(key.p, key.n);
    mg_assert(s->key != NULL);
    s->pod_a.first_bytes = 192;
    *map_src_put(&c->sources, str_c(s->key), NULL) = s;
    return s;
}

static void drop_item(struct calc *c, struct item **it) {
    if (*it) {
        item_free(c, *it);
        *it = NULL;
    }
}

static void wep_free(struct calc *c, struct wep *w) {
    drop_item(c, &w->item);
    arena_fini(&w->a);
    free(w);
}

static bool is_finished(const struct k8s_pod *p) {
    return str_is(p->phase, "Succeeded") || str_is(p->phase, "Failed");
}

/* Named ports of a pod's containers. */
static size_t pod_ports(const struct k8s_pod *p, struct arena *a, struct endpoint_port **out) {
    *out = arena_array(a, struct endpoint_port, p->ports.n);
    size_t n = 0;
    for (size_t i = 0; i < p->ports.n; i++) {
        const struct container_port *q = &p->ports.p[i];
        if (q->name.n && q->container_port) {
            (*out)[n++] = (struct endpoint_port){q->name, q->container_port, q->protocol};
        }
    }
    return n;
}

/* What a Pod says of its endpoint: labels, profiles, ports. Strings in a. */
static void from_pod(const struct calc *c, const struct epsrc *s, struct arena *a,
                     struct item_in *in) {
    struct str *profiles = arena_array(a, struct str, 2);
    struct str_map *labels = arena_new(a, struct str_map);
    labels->p = arena_array(a, struct str_pair, s->n_pod_pairs);
    labels->n = s->n_pod_pairs;
    for (uint32_t i = 0; i < s->n_pod_pairs; i++) {
        struct label l = ltab_label(c->labels, s->pod_pairs[i]);
        labels->p[i] = (struct str_pair){l.key, l.value};
    }
    in->labels = labels;
    in->ns = s->pod_ns;
    in->orchestrator = STR("k8s");
    profiles[in->n_profiles++] = arena_printf(a, "kns.%.*s", STR_FMT(s->pod_ns));
    if (s->pod.service_account_name.n) {
        in->service_account = s->pod.service_account_name;
        profiles[in->n_profiles++] = arena_printf(a, "ksa.%.*s.%.*s", STR_FMT(s->pod_ns),
                                                  STR_FMT(s->pod.service_account_name));
    }
    in->profiles = profiles;
    struct endpoint_port *ports;
    in->n_ports = pod_ports(&s->pod, a, &ports);
    in->ports = ports;
    in->pod_ns = s->pod_ns;
    in->pod_name = s->pod_name;
}

static void from_wep(const struct wep *w, struct str ns, struct item_in *in) {
    in->labels = &w->labels;
    in->ns = ns;
    in->orchestrator = w->spec.orchestrator;
    in->service_account = w->spec.service_account;
    in->profiles = w->spec.profiles.p;
    in->n_profiles = w->spec.profiles.n;
    in->ports = w->spec.ports.p;
    in->n_ports = w->spec.ports.n;
    in->pod_ns = ns;
    in->pod_name = w->spec.pod.n        ? w->spec.pod
                   : w->spec.workload.n ? w->spec.workload
                                        : w->spec.container_id;
}

static int hex(char ch) {
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                    : -1;
}

static void parse_mac(struct str s, uint8_t out[6]) {
    uint8_t mac[6];
    if (s.n != 17) {
        return;
    }
    for (size_t i = 0; i < 6; i++) {
        int hi = hex(s.p[i * 3]), lo = hex(s.p[i * 3 + 1]);
        if (hi < 0 || lo < 0 || (i < 5 && s.p[i * 3 + 2] != ':')) {
            return;
        }
        mac[i] = (uint8_t)(hi << 4 | lo);
    }
    memcpy(out, mac, 6);
}

static void update_wep(struct calc *c, struct epsrc *s, struct wep *w, struct str ns,
                       struct arena *a) {
    bool is_local = str_is(w->spec.node, c->node);
    bool pod_speaks = s->has_pod && !is_local && s->pod.ips.n > 0;
    if (pod_speaks || (s->has_pod && (s->pod.host_network || is_finished(&s->pod)))) {
        drop_item(c, &w->item);
        return;
    }
    struct item_in in = {.nets = w->spec.ip_networks.p, .n_nets = w->spec.ip_networks.n};
    if (s->has_pod) {
        from_pod(c, s, a, &in);
    } else {
        from_wep(w, ns, &in);
    }
    if (is_local && w->spec.interface_name.n) {
        in.is_local = true;
        in.iface = w->spec.interface_name;
        parse_mac(w->spec.mac, in.mac);
        struct prefix *ok = arena_array(a, struct prefix, w->spec.allow_spoofed_source_prefixes.n);
        for (size_t i = 0; i < w->spec.allow_spoofed_source_prefixes.n; i++) {
            in.n_spoof_ok +=
                prefix_parse(w->spec.allow_spoofed_source_prefixes.p[i], &ok[in.n_spoof_ok]) == 0;
        }
        in.spoof_ok = ok;
    }
    item_set(c, &w->item, &in);
}

static bool has_local_wep(const struct calc *c, const struct epsrc *s) {
    for (size_t i = 0; i < s->weps.n; i++) {
        if (str_is(s->weps.p[i]->spec.node, c->node)) {
            return true;
        }
    }
    return false;
}

/* A Pod of another node speaks for itself, by its status. */
static void update_pod_item(struct calc *c, struct epsrc *s, struct arena *a) {
    bool is_elsewhere = s->has_pod && s->pod.node_name.n && !str_is(s->pod.node_name, c->node);
    if (!is_elsewhere || s->pod.host_network || is_finished(&s->pod) || s->pod.ips.n == 0 ||
        has_local_wep(c, s)) {
        drop_item(c, &s->pod_item);
        return;
    }
    struct prefix *nets = arena_array(a, struct prefix, s->pod.ips.n);
    for (size_t i = 0; i < s->pod.ips.n; i++) {
        nets[i] = (struct prefix){s->pod.ips.p[i], (uint8_t)ip_bits(&s->pod.ips.p[i])};
    }
    struct item_in in = {.nets = nets, .n_nets = s->pod.ips.n};
    from_pod(c, s, a, &in);
    item_set(c, &s->pod_item, &in);
}

static void drop_pod(struct calc *c, struct epsrc *s) {
    for (uint32_t i = 0; i < s->n_pod_pairs; i++) {
        ltab_unref(c->labels, s->pod_pairs[i]);
    }
    s->n_pod_pairs = 0;
    s->has_pod = false;
    arena_fini(&s->pod_a);
}

static void source_free(struct calc *c, struct epsrc *s) {
    drop_item(c, &s->pod_item);
    while (s->weps.n) {
        wep_free(c, s->weps.p[--s->weps.n]);
    }
    vec_fini(&s->weps);
    drop_pod(c, s);
    free(s->key);
    free(s);
}

static void update_source(struct calc *c, struct epsrc *s, struct str ns) {
    struct arena a = {.first_bytes = 1024};
    for (size_t i = 0; i < s->weps.n; i++) {
        update_wep(c, s, s->weps.p[i], ns, &a);
    }
    update_pod_item(c, s, &a);
    arena_fini(&a);
    if (!s->has_pod && s->weps.n == 0) {
        map_src_del(&c->sources, str_c(s->key));
        source_free(c, s);
    }
}

static struct str make_key(struct buf *b, struct str ns, struct str name) {
    buf_reset(b);
    buf_str(b, ns);
    buf_putc(b, '/');
    buf_str(b, name);
    return buf_view(b);
}

static void keep_pod(struct calc *c, struct epsrc *s, struct str ns, const struct object *o) {
    struct arena *a = &s->pod_a;
    drop_pod(c, s);
    const struct k8s_pod *p = o->spec;
    s->has_pod = true;
    s->pod_ns = str_n(s->key, ns.n); /* key is "NAMESPACE/NAME" */
    s->pod_name = str_c(s->key + ns.n + 1);
    s->pod_pairs = arena_array(a, uint32_t, o->meta.labels.n);
    for (size_t i = 0; i < o->meta.labels.n; i++) {
        s->pod_pairs[s->n_pod_pairs++] =
            ltab_ref(c->labels, o->meta.labels.p[i].key, o->meta.labels.p[i].value);
    }
    s->pod = (struct k8s_pod){.node_name = copy(a, p->node_name),
                              .service_account_name = copy(a, p->service_account_name),
                              .host_network = p->host_network,
                              .phase = copy(a, p->phase)};
    s->pod.ips.p = copy_array(a, p->ips.p, p->ips.n * sizeof(*p->ips.p));
    s->pod.ips.n = p->ips.n;
    s->pod.ports.p = copy_array(a, p->ports.p, p->ports.n * sizeof(*p->ports.p));
    s->pod.ports.n = p->ports.n;
    for (size_t i = 0; i < p->ports.n; i++) {
        s->pod.ports.p[i].name = copy(a, p->ports.p[i].name);
        s->pod.ports.p[i].host_ip = STR_NULL;
    }
}

void pod_object(struct calc *c, struct str ns, struct str name, const struct object *o) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    struct str key = make_key(&b, ns, name);
    if (!o || !o->spec) {
        struct epsrc **s = map_src_get(&c->sources, key);
        if (s) {
            drop_pod(c, *s);
            update_source(c, *s, ns);
        }
        calc_problem(c, &model_kinds[K_POD], ns, name, STR_NULL);
        return;
    }
    struct epsrc *s = source_get(c, key);
    keep_pod(c, s, ns, o);
    update_source(c, s, ns);
}

static void keep_wep(struct wep *w, const struct object *o) {
    const struct workload_endpoint_spec *p = o->spec;
    struct arena *a = &w->a;
    copy_labels(a, &w->labels, &o->meta.labels);
    w->spec = (struct workload_endpoint_spec){.orchestrator = copy(a, p->orchestrator),
                                              .workload = copy(a, p->workload),
                                              .node = copy(a, p->node),
                                              .container_id = copy(a, p->container_id),
                                              .pod = copy(a, p->pod),
                                              .endpoint = copy(a, p->endpoint),
                                              .service_account = copy(a, p->service_account),
                                              .interface_name = copy(a, p->interface_name),
                                              .mac = copy(a, p->mac)};
    w->spec.ip_networks.p =
        copy_array(a, p->ip_networks.p, p->ip_networks.n * sizeof(*p->ip_networks.p));
    w->spec.ip_networks.n = p->ip_networks.n;
    w->spec.ports.p = copy_array(a, p->ports.p, p->ports.n * sizeof(*p->ports.p));
    w->spec.ports.n = p->ports.n;
    for (size_t i = 0; i < p->ports.n; i++) {
        w->spec.ports.p[i].name = copy(a, p->ports.p[i].name);
    }
    const struct str_list *lists[] = {&p->profiles, &p->allow_spoofed_source_prefixes};
    struct str_list *out[] = {&w->spec.profiles, &w->spec.allow_spoofed_source_prefixes};
    for (size_t k = 0; k < 2; k++) {
        out[k]->p = arena_array(a, struct str, lists[k]->n);
        out[k]->n = lists[k]->n;
        for (size_t i = 0; i < lists[k]->n; i++) {
            out[k]->p[i] = copy(a, lists[k]->p[i]);
        }
    }
}

/* Takes the resource's earlier state out of its source. */
static void wep_remove(struct calc *c, struct str res_key, struct str ns) {
    char **src_key = map_str_get(&c->wep_keys, res_key);
    if (!src_key) {
        return;
    }
    char *key = *src_key;
    struct epsrc **s = map_src_get(&c->sources, str_c(key));
    /* The map's key is the text behind the source's key, in the same block. */
    struct str own = str_c(key + strlen(key) + 1);
    for (size_t i = 0; s && i < (*s)->weps.n; i++) {
        if (str_eq((*s)->weps.p[i]->name, own)) {
            wep_free(c, (*s)->weps.p[i]);
            vec_swap_remove(&(*s)->weps, i);
            break;
        }
    }
    map_str_del(&c->wep_keys, res_key);
    if (s) {
        update_source(c, *s, ns);
    }
    free(key);
}

static bool same_source(const struct epsrc *s, struct str res_key, struct wep **out) {
    for (size_t i = 0; i < s->weps.n; i++) {
        if (str_eq(s->weps.p[i]->name, res_key)) {
            *out = s->weps.p[i];
            return true;
        }
    }
    return false;
}

void wep_object(struct calc *c, struct str ns, struct str name, const struct object *o) {
    MG_CLEANUP(buf_fini) struct buf rk = BUF_INIT(1024), sk = BUF_INIT(1024);
    struct str res_key = make_key(&rk, ns, name);
    if (!o || !o->spec) {
        wep_remove(c, res_key, ns);
        buf_fini(&sk);
        return;
    }
    const struct workload_endpoint_spec *p = o->spec;
    if (p->pod.n) {
        (void)make_key(&sk, ns, p->pod);
    } else {
        buf_puts(&sk, "wep:");
        buf_str(&sk, res_key);
    }
    struct str src_key = buf_view(&sk);
    char **old = map_str_get(&c->wep_keys, res_key);
    if (old && !str_eq(str_c(*old), src_key)) {
        wep_remove(c, res_key, ns);
        old = NULL;
    }
    struct epsrc *s = source_get(c, src_key);
    struct wep *w = NULL;
    if (same_source(s, res_key, &w)) {
        arena_fini(&w->a);
    } else {
        w = calloc(1, sizeof(*w));
        mg_assert(w != NULL);
        w->a.first_bytes = 512;
        vec_push(&s->weps, w);
    }
    w->name = arena_dup(&w->a, res_key);
    keep_wep(w, o);
    if (!old) {
        char *block = malloc(src_key.n + 1 + res_key.n + 1);
        mg_assert(block != NULL);
        memcpy(block, src_key.p, src_key.n);
        block[src_key.n] = 0;
        memcpy(block + src_key.n + 1, res_key.p, res_key.n);
        block[src_key.n + 1 + res_key.n] = 0;
        *map_str_put(&c->wep_keys, str_c(block + src_key.n + 1), NULL) = block;
    }
    update_source(c, s, ns);
    buf_fini(&sk);
}

static bool has_ip(const struct item *it, const struct ip46 *ip) {
    for (size_t i = 0; it && i < it->n_nets; i++) {
        if (prefix_has_ip(&it->nets[i], ip)) {
            return true;
        }
    }
    return false;
}

void calc_name_of(const struct calc *c, const struct ip46 *ip, struct buf *out) {
    struct epsrc **s;
    for (size_t i = 0; map_src_next(&c->sources, &i, NULL, &s);) {
        bool has = has_ip((*s)->pod_item, ip);
        for (size_t k = 0; k < (*s)->weps.n && !has; k++) {
            has = has_ip((*s)->weps.p[k]->item, ip);
        }
        if (has) { /* the key of a source without a pod is "wep:NAMESPACE/NAME" */
            struct str key = str_c((*s)->key);
            buf_str(out, str_starts(key, STR("wep:")) ? str_sub(key, 4, key.n) : key);
            return;
        }
    }
}

/* ---- network sets, host endpoints ---- */

void netset_object(struct calc *c, const struct kind *k, struct str ns, struct str name,
                   const struct object *o) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    buf_printf(&b, "%s/%.*s/%.*s", k->kind, STR_FMT(ns), STR_FMT(name));
    struct item **found = map_item_get(&c->netsets, buf_view(&b));
    if (!o || !o->spec) {
        if (found) {
            size_t i = 0;
            struct str key = STR_NULL;
            struct item **v;
            while (map_item_next(&c->netsets, &i, &key, &v) && v != found) {
            }
            item_free(c, *found);
            map_item_del(&c->netsets, buf_view(&b));
            free((char *)(uintptr_t)key.p);
        }
        return;
    }
    if (!found) {
        char *key = strndup(b.p, b.n);
        mg_assert(key != NULL);
        found = map_item_put(&c->netsets, str_n(key, b.n), NULL);
    }
    struct arena a = {.first_bytes = 1024};
    struct item_in in = {.labels = &o->meta.labels};
    struct str profile = arena_printf(&a, "kns.%.*s", STR_FMT(ns));
    if (k->id == K_HOST_ENDPOINT) {
        const struct host_endpoint_spec *s = o->spec;
        struct prefix *nets = arena_array(&a, struct prefix, s->expected_ips.n);
        for (size_t i = 0; i < s->expected_ips.n; i++) {
            nets[i] =
                (struct prefix){s->expected_ips.p[i], (uint8_t)ip_bits(&s->expected_ips.p[i])};
        }
        in.nets = nets;
        in.n_nets = s->expected_ips.n;
        in.is_local = in.is_host = str_is(s->node, c->node);
        in.iface = s->interface_name.p ? s->interface_name : STR("");
        in.pod_ns = STR("");
        in.pod_name = name;
        in.profiles = s->profiles.p;
        in.n_profiles = s->profiles.n;
        in.ports = s->ports.p;
        in.n_ports = s->ports.n;
    } else {
        const struct network_set_spec *s = o->spec;
        struct prefix *nets = copy_array(&a, s->nets.p, s->nets.n * sizeof(*nets));
        for (size_t i = 0; i < s->nets.n; i++) {
            nets[i] = prefix_mask(nets[i]);
        }
        in.nets = nets;
        in.n_nets = s->nets.n;
        if (ns.n) {
            in.ns = ns;
            in.profiles = &profile;
            in.n_profiles = 1;
        }
    }
    item_set(c, found, &in);
    arena_fini(&a);
}

/* ---- services ---- */

struct cservice *service_get(struct calc *c, struct str key) {
    struct cservice **found = map_service_get(&c->services, key);
    if (found) {
        return *found;
    }
    struct cservice *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->key = strndup(key.p, key.n);
    mg_assert(s->key != NULL);
    *map_service_put(&c->services, str_c(s->key), NULL) = s;
    return s;
}

static void count_slice(struct calc *c, struct cservice *s, const struct slice *sl, bool add) {
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; s->sets[k] && i < sl->n; i++) {
            struct calc_member m = sl->members[i];
            if (k == 0) {
                m.protocol = 0;
                m.port = 0;
            }
            cset_member(c, s->sets[k], &m, add);
        }
    }
}

static void slice_remove(struct calc *c, struct str key) {
    char **owner = map_str_get(&c->slice_owner, key);
    if (!owner) {
        return;
    }
    char *block = *owner;
    struct cservice **s = map_service_get(&c->services, str_c(block));
    for (size_t i = 0; s && i < (*s)->slices.n; i++) {
        struct slice *sl = (*s)->slices.p[i];
        if (str_eq(sl->name, key)) {
            count_slice(c, *s, sl, false);
            vec_swap_remove(&(*s)->slices, i);
            arena_fini(&sl->a);
            free(sl);
            break;
        }
    }
    map_str_del(&c->slice_owner, key);
    free(block);
}

static void fill_slice(struct slice *sl, const struct k8s_endpoint_slice *in) {
    size_t n_addr = 0;
    for (size_t i = 0; i < in->endpoints.n; i++) {
        n_addr += in->endpoints.p[i].addresses.n;
    }
    size_t n_ports = in->ports.n ? in->ports.n : 1;
    sl->members = arena_array(&sl->a, struct calc_member, n_addr * n_ports);
    for (size_t i = 0; i < in->endpoints.n; i++) {
        for (size_t j = 0; j < in->endpoints.p[i].addresses.n; j++) {
            struct ip46 ip = in->endpoints.p[i].addresses.p[j];
            for (size_t k = 0; k < n_ports; k++) {
                struct calc_member m = {.net = {ip, (uint8_t)ip_bits(&ip)}};
                if (in->ports.n) {
                    m.protocol = in->ports.p[k].protocol;
                    m.port = (uint16_t)(in->ports.p[k].port.set ? in->ports.p[k].port.v : 0);
                }
                sl->members[sl->n++] = m;
            }
        }
    }
}

void slice_object(struct calc *c, struct str ns, struct str name, const struct object *o) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    struct str key = make_key(&b, ns, name);
    slice_remove(c, key);
    struct str service = STR_NULL;
    for (size_t i = 0; o && i < o->meta.labels.n; i++) {
        if (str_is(o->meta.labels.p[i].key, "kubernetes.io/service-name")) {
            service = o->meta.labels.p[i].value;
        }
    }
    if (!o || !o->spec || !service.n) {
        return;
    }
    MG_CLEANUP(buf_fini) struct buf sb = BUF_INIT(1024);
    struct cservice *s = service_get(c, make_key(&sb, ns, service));
    struct slice *sl = calloc(1, sizeof(*sl));
    mg_assert(sl != NULL);
    sl->a.first_bytes = 512;
    sl->name = arena_dup(&sl->a, key);
    fill_slice(sl, o->spec);
    vec_push(&s->slices, sl);
    count_slice(c, s, sl, true);
    char *block = malloc(sb.n + 1 + key.n + 1);
    mg_assert(block != NULL);
    memcpy(block, sb.p, sb.n);
    block[sb.n] = 0;
    memcpy(block + sb.n + 1, key.p, key.n);
    block[sb.n + 1 + key.n] = 0;
    *map_str_put(&c->slice_owner, str_n(block + sb.n + 1, key.n), NULL) = block;
}

void sources_fini(struct calc *c) {
    struct epsrc **s;
    for (size_t i = 0; map_src_next(&c->sources, &i, NULL, &s);) {
        source_free(c, *s);
    }
    map_src_fini(&c->sources);
    char **block;
    for (size_t i = 0; map_str_next(&c->wep_keys, &i, NULL, &block);) {
        free(*block);
    }
    map_str_fini(&c->wep_keys);
    for (size_t i = 0; map_str_next(&c->slice_owner, &i, NULL, &block);) {
        free(*block);
    }
    map_str_fini(&c->slice_owner);
    struct str key;
    struct item **it;
    for (size_t i = 0; map_item_next(&c->netsets, &i, &key, &it);) {
        item_free(c, *it);
        free((char *)(uintptr_t)key.p);
    }
    map_item_fini(&c->netsets);
    struct cservice **v;
    for (size_t i = 0; map_service_next(&c->services, &i, NULL, &v);) {
        for (size_t j = 0; j < (*v)->slices.n; j++) {
            arena_fini(&(*v)->slices.p[j]->a);
            free((*v)->slices.p[j]);
        }
        vec_fini(&(*v)->slices);
        free((*v)->key);
        free(*v);
    }
    map_service_fini(&c->services);
}
