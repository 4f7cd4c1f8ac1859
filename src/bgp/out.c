/* What is told to peers, and when. A group has one list of what it announces, in order of change:
 * an entry that changes moves to the end, one that is to be withdrawn stays as a grave until
 * everyone has been told. How far peers have come are markers in that list; peers at the same place
 * form a cohort and get the same bytes, encoded once. A slow peer is no more than a marker further
 * back: changes that it has missed are coalesced, and nothing is queued for it but what is on its
 * way.
 *
 * A peer is not told of its own routes. Where they stand in a piece of the list, that piece is
 * encoded once more for it alone; a withdrawal is needed there only if the prefix came from someone
 * else before (OUT_MIXED). */
#include "bgp/speaker_int.h"

#include "base/err.h"

static struct out *out_at(const struct speaker *s, uint32_t i) {
    return pool_at(&s->outs, i);
}

/* ---- the list ---- */

static void unlink_entry(struct speaker *s, struct group *g, struct out *o) {
    if (o->prev) {
        out_at(s, o->prev)->next = o->next;
    } else {
        g->head = o->next;
    }
    if (o->next) {
        out_at(s, o->next)->prev = o->prev;
    } else {
        g->tail = o->prev;
    }
}

/* Behind `after`; 0: at the head. */
static void link_entry(struct speaker *s, struct group *g, uint32_t i, uint32_t after) {
    struct out *o = out_at(s, i);
    o->prev = after;
    o->next = after ? out_at(s, after)->next : g->head;
    if (after) {
        out_at(s, after)->next = i;
    } else {
        g->head = i;
    }
    if (o->next) {
        out_at(s, o->next)->prev = i;
    } else {
        g->tail = i;
    }
}

static void move_to_end(struct speaker *s, struct group *g, uint32_t i) {
    if (g->tail != i) {
        unlink_entry(s, g, out_at(s, i));
        link_entry(s, g, i, g->tail);
    }
}

/* Takes an entry out of its prefix's chain; the prefix goes if that was all of it. */
static void leave_node(struct speaker *s, const struct group *g, uint32_t i) {
    const struct out *o = out_at(s, i);
    struct rib *rib = &s->rib[g->key.family];
    struct rib_node *n = rib_at(rib, o->node);
    for (uint32_t *l = &n->outs; *l; l = &out_at(s, *l)->chain) {
        if (*l == i) {
            *l = o->chain;
            break;
        }
    }
    if (!n->routes && !n->outs) {
        rib_del(rib, o->node);
    }
}

/* The node stays while the caller uses it: keep_node. */
static void free_entry(struct speaker *s, struct group *g, uint32_t i, bool keep_node) {
    struct out *o = out_at(s, i);
    if (keep_node) {
        struct rib_node *n = rib_at(&s->rib[g->key.family], o->node);
        for (uint32_t *l = &n->outs; *l; l = &out_at(s, *l)->chain) {
            if (*l == i) {
                *l = o->chain;
                break;
            }
        }
    } else {
        leave_node(s, g, i);
    }
    unlink_entry(s, g, o);
    attr_unref(s->attrs, o->attr);
    g->n_gone -= o->attr == 0;
    g->n_outs--;
    pool_del(&s->outs, i);
}

static struct out *find_entry(struct speaker *s, const struct rib_node *n, uint16_t group,
                              uint32_t path_id, uint32_t *index) {
    for (uint32_t i = n->outs; i;) {
        struct out *o = out_at(s, i);
        if ((o->group & OUT_GROUP) == group && o->path_id == path_id) {
            *index = i;
            return o;
        }
        i = o->chain;
    }
    return NULL;
}

static void new_entry(struct speaker *s, struct group *g, uint32_t node, uint32_t path_id,
                      uint16_t source, uint32_t attr) {
    struct rib_node *n = rib_at(&s->rib[g->key.family], node);
    uint32_t i = pool_new(&s->outs);
    *out_at(s, i) = (struct out){.node = node,
                                 .attr = attr,
                                 .chain = n->outs,
                                 .path_id = path_id,
                                 .source = source,
                                 .group = g->id};
    n->outs = i;
    link_entry(s, g, i, g->tail);
    g->n_outs++;
}

void out_set(struct speaker *s, struct group *g, uint32_t node, uint32_t path_id, uint16_t source,
             uint32_t attr) {
    struct rib_node *n = rib_at(&s->rib[g->key.family], node);
    uint32_t i;
    struct out *o = find_entry(s, n, g->id, path_id, &i);
    if (!o) {
        if (attr) {
            new_entry(s, g, node, path_id, source, attr);
            out_wake(s, g);
        }
        return;
    }
    if (attr && o->attr == attr && o->source == source) {
        attr_unref(s->attrs, attr);
        return;
    }
    if (!attr && !o->attr) {
        return; /* a grave already */
    }
    if (!attr && !(o->group & OUT_SENT)) {
        free_entry(s, g, i, true); /* nobody has heard of it */
        return;
    }
    g->n_gone += attr == 0;
    g->n_gone -= o->attr == 0;
    attr_unref(s->attrs, o->attr);
    o->attr = attr;
    if (attr && o->source != source) {
        o->source = source;
        o->group |= OUT_MIXED;
    }
    move_to_end(s, g, i);
    out_wake(s, g);
}

void out_wake(struct speaker *s, struct group *g) {
    if (g->is_awake) {
        return;
    }
    g->is_awake = true;
    for (struct cohort *c = g->first; c; c = c->next) {
        for (size_t i = 0; i < c->chans.n; i++) {
            struct peer *p = chan_peer(s, c->chans.p[i]);
            if (p->up) {
                conn_wake(s, p->up);
            }
        }
    }
}

/* ---- cohorts ---- */

static struct cohort *cohort_new(struct speaker *s, struct group *g, uint32_t after,
                                 struct cohort *before) {
    struct cohort *c = calloc(1, sizeof(*c));
    mg_assert(c != NULL);
    c->group = g;
    c->marker = pool_new(&s->outs);
    link_entry(s, g, c->marker, after);
    c->next = before;
    c->prev = before ? before->prev : g->last;
    *(c->prev ? &c->prev->next : &g->first) = c;
    *(c->next ? &c->next->prev : &g->last) = c;
    return c;
}

static void cohort_free(struct speaker *s, struct cohort *c) {
    struct group *g = c->group;
    *(c->prev ? &c->prev->next : &g->first) = c->next;
    *(c->next ? &c->next->prev : &g->last) = c->prev;
    unlink_entry(s, g, out_at(s, c->marker));
    pool_del(&s->outs, c->marker);
    vec_fini(&c->chans);
    free(c);
}

static void cohort_add(struct cohort *c, struct chan *ch) {
    vec_push(&c->chans, ch);
    ch->cohort = c;
}

static void cohort_remove(struct cohort *c, struct chan *ch) {
    for (size_t i = 0; i < c->chans.n; i++) {
        if (c->chans.p[i] == ch) {
            vec_swap_remove(&c->chans, i);
            break;
        }
    }
    ch->cohort = NULL;
}

/* Graves that everyone has passed. */
static void sweep(struct speaker *s, struct group *g) {
    uint32_t end = g->first ? g->first->marker : 0;
    for (uint32_t i = g->head; g->n_gone && i && i != end;) {
        const struct out *o = out_at(s, i);
        uint32_t next = o->next;
        if (o->node && !o->attr) {
            free_entry(s, g, i, false);
        }
        i = next;
    }
}

/* A cohort that has been told nothing yet. */
static struct cohort *at_head(struct speaker *s, struct group *g) {
    struct cohort *first = g->first;
    return first && g->head == first->marker ? first : cohort_new(s, g, 0, g->first);
}

void out_join(struct speaker *s, struct group *g, struct chan *c) {
    cohort_add(at_head(s, g), c);
}

void out_leave(struct speaker *s, struct chan *c) {
    struct cohort *h = c->cohort;
    struct group *g = h->group;
    cohort_remove(h, c);
    if (h->chans.n == 0) {
        bool was_first = g->first == h;
        cohort_free(s, h);
        if (was_first) {
            sweep(s, g);
        }
    }
}

/* A grave right behind a cohort's marker: for nobody who is further. */
static void bury_behind(struct speaker *s, struct group *g, const struct cohort *c,
                        const struct out *of) {
    struct rib_node *n = rib_at(&s->rib[g->key.family], of->node);
    uint32_t i = pool_new(&s->outs);
    *out_at(s, i) = (struct out){
        .node = of->node, .chain = n->outs, .path_id = of->path_id, .group = g->id | OUT_SENT};
    n->outs = i;
    link_entry(s, g, i, c->marker);
    g->n_outs++;
    g->n_gone++;
}

void out_move(struct speaker *s, struct group *to, struct chan *ch) {
    struct cohort *c = at_head(s, to);
    for (uint32_t i = ch->cohort->group->head, next; i; i = next) {
        const struct out *o = out_at(s, i);
        uint32_t found;
        next = o->next;
        bool was_told = o->node && (o->source != ch->peer || (o->group & OUT_MIXED));
        if (!was_told) {
            continue;
        }
        group_update(s, to, o->node, true);
        const struct rib_node *n = rib_at(&s->rib[to->key.family], o->node);
        if (!find_entry(s, n, to->id, o->path_id, &found)) {
            bury_behind(s, to, c, o);
        }
    }
    out_leave(s, ch);
    cohort_add(c, ch);
}

void out_restart(struct speaker *s, struct chan *c) {
    struct group *g = c->group;
    out_leave(s, c);
    out_join(s, g, c);
    g->is_awake = false;
    out_wake(s, g);
}

bool out_free_some(struct speaker *s, struct group *g, unsigned max) {
    while (g->head && max-- > 0) {
        free_entry(s, g, g->head, false);
    }
    return g->head == 0;
}

/* Another cohort at the same place: one is enough. Afterwards c's marker has an entry behind it, or
 * is the last. */
static struct cohort *settle(struct speaker *s, struct cohort *c) {
    for (;;) {
        uint32_t next = out_at(s, c->marker)->next;
        if (!next || out_at(s, next)->node) {
            return c;
        }
        struct cohort *ahead = c->next;
        while (c->chans.n) {
            struct chan *ch = c->chans.p[c->chans.n - 1];
            c->chans.n--;
            cohort_add(ahead, ch);
        }
        cohort_free(s, c);
        c = ahead;
    }
}

/* Members that have too much waiting stay behind in a cohort of their own. */
static void leave_behind(struct speaker *s, struct cohort *c, const struct chan *who) {
    struct cohort *slow = NULL;
    for (size_t i = 0; i < c->chans.n;) {
        struct chan *ch = c->chans.p[i];
        const struct peer *p = chan_peer(s, ch);
        if (ch == who || (p->up && p->up->n_waiting < OUT_HIGH)) {
            i++;
            continue;
        }
        if (!slow) {
            slow = cohort_new(s, c->group, out_at(s, c->marker)->prev, c);
        }
        vec_swap_remove(&c->chans, i);
        cohort_add(slow, ch);
    }
}

/* ---- encoding ---- */

enum { WINDOW = 2048, BUCKETS = 4096, WINDOW_BYTES = 64 * 1024, SOURCES = 32 };
/* A piece of the list, sorted by attributes: bucket 0 is withdrawals. */
struct window {
    unsigned n, n_buckets;
    uint32_t entry[WINDOW];
    uint16_t next[WINDOW];                        /* in the bucket; UINT16_MAX: last */
    uint16_t first[WINDOW + 1], last[WINDOW + 1]; /* of buckets; UINT16_MAX: empty */
    uint32_t attr[WINDOW + 1];
    uint16_t slots[BUCKETS];   /* open addressing by attribute: bucket, 0 is empty */
    uint16_t sources[SOURCES]; /* peers whose routes are in it */
    unsigned n_sources;        /* SOURCES + 1: more than fit */
};

static unsigned bucket_of(struct window *w, uint32_t attr, bool *is_new) {
    *is_new = false;
    if (!attr) {
        return 0;
    }
    unsigned at = (attr * 2654435761U >> 16) % BUCKETS;
    while (w->slots[at]) {
        if (w->attr[w->slots[at]] == attr) {
            return w->slots[at];
        }
        at = (at + 1) % BUCKETS;
    }
    *is_new = true;
    unsigned b = ++w->n_buckets;
    w->slots[at] = (uint16_t)b;
    w->attr[b] = attr;
    w->first[b] = UINT16_MAX;
    return b;
}

static void note_source(struct window *w, uint16_t peer) {
    for (unsigned i = 0; i < w->n_sources && i < SOURCES; i++) {
        if (w->sources[i] == peer) {
            return;
        }
    }
    if (w->n_sources < SOURCES) {
        w->sources[w->n_sources] = peer;
    }
    w->n_sources += w->n_sources <= SOURCES;
}

static void window_fill(struct speaker *s, const struct cohort *c, struct window *w) {
    w->n = w->n_buckets = w->n_sources = 0;
    w->first[0] = UINT16_MAX;
    memset(w->slots, 0, sizeof(w->slots));
    size_t bytes = 0;
    for (uint32_t i = out_at(s, c->marker)->next; i && w->n < WINDOW && bytes < WINDOW_BYTES;) {
        const struct out *o = out_at(s, i);
        if (!o->node) {
            break; /* another cohort: met the next time */
        }
        bool is_new;
        unsigned b = bucket_of(w, o->attr, &is_new);
        bytes += is_new ? attr_get(s->attrs, o->attr)->n_bytes + 64 : 0;
        bytes += s->rib[c->group->key.family].addr_bytes + 5;
        note_source(w, o->source);
        uint16_t k = (uint16_t)w->n++;
        w->entry[k] = i;
        w->next[k] = UINT16_MAX;
        if (w->first[b] == UINT16_MAX) {
            w->first[b] = k;
        } else {
            w->next[w->last[b]] = k;
        }
        w->last[b] = k;
        i = o->next;
    }
}

/* One message being written: where its length and its attribute's length stand. */
struct msg {
    struct buf *b;
    size_t at, mp_len_at; /* mp_len_at: 0 if none is open */
    size_t max;
};

static void msg_begin(struct msg *m, struct buf *b, size_t max) {
    static const uint8_t HEAD[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,      0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,    0,    BGP_UPDATE};
    *m = (struct msg){.b = b, .at = b->n, .max = max};
    buf_add(b, HEAD, sizeof(HEAD));
}

static void patch(struct buf *b, size_t at, size_t v) {
    set_u16((uint8_t *)b->p + at, (unsigned)v);
}

/* Writes entry k unless it is not for `not_for`; false: it does not fit any more. */
static bool put_entry(struct speaker *s, const struct group *g, struct msg *m, uint32_t i,
                      size_t reserve) {
    const struct out *o = out_at(s, i);
    const struct rib_node *n = rib_at(&s->rib[g->key.family], o->node);
    struct nlri x = {.len = n->len, .path_id = o->path_id};
    memcpy(x.addr, n->addr, s->rib[g->key.family].addr_bytes);
    if (m->b->n - m->at + nlri_bytes(&x, g->key.addpath) + reserve > m->max) {
        return false;
    }
    nlri_write(m->b, &x, g->key.addpath);
    return true;
}

/* Peers do not get their own routes back. */
enum what { SKIP, REACH, WITHDRAW };
static enum what what_for(const struct out *o, uint16_t peer) {
    bool is_own = peer && o->source == peer;
    if (!is_own) {
        return o->attr ? REACH : WITHDRAW;
    }
    return (o->group & OUT_MIXED) ? WITHDRAW : SKIP;
}

/* Withdrawals from the entry at *k of a bucket on, as long as they fit in one message; *k: where it
 * stopped. only: of entries for which what_for says so. */
static void withdraw_msg(struct speaker *s, const struct group *g, const struct window *w,
                         struct buf *b, uint16_t *k, uint16_t peer) {
    struct msg m;
    size_t max = g->key.extended ? BGP_MAX_EXT : BGP_MAX, from = b->n, body;
    bool is_v6 = g->key.family == BGP_V6;
    msg_begin(&m, b, max);
    wr_u16(b, 0); /* withdrawn routes */
    if (is_v6) {
        wr_u16(b, 0); /* attributes */
        wr_u8(b, ATTR_F_OPTIONAL | ATTR_F_LONG);
        wr_u8(b, ATTR_MP_UNREACH);
        wr_u16(b, 0);
        wr_u16(b, BGP_AFI_V6);
        wr_u8(b, BGP_SAFI_UNICAST);
    }
    body = b->n;
    for (; *k != UINT16_MAX; *k = w->next[*k]) {
        const struct out *o = out_at(s, w->entry[*k]);
        if (what_for(o, peer) == WITHDRAW && !put_entry(s, g, &m, w->entry[*k], is_v6 ? 0 : 2)) {
            break;
        }
    }
    if (b->n == body) {
        b->n = from; /* nothing was */
        return;
    }
    if (is_v6) {
        patch(b, m.at + BGP_HEADER + 2, b->n - m.at - BGP_HEADER - 4);
        patch(b, m.at + BGP_HEADER + 6, b->n - m.at - BGP_HEADER - 8);
    } else {
        patch(b, m.at + BGP_HEADER, b->n - body);
        wr_u16(b, 0);
    }
    patch(b, m.at + 16, b->n - m.at);
}

static void put_mp_head(struct buf *b, const struct group *g, const struct attr_src *a) {
    wr_u8(b, ATTR_F_OPTIONAL | ATTR_F_LONG);
    wr_u8(b, ATTR_MP_REACH);
    wr_u16(b, 0);
    wr_u16(b, bgp_afi((enum bgp_family)g->key.family));
    wr_u8(b, BGP_SAFI_UNICAST);
    bool has_both = a->link_local.family != IP_NONE;
    wr_u8(b, has_both ? 32 : 16);
    buf_add(b, a->next_hop.b, 16);
    if (has_both) {
        buf_add(b, a->link_local.b, 16);
    }
    wr_u8(b, 0);
}

/* One message with the attributes in s->tmp; false: not a single prefix fits. */
static bool reach_msg(struct speaker *s, const struct group *g, const struct window *w,
                      const struct attr_src *a, struct buf *b, uint16_t *k, uint16_t peer) {
    struct msg m;
    size_t max = g->key.extended ? BGP_MAX_EXT : BGP_MAX, from = b->n, attrs_at, body;
    bool is_mp = a->next_hop.family == IP_V6;
    msg_begin(&m, b, max);
    wr_u16(b, 0);
    wr_u16(b, 0);
    attrs_at = b->n;
    if (is_mp) { /* first, so that it is found whatever else is wrong (RFC 7606 section 5.1) */
        put_mp_head(b, g, a);
    } else {
        buf_str(b, buf_view(&s->tmp));
    }
    body = b->n;
    bool is_full = false;
    for (; *k != UINT16_MAX && !is_full; *k = is_full ? *k : w->next[*k]) {
        const struct out *o = out_at(s, w->entry[*k]);
        is_full =
            what_for(o, peer) == REACH && !put_entry(s, g, &m, w->entry[*k], is_mp ? s->tmp.n : 0);
    }
    if (b->n == body) {
        b->n = from;
        return !is_full;
    }
    if (is_mp) {
        patch(b, attrs_at + 2, b->n - attrs_at - 4);
        buf_str(b, buf_view(&s->tmp));
        patch(b, attrs_at - 2, b->n - attrs_at);
    } else {
        patch(b, attrs_at - 2, body - attrs_at);
    }
    patch(b, m.at + 16, b->n - m.at);
    return true;
}

static void encode_bucket(struct speaker *s, const struct group *g, const struct window *w,
                          unsigned bucket, struct buf *b, uint16_t peer) {
    struct attr_src a;
    attr_open(s->attrs, w->attr[bucket], &a);
    struct attr_enc enc = {.as4 = g->key.as4, .with_next_hop = a.next_hop.family == IP_V4};
    buf_reset(&s->tmp);
    attr_encode(&s->tmp, &a, &enc);
    uint16_t k = w->first[bucket];
    while (k != UINT16_MAX && reach_msg(s, g, w, &a, b, &k, peer)) {
    }
}

/* Attributes so long that no prefix fits beside them cannot be told: the peer must not keep what it
 * had (RFC 4271 section 9.2, 8654 section 4). */
static bool is_too_long(struct speaker *s, const struct group *g, uint32_t attr) {
    size_t max = g->key.extended ? BGP_MAX_EXT : BGP_MAX;
    const struct attrs *packed = attr_get(s->attrs, attr);
    if (packed->n_bytes < max / 4) {
        return false;
    }
    struct attr_src a;
    attr_open(s->attrs, attr, &a);
    struct attr_enc enc = {.as4 = g->key.as4, .with_next_hop = a.next_hop.family == IP_V4};
    buf_reset(&s->tmp);
    attr_encode(&s->tmp, &a, &enc);
    return s->tmp.n + BGP_HEADER + 4 + 48 + 21 > max;
}

/* The window's messages for one peer (0: for all to whom no route of it belongs) into s->enc. */
static void encode(struct speaker *s, const struct group *g, const struct window *w,
                   uint16_t peer) {
    struct buf *b = &s->enc;
    buf_reset(b);
    for (unsigned i = 0; i <= w->n_buckets; i++) {
        uint16_t k = w->first[i];
        bool may_withdraw = i == 0 || peer;
        while (may_withdraw && k != UINT16_MAX) {
            withdraw_msg(s, g, w, b, &k, peer);
        }
    }
    for (unsigned i = 1; i <= w->n_buckets; i++) {
        encode_bucket(s, g, w, i, b, peer);
    }
    mg_assert(!b->overflow);
}

/* Graves instead of entries whose attributes are too long. */
static void bury_too_long(struct speaker *s, struct group *g, const struct window *w) {
    for (unsigned i = 1; i <= w->n_buckets; i++) {
        if (!is_too_long(s, g, w->attr[i])) {
            continue;
        }
        for (uint16_t k = w->first[i]; k != UINT16_MAX; k = w->next[k]) {
            struct out *o = out_at(s, w->entry[k]);
            attr_unref(s->attrs, o->attr);
            o->attr = 0;
            g->n_gone++;
        }
    }
}

/* Everyone of the cohort has what is in the window: the marker goes behind it, graves that nobody
 * needs any more are closed. */
static void window_done(struct speaker *s, struct cohort *c, const struct window *w) {
    struct group *g = c->group;
    unlink_entry(s, g, out_at(s, c->marker));
    link_entry(s, g, c->marker, w->entry[w->n - 1]);
    bool is_last = g->first == c;
    for (unsigned i = 0; i < w->n; i++) {
        struct out *o = out_at(s, w->entry[i]);
        if (o->attr) {
            o->group |= OUT_SENT;
        } else if (is_last) {
            free_entry(s, g, w->entry[i], false);
        }
    }
}

static bool has_source(const struct window *w, uint16_t peer) {
    bool has = w->n_sources > SOURCES;
    for (unsigned i = 0; i < w->n_sources && !has; i++) {
        has = w->sources[i] == peer;
    }
    return has;
}

/* One piece of the list for all members of ch's cohort. False: there is none. */
static bool produce(struct speaker *s, struct chan *ch) {
    static struct window w; /* scratch: filled anew each time */
    struct cohort *c = settle(s, ch->cohort);
    if (!out_at(s, c->marker)->next) {
        return false;
    }
    leave_behind(s, c, ch);
    window_fill(s, c, &w);
    bury_too_long(s, c->group, &w);
    if (c->group->n_gone && w.n_buckets) {
        window_fill(s, c, &w);
    }
    struct chunk *shared = NULL;
    for (size_t i = 0; i < c->chans.n; i++) {
        struct peer *p = chan_peer(s, c->chans.p[i]);
        bool is_own = has_source(&w, p->id);
        struct chunk *k = NULL;
        if (is_own || !shared) {
            encode(s, c->group, &w, is_own ? p->id : 0);
            k = s->enc.n ? chunk_new(s->enc.p, s->enc.n) : NULL;
        }
        if (!is_own && !shared && k) {
            shared = k;
        }
        if (!is_own && shared) {
            k = shared;
            k->n_refs++;
        }
        if (k) {
            conn_push(s, p, p->up, k);
        }
    }
    if (shared) {
        chunk_unref(shared);
    }
    window_done(s, c, &w);
    return true;
}

bool out_in_sync(const struct speaker *s, const struct chan *c) {
    if (!c->group || c->group->left) {
        return false;
    }
    for (uint32_t i = out_at(s, c->cohort->marker)->next; i; i = out_at(s, i)->next) {
        if (out_at(s, i)->node) {
            return false;
        }
    }
    return true;
}

static void push_eor(struct speaker *s, struct peer *p, enum bgp_family f) {
    struct buf b = BUF_INIT(64);
    struct msg m;
    msg_begin(&m, &b, BGP_MAX);
    wr_u16(&b, 0);
    if (f == BGP_V4) {
        wr_u16(&b, 0);
    } else {
        static const uint8_t UNREACH[] = {0, 6, ATTR_F_OPTIONAL, ATTR_MP_UNREACH,
                                          3, 0, BGP_AFI_V6,      BGP_SAFI_UNICAST};
        buf_add(&b, UNREACH, sizeof(UNREACH));
    }
    patch(&b, 16, b.n);
    conn_push_buf(s, p, p->up, &b);
    buf_fini(&b);
}

static void push_refresh(struct speaker *s, struct peer *p, enum bgp_family f, uint8_t subtype) {
    struct buf b = BUF_INIT(64);
    bgp_refresh_write(&b, f, subtype);
    conn_push_buf(s, p, p->up, &b);
    buf_fini(&b);
}

/* All has been told. */
static void at_end(struct speaker *s, struct peer *p, struct chan *c, enum bgp_family f) {
    if (c->group->left || s->is_deferring || s->ready_due) {
        return; /* not all of the table is in the list */
    }
    if (c->eor_due) {
        c->eor_due = false;
        c->eor_out = true;
        push_eor(s, p, f);
    }
    if (c->refresh_end_due) {
        c->refresh_end_due = false;
        push_refresh(s, p, f, BGP_REFRESH_END);
    }
}

void out_fill(struct speaker *s, struct peer *p) {
    for (int i = 0; i < BGP_N_FAMILIES; i++) {
        struct chan *c = &p->chan[i];
        enum bgp_family f = (enum bgp_family)i;
        if (!c->is_up || !c->group) {
            continue;
        }
        if (c->refresh_due) {
            c->refresh_due = false;
            push_refresh(s, p, f, BGP_REFRESH_BEGIN);
        }
        bool is_more = true;
        while (is_more && p->up->n_waiting < OUT_LOW) {
            is_more = produce(s, c);
        }
        if (!is_more) {
            at_end(s, p, c, f);
        }
    }
}
