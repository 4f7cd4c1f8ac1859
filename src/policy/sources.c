/* Where items come from: Pods joined with WorkloadEndpoints, network sets, host endpoints; and the
 * addresses of services from EndpointSlices. */
#include "policy/calc_int.h"

#include <netinet/in.h>
#include <stdlib.h>

static void *copy_array(struct arena *a, const void *p, size_t bytes) {
    void *q = arena_alloc(a, bytes);
    if (bytes) {
        memcpy(q, p, bytes);
    }
    return q;
}

static struct str make_key(struct buf *b, struct str ns, struct str name) {
    buf_reset(b);
    buf_str(b, ns);
    buf_putc(b, '/');
    buf_str(b, name);
    return buf_view(b);
}

/* ---- pods and workload endpoints ---- */

/* What a WorkloadEndpoint of this node says beside traits and addresses. In its arena. */
struct wep_local {
    struct arena a;
    struct str iface, ns, name; /* ns, name: of the pod */
    uint8_t mac[6];
    struct prefix *spoof_ok;
    size_t n_spoof_ok;
    struct calc_nat *nats;
    size_t n_nats;
};

static struct epsrc *source_find(const struct calc *c, struct str key) {
    struct arena a = {.first_bytes = 256};
    struct epsrc **found = map_src_get(&c->sources, keytext_of(&a, key));
    arena_fini(&a);
    return found ? *found : NULL;
}

static struct epsrc *source_get(struct calc *c, struct str key) {
    struct epsrc *s = source_find(c, key);
    if (s) {
        return s;
    }
    s = calloc(1, sizeof(*s) + key.n);
    mg_assert(s != NULL);
    keytext_set(&s->key, key);
    *map_src_put(&c->sources, &s->key, NULL) = s;
    return s;
}

static void drop_item(struct calc *c, struct item **it) {
    if (*it) {
        item_free(c, *it);
        *it = NULL;
    }
}

static void wep_local_free(struct wep *w) {
    if (w->here) {
        struct arena a = w->here->a;
        w->here = NULL;
        arena_fini(&a);
    }
}

static void wep_free(struct calc *c, struct wep *w) {
    drop_item(c, &w->item);
    netids_set(c, &w->nets, NULL, 0);
    traits_unref(c, w->traits);
    wep_local_free(w);
    free(w);
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

static struct str join(struct arena *a, const char *prefix, struct str ns, struct str name) {
    size_t n = strlen(prefix);
    char *p = arena_alloc(a, n + ns.n + 1 + name.n), *at = p;
    at = (char *)memcpy(at, prefix, n) + n;
    at = (char *)memcpy(at, ns.p ? ns.p : "", ns.n) + ns.n;
    if (name.n) {
        *at++ = '.';
        at = (char *)memcpy(at, name.p, name.n) + name.n;
    }
    return str_n(p, (size_t)(at - p));
}

/* What a Pod says of its endpoint: labels, profiles, ports. */
static struct traits *traits_of_pod(struct calc *c, struct str ns, const struct object *o) {
    const struct k8s_pod *p = o->spec;
    struct arena a = {.first_bytes = 1024};
    struct str profiles[2] = {join(&a, "kns.", ns, STR_NULL)};
    struct traits_in in = {.labels = &o->meta.labels,
                           .ns = ns,
                           .orchestrator = STR("k8s"),
                           .profiles = profiles,
                           .n_profiles = 1};
    if (p->service_account_name.n) {
        in.service_account = p->service_account_name;
        profiles[in.n_profiles++] = join(&a, "ksa.", ns, p->service_account_name);
    }
    struct endpoint_port *ports;
    in.n_ports = pod_ports(p, &a, &ports);
    in.ports = ports;
    struct traits *t = traits_get(c, &in);
    arena_fini(&a);
    return t;
}

static struct traits *traits_of_wep(struct calc *c, struct str ns, const struct object *o) {
    const struct workload_endpoint_spec *p = o->spec;
    struct traits_in in = {.labels = &o->meta.labels,
                           .ns = ns,
                           .orchestrator = p->orchestrator,
                           .service_account = p->service_account,
                           .profiles = p->profiles.p,
                           .n_profiles = p->profiles.n,
                           .ports = p->ports.p,
                           .n_ports = p->ports.n};
    return traits_get(c, &in);
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

static void update_wep(struct calc *c, struct epsrc *s, struct wep *w, struct arena *a) {
    bool pod_speaks = s->pod && !w->is_here && s->pod_nets.n > 0;
    if (pod_speaks || (s->pod && (s->is_host_network || s->is_finished))) {
        drop_item(c, &w->item);
        return;
    }
    struct item_in in = {.traits = s->pod ? s->pod : w->traits,
                         .nets = netids_prefixes(c, &w->nets, a),
                         .n_nets = w->nets.n};
    if (w->here) {
        in.is_local = true;
        in.iface = w->here->iface;
        in.pod_ns = w->here->ns;
        in.pod_name = w->here->name;
        memcpy(in.mac, w->here->mac, sizeof(in.mac));
        in.spoof_ok = w->here->spoof_ok;
        in.n_spoof_ok = w->here->n_spoof_ok;
        in.nats = w->here->nats;
        in.n_nats = w->here->n_nats;
    }
    item_set(c, &w->item, &in);
}

static bool has_local_wep(const struct epsrc *s) {
    const struct wep *w = s->weps;
    while (w && !w->is_here) {
        w = w->next;
    }
    return w != NULL;
}

/* A Pod of another node speaks for itself, by its status. */
static void update_pod_item(struct calc *c, struct epsrc *s, struct arena *a) {
    if (!s->pod || !s->is_elsewhere || s->is_host_network || s->is_finished || s->pod_nets.n == 0 ||
        has_local_wep(s)) {
        drop_item(c, &s->pod_item);
        return;
    }
    struct item_in in = {
        .traits = s->pod, .nets = netids_prefixes(c, &s->pod_nets, a), .n_nets = s->pod_nets.n};
    item_set(c, &s->pod_item, &in);
}

static void source_free(struct calc *c, struct epsrc *s) {
    drop_item(c, &s->pod_item);
    while (s->weps) {
        struct wep *w = s->weps;
        s->weps = w->next;
        wep_free(c, w);
    }
    netids_set(c, &s->pod_nets, NULL, 0);
    traits_unref(c, s->pod);
    free(s);
}

static void update_source(struct calc *c, struct epsrc *s) {
    struct arena a = {.first_bytes = 1024};
    for (struct wep *w = s->weps; w; w = w->next) {
        update_wep(c, s, w, &a);
    }
    update_pod_item(c, s, &a);
    arena_fini(&a);
    if (!s->pod && !s->weps) {
        map_src_del(&c->sources, &s->key);
        source_free(c, s);
    }
}

static void set_addresses(struct calc *c, struct netids *ids, const struct ip46 *ips, size_t n) {
    struct arena a = {.first_bytes = 256};
    struct prefix *nets = arena_array(&a, struct prefix, n);
    for (size_t i = 0; i < n; i++) {
        nets[i] = (struct prefix){ips[i], (uint8_t)ip_bits(&ips[i])};
    }
    netids_set(c, ids, nets, n);
    arena_fini(&a);
}

void pod_object(struct calc *c, struct str ns, struct str name, const struct object *o) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    struct str key = make_key(&b, ns, name);
    struct epsrc *s;
    if (!o || !o->spec) {
        s = source_find(c, key);
        if (s && s->pod) {
            traits_unref(c, TAKE_PTR(s->pod)); /* items have references of their own */
            netids_set(c, &s->pod_nets, NULL, 0);
            update_source(c, s);
        }
        calc_problem(c, &model_kinds[K_POD], ns, name, STR_NULL);
        return;
    }
    const struct k8s_pod *p = o->spec;
    s = source_get(c, key);
    struct traits *old = s->pod;
    s->pod = traits_of_pod(c, ns, o);
    traits_unref(c, old); /* last: what stays is not made anew */
    set_addresses(c, &s->pod_nets, p->ips.p, p->ips.n);
    s->is_elsewhere = p->node_name.n && !str_is(p->node_name, c->node);
    s->is_host_network = p->host_network;
    s->is_finished = str_is(p->phase, "Succeeded") || str_is(p->phase, "Failed");
    update_source(c, s);
}

/* Floating addresses that lead to an address of its own. */
static void take_nats(const struct workload_endpoint_spec *p, struct wep_local *l,
                      struct arena *a) {
    l->nats = arena_array(a, struct calc_nat, CALC_MAX_NATS);
    for (size_t i = 0; i < p->ip_nats.n && l->n_nats < CALC_MAX_NATS; i++) {
        struct calc_nat n = {{0}, {0}};
        bool is_own = false;
        if (ip_parse(p->ip_nats.p[i].internal_ip, &n.internal) < 0 ||
            ip_parse(p->ip_nats.p[i].external_ip, &n.external) < 0) {
            continue;
        }
        for (size_t k = 0; k < p->ip_networks.n; k++) {
            is_own |= ip_eq(&p->ip_networks.p[k].ip, &n.internal);
        }
        if (is_own && n.internal.family == n.external.family) {
            l->nats[l->n_nats++] = n;
        }
    }
}

/* What its own interface needs. */
static struct wep_local *keep_local(const struct workload_endpoint_spec *p, struct str ns) {
    struct arena a = {.first_bytes = 256};
    struct wep_local *l = arena_new(&a, struct wep_local);
    l->iface = arena_dup(&a, p->interface_name);
    l->ns = arena_dup(&a, ns);
    l->name = arena_dup(&a, p->pod.n ? p->pod : p->workload.n ? p->workload : p->container_id);
    parse_mac(p->mac, l->mac);
    l->spoof_ok = arena_array(&a, struct prefix, p->allow_spoofed_source_prefixes.n);
    for (size_t i = 0; i < p->allow_spoofed_source_prefixes.n; i++) {
        l->n_spoof_ok +=
            prefix_parse(p->allow_spoofed_source_prefixes.p[i], &l->spoof_ok[l->n_spoof_ok]) == 0;
    }
    if (p->ip_nats.n) {
        take_nats(p, l, &a);
    }
    l->a = a;
    return l;
}

static void keep_wep(struct calc *c, struct wep *w, struct str ns, const struct object *o) {
    const struct workload_endpoint_spec *p = o->spec;
    struct traits *old = w->traits;
    w->traits = traits_of_wep(c, ns, o);
    traits_unref(c, old);
    netids_set(c, &w->nets, p->ip_networks.p, p->ip_networks.n);
    wep_local_free(w);
    w->is_here = str_is(p->node, c->node);
    if (w->is_here && p->interface_name.n) {
        w->here = keep_local(p, ns);
    }
}

static void unlink_wep(struct wep *w) {
    struct wep **at = &w->src->weps;
    while (*at != w) {
        at = &(*at)->next;
    }
    *at = w->next;
}

static struct wep *wep_find(const struct calc *c, struct str res_key) {
    struct arena a = {.first_bytes = 256};
    struct wep **w = map_wep_get(&c->weps, keytext_of(&a, res_key));
    arena_fini(&a);
    return w ? *w : NULL;
}

static void wep_remove(struct calc *c, struct wep *w) {
    struct epsrc *s = w->src;
    unlink_wep(w);
    map_wep_del(&c->weps, &w->name);
    wep_free(c, w);
    update_source(c, s);
}

static struct wep *wep_new(struct calc *c, struct str res_key, struct epsrc *s) {
    struct wep *w = calloc(1, sizeof(*w) + res_key.n);
    mg_assert(w != NULL);
    keytext_set(&w->name, res_key);
    w->src = s;
    w->next = s->weps;
    s->weps = w;
    *map_wep_put(&c->weps, &w->name, NULL) = w;
    return w;
}

void wep_object(struct calc *c, struct str ns, struct str name, const struct object *o) {
    MG_CLEANUP(buf_fini) struct buf rk = BUF_INIT(1024), sk = BUF_INIT(1024);
    struct str res_key = make_key(&rk, ns, name);
    struct wep *w = wep_find(c, res_key);
    if (!o || !o->spec) {
        if (w) {
            wep_remove(c, w);
        }
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
    if (w && !str_eq(keytext_view(&w->src->key), buf_view(&sk))) {
        wep_remove(c, w);
        w = NULL;
    }
    if (!w) {
        w = wep_new(c, res_key, source_get(c, buf_view(&sk)));
    }
    keep_wep(c, w, ns, o);
    update_source(c, w->src);
    buf_fini(&sk);
}

static bool has_ip(const struct calc *c, const struct item *it, const struct ip46 *ip) {
    for (uint32_t i = 0; it && i < it->nets.n; i++) {
        struct calc_member m = mtab_get(c->members, netids_p(&it->nets)[i]);
        if (prefix_has_ip(&m.net, ip)) {
            return true;
        }
    }
    return false;
}

void calc_name_of(const struct calc *c, const struct ip46 *ip, struct buf *out) {
    struct epsrc **s;
    for (size_t i = 0; map_src_next(&c->sources, &i, NULL, &s);) {
        bool has = has_ip(c, (*s)->pod_item, ip);
        for (const struct wep *w = (*s)->weps; w && !has; w = w->next) {
            has = has_ip(c, w->item, ip);
        }
        if (has) { /* the key of a source without a pod is "wep:NAMESPACE/NAME" */
            struct str key = keytext_view(&(*s)->key);
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
    struct item_in in = {.traits = NULL};
    struct traits_in t = {.labels = &o->meta.labels};
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
        t.profiles = s->profiles.p;
        t.n_profiles = s->profiles.n;
        t.ports = s->ports.p;
        t.n_ports = s->ports.n;
    } else {
        const struct network_set_spec *s = o->spec;
        struct prefix *nets = copy_array(&a, s->nets.p, s->nets.n * sizeof(*nets));
        for (size_t i = 0; i < s->nets.n; i++) {
            nets[i] = prefix_mask(nets[i]);
        }
        in.nets = nets;
        in.n_nets = s->nets.n;
        if (ns.n) {
            t.ns = ns;
            t.profiles = &profile;
            t.n_profiles = 1;
        }
    }
    in.traits = traits_get(c, &t);
    item_set(c, found, &in);
    traits_unref(c, in.traits);
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
    map_wep_fini(&c->weps);
    char **block;
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
