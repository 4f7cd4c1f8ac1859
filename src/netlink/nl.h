/* Netlink requests: a socket, a batch of messages sent by one sendmsg with the answer of each one
 * collected, and dumps that come back whole. Messages of link.h, addr.h, route.h and neigh.h are
 * appended to the batch of a struct nl; nl_commit sends them. Blocking, but the kernel answers
 * within the call. A struct nl belongs to one thread. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <linux/netlink.h>

struct nl;

#define NL_NETNS_OWN (-1)
#define NL_BATCH_BYTES_MAX (4U << 20) /* of one batch */
#define NL_DUMP_BYTES_MAX (256U << 20)

/* Opens a socket of `bus` (NETLINK_ROUTE, NETLINK_NETFILTER) in the network namespace of netns_fd,
 * or in that of the calling thread (NL_NETNS_OWN). Caller owns *out. */
MG_NODISCARD int nl_open(int netns_fd, int bus, struct nl **out, struct err *e);
void nl_close(struct nl *nl); /* accepts NULL */
void nl_close_p(struct nl **nl);

/* Appends a message with its fixed header; attributes go to the newest message. NLM_F_REQUEST and
 * NLM_F_ACK are added. Returns the message's index in the batch. */
size_t nl_add(struct nl *nl, uint16_t type, uint16_t flags, const void *header, size_t n);
void nl_put(struct nl *nl, uint16_t type, const void *p, size_t n);
void nl_put_u8(struct nl *nl, uint16_t type, uint8_t v);
void nl_put_u16be(struct nl *nl, uint16_t type, uint16_t v);
void nl_put_u32(struct nl *nl, uint16_t type, uint32_t v);
void nl_put_u32be(struct nl *nl, uint16_t type, uint32_t v);
void nl_put_strz(struct nl *nl, uint16_t type, const char *s);
/* Opens a nested attribute (header: bytes before its first member, may be 0); returns its handle
 * for nl_nest_end. */
size_t nl_nest(struct nl *nl, uint16_t type, const void *header, size_t n);
void nl_nest_end(struct nl *nl, size_t nest);
/* Number of messages waiting; drops them. */
size_t nl_pending(const struct nl *nl);
void nl_abandon(struct nl *nl);

/* Sends the batch and collects every answer. 0 when all messages got one (look at nl_code for
 * each), negative when the conversation itself broke. The batch is empty afterwards; codes and
 * texts stay until the next nl_add. */
MG_NODISCARD int nl_exchange(struct nl *nl, struct err *e);
/* Answer to message i of the last exchange: 0 or -errno; the kernel's own words ("" if none). */
int nl_code(const struct nl *nl, size_t i);
const char *nl_text(const struct nl *nl, size_t i);
/* nl_exchange, then the first code that is an error: it and its text are in e. */
MG_NODISCARD int nl_commit(struct nl *nl, struct err *e);

/* Calls cb for each object of an answer, after the whole answer has arrived. nlh and its payload of
 * the family's header are complete; cb < 0 ends the walk and is returned. */
typedef int (*nl_object_cb)(void *arg, const struct nlmsghdr *nlh);
/* Sends the one message of the batch as a dump. A dump that the kernel calls interrupted is taken
 * again, up to 8 times; then ERR_RETRY. */
MG_NODISCARD int nl_dump(struct nl *nl, size_t header_bytes, nl_object_cb cb, void *arg,
                         struct err *e);
/* Sends the one message of the batch and hands the object it answers with to cb. */
MG_NODISCARD int nl_get(struct nl *nl, size_t header_bytes, nl_object_cb cb, void *arg,
                        struct err *e);

/* Is there a whole message in what is left of a datagram? (mnl_nlmsg_ok takes lengths from 2^31 for
 * negative.) */
static inline bool nl_msg_ok(const struct nlmsghdr *nlh, int left) {
    return left >= (int)sizeof(*nlh) && nlh->nlmsg_len >= sizeof(*nlh) &&
           nlh->nlmsg_len <= (uint32_t)left;
}

/* Attributes of a message behind its fixed header: tb[0..max], NULL where absent. Attributes that
 * don't fit their message end the walk; unknown types are skipped. */
struct nlattr;
void nl_attrs(const struct nlmsghdr *nlh, size_t header_bytes, const struct nlattr **tb,
              uint16_t max);
void nl_attrs_nested(const struct nlattr *nest, const struct nlattr **tb, uint16_t max);
/* Payload of an attribute of at least n bytes; NULL if it is absent or shorter. */
const void *nl_attr_data(const struct nlattr *a, size_t n);
size_t nl_attr_bytes(const struct nlattr *a);
/* Values; `def` when the attribute is absent or too short. */
uint32_t nl_attr_u32(const struct nlattr *a, uint32_t def);
uint8_t nl_attr_u8(const struct nlattr *a, uint8_t def);
/* Copies a text of the kernel into out, always terminated. False if absent or too long. */
bool nl_attr_text(const struct nlattr *a, char *out, size_t cap);
