/* See defaults.h. Source of names and values: libcalico-go/lib/clientv3, EnsureInitialized. */
#include "node/defaults.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/vec.h"
#include "model/model.h"
#include "netlink/link.h"
#include "netlink/route.h"
#include "node/defaultpool.h"
#include "store/kube.h"
#include "store/worker.h"

#include <sys/random.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *getenv_filled(const char *name) {
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

/* ---- resources ---- */

static struct jnode *new_document(struct arena *a, const struct kind *k, const char *name,
                                  struct jnode *spec) {
    struct jnode *doc = jnode_new(a, J_MAP), *meta = jnode_new(a, J_MAP);
    char *stamp = arena_alloc(a, 32), *uid = arena_alloc(a, UUID_TEXT);
    uuid_v4(uid);
    jnode_set(a, doc, STR("apiVersion"), jnode_new_str(a, STR("projectcalico.org/v3")));
    jnode_set(a, doc, STR("kind"), jnode_new_str(a, str_c(k->kind)));
    jnode_set(a, meta, STR("name"), jnode_new_str(a, str_c(name)));
    jnode_set(a, meta, STR("uid"), jnode_new_str(a, str_c(uid)));
    jnode_set(a, meta, STR("creationTimestamp"),
              jnode_new_str(a, str_c(clock_rfc3339(clock_wall_ns(), stamp))));
    jnode_set(a, doc, STR("metadata"), meta);
    jnode_set(a, doc, STR("spec"), spec);
    return doc;
}

/* Another node may have been first: that is as good. */
static int put_new(struct store *s, const struct kind *k, const char *name, const struct jnode *doc,
                   struct arena *a, struct err *e) {
    struct store_key key = {STR(STORE_SPACE_RESOURCES), kind_store_key(k, STR(""), str_c(name), a)};
    struct buf b = BUF_INIT(64 << 10);
    json_write(&b, doc, 0);
    int r = store_put(s, key, buf_view(&b), REV_NONE, NULL, e);
    buf_fini(&b);
    return r == ERR_EXISTS ? 0 : r;
}

/* ---- default pools ---- */

/* What a default pool must keep clear of, and what kubeadm wanted. */
struct gathering {
    struct arena *a;
    VEC(struct link) links;
    VEC(struct pool_taken) taken;
    struct pool_world world;
};

static void take(struct gathering *g, struct prefix net, struct str what) {
    vec_push(&g->taken, ((struct pool_taken){net, what}));
}

static int see_link(void *arg, const struct link *l) {
    vec_push(&((struct gathering *)arg)->links, *l);
    return 0;
}

/* Routes to pods are no other use of a network: a node that moves over has Calico's. */
static bool is_for_pods(const struct route *r, const char *iface) {
    static const char *const ours[] = {"cali", "vxlan.calico", "vxlan-v6.calico", "tunl",
                                       "wireguard.cali"};
    enum { PROTO_CALICO = 80 };
    bool is = r->protocol == PROTO_CALICO || r->protocol == RTPROT_BIRD;
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        is = is || strncmp(iface, ours[i], strlen(ours[i])) == 0;
    }
    return is;
}

static int see_route(void *arg, const struct route *r) {
    struct gathering *g = arg;
    const char *iface = "";
    for (size_t i = 0; i < g->links.n; i++) {
        iface = g->links.p[i].index == r->oif ? g->links.p[i].name : iface;
    }
    bool is_local6 = r->dst.ip.family == IP_V6 &&
                     (r->dst.ip.b[0] == 0xff || (r->dst.ip.b[0] == 0xfe && r->dst.ip.b[1] >= 0x80));
    if (r->dst.len > 0 && !is_local6 && !is_for_pods(r, iface)) {
        take(g, prefix_mask(r->dst),
             arena_printf(g->a, "route of this host%s%s", iface[0] ? " by " : "", iface));
    }
    return 0;
}

static int see_host(struct gathering *g, struct err *e) {
    struct nl *nl = NULL;
    int r = nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &nl, e);
    if (r < 0) {
        return r;
    }
    r = link_dump(nl, see_link, g, e);
    r = r < 0 ? r : route_dump(nl, &(struct route_filter){0}, see_route, g, e);
    nl_close(nl);
    return r;
}

static int see_pool(void *arg, const struct store_item *it) {
    struct gathering *g = arg;
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct err e;
    if (json_parse(it->value, &json_limits_default, &a, &doc, &e) == 0) {
        struct str cidr = jnode_str(jnode_path(doc, "spec.cidr"));
        g->world.has_pool[str_find(cidr, ':', 0) >= 0] = true;
    }
    arena_fini(&a);
    return 0;
}

/* A resource as a tree; NULL if it isn't there or can't be read. */
static struct jnode *read_one(struct store *s, enum kind_id id, const char *ns, const char *name,
                              struct arena *a) {
    struct store_item it;
    struct jnode *doc = NULL;
    struct store_key key = {STR(STORE_SPACE_RESOURCES),
                            kind_store_key(&model_kinds[id], str_c(ns), str_c(name), a)};
    return store_get(s, key, a, &it, NULL) == 0 &&
                   json_parse(it.value, &json_limits_default, a, &doc, NULL) == 0
               ? doc
               : NULL;
}

/* The services' range: kubeadm's, BGPConfiguration's, or at least the address that every cluster's
 * first Service has. */
static void see_services(struct gathering *g, struct store *s, const struct prefix kubeadm[2]) {
    struct prefix p;
    for (size_t f = 0; f < 2; f++) {
        if (kubeadm[f].ip.family) {
            take(g, prefix_mask(kubeadm[f]), STR("kubeadm's serviceSubnet"));
        }
    }
    struct jnode *conf = read_one(s, K_BGP_CONFIGURATION, "", "default", g->a);
    struct jnode *list = jnode_path(conf, "spec.serviceClusterIPs");
    jnode_each (n, list) {
        if (prefix_parse(jnode_str(jnode_getc(n, "cidr")), &p) == 0) {
            take(g, prefix_mask(p), STR("serviceClusterIPs of BGPConfiguration default"));
        }
    }
    struct jnode *first = read_one(s, K_SERVICE, "default", "kubernetes", g->a);
    if (prefix_parse(jnode_str(jnode_path(first, "spec.clusterIP")), &p) == 0) {
        take(g, p, STR("Service default/kubernetes"));
    }
}

static int put_pool(struct store *s, const struct pool_wanted *p, struct arena *a, struct err *e) {
    const struct kind *k = &model_kinds[K_IP_POOL];
    struct jnode *doc = new_document(a, k, p->name, p->spec);
    struct object o;
    struct model_errors errs = {.a = a};
    int r = object_read(doc, MODEL_APPLY, STR(""), a, &o, &errs);
    if (r < 0) {
        return err_set(e, r, "%s from CALICO_IP…POOL_…: %.*s: %.*s", p->name,
                       STR_FMT(errs.p[0].path), STR_FMT(errs.p[0].message));
    }
    return put_new(s, k, p->name, doc, a, e);
}

/* calico/node's default pools: of each family that has none. */
static int make_pools(struct store *s, bool *is_kubeadm, struct err *e) {
    struct arena a = {0};
    struct gathering g = {.a = &a, .world = {.env = getenv_filled}};
    struct prefix services[2] = {{{0}, 0}, {{0}, 0}};
    struct pool_wanted pools[2] = {{NULL, NULL}, {NULL, NULL}};
    struct str text = STR_NULL,
               prefix = arena_printf(&a, "%s/", kind_store_name(&model_kinds[K_IP_POOL]));
    int r = store_list(s, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, NULL, see_pool,
                       &g, e);
    r = r < 0 ? r : see_host(&g, e);
    if (r == 0 && kube_is(s)) {
        /* Not there, or not for us to read: another installer's cluster. */
        *is_kubeadm = kube_config_map(s, "kube-system", "kubeadm-config", "ClusterConfiguration",
                                      &a, &text, NULL) == 0;
        kubeadm_subnets(text, g.world.kubeadm, services);
    }
    if (r == 0) {
        see_services(&g, s, services);
        g.world.taken = g.taken.p;
        g.world.n_taken = g.taken.n;
        g.world.has_ipv6 = access("/proc/net/if_inet6", F_OK) == 0;
        r = getrandom(g.world.random, sizeof(g.world.random), 0) == (ssize_t)sizeof(g.world.random)
                ? default_pools(&g.world, &a, pools, e)
                : err_set(e, -errno, "no random numbers for the default IPv6 pool");
    }
    for (size_t f = 0; f < 2 && r == 0; f++) {
        r = pools[f].name ? put_pool(s, &pools[f], &a, e) : 0;
    }
    vec_fini(&g.links);
    vec_fini(&g.taken);
    arena_fini(&a);
    return r;
}

/* ---- the cluster ---- */

/* Puts it if nothing of that name is there. spec: JSON of ours. */
static int make(struct store *s, enum kind_id id, const char *name, struct str spec,
                struct arena *a, struct err *e) {
    const struct kind *k = &model_kinds[id];
    struct store_key key = {STR(STORE_SPACE_RESOURCES), kind_store_key(k, STR(""), str_c(name), a)};
    struct store_item it;
    struct jnode *tree = NULL;
    int r = store_get(s, key, a, &it, e);
    if (r != ERR_NOT_FOUND) {
        return r;
    }
    r = json_parse(spec, &json_limits_default, a, &tree, e);
    return r < 0 ? r : put_new(s, k, name, new_document(a, k, name, tree), a, e);
}

/* The words of both lists, each once; NULL: all of `more` are there. */
static const char *merged_words(struct str have, struct str more, struct arena *a) {
    struct str all = have;
    while (more.n) {
        struct str word = str_trim(str_cut(&more, ',')), rest = all;
        bool is_there = word.n == 0;
        while (rest.n) {
            is_there |= str_eq(str_trim(str_cut(&rest, ',')), word);
        }
        if (!is_there) {
            all = arena_printf(a, "%.*s%s%.*s", STR_FMT(all), all.n ? "," : "", STR_FMT(word));
        }
    }
    return all.n == have.n ? NULL : arena_cstr(a, all);
}

/* Adds to clusterType what is not in it; the rest stays as it is, unknown fields too. */
static int merge_cluster_type(struct store *s, struct str words, struct arena *a, struct err *e) {
    const struct kind *k = &model_kinds[K_CLUSTER_INFORMATION];
    struct store_key key = {STR(STORE_SPACE_RESOURCES),
                            kind_store_key(k, STR(""), STR("default"), a)};
    struct store_item it;
    struct jnode *doc = NULL;
    int r = store_get(s, key, a, &it, e);
    r = r < 0 ? r : json_parse(it.value, &json_limits_default, a, &doc, e);
    if (r < 0) {
        return r;
    }
    struct jnode *spec = jnode_getc(doc, "spec");
    const char *type = merged_words(jnode_str(jnode_getc(spec, "clusterType")), words, a);
    if (!type || !spec || spec->type != J_MAP) {
        return 0;
    }
    struct buf b = BUF_INIT(1 << 20);
    jnode_set(a, spec, STR("clusterType"), jnode_new_str(a, str_c(type)));
    json_write(&b, doc, 0);
    r = store_put(s, key, buf_view(&b), it.revision, NULL, e);
    buf_fini(&b);
    return r == ERR_CONFLICT ? ERR_RETRY : r;
}

static int make_cluster(struct store *s, const char *node, bool is_kubeadm, struct err *e) {
    static const struct {
        const char *name, *spec;
    } tiers[] = {{"default", "{\"order\":1000000,\"defaultAction\":\"Deny\"}"},
                 {"kube-admin", "{\"order\":1000,\"defaultAction\":\"Pass\"}"},
                 {"kube-baseline", "{\"order\":10000000,\"defaultAction\":\"Pass\"}"}};
    struct arena a = {0};
    uint8_t guid[16];
    char hex[33];
    const char *type = getenv_filled("CLUSTER_TYPE");
    struct str words = arena_printf(&a, "%s%s%s", type ? type : "", is_kubeadm ? ",kubeadm" : "",
                                    kube_is(s) ? ",k8s" : "");
    if (getrandom(guid, sizeof(guid), 0) != (ssize_t)sizeof(guid)) {
        return err_set(e, -errno, "no random numbers for the cluster's GUID");
    }
    hex_encode(guid, sizeof(guid), hex);
    int r =
        make(s, K_CLUSTER_INFORMATION, "default",
             arena_printf(
                 &a, "{\"clusterGUID\":\"%s\",\"clusterType\":\"\",\"datastoreReady\":true}", hex),
             &a, e);
    r = r < 0 ? r : merge_cluster_type(s, words, &a, e);
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(tiers); i++) {
        r = make(s, K_TIER, tiers[i].name, str_c(tiers[i].spec), &a, e);
    }
    if (r == 0) {
        r = make(s, K_FELIX_CONFIGURATION, "default", STR("{\"logSeverityScreen\":\"Info\"}"), &a,
                 e);
    }
    /* With etcd there may be no Kubernetes: hosts filter what pods send them by rules of their own.
     */
    if (r == 0 && !kube_is(s)) {
        const char *name = arena_cstr(&a, arena_printf(&a, "node.%s", node));
        r = make(s, K_FELIX_CONFIGURATION, name,
                 STR("{\"defaultEndpointToHostAction\":\"Return\"}"), &a, e);
    }
    arena_fini(&a);
    return r;
}

int defaults_make(struct store *s, const char *node, struct err *e) {
    bool is_kubeadm = false;
    int r = make_pools(s, &is_kubeadm, e);
    /* A pool that can't be made is no reason to leave the cluster without the rest. */
    struct err later = {0};
    int r2 = store_is_quick(s) ? 0 : make_cluster(s, node, is_kubeadm, r < 0 ? &later : e);
    return r < 0 ? r : r2;
}
