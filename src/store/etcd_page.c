/* Reading a range in pages of one revision. Pages are sized by bytes: a store of 100,000 items must
 * not be in memory at once, and a page of large values must not hold up the loop. */
#include "store/etcd_int.h"

enum {
    PAGE_FIRST = 500,       /* keys */
    PAGE_MAX = 10000,       /* keys */
    PAGE_BYTES = 2 << 20,   /* aimed at */
    PAGE_KEY_MAX = 1 << 16, /* bytes of a key that a page may begin behind */
};

void etcd_pager_init(struct etcd_pager *p, struct etcd_range range, uint64_t revision) {
    *p = (struct etcd_pager){
        .range = range, .from = BUF_INIT(PAGE_KEY_MAX), .revision = revision, .limit = PAGE_FIRST};
    buf_str(&p->from, range.from);
}

void etcd_pager_fini(struct etcd_pager *p) {
    buf_fini(&p->from);
}

void etcd_pager_ask(const struct etcd_pager *p, Etcd__RangeRequest *out) {
    *out = (Etcd__RangeRequest)ETCD__RANGE_REQUEST__INIT;
    out->key = pb_bytes(buf_view(&p->from));
    out->range_end = pb_bytes(p->range.to);
    out->limit = p->limit;
    out->revision = (int64_t)p->revision;
}

static void resize(struct etcd_pager *p, size_t bytes) {
    int64_t fit = p->limit * PAGE_BYTES / (int64_t)(bytes ? bytes : 1);
    int64_t most = p->limit * 4;
    fit = fit < 1 ? 1 : fit;
    p->limit = fit < most ? fit : most;
    p->limit = p->limit < PAGE_MAX ? p->limit : PAGE_MAX;
}

int etcd_pager_took(struct etcd_pager *p, const Etcd__RangeResponse *r) {
    size_t bytes = 0;
    struct str last = buf_view(&p->from);
    for (size_t i = 0; i < r->n_kvs; i++) {
        struct str key = pb_str(r->kvs[i]->key);
        int order = str_cmp(key, last);
        if (order < 0 || (order == 0 && i > 0)) {
            return ERR_CORRUPT;
        }
        last = key;
        bytes += key.n + r->kvs[i]->value.len;
    }
    if (p->revision == 0 && r->header && r->header->revision > 0) {
        p->revision = (uint64_t)r->header->revision;
    }
    p->is_done = !r->more || r->n_kvs == 0;
    if (!p->is_done) {
        buf_reset(&p->from);
        buf_str(&p->from, last);
        buf_putc(&p->from, '\0');
        if (p->from.overflow) {
            return ERR_CORRUPT;
        }
        resize(p, bytes);
    }
    return 0;
}

bool etcd_pager_smaller(struct etcd_pager *p) {
    bool can = p->limit > 1;
    p->limit = p->limit > 8 ? p->limit / 8 : 1;
    return can;
}

bool etcd_item_of(struct str space, const Etcd__KeyValue *kv, struct arena *a,
                  struct store_item *out) {
    struct str key;
    if (!etcd_key_back(space, pb_str(kv->key), a, &key) || kv->value.len > STORE_VALUE_MAX) {
        return false;
    }
    *out = (struct store_item){.space = space,
                               .key = key,
                               .value = etcd_value_in(space, key, pb_str(kv->value), a),
                               .revision = kv->mod_revision > 0 ? (uint64_t)kv->mod_revision : 0};
    return !etcd_is_built_in((struct store_key){space, key});
}
