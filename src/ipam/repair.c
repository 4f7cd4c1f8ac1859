/* Mending what a crash, or somebody's careless write, left of the books: each step reads what is
 * there now, and writes by compare-and-swap. The blocks are the truth; handles and affinities
 * follow them. A call of another instance that is under way is fenced off by rewriting the block
 * that it has read: it then loses its compare-and-swap and begins anew. */
#include "ipam/ipam_int.h"

static int owner_of(struct ipam *m, struct str name, struct ipam **out) {
    bool is_host = str_starts(name, STR("host:")), is_virtual = str_starts(name, STR("virtual:"));
    if (!is_host && !is_virtual) {
        return ERR_INVALID;
    }
    struct str rest = str_sub(name, strlen(is_host ? "host:" : "virtual:"), name.n);
    *out = is_host ? ipam_new(m->store, rest) : ipam_new_virtual(m->store, rest);
    return 0;
}

static int stray_affinity(struct ipam *m, const struct ipam_fault *f, struct arena *a,
                          struct err *e) {
    struct ipam *owner = NULL;
    struct store_item it;
    struct stored_block s;
    int r = owner_of(m, f->name, &owner);
    if (r < 0) {
        return err_set(e, r, "%.*s is no owner of blocks", STR_FMT(f->name));
    }
    struct store_key key = ipam_affinity_key(owner, &f->cidr, a);
    r = store_get(m->store, key, a, &it, e);
    if (r == 0) {
        /* Read after the affinity: had the block come into being before, it would be seen. */
        int found = ipam_get_block(m, &f->cidr, a, &s, e);
        bool is_right = found == 0 && str_eq(s.b->affinity, f->name);
        r = found < 0 && found != ERR_NOT_FOUND ? found
            : is_right                          ? 0
                                                : store_delete(m->store, key, it.revision, e);
    }
    ipam_free(owner);
    return r == ERR_NOT_FOUND ? 0 : r;
}

static int no_affinity(struct ipam *m, const struct ipam_fault *f, struct arena *a, struct err *e) {
    struct ipam *owner = NULL;
    struct stored_block s;
    int r = owner_of(m, f->name, &owner);
    if (r < 0) {
        return err_set(e, r,
                       "affinity \"%.*s\" is neither host:NODE nor virtual:NAME: release the "
                       "block's addresses, or correct it by hand",
                       STR_FMT(f->name));
    }
    r = ipam_get_block(m, &f->cidr, a, &s, e);
    if (r == 0 && str_eq(s.b->affinity, f->name)) {
        r = store_put(m->store, ipam_affinity_key(owner, &f->cidr, a),
                      STR("{\"state\":\"confirmed\",\"deleted\":false}"), REV_NONE, NULL, e);
    }
    ipam_free(owner);
    return r == ERR_NOT_FOUND || r == ERR_EXISTS ? 0 : r;
}

static int lost(struct ipam *m, const struct ipam_fault *f, struct arena *a, struct err *e) {
    struct stored_block s;
    int r = ipam_get_block(m, &f->cidr, a, &s, e);
    if (r == 0 && block_requeue(s.b) > 0) {
        r = ipam_put_block(m, &s, a, e);
    }
    return r == ERR_NOT_FOUND ? 0 : r;
}

/* Only an empty one can go. */
static int overlap(struct ipam *m, const struct ipam_fault *f, struct arena *a, struct err *e) {
    struct stored_block s;
    struct ipam *owner = NULL;
    char text[IP_TEXT_MAX];
    int r = ipam_get_block(m, &f->cidr, a, &s, e);
    if (r < 0) {
        return r == ERR_NOT_FOUND ? 0 : r;
    }
    if (block_in_use(s.b) > 0) {
        return err_set(e, ERR_INVALID,
                       "block %s lies over another and both have addresses in use: delete the pods "
                       "of one of them (margay ipam check --show-all-ips lists them)",
                       prefix_text(&f->cidr, text));
    }
    if (!s.b->affinity.n || owner_of(m, s.b->affinity, &owner) < 0) {
        return store_delete(m->store, ipam_block_key(&f->cidr, a), s.revision, e);
    }
    r = ipam_release_block(owner, &f->cidr, e);
    ipam_free(owner);
    return r;
}

struct counting {
    struct ipam *m;
    struct arena *a;
    struct str handle;
    struct jnode *now; /* CIDR → what the blocks have */
};
static int count_block(void *arg, const struct store_item *it) {
    struct counting *c = arg;
    struct arena a = {0};
    struct block *b = NULL;
    struct err ignored; /* unreadable blocks are a fault of their own */
    if (str_contains(it->value, c->handle) &&
        ipam_parse_block(it->key, it->value, &a, &b, &ignored) == 0) {
        int64_t n = 0;
        char text[IP_TEXT_MAX];
        for (uint32_t i = 0; i < b->size; i++) {
            n += str_eq(block_handle_of(b, i), c->handle);
        }
        if (n > 0) {
            jnode_set(c->a, c->now, arena_dup(c->a, str_c(prefix_text(&b->cidr, text))),
                      jnode_new_int(c->a, n));
        }
    }
    arena_fini(&a);
    return 0;
}

/* Rewrites the block as it is. */
static int fence(struct ipam *m, const struct prefix *cidr, struct arena *a, struct err *e) {
    struct stored_block s;
    int r = cidr->ip.family ? ipam_get_block(m, cidr, a, &s, e) : ERR_NOT_FOUND;
    r = r == 0 ? ipam_put_block(m, &s, a, e) : r;
    return r == ERR_NOT_FOUND ? 0 : r;
}

static int handle(struct ipam *m, const struct ipam_fault *f, struct arena *a, struct err *e) {
    struct store_key key = ipam_handle_key(f->name, a);
    struct store_key blocks = {STR(STORE_SPACE_IPAM), STR("/ipam/v2/assignment/")};
    struct store_item it;
    struct jnode *doc;
    int r = ipam_get_handle(m, f->name, a, &it, &doc, e);
    /* What an assignment under way has counted already, and not yet written, is counted out: its
     * write must fail. So the block is rewritten between our reading of the handle and our
     * counting.
     */
    r = r == 0 ? fence(m, &f->cidr, a, e) : r;
    struct counting c = {m, a, f->name, jnode_new(a, J_MAP)};
    r = r == 0 ? store_list(m->store, blocks, NULL, count_block, &c, e) : r;
    if (r < 0 || (doc && jnode_eq(jnode_getc(doc, "block"), c.now))) {
        return r;
    }
    if (c.now->n == 0) {
        return doc ? store_delete(m->store, key, it.revision, e) : 0;
    }
    doc = doc ? doc : jnode_new(a, J_MAP);
    jnode_set(a, doc, STR("block"), c.now);
    jnode_set(a, doc, STR("deleted"), jnode_new_bool(a, false));
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(BLOCK_TEXT_MAX);
    json_write(&b, doc, 0);
    return store_put(m->store, key, buf_view(&b), it.revision, NULL, e);
}

static int mend_once(struct ipam *m, const struct ipam_fault *f, struct arena *a, struct err *e) {
    switch (f->kind) {
    case IPAM_UNREADABLE:
        return err_set(e, ERR_INVALID, "%.*s; write it anew from a copy, or delete it by hand",
                       STR_FMT(f->text));
    case IPAM_OVERLAP:
        return overlap(m, f, a, e);
    case IPAM_LOST:
        return lost(m, f, a, e);
    case IPAM_STRAY_AFFINITY:
        return stray_affinity(m, f, a, e);
    case IPAM_NO_AFFINITY:
        return no_affinity(m, f, a, e);
    case IPAM_HANDLE:
        return handle(m, f, a, e);
    }
    return ERR_INVALID;
}

int ipam_mend(struct ipam *m, const struct ipam_fault *f, struct err *e) {
    int r = 0;
    for (int i = 0; i < IPAM_RETRIES; i++) {
        struct arena a = {0};
        r = mend_once(m, f, &a, e);
        arena_fini(&a);
        if (!ipam_is_race(r)) {
            break;
        }
    }
    return r;
}
