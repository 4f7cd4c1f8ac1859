/* Kernel sets: hash sets of exact keys, interval sets of prefixes; what is wanted, what the kernel
 * has, and the difference into a transaction. */
#include "dataplane/table.h"

#include <stdio.h>
#include <stdlib.h>

/* Key of an interval set's wanted prefix: address (16), length (1). */
enum { PREFIX_KEY = 17 };

static char *dup_str(struct str s) {
    char *p = strndup(s.p ? s.p : "", s.n);
    mg_assert(p != NULL);
    return p;
}

void kset_init(struct kset *s, const char *name, const struct nft_set *desc, struct str comment) {
    *s = (struct kset){.name = dup_str(str_c(name)), .comment = dup_str(comment), .desc = *desc};
    /* nft prints comments without escapes; selectors read the same with either quote. */
    for (char *c = strchr(s->comment, '"'); c; c = strchr(c, '"')) {
        *c = '\'';
    }
    s->desc.name = str_c(s->name);
    s->desc.comment = str_c(s->comment);
    keyset_init(&s->keys, s->desc.is_interval
                              ? PREFIX_KEY
                              : nft_set_key_len(&s->desc) + nft_set_data_len(&s->desc));
}

void kset_fini(struct kset *s) {
    free(s->name);
    free(s->comment);
    keyset_fini(&s->keys);
    vec_fini(&s->ranges);
    vec_fini(&s->next);
}

void kset_dirty(struct dataplane *d, struct kset *s) {
    if (!s->is_dirty) {
        s->is_dirty = true;
        vec_push(&d->dirty_sets, s);
    }
}

struct kset *kset_make(struct dataplane *d, const char *name, const struct nft_set *desc,
                       struct str comment) {
    struct kset **slot = str_kset_get(&d->ksets, str_c(name));
    struct kset *k = slot ? *slot : NULL;
    if (k) {
        k->is_gone = false;
    } else {
        k = calloc(1, sizeof(*k));
        mg_assert(k != NULL);
        kset_init(k, name, desc, comment);
        *str_kset_put(&d->ksets, str_c(k->name), NULL) = k;
    }
    kset_dirty(d, k);
    return k;
}

void kset_want_key(struct dataplane *d, struct kset *s, const void *key, bool on) {
    keyset_mark(&s->keys, key, KEY_WANT, on);
    kset_dirty(d, s);
}

void kset_want_prefix(struct dataplane *d, struct kset *s, const struct prefix *p, bool on) {
    uint8_t key[PREFIX_KEY];
    memcpy(key, p->ip.b, 16);
    key[16] = p->len;
    kset_want_key(d, s, s->desc.is_interval ? key : p->ip.b, on);
}

/* ---- intervals ---- */

static int range_cmp(const void *a, const void *b) {
    return memcmp(((const struct range *)a)->from, ((const struct range *)b)->from, 16);
}

struct collect {
    range_vec *out;
    size_t len;
};

static void collect_range(void *arg, const uint8_t *key, unsigned state) {
    struct collect *c = arg;
    if (!(state & KEY_WANT)) {
        return;
    }
    struct range r = {{0}, {0}};
    memcpy(r.from, key, c->len);
    memcpy(r.to, key, c->len);
    for (size_t bit = key[16]; bit < c->len * 8; bit++) {
        uint8_t mask = (uint8_t)(0x80 >> (bit & 7));
        r.from[bit / 8] &= (uint8_t)~mask;
        r.to[bit / 8] |= mask;
    }
    vec_push(c->out, r);
}

/* The wanted prefixes as sorted ranges that neither overlap nor touch: the kernel refuses overlaps,
 * and a covered prefix adds nothing. */
static void compute_ranges(const struct kset *s, range_vec *out) {
    size_t len = nft_set_key_len(&s->desc);
    struct collect c = {out, len};
    vec_clear(out);
    keyset_each(&s->keys, collect_range, &c);
    vec_sort(out, range_cmp);
    size_t n = 0;
    for (size_t i = 0; i < out->n; i++) {
        struct range *last = n ? &out->p[n - 1] : NULL;
        if (last) {
            uint8_t after[16];
            memcpy(after, last->to, 16);
            /* Wrapped round: the last range reaches the end, so it covers all that follows. */
            if (!nft_key_next(after, len) || memcmp(out->p[i].from, after, len) <= 0) {
                if (memcmp(out->p[i].to, last->to, len) > 0) {
                    memcpy(last->to, out->p[i].to, 16);
                }
                continue;
            }
        }
        out->p[n++] = out->p[i];
    }
    out->n = n;
}

static void put_range(struct nft_batch *b, const struct range *r, size_t len) {
    nft_elem(b, r->from, len, false);
    uint8_t after[16];
    memcpy(after, r->to, 16);
    if (nft_key_next(after, len)) {
        nft_elem(b, after, len, true);
    }
}

/* Ranges of x that y does not have, exactly. Both sorted. */
static void put_missing(struct nft_batch *b, const range_vec *x, const range_vec *y, size_t len) {
    size_t j = 0;
    for (size_t i = 0; i < x->n; i++) {
        while (j < y->n && range_cmp(&y->p[j], &x->p[i]) < 0) {
            j++;
        }
        if (j < y->n && memcmp(&y->p[j], &x->p[i], sizeof(struct range)) == 0) {
            continue;
        }
        put_range(b, &x->p[i], len);
    }
}

/* ---- writing ---- */

struct writer {
    struct nft_batch *b;
    size_t len, data_len;
    unsigned want; /* the state that is written in this pass */
};

static void put_key(void *arg, const uint8_t *key, unsigned state) {
    struct writer *w = arg;
    if (state == w->want && w->want == KEY_WANT && w->data_len) {
        nft_elem_pair(w->b, key, w->len, w->data_len);
    } else if (state == w->want) {
        nft_elem(w->b, key, w->len, false);
    }
}

void kset_write(struct dataplane *d, struct kset *s) {
    struct nft_batch *b = &d->batch;
    size_t len = nft_set_key_len(&s->desc);
    if (!s->in_kernel) {
        nft_set_add(b, &s->desc);
    }
    if (s->desc.is_interval) {
        compute_ranges(s, &s->next);
        nft_elems_begin(b, s->desc.name, false);
        put_missing(b, &s->ranges, &s->next, len);
        nft_elems_end(b);
        nft_elems_begin(b, s->desc.name, true);
        put_missing(b, &s->next, &s->ranges, len);
        nft_elems_end(b);
        return;
    }
    /* What goes before what comes: a map's key may lead elsewhere now. */
    struct writer w = {b, len, nft_set_data_len(&s->desc), KEY_KERNEL};
    nft_elems_begin(b, s->desc.name, false);
    keyset_each_touched(&s->keys, put_key, &w);
    nft_elems_end(b);
    w.want = KEY_WANT;
    nft_elems_begin(b, s->desc.name, true);
    keyset_each_touched(&s->keys, put_key, &w);
    nft_elems_end(b);
}

void kset_settle(struct kset *s) {
    s->in_kernel = true;
    s->is_dirty = false;
    keyset_settle(&s->keys);
    if (s->desc.is_interval) {
        range_vec old = s->ranges;
        s->ranges = s->next;
        s->next = old;
        vec_fini(&s->next);
    }
}

void kset_forget_kernel(struct kset *s) {
    s->in_kernel = false;
    vec_clear(&s->ranges);
    keyset_forget_kernel(&s->keys);
}

void kset_kernel_elem(struct kset *s, struct str key, struct str data, bool is_interval_end) {
    size_t len = nft_set_key_len(&s->desc), data_len = nft_set_data_len(&s->desc);
    if (key.n != len || data.n != data_len) {
        return;
    }
    if (data_len) {
        uint8_t pair[KSET_PAIR_MAX];
        mg_assert(len + data_len <= sizeof(pair));
        memcpy(pair, key.p, len);
        memcpy(pair + len, data.p, data_len);
        keyset_mark(&s->keys, pair, KEY_KERNEL, true);
        return;
    }
    if (!s->desc.is_interval) {
        keyset_mark(&s->keys, key.p, KEY_KERNEL, true);
        return;
    }
    /* Starts and ends come in any order: gathered here as ranges with one side, joined when done.
     * An end is the key after the last one of its range. */
    struct range r = {{0}, {0}};
    memcpy(r.from, key.p, len);
    vec_push(is_interval_end ? &s->next : &s->ranges, r);
}

void kset_kernel_done(struct kset *s) {
    size_t len = nft_set_key_len(&s->desc);
    if (!s->desc.is_interval) {
        return;
    }
    vec_sort(&s->ranges, range_cmp);
    vec_sort(&s->next, range_cmp);
    size_t j = 0;
    for (size_t i = 0; i < s->ranges.n; i++) {
        struct range *r = &s->ranges.p[i];
        memset(r->to, 0, sizeof(r->to));
        while (j < s->next.n && range_cmp(&s->next.p[j], r) <= 0) {
            j++;
        }
        if (j == s->next.n) {
            memset(r->to, 0xff, len); /* no end: up to the last address */
            continue;
        }
        memcpy(r->to, s->next.p[j].from, len);
        for (size_t k = len; k-- > 0 && r->to[k]-- == 0;) { /* one before the end */
        }
    }
    vec_clear(&s->next);
}

/* ---- sets of the calculation ---- */

static const uint8_t addr_fields[N_PARTS][4] = {
    [PART_V4] = {NFT_TYPE_IPADDR},
    [PART_V4_NETS] = {NFT_TYPE_IPADDR},
    [PART_V6] = {NFT_TYPE_IP6ADDR},
    [PART_V6_NETS] = {NFT_TYPE_IP6ADDR},
};
static const uint8_t port_fields[N_PARTS][4] = {
    [PART_V4] = {NFT_TYPE_IPADDR, NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE},
    [PART_V6] = {NFT_TYPE_IP6ADDR, NFT_TYPE_INET_PROTOCOL, NFT_TYPE_INET_SERVICE},
};
static const char *const part_names[N_PARTS] = {"4", "4-nets", "6", "6-nets"};

/* "s:JpRG…" → "s-JpRG…": what nft's own grammar reads as a name. */
static char *set_base_name(struct str uid) {
    char *p = dup_str(uid);
    for (char *c = p; *c; c++) {
        bool ok = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                  (*c >= '0' && *c <= '9') || *c == '-' || *c == '_' || *c == '.';
        if (!ok) {
            *c = '-';
        }
    }
    return p;
}

struct dset *dset_new(struct dataplane *d, const struct calc_set *s) {
    struct dset *x = calloc(1, sizeof(*x));
    mg_assert(x != NULL);
    x->id = s->id;
    x->type = s->type;
    x->base_name = set_base_name(s->uid);
    x->text = dup_str(s->text);
    bool is_new;
    *id_dset_put(&d->sets, s->id, &is_new) = x;
    mg_assert(is_new);
    return x;
}

/* Rules that name the set are written anew: its parts changed. */
static void users_dirty(struct dataplane *d, const struct dset *s) {
    for (size_t i = 0; i < s->users.n; i++) {
        struct dpol *p = dpol_get(d, s->users.p[i]);
        for (size_t j = 0; p && j < p->variants.n; j++) {
            variant_dirty(d, p->variants.p[j]);
        }
        for (size_t j = 0; p && j < p->segs.n; j++) {
            seg_dirty(d, p->segs.p[j]);
        }
    }
}

static struct kset *part_make(struct dataplane *d, struct dset *s, enum part part) {
    char name[256];
    snprintf(name, sizeof(name), "%.200s/%s", s->base_name, part_names[part]);
    struct nft_set desc = {.is_interval = part == PART_V4_NETS || part == PART_V6_NETS};
    memcpy(desc.fields, s->type == CALC_SET_ADDR ? addr_fields[part] : port_fields[part],
           sizeof(desc.fields));
    s->parts[part] = kset_make(d, name, &desc, str_c(s->text));
    users_dirty(d, s);
    return s->parts[part];
}

/* The last member went: the set goes, and the rules that looked into it do so no longer. */
static void part_drop(struct dataplane *d, struct dset *s, enum part part) {
    s->parts[part]->is_gone = true;
    s->parts[part] = NULL;
    users_dirty(d, s);
}

void dset_member(struct dataplane *d, struct dset *s, const struct calc_member *m, bool on) {
    bool is_v4 = m->net.ip.family == IP_V4;
    bool is_whole = m->net.len == ip_bits(&m->net.ip);
    enum part part =
        is_v4 ? (is_whole ? PART_V4 : PART_V4_NETS) : (is_whole ? PART_V6 : PART_V6_NETS);
    struct kset *k = s->parts[part];
    if (!k) {
        if (!on) {
            return;
        }
        k = part_make(d, s, part);
    }
    if (s->type == CALC_SET_ADDR) {
        kset_want_prefix(d, k, &m->net, on);
    } else {
        uint8_t key[24] = {0};
        size_t n = ip_bytes(&m->net.ip);
        memcpy(key, m->net.ip.b, n);
        key[n] = m->protocol;
        key[n + 4] = (uint8_t)(m->port >> 8);
        key[n + 5] = (uint8_t)m->port;
        kset_want_key(d, k, key, on);
    }
    if (k->keys.n_want == 0) {
        part_drop(d, s, part);
    }
}

void dset_free(struct dataplane *d, struct dset *s) {
    for (size_t i = 0; i < N_PARTS; i++) {
        struct kset *k = s->parts[i];
        if (!k) {
            continue;
        }
        keyset_unwant_all(&k->keys); /* should it come back before it is removed */
        k->is_gone = true;
        kset_dirty(d, k);
    }
    id_dset_del(&d->sets, s->id);
    vec_fini(&s->users);
    free(s->base_name);
    free(s->text);
    free(s);
}
