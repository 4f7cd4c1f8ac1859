/* See oracle.h. */
#include "oracle.h"

#include <stdlib.h>
#include <string.h>

struct oracle *oracle_new(unsigned n) {
    struct oracle *o = calloc(1, sizeof(*o));
    o->n = n;
    o->link = calloc((size_t)n * n, sizeof(bool));
    o->client = calloc((size_t)n * n, sizeof(bool));
    o->origin = calloc(n, sizeof(bool));
    o->best = calloc(n, sizeof(*o->best));
    return o;
}

void oracle_free(struct oracle *o) {
    free(o->link);
    free(o->client);
    free(o->origin);
    free(o->best);
    free(o);
}

void oracle_link(struct oracle *o, unsigned a, unsigned b) {
    o->link[a * o->n + b] = o->link[b * o->n + a] = true;
}

static bool has(const uint32_t *list, unsigned n, uint32_t x) {
    for (unsigned i = 0; i < n; i++) {
        if (list[i] == x) {
            return true;
        }
    }
    return false;
}

/* What u offers to v; false: nothing, or v would not take it. */
static bool offer(const struct oracle *o, unsigned u, unsigned v, struct orc_route *out) {
    const struct orc_route *r = &o->best[u];
    if (!r->has || r->from == (int)v) {
        return false;
    }
    bool is_internal = o->as[u] == o->as[v];
    *out = *r;
    out->from = (int)u;
    out->is_external = !is_internal;
    out->from_client = o->client[v * o->n + u];
    if (!is_internal) {
        out->path[0] = o->as[u];
        memcpy(out->path + 1, r->path, r->n_path * sizeof(r->path[0]));
        out->n_path++;
        out->originator = 0;
        out->n_clusters = 0;
        return !has(out->path, out->n_path, o->as[v]);
    }
    bool learned_inside = r->from >= 0 && !r->is_external;
    if (learned_inside) {
        if (!r->from_client && !o->client[u * o->n + v]) {
            return false;
        }
        if (!out->originator) {
            out->originator = o->id[r->from];
        }
        out->clusters[0] = o->id[u];
        memcpy(out->clusters + 1, r->clusters, r->n_clusters * sizeof(r->clusters[0]));
        out->n_clusters++;
    }
    return out->originator != o->id[v] && !has(out->clusters, out->n_clusters, o->id[v]) &&
           !has(out->path, out->n_path, o->as[v]);
}

static uint32_t id_of(const struct oracle *o, const struct orc_route *r) {
    return r->originator ? r->originator : o->id[r->from];
}

static bool better(const struct oracle *o, const struct orc_route *a, const struct orc_route *b) {
    if (!b->has) {
        return true;
    }
    if (b->from < 0) {
        return false;
    }
    if (a->n_path != b->n_path) {
        return a->n_path < b->n_path;
    }
    if (a->is_external != b->is_external) {
        return a->is_external;
    }
    if (id_of(o, a) != id_of(o, b)) {
        return id_of(o, a) < id_of(o, b);
    }
    if (a->n_clusters != b->n_clusters) {
        return a->n_clusters < b->n_clusters;
    }
    return a->from < b->from; /* addresses go with numbers */
}

static bool same(const struct orc_route *a, const struct orc_route *b) {
    return a->has == b->has &&
           (!a->has || (a->from == b->from && a->n_path == b->n_path &&
                        a->originator == b->originator && a->n_clusters == b->n_clusters &&
                        memcmp(a->path, b->path, a->n_path * sizeof(a->path[0])) == 0));
}

void oracle_solve(struct oracle *o) {
    memset(o->best, 0, o->n * sizeof(*o->best));
    for (bool is_changed = true; is_changed;) {
        is_changed = false;
        for (unsigned v = 0; v < o->n; v++) {
            struct orc_route best = {.has = o->origin[v], .from = -1};
            for (unsigned u = 0; u < o->n; u++) {
                struct orc_route r;
                if (o->link[u * o->n + v] && offer(o, u, v, &r) && better(o, &r, &best)) {
                    best = r;
                }
            }
            if (!same(&best, &o->best[v])) {
                o->best[v] = best;
                is_changed = true;
            }
        }
    }
}
