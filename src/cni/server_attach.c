/* What is attached on this node: container and interface name to endpoint, host interface,
 * addresses. The store's WorkloadEndpoints are the truth; this index is read from them once and
 * kept, so that a DEL without arguments, GC and a repeated ADD find theirs. */
#include "cni/server_int.h"
#include "ipam/machines.h"

#define ANNOTATION_NETWORK "margay.io/cni-network"

static struct cni_attachment *make(struct str container, struct str ifname, struct str network,
                                   struct str iface, struct str key, struct str handle,
                                   struct str ns, struct str pod, const struct prefix *nets,
                                   size_t n) {
    struct str in[] = {container, ifname, network, iface, key, handle, ns, pod};
    size_t bytes = 0, at = 0;
    for (size_t i = 0; i < ARRAY_LEN(in); i++) {
        bytes += in[i].n;
    }
    struct cni_attachment *t = calloc(1, sizeof(*t) + bytes + 1);
    mg_assert(t != NULL);
    struct str *out[] = {&t->container, &t->ifname, &t->network, &t->iface,
                         &t->wep_key,   &t->handle, &t->ns,      &t->pod};
    for (size_t i = 0; i < ARRAY_LEN(in); i++) {
        if (in[i].n) {
            memcpy(t->text + at, in[i].p, in[i].n);
        }
        *out[i] = str_n(t->text + at, in[i].n);
        at += in[i].n;
    }
    t->nets = calloc(n ? n : 1, sizeof(*nets));
    mg_assert(t->nets != NULL);
    if (n) {
        memcpy(t->nets, nets, n * sizeof(*nets));
    }
    t->n_nets = n;
    return t;
}

static void free_one(struct cni_attachment *t) {
    free(t->nets);
    free(t);
}

static struct cni_attach_key key_of(const struct cni_attachment *t) {
    return (struct cni_attach_key){t->container, t->ifname};
}

struct cni_attachment *cni_attachment_find(struct cni_server *s, struct str container,
                                           struct str ifname) {
    struct cni_attachment **t =
        cni_attachments_get(&s->attachments, (struct cni_attach_key){container, ifname});
    return t ? *t : NULL;
}

void cni_attachment_drop(struct cni_server *s, struct str container, struct str ifname) {
    struct cni_attachment *t = cni_attachment_find(s, container, ifname);
    cni_move_drop(s, container, ifname);
    if (t) {
        (void)cni_attachments_del(&s->attachments, key_of(t));
        free_one(t);
    }
}

static void put(struct cni_server *s, struct cni_attachment *t) {
    struct cni_attachment **old;
    size_t i = 0;
    cni_attachment_drop(s, t->container, t->ifname);
    while (cni_attachments_next(&s->attachments, &i, NULL, &old)) {
        if (str_eq((*old)->wep_key, t->wep_key) || str_eq((*old)->iface, t->iface)) {
            (*old)->is_superseded = true;
        }
    }
    *cni_attachments_put(&s->attachments, key_of(t), NULL) = t;
}

void cni_attachment_add(struct cni_request *r) {
    struct cni_attachment *t =
        make(r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME], r->conf.name, r->pod.iface,
             r->pod.key, r->pod.handle, r->pod.ns, r->pod.pod, r->nets, r->n_nets);
    t->wep_revision = r->wep_revision;
    put(r->s, t);
    if (r->pod.is_target) {
        cni_move_add(r->s, t, r->pod.migration_uid);
    }
}

struct load {
    struct cni_server *s;
    struct arena arena;
};

static int load_one(void *arg, const struct store_item *it) {
    struct load *l = arg;
    struct arena *a = &l->arena;
    struct object o = {0};
    struct model_errors errs = {.a = a};
    struct jnode *doc = NULL;
    arena_reset(a);
    if (json_parse(it->value, &json_limits_default, a, &doc, NULL) < 0) {
        return 0; /* whoever reads endpoints for policy says so */
    }
    (void)!object_read(doc, MODEL_STORE, STR_NULL, a, &o, &errs); /* decoded as far as it goes */
    const struct workload_endpoint_spec *w = o.spec;
    if (!w || !str_eq(w->node, l->s->node) || !w->container_id.n || !w->interface_name.n) {
        return 0;
    }
    struct str network = STR("");
    for (size_t i = 0; i < o.meta.annotations.n; i++) {
        if (str_is(o.meta.annotations.p[i].key, ANNOTATION_NETWORK)) {
            network = o.meta.annotations.p[i].value;
        }
    }
    struct str handle = network.n ? cni_handle(a, network, w->container_id, w->endpoint) : STR("");
    struct cni_attachment *t =
        make(w->container_id, w->endpoint, network, w->interface_name, it->key, handle, o.meta.ns,
             w->pod, w->ip_networks.p, w->ip_networks.n);
    t->wep_revision = it->revision;
    put(l->s, t);
    for (size_t i = 0; i < o.meta.labels.n; i++) {
        if (str_is(o.meta.labels.p[i].key, MACHINE_MIGRATION_LABEL) &&
            machine_is_launcher(w->pod)) { /* it may have come while no agent ran */
            cni_move_add(l->s, t, o.meta.labels.p[i].value);
        }
    }
    return 0;
}

int cni_attachments_load(struct cni_server *s, struct err *e) {
    struct load l = {.s = s};
    struct str prefix =
        arena_printf(&l.arena, "%s/", kind_store_name(&model_kinds[K_WORKLOAD_ENDPOINT]));
    MG_CLEANUP(buf_fini) struct buf text = BUF_INIT(512);
    uint64_t revision;
    buf_str(&text, prefix);
    int r = store_list(s->store, (struct store_key){STR(STORE_SPACE_RESOURCES), buf_view(&text)},
                       &revision, load_one, &l, e);
    arena_fini(&l.arena);
    return r;
}

void cni_server_endpoint(struct cni_server *s, const struct store_item *it) {
    struct load l = {.s = s};
    (void)load_one(&l, it);
    arena_fini(&l.arena);
}

void cni_attachments_free(struct cni_server *s) {
    struct cni_attachment **t;
    size_t i = 0;
    while (cni_attachments_next(&s->attachments, &i, NULL, &t)) {
        free_one(*t);
    }
    cni_attachments_fini(&s->attachments);
}
