/* Who the pod is: its endpoint's name, labels, profiles and ports, from the Pod object, or from the
 * configuration where there is none; and the endpoint's record in the store. Names are Calico's
 * (libcalico-go/lib/names, cni-plugin/pkg/k8s). */
#include "cni/server_int.h"

#include <netinet/in.h>
#include <stdio.h>

#define NS_WITHOUT_K8S "default"
#define ENDPOINT_BYTES_MAX (1U << 20)
#define SOURCE_PREFIXES_MAX 64
#define ANNOTATION_NETWORK "margay.io/cni-network"

struct str cni_annotation(const struct str_map *m, const char *key) {
    for (size_t i = 0; i < m->n; i++) {
        if (str_is(m->p[i].key, key)) {
            return m->p[i].value;
        }
    }
    return STR_NULL;
}

int cni_annotation_list(struct cni_request *r, const char *key, struct str text,
                        struct jnode **out) {
    struct err e = {0};
    struct jlimits lim = json_limits_default;
    lim.max_bytes = 1U << 16;
    if (json_parse(text, &lim, &r->arena, out, &e) < 0 || (*out)->type != J_LIST) {
        return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "a JSON list such as [\"name\"]",
                        "annotation %s=%s is no list", key, log_quote(text));
    }
    return 0;
}

int cni_annotation_texts(struct cni_request *r, const char *key, struct str text, size_t max,
                         struct str_list *out) {
    struct jnode *list = NULL;
    if (cni_annotation_list(r, key, text, &list) < 0) {
        return -1;
    }
    if (list->n == 0 || list->n > max) {
        return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "a JSON list such as [\"name\"]",
                        "annotation %s has %zu entries, allowed are 1 to %zu", key, list->n, max);
    }
    *out = (struct str_list){.p = arena_array(&r->arena, struct str, list->n), .set = true};
    jnode_each (it, list) {
        if (it->type != J_STR || !it->s.n) {
            return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "a JSON list such as [\"name\"]",
                            "annotation %s has an entry that is no text", key);
        }
        out->p[out->n++] = it->s;
    }
    return 0;
}

/* '-' doubled, so that the parts of a name can be told apart. */
static void put_escaped(struct buf *b, struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        buf_putc(b, s.p[i]);
        if (s.p[i] == '-') {
            buf_putc(b, '-');
        }
    }
}

void cni_name_endpoint(struct cni_request *r, bool with_pod) {
    struct cni_pod *p = &r->pod;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    struct str parts[] = {r->s->node, with_pod ? STR("k8s") : STR("cni"),
                          with_pod ? r->args.pod : r->strings[WIRE_CONTAINERID],
                          r->strings[WIRE_IFNAME]};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (i) {
            buf_putc(&b, '-');
        }
        put_escaped(&b, parts[i]);
    }
    p->ns = with_pod ? r->args.ns : STR(NS_WITHOUT_K8S);
    p->orchestrator = parts[1];
    p->pod = with_pod ? r->args.pod : STR("");
    p->endpoint_name = arena_dup(&r->arena, buf_view(&b));
    p->key = kind_store_key(&model_kinds[K_WORKLOAD_ENDPOINT], p->ns, p->endpoint_name, &r->arena);
}

/* Has another endpoint that name already: a further interface of this container, or a container
 * whose id begins alike? (An older container of the same pod has the same endpoint, and loses it.)
 */
static bool is_iface_taken(const struct cni_request *r, struct str iface) {
    struct cni_attachment **t;
    size_t i = 0;
    while (cni_attachments_next(&r->s->attachments, &i, NULL, &t)) {
        if (str_eq((*t)->iface, iface) && !(*t)->is_superseded &&
            !str_eq((*t)->wep_key, r->pod.key)) {
            return true;
        }
    }
    return false;
}

static struct str hashed_name(struct cni_request *r, struct str text) {
    uint8_t digest[20];
    char hex[41];
    sha1(text.p, text.n, digest);
    hex_encode(digest, sizeof(digest), hex);
    return arena_printf(&r->arena, "%.*s%.11s", STR_FMT(r->s->iface_prefix), hex);
}

struct str cni_iface_name(struct cni_request *r) {
    struct arena *a = &r->arena;
    struct str container = r->strings[WIRE_CONTAINERID], ifname = r->strings[WIRE_IFNAME];
    struct str name, who;
    if (r->args.pod.n && r->args.ns.n) {
        who = arena_printf(a, "%.*s.%.*s", STR_FMT(r->args.ns), STR_FMT(r->args.pod));
        name = hashed_name(r, who);
    } else {
        who = container;
        name = arena_printf(a, "%.*s%.*s", STR_FMT(r->s->iface_prefix),
                            STR_FMT(str_sub(container, 0, container.n < 11 ? container.n : 11)));
    }
    if (is_iface_taken(r, name)) {
        name = hashed_name(r, arena_printf(a, "%.*s.%.*s", STR_FMT(who), STR_FMT(ifname)));
    }
    return name;
}

struct str cni_handle(struct arena *a, struct str network, struct str container,
                      struct str ifname) {
    /* Calico's form; further interfaces of a container in the same network hold their own. */
    return str_is(ifname, "eth0")
               ? arena_printf(a, "%.*s.%.*s", STR_FMT(network), STR_FMT(container))
               : arena_printf(a, "%.*s.%.*s.%.*s", STR_FMT(network), STR_FMT(container),
                              STR_FMT(ifname));
}

struct str cni_old_handle(const struct cni_request *r, struct arena *a) {
    /* Container ids and names of pods may be chosen by others: what reads like a handle of today,
     * or of something that is no pod, is not taken for an old one. */
    static const char *const others[] = {"ipip-tunnel-addr-",
                                         "vxlan-tunnel-addr-",
                                         "vxlan-v6-tunnel-addr-",
                                         "wireguard-tunnel-addr-",
                                         "wireguard-v6-tunnel-addr-",
                                         "windows-reserved-ipam-handle",
                                         "lb-"};
    struct str id = r->strings[WIRE_CONTAINERID];
    if (r->args.ns.n && r->args.pod.n) {
        return str_eq(r->args.ns, r->conf.name)
                   ? STR("")
                   : arena_printf(a, "%.*s.%.*s", STR_FMT(r->args.ns), STR_FMT(r->args.pod));
    }
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (str_starts(id, str_c(others[i]))) {
            return STR("");
        }
    }
    return str_find(id, '.', 0) >= 0 ? STR("") : arena_dup(a, id);
}

int cni_find_kube(struct cni_request *r) {
    struct cni_server *s = r->s;
    struct str path = r->conf.kubeconfig;
    struct err e = {0};
    if (!s->may_ask_kube || !path.n || (s->kube && str_is(path, s->kube_path))) {
        return 0;
    }
    store_close(TAKE_PTR(s->kube));
    free(TAKE_PTR(s->kube_path));
    const char *url =
        arena_cstr(&r->arena, arena_printf(&r->arena, "kubernetes:%.*s", STR_FMT(path)));
    if (store_open(url, &s->kube, &e) < 0) {
        s->kube = NULL;
        return cni_fail(&r->fail, CNI_CODE_TRY_LATER, "look at kubernetes.kubeconfig",
                        "the Kubernetes API: %.900s", e.msg);
    }
    s->kube_path = strndup(path.p, path.n);
    mg_assert(s->kube_path != NULL);
    return 0;
}

/* Where objects of a kind are. */
static struct store *home_of(const struct cni_server *s, enum kind_id id) {
    bool is_calico = str_is(str_c(model_kinds[id].group), "projectcalico.org");
    return s->kube && !is_calico ? s->kube : s->store;
}

int cni_read_object(struct cni_server *s, enum kind_id id, struct str ns, struct str name,
                    struct arena *a, struct object *out, struct err *e) {
    struct store_item it;
    struct jnode *doc = NULL;
    struct model_errors errs = {.a = a};
    const struct kind *k = &model_kinds[id];
    struct store_key key = {STR(STORE_SPACE_RESOURCES), kind_store_key(k, ns, name, a)};
    int r = store_get(home_of(s, id), key, a, &it, e);
    if (r < 0) {
        return r;
    }
    r = json_parse(it.value, &json_limits_default, a, &doc, e);
    if (r < 0) {
        return err_wrap(e, ERR_CORRUPT, "%s %.*s", k->kind, STR_FMT(name));
    }
    /* Errors in parts that don't matter here must not keep a pod from its network. */
    r = object_read(doc, MODEL_STORE, ns, a, out, &errs);
    return r < 0 && !out->spec && id == K_POD
               ? err_set(e, ERR_CORRUPT, "%s %.*s can't be read", k->kind, STR_FMT(name))
               : 0;
}

static bool has_object(struct cni_server *s, enum kind_id id, struct str ns, struct str name,
                       struct arena *a) {
    struct store_item it;
    struct store_key key = {STR(STORE_SPACE_RESOURCES),
                            kind_store_key(&model_kinds[id], ns, name, a)};
    return store_get(home_of(s, id), key, a, &it, NULL) == 0;
}

static void add_label(struct arena *a, struct str_map *m, const char *key, struct str value) {
    (void)a;
    m->p[m->n++] = (struct str_pair){str_c(key), value};
}

/* Labels of the endpoint: the Pod's or the configuration's, and Calico's own. */
static void make_labels(struct cni_request *r, const struct str_map *from,
                        const struct str_map *more) {
    struct arena *a = &r->arena;
    struct str_map m = {.p = arena_array(a, struct str_pair, from->n + more->n + 3)};
    for (size_t i = 0; i < from->n + more->n; i++) {
        struct str_pair p = i < from->n ? from->p[i] : more->p[i - from->n];
        bool is_own = str_starts(p.key, STR("projectcalico.org/"));
        for (size_t j = 0; j < m.n && !is_own; j++) {
            if (str_eq(m.p[j].key, p.key)) {
                m.p[j].value = p.value; /* CNI_ARGS win */
                is_own = true;
            }
        }
        if (!is_own) {
            m.p[m.n++] = p;
        }
    }
    add_label(a, &m, "projectcalico.org/namespace", r->pod.ns);
    add_label(a, &m, "projectcalico.org/orchestrator", r->pod.orchestrator);
    if (r->pod.service_account.n) {
        add_label(a, &m, "projectcalico.org/serviceaccount", r->pod.service_account);
    }
    r->pod.labels = m;
}

static void make_profiles(struct cni_request *r) {
    struct cni_pod *p = &r->pod;
    struct arena *a = &r->arena;
    p->profiles.p = arena_array(a, struct str, 2);
    if (!p->has_pod_object) {
        p->profiles.p[p->profiles.n++] = r->conf.name;
        return;
    }
    p->profiles.p[p->profiles.n++] = arena_printf(a, "kns.%.*s", STR_FMT(p->ns));
    p->profiles.p[p->profiles.n++] =
        arena_printf(a, "ksa.%.*s.%.*s", STR_FMT(p->ns), STR_FMT(p->service_account));
}

static int take_source_prefixes(struct cni_request *r) {
    static const char key[] = "cni.projectcalico.org/allowedSourcePrefixes";
    struct str_list *list = &r->pod.source_prefixes;
    struct str text = cni_annotation(&r->pod.annotations, key);
    if (!text.n) {
        return 0;
    }
    if (cni_annotation_texts(r, key, text, SOURCE_PREFIXES_MAX, list) < 0) {
        return -1;
    }
    for (size_t i = 0; i < list->n; i++) {
        struct prefix p;
        if (prefix_parse(list->p[i], &p) < 0) {
            return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "a prefix such as 10.1.2.0/24",
                            "annotation %s: %s is not a prefix", key, log_quote(list->p[i]));
        }
    }
    return 0;
}

/* The annotation, else what the runtime asks for. */
static int take_mac(struct cni_request *r) {
    const struct {
        const char *what;
        struct str text;
        int code;
    } all[] = {{"annotation cni.projectcalico.org/hwAddr",
                cni_annotation(&r->pod.annotations, "cni.projectcalico.org/hwAddr"),
                CNI_CODE_BAD_CONFIG},
               {"runtimeConfig.mac", r->conf.mac, CNI_CODE_BAD_CONFIG},
               {"CNI_ARGS MAC", r->args.mac, CNI_CODE_BAD_ENV}};
    size_t i = 0;
    while (i + 1 < ARRAY_LEN(all) && !all[i].text.n) {
        i++;
    }
    struct str text = all[i].text;
    if (text.n && (mac_parse(text, r->pod.mac) < 0 || (r->pod.mac[0] & 1))) {
        return cni_fail(&r->fail, all[i].code, "such as 02:11:22:33:44:55",
                        "%s %s is not the address of one interface", all[i].what, log_quote(text));
    }
    return 0;
}

static int with_pod(struct cni_request *r, const struct object *pod) {
    struct cni_pod *p = &r->pod;
    static const struct str_map none;
    struct object ns = {0};
    p->has_pod_object = true;
    p->spec = pod->spec;
    p->doc = pod->doc;
    p->annotations = pod->meta.annotations;
    p->service_account =
        p->spec->service_account_name.n ? p->spec->service_account_name : STR("default");
    cni_name_endpoint(r, true);
    if (cni_read_object(r->s, K_NAMESPACE, STR_NULL, r->args.ns, &r->arena, &ns, NULL) == 0) {
        p->ns_annotations = ns.meta.annotations;
    }
    make_labels(r, &pod->meta.labels, &none);
    return 0;
}

int cni_identify(struct cni_request *r) {
    struct cni_pod *p = &r->pod;
    struct object pod = {0};
    struct err e = {0};
    bool is_k8s = r->args.ns.n && r->args.pod.n;
    memset(p, 0, sizeof(*p));
    int found = ERR_NOT_FOUND;
    if (is_k8s) {
        found = cni_read_object(r->s, K_POD, r->args.ns, r->args.pod, &r->arena, &pod, &e);
        if (found < 0 && found != ERR_NOT_FOUND) {
            return cni_fail(&r->fail, CNI_CODE_TRY_LATER, "look at the datastore",
                            "pod %.*s/%.*s: %.700s", STR_FMT(r->args.ns), STR_FMT(r->args.pod),
                            e.msg);
        }
    }
    if (found == 0 && pod.spec) {
        const struct k8s_pod *spec = pod.spec;
        if (spec->node_name.n && !str_eq(spec->node_name, r->s->node)) {
            return 1; /* an older pod of that name: the new one will come */
        }
        (void)with_pod(r, &pod);
    } else if (is_k8s && (str_is(r->conf.policy_type, "k8s") ||
                          has_object(r->s, K_NAMESPACE, STR_NULL, r->args.ns, &r->arena))) {
        return 1;
    } else {
        cni_name_endpoint(r, false);
        make_labels(r, &r->conf.labels, &r->args.labels);
    }
    p->handle =
        cni_handle(&r->arena, r->conf.name, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    make_profiles(r);
    return take_source_prefixes(r) < 0 ? -1 : take_mac(r);
}

int cni_ensure_profile(struct cni_server *s, struct str name, struct arena *a, struct err *e) {
    struct store_key key = {STR(STORE_SPACE_RESOURCES),
                            kind_store_key(&model_kinds[K_PROFILE], STR_NULL, name, a)};
    struct store_item it;
    char now[32];
    int r = store_get(s->store, key, a, &it, e);
    if (r != ERR_NOT_FOUND) {
        return r;
    }
    struct str text = arena_printf(
        a,
        "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"Profile\",\"metadata\":{\"name\":"
        "\"%.*s\",\"creationTimestamp\":\"%s\"},\"spec\":{\"ingress\":[{\"action\":\"Allow\","
        "\"source\":{\"selector\":\"has(%.*s)\"},\"destination\":{}}],\"egress\":[{\"action\":"
        "\"Allow\",\"source\":{},\"destination\":{}}],\"labelsToApply\":{\"%.*s\":\"\"}}}",
        STR_FMT(name), clock_rfc3339(clock_wall_ns(), now), STR_FMT(name), STR_FMT(name));
    r = store_put(s->store, key, text, REV_NONE, NULL, e);
    return r == ERR_EXISTS ? 0 : r;
}

static void put_list(struct buf *b, const char *key, const struct str_list *l) {
    buf_printf(b, ",\"%s\":[", key);
    for (size_t i = 0; i < l->n; i++) {
        if (i) {
            buf_putc(b, ',');
        }
        json_quote(b, l->p[i]);
    }
    buf_putc(b, ']');
}

static void put_field(struct buf *b, const char *key, struct str v) {
    if (v.n) {
        buf_printf(b, ",\"%s\":", key);
        json_quote(b, v);
    }
}

static void put_map(struct buf *b, const struct str_map *m) {
    buf_putc(b, '{');
    for (size_t i = 0; i < m->n; i++) {
        if (i) {
            buf_putc(b, ',');
        }
        json_quote(b, m->p[i].key);
        buf_putc(b, ':');
        json_quote(b, m->p[i].value);
    }
    buf_putc(b, '}');
}

static void put_ports(struct buf *b, const struct k8s_pod *pod) {
    bool any = false;
    for (size_t i = 0; pod && i < pod->ports.n; i++) {
        const struct container_port *p = &pod->ports.p[i];
        const char *protocol = p->protocol == IPPROTO_UDP    ? "UDP"
                               : p->protocol == IPPROTO_SCTP ? "SCTP"
                               : p->protocol == IPPROTO_TCP  ? "TCP"
                                                             : NULL;
        if (!p->name.n || !p->container_port || !protocol) {
            continue;
        }
        buf_puts(b, any ? ",{\"name\":" : ",\"ports\":[{\"name\":");
        json_quote(b, p->name);
        buf_printf(b, ",\"port\":%u,\"protocol\":\"%s\"}", p->container_port, protocol);
        any = true;
    }
    if (any) {
        buf_putc(b, ']');
    }
}

int cni_put_endpoint(struct cni_request *r, struct err *e) {
    const struct cni_pod *p = &r->pod;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(ENDPOINT_BYTES_MAX);
    char text[IP_TEXT_MAX], mac[18], now[32];
    buf_puts(&b, "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"WorkloadEndpoint\","
                 "\"metadata\":{\"name\":");
    json_quote(&b, p->endpoint_name);
    put_field(&b, "namespace", p->ns);
    buf_printf(&b, ",\"creationTimestamp\":\"%s\",\"annotations\":{\"" ANNOTATION_NETWORK "\":",
               clock_rfc3339(clock_wall_ns(), now));
    json_quote(&b, r->conf.name);
    buf_puts(&b, "},\"labels\":");
    put_map(&b, &p->labels);
    buf_puts(&b, "},\"spec\":{\"orchestrator\":");
    json_quote(&b, p->orchestrator);
    put_field(&b, "node", r->s->node);
    put_field(&b, "containerID", r->strings[WIRE_CONTAINERID]);
    put_field(&b, "pod", p->pod);
    put_field(&b, "endpoint", r->strings[WIRE_IFNAME]);
    put_field(&b, "interfaceName", p->iface);
    put_field(&b, "mac", str_c(mac_text(p->mac, mac)));
    put_field(&b, "serviceAccountName", p->service_account);
    put_list(&b, "profiles", &p->profiles);
    buf_puts(&b, ",\"ipNetworks\":[");
    for (size_t i = 0; i < r->n_nets; i++) {
        buf_printf(&b, "%s\"%s\"", i ? "," : "", prefix_text(&r->nets[i], text));
    }
    buf_putc(&b, ']');
    cni_floating_put(r, &b);
    if (p->source_prefixes.n) {
        put_list(&b, "allowSpoofedSourcePrefixes", &p->source_prefixes);
    }
    put_ports(&b, p->spec);
    buf_puts(&b, "}}");
    if (b.overflow) {
        return err_set(e, ERR_TOO_BIG, "the pod's labels and ports are above 1 MiB");
    }
    struct store_key key = {STR(STORE_SPACE_RESOURCES), p->key};
    /* An endpoint of that name is of an older container of the same pod: it has lost. */
    return store_put(r->s->store, key, buf_view(&b), REV_ANY, &r->wep_revision, e);
}
