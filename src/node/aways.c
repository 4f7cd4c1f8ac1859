/* See aways.h. */
#include "node/aways.h"

#include "base/hash.h"
#include "base/vec.h"

#include <stdlib.h>

typedef VEC(struct ip46) ip_vec;

#define MAP_NAME awayblocks
#define MAP_KEY struct prefix
#define MAP_VAL ip_vec
#define MAP_HASH(k) (ip_hash(&(k).ip) ^ (k).len)
#define MAP_EQ(a, b) prefix_eq(&(a), &(b))
#include "base/map.tmpl.h"

struct news {
    struct ip46 ip;
    bool is_away;
};

struct aways {
    struct links *links;
    char *own;
    struct awayblocks blocks; /* those with such an address */
    VEC(struct news) news;    /* in order */
};

struct aways *aways_new(struct links *l, struct str own) {
    struct aways *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    w->links = l;
    w->own = strndup(own.p, own.n);
    mg_assert(w->own != NULL);
    return w;
}

void aways_free(struct aways *w) {
    if (!w) {
        return;
    }
    size_t i = 0;
    ip_vec *v;
    while (awayblocks_next(&w->blocks, &i, NULL, &v)) {
        vec_fini(v);
    }
    awayblocks_fini(&w->blocks);
    vec_fini(&w->news);
    free(w->own);
    free(w);
}

static bool has(const ip_vec *v, const struct ip46 *ip) {
    for (size_t i = 0; v && i < v->n; i++) {
        if (ip_eq(&v->p[i], ip)) {
            return true;
        }
    }
    return false;
}

void aways_block(struct aways *w, const struct prefix *cidr, const struct block *b) {
    ip_vec now = {0}, *was = awayblocks_get(&w->blocks, *cidr);
    for (uint32_t i = 0; b && i < b->size; i++) {
        struct str node = block_attr_of(b, i, "node");
        struct ip46 ip;
        /* Without an active owner it is nobody else's. */
        if (node.n && !str_is(node, w->own) && block_attr_of(b, i, "vmi-name").n &&
            prefix_nth(cidr, i, &ip)) {
            vec_push(&now, ip);
        }
    }
    for (size_t i = 0; was && i < was->n; i++) {
        if (!has(&now, &was->p[i])) {
            vec_push(&w->news, (struct news){was->p[i], false});
        }
    }
    for (size_t i = 0; i < now.n; i++) {
        /* All of them: an ADD tells links what is right before the block's news come. */
        vec_push(&w->news, (struct news){now.p[i], true});
    }
    if (was) {
        vec_fini(was);
    }
    if (now.n) {
        *(was ? was : awayblocks_put(&w->blocks, *cidr, NULL)) = now;
    } else if (was) {
        (void)awayblocks_del(&w->blocks, *cidr);
    }
}

void aways_flush(struct aways *w) {
    for (size_t i = 0; i < w->news.n; i++) {
        links_away(w->links, &w->news.p[i].ip, w->news.p[i].is_away);
    }
    vec_clear(&w->news);
}
