#include "controllers/facts.h"

#include "base/keytext.h"
#include "base/vec.h"
#include "controllers/convert.h"

#include <stdlib.h>

enum { IPS_MAX = 64 };

/* One record of any kind. text: all its strings, in one block with it. */
struct rec {
    struct str a, b, c; /* pod: node. endpoint: ns, pod, node. node: k8s name. hep: node */
    bool flag;          /* endpoint: of Kubernetes. */
    uint64_t shape;
    struct ip46 *ips;
    size_t n_ips;
    struct rec *next; /* endpoints of the same pod */
    struct keytext key;
};

#define MAP_NAME rectab
#define MAP_KEY const struct keytext *
#define MAP_VAL struct rec *
#define MAP_HASH(k) KEYTEXT_HASH(k)
#define MAP_EQ(a, b) KEYTEXT_EQ(a, b)
#include "base/map.tmpl.h"

#define MAP_NAME iptab
#define MAP_KEY struct ip46
#define MAP_VAL uint32_t
#define MAP_HASH(k) ip_hash(&(k))
#define MAP_EQ(a, b) ip_eq(&(a), &(b))
#include "base/map.tmpl.h"

struct facts {
    struct rectab pods, endpoints, nodes, k8s_nodes, heps, services;
    struct rectab by_pod;      /* "NS/POD": an empty record whose next are its endpoints */
    struct iptab users;        /* pods, nodes, services */
    struct iptab endpoints_of; /* endpoints */
};

struct facts *facts_new(void) {
    struct facts *f = calloc(1, sizeof(*f));
    mg_assert(f != NULL);
    return f;
}

static void rec_free(struct rec *r) {
    if (r) {
        free((void *)(uintptr_t)r->a.p);
        free((void *)(uintptr_t)r->b.p);
        free((void *)(uintptr_t)r->c.p);
        free(r->ips);
        free(r);
    }
}

static void tab_fini(struct rectab *t) {
    size_t i = 0;
    struct rec **r;
    while (rectab_next(t, &i, NULL, &r)) {
        rec_free(*r);
    }
    rectab_fini(t);
}

void facts_free(struct facts *f) {
    if (f) {
        struct rectab *all[] = {&f->pods, &f->endpoints, &f->nodes, &f->k8s_nodes,
                                &f->heps, &f->services,  &f->by_pod};
        for (size_t i = 0; i < ARRAY_LEN(all); i++) {
            tab_fini(all[i]);
        }
        iptab_fini(&f->users);
        iptab_fini(&f->endpoints_of);
        free(f);
    }
}

/* ---- records ---- */

static struct rec *get(const struct rectab *t, struct str key) {
    struct arena a = {.first_bytes = 256};
    struct rec **r = rectab_get(t, keytext_of(&a, key));
    arena_fini(&a);
    return r ? *r : NULL;
}

static struct str join(struct arena *a, struct str ns, struct str name) {
    return arena_printf(a, "%.*s/%.*s", STR_FMT(ns), STR_FMT(name));
}

static struct rec *rec_new(struct str key) {
    struct rec *r = calloc(1, sizeof(*r) + key.n);
    mg_assert(r != NULL);
    keytext_set(&r->key, key);
    return r;
}

static struct str keep(struct str s) {
    if (!s.p) {
        return STR_NULL;
    }
    char *p = malloc(s.n + 1);
    mg_assert(p != NULL);
    memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return str_n(p, s.n);
}

static void keep_ips(struct rec *r, const struct ip46 *ips, size_t n) {
    if (n) {
        r->ips = malloc(n * sizeof(*ips));
        mg_assert(r->ips != NULL);
        memcpy(r->ips, ips, n * sizeof(*ips));
        r->n_ips = n;
    }
}

static void count(struct iptab *t, const struct rec *r, int by) {
    for (size_t i = 0; r && i < r->n_ips; i++) {
        uint32_t *n = iptab_put(t, r->ips[i], NULL);
        *n += (uint32_t)by;
        if (*n == 0) {
            (void)iptab_del(t, r->ips[i]);
        }
    }
}

/* Takes the old record out of the table, if there is one; the caller frees it. */
static struct rec *take_out(struct rectab *t, struct str key) {
    struct rec *old = get(t, key);
    if (old) {
        (void)rectab_del(t, &old->key);
    }
    return old;
}

static void put_in(struct rectab *t, struct rec *r) {
    *rectab_put(t, &r->key, NULL) = r;
}

/* now NULL: gone. Frees the old one. */
static void replace(struct rectab *t, struct iptab *ips, struct str key, struct rec *now) {
    struct rec *old = take_out(t, key);
    if (ips) {
        count(ips, now, 1);
        count(ips, old, -1);
    }
    if (now) {
        put_in(t, now);
    }
    rec_free(old);
}

/* ---- addresses in documents ---- */

struct ip_list {
    struct ip46 *p;
    size_t n, max;
};

static void add_ip(struct ip_list *l, struct str text) {
    struct prefix p;
    if (!text.n || prefix_parse(str_trim(text), &p) < 0) {
        return;
    }
    for (size_t i = 0; i < l->n; i++) {
        if (ip_eq(&l->p[i], &p.ip)) {
            return;
        }
    }
    if (l->n < l->max) {
        l->p[l->n++] = p.ip;
    }
}

size_t facts_pod_ips(const struct jnode *pod, struct ip46 *out, size_t max) {
    static const char *const notes[] = {"cni.projectcalico.org/podIPs",
                                        "cni.projectcalico.org/podIP", "vpc.amazonaws.com/pod-ips"};
    struct ip_list l = {out, 0, max};
    const struct jnode *ips = jnode_path(pod, "status.podIPs");
    const struct jnode *annotations = jnode_path(pod, "metadata.annotations");
    jnode_each (x, ips) {
        add_ip(&l, jnode_str(jnode_getc(x, "ip")));
    }
    add_ip(&l, jnode_str(jnode_path(pod, "status.podIP")));
    for (size_t i = 0; i < ARRAY_LEN(notes); i++) {
        struct str rest = jnode_str(jnode_getc(annotations, notes[i]));
        while (rest.p) {
            add_ip(&l, str_cut(&rest, ','));
        }
    }
    return l.n;
}

uint64_t facts_shape(const struct jnode *wep) {
    struct str account = jnode_str(jnode_path(wep, "spec.serviceAccountName"));
    uint64_t h = convert_hash(jnode_path(wep, "metadata.labels"));
    return account.n ? hash_u64(h ^ hash_str(account)) : h;
}

static uint64_t shape_of_pod(const struct jnode *pod) {
    struct arena a = {0};
    struct jnode *wep = jnode_new(&a, J_MAP);
    (void)convert_endpoint(wep, pod, &a);
    uint64_t h = facts_shape(wep);
    arena_fini(&a);
    return h;
}

/* ---- changes ---- */

void facts_pod(struct facts *f, struct str ns, struct str name, const struct jnode *doc) {
    struct arena a = {.first_bytes = 512};
    struct str key = join(&a, ns, name);
    struct rec *r = NULL;
    if (doc) {
        struct ip46 ips[IPS_MAX];
        struct str node = jnode_str(jnode_path(doc, "spec.nodeName"));
        r = rec_new(key);
        r->a = keep(node.p ? node : STR(""));
        size_t n_ips = facts_pod_ips(doc, ips, IPS_MAX);
        keep_ips(r, ips, n_ips);
        r->shape = shape_of_pod(doc);
    }
    replace(&f->pods, &f->users, key, r);
    arena_fini(&a);
}

static void link_endpoint(struct facts *f, struct rec *r, struct arena *a) {
    struct str pod = join(a, r->a, r->b);
    struct rec *head = get(&f->by_pod, pod);
    if (!head) {
        head = rec_new(pod);
        put_in(&f->by_pod, head);
    }
    r->next = head->next;
    head->next = r;
}

static void unlink_endpoint(struct facts *f, const struct rec *r, struct arena *a) {
    struct str pod = join(a, r->a, r->b);
    struct rec *head = get(&f->by_pod, pod);
    for (struct rec *x = head; x; x = x->next) {
        if (x->next == r) {
            x->next = r->next;
            break;
        }
    }
    if (head && !head->next) {
        rec_free(take_out(&f->by_pod, pod));
    }
}

void facts_endpoint(struct facts *f, struct str key, struct str ns, const struct jnode *doc) {
    struct arena a = {.first_bytes = 512};
    struct rec *old = take_out(&f->endpoints, key), *r = NULL;
    if (doc) {
        struct ip46 ips[IPS_MAX];
        struct ip_list l = {ips, 0, IPS_MAX};
        const struct jnode *nets = jnode_path(doc, "spec.ipNetworks");
        struct str pod = jnode_str(jnode_path(doc, "spec.pod"));
        struct str node = jnode_str(jnode_path(doc, "spec.node"));
        jnode_each (n, nets) {
            add_ip(&l, jnode_str(n));
        }
        r = rec_new(key);
        r->a = keep(ns.p ? ns : STR(""));
        r->b = keep(pod.p ? pod : STR(""));
        r->c = keep(node.p ? node : STR(""));
        r->flag = str_is(jnode_str(jnode_path(doc, "spec.orchestrator")), "k8s");
        r->shape = facts_shape(doc);
        keep_ips(r, ips, l.n);
        put_in(&f->endpoints, r);
        link_endpoint(f, r, &a);
    }
    count(&f->endpoints_of, r, 1);
    if (old) {
        unlink_endpoint(f, old, &a);
        count(&f->endpoints_of, old, -1);
        rec_free(old);
    }
    arena_fini(&a);
}

void facts_node(struct facts *f, struct str name, const struct jnode *doc) {
    struct rec *r = NULL;
    if (doc) {
        struct ip46 ips[IPS_MAX];
        struct ip_list l = {ips, 0, IPS_MAX};
        for (const char *const *p = convert_node_ips; *p; p++) {
            add_ip(&l, jnode_str(jnode_path(doc, *p)));
        }
        const struct jnode *addresses = jnode_path(doc, "spec.addresses");
        jnode_each (x, addresses) {
            add_ip(&l, jnode_str(jnode_getc(x, "address")));
        }
        r = rec_new(name);
        r->a = keep(convert_k8s_node_name(doc));
        keep_ips(r, ips, l.n);
    }
    replace(&f->nodes, &f->users, name, r);
}

void facts_k8s_node(struct facts *f, struct str name, const struct jnode *doc) {
    replace(&f->k8s_nodes, NULL, name, doc ? rec_new(name) : NULL);
}

void facts_hep(struct facts *f, struct str name, const struct jnode *doc) {
    struct rec *r = NULL;
    if (doc && convert_is_auto_hep(doc)) {
        struct str node = jnode_str(jnode_path(doc, "spec.node"));
        r = rec_new(name);
        r->a = keep(node.p ? node : STR(""));
    }
    replace(&f->heps, NULL, name, r);
}

void facts_service(struct facts *f, struct str ns, struct str name, const struct jnode *doc) {
    struct arena a = {.first_bytes = 512};
    struct str key = join(&a, ns, name);
    struct rec *r = NULL;
    if (doc && str_is(jnode_str(jnode_path(doc, "spec.type")), "LoadBalancer")) {
        struct ip46 ips[IPS_MAX];
        struct ip_list l = {ips, 0, IPS_MAX};
        const struct jnode *ingress = jnode_path(doc, "status.loadBalancer.ingress");
        jnode_each (x, ingress) {
            add_ip(&l, jnode_str(jnode_getc(x, "ip")));
        }
        r = rec_new(key);
        keep_ips(r, ips, l.n);
    }
    replace(&f->services, &f->users, key, r);
    arena_fini(&a);
}

/* ---- questions ---- */

bool facts_get_pod(const struct facts *f, struct str ns, struct str name, struct fact_pod *out) {
    struct arena a = {.first_bytes = 512};
    const struct rec *r = get(&f->pods, join(&a, ns, name));
    arena_fini(&a);
    if (r && out) {
        *out = (struct fact_pod){r->a, r->n_ips, r->ips, r->shape};
    }
    return r != NULL;
}

bool facts_get_node(const struct facts *f, struct str name, struct fact_node *out) {
    const struct rec *r = get(&f->nodes, name);
    if (r && out) {
        *out = (struct fact_node){keytext_view(&r->key), r->a};
    }
    return r != NULL;
}

bool facts_has_k8s_node(const struct facts *f, struct str name) {
    return get(&f->k8s_nodes, name) != NULL;
}

bool facts_has_auto_hep(const struct facts *f, struct str name, struct str *node) {
    const struct rec *r = get(&f->heps, name);
    if (r && node) {
        *node = r->a;
    }
    return r != NULL;
}

bool facts_node_exists(const struct facts *f, struct str node, struct str *k8s_name) {
    const struct rec *r = get(&f->nodes, node);
    struct str name = r ? r->a : node;
    if (k8s_name) {
        *k8s_name = name.p ? name : STR("");
    }
    return r && !name.p ? true : facts_has_k8s_node(f, name);
}

static struct fact_endpoint endpoint_of(const struct rec *r) {
    return (struct fact_endpoint){
        keytext_view(&r->key), r->a, r->b, r->c, r->flag, r->n_ips, r->ips, r->shape};
}

bool facts_endpoint_is_left(const struct facts *f, const struct fact_endpoint *x) {
    struct fact_pod p;
    if (!x->is_k8s || !x->pod.n || facts_node_exists(f, x->node, NULL)) {
        return false;
    }
    return !facts_get_pod(f, x->ns, x->pod, &p) || facts_has_k8s_node(f, p.node);
}

bool facts_ip_in_use(const struct facts *f, const struct ip46 *ip, struct str ns, struct str pod) {
    if (iptab_get(&f->users, *ip)) {
        return true;
    }
    const uint32_t *n = iptab_get(&f->endpoints_of, *ip);
    uint32_t left = n ? *n : 0;
    if (left == 0) {
        return false;
    }
    struct arena a = {.first_bytes = 512};
    const struct rec *head = get(&f->by_pod, join(&a, ns, pod));
    for (const struct rec *x = head ? head->next : NULL; x; x = x->next) {
        struct fact_endpoint e = endpoint_of(x);
        bool has = false;
        for (size_t i = 0; i < x->n_ips; i++) {
            has = has || ip_eq(&x->ips[i], ip);
        }
        left -= has && facts_endpoint_is_left(f, &e);
    }
    arena_fini(&a);
    return left > 0;
}

void facts_each_endpoint(const struct facts *f, struct str ns, struct str pod,
                         void (*cb)(void *arg, const struct fact_endpoint *x), void *arg) {
    struct arena a = {.first_bytes = 512};
    const struct rec *head = get(&f->by_pod, join(&a, ns, pod));
    for (const struct rec *x = head ? head->next : NULL; x; x = x->next) {
        struct fact_endpoint e = endpoint_of(x);
        cb(arg, &e);
    }
    arena_fini(&a);
}

void facts_each(const struct facts *f, void (*cb)(void *arg, const struct fact_endpoint *x),
                void *arg) {
    size_t i = 0;
    struct rec **r;
    while (rectab_next(&f->endpoints, &i, NULL, &r)) {
        struct fact_endpoint e = endpoint_of(*r);
        cb(arg, &e);
    }
}

void facts_each_node(const struct facts *f, void (*cb)(void *arg, const struct fact_node *n),
                     void *arg) {
    size_t i = 0;
    struct rec **r;
    while (rectab_next(&f->nodes, &i, NULL, &r)) {
        struct fact_node n = {keytext_view(&(*r)->key), (*r)->a};
        cb(arg, &n);
    }
}

void facts_each_service(const struct facts *f, void (*cb)(void *arg, struct str key), void *arg) {
    size_t i = 0;
    struct rec **r;
    while (rectab_next(&f->services, &i, NULL, &r)) {
        cb(arg, keytext_view(&(*r)->key));
    }
}

void facts_each_auto_hep(const struct facts *f,
                         void (*cb)(void *arg, struct str name, struct str node), void *arg) {
    size_t i = 0;
    struct rec **r;
    while (rectab_next(&f->heps, &i, NULL, &r)) {
        cb(arg, keytext_view(&(*r)->key), (*r)->a);
    }
}

size_t facts_n_pods(const struct facts *f) {
    return f->pods.n;
}
