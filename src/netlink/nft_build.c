/* Building nf_tables transactions: bytes only, no socket. Each rule carries a hash of what it means
 * in its user data, computed from the calls that built it (ids of anonymous sets left out, since
 * they differ from one transaction to the next). */
#include "netlink/nft.h"

#include "base/attr.h"
#include "base/hash.h"
#include "netlink/nft_wire.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>

enum {
    ROOM_SMALL = 8192,         /* any message but a list of elements */
    ROOM_ELEMS = 65536 + 4096, /* a list of elements */
    ELEMS_BYTES_MAX = 60000,   /* an attribute's length has 16 bits */
};

static void reserve(struct nft_batch *b, size_t room) {
    if (b->cap - b->n >= room) {
        return;
    }
    size_t cap = b->cap ? b->cap : 16384;
    while (cap - b->n < room) {
        cap *= 2;
    }
    b->p = realloc(b->p, cap);
    mg_assert(b->p != NULL);
    b->cap = cap;
}

static struct nlmsghdr *msg(const struct nft_batch *b) {
    return (struct nlmsghdr *)(void *)(b->p + b->msg);
}

static void put(struct nft_batch *b, uint16_t type, const void *p, size_t n) {
    mnl_attr_put(msg(b), type, n, p);
}
static void put_str(struct nft_batch *b, uint16_t type, struct str s) {
    /* NUL-terminated in the kernel's eyes. */
    char name[256];
    size_t n = s.n < sizeof(name) - 1 ? s.n : sizeof(name) - 1;
    memcpy(name, s.p ? s.p : "", n);
    name[n] = 0;
    mnl_attr_put(msg(b), type, n + 1, name);
}
static void put_be16(struct nft_batch *b, uint16_t type, uint16_t v) {
    v = htons(v);
    put(b, type, &v, sizeof(v));
}
static void put_be32(struct nft_batch *b, uint16_t type, uint32_t v) {
    mnl_attr_put_u32(msg(b), type, htonl(v));
}
static void nest(struct nft_batch *b, uint16_t type) {
    mg_assert(b->n_nests < ARRAY_LEN(b->nest));
    struct nlattr *a = mnl_attr_nest_start(msg(b), type);
    b->nest[b->n_nests++] = (size_t)((uint8_t *)a - b->p);
}
static void unnest(struct nft_batch *b) {
    b->n_nests--;
    mnl_attr_nest_end(msg(b), (struct nlattr *)(void *)(b->p + b->nest[b->n_nests]));
}

static void header(struct nft_batch *b, uint16_t type, uint16_t flags, uint8_t family,
                   uint16_t res_id) {
    b->msg = b->n;
    struct nlmsghdr *h = mnl_nlmsg_put_header(b->p + b->n);
    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | flags;
    h->nlmsg_seq = b->n_msgs;
    struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
    g->nfgen_family = family;
    g->version = NFNETLINK_V0;
    g->res_id = htons(res_id);
}
static void begin(struct nft_batch *b, uint16_t type, uint16_t flags, size_t room) {
    reserve(b, room);
    b->n_msgs++;
    header(b, (uint16_t)((NFNL_SUBSYS_NFTABLES << 8) | type), flags, NFPROTO_INET, 0);
}
static void end(struct nft_batch *b) {
    b->n += msg(b)->nlmsg_len;
}

void nft_batch_fini(struct nft_batch *b) {
    free(b->p);
    *b = (struct nft_batch){0};
}

void nft_batch_begin(struct nft_batch *b, struct str table, uint32_t genid) {
    b->n = 0;
    b->n_msgs = 0;
    b->next_set_id = 1;
    b->table = table;
    reserve(b, ROOM_SMALL);
    header(b, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    if (genid) {
        put_be32(b, NFNL_BATCH_GENID, genid);
    }
    end(b);
}

void nft_batch_close(struct nft_batch *b) {
    /* Only the last message asks for an answer: errors of the others come unasked. */
    msg(b)->nlmsg_flags |= NLM_F_ACK;
    reserve(b, ROOM_SMALL);
    b->n_msgs++;
    header(b, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    end(b);
}

struct nft_mark nft_batch_mark(const struct nft_batch *b) {
    return (struct nft_mark){b->n, b->n_msgs, b->next_set_id};
}

void nft_batch_rewind(struct nft_batch *b, struct nft_mark m) {
    b->n = m.n;
    b->n_msgs = m.n_msgs;
    b->next_set_id = m.next_set_id;
    /* b->msg must name the last whole message: nft_batch_close flags it. */
    size_t off = 0, last = 0;
    if (b->msg >= b->n) {
        while (off < b->n) {
            last = off;
            off += ((struct nlmsghdr *)(void *)(b->p + off))->nlmsg_len;
        }
        b->msg = last;
    }
}

void nft_table_add(struct nft_batch *b) {
    begin(b, NFT_MSG_NEWTABLE, NLM_F_CREATE, ROOM_SMALL);
    put_str(b, NFTA_TABLE_NAME, b->table);
    end(b);
}
void nft_table_del(struct nft_batch *b) {
    begin(b, NFT_MSG_DELTABLE, 0, ROOM_SMALL);
    put_str(b, NFTA_TABLE_NAME, b->table);
    end(b);
}

void nft_chain_add(struct nft_batch *b, struct str name, const struct nft_hook *hook) {
    begin(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE, ROOM_SMALL);
    put_str(b, NFTA_CHAIN_TABLE, b->table);
    put_str(b, NFTA_CHAIN_NAME, name);
    if (hook) {
        put_str(b, NFTA_CHAIN_TYPE, str_c(hook->type));
        put_be32(b, NFTA_CHAIN_POLICY, hook->policy);
        nest(b, NFTA_CHAIN_HOOK);
        put_be32(b, NFTA_HOOK_HOOKNUM, hook->hooknum);
        put_be32(b, NFTA_HOOK_PRIORITY, (uint32_t)hook->priority);
        unnest(b);
    }
    end(b);
}
void nft_chain_flush(struct nft_batch *b, struct str name) {
    begin(b, NFT_MSG_DELRULE, 0, ROOM_SMALL);
    put_str(b, NFTA_RULE_TABLE, b->table);
    put_str(b, NFTA_RULE_CHAIN, name);
    end(b);
}
void nft_chain_del(struct nft_batch *b, struct str name) {
    begin(b, NFT_MSG_DELCHAIN, 0, ROOM_SMALL);
    put_str(b, NFTA_CHAIN_TABLE, b->table);
    put_str(b, NFTA_CHAIN_NAME, name);
    end(b);
}

/* ---- sets ---- */

static size_t field_len(uint8_t type) {
    switch (type) {
    case NFT_TYPE_IPADDR:
        return 4;
    case NFT_TYPE_IP6ADDR:
        return 16;
    case NFT_TYPE_INET_PROTOCOL:
        return 1;
    case NFT_TYPE_INET_SERVICE:
        return 2;
    case NFT_TYPE_IFNAME:
        return 16;
    default:
        return 0;
    }
}

static size_t fields_len(const uint8_t fields[4]) {
    if (!fields[1]) {
        return field_len(fields[0]);
    }
    size_t n = 0;
    for (size_t i = 0; i < 4 && fields[i]; i++) {
        n += (field_len(fields[i]) + 3) & ~(size_t)3;
    }
    return n;
}

size_t nft_set_key_len(const struct nft_set *s) {
    return fields_len(s->fields);
}
size_t nft_set_data_len(const struct nft_set *s) {
    return fields_len(s->data);
}

/* nft's number of a concatenation. */
static uint32_t fields_type(const uint8_t fields[4]) {
    uint32_t type = 0;
    for (size_t i = 0; i < 4 && fields[i]; i++) {
        type = type << 6 | fields[i];
    }
    return type;
}

/* nft's user data of a set: byte order of key and data, so that it prints them right; a comment. */
static size_t set_userdata(const struct nft_set *s, uint8_t *out) {
    enum { UD_KEYBYTEORDER = 0, UD_DATABYTEORDER = 1, UD_COMMENT = 7, HOST = 1, BIG = 2 };
    uint32_t order = s->fields[0] == NFT_TYPE_IFNAME && !s->fields[1] ? HOST : BIG;
    size_t n = 0;
    out[n++] = UD_KEYBYTEORDER;
    out[n++] = sizeof(order);
    memcpy(out + n, &order, sizeof(order));
    n += sizeof(order);
    if (s->data[0]) {
        order = BIG;
        out[n++] = UD_DATABYTEORDER;
        out[n++] = sizeof(order);
        memcpy(out + n, &order, sizeof(order));
        n += sizeof(order);
    }
    if (s->comment.n) {
        size_t len = s->comment.n < NFT_COMMENT_MAX - 1 ? s->comment.n : NFT_COMMENT_MAX - 1;
        out[n++] = UD_COMMENT;
        out[n++] = (uint8_t)(len + 1);
        memcpy(out + n, s->comment.p, len);
        n += len;
        out[n++] = 0;
    }
    return n;
}

static void set_put(struct nft_batch *b, const struct nft_set *s, uint32_t flags, uint32_t id) {
    begin(b, NFT_MSG_NEWSET, NLM_F_CREATE, ROOM_SMALL);
    put_str(b, NFTA_SET_TABLE, b->table);
    put_str(b, NFTA_SET_NAME, s->name);
    if (s->is_interval) {
        flags |= NFT_SET_INTERVAL;
    }
    if (s->is_verdict_map || s->data[0]) {
        flags |= NFT_SET_MAP;
    }
    put_be32(b, NFTA_SET_FLAGS, flags);
    put_be32(b, NFTA_SET_KEY_TYPE, fields_type(s->fields));
    put_be32(b, NFTA_SET_KEY_LEN, (uint32_t)nft_set_key_len(s));
    if (s->is_verdict_map) {
        put_be32(b, NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
        put_be32(b, NFTA_SET_DATA_LEN, 0);
    } else if (s->data[0]) {
        put_be32(b, NFTA_SET_DATA_TYPE, fields_type(s->data));
        put_be32(b, NFTA_SET_DATA_LEN, (uint32_t)nft_set_data_len(s));
    }
    put_be32(b, NFTA_SET_ID, id);
    if (s->has_counters) {
        nest(b, NFTA_SET_EXPR);
        put_str(b, NFTA_EXPR_NAME, STR("counter"));
        nest(b, NFTA_EXPR_DATA);
        unnest(b);
        unnest(b);
    }
    uint8_t ud[256];
    put(b, NFTA_SET_USERDATA, ud, set_userdata(s, ud));
    end(b);
}

void nft_set_add(struct nft_batch *b, const struct nft_set *s) {
    set_put(b, s, 0, b->next_set_id++);
}

void nft_set_del(struct nft_batch *b, struct str name) {
    begin(b, NFT_MSG_DELSET, 0, ROOM_SMALL);
    put_str(b, NFTA_SET_TABLE, b->table);
    put_str(b, NFTA_SET_NAME, name);
    end(b);
}

static void elems_open(struct nft_batch *b, uint32_t set_id) {
    begin(b, b->elems_add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
          b->elems_add ? NLM_F_CREATE : 0, ROOM_ELEMS);
    put_str(b, NFTA_SET_ELEM_LIST_TABLE, b->table);
    put_str(b, NFTA_SET_ELEM_LIST_SET, b->elems_set);
    if (set_id) {
        put_be32(b, NFTA_SET_ELEM_LIST_SET_ID, set_id);
    }
    nest(b, NFTA_SET_ELEM_LIST_ELEMENTS);
    b->elems_open = true;
}

void nft_elems_begin(struct nft_batch *b, struct str set, bool add) {
    b->elems_set = set;
    b->elems_add = add;
    b->elems_open = false;
}

void nft_elems_end(struct nft_batch *b) {
    if (b->elems_open) {
        unnest(b);
        end(b);
        b->elems_open = false;
    }
}

static void elem_room(struct nft_batch *b, uint32_t set_id) {
    if (b->elems_open && msg(b)->nlmsg_len > ELEMS_BYTES_MAX) {
        nft_elems_end(b);
    }
    if (!b->elems_open) {
        elems_open(b, set_id);
    }
}

static void elem_key(struct nft_batch *b, const void *key, size_t n) {
    nest(b, NFTA_SET_ELEM_KEY);
    put(b, NFTA_DATA_VALUE, key, n);
    unnest(b);
}

static void elem_put(struct nft_batch *b, uint32_t set_id, const void *key, size_t n,
                     bool is_interval_end) {
    elem_room(b, set_id);
    nest(b, NFTA_LIST_ELEM);
    if (is_interval_end) {
        put_be32(b, NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    }
    elem_key(b, key, n);
    unnest(b);
}

void nft_elem(struct nft_batch *b, const void *key, size_t n, bool is_interval_end) {
    elem_put(b, 0, key, n, is_interval_end);
}

static void put_verdict(struct nft_batch *b, int32_t code, struct str chain) {
    nest(b, NFTA_DATA_VERDICT);
    put_be32(b, NFTA_VERDICT_CODE, (uint32_t)code);
    if (code == NFT_JUMP || code == NFT_GOTO) {
        put_str(b, NFTA_VERDICT_CHAIN, chain);
    }
    unnest(b);
}

void nft_elem_jump(struct nft_batch *b, const void *key, size_t n, struct str chain) {
    elem_room(b, 0);
    nest(b, NFTA_LIST_ELEM);
    elem_key(b, key, n);
    nest(b, NFTA_SET_ELEM_DATA);
    put_verdict(b, NFT_JUMP, chain);
    unnest(b);
    unnest(b);
}

void nft_elem_pair(struct nft_batch *b, const void *pair, size_t key_n, size_t data_n) {
    elem_room(b, 0);
    nest(b, NFTA_LIST_ELEM);
    elem_key(b, pair, key_n);
    nest(b, NFTA_SET_ELEM_DATA);
    put(b, NFTA_DATA_VALUE, (const uint8_t *)pair + key_n, data_n);
    unnest(b);
    unnest(b);
}

bool nft_key_next(uint8_t *key, size_t n) {
    while (n-- > 0) {
        if (++key[n]) {
            return true;
        }
    }
    return false;
}

uint32_t nft_anon_set(struct nft_batch *b, uint8_t field, const struct nft_range *r, size_t n) {
    struct nft_set s = {.name = STR("__set%d"), .fields = {field}, .is_interval = true};
    uint32_t id = b->next_set_id++;
    set_put(b, &s, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT, id);
    size_t len = field_len(field);
    nft_elems_begin(b, s.name, true);
    for (size_t i = 0; i < n; i++) {
        elem_put(b, id, r[i].from, len, false);
        uint8_t after[16];
        memcpy(after, r[i].to, len);
        if (nft_key_next(after, len)) {
            elem_put(b, id, after, len, true);
        }
    }
    nft_elems_end(b);
    b->hash = hash_fixed(b->hash, r, n * sizeof(*r));
    return id;
}

/* ---- rules ---- */

static void mix(struct nft_batch *b, char what, uint32_t x, uint32_t y, const void *p, size_t n) {
    struct {
        uint32_t what, x, y;
    } head = {(uint32_t)what, x, y};
    b->hash = hash_fixed(b->hash, &head, sizeof(head));
    b->hash = hash_fixed(b->hash, p, n);
}

void nft_rule_begin(struct nft_batch *b, struct str chain) {
    begin(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, ROOM_SMALL);
    put_str(b, NFTA_RULE_TABLE, b->table);
    put_str(b, NFTA_RULE_CHAIN, chain);
    nest(b, NFTA_RULE_EXPRESSIONS);
}

static void expr(struct nft_batch *b, const char *name) {
    /* No expression is larger than a few hundred bytes; a rule has at most some thirty. */
    mg_assert(msg(b)->nlmsg_len < ROOM_SMALL - 1024);
    nest(b, NFTA_LIST_ELEM);
    put_str(b, NFTA_EXPR_NAME, str_c(name));
    nest(b, NFTA_EXPR_DATA);
}
static void expr_end(struct nft_batch *b) {
    unnest(b);
    unnest(b);
}
static void put_data(struct nft_batch *b, uint16_t type, const void *p, size_t n) {
    nest(b, type);
    put(b, NFTA_DATA_VALUE, p, n);
    unnest(b);
}

void nft_x_meta(struct nft_batch *b, uint32_t key, uint32_t dreg) {
    mix(b, 'm', key, dreg, NULL, 0);
    expr(b, "meta");
    put_be32(b, NFTA_META_DREG, dreg);
    put_be32(b, NFTA_META_KEY, key);
    expr_end(b);
}

void nft_x_ct(struct nft_batch *b, uint32_t key, uint32_t dreg) {
    mix(b, 'c', key, dreg, NULL, 0);
    expr(b, "ct");
    put_be32(b, NFTA_CT_DREG, dreg);
    put_be32(b, NFTA_CT_KEY, key);
    expr_end(b);
}

void nft_x_payload(struct nft_batch *b, uint32_t base, uint32_t offset, uint32_t len,
                   uint32_t dreg) {
    uint32_t v[] = {base, offset, len, dreg};
    mix(b, 'p', 0, 0, v, sizeof(v));
    expr(b, "payload");
    put_be32(b, NFTA_PAYLOAD_DREG, dreg);
    put_be32(b, NFTA_PAYLOAD_BASE, base);
    put_be32(b, NFTA_PAYLOAD_OFFSET, offset);
    put_be32(b, NFTA_PAYLOAD_LEN, len);
    expr_end(b);
}

void nft_x_cmp(struct nft_batch *b, uint32_t sreg, uint32_t op, const void *data, size_t n) {
    mix(b, '=', sreg, op, data, n);
    expr(b, "cmp");
    put_be32(b, NFTA_CMP_SREG, sreg);
    put_be32(b, NFTA_CMP_OP, op);
    put_data(b, NFTA_CMP_DATA, data, n);
    expr_end(b);
}

void nft_x_range(struct nft_batch *b, uint32_t sreg, uint32_t op, const void *from, const void *to,
                 size_t n) {
    mix(b, 'r', sreg, op, from, n);
    mix(b, 'R', 0, 0, to, n);
    expr(b, "range");
    put_be32(b, NFTA_RANGE_SREG, sreg);
    put_be32(b, NFTA_RANGE_OP, op);
    put_data(b, NFTA_RANGE_FROM_DATA, from, n);
    put_data(b, NFTA_RANGE_TO_DATA, to, n);
    expr_end(b);
}

void nft_x_and(struct nft_batch *b, uint32_t reg, const void *mask, size_t n) {
    static const uint8_t zero[16];
    mg_assert(n <= sizeof(zero));
    mix(b, '&', reg, 0, mask, n);
    expr(b, "bitwise");
    put_be32(b, NFTA_BITWISE_SREG, reg);
    put_be32(b, NFTA_BITWISE_DREG, reg);
    put_be32(b, NFTA_BITWISE_LEN, (uint32_t)n);
    put_data(b, NFTA_BITWISE_MASK, mask, n);
    put_data(b, NFTA_BITWISE_XOR, zero, n);
    expr_end(b);
}

void nft_x_lookup(struct nft_batch *b, struct str set, uint32_t set_id, uint32_t sreg,
                  bool negate) {
    mix(b, 'l', sreg, negate, set.p, set.n);
    expr(b, "lookup");
    put_str(b, NFTA_LOOKUP_SET, set);
    put_be32(b, NFTA_LOOKUP_SREG, sreg);
    if (set_id) {
        put_be32(b, NFTA_LOOKUP_SET_ID, set_id);
    }
    if (negate) {
        put_be32(b, NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
    }
    expr_end(b);
}

void nft_x_vmap(struct nft_batch *b, struct str map, uint32_t sreg) {
    mix(b, 'v', sreg, 0, map.p, map.n);
    expr(b, "lookup");
    put_str(b, NFTA_LOOKUP_SET, map);
    put_be32(b, NFTA_LOOKUP_SREG, sreg);
    put_be32(b, NFTA_LOOKUP_DREG, NFT_REG_VERDICT);
    expr_end(b);
}

void nft_x_map(struct nft_batch *b, struct str map, uint32_t sreg, uint32_t dreg) {
    mix(b, 'a', sreg, dreg, map.p, map.n);
    expr(b, "lookup");
    put_str(b, NFTA_LOOKUP_SET, map);
    put_be32(b, NFTA_LOOKUP_SREG, sreg);
    put_be32(b, NFTA_LOOKUP_DREG, dreg);
    expr_end(b);
}

void nft_x_fib_daddr_type(struct nft_batch *b, uint32_t dreg) {
    mix(b, 'f', dreg, 0, NULL, 0);
    expr(b, "fib");
    put_be32(b, NFTA_FIB_DREG, dreg);
    put_be32(b, NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    put_be32(b, NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
    expr_end(b);
}

void nft_x_nat(struct nft_batch *b, bool is_dnat, uint32_t nfproto, uint32_t reg_addr,
               uint32_t reg_port) {
    uint32_t v[] = {is_dnat, nfproto, reg_addr, reg_port};
    mix(b, 'T', 0, 0, v, sizeof(v));
    expr(b, "nat");
    put_be32(b, NFTA_NAT_TYPE, is_dnat ? NFT_NAT_DNAT : NFT_NAT_SNAT);
    put_be32(b, NFTA_NAT_FAMILY, nfproto);
    put_be32(b, NFTA_NAT_REG_ADDR_MIN, reg_addr);
    if (reg_port) {
        put_be32(b, NFTA_NAT_REG_PROTO_MIN, reg_port);
    }
    expr_end(b);
}

void nft_x_verdict(struct nft_batch *b, int32_t code, struct str chain) {
    mix(b, '>', (uint32_t)code, 0, chain.p, chain.n);
    expr(b, "immediate");
    put_be32(b, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    nest(b, NFTA_IMMEDIATE_DATA);
    put_verdict(b, code, chain);
    unnest(b);
    expr_end(b);
}

void nft_x_masquerade(struct nft_batch *b, bool fully_random) {
    mix(b, 'M', fully_random, 0, NULL, 0);
    expr(b, "masq");
    if (fully_random) {
        put_be32(b, NFTA_MASQ_FLAGS, 1U << 4); /* NF_NAT_RANGE_PROTO_RANDOM_FULLY */
    }
    expr_end(b);
}

void nft_x_log(struct nft_batch *b, uint16_t group, struct str prefix) {
    enum { HEAD_BYTES = 128 }; /* of the packet: enough for its headers */
    prefix = str_sub(prefix, 0, prefix.n < NFT_LOG_PREFIX_MAX ? prefix.n : NFT_LOG_PREFIX_MAX);
    mix(b, 'L', group, 0, prefix.p, prefix.n);
    expr(b, "log");
    put_be16(b, NFTA_LOG_GROUP, group);
    put_str(b, NFTA_LOG_PREFIX, prefix);
    put_be32(b, NFTA_LOG_SNAPLEN, HEAD_BYTES);
    expr_end(b);
}

void nft_x_counter(struct nft_batch *b) {
    mix(b, 'C', 0, 0, NULL, 0);
    expr(b, "counter");
    expr_end(b);
}

void nft_x_notrack(struct nft_batch *b) {
    mix(b, 'N', 0, 0, NULL, 0);
    expr(b, "notrack");
    expr_end(b);
}

void nft_x_reject(struct nft_batch *b) {
    uint8_t code = NFT_REJECT_ICMPX_PORT_UNREACH;
    mix(b, 'J', 0, 0, NULL, 0);
    expr(b, "reject");
    put_be32(b, NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
    put(b, NFTA_REJECT_ICMP_CODE, &code, sizeof(code));
    expr_end(b);
}

uint64_t nft_rule_end(struct nft_batch *b, struct str comment) {
    unnest(b);
    size_t len = comment.n < NFT_COMMENT_MAX - 1 ? comment.n : NFT_COMMENT_MAX - 1;
    uint64_t h = hash_fixed(b->hash, comment.p, len);
    h = h ? h : 1;
    uint8_t ud[256];
    size_t n = 0;
    if (len) {
        ud[n++] = NFT_UD_COMMENT;
        ud[n++] = (uint8_t)(len + 1);
        memcpy(ud + n, comment.p, len);
        n += len;
        ud[n++] = 0;
    }
    ud[n++] = NFT_UD_HASH;
    ud[n++] = sizeof(h);
    memcpy(ud + n, &h, sizeof(h));
    n += sizeof(h);
    put(b, NFTA_RULE_USERDATA, ud, n);
    end(b);
    b->hash = 0;
    return h;
}

uint64_t nft_chain_hash(uint64_t chain, uint64_t rule) {
    uint64_t v[2] = {chain, rule};
    return hash_fixed(0, v, sizeof(v));
}
