/* nf_tables by netlink: build one transaction, commit it, read back, listen. The inet family only.
 *
 * A batch is bytes in one growing buffer, sent by one sendmsg: the kernel takes all of it or none.
 * Nothing here knows what the rules mean. Source: linux/netfilter/nf_tables.h, nfnetlink.h. */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* ---- building a transaction ---- */

struct nft_batch {
    uint8_t *p;
    size_t n, cap;
    size_t msg;     /* offset of the message being built */
    size_t nest[8]; /* offsets of open nests */
    unsigned n_nests;
    uint32_t n_msgs;      /* messages since nft_batch_begin, without begin and end */
    uint32_t next_set_id; /* for anonymous sets */
    uint64_t hash;        /* of the rule being built */
    struct str table;
    struct str elems_set;
    bool elems_add, elems_open;
};

void nft_batch_fini(struct nft_batch *b);
/* Empties and opens a transaction on `table` (the name must outlive the batch). genid != 0: commit
 * fails with ERR_RETRY unless the ruleset still is of that generation. */
void nft_batch_begin(struct nft_batch *b, struct str table, uint32_t genid);
/* Where the transaction stands, and back there: messages after the mark are forgotten. */
struct nft_mark {
    size_t n;
    uint32_t n_msgs, next_set_id;
};
struct nft_mark nft_batch_mark(const struct nft_batch *b);
void nft_batch_rewind(struct nft_batch *b, struct nft_mark m);

void nft_table_add(struct nft_batch *b);
void nft_table_del(struct nft_batch *b);

struct nft_hook {
    uint32_t hooknum; /* NF_INET_* */
    int32_t priority;
    const char *type; /* "filter", "nat", "route" */
    uint32_t policy;  /* NF_ACCEPT, NF_DROP */
};
/* hook NULL: a plain chain. */
void nft_chain_add(struct nft_batch *b, struct str name, const struct nft_hook *hook);
void nft_chain_flush(struct nft_batch *b, struct str name); /* all its rules */
void nft_chain_del(struct nft_batch *b, struct str name);   /* must be unreferenced by then */

/* nft's own numbers of data types, so that `nft list` prints values well. */
enum {
    NFT_TYPE_IPADDR = 7,
    NFT_TYPE_IP6ADDR = 8,
    NFT_TYPE_INET_PROTOCOL = 12,
    NFT_TYPE_INET_SERVICE = 13,
    NFT_TYPE_IFNAME = 41,
};
struct nft_set {
    struct str name;
    uint8_t
        fields[4];   /* NFT_TYPE_*, 0 ends; more than one: a concatenation, each in 4-byte steps */
    uint8_t data[4]; /* of a map: what a key leads to, likewise; not of a verdict map */
    bool is_interval, is_verdict_map;
    bool has_counters; /* each element counts the packets that were found by it */
    struct str comment;
};
/* Bytes of one key of the set, of what it leads to (0: no map of values). */
size_t nft_set_key_len(const struct nft_set *s);
size_t nft_set_data_len(const struct nft_set *s);
void nft_set_add(struct nft_batch *b, const struct nft_set *s);
void nft_set_del(struct nft_batch *b, struct str name);

/* Elements: begin, any number, end. Long lists are split over messages. */
void nft_elems_begin(struct nft_batch *b, struct str set, bool add);
void nft_elem(struct nft_batch *b, const void *key, size_t n, bool is_interval_end);
/* Element of a map: key and value, one after the other. */
void nft_elem_pair(struct nft_batch *b, const void *pair, size_t key_n, size_t data_n);
/* Element of a verdict map: jump to a chain. */
void nft_elem_jump(struct nft_batch *b, const void *key, size_t n, struct str chain);
void nft_elems_end(struct nft_batch *b);

/* Rules: begin, expressions in order, end. reg: NFT_REG32_00 + i. */
void nft_rule_begin(struct nft_batch *b, struct str chain);
void nft_x_meta(struct nft_batch *b, uint32_t key, uint32_t dreg);
void nft_x_ct(struct nft_batch *b, uint32_t key, uint32_t dreg);
void nft_x_payload(struct nft_batch *b, uint32_t base, uint32_t offset, uint32_t len,
                   uint32_t dreg);
void nft_x_cmp(struct nft_batch *b, uint32_t sreg, uint32_t op, const void *data, size_t n);
void nft_x_range(struct nft_batch *b, uint32_t sreg, uint32_t op, const void *from, const void *to,
                 size_t n);
/* reg = reg & mask (in place). */
void nft_x_and(struct nft_batch *b, uint32_t reg, const void *mask, size_t n);
void nft_x_lookup(struct nft_batch *b, struct str set, uint32_t set_id, uint32_t sreg, bool negate);
void nft_x_vmap(struct nft_batch *b, struct str map, uint32_t sreg);
/* dreg = what the map has for the key; a key that it hasn't ends the rule. */
void nft_x_map(struct nft_batch *b, struct str map, uint32_t sreg, uint32_t dreg);
/* Type of the packet's destination (RTN_LOCAL …), as a 32-bit number of the host's byte order. */
void nft_x_fib_daddr_type(struct nft_batch *b, uint32_t dreg);
/* Rewrites the destination (else the source) of a connection to the address in reg_addr and, unless
 * 0, the port in reg_port. nfproto: NFPROTO_IPV4, NFPROTO_IPV6. */
void nft_x_nat(struct nft_batch *b, bool is_dnat, uint32_t nfproto, uint32_t reg_addr,
               uint32_t reg_port);
/* code: NF_ACCEPT, NF_DROP, NFT_JUMP, NFT_GOTO, NFT_RETURN; chain for jump and goto. */
void nft_x_verdict(struct nft_batch *b, int32_t code, struct str chain);
void nft_x_masquerade(struct nft_batch *b, bool fully_random);
/* Sends the packet's head to whoever listens to the NFLOG group (nflog.h). */
enum { NFT_LOG_PREFIX_MAX = 127 };
void nft_x_log(struct nft_batch *b, uint16_t group, struct str prefix);
/* Counts the packets that get this far in the rule. */
void nft_x_counter(struct nft_batch *b);
void nft_x_notrack(struct nft_batch *b);
/* Ends the packet's way; the sender is told "port unreachable". */
void nft_x_reject(struct nft_batch *b);
/* Adds the comment and ends the rule; returns a hash of all that it means, never 0. The hash is
 * kept in the kernel with the rule (user data), so that a reader can tell it from another. */
uint64_t nft_rule_end(struct nft_batch *b, struct str comment);
/* Combines rule hashes of a chain, in order. Starts at 0. */
uint64_t nft_chain_hash(uint64_t chain, uint64_t rule);

/* An anonymous interval set for the next rule: ranges of keys of one field, [from, to] inclusive,
 * sorted, not touching. Returns the id for nft_x_lookup (name "__set%d"). Between rules only. */
struct nft_range {
    uint8_t from[16], to[16];
};
uint32_t nft_anon_set(struct nft_batch *b, uint8_t field, const struct nft_range *r, size_t n);
/* Adds n to a key in network order; false when it wraps round. */
bool nft_key_next(uint8_t *key, size_t n);

/* ---- the kernel ---- */

struct nft_sock;
/* In the calling thread's network namespace. */
MG_NODISCARD int nft_open(struct nft_sock **out, struct err *e);
void nft_close(struct nft_sock *s); /* accepts NULL */
/* The netlink port of our writes: events that carry it are our own. */
uint32_t nft_portid(const struct nft_sock *s);
/* Closes the transaction and sends it. 0, or -errno with the kernel's reason; ERR_RETRY when the
 * generation moved. An empty transaction is not sent. */
MG_NODISCARD int nft_commit(struct nft_sock *s, struct nft_batch *b, struct err *e);
/* Number of the newest ruleset generation. */
MG_NODISCARD int nft_generation(struct nft_sock *s, uint32_t *out, struct err *e);

struct nft_count {
    uint64_t packets, bytes;
};
struct nft_rule_read {
    uint64_t hash;      /* what nft_rule_end gave when we wrote it; 0 = not ours */
    struct str comment; /* as written, cut */
    struct nft_count count;
};
struct nft_elem_read {
    struct str key;
    bool is_interval_end;
    struct str chain; /* target of a verdict map's element, else empty */
    struct str data;  /* what a map's element leads to, else empty */
    struct nft_count count;
};
struct nft_read_ops {
    void (*table)(void *arg);
    /* hook: type NULL = plain chain. */
    void (*chain)(void *arg, struct str name, const struct nft_hook *hook);
    void (*rule)(void *arg, struct str chain, const struct nft_rule_read *r);
    void (*set)(void *arg, const struct nft_set *s);
    void (*elem)(void *arg, struct str set, const struct nft_elem_read *e);
};
/* Reads all of one table. 0 also when it is not there (table() is not called). ERR_RETRY when the
 * ruleset changed meanwhile: what was told is void. */
MG_NODISCARD int nft_read(struct nft_sock *s, struct str table, const struct nft_read_ops *ops,
                          void *arg, struct err *e);

/* A descriptor that becomes readable when somebody changes nf_tables. */
MG_NODISCARD int nft_monitor_open(int *fd, struct err *e);
/* Takes all that waits. Returns how many events were about `table` and not from own_port, or
 * INT_MAX when events were lost. */
int nft_monitor_read(int fd, struct str table, uint32_t own_port);
