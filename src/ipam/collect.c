/* Collecting what is left over: allocations that nobody uses, blocks without one, nodes that are
 * gone. Who decides that is the caller; here each step is a compare-and-swap, and what has changed
 * since the decision is left alone. */
#include "ipam/ipam_int.h"

#include "base/vec.h"

/* Gives up ordinals of one block as they are asked for. */
static int release_once(struct ipam *m, const struct prefix *cidr, const struct ipam_exact *v,
                        size_t n, struct arena *a, size_t *n_freed, struct err *e) {
    struct stored_block s;
    int r = ipam_get_block(m, cidr, a, &s, e);
    *n_freed = 0;
    if (r < 0) {
        return r == ERR_NOT_FOUND ? 0 : r;
    }
    VEC(struct str) handles = {0};
    for (size_t i = 0; i < n; i++) {
        if (!prefix_has_ip(cidr, &v[i].ip) || v[i].ip.family != cidr->ip.family) {
            continue;
        }
        uint32_t ordinal = (uint32_t)prefix_offset(cidr, &v[i].ip);
        if (s.b->alloc[ordinal] >= 0 && s.b->sequence_of[ordinal] == v[i].sequence &&
            str_eq(block_handle_of(s.b, ordinal), v[i].handle)) {
            ipam_give(m, s.b, ordinal, a);
            vec_push(&handles, v[i].handle);
        }
    }
    r = handles.n ? ipam_put_block(m, &s, a, e) : 0;
    for (size_t i = 0; i < handles.n && r == 0; i++) {
        r = ipam_handle_add(m, handles.p[i], cidr, -1, 0, e);
        (*n_freed)++;
    }
    vec_fini(&handles);
    return r;
}

int ipam_release_exact(struct ipam *m, const struct ipam_exact *v, size_t n, size_t *n_released,
                       struct err *e) {
    VEC(struct prefix) blocks = {0};
    int r = 0;
    *n_released = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        bool is_known = false;
        for (size_t k = 0; k < blocks.n && !is_known; k++) {
            is_known =
                blocks.p[k].ip.family == v[i].ip.family && prefix_has_ip(&blocks.p[k], &v[i].ip);
        }
        struct prefix cidr;
        r = is_known ? 0 : ipam_block_of(m, &v[i].ip, &cidr, e);
        if (r == 0 && !is_known) {
            vec_push(&blocks, cidr);
        }
        r = r == ERR_NOT_FOUND ? 0 : r;
    }
    for (size_t k = 0; k < blocks.n && r == 0; k++) {
        size_t freed = 0;
        for (int i = 0; i < IPAM_RETRIES; i++) {
            struct arena a = {0};
            r = release_once(m, &blocks.p[k], v, n, &a, &freed, e);
            arena_fini(&a);
            if (!ipam_is_race(r)) {
                break;
            }
        }
        *n_released += freed;
    }
    vec_fini(&blocks);
    return r;
}

/* ---- blocks ---- */

static int in_use(const struct prefix *cidr, const struct block *b, struct err *e) {
    char text[IP_TEXT_MAX];
    return err_set(e, ERR_CONFLICT, "block %s: %u addresses in use", prefix_text(cidr, text),
                   block_in_use(b));
}

static int drop_affinity(struct ipam *m, const struct prefix *cidr, struct arena *a,
                         struct err *e) {
    int r = store_delete(m->store, ipam_affinity_key(m, cidr, a), REV_ANY, e);
    return r == ERR_NOT_FOUND ? 0 : r;
}

static int mark_affinity(struct ipam *m, const struct prefix *cidr, struct arena *a,
                         struct err *e) {
    return store_put(m->store, ipam_affinity_key(m, cidr, a),
                     STR("{\"state\":\"pendingDeletion\",\"deleted\":false}"), REV_ANY, NULL, e);
}

/* must_be_empty: a block with addresses stays as it is. Else it loses its owner. The affinity says
 * first that it is to go, so that a crash leaves what the next try ends. */
static int give_up_once(struct ipam *m, const struct prefix *cidr, bool must_be_empty,
                        struct arena *a, struct err *e) {
    struct stored_block s;
    int r = ipam_get_block(m, cidr, a, &s, e);
    if (r == ERR_NOT_FOUND) {
        return drop_affinity(m, cidr, a, e);
    }
    if (r < 0) {
        return r;
    }
    if (!str_is(s.b->affinity, m->affinity)) {
        r = drop_affinity(m, cidr, a, e);
        return r < 0 ? r : (must_be_empty ? err_set(e, ERR_CONFLICT, "the block is another's") : 0);
    }
    ipam_wake(m, s.b);
    bool is_empty = block_in_use(s.b) == 0;
    if (must_be_empty && !is_empty) {
        return in_use(cidr, s.b, e);
    }
    s.b->affinity = STR_NULL;
    r = mark_affinity(m, cidr, a, e);
    r = r == 0 ? ipam_put_block(m, &s, a, e) : r; /* deletes one that is empty */
    r = r == 0 ? drop_affinity(m, cidr, a, e) : r;
    return r < 0 ? r : is_empty ? 0 : in_use(cidr, s.b, e);
}

int ipam_release_block(struct ipam *m, const struct prefix *cidr, struct err *e) {
    int r = 0;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        struct arena a = {0};
        struct stored_block s;
        r = give_up_once(m, cidr, true, &a, e);
        /* A conflict that stays is the answer: somebody uses the block. */
        bool is_used =
            r == ERR_CONFLICT && (ipam_get_block(m, cidr, &a, &s, e) < 0 || block_in_use(s.b) > 0 ||
                                  !str_is(s.b->affinity, m->affinity));
        if (is_used) {
            r = err_set(e, ERR_CONFLICT, "the block is in use, or another's");
        }
        arena_fini(&a);
        if (is_used || r != ERR_CONFLICT) {
            break;
        }
    }
    return r;
}

/* ---- owners ---- */

struct owned {
    VEC(struct prefix) v;
};
static int add_owned(void *arg, const struct store_item *it) {
    struct owned *o = arg;
    struct prefix p;
    if (ipam_parse_cidr(it->key, &p) == 0) {
        vec_push(&o->v, p);
    }
    return 0;
}

int ipam_release_owner(struct ipam *m, struct err *e) {
    struct arena a = {0};
    struct owned o = {.v = {0}};
    struct str base = arena_printf(&a, "/ipam/v2/%s/%s", m->owner_kind, m->node);
    struct str prefix = arena_printf(&a, "%.*s/", STR_FMT(base));
    bool is_left = false;
    int r = store_list(m->store, (struct store_key){STR(STORE_SPACE_IPAM), prefix}, NULL, add_owned,
                       &o, e);
    for (size_t i = 0; i < o.v.n && r == 0; i++) {
        for (int k = 0; k < IPAM_RETRIES; k++) {
            struct stored_block s;
            r = give_up_once(m, &o.v.p[i], false, &a, e);
            bool is_gone =
                ipam_get_block(m, &o.v.p[i], &a, &s, e) < 0 || !str_is(s.b->affinity, m->affinity);
            if (r != ERR_CONFLICT || is_gone) {
                break;
            }
        }
        is_left = is_left || r == ERR_CONFLICT;
        r = r == ERR_CONFLICT ? 0 : r;
    }
    if (r == 0) {
        /* The note that the node is known. The Kubernetes API has no place for it (ERR_INVALID). */
        r = store_delete(m->store, (struct store_key){STR(STORE_SPACE_IPAM), base}, REV_ANY, e);
        r = r == ERR_NOT_FOUND || r == ERR_INVALID ? 0 : r;
    }
    vec_fini(&o.v);
    arena_fini(&a);
    if (r == 0 && is_left) {
        return err_set(e, ERR_CONFLICT, "%s: blocks with addresses in use lost their owner",
                       m->node);
    }
    return r;
}
