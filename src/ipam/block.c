#include "ipam/block.h"

#include "base/clock.h"

#include <stdlib.h>

static bool alloc_arrays(struct block *b, struct arena *a) {
    unsigned host_bits = ip_bits(&b->cidr.ip) - b->cidr.len;
    if (host_bits > 12) {
        return false;
    }
    b->size = 1U << host_bits;
    b->alloc = arena_array(a, int32_t, b->size);
    b->queue = arena_array(a, uint32_t, b->size);
    b->sequence_of = arena_array(a, int64_t, b->size);
    b->attrs = arena_array(a, struct jnode *, b->size + 1); /* room for one more than fits */
    for (uint32_t i = 0; i < b->size; i++) {
        b->alloc[i] = -1;
    }
    return true;
}

struct block *block_new(const struct prefix *cidr, struct str affinity, int64_t wall_ns,
                        struct arena *a) {
    struct block *b = arena_new(a, struct block);
    char stamp[32];
    b->cidr = *cidr;
    b->affinity = affinity;
    b->claim_time = arena_dup(a, str_c(clock_rfc3339(wall_ns, stamp)));
    b->sequence = wall_ns;
    bool ok = alloc_arrays(b, a);
    mg_assert(ok); /* callers checked the pool's block size */
    for (uint32_t i = 0; i < b->size; i++) {
        b->queue[b->n_queue++] = i;
    }
    return b;
}

static int bad(struct err *e, const char *what) {
    return err_set(e, ERR_CORRUPT, "IPAM block: %s", what);
}

/* Drops the attributes that no allocation names, so that there are never more than addresses. */
static void drop_unused(struct block *b, struct arena *a) {
    int32_t *place = arena_array(a, int32_t, b->n_attrs);
    for (uint32_t i = 0; i < b->size; i++) {
        if (b->alloc[i] >= 0) {
            place[b->alloc[i]] = 1;
        }
    }
    uint32_t n = 0;
    for (uint32_t k = 0; k < b->n_attrs; k++) {
        if (place[k]) {
            place[k] = (int32_t)n;
            b->attrs[n++] = b->attrs[k];
        }
    }
    b->n_attrs = n;
    for (uint32_t i = 0; i < b->size; i++) {
        if (b->alloc[i] >= 0) {
            b->alloc[i] = place[b->alloc[i]];
        }
    }
}

int block_parse(struct str text, struct arena *a, struct block **out, struct err *e) {
    struct jnode *doc = NULL;
    int r = json_parse(text, &json_limits_default, a, &doc, e);
    if (r < 0) {
        return err_wrap(e, ERR_CORRUPT, "IPAM block");
    }
    struct block *b = arena_new(a, struct block);
    b->doc = doc;
    if (prefix_parse(jnode_str(jnode_getc(doc, "cidr")), &b->cidr) < 0 ||
        !prefix_is_masked(&b->cidr) || !alloc_arrays(b, a)) {
        return bad(e, "cidr: not a masked prefix of at most 4096 addresses");
    }
    b->affinity = jnode_str(jnode_getc(doc, "affinity"));
    struct str old = jnode_str(jnode_getc(doc, "hostAffinity")); /* of Calico before 2.0 */
    if (!b->affinity.p && old.n) {
        b->affinity =
            str_starts(old, STR("host:")) ? old : arena_printf(a, "host:%.*s", STR_FMT(old));
    }
    b->claim_time = jnode_str(jnode_getc(doc, "affinity_claim_time"));
    const struct jnode *seq = jnode_getc(doc, "sequenceNumber");
    b->sequence = seq && seq->type == J_INT ? seq->i : 0;
    struct jnode *attrs = jnode_getc(doc, "attributes");
    if (attrs && attrs->n > BLOCK_MAX_SIZE) {
        return bad(e, "more than 4096 attributes");
    }
    if (attrs && attrs->n > b->size) {
        b->attrs = arena_array(a, struct jnode *, attrs->n);
    }
    jnode_each (n, attrs) {
        b->attrs[b->n_attrs++] = n;
    }
    struct jnode *alloc = jnode_getc(doc, "allocations");
    uint32_t i = 0;
    jnode_each (n, alloc) {
        if (i == b->size ||
            (n->type != J_NULL && (n->type != J_INT || n->i < 0 || n->i >= (int64_t)b->n_attrs))) {
            return bad(e, "allocations: too many, or an index without attributes");
        }
        b->alloc[i++] = n->type == J_NULL ? -1 : (int32_t)n->i;
    }
    if (i != b->size) {
        return bad(e, "allocations: too few");
    }
    drop_unused(b, a);
    bool *queued = arena_array(a, bool, b->size);
    struct jnode *queue = jnode_getc(doc, "unallocated");
    jnode_each (n, queue) {
        if (n->type != J_INT || n->i < 0 || n->i >= (int64_t)b->size || queued[n->i] ||
            b->alloc[n->i] >= 0) {
            return bad(e, "unallocated: not a free address, or twice");
        }
        queued[n->i] = true;
        b->queue[b->n_queue++] = (uint32_t)n->i;
    }
    struct jnode *sequences = jnode_getc(doc, "sequenceNumberForAllocation");
    jnode_each (n, sequences) {
        uint64_t k;
        if (str_to_u64(n->key, &k) == 0 && k < b->size && n->type == J_INT) {
            b->sequence_of[k] = n->i;
        }
    }
    *out = b;
    return 0;
}

/* What another version wrote beside the members known here stays. */
static void write_others(const struct block *b, struct buf *out) {
    static const char *const known[] = {
        "cidr",        "affinity",    "affinity_claim_time", "allocations",
        "unallocated", "attributes",  "sequenceNumber",      "sequenceNumberForAllocation",
        "deleted",     "hostAffinity"};
    jnode_each (n, b->doc) {
        bool is_known = false;
        for (size_t i = 0; i < ARRAY_LEN(known) && !is_known; i++) {
            is_known = str_is(n->key, known[i]);
        }
        if (!is_known) {
            buf_putc(out, ',');
            json_quote(out, n->key);
            buf_putc(out, ':');
            json_write(out, n, 0);
        }
    }
}

void block_write(const struct block *b, struct buf *out) {
    char text[IP_TEXT_MAX];
    buf_printf(out, "{\"cidr\":\"%s\",\"affinity\":", prefix_text(&b->cidr, text));
    if (b->affinity.p) {
        json_quote(out, b->affinity);
    } else {
        buf_puts(out, "null");
    }
    if (b->claim_time.p) {
        buf_puts(out, ",\"affinity_claim_time\":");
        json_quote(out, b->claim_time);
    }
    buf_puts(out, ",\"allocations\":[");
    for (uint32_t i = 0; i < b->size; i++) {
        buf_puts(out, i ? "," : "");
        if (b->alloc[i] < 0) {
            buf_puts(out, "null");
        } else {
            buf_printf(out, "%d", b->alloc[i]);
        }
    }
    buf_puts(out, "],\"unallocated\":[");
    for (uint32_t i = 0; i < b->n_queue; i++) {
        buf_printf(out, "%s%u", i ? "," : "", b->queue[i]);
    }
    buf_puts(out, "],\"attributes\":[");
    for (uint32_t i = 0; i < b->n_attrs; i++) {
        buf_puts(out, i ? "," : "");
        json_write(out, b->attrs[i], 0);
    }
    buf_printf(out, "],\"sequenceNumber\":%lld,\"sequenceNumberForAllocation\":{",
               (long long)b->sequence);
    const char *sep = "";
    for (uint32_t i = 0; i < b->size; i++) {
        if (b->alloc[i] >= 0 && b->sequence_of[i]) {
            buf_printf(out, "%s\"%u\":%lld", sep, i, (long long)b->sequence_of[i]);
            sep = ",";
        }
    }
    buf_puts(out, "},\"deleted\":false");
    write_others(b, out);
    buf_putc(out, '}');
}

struct str block_handle_of(const struct block *b, uint32_t ordinal) {
    if (b->alloc[ordinal] < 0) {
        return STR_NULL;
    }
    struct str h = jnode_str(jnode_getc(b->attrs[b->alloc[ordinal]], "handle_id"));
    ptrdiff_t cr = str_find(h, '\r', 0); /* rubbish that a Windows version left there */
    return cr >= 0 ? str_sub(h, 0, (size_t)cr) : h;
}

struct str block_attr_of(const struct block *b, uint32_t ordinal, const char *key) {
    if (b->alloc[ordinal] < 0) {
        return STR("");
    }
    const struct jnode *s = jnode_getc(b->attrs[b->alloc[ordinal]], "secondary");
    struct str v = jnode_str(jnode_getc(s, key));
    return v.p ? v : STR("");
}

/* Points an address at attributes; equal ones are shared. */
static void set_attr(struct block *b, uint32_t ordinal, struct jnode *attr) {
    uint32_t k = 0;
    while (k < b->n_attrs && !jnode_eq(b->attrs[k], attr)) {
        k++;
    }
    if (k == b->n_attrs) {
        b->attrs[b->n_attrs++] = attr;
    }
    b->alloc[ordinal] = (int32_t)k;
}

void block_take(struct block *b, uint32_t ordinal, struct jnode *attr) {
    for (uint32_t i = 0; i < b->n_queue; i++) {
        if (b->queue[i] == ordinal) {
            memmove(&b->queue[i], &b->queue[i + 1], (b->n_queue - i - 1) * sizeof(*b->queue));
            b->n_queue--;
            break;
        }
    }
    set_attr(b, ordinal, attr);
    b->sequence_of[ordinal] = b->sequence;
}

/* Its attributes go unless others share them. */
static void unset_attr(struct block *b, uint32_t ordinal) {
    int32_t k = b->alloc[ordinal];
    b->alloc[ordinal] = -1;
    for (uint32_t i = 0; i < b->size; i++) {
        if (b->alloc[i] == k) {
            return; /* others share the attributes */
        }
    }
    memmove(&b->attrs[k], &b->attrs[k + 1], (b->n_attrs - (uint32_t)k - 1) * sizeof(*b->attrs));
    b->n_attrs--;
    for (uint32_t i = 0; i < b->size; i++) {
        if (b->alloc[i] > k) {
            b->alloc[i]--;
        }
    }
}

void block_set_attr(struct block *b, uint32_t ordinal, struct jnode *attr) {
    unset_attr(b, ordinal);
    set_attr(b, ordinal, attr);
}

void block_give(struct block *b, uint32_t ordinal) {
    unset_attr(b, ordinal);
    b->sequence_of[ordinal] = 0;
    b->queue[b->n_queue++] = ordinal;
}

void block_rest(struct block *b, uint32_t ordinal, int64_t wall_ns, struct arena *a) {
    char stamp[32];
    struct jnode *attr = jnode_new(a, J_MAP);
    jnode_set(a, attr, STR("releasedAt"),
              jnode_new_str(a, arena_dup(a, str_c(clock_rfc3339(wall_ns, stamp)))));
    unset_attr(b, ordinal);
    set_attr(b, ordinal, attr);
    b->sequence_of[ordinal] = 0;
}

static struct str released_at(const struct block *b, uint32_t ordinal) {
    if (b->alloc[ordinal] < 0 || block_handle_of(b, ordinal).n) {
        return STR_NULL;
    }
    return jnode_str(jnode_getc(b->attrs[b->alloc[ordinal]], "releasedAt"));
}

bool block_is_resting(const struct block *b, uint32_t ordinal) {
    return released_at(b, ordinal).n > 0;
}

uint32_t block_wake(struct block *b, int64_t wall_ns, int64_t cooldown_s) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->size; i++) {
        struct str stamp = released_at(b, i);
        /* A stamp that nobody can read (-1: long ago) must not keep an address for ever. */
        if (stamp.n &&
            (cooldown_s <= 0 || clock_parse_rfc3339(stamp) <= wall_ns / 1000000000 - cooldown_s)) {
            block_give(b, i);
            n++;
        }
    }
    return n;
}

uint32_t block_requeue(struct block *b) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->size; i++) {
        bool is_known = b->alloc[i] >= 0;
        for (uint32_t k = 0; k < b->n_queue && !is_known; k++) {
            is_known = b->queue[k] == i;
        }
        if (!is_known) {
            b->queue[b->n_queue++] = i;
            n++;
        }
    }
    return n;
}

uint32_t block_resting(const struct block *b) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->size; i++) {
        n += block_is_resting(b, i);
    }
    return n;
}

int64_t block_claimed_ns(const struct block *b) {
    int64_t s = b->claim_time.p ? clock_parse_rfc3339(b->claim_time) : -1;
    return s < 0 ? 0 : s * 1000000000;
}

uint32_t block_in_use(const struct block *b) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->size; i++) {
        n += b->alloc[i] >= 0;
    }
    return n;
}
