/* See overlay.h. Two ways to the same end: what changed is written by itself, and now and then (at
 * the start, after events of others, when something was refused) all is read and compared. */
#include "dataplane/overlay.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "netlink/monitor.h"
#include "netlink/vxlan.h"

#include <stdio.h>
#include <stdlib.h>

enum { RETRY_MS = 1000, SETTLE_MS = 20, REPAIRS_AT_ONCE = 10, WINDOW_MS = 60000 };

struct droute {
    struct path_route r;
    bool is_dirty, is_seen;
};
struct dvtep {
    struct path_vtep v;
    bool is_dirty, has_fdb, has_neigh;
};

#define MAP_NAME droutes
#define MAP_KEY struct prefix
#define MAP_VAL struct droute
#define MAP_HASH(k) (ip_hash(&(k).ip) ^ (k).len)
#define MAP_EQ(a, b) prefix_eq(&(a), &(b))
#include "base/map.tmpl.h"

#define MAP_NAME dvteps
#define MAP_KEY struct ip46
#define MAP_VAL struct dvtep
#define MAP_HASH(k) ip_hash(&(k))
#define MAP_EQ(a, b) ip_eq(&(a), &(b))
#include "base/map.tmpl.h"

/* MAC and family of a tunnel's other end, to its entry: for one comparison. */
#define MAP_NAME dmacs
#define MAP_KEY uint64_t
#define MAP_VAL struct dvtep *
#define MAP_HASH(k) hash_u64(k)
#define MAP_EQ(a, b) ((a) == (b))
#include "base/map.tmpl.h"

struct device {
    const char *name;
    bool is_wanted, is_dirty;
    struct overlay_device d;
    int index;    /* 0: not there */
    uint32_t mtu; /* as it was made */
};

/* An interface by which nodes are reached. */
struct carrier {
    int index;
    bool is_up;
    uint32_t mtu; /* that a device of ours was made for; 0: none was */
};

struct overlay {
    struct nl *nl;
    struct nl_monitor *monitor;
    struct loop_timer *timer;
    bool has_bgp, wants_sync, has_synced, is_timing;
    struct device dev[2];
    struct droutes routes;
    struct dvteps vteps;
    VEC(struct prefix) dirty_routes;
    VEC(struct ip46) dirty_vteps;
    VEC(struct prefix) gone_routes;
    VEC(struct path_vtep) gone_vteps;
    VEC(struct carrier) carriers;
    struct overlay_stats stats;
    int64_t window_ns; /* repairs since then */
    unsigned n_repairs;
};

static size_t family_of(const struct ip46 *ip) {
    return ip->family == IP_V6;
}

/* ---- desired state ---- */

static bool is_same_device(const struct overlay_device *a, const struct overlay_device *b) {
    return ip_eq(&a->local, &b->local) && ip_eq(&a->addr, &b->addr) &&
           memcmp(a->mac, b->mac, sizeof(a->mac)) == 0 && a->vni == b->vni && a->port == b->port &&
           a->mtu == b->mtu;
}

void overlay_set_device(struct overlay *o, enum ip_family family, const struct overlay_device *d) {
    struct device *v = &o->dev[family == IP_V6];
    bool is_same = d ? v->is_wanted && is_same_device(&v->d, d) : !v->is_wanted;
    if (is_same) {
        return;
    }
    v->is_wanted = d != NULL;
    v->d = d ? *d : (struct overlay_device){0};
    v->is_dirty = true;
    o->wants_sync = true; /* routes and entries go with a device */
}

void overlay_route(struct overlay *o, const struct path_route *r) {
    struct droute *d = droutes_put(&o->routes, r->dst, NULL);
    *d = (struct droute){.r = *r, .is_dirty = true};
    vec_push(&o->dirty_routes, r->dst);
}

void overlay_route_gone(struct overlay *o, const struct prefix *dst) {
    if (droutes_del(&o->routes, *dst)) {
        vec_push(&o->gone_routes, *dst);
    }
}

void overlay_vtep(struct overlay *o, const struct path_vtep *v) {
    struct dvtep *d = dvteps_put(&o->vteps, v->addr, NULL);
    *d = (struct dvtep){.v = *v, .is_dirty = true};
    vec_push(&o->dirty_vteps, v->addr);
}

void overlay_vtep_gone(struct overlay *o, const struct path_vtep *v) {
    const struct dvtep *d = dvteps_get(&o->vteps, v->addr);
    if (d && memcmp(&d->v, v, sizeof(*v)) == 0) {
        (void)dvteps_del(&o->vteps, v->addr);
    }
    vec_push(&o->gone_vteps, *v);
}

/* ---- what the kernel should have ---- */

/* False: it can't be there now, its device isn't. */
static bool as_route(const struct overlay *o, const struct path_route *p, struct route *out) {
    *out = (struct route){.dst = p->dst, .protocol = OVERLAY_PROTOCOL};
    switch (p->kind) {
    case PATH_TO_NOWHERE:
        out->type = RTN_BLACKHOLE;
        return true;
    case PATH_DIRECT:
        out->via = p->via;
        return true;
    case PATH_BY_VXLAN:
        out->via = p->via;
        out->oif = o->dev[family_of(&p->dst.ip)].index;
        out->is_onlink = true;
        return out->oif != 0;
    }
    return false;
}

static bool is_blackhole(const struct route *r) {
    return r->type == RTN_BLACKHOLE;
}

/* Ours to change? */
static bool is_owned(const struct overlay *o, const struct route *r) {
    if (r->protocol != OVERLAY_PROTOCOL || (r->table && r->table != RT_TABLE_MAIN)) {
        return false;
    }
    bool is_tunnel = r->oif && (r->oif == o->dev[0].index || r->oif == o->dev[1].index);
    return is_blackhole(r) || is_tunnel || !o->has_bgp;
}

static bool is_right(const struct overlay *o, const struct path_route *p, const struct route *r) {
    struct route want;
    bool has_our_metric = r->metric == (p->dst.ip.family == IP_V6 ? 1024U : 0U);
    if (!as_route(o, p, &want) || r->protocol != OVERLAY_PROTOCOL || !has_our_metric) {
        return false;
    }
    if (is_blackhole(&want)) {
        return is_blackhole(r);
    }
    return !is_blackhole(r) && ip_eq(&r->via, &want.via) && (!want.oif || want.oif == r->oif) &&
           !r->is_multipath;
}

/* ---- devices ---- */

static void note_carrier(struct overlay *o, int index) {
    for (size_t i = 0; i < o->carriers.n; i++) {
        if (o->carriers.p[i].index == index) {
            return;
        }
    }
    if (index && index != o->dev[0].index && index != o->dev[1].index) {
        vec_push(&o->carriers, (struct carrier){index, true, 0});
    }
}

static int parent_of(struct overlay *o, const struct ip46 *local, int *index, uint32_t *mtu,
                     struct err *e);

static int report(struct overlay *o, int r, struct err *e) {
    (void)snprintf(o->stats.problem, sizeof(o->stats.problem), "%.250s", e->msg);
    return r;
}

static int delete_device(struct overlay *o, struct device *v, struct err *e) {
    struct vxlan is;
    struct link link;
    int r = vxlan_get(o->nl, v->name, &is, &link, e);
    v->index = 0;
    if (r < 0) {
        return r == ERR_NOT_FOUND || r == ERR_INVALID ? 0 : r; /* somebody else's stays */
    }
    (void)link_del(o->nl, link.index);
    o->stats.writes++;
    return nl_commit(o->nl, e);
}

struct addr_look {
    const struct ip46 *want;
    bool is_there;
    VEC(struct prefix) others;
};

static int on_addr_seen(void *arg, const struct addr *a) {
    struct addr_look *l = arg;
    if (a->net.ip.family == l->want->family && !ip_is_link_local(&a->net.ip)) {
        if (ip_eq(&a->net.ip, l->want) && a->net.len == ip_bits(l->want)) {
            l->is_there = true;
        } else {
            vec_push(&l->others, a->net);
        }
    }
    return 0;
}

static int make_address(struct overlay *o, struct device *v, struct err *e) {
    struct addr_look l = {.want = &v->d.addr};
    int r = addr_dump(o->nl, v->index, on_addr_seen, &l, e);
    for (size_t i = 0; r == 0 && i < l.others.n; i++) {
        (void)addr_del(o->nl, v->index, &l.others.p[i]);
        o->stats.writes++;
    }
    if (r == 0 && !l.is_there) {
        (void)addr_add(o->nl, v->index, &(struct prefix){v->d.addr, (uint8_t)ip_bits(&v->d.addr)});
        o->stats.writes++;
    }
    vec_fini(&l.others);
    return r < 0 ? r : nl_commit(o->nl, e);
}

/* The device as it should be; index is set when it is there. */
static int make_device(struct overlay *o, struct device *v, struct err *e) {
    struct vxlan want = {.vni = v->d.vni, .port = v->d.port, .local = v->d.local}, is;
    struct link link = {0};
    uint32_t parent_mtu = 0, overhead = v->d.local.family == IP_V6 ? 70 : 50;
    (void)snprintf(want.name, sizeof(want.name), "%s", v->name);
    memcpy(want.mac, v->d.mac, 6);
    int r = parent_of(o, &v->d.local, &want.parent, &parent_mtu, e);
    if (r < 0) {
        return r;
    }
    want.mtu = v->d.mtu ? v->d.mtu : parent_mtu > overhead + 1280 ? parent_mtu - overhead : 1280;
    r = vxlan_get(o->nl, v->name, &is, &link, e);
    if (r == ERR_INVALID) {
        return err_wrap(e, r, "remove it: ip link del %s", v->name);
    }
    bool is_other = r == 0 && (is.vni != want.vni || is.port != want.port ||
                               is.parent != want.parent || !ip_eq(&is.local, &want.local));
    if (is_other) {
        (void)link_del(o->nl, link.index);
        o->stats.writes++;
        r = nl_commit(o->nl, e);
        r = r < 0 ? r : ERR_NOT_FOUND;
    }
    if (r == ERR_NOT_FOUND) {
        (void)vxlan_add(o->nl, &want);
        o->stats.writes++;
        r = nl_commit(o->nl, e);
        r = r < 0 ? r : vxlan_get(o->nl, v->name, &is, &link, e);
    }
    if (r < 0) {
        return r;
    }
    v->index = link.index;
    v->mtu = want.mtu;
    bool is_wrong = memcmp(is.mac, want.mac, 6) != 0 || is.mtu != want.mtu;
    if (is_wrong || !(link.flags & IFF_UP)) {
        (void)link_change(o->nl, &(struct link_change){.index = link.index,
                                                       .set_up = true,
                                                       .up = true,
                                                       .mac = is_wrong ? want.mac : NULL,
                                                       .mtu = is_wrong ? want.mtu : 0});
        o->stats.writes++;
        r = nl_commit(o->nl, e);
    }
    return r < 0 ? r : make_address(o, v, e);
}

static int make_devices(struct overlay *o, struct err *e) {
    int first = 0;
    for (size_t i = 0; i < 2; i++) {
        struct device *v = &o->dev[i];
        struct err why = {0};
        int r = v->is_wanted                                ? make_device(o, v, &why)
                : v->is_dirty || v->index || !o->has_synced ? delete_device(o, v, &why)
                                                            : 0;
        v->is_dirty = r < 0;
        if (r < 0 && first == 0) {
            first = err_set(e, r, "%s: %s", v->name, why.msg);
        }
    }
    return first;
}

struct parent_look {
    const struct ip46 *local;
    int index;
};

static int on_parent_addr(void *arg, const struct addr *a) {
    struct parent_look *l = arg;
    if (ip_eq(&a->net.ip, l->local)) {
        l->index = a->index;
    }
    return 0;
}

static int parent_of(struct overlay *o, const struct ip46 *local, int *index, uint32_t *mtu,
                     struct err *e) {
    struct parent_look l = {.local = local};
    struct link link;
    char text[IP_TEXT_MAX];
    int r = addr_dump(o->nl, 0, on_parent_addr, &l, e);
    if (r == 0 && !l.index) {
        return err_set(e, ERR_NOT_FOUND, "the node's address %s is on no interface",
                       ip_text(local, text));
    }
    r = r < 0 ? r : link_get_index(o->nl, l.index, &link, e);
    if (r == 0) {
        *index = l.index;
        *mtu = link.mtu;
        note_carrier(o, l.index);
        for (size_t i = 0; i < o->carriers.n; i++) {
            struct carrier *c = &o->carriers.p[i];
            c->mtu = c->index == l.index ? link.mtu : c->mtu;
        }
    }
    return r;
}

/* ---- writing what changed ---- */

static void put_route(struct overlay *o, struct droute *d) {
    struct route r;
    d->is_dirty = !as_route(o, &d->r, &r);
    if (!d->is_dirty) {
        (void)route_add(o->nl, &r, NLM_F_CREATE | NLM_F_REPLACE);
        o->stats.writes++;
    }
}

static void del_route(struct overlay *o, const struct prefix *dst) {
    (void)route_del(o->nl, &(struct route){.dst = *dst, .protocol = OVERLAY_PROTOCOL});
    o->stats.writes++;
}

static void put_vtep(struct overlay *o, struct dvtep *d) {
    const struct device *v = &o->dev[family_of(&d->v.addr)];
    d->is_dirty = !v->index;
    if (v->index) {
        (void)neigh_set(o->nl, v->index, &d->v.addr, d->v.mac);
        struct fdb f = {.index = v->index, .dst = d->v.node};
        memcpy(f.mac, d->v.mac, 6);
        (void)fdb_set(o->nl, &f);
        o->stats.writes += 2;
    }
}

static void del_vtep(struct overlay *o, const struct path_vtep *p) {
    const struct device *v = &o->dev[family_of(&p->addr)];
    if (!v->index) {
        return; /* gone with its device */
    }
    struct fdb f = {.index = v->index, .dst = p->node};
    memcpy(f.mac, p->mac, 6);
    if (!dvteps_get(&o->vteps, p->addr)) {
        (void)neigh_del(o->nl, v->index, &p->addr);
    }
    (void)fdb_del(o->nl, &f);
    o->stats.writes += 2;
}

/* Sends the batch. What is gone already, or can't be there yet, is no failure of the others. */
static int send_batch(struct overlay *o, bool *is_refused, struct err *e) {
    size_t n = nl_pending(o->nl);
    int r = nl_exchange(o->nl, e);
    for (size_t i = 0; r == 0 && i < n; i++) {
        int code = nl_code(o->nl, i);
        if (code < 0 && code != -ESRCH && code != -ENOENT && code != -ENODEV) {
            *is_refused = true;
            (void)snprintf(o->stats.problem, sizeof(o->stats.problem),
                           "a route was refused: %s%s%s", err_name(code),
                           nl_text(o->nl, i)[0] ? ": " : "", nl_text(o->nl, i));
        }
    }
    return r;
}

static int write_changes(struct overlay *o, struct err *e) {
    bool is_refused = false;
    for (size_t i = 0; i < o->gone_vteps.n; i++) {
        del_vtep(o, &o->gone_vteps.p[i]);
    }
    for (size_t i = 0; i < o->gone_routes.n; i++) {
        if (!droutes_get(&o->routes, o->gone_routes.p[i])) {
            del_route(o, &o->gone_routes.p[i]);
        }
    }
    for (size_t i = 0; i < o->dirty_vteps.n; i++) {
        struct dvtep *d = dvteps_get(&o->vteps, o->dirty_vteps.p[i]);
        if (d && d->is_dirty) {
            put_vtep(o, d);
        }
    }
    for (size_t i = 0; i < o->dirty_routes.n; i++) {
        struct droute *d = droutes_get(&o->routes, o->dirty_routes.p[i]);
        if (d && d->is_dirty) {
            put_route(o, d);
        }
    }
    vec_clear(&o->gone_vteps);
    vec_clear(&o->gone_routes);
    vec_clear(&o->dirty_vteps);
    vec_clear(&o->dirty_routes);
    int r = send_batch(o, &is_refused, e);
    o->wants_sync |= r < 0 || is_refused;
    return r;
}

/* ---- reading and comparing all ---- */

struct stale {
    VEC(struct route) routes;
    VEC(struct fdb) fdb;
    VEC(struct neigh) neigh;
    struct dmacs macs;
    struct overlay *o;
};

static uint64_t mac_key(const uint8_t mac[6], bool is_v6) {
    uint64_t v = is_v6;
    memcpy((char *)&v + 2, mac, 6);
    return v;
}

static int on_route_seen(void *arg, const struct route *r) {
    struct stale *s = arg;
    struct overlay *o = s->o;
    struct droute *d = droutes_get(&o->routes, r->dst);
    if (d && is_right(o, &d->r, r)) {
        d->is_seen = true;
        note_carrier(o, r->oif);
    } else if (is_owned(o, r)) {
        vec_push(&s->routes, *r);
    }
    return 0;
}

static int on_fdb_seen(void *arg, const struct fdb *f) {
    struct stale *s = arg;
    struct dvtep **d = dmacs_get(&s->macs, mac_key(f->mac, f->index == s->o->dev[1].index));
    if (d && ip_eq(&(*d)->v.node, &f->dst)) {
        (*d)->has_fdb = true;
    } else {
        vec_push(&s->fdb, *f);
    }
    return 0;
}

static int on_neigh_seen(void *arg, const struct neigh *n) {
    struct stale *s = arg;
    struct dvtep *d = dvteps_get(&s->o->vteps, n->ip);
    if (d && n->is_permanent && n->has_mac && memcmp(d->v.mac, n->mac, 6) == 0) {
        d->has_neigh = true;
    } else if (n->is_permanent && n->ip.b[0] != 0xff) {
        vec_push(&s->neigh, *n);
    }
    return 0;
}

static int read_entries(struct overlay *o, struct stale *s, struct err *e) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < 2; i++) {
        if (o->dev[i].index) {
            r = fdb_dump(o->nl, o->dev[i].index, on_fdb_seen, s, e);
            r = r < 0 ? r : neigh_dump(o->nl, o->dev[i].index, on_neigh_seen, s, e);
        }
    }
    return r;
}

static void write_differences(struct overlay *o, const struct stale *s) {
    struct droute *d;
    struct dvtep *v;
    for (size_t i = 0; i < s->fdb.n; i++) {
        (void)fdb_del(o->nl, &s->fdb.p[i]);
    }
    for (size_t i = 0; i < s->neigh.n; i++) {
        (void)neigh_del(o->nl, s->neigh.p[i].index, &s->neigh.p[i].ip);
    }
    o->stats.writes += s->fdb.n + s->neigh.n;
    for (size_t i = 0; dvteps_next(&o->vteps, &i, NULL, &v);) {
        if (!v->has_fdb || !v->has_neigh) {
            put_vtep(o, v);
        }
        v->is_dirty &= !v->has_fdb || !v->has_neigh;
    }
    /* Replaced before what is stale goes: a way that changes is never missing. */
    for (size_t i = 0; droutes_next(&o->routes, &i, NULL, &d);) {
        if (!d->is_seen) {
            put_route(o, d);
        }
        d->is_dirty &= !d->is_seen;
    }
    for (size_t i = 0; i < s->routes.n; i++) {
        const struct route *r = &s->routes.p[i];
        const struct droute *w = droutes_get(&o->routes, r->dst);
        struct route want;
        bool is_replaced =
            w && as_route(o, &w->r, &want) && r->metric == (r->dst.ip.family == IP_V6 ? 1024U : 0U);
        if (!is_replaced) {
            (void)route_del(o->nl, r);
            o->stats.writes++;
        }
    }
}

static int sync_all(struct overlay *o, struct err *e) {
    struct stale s = {.o = o};
    struct droute *d;
    struct dvtep *v;
    bool is_refused = false;
    o->stats.problem[0] = '\0';
    int r = make_devices(o, e);
    int devices = r < 0 ? report(o, r, e) : 0; /* routes that need none are made all the same */
    for (size_t i = 0; droutes_next(&o->routes, &i, NULL, &d);) {
        d->is_seen = false;
    }
    for (size_t i = 0; dvteps_next(&o->vteps, &i, NULL, &v);) {
        v->has_fdb = v->has_neigh = false;
        *dmacs_put(&s.macs, mac_key(v->v.mac, v->v.addr.family == IP_V6), NULL) = v;
    }
    r = route_dump(o->nl, &(struct route_filter){.table = RT_TABLE_MAIN}, on_route_seen, &s, e);
    r = r < 0 ? r : read_entries(o, &s, e);
    if (r == 0) {
        write_differences(o, &s);
        r = send_batch(o, &is_refused, e);
    }
    vec_fini(&s.routes);
    vec_fini(&s.fdb);
    vec_fini(&s.neigh);
    dmacs_fini(&s.macs);
    vec_clear(&o->gone_vteps);
    vec_clear(&o->gone_routes);
    vec_clear(&o->dirty_vteps);
    vec_clear(&o->dirty_routes);
    if (r == 0 && devices < 0) {
        return err_set(e, devices, "%s", o->stats.problem);
    }
    if (r == 0 && is_refused) {
        return err_set(e, ERR_RETRY, "%s", o->stats.problem);
    }
    return r;
}

/* A setting of the kernel that is not yet as it must be. */
static int set_sysctl(struct overlay *o, const char *path, const char *want, struct err *e) {
    int r = sysctl_change(path, want);
    o->stats.writes += r != 0;
    return r < 0 ? err_set(e, r, "writing %s to %s: %s", want, path, err_name(r)) : 0;
}

/* Packets of other nodes come in by the uplink: without forwarding they end here. */
static int forward(struct overlay *o, struct err *e) {
    bool has[2] = {false, false};
    struct droute *d;
    char path[128], name[IF_NAMESIZE];
    for (size_t i = 0; droutes_next(&o->routes, &i, NULL, &d);) {
        has[family_of(&d->r.dst.ip)] |= d->r.kind != PATH_TO_NOWHERE;
    }
    int r = has[0] ? set_sysctl(o, "/proc/sys/net/ipv4/ip_forward", "1", e) : 0;
    if (r < 0 || !has[1]) {
        return r;
    }
    /* A router takes no advertisements unless told so: the host must not lose its own routes. */
    for (size_t i = 0; i < o->carriers.n; i++) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64);
        if (!if_indextoname((unsigned)o->carriers.p[i].index, name)) {
            continue;
        }
        (void)snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/accept_ra", name);
        if (file_read(-1, path, &b, 32) == 0 && b.n && b.p[0] == '1') {
            (void)!sysctl_change(path, "2"); /* without it the host's advertised routes expire */
        }
    }
    return set_sysctl(o, "/proc/sys/net/ipv6/conf/all/forwarding", "1", e);
}

static void check_later(struct overlay *o, int64_t ms) {
    if (!o->is_timing) {
        o->is_timing = true;
        loop_timer_start(o->timer, ms, 0);
    }
}

int overlay_flush(struct overlay *o, struct err *e) {
    int r = 0;
    if (o->wants_sync || !o->has_synced) {
        o->wants_sync = false;
        r = sync_all(o, e);
        r = r < 0 ? r : forward(o, e);
        o->has_synced = true;
    } else if (o->dirty_routes.n || o->dirty_vteps.n || o->gone_routes.n || o->gone_vteps.n) {
        r = write_changes(o, e);
        r = r < 0 ? r : forward(o, e);
    }
    if (r < 0 || o->wants_sync) {
        o->wants_sync = true;
        check_later(o, RETRY_MS);
    }
    return r;
}

/* ---- others' changes ---- */

static void on_timer(void *arg) {
    struct overlay *o = arg;
    struct err e = {0};
    uint64_t before = o->stats.writes;
    o->is_timing = false;
    o->wants_sync = true;
    if (overlay_flush(o, &e) < 0) {
        static struct log_limit limit;
        if (log_allow(&limit, 1, 60)) {
            LOG_W("overlay", "not_right", "error=%s", log_quote(str_c(e.msg)));
        }
    }
    if (o->stats.writes != before) {
        o->stats.repairs++;
        LOG_I("overlay", "restored", "messages=%llu",
              (unsigned long long)(o->stats.writes - before));
    }
}

/* Somebody changed what is ours: at once, but no race with a program that does it again and again.
 */
static void disturbed(struct overlay *o) {
    int64_t now = clock_ns();
    if (!o->has_synced) {
        return;
    }
    if (now - o->window_ns > (int64_t)WINDOW_MS * 1000000) {
        o->window_ns = now;
        o->n_repairs = 0;
    }
    check_later(o, o->n_repairs++ < REPAIRS_AT_ONCE ? SETTLE_MS : RETRY_MS);
}

static bool is_own_device(const struct overlay *o, int index) {
    return index && (index == o->dev[0].index || index == o->dev[1].index);
}

/* Has an interface with routes of ours come up or gone down? It takes its routes with it, without a
 * word about each. Or has it another MTU, which ours follow? */
static bool is_carrier(struct overlay *o, int index, unsigned flags, uint32_t mtu) {
    for (size_t i = 0; i < o->carriers.n; i++) {
        struct carrier *c = &o->carriers.p[i];
        if (c->index == index) {
            bool did_change = c->is_up != ((flags & IFF_UP) != 0);
            did_change = did_change || (c->mtu && c->mtu != mtu);
            c->is_up = (flags & IFF_UP) != 0;
            c->mtu = c->mtu ? mtu : 0;
            return did_change;
        }
    }
    return false;
}

static void on_link(void *arg, const struct link *l, bool is_gone) {
    struct overlay *o = arg;
    for (size_t i = 0; i < 2; i++) {
        struct device *v = &o->dev[i];
        bool is_name = strcmp(l->name, v->name) == 0;
        if ((is_gone && l->index == v->index && v->index) ||
            (is_name && v->is_wanted && !is_gone &&
             (l->index != v->index || !(l->flags & IFF_UP) || l->mtu != v->mtu ||
              memcmp(l->mac, v->d.mac, 6) != 0))) {
            disturbed(o);
        }
    }
    if (!is_own_device(o, l->index) && !is_gone && is_carrier(o, l->index, l->flags, l->mtu)) {
        disturbed(o);
    }
}

static void on_addr(void *arg, const struct addr *a, bool is_gone MG_UNUSED) {
    struct overlay *o = arg;
    for (size_t i = 0; i < 2; i++) {
        const struct device *v = &o->dev[i];
        if (v->is_wanted && (a->index == v->index || ip_eq(&a->net.ip, &v->d.local))) {
            disturbed(o);
        }
    }
}

static void on_route(void *arg, const struct route *r, bool is_gone) {
    struct overlay *o = arg;
    const struct droute *d = droutes_get(&o->routes, r->dst);
    if (r->table && r->table != RT_TABLE_MAIN) {
        return;
    }
    bool is_wanted = d && is_right(o, &d->r, r);
    if (is_wanted && !is_gone) {
        note_carrier(o, r->oif);
    }
    if (is_gone ? is_wanted && !d->is_dirty : !is_wanted && is_owned(o, r)) {
        disturbed(o);
    }
}

static void on_neigh(void *arg, const struct neigh *n, bool is_gone) {
    struct overlay *o = arg;
    const struct dvtep *d = is_own_device(o, n->index) ? dvteps_get(&o->vteps, n->ip) : NULL;
    if (d && (is_gone || !n->is_permanent || memcmp(d->v.mac, n->mac, 6) != 0)) {
        disturbed(o);
    }
}

static void on_netconf(void *arg, const struct nl_netconf *c) {
    struct overlay *o = arg;
    for (size_t i = 0; i < o->carriers.n; i++) {
        if (c->index == o->carriers.p[i].index && c->forwarding == 0) {
            disturbed(o);
        }
    }
}

static void on_resync(void *arg) {
    disturbed(arg);
}

struct overlay *overlay_new(struct loop *l, bool has_bgp, struct err *e) {
    static const struct nl_monitor_ops ops = {.on_link = on_link,
                                              .on_addr = on_addr,
                                              .on_route = on_route,
                                              .on_neigh = on_neigh,
                                              .on_netconf = on_netconf,
                                              .on_resync = on_resync};
    struct overlay *o = calloc(1, sizeof(*o));
    mg_assert(o != NULL);
    o->has_bgp = has_bgp;
    o->dev[0].name = "vxlan.calico";
    o->dev[1].name = "vxlan-v6.calico";
    o->timer = loop_timer_new(l, on_timer, o);
    if (nl_open(NL_NETNS_OWN, NETLINK_ROUTE, &o->nl, e) < 0 ||
        nl_monitor_new(l, &ops, o, &o->monitor, e) < 0) {
        overlay_free(o);
        return NULL;
    }
    return o;
}

void overlay_free(struct overlay *o) {
    if (!o) {
        return;
    }
    nl_monitor_free(o->monitor);
    nl_close(o->nl);
    loop_timer_free(o->timer);
    droutes_fini(&o->routes);
    dvteps_fini(&o->vteps);
    vec_fini(&o->dirty_routes);
    vec_fini(&o->dirty_vteps);
    vec_fini(&o->gone_routes);
    vec_fini(&o->gone_vteps);
    vec_fini(&o->carriers);
    free(o);
}

void overlay_stats(const struct overlay *o, struct overlay_stats *out) {
    *out = o->stats;
    out->n_routes = o->routes.n;
    out->n_vteps = o->vteps.n;
}
