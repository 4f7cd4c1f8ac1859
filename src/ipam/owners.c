/* Who uses the addresses of a virtual machine: its handle outlives its pods, so an address of it
 * says which pod has it now (the active owner, "secondary" in a block) and which one had it or is
 * about to (the alternate owner, during a live migration). Nothing but these attributes changes
 * here: the addresses stay the handle's. Source of the rules: libcalico-go/lib/ipam/vmipam. */
#include "ipam/ipam_int.h"

#define ACTIVE "secondary"
#define ALTERNATE "alternateOwnerAttrs"

/* One change of all addresses of a handle. */
struct change {
    struct str handle;
    /* Changes an allocation's attributes (a copy). False: they are right as they are. */
    bool (*apply)(struct change *c, struct jnode *attr, struct arena *a);
    bool is_claim; /* whoever decided about the allocation before must look at it again */
    bool is_alternate;
    const struct ipam_attr *attrs;
    size_t n_attrs;
    struct str ns, pod;
    /* what was found, of one reading */
    struct ipam_exact *held;
    size_t max, n_held, n_owned, n_fits;
};

static bool has_owner(const struct jnode *attr, const char *which) {
    const struct jnode *n = jnode_getc(attr, which);
    return n && n->type == J_MAP && n->n > 0;
}

static bool is_owner(const struct jnode *attr, const char *which, struct str ns, struct str pod) {
    const struct jnode *n = jnode_getc(attr, which);
    return pod.n && str_eq(jnode_str(jnode_getc(n, "pod")), pod) &&
           str_eq(jnode_str(jnode_getc(n, "namespace")), ns);
}

bool ipam_is_owner(const struct jnode *attr, struct str ns, struct str pod) {
    return is_owner(attr, ACTIVE, ns, pod) || is_owner(attr, ALTERNATE, ns, pod);
}

static bool apply_set(struct change *c, struct jnode *attr, struct arena *a) {
    struct jnode *owner = jnode_new(a, J_MAP);
    for (size_t i = 0; i < c->n_attrs; i++) {
        jnode_set(a, owner, arena_dup(a, c->attrs[i].key),
                  jnode_new_str(a, arena_dup(a, c->attrs[i].value)));
    }
    jnode_set(a, attr, c->is_alternate ? STR(ALTERNATE) : STR(ACTIVE), owner);
    return true;
}

static bool apply_clear(struct change *c, struct jnode *attr, struct arena *a) {
    (void)a;
    const char *which = is_owner(attr, ACTIVE, c->ns, c->pod)      ? ACTIVE
                        : is_owner(attr, ALTERNATE, c->ns, c->pod) ? ALTERNATE
                                                                   : NULL;
    return which && jnode_del(attr, str_c(which));
}

/* The one that was active stays known, as the alternate, until its pod is deleted. */
static bool apply_promote(struct change *c, struct jnode *attr, struct arena *a) {
    if (is_owner(attr, ACTIVE, c->ns, c->pod)) {
        c->n_fits++;
        return false;
    }
    if (!is_owner(attr, ALTERNATE, c->ns, c->pod)) {
        return false;
    }
    struct jnode *old = has_owner(attr, ACTIVE) ? jnode_copy(a, jnode_getc(attr, ACTIVE)) : NULL;
    jnode_set(a, attr, STR(ACTIVE), jnode_copy(a, jnode_getc(attr, ALTERNATE)));
    if (old) {
        jnode_set(a, attr, STR(ALTERNATE), old);
    } else {
        (void)jnode_del(attr, STR(ALTERNATE));
    }
    c->n_fits++;
    return true;
}

static int change_once(struct ipam *m, const struct prefix *cidr, struct change *c, struct arena *a,
                       struct err *e) {
    struct stored_block s;
    bool is_changed = false;
    int r = ipam_get_block(m, cidr, a, &s, e);
    if (r < 0) {
        return r == ERR_NOT_FOUND ? 0 : r;
    }
    for (uint32_t i = 0; i < s.b->size; i++) {
        if (s.b->alloc[i] < 0 || !str_eq(block_handle_of(s.b, i), c->handle)) {
            continue;
        }
        struct jnode *attr = jnode_copy(a, s.b->attrs[s.b->alloc[i]]);
        struct ip46 ip;
        if (c->apply(c, attr, a)) {
            block_set_attr(s.b, i, attr);
            s.b->sequence_of[i] = c->is_claim ? s.b->sequence : s.b->sequence_of[i];
            is_changed = true;
        }
        c->n_owned += has_owner(attr, ACTIVE) || has_owner(attr, ALTERNATE);
        if (c->n_held < c->max && prefix_nth(&s.b->cidr, i, &ip)) {
            c->held[c->n_held] = (struct ipam_exact){ip, c->handle, s.b->sequence_of[i]};
        }
        c->n_held++;
    }
    return is_changed ? ipam_put_block(m, &s, a, e) : 0;
}

/* A write that lost is tried again from what is there then, with its counts as they were. */
static int change_block(struct ipam *m, const struct prefix *cidr, struct change *c,
                        struct err *e) {
    const struct change before = *c;
    int r = 0;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        struct arena a = {0};
        *c = before;
        r = change_once(m, cidr, c, &a, e);
        arena_fini(&a);
        if (!ipam_is_race(r)) {
            break;
        }
    }
    return r;
}

static int change_all(struct ipam *m, struct change *c, struct err *e) {
    struct arena a = {0};
    struct store_item it;
    struct jnode *doc = NULL;
    int r = ipam_get_handle(m, c->handle, &a, &it, &doc, e);
    const struct jnode *blocks = jnode_getc(doc, "block");
    jnode_each (n, blocks) {
        struct prefix cidr;
        if (r == 0 && prefix_parse(n->key, &cidr) == 0) {
            r = change_block(m, &cidr, c, e);
        }
    }
    arena_fini(&a);
    if (r == 0 && c->n_held == 0) {
        r = err_set(e, ERR_NOT_FOUND, "handle %.*s holds no address", STR_FMT(c->handle));
    }
    return r;
}

int ipam_owner_set(struct ipam *m, struct str handle, bool is_alternate,
                   const struct ipam_attr *attrs, size_t n_attrs, struct ip46 *out, size_t max,
                   size_t *n_out, struct err *e) {
    struct arena a = {0};
    struct change c = {.handle = handle,
                       .apply = apply_set,
                       .is_claim = true,
                       .is_alternate = is_alternate,
                       .attrs = attrs,
                       .n_attrs = n_attrs,
                       .held = arena_array(&a, struct ipam_exact, max),
                       .max = max};
    int r = change_all(m, &c, e);
    if (r == 0 && c.n_held > max) {
        r = err_set(e, ERR_TOO_BIG, "handle %.*s holds %zu addresses, more than %zu",
                    STR_FMT(handle), c.n_held, max);
    }
    for (size_t i = 0; r == 0 && i < c.n_held; i++) {
        out[i] = c.held[i].ip;
    }
    if (r == 0) {
        *n_out = c.n_held;
    }
    arena_fini(&a);
    return r;
}

int ipam_owner_clear(struct ipam *m, struct str handle, struct str ns, struct str pod,
                     bool *is_owned, struct ipam_exact *held, size_t max, size_t *n_held,
                     struct arena *a, struct err *e) {
    struct change c = {.handle = arena_dup(a, handle),
                       .apply = apply_clear,
                       .ns = ns,
                       .pod = pod,
                       .held = held,
                       .max = max};
    int r = change_all(m, &c, e);
    if (r == 0) {
        *is_owned = c.n_owned > 0;
        *n_held = c.n_held < max ? c.n_held : max;
    }
    return r;
}

int ipam_owner_promote(struct ipam *m, struct str handle, struct str ns, struct str pod,
                       struct err *e) {
    struct change c = {
        .handle = handle, .apply = apply_promote, .is_claim = true, .ns = ns, .pod = pod};
    int r = change_all(m, &c, e);
    if (r == 0 && c.n_fits < c.n_held) {
        r = err_set(e, ERR_INVALID, "pod %.*s/%.*s is no owner of the addresses of handle %.*s",
                    STR_FMT(ns), STR_FMT(pod), STR_FMT(handle));
    }
    return r;
}
