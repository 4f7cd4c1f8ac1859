/* The small matches that rules are made of. Each loads into the first register; a concatenation
 * goes on in the next ones, four bytes a step. */
#pragma once

#include "base/ip.h"
#include "netlink/nft.h"

#include <netinet/in.h> /* before the kernel's, which then keep from saying the same */

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

enum { R0 = NFT_REG32_00, R1 = NFT_REG32_01, R4 = NFT_REG32_04 };

static inline void match_u8(struct nft_batch *b, uint8_t v, bool negate) {
    nft_x_cmp(b, R0, negate ? NFT_CMP_NEQ : NFT_CMP_EQ, &v, 1);
}
static inline void match_family(struct nft_batch *b, enum ip_family f) {
    nft_x_meta(b, NFT_META_NFPROTO, R0);
    match_u8(b, f == IP_V4 ? NFPROTO_IPV4 : NFPROTO_IPV6, false);
}
static inline void load_addr(struct nft_batch *b, enum ip_family f, bool is_src, uint32_t reg) {
    uint32_t off = f == IP_V4 ? (is_src ? 12 : 16) : (is_src ? 8 : 24);
    nft_x_payload(b, NFT_PAYLOAD_NETWORK_HEADER, off, f == IP_V4 ? 4 : 16, reg);
}
static inline void load_port(struct nft_batch *b, bool is_src, uint32_t reg) {
    nft_x_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, is_src ? 0 : 2, 2, reg);
}
/* protocol . port into reg and the next one */
static inline void load_proto_port(struct nft_batch *b, bool is_src, uint32_t reg) {
    nft_x_meta(b, NFT_META_L4PROTO, reg);
    load_port(b, is_src, reg + 1);
}
/* The family is matched already. */
static inline void match_prefix(struct nft_batch *b, const struct prefix *p, bool is_src) {
    uint8_t mask[16] = {0};
    memset(mask, 0xff, p->len / 8);
    if (p->len % 8) {
        mask[p->len / 8] = (uint8_t)(0xff00 >> (p->len % 8));
    }
    load_addr(b, p->ip.family, is_src, R0);
    nft_x_and(b, R0, mask, ip_bytes(&p->ip));
    nft_x_cmp(b, R0, NFT_CMP_EQ, p->ip.b, ip_bytes(&p->ip));
}
