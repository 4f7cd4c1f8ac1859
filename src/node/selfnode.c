/* See selfnode.h. A job on the store's worker reads the Node and writes what differs; it runs again
 * a minute later, and whenever somebody asks. */
#include "node/selfnode.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "model/pool.h"
#include "netlink/addr.h"
#include "netlink/link.h"
#include "store/kube.h"

#include <stdio.h>
#include <stdlib.h>

enum { POLL_MS_DEFAULT = 60000, RETRY_MS = 5000, SOON_MS = 50, N_FAMILIES = 2 };

static const enum ip_family FAMILIES[N_FAMILIES] = {IP_V4, IP_V6};

/* What a job is given and what it gives back. */
struct job {
    struct selfnode *s;
    struct arena a;
    struct host_iface *ifaces;
    size_t n_ifaces;
    bool wants_vxlan[N_FAMILIES], is_up;
    /* out */
    struct path_node own;
    struct detect_report report;
    struct err e;
    bool did_write, did_tell;
};

struct selfnode {
    struct loop *loop;
    struct store_worker *worker;
    struct ipam *ipam;
    struct nl *nl;
    char *name;
    bool is_kubernetes;
    struct selfnode_ops ops;
    void *arg;
    struct loop_timer *timer;
    bool is_busy, is_asked, is_up, is_told; /* told: the cluster knows that it is up */
    bool wants_vxlan[N_FAMILIES];
    struct path_node own;
    char why[1024];
    char *report; /* JSON */
    int64_t poll_ms;
};

static const char *env(const char *name) {
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

/* ---- the host's addresses ---- */

struct collecting {
    VEC(struct link) links;
    VEC(struct host_iface) out;
};

static int on_link(void *arg, const struct link *l) {
    vec_push(&((struct collecting *)arg)->links, *l);
    return 0;
}

static int on_addr(void *arg, const struct addr *x) {
    struct collecting *c = arg;
    for (size_t i = 0; i < c->links.n; i++) {
        const struct link *l = &c->links.p[i];
        if (l->index == x->index) {
            struct host_iface f = {.is_up = (l->flags & IFF_UP) != 0, .addr = x->net};
            memcpy(f.name, l->name, sizeof(f.name));
            vec_push(&c->out, f);
        }
    }
    return 0;
}

static int collect(struct selfnode *s, struct job *j, struct err *e) {
    struct collecting c = {0};
    int r = link_dump(s->nl, on_link, &c, e);
    r = r < 0 ? r : addr_dump(s->nl, 0, on_addr, &c, e);
    j->n_ifaces = c.out.n;
    j->ifaces = arena_array(&j->a, struct host_iface, c.out.n + 1);
    if (c.out.n) {
        memcpy(j->ifaces, c.out.p, c.out.n * sizeof(*c.out.p));
    }
    vec_fini(&c.links);
    vec_fini(&c.out);
    return r;
}

/* ---- trees ---- */

static struct jnode *map_in(struct arena *a, struct jnode *map, const char *key) {
    struct jnode *n = jnode_getc(map, key);
    if (!n || n->type != J_MAP) {
        n = jnode_new(a, J_MAP);
        jnode_set(a, map, str_c(key), n);
    }
    return n;
}

static void set_text(struct arena *a, struct jnode *map, const char *key, const char *text) {
    if (text) {
        jnode_set(a, map, str_c(key), jnode_new_str(a, arena_dup(a, str_c(text))));
    } else {
        (void)jnode_del(map, str_c(key));
    }
}

static struct ip46 ip_at(const struct jnode *doc, const char *path) {
    struct ip46 ip;
    return ip_parse(jnode_str(jnode_path(doc, path)), &ip) == 0 ? ip : (struct ip46){0};
}

/* ---- other nodes ---- */

struct rival {
    const struct job *j;
    char name[256];
    struct ip46 ip;
};

static bool is_ours_too(const struct job *j, const struct jnode *doc, struct ip46 *ip) {
    static const char *const paths[] = {"spec.bgp.ipv4Address", "spec.bgp.ipv6Address"};
    for (size_t f = 0; f < N_FAMILIES; f++) {
        struct prefix p;
        if (j->own.addr[f].ip.family &&
            prefix_parse(jnode_str(jnode_path(doc, paths[f])), &p) == 0 &&
            ip_eq(&p.ip, &j->own.addr[f].ip)) {
            *ip = p.ip;
            return true;
        }
    }
    return false;
}

static int see_node(void *arg, const struct store_item *it) {
    struct rival *x = arg;
    struct arena a = {0};
    struct jnode *doc = NULL;
    if (json_parse(it->value, &json_limits_default, &a, &doc, NULL) == 0) {
        struct str name = jnode_str(jnode_path(doc, "metadata.name"));
        if (!str_is(name, x->j->s->name) && is_ours_too(x->j, doc, &x->ip)) {
            (void)snprintf(x->name, sizeof(x->name), "%.*s", STR_FMT(name));
        }
    }
    arena_fini(&a);
    return 0;
}

/* Two nodes with one address take each other's traffic. */
static int check_rivals(struct store *st, struct job *j, struct err *e) {
    struct rival x = {.j = j};
    char text[IP_TEXT_MAX];
    const char *off = env("DISABLE_NODE_IP_CHECK");
    if (off && strcmp(off, "true") == 0) {
        return 0;
    }
    struct str prefix = arena_printf(&j->a, "%s/", kind_store_name(&model_kinds[K_NODE]));
    int r = store_list(st, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, NULL, see_node,
                       &x, e);
    if (r == 0 && x.name[0]) {
        return err_set(e, ERR_EXISTS,
                       "node %s has the address %s, and so has node %s: give this one another "
                       "(IP, IP_AUTODETECTION_METHOD), or delete the Node of one that is gone",
                       j->s->name, ip_text(&x.ip, text), x.name);
    }
    return r;
}

/* ---- the node's addresses ---- */

/* The address that a family's variables ask for: 1 detected or given, 0 none wanted. */
static int choose(struct job *j, size_t f, const struct jnode *doc, const struct ip46 *internal,
                  struct err *e) {
    const char *given = env(f ? "IP6" : "IP");
    const char *method = env(f ? "IP6_AUTODETECTION_METHOD" : "IP_AUTODETECTION_METHOD");
    struct prefix *out = &j->own.addr[f];
    struct str had =
        jnode_str(jnode_path(doc, f ? "spec.bgp.ipv6Address" : "spec.bgp.ipv4Address"));
    bool is_auto = given ? strcmp(given, "autodetect") == 0 : f == 0 && !had.n;
    if (given && strcmp(given, "none") == 0) {
        return 0;
    }
    if (!given && !is_auto) { /* as it stands */
        return had.n && prefix_parse(had, out) == 0;
    }
    if (is_auto) {
        int r = detect_address(str_c(method ? method : ""), FAMILIES[f], j->ifaces, j->n_ifaces,
                               internal, &j->a, out, &j->report, e);
        return r < 0 ? r : 1;
    }
    if (prefix_parse(str_c(given), out) < 0 || out->ip.family != FAMILIES[f]) {
        return err_set(e, ERR_INVALID,
                       "%s: found \"%s\", allowed is an IPv%d address, a CIDR, "
                       "autodetect or none",
                       f ? "IP6" : "IP", given, FAMILIES[f]);
    }
    for (size_t i = 0; i < j->n_ifaces && !strchr(given, '/'); i++) {
        if (ip_eq(&j->ifaces[i].addr.ip, &out->ip)) {
            *out = j->ifaces[i].addr; /* with its interface's mask */
        }
    }
    return 1;
}

static struct ip46 internal_ip(struct store *st, struct job *j) {
    struct arena *a = &j->a;
    struct store_item it;
    struct jnode *doc = NULL;
    struct store_key key = {
        STR(STORE_SPACE_RESOURCES),
        kind_store_key(&model_kinds[K_NODE_K8S], STR(""), str_c(j->s->name), a)};
    if (store_get(st, key, a, &it, NULL) == 0 &&
        json_parse(it.value, &json_limits_default, a, &doc, NULL) == 0) {
        struct jnode *list = jnode_path(doc, "status.addresses");
        jnode_each (n, list) {
            if (str_is(jnode_str(jnode_getc(n, "type")), "InternalIP")) {
                return ip_at(n, "address");
            }
        }
    }
    return (struct ip46){0};
}

static void write_addresses(struct job *j, struct jnode *doc) {
    struct arena *a = &j->a;
    struct jnode *spec = map_in(a, doc, "spec");
    struct jnode *list = jnode_new(a, J_LIST), *old = jnode_getc(spec, "addresses");
    char text[IP_TEXT_MAX];
    for (size_t f = 0; f < N_FAMILIES; f++) {
        const struct prefix *p = &j->own.addr[f];
        const char *key = f ? "ipv6Address" : "ipv4Address";
        if (!p->ip.family) {
            if (jnode_getc(spec, "bgp")) {
                set_text(a, jnode_getc(spec, "bgp"), key, NULL);
            }
            continue;
        }
        set_text(a, map_in(a, spec, "bgp"), key, prefix_text(p, text));
        struct jnode *n = jnode_new(a, J_MAP);
        set_text(a, n, "address", prefix_text(p, text));
        set_text(a, n, "type", "CalicoNodeIP");
        jnode_append(list, n);
    }
    jnode_each (n, old) {
        if (!str_is(jnode_str(jnode_getc(n, "type")), "CalicoNodeIP")) {
            jnode_append(list, jnode_copy(a, n));
        }
    }
    if (list->n) {
        jnode_set(a, spec, STR("addresses"), list);
    }
    const char *ref = env("CALICO_K8S_NODE_REF");
    if ((ref || j->s->is_kubernetes) && !jnode_getc(spec, "orchRefs")) {
        struct jnode *refs = jnode_new(a, J_LIST), *one = jnode_new(a, J_MAP);
        set_text(a, one, "nodeName", ref ? ref : j->s->name);
        set_text(a, one, "orchestrator", "k8s");
        jnode_append(refs, one);
        jnode_set(a, spec, STR("orchRefs"), refs);
    }
}

/* ---- the tunnels' addresses ---- */

struct tunnel_pools {
    struct arena *a;
    enum ip_family family;
    struct ipam_pool pools[64];
    size_t n;
};

static int see_pool(void *arg, const struct store_item *it) {
    struct tunnel_pools *t = arg;
    struct object o = {0};
    struct model_errors errs = {.a = t->a};
    struct jnode *doc = NULL;
    if (json_parse(arena_dup(t->a, it->value), &json_limits_default, t->a, &doc, NULL) < 0) {
        return 0;
    }
    (void)!object_read(doc, MODEL_STORE, STR_NULL, t->a, &o, &errs);
    const struct ip_pool_spec *p = o.spec;
    bool is_for_tunnels = p && !p->allowed_uses.n;
    for (size_t i = 0; p && i < p->allowed_uses.n; i++) {
        is_for_tunnels |= str_is(p->allowed_uses.p[i], "Tunnel");
    }
    if (p && p->cidr.ip.family == t->family && !p->disabled && is_for_tunnels && p->block_size &&
        p->vxlan_mode.n && !str_is(p->vxlan_mode, "Never") && t->n < ARRAY_LEN(t->pools)) {
        t->pools[t->n++] = (struct ipam_pool){o.meta.name, p->cidr, p->block_size};
    }
    return 0;
}

/* Assigned once and kept; given back when no pool needs it any more. */
static int tunnel_address(struct store *st, struct job *j, size_t f, struct jnode *doc,
                          struct err *e) {
    struct arena *a = &j->a;
    struct jnode *spec = map_in(a, doc, "spec");
    const char *key = f ? "ipv6VXLANTunnelAddr" : "ipv4VXLANTunnelAddr";
    struct str handle = arena_printf(a, "vxlan-%stunnel-addr-%s", f ? "v6-" : "", j->s->name);
    struct ip46 held[4], *now = &j->own.vxlan_addr[f];
    size_t n = 0;
    char text[IP_TEXT_MAX];
    *now = ip_at(spec, key);
    int r = ipam_ips_by_handle(j->s->ipam, handle, held, ARRAY_LEN(held), &n, e);
    r = r == ERR_NOT_FOUND ? 0 : r;
    if (r < 0) {
        return r;
    }
    bool wants = j->wants_vxlan[f] && j->own.addr[f].ip.family;
    if (!wants) {
        *now = (struct ip46){0};
        set_text(a, spec, key, NULL);
        return n ? ipam_release_by_handle(j->s->ipam, handle, held, ARRAY_LEN(held), &n, e) : 0;
    }
    if (n == 0) {
        struct tunnel_pools t = {.a = a, .family = FAMILIES[f]};
        struct str prefix = arena_printf(a, "%s/", kind_store_name(&model_kinds[K_IP_POOL]));
        r = store_list(st, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, NULL, see_pool,
                       &t, e);
        struct ipam_options o = {.pools = t.pools, .n_pools = t.n};
        const struct ipam_attr attrs[] = {
            {STR("node"), str_c(j->s->name)},
            {STR("type"), f ? STR("vxlanV6TunnelAddress") : STR("vxlanTunnelAddress")}};
        r = r < 0 ? r
                  : ipam_assign_auto(j->s->ipam, &o, FAMILIES[f], 1, handle, attrs,
                                     ARRAY_LEN(attrs), held, e);
        if (r < 0) {
            return r;
        }
    }
    *now = held[0];
    set_text(a, spec, key, ip_text(now, text));
    return 0;
}

static void take_macs(struct job *j, const struct jnode *doc) {
    static const char *const paths[] = {"spec.vxlanTunnelMACAddr", "spec.vxlanTunnelMACAddrV6"};
    for (size_t f = 0; f < N_FAMILIES; f++) {
        path_node_mac(jnode_str(jnode_path(doc, paths[f])), str_c(j->s->name), FAMILIES[f],
                      j->own.vxlan_mac[f]);
    }
}

/* ---- the job ---- */

static struct jnode *new_node(struct job *j) {
    struct arena *a = &j->a;
    struct jnode *doc = jnode_new(a, J_MAP), *m;
    char stamp[32], uid[UUID_TEXT];
    uuid_v4(uid);
    set_text(a, doc, "apiVersion", "projectcalico.org/v3");
    set_text(a, doc, "kind", "Node");
    m = map_in(a, doc, "metadata");
    set_text(a, m, "name", j->s->name);
    set_text(a, m, "uid", uid);
    set_text(a, m, "creationTimestamp", clock_rfc3339(clock_wall_ns(), stamp));
    return doc;
}

static int once(struct store *st, struct job *j, struct err *e) {
    struct arena *a = &j->a;
    struct store_item it = {.revision = REV_NONE};
    struct jnode *was = NULL, *doc;
    struct store_key key = {STR(STORE_SPACE_RESOURCES),
                            kind_store_key(&model_kinds[K_NODE], STR(""), str_c(j->s->name), a)};
    int r = store_get(st, key, a, &it, e);
    if (r == 0) {
        r = json_parse(it.value, &json_limits_default, a, &was, e);
    }
    if (r < 0 && r != ERR_NOT_FOUND) {
        return r;
    }
    doc = was ? jnode_copy(a, was) : new_node(j);
    struct ip46 internal = internal_ip(st, j);
    int n = 0;
    for (size_t f = 0; f < N_FAMILIES; f++) {
        r = choose(j, f, doc, &internal, e);
        if (r < 0) {
            return r;
        }
        n += r;
    }
    r = n ? check_rivals(st, j, e) : 0;
    if (r < 0) {
        return r;
    }
    write_addresses(j, doc);
    for (size_t f = 0; f < N_FAMILIES && r == 0; f++) {
        r = tunnel_address(st, j, f, doc, e);
    }
    take_macs(j, doc);
    if (r < 0 || (was && jnode_eq(was, doc))) {
        return r;
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(STORE_VALUE_MAX);
    json_write(&b, doc, 0);
    j->did_write = true;
    return store_put(st, key, buf_view(&b), was ? it.revision : REV_NONE, NULL, e);
}

static void work(struct store *st, void *arg) {
    struct job *j = arg;
    int r = ERR_CONFLICT;
    for (int i = 0; i < 5 && (r == ERR_CONFLICT || r == ERR_EXISTS); i++) {
        struct detect_report none = {0};
        j->own = (struct path_node){0};
        j->report = none;
        r = once(st, j, &j->e);
        if (r == ERR_EXISTS && !j->did_write) {
            break; /* a rival, not a race */
        }
    }
    if (r == 0 && j->is_up) {
        r = kube_node_network(st, str_c(j->s->name), true, &j->e);
        j->did_tell = r == 0;
    }
    j->e.code = r;
}

static void keep_report(struct selfnode *s, const struct job *j) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
    char text[IP_TEXT_MAX];
    for (size_t f = 0; f < N_FAMILIES; f++) {
        buf_printf(&b, "%s\"%s\":", f ? "," : "{", f ? "ipv6" : "ipv4");
        if (j->own.addr[f].ip.family) {
            buf_printf(&b, "\"%s\"", prefix_text(&j->own.addr[f], text));
        } else {
            buf_puts(&b, "null");
        }
    }
    buf_puts(&b, ",\"rejected\":[");
    for (size_t i = 0; i < j->report.n; i++) {
        const struct detect_rejected *x = &j->report.p[i];
        buf_puts(&b, i ? ",{\"interface\":" : "{\"interface\":");
        json_quote(&b, x->iface);
        buf_printf(&b, ",\"address\":\"%s\",\"reason\":", prefix_text(&x->addr, text));
        json_quote(&b, x->why);
        buf_putc(&b, '}');
    }
    buf_puts(&b, "]}");
    free(s->report);
    s->report = strndup(b.p, b.n);
    mg_assert(s->report != NULL);
}

static void start(struct selfnode *s);

static void done(void *arg, int code) {
    struct job *j = arg;
    struct selfnode *s = j->s;
    if (code == 0) {
        s->is_busy = false;
        bool is_ok = j->e.code >= 0;
        s->is_told |= j->did_tell;
        if (is_ok) {
            s->own = j->own;
            keep_report(s, j);
        }
        if (!is_ok && strcmp(s->why, j->e.msg) != 0) {
            LOG_W("node", "own_node", "error=%s", log_quote(str_c(j->e.msg)));
        }
        (void)snprintf(s->why, sizeof(s->why), "%s", is_ok ? "" : j->e.msg);
        loop_timer_start(s->timer, s->is_asked ? SOON_MS : is_ok ? s->poll_ms : RETRY_MS, 0);
        s->is_asked = false;
        s->ops.on_change(s->arg, &s->own, s->why);
    }
    arena_fini(&j->a);
    free(j);
}

static void start(struct selfnode *s) {
    struct job *j = calloc(1, sizeof(*j));
    mg_assert(j != NULL);
    j->s = s;
    j->is_up = s->is_up && !s->is_told && s->is_kubernetes;
    memcpy(j->wants_vxlan, s->wants_vxlan, sizeof(j->wants_vxlan));
    struct err e = {0};
    if (collect(s, j, &e) < 0) {
        LOG_W("node", "addresses_not_read", "error=%s", log_quote(str_c(e.msg)));
    }
    s->is_busy = true;
    store_worker_run(s->worker, work, done, j);
}

static void on_timer(void *arg) {
    struct selfnode *s = arg;
    if (!s->is_busy) {
        start(s);
    }
}

void selfnode_ask(struct selfnode *s) {
    if (s->is_busy) {
        s->is_asked = true;
    } else {
        loop_timer_start(s->timer, SOON_MS, 0);
    }
}

void selfnode_up(struct selfnode *s) {
    s->is_up = true;
    selfnode_ask(s);
}

/* ---- the end ---- */

struct farewell {
    struct selfnode *s;
    void (*done)(void *arg);
    void *arg;
};

static void say_down(struct store *st, void *arg) {
    struct farewell *f = arg;
    struct err e;
    if (kube_node_network(st, str_c(f->s->name), false, &e) < 0) {
        LOG_W("node", "not_marked_down", "error=%s", log_quote(str_c(e.msg)));
    }
}

static void said_down(void *arg, int code) {
    struct farewell *f = arg;
    if (code == 0) {
        f->done(f->arg);
    }
    free(f);
}

void selfnode_down(struct selfnode *s, void (*done_cb)(void *arg), void *arg) {
    if (!s->is_told) {
        done_cb(arg);
        return;
    }
    struct farewell *f = calloc(1, sizeof(*f));
    mg_assert(f != NULL);
    *f = (struct farewell){s, done_cb, arg};
    loop_timer_stop(s->timer);
    store_worker_run(s->worker, say_down, said_down, f);
}

void selfnode_want_vxlan(struct selfnode *s, const bool wants[2]) {
    if (memcmp(s->wants_vxlan, wants, sizeof(s->wants_vxlan)) != 0) {
        memcpy(s->wants_vxlan, wants, sizeof(s->wants_vxlan));
        selfnode_ask(s);
    }
}

void selfnode_put(const struct selfnode *s, struct buf *b) {
    buf_puts(b, s->report ? s->report : "{}");
}

/* AUTODETECT_POLL_INTERVAL, as "60s" or "5m". */
static int64_t poll_interval(void) {
    const char *v = env("AUTODETECT_POLL_INTERVAL");
    char *end = NULL;
    double n = v ? strtod(v, &end) : 0;
    if (!v || end == v || n <= 0 || n > 86400) {
        return POLL_MS_DEFAULT;
    }
    return (int64_t)(n * (*end == 'm' ? 60000 : *end == 'h' ? 3600000 : 1000));
}

struct selfnode *selfnode_new(struct loop *l, struct store_worker *w, struct ipam *m,
                              struct str name, bool is_kubernetes, const struct selfnode_ops *ops,
                              void *arg, struct err *e) {
    struct selfnode *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->loop = l;
    s->worker = w;
    s->ipam = m;
    s->is_kubernetes = is_kubernetes;
    s->ops = *ops;
    s->arg = arg;
    s->poll_ms = poll_interval();
    s->name = strndup(name.p, name.n);
    mg_assert(s->name != NULL);
    s->timer = loop_timer_new(l, on_timer, s);
    if (nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &s->nl, e) < 0) {
        selfnode_free(s);
        return NULL;
    }
    return s;
}

void selfnode_free(struct selfnode *s) {
    if (s) {
        loop_timer_free(s->timer);
        nl_close(s->nl);
        free(s->report);
        free(s->name);
        free(s);
    }
}
