/* See compact.h. Source of the key and its meaning: apiserver/pkg/storage/etcd3/compact.go, which
 * Calico's kube-controllers call; they compare the key's version, we its revision: either way one
 * of all who saw the same state writes it. */
#include "store/compact.h"

#include "store/etcd_int.h"

#include <inttypes.h>
#include <stdio.h>

#define MARK_KEY "compact_rev_key"

bool store_has_history(const struct store *s) {
    return s->drv == &store_etcd;
}

static int forget(struct etcd_store *t, uint64_t revision, struct err *e) {
    struct arena a = {0};
    Etcd__CompactionRequest q = ETCD__COMPACTION_REQUEST__INIT;
    Etcd__CompactionResponse *answer = NULL;
    q.revision = (int64_t)revision;
    struct etcd_request r = {"/etcdserverpb.KV/Compact", &q.base, true, 0};
    int code = etcd_run(t->c, t->l, &r, &etcd__compaction_response__descriptor, &a, (void *)&answer,
                        NULL, e);
    arena_fini(&a);
    return code == ERR_GONE ? 0 : code; /* somebody has forgotten more */
}

static int read_mark(struct store *s, struct store_key k, uint64_t *mark, struct err *e) {
    struct arena a = {0};
    struct store_item it = {.revision = REV_NONE};
    int r = store_get(s, k, &a, &it, e);
    *mark = r == 0 ? it.revision : REV_NONE;
    arena_fini(&a);
    return r == ERR_NOT_FOUND ? 0 : r;
}

int store_compact(struct store *s, struct store_compaction *last, uint64_t *forgotten_out,
                  struct err *e) {
    struct store_key k = {STR(STORE_SPACE_RAW), STR(MARK_KEY)};
    uint64_t mark = REV_NONE;
    char text[24];
    *forgotten_out = 0;
    if (!store_has_history(s)) {
        return err_set(e, -ENOTSUP, "the datastore %s: keeps no history", s->drv->scheme);
    }
    struct etcd_store *t = (struct etcd_store *)s;
    int r = read_mark(s, k, &mark, e);
    if (r < 0) {
        return r;
    }
    bool is_turn = last->has_mark && mark == last->mark && last->revision > 0;
    uint64_t old = last->revision;
    if (is_turn) {
        (void)snprintf(text, sizeof(text), "%" PRIu64, old);
        r = store_put(s, k, str_c(text), mark, &mark, e);
        if (r == ERR_CONFLICT || r == ERR_EXISTS || r == ERR_NOT_FOUND) {
            is_turn = false; /* somebody was faster */
            r = read_mark(s, k, &mark, e);
        }
        if (r < 0) {
            return r;
        }
    }
    *last = (struct store_compaction){.mark = mark, .revision = t->revision, .has_mark = true};
    if (!is_turn) {
        return 0;
    }
    r = forget(t, old, e);
    *forgotten_out = r == 0 ? old : 0;
    return r;
}
