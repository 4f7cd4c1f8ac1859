/* What builder, socket and reader of nf_tables share. */
#pragma once

#include "netlink/nft.h"

enum {
    NFT_COMMENT_MAX = 128, /* bytes of a comment with its NUL, as nft has it */
    NFT_UD_COMMENT = 0,    /* nft's type of a rule's comment in user data */
    NFT_UD_HASH = 0x6d,    /* ours: what the rule means, 8 bytes in host order */
};

/* Ends the transaction; the last message asks for an answer. */
void nft_batch_close(struct nft_batch *b);
