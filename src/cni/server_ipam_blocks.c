/* Which pools a pod's addresses may come from (Calico's rules: enabled, for workloads, automatic,
 * nodeSelector and namespaceSelector match; pools named by configuration or annotation are taken
 * without their selectors), and src/ipam asked for them. Pools, reservations and settings are read
 * from the store once and again when one of them has changed. */
#include "cni/server_ipam.h"

#include "base/clock.h"
#include "cni/server_int.h"
#include "ipam/ipam.h"
#include "model/pool.h"
#include "policy/selector.h"

struct pool {
    struct str name, node_selector, ns_selector;
    struct prefix cidr;
    unsigned block_len;
    bool is_disabled, is_for_workloads, is_automatic;
};

struct cni_pools {
    struct arena arena;
    VEC(struct pool) pools; /* by name */
    VEC(struct prefix) reserved;
    VEC(struct ipam_pool) refusing; /* by nodeSelector, this node */
    struct str_map node_labels;
    struct ipam_settings settings;
    int64_t read_ns;
};

/* The settings may be written as an item of address management, which nobody follows. */
enum { KNOWN_S = 10 };

void cni_pools_forget(struct cni_server *s) {
    if (s->pools) {
        arena_fini(&s->pools->arena);
        vec_fini(&s->pools->pools);
        vec_fini(&s->pools->reserved);
        vec_fini(&s->pools->refusing);
        free(s->pools);
        s->pools = NULL;
    }
}

static bool has(const struct str_list *l, const char *s) {
    for (size_t i = 0; i < l->n; i++) {
        if (str_is(l->p[i], s)) {
            return true;
        }
    }
    return false;
}

static void take_pool(struct cni_pools *c, const struct object *o) {
    const struct ip_pool_spec *p = o->spec;
    if (!p->cidr.ip.family || !p->block_size) {
        return; /* can't be read: as if it weren't there */
    }
    vec_push(&c->pools,
             (struct pool){
                 .name = o->meta.name,
                 .node_selector = p->node_selector,
                 .ns_selector = p->namespace_selector,
                 .cidr = p->cidr,
                 .block_len = p->block_size,
                 .is_disabled = p->disabled,
                 .is_for_workloads = !p->allowed_uses.n || has(&p->allowed_uses, "Workload"),
                 .is_automatic = !p->assignment_mode.n || str_is(p->assignment_mode, "Automatic"),
             });
}

static int take_item(void *arg, const struct store_item *it) {
    struct cni_pools *c = arg;
    struct arena *a = &c->arena;
    struct object o = {0};
    struct model_errors errs = {.a = a};
    struct jnode *doc = NULL;
    if (json_parse(arena_dup(a, it->value), &json_limits_default, a, &doc, NULL) < 0) {
        return 0; /* as if it weren't there; whoever lists resources says so */
    }
    (void)!object_read(doc, MODEL_STORE, STR_NULL, a, &o, &errs); /* decoded as far as it goes */
    if (!o.kind || !o.spec) {
        return 0;
    }
    if (o.kind->id == K_IP_POOL) {
        take_pool(c, &o);
    } else if (o.kind->id == K_IP_RESERVATION) {
        const struct ip_reservation_spec *r = o.spec;
        for (size_t i = 0; i < r->reserved_cidrs.n; i++) {
            vec_push(&c->reserved, r->reserved_cidrs.p[i]);
        }
    }
    return 0;
}

static int list_kind(struct cni_server *s, enum kind_id id, struct cni_pools *c, struct err *e) {
    struct str prefix = arena_printf(&c->arena, "%s/", kind_store_name(&model_kinds[id]));
    uint64_t revision;
    return store_list(s->store, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, &revision,
                      take_item, c, e);
}

/* Selectors that can't be read match nothing. */
static bool matches(struct str text, const struct str_map *labels, struct arena *a) {
    const struct selector *sel = NULL;
    if (!text.n) {
        return true;
    }
    if (selector_parse(text, SELECTOR_MAX_BYTES, a, &sel, NULL) < 0) {
        return false;
    }
    if (!labels || !labels->n) {
        return selector_match(sel, NULL, 0);
    }
    struct label *l = arena_array(a, struct label, labels->n);
    for (size_t i = 0; i < labels->n; i++) {
        l[i] = (struct label){labels->p[i].key, labels->p[i].value};
    }
    return selector_match(sel, l, labels->n);
}

static struct ipam_pool as_ipam(const struct pool *p) {
    return (struct ipam_pool){.name = p->name, .cidr = p->cidr, .block_len = p->block_len};
}

/* Pools and settings, read if they aren't known. */
static int know(struct cni_server *s, struct err *e) {
    static const enum kind_id kinds[] = {K_IP_POOL, K_IP_RESERVATION};
    struct object node = {0};
    if (atomic_exchange(&s->are_pools_stale, false)) {
        cni_pools_forget(s);
    }
    if (s->pools && clock_ns() - s->pools->read_ns > KNOWN_S * 1000000000LL) {
        cni_pools_forget(s);
    }
    if (s->pools) {
        return 0;
    }
    s->pools = calloc(1, sizeof(*s->pools));
    mg_assert(s->pools != NULL);
    struct cni_pools *c = s->pools;
    int r = 0;
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(kinds); i++) {
        r = list_kind(s, kinds[i], c, e);
    }
    r = r == 0 ? ipam_settings_read(s->store, &c->settings, e) : r;
    if (r < 0) {
        cni_pools_forget(s);
        return r;
    }
    c->read_ns = clock_ns();
    ipam_set_cooldown(s->ipam, c->settings.cooldown_s);
    /* Calico's Node, else Kubernetes'. */
    if (cni_read_object(s, K_NODE, STR_NULL, s->node, &c->arena, &node, NULL) == 0 ||
        cni_read_object(s, K_NODE_K8S, STR_NULL, s->node, &c->arena, &node, NULL) == 0) {
        c->node_labels = node.meta.labels;
    }
    for (size_t i = 0; i < c->pools.n && node.doc; i++) {
        if (!matches(c->pools.p[i].node_selector, &c->node_labels, &c->arena)) {
            vec_push(&c->refusing, as_ipam(&c->pools.p[i]));
        }
    }
    return 0;
}

static struct ipam_options options(const struct cni_pools *c, const struct cni_ipam_want *w,
                                   const struct ipam_pool *pools, size_t n) {
    return (struct ipam_options){.refusing = c->refusing.p,
                                 .n_refusing = c->refusing.n,
                                 .pools = pools,
                                 .n_pools = n,
                                 .reserved = c->reserved.p,
                                 .n_reserved = c->reserved.n,
                                 .strict_affinity = c->settings.strict_affinity,
                                 .no_new_blocks = !c->settings.auto_blocks,
                                 .max_blocks = c->settings.max_blocks,
                                 .max_held = w->max_held};
}

/* A pool by name or CIDR, in the caller's order; selectors don't count then. */
static int named_pool(const struct cni_pools *c, struct str want, enum ip_family family,
                      struct ipam_pool *out, struct err *e) {
    struct prefix cidr = {0};
    bool is_cidr = prefix_parse(want, &cidr) == 0;
    for (size_t i = 0; i < c->pools.n; i++) {
        const struct pool *p = &c->pools.p[i];
        if (!str_eq(p->name, want) && !(is_cidr && prefix_eq(&p->cidr, &cidr))) {
            continue;
        }
        if (p->is_disabled || !p->is_for_workloads) {
            return err_set(e, ERR_INVALID, "pool %s %s", log_quote(want),
                           p->is_disabled ? "is disabled" : "is not for workloads (allowedUses)");
        }
        if (p->cidr.ip.family != family) {
            return err_set(e, ERR_INVALID, "pool %s is not of IPv%d", log_quote(want), family);
        }
        *out = as_ipam(p);
        return 0;
    }
    return err_set(e, ERR_INVALID, "there is no pool %s", log_quote(want));
}

static int choose(struct cni_server *s, const struct cni_ipam_want *w, enum ip_family family,
                  struct arena *a, struct ipam_pool **out, size_t *n, struct err *e) {
    const struct cni_pools *c = s->pools;
    const struct str_list *named = family == IP_V4 ? &w->pools_v4 : &w->pools_v6;
    size_t n_refused = 0;
    *n = 0;
    *out = arena_array(a, struct ipam_pool, c->pools.n + named->n);
    for (size_t i = 0; i < named->n; i++) {
        int r = named_pool(c, named->p[i], family, &(*out)[*n], e);
        if (r < 0) {
            return r;
        }
        ++*n;
    }
    if (named->n) {
        return 0;
    }
    for (size_t i = 0; i < c->pools.n; i++) {
        const struct pool *p = &c->pools.p[i];
        if (p->cidr.ip.family != family || p->is_disabled || !p->is_for_workloads ||
            !p->is_automatic) {
            continue;
        }
        if (!matches(p->node_selector, &c->node_labels, a) ||
            !matches(p->ns_selector, w->ns_labels, a)) {
            n_refused++;
            continue;
        }
        (*out)[(*n)++] = as_ipam(p);
    }
    if (*n) {
        return 0;
    }
    return n_refused
               ? err_set(e, ERR_NO_SPACE,
                         "no IPv%d pool selects this node and namespace (%zu refuse by "
                         "nodeSelector or namespaceSelector)",
                         family, n_refused)
               : err_set(e, ERR_NO_SPACE, "there is no enabled IPv%d pool for workloads", family);
}

static uint8_t block_len(const struct cni_pools *c, const struct ip46 *ip) {
    for (size_t i = 0; i < c->pools.n; i++) {
        if (prefix_has_ip(&c->pools.p[i].cidr, ip)) {
            return (uint8_t)c->pools.p[i].block_len;
        }
    }
    return (uint8_t)ip_bits(ip);
}

static int assign_exact(struct cni_server *s, const struct cni_ipam_want *w,
                        const struct ipam_attr *attrs, size_t n_attrs, struct arena *a,
                        struct err *e) {
    const struct cni_pools *c = s->pools;
    struct ipam_pool *pools = arena_array(a, struct ipam_pool, c->pools.n);
    size_t n = 0;
    for (size_t i = 0; i < c->pools.n; i++) {
        if (!c->pools.p[i].is_disabled && c->pools.p[i].is_for_workloads) {
            pools[n++] = as_ipam(&c->pools.p[i]);
        }
    }
    struct ipam_options o = options(c, w, pools, n);
    for (size_t i = 0; i < w->n_ips; i++) {
        int r = ipam_assign_ip(s->ipam, &o, &w->ips[i], w->handle, attrs, n_attrs, e);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* What is noted with the addresses, in the arena. */
static const struct ipam_attr *attrs_of(const struct cni_server *s, const struct cni_ipam_want *w,
                                        struct arena *a, size_t *n) {
    char now[32];
    struct ipam_attr *v = arena_array(a, struct ipam_attr, 4 + w->attrs.n);
    *n = 0;
    v[(*n)++] = (struct ipam_attr){STR("node"), s->node};
    v[(*n)++] = (struct ipam_attr){STR("timestamp"),
                                   arena_dup(a, str_c(clock_rfc3339(clock_wall_ns(), now)))};
    if (w->ns.n && w->pod.n) {
        v[(*n)++] = (struct ipam_attr){STR("namespace"), w->ns};
        v[(*n)++] = (struct ipam_attr){STR("pod"), w->pod};
    }
    for (size_t i = 0; i < w->attrs.n; i++) {
        v[(*n)++] = (struct ipam_attr){w->attrs.p[i].key, w->attrs.p[i].value};
    }
    return v;
}

static int assign_all(struct cni_server *s, const struct cni_ipam_want *w, struct arena *a,
                      struct ip46 *ips, size_t *n, struct err *e) {
    size_t n_attrs = 0;
    const struct ipam_attr *attrs = attrs_of(s, w, a, &n_attrs);
    if (w->n_ips) {
        memcpy(ips, w->ips, w->n_ips * sizeof(*ips));
        *n = w->n_ips;
        return assign_exact(s, w, attrs, n_attrs, a, e);
    }
    for (int i = 0; i < 2; i++) {
        enum ip_family family = i == 0 ? IP_V4 : IP_V6;
        unsigned count = i == 0 ? w->n_v4 : w->n_v6;
        struct ipam_pool *pools = NULL;
        size_t n_pools = 0;
        if (!count) {
            continue;
        }
        int r = choose(s, w, family, a, &pools, &n_pools, e);
        if (r == 0) {
            struct ipam_options o = options(s->pools, w, pools, n_pools);
            r = ipam_assign_auto(s->ipam, &o, family, count, w->handle, attrs, n_attrs, ips + *n,
                                 e);
        }
        if (r < 0) {
            return r;
        }
        *n += count;
    }
    return 0;
}

int cni_ipam_assign(struct cni_server *s, const struct cni_ipam_want *w, struct prefix *out,
                    size_t max, size_t *n, struct err *e) {
    struct ip46 ips[CNI_MAX_IPS];
    struct arena a = {0};
    size_t n_ips = 0;
    if (w->n_ips > max || w->n_v4 + w->n_v6 > max || max > CNI_MAX_IPS) {
        return err_set(e, ERR_TOO_BIG, "more than %zu addresses", max);
    }
    int r = know(s, e);
    if (r == 0) {
        r = assign_all(s, w, &a, ips, &n_ips, e);
    }
    for (size_t i = 0; r == 0 && i < n_ips; i++) {
        out[i] = (struct prefix){ips[i], block_len(s->pools, &ips[i])};
    }
    if (r == 0) {
        *n = n_ips;
    }
    arena_fini(&a);
    return r;
}

int cni_ipam_reuse(struct cni_server *s, const struct cni_ipam_want *w, bool is_alternate,
                   struct prefix *out, size_t max, size_t *n, struct err *e) {
    struct ip46 ips[CNI_MAX_IPS];
    struct arena a = {0};
    size_t n_attrs = 0, n_ips = 0;
    const struct ipam_attr *attrs = attrs_of(s, w, &a, &n_attrs);
    int r = ipam_owner_set(s->ipam, w->handle, is_alternate, attrs, n_attrs, ips,
                           max < CNI_MAX_IPS ? max : CNI_MAX_IPS, &n_ips, e);
    for (size_t i = 0; r == 0 && i < n_ips; i++) {
        out[i] = (struct prefix){ips[i], (uint8_t)ip_bits(&ips[i])};
    }
    if (r == 0) {
        *n = n_ips;
    }
    arena_fini(&a);
    return r;
}

int cni_ipam_persists(struct cni_server *s, bool *out, struct err *e) {
    struct ipam_settings v;
    int r = ipam_settings_read(s->store, &v, e);
    if (r == 0) {
        *out = v.vm_persistence;
    }
    return r;
}

int cni_ipam_release(struct cni_server *s, struct str handle, struct err *e) {
    struct ip46 ips[CNI_MAX_IPS];
    size_t n = 0;
    int r = ipam_release_by_handle(s->ipam, handle, ips, CNI_MAX_IPS, &n, e);
    return r == ERR_NOT_FOUND ? 0 : r;
}

int cni_ipam_held(struct cni_server *s, struct str handle, struct ip46 *out, size_t max, size_t *n,
                  struct err *e) {
    return ipam_ips_by_handle(s->ipam, handle, out, max, n, e);
}

int cni_ipam_ready(struct cni_server *s, struct err *e) {
    int r = know(s, e);
    for (size_t i = 0; r == 0 && i < s->pools->pools.n; i++) {
        if (!s->pools->pools.p[i].is_disabled && s->pools->pools.p[i].is_for_workloads) {
            return 0;
        }
    }
    return r < 0 ? r : err_set(e, ERR_NO_SPACE, "there is no enabled pool for workloads");
}
