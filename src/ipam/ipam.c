/* Keys, reading and writing of blocks and handles, and release. */
#include "ipam/ipam_int.h"

#include "base/clock.h"

#include <stdlib.h>

static struct ipam *new_owner(struct store *s, const char *kind, struct str name) {
    struct ipam *m = calloc(1, sizeof(*m));
    size_t n = strlen(kind);
    mg_assert(m != NULL);
    m->store = s;
    m->now = clock_wall_ns;
    m->cooldown_s = -1;
    m->owner_kind = kind;
    m->node = strndup(name.p, name.n);
    m->affinity = malloc(n + name.n + 2);
    mg_assert(m->node && m->affinity);
    memcpy(m->affinity, kind, n);
    m->affinity[n] = ':';
    memcpy(m->affinity + n + 1, m->node, name.n + 1);
    return m;
}

struct ipam *ipam_new(struct store *s, struct str node) {
    return new_owner(s, "host", node);
}

struct ipam *ipam_new_virtual(struct store *s, struct str name) {
    return new_owner(s, "virtual", name);
}

void ipam_free(struct ipam *m) {
    if (m) {
        free(m->node);
        free(m->affinity);
        free(m);
    }
}

void ipam_set_cooldown(struct ipam *m, int64_t seconds) {
    m->cooldown_s = seconds;
}

void ipam_set_clock(struct ipam *m, int64_t (*now)(void)) {
    m->now = now;
}

/* ---- keys ---- */

static struct str cidr_part(const struct prefix *cidr, struct arena *a) {
    char text[IP_TEXT_MAX];
    return arena_printf(a, "%s-%u", ip_text(&cidr->ip, text), cidr->len);
}
struct store_key ipam_block_key(const struct prefix *cidr, struct arena *a) {
    struct str part = cidr_part(cidr, a);
    return (struct store_key){
        STR(STORE_SPACE_IPAM),
        arena_printf(a, "/ipam/v2/assignment/ipv%u/block/%.*s", cidr->ip.family, STR_FMT(part))};
}
struct store_key ipam_affinity_key(const struct ipam *m, const struct prefix *cidr,
                                   struct arena *a) {
    struct str part = cidr_part(cidr, a);
    return (struct store_key){STR(STORE_SPACE_IPAM),
                              arena_printf(a, "/ipam/v2/%s/%s/ipv%u/block/%.*s", m->owner_kind,
                                           m->node, cidr->ip.family, STR_FMT(part))};
}
struct store_key ipam_handle_key(struct str handle, struct arena *a) {
    return (struct store_key){STR(STORE_SPACE_IPAM),
                              arena_printf(a, "/ipam/v2/handle/%.*s", STR_FMT(handle))};
}

int ipam_parse_cidr(struct str part, struct prefix *out) {
    for (size_t i = part.n; i-- > 0;) {
        if (part.p[i] == '/') {
            part = str_sub(part, i + 1, part.n);
            break;
        }
    }
    char text[IP_TEXT_MAX];
    ptrdiff_t dash = str_find(part, '-', 0);
    if (dash < 0 || part.n >= sizeof(text)) {
        return -EINVAL;
    }
    memcpy(text, part.p, part.n);
    text[dash] = '/';
    return prefix_parse(str_n(text, part.n), out);
}

/* ---- blocks ---- */

int ipam_parse_block(struct str key, struct str value, struct arena *a, struct block **out,
                     struct err *e) {
    struct prefix cidr;
    struct block *b = NULL;
    if (ipam_parse_cidr(key, &cidr) < 0) {
        return err_set(e, ERR_CORRUPT, "%.*s: not the key of an IPAM block", STR_FMT(key));
    }
    if (block_parse(value, a, &b, e) < 0) {
        return err_wrap(e, ERR_CORRUPT, "%.*s", STR_FMT(key));
    }
    if (!prefix_eq(&b->cidr, &cidr)) {
        char text[IP_TEXT_MAX];
        return err_set(e, ERR_CORRUPT, "%.*s: holds the block %s", STR_FMT(key),
                       prefix_text(&b->cidr, text));
    }
    *out = b;
    return 0;
}

int ipam_get_block(struct ipam *m, const struct prefix *cidr, struct arena *a,
                   struct stored_block *out, struct err *e) {
    struct store_item it;
    int r = store_get(m->store, ipam_block_key(cidr, a), a, &it, e);
    if (r == 0) {
        r = ipam_parse_block(it.key, it.value, a, &out->b, e);
        out->revision = it.revision;
    }
    return r;
}

void ipam_give(const struct ipam *m, struct block *b, uint32_t ordinal, struct arena *a) {
    if (m->cooldown_s > 0) {
        block_rest(b, ordinal, m->now(), a);
    } else {
        block_give(b, ordinal);
    }
}

void ipam_wake(const struct ipam *m, struct block *b) {
    (void)block_wake(b, m->now(), m->cooldown_s < 0 ? IPAM_COOLDOWN_MAX_S : m->cooldown_s);
}

int ipam_put_block(struct ipam *m, struct stored_block *s, struct arena *a, struct err *e) {
    struct store_key key = ipam_block_key(&s->b->cidr, a);
    ipam_wake(m, s->b);
    if (!s->b->affinity.p && block_in_use(s->b) == 0 && s->revision != REV_NONE) {
        return store_delete(m->store, key, s->revision, e);
    }
    s->b->sequence++;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(BLOCK_TEXT_MAX);
    block_write(s->b, &b);
    if (b.overflow) {
        return err_set(e, ERR_TOO_BIG, "IPAM block %.*s: larger than %d bytes", STR_FMT(key.key),
                       BLOCK_TEXT_MAX);
    }
    return store_put(m->store, key, buf_view(&b), s->revision, &s->revision, e);
}

/* ---- handles ---- */

static struct jnode *handle_blocks(struct jnode *doc, struct arena *a) {
    struct jnode *blocks = jnode_getc(doc, "block");
    if (!blocks || blocks->type != J_MAP) {
        blocks = jnode_new(a, J_MAP);
        jnode_set(a, doc, STR("block"), blocks);
    }
    return blocks;
}

int ipam_get_handle(struct ipam *m, struct str handle, struct arena *a, struct store_item *it,
                    struct jnode **doc, struct err *e) {
    *doc = NULL;
    it->revision = REV_NONE;
    int r = store_get(m->store, ipam_handle_key(handle, a), a, it, e);
    if (r == ERR_NOT_FOUND) {
        return 0;
    }
    return r < 0 ? r : json_parse(it->value, &json_limits_default, a, doc, e);
}

/* What a handle counts in blocks of a family. */
static int64_t held_of(const struct jnode *blocks, uint8_t family) {
    int64_t n = 0;
    jnode_each (it, blocks) {
        struct prefix p;
        bool is_count = it->type == J_INT && it->i > 0 && it->i <= BLOCK_MAX_SIZE;
        n += is_count && prefix_parse(it->key, &p) == 0 && p.ip.family == family ? it->i : 0;
    }
    return n;
}

static int handle_once(struct ipam *m, struct str handle, const struct prefix *cidr, int64_t n,
                       unsigned max, struct arena *a, struct err *e) {
    struct store_item it;
    struct jnode *doc;
    int r = ipam_get_handle(m, handle, a, &it, &doc, e);
    if (r < 0 || (!doc && n < 0)) {
        return r; /* nothing to take away from */
    }
    struct store_key key = ipam_handle_key(handle, a);
    doc = doc ? doc : jnode_new(a, J_MAP);
    struct jnode *blocks = handle_blocks(doc, a);
    if (max && held_of(blocks, cidr->ip.family) + n > max) {
        return err_set(e, ERR_DENIED, "handle %.*s may hold %u IPv%u addresses and has them",
                       STR_FMT(handle), max, cidr->ip.family);
    }
    char text[IP_TEXT_MAX];
    struct str k = arena_dup(a, str_c(prefix_text(cidr, text)));
    const struct jnode *old = jnode_get(blocks, k);
    bool has_count = old && old->type == J_INT && old->i > 0 && old->i <= BLOCK_MAX_SIZE;
    int64_t now = (has_count ? old->i : 0) + n;
    if (now > 0) {
        jnode_set(a, blocks, k, jnode_new_int(a, now));
    } else {
        (void)jnode_del(blocks, k);
    }
    if (blocks->n == 0) {
        return it.revision == REV_NONE ? 0 : store_delete(m->store, key, it.revision, e);
    }
    jnode_set(a, doc, STR("deleted"), jnode_new_bool(a, false));
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(BLOCK_TEXT_MAX);
    json_write(&b, doc, 0);
    return store_put(m->store, key, buf_view(&b), it.revision, NULL, e);
}

int ipam_handle_add(struct ipam *m, struct str handle, const struct prefix *cidr, int64_t n,
                    unsigned max, struct err *e) {
    if (!handle.n) {
        return 0;
    }
    int r = 0;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        struct arena a = {0};
        r = handle_once(m, handle, cidr, n, max, &a, e);
        arena_fini(&a);
        if (!ipam_is_race(r)) {
            break;
        }
    }
    return r;
}

/* ---- release ---- */

/* What to give back in one block. */
struct release {
    const struct ip46 *ips; /* NULL: all of the handle */
    size_t n_ips;
    struct str handle;
    struct ip46 *out;
    size_t max, *n_out;
};

static bool is_asked(const struct release *q, const struct block *b, uint32_t ordinal) {
    if (!q->ips) {
        return true;
    }
    for (size_t i = 0; i < q->n_ips; i++) {
        if (prefix_has_ip(&b->cidr, &q->ips[i]) && prefix_offset(&b->cidr, &q->ips[i]) == ordinal) {
            return true;
        }
    }
    return false;
}

struct freed {
    struct str handle;
    int64_t n;
};

static int release_once(struct ipam *m, const struct prefix *cidr, const struct release *q,
                        struct arena *a, size_t *n_freed, struct err *e) {
    struct stored_block s;
    *n_freed = 0;
    int r = ipam_get_block(m, cidr, a, &s, e);
    if (r < 0) {
        return r == ERR_NOT_FOUND ? 0 : r;
    }
    struct freed *freed = arena_array(a, struct freed, s.b->size);
    struct ip46 *ips = arena_array(a, struct ip46, s.b->size);
    size_t n_handles = 0, n = 0;
    for (uint32_t i = 0; i < s.b->size; i++) {
        struct str h = block_handle_of(s.b, i);
        if (s.b->alloc[i] < 0 || block_is_resting(s.b, i) || !is_asked(q, s.b, i) ||
            (q->handle.n && !str_eq(h, q->handle))) {
            continue;
        }
        size_t k = 0;
        while (k < n_handles && !str_eq(freed[k].handle, h)) {
            k++;
        }
        if (k == n_handles) {
            freed[n_handles++].handle = h;
        }
        freed[k].n++;
        bool inside = prefix_nth(&s.b->cidr, i, &ips[n]);
        mg_assert(inside);
        n++;
        ipam_give(m, s.b, i, a);
    }
    if (n == 0) {
        return 0;
    }
    r = ipam_put_block(m, &s, a, e);
    for (size_t k = 0; k < n_handles && r == 0; k++) {
        r = ipam_handle_add(m, freed[k].handle, cidr, -freed[k].n, 0, e);
    }
    if (r == 0) {
        for (size_t i = 0; i < n && q->out && *q->n_out < q->max; i++) {
            q->out[(*q->n_out)++] = ips[i];
        }
        *n_freed = n;
    }
    return r;
}

static int release_in(struct ipam *m, const struct prefix *cidr, const struct release *q,
                      size_t *n_freed, struct err *e) {
    int r = 0;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        struct arena a = {0};
        r = release_once(m, cidr, q, &a, n_freed, e);
        arena_fini(&a);
        if (!ipam_is_race(r)) {
            break;
        }
    }
    return r;
}

struct finding {
    const struct ip46 *ip;
    struct prefix found;
    bool has;
};
static int find_block(void *arg, const struct store_item *it) {
    struct finding *f = arg;
    struct prefix p;
    if (ipam_parse_cidr(it->key, &p) == 0 && prefix_has_ip(&p, f->ip)) {
        f->found = p;
        f->has = true;
    }
    return 0;
}

int ipam_block_of(struct ipam *m, const struct ip46 *ip, struct prefix *out, struct err *e) {
    struct finding f = {.ip = ip};
    struct arena a = {0};
    struct str prefix = arena_printf(&a, "/ipam/v2/assignment/ipv%u/block/", ip->family);
    int r = store_list(m->store, (struct store_key){STR(STORE_SPACE_IPAM), prefix}, NULL,
                       find_block, &f, e);
    arena_fini(&a);
    *out = f.found;
    return r < 0 ? r : f.has ? 0 : ERR_NOT_FOUND;
}

int ipam_release_ips(struct ipam *m, const struct ip46 *ips, size_t n, struct str handle,
                     size_t *n_released, struct err *e) {
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        struct prefix cidr;
        int r = ipam_block_of(m, &ips[i], &cidr, e);
        if (r == ERR_NOT_FOUND) {
            continue;
        }
        struct release q = {.ips = &ips[i], .n_ips = 1, .handle = handle};
        size_t freed = 0;
        if (r == 0) {
            r = release_in(m, &cidr, &q, &freed, e);
        }
        if (r < 0) {
            return r;
        }
        total += freed;
    }
    if (n_released) {
        *n_released = total;
    }
    return 0;
}

/* Calls cb for each block of a handle. *revision: of the handle as read. */
static int each_block(struct ipam *m, struct str handle, struct arena *a, uint64_t *revision,
                      int (*cb)(void *arg, const struct prefix *cidr), void *arg, struct err *e) {
    struct store_item it;
    struct jnode *doc = NULL;
    int r = store_get(m->store, ipam_handle_key(handle, a), a, &it, e);
    if (r == 0) {
        r = json_parse(it.value, &json_limits_default, a, &doc, e);
    }
    struct jnode *blocks = NULL;
    if (r == 0) {
        *revision = it.revision;
        blocks = jnode_getc(doc, "block");
    }
    jnode_each (n, blocks) {
        struct prefix cidr;
        if (r == 0 && prefix_parse(n->key, &cidr) == 0) {
            r = cb(arg, &cidr);
        }
    }
    return r;
}

struct releasing {
    struct ipam *m;
    struct release q;
    size_t total;
    struct err *e;
};
static int release_block(void *arg, const struct prefix *cidr) {
    struct releasing *x = arg;
    size_t freed = 0;
    int r = release_in(x->m, cidr, &x->q, &freed, x->e);
    x->total += freed;
    return r;
}

/* One reading of the handle: its addresses are given back; when there were none, what it counts is
 * of a crash between two writes, and it is deleted. True: nothing is left to do. */
static bool release_round(struct releasing *x, struct str handle, int *r) {
    struct arena a = {0};
    uint64_t revision = REV_NONE;
    size_t before = x->total;
    *r = each_block(x->m, handle, &a, &revision, release_block, x, x->e);
    if (*r == 0 && x->total == before) {
        *r = store_delete(x->m->store, ipam_handle_key(handle, &a), revision, x->e);
    }
    arena_fini(&a);
    if (*r == ERR_NOT_FOUND) {
        *r = 0;
        return true;
    }
    return *r < 0 && *r != ERR_CONFLICT;
}

int ipam_release_by_handle(struct ipam *m, struct str handle, struct ip46 *out, size_t max,
                           size_t *n_out, struct err *e) {
    *n_out = 0;
    struct releasing x = {m, {.handle = handle, .out = out, .max = max, .n_out = n_out}, 0, e};
    int r = 0;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        if (release_round(&x, handle, &r)) {
            break;
        }
    }
    if (r == 0 && x.total == 0) {
        r = err_set(e, ERR_NOT_FOUND, "handle %.*s holds no address", STR_FMT(handle));
    }
    return r;
}

struct holding {
    struct ipam *m;
    struct arena *a;
    struct str handle;
    struct ip46 *out;
    size_t max, n;
    struct err *e;
};
static int hold_block(void *arg, const struct prefix *cidr) {
    struct holding *x = arg;
    struct stored_block s;
    int r = ipam_get_block(x->m, cidr, x->a, &s, x->e);
    for (uint32_t i = 0; r == 0 && i < s.b->size; i++) {
        if (s.b->alloc[i] >= 0 && str_eq(block_handle_of(s.b, i), x->handle) && x->n < x->max) {
            bool inside = prefix_nth(&s.b->cidr, i, &x->out[x->n++]);
            mg_assert(inside);
        }
    }
    return r == ERR_NOT_FOUND ? 0 : r;
}

int ipam_ips_by_handle(struct ipam *m, struct str handle, struct ip46 *out, size_t max,
                       size_t *n_out, struct err *e) {
    struct arena a = {0};
    struct holding x = {m, &a, handle, out, max, 0, e};
    uint64_t revision;
    int r = each_block(m, handle, &a, &revision, hold_block, &x, e);
    arena_fini(&a);
    *n_out = x.n;
    return r < 0 ? r
           : x.n ? 0
                 : err_set(e, ERR_NOT_FOUND, "handle %.*s holds no address", STR_FMT(handle));
}
