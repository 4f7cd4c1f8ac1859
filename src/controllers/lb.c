#include "controllers/lb.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "controllers/objects.h"
#include "ipam/ipam.h"
#include "model/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define NOTE_IPS "projectcalico.org/loadBalancerIPs"
#define CLASS "calico"
static const char *const NOTE_POOLS[2] = {"projectcalico.org/ipv4pools",
                                          "projectcalico.org/ipv6pools"};

enum { LIST_MAX = 64 };

/* ---- what is asked for ---- */

struct str lb_handle(struct str name, struct str ns, struct str uid, struct arena *a) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    uint8_t sum[32];
    char text[64], kept[64];
    size_t n = 0;
    buf_printf(&b, "%.*s-%.*s-%.*s", STR_FMT(name), STR_FMT(ns), STR_FMT(uid));
    for (size_t i = 0; i < b.n; i++) {
        b.p[i] = (char)(b.p[i] >= 'A' && b.p[i] <= 'Z' ? b.p[i] | 32 : b.p[i]);
    }
    sha256(b.p ? b.p : "", b.n, sum);
    size_t len = base64url_encode(sum, sizeof(sum), text);
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '-' && text[i] != '_') {
            kept[n++] = text[i];
        }
    }
    return arena_printf(a, "lb-%.*s", (int)n, kept);
}

/* A JSON list of texts in an annotation. */
static int read_list(const struct jnode *notes, const char *key, struct arena *a,
                     struct str_list *out, struct err *e) {
    struct str text = jnode_str(jnode_getc(notes, key));
    struct jnode *list = NULL;
    *out = (struct str_list){.p = NULL};
    if (!text.p) {
        return 0;
    }
    if (json_parse(text, &json_limits_default, a, &list, e) < 0 || list->type != J_LIST ||
        list->n > LIST_MAX) {
        return err_set(e, ERR_INVALID,
                       "annotation %s: found %.*s, allowed is a JSON list of texts, as "
                       "[\"one\",\"two\"]",
                       key, (int)(text.n > 100 ? 100 : text.n), text.p);
    }
    out->p = arena_array(a, struct str, list->n);
    out->set = true;
    jnode_each (x, list) {
        if (x->type != J_STR) {
            return err_set(e, ERR_INVALID, "annotation %s: allowed are texts only", key);
        }
        out->p[out->n++] = x->s;
    }
    return 0;
}

static int read_ips(const struct jnode *notes, struct arena *a, struct lb_wish *w, struct err *e) {
    struct str_list l;
    int r = read_list(notes, NOTE_IPS, a, &l, e);
    for (size_t i = 0; i < l.n && r == 0; i++) {
        struct ip46 ip;
        if (ip_parse(l.p[i], &ip) < 0) {
            r = err_set(e, ERR_INVALID,
                        "annotation " NOTE_IPS ": found %.*s, allowed are addresses",
                        STR_FMT(l.p[i]));
        } else if (w->n_ips == 2 || (w->n_ips == 1 && w->ips[0].family == ip.family)) {
            r = err_set(e, ERR_INVALID,
                        "annotation " NOTE_IPS ": allowed are one IPv4 and one IPv6 address");
        } else {
            w->ips[w->n_ips++] = ip;
        }
    }
    return r;
}

int lb_read(const struct jnode *service, bool assigns_all, struct arena *a, struct lb_wish *out,
            struct err *e) {
    const struct jnode *notes = jnode_path(service, "metadata.annotations");
    struct str class = jnode_str(jnode_path(service, "spec.loadBalancerClass"));
    bool is_lb = str_is(jnode_str(jnode_path(service, "spec.type")), "LoadBalancer");
    bool is_asked = jnode_str(jnode_getc(notes, NOTE_IPS)).n ||
                    jnode_str(jnode_getc(notes, NOTE_POOLS[0])).n ||
                    jnode_str(jnode_getc(notes, NOTE_POOLS[1])).n;
    *out = (struct lb_wish){
        .is_managed = is_lb && (class.p ? str_is(class, CLASS) : assigns_all || is_asked)};
    if (!out->is_managed) {
        return 0;
    }
    const struct jnode *families = jnode_path(service, "spec.ipFamilies");
    jnode_each (f, families) {
        out->wants[0] = out->wants[0] || str_is(jnode_str(f), "IPv4");
        out->wants[1] = out->wants[1] || str_is(jnode_str(f), "IPv6");
    }
    out->wants[0] = out->wants[0] || !out->wants[1]; /* none given: as Kubernetes began */
    int r = read_ips(notes, a, out, e);
    for (size_t i = 0; i < 2 && r == 0; i++) {
        r = read_list(notes, NOTE_POOLS[i], a, &out->pools[i], e);
        out->has_pools = out->has_pools || out->pools[i].set;
    }
    return r;
}

/* ---- pools ---- */

struct lb_pool {
    struct ipam_pool pool;
    bool is_automatic;
};
struct lb_pools {
    struct arena *a;
    VEC(struct lb_pool) pools;
    VEC(struct prefix) reserved;
};

static struct jnode *parse_item(const struct store_item *it, struct arena *a) {
    struct jnode *doc = NULL;
    struct err ignored; /* what can't be read gives no addresses */
    struct str text = arena_dup(a, it->value);
    return json_parse(text, &json_limits_default, a, &doc, &ignored) == 0 ? doc : NULL;
}

static int add_pool(void *arg, const struct store_item *it) {
    struct lb_pools *p = arg;
    struct jnode *doc = parse_item(it, p->a);
    struct model_errors errs = {.a = p->a};
    struct object o = {.doc = doc};
    if (!doc || object_read(doc, MODEL_STORE, STR_NULL, p->a, &o, &errs) < 0 || !o.spec) {
        return 0;
    }
    const struct ip_pool_spec *s = o.spec;
    bool is_for_us = false;
    for (size_t i = 0; i < s->allowed_uses.n; i++) {
        is_for_us = is_for_us || str_is(s->allowed_uses.p[i], "LoadBalancer");
    }
    if (is_for_us && !s->disabled && !o.meta.deletion_timestamp.n) {
        vec_push(&p->pools, (struct lb_pool){{o.meta.name, s->cidr, s->block_size},
                                             !str_is(s->assignment_mode, "Manual")});
    }
    return 0;
}

static int add_reservation(void *arg, const struct store_item *it) {
    struct lb_pools *p = arg;
    const struct jnode *cidrs = jnode_path(parse_item(it, p->a), "spec.reservedCIDRs");
    jnode_each (c, cidrs) {
        struct prefix x;
        if (prefix_parse(jnode_str(c), &x) == 0) {
            vec_push(&p->reserved, prefix_mask(x));
        }
    }
    return 0;
}

static int read_pools(struct store *s, struct lb_pools *p, struct err *e) {
    struct store_key pools = {STR(STORE_SPACE_RESOURCES),
                              arena_printf(p->a, "%s/", kind_store_name(&model_kinds[K_IP_POOL]))};
    struct store_key reservations = {
        STR(STORE_SPACE_RESOURCES),
        arena_printf(p->a, "%s/", kind_store_name(&model_kinds[K_IP_RESERVATION]))};
    int r = store_list(s, pools, NULL, add_pool, p, e);
    return r == 0 ? store_list(s, reservations, NULL, add_reservation, p, e) : r;
}

/* Is the pool one of those that the annotation of its family names? */
static bool is_named(const struct lb_wish *w, const struct ipam_pool *p) {
    const struct str_list *l = &w->pools[p->cidr.ip.family == IP_V6];
    for (size_t i = 0; i < l->n; i++) {
        struct prefix x;
        if (str_eq(l->p[i], p->name) ||
            (prefix_parse(l->p[i], &x) == 0 && prefix_eq(&x, &p->cidr))) {
            return true;
        }
    }
    return false;
}

/* May an address of this pool be the Service's? is_new: be given to it. */
static bool is_allowed(const struct lb_wish *w, const struct lb_pool *p) {
    return w->pools[p->pool.cidr.ip.family == IP_V6].set ? is_named(w, &p->pool)
                                                         : p->is_automatic && !w->has_pools;
}

static const struct lb_pool *pool_with(const struct lb_pools *p, const struct ip46 *ip) {
    for (size_t i = 0; i < p->pools.n; i++) {
        const struct prefix *c = &p->pools.p[i].pool.cidr;
        if (c->ip.family == ip->family && prefix_has_ip(c, ip)) {
            return &p->pools.p[i];
        }
    }
    return NULL;
}

/* ---- doing it ---- */

struct lb {
    struct store *source, *target;
    struct ipam *m;
    struct arena *a;
    struct str ns, name, handle;
    struct lb_wish wish;
    struct lb_pools pools;
    struct ip46 has[LIST_MAX];
    size_t n_has;
    struct err *e;
};

static bool is_wished(const struct lb *x, const struct ip46 *ip) {
    if (x->wish.n_ips) {
        return ip_eq(&x->wish.ips[0], ip) || (x->wish.n_ips == 2 && ip_eq(&x->wish.ips[1], ip));
    }
    const struct lb_pool *p = pool_with(&x->pools, ip);
    /* One whose pool is disabled or gone stays: taking it away would cut the Service off. */
    return !p ? !x->wish.has_pools : is_allowed(&x->wish, p);
}

static bool has_family(const struct lb *x, size_t k) {
    for (size_t i = 0; i < x->n_has; i++) {
        if ((x->has[i].family == IP_V6) == (k == 1)) {
            return true;
        }
    }
    return false;
}

/* Gives back what the Service has and doesn't want, so many as there are of a family but one. */
static int give_back(struct lb *x) {
    size_t n = 0;
    bool has[2] = {false, false};
    int r = 0;
    for (size_t i = 0; i < x->n_has && r == 0; i++) {
        size_t k = x->has[i].family == IP_V6;
        if (is_wished(x, &x->has[i]) && !has[k] && (x->wish.n_ips || x->wish.wants[k])) {
            has[k] = true;
            x->has[n++] = x->has[i];
        } else {
            r = ipam_release_ips(x->m, &x->has[i], 1, x->handle, NULL, x->e);
        }
    }
    x->n_has = n;
    return r;
}

static int assign(struct lb *x, const struct ip46 *exact, size_t family) {
    char stamp[64], seconds[32];
    int64_t now = clock_wall_ns();
    time_t sec = (time_t)(now / 1000000000);
    struct tm tm;
    (void)strftime(seconds, sizeof(seconds), "%Y-%m-%d %H:%M:%S", gmtime_r(&sec, &tm));
    snprintf(stamp, sizeof(stamp), "%s.%09lld +0000 UTC", seconds, (long long)(now % 1000000000));
    const struct ipam_attr attrs[] = {{STR("namespace"), x->ns},
                                      {STR("service"), x->name},
                                      {STR("timestamp"), str_c(stamp)},
                                      {STR("type"), STR("LoadBalancer")}};
    VEC(struct ipam_pool) pools = {0};
    for (size_t i = 0; i < x->pools.pools.n; i++) {
        const struct lb_pool *p = &x->pools.pools.p[i];
        if (exact || is_allowed(&x->wish, p)) {
            vec_push(&pools, p->pool);
        }
    }
    struct ipam_options o = {.pools = pools.p,
                             .n_pools = pools.n,
                             .reserved = x->pools.reserved.p,
                             .n_reserved = x->pools.reserved.n,
                             .strict_affinity = true,
                             .max_blocks = 1U << 20};
    struct ip46 *out = &x->has[x->n_has];
    int r;
    if (exact) {
        *out = *exact;
        r = ipam_assign_ip(x->m, &o, exact, x->handle, attrs, ARRAY_LEN(attrs), x->e);
    } else {
        r = ipam_assign_auto(x->m, &o, family ? IP_V6 : IP_V4, 1, x->handle, attrs,
                             ARRAY_LEN(attrs), out, x->e);
    }
    x->n_has += r == 0;
    vec_fini(&pools);
    return r;
}

static bool has_ip(const struct lb *x, const struct ip46 *ip) {
    for (size_t i = 0; i < x->n_has; i++) {
        if (ip_eq(&x->has[i], ip)) {
            return true;
        }
    }
    return false;
}

/* Takes what is missing. A failure of one family doesn't keep the other from the Service. */
static int take_missing(struct lb *x) {
    int r = 0;
    struct err first = {.code = 0};
    for (size_t i = 0; i < x->wish.n_ips; i++) {
        if (!has_ip(x, &x->wish.ips[i]) && assign(x, &x->wish.ips[i], 0) < 0 && !first.code) {
            first = *x->e;
        }
    }
    for (size_t k = 0; k < 2 && x->wish.n_ips == 0; k++) {
        if (x->wish.wants[k] && !has_family(x, k) && assign(x, NULL, k) < 0 && !first.code) {
            first = *x->e;
        }
    }
    if (first.code) {
        r = err_set(x->e, first.code, "%s", first.msg);
    }
    return r;
}

static int ip_qcmp(const void *a, const void *b) {
    return ip_cmp(a, b);
}

/* The list that the status should have; NULL: it has it. */
static struct jnode *new_ingress(const struct lb *x, const struct jnode *service,
                                 const struct ip46 *taken, size_t n_taken) {
    const struct jnode *old = jnode_path(service, "status.loadBalancer.ingress");
    struct jnode *list = jnode_new(x->a, J_LIST);
    char text[IP_TEXT_MAX];
    bool has_other = false;
    size_t n_found = 0;
    jnode_each (i, old) {
        struct ip46 ip;
        bool is_ip = ip_parse(jnode_str(jnode_getc(i, "ip")), &ip) == 0;
        bool is_taken = false;
        for (size_t k = 0; is_ip && k < n_taken; k++) {
            is_taken = is_taken || ip_eq(&taken[k], &ip);
        }
        bool is_ours = is_ip && has_ip(x, &ip);
        n_found += is_ours;
        has_other = has_other || (x->wish.is_managed ? !is_ours : is_taken);
        if (!x->wish.is_managed && !is_taken) {
            jnode_append(list, jnode_copy(x->a, i));
        }
    }
    if (!has_other && n_found == x->n_has) {
        return NULL;
    }
    for (size_t i = 0; i < x->n_has; i++) {
        struct jnode *one = jnode_new(x->a, J_MAP);
        jnode_set(x->a, one, STR("ip"),
                  jnode_new_str(x->a, arena_dup(x->a, str_c(ip_text(&x->has[i], text)))));
        jnode_append(list, one);
    }
    return list;
}

static struct jnode *child(struct jnode *map, const char *key, struct arena *a) {
    struct jnode *n = jnode_getc(map, key);
    if (!n || n->type != J_MAP) {
        n = jnode_new(a, J_MAP);
        jnode_set(a, map, str_c(key), n);
    }
    return n;
}

static int write_status(struct lb *x, const struct stored *svc, const struct ip46 *taken,
                        size_t n_taken) {
    qsort(x->has, x->n_has, sizeof(*x->has), ip_qcmp);
    struct jnode *ingress = new_ingress(x, svc->doc, taken, n_taken);
    if (!ingress) {
        return 0;
    }
    struct jnode *status = child(child(svc->doc, "status", x->a), "loadBalancer", x->a);
    if (ingress->n) {
        jnode_set(x->a, status, STR("ingress"), ingress);
    } else {
        (void)jnode_del(status, STR("ingress"));
    }
    return stored_put(x->source, K_SERVICE, x->ns, x->name, svc->doc, svc->revision, x->e);
}

/* Handles of this name that are not the Service's as it is now. */
static bool is_other(const struct lb *x, struct str handle) {
    return !x->wish.is_managed || !str_eq(handle, x->handle);
}

static int release_others(struct lb *x, const struct str *held, size_t n_held) {
    int r = 0;
    for (size_t i = 0; i < n_held && r == 0; i++) {
        struct ip46 ips[LIST_MAX];
        size_t n;
        r = is_other(x, held[i]) ? ipam_release_by_handle(x->m, held[i], ips, LIST_MAX, &n, x->e)
                                 : 0;
        r = r == ERR_NOT_FOUND ? 0 : r;
    }
    return r;
}

/* Before they are released the status forgets them: a crash in between leaves them in the books,
 * where the next try finds them. */
static int forget_others(struct lb *x, const struct stored *svc, const struct str *held,
                         size_t n_held) {
    struct ip46 ips[LIST_MAX];
    size_t n = 0;
    for (size_t i = 0; i < n_held && n < LIST_MAX; i++) {
        size_t got = 0;
        int r = ipam_ips_by_handle(x->m, held[i], ips + n, LIST_MAX - n, &got, x->e);
        if (r < 0 && r != ERR_NOT_FOUND) {
            return r;
        }
        n += got;
    }
    return n ? write_status(x, svc, ips, n) : 0;
}

static int sync_managed(struct lb *x, const struct stored *svc) {
    int r = read_pools(x->target, &x->pools, x->e);
    if (r < 0 || x->pools.pools.n == 0) {
        return r;
    }
    r = ipam_ips_by_handle(x->m, x->handle, x->has, LIST_MAX - 2, &x->n_has, x->e);
    r = r == ERR_NOT_FOUND ? 0 : r;
    r = r == 0 ? give_back(x) : r;
    if (r < 0) {
        return r;
    }
    int missing = take_missing(x);
    struct err why = *x->e;
    r = write_status(x, svc, NULL, 0);
    return r < 0 ? r : missing < 0 ? err_set(x->e, missing, "%s", why.msg) : 0;
}

static int sync_once(struct lb *x, bool assigns_all, const struct str *held, size_t n_held) {
    struct stored svc;
    int r = stored_get(x->source, K_SERVICE, x->ns, x->name, x->a, &svc, x->e);
    if (r < 0) {
        return r;
    }
    int read = svc.doc ? lb_read(svc.doc, assigns_all, x->a, &x->wish, x->e) : 0;
    struct str uid = jnode_str(jnode_path(svc.doc, "metadata.uid"));
    x->handle = lb_handle(x->name, x->ns, uid.p ? uid : STR(""), x->a);
    if (read < 0) {
        /* What it has stays; what it asks for can't be read, and trying again would not help. */
        LOG_W("controllers", "service_invalid", "service=%s error=%s", log_quote(x->name),
              log_quote(str_c(x->e->msg)));
    }
    r = svc.doc && !x->wish.is_managed ? forget_others(x, &svc, held, n_held) : 0;
    r = r == 0 ? release_others(x, held, n_held) : r;
    return r == 0 && svc.doc && x->wish.is_managed && read == 0 ? sync_managed(x, &svc) : r;
}

int lb_sync(struct store *source, struct store *target, struct str ns, struct str name,
            bool assigns_all, const struct str *held, size_t n_held, struct err *e) {
    struct arena a = {0};
    struct err own = {.code = 0};
    struct lb x = {.source = source,
                   .target = target,
                   .m = ipam_new_virtual(target, STR("load-balancer")),
                   .a = &a,
                   .ns = ns,
                   .name = name,
                   .pools = {.a = &a},
                   .e = e ? e : &own};
    int r = ipam_settings_heed(x.m, x.e);
    r = r == 0 ? sync_once(&x, assigns_all, held, n_held) : r;
    vec_fini(&x.pools.pools);
    vec_fini(&x.pools.reserved);
    ipam_free(x.m);
    arena_fini(&a);
    return r;
}
